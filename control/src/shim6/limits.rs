//! How much strangers can make us send (decision D36, R5533-323).
//!
//! Each kind of answer has one token bucket for everybody, one for each source /64 prefix, and one for each /48, which gets a
//! quarter of what there is for everybody: whoever has a /48 has 65,536 prefixes, and must not use up what is for others. The
//! prefixes share tables of fixed size: two that fall on the same slot share a bucket, which can only make us send less.
//! Memory is therefore constant whatever is thrown at us, and the slot of a prefix depends on a key nobody knows.

use std::hash::{DefaultHasher, Hasher};
use std::net::Ipv6Addr;
use std::time::Duration;

use super::config::{Limits, Pair};
use crate::time::Instant;

/// Tokens a second, and how many can be saved up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Packets a second.
    pub per_second: u32,
    /// Packets at once after a silence.
    pub burst: u32,
}

impl Rate {
    /// From packets a second and packets at once.
    pub const fn new(per_second: u32, burst: u32) -> Rate {
        Rate { per_second, burst }
    }
}

/// The kinds of answers that are limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    R1,
    R1bis,
    R2,
    Error,
}

/// One bucket for all and many for prefixes, for each kind.
pub(super) struct Limiter {
    key: u64,
    r1: Buckets,
    r1bis: Buckets,
    r2: Buckets,
    error: Buckets,
}

impl Limiter {
    /// Slots for prefixes in each table.
    const SLOTS: usize = 1024;

    /// `key` must be secret, or strangers can choose whose bucket they empty.
    pub(super) fn new(limits: &Limits, key: u64) -> Limiter {
        let buckets = |pair| Buckets::new(pair, Self::SLOTS);
        Limiter {
            key,
            r1: buckets(limits.r1),
            r1bis: buckets(limits.r1bis),
            r2: buckets(limits.r2),
            error: buckets(limits.error),
        }
    }

    /// Whether an answer of this kind to `source` may be sent now; if so it has been paid for.
    pub(super) fn allow(&mut self, now: Instant, kind: Kind, source: Ipv6Addr) -> bool {
        self.allow_leaving(0, now, kind, source)
    }

    /// The same if so many quarters of what can be saved up are left for those who need it more, in each bucket.
    pub(super) fn allow_leaving(&mut self, quarters: u32, now: Instant, kind: Kind, source: Ipv6Addr) -> bool {
        let slots = [self.slot(source, 64), self.slot(source, 80)];
        let buckets = match kind {
            Kind::R1 => &mut self.r1,
            Kind::R1bis => &mut self.r1bis,
            Kind::R2 => &mut self.r2,
            Kind::Error => &mut self.error,
        };
        buckets.allow(now, slots, quarters)
    }

    /// The slot of the prefix without so many bits at the end.
    fn slot(&self, source: Ipv6Addr, host_bits: u32) -> usize {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.key ^ u64::from(host_bits));
        hasher.write_u64((source.to_bits() >> host_bits) as u64);
        (hasher.finish() % Self::SLOTS as u64) as usize
    }
}

struct Buckets {
    rates: Pair,
    /// Of each /48.
    site: Rate,
    total: Bucket,
    sites: Vec<Bucket>,
    prefixes: Vec<Bucket>,
}

/// What a /48 may have of what is there for all.
const SITE_SHARE: u32 = 4;

impl Buckets {
    fn new(rates: Pair, slots: usize) -> Buckets {
        let share = |of: fn(Rate) -> u32| of(rates.total).div_ceil(SITE_SHARE).max(of(rates.prefix));
        let site = Rate::new(share(|rate| rate.per_second), share(|rate| rate.burst));
        let (sites, prefixes) = (vec![Bucket::full(site); slots], vec![Bucket::full(rates.prefix); slots]);
        Buckets { rates, site, total: Bucket::full(rates.total), sites, prefixes }
    }

    fn allow(&mut self, now: Instant, [prefix, site]: [usize; 2], quarters: u32) -> bool {
        let (Some(prefix), Some(site)) = (self.prefixes.get_mut(prefix), self.sites.get_mut(site)) else {
            return false;
        };
        // Who has used up a share of their own must not eat from everybody's.
        prefix.refill(now, self.rates.prefix);
        site.refill(now, self.site);
        self.total.refill(now, self.rates.total);
        let rates = [self.rates.prefix, self.site, self.rates.total];
        let mut buckets = [prefix, site, &mut self.total];
        let allowed = buckets.iter().zip(rates).all(|(bucket, rate)| bucket.has_token(rate, quarters));
        if allowed {
            buckets.iter_mut().for_each(|bucket| bucket.take());
        }
        allowed
    }
}

/// Tokens in nanoseconds of saved-up time times rate, so that no refill is lost to rounding.
#[derive(Clone, Copy)]
struct Bucket {
    level: u64,
    refilled: Instant,
}

impl Bucket {
    const TOKEN: u64 = 1_000_000_000;

    fn full(rate: Rate) -> Bucket {
        Bucket { level: u64::from(rate.burst) * Self::TOKEN, refilled: Instant::START }
    }

    fn refill(&mut self, now: Instant, rate: Rate) {
        let passed = now.since(self.refilled).min(Duration::from_secs(3600));
        let gained = (passed.as_nanos() as u64).saturating_mul(u64::from(rate.per_second));
        self.level = self.level.saturating_add(gained).min(u64::from(rate.burst) * Self::TOKEN);
        self.refilled = self.refilled.max(now);
    }

    /// Whether there is a token besides so many quarters of the burst, of which one is never held back.
    fn has_token(&self, rate: Rate, quarters: u32) -> bool {
        let kept = u64::from(rate.burst) * Self::TOKEN / 4 * u64::from(quarters);
        let most = u64::from(rate.burst.max(1) - 1) * Self::TOKEN;
        self.level >= Self::TOKEN + kept.min(most)
    }

    fn take(&mut self) {
        self.level -= Self::TOKEN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter() -> Limiter {
        let pair = Pair { prefix: Rate::new(10, 5), total: Rate::new(20, 8) };
        Limiter::new(&Limits { r1: pair, r1bis: pair, r2: pair, error: pair }, 7)
    }

    fn source(prefix: u16, host: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, prefix, 0, 0, 0, host)
    }

    fn granted(limiter: &mut Limiter, now: Instant, kind: Kind, source: impl Fn(u16) -> Ipv6Addr) -> usize {
        (0..100).filter(|i| limiter.allow(now, kind, source(*i))).count()
    }

    #[test]
    fn a_prefix_gets_its_burst_and_then_its_rate_whatever_host_part_it_uses() {
        // R5533-323
        let mut limiter = limiter();
        assert_eq!(granted(&mut limiter, Instant::START, Kind::R1, |i| source(1, i)), 5);
        assert_eq!(granted(&mut limiter, Instant::from_millis(300), Kind::R1, |i| source(1, i)), 3);
    }

    #[test]
    fn all_prefixes_together_stay_below_the_total() {
        // R5533-323
        let mut limiter = limiter();
        let spread = |i| Ipv6Addr::new(0x2001, 0xdb8, i, 0, 0, 0, 0, 1);
        assert_eq!(granted(&mut limiter, Instant::START, Kind::R1bis, spread), 8);
        assert_eq!(granted(&mut limiter, Instant::from_millis(100), Kind::R1bis, spread), 2);
    }

    #[test]
    fn a_site_gets_a_quarter_of_all_whatever_its_prefixes_do() {
        // R5533-323
        let pair = Pair { prefix: Rate::new(10, 5), total: Rate::new(400, 80) };
        let mut limiter = Limiter::new(&Limits { r1: pair, r1bis: pair, r2: pair, error: pair }, 7);
        let of = |site: u16| move |i| Ipv6Addr::new(0x2001, 0xdb8, site, i, 0, 0, 0, 1);
        assert_eq!(granted(&mut limiter, Instant::START, Kind::R1, of(1)), 20);
        assert_eq!(granted(&mut limiter, Instant::START, Kind::R1, of(2)), 20, "and leaves the others theirs");
        assert_eq!(granted(&mut limiter, Instant::from_millis(100), Kind::R1, of(1)), 10);
    }

    #[test]
    fn kinds_do_not_eat_from_each_other() {
        let mut limiter = limiter();
        assert_eq!(granted(&mut limiter, Instant::START, Kind::R1, |i| source(1, i)), 5);
        assert_eq!(granted(&mut limiter, Instant::START, Kind::Error, |i| source(1, i)), 5);
        assert_eq!(granted(&mut limiter, Instant::START, Kind::R2, |i| source(1, i)), 5);
    }

    #[test]
    fn who_needs_it_less_leaves_some_and_gets_the_whole_rate_when_nobody_else_asks() {
        let pair = Pair { prefix: Rate::new(100, 100), total: Rate::new(400, 400) };
        let mut limiter = Limiter::new(&Limits { r1: pair, r1bis: pair, r2: pair, error: pair }, 7);
        let mut granted = |ms, quarters| {
            let now = Instant::from_millis(ms);
            (0..1000).filter(|i| limiter.allow_leaving(quarters, now, Kind::R1bis, source(1, *i))).count()
        };
        assert_eq!((granted(0, 2), granted(0, 1), granted(0, 0)), (50, 25, 25));
        assert_eq!((granted(100, 2), granted(100, 1), granted(100, 0)), (0, 0, 10));
        // What is spared fills up again to where they may take it, and from then on they get all.
        assert_eq!((granted(600, 2), granted(700, 2), granted(800, 2)), (0, 10, 10));
        let one = Pair { prefix: Rate::new(1, 1), total: Rate::new(1, 1) };
        let mut limiter = Limiter::new(&Limits { r1: one, r1bis: one, r2: one, error: one }, 7);
        assert!(limiter.allow_leaving(2, Instant::START, Kind::R1bis, source(1, 1)), "one is for anybody");
    }

    #[test]
    fn a_long_silence_saves_up_no_more_than_the_burst() {
        let mut limiter = limiter();
        let late = Instant::from_millis(1_000_000_000_000);
        assert_eq!(granted(&mut limiter, late, Kind::R1, |i| source(1, i)), 5);
    }
}
