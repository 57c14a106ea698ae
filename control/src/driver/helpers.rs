//! Threads that verify signatures, so that the control thread does not.
//!
//! They get what the engine wants verified and give back what they found: no more is shared. They are given only so much at a
//! time that whose turn is next is still the engine's to say, and what they have not done when the box stops is not done.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use tracing::error;

use crate::engine::Effect;
use crate::shim6::{Finding, ProofJob};
use crate::tape::Inputs;
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
    pub(super) fn start(count: u8, now: Instant, inputs: &mut Inputs<'_>) -> std::io::Result<Helpers> {
        Self::start_with(count, now, inputs, ProofJob::run)
    }

    fn start_with(
        count: u8,
        now: Instant,
        inputs: &mut Inputs<'_>,
        verify: fn(&ProofJob) -> Finding,
    ) -> std::io::Result<Helpers> {
        let room = AHEAD * usize::from(count);
        let (jobs, to_do) = bounded::<ProofJob>(room);
        let (done, findings) = bounded(room);
        let start = |number: u8| {
            let (to_do, done) = (to_do.clone(), done.clone());
            let find = move |job: ProofJob| find(&job, verify);
            let work = move || to_do.iter().map(find).try_for_each(|finding| done.send(finding));
            thread::Builder::new().name(format!("proofs-{number}")).spawn(move || _ = work())
        };
        let threads = (0..count).map(start).collect::<std::io::Result<Vec<_>>>()?;
        if count > 0 {
            inputs.defer_proofs(now);
        }
        Ok(Helpers { jobs: Some(jobs), findings, threads, under_way: 0, room })
    }

    /// Hands answers to the engine, and jobs to the threads. How many answers there were.
    pub(super) fn turn(&mut self, now: Instant, inputs: &mut Inputs<'_>, effects: &mut Vec<Effect>) -> usize {
        let mut answers = 0;
        // What comes in while this goes on has to wait for the next turn.
        while answers < self.room {
            match self.findings.try_recv() {
                Ok(finding) => inputs.proved(now, finding, effects),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
            answers += 1;
            self.under_way -= 1;
        }
        while self.under_way < self.room
            && let (Some(jobs), Some(job)) = (&self.jobs, inputs.next_proof(now))
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

/// What a thread finds out. One that panics would take its jobs with it, and what waits for them would wait for ever; so
/// a panic is an answer too, and the thread goes on. (A released program ends as a whole by any panic.)
fn find(job: &ProofJob, verify: fn(&ProofJob) -> Finding) -> Finding {
    // The job is only read, and there is nothing else that could be left half done.
    catch_unwind(AssertUnwindSafe(|| verify(job))).unwrap_or_else(|_| {
        error!(?job, "could not verify a signature because of a fault in the program; its message is dropped");
        job.give_up()
    })
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
    fn a_job_that_panics_is_answered_and_its_thread_does_the_next() {
        let mut world = World::new(&Plan::default(), 1);
        let engine = &mut world.nodes[0].engine;
        let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        let verify = |job: &ProofJob| if *job == ProofJob::of([1; 32]) { panic!("as planned") } else { job.run() };
        let mut inputs = Inputs::new(engine, &mut rng, None);
        let now = Instant(Duration::from_secs(1));
        let mut helpers = Helpers::start_with(1, now, &mut inputs, verify).unwrap();
        let jobs = [1, 1, 2].map(|number| ProofJob::of([number; 32]));
        for job in &jobs {
            helpers.jobs.as_ref().unwrap().send(job.clone()).unwrap();
            helpers.under_way += 1;
        }
        let took = || helpers.findings.recv_timeout(Duration::from_secs(10)).expect("an answer from the only thread");
        let findings = [(); 3].map(|()| took());
        assert_eq!(findings, [jobs[0].give_up(), jobs[1].give_up(), jobs[2].run()]);
        // Room is given back for each answer, whatever it is.
        let (done, again) = bounded(3);
        findings.iter().for_each(|finding| done.send(*finding).unwrap());
        helpers.findings = again;
        assert_eq!(helpers.turn(now, &mut inputs, &mut Vec::new()), 3);
        assert!(!helpers.are_at_work());
    }

    #[test]
    fn threads_come_to_an_end_and_none_is_needed() {
        let mut world = World::new(&Plan::default(), 1);
        let engine = &mut world.nodes[0].engine;
        let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        let mut inputs = Inputs::new(engine, &mut rng, None);
        for count in [0, 2] {
            let now = Instant(Duration::from_secs(1));
            let mut helpers = Helpers::start(count, now, &mut inputs).unwrap();
            assert_eq!(helpers.turn(now, &mut inputs, &mut Vec::new()), 0);
            assert!(!helpers.are_at_work());
        }
    }
}
