//! Flow labels that stand for contexts (docs/decisions: the context in the flow label).
//!
//! A receiver names each of its contexts by a label, and the sender writes it where the host's own label was. 20 bits
//! are few enough to be a place in an array, so a label is found in one load. A label alone proves nothing: the packet
//! must also have come between locators of the context, always.
//!
//! Of several workers each owns a part of the labels, as of the tags, so both directions of a context meet at one.

use super::shard::Slot;
use crate::processor::prefetch;
use crate::wire::FlowLabel;

/// Which packets leave with a label for a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LabelMode {
    /// None; and packets that come with a label are plain ones.
    #[default]
    Off,
    /// Those whose host gave them no label, so that nothing is lost.
    Unlabelled,
    /// Those whose host gave them one too: it arrives as zero.
    All,
}

/// The labels of one shard.
pub(super) struct Labels {
    mode: LabelMode,
    /// By label: one more than the slot of the context it stands for, or zero. Empty when the mode is off.
    slots: Box<[u32]>,
    /// By slot.
    used: Box<[Used]>,
}

/// The labels of one context.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    /// What the peer was told to write.
    local: Option<FlowLabel>,
    /// What we write.
    peer: Option<FlowLabel>,
}

impl Labels {
    /// For up to `capacity` contexts. The array of labels takes memory page by page, as labels are used.
    pub(super) fn new(mode: LabelMode, capacity: usize) -> Labels {
        let (labels, capacity) = match mode {
            LabelMode::Off => (0, 0),
            LabelMode::Unlabelled | LabelMode::All => (1 << FlowLabel::BITS, capacity),
        };
        let used = vec![Used::default(); capacity].into_boxed_slice();
        Labels { mode, slots: vec![0; labels].into_boxed_slice(), used }
    }

    #[inline]
    pub(super) fn mode(&self) -> LabelMode {
        self.mode
    }

    /// Gives a context its labels. A label has one context: the newcomer.
    pub(super) fn set(&mut self, Slot(slot): Slot, local: Option<FlowLabel>, peer: Option<FlowLabel>) {
        let Some(used) = self.used.get_mut(slot as usize) else { return };
        let before = std::mem::replace(used, Used { local, peer }).local;
        if before == local {
            return;
        }
        if let Some(place) = before.and_then(|before| self.slots.get_mut(before.value() as usize)) {
            *place = 0;
        }
        let Some(place) = local.and_then(|local| self.slots.get_mut(local.value() as usize)) else { return };
        let older = std::mem::replace(place, slot + 1);
        if let Some(older) = older.checked_sub(1).and_then(|older| self.used.get_mut(older as usize)) {
            older.local = None;
        }
    }

    /// The context a label stands for.
    #[inline]
    pub(super) fn find(&self, label: FlowLabel) -> Option<Slot> {
        self.slots.get(label.value() as usize).and_then(|place| place.checked_sub(1)).map(Slot)
    }

    /// The label to write into packets of a context instead of a header.
    #[inline]
    pub(super) fn toward_peer(&self, Slot(slot): Slot) -> Option<FlowLabel> {
        self.used.get(slot as usize).and_then(|used| used.peer)
    }

    /// Asks for the labels of a context.
    #[inline]
    pub(super) fn prefetch_used(&self, slot: u32) {
        if let Some(used) = self.used.get(slot as usize) {
            prefetch(used);
        }
    }

    /// Walks everything and panics when a label leads to a context that does not have it. For tests.
    pub(super) fn selfcheck(&self, held: &[u32]) {
        let taken = self.slots.iter().enumerate().filter(|(_, place)| **place != 0);
        let mut count = 0;
        for (label, place) in taken {
            let slot = place - 1;
            let local = self.used[slot as usize].local;
            assert_eq!(local.map(FlowLabel::value), Some(label as u32), "a label leads to a context without it");
            assert!(held.binary_search(&slot).is_ok(), "a label leads to a free slot");
            count += 1;
        }
        assert_eq!(count, self.used.iter().filter(|used| used.local.is_some()).count(), "a label leads nowhere");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Against a map anyone can believe.
        #[test]
        fn labels_lead_where_they_were_set(
            steps in prop::collection::vec((0u32..8, prop::option::of(1u32..12), prop::option::of(1u32..12)), 1..100),
        ) {
            let mut fast = Labels::new(LabelMode::All, 8);
            let mut slow: HashMap<u32, u32> = HashMap::new();
            let mut peers: HashMap<u32, Option<u32>> = HashMap::new();
            for (slot, local, peer) in steps {
                let label = |label: Option<u32>| label.and_then(FlowLabel::truncate);
                fast.set(Slot(slot), label(local), label(peer));
                slow.retain(|_, held| *held != slot);
                local.map(|local| slow.insert(local, slot));
                peers.insert(slot, peer);
                for label in (1..12).filter_map(FlowLabel::truncate) {
                    prop_assert_eq!(fast.find(label), slow.get(&label.value()).copied().map(Slot));
                }
                for (slot, peer) in &peers {
                    prop_assert_eq!(fast.toward_peer(Slot(*slot)).map(FlowLabel::value), *peer);
                }
            }
            fast.selfcheck(&(0..8).collect::<Vec<_>>());
        }
    }
}
