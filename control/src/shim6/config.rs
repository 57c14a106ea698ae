//! The numbers an operator may change (RFC 5533 §14, §2.3), within what the RFC lets them be.

use std::time::Duration;

use super::limits::Rate;

/// Everything about the protocol that can be set from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// I1_TIMEOUT: nominal wait before the first retransmission of an I1.
    pub i1_timeout: Duration,
    /// I1_RETRIES_MAX: retransmissions of an I1, so one more I1 than this is sent.
    pub i1_retries_max: u32,
    /// NO_R1_HOLDDOWN_TIME: how long a pair that did not answer is left alone. At most one minute.
    pub no_r1_holddown: Duration,
    /// ICMP_HOLDDOWN_TIME: how long a peer that does not speak Shim6 is left alone. At most ten minutes.
    pub icmp_holddown: Duration,
    /// I2_TIMEOUT.
    pub i2_timeout: Duration,
    /// I2_RETRIES_MAX.
    pub i2_retries_max: u32,
    /// I2bis_TIMEOUT.
    pub i2bis_timeout: Duration,
    /// I2bis_RETRIES_MAX.
    pub i2bis_retries_max: u32,
    /// VALIDATOR_MIN_LIFETIME: validators up to this age are accepted. At least 30 seconds.
    pub validator_lifetime: Duration,
    /// How often the validator secret changes (§16.2); validators of the previous one stay good for their lifetime.
    pub secret_lifetime: Duration,
    /// UPDATE_TIMEOUT.
    pub update_timeout: Duration,
    /// MAX_UPDATE_TIMEOUT: ceiling of the nominal wait between Update Requests.
    pub update_timeout_max: Duration,
    /// Quiet time after which an established context is forgotten (§9). At least five minutes.
    pub idle: Duration,
    /// How long the addresses and tags of a host that is gone are kept from other hosts (§1.5). Longer than `idle`, which
    /// is how long a peer like us keeps a context that it does not use, and at least the lifetime of validators.
    pub quarantine: Duration,
    /// Shortest time between an I2 or I2bis and one sent again because the peer's packets show it is established.
    pub resend_interval: Duration,
    /// Most contexts at any time.
    pub contexts_max: usize,
    /// Most forked contexts of one ULID pair while peers may ask for another.
    pub forks_max: usize,
    /// Most contexts accepted from one /64, in percent of `contexts_max`, but never fewer than 64.
    pub accepted_per_prefix_percent: u8,
    /// What only contexts that we initiate may use, in percent of `contexts_max`.
    pub initiated_reserve_percent: u8,
    /// How long an accepted context that nobody uses stays at least, when space is short. Longer than workers take to
    /// report what they saw.
    pub unused_min: Duration,
    /// Most pairs and peers remembered as unanswering; the one to be forgotten first makes room.
    pub holddowns_max: usize,
    /// Whether a peer that does not speak Shim6 is left alone by all local ULIDs, not only the one that asked (D23).
    pub share_no_support: bool,
    /// Whether a locator of a host may be the ULID of a context, for peers that know no other name for the host.
    pub routable_ulids: bool,
    /// What becomes of a context whose peer gave its tag to another one (§7.15).
    pub confusion: ConfusionPolicy,
    /// Seconds announced to peers as Keepalive Timeout (RFC 5534 §5.3); absent while ours is the default.
    pub keepalive_timeout: Option<u16>,
    /// Workers that share the flow labels offered to peers; absent while none is offered.
    pub flow_labels: Option<u8>,
    /// Whether contexts are offered to come in UDP where a path drops Shim6.
    pub udp: bool,
    /// Whether liveness of the paths of contexts is offered to be exchanged.
    pub liveness: bool,
    /// Whether messages that would be dropped in silence are answered by an Error with code 120 (§5.14).
    pub debug_errors: bool,
    /// Limits on what strangers can make us send (D36).
    pub limits: Limits,
}

/// What becomes of the old context in a confusion; either way it sends nothing more (RFC 5533 §7.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfusionPolicy {
    /// It goes.
    Discard,
    /// It is established anew by an I1.
    Reestablish,
}

/// Rates for each kind of stateless answer, for one source /64 prefix and for all together.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// R1.
    pub r1: Pair,
    /// R1bis.
    pub r1bis: Pair,
    /// R2 in answer to I1.
    pub r2: Pair,
    /// Error.
    pub error: Pair,
}

/// A rate for one source prefix and one for everybody.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// For one /64.
    pub prefix: Rate,
    /// For all sources together.
    pub total: Rate,
}

/// A setting the RFC does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// §7.8 calls it a maximum.
    #[error("no_r1_holddown is more than 1 minute (RFC 5533 §7.8)")]
    NoR1Holddown,
    /// §7.8 calls it a maximum.
    #[error("icmp_holddown is more than 10 minutes (RFC 5533 §7.8)")]
    IcmpHolddown,
    /// §7.13.
    #[error("validator_lifetime is less than 30 seconds (RFC 5533 §14)")]
    ValidatorLifetime,
    /// A secret must outlive the validators made with it.
    #[error("secret_lifetime is less than validator_lifetime")]
    SecretLifetime,
    /// §9.
    #[error("idle is less than 5 minutes (RFC 5533 §9)")]
    Idle,
    /// Peers may have contexts for that long.
    #[error("quarantine is shorter than idle or validator_lifetime")]
    Quarantine,
    /// A zero wait would make a retransmission storm.
    #[error("a retransmission timeout is zero")]
    ZeroTimeout,
    /// §10.2.
    #[error("update_timeout_max is less than update_timeout")]
    UpdateCeiling,
    /// Nothing has more parts than a hundred in a hundred.
    #[error("a share is more than 100 percent")]
    Share,
}

impl Config {
    /// Refuses what the RFC does not allow.
    pub fn check(&self) -> Result<(), ConfigError> {
        let timeouts = [self.i1_timeout, self.i2_timeout, self.i2bis_timeout, self.update_timeout];
        if self.no_r1_holddown > Duration::from_secs(60) {
            Err(ConfigError::NoR1Holddown)
        } else if self.icmp_holddown > Duration::from_secs(600) {
            Err(ConfigError::IcmpHolddown)
        } else if self.validator_lifetime < Duration::from_secs(30) {
            Err(ConfigError::ValidatorLifetime)
        } else if self.secret_lifetime < self.validator_lifetime {
            Err(ConfigError::SecretLifetime)
        } else if self.idle < Duration::from_secs(300) {
            Err(ConfigError::Idle)
        } else if self.quarantine <= self.idle || self.quarantine < self.validator_lifetime {
            Err(ConfigError::Quarantine)
        } else if timeouts.iter().any(Duration::is_zero) {
            Err(ConfigError::ZeroTimeout)
        } else if self.update_timeout_max < self.update_timeout {
            Err(ConfigError::UpdateCeiling)
        } else if self.accepted_per_prefix_percent.max(self.initiated_reserve_percent) > 100 {
            Err(ConfigError::Share)
        } else {
            Ok(())
        }
    }

    /// Contexts that one /64 may have asked for.
    pub(super) fn accepted_per_prefix_max(&self) -> usize {
        self.share(self.accepted_per_prefix_percent).max(64)
    }

    /// Contexts that only we may initiate.
    pub(super) fn initiated_reserve(&self) -> usize {
        self.share(self.initiated_reserve_percent)
    }

    fn share(&self, percent: u8) -> usize {
        self.contexts_max / 100 * usize::from(percent) + self.contexts_max % 100 * usize::from(percent) / 100
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            i1_timeout: Duration::from_secs(4),
            i1_retries_max: 4,
            no_r1_holddown: Duration::from_secs(60),
            icmp_holddown: Duration::from_secs(600),
            i2_timeout: Duration::from_secs(4),
            i2_retries_max: 2,
            i2bis_timeout: Duration::from_secs(4),
            i2bis_retries_max: 2,
            validator_lifetime: Duration::from_secs(30),
            secret_lifetime: Duration::from_secs(3600),
            update_timeout: Duration::from_secs(4),
            update_timeout_max: Duration::from_secs(120),
            idle: Duration::from_secs(300),
            quarantine: Duration::from_secs(900),
            resend_interval: Duration::from_secs(1),
            contexts_max: 1 << 20,
            forks_max: 4,
            accepted_per_prefix_percent: 50,
            initiated_reserve_percent: 12,
            unused_min: Duration::from_secs(5),
            holddowns_max: 1 << 16,
            share_no_support: true,
            routable_ulids: true,
            confusion: ConfusionPolicy::Discard,
            keepalive_timeout: None,
            flow_labels: None,
            udp: false,
            liveness: false,
            debug_errors: false,
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    /// Thousands a second for handshakes, since a whole peer site may stand behind a few prefixes; fewer for Errors.
    fn default() -> Limits {
        let handshakes = Pair { prefix: Rate::new(2_000, 4_000), total: Rate::new(20_000, 20_000) };
        let errors = Pair { prefix: Rate::new(10, 20), total: Rate::new(1_000, 1_000) };
        Limits { r1: handshakes, r1bis: handshakes, r2: handshakes, error: errors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_constants_of_section_14() {
        let config = Config::default();
        // R5533-300
        assert_eq!((config.i1_retries_max, config.i1_timeout), (4, Duration::from_secs(4)));
        assert_eq!(config.no_r1_holddown, Duration::from_secs(60));
        assert_eq!(config.icmp_holddown, Duration::from_secs(600));
        // R5533-301
        assert_eq!((config.i2_retries_max, config.i2_timeout), (2, Duration::from_secs(4)));
        assert_eq!((config.i2bis_retries_max, config.i2bis_timeout), (2, Duration::from_secs(4)));
        // R5533-302
        assert_eq!(config.validator_lifetime, Duration::from_secs(30));
        assert_eq!(config.update_timeout, Duration::from_secs(4));
        assert_eq!(config.update_timeout_max, Duration::from_secs(120));
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn what_the_rfc_bounds_cannot_be_set_beyond() {
        // R5533-009, R5533-145, R5533-147, R5533-177, R5533-246
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check()
        };
        assert_eq!(with(|c| c.no_r1_holddown += Duration::from_secs(1)), Err(ConfigError::NoR1Holddown));
        assert_eq!(with(|c| c.icmp_holddown += Duration::from_secs(1)), Err(ConfigError::IcmpHolddown));
        assert_eq!(with(|c| c.validator_lifetime = Duration::from_secs(29)), Err(ConfigError::ValidatorLifetime));
        assert_eq!(with(|c| c.secret_lifetime = Duration::from_secs(29)), Err(ConfigError::SecretLifetime));
        assert_eq!(with(|c| c.idle = Duration::from_secs(299)), Err(ConfigError::Idle));
        assert_eq!(with(|c| c.i2_timeout = Duration::ZERO), Err(ConfigError::ZeroTimeout));
        assert_eq!(with(|c| c.update_timeout_max = Duration::from_secs(3)), Err(ConfigError::UpdateCeiling));
        assert_eq!(with(|c| c.initiated_reserve_percent = 101), Err(ConfigError::Share));
        assert_eq!(with(|c| c.accepted_per_prefix_percent = 101), Err(ConfigError::Share));
        assert_eq!(with(|c| c.idle = Duration::from_secs(3600)), Err(ConfigError::Quarantine));
        assert_eq!(with(|c| (c.idle, c.quarantine) = (2 * c.idle, 3 * c.idle)), Ok(()));
    }
}
