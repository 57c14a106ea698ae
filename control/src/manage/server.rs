//! The daemon's end of the API: HTTP/1.1 over Unix sockets and TLS, pure transport between connections and whoever reads the
//! channel.
//!
//! One thread runs everything here (tokio, nowhere else in the daemon). A request goes into the channel with a place for its
//! answer, so the engine's thread is asked at moments of its own choosing and no lock is shared with it; what an answer looks
//! like as JSON is worked out here. There are up to six doors, each with connections of its own, so that those who look
//! cannot keep out those who have to act:
//!
//! | door | who | what |
//! |---|---|---|
//! | `box.control_socket` | operators | everything |
//! | `manage.read_socket` | whoever may look | everything but orders, traces and the store |
//! | `manage.listen` | who has a certificate, each role at a door of its own behind the handshake | as the sockets |
//! | `metrics.listen` | Prometheus | `/metrics` |
//! | `web.listen` | browsers of this machine | the page and what it asks |

mod counts;
mod http;
mod page;
mod socket;
mod tls;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::Sender;
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tracing::error;

use super::api::{Request, Response};
use crate::config::Site;
use crate::config::tls::Tls;
use http::{Caller, Door, Shared};
pub(crate) use socket::{Place, bind};

/// Connections served at one time at each door; another one is told so and closed.
pub const CONNECTIONS_MAX: usize = 8;

/// How long a connection may be silent, take for a request, or not take its answer.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections over TLS whose handshake is going on at one time; beyond that they are closed without a word.
pub const HANDSHAKES_MAX: usize = 64;

/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the engine may take to answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest head or body of a request in octets; the longest real ones have less than a thousand.
pub const REQUEST_OCTETS_MAX: usize = 16 * 1024;

/// A request and where its answer goes.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    reply: oneshot::Sender<Response>,
}

impl Call {
    /// Sends the answer. One who no longer waits for it does not get it.
    pub fn answer(self, response: Response) {
        let _ = self.reply.send(response);
    }
}

/// A Unix socket, and who may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Where it is.
    pub path: PathBuf,
    /// Its file mode.
    pub mode: u32,
    /// Its group, by name or number; that of the process if none is named.
    pub group: Option<String>,
}

/// Where the daemon can be asked, and how fast it has to be done with it. Times are shorter in tests only.
#[derive(Clone, Debug)]
pub struct Doors {
    /// For operators.
    pub control: Socket,
    /// For those who may look.
    pub read: Option<Socket>,
    /// For Prometheus.
    pub metrics: Option<SocketAddr>,
    /// For those who have a certificate, and what decides which role it gives them.
    pub tls: Option<(SocketAddr, Arc<Tls>)>,
    /// For browsers of this machine.
    pub web: Option<SocketAddr>,
    /// Whether the page is there for those with a certificate, too.
    pub web_over_tls: bool,
    /// In place of [`CONNECTION_TIMEOUT`].
    pub patience: Duration,
}

impl Doors {
    /// One socket at `path`, mode 0660.
    pub fn at(path: &Path) -> Doors {
        let control = Socket { path: path.to_path_buf(), mode: 0o660, group: None };
        let patience = CONNECTION_TIMEOUT;
        Doors { control, read: None, metrics: None, tls: None, web: None, web_over_tls: false, patience }
    }

    /// As the configuration says; `tls` is what `manage.listen` and its files came to.
    pub fn of(site: &Site, tls: Option<Arc<Tls>>) -> Doors {
        let read = site.manage.read.as_ref();
        Doors {
            control: Socket {
                path: site.node.control_socket.clone(),
                mode: site.manage.mode,
                group: site.manage.group.clone(),
            },
            read: read.map(|it| Socket { path: it.path.clone(), mode: it.mode, group: it.group.clone() }),
            metrics: site.metrics.listen,
            tls: site.manage.tls.as_ref().map(|files| files.listen).zip(tls),
            web: site.web.listen,
            web_over_tls: site.web.over_tls,
            patience: CONNECTION_TIMEOUT,
        }
    }
}

/// Sockets that are being served, until this is dropped.
#[derive(Debug)]
pub struct Server {
    // Dropped after the thread has ended; each removes its file.
    places: Vec<Place>,
    metrics: Option<SocketAddr>,
    tls: Option<(SocketAddr, Renewal)>,
    web: Option<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another daemon is there.
    #[error("{0}: another daemon is there")]
    Taken(PathBuf),
    /// The path names something that is not a socket, which is left alone.
    #[error("{0}: is there and no socket")]
    NotASocket(PathBuf),
    /// The group does not exist.
    #[error("{path}: there is no group called {group}")]
    NoGroup {
        /// The socket.
        path: PathBuf,
        /// The group.
        group: String,
    },
    /// The system refused.
    #[error("{path}: cannot be served: {source}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system refused to listen.
    #[error("{address}: cannot be listened at: {source}")]
    Deaf {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl Server {
    /// Serves `path` (mode 0660), handing requests to `engine`. A socket nobody answers on is replaced.
    pub fn start(path: &Path, engine: Sender<Call>) -> Result<Server, ServerError> {
        Self::open(&Doors::at(path), engine)
    }

    /// Serves all doors, or none.
    pub fn open(doors: &Doors, engine: Sender<Call>) -> Result<Server, ServerError> {
        let mut listeners = Vec::new();
        let mut places = Vec::new();
        for (door, wanted) in [(Door::Control, Some(&doors.control)), (Door::Read, doors.read.as_ref())] {
            let Some(wanted) = wanted else { continue };
            let (listener, place) = socket::bind(wanted)?;
            listeners.push((Caller::at(door), Listener::Unix(listener)));
            places.push(place);
        }
        let mut metrics = None;
        if let Some(address) = doors.metrics {
            let (listener, own) = hear(address)?;
            metrics = Some(own);
            listeners.push((Caller::at(Door::Metrics), Listener::Tcp(listener)));
        }
        let mut web = None;
        if let Some(address) = doors.web {
            let (listener, own) = hear(address)?;
            web = Some(own);
            listeners.push((Caller::browser(own), Listener::Tcp(listener)));
        }
        let mut tls = None;
        if let Some((address, files)) = &doors.tls {
            let (listener, own) = hear(*address)?;
            let (renewal, current) = watch::channel(Arc::clone(files));
            tls = Some((own, Renewal(renewal)));
            listeners.push((Caller::remote(doors.web_over_tls), Listener::Tls(listener, current)));
        }
        let refused = |source| ServerError::Refused { path: doors.control.path.clone(), source };
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(refused)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let shared = Arc::new(Shared::new(engine, doors.patience));
        let serving = move || {
            runtime.block_on(async {
                for (caller, listener) in listeners {
                    if let Err(error) = http::listen(caller, listener, &shared) {
                        error!(%error, "a management socket is not served");
                    }
                }
                // Also when whoever would say so is gone.
                let _ = stopped.await;
            });
        };
        let serving = thread::Builder::new().name("manage".into()).spawn(serving).map_err(refused)?;
        Ok(Server { places, metrics, tls, web, stop: Some(stop), serving: Some(serving) })
    }

    /// The socket for operators.
    pub fn path(&self) -> &Path {
        self.places.first().map_or(Path::new(""), Place::path)
    }

    /// Where Prometheus is answered.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Where the page is.
    pub fn web(&self) -> Option<SocketAddr> {
        self.web
    }

    /// Where those with a certificate are answered, and what changes whose certificates those are.
    pub fn tls(&self) -> Option<(SocketAddr, Renewal)> {
        self.tls.clone()
    }
}

/// Has new connections judged by other files. Those that are open end with the answer they are at, so that nobody stays who
/// would not be let in any more.
#[derive(Clone, Debug)]
pub struct Renewal(watch::Sender<Arc<Tls>>);

impl Renewal {
    /// From now on.
    pub fn renew(&self, tls: Arc<Tls>) {
        self.0.send_replace(tls);
    }
}

fn hear(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let deaf = |source| ServerError::Deaf { address, source };
    let listener = TcpListener::bind(address).map_err(deaf)?;
    listener.set_nonblocking(true).map_err(deaf)?;
    let own = listener.local_addr().map_err(deaf)?;
    Ok((listener, own))
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

/// Where connections come from.
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
    Tls(TcpListener, watch::Receiver<Arc<Tls>>),
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
