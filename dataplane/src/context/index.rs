//! From a hash to a slot: buckets of one cache line, two candidates per key.
//!
//! A bucket holds eight 16-bit signatures side by side, which the compiler compares at once, and eight slots. A key goes
//! to the emptier of its two buckets; at the load the shard builds for (at most half) both being full is a matter of
//! billions of contexts, and is an error with a counter all the same, never a loop.

use crate::prefetch::prefetch;

const WAYS: usize = 8;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    signatures: [u16; WAYS],
    slots: [u32; WAYS],
    /// Bit i: way i is taken.
    used: u8,
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// A table from hashes to slots. It never sees keys: the caller compares them in the slots it yields.
pub struct Index {
    buckets: Box<[Bucket]>,
    mask: usize,
    len: usize,
}

/// Both buckets of a key are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no place left in either bucket")]
pub struct Full;

impl Index {
    /// For up to `capacity` keys, at most half full.
    pub fn new(capacity: usize) -> Index {
        let buckets = (capacity.max(WAYS) * 2 / WAYS).next_power_of_two();
        let empty = Bucket { signatures: [0; WAYS], slots: [0; WAYS], used: 0 };
        Index { buckets: vec![empty; buckets].into_boxed_slice(), mask: buckets - 1, len: 0 }
    }

    /// Keys held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Asks for both buckets of `hash`.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        let (first, second) = self.places(hash);
        for place in [first, second] {
            if let Some(bucket) = self.buckets.get(place) {
                prefetch(bucket);
            }
        }
    }

    /// Hands over the slots whose signature fits `hash`: the right one if it is there, rarely another.
    #[inline]
    pub fn candidates(&self, hash: u64, mut see: impl FnMut(u32)) {
        let (first, second) = self.places(hash);
        for place in [first, second] {
            let Some(bucket) = self.buckets.get(place) else { return };
            let mut hits = bucket.matching(signature(hash));
            while hits != 0 {
                see(bucket.slots[hits.trailing_zeros() as usize % WAYS]);
                hits &= hits - 1;
            }
        }
    }

    /// The slot among those filed under `hash` for which `is_it` says yes.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let (first, second) = self.places(hash);
        let signature = signature(hash);
        for place in [first, second] {
            let bucket = self.buckets.get(place)?;
            let mut hits = bucket.matching(signature);
            while hits != 0 {
                let way = hits.trailing_zeros() as usize;
                hits &= hits - 1;
                let slot = bucket.slots[way % WAYS];
                if is_it(slot) {
                    return Some(slot);
                }
            }
        }
        None
    }

    /// Files `slot` under `hash`. The caller makes sure that its key is not filed yet.
    pub fn insert(&mut self, hash: u64, slot: u32) -> Result<(), Full> {
        let (first, second) = self.places(hash);
        let load = |place: usize| self.buckets[place].used.count_ones();
        let place = if load(second) < load(first) { second } else { first };
        let bucket = &mut self.buckets[place];
        let way = bucket.used.trailing_ones() as usize;
        if way >= WAYS {
            return Err(Full);
        }
        bucket.signatures[way] = signature(hash);
        bucket.slots[way] = slot;
        bucket.used |= 1 << way;
        self.len += 1;
        Ok(())
    }

    /// Takes `slot`, filed under `hash`, out. False if it was not there.
    pub fn remove(&mut self, hash: u64, slot: u32) -> bool {
        let (first, second) = self.places(hash);
        for place in [first, second] {
            let bucket = &mut self.buckets[place];
            let hits = bucket.matching(signature(hash));
            if let Some(way) = (0..WAYS).find(|&way| hits >> way & 1 == 1 && bucket.slots[way] == slot) {
                bucket.used &= !(1 << way);
                self.len -= 1;
                return true;
            }
        }
        false
    }

    /// All slots held, in no order: for self-checks.
    pub fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.buckets.iter().flat_map(|bucket| {
            (0..WAYS).filter(move |&way| bucket.used >> way & 1 == 1).map(move |way| bucket.slots[way])
        })
    }

    fn places(&self, hash: u64) -> (usize, usize) {
        let first = hash as usize & self.mask;
        // An odd multiplier spreads the signature over the table, so the two candidates are independent.
        let second = first ^ ((u64::from(signature(hash)) | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize;
        (first, second & self.mask)
    }
}

impl Bucket {
    #[inline]
    fn matching(&self, signature: u16) -> u8 {
        let mut hits = 0;
        for (way, &held) in self.signatures.iter().enumerate() {
            hits |= u8::from(held == signature) << way;
        }
        hits & self.used
    }
}

/// Bits that neither the bucket (low bits) nor the owner (top bits) is chosen by.
fn signature(hash: u64) -> u16 {
    (hash >> 40) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// The slow twin is a `HashMap` anyone can believe.
        #[test]
        fn behaves_like_a_map(operations in prop::collection::vec((any::<bool>(), 0u64..60), 1..400)) {
            let hash = |key: u64| key.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
            let mut fast = Index::new(64);
            let mut slow = HashMap::new();
            for (step, (insert, key)) in operations.into_iter().enumerate() {
                let slot = (key * 1000) as u32 + step as u32;
                if insert && !slow.contains_key(&key) {
                    prop_assert_eq!(fast.insert(hash(key), slot), Ok(()));
                    slow.insert(key, slot);
                } else if !insert && let Some(slot) = slow.remove(&key) {
                    prop_assert!(fast.remove(hash(key), slot));
                }
                for key in 0..60 {
                    let found = fast.find(hash(key), |slot| u64::from(slot) / 1000 == key);
                    prop_assert_eq!(found, slow.get(&key).copied());
                }
                prop_assert_eq!(fast.len(), slow.len());
            }
        }
    }

    #[test]
    fn says_full_instead_of_looping() {
        let mut index = Index::new(8);
        let inserted = (0..100).take_while(|&slot| index.insert(42, slot).is_ok()).count();
        assert!((8..=16).contains(&inserted));
        assert_eq!(index.insert(42, 7), Err(Full));
        assert!(index.remove(42, 3));
        assert_eq!(index.insert(42, 7), Ok(()));
    }

    #[test]
    fn a_million_keys_find_a_place_at_the_load_it_is_built_for() {
        let mut index = Index::new(1 << 20);
        for slot in 0..1u32 << 20 {
            let hash =
                u64::from(slot).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(29).wrapping_mul(0xff51_afd7_ed55_8ccd);
            assert_eq!(index.insert(hash, slot), Ok(()));
        }
    }
}
