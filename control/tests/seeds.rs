//! Many short lives of small worlds in which everything random goes wrong, each from its own seed. Whatever happened,
//! once the network works again so do the sessions, and nobody has done anything that must not be done. `scripts/soak`
//! lives many more, and `scripts/soak --mutants` shows that they find what is wrong.

use control::sim::life::{self, Report};
use control::sim::{Fault, Faults};

/// How many lives.
const SEEDS: u64 = 100;
/// Seeds that found something once.
const KNOWN: &[u64] = &[2828, 3851, 6243, 19741, 86714, 17997, 49085, 65362];

#[test]
fn whatever_happened_sessions_come_back() {
    let mut faults = Faults::default();
    for seed in (0..SEEDS).chain(KNOWN.iter().copied()) {
        let Report { violations, faults: injected, .. } = life::live(seed);
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
        faults.add(&injected);
    }
    // A kind of fault that never happens finds nothing.
    let never: Vec<Fault> = Fault::ALL.iter().copied().filter(|fault| faults.of(*fault) == 0).collect();
    assert_eq!(never, []);
}

#[test]
fn the_same_seed_is_the_same_life() {
    for seed in [1, 2, 3] {
        let ((report, one), (_, other)) = (life::tell(seed), life::tell(seed));
        assert!(one.len() > 100);
        for (at, (one, other)) in one.iter().zip(&other).enumerate() {
            assert_eq!(one, other, "seed {seed}, line {at}");
        }
        assert_eq!(one.len(), other.len());
        // Nor does it matter whether somebody looks on.
        assert_eq!((report.faults, report.moved), (life::live(seed).faults, life::live(seed).moved));
    }
}
