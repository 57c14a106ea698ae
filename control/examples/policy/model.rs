//! A site that is made up: contexts with heavy-tailed rates that come and go, providers, and a real controller.
#![allow(dead_code, unreachable_pub, reason = "the example and the test each use their part of this")]

use std::sync::Arc;
use std::time::Duration;

use control::policy::controller::Wish;
use control::policy::{
    Class, Controller, Direction, FailBack, Move, PairMatch, Policy, Rule, Split, Terms, WayState, Windows,
};
use control::time::Instant;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// From one step to the next.
pub const STEP: Duration = Duration::from_millis(100);
/// Reports of a context are so many steps apart.
const REPORT: u64 = 5;
/// How long a context takes to be where it was ordered to: a question and an answer, and for what peers send a preference told.
const OBEYS: [Duration; 2] = [Duration::from_millis(150), Duration::from_millis(300)];
/// The tail of rates: the smaller, the more a few contexts carry.
const TAIL: f64 = 1.2;
/// The smallest rate, octets a second.
const SMALLEST: f64 = 500.0;

/// A context as it really is.
struct Truth {
    rate: [f64; 2],
    octets: [f64; 2],
    way: [u8; 2],
    under_way: [Option<(Instant, u8)>; 2],
    hash: u64,
}

/// The site.
pub struct Model {
    pub now: Instant,
    pub controller: Controller,
    pub moves: Vec<(Instant, Move, f64)>,
    contexts: Vec<Truth>,
    weights: Vec<f64>,
    up: Vec<bool>,
    /// What each direction really carries on each way.
    loads: [Vec<f64>; 2],
    rng: StdRng,
    step: u64,
    /// The part of all contexts that ends in a second, each followed by a new one.
    pub churn: f64,
    /// Whether the controller is there at all.
    pub steered: bool,
}

/// A policy of one class that shares by weights.
pub fn policy(weights: &[f64]) -> Policy {
    let way = |at: usize| Terms {
        name: format!("isp-{}", at + 1),
        prefix: at as u64,
        capacity: [None; 2],
        cost: 0.0,
        commit: 0.0,
        percentile: false,
        drain: false,
    };
    let rule =
        Rule { split: Split::Weights(weights.to_vec()), tiers: vec![control::policy::rule::ORDINARY; weights.len()] };
    Policy {
        ways: (0..weights.len()).map(way).collect(),
        classes: vec![Class {
            name: "default".into(),
            pairs: PairMatch::default(),
            packets: None,
            rules: [Some(rule.clone()), Some(rule)],
            windows: Windows::default(),
            fail_back: FailBack::AtOnce,
            a_records: None,
        }],
        moves_per_s: 500,
        tolerance: 0.005,
        rest: Duration::from_secs(15),
        utc_offset: 0,
    }
}

impl Model {
    /// Contexts that all begin now, with rates nobody knows yet.
    pub fn new(contexts: usize, weights: &[f64], steered: bool, seed: u64) -> Model {
        let mut model = Model {
            now: Instant::from_millis(1000),
            controller: Controller::new(Arc::new(policy(weights))),
            moves: Vec::new(),
            contexts: Vec::new(),
            weights: weights.to_vec(),
            up: vec![true; weights.len()],
            loads: [vec![0.0; weights.len()], vec![0.0; weights.len()]],
            rng: StdRng::seed_from_u64(seed),
            step: 0,
            churn: 0.01,
            steered,
        };
        model.tell_ways();
        for place in 0..contexts {
            let truth = model.fresh();
            model.contexts.push(truth);
            model.begin(place);
        }
        model
    }

    fn tell_ways(&mut self) {
        for (way, up) in self.up.iter().enumerate() {
            self.controller.set_way(self.now, way, WayState { up: *up, wish: Wish::None });
        }
    }

    fn uniform(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn fresh(&mut self) -> Truth {
        let rate = [0, 1].map(|_| SMALLEST * (1.0 - self.uniform()).max(1e-6).powf(-1.0 / TAIL));
        let hash = self.rng.next_u64();
        Truth { rate, octets: [0.0; 2], way: [0; 2], under_way: [None; 2], hash }
    }

    /// Where a context goes by its hash alone, among the ways that are up.
    fn by_hash(&self, truth: &Truth, direction: usize) -> u8 {
        let score = |way: usize| {
            let mixed =
                (truth.hash ^ (way as u64 + 1) << 40 ^ (direction as u64) << 60).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let part = ((mixed ^ mixed >> 32) >> 11) as f64 / (1u64 << 53) as f64;
            -self.weights[way] / part.max(1e-12).ln()
        };
        let ways = (0..self.weights.len()).filter(|way| self.up[*way] && self.weights[*way] > 0.0);
        ways.max_by(|a, b| score(*a).total_cmp(&score(*b))).unwrap_or_default() as u8
    }

    fn begin(&mut self, place: usize) {
        let hashed = [0, 1].map(|direction| self.by_hash(&self.contexts[place], direction));
        let chosen = if self.steered { self.controller.place(0) } else { [None; 2] };
        for direction in 0..2 {
            // Peers send to where they were asked from.
            let way = chosen[0].unwrap_or(hashed[if self.steered { 0 } else { direction }]);
            self.contexts[place].way[direction] = way;
            self.loads[direction][usize::from(way)] += self.contexts[place].rate[direction];
        }
        if self.steered {
            let (now, ways) = (self.now, self.contexts[place].way);
            self.controller.began(now, place as u32, 0, ways);
            self.controller.measured(now, place as u32, [0; 2]);
        }
    }

    fn shift(&mut self, place: usize, direction: usize, way: u8) {
        let truth = &mut self.contexts[place];
        let old = std::mem::replace(&mut truth.way[direction], way);
        self.loads[direction][usize::from(old)] -= truth.rate[direction];
        self.loads[direction][usize::from(way)] += truth.rate[direction];
    }

    /// The policy shares by other numbers from now on.
    pub fn set_weights(&mut self, weights: &[f64]) {
        self.weights = weights.to_vec();
        let mut next = Controller::new(Arc::new(policy(weights)));
        std::mem::swap(&mut next, &mut self.controller);
        let mut before = next;
        self.controller.follow(&mut before);
        self.tell_ways();
        for place in 0..self.contexts.len() {
            if self.steered {
                self.controller.adopt(place as u32, 0, &before);
            } else {
                // Those who are there stay where they are.
                continue;
            }
        }
    }

    /// A provider is lost or is back. Who is on it goes elsewhere at once, as standbys do, each to a place of its own choice.
    pub fn set_up(&mut self, way: usize, up: bool) {
        self.up[way] = up;
        self.tell_ways();
        if up {
            return;
        }
        for place in 0..self.contexts.len() {
            for direction in Direction::BOTH {
                let at = direction.index();
                if usize::from(self.contexts[place].way[at]) == way {
                    let to = self.by_hash(&self.contexts[place], at);
                    self.shift(place, at, to);
                    self.contexts[place].under_way[at] = None;
                    if self.steered {
                        self.controller.is_at(place as u32, direction, to.into());
                    }
                }
            }
        }
    }

    /// Time passes.
    pub fn step(&mut self) {
        self.now = self.now + STEP;
        self.step += 1;
        let ends = (self.churn * STEP.as_secs_f64() * self.contexts.len() as f64) as usize;
        for _ in 0..ends {
            let place = (self.uniform() * self.contexts.len() as f64) as usize % self.contexts.len();
            self.replace(place);
        }
        let first = (self.step % REPORT) as usize;
        for place in (first..self.contexts.len()).step_by(REPORT as usize) {
            self.report(place);
        }
        let mut moves = Vec::new();
        if self.steered {
            self.controller.expire(self.now, &mut moves);
        }
        for it in moves {
            let at = it.direction.index();
            let truth = &mut self.contexts[it.place as usize];
            truth.under_way[at] = Some((self.now + OBEYS[at], it.to));
            let rate = truth.rate[at];
            self.moves.push((self.now, it, rate));
        }
    }

    fn replace(&mut self, place: usize) {
        for direction in 0..2 {
            let (way, rate) = (self.contexts[place].way[direction], self.contexts[place].rate[direction]);
            self.loads[direction][usize::from(way)] -= rate;
        }
        if self.steered {
            self.controller.ended(place as u32);
        }
        self.contexts[place] = self.fresh();
        self.begin(place);
    }

    fn report(&mut self, place: usize) {
        // Nobody sends evenly.
        let noise = [0, 1].map(|_| 0.8 + 0.4 * self.uniform());
        let now = self.now;
        let time = STEP.as_secs_f64() * REPORT as f64;
        for direction in Direction::BOTH {
            let at = direction.index();
            let truth = &mut self.contexts[place];
            truth.octets[at] += truth.rate[at] * time * noise[at];
            if let Some((_, way)) = truth.under_way[at].take_if(|(when, _)| *when <= now)
                && self.up[usize::from(way)]
            {
                self.shift(place, at, way);
            }
            if self.steered {
                let way = self.contexts[place].way[at];
                self.controller.is_at(place as u32, direction, way.into());
            }
        }
        if self.steered {
            let octets = self.contexts[place].octets.map(|octets| octets as u64);
            self.controller.measured(now, place as u32, octets);
        }
    }

    /// The part of a direction's traffic that each way really carries.
    pub fn shares(&self, direction: Direction) -> Vec<f64> {
        let loads = &self.loads[direction.index()];
        let total: f64 = loads.iter().sum();
        loads.iter().map(|load| load / total).collect()
    }

    /// The part each should carry.
    pub fn targets(&self) -> Vec<f64> {
        let wanted = |way: usize| if self.up[way] { self.weights[way] } else { 0.0 };
        let total: f64 = (0..self.weights.len()).map(wanted).sum();
        (0..self.weights.len()).map(|way| wanted(way) / total).collect()
    }

    /// How far the way furthest from its target is, as a part of that target, in the worse direction.
    pub fn error(&self) -> f64 {
        let targets = self.targets();
        let off = |direction| {
            let pairs = self.shares(direction).into_iter().zip(&targets);
            pairs
                .map(|(share, target)| if *target > 0.0 { (share / target - 1.0).abs() } else { share })
                .fold(0.0, f64::max)
        };
        off(Direction::Out).max(off(Direction::In))
    }

    /// The same for the best that could be done with all contexts as they are now: the largest first, each to where most is missing.
    pub fn best_error(&self) -> f64 {
        let targets = self.targets();
        let mut worst: f64 = 0.0;
        for direction in 0..2 {
            let mut rates: Vec<f64> = self.contexts.iter().map(|truth| truth.rate[direction]).collect();
            let total: f64 = rates.iter().sum();
            rates.sort_by(|a, b| b.total_cmp(a));
            let mut left: Vec<f64> = targets.iter().map(|target| target * total).collect();
            for rate in rates {
                let most = (0..left.len()).max_by(|a, b| left[*a].total_cmp(&left[*b])).unwrap_or_default();
                left[most] -= rate;
            }
            let off = left.iter().zip(&targets).filter(|(_, target)| **target > 0.0);
            worst = off.map(|(left, target)| (left / (target * total)).abs()).fold(worst, f64::max);
        }
        worst
    }

    /// The fewest moves that would bring both directions within a hundredth of their targets, for who knows all rates: of each
    /// way that has too much the largest contexts go, none of them larger than what is still too much.
    pub fn fewest_moves(&self) -> usize {
        let targets = self.targets();
        let mut moves = 0;
        for direction in 0..2 {
            let total: f64 = self.loads[direction].iter().sum();
            for (way, target) in targets.iter().enumerate() {
                let (mut over, enough) = (self.loads[direction][way] - target * total, target * total * 0.01);
                if over <= enough {
                    continue;
                }
                let here = self.contexts.iter().filter(|truth| usize::from(truth.way[direction]) == way);
                let mut rates: Vec<f64> = here.map(|truth| truth.rate[direction]).collect();
                rates.sort_by(|a, b| b.total_cmp(a));
                for rate in rates {
                    if over <= enough {
                        break;
                    }
                    if rate <= over {
                        over -= rate;
                        moves += 1;
                    }
                }
            }
        }
        moves
    }
}
