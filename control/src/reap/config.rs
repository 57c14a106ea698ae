//! Constants and variables of RFC 5534 §7, and what the RFC leaves to the implementer.

use std::time::Duration;

use rand::Rng;

/// How a node runs REAP; one for all its contexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Send Timeout in seconds: how long outgoing payload may stay without any sign of life. A value other than 15 has
    /// to be told to every peer with a Keepalive Timeout option (RFC 5534 §5.3).
    pub send_timeout_s: u16,
    /// Keepalive Timeout in seconds, until the peer names another (§7).
    pub keepalive_timeout_s: u16,
    /// Keepalive Interval as a share of the Keepalive Timeout (§4.1: a third to a half).
    pub keepalive_interval: Fraction,
    /// Gap between the first probes (§7).
    pub initial_probe_timeout: Duration,
    /// Probes sent at that gap before it grows (§7).
    pub initial_probes: u32,
    /// The gap is multiplied by this after each further probe (§4.3).
    pub backoff: u32,
    /// The gap never exceeds this (§4.3).
    pub max_probe_timeout: Duration,
    /// Every timeout is shortened by a random share of up to this many percent, so that contexts and peers do not march
    /// in step (§4.1). Only shortened, since the RFC's bounds are upper bounds; but the Keepalive Interval, which has a
    /// lower one too, varies to both sides of it.
    pub jitter_percent: u8,
    /// Order in which pairs other than the current one are tried.
    pub order: Order,
    /// Whether fc00::/7 addresses are routed to the peers, and so may be probed (R5534-127).
    pub ula_routable: bool,
    /// Answers to probes, per context and second (R5534-120).
    pub answers_per_s: u32,
    /// Answers to probes that may leave at once (R5534-120).
    pub answers_burst: u32,
    /// Most sent reports, and most received reports, in an answer to a probe (R5534-120). 1 to 15.
    pub answer_reports: usize,
    /// Most sent reports, and most received reports, in a probe sent by the clock. 1 to 15.
    pub probe_reports: usize,
    /// Do not take Keepalives as a sign of life (R5534-110): right where IPsec promises protected return traffic.
    pub ignore_keepalives: bool,
    /// Accept probes whose first report names other addresses than their IPv6 header does: only behind a prefix
    /// translator (spec A9), and then pairs can be found but not trusted.
    pub tolerate_translation: bool,
}

/// A share, kept as two whole numbers so that a third of 15 s is 5 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// Above the line.
    pub numerator: u32,
    /// Below the line; not zero.
    pub denominator: u32,
}

/// Order in which pairs other than the current one are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As `Divergent`, but an end of the failed pair that others find well is kept, and one at which others fell silent
    /// is left first.
    Informed,
    /// Pairs that share neither end with the pair that failed come first: whichever provider broke, they avoid it.
    Divergent,
    /// Preferences alone.
    Preferred,
}

/// Why a configuration is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// RFC 5534 §7 recommends 10 s to 100 s.
    #[error("Send Timeout of {0} s is outside 10 s to 100 s (RFC 5534 section 7)")]
    SendTimeout(u16),
    /// Under 3 s there is no room for three Keepalives a second apart.
    #[error("Keepalive Timeout of {0} s is under 3 s")]
    KeepaliveTimeout(u16),
    /// RFC 5534 §4.1 recommends a third to a half.
    #[error("Keepalive Interval has to be a third to a half of the Keepalive Timeout (RFC 5534 section 4.1)")]
    KeepaliveInterval,
    /// Gaps have to be positive, and to grow up to their maximum (§4.3).
    #[error("probe timeouts have to grow from more than zero to their maximum (RFC 5534 section 4.3)")]
    ProbeTimeouts,
    /// More than half would make a mockery of the timeout.
    #[error("jitter of {0} % is over 50 %")]
    Jitter(u8),
    /// A probe carries 1 to 15 reports of each kind (§5.2).
    #[error("a probe carries 1 to 15 reports of each kind (RFC 5534 section 5.2)")]
    Reports,
    /// With no answers at all nobody could confirm a path.
    #[error("at least one answer per second has to be allowed")]
    Answers,
}

impl Config {
    /// Send Timeout and Keepalive Timeout unless configured or told otherwise (RFC 5534 §7).
    pub const DEFAULT_TIMEOUT_S: u16 = 15;
    /// A Keepalive Timeout option below this is taken as "use the default" (R5534-124).
    pub const KEEPALIVE_TIMEOUT_MIN_S: u16 = 3;

    /// Checks every bound that the machine relies on or the RFC recommends (R5534-104, -105).
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(10..=100).contains(&self.send_timeout_s) {
            return Err(ConfigError::SendTimeout(self.send_timeout_s));
        }
        if self.keepalive_timeout_s < Self::KEEPALIVE_TIMEOUT_MIN_S {
            return Err(ConfigError::KeepaliveTimeout(self.keepalive_timeout_s));
        }
        let Fraction { numerator, denominator } = self.keepalive_interval;
        let (numerator, denominator) = (u64::from(numerator), u64::from(denominator));
        if denominator == 0 || numerator * 3 < denominator || numerator * 2 > denominator {
            return Err(ConfigError::KeepaliveInterval);
        }
        let grows = self.backoff >= 2 && self.initial_probe_timeout <= self.max_probe_timeout;
        if self.initial_probe_timeout.is_zero() || !grows || self.initial_probes == 0 {
            return Err(ConfigError::ProbeTimeouts);
        }
        if self.jitter_percent > 50 {
            return Err(ConfigError::Jitter(self.jitter_percent));
        }
        if ![self.answer_reports, self.probe_reports].iter().all(|reports| (1..=15).contains(reports)) {
            return Err(ConfigError::Reports);
        }
        if self.answers_per_s == 0 || self.answers_burst == 0 {
            return Err(ConfigError::Answers);
        }
        Ok(())
    }

    /// What to tell peers in a Keepalive Timeout option; nothing while the default holds (R5534-068).
    pub fn announced_keepalive_timeout(&self) -> Option<u16> {
        (self.send_timeout_s != Self::DEFAULT_TIMEOUT_S).then_some(self.send_timeout_s)
    }

    /// Gap after the `sent`-th probe, before jitter: constant for the initial probes, then growing to the maximum.
    ///
    /// The first grown gap follows the fourth probe (spec A1, reading 1).
    pub(super) fn probe_gap(&self, sent: u32) -> Duration {
        let mut gap = self.initial_probe_timeout.min(self.max_probe_timeout);
        for _ in self.initial_probes..=sent {
            if gap >= self.max_probe_timeout || self.backoff < 2 {
                break;
            }
            gap = gap.saturating_mul(self.backoff).min(self.max_probe_timeout);
        }
        gap
    }

    /// A Keepalive Interval within a Keepalive Timeout of `timeout`: random to either side of the nominal one, and never
    /// outside a third to a half (R5534-019), which shortening alone would leave.
    pub(super) fn keepalive_gap(&self, timeout: Duration, rng: &mut dyn Rng) -> Duration {
        let nominal = self.keepalive_interval.of(timeout);
        let spread = nominal / 100 * u32::from(self.jitter_percent);
        let low = nominal.saturating_sub(spread).max(timeout / 3);
        let high = (nominal + spread).min(timeout / 2).max(low);
        let share = ((high - low).as_nanos() * u128::from(rng.next_u32())) >> 32;
        low + Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
    }

    /// `timeout` less a random share of up to `jitter_percent`.
    pub(super) fn jittered(&self, timeout: Duration, rng: &mut dyn Rng) -> Duration {
        if self.jitter_percent == 0 {
            return timeout;
        }
        let spread = timeout / 100 * u32::from(self.jitter_percent);
        // A 32-bit draw over a range of at most some hours: the bias is far below a microsecond.
        let cut = (spread.as_nanos() * u128::from(rng.next_u32())) >> 32;
        timeout.saturating_sub(Duration::from_nanos(u64::try_from(cut).unwrap_or(u64::MAX)))
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            send_timeout_s: Config::DEFAULT_TIMEOUT_S,
            keepalive_timeout_s: Config::DEFAULT_TIMEOUT_S,
            keepalive_interval: Fraction { numerator: 1, denominator: 3 },
            initial_probe_timeout: Duration::from_millis(500),
            initial_probes: 4,
            backoff: 2,
            max_probe_timeout: Duration::from_secs(60),
            jitter_percent: 10,
            order: Order::Informed,
            ula_routable: false,
            answers_per_s: 5,
            answers_burst: 10,
            answer_reports: 4,
            probe_reports: 15,
            ignore_keepalives: false,
            tolerate_translation: false,
        }
    }
}

impl Fraction {
    /// This share of `whole`.
    pub(super) fn of(self, whole: Duration) -> Duration {
        whole.saturating_mul(self.numerator) / self.denominator.max(1)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    // R5534-103, R5534-019
    #[test]
    fn defaults_are_those_of_section_7() {
        let config = Config::default();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!((config.send_timeout_s, config.keepalive_timeout_s), (15, 15));
        assert_eq!(config.keepalive_interval.of(Duration::from_secs(15)), Duration::from_secs(5));
        assert_eq!(config.announced_keepalive_timeout(), None);
    }

    // R5534-043, R5534-044, R5534-045, spec A1
    #[test]
    fn gaps_double_after_four_probes_and_stop_at_a_minute() {
        let config = Config::default();
        let seconds: Vec<f64> = (1..=13).map(|sent| config.probe_gap(sent).as_secs_f64()).collect();
        assert_eq!(seconds, [0.5, 0.5, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0]);
        assert_eq!(config.probe_gap(u32::MAX), Duration::from_secs(60));
    }

    // R5534-104, R5534-105, R5534-068
    #[test]
    fn send_timeout_is_kept_between_10_and_100_seconds_and_told_when_not_the_default() {
        let with = |send_timeout_s| Config { send_timeout_s, ..Config::default() };
        assert_eq!(with(5).validate(), Err(ConfigError::SendTimeout(5)));
        assert_eq!(with(101).validate(), Err(ConfigError::SendTimeout(101)));
        assert_eq!((with(10).validate(), with(100).validate()), (Ok(()), Ok(())));
        assert_eq!(with(20).announced_keepalive_timeout(), Some(20));
    }

    #[test]
    fn other_nonsense_is_refused() {
        let default = Config::default;
        let sixth = Fraction { numerator: 1, denominator: 6 };
        let none = Fraction { numerator: 0, denominator: 0 };
        let cases = [
            (Config { keepalive_interval: sixth, ..default() }, ConfigError::KeepaliveInterval),
            (Config { keepalive_interval: none, ..default() }, ConfigError::KeepaliveInterval),
            (Config { backoff: 1, ..default() }, ConfigError::ProbeTimeouts),
            (Config { initial_probe_timeout: Duration::ZERO, ..default() }, ConfigError::ProbeTimeouts),
            (Config { jitter_percent: 51, ..default() }, ConfigError::Jitter(51)),
            (Config { probe_reports: 16, ..default() }, ConfigError::Reports),
            (Config { answer_reports: 0, ..default() }, ConfigError::Reports),
            (Config { answers_burst: 0, ..default() }, ConfigError::Answers),
            (Config { keepalive_timeout_s: 2, ..default() }, ConfigError::KeepaliveTimeout(2)),
        ];
        for (config, error) in cases {
            assert_eq!(config.validate(), Err(error));
        }
    }

    // R5534-019, R5534-030
    #[test]
    fn keepalive_intervals_are_spread_and_stay_between_a_third_and_a_half() {
        let mut rng = StdRng::seed_from_u64(1);
        let whole = Duration::from_secs(15);
        for (numerator, denominator, low, high) in [(1, 3, 5_000, 5_500), (2, 5, 5_400, 6_600), (1, 2, 6_750, 7_500)] {
            let keepalive_interval = Fraction { numerator, denominator };
            let config = Config { keepalive_interval, ..Config::default() };
            let draws: Vec<Duration> = (0..200).map(|_| config.keepalive_gap(whole, &mut rng)).collect();
            let (low, high) = (Duration::from_millis(low), Duration::from_millis(high));
            assert!(draws.iter().all(|draw| (low..=high).contains(draw)), "{low:?} to {high:?}");
            assert!(*draws.iter().max().unwrap() - *draws.iter().min().unwrap() > (high - low) / 2);
        }
        let exact = Config { jitter_percent: 0, ..Config::default() };
        assert_eq!(exact.keepalive_gap(whole, &mut rng), Duration::from_secs(5));
    }

    // R5534-030
    #[test]
    fn jitter_only_shortens_and_spreads() {
        let mut rng = StdRng::seed_from_u64(1);
        let config = Config::default();
        let whole = Duration::from_secs(15);
        let draws: Vec<Duration> = (0..100).map(|_| config.jittered(whole, &mut rng)).collect();
        assert!(draws.iter().all(|draw| *draw <= whole && *draw >= Duration::from_millis(13_500)));
        let (low, high) = (draws.iter().min().unwrap(), draws.iter().max().unwrap());
        assert!(*high - *low > Duration::from_secs(1), "{low:?}..{high:?}");
    }
}
