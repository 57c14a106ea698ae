//! Forked contexts for classes of traffic (RFC 5533 §4.2): when there is one, which provider it prefers, and what comes of
//! a peer that wants none.
//!
//! The class's number is the Forked Instance Identifier, so that both ends of a pair meet in one context if both have a
//! class of that number; each sends with it what it likes, and to where it likes (R5533-023). A worker tells of the first
//! packet of a class, which goes by the default context like all until the new one is ready. From there on that is a
//! context like any other, with a REAP machine of its own. What differs is the order of the providers: those the class
//! names come first, and when the context had to leave one of them it looks every [`HOME_AGAIN`] whether it may come back.
//!
//! What fails here is never held against the pair: its default context works, or there would be no wish for another.

use std::collections::BTreeMap;
use std::time::Duration;

use dataplane::context::fork::Wish;
use dataplane::snapshot::{CLASSES_MAX, ClassView, Classes};
use dataplane::wire::{Locator, LocatorPair, UlidPair};
use rand::Rng;

use super::{Effect, Engine, Event, Provider, Story};
use crate::config::{Prefix, Site};
use crate::manage::api::Steering;
use crate::policy::PairMatch;
use crate::reap::Status;
use crate::shim6::{Context, ContextId, FailReason, Open};
use crate::time::Instant;

/// From one attempt to come back to a preferred provider to the next.
const HOME_AGAIN: Duration = Duration::from_secs(60);
/// Most doublings of the time a peer is left alone that took no forked context.
const DOUBLINGS_MAX: u32 = 5;

/// A class of traffic as the engine knows it; what its packets look like is the workers' business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) name: String,
    view: ClassView,
    hosts: Vec<Prefix>,
    peers: Vec<Prefix>,
    /// The first 64 bits of what they delegated, the one preferred most first.
    providers: Vec<u64>,
    /// The place of the policy's class that this is, and the pairs that classes before it have all of.
    pub(super) policy: Option<usize>,
    without: Vec<PairMatch>,
}

/// The forks of a pair that came to nothing, by their number: until when they are left alone, and how often it was so.
pub(super) type Refused = BTreeMap<u32, (Instant, u32)>;

impl Class {
    fn is_for(&self, ulids: UlidPair) -> bool {
        let fits = |prefixes: &[Prefix], address| prefixes.is_empty() || prefixes.iter().any(|it| it.contains(address));
        let taken = self.without.iter().any(|pairs| pairs.fits(ulids.local.0, ulids.peer.0));
        fits(&self.hosts, ulids.local.0) && fits(&self.peers, ulids.peer.0) && !taken
    }

    /// The place of a provider among those the class names.
    fn place(&self, provider: &Provider) -> Option<u8> {
        self.providers.iter().position(|prefix| *prefix == provider.prefix).map(|at| at as u8)
    }

    /// The place of a provider among all: lower is better. Those the class names come first, in its order. What the operator
    /// says against a provider counts for classes too; what it says for one is about the rest of the traffic.
    pub(super) fn standing(&self, provider: &Provider) -> u8 {
        match self.place(provider) {
            _ if provider.is_unwelcome() || provider.steering == Steering::Avoid => provider.standing(),
            Some(place) => place,
            None => Steering::Normal as u8 * 64 + u8::try_from(provider.preference).unwrap_or(u8::MAX).min(63),
        }
    }
}

impl Engine {
    /// Takes over the classes of a configuration. Whether they are others than before.
    pub(super) fn set_classes(&mut self, site: &Site) -> bool {
        self.forks_configured = self.classes_configured(site);
        self.set_classes_again()
    }

    fn classes_configured(&self, site: &Site) -> Vec<Class> {
        let prefix = |at: &usize| site.providers.get(*at).map(|it| u64::from_be_bytes(it.prefix.high_half()));
        let class = |fork: &crate::config::site::Fork| Class {
            name: fork.name.clone(),
            view: fork.class.clone(),
            hosts: fork.hosts.clone(),
            peers: fork.peers.clone(),
            providers: fork.providers.iter().filter_map(prefix).collect(),
            policy: None,
            without: Vec::new(),
        };
        site.forks.iter().map(class).collect()
    }

    /// The classes of the configuration, and after them those of the policy that look at packets. Whether they are others than
    /// before.
    pub(super) fn set_classes_again(&mut self) -> bool {
        let mut classes = self.forks_configured.clone();
        if let Some(controller) = self.policy_controller() {
            let policy = controller.policy();
            let before = |at: usize| {
                let earlier = policy.classes.iter().take(at).filter(|class| class.packets.is_none());
                earlier.map(|class| class.pairs.clone()).collect()
            };
            classes.extend(policy.packet_classes().map(|(at, class, packets)| Class {
                name: class.name.clone(),
                view: packets.clone(),
                hosts: class.pairs.hosts.clone(),
                peers: class.pairs.peers.clone(),
                providers: Vec::new(),
                policy: Some(at),
                without: before(at),
            }));
            classes.truncate(CLASSES_MAX);
        }
        let changed = self.classes != classes;
        if changed {
            let views = classes.iter().map(|class| class.view.clone()).collect();
            std::sync::Arc::make_mut(&mut self.snapshot).classes = views;
            self.classes = classes;
        }
        changed
    }

    /// Contexts go on with the classes there are now: workers hear which are theirs, and forked ones which provider to prefer.
    pub(super) fn reclassify(&mut self, effects: &mut Vec<Effect>) {
        let mut all: Vec<(ContextId, u32)> =
            self.endpoint.contexts().map(|context| (context.id, context.fork)).collect();
        // In an order that does not depend on the table's, so that a simulation can be repeated.
        all.sort_unstable();
        for (id, fork) in all {
            // A number may mean another class now.
            if let Some(attached) = self.attached.get_mut(&id) {
                attached.refused.clear();
                (attached.homeward, attached.stayed) = Default::default();
            }
            self.sync(id, effects);
            if fork != 0 {
                self.has_news(id);
            }
        }
    }

    /// The classes whose packets go by a context: of a forked one its own, of a default one those it gives away. Where the
    /// peer knows the host by another address than its own there are none: those packets are translated before they have a
    /// pair at all.
    pub(super) fn classes_of(&self, context: &Context) -> Classes {
        if self.classes.is_empty() || self.endpoint.inside(context.ulids) != context.ulids {
            return Classes::NONE;
        }
        let meant = (1u32..)
            .zip(&self.classes)
            .filter(|(number, class)| (context.fork == 0 || context.fork == *number) && class.is_for(context.ulids));
        meant.fold(Classes::NONE, |all, (number, _)| all.and(Classes::only(number)))
    }

    /// The class of a forked context.
    pub(super) fn class_of(&self, context: &Context) -> Option<&Class> {
        let number = self.classes_of(context).numbers().next().filter(|_| context.fork != 0)?;
        self.classes.get(usize::from(number) - 1)
    }

    /// The place of a provider for a context.
    pub(super) fn standing_for(&self, class: Option<&Class>, provider: &Provider) -> u8 {
        class.map_or_else(|| provider.standing(), |class| class.standing(provider))
    }

    /// A worker has packets of a class that has no context for this pair.
    pub(super) fn fork_wished(&mut self, now: Instant, rng: &mut dyn Rng, wish: Wish, effects: &mut Vec<Effect>) {
        let id = ContextId::from_bits(wish.handle);
        let fork = u32::from(wish.class);
        // The context may have gone, or the class, while the wish was on its way.
        let Some(context) = self.endpoint.context(id).filter(|it| it.fork == 0 && it.state.carries_payload()) else {
            return;
        };
        let refused = self.attached.get(&id).and_then(|attached| attached.refused.get(&fork));
        if !self.classes_of(context).contain(wish.class) || refused.is_some_and(|(until, _)| now < *until) {
            return;
        }
        let known = context.peer_locators.iter().filter(|known| known.verified).map(|known| known.locator);
        let mut peer: Vec<Locator> = known.collect();
        // What the default context uses is known to be answered on.
        peer.sort_by_key(|locator| *locator != context.pair.peer);
        let ulids = context.ulids;
        let class = self.classes.get(usize::from(wish.class) - 1).and_then(|class| class.policy);
        let begin = class.and_then(|class| self.begin_at(Some(class), ulids.local.0, ulids.peer.0));
        let pairs = self.candidates(now, ulids, &peer, self.classes.get(usize::from(wish.class) - 1), begin);
        self.open(now, rng, Open { ulids, fork, pairs }, effects);
    }

    /// A fork is there: what went wrong with it before is forgotten.
    pub(super) fn fork_ready(&mut self, ulids: UlidPair, fork: u32) {
        let default = self.endpoint.find(ulids, 0).map(|context| context.id);
        if let Some(attached) = default.and_then(|id| self.attached.get_mut(&id)) {
            attached.refused.remove(&fork);
        }
    }

    /// A fork came to nothing: the peer does not answer, or takes no more, or none at all. It is left alone for a while,
    /// longer each time.
    pub(super) fn fork_refused(
        &mut self,
        now: Instant,
        ulids: UlidPair,
        fork: u32,
        reason: FailReason,
        effects: &mut Vec<Effect>,
    ) {
        // Peers number their forks as they like; what they ask for is remembered by nobody here.
        if !(1..=self.classes.len()).contains(&(fork as usize)) {
            return;
        }
        self.tally.count(Event::ForkRefused);
        effects.push(Effect::Story(Story::ForkRefused(ulids, fork, reason)));
        let time = self.endpoint.holddown(reason);
        let default = self.endpoint.find(ulids, 0).map(|context| context.id);
        let Some(attached) = default.and_then(|id| self.attached.get_mut(&id)) else { return };
        let (until, times) = attached.refused.entry(fork).or_insert((now, 0));
        *until = now + time * (1 << (*times).min(DOUBLINGS_MAX));
        *times += 1;
    }

    /// Payload of a forked context went either way. Its pair's default context is in use with it, or it would be gone when
    /// it is needed; and one that had to leave a provider its class prefers may look whether it can come back.
    pub(super) fn fork_active(&mut self, now: Instant, id: ContextId) {
        let Some(context) = self.endpoint.context(id).filter(|context| context.fork != 0) else { return };
        if self.class_of(context).is_none() {
            return;
        }
        let ulids = context.ulids;
        if let Some(default) = self.endpoint.find(ulids, 0).map(|context| context.id) {
            self.endpoint.used(now, default);
        }
        let rested = |at: &Option<Instant>| at.is_none_or(|at| now.since(at) >= HOME_AGAIN);
        if !self.attached.get(&id).is_some_and(|attached| rested(&attached.homeward)) {
            return;
        }
        let away = self.endpoint.context(id).is_some_and(|context| self.better_pair(now, context).is_some());
        if let Some(attached) = self.attached.get_mut(&id) {
            attached.homeward = Some(now);
            attached.stayed = 0;
        }
        if away {
            self.has_news(id);
        }
    }

    /// The pair a forked context should try because its class prefers another provider than the one it uses.
    ///
    /// A test makes the peer answer the way it was asked, and it may stay there. So that both ends can have what they prefer,
    /// the peer is asked where it was heard from last.
    pub(super) fn homeward(&self, now: Instant, context: &Context, class: &Class) -> Option<LocatorPair> {
        let (_, current) = self.provider_of(context.pair.local.0)?;
        let heard = self.attached.get(&context.id).and_then(|attached| attached.heard_from);
        let usable = |locator: &Locator| context.peer_locator(locator.0).is_some_and(|known| known.usable());
        let peer = heard.filter(usable).unwrap_or(context.pair.peer);
        let locators = context.host.locators.iter().filter_map(|(locator, _)| {
            let (_, provider) = self.provider_of(locator.0)?;
            let pair = LocatorPair { local: *locator, peer };
            let named = class.place(provider) == Some(class.standing(provider));
            let good = named && provider.is_up() && self.book.rank(pair, now) <= Status::Unknown;
            good.then_some((class.standing(provider), pair))
        });
        let (standing, pair) = locators.min_by_key(|(standing, _)| *standing)?;
        (standing < class.standing(current)).then_some(pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Plan, World};

    // R5533-023
    #[test]
    fn of_forks_that_fail_only_those_of_classes_are_remembered() {
        let class = "[[fork]]\nname = \"all\"\nprotocol = \"udp\"\nproviders = [\"isp-{site}-2\"]\n";
        let mut world = World::new(&Plan { sections: class.into(), ..Plan::default() }, 1);
        world.stream(0, 1, Duration::from_millis(100));
        world.run(Duration::from_secs(1));
        let (now, mut effects) = (world.now, Vec::new());
        let engine = &mut world.nodes[0].engine;
        let (id, ulids) = engine.endpoint.contexts().find(|it| it.fork == 0).map(|it| (it.id, it.ulids)).unwrap();
        // A peer may begin and lose as many forks as it likes, each with a number of its own.
        for fork in (0..1000).chain([u32::MAX]) {
            engine.fork_refused(now, ulids, fork, FailReason::NoSupport, &mut effects);
        }
        assert_eq!(engine.attached.get(&id).unwrap().refused.len(), 1);
        assert_eq!((engine.tally.value("control_fork_refused"), effects.len()), (1, 1));
        // The file is read again, and numbers may mean other classes.
        engine.reclassify(&mut effects);
        assert_eq!(engine.attached.get(&id).unwrap().refused.len(), 0);
    }
}
