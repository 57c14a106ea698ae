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
