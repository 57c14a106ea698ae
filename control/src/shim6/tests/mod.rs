//! Two nodes, or one node and a peer made by hand. Every message between them goes through its octets.

mod admission;
mod confusion;
mod dispatch;
mod establish;
mod flood;
mod hosts;
mod labels;
mod local;
mod lossy;
mod mirror;
mod proof;
mod recover;
mod table;
mod timers;
mod update;
mod waiting;

use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::wire::ipv6::View;
use dataplane::wire::shim6::{
    Addresses, ControlPacket, LocatorList, Message, Options, PacketError, VerificationMethod, emit_packet,
};
use dataplane::wire::{ContextTag, Locator, LocatorPair, Ulid, UlidPair};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::time::Instant;

/// Believes what the addresses say: parameters begin with the ULID they are for, a forged HBA locator ends in `bad`, a
/// signature names the generation it is for.
struct FakeProof;

impl LocatorProof for FakeProof {
    fn owns(&mut self, ulid: Ulid, pds: &[u8]) -> bool {
        pds.starts_with(&ulid.0.octets())
    }

    fn proves(
        &mut self,
        ulid: Ulid,
        pds: Option<&[u8]>,
        list: &LocatorList,
        signature: Option<&[u8]>,
    ) -> Result<(), usize> {
        let proved = |(locator, method): &(Locator, VerificationMethod)| match method {
            VerificationMethod::Hba => locator.0.segments()[7] != 0xbad,
            VerificationMethod::Cga => signature == Some(&list.generation.to_be_bytes()),
            VerificationMethod::Other(_) => false,
        };
        let owned = pds.is_some_and(|pds| pds.starts_with(&ulid.0.octets()));
        list.entries.iter().position(|entry| !owned || !proved(entry)).map_or(Ok(()), Err)
    }

    fn parameters_of(&self, address: Ulid, _: &[u8]) -> Vec<u8> {
        address.0.octets().to_vec()
    }
}

/// Host `host` of site `site`, as ULID.
fn ulid(site: u16, host: u16) -> Ulid {
    Ulid(Ipv6Addr::new(0xfc00, site, 0, 0, 0, 0, 0, host))
}

/// Host `host` of site `site` at provider `provider`.
fn locator(site: u16, provider: u16, host: u16) -> Locator {
    Locator(Ipv6Addr::new(0x2001, 0xdb8, site, provider, 0, 0, 0, host))
}

/// A host with two HBA locators.
fn host(site: u16, number: u16) -> LocalHost {
    let ulid = ulid(site, number);
    LocalHost {
        ulid,
        locators: [1, 2].map(|provider| (locator(site, provider, number), VerificationMethod::Hba)).to_vec(),
        pds: Some(ulid.0.octets().to_vec()),
        generation: 100,
        signature: None,
        preferences: None,
    }
}

fn tag(value: u64) -> ContextTag {
    ContextTag::truncate(value)
}

fn pair(local: Locator, peer: Locator) -> LocatorPair {
    LocatorPair { local, peer }
}

fn between(source: Locator, target: Locator) -> Addresses {
    Addresses { source: source.0, target: target.0 }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(seconds: u64) -> Instant {
    Instant(Duration::from_secs(seconds))
}

/// A box with hosts, its random numbers, and the outputs of the last call.
struct Node {
    site: u16,
    endpoint: Endpoint,
    rng: StdRng,
    out: Vec<Output>,
}

impl Node {
    fn new(site: u16) -> Node {
        Node::with(site, Config::default())
    }

    fn with(site: u16, config: Config) -> Node {
        Node::with_tags(site, config, TagSpace::new(site as u8), u64::from(site))
    }

    fn with_tags(site: u16, config: Config, tags: TagSpace, seed: u64) -> Node {
        let mut endpoint = Endpoint::new(
            config,
            [seed as u8; 32],
            tags,
            Box::new(|ulids| ulids.local.0.octets()[15]),
            Box::new(FakeProof),
        );
        endpoint.set_host(host(site, 1)).unwrap();
        Node { site, endpoint, rng: StdRng::seed_from_u64(seed), out: Vec::new() }
    }

    /// Host 1 of this site and host 1 of the other.
    fn ulids(&self, site: u16) -> UlidPair {
        UlidPair { local: ulid(self.site, 1), peer: ulid(site, 1) }
    }

    /// The first locators of both.
    fn pair(&self, site: u16) -> LocatorPair {
        pair(locator(self.site, 1, 1), locator(site, 1, 1))
    }

    fn open(&mut self, now: Instant, site: u16) -> Result<ContextId, OpenRefused> {
        let request = Open { ulids: self.ulids(site), fork: 0, pairs: vec![self.pair(site)] };
        self.open_with(now, request)
    }

    fn open_with(&mut self, now: Instant, request: Open) -> Result<ContextId, OpenRefused> {
        self.out.clear();
        self.endpoint.open(now, &mut self.rng, request, &mut self.out)
    }

    /// The message goes through its octets, as it would between boxes.
    fn receive(&mut self, now: Instant, addresses: Addresses, message: &Message) -> Verdict {
        let octets = emit_packet(addresses, 64, message).unwrap();
        let parsed = ControlPacket::parse(&octets).unwrap();
        self.out.clear();
        let packet = Incoming {
            addresses: parsed.addresses,
            message: Ok(&parsed.message),
            ipv6_packet: &octets,
            shim6_offset: parsed.offset,
        };
        let verdict = self.endpoint.receive(now, &mut self.rng, packet, &mut self.out);
        self.endpoint.selfcheck();
        verdict
    }

    /// The same for octets that may be no message.
    fn receive_octets(&mut self, now: Instant, octets: &[u8]) -> Verdict {
        let (message, shim6_offset) = match ControlPacket::parse(octets) {
            Ok(parsed) => (Ok(parsed.message), parsed.offset),
            Err(PacketError::Message { error, offset }) => (Err(Unreadable::from(error)), offset),
            Err(other) => panic!("{other}"),
        };
        let view = View::new(octets).unwrap();
        let addresses = Addresses { source: view.source(), target: view.target() };
        let message = message.as_ref().map_err(|error| *error);
        self.out.clear();
        let packet = Incoming { addresses, message, ipv6_packet: octets, shim6_offset };
        self.endpoint.receive(now, &mut self.rng, packet, &mut self.out)
    }

    fn expire(&mut self, now: Instant) {
        self.out.clear();
        self.endpoint.expire(now, &mut self.rng, &mut self.out);
        self.endpoint.selfcheck();
    }

    /// Lets the next timer run, and tells when that was.
    fn expire_next(&mut self) -> Instant {
        let due = self.endpoint.deadline().unwrap();
        self.expire(due);
        due
    }

    /// What the last call sent.
    fn sent(&self) -> Vec<(Addresses, Message)> {
        let sent = self.out.iter().filter_map(|output| match output {
            Output::Send { addresses, message, .. } => Some((*addresses, message.clone())),
            _ => None,
        });
        sent.collect()
    }

    /// The only message the last call sent.
    fn sent_one(&self) -> (Addresses, Message) {
        let [one] = <[_; 1]>::try_from(self.sent()).unwrap();
        one
    }

    fn state(&self, now: Instant, site: u16) -> State {
        self.endpoint.state(now, self.ulids(site), 0)
    }

    fn context(&self, site: u16) -> &Context {
        self.endpoint.find(self.ulids(site), 0).unwrap()
    }

    fn has(&self, output: &Output) -> bool {
        self.out.contains(output)
    }
}

/// Delivers what `from` just sent to `to`, then the answers, until nobody says anything more.
fn converse(now: Instant, from: &mut Node, to: &mut Node) {
    let sent = from.sent();
    from.out.clear();
    for (addresses, message) in sent {
        to.receive(now, addresses, &message);
        converse(now, to, from);
    }
}

/// Two nodes with an established context between their first hosts.
fn established() -> (Node, Node) {
    established_with(Config::default())
}

fn established_with(config: Config) -> (Node, Node) {
    let (mut a, mut b) = (Node::with(1, config.clone()), Node::with(2, config));
    a.open(at(0), 2).unwrap();
    converse(at(0), &mut a, &mut b);
    assert_eq!((a.state(at(0), 2), b.state(at(0), 1)), (State::Established, State::Established));
    (a, b)
}

/// Both ends have what the other end says.
fn assert_agreed(a: &Node, b: &Node) {
    let (here, there) = (a.context(b.site), b.context(a.site));
    assert_eq!((here.state, there.state), (State::Established, State::Established));
    assert_eq!(here.peer_tag, Some(there.local_tag));
    assert_eq!(there.peer_tag, Some(here.local_tag));
    let known = |context: &Context| context.peer_locators.iter().map(|known| known.locator).collect::<Vec<_>>();
    let told = |context: &Context| context.host.locators.iter().map(|(locator, _)| *locator).collect::<Vec<_>>();
    assert_eq!(known(here), told(there));
    assert_eq!(known(there), told(here));
}

/// Options of any message that has some.
fn options_of(message: &mut Message) -> &mut Options {
    message.options_mut().expect("an Error has no options")
}

/// The message with its options changed.
fn altered(message: &Message, change: impl FnOnce(&mut Options)) -> Message {
    let mut message = message.clone();
    change(options_of(&mut message));
    message
}

fn name(message: &Message) -> &'static str {
    match message {
        Message::I1 { .. } => "I1",
        Message::R1 { .. } => "R1",
        Message::I2 { .. } => "I2",
        Message::R2 { .. } => "R2",
        Message::R1bis { .. } => "R1bis",
        Message::I2bis { .. } => "I2bis",
        Message::UpdateRequest { .. } => "UR",
        Message::UpdateAck { .. } => "UA",
        Message::Keepalive { .. } => "Keepalive",
        Message::Probe(_) => "Probe",
        Message::Error(_) => "Error",
    }
}
