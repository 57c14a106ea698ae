//! How long things took, sorted into powers of two: one writer, any number of readers, no lock.
//!
//! Two loads and two stores for each observation, all to lines that only the writer writes.

use std::sync::atomic::{AtomicU64, Ordering};

/// Sizes told apart: bucket `n` counts what took less than 2^(n + 8) nanoseconds, from 256 ns to more than half an hour.
pub const BUCKETS: usize = 34;

/// Nanoseconds below which the first bucket counts, as a power of two.
const FIRST: u32 = 8;

/// Times that something took.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: [const { AtomicU64::new(0) }; BUCKETS], sum: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Takes in one time in nanoseconds. There is one writer, so a load and a store are enough and no bus is locked.
    #[inline]
    pub fn observe(&self, nanos: u64) {
        let digits = u64::BITS - nanos.leading_zeros();
        let place = (digits.saturating_sub(FIRST) as usize).min(BUCKETS - 1);
        let count = &self.counts[place];
        count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.sum.store(self.sum.load(Ordering::Relaxed).wrapping_add(nanos), Ordering::Relaxed);
    }

    /// For each bucket, the nanoseconds below which it counts, and how many there were that the buckets before it do not count.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.counts.iter().enumerate().map(|(at, count)| (1 << (at as u32 + FIRST), count.load(Ordering::Relaxed)))
    }

    /// Sum of all times, in nanoseconds.
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_the_first_bucket_it_is_below() {
        let histogram = Histogram::default();
        let times = [0, 255, 256, 511, 512, 1_000_000, u64::MAX / 4];
        times.iter().for_each(|&nanos| histogram.observe(nanos));
        let filled: Vec<(u64, u64)> = histogram.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(256, 2), (512, 2), (1024, 1), (1 << 20, 1), (1 << 41, 1)]);
        assert_eq!(histogram.sum(), times.iter().sum::<u64>());
        // All but the last bucket are true to their bound.
        for nanos in [0u64, 1, 255, 256, 300, 70_000, 999_999_999] {
            let histogram = Histogram::default();
            histogram.observe(nanos);
            let (bound, _) = histogram.iter().find(|(_, count)| *count == 1).unwrap();
            assert!(nanos < bound && (bound == 256 || nanos >= bound / 2), "{nanos} in {bound}");
        }
    }
}
