//! Contexts that several boxes of one site know, and one of them runs (docs/decisions: state sync).
//!
//! Each box tells the others of the contexts it changes, with a [`Stamp`] for each change; of two versions of a context, and of
//! two contexts of one pair and fork (RFC 5533 §7.2: there is one), everybody keeps the one with the greater stamp. The
//! order is total and the same everywhere, so whatever was told in whatever order, boxes that have told each other everything
//! have the same contexts. Whoever changed a context last runs it; a box that takes a mirrored one on changes its stamp.

use std::sync::Arc;

use dataplane::wire::ContextTag;

use super::carried::{CarriedContext, NotTaken};
use super::context::{Accepted, ContextId, LocalHost, Stamp, State};
use super::endpoint::Endpoint;
use super::ledger::{Due, Group};
use super::output::{GoneReason, Output};
use super::tags::{self, Part};
use crate::shim6::Context;
use crate::time::Instant;

/// What is to be told of a context.
#[derive(Debug)]
pub enum ToTell<'a> {
    /// It is there, or has changed.
    Context(&'a Context),
    /// The context with this tag is gone since.
    Gone(ContextTag, Stamp),
}

/// What has become of a context that another box told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// Its name here.
    pub id: ContextId,
    /// Whether nothing was known of it.
    pub is_new: bool,
}

impl Endpoint {
    /// This box is one of `boxes`, and `others` of them are told of its contexts.
    pub fn join_group(&mut self, box_id: u8, boxes: u32, others: usize) {
        let part = Part::of_box(box_id, boxes);
        self.tags.share(part);
        if let Some(labels) = self.labels_mut() {
            labels.share(part);
        }
        self.store.group = Some(Box::new(Group::new(box_id, others)));
    }

    /// The group's clock is at least this, in microseconds.
    pub fn advance_group(&mut self, clock: u64) {
        if let Some(group) = &mut self.store.group {
            group.advance(clock);
        }
    }

    /// The group's clock.
    pub fn group_clock(&self) -> u64 {
        self.store.group.as_ref().map_or(0, |group| group.clock())
    }

    /// One of the others knows nothing: everything is to be told.
    pub fn begin_telling(&mut self, other: usize) {
        let places = self.store.places();
        if let Some(group) = &mut self.store.group {
            group.begin(other, places);
        }
    }

    /// One of the others is told nothing any more, and everything when it is there again.
    pub fn end_telling(&mut self, other: usize) {
        if let Some(group) = &mut self.store.group {
            group.end(other);
        }
    }

    /// What one of the others is to be told next. Each place that is looked at takes one from `looks`, also an empty one; when
    /// none is left there may be more.
    pub fn next_to_tell(&mut self, other: usize, looks: &mut usize) -> Option<ToTell<'_>> {
        loop {
            match self.store.group.as_mut()?.ledger(other)?.next(looks)? {
                Due::Gone(tag, stamp) => return Some(ToTell::Gone(tag, stamp)),
                Due::Place(place) => {
                    let carries = |context: &&Context| context.state.carries_payload();
                    let found = self.store.in_places(place..place + 1).find(carries).map(|context| context.id);
                    // Whoever carries nothing yet is told of when it does, since that is a change.
                    let Some(id) = found else { continue };
                    return self.store.get(id).map(ToTell::Context);
                }
            }
        }
    }

    /// One of the others has to hear of a context once more.
    pub fn tell_again(&mut self, other: usize, id: ContextId) {
        if self.store.get(id).is_some()
            && let Some(ledger) = self.store.group.as_mut().and_then(|group| group.ledger(other))
        {
            ledger.note(id.index);
        }
    }

    /// How much one of the others has to be told.
    pub fn left_to_tell(&self, other: usize) -> usize {
        let group = self.store.group.as_ref();
        group.and_then(|group| group.ledger_of(other)).map_or(0, |ledger| ledger.left())
    }

    /// Whether one of the others has been told all there was when it came.
    pub fn has_told_all(&self, other: usize) -> bool {
        let group = self.store.group.as_ref();
        group.and_then(|group| group.ledger_of(other)).is_some_and(|ledger| ledger.has_told_all())
    }

    /// Takes in what another box has of a context. `list` is the one it names.
    ///
    /// # Errors
    /// That it is not taken in, and why. Then nothing has changed.
    pub fn mirror(
        &mut self,
        now: Instant,
        carried: &CarriedContext,
        list: &Arc<LocalHost>,
        other: usize,
        out: &mut Vec<Output>,
    ) -> Result<Mirrored, NotTaken> {
        let (ulids, tag, stamp) = (carried.ulids(), ContextTag::truncate(carried.tags.0), carried.stamp);
        if !carried.is_sensible(list) || stamp == Stamp::NONE {
            return Err(NotTaken::Malformed);
        }
        self.advance_group(stamp.clock());
        if self.host_at(ulids.local).is_none() {
            return Err(NotTaken::NoHost);
        }
        if (self.shard_of)(self.inside(ulids)) != tags::shard_of(tag) {
            return Err(NotTaken::WrongWorker);
        }
        if self.store.group.as_ref().is_none_or(|group| group.has_ended(tag, stamp)) {
            return Err(NotTaken::Older);
        }
        if let Some(context) = self.store.by_local_tag(tag) {
            if (context.ulids, context.fork) != (ulids, carried.fork) {
                return Err(NotTaken::Malformed);
            }
            if context.stamp >= stamp {
                return Err(NotTaken::Older);
            }
            let id = context.id;
            self.overwrite(id, carried, list);
            self.is_told(other, id);
            return Ok(Mirrored { id, is_new: false });
        }
        // Two boxes made a context for the same pair while they could not tell each other, or in the same place.
        let place = self.tags.in_place_of(tag).and_then(|held| self.store.by_local_tag(held));
        let rivals = [self.store.by_ulids(ulids, carried.fork), place];
        let wins = |rival: &&Context| rival.state.carries_payload() && rival.stamp > stamp;
        if rivals.iter().flatten().any(wins) {
            // Perhaps nobody else hears of the winner while it lasts.
            if let Some(group) = &mut self.store.group {
                group.superseded(tag, stamp);
            }
            return Err(NotTaken::Older);
        }
        for id in rivals.map(|rival| rival.map(|rival| rival.id)).into_iter().flatten() {
            self.supersede(id, out);
        }
        let id = self.take_new(now, carried, list)?;
        if let Some(context) = self.store.get_mut_unnoted(id) {
            context.mirrored = true;
        }
        self.is_told(other, id);
        Ok(Mirrored { id, is_new: true })
    }

    /// A context makes room for another one that wins. Whoever still has this version, or will hear of it, gives it up as well.
    fn supersede(&mut self, id: ContextId, out: &mut Vec<Output>) {
        if let Some(context) = self.store.get_mut_unnoted(id) {
            context.mirrored = true;
            let (tag, stamp, carries) = (context.local_tag, context.stamp, context.state.carries_payload());
            if let Some(group) = self.store.group.as_mut().filter(|_| carries) {
                group.superseded(tag, stamp);
            }
        }
        self.discard(id, GoneReason::Discarded, out);
    }

    /// A newer version of a context that is known.
    fn overwrite(&mut self, id: ContextId, carried: &CarriedContext, list: &Arc<LocalHost>) {
        self.store.note_for_copy(id);
        self.end_check(id);
        if let Some(context) = self.store.get_mut_unnoted(id) {
            carried.write_to(context, list);
            context.local_udp &= self.config.udp;
            context.local_liveness &= self.config.liveness;
            // Whatever was under way here is the other box's affair.
            context.state = State::Established;
            context.exchange = None;
            context.update = None;
            context.stamp = carried.stamp;
            context.mirrored = true;
            match (&mut context.accepted, carried.accepted) {
                (Some(ours), Some((_, _, used))) => ours.used |= used,
                (Some(ours), None) => ours.used = true,
                // Whose it was is counted where it began.
                (None, _) => {}
            }
        }
        self.store.settle(id);
        self.take_labels(id, carried);
    }

    /// Another box says that a context is gone since. Whether it was there and is not any more.
    pub fn mirror_gone(&mut self, tag: ContextTag, stamp: Stamp, out: &mut Vec<Output>) -> bool {
        self.advance_group(stamp.clock());
        let Some(group) = &mut self.store.group else { return false };
        group.bury(tag, stamp);
        let known = self.store.by_local_tag(tag).filter(|context| context.stamp <= stamp);
        let Some(id) = known.map(|context| context.id) else { return false };
        // What another box says is told by that box alone.
        if let Some(context) = self.store.get_mut_unnoted(id) {
            context.mirrored = true;
        }
        self.discard(id, GoneReason::Discarded, out);
        true
    }

    /// This box runs a context from now on.
    pub fn run_mirrored(&mut self, id: ContextId) {
        self.store.note(id);
    }

    /// Whether an exchange with this Initiator Nonce is under way.
    pub fn has_exchange(&self, nonce: u32) -> bool {
        self.store.by_nonce(nonce).next().is_some()
    }

    /// Who runs a context, as the process before this one had it.
    pub(super) fn believe_stamp(&mut self, id: ContextId, stamp: Stamp) {
        let Some(group) = self.store.group.as_mut().filter(|_| stamp != Stamp::NONE) else { return };
        group.advance(stamp.clock());
        let mirrored = stamp.box_id() != group.box_id() & 15;
        if let Some(context) = self.store.get_mut_unnoted(id) {
            (context.stamp, context.mirrored) = (stamp, mirrored);
        }
    }

    fn is_told(&mut self, other: usize, id: ContextId) {
        if let Some(ledger) = self.store.group.as_mut().and_then(|group| group.ledger(other)) {
            ledger.settle(id.index);
        }
    }
}

impl Accepted {
    /// Of a context that came from another box.
    pub(super) fn carried((prefix, since, used): (u64, std::time::Duration, bool)) -> Accepted {
        Accepted { prefix, since: Instant(since), used }
    }
}
