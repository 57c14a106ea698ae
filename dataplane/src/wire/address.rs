//! Addresses that must never be swapped, as types of their own.

use std::fmt;
use std::net::Ipv6Addr;
use std::num::NonZeroU32;

/// An identifier: what upper layers see. Never on the wire between providers unless it is routable (RFC 5533 §1.6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ulid(pub Ipv6Addr);

/// A routable address delegated by a provider: what the network sees (RFC 5533 §1.6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locator(pub Ipv6Addr);

/// The two identifiers of a context, seen from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UlidPair {
    /// Ours.
    pub local: Ulid,
    /// The peer's.
    pub peer: Ulid,
}

/// Two locators, seen from this side: a packet we send goes from `local` to `peer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocatorPair {
    /// Ours.
    pub local: Locator,
    /// The peer's.
    pub peer: Locator,
}

impl UlidPair {
    /// The same two addresses as a locator pair: the pair of the initial contact (RFC 5533 §1.3).
    pub fn as_locators(self) -> LocatorPair {
        LocatorPair { local: Locator(self.local.0), peer: Locator(self.peer.0) }
    }

    /// The pair as the other side sees it.
    pub fn mirrored(self) -> UlidPair {
        UlidPair { local: self.peer, peer: self.local }
    }
}

impl LocatorPair {
    /// The pair as the other side sees it.
    pub fn mirrored(self) -> LocatorPair {
        LocatorPair { local: self.peer, peer: self.local }
    }
}

/// A 47-bit context tag (RFC 5533 §4.1), chosen by the side that receives packets carrying it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextTag(u64);

impl ContextTag {
    /// Number of bits in a tag.
    pub const BITS: u32 = 47;
    /// The largest tag.
    pub const MAX: ContextTag = ContextTag((1 << Self::BITS) - 1);

    /// A tag, if `value` fits in 47 bits.
    pub const fn new(value: u64) -> Option<ContextTag> {
        if value >> Self::BITS == 0 { Some(ContextTag(value)) } else { None }
    }

    /// The low 47 bits of `value`.
    pub const fn truncate(value: u64) -> ContextTag {
        ContextTag(value & Self::MAX.0)
    }

    /// The low 47 bits of the 48-bit big-endian integer in `octets`; the top bit is not looked at.
    pub const fn from_octets(octets: [u8; 6]) -> ContextTag {
        let [a, b, c, d, e, f] = octets;
        Self::truncate(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// The tag as a 48-bit big-endian integer with a zero top bit.
    pub const fn octets(self) -> [u8; 6] {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// The tag as a number.
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for ContextTag {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "tag {:012x}", self.0)
    }
}

impl fmt::Display for ContextTag {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:012x}", self.0)
    }
}

macro_rules! shown_as_address {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, out)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, out)
            }
        }
    )*};
}
shown_as_address!(Ulid, Locator);

/// A flow label (RFC 6437) that stands for a context: 20 bits, and not zero, which means no label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowLabel(NonZeroU32);

impl FlowLabel {
    /// Number of bits in a label.
    pub const BITS: u32 = 20;

    /// The low 20 bits of `value`, if they are a label.
    pub const fn truncate(value: u32) -> Option<FlowLabel> {
        match NonZeroU32::new(value & ((1 << Self::BITS) - 1)) {
            Some(value) => Some(FlowLabel(value)),
            None => None,
        }
    }

    /// The label as a number.
    pub const fn value(self) -> u32 {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_the_low_47_bits_of_a_48_bit_integer() {
        let tag = ContextTag::from_octets([0x92, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
        assert_eq!(tag.value(), 0x1234_5678_9abc);
        assert_eq!(tag.octets(), [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
        assert_eq!(ContextTag::new(1 << 47), None);
    }
}
