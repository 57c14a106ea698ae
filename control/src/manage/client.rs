//! The other end of the socket: one question, one answer, over HTTP.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::Uri;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;

use super::api::{Request, Response};
use super::operations::{self, Method, Operation};
use super::problem::Problem;
use crate::config::Site;

/// How long the daemon may take: longer than it gives its engine, so that its own words arrive.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Longest answer in octets: 100 thousand contexts and more.
const RESPONSE_OCTETS_MAX: usize = 256 * 1024 * 1024;

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    sender: SendRequest<Full<Bytes>>,
    runtime: Runtime,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("daemon not running at {path}: {source}")]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket is for others.
    #[error("no access to the daemon at {path}: {source}")]
    NoAccess {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("the daemon at {path} did not answer: {reason}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The daemon speaks another version, or something else altogether.
    #[error("the daemon at {path} answers what cannot be understood: {text}")]
    NotUnderstood {
        /// The socket.
        path: PathBuf,
        /// Why.
        text: String,
    },
    /// The daemon's own words.
    #[error("{text}")]
    Refused {
        /// The words.
        text: String,
        /// HTTP's number for them.
        status: u16,
    },
}

impl Client {
    /// Connects to the daemon of a site: by its socket for operators or, for those who may not use that one, by the one for
    /// reading.
    pub fn reach(site: &Site) -> Result<Client, ClientError> {
        let control = Self::connect(&site.node.control_socket);
        match (&control, &site.manage.read) {
            (Err(ClientError::NoAccess { .. }), Some(read)) => Self::connect(&read.path),
            _ => control,
        }
    }

    /// Connects to the daemon at `path`.
    pub fn connect(path: &Path) -> Result<Client, ClientError> {
        let absent = |source: io::Error| {
            let path = path.to_path_buf();
            match source.kind() {
                io::ErrorKind::PermissionDenied => ClientError::NoAccess { path, source },
                _ => ClientError::NotRunning { path, source },
            }
        };
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(absent)?;
        let opened = runtime.block_on(async {
            let stream = UnixStream::connect(path).await.map_err(absent)?;
            let broken =
                |error: hyper::Error| ClientError::Broken { path: path.to_path_buf(), reason: error.to_string() };
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
            // It goes on while there is somebody who waits for an answer; what it ends with is told there.
            tokio::spawn(connection);
            Ok(sender)
        });
        Ok(Client { path: path.to_path_buf(), sender: opened?, runtime })
    }

    /// Asks and waits. What the daemon does not do comes back as [`ClientError::Refused`].
    pub fn call(&mut self, request: Request) -> Result<Response, ClientError> {
        let unknown = || self.not_understood("the question has no place in the API".into());
        let (operation, given) = operations::of(&request).ok_or_else(unknown)?;
        let given = given.map_err(|text| self.not_understood(text))?;
        let asked = self.request(operation, given)?;
        let (path, sender) = (&self.path, &mut self.sender);
        let broken = |reason: String| ClientError::Broken { path: path.clone(), reason };
        let exchange = async {
            let answer = sender.send_request(asked).await.map_err(|error| broken(error.to_string()))?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), RESPONSE_OCTETS_MAX).collect().await;
            Ok((status, body.map_err(|error| broken(error.to_string()))?.to_bytes()))
        };
        let answered = self.runtime.block_on(async { timeout(TIMEOUT, exchange).await });
        let (status, octets) = answered.map_err(|_| broken(format!("{} s have passed", TIMEOUT.as_secs())))??;
        if status == 200 {
            return (operation.decode)(&octets).map_err(|error| self.not_understood(error.to_string()));
        }
        match serde_json::from_slice::<Problem>(&octets) {
            Ok(problem) => Err(ClientError::Refused { text: problem.detail, status }),
            Err(_) => Err(self.not_understood(format!("status {status} without a reason"))),
        }
    }

    /// Lets time pass.
    pub(super) fn pause(&self, time: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(time).await });
    }

    /// That the answer to a request was the answer to another one.
    pub(super) fn wrong_answer(&self) -> ClientError {
        self.not_understood("the answer to another question".into())
    }

    fn request(&self, operation: &Operation, given: Vec<u8>) -> Result<hyper::Request<Full<Bytes>>, ClientError> {
        let wrong = |text: String| self.not_understood(text);
        let (place, body) = match operation.method {
            Method::Get if given.is_empty() => (operation.path.to_owned(), Vec::new()),
            Method::Get => (format!("{}?{}", operation.path, String::from_utf8_lossy(&given)), Vec::new()),
            Method::Post => (operation.path.to_owned(), given),
        };
        let place: Uri = place.parse().map_err(|error| wrong(format!("{error}")))?;
        hyper::Request::builder()
            .method(operation.method.name())
            .uri(place)
            .header(HOST, "pshim6d")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| wrong(error.to_string()))
    }

    fn not_understood(&self, text: String) -> ClientError {
        ClientError::NotUnderstood { path: self.path.clone(), text }
    }
}
