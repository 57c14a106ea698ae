//! Who hears of a packet whose next hop does not answer (RFC 4861 §7.2.2: its sender, by an ICMPv6 error with code 3).

use std::net::Ipv6Addr;

use dataplane::natv6;
use dataplane::snapshot::PortId;
use dataplane::wire::ethernet;
use dataplane::wire::icmpv6::{self, Error, unreachable};
use dataplane::wire::ipv6;
use dataplane::wire::shim6::{PayloadHeader, payload};
use dataplane::wire::{Ulid, UlidPair};
use rand::Rng;

use super::{Effect, Engine, Event};
use crate::host::LinkEvent;
use crate::shim6::State;
use crate::time::Instant;

const ERROR: Error = Error::DestinationUnreachable { code: unreachable::ADDRESS };
const HOP_LIMIT: u8 = 64;

/// Where a packet came from.
enum Sender {
    /// From a host through a context: what is to be sent has locators.
    Translated,
    /// From a host to a peer without a context: what is to be sent has a locator for its source.
    Presented(Ulid),
    /// From a host of the site to another.
    Host,
    /// From a peer through a context: the shim has been taken out.
    Peer,
}

impl Engine {
    /// Packets whose next hop was looked for in vain.
    pub(super) fn given_up(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        events: Vec<LinkEvent>,
        effects: &mut Vec<Effect>,
    ) {
        for event in events {
            let LinkEvent::Undeliverable(port, frame, _) = event else { continue };
            self.tally.count(Event::NeighbourUnanswered);
            let Some(packet) = frame.get(ethernet::HEADER_LEN..).and_then(|octets| ipv6::View::new(octets).ok()) else {
                continue;
            };
            let Some(sender) = self.sender(&packet, &frame[ethernet::HEADER_LEN..]) else { continue };
            let first = packet.upper_layer().is_ok_and(|upper| upper.first_fragment);
            let allowed = first && icmpv6::may_answer(ERROR, &packet, false).is_ok();
            if !allowed || !self.errors.take(now.0.as_millis() as u64) {
                self.tally.count(Event::IcmpSuppressed);
            } else if self.tell(now, rng, sender, port, &packet, effects).is_some() {
                self.tally.count(Event::NeighbourErrorsSent);
            }
        }
    }

    /// None for packets of the box's own, which nobody waits for an answer to.
    fn sender(&self, packet: &ipv6::View<'_>, octets: &[u8]) -> Option<Sender> {
        if self.quoted_context(octets).is_some() {
            return Some(Sender::Translated);
        }
        if self.snapshot.nat.as_ref().is_some_and(|nat| nat.image(packet.source()).is_some()) {
            let presented = UlidPair { local: Ulid(packet.source()), peer: Ulid(packet.target()) };
            return Some(Sender::Presented(self.endpoint.inside(presented).local));
        }
        if self.host_at(self.lan_port, packet.source()).is_some() {
            return Some(Sender::Host);
        }
        self.host_at(self.lan_port, packet.target()).map(|_| Sender::Peer)
    }

    fn tell(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        sender: Sender,
        port: PortId,
        packet: &ipv6::View<'_>,
        effects: &mut Vec<Effect>,
    ) -> Option<()> {
        match sender {
            Sender::Translated => {
                // The same as if the router had sent the error: the context tests its path, or the host is told.
                let error = error_about(packet, self.snapshot.ports.get(usize::from(port.0))?.icmp_source);
                let frame = [&[0; ethernet::HEADER_LEN], &error[..]].concat();
                self.icmp_error(now, rng, None, &frame, effects);
            }
            Sender::Presented(inside) => {
                let lan = self.lan_port;
                let mut error = error_about(packet, self.snapshot.ports.get(usize::from(lan.0))?.icmp_source);
                natv6::to_inside(&mut error, packet.source(), inside.0).ok()?;
                self.send_packet(now, lan, inside.0, &error, effects);
            }
            Sender::Host => {
                let lan = self.lan_port;
                let error = error_about(packet, self.snapshot.ports.get(usize::from(lan.0))?.icmp_source);
                self.send_packet(now, lan, packet.source(), &error, effects);
            }
            Sender::Peer => self.tell_peer(now, packet, effects)?,
        }
        Some(())
    }

    /// The error goes through the context the packet came through, so that it reaches the peer's host with the
    /// addresses that host knows. A context carries nothing from any other address than its host's, so the error
    /// speaks in the name of the host that does not answer.
    fn tell_peer(&mut self, now: Instant, packet: &ipv6::View<'_>, effects: &mut Vec<Effect>) -> Option<()> {
        let host = Ulid(packet.target());
        // The peer may know the host by its own ULID or by a locator.
        let known = self.endpoint.host_at(host)?.locators.iter().map(|(locator, _)| Ulid(locator.0));
        let mut known = std::iter::once(host).chain(known).map(|local| UlidPair { local, peer: Ulid(packet.source()) });
        let context = known
            .find_map(|ulids| self.endpoint.find(ulids, 0).filter(|context| context.state == State::Established))?;
        let (ulids, pair, tag) = (context.ulids, context.pair, context.peer_tag?);
        // With the payload header, too, it has to stay within 1280 octets (RFC 4443 §2.4 (c)).
        let mut quoted = [&packet.header()[..], packet.payload()].concat();
        quoted.truncate(icmpv6::QUOTE_MAX - PayloadHeader::LEN);
        let mut error = error_about(&ipv6::View::of_quote(&quoted).ok()?, packet.target());
        if ulids.local != host {
            natv6::to_outside(&mut error, host.0, ulids.local.0).ok()?;
        }
        let translated = if (pair.local.0, pair.peer.0) == (ulids.local.0, ulids.peer.0) {
            error
        } else {
            let place = ipv6::View::new(&error).ok()?.shim_insertion().ok()?.place;
            let mut room = [&[0; PayloadHeader::LEN], &error[..]].concat();
            payload::insert(&mut room, place, tag).ok()?;
            let mut out = ipv6::ViewMut::new(&mut room).ok()?;
            out.set_source(pair.local.0);
            out.set_target(pair.peer.0);
            room
        };
        let (_, provider) = self.provider_of(pair.local.0)?;
        let (port, next_hop) = (provider.port, provider.next_hop);
        self.send_packet(now, port, next_hop, &translated, effects);
        Some(())
    }
}

fn error_about(packet: &ipv6::View<'_>, source: Ipv6Addr) -> Vec<u8> {
    let mut room = [0; ipv6::MIN_MTU];
    icmpv6::emit_error(&mut room, ERROR, source, HOP_LIMIT, packet).to_vec()
}
