//! Flow labels that stand for contexts (docs/decisions: the context in the flow label).
//!
//! Like a tag, a label tells the worker that owns the context, cannot be guessed, is unique for the box, and rests after
//! use. Unlike a tag it has only 20 bits, so the supply is small, and a context that finds none does without.

use std::collections::VecDeque;

use dataplane::wire::FlowLabel;
use dataplane::wire::shim6::{LabelOption, LabelPurpose};
use hashbrown::HashSet;
use rand::Rng;

use super::tags::Part;

/// Where labels come from.
#[derive(Debug)]
pub(super) struct LabelSpace {
    workers: u32,
    /// Those of them that this box gives out, where other boxes give out the rest.
    part: Part,
    taken: HashSet<FlowLabel>,
    resting: VecDeque<FlowLabel>,
}

impl LabelSpace {
    /// Most labels in use or at rest: a quarter of all. What is left is for labels that mean nothing, so that a guess
    /// mostly fails, and a random draw mostly succeeds.
    const TAKEN_MAX: usize = 1 << (FlowLabel::BITS - 2);
    /// Labels that rest after use at any time.
    const RESTING_MAX: usize = Self::TAKEN_MAX / 16;
    /// Random draws before the worker's part is taken for full.
    const DRAWS_MAX: usize = 64;

    /// For a box with this many workers.
    pub(super) fn new(workers: u8) -> LabelSpace {
        let (taken, resting) = (HashSet::new(), VecDeque::new());
        LabelSpace { workers: u32::from(workers.max(1)), part: Part { index: 0, of: 1 }, taken, resting }
    }

    /// From now on other boxes have their parts of the labels.
    pub(super) fn share(&mut self, part: Part) {
        self.part = part;
    }

    /// A label for a context of `worker`; none if there are too many already.
    pub(super) fn allocate(&mut self, rng: &mut dyn Rng, worker: u8) -> Option<FlowLabel> {
        if self.taken.len() >= Self::TAKEN_MAX {
            return None;
        }
        let label =
            (0..Self::DRAWS_MAX).filter_map(|_| self.draw(rng, worker)).find(|label| !self.taken.contains(label))?;
        self.taken.insert(label);
        Some(label)
    }

    /// A label that another process allocated is in use from now on, if it is vacant.
    pub(super) fn claim(&mut self, label: FlowLabel) -> bool {
        self.taken.len() < Self::TAKEN_MAX && self.taken.insert(label)
    }

    /// Takes back the label of a context that is gone. Packets with it may still be on their way, so it is not given out
    /// again before many others have come back.
    pub(super) fn release(&mut self, label: FlowLabel) {
        self.resting.push_back(label);
        while self.resting.len() > Self::RESTING_MAX {
            if let Some(rested) = self.resting.pop_front() {
                self.taken.remove(&rested);
            }
        }
    }

    /// One of the labels that the worker owns: `Sharding::owner_of_label` cuts all labels into equal parts, in order.
    fn draw(&self, rng: &mut dyn Rng, worker: u8) -> Option<FlowLabel> {
        let edge = |worker: u32| (worker << FlowLabel::BITS).div_ceil(self.workers);
        let (first, end) = (edge(worker.into()), edge(u32::from(worker) + 1));
        let part = end.checked_sub(first).filter(|part| *part > 0)?;
        // No part is a large share of 2^32, so the bias of the remainder cannot be seen.
        let drawn = first + rng.next_u32() % part;
        let own = drawn - drawn % self.part.of + self.part.index;
        FlowLabel::truncate(own).filter(|_| (first..end).contains(&own))
    }
}

/// What tells the peer the label of a context.
pub(super) fn offer(label: FlowLabel) -> LabelOption {
    LabelOption { purpose: LabelPurpose::Offer, arrived: false, label: label.value(), nonce: 0 }
}

/// The label a peer offers, if it does.
pub(super) fn offered(option: Option<LabelOption>) -> Option<FlowLabel> {
    option.filter(|option| option.purpose == LabelPurpose::Offer).and_then(|option| FlowLabel::truncate(option.label))
}

#[cfg(test)]
mod tests {
    use dataplane::context::{Hasher, Sharding};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_label_names_its_worker() {
        let mut rng = StdRng::seed_from_u64(1);
        for workers in [1, 2, 3, 7, 64] {
            let sharding = Sharding::new(Hasher::new([1; 32]), workers);
            let mut space = LabelSpace::new(workers);
            for worker in (0..workers).cycle().take(2000) {
                let label = space.allocate(&mut rng, worker).unwrap();
                assert_eq!(sharding.owner_of_label(label), worker, "{label:?} of {workers}");
            }
            assert_eq!(space.taken.len(), 2000, "no label twice");
        }
    }

    #[test]
    fn the_supply_ends_and_comes_back_after_a_rest() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut space = LabelSpace::new(1);
        let mut held: Vec<FlowLabel> = std::iter::from_fn(|| space.allocate(&mut rng, 0)).collect();
        assert_eq!(held.len(), LabelSpace::TAKEN_MAX);
        let first = held.remove(0);
        space.release(first);
        assert_eq!(space.allocate(&mut rng, 0), None, "it rests");
        held.drain(..LabelSpace::RESTING_MAX).for_each(|label| space.release(label));
        assert!(space.allocate(&mut rng, 0).is_some(), "the first has rested");
        assert_eq!(space.allocate(&mut rng, 0), None);
    }

    #[test]
    fn every_bit_is_random() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut space = LabelSpace::new(1);
        let labels: Vec<u32> = (0..4096).map(|_| space.allocate(&mut rng, 0).unwrap().value()).collect();
        for bit in 0..FlowLabel::BITS {
            let ones = labels.iter().filter(|label| **label >> bit & 1 == 1).count();
            assert!((1850..2250).contains(&ones), "bit {bit}: {ones} ones of 4096");
        }
    }
}
