//! ICMPv6 errors of the box's own as Ethernet frames, built without allocation into room the caller has.

use crate::snapshot::PortView;
use crate::translate::IcmpError;
use crate::wire::ethernet::{self, EtherType};
use crate::wire::icmpv6::{self, Error};
use crate::wire::ipv6;

/// Room for the largest error: an Ethernet header and the minimum IPv6 MTU (RFC 4443 §2.4 (c)).
pub const ROOM: usize = ethernet::HEADER_LEN + ipv6::MIN_MTU;

const HOP_LIMIT: u8 = 64;

/// Builds the answer to the sender of `frame` at the start of `room`; its length, or none if RFC 4443 §2.4 (e) forbids to
/// answer.
pub fn build(frame: &[u8], error: IcmpError, port: &PortView, room: &mut [u8; ROOM]) -> Option<usize> {
    let asked = ethernet::View::new(frame).ok()?;
    let packet = ipv6::View::new(asked.payload()).ok()?;
    let error = match error {
        IcmpError::AddressUnreachable => Error::DestinationUnreachable { code: icmpv6::unreachable::ADDRESS },
        IcmpError::SourcePolicy => Error::DestinationUnreachable { code: icmpv6::unreachable::SOURCE_POLICY },
        IcmpError::NoRoute => Error::DestinationUnreachable { code: icmpv6::unreachable::NO_ROUTE },
        IcmpError::ParameterProblem(pointer) => Error::ParameterProblem { code: icmpv6::parameter::FIELD, pointer },
        IcmpError::PacketTooBig(mtu) => Error::PacketTooBig { mtu },
        IcmpError::TimeExceeded => Error::TimeExceeded { code: icmpv6::exceeded::HOP_LIMIT },
    };
    icmpv6::may_answer(error, &packet, asked.target().is_multicast()).ok()?;
    ethernet::ViewMut::new(room).ok()?.set(asked.source(), port.mac, EtherType::IPV6);
    let (_, out) = room.split_last_chunk_mut::<{ ipv6::MIN_MTU }>()?;
    let written = icmpv6::emit_error(out, error, port.icmp_source, HOP_LIMIT, &packet).len();
    Some(ethernet::HEADER_LEN + written)
}
