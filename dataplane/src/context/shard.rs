//! One worker's contexts: a slab of entries, and an index from identifier pairs to them. Sizes are fixed at the start.
//!
//! A tag needs no index: its low bits are the slot. Who allocates tags takes care that no two of a worker's contexts
//! share one ([`Shard::slot_of`]), and the other bits are what nobody can guess.

pub mod guests;
mod report;

use super::entry::{Direction, Entry, Install, LocatorSets, Tally};
use super::fork::{Forks, Place, Wish};
use super::hash::Hasher;
use super::index::{Full, Index};
use super::label::{LabelMode, Labels};
use super::standby::{Beside, Loss, Losses, Way};
use crate::memory::huge;
use crate::processor::{prefetch, prefetch_at};
use crate::snapshot::Classes;
use crate::wire::{ContextTag, FlowLabel, LocatorPair, UlidPair};
use guests::Guests;
pub use report::Report;

/// Place of a context in its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub(super) u32);

impl Slot {
    /// Its number, less than the capacity of the shard.
    #[inline]
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// The slot with a number that [`Slot::number`] gave.
    #[inline]
    pub(crate) fn from_number(number: u32) -> Slot {
        Slot(number)
    }
}

/// The contexts one worker owns; whoever holds it mutably is their only writer.
pub struct Shard {
    hasher: Hasher,
    /// Its own, as many as it may have, and behind them those of its guests ([`guests`]).
    entries: Box<[Entry]>,
    capacity: u32,
    guests: Guests,
    /// One place per entry in strict mode and with labels, else none: what is rarely wanted does not make entries larger.
    accepted: Box<[Option<Box<LocatorSets>>]>,
    /// Whether payload headers too are only accepted over the locators of their context.
    strict: bool,
    labels: Labels,
    /// By slot, in words of bits: payload of the context may come in UDP. Empty where none may.
    udp: Box<[u64]>,
    forks: Forks,
    /// One place per entry where contexts may have standbys, else none. Read by those who have lost their path.
    standbys: Box<[Beside]>,
    losses: Losses,
    /// Which bits of a tag are its slot.
    slot_mask: u32,
    len: usize,
    pairs: Index,
    /// Slots with unreported activity, each once. `drain` says how much of it is being reported.
    active: Vec<u32>,
    reporting: Vec<u32>,
    /// Whether it is of interest by which provider payload comes, and how many reports there were.
    watching: bool,
    reports: u32,
    /// Contexts whose local identifier is not the host's own address. As long as there are none, translated packets look
    /// for none.
    presented: u32,
}

impl Shard {
    /// For up to `capacity` contexts. Allocates everything it will ever need. `strict` says whether payload is only
    /// accepted over the locators of its context.
    pub fn new(capacity: u32, hasher: Hasher, strict: bool) -> Shard {
        Shard::with_guests(capacity, 0, hasher, strict)
    }

    /// The same, with room for `guests` copies of other workers' contexts (see [`guests`]).
    pub fn with_guests(capacity: u32, guests: u32, hasher: Hasher, strict: bool) -> Shard {
        let capacity = capacity.max(1);
        let guests = Guests::new(capacity, guests);
        let places = guests.slots().end.max(capacity) as usize;
        Shard {
            hasher,
            entries: huge(places, Entry::vacant()),
            capacity,
            accepted: (0..if strict { capacity } else { 0 }).map(|_| None).collect(),
            strict,
            labels: Labels::new(LabelMode::Off, 0),
            udp: Box::default(),
            forks: Forks::new(0),
            standbys: Box::default(),
            losses: Losses::default(),
            slot_mask: slot_mask(capacity),
            len: 0,
            pairs: Index::new(capacity as usize + guests.slots().len()),
            active: Vec::with_capacity(capacity as usize + guests.slots().len()),
            reporting: Vec::with_capacity(capacity as usize + guests.slots().len()),
            guests,
            watching: false,
            reports: 0,
            presented: 0,
        }
    }

    /// The same, with contexts in flow labels as `mode` says. To be asked for before any context is there.
    #[must_use]
    pub fn with_labels(mut self, mode: LabelMode) -> Shard {
        let capacity = self.capacity as usize;
        if mode != LabelMode::Off && self.accepted.is_empty() {
            self.accepted = (0..capacity).map(|_| None).collect();
        }
        self.labels = Labels::new(mode, capacity);
        self
    }

    /// The same, with payload in UDP for those contexts that agreed on it. To be asked for before any context is there.
    #[must_use]
    pub fn with_udp(mut self, wanted: bool) -> Shard {
        let words = if wanted { self.capacity.div_ceil(64) as usize } else { 0 };
        self.udp = vec![0; words].into_boxed_slice();
        self
    }

    /// The same, with room for forked contexts of so many pairs. To be asked for before any context is there.
    #[must_use]
    pub fn with_forks(mut self, pairs: u32) -> Shard {
        self.forks = Forks::new(pairs.min(self.capacity));
        self
    }

    /// The same, with room for standbys. To be asked for before any context is there.
    #[must_use]
    pub fn with_standbys(mut self, wanted: bool) -> Shard {
        self.standbys = huge(if wanted { self.capacity as usize } else { 0 }, Beside::nothing());
        self
    }

    /// Contexts held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no context is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slot a tag names in a shard for `capacity` contexts; none if there is no such slot.
    pub fn slot_of(tag: ContextTag, capacity: u32) -> Option<u32> {
        let slot = tag.value() as u32 & slot_mask(capacity);
        (slot < capacity).then_some(slot)
    }

    /// Adds a context, or brings the one with this tag up to date. A pair has at most one default context: an older one
    /// loses its pair to the newcomer, so a packet never has two answers. Fails when another context has the slot.
    pub fn install(&mut self, install: &Install) -> Result<Slot, Full> {
        let slot = Slot(Shard::slot_of(install.local_tag, self.capacity).ok_or(Full)?);
        let before = self.entries.get_mut(slot.0 as usize).ok_or(Full)?;
        if !before.is_taken() {
            before.replace(install);
            self.len += 1;
            self.presented += u32::from(install.inside.is_some());
        } else if before.local_tag != install.local_tag {
            return Err(Full);
        }
        let pair_hash = self.hasher.pair(&install.ulids);
        let before = &self.entries[slot.0 as usize];
        let (was_default, old_ulids) = (before.is_default(), before.ulids);
        if was_default && (!install.default || old_ulids != install.ulids) {
            self.pairs.remove(self.hasher.pair(&old_ulids), slot.0);
        }
        if was_default != install.default || old_ulids != install.ulids {
            self.unfork(slot);
        }
        self.recall(slot);
        self.presented -= u32::from(self.entries[slot.0 as usize].is_presented());
        self.entries[slot.0 as usize].update(install);
        self.presented += u32::from(install.inside.is_some());
        if install.default {
            let holder = self.by_pair(pair_hash, &install.ulids);
            if holder != Some(slot) {
                if let Some(older) = holder {
                    self.recall(older);
                    self.pairs.remove(pair_hash, older.0);
                    self.entries[older.0 as usize].set_default(false);
                }
                if self.pairs.insert(pair_hash, slot.0).is_err() {
                    self.entries[slot.0 as usize].set_default(false);
                    self.remove(install.local_tag);
                    return Err(Full);
                }
            }
        }
        match install.default {
            // Most sites have no classes, and pay for none.
            _ if install.classes.is_empty() && self.forks.is_empty() => {}
            true => self.forks.share(pair_hash, &install.ulids, install.classes),
            false => self.forks.take(pair_hash, &install.ulids, slot, install.classes),
        }
        self.labels.set(slot, install.local_label, install.peer_label);
        self.let_in_udp(slot, install.udp.comes);
        if let Some(standby) = &install.standby
            && let Some(place) = self.standbys.get_mut(slot.0 as usize)
        {
            *place = Beside::new(standby, install.ulids.as_locators());
        }
        Ok(slot)
    }

    /// Asks for what [`Shard::install`] will touch.
    #[inline]
    pub fn approach(&self, install: &Install) {
        self.prefetch_entry(install.local_tag.value() as u32 & self.slot_mask);
        self.prefetch_pair(self.hasher.pair(&install.ulids));
    }

    /// Forgets the context with this tag. False if there was none.
    pub fn remove(&mut self, tag: ContextTag) -> bool {
        let Some(slot) = self.by_tag(tag) else { return false };
        self.labels.set(slot, None, None);
        self.let_in_udp(slot, false);
        self.unfork(slot);
        self.recall(slot);
        let entry = &mut self.entries[slot.0 as usize];
        self.presented -= u32::from(entry.is_presented());
        let pair = entry.is_default().then_some(entry.ulids);
        entry.vacate(entry.is_queued());
        self.len -= 1;
        if let Some(pair) = pair {
            self.pairs.remove(self.hasher.pair(&pair), slot.0);
        }
        true
    }

    /// Packets go by this context neither as the default one that shares its traffic nor as a forked one.
    fn unfork(&mut self, slot: Slot) {
        if self.forks.is_empty() {
            return;
        }
        let entry = &self.entries[slot.0 as usize];
        let (hash, ulids, default) = (self.hasher.pair(&entry.ulids), entry.ulids, entry.is_default());
        match default {
            true => self.forks.share(hash, &ulids, Classes::NONE),
            false => self.forks.take(hash, &ulids, slot, Classes::NONE),
        }
    }

    /// The forks of a pair whose hash is `hash`; none when it has none, or there was no room for them.
    #[inline]
    pub fn forks_of(&self, hash: u64, pair: &UlidPair) -> Option<&Place> {
        self.forks.find(hash, pair)
    }

    /// A packet of a class without a context has come at `now`, in milliseconds. Whether control will hear of it.
    pub fn wish_fork(&mut self, hash: u64, pair: &UlidPair, wish: Wish, now: u64) -> bool {
        self.forks.wish(hash, pair, wish, now)
    }

    /// The next such wish to be told.
    pub fn next_wish(&mut self) -> Option<Wish> {
        self.forks.next_wish()
    }

    /// Replaces the locators a context accepts payload over, and gives back the old ones: they are for control to free.
    /// Where nobody asks for them they come back as they are.
    pub fn accept(&mut self, tag: ContextTag, mut sets: Option<Box<LocatorSets>>) -> Option<Box<LocatorSets>> {
        if let Some(slot) = self.by_tag(tag)
            && let Some(place) = self.accepted.get_mut(slot.0 as usize)
        {
            std::mem::swap(place, &mut sets);
        }
        sets
    }

    /// Whether a context accepts payload over a pair: always, but in strict mode (RFC 5533 §16.2).
    #[inline]
    pub fn accepts(&self, slot: Slot, pair: &LocatorPair) -> bool {
        !self.strict || self.is_between(slot, pair)
    }

    /// Whether a packet with the label of a context has come between its locators. A label can be guessed, so this is
    /// asked in any mode. The pair we send on comes first: the peer's packets mostly come the same way back.
    #[inline]
    pub fn accepts_labelled(&self, slot: Slot, pair: &LocatorPair) -> bool {
        self.entries[slot.0 as usize].locators == *pair || self.is_between(slot, pair)
    }

    #[inline]
    fn is_between(&self, slot: Slot, pair: &LocatorPair) -> bool {
        let sets = self.accepted.get(slot.0 as usize).and_then(Option::as_ref);
        sets.is_some_and(|sets| sets.contain(pair))
    }

    /// Whether payload of a context may come in UDP.
    #[inline]
    pub fn accepts_udp(&self, Slot(slot): Slot) -> bool {
        self.udp.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 != 0)
    }

    fn let_in_udp(&mut self, Slot(slot): Slot, may: bool) {
        if let Some(word) = self.udp.get_mut(slot as usize / 64) {
            let bit = 1 << (slot % 64);
            *word = if may { *word | bit } else { *word & !bit };
        }
    }

    /// Which packets leave with a label.
    #[inline]
    pub fn label_mode(&self) -> LabelMode {
        self.labels.mode()
    }

    /// The label to write into packets of a context instead of a header, if its packets may go so now.
    #[inline]
    pub fn label_toward_peer(&self, slot: Slot) -> Option<FlowLabel> {
        self.labels.toward_peer(slot)
    }

    /// The context a label of ours stands for.
    #[inline]
    pub fn by_label(&self, label: FlowLabel) -> Option<Slot> {
        self.labels.find(label)
    }

    /// Asks for both lines of an entry.
    #[inline]
    pub fn prefetch(&self, slot: Slot) {
        self.prefetch_entry(slot.0);
    }

    /// The default context of a pair whose hash is `hash`.
    #[inline]
    pub fn by_pair(&self, hash: u64, pair: &UlidPair) -> Option<Slot> {
        let is_it = |slot: u32| self.entries.get(slot as usize).is_some_and(|entry| entry.ulids == *pair);
        self.pairs.find(hash, is_it).map(Slot)
    }

    /// The live default context of the pair a peer knows, in which the local identifier is not the host's own address.
    pub fn by_presented(&self, pair: &UlidPair) -> Option<Slot> {
        if self.presented == 0 {
            return None;
        }
        let slot = self.by_pair(self.hasher.pair(pair), pair)?;
        let entry = self.entry(slot);
        (entry.is_presented() && entry.phase == super::Phase::Live).then_some(slot)
    }

    /// The context with our tag.
    #[inline]
    pub fn by_tag(&self, tag: ContextTag) -> Option<Slot> {
        let slot = tag.value() as u32 & self.slot_mask;
        let entry = self.entries.get(slot as usize)?;
        (entry.is_taken() && entry.local_tag == tag).then_some(Slot(slot))
    }

    /// The keyed hash of the index.
    pub fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// Asks for the index line of a pair.
    #[inline]
    pub fn prefetch_pair(&self, hash: u64) {
        self.pairs.prefetch(hash);
    }

    /// Asks for the slot a tag names, without a look at whose it is: the first line is all that packets from the peer
    /// need.
    #[inline]
    pub fn approach_tag(&self, tag: ContextTag) {
        self.approach_slot(self.own_place(tag));
    }

    /// Asks for the first line of what is at `slot`; nothing comes of it where there is no such slot.
    #[inline]
    pub(crate) fn approach_slot(&self, slot: Slot) {
        prefetch_at::<1, _>(&self.entries, slot.0 as usize);
    }

    /// The slot a tag of this worker's names; what is there may be another's.
    #[inline]
    pub(crate) fn own_place(&self, tag: ContextTag) -> Slot {
        Slot(tag.value() as u32 & self.slot_mask)
    }

    /// The same of any worker's tag.
    #[inline]
    pub(crate) fn place(&self, tag: ContextTag, own: bool) -> Slot {
        let guest = self.guests.place(tag);
        if own { self.own_place(tag) } else { Slot(guest) }
    }

    /// What the index says of a pair whose hash is `hash` at first sight.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<Slot> {
        self.pairs.guess(hash).map(Slot)
    }

    /// Whether payload headers too are only accepted over the locators of their context (RFC 5533 §16.2).
    #[inline]
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// Asks for both lines of the entries a pair may lead to, once its index lines are here.
    #[inline]
    pub fn prefetch_by_pair(&self, hash: u64) {
        self.pairs.candidates(hash, |slot| {
            self.prefetch_entry(slot);
            self.labels.prefetch_used(slot);
        });
    }

    #[inline]
    fn prefetch_entry(&self, slot: u32) {
        prefetch_at::<2, _>(&self.entries, slot as usize);
    }

    /// The context at `slot`, if there is such a slot.
    #[inline]
    pub(crate) fn get(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot.0 as usize)
    }

    /// The context at `slot`.
    #[inline]
    pub fn entry(&self, slot: Slot) -> &Entry {
        &self.entries[slot.0 as usize]
    }

    /// Something is lost, or is back. The one write that sends any number of contexts another way.
    pub fn lose(&mut self, loss: Loss, lost: bool) {
        self.losses.set(loss, lost);
    }

    /// What is lost.
    #[inline]
    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    /// The standby of a context that has lost its path, if it has one that is not lost too.
    #[inline]
    pub fn diverted(&self, slot: Slot) -> Option<&Beside> {
        let entry = self.entry(slot);
        if !entry.has_standby() || !self.losses.concern(entry.provider, entry.path()) {
            return None;
        }
        self.standbys.get(slot.0 as usize).filter(|standby| standby.serves(&self.losses))
    }

    /// Where packets of a context go now: over its current pair, or over its standby while the path of the current pair is
    /// lost and that of the standby is not.
    #[inline]
    pub fn way(&self, slot: Slot) -> Way<'_> {
        let entry = self.entry(slot);
        match if self.losses.any() { self.diverted(slot) } else { None } {
            Some(standby) => standby.way(entry),
            None => entry.way(),
        }
    }

    /// Asks for the standby of a context whose entry is here, if the context has lost its path.
    #[inline]
    pub fn prefetch_standby(&self, slot: Slot) {
        let entry = self.entry(slot);
        if self.losses.concern(entry.provider, entry.path())
            && let Some(standby) = self.standbys.get(slot.0 as usize)
        {
            prefetch(standby);
        }
    }

    /// Notes one packet of `octets` in a context: counts, and the liveness REAP lives on.
    #[inline(always)]
    pub fn note(&mut self, slot: Slot, direction: Direction, octets: usize) {
        if self.entries[slot.0 as usize].note(direction, octets) {
            self.active.push(slot.0);
        }
    }

    /// Notes of the packet noted last that it had a flow label for a header.
    #[inline]
    pub fn note_label(&mut self, slot: Slot, direction: Direction) {
        self.entries[slot.0 as usize].note_label(direction);
    }

    /// All contexts held, for status reports; walks the whole table.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> + '_ {
        self.entries.iter().take(self.capacity as usize).filter(|entry| entry.is_taken())
    }

    /// Walks everything and panics when an invariant is broken. For tests.
    pub fn selfcheck(&self) {
        let taken = |slot: &u32| self.entries[*slot as usize].is_taken();
        let held: Vec<u32> = (0..self.capacity).filter(taken).collect();
        self.labels.selfcheck(&held);
        let let_in: u32 = self.udp.iter().map(|word| word.count_ones()).sum();
        assert_eq!(let_in as usize, held.iter().filter(|slot| self.accepts_udp(Slot(**slot))).count());
        let lives = |slot: Slot| held.binary_search(&slot.0).is_ok();
        let default = |pair: &UlidPair| self.by_pair(self.hasher.pair(pair), pair);
        self.forks.selfcheck(
            |pair| default(pair).is_some_and(|slot| self.entry(slot).is_forked()),
            |slot, pair| lives(slot) && !self.entry(slot).is_default() && self.entry(slot).ulids == *pair,
        );
        self.pairs.selfcheck();
        assert_eq!(held.len(), self.len, "contexts are miscounted");
        for &slot in &held {
            let entry = &self.entries[slot as usize];
            assert_eq!(self.by_tag(entry.local_tag), Some(Slot(slot)));
            if entry.is_default() {
                assert_eq!(self.by_pair(self.hasher.pair(&entry.ulids), &entry.ulids), Some(Slot(slot)));
            }
        }
        assert_eq!(self.presented as usize, held.iter().filter(|&&s| self.entries[s as usize].is_presented()).count());
        let guests: Vec<u32> = self.guests.slots().filter(taken).collect();
        self.selfcheck_guests(&guests);
        let found = held.iter().chain(&guests).filter(|&&slot| self.entries[slot as usize].is_default());
        assert_eq!(self.pairs.len(), found.count());
        assert!(self.pairs.slots().all(|slot| taken(&slot)), "a pair leads to a free slot");
        let mut queued: Vec<u32> = self.active.iter().chain(&self.reporting).copied().collect();
        queued.sort_unstable();
        assert!(queued.is_sorted_by(|a, b| a < b), "a slot is queued twice, so the queue could grow without bound");
    }
}

/// As many low bits as it takes to number `capacity` slots.
fn slot_mask(capacity: u32) -> u32 {
    capacity.max(1).checked_next_power_of_two().map_or(u32::MAX, |slots| slots - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a context costs at a size that fills its index: the entry, its standby, two places in queues, and the index.
    #[test]
    fn a_context_costs_no_more_than_192_octets() {
        let shard = Shard::new(1 << 16, Hasher::new([1; 32]), false).with_standbys(true);
        let queues = (shard.active.capacity() + shard.reporting.capacity()) * size_of::<u32>();
        let octets = size_of_val(&*shard.entries) + size_of_val(&*shard.standbys) + queues + shard.pairs.octets();
        assert!(octets / shard.entries.len() <= 192, "{} octets", octets / shard.entries.len());
        let nobody_wants_them = Shard::new(1 << 16, Hasher::new([1; 32]), false);
        assert_eq!(size_of_val(&*nobody_wants_them.standbys), 0);
    }
}
