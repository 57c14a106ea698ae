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
        self.take_leaving(0, now)
    }

    /// The same if so many quarters of the burst are left for those who need it more; one token is for anybody.
    #[inline]
    pub fn take_leaving(&mut self, quarters: u64, now: u64) -> bool {
        // A rate of n per second is n thousandths per millisecond.
        let back = now.saturating_sub(self.last_ms).saturating_mul(self.per_second);
        self.last_ms = self.last_ms.max(now);
        self.level = self.level.saturating_add(back).min(self.burst);
        let kept = (self.burst / 4 * quarters).min(self.burst.saturating_sub(1000));
        if self.level < 1000 + kept {
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

    #[test]
    fn who_needs_it_less_leaves_some() {
        let mut bucket = TokenBucket::new(10, 8);
        let mut taken = |quarters, ms| (0..100).filter(|_| bucket.take_leaving(quarters, ms)).count();
        assert_eq!((taken(2, 0), taken(1, 0), taken(0, 0)), (4, 2, 2));
        assert_eq!(
            (taken(1, 200), taken(1, 300), taken(1, 400)),
            (0, 1, 1),
            "and has the whole rate when nobody else asks"
        );
        assert!(TokenBucket::new(1, 1).take_leaving(2, 0), "one is for anybody");
    }
}
