//! The machine against RFC 5880: the table of §6.2 and §6.8.6, timers, who is believed, and two ends on a wire that loses.

mod pair;
mod table;
mod timers;
mod trust;

use std::time::Duration;

use dataplane::wire::bfd::Packet;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::time::Instant;

const CONFIG: Config = Config { interval: ms(50), multiplier: 3 };
const THEIRS: u32 = 0xb;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A session, and all a test has to hold to drive it.
struct Bench {
    session: Session,
    now: Instant,
    rng: StdRng,
    out: Vec<Output>,
}

impl Bench {
    fn new() -> Bench {
        let now = Instant::from_millis(1_000_000);
        let mut rng = StdRng::seed_from_u64(1);
        Bench { session: Session::new(now, &mut rng, CONFIG), now, rng, out: Vec::new() }
    }

    /// A session in a state, of which the peer knows.
    fn at(state: State) -> Bench {
        let mut bench = Bench::new();
        bench.expire();
        match state {
            State::AdminDown => bench.session.shut(bench.now, &mut bench.out),
            State::Down => {}
            State::Init => bench.hear(State::Down),
            State::Up => {
                bench.hear(State::Down);
                bench.hear(State::Up);
                bench.finish();
            }
        }
        assert_eq!(bench.session.state(), state);
        bench.out.clear();
        bench
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn expire(&mut self) {
        self.session.expire(self.now, &mut self.rng, false, &mut self.out);
    }

    fn receive(&mut self, packet: Packet) -> Result<(), Refused> {
        self.session.receive(self.now, &mut self.rng, &packet, &mut self.out)
    }

    /// What the peer would send in a state.
    fn said(&self, state: State) -> Packet {
        let slow = if state == State::Up { 50_000 } else { 1_000_000 };
        let yours =
            if state == State::Down && self.session.state() == State::Down { 0 } else { self.session.discriminator() };
        Packet {
            diagnostic: Diagnostic::None,
            state,
            poll: false,
            is_final: false,
            multiplier: 3,
            mine: THEIRS,
            yours,
            desired_min_tx: slow,
            required_min_rx: 50_000,
        }
    }

    fn hear(&mut self, state: State) {
        let packet = self.said(state);
        self.receive(packet).unwrap();
    }

    /// The peer answers a poll.
    fn finish(&mut self) {
        let packet = Packet { is_final: true, ..self.said(State::Up) };
        self.receive(packet).unwrap();
    }

    fn sent(&self) -> Vec<Packet> {
        let sent = self.out.iter().filter_map(|output| match output {
            Output::Send(packet) => Some(*packet),
            _ => None,
        });
        sent.collect()
    }

    /// What was told besides packets.
    fn told(&self) -> Vec<Output> {
        self.out.iter().filter(|output| !matches!(output, Output::Send(_))).copied().collect()
    }
}
