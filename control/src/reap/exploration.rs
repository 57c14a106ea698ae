//! What a context keeps only while it explores, and for one Max Probe Timeout after (RFC 5534 §4.3, spec §6, §10).

use std::time::Duration;

use dataplane::wire::LocatorPair;
use dataplane::wire::shim6::ProbeReport;

use super::config::Config;
use crate::time::Instant;

/// Most of our probes whose nonces are remembered. At the pace of §4.3 more are never in flight together.
pub(super) const SENT_MAX: usize = 16;
/// Most reports of each kind in a probe: their number has four bits (§5.2).
pub(super) const REPORTS_MAX: usize = 15;

/// One probe of ours, until the episode is forgotten.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentProbe {
    pub(super) report: ProbeReport,
    pub(super) at: Instant,
    /// The peer gave its nonce back: the pair works from us to the peer.
    pub(super) reported: bool,
}

impl SentProbe {
    pub(super) fn pair(&self) -> LocatorPair {
        LocatorPair { local: self.report.source, peer: self.report.target }
    }
}

/// One episode: from leaving Operational until some time after coming back.
#[derive(Debug)]
pub(super) struct Exploration {
    /// In the order to try.
    pub(super) candidates: Vec<LocatorPair>,
    /// Place in `candidates` of the next Probe(Exploring).
    explore_next: usize,
    /// Place in `candidates` of the next Probe(InboundOk). Its own round: a pair on which the peer could have heard
    /// "I hear you" is not crossed off by a probe that could not say so.
    inform_next: usize,
    /// Probes sent by the clock; decides the gap. Answers do not count, or a peer could talk us into silence.
    pub(super) attempts: u32,
    /// When the next probe is due; means nothing once the episode has ended.
    pub(super) retransmit_at: Instant,
    /// Oldest first, at most [`SENT_MAX`].
    pub(super) sent: Vec<SentProbe>,
    /// What arrived since Exploring was last entered: oldest first, at most [`REPORTS_MAX`], the latest of each pair.
    pub(super) received: Vec<ProbeReport>,
    /// The pair on which we last answered by guess, without having learned that the answer arrived.
    pub(super) guessed: Option<LocatorPair>,
    /// The pair that policy wants to move to; taken as soon as it is confirmed.
    pub(super) goal: Option<LocatorPair>,
    /// There is local evidence against the current pair.
    pub(super) demoted: bool,
    /// The pair on which nothing was heard although something was sent, if it was not even worth a probe because others who
    /// share it fell silent too.
    pub(super) unheard: Option<LocatorPair>,
    /// The gap has reached its maximum, and this was told.
    pub(super) backed_off: bool,
    pub(super) started: Instant,
    /// When the peer began to explore again soon after the end.
    pub(super) resumed: Option<Instant>,
    /// When the context came back to Operational.
    pub(super) ended: Option<Instant>,
    pub(super) answers: AnswerBucket,
}

impl Exploration {
    /// A new episode. Exploring begins with the first candidate, the pair in use; the round of Probe(InboundOk) leaves it
    /// out at first, since it belongs to the path that the peer seems not to hear us on.
    pub(super) fn new(now: Instant, candidates: Vec<LocatorPair>, answers: AnswerBucket) -> Exploration {
        Exploration {
            candidates,
            explore_next: 0,
            inform_next: 1,
            attempts: 0,
            retransmit_at: now,
            sent: Vec::new(),
            received: Vec::new(),
            guessed: None,
            goal: None,
            demoted: false,
            unheard: None,
            backed_off: false,
            started: now,
            resumed: None,
            ended: None,
            answers,
        }
    }

    /// Next pair for a Probe(Exploring).
    pub(super) fn next_to_explore(&mut self) -> Option<LocatorPair> {
        step(&self.candidates, &mut self.explore_next)
    }

    /// Next pair for a Probe(InboundOk) sent by the clock.
    pub(super) fn next_to_inform(&mut self) -> Option<LocatorPair> {
        step(&self.candidates, &mut self.inform_next)
    }

    /// Makes `pair` the next to be tried, if it is a candidate; the round goes on behind it.
    pub(super) fn next_is(&mut self, pair: LocatorPair) -> bool {
        let place = self.candidates.iter().position(|candidate| *candidate == pair);
        if let Some(place) = place {
            (self.explore_next, self.inform_next) = (place, place);
        }
        place.is_some()
    }

    /// Pair for an answer: `guess` if it may be probed and was not just tried in vain, else the next in line.
    ///
    /// Where only one-way paths are left the mirror of what arrives never works, and answers put off the probes of the
    /// clock. Every second answer therefore goes elsewhere.
    pub(super) fn pair_for_answer(&mut self, guess: LocatorPair) -> Option<LocatorPair> {
        if self.guessed != Some(guess) && self.candidates.contains(&guess) {
            self.guessed = Some(guess);
            return Some(guess);
        }
        self.guessed = None;
        self.next_to_inform()
    }

    /// Replaces the candidates. Pairs that were not there before are next in line.
    ///
    /// Returns whether there are any such pairs.
    pub(super) fn replace_candidates(&mut self, candidates: Vec<LocatorPair>) -> bool {
        let fresh = candidates.iter().position(|pair| !self.candidates.contains(pair));
        self.candidates = candidates;
        if let Some(place) = fresh {
            self.explore_next = place;
            self.inform_next = place;
        }
        fresh.is_some()
    }

    /// Orders the pairs that this round has not reached yet as in `candidates`.
    pub(super) fn reorder(&mut self, candidates: &[LocatorPair]) {
        let place = |pair: &LocatorPair| candidates.iter().position(|other| other == pair);
        let tried = self.explore_next.min(self.candidates.len());
        self.candidates[tried..].sort_by_key(place);
    }

    /// Remembers a probe of ours.
    pub(super) fn remember_sent(&mut self, now: Instant, report: ProbeReport) {
        if self.sent.len() == SENT_MAX {
            self.sent.remove(0);
        }
        self.sent.push(SentProbe { report, at: now, reported: false });
    }

    /// Remembers a probe of the peer's.
    pub(super) fn remember_received(&mut self, report: ProbeReport) {
        self.received.retain(|known| (known.source, known.target) != (report.source, report.target));
        if self.received.len() == REPORTS_MAX {
            self.received.remove(0);
        }
        self.received.push(report);
    }

    /// Finds the probe of ours that `report` gives back: nonce and both addresses have to match (R5534-117).
    pub(super) fn match_report(&mut self, report: &ProbeReport) -> Option<&mut SentProbe> {
        let same = |sent: &&mut SentProbe| {
            (sent.report.nonce, sent.report.source, sent.report.target) == (report.nonce, report.source, report.target)
        };
        self.sent.iter_mut().find(same)
    }

    /// Sent reports for a probe described by `first`: itself, then unreported ones, latest first (§5.2).
    pub(super) fn sent_reports(&self, first: ProbeReport, max: usize) -> Vec<ProbeReport> {
        let earlier = self.sent.iter().rev().filter(|sent| !sent.reported && sent.report.nonce != first.nonce);
        std::iter::once(first).chain(earlier.map(|sent| sent.report)).take(max.clamp(1, REPORTS_MAX)).collect()
    }

    /// Received reports, latest first (§5.2).
    pub(super) fn received_reports(&self, max: usize) -> Vec<ProbeReport> {
        self.received.iter().rev().take(max.min(REPORTS_MAX)).copied().collect()
    }

    /// Pairs shown to work in this episode, and not to have failed since the peer explores again.
    pub(super) fn reported(&self) -> impl Iterator<Item = LocatorPair> {
        let works = |sent: &&SentProbe| {
            dataplane::mutant!(AnyProbedPair, return true);
            sent.reported && !self.is_outdated(sent)
        };
        self.sent.iter().filter(works).map(SentProbe::pair)
    }

    /// Whether what a probe showed holds no longer: since the peer explores again its pair was probed anew in vain, while a
    /// later probe got through. Without that contrast perhaps the answer is only late (R5534-122).
    fn is_outdated(&self, sent: &SentProbe) -> bool {
        self.resumed.filter(|resumed| sent.at < *resumed).is_some_and(|resumed| {
            let mut since = self.sent.iter().skip_while(|later| later.at < resumed);
            since.any(|again| again.pair() == sent.pair() && !again.reported) && since.any(|later| later.reported)
        })
    }

    /// Pairs whose probes stayed without report although a later probe on another pair was reported, each with the time
    /// of its last probe, and the pair that was found silent without a probe. A pair without such contrast has not failed: perhaps it is the peer that is gone.
    pub(super) fn failed(&self, memory: Duration) -> Vec<(LocatorPair, Instant)> {
        let Some(proof) = self.sent.iter().filter(|sent| sent.reported).map(|sent| sent.at).max() else {
            return Vec::new();
        };
        let mut failed: Vec<(LocatorPair, Instant)> = Vec::new();
        for sent in self.sent.iter().rev() {
            let pair = sent.pair();
            let heard = self.reported().any(|reported| reported == pair);
            let known = failed.iter().any(|(other, _)| *other == pair);
            // The peer forgets what arrived before it last began to explore; so old silence proves nothing.
            if !heard && !known && sent.at < proof && sent.at + memory > proof {
                failed.push((pair, sent.at));
            }
        }
        let unheard = self.unheard.filter(|pair| self.reported().all(|reported| reported != *pair));
        failed.extend(
            unheard.filter(|pair| failed.iter().all(|(other, _)| other != pair)).map(|pair| (pair, self.started)),
        );
        failed
    }
}

fn step(candidates: &[LocatorPair], next: &mut usize) -> Option<LocatorPair> {
    let place = if *next < candidates.len() { *next } else { 0 };
    *next = place + 1;
    candidates.get(place).copied()
}

/// Limits what a flood of probes can make one context send (R5534-120).
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerBucket {
    tokens: u32,
    filled: Instant,
}

impl AnswerBucket {
    pub(super) fn full(now: Instant, config: &Config) -> AnswerBucket {
        AnswerBucket { tokens: config.answers_burst, filled: now }
    }

    /// Takes one answer, if one is left.
    pub(super) fn take(&mut self, now: Instant, config: &Config) -> bool {
        let each = Duration::from_secs(1) / config.answers_per_s.max(1);
        let gained = now.since(self.filled).as_nanos() / each.as_nanos().max(1);
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if gained > 0 {
            self.tokens = self.tokens.saturating_add(gained).min(config.answers_burst);
            // Fractions of an answer are not lost, unless the bucket overflows.
            self.filled = if self.tokens == config.answers_burst { now } else { self.filled + each * gained };
        }
        let granted = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        granted
    }
}

#[cfg(test)]
mod tests {
    use dataplane::wire::Locator;

    use super::*;

    fn pair(local: u16, peer: u16) -> LocatorPair {
        let at = |site: u16, n: u16| Locator([0x2001, 0xdb8, site, n, 0, 0, 0, 1].into());
        LocatorPair { local: at(0xa, local), peer: at(0xb, peer) }
    }

    fn report(pair: LocatorPair, nonce: u32) -> ProbeReport {
        ProbeReport { source: pair.local, target: pair.peer, nonce, data: 7 }
    }

    fn fresh(candidates: Vec<LocatorPair>) -> Exploration {
        let bucket = AnswerBucket::full(Instant::START, &Config::default());
        Exploration::new(Instant::START, candidates, bucket)
    }

    // R5534-120
    #[test]
    fn a_flood_gets_a_burst_and_then_the_rate() {
        let config = Config::default();
        let mut bucket = AnswerBucket::full(Instant::START, &config);
        let answered = (0..5000).filter(|millis| bucket.take(Instant::from_millis(*millis), &config)).count();
        assert_eq!(answered, 10 + 24);
    }

    #[test]
    fn answers_alternate_between_the_guess_and_the_round() {
        let mut exploration = fresh(vec![pair(1, 1), pair(1, 2), pair(2, 1)]);
        let guess = pair(2, 1);
        let answers: Vec<_> = (0..6).map(|_| exploration.pair_for_answer(guess).unwrap()).collect();
        assert_eq!(answers, [guess, pair(1, 2), guess, pair(2, 1), guess, pair(1, 1)]);
        assert_eq!(exploration.pair_for_answer(pair(9, 9)), Some(pair(1, 2)), "never outside the candidates");
        assert_eq!(fresh(Vec::new()).pair_for_answer(guess), None);
    }

    // R5534-058, R5534-059, R5534-082
    #[test]
    fn reports_are_the_latest_and_those_not_known_to_have_arrived() {
        let mut exploration = fresh(vec![pair(1, 1)]);
        for nonce in 0..20 {
            exploration.remember_sent(Instant::START, report(pair(1, 1), nonce));
            exploration.remember_received(report(pair(1, nonce as u16).mirrored(), nonce));
        }
        assert_eq!(exploration.sent.len(), SENT_MAX);
        exploration.match_report(&report(pair(1, 1), 18)).unwrap().reported = true;
        let nonces = |reports: Vec<ProbeReport>| reports.iter().map(|report| report.nonce).collect::<Vec<_>>();
        assert_eq!(nonces(exploration.sent_reports(report(pair(1, 1), 19), 3)), [19, 17, 16]);
        assert_eq!(nonces(exploration.received_reports(4)), [19, 18, 17, 16]);
        assert_eq!(exploration.received_reports(99).len(), REPORTS_MAX);
        exploration.remember_received(report(pair(1, 15).mirrored(), 99));
        assert_eq!(nonces(exploration.received_reports(99))[..2], [99, 19]);
        assert_eq!(exploration.received_reports(99).iter().filter(|report| report.nonce == 15).count(), 0);
        assert_eq!(exploration.received_reports(1)[0].data, 7, "R5534-067: echoed unmodified");
    }

    #[test]
    fn only_silence_next_to_a_later_report_counts_as_failure() {
        let mut exploration = fresh(vec![pair(1, 1), pair(2, 2), pair(1, 2)]);
        let at = Instant::from_millis;
        let memory = Duration::from_secs(15);
        exploration.remember_sent(at(0), report(pair(2, 1), 0));
        exploration.remember_sent(at(20_000), report(pair(1, 1), 1));
        exploration.remember_sent(at(20_500), report(pair(2, 2), 2));
        exploration.remember_sent(at(21_000), report(pair(1, 2), 3));
        assert!(exploration.failed(memory).is_empty());
        exploration.match_report(&report(pair(2, 2), 2)).unwrap().reported = true;
        assert_eq!(exploration.failed(memory), [(pair(1, 1), at(20_000))]);
    }

    #[test]
    fn new_candidates_are_next_in_line() {
        let mut exploration = fresh(vec![pair(1, 1), pair(1, 2)]);
        exploration.next_to_explore();
        assert!(!exploration.replace_candidates(vec![pair(1, 2), pair(1, 1)]));
        assert!(exploration.replace_candidates(vec![pair(1, 1), pair(1, 2), pair(1, 3)]));
        assert_eq!(exploration.next_to_explore(), Some(pair(1, 3)));
        assert_eq!(exploration.next_to_inform(), Some(pair(1, 3)));
    }
}
