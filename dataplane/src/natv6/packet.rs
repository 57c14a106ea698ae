//! One address in the place of another, in a packet and in what it quotes.
//!
//! A packet is read first ([`Reading::of`]), which may refuse it, and changed after ([`Reading::exchange`]), which cannot
//! fail; so a packet that ends in an error is still as it came. Touched are: the address at one end; the checksum of
//! protocols that cover addresses, by the difference alone (RFC 1624), except in later fragments, which have none; and in
//! an ICMPv6 error the same address at the other end of the packet it quotes, with that one's checksum if the quote
//! reaches so far. Ports are never touched (R6296-038).
//!
//! | protocol | checksum | session |
//! |---|---|---|
//! | TCP, UDP, DCCP, UDP-Lite | updated; a zero of UDP stays | ports |
//! | SCTP | does not cover addresses | ports |
//! | ICMPv6 echo | updated | identifier, and who asks |
//! | ICMPv6 error | updated, quote too | that of the quoted packet |
//! | ESP, AH, anything else | left alone; AH will not verify | protocol alone |

use std::net::Ipv6Addr;

use crate::wire::checksum::{self, Adjustment};
use crate::wire::icmpv6::{self, Class};
use crate::wire::ipv6::{self, ChainError, HEADER_LEN, protocol};

const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;
const ECHO_REQUEST: u8 = 128;
const TCP_FLAGS: usize = 13;
const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// Why a packet is not translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its headers cannot be followed, or it ends before its checksum.
    #[error("headers cannot be followed")]
    Malformed,
    /// It has a Shim6 header: its addresses are what Shim6 works with, and its control messages have more of them in
    /// their bodies (RCM-002).
    #[error("has a Shim6 header")]
    Shim6,
    /// A Routing header has segments left: the checksum covers another destination than the one in the header.
    #[error("under way with a Routing header")]
    UnderWay,
    /// Neighbour discovery or multicast listener discovery, which never leaves its link.
    #[error("link-local business")]
    LinkLocal,
}

impl From<ChainError> for Refused {
    fn from(_: ChainError) -> Refused {
        Refused::Malformed
    }
}

/// The end of a packet an address stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Source address.
    Source,
    /// Destination address.
    Target,
}

impl End {
    fn offset(self) -> usize {
        match self {
            End::Source => 8,
            End::Target => 24,
        }
    }

    fn other(self) -> End {
        match self {
            End::Source => End::Target,
            End::Target => End::Source,
        }
    }
}

/// An address, the one that takes its place, and what that does to a checksum.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// What was there.
    pub from: Ipv6Addr,
    /// What comes there.
    pub to: Ipv6Addr,
    /// The change of a checksum that covers it; none where the two addresses sum to the same (RFC 6296).
    pub change: Option<Adjustment>,
}

impl Exchange {
    /// The exchange of any two addresses.
    pub fn between(from: Ipv6Addr, to: Ipv6Addr) -> Exchange {
        Exchange { from, to, change: Some(Adjustment::between(&from.octets(), &to.octets())) }
    }
}

/// A checksum field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    offset: usize,
    /// Zero means that there is no checksum, and a checksum of zero is written as all ones.
    zero_is_none: bool,
}

/// What tells sessions of a host with a peer apart. Seen from the packet that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// Upper-layer protocol, or that of the Fragment header for what is known by the identification of a fragment.
    pub protocol: u8,
    /// Source port, or what stands for it.
    pub source: u16,
    /// Destination port, or what stands for it.
    pub target: u16,
}

impl Session {
    /// The same session seen from a packet in the other direction.
    #[must_use]
    pub fn mirrored(self) -> Session {
        Session { source: self.target, target: self.source, ..self }
    }
}

/// A packet quoted by an ICMPv6 error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Where it begins.
    offset: usize,
    checksum: Option<Field>,
    /// Its source.
    pub source: Ipv6Addr,
    /// Its destination.
    pub target: Ipv6Addr,
    /// The session it belongs to, as far as it can be told.
    pub session: Option<Session>,
    /// Whether it has a Shim6 header, so that the error is Shim6's business.
    pub shim6: bool,
}

/// What NATv6 needs to know of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    checksum: Option<Field>,
    /// The session it belongs to; none in later fragments.
    pub session: Option<Session>,
    /// The fragmented packet it is part of, as a session.
    pub fragment: Option<Session>,
    /// It is an ICMPv6 error.
    pub is_error: bool,
    /// What it quotes: only in ICMPv6 errors, and only if a whole IPv6 header is there.
    pub quote: Option<Quote>,
    /// It asks for a TCP connection.
    pub opens: bool,
}

impl Reading {
    /// Reads a packet.
    ///
    /// # Errors
    /// [`Refused`] when it must not or cannot be translated.
    pub fn of(packet: &ipv6::View<'_>) -> Result<Reading, Refused> {
        let upper = packet.upper_layer()?;
        let protocol = upper.place.next_header;
        if upper.shim.is_some() || protocol == protocol::SHIM6 {
            return Err(Refused::Shim6);
        }
        if packet.shim_insertion()?.under_way {
            return Err(Refused::UnderWay);
        }
        let fragment = match upper.fragment {
            None => None,
            Some(at) => Some(fragment_session(packet.from_offset(at)).ok_or(Refused::Malformed)?),
        };
        let mut reading =
            Reading { checksum: None, session: None, fragment, is_error: false, quote: None, opens: false };
        if !upper.first_fragment {
            return Ok(reading);
        }
        let octets = packet.from_offset(upper.place.offset);
        reading.checksum = field(protocol, upper.place.offset);
        // A packet that ends before its checksum cannot be mended, and a fragment that does is made so on purpose
        // (RFC 7112 §5).
        if reading.checksum.is_some_and(|field| packet.total_len() < field.offset + 2) {
            return Err(Refused::Malformed);
        }
        reading.session = Some(session(protocol, octets));
        reading.opens = protocol == protocol::TCP
            && octets.get(TCP_FLAGS).is_some_and(|flags| flags & (TCP_SYN | TCP_ACK) == TCP_SYN);
        if protocol == protocol::ICMPV6 {
            match Class::of(octets[0]) {
                Class::NeighborDiscovery | Class::MulticastListener => return Err(Refused::LinkLocal),
                Class::Error => {
                    reading.is_error = true;
                    reading.quote = quote(packet, upper.place.offset + icmpv6::FIXED_LEN);
                }
                Class::Echo | Class::Other => {}
            }
        }
        Ok(reading)
    }

    /// Puts an address in the place of another at one end of the packet this was read from, and at the other end of the
    /// packet it quotes, if `quoted` is the address there.
    #[inline]
    pub fn exchange(&self, packet: &mut [u8], end: End, exchange: &Exchange, quoted: &Exchange) {
        if let Some(quote) = &self.quote {
            self.exchange_in_quote(packet, quote, end.other(), quoted);
        }
        write(packet, end.offset(), exchange.to);
        if let (Some(field), Some(change)) = (self.checksum, exchange.change) {
            field.adjust(packet, change);
        }
    }

    /// Makes the ICMPv6 error this was read from `octets_max` long by leaving out the end of what it quotes, as whoever made
    /// it might have done (RFC 4443 §2.4 (c)). How long it is then; a checksum that was wrong stays so. None, and the packet is
    /// as it was, if it is no error, or a part of one.
    #[cold]
    pub fn shorten(&self, packet: &mut [u8], octets_max: usize) -> Option<usize> {
        let field = self.checksum.filter(|_| self.is_error && self.fragment.is_none())?;
        // Sums count pairs, and headers have an even length.
        let kept = octets_max & !1;
        if kept < field.offset - 2 + icmpv6::FIXED_LEN || kept >= packet.len() {
            return None;
        }
        let covered = |octets: usize| ((octets - (field.offset - 2)) as u32).to_be_bytes();
        let (before, after) = (covered(packet.len()), covered(kept));
        let change = Adjustment::between(&packet[kept..], &[]).after(Adjustment::between(&before, &after));
        field.adjust(packet, change);
        let payload_len = kept - ipv6::HEADER_LEN;
        packet[4..6].copy_from_slice(&(payload_len as u16).to_be_bytes());
        Some(kept)
    }

    #[cold]
    fn exchange_in_quote(&self, packet: &mut [u8], quote: &Quote, end: End, exchange: &Exchange) {
        let there = match end {
            End::Source => quote.source,
            End::Target => quote.target,
        };
        if there != exchange.from {
            return;
        }
        write(packet, quote.offset + end.offset(), exchange.to);
        let Some(change) = exchange.change else { return };
        if let Some(field) = self.checksum {
            field.adjust(packet, change);
        }
        let Some(inner) = quote.checksum else { return };
        let before = inner.read(packet);
        inner.adjust(packet, change);
        let after = inner.read(packet);
        if let (Some(field), Some(before), Some(after)) = (self.checksum, before, after) {
            field.adjust(packet, Adjustment::between(&before.to_be_bytes(), &after.to_be_bytes()));
        }
    }
}

/// Translates a packet that goes in: its destination `outside` becomes `inside`, and so does the source of what it quotes.
///
/// # Errors
/// [`Refused`], and the packet is as it was.
pub fn to_inside(packet: &mut [u8], outside: Ipv6Addr, inside: Ipv6Addr) -> Result<(), Refused> {
    whole(packet, End::Target, &Exchange::between(outside, inside))
}

/// Translates a packet that goes out: its source `inside` becomes `outside`, and so does the destination of what it quotes.
///
/// # Errors
/// [`Refused`], and the packet is as it was.
pub fn to_outside(packet: &mut [u8], inside: Ipv6Addr, outside: Ipv6Addr) -> Result<(), Refused> {
    whole(packet, End::Source, &Exchange::between(inside, outside))
}

fn whole(packet: &mut [u8], end: End, exchange: &Exchange) -> Result<(), Refused> {
    let view = ipv6::View::new(packet).map_err(|_| Refused::Malformed)?;
    let reading = Reading::of(&view)?;
    reading.exchange(packet, end, exchange, exchange);
    Ok(())
}

impl Field {
    fn read(self, packet: &[u8]) -> Option<u16> {
        packet.get(self.offset..)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    #[inline]
    fn adjust(self, packet: &mut [u8], change: Adjustment) {
        let Some(octets) = packet.get_mut(self.offset..).and_then(|rest| rest.first_chunk_mut::<2>()) else { return };
        let before = u16::from_be_bytes(*octets);
        *octets = match self.zero_is_none {
            true if before == 0 => return,
            true => checksum::for_udp(change.apply(before)),
            false => change.apply(before),
        }
        .to_be_bytes();
    }
}

/// Where the checksum of an upper layer at `at` is, if it covers the addresses.
fn field(protocol: u8, at: usize) -> Option<Field> {
    let (offset, zero_is_none) = match protocol {
        protocol::TCP => (16, false),
        protocol::UDP | UDP_LITE => (6, true),
        protocol::ICMPV6 => (2, false),
        DCCP => (6, false),
        _ => return None,
    };
    Some(Field { offset: at + offset, zero_is_none })
}

fn session(protocol: u8, octets: &[u8]) -> Session {
    let word = |at: usize| octets.get(at..).and_then(|rest| rest.first_chunk()).copied().map(u16::from_be_bytes);
    let (source, target) = match protocol {
        protocol::TCP | protocol::UDP | UDP_LITE | DCCP | SCTP => (word(0), word(2)),
        // The host that asks has the identifier at its end, so that it may ask with the number it is asked with.
        protocol::ICMPV6 => match octets.first() {
            Some(&ECHO_REQUEST) => (word(4), Some(0)),
            Some(&kind) if Class::of(kind) == Class::Echo => (Some(0), word(4)),
            _ => (None, None),
        },
        _ => (None, None),
    };
    Session { protocol, source: source.unwrap_or_default(), target: target.unwrap_or_default() }
}

fn fragment_session(header: &[u8]) -> Option<Session> {
    let &[_, _, _, _, a, b, c, d] = header.first_chunk()?;
    let (source, target) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Some(Session { protocol: protocol::FRAGMENT, source, target })
}

#[cold]
fn quote(packet: &ipv6::View<'_>, at: usize) -> Option<Quote> {
    let octets = packet.from_offset(at);
    let inner = ipv6::View::of_quote(octets).ok()?;
    let mut quote = Quote {
        offset: at,
        checksum: None,
        source: inner.source(),
        target: inner.target(),
        session: None,
        shim6: inner.shim_header().is_ok_and(|shim| shim.is_some()),
    };
    let Ok(upper) = inner.upper_layer() else { return Some(quote) };
    let protocol = upper.place.next_header;
    quote.shim6 |= upper.shim.is_some() || protocol == protocol::SHIM6;
    if upper.first_fragment {
        let there = HEADER_LEN + inner.payload().len();
        let whole = |field: &Field| field.offset + 2 <= there;
        let checksum = field(protocol, upper.place.offset).filter(whole);
        quote.checksum = checksum.map(|field| Field { offset: at + field.offset, ..field });
        quote.session = Some(session(protocol, inner.from_offset(upper.place.offset)));
    }
    Some(quote)
}

#[inline]
fn write(packet: &mut [u8], at: usize, address: Ipv6Addr) {
    if let Some(octets) = packet.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *octets = address.octets();
    }
}
