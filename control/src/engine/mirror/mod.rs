//! Several boxes of one site that tell each other of their contexts (docs/decisions: state sync).
//!
//! Every context is run by one box, the one that changed it last. The others mirror it: they have it in their workers, so that a
//! packet which arrives there is translated like any other, and are silent about it otherwise: no timers, probes, tests of
//! standbys, news. What a mirroring box sees of payload it says to the one that runs the context, whose REAP machine needs it;
//! what peers say about the context it hands over. It takes the context on when that box is not there, or says that hosts have not
//! sent there for a while.
//!
//! What is told is state, not events, and in any order: which of two versions counts is decided by their stamps
//! ([`crate::shim6::Stamp`]). Here stands what is told and what comes of it; that none of it is lost on the way is for
//! [`crate::sync`].

mod heard;
mod passive;

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dataplane::wire::{ContextTag, Ulid};
use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use super::Engine;
use super::succession::Doubts;
use crate::reap::{PathKey, State};
use crate::shim6::{CarriedContext, CarriedList, Context, LocalHost, Stamp, ToTell};
use crate::time::Instant;

/// How often it is said what was seen of contexts that another box runs.
const SAY_SEEN: Duration = Duration::from_millis(500);
/// How often hosts send elsewhere, and never here meanwhile, until the box by which they do runs the context although this one is
/// there; and how far apart in seconds that is counted. Longer together than a route takes to come back. Where they send by both,
/// whoever runs it goes on, unless the other one has more than twice as much of it: then it does not come back either.
const LEAVE: u8 = 3;
const APART_S: u32 = 2;
/// How long payload with a tag of another box may be unknown here before the peer is told so.
const ASKED: Duration = Duration::from_millis(200);
/// Most tags that were asked for at any time, most contexts that something was seen of or that are to be run by another box, most
/// packets and words that wait to be handed over, and most hosts whose contexts could not be taken in.
const ASKED_MAX: usize = 4096;
const SEEN_MAX: usize = 1 << 17;
const WORDS_MAX: usize = 1024;
const MISSED_MAX: usize = 4096;
/// Lists that may be numbered before numbering begins anew: many times those in use.
const LISTS_MAX: usize = 1 << 17;
/// What was seen goes in words of so many contexts, and in batches of so many, each of which the other one takes in at a time.
const SEEN_PER_WORD: usize = 256;
const SEEN_PER_BATCH: usize = 4096;
/// Contexts of which one batch says that they are not run here: a few octets each.
const NOT_MINE_PER_BATCH: usize = 1024;
/// Places of the table looked at for one batch. After millions of contexts have gone nearly all of them are empty.
const LOOKS_PER_BATCH: usize = 4096;

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
    /// Whether this box was once found to know what the others know, or that there is nobody.
    fit: Cell<bool>,
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
    /// Nothing can be told it for the moment: it has not acknowledged what it was told, or the connection has no room.
    full: bool,
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
    /// Tags of contexts that this box does not run, or had better not. Routes that move make many at a time, which must not take
    /// the room of messages, and each is said once however often it is asked for.
    not_mine: BTreeSet<u64>,
    seen: HashMap<ContextTag, u8>,
    /// What of it is being said.
    saying: VecDeque<(u64, u8)>,
    say_seen: Option<Instant>,
    counts: MirrorCounts,
}

/// What is known of a context that another box runs.
#[derive(Debug)]
pub(super) struct MirrorNote {
    /// Nothing came back, as the other box saw it.
    doubted: bool,
    /// The peer has not acknowledged everything.
    news: bool,
    /// Nobody runs it.
    left: bool,
}

/// How often another box has said that hosts send there, since they last sent here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Elsewhere {
    times: u8,
    /// The second of this box's life in which that was counted last.
    last: u32,
}

impl Elsewhere {
    /// Another box says it. Whether they have left this one.
    fn said(&mut self, now: Instant) -> bool {
        let second = u32::try_from(now.0.as_secs()).unwrap_or(u32::MAX);
        if self.times == 0 || second.saturating_sub(self.last) > APART_S {
            *self = Elsewhere { times: self.times.saturating_add(1), last: second };
        }
        self.times >= LEAVE
    }
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

    fn say_not_mine(&mut self, tag: u64) {
        if !self.hears {
            return;
        }
        if self.not_mine.len() >= SEEN_MAX && !self.not_mine.contains(&tag) {
            self.counts.dropped += 1;
            return;
        }
        self.not_mine.insert(tag);
    }

    /// Words for the next batch: each kind has a share of its own.
    fn words(&mut self, most: usize, told: &mut Vec<Told>) {
        let words = self.words.len().min(most);
        told.extend(self.words.drain(..words));
        let not_mine = std::iter::from_fn(|| self.not_mine.pop_first());
        told.extend(not_mine.take(NOT_MINE_PER_BATCH).map(Told::NotMine));
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
        if self.saying.is_empty() && self.say_seen.is_some_and(|at| at <= now) {
            self.say_seen = None;
            let mut seen: Vec<(u64, u8)> = self.seen.drain().map(|(tag, bits)| (tag.value(), bits)).collect();
            seen.sort_unstable();
            self.saying = seen.into();
        }
        let some = self.saying.len().min(SEEN_PER_BATCH);
        let seen: Vec<(u64, u8)> = self.saying.drain(..some).collect();
        told.extend(seen.chunks(SEEN_PER_WORD).map(|some| Told::Seen(some.to_vec())));
    }
}

/// The group.
impl Engine {
    /// This box tells others of its contexts from now on, and hears of theirs. To be called before there are any.
    pub fn join_group(&mut self, now: Instant, plan: GroupPlan) {
        self.endpoint.join_group(plan.box_id, plan.boxes, plan.others);
        let others = (0..plan.others).map(|_| Other::default()).collect();
        let fit = Cell::new(false);
        let mirrors = Mirrors { plan, others, since: now, fit, asked: HashMap::new(), missed: HashSet::new() };
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
            found.not_mine.clear();
            found.seen.clear();
            found.saying.clear();
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

    /// Whether nothing can be told it for the moment. What waits to be said wakes nobody meanwhile.
    pub fn partner_full(&mut self, other: usize, full: bool) {
        if let Some(other) = self.other(other) {
            other.full = full;
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
        let Some(mirrors) = self.mirrors.as_ref().filter(|mirrors| !mirrors.fit.get()) else { return true };
        let waits = |other: &&Other| other.heard && !other.told_all;
        if mirrors.others.iter().any(|other| waits(&other)) {
            return false;
        }
        let known = mirrors.others.iter().any(|other| other.told_all);
        let alone = mirrors.others.iter().all(|other| other.refused);
        // Whoever serves goes on when others come that have to tell him something.
        mirrors.fit.set(known || alone || now.since(mirrors.since) >= mirrors.plan.patience);
        mirrors.fit.get()
    }

    /// What was told and heard, and whether another box is there: it can be heard, can hear us, and has told everything.
    pub fn partner_counts(&self, other: usize) -> Option<(MirrorCounts, [bool; 3])> {
        let other = self.mirrors.as_ref()?.others.get(other)?;
        Some((other.counts, [other.heard, other.hears, other.told_all]))
    }

    /// How many things another box has still to be told, about.
    pub fn left_to_tell(&self, other: usize) -> usize {
        let waiting = |other: &Other| other.words.len() + other.not_mine.len() + other.saying.len();
        let words = self.mirrors.as_ref().and_then(|it| it.others.get(other)).map_or(0, waiting);
        words + self.endpoint.left_to_tell(other)
    }

    /// When something is to be said that waits for its time.
    pub(super) fn mirrors_deadline(&self) -> Option<Instant> {
        let others = self.mirrors.iter().flat_map(|mirrors| &mirrors.others);
        others.filter(|other| other.hears && !other.full).filter_map(|other| other.say_seen).min()
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
    /// Tells another box about `most` further things, or fewer: then there may be more all the same.
    pub fn tell_partner(&mut self, now: Instant, other: usize, most: usize, told: &mut Vec<Told>) {
        self.ask_for_missed();
        let Some(mut mirrors) = self.mirrors.take() else { return };
        if let Some(other_box) = mirrors.others.get_mut(other) {
            other_box.seen(now, told);
            other_box.words(most, told);
            let mut looks = LOOKS_PER_BATCH;
            for _ in 0..most {
                let tell = match self.endpoint.next_to_tell(other, &mut looks) {
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

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::sim::{Plan, World};
    use crate::sync::{Frame, FromHearer, FromTeller, Partner, Welcome, decode};

    #[test]
    fn a_partner_that_takes_nothing_wakes_nobody_and_hears_of_it_when_it_does() {
        let mut world = World::new(&Plan::default(), 1);
        let (now, engine) = (world.now, &mut world.nodes[0].engine);
        engine.join_group(now, GroupPlan { box_id: 1, boxes: 2, others: 1, patience: Duration::ZERO, base: 0 });
        let mut partner = Partner::new(0);
        let welcome = Welcome { box_id: 2, life: 7, clock: 0, heard: None };
        assert!(partner.answered(engine, FromHearer::Welcome(welcome)));
        partner.tell(now, engine, 8, &mut |_| Ok(()));
        let see = |engine: &mut Engine| {
            let other = engine.other(0).unwrap();
            other.seen.insert(ContextTag::truncate(9), SEEN_IN);
            other.say_seen = Some(now);
        };
        see(engine);
        assert_eq!(engine.mirrors_deadline(), Some(now));
        // The connection has no room: first for a batch, and then for what was made of it.
        let mut refused: Vec<Frame> = Vec::new();
        for _ in 0..3 {
            assert_eq!(partner.tell(now, engine, 8, &mut Err), 0);
            see(engine);
            assert_eq!(engine.mirrors_deadline(), None, "there is nothing to be done until there is room");
        }
        partner.tell(now, engine, 8, &mut |frame| {
            refused.push(frame);
            Ok(())
        });
        let said = refused.iter().filter_map(|frame| match decode(&frame[4..]) {
            Some(FromTeller::Batch { told, .. }) => Some(told),
            _ => None,
        });
        let seen = said.flatten().filter(|told| matches!(told, Told::Seen(_))).count();
        assert_eq!((seen, engine.mirrors_deadline()), (2, None), "before and after it had room");
        // Nobody acknowledges: the window is full one day.
        for _ in 0..100 {
            see(engine);
            partner.tell(now, engine, 1, &mut |_| Ok(()));
        }
        assert_eq!(engine.mirrors_deadline(), None);
        assert!(partner.answered(engine, FromHearer::Ack(60)));
        partner.tell(now, engine, 1, &mut |_| Ok(()));
        assert_eq!(engine.other(0).unwrap().say_seen, None, "said");
    }
    /// A box that another one hears, and says to that it saw payload of so many contexts, which nobody runs here.
    fn who_runs_nothing(contexts: u64) -> World {
        let mut world = World::new(&Plan::default(), 1);
        let (now, engine) = (world.now, &mut world.nodes[0].engine);
        engine.join_group(now, GroupPlan { box_id: 1, boxes: 2, others: 1, patience: Duration::ZERO, base: 0 });
        engine.partner_heard(0, 2, true);
        engine.partner_hears(0, 2, true);
        // As it does until it has its answer.
        for _ in 0..2 {
            let tags: Vec<(u64, u8)> = (1..=contexts).map(|tag| (tag, SEEN_OUT)).collect();
            let told = tags.chunks(SEEN_PER_WORD).map(|some| Told::Seen(some.to_vec())).collect();
            engine.hear_partner(now, &mut StdRng::seed_from_u64(1), 0, now.0, told, &mut Vec::new());
        }
        world
    }

    /// What it is told, in batches of 128 things of each kind, or more if they are small.
    fn batches(world: &mut World) -> Vec<Vec<Told>> {
        let (now, engine) = (world.now, &mut world.nodes[0].engine);
        let next = |_| {
            let mut told = Vec::new();
            engine.tell_partner(now, 0, 128, &mut told);
            told
        };
        (0..10_000).map(next).take_while(|told| !told.is_empty()).collect()
    }

    #[test]
    fn contexts_that_change_hands_displace_no_messages_and_do_not_wait_for_the_next_report() {
        let mut world = who_runs_nothing(100_000);
        world.nodes[0].engine.other(0).unwrap().say(Told::Handed(vec![6]));
        assert_eq!(world.nodes[0].engine.left_to_tell(0), 100_001);
        let batches = batches(&mut world);
        assert!(batches[0].contains(&Told::Handed(vec![6])), "a message waits for nothing");
        let told =
            batches.iter().flatten().filter_map(|told| if let Told::NotMine(tag) = told { Some(*tag) } else { None });
        let mut tags: Vec<u64> = told.collect();
        tags.sort_unstable();
        assert_eq!(tags, (1..=100_000).collect::<Vec<u64>>(), "each is told of, once");
        assert!(batches.iter().all(|told| told.len() <= 128 + 1024 + 1), "what goes at a time is bounded");
        assert!(batches.len() < 128, "{} batches", batches.len());
        assert_eq!(world.nodes[0].engine.partner_counts(0).unwrap().0.dropped, 0);
    }

    #[test]
    fn contexts_that_change_hands_are_as_many_as_may_be_and_the_others_are_counted() {
        let mut world = who_runs_nothing(SEEN_MAX as u64 + 10);
        // Twice.
        assert_eq!(world.nodes[0].engine.partner_counts(0).unwrap().0.dropped, 20);
        let batches = batches(&mut world);
        assert_eq!(batches.iter().flatten().filter(|told| matches!(told, Told::NotMine(_))).count(), SEEN_MAX);
        // To whom does not hear nothing is said, and nothing is kept for it.
        let (now, engine) = (world.now, &mut world.nodes[0].engine);
        engine.partner_deaf(0);
        let told = vec![Told::Seen(vec![(1, SEEN_OUT)])];
        engine.hear_partner(now, &mut StdRng::seed_from_u64(1), 0, now.0, told, &mut Vec::new());
        assert_eq!(engine.left_to_tell(0), 0);
    }

    #[test]
    fn what_was_seen_of_many_contexts_is_said_in_several_batches() {
        let mut world = who_runs_nothing(0);
        let now = world.now;
        let other = world.nodes[0].engine.other(0).unwrap();
        other.seen.extend((1..=50_000).map(|tag| (ContextTag::truncate(tag), SEEN_IN)));
        other.say_seen = Some(now);
        let batches = batches(&mut world);
        let said = |told: &[Told]| -> Vec<u64> {
            let all = told.iter().flat_map(|told| if let Told::Seen(seen) = told { &seen[..] } else { &[] });
            all.map(|(tag, _)| *tag).collect()
        };
        assert!(
            batches.iter().all(|told| said(told).len() <= 4096),
            "what the other one has to take in at a time is bounded"
        );
        let tags: Vec<u64> = batches.iter().flat_map(|told| said(told)).collect();
        assert_eq!(tags, (1..=50_000).collect::<Vec<u64>>());
    }
}
