//! The Payload Extension Header: eight octets that name a context (RFC 5533 §5.2).
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Next Header  |       0       |1|                             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                             |
//! |                     Receiver Context Tag                      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! [`insert`] and [`remove`] do to a packet in place what RFC 5533 §11.1 and §12.2 say, addresses aside. Nothing here
//! allocates.

use super::{PROTOCOL, PayloadHeader};
use crate::wire::address::ContextTag;
use crate::wire::ipv6::{HEADER_LEN, Place};

/// The P bit, in the third octet of every Shim6 header.
pub(super) const P: u8 = 0x80;
/// The same in a payload header taken for a number.
const P_HERE: u64 = (P as u64) << 40;

/// Why octets are not a payload header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Fewer than eight octets.
    #[error("Shim6 header cut short")]
    Truncated,
    /// The P bit is clear: this is a control message (R5533-287).
    #[error("Shim6 control message, not a payload header")]
    Control,
    /// Hdr Ext Len is not zero (R5533-318).
    #[error("payload header with a length other than eight octets")]
    Length,
}

/// Why a header could not be put into a packet or taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpliceError {
    /// The place is not one of this packet.
    #[error("place outside the packet")]
    Place,
    /// Payload Length would leave its sixteen bits.
    #[error("payload length out of range")]
    Length,
}

impl PayloadHeader {
    /// Octets of the header.
    pub const LEN: usize = 8;

    /// The payload header at the start of `octets`.
    ///
    /// # Errors
    /// [`PayloadError::Control`] sends the packet to the control decoder; the others end it.
    #[inline]
    pub fn parse(octets: &[u8]) -> Result<PayloadHeader, PayloadError> {
        let header = u64::from_be_bytes(*octets.first_chunk().ok_or(PayloadError::Truncated)?);
        if header & P_HERE == 0 {
            return Err(PayloadError::Control);
        }
        if header >> 48 & 0xff != 0 {
            return Err(PayloadError::Length);
        }
        Ok(PayloadHeader { next_header: (header >> 56) as u8, tag: ContextTag::truncate(header) })
    }

    /// The header's octets.
    #[inline]
    pub const fn emit(self) -> [u8; Self::LEN] {
        ((self.next_header as u64) << 56 | P_HERE | self.tag.value()).to_be_bytes()
    }
}

/// Puts a payload header into a packet (RFC 5533 §11.1). `buffer` holds eight octets to spare and then the packet in
/// which `place` was found; afterwards the packet fills it from its first octet. Next headers and Payload Length are
/// put right, addresses and checksums are left alone.
///
/// # Errors
/// [`SpliceError`], with `buffer` untouched.
#[inline]
pub fn insert(buffer: &mut [u8], place: Place, tag: ContextTag) -> Result<(), SpliceError> {
    let start = PayloadHeader::LEN;
    check(buffer.get(start..), place)?;
    let length = payload_len(buffer, start).checked_add(start as u16).ok_or(SpliceError::Length)?;
    let next_header = buffer[start + place.predecessor];
    if place.offset == HEADER_LEN {
        // The usual case, with a length the compiler knows.
        buffer.copy_within(start..start + HEADER_LEN, 0);
    } else {
        buffer.copy_within(start..start + place.offset, 0);
    }
    buffer[place.offset..place.offset + start].copy_from_slice(&PayloadHeader { next_header, tag }.emit());
    buffer[place.predecessor] = PROTOCOL;
    buffer[4..6].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Takes the payload header at `place` out of `packet` (RFC 5533 §12.2). Afterwards the first eight octets are of no
/// use and the packet starts behind them.
///
/// # Errors
/// [`SpliceError`], with `packet` untouched.
#[inline]
pub fn remove(packet: &mut [u8], place: Place) -> Result<(), SpliceError> {
    let start = PayloadHeader::LEN;
    check(Some(packet), place)?;
    let next_header = *packet.get(place.offset).ok_or(SpliceError::Place)?;
    if packet.len() - place.offset < start {
        return Err(SpliceError::Place);
    }
    let length = payload_len(packet, 0).checked_sub(start as u16).ok_or(SpliceError::Length)?;
    packet[place.predecessor] = next_header;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    if place.offset == HEADER_LEN {
        packet.copy_within(0..HEADER_LEN, start);
    } else {
        packet.copy_within(0..place.offset, start);
    }
    Ok(())
}

/// Whether `place` is one that a walk over `packet` could have found.
#[inline]
pub(super) fn check(packet: Option<&[u8]>, place: Place) -> Result<(), SpliceError> {
    let inside = packet.is_some_and(|packet| place.offset <= packet.len());
    if inside && place.offset >= HEADER_LEN && place.predecessor < place.offset {
        Ok(())
    } else {
        Err(SpliceError::Place)
    }
}

#[inline]
pub(super) fn payload_len(buffer: &[u8], start: usize) -> u16 {
    u16::from_be_bytes([buffer[start + 4], buffer[start + 5]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ipv6::{Repr, View, protocol};

    const GOLDEN: [u8; 8] = [0x06, 0x00, 0x92, 0x34, 0x56, 0x78, 0x9a, 0xbc];

    fn golden() -> PayloadHeader {
        PayloadHeader { next_header: 6, tag: ContextTag::new(0x1234_5678_9abc).unwrap() }
    }

    // R5533-031
    #[test]
    fn the_golden_vector_reads_and_writes() {
        assert_eq!(PayloadHeader::parse(&GOLDEN), Ok(golden()));
        assert_eq!(golden().emit(), GOLDEN);
    }

    // R5533-287, R5533-318
    #[test]
    fn what_is_no_payload_header_is_told_apart() {
        assert_eq!(PayloadHeader::parse(&GOLDEN[..7]), Err(PayloadError::Truncated));
        let mut control = GOLDEN;
        control[2] &= !P;
        control[1] = 3;
        assert_eq!(PayloadHeader::parse(&control), Err(PayloadError::Control));
        let mut long = GOLDEN;
        long[1] = 1;
        assert_eq!(PayloadHeader::parse(&long), Err(PayloadError::Length));
    }

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let repr = Repr {
            source: "2001:db8:1::a".parse().unwrap(),
            target: "2001:db8:2::b".parse().unwrap(),
            next_header,
            payload_len: payload.len() as u16,
            hop_limit: 64,
            traffic_class: 0x20,
            flow_label: 0x12345,
        };
        [&repr.emit()[..], payload].concat()
    }

    fn inserted(packet: &[u8]) -> Vec<u8> {
        let place = View::new(packet).unwrap().shim_insertion().unwrap().place;
        let mut buffer = [&[0xaa; 8], packet].concat();
        insert(&mut buffer, place, golden().tag).unwrap();
        buffer
    }

    // R5533-285
    #[test]
    fn inserting_chains_next_headers_and_lengthens_the_packet() {
        let tagged = inserted(&packet(protocol::TCP, &[1, 2, 3, 4]));
        assert_eq!(tagged, [packet(PROTOCOL, &[&GOLDEN[..], &[1, 2, 3, 4]].concat())].concat());

        let options = [protocol::UDP, 0, 1, 4, 0, 0, 0, 0];
        let tagged = inserted(&packet(protocol::HOP_BY_HOP, &[&options[..], &[9; 5]].concat()));
        let mut expected = [&options[..], &golden().emit(), &[9; 5]].concat();
        (expected[0], expected[8]) = (PROTOCOL, protocol::UDP);
        assert_eq!(tagged, packet(protocol::HOP_BY_HOP, &expected));
    }

    #[test]
    fn a_packet_of_full_length_takes_no_header() {
        let full = packet(protocol::TCP, &vec![0; 0xfff8]);
        let mut buffer = [&[0; 8][..], &full].concat();
        let place = View::new(&full).unwrap().shim_insertion().unwrap().place;
        assert_eq!(insert(&mut buffer, place, golden().tag), Err(SpliceError::Length));
        assert_eq!(buffer[8..], full);
    }

    #[test]
    fn a_place_of_another_packet_is_refused() {
        let mut octets = packet(PROTOCOL, &GOLDEN);
        for (offset, predecessor) in [(39, 6), (41, 6), (48, 6), (49, 6), (40, 40), (usize::MAX, 6)] {
            let place = Place { offset, predecessor, next_header: PROTOCOL };
            assert_eq!(remove(&mut octets, place), Err(SpliceError::Place), "{place:?}");
        }
        assert_eq!(octets, packet(PROTOCOL, &GOLDEN));
        for (offset, predecessor) in [(39, 6), (41, 6), (40, 40), (usize::MAX, 6)] {
            let place = Place { offset, predecessor, next_header: PROTOCOL };
            assert_eq!(insert(&mut octets, place, golden().tag), Err(SpliceError::Place), "{place:?}");
        }
        assert_eq!(
            insert(&mut [0; 3], Place { offset: 40, predecessor: 6, next_header: 6 }, golden().tag),
            Err(SpliceError::Place)
        );
    }

    proptest! {
        #[test]
        fn eight_octets_round_trip(octets in any::<[u8; 8]>()) {
            if let Ok(header) = PayloadHeader::parse(&octets) {
                prop_assert_eq!(header.emit(), octets);
            }
        }

        // R5533-291
        #[test]
        fn removing_undoes_inserting(
            next_header in prop::sample::select(vec![0u8, 6, 17, 43, 44, 60]),
            payload in prop::collection::vec(prop::sample::select(vec![0u8, 1, 6, 43, 60, 255]), 0..200),
        ) {
            let packet = packet(next_header, &payload);
            let Ok(shim) = View::new(&packet).unwrap().shim_insertion() else { return Ok(()) };
            let mut buffer = [&[0xaa; 8], &packet[..]].concat();
            insert(&mut buffer, shim.place, golden().tag).unwrap();
            let found = View::new(&buffer).unwrap().shim_header().unwrap().unwrap();
            prop_assert_eq!(found.place, Place { next_header: PROTOCOL, ..shim.place });
            let header = PayloadHeader::parse(&buffer[found.place.offset..]).unwrap();
            prop_assert_eq!(header, PayloadHeader { next_header: shim.place.next_header, tag: golden().tag });
            remove(&mut buffer, found.place).unwrap();
            prop_assert_eq!(&buffer[8..], &packet[..]);
        }
    }
}
