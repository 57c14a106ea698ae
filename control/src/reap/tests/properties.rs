//! Invariants that hold after any sequence of events.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    PayloadIn,
    PayloadOut,
    Activity {
        received: bool,
        sent: bool,
        last: Direction,
    },
    Keepalive,
    /// A probe on the mirror of one of our pairs. Which of our latest probes it reports; more are forged ones.
    Probe {
        on: (u16, u16),
        state: State,
        reports: Vec<usize>,
    },
    /// Time passes, and timers are served when they are due.
    Wait {
        millis: u64,
    },
    /// Time passes, and nobody looks.
    Oversleep {
        millis: u64,
    },
    Suspect,
    Relocate((u16, u16)),
    Locators {
        local: u8,
        peer: u8,
        broken: bool,
    },
    KeepaliveTimeout(u16),
    Stop,
}

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![Just(State::Operational), Just(State::Exploring), Just(State::InboundOk)]
}

fn any_direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Received), Just(Direction::Sent)]
}

fn any_pair() -> impl Strategy<Value = (u16, u16)> {
    (1..=3u16, 1..=3u16)
}

fn any_op() -> impl Strategy<Value = Op> {
    let activity = (any::<bool>(), any::<bool>(), any_direction());
    let probe = (any_pair(), any_state(), vec(0..20usize, 0..4));
    prop_oneof![
        4 => Just(Op::PayloadIn),
        4 => Just(Op::PayloadOut),
        2 => activity.prop_map(|(received, sent, last)| Op::Activity { received, sent, last }),
        3 => Just(Op::Keepalive),
        12 => probe.prop_map(|(on, state, reports)| Op::Probe { on, state, reports }),
        8 => (1..40_000u64).prop_map(|millis| Op::Wait { millis }),
        1 => (1..200_000u64).prop_map(|millis| Op::Oversleep { millis }),
        1 => Just(Op::Suspect),
        1 => any_pair().prop_map(Op::Relocate),
        1 => (0..8u8, 0..8u8, any::<bool>()).prop_map(|(local, peer, broken)| Op::Locators { local, peer, broken }),
        1 => (0..40u16).prop_map(Op::KeepaliveTimeout),
        1 => Just(Op::Stop),
    ]
}

/// A context, and what a bystander who saw all its packets would know.
struct Watched {
    bench: Bench,
    now: Instant,
    nonce: u32,
    /// What we sent, latest last.
    sent: Vec<ProbeReport>,
    /// Pairs that were reported back truly.
    reported: Vec<LocatorPair>,
    /// What arrived since Exploring was last entered, or Operational left because of the peer.
    arrived: Vec<ProbeReport>,
    local: Vec<Locator>,
    peer: Vec<PeerLocator>,
}

impl Watched {
    fn new(config: Config) -> Watched {
        let mut watched = Watched {
            bench: Bench::new(config),
            now: at(0),
            nonce: 0,
            sent: Vec::new(),
            reported: Vec::new(),
            arrived: Vec::new(),
            local: vec![a(1), a(2)],
            peer: peers(&[b(1), b(2)]),
        };
        watched.nonce = 1 << 20;
        watched
    }

    fn apply(&mut self, op: &Op) {
        let before = self.bench.reap.state();
        let now = self.now;
        let bench = &mut self.bench;
        match op {
            Op::PayloadIn => bench.reap.payload_in(now, &mut bench.rng, &mut bench.out),
            Op::PayloadOut => bench.reap.payload_out(now, &mut bench.rng, &mut bench.out),
            Op::Activity { received, sent, last } => {
                let activity = Activity { received: *received, sent: *sent, last: *last };
                bench.reap.activity(now, &mut bench.rng, activity, &mut bench.out);
            }
            Op::Keepalive => bench.reap.keepalive(now, &mut bench.rng, &mut bench.out),
            Op::Probe { on, state, reports } => return self.probe(pair(on.0, on.1), *state, reports),
            Op::Wait { millis } => return self.wait(*millis),
            Op::Oversleep { millis } => {
                self.now = now + Duration::from_millis(*millis);
                bench.reap.expire(self.now, &mut bench.rng, &mut bench.out);
            }
            Op::Suspect => {
                bench.reap.suspect(now, &mut bench.rng, &|_| Status::Unknown, &mut bench.out);
            }
            Op::Relocate(to) => {
                bench.reap.relocate(now, &mut bench.rng, pair(to.0, to.1), &mut bench.out);
            }
            Op::Locators { local, peer, broken } => {
                let chosen = |mask: &u8| (1..=3u16).filter(|n| mask & (1 << (n - 1)) != 0).collect::<Vec<_>>();
                self.local = chosen(local).into_iter().map(a).collect();
                self.peer = peers(&chosen(peer).into_iter().map(b).collect::<Vec<_>>());
                if let Some(first) = self.peer.first_mut() {
                    first.broken = *broken;
                }
                let (local, peer) = (locals(&self.local), self.peer.clone());
                bench.reap.set_locators(now, &mut bench.rng, local, peer, &mut bench.out);
            }
            Op::KeepaliveTimeout(seconds) => {
                bench.reap.set_keepalive_timeout(*seconds);
            }
            Op::Stop => bench.reap.stop(),
        }
        self.check(before, None);
    }

    fn wait(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while let Some(due) = self.bench.reap.deadline().filter(|due| *due <= end) {
            let before = self.bench.reap.state();
            self.now = self.now.max(due);
            let (probe_due, now) = (self.bench.reap.probe_due(self.now), self.now);
            self.bench.reap.expire(now, &mut self.bench.rng, &mut self.bench.out);
            assert!(probes(&self.bench.out).len() <= usize::from(probe_due), "R5534-042: one at a time, as announced");
            assert!(self.bench.reap.deadline().is_none_or(|next| next > now), "the clock spins");
            self.check(before, None);
        }
        self.now = end;
    }

    fn probe(&mut self, on: LocatorPair, state: State, reports: &[usize]) {
        let before = self.bench.reap.state();
        self.nonce += 1;
        let mut received = Vec::new();
        for &back in reports {
            match self.sent.len().checked_sub(back + 1) {
                Some(place) => {
                    received.push(self.sent[place]);
                    self.reported.push(LocatorPair { local: self.sent[place].source, peer: self.sent[place].target });
                }
                None => received.push(ProbeReport { source: a(3), target: b(3), nonce: back as u32, data: 0 }),
            }
        }
        let probe = peer_probe(on, state, self.nonce, &received);
        let Bench { reap, rng, out } = &mut self.bench;
        reap.probe(self.now, rng, on.peer, on.local, &probe, out).unwrap();
        self.check(before, Some(&probe));
    }

    /// `probe`: the one that has just arrived.
    fn check(&mut self, before: State, probe: Option<&Probe>) {
        let out = std::mem::take(&mut self.bench.out);
        let reap = &self.bench.reap;
        let (after, timers) = (reap.state(), reap.timers());

        // R5534-023, R5534-078
        assert!(timers.send.is_none() || timers.keepalive.is_none());
        assert!(after == State::Operational || timers.keepalive.is_none());
        assert!(after != State::Exploring || timers.send.is_none());
        assert!(timers.keepalive.is_some() || timers.keepalive_interval.is_none());
        assert_eq!(timers.probe.is_some(), after != State::Operational);

        let entered = before != State::Exploring && after == State::Exploring;
        let told = out.iter().any(|output| matches!(output, Output::ExplorationStarted { .. }));
        if entered || told {
            self.arrived.clear();
        }
        self.arrived.extend(probe.map(|probe| probe.sent[0]));

        let mut at_exit = 0;
        for output in &out {
            match output {
                Output::SendProbe { pair, state, sent, received } => {
                    at_exit += 1;
                    assert_eq!(*state, after, "R5534-083");
                    assert!((1..=15).contains(&sent.len()) && received.len() <= 15);
                    assert_eq!((sent[0].source, sent[0].target), (pair.local, pair.peer), "R5534-057, R5534-063");
                    assert!(sent[1..].iter().all(|report| self.sent.contains(report)), "R5534-058");
                    assert!(
                        received.iter().all(|report| after == State::Operational || self.arrived.contains(report)),
                        "R5534-059"
                    );
                    let due = after == State::InboundOk && !self.arrived.is_empty();
                    assert!(!due || !received.is_empty(), "R5534-060");
                    let known =
                        self.local.contains(&pair.local) && self.peer.iter().any(|peer| peer.locator == pair.peer);
                    assert!(known || after == State::Operational, "R5534-084");
                    self.sent.push(sent[0]);
                }
                // R5534-108, R5534-117
                Output::PairChanged { to, .. } => {
                    assert!(probe.is_some() && self.reported.contains(to) && reap.confirmed(*to));
                }
                Output::SendKeepalive { pair } => {
                    assert_eq!((*pair, after), (reap.current(), State::Operational));
                }
                _ => {}
            }
        }
        // Invariants (i) to (iii) of spec §4.
        if let Some(probe) = probe {
            let capped = out.contains(&Output::AnswerCapped);
            let expected = usize::from(probe.state != State::Operational && !capped);
            // With no usable locator of ours there is nothing to answer with.
            assert!(at_exit == expected || (at_exit == 0 && (self.local.is_empty() || self.peer.is_empty())));
        }
        let started = out.iter().filter(|output| matches!(output, Output::ExplorationStarted { .. })).count();
        assert_eq!(started, usize::from(before == State::Operational && after != State::Operational));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn no_sequence_of_events_breaks_an_invariant(ops in vec(any_op(), 1..120), jitter in 0..=50u8) {
        let mut watched = Watched::new(Config { jitter_percent: jitter, ..Config::default() });
        for op in &ops {
            watched.apply(op);
        }
    }

    // E1 and E2 through a digest: same state and timers as packet by packet, had all packets come at the tick.
    #[test]
    fn a_digest_is_worth_its_packets(
        packets in vec(any_direction(), 1..10),
        start in 0..5usize,
    ) {
        let bench = || match start {
            0 => Bench::new(exact()),
            1 => { let mut bench = Bench::new(exact()); bench.payload_in(at(0)); bench }
            2 => { let mut bench = Bench::new(exact()); bench.payload_out(at(0)); bench }
            3 => Bench::inbound_ok(exact()),
            _ => { let mut bench = Bench::inbound_ok(exact()); bench.payload_in(at(15_150)); bench }
        };
        let (mut single, mut digest) = (bench(), bench());
        let now = at(15_160);
        let (mut single_out, mut received, mut sent, mut last) = (Vec::new(), false, false, Direction::Sent);
        for packet in packets {
            last = packet;
            match packet {
                Direction::Received => { received = true; single_out.extend(single.payload_in(now)) }
                Direction::Sent => { sent = true; single_out.extend(single.payload_out(now)) }
            }
        }
        let activity = Activity { received, sent, last };
        digest.reap.activity(now, &mut digest.rng, activity, &mut digest.out);
        prop_assert_eq!(digest.reap.state(), single.reap.state());
        prop_assert_eq!(digest.reap.timers(), single.reap.timers());
        prop_assert_eq!(digest.out, single_out);
    }
}
