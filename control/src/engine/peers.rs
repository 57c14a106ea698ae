//! Whose locators are known: from the configuration, and from DNS for as long as it says so.
//!
//! What was learned is a hint where to try; it proves nothing. It is bounded, goes when its time is over (but not while one
//! of the hosts that used it last has a context with the peer), and never stands in the way of what the operator said.

use std::collections::BTreeSet;
use std::time::Duration;

use dataplane::wire::{Locator, Ulid, UlidPair};
use hashbrown::HashMap;

use crate::time::Instant;

/// Peers learned at a time.
pub(super) const LEARNED_MAX: usize = 65_536;
/// How long more a peer is kept whose time is over and who is in use.
const IN_USE_FOR: Duration = Duration::from_secs(60);
/// Hosts remembered to have used what was learned of a peer.
const USERS_MAX: usize = 8;

struct Learned {
    locators: Vec<Locator>,
    until: Instant,
    /// Who has opened a context with its help, the latest last.
    users: Vec<Ulid>,
}

/// The book of peers.
#[derive(Default)]
pub(super) struct Peers {
    configured: HashMap<Ulid, Vec<Locator>>,
    learned: HashMap<Ulid, Learned>,
    /// When each of the learned goes.
    due: BTreeSet<(Instant, Ulid)>,
}

impl Peers {
    /// The peers of the configuration, and no others; what was learned stays.
    pub(super) fn configure(&mut self, peers: impl Iterator<Item = (Ulid, Vec<Locator>)>) {
        self.configured = peers.collect();
    }

    /// Those of the configuration.
    pub(super) fn configured(&self) -> impl Iterator<Item = &Ulid> {
        self.configured.keys()
    }

    /// Where a peer may be reached.
    pub(super) fn get(&self, peer: &Ulid) -> Option<&Vec<Locator>> {
        self.configured.get(peer).or_else(|| self.learned.get(peer).map(|learned| &learned.locators))
    }

    /// Notes where a peer may be reached until then. Peers that had to make room: those whose time was over soonest.
    pub(super) fn learn(&mut self, peer: Ulid, locators: &[Locator], until: Instant) -> usize {
        let users = match self.learned.remove(&peer) {
            Some(old) => {
                self.due.remove(&(old.until, peer));
                old.users
            }
            None => Vec::new(),
        };
        let mut evicted = 0;
        while self.learned.len() >= LEARNED_MAX {
            let Some((_, first)) = self.due.pop_first() else { break };
            self.learned.remove(&first);
            evicted += 1;
        }
        self.due.insert((until, peer));
        self.learned.insert(peer, Learned { locators: locators.to_vec(), until, users });
        evicted
    }

    /// A host has opened a context with what is known here.
    pub(super) fn used(&mut self, ulids: UlidPair) {
        let Some(learned) = self.learned.get_mut(&ulids.peer) else { return };
        learned.users.retain(|user| *user != ulids.local);
        if learned.users.len() == USERS_MAX {
            learned.users.remove(0);
        }
        learned.users.push(ulids.local);
    }

    /// Forgets whose time is over and whom none of its hosts has a context with.
    pub(super) fn expire(&mut self, now: Instant, has_context: impl Fn(UlidPair) -> bool) {
        while let Some(&(until, peer)) = self.due.first().filter(|(until, _)| *until <= now) {
            self.due.remove(&(until, peer));
            let Some(learned) = self.learned.get_mut(&peer) else { continue };
            if learned.users.iter().any(|&local| has_context(UlidPair { local, peer })) {
                learned.until = now + IN_USE_FOR;
                self.due.insert((learned.until, peer));
            } else {
                self.learned.remove(&peer);
            }
        }
    }

    /// When [`Peers::expire`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(until, _)| *until)
    }

    /// Peers learned now.
    pub(super) fn learned(&self) -> usize {
        self.learned.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulid(number: u128) -> Ulid {
        Ulid((0xfc00_u128 << 112 | number).to_be_bytes().into())
    }

    fn locator(number: u128) -> Locator {
        Locator((0x2001_0db8_u128 << 96 | number).to_be_bytes().into())
    }

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    #[test]
    fn the_operators_word_counts_and_what_is_learned_goes() {
        let mut peers = Peers::default();
        peers.configure([(ulid(1), vec![locator(1)])].into_iter());
        peers.learn(ulid(1), &[locator(9)], at(100));
        peers.learn(ulid(2), &[locator(2)], at(50));
        assert_eq!(peers.get(&ulid(1)), Some(&vec![locator(1)]));
        assert_eq!(peers.get(&ulid(2)), Some(&vec![locator(2)]));
        assert_eq!(peers.deadline(), Some(at(50)));
        let pair = UlidPair { local: ulid(7), peer: ulid(2) };
        peers.used(pair);
        peers.expire(at(50), |asked| asked == pair);
        assert!(peers.get(&ulid(2)).is_some(), "in use");
        peers.expire(at(109), |_| false);
        assert!(peers.get(&ulid(2)).is_some());
        peers.expire(at(110), |_| false);
        assert!(peers.get(&ulid(2)).is_none());
        assert_eq!((peers.learned(), peers.deadline()), (0, None));
        assert!(peers.get(&ulid(1)).is_some());
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut peers = Peers::default();
        let evicted: usize = (0..LEARNED_MAX as u128 + 10)
            .map(|number| peers.learn(ulid(number), &[locator(number)], at(100 + number as u64)))
            .sum();
        assert_eq!((evicted, peers.learned(), peers.due.len()), (10, LEARNED_MAX, LEARNED_MAX));
        assert!(peers.get(&ulid(9)).is_none() && peers.get(&ulid(10)).is_some());
        // The same again takes no more room.
        assert_eq!(peers.learn(ulid(10), &[locator(3)], at(5)), 0);
        assert_eq!((peers.learned(), peers.due.len()), (LEARNED_MAX, LEARNED_MAX));
    }
}
