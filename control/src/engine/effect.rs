//! What follows from what the engine hears: things to be carried out, and things to be read about.

use std::sync::Arc;

use dataplane::context::{Install, Loss};
use dataplane::snapshot::{PortId, Snapshot};
use dataplane::wire::{ContextTag, LocatorPair, UlidPair};

use crate::{dhcp, reap, shim6};

/// Something for the driver to carry out, in order.
#[derive(Debug)]
pub enum Effect {
    /// Tell all workers that something is lost, or is back.
    Lose(Loss, bool),
    /// Tell a worker of a context.
    Install(usize, Install),
    /// Let a worker forget a context.
    Remove(usize, ContextTag),
    /// Let a worker send the last segment of a context in doubt again.
    Replay(usize, ContextTag),
    /// Let a worker give up on a pair.
    Refuse(usize, UlidPair),
    /// Send an Ethernet frame.
    Transmit(PortId, Vec<u8>),
    /// Let this worker send an Ethernet frame, after what it was told before.
    TransmitBy(usize, PortId, Vec<u8>),
    /// Give an Ethernet frame to the operating system, by its interface of this port.
    System(PortId, Vec<u8>),
    /// Give an Ethernet frame back to the workers: it is none of a context's.
    Plain(PortId, Vec<u8>),
    /// Give all workers this snapshot.
    Publish(Arc<Snapshot>),
    /// Worth a line in the log.
    Story(Story),
}

/// What an operator may want to read about.
#[derive(Clone, Debug, PartialEq)]
pub enum Story {
    /// A context can carry payload.
    Ready(UlidPair, LocatorPair, shim6::How),
    /// No context could be set up.
    Failed(UlidPair, shim6::FailReason),
    /// A context is gone.
    Gone(UlidPair, shim6::GoneReason),
    /// A context looks for another pair.
    Exploring(UlidPair, LocatorPair, reap::Reason),
    /// A context goes another way (RFC 5534 §9, R5534-112).
    Moved(UlidPair, LocatorPair, LocatorPair),
    /// A path drops next header 140, or no longer does.
    Carriage(reap::PathKey, bool),
    /// By the exchange with the peer's box a path is down, which it knew after so long, or back after so long.
    Liveness(reap::PathKey, bool, std::time::Duration),
    /// A provider's router can be reached, or not.
    Provider(String, bool),
    /// A peer took no forked context.
    ForkRefused(UlidPair, u32, shim6::FailReason),
    /// About the names that are kept elsewhere.
    Publish(crate::publish::Story),
    /// A peer complained.
    PeerError(u8, u16),
    /// A lease began or ended.
    Lease(dhcp::Told),
    /// A client found its address in use.
    LeaseDeclined(dhcp::Told),
    /// A client gets no address.
    LeaseRefused(dhcp::Told),
    /// A broken message of DHCPv6.
    DhcpMalformed(dhcp::Told),
    /// A relay or client that is not listened to.
    DhcpUnheard(dhcp::Told),
    /// A lease could not be written, so nobody was told of it.
    NotWritten(String),
    /// Nothing can be written to the store for this reason, or something can again.
    Store(Option<String>),
    /// The store that boxes share cannot be reached for this reason, or it can again.
    StoreAlone(Option<String>),
    /// Another box had changed the same; what became of it.
    StoreConflict(String),
    /// Another box goes by the name of this one, or none does any more.
    StoreName(Option<String>),
    /// A row of the store that boxes share cannot be read.
    StoreUnreadable(String),
    /// A client has a lease and cannot be served.
    NotServed(String, std::net::Ipv6Addr),
    /// What was found out about a provider's prefix and router.
    Found(crate::config::uplink::Found),
    /// A provider's server of prefixes said something odd.
    Delegation(String, dhcp::client::Note),
    /// Something about DNS.
    Names(crate::dns::Note),
}
