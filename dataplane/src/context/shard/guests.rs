//! Copies of other workers' contexts, so that packets that arrive here need not be handed over.
//!
//! A context has one owner, who alone changes it and alone answers for it (docs/decisions: a context has one worker). When
//! packets of it keep coming from another worker, the owner *lends* that worker a copy of what ordinary packets need. The
//! copy is a *guest* there: it translates, counts, and tells the owner now and then what happened ([`Tally`]), so that control
//! hears of a context from its owner alone. Whenever anything about the context changes, and when it is in doubt, the owner
//! *recalls* the copies, and packets come to it again. So no memory is shared, there is no lock, and what a guest may do is a
//! small part of what an owner does: everything that asks for a second look is handed over as if there were no guest.
//!
//! A guest's place follows from its tag, so there is nothing to search; who finds it taken by a guest in use stays away. What
//! copies and words there are is bounded by what is allocated at the start. When a word finds no room, nothing of this owner's
//! is a guest any more: forgetting is always right.

use std::ops::Range;

use super::{Entry, Shard, Slot, Tally};
use crate::context::hash::Sharding;
use crate::wire::{ContextTag, Ulid, UlidPair};

/// What workers tell each other of contexts.
#[derive(Clone, Debug)]
pub enum Word {
    /// This context's ordinary packets you may translate yourself.
    Lend(Entry),
    /// No longer this one's.
    Recall(ContextTag),
    /// No longer those of any context of mine.
    RecallAll,
    /// What happened in a context of yours.
    Tally(Tally),
}

/// What an owner has to say, and to whom, as one bit for each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saying {
    /// To the one worker.
    Lend(u8, Slot),
    /// To all of these.
    Recall(u64, ContextTag),
}

/// Most places for guests: beyond a million, frames of further contexts are handed over.
pub const GUESTS_MAX: u32 = 1 << 20;
/// Words of one turn, far more than a turn has occasion for.
const SAYINGS: usize = 512;
/// Of the packets handed over although their context is lent, one in so many has it lent again: the word may have found no room.
const AGAIN: u32 = 64;

/// The guests of a worker, and what it has lent itself.
pub(super) struct Guests {
    /// Their slots, behind all that a tag of an own context can name. Their number is a power of two, or there are none.
    first: u32,
    places: u32,
    /// While false all copies are being forgotten, and none is used; `swept` says how far that has come.
    usable: bool,
    swept: u32,
    len: u32,
    /// By own slot: the workers that may have a copy, one bit for each. Empty where nothing is lent.
    lent: Box<[u64]>,
    sayings: Vec<Saying>,
    /// Workers for whom there was no room among the sayings: they are to forget everything.
    unsaid: u64,
    repeated: u32,
}

impl Guests {
    pub(super) fn new(capacity: u32, guests: u32) -> Guests {
        let places = if guests == 0 { 0 } else { guests.min(GUESTS_MAX).next_power_of_two() };
        // What the bits of a tag can name beyond the capacity stays vacant: nobody has to compare with it.
        let first = if places == 0 { capacity } else { super::slot_mask(capacity).saturating_add(1) };
        let lent = if places == 0 { 0 } else { capacity as usize };
        Guests {
            first,
            places,
            usable: places > 0,
            swept: 0,
            len: 0,
            lent: vec![0; lent].into_boxed_slice(),
            sayings: Vec::with_capacity(if places == 0 { 0 } else { SAYINGS }),
            unsaid: 0,
            repeated: 0,
        }
    }

    /// Their slots.
    pub(super) fn slots(&self) -> Range<u32> {
        self.first..self.first.saturating_add(self.places)
    }

    #[inline]
    pub(super) fn has(&self, slot: u32) -> bool {
        self.places > 0 && slot >= self.first
    }

    /// The place of a context. Those of one owner differ in their low bits, which are its slots; different owners' are
    /// shifted against each other.
    #[inline]
    pub(super) fn place(&self, tag: ContextTag) -> u32 {
        let owner = (tag.value() >> Sharding::WORKER_SHIFT) as u32;
        let mixed = (tag.value() as u32).wrapping_add(owner.wrapping_mul(0x9e37_79b1));
        self.first.wrapping_add(mixed & self.places.wrapping_sub(1))
    }

    fn say(&mut self, to: u64, saying: Saying) {
        if self.sayings.len() < self.sayings.capacity() {
            self.sayings.push(saying);
        } else {
            self.unsaid |= to;
        }
    }
}

/// As a host of guests.
impl Shard {
    /// Whether packets of other workers' contexts may find them here.
    #[inline]
    pub(crate) fn takes_guests(&self) -> bool {
        self.guests.usable
    }

    /// Whether there is room for guests at all, and own contexts are lent.
    #[inline]
    pub(crate) fn lends(&self) -> bool {
        self.guests.places > 0
    }

    /// Copies of others' contexts held now.
    pub(crate) fn guests(&self) -> u32 {
        self.guests.len
    }

    /// Whether a slot is a guest's.
    #[inline]
    pub(crate) fn is_guest(&self, slot: Slot) -> bool {
        self.guests.has(slot.0)
    }

    /// Whether a slot is that of a guest whose path is lost here, so that its owner has to see to its packets.
    pub(crate) fn is_lost_guest(&self, slot: Slot) -> bool {
        let entry = |slot: Slot| self.entries.get(slot.0 as usize);
        self.is_guest(slot) && entry(slot).is_some_and(|it| self.losses.concern(it.provider, it.path()))
    }

    /// Takes in a copy, unless a guest in use has its place. What happened in the one that had to go.
    pub(crate) fn take_guest(&mut self, copy: &Entry) -> Option<Tally> {
        if !self.guests.usable {
            return None;
        }
        let slot = Slot(self.guests.place(copy.local_tag));
        let before = self.entries.get(slot.0 as usize)?;
        if before.is_taken() && before.local_tag != copy.local_tag && before.is_queued() {
            return None;
        }
        let left = self.forget_guest(slot);
        let hash = self.hasher.pair(&copy.ulids);
        if self.by_pair(hash, &copy.ulids).is_none() && self.pairs.insert(hash, slot.0).is_ok() {
            self.entries[slot.0 as usize].put_copy(copy);
            self.guests.len += 1;
        }
        left
    }

    /// The owner wants a copy back. What happened in it.
    pub(crate) fn dismiss(&mut self, tag: ContextTag) -> Option<Tally> {
        let slot = Slot(self.guests.place(tag));
        let entry = self.entries.get(slot.0 as usize)?;
        let held = self.guests.has(slot.0) && entry.is_taken() && entry.local_tag == tag;
        if held { self.forget_guest(slot) } else { None }
    }

    /// No guest is used from now on until all are forgotten, a few with each [`Shard::sweep`].
    pub(crate) fn dismiss_all(&mut self) {
        self.guests.usable = false;
        self.guests.swept = 0;
    }

    /// Goes on forgetting all guests, if that was begun: the next place. False when there is nothing left to do.
    pub(crate) fn sweep(&mut self, left: &mut impl FnMut(Tally)) -> bool {
        if self.guests.usable || self.guests.places == 0 {
            return false;
        }
        if let Some(tally) = self.forget_guest(Slot(self.guests.first + self.guests.swept)) {
            left(tally);
        }
        self.guests.swept += 1;
        self.guests.usable = self.guests.swept == self.guests.places;
        true
    }

    /// What happened in a guest. With `look` it is given back, so that its owner sees by which provider the next packet comes.
    pub(super) fn report_guest(&mut self, slot: Slot, look: bool) -> Option<Tally> {
        let tally = self.entries.get_mut(slot.0 as usize)?.take_tally()?;
        if look {
            self.forget_guest(slot);
        }
        Some(Tally { kept: !look, ..tally })
    }

    fn forget_guest(&mut self, slot: Slot) -> Option<Tally> {
        let entry = self.entries.get_mut(slot.0 as usize)?;
        if !entry.is_taken() {
            return None;
        }
        let queued = entry.is_queued();
        let pair = entry.is_default().then_some(entry.ulids);
        let tally = entry.take_tally();
        entry.vacate(queued);
        self.guests.len -= 1;
        if let Some(pair) = pair {
            self.pairs.remove(self.hasher.pair(&pair), slot.0);
        }
        tally.map(|tally| Tally { kept: false, ..tally })
    }
}

/// As an owner.
impl Shard {
    /// A packet of the context at `slot` was handed over by another worker, which gets a copy if nothing speaks against it.
    pub(crate) fn lend(&mut self, slot: Slot, to: u8) {
        let Some(lent) = self.guests.lent.get_mut(slot.0 as usize) else { return };
        let Some(bit) = 1u64.checked_shl(to.into()) else { return };
        if self.strict || !self.entries.get(slot.0 as usize).is_some_and(Entry::is_lendable) {
            return;
        }
        if *lent & bit != 0 {
            self.guests.repeated = self.guests.repeated.wrapping_add(1);
            if !self.guests.repeated.is_multiple_of(AGAIN) {
                return;
            }
        }
        if self.guests.sayings.len() < self.guests.sayings.capacity() {
            *lent |= bit;
            self.guests.sayings.push(Saying::Lend(to, slot));
        }
    }

    /// Something about the context at `slot` is not as it was lent.
    #[inline]
    pub(super) fn recall(&mut self, slot: Slot) {
        crate::mutant!(KeepCopies, return);
        if let Some(lent) = self.guests.lent.get_mut(slot.0 as usize)
            && *lent != 0
        {
            let to = std::mem::take(lent);
            self.guests.say(to, Saying::Recall(to, self.entries[slot.0 as usize].local_tag));
        }
    }

    /// What happened in a context of its own elsewhere. Control's name for it, if that ends a doubt.
    pub(crate) fn add_tally(&mut self, tally: &Tally) -> Option<u64> {
        let slot = self.by_tag(tally.tag)?;
        let entry = &mut self.entries[slot.0 as usize];
        let (doubted, handle) = (entry.is_in_doubt(), entry.handle);
        if entry.add(tally) {
            self.active.push(slot.0);
        }
        let answered = doubted && tally.activity.received;
        if answered || !tally.kept {
            // What was given back is called back too: it may have been lent anew meanwhile.
            self.recall(slot);
        }
        answered.then_some(handle)
    }

    /// Something came back for the context at `slot`, which was in doubt. Who has a copy need not send its packets here any more.
    pub(crate) fn end_doubt(&mut self, slot: Slot) {
        self.recall(slot);
    }

    /// What there is to be said, in order.
    pub(crate) fn saying(&self, at: usize) -> Option<Saying> {
        self.guests.sayings.get(at).copied()
    }

    /// All of it was said. The workers that are to forget everything, because there was no room to keep what concerned them.
    pub(crate) fn said(&mut self) -> u64 {
        self.guests.sayings.clear();
        std::mem::take(&mut self.guests.unsaid)
    }

    /// The copy to be lent of the context at `slot`.
    pub(crate) fn copy(&self, slot: Slot) -> Option<Entry> {
        self.entries.get(slot.0 as usize).filter(|entry| entry.is_taken()).map(Entry::copy)
    }

    pub(super) fn selfcheck_guests(&self, guests: &[u32]) {
        assert_eq!(guests.len(), self.guests.len as usize, "guests are miscounted");
        let nobody =
            UlidPair { local: Ulid(std::net::Ipv6Addr::UNSPECIFIED), peer: Ulid(std::net::Ipv6Addr::UNSPECIFIED) };
        for &slot in guests {
            let entry = &self.entries[slot as usize];
            assert_eq!(self.guests.place(entry.local_tag), slot, "a guest is not in its place");
            assert_ne!(entry.ulids, nobody);
            assert!(!entry.wants_arrival() && !entry.has_standby());
            if entry.is_default() {
                assert_eq!(self.by_pair(self.hasher.pair(&entry.ulids), &entry.ulids), Some(Slot(slot)));
            }
        }
        let free = |slot: &u32| !self.entries[*slot as usize].is_taken();
        assert!((self.capacity..self.guests.first).all(|slot| free(&slot)), "a slot beyond the capacity is taken");
    }
}
