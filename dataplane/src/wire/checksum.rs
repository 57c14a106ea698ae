//! The Internet checksum: one's-complement arithmetic on 16-bit words (RFC 1071, RFC 1624, RFC 8200 §8.1).
//!
//! Three uses, three doors: [`of`] and [`verifies`] for a run of octets on its own (the Shim6 control header has no
//! pseudo-header), [`upper_layer`] for ICMPv6, UDP and TCP over IPv6, and [`Adjustment`] for a change of addresses that
//! must not cost a walk over the packet.

use std::net::Ipv6Addr;

/// A running one's-complement sum. Octets are taken in pairs, the last odd one padded with zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds `octets`. Only the last run added may have an odd length.
    #[inline]
    #[must_use]
    pub fn octets(self, octets: &[u8]) -> Sum {
        // Thirty-two bits at a time: 2^16 is 1 in this arithmetic, so the halves of a word may be summed later. A
        // packet of 2^16 octets adds less than 2^46, which leaves the 64 bits far from overflow.
        let (words, rest) = octets.as_chunks::<4>();
        let mut sum = self.0;
        for word in words {
            sum += u64::from(u32::from_be_bytes(*word));
        }
        let mut last = [0; 4];
        for (slot, octet) in last.iter_mut().zip(rest) {
            *slot = *octet;
        }
        Sum(sum + u64::from(u32::from_be_bytes(last)))
    }

    /// Adds one 16-bit word.
    #[inline]
    #[must_use]
    pub fn word(self, word: u16) -> Sum {
        Sum(self.0 + u64::from(word))
    }

    /// The sum in 16 bits; its complement is the checksum.
    #[inline]
    pub fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// The checksum: the complement of the sum.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// Checksum of `octets`, in which the checksum field is zero.
#[inline]
pub fn of(octets: &[u8]) -> u16 {
    Sum::default().octets(octets).checksum()
}

/// Whether `octets`, checksum field included, sum to all ones.
#[inline]
pub fn verifies(octets: &[u8]) -> bool {
    Sum::default().octets(octets).folded() == 0xffff
}

/// Sum of the IPv6 pseudo-header (RFC 8200 §8.1). `length` counts the upper-layer header and its data in octets.
#[inline]
pub fn pseudo_header(source: Ipv6Addr, target: Ipv6Addr, protocol: u8, length: u32) -> Sum {
    Sum::default()
        .octets(&source.octets())
        .octets(&target.octets())
        .octets(&length.to_be_bytes())
        .word(u16::from(protocol))
}

/// Checksum of an upper-layer `segment` whose checksum field is zero. UDP sends [`for_udp`] of it.
#[inline]
pub fn upper_layer(source: Ipv6Addr, target: Ipv6Addr, protocol: u8, segment: &[u8]) -> u16 {
    pseudo_header(source, target, protocol, segment.len() as u32).octets(segment).checksum()
}

/// Whether the checksum inside `segment` is right for these addresses.
#[inline]
pub fn upper_layer_verifies(source: Ipv6Addr, target: Ipv6Addr, protocol: u8, segment: &[u8]) -> bool {
    pseudo_header(source, target, protocol, segment.len() as u32).octets(segment).folded() == 0xffff
}

/// UDP has no checksum of zero over IPv6: zero is sent as all ones (RFC 8200 §8.1).
#[inline]
pub const fn for_udp(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// What a change of covered octets does to a checksum, ready to be applied to any number of packets (RFC 1624 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjustment(u16);

impl Adjustment {
    /// The change from `old` to `new`, two runs that start at an even offset of the covered data.
    pub fn between(old: &[u8], new: &[u8]) -> Adjustment {
        let removed = Sum::default().octets(old).folded();
        Adjustment(Sum::default().octets(new).word(!removed).folded())
    }

    /// This change after `earlier`.
    #[must_use]
    pub fn after(self, earlier: Adjustment) -> Adjustment {
        Adjustment(Sum::default().word(self.0).word(earlier.0).folded())
    }

    /// The change back.
    #[inline]
    #[must_use]
    pub const fn reversed(self) -> Adjustment {
        Adjustment(!self.0)
    }

    /// The checksum after the change: HC' = ~(~HC + ~m + m'), equation 3 of RFC 1624.
    #[inline]
    pub fn apply(self, checksum: u16) -> u16 {
        !Sum::default().word(!checksum).word(self.0).folded()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The sum as RFC 1071 §4.1 writes it, one 16-bit word after the other.
    fn slow_sum(octets: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in octets.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().octets(&octets).folded(), 0xddf2);
        assert_eq!(of(&octets), 0x220d);
    }

    #[test]
    fn the_example_of_rfc_1624_does_not_fall_into_minus_zero() {
        // §4: HC = 0xDD2F, m = 0x5555, m' = 0x3285, where equation 2 of RFC 1141 gives 0xffff and the truth is 0.
        let change = Adjustment::between(&[0x55, 0x55], &[0x32, 0x85]);
        assert_eq!(change.apply(0xdd2f), 0x0000);
    }

    #[test]
    fn an_echo_request_seen_on_a_wire_verifies() {
        // ping6 ::1, identifier 1, sequence 1, no data: 0x80 00, pseudo-header ::1 ::1 length 8 protocol 58.
        let loopback = Ipv6Addr::LOCALHOST;
        let mut echo = [0x80, 0, 0, 0, 0, 1, 0, 1];
        let checksum = upper_layer(loopback, loopback, 58, &echo);
        // By hand: 1 + 1 + 8 + 58 + 0x8000 + 1 + 1 = 0x8046.
        assert_eq!(checksum, !0x8046);
        echo[2..4].copy_from_slice(&checksum.to_be_bytes());
        assert!(upper_layer_verifies(loopback, loopback, 58, &echo));
        echo[7] ^= 1;
        assert!(!upper_layer_verifies(loopback, loopback, 58, &echo));
    }

    #[test]
    fn udp_never_sends_zero() {
        assert_eq!((for_udp(0), for_udp(1), for_udp(0xffff)), (0xffff, 1, 0xffff));
    }

    #[test]
    fn nothing_but_zeros_does_not_verify() {
        assert!(!verifies(&[0; 16]));
    }

    proptest! {
        #[test]
        fn the_fast_sum_is_the_slow_sum(octets in prop::collection::vec(any::<u8>(), 0..2100)) {
            prop_assert_eq!(Sum::default().octets(&octets).folded(), slow_sum(&octets));
        }

        #[test]
        fn sums_may_be_taken_in_even_pieces(octets in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
            let (front, back) = octets.split_at((cut * 2).min(octets.len() & !1));
            prop_assert_eq!(Sum::default().octets(front).octets(back).folded(), slow_sum(&octets));
        }

        #[test]
        fn an_adjusted_checksum_is_the_recomputed_one(
            data in prop::collection::vec(any::<u8>(), 16..200),
            new in any::<[u8; 16]>(),
            at in 0usize..92,
        ) {
            let at = (at * 2).min((data.len() - 16) & !1);
            let mut changed = data.clone();
            changed[at..at + 16].copy_from_slice(&new);
            // A word that is never zero, as any pseudo-header provides, keeps the two zeros of this arithmetic apart.
            let before = Sum::default().octets(&data).word(58).checksum();
            let after = Sum::default().octets(&changed).word(58).checksum();
            prop_assert_eq!(Adjustment::between(&data[at..at + 16], &new).apply(before), after);
        }

        #[test]
        fn adjustments_add_up(one in any::<[u8; 16]>(), two in any::<[u8; 16]>(), three in any::<[u8; 16]>()) {
            let whole = |octets: &[u8]| Sum::default().octets(octets).word(6).checksum();
            let change = Adjustment::between(&two, &three).after(Adjustment::between(&one, &two));
            prop_assert_eq!(change.apply(whole(&one)), whole(&three));
        }
    }
}
