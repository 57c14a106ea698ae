//! What goes in and out of the client, and what is kept of it.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::super::Duid;
use crate::time::Instant;

/// What a client is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The box's name to DHCPv6.
    pub duid: Duid,
    /// The name of its association.
    pub iaid: u32,
    /// The length of prefix it would like to have; 0 if any is as good.
    pub hint: u8,
    /// Whether a server may answer a Solicit by a Reply.
    pub rapid_commit: bool,
}

/// A prefix that was delegated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delegated {
    /// Its address.
    pub prefix: Ipv6Addr,
    /// Its length.
    pub length: u8,
    /// When it is no longer preferred; never if that is not said.
    pub preferred: Option<Instant>,
    /// When it is nobody's any more.
    pub valid: Option<Instant>,
    /// Whether the server's last answer spoke of it.
    pub current: bool,
}

impl Delegated {
    /// Whether new sessions should not use it.
    pub fn is_deprecated(&self, now: Instant) -> bool {
        !self.current || self.preferred.is_some_and(|end| end <= now)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.valid.is_some_and(|end| end <= now)
    }
}

/// What survives a restart. Times are seconds since 1970, and nothing for what has no end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    pub(super) server: Duid,
    pub(super) t1: Option<u64>,
    pub(super) t2: Option<u64>,
    pub(super) prefixes: Vec<StoredPrefix>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredPrefix {
    pub(super) prefix: Ipv6Addr,
    pub(super) length: u8,
    pub(super) preferred: Option<u64>,
    pub(super) valid: Option<u64>,
    pub(super) current: bool,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to All_DHCP_Relay_Agents_and_Servers (RFC 8415 §7.1).
    Send(Vec<u8>),
    /// What is delegated is not what it was.
    Changed,
    /// Worth a line in the log.
    Note(Note),
}

/// What an operator may want to read about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A server has no prefix for us.
    Refused,
    /// A server offers only what cannot be used here.
    Unusable(Ipv6Addr, u8),
    /// A server knows nothing of what it delegated.
    Forgotten,
}

impl std::fmt::Display for Note {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Note::Refused => write!(out, "the server has no prefix for us"),
            Note::Unusable(prefix, length) => write!(out, "{prefix}/{length} was offered and cannot be used here"),
            Note::Forgotten => write!(out, "the server knows nothing of what it delegated: it is asked again"),
        }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is done, or no more.
    Idle,
    /// Servers are looked for.
    Soliciting,
    /// One is asked.
    Requesting,
    /// Nothing has to be asked.
    Bound,
    /// The server is asked for more time.
    Renewing,
    /// Any server is.
    Rebinding,
    /// The server is told that nothing is needed any more.
    Releasing,
}
