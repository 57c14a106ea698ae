//! E-FAILED and NO-SUPPORT (RFC 5533 §7.8): what is remembered of an exchange that failed, for a bounded time and in
//! a bounded space.

use std::collections::{BTreeMap, BTreeSet};

use dataplane::wire::{Ulid, UlidPair};

use super::output::FailReason;
use crate::time::Instant;

/// Failures not to be repeated yet.
pub(super) struct HoldDowns {
    max: usize,
    entries: BTreeMap<Held, (Instant, FailReason)>,
    by_end: BTreeSet<(Instant, Held)>,
}

/// For whom a failure counts (D23).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Held {
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

    /// The silence of these peers may have ended.
    pub(super) fn release_silent(&mut self, reaches: impl Fn(Ulid) -> bool) {
        let meant = |held: &Held| match held {
            Held::Pair(ulids) => reaches(ulids.peer),
            Held::Peer(peer) => reaches(*peer),
        };
        let silent = self.entries.iter().filter(|(held, (_, reason))| *reason == FailReason::NoAnswer && meant(held));
        for held in silent.map(|(held, _)| *held).collect::<Vec<_>>() {
            self.forget(held);
        }
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
        held.hold(Held::Pair(pair(3, 4)), Instant::from_millis(90), FailReason::NoAnswer);
        held.release_silent(|peer| peer == pair(3, 4).peer || peer == pair(1, 9).peer);
        assert_eq!(held.len(), 2, "only that one");
        held.expire(Instant::from_millis(60));
        assert_eq!((held.len(), held.deadline()), (1, Some(Instant::from_millis(600))));
        held.release(pair(7, 2));
        assert_eq!((held.len(), held.deadline()), (0, None));
    }
}
