//! The operating system's side of ports it shares: interfaces that come and go with this process, and routes on them.
//!
//! An interface (TAP) is there as long as a process has its file open, and its addresses and routes with it. So whatever becomes of
//! this process, nothing of it stays behind; and who takes its place gets the files, so that nothing goes.
//!
//! The control thread writes frames to interfaces and asks the kernel for routes; a thread of its own ([`watch`]) waits for what
//! comes from there.

mod netlink;
mod tend;
mod watch;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant as WallInstant};

use dataplane::snapshot::PortId;
use dataplane::wire::ethernet::Mac;
use tracing::{info, warn};

use self::netlink::{Netlink, Route};
use self::watch::{News, Watch, Watched};
use super::RunError;
use crate::config::{LinkAddress, Site};
use crate::engine::{Effect, Engine, Wanted};
use crate::tape::Inputs;
use crate::time::Instant;

pub(super) use tend::Conditions;

/// Pieces of news taken in one turn, so that events of the workers do not wait long.
const NEWS_PER_TURN: usize = 256;

/// How long new interfaces are left alone.
const SETTLING: Duration = Duration::from_millis(300);
/// How often, and for how long, an interface is tried to be made whose name is taken.
const AGAIN: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(5);

/// An interface of the system's by which it shares a port.
struct Interface {
    port: PortId,
    name: String,
    index: u32,
    file: File,
    /// What it is given, again and again: an interface that somebody takes down loses them.
    addresses: Vec<LinkAddress>,
    carrier: bool,
    /// Whether the log knows that it cannot have its addresses.
    refused: bool,
}

/// The system's interfaces and routes.
pub(super) struct System {
    interfaces: Vec<Interface>,
    netlink: Netlink,
    watch: Option<Watch>,
    /// What the system was asked to have.
    routes: BTreeSet<Route>,
    /// Those among them it would not take, which the log knows of.
    refused: BTreeSet<Route>,
    /// Until when new interfaces have neither addresses nor routes: a routing daemon has to know an interface before it hears what is
    /// on it. FRR reads the two from different sockets, and what it hears too early it never hears again.
    settled: Option<Instant>,
}

/// An interface that was another process's.
pub(super) struct Carried {
    /// Its name.
    pub(super) name: String,
    /// Its file.
    pub(super) file: OwnedFd,
}

impl System {
    /// Makes the interfaces of a site, or goes on with those another process had. None if the site wants none.
    pub(super) fn open(
        site: &Site,
        now: Instant,
        engine: &Engine,
        carried: Vec<Carried>,
    ) -> Result<Option<System>, RunError> {
        if site.ports.iter().all(|port| port.interface.is_none()) {
            return Ok(None);
        }
        let failed = |error: io::Error| RunError::System(format!("netlink: {error}"));
        let mut carried = carried;
        let mut system = System {
            interfaces: Vec::new(),
            netlink: Netlink::open().map_err(failed)?,
            watch: None,
            routes: BTreeSet::new(),
            refused: BTreeSet::new(),
            settled: None,
        };
        for (at, port) in site.ports.iter().enumerate() {
            let (Some(wanted), Some(view)) = (&port.interface, engine.snapshot().ports.get(at)) else { continue };
            let known = carried.iter().position(|it| it.name == wanted.name).map(|at| carried.swap_remove(at));
            let fresh = known.is_none();
            let failed = |error: io::Error| RunError::System(format!("interface {}: {error}", wanted.name));
            let (file, index) = match known {
                Some(known) => (known.file, index_of(&wanted.name).map_err(failed)?),
                None => make(&mut system.netlink, &wanted.name, (view.mac, view.mtu)).map_err(failed)?,
            };
            if fresh {
                system.settled = Some(now + SETTLING);
            }
            let file = File::from(file);
            if !fresh {
                system.routes.extend(system.netlink.routes(index).map_err(failed)?);
            }
            let mut addresses = wanted.addresses.clone();
            if !addresses.iter().any(|it| it.address.is_unicast_link_local()) {
                addresses.push(link_local(view.mac));
            }
            let (port, name) = (PortId(at as u8), wanted.name.clone());
            info!(interface = name, index, mac = %view.mac, mtu = view.mtu, fresh, "port shared with the system");
            let interface = Interface { port, name, index, file, addresses, carrier: true, refused: false };
            system.interfaces.push(interface);
        }
        Ok(Some(system))
    }

    /// Begins to watch what the system does. The first look is part of it, so that the engine knows of addresses before packets
    /// for them come.
    pub(super) fn begin(
        &mut self,
        site: &Site,
        now: Instant,
        inputs: &mut Inputs<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), RunError> {
        let failed = |error: io::Error| RunError::System(format!("netlink: {error}"));
        for at in 0..self.interfaces.len() {
            let Interface { port, index, .. } = self.interfaces[at];
            let addresses = self.netlink.addresses(index).map_err(failed)?;
            inputs.system_addresses(now, port, &addresses, effects);
        }
        let inside = (PortId(site.lan_port as u8), site.lan.address());
        let inner = self.interfaces.iter().find(|it| it.port == inside.0).map(|it| it.index);
        let way = self.netlink.way_to(inside.1).map_err(failed)?.filter(|(index, _)| Some(*index) == inner);
        inputs.learn_inner_router(now, way.and_then(|(_, gateway)| gateway), effects);
        let watched: io::Result<Vec<Watched>> = self.interfaces.iter().map(Interface::watched).collect();
        self.watch = Some(Watch::start(watched.map_err(failed)?, inside).map_err(failed)?);
        Ok(())
    }

    /// Another process goes on with the interfaces: nothing is read any more.
    pub(super) fn stop_watching(&mut self) {
        self.watch = None;
    }

    /// Takes in what the system sends and what has changed about it. How much there was.
    pub(super) fn turn(&mut self, now: Instant, inputs: &mut Inputs<'_>, effects: &mut Vec<Effect>) -> usize {
        let Some(watch) = &self.watch else { return 0 };
        let mut seen = 0;
        while seen < NEWS_PER_TURN
            && let Some(news) = watch.next()
        {
            seen += 1;
            match news {
                News::Frame(port, frame) => inputs.from_system(now, port, frame, effects),
                News::Addresses(port, addresses) => inputs.system_addresses(now, port, &addresses, effects),
                News::Gateway(gateway) => inputs.learn_inner_router(now, gateway, effects),
                News::Gone(port) => {
                    inputs.system_addresses(now, port, &[], effects);
                    self.interfaces.retain(|interface| interface.port != port);
                    break;
                }
            }
        }
        if let Some(watch) = &self.watch {
            inputs.system_lost(now, watch.lost());
        }
        seen
    }

    /// Gives the system a frame. False if it does not take it.
    pub(super) fn give(&mut self, port: PortId, frame: &[u8]) -> bool {
        let interface = self.interfaces.iter_mut().find(|interface| interface.port == port);
        interface.is_some_and(|interface| interface.file.write(frame).is_ok())
    }

    /// Has the interfaces' link state follow their ports'.
    pub(super) fn set_links(&mut self, links: &[bool]) {
        for interface in &mut self.interfaces {
            let Some(up) = links.get(usize::from(interface.port.0)) else { continue };
            if interface.carrier == *up {
                continue;
            }
            match self.netlink.carrier(interface.index, *up) {
                Ok(()) => info!(interface = interface.name, up, "link"),
                Err(error) => warn!(interface = interface.name, %error, "the link's state cannot be set"),
            }
            interface.carrier = *up;
        }
    }

    /// Whether new interfaces may have addresses and routes. The addresses come first.
    pub(super) fn has_settled(&mut self, now: Instant) -> bool {
        match self.settled {
            Some(settled) if settled > now => return false,
            Some(_) => self.keep_addresses(),
            None => {}
        }
        self.settled = None;
        true
    }

    /// Whether the system was asked to have a route by this port's interface.
    fn announces_by(&self, port: PortId) -> bool {
        let index = self.interfaces.iter().find(|it| it.port == port).map(|it| it.index);
        self.routes.iter().any(|route| Some(route.index) == index)
    }

    /// Has the system have these routes and no other of ours.
    pub(super) fn set_routes(&mut self, wanted: &[Wanted]) {
        let index = |port: PortId| self.interfaces.iter().find(|it| it.port == port).map(|it| it.index);
        let wanted: BTreeSet<Route> = wanted
            .iter()
            .filter_map(|it| Some(Route { index: index(it.port)?, prefix: it.prefix, metric: it.metric }))
            .collect();
        let gone: Vec<Route> = self.routes.difference(&wanted).copied().collect();
        for route in gone {
            match self.netlink.remove_route(route) {
                Ok(()) => info!(route = %route.prefix, metric = route.metric, "route withdrawn"),
                // With the interface it goes in any case.
                Err(error) => warn!(route = %route.prefix, %error, "the system does not let go of a route"),
            }
            self.routes.remove(&route);
            self.refused.remove(&route);
        }
        let new: Vec<Route> = wanted.difference(&self.routes).copied().collect();
        for route in new {
            self.routes.insert(route);
            if self.keep_route(route) {
                info!(route = %route.prefix, metric = route.metric, "route announced");
            }
        }
    }

    /// Has the system have what it was asked to have, in case somebody took it away: an interface that was down has lost addresses
    /// and routes. Nothing happens if nothing is missing.
    pub(super) fn keep(&mut self) {
        self.keep_addresses();
        for route in self.routes.clone() {
            self.keep_route(route);
        }
    }

    fn keep_route(&mut self, route: Route) -> bool {
        match self.netlink.add_route(route) {
            Ok(()) => {
                self.refused.remove(&route);
                true
            }
            Err(error) => {
                if self.refused.insert(route) {
                    warn!(route = %route.prefix, metric = route.metric, %error, "the system does not take a route; it is asked again");
                }
                false
            }
        }
    }

    fn keep_addresses(&mut self) {
        for interface in &mut self.interfaces {
            let mut given = interface.addresses.iter().map(|it| self.netlink.add_address(interface.index, *it));
            let refused = given.find_map(Result::err);
            if let (Some(error), false) = (&refused, interface.refused) {
                let reason = if is_disabled(&interface.name) { "; IPv6 is disabled there (disable_ipv6)" } else { "" };
                warn!(interface = interface.name, %error, "the interface cannot have its addresses{reason}; it is tried again");
            }
            interface.refused = refused.is_some();
        }
    }

    /// Name, port and link of each interface.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = (&str, PortId, bool)> {
        self.interfaces.iter().map(|it| (it.name.as_str(), it.port, it.carrier))
    }

    /// The routes the system has of ours: by interface, with their metric.
    pub(super) fn routes(&self) -> impl Iterator<Item = (&str, crate::config::Prefix, u32)> {
        let name = |index: u32| self.interfaces.iter().find(|it| it.index == index).map(|it| it.name.as_str());
        let there = self.routes.iter().filter(|route| !self.refused.contains(route));
        there.filter_map(move |route| Some((name(route.index)?, route.prefix, route.metric)))
    }

    /// The interfaces' files, for who takes this process's place.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.interfaces.iter().map(|it| (it.name.as_str(), it.file.as_fd()))
    }
}

impl Interface {
    fn watched(&self) -> io::Result<Watched> {
        Ok(Watched { port: self.port, index: self.index, name: self.name.clone(), file: self.file.try_clone()? })
    }
}

/// Makes an interface. It gets its name when everything about it is as it shall be: routing daemons wait for that name, and take an
/// interface up as soon as they see it. One of this name that is another process's may be about to go: who was to take over and could
/// not has it for a moment longer.
fn make(netlink: &mut Netlink, name: &str, (mac, mtu): (Mac, u16)) -> io::Result<(OwnedFd, u32)> {
    let first = format!("ps{}", std::process::id());
    let file = super::run::open_tap(&first)?;
    let index = index_of(&first)?;
    netlink.configure(index, mac, mtu)?;
    let until = WallInstant::now() + PATIENCE;
    loop {
        match netlink.rename(index, name) {
            Err(error) if is_taken(&error) && WallInstant::now() < until => std::thread::sleep(AGAIN),
            renamed => break renamed?,
        }
    }
    enable(name);
    netlink.up(index)?;
    Ok((file, index))
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ResourceBusy || error.kind() == io::ErrorKind::AlreadyExists
}

/// The system's number of an interface.
fn index_of(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}

/// Where the kernel has its settings of IPv6 on an interface.
fn setting(name: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
}

fn is_disabled(name: &str) -> bool {
    fs::read_to_string(setting(name)).is_ok_and(|value| value.trim() == "1")
}

/// An interface of ours has IPv6, whatever others have by default. Where the service may not say so, the operator has to.
fn enable(name: &str) {
    if is_disabled(name) && fs::write(setting(name), "0").is_err() {
        warn!(interface = name, "IPv6 is disabled on new interfaces: set net.ipv6.conf.{name}.disable_ipv6 to 0");
    }
}

/// The link-local address of an interface: the box has the one that everybody makes of the link-layer address (RFC 4291 Appendix A), so
/// this one differs in a bit that belongs to no station.
fn link_local(mac: Mac) -> LinkAddress {
    let Mac([a, b, c, d, e, f]) = mac;
    let octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfd, d, e, f];
    LinkAddress { address: Ipv6Addr::from(octets), length: 64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_link_local_address_is_not_the_boxs() {
        let made = link_local(Mac([2, 0, 0, 0, 0xa, 1]));
        assert_eq!(made.address, "fe80::ff:fd00:a01".parse::<Ipv6Addr>().unwrap());
        assert_eq!(made.length, 64);
    }
}
