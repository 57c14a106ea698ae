//! How packets of the box's own reach the wire, and what neighbour discovery says.

use std::net::Ipv6Addr;
use std::sync::Arc;

use dataplane::context::Loss;
use dataplane::snapshot::PortId;
use dataplane::wire::Ulid;
use dataplane::wire::ethernet::{self, EtherType, Mac};
use dataplane::wire::ipv6;
use dataplane::wire::shim6::{Addresses, Message, UdpPorts, udp};

use super::carriage::Forms;
use super::revive::Sign;
use super::{Effect, Engine, Event, Provider, Story};
use crate::host::{GivenUp, Kind, LinkEvent};
use crate::shim6::ContextId;
use crate::time::Instant;

/// Hop limit of control messages.
const HOP_LIMIT: u8 = 64;
/// Where their Shim6 header stands: right behind the IPv6 header.
const SHIM: ipv6::Place = ipv6::Place { offset: ipv6::HEADER_LEN, predecessor: 6, next_header: ipv6::protocol::SHIM6 };

impl Engine {
    /// Sends a control message, about a context if there is one, through the provider that delegated its source (RFC 5533 §8 of the proxy notes: source
    /// and egress have to match, or the provider drops it).
    pub(super) fn send_message(
        &mut self,
        now: Instant,
        about: Option<ContextId>,
        addresses: Addresses,
        message: &Message,
        effects: &mut Vec<Effect>,
    ) {
        self.send_labelled(now, about, addresses, message, 0, effects);
    }

    /// The same with a flow label.
    pub(super) fn send_labelled(
        &mut self,
        now: Instant,
        about: Option<ContextId>,
        addresses: Addresses,
        message: &Message,
        label: u32,
        effects: &mut Vec<Effect>,
    ) {
        let forms = self.forms(now, about, addresses, message);
        self.send_forms(now, forms, addresses, message, label, effects);
    }

    /// The same as itself, in UDP, or both.
    pub(super) fn send_forms(
        &mut self,
        now: Instant,
        forms: Forms,
        addresses: Addresses,
        message: &Message,
        label: u32,
        effects: &mut Vec<Effect>,
    ) {
        let way = self.provider_of(addresses.source).map(|(_, provider)| (provider.port, provider.next_hop));
        // Identifiers stay inside; what is to be sent there goes again when there is a locator.
        let way = way.filter(|_| !self.is_identifier(addresses.target));
        let Some((port, next_hop)) = way else { return self.tally.count(Event::MessageNotSent) };
        let Some(source) = self.snapshot.ports.get(usize::from(port.0)).map(|port| port.mac) else { return };
        for udp in forms.each() {
            let Some(frame) = frame_of(source, addresses, message, label, udp) else {
                self.tally.count(Event::MessageNotSent);
                continue;
            };
            self.tally.count(Event::MessagesSent);
            if udp.is_some() {
                self.tally.count(Event::MessagesInUdp);
            }
            self.send_frame(now, port, next_hop, frame, effects);
        }
    }

    /// Sends an IPv6 packet to a neighbour.
    pub(super) fn send_packet(
        &mut self,
        now: Instant,
        port: PortId,
        next_hop: Ipv6Addr,
        packet: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        let Some(view) = self.snapshot.ports.get(usize::from(port.0)) else { return };
        let mut frame = vec![0; ethernet::HEADER_LEN];
        frame.extend_from_slice(packet);
        if let Ok(mut ether) = ethernet::ViewMut::new(&mut frame) {
            ether.set(Mac([0; 6]), view.mac, EtherType::IPV6);
        }
        self.send_frame(now, port, next_hop, frame, effects);
    }

    /// A worker does not know where a next hop is. It may have been known here before it was one: who has just become a
    /// host may have talked to the box before.
    pub(super) fn unresolved(
        &mut self,
        now: Instant,
        port: PortId,
        next_hop: Ipv6Addr,
        frame: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        if let Some(mac) = self.neighbours.mac(port, self.hop_to(port, next_hop)) {
            self.link_events(now, vec![LinkEvent::Resolved(port, next_hop, mac)], effects);
        }
        self.send_frame(now, port, next_hop, frame.to_vec(), effects);
    }

    /// Sends an Ethernet frame to a neighbour, who is looked for if need be.
    pub(super) fn send_frame(
        &mut self,
        now: Instant,
        port: PortId,
        next_hop: Ipv6Addr,
        frame: Vec<u8>,
        effects: &mut Vec<Effect>,
    ) {
        let next_hop = self.hop_to(port, next_hop);
        if let Some(mac) = self.neighbours.configured_mac(port, next_hop) {
            // What almost always happens, and needs no events.
            let mut frame = frame;
            if let Ok(mut ether) = ethernet::ViewMut::new(&mut frame) {
                ether.set_target(mac);
                effects.push(Effect::Transmit(port, frame));
            }
            return;
        }
        let router = self.providers.iter().any(|provider| (provider.port, provider.next_hop) == (port, next_hop));
        let router = router || port == self.lan_port && self.inner_router() == Some(next_hop);
        let kind = if router || self.host_at(port, next_hop).is_some() { Kind::Configured } else { Kind::Stranger };
        let mut events = Vec::new();
        self.neighbours.send(now, (port, next_hop), kind, frame, &mut events);
        self.link_events(now, events, effects);
    }

    /// The place of a host behind a port in the snapshot.
    pub(super) fn host_at(&self, port: PortId, address: Ipv6Addr) -> Option<usize> {
        let at = *self.snapshot.host_index.get(&Ulid(address))? as usize;
        self.snapshot.hosts.get(at).filter(|host| host.port == port).map(|_| at)
    }

    /// Sends a packet of the host stack of `port`: to the neighbour itself, or to the provider's router when the
    /// destination is not on the link.
    pub(super) fn send_from_port(&mut self, now: Instant, port: PortId, packet: &[u8], effects: &mut Vec<Effect>) {
        let Ok(view) = ipv6::View::new(packet) else { return };
        let target = view.target();
        let on_link = self.links.get(usize::from(port.0)).is_some_and(|prefixes| {
            prefixes.iter().any(|block| block.contains(target)) || target.segments()[0] & 0xffc0 == 0xfe80
        });
        let behind = |provider: &&Provider| provider.port == port && provider.exists();
        let router = self.providers.iter().find(behind).map(|provider| provider.next_hop);
        let inside = self.is_behind_router(port, target);
        let next_hop = if on_link || inside { Some(target) } else { router };
        if let Some(next_hop) = next_hop {
            self.send_packet(now, port, next_hop, packet, effects);
        }
    }

    /// Carries out what neighbour discovery wants, and tells the workers of new link-layer addresses.
    pub(super) fn link_events(&mut self, now: Instant, events: Vec<LinkEvent>, effects: &mut Vec<Effect>) {
        let mut frames = Vec::new();
        let mut changed = false;
        for event in events {
            match event {
                LinkEvent::Send(port, frame) => frames.push(Effect::Transmit(port, frame)),
                LinkEvent::Resolved(port, address, mac) => {
                    changed |= self.set_mac(now, port, address, Some(mac), effects);
                }
                LinkEvent::Lost(port, address) => changed |= self.set_mac(now, port, address, None, effects),
                LinkEvent::Undeliverable(_, _, why) => self.tally.count(match why {
                    GivenUp::Unanswered => Event::NeighbourUnanswered,
                    GivenUp::Overtaken => Event::NeighbourOvertaken,
                    GivenUp::NoRoom => Event::NeighbourRefused,
                    GivenUp::Forgotten => Event::NeighbourForgotten,
                }),
                LinkEvent::Disbelieved(..) => self.tally.count(Event::NeighbourQuarantined),
            }
        }
        // What was learned goes out once, and before the packets that waited for it, so that those which follow through
        // the workers do not find the old state.
        if changed {
            effects.push(Effect::Publish(self.snapshot.clone()));
        }
        effects.extend(frames);
    }

    /// Notes a link-layer address in the snapshot. Whether workers have to be told. The snapshot is shared with them, so
    /// changing it copies it whole: neighbours that are not in it must not cause that.
    fn set_mac(
        &mut self,
        now: Instant,
        port: PortId,
        address: Ipv6Addr,
        mac: Option<Mac>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if port == self.lan_port && self.inner_router() == Some(address) {
            // It may be a host besides.
            return self.set_host_mac(port, address, mac) | self.spread_inner_router();
        }
        // Who is behind the router is where that is, whoever says otherwise.
        let mac = if self.is_behind_router(port, address) { self.inner_mac() } else { mac };
        let views = self.snapshot.providers.iter().enumerate();
        let news = views.filter(|(_, view)| (view.port, view.next_hop) == (port, address) && view.mac != mac);
        let routers: Vec<usize> = news.map(|(at, _)| at).collect();
        let host = self.set_host_mac(port, address, mac);
        if routers.is_empty() && !host {
            return self.note_mapped(port, address, mac);
        }
        for &at in &routers {
            Arc::make_mut(&mut self.snapshot).providers[at].mac = mac;
        }
        for at in routers {
            self.provider_state(now, at, |provider| provider.router = mac.is_some(), effects);
        }
        true
    }

    /// Whether that is news of a host.
    fn set_host_mac(&mut self, port: PortId, address: Ipv6Addr, mac: Option<Mac>) -> bool {
        let host = self.host_at(port, address).filter(|&at| self.snapshot.hosts[at].mac != mac);
        if let Some(at) = host {
            Arc::make_mut(&mut self.snapshot).hosts[at].mac = mac;
        }
        host.is_some()
    }

    /// The device of a port says that its link is up or down.
    pub fn link_state(&mut self, now: Instant, port: PortId, up: bool, effects: &mut Vec<Effect>) {
        self.note_uplink(port, up);
        if port == self.lan_port {
            self.fitness.inside = up;
        }
        for at in 0..self.providers.len() {
            if self.providers[at].port == port {
                self.provider_state(now, at, |provider| provider.link = up, effects);
            }
        }
    }

    /// Changes what is known of a provider and draws the conclusions (RFC 5534 §3.1, §4.2): contexts that send through a
    /// provider which is known to be down look for another pair now, at the pace all contexts keep.
    fn provider_state(
        &mut self,
        now: Instant,
        at: usize,
        change: impl FnOnce(&mut Provider),
        effects: &mut Vec<Effect>,
    ) {
        let Some(provider) = self.providers.get_mut(at) else { return };
        let before = provider.is_up();
        change(provider);
        let (up, prefix) = (provider.is_up(), provider.prefix.to_be_bytes());
        if up == before {
            return;
        }
        provider.failing = false;
        // Before anything else, packets go another way.
        self.set_lost(Loss::Provider(at as u8), !up && self.hints.link, effects);
        let Some(provider) = self.providers.get(at) else { return };
        effects.push(Effect::Story(Story::Provider(provider.name.clone(), up)));
        self.renew_ways();
        self.order_providers(effects);
        if up {
            // What was known of paths through it was known of a link that was down.
            self.provider_works(prefix);
            self.look_at_paths(now, effects);
            self.revived(now, Sign::Provider(prefix));
            return self.advise_of_state(now, at);
        }
        if !self.hints.link {
            return;
        }
        // Nobody counts who that is: there may be a million of them, each on a path of its own.
        self.book.provider_down(prefix, now);
        self.attached.doubt_provider(prefix);
        self.advise_of_state(now, at);
    }
}

/// A control message as an Ethernet frame to nobody yet, in one piece. None if no receiver would take it, or it would be longer
/// than 1280 octets (R5533-028).
fn frame_of(
    source: Mac,
    addresses: Addresses,
    message: &Message,
    label: u32,
    ports: Option<UdpPorts>,
) -> Option<Vec<u8>> {
    let header = message.emit().ok()?;
    let room = if ports.is_some() { udp::LEN } else { 0 };
    if ipv6::HEADER_LEN + room + header.len() > ipv6::MIN_MTU {
        return None;
    }
    let repr = ipv6::Repr {
        source: addresses.source,
        target: addresses.target,
        next_header: ipv6::protocol::SHIM6,
        payload_len: header.len() as u16,
        hop_limit: HOP_LIMIT,
        traffic_class: 0,
        flow_label: label,
    };
    let mut frame = Vec::with_capacity(ethernet::HEADER_LEN + room + ipv6::HEADER_LEN + header.len());
    frame.resize(ethernet::HEADER_LEN + room, 0);
    if let Ok(mut ether) = ethernet::ViewMut::new(&mut frame) {
        ether.set(Mac([0; 6]), source, EtherType::IPV6);
    }
    frame.extend_from_slice(&repr.emit());
    frame.extend_from_slice(&header);
    if let Some(ports) = ports {
        udp::wrap(frame.get_mut(ethernet::HEADER_LEN..)?, SHIM, ports).ok()?;
    }
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Plan, World};

    fn published(effects: &[Effect]) -> usize {
        effects.iter().filter(|effect| matches!(effect, Effect::Publish(_))).count()
    }

    #[test]
    fn only_neighbours_of_the_configuration_change_the_snapshot_and_all_of_them_at_once() {
        let mut world = World::new(&Plan::default(), 1);
        let (host, now) = (world.hosts[0].ulid, world.now);
        let engine = &mut world.nodes[0].engine;
        let (lan, wan) = (PortId(0), engine.providers[0].port);
        let (router, stranger) = (engine.providers[0].next_hop, "fc00:a:0:1::77".parse().unwrap());
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        let before = engine.snapshot.clone();
        let mut effects = Vec::new();
        let elsewhere = vec![LinkEvent::Resolved(lan, stranger, mac), LinkEvent::Resolved(wan, host, mac)];
        engine.link_events(now, elsewhere, &mut effects);
        assert!(Arc::ptr_eq(&before, &engine.snapshot));
        assert_eq!(published(&effects), 0);
        let learned = vec![
            LinkEvent::Resolved(wan, router, mac),
            LinkEvent::Send(wan, vec![0; 60]),
            LinkEvent::Resolved(lan, host, mac),
            LinkEvent::Send(lan, vec![0; 60]),
        ];
        engine.link_events(now, learned, &mut effects);
        assert_eq!(published(&effects), 1);
        let first = effects.iter().find(|effect| !matches!(effect, Effect::Story(_)));
        assert!(matches!(first, Some(Effect::Publish(_))), "before the packets that waited");
        // The same again is no news.
        let before = engine.snapshot.clone();
        effects.clear();
        let again = vec![LinkEvent::Resolved(wan, router, mac), LinkEvent::Resolved(lan, host, mac)];
        engine.link_events(now, again, &mut effects);
        assert!(Arc::ptr_eq(&before, &engine.snapshot) && effects.is_empty());
    }

    #[test]
    fn what_is_known_of_a_next_hop_is_told_to_a_worker_that_asks() {
        let mut world = World::new(&Plan::default(), 1);
        let (host, lan) = (world.hosts[0].ulid, PortId(0));
        // Known to neighbour discovery, and then forgotten by the snapshot alone, as when a host comes back.
        let stream = world.stream(1, 0, std::time::Duration::from_millis(20));
        world.run(std::time::Duration::from_secs(2));
        world.stop(stream);
        let now = world.now;
        let engine = &mut world.nodes[0].engine;
        let at = engine.host_at(lan, host).unwrap();
        Arc::make_mut(&mut engine.snapshot).hosts[at].mac = None;
        let mut effects = Vec::new();
        engine.unresolved(now, lan, host, &[0; 60], &mut effects);
        assert!(matches!(effects[..], [Effect::Publish(_), Effect::Transmit(PortId(0), _)]), "{effects:?}");
        assert!(engine.snapshot.hosts[at].mac.is_some());
    }
}
