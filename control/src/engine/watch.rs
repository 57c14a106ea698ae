//! Watching paths: who is watched, what sessions say and are told, and what follows when a path fails (see
//! [`watches`](super::watches)).
//!
//! A session that goes down is evidence, like a link that goes down: packets of contexts with a standby go another way at once, the
//! others are asked to look for one at the common pace. Nobody's locators change because of it: a context moves when a probe of its own
//! was answered, and one whose probe is answered on the path has its packets there again, whatever the session says.

use std::net::Ipv6Addr;

use dataplane::wire::shim6::{Addresses, LivenessOption, Message, Options};
use dataplane::wire::{ContextTag, Locator, LocatorPair};
use hashbrown::HashMap;
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::context::along;
use super::revive::Sign;
use super::succession::Item;
use super::watches::{SPEAKS, Watch};
use super::{Effect, Engine, Event, Story};
use crate::bfd::{Carried, Cause, Output, Session};
use crate::manage::api::LivenessView;
use crate::reap::{PathKey, Status};
use crate::shim6::{ContextId, State};
use crate::time::Instant;

/// Watches looked at in one call, so that events of the workers never wait long.
const EXPIRED_PER_TURN: usize = 512;
/// Contexts of a path looked at for one that can speak for it.
const SPEAKERS_LOOKED_AT: usize = 16;

/// A watched path, for another process that goes on with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedWatch {
    /// The session; none if the path is watched no more.
    session: Option<Carried>,
    /// The tag of the context that speaks for it, and its pair, ours first.
    tag: u64,
    pair: (Ipv6Addr, Ipv6Addr),
    /// Whether our contexts use it, and the peer's.
    used: bool,
    asked: bool,
}

impl Engine {
    /// A context uses a path: it is watched from now on, if the peer takes part.
    pub(super) fn watch_used(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, pair: LocatorPair) {
        if !self.watches.is_wanted() || !self.may_speak(id, pair) {
            return;
        }
        let path = PathKey::of(pair);
        if let Some(watch) = self.watches.paths.get_mut(&path) {
            watch.used = Some(now);
            let (speaker, _, since) = watch.speaker;
            if speaker == id || now.since(since) >= SPEAKS {
                watch.speaker = (id, pair, now);
            }
            return;
        }
        match self.watches.begin(now, rng, id, pair, false) {
            Some(_) => self.tally.count(Event::LivenessBegun),
            None => self.tally.count(Event::LivenessNoRoom),
        }
    }

    /// Whether liveness can be told in the name of a context, over a pair: its peer knows both ends of it.
    fn may_speak(&self, id: ContextId, pair: LocatorPair) -> bool {
        let Some(context) = self.endpoint.context(id) else { return false };
        context.state == State::Established
            && context.may_exchange_liveness()
            && context.host.has(pair.local.0)
            && context.peer_locator(pair.peer.0).is_some_and(|known| known.verified)
            && self.provider_of(pair.local.0).is_some()
            && !self.is_identifier(pair.peer.0)
    }

    /// When [`Engine::expire_watches`] has something to do.
    pub(super) fn watches_deadline(&self) -> Option<Instant> {
        self.watches.deadline()
    }

    /// Sessions whose time has come.
    pub(super) fn expire_watches(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        for _ in 0..EXPIRED_PER_TURN {
            let Some(path) = self.watches.pop(now) else { return };
            let deaf = self.watches.is_deaf(now, path);
            let Some(watch) = self.watches.paths.get_mut(&path) else { continue };
            let mut out = Vec::new();
            watch.session.expire(now, rng, deaf, &mut out);
            let look = watch.takes_look(now);
            if watch.trusted_at.is_some_and(|at| at <= now) {
                self.watch_trusted(now, path, effects);
            }
            self.watch_outputs(now, path, out, effects);
            if look {
                self.look_after_watch(now, path, effects);
            }
            self.watches.requeue(path);
        }
    }

    /// Ends a watch nobody needs, and keeps what it knows fresh.
    fn look_after_watch(&mut self, now: Instant, path: PathKey, effects: &mut Vec<Effect>) {
        let Some(watch) = self.watches.paths.get(&path) else { return };
        let up = watch.session.is_up();
        let asked = watch.asked && up;
        let (used, down) = (watch.is_used(now), watch.lost.is_some() && !up);
        // Whoever could say something is gone: there is nobody left who uses the path.
        let dumb = !up && self.speaker_of(now, path).is_none();
        if dumb || (!used && !asked) {
            return self.end_watch(now, path, effects);
        }
        // What has been said of a path that is still dead does not get too old, unless a probe has said otherwise.
        if down && self.book.status(path, now) == Status::Dead {
            let _ = self.book.down(path, now);
        }
    }

    /// The path is watched no more; the peer is told that this says nothing of it.
    fn end_watch(&mut self, now: Instant, path: PathKey, effects: &mut Vec<Effect>) {
        if let Some(watch) = self.watches.paths.get_mut(&path) {
            let mut out = Vec::new();
            watch.session.shut(now, &mut out);
            self.watch_outputs(now, path, out, effects);
        }
        if self.watches.end(path).is_some() {
            self.tally.count(Event::LivenessEnded);
        }
    }

    /// The box stops: what the peers hear is not that paths have failed.
    pub(super) fn end_watches(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let paths: Vec<PathKey> = self.watches.paths.keys().copied().collect();
        for path in paths {
            self.end_watch(now, path, effects);
        }
    }

    /// A Keepalive about liveness, which is none of REAP's. False if it is not about it, or the context did not agree on it.
    pub(super) fn liveness_message(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        addresses: Addresses,
        message: &Message,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let (Message::Keepalive { options, .. }, true) = (message, self.watches.is_wanted()) else { return false };
        let Some(LivenessOption { wanted, packet: Some(packet) }) = options.liveness else { return false };
        let pair = LocatorPair { local: Locator(addresses.target), peer: Locator(addresses.source) };
        if !self.may_speak(id, pair) {
            return false;
        }
        let path = PathKey::of(pair);
        if !self.watches.paths.contains_key(&path)
            && (packet.yours != 0 || !wanted || self.watches.begin(now, rng, id, pair, true).is_none())
        {
            self.tally.count(Event::LivenessRefused);
            return true;
        }
        let Some(watch) = self.watches.paths.get_mut(&path) else { return true };
        let mut out = Vec::new();
        match watch.session.receive(now, rng, &packet, &mut out) {
            Ok(()) => {
                (watch.asked, watch.received) = (wanted, watch.received + 1);
                if watch.used.is_none() {
                    // Who asks speaks; his answer goes the same way.
                    watch.speaker = (id, pair, now);
                }
            }
            Err(_) => self.tally.count(Event::LivenessRefused),
        }
        self.watch_outputs(now, path, out, effects);
        self.watches.requeue(path);
        true
    }

    fn watch_outputs(&mut self, now: Instant, path: PathKey, outputs: Vec<Output>, effects: &mut Vec<Effect>) {
        for output in outputs {
            match output {
                Output::Send(packet) => {
                    let Some(speaker) = self.speaker_of(now, path) else {
                        self.tally.count(Event::LivenessUnsent);
                        continue;
                    };
                    let Some(watch) = self.watches.paths.get_mut(&path) else { return };
                    watch.sent += 1;
                    let wanted = watch.is_used(now);
                    let option = LivenessOption { wanted, packet: Some(packet) };
                    self.send_liveness(now, speaker, option, effects);
                }
                Output::Up => {
                    self.tally.count(Event::LivenessUp);
                    if let Some(watch) = self.watches.paths.get_mut(&path) {
                        watch.recover(now);
                    }
                }
                Output::Down(cause @ (Cause::Silent | Cause::Told)) => self.watch_failed(now, path, cause, effects),
                Output::Down(Cause::Stalled) => self.tally.count(Event::LivenessStalled),
                Output::Down(Cause::Ended) => {}
                Output::Excused => self.tally.count(Event::LivenessLate),
                Output::Unexcused => self.tally.count(Event::LivenessUnexcused),
            }
        }
    }

    fn send_liveness(
        &mut self,
        now: Instant,
        (id, pair): (ContextId, LocatorPair),
        option: LivenessOption,
        effects: &mut Vec<Effect>,
    ) {
        let Some(receiver_tag) = self.endpoint.context(id).and_then(|context| context.peer_tag) else { return };
        self.tally.count(Event::LivenessSent);
        let options = Options { liveness: Some(option), ..Options::default() };
        self.send_message(now, Some(id), along(pair), &Message::Keepalive { receiver_tag, options }, effects);
    }

    /// The context that speaks for a path: the one that did, or another one that uses it.
    fn speaker_of(&mut self, now: Instant, path: PathKey) -> Option<(ContextId, LocatorPair)> {
        let (id, pair, _) = self.watches.paths.get(&path)?.speaker;
        if self.may_speak(id, pair) {
            return Some((id, pair));
        }
        let others = self.attached.on_path(path).take(SPEAKERS_LOOKED_AT);
        let found = others
            .filter_map(|id| Some((id, self.endpoint.context(id)?.pair)))
            .find(|(id, pair)| PathKey::of(*pair) == path && self.may_speak(*id, *pair))?;
        self.watches.paths.get_mut(&path)?.speaker = (found.0, found.1, now);
        Some(found)
    }

    /// A path has failed, as both ends or one of them can tell.
    fn watch_failed(&mut self, now: Instant, path: PathKey, cause: Cause, effects: &mut Vec<Effect>) {
        self.tally.count(if cause == Cause::Silent { Event::LivenessSilent } else { Event::LivenessTold });
        let Some(watch) = self.watches.paths.get_mut(&path) else { return };
        let tell = watch.fail(now);
        let after = watch.session.detection_time();
        // Before anything else, packets go another way.
        let _ = self.book.down(path, now);
        self.path_is_lost(now, path, effects);
        effects.push(Effect::Story(Story::Liveness(path, false, after)));
        if tell {
            self.attached.doubt(path, None);
        }
        // Once for all that fail at the same time.
        self.failing_check = Some(now);
    }

    /// A path that failed has been up for its hold time: packets go both ways on it, which is as good as a probe that is answered.
    fn watch_trusted(&mut self, now: Instant, path: PathKey, effects: &mut Vec<Effect>) {
        let Some(watch) = self.watches.paths.get_mut(&path) else { return };
        let lost = watch.trust();
        self.tally.count(Event::LivenessBack);
        self.book.confirmed(path, now);
        self.path_is_back(path, effects);
        let after = lost.map(|since| now.since(since)).unwrap_or_default();
        effects.push(Effect::Story(Story::Liveness(path, true, after)));
        self.revived(now, Sign::Peer(path.peer));
        self.failing_check = Some(now);
    }

    /// A watched path of which another process has not been told what is so now.
    pub(super) fn next_watch(&self, told: &HashMap<PathKey, CarriedWatch>) -> Option<(PathKey, CarriedWatch)> {
        let news = |(path, now): (PathKey, CarriedWatch)| (told.get(&path) != Some(&now)).then_some((path, now));
        let changed = self.watches.paths.iter().filter_map(|(path, watch)| {
            let (id, pair, _) = watch.speaker;
            let tag = self.endpoint.context(id)?.local_tag.value();
            let carried = CarriedWatch {
                session: Some(watch.session.carry()),
                tag,
                pair: (pair.local.0, pair.peer.0),
                used: watch.used.is_some(),
                asked: watch.asked,
            };
            news((*path, carried))
        });
        let ended = told.iter().filter(|(path, _)| !self.watches.paths.contains_key(*path));
        let ended = ended.filter_map(|(path, last)| news((*path, CarriedWatch { session: None, ..*last })));
        changed.chain(ended).next()
    }

    /// Tells another process of one watched path. False if there is nothing to tell.
    pub(super) fn bequeath_watch(&self, told: &mut HashMap<PathKey, CarriedWatch>, items: &mut Vec<Item>) -> bool {
        let Some((path, carried)) = self.next_watch(told) else { return false };
        told.insert(path, carried);
        items.push(Item::Watch(carried));
        true
    }

    /// Goes on with a path another process watched. One that makes no sense here begins anew when it is used.
    pub(super) fn inherit_watch(&mut self, now: Instant, rng: &mut dyn Rng, carried: CarriedWatch) {
        let pair = LocatorPair { local: Locator(carried.pair.0), peer: Locator(carried.pair.1) };
        self.watches.end(PathKey::of(pair));
        let speaker = self.endpoint.find_by_local_tag(ContextTag::truncate(carried.tag)).map(|context| context.id);
        let session = carried.session.and_then(|it| Session::resume(now, rng, self.watches.config(), &it));
        let (Some(speaker), Some(session)) = (speaker, session) else { return };
        let mut watch = Watch::new(now, session, speaker, pair, !carried.used);
        watch.asked = carried.asked;
        self.watches.take_over(watch);
    }

    /// The ports are this box's now: what was heard in the meantime, the other process heard.
    pub(super) fn go_on_watching(&mut self, now: Instant) {
        let paths: Vec<PathKey> = self.watches.paths.keys().copied().collect();
        for path in paths {
            if let Some(watch) = self.watches.paths.get_mut(&path) {
                watch.session.go_on(now);
            }
            self.watches.requeue(path);
        }
    }

    /// What is known of a path by its watch.
    pub(super) fn liveness_view(&self, now: Instant, path: PathKey) -> Option<LivenessView> {
        let watch: &Watch = self.watches.paths.get(&path)?;
        let session = &watch.session;
        let millis = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
        Some(LivenessView {
            state: format!("{:?}", session.state()).to_lowercase(),
            interval_ms: session.transmit_interval().map(millis),
            detection_ms: millis(session.detection_time()),
            rtt_ms: session.round_trip().map(millis),
            sent: watch.sent,
            received: watch.received,
            failures: watch.failures(),
            held_s: watch.trusted_at.map(|at| at.since(now).as_secs()),
        })
    }
}
