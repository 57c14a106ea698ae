//! Routers that tell of routes: two connections that say true things, altered things and noise, questions that come and go, time.
//!
//! A bystander who reads the messages with the decoder and keeps every route in a plain set knows what has to be told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use control::bmp::{Counts, Phase, Station};
use control::config::bmp::{Bmp, RouteSource, View};
use control::time::Instant;

use super::octets::Octets;
use super::routers;

const PROVIDERS: [&str; 2] = ["isp-x", "isp-y"];
const PREFIXES: [&str; 6] =
    ["::/0", "2001:db8::/32", "2001:db8:b::/48", "2001:db8:b:1::/64", "2001:db9::/32", "4000::/2"];
const ASKED: [u64; 4] = [0x2001_0db8_000b_0001, 0x2001_0db8_000b_0002, 0x2001_0db9_0000_0000, 0xfc00_0000_0000_0000];

pub fn check(octets: &[u8]) {
    let mut octets = Octets::new(octets);
    let mut watched = Watched::new(&mut octets);
    while !octets.is_empty() {
        watched.step(&mut octets);
        watched.look();
    }
}

struct Watched {
    station: Station,
    now: Instant,
    next: u64,
    open: Vec<u64>,
    /// What the engine was told last.
    told: BTreeMap<(String, u64), bool>,
    asked: BTreeSet<u64>,
}

fn peer(at: usize) -> IpAddr {
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xff, at as u16, 0, 0, 0, 1))
}

impl Watched {
    fn new(octets: &mut Octets<'_>) -> Watched {
        let flags = octets.octet();
        let source = |provider: usize, at: usize| RouteSource {
            provider: PROVIDERS[provider].into(),
            peer: peer(at),
            asn: None,
            router: (flags & 1 << at != 0).then(|| "edge".into()),
            complete: flags & 0x10 != 0,
            default_route: flags & 0x20 == 0,
        };
        let settings = Bmp {
            listen: "127.0.0.1:1".parse().unwrap(),
            tls: None,
            from: Vec::new(),
            view: if flags & 0x40 == 0 { View::PostPolicy } else { View::PrePolicy },
            stall: (flags & 0x80 != 0).then_some(Duration::from_secs(60)),
            routers_max: 4,
            routes_max: 5,
            sources: vec![source(0, 0), source(0, 1), source(1, 2)],
        };
        let station = Station::new(Arc::new(settings), Arc::new(Counts::default()));
        Watched {
            station,
            now: Instant::START,
            next: 0,
            open: Vec::new(),
            told: BTreeMap::new(),
            asked: BTreeSet::new(),
        }
    }

    fn step(&mut self, octets: &mut Octets<'_>) {
        match octets.below(16) {
            0 if self.open.len() < 4 => {
                self.next += 1;
                self.open.push(self.next);
                self.station.connected(self.now, self.next, peer(9), None);
                self.say(octets, self.open.len() - 1, vec![routers::initiation("edge")]);
            }
            1 if !self.open.is_empty() => {
                let id = self.open.swap_remove(octets.below(self.open.len()));
                self.station.closed(self.now, id);
            }
            2 => {
                let asked = ASKED[octets.below(4)];
                self.station.ask(asked);
                self.asked.insert(asked);
            }
            3 => {
                let asked = ASKED[octets.below(4)];
                self.station.forget(asked);
                self.asked.remove(&asked);
                self.told.retain(|(_, peer), _| *peer != asked);
            }
            4 => {
                self.now = self.now + Duration::from_secs(octets.octet().into());
                self.station.expire(self.now);
                assert!(self.station.deadline().is_none_or(|due| due > self.now), "what is due was done");
            }
            _ if self.open.is_empty() => {}
            5 => {
                let noise = octets.take(80);
                let kind = octets.octet();
                let at = octets.below(self.open.len());
                self.say(octets, at, vec![routers::message(kind, noise)]);
            }
            _ => {
                let (at, of) = (octets.below(self.open.len()), peer(octets.below(4)));
                let prefixes: Vec<&str> = (0..octets.below(4)).map(|_| PREFIXES[octets.below(6)]).collect();
                let message = match octets.below(7) {
                    0 => routers::peer_up(of),
                    1 => routers::peer_up_with(&routers::per_peer(of, 65001, 0), &[routers::IPV6, routers::ADD_PATH]),
                    2 => routers::peer_down(of, octets.octet() % 7),
                    3 => routers::withdraw(of, &prefixes),
                    4 => routers::end_of_rib(of),
                    5 => routers::statistics(of),
                    _ => routers::announce(of, &prefixes),
                };
                self.say(octets, at, vec![message]);
            }
        }
    }

    /// A connection says something, which may be altered on the way.
    fn say(&mut self, octets: &mut Octets<'_>, at: usize, messages: Vec<Vec<u8>>) {
        let id = self.open[at];
        for mut message in messages {
            if octets.octet() > 250 {
                let place = usize::from(octets.u16()) % message.len();
                message[place] ^= octets.octet();
            }
            if self.station.message(self.now, id, &message).is_err() {
                self.station.closed(self.now, id);
                self.open.remove(at);
                return;
            }
        }
    }

    fn look(&mut self) {
        for change in self.station.take(3) {
            assert!(self.asked.contains(&change.peer), "nobody asked");
            self.told.insert((change.provider.to_string(), change.peer), change.lost);
        }
        let status = self.station.status(self.now);
        assert_eq!((status.asked, status.routers.len()), (self.asked.len(), self.open.len()));
        for source in &status.sources {
            assert!(source.routes <= 6 && source.lost <= self.asked.len());
            assert_eq!(source.router.is_some(), source.phase != Phase::Silent || source.router.is_some());
            let of_provider = status.sources.iter().filter(|it| it.provider == source.provider);
            let known = |it: &control::bmp::SourceStatus| {
                matches!(it.phase, Phase::Complete | Phase::Down) && !it.stalled && it.router.is_some()
            };
            if source.lost > 0 {
                assert!(of_provider.into_iter().all(known), "nothing is lost that somebody does not know");
            }
            if !self.station.has_news() {
                let told = self.told.iter().filter(|((name, _), lost)| **name == *source.provider && **lost).count();
                assert_eq!(told, source.lost, "the last word was told");
            }
        }
    }
}
