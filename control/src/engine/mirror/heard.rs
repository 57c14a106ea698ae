//! What another box told, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use dataplane::wire::{ContextTag, Locator, Ulid, ethernet};
use rand::Rng;

use super::{LISTS_MAX, MISSED_MAX, MirrorNote, SEEN_IN, SEEN_OUT, SEEN_OUT_LAST, Told};
use crate::engine::succession::Doubts;
use crate::engine::{Effect, Engine, Event};
use crate::reap::{Activity, Direction, PathKey};
use crate::shim6::{CarriedContext, ContextId, NotTaken, Output};
use crate::time::Instant;

impl Engine {
    /// Takes in what another box told when its clock said `sent`, in its order.
    pub fn hear_partner(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        other: usize,
        sent: Duration,
        told: Vec<Told>,
        effects: &mut Vec<Effect>,
    ) {
        self.advance_group(now);
        for word in told {
            match word {
                Told::ListsAnew => self.other(other).into_iter().for_each(|it| it.lists_heard.clear()),
                Told::List(number, list) => {
                    if let Some(other) = self.other(other).filter(|other| other.lists_heard.len() <= LISTS_MAX) {
                        other.lists_heard.insert(number, Arc::new(list.into()));
                    }
                }
                Told::Context(carried, doubts) => {
                    self.hear_context(now, rng, other, &carried.rebased(sent, now), doubts, effects);
                }
                Told::Gone(tag, stamp) => {
                    let mut out = Vec::new();
                    let gone = self.endpoint.mirror_gone(ContextTag::truncate(tag), stamp, &mut out);
                    self.follow(now, rng, out, effects);
                    self.other(other).into_iter().for_each(|it| it.counts.gone += u64::from(gone));
                }
                Told::CaughtUp => self.other(other).into_iter().for_each(|it| it.told_all = true),
                Told::Seen(seen) => self.hear_seen(now, rng, other, &seen, effects),
                Told::NotMine(tag) => {
                    let found = self.endpoint.find_by_local_tag(ContextTag::truncate(tag)).map(|it| it.id);
                    let attached = found.and_then(|id| self.attached.get_mut(&id));
                    if let Some(note) = attached.and_then(|attached| attached.mirrored.as_deref_mut()) {
                        note.left = true;
                    }
                }
                Told::Handed(packet) => self.hear_handed(now, rng, &packet, effects),
                Told::Ask(tag) => self.hear_ask(other, tag),
                Told::Unknown(tag) => {
                    let asked = self.mirrors.as_mut().and_then(|it| it.asked.get_mut(&ContextTag::truncate(tag)));
                    asked.into_iter().for_each(|(_, unknown)| *unknown = true);
                }
                Told::AskHost(ulid) => {
                    let ids: Vec<ContextId> = self.endpoint.contexts_of(Ulid(ulid)).map(|it| it.id).collect();
                    ids.into_iter().for_each(|id| self.endpoint.tell_again(other, id));
                }
            }
        }
    }

    fn hear_context(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        other: usize,
        carried: &CarriedContext,
        doubts: Doubts,
        effects: &mut Vec<Effect>,
    ) {
        let mut out: Vec<Output> = Vec::new();
        let list = self.other(other).and_then(|other| other.lists_heard.get(&carried.list).cloned());
        let taken = match &list {
            Some(list) => self.endpoint.mirror(now, carried, list, other, &mut out),
            None => Err(NotTaken::Malformed),
        };
        self.follow(now, rng, out, effects);
        let Some(found) = self.other(other) else { return };
        match taken {
            Ok(_) => found.counts.taken += 1,
            Err(NotTaken::Older) => found.counts.older += 1,
            Err(_) => found.counts.refused += 1,
        }
        if taken == Err(NotTaken::NoHost)
            && let Some(mirrors) = self.mirrors.as_mut().filter(|it| it.missed.len() < MISSED_MAX)
        {
            mirrors.missed.insert(carried.ulids().local);
        }
        let Ok(taken) = taken else { return };
        self.mirrored(now, taken.id, carried, doubts, effects);
    }

    /// A context is what another box says it is, and that box runs it.
    pub(in crate::engine) fn mirrored(
        &mut self,
        now: Instant,
        id: ContextId,
        carried: &CarriedContext,
        doubts: Doubts,
        effects: &mut Vec<Effect>,
    ) {
        let Some(context) = self.endpoint.context(id) else { return };
        let (ulids, fork, pair) = (context.ulids, context.fork, context.pair);
        let proved: Vec<Locator> = context.peer_locators.iter().filter(|it| it.verified).map(|it| it.locator).collect();
        self.peers.proved(now, ulids.peer, &proved);
        let attached = self.attached.get_or_default(id);
        let ran = attached.reap.take().is_some();
        let known = attached.mirrored.is_some();
        let note = MirrorNote { doubted: doubts.explores, news: carried.news, left: false };
        attached.mirrored = Some(Box::new(note));
        attached.narrow = doubts.narrow.then_some(pair);
        if doubts.udp {
            self.carriages.inherit(now, PathKey::of(pair));
        }
        self.attached.settle(id);
        if ran || !known {
            self.durations.opened(now, id, false);
            self.revival.forget(id);
            self.end_standby_test(id);
            self.policy_ends(id);
        }
        self.sync(id, effects);
        if !known {
            self.tally.count(Event::Mirrored);
            if fork != 0 {
                self.fork_ready(ulids, fork);
            }
        }
    }

    /// What other boxes saw of contexts that this one runs, or should.
    fn hear_seen(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        other: usize,
        seen: &[(u64, u8)],
        effects: &mut Vec<Effect>,
    ) {
        for &(tag, bits) in seen {
            let mine = self.mirrors.as_ref().map(|mirrors| mirrors.plan.box_id);
            let found = self.endpoint.find_by_local_tag(ContextTag::truncate(tag));
            let runs = found.filter(|it| !it.is_mirrored() || Some(it.stamp().box_id()) == mine).map(|it| it.id);
            let Some(id) = runs else {
                self.other(other).into_iter().for_each(|it| it.say_not_mine(tag));
                continue;
            };
            // One that this box ran in an earlier life.
            self.take_on(now, rng, id, effects);
            let Some(pair) = self.pair_in_use(id) else { continue };
            let [received, sent, out_last] = [SEEN_IN, SEEN_OUT, SEEN_OUT_LAST].map(|bit| bits & bit != 0);
            self.endpoint.used(now, id);
            self.sight(now, id, PathKey::of(pair), [received, sent]);
            if sent && self.attached.get_mut(&id).is_some_and(|attached| attached.elsewhere.said(now)) {
                // Hosts send by other boxes alone: routes have moved, and one of those had better run it.
                self.other(other).into_iter().for_each(|it| it.say_not_mine(tag));
            }
            let last = if out_last { Direction::Sent } else { Direction::Received };
            let digest = Activity { received, sent, last };
            self.reap(now, rng, id, effects, |reap, rng, out| reap.activity(now, rng, digest, out));
            if received {
                self.guard(now, id);
            }
        }
    }

    fn hear_handed(&mut self, now: Instant, rng: &mut dyn Rng, packet: &[u8], effects: &mut Vec<Effect>) {
        let mut frame = vec![0; ethernet::HEADER_LEN];
        frame.extend_from_slice(packet);
        self.control_message(now, rng, &frame, effects);
    }

    fn hear_ask(&mut self, other: usize, tag: u64) {
        let found = self.endpoint.find_by_local_tag(ContextTag::truncate(tag));
        match found.filter(|context| context.state.carries_payload()).map(|context| context.id) {
            Some(id) => self.endpoint.tell_again(other, id),
            // It may be on its way into being; then it is told when it is there.
            None if found.is_some() => {}
            None => self.other(other).into_iter().for_each(|it| it.say(Told::Unknown(tag))),
        }
    }
}
