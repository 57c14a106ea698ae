//! What may become of a packet.

use std::net::Ipv6Addr;

use crate::counters::DropReason;
use crate::link::Punt;
use crate::snapshot::PortId;
use crate::wire::shim6::UdpPorts;
use crate::wire::{ContextTag, LocatorPair, UlidPair};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look for a context.
    Lookup,
    /// Send it.
    Forward(PortId),
    /// Send it once the link-layer address of the next hop is known.
    Unresolved(PortId, Ipv6Addr),
    /// Keep it until its pair has a context.
    Hold(UlidPair),
    /// Give it to control.
    Punt(Punt),
    /// Tell control of a tag nobody knows, and how it came if that is in UDP, and drop it.
    UnknownTag(ContextTag, LocatorPair, Option<UdpPorts>),
    /// Give it to the worker that owns its context.
    HandOver(u8),
    /// Cut it into fragments of at most so many octets, and send them instead: with the payload header it does not fit the
    /// path, and is too short for its host to have to know.
    Fragment(u16),
    /// Answer it with an ICMPv6 error, and drop it.
    Reply(IcmpError),
    /// The same, for a reason that the error alone does not name.
    Refuse(IcmpError, DropReason),
    /// Drop it.
    Drop(DropReason),
}

/// An ICMPv6 error a packet may be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Packet Too Big, with the MTU to use.
    PacketTooBig(u32),
    /// Time Exceeded in transit.
    TimeExceeded,
    /// Destination Unreachable, address unreachable.
    AddressUnreachable,
    /// Destination Unreachable, source address failed ingress policy.
    SourcePolicy,
    /// Destination Unreachable, no route to destination.
    NoRoute,
    /// Parameter Problem, erroneous header field, with its offset.
    ParameterProblem(u32),
}
