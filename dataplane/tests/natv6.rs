//! Peers without Shim6: what goes out and in, who remembers it, and who is told what.

mod common;

use std::net::Ipv6Addr;

use common::{
    Bench, LAN, Seen, Setup, Side, X, Y, a_hop_on, datagram, echo, error_about, frame, inner, packet, stranger, tcp,
    view,
};
use dataplane::counters::{Count, DropReason, NatCount};
use dataplane::link::Workers as _;
use dataplane::natv6::PrefixPair;
use dataplane::snapshot::{Block, PortId, Thresholds};
use dataplane::wire::ethernet::Mac;
use dataplane::wire::icmpv6::{Error, exceeded, unreachable};
use dataplane::wire::ipv6::protocol;
use dataplane::wire::{Locator, Ulid, UlidPair, checksum};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn host(number: u16) -> Ipv6Addr {
    Side::A.ulid(number)
}

fn outside(number: u16, provider: PortId) -> Ipv6Addr {
    Side::A.locator(number, provider)
}

/// The provider a TCP packet of host 1 to a stranger leaves by.
fn way(bench: &mut Bench, ports: [u16; 2], flags: u8) -> PortId {
    let (port, left) = bench.host_sends(1, &tcp(host(1), stranger(0), ports, flags, 10));
    assert_eq!(inner(&left), a_hop_on(&tcp(outside(1, port), stranger(0), ports, flags, 10)));
    port
}

// R6296-002, R6296-004, R6296-038, RCM-004, RCM-005; R5533-015: without a context, for whatever reason.
#[test]
fn a_session_goes_out_and_its_answers_come_in() {
    let mut bench = Bench::translating();
    let peer = stranger(0);
    for sent in [
        |source, target| tcp(source, target, [50_000, 443], SYN, 0),
        |source, target| tcp(source, target, [50_000, 443], ACK, 1200),
        |source, target| datagram(source, target, [5353, 53], 33),
        |source, target| echo(source, target, true, 7),
        |source, target| packet(source, target, protocol::ESP, &[9; 80]),
        |source, target| packet(source, target, protocol::NO_NEXT_HEADER, &[]),
    ] as [fn(Ipv6Addr, Ipv6Addr) -> Vec<u8>; 6]
    {
        // What arrives is what the host would have sent had it had the other address: checksum right, ports kept.
        let (port, left) = bench.host_sends(1, &sent(host(1), peer));
        assert_eq!((port, inner(&left)), (X, &a_hop_on(&sent(outside(1, X), peer))[..]));
        assert_eq!(left[..12], [Side::A.router_mac(X).0, Side::A.mac(X).0].concat());
        let (port, left) = bench.provider_sends(X, &sent(peer, outside(1, X)));
        assert_eq!((port, inner(&left)), (LAN, &a_hop_on(&sent(peer, host(1)))[..]));
        assert_eq!(left[..12], [Side::A.host_mac(1).0, Side::A.mac(LAN).0].concat());
    }
    assert_eq!((bench.count(Count::NatOut), bench.count(Count::NatIn), bench.drops()), (6, 6, 0));
}

// RCM-009, R6296-037: outside hosts start sessions, and are answered from the address they spoke to.
#[test]
fn a_session_that_came_by_a_provider_is_answered_by_it() {
    let mut bench = Bench::translating();
    let peer = stranger(0);
    bench.provider_sends(Y, &tcp(peer, outside(1, Y), [50_000, 22], SYN, 0));
    bench.provider_sends(Y, &echo(peer, outside(1, Y), true, 99));
    bench.provider_sends(Y, &packet(peer, outside(1, Y), protocol::ESP, &[1; 40]));
    assert_eq!(way(&mut bench, [22, 50_000], SYN | ACK), Y);
    assert_eq!(bench.host_sends(1, &echo(host(1), peer, false, 99)).0, Y);
    assert_eq!(bench.host_sends(1, &packet(host(1), peer, protocol::ESP, &[2; 40])).0, Y);
    // What the host begins itself goes by the preferred provider, also with the same peer and the same number.
    assert_eq!(way(&mut bench, [40_000, 443], SYN), X);
    assert_eq!(bench.host_sends(1, &echo(host(1), peer, true, 99)).0, X);
    assert_eq!(way(&mut bench, [22, 50_000], ACK), Y);
}

// RCM-012, R6296-008: a box that has just started knows nothing and translates all the same.
#[test]
fn without_memory_packets_go_by_the_preferred_provider() {
    let mut bench = Bench::translating();
    assert_eq!(way(&mut bench, [22, 50_000], ACK), X);
    let mut fresh = Bench::translating();
    let arriving = tcp(stranger(0), outside(1, Y), [50_000, 22], ACK, 5);
    assert_eq!(
        inner(&fresh.provider_sends(Y, &arriving).1),
        a_hop_on(&tcp(stranger(0), host(1), [50_000, 22], ACK, 5))
    );
    assert_eq!(way(&mut fresh, [22, 50_000], ACK), Y, "and learns from what arrives");
}

#[test]
fn a_running_session_stays_until_its_provider_is_down() {
    let mut bench = Bench::translating();
    assert_eq!(way(&mut bench, [1, 443], SYN), X);
    bench.translate(|nat| nat.order = vec![1, 0]);
    assert_eq!((way(&mut bench, [1, 443], ACK), way(&mut bench, [2, 443], SYN)), (X, Y));
    // RCM-015
    bench.translate(|nat| nat.order = vec![1]);
    assert_eq!(way(&mut bench, [1, 443], ACK), Y);
    bench.translate(|nat| nat.order = vec![0, 1]);
    assert_eq!((way(&mut bench, [1, 443], ACK), way(&mut bench, [2, 443], ACK)), (Y, Y));
    // Silence: what comes now is a new session.
    bench.translate(|nat| nat.idle_ms = 300_000);
    bench.now += 300_100;
    assert_eq!(way(&mut bench, [1, 443], ACK), X);
}

// R6296-044
#[test]
fn fragments_go_where_their_first_one_went() {
    let fragment = |offset: u16, id: u8, payload: &[u8]| {
        let [a, b] = (offset << 3 | 1).to_be_bytes();
        packet(host(1), stranger(0), protocol::FRAGMENT, &[&[17, 0, a, b, 0, 0, 0, id][..], payload].concat())
    };
    let mut bench = Bench::translating();
    bench.provider_sends(Y, &datagram(stranger(0), outside(1, Y), [4500, 500], 9));
    let answer = &datagram(host(1), stranger(0), [500, 4500], 100)[40..];
    assert_eq!(bench.host_sends(1, &fragment(0, 1, &answer[..56])).0, Y);
    let another = &datagram(host(1), stranger(0), [501, 4500], 100)[40..];
    assert_eq!(bench.host_sends(1, &fragment(0, 2, &another[..56])).0, X, "a session of its own");
    assert_eq!(bench.host_sends(1, &fragment(7, 1, &answer[56..])).0, Y);
    let (port, left) = bench.host_sends(1, &fragment(7, 2, &another[56..]));
    assert_eq!((port, view(&left).source()), (X, outside(1, X)));
    assert_eq!(inner(&left)[48..], another[56..]);
    // Without the first, as the last packet of the pair.
    assert_eq!(bench.host_sends(1, &fragment(7, 3, &[0; 8])).0, X);
    let whole = &datagram(stranger(0), outside(1, Y), [4500, 500], 64)[40..];
    let arriving =
        packet(stranger(0), outside(1, Y), protocol::FRAGMENT, &[&[17, 0, 0, 9, 0, 0, 0, 1], &whole[40..]].concat());
    let (port, left) = bench.provider_sends(Y, &arriving);
    assert_eq!((port, view(&left).target(), &inner(&left)[48..]), (LAN, host(1), &whole[40..]));
}

// R6296-033, R6296-034, RCM-017
#[test]
fn hosts_that_meet_by_outside_addresses_see_outside_addresses() {
    let mut bench = Bench::translating();
    for provider in [X, Y] {
        let (port, left) = bench.host_sends(1, &tcp(host(1), outside(2, provider), [9, 80], SYN, 0));
        assert_eq!(port, LAN);
        assert_eq!(inner(&left), a_hop_on(&tcp(outside(1, provider), host(2), [9, 80], SYN, 0)));
        assert_eq!(left[..6], Side::A.host_mac(2).0);
        let (port, left) = bench.host_sends(2, &tcp(host(2), outside(1, provider), [80, 9], SYN | ACK, 0));
        assert_eq!(port, LAN);
        assert_eq!(inner(&left), a_hop_on(&tcp(outside(2, provider), host(1), [80, 9], SYN | ACK, 0)));
    }
    // An error about such a packet is, for its sender, about what it sent.
    let seen = datagram(outside(1, Y), host(2), [5, 6], 20);
    let refused = Error::DestinationUnreachable { code: unreachable::PORT };
    let (port, left) = bench.host_sends(2, &error_about(host(2), outside(1, Y), refused, &seen));
    let sent = datagram(host(1), outside(2, Y), [5, 6], 20);
    assert_eq!((port, inner(&left)), (LAN, &a_hop_on(&error_about(outside(2, Y), host(1), refused, &sent))[..]));
    assert_eq!((bench.count(Count::NatHairpin), bench.count(Count::NatQuotes)), (5, 1));
    assert_eq!((bench.count(Count::NatOut), bench.count(Count::NatIn), bench.drops()), (0, 0, 0));
}

// R6296-043
#[test]
fn errors_from_outside_are_about_the_packet_the_host_sent() {
    let mut bench = Bench::translating();
    let router: Ipv6Addr = "2a00:ffff::1".parse().unwrap();
    let sent = |source| tcp(source, stranger(0), [7, 443], ACK, 1300);
    bench.host_sends(1, &sent(host(1)));
    for error in [
        Error::PacketTooBig { mtu: 1280 },
        Error::TimeExceeded { code: exceeded::HOP_LIMIT },
        Error::DestinationUnreachable { code: unreachable::NO_ROUTE },
        Error::ParameterProblem { code: 0, pointer: 40 },
    ] {
        let (port, left) = bench.provider_sends(X, &error_about(router, outside(1, X), error, &sent(outside(1, X))));
        assert_eq!((port, inner(&left)), (LAN, &a_hop_on(&error_about(router, host(1), error, &sent(host(1))))[..]));
    }
    // A quote of somebody else's packet is none of ours to change, and one that is too short has nothing to.
    let gone = Error::DestinationUnreachable { code: 0 };
    for quote in [&packet(router, stranger(1), 17, &[0; 8])[..], &sent(outside(1, X))[..20]] {
        let (_, left) = bench.provider_sends(X, &error_about(router, outside(1, X), gone, quote));
        assert_eq!(inner(&left), a_hop_on(&error_about(router, host(1), gone, quote)));
    }
    assert_eq!(bench.count(Count::NatQuotes), 5);
    // What is said about a Shim6 packet is for control, as it came.
    let shim6 = packet(outside(1, X), stranger(0), protocol::SHIM6, &[17, 0, 0x80, 0, 0, 0, 0, 5]);
    let about = error_about(router, outside(1, X), gone, &shim6);
    bench.send(X, &bench.provider_frame(X, &about));
    bench.run();
    assert!(matches!(&bench.take_seen()[..], [Seen::Punt(X, _, frame)] if inner(frame) == about));
}

// R6296-043, the other direction: with the address, and by the provider, that the packet came to.
#[test]
fn errors_from_inside_go_back_the_way_the_packet_came() {
    for workers in [1, 4] {
        let mut bench = Setup { workers, ..Setup::default() }.build_with(Side::A.translating());
        for peer in 0..8 {
            let arrived = |target| datagram(stranger(peer), target, [4000 + peer, 99], 30);
            bench.provider_sends(Y, &arrived(outside(1, Y)));
            let closed = Error::DestinationUnreachable { code: unreachable::PORT };
            let (port, left) = bench.host_sends(1, &error_about(host(1), stranger(peer), closed, &arrived(host(1))));
            let expected = error_about(outside(1, Y), stranger(peer), closed, &arrived(outside(1, Y)));
            assert_eq!((port, inner(&left)), (Y, &a_hop_on(&expected)[..]));
            // From a router inside that has no address outside: the box speaks for it.
            let small = Error::PacketTooBig { mtu: 1400 };
            let router = Side::A.ulid(5000);
            let (port, left) = bench.host_sends(9, &error_about(router, stranger(peer), small, &arrived(host(1))));
            let expected = error_about(Side::A.own(Y), stranger(peer), small, &arrived(outside(1, Y)));
            assert_eq!((port, inner(&left)), (Y, &a_hop_on(&expected)[..]));
        }
        assert_eq!(bench.drops(), 0);
    }
}

// RFC 2827: no provider carries what comes from another one's address.
#[test]
fn errors_of_routers_inside_come_from_an_address_of_the_provider_they_leave_by() {
    let mut snapshot = Side::A.translating();
    let bare = snapshot.ports[usize::from(Y.0)].own.iter().copied().find(|own| !may_leave(own));
    snapshot.ports[usize::from(Y.0)].own = vec![bare.unwrap_or("fe80::2".parse().unwrap())];
    snapshot.ports[usize::from(Y.0)].icmp_source = Side::A.own(X);
    let mut bench = Setup::default().build_with(snapshot);
    let arrived = |target| datagram(stranger(0), target, [4000, 99], 30);
    bench.provider_sends(Y, &arrived(outside(1, Y)));
    let small = Error::PacketTooBig { mtu: 1400 };
    let (port, left) = bench.host_sends(9, &error_about(Side::A.ulid(5000), stranger(0), small, &arrived(host(1))));
    // There is none but those of hosts: the one it is about speaks.
    let expected = error_about(outside(1, Y), stranger(0), small, &arrived(outside(1, Y)));
    assert_eq!((port, inner(&left)), (Y, &a_hop_on(&expected)[..]));
}

fn may_leave(address: &Ipv6Addr) -> bool {
    address.segments()[0] & 0xe000 == 0x2000
}

// ---- what is refused, and what the sender hears ----

/// The error that answers a packet, and the packet it quotes.
fn answer(bench: &mut Bench, port: PortId, packet: &[u8]) -> (u8, u8, u32) {
    let frame = match port {
        LAN => frame(Side::A.mac(LAN), Side::A.host_mac(1), packet),
        port => bench.provider_frame(port, packet),
    };
    bench.send(port, &frame);
    bench.run();
    let (back, left) = bench.only();
    let (error, octets) = (view(&left), inner(&left));
    assert_eq!((back, error.source(), error.target()), (port, Side::A.own(port), view(&frame).source()));
    assert!(checksum::upper_layer_verifies(error.source(), error.target(), protocol::ICMPV6, error.payload()));
    // nptv6 §3: quoted as the addressee knows it.
    assert_eq!(octets[48..], packet[..packet.len().min(1280 - 48)]);
    (octets[40], octets[41], u32::from_be_bytes([octets[44], octets[45], octets[46], octets[47]]))
}

#[test]
fn errors_of_the_box_quote_what_their_receiver_knows() {
    let mut bench = Bench::translating();
    let last_hop = |mut packet: Vec<u8>| {
        packet[7] = 1;
        packet
    };
    let out = tcp(host(1), stranger(0), [7, 443], ACK, 100);
    let into = tcp(stranger(0), outside(1, Y), [443, 7], ACK, 100);
    assert_eq!(answer(&mut bench, LAN, &last_hop(out.clone())), (3, 0, 0));
    assert_eq!(answer(&mut bench, Y, &last_hop(into)), (3, 0, 0));
    let mut snapshot = (*bench.snapshot).clone();
    snapshot.ports[1].mtu = 1400;
    snapshot.ports[0].mtu = 1300;
    bench.publish(snapshot);
    assert_eq!(answer(&mut bench, LAN, &tcp(host(1), stranger(0), [7, 443], ACK, 1341)), (2, 0, 1400));
    assert_eq!(answer(&mut bench, Y, &tcp(stranger(0), outside(1, Y), [443, 7], ACK, 1241)), (2, 0, 1300));
    assert_eq!(bench.host_sends(1, &tcp(host(1), stranger(0), [7, 443], ACK, 1340)).0, X, "it just fits");
    let from_here = answer(&mut bench, LAN, &tcp(host(1), outside(2, X), [7, 443], ACK, 1241));
    assert_eq!(from_here, (2, 0, 1300), "hairpin");
    assert_eq!((bench.dropped(DropReason::TooBig), bench.dropped(DropReason::HopLimit)), (3, 2));
}

// RCM-014, RCM-003, R6296-014, R6296-015
#[test]
fn who_is_nobody_is_told_so() {
    let mut bench = Bench::translating();
    let scan = |bench: &mut Bench, port, target| answer(bench, port, &tcp(stranger(0), target, [7, 443], SYN, 0));
    assert_eq!(scan(&mut bench, X, outside(2000, X)), (1, 3, 0));
    let nobody = tcp(host(1), outside(2000, X), [7, 443], SYN, 0);
    assert_eq!(answer(&mut bench, LAN, &nobody), (1, 3, 0), "also from inside");
    assert_eq!(bench.dropped(DropReason::NatUnknownImage), 2);
    // An address of the site no host was given, and one of a provider's own prefix.
    assert_eq!(answer(&mut bench, LAN, &tcp(host(5000), stranger(0), [7, 443], SYN, 0)), (1, 5, 0));
    assert_eq!(bench.dropped(DropReason::NatUnmapped), 1);
    assert_eq!(answer(&mut bench, LAN, &tcp(outside(1, X), stranger(0), [7, 443], SYN, 0)), (1, 5, 0));
    assert_eq!(bench.dropped(DropReason::SpoofedSource), 1);
    // No provider is up, or none at which the host has an address.
    bench.translate(|nat| nat.order = vec![1]);
    bench.translate(|nat| nat.clear_outside(1, 1));
    assert_eq!(answer(&mut bench, LAN, &tcp(host(1), stranger(0), [7, 443], SYN, 0)), (1, 0, 0));
    bench.translate(|nat| nat.order = vec![]);
    assert_eq!(answer(&mut bench, LAN, &tcp(host(2), stranger(0), [7, 443], SYN, 0)), (1, 0, 0));
    assert_eq!(answer(&mut bench, LAN, &tcp(host(1), outside(2, Y), [7, 443], SYN, 0)), (1, 0, 0), "hairpin");
    assert_eq!(bench.dropped(DropReason::NatNoProvider), 3);
    assert_eq!(bench.count(Count::UnreachableSent), 7);
}

// RCM-001, RCM-002, RCM-013
#[test]
fn identifiers_and_shim6_packets_are_never_translated() {
    let mut bench = Bench::translating();
    let silent = |bench: &mut Bench, port, packet: &[u8]| {
        let frame = match port {
            LAN => frame(Side::A.mac(LAN), Side::A.host_mac(1), packet),
            port => bench.provider_frame(port, packet),
        };
        bench.send(port, &frame);
        bench.run();
        assert!([LAN, X, Y].iter().all(|port| bench.sent(*port).is_empty()));
    };
    let pair = |peer| UlidPair { local: Ulid(host(1)), peer: Ulid(peer) };
    silent(&mut bench, LAN, &tcp(host(1), Side::B.ulid(2), [7, 443], SYN, 0));
    assert_eq!(bench.take_seen(), [Seen::UnknownPair(pair(Side::B.ulid(2)))], "it waits for a context");
    bench.translate(|nat| nat.identifiers = vec![Block::new(stranger(3), 128)]);
    silent(&mut bench, LAN, &tcp(host(1), stranger(3), [7, 443], SYN, 0));
    assert_eq!(bench.take_seen(), [Seen::UnknownPair(pair(stranger(3)))], "so does the identifier of a peer");
    let control = [59, 0, 1, 0, 0, 0, 0, 0];
    silent(&mut bench, LAN, &packet(host(1), stranger(0), protocol::SHIM6, &control));
    silent(&mut bench, LAN, &packet(host(1), outside(2, X), protocol::SHIM6, &control));
    assert_eq!(bench.dropped(DropReason::NatUntranslatable), 2);
    let hidden = [&[protocol::SHIM6, 0, 0, 0, 0, 0, 0, 7, 17, 0, 0x80, 0, 0, 0, 0, 5][..], &[0; 8]].concat();
    silent(&mut bench, X, &packet(stranger(0), outside(1, X), protocol::FRAGMENT, &hidden));
    assert_eq!(bench.dropped(DropReason::BadPayloadHeader), 1);
    silent(&mut bench, X, &tcp("fd12::1".parse().unwrap(), outside(1, X), [7, 443], SYN, 0));
    assert_eq!(bench.dropped(DropReason::UniqueLocal), 1);
    silent(&mut bench, X, &tcp(outside(2, Y), outside(1, X), [7, 443], SYN, 0));
    assert_eq!(bench.dropped(DropReason::SpoofedSource), 1);
    assert_eq!((bench.count(Count::NatOut), bench.count(Count::NatIn)), (0, 0));
}

// ---- mapped subnets ----

// R6296-011, R6296-013, R6296-026, R6296-027, RCM-007, RCM-008
#[test]
fn what_is_no_host_is_translated_by_prefix_where_that_is_mapped() {
    let mut bench = Bench::translating();
    let printer: Ipv6Addr = "fc00:a:0:7:1::9".parse().unwrap();
    let nobody: Ipv6Addr = "fc00:a:0:7::".parse().unwrap();
    let inside = ("fc00:a:0:7::".parse().unwrap(), 64);
    // Prefixes of their own: what is delegated may be more than the locators' /64.
    let prefix = |port: PortId| Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0x80 + u16::from(port.0), 0, 0, 0, 0);
    let pairs = [X, Y].map(|port| PrefixPair::new(inside, (prefix(port), 64)).unwrap());
    bench.translate(|nat| {
        nat.mapped.subnets = vec![Block::new(printer, 64)];
        nat.mapped.pairs = pairs.map(Some).to_vec();
        nat.mapped.port = LAN;
        nat.mapped.neighbours.insert(printer, Mac([2, 7, 7, 7, 7, 7]));
    });
    let image = pairs[0].outbound(printer).unwrap();
    let (port, left) = bench.host_sends(1, &tcp(printer, stranger(0), [631, 9], SYN, 0));
    assert_eq!((port, inner(&left)), (X, &a_hop_on(&tcp(image, stranger(0), [631, 9], SYN, 0))[..]));
    let (port, left) = bench.provider_sends(X, &tcp(stranger(0), image, [9, 631], SYN | ACK, 0));
    assert_eq!((port, inner(&left)), (LAN, &a_hop_on(&tcp(stranger(0), printer, [9, 631], SYN | ACK, 0))[..]));
    assert_eq!(left[..6], [2, 7, 7, 7, 7, 7]);
    // Outside started, over the other provider.
    let other = pairs[1].outbound(printer).unwrap();
    bench.provider_sends(Y, &tcp(stranger(0), other, [10, 631], SYN, 0));
    let (port, left) = bench.host_sends(1, &tcp(printer, stranger(0), [631, 10], SYN | ACK, 0));
    assert_eq!((port, view(&left).source()), (Y, other));
    // A host is known by its locators, not by an image; and what has none is told.
    assert_eq!(view(&bench.host_sends(1, &tcp(host(1), stranger(0), [1, 9], SYN, 0)).1).source(), outside(1, X));
    assert_eq!(answer(&mut bench, LAN, &tcp(nobody, stranger(0), [631, 9], SYN, 0)), (4, 0, 8));
    assert_eq!(answer(&mut bench, X, &tcp(stranger(0), prefix(X), [9, 631], SYN, 0)), (4, 0, 24));
    assert_eq!(bench.dropped(DropReason::NatUntranslatable), 2);
    // Its image from outside is somebody else.
    bench.send(Y, &bench.provider_frame(Y, &tcp(image, outside(1, Y), [9, 631], SYN, 0)));
    bench.run();
    assert_eq!(bench.dropped(DropReason::SpoofedSource), 1);
    // Hairpin to the printer, and from it.
    let (port, left) = bench.host_sends(1, &tcp(host(1), image, [1, 631], SYN, 0));
    assert_eq!((port, inner(&left)), (LAN, &a_hop_on(&tcp(outside(1, X), printer, [1, 631], SYN, 0))[..]));
    let (_, left) = bench.host_sends(1, &tcp(printer, outside(1, X), [631, 1], ACK, 0));
    assert_eq!(inner(&left), a_hop_on(&tcp(image, host(1), [631, 1], ACK, 0)));
}

// ---- what deserves a context ----

// R5533-014, R5533-286
#[test]
fn control_hears_of_traffic_that_reaches_a_threshold() {
    let mut bench = Bench::translating();
    bench.translate(|nat| {
        nat.thresholds = Thresholds { packets: Some(4), octets: None, age_ms: None, again_ms: 10_000 };
    });
    let told = Seen::Qualified(UlidPair { local: Ulid(host(1)), peer: Ulid(stranger(0)) }, Locator(outside(1, Y)), 1);
    let exchange = |bench: &mut Bench| {
        bench.provider_sends(Y, &tcp(stranger(0), outside(1, Y), [50_000, 22], ACK, 0));
        assert_eq!(way(bench, [22, 50_000], ACK), Y);
        bench.take_seen()
    };
    assert_eq!(exchange(&mut bench), []);
    assert_eq!(exchange(&mut bench), std::slice::from_ref(&told));
    assert_eq!(exchange(&mut bench), []);
    bench.now += 10_100;
    assert_eq!(exchange(&mut bench), [told]);
    assert_eq!(bench.count(Count::NatQualified), 2);
    // Others are others: hairpin, another pair, a flood nobody answers.
    for _ in 0..10 {
        bench.host_sends(1, &tcp(host(1), outside(2, X), [7, 443], SYN, 0));
        bench.provider_sends(X, &tcp(stranger(1), outside(1, X), [7, 443], SYN, 0));
    }
    assert_eq!(bench.take_seen(), []);
}

// RCM-016
#[test]
fn each_provider_has_its_counts() {
    let mut bench = Bench::translating();
    bench.provider_sends(Y, &datagram(stranger(0), outside(1, Y), [53, 9], 20));
    bench.host_sends(1, &datagram(host(1), stranger(0), [9, 53], 20));
    let closed = Error::DestinationUnreachable { code: unreachable::PORT };
    let about = datagram(stranger(0), host(1), [53, 9], 20);
    bench.host_sends(1, &error_about(host(1), stranger(0), closed, &about));
    bench.host_sends(1, &datagram(host(1), stranger(1), [9, 53], 20));
    bench.host_sends(1, &datagram(host(1), outside(2, X), [9, 53], 20));
    let counters = bench.control.counters(0).unwrap();
    let of = |provider: usize| {
        [NatCount::Out, NatCount::In, NatCount::Hairpin, NatCount::Quotes]
            .map(|count| counters.translated(provider, count))
    };
    assert_eq!([of(0), of(1), of(2)], [[1, 0, 1, 0], [2, 1, 0, 1], [0; 4]]);
    let whole = [Count::NatOut, Count::NatIn, Count::NatHairpin, Count::NatQuotes].map(|count| counters.count(count));
    assert_eq!(whole, [3, 1, 1, 1]);
}
