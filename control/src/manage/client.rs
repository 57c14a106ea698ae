//! The other end of the socket or of TLS: one question, one answer, over HTTP.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::Uri;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

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
    place: String,
    host: String,
    sender: SendRequest<Full<Bytes>>,
    runtime: Runtime,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("daemon not running at {place}: {source}")]
    NotRunning {
        /// The socket or address.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// It is for others.
    #[error("no access to the daemon at {place}: {source}")]
    NoAccess {
        /// The socket or address.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// There cannot be a daemon there.
    #[error("{place}: {text}")]
    NoAddress {
        /// What was named.
        place: String,
        /// Why not.
        text: String,
    },
    /// The conversation broke off.
    #[error("the daemon at {place} did not answer: {reason}")]
    Broken {
        /// The socket or address.
        place: String,
        /// Why.
        reason: String,
    },
    /// The daemon speaks another version, or something else altogether.
    #[error("the daemon at {place} answers what cannot be understood: {text}")]
    NotUnderstood {
        /// The socket or address.
        place: String,
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
        let place = path.display().to_string();
        let absent = |source: io::Error| ClientError::absent(&place, source);
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(absent)?;
        let opened = runtime.block_on(async {
            let stream = UnixStream::connect(path).await.map_err(absent)?;
            speak(stream, &place).await
        });
        Ok(Client { host: "pshim6d".into(), sender: opened?, runtime, place })
    }

    /// Connects to the daemon at `address`, as `https://box.example:9465`. The certificate there has to be in that name.
    pub fn connect_tls(address: &str, tls: Arc<ClientConfig>) -> Result<Client, ClientError> {
        let wrong = |text: &str| ClientError::NoAddress { place: address.to_owned(), text: text.to_owned() };
        let uri: Uri = address.parse().map_err(|_| wrong("is no URL, as https://box.example:9465"))?;
        if uri.scheme_str() != Some("https") || !["", "/"].contains(&uri.path()) || uri.query().is_some() {
            return Err(wrong("is not of the form https://box.example:9465"));
        }
        let (Some(authority), Some(host), Some(port)) = (uri.authority(), uri.host(), uri.port_u16()) else {
            return Err(wrong("names no host and port, as https://box.example:9465"));
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare.clone()).map_err(|_| wrong("names no host"))?;
        let place = address.to_owned();
        let absent = |source: io::Error| ClientError::absent(&place, source);
        let late =
            || ClientError::Broken { place: place.clone(), reason: format!("{} s have passed", TIMEOUT.as_secs()) };
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(absent)?;
        let opened = runtime.block_on(async {
            let connecting = async {
                let stream = TcpStream::connect((bare.as_str(), port)).await.map_err(absent)?;
                let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(absent)?;
                speak(stream, &place).await
            };
            timeout(TIMEOUT, connecting).await.map_err(|_| late())?
        });
        Ok(Client { host: authority.to_string(), sender: opened?, runtime, place })
    }

    /// Asks and waits. What the daemon does not do comes back as [`ClientError::Refused`].
    pub fn call(&mut self, request: Request) -> Result<Response, ClientError> {
        let unknown = || self.not_understood("the question has no place in the API".into());
        let (operation, given) = operations::of(&request).ok_or_else(unknown)?;
        let given = given.map_err(|text| self.not_understood(text))?;
        let asked = self.request(operation, given)?;
        let (place, sender) = (&self.place, &mut self.sender);
        let broken = |reason: String| ClientError::Broken { place: place.clone(), reason };
        let exchange = async {
            let answer = sender.send_request(asked).await.map_err(|error| ClientError::of(place, &error))?;
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
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| wrong(error.to_string()))
    }

    fn not_understood(&self, text: String) -> ClientError {
        ClientError::NotUnderstood { place: self.place.clone(), text }
    }
}

/// HTTP on a connection.
async fn speak<S>(stream: S, place: &str) -> Result<SendRequest<Full<Bytes>>, ClientError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| ClientError::of(place, &error))?;
    // It goes on while there is somebody who waits for an answer; what it ends with is told there.
    tokio::spawn(connection);
    Ok(sender)
}

impl ClientError {
    fn absent(place: &str, source: io::Error) -> ClientError {
        let place = place.to_owned();
        match source.kind() {
            // TLS says so of certificates, theirs and ours.
            io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidData => ClientError::NoAccess { place, source },
            _ => ClientError::NotRunning { place, source },
        }
    }

    /// What ended a conversation: TLS 1.3 tells a client only then that its certificate is not accepted.
    fn of(place: &str, error: &hyper::Error) -> ClientError {
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        let refused = source.and_then(|source| source.get_ref()?.downcast_ref::<rustls::Error>());
        match refused {
            Some(refused) => ClientError::absent(place, io::Error::new(io::ErrorKind::InvalidData, refused.clone())),
            None => ClientError::Broken { place: place.to_owned(), reason: error.to_string() },
        }
    }
}
