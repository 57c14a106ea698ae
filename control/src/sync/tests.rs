//! Whatever a wire does, each batch is taken in once and in order.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::time::Instant;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Something is to be told.
    Tell,
    /// So many messages arrive.
    Arrive(usize),
    /// So many acknowledgements arrive.
    Return(usize),
    /// The next message on the wire is lost, or is there twice.
    Lose,
    Double,
    /// The connection ends.
    Cut,
    /// One of the two is another process.
    TellerDies,
    HearerDies,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Tell),
        6 => (1usize..6).prop_map(Step::Arrive),
        4 => (1usize..6).prop_map(Step::Return),
        2 => Just(Step::Lose),
        2 => Just(Step::Double),
        2 => Just(Step::Cut),
        1 => Just(Step::TellerDies),
        1 => Just(Step::HearerDies),
    ]
}

/// Two ends and a wire. What is told are numbers.
#[derive(Default)]
struct Wire {
    teller: Teller,
    hearer: Hearer,
    lives: [u64; 2],
    frames: VecDeque<Frame>,
    acks: VecDeque<u64>,
    /// What is to be told in this life of the two, how much of that was pushed, and what was taken in.
    next: u64,
    taken: Vec<u64>,
    /// What had been told before the hearer last began to hear from the beginning.
    base: u64,
}

impl Wire {
    fn connect(&mut self) {
        if self.teller.is_up() {
            return;
        }
        let [teller, hearer] = self.lives;
        let heard = self.hearer.greeted(teller);
        let fresh = self.teller.welcomed(Welcome { box_id: 1, life: hearer, clock: 0, heard });
        if fresh {
            // Everything from the beginning: for numbers that is those that come.
            (self.base, self.taken) = (self.next, Vec::new());
        }
    }

    fn cut(&mut self) {
        self.teller.closed();
        self.frames.clear();
        self.acks.clear();
    }

    fn send(&mut self) {
        while let Some(frame) = self.teller.next_frame() {
            self.frames.push_back(frame);
        }
    }

    fn arrive(&mut self) {
        let Some(frame) = self.frames.pop_front() else { return };
        let went_well = match decode(&frame[4..]).unwrap() {
            FromTeller::Begin { fresh, first } => self.hearer.begin(fresh, first).is_ok(),
            FromTeller::Batch { number, told, .. } => match self.hearer.batch(number) {
                Ok(taken) => {
                    let Told::Ask(value) = told[0] else { panic!("{told:?}") };
                    self.taken.extend(taken.then_some(value));
                    self.acks.push_back(self.hearer.heard());
                    true
                }
                Err(_) => false,
            },
            FromTeller::Alive(next) => self.hearer.alive(next).is_ok(),
            FromTeller::Hello(_) => unreachable!("nobody says it here"),
        };
        if !went_well {
            self.cut();
        }
    }

    fn tell(&mut self) {
        if self.teller.has_room() {
            self.teller.push(Instant(Duration::ZERO), vec![Told::Ask(self.next)]);
            self.next += 1;
        }
    }
}

proptest! {
    #[test]
    fn each_batch_is_taken_in_once_and_in_order(steps in prop::collection::vec(step(), 0..300)) {
        let mut wire = Wire { lives: [1, 2], ..Wire::default() };
        for step in steps {
            wire.connect();
            match step {
                Step::Tell => wire.tell(),
                Step::Arrive(some) => (0..some).for_each(|_| wire.arrive()),
                Step::Return(some) => {
                    for _ in 0..some {
                        let Some(number) = wire.acks.pop_front() else { break };
                        wire.teller.acknowledged(number);
                    }
                }
                Step::Lose => _ = wire.frames.pop_front(),
                Step::Double => {
                    if let Some(frame) = wire.frames.front().cloned() {
                        wire.frames.push_front(frame);
                    }
                }
                Step::Cut => wire.cut(),
                Step::TellerDies => {
                    wire.cut();
                    (wire.teller, wire.lives[0]) = (Teller::default(), wire.lives[0] + 2);
                }
                Step::HearerDies => {
                    wire.cut();
                    (wire.hearer, wire.lives[1]) = (Hearer::default(), wire.lives[1] + 2);
                }
            }
            wire.send();
            prop_assert!(wire.taken.is_sorted_by(|one, next| one + 1 == *next), "{:?}", wire.taken);
            prop_assert!(wire.taken.first().is_none_or(|first| *first >= wire.base));
            prop_assert!(wire.teller.waiting() <= 64);
        }
        // When nothing fails any more, everything arrives.
        for _ in 0..20 {
            wire.connect();
            wire.send();
            wire.frames.extend(wire.teller.alive());
            while !wire.frames.is_empty() {
                wire.arrive();
            }
            while let Some(number) = wire.acks.pop_front() {
                wire.teller.acknowledged(number);
            }
        }
        prop_assert_eq!(wire.taken, (wire.base..wire.next).collect::<Vec<u64>>());
        prop_assert_eq!(wire.teller.waiting(), 0);
    }

    /// Nothing that comes over a connection makes a process panic or take much memory.
    #[test]
    fn noise_is_no_message(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode::<FromTeller>(&octets);
        let _ = decode::<FromHearer>(&octets);
    }

    /// Nor does nonsense about numbers.
    #[test]
    fn numbers_that_cannot_be_change_nothing(acks in prop::collection::vec(any::<u64>(), 0..8), heard: Option<u64>) {
        let mut teller = Teller::default();
        teller.welcomed(Welcome { box_id: 1, life: 5, clock: 0, heard });
        for value in 0..5 {
            teller.push(Instant(Duration::ZERO), vec![Told::Ask(value)]);
        }
        let before = teller.waiting();
        for number in acks.into_iter().filter(|number| *number >= before as u64 * 2) {
            teller.acknowledged(number);
            prop_assert_eq!(teller.waiting(), before);
        }
        let mut frames = 0;
        while teller.next_frame().is_some() {
            frames += 1;
        }
        prop_assert!(frames >= 5, "{} frames of five batches", frames);
        let mut hearer = Hearer::default();
        prop_assert!(hearer.batch(1).is_err(), "nothing has begun");
    }
}

#[test]
fn what_is_written_down_is_read_again() {
    let told = vec![Told::ListsAnew, Told::Seen(vec![(5, 3)]), Told::Handed(vec![1, 2, 3]), Told::CaughtUp];
    let said = FromTeller::Batch { number: 7, now: Duration::from_millis(5), told };
    let octets = encode(&said);
    assert_eq!(u32::from_le_bytes(octets[..4].try_into().unwrap()) as usize, octets.len() - 4);
    assert_eq!(decode::<FromTeller>(&octets[4..]), Some(said));
    assert_eq!(decode::<FromTeller>(&[&octets[4..], &[0][..]].concat()), None, "more than a message");
}
