//! The class of a pair of identifiers: the first that it fits.

use std::net::Ipv6Addr;

use dataplane::snapshot::ClassView;

use super::window::Windows;
use super::{Direction, FailBack, Policy, Rule};
use crate::config::Prefix;
use crate::config::site::ARecords;

/// A class of traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// For people.
    pub name: String,
    /// The pairs it is for.
    pub pairs: PairMatch,
    /// What its packets look like, if not all packets of such a pair belong to it.
    pub packets: Option<PacketMatch>,
    /// Its rules, out and in; where there is none the site's preferences count.
    pub rules: [Option<Rule>; 2],
    /// Hours of the week in which others count.
    pub windows: Windows<[Option<Rule>; 2]>,
    /// What happens when a provider that was lost is back.
    pub fail_back: FailBack,
    /// What becomes of IPv4 addresses of names that have a CMULA, if that is said.
    pub a_records: Option<ARecords>,
}

/// What packets of a class look like.
pub type PacketMatch = ClassView;

/// The pairs a class is for. A list without entries takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairMatch {
    /// Hosts inside.
    pub hosts: Vec<Prefix>,
    /// Peers, by their identifiers.
    pub peers: Vec<Prefix>,
}

impl PairMatch {
    /// Whether the class is for this pair.
    pub fn fits(&self, host: Ipv6Addr, peer: Ipv6Addr) -> bool {
        let fits = |list: &[Prefix], address| list.is_empty() || list.iter().any(|it| it.contains(address));
        fits(&self.hosts, host) && fits(&self.peers, peer)
    }

    /// Whether no pair fits this one that does not fit the other one.
    pub fn is_within(&self, other: &PairMatch) -> bool {
        let within = |mine: &[Prefix], theirs: &[Prefix]| {
            let covered = |prefix: &Prefix| theirs.iter().any(|it| it.covers(*prefix));
            theirs.is_empty() || (!mine.is_empty() && mine.iter().all(covered))
        };
        within(&self.hosts, &other.hosts) && within(&self.peers, &other.peers)
    }
}

impl Class {
    /// The rule that counts in a direction, in a window or outside of all.
    pub fn rule(&self, window: Option<usize>, direction: Direction) -> Option<&Rule> {
        let rules = match window.and_then(|at| self.windows.iter().nth(at)) {
            Some((_, rules)) => rules,
            None => &self.rules,
        };
        rules[direction.index()].as_ref()
    }
}

impl Policy {
    /// The class of a pair's default context: the first that looks at no packet and is for the pair. The last class takes
    /// everything.
    pub fn class_of(&self, host: Ipv6Addr, peer: Ipv6Addr) -> usize {
        let fits = |class: &Class| class.packets.is_none() && class.pairs.fits(host, peer);
        self.classes.iter().position(fits).unwrap_or(self.classes.len().saturating_sub(1))
    }

    /// Classes that look at packets, in order, each with its place.
    pub fn packet_classes(&self) -> impl Iterator<Item = (usize, &Class, &PacketMatch)> {
        let classes = self.classes.iter().enumerate();
        classes.filter_map(|(at, class)| Some((at, class, class.packets.as_ref()?)))
    }

    /// Whether a class that looks at packets gets those of a pair, or an earlier class has all of them.
    pub fn is_reached(&self, class: usize, host: Ipv6Addr, peer: Ipv6Addr) -> bool {
        let earlier = self.classes.iter().take(class);
        !earlier.filter(|it| it.packets.is_none()).any(|it| it.pairs.fits(host, peer))
            && self.classes.get(class).is_some_and(|it| it.pairs.fits(host, peer))
    }
}
