//! UDP over IPv6 for the box's own services (RFC 768, RFC 8200 §8.1).
//!
//! Services of which every host of a site may ask at once do without sockets: a datagram goes by its ports to the machine
//! that wants it. The checksum is checked here, and made here.

use std::net::{Ipv6Addr, SocketAddrV6};

use dataplane::wire::checksum;
use dataplane::wire::ipv6::{self, protocol};

/// Octets of a UDP header.
const HEADER_LEN: usize = 8;

/// One UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub source: (Ipv6Addr, u16),
    /// To whom.
    pub target: (Ipv6Addr, u16),
    /// What it says.
    pub payload: Vec<u8>,
}

/// Why a packet carries no datagram that anyone may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// It is no UDP, or a piece of some: the host stack may say so to the sender.
    #[error("no UDP datagram")]
    Other,
    /// Its lengths contradict each other, or it names no source that can be answered.
    #[error("malformed UDP datagram")]
    Malformed,
    /// Its checksum is wrong, or missing, which IPv6 forbids.
    #[error("wrong UDP checksum")]
    Checksum,
}

impl Datagram {
    /// The datagram in an IPv6 packet.
    ///
    /// # Errors
    /// [`DatagramError::Other`] if something else is in it; the other errors if it has to be dropped.
    pub fn parse(packet: &ipv6::View<'_>) -> Result<Datagram, DatagramError> {
        let upper = packet.upper_layer().map_err(|_| DatagramError::Other)?;
        let whole = upper.fragment.is_none() && upper.shim.is_none();
        if upper.place.next_header != protocol::UDP || !whole {
            return Err(DatagramError::Other);
        }
        let segment = packet.from_offset(upper.place.offset);
        let Some((header, _)) = segment.split_first_chunk::<HEADER_LEN>() else {
            return Err(DatagramError::Malformed);
        };
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let length = usize::from(word(4));
        let (source, target) = (packet.source(), packet.target());
        let answerable = word(0) != 0 && !source.is_multicast() && !source.is_unspecified();
        let Some(segment) = segment.get(..length).filter(|segment| segment.len() >= HEADER_LEN && answerable) else {
            return Err(DatagramError::Malformed);
        };
        if word(6) == 0 || !checksum::upper_layer_verifies(source, target, protocol::UDP, segment) {
            return Err(DatagramError::Checksum);
        }
        let payload = segment[HEADER_LEN..].to_vec();
        Ok(Datagram { source: (source, word(0)), target: (target, word(2)), payload })
    }

    /// The IPv6 packet, or none if it would be longer than its fields can say.
    pub fn emit(&self, hop_limit: u8) -> Option<Vec<u8>> {
        let length = u16::try_from(HEADER_LEN + self.payload.len()).ok()?;
        let header = ipv6::Repr {
            source: self.source.0,
            target: self.target.0,
            next_header: protocol::UDP,
            payload_len: length,
            hop_limit,
            traffic_class: 0,
            flow_label: 0,
        };
        let mut packet = Vec::with_capacity(ipv6::HEADER_LEN + usize::from(length));
        packet.extend_from_slice(&header.emit());
        for word in [self.source.1, self.target.1, length, 0] {
            packet.extend_from_slice(&word.to_be_bytes());
        }
        packet.extend_from_slice(&self.payload);
        let (source, target) = (self.source.0, self.target.0);
        let sum = checksum::upper_layer(source, target, protocol::UDP, &packet[ipv6::HEADER_LEN..]);
        packet[ipv6::HEADER_LEN + 6..][..2].copy_from_slice(&checksum::for_udp(sum).to_be_bytes());
        Some(packet)
    }

    /// The answer to it, from where it went to where it came from; `own` is the source if it went to many.
    #[must_use]
    pub fn answer(&self, own: Ipv6Addr, payload: Vec<u8>) -> Datagram {
        let from = if self.target.0.is_multicast() { own } else { self.target.0 };
        Datagram { source: (from, self.target.1), target: self.source, payload }
    }

    /// Who sent it, for a line in the log.
    pub fn sender(&self) -> SocketAddrV6 {
        SocketAddrV6::new(self.source.0, self.source.1, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn datagram(payload: &[u8]) -> Datagram {
        let address = |text: &str| text.parse().unwrap();
        Datagram { source: (address("fe80::5"), 546), target: (address("ff02::1:2"), 547), payload: payload.to_vec() }
    }

    fn parse(packet: &[u8]) -> Result<Datagram, DatagramError> {
        Datagram::parse(&ipv6::View::new(packet).unwrap())
    }

    #[test]
    fn the_answer_to_what_went_to_many_comes_from_the_box_itself() {
        let own: Ipv6Addr = "fe80::1".parse().unwrap();
        let asked = datagram(b"?");
        let answer = asked.answer(own, b"!".to_vec());
        assert_eq!((answer.source, answer.target), ((own, 547), asked.source));
        let direct = Datagram { target: ("fc00:a::1".parse().unwrap(), 53), ..asked };
        assert_eq!(direct.answer(own, Vec::new()).source, direct.target);
    }

    #[test]
    fn a_datagram_without_checksum_or_sender_is_no_datagram() {
        // RFC 8200 §8.1: IPv6 receivers must discard UDP packets with a zero checksum.
        let good = datagram(b"hello").emit(1).unwrap();
        let mut none = good.clone();
        none[46..48].fill(0);
        assert_eq!(parse(&none), Err(DatagramError::Checksum));
        let mut flipped = good.clone();
        flipped[50] ^= 1;
        assert_eq!(parse(&flipped), Err(DatagramError::Checksum));
        for source in ["::", "ff02::1"] {
            let nobody = Datagram { source: (source.parse().unwrap(), 546), ..datagram(b"x") };
            assert_eq!(parse(&nobody.emit(1).unwrap()), Err(DatagramError::Malformed));
        }
        let mut long = good.clone();
        long[45] += 1;
        assert_eq!(parse(&long), Err(DatagramError::Malformed));
        let mut short = good;
        short[45] = 7;
        assert_eq!(parse(&short), Err(DatagramError::Malformed));
    }

    #[test]
    fn what_is_no_whole_datagram_is_left_to_the_stack() {
        let mut tcp = datagram(b"hello").emit(1).unwrap();
        tcp[6] = protocol::TCP;
        assert_eq!(parse(&tcp), Err(DatagramError::Other));
        let inner = datagram(b"hello").emit(1).unwrap();
        let piece = [&[protocol::UDP, 0, 0, 1, 0, 0, 0, 9][..], &inner[40..]].concat();
        let mut packet = inner[..40].to_vec();
        packet[5] += 8;
        packet[6] = protocol::FRAGMENT;
        packet.extend_from_slice(&piece);
        assert_eq!(parse(&packet), Err(DatagramError::Other));
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed(payload in prop::collection::vec(any::<u8>(), 0..1500)) {
            let datagram = datagram(&payload);
            prop_assert_eq!(parse(&datagram.emit(64).unwrap()), Ok(datagram));
        }

        #[test]
        fn no_packet_panics(octets in prop::collection::vec(any::<u8>(), 0..120)) {
            let mut packet = vec![0x60, 0, 0, 0, 0, octets.len() as u8, 17, 1];
            packet.resize(40, 0xfe);
            packet.extend_from_slice(&octets);
            let _ = parse(&packet);
        }
    }
}
