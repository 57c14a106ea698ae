//! Hosts behind a router of the site's: what is not on the link of the box's port to the inside is sent to that router.
//!
//! The router is configured, or the operating system's routes name it. Workers know of it only that several hosts have the same
//! link-layer address.

use std::net::Ipv6Addr;
use std::sync::Arc;

use dataplane::snapshot::PortId;
use dataplane::wire::ethernet::Mac;

use super::{Effect, Engine};
use crate::time::Instant;

/// The router in front of the hosts.
#[derive(Debug, Default)]
pub(super) struct InnerRouter {
    /// As the configuration says.
    configured: Option<Ipv6Addr>,
    /// As the system's routes say.
    learned: Option<Ipv6Addr>,
    /// The one in use.
    in_use: Option<Ipv6Addr>,
}

impl Engine {
    /// The router that hosts are behind, if there is one.
    pub fn inner_router(&self) -> Option<Ipv6Addr> {
        self.inner.in_use
    }

    /// The configuration names this router, or none.
    pub(super) fn configure_inner_router(&mut self, now: Instant, router: Option<Ipv6Addr>, effects: &mut Vec<Effect>) {
        self.inner.configured = router;
        self.choose_inner_router(now, effects);
    }

    /// The system's routes lead to the hosts by this router, or by none. What is configured stands above it.
    pub fn learn_inner_router(&mut self, now: Instant, router: Option<Ipv6Addr>, effects: &mut Vec<Effect>) {
        let own = |address: &Ipv6Addr| self.lan_addresses.contains(address);
        self.inner.learned = router.filter(|router| !own(router));
        self.choose_inner_router(now, effects);
    }

    fn choose_inner_router(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let wanted = self.inner.configured.or(self.inner.learned);
        if wanted == self.inner.in_use {
            return;
        }
        let (lan, before) = (self.lan_port, std::mem::replace(&mut self.inner.in_use, wanted));
        if let Some(router) = wanted {
            self.neighbours.want(now, lan, router);
        }
        // A router that is a host as well is still looked after as a host is.
        if let Some(before) = before.filter(|before| self.host_at(lan, *before).is_none()) {
            let mut events = Vec::new();
            self.neighbours.forget(lan, before, &mut events);
            self.link_events(now, events, effects);
        }
        if self.spread_inner_router() {
            effects.push(Effect::Publish(self.snapshot.clone()));
        }
    }

    /// Where to send a packet for an address: to itself, or to the router it is behind.
    pub(super) fn hop_to(&self, port: PortId, address: Ipv6Addr) -> Ipv6Addr {
        match self.inner.in_use {
            Some(router) if self.is_behind_router(port, address) => router,
            _ => address,
        }
    }

    /// Whether an address is not on the link of the port to the inside, and there is a router.
    pub(super) fn is_behind_router(&self, port: PortId, address: Ipv6Addr) -> bool {
        if self.inner.in_use.is_none() || port != self.lan_port || self.inner.in_use == Some(address) {
            return false;
        }
        let link_local = address.segments()[0] & 0xffc0 == 0xfe80;
        let on_link =
            self.links.get(usize::from(port.0)).is_some_and(|it| it.iter().any(|block| block.contains(address)));
        !(link_local || on_link || address.is_multicast())
    }

    /// The link-layer address of the router.
    pub(super) fn inner_mac(&self) -> Option<Mac> {
        self.neighbours.mac(self.lan_port, self.inner.in_use?)
    }

    /// Everybody behind the router is where it is. Whether workers have to be told. Hosts that are behind none any more are
    /// looked for when something is sent to them.
    pub(super) fn spread_inner_router(&mut self) -> bool {
        let (lan, mac) = (self.lan_port, self.inner_mac());
        let behind = |engine: &Engine, address| engine.is_behind_router(lan, address);
        let place = |address| match behind(self, address) {
            true => mac,
            false => self.neighbours.mac(lan, address),
        };
        let hosts = self.snapshot.hosts.iter().enumerate();
        let live = |at: usize, ulid| self.snapshot.host_index.get(&ulid).is_some_and(|place| *place as usize == at);
        let moved: Vec<(usize, Option<Mac>)> = hosts
            .filter(|(at, host)| host.port == lan && live(*at, host.ulid))
            .map(|(at, host)| (at, host.mac, place(host.ulid.0)))
            .filter(|(_, before, after)| before != after)
            .map(|(at, _, after)| (at, after))
            .collect();
        let mapped = self.snapshot.nat.as_ref().map(|nat| &nat.mapped.neighbours);
        let mapped = mapped.into_iter().flatten().map(|(address, before)| (*address, Some(*before), place(*address)));
        let mapped: Vec<_> = mapped.filter(|(_, before, after)| before != after).collect();
        let changed = !(moved.is_empty() && mapped.is_empty());
        if !moved.is_empty() {
            let snapshot = Arc::make_mut(&mut self.snapshot);
            for (at, mac) in moved {
                snapshot.hosts[at].mac = mac;
            }
        }
        for (address, _, mac) in mapped {
            self.note_mapped(lan, address, mac);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::LinkEvent;
    use crate::sim::{Plan, World};

    const LAN: PortId = PortId(0);

    fn address(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    /// What is sent, and where to, of frames of ours.
    fn stations(effects: &[Effect]) -> Vec<Mac> {
        let frames = effects.iter().filter_map(|effect| match effect {
            Effect::Transmit(LAN, frame) => Some(Mac(frame[..6].try_into().unwrap())),
            _ => None,
        });
        frames.collect()
    }

    #[test]
    fn hosts_behind_a_router_are_where_it_is_and_follow_it() {
        let mut world = World::new(&Plan::default(), 1);
        let (host, now) = (world.hosts[0].ulid, world.now);
        let engine = &mut world.nodes[0].engine;
        // The hosts' network is not that of the link.
        engine.links[0] = vec![dataplane::snapshot::Block::new(address("fe80::"), 64)];
        let (first, second) = (address("fe80::91"), address("fe80::92"));
        let (one, two) = (Mac([2, 0, 0, 0, 0, 0x91]), Mac([2, 0, 0, 0, 0, 0x92]));
        let mac_of = |engine: &Engine| engine.snapshot.hosts[engine.host_at(LAN, host).unwrap()].mac;
        let mut effects = Vec::new();
        engine.learn_inner_router(now, Some(first), &mut effects);
        assert_eq!((engine.inner_router(), mac_of(engine)), (Some(first), None));
        assert_eq!((engine.hop_to(LAN, host), engine.hop_to(LAN, address("fe80::5"))), (first, address("fe80::5")));
        // A packet for the host waits for the router.
        engine.unresolved(now, LAN, host, &[0; 60], &mut effects);
        let learn = |engine: &mut Engine, router: Ipv6Addr, mac, effects: &mut Vec<Effect>| {
            let mut events = Vec::new();
            engine.neighbours.remember(now, LAN, router, mac, &mut events);
            engine.link_events(now, events, effects);
        };
        effects.clear();
        learn(engine, first, one, &mut effects);
        assert_eq!(mac_of(engine), Some(one));
        assert!(matches!(effects[..], [Effect::Publish(_), Effect::Transmit(..)]), "{effects:?}");
        assert_eq!(stations(&effects), [one]);
        // What a stranger says of a host changes nothing.
        engine.link_events(now, vec![LinkEvent::Resolved(LAN, host, two)], &mut effects);
        assert_eq!(mac_of(engine), Some(one));
        // Another router: nobody is known to be there until it is found.
        engine.learn_inner_router(now, Some(second), &mut effects);
        assert_eq!(mac_of(engine), None);
        learn(engine, second, two, &mut effects);
        assert_eq!(mac_of(engine), Some(two));
        effects.clear();
        engine.send_frame(now, LAN, host, vec![0; 60], &mut effects);
        assert_eq!(stations(&effects), [two]);
        // Configured stands above learned; and without any, hosts are neighbours again.
        learn(engine, first, one, &mut effects);
        engine.configure_inner_router(now, Some(first), &mut effects);
        engine.learn_inner_router(now, None, &mut effects);
        assert_eq!(engine.inner_router(), Some(first));
        engine.configure_inner_router(now, None, &mut effects);
        assert_eq!((engine.inner_router(), mac_of(engine)), (None, None));
        assert_eq!(engine.hop_to(LAN, host), host);
    }

    #[test]
    fn hosts_on_the_link_stay_neighbours_whatever_routers_there_are() {
        let mut world = World::new(&Plan::default(), 1);
        let (host, now) = (world.hosts[0].ulid, world.now);
        let engine = &mut world.nodes[0].engine;
        assert!(engine.links[0].iter().any(|block| block.contains(host)), "as the plan has it");
        let mut effects = Vec::new();
        engine.learn_inner_router(now, Some(address("fe80::91")), &mut effects);
        assert_eq!(engine.hop_to(LAN, host), host);
        let mac = Mac([2, 0, 0, 0, 0, 7]);
        engine.link_events(now, vec![LinkEvent::Resolved(LAN, host, mac)], &mut effects);
        assert_eq!(engine.snapshot.hosts[engine.host_at(LAN, host).unwrap()].mac, Some(mac));
        let own = engine.lan_addresses[0];
        engine.learn_inner_router(now, Some(own), &mut effects);
        assert_eq!(engine.inner_router(), None, "the box is not behind itself");
    }
}
