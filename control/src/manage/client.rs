//! The other end of the socket: one question, one answer.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::api::{Request, Response};
use super::frame::{self, RESPONSE_OCTETS_MAX, RequestFrame, ResponseFrame, VERSION};

/// How long the daemon may take: longer than it gives its engine, so that its own words arrive.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
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
    /// The conversation broke off.
    #[error("the daemon at {path} did not answer: {source}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
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
    #[error("{0}")]
    Refused(String),
}

impl Client {
    /// Connects to the daemon at `path`.
    pub fn connect(path: &Path) -> Result<Client, ClientError> {
        let stream = UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            Ok(stream)
        });
        match stream {
            Ok(stream) => Ok(Client { path: path.to_path_buf(), stream: BufReader::new(stream) }),
            Err(source) => Err(ClientError::NotRunning { path: path.to_path_buf(), source }),
        }
    }

    /// Asks and waits. [`Response::Error`] comes back as [`ClientError::Refused`].
    pub fn call(&mut self, request: Request) -> Result<Response, ClientError> {
        let line = match self.exchange(request) {
            Ok(Some(line)) => line,
            Ok(None) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Err(source) => return Err(self.broken(source)),
        };
        match serde_json::from_slice::<ResponseFrame>(&line) {
            Ok(ResponseFrame { response: Response::Error(error), .. }) => Err(ClientError::Refused(error.text)),
            Ok(ResponseFrame { version: VERSION, response }) => Ok(response),
            Ok(ResponseFrame { version, .. }) => Err(self.not_understood(format!("version {version}, not {VERSION}"))),
            Err(error) => Err(self.not_understood(error.to_string())),
        }
    }

    /// That the answer to a request was the answer to another one.
    pub(super) fn wrong_answer(&self) -> ClientError {
        self.not_understood("the answer to another question".into())
    }

    fn exchange(&mut self, request: Request) -> io::Result<Option<Vec<u8>>> {
        let line = frame::line(&RequestFrame { version: VERSION, request })?;
        // A daemon with no place left says so and hangs up without reading: its words are worth more than our error.
        let sent = self.stream.get_mut().write_all(&line);
        match frame::read_line(&mut self.stream, RESPONSE_OCTETS_MAX) {
            Ok(Some(line)) => Ok(Some(line)),
            other => sent.and(other),
        }
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Broken { path: self.path.clone(), source }
    }

    fn not_understood(&self, text: String) -> ClientError {
        ClientError::NotUnderstood { path: self.path.clone(), text }
    }
}
