//! A context's REAP machine: what it is told, what it wants, and when others on its path hear of it.

use std::cmp::Reverse;
use std::time::Duration;

use dataplane::wire::shim6::{Addresses, Message, Options, Probe};
use dataplane::wire::{Locator, LocatorPair};
use rand::Rng;

use super::context::along;
use super::{Effect, Engine, Event, Story};
use crate::reap::{Output as ReapOutput, PathBook, PathKey, Reap, State, Verdict};
use crate::shim6::ContextId;
use crate::time::Instant;

/// When the last segment of a context is sent again after it found a path.
const WAKE_AFTER: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(200), Duration::from_millis(800)];

/// Further attempts to leave a pair when explorations end on it, and the wait before the first; each wait is twice the
/// one before. Probes still under way can end an exploration that has hardly begun, so there is a wait.
const STAYED_MAX: u8 = 7;
const STAYED_WAIT: Duration = Duration::from_millis(500);

/// REAP deadlines looked at in one call, so that events of the workers never wait long.
const EXPIRED_PER_TURN: usize = 256;
/// Paths looked at in one call for contexts that have still to be asked.
const PATHS_PER_TURN: usize = 2048;
/// Timers that are moved to a finer list in one call, for the same reason.
const MOVED_PER_TURN: usize = 4096;

impl Engine {
    pub(super) fn reap_message(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        addresses: Addresses,
        message: &Message,
        effects: &mut Vec<Effect>,
    ) {
        if self.liveness_message(now, rng, id, addresses, message, effects) {
            return;
        }
        let arrived = LocatorPair { local: Locator(addresses.target), peer: Locator(addresses.source) };
        self.sight(now, id, PathKey::of(arrived), [true, false]);
        if let Some(attached) = self.attached.get_mut(&id) {
            attached.heard_from = Some(arrived.peer);
        }
        if self.udp_message(now, rng, id, addresses, message, effects)
            || self.label_message(now, id, addresses, message, effects)
        {
            return;
        }
        let mut refused = None;
        self.reap(now, rng, id, effects, |reap, rng, out| match message {
            Message::Keepalive { .. } => reap.keepalive(now, rng, out),
            Message::Probe(probe) => {
                let (source, target) = (Locator(addresses.source), Locator(addresses.target));
                refused = reap.probe(now, rng, source, target, probe, out).err();
            }
            _ => {}
        });
        if let Some(reason) = refused {
            self.tally.probe_refused(reason);
        }
    }

    /// Runs REAP of a context and carries out what it wants. Probes it answers with slow down those that wait for the
    /// common budget.
    pub(super) fn reap(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        effects: &mut Vec<Effect>,
        input: impl FnOnce(&mut Reap, &mut dyn Rng, &mut Vec<ReapOutput>),
    ) {
        let probes = self.reap_paid(now, rng, id, effects, |reap, rng, _, out| input(reap, rng, out));
        self.budget.charge(now, probes);
    }

    /// The same where the budget has been asked already; also for inputs that ask what other contexts know about paths.
    /// How many probes were sent.
    pub(super) fn reap_paid(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        effects: &mut Vec<Effect>,
        input: impl FnOnce(&mut Reap, &mut dyn Rng, &PathBook, &mut Vec<ReapOutput>),
    ) -> u32 {
        // One that left ESTABLISHED has no timers and sends no probes (R5534-126), whatever is still said of it.
        if !self.carries_payload(id) {
            return 0;
        }
        let Some(attached) = self.attached.get_mut(&id) else { return 0 };
        let Some(reap) = attached.reap.as_mut() else { return 0 };
        let mut out = Vec::new();
        input(reap, rng, &self.book, &mut out);
        if out.iter().any(|output| matches!(output, ReapOutput::ExplorationStarted { .. })) {
            reap.reorder(&|pair| self.book.rank(pair, now));
        }
        // A later deadline is found when the earlier place in the queue comes up, so a busy context queues rarely.
        if !attached.waiting {
            self.requeue(id);
        }
        self.attached.settle(id);
        let probes = out.iter().filter(|output| matches!(output, ReapOutput::SendProbe { .. })).count();
        for output in out {
            self.reap_output(now, rng, id, output, effects);
        }
        probes as u32
    }

    /// Whether REAP runs for a context.
    pub(super) fn carries_payload(&self, id: ContextId) -> bool {
        self.endpoint.context(id).is_some_and(|context| context.state.carries_payload())
    }

    pub(super) fn reap_output(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        output: ReapOutput,
        effects: &mut Vec<Effect>,
    ) {
        let Some(context) = self.endpoint.context(id) else { return };
        let (ulids, pair, tag) = (context.ulids, context.pair, context.peer_tag);
        match output {
            ReapOutput::SendKeepalive { pair } => {
                let Some(receiver_tag) = tag else { return };
                self.tally.count(Event::KeepalivesSent);
                // Like payload, on which they say that it arrives.
                let pair = self.pair_in_use(id).unwrap_or(pair);
                let message = Message::Keepalive { receiver_tag, options: Options::default() };
                self.send_message(now, Some(id), along(pair), &message, effects);
            }
            ReapOutput::SendProbe { pair, state, sent, received } => {
                let Some(receiver_tag) = tag else { return };
                self.tally.count(Event::ProbesSent);
                let probe = Probe { receiver_tag, state, sent, received, options: Options::default() };
                self.unanswered(now, rng, id, pair, effects);
                self.send_message(now, Some(id), along(pair), &Message::Probe(probe), effects);
            }
            ReapOutput::PairChanged { from, to } => self.pair_changed(now, rng, id, (from, to), effects),
            ReapOutput::Confirmed { pair, after } => {
                self.sightings.answered(PathKey::of(pair), after, now);
                self.answered(id, Some(pair));
                let _ = self.endpoint.set_probed(id, pair.peer, true);
                self.book.confirmed(PathKey::of(pair), now);
                self.route_works(PathKey::of(pair), now - after, now, effects);
                self.path_is_back(PathKey::of(pair), effects);
            }
            ReapOutput::Failed { pair, probed } => {
                let path = PathKey::of(pair);
                self.route_fails(path, probed);
                let verdict = self.book.failed(path, id.to_bits(), probed, now);
                if matches!(verdict, Verdict::NewlyDead | Verdict::KnownDead) {
                    self.path_is_lost(now, path, effects);
                }
                if verdict == Verdict::NewlyDead {
                    self.path_died(now, id, path, effects);
                }
                self.pair_failed(id, pair, effects);
            }
            ReapOutput::ExplorationStarted { reason } => {
                self.tally.count(Event::Explorations);
                self.revival.exploring.insert(id);
                self.answered(id, None);
                self.label_doubt(now, id, reason, effects);
                effects.push(Effect::Story(Story::Exploring(ulids, pair, reason)));
            }
            ReapOutput::AnswerCapped => self.tally.count(Event::ProbeAnswerCapped),
            ReapOutput::UnmatchedReports { .. } => self.tally.count(Event::ProbeUnmatched),
            ReapOutput::ExplorationEnded { after, .. } => {
                self.durations.explored(after);
                self.revival.exploring.remove(&id);
                self.answered(id, None);
                self.end_detour(id, effects);
                self.wake(now, id);
                self.leave_after_all(now, rng, id);
            }
            ReapOutput::BackedOff => {}
        }
    }

    /// An exploration that was under way when its context was told to leave a pair may end on that pair, for whatever it
    /// was begun. Then the others are tried in their turn, but not for ever: they may all be dead.
    pub(super) fn leave_after_all(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId) {
        let Some(context) = self.endpoint.context(id) else { return };
        let (local, peer) = self.locators(context);
        let current = self.attached.get(&id).and_then(|attached| attached.reap.as_ref()).map(Reap::current);
        // A link that is down shows by itself whether it is; trying again and again would only cost probes.
        let down = |locator: Locator| self.provider_of(locator.0).is_some_and(|(_, provider)| provider.told_down);
        let unwelcome = |pair: LocatorPair| {
            local.iter().any(|ours| ours.unwelcome && ours.locator == pair.local) && !down(pair.local)
        };
        let broken = |pair: LocatorPair| peer.iter().any(|theirs| theirs.broken && theirs.locator == pair.peer);
        // The peer's own search may have taken a forked context to another provider than its class prefers.
        let away = self.class_of(context).and_then(|class| self.homeward(now, context, class)).is_some();
        let stays = away || current.is_some_and(|pair| unwelcome(pair) || broken(pair));
        let Some(attached) = self.attached.get_mut(&id).filter(|_| stays) else { return };
        if attached.stayed < STAYED_MAX {
            // Spread, or two ends that are both to leave something would get in each other's way again and again.
            let spread = 0.5 + f64::from(rng.next_u32()) / f64::from(u32::MAX);
            let wait = (STAYED_WAIT * (1 << attached.stayed)).mul_f64(spread);
            attached.stayed += 1;
            self.stays.push(Reverse((now + wait, id)));
        }
    }

    /// Contexts that stayed where they should not be try again to leave.
    pub(super) fn expire_stays(&mut self, now: Instant) {
        while let Some(Reverse((_, id))) = self.stays.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.stays.pop();
            self.has_news(id);
        }
    }

    pub(super) fn pair_changed(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        (from, to): (LocatorPair, LocatorPair),
        effects: &mut Vec<Effect>,
    ) {
        let _ = self.endpoint.set_probed(id, to.peer, true);
        if self.endpoint.set_pair(id, to).is_err() {
            // REAP only knows proved locators, so this is a broken invariant; both sides go on from what packets use.
            self.tally.count(Event::PairChangeRefused);
            let Some(context) = self.endpoint.context(id) else { return };
            let (local, peer) = self.locators(context);
            let reap = Reap::new(&self.reap_config, context.pair, local, peer);
            if let Some(attached) = self.attached.get_mut(&id) {
                attached.reap = Some(reap);
            }
            self.attached.settle(id);
            return;
        }
        self.tally.count(Event::PairChanges);
        if let Some(attached) = self.attached.get(&id) {
            let octets = attached.traffic.map(|traffic| traffic.octets);
            self.policy_measures(now, id, octets, Some(to), None);
        }
        if let Some(attached) = self.attached.get_mut(&id) {
            attached.homeward = Some(now);
        }
        if let Some(context) = self.endpoint.context(id) {
            effects.push(Effect::Story(Story::Moved(context.ulids, from, to)));
        }
        self.sync(id, effects);
        let mut out = Vec::new();
        self.endpoint.repeat_update(now, rng, id, &mut out);
        self.follow(now, rng, out, effects);
    }

    /// Other contexts on a path that has just proved dead look for another one now instead of waiting for their own
    /// Send Timeout. Each of them moves only when its own probe is answered.
    pub(super) fn path_died(&mut self, now: Instant, witness: ContextId, path: PathKey, effects: &mut Vec<Effect>) {
        self.tally.count(Event::PathsDead);
        self.attached.doubt(path, Some(witness));
        self.weigh_providers(now, effects);
    }

    /// REAP timers, those that waited for a probe to be allowed, and suspects, at the pace all contexts keep together. A
    /// call does a bounded amount of work; what is left is due at once again.
    pub(super) fn expire_reap(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        let mut moves = MOVED_PER_TURN;
        for _ in 0..EXPIRED_PER_TURN {
            let Some((_, at)) = self.due.pop(now, &mut moves) else { break };
            let Some(id) = self.attached.id_at(at) else { continue };
            let Some(attached) = self.attached.get_mut(&id) else { continue };
            let Some(reap) = attached.reap.as_ref() else { continue };
            match reap.deadline() {
                None => {}
                Some(due) if due > now => self.due.set(at, Some(due)),
                Some(_) if attached.waiting => {}
                Some(_) if reap.probe_due(now) => {
                    attached.waiting = true;
                    self.waiting.push_back(id);
                }
                Some(_) => _ = self.reap_paid(now, rng, id, effects, |reap, rng, _, out| reap.expire(now, rng, out)),
            }
        }
        for _ in 0..EXPIRED_PER_TURN {
            let Some(id) = self.waiting.front().copied() else { break };
            // Who is gone, or has heard from the peer meanwhile, sends nothing and takes nothing from the others.
            let reap = self.attached.get(&id).and_then(|attached| attached.reap.as_ref());
            if reap.is_some_and(|reap| reap.probe_due(now)) && !self.budget.take(now) {
                break;
            }
            self.waiting.pop_front();
            if let Some(attached) = self.attached.get_mut(&id) {
                attached.waiting = false;
            }
            self.look_around(now, id);
            self.reap_paid(now, rng, id, effects, |reap, rng, _, out| reap.expire(now, rng, out));
        }
        let mut looks = PATHS_PER_TURN;
        for _ in 0..EXPIRED_PER_TURN {
            let Some(id) = self.attached.next_in_doubt(&mut looks) else { return };
            // It may explore already.
            let at_rest = |reap: &Reap| reap.state() == State::Operational;
            let still = self.attached.get(&id).is_some_and(|attached| attached.reap.as_ref().is_some_and(at_rest));
            let still = still && self.carries_payload(id);
            if still && !self.budget.take(now) {
                return;
            }
            self.attached.asked(id);
            if still {
                self.suspect(now, rng, id, effects);
            }
        }
    }

    /// Gives a context its place in the queue of deadlines.
    pub(super) fn requeue(&mut self, id: ContextId) {
        let Some(attached) = self.attached.get(&id) else { return };
        let deadline = attached.reap.as_ref().and_then(Reap::deadline);
        let place = id.index() as u32;
        if let Some(at) = deadline.filter(|at| self.due.at(place).is_none_or(|queued| *at < queued)) {
            self.due.set(place, Some(at));
        }
    }

    /// The context has a working path again: its host's TCP, which waits longer and longer for a sign of life, shall have
    /// one. The peer may need a moment to move its own direction, so this is tried more than once; a worker that has heard
    /// from the peer meanwhile has nothing left to send.
    pub(super) fn wake(&mut self, now: Instant, id: ContextId) {
        self.wakes.extend(WAKE_AFTER.map(|delay| Reverse((now + delay, id))));
    }

    /// Has the last segments sent again of contexts that found a path a moment ago.
    pub(super) fn expire_wakes(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some(&Reverse((at, id))) = self.wakes.peek() {
            if at > now {
                return;
            }
            self.wakes.pop();
            if let Some(context) = self.endpoint.context(id) {
                effects.push(Effect::Replay(self.home(context), context.local_tag));
            }
        }
    }

    /// Policy would rather have a context use `to`: tested first, taken if it is answered (R5533-018).
    pub(super) fn relocate(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        to: LocatorPair,
        effects: &mut Vec<Effect>,
    ) {
        self.reap(now, rng, id, effects, |reap, rng, out| _ = reap.relocate(now, rng, to, out));
    }

    /// Evidence of the box's own, or of other contexts, against the current pair of a context: look for another one (RFC
    /// 5534 §4.2).
    pub(super) fn suspect(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, effects: &mut Vec<Effect>) {
        self.reap_paid(now, rng, id, effects, |reap, rng, book, out| {
            reap.suspect(now, rng, &|pair| book.rank(pair, now), out);
        });
    }
}
