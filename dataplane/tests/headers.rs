//! Which packets get a payload header and where, in packets one does not meet every day: fragments, tunnels, multicast,
//! and those that are too large by just that header.

mod common;

use common::{Bench, LAN, Seen, Side, X, Y, crossing, frame, inner, packet, two_hops_on, udp, view};
use dataplane::context::Install;
use dataplane::counters::{Count, DropReason};
use dataplane::link::{Punt, Workers};
use dataplane::wire::ContextTag;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::ipv6::{self, protocol};
use dataplane::wire::shim6::PayloadHeader;
use std::sync::Arc;

/// IPv6 in IPv6 (RFC 2473).
const IPV6: u8 = 41;

/// A and B with the context of host 1 and host 2, over X at both.
fn two_boxes() -> (Bench, Bench, Install) {
    let (mut a, mut b) = (Bench::new(Side::A), Bench::new(Side::B));
    let (sharding_a, sharding_b) = (a.sharding, b.sharding);
    let install = a.open(&sharding_b, 1, 2, X, X);
    b.open(&sharding_a, 2, 1, X, X);
    a.run();
    b.run();
    (a, b, install)
}

/// A fragment of a datagram from host 1 to host 2: `data` from `offset` on, in units of eight octets.
fn fragment(offset: u16, more: bool, data: &[u8]) -> Vec<u8> {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    let header = [protocol::UDP, 0, high, low, 0, 0, 0x12, 0x34];
    packet(Side::A.ulid(1), Side::B.ulid(2), protocol::FRAGMENT, &[&header[..], data].concat())
}

// R5533-005
#[test]
fn each_fragment_of_a_datagram_carries_the_header() {
    let (mut a, mut b, install) = two_boxes();
    let datagram = udp(Side::A.ulid(1), Side::B.ulid(2), 2400 - 8);
    let sent = [fragment(0, true, &datagram[..1200]), fragment(150, false, &datagram[1200..])];
    let (wire, arrived) = crossing(&mut a, &mut b, &sent);
    assert_eq!(wire.len(), 2);
    for (wire, sent) in wire.iter().zip(&sent) {
        let header = PayloadHeader { next_header: protocol::FRAGMENT, tag: install.peer_tag };
        assert_eq!((wire[6], &wire[40..48]), (protocol::SHIM6, &header.emit()[..]));
        assert_eq!(wire[48..], sent[40..], "the Fragment header and all behind it as the host wrote them");
    }
    assert_eq!(arrived, sent.map(|sent| two_hops_on(&sent)));
}

// R5533-006
#[test]
fn all_protocols_of_a_pair_go_through_one_context() {
    let (mut a, mut b, install) = two_boxes();
    let protocols = [protocol::TCP, protocol::UDP, protocol::ICMPV6, protocol::ESP, 132];
    // An echo request, whatever else the octets are to the others.
    let sent = protocols.map(|upper| packet(Side::A.ulid(1), Side::B.ulid(2), upper, &[128; 40]));
    let (wire, arrived) = crossing(&mut a, &mut b, &sent);
    let tags: Vec<ContextTag> = wire.iter().map(|wire| PayloadHeader::parse(&wire[40..]).unwrap().tag).collect();
    assert_eq!(tags, [install.peer_tag; 5]);
    assert_eq!(arrived, sent.map(|sent| two_hops_on(&sent)));
    assert_eq!((a.count(Count::Contexts), a.take_seen()), (1, vec![]), "control heard of no other pair");
}

// R5533-002
#[test]
fn multicast_from_the_site_is_never_translated() {
    let mut a = Bench::new(Side::A);
    a.open_alone(1, 2, X);
    a.run();
    for group in ["ff02::1", "ff05::2", "ff0e::1:2"] {
        let group = group.parse().unwrap();
        let sent = frame(Mac::for_multicast(group), Side::A.host_mac(1), &packet(Side::A.ulid(1), group, 17, &[0; 20]));
        a.send(LAN, &sent);
        a.run();
        assert_eq!(a.take_seen(), [Seen::Punt(LAN, Punt::HostStack, sent)], "no context is asked for");
    }
    // Nor from a group, which no packet may come from.
    let forged = packet("ff0e::1".parse().unwrap(), Side::B.ulid(2), 17, &[0; 20]);
    a.send(LAN, &frame(Side::A.mac(LAN), Side::A.host_mac(1), &forged));
    a.run();
    assert_eq!((a.sent(X).len() + a.sent(Y).len(), a.count(Count::Held)), (0, 0));
    assert_eq!((a.dropped(DropReason::BadAddress), a.count(Count::Contexts)), (1, 1));
}

// R5533-025: header order alone decides. A tunnel between two hosts is payload; what it carries, payload headers of others
// included, is nobody's business on the way.
#[test]
fn a_tunnel_is_shimmed_outside_and_left_alone_inside() {
    let (mut a, mut b, install) = two_boxes();
    let strange = PayloadHeader { next_header: protocol::UDP, tag: install.peer_tag }.emit();
    let inside = packet(
        "2001:db8:77::1".parse().unwrap(),
        "2001:db8:88::1".parse().unwrap(),
        protocol::SHIM6,
        &[&strange[..], &[7; 30]].concat(),
    );
    let sent = packet(Side::A.ulid(1), Side::B.ulid(2), IPV6, &inside);
    let (wire, arrived) = crossing(&mut a, &mut b, std::slice::from_ref(&sent));
    assert_eq!(wire[0][40..48], PayloadHeader { next_header: IPV6, tag: install.peer_tag }.emit());
    assert_eq!(wire[0][48..], inside);
    assert_eq!(arrived, [two_hops_on(&sent)]);
    // From outside: a tunnel packet to a locator has no Shim6 header of its own, whatever it carries.
    let to_locator = packet(Side::A.locator(1, X), Side::B.locator(2, X), IPV6, &inside);
    b.send(X, &b.provider_frame(X, &to_locator));
    b.run();
    assert_eq!(b.sent(LAN).len(), 0);
    assert_eq!(b.count(Count::TranslatedIn), 1, "the one before");
}

// R5533-311: what stands before the payload header comes first, and of ESP, AH and fragments the box can undo nothing.
#[test]
fn a_payload_header_behind_what_comes_first_is_not_acted_on() {
    let (_, mut b, _) = two_boxes();
    let tag = b.side.install([&b.sharding, &Bench::new(Side::A).sharding], 2, 1, X, X).local_tag;
    let shim = [&PayloadHeader { next_header: protocol::UDP, tag }.emit()[..], &[0; 20]].concat();
    let authentication = [&[protocol::SHIM6, 4][..], &[0; 22]].concat();
    for (first, before) in [
        (protocol::FRAGMENT, &[protocol::SHIM6, 0, 0, 0, 0, 0, 0, 1][..]),
        (protocol::AUTHENTICATION, &authentication),
        (protocol::ESP, &[0, 0, 0, 7, 0, 0, 0, 1]),
    ] {
        let hidden = packet(Side::A.locator(1, X), Side::B.locator(2, X), first, &[before, &shim].concat());
        b.send(X, &b.provider_frame(X, &hidden));
        b.run();
        assert_eq!((b.sent(LAN).len(), b.count(Count::TranslatedIn)), (0, 0), "{first}");
    }
    assert_eq!(b.drops(), 3);
    // And a host's AH and ESP stand behind the header of their own packets: there they are the host's to undo.
    let at = packet(Side::A.locator(1, X), Side::B.locator(2, X), protocol::SHIM6, &shim);
    b.send(X, &b.provider_frame(X, &at));
    b.run();
    assert_eq!(b.sent(LAN).len(), 1);
}

// R5533-306: what control messages may come over, payload may come over, and the other way round.
#[test]
fn a_locator_takes_both_kinds_of_shim6_header() {
    let (_, mut b, _) = two_boxes();
    let tag = {
        let a = Bench::new(Side::A);
        b.side.install([&b.sharding, &a.sharding], 2, 1, X, X).local_tag
    };
    for port in [X, Y] {
        let (from, to) = (Side::A.locator(1, port), Side::B.locator(2, port));
        let header = PayloadHeader { next_header: protocol::UDP, tag }.emit();
        let payload = packet(from, to, protocol::SHIM6, &[&header[..], &[0; 20]].concat());
        // Keepalive (66); whether it can be believed is for control to find out.
        let control = packet(from, to, protocol::SHIM6, &[59, 1, 66, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0]);
        b.send(port, &b.provider_frame(port, &payload));
        b.send(port, &b.provider_frame(port, &control));
        b.run();
        assert_eq!(b.sent(LAN).len(), 1);
        let punts = b.take_seen().iter().filter(|seen| matches!(seen, Seen::Punt(_, Punt::Shim6, _))).count();
        assert_eq!((punts, b.drops()), (1, 0));
    }
}

// ---- packets that are too large by the header ----

/// Puts fragments together as RFC 8200 §4.5 says.
fn reassembled(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut data = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let field = u16::from_be_bytes([piece[42], piece[43]]);
        assert_eq!((piece[6], usize::from(field >> 3) * 8), (protocol::FRAGMENT, data.len()));
        assert_eq!((field & 1 == 1, &piece[44..48]), (at + 1 < pieces.len(), &pieces[0][44..48]));
        assert_eq!(ipv6::View::new(piece).unwrap().total_len(), piece.len());
        data.extend(&piece[48..]);
    }
    let mut whole = [&pieces[0][..40], &data[..]].concat();
    whole[6] = pieces[0][40];
    whole[4..6].copy_from_slice(&(data.len() as u16).to_be_bytes());
    whole
}

fn sized(octets: usize) -> Vec<u8> {
    let (from, to) = (Side::A.ulid(1), Side::B.ulid(2));
    packet(from, to, protocol::UDP, &udp(from, to, octets - 48))
}

/// A's first provider carries 1280 octets, as its link says or as a router said of the context's path.
fn narrow(by_link: bool) -> (Bench, Bench) {
    let (mut a, b, install) = two_boxes();
    if by_link {
        let mut snapshot = Side::A.snapshot();
        snapshot.ports[1].mtu = 1280;
        a.control.publish(&Arc::new(snapshot));
    } else {
        a.install(Install { narrow: true, ..install });
    }
    a.run();
    (a, b)
}

// R5533-005, R5533-308: no host need send less than 1280 octets, so the box makes room for the header, above the header.
#[test]
fn a_path_without_room_for_the_header_gets_fragments() {
    for by_link in [true, false] {
        let (mut a, mut b) = narrow(by_link);
        for octets in 1264..=1280 {
            let sent = sized(octets);
            let (wire, arrived) = crossing(&mut a, &mut b, std::slice::from_ref(&sent));
            assert!(wire.iter().all(|wire| wire.len() <= 1280));
            if octets <= 1272 {
                assert_eq!((wire.len(), arrived), (1, vec![two_hops_on(&sent)]), "{octets}");
                continue;
            }
            assert_eq!(wire.len(), 2);
            assert!(wire.iter().all(|wire| (wire[6], wire[40]) == (protocol::SHIM6, protocol::FRAGMENT)));
            assert_eq!(reassembled(&arrived), two_hops_on(&sent), "{octets}");
        }
        assert_eq!((a.count(Count::Fragmented), a.drops(), b.drops()), (8, 0, 0));
        // A host that sends more is told what it can send.
        let (wire, _) = crossing(&mut a, &mut b, &[sized(1281)]);
        assert_eq!(wire.len(), 0);
        let answer = &a.sent(LAN)[0];
        assert_eq!(view(answer).payload()[..8][4..], 1280u32.to_be_bytes());
    }
}

#[test]
fn fragments_of_a_host_are_cut_under_their_own_number() {
    let (mut a, mut b) = narrow(true);
    let datagram = udp(Side::A.ulid(1), Side::B.ulid(2), 2464 - 8);
    let sent = [fragment(0, true, &datagram[..1232]), fragment(154, false, &datagram[1232..])];
    let (wire, arrived) = crossing(&mut a, &mut b, &sent);
    assert_eq!(wire.len(), 4);
    assert!(wire.iter().all(|wire| wire.len() <= 1280));
    assert_eq!(reassembled(&arrived)[40..], datagram);
    assert_eq!(arrived[0][44..48], [0, 0, 0x12, 0x34]);
}

#[test]
fn a_burst_of_packets_is_cut_in_order_and_numbers_differ() {
    let (mut a, mut b) = narrow(true);
    let sent: Vec<Vec<u8>> = (0..100).map(|at| sized(if at % 3 == 0 { 600 } else { 1280 })).collect();
    let (_, arrived) = crossing(&mut a, &mut b, &sent);
    let pieces: Vec<&Vec<u8>> = arrived.iter().filter(|packet| packet[6] == protocol::FRAGMENT).collect();
    assert_eq!((pieces.len(), arrived.len()), (132, 34 + 132));
    let mut numbers: Vec<[u8; 4]> = pieces.iter().map(|piece| piece[44..48].try_into().unwrap()).collect();
    assert!(pieces.chunks(2).all(|two| two[0][44..48] == two[1][44..48]));
    numbers.dedup();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 66, "each packet has a number of its own");
}

#[test]
fn what_cannot_be_cut_is_dropped_by_name() {
    let (mut a, mut b) = narrow(true);
    // Hop-by-Hop options that leave no room for anything behind them.
    let options = [&[protocol::UDP, 153, 1, 4, 0, 0, 0, 0][..], &[0; 1224], &[5; 6]].concat();
    let sent = packet(Side::A.ulid(1), Side::B.ulid(2), protocol::HOP_BY_HOP, &options);
    assert_eq!(sent.len(), 1278);
    let (wire, _) = crossing(&mut a, &mut b, &[sent]);
    assert_eq!((wire.len(), a.dropped(DropReason::MalformedChain), a.drops()), (0, 1, 1));
}

// ---- what TCP is told ----

/// A SYN of host 1 that offers this segment size.
fn syn(from: std::net::Ipv6Addr, to: std::net::Ipv6Addr, size: u16) -> Vec<u8> {
    let [high, low] = size.to_be_bytes();
    let mut segment =
        vec![0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 6 << 4, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, high, low];
    let sum = dataplane::wire::checksum::upper_layer(from, to, protocol::TCP, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    packet(from, to, protocol::TCP, &segment)
}

// R5533-309
#[test]
fn a_syn_offers_what_fits_with_the_header() {
    let (ours, theirs) = (Side::A.ulid(1), Side::B.ulid(2));
    for (clamp, offered, expected) in
        [(false, 1440, 1440), (true, 1440, 1432), (true, 1432, 1432), (true, 1220, 1220), (true, 8940, 1432)]
    {
        // Only A clamps, in both directions.
        let (mut a, mut b, _) = two_boxes();
        let snapshot = dataplane::snapshot::Snapshot { mss_clamp: clamp, ..Side::A.snapshot() };
        a.control.publish(&Arc::new(snapshot));
        a.run();
        let (_, arrived) = crossing(&mut a, &mut b, &[syn(ours, theirs, offered)]);
        assert_eq!(arrived, [two_hops_on(&syn(ours, theirs, expected))], "out, {offered}");
        b.send(LAN, &frame(Side::B.mac(LAN), Side::B.host_mac(2), &syn(theirs, ours, offered)));
        b.run();
        a.send(X, &a.provider_frame(X, inner(&b.only().1)));
        a.run();
        assert_eq!(inner(&a.only().1), two_hops_on(&syn(theirs, ours, expected)), "in, {offered}");
    }
}

// R5533-309: over a path of 1280 octets.
#[test]
fn a_syn_over_a_narrow_path_offers_less() {
    let (mut a, mut b, install) = two_boxes();
    a.install(Install { narrow: true, ..install });
    let snapshot = dataplane::snapshot::Snapshot { mss_clamp: true, ..Side::A.snapshot() };
    a.control.publish(&Arc::new(snapshot));
    a.run();
    let (ours, theirs) = (Side::A.ulid(1), Side::B.ulid(2));
    let (_, arrived) = crossing(&mut a, &mut b, &[syn(ours, theirs, 1440)]);
    assert_eq!(arrived, [two_hops_on(&syn(ours, theirs, 1212))]);
}
