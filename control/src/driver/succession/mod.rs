//! How a new process takes the place of a running one (docs/decisions: succession).
//!
//! ```text
//!   the running daemon                     pshim6d --take-over
//!   ──────────────────                     ───────────────────
//!                       ◀──── Hello ─────  starts; finds somebody at the socket
//!   Beginning ─────────────────────────▶   starts DPDK, workers without devices
//!   Items … ───────────────────────────▶   takes hosts and contexts in, tells its workers
//!   (goes on forwarding and deciding)
//!   CaughtUp ──────────────────────────▶
//!                       ◀──── Ready ─────  all of it has reached the workers
//!   stops its workers, tells the rest,
//!   closes the devices
//!   Yours ─────────────────────────────▶   opens the devices: packets flow again
//!                       ◀─── Running ────
//!   ends
//! ```
//!
//! Until Ready nothing the new process does or fails to do matters to the old one. After Yours the old one waits for Running; if
//! that does not come, it starts itself again from nothing, so that a box is there whatever happens.

mod control;
mod files;
mod heir;
mod old;
mod wire;

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::uplink::Found as FoundUplink;
use crate::config::{Configuration, Prefix, Site, site};
use crate::engine::{Item, Keys};

pub(super) use heir::{Heir, Inherited, Predecessor};
pub(super) use old::{Heirs, Succession};

/// Of what the two processes say to each other. Another number is another language.
const VERSION: u32 = 4;

/// How long the new process may take to open the devices.
const OPENING: Duration = Duration::from_secs(20);

/// Where a running daemon can be found by its successor.
pub(super) fn socket_of(site: &Site) -> PathBuf {
    let mut path = site.node.control_socket.clone().into_os_string();
    path.push(".succession");
    Path::new(&path).to_path_buf()
}

/// What the old process says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum FromOld {
    /// What the new one has to be like.
    Beginning(Box<Beginning>),
    /// Some of what it has to know.
    Items(Vec<Item>),
    /// For the moment that was all.
    CaughtUp,
    /// That was all, and the devices are free.
    Yours,
    /// It cannot be, for this reason.
    Refused(String),
}

/// What the new process says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum FromHeir {
    /// It speaks this language.
    Hello(u32),
    /// It could take over.
    Ready,
    /// It has taken over, and is this process.
    Running(u32),
}

/// What the new process has to be like, so that nobody can tell the difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beginning {
    /// Its version, for the log.
    pub(super) version: String,
    /// The time on the old one's clock, which the new one's goes on from.
    pub(super) now: Duration,
    /// What tags and validators are made with.
    pub(super) keys: Keys,
    /// Tags name workers by their number.
    pub(super) workers: u8,
    /// What else tags and addresses are bound up with.
    pub(super) site: CarriedSite,
    /// Its ports, in their order.
    pub(super) ports: Vec<CarriedPort>,
    /// What it found out of providers.
    pub(super) uplinks: Vec<CarriedUplink>,
    /// The system's interfaces that it has. Their files follow, in this order.
    pub(super) interfaces: Vec<String>,
    /// Whether the operator withdrew it.
    pub(super) withdrawn: bool,
}

/// What of a site two processes have to have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CarriedSite {
    box_id: u8,
    prefix: (Ipv6Addr, u8),
    lan: (Ipv6Addr, u8),
    contexts_max: u32,
}

impl CarriedSite {
    fn of(site: &Site) -> CarriedSite {
        CarriedSite {
            box_id: site.node.id,
            prefix: (site.prefix.address(), site.prefix.length()),
            lan: (site.lan.address(), site.lan.length()),
            contexts_max: site.node.contexts_max,
        }
    }

    /// The setting in which a site differs from it such that contexts would be lost.
    fn differs(&self, site: &Site) -> Option<&'static str> {
        let new = CarriedSite::of(site);
        let settings = [
            ("box.id", self.box_id == new.box_id),
            ("site.prefix", self.prefix == new.prefix),
            ("site.lan", self.lan == new.lan),
            ("box.contexts_max", self.contexts_max <= new.contexts_max),
        ];
        settings.into_iter().find(|(_, fits)| !fits).map(|(name, _)| name)
    }
}

/// What the old process found out of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CarriedUplink {
    name: String,
    router: Option<Ipv6Addr>,
    /// /64s, and whether each is to be left.
    prefixes: Vec<(Ipv6Addr, bool)>,
}

impl CarriedUplink {
    pub(super) fn of(found: FoundUplink) -> CarriedUplink {
        let prefixes = found.prefixes.iter().map(|(prefix, deprecated)| (prefix.address(), *deprecated));
        CarriedUplink { prefixes: prefixes.collect(), name: found.name, router: found.router }
    }
}

/// A port as the old process has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CarriedPort {
    /// Its name in the configuration.
    pub(super) name: String,
    /// Its device.
    pub(super) device: String,
    /// The link-layer address in use.
    pub(super) mac: [u8; 6],
    /// The largest IPv6 packet.
    pub(super) mtu: u16,
    /// Pairs of queues.
    pub(super) queues: u16,
}

impl Beginning {
    /// What the old process found out of providers.
    pub(super) fn found(&self) -> Vec<FoundUplink> {
        let prefix = |(address, deprecated): &(Ipv6Addr, bool)| Some((Prefix::of(*address, 64)?, *deprecated));
        let found = |it: &CarriedUplink| FoundUplink {
            name: it.name.clone(),
            router: it.router,
            prefixes: it.prefixes.iter().filter_map(prefix).collect(),
        };
        self.uplinks.iter().map(found).collect()
    }

    /// Whether a box of this configuration can take the other's place; else what differs.
    fn check(&self, configuration: &Configuration) -> Result<(), String> {
        let site = &configuration.site;
        if self.workers != site.node.workers {
            return Err(format!("box.workers is {} there and {} here", self.workers, site.node.workers));
        }
        if let Some(name) = self.site.differs(site) {
            return Err(format!("{name} is another one, or less, here than there"));
        }
        let theirs: Vec<(&str, &str)> = self.ports.iter().map(|it| (it.name.as_str(), it.device.as_str())).collect();
        let ours: Vec<(&str, &str)> = site.ports.iter().map(|it| (it.name.as_str(), device_text(it))).collect();
        if theirs != ours {
            return Err(format!("its ports are {theirs:?}, and ours {ours:?}"));
        }
        Ok(())
    }
}

/// A device as it is written in the configuration.
pub(super) fn device_text(port: &site::Port) -> &str {
    match &port.device {
        site::Device::Pci(text) | site::Device::Virtual(text) => text,
    }
}

/// Whether two processes may have a device at the same time without harm: packet sockets, which give each its own copy of
/// every frame. It is then opened before the old process stops, and nobody waits for it.
pub(super) fn is_shareable(port: &site::Port) -> bool {
    port.device.name().starts_with("net_af_packet")
}
