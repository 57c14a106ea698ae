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
use crate::identity::HostIdentity;
use crate::manage::api::{Natv6ProviderView, Natv6View};
use crate::reap::Status;
use crate::time::Instant;

/// How often it is looked whether a provider that contexts saw fail still does.
const FAILING_CHECK: Duration = Duration::from_secs(5);

/// What workers know of translation before there are hosts; none if it is not enabled.
pub(super) fn view(site: &Site) -> Option<NatView> {
    let natv6 = site.natv6.as_ref()?;
    let mut view = NatView::new(site.providers.len());
    view.thresholds = thresholds(&site.setup, site.shim6.no_r1_holddown);
    view.idle_ms = millis(natv6.idle);
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
    fn nat(&mut self) -> Option<&mut NatView> {
        self.snapshot.nat.as_ref()?;
        Arc::make_mut(&mut self.snapshot).nat.as_mut().map(Arc::make_mut)
    }

    /// A host is known outside by each of its locators.
    pub(super) fn present(&mut self, identity: &HostIdentity) {
        let Some(&at) = self.snapshot.host_index.get(&identity.ulid) else { return };
        let known = |locator: &Locator| Some((self.provider_of(locator.0)?.0 as u8, *locator));
        let known: Vec<(u8, Locator)> = identity.locators.iter().filter_map(known).collect();
        let Some(nat) = self.nat() else { return };
        for (provider, locator) in known {
            if nat.outside(at, provider).is_none_or(|outside| outside.locator != locator) {
                nat.set_outside(at, identity.ulid, provider, locator);
            }
        }
    }

    /// A host is no longer known outside.
    pub(super) fn hide(&mut self, ulid: Ulid) {
        let Some(&at) = self.snapshot.host_index.get(&ulid) else { return };
        let providers = 0..self.providers.len() as u8;
        if let Some(nat) = self.nat() {
            providers.for_each(|provider| nat.clear_outside(at, provider));
        }
    }

    /// Configured peers with a routable ULID speak Shim6: they are never translated for.
    pub(super) fn note_identifiers(&mut self) {
        let routable = self.peers.keys().filter(|ulid| prefix::is_routable(ulid.0));
        let identifiers = routable.map(|ulid| Block::new(ulid.0, 128)).collect();
        if let Some(nat) = self.nat() {
            nat.identifiers = identifiers;
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
        if self.snapshot.nat.is_none() {
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
            provider.failing = dead && !working;
        }
        if self.providers.iter().any(|provider| provider.failing) {
            self.failing_check = Some(now + FAILING_CHECK);
        }
        self.order_providers(effects);
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
        let mut pairs = self.candidates(now, ulids, &alone);
        let direct = pairs.iter().position(|candidate| *candidate == ulids.as_locators());
        if let Some(at) = direct.filter(|_| self.provider_of(presented.0).is_some_and(|(_, provider)| provider.is_up()))
        {
            pairs[..=at].rotate_right(1);
        }
        self.open(now, rng, ulids, pairs, effects);
    }
}
