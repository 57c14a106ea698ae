//! Hosts that get their address by DHCPv6.

use std::net::Ipv6Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Leases and quarantine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeasesView {
    /// Whether the box serves DHCPv6. If not, nothing else is told.
    pub enabled: bool,
    /// The name the server goes by, in hex.
    pub server: String,
    /// `dhcp.leases_max`.
    pub leases_max: u64,
    /// Leases that clients have now.
    pub bound: u64,
    /// Addresses that are ready for new clients.
    pub ready: u64,
    /// Answers that wait to be written.
    pub waiting: u64,
    /// Clients that have a lease or had one, in order of their names.
    pub leases: Vec<LeaseView>,
    /// Addresses that are quarantined besides those of former clients.
    pub quarantined: Vec<HeldView>,
}

/// A client's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseView {
    /// What the host is called.
    pub name: String,
    /// The client, in hex.
    pub duid: String,
    /// Its identity association.
    pub iaid: u32,
    /// Its address.
    pub ulid: Ipv6Addr,
    /// What peers may reach it by.
    pub locators: Vec<Ipv6Addr>,
    /// Whether it may use them now.
    pub bound: bool,
    /// Seconds until the lease ends.
    pub left_s: u64,
    /// The relay it asked through, or its own address on the link.
    pub via: Option<Ipv6Addr>,
}

/// Addresses nobody may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeldView {
    /// The identifier among them.
    pub ulid: Ipv6Addr,
    /// Whether a client found it in use by somebody else.
    pub declined: bool,
    /// Seconds until they are free.
    pub left_s: u64,
}
