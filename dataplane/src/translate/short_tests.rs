//! The short way beside the long one: the same packets through both, and nothing may differ.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::{Batch, Origin, Scene, inbound_long, outbound_long};
use super::*;
use crate::context::{Flows, Hasher, Install, LabelMode, Loss, PathNumber, Phase, Replay, Shard, Sharding, Standby};
use crate::port::memory::HeapFrame;
use crate::snapshot::{Block, ClassView, Classes, ProviderView, Role};
use crate::wire::{FlowLabel, Locator, LocatorPair};

const LAN: PortId = PortId(0);
const OUTSIDE: PortId = PortId(1);
const BOX_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const CONTEXTS: u16 = 12;

fn ip(high: u64, low: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))
}

fn ulids(n: u16) -> UlidPair {
    UlidPair {
        local: Ulid(ip(0xfc00_000a_0000_0001, u64::from(n % 4))),
        peer: Ulid(ip(0xfc00_000b_0000_0001, n.into())),
    }
}

fn locators(n: u16) -> LocatorPair {
    let prefix = 0x2001_0db8_00a0_0000 + u64::from(n % 3);
    LocatorPair { local: Locator(ip(prefix, u64::from(n % 4))), peer: Locator(ip(0x2001_0db8_00b0_0000, n.into())) }
}

fn tag(n: u16, owner: u8) -> ContextTag {
    ContextTag::truncate(u64::from(owner) << Sharding::WORKER_SHIFT | 0x77 << 20 | u64::from(n))
}

/// A context that may have a standby, and what is special about that, as bits.
fn with_standby(install: Install, bits: u16) -> Install {
    let number = |bits: u16| PathNumber::new(bits & 3).unwrap_or(PathNumber::NONE);
    let LocatorPair { local: Locator(local), peer: Locator(peer) } = locators(bits >> 6 & 3);
    let plain = bits >> 8 & 7 == 7;
    let standby = Standby {
        locators: if plain {
            install.ulids.as_locators()
        } else {
            LocatorPair { local: Locator(local), peer: Locator(peer) }
        },
        provider: (bits >> 4 & 3) as u8,
        path: number(bits >> 2),
        narrow: bits >> 11 & 7 == 7,
        udp: bits >> 9 & 7 == 7,
    };
    Install { path: number(bits), standby: (bits >> 14 != 0).then_some(standby), ..install }
}

fn loss() -> impl Strategy<Value = (Loss, bool)> {
    let path = |number| PathNumber::new(number).unwrap_or_default();
    (prop_oneof![(0u8..4).prop_map(Loss::Provider), (1u16..4).prop_map(move |it| Loss::Path(path(it)))], any::<bool>())
}

/// What is special about a context, as bits.
fn install(n: u16, special: u16, sharding: &Sharding) -> Install {
    let has = |bit: u16| special >> bit & 1 == 1;
    let plain = has(0) && has(1);
    Install {
        handle: n.into(),
        ulids: ulids(n),
        default: !(has(2) && has(3)),
        classes: if has(14) && has(15) { Classes::only(1) } else { Classes::NONE },
        local_tag: tag(n, sharding.owner_of_pair(&ulids(n))),
        peer_tag: ContextTag::truncate(u64::from(n) << 24 | 0xabc),
        locators: if plain { ulids(n).as_locators() } else { locators(n) },
        // One more than there are, and one without a router.
        provider: (special >> 4 & 3) as u8,
        path: PathNumber::NONE,
        standby: None,
        host: u32::from(n % 5),
        inside: (has(6) && has(7)).then_some(ulids(n).local),
        phase: [Phase::Live, Phase::Live, Phase::Answering, Phase::Opening][usize::from(special >> 8 & 3)],
        local_label: None,
        peer_label: if has(10) && has(11) { FlowLabel::truncate(77) } else { None },
        narrow: has(12) && has(13),
        udp: crate::context::UdpUse { comes: has(13), goes: has(1) && has(12) },
        accepted: None,
    }
}

fn snapshot(mss_clamp: bool, mtus: [u16; 2]) -> Snapshot {
    let port = |role, mtu| PortView {
        role,
        mac: BOX_MAC,
        mtu,
        own: vec![ip(0xfe80 << 48, 1)],
        icmp_source: ip(0xfe80 << 48, 1),
        system: None,
    };
    let provider = |n: u64| ProviderView {
        port: OUTSIDE,
        prefix: 0x2001_0db8_00a0_0000 + n,
        next_hop: ip(0xfe80 << 48, 2),
        mac: (n != 2).then_some(Mac([4; 6])),
    };
    let host = |n: u16| HostView { ulid: ulids(n).local, port: LAN, mac: (n != 3).then_some(Mac([6; 6])) };
    Snapshot {
        ports: vec![port(Role::Site, mtus[0]), port(Role::Provider, mtus[1])],
        providers: (0..3).map(provider).collect(),
        hosts: (0..4).map(host).collect(),
        host_index: HashMap::new(),
        site: Block::new(ip(0xfc00_000a_0000_0000, 0), 48),
        mss_clamp,
        arrivals: false,
        classes: vec![ClassView::default()],
        name_servers: Vec::new(),
        udp_port: Some(5533),
        nat: None,
    }
}

/// A packet, and how it deviates from what every packet should be.
#[derive(Clone, Debug)]
struct Sent {
    context: u16,
    next_header: u8,
    payload: Vec<u8>,
    octets: usize,
    hops: u8,
    oddity: u8,
}

fn sent() -> impl Strategy<Value = Sent> {
    let next_header = prop_oneof![
        4 => Just(17u8), 3 => Just(6), 2 => Just(58), 1 => any::<u8>(),
        1 => prop::sample::select(vec![0u8, 43, 44, 50, 51, 59, 60, 140]),
    ];
    let octets = prop_oneof![6 => 0usize..80, 1 => 1180usize..1300];
    (0..CONTEXTS + 1, next_header, prop::collection::vec(any::<u8>(), 24), octets, 0u8..8, 0u8..40).prop_map(
        |(context, next_header, payload, octets, hops, oddity)| Sent {
            context,
            next_header,
            payload,
            octets,
            hops,
            oddity,
        },
    )
}

impl Sent {
    fn payload(&self) -> Vec<u8> {
        let mut payload = self.payload.clone();
        payload.resize(self.octets, 0);
        payload
    }

    fn frame(&self, addresses: [Ipv6Addr; 2], next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = BOX_MAC.0.to_vec();
        frame.extend([9; 6]);
        frame.extend(TYPE);
        frame.extend([0x60 | self.hops >> 4, 0x12, 0x34, 0x56]);
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend([next_header, self.hops]);
        frame.extend(addresses[0].octets());
        frame.extend(addresses[1].octets());
        frame.extend(payload);
        match self.oddity {
            0 => frame[0] ^= 4,
            1 => frame[12] = 8,
            2 => frame[14] = 0x45,
            3 => frame[38] = 0xff,
            4 => frame[22] = 0xff,
            5 => frame.extend([0; 9]),
            6 => frame.truncate(frame.len() - 1),
            7 => frame.truncate(frame.len() / 2),
            8 => frame[0] = 0x33,
            9 => frame[22..24].copy_from_slice(&[0xfe, 0x80]),
            10 => frame[22..30].copy_from_slice(&0xfc00_000a_0000_0001u64.to_be_bytes()),
            11 => frame[38..46].copy_from_slice(&0x2001_0db8_00a9_0000u64.to_be_bytes()),
            12 => frame[22..30].copy_from_slice(&0x2001_0db8_00a0_0001u64.to_be_bytes()),
            13 => frame[19] ^= 1,
            _ => {}
        }
        frame
    }

    fn frame_of_host(&self) -> Vec<u8> {
        let pair = ulids(self.context);
        self.frame([pair.local.0, pair.peer.0], self.next_header, &self.payload())
    }

    fn frame_of_peer(&self, sharding: &Sharding) -> Vec<u8> {
        let pair = locators(self.context);
        let tag = tag(self.context, sharding.owner_of_pair(&ulids(self.context)));
        let mut payload = PayloadHeader { next_header: self.next_header, tag }.emit().to_vec();
        match self.oddity {
            20 => payload[1] = 1,
            21 => payload[2] &= 0x7f,
            22 => payload[7] ^= 0x40,
            23 => payload[4] ^= 0x40,
            24 => payload.truncate(5),
            _ => {}
        }
        payload.extend(self.payload());
        self.frame([pair.peer.0, pair.local.0], protocol::SHIM6, &payload)
    }
}

struct Side {
    shard: Shard,
    replay: Replay,
    flows: Flows,
    counters: Counters,
}

impl Side {
    fn new(installs: &[Install], hasher: Hasher, strict: bool) -> Side {
        let mut shard = Shard::new(64, hasher, strict).with_labels(LabelMode::All).with_forks(8).with_standbys(true);
        for install in installs {
            shard.install(install).expect("each has a place of its own");
        }
        Side { shard, replay: Replay::new(8, 2000), flows: Flows::new(0, hasher), counters: Counters::default() }
    }

    /// What became of a burst, and the packets.
    fn judge(
        &mut self,
        frames: &[Vec<u8>],
        (port, now): (PortId, u64),
        snapshot: &Snapshot,
        sharding: &Sharding,
        short: bool,
    ) -> Vec<(Verdict, Vec<u8>)> {
        let mut batch = Batch::default();
        batch.frames.extend(frames.iter().map(|frame| HeapFrame::new(frame)));
        let Side { shard, replay, flows, counters } = self;
        let (worker, origin) = (0, Origin::Device);
        let mut scene =
            Scene { shard, replay, flows, now, snapshot, sharding, worker, port, origin, handed_by: None, counters };
        match (port, short) {
            (LAN, true) => super::super::outbound(&mut batch, &mut scene),
            (_, true) => super::super::inbound(&mut batch, &mut scene),
            (LAN, false) => {
                leave(&mut batch);
                outbound_long(&mut batch, &mut scene);
            }
            (_, false) => {
                leave(&mut batch);
                inbound_long(&mut batch, &mut scene);
            }
        }
        batch.spell_out();
        let packets = batch.frames.iter().map(|frame| frame.bytes().to_vec());
        batch.verdicts.iter().copied().zip(packets).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn both_ways_do_the_same(
        specials in prop::collection::vec(prop_oneof![2 => Just(0u16), 3 => any::<u16>()], CONTEXTS as usize),
        standbys in prop::collection::vec(any::<u16>(), CONTEXTS as usize),
        bursts in prop::collection::vec((any::<bool>(), prop::collection::vec(sent(), 1..=BURST)), 1..6),
        losses in prop::collection::vec(prop::collection::vec(loss(), 0..4), 6),
        (mss_clamp, strict, workers) in (any::<bool>(), prop::bool::weighted(0.1), 1u8..3),
        mtus in (1280u16..1320, 1280u16..1320),
    ) {
        let hasher = Hasher::new([5; 32]);
        let sharding = Sharding::new(hasher, workers);
        let snapshot = snapshot(mss_clamp, [mtus.0, mtus.1]);
        // A worker has the contexts it owns; packets of the others come nevertheless.
        let installs: Vec<Install> = specials.iter().zip(&standbys).zip(0..)
            .map(|((&special, &bits), n)| with_standby(install(n, special, &sharding), bits))
            .filter(|install| sharding.owner_of_pair(&install.ulids) == 0).collect();
        let mut sides = [true, false].map(|short| (short, Side::new(&installs, hasher, strict)));
        for ((now, (out, burst)), lost) in (0..).zip(&bursts).zip(&losses) {
            for (_, side) in &mut sides {
                lost.iter().for_each(|(loss, lost)| side.shard.lose(*loss, *lost));
            }
            let frame = |sent: &Sent| if *out { sent.frame_of_host() } else { sent.frame_of_peer(&sharding) };
            let frames: Vec<Vec<u8>> = burst.iter().map(frame).collect();
            let place = (if *out { LAN } else { OUTSIDE }, now * 100);
            let [short, long] = sides.each_mut().map(|(short, side)| side.judge(&frames, place, &snapshot, &sharding, *short));
            for ((short, long), sent) in short.iter().zip(&long).zip(burst) {
                prop_assert_eq!(short.0, long.0, "{:?}", sent);
                // What a packet looks like that is not sent on is nobody's business.
                if matches!(short.0, Verdict::Forward(_) | Verdict::Unresolved(..) | Verdict::HandOver(_)) {
                    prop_assert_eq!(&short.1, &long.1, "{:?}", sent);
                }
            }
            // Reports in between make contexts doubtful, and those take the long way.
            let [short, long] = sides.each_mut().map(|(_, side)| {
                side.shard.start_report();
                let mut reports: Vec<_> = std::iter::from_fn(|| side.shard.next_activity()).collect();
                // In a burst the short way comes first.
                reports.sort_by_key(|report| format!("{report:?}"));
                let counts: Vec<_> = side.counters.iter().collect();
                (reports, counts)
            });
            prop_assert_eq!(short.0, long.0);
            prop_assert_eq!(short.1, long.1);
        }
    }
}

/// The comparison above means little if few packets take the short way.
#[test]
fn ordinary_packets_take_the_short_way() {
    let hasher = Hasher::new([5; 32]);
    let sharding = Sharding::new(hasher, 1);
    let installs: Vec<Install> = (0..CONTEXTS).map(|n| install(n, 0, &sharding)).collect();
    let snapshot = snapshot(true, [1500, 1500]);
    let mut side = Side::new(&installs, hasher, false);
    for (next_header, payload) in [(17, vec![0; 24]), (6, vec![0; 24]), (58, vec![128; 24])] {
        for (port, long) in [(LAN, 0), (OUTSIDE, 0)] {
            let sent = Sent { context: 0, next_header, payload: payload.clone(), octets: 40, hops: 9, oddity: 99 };
            let frame = if port == LAN { sent.frame_of_host() } else { sent.frame_of_peer(&sharding) };
            let mut batch = Batch::default();
            batch.frames.extend((0..BURST).map(|_| HeapFrame::new(&frame)));
            let Side { shard, replay, flows, counters } = &mut side;
            let (snapshot, sharding, origin) = (&snapshot, &sharding, Origin::Device);
            let mut scene = Scene {
                shard,
                replay,
                flows,
                now: 0,
                snapshot,
                sharding,
                worker: 0,
                port,
                origin,
                handed_by: None,
                counters,
            };
            let left = if port == LAN { outbound(&mut batch, &mut scene) } else { inbound(&mut batch, &mut scene) };
            assert_eq!(left, long, "of protocol {next_header} on port {port:?}");
        }
    }
}
