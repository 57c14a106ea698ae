//! In which order pairs are tried (RFC 5534 §4.3): all of them, none for ever last, and the likely ones first.

use proptest::prelude::*;

use super::*;
use crate::reap::sightings::Condition::{self, Failing, Unknown, Well};

const CONDITIONS: [Condition; 3] = [Well, Unknown, Failing];
const STATUSES: [Status; 4] = [Status::Working, Status::Unknown, Status::Suspect, Status::Dead];
const ORDERS: [Order; 3] = [Order::Informed, Order::Divergent, Order::Preferred];

/// Numbers of the locators of the pairs probed by an exploration that nobody answers, in order.
fn round(order: Order, [ours, theirs]: [u16; 2], current: (u16, u16), ends: Ends, probes: usize) -> Vec<(u16, u16)> {
    let (local, peer): (Vec<_>, Vec<_>) = ((1..=ours).map(a).collect(), (1..=theirs).map(b).collect());
    let config = Arc::new(Config { order, ..exact() });
    let mut reap = Reap::new(&config, pair(current.0, current.1), locals(&local), peers(&peer));
    let (mut rng, mut out) = (StdRng::seed_from_u64(1), Vec::new());
    reap.payload_out(at(0), &mut rng, &mut out);
    reap.advise(ends);
    while out.iter().filter(|it| matches!(it, Output::SendProbe { .. })).count() < probes {
        let due = reap.deadline().unwrap();
        reap.expire(due, &mut rng, &mut out);
    }
    let number = |locator: Locator| locator.0.segments()[3];
    self::probes(&out).iter().map(|(pair, ..)| (number(pair.local), number(pair.peer))).collect()
}

// R5534-041
#[test]
fn every_round_tries_every_pair_once_whatever_is_known() {
    for (ours, theirs) in [(1, 1), (1, 4), (2, 2), (3, 2), (4, 4)] {
        let all = usize::from(ours * theirs);
        for order in ORDERS {
            for (local, peer) in CONDITIONS.iter().flat_map(|local| CONDITIONS.map(|peer| (*local, peer))) {
                let tried = round(order, [ours, theirs], (1, theirs), Ends { local, peer, ..Ends::default() }, 2 * all);
                for turn in tried.chunks(all) {
                    let mut sorted = turn.to_vec();
                    sorted.sort_unstable();
                    sorted.dedup();
                    assert_eq!(sorted.len(), all, "{order:?} {local:?} {peer:?}: {tried:?}");
                }
            }
        }
    }
}

proptest! {
    // R5534-041: news may change the order at any time, and still nothing starves.
    #[test]
    fn news_in_between_lets_no_pair_starve(
        news in prop::collection::vec((any::<u64>(), 0..3usize, 0..3usize, any::<bool>()), 200),
        order in 0..3usize,
    ) {
        let config = Config { order: ORDERS[order], ..exact() };
        let (local, peer) = ([1, 2, 3].map(a), [1, 2, 3].map(b));
        let mut reap = Reap::new(&Arc::new(config), pair(1, 1), locals(&local), peers(&peer));
        let (mut rng, mut out) = (StdRng::seed_from_u64(1), Vec::new());
        reap.payload_out(at(0), &mut rng, &mut out);
        let mut last = [0usize; 9];
        let mut sent = 0;
        for (bits, local, peer, suspected) in news {
            reap.advise(Ends { local: CONDITIONS[local], peer: CONDITIONS[peer], ..Ends::default() });
            let rank = |on: LocatorPair| {
                let place = (on.local.0.segments()[3] - 1) * 3 + on.peer.0.segments()[3] - 1;
                STATUSES[(bits >> (2 * place)) as usize % 4]
            };
            match suspected {
                true => reap.suspect(reap.deadline().unwrap(), &mut rng, &rank, &mut out),
                false => reap.reorder(&rank),
            }
            out.clear();
            let due = reap.deadline().unwrap();
            reap.expire(due, &mut rng, &mut out);
            for (on, ..) in probes(&out) {
                sent += 1;
                last[usize::from((on.local.0.segments()[3] - 1) * 3 + on.peer.0.segments()[3] - 1)] = sent;
            }
            // A round and whatever was left of the one before.
            prop_assert!(sent < 18 || last.iter().all(|last| last + 18 > sent), "{last:?} of {sent}");
        }
    }
}

/// What broke.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Local,
    Peer,
    Both,
    Path,
}

impl Fault {
    /// Whether a pair works after it, when `current` was in use.
    fn spares(self, (local, peer): (u16, u16), current: (u16, u16)) -> bool {
        match self {
            Fault::Local => local != current.0,
            Fault::Peer => peer != current.1,
            Fault::Both => local != current.0 && peer != current.1,
            Fault::Path => (local, peer) != current,
        }
    }

    /// What others know of the two ends, if there are others.
    fn ends(self) -> Ends {
        let (local, peer) = match self {
            Fault::Local => (Failing, Well),
            Fault::Peer => (Well, Failing),
            Fault::Both => (Failing, Failing),
            Fault::Path => (Well, Well),
        };
        Ends { local, peer, path: Failing }
    }
}

/// Probes until the first that works, on average over all pairs that may be in use and all single further failures of a
/// pair: what is broken is rarely all that is.
fn mean_probes(order: Order, fault: Fault, ends: Ends, size: u16) -> f64 {
    let all: Vec<(u16, u16)> = (1..=size).flat_map(|ours| (1..=size).map(move |theirs| (ours, theirs))).collect();
    let (mut sum, mut cases) = (0, 0);
    for current in all.iter().copied() {
        let tried = round(order, [size, size], current, ends, all.len());
        for broken in std::iter::once(None).chain(all.iter().copied().map(Some)) {
            let works = |pair: &(u16, u16)| fault.spares(*pair, current) && Some(*pair) != broken;
            if let Some(place) = tried.iter().position(works) {
                (sum, cases) = (sum + place + 1, cases + 1);
            }
        }
    }
    sum as f64 / f64::from(cases)
}

/// The figures of docs/exploration.md.
#[test]
fn who_knows_more_needs_fewer_probes() {
    println!("| locators | fault | preferred | divergent | informed |");
    for size in [2, 3, 4] {
        for fault in [Fault::Local, Fault::Peer, Fault::Both, Fault::Path] {
            let [informed, divergent, preferred] = ORDERS.map(|order| mean_probes(order, fault, fault.ends(), size));
            println!("| {size} × {size} | {fault:?} | {preferred:.2} | {divergent:.2} | {informed:.2} |");
            assert!(informed < divergent, "{fault:?}: {informed} and {divergent}");
            assert!(divergent < preferred || matches!(fault, Fault::Path), "{fault:?}: {divergent} and {preferred}");
            // Who knows nothing is no worse off than who does not ask.
            let blind = mean_probes(Order::Informed, fault, Ends::default(), size);
            assert_eq!(blind, divergent);
        }
    }
}

/// Knowledge may be wrong: then it costs probes, and nothing is missed.
#[test]
fn wrong_knowledge_costs_a_bounded_number_of_probes() {
    for fault in [Fault::Local, Fault::Peer, Fault::Both, Fault::Path] {
        for (local, peer) in CONDITIONS.iter().flat_map(|local| CONDITIONS.map(|peer| (*local, peer))) {
            let tried = round(Order::Informed, [3, 3], (1, 1), Ends { local, peer, ..Ends::default() }, 9);
            let place = tried.iter().position(|pair| fault.spares(*pair, (1, 1))).unwrap();
            assert!(place < 6, "{fault:?} taken for {local:?} {peer:?}: {place}");
        }
    }
}

/// A pair that was not worth a probe has failed all the same, once another one has answered: else nobody would be told.
#[test]
fn a_pair_left_without_a_probe_is_reported_when_another_answers() {
    let mut bench = Bench::new(exact());
    bench.payload_out(at(0));
    bench.reap.advise(Ends { path: Failing, ..Ends::default() });
    let (on, _, report) = only_probe(&bench.expire(at(15_000)));
    assert_eq!(on, pair(2, 2));
    let out = bench.probe(at(15_100), pair(2, 2), State::InboundOk, &[report]);
    assert!(out.contains(&Output::Failed { pair: pair(1, 1), probed: at(15_000) }), "{out:?}");
    assert!(out.contains(&Output::PairChanged { from: pair(1, 1), to: pair(2, 2) }));
}
