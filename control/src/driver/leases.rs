//! Threads for what leases need and the control thread must not wait for: the store, and identities for new clients.
//!
//! The store's thread takes everything that has come in since and writes it in one transaction, so the more there is, the
//! less each change costs. It has the store alone; whoever wants to see it asks this thread.
//!
//! After an error of the disk a store takes nothing more until it is opened anew. So the thread does that, at a pace, for as
//! long as it takes; what is to be written waits meanwhile, and so do its answers, of which the engine allows so many.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded, unbounded};
use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};

use super::{Clock, RunError};
use crate::config::Configuration;
use crate::dhcp::client::Stored as Delegation;
use crate::dhcp::{Change, Duid};
use crate::engine::{Commit, Effect, IdentityJob, Kept, MadeIdentity};
use crate::manage::api::Response;
use crate::manage::server::Call;
use crate::publish::Record;
use crate::store::{Store, StoreError};
use crate::tape::Inputs;
use crate::time::Instant;

/// What may wait for the store; the engine keeps the rest.
const ROOM: usize = 4096;
/// Changes in one transaction, at most.
const GROUP: usize = 1024;
/// How often, and how soon, a store is tried again that somebody else has.
const ATTEMPTS: u32 = 60;
const AGAIN: Duration = Duration::from_millis(50);
/// How soon a store is opened anew after an error, at first; twice as long each time, up to the second.
const REOPEN: Duration = Duration::from_millis(100);
const REOPEN_MAX: Duration = Duration::from_secs(5);
/// Identities that are asked for beforehand.
const IDENTITIES: usize = 64;

enum Job {
    Write(Write),
    Export(Call),
}

/// What is to be written.
enum Write {
    Commit(Commit),
    /// A name that may be in DNS from now on, or is there no more.
    Published(Record, bool),
    /// What a provider delegated, if anything.
    Delegation(String, Option<Delegation>),
}

impl Write {
    fn changes(&self) -> &[Change] {
        match self {
            Write::Commit(commit) => &commit.changes,
            Write::Published(..) | Write::Delegation(..) => &[],
        }
    }

    fn published(&self) -> Option<(String, bool)> {
        match self {
            Write::Commit(_) | Write::Delegation(..) => None,
            Write::Published(record, there) => Some((record.to_string(), *there)),
        }
    }
}

impl Write {
    fn delegation(&self) -> Option<(&str, Option<&Delegation>)> {
        match self {
            Write::Commit(_) | Write::Published(..) => None,
            Write::Delegation(name, delegation) => Some((name, delegation.as_ref())),
        }
    }
}

/// What the store's thread has to say.
enum Report {
    /// This is on disk.
    Written(Write),
    /// This will never be: the box stops.
    Lost(Write, String),
    /// Nothing can be written at present.
    Failed(String),
    /// Something can again.
    Back,
}

/// The threads, and what is between them and the control thread.
pub(super) struct Leases {
    jobs: Option<Sender<Job>>,
    reports: Receiver<Report>,
    /// What found no room.
    next: Option<Write>,
    under_way: usize,
    /// Whether nothing can be written at present, so that no answer is to be expected.
    failed: bool,
    wanted: Option<Sender<IdentityJob>>,
    made: Receiver<MadeIdentity>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// A store, and what it keeps.
pub(super) type Opened = (Store, Kept);

/// Opens the store of a site that has one, and reads what it keeps.
pub(super) fn open(configuration: &Configuration, clock: Clock, rng: &mut dyn Rng) -> Result<Option<Opened>, RunError> {
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
        let (reports_in, reports) = unbounded();
        let (wanted, to_make) = bounded::<IdentityJob>(IDENTITIES);
        let (made_in, made) = bounded(IDENTITIES);
        let stop = Arc::new(AtomicBool::new(false));
        let file = store.file().to_path_buf();
        // Never a new one: what was told is in the old one, which may be on a disk that is not there at the moment.
        let open = move || Store::open_existing(&file);
        let keeper = thread::Builder::new().name("store".into()).spawn(move || {
            Keeper::new(store, open, &reports_in).run(&to_do);
        });
        let mut own = StdRng::try_from_rng(&mut SysRng).map_err(|error| RunError::System(error.to_string()))?;
        let stopped = stop.clone();
        let mut make = move || {
            let go_on = || !stopped.load(Ordering::Relaxed);
            to_make.iter().map(|job| job.run(&mut own, &go_on)).try_for_each(|made| made_in.send(made))
        };
        let maker = thread::Builder::new().name("identities".into()).spawn(move || _ = make());
        let threads = vec![keeper.map_err(system)?, maker.map_err(system)?];
        Ok(Leases {
            jobs: Some(jobs),
            reports,
            next: None,
            under_way: 0,
            failed: false,
            wanted: Some(wanted),
            made,
            stop,
            threads,
        })
    }

    /// Hands answers to the engine, and work to the threads. How many answers there were.
    pub(super) fn turn(&mut self, now: Instant, inputs: &mut Inputs<'_>, effects: &mut Vec<Effect>) -> usize {
        let mut done = Vec::new();
        for report in self.reports.try_iter() {
            match report {
                Report::Written(write) => {
                    self.under_way -= 1;
                    match write {
                        Write::Commit(commit) => done.push((commit.ticket, Ok(()))),
                        Write::Published(record, true) => inputs.published_is_kept(record),
                        Write::Published(_, false) | Write::Delegation(..) => {}
                    }
                }
                Report::Lost(write, reason) => {
                    self.under_way -= 1;
                    if let Write::Commit(commit) = write {
                        done.push((commit.ticket, Err(reason)));
                    }
                }
                Report::Failed(reason) => {
                    self.failed = true;
                    inputs.store_failed(now, Some(reason), effects);
                }
                Report::Back => {
                    self.failed = false;
                    inputs.store_failed(now, None, effects);
                }
            }
        }
        if !done.is_empty() {
            inputs.committed(now, &done, effects);
        }
        self.made.try_iter().for_each(|made| inputs.identity_made(now, made));
        self.hand_on(now, inputs);
        while let Some(wanted) = self.wanted.as_ref().filter(|wanted| !wanted.is_full())
            && let Some(job) = inputs.next_identity(now)
        {
            let _ = wanted.try_send(job);
        }
        done.len()
    }

    /// Gives the store what is to be written. To be called again after anything that may want more.
    pub(super) fn hand_on(&mut self, now: Instant, inputs: &mut Inputs<'_>) {
        let Some(jobs) = &self.jobs else { return };
        let mut next = || {
            if let Some(commit) = inputs.next_commit(now) {
                return Some(Write::Commit(commit));
            }
            if let Some((record, there)) = inputs.next_published() {
                return Some(Write::Published(record, there));
            }
            inputs.next_delegation(now).map(|(name, delegation)| Write::Delegation(name, delegation))
        };
        while let Some(write) = self.next.take().or_else(&mut next) {
            match jobs.try_send(Job::Write(write)) {
                Ok(()) => self.under_way += 1,
                Err(TrySendError::Full(Job::Write(write))) => {
                    self.next = Some(write);
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Whether an answer may come at any moment.
    pub(super) fn are_at_work(&self) -> bool {
        self.under_way > 0 && !self.failed
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

/// The store's thread.
struct Keeper<'a, O> {
    /// None after an error, until it is opened anew.
    store: Option<Store>,
    open: O,
    /// The name that the store's leases were given under: a store with another one is not ours.
    server: Option<Duid>,
    /// What is to be written, in order.
    writes: VecDeque<Write>,
    reports: &'a Sender<Report>,
    /// After a failure: how long was waited for the next attempt, and when that is. New work does not put it off.
    pause: Option<(Duration, std::time::Instant)>,
}

impl<'a, O: FnMut() -> Result<Store, StoreError>> Keeper<'a, O> {
    fn new(store: Store, open: O, reports: &'a Sender<Report>) -> Keeper<'a, O> {
        let server = store.read_duid().ok().flatten();
        Keeper { store: Some(store), open, server, writes: VecDeque::new(), reports, pause: None }
    }

    /// Until nobody can want anything more.
    fn run(mut self, to_do: &Receiver<Job>) {
        loop {
            // While nothing can be written there is time to take in what else comes, and to say so.
            let next = match self.pause {
                Some((_, again)) if !self.writes.is_empty() => to_do.recv_deadline(again),
                Some(_) | None => to_do.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let stops = matches!(next, Err(RecvTimeoutError::Disconnected));
            let (mut next, mut changes) = (next.ok(), 0);
            while let Some(job) = next {
                match job {
                    Job::Write(write) => {
                        changes += write.changes().len().max(1);
                        self.writes.push_back(write);
                    }
                    // It sees what was written before it came.
                    Job::Export(call) => {
                        if self.pause.is_none() {
                            self.write();
                        }
                        call.answer(self.export());
                    }
                }
                next = if changes < GROUP { to_do.try_recv().ok() } else { None };
            }
            if stops || self.pause.is_none_or(|(_, again)| again <= std::time::Instant::now()) {
                self.write();
            }
            if stops {
                let lost = |write: Write| Report::Lost(write, "the box stopped".into());
                self.writes.drain(..).for_each(|write| _ = self.reports.send(lost(write)));
                return;
            }
        }
    }

    fn export(&self) -> Response {
        match self.store.as_ref().map(Store::export) {
            Some(Ok(export)) => Response::Store(Box::new(export)),
            Some(Err(error)) => Response::error(error.to_string()),
            None => Response::error("nothing can be read from the store at present; the log says why"),
        }
    }

    /// Writes what waits, in one transaction after the other. After an error all of it goes on waiting.
    fn write(&mut self) {
        while !self.writes.is_empty() {
            let mut changes = 0;
            let fits = |write: &&Write| {
                let first = changes == 0;
                changes += write.changes().len().max(1);
                first || changes <= GROUP
            };
            let count = self.writes.iter().take_while(fits).count();
            if let Err(error) = self.try_to_write(count) {
                // It may be written all the same. Then it is written twice: each change says how things are, not what to add.
                self.store = None;
                if self.pause.is_none() {
                    let _ = self.reports.send(Report::Failed(error.to_string()));
                }
                let pause = self.pause.map_or(REOPEN, |(pause, _)| (pause * 2).min(REOPEN_MAX));
                self.pause = Some((pause, std::time::Instant::now() + pause));
                return;
            }
            if self.pause.take().is_some() {
                let _ = self.reports.send(Report::Back);
            }
            self.writes.drain(..count).for_each(|write| _ = self.reports.send(Report::Written(write)));
        }
    }

    fn try_to_write(&mut self, count: usize) -> Result<(), StoreError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => {
                let store = (self.open)()?;
                let found = store.read_duid()?;
                if found != self.server {
                    let reason = "it is another server's store".to_owned();
                    return Err(StoreError::Damaged { file: store.file().to_path_buf(), what: "duid".into(), reason });
                }
                store
            }
        };
        let store = self.store.insert(store);
        let writes = || self.writes.iter().take(count);
        if writes().any(|write| write.delegation().is_some()) {
            store.commit_delegations(writes().filter_map(Write::delegation))?;
        }
        if writes().all(|write| write.delegation().is_some()) {
            return Ok(());
        }
        store.commit_with(writes().flat_map(Write::changes), writes().filter_map(Write::published))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::Held;

    fn commit(ticket: u64) -> Job {
        let ulid = std::net::Ipv6Addr::from_bits(ticket.into());
        let held = Held { ulid, locators: Vec::new(), until: ticket, declined: false };
        Job::Write(Write::Commit(Commit { ticket, changes: vec![Change::Hold(held)] }))
    }

    fn ticket(report: &Report) -> Option<u64> {
        match report {
            Report::Written(Write::Commit(commit)) => Some(commit.ticket),
            _ => None,
        }
    }

    #[test]
    fn after_an_error_of_the_disk_everything_waits_and_is_written_when_that_is_over() {
        let directory = std::env::temp_dir().join(format!("pshim6-keeper-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (file, broken) = (directory.join("store.redb"), Arc::new(AtomicBool::new(false)));
        let _ = std::fs::remove_file(&file);
        Store::open(&file).unwrap().duid(&Duid::from_uuid([7; 16])).unwrap();
        let (flag, path) = (broken.clone(), file.clone());
        let open = move || Store::open_faulty(&path, flag.clone());
        let store = Store::open_faulty(&file, broken.clone()).unwrap();
        let (jobs, to_do) = bounded(ROOM);
        let (reports_in, reports) = unbounded();
        let thread = thread::spawn(move || Keeper::new(store, open, &reports_in).run(&to_do));
        let next = || reports.recv_timeout(Duration::from_secs(20)).unwrap();
        jobs.send(commit(1)).unwrap();
        assert_eq!(ticket(&next()), Some(1));
        broken.store(true, Ordering::Relaxed);
        for ticket in 2..=9 {
            jobs.send(commit(ticket)).unwrap();
        }
        assert!(matches!(next(), Report::Failed(_)));
        // It is said once, however often it is tried again.
        assert!(reports.recv_timeout(REOPEN * 6).is_err());
        jobs.send(commit(10)).unwrap();
        broken.store(false, Ordering::Relaxed);
        // More and more to do does not put the next attempt off.
        let more = thread::spawn({
            let jobs = jobs.clone();
            move || {
                for ticket in 13..=112 {
                    thread::sleep(REOPEN / 10);
                    jobs.send(commit(ticket)).unwrap();
                }
            }
        });
        let began = std::time::Instant::now();
        assert!(matches!(next(), Report::Back));
        assert!(began.elapsed() < REOPEN * 9, "the last pause was eight times as long as the first at most");
        for wanted in 2..=10 {
            assert_eq!(ticket(&next()), Some(wanted));
        }
        more.join().unwrap();
        for wanted in 13..=112 {
            assert_eq!(ticket(&next()), Some(wanted));
        }
        let record: Record = "forward h1.example.".parse().unwrap();
        jobs.send(Job::Write(Write::Published(record.clone(), true))).unwrap();
        assert!(matches!(next(), Report::Written(Write::Published(written, true)) if written == record));
        jobs.send(commit(11)).unwrap();
        assert_eq!(ticket(&next()), Some(11));
        // A box that stops while nothing can be written does not wait for it.
        broken.store(true, Ordering::Relaxed);
        jobs.send(commit(12)).unwrap();
        assert!(matches!(next(), Report::Failed(_)));
        drop(jobs);
        assert!(matches!(next(), Report::Lost(Write::Commit(lost), _) if lost.ticket == 12));
        thread.join().unwrap();
        let store = Store::open(&file).unwrap();
        let stored = store.load().unwrap();
        assert_eq!(store.published().unwrap(), [record.to_string()]);
        assert_eq!(
            stored.quarantine.iter().map(|held| held.until).collect::<Vec<_>>(),
            (1..=11).chain(13..=112).collect::<Vec<_>>()
        );
        let _ = std::fs::remove_dir_all(&directory);
    }
}
