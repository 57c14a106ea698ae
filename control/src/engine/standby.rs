//! Another pair for each context, tested before it is needed, and what workers do at once when something is lost
//! (docs/decisions: path indirection).
//!
//! **The standby.** A context that is heard now and then has a pair through another provider tested: by a request that
//! says nothing, sent over that pair and answered ([`Endpoint::check_pair`](crate::shim6::Endpoint::check_pair)).
//! Only then is it the context's standby, and its worker is told. Tests have a pace of their own and wait for everybody
//! else; they are repeated rarely, and only while the context is in use. A test without answer, a probe without answer or
//! locators that changed end a standby.
//!
//! **The loss.** When a provider is down, or a path has failed for several contexts, workers are told so before anything
//! else, in one command each, and all contexts concerned that have a standby use it from the next packet on. Nothing is
//! changed in any context: their REAP machines are asked to look for another pair at the pace of probes, as ever, and a
//! context moves when a probe of its own was answered. When what was lost is back, workers are told that, and who has not
//! moved is where he was.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use dataplane::context::{Install, Loss, Losses, PathNumber, Phase, Standby};
use dataplane::wire::LocatorPair;
use dataplane::wire::shim6::Preference;
use hashbrown::HashMap;
use rand::Rng;

use super::numbers::Numbers;
use super::{Effect, Engine, Event};
use crate::reap::{PathKey, ProbeBudget, State, Status};
use crate::shim6::{Context, ContextId, State as Shim6State};
use crate::time::Instant;

/// Tests of all contexts together, per second.
const CHECKS_PER_S: u32 = 1_000;
/// Tests begun in one call, so that events of the workers never wait long.
const CHECKS_PER_TURN: usize = 64;
/// From a context's first payload to the test: most sessions are over by then and need none.
const FIRST: Duration = Duration::from_secs(2);
/// From a test that was answered to the next.
const RENEW: Duration = Duration::from_secs(600);
/// From a test that was not to one of the next pair; after `TRIED` of them twice as long each time, up to `DOUBLINGS_MAX` times.
const RETRY: Duration = Duration::from_secs(5);
const TRIED: u8 = 6;
const DOUBLINGS_MAX: u8 = 6;
/// How long an answer may take, and how often it is asked for. Where nobody has answered yet, that is once: a peer may have named
/// an address at which somebody else is.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: u8 = 3;
/// A context that has not been heard for so long is not tested: whether its current pair works is the first question.
const HEARD: Duration = Duration::from_secs(1);
/// How often paths that are lost are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What is known of a context's other pair.
#[derive(Debug)]
pub(super) struct Guard {
    /// The pair that was tested, and answered.
    pair: Option<LocatorPair>,
    /// When to test again, at the next payload after that.
    next: Instant,
    /// Stands in the queue.
    queued: bool,
    /// Tests without answer since the last with one.
    failures: u8,
}

/// All of this that is not one context's.
#[derive(Debug)]
pub(super) struct Standbys {
    /// Whether there are any.
    wanted: bool,
    /// Who is to be tested, in order.
    queue: VecDeque<ContextId>,
    /// Who is being tested.
    asked: HashMap<ContextId, Asked>,
    /// When answers are late, in order. Who has been answered meanwhile is passed over.
    late: VecDeque<(Instant, ContextId)>,
    budget: ProbeBudget,
    numbers: Numbers,
    /// What workers were told.
    losses: Losses,
    /// The paths among that, and when to look at them again.
    paths: BTreeSet<PathKey>,
    look: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    pair: LocatorPair,
    attempts: u8,
    late: Instant,
}

impl Standbys {
    pub(super) fn new(wanted: bool) -> Standbys {
        Standbys {
            wanted,
            queue: VecDeque::new(),
            asked: HashMap::new(),
            late: VecDeque::new(),
            budget: ProbeBudget::new(CHECKS_PER_S, CHECKS_PER_S / 10),
            numbers: Numbers::default(),
            losses: Losses::default(),
            paths: BTreeSet::new(),
            look: None,
        }
    }

    /// What is held on behalf of contexts, table by table.
    pub(super) fn leftovers(&self) -> [(&'static str, usize); 2] {
        [("tests of other pairs", self.asked.len()), ("numbers of paths", self.numbers.len())]
    }

    /// Whether nothing of what a context would do over a pair of this provider and path would come to anything.
    fn is_lost(&self, provider: u8, path: PathNumber) -> bool {
        self.losses.concern(provider, path)
    }
}

/// Tests.
impl Engine {
    /// Payload of a context came: it is worth a standby, and a test of it when that is due.
    pub(super) fn guard(&mut self, now: Instant, id: ContextId) {
        // A test that is under way ends by an answer or by being late.
        if !self.standbys.wanted || self.standbys.asked.contains_key(&id) || self.goals.has(id) {
            return;
        }
        let Some(context) = self.endpoint.context(id) else { return };
        let Some(attached) = self.attached.get(&id) else { return };
        let due = match attached.guard.as_deref() {
            None => false,
            Some(guard) if guard.queued => return,
            Some(guard) => now >= guard.next || guard.pair.is_some_and(|pair| !self.may_stand_by(context, pair)),
        };
        let Some(attached) = self.attached.get_mut(&id) else { return };
        let guard = attached
            .guard
            .get_or_insert_with(|| Box::new(Guard { pair: None, next: now + FIRST, queued: false, failures: 0 }));
        if due {
            guard.queued = true;
            self.standbys.queue.push_back(id);
        }
    }

    /// When [`Engine::expire_standbys`] has something to do.
    pub(super) fn standbys_deadline(&self) -> Option<Instant> {
        let standbys = &self.standbys;
        let next = (!standbys.queue.is_empty() && !self.is_busy()).then(|| standbys.budget.ready_at());
        [next, standbys.late.front().map(|(at, _)| *at), standbys.look].into_iter().flatten().min()
    }

    /// Whether there is anything that comes before tests of pairs nobody uses.
    fn is_busy(&self) -> bool {
        self.attached.in_doubt() > 0 || !self.waiting.is_empty() || self.round.is_under_way() || self.revival.is_paced()
    }

    /// Tests that are due, or late, and paths that may be there again.
    pub(super) fn expire_standbys(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        if self.standbys.look.is_some_and(|look| look <= now) {
            self.look_at_paths(now, effects);
        }
        while let Some((_, id)) = self.standbys.late.front().copied().filter(|(at, _)| *at <= now) {
            self.standbys.late.pop_front();
            self.check_late(now, rng, id, effects);
        }
        for _ in 0..CHECKS_PER_TURN {
            if self.standbys.queue.is_empty() || self.is_busy() || !self.standbys.budget.take(now) {
                return;
            }
            let Some(id) = self.standbys.queue.pop_front() else { return };
            self.check(now, rng, id, effects);
        }
    }

    /// Asks the peer of a context whether another pair works.
    fn check(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, effects: &mut Vec<Effect>) {
        if self.goals.has(id) {
            // One question at a time; this one comes again with the next payload.
            if let Some(guard) = self.attached.get_mut(&id).and_then(|attached| attached.guard.as_deref_mut()) {
                (guard.queued, guard.next) = (false, now + RETRY);
            }
            return;
        }
        let pair = self.pair_to_check(now, id);
        let context = self.endpoint.context(id);
        let standing =
            self.attached.get(&id).and_then(|attached| attached.guard.as_deref()).and_then(|guard| guard.pair);
        let stale = standing.is_some_and(|pair| context.is_none_or(|context| !self.may_stand_by(context, pair)));
        let Some(attached) = self.attached.get_mut(&id) else { return };
        let heard = attached.heard.is_some_and(|heard| now.since(heard) < HEARD);
        let Some(guard) = attached.guard.as_deref_mut() else { return };
        guard.queued = false;
        guard.next = now + RETRY;
        if stale {
            // It is what the context uses now, or no pair of its own any more.
            (guard.pair, guard.failures) = (None, 0);
        }
        let Some(pair) = pair else {
            // Nothing to be tested is as good as a test without answer.
            return self.unguard(now, rng, id, None, effects);
        };
        let mut out = Vec::new();
        if !heard || !self.endpoint.check_pair(rng, id, pair, &mut out) {
            return;
        }
        // Not before this test has come to an end.
        guard.next = now + PATIENCE * (u32::from(ATTEMPTS) + 1);
        self.tally.count(Event::StandbyTests);
        let late = now + PATIENCE;
        self.standbys.asked.insert(id, Asked { pair, attempts: 1, late });
        self.standbys.late.push_back((late, id));
        dataplane::mutant!(StandbyUntested, {
            let _ = self.endpoint.set_probed(id, pair.peer, true);
            self.guarded(now, rng, id, pair, effects);
        });
        self.follow(now, rng, out, effects);
    }

    /// The next pair to be tested as standby of a context: the one it has, or else the best through another provider, to
    /// another locator of the peer where that makes no difference otherwise.
    fn pair_to_check(&self, now: Instant, id: ContextId) -> Option<LocatorPair> {
        let context = self.endpoint.context(id).filter(|context| context.state == Shim6State::Established)?;
        let attached = self.attached.get(&id)?;
        let reap = attached.reap.as_ref().filter(|reap| reap.state() == State::Operational)?;
        let guard = attached.guard.as_deref()?;
        let usable = |pair: &LocatorPair| {
            let up = self.provider_of(pair.local.0).is_some_and(|(_, provider)| provider.is_up());
            // What routers say is no reason not to look.
            up && self.is_candidate(context, *pair) && self.book.seen(PathKey::of(*pair), now) < Status::Suspect
        };
        if let Some(pair) = guard.pair.filter(|pair| usable(pair)) {
            return Some(pair);
        }
        let mut pairs: Vec<LocatorPair> = reap.probeable().filter(usable).collect();
        // Best first otherwise: the order is kept.
        pairs.sort_by_key(|pair| pair.peer == context.pair.peer);
        let at = usize::from(guard.failures).checked_rem(pairs.len())?;
        pairs.get(at).copied()
    }

    /// Whether a pair could be tested as standby of a context.
    fn is_candidate(&self, context: &Context, pair: LocatorPair) -> bool {
        let (ours, current) = (self.provider_of(pair.local.0), self.provider_of(context.pair.local.0));
        let elsewhere = ours.zip(current).is_some_and(|((at, ours), (current, _))| {
            at != current && !ours.is_unwelcome() && !self.is_going(context.ulids.local, pair.local)
        });
        let theirs = context.peer_locator(pair.peer.0);
        let proved = theirs.is_some_and(|known| known.verified && known.preference.flags & Preference::BROKEN == 0);
        elsewhere && proved && context.host.has(pair.local.0)
    }

    /// Whether a pair that was tested may serve as standby of a context as that is now.
    fn may_stand_by(&self, context: &Context, pair: LocatorPair) -> bool {
        self.is_candidate(context, pair) && context.peer_locator(pair.peer.0).is_some_and(|known| known.usable())
    }

    /// Whoever is tested for a standby is asked something else now.
    pub(super) fn end_standby_test(&mut self, id: ContextId) {
        self.standbys.asked.remove(&id);
        self.endpoint.end_check(id);
    }

    /// An answer is late: it is asked for again, or the pair does not work.
    fn check_late(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, effects: &mut Vec<Effect>) {
        let Some(asked) = self.standbys.asked.get_mut(&id).filter(|asked| asked.late <= now) else { return };
        let pair = asked.pair;
        let known = self.endpoint.context(id).and_then(|context| context.peer_locator(pair.peer.0));
        let attempts = if known.is_some_and(|known| known.probed) { ATTEMPTS } else { 1 };
        let mut out = Vec::new();
        if !self.endpoint.is_checking(id) {
            // News has taken its place, or the context itself has to be found again. Neither says anything of the pair.
            self.standbys.asked.remove(&id);
            self.endpoint.end_check(id);
        } else if asked.attempts < attempts && self.endpoint.check_again(id, &mut out) {
            (asked.attempts, asked.late) = (asked.attempts + 1, now + PATIENCE);
            self.standbys.late.push_back((now + PATIENCE, id));
            self.standbys.budget.charge(now, 1);
        } else {
            self.standbys.asked.remove(&id);
            self.endpoint.end_check(id);
            self.unguard(now, rng, id, Some(pair), effects);
        }
        self.follow(now, rng, out, effects);
    }

    /// The peer has answered: the pair works, and is the context's standby.
    pub(super) fn guarded(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        pair: LocatorPair,
        effects: &mut Vec<Effect>,
    ) {
        let asked = self.standbys.asked.remove(&id);
        self.tally.count(Event::StandbyTested);
        self.book.confirmed(PathKey::of(pair), now);
        if let Some(Asked { attempts, late, .. }) = asked {
            self.route_works(PathKey::of(pair), late - PATIENCE * u32::from(attempts), now, effects);
        }
        self.path_is_back(PathKey::of(pair), effects);
        let Some(guard) = self.attached.get_mut(&id).and_then(|attached| attached.guard.as_deref_mut()) else { return };
        (guard.pair, guard.failures, guard.next) = (Some(pair), 0, now + spread(rng, RENEW));
        self.sync(id, effects);
    }

    /// A test had no answer, or there is none to be made: another one later.
    fn unguard(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        pair: Option<LocatorPair>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(guard) = self.attached.get_mut(&id).and_then(|attached| attached.guard.as_deref_mut()) else { return };
        guard.next = now + spread(rng, RETRY * (1 << guard.failures.saturating_sub(TRIED).min(DOUBLINGS_MAX)));
        guard.failures = guard.failures.saturating_add(1);
        if pair.is_some() {
            self.tally.count(Event::StandbyUnanswered);
        }
        if let Some(pair) = pair {
            self.doubt_carriage(now, rng, id, pair, true, effects);
            self.pair_failed(id, pair, effects);
        }
    }

    /// A pair failed for a context: it is not its standby any more.
    pub(super) fn pair_failed(&mut self, id: ContextId, pair: LocatorPair, effects: &mut Vec<Effect>) {
        let Some(guard) = self.attached.get_mut(&id).and_then(|attached| attached.guard.as_deref_mut()) else { return };
        if guard.pair == Some(pair) {
            guard.pair = None;
            self.sync(id, effects);
        }
    }
}

/// What workers are told of contexts.
impl Engine {
    /// The standby of a context for its worker, and the number of its path.
    pub(super) fn standby_for_worker(&mut self, id: ContextId, phase: Phase) -> (PathNumber, Option<Standby>) {
        let nothing = (PathNumber::NONE, None);
        let Some(context) = self.endpoint.context(id).filter(|_| phase == Phase::Live) else { return nothing };
        let Some(attached) = self.attached.get(&id) else { return nothing };
        let pair = attached.guard.as_deref().and_then(|guard| guard.pair);
        let Some(locators) = pair.filter(|pair| self.may_stand_by(context, *pair)) else { return nothing };
        let Some((provider, _)) = self.provider_of(locators.local.0) else { return nothing };
        let (narrow, current) = (attached.narrow == Some(locators), context.pair);
        let udp = self.goes_in_udp(context, locators);
        let numbers = &mut self.standbys.numbers;
        let (path, other) = (numbers.give(PathKey::of(current)), numbers.give(PathKey::of(locators)));
        (path, Some(Standby { locators, provider: provider as u8, path: other, narrow, udp }))
    }

    /// A worker is told of a context anew: the numbers of paths that the old entry named may be free.
    pub(super) fn renumber(&mut self, old: Option<&Install>, new: Option<&Install>, effects: &mut Vec<Effect>) {
        let named = |install: Option<&Install>| {
            let standby = install.and_then(|install| install.standby.map(|standby| (install.path, standby.path)));
            standby.map_or([PathNumber::NONE; 2], |(path, other)| [path, other])
        };
        let (old, new) = (named(old), named(new));
        if old == new {
            return;
        }
        if new.contains(&PathNumber::NONE) && new != [PathNumber::NONE; 2] {
            self.tally.count(Event::PathUnnumbered);
        }
        for number in new {
            self.standbys.numbers.hold(number);
            // A path may have come to be lost while it had no number, or another one.
            if self.standbys.numbers.path(number).is_some_and(|path| self.standbys.paths.contains(&path)) {
                self.set_lost(Loss::Path(number), true, effects);
            }
        }
        for number in old {
            if self.standbys.numbers.release(number) {
                // The next path with this number is not lost.
                self.set_lost(Loss::Path(number), false, effects);
            }
        }
    }

    /// The pair a context's payload goes over, as its worker sees it.
    pub(super) fn pair_in_use(&self, id: ContextId) -> Option<LocatorPair> {
        let context = self.endpoint.context(id)?;
        let entry = self.attached.get(&id).and_then(|attached| attached.installed.as_ref());
        let standby = entry.and_then(|entry| {
            let standby = entry.standby.as_ref().filter(|_| self.standbys.is_lost(entry.provider, entry.path))?;
            (!self.standbys.is_lost(standby.provider, standby.path)).then_some(standby.locators)
        });
        Some(standby.unwrap_or(context.pair))
    }
}

/// What is lost.
impl Engine {
    /// An exploration has shown what works now. Whoever stays on a pair that others, or its link, say is lost knows better, and
    /// has its packets there again.
    pub(super) fn end_detour(&mut self, id: ContextId, effects: &mut Vec<Effect>) {
        let current = self.endpoint.context(id).map(|context| context.pair);
        if let Some(detour) = self.pair_in_use(id).filter(|pair| Some(*pair) != current) {
            self.pair_failed(id, detour, effects);
        }
    }

    /// Whether workers were told that something is lost.
    pub(super) fn is_lost(&self, loss: Loss) -> bool {
        self.standbys.wanted && self.standbys.losses.has(loss)
    }

    /// Tells workers that something is lost, or is back, if that is news to them.
    pub(super) fn set_lost(&mut self, loss: Loss, lost: bool, effects: &mut Vec<Effect>) {
        if self.standbys.wanted && self.standbys.losses.has(loss) != lost {
            self.standbys.losses.set(loss, lost);
            effects.push(Effect::Lose(loss, lost));
        }
    }

    /// A path has failed for several contexts: all others on it need not wait until they are asked.
    pub(super) fn path_is_lost(&mut self, now: Instant, path: PathKey, effects: &mut Vec<Effect>) {
        if !self.standbys.wanted {
            return;
        }
        self.standbys.paths.insert(path);
        self.standbys.look.get_or_insert(now + LOOK);
        if let Some(number) = self.standbys.numbers.find(path) {
            self.set_lost(Loss::Path(number), true, effects);
        }
    }

    /// A probe was answered on a path.
    pub(super) fn path_is_back(&mut self, path: PathKey, effects: &mut Vec<Effect>) {
        if self.standbys.paths.remove(&path)
            && let Some(number) = self.standbys.numbers.find(path)
        {
            self.set_lost(Loss::Path(number), false, effects);
        }
    }

    /// Evidence against paths that is too old to count ends their loss, when all who are on them have been asked.
    pub(super) fn look_at_paths(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let dead = |path: &PathKey| {
            let lost = self.attached.is_in_doubt(*path) || self.routes.holds(*path);
            lost || self.book.status(*path, now) == Status::Dead
        };
        let back: Vec<PathKey> = self.standbys.paths.iter().filter(|path| !dead(path)).copied().collect();
        for path in back {
            self.path_is_back(path, effects);
        }
        self.standbys.look = (!self.standbys.paths.is_empty()).then_some(now + LOOK);
    }
}

/// Three quarters to five quarters of a time, so that contexts do not march in step.
fn spread(rng: &mut dyn Rng, time: Duration) -> Duration {
    time.mul_f64(0.75 + 0.5 * f64::from(rng.next_u32()) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use dataplane::wire::Ulid;
    use dataplane::wire::shim6::{Message, Options};

    use super::*;
    use crate::shim6::Incoming;
    use crate::sim::{Plan, World};

    /// A context with a standby at the first site, and the world around it.
    fn guarded() -> (World, ContextId) {
        let mut world = World::new(&Plan::default(), 1);
        world.stream(0, 1, Duration::from_millis(20));
        world.stream(1, 0, Duration::from_millis(20));
        world.run(Duration::from_secs(6));
        let host = Ulid(world.hosts[0].ulid);
        let id = world.nodes[0].engine.endpoint.contexts_of(host).next().unwrap().id;
        (world, id)
    }

    fn installed(engine: &Engine, id: ContextId) -> Install {
        engine.attached.get(&id).and_then(|attached| attached.installed.clone()).unwrap()
    }

    fn guard(engine: &Engine, id: ContextId) -> Option<LocatorPair> {
        engine.attached.get(&id).and_then(|attached| attached.guard.as_deref()).and_then(|guard| guard.pair)
    }

    #[test]
    fn a_path_that_is_lost_is_so_under_every_number_it_gets() {
        let (mut world, id) = guarded();
        let (now, engine) = (world.now, &mut world.nodes[0].engine);
        let old = installed(engine, id);
        let path = PathKey::of(old.locators);
        let mut effects = Vec::new();
        engine.path_is_lost(now, path, &mut effects);
        engine.renumber(Some(&old), None, &mut effects);
        let lost = |effects: &mut Vec<Effect>| {
            let lost = effects.drain(..).filter_map(|effect| match effect {
                Effect::Lose(Loss::Path(number), lost) => Some((number, lost)),
                _ => None,
            });
            lost.collect::<Vec<_>>()
        };
        assert_eq!(lost(&mut effects), [(old.path, true), (old.path, false)]);
        // Somebody else's number comes between, so that the path gets another one.
        let numbers = &mut engine.standbys.numbers;
        let other = numbers.give(PathKey { local: [1; 8], peer: [2; 8] });
        numbers.hold(other);
        let new = Install { path: numbers.give(path), ..old.clone() };
        engine.renumber(None, Some(&new), &mut effects);
        assert_eq!(lost(&mut effects), [(new.path, true)]);
        engine.path_is_back(path, &mut effects);
        assert_eq!(lost(&mut effects), [(new.path, false)]);
        // One that had no number when it was lost.
        engine.renumber(Some(&new), None, &mut effects);
        engine.path_is_lost(now, path, &mut effects);
        let new = Install { path: engine.standbys.numbers.give(path), ..old };
        engine.renumber(None, Some(&new), &mut effects);
        assert_eq!(lost(&mut effects), [(new.path, true)]);
    }

    /// Whether a standby outlives a test nobody answers, begun after `before`.
    fn outlives_silence(before: impl FnOnce(&mut Engine, Instant, &mut rand::rngs::StdRng, ContextId)) -> bool {
        let (mut world, id) = guarded();
        let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(1);
        let (mut now, engine) = (world.now, &mut world.nodes[0].engine);
        let standby = guard(engine, id);
        assert!(standby.is_some());
        let mut effects = Vec::new();
        engine.check(now, &mut rng, id, &mut effects);
        assert!(engine.standbys.asked.contains_key(&id));
        before(engine, now, &mut rng, id);
        for _ in 0..=ATTEMPTS {
            now = now + PATIENCE;
            engine.check_late(now, &mut rng, id, &mut effects);
        }
        assert!(!engine.standbys.asked.contains_key(&id));
        guard(engine, id) == standby
    }

    #[test]
    fn what_comes_between_a_test_and_its_answer_does_not_end_a_standby() {
        assert!(!outlives_silence(|_, _, _, _| ()));
        // The peer has lost the context, and says so (RFC 5533 §7.17): it cannot answer on any pair.
        assert!(outlives_silence(|engine, now, rng, id| {
            let context = engine.endpoint.context(id).unwrap();
            let addresses = super::super::context::along(context.pair).swapped();
            let options = Options { validator: Some(vec![7; 20]), ..Options::default() };
            let message = Message::R1bis { packet_tag: context.peer_tag.unwrap(), responder_nonce: 9, options };
            let packet = [0; 40];
            let incoming = Incoming { addresses, message: Ok(&message), ipv6_packet: &packet, shim6_offset: 40 };
            engine.endpoint.receive(now, rng, incoming, &mut Vec::new());
            assert_eq!(engine.endpoint.context(id).unwrap().state, Shim6State::I2bisSent);
        }));
    }
}
