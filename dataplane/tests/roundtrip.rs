//! What two boxes do to a packet between two hosts: nothing that the hosts could see, but for the hop limit.

mod common;

use common::{Bench, LAN, Seen, Setup, Side, X, Y, frame, inner};
use dataplane::context::{Install, LabelMode};
use dataplane::counters::Count;
use dataplane::snapshot::PortId;
use dataplane::wire::ipv6::{self, protocol};
use dataplane::wire::shim6::PayloadHeader;
use dataplane::wire::{ContextTag, FlowLabel, LocatorPair, checksum};
use dataplane::worker::Limits;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// What stands between the IPv6 header and the upper layer, in the order of RFC 8200 §4.1. Each carries its options
/// or data; lengths are made to fit.
#[derive(Clone, Debug, Default)]
struct Extensions {
    hop_by_hop: Option<Vec<u8>>,
    before_routing: Option<Vec<u8>>,
    routing: Option<Vec<u8>>,
    fragment: Option<[u8; 7]>,
    authentication: Option<Vec<u8>>,
    destination: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Upper {
    Tcp(Vec<u8>),
    Udp(Vec<u8>),
    Icmpv6(Vec<u8>),
    /// Any protocol, ESP and "no next header" among them.
    Other(u8, Vec<u8>),
}

#[derive(Clone, Debug)]
struct Original {
    traffic_class: u8,
    flow_label: u32,
    hop_limit: u8,
    extensions: Extensions,
    upper: Upper,
}

/// A packet, where RFC 5533 §4.6 wants the payload header (its offset, and that of the octet that names it), and
/// where the upper layer starts.
struct Built {
    packet: Vec<u8>,
    shim_at: usize,
    predecessor: usize,
    upper_at: usize,
}

/// An extension header with Next Header zero and a length that is a multiple of eight.
fn extension(data: &[u8], routing: bool) -> Vec<u8> {
    let mut octets = vec![0, 0];
    octets.extend(data);
    octets.resize(octets.len().next_multiple_of(8), 0);
    octets[1] = (octets.len() / 8 - 1) as u8;
    if routing {
        // A type nobody has assigned a meaning to, and no segments left: the packet is at its last destination.
        (octets[2], octets[3]) = (253, 0);
    }
    octets
}

impl Original {
    /// Header after header, with what stands where noted on the way: independent of the walks under test.
    fn build(&self, side: Side) -> Built {
        let (source, target) = (side.ulid(1), side.other().ulid(2));
        let chain = &self.extensions;
        let mut headers: Vec<(u8, Vec<u8>)> = Vec::new();
        let mut before_shim = 0;
        if let Some(data) = &chain.hop_by_hop {
            headers.push((protocol::HOP_BY_HOP, extension(data, false)));
            before_shim = headers.len();
        }
        if let Some(data) = &chain.before_routing {
            headers.push((protocol::DESTINATION_OPTIONS, extension(data, false)));
        }
        if let Some(data) = &chain.routing {
            headers.push((protocol::ROUTING, extension(&[&[0, 0], &data[..]].concat(), true)));
            before_shim = headers.len();
        }
        if let Some(data) = chain.fragment {
            headers.push((protocol::FRAGMENT, [&[0], &data[..]].concat()));
        }
        if let Some(data) = &chain.authentication {
            let mut octets = extension(data, false);
            octets[1] = (octets.len() / 4 - 2) as u8;
            headers.push((protocol::AUTHENTICATION, octets));
        }
        if let Some(data) = &chain.destination {
            headers.push((protocol::DESTINATION_OPTIONS, extension(data, false)));
        }
        let (upper, octets) = self.upper.emit(source, target);
        headers.push((upper, octets));

        let mut payload = Vec::new();
        let (mut shim_at, mut predecessor, mut last, mut upper_at) = (ipv6::HEADER_LEN, 6, 6, 0);
        for (at, (_, octets)) in headers.iter().enumerate() {
            let offset = ipv6::HEADER_LEN + payload.len();
            if at == before_shim {
                (shim_at, predecessor) = (offset, last);
            }
            (last, upper_at) = (offset, offset);
            payload.extend(octets);
            if let Some((next, _)) = headers.get(at + 1) {
                payload[offset - ipv6::HEADER_LEN] = *next;
            }
        }
        let repr = ipv6::Repr {
            source,
            target,
            next_header: headers[0].0,
            payload_len: payload.len() as u16,
            hop_limit: self.hop_limit,
            traffic_class: self.traffic_class,
            flow_label: self.flow_label,
        };
        Built { packet: [&repr.emit()[..], &payload].concat(), shim_at, predecessor, upper_at }
    }
}

impl Upper {
    /// Protocol and octets, with a right checksum where the protocol has one.
    fn emit(&self, source: std::net::Ipv6Addr, target: std::net::Ipv6Addr) -> (u8, Vec<u8>) {
        let summed = |protocol: u8, mut octets: Vec<u8>, at: usize| {
            octets[at..at + 2].fill(0);
            let sum = checksum::for_udp(checksum::upper_layer(source, target, protocol, &octets));
            octets[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            (protocol, octets)
        };
        match self {
            Upper::Tcp(octets) => summed(protocol::TCP, octets.clone(), 16),
            Upper::Udp(octets) => summed(protocol::UDP, octets.clone(), 6),
            Upper::Icmpv6(octets) => summed(protocol::ICMPV6, octets.clone(), 2),
            Upper::Other(protocol, octets) => (*protocol, octets.clone()),
        }
    }
}

fn extensions() -> impl Strategy<Value = Extensions> {
    let data = || proptest::option::of(vec(any::<u8>(), 0..40));
    let fragment =
        proptest::option::of((any::<u16>(), any::<u32>(), any::<u8>()).prop_map(|(offset, id, reserved)| {
            let [a, b] = offset.to_be_bytes();
            let [c, d, e, f] = id.to_be_bytes();
            [reserved, a, b, c, d, e, f]
        }));
    let chain = (data(), data(), data(), fragment, data(), data()).prop_map(
        |(hop_by_hop, before_routing, routing, fragment, authentication, destination)| {
            // Two Destination Options headers side by side would be one; the first belongs to the Routing header.
            let before_routing = before_routing.filter(|_| routing.is_some());
            Extensions { hop_by_hop, before_routing, routing, fragment, authentication, destination }
        },
    );
    prop_oneof![1 => Just(Extensions::default()), 2 => chain]
}

fn upper() -> impl Strategy<Value = Upper> {
    let octets = |least: usize| vec(any::<u8>(), least..least + 600);
    // What is none of the extension headers, so that it ends the chain.
    let other = any::<u8>().prop_filter("an extension header", |it| ![0, 43, 44, 51, 60, 140].contains(it));
    prop_oneof![
        octets(20).prop_map(Upper::Tcp),
        octets(8).prop_map(Upper::Udp),
        octets(8).prop_map(Upper::Icmpv6),
        (other, octets(0)).prop_map(|(protocol, octets)| Upper::Other(protocol, octets)),
    ]
}

fn original() -> impl Strategy<Value = Original> {
    // Each of the two boxes takes one from the hop limit, and neither forwards the last one.
    (any::<u8>(), 0u32..1 << 20, 3u8.., extensions(), upper()).prop_map(
        |(traffic_class, flow_label, hop_limit, extensions, upper)| Original {
            traffic_class,
            flow_label,
            hop_limit,
            extensions,
            upper,
        },
    )
}

/// Two boxes with the context of host 1 of A and host 2 of B, through the named providers.
fn two_boxes(local: PortId, remote: PortId) -> (Bench, Bench) {
    two_boxes_with(LabelMode::Off, local, remote)
}

/// Labels of the context, each chosen by the side that receives it.
const LABEL_OF_A: u32 = 0x0000a;
const LABEL_OF_B: u32 = 0xb9876;

/// The same with both using flow labels.
fn two_boxes_with(mode: LabelMode, local: PortId, remote: PortId) -> (Bench, Bench) {
    let limits = Limits { contexts: 1024, flow_labels: mode, ..Limits::default() };
    let [mut a, mut b] = [Side::A, Side::B].map(|side| Setup { side, limits, ..Setup::default() }.build());
    let [label_a, label_b] = [LABEL_OF_A, LABEL_OF_B].map(FlowLabel::truncate);
    let context = Side::A.install([&a.sharding, &b.sharding], 1, 2, local, remote);
    a.install(Install { local_label: label_a, peer_label: label_b, ..context });
    let context = Side::B.install([&b.sharding, &a.sharding], 2, 1, remote, local);
    b.install(Install { local_label: label_b, peer_label: label_a, ..context });
    a.run();
    b.run();
    (a, b)
}

/// Sends a packet from host 1 of A to host 2 of B. The packet between the boxes, and the one that arrives.
fn cross(a: &mut Bench, b: &mut Bench, local: PortId, remote: PortId, packet: &[u8]) -> (Vec<u8>, Vec<u8>) {
    a.send(LAN, &frame(Side::A.mac(LAN), Side::A.host_mac(1), packet));
    a.run();
    let (port, wire) = a.only();
    assert_eq!(port, local, "the provider that delegated the source carries the packet");
    b.send(remote, &b.provider_frame(remote, inner(&wire)));
    b.run();
    let (port, arrived) = b.only();
    assert_eq!(port, LAN);
    (inner(&wire).to_vec(), inner(&arrived).to_vec())
}

fn set_label(packet: &mut [u8], label: u32) {
    let first = u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]);
    packet[..4].copy_from_slice(&(first & 0xfff0_0000 | label).to_be_bytes());
}

fn with_hop_limit(packet: &[u8], hop_limit: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[7] = hop_limit;
    packet
}

/// The packet on the wire is the original with other addresses, one hop less and the payload header where it belongs.
fn check_wire(original: &Built, wire: &[u8], tag: ContextTag, local: PortId, remote: PortId) {
    let Built { packet, shim_at, predecessor, .. } = original;
    let (shim_at, predecessor) = (*shim_at, *predecessor);
    assert_eq!(wire.len(), packet.len() + PayloadHeader::LEN);
    // R5533-282
    assert_eq!(wire[8..24], Side::A.locator(1, local).octets());
    assert_eq!(wire[24..40], Side::B.locator(2, remote).octets());
    // R5533-285: the tag is the peer's; the next header moves into the payload header.
    assert_eq!(wire[predecessor], protocol::SHIM6);
    let header = PayloadHeader { next_header: packet[predecessor], tag };
    assert_eq!(wire[shim_at..shim_at + PayloadHeader::LEN], header.emit());
    // R5533-283: what follows, upper-layer checksum included, is what the host wrote.
    assert_eq!(wire[shim_at + PayloadHeader::LEN..], packet[shim_at..]);
    // R5533-284: and so are the headers that stand before it, but for the one that now names the payload header.
    let mut outer = wire[ipv6::HEADER_LEN..shim_at].to_vec();
    if predecessor >= ipv6::HEADER_LEN {
        outer[predecessor - ipv6::HEADER_LEN] = packet[predecessor];
    }
    assert_eq!(outer, packet[ipv6::HEADER_LEN..shim_at]);
    // Traffic class and flow label (first four octets) are kept.
    assert_eq!(wire[..4], packet[..4]);
    assert_eq!(usize::from(u16::from_be_bytes([wire[4], wire[5]])), wire.len() - ipv6::HEADER_LEN);
    assert_eq!(wire[7], packet[7] - 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    // R5533-282 to -285, R5533-289, R5533-291. On the way the upper-layer checksum is wrong for the addresses one sees, and
    // nobody minds (R5533-305).
    #[test]
    fn a_packet_arrives_as_it_was_sent(
        original in original(), local in select(vec![X, Y]), remote in select(vec![X, Y]),
    ) {
        let (mut a, mut b) = two_boxes(local, remote);
        let tag = Side::B.install([&b.sharding, &a.sharding], 2, 1, remote, local).local_tag;
        let built = original.build(Side::A);
        let (wire, arrived) = cross(&mut a, &mut b, local, remote, &built.packet);
        check_wire(&built, &wire, tag, local, remote);
        prop_assert_eq!(&arrived, &with_hop_limit(&built.packet, built.packet[7] - 2));
        prop_assert_eq!((a.drops(), b.drops()), (0, 0));
        prop_assert_eq!((a.count(Count::TranslatedOut), b.count(Count::TranslatedIn)), (1, 1));
        let checked = match original.upper {
            Upper::Tcp(_) | Upper::Udp(_) | Upper::Icmpv6(_) => original.extensions.fragment.is_none(),
            Upper::Other(..) => false,
        };
        if checked {
            let view = ipv6::View::new(&arrived).unwrap();
            let upper = view.upper_layer().unwrap().place;
            prop_assert_eq!(upper.offset, built.upper_at);
            let segment = view.from_offset(upper.offset);
            prop_assert!(checksum::upper_layer_verifies(view.source(), view.target(), upper.next_header, segment));
        }
    }

    /// The same by flow labels: a packet that leaves with one has no header, and differs in addresses and label alone.
    #[test]
    fn a_packet_arrives_by_its_label_as_it_was_sent(
        mut original in original(), local in select(vec![X, Y]), remote in select(vec![X, Y]),
        all in any::<bool>(), has_label in any::<bool>(),
    ) {
        if !has_label {
            original.flow_label = 0;
        }
        let mode = if all { LabelMode::All } else { LabelMode::Unlabelled };
        let (mut a, mut b) = two_boxes_with(mode, local, remote);
        let built = original.build(Side::A);
        let (wire, arrived) = cross(&mut a, &mut b, local, remote, &built.packet);
        let mut expected = with_hop_limit(&built.packet, built.packet[7] - 2);
        let by_label = original.flow_label == 0 || all;
        if by_label {
            let mut on_the_way = with_hop_limit(&built.packet, built.packet[7] - 1);
            on_the_way[8..24].copy_from_slice(&Side::A.locator(1, local).octets());
            on_the_way[24..40].copy_from_slice(&Side::B.locator(2, remote).octets());
            set_label(&mut on_the_way, LABEL_OF_B);
            prop_assert_eq!(wire, on_the_way);
            // What a host wrote there itself is lost, but never with `Unlabelled`.
            set_label(&mut expected, 0);
        } else {
            let tag = Side::B.install([&b.sharding, &a.sharding], 2, 1, remote, local).local_tag;
            check_wire(&built, &wire, tag, local, remote);
        }
        prop_assert_eq!(arrived, expected);
        prop_assert_eq!((a.drops(), b.drops()), (0, 0));
        let counts = [(&a, Count::TranslatedOut), (&b, Count::TranslatedIn), (&a, Count::LabelledOut), (&b, Count::LabelledIn)];
        prop_assert_eq!(counts.map(|(bench, count)| bench.count(count)), [1, 1, u64::from(by_label), u64::from(by_label)]);
    }

    /// Any octets at all behind the header, as a hostile host would send them: they arrive as they are, or an octet of
    /// them nowhere.
    #[test]
    fn nonsense_arrives_as_it_was_sent_or_not_at_all(
        next_header in select(vec![0u8, 6, 17, 43, 44, 50, 51, 58, 59, 60, 140, 253]),
        payload in vec(prop_oneof![3 => select(vec![0u8, 1, 6, 43, 44, 51, 60, 140]), 1 => any::<u8>()], 0..200),
        mode in select(vec![LabelMode::Off, LabelMode::Unlabelled, LabelMode::All]),
    ) {
        let (mut a, mut b) = two_boxes_with(mode, X, Y);
        let mut packet = common::packet(Side::A.ulid(1), Side::B.ulid(2), next_header, &payload);
        set_label(&mut packet, 0);
        a.send(LAN, &frame(Side::A.mac(LAN), Side::A.host_mac(1), &packet));
        a.run();
        for wire in a.sent(X) {
            b.send(Y, &b.provider_frame(Y, inner(&wire)));
        }
        b.run();
        let arrived = b.sent(LAN);
        // A packet that looks like an ICMPv6 error about something is for control to judge.
        let counted = a.drops() + b.drops() + b.count(Count::Punted);
        prop_assert_eq!(arrived.len() as u64 + counted, 1, "arrived or counted, and not both");
        for frame in arrived {
            prop_assert_eq!(inner(&frame), with_hop_limit(&packet, 62));
        }
    }
}

#[test]
fn every_size_up_to_the_mtu_arrives() {
    let (mut a, mut b) = two_boxes(X, X);
    let (source, target) = (Side::A.ulid(1), Side::B.ulid(2));
    // 1500 is the providers' MTU, of which the payload header takes eight.
    for octets in (0..=1492 - 48).rev() {
        let packet = common::packet(source, target, protocol::UDP, &common::udp(source, target, octets));
        let (wire, arrived) = cross(&mut a, &mut b, X, X, &packet);
        assert_eq!(wire.len(), packet.len() + 8);
        assert_eq!(arrived, with_hop_limit(&packet, 62));
    }
    assert_eq!((a.drops(), b.drops()), (0, 0));
}

// R5533-019, R5533-281: the hop limit is a router's to count down.
#[test]
fn a_pair_that_is_its_own_locators_goes_unmodified() {
    // R5534-012
    let mut a = Bench::new(Side::A);
    let mut install = a.open_alone(1, 2, X);
    install.locators = install.ulids.as_locators();
    a.install(install);
    a.run();
    let sent = a.host_frame(1, 2, protocol::UDP, &[7; 60]);
    a.send(LAN, &sent);
    a.run();
    let (port, wire) = a.only();
    assert_eq!((port, inner(&wire)), (X, &with_hop_limit(inner(&sent), 63)[..]));
    assert_eq!((a.count(Count::PlainOut), a.count(Count::TranslatedOut)), (1, 0));
}

// R5533-289: the tag alone names the context, whatever locators the packet came over.
#[test]
fn a_packet_over_any_pair_of_locators_finds_its_context() {
    let (mut a, mut b) = two_boxes(X, X);
    let sent = a.host_frame(1, 2, protocol::UDP, &[7; 60]);
    a.send(LAN, &sent);
    a.run();
    let (_, wire) = a.only();
    for (from, to) in [(X, X), (X, Y), (Y, X), (Y, Y)] {
        let mut moved = inner(&wire).to_vec();
        moved[8..24].copy_from_slice(&Side::A.locator(1, from).octets());
        moved[24..40].copy_from_slice(&Side::B.locator(2, to).octets());
        b.send(to, &b.provider_frame(to, &moved));
        b.run();
        assert_eq!(inner(&b.only().1), with_hop_limit(inner(&sent), 62));
    }
}

// R5533-032
#[test]
fn one_address_that_differs_is_enough_for_the_header() {
    let mut a = Bench::new(Side::A);
    let whole = a.open_alone(1, 2, X);
    let own = whole.ulids.as_locators();
    for (locators, tagged) in [
        (own, false),
        (LocatorPair { peer: own.peer, ..whole.locators }, true),
        (LocatorPair { local: own.local, ..whole.locators }, true),
        (whole.locators, true),
    ] {
        a.install(Install { locators, ..whole.clone() });
        a.run();
        let sent = a.host_frame(1, 2, protocol::UDP, &[7; 60]);
        a.send(LAN, &sent);
        a.run();
        let (_, wire) = a.only();
        let header = PayloadHeader::parse(&inner(&wire)[40..]);
        assert_eq!((inner(&wire)[6] == protocol::SHIM6, header.is_ok()), (tagged, tagged), "{locators:?}");
        assert_eq!(inner(&wire).len(), inner(&sent).len() + if tagged { 8 } else { 0 });
    }
}

// R5533-020
#[test]
fn a_context_back_on_its_identifiers_stops_tagging() {
    let mut a = Bench::new(Side::A);
    let moved = a.open_alone(1, 2, X);
    let home = Install { locators: moved.ulids.as_locators(), ..moved.clone() };
    for (install, octets) in [(&home, 100), (&moved, 108), (&home, 100)] {
        a.install(install.clone());
        a.run();
        a.send(LAN, &a.host_frame(1, 2, protocol::UDP, &[7; 60]));
        a.run();
        assert_eq!(inner(&a.only().1).len(), octets);
    }
}

// R5533-247
#[test]
fn packets_without_a_header_are_reported_as_use() {
    let mut a = Bench::new(Side::A);
    let mut install = a.open_alone(1, 2, X);
    install.locators = install.ulids.as_locators();
    a.install(install.clone());
    a.run();
    a.send(LAN, &a.host_frame(1, 2, protocol::UDP, &[7; 60]));
    a.wait(50);
    let seen = a.take_seen();
    let [Seen::Activity(handle, activity, [out, _])] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((*handle, activity.sent, out.packets, out.octets), (install.handle, true, 1, 100));
}

// R5533-310: whoever filters between the box and the hosts sees what the hosts see, and no payload header.
#[test]
fn what_reaches_the_site_has_identifiers_alone() {
    let (mut a, mut b) = two_boxes(X, Y);
    for upper in [protocol::UDP, protocol::FRAGMENT, protocol::ESP] {
        let sent = a.host_frame(1, 2, upper, &[0; 60]);
        a.send(LAN, &sent);
        a.run();
        b.send(Y, &b.provider_frame(Y, inner(&a.only().1)));
        b.run();
        let (port, arrived) = b.only();
        let view = common::view(&arrived);
        assert_eq!((port, view.source(), view.target()), (LAN, Side::A.ulid(1), Side::B.ulid(2)));
        assert_eq!((view.next_header(), view.shim_header()), (upper, Ok(None)));
    }
    // Nor can a provider's packet claim to come from an identifier of the site, header or not.
    let forged = common::packet(Side::B.ulid(5), Side::B.locator(2, Y), protocol::UDP, &[0; 20]);
    b.send(Y, &b.provider_frame(Y, &forged));
    b.run();
    assert_eq!((b.sent(LAN).len(), b.dropped(dataplane::counters::DropReason::SpoofedSource)), (0, 1));
}
