//! Peers without Shim6: who is known outside by which address, which provider new sessions take, and which sessions get a
//! context of their own.
//!
//! Workers translate by themselves; this keeps what they read up to date, and acts on what they notice. A session that is
//! worth it gets a context whose local ULID is the address the peer knows the host by. Its packets do not change as long as
//! that address works, and never wait for it (R5533-001). If the peer does not speak Shim6, that is remembered, and the
//! session goes on as it was (R5533-015).

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::snapshot::{Block, Mapped, NatView, PortId, Thresholds};
use dataplane::wire::ethernet::Mac;
use dataplane::wire::{Locator, Ulid, UlidPair};
use rand::Rng;

use super::{Effect, Engine, Event};
use crate::config::site::{Routable, Setup};
use crate::config::{Site, prefix};
use crate::manage::api::{Natv6ProviderView, Natv6View};
use crate::reap::Status;
use crate::shim6::Open;
use crate::time::Instant;

/// How often it is looked whether a provider that contexts saw fail still does.
const FAILING_CHECK: Duration = Duration::from_secs(5);

/// What workers know of translation before there are hosts; none if it is not enabled.
pub(super) fn view(site: &Site) -> Option<NatView> {
    let natv6 = site.natv6.as_ref()?;
    let mut view = NatView::new(site.providers.len());
    view.thresholds = thresholds(&site.setup, site.shim6.no_r1_holddown);
    view.idle_ms = millis(natv6.idle);
    view.identifiers = super::names::blocks(site);
    let block = |prefix: &prefix::Prefix| Block::new(prefix.address(), prefix.length());
    view.mapped = Mapped {
        subnets: natv6.mapped.iter().map(block).collect(),
        pairs: natv6.pairs.clone(),
        port: PortId(site.lan_port as u8),
        ..view.mapped
    };
    Some(view)
}

/// A peer that did not answer may be asked again after `again`.
fn thresholds(setup: &Setup, again: Duration) -> Thresholds {
    let (packets, octets, age) = match setup.routable {
        Routable::Deferred => (setup.packets, setup.octets, setup.age),
        Routable::Immediate => (Some(1), None, None),
        Routable::Never => (None, None, None),
    };
    Thresholds { packets, octets, age_ms: age.map(millis), again_ms: millis(again) }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Engine {
    /// Whether an address is of a block of identifiers: nobody is reached at it from outside a site.
    pub(super) fn is_identifier(&self, address: std::net::Ipv6Addr) -> bool {
        address.is_unique_local() || self.identifiers.iter().any(|block| block.contains(address))
    }

    fn nat(&mut self) -> Option<&mut NatView> {
        self.snapshot.nat.as_ref()?;
        Arc::make_mut(&mut self.snapshot).nat.as_mut().map(Arc::make_mut)
    }

    /// Takes over what a new configuration says of translation. Whether there is any takes a restart.
    pub(super) fn set_natv6(&mut self, site: &Site) {
        let (Some(natv6), Some(new)) = (&site.natv6, view(site)) else { return };
        self.mapped.clone_from(&natv6.mapped);
        let pairs = site.providers.iter().zip(&natv6.pairs);
        self.prefix_pairs =
            pairs.filter_map(|(it, pair)| Some((u64::from_be_bytes(it.prefix.high_half()), (*pair)?))).collect();
        if let Some(nat) = self.nat() {
            (nat.thresholds, nat.idle_ms, nat.mapped.subnets) = (new.thresholds, new.idle_ms, new.mapped.subnets);
            // Nobody tells of what lies elsewhere when it does not answer any more.
            let Mapped { neighbours, subnets, .. } = &mut nat.mapped;
            neighbours.retain(|address, _| subnets.iter().any(|subnet| subnet.contains(*address)));
        }
    }

    /// Providers, hosts or their locators are not what they were: every host is known outside by each of its locators.
    pub(super) fn renew_nat(&mut self) {
        let Some(old) = self.snapshot.nat.as_deref() else { return };
        let mut nat = NatView::new(self.providers.len());
        nat.order.clone_from(&old.order);
        (nat.thresholds, nat.idle_ms) = (old.thresholds, old.idle_ms);
        nat.peers.clone_from(&old.peers);
        nat.identifiers.clone_from(&old.identifiers);
        nat.mapped.clone_from(&old.mapped);
        let pair = |provider: &super::Provider| self.prefix_pairs.get(&provider.prefix).copied();
        nat.mapped.pairs = self.providers.iter().map(pair).collect();
        for (ulid, at) in &self.snapshot.host_index {
            let locators = self.endpoint.host(*ulid).map(|host| host.locators.as_slice()).unwrap_or_default();
            for (locator, _) in locators {
                let Some((provider, _)) = self.provider_of(locator.0) else { continue };
                // The first of two at one provider is the one that stays.
                if nat.outside(*at, provider as u8).is_none() {
                    nat.set_outside(*at, *ulid, provider as u8, *locator);
                }
            }
        }
        Arc::make_mut(&mut self.snapshot).nat = Some(Arc::new(nat));
    }

    /// Configured peers with a routable ULID speak Shim6: they are never translated for.
    pub(super) fn note_identifiers(&mut self) {
        let routable = self.peers.configured().filter(|ulid| prefix::is_routable(ulid.0));
        let peers = routable.map(|ulid| Block::new(ulid.0, 128)).collect();
        if let Some(nat) = self.nat() {
            nat.peers = peers;
        }
    }

    /// What is mapped by prefix has no place among the hosts: workers are told of it as it answers.
    pub(super) fn note_mapped(&mut self, port: PortId, address: Ipv6Addr, mac: Option<Mac>) -> bool {
        let nat = self.snapshot.nat.as_ref().map(|nat| &nat.mapped);
        let mapped = nat.filter(|mapped| mapped.port == port && mapped.has(address));
        if mapped.is_none_or(|mapped| mapped.neighbours.get(&address).copied() == mac) {
            return false;
        }
        let Some(nat) = self.nat() else { return false };
        match mac {
            Some(mac) => nat.mapped.neighbours.insert(address, mac),
            None => nat.mapped.neighbours.remove(&address),
        };
        true
    }

    /// New sessions take providers that are up: those last that contexts should leave or saw fail, in the order the operator
    /// prefers. Sessions of a provider that is not up are told so by the worker (RCM-015).
    pub(super) fn order_providers(&mut self, effects: &mut Vec<Effect>) {
        let up = self.providers.iter().enumerate().filter(|(_, provider)| provider.is_up());
        let mut order: Vec<u8> = up.map(|(at, _)| at as u8).collect();
        order.sort_by_key(|&at| {
            let provider = &self.providers[usize::from(at)];
            (provider.is_unwelcome(), provider.failing, provider.standing())
        });
        if self.snapshot.nat.as_ref().is_none_or(|nat| nat.order == order) {
            return;
        }
        if let Some(nat) = self.nat() {
            nat.order = order;
            effects.push(Effect::Publish(self.snapshot.clone()));
        }
    }

    /// Contexts saw a path fail: a provider through which some are dead, and none is known to work, is one that new
    /// sessions had better not take. It may be the far end that failed, so a provider is never ruled out by this.
    pub(super) fn weigh_providers(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.failing_check = None;
        if self.snapshot.nat.is_none() && self.names.is_none() && self.publisher.is_none() {
            return;
        }
        let mut seen = vec![(false, false); self.providers.len()];
        for (path, status) in self.book.iter(now) {
            let prefix = u64::from_be_bytes(path.local);
            let Some(at) = self.providers.iter().position(|provider| provider.prefix == prefix) else { continue };
            seen[at].0 |= status == Status::Dead;
            seen[at].1 |= status == Status::Working;
        }
        for (provider, (dead, working)) in self.providers.iter_mut().zip(seen) {
            // One that is down is out of the question already, for however long that lasts.
            provider.failing = provider.is_up() && dead && !working;
        }
        if self.providers.iter().any(|provider| provider.failing) {
            self.failing_check = Some(now + FAILING_CHECK);
        }
        self.order_providers(effects);
        self.renew_ways();
    }

    /// What the operator sees; counters are for the caller to fill in.
    pub fn natv6_view(&self, now: Instant) -> Natv6View {
        let Some(nat) = self.snapshot.nat.as_deref() else { return Natv6View::default() };
        let hosts = 0..self.snapshot.hosts.len() as u32;
        let provider = |(at, provider): (usize, &super::Provider)| Natv6ProviderView {
            name: provider.name.clone(),
            place: nat.order.iter().position(|up| usize::from(*up) == at).map(|place| place as u64 + 1),
            failing: provider.failing,
            hosts: hosts.clone().filter(|host| nat.outside(*host, at as u8).is_some()).count() as u64,
            mapped: nat.mapped.pairs.get(at).is_some_and(Option::is_some),
            ..Natv6ProviderView::default()
        };
        let ours = |context: &&crate::shim6::Context| self.endpoint.inside(context.ulids) != context.ulids;
        Natv6View {
            enabled: true,
            providers: self.providers.iter().enumerate().map(provider).collect(),
            mapped: self.mapped.iter().map(ToString::to_string).collect(),
            neighbours: nat.mapped.neighbours.len() as u64,
            setup_packets: nat.thresholds.packets,
            setup_octets: nat.thresholds.octets,
            setup_age_s: nat.thresholds.age_ms.map(|age| age / 1000),
            contexts: self.endpoint.contexts().filter(ours).count() as u64,
            without_support: self.endpoint.failures(now).count() as u64,
            counters: Default::default(),
        }
    }

    /// The providers by the places under which workers count what they translate; none without translation.
    pub fn natv6_places(&self) -> Vec<&str> {
        let translates = self.snapshot.nat.is_some();
        self.providers.iter().filter(|_| translates).map(|provider| provider.name.as_str()).collect()
    }

    /// A session that began without a context is worth one. The first I1 goes where its packets go; if that does not
    /// answer, through the other providers, since the session may be in need of one.
    pub(super) fn qualified(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        pair: UlidPair,
        presented: Locator,
        effects: &mut Vec<Effect>,
    ) {
        let ulids = UlidPair { local: Ulid(presented.0), peer: pair.peer };
        // The host may have gone, or got another locator, while the notice was on its way.
        if self.endpoint.inside(ulids) != pair || pair.local == ulids.local {
            return;
        }
        self.tally.count(Event::Qualified);
        let alone = vec![Locator(ulids.peer.0)];
        let mut pairs = self.candidates(now, ulids, &alone, None, None);
        let direct = pairs.iter().position(|candidate| *candidate == ulids.as_locators());
        if let Some(at) = direct.filter(|_| self.provider_of(presented.0).is_some_and(|(_, provider)| provider.is_up()))
        {
            pairs[..=at].rotate_right(1);
        }
        self.open(now, rng, Open { ulids, fork: 0, pairs }, effects);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dataplane::link::Notice;
    use dataplane::wire::LocatorPair;

    use super::*;
    use crate::manage::api::Steering;
    use crate::reap::PathKey;
    use crate::sim::{Plan, World};

    const S: Duration = Duration::from_secs(1);

    fn world() -> World {
        let mut world = World::new(&Plan { shim6: "[natv6]\nenabled = true\n".into(), ..Plan::default() }, 1);
        world.run(2 * S);
        world
    }

    fn order(world: &World) -> Vec<u8> {
        world.nodes[0].engine.snapshot.nat.as_ref().unwrap().order.clone()
    }

    /// A host of the first site seen from a peer nobody has heard of.
    fn session(world: &World) -> (UlidPair, Locator, Ulid) {
        let (host, peer) = (&world.hosts[0], Ulid("2001:db8:ffff::7".parse().unwrap()));
        (UlidPair { local: Ulid(host.ulid), peer }, Locator(host.locators[1]), peer)
    }

    // RCM-015: what is down is taken by nobody, what fails for contexts by nobody new as long as there is something better.
    #[test]
    fn new_sessions_take_what_is_up_and_works() {
        let mut world = world();
        assert_eq!(order(&world), [0, 1]);
        let (now, mut effects) = (world.now, Vec::new());
        let engine = &mut world.nodes[0].engine;
        let port = engine.providers[0].port;
        engine.link_state(now, port, false, &mut effects);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Publish(_))));
        assert_eq!(order(&world), [1]);
        let engine = &mut world.nodes[0].engine;
        engine.link_state(now, port, true, &mut effects);
        let path = PathKey { local: engine.providers[0].prefix.to_be_bytes(), peer: [0x20; 8] };
        let _ = engine.book.down(path, now);
        engine.weigh_providers(now, &mut effects);
        assert!(engine.natv6_view(now).providers[0].failing);
        assert_eq!(order(&world), [1, 0]);
        // Another path through it works, so it is the far end that does not.
        let engine = &mut world.nodes[0].engine;
        engine.book.confirmed(PathKey { peer: [0x21; 8], ..path }, now);
        assert!(engine.deadline().is_some_and(|due| due <= now + FAILING_CHECK));
        // And its link, which was down, has been up for long enough to be believed.
        world.run(12 * S);
        assert_eq!(order(&world), [0, 1]);
        world.nodes[0].engine.steer("isp-0-1", Steering::Drain).unwrap();
        world.run(S);
        assert_eq!(order(&world), [1, 0], "who is drained keeps what it has");
    }

    // R5533-004: whichever worker has the context, it is that one which loses it when the host goes.
    #[test]
    fn contexts_of_a_host_that_goes_are_taken_from_their_workers() {
        let sites = vec![crate::sim::SitePlan { workers: 4, ..Default::default() }; 2];
        let shim6 = "[natv6]\nenabled = true\n".into();
        let mut world = World::new(&Plan { sites, shim6, ..Plan::default() }, 1);
        world.run(2 * S);
        let (now, mut rng, mut effects) = (world.now, rng(), Vec::new());
        let host = (Ulid(world.hosts[0].ulid), Locator(world.hosts[0].locators[1]));
        let engine = &mut world.nodes[0].engine;
        for peer in 1..=16_u16 {
            let pair =
                UlidPair { local: host.0, peer: Ulid(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, peer)) };
            let notice = Notice::Qualified { pair, presented: host.1, provider: 1 };
            engine.notice(now, &mut rng, notice, &mut effects);
        }
        let installed: std::collections::BTreeSet<_> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Install(owner, install) => Some((*owner, install.local_tag)),
                _ => None,
            })
            .collect();
        assert!(installed.len() == 16 && installed.iter().any(|(owner, _)| *owner != 0));
        effects.clear();
        engine.remove_host(now, &mut rng, host.0, &mut effects);
        let removed: std::collections::BTreeSet<_> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Remove(owner, tag) => Some((*owner, *tag)),
                _ => None,
            })
            .collect();
        assert_eq!(removed, installed);
    }

    // R5533-014, R5533-019
    #[test]
    fn a_session_that_qualifies_is_asked_for_from_the_address_its_peer_knows() {
        let mut world = world();
        let (pair, presented, peer) = session(&world);
        let (now, mut rng) = (world.now, rng());
        let engine = &mut world.nodes[0].engine;
        let mut effects = Vec::new();
        let notice = || Notice::Qualified { pair, presented, provider: 1 };
        engine.notice(now, &mut rng, notice(), &mut effects);
        let ulids = UlidPair { local: Ulid(presented.0), peer };
        let context = engine.endpoint.find(ulids, 0).expect("a context of the locator");
        assert_eq!(context.pair, LocatorPair { local: presented, peer: Locator(peer.0) });
        let mut installed = effects.iter().filter_map(|effect| match effect {
            Effect::Install(owner, install) => Some((*owner, install.clone())),
            _ => None,
        });
        let (owner, install) = installed.next_back().expect("workers hear of it");
        assert_eq!((install.ulids, install.inside), (ulids, Some(pair.local)));
        assert_eq!(owner, usize::from(engine.sharding.owner_of_pair(&install.steering())));
        assert_eq!(engine.snapshot.hosts[install.host as usize].ulid, pair.local);
        // Told again, workers hear again, and the peer is asked no second time.
        let sent = engine.tally.value("control_messages_sent");
        effects.clear();
        engine.notice(now, &mut rng, notice(), &mut effects);
        assert!(matches!(effects[..], [Effect::Install(..)]), "{effects:?}");
        assert_eq!((engine.tally.value("control_messages_sent"), engine.tally.value("control_qualified")), (sent, 2));
        // A host that has another address by now.
        let stale = UlidPair { local: Ulid("fc00:a::77".parse().unwrap()), ..pair };
        effects.clear();
        engine.notice(now, &mut rng, Notice::Qualified { pair: stale, presented, provider: 1 }, &mut effects);
        assert!(effects.is_empty());
    }

    #[test]
    fn a_host_that_is_gone_is_known_outside_no_longer() {
        let mut world = world();
        let (pair, presented, _) = session(&world);
        let (now, mut rng) = (world.now, rng());
        let engine = &mut world.nodes[0].engine;
        let image = |engine: &Engine| engine.snapshot.nat.as_ref().unwrap().image(presented.0).is_some();
        assert!(image(engine));
        assert!(engine.remove_host(now, &mut rng, pair.local, &mut Vec::new()));
        assert!(!image(engine));
    }

    #[test]
    fn what_is_mapped_and_answers_is_told_to_workers_once() {
        let mut world = world();
        let engine = &mut world.nodes[0].engine;
        let (there, elsewhere) = ("fc00:a:0:9::1".parse().unwrap(), "fc00:a:0:8::1".parse().unwrap());
        let (lan, mac) = (engine.lan_port, Mac([2, 0, 0, 0, 0, 1]));
        engine.nat().unwrap().mapped.subnets = vec![Block::new(there, 64)];
        let known = |engine: &Engine| engine.snapshot.nat.as_ref().unwrap().mapped.neighbours.get(&there).copied();
        assert!(!engine.note_mapped(lan, elsewhere, Some(mac)));
        assert!(!engine.note_mapped(PortId(1), there, Some(mac)));
        assert!(engine.note_mapped(lan, there, Some(mac)));
        assert_eq!((known(engine), engine.note_mapped(lan, there, Some(mac))), (Some(mac), false));
        assert!(engine.note_mapped(lan, there, None));
        assert_eq!(known(engine), None);
        // What a new configuration does not map is forgotten, as nobody tells of it any more.
        assert!(engine.note_mapped(lan, there, Some(mac)));
        let site = world.nodes[0].configuration().0.clone();
        world.nodes[0].engine.set_natv6(&site);
        assert_eq!(known(&world.nodes[0].engine), None);
    }

    fn rng() -> rand::rngs::StdRng {
        rand::SeedableRng::seed_from_u64(1)
    }
}
