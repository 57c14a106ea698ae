//! After faults heal, a working pair is found within a bound; and then there is silence. A failing case names its seed.

use rand::Rng;

use super::network::{A, B, Fault, Network, Numbers, forever};
use super::*;

/// Detection, at worst 30 s (spec §5 item 6), and one gap of at most 60 s, with something to spare.
const BOUND_ALL: u64 = 120;

struct Storm {
    network: Network,
    locators: [u16; 2],
    healed: Instant,
}

/// Two nodes with one to three locators each, random directed pairs cut and random loss, from 10 s on for up to 20 min.
fn storm(seed: u64) -> (Storm, StdRng) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut draw = |from: u32, to: u32| from + rng.next_u32() % (to - from + 1);
    let locators = [draw(1, 3) as u16, draw(1, 3) as u16];
    let order = if draw(0, 1) == 0 { Order::Divergent } else { Order::Preferred };
    let mut network = Network::new(Config { order, ..Config::default() }, locators, seed);
    network.stream(A, draw(0, 999).into());
    if draw(0, 2) > 0 {
        network.stream(B, draw(0, 999).into());
    }
    network.loss_percent = draw(0, 40);
    let length = if draw(0, 1) == 0 { draw(1, 60) } else { draw(60, 1200) };
    let healed = at(10_000 + u64::from(length) * 1_000);
    for source in 1..=locators[A] {
        for target in 1..=locators[B] {
            for (source, target) in [(a(source), b(target)), (b(target), a(source))] {
                if draw(0, 9) < 8 {
                    let from = at(u64::from(draw(10, 60)) * 1_000);
                    network.faults.push(Fault { from, until: healed, source: Some(source), target: Some(target) });
                }
            }
        }
    }
    (Storm { network, locators, healed }, rng)
}

// RFC 5534 §4.3; R5534-041, invariant: no livelock.
#[test]
fn after_all_paths_heal_both_sides_settle_within_the_bound() {
    for seed in 0..400 {
        let (Storm { mut network, healed, .. }, _) = storm(seed);
        network.run(healed);
        (network.loss_percent, network.faults) = (0, Vec::new());
        network.run(healed + seconds(BOUND_ALL));
        assert!(network.healthy(), "seed {seed}");
    }
}

// R5534-010, R5534-033, R5534-041: it is enough that one pair works in each direction, and the two need not be mirrors.
#[test]
fn one_working_pair_each_way_is_found_wherever_it_is() {
    let mut slowest = Duration::ZERO;
    for seed in 0..400 {
        let (Storm { mut network, locators, healed }, mut rng) = storm(seed);
        network.run(healed);
        network.loss_percent = 0;
        network.faults.clear();
        let pairs: Vec<(u16, u16)> =
            (1..=locators[A]).flat_map(|source| (1..=locators[B]).map(move |target| (source, target))).collect();
        let [there, back] = [0, 1].map(|_| pairs[rng.next_u32() as usize % pairs.len()]);
        for &(ours, theirs) in &pairs {
            let mut cut = |source, target| {
                network.faults.push(Fault {
                    from: healed,
                    until: forever(),
                    source: Some(source),
                    target: Some(target),
                });
            };
            if (ours, theirs) != there {
                cut(a(ours), b(theirs));
            }
            if (ours, theirs) != back {
                cut(b(theirs), a(ours));
            }
        }
        // Mirrors: one round. Otherwise each arrival of one side's round lets the other side try two pairs of its own.
        let round = pairs.len() as u64;
        let rounds = if there == back { 1 } else { round / 2 + 2 };
        let bound = seconds(BOUND_ALL + 60 * round * rounds);
        let mut settled = None;
        while settled.is_none() && network.now < healed + bound {
            let next = network.now + seconds(1);
            network.run(next);
            settled = network.healthy().then(|| network.now.since(healed));
        }
        let Some(took) = settled else { panic!("seed {seed}: not settled {bound:?} after {healed:?}") };
        slowest = slowest.max(took);
        // And it lasts.
        network.run(healed + bound + seconds(300));
        assert!(network.healthy(), "seed {seed}");
    }
    assert!(slowest > seconds(60), "the storms are too gentle to show anything: {slowest:?}");
}

// Invariant (iv) of spec §4: without loss and without payload, REAP falls silent.
#[test]
fn silence_follows_when_payload_ends() {
    for seed in 0..200 {
        let (Storm { mut network, healed, .. }, _) = storm(seed);
        network.run(healed);
        (network.loss_percent, network.faults) = (0, Vec::new());
        for node in [A, B] {
            network.nodes[node].payload = None;
        }
        network.run(healed + seconds(240));
        let before = network.reap_packets().count();
        network.run(healed + seconds(4_000));
        assert_eq!(network.reap_packets().count(), before, "seed {seed}");
        assert!(network.nodes.iter().all(|node| node.reap.deadline().is_none()), "seed {seed}");
    }
}

// R5534-032: hearing the peer is not enough; one of our own probes has to be reported.
#[test]
fn a_peer_that_is_heard_but_cannot_hear_keeps_us_exploring() {
    let mut network = Network::new(exact(), [2, 2], 1);
    network.stream(A, 0);
    network.stream(B, 300);
    network.cut(10_000, Some(a(1)), None);
    network.cut(10_000, Some(a(2)), None);
    let mut rate = Vec::new();
    for minute in 1..=20 {
        network.run(at(minute * 60_000));
        if minute > 1 {
            assert_ne!(network.nodes[A].reap.state(), State::Operational);
            assert_ne!(network.nodes[B].reap.state(), State::Operational);
        }
        let sent = network.probes();
        rate.push([A, B].map(|node| {
            let recent = |probe: &&(u64, usize, Numbers, State)| probe.1 == node && probe.0 >= (minute - 1) * 60_000;
            sent.iter().filter(recent).count()
        }));
    }
    assert!(network.moves().is_empty());
    // R5534-119: the back-off goes on although A keeps hearing B. A answers each of B's probes and adds its own.
    assert!(rate[0][A] > 8, "{rate:?}");
    assert!(rate[10..].iter().all(|&[from_a, from_b]| from_a <= 4 && from_b <= 2), "{rate:?}");
    assert!(network.nodes[A].reap.timers().probe.is_some());
}

// R5534-034: one change, one notice.
#[test]
fn a_flapping_provider_is_left_once() {
    let mut network = Network::new(exact(), [2, 2], 1);
    network.stream(A, 0);
    network.stream(B, 300);
    for flap in 0..10 {
        let from = at(10_000 + flap * 40_000);
        for (source, target) in [(Some(a(1)), None), (None, Some(a(1)))] {
            network.faults.push(Fault { from, until: from + seconds(20), source, target });
        }
    }
    network.run(at(500_000));
    assert!(network.healthy());
    assert_eq!(network.moves().len(), 2, "nothing draws the context back to the bad provider: {:?}", network.moves());
}

// R5534-034, spec §6: policy moves a context only to a pair that answers.
#[test]
fn relocation_takes_one_round_trip_or_nothing() {
    let mut network = Network::new(exact(), [2, 2], 1);
    network.stream(A, 0);
    network.stream(B, 300);
    network.run(at(5_100));
    network.drive(A, |reap, now, rng, out| assert!(reap.relocate(now, rng, pair(2, 1), out)));
    network.run(at(5_250));
    assert_eq!(network.nodes[A].reap.current(), pair(2, 1));
    network.run(at(60_000));
    assert!(network.healthy());
    assert_eq!(network.nodes[A].reap.current(), pair(2, 1));
    // A goal that does not answer.
    network.cut(60_000, None, Some(b(2)));
    network.drive(A, |reap, now, rng, out| assert!(reap.relocate(now, rng, pair(2, 2), out)));
    network.run(at(120_000));
    assert_eq!(network.nodes[A].reap.current(), pair(2, 1));
    assert!(network.healthy());
}
