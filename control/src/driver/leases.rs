//! Threads for what leases need and the control thread must not wait for: the store, and identities for new clients.
//!
//! The store's thread takes everything that has come in since and writes it in one transaction, so the more there is, the
//! less each change costs. It has the store alone; whoever wants to see it asks this thread.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};

use super::{Clock, RunError};
use crate::config::Configuration;
use crate::dhcp::Duid;
use crate::engine::{Commit, Effect, Engine, IdentityJob, Kept, MadeIdentity};
use crate::manage::api::Response;
use crate::manage::server::Call;
use crate::store::{Store, StoreError};
use crate::time::Instant;

/// What may wait for the store; the engine keeps the rest.
const ROOM: usize = 4096;
/// Changes in one transaction, at most.
const GROUP: usize = 1024;
/// How often, and how soon, a store is tried again that somebody else has.
const ATTEMPTS: u32 = 60;
const AGAIN: Duration = Duration::from_millis(50);
/// Identities that are asked for beforehand.
const IDENTITIES: usize = 64;

enum Job {
    Commit(Commit),
    Export(Call),
}

/// The threads, and what is between them and the control thread.
pub(super) struct Leases {
    jobs: Option<Sender<Job>>,
    done: Receiver<(u64, Result<(), String>)>,
    /// What found no room.
    next: Option<Commit>,
    under_way: usize,
    wanted: Option<Sender<IdentityJob>>,
    made: Receiver<MadeIdentity>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Opens the store of a site that has one, and reads what it keeps.
pub(super) fn open(
    configuration: &Configuration,
    clock: Clock,
    rng: &mut dyn Rng,
) -> Result<Option<(Store, Kept)>, RunError> {
    let Some(file) = &configuration.site.store else { return Ok(None) };
    let store = open_soon(file)?;
    let mut uuid = [0; 16];
    rng.fill_bytes(&mut uuid);
    let duid = store.duid(&Duid::from_uuid(uuid))?;
    let stored = store.load()?;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| RunError::System(error.to_string()))?;
    let epoch = wall.saturating_sub(clock.now().0).as_secs();
    Ok(Some((store, Kept { duid, stored, epoch })))
}

/// A daemon that was killed a moment ago lets go of its files when the last of its threads has ended.
fn open_soon(file: &Path) -> Result<Store, StoreError> {
    let mut attempts = 0;
    loop {
        match Store::open(file) {
            Err(StoreError::InUse { .. }) if attempts < ATTEMPTS => {
                attempts += 1;
                thread::sleep(AGAIN);
            }
            other => return other,
        }
    }
}

impl Leases {
    /// With an open store.
    pub(super) fn start(store: Store) -> Result<Leases, RunError> {
        let system = |error: std::io::Error| RunError::System(error.to_string());
        let (jobs, to_do) = bounded(ROOM);
        let (done_in, done) = unbounded();
        let (wanted, to_make) = bounded::<IdentityJob>(IDENTITIES);
        let (made_in, made) = bounded(IDENTITIES);
        let stop = Arc::new(AtomicBool::new(false));
        let keeper = thread::Builder::new().name("store".into()).spawn(move || keep(&store, &to_do, &done_in));
        let mut own = StdRng::try_from_rng(&mut SysRng).map_err(|error| RunError::System(error.to_string()))?;
        let stopped = stop.clone();
        let mut make = move || {
            let go_on = || !stopped.load(Ordering::Relaxed);
            to_make.iter().map(|job| job.run(&mut own, &go_on)).try_for_each(|made| made_in.send(made))
        };
        let maker = thread::Builder::new().name("identities".into()).spawn(move || _ = make());
        let threads = vec![keeper.map_err(system)?, maker.map_err(system)?];
        Ok(Leases { jobs: Some(jobs), done, next: None, under_way: 0, wanted: Some(wanted), made, stop, threads })
    }

    /// Hands answers to the engine, and work to the threads. How many answers there were.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        engine: &mut Engine,
        effects: &mut Vec<Effect>,
    ) -> usize {
        let done: Vec<_> = self.done.try_iter().collect();
        self.under_way -= done.len();
        if !done.is_empty() {
            engine.committed(now, rng, &done, effects);
        }
        self.made.try_iter().for_each(|made| engine.identity_made(made));
        self.hand_on(engine);
        while let Some(wanted) = self.wanted.as_ref().filter(|wanted| !wanted.is_full())
            && let Some(job) = engine.next_identity()
        {
            let _ = wanted.try_send(job);
        }
        done.len()
    }

    /// Gives the store what is to be written. To be called again after anything that may want more.
    pub(super) fn hand_on(&mut self, engine: &mut Engine) {
        let Some(jobs) = &self.jobs else { return };
        while let Some(commit) = self.next.take().or_else(|| engine.next_commit()) {
            match jobs.try_send(Job::Commit(commit)) {
                Ok(()) => self.under_way += 1,
                Err(TrySendError::Full(Job::Commit(commit))) => {
                    self.next = Some(commit);
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Whether an answer may come at any moment.
    pub(super) fn are_at_work(&self) -> bool {
        self.under_way > 0
    }

    /// Has a question about the store answered.
    pub(super) fn export(&self, call: Call) {
        let Some(jobs) = &self.jobs else { return call.answer(Response::error("the box is stopping")) };
        if let Err(TrySendError::Full(Job::Export(call)) | TrySendError::Disconnected(Job::Export(call))) =
            jobs.try_send(Job::Export(call))
        {
            call.answer(Response::error("the store has too much to do"));
        }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        // What was given to the store is written; an identity that is being made is nobody's.
        (self.jobs, self.wanted) = (None, None);
        self.stop.store(true, Ordering::Relaxed);
        self.made.try_iter().for_each(drop);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn keep(store: &Store, to_do: &Receiver<Job>, done: &Sender<(u64, Result<(), String>)>) {
    while let Ok(first) = to_do.recv() {
        let (mut commits, mut changes) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Commit(commit) => {
                    changes += commit.changes.len();
                    commits.push(commit);
                }
                // It sees what was written before it came.
                Job::Export(call) => {
                    write(store, std::mem::take(&mut commits), done);
                    call.answer(match store.export() {
                        Ok(export) => Response::Store(Box::new(export)),
                        Err(error) => Response::error(error.to_string()),
                    });
                }
            }
            next = if changes < GROUP { to_do.try_recv().ok() } else { None };
        }
        write(store, commits, done);
    }
}

fn write(store: &Store, commits: Vec<Commit>, done: &Sender<(u64, Result<(), String>)>) {
    if commits.is_empty() {
        return;
    }
    let result = store.commit(commits.iter().flat_map(|commit| &commit.changes)).map_err(|error| error.to_string());
    for commit in commits {
        let _ = done.send((commit.ticket, result.clone()));
    }
}
