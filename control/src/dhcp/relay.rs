//! Relay messages (RFC 8415 §9, §19): around a client's message on its way here, and around the answer on its way back.
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |    msg-type   |   hop-count   |                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+     link-address (128 bits)   |
//! |                                 ...                           |
//! |                               |-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-|
//! |                               |     peer-address (128 bits)   |
//! |                                 ...                           |
//! |                               |       options (variable)      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::net::Ipv6Addr;

use super::message::{Malformed, Options, Writer, code};

/// msg-type of a message on its way to the server.
pub const FORWARD: u8 = 12;
/// msg-type of one on its way back.
pub const REPLY: u8 = 13;
/// Most relays in a row: HOP_COUNT_LIMIT (RFC 8415 §7.6), counted from 0.
pub const HOPS_MAX: usize = 9;
/// Longest Interface-Id that is sent back.
pub const INTERFACE_ID_MAX: usize = 255;

/// One relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// How many relays were passed before.
    pub count: u8,
    /// An address of the link the client, or the relay before, is on; unspecified if the relay knows none.
    pub link: Ipv6Addr,
    /// From whom the relay had the message.
    pub peer: Ipv6Addr,
    /// What the relay wants back to know where to send the answer.
    pub interface: Option<Vec<u8>>,
}

/// Whether a datagram comes from a relay.
pub fn is_relayed(octets: &[u8]) -> bool {
    octets.first() == Some(&FORWARD)
}

/// The relays a message came through, the nearest to the server first, and what is inside. Nothing inside is no relay's.
pub fn unwrap(octets: &[u8]) -> Result<(Vec<Hop>, &[u8]), Malformed> {
    let (mut hops, mut inner) = (Vec::new(), octets);
    while is_relayed(inner) {
        if hops.len() == HOPS_MAX {
            return Err(Malformed::TooMany);
        }
        let (header, rest) = inner.split_first_chunk::<34>().ok_or(Malformed::Length)?;
        let address = |at: usize| {
            let octets = header.get(at..).and_then(<[u8]>::first_chunk::<16>).copied();
            Ipv6Addr::from(octets.unwrap_or_default())
        };
        let mut hop = Hop { count: header[1], link: address(2), peer: address(18), interface: None };
        let mut message = None;
        for (code, data) in Options::new(rest)?.iter() {
            let twice = match code {
                code::RELAY_MESSAGE => message.replace(data).is_some(),
                code::INTERFACE_ID if data.len() > INTERFACE_ID_MAX => return Err(Malformed::Option),
                code::INTERFACE_ID => hop.interface.replace(data.to_vec()).is_some(),
                _ => false,
            };
            if twice {
                return Err(Malformed::Duplicate);
            }
        }
        hops.push(hop);
        inner = message.ok_or(Malformed::Validation)?;
    }
    Ok((hops, inner))
}

/// The answer for the way back through these relays (§19.3).
pub fn wrap(hops: &[Hop], answer: Vec<u8>) -> Vec<u8> {
    hops.iter().rev().fold(answer, |answer, hop| {
        let mut out = Writer::default();
        out.put(&[REPLY, hop.count]);
        out.put(&hop.link.octets());
        out.put(&hop.peer.octets());
        if let Some(interface) = &hop.interface {
            out.option(code::INTERFACE_ID, |out| out.put(interface));
        }
        out.option(code::RELAY_MESSAGE, |out| out.put(&answer));
        out.finish()
    })
}

/// The link the client is on, as the relay nearest to it that knows says (§13.1); none if no relay says any.
pub fn link_of(hops: &[Hop]) -> Option<Ipv6Addr> {
    hops.iter().rev().map(|hop| hop.link).find(|link| !link.is_unspecified())
}
