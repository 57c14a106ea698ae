//! Connections to other boxes of the site: TLS, threads and time. What is said over them is decided elsewhere.
//!
//! One thread serves them all. Whoever is called or calls has to show a certificate of the site's authority before anything is
//! read of it, and to say something sensible before it may say much.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;
use std::{io, thread};

use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracing::{info, warn};

use crate::config::sync::{Sync, SyncFiles};
use crate::sync::{Frame, FromHearer, FromTeller, GREETING_MAX, LENGTH_MAX, SILENCE, decode};

/// How long a handshake may take, and how many there may be at one time.
const HANDSHAKE: Duration = Duration::from_secs(5);
const HANDSHAKES_MAX: usize = 8;
/// When somebody who could not be reached, or hung up, is called again.
const AGAIN: Duration = Duration::from_millis(500);
/// When a port that is taken is tried again: by the process before this one, for a moment.
const PORT_TAKEN: Duration = Duration::from_millis(200);
/// Messages on their way to the control thread, and frames of one connection on their way out.
const SAID_MAX: usize = 64;
const FRAMES_MAX: usize = 16;

/// A connection's number.
pub(super) type LinkId = u64;
/// Where frames of a connection go out; it ends when this is dropped.
pub(super) type Out = mpsc::Sender<Frame>;

/// What happened on the connections.
#[derive(Debug)]
pub(super) enum Event {
    /// A box that we tell was reached.
    Reached(usize, LinkId, Out),
    /// It says something.
    Answered(LinkId, FromHearer),
    /// Somebody who tells us has come, from there.
    Came(LinkId, IpAddr, Out),
    /// It says something.
    Said(LinkId, FromTeller),
    /// A connection is over.
    Gone(LinkId),
    /// A box that we tell was not reached.
    Unreached(usize, String),
}

/// What strangers did, and others who cannot be understood.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Connections that came to no handshake: nobody's certificate, or one of another authority, or no TLS at all.
    pub(super) handshakes: AtomicU64,
    /// Connections that ended because what came was no message.
    pub(super) nonsense: AtomicU64,
}

/// The thread with the connections. It ends with the program.
/// What is sent to the other end of it takes the place of `files` for connections that come later.
pub(super) fn start(
    sync: &Sync,
    files: &SyncFiles,
    refusals: Arc<Refusals>,
) -> io::Result<(mpsc::Receiver<Event>, watch::Sender<SyncFiles>)> {
    let (say, said) = mpsc::channel(SAID_MAX);
    let shared = Shared { say, refusals, links: Rc::default() };
    // Made anew in the thread: what is here is not for two threads.
    let Shared { say, refusals, .. } = shared;
    let sync = sync.clone();
    let (renew, files) = watch::channel(files.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("sync".into()).spawn(move || {
        let shared = Rc::new(Shared { say, refusals, links: Rc::default() });
        let local = LocalSet::new();
        for (at, peer) in sync.peers.iter().enumerate() {
            local.spawn_local(call(at, *peer, files.clone(), shared.clone()));
        }
        runtime.block_on(local.run_until(listen(sync, files, shared)));
    })?;
    Ok((said, renew))
}

struct Shared {
    say: mpsc::Sender<Event>,
    refusals: Arc<Refusals>,
    links: Rc<RefCell<LinkId>>,
}

impl Shared {
    fn next_link(&self) -> LinkId {
        let mut links = self.links.borrow_mut();
        *links += 1;
        *links
    }

    /// Whether there is still somebody to say it to.
    async fn say(&self, event: Event) -> bool {
        self.say.send(event).await.is_ok()
    }
}

/// Calls one box again and again.
async fn call(at: usize, peer: SocketAddr, files: watch::Receiver<SyncFiles>, shared: Rc<Shared>) {
    loop {
        let connector = TlsConnector::from(files.borrow().client.clone());
        let reach = async {
            let stream = TcpStream::connect(peer).await?;
            stream.set_nodelay(true)?;
            connector.connect(ServerName::from(peer.ip()), stream).await
        };
        let reached = timeout(HANDSHAKE, reach).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match reached {
            Ok(stream) => {
                let (link, (out, frames)) = (shared.next_link(), mpsc::channel(FRAMES_MAX));
                if !shared.say(Event::Reached(at, link, out)).await {
                    return;
                }
                let stream = RefCell::new(stream);
                let hear = hear(&stream, &shared, LENGTH_MAX, |answer| Event::Answered(link, answer));
                either(pin!(hear), pin!(write(&stream, frames))).await;
                if !shared.say(Event::Gone(link)).await {
                    return;
                }
            }
            Err(error) => {
                if !shared.say(Event::Unreached(at, error.to_string())).await {
                    return;
                }
            }
        }
        sleep(AGAIN).await;
    }
}

/// Takes calls.
async fn listen(sync: Sync, files: watch::Receiver<SyncFiles>, shared: Rc<Shared>) {
    let address = sync.listen;
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut told = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    warn!(%address, %error, "other boxes cannot tell this one anything yet");
                }
                sleep(PORT_TAKEN).await;
            }
        }
    };
    info!(%address, "other boxes of the site may tell us");
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            sleep(PORT_TAKEN).await;
            continue;
        };
        // Whoever calls from elsewhere is none of the others, and takes no place from them.
        let caller = from.ip().to_canonical();
        if sync.peers.iter().all(|peer| peer.ip().to_canonical() != caller) {
            shared.refusals.handshakes.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let Ok(place) = handshakes.clone().try_acquire_owned() else {
            shared.refusals.handshakes.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let (acceptor, shared) = (TlsAcceptor::from(files.borrow().server.clone()), shared.clone());
        spawn_local(async move {
            let _ = stream.set_nodelay(true);
            let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await;
            drop(place);
            let Ok(Ok(stream)) = stream else {
                shared.refusals.handshakes.fetch_add(1, Ordering::Relaxed);
                return;
            };
            let (link, (out, frames)) = (shared.next_link(), mpsc::channel(FRAMES_MAX));
            if !shared.say(Event::Came(link, from.ip(), out)).await {
                return;
            }
            let stream = RefCell::new(stream);
            let hear = hear(&stream, &shared, GREETING_MAX, |said| Event::Said(link, said));
            either(pin!(hear), pin!(write(&stream, frames))).await;
            shared.say(Event::Gone(link)).await;
        });
    }
}

/// Reads messages until there are none, or what comes is none. The first is not longer than `first_max`.
async fn hear<S: AsyncRead + Unpin, T: DeserializeOwned>(
    stream: &RefCell<S>,
    shared: &Shared,
    first_max: usize,
    event: impl Fn(T) -> Event,
) {
    let mut longest = first_max;
    loop {
        let read = timeout(SILENCE, message(stream, longest)).await;
        let octets = match read {
            Ok(Ok(Some(octets))) => octets,
            Ok(Ok(None)) => {
                shared.refusals.nonsense.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ok(Err(_)) | Err(_) => return,
        };
        let Some(message) = decode(&octets) else {
            shared.refusals.nonsense.fetch_add(1, Ordering::Relaxed);
            return;
        };
        longest = LENGTH_MAX;
        if !shared.say(event(message)).await {
            return;
        }
    }
}

/// The next message; nothing if it says that it is longer than it may be.
async fn message<S: AsyncRead + Unpin>(stream: &RefCell<S>, longest: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    read(stream, &mut length).await?;
    let length = u32::from_le_bytes(length) as usize;
    if length > longest {
        return Ok(None);
    }
    let mut octets = vec![0; length];
    read(stream, &mut octets).await?;
    Ok(Some(octets))
}

async fn read<S: AsyncRead + Unpin>(stream: &RefCell<S>, octets: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < octets.len() {
        let some = poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut octets[filled..]);
            let polled = Pin::new(&mut *stream.borrow_mut()).poll_read(context, &mut buffer);
            polled.map_ok(|()| buffer.filled().len())
        });
        match some.await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            some => filled += some,
        }
    }
    Ok(())
}

/// Writes frames until nobody makes any more, or they cannot be written.
async fn write<S: AsyncWrite + Unpin>(stream: &RefCell<S>, mut frames: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        let written = timeout(SILENCE, async {
            let mut left = &frame[..];
            while !left.is_empty() {
                let some = poll_fn(|context| Pin::new(&mut *stream.borrow_mut()).poll_write(context, left)).await?;
                left = left.get(some..).filter(|_| some > 0).ok_or(io::ErrorKind::WriteZero)?;
            }
            if frames.is_empty() {
                poll_fn(|context| Pin::new(&mut *stream.borrow_mut()).poll_flush(context)).await?;
            }
            Ok::<(), io::Error>(())
        });
        if !matches!(written.await, Ok(Ok(()))) {
            return;
        }
    }
    // What was written last may be why the connection ends.
    let _ = timeout(SILENCE, poll_fn(|context| Pin::new(&mut *stream.borrow_mut()).poll_shutdown(context))).await;
}

/// Both, until one of them ends.
async fn either(mut one: Pin<&mut impl Future<Output = ()>>, mut other: Pin<&mut impl Future<Output = ()>>) {
    poll_fn(|context| match (one.as_mut().poll(context), other.as_mut().poll(context)) {
        (Poll::Pending, Poll::Pending) => Poll::Pending,
        _ => Poll::Ready(()),
    })
    .await;
}
