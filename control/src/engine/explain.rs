//! What would become of a packet: the path of packets itself, run on a copy of what it would find.
//!
//! A worker of its own is made, with the present snapshot, the contexts of the packet's pair as their owner was told of them,
//! and what is lost at the moment. The packet goes through it once. Nothing of the box hears of it.

use std::net::Ipv6Addr;

use dataplane::context::Loss;
use dataplane::link::{RingSizes, Workers, connect};
use dataplane::port::memory::{HeapPool, MemoryPort};
use dataplane::snapshot::PortId;
use dataplane::trace::{Decision, Filter, Record};
use dataplane::translate::BURST;
use dataplane::wire::ipv6::protocol;
use dataplane::wire::shim6::PayloadHeader;
use dataplane::wire::{Locator, Ulid, UlidPair, ethernet};
use dataplane::worker::{Limits, Outlet, Worker};

use super::Engine;
use crate::manage::api::ExplainRequest;
use crate::reap::PathKey;
use crate::shim6::{Context, FailReason};
use crate::time::Instant;

/// Places in the copy: contexts of one pair are found by the low bits of their tags, which are drawn at random.
const CONTEXTS: u32 = 1 << 14;
/// Room for the contexts of a pair, and for the one packet: each question pays for it.
const COPY_RINGS: RingSizes = RingSizes { commands: 256, events: 64, handover: 1, words: 1 };

impl Engine {
    /// What would become of a packet, and why. None if it cannot come by any port.
    pub(crate) fn explain(
        &self,
        now: Instant,
        limits: Limits,
        asked: &ExplainRequest,
    ) -> Option<(Record, Vec<String>)> {
        let outside = !self.snapshot.site.contains(asked.source);
        let (local, peer) = if outside { (asked.target, asked.source) } else { (asked.source, asked.target) };
        let pair = UlidPair { local: Ulid(local), peer: Ulid(peer) };
        let mut packet = made_up(asked);
        let port = if !outside {
            self.lan_port
        } else if let Some(context) = self.endpoint.find(pair, 0) {
            // It comes as the peer would send it.
            packet = within(&packet, context.pair.peer.0, context.pair.local.0, context.local_tag);
            self.provider_of(context.pair.local.0)?.1.port
        } else {
            let delegating = self.provider_of(asked.target).map(|(_, provider)| provider.port);
            delegating.or(self.providers.first().map(|provider| provider.port))?
        };
        let mut owner = self.owner(&self.snapshot.steering(pair));
        for _ in 0..2 {
            let record = self.run_copy(owner, limits, pair, port, &packet)?;
            match record.decision {
                Decision::HandOver(to) => owner = usize::from(to),
                _ => return Some((record, self.why(now, pair, &record))),
            }
        }
        None
    }

    fn run_copy(&self, owner: usize, limits: Limits, pair: UlidPair, port: PortId, packet: &[u8]) -> Option<Record> {
        let (mut control, links) = connect(1, COPY_RINGS, Box::new(HeapPool));
        let mut wires = Vec::new();
        let ports = self.snapshot.ports.iter().map(|_| {
            let (port, wire) = MemoryPort::new();
            wires.push(wire);
            Outlet::Own(Box::new(port) as Box<_>)
        });
        let ports = ports.collect();
        let small = Limits {
            contexts: CONTEXTS.min(limits.contexts.next_power_of_two()),
            forked_pairs: 4,
            hold_pairs: 1,
            replays: 1,
            nat_sessions: 64,
            ..limits
        };
        let id = u8::try_from(owner).ok()?;
        let snapshot = self.snapshot.clone();
        let link = links.into_iter().next()?;
        let mut worker = Worker::new(id, small, self.sharding, snapshot, ports, link, Box::new(HeapPool));
        let steered = self.snapshot.steering(pair);
        let related = [pair, steered].into_iter().flat_map(|pair| self.endpoint.contexts_of(pair.local));
        for context in related.filter(|context| context.ulids.peer == pair.peer) {
            let Some(install) = self.attached.get(&context.id).and_then(|attached| attached.installed.clone()) else {
                continue;
            };
            for loss in [Loss::Provider(install.provider), Loss::Path(install.path)] {
                if self.is_lost(loss) {
                    control.lose(loss, true);
                }
            }
            control.install(0, install);
        }
        control.trace(Some(Filter { per_second: 10, ..Filter::default() }), BURST);
        // What it was told first, the packet then.
        for _ in 0..16 {
            worker.turn(1);
        }
        let mac = self.snapshot.ports.get(usize::from(port.0))?.mac;
        let mut frame = vec![0; ethernet::HEADER_LEN];
        frame[..6].copy_from_slice(&mac.0);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame.extend_from_slice(packet);
        wires.get(usize::from(port.0))?.send(&frame);
        worker.turn(2);
        let mut first = None;
        control.traced(1, &mut |record| first = first.or(Some(*record)));
        first
    }

    /// What the control core knows of a pair that a packet cannot show.
    fn why(&self, now: Instant, pair: UlidPair, record: &Record) -> Vec<String> {
        let mut why = Vec::new();
        let host = self.endpoint.host_at(pair.local).map(|host| host.ulid);
        match host.and_then(|ulid| self.served.get(&ulid)) {
            Some(served) => why.push(format!("{} is host {}", pair.local.0, served.name)),
            None => why.push(format!("{} is no host of this box", pair.local.0)),
        }
        let class = self.policy_class_of(pair.local.0, pair.peer.0);
        if let Some((_, name)) = class {
            why.push(format!("the policy's class of the pair is {name} (pshim6ctl policy show)"));
        }
        for provider in self.providers.iter().filter(|provider| provider.exists()) {
            let state = match (provider.link, provider.router) {
                (false, _) => "its link is down",
                (true, false) => "its router does not answer",
                (true, true) if provider.failing => "up, but contexts saw all its paths fail",
                (true, true) => "up",
            };
            let used = record.context.is_some_and(|context| {
                self.provider_of(context.locators.local.0).is_some_and(|(_, it)| it.prefix == provider.prefix)
            });
            let used = if used { "; this context uses it" } else { "" };
            let forbidden = class.is_some_and(|(class, _)| self.never_sends(class, provider));
            let used = if forbidden { format!("; the policy keeps this class from it{used}") } else { used.to_owned() };
            let (name, preference, steering) = (&provider.name, provider.preference, provider.steering);
            why.push(format!("provider {name}: {state}, preference {preference}, use {steering}{used}"));
        }
        if let Some(context) = self.endpoint.find(pair, 0) {
            self.why_route(context, &mut why);
            let reap = self.attached.get(&context.id).and_then(|attached| attached.reap.as_ref());
            let reap = reap.map(|reap| format!(", REAP {:?}", reap.state())).unwrap_or_default();
            why.push(format!(
                "context: {:?}{reap}, {} locators of the peer known",
                context.state,
                context.peer_locators.len()
            ));
            if let Some(watch) = self.liveness_view(now, PathKey::of(context.pair)) {
                let held = watch.held_s.map(|left| format!(", trusted in {left} s")).unwrap_or_default();
                let (state, after, failures) = (watch.state, watch.detection_ms, watch.failures);
                why.push(format!("its path is watched: {state}{held}, down after {after} ms, failures {failures}"));
            }
        } else if host.is_some() && matches!(record.decision, Decision::Hold) {
            self.why_held(now, pair, &mut why);
        }
        why
    }

    /// What routers say of the routes of a context's pair and its standby.
    fn why_route(&self, context: &Context, why: &mut Vec<String>) {
        let standby = self.attached.get(&context.id).and_then(|it| it.installed.as_ref()?.standby);
        for pair in [context.pair].into_iter().chain(standby.map(|standby| standby.locators)) {
            if let Some(words) = self.route_in_words(PathKey::of(pair)) {
                why.push(format!("from {} to {}: {words}", pair.local.0, pair.peer.0));
            }
        }
    }

    /// What would follow from the first packet of a pair without a context.
    fn why_held(&self, now: Instant, pair: UlidPair, why: &mut Vec<String>) {
        let failed = self
            .endpoint
            .failures(now)
            .find(|failure| failure.peer == pair.peer && failure.local.is_none_or(|local| local == pair.local));
        if let Some(failed) = failed {
            let reason = match failed.reason {
                FailReason::NoAnswer => "did not answer",
                FailReason::NoSupport => "said it knows no Shim6",
            };
            let left = failed.until.since(now).as_secs();
            why.push(format!(
                "the peer {reason} lately and is left alone for {left} s: Destination Unreachable would be sent"
            ));
        }
        match self.peers.get(&pair.peer) {
            Some(known) => {
                let listed: Vec<String> = known.iter().map(|it: &Locator| it.0.to_string()).collect();
                why.push(format!("the peer's locators are known: {}", listed.join(", ")));
                if self.policy_class_of(pair.local.0, pair.peer.0).is_some() {
                    why.push("a handshake would begin where the policy then places it, by what each provider carries".into());
                } else if let Some(first) = self.candidates(now, pair, known, None, None).first() {
                    why.push(format!("a handshake would begin from {} to {}", first.local.0, first.peer.0));
                }
            }
            None if self.names.is_some() => why.push("the peer's locators are not known: DNS would be asked backwards".into()),
            None => why.push(
                "the peer's locators are not known, and there is no [dns] to ask: Destination Unreachable would be sent".into(),
            ),
        }
    }
}

/// The packet that is asked about.
fn made_up(asked: &ExplainRequest) -> Vec<u8> {
    let next = asked.protocol.unwrap_or(protocol::UDP);
    let least = match next {
        protocol::TCP => 20,
        _ => 8,
    };
    let payload = usize::from(asked.octets.unwrap_or(100)).saturating_sub(40).clamp(least, 9000);
    let mut packet = vec![0; 40 + payload];
    let class = u32::from(asked.dscp.unwrap_or_default() & 0x3f) << 2;
    packet[..4].copy_from_slice(&(6 << 28 | class << 20).to_be_bytes());
    packet[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    (packet[6], packet[7]) = (next, 64);
    packet[8..24].copy_from_slice(&asked.source.octets());
    packet[24..40].copy_from_slice(&asked.target.octets());
    let upper = &mut packet[40..];
    match next {
        protocol::TCP | protocol::UDP => {
            upper[..2].copy_from_slice(&asked.source_port.unwrap_or(50_000).to_be_bytes());
            upper[2..4].copy_from_slice(&asked.port.unwrap_or(80).to_be_bytes());
            if next == protocol::UDP {
                upper[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
            } else {
                (upper[12], upper[13]) = (0x50, 0x10);
            }
        }
        protocol::ICMPV6 => upper[0] = 128,
        _ => {}
    }
    packet
}

/// The same as it travels within a context: between locators, with a payload header (RFC 5533 §5.2).
fn within(packet: &[u8], source: Ipv6Addr, target: Ipv6Addr, tag: dataplane::wire::ContextTag) -> Vec<u8> {
    let header = PayloadHeader { next_header: packet[6], tag }.emit();
    let mut out = [&packet[..40], &header, &packet[40..]].concat();
    let payload = (out.len() - 40) as u16;
    out[4..6].copy_from_slice(&payload.to_be_bytes());
    out[6] = protocol::SHIM6;
    out[8..24].copy_from_slice(&source.octets());
    out[24..40].copy_from_slice(&target.octets());
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dataplane::counters::DropReason;

    use super::*;
    use crate::sim::{Plan, World};

    fn asked(source: Ipv6Addr, target: Ipv6Addr) -> ExplainRequest {
        ExplainRequest { source, target, dscp: None, protocol: None, port: None, source_port: None, octets: None }
    }

    fn explained(world: &World, site: usize, asked: &ExplainRequest) -> (Record, Vec<String>) {
        let limits = Limits { contexts: 1 << 16, ..Limits::default() };
        world.nodes[site].engine.explain(world.now, limits, asked).expect("a packet that can come")
    }

    /// Whether it is sent, at the latest when its neighbour has answered.
    fn leaves(record: &Record) -> bool {
        matches!(record.decision, Decision::Forward(_) | Decision::AwaitNeighbour(..)) && record.reason.is_none()
    }

    #[test]
    fn a_packet_of_a_context_goes_where_its_context_says_in_both_directions() {
        let mut world = World::new(&Plan::default(), 1);
        world.stream(0, 1, Duration::from_millis(20));
        world.run(Duration::from_secs(2));
        let engine = &world.nodes[0].engine;
        let context = engine.endpoint.contexts().next().expect("a context").clone();
        let [local, peer] = [context.ulids.local.0, context.ulids.peer.0];
        let (record, why) = explained(&world, 0, &asked(local, peer));
        assert!(leaves(&record), "{record:?}");
        assert_eq!(record.after.addresses(), Some([context.pair.local.0, context.pair.peer.0]));
        assert_eq!(record.context.unwrap().local_tag, context.local_tag);
        let provider = engine.provider_of(context.pair.local.0).unwrap().1;
        let line = format!("provider {}: up, ", provider.name);
        assert!(why.iter().any(|it| it.starts_with(&line) && it.ends_with("; this context uses it")), "{why:?}");
        assert!(why.iter().any(|it| it.starts_with("context: Established, REAP Operational")), "{why:?}");
        // As the peer sends it.
        let (record, _) = explained(&world, 0, &asked(peer, local));
        assert_eq!(record.before.addresses(), Some([context.pair.peer.0, context.pair.local.0]));
        assert_eq!(record.after.addresses(), Some([peer, local]));
        assert!(leaves(&record), "{record:?}");
        // One that is too big is answered, as it would be.
        let (record, _) = explained(&world, 0, &ExplainRequest { octets: Some(1500), ..asked(local, peer) });
        assert_eq!((record.decision, record.reason), (Decision::Answer("Packet Too Big"), Some(DropReason::TooBig)));
    }

    #[test]
    fn a_packet_without_a_context_is_told_what_would_follow_and_nothing_follows() {
        let world = World::new(&Plan::default(), 1);
        let [local, peer] = [world.hosts[0].ulid, world.hosts[1].ulid];
        let (record, why) = explained(&world, 0, &asked(local, peer));
        assert_eq!(record.decision, Decision::Hold);
        assert!(why.iter().any(|it| it.starts_with("the peer's locators are known: ")), "{why:?}");
        assert!(why.iter().any(|it| it.starts_with("a handshake would begin from ")), "{why:?}");
        let stranger = "fc00:ffff::1".parse().unwrap();
        let (_, why) = explained(&world, 0, &asked(local, stranger));
        assert!(why.iter().any(|it| it.starts_with("the peer's locators are not known")), "{why:?}");
        assert_eq!(world.nodes[0].engine.endpoint.len(), 0);
        // An address of the site that no host has.
        let nobody = Ipv6Addr::from_bits(local.to_bits() ^ 0xffff);
        let (record, why) = explained(&world, 0, &asked(nobody, peer));
        assert_eq!(record.reason, Some(DropReason::SpoofedSource));
        assert_eq!(why[0], format!("{nobody} is no host of this box"));
    }
}
