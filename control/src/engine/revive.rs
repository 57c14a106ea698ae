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
//!
//! Who is concerned is found by a walk over all who wait, a bounded number in a turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use dataplane::wire::LocatorPair;
use rand::Rng;

use super::{Effect, Engine, Event};
use crate::reap::{PathKey, State};
use crate::shim6::{ContextId, HeldDown};
use crate::time::Instant;

/// Signs are gathered for so long: what comes back comes back for many at once.
const GATHER: Duration = Duration::from_millis(100);
/// Prefixes gathered; those that find no room are heard again.
const PREFIXES_MAX: usize = 256;
/// Contexts and hold-downs looked at in one call, so that events of the workers never wait long.
const LOOKED_AT_PER_TURN: usize = 256;

/// Who waits, and for what there are signs.
#[derive(Debug, Default)]
pub(super) struct Revival {
    /// Contexts that wait for the first answer.
    pub(super) opening: BTreeSet<ContextId>,
    /// Contexts that look for a pair.
    pub(super) exploring: BTreeSet<ContextId>,
    signs: BTreeSet<Sign>,
    due: Option<Instant>,
    walk: Option<Walk>,
    /// Who has to try again, in order, and where.
    queue: VecDeque<ContextId>,
    pairs: BTreeMap<ContextId, LocatorPair>,
}

/// Looks who is concerned by signs. What comes meanwhile is for the next walk.
#[derive(Debug)]
struct Walk {
    since: Instant,
    signs: BTreeSet<Sign>,
    at: Stage,
}

/// Who is looked at, and the last one that was.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Opening(Option<ContextId>),
    Exploring(Option<ContextId>),
    HeldDown(Option<HeldDown>),
}

/// What is there again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sign {
    /// A prefix of a peer's locators.
    Peer([u8; 8]),
    /// A provider of ours, by the prefix it delegated.
    Provider([u8; 8]),
    /// One path, as routers say.
    Path(PathKey),
}

impl Revival {
    /// When something is to be done, apart from the common pace.
    pub(super) fn due(&self) -> Option<Instant> {
        self.walk.as_ref().map(|walk| walk.since).or(self.due)
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

    /// A context has to try again on a pair, in its turn if it has one already.
    fn queue(&mut self, id: ContextId, pair: LocatorPair) {
        if self.pairs.insert(id, pair).is_none() {
            self.queue.push_back(id);
        }
    }
}

impl Walk {
    fn concerns(&self, pair: LocatorPair) -> bool {
        let path = PathKey::of(pair);
        [Sign::Peer(path.peer), Sign::Provider(path.local), Sign::Path(path)].iter().any(|it| self.signs.contains(it))
    }
}

/// The next of those that wait, and whether there are more.
fn next_of(waiting: &BTreeSet<ContextId>, after: Option<ContextId>, most: usize) -> (Vec<ContextId>, bool) {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    let next: Vec<ContextId> = waiting.range((start, Bound::Unbounded)).take(most).copied().collect();
    let more = next.len() == most;
    (next, more)
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
        let revival = &mut self.revival;
        if revival.walk.is_none() && revival.due.is_some_and(|due| due <= now) {
            let signs = std::mem::take(&mut revival.signs);
            revival.walk = Some(Walk { since: now, signs, at: Stage::Opening(None) });
            revival.due = None;
        }
        self.gather();
        for _ in 0..LOOKED_AT_PER_TURN {
            if self.budget.ready_at() > now {
                return;
            }
            let Some(id) = self.revival.queue.pop_front() else { return };
            let Some(pair) = self.revival.pairs.remove(&id) else { continue };
            let mut out = Vec::new();
            let sent = if self.endpoint.nudge(now, rng, id, pair, &mut out) {
                self.follow(now, rng, out, effects);
                1
            } else {
                self.reap_paid(now, rng, id, effects, |reap, rng, _, out| reap.encourage(now, rng, pair, out))
            };
            // Who is gone, or needs nothing any more, takes nothing from the others.
            if sent > 0 {
                self.tally.count(Event::RetriedEarly);
                self.budget.charge(now, sent);
            }
        }
    }

    /// Goes on with a walk: who is concerned by the signs, and who is so no longer held down.
    fn gather(&mut self) {
        let Some(mut walk) = self.revival.walk.take() else { return };
        let mut left = LOOKED_AT_PER_TURN;
        while left > 0 {
            let (seen, next) = match walk.at {
                Stage::Opening(after) => {
                    let (ids, more) = next_of(&self.revival.opening, after, left);
                    for id in &ids {
                        let pair = self.endpoint.awaits_r1(*id).iter().find(|pair| walk.concerns(**pair)).copied();
                        pair.into_iter().for_each(|pair| self.revival.queue(*id, pair));
                    }
                    let at = if more { Stage::Opening(ids.last().copied()) } else { Stage::Exploring(None) };
                    (ids.len(), Some(at))
                }
                Stage::Exploring(after) => {
                    let (ids, more) = next_of(&self.revival.exploring, after, left);
                    for id in &ids {
                        let reap = self.attached.get(id).and_then(|attached| attached.reap.as_ref());
                        let reap = reap.filter(|reap| reap.state() != State::Operational);
                        let pair = reap.and_then(|reap| reap.probeable().find(|pair| walk.concerns(*pair)));
                        pair.into_iter().for_each(|pair| self.revival.queue(*id, pair));
                    }
                    let at = if more { Stage::Exploring(ids.last().copied()) } else { Stage::HeldDown(None) };
                    (ids.len(), Some(at))
                }
                Stage::HeldDown(after) => {
                    let next = self.forgive(after, left, &walk.signs);
                    (left, next.map(|held| Stage::HeldDown(Some(held))))
                }
            };
            left -= seen;
            match next {
                Some(at) => walk.at = at,
                None => return,
            }
        }
        self.revival.walk = Some(walk);
    }

    /// Those of the next hold-downs end of which signs say that the peer may answer.
    fn forgive(&mut self, after: Option<HeldDown>, most: usize, signs: &BTreeSet<Sign>) -> Option<HeldDown> {
        let any_provider = signs.iter().any(|sign| matches!(sign, Sign::Provider(_)));
        let prefix_of = |locator: &dataplane::wire::Locator| Sign::Peer(crate::identity::prefix_of(locator.0));
        let peers = &self.peers;
        self.endpoint.forgive(after, most, |peer| {
            let known = peers.get(&peer).is_some_and(|known| known.iter().any(|it| signs.contains(&prefix_of(it))));
            any_provider || known
        })
    }

    pub(super) fn explores(&self, id: ContextId) -> bool {
        let reap = self.attached.get(&id).and_then(|attached| attached.reap.as_ref());
        reap.is_some_and(|reap| reap.state() != State::Operational)
    }
}

#[cfg(test)]
mod tests {
    use dataplane::link::Notice;
    use dataplane::wire::{Ulid, UlidPair};

    use super::*;
    use crate::sim::{Plan, World};

    #[test]
    fn a_turn_looks_at_a_bounded_number_of_those_that_wait_and_all_get_their_turn() {
        let mut world = World::new(&Plan { shim6: "[natv6]\nenabled = true\n".into(), ..Plan::default() }, 1);
        world.run(Duration::from_secs(2));
        let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(1);
        let (now, host) = (world.now, &world.hosts[0]);
        let (inside, presented) = (Ulid(host.ulid), dataplane::wire::Locator(host.locators[1]));
        let engine = &mut world.nodes[0].engine;
        const WAITING: usize = 1000;
        for peer in 1..=WAITING as u16 {
            let peer = Ulid(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, peer));
            let pair = UlidPair { local: inside, peer };
            let notice = Notice::Qualified { pair, presented, provider: 1 };
            engine.notice(now, &mut rng, notice, &mut Vec::new());
        }
        assert_eq!(engine.revival.opening.len(), WAITING);
        let prefix = engine.providers[1].prefix.to_be_bytes();
        engine.revived(now, Sign::Provider(prefix));
        let due = now + GATHER;
        assert_eq!(engine.revival.due(), Some(due));
        let mut found = Vec::new();
        while engine.revival.due().is_some_and(|at| at <= due) {
            // No budget: nobody is let go, so that what a turn adds can be counted.
            engine.budget.charge(due, 1 << 20);
            let before = engine.revival.queue.len();
            engine.expire_revivals(due, &mut rng, &mut Vec::new());
            found.push(engine.revival.queue.len() - before);
        }
        assert_eq!(found.iter().sum::<usize>(), WAITING);
        assert!(found.iter().all(|found| *found <= LOOKED_AT_PER_TURN), "{found:?}");
        // The same again changes nobody's turn.
        let order: Vec<ContextId> = engine.revival.queue.iter().copied().collect();
        engine.revived(due, Sign::Provider(prefix));
        let due = due + GATHER;
        while engine.revival.due().is_some_and(|at| at <= due) {
            engine.expire_revivals(due, &mut rng, &mut Vec::new());
        }
        assert!(engine.revival.queue.iter().eq(&order));
    }
}
