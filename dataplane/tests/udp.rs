//! Shim6 in UDP: what goes in comes out, and what has no business in it does not get through.

mod common;

use std::net::Ipv6Addr;
use std::sync::Arc;

use common::{Bench, LAN, Seen, Setup, Side, X, Y, crossing, frame, inner, packet, two_hops_on};
use dataplane::context::{Install, Loss, PathNumber, Standby, UdpUse};
use dataplane::counters::{Count, DropReason};
use dataplane::link::{Punt, Workers};
use dataplane::snapshot::Snapshot;
use dataplane::wire::checksum;
use dataplane::wire::ipv6::{self, protocol};
use dataplane::wire::shim6::udp::{self as shim_udp, DYNAMIC};
use dataplane::wire::shim6::{PayloadHeader, UdpPorts};
use dataplane::wire::{ContextTag, Locator, LocatorPair};
use proptest::prelude::*;

const PORT: u16 = 5533;
const BOTH: UdpUse = UdpUse { comes: true, goes: true };

fn bench(side: Side, workers: usize) -> Bench {
    let mut setup = Setup { side, workers, ..Setup::default() };
    setup.limits.udp = true;
    let mut bench = setup.build();
    publish(&mut bench, |_| {});
    bench
}

fn publish(bench: &mut Bench, change: impl FnOnce(&mut Snapshot)) {
    let mut snapshot = Snapshot { udp_port: Some(PORT), ..(*bench.snapshot).clone() };
    change(&mut snapshot);
    bench.snapshot = Arc::new(snapshot);
    bench.control.publish(&bench.snapshot);
    bench.run();
}

/// A datagram of a host of some octets.
fn datagram(source: Ipv6Addr, target: Ipv6Addr, octets: usize) -> Vec<u8> {
    packet(source, target, protocol::UDP, &common::udp(source, target, octets))
}

fn read(packet: &[u8]) -> ipv6::View<'_> {
    ipv6::View::new(packet).unwrap()
}

/// A and B with the context of host 1 and host 2 over X at both, in UDP as `udp` says at A and at B.
fn two_boxes(udp: [UdpUse; 2]) -> (Bench, Bench, [Install; 2]) {
    let (mut a, mut b) = (bench(Side::A, 1), bench(Side::B, 1));
    let (sharding_a, sharding_b) = (a.sharding, b.sharding);
    let ours = Install { udp: udp[0], ..Side::A.install([&sharding_a, &sharding_b], 1, 2, X, X) };
    let theirs = Install { udp: udp[1], ..Side::B.install([&sharding_b, &sharding_a], 2, 1, X, X) };
    a.install(ours.clone());
    b.install(theirs.clone());
    a.run();
    b.run();
    (a, b, [ours, theirs])
}

/// The packet without the UDP header that stands right behind its IPv6 header.
fn out_of_udp(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let place = shim_udp::find(&ipv6::View::new(&packet).unwrap(), PORT).unwrap().unwrap().place;
    shim_udp::unwrap(&mut packet, place).unwrap();
    packet.split_off(shim_udp::LEN)
}

/// A packet with a UDP header in front of its Shim6 header.
fn in_udp(packet: &[u8], ports: UdpPorts) -> Vec<u8> {
    let place = read(packet).shim_header().unwrap().unwrap().place;
    let mut buffer = [&[0; shim_udp::LEN][..], packet].concat();
    shim_udp::wrap(&mut buffer, place, ports).unwrap();
    buffer
}

const PORTS: UdpPorts = UdpPorts { source: DYNAMIC + 5, target: PORT };

#[test]
fn it_is_the_packet_with_its_header_and_udp_in_front() {
    let sent_by_host = datagram(Side::A.ulid(1), Side::B.ulid(2), 5);
    let (mut a, mut b, [ours, _]) = two_boxes([BOTH, BOTH]);
    let (wire, arrived) = crossing(&mut a, &mut b, std::slice::from_ref(&sent_by_host));
    let sent = read(&wire[0]);
    assert_eq!((sent.next_header(), sent.total_len()), (protocol::UDP, sent_by_host.len() + 16));
    let octets = sent.from_offset(40);
    assert!(checksum::upper_layer_verifies(sent.source(), sent.target(), protocol::UDP, octets));
    let header = PayloadHeader { next_header: protocol::UDP, tag: ours.peer_tag };
    assert_eq!((&octets[8..16], &octets[16..]), (&header.emit()[..], &sent_by_host[40..]));
    assert_eq!(arrived, [two_hops_on(&sent_by_host)]);
    // The same without UDP, but for UDP.
    let (mut plain, mut other, _) = two_boxes([UdpUse::default(); 2]);
    let (plain, _) = crossing(&mut plain, &mut other, &[sent_by_host]);
    assert_eq!(out_of_udp(&wire[0]), plain[0]);
    assert_eq!((a.count(Count::UdpOut), b.count(Count::UdpIn)), (1, 1));
    assert_eq!((a.count(Count::TranslatedOut), b.count(Count::TranslatedIn)), (1, 1));
    assert_eq!((a.drops(), b.drops()), (0, 0));
}

#[test]
fn both_directions_are_one_flow_to_a_firewall() {
    let (mut a, mut b, _) = two_boxes([BOTH, BOTH]);
    let ports = |packet: &[u8]| shim_udp::find(&read(packet), PORT).unwrap().unwrap().ports;
    let (there, _) = crossing(&mut a, &mut b, &[datagram(Side::A.ulid(1), Side::B.ulid(2), 5)]);
    b.send(LAN, &frame(Side::B.mac(LAN), Side::B.host_mac(2), &datagram(Side::B.ulid(2), Side::A.ulid(1), 5)));
    b.run();
    let back = inner(&b.sent(X)[0]).to_vec();
    assert_eq!(ports(&there[0]), ports(&back).swapped());
}

#[test]
fn who_sends_in_udp_still_takes_what_comes_without_and_the_other_way_round() {
    let (mut a, mut b, _) = two_boxes([UdpUse { comes: true, goes: false }, BOTH]);
    let sent_by_host = datagram(Side::A.ulid(1), Side::B.ulid(2), 5);
    let (wire, arrived) = crossing(&mut a, &mut b, std::slice::from_ref(&sent_by_host));
    assert_eq!(read(&wire[0]).next_header(), protocol::SHIM6);
    assert_eq!(arrived, [two_hops_on(&sent_by_host)]);
    assert_eq!(b.count(Count::UdpIn), 0);
}

#[test]
fn payload_of_a_context_that_did_not_agree_is_dropped_under_its_name() {
    let (mut a, mut b, _) = two_boxes([BOTH, UdpUse::default()]);
    let (_, arrived) = crossing(&mut a, &mut b, &[datagram(Side::A.ulid(1), Side::B.ulid(2), 5)]);
    assert_eq!((arrived.len(), b.dropped(DropReason::UdpUnwelcome), b.drops()), (0, 1, 1));
    assert_eq!(b.seen, []);
}

#[test]
fn without_the_port_nothing_is_looked_at() {
    let (mut a, mut b, _) = two_boxes([BOTH, BOTH]);
    publish(&mut b, |snapshot| snapshot.udp_port = None);
    let (_, arrived) = crossing(&mut a, &mut b, &[datagram(Side::A.ulid(1), Side::B.ulid(2), 5)]);
    assert_eq!((arrived.len(), b.dropped(DropReason::NoTranslation)), (0, 1));
    publish(&mut a, |snapshot| snapshot.udp_port = None);
    let (wire, _) = crossing(&mut a, &mut b, &[datagram(Side::A.ulid(1), Side::B.ulid(2), 5)]);
    assert_eq!(read(&wire[0]).next_header(), protocol::SHIM6, "whatever an entry says");
}

#[test]
fn a_tag_of_nobody_is_told_with_the_ports_it_came_by() {
    let (_, mut b, [_, theirs]) = two_boxes([BOTH, BOTH]);
    let (source, target) = (theirs.locators.peer.0, theirs.locators.local.0);
    for guess in 0..20u64 {
        // Tags next to one that is there: the same slot, and other bits that nobody can guess.
        let tag = ContextTag::truncate(theirs.local_tag.value() ^ 1 << (20 + guess));
        let header = PayloadHeader { next_header: 59, tag }.emit();
        b.send(X, &b.provider_frame(X, &in_udp(&packet(source, target, protocol::SHIM6, &header), PORTS)));
        b.run();
        let locators = LocatorPair { local: Locator(target), peer: Locator(source) };
        assert_eq!(b.seen.drain(..).collect::<Vec<_>>(), [Seen::UnknownTag(tag, locators, Some(PORTS))]);
    }
    assert_eq!((b.dropped(DropReason::UnknownTag), b.drops()), (20, 20));
}

#[test]
fn messages_go_to_control_as_they_came_and_at_the_rate_of_messages() {
    let mut setup = Setup { side: Side::B, ..Setup::default() };
    (setup.limits.udp, setup.limits.punts_per_second, setup.limits.punts_per_source_second) = (true, 80, 40);
    let mut b = setup.build();
    publish(&mut b, |_| {});
    let (source, target) = (Side::A.locator(1, X), Side::B.locator(2, X));
    let message = packet(source, target, protocol::SHIM6, &[59, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let wrapped = b.provider_frame(X, &in_udp(&message, PORTS));
    b.send(X, &wrapped);
    b.run();
    assert_eq!(b.seen.drain(..).collect::<Vec<_>>(), [Seen::Punt(X, Punt::Shim6, wrapped.clone())]);
    // With and without UDP they share one bound.
    for _ in 0..100 {
        b.send(X, &wrapped);
        b.send(X, &b.provider_frame(X, &message));
    }
    b.run();
    assert_eq!((b.seen.len(), b.dropped(DropReason::ControlRate)), (9, 191));
}

#[test]
fn what_has_no_business_in_udp_does_not_get_through() {
    let (_, mut b, [_, theirs]) = two_boxes([BOTH, BOTH]);
    let (source, target) = (theirs.locators.peer.0, theirs.locators.local.0);
    let host = datagram(Side::A.ulid(1), Side::B.ulid(2), 5);
    let header = PayloadHeader { next_header: protocol::UDP, tag: theirs.local_tag }.emit();
    let shim = packet(source, target, protocol::SHIM6, &[&header[..], &host[40..]].concat());
    let good = in_udp(&shim, PORTS);
    let mut send = |packet: &[u8]| {
        let before = b.drops();
        b.send(X, &b.provider_frame(X, packet));
        b.run();
        (b.sent(LAN).len(), b.drops() - before)
    };
    assert_eq!(send(&good), (1, 0));
    // Cut short, at any length.
    for length in 0..good.len() - 40 {
        let mut cut = good[..40 + length].to_vec();
        cut[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        assert_eq!(send(&cut), (0, 1), "{length} octets");
    }
    // Other ports are another datagram, which nobody here translates.
    for ports in [(PORT, PORT), (DYNAMIC, DYNAMIC), (1, PORT), (PORT, 1), (DYNAMIC, PORT + 1), (53, 53)] {
        assert_eq!(send(&in_udp(&shim, UdpPorts { source: ports.0, target: ports.1 })), (0, 1), "{ports:?}");
    }
    // UDP in UDP is read as Shim6 once, and is none.
    let twice = in_udp(&packet(source, target, protocol::SHIM6, &good[40..]), PORTS);
    assert_eq!(send(&twice).0, 0);
    // A fragment of it: nobody here puts fragments together.
    let pieces =
        packet(source, target, protocol::FRAGMENT, &[&[protocol::UDP, 0, 0, 1, 0, 0, 0, 9][..], &good[40..]].concat());
    assert_eq!(send(&pieces), (0, 1));
    // From an address of our own, and to one that is no locator.
    let spoofed = packet(Side::B.locator(1, Y), target, protocol::SHIM6, &shim[40..]);
    assert_eq!(send(&in_udp(&spoofed, PORTS)), (0, 1));
    let elsewhere = packet(source, Side::A.locator(3, X), protocol::SHIM6, &shim[40..]);
    assert_eq!(send(&in_udp(&elsewhere, PORTS)), (0, 1));
    // No checksum.
    let mut none = good.clone();
    none[46..48].fill(0);
    assert_eq!(send(&none), (0, 1));
    assert!(b.dropped(DropReason::SpoofedSource) == 1 && b.dropped(DropReason::NotOurLocator) == 1);
    assert!(b.dropped(DropReason::UdpMalformed) > 8);
}

#[test]
fn hosts_hear_of_sixteen_octets_less_and_short_packets_are_cut() {
    let (mut a, mut b, [ours, _]) = two_boxes([BOTH, BOTH]);
    let (source, target) = (Side::A.ulid(1), Side::B.ulid(2));
    let of = |octets: usize| packet(source, target, protocol::TCP, &vec![7; octets - 40]);
    let (wire, _) = crossing(&mut a, &mut b, &[of(1484)]);
    assert_eq!(wire[0].len(), 1500);
    a.send(LAN, &frame(Side::A.mac(LAN), Side::A.host_mac(1), &of(1485)));
    a.run();
    let error = inner(&a.sent(LAN)[0]).to_vec();
    assert_eq!((error[40], &error[44..48]), (2, &1484u32.to_be_bytes()[..]));
    // Over a path of 1280 octets, what any host may send goes in fragments.
    a.install(Install { narrow: true, ..ours });
    let (wire, arrived) = crossing(&mut a, &mut b, &[of(1264), of(1280)]);
    assert_eq!(wire.iter().map(Vec::len).max(), Some(1280));
    assert_eq!((wire.len(), arrived.len(), a.count(Count::Fragmented)), (3, 3, 1));
    assert!(wire.iter().all(|packet| shim_udp::find(&read(packet), PORT).is_some_and(|found| found.is_ok())));
}

#[test]
fn segment_sizes_are_offered_with_room_for_udp() {
    let (mut a, mut b, _) = two_boxes([BOTH, BOTH]);
    publish(&mut a, |snapshot| snapshot.mss_clamp = true);
    let syn = [0, 80, 0, 81, 0, 0, 0, 0, 0, 0, 0, 0, 0x60, 2, 0, 0, 0, 0, 0, 0, 2, 4, 0x05, 0xb4];
    let (_, arrived) = crossing(&mut a, &mut b, &[packet(Side::A.ulid(1), Side::B.ulid(2), protocol::TCP, &syn)]);
    assert_eq!(arrived[0][62..64], (1500u16 - 16 - 60).to_be_bytes());
}

#[test]
fn a_standby_goes_in_udp_if_its_own_path_wants_it() {
    for wants in [false, true] {
        let (mut a, mut b, [ours, _]) = two_boxes([UdpUse { comes: true, goes: !wants }, BOTH]);
        let locators = LocatorPair { local: Locator(Side::A.locator(1, Y)), ..ours.locators };
        let standby = Standby { locators, provider: 1, path: PathNumber::NONE, narrow: false, udp: wants };
        a.install(Install { standby: Some(standby), ..ours });
        a.control.lose(Loss::Provider(0), true);
        crossing(&mut a, &mut b, &[datagram(Side::A.ulid(1), Side::B.ulid(2), 5)]);
        let sent = a.sent(Y);
        let expected = if wants { protocol::UDP } else { protocol::SHIM6 };
        assert_eq!(read(inner(&sent[0])).next_header(), expected);
    }
}

#[test]
fn any_worker_takes_it_to_the_one_that_has_the_context() {
    let mut setup = Setup { side: Side::B, workers: 4, ..Setup::default() };
    setup.limits.udp = true;
    let mut b = setup.build();
    publish(&mut b, |_| {});
    for peer in 0..32 {
        let install = Install { udp: BOTH, ..b.context(1, peer, X) };
        b.install(install.clone());
        b.run();
        let host = datagram(install.ulids.peer.0, install.ulids.local.0, 5);
        let header = PayloadHeader { next_header: protocol::UDP, tag: install.local_tag }.emit();
        let (source, target) = (install.locators.peer.0, install.locators.local.0);
        let shim = packet(source, target, protocol::SHIM6, &[&header[..], &host[40..]].concat());
        b.send(X, &b.provider_frame(X, &in_udp(&shim, PORTS)));
        b.run();
        assert_eq!(b.sent(LAN).len(), 1);
    }
    assert!(b.count(Count::HandedOver) > 8);
    assert_eq!((b.count(Count::UdpIn), b.drops()), (32, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever a host sends arrives as it was sent, at every size that fits.
    #[test]
    fn what_goes_in_comes_out(
        sizes in prop::collection::vec(0usize..1444, 1..20),
        next_header in prop::sample::select(vec![6u8, 17, 50, 58, 59, 44, 60, 0, 43, 140]),
        seed: u8,
    ) {
        let (mut a, mut b, _) = two_boxes([BOTH, BOTH]);
        let (source, target) = (Side::A.ulid(1), Side::B.ulid(2));
        let packets: Vec<Vec<u8>> = sizes.iter().map(|octets| {
            let mut payload: Vec<u8> = (0..*octets).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect();
            // Headers that can be followed: no next header after eight octets of nothing; nothing under way; no errors.
            if payload.len() >= 8 && matches!(next_header, 0 | 43 | 44 | 60) {
                payload[..8].copy_from_slice(&[59, 0, 1, 0, 0, 0, 0, 0]);
            }
            payload.iter_mut().take(1).filter(|_| next_header == 58).for_each(|kind| *kind |= 128);
            packet(source, target, next_header, &payload)
        }).filter(|packet| packet.len() >= 48 || !matches!(next_header, 0 | 43 | 44 | 60)).collect();
        let (wire, arrived) = crossing(&mut a, &mut b, &packets);
        prop_assert_eq!(wire.len(), packets.len());
        prop_assert_eq!(arrived, packets.iter().map(|packet| two_hops_on(packet)).collect::<Vec<_>>());
        prop_assert_eq!((a.drops(), b.drops()), (0, 0));
        prop_assert_eq!(b.count(Count::UdpIn), packets.len() as u64);
    }
}
