//! The daemon's end of the socket: pure transport between connections and whoever reads the channel.
//!
//! One thread accepts; each connection has a small thread, of which there are at most [`CONNECTIONS_MAX`]. A request
//! goes into the channel with a place for its answer, so the engine's thread is asked at moments of its own choosing
//! and no lock is shared with it.

use std::fs;
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{self, RecvTimeoutError, SendTimeoutError, Sender};
use tracing::{debug, warn};

use super::api::{Request, Response};
use super::frame::{self, REQUEST_OCTETS_MAX, ResponseFrame, VERSION};

/// Connections served at one time; another one is told so and closed.
pub const CONNECTIONS_MAX: usize = 8;

/// How long a connection may be silent, or not take its answer.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the engine may take to answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A request and where its answer goes.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Takes one answer; nobody may be waiting for it any more.
    pub reply: Sender<Response>,
}

impl Call {
    /// Sends the answer. One who no longer waits for it does not get it.
    pub fn answer(self, response: Response) {
        let _ = self.reply.try_send(response);
    }
}

/// A socket that is being served, until this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    // Device and inode of our socket, so that we never remove another's.
    identity: (u64, u64),
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another daemon is there.
    #[error("{0}: another daemon answers there")]
    Taken(PathBuf),
    /// The path names something that is not a socket, which is left alone.
    #[error("{0}: is there and no socket")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("{path}: cannot be served: {source}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Server {
    /// Serves `path` (mode 0660), handing requests to `engine`. A socket nobody answers on is replaced.
    pub fn start(path: &Path, engine: Sender<Call>) -> Result<Server, ServerError> {
        let refused = |source| ServerError::Refused { path: path.to_path_buf(), source };
        make_room(path)?;
        let (listener, identity) = bind(path).map_err(refused)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let accepting = thread::Builder::new()
            .name("manage".into())
            .spawn(move || accept(&listener, &engine, &stopped))
            .map_err(refused)?;
        Ok(Server { path: path.to_path_buf(), identity, stop, accepting: Some(accepting) })
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|it| (it.dev(), it.ino()) == self.identity);
        // A connection wakes the accepting thread; when the socket is no longer ours it cannot be woken and ends with
        // the process.
        let woken = ours && UnixStream::connect(&self.path).is_ok();
        if let (true, Some(accepting)) = (woken, self.accepting.take()) {
            let _ = accepting.join();
        }
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes sure that nobody is at `path` and that its directory is there.
fn make_room(path: &Path) -> Result<(), ServerError> {
    let refused = |source| ServerError::Refused { path: path.to_path_buf(), source };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(ServerError::NotASocket(path.to_path_buf())),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused(error)),
            Ok(_) => return Err(ServerError::Taken(path.to_path_buf())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refused(error)),
    }
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => fs::create_dir_all(directory).map_err(refused),
        _ => Ok(()),
    }
}

/// A socket at `path`, which never has another mode than its own: it is made under another name and renamed.
fn bind(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    let placed = fs::set_permissions(&beside, fs::Permissions::from_mode(0o660))
        .and_then(|()| fs::symlink_metadata(&beside))
        .and_then(|metadata| fs::rename(&beside, path).map(|()| (metadata.dev(), metadata.ino())));
    if placed.is_err() {
        let _ = fs::remove_file(&beside);
    }
    Ok((listener, placed?))
}

fn accept(listener: &UnixListener, engine: &Sender<Call>, stop: &AtomicBool) {
    let connections = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors, mostly; without a pause this would be a busy loop.
                warn!(%error, "a management connection was not accepted");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let place = Place::take(&connections);
        let timeouts = stream
            .set_read_timeout(Some(CONNECTION_TIMEOUT))
            .and_then(|()| stream.set_write_timeout(Some(CONNECTION_TIMEOUT)));
        let Some(place) = place.filter(|_| timeouts.is_ok()) else {
            let text = format!("{CONNECTIONS_MAX} connections are open already");
            let _ = respond(&mut stream, Response::error(text));
            continue;
        };
        let engine = engine.clone();
        let spawned = thread::Builder::new().name("manage-one".into()).spawn(move || {
            let _place = place;
            if let Err(error) = converse(stream, &engine) {
                debug!(%error, "a management connection ended");
            }
        });
        if let Err(error) = spawned {
            warn!(%error, "no thread for a management connection");
        }
    }
}

/// Requests and answers, until the other side has no more.
fn converse(mut stream: UnixStream, engine: &Sender<Call>) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    loop {
        let line = match frame::read_line(&mut lines, REQUEST_OCTETS_MAX) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return respond(&mut stream, Response::error(format!("not a request: {error}")));
            }
            Err(error) => return Err(error),
        };
        let response = match frame::parse_request(&line) {
            Ok(request) => ask(engine, request),
            Err(refusal) => Response::Error(refusal),
        };
        respond(&mut stream, response)?;
    }
}

fn ask(engine: &Sender<Call>, request: Request) -> Response {
    let (reply, answer) = channel::bounded(1);
    match engine.send_timeout(Call { request, reply }, ANSWER_TIMEOUT) {
        Ok(()) => {}
        Err(SendTimeoutError::Timeout(_)) => return Response::error("the engine is too busy to be asked"),
        Err(SendTimeoutError::Disconnected(_)) => return Response::error("the engine has stopped"),
    }
    match answer.recv_timeout(ANSWER_TIMEOUT) {
        Ok(response) => response,
        Err(RecvTimeoutError::Timeout) => Response::error("the engine did not answer in time"),
        Err(RecvTimeoutError::Disconnected) => Response::error("the engine has stopped"),
    }
}

fn respond(stream: &mut UnixStream, response: Response) -> io::Result<()> {
    stream.write_all(&frame::line(&ResponseFrame { version: VERSION, response })?)
}

/// One of the places for connections.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(taken: &Arc<AtomicUsize>) -> Option<Place> {
        // Only the accepting thread takes places, so nobody comes between the two steps.
        if taken.load(Ordering::Acquire) >= CONNECTIONS_MAX {
            return None;
        }
        taken.fetch_add(1, Ordering::AcqRel);
        Some(Place(Arc::clone(taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
