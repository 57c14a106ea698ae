//! The box as an IPv6 node of its own: neighbour discovery and a small host stack on every port.
//!
//! `neighbours` speaks RFC 4861 for the box, in both directions: it answers for the box's own addresses and finds the
//! link-layer addresses of next hops and hosts. `mld` (RFC 3810) sees to it that solicitations arrive. `stack` is smoltcp on top of that, one interface per port, fed with IPv6
//! packets; it answers echo requests and carries the box's own TCP services. `datagram` is UDP without sockets,
//! and `discovery` finds routers where they are not configured.

pub mod advertise;
pub mod datagram;
pub mod discovery;
pub mod mld;
pub mod neighbours;
pub mod stack;
pub mod streams;

pub use advertise::{Advertisement, Advertiser};
pub use datagram::{Datagram, DatagramError};
pub use discovery::Discovery;
pub use mld::Listener;
pub use neighbours::{GivenUp, Kind, LinkEvent, Neighbours, OwnLink};
pub(crate) use stack::Queues;
pub use stack::Stack;
pub use streams::StreamEvent;
