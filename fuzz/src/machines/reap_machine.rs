//! One context of REAP: payload, Keepalives, Probes of a peer that reports what it likes, time, and changes of locators.

use std::sync::Arc;
use std::time::Duration;

use control::reap::{
    Activity, Config, Direction, LocalLocator, Output, PeerLocator, ProbeRefused, Reap, State, Status,
};
use control::time::Instant;
use dataplane::wire::shim6::{Probe, ProbeReport};
use dataplane::wire::{ContextTag, Locator, LocatorPair};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::octets::Octets;

/// Sends of one side that a test remembers; more than the machine does.
const SENT_MAX: usize = 64;

pub fn check(octets: &[u8]) {
    let mut octets = Octets::new(octets);
    let mut watched = Watched::new(&mut octets);
    while !octets.is_empty() {
        watched.step(&mut octets);
    }
}

/// A context, and what a bystander who saw all its packets would know.
struct Watched {
    reap: Reap,
    rng: StdRng,
    out: Vec<Output>,
    now: Instant,
    nonce: u32,
    /// What we sent, latest last.
    sent: Vec<ProbeReport>,
    /// Pairs whose probes were reported back truly.
    reported: Vec<LocatorPair>,
    local: Vec<Locator>,
    peer: Vec<PeerLocator>,
}

fn locator(site: u16, number: u16) -> Locator {
    Locator(std::net::Ipv6Addr::new(0x2001, 0xdb8, site, number, 0, 0, 0, 1))
}

fn pair(octets: &mut Octets<'_>) -> LocatorPair {
    LocatorPair { local: locator(1, octets.below(4) as u16), peer: locator(2, octets.below(4) as u16) }
}

fn state(octets: &mut Octets<'_>) -> State {
    [State::Operational, State::Exploring, State::InboundOk][octets.below(3)]
}

impl Watched {
    fn new(octets: &mut Octets<'_>) -> Watched {
        let config = Config {
            jitter_percent: octets.octet() % 51,
            tolerate_translation: octets.octet() & 1 == 1,
            ..Config::default()
        };
        config.validate().expect("made of what is allowed");
        let local = vec![locator(1, 0), locator(1, 1)];
        let peer: Vec<PeerLocator> = [locator(2, 0), locator(2, 1)].map(PeerLocator::from).to_vec();
        let current = LocatorPair { local: local[0], peer: peer[0].locator };
        let locals: Vec<LocalLocator> = local.iter().copied().map(LocalLocator::from).collect();
        Watched {
            reap: Reap::new(&Arc::new(config), current, locals, peer.clone()),
            rng: StdRng::seed_from_u64(u64::from(octets.u16())),
            out: Vec::new(),
            now: Instant::START,
            nonce: 0,
            sent: Vec::new(),
            reported: Vec::new(),
            local,
            peer,
        }
    }

    fn step(&mut self, octets: &mut Octets<'_>) {
        let before = self.reap.state();
        let mut probe = None;
        let (now, rng, out) = (self.now, &mut self.rng, &mut self.out);
        match octets.octet() % 12 {
            0 => self.reap.payload_in(now, rng, out),
            1 => self.reap.payload_out(now, rng, out),
            2 => {
                let bits = octets.octet();
                let last = if bits & 1 == 0 { Direction::Received } else { Direction::Sent };
                let activity = Activity { received: bits & 2 != 0, sent: bits & 4 != 0, last };
                self.reap.activity(now, rng, activity, out);
            }
            3 => self.reap.keepalive(now, rng, out),
            4 | 5 => probe = self.probe(octets),
            6 => return self.wait(Duration::from_millis(u64::from(octets.u16()))),
            // Nobody looked for a long time.
            7 => {
                self.now = now + Duration::from_millis(u64::from(octets.u16()) * 16);
                self.reap.expire(self.now, rng, out);
            }
            8 => self.reap.suspect(now, rng, &|_| Status::Unknown, out),
            9 => {
                self.reap.relocate(now, rng, pair(octets), out);
            }
            10 => self.set_locators(octets),
            _ => match octets.u16() {
                0..64 => self.reap.stop(),
                seconds => {
                    self.reap.set_keepalive_timeout(seconds % 64);
                }
            },
        }
        self.judge(before, probe.as_ref());
    }

    /// Lets time pass and serves timers when they are due.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.reap.deadline().filter(|due| *due <= end) {
            let before = self.reap.state();
            self.now = self.now.max(due);
            let probe_due = self.reap.probe_due(self.now);
            self.reap.expire(self.now, &mut self.rng, &mut self.out);
            let probes = self.out.iter().filter(|output| matches!(output, Output::SendProbe { .. })).count();
            assert!(probes <= usize::from(probe_due), "one at a time, as announced");
            assert!(self.reap.deadline().is_none_or(|next| next > self.now), "the clock spins");
            self.judge(before, None);
        }
        self.now = end;
    }

    /// A probe of the peer; the one that was taken, if it was.
    fn probe(&mut self, octets: &mut Octets<'_>) -> Option<Probe> {
        let on = pair(octets);
        let state = state(octets);
        let bits = octets.octet();
        let mut received = Vec::new();
        for _ in 0..bits & 0x0f {
            // Reports of what we sent, the latest first, some of them a little wrong.
            let mut report = match self.sent.len().checked_sub(1 + octets.below(16)) {
                Some(place) => self.sent[place],
                None => ProbeReport { source: locator(1, 3), target: locator(2, 3), nonce: 7, data: 0 },
            };
            match octets.octet() {
                0 => report.nonce ^= 1,
                1 => report.source = locator(1, 2),
                2 => report.target = locator(2, 2),
                _ => {}
            }
            received.push(report);
        }
        self.nonce += 1;
        let own = ProbeReport { source: on.peer, target: on.local, nonce: self.nonce, data: u32::from(bits) };
        // More reports than fit, and none, cannot come off the wire but must not break anything.
        let sent = if bits == 0xf0 { Vec::new() } else { vec![own; 1 + usize::from(bits >> 5) * 2] };
        let tag = ContextTag::truncate(0);
        let probe = Probe { receiver_tag: tag, state, sent, received, options: Default::default() };
        let source = if bits & 0x10 == 0 { on.peer } else { locator(2, 9) };
        for report in &probe.received {
            if self.sent.contains(report) {
                self.reported.push(LocatorPair { local: report.source, peer: report.target });
            }
        }
        match self.reap.probe(self.now, &mut self.rng, source, on.local, &probe, &mut self.out) {
            Ok(()) => Some(probe),
            Err(refused) => {
                assert!(self.out.is_empty(), "what is refused has no effect");
                let named = match refused {
                    ProbeRefused::NoSentReport => probe.sent.is_empty(),
                    ProbeRefused::TooManyReports => probe.sent.len().max(probe.received.len()) > 15,
                    ProbeRefused::AddressMismatch => source != on.peer,
                };
                assert!(named, "{refused}");
                None
            }
        }
    }

    fn set_locators(&mut self, octets: &mut Octets<'_>) {
        let (local, peer) = (octets.octet(), octets.octet());
        let chosen = |mask: u8| (0..4u16).filter(move |bit| mask >> bit & 1 == 1);
        self.local = chosen(local).map(|number| locator(1, number)).collect();
        self.peer = chosen(peer).map(|number| PeerLocator::from(locator(2, number))).collect();
        for (place, known) in self.peer.iter_mut().enumerate() {
            known.broken = peer >> (4 + place % 4) & 1 == 1;
        }
        let local: Vec<LocalLocator> = self.local.iter().copied().map(LocalLocator::from).collect();
        self.reap.set_locators(self.now, &mut self.rng, local, self.peer.clone(), &mut self.out);
    }

    /// `probe`: the one that has just arrived.
    fn judge(&mut self, before: State, probe: Option<&Probe>) {
        let out = std::mem::take(&mut self.out);
        let (after, timers) = (self.reap.state(), self.reap.timers());
        assert!(timers.send.is_none() || timers.keepalive.is_none(), "never both");
        assert!(after == State::Operational || timers.keepalive.is_none());
        assert!(after != State::Exploring || timers.send.is_none());
        assert!(timers.keepalive.is_some() || timers.keepalive_interval.is_none());
        assert_eq!(timers.probe.is_some(), after != State::Operational);
        let mut probes = 0;
        for output in &out {
            match output {
                Output::SendProbe { pair, state, sent, received } => {
                    probes += 1;
                    assert_eq!(*state, after, "Sta is the state after sending");
                    assert!((1..=15).contains(&sent.len()) && received.len() <= 15);
                    assert!(40 + 16 + 40 * (sent.len() + received.len()) <= 1280);
                    assert_eq!((sent[0].source, sent[0].target), (pair.local, pair.peer), "it describes itself");
                    assert!(sent[1..].iter().all(|report| self.sent.contains(report)));
                    let known = self.peer.iter().any(|peer| peer.locator == pair.peer);
                    assert!(known && self.local.contains(&pair.local) || after == State::Operational);
                    self.sent.push(sent[0]);
                }
                Output::PairChanged { to, .. } => {
                    assert!(probe.is_some() && self.reported.contains(to), "only to a pair that answered");
                    assert_eq!((self.reap.current(), self.reap.confirmed(*to)), (*to, true));
                }
                Output::SendKeepalive { pair } => {
                    assert_eq!((*pair, after), (self.reap.current(), State::Operational));
                }
                _ => {}
            }
        }
        let excess = self.sent.len().saturating_sub(SENT_MAX);
        self.sent.drain(..excess);
        assert!(probes <= 1, "one packet for one event");
        if let Some(probe) = probe {
            let quiet = probe.state == State::Operational || out.contains(&Output::AnswerCapped);
            let mute = self.local.is_empty() || self.peer.is_empty();
            assert!(probes == usize::from(!quiet) || probes == 0 && mute, "every question is answered, once");
        }
        let started = out.iter().filter(|output| matches!(output, Output::ExplorationStarted { .. })).count();
        assert_eq!(started, usize::from(before == State::Operational && after != State::Operational));
    }
}
