//! All contexts of the box, and the ways to find one.
//!
//! A context is changed in place and then *settled*: the indices take from it what they are ordered by. Nothing here
//! walks all contexts, except the iterator that says so.

use std::collections::{BTreeMap, BTreeSet};

use dataplane::wire::{ContextTag, FlowLabel, Ulid, UlidPair};
use hashbrown::HashMap;

use super::context::{Context, ContextId, State};
use crate::time::Instant;

/// The contexts and their indices.
#[derive(Default)]
pub(super) struct Store {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_ulids: BTreeMap<(UlidPair, u32), u32>,
    by_local_tag: HashMap<ContextTag, u32>,
    by_peer_tag: BTreeSet<(ContextTag, u32)>,
    by_peer_label: BTreeSet<(FlowLabel, u32)>,
    by_nonce: BTreeSet<(u32, u32)>,
    by_deadline: BTreeSet<(Instant, u32)>,
    /// How many were accepted from each /64.
    accepted_from: BTreeMap<u64, usize>,
    /// Accepted and not used, the oldest first.
    unused: BTreeSet<(Instant, u32)>,
    /// The same for each /64.
    unused_of: BTreeSet<((u64, Instant), u32)>,
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
    deadline: Option<Instant>,
    unused: Option<(u64, Instant)>,
}

impl Store {
    pub(super) fn len(&self) -> usize {
        self.by_local_tag.len()
    }

    /// The name that the next context inserted will have.
    pub(super) fn next_id(&self) -> ContextId {
        let index = self.free.last().copied().unwrap_or(self.slots.len() as u32);
        let generation = self.slots.get(index as usize).map_or(0, |slot| slot.generation);
        ContextId { index, generation }
    }

    /// Takes in a context that was made for [`Store::next_id`].
    pub(super) fn insert(&mut self, context: Context) {
        let id = context.id;
        debug_assert_eq!(id, self.next_id());
        if self.free.pop().is_none() {
            self.slots.push(Slot::default());
        }
        self.by_ulids.insert((context.ulids, context.fork), id.index);
        self.by_local_tag.insert(context.local_tag, id.index);
        if let Some(accepted) = context.accepted {
            *self.accepted_from.entry(accepted.prefix).or_default() += 1;
        }
        if let Some(slot) = self.slots.get_mut(id.index()) {
            slot.context = Some(Box::new(context));
        }
        self.settle(id);
    }

    pub(super) fn remove(&mut self, id: ContextId) -> Option<Box<Context>> {
        let slot = self.slots.get_mut(id.index()).filter(|slot| slot.generation == id.generation)?;
        let context = slot.context.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.settle(id);
        self.by_ulids.remove(&(context.ulids, context.fork));
        self.by_local_tag.remove(&context.local_tag);
        if let Some(accepted) = context.accepted {
            let left = self.accepted_from(accepted.prefix).saturating_sub(1);
            match left {
                0 => self.accepted_from.remove(&accepted.prefix),
                left => self.accepted_from.insert(accepted.prefix, left),
            };
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
        let slot = self.slots.get_mut(id.index()).filter(|slot| slot.generation == id.generation)?;
        slot.context.as_deref_mut()
    }

    /// Brings the indices up to date with the context, or with its absence.
    pub(super) fn settle(&mut self, id: ContextId) {
        let Some(slot) = self.slots.get_mut(id.index()) else { return };
        let old = slot.indexed;
        let new = slot.context.as_deref().map_or_else(Indexed::default, |context| Indexed {
            peer_tag: context.peer_tag,
            peer_label: context.peer_label,
            nonce: context.exchange.as_ref().map(|exchange| exchange.nonce),
            deadline: Some(context.deadline()),
            unused: context.unused(),
        });
        slot.indexed = new;
        replace(&mut self.by_peer_tag, id.index, old.peer_tag, new.peer_tag);
        replace(&mut self.by_peer_label, id.index, old.peer_label, new.peer_label);
        replace(&mut self.by_nonce, id.index, old.nonce, new.nonce);
        replace(&mut self.by_deadline, id.index, old.deadline, new.deadline);
        let since = |unused: Option<(u64, Instant)>| unused.map(|(_, since)| since);
        replace(&mut self.unused, id.index, since(old.unused), since(new.unused));
        replace(&mut self.unused_of, id.index, old.unused, new.unused);
    }

    pub(super) fn by_ulids(&self, ulids: UlidPair, fork: u32) -> Option<&Context> {
        self.at(*self.by_ulids.get(&(ulids, fork))?)
    }

    pub(super) fn by_local_tag(&self, tag: ContextTag) -> Option<&Context> {
        self.at(*self.by_local_tag.get(&tag)?)
    }

    /// Contexts whose peer chose this tag: several peers may choose the same.
    pub(super) fn by_peer_tag(&self, tag: ContextTag) -> impl Iterator<Item = &Context> {
        self.by_peer_tag.range((tag, 0)..=(tag, u32::MAX)).filter_map(|(_, index)| self.at(*index))
    }

    /// Contexts whose peer offered this flow label.
    pub(super) fn by_peer_label(&self, label: FlowLabel) -> impl Iterator<Item = &Context> {
        self.by_peer_label.range((label, 0)..=(label, u32::MAX)).filter_map(|(_, index)| self.at(*index))
    }

    /// Contexts with an exchange under way that has this Initiator Nonce.
    pub(super) fn by_nonce(&self, nonce: u32) -> impl Iterator<Item = &Context> {
        self.by_nonce.range((nonce, 0)..=(nonce, u32::MAX)).filter_map(|(_, index)| self.at(*index))
    }

    /// Contexts of one local ULID.
    pub(super) fn by_host(&self, ulid: Ulid) -> impl Iterator<Item = &Context> {
        let least = UlidPair { local: ulid, peer: Ulid(std::net::Ipv6Addr::from_bits(0)) };
        let most = UlidPair { local: ulid, peer: Ulid(std::net::Ipv6Addr::from_bits(u128::MAX)) };
        self.by_ulids.range((least, 0)..=(most, u32::MAX)).filter_map(|(_, index)| self.at(*index))
    }

    /// Number of forked contexts of these ULIDs, which does not count the default one.
    pub(super) fn forks(&self, ulids: UlidPair) -> usize {
        self.by_ulids.range((ulids, 1)..=(ulids, u32::MAX)).count()
    }

    /// Number of contexts accepted from a /64.
    pub(super) fn accepted_from(&self, prefix: u64) -> usize {
        self.accepted_from.get(&prefix).copied().unwrap_or_default()
    }

    /// The accepted context that has been unused for longest, and since when.
    pub(super) fn oldest_unused(&self) -> Option<(Instant, ContextId)> {
        let (since, index) = self.unused.first()?;
        Some((*since, self.at(*index)?.id))
    }

    /// The same among those from a /64.
    pub(super) fn oldest_unused_of(&self, prefix: u64) -> Option<(Instant, ContextId)> {
        let ((of, since), index) = self.unused_of.range(((prefix, Instant::START), 0)..).next()?;
        if *of == prefix { Some((*since, self.at(*index)?.id)) } else { None }
    }

    /// The earliest deadline and whose it is.
    pub(super) fn first_deadline(&self) -> Option<(Instant, ContextId)> {
        let (at, index) = self.by_deadline.first()?;
        Some((*at, self.at(*index)?.id))
    }

    /// All contexts, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Context> {
        self.slots.iter().filter_map(|slot| slot.context.as_deref())
    }

    /// All contexts, ordered by ULIDs and fork.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Context> {
        self.by_ulids.values().filter_map(|index| self.at(*index))
    }

    fn at(&self, index: u32) -> Option<&Context> {
        self.slots.get(index as usize)?.context.as_deref()
    }

    /// Panics if an index disagrees with the contexts. For tests; walks everything.
    pub(super) fn selfcheck(&self) {
        let count = self.iter().count();
        assert_eq!(count, self.by_ulids.len(), "one ULID pair and fork each");
        assert_eq!(count, self.by_local_tag.len(), "one local tag each");
        assert_eq!(count, self.by_deadline.len(), "one deadline each");
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
            assert_eq!(self.by_ulids.get(&(context.ulids, context.fork)), Some(&index));
            assert_eq!(self.by_local_tag.get(&context.local_tag), Some(&index));
            assert!(self.by_deadline.contains(&(context.deadline(), index)));
            assert!(context.peer_tag.is_none_or(|tag| self.by_peer_tag.contains(&(tag, index))));
            assert!(context.exchange.iter().all(|exchange| self.by_nonce.contains(&(exchange.nonce, index))));
            if let Some((prefix, since)) = context.unused() {
                assert!(self.unused.contains(&(since, index)) && self.unused_of.contains(&((prefix, since), index)));
            }
            let asking = matches!(context.state, State::I1Sent | State::I2Sent | State::I2bisSent);
            assert_eq!(context.exchange.is_some(), asking, "an exchange while one is under way");
            assert!(asking || context.state == State::Established, "no object for {:?}", context.state);
            assert!(!context.state.carries_payload() || context.peer_tag.is_some(), "sending needs the peer's tag");
        }
    }
}

fn replace<K: Ord>(index: &mut BTreeSet<(K, u32)>, place: u32, old: Option<K>, new: Option<K>) {
    if old == new {
        return;
    }
    if let Some(old) = old {
        index.remove(&(old, place));
    }
    if let Some(new) = new {
        index.insert((new, place));
    }
}
