//! Where the next attempt to reach a peer begins, when one has ended before all pairs of locators had their turn.
//!
//! An exchange sends five I1s (RFC 5533 §7.8), and two ends with three providers each have nine pairs. If each attempt began
//! alike, the last four would never be tried. So the best pair is always first, as it is the likeliest to answer, and the
//! others go on where the attempt before stopped. Known by place: the order may be another one by then, and this is no
//! more than fairness.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dataplane::wire::{LocatorPair, UlidPair};

use super::portrait::Feature;
use crate::time::Instant;

/// How long it is remembered after the pair may be asked for again.
pub(super) const REMEMBERED: Duration = Duration::from_secs(600);

/// A bounded memory; what would be forgotten first makes room.
#[derive(Debug)]
pub(super) struct Starts {
    max: usize,
    entries: BTreeMap<UlidPair, (Instant, usize)>,
    by_end: BTreeSet<(Instant, UlidPair)>,
}

impl Starts {
    pub(super) fn new(max: usize) -> Starts {
        Starts { max, entries: BTreeMap::new(), by_end: BTreeSet::new() }
    }

    /// An attempt ended whose next I1 would have gone to the pair in place `next` of those that [`Starts::arrange`] made.
    pub(super) fn note(&mut self, until: Instant, ulids: UlidPair, next: usize) {
        let skipped = self.forget(ulids) + next.saturating_sub(1);
        self.entries.insert(ulids, (until, skipped));
        self.by_end.insert((until, ulids));
        while self.entries.len() > self.max {
            let Some((_, first)) = self.by_end.first().copied() else { break };
            self.forget(first);
        }
    }

    /// Puts pairs, best first, into the order in which they are tried.
    pub(super) fn arrange(&self, ulids: UlidPair, pairs: &mut [LocatorPair]) {
        if let (Some((_, others)), Some((_, skipped))) = (pairs.split_first_mut(), self.entries.get(&ulids))
            && !others.is_empty()
        {
            others.rotate_left(skipped % others.len());
        }
    }

    /// Forgets what is not needed any more; how many were skipped.
    pub(super) fn forget(&mut self, ulids: UlidPair) -> usize {
        let Some((until, skipped)) = self.entries.remove(&ulids) else { return 0 };
        self.by_end.remove(&(until, ulids));
        skipped
    }

    /// Forgets what has ended.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((until, ulids)) = self.by_end.first().copied()
            && until <= now
        {
            self.forget(ulids);
        }
    }

    /// Everything remembered, in order ([`portrait`](super::portrait)).
    pub(super) fn portray(&self, now: Instant, put: &mut dyn FnMut(Feature<'_>)) {
        for (ulids, (until, skipped)) in &self.entries {
            let values = [ulids.local.0.to_bits(), ulids.peer.0.to_bits(), *skipped as u128];
            values.into_iter().for_each(|value| put(Feature::Value(value)));
            put(Feature::Ahead(until.since(now)));
        }
    }
}
