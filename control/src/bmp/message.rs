//! BMP messages (RFC 7854 §4), as far as a station needs them.
//!
//! [`Message::parse`] takes a whole message, whose length [`length_of`] has told from its first six octets. Every length inside
//! is checked, and what is of no use here is not looked at. Unknown types are no error (§4.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bgp;

/// The common header.
pub const HEADER_LEN: usize = 6;
/// The longest message that is taken: a BGP message (RFC 8654) with room for what goes around it, or two OPENs with TLVs.
pub const OCTETS_MAX: usize = 128 * 1024;
/// The version of RFC 7854.
const VERSION: u8 = 3;
/// Longest text of a router's that is kept.
const TEXT_MAX: usize = 255;

/// Octets that are no BMP, or break off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Another version than 3.
    #[error("version {0} is not spoken here")]
    Version(u8),
    /// A length that cannot be, or is longer than what is taken.
    #[error("a message of {0} octets is not taken")]
    Length(u32),
    /// It ends before it should.
    #[error("breaks off")]
    Truncated,
    /// A BGP message within that is none, or of another type than stands there.
    #[error("holds no such BGP message")]
    Bgp,
    /// A prefix longer than an address.
    #[error("holds a prefix of {0} bits")]
    Prefix(u8),
}

/// What a message of this header is long, with it.
///
/// # Errors
/// What begins so is no BMP, or too long.
pub fn length_of(header: &[u8; HEADER_LEN]) -> Result<usize, Malformed> {
    let [version, a, b, c, d, _] = *header;
    if version != VERSION {
        return Err(Malformed::Version(version));
    }
    let length = u32::from_be_bytes([a, b, c, d]);
    match usize::try_from(length) {
        Ok(octets) if (HEADER_LEN..=OCTETS_MAX).contains(&octets) => Ok(octets),
        _ => Err(Malformed::Length(length)),
    }
}

/// Which BGP session a message is about (§4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId {
    /// Peer Type.
    pub kind: u8,
    /// Peer Distinguisher.
    pub distinguisher: u64,
    /// Peer Address.
    pub address: IpAddr,
}

/// The per-peer header (§4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerPeer {
    /// Which session.
    pub id: PeerId,
    /// Peer Flags, as they came.
    pub flags: u8,
    /// Peer AS.
    pub asn: u32,
}

impl PerPeer {
    /// Peer Type of routes that the router chose or made itself (RFC 9069): no neighbour's.
    pub const LOC_RIB: u8 = 3;
    const V: u8 = 0x80;
    const L: u8 = 0x40;
    const O: u8 = 0x10;

    /// Whether it is about what a neighbour told, rather than what it was told (RFC 8671) or what was chosen.
    pub fn is_inward(&self) -> bool {
        self.id.kind < PerPeer::LOC_RIB && self.flags & PerPeer::O == 0
    }

    /// Whether it is about routes after the router's own policy.
    pub fn is_post_policy(&self) -> bool {
        self.flags & PerPeer::L != 0
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Type 0: a BGP UPDATE (§4.6), not looked into yet.
    RouteMonitoring(PerPeer, &'a [u8]),
    /// Type 1 (§4.8); the figures are not of interest, that it comes is.
    Statistics(PerPeer),
    /// Type 2, with its reason (§4.9).
    PeerDown(PerPeer, u8),
    /// Type 3; whether IPv6 prefixes of the session have path identifiers (RFC 7911) is in its two OPENs (§4.10).
    PeerUp(PerPeer, bool),
    /// Type 4 (§4.3).
    Initiation(Information),
    /// Type 5, with its reason (§4.5).
    Termination(Option<u16>),
    /// Type 6, or one that nobody knows.
    Other(u8),
}

/// What a router says of itself (§4.4). Letters that could do harm on a terminal are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Information {
    /// sysName.
    pub name: String,
    /// sysDescr.
    pub description: String,
}

impl Message<'_> {
    /// Reads a whole message.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(octets: &[u8]) -> Result<Message<'_>, Malformed> {
        let mut rest = Octets(octets);
        let header = rest.array::<HEADER_LEN>()?;
        let length = length_of(&header)?;
        if length != octets.len() {
            return Err(Malformed::Length(u32::try_from(length).unwrap_or(u32::MAX)));
        }
        Ok(match header[5] {
            0 => Message::RouteMonitoring(per_peer(&mut rest)?, rest.0),
            1 => Message::Statistics(per_peer(&mut rest)?),
            2 => Message::PeerDown(per_peer(&mut rest)?, rest.u8()?),
            3 => {
                let peer = per_peer(&mut rest)?;
                // Local address and both ports.
                rest.take(20)?;
                let (sent, received) = (bgp::open(&mut rest)?, bgp::open(&mut rest)?);
                Message::PeerUp(peer, sent.takes_paths && received.gives_paths)
            }
            4 => Message::Initiation(information(rest)?),
            5 => Message::Termination(reason(rest)?),
            other => Message::Other(other),
        })
    }
}

fn per_peer(rest: &mut Octets<'_>) -> Result<PerPeer, Malformed> {
    let [kind, flags] = rest.array()?;
    let distinguisher = u64::from_be_bytes(rest.array()?);
    let address = rest.array::<16>()?;
    let asn = u32::from_be_bytes(rest.array()?);
    // BGP identifier and timestamp.
    rest.take(12)?;
    let [.., a, b, c, d] = address;
    // Of Loc-RIB peers the bit means something else, and the address is zero (RFC 9069 §4.1).
    let address = match flags & PerPeer::V != 0 || kind == PerPeer::LOC_RIB {
        true => IpAddr::V6(Ipv6Addr::from(address)),
        false => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
    };
    Ok(PerPeer { id: PeerId { kind, distinguisher, address }, flags, asn })
}

/// TLVs (§4.4): type and contents of each.
fn tlv<'a>(rest: &mut Octets<'a>) -> Result<Option<(u16, &'a [u8])>, Malformed> {
    if rest.0.is_empty() {
        return Ok(None);
    }
    let kind = rest.u16()?;
    let length = rest.u16()?;
    Ok(Some((kind, rest.take(length.into())?)))
}

fn information(mut rest: Octets<'_>) -> Result<Information, Malformed> {
    let mut told = Information::default();
    while let Some((kind, contents)) = tlv(&mut rest)? {
        match kind {
            1 => told.description = text(contents),
            2 => told.name = text(contents),
            _ => {}
        }
    }
    Ok(told)
}

fn reason(mut rest: Octets<'_>) -> Result<Option<u16>, Malformed> {
    let mut reason = None;
    while let Some((kind, contents)) = tlv(&mut rest)? {
        if let (1, [high, low]) = (kind, contents) {
            reason = Some(u16::from_be_bytes([*high, *low]));
        }
    }
    Ok(reason)
}

/// A stranger's text, to be shown to people.
fn text(octets: &[u8]) -> String {
    let octets = octets.get(..TEXT_MAX).unwrap_or(octets);
    let plain = |letter: char| if letter.is_control() || letter == char::REPLACEMENT_CHARACTER { '?' } else { letter };
    String::from_utf8_lossy(octets).chars().map(plain).collect::<String>().trim().to_owned()
}

/// Octets that are read from the front.
#[derive(Clone, Copy, Debug)]
pub(super) struct Octets<'a>(pub(super) &'a [u8]);

impl<'a> Octets<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (first, rest) = self.0.split_at_checked(count).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        let [octet] = self.array()?;
        Ok(octet)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }
}
