//! What routers say of the providers' routes (RFC 7854): octets, sessions, sockets, and what comes of it in whole sites.

mod certificates;
mod common;
mod routers;

#[path = "bmp/scenes.rs"]
mod scenes;
#[path = "bmp/server.rs"]
mod server;
#[path = "bmp/station.rs"]
mod station;
#[path = "bmp/wire.rs"]
mod wire;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use control::bmp::{Counts, Station};
use control::config::bmp::{Bmp, RouteSource, View};

/// BGP neighbours at two providers.
const X: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xaa, 0, 0, 0, 0, 1));
const Y: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xab, 0, 0, 0, 0, 1));

fn source(provider: &str, peer: IpAddr) -> RouteSource {
    RouteSource { provider: provider.into(), peer, asn: None, router: None, complete: false, default_route: true }
}

/// Settings with a source for each of these.
fn settings(sources: Vec<RouteSource>) -> Bmp {
    Bmp {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        from: vec!["127.0.0.1".parse().unwrap()],
        view: View::PostPolicy,
        stall: Some(std::time::Duration::from_secs(300)),
        routers_max: 4,
        routes_max: 10_000,
        sources,
    }
}

fn station_of(settings: Bmp) -> Station {
    Station::new(Arc::new(settings), Arc::new(Counts::default()))
}

/// The first half of an address, as a number.
fn half(prefix: &str) -> u64 {
    (prefix.parse::<Ipv6Addr>().unwrap().to_bits() >> 64) as u64
}
