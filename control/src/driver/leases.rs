//! Threads for what leases need and the control thread must not wait for: the store, and identities for new clients.
//!
//! The store's thread takes everything that has come in since and writes it in one transaction, so the more there is, the
//! less each change costs. It has the store alone; whoever wants to see it asks this thread.
//!
//! A store that boxes share has a thread more, which hears what the others write ([`watcher`](super::watcher)).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded, never, unbounded};
use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};

use super::keeper::{Job, Keeper, Report, Write};
use super::watcher::Others;
use super::{Clock, RunError};
use crate::config::Configuration;
use crate::config::cluster::Access;
use crate::dhcp::Duid;
use crate::engine::{Effect, IdentityJob, Kept, MadeIdentity};
use crate::manage::api::Response;
use crate::manage::server::Call;
use crate::store::shared::claim::Claim;
use crate::store::shared::etcd::{Client, Renewal, Settings};
use crate::store::shared::{Document, Shared};
use crate::store::{News, Storage, Store, StoreError};
use crate::tape::Inputs;
use crate::time::Instant;

/// What may wait for the store; the engine keeps the rest.
const ROOM: usize = 4096;
/// How often, and how soon, a store is tried again that somebody else has.
const ATTEMPTS: u32 = 60;
const AGAIN: Duration = Duration::from_millis(50);
/// How long a box that knows nothing yet waits for the store that it shares with others.
const FIRST: Duration = Duration::from_secs(20);
/// Identities that are asked for beforehand.
const IDENTITIES: usize = 64;

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
    /// Whether what is made has to be reserved before it is given.
    reserves: bool,
    /// What waits for that.
    reserving: VecDeque<MadeIdentity>,
    /// The number of the last news of other boxes.
    seen: u64,
    /// Files that boxes share, as they are told of.
    documents: Vec<Document>,
    /// Whether others are heard again since that was asked last.
    back: bool,
    /// Why they are not.
    alone: Option<String>,
    /// Who else goes by this box's name.
    rival: Option<String>,
    /// What takes other certificates and passwords for the store.
    renewal: Option<Renewal>,
    /// Changes of files that wait for room.
    changed: VecDeque<(&'static str, Option<String>)>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// A store, how it is opened anew after an error, and what is to be heard of others, if there are any.
pub(super) struct Opened {
    pub(super) store: Box<dyn Storage>,
    open: Box<dyn FnMut() -> Result<Box<dyn Storage>, StoreError> + Send>,
    others: Option<Others>,
    renewal: Option<Renewal>,
    /// What it keeps.
    pub(super) kept: Kept,
    /// Files that boxes share, as this one had heard of them before.
    pub(super) documents: Vec<Document>,
}

/// Opens the store of a site that has one, and reads what it keeps.
pub(super) fn open(configuration: &Configuration, clock: Clock, rng: &mut dyn Rng) -> Result<Option<Opened>, RunError> {
    let site = &configuration.site;
    let Some(file) = site.store.clone() else { return Ok(None) };
    let mut documents = Vec::new();
    let mut renewal = None;
    let (mut store, open, others): (Box<dyn Storage>, Box<dyn FnMut() -> _ + Send>, _) = match &site.cluster {
        None => {
            let store = soon(|| Store::open(&file))?;
            // Never a new one: what was told is in the old one, which may be on a disk that is not there at the moment.
            let open = move || Ok(Box::new(Store::open_existing(&file)?) as Box<dyn Storage>);
            (Box::new(store), Box::new(open), None)
        }
        Some(cluster) => {
            let settings = Settings::load(cluster).map_err(|problem| RunError::Policy(problem.to_string()))?;
            let node = site.node.name.clone();
            let mut store = soon(|| Shared::open(&file, &node, client(&settings)?))?;
            documents = store.documents();
            let mut fresh = || format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64());
            let instance = store.identify(&fresh())?;
            let claim = Claim::new(&node, instance, fresh(), machine());
            let others = Others::find(&mut store, &settings, claim, FIRST)?;
            renewal = Some(settings.renewal());
            let tried = store.tried();
            let open = move || {
                Store::open_existing(&file)?;
                let store = Shared::open(&file, &node, client(&settings)?)?.counting(tried.clone());
                Ok(Box::new(store) as Box<dyn Storage>)
            };
            (Box::new(store), Box::new(open), Some(others))
        }
    };
    let mut uuid = [0; 16];
    rng.fill_bytes(&mut uuid);
    let duid = store.duid(&Duid::from_uuid(uuid))?;
    let (stored, reserved) = (store.load()?, store.reserved()?);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| RunError::System(error.to_string()))?;
    let epoch = wall.saturating_sub(clock.now().0).as_secs();
    Ok(Some(Opened { store, open, others, renewal, kept: Kept { duid, stored, reserved, epoch }, documents }))
}

/// What people call this machine.
fn machine() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    if name.is_empty() { "a machine without a name".to_owned() } else { name.into_owned() }
}

/// A conversation with the cluster of a store.
pub(super) fn client(settings: &Settings) -> Result<Client, StoreError> {
    let wrong = |error: std::io::Error| StoreError::Cluster { name: "etcd".into(), reason: error.to_string() };
    Client::new(settings.clone()).map_err(wrong)
}

/// A daemon that was killed a moment ago lets go of its files when the last of its threads has ended.
fn soon<T>(mut open: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let mut attempts = 0;
    loop {
        match open() {
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
    pub(super) fn start(opened: Opened) -> Result<Leases, RunError> {
        let Opened { store, open, others, renewal, .. } = opened;
        let reserves = store.is_shared();
        let system = |error: std::io::Error| RunError::System(error.to_string());
        let (jobs, to_do) = bounded(ROOM);
        let (reports_in, reports) = unbounded();
        let (wanted, to_make) = bounded::<IdentityJob>(IDENTITIES);
        let (made_in, made) = bounded(IDENTITIES);
        let stop = Arc::new(AtomicBool::new(false));
        let (heard, again) = others.map(|others| others.listen(&stop)).transpose().map_err(system)?.unzip();
        let again = again.unwrap_or_default();
        let keeper = thread::Builder::new().name("store".into()).spawn(move || {
            Keeper::new(store, open, again, &reports_in).run(&to_do, &heard.unwrap_or_else(never));
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
            reserves,
            reserving: VecDeque::new(),
            seen: 0,
            documents: Vec::new(),
            back: false,
            alone: None,
            rival: None,
            renewal,
            changed: VecDeque::new(),
            stop,
            threads,
        })
    }

    /// Hands answers to the engine, and work to the threads. How many answers there were.
    pub(super) fn turn(&mut self, now: Instant, inputs: &mut Inputs<'_>, effects: &mut Vec<Effect>) -> usize {
        let (mut done, mut answers) = (Vec::new(), 0);
        for report in self.reports.try_iter() {
            match report {
                Report::Written(write) => {
                    self.under_way -= usize::from(write.is_awaited());
                    match write {
                        Write::Commit(commit) => done.push((commit.ticket, Ok(()))),
                        Write::Published(record, true) => inputs.published_is_kept(record),
                        Write::Reserve(made) => inputs.identity_made(now, made),
                        _ => {}
                    }
                }
                Report::Lost(write, reason) => {
                    self.under_way -= usize::from(write.is_awaited());
                    match write {
                        Write::Commit(commit) => done.push((commit.ticket, Err(reason))),
                        Write::Reserve(made) => inputs.identity_made(now, made.spoilt()),
                        // What another box wrote instead is told by itself.
                        Write::Document(name, ..) => {
                            let (engine, _) = inputs.unrecorded();
                            engine.store_conflict(format!("{name}: {reason}"), effects);
                        }
                        _ => {}
                    }
                }
                Report::News(news) => {
                    // What was written before it was heard is taken in before.
                    inputs.committed(now, &std::mem::take(&mut done), effects);
                    // A box with a shared store is not recorded.
                    let (engine, rng) = inputs.unrecorded();
                    answers += 1;
                    match news {
                        News::Changed(changes, number) => {
                            self.seen = number;
                            engine.store_changed(now, rng, (changes, number), effects);
                        }
                        News::Document(document, number) => {
                            self.seen = number;
                            engine.store_heard(number);
                            self.documents.push(document);
                        }
                        News::Alone(reason) => {
                            self.back |= reason.is_none();
                            self.alone.clone_from(&reason);
                            engine.store_alone(reason, effects);
                        }
                        News::Conflict(what) => engine.store_conflict(what, effects),
                        News::Name(rival) => {
                            if self.rival != rival {
                                engine.store_name(rival.clone(), effects);
                            }
                            self.rival = rival;
                        }
                        News::Unreadable(row) => engine.store_unreadable(row, effects),
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
        for made in self.made.try_iter() {
            match self.reserves && made.identity.is_some() {
                true => self.reserving.push_back(made),
                false => inputs.identity_made(now, made),
            }
        }
        self.hand_on(now, inputs);
        while let Some(wanted) = self.wanted.as_ref().filter(|wanted| !wanted.is_full())
            && let Some(job) = inputs.next_identity(now)
        {
            let _ = wanted.try_send(job);
        }
        answers + done.len()
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
            if let Some((name, delegation)) = inputs.next_delegation(now) {
                return Some(Write::Delegation(name, delegation));
            }
            let reserved = self.reserving.pop_front().map(Write::Reserve);
            reserved
                .or_else(|| self.changed.pop_front().map(|(name, text)| Write::Document(name, text, self.seen)))
                .or_else(|| inputs.next_released(now).filter(|_| self.reserves).map(Write::Release))
        };
        while let Some(write) = self.next.take().or_else(&mut next) {
            let awaited = write.is_awaited();
            match jobs.try_send(Job::Write(write)) {
                Ok(()) => self.under_way += usize::from(awaited),
                Err(TrySendError::Full(Job::Write(write))) => {
                    self.next = Some(write);
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Files that others wrote, and whether they can be heard again since this was asked last.
    pub(super) fn documents(&mut self) -> (Vec<Document>, bool) {
        (std::mem::take(&mut self.documents), std::mem::take(&mut self.back))
    }

    /// Has a file told to others. A later word on the same one takes the place of one that waits.
    pub(super) fn share(&mut self, name: &'static str, text: Option<String>) {
        self.changed.retain(|(waits, _)| *waits != name);
        self.changed.push_back((name, text));
    }

    /// If the store is shared with other boxes: why they cannot be heard, if they cannot, and who goes by this one's name.
    pub(super) fn shared(&self) -> Option<(Option<String>, Option<String>)> {
        self.reserves.then(|| (self.alone.clone(), self.rival.clone()))
    }

    /// Speaks to the cluster with these certificates and this password from now on.
    pub(super) fn renew(&self, access: &Access) {
        if let Some(renewal) = &self.renewal {
            renewal.renew(access);
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
