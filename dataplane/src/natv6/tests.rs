//! Packets there and back, whatever they carry.

use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::{End, Exchange, Reading, Refused, Session, to_inside, to_outside};
use crate::wire::checksum;
use crate::wire::icmpv6::{self, Error};
use crate::wire::ipv6::{self, HEADER_LEN, protocol};

const INSIDE: &str = "fc00:a:0:1::77";
const OUTSIDE: &str = "2001:db8:a:1:5555:1:2:3";
const PEER: &str = "2a00:1450::99";

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn packet(source: Ipv6Addr, target: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let payload_len = payload.len() as u16;
    let repr = ipv6::Repr { source, target, next_header, payload_len, hop_limit: 9, traffic_class: 1, flow_label: 2 };
    [&repr.emit()[..], payload].concat()
}

/// An upper layer of `octets` octets with a right checksum, where it has one.
fn upper(source: Ipv6Addr, target: Ipv6Addr, protocol: u8, octets: &[u8]) -> Vec<u8> {
    let mut out = octets.to_vec();
    let at = match protocol {
        6 => 16,
        17 | 136 | 33 => 6,
        58 => 2,
        _ => return out,
    };
    out.resize(out.len().max(at + 4), 7);
    if protocol == 17 || protocol == 136 {
        let len = out.len() as u16;
        out[4..6].copy_from_slice(&len.to_be_bytes());
    }
    if protocol == 58 {
        out[0] = 128 | out[0] & 1;
    }
    out[at..at + 2].fill(0);
    let sum = checksum::upper_layer(source, target, protocol, &out);
    let sum = if protocol == 17 || protocol == 136 { checksum::for_udp(sum) } else { sum };
    out[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    out
}

/// Whether the checksum of a packet without extension headers is right.
fn verifies(packet: &[u8]) -> bool {
    let view = ipv6::View::new(packet).unwrap();
    let covered = [6, 17, 33, 58, 136].contains(&view.next_header());
    !covered || checksum::upper_layer_verifies(view.source(), view.target(), view.next_header(), view.payload())
}

fn read(packet: &[u8]) -> Result<Reading, Refused> {
    Reading::of(&ipv6::View::new(packet).unwrap())
}

proptest! {
    // R6296-002, R6296-004: only the address and the checksum, and back again to the last bit.
    #[test]
    fn out_and_in_again_is_the_same_packet(
        inside: u128, outside: u128, peer: u128, protocol in prop::sample::select(vec![6u8, 17, 58, 33, 136, 132, 50, 253]),
        octets in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let (inside, outside, peer) = (inside.into(), outside.into(), Ipv6Addr::from_bits(peer));
        let sent = packet(inside, peer, protocol, &upper(inside, peer, protocol, &octets));
        prop_assert!(verifies(&sent));
        let mut way = sent.clone();
        to_outside(&mut way, inside, outside).unwrap();
        prop_assert!(verifies(&way));
        prop_assert_eq!(ipv6::View::new(&way).unwrap().source(), outside);
        let differing = (0..sent.len()).filter(|at| !(8..24).contains(at) && sent[*at] != way[*at]).count();
        prop_assert!(differing <= 2, "the checksum and nothing else");
        // The answer goes the other way: the same exchange at the other end.
        let mut back = way.clone();
        read(&back).unwrap().exchange(
            &mut back, End::Source, &Exchange::between(outside, inside), &Exchange::between(outside, inside));
        prop_assert_eq!(&back, &sent);
    }

    // R6296-043: an error from outside about a packet our host sent is, inside, about that very packet.
    #[test]
    fn an_error_quotes_the_packet_as_the_host_sent_it(
        inside: u128, outside: u128, peer: u128, router: u128, protocol in prop::sample::select(vec![6u8, 17, 58, 50]),
        octets in prop::collection::vec(any::<u8>(), 0..1400), cut in 0usize..700,
    ) {
        let [inside, outside, peer, router] = [inside, outside, peer, router].map(Ipv6Addr::from_bits);
        prop_assume!(inside != outside);
        // Half a checksum cannot be mended, so quotes end between words, as those of routers do.
        let cut = cut * 2;
        let sent = packet(inside, peer, protocol, &upper(inside, peer, protocol, &octets));
        let mut way = sent.clone();
        to_outside(&mut way, inside, outside).unwrap();
        let error = |about: &[u8], target| {
            let quote = &about[..about.len().min(icmpv6::QUOTE_MAX).min(cut)];
            let message = icmpv6::Message::Error { error: Error::PacketTooBig { mtu: 1400 }, quote };
            packet(router, target, protocol::ICMPV6, &message.emit(router, target))
        };
        let mut seen = error(&way, outside);
        to_inside(&mut seen, outside, inside).unwrap();
        let whole = cut >= HEADER_LEN;
        prop_assert!(verifies(&seen));
        let expected = error(if whole { &sent } else { &way }, inside);
        // A quote too short for an address is left alone, checksum and all.
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn nothing_that_arrives_makes_it_panic(
        mut octets in prop::collection::vec(prop_oneof![
            3 => prop::sample::select(vec![0u8, 1, 2, 43, 44, 58, 60, 140, 6, 17, 0x60]), 1 => any::<u8>()], 40..300),
    ) {
        octets[0] = 0x60;
        let len = (octets.len() - 40) as u16;
        octets[4..6].copy_from_slice(&len.to_be_bytes());
        let before = octets.clone();
        let (from, to) = (address(OUTSIDE), address(INSIDE));
        match to_inside(&mut octets, from, to) {
            Ok(()) => prop_assert_eq!(octets.len(), before.len()),
            Err(_) => prop_assert_eq!(octets, before, "refused and untouched"),
        }
    }
}

#[test]
fn udp_without_a_checksum_stays_without_and_none_becomes_so() {
    let (inside, outside, peer) = (address(INSIDE), address(OUTSIDE), address(PEER));
    let mut none = packet(inside, peer, protocol::UDP, &[1, 2, 3, 4, 0, 8, 0, 0]);
    to_outside(&mut none, inside, outside).unwrap();
    assert_eq!(none[46..48], [0, 0]);
    // Payloads that bring the checksum outside to zero: it is written as all ones (RFC 8200 §8.1).
    let found = (0..=u16::MAX).find_map(|word| {
        let [a, b] = word.to_be_bytes();
        let mut sent = packet(inside, peer, 17, &upper(inside, peer, 17, &[1, 2, 3, 4, 0, 0, 0, 0, a, b]));
        to_outside(&mut sent, inside, outside).unwrap();
        (sent[46..48] == [0xff, 0xff]).then_some(sent)
    });
    assert!(verifies(&found.expect("one of all words does it")));
}

fn fragment(next_header: u8, offset: u16, more: bool, identification: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let [a, b] = (offset << 3 | u16::from(more)).to_be_bytes();
    [&[next_header, 0, a, b][..], &identification, payload].concat()
}

// R6296-044
#[test]
fn the_first_fragment_has_the_checksum_and_the_others_have_none() {
    let (inside, outside, peer) = (address(INSIDE), address(OUTSIDE), address(PEER));
    let datagram = upper(inside, peer, 17, &[0x55; 64]);
    let id = [1, 2, 3, 4];
    let fragments = [
        packet(inside, peer, 44, &fragment(17, 0, true, id, &datagram[..32])),
        packet(inside, peer, 44, &fragment(17, 4, false, id, &datagram[32..])),
    ];
    let known = Session { protocol: 44, source: 0x0102, target: 0x0304 };
    let [first, second] = [&fragments[0], &fragments[1]].map(|fragment| read(fragment).unwrap());
    assert_eq!((first.fragment, second.fragment), (Some(known), Some(known)));
    assert_eq!(first.session, Some(Session { protocol: 17, source: 0x5555, target: 0x5555 }));
    assert_eq!(second.session, None);
    let mut whole = Vec::new();
    for mut fragment in fragments {
        to_outside(&mut fragment, inside, outside).unwrap();
        whole.extend_from_slice(&fragment[48..]);
    }
    assert!(verifies(&packet(outside, peer, 17, &whole)));
    // RFC 7112: a first fragment that ends before the checksum.
    let tiny = packet(inside, peer, 44, &fragment(6, 0, true, id, &[0; 16]));
    assert_eq!(read(&tiny), Err(Refused::Malformed));
}

// RCM-002
#[test]
fn shim6_routing_and_link_local_packets_are_refused() {
    let (inside, peer) = (address(INSIDE), address(PEER));
    let refused = |next_header, payload: &[u8]| read(&packet(inside, peer, next_header, payload)).unwrap_err();
    assert_eq!(refused(140, &[59, 0, 1, 0, 0, 0, 0, 0]), Refused::Shim6);
    assert_eq!(refused(140, &[17, 0, 0x80, 0, 0, 0, 0, 5, 1, 2, 3, 4, 0, 8, 0, 0]), Refused::Shim6);
    assert_eq!(refused(60, &[140, 0, 0, 0, 0, 0, 0, 0, 59, 0, 1, 0, 0, 0, 0, 0]), Refused::Shim6);
    assert_eq!(refused(44, &fragment(140, 0, true, [0; 4], &[17, 0, 0x80, 0, 0, 0, 0, 5, 0, 0, 0, 0])), Refused::Shim6);
    assert_eq!(refused(44, &fragment(140, 9, false, [0; 4], &[0; 8])), Refused::Shim6);
    assert_eq!(refused(43, &[17, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 0, 8, 0, 0]), Refused::UnderWay);
    assert!(read(&packet(inside, peer, 43, &[17, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 8, 0, 0])).is_ok());
    for kind in [130u8, 133, 134, 135, 136, 137, 143] {
        assert_eq!(refused(58, &[kind, 0, 0, 0, 0, 0, 0, 0]), Refused::LinkLocal);
    }
    assert_eq!(refused(6, &[0; 17]), Refused::Malformed);
    assert_eq!(refused(60, &[6, 200, 0, 0, 0, 0, 0, 0]), Refused::Malformed);
}

#[test]
fn sessions_are_told_apart_by_who_began_them() {
    let (inside, peer) = (address(INSIDE), address(PEER));
    let session = |next_header, payload: &[u8]| read(&packet(inside, peer, next_header, payload)).unwrap().session;
    let request = session(58, &[128, 0, 0, 0, 0xab, 0xcd, 0, 1]).unwrap();
    let reply = session(58, &[129, 0, 0, 0, 0xab, 0xcd, 0, 1]).unwrap();
    assert_eq!(reply.mirrored(), request, "an answer belongs to the question");
    assert_ne!(reply, request, "and the same question asked from the other side is another");
    let syn = [&[1, 2, 3, 4][..], &[0; 9], &[0x02], &[0; 6]].concat();
    let reading = read(&packet(inside, peer, 6, &syn)).unwrap();
    assert_eq!((reading.session, reading.opens), (Some(Session { protocol: 6, source: 0x0102, target: 0x0304 }), true));
    let mut syn_ack = syn;
    syn_ack[13] = 0x12;
    assert!(!read(&packet(inside, peer, 6, &syn_ack)).unwrap().opens);
    assert_eq!(session(132, &[1, 2]), Some(Session { protocol: 132, source: 0x0102, target: 0 }));
    assert_eq!(session(50, &[1, 2, 3, 4]), Some(Session { protocol: 50, source: 0, target: 0 }));
}

// What is said about a Shim6 packet is known as such.
#[test]
fn a_quoted_shim6_packet_is_seen() {
    let (inside, peer) = (address(INSIDE), address(PEER));
    let about = |next_header, payload: &[u8]| {
        let message = icmpv6::Message::Error {
            error: Error::TimeExceeded { code: 0 },
            quote: &packet(peer, inside, next_header, payload),
        };
        read(&packet(inside, peer, 58, &message.emit(inside, peer))).unwrap().quote.unwrap().shim6
    };
    assert!(about(140, &[17, 0, 0x80, 0, 0, 0, 0, 5]));
    assert!(about(140, &[59, 0, 1, 0, 0, 0, 0, 0]));
    assert!(about(140, &[59]), "cut short");
    assert!(!about(17, &[0; 8]));
    assert!(!about(60, &[17, 9]), "a chain that was cut");
}
