//! The store's thread.
//!
//! After an error of the disk a store takes nothing more until it is opened anew. So the thread does that, at a pace, for as
//! long as it takes; what is to be written waits meanwhile, and so do its answers, of which the engine allows so many.

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as WallInstant};

use crossbeam::channel::{Receiver, Sender};
use crossbeam::select;

use crate::dhcp::client::Stored as Delegation;
use crate::dhcp::{Change, Duid};
use crate::engine::{Commit, MadeIdentity};
use crate::manage::api::Response;
use crate::manage::server::Call;
use crate::publish::Record;
use crate::store::shared::Heard;
use crate::store::{Entry, News, Storage, StoreError, Verdict};

/// Changes in one transaction, at most.
const GROUP: usize = 1024;
/// How soon a store is opened anew after an error, at first; twice as long each time, up to the second.
const REOPEN: Duration = Duration::from_millis(100);
const REOPEN_MAX: Duration = Duration::from_secs(5);
/// Longest wait when nothing is due.
const LONG: Duration = Duration::from_secs(3600);

pub(super) enum Job {
    Write(Write),
    Export(Call),
}

/// What is to be written.
pub(super) enum Write {
    Commit(Commit),
    /// A name that may be in DNS from now on, or is there no more.
    Published(Record, bool),
    /// What a provider delegated, if anything.
    Delegation(String, Option<Delegation>),
    /// An identity that this box alone may give to a client from now on.
    Reserve(MadeIdentity),
    /// One that it will give to nobody.
    Release(Ipv6Addr),
    /// A file that boxes share says this, and the last news that were heard of.
    Document(&'static str, Option<String>, u64),
}

impl Write {
    fn changes(&self) -> &[Change] {
        match self {
            Write::Commit(commit) => &commit.changes,
            _ => &[],
        }
    }

    /// Whether somebody waits for it at this moment.
    pub(super) fn is_awaited(&self) -> bool {
        !matches!(self, Write::Reserve(_) | Write::Release(_) | Write::Document(..))
    }

    /// None if there is nothing to write.
    fn entry(&self) -> Option<Entry<'_>> {
        Some(match self {
            Write::Commit(commit) => Entry::Changes(&commit.changes, commit.seen),
            Write::Published(record, there) => Entry::Published(record.to_string(), *there),
            Write::Delegation(name, delegation) => Entry::Delegation(name, delegation.as_ref()),
            Write::Reserve(made) => Entry::Reserve(made.identity.as_ref()?),
            Write::Release(ulid) => Entry::Release(*ulid),
            Write::Document(name, text, seen) => Entry::Document(name, text.clone(), *seen),
        })
    }
}

/// What the store's thread has to say.
pub(super) enum Report {
    /// This is on disk.
    Written(Write),
    /// This will never be: somebody else was first, or the box stops.
    Lost(Write, String),
    /// Nothing can be written at present.
    Failed(String),
    /// Something can again.
    Back,
    /// What other boxes have to do with it.
    News(News),
}

/// The store's thread.
pub(super) struct Keeper<'a> {
    /// None after an error, until it is opened anew.
    store: Option<Box<dyn Storage>>,
    open: Box<dyn FnMut() -> Result<Box<dyn Storage>, StoreError> + Send>,
    /// Set to have everything read again from the cluster that several boxes share.
    again: Arc<AtomicBool>,
    /// Whether that cannot be reached.
    alone: bool,
    /// The name that the store's leases were given under: a store with another one is not ours.
    server: Option<Duid>,
    /// What is to be written, in order.
    writes: VecDeque<Write>,
    /// What is to be reserved when the cluster is back.
    reserving: VecDeque<Write>,
    reports: &'a Sender<Report>,
    /// After a failure: how long was waited for the next attempt, and when that is. New work does not put it off.
    pause: Option<(Duration, WallInstant)>,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(
        mut store: Box<dyn Storage>,
        open: Box<dyn FnMut() -> Result<Box<dyn Storage>, StoreError> + Send>,
        again: Arc<AtomicBool>,
        reports: &'a Sender<Report>,
    ) -> Keeper<'a> {
        let server = store.read_duid().ok().flatten();
        let (writes, reserving, store) = (VecDeque::new(), VecDeque::new(), Some(store));
        let mut keeper = Keeper { store, open, again, alone: false, server, writes, reserving, reports, pause: None };
        keeper.tell();
        keeper
    }

    /// Until nobody can want anything more.
    pub(super) fn run(mut self, to_do: &Receiver<Job>, heard: &Receiver<Heard>) {
        loop {
            // While nothing can be written there is time to take in what else comes, and to say so.
            let wait = match self.pause {
                Some((_, again)) if !self.writes.is_empty() => again.saturating_duration_since(WallInstant::now()),
                Some(_) | None => LONG,
            };
            let (mut next, mut stops) = (None, false);
            select! {
                recv(to_do) -> job => match job {
                    Ok(job) => next = Some(job),
                    Err(_) => stops = true,
                },
                recv(heard) -> heard => if let Ok(heard) = heard { self.hear(heard) },
                default(wait) => {}
            }
            self.take(next, to_do);
            if stops || self.pause.is_none_or(|(_, again)| again <= WallInstant::now()) {
                self.write();
            }
            if stops {
                let lost = |write: Write| Report::Lost(write, "the box stopped".into());
                self.writes.drain(..).for_each(|write| _ = self.reports.send(lost(write)));
                return;
            }
        }
    }

    /// Takes this job and those that are behind it, as many as go together.
    fn take(&mut self, mut next: Option<Job>, to_do: &Receiver<Job>) {
        let mut changes = 0;
        while let Some(job) = next {
            match job {
                Job::Write(write @ Write::Reserve(_)) if self.alone => self.reserving.push_back(write),
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
    }

    fn export(&mut self) -> Response {
        match self.store.as_mut().map(|store| store.export()) {
            Some(Ok(export)) => Response::Store(Box::new(export)),
            Some(Err(error)) => Response::error(error.to_string()),
            None => Response::error("nothing can be read from the store at present; the log says why"),
        }
    }

    /// Takes in what the cluster says.
    fn hear(&mut self, heard: Heard) {
        match self.store.as_mut().map(|store| store.hear(heard)) {
            Some(Ok(())) => {
                self.tell();
                // What was read may be older than what was written last, or another site's.
                if self.store.as_ref().is_some_and(|store| store.is_refused() || store.is_alone()) {
                    self.again.store(true, Ordering::Relaxed);
                }
            }
            Some(Err(error)) => self.fail(&error),
            // All of it is asked for when there is a store again.
            None => {}
        }
    }

    /// Passes on what the store has to tell of others.
    fn tell(&mut self) {
        for news in self.store.as_mut().map(|store| store.news()).unwrap_or_default() {
            if let News::Alone(reason) = &news {
                self.alone = reason.is_some();
                if self.alone {
                    self.again.store(true, Ordering::Relaxed);
                } else {
                    self.writes.extend(self.reserving.drain(..));
                }
            }
            let _ = self.reports.send(Report::News(news));
        }
    }

    fn fail(&mut self, error: &StoreError) {
        // It may be written all the same. Then it is written twice: each change says how things are, not what to add.
        self.store = None;
        if self.pause.is_none() {
            let _ = self.reports.send(Report::Failed(error.to_string()));
        }
        let pause = self.pause.map_or(REOPEN, |(pause, _)| (pause * 2).min(REOPEN_MAX));
        self.pause = Some((pause, WallInstant::now() + pause));
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
            let verdicts = match self.try_to_write(count) {
                Ok(verdicts) => verdicts,
                Err(error) => return self.fail(&error),
            };
            if self.pause.take().is_some() {
                let _ = self.reports.send(Report::Back);
            }
            let writes: Vec<Write> = self.writes.drain(..count).collect();
            for (write, verdict) in writes.into_iter().zip(verdicts) {
                let report = match verdict {
                    Verdict::Written => Report::Written(write),
                    // It waits for the others to be heard again.
                    Verdict::Refused(_) if self.is_alone() && matches!(write, Write::Reserve(_)) => {
                        self.reserving.push_back(write);
                        continue;
                    }
                    Verdict::Refused(reason) => Report::Lost(write, reason),
                };
                let _ = self.reports.send(report);
            }
            self.tell();
        }
    }

    fn is_alone(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.is_alone())
    }

    fn try_to_write(&mut self, count: usize) -> Result<Vec<Verdict>, StoreError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => {
                let mut store = (self.open)()?;
                let found = store.read_duid()?;
                if found != self.server {
                    let reason = "it is another server's store".to_owned();
                    return Err(StoreError::Damaged { file: store.name().into(), what: "duid".into(), reason });
                }
                self.again.store(true, Ordering::Relaxed);
                store
            }
        };
        let store = self.store.insert(store);
        let entries: Vec<Option<Entry<'_>>> = self.writes.iter().take(count).map(Write::entry).collect();
        let wanted: Vec<Entry<'_>> = entries.iter().flatten().cloned().collect();
        let mut verdicts = store.write(&wanted)?.into_iter();
        // What says nothing is written.
        let verdict = |entry: &Option<Entry<'_>>| match entry {
            Some(_) => verdicts.next().unwrap_or(Verdict::Written),
            None => Verdict::Written,
        };
        Ok(entries.iter().map(verdict).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use crossbeam::channel::{bounded, never, unbounded};

    use super::*;
    use crate::dhcp::{Duid, Held};
    use crate::store::Store;

    const ROOM: usize = 4096;

    fn commit(ticket: u64) -> Job {
        let ulid = std::net::Ipv6Addr::from_bits(ticket.into());
        let held = Held { ulid, locators: Vec::new(), until: ticket, declined: false };
        Job::Write(Write::Commit(Commit { ticket, changes: vec![Change::Hold(held)], seen: 0 }))
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
        let open = move || Ok(Box::new(Store::open_faulty(&path, flag.clone())?) as Box<dyn Storage>);
        let store = Box::new(Store::open_faulty(&file, broken.clone()).unwrap());
        let (jobs, to_do) = bounded(ROOM);
        let (reports_in, reports) = unbounded();
        let thread = thread::spawn(move || {
            Keeper::new(store, Box::new(open), Arc::default(), &reports_in).run(&to_do, &never())
        });
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
