//! Signs that what was given up works again, and who should try again because of them.
//!
//! Whoever gets no answer waits longer and longer: an I1 for up to a minute and a half, a pair that was given up for a
//! minute more (RFC 5533 §7.8), an exploring context a minute between probes (RFC 5534 §4.3). All these are upper bounds, there
//! to spare a network that is broken. When the network says that it is mended, nobody has to wait for them to run out:
//!
//! - a prefix of the peer's is heard again after a silence, by whatever context;
//! - a provider's link or router is there again.
//!
//! Then everybody concerned sends one more I1 or probe, at the common pace of probes, and hold-downs because of silence end.
//! Back-off goes on from where it was: a sign that deceives costs one packet, and there is no sign where there was no
//! silence. So a single host that is dead in a site that is not costs nothing more than before.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use dataplane::wire::LocatorPair;
use rand::Rng;

use super::{Effect, Engine, Event};
use crate::reap::{PathKey, State};
use crate::shim6::ContextId;
use crate::time::Instant;

/// Signs are gathered for so long: what comes back comes back for many at once.
const GATHER: Duration = Duration::from_millis(100);
/// Prefixes gathered; those that find no room are heard again.
const PREFIXES_MAX: usize = 256;

/// Who waits, and for what there are signs.
#[derive(Debug, Default)]
pub(super) struct Revival {
    /// Contexts that wait for the first answer.
    pub(super) opening: BTreeSet<ContextId>,
    /// Contexts that look for a pair.
    pub(super) exploring: BTreeSet<ContextId>,
    signs: BTreeSet<Sign>,
    due: Option<Instant>,
    /// Who has to try again, and where.
    queue: VecDeque<(ContextId, LocatorPair)>,
}

/// What is there again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sign {
    /// A prefix of a peer's locators.
    Peer([u8; 8]),
    /// A provider of ours, by the prefix it delegated.
    Provider([u8; 8]),
}

impl Revival {
    /// When something is to be done, apart from the common pace.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether somebody waits for the common pace.
    pub(super) fn is_paced(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The context is gone.
    pub(super) fn forget(&mut self, id: ContextId) {
        self.opening.remove(&id);
        self.exploring.remove(&id);
    }

    fn concerns(&self, pair: LocatorPair) -> bool {
        let path = PathKey::of(pair);
        self.signs.contains(&Sign::Peer(path.peer)) || self.signs.contains(&Sign::Provider(path.local))
    }
}

impl Engine {
    /// Something is there again after it was not.
    pub(super) fn revived(&mut self, now: Instant, sign: Sign) {
        let revival = &mut self.revival;
        let waits = !revival.opening.is_empty() || !revival.exploring.is_empty() || self.endpoint.holddowns() > 0;
        if waits && revival.signs.len() < PREFIXES_MAX {
            revival.signs.insert(sign);
            revival.due.get_or_insert(now + GATHER);
        }
    }

    /// Lets those try again for whom there are signs, as the common pace allows.
    pub(super) fn expire_revivals(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        if self.revival.due.is_some_and(|due| due <= now) {
            self.gather();
        }
        while !self.revival.queue.is_empty() && self.budget.take(now) {
            let Some((id, pair)) = self.revival.queue.pop_front() else { break };
            let mut out = Vec::new();
            if self.endpoint.nudge(now, rng, id, pair, &mut out) {
                self.tally.count(Event::RetriedEarly);
                self.follow(now, rng, out, effects);
            } else if self.explores(id) {
                self.tally.count(Event::RetriedEarly);
                self.reap_paid(now, rng, id, effects, |reap, rng, _, out| reap.encourage(now, rng, pair, out));
            }
        }
    }

    /// Who is concerned by the signs, and who is so no longer held down.
    fn gather(&mut self) {
        let revival = &self.revival;
        let opening = revival.opening.iter().filter_map(|id| {
            let pair = self.endpoint.awaits_r1(*id).iter().find(|pair| revival.concerns(**pair))?;
            Some((*id, *pair))
        });
        let exploring = revival.exploring.iter().filter_map(|id| {
            let reap = self.attached.get(id)?.reap.as_ref().filter(|reap| reap.state() != State::Operational)?;
            Some((*id, reap.probeable().find(|pair| revival.concerns(*pair))?))
        });
        let concerned: Vec<(ContextId, LocatorPair)> = opening.chain(exploring).collect();
        let any_provider = revival.signs.iter().any(|sign| matches!(sign, Sign::Provider(_)));
        let prefix_of = |locator: &dataplane::wire::Locator| Sign::Peer(crate::identity::prefix_of(locator.0));
        let (peers, signs) = (&self.peers, &revival.signs);
        self.endpoint.forgive(|peer| {
            let known = peers.get(&peer).is_some_and(|known| known.iter().any(|it| signs.contains(&prefix_of(it))));
            any_provider || known
        });
        let revival = &mut self.revival;
        let again: BTreeSet<ContextId> = concerned.iter().map(|(id, _)| *id).collect();
        revival.queue.retain(|(id, _)| !again.contains(id));
        revival.queue.extend(concerned);
        revival.signs.clear();
        revival.due = None;
    }

    pub(super) fn explores(&self, id: ContextId) -> bool {
        let reap = self.attached.get(&id).and_then(|attached| attached.reap.as_ref());
        reap.is_some_and(|reap| reap.state() != State::Operational)
    }
}
