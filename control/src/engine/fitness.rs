//! Whether the box is fit to serve, and which routes it wants the operating system to have.
//!
//! A route says "send it to me". It is there only while whatever comes can be dealt with: as long as it is, other boxes with worse
//! routes stay quiet.

use std::fmt;

use dataplane::snapshot::PortId;
use hashbrown::HashMap;

use super::Engine;
use crate::config::site::Routes;
use crate::config::{Prefix, Site};

/// A route the system is to have, on its interface of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wanted {
    /// The port.
    pub port: PortId,
    /// Where to.
    pub prefix: Prefix,
    /// Lower is better.
    pub metric: u32,
}

/// Why a box is not fit to serve. What the engine cannot know is told by whoever runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unfit {
    /// It is about to end.
    Stopping,
    /// The operator wants others to serve.
    Withdrawn,
    /// It does not know yet what it has to know of its contexts.
    CatchingUp,
    /// A worker stands still.
    Standstill,
    /// The link to the inside is down.
    Inside,
    /// Hosts are not on the link, and the router they are behind is not known.
    Hosts,
    /// No provider can be used.
    Outside,
}

impl fmt::Display for Unfit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Unfit::Stopping => "it is about to end",
            Unfit::Withdrawn => "the operator withdrew it",
            Unfit::CatchingUp => "it is still told of contexts",
            Unfit::Standstill => "a worker stands still",
            Unfit::Inside => "the link to the inside is down",
            Unfit::Hosts => "the hosts' router is not known",
            Unfit::Outside => "no provider is up",
        })
    }
}

/// What routes depend on.
#[derive(Debug, Default)]
pub(super) struct Fitness {
    routes: Option<Routes>,
    /// All that each provider delegated, by the prefix of the locators.
    delegated: HashMap<u64, Prefix>,
    /// Whether the box has an address among the hosts'.
    on_link: bool,
    /// Whether the link to the inside is up, as far as its device can tell.
    pub(super) inside: bool,
}

impl Fitness {
    pub(super) fn of(site: &Site) -> Fitness {
        let mut fitness = Fitness { inside: true, ..Fitness::default() };
        fitness.renew(site);
        fitness
    }

    /// Takes over a new configuration.
    pub(super) fn renew(&mut self, site: &Site) {
        self.routes.clone_from(&site.routes);
        let own = site.ports.get(site.lan_port).into_iter().flat_map(|port| &port.addresses);
        self.on_link = own.into_iter().any(|own| site.lan.contains(own.address));
        let prefix = |it: &crate::config::site::Provider| {
            (u64::from_be_bytes(it.prefix.high_half()), it.delegated.unwrap_or(it.prefix))
        };
        self.delegated = site.providers.iter().map(prefix).collect();
    }
}

impl Engine {
    /// Why the box is not fit to serve, as far as the engine can tell; nothing if it is.
    pub fn unfit(&self) -> Vec<Unfit> {
        let inside = (!self.fitness.inside).then_some(Unfit::Inside);
        let hosts = (!self.reaches_hosts()).then_some(Unfit::Hosts);
        let outside = (!self.serves()).then_some(Unfit::Outside);
        inside.into_iter().chain(hosts).chain(outside).collect()
    }

    /// Whether there is a way to the hosts: they are on the link, by the box's addresses or because one was heard there, or
    /// behind a router that is known. A box that has just started does not know its router before the routing daemon does, and
    /// what providers sent it until then would be lost.
    fn reaches_hosts(&self) -> bool {
        let heard = || self.snapshot.hosts.iter().any(|host| host.mac.is_some());
        self.fitness.on_link || self.inner_router().is_some() || heard()
    }

    /// The routes the system is to have while the box is fit: to the inside everybody's identifiers, and at each provider that can
    /// be used what it delegated. One that is drained or that leaves keeps its route, for sessions that still leave it; where the
    /// provider is down the route goes, so that it sends elsewhere.
    pub fn wanted_routes(&self) -> Vec<Wanted> {
        let Some(routes) = &self.fitness.routes else { return Vec::new() };
        let wanted = |port, prefix| Wanted { port, prefix, metric: routes.metric };
        let inside = routes.inside.iter().map(|prefix| wanted(self.lan_port, *prefix));
        let usable = self.providers.iter().filter(|provider| provider.exists() && provider.is_up());
        let outside = usable.filter_map(|provider| {
            let own = || Prefix::of(std::net::Ipv6Addr::from_bits(u128::from(provider.prefix) << 64), 64);
            let prefix = self.fitness.delegated.get(&provider.prefix).copied().or_else(own)?;
            Some(wanted(provider.port, prefix))
        });
        let mut all: Vec<Wanted> = inside.chain(outside).filter(|it| self.system_of(it.port).is_some()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::site::Role;
    use crate::sim::{Plan, World};

    fn routes() -> Routes {
        Routes {
            role: Role::Primary,
            metric: 100,
            inside: vec!["fc00::/7".parse().unwrap()],
            linger: Duration::ZERO,
            inside_after: Duration::ZERO,
            packets_per_s: 10,
        }
    }

    /// A box whose ports are all shared.
    fn sharing() -> World {
        let mut world = World::new(&Plan::default(), 1);
        world.run(Duration::from_secs(2));
        let engine = &mut world.nodes[0].engine;
        engine.fitness.routes = Some(routes());
        Arc::make_mut(&mut engine.snapshot).ports.iter_mut().for_each(|port| port.system = Some(Vec::new()));
        world
    }

    #[test]
    fn each_provider_that_can_be_used_has_its_route_and_the_inside_has_one() {
        let mut world = sharing();
        let now = world.now;
        let (site, engine) = (world.nodes[0].configuration().0.clone(), &mut world.nodes[0].engine);
        let to: Vec<Prefix> = engine.wanted_routes().iter().map(|it| it.prefix).collect();
        let mut expected = vec!["fc00::/7".parse().unwrap()];
        expected.extend(site.providers.iter().map(|it| it.prefix));
        assert_eq!((to, engine.unfit()), (expected, vec![]));
        // A provider whose link is down sends elsewhere, and when none is left nobody does.
        let ports: Vec<PortId> = engine.providers.iter().map(|it| it.port).collect();
        engine.link_state(now, ports[0], false, &mut Vec::new());
        assert!(engine.wanted_routes().iter().all(|it| it.port != ports[0]));
        assert_eq!(engine.unfit(), []);
        for port in &ports {
            engine.link_state(now, *port, false, &mut Vec::new());
        }
        assert_eq!(engine.unfit(), [Unfit::Outside]);
        engine.link_state(now, engine.lan_port, false, &mut Vec::new());
        assert_eq!(engine.unfit(), [Unfit::Inside, Unfit::Outside]);
        for port in ports.into_iter().chain([engine.lan_port]) {
            engine.link_state(now, port, true, &mut Vec::new());
        }
        assert_eq!((engine.unfit(), engine.wanted_routes().len()), (vec![], 1 + site.providers.len()));
    }

    #[test]
    fn a_box_beside_no_host_waits_for_the_hosts_router() {
        let mut world = sharing();
        let site = world.nodes[0].configuration().0.clone();
        let engine = &mut world.nodes[0].engine;
        let elsewhere = Site { lan: Prefix::of("fc00:77:0:1::".parse().unwrap(), 64).unwrap(), ..site };
        Arc::make_mut(&mut engine.snapshot).hosts.iter_mut().for_each(|host| host.mac = None);
        engine.fitness.renew(&elsewhere);
        assert_eq!(engine.unfit(), [Unfit::Hosts]);
        // One that speaks is on the link.
        Arc::make_mut(&mut engine.snapshot).hosts[0].mac = Some(dataplane::wire::ethernet::Mac([2; 6]));
        assert_eq!(engine.unfit(), []);
    }

    #[test]
    fn the_whole_of_what_was_delegated_is_announced_and_only_where_there_is_an_interface() {
        let mut world = sharing();
        let mut site = world.nodes[0].configuration().0.clone();
        let engine = &mut world.nodes[0].engine;
        let whole = Prefix::of(site.providers[0].prefix.address(), 56).unwrap();
        site.providers[0].delegated = Some(whole);
        site.routes = Some(Routes { metric: 7, role: Role::Backup, ..routes() });
        engine.fitness.renew(&site);
        let port = engine.providers[0].port;
        let found = engine.wanted_routes();
        assert!(found.contains(&Wanted { port, prefix: whole, metric: 7 }), "{found:?}");
        Arc::make_mut(&mut engine.snapshot).ports[usize::from(port.0)].system = None;
        assert!(engine.wanted_routes().iter().all(|it| it.port != port));
        site.routes = None;
        engine.fitness.renew(&site);
        assert_eq!(engine.wanted_routes(), []);
    }
}
