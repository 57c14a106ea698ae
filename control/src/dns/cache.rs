//! What was learned and may still be used: bounded in entries and in octets, and not to be washed out.
//!
//! Somebody who asks for a million names that do not exist must not push out what others use. So an entry has to be used
//! once before it outlives newer ones: the hand of a clock goes round the places, and takes those that nobody has asked
//! for since it came by last (or since they were put in). What floods in pushes out what flooded in before.

use std::borrow::Borrow;
use std::hash::Hash;
use std::time::Duration;

use hashbrown::HashMap;

use crate::time::Instant;

/// Bounds of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most entries.
    pub entries: usize,
    /// Most octets of what they hold, as the caller counts them.
    pub octets: usize,
}

/// What happened in a cache so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions it could answer.
    pub hits: u64,
    /// Questions it could not.
    pub misses: u64,
    /// Entries that had to make room while they could still be used.
    pub evicted: u64,
}

struct Slot<K, V> {
    key: K,
    value: V,
    stored: Instant,
    lifetime: Duration,
    octets: usize,
    used: bool,
}

/// A bounded map whose entries go by themselves.
pub struct Cache<K, V> {
    bounds: Bounds,
    places: HashMap<K, usize>,
    slots: Vec<Option<Slot<K, V>>>,
    free: Vec<usize>,
    hand: usize,
    octets: usize,
    counts: Counts,
}

/// Octets an entry takes besides what it holds, about.
const OVERHEAD: usize = 128;

impl<K: Hash + Eq + Clone, V> Cache<K, V> {
    /// With nothing in it.
    pub fn new(bounds: Bounds) -> Cache<K, V> {
        let (places, slots, free) = (HashMap::new(), Vec::new(), Vec::new());
        Cache { bounds, places, slots, free, hand: 0, octets: 0, counts: Counts::default() }
    }

    /// What is known under a key, and for how long it has been.
    pub fn find<Q>(&mut self, now: Instant, key: &Q) -> Option<(&V, Duration)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let place = self.places.get(key).copied();
        let fresh = |slot: &&mut Slot<K, V>| now.since(slot.stored) < slot.lifetime;
        match place.and_then(|place| self.slots[place].as_mut()).filter(fresh) {
            Some(slot) => {
                self.counts.hits += 1;
                slot.used = true;
                Some((&slot.value, now.since(slot.stored)))
            }
            None => {
                self.counts.misses += 1;
                None
            }
        }
    }

    /// Keeps something for `lifetime`; it takes the place of what was there under its key. What would not fit beside
    /// anything else is not kept.
    pub fn insert(&mut self, now: Instant, key: K, value: V, lifetime: Duration, octets: usize) {
        let octets = octets + OVERHEAD;
        self.remove(&key);
        if lifetime.is_zero() || octets > self.bounds.octets / 4 || self.bounds.entries == 0 {
            return;
        }
        while self.places.len() >= self.bounds.entries || self.octets + octets > self.bounds.octets {
            self.make_room(now);
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.octets += octets;
        self.places.insert(key.clone(), place);
        self.slots[place] = Some(Slot { key, value, stored: now, lifetime, octets, used: false });
    }

    /// Forgets what is known under a key.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let place = self.places.remove(key)?;
        let slot = self.slots[place].take()?;
        self.free.push(place);
        self.octets -= slot.octets;
        Some(slot.value)
    }

    /// Forgets everything. How much that was.
    pub fn clear(&mut self) -> usize {
        let entries = self.places.len();
        *self = Cache { counts: self.counts, ..Cache::new(self.bounds) };
        entries
    }

    /// Entries, whether or not their time is over.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Octets it holds, with about what it takes to hold them.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Its bounds.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Moves the hand on to an entry that can go. Twice round at most, since it clears marks as it goes.
    fn make_room(&mut self, now: Instant) {
        for _ in 0..2 * self.slots.len() + 1 {
            self.hand = (self.hand + 1) % self.slots.len().max(1);
            let Some(slot) = self.slots.get_mut(self.hand).and_then(Option::as_mut) else { continue };
            let over = now.since(slot.stored) >= slot.lifetime;
            if slot.used && !over {
                slot.used = false;
                continue;
            }
            self.counts.evicted += u64::from(!over);
            let key = slot.key.clone();
            self.remove(&key);
            return;
        }
    }

    /// Asserts what has to hold.
    pub fn selfcheck(&self) {
        let kept = self.slots.iter().flatten();
        assert_eq!(kept.clone().count(), self.places.len());
        assert_eq!(kept.clone().map(|slot| slot.octets).sum::<usize>(), self.octets);
        assert!(self.places.len() <= self.bounds.entries && self.octets <= self.bounds.octets);
        assert_eq!(self.free.len() + self.places.len(), self.slots.len());
        for (key, place) in &self.places {
            assert!(self.slots[*place].as_ref().is_some_and(|slot| slot.key == *key));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::HashMap as Slow;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    #[test]
    fn entries_go_when_their_time_is_over() {
        let mut cache = Cache::new(Bounds { entries: 4, octets: 10_000 });
        cache.insert(at(0), 1, 'a', Duration::from_secs(10), 1);
        assert_eq!(cache.find(at(9), &1), Some((&'a', Duration::from_secs(9))));
        assert_eq!(cache.find(at(10), &1), None);
        cache.insert(at(10), 1, 'b', Duration::ZERO, 1);
        assert!(cache.is_empty(), "what may not be kept takes the place of what was there all the same");
        assert_eq!(cache.counts(), Counts { hits: 1, misses: 1, evicted: 0 });
    }

    #[test]
    fn a_flood_pushes_out_the_flood_and_not_what_is_used() {
        let mut cache = Cache::new(Bounds { entries: 100, octets: 1 << 20 });
        let hour = Duration::from_secs(3600);
        for key in 0..50 {
            cache.insert(at(0), key, key, hour, 1);
            assert!(cache.find(at(0), &key).is_some());
        }
        for key in 1000..101_000 {
            cache.insert(at(1), key, key, hour, 1);
            if key % 40 == 0 {
                assert!((0..50).all(|wanted| cache.find(at(1), &wanted).is_some()), "after {key}");
            }
        }
        cache.selfcheck();
        assert!(cache.counts().evicted >= 99_000);
    }

    #[derive(Clone, Debug)]
    enum Act {
        Insert(u8, u64, usize),
        Remove(u8),
        Find(u8),
        Pass(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (any::<u8>(), 0..30u64, 0..400usize).prop_map(|(key, life, size)| Act::Insert(key, life, size)),
            1 => any::<u8>().prop_map(Act::Remove),
            4 => any::<u8>().prop_map(Act::Find),
            1 => (0..5u64).prop_map(Act::Pass),
        ]
    }

    proptest! {
        // The twin never forgets for want of room: whatever the cache says, the twin says too; where nothing had to make
        // room, they agree in everything.
        #[test]
        fn it_says_nothing_its_slow_twin_does_not(acts in prop::collection::vec(act(), 1..300), room in 1..300usize) {
            let mut cache = Cache::new(Bounds { entries: room, octets: 40_000 });
            let mut twin: Slow<u8, (usize, Instant, Duration)> = Slow::new();
            let mut now = at(0);
            for (serial, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Pass(seconds) => now = now + Duration::from_secs(seconds),
                    Act::Remove(key) => {
                        cache.remove(&key);
                        twin.remove(&key);
                    }
                    Act::Insert(key, life, size) => {
                        cache.insert(now, key, serial, Duration::from_secs(life), size);
                        twin.insert(key, (serial, now, Duration::from_secs(life)));
                        prop_assert_eq!(cache.find(now, &key).is_some(), life > 0);
                    }
                    Act::Find(key) => {
                        let slow = twin.get(&key).filter(|(_, since, life)| now.since(*since) < *life);
                        let fast = cache.find(now, &key).map(|(value, age)| (*value, age));
                        let slow = slow.map(|(value, since, _)| (*value, now.since(*since)));
                        if fast.is_some() || cache.counts().evicted == 0 {
                            prop_assert_eq!(fast, slow);
                        }
                    }
                }
                cache.selfcheck();
            }
        }
    }
}
