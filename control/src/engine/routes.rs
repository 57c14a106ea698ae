//! What routers say of the providers' routes to peers, and what comes of it (docs/decisions: BMP).
//!
//! When a provider's route to a peer's /64 is lost, packets of contexts that have a tested standby go there from the next one on, and
//! the path comes after others wherever there is a choice. No context moves because of that: some of those on the path, the
//! *witnesses*, test their pair at once, beginning with it. If it does not answer, they find another one, and what follows is what
//! follows whenever several contexts see a path fail. If it does, the feed was wrong: packets are back after a round trip, and nobody
//! has moved.
//!
//! So a feed can at most move packets to pairs that were tested, until the first answer. One that was wrong is *distrusted* for a
//! while, twice as long each time: what it says of its provider then only makes witnesses look. What is wrong of one path does not
//! count again before the feed has said that the route is there.
//!
//! A route that is back is tested by witnesses, too, before packets go there again, and so is one of which nothing is known any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dataplane::wire::Ulid;
use hashbrown::HashMap;
use rand::Rng;

use super::revive::Sign;
use super::{Effect, Engine, Event};
use crate::reap::{PathKey, State, Status};
use crate::shim6::{Context, ContextId};
use crate::time::Instant;

/// Contexts that test a path at one time. Two that fail make it dead for all; one of three may have a peer that is dead itself.
const WITNESSES: usize = 3;
/// How long a context that has tested its path is left alone before it is a witness.
const WITNESS_PAUSE: Duration = Duration::from_secs(2);
/// Contexts of a path that are looked at to find those.
const LOOKED_AT_PER_PATH: usize = 16;
/// Paths that are tested in one call, so that events of the workers never wait long.
const TESTED_PER_TURN: usize = 64;
/// From one test of a path to the next as long as somebody is on it; twice as long each time, so often.
const AGAIN: Duration = Duration::from_secs(5);
const DOUBLINGS_MAX: u8 = 6;
/// Tests of a path whose route is back, before packets go there although nobody answered and nobody failed.
const BACK_TESTS: u8 = 4;
/// How soon a feed has to put right what was seen not to be so.
const CORRECTED: Duration = Duration::from_secs(2);
/// How long a feed that was wrong once is not believed; twice as long each time, so often.
const DISTRUST: Duration = Duration::from_secs(10);
const DISTRUST_DOUBLINGS_MAX: u8 = 9;
/// After so long without a lie the last of them is forgotten.
const FORGIVEN: Duration = Duration::from_secs(3600);
/// /64s of peers that are asked about, and how often those are looked for that nobody needs.
const ASKED_MAX: usize = 1 << 16;
const SWEEP: Duration = Duration::from_secs(600);
/// Places of the table of contexts that are looked at in one call, and the pause before the next.
const SWEPT_PER_TURN: usize = 4096;
const SWEEP_PAUSE: Duration = Duration::from_millis(100);
/// What TCP acknowledges was sent a little earlier.
const ROUND_TRIP: Duration = Duration::from_secs(1);

/// What routers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteWish {
    /// About a peer's /64, by the first half of its addresses.
    Ask(u64),
    /// Not about it any more.
    Forget(u64),
}

/// How a path stands of which routers said that its route is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is believed.
    Held,
    /// Its feed was wrong lately.
    Distrusted,
    /// The path was seen to work since.
    Overruled,
    /// The route is there again, and the path is being tested.
    Back,
}

#[derive(Clone, Debug)]
struct Hint {
    provider: Arc<str>,
    since: Instant,
    standing: Standing,
    /// Whether a witness has seen the path fail since.
    upheld: bool,
    tests: u8,
    /// When it is tested next.
    due: Option<Instant>,
}

impl Hint {
    fn new(provider: &Arc<str>, since: Instant, standing: Standing) -> Hint {
        Hint { provider: Arc::clone(provider), since, standing, upheld: false, tests: 0, due: None }
    }
}

/// How far the feed of a provider is to be believed.
#[derive(Clone, Copy, Debug, Default)]
struct Trust {
    lies: u8,
    /// When it lied last.
    lied: Option<Instant>,
}

impl Trust {
    /// Until when it is not believed.
    fn until(&self) -> Option<Instant> {
        let doublings = self.lies.checked_sub(1)?.min(DISTRUST_DOUBLINGS_MAX);
        Some(self.lied? + DISTRUST * (1 << doublings))
    }
}

/// What is known of routes.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Whether anybody tells.
    wanted: bool,
    /// Those that were told to be lost, the peer's /64 first.
    hints: BTreeMap<(u64, u64), Hint>,
    /// When to test which of them.
    due: BTreeSet<(Instant, PathKey)>,
    trust: BTreeMap<Arc<str>, Trust>,
    /// /64s of peers that routers are asked about, and the last sweep that found them needed.
    asked: HashMap<u64, u32>,
    wishes: VecDeque<RouteWish>,
    sweep: u32,
    /// Where it is.
    swept: Option<usize>,
    sweep_at: Option<Instant>,
}

/// The path's place in the table.
fn place(path: PathKey) -> (u64, u64) {
    (u64::from_be_bytes(path.peer), u64::from_be_bytes(path.local))
}

impl Routes {
    /// Whether packets are to stay off a path for what routers say of it.
    pub(super) fn holds(&self, path: PathKey) -> bool {
        let standing = self.hints.get(&place(path)).map(|hint| hint.standing);
        matches!(standing, Some(Standing::Held | Standing::Back))
    }

    fn is_distrusted(&self, now: Instant, provider: &str) -> bool {
        self.trust.get(provider).and_then(Trust::until).is_some_and(|until| now < until)
    }

    /// A path is tested then, or not at all, whatever was to be.
    fn test_at(&mut self, at: Option<Instant>, path: PathKey) {
        let Some(hint) = self.hints.get_mut(&place(path)) else { return };
        if let Some(before) = std::mem::replace(&mut hint.due, at) {
            self.due.remove(&(before, path));
        }
        self.due.extend(at.map(|at| (at, path)));
    }

    /// Somebody needs to know about a /64. False if too many are asked about already.
    fn ask(&mut self, peer: u64) -> bool {
        if self.asked.len() >= ASKED_MAX && !self.asked.contains_key(&peer) {
            return false;
        }
        if self.asked.insert(peer, self.sweep).is_none() {
            self.wishes.push_back(RouteWish::Ask(peer));
        }
        true
    }

    /// What was told of a path is so no longer, or other things are told.
    fn set(&mut self, path: PathKey, hint: Option<Hint>) {
        self.test_at(None, path);
        match hint {
            Some(hint) => _ = self.hints.insert(place(path), hint),
            None => _ = self.hints.remove(&place(path)),
        }
    }
}

/// What routers say.
impl Engine {
    /// Routers will tell about routes, so the engine asks about those of its peers.
    pub fn expect_routes(&mut self, now: Instant) {
        self.routes.wanted = true;
        // There may be contexts already.
        self.routes.sweep_at.get_or_insert(now);
    }

    /// The next thing to ask routers; to be put back if there is no room for it.
    pub fn next_route_wish(&mut self) -> Option<RouteWish> {
        self.routes.wishes.pop_front()
    }

    /// There was no room to ask.
    pub fn route_wish_waits(&mut self, wish: RouteWish) {
        self.routes.wishes.push_front(wish);
    }

    /// A provider has lost its route to a peer's /64, or has one again, or nothing is known any more.
    pub fn route_changed(
        &mut self,
        now: Instant,
        provider: &Arc<str>,
        peer: u64,
        lost: bool,
        effects: &mut Vec<Effect>,
    ) {
        if !lost {
            return self.route_is_back(now, provider, peer, effects);
        }
        let there = self.providers.iter().filter(|it| it.exists() && *it.name == **provider);
        let paths: Vec<PathKey> =
            there.map(|it| PathKey { local: it.prefix.to_be_bytes(), peer: peer.to_be_bytes() }).collect();
        for path in paths {
            self.route_is_lost(now, provider, path, effects);
        }
    }

    fn route_is_lost(&mut self, now: Instant, provider: &Arc<str>, path: PathKey, effects: &mut Vec<Effect>) {
        let known = self.routes.hints.get(&place(path));
        if known.is_some_and(|hint| hint.standing != Standing::Back) || self.routes.hints.len() >= ASKED_MAX {
            return;
        }
        let believed = !self.routes.is_distrusted(now, provider);
        let standing = if believed { Standing::Held } else { Standing::Distrusted };
        self.routes.set(path, Some(Hint::new(provider, now, standing)));
        self.routes.test_at(Some(now), path);
        if believed {
            self.tally.count(Event::RoutesLost);
            // Before anything else, packets go another way.
            self.path_is_lost(now, path, effects);
            self.book.warn(path, true);
        } else {
            self.tally.count(Event::RoutesDistrusted);
            self.end_route_hold(now, path, effects);
        }
    }

    fn route_is_back(&mut self, now: Instant, provider: &Arc<str>, peer: u64, effects: &mut Vec<Effect>) {
        let of = |hint: &Hint| hint.provider == *provider && hint.standing != Standing::Back;
        let all = self.routes.hints.range((peer, 0)..=(peer, u64::MAX));
        let ended: Vec<((u64, u64), Standing)> =
            all.filter(|(_, hint)| of(hint)).map(|(at, hint)| (*at, hint.standing)).collect();
        for (at, standing) in ended {
            let path = PathKey { local: at.1.to_be_bytes(), peer: at.0.to_be_bytes() };
            self.tally.count(Event::RoutesBack);
            self.book.warn(path, false);
            self.revived(now, Sign::Path(path));
            if standing == Standing::Held && self.attached.on_path(path).next().is_some() {
                // Packets stay where they are until somebody has seen that they can go back.
                self.routes.set(path, Some(Hint::new(provider, now, Standing::Back)));
                self.routes.test_at(Some(now), path);
                continue;
            }
            self.routes.set(path, None);
            if standing == Standing::Held {
                // What was known was known of a path without a route, and nobody's packets are on it.
                self.book.forget(path);
                self.end_route_hold(now, path, effects);
            }
        }
    }

    /// Nothing that routers said keeps packets from a path any more.
    fn end_route_hold(&mut self, now: Instant, path: PathKey, effects: &mut Vec<Effect>) {
        self.book.warn(path, false);
        if self.book.seen(path, now) != Status::Dead && !self.attached.is_in_doubt(path) {
            self.path_is_back(path, effects);
        }
    }
}

/// What is seen on paths.
impl Engine {
    /// Something that was sent at `sent` over a path has arrived. That is worth more than anybody's word.
    pub(super) fn route_works(&mut self, path: PathKey, sent: Instant, now: Instant, effects: &mut Vec<Effect>) {
        let Some(hint) = self.routes.hints.get_mut(&place(path)).filter(|hint| hint.since <= sent) else { return };
        match std::mem::replace(&mut hint.standing, Standing::Overruled) {
            Standing::Overruled => return,
            Standing::Back => self.routes.set(path, None),
            Standing::Held => {
                self.tally.count(Event::RoutesOverruled);
                // A feed that puts itself right has not lied: a route may be withdrawn a moment before another one comes.
                self.routes.test_at(Some(now + CORRECTED), path);
            }
            Standing::Distrusted => {
                self.tally.count(Event::RoutesOverruled);
                self.routes.test_at(None, path);
            }
        }
        self.end_route_hold(now, path, effects);
    }

    /// A feed goes on saying what was seen not to be so.
    fn route_lied(&mut self, now: Instant, path: PathKey) {
        let Some(hint) = self.routes.hints.get(&place(path)) else { return };
        let trust = self.routes.trust.entry(Arc::clone(&hint.provider)).or_default();
        // What was said at once with a lie that is known already is the same lie.
        if trust.lied.is_none_or(|lied| hint.since > lied) {
            if trust.lied.is_some_and(|lied| now.since(lied) >= FORGIVEN) {
                trust.lies = 0;
            }
            (trust.lies, trust.lied) = (trust.lies.saturating_add(1), Some(now));
        }
    }

    /// A probe that was sent at `probed` over a path had no answer, while another one did.
    pub(super) fn route_fails(&mut self, path: PathKey, probed: Instant) {
        let Some(hint) = self.routes.hints.get_mut(&place(path)).filter(|hint| hint.since <= probed) else { return };
        if hint.standing == Standing::Back {
            // What the book of paths says of it now is true whatever routers say.
            return self.routes.set(path, None);
        }
        if hint.standing != Standing::Overruled && !std::mem::replace(&mut hint.upheld, true) {
            self.tally.count(Event::RoutesUpheld);
            if let Some(trust) = self.routes.trust.get_mut(&hint.provider) {
                trust.lies /= 2;
            }
        }
    }

    /// An acknowledgement of what a host's TCP sent over a path alone has come.
    pub(super) fn route_progressed(&mut self, now: Instant, path: PathKey, effects: &mut Vec<Effect>) {
        if self.routes.hints.contains_key(&place(path)) {
            self.route_works(path, now - ROUND_TRIP, now, effects);
        }
    }

    /// When [`Engine::expire_routes`] has something to do.
    pub(super) fn routes_deadline(&self) -> Option<Instant> {
        let test = self.routes.due.first().map(|(at, _)| (*at).max(self.budget.ready_at()));
        test.into_iter().chain(self.routes.sweep_at).min()
    }

    /// Tests that are due, and /64s nobody needs to know about any more.
    pub(super) fn expire_routes(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        for _ in 0..TESTED_PER_TURN {
            let Some((_, path)) = self.routes.due.first().copied().filter(|(at, _)| *at <= now) else { break };
            if now < self.budget.ready_at() {
                break;
            }
            self.routes.test_at(None, path);
            self.test_route(now, rng, path, effects);
        }
        if self.routes.sweep_at.is_some_and(|at| at <= now) {
            self.sweep_routes(now);
        }
    }

    /// Has some contexts on a path test it.
    fn test_route(&mut self, now: Instant, rng: &mut dyn Rng, path: PathKey, effects: &mut Vec<Effect>) {
        let Some(hint) = self.routes.hints.get(&place(path)) else { return };
        let (tests, standing) = (hint.tests, hint.standing);
        if standing == Standing::Overruled {
            return self.route_lied(now, path);
        }
        if standing == Standing::Back && tests >= BACK_TESTS {
            self.routes.set(path, None);
            return self.end_route_hold(now, path, effects);
        }
        if standing == Standing::Distrusted && tests > 0 {
            return;
        }
        // Who is believed has to be looked after at once.
        let pause = if standing == Standing::Distrusted { AGAIN } else { WITNESS_PAUSE };
        let ready = |id: &ContextId| {
            let attached = self.attached.get(id).filter(|it| it.hinted.is_none_or(|at| now.since(at) >= pause));
            let reap = attached.and_then(|attached| attached.reap.as_ref());
            reap.is_some_and(|reap| reap.state() == State::Operational) && self.carries_payload(*id)
        };
        let witnesses: Vec<ContextId> =
            self.attached.on_path(path).take(LOOKED_AT_PER_PATH).filter(ready).take(WITNESSES).collect();
        // Distrusted ones are tested by somebody once, others again and again.
        let tested = !witnesses.is_empty() || standing != Standing::Distrusted;
        if let Some(hint) = self.routes.hints.get_mut(&place(path)).filter(|_| tested) {
            hint.tests = tests.saturating_add(1);
        }
        for id in witnesses {
            if let Some(attached) = self.attached.get_mut(&id) {
                attached.hinted = None;
            }
            self.tally.count(Event::RouteWitnesses);
            self.hint(now, rng, id, effects);
        }
        self.routes.test_at(Some(now + AGAIN * (1 << tests.min(DOUBLINGS_MAX))), path);
    }
}

/// What is asked.
impl Engine {
    /// Where a context's peer may be reached is to be known.
    pub(super) fn ask_for_routes(&mut self, id: ContextId) {
        if !self.routes.wanted {
            return;
        }
        let Some(context) = self.endpoint.context(id) else { return };
        let unasked = peer_prefixes(context).filter(|prefix| !self.routes.ask(*prefix)).count();
        (0..unasked).for_each(|_| self.tally.count(Event::RoutesUnasked));
    }

    /// Goes on looking which /64s contexts have peers in.
    fn sweep_routes(&mut self, now: Instant) {
        let routes = &mut self.routes;
        let start = routes.swept.unwrap_or_else(|| {
            routes.sweep = routes.sweep.wrapping_add(1);
            0
        });
        let end = start + SWEPT_PER_TURN;
        for prefix in self.endpoint.contexts_at(start..end).flat_map(peer_prefixes) {
            routes.ask(prefix);
        }
        if end < self.endpoint.places() {
            (routes.swept, routes.sweep_at) = (Some(end), Some(now + SWEEP_PAUSE));
            return;
        }
        (routes.swept, routes.sweep_at) = (None, Some(now + SWEEP));
        let sweep = routes.sweep;
        let gone: Vec<u64> = routes.asked.extract_if(|_, seen| *seen != sweep).map(|(prefix, _)| prefix).collect();
        for peer in gone {
            routes.wishes.push_back(RouteWish::Forget(peer));
            // Nobody has a context there, so nothing is held for anybody.
            let hints: Vec<(u64, u64)> = routes.hints.range((peer, 0)..=(peer, u64::MAX)).map(|(at, _)| *at).collect();
            for at in hints {
                let path = PathKey { local: at.1.to_be_bytes(), peer: at.0.to_be_bytes() };
                routes.set(path, None);
                self.book.warn(path, false);
            }
        }
    }

    /// What routers say of a path's route, and how far that is believed; nothing if they say nothing against it.
    pub(super) fn route_in_words(&self, path: PathKey) -> Option<&'static str> {
        Some(match self.routes.hints.get(&place(path))? {
            Hint { standing: Standing::Held, upheld: true, .. } => "its route is lost, and a probe had no answer",
            Hint { standing: Standing::Held, .. } => "its route is lost, routers say",
            Hint { standing: Standing::Distrusted, .. } => "its route is lost, say routers that were wrong lately",
            Hint { standing: Standing::Overruled, .. } => "its route is lost, routers say; it works",
            Hint { standing: Standing::Back, .. } => "its route is back, and being tested",
        })
    }

    /// Providers whose feed is not believed, each with its lies and the seconds that are left.
    pub fn distrusted_feeds(&self, now: Instant) -> impl Iterator<Item = (&str, u8, u64)> {
        let left = move |trust: &Trust| trust.until().map_or(0, |until| until.since(now).as_secs());
        self.routes.trust.iter().map(move |(name, trust)| (&**name, trust.lies, left(trust)))
    }

    /// Paths that packets are kept off for what routers said.
    pub fn routes_held(&self) -> usize {
        self.routes.hints.values().filter(|hint| hint.standing == Standing::Held).count()
    }
}

/// The /64s in which a context's peer has locators.
fn peer_prefixes(context: &Context) -> impl Iterator<Item = u64> + use<> {
    let inside = |address: Ulid| address.0.segments()[0] & 0xfe00 == 0xfc00;
    let known = context.peer_locators.iter().map(|known| known.locator.0).chain([context.pair.peer.0]);
    let known = known.filter(|it| !inside(Ulid(*it)));
    let mut prefixes: Vec<u64> = known.map(|locator| (locator.to_bits() >> 64) as u64).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes.into_iter()
}
