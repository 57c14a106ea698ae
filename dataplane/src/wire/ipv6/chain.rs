//! The extension headers of a packet: where a Shim6 header belongs, where one is, and where the upper layer starts.
//!
//! A Shim6 header stands after Hop-by-Hop Options, after Routing, and after Destination Options that come before a
//! Routing header; it stands before everything else (RFC 5533 §4.6, §11.1):
//!
//! ```text
//! IPv6 | Hop-by-Hop | Destination Options | Routing | *Shim6* | Fragment | AH | ESP | Destination Options | TCP
//! ```
//!
//! All offsets count from the first octet of the IPv6 header. The usual packet has no extension header, and each walk
//! asks for that first. The others are bounded by [`HEADERS_MAX`].

use super::{HEADER_LEN, NEXT_HEADER, View, protocol};

/// Extension headers looked at in one packet. RFC 8200 §4.1 recommends six at most, and Shim6 adds one.
pub const HEADERS_MAX: usize = 8;

/// Why a chain of extension headers could not be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// An extension header runs past the packet.
    #[error("extension header cut short")]
    Truncated,
    /// More than [`HEADERS_MAX`] extension headers.
    #[error("too many extension headers")]
    TooMany,
}

/// A place in the chain: between a header and its predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Offset of what stands here.
    pub offset: usize,
    /// Offset of the predecessor's Next Header octet.
    pub predecessor: usize,
    /// What that octet says.
    pub next_header: u8,
}

/// A place for a Shim6 header, or of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShimPlace {
    /// Where.
    pub place: Place,
    /// A Routing header before it has segments left: the destination in the IPv6 header is a stop on the way, and the
    /// packet is none of Shim6's business here.
    pub under_way: bool,
}

/// Where the upper layer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperLayer {
    /// Where; `next_header` is its protocol. ESP, "no next header" and whatever is unknown count as upper layer, and
    /// so does a Shim6 control message.
    pub place: Place,
    /// False in fragments after the first, where `offset` points into the middle of something.
    pub first_fragment: bool,
    /// Offset of the Shim6 payload header, if there is one on the way.
    pub shim: Option<usize>,
    /// Offset of the last Fragment header on the way, if there is one.
    pub fragment: Option<usize>,
    /// Whether an Authentication Header guards it, so that nothing in it may change.
    pub authenticated: bool,
}

impl Place {
    const FIRST: Place = Place { offset: HEADER_LEN, predecessor: NEXT_HEADER, next_header: 0 };

    #[inline]
    fn after_ipv6(view: &View<'_>) -> Place {
        Place { next_header: view.next_header(), ..Place::FIRST }
    }

    /// The place after the header of `len` octets that stands here and whose first octet names its successor.
    fn step(self, next_header: u8, len: usize) -> Place {
        Place { offset: self.offset + len, predecessor: self.offset, next_header }
    }

    /// Hop-by-Hop Options are that only directly after the IPv6 header; elsewhere they are an unknown protocol.
    fn is_hop_by_hop(self) -> bool {
        self.next_header == protocol::HOP_BY_HOP && self.offset == HEADER_LEN
    }
}

impl View<'_> {
    /// Where a payload header has to be inserted (RFC 5533 §11.1).
    ///
    /// # Errors
    /// [`ChainError`] when the chain before that place is broken or too long.
    #[inline]
    pub fn shim_insertion(&self) -> Result<ShimPlace, ChainError> {
        let first = Place::after_ipv6(self);
        if precedes_shim(first.next_header) {
            return Ok(outer_headers(self, first)?.0);
        }
        Ok(ShimPlace { place: first, under_way: false })
    }

    /// Where the packet's Shim6 header is, if it has one before any header that belongs above it.
    ///
    /// Extension headers are taken in order (RFC 5533 §12), so a Shim6 header behind Destination Options that precede
    /// no Routing header is found too, although this box never puts one there.
    ///
    /// # Errors
    /// [`ChainError`] when the chain before that place is broken or too long.
    #[inline]
    pub fn shim_header(&self) -> Result<Option<ShimPlace>, ChainError> {
        let first = Place::after_ipv6(self);
        if first.next_header == protocol::SHIM6 {
            return Ok(Some(ShimPlace { place: first, under_way: false }));
        }
        if precedes_shim(first.next_header) {
            let (_, end) = outer_headers(self, first)?;
            return Ok(Some(end).filter(|end| end.place.next_header == protocol::SHIM6));
        }
        Ok(None)
    }

    /// Where the headers end that may stand before a Shim6 header: what is there, whatever it is.
    ///
    /// # Errors
    /// [`ChainError`] when the chain before that place is broken or too long.
    #[inline]
    pub fn after_outer(&self) -> Result<ShimPlace, ChainError> {
        let first = Place::after_ipv6(self);
        match precedes_shim(first.next_header) {
            true => Ok(outer_headers(self, first)?.1),
            false => Ok(ShimPlace { place: first, under_way: false }),
        }
    }

    /// Where the upper layer starts, behind every extension header that can be read and a Shim6 payload header.
    ///
    /// # Errors
    /// [`ChainError`] when the chain is broken or too long.
    #[inline]
    pub fn upper_layer(&self) -> Result<UpperLayer, ChainError> {
        let first = Place::after_ipv6(self);
        match first.next_header {
            protocol::TCP | protocol::UDP | protocol::ICMPV6 => {
                Ok(UpperLayer { place: first, first_fragment: true, shim: None, fragment: None, authenticated: false })
            }
            _ => all_headers(self, first),
        }
    }
}

#[inline]
fn precedes_shim(next_header: u8) -> bool {
    matches!(next_header, protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS)
}

/// The headers that may stand before a Shim6 header: the place where one would be put, and the end of them all. The
/// two differ by Destination Options that precede no Routing header.
#[cold]
fn outer_headers(view: &View<'_>, first: Place) -> Result<(ShimPlace, ShimPlace), ChainError> {
    let mut end = ShimPlace { place: first, under_way: false };
    let mut insertion = end;
    for _ in 0..=HEADERS_MAX {
        let here = end.place;
        match here.next_header {
            protocol::ROUTING => {
                let header = extension(view, here.offset)?;
                // The fourth octet of every Routing header is Segments Left.
                end.under_way |= header.get(3).is_some_and(|segments_left| *segments_left != 0);
                end.place = here.step(header[0], header.len());
                insertion = end;
            }
            protocol::DESTINATION_OPTIONS => {
                let header = extension(view, here.offset)?;
                end.place = here.step(header[0], header.len());
            }
            _ if here.is_hop_by_hop() => {
                let header = extension(view, here.offset)?;
                end.place = here.step(header[0], header.len());
                insertion = end;
            }
            _ => return Ok((insertion, end)),
        }
    }
    Err(ChainError::TooMany)
}

/// Every header up to the upper layer.
#[cold]
fn all_headers(view: &View<'_>, first: Place) -> Result<UpperLayer, ChainError> {
    let mut end = UpperLayer { place: first, first_fragment: true, shim: None, fragment: None, authenticated: false };
    for _ in 0..=HEADERS_MAX {
        let here = end.place;
        let octets = view.from_offset(here.offset);
        match here.next_header {
            protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                let header = extension(view, here.offset)?;
                end.place = here.step(header[0], header.len());
            }
            protocol::FRAGMENT => {
                let header: &[u8; 8] = octets.first_chunk().ok_or(ChainError::Truncated)?;
                end.place = here.step(header[0], header.len());
                end.fragment = Some(here.offset);
                if u16::from_be_bytes([header[2], header[3]]) & 0xfff8 != 0 {
                    end.first_fragment = false;
                    return Ok(end);
                }
            }
            protocol::AUTHENTICATION => {
                // Unlike all others, AH counts four-octet units and leaves two of them out (RFC 4302 §2.2).
                let &[next_header, units, ..] = octets else { return Err(ChainError::Truncated) };
                let len = (usize::from(units) + 2) * 4;
                if len > octets.len() {
                    return Err(ChainError::Truncated);
                }
                end.place = here.step(next_header, len);
                end.authenticated = true;
            }
            protocol::SHIM6 => {
                let header: &[u8; 8] = octets.first_chunk().ok_or(ChainError::Truncated)?;
                let is_payload = header[2] & 0x80 != 0 && header[1] == 0;
                if !is_payload {
                    return Ok(end);
                }
                end.shim = end.shim.or(Some(here.offset));
                end.place = here.step(header[0], header.len());
            }
            _ if here.is_hop_by_hop() => {
                let header = extension(view, here.offset)?;
                end.place = here.step(header[0], header.len());
            }
            _ => return Ok(end),
        }
    }
    Err(ChainError::TooMany)
}

/// The extension header at `offset`: its first octet is Next Header, its second its length in eight octets, less one
/// (RFC 8200 §4.3). Never empty.
fn extension<'a>(view: &View<'a>, offset: usize) -> Result<&'a [u8], ChainError> {
    let octets = view.from_offset(offset);
    let &[_, units, ..] = octets else { return Err(ChainError::Truncated) };
    octets.get(..(usize::from(units) + 1) * 8).ok_or(ChainError::Truncated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ipv6::Repr;

    const TCP: u8 = protocol::TCP;

    /// A header of a chain under test: its protocol and its octets, with Next Header still to be filled in.
    fn header(protocol: u8, units: u8) -> (u8, Vec<u8>) {
        let mut octets = vec![0; (usize::from(units) + 1) * 8];
        octets[1] = units;
        (protocol, octets)
    }

    fn hop_by_hop() -> (u8, Vec<u8>) {
        header(protocol::HOP_BY_HOP, 0)
    }

    fn routing(segments_left: u8) -> (u8, Vec<u8>) {
        let mut header = header(protocol::ROUTING, 2);
        header.1[3] = segments_left;
        header
    }

    fn destination() -> (u8, Vec<u8>) {
        header(protocol::DESTINATION_OPTIONS, 1)
    }

    fn fragment(offset: u16) -> (u8, Vec<u8>) {
        let mut header = header(protocol::FRAGMENT, 0);
        header.1[2..4].copy_from_slice(&(offset << 3 | 1).to_be_bytes());
        header
    }

    fn authentication() -> (u8, Vec<u8>) {
        let mut octets = vec![0; 24];
        octets[1] = 4;
        (protocol::AUTHENTICATION, octets)
    }

    fn payload_header() -> (u8, Vec<u8>) {
        (protocol::SHIM6, vec![0, 0, 0x80, 0, 0, 0, 0, 1])
    }

    fn control_header() -> (u8, Vec<u8>) {
        (protocol::SHIM6, vec![0, 0, 0x01, 0, 0, 0, 0, 1])
    }

    fn packet(headers: &[(u8, Vec<u8>)], last: u8) -> Vec<u8> {
        let nexts = headers.iter().skip(1).map(|header| header.0).chain([last]);
        let mut payload = Vec::new();
        for ((_, octets), next) in headers.iter().zip(nexts) {
            payload.push(next);
            payload.extend(&octets[1..]);
        }
        payload.extend([0xee; 20]);
        let repr = Repr {
            source: "2001:db8::1".parse().unwrap(),
            target: "2001:db8::2".parse().unwrap(),
            next_header: headers.first().map_or(last, |header| header.0),
            payload_len: payload.len() as u16,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
        };
        [&repr.emit()[..], &payload].concat()
    }

    fn insertion(headers: &[(u8, Vec<u8>)], last: u8) -> Place {
        View::new(&packet(headers, last)).unwrap().shim_insertion().unwrap().place
    }

    fn place(offset: usize, predecessor: usize, next_header: u8) -> Place {
        Place { offset, predecessor, next_header }
    }

    // R5533-284
    #[test]
    fn the_shim_goes_between_the_outer_headers_and_everything_else() {
        assert_eq!(insertion(&[], TCP), place(40, 6, TCP));
        assert_eq!(insertion(&[hop_by_hop()], TCP), place(48, 40, TCP));
        assert_eq!(insertion(&[routing(0)], TCP), place(64, 40, TCP));
        assert_eq!(insertion(&[destination()], TCP), place(40, 6, 60));
        assert_eq!(insertion(&[destination(), routing(0)], TCP), place(80, 56, TCP));
        assert_eq!(insertion(&[hop_by_hop(), destination()], TCP), place(48, 40, 60));
        assert_eq!(insertion(&[hop_by_hop(), destination(), routing(0), destination()], TCP), place(88, 64, 60));
        assert_eq!(insertion(&[fragment(0)], TCP), place(40, 6, 44));
        assert_eq!(insertion(&[hop_by_hop(), routing(0), fragment(7)], TCP), place(72, 48, 44));
        assert_eq!(insertion(&[authentication()], TCP), place(40, 6, 51));
        assert_eq!(insertion(&[hop_by_hop()], protocol::ESP), place(48, 40, protocol::ESP));
        // Behind a Fragment header everything belongs to the fragmentable part.
        assert_eq!(insertion(&[fragment(0), routing(0)], TCP), place(40, 6, 44));
    }

    #[test]
    fn hop_by_hop_elsewhere_is_an_unknown_protocol() {
        assert_eq!(insertion(&[routing(0), hop_by_hop()], TCP), place(64, 40, 0));
        let packet = packet(&[routing(0), hop_by_hop()], TCP);
        assert_eq!(View::new(&packet).unwrap().upper_layer().unwrap().place, place(64, 40, 0));
    }

    #[test]
    fn segments_left_mean_the_packet_is_under_way() {
        for (left, under_way) in [(0, false), (1, true)] {
            let octets = packet(&[hop_by_hop(), routing(left), payload_header()], TCP);
            let view = View::new(&octets).unwrap();
            assert_eq!(view.shim_insertion().unwrap().under_way, under_way);
            assert_eq!(view.shim_header().unwrap().unwrap().under_way, under_way);
        }
    }

    // R5533-287, R5533-025
    #[test]
    fn a_shim_header_is_found_where_it_belongs() {
        let found = |headers: &[_], last| {
            View::new(&packet(headers, last)).unwrap().shim_header().unwrap().map(|shim| shim.place)
        };
        assert_eq!(found(&[payload_header()], TCP), Some(place(40, 6, 140)));
        assert_eq!(found(&[hop_by_hop(), payload_header()], TCP), Some(place(48, 40, 140)));
        assert_eq!(found(&[destination(), routing(0), control_header()], 59), Some(place(80, 56, 140)));
        assert_eq!(found(&[destination(), payload_header()], TCP), Some(place(56, 40, 140)));
        assert_eq!(found(&[], TCP), None);
        assert_eq!(found(&[hop_by_hop()], TCP), None);
        // ESP, AH and fragments come first when they stand first (R5533-311).
        assert_eq!(found(&[fragment(0), payload_header()], TCP), None);
        assert_eq!(found(&[authentication(), payload_header()], TCP), None);
    }

    #[test]
    fn the_upper_layer_is_behind_everything() {
        let all =
            [hop_by_hop(), destination(), routing(0), payload_header(), fragment(0), authentication(), destination()];
        let octets = packet(&all, protocol::ICMPV6);
        let upper = View::new(&octets).unwrap().upper_layer().unwrap();
        assert_eq!(upper.place, place(octets.len() - 20, octets.len() - 36, protocol::ICMPV6));
        assert_eq!((upper.first_fragment, upper.shim, upper.fragment), (true, Some(88), Some(96)));

        let later = packet(&[payload_header(), fragment(9), destination()], TCP);
        let upper = View::new(&later).unwrap().upper_layer().unwrap();
        let expected = UpperLayer {
            place: place(56, 48, 60),
            first_fragment: false,
            shim: Some(40),
            fragment: Some(48),
            authenticated: false,
        };
        assert_eq!(upper, expected);

        let control = packet(&[hop_by_hop(), control_header()], 59);
        let upper = View::new(&control).unwrap().upper_layer().unwrap();
        let expected = UpperLayer {
            place: place(48, 40, 140),
            first_fragment: true,
            shim: None,
            fragment: None,
            authenticated: false,
        };
        assert_eq!(upper, expected);

        for last in [TCP, protocol::UDP, protocol::ICMPV6, protocol::ESP, protocol::NO_NEXT_HEADER, 253] {
            let plain = packet(&[], last);
            assert_eq!(View::new(&plain).unwrap().upper_layer().unwrap().place, place(40, 6, last));
        }
    }

    #[test]
    fn a_header_that_runs_past_the_packet_is_an_error() {
        let walks = |octets: &[u8]| {
            let view = View::new(octets).unwrap();
            (view.shim_insertion().err(), view.shim_header().err(), view.upper_layer().err())
        };
        for mut headers in [vec![hop_by_hop()], vec![routing(0)], vec![destination()], vec![destination(), routing(0)]]
        {
            headers.last_mut().unwrap().1[1] = 200;
            let error = Some(ChainError::Truncated);
            assert_eq!(walks(&packet(&headers, TCP)), (error, error, error));
        }
        for last in [protocol::FRAGMENT, protocol::AUTHENTICATION, protocol::SHIM6] {
            let mut octets = packet(&[], last);
            octets.truncate(41);
            octets[4..6].copy_from_slice(&[0, 1]);
            assert_eq!(walks(&octets).2, Some(ChainError::Truncated));
        }
        let mut long = authentication();
        long.1[1] = 250;
        assert_eq!(walks(&packet(&[long], TCP)).2, Some(ChainError::Truncated));
    }

    #[test]
    fn a_chain_is_bounded() {
        let most = vec![destination(); HEADERS_MAX];
        assert_eq!(insertion(&most, TCP), place(40, 6, 60));
        let octets = packet(&vec![destination(); HEADERS_MAX + 1], TCP);
        let view = View::new(&octets).unwrap();
        assert_eq!(view.shim_insertion(), Err(ChainError::TooMany));
        assert_eq!(view.shim_header(), Err(ChainError::TooMany));
        assert_eq!(view.upper_layer(), Err(ChainError::TooMany));
    }

    proptest! {
        /// Any octets, with next headers that matter: every place named is inside the packet and told truly.
        #[test]
        fn a_place_is_inside_the_packet(
            mut octets in prop::collection::vec(prop_oneof![
                4 => prop::sample::select(vec![0u8, 1, 43, 44, 51, 60, 140, 6]), 1 => any::<u8>()], 40..400),
        ) {
            octets[0] = 0x60;
            let len = (octets.len() - 40) as u16;
            octets[4..6].copy_from_slice(&len.to_be_bytes());
            let view = View::new(&octets).unwrap();
            let places = [
                view.shim_insertion().ok().map(|shim| shim.place),
                view.shim_header().ok().flatten().map(|shim| shim.place),
                view.upper_layer().ok().map(|upper| upper.place),
            ];
            for place in places.into_iter().flatten() {
                prop_assert!(place.offset >= 40 && place.offset <= octets.len());
                prop_assert!(place.predecessor < place.offset);
                prop_assert_eq!(octets[place.predecessor], place.next_header);
            }
        }
    }
}
