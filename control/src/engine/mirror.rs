//! Several boxes of one site that tell each other of their contexts (docs/decisions: state sync).
//!
//! Every context is run by one box, the one that changed it last. The others mirror it: they have it in their workers, so that a
//! packet which arrives there is translated like any other, and are silent about it otherwise: no timers, probes, tests of
//! standbys, news. What a mirroring box sees of payload it says to the one that runs the context, whose REAP machine needs it;
//! what peers say about the context it hands over. It takes the context on when that box is not there, or when hosts go on
//! sending here for a while.
//!
//! What is told is state, not events, and in any order: which of two versions counts is decided by their stamps
//! ([`crate::shim6::Stamp`]). Here stands what is told and what comes of it; that none of it is lost on the way is for
//! [`crate::sync`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dataplane::context as table;
use dataplane::wire::shim6::{Addresses, Message};
use dataplane::wire::{ContextTag, Locator, LocatorPair, Ulid, ethernet};
use hashbrown::{HashMap, HashSet};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::succession::Doubts;
use super::{Effect, Engine, Event};
use crate::reap::{Activity, Direction, PathKey, Reap, State};
use crate::shim6::{CarriedContext, CarriedList, Context, ContextId, LocalHost, NotTaken, Output, Stamp, ToTell, tags};
use crate::time::Instant;

/// How often it is said what was seen of contexts that another box runs.
const SAY_SEEN: Duration = Duration::from_millis(500);
/// How long hosts go on sending here until this box runs the context, although the other one is there. Longer than a route takes
/// to come back, and rarely enough where packets of a pair take both ways.
const TAKE_ON: Duration = Duration::from_secs(5);
/// How long payload with a tag of another box may be unknown here before the peer is told so.
const ASKED: Duration = Duration::from_millis(200);
/// Most tags that were asked for at any time, most contexts that something was seen of, most packets and words that wait to be
/// handed over, and most hosts whose contexts could not be taken in.
const ASKED_MAX: usize = 4096;
const SEEN_MAX: usize = 1 << 17;
const WORDS_MAX: usize = 1024;
const MISSED_MAX: usize = 4096;
/// Lists that may be numbered before numbering begins anew: many times those in use.
const LISTS_MAX: usize = 1 << 17;
/// What was seen goes in words of so many contexts.
const SEEN_PER_WORD: usize = 256;

/// One thing a box tells another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Told {
    /// Numbers of lists mean nothing any more.
    ListsAnew,
    /// A list of locators, under the number by which contexts name it.
    List(u32, CarriedList),
    /// A context that carries payload, or what has become of it.
    Context(Box<CarriedContext>, Doubts),
    /// The context with this tag is gone since.
    Gone(u64, Stamp),
    /// That was all there was when you came.
    CaughtUp,
    /// Payload was seen of contexts that you run: their tags, and what it was, in bits.
    Seen(Vec<(u64, u8)>),
    /// I do not run the context with this tag.
    NotMine(u64),
    /// A packet for somebody else than me.
    Handed(Vec<u8>),
    /// Payload came with this tag, which should be yours.
    Ask(u64),
    /// Nobody has it here.
    Unknown(u64),
    /// The contexts of this host once more: it is served only now.
    AskHost(std::net::Ipv6Addr),
}

/// Payload came from the peer.
const SEEN_IN: u8 = 1;
/// Payload went to the peer.
const SEEN_OUT: u8 = 2;
/// The latter was last.
const SEEN_OUT_LAST: u8 = 4;

/// What a box is within its group.
#[derive(Clone, Copy, Debug)]
pub struct GroupPlan {
    /// `box.id`.
    pub box_id: u8,
    /// How many boxes there are.
    pub boxes: u32,
    /// How many of them are talked to.
    pub others: usize,
    /// How long a box that begins waits for one of them before it serves alone.
    pub patience: Duration,
    /// Microseconds since 1970 when the box's clock said nothing, so that clocks of boxes are near each other.
    pub base: u64,
}

/// What happened to what was told and heard, by partner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MirrorCounts {
    /// Contexts told, each as often as it was.
    pub told: u64,
    /// Contexts heard of and taken in.
    pub taken: u64,
    /// Contexts heard of of which something newer was known.
    pub older: u64,
    /// Contexts heard of and not taken in.
    pub refused: u64,
    /// Contexts heard to be gone.
    pub gone: u64,
    /// Words and packets that found no room.
    pub dropped: u64,
}

/// The other boxes.
pub(super) struct Mirrors {
    plan: GroupPlan,
    others: Vec<Other>,
    since: Instant,
    asked: HashMap<ContextTag, (Instant, bool)>,
    missed: HashSet<Ulid>,
}

/// One of them.
#[derive(Default)]
struct Other {
    box_id: Option<u8>,
    /// Whether it can be heard, and can hear us.
    heard: bool,
    hears: bool,
    /// It will not talk to us, nor we to it.
    refused: bool,
    /// It has told everything there was, in the life it has now.
    told_all: bool,
    /// We have told that we did.
    said_all: bool,
    /// Lists it was told of. Held, so that none is taken for another that was made in its place.
    lists_told: HashMap<usize, (Arc<LocalHost>, u32)>,
    lists_heard: HashMap<u32, Arc<LocalHost>>,
    words: VecDeque<Told>,
    seen: HashMap<ContextTag, u8>,
    say_seen: Option<Instant>,
    counts: MirrorCounts,
}

/// What is known of a context that another box runs.
#[derive(Debug)]
pub(super) struct MirrorNote {
    since: Instant,
    /// Nothing came back, as the other box saw it.
    doubted: bool,
    /// The peer has not acknowledged everything.
    news: bool,
    /// Nobody runs it.
    left: bool,
}

impl Other {
    fn is_there(&self) -> bool {
        self.heard && self.hears
    }

    fn say(&mut self, word: Told) {
        if !self.hears {
            return;
        }
        if self.words.len() >= WORDS_MAX {
            self.counts.dropped += 1;
            return;
        }
        self.words.push_back(word);
    }

    /// The number of a list, and what there is to say of it if nothing was said yet.
    fn list(&mut self, list: &Arc<LocalHost>, told: &mut Vec<Told>) -> u32 {
        if self.lists_told.len() >= LISTS_MAX {
            self.lists_told.clear();
            told.push(Told::ListsAnew);
        }
        let next = self.lists_told.len() as u32;
        let (_, number) = self.lists_told.entry(Arc::as_ptr(list) as usize).or_insert_with(|| {
            told.push(Told::List(next, CarriedList::from(&**list)));
            (list.clone(), next)
        });
        *number
    }

    /// What was seen of contexts it runs, if it is time to say so.
    fn seen(&mut self, now: Instant, told: &mut Vec<Told>) {
        if self.say_seen.is_none_or(|at| at > now) {
            return;
        }
        self.say_seen = None;
        let mut seen: Vec<(u64, u8)> = self.seen.drain().map(|(tag, bits)| (tag.value(), bits)).collect();
        seen.sort_unstable();
        told.extend(seen.chunks(SEEN_PER_WORD).map(|some| Told::Seen(some.to_vec())));
    }
}

/// The group.
impl Engine {
    /// This box tells others of its contexts from now on, and hears of theirs. To be called before there are any.
    pub fn join_group(&mut self, now: Instant, plan: GroupPlan) {
        self.endpoint.join_group(plan.box_id, plan.boxes, plan.others);
        let others = (0..plan.others).map(|_| Other::default()).collect();
        let mirrors = Mirrors { plan, others, since: now, asked: HashMap::new(), missed: HashSet::new() };
        self.mirrors = Some(Box::new(mirrors));
        self.advance_group(now);
    }

    /// Whether there is a group at all.
    pub fn is_in_group(&self) -> bool {
        self.mirrors.is_some()
    }

    fn advance_group(&mut self, now: Instant) {
        if let Some(mirrors) = &self.mirrors {
            self.endpoint.advance_group(mirrors.plan.base + now.0.as_micros() as u64);
        }
    }

    /// The group's clock.
    pub fn group_clock(&mut self, now: Instant) -> u64 {
        self.advance_group(now);
        self.endpoint.group_clock()
    }

    /// The clock of another box is at least there.
    pub fn hear_clock(&mut self, clock: u64) {
        self.endpoint.advance_group(clock);
    }

    fn other(&mut self, other: usize) -> Option<&mut Other> {
        self.mirrors.as_mut()?.others.get_mut(other)
    }

    /// Another box is there and says what it has; `fresh` if that is everything, from the beginning.
    pub fn partner_heard(&mut self, other: usize, box_id: u8, fresh: bool) {
        let Some(other) = self.other(other) else { return };
        (other.box_id, other.heard, other.refused) = (Some(box_id), true, false);
        if fresh {
            other.lists_heard.clear();
            other.told_all = false;
        }
    }

    /// It cannot be heard any more.
    pub fn partner_silent(&mut self, other: usize) {
        if let Some(other) = self.other(other) {
            other.heard = false;
        }
    }

    /// Another box hears what we have; `fresh` if that has to be everything, from the beginning.
    pub fn partner_hears(&mut self, other: usize, box_id: u8, fresh: bool) {
        let Some(found) = self.other(other) else { return };
        (found.box_id, found.hears, found.refused) = (Some(box_id), true, false);
        if fresh {
            found.lists_told.clear();
            found.words.clear();
            found.seen.clear();
            found.said_all = false;
            self.endpoint.begin_telling(other);
        }
    }

    /// It does not hear us any more. What it has to be told is kept in mind.
    pub fn partner_deaf(&mut self, other: usize) {
        if let Some(other) = self.other(other) {
            other.hears = false;
        }
    }

    /// Another box will not talk to us, or must not: nobody waits for it.
    pub fn partner_refused(&mut self, other: usize) {
        if let Some(other) = self.other(other) {
            other.refused = true;
        }
    }

    /// Whether this box knows what the others know, as far as they are there: before that it is not fit to serve. A box that
    /// nobody talks to waits for a while and then serves alone.
    pub fn is_caught_up(&self, now: Instant) -> bool {
        let Some(mirrors) = &self.mirrors else { return true };
        let waits = |other: &&Other| other.heard && !other.told_all;
        if mirrors.others.iter().any(|other| waits(&other)) {
            return false;
        }
        let known = mirrors.others.iter().any(|other| other.told_all);
        let alone = mirrors.others.iter().all(|other| other.refused);
        known || alone || now.since(mirrors.since) >= mirrors.plan.patience
    }

    /// What was told and heard, and whether another box is there: it can be heard, can hear us, and has told everything.
    pub fn partner_counts(&self, other: usize) -> Option<(MirrorCounts, [bool; 3])> {
        let other = self.mirrors.as_ref()?.others.get(other)?;
        Some((other.counts, [other.heard, other.hears, other.told_all]))
    }

    /// How many things another box has still to be told, about.
    pub fn left_to_tell(&self, other: usize) -> usize {
        let words = self.mirrors.as_ref().and_then(|it| it.others.get(other)).map_or(0, |other| other.words.len());
        words + self.endpoint.left_to_tell(other)
    }

    /// When something is to be said that waits for its time.
    pub(super) fn mirrors_deadline(&self) -> Option<Instant> {
        let others = self.mirrors.iter().flat_map(|mirrors| &mirrors.others);
        others.filter(|other| other.hears).filter_map(|other| other.say_seen).min()
    }

    /// The place among the others of the box with this number, if it is there.
    fn other_with(&self, box_id: u8) -> Option<usize> {
        let mirrors = self.mirrors.as_ref()?;
        mirrors.others.iter().position(|other| other.is_there() && other.box_id == Some(box_id))
    }

    /// Who runs a context that is mirrored here, if that box is there.
    fn runner(&self, context: &Context) -> Option<usize> {
        let mine = self.mirrors.as_ref()?.plan.box_id;
        let box_id = context.stamp().box_id();
        if context.is_mirrored() && box_id != mine { self.other_with(box_id) } else { None }
    }
}

/// What is told.
impl Engine {
    /// Tells another box about `most` further things.
    pub fn tell_partner(&mut self, now: Instant, other: usize, most: usize, told: &mut Vec<Told>) {
        self.ask_for_missed();
        let Some(mut mirrors) = self.mirrors.take() else { return };
        if let Some(other_box) = mirrors.others.get_mut(other) {
            other_box.seen(now, told);
            let words = other_box.words.len().min(most);
            told.extend(other_box.words.drain(..words));
            for _ in 0..most {
                let tell = match self.endpoint.next_to_tell(other) {
                    None => break,
                    Some(ToTell::Gone(tag, stamp)) => Told::Gone(tag.value(), stamp),
                    Some(ToTell::Context(context)) => {
                        let attached = self.attached.get(&context.id);
                        let reap = attached.and_then(|attached| attached.reap.as_ref());
                        let doubts = Doubts {
                            explores: reap.is_some_and(|reap| reap.state() != State::Operational),
                            narrow: attached.is_some_and(|attached| attached.narrow == Some(context.pair)),
                            udp: self.carriages.is_udp(PathKey::of(context.pair)),
                        };
                        let number = other_box.list(&context.host, told);
                        other_box.counts.told += 1;
                        let Some(carried) = CarriedContext::of(context, number) else { continue };
                        Told::Context(Box::new(carried), doubts)
                    }
                };
                told.push(tell);
            }
            if !other_box.said_all && self.endpoint.has_told_all(other) {
                other_box.said_all = true;
                told.push(Told::CaughtUp);
            }
        }
        self.mirrors = Some(mirrors);
    }

    /// Contexts of hosts that have come since may be told of once more.
    fn ask_for_missed(&mut self) {
        let Some(mirrors) = self.mirrors.as_mut().filter(|mirrors| !mirrors.missed.is_empty()) else { return };
        let served: Vec<Ulid> = mirrors.missed.extract_if(|ulid| self.endpoint.host_at(*ulid).is_some()).collect();
        for ulid in served {
            mirrors.others.iter_mut().for_each(|other| other.say(Told::AskHost(ulid.0)));
        }
    }
}

/// What is heard.
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
    pub(super) fn mirrored(
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
        let note = MirrorNote { since: now, doubted: doubts.explores, news: carried.news, left: false };
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
                self.other(other).into_iter().for_each(|it| it.say(Told::NotMine(tag)));
                continue;
            };
            // One that this box ran in an earlier life.
            self.take_on(now, rng, id, effects);
            let Some(pair) = self.pair_in_use(id) else { continue };
            let [received, sent, out_last] = [SEEN_IN, SEEN_OUT, SEEN_OUT_LAST].map(|bit| bits & bit != 0);
            self.endpoint.used(now, id);
            self.sight(now, id, PathKey::of(pair), [received, sent]);
            let last = if out_last { Direction::Sent } else { Direction::Received };
            let digest = Activity { received, sent, last };
            self.reap(now, rng, id, effects, |reap, rng, out| reap.activity(now, rng, digest, out));
            if received {
                self.guard(now, id);
            }
        }
    }

    fn hear_handed(&mut self, now: Instant, rng: &mut dyn Rng, packet: &[u8], effects: &mut Vec<Effect>) {
        self.tally.count(Event::HandedIn);
        let mut frame = vec![0; ethernet::HEADER_LEN];
        frame.extend_from_slice(packet);
        self.control_message_here(now, rng, &frame, effects);
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

/// Contexts that another box runs, and what happens to them here.
impl Engine {
    /// Payload of a context was seen here. True if another box runs it and was told, so that there is nothing else to do.
    pub(super) fn seen_for_another(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        activity: table::Activity,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let note = self.attached.get(&id).and_then(|attached| attached.mirrored.as_deref());
        let Some((since, left)) = note.map(|note| (note.since, note.left)) else { return false };
        let Some(context) = self.endpoint.context(id) else { return false };
        let (runner, tag) = (self.runner(context), context.local_tag);
        let stays_here = activity.sent && now.since(since) >= TAKE_ON;
        let Some(runner) = runner.filter(|_| !left && !stays_here) else {
            self.take_on(now, rng, id, effects);
            return false;
        };
        self.endpoint.used(now, id);
        let bit = |seen: bool, bit: u8| if seen { bit } else { 0 };
        let last = bit(activity.last == table::Direction::Out, SEEN_OUT_LAST);
        let bits = bit(activity.received, SEEN_IN) | bit(activity.sent, SEEN_OUT);
        if let Some(other) = self.other(runner)
            && (other.seen.len() < SEEN_MAX || other.seen.contains_key(&tag))
        {
            let known = other.seen.entry(tag).or_default();
            *known = (*known | bits) & !SEEN_OUT_LAST | last;
            other.say_seen.get_or_insert(now + SAY_SEEN);
        }
        true
    }

    /// This box runs a context from now on, if it did not.
    pub(super) fn take_on(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, effects: &mut Vec<Effect>) {
        let taken = self.attached.get_mut(&id).and_then(|attached| attached.mirrored.take());
        let Some(note) = taken else { return };
        self.tally.count(Event::TakenOn);
        self.advance_group(now);
        self.endpoint.run_mirrored(id);
        let Some(context) = self.endpoint.context(id) else { return };
        let (ulids, pair, timeout) = (context.ulids, context.pair, context.peer_keepalive_timeout);
        let (local, peer) = self.locators(context);
        let newest = self.endpoint.host_at(ulids.local);
        let other_list = newest.is_some_and(|host| host.locators != context.host.locators);
        let down = self.provider_of(pair.local.0).is_none_or(|(_, provider)| !provider.is_up());
        let mut reap = Reap::new(&self.reap_config, pair, &local[..], &peer[..]);
        reap.set_confirmed(pair);
        if let Some(seconds) = timeout {
            reap.set_keepalive_timeout(seconds);
        }
        let attached = self.attached.get_or_default(id);
        attached.reap.get_or_insert(reap);
        self.attached.settle(id);
        self.sync(id, effects);
        self.policy_begins(now, id);
        if note.news || other_list {
            self.has_news(id);
        }
        if note.doubted || down {
            self.hint(now, rng, id, effects);
        }
    }

    /// Whether another box runs it.
    pub(super) fn is_mirrored(&self, id: ContextId) -> bool {
        self.attached.get(&id).is_some_and(|attached| attached.mirrored.is_some())
    }

    /// Hands a message over to the box it is for: the one that runs its context, or began the exchange. Whether there is one.
    pub(super) fn hand_over(&mut self, addresses: Addresses, message: &Message, packet: &[u8]) -> bool {
        let Some(mirrors) = &self.mirrors else { return false };
        let arrived = LocatorPair { local: Locator(addresses.target), peer: Locator(addresses.source) };
        let one = |found: Option<usize>| found.into_iter().collect::<Vec<usize>>();
        let to = match message {
            Message::UpdateRequest { receiver_tag: tag, .. }
            | Message::UpdateAck { receiver_tag: tag, .. }
            | Message::Keepalive { receiver_tag: tag, .. } => one(self.whose(*tag)),
            Message::Probe(probe) => one(self.whose(probe.receiver_tag)),
            Message::R1bis { packet_tag, .. } => {
                one(self.endpoint.find_by_peer(*packet_tag, arrived).and_then(|context| self.runner(context)))
            }
            Message::R1 { initiator_nonce: nonce, .. } | Message::R2 { initiator_nonce: nonce, .. }
                if !self.endpoint.has_exchange(*nonce) =>
            {
                let there = mirrors.others.iter().enumerate().filter(|(_, other)| other.is_there());
                there.map(|(at, _)| at).collect()
            }
            _ => return false,
        };
        for at in &to {
            self.tally.count(Event::HandedOver);
            self.other(*at).into_iter().for_each(|other| other.say(Told::Handed(packet.to_vec())));
        }
        !to.is_empty()
    }

    /// The box that a message with this tag is for, if it is another one and there.
    fn whose(&self, tag: ContextTag) -> Option<usize> {
        match self.endpoint.find_by_local_tag(tag) {
            Some(context) => self.runner(context),
            None => self.other_with(tags::box_of(tag)),
        }
    }

    /// Payload came with a tag that nobody has here. True if another box may have it: that is asked, and the peer is told nothing
    /// for the moment.
    pub(super) fn ask_for_tag(&mut self, now: Instant, tag: ContextTag) -> bool {
        let Some(mine) = self.mirrors.as_ref().map(|mirrors| mirrors.plan.box_id) else { return false };
        let maker = tags::box_of(tag);
        let Some(other) = self.other_with(maker).filter(|_| maker != mine) else { return false };
        let Some(mirrors) = self.mirrors.as_mut() else { return false };
        if let Some((asked, unknown)) = mirrors.asked.get(&tag) {
            return !unknown && now.since(*asked) < ASKED;
        }
        if mirrors.asked.len() >= ASKED_MAX {
            mirrors.asked.retain(|_, (asked, _)| now.since(*asked) < ASKED);
        }
        if mirrors.asked.len() >= ASKED_MAX {
            return false;
        }
        mirrors.asked.insert(tag, (now, false));
        if let Some(other) = mirrors.others.get_mut(other) {
            other.say(Told::Ask(tag.value()));
        }
        true
    }
}
