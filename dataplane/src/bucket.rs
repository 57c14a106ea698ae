//! A token bucket that is told the time.

/// Allows a rate with bursts.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    /// Thousandths of a token.
    level: u64,
    per_second: u64,
    burst: u64,
    last_ms: u64,
}

impl TokenBucket {
    /// Full at first. `per_second` tokens come back each second, `burst` is the most there can be.
    pub fn new(per_second: u32, burst: u32) -> TokenBucket {
        let burst = u64::from(burst) * 1000;
        TokenBucket { level: burst, per_second: per_second.into(), burst, last_ms: 0 }
    }

    /// Takes a token if there is one. `now` is in milliseconds and does not run backwards; if it does, nothing comes back.
    #[inline]
    pub fn take(&mut self, now: u64) -> bool {
        // A rate of n per second is n thousandths per millisecond.
        let back = now.saturating_sub(self.last_ms).saturating_mul(self.per_second);
        self.last_ms = self.last_ms.max(now);
        self.level = self.level.saturating_add(back).min(self.burst);
        if self.level < 1000 {
            return false;
        }
        self.level -= 1000;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = TokenBucket::new(10, 5);
        let mut taken = |ms| (0..100).filter(|_| bucket.take(ms)).count();
        assert_eq!(taken(0), 5);
        assert_eq!(taken(100), 1);
        assert_eq!(taken(50), 0, "time that runs backwards gives nothing");
        assert_eq!(taken(100_000), 5);
    }
}
