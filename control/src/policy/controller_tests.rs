//! The controller by itself: what it orders, what it never orders, and how much at a time.

use std::sync::Arc;
use std::time::Duration;

use super::controller::Wish;
use super::tests::parse;
use super::*;
use crate::time::Instant;

/// A controller, its contexts' octets, and the time.
struct Bench {
    controller: Controller,
    now: Instant,
    /// By context: octets a second out and in, octets so far, and the ways it is really on.
    contexts: Vec<([f64; 2], [f64; 2], [u8; 2])>,
    /// Whether contexts do what they are told.
    obedient: bool,
    moves: Vec<Move>,
}

impl Bench {
    fn new(text: &str) -> Bench {
        let policy = Arc::new(parse(text).unwrap_or_else(|problems| panic!("{problems}")));
        let mut bench = Bench {
            controller: Controller::new(policy),
            now: Instant::from_millis(10_000),
            contexts: Vec::new(),
            obedient: true,
            moves: Vec::new(),
        };
        (0..3).for_each(|way| bench.set(way, true, Wish::None));
        bench
    }

    fn set(&mut self, way: usize, up: bool, wish: Wish) {
        self.controller.set_way(self.now, way, WayState { up, wish });
        for (place, (.., on)) in self.contexts.iter_mut().enumerate() {
            for direction in Direction::BOTH {
                // REAP takes them elsewhere: to the first that is left.
                if !up && usize::from(on[direction.index()]) == way {
                    on[direction.index()] = u8::from(way == 0);
                    self.controller.is_at(place as u32, direction, usize::from(way == 0));
                }
            }
        }
    }

    fn add(&mut self, rate: f64, way: u8) {
        let place = self.contexts.len() as u32;
        self.contexts.push(([rate; 2], [0.0; 2], [way; 2]));
        self.controller.began(self.now, place, self.controller.policy().classes.len() - 1, [way; 2]);
        self.controller.measured(self.now, place, [0; 2]);
    }

    /// Time passes; how many moves were ordered meanwhile.
    fn run(&mut self, seconds: u64) -> usize {
        let before = self.moves.len();
        for _ in 0..seconds * 4 {
            self.now = self.now + Duration::from_millis(250);
            for (place, (rate, octets, on)) in self.contexts.iter_mut().enumerate() {
                for (octets, rate) in octets.iter_mut().zip(*rate) {
                    *octets += rate / 4.0;
                }
                self.controller.measured(self.now, place as u32, octets.map(|it| it as u64));
                for direction in Direction::BOTH {
                    self.controller.is_at(place as u32, direction, on[direction.index()].into());
                }
            }
            let mut moves = Vec::new();
            self.controller.expire(self.now, &mut moves);
            for it in moves {
                if self.obedient {
                    self.contexts[it.place as usize].2[it.direction.index()] = it.to;
                }
                self.moves.push(it);
            }
        }
        self.controller.selfcheck();
        self.moves.len() - before
    }

    /// Contexts that are out on each way.
    fn out(&self) -> [usize; 3] {
        [0, 1, 2].map(|way| self.contexts.iter().filter(|(.., on)| on[0] == way).count())
    }
}

const EQUAL: &str = "{\"version\": 1, \"default\": {\"both\": {}}}";

#[test]
fn what_is_in_one_place_is_spread_and_then_left_alone() {
    let mut bench = Bench::new(EQUAL);
    (0..30).for_each(|_| bench.add(10_000.0, 0));
    assert_eq!(bench.run(10), 40, "two thirds of both directions");
    assert_eq!(bench.out(), [10, 10, 10]);
    assert_eq!(bench.run(600), 0);
    assert_eq!(bench.controller.counts().done, [20, 20]);
}

#[test]
fn the_largest_that_fits_goes_first() {
    let mut bench =
        Bench::new("{\"version\": 1, \"default\": {\"out\": {\"split\": {\"weights\": {\"one\": 1, \"two\": 1}}}}}");
    // What is too much is 99.5 kB/s; one context carries nearly as much.
    bench.add(99_000.0, 0);
    (0..100).for_each(|_| bench.add(1_000.0, 0));
    bench.run(10);
    assert_eq!(bench.moves, [Move { place: 0, direction: Direction::Out, to: 1 }]);
}

#[test]
fn what_cannot_be_shared_is_not_tried_for_ever() {
    let mut bench = Bench::new(EQUAL);
    // One carries nearly everything, and wherever it is there is too much.
    bench.add(1_000_000.0, 0);
    bench.add(1_000.0, 0);
    assert!(bench.run(600) <= 4, "{:?}", bench.moves);
}

#[test]
fn no_more_move_in_a_second_than_may() {
    let mut bench = Bench::new("{\"version\": 1, \"limits\": {\"moves_per_s\": 20}, \"default\": {\"both\": {}}}");
    (0..3000).for_each(|_| bench.add(1_000.0, 0));
    for _ in 0..10 {
        let moved = bench.run(1);
        assert!(moved <= 25, "{moved}");
    }
}

#[test]
fn who_does_not_obey_is_asked_once_and_left_alone() {
    let mut bench = Bench::new(EQUAL);
    bench.obedient = false;
    (0..6).for_each(|_| bench.add(10_000.0, 0));
    let asked = bench.run(60);
    assert!((8..=12).contains(&asked), "{asked}: each at most once in each direction");
    assert_eq!(bench.controller.counts().failed.iter().sum::<u64>(), asked as u64);
    assert_eq!(bench.run(120), 0);
    bench.obedient = true;
    bench.run(300);
    assert_eq!(bench.out(), [2, 2, 2], "some minutes later they are asked again");
}

#[test]
fn a_window_has_rules_of_its_own() {
    let mut bench = Bench::new(
        "{\"version\": 1, \"utc_offset\": \"+02:00\", \"default\": {\"out\": {\"split\": {\"weights\": {\"one\": 1}}},
          \"windows\": [{\"days\": [\"mon\"], \"from\": \"08:00\", \"to\": \"09:00\", \"out\": {\"pin\": \"two\"}}]}}",
    );
    const MONDAY: u64 = 1_795_392_000;
    (0..4).for_each(|_| bench.add(10_000.0, 0));
    for (hour, expected) in [(5, [4, 0, 0]), (6, [0, 4, 0]), (7, [4, 0, 0])] {
        bench.controller.set_clock(MONDAY + hour * 3600);
        bench.run(30);
        assert_eq!(bench.out(), expected, "at {hour} o'clock UTC");
    }
}

#[test]
fn the_operator_goes_before_the_policy() {
    let mut bench = Bench::new(EQUAL);
    (0..6).for_each(|_| bench.add(10_000.0, 0));
    bench.set(2, true, Wish::Avoid);
    bench.run(30);
    assert_eq!(bench.out(), [3, 3, 0]);
    bench.set(2, true, Wish::Prefer);
    bench.run(30);
    assert_eq!(bench.out(), [0, 0, 6]);
    bench.set(2, true, Wish::None);
    bench.run(30);
    assert_eq!(bench.out(), [2, 2, 2]);
}

#[test]
fn a_month_that_costs_more_already_is_used() {
    let text = "{\"version\": 1, \"limits\": {\"rest_s\": 1}, \"providers\": {
        \"one\": {\"capacity_mbps\": 8, \"cost\": 1}, \"three\": {\"capacity_mbps\": 8, \"cost\": 9},
        \"two\": {\"capacity_mbps\": 8, \"cost\": 5, \"commit_mbps\": 0, \"billing\": \"percentile_95\"}},
        \"default\": {\"out\": {\"split\": {\"cheapest_first\": {\"fill_percent\": 100}}}}}";
    let mut bench = Bench::new(text);
    (0..8).for_each(|_| bench.add(100_000.0, 0));
    bench.run(20);
    assert_eq!(bench.out(), [8, 0, 0], "the cheapest has room");
    bench.set(0, false, Wish::None);
    bench.run(700);
    assert_eq!(bench.out(), [0, 8, 0]);
    bench.set(0, true, Wish::None);
    bench.run(30);
    assert_eq!(bench.out(), [0, 8, 0], "this month that costs nothing more");
}

#[test]
fn another_policy_goes_on_with_what_is_known() {
    let mut bench = Bench::new(EQUAL);
    (0..30).for_each(|at| bench.add(f64::from(at) * 1_000.0, (at % 3) as u8));
    bench.run(20);
    let text = "{\"version\": 1, \"default\": {\"both\": {\"never\": [\"one\"]}}}";
    let mut next = Controller::new(Arc::new(parse(text).unwrap()));
    std::mem::swap(&mut next, &mut bench.controller);
    bench.controller.follow(&mut next);
    (0..3).for_each(|way| bench.set(way, true, Wish::None));
    assert!((0..30).all(|place| bench.controller.adopt(place, 0, &next)));
    let known = next.shares(0, Direction::Out).loads.iter().sum::<f64>();
    let adopted = bench.controller.shares(0, Direction::Out).loads.iter().sum::<f64>();
    assert!((known - adopted).abs() < 1.0, "{known} {adopted}");
    bench.run(30);
    assert_eq!(bench.out()[0], 0, "idle ones too");
}

#[test]
fn an_order_is_not_taken_back_because_one_before_it_is_old() {
    let text = "{\"version\": 1, \"limits\": {\"rest_s\": 1}, \"default\": {\"both\": {}}}";
    for reused in [false, true] {
        let mut bench = Bench::new(text);
        bench.add(10_000.0, 0);
        bench.set(0, true, Wish::Avoid);
        bench.set(1, true, Wish::Avoid);
        assert_eq!(bench.run(5), 2);
        assert_eq!(bench.contexts[0].2, [2, 2]);
        if reused {
            bench.controller.ended(0);
            bench.contexts.clear();
            bench.add(10_000.0, 2);
        }
        bench.obedient = false;
        bench.set(2, true, Wish::Avoid);
        bench.set(0, true, Wish::None);
        assert_eq!(bench.run(5), 2);
        assert_eq!(bench.controller.counts().failed, [0, 0], "they have three seconds left: {reused}");
        bench.run(5);
        assert_eq!(bench.controller.counts().failed, [1, 1]);
    }
}

#[test]
fn a_policy_loaded_while_a_way_is_lost_knows_that_it_is() {
    let policy = |fail_back: &str, tolerance: u32| {
        let limits = format!("{{\"tolerance_percent\": {tolerance}}}");
        parse(&format!(
            "{{\"version\": 1, \"limits\": {limits}, \"default\": {{\"both\": {{}}, \"fail_back\": {fail_back}}}}}"
        ))
        .unwrap()
    };
    for (fail_back, at_first, later) in [("\"never\"", 0, 0), ("{\"after_s\": 100}", 0, 2), ("\"at_once\"", 2, 2)] {
        let mut bench = Bench::new(EQUAL);
        bench.controller = Controller::new(Arc::new(policy(fail_back, 5)));
        (0..3).for_each(|way| bench.set(way, true, Wish::None));
        (0..6).for_each(|_| bench.add(10_000.0, 0));
        bench.run(30);
        bench.set(2, false, Wish::None);
        bench.run(30);
        let load = |bench: &mut Bench, ups: [bool; 3]| {
            let mut old = Controller::new(Arc::new(policy(fail_back, if ups[2] { 3 } else { 4 })));
            std::mem::swap(&mut old, &mut bench.controller);
            bench.controller.follow(&mut old);
            (0..3).for_each(|way| bench.set(way, ups[way], Wish::None));
            assert!((0..6).all(|place| bench.controller.adopt(place, 0, &old)));
        };
        load(&mut bench, [true, true, false]);
        bench.run(10);
        bench.set(2, true, Wish::None);
        bench.run(60);
        assert_eq!(bench.out()[2], at_first, "{fail_back}");
        bench.run(60);
        assert_eq!(bench.out()[2], later, "{fail_back}");
        // It is back, and whoever loads a policy now wants it.
        load(&mut bench, [true; 3]);
        bench.run(30);
        assert_eq!(bench.out()[2], 2, "{fail_back}");
    }
}
