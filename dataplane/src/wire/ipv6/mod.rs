//! The IPv6 header (RFC 8200 §3) and what may stand between it and the upper layer.
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Version| Traffic Class |              Flow Label               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |         Payload Length        |  Next Header  |   Hop Limit   |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                  Source Address (128 bits)                    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |               Destination Address (128 bits)                  |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! A view that exists holds a whole packet: version 6, forty octets of header and as many octets as Payload Length
//! says. The buffer may be longer, as Ethernet pads short frames; the view ends where the packet ends. Jumbograms
//! (RFC 2675) say a length of zero and are taken at their word.

pub mod chain;
pub mod fragment;

use std::net::Ipv6Addr;

pub use chain::{ChainError, Place, ShimPlace, UpperLayer};

/// Octets of the header.
pub const HEADER_LEN: usize = 40;
/// The smallest MTU of any IPv6 link, and so the longest packet everyone takes (RFC 8200 §5).
pub const MIN_MTU: usize = 1280;

/// Next-header values this crate acts on.
pub mod protocol {
    /// Hop-by-Hop Options, only directly after the IPv6 header (RFC 8200 §4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// Routing header (RFC 8200 §4.4).
    pub const ROUTING: u8 = 43;
    /// Fragment header (RFC 8200 §4.5).
    pub const FRAGMENT: u8 = 44;
    /// Encapsulating Security Payload (RFC 4303).
    pub const ESP: u8 = 50;
    /// Authentication Header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// Nothing follows (RFC 8200 §4.7).
    pub const NO_NEXT_HEADER: u8 = 59;
    /// Destination Options (RFC 8200 §4.6).
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// Both kinds of Shim6 header (RFC 5533 §17).
    pub const SHIM6: u8 = 140;
}

/// Offset of the Next Header field in the IPv6 header.
pub(crate) const NEXT_HEADER: usize = 6;

/// Why a buffer is not an IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer than forty octets, or fewer than Payload Length announces.
    #[error("IPv6 packet cut short")]
    Truncated,
    /// The version is not 6.
    #[error("IP version is not 6")]
    Version,
}

/// A whole packet, split into header and payload.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> View<'a> {
    /// A view of the packet at the start of `buffer`.
    ///
    /// # Errors
    /// [`Malformed`] when the version is wrong or octets are missing.
    #[inline]
    pub fn new(buffer: &'a [u8]) -> Result<View<'a>, Malformed> {
        let (header, rest) = buffer.split_first_chunk().ok_or(Malformed::Truncated)?;
        check_version(header)?;
        let payload = rest.get(..payload_len(header)).ok_or(Malformed::Truncated)?;
        Ok(View { header, payload })
    }

    /// A view of as much of a packet as a buffer holds: for packets quoted by errors, which may be cut anywhere after
    /// the header.
    ///
    /// # Errors
    /// [`Malformed`] when the version is wrong or the header is not whole.
    pub fn of_quote(buffer: &'a [u8]) -> Result<View<'a>, Malformed> {
        let (header, rest) = buffer.split_first_chunk().ok_or(Malformed::Truncated)?;
        check_version(header)?;
        Ok(View { header, payload: rest.get(..payload_len(header)).unwrap_or(rest) })
    }

    /// Traffic class (RFC 8200 §7).
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        self.header[0] << 4 | self.header[1] >> 4
    }

    /// The 20-bit flow label (RFC 6437).
    #[inline]
    pub fn flow_label(&self) -> u32 {
        u32::from_be_bytes([0, self.header[1] & 0x0f, self.header[2], self.header[3]])
    }

    /// Octets after the header, as the header says.
    #[inline]
    pub fn payload_len(&self) -> usize {
        payload_len(self.header)
    }

    /// Octets of the whole packet, as the header says.
    #[inline]
    pub fn total_len(&self) -> usize {
        HEADER_LEN + payload_len(self.header)
    }

    /// What follows the header.
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.header[NEXT_HEADER]
    }

    /// Links the packet may still cross.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.header[7]
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        address_at::<8>(self.header)
    }

    /// Destination address.
    #[inline]
    pub fn target(&self) -> Ipv6Addr {
        address_at::<24>(self.header)
    }

    /// The header itself.
    #[inline]
    pub fn header(&self) -> &'a [u8; HEADER_LEN] {
        self.header
    }

    /// What follows the header, without link padding.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// What follows `offset`, counted from the first octet of the IPv6 header; empty when `offset` is not in the
    /// payload.
    #[inline]
    pub fn from_offset(&self, offset: usize) -> &'a [u8] {
        offset.checked_sub(HEADER_LEN).and_then(|at| self.payload.get(at..)).unwrap_or_default()
    }
}

/// A whole packet whose header may be written. Traffic class has no setter: a translator keeps it.
#[derive(Debug)]
pub struct ViewMut<'a> {
    header: &'a mut [u8; HEADER_LEN],
    payload: &'a mut [u8],
}

impl<'a> ViewMut<'a> {
    /// A writable view of the packet at the start of `buffer`.
    ///
    /// # Errors
    /// [`Malformed`] when the version is wrong or octets are missing.
    #[inline]
    pub fn new(buffer: &'a mut [u8]) -> Result<ViewMut<'a>, Malformed> {
        let (header, rest) = buffer.split_first_chunk_mut().ok_or(Malformed::Truncated)?;
        check_version(header)?;
        let payload = rest.get_mut(..payload_len(header)).ok_or(Malformed::Truncated)?;
        Ok(ViewMut { header, payload })
    }

    /// The same packet, to read.
    #[inline]
    pub fn view(&self) -> View<'_> {
        View { header: self.header, payload: self.payload }
    }

    /// Writes the source address.
    #[inline]
    pub fn set_source(&mut self, address: Ipv6Addr) {
        self.header[8..24].copy_from_slice(&address.octets());
    }

    /// Writes the destination address.
    #[inline]
    pub fn set_target(&mut self, address: Ipv6Addr) {
        self.header[24..40].copy_from_slice(&address.octets());
    }

    /// Writes the flow label, of which the low 20 bits count. A translator keeps it, but where the label itself names the
    /// context (docs/decisions: the context in the flow label).
    #[inline]
    pub fn set_flow_label(&mut self, label: u32) {
        let label = label.to_be_bytes();
        self.header[1] = self.header[1] & 0xf0 | label[1] & 0x0f;
        self.header[2..4].copy_from_slice(&label[2..]);
    }

    /// Writes the next-header field of the IPv6 header.
    #[inline]
    pub fn set_next_header(&mut self, protocol: u8) {
        self.header[NEXT_HEADER] = protocol;
    }

    /// Writes the payload length; the extent of this view stays what it was.
    #[inline]
    pub fn set_payload_len(&mut self, octets: u16) {
        self.header[4..6].copy_from_slice(&octets.to_be_bytes());
    }

    /// One hop less. Says false, and leaves the packet alone, when it may not be forwarded any more (RFC 8200 §3).
    #[inline]
    #[must_use]
    pub fn decrement_hop_limit(&mut self) -> bool {
        let limit = &mut self.header[7];
        if *limit <= 1 {
            return false;
        }
        *limit -= 1;
        true
    }

    /// What follows the header.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        self.payload
    }
}

/// The fields of a header to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub target: Ipv6Addr,
    /// What follows the header.
    pub next_header: u8,
    /// Octets after the header.
    pub payload_len: u16,
    /// Links the packet may cross.
    pub hop_limit: u8,
    /// Traffic class.
    pub traffic_class: u8,
    /// Flow label; its low 20 bits are sent.
    pub flow_label: u32,
}

impl Repr {
    /// What the header of `view` says.
    pub fn parse(view: &View<'_>) -> Repr {
        Repr {
            source: view.source(),
            target: view.target(),
            next_header: view.next_header(),
            payload_len: u16::from_be_bytes([view.header[4], view.header[5]]),
            hop_limit: view.hop_limit(),
            traffic_class: view.traffic_class(),
            flow_label: view.flow_label(),
        }
    }

    /// The header's octets.
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0x000f_ffff;
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(&first.to_be_bytes());
        header[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        header[NEXT_HEADER] = self.next_header;
        header[7] = self.hop_limit;
        header[8..24].copy_from_slice(&self.source.octets());
        header[24..].copy_from_slice(&self.target.octets());
        header
    }
}

#[inline]
fn check_version(header: &[u8; HEADER_LEN]) -> Result<(), Malformed> {
    if header[0] >> 4 == 6 { Ok(()) } else { Err(Malformed::Version) }
}

#[inline]
fn payload_len(header: &[u8; HEADER_LEN]) -> usize {
    usize::from(u16::from_be_bytes([header[4], header[5]]))
}

#[inline]
fn address_at<const OFFSET: usize>(header: &[u8; HEADER_LEN]) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[OFFSET..OFFSET + 16]);
    Ipv6Addr::from(octets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn repr() -> Repr {
        Repr {
            source: "2001:db8::1".parse().unwrap(),
            target: "2001:db8::2".parse().unwrap(),
            next_header: protocol::UDP,
            payload_len: 3,
            hop_limit: 64,
            traffic_class: 0xb8,
            flow_label: 0xabcde,
        }
    }

    fn packet() -> Vec<u8> {
        [&repr().emit()[..], &[1, 2, 3]].concat()
    }

    #[test]
    fn a_header_has_the_octets_of_rfc_8200() {
        let header = repr().emit();
        assert_eq!(header[..8], [0x6b, 0x8a, 0xbc, 0xde, 0, 3, 17, 64]);
        assert_eq!(header[8..10], [0x20, 0x01]);
        assert_eq!(header[39], 2);
    }

    #[test]
    fn the_view_ends_where_the_packet_ends() {
        let padded = [packet(), vec![0; 17]].concat();
        let view = View::new(&padded).unwrap();
        assert_eq!(view.payload(), [1, 2, 3]);
        assert_eq!(view.total_len(), 43);
        assert_eq!((view.from_offset(41), view.from_offset(0), view.from_offset(99)), (&[2, 3][..], &[][..], &[][..]));
    }

    #[test]
    fn a_packet_with_octets_missing_is_none() {
        let whole = packet();
        for len in 0..whole.len() {
            assert_eq!(View::new(&whole[..len]).unwrap_err(), Malformed::Truncated);
            assert_eq!(ViewMut::new(&mut whole[..len].to_vec()).unwrap_err(), Malformed::Truncated);
        }
        assert_eq!(View::of_quote(&whole[..42]).unwrap().payload(), [1, 2]);
        assert_eq!(View::of_quote(&whole[..39]).unwrap_err(), Malformed::Truncated);
    }

    #[test]
    fn version_4_is_refused() {
        let mut old = packet();
        old[0] = 0x45;
        assert_eq!(View::new(&old).unwrap_err(), Malformed::Version);
        assert_eq!(View::of_quote(&old).unwrap_err(), Malformed::Version);
    }

    #[test]
    fn setters_touch_their_field_only() {
        let mut octets = packet();
        let mut view = ViewMut::new(&mut octets).unwrap();
        view.set_source("fd00::1".parse().unwrap());
        view.set_target("fd00::2".parse().unwrap());
        view.set_next_header(protocol::SHIM6);
        assert!(view.decrement_hop_limit());
        view.set_payload_len(2);
        let expected = Repr {
            source: "fd00::1".parse().unwrap(),
            target: "fd00::2".parse().unwrap(),
            next_header: protocol::SHIM6,
            payload_len: 2,
            hop_limit: 63,
            ..repr()
        };
        assert_eq!(Repr::parse(&View::new(&octets).unwrap()), expected);
    }

    #[test]
    fn the_last_hop_is_not_crossed() {
        for limit in [0, 1] {
            let mut octets = packet();
            octets[7] = limit;
            let mut view = ViewMut::new(&mut octets).unwrap();
            assert!(!view.decrement_hop_limit());
            assert_eq!(view.view().hop_limit(), limit);
        }
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed(
            source in any::<u128>(), target in any::<u128>(), next_header: u8, hop_limit: u8, traffic_class: u8,
            flow_label in 0u32..1 << 20, payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let repr = Repr {
                source: source.into(), target: target.into(), next_header, hop_limit, traffic_class, flow_label,
                payload_len: payload.len() as u16,
            };
            let packet = [&repr.emit()[..], &payload].concat();
            let view = View::new(&packet).unwrap();
            prop_assert_eq!(Repr::parse(&view), repr);
            prop_assert_eq!(view.payload(), payload);
        }
    }
}
