//! Hosts: they answer neighbour discovery, send streams of numbered datagrams, and keep what they get.

use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::wire::checksum;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::ipv6::{self, protocol};
use dataplane::wire::shim6::PayloadHeader;

use super::{CABLE, Due, HostId, Oracle, Origin, SiteId, StreamId, World, packet};
use crate::time::Instant;

/// Where streams go to.
pub(super) const PORT: u16 = 7;
/// Datagrams to this port are sent back.
pub const ECHO: u16 = 11;

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
    /// Parameters that prove its addresses; it tells everybody.
    pub pds: Vec<u8>,
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
    /// Time between two of them; may be changed as it runs.
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

    /// Whether one of the latest arrivals was sent at `since` or later.
    pub fn is_back(&self, since: Instant) -> bool {
        self.arrivals.iter().rev().take(16).any(|arrival| self.sent.get(arrival.number).is_some_and(|at| *at >= since))
    }

    /// What was wrong with what was sent in a time: what is missing, and what came twice or too late.
    pub fn faults(&self, from: Instant, until: Instant) -> (usize, usize) {
        let (first, last) = (self.sent.partition_point(|at| *at < from), self.sent.partition_point(|at| *at < until));
        let meant: Vec<usize> =
            self.arrivals.iter().map(|it| it.number).filter(|number| (first..last).contains(number)).collect();
        let odd = meant.windows(2).filter(|two| two[0] >= two[1]).count();
        let mut distinct = meant;
        distinct.sort_unstable();
        distinct.dedup();
        (last - first - distinct.len(), odd)
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

    /// A stream that ended goes on.
    pub fn resume(&mut self, stream: StreamId, interval: Duration) {
        if let Some(known) = self.streams.get_mut(stream).filter(|known| !known.running) {
            (known.running, known.interval) = (true, interval);
            self.later(self.now, Due::Send(stream));
        }
    }

    /// A host is switched off and another machine gets its addresses, if the box lets it. The new one; what streams
    /// brought to the old one finds its way into the new one's inbox.
    pub fn replace_machine(&mut self, host: HostId) -> HostId {
        let new = self.hosts.len();
        let Mac([.., last]) = self.hosts[host].mac;
        let mac = Mac([2, 3, 0, 0, new as u8, last]);
        self.hosts.push(Host { mac, inbox: Vec::new(), ..self.hosts[host].clone() });
        self.hosts[host].off = true;
        self.stacks.push(None);
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
        let Some(Host { site, mac, off: false, .. }) = self.hosts.get(host) else { return };
        let (site, mac) = (*site, *mac);
        self.watch(host, "sends", packet);
        let Some(router) = self.nodes.get(site).and_then(|node| node.engine.snapshot().ports.first()) else { return };
        let frame = packet::frame(router.mac, mac, packet);
        self.later(self.now + CABLE, Due::ToBox(site, 0, frame, Origin::Plain));
    }

    /// Notes what hosts with a TCP send and get, if somebody wants to know.
    fn watch(&mut self, host: HostId, what: &str, octets: &[u8]) {
        let now = self.now;
        if let Some(watched) = &mut self.watched {
            watched.push((now, format!("host {host} {what} {}", packet::summary(octets))));
        }
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
        let Some(octets) = packet::packet_in(frame) else {
            return self.violation(Some(site), Oracle::Wellformed, "no IPv6 packet for a host");
        };
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
        self.watch(id, "gets", octets);
        if view.target() != ulid {
            let text = format!("a packet for {} at host {ulid}", view.target());
            return self.violation(Some(site), Oracle::WrongHost, text);
        }
        let (source, upper) = (view.source(), view.next_header());
        let summed = matches!(upper, protocol::UDP | protocol::TCP | protocol::ICMPV6);
        if summed && !checksum::upper_layer_verifies(source, ulid, upper, view.payload()) {
            let text = format!("a wrong checksum at host {ulid}, from {source}");
            return self.violation(Some(site), Oracle::Checksum, text);
        }
        if upper == protocol::TCP && self.stacks[id].is_some() {
            return self.tcp_receive(id, octets);
        }
        if let Some(mtu) = packet::mtu_told(octets, ulid) {
            self.too_big(id, mtu);
        }
        if upper == protocol::UDP && self.note_arrival(id, source, view.payload()) {
            return;
        }
        if upper == protocol::UDP && packet::ports(view.payload()).is_some_and(|ports| ports.1 == ECHO) {
            let answer = packet::udp(ulid, source, (ECHO, ECHO + 1), view.payload().get(8..).unwrap_or_default());
            return self.send(id, &answer);
        }
        let now = self.now;
        self.hosts[id].inbox.push((now, octets.to_vec()));
    }

    /// The host that the payload of a translated packet is for, as far as it is of a stream or of a connection.
    pub(super) fn addressee(&self, octets: &[u8]) -> Option<HostId> {
        let view = ipv6::View::new(octets).ok()?;
        let shim = view.shim_header().ok()??.place;
        let header = PayloadHeader::parse(view.from_offset(shim.offset)).ok()?;
        let segment = view.from_offset(shim.offset + PayloadHeader::LEN);
        let (from, to) = packet::ports(segment)?;
        match header.next_header {
            protocol::UDP if to == PORT => {
                let id = u32::from_be_bytes(*segment.get(8..12)?.first_chunk()?);
                self.streams.get(id as usize).map(|stream| stream.to)
            }
            protocol::TCP => self.connection_at(from, to),
            _ => None,
        }
    }

    /// Notes a datagram of a stream. False if it is none.
    fn note_arrival(&mut self, host: HostId, source: Ipv6Addr, datagram: &[u8]) -> bool {
        let number = |at: usize, octets: usize| {
            let octets = datagram.get(at..at + octets)?;
            Some(octets.iter().fold(0u64, |value, octet| value << 8 | u64::from(*octet)))
        };
        let (Some(port), Some(id), Some(number)) = (number(2, 2), number(8, 4), number(12, 8)) else { return false };
        if port != u64::from(PORT) {
            return false;
        }
        let now = self.now;
        let from = self.streams.get(id as usize).and_then(|stream| self.hosts.get(stream.from)).map(|host| host.ulid);
        match self.streams.get_mut(id as usize) {
            Some(stream) if stream.to == host && from == Some(source) => {
                stream.arrivals.push(Arrival { at: now, number: number as usize });
                true
            }
            Some(stream) if stream.to == host => {
                let text = format!("a datagram of stream {id} came from {source}");
                self.violation(None, Oracle::WrongUlid, text);
                true
            }
            // Whoever has an identifier after another host has no streams of its own.
            Some(stream) if self.hosts[stream.to].off && self.hosts[stream.to].ulid == self.hosts[host].ulid => false,
            Some(_) => {
                let text = format!("a datagram of stream {id} came to host {host}");
                self.violation(None, Oracle::WrongHost, text);
                true
            }
            None => false,
        }
    }
}
