//! What all workers need to know and control decides: ports, providers, hosts. Immutable; replaced as a whole.

mod class;
mod nat;

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

pub use self::class::{CLASSES_MAX, ClassView, Classes, Traits, has_ports};
pub use self::nat::{Image, Mapped, NatView, Outside, Thresholds};
use crate::wire::ethernet::Mac;
use crate::wire::ipv6::protocol;
use crate::wire::{Locator, Ulid, UlidPair};

/// A port of the box, as an index into [`Snapshot::ports`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u8);

/// What is behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Hosts of the site.
    Site,
    /// One or more providers.
    Provider,
    /// Nothing that is configured: whatever comes from there is dropped.
    Unused,
}

/// A port as workers see it.
#[derive(Clone, Debug)]
pub struct PortView {
    /// What is behind it.
    pub role: Role,
    /// Its link-layer address.
    pub mac: Mac,
    /// Largest IPv6 packet it carries.
    pub mtu: u16,
    /// The box's own addresses there, link-local ones included.
    pub own: Vec<Ipv6Addr>,
    /// Source of ICMPv6 errors sent there.
    pub icmp_source: Ipv6Addr,
    /// Addresses that the operating system has on an interface it shares this port by: a few. None if it has no such interface.
    pub system: Option<Vec<Ipv6Addr>>,
}

impl PortView {
    /// Whether a packet for this address is for the operating system and for nobody else: one of its addresses, or a group of
    /// the link in which routers talk. Groups of neighbour discovery and of DHCPv6 are the box's, which passes on what the system
    /// should hear as well.
    #[inline]
    pub fn is_system(&self, target: Ipv6Addr, next_header: u8) -> bool {
        let Some(addresses) = &self.system else { return false };
        if target.is_multicast() {
            let link_scope = target.segments()[0] & 0xff0f == 0xff02;
            let ours = matches!(next_header, protocol::ICMPV6 | protocol::HOP_BY_HOP) || target == ALL_DHCP;
            return link_scope && !ours;
        }
        addresses.contains(&target)
    }
}

/// All_DHCP_Relay_Agents_and_Servers (RFC 8415 §7.1).
const ALL_DHCP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// A provider as workers see it.
#[derive(Clone, Debug)]
pub struct ProviderView {
    /// Where it is.
    pub port: PortId,
    /// First 64 bits of the locators it delegated.
    pub prefix: u64,
    /// Its router.
    pub next_hop: Ipv6Addr,
    /// The router's link-layer address, once known.
    pub mac: Option<Mac>,
}

impl ProviderView {
    /// Whether a locator is one it delegated.
    #[inline]
    pub fn delegated(&self, locator: Locator) -> bool {
        (locator.0.to_bits() >> 64) as u64 == self.prefix
    }
}

/// A host of the site as workers see it.
#[derive(Clone, Copy, Debug)]
pub struct HostView {
    /// Its identifier.
    pub ulid: Ulid,
    /// Where it is.
    pub port: PortId,
    /// Its link-layer address, once known.
    pub mac: Option<Mac>,
}

/// A prefix, as a comparison of the first `length` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    bits: u128,
    mask: u128,
}

impl Block {
    /// The block of all addresses that share their first `length` bits (at most 128) with `address`.
    pub fn new(address: Ipv6Addr, length: u8) -> Block {
        let mask = match length {
            0 => 0,
            length => u128::MAX << (128 - u32::from(length.min(128))),
        };
        Block { bits: address.to_bits() & mask, mask }
    }

    /// The first 64 bits of all its addresses, and which of these bits they have in common.
    pub(crate) fn first_half(&self) -> (u64, u64) {
        ((self.bits >> 64) as u64, (self.mask >> 64) as u64)
    }

    /// Whether `address` lies in the block.
    #[inline]
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        address.to_bits() & self.mask == self.bits
    }
}

/// Everything workers share. Published whole; an old one goes back to control to be freed.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// By [`PortId`].
    pub ports: Vec<PortView>,
    /// By the index contexts name.
    pub providers: Vec<ProviderView>,
    /// By the index contexts name.
    pub hosts: Vec<HostView>,
    /// Where a host stands in `hosts`.
    pub host_index: HashMap<Ulid, u32>,
    /// The site's identifiers.
    pub site: Block,
    /// Whether segment sizes that hosts' TCP offers are made to fit with the payload header.
    pub mss_clamp: bool,
    /// Whether control wants to know by which provider payload of each context comes.
    pub arrivals: bool,
    /// Classes of traffic with contexts of their own, from number 1 on; at most [`CLASSES_MAX`].
    pub classes: Vec<ClassView>,
    /// Servers of names that the box asks: a few.
    pub name_servers: Vec<Ipv6Addr>,
    /// The port of Shim6 in UDP; none if nothing goes or comes so.
    pub udp_port: Option<u16>,
    /// Translation for peers without Shim6; none if there is none.
    pub nat: Option<Arc<NatView>>,
}

impl Snapshot {
    /// Whether an address is in a provider's prefix of locators.
    #[inline]
    pub fn delegated(&self, address: Ipv6Addr) -> bool {
        let prefix = (address.to_bits() >> 64) as u64;
        self.providers.iter().any(|provider| provider.prefix == prefix)
    }

    /// Whether an address is in a prefix that stands for mapped subnets.
    #[inline(never)]
    pub fn is_image(&self, address: Ipv6Addr) -> bool {
        self.nat.as_ref().is_some_and(|nat| nat.mapped.is_outside(address))
    }

    /// The pair whose hash names the owner of everything between a host and a peer. Where the local address is one that
    /// a host is known by outside, that is the pair with the address the host really has.
    pub fn steering(&self, pair: UlidPair) -> UlidPair {
        let image = self.nat.as_ref().and_then(|nat| nat.image(pair.local.0));
        let host = image.and_then(|image| self.hosts.get(image.host as usize));
        UlidPair { local: host.map_or(pair.local, |host| host.ulid), ..pair }
    }
}
