//! Responder validators (RFC 5533 §7.10.1, §7.17.1): state kept by the peer instead of by us.
//!
//! The responder nonce is a running counter of ticks, so its age is known without memory. The validator is a keyed
//! hash (HMAC-SHA-256, cut to 20 octets) over the nonce and what the answer to it must repeat. The key of a nonce
//! belongs to the period it was made in and is derived from one master secret: keys change periodically (§16.2), and
//! those of past periods are at hand for as long as a nonce of theirs is young enough.

use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::wire::shim6::Addresses;
use dataplane::wire::{ContextTag, UlidPair};
use ring::hmac;

use super::config::Config;
use crate::time::Instant;

/// Octets of a validator of ours.
pub(super) const LENGTH: usize = 20;

/// What a validator speaks for. Addresses and ULIDs are those of the packet that the *peer* sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// R1 answered by I2. The Initiator Nonce is left out, since I2 may carry another (decision D04).
    Establish { initiator_tag: ContextTag, sender: Ipv6Addr, receiver: Ipv6Addr, fork: u32, addresses: Addresses },
    /// R1bis answered by I2bis.
    Recover { packet_tag: ContextTag, addresses: Addresses },
}

impl Claim {
    /// `ulids` as seen from our side.
    pub(super) fn establish(initiator_tag: ContextTag, ulids: UlidPair, fork: u32, addresses: Addresses) -> Claim {
        Claim::Establish { initiator_tag, sender: ulids.peer.0, receiver: ulids.local.0, fork, addresses }
    }
}

/// Why a validator does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// The nonce is too old, or was never made.
    Stale,
    /// The validator is not ours, or not for this.
    Forged,
}

/// Makes validators and knows them again.
pub(super) struct Validators {
    master: hmac::Key,
    age_max: u64,
    ticks_per_period: u64,
    cached: Option<(u64, hmac::Key)>,
}

impl Validators {
    /// Unit of the nonce. A counter of 32 bits goes round in 13 years.
    const TICK: Duration = Duration::from_millis(100);

    /// `secret` is the master secret: random, and fresh for each run.
    pub(super) fn new(secret: &[u8; 32], config: &Config) -> Validators {
        let ticks = |time: Duration| time.as_nanos().div_ceil(Self::TICK.as_nanos()) as u64;
        Validators {
            master: hmac::Key::new(hmac::HMAC_SHA256, secret),
            age_max: ticks(config.validator_lifetime),
            ticks_per_period: ticks(config.secret_lifetime).max(1),
            cached: None,
        }
    }

    /// Nonce and validator for an answer sent now.
    pub(super) fn issue(&mut self, now: Instant, claim: &Claim) -> (u32, Vec<u8>) {
        let tick = Self::tick(now);
        (tick as u32, self.compute(tick, claim).to_vec())
    }

    /// Whether `validator` was issued for `claim` with `nonce`, not too long ago.
    pub(super) fn check(&mut self, now: Instant, nonce: u32, claim: &Claim, validator: &[u8]) -> Result<(), Invalid> {
        dataplane::mutant!(AnyNonce, return Ok(()));
        let tick = Self::tick(now);
        let age = u64::from((tick as u32).wrapping_sub(nonce));
        // A nonce from the future looks like a very old one; one from before the start cannot be ours.
        let issued = tick.checked_sub(age).filter(|_| age <= self.age_max).ok_or(Invalid::Stale)?;
        let expected = self.compute(issued, claim);
        let same = validator.len() == expected.len() && openssl::memcmp::eq(validator, &expected);
        if same { Ok(()) } else { Err(Invalid::Forged) }
    }

    /// A key for other uses that strangers must not know.
    pub(super) fn derive(&self, purpose: &[u8]) -> u64 {
        let digest = hmac::sign(&self.master, purpose);
        digest.as_ref().iter().take(8).fold(0, |key, octet| key << 8 | u64::from(*octet))
    }

    fn compute(&mut self, tick: u64, claim: &Claim) -> [u8; LENGTH] {
        let digest = hmac::sign(self.key(tick / self.ticks_per_period), encode(tick as u32, claim).octets());
        let mut validator = [0; LENGTH];
        validator.copy_from_slice(&digest.as_ref()[..LENGTH]);
        validator
    }

    fn key(&mut self, period: u64) -> &hmac::Key {
        if self.cached.as_ref().is_none_or(|(of, _)| *of != period) {
            self.cached = None;
        }
        let (_, key) = self.cached.get_or_insert_with(|| {
            let mut label = *b"validators of period 00000000";
            let end = label.len() - 8;
            label[end..].copy_from_slice(&period.to_be_bytes());
            (period, hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&self.master, &label).as_ref()))
        });
        key
    }

    fn tick(now: Instant) -> u64 {
        (now.0.as_nanos() / Self::TICK.as_nanos()) as u64
    }
}

/// What a validator is a hash of.
struct Encoded {
    octets: [u8; ENCODED_MAX],
    len: usize,
}

/// Octets of the longest claim: kind, nonce, tag, four addresses, fork.
const ENCODED_MAX: usize = 1 + 4 + 6 + 4 * 16 + 4;

impl Encoded {
    fn octets(&self) -> &[u8] {
        &self.octets[..self.len]
    }

    fn put<const N: usize>(&mut self, octets: [u8; N]) {
        self.octets[self.len..self.len + N].copy_from_slice(&octets);
        self.len += N;
    }
}

/// Every field has a fixed length and the first octet tells the kinds apart, so no two claims have the same octets.
fn encode(nonce: u32, claim: &Claim) -> Encoded {
    let mut encoded = Encoded { octets: [0; ENCODED_MAX], len: 0 };
    let (kind, tag, addresses) = match claim {
        Claim::Establish { initiator_tag, addresses, .. } => (1, initiator_tag, addresses),
        Claim::Recover { packet_tag, addresses } => (2, packet_tag, addresses),
    };
    encoded.put([kind]);
    encoded.put(nonce.to_be_bytes());
    encoded.put(tag.octets());
    encoded.put(addresses.source.octets());
    encoded.put(addresses.target.octets());
    if let Claim::Establish { sender, receiver, fork, .. } = claim {
        encoded.put(sender.octets());
        encoded.put(receiver.octets());
        encoded.put(fork.to_be_bytes());
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
    }

    fn tag(value: u64) -> ContextTag {
        ContextTag::truncate(value)
    }

    fn claim() -> Claim {
        let addresses = Addresses { source: address(3), target: address(4) };
        Claim::Establish { initiator_tag: tag(7), sender: address(1), receiver: address(2), fork: 0, addresses }
    }

    fn validators() -> Validators {
        Validators::new(&[9; 32], &Config::default())
    }

    #[test]
    fn every_input_counts() {
        // R5533-104, R5533-160, R5533-178, R5533-211, R5533-224
        let now = Instant::from_millis(12_345);
        let addresses = Addresses { source: address(3), target: address(4) };
        let moved = Addresses { source: address(5), target: address(4) };
        let diverted = Addresses { source: address(3), target: address(5) };
        let establish = |initiator_tag, sender, receiver, fork, addresses| Claim::Establish {
            initiator_tag,
            sender,
            receiver,
            fork,
            addresses,
        };
        let claims = [
            claim(),
            establish(tag(8), address(1), address(2), 0, addresses),
            establish(tag(7), address(5), address(2), 0, addresses),
            establish(tag(7), address(1), address(5), 0, addresses),
            establish(tag(7), address(1), address(2), 1, addresses),
            establish(tag(7), address(1), address(2), 0, moved),
            establish(tag(7), address(1), address(2), 0, diverted),
            Claim::Recover { packet_tag: tag(7), addresses },
            Claim::Recover { packet_tag: tag(8), addresses },
            Claim::Recover { packet_tag: tag(7), addresses: moved },
            Claim::Recover { packet_tag: tag(7), addresses: diverted },
        ];
        for (i, made) in claims.iter().enumerate() {
            let (nonce, validator) = validators().issue(now, made);
            for (j, tried) in claims.iter().enumerate() {
                let answer = validators().check(now, nonce, tried, &validator);
                assert_eq!(answer.is_ok(), i == j, "made for {made:?}, tried for {tried:?}");
            }
        }
    }

    #[test]
    fn a_validator_is_good_for_its_lifetime_and_not_much_longer() {
        // R5533-176, R5533-177, R5533-225
        let mut validators = validators();
        let issued = Instant::from_millis(99_999);
        let (nonce, validator) = validators.issue(issued, &claim());
        let after = |millis| issued + Duration::from_millis(millis);
        assert_eq!(validators.check(after(0), nonce, &claim(), &validator), Ok(()));
        assert_eq!(validators.check(after(30_000), nonce, &claim(), &validator), Ok(()));
        assert_eq!(validators.check(after(30_200), nonce, &claim(), &validator), Err(Invalid::Stale));
        let early = Instant::from_millis(90_000);
        assert_eq!(validators.check(early, nonce, &claim(), &validator), Err(Invalid::Stale));
    }

    #[test]
    fn a_new_secret_does_not_void_young_validators() {
        // R5533-315
        let config = Config { secret_lifetime: Duration::from_secs(60), ..Config::default() };
        let mut validators = Validators::new(&[9; 32], &config);
        let (nonce, validator) = validators.issue(Instant::from_millis(59_000), &claim());
        assert_eq!(validators.check(Instant::from_millis(88_000), nonce, &claim(), &validator), Ok(()));
        // The same tick of the counter under the next secret gives another validator.
        let other = Config { secret_lifetime: Duration::from_secs(59), ..Config::default() };
        let mut others = Validators::new(&[9; 32], &other);
        assert_ne!(others.issue(Instant::from_millis(59_000), &claim()).1, validator);
    }

    #[test]
    fn another_secret_a_cut_and_an_altered_validator_are_forged() {
        let now = Instant::from_millis(1_000);
        let (nonce, validator) = validators().issue(now, &claim());
        let mut stranger = Validators::new(&[8; 32], &Config::default());
        assert_eq!(stranger.check(now, nonce, &claim(), &validator), Err(Invalid::Forged));
        assert_eq!(validators().check(now, nonce, &claim(), &validator[..LENGTH - 1]), Err(Invalid::Forged));
        assert_eq!(validators().check(now, nonce, &claim(), &[]), Err(Invalid::Forged));
        for bit in 0..LENGTH * 8 {
            let mut altered = validator.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(validators().check(now, nonce, &claim(), &altered), Err(Invalid::Forged));
        }
    }

    #[test]
    fn a_nonce_from_before_the_start_is_stale() {
        let (_, validator) = validators().issue(Instant::START, &claim());
        assert_eq!(validators().check(Instant::START, u32::MAX, &claim(), &validator), Err(Invalid::Stale));
    }
}
