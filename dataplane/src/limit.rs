//! What one source may cost the control core.

use crate::bucket::TokenBucket;
use crate::context::Hasher;
use crate::wire::ContextTag;

/// Buckets; sources whose hashes meet share one, which makes the limit stricter, never looser.
const BUCKETS: usize = 4096;

/// A rate per source /64 in bounded memory.
pub(crate) struct SourceLimiter {
    buckets: Box<[TokenBucket]>,
    hasher: Hasher,
}

impl SourceLimiter {
    /// `per_second` for each source, with bursts of a quarter of that. The key of `hasher` keeps strangers from choosing
    /// whom they share a bucket with.
    pub(crate) fn new(per_second: u32, hasher: Hasher) -> SourceLimiter {
        let bucket = TokenBucket::new(per_second, (per_second / 4).max(1));
        SourceLimiter { buckets: vec![bucket; BUCKETS].into_boxed_slice(), hasher }
    }

    /// Takes one from the source's share. `prefix` is the first half of its address, `now` in milliseconds.
    pub(crate) fn take(&mut self, prefix: u64, now: u64) -> bool {
        let hash = self.hasher.tag(ContextTag::truncate(prefix)) ^ self.hasher.tag(ContextTag::truncate(prefix >> 32));
        let place = (hash >> 20) as usize % BUCKETS;
        self.buckets.get_mut(place).is_some_and(|bucket| bucket.take(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_does_not_use_up_the_share_of_another() {
        let mut limiter = SourceLimiter::new(40, Hasher::new([5; 32]));
        let flood = (0..1000).filter(|_| limiter.take(0x2001_0db8_0001_0000, 0)).count();
        assert_eq!(flood, 10);
        let others = (2..100u64).filter(|n| limiter.take(0x2001_0db8_0000_0000 | n << 16, 0)).count();
        assert!(others >= 97, "{others} of 98");
    }
}
