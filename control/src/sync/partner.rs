//! Another box of the site, both ways, and the engine that knows the contexts.

use std::time::Duration;

use rand::Rng;

use super::{Broken, Frame, FromHearer, FromTeller, Hearer, Hello, Teller, Welcome};
use crate::engine::{Effect, Engine, MirrorCounts};
use crate::time::Instant;

/// Things that go into one batch.
const PER_BATCH: usize = 128;

/// One of the other boxes, by its place among them.
#[derive(Debug)]
pub struct Partner {
    at: usize,
    teller: Teller,
    hearer: Hearer,
    /// What found no room on the way out.
    next: Option<Frame>,
    /// Its `box.id`, when it last said who it is.
    box_id: Option<u8>,
    name: String,
    /// Why it and we do not fit together.
    refused: Option<String>,
}

/// What was told and heard so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Batches sent for the first time.
    pub sent: u64,
    /// Batches sent once more.
    pub resent: u64,
    /// Batches that wait for an acknowledgement.
    pub waiting: u64,
    /// Things that it has still to be told, about.
    pub behind: u64,
    /// Batches taken in.
    pub received: u64,
    /// Batches that came once more.
    pub repeated: u64,
    /// What became of contexts.
    pub contexts: MirrorCounts,
    /// Whether it can be heard, hears us, and has told everything.
    pub heard: bool,
    /// It hears us.
    pub hears: bool,
    /// It has told everything there was.
    pub told_all: bool,
}

impl Partner {
    /// The one at a place among the others.
    pub fn new(at: usize) -> Partner {
        let (teller, hearer) = (Teller::default(), Hearer::default());
        Partner { at, teller, hearer, next: None, box_id: None, name: String::new(), refused: None }
    }

    /// `box.id` and `box.name`, as far as it has said so.
    pub fn is(&self) -> Option<(u8, &str)> {
        self.box_id.map(|box_id| (box_id, self.name.as_str()))
    }

    /// Why it and we do not fit together, if that is so.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// What was told and heard.
    pub fn counts(&self, engine: &Engine) -> Counts {
        let (contexts, [heard, hears, told_all]) = engine.partner_counts(self.at).unwrap_or_default();
        Counts {
            sent: self.teller.sent,
            resent: self.teller.resent,
            waiting: self.teller.waiting() as u64,
            behind: engine.left_to_tell(self.at) as u64,
            received: self.hearer.received,
            repeated: self.hearer.repeated,
            contexts,
            heard,
            hears,
            told_all,
        }
    }
}

/// As the one that tells.
impl Partner {
    /// The one that hears has said something. False if the connection is to end.
    pub fn answered(&mut self, engine: &mut Engine, answer: FromHearer) -> bool {
        match answer {
            FromHearer::Welcome(welcome) if !self.teller.is_up() => {
                let fresh = self.teller.welcomed(welcome);
                self.box_id = Some(welcome.box_id);
                self.refused = None;
                engine.hear_clock(welcome.clock);
                engine.partner_hears(self.at, welcome.box_id, fresh);
                true
            }
            FromHearer::Refused(reason) => {
                self.refuse(engine, reason);
                false
            }
            FromHearer::Ack(number) if self.teller.is_up() => {
                self.teller.acknowledged(number);
                true
            }
            FromHearer::Alive => true,
            FromHearer::Welcome(_) | FromHearer::Ack(_) => false,
        }
    }

    /// The connection over which it was told is gone.
    pub fn deaf(&mut self, engine: &mut Engine) {
        self.teller.closed();
        self.next = None;
        engine.partner_deaf(self.at);
    }

    /// What is to be sent, as long as `send` has room: it gives back a frame it does not take. How many were sent.
    pub fn tell(
        &mut self,
        now: Instant,
        engine: &mut Engine,
        most: usize,
        send: &mut dyn FnMut(Frame) -> Result<(), Frame>,
    ) -> usize {
        let (sent, full) = self.send(now, engine, most, send);
        engine.partner_full(self.at, full);
        sent
    }

    /// The same, and whether it ended for want of room.
    fn send(
        &mut self,
        now: Instant,
        engine: &mut Engine,
        most: usize,
        send: &mut dyn FnMut(Frame) -> Result<(), Frame>,
    ) -> (usize, bool) {
        for sent in 0..most {
            let frame = match self.next.take().or_else(|| self.teller.next_frame()) {
                Some(frame) => frame,
                None if self.teller.has_room() => {
                    let mut told = Vec::new();
                    engine.tell_partner(now, self.at, PER_BATCH, &mut told);
                    if told.is_empty() {
                        return (sent, false);
                    }
                    self.teller.push(now, told);
                    let Some(frame) = self.teller.next_frame() else { return (sent, false) };
                    frame
                }
                None => return (sent, true),
            };
            if let Err(frame) = send(frame) {
                self.next = Some(frame);
                return (sent, true);
            }
        }
        (most, false)
    }

    /// What is said when there is nothing to say.
    pub fn alive(&self) -> Option<Frame> {
        self.teller.alive().filter(|_| self.next.is_none())
    }

    fn refuse(&mut self, engine: &mut Engine, reason: String) {
        self.refused = Some(reason);
        engine.partner_refused(self.at);
    }
}

/// As the one that hears.
impl Partner {
    /// Somebody who tells says who it is; `ours` is what we would say. What to answer, and whether to go on.
    pub fn greeted(&mut self, now: Instant, engine: &mut Engine, hello: &Hello, ours: &Hello) -> (FromHearer, bool) {
        if let Some(reason) = hello.misfit(ours) {
            self.refuse(engine, reason.clone());
            return (FromHearer::Refused(reason), false);
        }
        self.name.clone_from(&hello.name);
        self.box_id = Some(hello.box_id);
        self.refused = None;
        engine.hear_clock(hello.clock);
        let heard = self.hearer.greeted(hello.life);
        let clock = engine.group_clock(now);
        (FromHearer::Welcome(Welcome { box_id: ours.box_id, life: ours.life, clock, heard }), true)
    }

    /// It says something more. What to acknowledge, if anything.
    ///
    /// # Errors
    /// What it says cannot be; the connection is to end.
    pub fn told(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        engine: &mut Engine,
        said: FromTeller,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<u64>, Broken> {
        match said {
            FromTeller::Alive(next) => self.hearer.alive(next).map(|()| None),
            FromTeller::Hello(_) => Err(Broken::Beginning),
            FromTeller::Begin { fresh, first } => {
                self.hearer.begin(fresh, first)?;
                let Some(box_id) = self.box_id else { return Err(Broken::Beginning) };
                engine.partner_heard(self.at, box_id, fresh);
                Ok(None)
            }
            FromTeller::Batch { number, now: sent, told } => {
                if self.hearer.batch(number)? {
                    engine.hear_partner(now, rng, self.at, sent, told, effects);
                }
                Ok(Some(self.hearer.heard()))
            }
        }
    }

    /// The connection over which it told is gone.
    pub fn silent(&mut self, engine: &mut Engine) {
        engine.partner_silent(self.at);
    }
}

/// How long nobody may say anything until a connection counts as dead, and how often something is said so that none does.
pub const SILENCE: Duration = Duration::from_secs(3);
/// How often something is said.
pub const ALIVE: Duration = Duration::from_millis(500);
