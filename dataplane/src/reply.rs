//! ICMPv6 errors of the box's own, built without allocation into room the caller has (RFC 4443 §2.4, §3).

use crate::snapshot::PortView;
use crate::translate::IcmpError;
use crate::wire::checksum;
use crate::wire::ethernet::{self, EtherType};
use crate::wire::ipv6::{self, protocol};

/// Room for the largest error: an Ethernet header and the minimum IPv6 MTU (RFC 4443 §2.4 (c)).
pub const ROOM: usize = ethernet::HEADER_LEN + ipv6::MIN_MTU;

const ICMP_HEADER: usize = 8;
const QUOTE_AT: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + ICMP_HEADER;

/// Builds the answer to the sender of `frame` at the start of `room`; its length, or none if RFC 4443 §2.4 (e) forbids to
/// answer.
pub fn build(frame: &[u8], error: IcmpError, port: &PortView, room: &mut [u8; ROOM]) -> Option<usize> {
    let asked = ethernet::View::new(frame).ok()?;
    let packet = ipv6::View::new(asked.payload()).ok()?;
    if !may_answer(&asked, &packet) {
        return None;
    }
    let invoking = asked.payload().get(..packet.total_len())?;
    let quoted = invoking.len().min(ROOM - QUOTE_AT);
    let (kind, code, word) = match error {
        IcmpError::AddressUnreachable => (1, 3, 0),
        IcmpError::PacketTooBig(mtu) => (2, 0, mtu),
        IcmpError::TimeExceeded => (3, 0, 0),
    };
    let length = QUOTE_AT + quoted;
    let icmp_len = (ICMP_HEADER + quoted) as u16;
    let room = room.get_mut(..length)?;
    ethernet::ViewMut::new(room).ok()?.set(asked.source(), port.mac, EtherType::IPV6);

    let (header, icmp) = room.get_mut(ethernet::HEADER_LEN..)?.split_at_mut_checked(ipv6::HEADER_LEN)?;
    let (source, target) = (port.icmp_source, packet.source());
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, protocol::ICMPV6, 64]);
    header[4..6].copy_from_slice(&icmp_len.to_be_bytes());
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&target.octets());

    icmp[..4].copy_from_slice(&[kind, code, 0, 0]);
    icmp[4..8].copy_from_slice(&word.to_be_bytes());
    icmp[ICMP_HEADER..].copy_from_slice(&invoking[..quoted]);
    let sum = checksum::upper_layer(source, target, protocol::ICMPV6, icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(length)
}

/// RFC 4443 §2.4 (e): never to an ICMPv6 error or redirect, never when the packet was for many or from nobody in
/// particular. Only the first fragment can show what it carries; later ones are not answered.
fn may_answer(frame: &ethernet::View<'_>, packet: &ipv6::View<'_>) -> bool {
    let (source, target) = (packet.source(), packet.target());
    if frame.target().is_multicast() || target.is_multicast() || source.is_multicast() || source.is_unspecified() {
        return false;
    }
    match packet.upper_layer() {
        Err(_) => false,
        Ok(upper) if !upper.first_fragment => false,
        Ok(upper) if upper.place.next_header == protocol::ICMPV6 => {
            let kind = packet.from_offset(upper.place.offset).first().copied();
            kind.is_some_and(|kind| kind >= 128 && kind != 137)
        }
        Ok(_) => true,
    }
}
