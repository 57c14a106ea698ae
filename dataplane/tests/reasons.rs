//! Every verdict and every reason to drop, provoked at least once, each by the packet its help text describes.

mod common;

use common::{Bench, LAN, Seen, Setup, Side, X, Y, frame, inner, packet, stranger, udp};
use dataplane::context::{Flows, Hasher, Install, LocatorSets, Phase, Replay, Shard, Sharding};
use dataplane::counters::{Count, Counters, DropReason};
use dataplane::link::{Punt, RingSizes, Workers};
use dataplane::port::memory::{HEADROOM, HeapFrame, MemoryPort};
use dataplane::port::{Frame, Port};
use dataplane::snapshot::{PortId, Snapshot};
use dataplane::translate::{Batch, IcmpError, Origin, Scene, Verdict, inbound, outbound};
use dataplane::wire::checksum;
use dataplane::wire::ethernet::{EtherType, Mac, ViewMut};
use dataplane::wire::ipv6::protocol;
use dataplane::wire::shim6::PayloadHeader;
use dataplane::wire::{ContextTag, Locator, LocatorPair, Ulid, UlidPair};
use dataplane::worker::{Limits, Outlet};

/// How a reason is provoked. The box must have dropped exactly one packet afterwards, for that reason.
type Provoke = fn() -> Bench;

const PROVOKED: &[(DropReason, Provoke)] = &[
    (DropReason::NotIpv6, || {
        let mut old = Bench::new(Side::A).host_frame(1, 2, protocol::UDP, &[0; 20]);
        ViewMut::new(&mut old).unwrap().set_ether_type(EtherType(0x0800));
        one(LAN, &old)
    }),
    (DropReason::NotIpv6, || one(LAN, &[2, 0, 0, 0, 0xa])),
    (DropReason::WrongMac, || {
        let mut other = Bench::new(Side::A).host_frame(1, 2, protocol::UDP, &[0; 20]);
        ViewMut::new(&mut other).unwrap().set_target(Mac([2, 9, 9, 9, 9, 9]));
        one(LAN, &other)
    }),
    (DropReason::WrongMac, || {
        // For one station, but sent to all on the link: every router there would forward it.
        let mut to_all = Bench::new(Side::A).host_frame(1, 2, protocol::UDP, &[0; 20]);
        ViewMut::new(&mut to_all).unwrap().set_target(Mac::BROADCAST);
        one(LAN, &to_all)
    }),
    (DropReason::MalformedIpv6, || {
        let whole = Bench::new(Side::A).host_frame(1, 2, protocol::UDP, &[0; 20]);
        one(LAN, &whole[..whole.len() - 1])
    }),
    (DropReason::MalformedIpv6, || {
        let mut old = Bench::new(Side::A).host_frame(1, 2, protocol::UDP, &[0; 20]);
        old[14] = 0x45;
        one(LAN, &old)
    }),
    (DropReason::MalformedChain, || {
        let mut bench = Bench::new(Side::A);
        bench.open_alone(1, 2, X);
        let frame = bench.host_frame(1, 2, protocol::HOP_BY_HOP, &[protocol::UDP, 200, 0, 0, 0, 0, 0, 0]);
        give(bench, LAN, &frame)
    }),
    (DropReason::MalformedChain, || arriving(protocol::HOP_BY_HOP, &[protocol::SHIM6, 200, 0, 0, 0, 0, 0, 0])),
    (DropReason::MalformedChain, || arriving(protocol::FRAGMENT, &[protocol::UDP])),
    (DropReason::BadAddress, || {
        let bench = Bench::new(Side::A);
        let link_local = packet("fe80::9".parse().unwrap(), Side::B.ulid(2), protocol::UDP, &[0; 20]);
        give(bench, LAN, &frame(Side::A.mac(LAN), Side::A.host_mac(1), &link_local))
    }),
    (DropReason::BadAddress, || {
        let mut bench = Bench::new(Side::A);
        let install = bench.open_alone(1, 2, X);
        let mut packet = tagged(Side::A.locator(1, X), install.local_tag);
        packet[8] = 0xff;
        let frame = bench.provider_frame(X, &packet);
        give(bench, X, &frame)
    }),
    (DropReason::HopLimit, || {
        let mut bench = Bench::new(Side::A);
        bench.open_alone(1, 2, X);
        let mut frame = bench.host_frame(1, 2, protocol::UDP, &[0; 20]);
        frame[14 + 7] = 1;
        give(bench, LAN, &frame)
    }),
    (DropReason::TooBig, || {
        let mut bench = Bench::new(Side::A);
        bench.open_alone(1, 2, X);
        let frame = bench.host_frame(1, 2, protocol::UDP, &[0; 1493 - 40]);
        give(bench, LAN, &frame)
    }),
    (DropReason::NoRoute, || {
        let mut bench = Bench::new(Side::A);
        bench.install(Install { provider: 7, ..bench.context(1, 2, X) });
        let frame = bench.host_frame(1, 2, protocol::UDP, &[0; 20]);
        give(bench, LAN, &frame)
    }),
    (DropReason::NoRoute, || {
        // A port the snapshot knows nothing about.
        let mut bench = Bench::new(Side::A);
        let mut snapshot = Side::A.snapshot();
        snapshot.ports.truncate(2);
        bench.control.publish(&std::sync::Arc::new(snapshot));
        let frame = bench.host_frame(1, 2, protocol::UDP, &[0; 20]);
        give(bench, Y, &frame)
    }),
    (DropReason::Unreachable, || {
        let mut bench = give(Bench::new(Side::A), LAN, &held());
        let pair = UlidPair { local: Ulid(Side::A.ulid(1)), peer: Ulid(Side::B.ulid(2)) };
        bench.control.refuse(0, pair);
        bench.run();
        bench
    }),
    (DropReason::Unreachable, || {
        let bench = Bench::new(Side::A);
        let nobody = packet(Side::A.ulid(1), Side::A.ulid(999), protocol::UDP, &[0; 20]);
        give(bench, LAN, &frame(Side::A.mac(LAN), Side::A.host_mac(1), &nobody))
    }),
    (DropReason::HoldFull, || {
        let bench = with_limits(Limits { hold_depth: 1, ..Limits::default() });
        give(give(bench, LAN, &held()), LAN, &held())
    }),
    (DropReason::HoldFull, || {
        let bench = give(with_limits(Limits { hold_pairs: 1, ..Limits::default() }), LAN, &held());
        let another = bench.host_frame(2, 2, protocol::UDP, &[0; 20]);
        give(bench, LAN, &another)
    }),
    (DropReason::HoldExpired, || {
        let mut bench = with_limits(Limits { hold_pairs: 4, hold_ms: 100, ..Limits::default() });
        bench = give(bench, LAN, &held());
        bench.now = 101;
        // One place is looked at in each turn.
        (0..4).for_each(|_| _ = bench.workers[0].turn(101));
        bench
    }),
    (DropReason::NotOurLocator, || {
        let bench = Bench::new(Side::A);
        let stray = packet(Side::B.locator(2, X), Side::B.locator(3, X), protocol::UDP, &[0; 20]);
        let frame = bench.provider_frame(X, &stray);
        give(bench, X, &frame)
    }),
    (DropReason::BadPayloadHeader, || arriving(protocol::SHIM6, &[protocol::UDP, 1, 0x80, 0, 0, 0, 0, 5])),
    (DropReason::BadPayloadHeader, || arriving(protocol::SHIM6, &[protocol::UDP, 0, 0x80, 0])),
    (DropReason::UdpMalformed, || {
        let mut datagram = Vec::from([0xc0, 1, 0x15, 0x9d, 0, 16, 0, 1]);
        datagram.extend_from_slice(&[59, 0, 0x80, 0, 0, 0, 0, 5]);
        in_udp(|_| datagram)
    }),
    (DropReason::UdpUnwelcome, || {
        in_udp(|tag| {
            let (source, target) = (Side::B.locator(2, X), Side::A.locator(1, X));
            let header = PayloadHeader { next_header: 59, tag }.emit();
            let mut datagram = [&[0xc0, 1, 0x15, 0x9d, 0, 16, 0, 0][..], &header].concat();
            let sum = checksum::upper_layer(source, target, protocol::UDP, &datagram);
            datagram[6..8].copy_from_slice(&sum.to_be_bytes());
            datagram
        })
    }),
    (DropReason::UnknownTag, || arriving(protocol::SHIM6, &[protocol::UDP, 0, 0x80, 0, 0, 0, 0, 5])),
    (DropReason::UnknownTag, || arriving(protocol::SHIM6, &[protocol::UDP, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
    // R5533-328: strict mode, and a source that is no locator of the peer.
    (DropReason::ForeignLocators, || strict(|sets| sets.peer = vec![Locator(Side::B.locator(9, X))])),
    // R5533-328: the same for a destination that is another locator of ours.
    (DropReason::ForeignLocators, || strict(|sets| sets.local = vec![Locator(Side::A.locator(1, Y))])),
    // R5533-290, I1-SENT
    (DropReason::NotReady, || {
        let mut bench = Bench::new(Side::A);
        let install = Install { phase: Phase::Opening, ..bench.context(1, 2, X) };
        let packet = tagged(Side::A.locator(1, X), install.local_tag);
        bench.install(install);
        let frame = bench.provider_frame(X, &packet);
        give(bench, X, &frame)
    }),
    (DropReason::NoTranslation, || arriving(protocol::UDP, &[0; 20])),
    (DropReason::NatUnmapped, || translating(LAN, Side::A.ulid(999), stranger(0))),
    (DropReason::NatNoProvider, || {
        let mut bench = Bench::translating();
        bench.translate(|nat| nat.order.clear());
        let sent = packet(Side::A.ulid(1), stranger(0), protocol::UDP, &udp(Side::A.ulid(1), stranger(0), 9));
        give(bench, LAN, &frame(Side::A.mac(LAN), Side::A.host_mac(1), &sent))
    }),
    (DropReason::NatUnknownImage, || translating(X, stranger(0), Side::A.locator(999, X))),
    (DropReason::NatUntranslatable, || {
        let under_way = packet(stranger(0), Side::A.locator(1, X), protocol::ROUTING, &[59, 0, 0, 1, 0, 0, 0, 0]);
        let bench = Bench::translating();
        let frame = bench.provider_frame(X, &under_way);
        give(bench, X, &frame)
    }),
    (DropReason::UniqueLocal, || translating(X, Side::B.ulid(1), Side::A.locator(1, X))),
    (DropReason::SpoofedSource, || spoofed(Side::A.ulid(3))),
    (DropReason::SpoofedSource, || spoofed(Side::A.locator(3, X))),
    (DropReason::SpoofedSource, || {
        // From the site, with a source no host was given; answered by Destination Unreachable, source policy.
        let bench = Bench::new(Side::A);
        let stranger = packet(Side::A.ulid(999), Side::B.ulid(2), protocol::UDP, &[0; 20]);
        let bench = give(bench, LAN, &frame(Side::A.mac(LAN), Side::A.host_mac(1), &stranger));
        let (_, answer) = bench.only();
        assert_eq!(inner(&answer)[40..42], [1, 5]);
        bench
    }),
    (DropReason::NextHopUnresolved, || {
        // Some packets may ask control for the address; the one after them is over the rate.
        let mut bench = with_limits(Limits { pairs_per_host_second: 8, ..Limits::default() });
        let mut snapshot = Side::A.snapshot();
        snapshot.providers[0].mac = None;
        bench.control.publish(&std::sync::Arc::new(snapshot));
        bench.open_alone(1, 2, X);
        bench.run();
        let bench = (0..9).fold(bench, |bench, _| give(bench, LAN, &held()));
        assert_eq!(bench.seen.len(), 8);
        assert!(bench.seen.iter().all(|seen| matches!(seen, Seen::Unresolved(X, ..))), "{:?}", bench.seen);
        bench
    }),
    (DropReason::ControlRate, || {
        let bench = with_limits(Limits { punts_per_second: 8, ..Limits::default() });
        (0..9).fold(bench, |bench, _| give(bench, LAN, &to_all()))
    }),
    (DropReason::QuestionRate, || {
        let limits = Limits { questions_per_second: 80, questions_per_host_second: 8, ..Limits::default() };
        let question = || {
            let (host, own) = (Side::A.ulid(1), Side::A.own(LAN));
            let mut datagram = udp(host, own, 20);
            datagram[2..4].copy_from_slice(&53u16.to_be_bytes());
            frame(Side::A.mac(LAN), Side::A.host_mac(1), &packet(host, own, protocol::UDP, &datagram))
        };
        (0..9).fold(with_limits(limits), |bench, _| give(bench, LAN, &question()))
    }),
    (DropReason::SystemRate, || {
        let limits = Limits { system_per_second: 8, ..Limits::default() };
        let mut snapshot = Side::A.snapshot();
        let address: std::net::Ipv6Addr = "fe80::5157".parse().unwrap();
        snapshot.ports[usize::from(X.0)].system = Some(vec![address]);
        let bench = Setup { limits, ..Setup::default() }.build_with(snapshot);
        let hello = packet("fe80::9".parse().unwrap(), address, 89, &[0; 36]);
        let hello = frame(Side::A.mac(X), Side::A.router_mac(X), &hello);
        (0..9).fold(bench, |bench, _| give(bench, X, &hello))
    }),
    (DropReason::RingFull, || {
        let rings = RingSizes { events: 1, ..RingSizes::default() };
        let mut bench = Setup { rings, ..Setup::default() }.build();
        bench.send(LAN, &to_all());
        bench.send(LAN, &to_all());
        bench.workers[0].turn(0);
        bench
    }),
    (DropReason::RingFull, || {
        // A ring to another worker that has room for one packet.
        let rings = RingSizes { handover: 1, ..RingSizes::default() };
        let mut bench = Setup { workers: 2, rings, ..Setup::default() }.build();
        let of_the_other = |host: &u16| {
            let pair = UlidPair { local: Ulid(Side::A.ulid(*host)), peer: Ulid(Side::B.ulid(2)) };
            bench.sharding.owner_of_pair(&pair) == 1
        };
        let host = (0..common::HOSTS).find(of_the_other).unwrap();
        let frame = bench.host_frame(host, 2, protocol::UDP, &[0; 20]);
        bench.send(LAN, &frame);
        bench.send(LAN, &frame);
        bench.workers[0].turn(0);
        bench
    }),
    (DropReason::TransmitFull, || {
        let mut bench = on_port(X, Box::new(Stubborn));
        bench.open_alone(1, 2, X);
        bench.run();
        give(bench, LAN, &held())
    }),
    (DropReason::NoBuffer, || {
        let frame = Bench::new(Side::A).host_frame(1, 2, protocol::UDP, &udp(Side::A.ulid(1), Side::B.ulid(2), 200));
        let mut tight = HeapFrame::new(&frame[HEADROOM..]);
        assert!(tight.prepend(HEADROOM) && !tight.prepend(1));
        tight.bytes_mut().copy_from_slice(&frame);
        let mut bench = on_port(LAN, Box::new(Single(Some(tight))));
        bench.open_alone(1, 2, X);
        bench.run();
        bench
    }),
];

/// A provider port that takes no packet.
struct Stubborn;

impl Port<HeapFrame> for Stubborn {
    fn receive(&mut self, _: &mut Vec<HeapFrame>) {}
    fn transmit(&mut self, _: &mut Vec<HeapFrame>) {}
}

/// A LAN port that receives one packet as it is, and nothing more.
struct Single(Option<HeapFrame>);

impl Port<HeapFrame> for Single {
    fn receive(&mut self, burst: &mut Vec<HeapFrame>) {
        burst.extend(self.0.take());
    }
    fn transmit(&mut self, _: &mut Vec<HeapFrame>) {}
}

/// A box with one port of the caller's.
fn on_port(place: PortId, port: Box<dyn Port<HeapFrame>>) -> Bench {
    let (mut outlets, mut wires) = (Vec::new(), Vec::new());
    for _ in [LAN, X, Y] {
        let (port, wire) = MemoryPort::new();
        outlets.push(Outlet::Own(Box::new(port) as Box<dyn Port<HeapFrame>>));
        wires.push(wire);
    }
    outlets[usize::from(place.0)] = Outlet::Own(port);
    Setup::default().build_on(vec![wires], vec![outlets], Side::A.snapshot())
}

fn with_limits(limits: Limits) -> Bench {
    Setup { limits: Limits { contexts: 1024, ..limits }, ..Setup::default() }.build()
}

fn give(mut bench: Bench, port: PortId, frame: &[u8]) -> Bench {
    bench.send(port, frame);
    bench.run();
    bench
}

fn one(port: PortId, frame: &[u8]) -> Bench {
    give(Bench::new(Side::A), port, frame)
}

/// A packet of a pair that has no context.
fn held() -> Vec<u8> {
    Bench::new(Side::A).host_frame(1, 2, protocol::UDP, &[0; 20])
}

/// A packet for all nodes on the LAN.
fn to_all() -> Vec<u8> {
    let group = "ff02::1".parse().unwrap();
    frame(Mac::for_multicast(group), Side::A.host_mac(1), &packet(Side::A.ulid(1), group, protocol::UDP, &[0; 20]))
}

/// A datagram to a box that takes Shim6 in UDP, for a context that does not; made for its tag.
fn in_udp(make: impl FnOnce(ContextTag) -> Vec<u8>) -> Bench {
    let mut bench = with_limits(Limits { udp: true, ..Limits::default() });
    let snapshot = Snapshot { udp_port: Some(5533), ..Side::A.snapshot() };
    bench.control.publish(&std::sync::Arc::new(snapshot));
    let install = bench.open_alone(1, 2, X);
    let packet = packet(Side::B.locator(2, X), Side::A.locator(1, X), protocol::UDP, &make(install.local_tag));
    let frame = bench.provider_frame(X, &packet);
    give(bench, X, &frame)
}

/// A packet from the other site to a locator of host 1.
fn arriving(next_header: u8, payload: &[u8]) -> Bench {
    let bench = Bench::new(Side::A);
    let packet = packet(Side::B.locator(2, X), Side::A.locator(1, X), next_header, payload);
    let frame = bench.provider_frame(X, &packet);
    give(bench, X, &frame)
}

/// A payload packet in strict mode over the context's locators, after `change` to what the context accepts.
fn strict(change: fn(&mut LocatorSets)) -> Bench {
    let mut bench = with_limits(Limits { strict_locators: true, ..Limits::default() });
    let mut sets =
        LocatorSets { local: vec![Locator(Side::A.locator(1, X))], peer: vec![Locator(Side::B.locator(2, X))] };
    change(&mut sets);
    let install = Install { accepted: Some(Box::new(sets)), ..bench.context(1, 2, X) };
    let tag = install.local_tag;
    bench.install(install);
    let frame = bench.provider_frame(X, &tagged(Side::A.locator(1, X), tag));
    give(bench, X, &frame)
}

// R5533-328
#[test]
fn strict_mode_lets_packets_over_the_contexts_own_locators_through() {
    let bench = strict(|_| ());
    assert_eq!((bench.drops(), bench.count(Count::TranslatedIn)), (0, 1));
}

/// A datagram to a box that translates.
fn translating(port: PortId, source: std::net::Ipv6Addr, target: std::net::Ipv6Addr) -> Bench {
    let packet = packet(source, target, protocol::UDP, &udp(source, target, 9));
    let frame = frame(Side::A.mac(port), Side::A.host_mac(1), &packet);
    give(Bench::translating(), port, &frame)
}

fn spoofed(source: std::net::Ipv6Addr) -> Bench {
    let mut bench = Bench::new(Side::A);
    let install = bench.open_alone(1, 2, X);
    let mut packet = tagged(Side::A.locator(1, X), install.local_tag);
    packet[8..24].copy_from_slice(&source.octets());
    let frame = bench.provider_frame(X, &packet);
    give(bench, X, &frame)
}

/// A UDP packet under a payload header, from the other side.
fn tagged(target: std::net::Ipv6Addr, tag: ContextTag) -> Vec<u8> {
    let header = PayloadHeader { next_header: protocol::UDP, tag }.emit();
    packet(Side::B.locator(2, X), target, protocol::SHIM6, &[&header[..], &[0; 20]].concat())
}

#[test]
fn every_reason_is_provoked() {
    for reason in DropReason::ALL {
        assert!(PROVOKED.iter().any(|(provoked, _)| provoked == reason), "{reason:?} is never provoked");
    }
}

#[test]
fn each_packet_is_dropped_for_its_reason_and_counted_once() {
    for (at, (reason, provoke)) in PROVOKED.iter().enumerate() {
        let bench = provoke();
        let counted: Vec<_> = DropReason::ALL.iter().filter(|reason| bench.dropped(**reason) > 0).collect();
        assert_eq!((counted, bench.drops()), (vec![reason], 1), "case {at}");
    }
}

/// What the stages themselves say, without a worker to act on it.
struct Stages {
    shard: Shard,
    replay: Replay,
    flows: Flows,
    sharding: Sharding,
    snapshot: dataplane::snapshot::Snapshot,
    counters: Counters,
}

impl Stages {
    fn new() -> Stages {
        let sharding = Sharding::new(Hasher::new([0xa; 32]), 1);
        Stages {
            shard: Shard::new(1024, *sharding.hasher(), false),
            replay: Replay::new(1, 1514),
            flows: Flows::new(0, *sharding.hasher()),
            sharding,
            snapshot: Side::A.snapshot(),
            counters: Counters::default(),
        }
    }

    fn judge(&mut self, port: PortId, frame: &[u8]) -> Verdict {
        let mut batch = Batch::default();
        batch.frames.push(HeapFrame::new(frame));
        let Stages { shard, replay, flows, sharding, snapshot, counters } = self;
        let (now, worker, origin) = (0, 0, Origin::Device);
        let mut scene =
            Scene { shard, replay, flows, now, snapshot, sharding, worker, port, origin, handed_by: None, counters };
        match port {
            LAN => outbound(&mut batch, &mut scene),
            _ => inbound(&mut batch, &mut scene),
        }
        batch.spell_out();
        assert_eq!((batch.frames.len(), batch.verdicts.len()), (1, 1), "every packet has one verdict");
        batch.verdicts[0]
    }
}

#[test]
fn every_verdict_is_given() {
    let bench = Bench::new(Side::A);
    let mut stages = Stages::new();
    let pair = |host, peer| UlidPair { local: Ulid(Side::A.ulid(host)), peer: Ulid(Side::B.ulid(peer)) };
    let locators = LocatorPair { local: Locator(Side::A.locator(1, X)), peer: Locator(Side::B.locator(2, X)) };
    let live = Side::A.install([&stages.sharding, &stages.sharding], 1, 2, X, X);
    stages.shard.install(&live).unwrap();
    stages.shard.install(&Side::A.install([&stages.sharding, &stages.sharding], 3, 2, Y, X)).unwrap();
    stages.snapshot.providers[1].mac = None;

    let from_host = |host, next_header, payload: &[u8]| bench.host_frame(host, 2, next_header, payload);
    assert_eq!(stages.judge(LAN, &from_host(1, protocol::UDP, &[0; 20])), Verdict::Forward(X));
    let router = Side::A.router(Y);
    assert_eq!(stages.judge(LAN, &from_host(3, protocol::UDP, &[0; 20])), Verdict::Unresolved(Y, router));
    assert_eq!(stages.judge(LAN, &from_host(2, protocol::UDP, &[0; 20])), Verdict::Hold(pair(2, 2)));
    assert_eq!(stages.judge(LAN, &to_all()), Verdict::Punt(Punt::HostStack));
    let to_the_box = packet(Side::A.ulid(1), Side::A.own(LAN), protocol::ICMPV6, &[128, 0, 0, 0]);
    let to_the_box = frame(Side::A.mac(LAN), Side::A.host_mac(1), &to_the_box);
    assert_eq!(stages.judge(LAN, &to_the_box), Verdict::Punt(Punt::HostStack));
    let too_big = Verdict::Reply(IcmpError::PacketTooBig(1492));
    assert_eq!(stages.judge(LAN, &from_host(1, protocol::UDP, &[0; 1453])), too_big);

    let mut arriving = |next_header, payload: &[u8]| {
        let packet = packet(Side::B.locator(2, X), Side::A.locator(1, X), next_header, payload);
        stages.judge(X, &bench.provider_frame(X, &packet))
    };
    assert_eq!(arriving(protocol::SHIM6, &[59, 1, 1, 0, 0, 0, 0, 0]), Verdict::Punt(Punt::Shim6));
    assert_eq!(arriving(protocol::ICMPV6, &[2, 0, 0, 0]), Verdict::Punt(Punt::IcmpError));
    assert_eq!(arriving(protocol::ICMPV6, &[128, 0, 0, 0]), Verdict::Drop(DropReason::NoTranslation));
    let known = PayloadHeader { next_header: protocol::UDP, tag: live.local_tag }.emit();
    assert_eq!(arriving(protocol::SHIM6, &known), Verdict::Forward(LAN));
    let unknown = ContextTag::truncate(0x77);
    let stray = PayloadHeader { next_header: protocol::UDP, tag: unknown }.emit();
    assert_eq!(arriving(protocol::SHIM6, &stray), Verdict::UnknownTag(unknown, locators, None));

    // Of two workers, the other one's packets.
    stages.sharding = Sharding::new(*stages.shard.hasher(), 2);
    let theirs = (0..common::HOSTS).find(|host| stages.sharding.owner_of_pair(&pair(*host, 2)) == 1).unwrap();
    assert_eq!(stages.judge(LAN, &from_host(theirs, protocol::UDP, &[0; 20])), Verdict::HandOver(1));
    let tag = ContextTag::truncate(1 << Sharding::WORKER_SHIFT | 0x77);
    let theirs = PayloadHeader { next_header: protocol::UDP, tag }.emit();
    let packet = packet(Side::B.locator(2, X), Side::A.locator(1, X), protocol::SHIM6, &theirs);
    assert_eq!(stages.judge(X, &bench.provider_frame(X, &packet)), Verdict::HandOver(1));
}

#[test]
fn punted_packets_reach_control_as_they_came() {
    let bench = one(LAN, &to_all());
    assert_eq!(bench.seen, [Seen::Punt(LAN, Punt::HostStack, to_all())]);
    for (kind, why) in [(&[59u8, 1, 1, 0, 0, 0, 0, 0][..], Punt::Shim6), (&[3, 0, 0, 0][..], Punt::IcmpError)] {
        let next_header = if why == Punt::Shim6 { protocol::SHIM6 } else { protocol::ICMPV6 };
        let bench = arriving(next_header, kind);
        let [Seen::Punt(X, seen, frame)] = &bench.seen[..] else { panic!("{:?}", bench.seen) };
        assert_eq!((*seen, &inner(frame)[40..]), (why, kind));
    }
}
