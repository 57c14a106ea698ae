//! Lives in which sites have several boxes, and what can happen to these.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Life, ms};
use crate::sim::{Boxes, SiteId, World};
use crate::time::Instant;

/// One life of so many.
const EVERY: u64 = 17;
/// How long boxes may need to know each other.
const ACQUAINTED: u64 = 1000;
/// How long it may take until two sites agree on a context of which several boxes made one at the same moment, from the next packet
/// on that touches one of those that lost.
const NEW: u64 = 100;
/// What such sites are like.
const KINDS: [Boxes; 4] = [
    Boxes { of: 3, spread: true, synced: true },
    Boxes { of: 2, spread: true, synced: true },
    Boxes { of: 2, spread: false, synced: true },
    Boxes { of: 2, spread: false, synced: false },
];

/// A site with several boxes.
#[derive(Clone, Copy)]
pub(super) struct Several {
    pub(super) site: SiteId,
    boxes: Boxes,
}

impl Life {
    /// Some sites of some lives have several boxes, which know each other when the life begins.
    pub(super) fn have_several(&mut self, seed: u64) {
        if seed % EVERY != 3 {
            return;
        }
        // Nothing else in the life is to depend on it.
        let mut rng = StdRng::seed_from_u64(!seed);
        let first = rng.next_u32() as usize % self.world.nodes.len();
        let other = (first + 1) % self.world.nodes.len();
        let sites = if rng.next_u32().is_multiple_of(4) { vec![first, other] } else { vec![first] };
        for site in sites {
            let boxes = KINDS[rng.next_u32() as usize % KINDS.len()];
            self.note(format!("site {site} has {boxes:?}"));
            self.world.form_group(site, boxes);
            fill(&mut self.world, site, boxes);
            self.several.push(Several { site, boxes });
        }
        self.world.run(ms(ACQUAINTED));
    }

    /// From when on nothing of sessions that begin at a time and at this pace may get lost.
    pub(super) fn settled_from(&self, begun: Instant, pace: Duration) -> Instant {
        let spread = self.several.iter().any(|it| it.boxes.spread);
        if spread { begun + pace + ms(NEW) } else { begun }
    }

    /// Something happens to one of several boxes, or between them.
    pub(super) fn trouble_boxes(&mut self) {
        if self.several.is_empty() {
            return;
        }
        let which = self.pick(self.several.len());
        let Several { site, boxes } = self.several[which];
        let count = self.world.nodes[site].all().count();
        let (at, amount, kind) = (self.pick(count), self.upto(30), self.upto(8));
        self.note(format!("trouble {kind} of boxes at site {site}, box {at}, {amount}"));
        match kind {
            0 => self.kill_one(site),
            1 | 2 => self.fill_up(site, boxes),
            3 => self.world.cut_off_box(site, at, true),
            4 => self.world.cut_sync(site, !amount.is_multiple_of(3)),
            5 => self.world.spoil_sync(site, amount * 10, 30),
            6 => self.world.pause_box(site, at, ms(u64::from(amount) * 200)),
            _ if boxes.spread || !boxes.synced => self.kill_one(site),
            _ => self.world.move_routes(site),
        }
    }

    /// One of several boxes dies.
    pub(super) fn kill_one(&mut self, site: SiteId) {
        let at = self.pick(self.world.nodes[site].all().count());
        self.world.kill_box(site, at);
        self.forget_gone(site);
    }

    fn fill_up(&mut self, site: SiteId, boxes: Boxes) {
        fill(&mut self.world, site, boxes);
        self.forget_gone(site);
    }

    /// All boxes are there and can talk again.
    pub(super) fn mend_boxes(&mut self) {
        for which in 0..self.several.len() {
            let Several { site, boxes } = self.several[which];
            self.world.spoil_sync(site, 0, 0);
            self.world.cut_sync(site, false);
            self.fill_up(site, boxes);
        }
    }
}

fn fill(world: &mut World, site: SiteId, boxes: Boxes) {
    while world.nodes[site].all().count() < usize::from(boxes.of) {
        world.add_box(site);
    }
}
