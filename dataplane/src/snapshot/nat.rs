//! What workers know of NATv6: who is known by which address outside, which provider new sessions take, and what makes a
//! session worth a context.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use super::{Block, PortId};
use crate::natv6::PrefixPair;
use crate::wire::checksum::Adjustment;
use crate::wire::ethernet::Mac;
use crate::wire::{Locator, Ulid};

/// The address a host is known by at one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// The address.
    pub locator: Locator,
    /// What putting it in the place of the host's own address does to a checksum.
    pub change: Adjustment,
}

/// Who is behind an outside address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// The host, as an index into the snapshot.
    pub host: u32,
    /// The provider that delegated the address, as an index into the snapshot.
    pub provider: u8,
}

/// Inside addresses that are no hosts of the box's and are translated all the same, by prefix (RFC 6296).
#[derive(Clone, Debug)]
pub struct Mapped {
    /// Where they are. What is inside and in none of these is not translated (R6296-014).
    pub subnets: Vec<Block>,
    /// The translator of each provider, in the order of the snapshot's; none where the provider has none.
    pub pairs: Vec<Option<PrefixPair>>,
    /// The port they are behind.
    pub port: PortId,
    /// Their link-layer addresses, as far as they are known; packets to others go to control, which asks for them.
    pub neighbours: HashMap<Ipv6Addr, Mac>,
}

impl Mapped {
    /// Whether an inside address is in a mapped subnet.
    pub fn has(&self, inside: Ipv6Addr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(inside))
    }

    /// Whether an address is in an outside prefix.
    #[inline]
    pub fn is_outside(&self, address: Ipv6Addr) -> bool {
        self.pairs.iter().flatten().any(|pair| pair.is_outside(address))
    }
}

/// What a host and a peer have to exchange before their traffic is worth a context. Each is enough; none means never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Packets, both directions together.
    pub packets: Option<u32>,
    /// Octets of IPv6 packets, both directions together.
    pub octets: Option<u64>,
    /// Milliseconds since the first packet, with no silence longer than [`NatView::idle_ms`].
    pub age_ms: Option<u64>,
    /// Milliseconds after which control is told again of traffic that goes on without a context.
    pub again_ms: u64,
}

/// Translation for peers without Shim6.
#[derive(Clone, Debug)]
pub struct NatView {
    /// Providers that are up, as indexes into the snapshot; new sessions take the first at which their host has an
    /// address.
    pub order: Vec<u8>,
    /// When traffic is worth a context.
    pub thresholds: Thresholds,
    /// Milliseconds of silence after which the provider of a session is forgotten.
    pub idle_ms: u64,
    /// Routable addresses by which Shim6 peers are known: never translated, a context is set up.
    pub peers: Vec<Block>,
    /// Blocks besides fc00::/7 whose addresses are identifiers, and nothing else.
    pub identifiers: Vec<Block>,
    /// Translation by prefix.
    pub mapped: Mapped,
    /// By host, then provider.
    outside: Vec<Option<Outside>>,
    providers: usize,
    images: HashMap<Ipv6Addr, Image>,
}

impl NatView {
    /// For a snapshot with `providers` providers; nobody has an outside address yet, no provider is up, and nothing is ever
    /// worth a context.
    pub fn new(providers: usize) -> NatView {
        NatView {
            order: Vec::new(),
            thresholds: Thresholds { packets: None, octets: None, age_ms: None, again_ms: 60_000 },
            // RFC 5382 REQ-5 asks for 2 hours and 4 minutes at least.
            idle_ms: 7_440_000,
            peers: Vec::new(),
            identifiers: Vec::new(),
            mapped: Mapped { subnets: Vec::new(), pairs: Vec::new(), port: PortId(0), neighbours: HashMap::new() },
            outside: Vec::new(),
            providers,
            images: HashMap::new(),
        }
    }

    /// Says that `host`, whose own address is `inside`, is known as `locator` at `provider`; both are indexes into the
    /// snapshot. Replaces what it was known as there. False if there is no such provider.
    pub fn set_outside(&mut self, host: u32, inside: Ulid, provider: u8, locator: Locator) -> bool {
        if usize::from(provider) >= self.providers {
            return false;
        }
        self.clear_outside(host, provider);
        let place = host as usize * self.providers + usize::from(provider);
        if self.outside.len() <= place {
            self.outside.resize(place + self.providers, None);
        }
        let change = Adjustment::between(&inside.0.octets(), &locator.0.octets());
        self.outside[place] = Some(Outside { locator, change });
        self.images.insert(locator.0, Image { host, provider });
        true
    }

    /// Takes away the address a host is known by at a provider.
    pub fn clear_outside(&mut self, host: u32, provider: u8) {
        let place = host as usize * self.providers + usize::from(provider);
        if let Some(old) = self.outside.get_mut(place).and_then(Option::take) {
            self.images.remove(&old.locator.0);
        }
    }

    /// What a host is known by at a provider.
    #[inline]
    pub fn outside(&self, host: u32, provider: u8) -> Option<&Outside> {
        if usize::from(provider) >= self.providers {
            return None;
        }
        self.outside.get(host as usize * self.providers + usize::from(provider))?.as_ref()
    }

    /// The host that is known by an address.
    #[inline]
    pub fn image(&self, address: Ipv6Addr) -> Option<Image> {
        self.images.get(&address).copied()
    }

    /// Whether packets to a destination outside the site are translated: not if it is unique local (RCM-001), and not if it
    /// is the identifier of a Shim6 peer.
    #[inline]
    pub fn translates(&self, target: Ipv6Addr) -> bool {
        !self.is_identifier(target) && !self.peers.iter().any(|block| block.contains(target))
    }

    /// Whether an address is of a block of identifiers, which nobody sends to or from outside a site.
    #[inline]
    pub fn is_identifier(&self, address: Ipv6Addr) -> bool {
        address.is_unique_local() || self.identifiers.iter().any(|block| block.contains(address))
    }

    /// Whether a provider is up.
    #[inline]
    pub fn is_up(&self, provider: u8) -> bool {
        self.order.contains(&provider)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn a_host_is_found_by_each_of_its_outside_addresses() {
        let mut nat = NatView::new(2);
        let (inside, x, y) = (Ulid(address("fc00::7")), address("2001:db8:1::7"), address("2001:db8:2::99"));
        assert!(nat.set_outside(3, inside, 0, Locator(x)));
        assert!(nat.set_outside(3, inside, 1, Locator(y)));
        assert!(!nat.set_outside(3, inside, 2, Locator(y)), "no such provider");
        assert_eq!(nat.image(x), Some(Image { host: 3, provider: 0 }));
        assert_eq!(nat.image(y), Some(Image { host: 3, provider: 1 }));
        assert_eq!(nat.outside(3, 1).map(|outside| outside.locator.0), Some(y));
        assert_eq!((nat.outside(2, 1), nat.outside(4, 0), nat.outside(2, 3)), (None, None, None));
        // Another address in its place: the old one is nobody's.
        let fresh = address("2001:db8:2::100");
        assert!(nat.set_outside(3, inside, 1, Locator(fresh)));
        assert_eq!((nat.image(y), nat.image(fresh)), (None, Some(Image { host: 3, provider: 1 })));
        nat.clear_outside(3, 0);
        assert_eq!((nat.image(x), nat.outside(3, 0)), (None, None));
    }
}
