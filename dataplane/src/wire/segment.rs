//! What a box that is no TCP needs of a segment (RFC 9293 §3.1): whose it is, what it carries, what it acknowledges.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |          Source Port          |       Destination Port        |
//! +-------------------------------+-------------------------------+
//! |                        Sequence Number                        |
//! +---------------------------------------------------------------+
//! |                    Acknowledgment Number                      |
//! +-------+-------+-+-+-+-+-+-+-+-+-------------------------------+
//! | Offset| Rsrvd |C|E|U|A|P|R|S|F|            Window             |
//! +-------+-------+-+-+-+-+-+-+-+-+-------------------------------+
//! ```

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A segment, as far as a box looks into it. Nothing is verified but that the header is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Source and destination port.
    pub ports: (u16, u16),
    /// Of its first octet.
    pub sequence: u32,
    /// Sequence numbers it takes up: its data, and one each for SYN and FIN. A pure acknowledgement takes up none.
    pub occupies: u32,
    /// The next octet its sender expects, if it says so.
    pub acknowledges: Option<u32>,
    /// It ends the connection at once.
    pub reset: bool,
}

impl Segment {
    /// The segment in `octets`: the rest of a packet from the TCP header on. None if the header is not whole.
    pub fn read(octets: &[u8]) -> Option<Segment> {
        let header: &[u8; HEADER_LEN] = octets.first_chunk()?;
        let two = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let four = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = usize::from(header[12] >> 4) * 4;
        let data = octets.len().checked_sub(length).filter(|_| length >= HEADER_LEN)?;
        let flags = header[13];
        let marks = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        Some(Segment {
            ports: (two(0), two(2)),
            sequence: four(4),
            occupies: (data as u32).wrapping_add(marks),
            acknowledges: (flags & ACK != 0).then(|| four(8)),
            reset: flags & RST != 0,
        })
    }

    /// The first sequence number after it.
    pub fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.occupies)
    }
}

/// Whether sequence number `a` is `b` or comes after it, by less than half of the circle (RFC 9293 §3.4).
pub fn reaches(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 >= 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(flags: u8, words: u8, length: usize) -> Vec<u8> {
        let mut octets = vec![0; length];
        octets[..12].copy_from_slice(&[0x12, 0x34, 0, 80, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 9]);
        (octets[12], octets[13]) = (words << 4, flags);
        octets
    }

    #[test]
    fn a_segment_is_read_and_takes_up_what_it_carries() {
        let data = Segment::read(&octets(ACK, 8, 32 + 5)).unwrap();
        assert_eq!((data.ports, data.sequence), ((0x1234, 80), 0xffff_fffe));
        assert_eq!((data.occupies, data.end(), data.acknowledges, data.reset), (5, 3, Some(9), false));
        assert_eq!(Segment::read(&octets(SYN, 5, 20)).map(|it| (it.occupies, it.acknowledges)), Some((1, None)));
        assert_eq!(Segment::read(&octets(FIN | ACK, 5, 21)).map(|it| it.occupies), Some(2));
        assert_eq!(Segment::read(&octets(ACK, 5, 20)).map(|it| it.occupies), Some(0));
        assert!(Segment::read(&octets(RST, 5, 20)).unwrap().reset);
    }

    #[test]
    fn a_header_that_is_not_whole_is_no_segment() {
        assert_eq!(Segment::read(&octets(ACK, 5, 20)[..19]), None);
        assert_eq!(Segment::read(&octets(ACK, 6, 23)), None, "options cut off");
        assert_eq!(Segment::read(&octets(ACK, 4, 40)), None, "shorter than a header");
    }

    #[test]
    fn sequence_numbers_go_round() {
        assert!(reaches(7, 7) && reaches(3, 0xffff_fffe) && !reaches(0xffff_fffe, 3));
    }
}
