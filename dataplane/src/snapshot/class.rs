//! Classes of traffic that the operator gives contexts of their own (RFC 5533 §4.2): what a packet must look like.
//!
//! A packet is in the first class it fits. What a class does not speak of does not matter to it; so a class that speaks
//! of nothing takes everything. Protocol and ports are properties of a whole packet: the later fragments of one do not
//! have them, and a packet shall not go two ways, so classes that speak of these take no fragment at all.

use std::ops::RangeInclusive;

use crate::wire::ipv6::{View, protocol};

/// Classes there may be, numbered from 1. The number is the Forked Instance Identifier of the class's contexts; 0 is the
/// default context's.
pub const CLASSES_MAX: usize = 15;

/// Some classes, as a set of their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Classes(u16);

impl Classes {
    /// No class.
    pub const NONE: Classes = Classes(0);

    /// One class by its number; none where there can be no such class.
    pub fn only(number: u32) -> Classes {
        match number {
            1..=15 => Classes(1 << number),
            _ => Classes::NONE,
        }
    }

    /// These and those.
    #[must_use]
    pub fn and(self, other: Classes) -> Classes {
        Classes(self.0 | other.0)
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a class is one of them.
    #[inline]
    pub fn contain(self, number: u8) -> bool {
        u32::from(number) < u16::BITS && self.0 >> number & 1 == 1
    }

    /// Their numbers.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        (1..=CLASSES_MAX as u8).filter(move |number| self.contain(*number))
    }
}

/// What packets of a class look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassView {
    /// Differentiated Services code points (RFC 2474 §3), bit by bit; all bits set when they do not matter.
    pub code_points: u64,
    /// The upper layer.
    pub protocol: Option<u8>,
    /// One of a packet's two ports has to be among these; any will do when there are none.
    pub ports: Vec<RangeInclusive<u16>>,
    /// The same for the source port.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// The same for the destination port.
    pub target_ports: Vec<RangeInclusive<u16>>,
}

/// What classes look at in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Differentiated Services code point.
    pub code_point: u8,
    /// The upper layer's protocol, of a whole packet whose headers can be followed.
    pub protocol: Option<u8>,
    /// Source and destination port, where that protocol has any.
    pub ports: Option<(u16, u16)>,
}

impl Default for ClassView {
    /// Takes everything.
    fn default() -> ClassView {
        ClassView {
            code_points: u64::MAX,
            protocol: None,
            ports: Vec::new(),
            source_ports: Vec::new(),
            target_ports: Vec::new(),
        }
    }
}

impl ClassView {
    /// Whether a packet is in the class, if it is in no earlier one.
    #[inline]
    pub fn takes(&self, traits: &Traits) -> bool {
        if self.code_points >> traits.code_point & 1 == 0 {
            return false;
        }
        if self.protocol.is_some_and(|protocol| traits.protocol != Some(protocol)) {
            return false;
        }
        if self.ports.is_empty() && self.source_ports.is_empty() && self.target_ports.is_empty() {
            return true;
        }
        let Some((source, target)) = traits.ports else { return false };
        let among = |ranges: &[RangeInclusive<u16>], port| ranges.iter().any(|range| range.contains(&port));
        let fits = |ranges: &[RangeInclusive<u16>], port| ranges.is_empty() || among(ranges, port);
        (fits(&self.ports, source) || among(&self.ports, target))
            && fits(&self.source_ports, source)
            && fits(&self.target_ports, target)
    }
}

impl Traits {
    /// What can be seen of a packet. Behind ESP and unknown headers, and in fragments, there is nothing but the code point.
    #[inline]
    pub fn of(packet: &View<'_>) -> Traits {
        let code_point = packet.traffic_class() >> 2;
        let nothing = Traits { code_point, protocol: None, ports: None };
        let Ok(upper) = packet.upper_layer() else { return nothing };
        if !upper.first_fragment || upper.fragment.is_some_and(|at| is_part(packet.from_offset(at))) {
            return nothing;
        }
        let protocol = upper.place.next_header;
        let ports = packet.from_offset(upper.place.offset).first_chunk::<4>().filter(|_| has_ports(protocol));
        let two = |high, low| u16::from_be_bytes([high, low]);
        Traits { protocol: Some(protocol), ports: ports.map(|&[a, b, c, d]| (two(a, b), two(c, d))), ..nothing }
    }
}

/// Whether a Fragment header says that its packet is but a part: an offset, or more to come (RFC 8200 §4.5). One that says
/// neither is a whole packet (RFC 6946).
fn is_part(header: &[u8]) -> bool {
    header.get(2..4).is_none_or(|field| field[0] != 0 || field[1] & 0xf9 != 0)
}

/// Whether an upper layer begins with a source and a destination port.
pub fn has_ports(upper: u8) -> bool {
    const DCCP: u8 = 33;
    const SCTP: u8 = 132;
    const UDP_LITE: u8 = 136;
    matches!(upper, protocol::TCP | protocol::UDP | DCCP | SCTP | UDP_LITE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ipv6::Repr;

    fn packet(class: u8, headers: &[(u8, Vec<u8>)], last: u8, payload: &[u8]) -> Vec<u8> {
        let nexts = headers.iter().skip(1).map(|header| header.0).chain([last]);
        let mut rest = Vec::new();
        for ((_, octets), next) in headers.iter().zip(nexts) {
            rest.push(next);
            rest.extend(&octets[1..]);
        }
        rest.extend(payload);
        let repr = Repr {
            source: "fc00:a::1".parse().unwrap(),
            target: "fc00:b::1".parse().unwrap(),
            next_header: headers.first().map_or(last, |header| header.0),
            payload_len: rest.len() as u16,
            hop_limit: 64,
            traffic_class: class,
            flow_label: 0,
        };
        [&repr.emit()[..], &rest].concat()
    }

    fn options() -> (u8, Vec<u8>) {
        (protocol::DESTINATION_OPTIONS, vec![0; 8])
    }

    fn fragment(offset: u16, more: bool) -> (u8, Vec<u8>) {
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        (protocol::FRAGMENT, vec![0, 0, high, low, 0, 0, 0, 9])
    }

    fn traits(octets: &[u8]) -> Traits {
        Traits::of(&View::new(octets).unwrap())
    }

    const PORTS: [u8; 8] = [0x12, 0x34, 0, 80, 1, 2, 3, 4];

    #[test]
    fn ports_are_found_behind_extension_headers_and_in_whole_packets_alone() {
        let whole = Traits { code_point: 46, protocol: Some(17), ports: Some((0x1234, 80)) };
        assert_eq!(traits(&packet(46 << 2 | 3, &[], 17, &PORTS)), whole);
        assert_eq!(traits(&packet(46 << 2, &[options(), options()], 17, &PORTS)), whole);
        assert_eq!(traits(&packet(46 << 2, &[fragment(0, false)], 17, &PORTS)), whole, "an atomic fragment");
        let part = Traits { code_point: 46, protocol: None, ports: None };
        for header in [fragment(0, true), fragment(1, true), fragment(1, false), fragment(300, false)] {
            assert_eq!(traits(&packet(46 << 2, &[header], 17, &PORTS)), part);
        }
        assert_eq!(traits(&packet(46 << 2, &vec![options(); 20], 17, &PORTS)), part, "too many");
        let other = |upper| Traits { protocol: Some(upper), ports: None, ..part };
        assert_eq!(traits(&packet(46 << 2, &[], protocol::ESP, &PORTS)), other(protocol::ESP), "encrypted");
        assert_eq!(traits(&packet(46 << 2, &[], protocol::ICMPV6, &PORTS)), other(protocol::ICMPV6));
        assert_eq!(traits(&packet(46 << 2, &[], 17, &PORTS[..3])), other(17), "cut short");
        assert_eq!(traits(&packet(46 << 2, &[], 132, &PORTS)).ports, Some((0x1234, 80)));
    }

    #[test]
    fn a_set_has_the_numbers_that_were_put_in() {
        assert_eq!([0, 16, 17, u32::MAX].map(Classes::only), [Classes::NONE; 4]);
        let set = Classes::only(1).and(Classes::only(15));
        assert_eq!(set.numbers().collect::<Vec<_>>(), [1, 15]);
        assert!(!set.contain(0) && !set.contain(16) && !set.contain(255) && !set.is_empty());
    }

    fn ranges() -> impl Strategy<Value = Vec<RangeInclusive<u16>>> {
        prop::collection::vec((0u16..6, 0u16..6).prop_map(|(a, b)| a.min(b)..=a.max(b)), 0..3)
    }

    proptest! {
        /// The slow twin asks every port there is.
        #[test]
        fn a_class_takes_what_fits_all_it_speaks_of(
            code_points in any::<u64>(),
            protocol in prop::option::of(prop::sample::select(vec![6u8, 17, 58])),
            (ports, source_ports, target_ports) in (ranges(), ranges(), ranges()),
            code_point in 0u8..64,
            upper in prop::option::of(prop::sample::select(vec![6u8, 17, 58])),
            seen in prop::option::of((0u16..6, 0u16..6)),
        ) {
            let class = ClassView { code_points, protocol, ports, source_ports, target_ports };
            let traits = Traits { code_point, protocol: upper, ports: seen.filter(|_| upper.is_some()) };
            let held = |ranges: &[RangeInclusive<u16>]| -> std::collections::BTreeSet<u16> {
                if ranges.is_empty() { (0..=u16::MAX).collect() } else { ranges.iter().cloned().flatten().collect() }
            };
            let silent = [&class.ports, &class.source_ports, &class.target_ports].iter().all(|it| it.is_empty());
            let mut fits = (0..64).filter(|bit| code_points & 1 << bit != 0).any(|bit| bit == code_point);
            fits &= match (protocol, upper) { (None, _) => true, (Some(a), Some(b)) => a == b, (Some(_), None) => false };
            fits &= match traits.ports {
                None => silent,
                Some((source, target)) => {
                    let either = held(&class.ports);
                    (either.contains(&source) || either.contains(&target))
                        && held(&class.source_ports).contains(&source)
                        && held(&class.target_ports).contains(&target)
                }
            };
            prop_assert_eq!(class.takes(&traits), fits);
        }

        #[test]
        fn no_packet_makes_the_reader_panic(octets in prop::collection::vec(any::<u8>(), 0..80), next in any::<u8>()) {
            let octets = packet(0, &[], next, &octets);
            let seen = traits(&octets);
            prop_assert!(seen.ports.is_none() || seen.protocol.is_some_and(has_ports));
        }
    }
}
