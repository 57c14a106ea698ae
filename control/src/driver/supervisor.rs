//! What a service manager is told of the box: systemd's notifications (sd_notify(3)), one datagram each.
//!
//! *Ready* is said as soon as the box forwards and answers its operators, not when a provider's router has answered: a box
//! without any provider is to be waited out, and a service manager that has lost its patience would kill it again and again.
//! How many providers are up is in the status text, which follows them.
//!
//! Nothing here may stall or stop the box: the socket does not block, and what cannot be said is not said.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tracing::{error, info, warn};

use crate::config::Configuration;
use crate::engine::Engine;
use crate::time::Instant;

/// Looks at the workers in the time after which the service manager loses its patience. Two of them in vain still leave time
/// for a third.
const LOOKS: u32 = 4;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    watch: Option<Watch>,
    /// The status text that was told last.
    status: String,
}

/// The watchdog: it is told now and then that all threads turn, and ends the box when it is not.
#[derive(Debug)]
struct Watch {
    every: Duration,
    due: Instant,
    /// Turns of each worker at the last look.
    seen: Vec<u64>,
    /// Whether the log knows that a worker stands still.
    told: bool,
}

impl Supervisor {
    /// Whoever listens at `socket` (the environment's `NOTIFY_SOCKET`; one that begins with `@` is in the abstract
    /// namespace), and wants to be told at least each `watchdog_us` microseconds (`WATCHDOG_USEC`) that the box is alive.
    pub fn reach(socket: Option<&OsStr>, watchdog_us: Option<&str>) -> Supervisor {
        let Some(name) = socket else { return Supervisor::default() };
        let socket = match connect(name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                warn!(?name, %error, "the service manager cannot be told anything");
                return Supervisor::default();
            }
        };
        let patience = watchdog_us.and_then(|text| text.parse().ok()).map(Duration::from_micros);
        let watch = patience.filter(|it| !it.is_zero()).map(|patience| Watch {
            every: patience / LOOKS,
            due: Instant::START,
            seen: Vec::new(),
            told: false,
        });
        Supervisor { socket, watch, status: String::new() }
    }

    /// The box serves, for the first time or after [`reloading`](Self::reloading).
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    /// How the box is, in words for people; told when they differ from the last ones.
    pub(super) fn status(&mut self, status: impl FnOnce() -> String) {
        if self.socket.is_none() {
            return;
        }
        // A line feed would begin another field.
        let status = status().replace(['\n', '\r'], " ");
        if status != self.status {
            self.tell(&format!("STATUS={status}"));
            self.status = status;
        }
    }

    /// The configuration is read again. What takes long after this is not held against the box.
    pub(super) fn reloading(&self) {
        let alive = if self.watch.is_some() { "\nWATCHDOG=1" } else { "" };
        match clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from) {
            Ok(since) => self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}{alive}", since.as_micros())),
            Err(error) => info!(%error, "no time for the service manager"),
        }
    }

    /// Another process of the same service is the box now, and this one ends.
    pub(super) fn succeeded_by(&self, process: u32) {
        self.tell(&format!("MAINPID={process}\nREADY=1"));
    }

    /// The box is about to end.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// The control loop has turned; `turns` says how often each worker did so far. If the time has come, the watchdog is told,
    /// unless a worker has stood still since the last look.
    pub(super) fn turned(&mut self, now: Instant, turns: impl FnOnce() -> Vec<u64>) {
        let Some(watch) = self.watch.as_mut().filter(|watch| watch.due <= now) else { return };
        watch.due = now + watch.every;
        let turns = turns();
        let still = watch.seen.iter().zip(&turns).position(|(before, now)| before == now);
        watch.seen = turns;
        match still {
            Some(worker) if !watch.told => {
                watch.told = true;
                error!(worker, "a worker stands still; the watchdog is told nothing until it turns");
            }
            Some(_) => {}
            None => {
                watch.told = false;
                self.tell("WATCHDOG=1");
            }
        }
    }

    fn tell(&self, text: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(text.as_bytes()) {
            warn!(%error, text, "the service manager was not told");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// What the service manager shows of a box that serves.
pub(super) fn serving(engine: &Engine, configuration: &Configuration) -> String {
    let (up, all) = engine.providers_up();
    format!("{}: providers up: {up} of {all}, hosts: {}", configuration.site.node.name, engine.hosts_served())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(name: &str) -> UnixDatagram {
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 512];
        let octets = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..octets].to_vec()).unwrap())
    }

    fn supervised(name: &str, watchdog_us: Option<&str>) -> (UnixDatagram, Supervisor) {
        let name = format!("pshim6-{name}-{}", std::process::id());
        let socket = listener(&name);
        let supervisor = Supervisor::reach(Some(OsStr::new(&format!("@{name}"))), watchdog_us);
        (socket, supervisor)
    }

    #[test]
    fn each_step_of_a_life_is_one_datagram() {
        let (socket, mut supervisor) = supervised("life", None);
        supervisor.ready();
        assert_eq!(heard(&socket).unwrap(), "READY=1");
        supervisor.status(|| "serving\nMAINPID=1".into());
        assert_eq!(heard(&socket).unwrap(), "STATUS=serving MAINPID=1");
        supervisor.status(|| "serving\nMAINPID=1".into());
        assert_eq!(heard(&socket), None, "nothing new");
        supervisor.reloading();
        let before = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_micros();
        let text = heard(&socket).unwrap();
        let time: u128 = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(time <= before && before - time < 60_000_000);
        supervisor.stopping();
        assert_eq!(heard(&socket).unwrap(), "STOPPING=1");
        assert_eq!(heard(&socket), None);
    }

    #[test]
    fn a_socket_may_be_a_file() {
        let folder = std::env::temp_dir().join(format!("pshim6-notify-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Supervisor::reach(Some(path.as_os_str()), None).ready();
        let mut buffer = [0; 64];
        let octets = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..octets], b"READY=1");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_watchdog_hears_of_a_box_whose_workers_all_turn() {
        let (socket, mut supervisor) = supervised("watchdog", Some("8000000"));
        let mut look = |seconds, turns: &[u64]| {
            supervisor.turned(Instant(Duration::from_secs(seconds)), || turns.to_vec());
            heard(&socket)
        };
        let alive = Some("WATCHDOG=1".to_owned());
        assert_eq!(look(0, &[5, 5]), alive);
        assert_eq!(look(1, &[6, 6]), None, "a quarter of the time has not passed");
        assert_eq!(look(2, &[6, 6]), alive);
        assert_eq!(look(4, &[7, 6]), None, "one worker stands still");
        assert_eq!(look(6, &[8, 6]), None);
        assert_eq!(look(8, &[9, 7]), alive);
    }

    #[test]
    fn without_a_watchdog_nobody_looks() {
        let (socket, mut supervisor) = supervised("silent", Some("0"));
        supervisor.turned(Instant::START, || unreachable!("nobody wants to know"));
        assert_eq!(heard(&socket), None);
    }

    #[test]
    fn nobody_there_is_no_harm() {
        for name in [None, Some("@pshim6-nobody-listens"), Some("/nonexistent/notify"), Some("vsock:2:1"), Some("")] {
            let mut supervisor = Supervisor::reach(name.map(OsStr::new), Some("1000000"));
            supervisor.ready();
            supervisor.status(|| "serving".into());
            supervisor.turned(Instant::START, Vec::new);
            supervisor.stopping();
        }
        // One that does not read must not stall us.
        let (socket, supervisor) = supervised("stalled", None);
        (0..10_000).for_each(|_| supervisor.stopping());
        assert_eq!(heard(&socket).unwrap(), "STOPPING=1");
    }
}
