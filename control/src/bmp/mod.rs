//! What the site's routers say of the routes their providers give them: a station for the BGP Monitoring Protocol (RFC 7854).
//!
//! A router tells, over one TCP connection that it opens, which routes each of its BGP neighbours has given it. Of all that the
//! box wants one answer: does this provider still have a route to that peer's /64? It asks for the /64s it has contexts to, and
//! hears of it when a route that was there is gone, and when it is there again. What follows is the engine's to say
//! (`engine/routes.rs`): a router's word is a hint, and whatever is seen on the path itself overrules it.
//!
//! | file | what it is |
//! |---|---|
//! | `message` | octets to BMP messages |
//! | `bgp` | of the BGP messages within: what OPENs agree on, and which IPv6 prefixes an UPDATE is about |
//! | `table` | the prefixes of one BGP session, and which of the /64s asked about they cover |
//! | `station` | routers, their sessions, and what all that says of each provider; no socket, no clock |
//! | `counts` | what happened, counted |
//! | `server` | the thread with the sockets |
//!
//! Nothing is concluded from silence: before a table is complete, when a router is gone or has not spoken for long, what it said
//! does not count, in either direction.

pub mod bgp;
mod counts;
pub mod message;
pub mod server;
pub mod station;
pub mod table;

pub use counts::{Count, Counts};
pub use station::{Change, ConnectionId, Phase, Refused, RouterStatus, SourceStatus, Station, Status};
