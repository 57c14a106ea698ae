//! Hashing of keys that strangers choose, and the owner of a context.

use std::net::Ipv6Addr;

use crate::natv6::Session;
use crate::wire::{ContextTag, FlowLabel, UlidPair};

/// A keyed hash of identifier pairs. The key is random, so that nobody outside can aim at one bucket.
#[derive(Clone, Copy, Debug)]
pub struct Hasher {
    key: [u64; 4],
}

impl Hasher {
    /// From 32 random octets.
    pub fn new(seed: [u8; 32]) -> Hasher {
        let mut key = [0; 4];
        for (word, octets) in key.iter_mut().zip(seed.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*octets);
        }
        Hasher { key }
    }

    /// Hash of an identifier pair.
    #[inline]
    pub fn pair(&self, pair: &UlidPair) -> u64 {
        let ([a, b], [c, d]) = (words(pair.local.0), words(pair.peer.0));
        let left = fold(a ^ self.key[0], b ^ self.key[1]);
        fold(left ^ c ^ self.key[2], d ^ self.key[3])
    }

    /// Hash of a number that strangers choose.
    #[inline]
    pub fn number(&self, number: u64) -> u64 {
        fold(number ^ self.key[1], self.key[2] | 1)
    }

    /// Hash of a session of the pair whose hash is `pair`.
    #[inline]
    pub fn session(&self, pair: u64, session: Session) -> u64 {
        let ports = u64::from(session.protocol) << 32 | u64::from(session.source) << 16 | u64::from(session.target);
        fold(pair ^ self.key[2], ports ^ self.key[1].rotate_left(11))
    }
}

/// As they lie in memory: the order of octets does not matter to a hash.
#[inline]
fn words(address: Ipv6Addr) -> [u64; 2] {
    let (high, low) = halves(u128::from_ne_bytes(address.octets()));
    [low, high]
}

fn halves(value: u128) -> (u64, u64) {
    ((value >> 64) as u64, value as u64)
}

/// The two halves of a 128-bit product, mixed: every input bit reaches every output bit.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let (high, low) = halves(product);
    high ^ low.rotate_left(32) ^ a.wrapping_add(b)
}

/// Which worker owns a context, from either key.
///
/// A tag we allocate is, from its top: box (4 bits), worker (6 bits), random (37 bits). RFC 5533 §7.1 wants at least
/// 30 unguessable bits and allows structure in the rest.
#[derive(Clone, Copy, Debug)]
pub struct Sharding {
    hasher: Hasher,
    workers: u8,
}

impl Sharding {
    /// Bits of a tag that name the worker.
    pub const WORKER_BITS: u32 = 6;
    /// Lowest bit of the worker's number.
    pub const WORKER_SHIFT: u32 = 37;
    /// Most workers a box may have.
    pub const WORKERS_MAX: u8 = 1 << Self::WORKER_BITS;

    /// For `workers` workers (1 to 64; other numbers are brought into that range).
    pub fn new(hasher: Hasher, workers: u8) -> Sharding {
        Sharding { hasher, workers: workers.clamp(1, Self::WORKERS_MAX) }
    }

    /// The keyed hash behind the choice.
    pub fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// Owner of a pair, from its hash. Uses the top bits, which the index does not.
    #[inline]
    pub fn owner_of_hash(&self, hash: u64) -> u8 {
        ((u128::from(hash) * u128::from(self.workers)) >> 64) as u8
    }

    /// Owner of an identifier pair: the number to write into the tags of its contexts.
    pub fn owner_of_pair(&self, pair: &UlidPair) -> u8 {
        self.owner_of_hash(self.hasher.pair(pair))
    }

    /// Owner named by a tag; none if no worker of ours has that number.
    #[inline]
    pub fn owner_of_tag(&self, tag: ContextTag) -> Option<u8> {
        let worker = (tag.value() >> Self::WORKER_SHIFT) as u8 & (Self::WORKERS_MAX - 1);
        (worker < self.workers).then_some(worker)
    }

    /// Whether a tag names `worker`, which is one of ours.
    #[inline]
    pub(crate) fn is_owner_of_tag(&self, worker: u8, tag: ContextTag) -> bool {
        (tag.value() >> Self::WORKER_SHIFT) as u8 & (Self::WORKERS_MAX - 1) == worker
    }

    /// Owner of a flow label that stands for a context: each worker has a part of the labels. Which pairs a worker owns
    /// nobody outside knows, so knowing the parts does not help to guess a label.
    #[inline]
    pub fn owner_of_label(&self, label: FlowLabel) -> u8 {
        ((u64::from(label.value()) * u64::from(self.workers)) >> FlowLabel::BITS) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Ulid;

    fn pair(n: u128) -> UlidPair {
        UlidPair { local: Ulid(Ipv6Addr::from_bits(n)), peer: Ulid(Ipv6Addr::from_bits(n.rotate_left(64))) }
    }

    #[test]
    fn owners_are_spread_evenly() {
        let sharding = Sharding::new(Hasher::new([7; 32]), 4);
        let mut owned = [0u32; 4];
        for n in 0..40_000 {
            owned[usize::from(sharding.owner_of_pair(&pair(n)))] += 1;
        }
        assert!(owned.iter().all(|&n| (9_500..10_500).contains(&n)), "{owned:?}");
    }

    #[test]
    fn low_bits_of_the_hash_are_spread_for_neighbouring_keys() {
        let hasher = Hasher::new(std::array::from_fn(|i| (i * 37 + 11) as u8));
        let mut buckets = vec![0u32; 256];
        for n in 0..25_600 {
            buckets[(hasher.pair(&pair(n)) & 255) as usize] += 1;
        }
        let worst = buckets.iter().max().copied().unwrap_or_default();
        assert!(worst < 160, "a bucket got {worst} of 100 expected");
    }

    #[test]
    fn a_tag_names_its_worker() {
        let sharding = Sharding::new(Hasher::new([1; 32]), 3);
        let tag = |worker: u64| ContextTag::truncate(worker << Sharding::WORKER_SHIFT | 0x1234);
        assert_eq!(sharding.owner_of_tag(tag(2)), Some(2));
        assert_eq!(sharding.owner_of_tag(tag(3)), None);
    }
}
