//! Both sites' routers, which tell what they hear of the providers: BMP as it is on the wire, and from there the way it takes in the box.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use control::bmp::{Counts, Station};
use control::config::bmp::{Bmp, RouteSource, View};
use control::engine::RouteWish;
use control::sim::{ProviderId, World};

use super::routers;

/// What the box takes in before others get their turn.
const PER_TURN: usize = 256;
/// Everybody, as a provider tells of it.
const ALL: &str = "2001:db8::/32";

/// The stations of both boxes.
pub(super) struct Feed([Station; 2]);

/// The BGP neighbour at a provider of a site.
fn neighbour(site: usize, port: usize) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xff00 + site as u16, port as u16, 0, 0, 0, 1).into()
}

/// What the providers' prefixes are to the other site.
fn delegated(site: usize, port: usize) -> String {
    format!("2001:db8:{:x}:{port}::/64", 0xa + site)
}

fn settings(site: usize) -> Bmp {
    let source = |port: usize| RouteSource {
        provider: format!("isp-{site}-{port}"),
        peer: neighbour(site, port),
        asn: None,
        router: None,
        complete: false,
        default_route: true,
    };
    Bmp {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        from: Vec::new(),
        view: View::PostPolicy,
        stall: None,
        routers_max: 4,
        routes_max: 10_000,
        sources: [1, 2].map(source).into(),
    }
}

impl Feed {
    /// Routers connect and tell that each provider reaches everybody, the other site's prefixes one by one.
    pub(super) fn new(world: &mut World) -> Feed {
        let now = world.now;
        world.nodes.iter_mut().for_each(|node| node.engine.expect_routes(now));
        let mut feed = Feed([0, 1].map(|site| Station::new(Arc::new(settings(site)), Arc::new(Counts::default()))));
        for site in 0..2 {
            let prefixes = [1, 2].map(|port| delegated(1 - site, port));
            feed.0[site].connected(now, 1, Ipv6Addr::LOCALHOST.into(), None);
            for port in 1..=2 {
                let all = if site == 0 { vec![ALL] } else { prefixes.iter().map(String::as_str).collect() };
                let session = routers::session("edge", neighbour(site, port), &all);
                session.iter().skip(port - 1).for_each(|message| feed.say(world, site, message));
            }
        }
        feed
    }

    fn say(&mut self, world: &World, site: usize, message: &[u8]) {
        self.0[site].message(world.now, 1, message).expect("a message as it should be");
    }

    /// The engines ask, and the stations answer.
    pub(super) fn pass(&mut self, world: &mut World) {
        for (site, station) in self.0.iter_mut().enumerate() {
            while let Some(wish) = world.nodes[site].engine.next_route_wish() {
                match wish {
                    RouteWish::Ask(peer) => station.ask(peer),
                    RouteWish::Forget(peer) => station.forget(peer),
                }
            }
            while station.has_news() {
                for change in station.take(PER_TURN) {
                    world.route_changed(site, &change.provider, change.peer, change.lost);
                }
            }
        }
    }

    /// The provider's routes are withdrawn at its own site, and at the other one those to what it delegated.
    pub(super) fn tell_of(&mut self, world: &mut World, provider: ProviderId) {
        let (site, port) = (world.providers[provider].site, world.providers[provider].port);
        let there = delegated(site, port);
        let prefixes = [1, 2].map(|port| delegated(1 - site, port));
        let here = if site == 0 { vec![ALL] } else { prefixes.iter().map(String::as_str).collect() };
        self.say(world, site, &routers::withdraw(neighbour(site, port), &here));
        for port in 1..=2 {
            self.say(world, 1 - site, &routers::withdraw(neighbour(1 - site, port), &[&there]));
        }
        self.pass(world);
    }
}
