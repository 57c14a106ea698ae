//! The one thing the box does to TCP, where the operator wants it: a host that offers to take segments of a size that would
//! not fit with the payload header is understood to have offered less.
//!
//! The Maximum Segment Size of a SYN (RFC 9293 §3.7.1) is what the other end will send at most. Made smaller in both
//! directions, no segment ever needs a Packet Too Big (RFC 5533 §15.4). The checksum follows; it covers the identifiers,
//! which stay what they are.

use crate::wire::checksum::Adjustment;
use crate::wire::ipv6::{View, protocol};

/// Octets of a header without options.
const HEADER_LEN: usize = 20;
const FLAGS: usize = 13;
const SYN: u8 = 0x02;
const CHECKSUM: usize = 16;

/// Option kinds and the length of the one that counts (RFC 9293 §3.1, §3.2).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: usize = 4;
/// TCP-AO (RFC 5925 §2.2), which may cover the options.
const AUTHENTICATION: u8 = 29;

/// Octets of IPv6 and TCP header, which a segment size leaves out.
pub const HEADERS: usize = 60;

/// Makes the segment size that a SYN in `packet` offers at most `most`. True when it was larger.
pub fn clamp_mss(packet: &mut [u8], most: u16) -> bool {
    let Some((start, at)) = offered(packet) else { return false };
    // An option may start anywhere, and the checksum counts pairs: the pairs that the size touches are compared. Options
    // end on a multiple of four octets, so there are such pairs.
    let (first, octets) = if (at - start).is_multiple_of(2) { (at, 2) } else { (at - 1, 4) };
    let (Some(around), Some(sum)) = (packet.get(first..first + octets), pair(packet, start + CHECKSUM)) else {
        return false;
    };
    let mut changed = [0; 4];
    changed[..octets].copy_from_slice(around);
    let before = changed;
    let size = &mut changed[at - first..at - first + 2];
    if u16::from_be_bytes([size[0], size[1]]) <= most {
        return false;
    }
    size.copy_from_slice(&most.to_be_bytes());
    let sum = Adjustment::between(&before[..octets], &changed[..octets]).apply(sum);
    packet[first..first + octets].copy_from_slice(&changed[..octets]);
    packet[start + CHECKSUM..start + CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

fn pair(packet: &[u8], at: usize) -> Option<u16> {
    packet.get(at..)?.first_chunk().map(|octets| u16::from_be_bytes(*octets))
}

/// Where the TCP header of a packet starts that nothing keeps from being changed.
fn segment(packet: &[u8]) -> Option<usize> {
    let upper = View::new(packet).ok()?.upper_layer().ok()?;
    let is_tcp = upper.place.next_header == protocol::TCP && upper.first_fragment;
    // The Authentication Header covers all of it (RFC 4302 §3.3.3).
    (is_tcp && !upper.authenticated).then_some(upper.place.offset)
}

/// Where a SYN starts, and where the segment size stands that it offers. None where the options are authenticated.
fn offered(packet: &[u8]) -> Option<(usize, usize)> {
    let start = segment(packet)?;
    let header = packet.get(start..)?;
    if header.get(FLAGS)? & SYN == 0 {
        return None;
    }
    let end = usize::from(header.get(12)? >> 4) * 4;
    let options = header.get(HEADER_LEN..end)?;
    let (mut at, mut size) = (0, None);
    while let Some(&kind) = options.get(at) {
        match kind {
            END => break,
            NO_OPERATION => at += 1,
            _ => {
                let length = usize::from(*options.get(at + 1)?);
                if length < 2 || at + length > options.len() {
                    return None;
                }
                match kind {
                    AUTHENTICATION => return None,
                    MSS if length != MSS_LEN => return None,
                    MSS if size.is_none() => size = Some((start, start + HEADER_LEN + at + 2)),
                    _ => {}
                }
                at += length;
            }
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::checksum;
    use crate::wire::ipv6::Repr;

    /// A TCP packet with these flags and options, padded with "end", and a right checksum.
    fn packet(flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
        let mut segment = vec![0; HEADER_LEN];
        segment[..4].copy_from_slice(&[0x12, 0x34, 0, 80]);
        segment.extend(options);
        segment.resize(segment.len().next_multiple_of(4), END);
        (segment[12], segment[FLAGS]) = ((segment.len() as u8 / 4) << 4, flags);
        segment.extend(data);
        let (source, target) = ("fc00:a::1".parse().unwrap(), "fc00:b::1".parse().unwrap());
        let sum = checksum::upper_layer(source, target, protocol::TCP, &segment);
        segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
        let repr = Repr {
            source,
            target,
            next_header: protocol::TCP,
            payload_len: segment.len() as u16,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
        };
        [&repr.emit()[..], &segment].concat()
    }

    fn clamped(mut packet: Vec<u8>, most: u16) -> (bool, Vec<u8>) {
        (clamp_mss(&mut packet, most), packet)
    }

    #[test]
    fn a_larger_size_is_made_smaller_wherever_its_option_stands() {
        let size = [MSS, 4, 0x05, 0xa0];
        let scale = [NO_OPERATION, 3, 3, 7];
        for options in [
            size.to_vec(),
            [&[NO_OPERATION][..], &size].concat(),
            [&scale[..], &size].concat(),
            [&[4, 2][..], &[NO_OPERATION], &size, &scale].concat(),
        ] {
            for flags in [SYN, SYN | 0x10] {
                let at = options.windows(4).position(|four| four == size).unwrap();
                let mut expected = options.clone();
                expected[at + 2..at + 4].copy_from_slice(&1432u16.to_be_bytes());
                assert_eq!(clamped(packet(flags, &options, b""), 1432), (true, packet(flags, &expected, b"")));
                assert_eq!(clamped(packet(flags, &options, b"x"), 1432), (true, packet(flags, &expected, b"x")));
            }
        }
    }

    #[test]
    fn what_offers_no_larger_size_is_left_alone() {
        let fits = packet(SYN, &[MSS, 4, 0x05, 0x98], b"");
        assert_eq!(clamped(fits.clone(), 1432), (false, fits));
        for (flags, options) in [
            (0x10, &[MSS, 4, 0x05, 0xa0][..]),
            (SYN, &[]),
            (SYN, &[END, 0, 0, 0, MSS, 4, 0x05, 0xa0]),
            (SYN, &[MSS, 3, 0xff, 0xff]),
            (SYN, &[MSS, 0, 0xff, 0xff]),
            (SYN, &[NO_OPERATION, NO_OPERATION, NO_OPERATION, MSS]),
            (SYN, &[3, 200, 0, 0]),
        ] {
            let sent = packet(flags, options, b"");
            assert_eq!(clamped(sent.clone(), 100), (false, sent), "{flags:x} {options:?}");
        }
        let mut datagram = packet(SYN, &[MSS, 4, 0x05, 0xa0], b"");
        datagram[6] = protocol::UDP;
        assert_eq!(clamped(datagram.clone(), 100), (false, datagram));
    }

    // RFC 4302 §3.3.3, RFC 5925 §5.1
    #[test]
    fn what_is_authenticated_is_left_alone() {
        let sent = packet(SYN, &[MSS, 4, 0x05, 0xa0], b"");
        let mut guarded = sent[..40].to_vec();
        guarded[5] += 24;
        guarded[6] = protocol::AUTHENTICATION;
        guarded.extend([protocol::TCP, 4]);
        guarded.extend([7; 22]);
        guarded.extend(&sent[40..]);
        assert_eq!(View::new(&guarded).unwrap().upper_layer().map(|it| it.place.offset), Ok(64));
        assert_eq!(clamped(guarded.clone(), 100), (false, guarded));
        let option = [AUTHENTICATION, 8, 1, 1, 9, 9, 9, 9];
        for options in [[&option[..], &[MSS, 4, 0x05, 0xa0]].concat(), [&[MSS, 4, 0x05, 0xa0], &option[..]].concat()] {
            let sent = packet(SYN, &options, b"");
            assert_eq!(clamped(sent.clone(), 100), (false, sent));
        }
    }

    proptest! {
        /// The checksum stays right, and what is no SYN stays what it is, whatever the octets.
        #[test]
        fn a_right_checksum_stays_right(
            flags in any::<u8>(), options in prop::collection::vec(prop_oneof![
                Just(1u8), Just(2), Just(4), any::<u8>()], 0..40), most in any::<u16>(),
        ) {
            let sent = packet(flags, &options, b"data");
            let (changed, got) = clamped(sent.clone(), most);
            prop_assert_eq!(changed, got != sent);
            let view = View::new(&got).unwrap();
            prop_assert!(checksum::upper_layer_verifies(view.source(), view.target(), protocol::TCP, view.payload()));
        }
    }
}
