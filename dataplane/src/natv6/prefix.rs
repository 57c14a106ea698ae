//! RFC 6296: one inside prefix, one outside prefix, and addresses that trade one for the other.
//!
//! The change of prefix is made up for in one 16-bit word of the address, so that the sum of the pseudo-header, and with it
//! every checksum above, stays what it was. The word is bits 48 to 63 for prefixes of up to 48 bits (§3.4), else the first
//! of the four words of the interface identifier that is not all ones (§3.5). No state: the same two prefixes give the same
//! answer on every box.

use std::net::Ipv6Addr;

/// The longest prefix that leaves an interface identifier to make the change up in.
pub const LENGTH_MAX: u8 = 64;
/// Up to this length the subnet word is there to be changed (RFC 6296 §3.4).
const SUBNET_LENGTH_MAX: u8 = 48;
/// The other zero of one's-complement arithmetic; a changed word is never left at it (RFC 6296 appendix B).
const MINUS_ZERO: u16 = 0xffff;
/// The word that bits 48 to 63 are.
const SUBNET: u32 = 3;

/// Why two prefixes cannot be translated into each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Longer than [`LENGTH_MAX`].
    #[error("a prefix longer than /{LENGTH_MAX} cannot be translated")]
    TooLong,
    /// Multicast, link-local, or starting with zeros as loopback and mapped addresses do.
    #[error("not a unicast prefix")]
    NotUnicast,
    /// One lies in the other, so that an address could be meant on either side.
    #[error("the inside and the outside prefix overlap")]
    Overlap,
}

/// Why an address has no counterpart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untranslatable {
    /// Not in the prefix, or in a subnet that the longer of the two prefixes leaves out (RFC 6296 §3.7).
    #[error("not in a mapped subnet")]
    Unmapped,
    /// In subnet 0xffff, which shares its image with subnet 0 (RFC 6296 §3.2).
    #[error("in subnet 0xffff")]
    ReservedSubnet,
    /// Every word of the interface identifier is all ones: a reserved anycast address (RFC 6296 §3.7).
    #[error("an interface identifier of all ones")]
    NoWord,
    /// An interface identifier of all zeros on one of the two sides: the routers' anycast address (RFC 6296 §3.7).
    #[error("an interface identifier of all zeros")]
    ZeroInterface,
}

/// A translator between two prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixPair {
    inside: u128,
    outside: u128,
    length: u8,
    /// What is added to a word on the way out: the sum of the inside prefix less that of the outside one.
    adjustment: u16,
}

impl PrefixPair {
    /// Between two prefixes, each an address and a length in bits; what follows the length is not looked at. The shorter
    /// prefix is extended by zeros (RFC 6296 §3.1).
    ///
    /// # Errors
    /// [`PrefixError`] when there is no such translation.
    pub fn new(inside: (Ipv6Addr, u8), outside: (Ipv6Addr, u8)) -> Result<PrefixPair, PrefixError> {
        let (inner, inner_length) = checked(inside)?;
        let (outer, outer_length) = checked(outside)?;
        let shorter = mask(inner_length.min(outer_length));
        if inner & shorter == outer & shorter {
            return Err(PrefixError::Overlap);
        }
        let adjustment = add(prefix_sum(inner), !prefix_sum(outer));
        Ok(PrefixPair { inside: inner, outside: outer, length: inner_length.max(outer_length), adjustment })
    }

    /// What an inside source address is outside (RFC 6296 §3.2).
    ///
    /// # Errors
    /// [`Untranslatable`] when it has no image.
    pub fn outbound(&self, address: Ipv6Addr) -> Result<Ipv6Addr, Untranslatable> {
        self.exchange(address, self.inside, self.outside, self.adjustment)
    }

    /// What an outside destination address is inside (RFC 6296 §3.3).
    ///
    /// # Errors
    /// [`Untranslatable`] when it is nobody's image.
    pub fn inbound(&self, address: Ipv6Addr) -> Result<Ipv6Addr, Untranslatable> {
        self.exchange(address, self.outside, self.inside, !self.adjustment)
    }

    /// Whether an address lies in the outside prefix.
    #[inline]
    pub fn is_outside(&self, address: Ipv6Addr) -> bool {
        address.to_bits() & mask(self.length) == self.outside
    }

    /// Bits both prefixes count once the shorter has been extended.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether interface identifiers change on the way (RFC 6296 §3.5), which breaks what trusts them.
    pub fn changes_interface(&self) -> bool {
        self.length > SUBNET_LENGTH_MAX
    }

    fn exchange(&self, address: Ipv6Addr, from: u128, to: u128, amount: u16) -> Result<Ipv6Addr, Untranslatable> {
        let bits = address.to_bits();
        let mask = mask(self.length);
        if bits & mask != from {
            return Err(Untranslatable::Unmapped);
        }
        let place = self.place(bits)?;
        let sum = add(word(bits, place), amount);
        let sum = if sum == MINUS_ZERO { 0 } else { sum };
        let shift = 112 - 16 * place;
        let changed = bits & !mask & !(0xffff << shift) | to | u128::from(sum) << shift;
        // The answer would be to an address that is dropped on the way back.
        if self.changes_interface() && changed as u64 == 0 {
            return Err(Untranslatable::ZeroInterface);
        }
        Ok(Ipv6Addr::from_bits(changed))
    }

    /// The word that makes up for the change, counted from the front of the address.
    fn place(&self, bits: u128) -> Result<u32, Untranslatable> {
        if !self.changes_interface() {
            return match word(bits, SUBNET) {
                MINUS_ZERO => Err(Untranslatable::ReservedSubnet),
                _ => Ok(SUBNET),
            };
        }
        if bits as u64 == 0 {
            return Err(Untranslatable::ZeroInterface);
        }
        (4..8).find(|&place| word(bits, place) != MINUS_ZERO).ok_or(Untranslatable::NoWord)
    }
}

fn checked((address, length): (Ipv6Addr, u8)) -> Result<(u128, u8), PrefixError> {
    if length > LENGTH_MAX {
        return Err(PrefixError::TooLong);
    }
    let bits = address.to_bits() & mask(length);
    let link_local = bits >> 118 == 0xfe80 >> 6;
    // Nothing else may be refused (RFC 6296 §4.1).
    if bits == 0 || bits >> 120 == 0xff || link_local {
        return Err(PrefixError::NotUnicast);
    }
    Ok((bits, length))
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or_default()
}

fn word(bits: u128, place: u32) -> u16 {
    (bits >> (112 - 16 * place)) as u16
}

fn prefix_sum(bits: u128) -> u16 {
    (0..4).fold(0, |sum, place| add(sum, word(bits, place)))
}

/// One's-complement addition.
fn add(one: u16, other: u16) -> u16 {
    let (sum, carry) = one.overflowing_add(other);
    sum + u16::from(carry)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::checksum::Sum;

    fn address(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn pair(inside: &str, outside: &str) -> PrefixPair {
        let prefix = |text: &str| {
            let (address, length) = text.split_once('/').unwrap();
            (address.parse().unwrap(), length.parse().unwrap())
        };
        PrefixPair::new(prefix(inside), prefix(outside)).unwrap()
    }

    fn error(inside: &str, outside: &str) -> PrefixError {
        let prefix = |text: &str| {
            let (address, length) = text.split_once('/').unwrap();
            (address.parse().unwrap(), length.parse().unwrap())
        };
        PrefixPair::new(prefix(inside), prefix(outside)).unwrap_err()
    }

    fn sum(address: Ipv6Addr) -> u16 {
        // The two zeros are one: a word that is never zero keeps them apart, as the pseudo-header's protocol does.
        Sum::default().octets(&address.octets()).word(58).folded()
    }

    // R6296-013, R6296-016, R6296-017, R6296-024, R6296-007, R6296-011
    #[test]
    fn the_examples_of_the_rfc_and_ours() {
        for (inside, outside, adjustment, inner, outer) in [
            ("fd01:203:405::/48", "2001:db8:1::/48", 0xd54f, "fd01:203:405:1::1234", "2001:db8:1:d550::1234"),
            (
                "fc12:3456:789a::/48",
                "2001:db8:aa::/48",
                0x7aa0,
                "fc12:3456:789a:7:1c4a:5bf6:ffb4:ca6c",
                "2001:db8:aa:7aa7:1c4a:5bf6:ffb4:ca6c",
            ),
            (
                "fc12:3456:789a::/48",
                "2001:db8:8000::/48",
                0xfb49,
                "fc12:3456:789a:7:1c4a:5bf6:ffb4:ca6c",
                "2001:db8:8000:fb50:1c4a:5bf6:ffb4:ca6c",
            ),
            // R6296-012: the shorter is extended by zeros.
            ("fc12:3456:789a::/48", "2001:db8:ff:ab00::/56", 0xcf4a, "fc12:3456:789a:7::1", "2001:db8:ff:ab07:cf4a::1"),
        ] {
            let pair = pair(inside, outside);
            assert_eq!(pair.adjustment, adjustment, "{inside} {outside}");
            assert_eq!(pair.outbound(address(inner)), Ok(address(outer)));
            assert_eq!(pair.inbound(address(outer)), Ok(address(inner)));
        }
    }

    // R6296-025
    #[test]
    fn what_the_longer_prefix_leaves_out_is_not_mapped() {
        let long = pair("fc12:3456:789a::/48", "2001:db8:ff:ab00::/56");
        assert_eq!(long.outbound(address("fc12:3456:789a:107::1")), Err(Untranslatable::Unmapped));
        assert_eq!(long.inbound(address("2001:db8:ff:ac07::1")), Err(Untranslatable::Unmapped));
        assert_eq!((long.length(), long.changes_interface()), (56, true));
        assert!(long.is_outside(address("2001:db8:ff:abff::1")) && !long.is_outside(address("2001:db8:ff:ac00::1")));
    }

    // R6296-014, R6296-016, R6296-041, R6296-042: over all subnets.
    #[test]
    fn each_subnet_but_the_last_has_an_image_of_its_own() {
        for pair in [
            pair("fd01:203:405::/48", "2001:db8:1::/48"),
            // R6296-046: equal sums, adjustment zero, of either kind.
            pair("fd00:0:1::/48", "fd01::/48"),
            pair("fd01::/48", "fd00:0:1::/48"),
        ] {
            let mut seen = vec![false; 1 << 16];
            for subnet in 0..=u16::MAX {
                let inner = Ipv6Addr::from_bits(pair.inside | u128::from(subnet) << 64 | 0x1234);
                let outer = Ipv6Addr::from_bits(pair.outside | u128::from(subnet) << 64 | 0x1234);
                if subnet == 0xffff {
                    assert_eq!(pair.outbound(inner), Err(Untranslatable::ReservedSubnet));
                    assert_eq!(pair.inbound(outer), Err(Untranslatable::ReservedSubnet));
                    continue;
                }
                let image = pair.outbound(inner).unwrap();
                assert_eq!(image.to_bits() as u64, 0x1234, "R6296-019");
                assert_eq!(sum(image), sum(inner), "R6296-009");
                assert_eq!(pair.inbound(image), Ok(inner));
                assert!(!std::mem::replace(&mut seen[usize::from(image.segments()[3])], true));
            }
            assert!(!seen[0xffff], "the other zero is never left behind");
        }
        assert_eq!(pair("fd00:0:1::/48", "fd01::/48").outbound(address("fd00:0:1:7::9")), Ok(address("fd01:0:0:7::9")));
    }

    // R6296-021, R6296-022, R6296-026, R6296-028
    #[test]
    fn the_first_word_that_is_not_all_ones_is_changed() {
        let long = pair("fd00:1:2:3::/64", "2001:db8:9:8::/64");
        for (inner, place) in [
            ("fd00:1:2:3:1:2:3:4", 4),
            ("fd00:1:2:3:ffff:2:3:4", 5),
            ("fd00:1:2:3:ffff:ffff:3:4", 6),
            ("fd00:1:2:3:ffff:ffff:ffff:4", 7),
        ] {
            let inner = address(inner);
            let outer = long.outbound(inner).unwrap();
            for at in 4..8 {
                assert_eq!(inner.segments()[at] != outer.segments()[at], at == place, "{inner} {outer}");
            }
            assert_eq!(long.inbound(outer), Ok(inner));
        }
        assert_eq!(long.outbound(address("fd00:1:2:3:ffff:ffff:ffff:ffff")), Err(Untranslatable::NoWord));
        assert_eq!(long.inbound(address("2001:db8:9:8:ffff:ffff:ffff:ffff")), Err(Untranslatable::NoWord));
        assert_eq!(long.outbound(address("fd00:1:2:3::")), Err(Untranslatable::ZeroInterface));
        assert_eq!(long.inbound(address("2001:db8:9:8::")), Err(Untranslatable::ZeroInterface));
        // Whoever would become the routers' anycast address outside could never be answered.
        let word = !long.adjustment;
        let inner = Ipv6Addr::from_bits(long.inside | u128::from(word) << 48);
        assert_eq!(long.outbound(inner), Err(Untranslatable::ZeroInterface));
        // With a subnet word to change, an interface identifier of zeros is one as any other.
        let short = pair("fd01:203:405::/48", "2001:db8:1::/48");
        assert_eq!(short.outbound(address("fd01:203:405:1::")), Ok(address("2001:db8:1:d550::")));
    }

    // R6296-030, R6296-045
    #[test]
    fn prefixes_that_cannot_be_a_pair() {
        assert_eq!(error("fd00::/65", "2001:db8::/48"), PrefixError::TooLong);
        assert_eq!(error("fd00::/48", "2001:db8::/80"), PrefixError::TooLong);
        assert_eq!(error("fd00::/48", "fd00::/48"), PrefixError::Overlap);
        assert_eq!(error("fd00::/16", "fd00:1::/48"), PrefixError::Overlap);
        assert_eq!(error("fd00:1::/48", "fd00::/16"), PrefixError::Overlap);
        for prefix in ["ff02::/16", "fe80::/10", "fe80::/64", "::/0", "::/48"] {
            assert_eq!(error(prefix, "2001:db8::/48"), PrefixError::NotUnicast, "{prefix}");
        }
        for prefix in ["fd00::/8", "fc00::/8", "2001:db9::/32", "fec0::/48", "1::/16"] {
            assert_eq!(pair(prefix, "2001:db8::/48").length(), 48, "{prefix}");
        }
        // R6296-018: bits between a short prefix and the subnet word stay.
        let short = pair("fd00:1::/32", "2001:db8::/40");
        assert_eq!(short.outbound(address("fd00:1:00ab:7::9")).unwrap().segments()[2], 0x00ab);
    }

    proptest! {
        // R6296-009, R6296-001: what goes out comes back, sums are equal, and two addresses never share an image.
        #[test]
        fn there_and_back(
            inside in any::<u128>(), outside in any::<u128>(), lengths in (1u8..=64, 1u8..=64),
            hosts in prop::array::uniform2(any::<u128>()), ones in 0u32..5,
        ) {
            let prefixes =
                ((Ipv6Addr::from_bits(inside), lengths.0), (Ipv6Addr::from_bits(outside), lengths.1));
            let Ok(pair) = PrefixPair::new(prefixes.0, prefixes.1) else { return Ok(()) };
            // Interface identifiers that begin with words of all ones are the interesting ones.
            let ones = !u128::from(u64::MAX.checked_shr(16 * ones).unwrap_or_default()) & u128::from(u64::MAX);
            let inner = hosts.map(|host| Ipv6Addr::from_bits((host | ones) & !mask(pair.length) | pair.inside));
            let images = inner.map(|inner| pair.outbound(inner));
            for (inner, image) in inner.into_iter().zip(images) {
                let Ok(image) = image else { continue };
                prop_assert!(pair.is_outside(image));
                prop_assert_eq!(sum(image), sum(inner));
                prop_assert_eq!(pair.inbound(image), Ok(inner));
            }
            if inner[0] != inner[1] && images[0].is_ok() {
                prop_assert_ne!(images[0], images[1]);
            }
            let outer = Ipv6Addr::from_bits(hosts[0] & !mask(pair.length) | pair.outside);
            if let Ok(inner) = pair.inbound(outer) {
                prop_assert_eq!(pair.outbound(inner), Ok(outer));
            }
        }
    }
}
