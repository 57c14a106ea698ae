//! What follows when a context changes: the workers' entry, its REAP machine, and what others on its path should know.

use std::cmp::Reverse;
use std::time::Duration;

use dataplane::context::entry::Traffic;
use dataplane::context::{self as table, Install, LocatorSets, Phase};
use dataplane::wire::shim6::{Addresses, Message, Options, Preference, Probe};
use dataplane::wire::{Locator, LocatorPair};
use rand::Rng;

use super::label::LabelUse;
use super::{Effect, Engine, Event, Story};
use crate::reap::{
    Activity, Direction, LocalLocator, Output as ReapOutput, PathBook, PathKey, PeerLocator, Reap, State, Verdict,
};
use crate::shim6::{Context, ContextId, GoneReason, How, Output, State as Shim6State};
use crate::time::Instant;

/// REAP deadlines looked at in one call, so that events of the workers never wait long.
const EXPIRED_PER_TURN: usize = 256;

/// Further attempts to leave a pair when explorations end on it, and the wait before the first; each wait is twice the
/// one before. Probes still under way can end an exploration that has hardly begun, so there is a wait.
const STAYED_MAX: u8 = 7;
const STAYED_WAIT: Duration = Duration::from_millis(500);

/// What hangs on a context besides what the endpoint keeps.
#[derive(Default)]
pub(super) struct Attached {
    /// What the owning worker was told last.
    pub(super) installed: Option<Install>,
    /// From ESTABLISHED on.
    pub(super) reap: Option<Reap>,
    /// Totals as last reported, out then in.
    pub(super) traffic: [Traffic; 2],
    /// The one valid place in the queue of REAP deadlines.
    queued: Option<Instant>,
    /// Stands in the queue of those that wait for a probe to be allowed.
    waiting: bool,
    /// Stands in the queue of suspects.
    pub(super) suspected: bool,
    /// Whether flow labels arrive.
    pub(super) labels: LabelUse,
    /// When a hint last made it test its path.
    pub(super) hinted: Option<Instant>,
    /// When the peer was last heard.
    pub(super) heard: Option<Instant>,
    /// Half seconds in which it was last counted among those heard, and among those that sent.
    pub(super) counted: [Option<u64>; 2],
    /// Stands in the queue of those that have something to hear.
    pub(super) news: bool,
    /// Explorations since the last news that ended on a pair which should be left.
    pub(super) stayed: u8,
    /// A pair of locators on which a router has no room for the payload header behind 1280 octets.
    pub(super) narrow: Option<LocatorPair>,
}

impl Engine {
    /// Carries out what the endpoint wants.
    pub(super) fn follow(&mut self, now: Instant, rng: &mut dyn Rng, outputs: Vec<Output>, effects: &mut Vec<Effect>) {
        for output in outputs {
            match output {
                Output::Send { context, addresses, message } => {
                    // The worker hears of the context before the peer does: what the peer sends at once finds it there.
                    self.sync_if(context, effects);
                    let first = effects.len();
                    self.send_message(now, addresses, &message, effects);
                    self.by_owner(context, &mut effects[first..]);
                }
                Output::Opening { id } => {
                    self.attached.insert(id, Attached::default());
                    self.revival.opening.insert(id);
                    self.sync(id, effects);
                }
                Output::Ready { id, how } => self.ready(now, rng, id, how, effects),
                Output::LocatorsChanged { id } => {
                    if let Some(attached) = self.attached.get_mut(&id) {
                        attached.stayed = 0;
                    }
                    self.locators_changed(now, rng, id, effects);
                }
                Output::Suspended { id } => {
                    self.revival.forget(id);
                    self.revival.opening.insert(id);
                    if let Some(reap) = self.attached.get_mut(&id).and_then(|attached| attached.reap.as_mut()) {
                        reap.stop();
                    }
                    self.sync(id, effects);
                }
                Output::Failed { ulids, fork, reason } => {
                    self.tally.count(Event::OpenFailed);
                    // Nothing waits for a context of a locator, and most peers that are reached without one have none.
                    if self.endpoint.inside(ulids) == ulids {
                        if fork == 0 {
                            effects.push(Effect::Refuse(self.owner(&ulids), ulids));
                        }
                        effects.push(Effect::Story(Story::Failed(ulids, reason)));
                    }
                }
                Output::Gone { id, ulids, fork, local_tag, reason } => {
                    self.tally.count(Event::ContextGone);
                    if reason == GoneReason::Displaced {
                        self.tally.count(Event::ContextDisplaced);
                    }
                    self.attached.remove(&id);
                    self.revival.forget(id);
                    effects.push(Effect::Remove(self.owner(&ulids), local_tag));
                    if reason == GoneReason::HostRemoved && fork == 0 {
                        // Packets may wait for the context, and nobody else will let go of them.
                        effects.push(Effect::Refuse(self.owner(&ulids), ulids));
                    }
                    effects.push(Effect::Story(Story::Gone(ulids, reason)));
                }
                Output::Reap { id, addresses, message } => {
                    self.reap_message(now, rng, id, addresses, &message, effects)
                }
                Output::ControlIn { id } => {
                    self.reap(now, rng, id, effects, |reap, rng, out| reap.payload_in(now, rng, out))
                }
                Output::ControlOut { id } => {
                    self.reap(now, rng, id, effects, |reap, rng, out| reap.payload_out(now, rng, out));
                }
                Output::ErrorReceived { .. } => self.tally.count(Event::ErrorsReceived),
            }
        }
    }

    /// ESTABLISHED: REAP begins, or goes on where the pair is still the one it knows.
    fn ready(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, how: How, effects: &mut Vec<Effect>) {
        self.revival.opening.remove(&id);
        let Some(context) = self.endpoint.context(id) else { return };
        self.tally.count(if how == How::Recovered { Event::ContextRecovered } else { Event::ContextReady });
        effects.push(Effect::Story(Story::Ready(context.ulids, context.pair, how)));
        let (ulid, pair, timeout) = (context.ulids.local, context.pair, context.peer_keepalive_timeout);
        let (local, peer) = self.locators(context);
        let attached = self.attached.entry(id).or_default();
        let kept = attached.reap.take().filter(|reap| reap.current() == pair);
        let fresh = kept.is_none();
        let mut reap = kept.unwrap_or_else(|| Reap::new(&self.reap_config, pair, &local[..], &peer[..]));
        // The exchange itself went over this pair and back (docs/decisions: handshake as presence proof).
        reap.set_confirmed(pair);
        if let Some(seconds) = timeout {
            reap.set_keepalive_timeout(seconds);
        }
        attached.reap = Some(reap);
        if !fresh {
            self.reap(now, rng, id, effects, |reap, rng, out| reap.set_locators(now, rng, local, peer, out));
        }
        self.sync(id, effects);
        self.sight(now, id, PathKey::of(pair), [true, false]);
        match how {
            // The peer sent its R2 and is ready for a test. In the other cases our own R2 has not left yet.
            How::Initiated => self.label_payload(now, rng, id, None, effects),
            How::Accepted | How::Recovered | How::Updated => self.wake(now, id),
        }
        if self.is_unwelcome(ulid, pair.local) {
            // The peer chose it, or there was no choice when the exchange began.
            self.has_news(id);
        }
    }

    pub(super) fn locators_changed(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        effects: &mut Vec<Effect>,
    ) {
        let Some(context) = self.endpoint.context(id) else { return };
        let timeout = context.peer_keepalive_timeout;
        let (local, peer) = self.locators(context);
        self.reap(now, rng, id, effects, |reap, rng, out| {
            if let Some(seconds) = timeout {
                reap.set_keepalive_timeout(seconds);
            }
            reap.set_locators(now, rng, local, peer, out);
        });
        self.sync(id, effects);
    }

    /// The locators REAP may use: ours in order of the providers, the peer's as far as they are proved.
    fn locators(&self, context: &Context) -> (Vec<LocalLocator>, Vec<PeerLocator>) {
        let ulid = context.ulids.local;
        let welcome = |locator: &Locator| self.provider_of(locator.0).is_some() && !self.is_unwelcome(ulid, *locator);
        // Nothing is left that has no alternative, for instance while the peer has not accepted the new locators yet.
        let alternative = context.host.locators.iter().any(|(locator, _)| welcome(locator));
        let ours = context.host.locators.iter().filter_map(|(locator, _)| {
            let (_, provider) = self.provider_of(locator.0)?;
            let (preference, unwelcome) = (provider.standing(), alternative && !welcome(locator));
            Some(LocalLocator { locator: *locator, preference, unwelcome })
        });
        let theirs = context.peer_locators.iter().filter(|known| known.verified).map(|known| PeerLocator {
            locator: known.locator,
            broken: known.preference.flags & Preference::BROKEN != 0,
            transient: known.preference.flags & Preference::TRANSIENT != 0,
            priority: known.preference.priority.unwrap_or_default(),
        });
        (ours.collect(), theirs.collect())
    }

    /// Has the worker that owns a context send what is about it, so that it knows the context before the peer hears of it.
    /// What has to wait for a neighbour goes later anyway.
    fn by_owner(&self, id: Option<ContextId>, effects: &mut [Effect]) {
        let Some(context) = id.and_then(|id| self.endpoint.context(id)) else { return };
        let owner = self.owner(&context.ulids);
        for effect in effects {
            if let Effect::Transmit(port, frame) = effect {
                *effect = Effect::TransmitBy(owner, *port, std::mem::take(frame));
            }
        }
    }

    fn sync_if(&mut self, id: Option<ContextId>, effects: &mut Vec<Effect>) {
        if let Some(id) = id {
            self.sync(id, effects);
        }
    }

    /// Tells the owning worker what it should know of a context, if that is not what it was told last.
    pub(super) fn sync(&mut self, id: ContextId, effects: &mut Vec<Effect>) {
        let Some(context) = self.endpoint.context(id) else { return };
        let phase = match context.state {
            Shim6State::I1Sent => Phase::Opening,
            Shim6State::I2Sent => Phase::Answering,
            // Where the peer is has to be found first: it told of a list without the locator it spoke from, and no other has
            // answered yet. Packets wait meanwhile; they must not go to an identifier that nobody routes.
            Shim6State::Established | Shim6State::I2bisSent if is_nowhere(context) => Phase::Answering,
            Shim6State::Established | Shim6State::I2bisSent => Phase::Live,
            Shim6State::Idle | Shim6State::EFailed | Shim6State::NoSupport => return,
        };
        let Some((provider, _)) = self.provider_of(context.pair.local.0) else { return };
        let inside = self.endpoint.inside(context.ulids).local;
        let Some(&host) = self.snapshot.host_index.get(&inside) else { return };
        let Some(attached) = self.attached.get(&id) else { return };
        let install = Install {
            handle: id.to_bits(),
            ulids: context.ulids,
            default: context.fork == 0,
            local_tag: context.local_tag,
            peer_tag: context.peer_tag.unwrap_or(context.local_tag),
            locators: context.pair,
            provider: provider as u8,
            host,
            inside: (inside != context.ulids.local).then_some(inside),
            phase,
            local_label: context.local_label.filter(|_| phase != Phase::Opening),
            peer_label: self.label_in_use(context),
            narrow: attached.narrow == Some(context.pair),
            accepted: (self.strict || context.local_label.is_some()).then(|| Box::new(locator_sets(context))),
        };
        let owner = self.owner(&context.ulids);
        let Some(attached) = self.attached.get_mut(&id) else { return };
        if attached.installed.as_ref() != Some(&install) {
            let before = attached.installed.as_ref().and_then(|old| old.peer_label);
            match (before.is_some(), install.peer_label.is_some()) {
                (false, true) => self.tally.count(Event::LabelBegun),
                (true, false) => self.tally.count(Event::LabelEnded),
                (true, true) | (false, false) => {}
            }
            if let Some(old) = attached.installed.as_ref().filter(|old| old.local_tag != install.local_tag) {
                effects.push(Effect::Remove(owner, old.local_tag));
            }
            attached.installed = Some(install.clone());
            effects.push(Effect::Install(owner, install));
        }
    }

    /// What a worker saw in a context since its last report.
    pub(super) fn activity(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        activity: table::Activity,
        traffic: [Traffic; 2],
        effects: &mut Vec<Effect>,
    ) {
        let Some(context) = self.endpoint.context(id) else { return };
        let pair = context.pair;
        let early = activity.received && matches!(context.state, Shim6State::I2Sent | Shim6State::I2bisSent);
        if let Some(attached) = self.attached.get_mut(&id) {
            attached.traffic = traffic;
        }
        self.endpoint.used(now, id);
        if early {
            // RFC 5533 §12.2: the peer is established, so its R2 was lost.
            let mut out = Vec::new();
            let verdict = self.endpoint.payload_received(now, id, &mut out);
            self.tally.shim6(verdict);
            self.follow(now, rng, out, effects);
        }
        let last = match activity.last {
            table::Direction::In => Direction::Received,
            table::Direction::Out => Direction::Sent,
        };
        let digest = Activity { received: activity.received, sent: activity.sent, last };
        self.sight(now, id, PathKey::of(pair), [activity.received, activity.sent]);
        self.reap(now, rng, id, effects, |reap, rng, out| reap.activity(now, rng, digest, out));
        self.label_payload(now, rng, id, Some(activity), effects);
    }

    fn reap_message(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        addresses: Addresses,
        message: &Message,
        effects: &mut Vec<Effect>,
    ) {
        let arrived = LocatorPair { local: Locator(addresses.target), peer: Locator(addresses.source) };
        self.sight(now, id, PathKey::of(arrived), [true, false]);
        if self.label_message(now, id, addresses, message, effects) {
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
    fn reap(
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
        let probes = out.iter().filter(|output| matches!(output, ReapOutput::SendProbe { .. })).count();
        for output in out {
            self.reap_output(now, rng, id, output, effects);
        }
        probes as u32
    }

    fn reap_output(
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
                let message = Message::Keepalive { receiver_tag, options: Options::default() };
                self.send_message(now, along(pair), &message, effects);
            }
            ReapOutput::SendProbe { pair, state, sent, received } => {
                let Some(receiver_tag) = tag else { return };
                self.tally.count(Event::ProbesSent);
                let probe = Probe { receiver_tag, state, sent, received, options: Options::default() };
                self.send_message(now, along(pair), &Message::Probe(probe), effects);
            }
            ReapOutput::PairChanged { from, to } => self.pair_changed(now, rng, id, (from, to), effects),
            ReapOutput::Confirmed { pair, after } => {
                self.sightings.answered(PathKey::of(pair), after, now);
                let _ = self.endpoint.set_probed(id, pair.peer, true);
                self.book.confirmed(PathKey::of(pair), now);
            }
            ReapOutput::Failed { pair, probed } => {
                let path = PathKey::of(pair);
                if self.book.failed(path, id.to_bits(), probed, now) == Verdict::NewlyDead {
                    self.path_died(now, id, path, effects);
                }
            }
            ReapOutput::ExplorationStarted { reason } => {
                self.tally.count(Event::Explorations);
                self.revival.exploring.insert(id);
                self.label_doubt(now, id, reason, effects);
                effects.push(Effect::Story(Story::Exploring(ulids, pair, reason)));
            }
            ReapOutput::AnswerCapped => self.tally.count(Event::ProbeAnswerCapped),
            ReapOutput::UnmatchedReports { .. } => self.tally.count(Event::ProbeUnmatched),
            ReapOutput::ExplorationEnded { .. } => {
                self.revival.exploring.remove(&id);
                self.wake(now, id);
                self.leave_after_all(now, rng, id);
            }
            ReapOutput::BackedOff => {}
        }
    }

    /// An exploration that was under way when its context was told to leave a pair may end on that pair, for whatever it
    /// was begun. Then the others are tried in their turn, but not for ever: they may all be dead.
    fn leave_after_all(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId) {
        let Some(context) = self.endpoint.context(id) else { return };
        let (local, peer) = self.locators(context);
        let current = self.attached.get(&id).and_then(|attached| attached.reap.as_ref()).map(Reap::current);
        // A link that is down shows by itself whether it is; trying again and again would only cost probes.
        let down = |locator: Locator| self.provider_of(locator.0).is_some_and(|(_, provider)| provider.told_down);
        let unwelcome = |pair: LocatorPair| {
            local.iter().any(|ours| ours.unwelcome && ours.locator == pair.local) && !down(pair.local)
        };
        let broken = |pair: LocatorPair| peer.iter().any(|theirs| theirs.broken && theirs.locator == pair.peer);
        let stays = current.is_some_and(|pair| unwelcome(pair) || broken(pair));
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

    fn pair_changed(
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
            return;
        }
        self.tally.count(Event::PairChanges);
        if let Some(context) = self.endpoint.context(id) {
            effects.push(Effect::Story(Story::Moved(context.ulids, from, to)));
        }
        self.sync(id, effects);
        let mut out = Vec::new();
        self.endpoint.repeat_update(now, rng, id, &mut out);
        self.follow(now, rng, out, effects);
    }

    /// REAP timers, those that waited for a probe to be allowed, and suspects, at the pace all contexts keep together. A
    /// call does a bounded amount of work; what is left is due at once again.
    pub(super) fn expire_reap(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        for _ in 0..EXPIRED_PER_TURN {
            let Some(&Reverse((at, id))) = self.due.peek().filter(|Reverse((at, _))| *at <= now) else { break };
            self.due.pop();
            let Some(attached) = self.attached.get_mut(&id).filter(|attached| attached.queued == Some(at)) else {
                continue;
            };
            attached.queued = None;
            let Some(reap) = attached.reap.as_ref() else { continue };
            match reap.deadline() {
                None => {}
                Some(due) if due > now => {
                    attached.queued = Some(due);
                    self.due.push(Reverse((due, id)));
                }
                Some(_) if attached.waiting => {}
                Some(_) if reap.probe_due(now) => {
                    attached.waiting = true;
                    self.waiting.push_back(id);
                }
                Some(_) => _ = self.reap_paid(now, rng, id, effects, |reap, rng, _, out| reap.expire(now, rng, out)),
            }
        }
        while !self.waiting.is_empty() && self.budget.take(now) {
            let Some(id) = self.waiting.pop_front() else { break };
            if let Some(attached) = self.attached.get_mut(&id) {
                attached.waiting = false;
            }
            self.look_around(now, id);
            self.reap_paid(now, rng, id, effects, |reap, rng, _, out| reap.expire(now, rng, out));
        }
        while let Some(&(id, path)) = self.suspects.front() {
            // Another path may have been found, or the context may explore already.
            let at_rest = |reap: &Reap| reap.state() == State::Operational && PathKey::of(reap.current()) == path;
            let still = self.attached.get(&id).is_some_and(|attached| attached.reap.as_ref().is_some_and(at_rest));
            if still && !self.budget.take(now) {
                return;
            }
            self.suspects.pop_front();
            if let Some(attached) = self.attached.get_mut(&id) {
                attached.suspected = false;
            }
            if still {
                self.suspect(now, rng, id, effects);
            }
        }
    }

    /// Gives a context its place in the queue of deadlines.
    fn requeue(&mut self, id: ContextId) {
        let Some(attached) = self.attached.get_mut(&id) else { return };
        let deadline = attached.reap.as_ref().and_then(Reap::deadline);
        if let Some(at) = deadline.filter(|at| attached.queued.is_none_or(|queued| *at < queued)) {
            attached.queued = Some(at);
            self.due.push(Reverse((at, id)));
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
    fn suspect(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, effects: &mut Vec<Effect>) {
        self.reap_paid(now, rng, id, effects, |reap, rng, book, out| {
            reap.suspect(now, rng, &|pair| book.rank(pair, now), out);
        });
    }
}

/// Whether the current pair leads to the peer's identifier although that is none of its locators.
fn is_nowhere(context: &Context) -> bool {
    context.pair.peer.0 == context.ulids.peer.0 && context.peer_locator(context.pair.peer.0).is_none()
}

fn locator_sets(context: &Context) -> LocatorSets {
    LocatorSets {
        local: context.host.locators.iter().map(|(locator, _)| *locator).collect(),
        peer: context.peer_locators.iter().map(|known| known.locator).collect(),
    }
}

/// The addresses of a packet we send on a pair.
fn along(pair: LocatorPair) -> Addresses {
    Addresses { source: pair.local.0, target: pair.peer.0 }
}
