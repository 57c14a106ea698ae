//! Writes what an engine is told, for a thread to carry away: nothing here waits for anybody.

use super::form;
use super::input::{Beginning, Input, Record, Signature};
use super::inputs::Tape;
use crate::time::Instant;

/// Octets that wait for [`Tape::rest`] at most.
const PIECE: usize = 64 << 10;

/// Takes a piece of a tape, or says why not. It must not wait.
pub type Sink = Box<dyn FnMut(Vec<u8>) -> Result<(), String> + Send>;

/// A recording.
pub struct Recorder {
    sink: Sink,
    piece: Vec<u8>,
    number: u64,
    last: Instant,
    /// Octets that may still be written.
    room: u64,
    over: Option<String>,
}

impl Recorder {
    /// One that ends when it has given `most` octets to `sink`.
    pub fn new(most: u64, sink: Sink) -> Recorder {
        let (piece, last) = (form::room(), Instant::START);
        let mut recorder = Recorder { sink, piece, number: 0, last, room: most, over: None };
        recorder.give(form::head());
        recorder
    }

    fn write(&mut self, record: &Record<'_>) {
        if self.over.is_some() {
            return;
        }
        if let Err(reason) = form::write(&mut self.piece, record) {
            self.end(format!("something cannot be written down: {reason}"));
        } else if self.piece.len() >= PIECE {
            self.seal();
        }
    }

    fn seal(&mut self) {
        if form::is_empty(&self.piece) {
            return;
        }
        let piece = form::seal(self.number, std::mem::replace(&mut self.piece, form::room()));
        self.number += 1;
        if self.room < piece.len() as u64 {
            return self.end("it is as long as it may be".to_owned());
        }
        self.give(piece);
    }

    fn give(&mut self, octets: Vec<u8>) {
        self.room = self.room.saturating_sub(octets.len() as u64);
        if let Err(reason) = (self.sink)(octets) {
            self.over.get_or_insert(reason);
        }
    }

    fn end(&mut self, reason: String) {
        self.over.get_or_insert(reason);
        self.piece = form::room();
    }
}

impl Tape for Recorder {
    fn begin(&mut self, beginning: &Beginning) {
        self.last = Instant(std::time::Duration::from_nanos(beginning.now));
        self.write(&Record::Begin(Box::new(beginning.clone())));
    }

    fn input(&mut self, now: Instant, input: &Input<'_>) {
        // Those who are told something use the time of the turn it belongs to, so it may have been later before.
        let (nanos, last) = (now.0.as_nanos() as i64, self.last.0.as_nanos() as i64);
        self.last = now;
        self.write(&Record::Input(nanos.wrapping_sub(last), input.clone()));
    }

    fn signed(&mut self, signature: Signature) {
        self.write(&Record::Signed(Box::new(signature)));
    }

    fn outcome(&mut self, digests: Vec<u32>) {
        self.write(&Record::Outcome(digests));
    }

    fn rest(&mut self) {
        if self.over.is_none() {
            self.seal();
        }
    }

    fn is_over(&self) -> Option<String> {
        self.over.clone()
    }
}

/// The last piece of a tape that ended for a reason, after so many.
pub fn last_piece(number: u64, reason: &str) -> Vec<u8> {
    let mut piece = form::room();
    let _ = form::write(&mut piece, &Record::End(reason.to_owned()));
    form::seal(number, piece)
}

impl From<crate::engine::Signed> for Signature {
    fn from(made: crate::engine::Signed) -> Signature {
        let locators = made.locators.iter().map(|locator| locator.0).collect();
        Signature { key: made.key, generation: made.generation, locators, octets: made.octets }
    }
}
