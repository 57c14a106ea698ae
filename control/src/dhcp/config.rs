//! What the operator decides about leases.

use std::net::Ipv6Addr;

use super::message::Duid;
use super::options::PolicyRow;

/// A server's settings. Times in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The server's own name.
    pub duid: Duid,
    /// The /64 the clients' addresses lie in.
    pub link: Ipv6Addr,
    /// Preferred lifetime of an address.
    pub preferred: u32,
    /// Its valid lifetime, not shorter.
    pub valid: u32,
    /// Valid lifetime of a new client's first lease when more than half of the places are taken: what an attacker takes
    /// comes back soon.
    pub trial: u32,
    /// When clients ask for an extension.
    pub t1: u32,
    /// When they ask anybody.
    pub t2: u32,
    /// Whether a Solicit may be answered by a Reply (RFC 8415 §21.14).
    pub rapid_commit: bool,
    /// Server preference in Advertises; 0 is not sent.
    pub preference: u8,
    /// DNS servers.
    pub dns: Vec<Ipv6Addr>,
    /// Domains that are searched.
    pub search: Vec<String>,
    /// The hosts' policy table for address selection; none is sent if empty.
    pub policy: Vec<PolicyRow>,
    /// The flags beside it (RFC 7078 §3).
    pub policy_flags: u8,
    /// Clients that may have an address at one time, those with a reservation among them.
    pub leases_max: usize,
    /// Addresses of one client.
    pub per_client_max: usize,
    /// Leases of clients that ask from one address of the link.
    pub per_source_max: usize,
    /// Leases of clients behind one relay.
    pub per_relay_max: usize,
    /// How long addresses are kept from others.
    pub quarantine: u64,
    /// Clients that always have a place.
    pub reservations: Vec<Reservation>,
    /// Relays that are listened to, as prefixes; all on the link if empty.
    pub relays: Vec<(Ipv6Addr, u8)>,
}

/// A client that always has a place, under a name of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Who.
    pub duid: Duid,
    /// Which of its associations; any of them, if it is not said.
    pub iaid: Option<u32>,
    /// What people call the host.
    pub name: String,
}

impl Config {
    /// Whether an address is one clients of this link have.
    pub fn on_link(&self, address: Ipv6Addr) -> bool {
        address.to_bits() >> 64 == self.link.to_bits() >> 64
    }

    /// The reservation of a client.
    pub fn reserved(&self, duid: &Duid, iaid: u32) -> Option<&Reservation> {
        let matches = |it: &&Reservation| it.duid == *duid && it.iaid.is_none_or(|wanted| wanted == iaid);
        self.reservations.iter().find(matches)
    }

    /// Whether messages of this relay are looked at.
    pub fn hears(&self, relay: Ipv6Addr) -> bool {
        let covers = |(prefix, length): &(Ipv6Addr, u8)| {
            let shift = 128 - u32::from(*length).min(128);
            let head = |address: &Ipv6Addr| address.to_bits().checked_shr(shift).unwrap_or(0);
            head(prefix) == head(&relay)
        };
        if self.relays.is_empty() { true } else { self.relays.iter().any(covers) }
    }
}
