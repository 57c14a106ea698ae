//! Word from elsewhere about the current pair (RFC 5534 §3.3, §8): it starts a test, and the answers decide.

use State::{Exploring, InboundOk, Operational};

use super::network::{A, B, Network};
use super::*;

fn hinted(network: &mut Network) {
    network.drive(A, |reap, now, rng, out| {
        assert!(reap.hint(now, rng, &|_| Status::Unknown, out));
    });
}

// R5534-011, R5534-107, R5534-122
#[test]
fn a_lie_moves_nothing_and_costs_two_probes_and_an_answer() {
    for order in [Order::Divergent, Order::Preferred] {
        let mut network = Network::new(Config { order, ..exact() }, [3, 3], 1);
        network.run(at(1_000));
        hinted(&mut network);
        network.run(at(600_000));
        let expected = [(1_000, A, (1, 1), Exploring), (1_050, B, (1, 1), InboundOk), (1_100, A, (1, 1), Operational)];
        assert_eq!(network.probes(), expected);
        assert_eq!(network.moves(), []);
        assert!(network.healthy());
    }
}

// R5534-101: a truth moves after the first probe that was answered, long before Send Timeout.
#[test]
fn a_truth_moves_to_the_first_pair_that_answered() {
    let mut network = Network::new(exact(), [2, 2], 1);
    network.stream(A, 0);
    network.stream(B, 300);
    network.run(at(10_000));
    network.cut(10_000, Some(b(1)), None);
    network.cut(10_000, None, Some(b(1)));
    network.run(at(10_400));
    hinted(&mut network);
    network.run(at(12_000));
    assert_eq!(network.moves(), [(11_000, A, (1, 1), (2, 2)), (11_050, B, (1, 1), (2, 2))]);
    assert!(network.healthy());
}

#[test]
fn whoever_explores_needs_no_hint_and_a_pair_known_to_be_dead_goes_last() {
    let mut bench = Bench::exploring(exact());
    assert_eq!(bench.hint(at(15_200)), []);
    let mut bench = Bench::new(exact());
    let rank = |of: LocatorPair| if of == pair(1, 1) { Status::Dead } else { Status::Unknown };
    assert!(bench.reap.hint(at(0), &mut bench.rng, &rank, &mut bench.out));
    assert_eq!(only_probe(&bench.out).0, pair(2, 2));
    assert!(bench.out.contains(&Output::ExplorationStarted { reason: Reason::Hinted }));
    // Without that, the pair in use is the first to be tried.
    assert_eq!(only_probe(&Bench::new(exact()).hint(at(0))).0, pair(1, 1));
}
