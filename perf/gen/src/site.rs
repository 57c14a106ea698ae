//! A made-up site, of which everything follows from the number of a context.

use std::net::Ipv6Addr;

use dataplane::context::{Hasher, Install, Phase, Sharding};
use dataplane::snapshot::{Block, Classes, HostView, PortId, PortView, ProviderView, Role, Snapshot};
use dataplane::wire::ethernet::Mac;
use dataplane::wire::{ContextTag, Locator, LocatorPair, Ulid, UlidPair};

/// The port of the hosts.
pub const SITE: PortId = PortId(0);
/// The port of the provider.
pub const PROVIDER: PortId = PortId(1);
/// The box's address on both.
pub const BOX_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
/// Everybody else's.
pub const OTHER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
/// Hosts of the site; contexts are dealt out to them in turn.
pub const HOSTS: u32 = 256;
/// The largest IPv6 packet on either side: room for 1,500 octets with the payload header in front.
pub const MTU: u16 = 1600;

/// What all programs of one measurement agree on.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    contexts: u32,
    sharding: Sharding,
}

impl Site {
    /// A site with `contexts` contexts behind a box with `workers` workers.
    pub fn new(contexts: u32, workers: u8) -> Site {
        // A box draws its key at random. Here two processes must agree on which worker owns a pair, for the tag says so.
        let hasher = Hasher::new(std::array::from_fn(|at| (at * 41 + 7) as u8));
        Site { contexts, sharding: Sharding::new(hasher, workers) }
    }

    /// How many contexts there are; their numbers count from zero.
    pub fn contexts(&self) -> u32 {
        self.contexts
    }

    /// Who owns what.
    pub fn sharding(&self) -> Sharding {
        self.sharding
    }

    /// The identifiers of a context.
    #[inline]
    pub fn ulids(&self, context: u32) -> UlidPair {
        let local = address(0xfc00_000a_0000_0001, u64::from(context % HOSTS) + 16);
        UlidPair { local: Ulid(local), peer: Ulid(address(0xfc00_000b_0000_0001, context.into())) }
    }

    /// Its locators.
    #[inline]
    pub fn locators(&self, context: u32) -> LocatorPair {
        let local = address(0x2001_0db8_00a1_0001, u64::from(context % HOSTS) + 16);
        LocatorPair { local: Locator(local), peer: Locator(address(0x2001_0db8_00b1_0001, context.into())) }
    }

    /// The worker that owns it.
    #[inline]
    pub fn owner(&self, context: u32) -> u8 {
        self.sharding.owner_of_pair(&self.ulids(context))
    }

    /// The box's tag for it: box 0, its worker, and 37 bits that look random, the lowest of which are its slot in a table
    /// of [`Site::capacity`].
    #[inline]
    pub fn tag(&self, context: u32) -> ContextTag {
        let random = u64::from(context).wrapping_mul(0x9e37_79b9_7f4a_7c15) & ((1 << Sharding::WORKER_SHIFT) - 1);
        ContextTag::truncate(u64::from(self.owner(context)) << Sharding::WORKER_SHIFT | random)
    }

    /// Contexts each worker must have room for. Slots follow from numbers by a permutation, which takes a power of two; who
    /// shares the contexts with other workers has vacant slots between its own.
    pub fn capacity(&self) -> u32 {
        self.contexts.next_power_of_two()
    }

    /// The peer's tag for it.
    #[inline]
    pub fn peer_tag(&self, context: u32) -> ContextTag {
        ContextTag::truncate(u64::from(context) << 8 | 1)
    }

    /// What control says to its worker about it.
    pub fn install(&self, context: u32) -> Install {
        Install {
            handle: context.into(),
            ulids: self.ulids(context),
            default: true,
            classes: Classes::NONE,
            local_tag: self.tag(context),
            peer_tag: self.peer_tag(context),
            locators: self.locators(context),
            provider: 0,
            path: Default::default(),
            standby: None,
            host: context % HOSTS,
            inside: None,
            phase: Phase::Live,
            local_label: None,
            peer_label: None,
            narrow: false,
            udp: Default::default(),
            accepted: None,
        }
    }

    /// What all workers know.
    pub fn snapshot(&self) -> Snapshot {
        let own = address(0xfe80 << 48, 1);
        let port = |role| PortView { role, mac: BOX_MAC, mtu: MTU, own: vec![own], icmp_source: own, system: None };
        let provider = ProviderView {
            port: PROVIDER,
            prefix: 0x2001_0db8_00a1_0001,
            next_hop: address(0xfe80 << 48, 2),
            mac: Some(OTHER_MAC),
        };
        let host = |host| HostView { ulid: self.ulids(host).local, port: SITE, mac: Some(OTHER_MAC) };
        let hosts: Vec<HostView> = (0..HOSTS).map(host).collect();
        Snapshot {
            ports: vec![port(Role::Site), port(Role::Provider)],
            providers: vec![provider],
            host_index: hosts.iter().zip(0..).map(|(host, at)| (host.ulid, at)).collect(),
            hosts,
            site: Block::new(address(0xfc00_000a_0000_0000, 0), 48),
            mss_clamp: false,
            arrivals: false,
            classes: Vec::new(),
            name_servers: Vec::new(),
            udp_port: None,
            nat: None,
        }
    }
}

fn address(high: u64, low: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::context::Shard;

    #[test]
    fn each_context_has_a_slot_of_its_own() {
        for contexts in [1, 1000, 65_536] {
            let site = Site::new(contexts, 3);
            let slot = |context| Shard::slot_of(site.tag(context), site.capacity()).expect("a slot");
            let mut slots: Vec<u32> = (0..contexts).map(slot).collect();
            slots.sort_unstable();
            slots.dedup();
            assert_eq!(slots.len(), contexts as usize);
        }
    }

    #[test]
    fn the_tag_names_the_owner() {
        let site = Site::new(1000, 3);
        assert!((0..1000).all(|context| site.sharding().owner_of_tag(site.tag(context)) == Some(site.owner(context))));
        assert!((0..3).all(|worker| (0..1000).any(|context| site.owner(context) == worker)));
    }
}
