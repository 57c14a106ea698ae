//! The thread that waits for the kernel: for frames it sends by our interfaces, and for changes of its addresses and routes.

use std::fs::File;
use std::io::{self, Read};
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use dataplane::snapshot::PortId;
use netlink_sys::Socket;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tracing::{error, warn};

use super::netlink::{Netlink, listen};

/// What may wait for the control thread.
const NEWS_MAX: usize = 1024;
/// Frames taken of one interface before the others have their turn.
const FRAMES: usize = 64;
/// Largest frame: jumbo and its Ethernet header.
const FRAME_MAX: usize = 9216 + 64;
/// How soon after one look at addresses and routes the next may follow: a routing daemon changes many at once.
const GAP: Duration = Duration::from_millis(50);
/// How long nothing is looked at if nothing is said: the kernel may have had no room to say it.
const QUIET: Duration = Duration::from_secs(1);

/// An interface, as this thread has it.
pub(super) struct Watched {
    pub(super) port: PortId,
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) file: File,
}

/// What is told to the control thread.
#[derive(Debug)]
pub(super) enum News {
    /// The kernel sends this frame by the interface of a port.
    Frame(PortId, Vec<u8>),
    /// It has these addresses there.
    Addresses(PortId, Vec<Ipv6Addr>),
    /// Its gateway to the hosts.
    Gateway(Option<Ipv6Addr>),
    /// Somebody removed the interface.
    Gone(PortId),
}

/// The thread. It ends when this is dropped.
pub(super) struct Watch {
    news: Receiver<News>,
    lost: Arc<AtomicU64>,
    wake: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to watch. `inside` is the port of the hosts, and an address among theirs.
    pub(super) fn start(watched: Vec<Watched>, inside: (PortId, Ipv6Addr)) -> io::Result<Watch> {
        let (tell, news) = bounded(NEWS_MAX);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let lost = Arc::new(AtomicU64::new(0));
        let watcher = Watcher {
            seen: watched.iter().map(|_| None).collect(),
            gateway: None,
            gone: Vec::new(),
            watched,
            inside,
            changes: listen()?,
            netlink: Netlink::open()?,
            tell,
            lost: lost.clone(),
            stop: wake.try_clone()?,
        };
        let thread = thread::Builder::new().name("system".into()).spawn(move || watcher.run())?;
        Ok(Watch { news, lost, wake, thread: Some(thread) })
    }

    /// The next piece of news.
    pub(super) fn next(&self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// Frames that found no room since this was asked last.
    pub(super) fn lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the thread that watches the system ended in a panic");
        }
    }
}

struct Watcher {
    watched: Vec<Watched>,
    /// What was told last, in the same order.
    seen: Vec<Option<Vec<Ipv6Addr>>>,
    gateway: Option<Option<Ipv6Addr>>,
    /// Ports whose interface is gone, until that could be told.
    gone: Vec<PortId>,
    inside: (PortId, Ipv6Addr),
    changes: Socket,
    netlink: Netlink,
    tell: Sender<News>,
    lost: Arc<AtomicU64>,
    stop: OwnedFd,
}

impl Watcher {
    fn run(mut self) {
        let mut room = vec![0; FRAME_MAX];
        let mut looked = Instant::now();
        self.look();
        let mut dirty = false;
        loop {
            self.tell_gone();
            dirty |= !self.gone.is_empty();
            let wait = (looked + if dirty { GAP } else { QUIET }).saturating_duration_since(Instant::now());
            let ready = match self.wait(wait) {
                Ok(ready) => ready,
                Err(error) => return error!(%error, "nothing is heard of the system any more"),
            };
            if ready.stop {
                return;
            }
            if ready.changes {
                self.drain(&mut room);
                dirty = true;
            }
            // Addresses first, since what is sent from a new one would be taken for somebody else's.
            let age = looked.elapsed();
            if dirty && age >= GAP || age >= QUIET {
                (looked, dirty) = (Instant::now(), !self.look());
            }
            for at in ready.frames.into_iter().rev() {
                if !self.frames(at, &mut room) {
                    let gone = self.watched.remove(at);
                    self.seen.remove(at);
                    error!(interface = gone.name, "the interface is gone; a restart makes it again");
                    self.gone.push(gone.port);
                }
            }
        }
    }

    /// Tells what is gone. What finds no room is told the next time: a port that the engine believes to be shared gets its packets
    /// given to nobody.
    fn tell_gone(&mut self) {
        let gone = std::mem::take(&mut self.gone);
        self.gone = gone.into_iter().filter(|port| !self.say(News::Gone(*port))).collect();
    }

    fn wait(&self, wait: Duration) -> io::Result<Ready> {
        let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let mut files: Vec<PollFd<'_>> =
            vec![PollFd::new(&self.stop, PollFlags::IN), PollFd::new(&self.changes, PollFlags::IN)];
        files.extend(self.watched.iter().map(|it| PollFd::new(&it.file, PollFlags::IN)));
        match poll(&mut files, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = files.iter().map(|file| !file.revents().is_empty()).collect();
        let frames = ready.iter().skip(2).enumerate().filter(|(_, ready)| **ready).map(|(at, _)| at).collect();
        Ok(Ready { stop: ready[0], changes: ready[1], frames })
    }

    /// What exactly has changed does not matter: it is looked at anew.
    fn drain(&self, room: &mut [u8]) {
        loop {
            match self.changes.recv(&mut &mut *room, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It had no room for something; the next look finds it.
                Err(_) => return,
            }
        }
    }

    /// Takes frames of an interface. False if there is no such interface any more.
    fn frames(&mut self, at: usize, room: &mut [u8]) -> bool {
        let Some(Watched { port, file, .. }) = self.watched.get_mut(at) else { return true };
        for _ in 0..FRAMES {
            match file.read(room) {
                Ok(length) => {
                    let frame = room.get(..length).unwrap_or_default().to_vec();
                    if self.tell.try_send(News::Frame(*port, frame)).is_err() {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Looks at addresses and at the way to the hosts. False if something could not be told and has to be looked at again.
    fn look(&mut self) -> bool {
        let mut told = true;
        for at in 0..self.watched.len() {
            let Watched { port, index, .. } = self.watched[at];
            match self.netlink.addresses(index) {
                Ok(found) if self.seen[at].as_ref() != Some(&found) => {
                    let said = self.say(News::Addresses(port, found.clone()));
                    self.seen[at] = said.then_some(found);
                    told &= said;
                }
                Ok(_) => {}
                Err(error) => warn!(%error, "the system's addresses cannot be read"),
            }
        }
        let inner = self.watched.iter().find(|it| it.port == self.inside.0).map(|it| it.index);
        match self.netlink.way_to(self.inside.1) {
            Ok(way) => {
                let gateway = way.filter(|(index, _)| Some(*index) == inner).and_then(|(_, gateway)| gateway);
                if self.gateway != Some(gateway) {
                    let said = self.say(News::Gateway(gateway));
                    self.gateway = said.then_some(gateway);
                    told &= said;
                }
            }
            Err(error) => warn!(%error, "the system's routes cannot be read"),
        }
        told
    }

    /// False if there is no room for it.
    fn say(&self, news: News) -> bool {
        !matches!(self.tell.try_send(news), Err(TrySendError::Full(_)))
    }
}

struct Ready {
    stop: bool,
    changes: bool,
    /// Places of interfaces that have something.
    frames: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_gone_is_told_of_when_there_is_room_again() {
        let (tell, news) = bounded(1);
        let mut watcher = Watcher {
            watched: Vec::new(),
            seen: Vec::new(),
            gateway: None,
            gone: vec![PortId(1), PortId(2)],
            inside: (PortId(0), Ipv6Addr::LOCALHOST),
            changes: listen().unwrap(),
            netlink: Netlink::open().unwrap(),
            tell,
            lost: Arc::default(),
            stop: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
        };
        let mut told = Vec::new();
        for _ in 0..3 {
            watcher.tell_gone();
            told.extend(news.try_iter());
        }
        assert!(matches!(told[..], [News::Gone(PortId(1)), News::Gone(PortId(2))]), "{told:?}");
    }
}
