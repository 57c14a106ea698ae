//! Providers come and go while the box runs.
//!
//! Contexts and workers name a provider by its place, so a place is not used again before nobody names it any more: a
//! provider that has gone from the configuration serves on as the last resort while contexts leave it, and what has not
//! left it by then has no other way and ends.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::context::Loss;
use dataplane::snapshot::{PortId, ProviderView};
use rand::Rng;

use super::hosts::LEAVING;
use super::setup::{PORTS_MAX, SetupError, icmp_sources, provider, role_of};
use super::{Effect, Engine};
use crate::config::Site;
use crate::manage::api::Steering;
use crate::shim6::{ContextId, GoneReason};
use crate::time::Instant;

/// How long a provider serves on after the locators from it were struck from all lists: peers may have to be told more
/// than once.
const LAST: Duration = Duration::from_secs(90);
/// Places of the table looked at in one call for contexts that have to end with their provider, and most that end in one, so
/// that events of the workers never wait long.
const LOOKED_AT_PER_TURN: usize = 4096;
const ENDED_PER_TURN: usize = 256;
/// The prefix of a place nobody has (RFC 6666: nothing comes from there).
const NOBODY: u64 = 0x0100_0000_0000_0000;

impl Provider {
    /// Whether there is a provider in this place.
    pub(super) fn exists(&self) -> bool {
        self.prefix != NOBODY
    }
}

/// A provider as the engine knows it.
#[derive(Clone, Debug)]
pub(super) struct Provider {
    pub(super) name: String,
    pub(super) port: PortId,
    pub(super) prefix: u64,
    pub(super) next_hop: Ipv6Addr,
    pub(super) preference: u16,
    /// Whether its router answers.
    pub(super) router: bool,
    /// Whether the port's link is up, as far as the device can tell.
    pub(super) link: bool,
    /// Whether contexts saw every path through it fail that they know of, while others answered.
    pub(super) failing: bool,
    /// What the operator wants of it.
    pub(super) steering: Steering,
    /// Whether peers were told that it does not work.
    pub(super) told_down: bool,
    /// Whether the policy wants everybody to leave it.
    pub(super) drained: bool,
    /// When it came up last.
    pub(super) up_since: Option<Instant>,
    /// Whether its prefix is to be left, as who delegated it says.
    pub(super) deprecated: bool,
    /// Until when it serves, if it has gone from the configuration: as the last resort, for contexts to leave it.
    pub(super) leaving: Option<Instant>,
}

impl Provider {
    /// Whether packets can be sent there; what happens to them further on is another question.
    pub(super) fn is_up(&self) -> bool {
        self.router && self.link
    }
}

impl Engine {
    /// Whether there is room for a new configuration's providers beside those that still leave.
    pub(super) fn check_providers(&self, site: &Site) -> Result<(), SetupError> {
        let has = |prefix| site.providers.iter().any(|it| u64::from_be_bytes(it.prefix.high_half()) == prefix);
        let leaving = self.providers.iter().filter(|it| it.exists() && !has(it.prefix)).count();
        match site.providers.len() + leaving > PORTS_MAX {
            true => Err(SetupError::TooMany(PORTS_MAX)),
            false => Ok(()),
        }
    }

    /// Takes over the providers of a new configuration. Whether peers should hear of it.
    pub(super) fn set_providers(&mut self, now: Instant, site: &Site, effects: &mut Vec<Effect>) -> bool {
        let wanted: Vec<Provider> = site.providers.iter().map(provider).collect();
        let mut changed = false;
        for old in self.providers.iter_mut().filter(|old| old.exists()) {
            let stays = wanted.iter().any(|new| new.prefix == old.prefix);
            if !stays && old.leaving.is_none() {
                old.leaving = Some(now + LEAVING + LAST);
                changed = true;
            }
        }
        for new in wanted {
            changed |= self.set_provider(now, new, effects);
        }
        self.rename_leaving();
        if changed {
            let snapshot = Arc::make_mut(&mut self.snapshot);
            for (at, port) in snapshot.ports.iter_mut().enumerate() {
                let used = self.providers.iter().any(|it| it.exists() && usize::from(it.port.0) == at);
                let used = used || self.uplinks.has(at);
                port.role = role_of(at == usize::from(self.lan_port.0), used);
                if used {
                    self.listener.open(now, at);
                }
            }
            icmp_sources(&mut snapshot.ports);
        }
        changed
    }

    /// One that leaves and one that takes its place under the same name are two for whoever watches.
    fn rename_leaving(&mut self) {
        let stays = |provider: &&Provider| provider.exists() && provider.leaving.is_none();
        let names: Vec<String> = self.providers.iter().filter(stays).map(|provider| provider.name.clone()).collect();
        for old in self.providers.iter_mut().filter(|old| old.leaving.is_some() && names.contains(&old.name)) {
            old.name = format!("{}-{:x}", old.name, old.prefix);
        }
    }

    /// Takes over one of them. Whether anything about it is new.
    fn set_provider(&mut self, now: Instant, new: Provider, effects: &mut Vec<Effect>) -> bool {
        let known = self.providers.iter().position(|old| old.prefix == new.prefix);
        let at = match known.or_else(|| self.providers.iter().position(|old| !old.exists())) {
            Some(at) => at,
            None => {
                self.providers.push(new.clone());
                Arc::make_mut(&mut self.snapshot).providers.push(view(&new));
                self.providers.len() - 1
            }
        };
        let old = &mut self.providers[at];
        let before = old.clone();
        if known.is_some() {
            let Provider { name, port, next_hop, preference, deprecated, .. } = new;
            *old = Provider { name, port, next_hop, preference, deprecated, leaving: None, ..before.clone() };
        } else {
            *old = new;
        }
        let after = old.clone();
        let way = |it: &Provider| (it.port, it.next_hop);
        let other_way = known.is_none() || way(&before) != way(&after);
        if other_way {
            // A port's link is what it is, whoever is behind it; the router has to be found.
            let link = self.providers.iter().enumerate().find(|(it, p)| *it != at && p.port == after.port);
            let link = link.map_or(before.port != after.port || before.link, |(_, other)| other.link);
            let router = self.neighbours.mac(after.port, after.next_hop);
            let old = &mut self.providers[at];
            (old.router, old.link) = (router.is_some(), link);
            Arc::make_mut(&mut self.snapshot).providers[at] = ProviderView { mac: router, ..view(&after) };
            // Whatever was lost was the old way; the new one is lost as long as its router is not found.
            let lost = known.is_some() && self.hints.link && !self.providers[at].is_up();
            self.set_lost(Loss::Provider(at as u8), lost, effects);
            if !before.is_up() && self.providers[at].is_up() {
                self.provider_works(after.prefix.to_be_bytes());
            }
            self.let_go(now, &before, effects);
            // Nobody is the router of a provider whose routers have all said that they are none any more.
            if !after.next_hop.is_unspecified() {
                self.neighbours.want(now, after.port, after.next_hop);
            }
        }
        let other_word = before.deprecated != after.deprecated || before.preference != after.preference;
        other_way || other_word || before.leaving.is_some()
    }

    /// What was known of paths through a provider was known of another way, or of one that was down.
    pub(super) fn provider_works(&mut self, prefix: [u8; 8]) {
        self.book.forget_provider(prefix);
        self.attached.trust_provider(prefix);
    }

    /// A router that is no provider's any more is not looked for.
    fn let_go(&mut self, now: Instant, before: &Provider, effects: &mut Vec<Effect>) {
        let way = (before.port, before.next_hop);
        let wanted = self.providers.iter().any(|it| it.exists() && (it.port, it.next_hop) == way);
        if before.exists() && !wanted {
            let mut events = Vec::new();
            self.neighbours.forget(before.port, before.next_hop, &mut events);
            self.link_events(now, events, effects);
        }
    }

    /// Ends what serves on no longer: its contexts some at a time, and then the provider itself.
    pub(super) fn expire_providers(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        let over = |provider: &Provider| provider.leaving.is_some_and(|leaving| leaving <= now);
        while let Some(at) = self.providers.iter().position(over) {
            let provider = self.providers[at].clone();
            if !self.end_contexts(now, rng, provider.prefix, effects) {
                // There are more, and it is due still.
                return;
            }
            let nobody = Provider {
                name: String::new(),
                prefix: NOBODY,
                next_hop: Ipv6Addr::UNSPECIFIED,
                router: false,
                leaving: None,
                ..provider.clone()
            };
            Arc::make_mut(&mut self.snapshot).providers[at] = view(&nobody);
            self.providers[at] = nobody;
            self.set_lost(Loss::Provider(at as u8), false, effects);
            self.provider_works(provider.prefix.to_be_bytes());
            self.let_go(now, &provider, effects);
            self.renew_nat();
            effects.push(Effect::Publish(self.snapshot.clone()));
        }
        self.ending = None;
    }

    /// Ends contexts that could not leave a provider, in the next places of the table. Whether there are no more.
    fn end_contexts(&mut self, now: Instant, rng: &mut dyn Rng, prefix: u64, effects: &mut Vec<Effect>) -> bool {
        let places = self.endpoint.places();
        let start = self.ending.filter(|(of, _)| *of == prefix).map_or(0, |(_, at)| at);
        let mine = |address: Ipv6Addr| (address.to_bits() >> 64) as u64 == prefix;
        let looked_at = self.endpoint.contexts_at(start..start.saturating_add(LOOKED_AT_PER_TURN));
        let ids = looked_at.filter(|context| mine(context.pair.local.0)).map(|context| context.id);
        let left: Vec<ContextId> = ids.take(ENDED_PER_TURN).collect();
        let next = match left.last() {
            Some(last) if left.len() == ENDED_PER_TURN => last.index() + 1,
            _ => start.saturating_add(LOOKED_AT_PER_TURN),
        };
        let mut out = Vec::new();
        for id in left {
            self.endpoint.discard(id, GoneReason::Discarded, &mut out);
        }
        self.follow(now, rng, out, effects);
        self.ending = (next < places).then_some((prefix, next));
        next >= places
    }
}

fn view(provider: &Provider) -> ProviderView {
    ProviderView { port: provider.port, prefix: provider.prefix, next_hop: provider.next_hop, mac: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Plan, World};

    #[test]
    fn a_provider_with_another_router_is_lost_until_that_is_found() {
        let mut world = World::new(&Plan::default(), 1);
        world.run(std::time::Duration::from_secs(2));
        let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(1);
        let (now, node) = (world.now, &mut world.nodes[0]);
        let (mut site, hosts) = (node.configuration().0.clone(), node.configuration().1.clone());
        let old = site.providers[0].next_hop;
        let losses = |effects: &mut Vec<Effect>| {
            let lost = effects.drain(..).filter_map(|effect| match effect {
                Effect::Lose(loss, lost) => Some((loss, lost)),
                _ => None,
            });
            lost.collect::<Vec<_>>()
        };
        let mut effects = Vec::new();
        site.providers[0].next_hop = Ipv6Addr::from_bits(old.to_bits() ^ 0x77);
        node.engine.reload(now, &mut rng, &site, &hosts, &mut effects).unwrap();
        assert_eq!(losses(&mut effects), [(Loss::Provider(0), true)]);
        let found = crate::host::LinkEvent::Resolved(
            node.engine.providers[0].port,
            site.providers[0].next_hop,
            dataplane::wire::ethernet::Mac([2, 0, 0, 0, 0, 9]),
        );
        node.engine.link_events(now, vec![found], &mut effects);
        assert_eq!(losses(&mut effects), [(Loss::Provider(0), false)]);
    }
}
