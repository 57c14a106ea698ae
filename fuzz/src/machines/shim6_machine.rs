//! Two Shim6 nodes and the packets between them, some of which are altered on their way: hosts ask, talk, move and go,
//! timers run, time passes, contexts are lost, and a stranger says what it likes.

use std::net::Ipv6Addr;
use std::time::Duration;

use control::shim6::{
    Config, ContextId, Endpoint, GoneReason, Incoming, LocalHost, LocatorProof, Open, Output, State, TagSpace,
    Unreadable, Verdict,
};
use control::time::Instant;
use dataplane::wire::shim6::{
    Addresses, ControlPacket, LocatorList, Message, PacketError, Preference, VerificationMethod, emit_packet,
};
use dataplane::wire::{ContextTag, Locator, LocatorPair, Ulid, UlidPair, checksum};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::octets::Octets;

/// Packets that are remembered, to be delivered late or again.
const WIRE_MAX: usize = 48;
/// Few, so that there is a crowd.
const CONTEXTS_MAX: usize = 10;
const HOSTS: usize = 4;
/// Octets of an IPv6 header.
const HEADER_LEN: usize = 40;

pub fn check(octets: &[u8]) {
    let mut octets = Octets::new(octets);
    let mut world = World::new(&mut octets);
    while !octets.is_empty() {
        world.step(&mut octets);
    }
}

/// Believes what addresses say: parameters are the ULID, and a locator carries its site and host.
struct ByAddress;

impl LocatorProof for ByAddress {
    fn owns(&mut self, ulid: Ulid, pds: &[u8]) -> bool {
        pds == ulid.0.octets()
    }

    fn proves(&mut self, ulid: Ulid, pds: Option<&[u8]>, list: &LocatorList, _: Option<&[u8]>) -> Result<(), usize> {
        let owned = pds.is_some_and(|pds| self.owns(ulid, pds));
        let good = |(locator, method): &(Locator, VerificationMethod)| {
            owned && *method == VerificationMethod::Hba && is_of(locator.0, ulid)
        };
        list.entries.iter().position(|entry| !good(entry)).map_or(Ok(()), Err)
    }

    fn parameters_of(&self, address: Ulid, _: &[u8]) -> Vec<u8> {
        address.0.octets().to_vec()
    }
}

fn ulid(site: usize, host: usize) -> Ulid {
    Ulid(Ipv6Addr::new(0xfc00, site as u16, 0, 0, 0, 0, 0, host as u16))
}

fn locator(site: usize, provider: usize, host: usize) -> Locator {
    Locator(Ipv6Addr::new(0x2001, 0xdb8, site as u16, provider as u16, 0, 0, 0, host as u16))
}

fn is_of(locator: Ipv6Addr, ulid: Ulid) -> bool {
    let (here, there) = (locator.segments(), ulid.0.segments());
    here[..2] == [0x2001, 0xdb8] && (here[2], here[7]) == (there[1], there[7])
}

/// A host with some of eight locators.
fn host(site: usize, number: usize, mask: u8, generation: u32) -> LocalHost {
    let ulid = ulid(site, number);
    let providers = (0..8).filter(|provider| mask >> provider & 1 == 1);
    let locators = providers.map(|provider| (locator(site, provider, number), VerificationMethod::Hba)).collect();
    let preferences = (mask & 0x10 != 0).then(|| vec![Preference::default(); mask.count_ones() as usize]);
    LocalHost { ulid, locators, pds: Some(ulid.0.octets().to_vec()), generation, signature: None, preferences }
}

struct Node {
    endpoint: Endpoint,
    rng: StdRng,
    now: Instant,
}

struct Packet {
    to: usize,
    octets: Vec<u8>,
}

struct World {
    nodes: [Node; 2],
    wire: Vec<Packet>,
    out: Vec<Output>,
    lives: u64,
    generation: u32,
}

impl World {
    fn new(octets: &mut Octets<'_>) -> World {
        let seed = u64::from(octets.octet());
        let nodes = [0, 1].map(|site| node(site, seed, Instant::START));
        World { nodes, wire: Vec::new(), out: Vec::new(), lives: seed, generation: 100 }
    }

    fn step(&mut self, octets: &mut Octets<'_>) {
        let choice = octets.octet();
        let at = usize::from(choice >> 7);
        match choice & 0x0f {
            0 | 1 => self.open(at, octets),
            2..=5 => self.deliver(octets, false),
            6 | 7 => self.deliver(octets, true),
            8 => self.expire(at),
            9 => {
                let time = Duration::from_millis(u64::from(octets.u16()) * 8);
                self.nodes[at].now = self.nodes[at].now + time;
                self.serve(at);
            }
            10 => self.talk(at, octets),
            11 => self.change_host(at, octets),
            12 => self.lose(at, octets),
            13 => self.choose_pair(at, octets),
            14 => self.stranger(at, octets),
            _ => self.complain(at, octets),
        }
        self.judge();
    }

    fn open(&mut self, at: usize, octets: &mut Octets<'_>) {
        let hosts = octets.octet();
        let (here, there) = (usize::from(hosts & 3), usize::from(hosts >> 2 & 3));
        let ulids = UlidPair { local: ulid(at, here), peer: ulid(1 - at, there) };
        let pair =
            |provider| LocatorPair { local: locator(at, provider, here), peer: locator(1 - at, provider, there) };
        let request = Open { ulids, fork: u32::from(hosts >> 6), pairs: vec![pair(0), pair(1)] };
        let Node { endpoint, rng, now } = &mut self.nodes[at];
        let _ = endpoint.open(*now, rng, request, &mut self.out);
        self.carry(at);
    }

    /// A packet arrives, perhaps changed, perhaps to stay on the wire for another time.
    fn deliver(&mut self, octets: &mut Octets<'_>, changed: bool) {
        if self.wire.is_empty() {
            return;
        }
        let bits = octets.octet();
        let place = (self.wire.len() - 1).saturating_sub(usize::from(bits & 0x1f)) % self.wire.len();
        let (to, mut packet) = (self.wire[place].to, self.wire[place].octets.clone());
        if bits & 0x20 == 0 {
            self.wire.remove(place);
        }
        if changed {
            alter(&mut packet, octets);
        }
        self.receive(to, &packet);
    }

    fn receive(&mut self, to: usize, packet: &[u8]) {
        let (message, shim6_offset, addresses) = match ControlPacket::parse(packet) {
            Ok(parsed) => (Ok(parsed.message), parsed.offset, parsed.addresses),
            Err(PacketError::Message { error, offset }) => {
                let address = |from: usize| {
                    Ipv6Addr::from(<[u8; 16]>::try_from(&packet[from..from + 16]).expect("a parsed header"))
                };
                (Err(Unreadable::from(error)), offset, Addresses { source: address(8), target: address(24) })
            }
            Err(_) => return,
        };
        let before = self.nodes[to].endpoint.len();
        let Node { endpoint, rng, now } = &mut self.nodes[to];
        let incoming = Incoming {
            addresses,
            message: message.as_ref().map_err(|error| *error),
            ipv6_packet: packet,
            shim6_offset,
        };
        let verdict = endpoint.receive(*now, rng, incoming, &mut self.out);
        let grown = endpoint.len() > before;
        let offer = matches!(message, Ok(Message::I2 { .. } | Message::I2bis { .. }));
        assert!(!grown || offer && verdict == Verdict::Accepted, "only an I2 or I2bis brings a context");
        // While debugging, what would be dropped in silence is answered by an Error with a code of its own (§5.14).
        let is_effect = |output: &Output| !matches!(output, Output::Send { message: Message::Error(_), .. });
        if matches!(verdict, Verdict::Dropped(_)) && self.out.iter().any(is_effect) {
            panic!("{verdict:?}, and yet {:?}", self.out);
        }
        self.carry(to);
    }

    fn expire(&mut self, at: usize) {
        if let Some(due) = self.nodes[at].endpoint.deadline() {
            self.nodes[at].now = self.nodes[at].now.max(due);
            self.serve(at);
        }
    }

    fn serve(&mut self, at: usize) {
        let Node { endpoint, rng, now } = &mut self.nodes[at];
        endpoint.expire(*now, rng, &mut self.out);
        assert!(endpoint.deadline().is_none_or(|next| next > *now), "the clock spins");
        self.carry(at);
    }

    /// Payload with the tag of one of our contexts, or with one that never was.
    fn talk(&mut self, at: usize, octets: &mut Octets<'_>) {
        let which = octets.octet();
        let ready: Vec<_> = self.nodes[at]
            .endpoint
            .contexts()
            .filter(|context| context.tags_payload())
            .filter_map(|context| Some((context.id, context.peer_tag?, context.pair)))
            .collect();
        let stray = (
            None,
            ContextTag::truncate(u64::from(which)),
            LocatorPair { local: locator(at, 0, 0), peer: locator(1 - at, 0, 0) },
        );
        let known = ready.get(usize::from(which)).map(|(id, tag, pair)| (Some(*id), *tag, *pair));
        let (id, tag, pair) = known.unwrap_or(stray);
        if let Some(id) = id {
            let Node { endpoint, now, .. } = &mut self.nodes[at];
            endpoint.used(*now, id);
        }
        let Node { endpoint, now, .. } = &mut self.nodes[1 - at];
        match endpoint.find_by_local_tag(tag).map(|context| context.id) {
            Some(id) => {
                endpoint.used(*now, id);
                endpoint.payload_received(*now, id, &mut self.out);
            }
            None => {
                let pair = LocatorPair { local: pair.peer, peer: pair.local };
                endpoint.payload_without_context(*now, tag, pair, &mut self.out);
            }
        }
        self.carry(1 - at);
    }

    fn change_host(&mut self, at: usize, octets: &mut Octets<'_>) {
        let (number, mask) = (octets.below(HOSTS), octets.octet());
        self.generation += 1;
        let Node { endpoint, rng, now } = &mut self.nodes[at];
        if mask == 0 {
            endpoint.remove_host(*now, ulid(at, number), None, &mut self.out);
        } else if endpoint.set_host(host(at, number, mask, self.generation)).is_ok() {
            let ids: Vec<ContextId> = endpoint.contexts_of(ulid(at, number)).map(|context| context.id).collect();
            for id in ids {
                endpoint.tell_news(*now, rng, id, None, &mut self.out);
            }
        }
        self.carry(at);
    }

    fn lose(&mut self, at: usize, octets: &mut Octets<'_>) {
        let which = octets.octet();
        if which == 0 {
            self.lives += 1;
            let now = self.nodes[at].now;
            self.nodes[at] = node(at, 1000 + self.lives, now);
            return;
        }
        let ids: Vec<ContextId> = self.nodes[at].endpoint.contexts().map(|context| context.id).collect();
        if let Some(id) = ids.get(usize::from(which) % ids.len().max(1)) {
            self.nodes[at].endpoint.discard(*id, GoneReason::Discarded, &mut self.out);
        }
        self.carry(at);
    }

    /// What REAP may ask for: locators probed or no longer so, and another pair.
    fn choose_pair(&mut self, at: usize, octets: &mut Octets<'_>) {
        let (which, providers) = (octets.below(CONTEXTS_MAX), octets.octet());
        let endpoint = &mut self.nodes[at].endpoint;
        let Some((id, ulids)) = endpoint.contexts().nth(which).map(|context| (context.id, context.ulids)) else {
            return;
        };
        let number = |ulid: Ulid| usize::from(ulid.0.segments()[7]);
        let (here, there) = (usize::from(providers & 7), usize::from(providers >> 3 & 7));
        let target = locator(1 - at, there, number(ulids.peer));
        let _ = endpoint.set_probed(id, target, providers & 0x80 != 0);
        if providers & 0x40 != 0 {
            let pair = LocatorPair { local: locator(at, here, number(ulids.local)), peer: target };
            if endpoint.set_pair(id, pair).is_ok() {
                let context = endpoint.context(id).expect("it is there");
                assert!(context.peer_locator(target.0).is_some_and(|known| known.verified && known.probed));
            }
        }
    }

    /// Octets that are nobody's, as a message with the right length and checksum.
    fn stranger(&mut self, to: usize, octets: &mut Octets<'_>) {
        let hosts = octets.octet();
        let length = 8 * (1 + octets.below(20));
        let mut message = octets.take(length).to_vec();
        message.resize(length, 0);
        let (source, target) = (usize::from(hosts & 3), usize::from(hosts >> 2 & 3));
        let addresses = Addresses { source: locator(1 - to, 0, source).0, target: locator(to, 0, target).0 };
        let keepalive = Message::Keepalive { receiver_tag: ContextTag::truncate(0), options: Default::default() };
        let mut packet = emit_packet(addresses, 64, &keepalive).expect("a short message");
        packet.truncate(HEADER_LEN);
        packet.extend(message);
        repair(&mut packet);
        self.receive(to, &packet);
    }

    /// Somebody on the path says that a packet was not understood.
    fn complain(&mut self, at: usize, octets: &mut Octets<'_>) {
        let quoted = match self.wire.len().checked_sub(1 + octets.below(WIRE_MAX)) {
            Some(place) => self.wire[place].octets.clone(),
            None => octets.take(60).to_vec(),
        };
        let Node { endpoint, now, .. } = &mut self.nodes[at];
        endpoint.parameter_problem(*now, &quoted, &mut self.out);
        self.carry(at);
    }

    /// Puts on the wire what a node just said.
    fn carry(&mut self, from: usize) {
        for output in self.out.drain(..) {
            if let Output::Send { addresses, message, .. } = output {
                let octets = emit_packet(addresses, 64, &message).expect("what is sent fits");
                assert!(octets.len() <= 1280);
                self.wire.push(Packet { to: 1 - from, octets });
            }
        }
        let excess = self.wire.len().saturating_sub(WIRE_MAX);
        self.wire.drain(..excess);
    }

    fn judge(&self) {
        for node in &self.nodes {
            node.endpoint.selfcheck();
            assert!(node.endpoint.len() <= CONTEXTS_MAX, "the table is full");
            for context in node.endpoint.contexts() {
                let peer = context.ulids.peer;
                // Whatever was altered on the way: nothing is believed that is not proved.
                for known in context.peer_locators.iter().filter(|known| known.verified) {
                    assert!(known.locator.0 == peer.0 || is_of(known.locator.0, peer), "{context:?}");
                }
                if context.state.carries_payload() {
                    let target = context.pair.peer.0;
                    assert!(target == peer.0 || is_of(target, peer), "{context:?}");
                    assert!(context.peer_tag.is_some());
                }
                assert!(!matches!(context.state, State::Idle | State::EFailed | State::NoSupport));
            }
        }
    }
}

fn node(site: usize, seed: u64, now: Instant) -> Node {
    let config = Config {
        contexts_max: CONTEXTS_MAX,
        forks_max: 1,
        holddowns_max: 4,
        debug_errors: seed & 1 == 1,
        ..Config::default()
    };
    let tags = TagSpace::with_random_bits(site as u8, if seed & 2 == 0 { 37 } else { 4 });
    let shard = Box::new(|ulids: UlidPair| ulids.local.0.octets()[15]);
    let mut endpoint = Endpoint::new(config, [seed as u8 ^ site as u8; 32], tags, shard, Box::new(ByAddress));
    for number in 0..HOSTS - 1 {
        endpoint.set_host(host(site, number, 0x03, 100)).expect("a host like any other");
    }
    Node { endpoint, rng: StdRng::seed_from_u64(seed ^ (site as u64) << 32), now }
}

/// Changes some octets of a packet, or its end, and puts its length and checksum right.
fn alter(packet: &mut Vec<u8>, octets: &mut Octets<'_>) {
    let how = octets.octet();
    for _ in 0..1 + (how & 3) {
        let (place, value) = (8 + octets.below(248), octets.octet());
        if let Some(octet) = packet.get_mut(place) {
            *octet = value;
        }
    }
    match how >> 4 & 7 {
        0 => packet.truncate(packet.len() - 8 * octets.below(4).min(packet.len().saturating_sub(48) / 8)),
        1 => packet.extend([octets.octet(); 8]),
        2 => {
            for place in 8..24 {
                packet.swap(place, place + 16);
            }
        }
        _ => {}
    }
    if how & 0x80 == 0 {
        repair(packet);
    }
}

/// Puts the lengths and the checksum of a control packet right.
fn repair(packet: &mut [u8]) {
    let length = packet.len() - HEADER_LEN;
    packet[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    let header = &mut packet[HEADER_LEN..];
    header[1] = (length / 8 - 1) as u8;
    header[2] &= 0x7f;
    header[3] &= 0xfe;
    header[4..6].fill(0);
    let sum = checksum::of(header);
    header[4..6].copy_from_slice(&sum.to_be_bytes());
}
