//! Another way for a context, and what is lost: one bit written by control sends any number of contexts another way
//! (docs/decisions: path indirection).
//!
//! **The idea.** Beside its current pair a context may have a *standby*: a pair through another provider that control has
//! seen working for this very context. A worker holds the [`Losses`]: which providers are lost, and which paths. Where a
//! packet goes follows from the two alone ([`Shard::way`](super::Shard::way)), so nothing about a context changes when
//! something is lost, nothing has to be undone when it is back, and it does not matter in which order losses and contexts
//! come, go and come again.
//!
//! **The promise.** While nothing is lost nobody reads a standby: they lie in an array of their own, and packets ask once
//! in a burst. While something is, a context asks about its own provider and path, which are in the line that is read
//! anyway, and only who has lost one reads its standby.

use super::entry::Entry;
use crate::wire::shim6::UdpFlow;
use crate::wire::{ContextTag, LocatorPair};

/// Numbers of paths there are, [`PathNumber::NONE`] among them.
pub const PATHS: usize = 4096;
/// Providers that can be lost; contexts name them by smaller numbers than this (control allows no more).
pub const PROVIDERS: usize = u64::BITS as usize;

/// A path, by the number control gave it: one of our providers, towards one site of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathNumber(u16);

impl PathNumber {
    /// A path without a number. It is never lost.
    pub const NONE: PathNumber = PathNumber(0);

    /// The path with a number from 1 to [`PATHS`] - 1.
    pub const fn new(number: u16) -> Option<PathNumber> {
        if number != 0 && (number as usize) < PATHS { Some(PathNumber(number)) } else { None }
    }

    /// The number; 0 is none.
    pub const fn value(self) -> u16 {
        self.0
    }
}

/// The other way of a context: a pair that was verified, and seen to work, like its current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standby {
    /// The pair.
    pub locators: LocatorPair,
    /// Provider that delegated its local locator, as an index into the snapshot.
    pub provider: u8,
    /// Its path.
    pub path: PathNumber,
    /// Whether a router on its path has no room for the payload header behind 1280 octets.
    pub narrow: bool,
    /// Whether what has a payload header goes over it in UDP.
    pub udp: bool,
}

/// What can be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// A provider, as an index into the snapshot.
    Provider(u8),
    /// A path.
    Path(PathNumber),
}

/// What is lost, as one worker knows it.
#[derive(Clone, Debug)]
pub struct Losses {
    /// By provider.
    providers: u64,
    /// By path.
    paths: [u64; PATHS / 64],
    /// Paths lost.
    count: u32,
}

impl Default for Losses {
    fn default() -> Losses {
        Losses { providers: 0, paths: [0; PATHS / 64], count: 0 }
    }
}

impl Losses {
    /// Whether anything is.
    #[inline]
    pub fn any(&self) -> bool {
        self.providers != 0 || self.count != 0
    }

    /// Whether a provider or a path is.
    #[inline]
    pub fn concern(&self, provider: u8, path: PathNumber) -> bool {
        let path = usize::from(path.0) % PATHS;
        self.providers.checked_shr(provider.into()).unwrap_or(0) & 1 != 0
            || self.paths[path / 64] >> (path % 64) & 1 != 0
    }

    /// Whether this very thing is.
    pub fn has(&self, loss: Loss) -> bool {
        match loss {
            Loss::Provider(provider) => self.concern(provider, PathNumber::NONE),
            Loss::Path(path) => self.paths[usize::from(path.0) % PATHS / 64] >> (path.0 % 64) & 1 != 0,
        }
    }

    /// Something is lost, or is back.
    pub fn set(&mut self, loss: Loss, lost: bool) {
        match loss {
            Loss::Provider(provider) => {
                let bit = 1u64.checked_shl(provider.into()).unwrap_or(0);
                self.providers = if lost { self.providers | bit } else { self.providers & !bit };
            }
            Loss::Path(PathNumber::NONE) => {}
            Loss::Path(PathNumber(number)) => {
                let number = usize::from(number) % PATHS;
                let (word, bit) = (&mut self.paths[number / 64], 1 << (number % 64));
                match (lost, *word & bit != 0) {
                    (true, false) => self.count += 1,
                    (false, true) => self.count -= 1,
                    (true, true) | (false, false) => {}
                }
                *word = if lost { *word | bit } else { *word & !bit };
            }
        }
    }
}

/// A standby as it lies beside the entry of its context.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Beside {
    /// The pair.
    pub locators: LocatorPair,
    path: PathNumber,
    /// Provider of its local locator.
    pub provider: u8,
    flags: u8,
}

const _: () = assert!(size_of::<Beside>() == 36);

/// The pair is the identifiers, so packets go unchanged.
const PLAIN: u8 = 1;
/// The path carries 1280 octets and no more.
const NARROW: u8 = 2;
/// What has the payload header leaves in UDP.
const WRAPPED: u8 = 4;

impl Beside {
    /// What stands beside an entry without a standby.
    pub(super) fn nothing() -> Beside {
        let nobody = crate::wire::Locator(std::net::Ipv6Addr::UNSPECIFIED);
        let locators = LocatorPair { local: nobody, peer: nobody };
        Beside { locators, path: PathNumber::NONE, provider: 0, flags: 0 }
    }

    /// The standby of a context whose identifiers are `own`, written as a pair of locators.
    pub(super) fn new(standby: &Standby, own: LocatorPair) -> Beside {
        let plain = if standby.locators == own { PLAIN } else { 0 };
        let narrow = if standby.narrow { NARROW } else { 0 };
        let udp = if standby.udp { WRAPPED } else { 0 };
        let flags = plain | narrow | udp;
        Beside { locators: standby.locators, path: standby.path, provider: standby.provider, flags }
    }

    /// Whether it serves while so much is lost.
    #[inline]
    pub(super) fn serves(&self, losses: &Losses) -> bool {
        !losses.concern(self.provider, self.path)
    }

    /// Whether nothing about it asks for a second look.
    #[inline]
    pub fn is_ordinary(&self) -> bool {
        self.flags == 0
    }

    /// The way it is, for the context of `entry`.
    pub(super) fn way(&self, entry: &Entry) -> Way<'_> {
        Way {
            locators: &self.locators,
            provider: self.provider,
            peer_tag: entry.peer_tag(),
            is_plain: self.flags & PLAIN != 0,
            is_narrow: self.flags & NARROW != 0,
            is_standby: true,
            udp: entry.flow(self.flags & WRAPPED != 0),
        }
    }
}

/// Where a context's packets go now, and how.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// The pair.
    pub locators: &'a LocatorPair,
    /// Provider of its local locator, as an index into the snapshot.
    pub provider: u8,
    /// The peer's tag.
    pub peer_tag: ContextTag,
    /// Whether the pair is the identifiers, so that packets go unchanged (RFC 5533 §11).
    pub is_plain: bool,
    /// Whether its path carries 1280 octets and no more (RFC 8200 §5).
    pub is_narrow: bool,
    /// Whether it is the standby.
    pub is_standby: bool,
    /// What makes the ports, if what has a payload header goes in UDP.
    pub udp: Option<UdpFlow>,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn loss() -> impl Strategy<Value = Loss> {
        prop_oneof![
            (0u8..70).prop_map(Loss::Provider),
            prop_oneof![0u16..4, 4090u16..4096].prop_map(|number| Loss::Path(PathNumber(number))),
        ]
    }

    proptest! {
        /// Against a set anyone can believe.
        #[test]
        fn what_was_lost_last_is_lost(steps in prop::collection::vec((loss(), any::<bool>()), 1..60)) {
            let mut fast = Losses::default();
            let mut slow = HashSet::new();
            for (loss, lost) in steps {
                fast.set(loss, lost);
                let counts = match loss {
                    Loss::Provider(provider) => usize::from(provider) < PROVIDERS,
                    Loss::Path(path) => path != PathNumber::NONE,
                };
                if counts && lost {
                    slow.insert(loss);
                } else {
                    slow.remove(&loss);
                }
                prop_assert_eq!(fast.any(), !slow.is_empty());
                prop_assert_eq!(fast.has(loss), slow.contains(&loss));
                for provider in [0u8, 1, 5, 63, 64, 69] {
                    for path in [0, 1, 2, 3, 4090, 4095].map(PathNumber) {
                        let expected = slow.contains(&Loss::Provider(provider)) || slow.contains(&Loss::Path(path));
                        prop_assert_eq!(fast.concern(provider, path), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn a_number_is_one_a_worker_has_room_for() {
        assert_eq!(PathNumber::new(0), None);
        assert_eq!(PathNumber::new(PATHS as u16), None);
        assert_eq!(PathNumber::new(PATHS as u16 - 1).map(PathNumber::value), Some(4095));
    }
}
