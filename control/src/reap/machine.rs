//! The state machine of RFC 5534 §6, in the order of its sections.

mod episode;

use std::sync::Arc;
use std::time::Duration;

use dataplane::wire::shim6::{Probe, ProbeReport};
use dataplane::wire::{Locator, LocatorPair};
use rand::Rng;

use super::candidates::{Choice, LocalLocator, PeerLocator};
use super::config::{Config, Order};
use super::event::{Activity, Direction, Output, ProbeRefused, Reason, State, Timers};
use super::exploration::{Exploration, REPORTS_MAX};
use super::paths::Status;
use super::sightings::Ends;
use crate::time::Instant;

/// A Probe(Exploring) that comes this soon after an episode may belong to it, having been late (R5534-122). Later the peer means
/// it: its Send Timeout may be short, and hints, liveness and the misfortune of others make it explore sooner than that.
const LATE: Duration = Duration::from_secs(1);
/// Most confirmed pairs remembered.
const CONFIRMED_MAX: usize = 16;

/// REAP for one established context (R5534-035). The caller handles tags, checksums and dispatch (RFC 5533 §12.3).
#[derive(Debug)]
pub struct Reap {
    config: Arc<Config>,
    local: Arc<[LocalLocator]>,
    peer: Arc<[PeerLocator]>,
    current: LocatorPair,
    state: State,
    keepalive_timeout_s: u16,
    /// Send Timer: Operational and InboundOk.
    send_at: Option<Instant>,
    /// Keepalive Timer: Operational.
    keepalive_until: Option<Instant>,
    /// Next Keepalive before the last one.
    keepalive_next: Option<Instant>,
    /// Always there outside Operational; a while longer inside.
    exploration: Option<Box<Exploration>>,
    /// Pairs on which the peer gave a nonce of ours back.
    confirmed: Vec<LocatorPair>,
    /// What others know of the ends of the current pair.
    ends: Ends,
}

/// Lifecycle and introspection.
impl Reap {
    /// A context that has just become ESTABLISHED, using `current`: Operational, no timer (spec A11).
    ///
    /// `local` and `peer` may be slices (copied) or shared `Arc`s.
    pub fn new(
        config: &Arc<Config>,
        current: LocatorPair,
        local: impl Into<Arc<[LocalLocator]>>,
        peer: impl Into<Arc<[PeerLocator]>>,
    ) -> Reap {
        Reap {
            config: Arc::clone(config),
            local: local.into(),
            peer: peer.into(),
            current,
            state: State::Operational,
            keepalive_timeout_s: config.keepalive_timeout_s,
            send_at: None,
            keepalive_until: None,
            keepalive_next: None,
            exploration: None,
            confirmed: Vec::new(),
            ends: Ends::default(),
        }
    }

    /// State of the context.
    pub fn state(&self) -> State {
        self.state
    }

    /// The pair that payload uses, also while exploring (§6.9; R5534-101).
    pub fn current(&self) -> LocatorPair {
        self.current
    }

    /// When to call [`Reap::expire`] at the latest. An idle context has no deadline.
    pub fn deadline(&self) -> Option<Instant> {
        let Timers { send, keepalive, keepalive_interval, probe } = self.timers();
        [send, keepalive, keepalive_interval, probe, self.forget_at()].into_iter().flatten().min()
    }

    /// The timers that run.
    pub fn timers(&self) -> Timers {
        let probe = match self.state {
            State::Operational => None,
            State::Exploring | State::InboundOk => self.exploration.as_ref().map(|episode| episode.retransmit_at),
        };
        Timers { send: self.send_at, keepalive: self.keepalive_until, keepalive_interval: self.keepalive_next, probe }
    }

    /// Whether [`Reap::expire`] at `now` would send a probe: ask before spending from a common budget.
    pub fn probe_due(&self, now: Instant) -> bool {
        let Timers { send, probe, .. } = self.timers();
        [send, probe].into_iter().flatten().any(|at| at <= now)
    }

    /// Whether the peer gave back a nonce that was sent to it on `pair` (return routability, R5534-108), or the
    /// handshake used the pair ([`Reap::set_confirmed`]). Says that the address answers, not that it works today.
    pub fn confirmed(&self, pair: LocatorPair) -> bool {
        self.confirmed.contains(&pair)
    }

    /// The handshake has shown that the peer receives what is sent on `pair`.
    pub fn set_confirmed(&mut self, pair: LocatorPair) {
        if self.confirmed.contains(&pair) {
            return;
        }
        if self.confirmed.len() == CONFIRMED_MAX {
            let current = self.current;
            let oldest = self.confirmed.iter().position(|known| *known != current).unwrap_or(0);
            self.confirmed.remove(oldest);
        }
        // Most contexts never know another pair than their first.
        self.confirmed.reserve_exact(1);
        self.confirmed.push(pair);
    }

    /// Option 10 of the peer: our Keepalive Timeout towards it, from the next start of the timer (R5534-071). Below 3 s
    /// it means the default (R5534-124); returns whether the value was taken.
    pub fn set_keepalive_timeout(&mut self, seconds: u16) -> bool {
        let sane = seconds >= Config::KEEPALIVE_TIMEOUT_MIN_S;
        self.keepalive_timeout_s = if sane { seconds } else { self.config.keepalive_timeout_s };
        sane
    }

    /// E14: the context leaves ESTABLISHED. No timer runs on, no probe follows (R5534-126).
    pub fn stop(&mut self) {
        self.state = State::Operational;
        self.send_at = None;
        self.stop_keepalive();
        self.exploration = None;
    }
}

/// Events, as in RFC 5534 §6.
impl Reap {
    /// §6.1, E1: a payload packet, or a Shim6 control message other than Keepalive and Probe, came in.
    pub fn payload_in(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Output>) {
        match self.state {
            State::Operational => {
                self.send_at = None;
                self.start_keepalive_if_idle(now, rng);
            }
            State::Exploring => self.hear(now, rng, out),
            State::InboundOk => self.send_at = None,
        }
    }

    /// §6.2, E2: a payload packet, or a Shim6 control message other than Keepalive and Probe, went out.
    pub fn payload_out(&mut self, now: Instant, rng: &mut dyn Rng, _out: &mut Vec<Output>) {
        match self.state {
            State::Operational => {
                self.stop_keepalive();
                self.start_send_if_idle(now, rng);
            }
            State::Exploring => {}
            State::InboundOk => self.start_send_if_idle(now, rng),
        }
    }

    /// §6.1 and §6.2 for all packets since the last digest, in an order that ends with the latest packet.
    ///
    /// Leaves Operational and InboundOk as the packets one by one would have left them, had they all come at `now`.
    pub fn activity(&mut self, now: Instant, rng: &mut dyn Rng, activity: Activity, out: &mut Vec<Output>) {
        let Activity { received, sent, last } = activity;
        if sent && last == Direction::Received {
            self.payload_out(now, rng, out);
        }
        if received {
            self.payload_in(now, rng, out);
        }
        if sent && last == Direction::Sent {
            self.payload_out(now, rng, out);
        }
    }

    /// §6.3 to §6.5, E3, E4, E5 and E10: whatever is due at `now`.
    ///
    /// Late calls are made up for once, not once for each timer period missed. At most one probe leaves (R5534-042).
    pub fn expire(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Output>) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.keepalive_until) {
            self.stop_keepalive();
            out.push(Output::SendKeepalive { pair: self.current });
        } else if due(self.keepalive_next) {
            out.push(Output::SendKeepalive { pair: self.current });
            self.arm_keepalive_interval(now, rng);
        }
        if due(self.send_at) {
            self.send_timeout(now, rng, out);
        }
        if due(self.timers().probe) {
            self.retransmit(now, rng, out);
        }
        if due(self.forget_at()) {
            self.exploration = None;
        }
    }

    /// §6.6, E6: a valid Keepalive came in.
    pub fn keepalive(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Output>) {
        if self.config.ignore_keepalives {
            return;
        }
        match self.state {
            State::Operational | State::InboundOk => self.send_at = None,
            State::Exploring => self.hear(now, rng, out),
        }
    }

    /// §6.7 to §6.9, E7 to E9: a valid Probe came in, from `source` to `target` as its IPv6 header has it.
    ///
    /// The caller has checked its tag, and that the addresses belong to the context (RFC 5533 §12.3).
    pub fn probe(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        source: Locator,
        target: Locator,
        probe: &Probe,
        out: &mut Vec<Output>,
    ) -> Result<(), ProbeRefused> {
        let first = *probe.sent.first().ok_or(ProbeRefused::NoSentReport)?;
        if probe.sent.len() > REPORTS_MAX || probe.received.len() > REPORTS_MAX {
            return Err(ProbeRefused::TooManyReports);
        }
        if (first.source, first.target) != (source, target) && !self.config.tolerate_translation {
            return Err(ProbeRefused::AddressMismatch);
        }
        let mirror = LocatorPair { local: target, peer: source };
        match probe.state {
            State::Exploring => self.probe_exploring(now, rng, mirror, probe, first, out),
            State::InboundOk => self.probe_inbound_ok(now, rng, mirror, probe, first, out),
            State::Operational => self.probe_operational(now, rng, probe, first, out),
        }
        Ok(())
    }

    /// E12, E13 and changes that do no harm: the locators that may be used from now on.
    ///
    /// If the current pair is no longer among them, or one of its ends is not to be kept, exploration starts now.
    pub fn set_locators(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        local: impl Into<Arc<[LocalLocator]>>,
        peer: impl Into<Arc<[PeerLocator]>>,
        out: &mut Vec<Output>,
    ) {
        (self.local, self.peer) = (local.into(), peer.into());
        let (local, peer) = (&self.local, &self.peer);
        let known = |pair: &LocatorPair| {
            local.iter().any(|ours| ours.locator == pair.local) && peer.iter().any(|theirs| theirs.locator == pair.peer)
        };
        self.confirmed.retain(known);
        let broken = peer.iter().any(|theirs| theirs.broken && theirs.locator == self.current.peer);
        let unwelcome = local.iter().any(|ours| ours.unwelcome && ours.locator == self.current.local);
        let lost = !known(&self.current) || broken || unwelcome;
        if lost && self.state == State::Operational {
            self.begin(now, Reason::LocatorLost, true, &|_| Status::Unknown, out);
            self.state = State::Exploring;
            self.retransmit(now, rng, out);
        } else if let Some(episode) = &mut self.exploration {
            episode.demoted |= lost;
            // What was proved about a pair that goes is not proved when it comes back.
            episode.sent.retain(|sent| known(&sent.pair()));
            let choice = Choice {
                local: &self.local,
                peer: &self.peer,
                current: self.current,
                demoted: episode.demoted,
                rank: &|_| Status::Unknown,
                ends: self.ends,
            };
            // A path that has just appeared may be the one that works: do not sit out the back-off before trying it.
            if episode.replace_candidates(choice.candidates(&self.config)) {
                episode.retransmit_at = episode.retransmit_at.min(now + self.config.initial_probe_timeout);
            }
        }
    }

    /// §4.2: evidence against the current pair, found here or by a context that shares its path. Explores at once, with
    /// the current pair last; traffic moves only to a pair that this context has had confirmed.
    pub fn suspect(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        rank: &dyn Fn(LocatorPair) -> Status,
        out: &mut Vec<Output>,
    ) {
        match self.state {
            State::Operational => {
                self.begin(now, Reason::Suspected, true, rank, out);
                self.state = State::Exploring;
                self.retransmit(now, rng, out);
            }
            State::Exploring | State::InboundOk => {
                self.episode(now).demoted = true;
                self.reorder(rank);
            }
        }
    }

    /// §3.3, §8: word from elsewhere (an ICMPv6 error, a TCP that repeats itself) that the current pair may have failed.
    /// Tests it: explores at once, beginning with the current pair itself, so that a pair which works is kept and a lie
    /// costs two probes. Only if the pair is known to be dead anyway it goes last.
    ///
    /// Returns whether the test has begun: whoever explores already needs no hint.
    pub fn hint(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        rank: &dyn Fn(LocatorPair) -> Status,
        out: &mut Vec<Output>,
    ) -> bool {
        if self.state != State::Operational {
            return false;
        }
        let demoted = rank(self.current) == Status::Dead || self.is_known_to_fail();
        self.begin(now, Reason::Hinted, demoted, rank, out);
        self.state = State::Exploring;
        self.retransmit(now, rng, out);
        true
    }

    /// Policy would like payload to use `to`: tests it, and moves there if and only if the peer confirms it. If it does
    /// not, the current pair is tested next, and so on, as in any exploration.
    ///
    /// Returns whether the test has begun: `to` has to be a candidate, and the context at rest.
    pub fn relocate(&mut self, now: Instant, rng: &mut dyn Rng, to: LocatorPair, out: &mut Vec<Output>) -> bool {
        let wanted = self.candidates(false, &|_| Status::Unknown).contains(&to);
        if !wanted || to == self.current || self.state != State::Operational {
            return false;
        }
        self.begin(now, Reason::Relocation, false, &|_| Status::Unknown, out);
        let episode = self.episode(now);
        episode.goal = Some(to);
        episode.candidates.sort_by_key(|pair| *pair != to);
        self.state = State::Exploring;
        self.retransmit(now, rng, out);
        true
    }

    /// Payload uses `pair` from now on, which the peer has just answered on although nothing was wrong: no exploration, so the peer's
    /// own choice stays what it is. False if it is not a candidate, or if the context explores and so knows better.
    pub fn take(&mut self, pair: LocatorPair, out: &mut Vec<Output>) -> bool {
        let wanted = self.state == State::Operational && self.candidates(false, &|_| Status::Unknown).contains(&pair);
        if wanted {
            self.set_confirmed(pair);
            if pair != self.current {
                self.move_to(pair, out);
            }
        }
        wanted
    }

    /// There is a sign that `pair` may work again: if the context explores, it tries that next, and now. The back-off goes on
    /// from where it was, so a sign that deceives costs one probe.
    pub fn encourage(&mut self, now: Instant, rng: &mut dyn Rng, pair: LocatorPair, out: &mut Vec<Output>) {
        let explores = self.state != State::Operational;
        let Some(episode) = self.exploration.as_mut().filter(|_| explores) else { return };
        // A context that has just begun needs no encouragement.
        let last = episode.sent.last().map(|sent| sent.at);
        if last.is_none_or(|last| now.since(last) >= self.config.initial_probe_timeout) && episode.next_is(pair) {
            self.retransmit(now, rng, out);
        }
    }

    /// What was in the way of probes on `pair`, and of them alone, is not any more: the next one goes there, now.
    pub fn retry(&mut self, now: Instant, rng: &mut dyn Rng, pair: LocatorPair, out: &mut Vec<Output>) {
        let explores = self.state != State::Operational;
        if self.exploration.as_mut().is_some_and(|episode| explores && episode.next_is(pair)) {
            self.retransmit(now, rng, out);
        }
    }

    /// The pairs that may be probed, best first.
    pub fn probeable(&self) -> impl Iterator<Item = LocatorPair> {
        self.candidates(false, &|_| Status::Unknown).into_iter()
    }

    /// What others know about the ends of the current pair; counts until the pair changes or better is known. Say it before
    /// an exploration begins.
    pub fn advise(&mut self, ends: Ends) {
        self.ends = ends;
    }

    /// Others who share an end with the current pair fell silent when we did: to try it first would be half a second lost.
    fn is_known_to_fail(&self) -> bool {
        self.config.order == Order::Informed && self.ends.is_failing()
    }

    /// Orders the pairs not yet tried by what other contexts know: call it on [`Output::ExplorationStarted`].
    pub fn reorder(&mut self, rank: &dyn Fn(LocatorPair) -> Status) {
        let demoted = self.exploration.as_ref().is_some_and(|episode| episode.demoted);
        let candidates = self.candidates(demoted, rank);
        if let Some(episode) = &mut self.exploration {
            episode.reorder(&candidates);
        }
    }
}

/// Transitions.
impl Reap {
    /// §6.1 and §6.6 in Exploring: the peer is heard again, though not through a probe.
    fn hear(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Output>) {
        self.state = State::InboundOk;
        // A peer that sends payload most likely uses the mirror of our current pair.
        let guess = self.current;
        let demoted = self.exploration.as_ref().is_some_and(|episode| episode.demoted);
        self.answer(now, rng, (!demoted).then_some(guess), true, out);
        self.restart_send(now, rng);
    }

    /// §6.4, E4.
    fn send_timeout(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Output>) {
        if self.state == State::Operational {
            let demoted = self.is_known_to_fail();
            self.begin(now, Reason::SendTimeout, demoted, &|_| Status::Unknown, out);
            // As good a witness as a probe without answer: payload without answer for a Send Timeout.
            let current = self.current;
            self.episode(now).unheard = demoted.then_some(current);
        }
        self.state = State::Exploring;
        self.send_at = None;
        self.stop_keepalive();
        self.episode(now).received.clear();
        self.retransmit(now, rng, out);
    }

    /// §6.5, E5: the next probe of the round.
    fn retransmit(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Output>) {
        let state = self.state;
        let episode = self.episode(now);
        let pair = match state {
            State::InboundOk => episode.next_to_inform(),
            State::Exploring | State::Operational => episode.next_to_explore(),
        };
        episode.attempts = episode.attempts.saturating_add(1);
        if let Some(pair) = pair {
            self.send_probe(now, rng, pair, self.config.probe_reports, out);
            dataplane::mutant!(NoReachability, self.move_to(pair, out));
        }
        self.arm_retransmission(now, rng, self.config.max_probe_timeout, out);
        if state == State::InboundOk {
            self.start_send_if_idle(now, rng);
        }
    }

    /// §6.7, E7: the peer does not hear us.
    fn probe_exploring(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        mirror: LocatorPair,
        probe: &Probe,
        first: ProbeReport,
        out: &mut Vec<Output>,
    ) {
        let flipped = self.state != State::InboundOk;
        let mut guess = mirror;
        if self.state == State::Operational {
            let ended = self.exploration.as_ref().and_then(|episode| episode.ended);
            if ended.is_some_and(|ended| now.since(ended) < LATE) {
                self.resume(now, out);
                // An answer by the way the peer found would be all that is ever said: what was shown of the current pair would
                // count on, and what goes out by it be lost.
                guess = self.current;
            } else {
                self.begin(now, Reason::Peer, false, &|_| Status::Unknown, out);
            }
        }
        self.state = State::InboundOk;
        self.stop_keepalive();
        self.episode(now).remember_received(first);
        self.learn(now, &probe.received, out);
        self.answer(now, rng, Some(guess), flipped, out);
        self.restart_send(now, rng);
    }

    /// §6.8, E8: the peer hears us, and asks whether we hear it.
    fn probe_inbound_ok(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        mirror: LocatorPair,
        probe: &Probe,
        first: ProbeReport,
        out: &mut Vec<Output>,
    ) {
        self.episode(now).remember_received(first);
        self.learn(now, &probe.received, out);
        self.choose(out);
        self.become_operational(now, out);
        if self.take_answer(now, out) {
            // On a pair known to work, not on the next in line (R5534-123): the current one, which was either confirmed
            // just now or carries the payload that the peer hears.
            let current = self.current;
            let usable = &self.episode(now).candidates;
            let pair = if usable.contains(&mirror) && !usable.contains(&current) { mirror } else { current };
            self.send_probe(now, rng, pair, self.config.answer_reports, out);
        }
        self.stop_keepalive();
        self.restart_send(now, rng);
    }

    /// §6.9, E9: both hear each other. Nothing is sent (spec A4), but the pair is chosen here too (R5534-121).
    fn probe_operational(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        probe: &Probe,
        first: ProbeReport,
        out: &mut Vec<Output>,
    ) {
        if let Some(episode) = &mut self.exploration {
            episode.remember_received(first);
        }
        self.learn(now, &probe.received, out);
        self.choose(out);
        self.become_operational(now, out);
        self.send_at = None;
        self.start_keepalive_if_idle(now, rng);
    }
}
