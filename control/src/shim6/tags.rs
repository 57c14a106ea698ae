//! Context tags (RFC 5533 §4.1, §7.1): unique for the box, unguessable, and telling who owns them.
//!
//! Payload is delivered by its tag alone, so a tag must be unique over all boxes that share locators, and any worker
//! must see from the tag which shard owns the context. Hence the layout, top bit first:
//!
//! ```text
//!  46    43 42      37 36                                  0
//! +--------+----------+-------------------------------------+
//! |  box   |  shard   |               random                |
//! +--------+----------+-------------------------------------+
//! ```
//!
//! 37 random bits are more than the 30 of §7.1. A tag given back is not given out again before many others have been.
//!
//! The low ones of the random bits are the place of the context in its worker's table ([`TagSpace::with_slots`]), so
//! only tags whose place is vacant are drawn. That tells an attacker nothing: of all tags there are, the part that is in
//! use is the same as without it, and which places are taken only the box knows.
//!
//! Boxes that tell each other of their contexts ([`Part`]) have all of them in tables of one size, each under its own tag. So
//! that a copy finds its place vacant, each box fills the places of its part first; only when that is full does it take others.

use std::collections::VecDeque;

use dataplane::context::Shard;
use dataplane::wire::ContextTag;
use hashbrown::HashSet;
use rand::Rng;

/// Bits that name the box: 46 to 43.
pub const BOX_BITS: u32 = 4;
/// Bits that name the shard: 42 to 37.
pub const SHARD_BITS: u32 = 6;
/// Bits nobody can guess: 36 to 0.
pub const RANDOM_BITS: u32 = 37;

const _: () = assert!(BOX_BITS + SHARD_BITS + RANDOM_BITS == ContextTag::BITS);
const _: () = assert!(RANDOM_BITS >= 30);

/// Box that allocated a tag of ours.
pub const fn box_of(tag: ContextTag) -> u8 {
    (tag.value() >> (SHARD_BITS + RANDOM_BITS)) as u8
}

/// Shard that owns the context of a tag of ours.
pub const fn shard_of(tag: ContextTag) -> u8 {
    ((tag.value() >> RANDOM_BITS) & ((1 << SHARD_BITS) - 1)) as u8
}

/// The places that one of several boxes fills first: those whose number leaves `index` when divided by `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which one.
    pub index: u32,
    /// How many boxes there are.
    pub of: u32,
}

impl Part {
    /// The part of a box among so many, by its number.
    pub fn of_box(box_id: u8, boxes: u32) -> Part {
        let of = boxes.max(1);
        Part { index: u32::from(box_id) % of, of }
    }

    /// Whether a place, or any other number that boxes share out, belongs to it.
    pub fn has(self, number: u32) -> bool {
        number % self.of == self.index
    }
}

/// Where tags come from.
#[derive(Debug)]
pub struct TagSpace {
    box_id: u8,
    random_bits: u32,
    /// Where other boxes have a part of the places.
    part: Option<Part>,
    places: Option<Places>,
    resting: VecDeque<ContextTag>,
    resting_set: HashSet<ContextTag>,
}

impl TagSpace {
    /// Tags that rest after use at any time.
    const RESTING_MAX: usize = 1 << 16;
    /// Random draws before the space is taken for full.
    const DRAWS_MAX: usize = 128;

    /// The space of box `box_id`, of which the low four bits count.
    pub fn new(box_id: u8) -> TagSpace {
        Self::with_random_bits(box_id, RANDOM_BITS)
    }

    /// A space with few tags, in which recovery and confusion happen often. For tests only (RFC 5533 App. C.4):
    /// such tags can be guessed.
    pub fn with_random_bits(box_id: u8, random_bits: u32) -> TagSpace {
        TagSpace {
            box_id: box_id & ((1 << BOX_BITS) - 1),
            random_bits: random_bits.min(RANDOM_BITS),
            part: None,
            places: None,
            resting: VecDeque::new(),
            resting_set: HashSet::new(),
        }
    }

    /// The same for workers with tables of `capacity` places each, of which no two tags in use shall share one.
    #[must_use]
    pub fn with_slots(mut self, capacity: u32) -> TagSpace {
        self.places = Some(Places { capacity, taken: Vec::new(), tags: None });
        self
    }

    /// From now on other boxes have their parts of the places, and contexts come here under their tags.
    pub(super) fn share(&mut self, part: Part) {
        self.part = Some(part);
        if let Some(places) = &mut self.places {
            places.tags.get_or_insert_default();
        }
    }

    /// The tag in use that has the place of this one, where boxes share places.
    pub(super) fn in_place_of(&self, tag: ContextTag) -> Option<ContextTag> {
        let places = self.places.as_ref().filter(|places| !places.is_vacant(tag))?;
        let place = Shard::slot_of(tag, places.capacity)?;
        let tags = places.tags.as_ref()?.get(usize::from(shard_of(tag)))?;
        tags.get(place as usize).map(|found| ContextTag::truncate(*found))
    }

    /// As [`TagSpace::allocate`], if need be in the place of a context that goes as soon as there is a tag. Its own tag has to
    /// be `taken`, since that rests first.
    pub(super) fn allocate_for(
        &mut self,
        rng: &mut dyn Rng,
        shard: u8,
        gives_way: Option<ContextTag>,
        taken: impl Fn(ContextTag) -> bool,
    ) -> Option<ContextTag> {
        self.vacate(gives_way, true);
        let tag = self.allocate(rng, shard, taken);
        self.vacate(gives_way, false);
        tag
    }

    fn vacate(&mut self, tag: Option<ContextTag>, vacant: bool) {
        if let (Some(places), Some(tag)) = (&mut self.places, tag) {
            places.set(tag, !vacant);
        }
    }

    /// A tag for a context of `shard` that is not `taken` and did not lately belong to another; none if the space is
    /// full.
    pub(super) fn allocate(
        &mut self,
        rng: &mut dyn Rng,
        shard: u8,
        taken: impl Fn(ContextTag) -> bool,
    ) -> Option<ContextTag> {
        let vacant = |tag| self.places.as_ref().is_none_or(|places| places.is_vacant(tag));
        let free = |tag: &ContextTag| vacant(*tag) && !taken(*tag) && !self.resting_set.contains(tag);
        let own = |tag: &ContextTag| self.is_own(*tag) && free(tag);
        let drawn = (0..Self::DRAWS_MAX).map(|_| self.compose(shard, rng.next_u64())).find(own);
        let found = drawn.or_else(|| {
            // A crowded space is a small one: go through all of it. A large one is never that full.
            let start = rng.next_u64();
            let scanned = if self.random_bits <= 16 { 1u64 << self.random_bits } else { 0 };
            (0..scanned).map(|step| self.compose(shard, start.wrapping_add(step))).find(free)
        });
        // A table that is nearly full: choose a place, and the rest of the bits at random.
        let found = found.or_else(|| self.in_place(rng, shard, self.part?, free));
        found.or_else(|| self.in_place(rng, shard, Part { index: 0, of: 1 }, free))
    }

    /// A tag whose place is a vacant one of a part.
    fn in_place(
        &self,
        rng: &mut dyn Rng,
        shard: u8,
        part: Part,
        free: impl Fn(&ContextTag) -> bool,
    ) -> Option<ContextTag> {
        let places = self.places.as_ref()?;
        let place = places.next_vacant(shard, rng.next_u32(), part)?;
        let tags = (0..Self::DRAWS_MAX).map(|_| places.with_place(place, rng.next_u64()));
        tags.map(|random| self.compose(shard, random)).find(free)
    }

    /// Whether a tag's place is in this box's part.
    fn is_own(&self, tag: ContextTag) -> bool {
        let (Some(part), Some(places)) = (self.part, &self.places) else { return true };
        Shard::slot_of(tag, places.capacity).is_some_and(|place| part.has(place))
    }

    /// A tag that another process allocated, or another box of those that share places, is in use from now on, if it is one of
    /// ours and its place is vacant.
    pub(super) fn claim(&mut self, tag: ContextTag) -> bool {
        let vacant = self.places.as_ref().is_none_or(|places| places.is_vacant(tag));
        let ours = vacant && (box_of(tag) == self.box_id || self.part.is_some());
        if ours {
            self.hold(tag);
        }
        ours
    }

    /// A tag that was allocated is in use from now on.
    pub(super) fn hold(&mut self, tag: ContextTag) {
        if let Some(places) = &mut self.places {
            places.set(tag, true);
        }
    }

    /// Takes back the tag of a context that is gone.
    pub(super) fn release(&mut self, tag: ContextTag) {
        if let Some(places) = &mut self.places {
            places.set(tag, false);
        }
        // A small space must not come to rest as a whole.
        let resting_max = Self::RESTING_MAX.min((1 << self.random_bits.min(30)) / 4);
        if self.resting_set.insert(tag) {
            self.resting.push_back(tag);
        }
        while self.resting.len() > resting_max {
            if let Some(rested) = self.resting.pop_front() {
                self.resting_set.remove(&rested);
            }
        }
    }

    fn compose(&self, shard: u8, random: u64) -> ContextTag {
        let shard = u64::from(shard) & ((1 << SHARD_BITS) - 1);
        let random = random & ((1 << self.random_bits) - 1);
        ContextTag::truncate(u64::from(self.box_id) << (SHARD_BITS + RANDOM_BITS) | shard << RANDOM_BITS | random)
    }
}

/// Which places of the workers' tables are taken: one bit each.
#[derive(Debug)]
struct Places {
    capacity: u32,
    /// By shard; a shard without contexts has none yet.
    taken: Vec<Vec<u64>>,
    /// Where boxes share places, the tags in them.
    tags: Option<Vec<Vec<u64>>>,
}

impl Places {
    fn is_vacant(&self, tag: ContextTag) -> bool {
        let Some(place) = Shard::slot_of(tag, self.capacity) else { return false };
        let words = self.taken.get(usize::from(shard_of(tag)));
        let word = words.and_then(|words| words.get(place as usize / 64)).copied().unwrap_or_default();
        word >> (place % 64) & 1 == 0
    }

    fn set(&mut self, tag: ContextTag, taken: bool) {
        let Some(place) = Shard::slot_of(tag, self.capacity) else { return };
        let shard = usize::from(shard_of(tag));
        if self.taken.len() <= shard {
            self.taken.resize_with(shard + 1, Vec::new);
        }
        if self.taken[shard].is_empty() {
            self.taken[shard] = vec![0; (self.capacity as usize).div_ceil(64)];
        }
        if let Some(tags) = &mut self.tags {
            if tags.len() <= shard {
                tags.resize_with(shard + 1, Vec::new);
            }
            if tags[shard].is_empty() {
                tags[shard] = vec![0; self.capacity as usize];
            }
            tags[shard][place as usize] = tag.value();
        }
        let word = &mut self.taken[shard][place as usize / 64];
        *word = *word & !(1 << (place % 64)) | u64::from(taken) << (place % 64);
    }

    /// The first vacant place at or after a random one, round the end. Reads whole words: a table of sixteen million places
    /// with one vacant takes some tens of microseconds.
    fn next_vacant(&self, shard: u8, start: u32, part: Part) -> Option<u32> {
        let words = self.taken.get(usize::from(shard)).filter(|words| !words.is_empty())?;
        let first = start as usize % words.len();
        (0..words.len()).map(|step| (first + step) % words.len()).filter(|at| words[*at] != u64::MAX).find_map(|at| {
            let vacant = |bit: &u32| words[at] >> bit & 1 == 0;
            let places = (0..64).filter(vacant).map(|bit| at as u32 * 64 + bit);
            places.filter(|place| *place < self.capacity).find(|place| part.has(*place))
        })
    }

    /// Random bits whose place is the given one.
    fn with_place(&self, place: u32, random: u64) -> u64 {
        let mask = u64::from(self.capacity.max(1)).next_power_of_two() - 1;
        random & !mask | u64::from(place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_tag_names_its_box_and_its_shard() {
        let mut rng = StdRng::seed_from_u64(1);
        let tag = TagSpace::new(11).allocate(&mut rng, 37, |_| false).unwrap();
        assert_eq!((box_of(tag), shard_of(tag)), (11, 37));
    }

    #[test]
    fn a_small_space_is_used_up_without_duplicates() {
        // R5533-123, R5533-317: seven bits make 128 tags.
        let mut rng = StdRng::seed_from_u64(2);
        let mut space = TagSpace::with_random_bits(0, 7);
        let mut live = HashSet::new();
        while let Some(tag) = space.allocate(&mut rng, 0, |tag| live.contains(&tag)) {
            assert!(live.insert(tag));
        }
        assert_eq!(live.len(), 128);
    }

    #[test]
    fn a_tag_given_back_is_not_given_out_soon() {
        // R5533-125, R5533-126
        let mut rng = StdRng::seed_from_u64(3);
        let mut space = TagSpace::with_random_bits(0, 7);
        let mut last = VecDeque::new();
        for _ in 0..10_000 {
            let tag = space.allocate(&mut rng, 0, |_| false).unwrap();
            assert!(!last.contains(&tag), "{tag} came back at once");
            space.release(tag);
            last.push_back(tag);
            if last.len() > 32 {
                last.pop_front();
            }
        }
    }

    proptest! {
        /// Each tag in use has a place of its own, until the last; and a place given back is used again.
        #[test]
        fn tables_are_filled_to_the_last_place(capacity in 1u32..300, shards in 1u8..4, seed: u64, gone in 0usize..50) {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut space = TagSpace::new(3).with_slots(capacity);
            let mut places = HashSet::new();
            let mut tags = Vec::new();
            for round in 0..2 {
                for shard in 0..shards {
                    while let Some(tag) = space.allocate(&mut rng, shard, |_| false) {
                        prop_assert_eq!((box_of(tag), shard_of(tag)), (3, shard));
                        let place = Shard::slot_of(tag, capacity);
                        prop_assert!(place.is_some() && places.insert((shard, place)), "{tag} shares a place");
                        space.hold(tag);
                        tags.push(tag);
                    }
                }
                prop_assert_eq!(places.len(), capacity as usize * usize::from(shards), "round {}", round);
                for tag in tags.drain(..gone.min(tags.len())) {
                    space.release(tag);
                    places.remove(&(shard_of(tag), Shard::slot_of(tag, capacity)));
                }
            }
        }
    }

    proptest! {
        /// Boxes that share places never take the same one, and all of each other's tags have room, until one has filled its
        /// part; then it takes what is left.
        #[test]
        fn boxes_keep_to_their_parts(capacity in 8u32..300, boxes in 2u32..5, seed: u64) {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut spaces: Vec<TagSpace> = (0..boxes)
                .map(|index| {
                    let mut space = TagSpace::new(index as u8 + 1).with_slots(capacity);
                    space.share(Part::of_box(index as u8 + 1, boxes));
                    space
                })
                .collect();
            for _ in 0..capacity / boxes {
                for at in 0..spaces.len() {
                    let tag = spaces[at].allocate(&mut rng, 0, |_| false).unwrap();
                    spaces[at].hold(tag);
                    prop_assert_eq!(usize::from(box_of(tag)), at + 1);
                    for (other, space) in spaces.iter_mut().enumerate().filter(|(other, _)| *other != at) {
                        prop_assert!(space.claim(tag), "{tag} has no place at {other}");
                    }
                }
            }
            let left = capacity - capacity / boxes * boxes;
            let space = &mut spaces[0];
            for _ in 0..left {
                let tag = space.allocate(&mut rng, 0, |_| false).unwrap();
                space.hold(tag);
            }
            prop_assert_eq!(space.allocate(&mut rng, 0, |_| false), None);
        }
    }

    #[test]
    fn who_shares_with_nobody_takes_no_tags_of_others() {
        let tag = ContextTag::truncate(5 << (SHARD_BITS + RANDOM_BITS) | 77);
        assert!(!TagSpace::new(4).with_slots(100).claim(tag));
        assert!(TagSpace::new(5).with_slots(100).claim(tag));
    }

    #[test]
    fn in_a_full_table_at_least_the_other_bits_are_random() {
        // R5533-124: of a million places one is vacant; 17 bits of its tag are drawn anew each time. An attacker does not
        // know which place it is.
        let mut rng = StdRng::seed_from_u64(6);
        let capacity = 1 << 20;
        let mut space = TagSpace::new(0).with_slots(capacity);
        (0..capacity)
            .filter(|place| *place != 777_777)
            .for_each(|place| space.hold(ContextTag::truncate(place.into())));
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let tag = space.allocate(&mut rng, 0, |_| false).unwrap();
            assert_eq!(Shard::slot_of(tag, capacity), Some(777_777));
            seen.insert(tag);
        }
        assert!(seen.len() > 950, "{} different tags", seen.len());
    }

    #[test]
    fn every_random_bit_is_random() {
        // R5533-124: each bit is set in about half of the tags, and differs from its neighbour in about half.
        let mut rng = StdRng::seed_from_u64(4);
        let mut space = TagSpace::new(0).with_slots(1 << 16);
        let tags: Vec<u64> = (0..4096).map(|_| space.allocate(&mut rng, 0, |_| false).unwrap().value()).collect();
        for bit in 0..RANDOM_BITS {
            let ones = tags.iter().filter(|tag| **tag >> bit & 1 == 1).count();
            assert!((1800..2300).contains(&ones), "bit {bit}: {ones} ones of 4096");
            let unequal =
                tags.iter().filter(|tag| (**tag >> bit ^ **tag >> ((bit + 1) % RANDOM_BITS)) & 1 == 1).count();
            assert!((1800..2300).contains(&unequal), "bits {bit} and next: {unequal} differ of 4096");
        }
    }
}
