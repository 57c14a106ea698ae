//! A thread that hears what other boxes write into the store that they share with this one.
//!
//! It reads everything, and then what comes after. When that breaks off, or nobody can say whether it still comes, it reads
//! everything again. So the store's thread never has to know what it missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant as WallInstant};

use crossbeam::channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};

use super::leases::client;
use crate::store::shared::claim::Claim;
use crate::store::shared::etcd::{Client, Settings};
use crate::store::shared::{Cluster, ClusterError, Heard, Shared};
use crate::store::{Storage, StoreError};

/// What may wait for the store's thread.
const ROOM: usize = 256;
/// How long is waited for something to come before a look at what else there is to do.
const NAP: Duration = Duration::from_millis(200);
/// How often the cluster is asked whether it answers, and whether something was missed.
const PROBE: Duration = Duration::from_secs(3);
/// How soon it is tried again, at first and at last.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// For how long something has to have been followed to be worth following again at once.
const LASTED: Duration = Duration::from_secs(5);

/// The other boxes, by way of the cluster.
pub(super) struct Others {
    /// For what comes, and for questions meanwhile.
    clients: [Client; 2],
    /// What was read already.
    read: Option<u64>,
    /// What the store's thread has tried to write.
    tried: Arc<AtomicU64>,
    claim: Claim,
}

impl Others {
    /// Has a store hear everything, as soon as the cluster answers. One that knows something already does not wait: nothing of a
    /// box that takes over may stand still for as long as an answer takes, and what it knows is what it would go on with alone.
    ///
    /// # Errors
    /// The box knows nothing yet and another one goes by its name: `claim` is refused for as long as that one lives.
    pub(super) fn find(
        store: &mut Shared<Client>,
        settings: &Settings,
        mut claim: Claim,
        time: Duration,
    ) -> Result<Others, StoreError> {
        let (mut reader, mut asker) = (client(settings)?, client(settings)?);
        let tried = store.tried();
        if store.read_duid()?.is_some() {
            return Ok(Others { clients: [reader, asker], read: None, tried, claim });
        }
        let began = WallInstant::now();
        let read = loop {
            match reader.read_all() {
                Ok(all) => {
                    // Its lease ends a moment after the box before this one did, if that is not there any more.
                    if let Ok(Some(rival)) = claim.hold(&mut asker) {
                        if began.elapsed() > time {
                            claim.give_up(&mut asker);
                            return Err(StoreError::Cluster { name: reader.name(), reason: rival });
                        }
                        thread::sleep(AGAIN);
                        continue;
                    }
                    let revision = all.revision;
                    keeping(&mut claim, &mut asker, || store.hear(Heard::All(all)))?;
                    break store.alone().is_none().then_some(revision);
                }
                Err(error) if began.elapsed() > time || matches!(error, ClusterError::Refused(_)) => {
                    store.hear(Heard::Lost(error.to_string()))?;
                    break None;
                }
                Err(_) => thread::sleep(AGAIN),
            }
        };
        Ok(Others { clients: [reader, asker], read, tried, claim })
    }

    /// Starts the thread, which ends soon after `stop` is set. What it hears, and what to set so that it reads everything
    /// again.
    pub(super) fn listen(self, stop: &Arc<AtomicBool>) -> std::io::Result<(Receiver<Heard>, Arc<AtomicBool>)> {
        let (heard_in, heard) = bounded(ROOM);
        let again = Arc::new(AtomicBool::new(false));
        let (stop, asked) = (stop.clone(), again.clone());
        let Others { clients, read, tried, claim } = self;
        // Nobody waits for its end: it may be waiting for an answer that does not come.
        thread::Builder::new().name("store-watch".into()).spawn(move || {
            Watcher { clients, heard: heard_in, again: asked, tried, claim, stop, pause: AGAIN }.run(read);
        })?;
        Ok((heard, again))
    }
}

struct Watcher {
    clients: [Client; 2],
    heard: Sender<Heard>,
    again: Arc<AtomicBool>,
    tried: Arc<AtomicU64>,
    claim: Claim,
    stop: Arc<AtomicBool>,
    pause: Duration,
}

/// Does something that may take long, and says all the while that this box lives.
fn keeping<T>(claim: &mut Claim, asker: &mut Client, work: impl FnOnce() -> T) -> T {
    let (over_in, over) = bounded::<()>(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            while over.recv_timeout(PROBE) == Err(RecvTimeoutError::Timeout) {
                // Who else goes by the name is told when that is followed.
                let _ = claim.hold(asker);
            }
        });
        // Its end ends the other one's.
        let _over = over_in;
        work()
    })
}

/// That nobody listens any more.
struct Over;

impl Watcher {
    fn run(mut self, read: Option<u64>) {
        self.hear(read);
        self.claim.give_up(&mut self.clients[1]);
    }

    fn hear(&mut self, mut read: Option<u64>) {
        while !self.stop.load(Ordering::Relaxed) {
            // Reading and following may fail again and again where this does not.
            let _ = self.claim.hold(&mut self.clients[1]);
            let from = match read.take() {
                Some(revision) => Ok(revision),
                None => self.read_all(),
            };
            let Ok(from) = from else { return };
            let began = WallInstant::now();
            if from > 0 && self.follow(from).is_err() {
                return;
            }
            // Reading all is dear, and what could be followed for a moment only will soon have to be read again.
            self.pause = if began.elapsed() < LASTED { (self.pause * 2).min(AGAIN_MAX) } else { AGAIN };
            thread::sleep(self.pause);
        }
    }

    /// The revision up to which all is known now, 0 if that failed.
    fn read_all(&mut self) -> Result<u64, Over> {
        self.again.store(false, Ordering::Relaxed);
        let tried = self.tried.load(Ordering::SeqCst);
        let Watcher { clients: [reader, asker], claim, .. } = self;
        let mut held = WallInstant::now();
        let read = reader.read_all_and(&mut || {
            if held.elapsed() >= PROBE {
                let _ = claim.hold(asker);
                held = WallInstant::now();
            }
        });
        match read {
            Ok(all) => {
                let revision = all.revision;
                self.tell(Heard::Read(all, tried))?;
                Ok(revision)
            }
            Err(error) => {
                self.tell(Heard::Lost(error.to_string()))?;
                Ok(0)
            }
        }
    }

    /// Passes on what comes, for as long as it does.
    fn follow(&mut self, from: u64) -> Result<(), Over> {
        let Ok(mut watch) = self.clients[0].watch(from + 1) else { return Ok(()) };
        let (mut known, mut missed, mut asked) = (from, None, WallInstant::now());
        let mut named = None;
        self.claim(&mut named)?;
        while !self.stop.load(Ordering::Relaxed) && !self.again.load(Ordering::Relaxed) {
            match self.clients[0].next(&mut watch, NAP) {
                Ok(Some(events)) if events.rows.is_empty() => {}
                Ok(Some(events)) => {
                    known = known.max(events.revision);
                    self.tell(Heard::Since(events))?;
                }
                Ok(None) => {}
                Err(_) => return Ok(()),
            }
            if asked.elapsed() >= PROBE {
                asked = WallInstant::now();
                // What was written and did not come until the next question will not come.
                match self.clients[1].newest() {
                    Ok((_, last)) if last > known && missed == Some(last) => return Ok(()),
                    Ok((_, last)) => missed = Some(last),
                    Err(_) => return Ok(()),
                }
                self.claim(&mut named)?;
            }
            if self.clients[0].is_outdated() {
                // Who we are there has changed, so what was opened with other papers is over.
                return Ok(());
            }
        }
        Ok(())
    }

    /// Says that this box lives, and tells who else goes by its name if that is not what is `known`.
    fn claim(&mut self, known: &mut Option<Option<String>>) -> Result<(), Over> {
        match self.claim.hold(&mut self.clients[1]) {
            Ok(rival) if known.as_ref() != Some(&rival) => {
                *known = Some(rival.clone());
                self.tell(Heard::Name(rival))
            }
            // Whether the cluster answers is found out otherwise.
            _ => Ok(()),
        }
    }

    /// Waits for room if there is none, and says meanwhile that this box lives.
    fn tell(&mut self, mut heard: Heard) -> Result<(), Over> {
        loop {
            match self.heard.send_timeout(heard, PROBE) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Disconnected(_)) => return Err(Over),
                Err(SendTimeoutError::Timeout(back)) => {
                    heard = back;
                    let _ = self.claim.hold(&mut self.clients[1]);
                }
            }
        }
    }
}
