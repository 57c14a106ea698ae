//! Packets of ours that others quote back: in Error messages (RFC 5533 §5.14) and in ICMPv6 errors (§7.8, §8).
//!
//! A quote may be cut off, so it is not parsed as a message: only the fields that tell whose it is are read.

use std::net::Ipv6Addr;

use dataplane::wire::ContextTag;
use dataplane::wire::shim6::{Addresses, PROTOCOL};

/// Message types as they stand on the wire (§5.3), as far as quotes are concerned.
pub(super) mod kind {
    pub(crate) const I1: u8 = 1;
    pub(crate) const I2: u8 = 3;
    pub(crate) const R2: u8 = 4;
    pub(crate) const I2BIS: u8 = 6;
    pub(crate) const UPDATE_REQUEST: u8 = 64;
    pub(crate) const UPDATE_ACK: u8 = 65;
    pub(crate) const KEEPALIVE: u8 = 66;
    pub(crate) const PROBE: u8 = 67;
    pub(crate) const ERROR: u8 = 68;
}

/// What a quoted control message says about its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quote {
    pub(super) addresses: Addresses,
    pub(super) kind: u8,
    /// The 47 bits at octet 6; a tag in all messages but R1 and Error.
    pub(super) tag: ContextTag,
    /// The 32 bits at octet 12; the Initiator Nonce in I1, I2, R2 and I2bis.
    pub(super) nonce: u32,
}

/// Reads a quoted packet from its IPv6 header on, if it holds a control message of 16 octets or more.
pub(super) fn read(packet: &[u8]) -> Option<Quote> {
    let header = packet.first_chunk::<40>()?;
    let address = |from: usize| {
        let octets = header.get(from..from + 16)?;
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?))
    };
    let addresses = Addresses { source: address(8)?, target: address(24)? };
    let shim6 = packet.get(shim6_offset(header[6], packet)?..)?.first_chunk::<16>()?;
    let [_, _, kind, _, _, _, t0, t1, t2, t3, t4, t5, n0, n1, n2, n3] = *shim6;
    let control = kind & 0x80 == 0;
    control.then_some(Quote {
        addresses,
        kind,
        tag: ContextTag::from_octets([t0, t1, t2, t3, t4, t5]),
        nonce: u32::from_be_bytes([n0, n1, n2, n3]),
    })
}

/// The type octet of the Shim6 header at `offset`, if the packet reaches that far.
pub(super) fn kind_at(packet: &[u8], offset: usize) -> Option<u8> {
    packet.get(offset + 2).copied()
}

/// Offset of the Shim6 header: after Hop-by-Hop Options, Destination Options and Routing headers only (§4.6).
fn shim6_offset(mut next_header: u8, packet: &[u8]) -> Option<usize> {
    let mut offset = 40;
    // Each turn goes forward by eight octets or more, so the end of the packet ends the loop.
    loop {
        match next_header {
            PROTOCOL => return Some(offset),
            0 | 43 | 60 => {
                next_header = *packet.get(offset)?;
                offset += 8 * (usize::from(*packet.get(offset + 1)?) + 1);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IPv6 header, eight octets of destination options, and the I1 of the golden vectors.
    fn packet() -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 24, 60, 64];
        packet.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
        packet.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).octets());
        packet.extend([PROTOCOL, 0, 1, 4, 0, 0, 0, 0]);
        packet.extend([0x3b, 1, 1, 0, 0x22, 0xf8, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xad, 0xbe, 0xef]);
        packet
    }

    #[test]
    fn a_quote_tells_whose_it_is() {
        let quote = read(&packet()).unwrap();
        assert_eq!((quote.kind, quote.tag.value(), quote.nonce), (kind::I1, 0x1234_5678_9abc, 0xdead_beef));
        assert_eq!(quote.addresses.target, Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));
    }

    #[test]
    fn cut_off_and_other_packets_tell_nothing() {
        let whole = packet();
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None);
        }
        let mut other = whole.clone();
        other[40] = 6;
        assert_eq!(read(&other), None);
        let mut payload = whole;
        payload[50] |= 0x80;
        assert_eq!(read(&payload), None);
    }
}
