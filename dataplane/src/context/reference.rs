//! The slow twin of [`Shard`](super::Shard): maps anyone can believe, for tests to compare with.

use std::collections::{HashMap, HashSet};

use super::entry::Install;
use super::standby::{Loss, PathNumber};
use crate::wire::{ContextTag, LocatorPair, UlidPair};

/// Contexts by tag, and the tag of each pair's default context.
#[derive(Debug, Default)]
pub struct Reference {
    contexts: HashMap<ContextTag, Install>,
    pairs: HashMap<UlidPair, ContextTag>,
    lost: HashSet<Loss>,
}

impl Reference {
    /// As [`Shard::install`](super::Shard::install), without a bound.
    pub fn install(&mut self, install: &Install) {
        self.remove(install.local_tag);
        self.contexts.insert(install.local_tag, install.clone());
        if install.default {
            self.pairs.insert(install.ulids, install.local_tag);
        }
    }

    /// As [`Shard::remove`](super::Shard::remove).
    pub fn remove(&mut self, tag: ContextTag) -> bool {
        self.pairs.retain(|_, held| *held != tag);
        self.contexts.remove(&tag).is_some()
    }

    /// The context with this tag.
    pub fn by_tag(&self, tag: ContextTag) -> Option<&Install> {
        self.contexts.get(&tag)
    }

    /// The default context of a pair.
    pub fn by_pair(&self, pair: &UlidPair) -> Option<&Install> {
        self.pairs.get(pair).and_then(|tag| self.contexts.get(tag))
    }

    /// As [`Shard::lose`](super::Shard::lose).
    pub fn lose(&mut self, loss: Loss, lost: bool) {
        if lost && loss != Loss::Path(PathNumber::NONE) {
            self.lost.insert(loss);
        } else {
            self.lost.remove(&loss);
        }
    }

    /// Pair and provider of [`Shard::way`](super::Shard::way).
    pub fn way(&self, tag: ContextTag) -> Option<(LocatorPair, u8)> {
        let context = self.by_tag(tag)?;
        let is_lost =
            |provider, path| self.lost.contains(&Loss::Provider(provider)) || self.lost.contains(&Loss::Path(path));
        match context.standby {
            Some(other) if is_lost(context.provider, context.path) && !is_lost(other.provider, other.path) => {
                Some((other.locators, other.provider))
            }
            _ => Some((context.locators, context.provider)),
        }
    }

    /// Contexts held.
    pub fn len(&self) -> usize {
        self.contexts.len()
    }

    /// Whether no context is held.
    pub fn is_empty(&self) -> bool {
        self.contexts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Direction, Hasher, Phase, Shard, Standby};
    use super::*;
    use crate::context::Report;
    use crate::wire::{Locator, Ulid};
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    /// What a context may have to do with losses, as bits: its provider, its path, whether it has a standby, and that one's.
    fn install_with(tag: u64, pair: u8, default: bool, bits: u8) -> Install {
        let install = install(tag, pair, default);
        let number = |bits: u8| PathNumber::new(u16::from(bits & 3)).unwrap_or(PathNumber::NONE);
        let standby = Standby {
            locators: LocatorPair { local: install.locators.peer, peer: install.locators.local },
            provider: bits >> 1 & 1,
            path: number(bits >> 2),
            narrow: false,
            udp: false,
        };
        Install { provider: bits & 1, path: number(bits >> 4), standby: (bits >> 6 != 0).then_some(standby), ..install }
    }

    fn install(tag: u64, pair: u8, default: bool) -> Install {
        let address = |n: u16| Ipv6Addr::new(0xfc00, n, 0, 0, 0, 0, 0, 1);
        let ulids = UlidPair { local: Ulid(address(1)), peer: Ulid(address(u16::from(pair) + 2)) };
        let locators = LocatorPair { local: Locator(address(100)), peer: Locator(address(tag as u16)) };
        let (local_tag, peer_tag) = (ContextTag::truncate(tag), ContextTag::truncate(tag + 1));
        Install {
            handle: tag,
            ulids,
            default,
            classes: crate::snapshot::Classes::NONE,
            local_tag,
            peer_tag,
            locators,
            provider: 0,
            path: PathNumber::NONE,
            standby: None,
            host: 0,
            inside: None,
            phase: Phase::Live,
            local_label: None,
            peer_label: None,
            narrow: false,
            udp: crate::context::entry::UdpUse { comes: tag & 1 == 1, goes: tag & 2 == 2 },
            accepted: None,
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Install(u64, u8, bool, u8),
        Lose(Loss, bool),
        Remove(u64),
        Packet(u64),
        Report,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..24, 0u8..12, any::<bool>(), any::<u8>()).prop_map(|(t, p, d, b)| Step::Install(t, p, d, b)),
            2 => (0u8..2, any::<bool>()).prop_map(|(it, lost)| Step::Lose(Loss::Provider(it), lost)),
            2 => (1u16..4, any::<bool>())
                .prop_map(|(it, lost)| Step::Lose(Loss::Path(PathNumber::new(it).unwrap_or_default()), lost)),
            2 => (0u64..24).prop_map(Step::Remove),
            2 => (0u64..24).prop_map(Step::Packet),
            1 => Just(Step::Report),
        ]
    }

    proptest! {
        /// And a packet has one way to go, whatever is lost (R5534-013).
        #[test]
        fn the_fast_table_answers_as_the_slow_one(steps in prop::collection::vec(step(), 1..200)) {
            let mut fast = Shard::new(32, Hasher::new([3; 32]), false).with_standbys(true);
            let mut slow = Reference::default();
            for step in steps {
                match step {
                    Step::Install(tag, pair, default, bits) => {
                        let install = install_with(tag, pair, default, bits);
                        prop_assert!(fast.install(&install).is_ok());
                        slow.install(&install);
                    }
                    Step::Lose(loss, lost) => {
                        fast.lose(loss, lost);
                        slow.lose(loss, lost);
                    }
                    Step::Remove(tag) => {
                        let tag = ContextTag::truncate(tag);
                        prop_assert_eq!(fast.remove(tag), slow.remove(tag));
                    }
                    Step::Packet(tag) => {
                        let tag = ContextTag::truncate(tag);
                        if let Some(slot) = fast.by_tag(tag) {
                            fast.note(slot, Direction::In, 100);
                        }
                    }
                    Step::Report => {
                        fast.start_report();
                        while let Some(report) = fast.next_activity() {
                            let Report::Own(handle, activity, _) = report else { unreachable!("it takes no guests") };
                            prop_assert!(slow.by_tag(ContextTag::truncate(handle)).is_some());
                            prop_assert!(activity.received && !activity.sent);
                        }
                    }
                }
                fast.selfcheck();
                prop_assert_eq!(fast.len(), slow.len());
                for tag in (0..24).map(ContextTag::truncate) {
                    let found = fast.by_tag(tag).map(|slot| fast.entry(slot).peer_tag());
                    prop_assert_eq!(found, slow.by_tag(tag).map(|context| context.peer_tag));
                    let way = fast.by_tag(tag).map(|slot| fast.way(slot));
                    prop_assert_eq!(way.map(|way| (*way.locators, way.provider)), slow.way(tag));
                }
                for pair in (0..12).map(|pair| install(0, pair, true).ulids) {
                    let found = fast.by_pair(fast.hasher().pair(&pair), &pair).map(|slot| fast.entry(slot).local_tag);
                    prop_assert_eq!(found, slow.by_pair(&pair).map(|context| context.local_tag));
                }
            }
        }
    }

    #[test]
    fn a_full_shard_refuses_and_stays_whole() {
        let mut shard = Shard::new(4, Hasher::new([9; 32]), false);
        for n in 0..4 {
            assert!(shard.install(&install(n, n as u8, true)).is_ok());
        }
        assert!(shard.install(&install(9, 9, true)).is_err());
        assert!(shard.install(&install(2, 7, true)).is_ok(), "an update needs no room");
        shard.selfcheck();
        assert!(shard.remove(ContextTag::truncate(0)));
        assert!(shard.install(&install(9, 9, true)).is_err(), "its slot is that of another tag");
        assert!(shard.install(&install(8, 9, true)).is_ok());
        shard.selfcheck();
    }
}
