//! What happens to the boxes of a site that has several, and what they are asked.

use std::time::Duration;

use rand::Rng;
#[cfg(test)]
use rand::rngs::StdRng;

use dataplane::snapshot::PortId;

use super::group::{Boxes, Group, NOTICED, number};
use super::node::Node;
use super::{Due, Fault, SiteId, World};
use crate::sync::Counts;
use crate::time::Instant;

impl World {
    /// A second box begins at a site, and hears of the contexts of the one that serves.
    pub fn add_twin(&mut self, site: SiteId) {
        self.form_group(site, Boxes { of: 2, spread: false, synced: true });
        self.add_box(site);
    }

    /// From now on there may be several boxes at a site, unless that is so. The one that is there is the first.
    pub fn form_group(&mut self, site: SiteId, boxes: Boxes) {
        if self.nodes[site].group.is_none() {
            let seed = self.rng.next_u64();
            self.nodes[site].form_group(self.now, boxes, seed);
        }
    }

    /// Another box begins at a site that may have several.
    pub fn add_box(&mut self, site: SiteId) {
        let now = self.now;
        self.nodes[site].add_box(now);
        self.tell_unplugged(site);
    }

    /// The box that serves a site dies, and the second one has its place at once.
    pub fn take_over(&mut self, site: SiteId) {
        self.lose_box(site, 0, Duration::ZERO);
    }

    /// A box dies, by its place among those of its site; routers find out by themselves. The last one begins anew.
    pub fn kill_box(&mut self, site: SiteId, at: usize) {
        self.lose_box(site, at, NOTICED);
    }

    fn lose_box(&mut self, site: SiteId, at: usize, noticed: Duration) {
        let (now, seed) = (self.now, self.rng.next_u64());
        let known = self.nodes[site].is_synced();
        let survives = self.nodes[site].lose(at, now, now + noticed, seed);
        self.faults.count(if survives { Fault::TakeOver } else { Fault::Restart });
        if !survives || (at == 0 && !known) {
            self.forget_site(site);
        }
        self.tell_unplugged(site);
    }

    /// Devices of boxes that have just begun say which links are down.
    pub(super) fn tell_unplugged(&mut self, site: SiteId) {
        let unplugged = self.providers.iter().filter(|it| it.site == site && !it.plugged);
        unplugged.for_each(|it| self.nodes[site].link_state(self.now, PortId(it.port as u8), false));
        self.later(self.now, Due::Tick(site));
    }

    /// Whoever serves a site now knows nothing of what was before.
    pub(super) fn forget_site(&mut self, site: SiteId) {
        let hosts = self.hosts.iter().enumerate().filter(|(_, host)| host.site == site);
        hosts.for_each(|(id, _)| self.ledger.forget(id));
    }

    /// The first two boxes of a site change places: what was for the one is for the other.
    pub fn move_routes(&mut self, site: SiteId) {
        self.nodes[site].swap_first();
        self.later(self.now, Due::Tick(site));
    }

    /// The wires between the boxes of a site are cut, or mended.
    pub fn cut_sync(&mut self, site: SiteId, cut: bool) {
        self.cut_wires(site, None, cut);
    }

    /// Those of one of them, by its place.
    pub fn cut_off_box(&mut self, site: SiteId, at: usize, cut: bool) {
        self.cut_wires(site, Some(at), cut);
    }

    fn cut_wires(&mut self, site: SiteId, at: Option<usize>, cut: bool) {
        self.nodes[site].cut_wires(at, cut, self.now);
        if cut {
            self.faults.count(Fault::Apart);
        }
        self.later(self.now, Due::Tick(site));
    }

    /// Of a thousand messages between the boxes of a site so many are lost, and so many come twice.
    pub fn spoil_sync(&mut self, site: SiteId, loss: u32, doubles: u32) {
        self.nodes[site].spoil_wires(loss, doubles);
    }

    /// One of the boxes of a site does nothing for a while.
    pub fn pause_box(&mut self, site: SiteId, at: usize, time: Duration) {
        let (now, until) = (self.now, self.now + time);
        self.nodes[site].pause_one(at, now, until);
        self.faults.count(Fault::Pause);
        self.later(until, Due::Tick(site));
    }
}

/// A box that may have others beside it.
impl Node {
    /// There may be other boxes at its site from now on.
    pub(super) fn form_group(&mut self, now: Instant, boxes: Boxes, seed: u64) {
        let mut group = Group::new(self, boxes, seed);
        group.joins(self, now);
        self.group = Some(Box::new(group));
    }

    /// Another one begins, with the first number that is vacant.
    pub(super) fn add_box(&mut self, now: Instant) {
        let Some(mut group) = self.group.take() else { return };
        let vacant = (0..group.boxes.of).find(|at| group.node(self, *at).is_none());
        if let Some(vacant) = vacant {
            let mut node = self.sibling(vacant, group.rng.next_u64());
            group.joins(&mut node, now);
            group.others.push(node);
        }
        self.group = Some(group);
    }

    /// The box at a place among those of its site dies, and routers learn of it then. Whether there is another one; the last one
    /// begins anew at once.
    pub(super) fn lose(&mut self, at: usize, now: Instant, known: Instant, seed: u64) -> bool {
        let Some(mut group) = self.group.take() else { return false };
        let own = number(if at == 0 { self } else { &group.others[at - 1] });
        group.wires(Some(own)).into_iter().for_each(|(teller, hearer)| group.close(self, teller, hearer, now));
        let survives = !group.others.is_empty();
        match at {
            0 if survives => {
                let next = group.others.remove(0);
                self.replaced_by(next);
            }
            0 => {
                *self = self.reborn(now, seed);
                group.joins(self, now);
            }
            _ => drop(group.others.remove(at - 1)),
        }
        if survives && (group.boxes.spread || at == 0) {
            group.dead.push((own, known));
        }
        self.group = Some(group);
        survives
    }

    /// Does something with the other boxes and the wires between them, if there are any.
    fn with_group<T>(&mut self, act: impl FnOnce(&mut Group, &mut Node) -> T) -> Option<T> {
        let mut group = self.group.take()?;
        let done = act(&mut group, self);
        self.group = Some(group);
        Some(done)
    }

    /// The first and the second box change places.
    pub(super) fn swap_first(&mut self) {
        self.with_group(|group, first| group.others.first_mut().map(|second| std::mem::swap(first, second)));
    }

    /// Nothing goes between the boxes, or does again: all of them, or the one at a place and the rest.
    pub(super) fn cut_wires(&mut self, at: Option<usize>, cut: bool, now: Instant) {
        self.with_group(|group, first| {
            let of = at.and_then(|at| std::iter::once(&*first).chain(&group.others).nth(at)).map(number);
            for (teller, hearer) in group.wires(of) {
                if cut {
                    group.close(first, teller, hearer, now);
                }
                group.line(teller, hearer).cut = cut;
            }
        });
    }

    /// The wires lose and repeat messages.
    pub(super) fn spoil_wires(&mut self, loss: u32, doubles: u32) {
        self.with_group(|group, _| (group.loss, group.doubles) = (loss, doubles));
    }

    /// Which box of its site gets a frame, if any does.
    pub(super) fn whose(&self, port: usize, frame: &[u8], now: Instant) -> Option<&Node> {
        let Some(group) = &self.group else { return Some(self) };
        self.all().nth(group.whose(self, port, frame, now)?)
    }

    /// Whether the boxes of its site tell each other of their contexts.
    pub(super) fn is_synced(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.boxes.synced)
    }

    /// One of the boxes of its site does nothing until a time.
    pub(super) fn pause_one(&mut self, at: usize, now: Instant, until: Instant) {
        let other = at.checked_sub(1).and_then(|at| self.group.as_mut()?.others.get_mut(at));
        match other {
            Some(other) => other.pause(now, until),
            None => self.pause(now, until),
        }
    }

    /// The boxes of its site, this one first.
    pub fn all(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(self).chain(self.group.iter().flat_map(|group| &group.others))
    }

    /// What one box told another and heard of it, by their places.
    pub fn synced(&self, at: usize, of: usize) -> Option<Counts> {
        let (node, other) = (self.all().nth(at)?, self.all().nth(of)?);
        let group = self.group.as_ref()?;
        Some(group.partners.get(&(number(node), number(other)))?.counts(&node.engine))
    }

    /// The second box.
    pub fn second(&self) -> Option<&Node> {
        self.all().nth(1)
    }

    /// Packets that others sent while this one served alone, without neighbour discovery.
    pub fn loud(&self) -> u64 {
        self.group.as_ref().map_or(0, |group| group.loud)
    }

    /// Frames that were lost because their routers did not know that a box is dead, or because no box was fit.
    pub fn lost_to_dead(&self) -> u64 {
        self.group.as_ref().map_or(0, |group| group.lost.get())
    }

    /// Somebody else than the world has the engine of the second box do something.
    #[cfg(test)]
    pub(crate) fn second_acts<T>(
        &mut self,
        now: Instant,
        act: impl FnOnce(Instant, &mut StdRng, &mut crate::engine::Engine, &mut Vec<crate::engine::Effect>) -> T,
    ) -> Option<T> {
        self.with_group(|group, _| group.others.first_mut().map(|second| second.act(now, act))).flatten()
    }
}
