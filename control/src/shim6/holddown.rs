//! E-FAILED and NO-SUPPORT (RFC 5533 §7.8): what is remembered of an exchange that failed, for a bounded time and in
//! a bounded space.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use dataplane::wire::{Ulid, UlidPair};

use super::output::FailReason;
use super::portrait::Feature;
use crate::time::Instant;

/// Failures not to be repeated yet.
pub(super) struct HoldDowns {
    max: usize,
    entries: BTreeMap<Held, (Instant, FailReason)>,
    by_end: BTreeSet<(Instant, Held)>,
}

/// A failure that is remembered: an exchange that is not tried again for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Our end; absent if it holds for all of ours.
    pub local: Option<Ulid>,
    /// The other end.
    pub peer: Ulid,
    /// When it is forgotten.
    pub until: Instant,
    /// E-FAILED or NO-SUPPORT.
    pub reason: FailReason,
}

/// For whom a failure counts (D23).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// For this pair of ULIDs.
    Pair(UlidPair),
    /// For everybody who wants to reach this peer.
    Peer(Ulid),
}

impl HoldDowns {
    pub(super) fn new(max: usize) -> HoldDowns {
        HoldDowns { max, entries: BTreeMap::new(), by_end: BTreeSet::new() }
    }

    /// Remembers a failure; when there is no room, what would end first is forgotten.
    pub(super) fn hold(&mut self, held: Held, until: Instant, reason: FailReason) {
        self.forget(held);
        self.entries.insert(held, (until, reason));
        self.by_end.insert((until, held));
        while self.entries.len() > self.max {
            let Some((_, first)) = self.by_end.first().copied() else { break };
            self.forget(first);
        }
    }

    /// The failure that stands in the way of this pair, if any.
    pub(super) fn check(&self, now: Instant, ulids: UlidPair) -> Option<(Instant, FailReason)> {
        let held = [Held::Pair(ulids), Held::Peer(ulids.peer)];
        let found = held.iter().filter_map(|held| self.entries.get(held));
        found.copied().filter(|(until, _)| *until > now).max_by_key(|(until, _)| *until)
    }

    /// The peer spoke Shim6 after all (D32).
    pub(super) fn release(&mut self, ulids: UlidPair) {
        self.forget(Held::Pair(ulids));
        self.forget(Held::Peer(ulids.peer));
    }

    /// The silence of these peers may have ended. Looks at no more than `most` failures after the one given, and tells where
    /// to go on; none when all have been looked at.
    pub(super) fn release_silent(
        &mut self,
        after: Option<Held>,
        most: usize,
        reaches: impl Fn(Ulid) -> bool,
    ) -> Option<Held> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let meant = |held: &Held| match held {
            Held::Pair(ulids) => reaches(ulids.peer),
            Held::Peer(peer) => reaches(*peer),
        };
        let (mut last, mut seen, mut over) = (None, 0, Vec::new());
        for (held, (_, reason)) in self.entries.range((start, Bound::Unbounded)).take(most) {
            (last, seen) = (Some(*held), seen + 1);
            if *reason == FailReason::NoAnswer && meant(held) {
                over.push(*held);
            }
        }
        over.into_iter().for_each(|held| self.forget(held));
        last.filter(|_| seen == most)
    }

    /// Forgets what has ended.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((until, held)) = self.by_end.first().copied()
            && until <= now
        {
            self.forget(held);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.by_end.first().map(|(until, _)| *until)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What has not ended yet.
    pub(super) fn iter(&self, now: Instant) -> impl Iterator<Item = Failure> {
        self.entries.iter().filter(move |(_, (until, _))| *until > now).map(|(held, &(until, reason))| match *held {
            Held::Pair(UlidPair { local, peer }) => Failure { local: Some(local), peer, until, reason },
            Held::Peer(peer) => Failure { local: None, peer, until, reason },
        })
    }

    /// Every failure remembered, in order ([`portrait`](super::portrait)).
    pub(super) fn portray(&self, now: Instant, put: &mut dyn FnMut(Feature<'_>)) {
        for (held, (until, reason)) in &self.entries {
            let (local, peer) = match held {
                Held::Pair(ulids) => (ulids.local.0.to_bits(), ulids.peer.0.to_bits()),
                Held::Peer(peer) => (0, peer.0.to_bits()),
            };
            [local, peer, *reason as u128].into_iter().for_each(|value| put(Feature::Value(value)));
            put(Feature::Ahead(until.since(now)));
        }
    }

    fn forget(&mut self, held: Held) {
        if let Some((until, _)) = self.entries.remove(&held) {
            self.by_end.remove(&(until, held));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn pair(local: u128, peer: u128) -> UlidPair {
        UlidPair { local: Ulid(Ipv6Addr::from_bits(local)), peer: Ulid(Ipv6Addr::from_bits(peer)) }
    }

    #[test]
    fn memory_is_bounded_and_the_soonest_to_end_makes_room() {
        let mut held = HoldDowns::new(10);
        for i in 0..100u64 {
            held.hold(Held::Pair(pair(1, i.into())), Instant::from_millis(1000 + i), FailReason::NoAnswer);
        }
        assert_eq!((held.len(), held.by_end.len()), (10, 10));
        assert_eq!(held.check(Instant::START, pair(1, 89)), None);
        assert!(held.check(Instant::START, pair(1, 90)).is_some());
    }

    #[test]
    fn it_ends_at_its_time_and_the_longer_of_two_counts() {
        let mut held = HoldDowns::new(10);
        held.hold(Held::Pair(pair(1, 2)), Instant::from_millis(60), FailReason::NoAnswer);
        held.hold(Held::Peer(pair(1, 2).peer), Instant::from_millis(600), FailReason::NoSupport);
        let both = held.check(Instant::from_millis(59), pair(1, 2));
        assert_eq!(both, Some((Instant::from_millis(600), FailReason::NoSupport)));
        let locals = |now| held.iter(Instant::from_millis(now)).map(|failure| failure.local).collect::<Vec<_>>();
        assert_eq!(locals(59), [Some(pair(1, 2).local), None]);
        assert_eq!((locals(60), locals(600)), (vec![None], vec![]));
        held.hold(Held::Pair(pair(3, 4)), Instant::from_millis(90), FailReason::NoAnswer);
        let over = |peer| peer == pair(3, 4).peer || peer == pair(1, 9).peer;
        let mut at = held.release_silent(None, 1, over);
        assert_eq!((at, held.len()), (Some(Held::Pair(pair(1, 2))), 3), "one was looked at, and it stays");
        let mut turns = 1;
        while let Some(held_down) = at {
            at = held.release_silent(Some(held_down), 1, over);
            turns += 1;
        }
        assert_eq!((held.len(), turns), (2, 4), "only that one");
        held.expire(Instant::from_millis(60));
        assert_eq!((held.len(), held.deadline()), (1, Some(Instant::from_millis(600))));
        held.release(pair(7, 2));
        assert_eq!((held.len(), held.deadline()), (0, None));
    }
}
