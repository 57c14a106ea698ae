//! The site's names and where they are kept: which host is told of, and how messages about it travel.

use std::net::Ipv6Addr;

use dataplane::snapshot::PortId;
use dataplane::wire::Ulid;
use rand::Rng;

use super::{Effect, Engine, Event, Story};
use crate::config::{Host, Hosts, prefix};
use crate::host::Datagram;
use crate::publish::{self, Output, Publisher, SERVER_PORT};
use crate::time::Instant;

impl Engine {
    /// From now on the names of these hosts, and of those that come later, are kept by `publisher`.
    pub fn publish_to(&mut self, publisher: Publisher, hosts: &Hosts) {
        if let Some(names) = &mut self.names {
            names.avoid_port(publisher.port());
        }
        self.publisher = Some(publisher);
        for host in hosts {
            self.publish_host(host);
        }
    }

    /// These names were published before the box began, and a store keeps which ones are. To be called when all hosts are known.
    pub fn publish_since(&mut self, written: Vec<publish::Record>) {
        if let Some(publisher) = &mut self.publisher {
            publisher.begin_with(written);
        }
    }

    /// The next name that the store is to keep, or to forget if that is false.
    pub fn next_published(&mut self) -> Option<(publish::Record, bool)> {
        self.publisher.as_mut()?.next_record()
    }

    /// The store has it.
    pub fn published_is_kept(&mut self, record: publish::Record) {
        if let Some(publisher) = &mut self.publisher {
            publisher.recorded(record);
        }
    }

    /// Says what time it is; signatures carry it.
    pub fn wall_clock(&mut self, now: Instant, unix: u64) {
        self.policy_clock(unix);
        if let Some(publisher) = &mut self.publisher {
            publisher.wall_clock(now, unix);
        }
    }

    /// How the publishing of names stands; nothing if there is none.
    pub fn publish_counts(&self) -> Option<publish::Counts> {
        self.publisher.as_ref().map(Publisher::counts)
    }

    /// A host is served, or with other locators than before.
    pub(super) fn publish_host(&mut self, host: &Host) {
        if let Some(publisher) = &mut self.publisher {
            // What is to be left is nothing to begin with, unless it is all there is.
            let old = |it: &std::net::Ipv6Addr| {
                let of = self.providers.iter().find(|provider| provider.prefix == (it.to_bits() >> 64) as u64);
                of.is_some_and(|provider| provider.deprecated)
            };
            let all = host.identity.locators.iter().map(|locator| locator.0);
            let fresh: Vec<_> = all.clone().filter(|it| !old(it)).collect();
            let locators = if fresh.is_empty() { all.collect() } else { fresh };
            publisher.set(&publish::Host { name: host.name.clone(), ulid: host.identity.ulid.0, locators });
        }
    }

    /// A host is served no longer.
    pub(super) fn unpublish_host(&mut self, ulid: Ulid) {
        if let Some(publisher) = &mut self.publisher {
            publisher.unset(ulid.0);
        }
    }

    /// Lets the publisher send what waits.
    pub(super) fn expire_publisher(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        let Some(publisher) = self.publisher.as_mut().filter(|it| it.deadline().is_some_and(|due| due <= now)) else {
            return;
        };
        let mut out = Vec::new();
        publisher.expire(now, rng, &mut out);
        self.published(now, out, effects);
    }

    /// A datagram to the publisher's port. False if it is somebody else's.
    pub(super) fn publisher_hears(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        datagram: &Datagram,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(publisher) = self.publisher.as_mut().filter(|it| it.port() == datagram.target.1) else { return false };
        let mut out = Vec::new();
        if datagram.source.1 == SERVER_PORT {
            publisher.receive(now, datagram.source.0, &datagram.payload, rng, &mut out);
        }
        self.published(now, out, effects);
        true
    }

    fn published(&mut self, now: Instant, out: Vec<Output>, effects: &mut Vec<Effect>) {
        let Some(port) = self.publisher.as_ref().map(Publisher::port) else { return };
        for output in out {
            match output {
                Output::Told(story) => effects.push(Effect::Story(Story::Publish(story))),
                Output::Send(server, payload) => {
                    // Without a way it is as if it were lost: it is sent again.
                    let Some((way, own)) = self.way_to(server) else {
                        self.tally.count(Event::DatagramNotSent);
                        continue;
                    };
                    let datagram = Datagram { source: (own, port), target: (server, SERVER_PORT), payload };
                    self.send_datagram(now, way, &datagram, effects);
                }
            }
        }
    }

    /// The port whose link holds an address, or that of the best provider that is up, and the box's own address there that
    /// answers come back to.
    pub(super) fn way_to(&self, target: Ipv6Addr) -> Option<(PortId, Ipv6Addr)> {
        self.ways_to(target).first().copied()
    }

    /// The same with all providers that are up, the best first.
    pub(super) fn ways_to(&self, target: Ipv6Addr) -> Vec<(PortId, Ipv6Addr)> {
        let own = |port: usize| self.snapshot.ports.get(port).map(|port| port.own.as_slice()).unwrap_or_default();
        for (port, blocks) in self.links.iter().enumerate() {
            let Some(block) = blocks.iter().find(|block| block.contains(target)) else { continue };
            let source = own(port).iter().find(|address| block.contains(**address));
            return source.map(|source| (PortId(port as u8), *source)).into_iter().collect();
        }
        if !prefix::is_routable(target) {
            return Vec::new();
        }
        // Nobody routes to an identifier, or back to one.
        let mut up: Vec<_> = self.providers.iter().filter(|it| it.exists() && it.is_up()).collect();
        up.sort_by_key(|it| (it.is_unwelcome(), it.failing, it.standing(), it.preference));
        let way = |provider: &&super::Provider| {
            let source = own(usize::from(provider.port.0)).iter().find(|address| prefix::is_routable(**address))?;
            Some((provider.port, *source))
        };
        up.iter().filter_map(way).collect()
    }
}
