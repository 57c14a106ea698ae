//! One of the two nodes: the real endpoint, with numbers in place of randomness, and what of it a search looks at.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::Ipv6Addr;
use std::time::Duration;

use control::shim6::{
    Config, ContextId, DropReason, Endpoint, Feature, GoneReason, Incoming, LocalHost, LocatorProof, Open, Output,
    State, TagSpace, Verdict,
};
use control::time::Instant;
use dataplane::wire::shim6::{Addresses, ControlPacket, LocatorList, Message, VerificationMethod, emit_packet};
use dataplane::wire::{ContextTag, Locator, LocatorPair, Ulid, UlidPair};
use rand::TryRng;

use crate::Setup;

/// Something that happens to a node. A state of a node is the list of what happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A host behind it wants to talk to one at the other site: this pair of the setup.
    Open(usize),
    /// A packet arrives, by its number.
    Receive(u32),
    /// Its next timer runs.
    Expire,
    /// This many milliseconds pass, and timers that run in them.
    Pass(u64),
    /// The hosts behind it send payload through every context that takes it.
    Talk,
    /// Its hosts get another list of locators, and their peers are told.
    Renumber,
    /// It forgets all contexts.
    Discard,
    /// It starts anew, with another secret and no memory.
    Restart,
}

/// What is on the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Message(Box<Message>),
    Payload(ContextTag),
}

/// A packet, and what nobody sees in it.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The node it is for.
    pub to: usize,
    pub addresses: Addresses,
    pub what: What,
    /// Its features; see [`Mark`].
    pub marks: Vec<Mark>,
}

/// A feature of a state as the search keeps it: validators by number, times in units too long to notice how far apart
/// the made-up random numbers put two timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    Value(u128),
    Tag(u64),
    Nonce(u32),
    Validator(u32),
    Time(u64),
}

/// Validators seen so far. Which node made one, in which life and when, decides whether it still counts.
#[derive(Default)]
pub struct Validators {
    numbers: HashMap<Vec<u8>, u32>,
    pub issued: Vec<Issued>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Issued {
    pub site: usize,
    pub life: u32,
    pub tick: u64,
}

impl Validators {
    /// Responder nonces count time in these.
    pub const TICK: Duration = Duration::from_millis(100);

    fn issue(&mut self, validator: &[u8], issued: Issued) {
        let number = self.issued.len() as u32;
        if !self.numbers.contains_key(validator) {
            self.numbers.insert(validator.to_vec(), number);
            self.issued.push(issued);
        }
    }

    /// The mark of a validator, if there is one: what comes from nowhere has no number and stops the test.
    pub fn mark(&self, validator: &[u8]) -> Mark {
        if validator.is_empty() { Mark::Value(0) } else { Mark::Validator(self.numbers[validator]) }
    }

    pub fn tick(now: Instant) -> u64 {
        (now.0.as_nanos() / Self::TICK.as_nanos()) as u64
    }
}

/// A context as the properties see it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub state: State,
    pub ulids: UlidPair,
    pub local_tag: ContextTag,
    pub peer_tag: Option<ContextTag>,
    pub peer_locators: Vec<Locator>,
    /// What the peer knows of ours.
    pub told: Vec<Locator>,
    /// Whether there is news for the peer.
    pub news: bool,
    pub pair: LocatorPair,
}

/// How a life of a node begins.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    pub life: u32,
    pub at: Instant,
    /// What is configured outlives a node: generation of the lists of its hosts.
    pub generation: u32,
}

impl Birth {
    pub const FIRST: Birth = Birth { life: 0, at: Instant::START, generation: FIRST_LIST };
}

/// A node under way.
pub struct Live {
    pub site: usize,
    pub life: u32,
    pub now: Instant,
    pub endpoint: Endpoint,
    rng: Counter,
    out: Vec<Output>,
}

/// What came of an input.
#[derive(Default)]
pub struct Effect {
    pub sent: Vec<(Addresses, What)>,
    /// What became of a packet.
    pub verdict: Option<Verdict>,
    /// Contexts that are no more.
    pub gone: Vec<GoneReason>,
}

/// Counts where others are random: every number is new, none is guessed by the other side, and waits are all the same to
/// within a millisecond (they are half their nominal time, since the numbers are small).
struct Counter {
    base: u64,
    count: u64,
}

impl TryRng for Counter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.count += 1;
        Ok((self.base | self.count) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.try_next_u32().map(u64::from)
    }

    fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), Infallible> {
        self.try_next_u32().map(|number| octets.fill(number as u8))
    }
}

/// Believes what addresses say: parameters begin with the ULID, and locators carry its site and host.
struct ByAddress;

impl LocatorProof for ByAddress {
    fn owns(&mut self, ulid: Ulid, pds: &[u8]) -> bool {
        pds == ulid.0.octets()
    }

    fn proves(&mut self, ulid: Ulid, pds: Option<&[u8]>, list: &LocatorList, _: Option<&[u8]>) -> Result<(), usize> {
        let owned = pds.is_some_and(|pds| self.owns(ulid, pds));
        let foreign = |(locator, _): &(Locator, VerificationMethod)| !owned || !is_of(*locator, ulid);
        list.entries.iter().position(foreign).map_or(Ok(()), Err)
    }

    fn parameters_of(&self, address: Ulid, _: &[u8]) -> Vec<u8> {
        address.0.octets().to_vec()
    }
}

/// Host `host` of site `site`, as ULID.
pub fn ulid(site: usize, host: usize) -> Ulid {
    Ulid(Ipv6Addr::new(0xfc00, site as u16, 0, 0, 0, 0, 0, host as u16))
}

fn locator(site: usize, provider: usize, host: usize) -> Locator {
    Locator(Ipv6Addr::new(0x2001, 0xdb8, site as u16, provider as u16, 0, 0, 0, host as u16))
}

/// Generation of the list that hosts have when a node starts.
const FIRST_LIST: u32 = 7;

/// A host with the list of this generation: each has one locator more than the last.
fn local_host(setup: &Setup, site: usize, host: usize, generation: u32) -> LocalHost {
    let ulid = ulid(site, host);
    let providers = setup.providers + (generation - FIRST_LIST) as usize;
    let locators = (1..=providers).map(|it| (locator(site, it, host), VerificationMethod::Hba)).collect();
    let pds = Some(ulid.0.octets().to_vec());
    LocalHost { ulid, locators, pds, generation, signature: None, preferences: None }
}

/// Whether the host with this ULID has this locator.
pub fn is_of(locator: Locator, ulid: Ulid) -> bool {
    let (here, there) = (locator.0.segments(), ulid.0.segments());
    here[0] == 0x2001 && (here[2], here[7]) == (there[1], there[7])
}

impl Live {
    /// A node at the start of a life.
    pub fn new(setup: &Setup, site: usize, Birth { life, at, generation }: Birth) -> Live {
        let config = Config {
            i1_retries_max: setup.retries_max,
            i2_retries_max: setup.retries_max,
            i2bis_retries_max: setup.retries_max,
            // Nothing happens between two timers but what takes no time at all, so this must not take any either.
            resend_interval: Duration::ZERO,
            confusion: setup.confusion,
            ..Config::default()
        };
        let tags = TagSpace::with_random_bits(site as u8, setup.tag_bits[site]);
        let secret = [(site as u32 * 100 + life) as u8; 32];
        let mut endpoint = Endpoint::new(config, secret, tags, Box::new(|_| 0), Box::new(ByAddress));
        for host in 1..=setup.hosts[site] {
            endpoint.set_host(local_host(setup, site, host, generation)).expect("a host like any other");
        }
        // Bits that tags drop, so that with few bits the tags of one life are those of the next.
        let rng = Counter { base: (site as u64) << 20 | u64::from(life) << 14, count: 0 };
        Live { site, life, now: at, endpoint, rng, out: Vec::new() }
    }

    /// One input, and what the node says to it.
    pub fn apply(&mut self, setup: &Setup, input: Input, packet: Option<&Packet>) -> Effect {
        let mut effect = Effect::default();
        match input {
            Input::Open(pair) => self.open(setup, pair),
            Input::Receive(_) => {
                let packet = packet.expect("the packet that is received");
                effect.verdict = Some(self.receive(packet));
            }
            Input::Expire => {
                self.now = self.now.max(self.endpoint.deadline().unwrap_or(self.now));
                self.endpoint.expire(self.now, &mut self.rng, &mut self.out);
            }
            Input::Pass(millis) => {
                self.now = self.now + Duration::from_millis(millis);
                self.endpoint.expire(self.now, &mut self.rng, &mut self.out);
            }
            Input::Talk => self.talk(&mut effect),
            Input::Renumber => self.renumber(setup),
            Input::Discard => {
                let all: Vec<ContextId> = self.endpoint.contexts().map(|context| context.id).collect();
                all.iter().for_each(|id| self.endpoint.discard(*id, GoneReason::Discarded, &mut self.out));
            }
            Input::Restart => {
                let birth = Birth { life: self.life + 1, at: self.now, generation: self.generation() };
                *self = Live::new(setup, self.site, birth);
                effect.gone.push(GoneReason::Discarded);
            }
        }
        self.endpoint.selfcheck();
        for output in self.out.drain(..) {
            match output {
                Output::Send { addresses, message, .. } => {
                    effect.sent.push((addresses, What::Message(Box::new(message))))
                }
                Output::Gone { reason, .. } => effect.gone.push(reason),
                _ => {}
            }
        }
        effect
    }

    fn open(&mut self, setup: &Setup, pair: usize) {
        let [a, b] = setup.pairs[pair];
        let (local, peer) = if self.site == 0 { (a, b) } else { (b, a) };
        let there = 1 - self.site;
        let pairs = (1..=setup.providers)
            .map(|it| LocatorPair { local: locator(self.site, it, local), peer: locator(there, it, peer) })
            .collect();
        let ulids = UlidPair { local: ulid(self.site, local), peer: ulid(there, peer) };
        // It may be refused: there is a context, or a failure not long ago.
        let _ = self.endpoint.open(self.now, &mut self.rng, Open { ulids, fork: 0, pairs }, &mut self.out);
    }

    fn renumber(&mut self, setup: &Setup) {
        for host in 1..=setup.hosts[self.site] {
            let generation = self.endpoint.host(ulid(self.site, host)).map_or(FIRST_LIST, |host| host.generation) + 1;
            self.endpoint.set_host(local_host(setup, self.site, host, generation)).expect("a host like any other");
        }
        let all: Vec<ContextId> = self.endpoint.contexts().map(|context| context.id).collect();
        for id in all {
            self.endpoint.update_locators(self.now, &mut self.rng, id, &mut self.out).expect("the context exists");
        }
    }

    fn receive(&mut self, packet: &Packet) -> Verdict {
        let addresses = packet.addresses;
        match &packet.what {
            What::Message(message) => {
                let octets = emit_packet(addresses, 64, message).expect("it was sent");
                let parsed = ControlPacket::parse(&octets).expect("it was sent");
                let incoming = Incoming {
                    addresses: parsed.addresses,
                    message: Ok(&parsed.message),
                    ipv6_packet: &octets,
                    shim6_offset: parsed.offset,
                };
                self.endpoint.receive(self.now, &mut self.rng, incoming, &mut self.out)
            }
            What::Payload(tag) => match self.endpoint.find_by_local_tag(*tag).map(|context| context.id) {
                Some(id) => {
                    self.endpoint.used(self.now, id);
                    self.endpoint.payload_received(self.now, id, &mut self.out)
                }
                None => {
                    let pair = LocatorPair { local: Locator(addresses.target), peer: Locator(addresses.source) };
                    self.endpoint.payload_without_context(self.now, *tag, pair, &mut self.out)
                }
            },
        }
    }

    fn talk(&mut self, effect: &mut Effect) {
        let contexts = self.endpoint.contexts().filter(|context| context.tags_payload());
        let ready: Vec<_> =
            contexts.filter_map(|context| Some((context.id, context.peer_tag?, context.pair))).collect();
        for (id, tag, pair) in ready {
            self.endpoint.used(self.now, id);
            let addresses = Addresses { source: pair.local.0, target: pair.peer.0 };
            effect.sent.push((addresses, What::Payload(tag)));
        }
    }

    /// Everything about the node that decides what it does next.
    pub fn marks(&self, validators: &Validators) -> Vec<Mark> {
        // Half a unit more, so that what is a millisecond off stays in its unit.
        let unit = Duration::from_millis(50);
        let time = |time: Duration| Mark::Time(((time + unit / 2).as_nanos() / unit.as_nanos()) as u64);
        let mut marks = vec![Mark::Value(self.generation().into())];
        self.endpoint.portray(self.now, &mut |feature| {
            marks.push(match feature {
                Feature::Value(value) => Mark::Value(value),
                Feature::Tag(tag) => Mark::Tag(tag.value()),
                Feature::Nonce(nonce) => Mark::Nonce(nonce),
                Feature::Validator(validator) => validators.mark(validator),
                Feature::Ahead(wait) | Feature::Ago(wait) => time(wait),
            });
        });
        marks
    }

    /// Generation of its hosts' lists.
    pub fn generation(&self) -> u32 {
        self.endpoint.host(ulid(self.site, 1)).map_or(0, |host| host.generation)
    }

    /// Takes note of the validators in what the node just sent.
    pub fn note_validators(&self, sent: &[(Addresses, What)], validators: &mut Validators) {
        for (_, what) in sent {
            if let What::Message(message) = what
                && let Message::R1 { options, .. } | Message::R1bis { options, .. } = &**message
            {
                let issued = Issued { site: self.site, life: self.life, tick: Validators::tick(self.now) };
                validators.issue(options.validator.as_deref().unwrap_or_default(), issued);
            }
        }
    }

    pub fn contexts(&self) -> Vec<Seen> {
        let seen = self.endpoint.contexts().map(|context| Seen {
            state: context.state,
            ulids: context.ulids,
            local_tag: context.local_tag,
            peer_tag: context.peer_tag,
            peer_locators: context.peer_locators.iter().map(|known| known.locator).collect(),
            told: context.host.locators.iter().map(|(locator, _)| *locator).collect(),
            news: context.update_outstanding(),
            pair: context.pair,
        });
        seen.collect()
    }

    /// Numbers drawn so far.
    pub fn draws(&self) -> u64 {
        self.rng.count
    }
}

impl Packet {
    pub fn new(to: usize, addresses: Addresses, what: What, validators: &Validators) -> Packet {
        let mut marks: Vec<Mark> =
            [addresses.source, addresses.target].iter().map(|address| Mark::Value(address.to_bits())).collect();
        match &what {
            What::Payload(tag) => marks.push(Mark::Tag(tag.value())),
            What::Message(message) => mark_message(message, &mut marks, validators),
        }
        Packet { to, addresses, what, marks }
    }

    /// What tells this packet from all others.
    pub fn octets(&self) -> Vec<u8> {
        match &self.what {
            What::Message(message) => emit_packet(self.addresses, 64, message).expect("it was sent"),
            What::Payload(tag) => {
                let (source, target) = (self.addresses.source.octets(), self.addresses.target.octets());
                [&source[..], &target, &tag.octets()].concat()
            }
        }
    }

    pub fn name(&self) -> String {
        match &self.what {
            What::Message(message) => {
                let text = format!("{message:?}");
                text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
            }
            What::Payload(_) => "payload".to_owned(),
        }
    }

    /// Whether it is an I2 or I2bis, and its validator if so.
    pub fn offer(&self) -> Option<&[u8]> {
        match &self.what {
            What::Message(message) => match &**message {
                Message::I2 { options, .. } | Message::I2bis { options, .. } => options.validator.as_deref(),
                _ => None,
            },
            What::Payload(_) => None,
        }
    }

    pub fn is_i1(&self) -> bool {
        matches!(&self.what, What::Message(message) if matches!(**message, Message::I1 { .. }))
    }
}

/// Nonces and tags of a message, and what else differs between messages of these nodes: of a host's lists, the
/// generation says all.
fn mark_message(message: &Message, marks: &mut Vec<Mark>, validators: &Validators) {
    let (kind, tags, nonce, options): (u128, Vec<ContextTag>, Option<u32>, _) = match message {
        Message::I1 { initiator_tag, initiator_nonce, options } => {
            (1, vec![*initiator_tag], Some(*initiator_nonce), Some(options))
        }
        Message::R1 { initiator_nonce, options, .. } => (2, vec![], Some(*initiator_nonce), Some(options)),
        Message::I2 { initiator_tag, initiator_nonce, options, .. } => {
            (3, vec![*initiator_tag], Some(*initiator_nonce), Some(options))
        }
        Message::R2 { responder_tag, initiator_nonce, options } => {
            (4, vec![*responder_tag], Some(*initiator_nonce), Some(options))
        }
        Message::R1bis { packet_tag, options, .. } => (5, vec![*packet_tag], None, Some(options)),
        Message::I2bis { initiator_tag, initiator_nonce, packet_tag, options, .. } => {
            (6, vec![*initiator_tag, *packet_tag], Some(*initiator_nonce), Some(options))
        }
        Message::UpdateRequest { receiver_tag, request_nonce, options } => {
            (64, vec![*receiver_tag], Some(*request_nonce), Some(options))
        }
        Message::UpdateAck { receiver_tag, request_nonce, options } => {
            (65, vec![*receiver_tag], Some(*request_nonce), Some(options))
        }
        Message::Error(error) => (u128::from(error.code.code()) << 8 | 7, vec![], None, None),
        other => panic!("nobody here sends {other:?}"),
    };
    marks.push(Mark::Value(kind));
    marks.extend(tags.iter().map(|tag| Mark::Tag(tag.value())));
    marks.extend(nonce.map(Mark::Nonce));
    if let Some(options) = options {
        marks.push(options.validator.as_deref().map_or(Mark::Value(0), |validator| validators.mark(validator)));
        let ulids = options.ulids.map_or([0, 0], |ulids| [ulids.local.0.to_bits(), ulids.peer.0.to_bits()]);
        marks.extend(ulids.map(Mark::Value));
        marks.push(Mark::Value(options.locators.as_ref().map_or(0, |list| list.generation.into())));
    }
}

/// A drop for want of tokens would hide behaviour that other numbers would show.
pub fn is_limited(verdict: Option<Verdict>) -> bool {
    matches!(verdict, Some(Verdict::Dropped(DropReason::RateLimited | DropReason::Full | DropReason::Oversized)))
}
