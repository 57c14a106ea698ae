//! The slow twin of [`Shard`](super::Shard): maps anyone can believe, for tests to compare with.

use std::collections::HashMap;

use super::entry::Install;
use crate::wire::{ContextTag, UlidPair};

/// Contexts by tag, and the tag of each pair's default context.
#[derive(Debug, Default)]
pub struct Reference {
    contexts: HashMap<ContextTag, Install>,
    pairs: HashMap<UlidPair, ContextTag>,
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
    use super::super::{Direction, Hasher, Phase, Shard};
    use super::*;
    use crate::wire::{Locator, LocatorPair, Ulid};
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

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
            host: 0,
            inside: None,
            phase: Phase::Live,
            local_label: None,
            peer_label: None,
            narrow: false,
            accepted: None,
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Install(u64, u8, bool),
        Remove(u64),
        Packet(u64),
        Report,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..24, 0u8..12, any::<bool>()).prop_map(|(t, p, d)| Step::Install(t, p, d)),
            2 => (0u64..24).prop_map(Step::Remove),
            2 => (0u64..24).prop_map(Step::Packet),
            1 => Just(Step::Report),
        ]
    }

    proptest! {
        #[test]
        fn the_fast_table_answers_as_the_slow_one(steps in prop::collection::vec(step(), 1..200)) {
            let mut fast = Shard::new(32, Hasher::new([3; 32]), false);
            let mut slow = Reference::default();
            for step in steps {
                match step {
                    Step::Install(tag, pair, default) => {
                        let install = install(tag, pair, default);
                        prop_assert!(fast.install(&install).is_ok());
                        slow.install(&install);
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
                        while let Some((handle, activity, _)) = fast.next_activity() {
                            prop_assert!(slow.by_tag(ContextTag::truncate(handle)).is_some());
                            prop_assert!(activity.received && !activity.sent);
                        }
                    }
                }
                fast.selfcheck();
                prop_assert_eq!(fast.len(), slow.len());
                for tag in (0..24).map(ContextTag::truncate) {
                    let found = fast.by_tag(tag).map(|slot| fast.entry(slot).peer_tag);
                    prop_assert_eq!(found, slow.by_tag(tag).map(|context| context.peer_tag));
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
