//! What is known of every context in one direction: how much it carries, on which way, and whether it may be moved.
//!
//! Rates are means with a memory of some seconds, made of totals: a report that is late or missing loses nothing. Contexts of
//! a class on a way are in lists by the size of their rate, two for each doubling, so the largest that is not larger than
//! something is found without a search, however many there are. An entry takes 24 octets and its place in a list eight.

use std::time::Duration;

use crate::chains::Chains;
use crate::time::Instant;

/// The memory of a mean, in seconds; of a context that is younger the mean since it began counts.
const MEMORY_S: f64 = 4.0;
/// The same while nothing is reported.
const SILENCE_S: f64 = 1.0;
/// Reports that follow each other faster are not looked at.
const SHORTEST: u32 = 20;
/// What a sweep finds silent for so long, in ticks, carries less than was thought.
const SILENT: u32 = 100;
/// Ticks a second.
const TICKS_PER_S: u64 = 100;
/// Entries of a list looked at for one that may be moved.
const LOOKED_AT: usize = 32;
/// Nobody is here.
const NO_CLASS: u8 = u8::MAX;

/// A context in one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leg {
    /// Octets when it was looked at last.
    octets: u64,
    /// When that was, in ticks.
    at: u32,
    /// Until when it is left alone, in ticks; 0 if it is not.
    rest: u32,
    /// Octets a second.
    rate: f32,
    class: u8,
    way: u8,
    /// Where it was last seen, if it was ordered elsewhere and has not been seen there.
    pub(super) was: u8,
    /// For how long it is known, in tenths of a second; 0 as long as not even its octets are.
    age: u8,
}

const NOBODY: Leg = Leg { octets: 0, at: 0, rest: 0, rate: 0.0, class: NO_CLASS, way: 0, was: SETTLED, age: 0 };
/// Not ordered anywhere.
pub(super) const SETTLED: u8 = u8::MAX;

/// Everybody in one direction.
#[derive(Debug)]
pub(super) struct Legs {
    legs: Vec<Leg>,
    lists: Chains<(u8, u8, u8)>,
    /// By class, then way.
    loads: Vec<f64>,
    counts: Vec<u32>,
    ways: usize,
    /// Where the next sweep begins.
    sweep: usize,
}

/// Ticks wrap after more than a year; only differences count.
pub(super) fn ticks(now: Instant) -> u32 {
    (now.0.as_millis() as u64 / (1000 / TICKS_PER_S)) as u32
}

fn ticks_of(time: Duration) -> u32 {
    (time.as_millis() as u64 / (1000 / TICKS_PER_S)) as u32
}

impl Legs {
    pub(super) fn new(classes: usize, ways: usize) -> Legs {
        let cells = classes * ways;
        Legs {
            legs: Vec::new(),
            lists: Chains::default(),
            loads: vec![0.0; cells],
            counts: vec![0; cells],
            ways,
            sweep: 0,
        }
    }

    pub(super) fn get(&self, place: u32) -> Option<&Leg> {
        self.legs.get(place as usize).filter(|leg| leg.class != NO_CLASS)
    }

    /// How much a class carries on each way.
    pub(super) fn loads(&self, class: usize) -> &[f64] {
        &self.loads[class * self.ways..][..self.ways]
    }

    /// How many contexts of a class are on each way.
    pub(super) fn counts(&self, class: usize) -> &[u32] {
        &self.counts[class * self.ways..][..self.ways]
    }

    /// How much all classes carry on a way.
    pub(super) fn load_of(&self, way: usize) -> f64 {
        self.loads.iter().skip(way).step_by(self.ways).sum::<f64>().max(0.0)
    }

    /// A context is there, on a way; it is taken to carry as much as others of its class until that is known.
    pub(super) fn begin(&mut self, now: Instant, place: u32, class: u8, way: u8) {
        self.end(place);
        if self.legs.len() <= place as usize {
            self.legs.resize(place as usize + 1, NOBODY);
        }
        let (load, count) = (self.loads(class.into()), self.counts(class.into()));
        let count: u32 = count.iter().sum();
        // Where nothing is known of anybody each is worth the same.
        let mean = (load.iter().sum::<f64>() / f64::from(count.max(1))).max(1.0);
        let leg = Leg { at: ticks(now), rate: mean as f32, class, way, ..NOBODY };
        self.legs[place as usize] = leg;
        self.count(place, &leg);
    }

    /// A context that was there under another policy goes on here with what is known of it.
    pub(super) fn adopt(&mut self, place: u32, class: u8, old: &Legs, way: u8) {
        self.end(place);
        let Some(known) = old.get(place) else { return };
        if self.legs.len() <= place as usize {
            self.legs.resize(place as usize + 1, NOBODY);
        }
        let leg = Leg { class, way, was: SETTLED, ..*known };
        self.legs[place as usize] = leg;
        self.count(place, &leg);
    }

    pub(super) fn end(&mut self, place: u32) {
        if let Some(leg) = self.get(place).copied() {
            self.discount(place, &leg);
            self.legs[place as usize] = NOBODY;
        }
    }

    /// It is, or should be, on another way.
    pub(super) fn shift(&mut self, place: u32, way: u8) {
        self.change(place, |leg| leg.way = way);
    }

    /// It was ordered to another way, or is where it should be (`SETTLED`).
    pub(super) fn order(&mut self, place: u32, was: u8) {
        if let Some(leg) = self.legs.get_mut(place as usize) {
            leg.was = was;
        }
    }

    /// It is left alone for a while.
    pub(super) fn rest(&mut self, now: Instant, place: u32, time: Duration) {
        if let Some(leg) = self.legs.get_mut(place as usize) {
            leg.rest = (ticks(now).wrapping_add(ticks_of(time))).max(1);
        }
    }

    /// The octets it has carried so far.
    pub(super) fn measured(&mut self, now: Instant, place: u32, octets: u64) {
        let now = ticks(now);
        let Some(leg) = self.get(place).copied() else { return };
        let passed = now.wrapping_sub(leg.at);
        if leg.age == 0 {
            // From when on these count is not known.
            let leg = &mut self.legs[place as usize];
            (leg.age, leg.octets, leg.at) = (1, octets, now);
        } else if passed >= SHORTEST {
            let rate = octets.saturating_sub(leg.octets) as f64 * TICKS_PER_S as f64 / f64::from(passed);
            let before = if leg.age == 1 { 0.0 } else { f64::from(leg.age) / 10.0 };
            let time = f64::from(passed) / TICKS_PER_S as f64;
            let part = (time / (before + time)).max(1.0 - (-time / MEMORY_S).exp());
            self.change(place, |leg| {
                leg.rate = mean(leg.rate, rate, part);
                leg.age = ((before + time) * 10.0).clamp(2.0, 255.0) as u8;
                (leg.octets, leg.at) = (octets, now);
            });
        }
    }

    /// Looks at some entries: those that nobody reported are silent. Every place's turn comes after `1 / part` calls, where
    /// there are no more than so many in each.
    pub(super) fn sweep(&mut self, now: Instant, part: usize, most: usize) {
        let now = ticks(now);
        let count = (self.legs.len() / part.max(1) + 1).min(most).min(self.legs.len());
        for _ in 0..count {
            self.sweep = (self.sweep + 1) % self.legs.len().max(1);
            let place = self.sweep as u32;
            let Some(leg) = self.get(place).copied() else { continue };
            if leg.rest != 0 && !leg.is_resting(now) {
                self.legs[self.sweep].rest = 0;
            }
            let passed = now.wrapping_sub(leg.at);
            if passed >= SILENT && leg.rate > 0.0 {
                let part = 1.0 - (-f64::from(passed) / (TICKS_PER_S as f64 * SILENCE_S)).exp();
                self.change(place, |leg| {
                    leg.rate = mean(leg.rate, 0.0, part);
                    leg.at = now;
                });
            }
        }
    }

    /// The largest of a class on a way that carries no more than `most`, at least `least`, and may be moved.
    pub(super) fn largest(&self, now: Instant, class: u8, way: u8, least: f64, most: f64) -> Option<u32> {
        let now = ticks(now);
        let (low, high) = (bucket(least as f32), bucket(most as f32));
        (low..=high).rev().find_map(|size| {
            let list = self.lists.iter((class, way, size)).take(LOOKED_AT);
            let fits = |place: &u32| {
                self.get(*place).is_some_and(|leg| {
                    let rate = f64::from(leg.rate);
                    rate <= most && rate >= least && !leg.is_resting(now) && leg.was == SETTLED
                })
            };
            list.filter(fits).max_by(|a, b| self.rate(*a).total_cmp(&self.rate(*b)))
        })
    }

    pub(super) fn rate(&self, place: u32) -> f64 {
        self.get(place).map_or(0.0, |leg| leg.rate.into())
    }

    fn change(&mut self, place: u32, change: impl FnOnce(&mut Leg)) {
        let Some(old) = self.get(place).copied() else { return };
        let mut new = old;
        change(&mut new);
        let cell = |leg: &Leg| usize::from(leg.class) * self.ways + usize::from(leg.way);
        let (before, after) = (cell(&old), cell(&new));
        self.loads[before] -= f64::from(old.rate);
        self.loads[after] += f64::from(new.rate);
        self.counts[before] -= 1;
        self.counts[after] += 1;
        self.legs[place as usize] = new;
        self.lists.settle(place, Some(old.key()), Some(new.key()));
    }

    fn count(&mut self, place: u32, leg: &Leg) {
        let cell = usize::from(leg.class) * self.ways + usize::from(leg.way);
        self.loads[cell] += f64::from(leg.rate);
        self.counts[cell] += 1;
        self.lists.join(leg.key(), place);
    }

    fn discount(&mut self, place: u32, leg: &Leg) {
        let cell = usize::from(leg.class) * self.ways + usize::from(leg.way);
        self.loads[cell] -= f64::from(leg.rate);
        self.counts[cell] -= 1;
        self.lists.leave(leg.key(), place);
    }

    /// What must always hold.
    pub(super) fn selfcheck(&self) {
        let mut loads = vec![0.0; self.loads.len()];
        let mut counts = vec![0; self.counts.len()];
        for leg in self.legs.iter().filter(|leg| leg.class != NO_CLASS) {
            let cell = usize::from(leg.class) * self.ways + usize::from(leg.way);
            loads[cell] += f64::from(leg.rate);
            counts[cell] += 1;
        }
        assert_eq!(counts, self.counts);
        let scale = loads.iter().sum::<f64>() * 1e-9 + 1e-6;
        assert!(loads.iter().zip(&self.loads).all(|(a, b)| (a - b).abs() < scale), "{loads:?} {:?}", self.loads);
        assert_eq!(self.lists.len(), counts.iter().sum::<u32>() as usize);
    }
}

impl Leg {
    pub(super) fn class(&self) -> usize {
        self.class.into()
    }

    pub(super) fn way(&self) -> usize {
        self.way.into()
    }

    pub(super) fn is_resting(&self, now: u32) -> bool {
        self.rest != 0 && (self.rest.wrapping_sub(now) as i32) > 0
    }

    fn key(&self) -> (u8, u8, u8) {
        (self.class, self.way, bucket(self.rate))
    }
}

/// Sizes of rates: two for each doubling.
fn bucket(rate: f32) -> u8 {
    if rate < 1.0 { 0 } else { 1 + (2.0 * rate.log2()).min(120.0) as u8 }
}

fn mean(old: f32, new: f64, part: f64) -> f32 {
    let rate = (f64::from(old) + part * (new - f64::from(old))) as f32;
    if rate < 0.5 { 0.0 } else { rate }
}
