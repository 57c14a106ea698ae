//! Shim6 in UDP, for paths that drop what has next header 140 (docs/decisions: paths that drop extension headers).
//!
//! ```text
//! +-------------------------------+-------------------------------+
//! |          Source Port          |       Destination Port        |
//! +-------------------------------+-------------------------------+
//! |            Length             |           Checksum            |
//! +-------------------------------+-------------------------------+
//! |  Shim6 header, control message or payload header, and all that follows it
//! +- - - -
//! ```
//!
//! The UDP header stands where the Shim6 header stood, so [`wrap`] and [`unwrap`] are each other's inverse and nothing else
//! of the packet changes. Nothing here allocates.

use super::payload::{SpliceError, check, payload_len};
use super::{PROTOCOL, PayloadHeader};
use crate::wire::address::ContextTag;
use crate::wire::checksum;
use crate::wire::ipv6::{HEADER_LEN, Place, View, protocol};

/// Octets of the header.
pub const LEN: usize = 8;
/// The first of the ports that stand opposite to the box's own (RFC 6335 §6: dynamic ports).
pub const DYNAMIC: u16 = 0xc000;

/// The ports of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpPorts {
    /// Source.
    pub source: u16,
    /// Destination.
    pub target: u16,
}

impl UdpPorts {
    /// The ports of an answer.
    #[must_use]
    pub const fn swapped(self) -> UdpPorts {
        UdpPorts { source: self.target, target: self.source }
    }

    /// Whether these are ports of Shim6 in UDP where boxes use `port`: that at one end, and a dynamic one at the other.
    #[inline]
    pub const fn are_of(self, port: u16) -> bool {
        (self.target == port && self.source >= DYNAMIC) || (self.source == port && self.target >= DYNAMIC)
    }
}

/// What makes the ports of a context's packets: the same two in both directions, and others for other contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpFlow {
    /// The dynamic port.
    dynamic: u16,
    /// Whether it is ours.
    ours: bool,
}

impl UdpFlow {
    /// The flow of a context, seen from the side whose tag is `local`. Both sides know both tags.
    pub const fn of(local: ContextTag, peer: ContextTag) -> UdpFlow {
        UdpFlow { dynamic: dynamic(local.value() ^ peer.value()), ours: local.value() < peer.value() }
    }

    /// The flow of an exchange that we begin, in which the peer has no tag yet.
    pub const fn opening(local: ContextTag) -> UdpFlow {
        UdpFlow { dynamic: dynamic(local.value()), ours: true }
    }

    /// The ports of what we send, where boxes use `port`.
    pub const fn ports(self, port: u16) -> UdpPorts {
        let ports = UdpPorts { source: self.dynamic, target: port };
        if self.ours { ports } else { ports.swapped() }
    }
}

/// All bits of a tag have their say, since some of them are few contexts' own.
const fn dynamic(tags: u64) -> u16 {
    DYNAMIC | (tags ^ tags >> 14 ^ tags >> 28 ^ tags >> 42) as u16
}

/// Shim6 found in UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUdp<'a> {
    /// Where the UDP header stands.
    pub place: Place,
    /// Its ports.
    pub ports: UdpPorts,
    /// The Shim6 header and what follows it.
    pub shim: &'a [u8],
}

/// Why a datagram with the right ports is not Shim6 in UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UdpError {
    /// Its Length is not what is there, or too short for a Shim6 header.
    #[error("UDP length that is not the packet's")]
    Length,
    /// Its checksum is wrong, or zero (RFC 8200 §8.1).
    #[error("wrong UDP checksum")]
    Checksum,
}

/// The datagram with Shim6's ports in a packet, where boxes use `port`; none if there is no such datagram. The addresses have
/// to be the final ones: a packet under way with a Routing header has none.
///
/// # Errors
/// [`UdpError`] when it is one by its ports, and should be dropped.
pub fn find<'a>(packet: &View<'a>, port: u16) -> Option<Result<InUdp<'a>, UdpError>> {
    let (place, ports) = ports_of(packet, port)?;
    let datagram = packet.from_offset(place.offset);
    let (header, shim) = datagram.split_first_chunk::<LEN>()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if length != datagram.len() || shim.len() < PayloadHeader::LEN {
        return Some(Err(UdpError::Length));
    }
    let right = checksum::upper_layer_verifies(packet.source(), packet.target(), protocol::UDP, datagram);
    if !right || header[6..] == [0, 0] {
        return Some(Err(UdpError::Checksum));
    }
    Some(Ok(InUdp { place, ports, shim }))
}

/// Where the UDP header of Shim6 stands, and its ports, in a packet of which the end may be missing, as in a quote.
pub fn ports_of(packet: &View<'_>, port: u16) -> Option<(Place, UdpPorts)> {
    let outer = packet.after_outer().ok().filter(|outer| !outer.under_way)?;
    let header: &[u8; LEN] = packet.from_offset(outer.place.offset).first_chunk()?;
    let ports = UdpPorts {
        source: u16::from_be_bytes([header[0], header[1]]),
        target: u16::from_be_bytes([header[2], header[3]]),
    };
    (outer.place.next_header == protocol::UDP && ports.are_of(port)).then_some((outer.place, ports))
}

/// Puts a UDP header in front of the Shim6 header at `place`. `buffer` holds eight octets to spare and then the packet, with
/// the addresses it leaves with; afterwards the packet starts at its first octet.
///
/// # Errors
/// [`SpliceError`], with `buffer` untouched.
pub fn wrap(buffer: &mut [u8], place: Place, ports: UdpPorts) -> Result<(), SpliceError> {
    check(buffer.get(LEN..), place)?;
    if View::new(&buffer[LEN..]).is_err() {
        return Err(SpliceError::Place);
    }
    let length = payload_len(buffer, LEN).checked_add(LEN as u16).ok_or(SpliceError::Length)?;
    // What the packet says, not what the buffer holds: a link may have padded it.
    let before = u16::try_from(place.offset - HEADER_LEN).map_err(|_| SpliceError::Place)?;
    let datagram = length.checked_sub(before).ok_or(SpliceError::Place)?;
    buffer.copy_within(LEN..LEN + place.offset, 0);
    buffer[place.predecessor] = protocol::UDP;
    buffer[4..6].copy_from_slice(&length.to_be_bytes());
    let [a, b] = ports.source.to_be_bytes();
    let [c, d] = ports.target.to_be_bytes();
    let [e, f] = datagram.to_be_bytes();
    buffer[place.offset..place.offset + LEN].copy_from_slice(&[a, b, c, d, e, f, 0, 0]);
    let sum = match View::new(buffer) {
        Ok(packet) => {
            let octets = packet.from_offset(place.offset);
            checksum::upper_layer(packet.source(), packet.target(), protocol::UDP, octets)
        }
        Err(_) => return Err(SpliceError::Place),
    };
    buffer[place.offset + 6..place.offset + LEN].copy_from_slice(&checksum::for_udp(sum).to_be_bytes());
    Ok(())
}

/// Takes the UDP header at `place` out of `packet`: what follows it is a Shim6 header again. Afterwards the first eight octets
/// are of no use and the packet starts behind them.
///
/// # Errors
/// [`SpliceError`], with `packet` untouched.
pub fn unwrap(packet: &mut [u8], place: Place) -> Result<(), SpliceError> {
    check(Some(packet), place)?;
    if packet.len() - place.offset < LEN {
        return Err(SpliceError::Place);
    }
    let length = payload_len(packet, 0).checked_sub(LEN as u16).ok_or(SpliceError::Length)?;
    packet[place.predecessor] = PROTOCOL;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet.copy_within(0..place.offset, LEN);
    Ok(())
}

#[cfg(test)]
#[path = "tests/udp.rs"]
mod tests;
