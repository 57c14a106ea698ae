//! Whose locators are known: from the configuration, and from DNS for as long as it says so.
//!
//! What was learned is a hint where to try; it proves nothing. It is bounded, goes when its time is over (but not while one
//! of the hosts that used it last has a context with the peer), and never stands in the way of what the operator said.
//!
//! Anybody can publish anybody's identifier beside addresses of his own. So what one name says is added to what is known
//! and takes nothing away; what a look-up backwards or an exchange has confirmed is tried first and makes way for nothing that
//! is merely said; and after an exchange that failed the rest is doubted: it is tried when nothing better can be found.

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

/// Locators of one peer that are kept.
const HINTS_MAX: usize = 16;

/// How much is known of a locator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// Somebody said so, and an exchange with the peer failed.
    Doubted,
    /// Some name's records say so.
    Told,
    /// So do those of the name that the peer's identifier points to, or the peer has proved it.
    Confirmed,
}

struct Hint {
    locator: Locator,
    trust: Trust,
    until: Instant,
}

struct Learned {
    /// The best first, and of those the newest.
    hints: Vec<Hint>,
    /// The same without the rest.
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

    /// Whether an exchange failed with all that is known of a peer.
    pub(super) fn is_doubted(&self, peer: &Ulid) -> bool {
        let doubted = |learned: &Learned| learned.hints.iter().all(|hint| hint.trust == Trust::Doubted);
        !self.configured.contains_key(peer) && self.learned.get(peer).is_some_and(doubted)
    }

    /// Notes where a peer may be reached until then. Peers that had to make room: those whose time was over soonest.
    pub(super) fn learn(
        &mut self,
        now: Instant,
        peer: Ulid,
        locators: &[Locator],
        until: Instant,
        trust: Trust,
    ) -> usize {
        let old = self.learned.remove(&peer);
        let mut learned = old.unwrap_or(Learned { hints: Vec::new(), locators: Vec::new(), until, users: Vec::new() });
        self.due.remove(&(learned.until, peer));
        learned.add(now, locators, until, trust);
        learned.until = learned.hints.iter().map(|hint| hint.until).fold(until, Instant::max);
        let mut evicted = 0;
        while self.learned.len() >= LEARNED_MAX {
            let Some((_, first)) = self.due.pop_first() else { break };
            self.learned.remove(&first);
            evicted += 1;
        }
        self.due.insert((learned.until, peer));
        self.learned.insert(peer, learned);
        evicted
    }

    /// The peer has proved that these are its locators.
    pub(super) fn proved(&mut self, now: Instant, peer: Ulid, locators: &[Locator]) {
        let Some(learned) = self.learned.get_mut(&peer) else { return };
        for hint in learned.hints.iter_mut().filter(|hint| locators.contains(&hint.locator)) {
            hint.trust = Trust::Confirmed;
        }
        learned.sort(now);
    }

    /// An exchange with the peer came to nothing. It may be down, or somebody else is where it was said to be.
    pub(super) fn failed(&mut self, now: Instant, peer: Ulid) {
        let Some(learned) = self.learned.get_mut(&peer) else { return };
        for hint in learned.hints.iter_mut().filter(|hint| hint.trust == Trust::Told || hint.until <= now) {
            hint.trust = Trust::Doubted;
        }
        learned.sort(now);
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

impl Learned {
    fn add(&mut self, now: Instant, locators: &[Locator], until: Instant, trust: Trust) {
        // What a peer has proved stays for as long as it is in use.
        self.hints.retain(|hint| hint.until > now || hint.trust == Trust::Confirmed);
        if trust == Trust::Confirmed {
            // Who knows it has said where the peer is now.
            self.hints.retain(|hint| hint.trust == Trust::Told || hint.until > now || locators.contains(&hint.locator));
        }
        for locator in locators.iter().rev() {
            let known = self.hints.iter().position(|hint| hint.locator == *locator).map(|at| self.hints.remove(at));
            // What is doubted is not better for being said again.
            let (trust, until) = known.map_or((trust, until), |known| match (known.trust, trust) {
                (Trust::Doubted, Trust::Told) => (Trust::Doubted, known.until.max(until)),
                (before, now) => (before.max(now), known.until.max(until)),
            });
            self.hints.insert(0, Hint { locator: *locator, trust, until });
        }
        self.sort(now);
        self.hints.truncate(HINTS_MAX);
        self.locators.truncate(HINTS_MAX);
    }

    /// A stable sort: of those with the same trust the newest is first already.
    fn sort(&mut self, now: Instant) {
        // What was true once is less than what is said now, though more than what was found wanting.
        self.hints.sort_by_key(|hint| match hint.trust {
            Trust::Confirmed if hint.until > now => 0,
            Trust::Told => 1,
            Trust::Confirmed => 2,
            Trust::Doubted => 3,
        });
        self.locators = self.hints.iter().map(|hint| hint.locator).collect();
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
        peers.learn(at(0), ulid(1), &[locator(9)], at(100), Trust::Told);
        peers.learn(at(0), ulid(2), &[locator(2)], at(50), Trust::Told);
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
            .map(|number| peers.learn(at(0), ulid(number), &[locator(number)], at(100 + number as u64), Trust::Told))
            .sum();
        assert_eq!((evicted, peers.learned(), peers.due.len()), (10, LEARNED_MAX, LEARNED_MAX));
        assert!(peers.get(&ulid(9)).is_none() && peers.get(&ulid(10)).is_some());
        // The same again takes no more room.
        assert_eq!(peers.learn(at(0), ulid(10), &[locator(3)], at(5), Trust::Told), 0);
        assert_eq!((peers.learned(), peers.due.len()), (LEARNED_MAX, LEARNED_MAX));
    }

    #[test]
    fn what_others_say_takes_nothing_away_and_what_was_confirmed_comes_first() {
        let (mut peers, peer) = (Peers::default(), ulid(1));
        let wrong: Vec<Locator> = (100..100 + HINTS_MAX as u128 + 4).map(locator).collect();
        peers.learn(at(0), peer, &[locator(1), locator(2)], at(100), Trust::Told);
        // Another name, with other addresses beside the same identifier: the newest is tried first, and both are.
        peers.learn(at(0), peer, &wrong[..2], at(1000), Trust::Told);
        assert_eq!(peers.get(&peer).unwrap(), &[wrong[0], wrong[1], locator(1), locator(2)]);
        // That led nowhere. What is found backwards, or proved, is first from then on, whatever is said.
        peers.failed(at(1), peer);
        assert!(peers.is_doubted(&peer));
        peers.learn(at(1), peer, &[locator(1)], at(100), Trust::Confirmed);
        peers.proved(at(1), peer, &[locator(2)]);
        assert!(!peers.is_doubted(&peer));
        peers.learn(at(2), peer, &wrong, at(1000), Trust::Told);
        let known = peers.get(&peer).unwrap();
        assert_eq!((&known[..2], known.len()), (&[locator(1), locator(2)][..], HINTS_MAX));
        assert_eq!(known[2], wrong[2], "what is doubted does not get better by being said again");
        // A failure does not take away what is confirmed and still good.
        peers.failed(at(3), peer);
        assert!(!peers.is_doubted(&peer));
        peers.failed(at(100), peer);
        assert!(peers.is_doubted(&peer), "its time was over");
        assert_eq!(peers.learned(), 1);
        peers.expire(at(1000), |_| false);
        assert_eq!((peers.learned(), peers.deadline()), (0, None));
    }

    #[test]
    fn who_moves_is_found_where_it_is_now() {
        let (mut peers, peer) = (Peers::default(), ulid(1));
        peers.learn(at(0), peer, &[locator(1), locator(2)], at(100), Trust::Confirmed);
        peers.learn(at(90), peer, &[locator(3)], at(200), Trust::Told);
        assert_eq!(peers.get(&peer).unwrap(), &[locator(1), locator(2), locator(3)]);
        peers.learn(at(120), peer, &[locator(3)], at(300), Trust::Told);
        assert_eq!(peers.get(&peer).unwrap(), &[locator(3), locator(1), locator(2)]);
        peers.learn(at(130), peer, &[locator(3)], at(300), Trust::Confirmed);
        assert_eq!(peers.get(&peer).unwrap(), &[locator(3)]);
    }
}
