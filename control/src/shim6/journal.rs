//! Which contexts have changed since somebody was told of them: for a copy of all contexts that is kept up to date while they
//! go on changing.
//!
//! The copy begins at the first place of the table and goes through all of them. A change behind that point is noted and told
//! again; one ahead of it is not, since the copy comes there anyway. So everything is told in the end. Contexts that wait are
//! bounded by the table; how many that are gone may wait is for whoever tells it to say.

use std::collections::VecDeque;

use dataplane::wire::ContextTag;

use super::context::ContextId;

/// What has to be told still.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Places before this have been told of once.
    reached: usize,
    /// One bit for each of them: it has changed since.
    changed: Vec<u64>,
    /// The same in the order of the changes.
    queue: VecDeque<u32>,
    /// Tags of contexts that are gone.
    gone: VecDeque<ContextTag>,
}

/// What is to be told next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Of whoever is in this place.
    Place(usize),
    /// That the context with this tag is gone.
    Gone(ContextTag),
}

impl Journal {
    /// The context in a place is there, or is not what it was.
    pub(super) fn note(&mut self, id: ContextId) {
        let (word, bit) = (id.index() / 64, 1 << (id.index() % 64));
        if id.index() >= self.reached || self.changed.get(word).is_some_and(|word| word & bit != 0) {
            return;
        }
        if self.changed.len() <= word {
            self.changed.resize(word + 1, 0);
        }
        self.changed[word] |= bit;
        self.queue.push_back(id.index);
    }

    /// The context that was in this place is gone.
    pub(super) fn note_gone(&mut self, id: ContextId, tag: ContextTag) {
        if id.index() < self.reached {
            self.gone.push_back(tag);
        }
    }

    /// What to tell next, of a table of so many places: first who is gone, so that tags and places are free again for those
    /// who have them now.
    pub(super) fn next(&mut self, places: usize) -> Option<Next> {
        if let Some(tag) = self.gone.pop_front() {
            return Some(Next::Gone(tag));
        }
        if let Some(place) = self.queue.pop_front() {
            let place = place as usize;
            if let Some(word) = self.changed.get_mut(place / 64) {
                *word &= !(1 << (place % 64));
            }
            return Some(Next::Place(place));
        }
        let place = (self.reached < places).then_some(self.reached)?;
        self.reached += 1;
        Some(Next::Place(place))
    }

    /// How much there is to tell.
    pub(super) fn left(&self, places: usize) -> usize {
        self.gone.len() + self.queue.len() + places.saturating_sub(self.reached)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Change(u32),
        Remove(u32),
        Tell(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u32..150).prop_map(Step::Change),
            (0u32..150).prop_map(Step::Remove),
            (0usize..40).prop_map(Step::Tell),
        ]
    }

    proptest! {
        /// Whatever happens while the copy is made, in the end it is what the table is; and nothing is told more often than it
        /// changed, and once.
        #[test]
        fn a_copy_becomes_what_the_table_is(steps in prop::collection::vec(step(), 0..200)) {
            let (mut journal, mut table, mut copy) = (Journal::default(), BTreeMap::new(), BTreeMap::new());
            let (mut stamp, mut places, mut told, mut changes) = (0u64, 0usize, 0usize, 0usize);
            let mut tell = |journal: &mut Journal, table: &BTreeMap<u32, u64>, places, most: usize| {
                for _ in 0..most {
                    match journal.next(places) {
                        None => break,
                        Some(Next::Gone(tag)) => copy.retain(|_, stamp| *stamp != tag.value()),
                        Some(Next::Place(place)) => {
                            if let Some(stamp) = table.get(&(place as u32)) {
                                copy.insert(place as u32, *stamp);
                            }
                        }
                    }
                    told += 1;
                }
                copy.clone()
            };
            for step in steps {
                match step {
                    Step::Change(index) => {
                        // A context keeps its tag when it changes; here each change is another context in its place.
                        stamp += 1;
                        changes += 2;
                        let id = ContextId { index, generation: 0 };
                        if let Some(old) = table.insert(index, stamp) {
                            journal.note_gone(id, ContextTag::truncate(old));
                        }
                        places = places.max(index as usize + 1);
                        journal.note(id);
                    }
                    Step::Remove(index) => {
                        changes += 2;
                        let id = ContextId { index, generation: 0 };
                        if let Some(old) = table.remove(&index) {
                            journal.note(id);
                            journal.note_gone(id, ContextTag::truncate(old));
                        }
                    }
                    Step::Tell(most) => _ = tell(&mut journal, &table, places, most),
                }
            }
            let copy = tell(&mut journal, &table, places, usize::MAX);
            prop_assert_eq!(journal.left(places), 0);
            prop_assert_eq!(copy, table);
            prop_assert!(told <= changes + places);
        }
    }
}
