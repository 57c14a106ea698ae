//! Several workers give the same result as one: the same frames to each port, each pair's in the order it sent them.

mod common;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use common::{
    Bench, HOSTS, LAN, OTHER_KIND, Seen, Setup, Side, X, Y, datagram, error_about, frame, inner, packet, slot,
    stranger, view,
};
use dataplane::context::{Activity, Install, Phase, Sharding};
use dataplane::counters::{Count, DropReason};
use dataplane::link::{RingSizes, Workers};
use dataplane::port::Port;
use dataplane::port::memory::{HeapFrame, MemoryPort};
use dataplane::snapshot::{PortId, Snapshot};
use dataplane::wire::icmpv6::Error;
use dataplane::wire::ipv6::{self, protocol};
use dataplane::wire::shim6::PayloadHeader;
use dataplane::wire::{ContextTag, Locator, LocatorPair, Ulid, UlidPair};
use dataplane::worker::{Limits, Outlet};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// What the test does, in terms that do not depend on how many workers there are.
#[derive(Clone, Debug)]
enum Step {
    /// A host sends a packet of `octets` to a peer.
    Out { host: u16, peer: u16, octets: usize },
    /// A peer sends a packet to a host, over the provider it finds best.
    In { host: u16, peer: u16, provider: PortId },
    /// A host sends a datagram to a peer without Shim6, from one of its ports.
    Abroad { host: u16, peer: u16, port: u16 },
    /// Such a peer sends one, by the provider it likes.
    FromAbroad { host: u16, peer: u16, port: u16, provider: PortId },
    /// A router inside complains about what came from such a peer.
    Complaint { host: u16, peer: u16, port: u16 },
    /// Control sets up a context for what a host and such a peer have translated at X.
    Shield { host: u16, peer: u16 },
    /// Control sets up a context.
    Open { host: u16, peer: u16 },
    /// Control gives up on a pair.
    Refuse { host: u16, peer: u16 },
    /// Control forgets a context.
    Close { host: u16, peer: u16 },
    /// The workers get to work.
    Run,
}

const FEW: std::ops::Range<u16> = 0..6;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (FEW, FEW, select(vec![20usize, 200, 1452, 1460]))
            .prop_map(|(host, peer, octets)| Step::Out { host, peer, octets }),
        8 => (FEW, FEW, select(vec![X, Y])).prop_map(|(host, peer, provider)| Step::In { host, peer, provider }),
        4 => (FEW, FEW).prop_map(|(host, peer)| Step::Open { host, peer }),
        1 => (FEW, FEW).prop_map(|(host, peer)| Step::Refuse { host, peer }),
        1 => (FEW, FEW).prop_map(|(host, peer)| Step::Close { host, peer }),
        4 => (FEW, FEW, 1u16..4).prop_map(|(host, peer, port)| Step::Abroad { host, peer, port }),
        4 => (FEW, FEW, 1u16..4, select(vec![X, Y]))
            .prop_map(|(host, peer, port, provider)| Step::FromAbroad { host, peer, port, provider }),
        1 => (FEW, FEW, 1u16..4).prop_map(|(host, peer, port)| Step::Complaint { host, peer, port }),
        1 => (FEW, FEW).prop_map(|(host, peer)| Step::Shield { host, peer }),
        6 => Just(Step::Run),
    ]
}

/// How the workers share the ports.
#[derive(Clone, Copy, Debug)]
enum Queues {
    /// Each worker has a queue on every port, and the device spreads flows over them.
    All,
    /// The devices have one queue each, served by the first worker.
    One,
}

fn limits(guests: u32) -> Limits {
    // The hold must not be what decides: one worker has as much room as all of several together.
    Limits {
        contexts: 1024,
        guests,
        hold_pairs: 64,
        icmp_per_second: 1_000_000,
        punts_per_second: 1_000_000,
        ..Limits::default()
    }
}

fn build(workers: usize, queues: Queues, guests: u32) -> Bench {
    let setup = Setup { side: Side::A, workers, limits: limits(guests), rings: RingSizes::default() };
    match queues {
        Queues::All => setup.build_with(snapshot()),
        Queues::One => {
            let (ports, wires): (Vec<_>, Vec<_>) = (0..3).map(|_| MemoryPort::new()).unzip();
            let own = |port| Outlet::Own(Box::new(port) as Box<dyn Port<HeapFrame>>);
            let mut outlets = vec![ports.into_iter().map(own).collect::<Vec<_>>()];
            outlets.extend((1..workers).map(|_| (0..3).map(|_| Outlet::Via(0)).collect()));
            setup.build_on(vec![wires], outlets, snapshot())
        }
    }
}

fn snapshot() -> Snapshot {
    let mut snapshot = Side::A.translating();
    if let Some(nat) = snapshot.nat.as_mut().map(Arc::make_mut) {
        nat.thresholds.packets = Some(5);
    }
    snapshot
}

/// A context for what `host` and a peer without Shim6, or so it seemed, have translated at X.
fn shield(bench: &Bench, host: u16, peer: u16) -> Install {
    let ulids = UlidPair { local: Ulid(Side::A.locator(host, X)), peer: Ulid(stranger(peer)) };
    let owner = u64::from(bench.sharding.owner_of_pair(&bench.snapshot.steering(ulids)));
    let tag = owner << Sharding::WORKER_SHIFT | 9 << 30 | slot(host, peer) | OTHER_KIND;
    Install {
        handle: 1 << 40 | u64::from(host) << 16 | u64::from(peer),
        ulids,
        local_tag: ContextTag::truncate(tag),
        locators: LocatorPair { local: Locator(Side::A.locator(host, Y)), peer: Locator(stranger(peer)) },
        provider: 1,
        inside: Some(Ulid(Side::A.ulid(host))),
        ..bench.context(host, peer, X)
    }
}

/// Does what has to do with peers without Shim6.
fn abroad(bench: &mut Bench, step: &Step, number: u8) {
    let datagram = |source, target, ports| datagram(source, target, ports, usize::from(number));
    match *step {
        Step::Abroad { host, peer, port } => {
            let sent = datagram(Side::A.ulid(host), stranger(peer), [port, 53]);
            arrive(bench, LAN, host * 7 + peer, &frame(Side::A.mac(LAN), Side::A.host_mac(host), &sent));
        }
        Step::FromAbroad { host, peer, port, provider } => {
            let sent = datagram(stranger(peer), Side::A.locator(host, provider), [53, port]);
            arrive(bench, provider, host * 5 + peer * 3, &bench.provider_frame(provider, &sent));
        }
        Step::Complaint { host, peer, port } => {
            let about = datagram(stranger(peer), Side::A.ulid(host), [53, port]);
            let error = error_about(Side::A.ulid(3000), stranger(peer), Error::PacketTooBig { mtu: 1300 }, &about);
            arrive(bench, LAN, host + peer, &frame(Side::A.mac(LAN), Side::A.host_mac(host), &error));
        }
        Step::Shield { host, peer } => {
            let install = shield(bench, host, peer);
            let owner = bench.sharding.owner_of_pair(&install.steering());
            bench.control.install(owner.into(), install);
        }
        _ => unreachable!("the others are done elsewhere"),
    }
}

/// Puts a frame where the device would: all frames of a flow into one queue, whichever worker that belongs to.
fn arrive(bench: &Bench, port: PortId, flow: u16, frame: &[u8]) {
    let queue = usize::from(flow) % bench.wires.len();
    bench.wires[queue][usize::from(port.0)].send(frame);
}

/// Frames to each port by pair of addresses, in order; and what control was told, in no order.
type Outcome = (BTreeMap<(PortId, Ipv6Addr, Ipv6Addr), Vec<Vec<u8>>>, Vec<String>, Vec<(DropReason, u64)>);

/// Takes what was sent since the last call.
fn collect(bench: &Bench, frames: &mut BTreeMap<(PortId, Ipv6Addr, Ipv6Addr), Vec<Vec<u8>>>) {
    for port in [LAN, X, Y] {
        for frame in bench.sent(port) {
            let answer = view(&frame).next_header() == protocol::ICMPV6;
            // An answer belongs to the pair of the packet it quotes.
            let about = if answer { ipv6::View::of_quote(&view(&frame).payload()[8..]).unwrap() } else { view(&frame) };
            frames.entry((port, about.source(), about.target())).or_default().push(inner(&frame).to_vec());
        }
    }
}

/// With `guests` workers may have so many copies of each other's contexts.
fn outcome(workers: usize, queues: Queues, guests: u32, steps: &[Step]) -> Outcome {
    let mut bench = build(workers, queues, guests);
    let mut frames = BTreeMap::new();
    for (number, step) in steps.iter().enumerate() {
        let number = number as u8;
        match *step {
            Step::Out { host, peer, octets } => {
                let frame = bench.host_frame(host, peer, protocol::UDP, &vec![number; octets]);
                arrive(&bench, LAN, host * 7 + peer, &frame);
            }
            Step::In { host, peer, provider } => {
                let tag = bench.context(host, peer, X).local_tag;
                let header = PayloadHeader { next_header: protocol::UDP, tag }.emit();
                let (source, target) = (Side::B.locator(peer, X), Side::A.locator(host, provider));
                let packet = packet(source, target, protocol::SHIM6, &[&header[..], &[number; 30]].concat());
                // Which queue a locator pair falls into has nothing to do with the owner.
                arrive(&bench, provider, host * 5 + peer * 3, &bench.provider_frame(provider, &packet));
            }
            Step::Open { host, peer } => _ = bench.open_alone(host, peer, if host % 2 == 0 { X } else { Y }),
            Step::Refuse { host, peer } => {
                let pair = bench.context(host, peer, X).ulids;
                let owner = usize::from(bench.sharding.owner_of_pair(&pair));
                bench.control.refuse(owner, pair);
            }
            Step::Close { host, peer } => {
                let context = bench.context(host, peer, X);
                let owner = usize::from(bench.sharding.owner_of_pair(&context.ulids));
                bench.control.remove(owner, context.local_tag);
            }
            Step::Run => {
                bench.run();
                // Queues have no order among each other, so they are looked at before more is sent.
                collect(&bench, &mut frames);
            }
            Step::Abroad { .. } | Step::FromAbroad { .. } | Step::Complaint { .. } | Step::Shield { .. } => {
                abroad(&mut bench, step, number);
            }
        }
    }
    bench.run();
    // Three reports: one of copies, the one that takes in what they say, and, should that be too late for it, the next.
    (0..3).for_each(|_| bench.wait(50));
    for worker in &bench.workers {
        worker.shard().selfcheck();
    }
    collect(&bench, &mut frames);
    // Tags of ours name the worker that owns them, so they are looked at no closer than that they are there.
    let mut activities = BTreeMap::new();
    let told = bench.take_seen().into_iter().filter_map(|seen| match seen {
        Seen::UnknownTag(_, locators, _) => Some(format!("unknown tag {locators:?}")),
        // Packets of the two directions that arrive in one turn have no order, and what a copy has seen is told later.
        Seen::Activity(handle, Activity { received, sent, .. }, traffic) => {
            let before = activities.insert(handle, (received, sent, traffic));
            if let (Some(all), Some(before)) = (activities.get_mut(&handle), before) {
                *all = (all.0 | before.0, all.1 | before.1, all.2);
            }
            None
        }
        other => Some(format!("{other:?}")),
    });
    let mut told: Vec<String> = told.collect();
    told.extend(activities.iter().map(|activity| format!("activity {activity:?}")));
    told.sort();
    let drops = DropReason::ALL.iter().map(|reason| (*reason, bench.dropped(*reason))).collect();
    (frames, told, drops)
}

/// What control says in answer to a peer leaves after the worker that will get the peer's packets knows their context.
#[test]
fn a_frame_of_controls_leaves_after_what_its_worker_was_told_before() {
    let mut bench = build(2, Queues::One, 0);
    let mine = (0..HOSTS).map(|host| bench.context(host, 1, X)).find(|it| bench.sharding.owner_of_pair(&it.ulids) == 1);
    let install = mine.expect("one of many hosts is the second worker's");
    bench.control.install(1, install.clone());
    let frame = bench.provider_frame(X, &packet(Side::A.locator(1, X), Side::B.locator(1, X), 59, &[]));
    assert!(bench.control.transmit_by(1, X, &frame));
    // The first worker, whose queue the port's is, has nothing to send as long as the second has not looked.
    let now = bench.now;
    bench.workers[0].turn(now);
    assert_eq!(bench.sent(X).len(), 0);
    bench.workers[1].turn(now);
    assert_eq!(bench.workers[1].shard().len(), 1);
    bench.workers[0].turn(now);
    assert_eq!(bench.sent(X), [frame]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn several_workers_give_the_same_result_as_one(steps in vec(step(), 1..200)) {
        // What happens between two runs of the workers happens in no particular order when there are several.
        let ordered: Vec<Step> = steps
            .into_iter()
            .flat_map(|step| match step {
                Step::Open { .. } | Step::Refuse { .. } | Step::Close { .. } => vec![Step::Run, step, Step::Run],
                // What is remembered of one packet decides about the next.
                Step::Abroad { .. } | Step::FromAbroad { .. } | Step::Complaint { .. } | Step::Shield { .. } => {
                    vec![Step::Run, step, Step::Run]
                }
                packet => vec![packet],
            })
            .collect();
        let one = outcome(1, Queues::All, 0, &ordered);
        for workers in [2, 4] {
            for queues in [Queues::All, Queues::One] {
                for guests in [0, 8, 1024] {
                    let several = outcome(workers, queues, guests, &ordered);
                    prop_assert_eq!(&several, &one, "{} workers, {:?}, {} guests", workers, queues, guests);
                }
            }
        }
    }
}

#[test]
fn packets_meet_at_the_owner_wherever_they_arrive() {
    let mut bench = build(4, Queues::All, 0);
    let owners: Vec<usize> =
        FEW.map(|host| usize::from(bench.sharding.owner_of_pair(&bench.context(host, 2, X).ulids))).collect();
    assert!((0..4).filter(|worker| owners.contains(worker)).count() > 1, "the pairs below have several owners");
    for host in FEW {
        bench.open_alone(host, 2, X);
    }
    bench.run();
    for (host, owner) in FEW.zip(&owners) {
        for arrival in 0..4 {
            let before = bench.count(Count::HandedOver);
            let frame = bench.host_frame(host, 2, protocol::UDP, &[0; 20]);
            bench.wires[arrival][usize::from(LAN.0)].send(&frame);
            bench.run();
            assert_eq!(bench.count(Count::HandedOver) - before, u64::from(arrival != *owner));
            let left: Vec<usize> = (0..4).filter(|worker| bench.wires[*worker][1].receive().is_some()).collect();
            assert_eq!(left, [*owner], "the owner sends it through its own queue");
        }
    }
    let counted: u64 = bench.workers.iter().map(|worker| worker.counters().count(Count::ReceivedSite)).sum();
    assert_eq!((counted, bench.drops()), (24, 0), "a packet handed over is not received twice");
}

#[test]
fn a_full_ring_between_workers_drops_and_counts() {
    let rings = RingSizes { handover: 4, ..RingSizes::default() };
    let mut bench = Setup { workers: 2, rings, limits: limits(0), ..Setup::default() }.build();
    let host = FEW.into_iter().find(|host| bench.sharding.owner_of_pair(&bench.context(*host, 2, X).ulids) == 1);
    let host = host.unwrap();
    bench.open_alone(host, 2, X);
    bench.run();
    for number in 0..10 {
        bench.wires[0][0].send(&bench.host_frame(host, 2, protocol::UDP, &[number; 20]));
    }
    bench.workers[0].turn(0);
    assert_eq!(bench.dropped(DropReason::RingFull), 6);
    bench.run();
    let numbers: Vec<u8> = bench.sent(X).iter().map(|frame| frame[frame.len() - 1]).collect();
    assert_eq!(numbers, [0, 1, 2, 3], "what found room keeps its order");
}

#[test]
fn a_context_that_moves_in_phases_is_the_same_for_all_workers() {
    for workers in [1, 2, 4] {
        let mut bench = build(workers, Queues::All, 0);
        for host in FEW {
            bench.wires[usize::from(host) % workers][0].send(&bench.host_frame(host, 2, protocol::UDP, &[9; 20]));
        }
        bench.run();
        assert_eq!(bench.take_seen().len(), FEW.len());
        for phase in [Phase::Opening, Phase::Answering, Phase::Live] {
            for host in FEW {
                let install = Install { phase, ..bench.context(host, 2, X) };
                bench.install(install);
            }
            bench.run();
        }
        assert_eq!((bench.sent(X).len(), bench.drops()), (FEW.len(), 0));
    }
}

#[test]
fn words_that_find_no_room_are_no_packets_and_counted_apart() {
    let mut bench = Setup { rings: RingSizes { events: 1, ..RingSizes::default() }, ..Setup::default() }.build();
    let stray = [59, 0, 0x80, 0, 0, 0, 0, 9];
    let packet = packet(Side::B.locator(2, X), Side::A.locator(1, X), protocol::SHIM6, &stray);
    let frame = bench.provider_frame(X, &packet);
    (0..3).for_each(|_| bench.send(X, &frame));
    bench.workers[0].turn(0);
    // Each packet has its one reason, although control heard of one tag alone.
    assert_eq!((bench.drops(), bench.dropped(DropReason::UnknownTag)), (3, 3));
    assert_eq!(bench.count(Count::NoticesLost), 2);
    // A packet for control that finds no room is lost itself.
    bench.send(LAN, &bench.host_frame(3, 2, protocol::UDP, &[3; 40]));
    bench.workers[0].turn(0);
    assert_eq!((bench.dropped(DropReason::RingFull), bench.count(Count::NoticesLost)), (1, 2));
}
