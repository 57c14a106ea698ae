//! How packets of the box's own reach the wire, and what neighbour discovery says.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::sync::Arc;

use dataplane::snapshot::PortId;
use dataplane::wire::ethernet::{self, EtherType, Mac};
use dataplane::wire::ipv6;
use dataplane::wire::shim6::{Addresses, Message, emit_packet};

use super::{Effect, Engine, Event, Provider, Story};
use crate::host::LinkEvent;
use crate::reap::PathKey;
use crate::time::Instant;

/// Hop limit of control messages.
const HOP_LIMIT: u8 = 64;

impl Engine {
    /// Sends a control message through the provider that delegated its source (RFC 5533 §8 of the proxy notes: source
    /// and egress have to match, or the provider drops it).
    pub(super) fn send_message(
        &mut self,
        now: Instant,
        addresses: Addresses,
        message: &Message,
        effects: &mut Vec<Effect>,
    ) {
        let way = self.provider_of(addresses.source).map(|(_, provider)| (provider.port, provider.next_hop));
        let packet = emit_packet(addresses, HOP_LIMIT, message);
        match (way, packet) {
            (Some((port, next_hop)), Ok(packet)) => {
                self.tally.count(Event::MessagesSent);
                self.send_packet(now, port, next_hop, &packet, effects);
            }
            _ => self.tally.count(Event::MessageNotSent),
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
        let mut events = Vec::new();
        self.neighbours.send(now, port, next_hop, frame, &mut events);
        self.link_events(now, events, effects);
    }

    /// Sends a packet of the host stack of `port`: to the neighbour itself, or to the provider's router when the
    /// destination is not on the link.
    pub(super) fn send_from_port(&mut self, now: Instant, port: PortId, packet: &[u8], effects: &mut Vec<Effect>) {
        let Ok(view) = ipv6::View::new(packet) else { return };
        let target = view.target();
        let on_link = self.links.get(usize::from(port.0)).is_some_and(|prefixes| {
            prefixes.iter().any(|block| block.contains(target)) || target.segments()[0] & 0xffc0 == 0xfe80
        });
        let router = self.providers.iter().find(|provider| provider.port == port).map(|provider| provider.next_hop);
        let next_hop = if on_link { Some(target) } else { router };
        if let Some(next_hop) = next_hop {
            self.send_packet(now, port, next_hop, packet, effects);
        }
    }

    /// Carries out what neighbour discovery wants, and tells the workers of new link-layer addresses.
    pub(super) fn link_events(&mut self, now: Instant, events: Vec<LinkEvent>, effects: &mut Vec<Effect>) {
        let mut changed = false;
        for event in events {
            match event {
                LinkEvent::Send(port, frame) => {
                    if changed {
                        // What was learned goes out before the packets that waited for it, so that those which follow
                        // through the workers do not find the old state.
                        effects.push(Effect::Publish(self.snapshot.clone()));
                        changed = false;
                    }
                    effects.push(Effect::Transmit(port, frame));
                }
                LinkEvent::Resolved(port, address, mac) => {
                    changed |= self.set_mac(now, port, address, Some(mac), effects);
                }
                LinkEvent::Lost(port, address) => changed |= self.set_mac(now, port, address, None, effects),
            }
        }
        if changed {
            effects.push(Effect::Publish(self.snapshot.clone()));
        }
    }

    /// Notes a link-layer address in the snapshot. Whether workers have to be told.
    fn set_mac(
        &mut self,
        now: Instant,
        port: PortId,
        address: Ipv6Addr,
        mac: Option<Mac>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let snapshot = Arc::make_mut(&mut self.snapshot);
        let mut changed = false;
        let mut routers = Vec::new();
        for (at, view) in snapshot.providers.iter_mut().enumerate() {
            if (view.port, view.next_hop) == (port, address) {
                view.mac = mac;
                changed = true;
                routers.push(at);
            }
        }
        let ulid = dataplane::wire::Ulid(address);
        let host = snapshot.host_index.get(&ulid).and_then(|&at| snapshot.hosts.get_mut(at as usize));
        if let Some(host) = host.filter(|host| host.port == port) {
            host.mac = mac;
            changed = true;
        }
        for at in routers {
            self.provider_state(now, at, |provider| provider.router = mac.is_some(), effects);
        }
        changed
    }

    /// The device of a port says that its link is up or down.
    pub fn link_state(&mut self, now: Instant, port: PortId, up: bool, effects: &mut Vec<Effect>) {
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
        effects.push(Effect::Story(Story::Provider(provider.name.clone(), up)));
        let paths: BTreeSet<PathKey> =
            self.book.iter(now).map(|(path, _)| path).filter(|path| path.local == prefix).collect();
        if up {
            // What was known of paths through it was known of a link that was down.
            for path in paths {
                self.book.forget(path);
            }
            return;
        }
        self.suspect_all(|_, path| path.local == prefix);
        for path in
            self.suspects.iter().map(|(_, path)| *path).filter(|path| path.local == prefix).collect::<BTreeSet<_>>()
        {
            // Whoever is on the path is in the queue already, so it does not matter whether this is news.
            let _ = self.book.down(path, now);
        }
    }
}
