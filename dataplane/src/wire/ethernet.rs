//! Ethernet II: two addresses and the kind of what follows.
//!
//! ```text
//! +-------------------+-------------------+-----------+----
//! | target (6 octets) | source (6 octets) | type (2)  | payload
//! +-------------------+-------------------+-----------+----
//! ```
//!
//! A view that exists has its fourteen octets, so its accessors cannot fail.

use std::fmt;
use std::net::Ipv6Addr;

/// Octets of the header.
pub const HEADER_LEN: usize = 14;

/// The kind of what follows the header, in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv6 (RFC 2464 §3).
    pub const IPV6: EtherType = EtherType(0x86dd);
}

/// A link-layer address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everyone on the link.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Where packets to the IPv6 multicast address `group` are sent: 33:33 and its last four octets (RFC 2464 §7).
    pub const fn for_multicast(group: Ipv6Addr) -> Mac {
        let [.., a, b, c, d] = group.octets();
        Mac([0x33, 0x33, a, b, c, d])
    }

    /// Addressed to more than one station; the broadcast address is one of these.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// A frame shorter than its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame shorter than an Ethernet header")]
pub struct Runt;

/// A frame, split into header and payload.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> View<'a> {
    /// A view of `frame`.
    ///
    /// # Errors
    /// [`Runt`] when it has fewer than fourteen octets.
    #[inline]
    pub fn new(frame: &'a [u8]) -> Result<View<'a>, Runt> {
        let (header, payload) = frame.split_first_chunk().ok_or(Runt)?;
        Ok(View { header, payload })
    }

    /// Whom the frame is for.
    #[inline]
    pub fn target(&self) -> Mac {
        let [a, b, c, d, e, f, ..] = *self.header;
        Mac([a, b, c, d, e, f])
    }

    /// Who sent it.
    #[inline]
    pub fn source(&self) -> Mac {
        let [_, _, _, _, _, _, a, b, c, d, e, f, _, _] = *self.header;
        Mac([a, b, c, d, e, f])
    }

    /// What follows.
    #[inline]
    pub fn ether_type(&self) -> EtherType {
        EtherType(u16::from_be_bytes([self.header[12], self.header[13]]))
    }

    /// What follows the header, link padding included.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// A frame whose header may be written.
#[derive(Debug)]
pub struct ViewMut<'a> {
    header: &'a mut [u8; HEADER_LEN],
    payload: &'a mut [u8],
}

impl<'a> ViewMut<'a> {
    /// A writable view of `frame`.
    ///
    /// # Errors
    /// [`Runt`] when it has fewer than fourteen octets.
    #[inline]
    pub fn new(frame: &'a mut [u8]) -> Result<ViewMut<'a>, Runt> {
        let (header, payload) = frame.split_first_chunk_mut().ok_or(Runt)?;
        Ok(ViewMut { header, payload })
    }

    /// The same frame, to read.
    #[inline]
    pub fn view(&self) -> View<'_> {
        View { header: self.header, payload: self.payload }
    }

    /// Addresses the frame.
    #[inline]
    pub fn set_target(&mut self, mac: Mac) {
        self.header[..6].copy_from_slice(&mac.0);
    }

    /// Says who sends it.
    #[inline]
    pub fn set_source(&mut self, mac: Mac) {
        self.header[6..12].copy_from_slice(&mac.0);
    }

    /// Says what follows.
    #[inline]
    pub fn set_ether_type(&mut self, ether_type: EtherType) {
        self.header[12..].copy_from_slice(&ether_type.0.to_be_bytes());
    }

    /// Writes the whole header.
    #[inline]
    pub fn set(&mut self, target: Mac, source: Mac, ether_type: EtherType) {
        self.set_target(target);
        self.set_source(source);
        self.set_ether_type(ether_type);
    }

    /// What follows the header.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: [u8; 16] = [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 0x86, 0xdd, 0x60, 0];

    #[test]
    fn reads_what_is_there() {
        let view = View::new(&FRAME).unwrap();
        assert_eq!(view.target(), Mac([0x33, 0x33, 0, 0, 0, 1]));
        assert_eq!(view.source(), Mac([2, 0, 0, 0, 0, 7]));
        assert_eq!(view.ether_type(), EtherType::IPV6);
        assert_eq!(view.payload(), [0x60, 0]);
        assert!(view.target().is_multicast() && !view.source().is_multicast() && Mac::BROADCAST.is_multicast());
    }

    #[test]
    fn writes_what_is_read() {
        let mut frame = [0; 16];
        let mut view = ViewMut::new(&mut frame).unwrap();
        view.set(Mac([0x33, 0x33, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 7]), EtherType::IPV6);
        view.payload_mut()[0] = 0x60;
        assert_eq!(view.view().source(), Mac([2, 0, 0, 0, 0, 7]));
        assert_eq!(frame, FRAME);
    }

    #[test]
    fn thirteen_octets_are_no_frame() {
        assert_eq!(View::new(&FRAME[..13]).unwrap_err(), Runt);
        assert!(View::new(&FRAME[..14]).unwrap().payload().is_empty());
        assert_eq!(ViewMut::new(&mut [0; 13]).unwrap_err(), Runt);
    }

    #[test]
    fn multicast_maps_to_33_33() {
        let solicited: Ipv6Addr = "ff02::1:ff28:9c5a".parse().unwrap();
        assert_eq!(Mac::for_multicast(solicited).to_string(), "33:33:ff:28:9c:5a");
    }
}
