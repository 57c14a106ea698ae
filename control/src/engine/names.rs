//! DNS for the hosts, and the handshakes it starts.
//!
//! The machines of [`crate::dns`] know octets; here is where they come from and go to, and what follows from what they
//! learn. A host that has just been told of a peer is about to send to it, so its context is opened at once, over the same
//! way a held packet would. That costs a handshake and room in the tables, so a host can cause a few a second and no more;
//! beyond that, contexts wait for packets, as they do without DNS.

use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::bucket::TokenBucket;
use dataplane::context::Hasher;
use dataplane::snapshot::{Block, PortId};
use dataplane::wire::{Ulid, UlidPair};
use rand::Rng;

use super::patience::Patience;
use super::peers::Trust;
use super::{Effect, Engine, Event, Story};
use crate::config::site::ARecords;
use crate::config::{Prefix, Site};
use crate::dns::{self, Alg, Bounds, Choice, Client, Identifiers, Learned, Output, Packet};
use crate::host::{Datagram, StreamEvent};
use crate::manage::api::{DnsServerView, DnsView};
use crate::shim6::OpenRefused;
use crate::time::Instant;

/// Handshakes that answers start per second: of all hosts, and of one.
const HANDSHAKES_PER_S: u32 = 1_000;
const HANDSHAKES_PER_HOST_S: u32 = 20;
const HANDSHAKES_AT_ONCE: u32 = 40;
/// The part of the contexts one host may have before answers start none for it.
const SHARE: usize = 16;
/// Hosts whose hashes meet share a bucket.
const BUCKETS: usize = 1_024;
/// First local port of connections to servers.
const STREAM_PORTS: u16 = 49_152;

/// Everything about DNS.
pub(super) struct Names {
    pub(super) alg: Alg,
    contexts_max: usize,
    /// The ports behind which each server is, by its place, and the box's own address there; the best first.
    ways: Vec<Vec<(PortId, Ipv6Addr)>>,
    all: TokenBucket,
    hosts: Vec<TokenBucket>,
    patience: Patience<(Client, Vec<u8>)>,
    pub(super) choices: Patience<Choice>,
    /// Whether IPv4 addresses are withheld where the policy says nothing of it.
    pub(super) withholds: bool,
}

impl Names {
    /// What the configuration says, if it says anything.
    pub(super) fn of(site: &Site) -> Option<Names> {
        let wanted = site.dns.as_ref()?;
        let alg = Alg::new(dns::Config {
            upstream: wanted.upstream.clone(),
            ulid_kind: wanted.ulid_kind,
            zone: wanted.zone.clone(),
            identifiers: Identifiers { blocks: blocks(site), site: block(&site.prefix) },
            cache: Bounds { entries: wanted.cache_entries as usize, octets: (wanted.cache_mb as usize) << 20 },
            withholds: wanted.a_records == ARecords::Withhold,
        });
        Some(Names {
            alg,
            contexts_max: site.node.contexts_max as usize,
            ways: vec![Vec::new(); wanted.upstream.len()],
            all: TokenBucket::new(HANDSHAKES_PER_S, HANDSHAKES_PER_S / 8),
            hosts: vec![TokenBucket::new(HANDSHAKES_PER_HOST_S, HANDSHAKES_AT_ONCE); BUCKETS],
            patience: Patience::new(Duration::from_millis(wanted.handshake_wait_ms.into())),
            choices: Patience::new(Duration::from_millis(wanted.a_wait_ms.into())),
            withholds: wanted.a_records == ARecords::Withhold,
        })
    }

    /// A port of the box that no question comes from.
    pub(super) fn avoid_port(&mut self, port: u16) {
        self.alg.avoid_port(port);
    }

    /// Whether an answer may start a handshake for a host.
    fn may_start(&mut self, now: Instant, hasher: &Hasher, host: Ulid) -> bool {
        let (bits, millis) = (host.0.to_bits(), now.0.as_millis() as u64);
        let place = (hasher.number(bits as u64 ^ (bits >> 64) as u64) >> 20) as usize % BUCKETS;
        self.hosts[place].take(millis) && self.all.take(millis)
    }
}

/// Blocks of identifiers besides fc00::/7.
pub(super) fn blocks(site: &Site) -> Vec<Block> {
    site.identifier_blocks.iter().map(block).collect()
}

fn block(prefix: &Prefix) -> Block {
    Block::new(prefix.address(), prefix.length())
}

impl Engine {
    /// Begins to take connections of hosts.
    pub(super) fn begin_names(&mut self) {
        let lan = usize::from(self.lan_port.0);
        if self.names.is_some()
            && let Some(stack) = self.stacks.get_mut(lan)
        {
            stack.listen(dns::PORT);
        }
        self.note_names();
        self.note_identifiers();
        self.note_withholding();
    }

    /// Hosts came or went, or ports and providers did.
    pub(super) fn note_names(&mut self) {
        if let Some(names) = &mut self.names {
            let mut served: Vec<(&str, Ulid)> =
                self.served.iter().map(|(ulid, served)| (served.name.as_str(), *ulid)).collect();
            served.sort_unstable();
            names.alg.set_names(served);
        }
        self.renew_ways();
    }

    /// Finds the way to each server: on the link that holds it, or through a provider that is up, those first that should
    /// be used. The source is the box's own address there, since no provider carries another's.
    pub(super) fn renew_ways(&mut self) {
        let Some(names) = &self.names else { return };
        let found: Vec<_> = names.alg.servers().iter().map(|server| self.ways_to(server.address)).collect();
        let Some(names) = &mut self.names else { return };
        for (at, way) in found.into_iter().enumerate() {
            names.alg.set_sources(at, way.iter().map(|(_, source)| *source).collect());
            names.ways[at] = way;
        }
    }

    /// A datagram for the box, if it is about names.
    pub(super) fn name_datagram(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        port: PortId,
        datagram: &Datagram,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(names) = &mut self.names else { return false };
        let Datagram { source, target, payload } = datagram;
        let mut out = Vec::new();
        if target.1 == dns::PORT {
            if port != self.lan_port || target.0.is_multicast() {
                return false;
            }
            names.alg.question(now, rng, Client::Datagram(*source, *target), payload, &mut out);
        } else if source.1 == dns::PORT || names.alg.awaits(target.1) {
            let packet = Packet { source: *source, target: *target, payload: payload.clone() };
            names.alg.answer(now, rng, &packet, &mut out);
        } else {
            return false;
        }
        self.name_outputs(now, rng, out, effects);
        true
    }

    /// A host sends to a peer nobody knows: its packets wait while it is looked up. False if nothing can be looked up.
    pub(super) fn look_up(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        ulids: UlidPair,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(names) = &mut self.names else { return false };
        let mut out = Vec::new();
        names.alg.look_up(now, rng, ulids.local, ulids.peer, &mut out);
        self.name_outputs(now, rng, out, effects);
        true
    }

    pub(super) fn expire_names(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        let endpoint = &self.endpoint;
        self.peers.expire(now, |pair| endpoint.find(pair, 0).is_some());
        let Some(names) = &mut self.names else { return };
        let mut out = Vec::new();
        if names.alg.deadline().is_some_and(|due| due <= now) {
            names.alg.expire(now, rng, &mut out);
        }
        let undecided = names.choices.expire(now);
        undecided.into_iter().for_each(|choice| self.end_choice(now, choice, effects));
        let Some(names) = &mut self.names else { return };
        let patient = names.patience.expire(now);
        patient.iter().for_each(|_| self.tally.count(Event::AnswersEarly));
        self.give(now, patient, effects);
        self.name_outputs(now, rng, out, effects);
        for at in 0..self.stacks.len() {
            if self.stacks[at].deadline().is_some_and(|due| due <= now) {
                self.run_stack(now, PortId(at as u8), effects);
                self.stream_events(now, rng, PortId(at as u8), effects);
            }
        }
    }

    pub(super) fn names_deadline(&self) -> Option<Instant> {
        let names = self.names.iter().flat_map(|names| {
            [names.alg.deadline(), names.patience.deadline(), names.choices.deadline()].into_iter().flatten()
        });
        let stacks = self.stacks.iter().filter_map(|stack| stack.deadline());
        names.chain(self.peers.deadline()).chain(stacks).min()
    }

    /// Hears what was said over the connections of a port.
    pub(super) fn stream_events(&mut self, now: Instant, rng: &mut dyn Rng, port: PortId, effects: &mut Vec<Effect>) {
        let Some(stack) = self.stacks.get_mut(usize::from(port.0)) else { return };
        let (events, mut out) = (stack.streams(now), Vec::new());
        let Some(names) = &mut self.names else { return };
        for event in events {
            match event {
                StreamEvent::Asked(host, number, octets) => {
                    names.alg.question(now, rng, Client::Stream(host, number), &octets, &mut out);
                }
                StreamEvent::Answered(server, octets) => names.alg.stream_answer(now, rng, server, &octets, &mut out),
                StreamEvent::Failed(server) => names.alg.stream_failed(now, rng, server, &mut out),
            }
        }
        self.name_outputs(now, rng, out, effects);
        self.run_stack(now, port, effects);
    }

    /// Lets the stack of a port send what it has to.
    fn run_stack(&mut self, now: Instant, port: PortId, effects: &mut Vec<Effect>) {
        let Some(stack) = self.stacks.get_mut(usize::from(port.0)).filter(|stack| stack.has_streams()) else { return };
        let packets: Vec<Vec<u8>> = stack.run(now).collect();
        for packet in packets {
            self.send_from_port(now, port, &packet, effects);
        }
    }

    /// Does what the machines want.
    fn name_outputs(&mut self, now: Instant, rng: &mut dyn Rng, out: Vec<Output>, effects: &mut Vec<Effect>) {
        let mut begun = None;
        for output in out {
            match output {
                Output::Reply(client, payload) => {
                    let mut reply = Some((client, payload));
                    if let Some((pair, names)) = begun.take().zip(self.names.as_mut()) {
                        reply = reply.and_then(|reply| names.patience.keep(now, pair, reply));
                    }
                    self.give(now, reply, effects);
                }
                Output::Send(Packet { source, target, payload }) => {
                    let way = self.names.as_ref().and_then(|names| {
                        let at = names.alg.servers().iter().position(|server| server.address == target.0)?;
                        names.ways[at].iter().find(|(_, own)| *own == source.0)
                    });
                    match way.copied() {
                        Some((port, _)) => {
                            self.send_datagram(now, port, &Datagram { source, target, payload }, effects);
                        }
                        None => self.tally.count(Event::DatagramNotSent),
                    }
                }
                Output::Stream(server, octets) => self.call(now, rng, server, &octets, effects),
                Output::Asked(host, learned, good) => {
                    self.learn(now, &learned, good, Trust::Told);
                    begun = self.start_handshake(now, rng, Ulid(host), &learned, effects);
                }
                Output::Located(local, peer, found) => {
                    let ulids = UlidPair { local, peer };
                    if let Some((learned, good)) = found {
                        self.learn(now, &learned, good, Trust::Confirmed);
                    }
                    // Without a pointer there is still what others say of it.
                    let known = self.peers.get(&peer).is_some();
                    if !known {
                        self.tally.refused(&OpenRefused::NoLocators);
                    }
                    if !known || !self.open_known(now, rng, ulids, effects) {
                        effects.push(Effect::Refuse(self.owner(&ulids), ulids));
                    }
                }
                Output::Choose(choice) => self.choose(now, rng, *choice, effects),
                Output::Note(note) => effects.push(Effect::Story(Story::Names(note))),
            }
        }
    }

    /// Gives hosts their answers.
    pub(super) fn give(
        &mut self,
        now: Instant,
        replies: impl IntoIterator<Item = (Client, Vec<u8>)>,
        effects: &mut Vec<Effect>,
    ) {
        for (client, payload) in replies {
            match client {
                Client::Datagram(host, own) => {
                    let datagram = Datagram { source: own, target: host, payload };
                    self.send_datagram(now, self.lan_port, &datagram, effects);
                }
                Client::Stream(_, number) => {
                    if let Some(stack) = self.stacks.get_mut(usize::from(self.lan_port.0)) {
                        stack.reply(number, &payload);
                    }
                    self.run_stack(now, self.lan_port, effects);
                }
            }
        }
    }

    /// The handshake of a pair is over, well or not: whoever asked for the peer need not wait.
    pub(super) fn answer_waiting(&mut self, now: Instant, pair: UlidPair, effects: &mut Vec<Effect>) {
        let Some(names) = &mut self.names else { return };
        let replies = names.patience.release(pair);
        replies.iter().for_each(|_| self.tally.count(Event::AnswersWaited));
        self.give(now, replies, effects);
        self.end_choices(now, pair, effects);
    }

    /// Says something to a server over TCP.
    fn call(&mut self, now: Instant, rng: &mut dyn Rng, server: usize, octets: &[u8], effects: &mut Vec<Effect>) {
        let way = self.names.as_ref().and_then(|names| {
            let known = names.alg.servers().get(server)?;
            let (port, source) = names.ways.get(server)?.first()?;
            Some((*port, *source, known.address))
        });
        let local = STREAM_PORTS | (rng.next_u32() as u16 & 0x3fff);
        let called = way.is_some_and(|(port, source, address)| {
            let stack = self.stacks.get_mut(usize::from(port.0));
            stack.is_some_and(|stack| stack.call(now, server, (source, local), (address, dns::PORT), octets))
        });
        match way.filter(|_| called) {
            Some((port, ..)) => {
                self.run_stack(now, port, effects);
                self.stream_events(now, rng, port, effects);
            }
            None => {
                let mut out = Vec::new();
                if let Some(names) = &mut self.names {
                    names.alg.stream_failed(now, rng, server, &mut out);
                }
                self.name_outputs(now, rng, out, effects);
            }
        }
    }

    pub(super) fn learn(&mut self, now: Instant, learned: &Learned, good: Duration, trust: Trust) {
        for ulid in &learned.ulids {
            for _ in 0..self.peers.learn(now, *ulid, &learned.locators, now + good, trust) {
                self.tally.count(Event::PeerForgotten);
            }
        }
    }

    /// Opens a host's context with the peer it is told of; of several, with the one it is told of first. Which pair now has
    /// a handshake that was begun here, if one has.
    pub(super) fn start_handshake(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        host: Ulid,
        learned: &Learned,
        effects: &mut Vec<Effect>,
    ) -> Option<UlidPair> {
        let peer = *learned.ulids.first().filter(|_| self.endpoint.host(host).is_some())?;
        let ulids = UlidPair { local: host, peer };
        if self.endpoint.find(ulids, 0).is_some() {
            return None;
        }
        let share = self.endpoint.count_of(host) < self.names.as_ref().map_or(0, |names| names.contexts_max / SHARE);
        let hasher = *self.sharding.hasher();
        let paced = self.names.as_mut().is_some_and(|names| names.may_start(now, &hasher, host));
        if !share || !paced {
            self.tally.count(Event::NamesPaced);
            return None;
        }
        self.tally.count(Event::NamesOpened);
        // No packet waits for it yet: who is refused is told when it sends.
        self.open_known(now, rng, ulids, effects).then_some(ulids)
    }

    /// Forgets what DNS has told. How much that was.
    pub fn flush_names(&mut self) -> Option<usize> {
        self.names.as_mut().map(|names| names.alg.flush())
    }

    /// Every count about names, with what it means.
    pub fn name_counts(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        let counts = self.names.iter().flat_map(|names| names.alg.counted().all());
        dns::MEANINGS.iter().zip(counts).map(|((name, help), (_, value))| (*name, *help, value))
    }

    /// What the operator sees.
    pub fn dns_view(&self, now: Instant) -> DnsView {
        let Some(names) = &self.names else { return DnsView::default() };
        let status = names.alg.status();
        let servers = names.alg.servers().iter().zip(&names.ways).map(|(server, way)| DnsServerView {
            address: server.address,
            source: server.sources.first().copied(),
            port: way.first().map(|(port, _)| port.0.to_string()),
            resting: server.rests(now),
            rtt_us: server.rtt().map(|rtt| rtt.as_micros() as u64),
            questions: server.counts.questions,
            answers: server.counts.answers,
            timeouts: server.counts.timeouts,
            streams: server.counts.streams,
        });
        DnsView {
            enabled: true,
            withholding: names.alg.withholds(),
            undecided: names.choices.len() as u64,
            servers: servers.collect(),
            entries: status.entries as u64,
            entries_max: status.bounds.entries as u64,
            octets: status.octets as u64,
            octets_max: status.bounds.octets as u64,
            hits: status.counts.hits,
            misses: status.counts.misses,
            evicted: status.counts.evicted,
            waiting: status.waiting as u64,
            asked: status.asked as u64,
            names: status.names.0 as u64,
            unnamed: status.names.1 as u64,
            looked_up: status.reverse.0 as u64,
            not_found: status.reverse.1 as u64,
            peers: self.peers.learned() as u64,
            counters: self.name_counts().map(|(name, _, value)| (name.to_owned(), value)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::site::Dns;
    use crate::sim::{Plan, World};

    #[test]
    fn servers_are_reached_through_whatever_provider_is_up() {
        let mut world = World::new(&Plan::default(), 1);
        let (near, far): (Ipv6Addr, Ipv6Addr) = (world.hosts[0].ulid, "2001:db8:53::1".parse().unwrap());
        let dns = Dns {
            upstream: vec![near, far, "fc00:dead::53".parse().unwrap()],
            zone: None,
            ulid_kind: dns::ULID_KIND,
            cache_entries: 16,
            cache_mb: 1,
            questions_per_s: 100,
            questions_per_host_s: 100,
            handshake_wait_ms: 40,
            a_records: ARecords::Pass,
            a_wait_ms: 1000,
        };
        world.reload(0, |site, _| site.dns = Some(dns)).unwrap();
        world.restart(0);
        let ways = |world: &World| {
            let view = world.nodes[0].engine.dns_view(world.now);
            view.servers.iter().map(|server| Some((server.port.clone()?, server.source?))).collect::<Vec<_>>()
        };
        let own = |world: &World, port: usize| world.nodes[0].engine.snapshot.ports[port].own[0];
        let lan = Some(("0".to_owned(), own(&world, 0)));
        assert_eq!(ways(&world), [lan.clone(), None, None], "before any router has answered");
        world.run(std::time::Duration::from_secs(1));
        let through = |world: &World, port: usize| Some((port.to_string(), own(world, port)));
        assert_eq!(ways(&world), [lan.clone(), through(&world, 1), None], "nobody routes to an identifier");
        world.link_state(0, 1, false);
        assert_eq!(ways(&world), [lan.clone(), through(&world, 2), None]);
        world.link_state(0, 2, false);
        assert_eq!(ways(&world), [lan, None, None]);
    }
}
