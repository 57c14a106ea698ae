//! Two sessions and a wire between them.

use proptest::prelude::*;

use super::*;

/// Two ends, and what is under way to each.
struct Wire {
    ends: [Session; 2],
    under_way: [Vec<(Instant, Packet)>; 2],
    now: Instant,
    rng: StdRng,
    delay: Duration,
    /// Whether what this end sends is lost.
    cut: [bool; 2],
    /// Of a hundred packets, how many are lost.
    loss: u32,
    told: Vec<(Instant, usize, Output)>,
}

impl Wire {
    fn new(seed: u64, delay: Duration) -> Wire {
        let now = Instant::from_millis(1_000_000);
        let mut rng = StdRng::seed_from_u64(seed);
        let ends = [0; 2].map(|_| Session::new(now, &mut rng, CONFIG));
        Wire { ends, under_way: [Vec::new(), Vec::new()], now, rng, delay, cut: [false; 2], loss: 0, told: Vec::new() }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = self.now + ms(1);
            for end in 0..2 {
                let mut out = Vec::new();
                let (arrived, rest): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut self.under_way[end]).into_iter().partition(|(at, _)| *at <= self.now);
                self.under_way[end] = rest;
                for (_, packet) in arrived {
                    let packet = Packet::parse(&packet.emit()).unwrap();
                    let _ = self.ends[end].receive(self.now, &mut self.rng, &packet, &mut out);
                }
                self.ends[end].expire(self.now, &mut self.rng, false, &mut out);
                self.carry(end, out);
            }
        }
    }

    fn carry(&mut self, end: usize, out: Vec<Output>) {
        use rand::Rng;
        for output in out {
            match output {
                Output::Send(packet) => {
                    if !self.cut[end] && self.rng.next_u32() % 100 >= self.loss {
                        self.under_way[1 - end].push((self.now + self.delay, packet));
                    }
                }
                told => self.told.push((self.now, end, told)),
            }
        }
    }

    fn are_up(&self) -> bool {
        self.ends.iter().all(Session::is_up)
    }
}

#[test]
fn two_ends_find_each_other_within_a_round_trip_and_a_half() {
    for delay in [1, 20, 120] {
        let mut wire = Wire::new(delay, ms(delay));
        wire.run(ms(delay) * 4 + ms(5));
        assert!(wire.are_up());
        wire.run(ms(60_000));
        assert_eq!(wire.told.len(), 2, "and stay so: {:?}", wire.told);
        assert!(
            wire.ends
                .iter()
                .all(|end| end.round_trip().is_some_and(|it| it >= ms(2 * delay) && it < ms(2 * delay + 5)))
        );
    }
}

#[test]
fn a_cut_is_known_at_both_ends_within_the_detection_time_whichever_way_it_is() {
    for seed in 0..50 {
        for cut in [[true, true], [true, false], [false, true]] {
            let mut wire = Wire::new(seed, ms(10));
            wire.run(ms(3000) + ms(seed));
            assert!(wire.are_up());
            wire.told.clear();
            wire.cut = cut;
            let began = wire.now;
            wire.run(ms(3000));
            let failed = wire.told.iter().filter(|it| matches!(it.2, Output::Down(Cause::Silent | Cause::Told)));
            let failed: Vec<_> = failed.map(|(at, end, _)| (at.since(began), *end)).collect();
            assert_eq!(failed.len(), 2, "{:?}", wire.told);
            assert!(failed.iter().all(|(after, _)| *after >= ms(100) && *after <= ms(180)), "{failed:?}");
            wire.cut = [false; 2];
            wire.run(ms(2500));
            assert!(wire.are_up(), "and it is back");
        }
    }
}

// §6.8.16: who stops says so, and the other side does not take the path for dead.
#[test]
fn an_end_that_stops_is_no_failure() {
    let mut wire = Wire::new(1, ms(10));
    wire.run(ms(1000));
    let mut out = Vec::new();
    wire.ends[0].shut(wire.now, &mut out);
    wire.carry(0, out);
    wire.told.clear();
    wire.run(ms(5000));
    assert_eq!(wire.told.iter().map(|it| it.2).collect::<Vec<_>>(), [Output::Down(Cause::Ended)]);
}

#[test]
fn an_end_that_begins_anew_is_found_again() {
    let mut wire = Wire::new(1, ms(10));
    wire.run(ms(1000));
    wire.ends[0] = Session::new(wire.now, &mut wire.rng, CONFIG);
    wire.run(ms(2500));
    assert!(wire.are_up());
}

#[test]
fn an_interval_that_changes_under_way_is_no_failure() {
    for seed in 0..20 {
        let mut wire = Wire::new(seed, ms(30));
        wire.run(ms(1000));
        wire.told.clear();
        for (end, interval) in [(0, 400), (1, 100), (0, 50), (1, 800), (0, 800), (1, 50), (0, 50)] {
            wire.ends[end].set_interval(ms(interval));
            wire.run(ms(1500));
        }
        assert!(wire.told.is_empty(), "{:?}", wire.told);
        assert!(wire.ends.iter().all(|end| end.detection_time() == ms(150)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the wire did before, what works is found up, and what does not is found down.
    #[test]
    fn ends_agree_with_the_wire_in_the_end(seed: u64, troubles in proptest::collection::vec((0u64..3000, any::<[bool; 2]>(), 0u32..60), 0..8), dead: bool) {
        let mut wire = Wire::new(seed, ms(15));
        for (time, cut, loss) in troubles {
            (wire.cut, wire.loss) = (cut, loss);
            wire.run(ms(time));
        }
        (wire.cut, wire.loss) = ([dead; 2], 0);
        wire.run(ms(8000));
        prop_assert_eq!(wire.are_up(), !dead);
        prop_assert_eq!(wire.ends.iter().any(Session::is_up), !dead);
        wire.told.clear();
        wire.run(ms(5000));
        prop_assert!(wire.told.is_empty(), "and nothing changes any more: {:?}", wire.told);
    }

    /// Any packet at all leaves a session that has a deadline, or is shut, and nobody's Up without its discriminator.
    #[test]
    fn strange_packets_do_no_harm(seed: u64, packets in proptest::collection::vec((any::<[u8; 24]>(), 0u64..500, any::<bool>()), 0..60)) {
        let mut bench = Bench::new();
        bench.rng = StdRng::seed_from_u64(seed);
        for (octets, wait, names_us) in packets {
            let mut octets = octets;
            (octets[0], octets[1], octets[3]) = (0x20 | octets[0] & 0x1f, octets[1] & 0xf0, 24);
            if names_us {
                octets[8..12].copy_from_slice(&bench.session.discriminator().to_be_bytes());
            }
            bench.wait(ms(wait));
            if let Some(packet) = Packet::parse(&octets) {
                let (before, ours) = (bench.session.state(), bench.session.discriminator());
                let _ = bench.receive(packet);
                prop_assert!(bench.session.state() != State::Up || before == State::Up || packet.yours == ours);
            }
            bench.expire();
            prop_assert!(bench.session.deadline().is_some_and(|at| at > bench.now));
        }
    }
}
