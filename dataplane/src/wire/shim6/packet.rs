//! Whole packets: an IPv6 header with a control message behind it, and what goes into an Error about one.

use super::emit::EmitError;
use super::view::ParseError;
use super::{Addresses, ErrorCode, ErrorMessage, Message, PROTOCOL};
use crate::wire::ipv6::{self, ChainError, HEADER_LEN, MIN_MTU, Malformed};

/// Octets of the longest quote in an Error: the packet stays within 1280 and the header a multiple of eight (§5.14).
pub const QUOTE_MAX: usize = MIN_MTU - HEADER_LEN - 8;

/// Why a packet is not a control message that can be acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Not an IPv6 packet.
    #[error(transparent)]
    Ipv6(#[from] Malformed),
    /// Its extension headers cannot be followed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// No Shim6 header, or one that is not for us yet because a Routing header has segments left.
    #[error("no Shim6 header to act on")]
    NotShim6,
    /// Source or destination is multicast or unspecified (R5533-294).
    #[error("multicast or unspecified address")]
    Address,
    /// The Shim6 header is at fault.
    #[error("{error}")]
    Message {
        /// How.
        error: ParseError,
        /// Offset of the Shim6 header from the start of the IPv6 header.
        offset: usize,
    },
}

impl PacketError {
    /// The Error message this calls for, if any: its code, and its pointer from the start of the IPv6 header.
    pub const fn answer(self) -> Option<(ErrorCode, usize)> {
        let PacketError::Message { error, offset } = self else { return None };
        match error.answer() {
            Some((code, pointer)) => Some((code, offset + pointer)),
            None => None,
        }
    }
}

/// A control message and the packet around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPacket {
    /// Addresses of the IPv6 header.
    pub addresses: Addresses,
    /// What it says.
    pub message: Message,
    /// Offset of the Shim6 header from the start of the IPv6 header, to be added to the offsets in `message` for the
    /// pointer of an Error.
    pub offset: usize,
}

impl ControlPacket {
    /// The control message in `packet`, which starts with its IPv6 header. These are the checks of RFC 5533 §12.3.
    ///
    /// # Errors
    /// One of [`PacketError`]; [`PacketError::answer`] tells which call for an Error message.
    pub fn parse(packet: &[u8]) -> Result<ControlPacket, PacketError> {
        let view = ipv6::View::new(packet)?;
        let shim = view.shim_header()?.filter(|shim| !shim.under_way).ok_or(PacketError::NotShim6)?;
        let addresses = Addresses { source: view.source(), target: view.target() };
        if !addresses.are_unicast() {
            return Err(PacketError::Address);
        }
        let offset = shim.place.offset;
        match Message::parse(view.from_offset(offset)) {
            Ok(message) => Ok(ControlPacket { addresses, message, offset }),
            Err(error) => Err(PacketError::Message { error, offset }),
        }
    }
}

/// A whole IPv6 packet with `message` and nothing else.
///
/// # Errors
/// [`EmitError`]; [`EmitError::PacketTooLong`] when it would exceed 1280 octets (R5533-028).
pub fn emit_packet(addresses: Addresses, hop_limit: u8, message: &Message) -> Result<Vec<u8>, EmitError> {
    let header = message.emit()?;
    let total = HEADER_LEN + header.len();
    if total > MIN_MTU {
        return Err(EmitError::PacketTooLong(total));
    }
    let ipv6 = ipv6::Repr {
        source: addresses.source,
        target: addresses.target,
        next_header: PROTOCOL,
        payload_len: header.len() as u16,
        hop_limit,
        traffic_class: 0,
        flow_label: 0,
    };
    Ok([&ipv6.emit()[..], &header].concat())
}

impl Addresses {
    /// The addresses of an answer.
    #[must_use]
    pub fn swapped(self) -> Addresses {
        Addresses { source: self.target, target: self.source }
    }

    /// Neither is multicast or unspecified (RFC 5533 §12.3).
    pub fn are_unicast(&self) -> bool {
        [self.source, self.target].iter().all(|address| !address.is_multicast() && !address.is_unspecified())
    }
}

impl ErrorMessage {
    /// An Error about `packet`, which starts with its IPv6 header; `pointer` counts from there. Quotes as much as the
    /// Error may carry; zeros bring a short packet to the next multiple of eight (R5533-089, -090).
    pub fn for_packet(code: ErrorCode, pointer: usize, packet: &[u8]) -> ErrorMessage {
        let mut quote = packet[..packet.len().min(QUOTE_MAX)].to_vec();
        quote.resize(quote.len().next_multiple_of(8).max(8), 0);
        // A pointer past 2^16 octets is past every quote, wherever it is said to be.
        ErrorMessage { code, pointer: u16::try_from(pointer).unwrap_or(u16::MAX), packet: quote }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::address::ContextTag;
    use crate::wire::shim6::{MessageType, Options};

    fn addresses() -> Addresses {
        Addresses { source: "2001:db8:1::a".parse().unwrap(), target: "2001:db8:2::b".parse().unwrap() }
    }

    fn keepalive() -> Message {
        Message::Keepalive { receiver_tag: ContextTag::truncate(77), options: Options::NONE }
    }

    fn with_validator(octets: usize) -> Message {
        let options = Options { validator: Some(vec![9; octets]), ..Options::NONE };
        Message::R1 { initiator_nonce: 1, responder_nonce: 2, options }
    }

    // R5533-027
    #[test]
    fn a_packet_is_read_as_it_was_written() {
        let packet = emit_packet(addresses(), 64, &keepalive()).unwrap();
        assert_eq!((packet.len(), packet[6], packet[7]), (56, 140, 64));
        let read = ControlPacket::parse(&packet).unwrap();
        assert_eq!(read, ControlPacket { addresses: addresses(), message: keepalive(), offset: 40 });
        assert_eq!(addresses().swapped().swapped(), addresses());
    }

    // R5533-028
    #[test]
    fn a_control_packet_has_at_most_1280_octets() {
        assert_eq!(emit_packet(addresses(), 64, &with_validator(1220)).unwrap().len(), 1280);
        assert_eq!(emit_packet(addresses(), 64, &with_validator(1221)), Err(EmitError::PacketTooLong(1288)));
        assert_eq!(emit_packet(addresses(), 64, &with_validator(2029)), Err(EmitError::HeaderTooLong(2056)));
    }

    // R5533-294
    #[test]
    fn multicast_and_unspecified_addresses_are_refused() {
        for bad in ["::", "ff02::1"] {
            let bad = bad.parse().unwrap();
            for addresses in [Addresses { source: bad, ..addresses() }, Addresses { target: bad, ..addresses() }] {
                let packet = emit_packet(addresses, 64, &keepalive()).unwrap();
                assert_eq!(ControlPacket::parse(&packet), Err(PacketError::Address));
            }
        }
    }

    // R5533-089, R5533-295
    #[test]
    fn a_pointer_counts_from_the_ipv6_header() {
        let mut packet = emit_packet(addresses(), 64, &keepalive()).unwrap();
        packet[42] = 100;
        packet[44..46].fill(0);
        let checksum = crate::wire::checksum::of(&packet[40..]);
        packet[44..46].copy_from_slice(&checksum.to_be_bytes());
        // A Hop-by-Hop header in front moves everything by eight.
        packet.splice(40..40, [140, 0, 1, 4, 0, 0, 0, 0]);
        packet[5] += 8;
        packet[6] = 0;
        let error = ControlPacket::parse(&packet).unwrap_err();
        assert_eq!(
            error,
            PacketError::Message { error: ParseError::UnknownType { code: 100, pointer: 2 }, offset: 48 }
        );
        let (code, pointer) = error.answer().unwrap();
        assert_eq!((code, pointer, packet[pointer]), (ErrorCode::UnknownMessage, 50, 100));
        let answer = Message::Error(ErrorMessage::for_packet(code, pointer, &packet));
        let read = ControlPacket::parse(&emit_packet(addresses().swapped(), 64, &answer).unwrap()).unwrap();
        assert_eq!(read.message, answer);
    }

    #[test]
    fn what_is_not_shim6_is_told_apart() {
        let good = emit_packet(addresses(), 64, &keepalive()).unwrap();
        assert_eq!(ControlPacket::parse(&good[..55]), Err(PacketError::Ipv6(Malformed::Truncated)));
        let mut tcp = good.clone();
        tcp[6] = 6;
        assert_eq!(ControlPacket::parse(&tcp), Err(PacketError::NotShim6));
        assert_eq!(PacketError::NotShim6.answer(), None);
        let mut wrong = good.clone();
        wrong[50] ^= 1;
        let error = PacketError::Message { error: ParseError::Checksum, offset: 40 };
        assert_eq!(ControlPacket::parse(&wrong), Err(error));
        assert_eq!(error.answer(), None);
        // R5533-293: the header says one unit more than the packet holds.
        let mut long = good.clone();
        long[41] += 1;
        let error = PacketError::Message { error: ParseError::Truncated, offset: 40 };
        assert_eq!(ControlPacket::parse(&long), Err(error));
        let mut under_way = good.clone();
        under_way.splice(40..40, [140, 0, 0, 1, 0, 0, 0, 0]);
        under_way[5] += 8;
        under_way[6] = 43;
        assert_eq!(ControlPacket::parse(&under_way), Err(PacketError::NotShim6));
    }

    // R5533-035: the checksum covers neither addresses nor what follows.
    #[test]
    fn the_checksum_covers_the_shim6_header_alone() {
        let mut packet = emit_packet(addresses(), 64, &keepalive()).unwrap();
        packet[15] ^= 0xff;
        packet[31] ^= 0xff;
        packet.extend([1, 2, 3]);
        packet[5] += 3;
        let read = ControlPacket::parse(&packet).unwrap();
        assert_eq!(read.message, keepalive());
    }

    // R5533-090
    #[test]
    fn an_error_quotes_as_much_as_fits() {
        let mut octets = vec![0x55; 3000];
        octets[0] = 0x60;
        for (len, quoted) in [(0, 8), (5, 8), (56, 56), (57, 64), (1232, 1232), (1233, 1232), (3000, 1232)] {
            let error = ErrorMessage::for_packet(ErrorCode::CriticalOption, 70_000, &octets[..len]);
            assert_eq!((error.packet.len(), error.pointer), (quoted, u16::MAX));
            let kept = len.min(quoted);
            assert_eq!(error.packet[..kept], octets[..kept]);
            assert!(error.packet[kept..].iter().all(|octet| *octet == 0));
            let packet = emit_packet(addresses(), 64, &Message::Error(error.clone())).unwrap();
            assert_eq!(packet.len(), 48 + quoted);
            assert_eq!(ControlPacket::parse(&packet).unwrap().message, Message::Error(error));
        }
        assert_eq!(MessageType::Error.fixed_len(), 16);
    }
}
