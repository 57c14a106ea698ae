//! What each of the other boxes has still to be told of the contexts here (docs/decisions: state sync).
//!
//! Unlike a copy for a successor ([`super::journal`]) this never ends: a box that is told comes and goes, and changes go on.
//! One bit for each place says that whoever is there has changed since that box was last told of it; changes stand in a queue as
//! well, so that they do not wait for the rest when everything is told anew. What is told is always the state at that moment, so
//! a context that changes ten times before its turn comes is told once. Memory is bounded by the table: two bits and one place in
//! the queue for each place, and [`GONE_MAX`] tags of contexts that are gone.

use std::collections::VecDeque;

use dataplane::wire::ContextTag;
use hashbrown::HashMap;

use super::context::{Context, ContextId, Stamp};
use super::output::GoneReason;

/// Most contexts that are gone and of which a box has not been told. Of what is beyond that it never hears; such a context ends
/// there by itself when nobody uses it.
const GONE_MAX: usize = 1 << 20;
/// Most contexts that are gone and remembered here, so that nobody brings them back who has not heard yet.
const TOMBS_MAX: usize = 1 << 16;

/// What one box has still to be told.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    dirty: Vec<u64>,
    /// How many bits are set.
    count: usize,
    /// Places that have changed, in order, each once. The bit counts: one that is clear was told since.
    queue: VecDeque<u32>,
    /// Which stand in the queue.
    queued: Vec<u64>,
    gone: VecDeque<(ContextTag, Stamp)>,
    /// The next place of those that are told anew, and the end of them.
    sweep: (usize, usize),
    /// Whose turn it is, that of what has changed or that of the rest.
    turn: bool,
}

/// What is to be told next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Of whoever is in this place, if anybody is.
    Place(usize),
    /// That the context with this tag is gone since.
    Gone(ContextTag, Stamp),
}

impl Ledger {
    /// Everything is to be told, of a table of so many places.
    pub(super) fn begin(&mut self, places: usize) {
        self.dirty.clear();
        self.dirty.resize(places / 64, u64::MAX);
        if !places.is_multiple_of(64) {
            self.dirty.push((1 << (places % 64)) - 1);
        }
        self.count = places;
        self.queue.clear();
        self.queued.fill(0);
        self.gone.clear();
        self.sweep = (0, places);
    }

    /// Nothing is to be told any more, until somebody begins again.
    pub(super) fn end(&mut self) {
        *self = Ledger::default();
    }

    /// Whoever is in a place has changed.
    pub(super) fn note(&mut self, place: u32) {
        let (word, bit) = (place as usize / 64, 1 << (place % 64));
        if self.dirty.len() <= word {
            self.dirty.resize(word + 1, 0);
        }
        self.count += usize::from(self.dirty[word] & bit == 0);
        self.dirty[word] |= bit;
        // Also what is told anyway: what is in use comes first.
        if self.queued.len() <= word {
            self.queued.resize(word + 1, 0);
        }
        if self.queued[word] & bit == 0 {
            self.queued[word] |= bit;
            self.queue.push_back(place);
        }
    }

    /// The other box knows what is in a place: it told us.
    pub(super) fn settle(&mut self, place: u32) -> bool {
        let (word, bit) = (place as usize / 64, 1 << (place % 64));
        let was = self.dirty.get(word).is_some_and(|word| word & bit != 0);
        if was {
            self.dirty[word] &= !bit;
            self.count -= 1;
        }
        was
    }

    fn note_gone(&mut self, tag: ContextTag, stamp: Stamp) {
        if self.gone.len() >= GONE_MAX {
            self.gone.pop_front();
        }
        self.gone.push_back((tag, stamp));
    }

    /// What to tell next. First who is gone, so that places and pairs are free for those who have them now; then in turn what has
    /// changed and what is told anew. Each thing that is looked at on the way takes one from `looks`; when none is left there may be
    /// more.
    pub(super) fn next(&mut self, looks: &mut usize) -> Option<Due> {
        if let Some((tag, stamp)) = self.gone.pop_front() {
            return Some(Due::Gone(tag, stamp));
        }
        self.turn = !self.turn;
        let found = if self.turn {
            self.changed(looks).or_else(|| self.swept(looks))
        } else {
            self.swept(looks).or_else(|| self.changed(looks))
        };
        found.map(|place| Due::Place(place as usize))
    }

    fn changed(&mut self, looks: &mut usize) -> Option<u32> {
        while !self.queue.is_empty()
            && look(looks)
            && let Some(place) = self.queue.pop_front()
        {
            if let Some(word) = self.queued.get_mut(place as usize / 64) {
                *word &= !(1 << (place % 64));
            }
            if self.settle(place) {
                return Some(place);
            }
        }
        None
    }

    fn swept(&mut self, looks: &mut usize) -> Option<u32> {
        while self.sweep.0 < self.sweep.1 {
            if !look(looks) {
                return None;
            }
            let (at, word) = (self.sweep.0, self.dirty.get(self.sweep.0 / 64).copied().unwrap_or_default());
            let ahead = word >> (at % 64);
            if ahead == 0 {
                self.sweep.0 = (at / 64 + 1) * 64;
                continue;
            }
            let place = at + ahead.trailing_zeros() as usize;
            if place >= self.sweep.1 {
                break;
            }
            self.sweep.0 = place + 1;
            self.settle(place as u32);
            return Some(place as u32);
        }
        self.sweep.0 = self.sweep.1;
        None
    }

    /// Whether all that was there when it began has been told.
    pub(super) fn has_told_all(&self) -> bool {
        self.sweep.0 >= self.sweep.1
    }

    /// How much there is to tell.
    pub(super) fn left(&self) -> usize {
        self.gone.len() + self.count
    }
}

/// Takes one of the looks that are left, if there is one.
fn look(looks: &mut usize) -> bool {
    let left = looks.checked_sub(1);
    *looks = left.unwrap_or_default();
    left.is_some()
}

/// The boxes that tell each other of their contexts, as far as the table of contexts has to do with them.
#[derive(Debug)]
pub(super) struct Group {
    box_id: u8,
    /// The group's clock, as far as it was ever seen.
    clock: u64,
    /// What the others have to be told; none for those that are not there.
    ledgers: Vec<Option<Ledger>>,
    tombs: HashMap<ContextTag, Stamp>,
    buried: VecDeque<ContextTag>,
}

impl Group {
    pub(super) fn new(box_id: u8, others: usize) -> Group {
        let ledgers = (0..others).map(|_| None).collect();
        Group { box_id, clock: 0, ledgers, tombs: HashMap::new(), buried: VecDeque::new() }
    }

    /// The group's clock is at least this.
    pub(super) fn advance(&mut self, clock: u64) {
        self.clock = self.clock.max(clock);
    }

    pub(super) fn clock(&self) -> u64 {
        self.clock
    }

    pub(super) fn box_id(&self) -> u8 {
        self.box_id
    }

    fn tick(&mut self) -> Stamp {
        self.clock = self.clock.saturating_add(1);
        Stamp::new(self.clock, self.box_id)
    }

    /// This box changed a context.
    pub(super) fn changed(&mut self, id: ContextId) -> Stamp {
        self.ledgers.iter_mut().flatten().for_each(|ledger| ledger.note(id.index));
        self.tick()
    }

    /// This box gives a context up. The others hear of it, if it is this box's to say.
    pub(super) fn gone(&mut self, context: &Context, reason: GoneReason) {
        if context.mirrored || !context.state.carries_payload() {
            return;
        }
        // One that nobody used here may have been used elsewhere since.
        let stamp = if reason == GoneReason::Idle { context.stamp } else { self.tick() };
        self.bury(context.local_tag, stamp);
        self.ledgers.iter_mut().flatten().for_each(|ledger| ledger.note_gone(context.local_tag, stamp));
    }

    /// A context gave way to another one.
    pub(super) fn superseded(&mut self, tag: ContextTag, stamp: Stamp) {
        self.bury(tag, stamp);
        self.ledgers.iter_mut().flatten().for_each(|ledger| ledger.note_gone(tag, stamp));
    }

    /// A context of this box does not carry payload for a while.
    pub(super) fn suspended(&mut self, tag: ContextTag) {
        let stamp = self.tick();
        self.ledgers.iter_mut().flatten().for_each(|ledger| ledger.note_gone(tag, stamp));
    }

    /// A context is gone since.
    pub(super) fn bury(&mut self, tag: ContextTag, stamp: Stamp) {
        let known = self.tombs.entry(tag).or_insert_with(|| {
            self.buried.push_back(tag);
            stamp
        });
        *known = (*known).max(stamp);
        while self.buried.len() > TOMBS_MAX {
            if let Some(tag) = self.buried.pop_front() {
                self.tombs.remove(&tag);
            }
        }
    }

    /// Whether a version of a context is older than its end.
    pub(super) fn has_ended(&self, tag: ContextTag, stamp: Stamp) -> bool {
        self.tombs.get(&tag).is_some_and(|end| *end >= stamp)
    }

    /// What one of the others has to be told.
    pub(super) fn ledger(&mut self, other: usize) -> Option<&mut Ledger> {
        self.ledgers.get_mut(other)?.as_mut()
    }

    /// The same to read.
    pub(super) fn ledger_of(&self, other: usize) -> Option<&Ledger> {
        self.ledgers.get(other)?.as_ref()
    }

    /// One of the others has to be told everything.
    pub(super) fn begin(&mut self, other: usize, places: usize) {
        if let Some(place) = self.ledgers.get_mut(other) {
            place.get_or_insert_with(Ledger::default).begin(places);
        }
    }

    /// One of the others is not there.
    pub(super) fn end(&mut self, other: usize) {
        if let Some(place) = self.ledgers.get_mut(other) {
            place.iter_mut().for_each(Ledger::end);
            *place = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Far fewer than there are steps, so that a queue which grows with time is seen.
    const PLACES: u32 = 40;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Change(u32),
        Settle(u32),
        Begin,
        Tell(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..PLACES).prop_map(Step::Change),
            4 => (0..PLACES).prop_map(Step::Settle),
            1 => Just(Step::Begin),
            2 => (0usize..40).prop_map(Step::Tell),
        ]
    }

    proptest! {
        /// Whatever changes and whenever it begins anew, all that changed is told after it changed, and memory is bounded.
        #[test]
        fn what_changed_is_told_afterwards(steps in prop::collection::vec(step(), 0..400)) {
            let (mut ledger, mut table, mut copy) = (Ledger::default(), BTreeMap::new(), BTreeMap::new());
            let (mut version, mut places) = (0u64, 0usize);
            ledger.begin(0);
            for step in steps {
                match step {
                    Step::Change(place) => {
                        version += 1;
                        table.insert(place as usize, version);
                        places = places.max(place as usize + 1);
                        ledger.note(place);
                    }
                    Step::Settle(place) => {
                        // The other one says what it has: that is what is here now.
                        if let Some(version) = table.get(&(place as usize)) {
                            copy.insert(place as usize, *version);
                        }
                        ledger.settle(place);
                    }
                    Step::Begin => {
                        copy.clear();
                        ledger.begin(places);
                    }
                    Step::Tell(most) => {
                        for _ in 0..most {
                            let Some(Due::Place(place)) = ledger.next(&mut usize::MAX.clone()) else { break };
                            if let Some(version) = table.get(&place) {
                                copy.insert(place, *version);
                            }
                        }
                    }
                }
                let set: u32 = ledger.dirty.iter().map(|word| word.count_ones()).sum();
                prop_assert_eq!(set as usize, ledger.count);
                prop_assert!(ledger.queue.len() <= PLACES as usize);
            }
            while let Some(due) = ledger.next(&mut usize::MAX.clone()) {
                let Due::Place(place) = due else { continue };
                if let Some(version) = table.get(&place) {
                    copy.insert(place, *version);
                }
            }
            prop_assert_eq!(copy, table);
            prop_assert_eq!(ledger.left(), 0);
            prop_assert!(ledger.has_told_all());
        }
    }

    #[test]
    fn what_changes_does_not_wait_for_the_rest() {
        let mut ledger = Ledger::default();
        ledger.begin(1_000_000);
        ledger.note(999_999);
        let told: Vec<Due> = (0..4).filter_map(|_| ledger.next(&mut 10)).collect();
        assert!(told.contains(&Due::Place(999_999)), "{told:?}");
        assert_eq!(ledger.left(), 999_996);
    }

    #[test]
    fn a_context_that_goes_to_and_fro_while_a_box_is_away_stands_in_the_queue_once() {
        let mut ledger = Ledger::default();
        ledger.begin(0);
        for _ in 0..1000 {
            ledger.note(7);
            ledger.settle(7);
        }
        ledger.note(7);
        assert_eq!((ledger.queue.len(), ledger.left()), (1, 1));
        assert_eq!((ledger.next(&mut 10), ledger.next(&mut 10)), (Some(Due::Place(7)), None));
    }

    #[test]
    fn no_turn_looks_at_everything_that_was_settled_meanwhile() {
        let mut ledger = Ledger::default();
        ledger.begin(64 * 100);
        (0..64 * 100).for_each(|place| ledger.note(place));
        (0..64 * 100).for_each(|place| _ = ledger.settle(place));
        let mut turns = 0;
        while !(ledger.has_told_all() && ledger.queue.is_empty()) {
            let mut looks = 50;
            assert_eq!((ledger.next(&mut looks), looks), (None, 0));
            turns += 1;
        }
        assert_eq!(turns, (64 * 100 + 100) / 50);
    }

    #[test]
    fn the_end_of_a_context_outlives_older_versions_of_it_and_no_later_ones() {
        let mut group = Group::new(3, 1);
        let (tag, early, late) = (ContextTag::truncate(9), Stamp::new(10, 3), Stamp::new(11, 2));
        group.bury(tag, early);
        assert!(group.has_ended(tag, early) && !group.has_ended(tag, late));
        group.bury(tag, late);
        assert!(group.has_ended(tag, late));
        for other in 0..2 * TOMBS_MAX as u64 {
            group.bury(ContextTag::truncate(other + 100), early);
        }
        assert_eq!((group.tombs.len(), group.buried.len()), (TOMBS_MAX, TOMBS_MAX));
        assert!(!group.has_ended(tag, late));
    }
}
