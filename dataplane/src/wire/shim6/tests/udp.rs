use proptest::prelude::*;

use super::*;
use crate::wire::ipv6::Repr;
use crate::wire::shim6::payload;

const PORT: u16 = 5533;

fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let repr = Repr {
        source: "2001:db8:1::a".parse().unwrap(),
        target: "2001:db8:2::b".parse().unwrap(),
        next_header,
        payload_len: payload.len() as u16,
        hop_limit: 64,
        traffic_class: 0x2e,
        flow_label: 0x12345,
    };
    [&repr.emit()[..], payload].concat()
}

/// The packet with UDP in front of its Shim6 header.
fn wrapped(packet: &[u8], ports: UdpPorts) -> Vec<u8> {
    let place = View::new(packet).unwrap().shim_header().unwrap().unwrap().place;
    let mut buffer = [&[0xee; LEN][..], packet].concat();
    wrap(&mut buffer, place, ports).unwrap();
    buffer
}

fn ports() -> UdpPorts {
    UdpPorts { source: 0xc001, target: PORT }
}

#[test]
fn golden_octets() {
    let shim = PayloadHeader { next_header: 59, tag: ContextTag::new(0x1234_5678_9abc).unwrap() }.emit();
    let octets = wrapped(&packet(PROTOCOL, &shim), ports());
    let expected = packet(17, &[0xc0, 1, 0x15, 0x9d, 0, 16, 0x10, 0x3c, 0x3b, 0, 0x92, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
    assert_eq!(octets, expected);
    let found = find(&View::new(&octets).unwrap(), PORT).unwrap().unwrap();
    assert_eq!((found.ports, found.shim, found.place.offset), (ports(), &shim[..], HEADER_LEN));
}

#[test]
fn both_sides_use_the_same_two_ports_and_contexts_differ() {
    let tag = |number: u64| {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ContextTag::truncate((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11)
    };
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..1000 {
        let (a, b) = (tag(number), tag(number + 5000));
        let there = UdpFlow::of(a, b).ports(PORT);
        assert_eq!(UdpFlow::of(b, a).ports(PORT), there.swapped());
        assert!(there.are_of(PORT) && there.swapped().are_of(PORT) && !there.are_of(PORT + 1));
        seen.insert(there.source.max(there.target));
    }
    assert!(seen.len() > 940, "{} ports of 1000 contexts", seen.len());
    let opening = UdpFlow::opening(tag(1)).ports(PORT);
    assert_eq!(opening.target, PORT);
    for (source, target) in [(PORT, PORT), (PORT, DYNAMIC - 1), (DYNAMIC - 1, PORT), (DYNAMIC, DYNAMIC), (0, PORT)] {
        assert!(!UdpPorts { source, target }.are_of(PORT));
    }
}

#[test]
fn what_is_wrong_is_told_apart_from_what_is_not_meant() {
    let good = wrapped(&packet(PROTOCOL, &[0x3b, 0, 0x80, 0, 0, 0, 0, 1, 7, 7, 7]), ports());
    let look = |octets: &[u8]| find(&View::new(octets).unwrap(), PORT).map(|found| found.err());
    assert_eq!(look(&good), Some(None));
    for at in HEADER_LEN..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let expected = match at - HEADER_LEN {
            0 => Some(Some(UdpError::Checksum)),
            1 => Some(Some(UdpError::Checksum)),
            2 | 3 => None,
            4 | 5 => Some(Some(UdpError::Length)),
            _ => Some(Some(UdpError::Checksum)),
        };
        assert_eq!(look(&bad), expected, "octet {}", at - HEADER_LEN);
    }
    let mut none = good.clone();
    none[HEADER_LEN + 6..HEADER_LEN + 8].fill(0);
    assert_eq!(look(&none), Some(Some(UdpError::Checksum)), "no checksum is none over IPv6");
    // Too short for a Shim6 header; too short for UDP is somebody else's.
    for (octets, expected) in [(7, None), (8, Some(Some(UdpError::Length))), (15, Some(Some(UdpError::Length)))] {
        let mut short = good[..HEADER_LEN + octets].to_vec();
        short[5] = octets as u8;
        if octets > 7 {
            short[HEADER_LEN + 5] = octets as u8;
        }
        assert_eq!(look(&short), expected);
    }
    // A fragment has a header in between that no Shim6 header stands behind.
    let fragment = packet(44, &[&[17, 0, 0, 1, 0, 0, 0, 1][..], &good[HEADER_LEN..]].concat());
    assert_eq!(look(&fragment), None);
    // Under way with a Routing header that has a segment left.
    let routed = packet(43, &[&[17, 2, 4, 1, 0, 0, 0, 0][..], &[0; 16], &good[HEADER_LEN..]].concat());
    assert_eq!(look(&routed), None);
}

#[test]
fn what_a_link_padded_is_no_part_of_the_datagram() {
    let shim = packet(PROTOCOL, &[0x3b, 0, 0x80, 0, 0, 0, 0, 1, 7]);
    let padded = wrapped(&[&shim[..], &[9; 5]].concat(), ports());
    let exact = wrapped(&shim, ports());
    assert_eq!(padded[..exact.len()], exact);
    assert!(find(&View::new(&padded).unwrap(), PORT).unwrap().is_ok());
}

#[test]
fn a_packet_that_would_be_too_long_is_left_alone() {
    let long = packet(PROTOCOL, &vec![0x80; 65530]);
    let place = View::new(&long).unwrap().shim_header().unwrap().unwrap().place;
    let mut buffer = [&[0; LEN][..], &long].concat();
    let before = buffer.clone();
    assert_eq!(wrap(&mut buffer, place, ports()), Err(SpliceError::Length));
    assert_eq!(buffer, before);
}

proptest! {
    /// Whatever stands before and behind the Shim6 header comes back, octet for octet.
    #[test]
    fn out_of_udp_is_what_went_in(
        outer in prop::collection::vec(prop::sample::select(vec![0u8, 43, 60]), 0..4),
        octets in prop::collection::vec(any::<u8>(), 0..1500),
        tag: u64,
    ) {
        // Hop-by-Hop Options only come first, and no segment is left.
        let outer: Vec<u8> = outer.iter().enumerate().filter(|(at, kind)| **kind != 0 || *at == 0).map(|(_, kind)| *kind).collect();
        let mut headers = Vec::new();
        for (at, _) in outer.iter().enumerate() {
            let next = outer.get(at + 1).copied().unwrap_or(17);
            headers.extend_from_slice(&[next, 0, 1, 0, 0, 0, 0, 0]);
        }
        let host = packet(outer.first().copied().unwrap_or(17), &[&headers[..], &octets].concat());
        let place = View::new(&host).unwrap().shim_insertion().unwrap().place;
        let mut shim = [&[0; PayloadHeader::LEN][..], &host].concat();
        payload::insert(&mut shim, place, ContextTag::truncate(tag)).unwrap();
        let mut there = wrapped(&shim, ports());
        let view = View::new(&there).unwrap();
        prop_assert_eq!(there.len(), shim.len() + LEN);
        let found = find(&view, PORT).unwrap().unwrap();
        prop_assert_eq!(found.shim[0], place.next_header);
        let at = found.place;
        unwrap(&mut there, at).unwrap();
        prop_assert_eq!(&there[LEN..], &shim[..]);
    }

    /// Noise is none of Shim6's, or wrong, or right; and never a panic.
    #[test]
    fn noise_is_looked_at_without_harm(octets in prop::collection::vec(any::<u8>(), 0..80), protocol in prop::sample::select(vec![0u8, 17, 43, 44, 60, 140])) {
        let noise = packet(protocol, &octets);
        let _ = find(&View::new(&noise).unwrap(), PORT);
        let _ = ports_of(&View::of_quote(&noise[..noise.len().min(50)]).unwrap(), PORT);
    }
}
