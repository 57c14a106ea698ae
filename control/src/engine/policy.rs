//! The site's policy at work: where contexts begin, what is measured of them, and what becomes of the moves the
//! [controller](crate::policy::Controller) orders.
//!
//! A context's place in the endpoint's table is its place at the controller. Outward a move is a wish for another pair with the
//! peer's present locator (`goal`); inward it is a Locator Preference for this context alone, which its peer heeds or does
//! not. What the operator says of a provider goes before what the policy says. Without a policy nothing here does anything.

use std::sync::Arc;

use dataplane::wire::shim6::Preference;
use dataplane::wire::{Locator, LocatorPair, UlidPair};
use rand::Rng;

use super::fork::Class;
use super::{Effect, Engine, Event, Provider};
use crate::manage::api::{PolicyClassView, PolicyShareView, PolicyView, Steering};
use crate::policy::controller::Wish;
use crate::policy::{Controller, Direction, Move, Policy, PolicyFile, WayState};
use crate::shim6::{Context, ContextId, LocalHost, State};
use crate::time::Instant;

/// Places of the table looked at in one call after a policy was loaded, so that events of the workers never wait long.
const LOOKED_AT_PER_TURN: usize = 2_048;
/// Priorities that peers are told of the locator they should use, and of others (RFC 5533 §5.15.3: lower comes first).
const WANTED: u8 = 0;
const OTHERS: u8 = 10;

/// A policy in force.
pub(super) struct Steered {
    pub(super) controller: Controller,
    /// As it was said.
    file: PolicyFile,
    /// How far the contexts that were there before have been looked at, and who knew them then.
    recount: Option<usize>,
    before: Option<Box<Controller>>,
    moves: Vec<Move>,
}

/// Where a new context should begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin {
    class: usize,
    out: Option<u8>,
}

impl Engine {
    /// Goes on with another policy, or with none. Contexts stay where they are until the controller moves them.
    pub fn set_policy(&mut self, now: Instant, policy: Option<(Policy, PolicyFile)>, effects: &mut Vec<Effect>) {
        let mut old = self.steered.take();
        let mut before = None;
        if old.is_none() && policy.is_none() {
            return;
        }
        if let (Some(mut old), Some((policy, file))) = (old.take(), &policy) {
            if old.file == *file && **old.controller.policy() == *policy {
                // Nothing is new but that the operator means it.
                (0..policy.ways.len()).for_each(|way| old.controller.forgive(way));
                self.steered = Some(old);
                return;
            }
            before = Some(Box::new(old.controller));
        }
        if let Some((policy, file)) = policy {
            let mut controller = Controller::new(Arc::new(policy));
            if let Some(before) = &mut before {
                controller.follow(before);
            }
            if let Some(unix) = self.unix {
                controller.set_clock(unix);
            }
            self.steered = Some(Box::new(Steered { controller, file, recount: Some(0), before, moves: Vec::new() }));
        }
        self.tally.count(Event::PolicyLoaded);
        self.note_withholding();
        self.watch_arrivals(effects);
        self.ways_as_they_are(now);
        let mut drained = false;
        for at in 0..self.providers.len() {
            let drain = self.terms_of(&self.providers[at]).is_some_and(|terms| terms.drain);
            drained |= std::mem::replace(&mut self.providers[at].drained, drain) != drain;
        }
        if drained {
            self.renew_ways();
        }
        // Whoever has a preference of its own may have another one now, or none.
        self.advise();
        if self.set_classes_again() {
            effects.push(Effect::Publish(self.snapshot.clone()));
            self.reclassify(effects);
        }
    }

    /// Has workers look by which providers payload comes, if that is of interest.
    fn watch_arrivals(&mut self, effects: &mut Vec<Effect>) {
        let wanted = self.steered.is_some();
        if self.snapshot.arrivals != wanted {
            Arc::make_mut(&mut self.snapshot).arrivals = wanted;
            effects.push(Effect::Publish(self.snapshot.clone()));
        }
    }

    /// The policy in force, as it was said.
    pub fn policy_file(&self) -> Option<&PolicyFile> {
        self.steered.as_ref().map(|steered| &steered.file)
    }

    /// The controller, for tests and reports.
    pub fn policy_controller(&self) -> Option<&Controller> {
        self.steered.as_ref().map(|steered| &steered.controller)
    }

    /// What the wall clock says, in seconds since 1970.
    pub(super) fn policy_clock(&mut self, unix: u64) {
        self.unix = Some(unix);
        let changed = self.steered.as_mut().is_some_and(|steered| steered.controller.set_clock(unix));
        if changed {
            // Which providers contexts may use, and peers may send to, is another matter now.
            self.advise();
        }
    }

    fn terms_of(&self, provider: &Provider) -> Option<&crate::policy::Terms> {
        let policy = self.steered.as_ref()?.controller.policy();
        policy.ways.iter().find(|terms| terms.prefix == provider.prefix)
    }

    /// The way a locator of ours belongs to.
    fn way_of(&self, locator: Locator) -> Option<u8> {
        let prefix = (locator.0.to_bits() >> 64) as u64;
        let policy = self.steered.as_ref()?.controller.policy();
        policy.ways.iter().position(|terms| terms.prefix == prefix).map(|way| way as u8)
    }

    /// The class of a context; nothing where no policy says anything about it.
    fn policy_class(&self, context: &Context) -> Option<usize> {
        let steered = self.steered.as_ref()?;
        match context.fork {
            0 => {
                let host = self.endpoint.inside(context.ulids).local;
                Some(steered.controller.policy().class_of(host.0, context.ulids.peer.0))
            }
            _ => self.class_of(context)?.policy,
        }
    }

    /// Tells the controller how providers are.
    pub(super) fn ways_as_they_are(&mut self, now: Instant) {
        let Some(steered) = &mut self.steered else { return };
        let policy = steered.controller.policy().clone();
        for (way, terms) in policy.ways.iter().enumerate() {
            let provider = self.providers.iter().find(|it| it.prefix == terms.prefix && it.leaving.is_none());
            let state = provider.map(|provider| WayState {
                up: provider.is_up() && !provider.told_down && !provider.failing,
                wish: match provider.steering {
                    Steering::Normal => Wish::None,
                    Steering::Prefer => Wish::Prefer,
                    Steering::Avoid => Wish::Avoid,
                    Steering::Drain => Wish::Drain,
                },
            });
            steered.controller.set_way(now, way, state.unwrap_or_default());
        }
    }

    /// The operator said what he wants of a provider: whatever was held against it is over.
    pub(super) fn policy_forgives(&mut self, at: usize) {
        let prefix = self.providers[at].prefix;
        if let Some(steered) = &mut self.steered
            && let Some(way) = steered.controller.policy().ways.iter().position(|terms| terms.prefix == prefix)
        {
            steered.controller.forgive(way);
        }
    }

    /// Where a new context of a pair should begin.
    pub(super) fn begin_at(
        &mut self,
        class: Option<usize>,
        host: std::net::Ipv6Addr,
        peer: std::net::Ipv6Addr,
    ) -> Option<Begin> {
        let steered = self.steered.as_mut()?;
        let class = class.unwrap_or_else(|| steered.controller.policy().class_of(host, peer));
        let [out, _] = steered.controller.place(class);
        Some(Begin { class, out })
    }

    /// The place of a provider for a context that begins, lower is better; nothing where the policy says nothing, or not even
    /// that the provider may not be used.
    fn begin_standing(&self, begin: Begin, provider: &Provider, salt: u64) -> Option<u8> {
        let controller = &self.steered.as_ref()?.controller;
        let way = controller.policy().ways.iter().position(|terms| terms.prefix == provider.prefix)?;
        controller
            .has_rule(begin.class, Direction::Out)
            .then(|| self.standing_of(provider, begin.out == Some(way as u8), salt))
    }

    /// The policy's class of a pair's default context, by its place and name; none without a policy.
    pub(super) fn policy_class_of(&self, host: std::net::Ipv6Addr, peer: std::net::Ipv6Addr) -> Option<(usize, &str)> {
        let policy = self.steered.as_ref()?.controller.policy();
        let class = policy.class_of(host, peer);
        Some((class, policy.classes.get(class)?.name.as_str()))
    }

    /// Whether a class never sends through a provider.
    pub(super) fn never_sends(&self, class: usize, provider: &Provider) -> bool {
        self.never(class, Direction::Out, provider)
    }

    /// A host's locators in the order in which a context that begins tries them.
    pub(super) fn local_order(
        &self,
        host: &LocalHost,
        ulids: UlidPair,
        class: Option<&Class>,
        begin: Option<Begin>,
    ) -> Vec<Locator> {
        let salt = self.sharding.hasher().pair(&ulids);
        let standing = |provider: &Provider| {
            let wanted = begin.and_then(|begin| self.begin_standing(begin, provider, salt));
            wanted.unwrap_or_else(|| self.standing_for(class, provider))
        };
        let mut local: Vec<Locator> = host.locators.iter().map(|(locator, _)| *locator).collect();
        local.retain(|locator| self.provider_of(locator.0).is_none_or(|(_, it)| !self.never_begins(begin, it)));
        local.sort_by_key(|locator| {
            self.provider_of(locator.0).map(|(_, provider)| (standing(provider), provider.preference))
        });
        local
    }

    /// Whether a class never uses a provider, in a direction.
    fn never(&self, class: usize, direction: Direction, provider: &Provider) -> bool {
        let Some(steered) = self.steered.as_ref() else { return false };
        let way = steered.controller.policy().ways.iter().position(|terms| terms.prefix == provider.prefix);
        way.is_some_and(|way| !steered.controller.may_use(class, direction, way))
    }

    /// The same for a context that begins.
    fn never_begins(&self, begin: Option<Begin>, provider: &Provider) -> bool {
        begin.is_some_and(|begin| self.never(begin.class, Direction::Out, provider))
    }

    /// The same for a context that is there, for what it sends.
    pub(super) fn never_uses(&self, context: &Context, provider: &Provider) -> bool {
        self.steered.is_some()
            && self.policy_class(context).is_some_and(|class| self.never(class, Direction::Out, provider))
    }

    /// The place of a provider for a context that is there: the one it should use, and after it the others in an order of its
    /// own, so that those who lose a provider are spread over the rest.
    pub(super) fn policy_standing(&self, context: &Context, provider: &Provider) -> Option<u8> {
        let steered = self.steered.as_ref()?;
        let class = self.policy_class(context)?;
        let way = steered.controller.policy().ways.iter().position(|terms| terms.prefix == provider.prefix)?;
        if !steered.controller.has_rule(class, Direction::Out) {
            return None;
        }
        let wanted = match steered.controller.way_of(context.id.index() as u32, Direction::Out) {
            Some(wanted) => Some(wanted),
            None => self.way_of(context.pair.local),
        };
        Some(self.standing_of(provider, wanted == Some(way as u8), context.local_tag.value()))
    }

    fn standing_of(&self, provider: &Provider, wanted: bool, salt: u64) -> u8 {
        if provider.is_unwelcome() || provider.steering == Steering::Avoid {
            return provider.standing();
        }
        // Of 256 places by chance three providers seldom have two alike; and then either may be first.
        let mixed = (salt ^ provider.prefix).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match (provider.steering, wanted) {
            (Steering::Prefer, _) => 0,
            (_, true) => 1,
            (_, false) => 2 + (mixed >> 58) as u8,
        }
    }

    /// Whether the policy, and not the order of site.toml or of a class there, says which providers a context uses.
    pub(super) fn is_under_policy(&self, context: &Context) -> bool {
        self.steered.as_ref().is_some_and(|steered| {
            self.policy_class(context).is_some_and(|class| steered.controller.has_rule(class, Direction::Out))
        })
    }
}

/// What happens to contexts.
impl Engine {
    /// A context is established, or was there before the policy.
    pub(super) fn policy_begins(&mut self, now: Instant, id: ContextId) {
        let Some(context) = self.endpoint.context(id).filter(|it| it.state == State::Established) else { return };
        let (Some(class), Some(way)) = (self.policy_class(context), self.way_of(context.pair.local)) else { return };
        let Some(steered) = &mut self.steered else { return };
        let place = id.index() as u32;
        let adopted = steered.before.as_deref().is_some_and(|before| steered.controller.adopt(place, class, before));
        if !adopted {
            // The peer of a new context sends to where it was asked from.
            steered.controller.began(now, place, class, [way, way]);
        }
        if let Some(attached) = self.attached.get(&id) {
            let octets = attached.traffic.map(|traffic| traffic.octets);
            steered.controller.measured(now, place, octets);
        }
        if (0..self.providers.len()).any(|at| self.never(class, Direction::In, &self.providers[at])) {
            self.has_news(id);
        }
    }

    /// A context is gone.
    pub(super) fn policy_ends(&mut self, id: ContextId) {
        self.goals.forget(id);
        if let Some(steered) = &mut self.steered {
            steered.controller.ended(id.index() as u32);
            if let Some(before) = &mut steered.before {
                before.ended(id.index() as u32);
            }
        }
    }

    /// What a worker saw of a context: its octets, the pair its payload goes over, and the provider by which the peer's last
    /// came, if that was looked at.
    pub(super) fn policy_measures(
        &mut self,
        now: Instant,
        id: ContextId,
        octets: [u64; 2],
        sends: Option<LocatorPair>,
        arrived: Option<u8>,
    ) {
        if self.steered.is_none() {
            return;
        }
        let out = sends.and_then(|pair| self.way_of(pair.local));
        let arrived = arrived.and_then(|at| self.providers.get(usize::from(at)));
        let prefix = arrived.map(|provider| provider.prefix);
        let place = id.index() as u32;
        let left_out = |it: &Steered| it.recount.is_none() && !it.controller.knows(place);
        if out.is_some() && self.steered.as_deref().is_some_and(left_out) {
            // It was on a provider that the policy does not know, and is no longer.
            self.policy_begins(now, id);
        }
        let Some(steered) = &mut self.steered else { return };
        steered.controller.measured(now, place, octets);
        if let Some(out) = out {
            steered.controller.is_at(place, Direction::Out, out.into());
        }
        let inward = prefix.and_then(|it| steered.controller.policy().ways.iter().position(|way| way.prefix == it));
        if let Some(inward) = inward {
            steered.controller.is_at(place, Direction::In, inward);
        }
    }

    /// A move out did not come about.
    pub(super) fn step_failed(&mut self, now: Instant, id: ContextId) {
        if let Some(steered) = &mut self.steered {
            steered.controller.refused(now, id.index() as u32, Direction::Out);
        }
    }

    /// What a context's peer should think of our locators, if that is not what all peers of the host should.
    pub(super) fn own_preferences(&self, id: ContextId) -> Option<Vec<Preference>> {
        let steered = self.steered.as_ref()?;
        let context = self.endpoint.context(id)?;
        let class = self.policy_class(context)?;
        // Where it is counted now, be it that it was told so or that it has gone elsewhere since.
        let inward = self.attached.get(&id)?.inward;
        let inward = inward.and_then(|_| steered.controller.way_of(id.index() as u32, Direction::In));
        let host = self.endpoint.host(self.endpoint.inside(context.ulids).local)?;
        let never = |provider: &Provider| self.never(class, Direction::In, provider);
        if !steered.controller.has_rule(class, Direction::In) {
            return None;
        }
        let of = |locator: Locator| {
            let provider = self.provider_of(locator.0).map(|(_, provider)| provider);
            let common = self.preference_of(host.ulid, locator);
            let broken = provider.is_some_and(never);
            let wanted = inward.is_some() && self.way_of(locator) == inward;
            let common_priority = common.priority.unwrap_or(OTHERS);
            let said = provider.is_some_and(|provider| provider.steering != Steering::Normal);
            let priority = match (said, wanted, inward) {
                (true, ..) | (_, _, None) => common_priority,
                (_, true, _) => WANTED,
                (_, false, _) => common_priority.max(OTHERS),
            };
            let flags = common.flags | if broken { Preference::BROKEN } else { 0 };
            Preference { flags, priority: Some(priority), ..common }
        };
        let preferences: Vec<Preference> = host.locators.iter().map(|(locator, _)| of(*locator)).collect();
        let all_broken = preferences.iter().all(|it| it.flags & Preference::BROKEN != 0);
        let plain = inward.is_none()
            && !host
                .locators
                .iter()
                .any(|(locator, _)| self.provider_of(locator.0).is_some_and(|(_, provider)| never(provider)));
        (!plain && !all_broken).then_some(preferences)
    }

    /// Looks at contexts that were there before the policy, and lets the controller do its work.
    pub(super) fn expire_policy(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        self.expire_goals(now, rng, effects);
        let Some(steered) = &self.steered else { return };
        if let Some(at) = steered.recount {
            self.recount(now, at);
        }
        let Some(steered) = &self.steered else { return };
        // Before all are counted nobody can say what is too much.
        if steered.recount.is_some() || steered.controller.deadline() > now {
            return;
        }
        self.ways_as_they_are(now);
        let Some(steered) = &mut self.steered else { return };
        let mut moves = std::mem::take(&mut steered.moves);
        steered.controller.expire(now, &mut moves);
        for it in moves.drain(..) {
            self.carry_out_move(now, rng, it, effects);
        }
        if let Some(steered) = &mut self.steered {
            steered.moves = moves;
        }
    }

    /// When [`Engine::expire_policy`] has something to do.
    pub(super) fn policy_deadline(&self) -> Option<Instant> {
        let steered = self.steered.as_ref();
        // Nothing has to be looked at while nobody is there.
        let look = steered.filter(|_| !self.endpoint.is_empty());
        let look = look.map(|it| if it.recount.is_some() { Instant::START } else { it.controller.deadline() });
        [look, self.goals.due()].into_iter().flatten().min()
    }

    fn recount(&mut self, now: Instant, at: usize) {
        let end = at.saturating_add(LOOKED_AT_PER_TURN);
        let ids: Vec<ContextId> = self.endpoint.contexts_at(at..end).map(|context| context.id).collect();
        for id in ids {
            let known = |it: &Steered| it.controller.knows(id.index() as u32);
            if !self.steered.as_deref().is_some_and(known) {
                self.policy_begins(now, id);
            }
        }
        let places = self.endpoint.places();
        if let Some(steered) = &mut self.steered {
            steered.recount = (end < places).then_some(end);
            if end >= places {
                steered.before = None;
            }
        }
    }

    fn carry_out_move(&mut self, now: Instant, rng: &mut dyn Rng, it: Move, effects: &mut Vec<Effect>) {
        let id = self.attached.id_at(it.place);
        let local = id.and_then(|id| self.locator_on(id, it.to));
        let begun = match (id, local, it.direction) {
            (Some(id), Some(local), Direction::Out) => match self.endpoint.context(id).map(|context| context.pair) {
                Some(current) if current.local == local => {
                    self.note_way(it.place, Direction::Out, it.to);
                    true
                }
                Some(current) => {
                    self.tally.count(Event::PolicyMovesOut);
                    self.move_out(now, rng, id, LocatorPair { local, ..current }, effects)
                }
                None => false,
            },
            (Some(id), Some(_), Direction::In) => {
                self.tally.count(Event::PolicyMovesIn);
                if let Some(attached) = self.attached.get_mut(&id) {
                    attached.inward = Some(it.to);
                }
                self.has_news(id);
                true
            }
            _ => false,
        };
        if !begun && let Some(steered) = &mut self.steered {
            self.tally.count(Event::PolicyMoveRefused);
            steered.controller.refused(now, it.place, it.direction);
        }
    }

    /// Has a context try the pair it was ordered to. False if it cannot.
    fn move_out(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        to: LocatorPair,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if !self.is_probeable(id, to) {
            // Orders come at once, and all others hear what is new in their turn: the way may have been forbidden so far.
            let rested = self.is_at_rest(id);
            self.locators_changed(now, rng, id, effects);
            if rested && !self.is_at_rest(id) {
                // It may not stay where it is and explores, the ordered way first. Whether it came there will be seen.
                return self.is_probeable(id, to);
            }
        }
        self.wish_for(now, rng, id, to, effects)
    }

    fn note_way(&mut self, place: u32, direction: Direction, way: u8) {
        if let Some(steered) = &mut self.steered {
            steered.controller.is_at(place, direction, way.into());
        }
    }

    /// A context's own locator from a provider.
    fn locator_on(&self, id: ContextId, way: u8) -> Option<Locator> {
        let context = self.endpoint.context(id)?;
        let prefix = self.steered.as_ref()?.controller.policy().ways.get(usize::from(way))?.prefix;
        let own = context.host.locators.iter().map(|(locator, _)| *locator);
        own.into_iter().find(|locator| {
            let provider = self.provider_of(locator.0).map(|(_, provider)| provider);
            let fits = provider.is_some_and(|it| it.prefix == prefix && it.is_up() && !it.is_unwelcome());
            fits && !self.is_going(context.ulids.local, *locator)
        })
    }

    /// The policy and how the site stands, as the operator sees it.
    pub fn policy_view(&self) -> PolicyView {
        let Some(steered) = &self.steered else { return PolicyView::default() };
        let (controller, policy) = (&steered.controller, steered.controller.policy());
        let direction = |class: usize, direction| {
            let shares = controller.shares(class, direction);
            let of = |way: usize| PolicyShareView {
                provider: policy.ways[way].name.clone(),
                mbps: shares.loads[way] / 125_000.0,
                target_mbps: shares.targets.as_ref().map(|targets| targets[way] / 125_000.0),
                contexts: u64::from(shares.contexts[way]),
            };
            (0..policy.ways.len()).map(of).collect()
        };
        let classes = policy.classes.iter().enumerate().map(|(at, class)| PolicyClassView {
            name: class.name.clone(),
            out: direction(at, Direction::Out),
            inward: direction(at, Direction::In),
        });
        let counts = controller.counts();
        PolicyView {
            loaded: true,
            policy: serde_json::to_value(&steered.file).unwrap_or_default(),
            classes: classes.collect(),
            moves_ordered: counts.ordered.iter().sum(),
            moves_done: counts.done.iter().sum(),
            moves_failed: counts.failed.iter().sum(),
        }
    }
}
