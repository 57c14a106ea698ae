//! A box that answers, and peers that ask, for the programs that measure: the real engine on both sides of no network.
//!
//! The box is one of the simulator's, so it is configured as an operator would and knows its routers. The peers are the hosts
//! of a second endpoint; what they send is made outside of the clock.

use std::sync::Arc;
use std::time::Duration;

use control::engine::{Effect, Engine, PortSetup};
use control::identity::{HostPrefixes, Sec, SigningKey, make_host};
use control::shim6::{Config, Endpoint, IdentityProof, Incoming, LocalHost, Open, Output, TagSpace};
use control::sim::{Plan, SitePlan, World, packet};
use control::time::Instant;
use dataplane::link::{Notice, Punt};
use dataplane::snapshot::PortId;
use dataplane::wire::ethernet::{self, Mac};
use dataplane::wire::shim6::{ControlPacket, VerificationMethod, emit_packet};
use dataplane::wire::{ContextTag, Locator, LocatorPair, Ulid, UlidPair};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Peers behind one /64 of each of their providers.
const PEERS_PER_SITE: usize = 64;
/// Messages in a turn of the control core.
pub(crate) const TURN: usize = 256;
/// Time that passes from turn to turn.
const TURN_TIME: Duration = Duration::from_micros(1280);
/// The box's providers begin behind the port to its hosts.
const WAN: PortId = PortId(1);

/// What a scene is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// The box's own hosts.
    pub(crate) hosts: u16,
    /// Locators of each peer.
    pub(crate) locators: u16,
    /// Contexts the box has room for.
    pub(crate) contexts_max: u32,
    /// Whether the answers of the box to strangers are bounded as by default.
    pub(crate) limited: bool,
}

/// A box and those who ask it.
pub(crate) struct Scene {
    world: World,
    peers: Endpoint,
    /// Peers so far; each is another one by its number.
    number: usize,
    keys: Vec<Arc<SigningKey>>,
    setting: Setting,
    rng: StdRng,
    effects: Vec<Effect>,
    /// The time.
    pub(crate) now: Instant,
}

impl Scene {
    /// A box that knows its routers, and nobody who asks yet. With `keys`, peers have locators that only a signature by one of
    /// them proves.
    pub(crate) fn new(setting: Setting, keys: usize, bits: u32) -> Scene {
        let site = SitePlan { hosts: setting.hosts, ..SitePlan::default() };
        let rates = "answers_per_s = 10000000\nanswers_per_source_s = 10000000\n";
        let plan = Plan {
            sites: vec![site, SitePlan::default()],
            send_timeout_s: 15,
            contexts_max: setting.contexts_max,
            shim6: if setting.limited { String::new() } else { rates.to_owned() },
            ..Plan::default()
        };
        let mut world = World::new(&plan, 1);
        world.run(Duration::from_secs(2));
        let now = world.now;
        let config = Config { contexts_max: u32::MAX as usize, routable_ulids: false, ..Config::default() };
        let peers = Endpoint::new(config, [7; 32], TagSpace::new(1), Box::new(|_| 0), Box::new(IdentityProof));
        let keys = (0..keys).map(|_| Arc::new(SigningKey::generate(bits).expect("a key"))).collect();
        Scene { world, peers, number: 0, keys, setting, rng: StdRng::seed_from_u64(2), effects: Vec::new(), now }
    }

    /// The box.
    pub(crate) fn engine(&self) -> &Engine {
        &self.world.nodes[0].engine
    }

    /// An engine that could take the box's place.
    #[allow(dead_code, reason = "not every program needs it")]
    pub(crate) fn heir(&mut self) -> Engine {
        let (site, hosts) = self.world.nodes[0].configuration();
        let ports: Vec<PortSetup> =
            site.ports.iter().zip(1..).map(|(_, at)| PortSetup { mac: Mac([2, 0, 0, 0, 0, at]), mtu: 1500 }).collect();
        let keys = self.world.nodes[0].engine.keys().clone();
        Engine::with_keys(site, hosts, &ports, keys, &mut self.rng).expect("a plan the engine takes")
    }

    /// One more peer and its I1s, each to another one of our hosts.
    fn peer(&mut self, number: usize, contexts: usize) -> Vec<Vec<u8>> {
        let key = (!self.keys.is_empty()).then(|| self.keys[number % self.keys.len()].clone());
        let host = stranger(number, (self.setting.locators, 64), key.as_deref(), &mut self.rng);
        let (ulid, first) = (host.ulid, host.locators[0].0);
        self.peers.set_host(host).expect("a host its endpoint takes");
        let mut out = Vec::new();
        for host in 0..contexts {
            let ours = &self.world.hosts[(number + host) % usize::from(self.setting.hosts)];
            let ulids = UlidPair { local: ulid, peer: Ulid(ours.ulid) };
            let pairs = vec![LocatorPair { local: first, peer: Locator(ours.locators[0]) }];
            self.peers.open(self.now, &mut self.rng, Open { ulids, fork: 0, pairs }, &mut out).expect("an I1");
        }
        sent(&out)
    }

    /// So many more peers; their I1s.
    #[allow(dead_code, reason = "not every program needs it")]
    pub(crate) fn peers(&mut self, count: usize) -> Vec<Vec<u8>> {
        self.peers_with(count, 1)
    }

    /// So many more peers, each of which wants to talk to so many of our hosts; their I1s.
    pub(crate) fn peers_with(&mut self, count: usize, contexts: usize) -> Vec<Vec<u8>> {
        let first = self.number;
        self.number += count;
        (first..first + count).flat_map(|number| self.peer(number, contexts)).collect()
    }

    /// The next peer has this number: with another one than in another scene it is somebody else.
    #[allow(dead_code, reason = "not every program needs it")]
    pub(crate) fn go_on_from(&mut self, number: usize) {
        self.number = number;
        // The box draws other tags, too.
        self.rng = StdRng::seed_from_u64(number as u64 + 3);
    }

    /// What payload of the peers' contexts comes with: a tag that the box gave, and addresses as they are seen from there.
    #[allow(dead_code, reason = "not every program needs it")]
    pub(crate) fn payload(&self) -> Vec<(ContextTag, LocatorPair)> {
        let ready = self.peers.contexts().filter(|context| context.state.carries_payload());
        ready.filter_map(|context| Some((context.peer_tag?, context.pair.mirrored()))).collect()
    }

    /// What the peers answer to what the box sent.
    pub(crate) fn answers(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        for frame in frames {
            let packet = &frame[ethernet::HEADER_LEN..];
            let Ok(read) = ControlPacket::parse(packet) else { continue };
            let incoming = Incoming {
                addresses: read.addresses,
                message: Ok(&read.message),
                ipv6_packet: packet,
                shim6_offset: read.offset,
            };
            let mut out = Vec::new();
            self.peers.receive(self.now, &mut self.rng, incoming, &mut out);
            answers.extend(sent(&out));
        }
        answers
    }

    /// Forgets the peers' side: it is not what is measured.
    #[allow(dead_code, reason = "not every program needs it")]
    pub(crate) fn forget_peers(&mut self) {
        let config = Config { contexts_max: u32::MAX as usize, routable_ulids: false, ..Config::default() };
        self.peers = Endpoint::new(config, [7; 32], TagSpace::new(1), Box::new(|_| 0), Box::new(IdentityProof));
    }

    /// Something is done with the engine. How long it took; what follows is thrown away.
    #[allow(dead_code, reason = "not every program needs it")]
    pub(crate) fn with(
        &mut self,
        change: impl FnOnce(&mut Engine, Instant, &mut StdRng, &mut Vec<Effect>),
    ) -> Duration {
        let Scene { world, rng, effects, now, .. } = self;
        let began = std::time::Instant::now();
        change(&mut world.nodes[0].engine, *now, rng, effects);
        let took = began.elapsed();
        self.take_effects();
        took
    }

    /// What the box sent. Its routers say where they are when it asks.
    fn take_effects(&mut self) -> Vec<Vec<u8>> {
        let Scene { world, rng, effects, now, .. } = self;
        let (mut sent, mut answers) = (Vec::new(), Vec::new());
        for effect in effects.drain(..) {
            let (Effect::Transmit(port, frame) | Effect::TransmitBy(_, port, frame)) = effect else { continue };
            let asked = packet::packet_in(&frame).and_then(|asks| Some((asks, packet::solicited(asks)?)));
            let router = asked.and_then(|(asks, router)| {
                let provider = world.providers.iter().find(|provider| provider.router == router)?;
                packet::advertisement(asks, router, provider.router_mac)
            });
            answers.extend(router.map(|answer| (port, packet::frame(Mac([2; 6]), Mac([2; 6]), &answer))));
            sent.push(frame);
        }
        for (port, frame) in answers {
            world.nodes[0].engine.notice(*now, rng, Notice::Punt(port, Punt::HostStack, &frame), effects);
            effects.clear();
        }
        sent
    }

    /// Random numbers.
    #[allow(dead_code, reason = "not every program needs it")]
    pub(crate) fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    /// A turn of the control core for each [`TURN`] frames. What the box sent, and how long it took.
    pub(crate) fn turns(&mut self, frames: &[Vec<u8>], turn: Turn) -> (Vec<Vec<u8>>, Duration) {
        let (sent, took, _) = self.turns_of(frames, turn);
        (sent, took)
    }

    /// The same for other things than frames, and how long the longest turn took.
    pub(crate) fn turns_of<T>(
        &mut self,
        things: &[T],
        turn: impl Fn(&mut Engine, Instant, &mut StdRng, &[T], &mut Vec<Effect>),
    ) -> (Vec<Vec<u8>>, Duration, Duration) {
        let (mut sent, mut took, mut longest) = (Vec::new(), Duration::ZERO, Duration::ZERO);
        for things in things.chunks(TURN) {
            self.now = self.now + TURN_TIME;
            let Scene { world, rng, effects, now, .. } = self;
            let began = std::time::Instant::now();
            turn(&mut world.nodes[0].engine, *now, rng, things, effects);
            let this = began.elapsed();
            took += this;
            longest = longest.max(this);
            sent.extend(self.take_effects());
        }
        (sent, took, longest)
    }
}

/// The host of that number at some site, with so many locators, and an identity of its own. Sites have other prefixes from the
/// given bit on: a /64 or a /48 of each provider. With a key locators are what only a signature by it proves.
pub(crate) fn stranger(
    number: usize,
    (locators, site_bit): (u16, u32),
    key: Option<&SigningKey>,
    rng: &mut StdRng,
) -> LocalHost {
    let site = ((number / PEERS_PER_SITE) as u128) << (128 - site_bit);
    let half = |bits: u128| ((bits >> 64) as u64).to_be_bytes();
    let locators = (0..u128::from(locators)).map(|way| 0x2a00_u128 << 112 | way << 96 | site);
    let ulid = half(0xfd00_u128 << 112 | site);
    // Without a key the locators are members of the address set; with one they are anything, and signed.
    let members = if key.is_some() { Vec::new() } else { locators.clone().map(half).collect() };
    let identity = make_host(&HostPrefixes { ulid, locators: members }, Sec::ZERO, key, rng).expect("an identity");
    let list: Vec<(Locator, VerificationMethod)> = match key {
        None => identity.locators.iter().map(|locator| (*locator, VerificationMethod::Hba)).collect(),
        Some(_) => {
            locators.map(|bits| (Locator((bits | number as u128 | 1 << 40).into()), VerificationMethod::Cga)).collect()
        }
    };
    let signed: Vec<Locator> = list.iter().map(|(locator, _)| *locator).collect();
    let signature = key.map(|key| key.sign_locators(1, &signed).expect("a signature"));
    LocalHost {
        ulid: identity.ulid,
        locators: list,
        pds: Some(identity.pds),
        generation: 1,
        signature,
        preferences: None,
    }
}

/// A turn of the control core.
pub(crate) type Turn = fn(&mut Engine, Instant, &mut StdRng, &[Vec<u8>], &mut Vec<Effect>);

/// What the driver does with what workers hand it.
pub(crate) fn turn(engine: &mut Engine, now: Instant, rng: &mut StdRng, frames: &[Vec<u8>], effects: &mut Vec<Effect>) {
    for frame in frames {
        engine.notice(now, rng, Notice::Punt(WAN, Punt::Shim6, frame), effects);
    }
    if engine.deadline().is_some_and(|due| due <= now) {
        engine.expire(now, rng, effects);
    }
}

/// The frames of messages.
fn sent(out: &[Output]) -> Vec<Vec<u8>> {
    let frame = |output: &Output| match output {
        Output::Send { addresses, message, .. } => {
            let mut frame = vec![0; ethernet::HEADER_LEN];
            frame.extend(emit_packet(*addresses, 64, message).expect("a message that fits"));
            Some(frame)
        }
        _ => None,
    };
    out.iter().filter_map(frame).collect()
}

/// Octets of memory this program has now.
#[allow(dead_code, reason = "not every program needs it")]
pub(crate) fn memory() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096
}
