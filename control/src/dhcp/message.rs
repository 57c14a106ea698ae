//! Messages of clients, read and written (RFC 8415 §8, §16, §21).
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |    msg-type   |               transaction-id                  |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |          option-code          |           option-len          |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                          option-data                          |
//! |                      (option-len octets)                      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! A [`Request`] holds only what the server acts on, and no more of it than the bounds here allow: whatever does not fit is
//! [`Malformed`] as a whole. No octets make anything here panic.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most identity associations in one message; clients have one or two.
pub const IAS_MAX: usize = 8;
/// Most addresses in one of them.
pub const ADDRESSES_MAX: usize = 8;
/// Longest message that is looked at: what fits an Ethernet frame.
pub const OCTETS_MAX: usize = 1500;

/// What the RFC calls msg-type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the RFC's own names (RFC 8415 §7.3)")]
pub enum Kind {
    Solicit,
    Request,
    Confirm,
    Renew,
    Rebind,
    Release,
    Decline,
    InformationRequest,
}

impl Kind {
    /// All that clients send.
    pub const ALL: [Kind; 8] = [
        Kind::Solicit,
        Kind::Request,
        Kind::Confirm,
        Kind::Renew,
        Kind::Rebind,
        Kind::Release,
        Kind::Decline,
        Kind::InformationRequest,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Kind::Solicit => 1,
            Kind::Request => 3,
            Kind::Confirm => 4,
            Kind::Renew => 5,
            Kind::Rebind => 6,
            Kind::Release => 8,
            Kind::Decline => 9,
            Kind::InformationRequest => 11,
        }
    }
}

/// msg-type of an Advertise.
pub const ADVERTISE: u8 = 2;
/// msg-type of a Reply.
pub const REPLY: u8 = 7;

/// Option codes (RFC 8415 §21 where no other RFC is named).
#[allow(missing_docs, reason = "the RFCs' own names")]
pub mod code {
    pub const CLIENT_ID: u16 = 1;
    pub const SERVER_ID: u16 = 2;
    pub const IA_NA: u16 = 3;
    pub const IA_TA: u16 = 4;
    pub const IA_ADDRESS: u16 = 5;
    pub const OPTION_REQUEST: u16 = 6;
    pub const PREFERENCE: u16 = 7;
    pub const RELAY_MESSAGE: u16 = 9;
    pub const STATUS_CODE: u16 = 13;
    pub const RAPID_COMMIT: u16 = 14;
    pub const INTERFACE_ID: u16 = 18;
    /// RFC 3646.
    pub const DNS_SERVERS: u16 = 23;
    /// RFC 3646.
    pub const DOMAIN_LIST: u16 = 24;
    pub const IA_PD: u16 = 25;
    pub const INFORMATION_REFRESH_TIME: u16 = 32;
    /// RFC 4704.
    pub const CLIENT_FQDN: u16 = 39;
    /// RFC 7078.
    pub const ADDRESS_SELECTION: u16 = 84;
    /// RFC 7078.
    pub const ADDRESS_SELECTION_TABLE: u16 = 85;
}

/// Status codes (RFC 8415 §21.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the RFC's own names")]
#[repr(u16)]
pub enum Status {
    Success = 0,
    NoAddrsAvail = 2,
    NoBinding = 3,
    NotOnLink = 4,
    UseMulticast = 5,
    NoPrefixAvail = 6,
}

/// A DHCP unique identifier (RFC 8415 §11): opaque octets. In text, hex digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Duid(Vec<u8>);

impl Duid {
    /// A type and at least one octet.
    pub const OCTETS_MIN: usize = 3;
    /// A type and at most 128 octets (§11.1).
    pub const OCTETS_MAX: usize = 130;

    /// From its octets, if they are so many.
    pub fn new(octets: &[u8]) -> Option<Duid> {
        (Self::OCTETS_MIN..=Self::OCTETS_MAX).contains(&octets.len()).then(|| Duid(octets.to_vec()))
    }

    /// DUID-UUID (§11.5): what a box that has made no other calls itself.
    pub fn from_uuid(uuid: [u8; 16]) -> Duid {
        Duid([&[0, 4][..], &uuid].concat())
    }

    /// Its octets.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Duid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(out, "{octet:02x}"))
    }
}

impl fmt::Debug for Duid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Duid({self})")
    }
}

impl FromStr for Duid {
    type Err = String;

    /// Hex digits, with or without colons between octets.
    fn from_str(text: &str) -> Result<Duid, String> {
        let octets = if text.contains(':') {
            let octet = |part: &str| match parse_hex(&format!("{part:0>2}"))?[..] {
                [octet] if !part.is_empty() => Some(octet),
                _ => None,
            };
            text.split(':').map(octet).collect()
        } else {
            parse_hex(text)
        };
        let wrong = || format!("\"{text}\" is not a DUID: 3 to 130 octets in hex, with or without colons");
        octets.as_deref().and_then(Duid::new).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Duid {
    type Error = String;
    fn try_from(text: String) -> Result<Duid, String> {
        text.parse()
    }
}

impl From<Duid> for String {
    fn from(duid: Duid) -> String {
        duid.to_string()
    }
}

/// Octets from an even number of hex digits.
pub(super) fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |octet: u8| char::from(octet).to_digit(16).map(|digit| digit as u8);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// Which kind of identity association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the RFC's own names")]
pub enum IaKind {
    Na,
    Ta,
    Pd,
}

impl IaKind {
    fn code(self) -> u16 {
        match self {
            IaKind::Na => code::IA_NA,
            IaKind::Ta => code::IA_TA,
            IaKind::Pd => code::IA_PD,
        }
    }
}

/// An identity association of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ia {
    /// Which kind.
    pub kind: IaKind,
    /// The client's name for it.
    pub iaid: u32,
    /// The addresses the client has, or would like to have; empty for prefixes.
    pub addresses: Vec<Ipv6Addr>,
}

/// What a client says, as far as the server acts on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// msg-type.
    pub kind: Kind,
    /// transaction-id.
    pub transaction: [u8; 3],
    /// Who asks; only an Information-request may lack it.
    pub client: Option<Duid>,
    /// Who is asked, if it is one server.
    pub server: Option<Duid>,
    /// Its identity associations, no two of one kind with the same name.
    pub ias: Vec<Ia>,
    /// Codes of the options it wants.
    pub wants: Vec<u16>,
    /// Whether it takes a Reply at once.
    pub rapid_commit: bool,
    /// What it calls itself (RFC 4704).
    pub name: Option<Fqdn>,
}

/// A Client FQDN option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fqdn {
    /// Who is to tell DNS.
    pub flags: u8,
    /// The first label of the name, as it came; empty if there is none.
    pub label: Vec<u8>,
}

/// Why a message is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Shorter than its fixed part, or longer than a frame.
    #[error("a message of this length is none")]
    Length,
    /// Not of a type clients send to servers.
    #[error("not a type that clients send to servers")]
    Type,
    /// An option runs past its end or is of the wrong length.
    #[error("an option that contradicts its length")]
    Option,
    /// An option is there twice that may be there once, or two associations have one name.
    #[error("an option that is there twice")]
    Duplicate,
    /// More identity associations or addresses than anybody has.
    #[error("too many identity associations or addresses")]
    TooMany,
    /// It lacks an option that it must have, or has one it must not have (RFC 8415 §16).
    #[error("an option is missing, or one is there that must not be")]
    Validation,
}

/// Options in a row, all of which lie inside.
#[derive(Clone, Copy)]
pub(super) struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// If the last one ends where the octets end.
    pub(super) fn new(octets: &'a [u8]) -> Result<Options<'a>, Malformed> {
        let mut rest = octets;
        while !rest.is_empty() {
            rest = next(rest).ok_or(Malformed::Option)?.2;
        }
        Ok(Options(octets))
    }

    pub(super) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (code, data, after) = next(rest)?;
            rest = after;
            Some((code, data))
        })
    }
}

fn next(octets: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (header, rest) = octets.split_first_chunk::<4>()?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let (data, rest) = rest.split_at_checked(length)?;
    Some((u16::from_be_bytes([header[0], header[1]]), data, rest))
}

impl Request {
    /// Reads a client's message. Options the server does not act on are passed over.
    pub fn parse(octets: &[u8]) -> Result<Request, Malformed> {
        if octets.len() > OCTETS_MAX {
            return Err(Malformed::Length);
        }
        let (header, rest) = octets.split_first_chunk::<4>().ok_or(Malformed::Length)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.code() == header[0]).ok_or(Malformed::Type)?;
        let mut request = Request {
            kind,
            transaction: [header[1], header[2], header[3]],
            client: None,
            server: None,
            ias: Vec::new(),
            wants: Vec::new(),
            rapid_commit: false,
            name: None,
        };
        let mut wanted = false;
        for (code, data) in Options::new(rest)?.iter() {
            match code {
                code::CLIENT_ID => once(&mut request.client, Duid::new(data).ok_or(Malformed::Option)?)?,
                code::SERVER_ID => once(&mut request.server, Duid::new(data).ok_or(Malformed::Option)?)?,
                code::IA_NA => request.add(IaKind::Na, data)?,
                code::IA_TA => request.add(IaKind::Ta, data)?,
                code::IA_PD => request.add(IaKind::Pd, data)?,
                code::OPTION_REQUEST => {
                    let (pairs, []) = data.as_chunks::<2>() else { return Err(Malformed::Option) };
                    if std::mem::replace(&mut wanted, true) {
                        return Err(Malformed::Duplicate);
                    }
                    request.wants = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
                }
                code::RAPID_COMMIT if !data.is_empty() => return Err(Malformed::Option),
                code::RAPID_COMMIT => request.rapid_commit = true,
                code::CLIENT_FQDN => once(&mut request.name, fqdn(data).ok_or(Malformed::Option)?)?,
                _ => {}
            }
        }
        request.validate()?;
        Ok(request)
    }

    /// RFC 8415 §16.2 to §16.12, but for whose identifier it is.
    fn validate(&self) -> Result<(), Malformed> {
        let (client, server) = (self.client.is_some(), self.server.is_some());
        let right = match self.kind {
            Kind::Solicit | Kind::Confirm | Kind::Rebind => client && !server,
            Kind::Request | Kind::Renew | Kind::Release | Kind::Decline => client && server,
            Kind::InformationRequest => self.ias.is_empty(),
        };
        if right { Ok(()) } else { Err(Malformed::Validation) }
    }

    fn add(&mut self, kind: IaKind, data: &[u8]) -> Result<(), Malformed> {
        // Only temporary addresses come without T1 and T2 (§21.5).
        let fixed = if kind == IaKind::Ta { 4 } else { 12 };
        let (fixed, options) = data.split_at_checked(fixed).ok_or(Malformed::Option)?;
        let iaid = fixed.first_chunk::<4>().copied().map(u32::from_be_bytes).ok_or(Malformed::Option)?;
        if self.ias.iter().any(|known| (known.kind, known.iaid) == (kind, iaid)) {
            return Err(Malformed::Duplicate);
        }
        let mut addresses = Vec::new();
        for (code, data) in Options::new(options)?.iter() {
            if code == code::IA_ADDRESS && kind != IaKind::Pd {
                // The address, two lifetimes, and perhaps options.
                let options = data.get(24..).ok_or(Malformed::Option)?;
                Options::new(options)?;
                let address = data.first_chunk::<16>().ok_or(Malformed::Option)?;
                addresses.push(Ipv6Addr::from(*address));
            }
        }
        if self.ias.len() >= IAS_MAX || addresses.len() > ADDRESSES_MAX {
            return Err(Malformed::TooMany);
        }
        self.ias.push(Ia { kind, iaid, addresses });
        Ok(())
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed::Duplicate),
    }
}

/// A Client FQDN option: flags, then a name as DNS writes it, whole or not (RFC 4704 §4).
fn fqdn(data: &[u8]) -> Option<Fqdn> {
    let (flags, name) = data.split_first()?;
    let label = match name {
        [] | [0, ..] => Vec::new(),
        [length @ 1..=63, rest @ ..] => rest.get(..usize::from(*length))?.to_vec(),
        _ => return None,
    };
    Some(Fqdn { flags: *flags, label })
}

/// Octets under construction.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// A message of this type.
    pub fn message(kind: u8, transaction: [u8; 3]) -> Writer {
        let [a, b, c] = transaction;
        Writer(vec![kind, a, b, c])
    }

    /// Adds octets.
    pub fn put(&mut self, octets: &[u8]) {
        self.0.extend_from_slice(octets);
    }

    /// Adds an option around what `fill` writes. One that would be longer than its length can say is left out; nothing here
    /// comes near.
    pub fn option(&mut self, code: u16, fill: impl FnOnce(&mut Writer)) {
        let start = self.0.len();
        self.put(&code.to_be_bytes());
        self.put(&[0, 0]);
        fill(self);
        match u16::try_from(self.0.len() - start - 4) {
            Ok(length) => self.0[start + 2..start + 4].copy_from_slice(&length.to_be_bytes()),
            Err(_) => self.0.truncate(start),
        }
    }

    /// Adds a Status Code option.
    pub fn status(&mut self, status: Status, text: &str) {
        self.option(code::STATUS_CODE, |out| {
            out.put(&(status as u16).to_be_bytes());
            out.put(text.as_bytes());
        });
    }

    /// Adds an identity association with these times, around what `fill` writes.
    pub fn ia(&mut self, ia: &Ia, times: (u32, u32), fill: impl FnOnce(&mut Writer)) {
        self.option(ia.kind.code(), |out| {
            out.put(&ia.iaid.to_be_bytes());
            if ia.kind != IaKind::Ta {
                out.put(&times.0.to_be_bytes());
                out.put(&times.1.to_be_bytes());
            }
            fill(out);
        });
    }

    /// Adds an address with its preferred and valid lifetime in seconds.
    pub fn address(&mut self, address: Ipv6Addr, preferred: u32, valid: u32) {
        self.option(code::IA_ADDRESS, |out| {
            out.put(&address.octets());
            out.put(&preferred.to_be_bytes());
            out.put(&valid.to_be_bytes());
        });
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}
