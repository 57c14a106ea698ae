//! The thread with the sockets at which routers tell of routes.
//!
//! Nothing here is shared with the control thread but two bounded queues: what it asks about, and what it is told. When the second
//! is full, news waits in the station, where later news of the same takes its place.
//!
//! What strangers can cost is bounded: those at the handshake have places of their own and five seconds, those behind it a place
//! each, ten seconds for a first message and thirty for each that has begun. What is read is given to the station before more is
//! read, so a router that tells faster than it is understood waits (TCP sees to that). A router whose machine is gone is found out
//! by TCP's own keepalives.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use nix::sys::socket::{setsockopt, sockopt};
use ring::digest::{SHA256, digest};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{self, LocalSet};
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::counts::{Count, Counts};
use super::message::{HEADER_LEN, length_of};
use super::station::{Change, ConnectionId, Refused, Station, Status};
use crate::config::bmp::Bmp;
use crate::config::tls::Tls;
use crate::time::Instant;

/// Connections whose handshake is going on at one time.
pub const HANDSHAKES_MAX: usize = 16;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a router may take until its first message is there.
const FIRST: Duration = Duration::from_secs(10);
/// How long a message that has begun may take.
const MESSAGE: Duration = Duration::from_secs(30);
/// How often the engine is told, at most.
const TELL: Duration = Duration::from_millis(5);
/// How often it is told how everything stands.
const STATUS_EVERY: u32 = 200;
/// News on its way to the control thread.
const NEWS: usize = 1024;
/// Questions on their way from it.
const WISHES: usize = 4096;
/// Keepalives of TCP: the first after so many seconds of silence, then so often, and so many.
const KEEPALIVE: (u32, u32, u32) = (30, 10, 3);

/// What the control thread is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A route is lost, or is there again.
    Route(Change),
    /// How everything stands, about once in a second.
    Status(Box<Status>),
}

/// What the control thread wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// About this /64, by the first half of its addresses.
    Ask(u64),
    /// Not about it any more.
    Forget(u64),
}

/// How patient the station is; shorter in tests only.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the first message.
    pub first: Duration,
    /// For one that has begun.
    pub message: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { first: FIRST, message: MESSAGE }
    }
}

/// The station and its thread, until this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    counts: Arc<Counts>,
    news: Receiver<News>,
    wishes: mpsc::Sender<Wish>,
    /// Certificates for connections that come later.
    acceptor: watch::Sender<Option<Acceptor>>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

/// What all connections share; there is one thread.
struct Shared {
    station: RefCell<Station>,
    counts: Arc<Counts>,
    patience: Patience,
    began: tokio::time::Instant,
    next: RefCell<ConnectionId>,
    places: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
}

impl Shared {
    fn now(&self) -> Instant {
        Instant(self.began.elapsed())
    }
}

impl Server {
    /// Listens at `bmp.listen`.
    ///
    /// # Errors
    /// The address cannot be listened at, or there is no thread.
    pub fn open(settings: &Bmp, tls: Option<&Tls>, patience: Patience) -> io::Result<Server> {
        let listener = StdListener::bind(settings.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        let (told, news) = bounded(NEWS);
        let (wishes, asked) = mpsc::channel(WISHES);
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (renew, acceptor) = watch::channel(tls.map(acceptor));
        let (settings, own) = (Arc::new(settings.clone()), Arc::clone(&counts));
        let serving = move || {
            let all = async move {
                let shared = Rc::new(Shared {
                    station: RefCell::new(Station::new(Arc::clone(&settings), Arc::clone(&own))),
                    counts: own,
                    patience,
                    began: tokio::time::Instant::now(),
                    next: RefCell::new(0),
                    places: Arc::new(Semaphore::new(settings.routers_max.into())),
                    handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
                });
                match TcpListener::from_std(listener) {
                    Ok(listener) => {
                        task::spawn_local(accept(listener, settings, acceptor, Rc::clone(&shared)));
                    }
                    Err(error) => warn!(%error, "routers cannot be listened to"),
                }
                task::spawn_local(tell(Rc::clone(&shared), told));
                task::spawn_local(hear(shared, asked));
                // Also when whoever would say so is gone.
                let _ = stopped.await;
            };
            runtime.block_on(LocalSet::new().run_until(all));
        };
        let serving = thread::Builder::new().name("bmp".into()).spawn(serving)?;
        Ok(Server { address, counts, news, wishes, acceptor: renew, stop: Some(stop), serving: Some(serving) })
    }

    /// Shows connections that come later these certificates, and asks for theirs by these authorities. Routers that are connected
    /// stay so: what they have told would have to be told again. Plain ones stay plain.
    pub fn renew(&self, tls: &Tls) {
        self.acceptor.send_if_modified(|known| known.is_some() && known.replace(acceptor(tls)).is_some());
    }

    /// Where routers connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happened so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What there is to be told next, if there is something.
    pub fn news(&self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// Asks, if there is room for a question; otherwise it is to be asked again.
    pub fn wish(&self, wish: Wish) -> bool {
        // A thread that is gone would answer nothing, so nobody shall wait for it.
        !matches!(self.wishes.try_send(wish), Err(mpsc::error::TrySendError::Full(_)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

/// The protocol above TLS has no name there.
fn acceptor(tls: &Tls) -> Acceptor {
    let mut config = ServerConfig::clone(&tls.server());
    config.alpn_protocols.clear();
    Acceptor(TlsAcceptor::from(Arc::new(config)))
}

/// What shakes hands with routers.
#[derive(Clone)]
struct Acceptor(TlsAcceptor);

impl fmt::Debug for Acceptor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Acceptor")
    }
}

async fn accept(
    listener: TcpListener,
    settings: Arc<Bmp>,
    acceptor: watch::Receiver<Option<Acceptor>>,
    shared: Rc<Shared>,
) {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly; without a pause this would be a busy loop.
                warn!(%error, "a router's connection was not accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        shared.counts.add(Count::Connections);
        let from = from.ip().to_canonical();
        if !settings.from.is_empty() && !settings.from.contains(&from) {
            shared.counts.add(Count::NotFrom);
            continue;
        }
        let acceptor = acceptor.borrow().as_ref().map(|it| it.0.clone());
        let shared = Rc::clone(&shared);
        if let Err(error) = keep_alive(&stream) {
            debug!(%error, "a connection without keepalives");
        }
        task::spawn_local(admit(stream, from, acceptor, shared));
    }
}

fn keep_alive(stream: &TcpStream) -> nix::Result<()> {
    let (idle, between, count) = KEEPALIVE;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &idle)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &between)?;
    setsockopt(stream, sockopt::TcpKeepCount, &count)
}

/// The handshake, a place, and all that the router says.
async fn admit(stream: TcpStream, from: IpAddr, acceptor: Option<TlsAcceptor>, shared: Rc<Shared>) {
    let Some(acceptor) = acceptor else { return seat(stream, from, None, &shared).await };
    let Ok(handshake) = Arc::clone(&shared.handshakes).try_acquire_owned() else {
        return shared.counts.add(Count::TurnedAway);
    };
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            debug!(%error, %from, "a router's handshake failed");
            return shared.counts.add(Count::NoHandshake);
        }
        Err(_) => return shared.counts.add(Count::TooSlow),
    };
    drop(handshake);
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let name = certificate.map(|it| digest(&SHA256, it).as_ref().iter().map(|octet| format!("{octet:02x}")).collect());
    seat(stream, from, name.map(|name: String| name.into()), &shared).await;
}

async fn seat<S: AsyncRead + Unpin>(stream: S, from: IpAddr, certificate: Option<Arc<str>>, shared: &Shared) {
    let Ok(_place) = Arc::clone(&shared.places).try_acquire_owned() else {
        return shared.counts.add(Count::TurnedAway);
    };
    let id = shared.next.replace_with(|next| *next + 1);
    info!(%from, certificate = certificate.as_deref(), "a router has connected");
    shared.station.borrow_mut().connected(shared.now(), id, from, certificate);
    let why = listen(stream, id, shared).await;
    info!(%from, %why, "a router's connection has ended");
    shared.station.borrow_mut().closed(shared.now(), id);
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("closed: {0}")]
    Closed(#[from] io::Error),
    #[error("a message took too long")]
    TooSlow,
    #[error("{0}")]
    Refused(#[from] Refused),
}

async fn listen<S: AsyncRead + Unpin>(mut stream: S, id: ConnectionId, shared: &Shared) -> Ended {
    let mut buffer = Vec::new();
    let mut first = true;
    loop {
        let patience = if first { Some(shared.patience.first) } else { None };
        if let Err(ended) = read(&mut stream, &mut buffer, patience, shared).await {
            if matches!(ended, Ended::TooSlow) {
                shared.counts.add(Count::TooSlow);
            }
            return ended;
        }
        first = false;
        if let Err(refused) = shared.station.borrow_mut().message(shared.now(), id, &buffer) {
            return refused.into();
        }
        // So that one who has much to say does not keep out the others.
        task::yield_now().await;
    }
}

/// Reads a message into `buffer`. It may be waited for as long as it takes, but for the first one; it may not take long itself.
async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    patience: Option<Duration>,
    shared: &Shared,
) -> Result<(), Ended> {
    let mut header = [0; HEADER_LEN];
    let begun = stream.read_exact(&mut header[..1]);
    match patience {
        Some(patience) => timeout(patience, begun).await.map_err(|_| Ended::TooSlow)??,
        None => begun.await?,
    };
    let rest = async {
        stream.read_exact(&mut header[1..]).await?;
        let length = length_of(&header).map_err(|error| {
            shared.counts.add(Count::Malformed);
            Ended::Refused(error.into())
        })?;
        buffer.clear();
        buffer.extend_from_slice(&header);
        // Room for what is there, not for what is said to come: that is said by anybody.
        let mut left = length - HEADER_LEN;
        let mut piece = [0; 4096];
        while left > 0 {
            let most = left.min(piece.len());
            let got = stream.read(&mut piece[..most]).await?;
            if got == 0 {
                return Err(Ended::Closed(io::ErrorKind::UnexpectedEof.into()));
            }
            buffer.extend_from_slice(&piece[..got]);
            left -= got;
        }
        Ok(())
    };
    let patience = patience.map_or(shared.patience.message, |patience| patience.min(shared.patience.message));
    timeout(patience, rest).await.map_err(|_| Ended::TooSlow)?
}

/// Tells the control thread, as far as there is room.
async fn tell(shared: Rc<Shared>, told: Sender<News>) {
    let mut ticks = interval(TELL);
    for turn in 0u32.. {
        ticks.tick().await;
        let now = shared.now();
        let mut station = shared.station.borrow_mut();
        if station.deadline().is_some_and(|due| due <= now) {
            station.expire(now);
        }
        while station.has_news() {
            let Some(change) = station.take(1).pop() else { break };
            if let Err(TrySendError::Full(News::Route(change))) = told.try_send(News::Route(change)) {
                station.put_back(&change);
                break;
            }
        }
        if turn % STATUS_EVERY == 0 {
            // The next one will do as well.
            let _ = told.try_send(News::Status(Box::new(station.status(now))));
        }
    }
}

/// Hears what the control thread wants to know.
async fn hear(shared: Rc<Shared>, mut asked: mpsc::Receiver<Wish>) {
    while let Some(wish) = asked.recv().await {
        let mut station = shared.station.borrow_mut();
        match wish {
            Wish::Ask(peer) => station.ask(peer),
            Wish::Forget(peer) => station.forget(peer),
        }
    }
}
