//! Ground floor: bytes on one side, meaning on the other.
//!
//! Every *view* checks all lengths in its constructor, so its accessors are total. Every *repr* holds only what makes
//! sense, and offers `parse` and `emit`. `wire` imports nothing from its neighbours.

pub mod address;
pub mod bfd;
pub mod checksum;
pub mod ethernet;
pub mod icmpv6;
pub mod ipv6;
pub mod segment;
pub mod shim6;
pub mod tcp;

pub use address::{ContextTag, FlowLabel, Locator, LocatorPair, Ulid, UlidPair};
