//! All contexts of the box, and the ways to find one.
//!
//! A context is changed in place and then *settled*: the indices take from it what they are ordered by. Nothing here
//! walks all contexts, except the iterator that says so.

use std::hash::BuildHasher;
use std::ops::Range;

use dataplane::wire::{ContextTag, FlowLabel, Ulid, UlidPair};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use super::context::{Context, ContextId, Stamp, State};
use super::journal::Journal;
use super::ledger::Group;
use crate::chains::Chains;
use crate::time::Instant;
use crate::wheel::Wheel;

/// Timers that are moved in one call, so that none takes long.
const MOVES_MAX: usize = 4096;

/// The contexts and their indices. Those that a packet is looked up in hold places alone, and the keys stand in the contexts.
#[derive(Default)]
pub(super) struct Store {
    slots: Vec<Slot>,
    free: Vec<u32>,
    hasher: DefaultHashBuilder,
    by_ulids: HashTable<u32>,
    by_local_tag: HashTable<u32>,
    by_peer_tag: Chains<ContextTag>,
    by_peer_label: Chains<FlowLabel>,
    by_nonce: Chains<u32>,
    by_host: Chains<Ulid>,
    deadlines: Wheel,
    /// Forks of a pair of ULIDs, where there are any.
    forks: HashMap<UlidPair, usize>,
    /// How many were accepted from each /64.
    accepted_from: HashMap<u64, usize>,
    /// Accepted and not used, the oldest first.
    unused: Chains<()>,
    /// The same for each /64.
    unused_of: Chains<u64>,
    /// Of changes, while somebody makes a copy.
    pub(super) journal: Option<Journal>,
    /// Where other boxes are told of contexts as well.
    pub(super) group: Option<Box<Group>>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    context: Option<Box<Context>>,
    indexed: Indexed,
}

/// Where the changing indices have a context now.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Indexed {
    peer_tag: Option<ContextTag>,
    peer_label: Option<FlowLabel>,
    nonce: Option<u32>,
    unused: Option<u64>,
}

impl Store {
    pub(super) fn len(&self) -> usize {
        self.by_local_tag.len()
    }

    /// Takes room for so many contexts, so that no later one has to wait while tables grow. What is not used costs address
    /// space and no memory.
    pub(super) fn reserve(&mut self, contexts: usize) {
        let Store { slots, hasher, by_ulids, by_local_tag, .. } = self;
        by_ulids.reserve(contexts, |place| ulids_hash(hasher, slots, *place));
        by_local_tag.reserve(contexts, |place| tag_hash(hasher, slots, *place));
    }

    /// The name that the next context inserted will have.
    pub(super) fn next_id(&self) -> ContextId {
        let index = self.free.last().copied().unwrap_or(self.slots.len() as u32);
        let generation = self.slots.get(index as usize).map_or(0, |slot| slot.generation);
        ContextId { index, generation }
    }

    /// Takes in a context that was made for [`Store::next_id`].
    pub(super) fn insert(&mut self, mut context: Context) {
        let id = context.id;
        debug_assert_eq!(id, self.next_id());
        self.note_for_copy(id);
        // One that another box told of has its stamp, and is news to nobody.
        if let Some(group) = self.group.as_mut().filter(|_| context.stamp == Stamp::NONE) {
            context.stamp = group.changed(id);
        }
        if self.free.pop().is_none() {
            self.slots.push(Slot::default());
        }
        let (ulids, fork, local_tag) = (context.ulids, context.fork, context.local_tag);
        self.by_host.join(ulids.local, id.index);
        if fork != 0 {
            *self.forks.entry(ulids).or_default() += 1;
        }
        if let Some(accepted) = context.accepted {
            *self.accepted_from.entry(accepted.prefix).or_default() += 1;
        }
        if let Some(slot) = self.slots.get_mut(id.index()) {
            slot.context = Some(Box::new(context));
        }
        let Store { slots, hasher, by_ulids, by_local_tag, .. } = self;
        let hash = hasher.hash_one((ulids, fork));
        by_ulids.insert_unique(hash, id.index, |place| ulids_hash(hasher, slots, *place));
        by_local_tag.insert_unique(hasher.hash_one(local_tag), id.index, |place| tag_hash(hasher, slots, *place));
        self.settle(id);
    }

    pub(super) fn remove(&mut self, id: ContextId) -> Option<Box<Context>> {
        let slot = self.slots.get_mut(id.index()).filter(|slot| slot.generation == id.generation)?;
        let context = slot.context.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        if let Some(journal) = &mut self.journal {
            journal.note_gone(id, context.local_tag);
        }
        self.settle(id);
        self.by_host.leave(context.ulids.local, id.index);
        let Store { hasher, by_ulids, by_local_tag, .. } = self;
        let hash = hasher.hash_one((context.ulids, context.fork));
        let _ = by_ulids.find_entry(hash, |place| *place == id.index).map(|entry| entry.remove());
        let hash = hasher.hash_one(context.local_tag);
        let _ = by_local_tag.find_entry(hash, |place| *place == id.index).map(|entry| entry.remove());
        if context.fork != 0 {
            less(&mut self.forks, context.ulids);
        }
        if let Some(accepted) = context.accepted {
            less(&mut self.accepted_from, accepted.prefix);
        }
        self.free.push(id.index);
        Some(context)
    }

    pub(super) fn get(&self, id: ContextId) -> Option<&Context> {
        let slot = self.slots.get(id.index()).filter(|slot| slot.generation == id.generation)?;
        slot.context.as_deref()
    }

    /// To be followed by [`Store::settle`].
    pub(super) fn get_mut(&mut self, id: ContextId) -> Option<&mut Context> {
        self.note(id);
        self.get_mut_unnoted(id)
    }

    /// The same for a change that no copy of the context needs to hear of.
    pub(super) fn get_mut_unnoted(&mut self, id: ContextId) -> Option<&mut Context> {
        let slot = self.slots.get_mut(id.index()).filter(|slot| slot.generation == id.generation)?;
        slot.context.as_deref_mut()
    }

    /// A copy of the context is out of date, and this box runs it, if another one did.
    pub(super) fn note(&mut self, id: ContextId) {
        self.note_for_copy(id);
        let Some(group) = self.group.as_mut() else { return };
        let slot = self.slots.get_mut(id.index()).filter(|slot| slot.generation == id.generation);
        if let Some(context) = slot.and_then(|slot| slot.context.as_deref_mut()) {
            (context.stamp, context.mirrored) = (group.changed(id), false);
        }
    }

    /// The copy for a successor is out of date.
    pub(super) fn note_for_copy(&mut self, id: ContextId) {
        if let Some(journal) = &mut self.journal {
            journal.note(id);
        }
    }

    /// Brings the indices up to date with the context, or with its absence.
    pub(super) fn settle(&mut self, id: ContextId) {
        let Some(slot) = self.slots.get_mut(id.index()) else { return };
        let old = slot.indexed;
        let context = slot.context.as_deref();
        let deadline = context.map(Context::deadline);
        let new = context.map_or_else(Indexed::default, |context| Indexed {
            peer_tag: context.peer_tag,
            peer_label: context.peer_label,
            nonce: context.exchange.as_ref().map(|exchange| exchange.nonce),
            unused: context.unused().map(|(prefix, _)| prefix),
        });
        slot.indexed = new;
        self.deadlines.set(id.index, deadline);
        self.by_peer_tag.settle(id.index, old.peer_tag, new.peer_tag);
        self.by_peer_label.settle(id.index, old.peer_label, new.peer_label);
        self.by_nonce.settle(id.index, old.nonce, new.nonce);
        self.unused.settle(id.index, old.unused.map(|_| ()), new.unused.map(|_| ()));
        self.unused_of.settle(id.index, old.unused, new.unused);
    }

    pub(super) fn by_ulids(&self, ulids: UlidPair, fork: u32) -> Option<&Context> {
        let hash = self.hasher.hash_one((ulids, fork));
        let meant = |context: &Context| (context.ulids, context.fork) == (ulids, fork);
        self.at(*self.by_ulids.find(hash, |place| self.at(*place).is_some_and(meant))?)
    }

    pub(super) fn by_local_tag(&self, tag: ContextTag) -> Option<&Context> {
        let hash = self.hasher.hash_one(tag);
        let meant = |context: &Context| context.local_tag == tag;
        self.at(*self.by_local_tag.find(hash, |place| self.at(*place).is_some_and(meant))?)
    }

    /// Contexts whose peer chose this tag: several peers may choose the same.
    pub(super) fn by_peer_tag(&self, tag: ContextTag) -> impl Iterator<Item = &Context> {
        self.by_peer_tag.iter(tag).filter_map(|index| self.at(index))
    }

    /// How many those are.
    pub(super) fn count_of_peer_tag(&self, tag: ContextTag) -> usize {
        self.by_peer_tag.count(tag)
    }

    /// Contexts whose peer offered this flow label.
    pub(super) fn by_peer_label(&self, label: FlowLabel) -> impl Iterator<Item = &Context> {
        self.by_peer_label.iter(label).filter_map(|index| self.at(index))
    }

    /// How many those are.
    pub(super) fn count_of_peer_label(&self, label: FlowLabel) -> usize {
        self.by_peer_label.count(label)
    }

    /// Contexts with an exchange under way that has this Initiator Nonce.
    pub(super) fn by_nonce(&self, nonce: u32) -> impl Iterator<Item = &Context> {
        self.by_nonce.iter(nonce).filter_map(|index| self.at(index))
    }

    /// Contexts of one local ULID, the oldest first.
    pub(super) fn by_host(&self, ulid: Ulid) -> impl Iterator<Item = &Context> {
        self.by_host.iter(ulid).filter_map(|index| self.at(index))
    }

    /// Number of contexts of one local ULID.
    pub(super) fn count_of(&self, ulid: Ulid) -> usize {
        self.by_host.count(ulid)
    }

    /// Number of contexts with an exchange under way.
    pub(super) fn exchanges(&self) -> usize {
        self.by_nonce.len()
    }

    /// Number of forked contexts of these ULIDs, which does not count the default one.
    pub(super) fn forks(&self, ulids: UlidPair) -> usize {
        self.forks.get(&ulids).copied().unwrap_or_default()
    }

    /// Number of contexts accepted from a /64.
    pub(super) fn accepted_from(&self, prefix: u64) -> usize {
        self.accepted_from.get(&prefix).copied().unwrap_or_default()
    }

    /// The accepted context that has been unused for longest, and since when it is there. One that was wanted for a while,
    /// since its peer seemed to have lost it, counts from then.
    pub(super) fn oldest_unused(&self) -> Option<(Instant, ContextId)> {
        self.unused_since(self.unused.first(())?)
    }

    /// The same among those from a /64.
    pub(super) fn oldest_unused_of(&self, prefix: u64) -> Option<(Instant, ContextId)> {
        self.unused_since(self.unused_of.first(prefix)?)
    }

    fn unused_since(&self, index: u32) -> Option<(Instant, ContextId)> {
        let context = self.at(index)?;
        context.unused().map(|(_, since)| (since, context.id))
    }

    /// A context whose deadline has come; [`Store::settle`] gives it the next one. `moves` begins as [`Store::moves`].
    pub(super) fn next_due(&mut self, now: Instant, moves: &mut usize) -> Option<ContextId> {
        while let Some((_, index)) = self.deadlines.pop(now, moves) {
            if let Some(context) = self.at(index) {
                return Some(context.id);
            }
        }
        None
    }

    /// How much may be done in one call to find out what is due.
    pub(super) fn moves() -> usize {
        MOVES_MAX
    }

    /// No deadline is earlier.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.deadlines.deadline()
    }

    /// All contexts, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Context> {
        self.slots.iter().filter_map(|slot| slot.context.as_deref())
    }

    /// Places that contexts have or had. Never less than before.
    pub(super) fn places(&self) -> usize {
        self.slots.len()
    }

    /// The contexts in some of them, in order.
    pub(super) fn in_places(&self, places: Range<usize>) -> impl Iterator<Item = &Context> {
        let end = places.end.min(self.slots.len());
        let slots = self.slots.get(places.start.min(end)..end).unwrap_or_default();
        slots.iter().filter_map(|slot| slot.context.as_deref())
    }

    /// All contexts, ordered by ULIDs and fork. Takes long: for tests.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Context> {
        let mut all: Vec<&Context> = self.iter().collect();
        all.sort_unstable_by_key(|context| (context.ulids, context.fork));
        all.into_iter()
    }

    fn at(&self, index: u32) -> Option<&Context> {
        self.slots.get(index as usize)?.context.as_deref()
    }

    /// Panics if an index disagrees with the contexts. For tests; walks everything.
    pub(super) fn selfcheck(&self) {
        let count = self.iter().count();
        assert_eq!(count, self.by_ulids.len(), "one ULID pair and fork each");
        assert_eq!(count, self.by_local_tag.len(), "one local tag each");
        assert_eq!(count, self.deadlines.len(), "one deadline each");
        assert_eq!(count, self.by_host.len(), "one host each");
        assert_eq!(self.iter().filter(|c| c.fork != 0).count(), self.forks.values().sum::<usize>());
        assert_eq!(count + self.free.len(), self.slots.len(), "a slot is used or free");
        assert_eq!(self.iter().filter(|c| c.peer_tag.is_some()).count(), self.by_peer_tag.len());
        assert_eq!(self.iter().filter(|c| c.peer_label.is_some()).count(), self.by_peer_label.len());
        assert_eq!(self.iter().filter(|c| c.exchange.is_some()).count(), self.by_nonce.len());
        assert_eq!(self.iter().filter(|c| c.accepted.is_some()).count(), self.accepted_from.values().sum::<usize>());
        let unused = self.iter().filter(|c| c.unused().is_some()).count();
        assert_eq!([self.unused.len(), self.unused_of.len()], [unused; 2], "one place each");
        for context in self.iter() {
            let index = context.id.index;
            assert_eq!(self.get(context.id).map(|found| found.local_tag), Some(context.local_tag));
            assert_eq!(self.by_ulids(context.ulids, context.fork).map(|found| found.id), Some(context.id));
            assert_eq!(self.by_local_tag(context.local_tag).map(|found| found.id), Some(context.id));
            assert_eq!(self.deadlines.at(index), Some(context.deadline()));
            assert!(self.by_host.iter(context.ulids.local).any(|at| at == index));
            assert!(context.peer_tag.is_none_or(|tag| self.by_peer_tag.iter(tag).any(|at| at == index)));
            assert!(context.exchange.iter().all(|it| self.by_nonce.iter(it.nonce).any(|at| at == index)));
            if let Some((prefix, _)) = context.unused() {
                assert!(self.unused_of.iter(prefix).any(|at| at == index));
            }
            let asking = matches!(context.state, State::I1Sent | State::I2Sent | State::I2bisSent);
            assert_eq!(context.exchange.is_some(), asking, "an exchange while one is under way");
            assert!(asking || context.state == State::Established, "no object for {:?}", context.state);
            assert!(!context.state.carries_payload() || context.peer_tag.is_some(), "sending needs the peer's tag");
        }
    }
}

fn ulids_hash(hasher: &DefaultHashBuilder, slots: &[Slot], place: u32) -> u64 {
    let context = slots.get(place as usize).and_then(|slot| slot.context.as_deref());
    context.map_or(0, |context| hasher.hash_one((context.ulids, context.fork)))
}

fn tag_hash(hasher: &DefaultHashBuilder, slots: &[Slot], place: u32) -> u64 {
    let context = slots.get(place as usize).and_then(|slot| slot.context.as_deref());
    context.map_or(0, |context| hasher.hash_one(context.local_tag))
}

/// One less of what is counted; what there is none of is not kept.
fn less<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: K) {
    let left = counts.get_mut(&key).map_or(0, |count| {
        *count -= 1;
        *count
    });
    if left == 0 {
        counts.remove(&key);
    }
}
