//! Below the transitions: episodes, what is learned in them, probes and timers.

use std::sync::Arc;
use std::time::Duration;

use dataplane::wire::LocatorPair;
use dataplane::wire::shim6::ProbeReport;
use rand::Rng;

use super::Reap;
use crate::reap::candidates::Choice;
use crate::reap::event::{Output, Reason, State};
use crate::reap::exploration::{AnswerBucket, Exploration};
use crate::reap::paths::Status;
use crate::reap::sightings::Ends;
use crate::time::Instant;

/// Episodes.
impl Reap {
    /// Leaves Operational: a new episode, with a new back-off (R5534-119).
    pub(super) fn begin(
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
    pub(super) fn resume(&mut self, now: Instant, out: &mut Vec<Output>) {
        let episode = self.episode(now);
        episode.ended = None;
        episode.resumed = Some(now);
        episode.received.clear();
        // What was answered by guess before says nothing of where to answer now.
        episode.guessed = None;
        self.stop_keepalive();
        out.push(Output::ExplorationStarted { reason: Reason::Peer });
    }

    /// The episode that runs, or that has just ended. In Operational there may be none; then this begins one that has
    /// ended, to hold the nonces of answers.
    pub(super) fn episode(&mut self, now: Instant) -> &mut Exploration {
        let choice = Choice {
            local: &self.local,
            peer: &self.peer,
            current: self.current,
            demoted: false,
            rank: &|_| Status::Unknown,
            ends: self.ends,
        };
        let config = &self.config;
        self.exploration.get_or_insert_with(|| {
            let mut episode = Exploration::new(now, choice.candidates(config), AnswerBucket::full(now, config));
            episode.ended = Some(now);
            Box::new(episode)
        })
    }

    pub(super) fn become_operational(&mut self, now: Instant, out: &mut Vec<Output>) {
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
    pub(super) fn learn(&mut self, now: Instant, reports: &[ProbeReport], out: &mut Vec<Output>) {
        let mut unmatched = 0;
        for report in reports {
            match self.exploration.as_mut().and_then(|episode| episode.match_report(report)) {
                Some(sent) if sent.reported => {}
                Some(sent) => {
                    sent.reported = true;
                    let (pair, after) = (sent.pair(), now.since(sent.at));
                    self.set_confirmed(pair);
                    out.push(Output::Confirmed { pair, after });
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
    pub(super) fn choose(&mut self, out: &mut Vec<Output>) {
        let Some(episode) = &self.exploration else { return };
        let choice = Choice {
            local: &self.local,
            peer: &self.peer,
            current: self.current,
            demoted: false,
            rank: &|_| Status::Unknown,
            ends: self.ends,
        };
        // A pair may have lost a locator since its probe was sent; then it is not preferred to anything.
        let works = |pair: LocatorPair| choice.preferred(episode.reported().filter(|other| *other == pair)).is_some();
        let to = match episode.goal {
            Some(goal) if works(goal) => Some(goal),
            _ if works(self.current) => None,
            _ => choice.preferred(episode.reported()),
        };
        if let Some(to) = to.filter(|to| *to != self.current) {
            self.move_to(to, out);
        }
    }

    /// Payload goes another way from now on.
    pub(super) fn move_to(&mut self, to: LocatorPair, out: &mut Vec<Output>) {
        let from = std::mem::replace(&mut self.current, to);
        // What was known of its ends was known of the pair that is left.
        self.ends = Ends::default();
        out.push(Output::PairChanged { from, to });
    }

    pub(super) fn candidates(&self, demoted: bool, rank: &dyn Fn(LocatorPair) -> Status) -> Vec<LocatorPair> {
        let Reap { local, peer, current, ends, .. } = self;
        Choice { local, peer, current: *current, demoted, rank, ends: *ends }.candidates(&self.config)
    }
}

/// Probes and timers.
impl Reap {
    /// A Probe(InboundOk) in answer to a sign of life; `guess` is the likeliest way back.
    pub(super) fn answer(
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

    pub(super) fn take_answer(&mut self, now: Instant, out: &mut Vec<Output>) -> bool {
        let config = Arc::clone(&self.config);
        let granted = self.episode(now).answers.take(now, &config);
        if !granted {
            out.push(Output::AnswerCapped);
        }
        granted
    }

    /// Sends a probe that tells the present state (R5534-083), with a nonce nobody can guess (R5534-064).
    pub(super) fn send_probe(
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

    pub(super) fn arm_retransmission(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        longest: Duration,
        out: &mut Vec<Output>,
    ) {
        let config = Arc::clone(&self.config);
        let episode = self.episode(now);
        let gap = config.probe_gap(episode.attempts);
        if gap >= config.max_probe_timeout && !std::mem::replace(&mut episode.backed_off, true) {
            out.push(Output::BackedOff);
        }
        episode.retransmit_at = now + config.jittered(gap.min(longest), rng);
    }

    pub(super) fn forget_at(&self) -> Option<Instant> {
        let ended = self.exploration.as_ref().and_then(|episode| episode.ended)?;
        (self.state == State::Operational).then_some(ended + self.config.max_probe_timeout)
    }

    pub(super) fn start_send_if_idle(&mut self, now: Instant, rng: &mut dyn Rng) {
        if self.send_at.is_none() {
            self.restart_send(now, rng);
        }
    }

    pub(super) fn restart_send(&mut self, now: Instant, rng: &mut dyn Rng) {
        let timeout = Duration::from_secs(self.config.send_timeout_s.into());
        self.send_at = Some(now + self.config.jittered(timeout, rng));
    }

    pub(super) fn start_keepalive_if_idle(&mut self, now: Instant, rng: &mut dyn Rng) {
        if self.keepalive_until.is_none() {
            let timeout = Duration::from_secs(self.keepalive_timeout_s.into());
            self.keepalive_until = Some(now + self.config.jittered(timeout, rng));
            self.arm_keepalive_interval(now, rng);
        }
    }

    pub(super) fn stop_keepalive(&mut self) {
        self.keepalive_until = None;
        self.keepalive_next = None;
    }

    /// §4.1: the next Keepalive comes an interval from now, unless the last one, at the end of the timer, is so near
    /// that the two would be one too many.
    pub(super) fn arm_keepalive_interval(&mut self, now: Instant, rng: &mut dyn Rng) {
        let timeout = Duration::from_secs(self.keepalive_timeout_s.into());
        let interval = self.config.keepalive_gap(timeout, rng);
        let next = now + interval;
        self.keepalive_next = self.keepalive_until.and_then(|until| (next + interval / 2 < until).then_some(next));
    }
}
