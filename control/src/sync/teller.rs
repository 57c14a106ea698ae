//! The one that tells: numbers, a window of what was not acknowledged, and what is said again.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{FromTeller, Welcome, encode};
use crate::engine::Told;
use crate::time::Instant;

/// Octets as they travel.
pub type Frame = Arc<[u8]>;

/// Batches that may wait for an acknowledgement, and their octets.
const WINDOW_MAX: usize = 64;
const OCTETS_MAX: usize = 8 << 20;

/// Tells one box.
#[derive(Debug)]
pub struct Teller {
    /// The life of the one that hears, as long as it is known.
    hearer: Option<u64>,
    /// Whether there is somebody at the other end who has said Welcome.
    up: bool,
    /// The number of the next batch.
    next: u64,
    /// What was not acknowledged, the oldest first.
    window: VecDeque<Frame>,
    octets: usize,
    /// How many of these were not sent over this connection.
    unsent: usize,
    begin: Option<Frame>,
    /// Batches sent for the first time, and once more.
    pub(super) sent: u64,
    pub(super) resent: u64,
    /// The highest number ever sent.
    reached: u64,
}

impl Default for Teller {
    fn default() -> Teller {
        Teller {
            hearer: None,
            up: false,
            next: 1,
            window: VecDeque::new(),
            octets: 0,
            unsent: 0,
            begin: None,
            sent: 0,
            resent: 0,
            reached: 0,
        }
    }
}

impl Teller {
    /// The one that hears says who it is, and what it knows. Whether it has to be told everything.
    pub fn welcomed(&mut self, welcome: Welcome) -> bool {
        let first = self.next - self.window.len() as u64;
        // A number that we have not reached, or have forgotten, is no place to go on from.
        let known = welcome.heard.filter(|heard| (first - 1..self.next).contains(heard));
        let resumes = known.filter(|_| self.hearer == Some(welcome.life));
        match resumes {
            Some(heard) => self.acknowledged(heard),
            None => {
                self.window.clear();
                (self.octets, self.next, self.reached) = (0, 1, 0);
            }
        }
        self.hearer = Some(welcome.life);
        self.up = true;
        self.unsent = self.window.len();
        let first = self.next - self.window.len() as u64;
        self.begin = Some(encode(&FromTeller::Begin { fresh: resumes.is_none(), first }).into());
        resumes.is_none()
    }

    /// The connection is gone.
    pub fn closed(&mut self) {
        self.up = false;
        self.begin = None;
    }

    /// Whether somebody listens.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Whether another batch may be made.
    pub fn has_room(&self) -> bool {
        self.up && self.window.len() < WINDOW_MAX && self.octets < OCTETS_MAX
    }

    /// Something is to be told.
    pub fn push(&mut self, now: Instant, told: Vec<Told>) {
        let frame: Frame = encode(&FromTeller::Batch { number: self.next, now: now.0, told }).into();
        self.octets += frame.len();
        self.next += 1;
        self.unsent += 1;
        self.window.push_back(frame);
    }

    /// What is to be sent next.
    pub fn next_frame(&mut self) -> Option<Frame> {
        if !self.up {
            return None;
        }
        if let Some(begin) = self.begin.take() {
            return Some(begin);
        }
        let at = self.window.len().checked_sub(self.unsent)?;
        let frame = self.window.get(at)?.clone();
        let number = self.next - self.unsent as u64;
        self.unsent -= 1;
        if number > self.reached {
            self.reached = number;
            self.sent += 1;
        } else {
            self.resent += 1;
        }
        Some(frame)
    }

    /// What is said when there is nothing to say: if the other one does not have everything that was sent, it hears so.
    pub fn alive(&self) -> Option<Frame> {
        let all_sent = self.up && self.begin.is_none() && self.unsent == 0;
        all_sent.then(|| encode(&FromTeller::Alive(self.next)).into())
    }

    /// The one that hears has taken in everything up to a number. Nonsense changes nothing.
    pub fn acknowledged(&mut self, number: u64) {
        if number >= self.next {
            return;
        }
        while self.next - self.window.len() as u64 <= number {
            let Some(frame) = self.window.pop_front() else { return };
            self.octets -= frame.len();
        }
        self.unsent = self.unsent.min(self.window.len());
    }

    /// Batches that were not acknowledged.
    pub fn waiting(&self) -> usize {
        self.window.len()
    }
}
