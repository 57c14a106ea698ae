//! The state machine of RFC 5534 §6, in the order of its sections.

use std::sync::Arc;
use std::time::Duration;

use dataplane::wire::shim6::{Probe, ProbeReport};
use dataplane::wire::{Locator, LocatorPair};
use rand::Rng;

use super::candidates::{Choice, LocalLocator, PeerLocator};
use super::config::Config;
use super::event::{Activity, Direction, Output, ProbeRefused, Reason, State, Timers};
use super::exploration::{AnswerBucket, Exploration, REPORTS_MAX};
use super::paths::Status;
use crate::time::Instant;

/// A Probe(Exploring) that comes this soon after an episode belongs to it: no peer can have missed us for a Send
/// Timeout (at least 10 s) since (R5534-122).
const LATE: Duration = Duration::from_secs(5);
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
    /// If the current pair is no longer among them, or the peer says that it is broken, exploration starts now.
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
        let lost = !known(&self.current) || broken;
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
            self.begin(now, Reason::SendTimeout, false, &|_| Status::Unknown, out);
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
        if self.state == State::Operational {
            let ended = self.exploration.as_ref().and_then(|episode| episode.ended);
            if ended.is_some_and(|ended| now.since(ended) < LATE) {
                self.resume(now, out);
            } else {
                self.begin(now, Reason::Peer, false, &|_| Status::Unknown, out);
            }
        }
        self.state = State::InboundOk;
        self.stop_keepalive();
        self.episode(now).remember_received(first);
        self.learn(&probe.received, out);
        self.answer(now, rng, Some(mirror), flipped, out);
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
        self.learn(&probe.received, out);
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
        self.learn(&probe.received, out);
        self.choose(out);
        self.become_operational(now, out);
        self.send_at = None;
        self.start_keepalive_if_idle(now, rng);
    }
}

/// Episodes.
impl Reap {
    /// Leaves Operational: a new episode, with a new back-off (R5534-119).
    fn begin(
        &mut self,
        now: Instant,
        reason: Reason,
        demoted: bool,
        rank: &dyn Fn(LocatorPair) -> Status,
        out: &mut Vec<Output>,
    ) {
        // A flood must not refill its allowance by pushing us from one episode into the next.
        let answers = match &self.exploration {
            Some(episode) => episode.answers,
            None => AnswerBucket::full(now, &self.config),
        };
        let mut episode = Exploration::new(now, self.candidates(demoted, rank), answers);
        episode.demoted = demoted;
        self.exploration = Some(Box::new(episode));
        self.send_at = None;
        self.stop_keepalive();
        out.push(Output::ExplorationStarted { reason });
    }

    /// Leaves Operational, back into the episode that has just ended: a late probe changes no pair (R5534-122).
    fn resume(&mut self, now: Instant, out: &mut Vec<Output>) {
        let episode = self.episode(now);
        episode.ended = None;
        episode.received.clear();
        self.stop_keepalive();
        out.push(Output::ExplorationStarted { reason: Reason::Peer });
    }

    /// The episode that runs, or that has just ended. In Operational there may be none; then this begins one that has
    /// ended, to hold the nonces of answers.
    fn episode(&mut self, now: Instant) -> &mut Exploration {
        let choice = Choice {
            local: &self.local,
            peer: &self.peer,
            current: self.current,
            demoted: false,
            rank: &|_| Status::Unknown,
        };
        let config = &self.config;
        self.exploration.get_or_insert_with(|| {
            let mut episode = Exploration::new(now, choice.candidates(config), AnswerBucket::full(now, config));
            episode.ended = Some(now);
            Box::new(episode)
        })
    }

    fn become_operational(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.state == State::Operational {
            return;
        }
        self.state = State::Operational;
        let memory = Duration::from_secs(self.config.send_timeout_s.into());
        let episode = self.episode(now);
        episode.ended = Some(now);
        let ended = Output::ExplorationEnded { after: now.since(episode.started), probes: episode.attempts };
        let failed = episode.failed(memory);
        out.extend(failed.into_iter().map(|(pair, probed)| Output::Failed { pair, probed }));
        out.push(ended);
    }

    /// Takes note of the nonces that the peer gives back (R5534-117).
    fn learn(&mut self, reports: &[ProbeReport], out: &mut Vec<Output>) {
        let mut unmatched = 0;
        for report in reports {
            match self.exploration.as_mut().and_then(|episode| episode.match_report(report)) {
                Some(sent) if sent.reported => {}
                Some(sent) => {
                    sent.reported = true;
                    let pair = sent.pair();
                    self.set_confirmed(pair);
                    out.push(Output::Confirmed { pair });
                }
                None => unmatched += 1,
            }
        }
        if unmatched > 0 {
            out.push(Output::UnmatchedReports { count: unmatched });
        }
    }

    /// Picks the current pair among those confirmed in this episode (spec §6.1). With none it stays (R5534-099); if it
    /// is one of them it stays too (R5534-122), unless policy asked for another.
    fn choose(&mut self, out: &mut Vec<Output>) {
        let Some(episode) = &self.exploration else { return };
        let choice = Choice {
            local: &self.local,
            peer: &self.peer,
            current: self.current,
            demoted: false,
            rank: &|_| Status::Unknown,
        };
        // A pair may have lost a locator since its probe was sent; then it is not preferred to anything.
        let works = |pair: LocatorPair| choice.preferred(episode.reported().filter(|other| *other == pair)).is_some();
        let to = match episode.goal {
            Some(goal) if works(goal) => Some(goal),
            _ if works(self.current) => None,
            _ => choice.preferred(episode.reported()),
        };
        if let Some(to) = to.filter(|to| *to != self.current) {
            let from = std::mem::replace(&mut self.current, to);
            out.push(Output::PairChanged { from, to });
        }
    }

    fn candidates(&self, demoted: bool, rank: &dyn Fn(LocatorPair) -> Status) -> Vec<LocatorPair> {
        Choice { local: &self.local, peer: &self.peer, current: self.current, demoted, rank }.candidates(&self.config)
    }
}

/// Probes and timers.
impl Reap {
    /// A Probe(InboundOk) in answer to a sign of life; `guess` is the likeliest way back.
    fn answer(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        guess: Option<LocatorPair>,
        flipped: bool,
        out: &mut Vec<Output>,
    ) {
        if !self.take_answer(now, out) {
            if flipped {
                self.arm_retransmission(now, rng, self.config.max_probe_timeout, out);
            }
            return;
        }
        let episode = self.episode(now);
        let pair = match guess {
            Some(guess) => episode.pair_for_answer(guess),
            None => episode.next_to_inform(),
        };
        if let Some(pair) = pair {
            self.send_probe(now, rng, pair, self.config.answer_reports, out);
        }
        // InboundOk may last no longer than a Send Timeout, and only in it can the peer learn that we hear it. However
        // far the back-off has gone, one more probe by the clock fits in: without it two sides that are left with
        // one-way paths only would tell each other nothing but "I explore" for ever (`tests::liveness`).
        let longest = match flipped {
            true => Duration::from_secs(self.config.send_timeout_s.into()) / 3,
            false => self.config.max_probe_timeout,
        };
        self.arm_retransmission(now, rng, longest, out);
    }

    fn take_answer(&mut self, now: Instant, out: &mut Vec<Output>) -> bool {
        let config = Arc::clone(&self.config);
        let granted = self.episode(now).answers.take(now, &config);
        if !granted {
            out.push(Output::AnswerCapped);
        }
        granted
    }

    /// Sends a probe that tells the present state (R5534-083), with a nonce nobody can guess (R5534-064).
    fn send_probe(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        pair: LocatorPair,
        reports: usize,
        out: &mut Vec<Output>,
    ) {
        let state = self.state;
        let report = ProbeReport { source: pair.local, target: pair.peer, nonce: rng.next_u32(), data: 0 };
        let episode = self.episode(now);
        let sent = episode.sent_reports(report, reports);
        let received = episode.received_reports(reports);
        episode.remember_sent(now, report);
        out.push(Output::SendProbe { pair, state, sent, received });
    }

    fn arm_retransmission(&mut self, now: Instant, rng: &mut dyn Rng, longest: Duration, out: &mut Vec<Output>) {
        let config = Arc::clone(&self.config);
        let episode = self.episode(now);
        let gap = config.probe_gap(episode.attempts);
        if gap >= config.max_probe_timeout && !std::mem::replace(&mut episode.backed_off, true) {
            out.push(Output::BackedOff);
        }
        episode.retransmit_at = now + config.jittered(gap.min(longest), rng);
    }

    fn forget_at(&self) -> Option<Instant> {
        let ended = self.exploration.as_ref().and_then(|episode| episode.ended)?;
        (self.state == State::Operational).then_some(ended + self.config.max_probe_timeout)
    }

    fn start_send_if_idle(&mut self, now: Instant, rng: &mut dyn Rng) {
        if self.send_at.is_none() {
            self.restart_send(now, rng);
        }
    }

    fn restart_send(&mut self, now: Instant, rng: &mut dyn Rng) {
        let timeout = Duration::from_secs(self.config.send_timeout_s.into());
        self.send_at = Some(now + self.config.jittered(timeout, rng));
    }

    fn start_keepalive_if_idle(&mut self, now: Instant, rng: &mut dyn Rng) {
        if self.keepalive_until.is_none() {
            let timeout = Duration::from_secs(self.keepalive_timeout_s.into());
            self.keepalive_until = Some(now + self.config.jittered(timeout, rng));
            self.arm_keepalive_interval(now, rng);
        }
    }

    fn stop_keepalive(&mut self) {
        self.keepalive_until = None;
        self.keepalive_next = None;
    }

    /// §4.1: the next Keepalive comes an interval from now, unless the last one, at the end of the timer, is so near
    /// that the two would be one too many.
    fn arm_keepalive_interval(&mut self, now: Instant, rng: &mut dyn Rng) {
        let timeout = Duration::from_secs(self.keepalive_timeout_s.into());
        let interval = self.config.keepalive_interval.of(timeout);
        let next = now + self.config.jittered(interval, rng);
        self.keepalive_next = self.keepalive_until.and_then(|until| (next + interval / 2 < until).then_some(next));
    }
}
