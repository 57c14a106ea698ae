//! Threads that verify signatures, so that the control thread does not.
//!
//! They get what the engine wants verified and give back what they found: no more is shared. They are given only so much at a
//! time that whose turn is next is still the engine's to say, and what they have not done when the box stops is not done.

use std::thread::{self, JoinHandle};

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use rand::Rng;

use crate::engine::{Effect, Engine};
use crate::shim6::{Finding, ProofJob};
use crate::time::Instant;

/// Jobs a thread is given before it has answered the first: enough for the time between two turns of the control thread.
const AHEAD: usize = 64;

/// The threads, and what is between them and the control thread.
pub(super) struct Helpers {
    jobs: Option<Sender<ProofJob>>,
    findings: Receiver<Finding>,
    threads: Vec<JoinHandle<()>>,
    /// Jobs given and not answered.
    under_way: usize,
    room: usize,
}

impl Helpers {
    /// So many threads. With none, the engine verifies signatures itself.
    pub(super) fn start(count: u8, engine: &mut Engine) -> std::io::Result<Helpers> {
        let room = AHEAD * usize::from(count);
        let (jobs, to_do) = bounded::<ProofJob>(room);
        let (done, findings) = bounded(room);
        let start = |number: u8| {
            let (to_do, done) = (to_do.clone(), done.clone());
            let work = move || to_do.iter().map(|job| job.run()).try_for_each(|finding| done.send(finding));
            thread::Builder::new().name(format!("proofs-{number}")).spawn(move || _ = work())
        };
        let threads = (0..count).map(start).collect::<std::io::Result<Vec<_>>>()?;
        if count > 0 {
            engine.defer_proofs();
        }
        Ok(Helpers { jobs: Some(jobs), findings, threads, under_way: 0, room })
    }

    /// Hands answers to the engine, and jobs to the threads. How many answers there were.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        engine: &mut Engine,
        effects: &mut Vec<Effect>,
    ) -> usize {
        let mut answers = 0;
        // What comes in while this goes on has to wait for the next turn.
        while answers < self.room {
            match self.findings.try_recv() {
                Ok(finding) => engine.proved(now, rng, finding, effects),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
            answers += 1;
            self.under_way -= 1;
        }
        while self.under_way < self.room
            && let (Some(jobs), Some(job)) = (&self.jobs, engine.next_proof())
        {
            // There is room, since no more are under way than that.
            if jobs.try_send(job).is_err() {
                break;
            }
            self.under_way += 1;
        }
        answers
    }

    /// Whether an answer may come at any moment.
    pub(super) fn are_at_work(&self) -> bool {
        self.under_way > 0
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        // Without anybody who sends, the threads come to an end; there is always room for their last answers.
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sim::{Plan, World};

    #[test]
    fn threads_come_to_an_end_and_none_is_needed() {
        let mut world = World::new(&Plan::default(), 1);
        let engine = &mut world.nodes[0].engine;
        let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        for count in [0, 2] {
            let mut helpers = Helpers::start(count, engine).unwrap();
            let now = Instant(Duration::from_secs(1));
            assert_eq!(helpers.turn(now, &mut rng, engine, &mut Vec::new()), 0);
            assert!(!helpers.are_at_work());
        }
    }
}
