//! From a hash to a slot: buckets of one cache line, two candidates per key, the first of which nearly always holds it.
//!
//! A bucket holds eight 16-bit signatures side by side, which one instruction compares, and eight slots. A key goes to
//! its first bucket, and to its second only when the first is full; a bucket knows how many of its keys went elsewhere,
//! so that a look-up touches a second line only when that can help. At the load the shard builds for (at most half) one
//! key in two hundred lives in its second place. When both are full a key of one of them moves to its other place: since
//! the two differ by the signature alone, nobody has to know the key for that. Sixteen such attempts all failing is an
//! error with a counter, never a loop.

use crate::memory::huge;
use crate::processor::{equal, prefetch_at};

const WAYS: usize = 8;
const ALL: u8 = u8::MAX;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    signatures: [u16; WAYS],
    slots: [u32; WAYS],
    /// Keys whose first place is here and that are in their second.
    away: u32,
    /// Bit i: way i is taken.
    used: u8,
    /// Bit i: the key of way i is here because its first place was full.
    guests: u8,
}

const _: () = assert!(size_of::<Bucket>() == 64);

const EMPTY: Bucket = Bucket { signatures: [0; WAYS], slots: [0; WAYS], away: 0, used: 0, guests: 0 };

/// A table from hashes to slots. It never sees keys: the caller compares them in the slots it yields.
pub struct Index {
    buckets: Box<[Bucket]>,
    mask: usize,
    len: usize,
}

/// No place is left for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no place left for a context")]
pub struct Full;

impl Index {
    /// Memory it takes.
    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// For up to `capacity` keys, at most half full.
    pub fn new(capacity: usize) -> Index {
        let buckets = (capacity.max(WAYS) * 2 / WAYS).next_power_of_two();
        Index { buckets: huge(buckets, EMPTY), mask: buckets - 1, len: 0 }
    }

    /// Keys held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Asks for the first bucket of `hash`.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch_at::<1, _>(&self.buckets, self.first(hash));
    }

    /// The slot whose signature fits `hash`, without a look at any key: the right one, but for one time in thousands. None
    /// where none fits, so that the key is not held.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<u32> {
        let bucket = self.buckets.get(self.first(hash))?;
        match bucket.matching(signature(hash)) {
            0 if bucket.away == 0 => None,
            0 => self.guess_other(hash),
            hits => Some(bucket.slots[hits.trailing_zeros() as usize % WAYS]),
        }
    }

    /// The same of the second bucket: for one key in two hundred, but then for one burst in six.
    #[cold]
    fn guess_other(&self, hash: u64) -> Option<u32> {
        self.buckets.get(self.other(self.first(hash), signature(hash)))?.find(signature(hash), &mut |_| true)
    }

    /// Hands over the slots whose signature fits `hash`: the right one if it is there, rarely another.
    #[inline]
    pub fn candidates(&self, hash: u64, mut see: impl FnMut(u32)) {
        self.find(hash, |slot| {
            see(slot);
            false
        });
    }

    /// The slot among those filed under `hash` for which `is_it` says yes.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let first = self.first(hash);
        let bucket = self.buckets.get(first)?;
        let found = bucket.find(signature(hash), &mut is_it);
        if found.is_some() || bucket.away == 0 {
            return found;
        }
        self.buckets.get(self.other(first, signature(hash)))?.find(signature(hash), &mut is_it)
    }

    /// Files `slot` under `hash`. The caller makes sure that its key is not filed yet. Touches two buckets, and at most
    /// eighteen.
    pub fn insert(&mut self, hash: u64, slot: u32) -> Result<(), Full> {
        let signature = signature(hash);
        let first = self.first(hash);
        let second = self.other(first, signature);
        let place = match () {
            () if self.has_room(first) => first,
            () if self.has_room(second) => second,
            () if self.make_room(first) => first,
            () if self.make_room(second) => second,
            () => return Err(Full),
        };
        self.put(place, signature, slot, place != first);
        if place != first {
            self.buckets[first].away += 1;
        }
        self.len += 1;
        Ok(())
    }

    /// Takes `slot`, filed under `hash`, out. False if it was not there.
    pub fn remove(&mut self, hash: u64, slot: u32) -> bool {
        let first = self.first(hash);
        let second = self.other(first, signature(hash));
        for place in [first, second] {
            let bucket = &mut self.buckets[place];
            let hits = bucket.matching(signature(hash));
            if let Some(way) = (0..WAYS).find(|&way| hits >> way & 1 == 1 && bucket.slots[way] == slot) {
                if bucket.take(way) {
                    self.buckets[first].away -= 1;
                }
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

    #[inline]
    fn first(&self, hash: u64) -> usize {
        hash as usize & self.mask
    }

    /// The other of the two buckets a key may be in. An odd multiplier spreads the signature over the table, so the two
    /// are independent.
    #[inline]
    fn other(&self, place: usize, signature: u16) -> usize {
        place ^ ((u64::from(signature) * 2 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize & self.mask
    }

    fn has_room(&self, place: usize) -> bool {
        self.buckets[place].used != ALL
    }

    /// Moves one key of a full bucket to its other place, if one of them has room there.
    #[cold]
    fn make_room(&mut self, place: usize) -> bool {
        for way in 0..WAYS {
            let Bucket { signatures, slots, .. } = self.buckets[place];
            let other = self.other(place, signatures[way]);
            if other == place || !self.has_room(other) {
                continue;
            }
            if self.buckets[place].take(way) {
                self.put(other, signatures[way], slots[way], false);
                self.buckets[other].away -= 1;
            } else {
                self.put(other, signatures[way], slots[way], true);
                self.buckets[place].away += 1;
            }
            return true;
        }
        false
    }

    fn put(&mut self, place: usize, signature: u16, slot: u32, guest: bool) {
        let bucket = &mut self.buckets[place];
        let way = bucket.used.trailing_ones() as usize % WAYS;
        bucket.signatures[way] = signature;
        bucket.slots[way] = slot;
        bucket.used |= 1 << way;
        bucket.guests |= u8::from(guest) << way;
    }

    /// Walks everything and panics when a count is wrong. For tests.
    pub(super) fn selfcheck(&self) {
        let mut away = vec![0; self.buckets.len()];
        for (place, bucket) in self.buckets.iter().enumerate() {
            assert_eq!(bucket.guests & !bucket.used, 0, "a guest that is not there");
            for way in (0..WAYS).filter(|way| bucket.guests >> way & 1 == 1) {
                away[self.other(place, bucket.signatures[way])] += 1;
            }
        }
        assert!(self.buckets.iter().map(|bucket| bucket.away).eq(away), "a bucket does not know its keys elsewhere");
    }
}

impl Bucket {
    /// The ways whose signature is the given one, as bits.
    #[inline]
    fn matching(&self, signature: u16) -> u8 {
        equal(&self.signatures, signature) & self.used
    }

    #[inline]
    fn find(&self, signature: u16, is_it: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let mut hits = self.matching(signature);
        while hits != 0 {
            let slot = self.slots[hits.trailing_zeros() as usize % WAYS];
            hits &= hits - 1;
            if is_it(slot) {
                return Some(slot);
            }
        }
        None
    }

    /// Frees a way. Whether its key was a guest.
    fn take(&mut self, way: usize) -> bool {
        let guest = self.guests >> way & 1 == 1;
        self.used &= !(1 << way);
        self.guests &= !(1 << way);
        guest
    }
}

/// Bits that neither the bucket (low bits) nor the owner (top bits) is chosen by.
#[inline]
fn signature(hash: u64) -> u16 {
    (hash >> 40) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// The slow twin is a `HashMap` anyone can believe. Few buckets, so that they are often full.
        #[test]
        fn behaves_like_a_map(operations in prop::collection::vec((any::<bool>(), 0u64..110), 1..600)) {
            let hash = |key: u64| key.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
            let mut fast = Index::new(64);
            let mut slow = HashMap::new();
            for (step, (insert, key)) in operations.into_iter().enumerate() {
                let slot = (key * 1000) as u32 + step as u32;
                if insert && !slow.contains_key(&key) {
                    if fast.insert(hash(key), slot).is_ok() {
                        slow.insert(key, slot);
                    } else {
                        prop_assert!(slow.len() > 64, "no place among {} keys", slow.len());
                    }
                } else if !insert && let Some(slot) = slow.remove(&key) {
                    prop_assert!(fast.remove(hash(key), slot));
                }
                for key in 0..110 {
                    let found = fast.find(hash(key), |slot| u64::from(slot) / 1000 == key);
                    prop_assert_eq!(found, slow.get(&key).copied());
                    match fast.guess(hash(key)) {
                        None => prop_assert!(!slow.contains_key(&key)),
                        Some(slot) => prop_assert!(fast.slots().any(|held| held == slot)),
                    }
                }
                prop_assert_eq!(fast.len(), slow.len());
                fast.selfcheck();
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
    fn a_million_keys_find_a_place_at_the_load_it_is_built_for_nearly_all_of_them_their_first() {
        let mut index = Index::new(1 << 20);
        for slot in 0..1u32 << 20 {
            let hash =
                u64::from(slot).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(29).wrapping_mul(0xff51_afd7_ed55_8ccd);
            assert_eq!(index.insert(hash, slot), Ok(()));
        }
        let away: u32 = index.buckets.iter().map(|bucket| bucket.away).sum();
        assert!(away < (1 << 20) / 150, "{away} keys are in their second place");
        index.selfcheck();
    }
}
