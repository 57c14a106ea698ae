//! Which context packets of a class go by (RFC 5533 §4.2): forked contexts beside the default one of their pair.
//!
//! Most pairs have no forks, and packets of those never come here: an entry says by a flag whether its pair may have
//! some. The others have a place each in a table of fixed size, found by the pair: the classes the default context shares its
//! traffic with, and the context of each. It does not matter which of them is installed first, or which goes first.
//!
//! The first packet of a class that has no context is a wish, told to control; packets go by the default context until
//! there is one, so nothing waits and nothing is lost.

use super::index::Index;
use super::shard::Slot;
use crate::snapshot::{CLASSES_MAX, Classes};
use crate::wire::{Ulid, UlidPair};

/// Milliseconds after which a wish is told again.
pub const AGAIN_MS: u64 = 5_000;
/// Wishes that wait to be told; the next packet has the same wish.
const WISHES_MAX: usize = 64;

/// A class of a pair that would like a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Control's name for the default context.
    pub handle: u64,
    /// Number of the class.
    pub class: u8,
}

/// The forks of one shard.
pub(super) struct Forks {
    index: Index,
    places: Box<[Place]>,
    free: Vec<u32>,
    wishes: Vec<Wish>,
}

/// The forks of one pair.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pair: UlidPair,
    /// The classes whose packets the default context gives away; none when it is not there.
    shared: Classes,
    /// By class: one more than the slot of its context, or zero.
    slots: [u32; CLASSES_MAX + 1],
    /// By class: when its wish was told, in milliseconds.
    told: [Option<u64>; CLASSES_MAX + 1],
}

impl Place {
    fn new(pair: UlidPair) -> Place {
        Place { pair, shared: Classes::NONE, slots: [0; CLASSES_MAX + 1], told: [None; CLASSES_MAX + 1] }
    }

    /// The classes whose packets the default context gives away.
    #[inline]
    pub fn shared(&self) -> Classes {
        self.shared
    }

    /// The context of a class, in whatever phase.
    #[inline]
    pub fn slot(&self, class: u8) -> Option<Slot> {
        self.slots.get(usize::from(class)).and_then(|slot| slot.checked_sub(1)).map(Slot)
    }

    fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.slots == [0; CLASSES_MAX + 1]
    }
}

impl Forks {
    /// For up to `capacity` pairs.
    pub(super) fn new(capacity: u32) -> Forks {
        let nobody = Ulid(std::net::Ipv6Addr::UNSPECIFIED);
        let empty = Place::new(UlidPair { local: nobody, peer: nobody });
        Forks {
            index: Index::new(capacity.max(1) as usize),
            places: vec![empty; capacity as usize].into_boxed_slice(),
            free: (0..capacity).rev().collect(),
            wishes: Vec::with_capacity(WISHES_MAX),
        }
    }

    /// The default context of a pair, whose hash is `hash`, gives away the packets of these classes. With none it is as if
    /// it were not there.
    pub(super) fn share(&mut self, hash: u64, pair: &UlidPair, shared: Classes) {
        self.change(hash, pair, shared.is_empty(), |place| place.shared = shared);
    }

    /// A forked context takes the packets of these classes, and no others.
    pub(super) fn take(&mut self, hash: u64, pair: &UlidPair, Slot(slot): Slot, classes: Classes) {
        self.change(hash, pair, classes.is_empty(), |place| {
            for (number, held) in place.slots.iter_mut().enumerate() {
                if classes.contain(number as u8) {
                    *held = slot + 1;
                } else if *held == slot + 1 {
                    *held = 0;
                }
            }
        });
    }

    /// Whether there are no forks at all.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The forks of a pair, if it has any and there was room for them.
    #[inline]
    pub(super) fn find(&self, hash: u64, pair: &UlidPair) -> Option<&Place> {
        self.place(hash, pair).map(|place| &self.places[place as usize])
    }

    /// A packet of a class without a context has come at `now`. Whether control will hear of it.
    pub(super) fn wish(&mut self, hash: u64, pair: &UlidPair, wish: Wish, now: u64) -> bool {
        let Some(place) = self.place(hash, pair) else { return false };
        let Some(told) = self.places[place as usize].told.get_mut(usize::from(wish.class)) else { return false };
        let due = told.is_none_or(|told| now.saturating_sub(told) >= AGAIN_MS);
        if !due || self.wishes.len() == WISHES_MAX {
            return false;
        }
        *told = Some(now);
        self.wishes.push(wish);
        true
    }

    /// The next wish to be told.
    pub(super) fn next_wish(&mut self) -> Option<Wish> {
        self.wishes.pop()
    }

    fn place(&self, hash: u64, pair: &UlidPair) -> Option<u32> {
        self.index.find(hash, |place| self.places.get(place as usize).is_some_and(|it| it.pair == *pair))
    }

    /// Changes the place of a pair, which is made for something and goes with the last. Without room nothing is noted, and
    /// the pair's packets go by the default context.
    fn change(&mut self, hash: u64, pair: &UlidPair, for_nothing: bool, change: impl FnOnce(&mut Place)) {
        let place = match self.place(hash, pair) {
            Some(place) => place,
            None if for_nothing => return,
            None => {
                let Some(place) = self.free.pop() else { return };
                if self.index.insert(hash, place).is_err() {
                    self.free.push(place);
                    return;
                }
                self.places[place as usize] = Place::new(*pair);
                place
            }
        };
        change(&mut self.places[place as usize]);
        if self.places[place as usize].is_empty() {
            self.index.remove(hash, place);
            self.free.push(place);
        }
    }

    /// Walks everything and panics when something is wrong. `shared` and `taken` are what the entries say: pairs whose default
    /// context gives away packets, and forked contexts. For tests.
    pub(super) fn selfcheck(&self, shared: impl Fn(&UlidPair) -> bool, taken: impl Fn(Slot, &UlidPair) -> bool) {
        let mut held: Vec<u32> = self.index.slots().collect();
        for &place in &held {
            let place = &self.places[place as usize];
            assert!(!place.is_empty(), "a place for nothing");
            assert!(place.shared.is_empty() || shared(&place.pair), "nobody gives away packets of {:?}", place.pair);
            for slot in place.slots.iter().filter_map(|slot| slot.checked_sub(1)) {
                assert!(taken(Slot(slot), &place.pair), "a class of {:?} leads to a foreign context", place.pair);
            }
        }
        held.extend(&self.free);
        held.sort_unstable();
        assert!(held.into_iter().eq(0..self.places.len() as u32), "a place is lost or held twice");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::super::{Hasher, Install, PathNumber, Phase, Shard};
    use super::*;
    use crate::wire::{ContextTag, Locator, LocatorPair};

    fn pair(number: u8) -> UlidPair {
        let address = |n: u16| Ulid(Ipv6Addr::new(0xfc00, n, 0, 0, 0, 0, 0, 1));
        UlidPair { local: address(1), peer: address(u16::from(number) + 2) }
    }

    fn install(tag: u64, of: u8, default: bool, classes: Classes) -> Install {
        let locator = Locator(Ipv6Addr::from_bits(1));
        Install {
            handle: tag,
            ulids: pair(of),
            default,
            classes,
            local_tag: ContextTag::truncate(tag),
            peer_tag: ContextTag::truncate(tag),
            locators: LocatorPair { local: locator, peer: locator },
            provider: 0,
            path: PathNumber::NONE,
            standby: None,
            host: 0,
            inside: None,
            phase: Phase::Live,
            local_label: None,
            peer_label: None,
            narrow: false,
            udp: Default::default(),
            accepted: None,
        }
    }

    fn classes() -> impl Strategy<Value = Classes> {
        (0u32..4, 0u32..4).prop_map(|(one, other)| Classes::only(one).and(Classes::only(other)))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Install(u64, u8, bool, Classes),
        Remove(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u64..10, 0u8..3, any::<bool>(), classes()).prop_map(|(t, p, d, c)| Step::Install(t, p, d, c)),
            1 => (0u64..10).prop_map(Step::Remove),
        ]
    }

    proptest! {
        /// The slow twin remembers, for each pair and class, the contexts in the order they asked for it.
        #[test]
        fn the_newest_context_of_a_class_has_its_packets(steps in prop::collection::vec(step(), 1..120)) {
            let mut shard = Shard::new(16, Hasher::new([7; 32]), false).with_forks(16);
            let mut slow: HashMap<u64, Install> = HashMap::new();
            // Who has a class of a pair, and the default context of a pair.
            let mut owner: HashMap<(UlidPair, u8), u64> = HashMap::new();
            let mut default: HashMap<UlidPair, u64> = HashMap::new();
            for step in steps {
                let (tag, new) = match step {
                    Step::Install(tag, of, is_default, classes) => (tag, Some(install(tag, of, is_default, classes))),
                    Step::Remove(tag) => (tag, None),
                };
                slow.remove(&tag);
                default.retain(|_, held| *held != tag);
                let classes = new.as_ref().filter(|new| !new.default).map_or(Classes::NONE, |new| new.classes);
                owner.retain(|(of, class), held| {
                    *held != tag || new.as_ref().is_some_and(|new| new.ulids == *of && classes.contain(*class))
                });
                match &new {
                    Some(new) => {
                        prop_assert!(shard.install(new).is_ok());
                        classes.numbers().for_each(|class| _ = owner.insert((new.ulids, class), tag));
                        if new.default {
                            default.insert(new.ulids, tag);
                        }
                        slow.insert(tag, new.clone());
                    }
                    None => _ = shard.remove(ContextTag::truncate(tag)),
                }
                shard.selfcheck();
                for of in (0..3).map(pair) {
                    let hash = shard.hasher().pair(&of);
                    let found = shard.by_pair(hash, &of);
                    let shares = default.get(&of).map_or(Classes::NONE, |tag| slow[tag].classes);
                    prop_assert_eq!(found.is_some_and(|slot| shard.entry(slot).is_forked()), !shares.is_empty());
                    for class in 1..4 {
                        let fork = shard.forks_of(hash, &of).and_then(|place| place.slot(class));
                        let fork = fork.map(|slot| shard.entry(slot).handle);
                        prop_assert_eq!(fork, owner.get(&(of, class)).copied());
                    }
                }
            }
        }
    }

    #[test]
    fn without_a_place_everything_goes_by_the_default_context() {
        let mut shard = Shard::new(8, Hasher::new([7; 32]), false).with_forks(1);
        let one = Classes::only(1);
        for of in 0..2 {
            shard.install(&install(u64::from(of), of, true, one)).unwrap();
        }
        let of = |shard: &Shard, number| {
            shard.forks_of(shard.hasher().pair(&pair(number)), &pair(number)).map(|place| place.slot(1).is_some())
        };
        assert_eq!((of(&shard, 0), of(&shard, 1)), (Some(false), None));
        shard.install(&install(5, 1, false, one)).unwrap();
        assert_eq!(of(&shard, 1), None);
        assert!(shard.remove(ContextTag::truncate(0)));
        shard.install(&install(1, 1, true, one)).unwrap();
        shard.install(&install(5, 1, false, one)).unwrap();
        assert_eq!(of(&shard, 1), Some(true), "there is room now");
        shard.selfcheck();
    }

    #[test]
    fn a_wish_is_told_once_and_again_after_a_while() {
        let mut forks = Forks::new(2);
        forks.share(9, &pair(0), Classes::only(1));
        let wish = Wish { handle: 3, class: 1 };
        let mut told = |at| forks.wish(9, &pair(0), wish, at).then(|| forks.next_wish());
        assert_eq!(told(0), Some(Some(wish)));
        assert_eq!((told(1), told(AGAIN_MS - 1)), (None, None));
        assert_eq!(told(AGAIN_MS), Some(Some(wish)));
        assert_eq!(forks.next_wish(), None);
        assert!(!forks.wish(9, &pair(1), wish, 0), "a pair without a place");
        let many = (0..1000).filter(|n| forks.wish(9, &pair(0), wish, n * AGAIN_MS + AGAIN_MS * 9)).count();
        assert_eq!(many, WISHES_MAX);
    }
}
