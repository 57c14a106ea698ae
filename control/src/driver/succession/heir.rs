//! The new process's part.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tracing::info;

use super::{Beginning, FromHeir, FromOld, VERSION, files, wire};
use crate::config::Configuration;
use crate::driver::RunError;
use crate::driver::system::Carried;
use crate::engine::Item;

/// How long the old process may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who is there to be succeeded.
pub(in crate::driver) enum Predecessor {
    /// Nobody.
    Nobody,
    /// Somebody, and what it takes to be like them.
    Old(Heir, Box<Beginning>),
}

/// The new process's end.
pub(in crate::driver) struct Heir {
    stream: UnixStream,
    /// The system's interfaces that go on.
    interfaces: Vec<Carried>,
}

/// What the old process says next.
pub(in crate::driver) enum Inherited {
    /// Some of what is to be known.
    Items(Vec<Item>),
    /// That was all for the moment.
    CaughtUp,
    /// That was all, and the devices are free.
    Yours,
}

impl Heir {
    /// Looks for a running daemon with this configuration.
    pub(in crate::driver) fn find(configuration: &Configuration) -> Result<Predecessor, RunError> {
        let path = super::socket_of(&configuration.site);
        let stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(Predecessor::Nobody);
            }
            Err(error) => return Err(RunError::Succession(format!("{}: {error}", path.display()))),
        };
        let mut heir = Heir { stream, interfaces: Vec::new() };
        let begun = heir.begin().map_err(lost)?;
        match begun {
            FromOld::Beginning(beginning) => {
                let refused = |text| RunError::Succession(format!("{text}: restart it instead"));
                beginning.check(configuration).map_err(refused)?;
                let found = files::receive(&heir.stream, beginning.interfaces.len()).map_err(lost)?;
                let names = beginning.interfaces.iter().cloned();
                heir.interfaces = names.zip(found).map(|(name, file)| Carried { name, file }).collect();
                info!(version = beginning.version, "taking over from the daemon that runs");
                Ok(Predecessor::Old(heir, beginning))
            }
            FromOld::Refused(text) => Err(RunError::Succession(text)),
            other => Err(RunError::Succession(format!("the running daemon says {other:?} first"))),
        }
    }

    fn begin(&mut self) -> io::Result<FromOld> {
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.stream.set_write_timeout(Some(PATIENCE))?;
        wire::send(&mut self.stream, &FromHeir::Hello(VERSION))?;
        wire::receive(&mut self.stream)
    }

    /// The system's interfaces that the old process has.
    pub(in crate::driver) fn interfaces(&mut self) -> Vec<Carried> {
        std::mem::take(&mut self.interfaces)
    }

    /// What the old process says next.
    pub(in crate::driver) fn next(&mut self) -> Result<Inherited, RunError> {
        match wire::receive(&mut self.stream).map_err(lost)? {
            FromOld::Items(items) => Ok(Inherited::Items(items)),
            FromOld::CaughtUp => Ok(Inherited::CaughtUp),
            FromOld::Yours => Ok(Inherited::Yours),
            FromOld::Refused(text) => Err(RunError::Succession(text)),
            FromOld::Beginning(_) => Err(RunError::Succession("the running daemon begins twice".into())),
        }
    }

    /// Everything told so far has reached the workers.
    pub(in crate::driver) fn ready(&mut self) -> Result<(), RunError> {
        wire::send(&mut self.stream, &FromHeir::Ready).map_err(lost)
    }

    /// The devices are open, and packets flow.
    pub(in crate::driver) fn running(mut self, process: u32) -> Result<(), RunError> {
        wire::send(&mut self.stream, &FromHeir::Running(process)).map_err(lost)
    }
}

fn lost(error: io::Error) -> RunError {
    RunError::Succession(format!("the running daemon does not go on: {error}"))
}
