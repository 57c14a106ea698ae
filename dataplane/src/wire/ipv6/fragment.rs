//! Cutting a packet into fragments (RFC 8200 §4.5), for the one case in which the box does what only a source may do.
//!
//! A host must be allowed to send 1280 octets, and a path that carries no more has no room for the payload header with them.
//! RFC 5533 §1.6 places the shim below fragmentation, so a host with a shim of its own would send two fragments, each with a
//! payload header. The box does the same in its place.
//!
//! What stands before a Shim6 header stands in every fragment; the rest is cut. A packet that is a fragment already is
//! cut further, under the number it has.

use super::{HEADER_LEN, MIN_MTU, View, protocol};

/// Octets of a Fragment header.
const FRAGMENT_LEN: usize = 8;
/// What fragment offsets count.
const UNIT: usize = 8;
/// Another fragment follows.
const MORE: u16 = 1;
/// Largest fragment offset, in units.
const OFFSET_MAX: usize = 0x1fff;

/// A packet being cut. Allocates nothing.
#[derive(Debug)]
pub struct Pieces<'a> {
    /// The IPv6 header and those that stand in every fragment.
    outer: &'a [u8],
    /// Where they name what follows.
    predecessor: usize,
    /// What the first header of the rest is.
    next_header: u8,
    id: [u8; 4],
    /// What has not been written yet.
    rest: &'a [u8],
    /// Where it starts, in units.
    offset: usize,
    /// Whether it is the end of the whole.
    last: bool,
    /// Octets of it that go into one fragment.
    share: usize,
}

impl<'a> Pieces<'a> {
    /// Cuts the packet at the start of `octets` into fragments of at most `octets_max` octets, which 1280 bounds, numbered
    /// `id` unless it has a number. None when its headers cannot be followed or leave no room.
    pub fn of(octets: &'a [u8], octets_max: usize, id: u32) -> Option<Pieces<'a>> {
        let packet = View::new(octets).ok()?;
        let place = packet.shim_insertion().ok()?.place;
        let (outer, rest) = octets.get(..packet.total_len())?.split_at_checked(place.offset)?;
        let share = octets_max.min(MIN_MTU).checked_sub(outer.len() + FRAGMENT_LEN)? / UNIT * UNIT;
        let whole = Pieces {
            outer,
            predecessor: place.predecessor,
            next_header: place.next_header,
            id: id.to_be_bytes(),
            rest,
            offset: 0,
            last: true,
            share,
        };
        whole.resumed().filter(|pieces| pieces.share > 0)
    }

    /// Takes up where a Fragment header that is there already says.
    fn resumed(self) -> Option<Pieces<'a>> {
        if self.next_header != protocol::FRAGMENT {
            return Some(self);
        }
        let (&[next_header, _, high, low, a, b, c, d], rest) = self.rest.split_first_chunk::<FRAGMENT_LEN>()?;
        let field = u16::from_be_bytes([high, low]);
        let (offset, last) = (usize::from(field >> 3), field & MORE == 0);
        // Only the end of the whole may be no multiple of eight octets.
        let sound = last || rest.len().is_multiple_of(UNIT);
        sound.then_some(Pieces { next_header, id: [a, b, c, d], rest, offset, last, ..self })
    }

    /// Writes the next fragment at the start of `out`; its length, or none when all have been written.
    pub fn write_next(&mut self, out: &mut [u8; MIN_MTU]) -> Option<usize> {
        if self.rest.is_empty() || self.offset > OFFSET_MAX {
            return None;
        }
        let (data, rest) = self.rest.split_at(self.share.min(self.rest.len()));
        let more = !rest.is_empty() || !self.last;
        let field = ((self.offset as u16) << 3) | if more { MORE } else { 0 };
        let [high, low] = field.to_be_bytes();
        let [a, b, c, d] = self.id;
        let (start, length) = (self.outer.len(), self.outer.len() + FRAGMENT_LEN + data.len());
        out.get_mut(..start)?.copy_from_slice(self.outer);
        out.get_mut(start..start + FRAGMENT_LEN)?.copy_from_slice(&[self.next_header, 0, high, low, a, b, c, d]);
        out.get_mut(start + FRAGMENT_LEN..length)?.copy_from_slice(data);
        out[self.predecessor] = protocol::FRAGMENT;
        out[4..6].copy_from_slice(&((length - HEADER_LEN) as u16).to_be_bytes());
        self.rest = rest;
        self.offset += data.len() / UNIT;
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ipv6::Repr;

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let repr = Repr {
            source: "fc00:a::1".parse().unwrap(),
            target: "fc00:b::1".parse().unwrap(),
            next_header,
            payload_len: payload.len() as u16,
            hop_limit: 64,
            traffic_class: 0xb8,
            flow_label: 0x1_2345,
        };
        [&repr.emit()[..], payload].concat()
    }

    fn cut(packet: &[u8], octets_max: usize) -> Vec<Vec<u8>> {
        let mut pieces = Pieces::of(packet, octets_max, 0x0102_0304).unwrap();
        let mut out = [0; MIN_MTU];
        std::iter::from_fn(|| pieces.write_next(&mut out).map(|length| out[..length].to_vec())).collect()
    }

    /// Puts fragments together as RFC 8200 §4.5 says. What they say of themselves has to be consistent.
    fn whole(pieces: &[Vec<u8>]) -> (Vec<u8>, u32) {
        let mut data: Vec<u8> = Vec::new();
        let mut result = Vec::new();
        let mut id = None;
        for (at, piece) in pieces.iter().enumerate() {
            let view = View::new(piece).unwrap();
            assert_eq!(view.total_len(), piece.len());
            let place = view.shim_insertion().unwrap().place;
            assert_eq!(place.next_header, protocol::FRAGMENT);
            let header: [u8; 8] = piece[place.offset..place.offset + 8].try_into().unwrap();
            let field = u16::from_be_bytes([header[2], header[3]]);
            assert_eq!((usize::from(field >> 3) * 8, header[1], field & 6), (data.len(), 0, 0));
            assert_eq!(field & 1 == 1, at + 1 < pieces.len());
            data.extend(&piece[place.offset + 8..]);
            let number = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            assert_eq!(*id.get_or_insert(number), number);
            result = piece[..place.offset].to_vec();
            result[place.predecessor] = header[0];
        }
        result.extend(data);
        let length = (result.len() - HEADER_LEN) as u16;
        result[4..6].copy_from_slice(&length.to_be_bytes());
        (result, id.unwrap())
    }

    #[test]
    fn a_packet_of_1280_octets_makes_two_fragments_with_room_for_a_header() {
        for octets in 1273..=1280 {
            let sent = packet(17, &(0..octets - 40).map(|at| at as u8).collect::<Vec<_>>());
            let pieces = cut(&sent, 1272);
            assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [1272, octets - 1224 + 8]);
            assert_eq!(whole(&pieces), (sent, 0x0102_0304));
        }
    }

    #[test]
    fn a_fragment_is_cut_further_under_its_own_number() {
        let sent = packet(17, &(0..3000).map(|at| at as u8).collect::<Vec<_>>());
        let first = cut(&sent, 1280);
        assert_eq!(first.len(), 3);
        let again: Vec<Vec<u8>> = first
            .iter()
            .flat_map(|piece| {
                let mut pieces = Pieces::of(piece, 1272, 9).unwrap();
                let mut out = [0; MIN_MTU];
                std::iter::from_fn(|| pieces.write_next(&mut out).map(|length| out[..length].to_vec()))
                    .collect::<Vec<_>>()
            })
            .collect();
        assert!(again.len() > 3 && again.iter().all(|piece| piece.len() <= 1272));
        assert_eq!(whole(&again), (sent, 0x0102_0304));
    }

    #[test]
    fn what_cannot_be_cut_is_left() {
        let options = [&[17, 154][..], &[0; 1238]].concat();
        let long = packet(protocol::HOP_BY_HOP, &options);
        assert!(Pieces::of(&long, 1272, 1).is_none(), "no room behind the options");
        let broken = packet(protocol::HOP_BY_HOP, &[17, 200, 0, 0, 0, 0, 0, 0]);
        assert!(Pieces::of(&broken, 1272, 1).is_none());
        let odd = packet(protocol::FRAGMENT, &[17, 0, 0, 1, 0, 0, 0, 1, 5, 5, 5]);
        assert!(Pieces::of(&odd, 1272, 1).is_none(), "a fragment that is no multiple of eight, and not the last");
        let empty = packet(protocol::FRAGMENT, &[17, 0, 0]);
        assert!(Pieces::of(&empty, 1272, 1).is_none());
        assert!(Pieces::of(&[0x60; 39], 1272, 1).is_none());
    }

    proptest! {
        /// Whatever stands in front, and whatever the room: the parts make the whole, and none is too long.
        #[test]
        fn the_parts_make_the_whole(
            options in prop::option::of(0usize..40), octets in 1usize..2000, octets_max in 200usize..1400,
        ) {
            let mut payload: Vec<u8> = (0..octets).map(|at| at as u8).collect();
            let mut next_header = 6;
            if let Some(units) = options {
                let mut header = vec![0; (units % 8 + 1) * 8];
                (header[0], header[1]) = (6, (units % 8) as u8);
                payload.splice(0..0, header);
                next_header = protocol::HOP_BY_HOP;
            }
            let sent = packet(next_header, &payload);
            let pieces = cut(&sent, octets_max);
            prop_assert!(pieces.iter().all(|piece| piece.len() <= octets_max));
            prop_assert_eq!(whole(&pieces), (sent, 0x0102_0304));
        }

        /// Nothing a host can send makes it panic or go on for ever.
        #[test]
        fn any_octets_come_to_an_end(octets in prop::collection::vec(any::<u8>(), 0..1300), next in 0usize..6) {
            let mut octets = octets;
            if octets.len() > 48 {
                octets[0] = 0x60;
                let length = (octets.len() - 40) as u16;
                octets[4..6].copy_from_slice(&length.to_be_bytes());
                octets[6] = [0, 43, 44, 60, 17, 140][next];
            }
            let mut out = [0; MIN_MTU];
            if let Some(mut pieces) = Pieces::of(&octets, 1272, 1) {
                let mut count = 0;
                while pieces.write_next(&mut out).is_some() {
                    count += 1;
                }
                prop_assert!(count <= 200);
            }
        }
    }
}
