//! What others may say about paths, and what comes of it (RFC 5534 §3.3, §4.2, §8).
//!
//! Nobody's word moves a session. Whoever speaks starts a *test* at most: an exploration that begins with the pair in
//! use. If that works, the peer says so within a round trip and nothing changes; otherwise the session moves to the first
//! pair on which a probe of its own was answered. What a liar can cause is therefore a probe to the peer, its answer and
//! one more, and that no more than once in a Send Timeout for each context, and for all contexts together at the pace of
//! all probes.
//!
//! What the box knows itself (a link that is down, a router that does not answer) is no hearsay: it puts the pair last
//! instead of first (`link`). What two other contexts have seen with probes of their own is none either (`context`).

use std::time::Duration;

use dataplane::context::Sign as TcpSign;
use dataplane::wire::LocatorPair;
use rand::Rng;

use super::revive::Sign;
use super::{Effect, Engine, Event};
use crate::reap::{PathKey, Sightings, State};
use crate::shim6::ContextId;
use crate::time::Instant;

impl Engine {
    /// A worker saw what a host's TCP does while nothing came back.
    pub(super) fn tcp_sign(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        sign: TcpSign,
        pair: LocatorPair,
        effects: &mut Vec<Effect>,
    ) {
        if self.is_mirrored(id) {
            // What was seen of it is said by reports of activity.
            return;
        }
        match sign {
            TcpSign::Stalled => {
                self.tally.count(Event::TcpStalled);
                // The worker may have said so before it heard of another pair.
                let current = self.pair_in_use(id) == Some(pair);
                if current && self.has_alternative(id) {
                    self.hint(now, rng, id, effects);
                }
            }
            TcpSign::Progress => {
                self.tally.count(Event::TcpProgress);
                self.book.progressed(PathKey::of(pair), now);
                self.route_progressed(now, PathKey::of(pair), effects);
            }
        }
    }

    /// A context received or sent something on `path`: counted for all who share an end with it, once in half a second.
    pub(super) fn sight(&mut self, now: Instant, id: ContextId, path: PathKey, [received, sent]: [bool; 2]) {
        let Some(attached) = self.attached.get_mut(&id) else { return };
        let step = Sightings::step(now);
        let mut is_new = |which: usize| attached.counted[which].replace(step) != Some(step);
        let (heard, sent) = (received && is_new(0), sent && is_new(1));
        if received {
            attached.heard = Some(now);
        }
        if sent {
            self.sightings.sent(path, now);
        }
        if heard && self.sightings.heard(path, now) {
            self.revived(now, Sign::Peer(path.peer));
        }
    }

    /// Tells a context that may be about to explore how others fare who share an end of its path with it.
    pub(super) fn look_around(&mut self, now: Instant, id: ContextId) {
        let Some(attached) = self.attached.get_mut(&id) else { return };
        let Some(reap) = attached.reap.as_mut().filter(|reap| reap.state() == State::Operational) else { return };
        let path = PathKey::of(reap.current());
        let ends = attached.heard.map(|since| self.sightings.ends(path, since, now));
        reap.advise(ends.unwrap_or_default());
    }

    /// Word against the current pair of a context: it tests its pair, unless it looks for one already or did a moment ago. Whether
    /// it tests or looks now.
    pub(super) fn hint(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, effects: &mut Vec<Effect>) -> bool {
        let pause = Duration::from_secs(self.reap_config.send_timeout_s.into());
        let rested = |at: Option<Instant>| at.is_none_or(|at| now.since(at) >= pause);
        let runs = self.carries_payload(id);
        let Some(attached) = self.attached.get_mut(&id).filter(|attached| attached.reap.is_some()) else {
            return false;
        };
        let looks = attached.reap.as_ref().is_some_and(|reap| reap.state() != State::Operational);
        if looks || !runs || !rested(attached.hinted) || !self.budget.take(now) {
            self.tally.count(Event::HintsPaced);
            return looks;
        }
        attached.hinted = Some(now);
        self.look_around(now, id);
        self.tally.count(Event::HintsTested);
        self.reap_paid(now, rng, id, effects, |reap, rng, book, out| {
            reap.hint(now, rng, &|pair| book.rank(pair, now), out);
        });
        true
    }
}
