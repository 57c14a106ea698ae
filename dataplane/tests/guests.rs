//! Packets that arrive at a worker that does not own their context: the owner lends it a copy, and has it back whenever
//! something about the context changes.

mod common;

use std::sync::Arc;

use common::{Bench, LAN, Seen, Setup, Side, X, Y, packet, view};
use dataplane::context::entry::Traffic;
use dataplane::context::{Activity, Direction, Install, Loss, PathNumber, Standby};
use dataplane::counters::{Count, DropReason};
use dataplane::link::{RingSizes, Workers};
use dataplane::snapshot::{PortId, Snapshot};
use dataplane::wire::ipv6::protocol;
use dataplane::wire::shim6::PayloadHeader;
use dataplane::wire::{Locator, LocatorPair};
use dataplane::worker::Limits;

const PEER: u16 = 2;
/// Time between two reports.
const REPORT: u64 = 50;

/// Two workers, each with room for `guests`.
fn bench(guests: u32, rings: RingSizes) -> Bench {
    let limits = Limits { contexts: 1024, guests, ..Limits::default() };
    Setup { workers: 2, limits, rings, ..Setup::default() }.build()
}

/// Hosts whose context with the peer is the second worker's.
fn hosts_of_the_second(bench: &Bench) -> impl Iterator<Item = u16> + use<> {
    let sharding = bench.sharding;
    let pairs: Vec<_> = (0..8).map(|host| (host, bench.context(host, PEER, X).ulids)).collect();
    pairs.into_iter().filter(move |(_, ulids)| sharding.owner_of_pair(ulids) == 1).map(|(host, _)| host)
}

/// A host's packet arrives at the first worker. Where it leaves: the worker, and the packet.
fn out(bench: &mut Bench, host: u16, next_header: u8) -> Vec<(usize, PortId, Vec<u8>)> {
    let frame = bench.host_frame(host, PEER, next_header, &[7; 20]);
    bench.wires[0][usize::from(LAN.0)].send(&frame);
    bench.run();
    taken(bench)
}

/// A packet of the peer arrives there, by a provider.
fn back(bench: &mut Bench, host: u16, provider: PortId) -> Vec<(usize, PortId, Vec<u8>)> {
    let tag = bench.context(host, PEER, X).local_tag;
    let header = PayloadHeader { next_header: protocol::UDP, tag }.emit();
    let (source, target) = (Side::B.locator(PEER, X), Side::A.locator(host, provider));
    let packet = packet(source, target, protocol::SHIM6, &[&header[..], &[9; 20]].concat());
    bench.wires[0][usize::from(provider.0)].send(&bench.provider_frame(provider, &packet));
    bench.run();
    taken(bench)
}

fn taken(bench: &Bench) -> Vec<(usize, PortId, Vec<u8>)> {
    let mut all = Vec::new();
    for (worker, wires) in bench.wires.iter().enumerate() {
        for port in [LAN, X, Y] {
            all.extend(std::iter::from_fn(|| wires[usize::from(port.0)].receive()).map(|frame| (worker, port, frame)));
        }
    }
    all
}

/// Where the only one left.
fn place(left: &[(usize, PortId, Vec<u8>)]) -> (usize, PortId) {
    assert_eq!(left.len(), 1);
    (left[0].0, left[0].1)
}

/// A host with a context of the second worker's that the first has a copy of.
fn lent(bench: &mut Bench, install: impl Fn(Install) -> Install) -> u16 {
    let host = hosts_of_the_second(bench).next().unwrap();
    let context = install(bench.context(host, PEER, X));
    bench.install(context);
    bench.run();
    for worker in [1, 1, 0, 0] {
        assert_eq!(place(&out(bench, host, protocol::UDP)), (worker, X));
    }
    assert_eq!((bench.count(Count::ContextsLent), bench.count(Count::Guests)), (1, 1));
    host
}

fn selfcheck(bench: &Bench) {
    bench.workers.iter().for_each(|worker| worker.shard().selfcheck());
}

#[test]
fn packets_stay_where_they_arrive_once_their_context_is_lent() {
    let mut bench = bench(1024, RingSizes::default());
    let host = lent(&mut bench, |install| install);
    let handed_over = bench.count(Count::HandedOver);
    for _ in 0..10 {
        assert_eq!(place(&out(&mut bench, host, protocol::TCP)), (0, X));
        assert_eq!(place(&back(&mut bench, host, Y)), (0, LAN));
    }
    assert_eq!(bench.count(Count::HandedOver), handed_over);
    assert_eq!((bench.drops(), bench.count(Count::TranslatedOut), bench.count(Count::TranslatedIn)), (0, 14, 10));
    // What the owner makes of it, octet for octet.
    let by_copy = out(&mut bench, host, protocol::UDP);
    bench.wires[1][usize::from(LAN.0)].send(&bench.host_frame(host, PEER, protocol::UDP, &[7; 20]));
    bench.run();
    let by_owner = taken(&bench);
    assert_eq!((by_copy[0].1, &by_copy[0].2), (by_owner[0].1, &by_owner[0].2));
    selfcheck(&bench);
}

#[test]
fn a_pair_with_a_packet_now_and_then_is_not_worth_a_copy() {
    let mut bench = bench(1024, RingSizes::default());
    let host = hosts_of_the_second(&bench).next().unwrap();
    bench.open_alone(host, PEER, X);
    for _ in 0..10 {
        out(&mut bench, host, protocol::UDP);
        back(&mut bench, host, X);
        bench.wait(REPORT);
        bench.wait(REPORT);
    }
    // The one back comes within the same report as the one out, and is the second.
    assert!(bench.count(Count::ContextsLent) <= 1);
    let mut bench = self::bench(1024, RingSizes::default());
    bench.open_alone(host, PEER, X);
    for _ in 0..10 {
        assert_eq!(place(&out(&mut bench, host, protocol::UDP)), (1, X));
        bench.wait(REPORT);
        bench.wait(REPORT);
    }
    assert_eq!(bench.count(Count::ContextsLent), 0);
}

/// RFC 5534 lives on what is heard and sent, wherever that was: control hears it from the owner, with totals of both.
#[test]
fn control_hears_of_a_context_from_its_owner_alone() {
    let mut bench = bench(1024, RingSizes::default());
    let host = lent(&mut bench, |install| install);
    bench.wait(REPORT);
    bench.wait(REPORT);
    bench.take_seen();
    out(&mut bench, host, protocol::UDP);
    back(&mut bench, host, X);
    back(&mut bench, host, X);
    for _ in 0..3 {
        bench.wait(REPORT);
    }
    let handle = bench.context(host, PEER, X).handle;
    let octets = |packets| Traffic { packets, octets: packets * 60 };
    let last = match &bench.take_seen()[..] {
        [Seen::Activity(named, activity, traffic)] => {
            assert_eq!((*named, *traffic), (handle, [octets(5), octets(2)]));
            *activity
        }
        seen => panic!("{seen:?}"),
    };
    assert!(matches!(last, Activity { received: true, sent: true, last: Direction::In, .. }));
    out(&mut bench, host, protocol::UDP);
    (0..3).for_each(|_| bench.wait(REPORT));
    let seen = bench.take_seen();
    assert!(
        matches!(&seen[..], [Seen::Activity(_, Activity { received: false, last: Direction::Out, .. }, traffic)]
            if *traffic == [octets(6), octets(2)]),
        "{seen:?}"
    );
    assert_eq!(bench.count(Count::NoticesLost), 0);
}

#[test]
fn a_context_that_changes_or_goes_is_called_back() {
    let mut bench = bench(1024, RingSizes::default());
    let host = lent(&mut bench, |install| install);
    let moved = bench.context(host, PEER, Y);
    bench.install(moved.clone());
    bench.run();
    assert_eq!((bench.count(Count::ContextsRecalled), bench.count(Count::Guests)), (1, 0));
    // The first is handed over, and then there is a copy of what it is now.
    for worker in [1, 0, 0] {
        let left = out(&mut bench, host, protocol::UDP);
        assert_eq!((place(&left), view(&left[0].2).source()), ((worker, Y), Side::A.locator(host, Y)));
    }
    bench.control.remove(1, moved.local_tag);
    bench.run();
    bench.take_seen();
    assert!(back(&mut bench, host, X).is_empty());
    assert_eq!(bench.dropped(DropReason::UnknownTag), 1);
    assert!(out(&mut bench, host, protocol::UDP).is_empty());
    let seen = bench.take_seen();
    assert!(matches!(seen[..], [Seen::UnknownTag(..), Seen::UnknownPair(_)]), "{seen:?}");
    assert_eq!(bench.count(Count::Guests), 0);
    selfcheck(&bench);
}

/// Without room for a word an owner can say no more than that all has to go, and that it says until it was heard.
#[test]
fn a_context_is_called_back_even_if_there_is_no_room_to_say_which() {
    let mut bench = bench(1024, RingSizes { words: 1, ..RingSizes::default() });
    let hosts: Vec<u16> = hosts_of_the_second(&bench).collect();
    assert!(hosts.len() >= 3);
    for &host in &hosts {
        bench.open_alone(host, PEER, X);
        bench.run();
        for worker in [1, 1, 0] {
            assert_eq!(place(&out(&mut bench, host, protocol::UDP)), (worker, X));
        }
    }
    assert_eq!(bench.count(Count::Guests), hosts.len() as u64);
    for &host in &hosts {
        bench.open_alone(host, PEER, Y);
    }
    bench.run();
    assert_eq!(bench.count(Count::Guests), 0);
    for &host in &hosts {
        assert_eq!(place(&out(&mut bench, host, protocol::UDP)).1, Y);
    }
    selfcheck(&bench);
    // And then copies are lent as ever.
    for _ in 0..200 {
        out(&mut bench, hosts[0], protocol::UDP);
    }
    assert_eq!(place(&out(&mut bench, hosts[0], protocol::UDP)), (0, Y));
}

#[test]
fn who_has_lost_the_path_asks_the_owner_who_has_a_standby() {
    let mut bench = bench(1024, RingSizes::default());
    let other = |host| Standby {
        locators: LocatorPair { local: Locator(Side::A.locator(host, Y)), peer: Locator(Side::B.locator(PEER, Y)) },
        provider: 1,
        path: PathNumber::NONE,
        narrow: false,
        udp: false,
    };
    let host = lent(&mut bench, |install| Install { standby: Some(other(install.host as u16)), ..install });
    bench.control.lose(Loss::Provider(0), true);
    bench.run();
    for _ in 0..3 {
        let left = out(&mut bench, host, protocol::UDP);
        assert_eq!((place(&left), view(&left[0].2).source()), ((1, Y), Side::A.locator(host, Y)));
        // What comes in does not ask how things go out.
        assert_eq!(place(&back(&mut bench, host, X)), (0, LAN));
    }
    bench.control.lose(Loss::Provider(0), false);
    bench.run();
    assert_eq!(place(&out(&mut bench, host, protocol::UDP)), (0, X));
}

/// The owner has to see each segment of a context from which nothing comes back, and what comes back then.
#[test]
fn what_is_to_be_watched_comes_by_the_owner_while_a_context_is_in_doubt() {
    let mut bench = bench(1024, RingSizes::default());
    let host = lent(&mut bench, |install| install);
    for _ in 0..6 {
        out(&mut bench, host, protocol::UDP);
        bench.wait(REPORT);
    }
    assert!(bench.count(Count::ContextsRecalled) >= 1);
    // Datagrams are nothing to be watched, so that they get a copy.
    for _ in 0..3 {
        out(&mut bench, host, protocol::UDP);
    }
    assert_eq!(place(&out(&mut bench, host, protocol::UDP)), (0, X));
    for _ in 0..3 {
        assert_eq!(place(&out(&mut bench, host, protocol::TCP)), (1, X));
    }
    // Something comes back, and it is as before.
    assert_eq!(place(&back(&mut bench, host, X)), (1, LAN));
    assert_eq!(bench.count(Count::Guests), 0);
    for worker in [1, 0, 0] {
        assert_eq!(place(&out(&mut bench, host, protocol::TCP)), (worker, X));
    }
    assert_eq!(place(&back(&mut bench, host, X)), (0, LAN));
    selfcheck(&bench);
}

/// Numbers of hosts and providers are used again, and a copy may be older than what its worker knows of them.
#[test]
fn a_copy_is_not_used_when_its_host_or_provider_is_another() {
    let mut bench = bench(1024, RingSizes::default());
    let host = lent(&mut bench, |install| install);
    let mut snapshot: Snapshot = (*bench.snapshot).clone();
    snapshot.hosts[usize::from(host)] = snapshot.hosts[63];
    bench.control.publish(&Arc::new(snapshot.clone()));
    bench.run();
    let before = bench.count(Count::HandedOver);
    back(&mut bench, host, X);
    assert_eq!(bench.count(Count::HandedOver), before + 1, "what becomes of it is its owner's business");
    snapshot.providers[0].prefix ^= 1 << 20;
    bench.control.publish(&Arc::new(snapshot));
    bench.run();
    out(&mut bench, host, protocol::UDP);
    assert_eq!(bench.count(Count::HandedOver), before + 2);
}

#[test]
fn a_guest_in_use_keeps_its_place_and_one_that_was_used_gives_it_up() {
    let mut bench = bench(1, RingSizes::default());
    let first = lent(&mut bench, |install| install);
    let second = hosts_of_the_second(&bench).find(|host| *host != first).unwrap();
    bench.open_alone(second, PEER, X);
    bench.run();
    for _ in 0..5 {
        assert_eq!(place(&out(&mut bench, second, protocol::UDP)), (1, X));
    }
    assert_eq!(place(&out(&mut bench, first, protocol::UDP)), (0, X));
    (0..3).for_each(|_| bench.wait(REPORT));
    // It is lent once more when so many packets have come again.
    for _ in 0..131 {
        out(&mut bench, second, protocol::UDP);
    }
    assert_eq!(place(&out(&mut bench, second, protocol::UDP)), (0, X));
    assert_eq!((bench.count(Count::Guests), bench.drops()), (1, 0));
    (0..3).for_each(|_| bench.wait(REPORT));
    let totals = |handle| {
        let told = bench.seen.iter().rev().find_map(|seen| match seen {
            Seen::Activity(named, _, [sent, _]) if *named == handle => Some(sent.packets),
            _ => None,
        });
        told.unwrap()
    };
    let handles = [first, second].map(|host| bench.context(host, PEER, X).handle);
    assert_eq!(handles.map(totals), [5, 137], "no packet was counted twice or not at all");
    selfcheck(&bench);
}

/// Where it is of interest by which provider payload comes, a copy is given back now and then, and the owner sees.
#[test]
fn owners_see_now_and_then_by_which_provider_payload_comes() {
    let mut bench = bench(1024, RingSizes::default());
    let snapshot = Snapshot { arrivals: true, ..(*bench.snapshot).clone() };
    bench.control.publish(&Arc::new(snapshot));
    let host = lent(&mut bench, |install| install);
    let mut arrived = Vec::new();
    for _ in 0..64 {
        for _ in 0..4 {
            out(&mut bench, host, protocol::UDP);
            back(&mut bench, host, Y);
        }
        bench.wait(REPORT);
        arrived.extend(bench.take_seen().into_iter().filter_map(|seen| match seen {
            Seen::Activity(_, activity, _) => activity.arrived,
            _ => None,
        }));
    }
    assert!(!arrived.is_empty() && arrived.iter().all(|provider| *provider == 1), "{arrived:?}");
    assert!(bench.count(Count::HandedOver) < 100, "{} of 512", bench.count(Count::HandedOver));
}
