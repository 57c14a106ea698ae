//! Hosts: they answer neighbour discovery, send streams of numbered datagrams, and keep what they get.

use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::wire::checksum;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::ipv6::{self, protocol};

use super::{CABLE, Due, HostId, SiteId, StreamId, World, packet};
use crate::time::Instant;

/// Where streams go to.
const PORT: u16 = 7;

/// A host of a site.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its site.
    pub site: SiteId,
    /// Its address.
    pub ulid: Ipv6Addr,
    /// Its locators, in order of the providers.
    pub locators: Vec<Ipv6Addr>,
    /// Its link-layer address.
    pub mac: Mac,
    /// Whether it is switched off.
    pub off: bool,
    /// Packets it got that belong to no stream, and when.
    pub inbox: Vec<(Instant, Vec<u8>)>,
}

/// Numbered datagrams from one host to another.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Who sends.
    pub from: HostId,
    /// Who gets them.
    pub to: HostId,
    /// Time between two of them.
    pub interval: Duration,
    /// Octets of payload in each; at least twelve.
    pub octets: usize,
    /// Flow label of each.
    pub flow_label: u32,
    /// When each was sent; its place is its number.
    pub sent: Vec<Instant>,
    /// What arrived, in order of arrival.
    pub arrivals: Vec<Arrival>,
    running: bool,
}

/// A datagram that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: Instant,
    /// Its number.
    pub number: usize,
}

impl Stream {
    /// Whether what arrived did so in the order it was sent, each once.
    pub fn in_order(&self) -> bool {
        self.arrivals.is_sorted_by(|a, b| a.number < b.number)
    }

    /// Datagrams that were sent in a time and never arrived.
    pub fn missing(&self, from: Instant, until: Instant) -> usize {
        let arrived = |number: &usize| self.arrivals.iter().any(|arrival| arrival.number == *number);
        let sent = (0..self.sent.len()).filter(|number| (from..until).contains(&self.sent[*number]));
        sent.filter(|number| !arrived(number)).count()
    }

    /// When the first datagram arrived that was sent at `since` or later.
    pub fn back(&self, since: Instant) -> Option<Instant> {
        let later = |arrival: &&Arrival| self.sent.get(arrival.number).is_some_and(|sent| *sent >= since);
        self.arrivals.iter().filter(later).map(|arrival| arrival.at).min()
    }
}

impl World {
    /// One host begins to send datagrams to another, the first one now.
    pub fn stream(&mut self, from: HostId, to: HostId, interval: Duration) -> StreamId {
        let (octets, flow_label, running) = (100, 0, true);
        let stream = Stream { from, to, interval, octets, flow_label, sent: Vec::new(), arrivals: Vec::new(), running };
        self.streams.push(stream);
        let id = self.streams.len() - 1;
        self.later(self.now, Due::Send(id));
        id
    }

    /// A host is switched off and another machine gets its addresses, if the box lets it. The new one; what streams
    /// brought to the old one finds its way into the new one's inbox.
    pub fn replace_machine(&mut self, host: HostId) -> HostId {
        let new = self.hosts.len();
        let Mac([.., last]) = self.hosts[host].mac;
        let mac = Mac([2, 3, 0, 0, new as u8, last]);
        self.hosts.push(Host { mac, inbox: Vec::new(), ..self.hosts[host].clone() });
        self.hosts[host].off = true;
        new
    }

    /// A stream ends; what is under way still arrives.
    pub fn stop(&mut self, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.running = false;
        }
    }

    /// A host sends a packet through its box.
    pub fn send(&mut self, host: HostId, packet: &[u8]) {
        let Some(Host { site, mac, .. }) = self.hosts.get(host) else { return };
        let (site, mac) = (*site, *mac);
        let Some(router) = self.nodes.get(site).and_then(|node| node.engine.snapshot().ports.first()) else { return };
        let frame = packet::frame(router.mac, mac, packet);
        self.later(self.now + CABLE, Due::ToBox(site, 0, frame));
    }

    pub(super) fn send_next(&mut self, id: StreamId) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(id).filter(|stream| stream.running) else { return };
        let number = stream.sent.len() as u64;
        stream.sent.push(now);
        let (from, to, interval, label) = (stream.from, stream.to, stream.interval, stream.flow_label);
        let mut payload = [&(id as u32).to_be_bytes()[..], &number.to_be_bytes()].concat();
        payload.resize(stream.octets.max(payload.len()), 0x5a);
        let (Some(source), Some(target)) = (self.hosts.get(from), self.hosts.get(to)) else { return };
        let mut packet = packet::udp(source.ulid, target.ulid, (1024 + id as u16, PORT), &payload);
        if let Ok(mut packet) = ipv6::ViewMut::new(&mut packet) {
            packet.set_flow_label(label);
        }
        self.send(from, &packet);
        self.later(now + interval, Due::Send(id));
    }

    pub(super) fn at_host(&mut self, id: HostId, frame: &[u8]) {
        let Some(host) = self.hosts.get_mut(id) else { return };
        let (site, ulid, mac) = (host.site, host.ulid, host.mac);
        let Some(octets) = packet::packet_in(frame) else { return self.violation(site, "no IPv6 packet for a host") };
        if let Some(asked) = packet::solicited(octets) {
            if asked == ulid
                && let Some(answer) = packet::advertisement(octets, ulid, mac)
            {
                self.send(id, &answer);
            }
            return;
        }
        let Ok(view) = ipv6::View::new(octets) else { return };
        if view.target().is_multicast() {
            return;
        }
        if view.target() != ulid {
            return self.violation(site, &format!("a packet for {} at host {ulid}", view.target()));
        }
        let upper = view.next_header();
        let summed = matches!(upper, protocol::UDP | protocol::TCP | protocol::ICMPV6);
        if summed && !checksum::upper_layer_verifies(view.source(), ulid, upper, view.payload()) {
            return self.violation(site, &format!("a wrong checksum at host {ulid}, from {}", view.source()));
        }
        if upper != protocol::UDP || !self.note_arrival(id, view.source(), view.payload()) {
            let now = self.now;
            self.hosts[id].inbox.push((now, octets.to_vec()));
        }
    }

    /// Notes a datagram of a stream. False if it is none.
    fn note_arrival(&mut self, host: HostId, source: Ipv6Addr, datagram: &[u8]) -> bool {
        let number = |at: usize, octets: usize| {
            let octets = datagram.get(at..at + octets)?;
            Some(octets.iter().fold(0u64, |value, octet| value << 8 | u64::from(*octet)))
        };
        let (Some(port), Some(id), Some(number)) = (number(2, 2), number(8, 4), number(12, 8)) else { return false };
        let now = self.now;
        let from = self.streams.get(id as usize).and_then(|stream| self.hosts.get(stream.from)).map(|host| host.ulid);
        match self.streams.get_mut(id as usize) {
            Some(stream) if port == u64::from(PORT) && stream.to == host && from == Some(source) => {
                stream.arrivals.push(Arrival { at: now, number: number as usize });
                true
            }
            _ => false,
        }
    }
}
