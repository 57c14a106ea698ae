//! Which contexts should move: a pure machine that is told what is there and what time it is.
//!
//! Each class with a rule is looked at by itself, four times a second, in either direction. The rule says how much of what the
//! class carries should be on each way ([`Rule::targets`]). Nobody moves before a way is further from its target than the
//! tolerance; then the largest contexts that make neither end of the move worse go first, until what is left is a
//! quarter of the tolerance. So a context is moved only if that brings the site nearer to its target by as much as the
//! context carries twice over, and with rates that stay as they are this comes to an end. Rates do not stay as they are;
//! therefore the dead zone, the rest that everybody has after a move, and the bound on moves.
//!
//! A move that was ordered counts as done at once, so that nothing is ordered twice. Whoever is not seen where it was
//! ordered to is taken back and left alone for a while: its peer does what it likes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::billing::Meter;
use super::legs::{Legs, SETTLED};
use super::rule::{AVOIDED, NEVER, Offer, PREFERRED};
use super::{Direction, FailBack, Policy, Rule};
use crate::time::Instant;

/// From one look to the next.
const TICK: Duration = Duration::from_millis(250);
/// How long a context may take to be seen where it was ordered to.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long one is left alone that was not.
const STUBBORN: Duration = Duration::from_secs(300);
/// Everybody is swept in so many ticks, where they are no more than `SWEEP_MAX` in each.
const SWEEP_TICKS: usize = 16;
const SWEEP_MAX: usize = 16_384;
/// Classes that carry less, in octets a second, are as they are.
const WORTH: f64 = 1_000.0;
/// What is left when moving ends, as a part of the tolerance.
const SETTLE: f64 = 0.25;
/// A target may be so small that its tolerance is nothing: the least, as a part of what the class carries.
const LEAST: f64 = 0.0005;
/// Orders under way that are looked at in one tick.
const LATE_PER_TICK: usize = 4_096;
/// The least a context carries that is moved, as a part of what should be moved.
const LEAST_MOVE: f64 = 0.000_05;
/// How much more than what is wanted a context may carry if nothing smaller would do.
const OVER: f64 = 1.6;

/// What the operator wants of a way, apart from the policy; it overrides that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    #[default]
    None,
    /// Everything.
    Prefer,
    /// As little as can be.
    Avoid,
    /// That all leave it.
    Drain,
}

/// A way as it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WayState {
    /// Whether packets can be sent there.
    pub up: bool,
    /// What the operator wants of it.
    pub wish: Wish,
}

/// A context that should use another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Its place in the table.
    pub place: u32,
    /// Which of its directions.
    pub direction: Direction,
    /// The way it should use.
    pub to: u8,
}

/// Where a new context should begin, out and in; nothing where no rule says so.
pub type Placing = [Option<u8>; 2];

/// What is known of a way toward a class.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Standing {
    /// Never seen up.
    #[default]
    New,
    /// There.
    Here,
    /// Gone.
    Lost,
    /// There again, and counts from then on.
    Back(Instant),
    /// There again, for new contexts.
    Filling,
    /// There again, and not used.
    Shunned,
}

/// How a class stands in a direction, for people and tests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shares {
    /// Octets a second on each way.
    pub loads: Vec<f64>,
    /// What the rule wants there; nothing without one, or without a way.
    pub targets: Option<Vec<f64>>,
    /// Contexts on each way.
    pub contexts: Vec<u32>,
}

/// How many of what there were so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Moves that were ordered, out and in.
    pub ordered: [u64; 2],
    /// Those that were seen, out and in.
    pub done: [u64; 2],
    /// Those that were not, or were refused at once.
    pub failed: [u64; 2],
}

/// Which contexts should move.
#[derive(Debug)]
pub struct Controller {
    policy: Arc<Policy>,
    ways: Vec<WayState>,
    /// By class, then way.
    standings: Vec<Vec<Standing>>,
    legs: [Legs; 2],
    /// What was given to new contexts lately, by direction, class and way: they are not there yet.
    given: [Vec<Vec<f64>>; 2],
    /// Whether moving has begun, by direction and class.
    moving: [Vec<bool>; 2],
    /// The window each class is in.
    windows: Vec<Option<usize>>,
    meters: Vec<Meter>,
    /// Orders in the order of their times, until when they should be seen.
    late: VecDeque<(Instant, u32, Direction)>,
    /// The same time of each order that has not been seen yet: what `late` has of those before it means nothing.
    under_way: HashMap<(u32, Direction), Instant>,
    next: Instant,
    last: Instant,
    budget: f64,
    counts: Counts,
}

impl Controller {
    /// For a policy; nobody is there, and no way is up.
    pub fn new(policy: Arc<Policy>) -> Controller {
        let (classes, ways) = (policy.classes.len(), policy.ways.len());
        let legs = || Legs::new(classes, ways);
        let given = || vec![vec![0.0; ways]; classes];
        Controller {
            ways: vec![WayState::default(); ways],
            standings: vec![vec![Standing::default(); ways]; classes],
            legs: [legs(), legs()],
            given: [given(), given()],
            moving: [vec![false; classes], vec![false; classes]],
            windows: vec![None; classes],
            meters: (0..ways).map(|_| Meter::default()).collect(),
            late: VecDeque::new(),
            under_way: HashMap::new(),
            next: Instant::START,
            last: Instant::START,
            budget: 0.0,
            counts: Counts::default(),
            policy,
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// What was ordered so far, and what came of it.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The same box goes on with another policy: what is billed so far is billed, nobody is moved more often than before, and
    /// what is lost comes back as the rule of fail-back says. What is back already is used as if it had never been lost, if
    /// no time was set for that.
    pub fn follow(&mut self, old: &mut Controller) {
        let policy = self.policy.clone();
        for (way, terms) in policy.ways.iter().enumerate() {
            let before = old.policy.ways.iter().position(|it| it.prefix == terms.prefix);
            if let Some(before) = before {
                std::mem::swap(&mut self.meters[way], &mut old.meters[before]);
                self.follow_standings(way, old, before);
            }
        }
        (self.next, self.last, self.budget) = (old.next, old.last, old.budget);
    }

    /// Classes that keep their names know of a way what they knew of it before.
    fn follow_standings(&mut self, way: usize, old: &Controller, before: usize) {
        for (class, standings) in self.policy.classes.iter().zip(&mut self.standings) {
            let same = old.policy.classes.iter().position(|it| it.name == class.name);
            let Some(known) = same.map(|at| old.standings[at][before]) else { continue };
            standings[way] = match (known, class.fail_back) {
                (Standing::New, _) => Standing::New,
                (Standing::Lost, _) => Standing::Lost,
                (Standing::Back(at), FailBack::After(_)) => Standing::Back(at),
                (Standing::Here | Standing::Back(_) | Standing::Filling | Standing::Shunned, _) => Standing::Here,
            };
        }
    }

    /// A context that the controller before knew goes on here, in a class of this policy. False if it was not known, or was on
    /// a way that is none any more.
    pub fn adopt(&mut self, place: u32, class: usize, old: &Controller) -> bool {
        let Ok(class) = u8::try_from(class) else { return false };
        let ways = Direction::BOTH.map(|direction| {
            let prefix = old.policy.ways.get(usize::from(old.way_of(place, direction)?))?.prefix;
            self.policy.ways.iter().position(|terms| terms.prefix == prefix)
        });
        let [Some(out), Some(inward)] = ways else { return false };
        for ((legs, old), way) in self.legs.iter_mut().zip(&old.legs).zip([out, inward]) {
            legs.adopt(place, class, old, way as u8);
        }
        true
    }

    /// How ways are now. One that was lost and is back is used as each class's rule of fail-back says.
    pub fn set_way(&mut self, now: Instant, way: usize, state: WayState) {
        let Some(old) = self.ways.get_mut(way) else { return };
        let was = std::mem::replace(old, state);
        for (class, standings) in self.policy.classes.iter().zip(&mut self.standings) {
            let standing = &mut standings[way];
            *standing = match (state.up, *standing) {
                (true, Standing::New) => Standing::Here,
                (true, Standing::Lost) => match class.fail_back {
                    FailBack::AtOnce => Standing::Here,
                    FailBack::After(time) => Standing::Back(now + time),
                    FailBack::NewSessions => Standing::Filling,
                    FailBack::Never => Standing::Shunned,
                },
                (false, Standing::New) => Standing::New,
                (false, _) => Standing::Lost,
                // What the operator says of it in so many words ends that it is shunned.
                (true, Standing::Shunned) if was.wish != state.wish => Standing::Here,
                (true, as_it_is) => as_it_is,
            };
        }
        if was != state {
            self.next = self.next.min(now);
        }
    }

    /// The operator wants a way to be used as if it had never been lost.
    pub fn forgive(&mut self, way: usize) {
        for standing in self.standings.iter_mut().filter_map(|standings| standings.get_mut(way)) {
            if matches!(*standing, Standing::Shunned | Standing::Filling | Standing::Back(_)) {
                *standing = Standing::Here;
            }
        }
    }

    /// What the wall clock says, in seconds since 1970, UTC. Whether a window of some class began or ended with it.
    pub fn set_clock(&mut self, unix: u64) -> bool {
        let local = unix.saturating_add_signed(self.policy.utc_offset.into());
        let mut changed = false;
        for (class, window) in self.policy.classes.iter().zip(&mut self.windows) {
            let now = class.windows.at(local).map(|(at, _)| at);
            changed |= std::mem::replace(window, now) != now;
        }
        changed
    }

    fn rule(&self, class: usize, direction: Direction) -> Option<&Rule> {
        self.policy.classes.get(class)?.rule(self.windows[class], direction)
    }

    /// Whether a class uses a way at all, in a direction.
    pub fn may_use(&self, class: usize, direction: Direction, way: usize) -> bool {
        self.rule(class, direction).is_none_or(|rule| rule.tiers.get(way).is_none_or(|tier| *tier != NEVER))
    }

    /// Whether a rule says anything about a class in a direction.
    pub fn has_rule(&self, class: usize, direction: Direction) -> bool {
        self.rule(class, direction).is_some()
    }

    fn offers(&self, class: usize, direction: Direction, rule: &Rule, placing: bool) -> Vec<Offer> {
        let legs = &self.legs[direction.index()];
        let own = legs.loads(class);
        let offer = |way: usize| {
            let (state, terms) = (self.ways[way], &self.policy.ways[way]);
            let standing = match self.standings[class][way] {
                Standing::Here => true,
                Standing::Filling => true,
                Standing::Back(at) => self.last >= at,
                Standing::New | Standing::Lost | Standing::Shunned => false,
            };
            let tier = match (rule.tiers[way], state.wish) {
                (NEVER, _) => NEVER,
                (_, Wish::Prefer) => PREFERRED,
                (tier, Wish::Avoid) => tier.max(AVOIDED) + 1,
                (tier, Wish::None | Wish::Drain) => tier + 1,
            };
            let paid = if terms.percentile { terms.commit.max(self.meters[way].level()) } else { terms.commit };
            let mine = if placing { 0.0 } else { own[way] };
            Offer {
                usable: state.up && standing && state.wish != Wish::Drain && !terms.drain,
                tier,
                capacity: terms.capacity[direction.index()].unwrap_or(f64::MAX),
                cost: terms.cost,
                paid,
                taken: (legs.load_of(way) - mine).max(0.0),
            }
        };
        (0..self.ways.len()).map(offer).collect()
    }

    /// Where a new context of a class should begin: where most is missing of what new ones are to bring.
    pub fn place(&mut self, class: usize) -> Placing {
        Direction::BOTH.map(|direction| {
            let rule = self.rule(class, direction)?;
            let weights = rule.weights(&self.offers(class, direction, rule, true));
            let (legs, given) = (&self.legs[direction.index()], &self.given[direction.index()][class]);
            let (loads, counts) = (legs.loads(class), legs.counts(class));
            let total: f64 = loads.iter().sum();
            let mean = (total / f64::from(counts.iter().sum::<u32>().max(1))).max(1.0);
            let full = |way: usize| (loads[way] + (given[way] + 1.0) * mean) / weights[way];
            let ways = (0..self.ways.len()).filter(|way| weights[*way] > 0.0);
            let way = ways.min_by(|a, b| full(*a).total_cmp(&full(*b)))?;
            self.given[direction.index()][class][way] += 1.0;
            Some(way as u8)
        })
    }

    /// How many new contexts of a class are taken to be on their way to a way; for tests.
    #[cfg(test)]
    pub(crate) fn given(&self, class: usize, direction: Direction, way: usize) -> f64 {
        self.given[direction.index()][class][way]
    }

    /// A context is there. Where it came to is where it is counted.
    pub fn began(&mut self, now: Instant, place: u32, class: usize, ways: [u8; 2]) {
        let Ok(class) = u8::try_from(class) else { return };
        for (direction, way) in Direction::BOTH.into_iter().zip(ways) {
            if usize::from(way) < self.ways.len() {
                self.legs[direction.index()].begin(now, place, class, way);
                let given = &mut self.given[direction.index()][usize::from(class)][usize::from(way)];
                *given = (*given - 1.0).max(0.0);
            }
        }
    }

    /// Whether a context is known.
    pub fn knows(&self, place: u32) -> bool {
        self.legs[0].get(place).is_some()
    }

    /// A context is gone.
    pub fn ended(&mut self, place: u32) {
        self.legs.iter_mut().for_each(|legs| legs.end(place));
        for direction in Direction::BOTH {
            self.under_way.remove(&(place, direction));
        }
    }

    /// Octets a context has carried since it began, out and in.
    pub fn measured(&mut self, now: Instant, place: u32, octets: [u64; 2]) {
        for (legs, octets) in self.legs.iter_mut().zip(octets) {
            legs.measured(now, place, octets);
        }
    }

    /// A context was seen on a way.
    pub fn is_at(&mut self, place: u32, direction: Direction, way: usize) {
        let legs = &mut self.legs[direction.index()];
        let Some(leg) = legs.get(place) else { return };
        let Ok(seen) = u8::try_from(way) else { return };
        if way >= self.ways.len() {
            return;
        }
        match (leg.way() == way, leg.was == SETTLED) {
            (true, true) => {}
            (true, false) => {
                legs.order(place, SETTLED);
                self.under_way.remove(&(place, direction));
                self.counts.done[direction.index()] += 1;
            }
            // It went by itself.
            (false, true) => legs.shift(place, seen),
            // It is on its way, perhaps.
            (false, false) => legs.order(place, seen),
        }
    }

    /// A context cannot go where it was ordered to.
    pub fn refused(&mut self, now: Instant, place: u32, direction: Direction) {
        let legs = &mut self.legs[direction.index()];
        let Some(was) = legs.get(place).map(|leg| leg.was).filter(|was| *was != SETTLED) else { return };
        legs.shift(place, was);
        legs.order(place, SETTLED);
        legs.rest(now, place, STUBBORN);
        self.under_way.remove(&(place, direction));
        self.counts.failed[direction.index()] += 1;
    }

    /// The way a context should use in a direction, as far as it is known.
    pub fn way_of(&self, place: u32, direction: Direction) -> Option<u8> {
        self.legs[direction.index()].get(place).map(|leg| leg.way() as u8)
    }

    /// The class of a context, as far as it is known.
    pub fn class_of(&self, place: u32) -> Option<usize> {
        self.legs[0].get(place).map(|leg| leg.class())
    }

    /// How a class stands.
    pub fn shares(&self, class: usize, direction: Direction) -> Shares {
        let legs = &self.legs[direction.index()];
        let loads: Vec<f64> = legs.loads(class).iter().map(|load| load.max(0.0)).collect();
        let rule = self.rule(class, direction);
        let targets = rule.and_then(|rule| self.targets(class, direction, rule, loads.iter().sum()));
        Shares { loads, targets, contexts: legs.counts(class).to_vec() }
    }

    /// When [`Controller::expire`] has something to do.
    pub fn deadline(&self) -> Instant {
        self.next
    }

    /// Looks at everything if it is time to; who should move comes after what `moves` has already.
    pub fn expire(&mut self, now: Instant, moves: &mut Vec<Move>) {
        if now < self.next {
            return;
        }
        let passed = if self.last == Instant::START { TICK } else { now.since(self.last).min(Duration::from_secs(1)) };
        (self.next, self.last) = (now + TICK, now);
        let rate = f64::from(self.policy.moves_per_s);
        self.budget = (self.budget + rate * passed.as_secs_f64()).min((rate / 4.0).max(1.0));
        for legs in &mut self.legs {
            legs.sweep(now, SWEEP_TICKS, SWEEP_MAX);
        }
        for (way, meter) in self.meters.iter_mut().enumerate().filter(|(way, _)| self.policy.ways[*way].percentile) {
            meter.add(now, passed, [0, 1].map(|at| self.legs[at].load_of(way)));
        }
        self.given.iter_mut().flatten().flatten().for_each(|given| *given *= 0.5);
        self.miss(now);
        for class in 0..self.policy.classes.len() {
            for direction in Direction::BOTH {
                self.evict(now, class, direction, moves);
                self.balance(now, class, direction, moves);
            }
        }
    }

    /// Orders that nobody saw carried out are taken back.
    fn miss(&mut self, now: Instant) {
        for _ in 0..LATE_PER_TICK {
            let Some((at, place, direction)) = self.late.front().copied().filter(|(at, ..)| *at <= now) else { return };
            self.late.pop_front();
            if self.under_way.get(&(place, direction)) == Some(&at) {
                self.refused(now, place, direction);
            }
        }
    }

    fn targets(&self, class: usize, direction: Direction, rule: &Rule, demand: f64) -> Option<Vec<f64>> {
        let mut targets = rule.targets(demand, &self.offers(class, direction, rule, false))?;
        let loads = self.legs[direction.index()].loads(class);
        // Who is back for new contexts only has as much as those bring; the others share what it would have.
        let filling = |way: usize| self.standings[class][way] == Standing::Filling;
        let (mut spare, mut others) = (0.0, 0.0);
        for (way, target) in targets.iter_mut().enumerate() {
            if filling(way) && loads[way] < *target {
                spare += *target - loads[way].max(0.0);
                *target = loads[way].max(0.0);
            } else {
                others += *target;
            }
        }
        if spare > 0.0 && others > 0.0 {
            let full: Vec<bool> = (0..targets.len()).map(|way| filling(way) && targets[way] <= loads[way]).collect();
            let settled = targets.iter_mut().enumerate().filter(|(way, _)| !full[*way]);
            settled.for_each(|(_, target)| *target += spare * *target / others);
        }
        Some(targets)
    }

    /// Whoever is on a way that its class never uses leaves it, whatever it carries.
    fn evict(&mut self, now: Instant, class: usize, direction: Direction, moves: &mut Vec<Move>) {
        let Some(rule) = self.rule(class, direction) else { return };
        let counts = self.legs[direction.index()].counts(class);
        let forbidden: Vec<usize> =
            (0..self.ways.len()).filter(|way| rule.tiers[*way] == NEVER && counts[*way] > 0).collect();
        if forbidden.is_empty() {
            return;
        }
        let Some(targets) = self.targets(class, direction, rule, 1.0) else { return };
        for way in forbidden {
            while self.budget >= 1.0 {
                let legs = &self.legs[direction.index()];
                let Some(place) = legs.largest(now, class as u8, way as u8, 0.0, f64::MAX) else { break };
                let loads = legs.loads(class);
                let open = (0..targets.len()).filter(|way| targets[*way] > 0.0);
                let full = |way: &usize| loads[*way] / targets[*way];
                let Some(to) = open.min_by(|a, b| full(a).total_cmp(&full(b))) else { return };
                self.order(now, place, direction, to, moves);
            }
        }
    }

    /// Brings a class back to its targets.
    fn balance(&mut self, now: Instant, class: usize, direction: Direction, moves: &mut Vec<Move>) {
        let Some(rule) = self.rule(class, direction) else { return };
        let demand: f64 = self.legs[direction.index()].loads(class).iter().sum();
        let Some(targets) = self.targets(class, direction, rule, demand).filter(|_| demand >= WORTH) else { return };
        self.filled(class, &targets, direction);
        let tolerance = self.policy.tolerance;
        let slack = |way: usize| (targets[way] * tolerance).max(demand * LEAST);
        let off = |legs: &Legs, way: usize| legs.loads(class)[way] - targets[way];
        let source = |way: &usize| self.ways[*way].up && self.ways[*way].wish != Wish::Drain;
        let sources: Vec<usize> = (0..targets.len()).filter(source).collect();
        let legs = &self.legs[direction.index()];
        let worst = (0..targets.len()).map(|way| off(legs, way).abs() / slack(way)).fold(0.0, f64::max);
        let moving = self.moving[direction.index()][class];
        if worst < if moving { SETTLE } else { 1.0 } {
            self.moving[direction.index()][class] = false;
            return;
        }
        self.moving[direction.index()][class] = true;
        // Where there is nobody to be moved is not looked again.
        let mut tried: Vec<usize> = Vec::new();
        while self.budget >= 1.0 {
            let legs = &self.legs[direction.index()];
            let full = sources.iter().copied().filter(|way| !tried.contains(way));
            let from = full.max_by(|a, b| off(legs, *a).total_cmp(&off(legs, *b)));
            let to = (0..targets.len()).filter(|way| targets[*way] > 0.0);
            let to = to.min_by(|a, b| off(legs, *a).total_cmp(&off(legs, *b)));
            let (Some(from), Some(to)) = (from, to) else { return };
            let wanted = off(legs, from).min(-off(legs, to));
            if from == to || wanted <= slack(from).min(slack(to)) * SETTLE {
                return;
            }
            // So little that thousands of it would change nothing is not worth a message.
            let least = wanted * LEAST_MOVE;
            let found = legs.largest(now, class as u8, from as u8, least, wanted);
            let found = found.or_else(|| legs.largest(now, class as u8, from as u8, wanted, wanted * OVER));
            match found {
                Some(place) => self.order(now, place, direction, to, moves),
                None => tried.push(from),
            }
        }
    }

    /// Whoever was back for new contexts only, and has got its share by them, is as any other.
    fn filled(&mut self, class: usize, targets: &[f64], direction: Direction) {
        let loads = self.legs[direction.index()].loads(class).to_vec();
        for (way, standing) in self.standings[class].iter_mut().enumerate() {
            if *standing == Standing::Filling && loads[way] > 0.0 && loads[way] >= targets[way] * 1.001 {
                *standing = Standing::Here;
            }
        }
    }

    fn order(&mut self, now: Instant, place: u32, direction: Direction, to: usize, moves: &mut Vec<Move>) {
        let (legs, to) = (&mut self.legs[direction.index()], to as u8);
        let Some(was) = legs.get(place).map(|leg| leg.way() as u8) else { return };
        legs.order(place, was);
        legs.shift(place, to);
        legs.rest(now, place, self.policy.rest);
        self.late.push_back((now + PATIENCE, place, direction));
        self.under_way.insert((place, direction), now + PATIENCE);
        self.budget -= 1.0;
        self.counts.ordered[direction.index()] += 1;
        moves.push(Move { place, direction, to });
    }

    /// Looks through everybody; for tests.
    ///
    /// # Panics
    /// When an invariant is broken.
    pub fn selfcheck(&self) {
        self.legs.iter().for_each(Legs::selfcheck);
    }
}
