//! Moves that somebody wishes for though nothing failed: tested first, then made, and the peer's direction stays as it is.
//!
//! An exploration would do it as well ([`Reap::relocate`](crate::reap::Reap::relocate)), and it makes the peer explore: it answers on
//! the mirror of the pair it was asked on and stays there, so that neither direction could be steered by itself. So
//! the wanted pair is asked by a request that says nothing, as standbys are (docs/decisions: path indirection), and when the
//! answer has come back over that very pair, payload takes it. REAP hears that it did, and watches over it as over any.
//!
//! Two wish for such moves: our own policy, which chooses our locator, and peers by their Locator Preferences, which
//! choose theirs. A peer that gives another of its locators than the one in use a priority of zero asks us to send there; RFC 5533
//! §5.15.3 leaves it to us whether we do.

use std::collections::VecDeque;
use std::time::Duration;

use dataplane::wire::LocatorPair;
use dataplane::wire::shim6::Preference;
use hashbrown::HashMap;
use rand::Rng;

use super::{Effect, Engine, Event};
use crate::reap::State;
use crate::shim6::{Context, ContextId, State as Shim6State};
use crate::time::Instant;

/// How long an answer may take, and how often it is asked for, or waited for the peer to have heard other news.
const PATIENCE: Duration = Duration::from_millis(1500);
const ATTEMPTS: u8 = 4;
/// Wishes that are looked at again in one call.
const LOOKED_AT_PER_TURN: usize = 256;

/// Moves under way.
#[derive(Debug, Default)]
pub(super) struct Goals {
    wanted: HashMap<ContextId, Goal>,
    /// When to ask again, in order. Who has been answered meanwhile is passed over.
    late: VecDeque<(Instant, ContextId)>,
}

#[derive(Clone, Copy, Debug)]
struct Goal {
    pair: LocatorPair,
    /// It is being asked about, and did not only wait so far.
    asked: bool,
    attempts: u8,
    late: Instant,
}

impl Goals {
    /// Moves under way.
    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.late.front().map(|(at, _)| *at)
    }

    pub(super) fn has(&self, id: ContextId) -> bool {
        self.wanted.contains_key(&id)
    }

    pub(super) fn forget(&mut self, id: ContextId) {
        self.wanted.remove(&id);
    }
}

impl Engine {
    /// A context should use this pair, if the peer answers on it. False if it cannot be asked at all.
    pub(super) fn wish_for(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        pair: LocatorPair,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(context) = self.endpoint.context(id).filter(|it| it.state == Shim6State::Established) else {
            return false;
        };
        let theirs = context.peer_locator(pair.peer.0);
        let proved = theirs.is_some_and(|known| known.verified && known.preference.flags & Preference::BROKEN == 0);
        if !proved || !self.is_probeable(id, pair) || !context.host.has(pair.local.0) {
            return false;
        }
        let late = now + PATIENCE;
        self.goals.wanted.insert(id, Goal { pair, asked: false, attempts: 0, late });
        self.goals.late.push_back((late, id));
        self.tally.count(Event::StepsWished);
        self.ask(now, rng, id, effects);
        true
    }

    /// Whether REAP has a pair among those it would try.
    pub(super) fn is_probeable(&self, id: ContextId, pair: LocatorPair) -> bool {
        let reap = self.attached.get(&id).and_then(|attached| attached.reap.as_ref());
        reap.is_some_and(|reap| reap.probeable().any(|candidate| candidate == pair))
    }

    /// Whether nothing is in doubt about the pair a context uses.
    pub(super) fn is_at_rest(&self, id: ContextId) -> bool {
        let reap = self.attached.get(&id).and_then(|attached| attached.reap.as_ref());
        reap.is_some_and(|reap| reap.state() == State::Operational)
    }

    /// Asks the peer, if it can be asked now.
    fn ask(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, effects: &mut Vec<Effect>) {
        let Some(goal) = self.goals.wanted.get_mut(&id) else { return };
        goal.attempts += 1;
        let (pair, again) = (goal.pair, goal.asked && self.endpoint.is_checking(id));
        let mut out = Vec::new();
        let asked = match again {
            true => self.endpoint.check_again(id, &mut out),
            false => {
                // A test of a standby would be the same request, and waits.
                self.end_standby_test(id);
                self.endpoint.check_pair(rng, id, pair, &mut out)
            }
        };
        if let Some(goal) = self.goals.wanted.get_mut(&id) {
            goal.asked = asked;
        }
        self.follow(now, rng, out, effects);
    }

    /// Asks those again who have not answered, and gives up.
    pub(super) fn expire_goals(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        for _ in 0..LOOKED_AT_PER_TURN {
            let Some((_, id)) = self.goals.late.front().copied().filter(|(at, _)| *at <= now) else { return };
            self.goals.late.pop_front();
            let Some(goal) = self.goals.wanted.get_mut(&id).filter(|goal| goal.late <= now) else { continue };
            if goal.attempts < ATTEMPTS {
                goal.late = now + PATIENCE;
                self.goals.late.push_back((now + PATIENCE, id));
                self.ask(now, rng, id, effects);
                continue;
            }
            let asked = goal.asked;
            self.goals.wanted.remove(&id);
            if asked {
                self.endpoint.end_check(id);
            }
            self.tally.count(Event::StepsUnanswered);
            self.step_failed(now, id);
        }
    }

    /// The peer has answered on a pair. Whether that was a wish of this kind.
    pub(super) fn reached(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        pair: LocatorPair,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if self.goals.wanted.get(&id).is_none_or(|goal| goal.pair != pair) {
            return false;
        }
        self.goals.wanted.remove(&id);
        let mut taken = false;
        self.reap(now, rng, id, effects, |reap, _, out| taken = reap.take(pair, out));
        if taken {
            self.tally.count(Event::StepsTaken);
            // What it would fall back on is another order now.
            self.locators_changed(now, rng, id, effects);
            // What the peer wished for meanwhile has waited.
            self.heed(now, rng, id, effects);
        } else {
            // It explores: that has the last word.
            self.step_failed(now, id);
        }
        true
    }

    /// A peer told preferences: whether it asks us to send to another of its locators, and that we do.
    pub(super) fn heed(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, effects: &mut Vec<Effect>) {
        let Some(pair) = self.endpoint.context(id).and_then(wanted_by_peer) else { return };
        // A move of our own that is under way is not given up for it.
        if self.is_at_rest(id) && !self.goals.has(id) {
            self.tally.count(Event::PreferencesHeeded);
            self.wish_for(now, rng, id, pair, effects);
        }
    }
}

/// Our current locator with the one its peer would rather be sent to.
fn wanted_by_peer(context: &Context) -> Option<LocatorPair> {
    let priority = |preference: Preference| preference.priority.unwrap_or_default();
    let current = context.peer_locator(context.pair.peer.0)?;
    if priority(current.preference) == 0 || context.state != Shim6State::Established {
        return None;
    }
    let usable = |known: &&crate::shim6::PeerLocator| {
        known.verified && known.preference.flags & Preference::BROKEN == 0 && priority(known.preference) == 0
    };
    let best = context.peer_locators.iter().find(usable)?;
    Some(LocatorPair { local: context.pair.local, peer: best.locator })
}
