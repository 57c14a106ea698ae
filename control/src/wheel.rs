//! Timers in a hierarchical wheel: one for each of many small numbers, set, moved and taken back at once.
//!
//! Time is cut into ticks of about a millisecond. A timer stands in a list with those of its tick if that is near, of its 64
//! ticks if it is further off, of its 4096, and so on; when the wheel gets there, the list is sorted into finer ones. So a
//! timer is touched once for each level it goes down, whatever the number of others, and nobody ever looks at all of them.
//!
//! The promise: [`Wheel::pop`] gives what is due in order of time and number, as a sorted set would (with which the tests
//! compare it), but for two things. A call moves at most so many timers as it is told, so that no turn takes long when very
//! many stand in one list; what is due among the rest comes out in the next turns. And [`Wheel::deadline`] may be early where
//! a timer was taken back.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::time::Instant;

/// A tick is two to the power of so many nanoseconds.
const TICK_BITS: u32 = 20;
/// A level has two to the power of so many lists.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// With so many levels there is a list for every moment that 64 bits of nanoseconds can name.
const LEVELS: usize = (64 - TICK_BITS as usize).div_ceil(SLOT_BITS as usize);
/// Stands for no timer.
const NONE: u32 = u32::MAX;

/// Timers by number. Numbers are places in a table: memory goes with the largest.
#[derive(Debug)]
pub struct Wheel {
    timers: Vec<Timer>,
    /// The first timer of each list.
    heads: [[u32; SLOTS]; LEVELS],
    /// Lists with timers, a bit each.
    occupied: [u64; LEVELS],
    /// No timer of the list is due before.
    least: [[u64; SLOTS]; LEVELS],
    /// What is due in this tick or was before.
    near: BTreeSet<(u64, u32)>,
    /// The list that the wheel has reached, and that is being sorted. It gets no new members: what belongs to its time now
    /// stands in finer ones.
    sorting: Option<(usize, usize)>,
    tick: u64,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    /// Nanoseconds since the start.
    at: u64,
    previous: u32,
    next: u32,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    Near,
    Slot(u8, u8),
}

impl Default for Wheel {
    fn default() -> Wheel {
        Wheel {
            timers: Vec::new(),
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            least: [[u64::MAX; SLOTS]; LEVELS],
            near: BTreeSet::new(),
            sorting: None,
            tick: 0,
            len: 0,
        }
    }
}

impl Wheel {
    /// Sets the timer of a number, or takes it back. A time that has passed is due at once.
    pub fn set(&mut self, number: u32, at: Option<Instant>) {
        if self.at(number) == at {
            return;
        }
        self.take_back(number);
        let Some(at) = at else { return };
        if self.timers.len() <= number as usize {
            let nobody = Timer { at: 0, previous: NONE, next: NONE, place: Place::Nowhere };
            self.timers.resize(number as usize + 1, nobody);
        }
        self.len += 1;
        self.put(number, nanos(at));
    }

    /// When the timer of a number is due.
    pub fn at(&self, number: u32) -> Option<Instant> {
        let timer = self.timers.get(number as usize).filter(|timer| timer.place != Place::Nowhere)?;
        Some(instant(timer.at))
    }

    /// Timers that are set.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes out the first timer that is due at `now`, if there is one. `moves` says how many timers may be moved on the way,
    /// and is less afterwards.
    pub fn pop(&mut self, now: Instant, moves: &mut usize) -> Option<(Instant, u32)> {
        let now = nanos(now);
        self.advance(now >> TICK_BITS, moves);
        let (at, number) = self.near.first().copied().filter(|(at, _)| *at <= now)?;
        self.take_back(number);
        Some((instant(at), number))
    }

    /// No timer is due before.
    pub fn deadline(&self) -> Option<Instant> {
        let near = self.near.first().map(|(at, _)| *at);
        // What is being sorted may be due.
        let sorting = self.sorting.map(|_| self.tick << TICK_BITS);
        let later = || self.next_list().map(|(level, slot)| self.least[level][slot]);
        [near, sorting].into_iter().flatten().min().or_else(later).map(instant)
    }

    /// Goes on to a tick, as far as `moves` lets it.
    fn advance(&mut self, tick: u64, moves: &mut usize) {
        loop {
            while let Some((level, slot)) = self.sorting {
                let number = self.heads[level][slot];
                if number == NONE {
                    self.sorting = None;
                    break;
                }
                let Some(left) = moves.checked_sub(1) else { return };
                *moves = left;
                let at = self.timers[number as usize].at;
                self.unlink(number);
                self.put(number, at);
            }
            let next = self.next_list().map(|(level, slot)| (level, slot, self.start_of(level, slot)));
            let Some((level, slot, start)) = next.filter(|(.., start)| *start <= tick) else { break };
            self.tick = start;
            self.occupied[level] &= !(1 << slot);
            self.sorting = Some((level, slot));
        }
        self.tick = self.tick.max(tick);
    }

    /// The list that the wheel comes to next: those of a level all lie before those of the next.
    fn next_list(&self) -> Option<(usize, usize)> {
        let level = self.occupied.iter().position(|lists| *lists != 0)?;
        Some((level, self.occupied[level].trailing_zeros() as usize))
    }

    /// The first tick of a list.
    fn start_of(&self, level: usize, slot: usize) -> u64 {
        let shift = level as u32 * SLOT_BITS;
        let above = self.tick.checked_shr(shift + SLOT_BITS).unwrap_or_default();
        (above << SLOT_BITS | slot as u64) << shift
    }

    /// Puts a timer where it belongs, seen from this tick: what differs first says how far off it is.
    fn put(&mut self, number: u32, at: u64) {
        let tick = at >> TICK_BITS;
        if tick <= self.tick {
            self.near.insert((at, number));
            self.timers[number as usize] = Timer { at, previous: NONE, next: NONE, place: Place::Near };
            return;
        }
        let level = (u64::BITS - 1 - (tick ^ self.tick).leading_zeros()) / SLOT_BITS;
        let slot = (tick >> (level * SLOT_BITS)) as usize % SLOTS;
        let list = level as usize;
        let next = std::mem::replace(&mut self.heads[list][slot], number);
        if next != NONE {
            self.timers[next as usize].previous = number;
        }
        let first = self.occupied[list] & 1 << slot == 0;
        self.occupied[list] |= 1 << slot;
        let least = &mut self.least[list][slot];
        *least = if first { at } else { at.min(*least) };
        let place = Place::Slot(level as u8, slot as u8);
        self.timers[number as usize] = Timer { at, previous: NONE, next, place };
    }

    fn take_back(&mut self, number: u32) {
        if self.at(number).is_some() {
            self.unlink(number);
            self.timers[number as usize].place = Place::Nowhere;
            self.len -= 1;
        }
    }

    fn unlink(&mut self, number: u32) {
        let Timer { at, previous, next, place } = self.timers[number as usize];
        if place == Place::Near {
            self.near.remove(&(at, number));
            return;
        }
        if next != NONE {
            self.timers[next as usize].previous = previous;
        }
        if previous != NONE {
            self.timers[previous as usize].next = next;
            return;
        }
        match place {
            Place::Slot(level, slot) => {
                self.heads[usize::from(level)][usize::from(slot)] = next;
                if next == NONE {
                    self.occupied[usize::from(level)] &= !(1 << slot);
                }
            }
            Place::Near | Place::Nowhere => {}
        }
    }
}

fn nanos(at: Instant) -> u64 {
    u64::try_from(at.0.as_nanos()).unwrap_or(u64::MAX)
}

fn instant(nanos: u64) -> Instant {
    Instant(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The slow twin: a set in order of time.
    #[derive(Default)]
    struct Twin(BTreeSet<(Instant, u32)>);

    impl Twin {
        fn set(&mut self, number: u32, at: Option<Instant>) {
            self.0.retain(|(_, of)| *of != number);
            self.0.extend(at.map(|at| (at, number)));
        }

        fn pop(&mut self, now: Instant) -> Option<(Instant, u32)> {
            self.0.first().copied().filter(|(at, _)| *at <= now).inspect(|first| _ = self.0.remove(first))
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A timer is set so far ahead, in nanoseconds.
        Set(u32, u64),
        TakeBack(u32),
        /// Time goes on by so much.
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        // From within a tick to beyond the age of the box.
        let span = (0u32..63).prop_flat_map(|bits| 0..1u64 << bits);
        prop_oneof![
            4 => (0u32..40, span.clone()).prop_map(|(number, ahead)| Step::Set(number, ahead)),
            1 => (0u32..40).prop_map(Step::TakeBack),
            2 => (0u32..50).prop_flat_map(|bits| 0..1u64 << bits).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn a_wheel_and_a_sorted_set_agree(steps in proptest::collection::vec(step(), 1..200)) {
            let (mut wheel, mut twin, mut now) = (Wheel::default(), Twin::default(), 0u64);
            for step in steps {
                match step {
                    Step::Set(number, ahead) => {
                        let at = Some(instant(now.saturating_add(ahead)));
                        wheel.set(number, at);
                        twin.set(number, at);
                    }
                    Step::TakeBack(number) => {
                        wheel.set(number, None);
                        twin.set(number, None);
                    }
                    Step::Pass(time) => now = now.saturating_add(time),
                }
                let mut moves = usize::MAX;
                loop {
                    let due = wheel.pop(instant(now), &mut moves);
                    prop_assert_eq!(due, twin.pop(instant(now)));
                    if due.is_none() {
                        break;
                    }
                }
                prop_assert_eq!(wheel.len(), twin.0.len());
                // Never late, and never so early that somebody would wait in vain for ever.
                let first = twin.0.first().map(|(at, _)| *at);
                prop_assert_eq!(wheel.deadline().is_some(), first.is_some());
                prop_assert!(wheel.deadline() <= first);
                prop_assert!(wheel.deadline().is_none_or(|at| at > instant(now)));
                for number in 0..40 {
                    let known = twin.0.iter().find(|(_, of)| *of == number).map(|(at, _)| *at);
                    prop_assert_eq!(wheel.at(number), known);
                }
            }
        }

        #[test]
        fn a_wheel_that_may_move_little_in_a_turn_loses_nothing(
            ahead in proptest::collection::vec(0u64..1 << 40, 1..300),
            moves in 1usize..20,
        ) {
            let mut wheel = Wheel::default();
            for (number, ahead) in ahead.iter().enumerate() {
                wheel.set(number as u32, Some(instant(*ahead)));
            }
            let (now, mut out, mut turns) = (instant(1 << 40), Vec::new(), 0);
            while !wheel.is_empty() {
                prop_assert!(wheel.deadline().is_some_and(|at| at <= now));
                let mut left = moves;
                while let Some((_, number)) = wheel.pop(now, &mut left) {
                    out.push(number);
                }
                turns += 1;
            }
            // A timer goes down one level after the other at most.
            prop_assert!(turns <= 1 + ahead.len() * LEVELS / moves + LEVELS);
            out.sort_unstable();
            prop_assert_eq!(out, (0..ahead.len() as u32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_taken_back_while_its_list_is_sorted_does_not_come() {
        let mut wheel = Wheel::default();
        let far = Instant::from_millis(300_000);
        for number in 0..10 {
            wheel.set(number, Some(far));
        }
        assert_eq!(wheel.pop(far, &mut 3), None);
        for number in [0, 4, 9] {
            wheel.set(number, None);
        }
        wheel.set(5, Some(far + Duration::from_secs(1)));
        let mut moves = usize::MAX;
        let came: Vec<u32> = std::iter::from_fn(|| wheel.pop(far, &mut moves)).map(|(_, number)| number).collect();
        assert_eq!(came, [1, 2, 3, 6, 7, 8]);
        assert_eq!((wheel.len(), wheel.deadline()), (1, Some(far + Duration::from_secs(1))));
    }
}
