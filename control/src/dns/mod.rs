//! DNS for the site's hosts, and what the box learns from it.
//!
//! Hosts ask the box. Names whose owners publish a ULID record are answered with the CMULA alone, and their addresses are
//! remembered as the peer's locators; everything else is passed through as it came. Locators from here are hints: they are
//! where a handshake is tried, and HBA or CGA prove them later. The machines are pure: octets, time and randomness come in,
//! octets and what was learned go out.
//!
//! | file | what it answers |
//! |---|---|
//! | `name` | what a name is, and an address's name |
//! | `view` | where everything lies in a message somebody sent |
//! | `message` | what a host asks, and how an answer is kept and given out |
//! | `compose` | answers the box makes itself |
//! | `follow` | where a chain of aliases ends |
//! | `cache` | what may still be used, within bounds |
//! | `upstream` | questions on their way: servers, ports, time-outs, TCP |
//! | `zone` | the site's own names |
//! | `alg` | what a host's question becomes |
//! | `job` | one question of hosts while it is being answered |
//! | `legacy` | IPv4 addresses of names that have a CMULA |
//! | `reverse` | who is behind a CMULA nobody asked about |
//! | `counts` | everything that is counted or told |

mod alg;
pub mod cache;
pub mod compose;
mod counts;
mod follow;
mod job;
mod legacy;
pub mod message;
pub mod name;
mod reverse;
#[cfg(test)]
mod tests;
pub mod upstream;
pub mod view;
pub mod zone;

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::wire::{Locator, Ulid};

pub use alg::{Alg, Status};
pub use cache::{Bounds, Counts as CacheCounts};
pub use counts::{Counted, Event, MEANINGS, Note};
pub use legacy::Choice;
pub use message::PAYLOAD_MAX;
pub use name::{Name, NameError};
pub use upstream::{Server, ServerCounts};
pub use zone::Identifiers;

/// The port of DNS.
pub const PORT: u16 = 53;
/// Type of the ULID record, of those for private use (RFC 6895 §3.1), unless the operator has another.
pub const ULID_KIND: u16 = 65_280;

/// An address and a port.
pub type Socket = (Ipv6Addr, u16);

/// A UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From where.
    pub source: Socket,
    /// To where.
    pub target: Socket,
    /// What it says.
    pub payload: Vec<u8>,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// A host, at the port it asked from, that asked this address of the box.
    Datagram(Socket, Socket),
    /// A host, over a connection with this number.
    Stream(Ipv6Addr, u64),
}

impl Client {
    /// The host.
    pub fn host(&self) -> Ipv6Addr {
        match self {
            Client::Datagram((host, _), _) | Client::Stream(host, _) => *host,
        }
    }
}

/// Who is behind a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Its identifiers, in the order of the answer; without the site's own hosts.
    pub ulids: Vec<Ulid>,
    /// Where it may be reached. Which of several hosts has which of them is for HBA or CGA to tell.
    pub locators: Vec<Locator>,
}

/// What the machines want done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Give a host its answer.
    Reply(Client, Vec<u8>),
    /// Send a question to a server.
    Send(Packet),
    /// Send a message over the connection to a server (by its place), which may have to be made first.
    Stream(usize, Vec<u8>),
    /// The host whose reply comes next is told of a peer: it may be about to send. The locators are good for this long.
    Asked(Ipv6Addr, Arc<Learned>, Duration),
    /// Who a host wanted to reach without asking: none if nobody could be found.
    Located(Ulid, Ulid, Option<(Arc<Learned>, Duration)>),
    /// Give a host one of two answers.
    Choose(Box<Choice>),
    /// Something an operator may want to read about.
    Note(Note),
}

/// What an ALG is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Servers to ask, those to prefer first.
    pub upstream: Vec<Ipv6Addr>,
    /// Type of the ULID record.
    pub ulid_kind: u16,
    /// The site's zone, if it has one.
    pub zone: Option<Name>,
    /// Which identifiers are believed.
    pub identifiers: Identifiers,
    /// Bounds of what is kept.
    pub cache: Bounds,
    /// Whether hosts may have to do without IPv4 addresses of names that have a CMULA.
    pub withholds: bool,
}
