//! ICMPv6 (RFC 4443): errors with the packet they are about, echoes, and what kind everything else is.
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |     Type      |     Code      |          Checksum             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |    Unused, MTU, Pointer, or Identifier and Sequence Number    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |      As much of invoking packet as fits 1280, or data         |
//! ```
//!
//! A [`View`] that exists has its eight octets; whether the checksum is right is asked with [`View::verifies`], since
//! that takes addresses. A [`Message`] is the meaning of one. [`emit_error`] makes the whole packet of an error, and
//! [`may_answer`] says when there must be none.

use std::net::Ipv6Addr;

use crate::wire::checksum;
use crate::wire::ipv6::{self, HEADER_LEN, MIN_MTU, protocol};

/// Octets before the quote or the data.
pub const FIXED_LEN: usize = 8;
/// Octets of an invoking packet an error may quote: the error stays within 1280 (RFC 4443 §2.4 (c)).
pub const QUOTE_MAX: usize = MIN_MTU - HEADER_LEN - FIXED_LEN;

const DESTINATION_UNREACHABLE: u8 = 1;
const PACKET_TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
const PARAMETER_PROBLEM: u8 = 4;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
const REDIRECT: u8 = 137;

/// Codes of Destination Unreachable (RFC 4443 §3.1).
pub mod unreachable {
    /// No route to destination.
    pub const NO_ROUTE: u8 = 0;
    /// Communication administratively prohibited.
    pub const PROHIBITED: u8 = 1;
    /// Beyond scope of source address.
    pub const BEYOND_SCOPE: u8 = 2;
    /// Address unreachable.
    pub const ADDRESS: u8 = 3;
    /// Port unreachable: the one that means the destination is there.
    pub const PORT: u8 = 4;
    /// Source address failed ingress or egress policy.
    pub const SOURCE_POLICY: u8 = 5;
    /// Reject route to destination.
    pub const REJECT_ROUTE: u8 = 6;
}

/// Codes of Time Exceeded (RFC 4443 §3.3).
pub mod exceeded {
    /// Hop limit exceeded in transit.
    pub const HOP_LIMIT: u8 = 0;
    /// Fragment reassembly time exceeded.
    pub const REASSEMBLY: u8 = 1;
}

/// Codes of Parameter Problem (RFC 4443 §3.4).
pub mod parameter {
    /// Erroneous header field.
    pub const FIELD: u8 = 0;
    /// Unrecognized Next Header type: the answer to a first Shim6 message of someone who has no Shim6.
    pub const NEXT_HEADER: u8 = 1;
    /// Unrecognized IPv6 option.
    pub const OPTION: u8 = 2;
}

/// What a type is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Below 128: something went wrong with a packet.
    Error,
    /// Echo request or reply.
    Echo,
    /// Router and neighbour solicitations and advertisements, and redirects (RFC 4861): link-local business.
    NeighborDiscovery,
    /// Queries, reports and dones (RFC 2710, RFC 3810): link-local business too.
    MulticastListener,
    /// Any other information.
    Other,
}

impl Class {
    /// The class of a type.
    #[inline]
    pub const fn of(kind: u8) -> Class {
        match kind {
            0..=127 => Class::Error,
            ECHO_REQUEST | ECHO_REPLY => Class::Echo,
            130..=132 | 143 => Class::MulticastListener,
            133..=REDIRECT => Class::NeighborDiscovery,
            _ => Class::Other,
        }
    }
}

/// A message shorter than eight octets; no type has fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ICMPv6 message cut short")]
pub struct Truncated;

/// A message where it lies.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    fixed: &'a [u8; FIXED_LEN],
    body: &'a [u8],
    octets: &'a [u8],
}

impl<'a> View<'a> {
    /// A view of `octets`, which are all that follows the IPv6 header chain.
    ///
    /// # Errors
    /// [`Truncated`] when there are fewer than eight.
    #[inline]
    pub fn new(octets: &'a [u8]) -> Result<View<'a>, Truncated> {
        let (fixed, body) = octets.split_first_chunk().ok_or(Truncated)?;
        Ok(View { fixed, body, octets })
    }

    /// Type.
    #[inline]
    pub fn kind(&self) -> u8 {
        self.fixed[0]
    }

    /// Code.
    #[inline]
    pub fn code(&self) -> u8 {
        self.fixed[1]
    }

    /// What the type is about.
    #[inline]
    pub fn class(&self) -> Class {
        Class::of(self.kind())
    }

    /// The checksum as it stands.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.fixed[2], self.fixed[3]])
    }

    /// Whether the checksum is right between these addresses. Behind a Shim6 payload header these are the ULIDs.
    pub fn verifies(&self, source: Ipv6Addr, target: Ipv6Addr) -> bool {
        checksum::upper_layer_verifies(source, target, protocol::ICMPV6, self.octets)
    }

    /// The four octets before the body: MTU, pointer, or identifier and sequence number.
    #[inline]
    pub fn word(&self) -> u32 {
        u32::from_be_bytes([self.fixed[4], self.fixed[5], self.fixed[6], self.fixed[7]])
    }

    /// All octets after the first eight.
    #[inline]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The packet an error is about, as far as it is quoted; empty in other messages. Where RFC 4884 extensions
    /// follow it, they are left out.
    pub fn quote(&self) -> &'a [u8] {
        self.split_body().0
    }

    /// The extension structure of RFC 4884 behind the quote, or nothing.
    pub fn extensions(&self) -> &'a [u8] {
        self.split_body().1
    }

    /// Quote and extensions. The length attribute counts eight octets and stands in the first octet of the unused
    /// word of Destination Unreachable and Time Exceeded (RFC 4884 §4.4, §4.5). One that is past the end is no length.
    fn split_body(&self) -> (&'a [u8], &'a [u8]) {
        match self.kind() {
            DESTINATION_UNREACHABLE | TIME_EXCEEDED if self.fixed[4] != 0 => {
                self.body.split_at_checked(usize::from(self.fixed[4]) * 8).unwrap_or((self.body, &[]))
            }
            _ if self.class() == Class::Error => (self.body, &[]),
            _ => (&[], &[]),
        }
    }
}

/// What a message means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// One of the errors with a format of their own.
    Error {
        /// Which.
        error: Error,
        /// The invoking packet, as far as it is there.
        quote: &'a [u8],
    },
    /// Echo Request (RFC 4443 §4.1).
    EchoRequest(Echo<'a>),
    /// Echo Reply (§4.2).
    EchoReply(Echo<'a>),
    /// Anything else, uninterpreted.
    Other {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The four octets after the checksum.
        word: u32,
        /// What follows them.
        body: &'a [u8],
    },
}

/// An error message without its quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The packet cannot be delivered (RFC 4443 §3.1).
    DestinationUnreachable {
        /// One of [`mod@unreachable`].
        code: u8,
    },
    /// The next link takes no packet of this length (§3.2).
    PacketTooBig {
        /// The length it takes, in octets.
        mtu: u32,
    },
    /// The packet was on the way too long (§3.3).
    TimeExceeded {
        /// One of [`exceeded`].
        code: u8,
    },
    /// The packet cannot be understood (§3.4).
    ParameterProblem {
        /// One of [`parameter`].
        code: u8,
        /// Offset of the culprit in the invoking packet, in octets.
        pointer: u32,
    },
}

/// Echo Request and Echo Reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// To match replies with requests.
    pub identifier: u16,
    /// To match replies with requests.
    pub sequence: u16,
    /// Arbitrary.
    pub data: &'a [u8],
}

impl Error {
    /// Type, code and the word after the checksum.
    const fn fields(self) -> (u8, u8, u32) {
        match self {
            Error::DestinationUnreachable { code } => (DESTINATION_UNREACHABLE, code, 0),
            Error::PacketTooBig { mtu } => (PACKET_TOO_BIG, 0, mtu),
            Error::TimeExceeded { code } => (TIME_EXCEEDED, code, 0),
            Error::ParameterProblem { code, pointer } => (PARAMETER_PROBLEM, code, pointer),
        }
    }

    /// Whether the error may answer a packet that was sent to many: the two exceptions of RFC 4443 §2.4 (e.3).
    const fn may_answer_multicast(self) -> bool {
        matches!(self, Error::PacketTooBig { .. } | Error::ParameterProblem { code: parameter::OPTION, .. })
    }
}

impl<'a> Message<'a> {
    /// What a message means. Its checksum has been looked at elsewhere, or need not be, as in a quote.
    pub fn parse(view: &View<'a>) -> Message<'a> {
        let (code, word, quote) = (view.code(), view.word(), view.quote());
        let echo = Echo { identifier: (word >> 16) as u16, sequence: word as u16, data: view.body() };
        let error = match view.kind() {
            DESTINATION_UNREACHABLE => Error::DestinationUnreachable { code },
            PACKET_TOO_BIG => Error::PacketTooBig { mtu: word },
            TIME_EXCEEDED => Error::TimeExceeded { code },
            PARAMETER_PROBLEM => Error::ParameterProblem { code, pointer: word },
            ECHO_REQUEST => return Message::EchoRequest(echo),
            ECHO_REPLY => return Message::EchoReply(echo),
            kind => return Message::Other { kind, code, word, body: view.body() },
        };
        Message::Error { error, quote }
    }

    /// Octets of the message.
    pub const fn buffer_len(&self) -> usize {
        FIXED_LEN + self.body().len()
    }

    /// The octets of the message, with its checksum between these addresses. Unused fields are zero.
    pub fn emit(&self, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.buffer_len());
        out.extend_from_slice(&fixed_part(self.fields()));
        out.extend_from_slice(self.body());
        let checksum = checksum::upper_layer(source, target, protocol::ICMPV6, &out);
        out[2..4].copy_from_slice(&checksum.to_be_bytes());
        out
    }

    const fn fields(&self) -> (u8, u8, u32) {
        match self {
            Message::Error { error, .. } => error.fields(),
            Message::EchoRequest(echo) => (ECHO_REQUEST, 0, echo.word()),
            Message::EchoReply(echo) => (ECHO_REPLY, 0, echo.word()),
            Message::Other { kind, code, word, .. } => (*kind, *code, *word),
        }
    }

    const fn body(&self) -> &'a [u8] {
        match self {
            Message::Error { quote, .. } => quote,
            Message::EchoRequest(echo) | Message::EchoReply(echo) => echo.data,
            Message::Other { body, .. } => body,
        }
    }
}

impl Echo<'_> {
    const fn word(&self) -> u32 {
        (self.identifier as u32) << 16 | self.sequence as u32
    }
}

/// The first eight octets, checksum zero.
fn fixed_part((kind, code, word): (u8, u8, u32)) -> [u8; FIXED_LEN] {
    let [a, b, c, d] = word.to_be_bytes();
    [kind, code, 0, 0, a, b, c, d]
}

/// Writes into `out` the whole packet of an error about `invoking`, from `source` to whoever sent that, quoting as much
/// as 1280 octets leave room for, and gives back the octets written. Allocates nothing. Ask [`may_answer`] first.
pub fn emit_error<'o>(
    out: &'o mut [u8; MIN_MTU],
    error: Error,
    source: Ipv6Addr,
    hop_limit: u8,
    invoking: &ipv6::View<'_>,
) -> &'o [u8] {
    let target = invoking.source();
    let quoted = invoking.payload().len().min(QUOTE_MAX - HEADER_LEN);
    let message_len = FIXED_LEN + HEADER_LEN + quoted;
    let header = ipv6::Repr {
        source,
        target,
        next_header: protocol::ICMPV6,
        payload_len: message_len as u16,
        hop_limit,
        traffic_class: 0,
        flow_label: 0,
    };
    let (packet, _) = out.split_at_mut(HEADER_LEN + message_len);
    packet[..40].copy_from_slice(&header.emit());
    packet[40..48].copy_from_slice(&fixed_part(error.fields()));
    packet[48..88].copy_from_slice(invoking.header());
    packet[88..].copy_from_slice(&invoking.payload()[..quoted]);
    let checksum = checksum::upper_layer(source, target, protocol::ICMPV6, &packet[40..]);
    packet[42..44].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Why a packet must not be answered by an error (RFC 4443 §2.4 (e)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// It is an ICMPv6 error itself, or may be one and does not let itself be read.
    #[error("answer to an ICMPv6 error")]
    Error,
    /// It is a redirect.
    #[error("answer to a redirect")]
    Redirect,
    /// It was sent to many.
    #[error("answer to a multicast")]
    Multicast,
    /// Its source is not one node.
    #[error("source is not a single node")]
    Source,
}

/// Whether `error` may be sent about `invoking`. `to_many` says that it came as a link-layer multicast or broadcast.
/// Limiting the rate (RFC 4443 §2.4 (f)) is left to the caller.
///
/// # Errors
/// [`Silence`], the reason why not.
pub fn may_answer(error: Error, invoking: &ipv6::View<'_>, to_many: bool) -> Result<(), Silence> {
    let source = invoking.source();
    if source.is_unspecified() || source.is_multicast() || source.is_loopback() {
        return Err(Silence::Source);
    }
    if (to_many || invoking.target().is_multicast()) && !error.may_answer_multicast() {
        return Err(Silence::Multicast);
    }
    // Headers that cannot be followed may hide an error, and so may a later fragment of ICMPv6: better silent once
    // than two boxes answering each other.
    let upper = invoking.upper_layer().map_err(|_| Silence::Error)?;
    if upper.place.next_header != protocol::ICMPV6 {
        return Ok(());
    }
    let kind = invoking.from_offset(upper.place.offset).first().filter(|_| upper.first_fragment);
    match kind {
        Some(&REDIRECT) => Err(Silence::Redirect),
        Some(kind) if Class::of(*kind) != Class::Error => Ok(()),
        _ => Err(Silence::Error),
    }
}

#[cfg(test)]
mod tests;
