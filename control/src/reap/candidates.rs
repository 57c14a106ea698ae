//! Which locator pairs may be probed, and in which order (RFC 5534 §3.1, §4.3).

use std::cmp::Reverse;
use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::wire::{Locator, LocatorPair};

use super::config::{Config, Order};
use super::paths::{PathKey, Status};
use super::sightings::{Condition, Ends};

/// Most pairs one exploration keeps; a peer with a very long locator list cannot make us hold more.
pub(super) const CANDIDATES_MAX: usize = 256;

/// One of our locators, as far as ordering cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalLocator {
    /// The address; verified, available and locally operational (the caller sees to that).
    pub locator: Locator,
    /// Lower is tried first; equals are tried in list order (R5534-039).
    pub preference: u8,
    /// Only where nothing else works: the operator wants it free, or it is about to go. Not kept as current.
    pub unwelcome: bool,
}

/// One of the peer's locators, as far as ordering cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLocator {
    /// The address; verified by HBA or CGA before it comes here (spec §10 e).
    pub locator: Locator,
    /// The peer says that it does not work (RFC 5533 §5.15.3): tried last, and not kept as current.
    pub broken: bool,
    /// The peer says that it is less stable than others.
    pub transient: bool,
    /// As in DNS SRV: lower first (R5534-040).
    pub priority: u8,
}

impl From<Locator> for LocalLocator {
    fn from(locator: Locator) -> LocalLocator {
        LocalLocator { locator, preference: 0, unwelcome: false }
    }
}

impl From<Locator> for PeerLocator {
    fn from(locator: Locator) -> PeerLocator {
        PeerLocator { locator, broken: false, transient: false, priority: 0 }
    }
}

/// What decides whether an address of ours is *available* (RFC 5534 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressStatus {
    /// Assigned to an interface.
    pub assigned: bool,
    /// What is left of its prefix's valid lifetime.
    pub valid_lifetime: Duration,
    /// Duplicate address detection has not ended, and the address is not optimistic (RFC 4429) either.
    pub tentative: bool,
    /// Local policy permits its use.
    pub allowed: bool,
}

impl AddressStatus {
    /// All five conditions of RFC 5534 §3.1 (R5534-001); an optimistic address passes (R5534-003).
    pub fn is_available(&self, locator: Locator) -> bool {
        self.assigned
            && !self.valid_lifetime.is_zero()
            && !self.tentative
            && self.allowed
            && Scope::of(locator, true).is_some()
    }
}

/// Everything the order depends on.
pub(super) struct Choice<'a> {
    pub(super) local: &'a [LocalLocator],
    pub(super) peer: &'a [PeerLocator],
    pub(super) current: LocatorPair,
    /// There is local evidence against the current pair: it goes last instead of first.
    pub(super) demoted: bool,
    /// What other contexts know about the paths.
    pub(super) rank: &'a dyn Fn(LocatorPair) -> Status,
    /// What they know about the two ends of the current pair.
    pub(super) ends: Ends,
}

impl Choice<'_> {
    /// All pairs that may be probed, first to try first (RFC 5534 §4.3): cross product, pruned, ordered.
    pub(super) fn candidates(&self, config: &Config) -> Vec<LocatorPair> {
        let mut keyed = Vec::with_capacity(self.local.len().saturating_mul(self.peer.len()).min(CANDIDATES_MAX));
        for local in self.local {
            for peer in self.peer {
                let pair = LocatorPair { local: local.locator, peer: peer.locator };
                if is_probeable(pair, config) {
                    keyed.push((self.key(local, peer, config.order), pair));
                }
            }
        }
        // Stable, so that equals stay in list order.
        keyed.sort_by_key(|(key, _)| *key);
        keyed.truncate(CANDIDATES_MAX);
        let mut pairs: Vec<LocatorPair> = Vec::with_capacity(keyed.len());
        for (_, pair) in keyed {
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
        pairs
    }

    /// The best of `pairs`, by preference alone: for choosing among pairs that were all shown to work (spec A7).
    pub(super) fn preferred(&self, pairs: impl Iterator<Item = LocatorPair>) -> Option<LocatorPair> {
        let place = |pair: LocatorPair| {
            let local = self.local.iter().position(|local| local.locator == pair.local)?;
            let peer = self.peer.iter().position(|peer| peer.locator == pair.peer)?;
            Some((self.preference(&self.local[local], &self.peer[peer]), local, peer))
        };
        pairs.filter_map(|pair| Some((place(pair)?, pair))).min_by_key(|(key, _)| *key).map(|(_, pair)| pair)
    }

    fn key(&self, local: &LocalLocator, peer: &PeerLocator, order: Order) -> impl Ord + Copy + use<> {
        let pair = LocatorPair { local: local.locator, peer: peer.locator };
        let place = match (pair == self.current, self.demoted) {
            (true, false) => 0,
            (false, _) => 1,
            (true, true) => 2,
        };
        let status = if peer.broken || local.unwelcome { Status::Dead } else { (self.rank)(pair) };
        (place, status, self.doubt(pair, order), self.preference(local, peer))
    }

    /// How much a pair has in common with what failed: nothing is least doubtful, unless others find one end well.
    ///
    /// An end that nobody knows about is better avoided, one at which others fell silent all the more. One that others
    /// use undisturbed has been cleared: it is kept, since what is known to work is better than what is only unused.
    fn doubt(&self, pair: LocatorPair, order: Order) -> u8 {
        let ends = match order {
            Order::Preferred => return 0,
            Order::Divergent => Ends::default(),
            Order::Informed => self.ends,
        };
        let (here, failed) = (PathKey::of(pair), PathKey::of(self.current));
        let end = |shared: bool, condition| match (shared, condition) {
            (true, Condition::Well) => 0,
            (true, Condition::Unknown) => 2,
            (true, Condition::Failing) => 4,
            (false, Condition::Well) => 1,
            (false, Condition::Unknown | Condition::Failing) => 0,
        };
        end(here.local == failed.local, ends.local) + end(here.peer == failed.peer, ends.peer)
    }

    /// RFC 6724 rules for labels and precedence, then local, then peer preferences.
    ///
    /// The longest matching prefix (rules 8 and 9) says nothing about which provider works (RFC 6724 §10.5) and may be
    /// superseded, so list order takes its place.
    fn preference(&self, local: &LocalLocator, peer: &PeerLocator) -> (bool, bool, Reverse<u8>, u8, bool, u8) {
        let (local_row, peer_row) = (policy(local.locator.0), policy(peer.locator.0));
        let mismatch = local_row.label != peer_row.label;
        (
            peer.broken || local.unwelcome,
            mismatch,
            Reverse(peer_row.precedence),
            local.preference,
            peer.transient,
            peer.priority,
        )
    }
}

/// Whether a probe could travel between these two at all (R5534-002, -037, -127).
pub(super) fn is_probeable(pair: LocatorPair, config: &Config) -> bool {
    let scope = |locator| Scope::of(locator, config.ula_routable);
    scope(pair.local).is_some() && scope(pair.local) == scope(pair.peer)
}

/// How far an address reaches, as far as REAP is concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Global,
    Ula,
}

impl Scope {
    /// Nothing for addresses that are never locators: link-local, site-local, multicast, loopback, mapped, unspecified.
    fn of(locator: Locator, ula_routable: bool) -> Option<Scope> {
        let [first, ..] = locator.0.segments();
        match first {
            0xfc00..=0xfdff => ula_routable.then_some(Scope::Ula),
            0xfe80..=0xffff => None,
            // ::/16 holds the unspecified, loopback, mapped and compatible addresses and nothing that is routed.
            0 => None,
            _ => Some(Scope::Global),
        }
    }
}

struct Policy {
    precedence: u8,
    label: u8,
}

/// RFC 6724 §2.1, default policy table, for the addresses that [`Scope::of`] lets through.
fn policy(address: Ipv6Addr) -> Policy {
    let (precedence, label) = match address.segments() {
        [0x2002, ..] => (30, 2),
        [0x2001, 0, ..] => (5, 5),
        [0xfc00..=0xfdff, ..] => (3, 13),
        [0x3ffe, ..] => (1, 12),
        _ => (40, 1),
    };
    Policy { precedence, label }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Locator {
        Locator(text.parse().unwrap())
    }

    fn pairs(local: &[LocalLocator], peer: &[PeerLocator], config: &Config) -> Vec<(usize, usize)> {
        let current = LocatorPair { local: local[0].locator, peer: peer[0].locator };
        ordered(local, peer, config, current, false, &|_| Status::Unknown)
    }

    fn ordered(
        local: &[LocalLocator],
        peer: &[PeerLocator],
        config: &Config,
        current: LocatorPair,
        demoted: bool,
        rank: &dyn Fn(LocatorPair) -> Status,
    ) -> Vec<(usize, usize)> {
        let index = |pair: LocatorPair| {
            let local = local.iter().position(|entry| entry.locator == pair.local).unwrap();
            (local, peer.iter().position(|entry| entry.locator == pair.peer).unwrap())
        };
        Choice { local, peer, current, demoted, rank, ends: Ends::default() }
            .candidates(config)
            .into_iter()
            .map(index)
            .collect()
    }

    fn three_by_three() -> (Vec<LocalLocator>, Vec<PeerLocator>) {
        let local = ["2001:db8:a1::1", "2001:db8:a2::1", "2001:db8:a3::1"].map(|text| at(text).into());
        let peer = ["2001:db8:b1::1", "2001:db8:b2::1", "2001:db8:b3::1"].map(|text| at(text).into());
        (local.to_vec(), peer.to_vec())
    }

    // R5534-036
    #[test]
    fn two_by_three_locators_make_six_pairs() {
        let (local, peer) = three_by_three();
        let found = pairs(&local[..2], &peer, &Config { order: Order::Preferred, ..Config::default() });
        assert_eq!(found, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
    }

    #[test]
    fn pairs_that_avoid_both_ends_of_the_failed_one_come_next() {
        let (local, peer) = three_by_three();
        let found = pairs(&local[..2], &peer, &Config::default());
        assert_eq!(found, [(0, 0), (1, 1), (1, 2), (0, 1), (0, 2), (1, 0)]);
    }

    // R5534-002, R5534-037, R5534-127
    #[test]
    fn pairs_that_no_router_would_carry_are_absent() {
        let local: Vec<LocalLocator> =
            ["2001:db8:a::1", "fe80::1", "fec0::1", "fc00:1::1", "::1", "ff02::1", "::ffff:192.0.2.1"]
                .map(|text| at(text).into())
                .to_vec();
        let peer: Vec<PeerLocator> = ["2001:db8:b::1", "fc00:2::1", "fe80::2"].map(|text| at(text).into()).to_vec();
        assert_eq!(pairs(&local, &peer, &Config::default()), [(0, 0)]);
        let routable = Config { ula_routable: true, ..Config::default() };
        assert_eq!(pairs(&local, &peer, &routable), [(0, 0), (3, 1)]);
    }

    // R5534-038: labels first, then precedence, as RFC 6724 rules 5 and 6 for destinations would have it.
    #[test]
    fn base_order_is_that_of_rfc_6724() {
        let local: Vec<LocalLocator> = ["2002:c000:201::1", "2001:db8:a::1"].map(|text| at(text).into()).to_vec();
        let peer: Vec<PeerLocator> = ["2002:c633:6401::1", "2001:db8:b::1"].map(|text| at(text).into()).to_vec();
        let current = LocatorPair { local: at("2001:db8:c::1"), peer: at("2001:db8:d::1") };
        let found = ordered(&local, &peer, &Config::default(), current, false, &|_| Status::Unknown);
        assert_eq!(found, [(1, 1), (0, 0), (0, 1), (1, 0)]);
    }

    // R5534-039, R5534-040, R5533-113: of a peer's locators the one with the lower priority comes first.
    #[test]
    fn preferences_of_both_sides_move_pairs() {
        let config = Config { order: Order::Preferred, ..Config::default() };
        let (mut local, mut peer) = three_by_three();
        local.truncate(2);
        peer.truncate(2);
        local.push(at("2001:db8:a9::1").into());
        local[1].preference = 9;
        assert_eq!(pairs(&local, &peer, &config), [(0, 0), (0, 1), (2, 0), (2, 1), (1, 0), (1, 1)]);
        let (local, mut peer) = three_by_three();
        peer[1].priority = 7;
        assert_eq!(pairs(&local[..1], &peer, &config), [(0, 0), (0, 2), (0, 1)]);
        peer[2].broken = true;
        assert_eq!(pairs(&local[..1], &peer, &config), [(0, 0), (0, 1), (0, 2)]);
    }

    #[test]
    fn what_neighbours_know_beats_preference_and_a_suspected_pair_goes_last() {
        let (local, peer) = three_by_three();
        let current = LocatorPair { local: local[0].locator, peer: peer[0].locator };
        let rank = |pair: LocatorPair| match pair {
            _ if pair.local == local[1].locator => Status::Dead,
            _ if pair.peer == peer[1].locator => Status::Working,
            _ => Status::Unknown,
        };
        let found = ordered(&local[..2], &peer[..2], &Config::default(), current, true, &rank);
        assert_eq!(found, [(0, 1), (1, 1), (1, 0), (0, 0)]);
    }

    // R5534-001, R5534-003
    #[test]
    fn an_address_is_available_only_if_all_five_conditions_hold() {
        let good =
            AddressStatus { assigned: true, valid_lifetime: Duration::from_secs(1), tentative: false, allowed: true };
        let address = at("2001:db8:a::1");
        assert!(good.is_available(address));
        assert!(good.is_available(at("fd00::1")), "RFC 5534 accepts unique local addresses");
        assert!(!AddressStatus { assigned: false, ..good }.is_available(address));
        assert!(!AddressStatus { valid_lifetime: Duration::ZERO, ..good }.is_available(address));
        assert!(!AddressStatus { tentative: true, ..good }.is_available(address));
        assert!(!AddressStatus { allowed: false, ..good }.is_available(address));
        assert!(!good.is_available(at("fe80::1")));
        assert!(!good.is_available(at("fec0::1")));
    }
    /// Places in the order of three by three pairs, the current one left out.
    fn informed(local: Condition, peer: Condition) -> Vec<(usize, usize)> {
        let (ours, theirs) = three_by_three();
        let current = LocatorPair { local: ours[0].locator, peer: theirs[0].locator };
        let index = |pair: LocatorPair| {
            let local = ours.iter().position(|entry| entry.locator == pair.local).unwrap();
            (local, theirs.iter().position(|entry| entry.locator == pair.peer).unwrap())
        };
        let choice = Choice {
            local: &ours,
            peer: &theirs,
            current,
            demoted: true,
            rank: &|_| Status::Unknown,
            ends: Ends { local, peer, ..Ends::default() },
        };
        let found = choice.candidates(&Config::default()).into_iter().map(index).collect::<Vec<_>>();
        assert_eq!(found.last(), Some(&(0, 0)), "known to have failed");
        found[..8].to_vec()
    }

    #[test]
    fn an_end_that_others_find_well_is_kept_and_one_that_fails_is_left_first() {
        use Condition::{Failing, Unknown, Well};
        let divergent = [(1, 1), (1, 2), (2, 1), (2, 2), (0, 1), (0, 2), (1, 0), (2, 0)];
        assert_eq!(informed(Unknown, Unknown), divergent);
        // Both ends fail: what shares either is tried last.
        assert_eq!(informed(Failing, Failing), divergent);
        // Our provider fails, theirs does not: theirs is kept at first.
        let ours = [(1, 0), (2, 0), (1, 1), (1, 2), (2, 1), (2, 2), (0, 1), (0, 2)];
        assert_eq!(informed(Failing, Well), ours);
        // The other way round.
        let theirs = [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2), (1, 0), (2, 0)];
        assert_eq!(informed(Well, Failing), theirs);
        assert_eq!(informed(Well, Unknown), theirs);
        // Something between the two: one end is changed, and preference says which first.
        let between = [(0, 1), (0, 2), (1, 0), (2, 0), (1, 1), (1, 2), (2, 1), (2, 2)];
        assert_eq!(informed(Well, Well), between);
        // Ours fails, and of theirs nothing is known.
        assert_eq!(informed(Failing, Unknown)[..4], divergent[..4]);
        assert_eq!(informed(Failing, Unknown)[4..], [(1, 0), (2, 0), (0, 1), (0, 2)]);
    }
}
