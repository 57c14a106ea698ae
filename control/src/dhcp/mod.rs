//! DHCPv6 for the hosts of the site (RFC 8415): one address of the site's own prefix for each IA_NA, with proof.
//!
//! [`Server`] is a machine without a clock, socket or file. In come the datagrams of clients and relays, new identities
//! and the news that something was written; out come [`Output`]s. What a client is told is written first: an answer that
//! gives, extends or ends a lease stays here until [`Server::persisted`] says that the change is on disk. So nothing a
//! client knows can be lost, wherever the box stops.
//!
//! An address is made for one client, over a fresh modifier, and never given to another: among 2^62 interface identifiers
//! nobody has to use one twice. A client gets its own back for as long as there is room to remember it. What is
//! quarantined is kept from everybody else meanwhile, hosts of the hosts file among them.
//!
//! | file | what it answers |
//! |---|---|
//! | `message` | octets to requests and back; bounds of everything a stranger may send |
//! | `options` | what clients are told besides their address |
//! | `relay` | relay messages around a request, and around its answer |
//! | `lease` | what is kept of a client |
//! | `book` | who has what until when, and how much of it one client or relay may have |
//! | `server` | RFC 8415 §18.3, message by message |
//! | `client` | the other side: prefixes that providers delegate (§18.2) |

mod book;
pub mod client;
mod config;
mod lease;
pub mod message;
pub mod options;
pub mod relay;
mod server;
#[cfg(test)]
mod tests;

pub use book::{Book, Refusal};
pub use config::{Config, Reservation};
pub use lease::{Change, Client, Held, Identity, Lease, State, Stored};
pub use message::{Duid, Malformed};
pub use server::{Incoming, Output, Server, Told, Verdict};

/// Where servers and relays listen (RFC 8415 §7.2).
pub const SERVER_PORT: u16 = 547;
/// Where clients listen.
pub const CLIENT_PORT: u16 = 546;
