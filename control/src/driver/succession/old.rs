//! The running daemon's part: somebody may come at any time who will take its place.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant as WallInstant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};
use tracing::{info, warn};

use super::{Beginning, FromHeir, FromOld, OPENING, VERSION, files, wire};
use crate::config::Site;
use crate::manage::server::{Place, ServerError, Socket, bind};
use crate::tape::Inputs;
use crate::time::Instant;

/// Messages that may wait for the new process to read them.
const AHEAD: usize = 16;
/// Things that go into one message.
const ITEMS: usize = 256;
/// What may come to be told besides twice as much as there was in the beginning.
const LEFT_BESIDES: usize = 1 << 20;
/// Messages made in one turn, so that events of the workers do not wait long.
const MESSAGES_PER_TURN: usize = 2;
/// How long the new process may not read what it is told: it starts DPDK meanwhile. And how long it may then take for it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the listener looks whether it should stop.
const LOOK: Duration = Duration::from_millis(100);

/// Where successors come.
pub(in crate::driver) struct Heirs {
    arrivals: Receiver<UnixStream>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    // Dropped after the thread has ended; removes the file.
    _place: Place,
}

/// A successor that is being told.
pub(in crate::driver) struct Succession {
    out: Option<Sender<Vec<u8>>>,
    said: Receiver<FromHeir>,
    /// What found no room.
    next: Option<Vec<u8>>,
    caught_up: Option<WallInstant>,
    /// More than this to tell says that it never ends.
    most: usize,
    began: WallInstant,
    told: usize,
}

/// What has become of a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::driver) enum Turn {
    /// It is still being told.
    Telling,
    /// It could take over at once.
    Ready,
    /// It is gone.
    Gone,
}

impl Heirs {
    /// Waits for successors at a socket that is for the box's own user alone.
    pub(in crate::driver) fn wait(site: &Site) -> Result<Heirs, ServerError> {
        let (listener, place) = bind(&Socket { path: super::socket_of(site), mode: 0o600, group: None })?;
        let (arrived, arrivals) = bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let listen = move || listen(&listener, &arrived, &stopped);
        let refused = |source| ServerError::Refused { path: super::socket_of(site), source };
        let thread = thread::Builder::new().name("succession".into()).spawn(listen).map_err(refused)?;
        Ok(Heirs { arrivals, stop, thread: Some(thread), _place: place })
    }

    /// Somebody who has just come.
    pub(in crate::driver) fn arrived(&self) -> Option<UnixStream> {
        self.arrivals.try_recv().ok()
    }
}

impl Drop for Heirs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Takes connections; one who comes while another is being told is turned away by the control thread.
fn listen(listener: &UnixListener, arrived: &Sender<UnixStream>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                if greeted(&stream).is_ok() {
                    let _ = arrived.try_send(stream);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(LOOK),
            Err(error) => {
                warn!(%error, "cannot take a successor's connection");
                thread::sleep(LOOK);
            }
        }
    }
}

/// Whether somebody who comes speaks our language. Whoever only looks whether we are there says nothing.
fn greeted(mut stream: &UnixStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    match wire::receive(&mut stream)? {
        FromHeir::Hello(VERSION) => stream.set_read_timeout(None),
        FromHeir::Hello(other) => {
            let text = format!("it speaks version {VERSION} of this, and not {other}; restart it instead");
            wire::send(&mut stream, &FromOld::Refused(text))?;
            Err(io::ErrorKind::Unsupported.into())
        }
        FromHeir::Ready | FromHeir::Running(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl Succession {
    /// Begins to tell somebody.
    pub(in crate::driver) fn begin(
        stream: UnixStream,
        beginning: Beginning,
        interfaces: &[OwnedFd],
        (now, inputs): (Instant, &mut Inputs<'_>),
    ) -> io::Result<Succession> {
        let (out, to_send) = bounded::<Vec<u8>>(AHEAD);
        let (say, said) = bounded(4);
        let (mut reads, mut writes) = (stream.try_clone()?, stream);
        // The stream is empty and has room for both, so nobody waits.
        wire::send(&mut writes, &FromOld::Beginning(Box::new(beginning)))?;
        files::send(&writes, interfaces)?;
        let write = move || {
            // Whoever does not read in time is gone; the reader's thread hears of it by the end of the stream.
            let all = to_send.iter().try_for_each(|octets| io::Write::write_all(&mut writes, &octets));
            if all.is_err() {
                let _ = writes.shutdown(std::net::Shutdown::Both);
            }
        };
        let read = move || {
            while let Ok(message) = wire::receive(&mut reads) {
                if say.send(message).is_err() {
                    return;
                }
            }
        };
        let named = |name: &str| thread::Builder::new().name(name.into());
        // They end with the connection, and nothing of theirs is waited for.
        named("heir-tell").spawn(write)?;
        named("heir-hear").spawn(read)?;
        inputs.begin_bequest(now);
        info!(contexts = inputs.left_to_bequeath(), "a new process takes over; it is told everything");
        let began = WallInstant::now();
        let most = 2 * inputs.left_to_bequeath() + LEFT_BESIDES;
        Ok(Succession { out: Some(out), said, next: None, caught_up: None, most, began, told: 0 })
    }

    /// Tells some more, and hears what there is.
    pub(in crate::driver) fn turn(&mut self, now: Instant, inputs: &mut Inputs<'_>) -> Turn {
        match self.said.try_recv() {
            // What changed since is told when the workers have stopped.
            Ok(FromHeir::Ready) if self.caught_up.is_some() => return Turn::Ready,
            Ok(_) | Err(TryRecvError::Disconnected) => return Turn::Gone,
            Err(TryRecvError::Empty) => {}
        }
        if self.caught_up.is_some_and(|since| since.elapsed() > PATIENCE) || inputs.left_to_bequeath() > self.most {
            warn!("the process that was to take over takes too long");
            return Turn::Gone;
        }
        for _ in 0..MESSAGES_PER_TURN {
            let octets = match self.next.take().map_or_else(|| self.message(now, inputs), |next| Ok(Some(next))) {
                Ok(Some(octets)) => octets,
                Ok(None) => break,
                Err(error) => {
                    warn!(%error, "something cannot be told");
                    return Turn::Gone;
                }
            };
            match self.out.as_ref().map(|out| out.try_send(octets)) {
                Some(Ok(())) => {}
                Some(Err(TrySendError::Full(octets))) => {
                    self.next = Some(octets);
                    break;
                }
                Some(Err(TrySendError::Disconnected(_))) | None => return Turn::Gone,
            }
        }
        Turn::Telling
    }

    /// The next message, if there is something to say.
    fn message(&mut self, now: Instant, inputs: &mut Inputs<'_>) -> io::Result<Option<Vec<u8>>> {
        let mut items = Vec::with_capacity(ITEMS);
        inputs.bequeath(now, ITEMS, &mut items);
        self.told += items.len();
        if items.is_empty() {
            let first = self.caught_up.is_none();
            self.caught_up.get_or_insert_with(WallInstant::now);
            return first.then(|| wire::encode(&FromOld::CaughtUp)).transpose();
        }
        wire::encode(&FromOld::Items(items)).map(Some)
    }

    /// The workers have stopped: tells the rest.
    pub(in crate::driver) fn tell_rest(&mut self, now: Instant, inputs: &mut Inputs<'_>) {
        loop {
            let next = self.next.take().map_or_else(|| self.message(now, inputs), |next| Ok(Some(next)));
            let sent = match next {
                Ok(None) => return,
                Ok(Some(octets)) => self.out.as_ref().is_some_and(|out| out.send_timeout(octets, PATIENCE).is_ok()),
                Err(error) => {
                    warn!(%error, "something cannot be told");
                    false
                }
            };
            if !sent {
                // Without all of it the new process must not run.
                self.out = None;
                return;
            }
        }
    }

    /// The devices are free.
    pub(in crate::driver) fn give_way(&mut self) {
        let yours = wire::encode(&FromOld::Yours).unwrap_or_default();
        if let Some(out) = self.out.take() {
            // Whether it arrives shows in the answer.
            let _ = out.send_timeout(yours, PATIENCE);
        }
    }

    /// The new process, if it runs then.
    pub(in crate::driver) fn runs(self) -> Option<u32> {
        let until = WallInstant::now() + OPENING;
        let process = loop {
            let left = until.saturating_duration_since(WallInstant::now());
            match self.said.recv_timeout(left) {
                Ok(FromHeir::Running(process)) => break process,
                // Said before it knew.
                Ok(FromHeir::Ready) => {}
                Ok(FromHeir::Hello(_)) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return None;
                }
            }
        };
        info!(process, told = self.told, after = ?self.began.elapsed(), "the new process runs");
        Some(process)
    }
}
