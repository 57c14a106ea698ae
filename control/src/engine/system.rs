//! Ports shared with the operating system: which packets it gets besides those that workers know to be for it alone, which of its
//! own it may send, and which addresses are its.
//!
//! The system has an interface with the port's link-layer address and addresses of its own. It is a neighbour among others on that
//! link: routing protocols run there, and nothing else has to. So it may speak for itself and for nobody else: whatever has another
//! source than one of its addresses, be it forwarded or made up, is not sent.

use std::net::Ipv6Addr;
use std::sync::Arc;

use dataplane::snapshot::{PortId, PortView, Role};
use dataplane::wire::Ulid;
use dataplane::wire::ethernet::{self, EtherType};
use dataplane::wire::ipv6::{self, protocol};

use super::{Effect, Engine, Event};
use crate::config::Site;

/// Addresses on one interface that packets are given to it for: workers look through all of them.
const ADDRESSES_MAX: usize = 16;

/// Types of messages of ICMPv6 (RFC 4861 §4, RFC 3810 §5).
mod neighbour {
    use std::net::Ipv6Addr;

    pub(super) const LISTENER_QUERY: u8 = 130;
    pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;
    pub(super) const SOLICITATION: u8 = 135;
    pub(super) const ADVERTISEMENT: u8 = 136;
    pub(super) const REDIRECT: u8 = 137;

    /// The target of a solicitation or an advertisement.
    pub(super) fn about(message: &[u8]) -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from(*message.get(8..24)?.first_chunk::<16>()?))
    }
}

/// Which ports have an interface of the system's.
pub(super) fn shared(site: &Site) -> Vec<bool> {
    site.ports.iter().map(|port| port.interface.is_some()).collect()
}

impl Engine {
    /// These are the addresses the system has on its interface of this port now.
    pub fn system_addresses(&mut self, port: PortId, addresses: &[Ipv6Addr], effects: &mut Vec<Effect>) {
        let Some(view) = self.snapshot.ports.get(usize::from(port.0)) else { return };
        let Some(before) = &view.system else { return };
        // What is somebody else's stays theirs: the box's own, a locator, a host's.
        let free = |address: &&Ipv6Addr| {
            let taken = view.own.contains(address) || self.snapshot.delegated(**address);
            !(taken || self.snapshot.is_image(**address) || self.snapshot.host_index.contains_key(&Ulid(**address)))
        };
        let addresses: Vec<Ipv6Addr> = addresses.iter().filter(free).take(ADDRESSES_MAX).copied().collect();
        if *before != addresses {
            if let Some(view) = Arc::make_mut(&mut self.snapshot).ports.get_mut(usize::from(port.0)) {
                view.system = Some(addresses);
            }
            effects.push(Effect::Publish(self.snapshot.clone()));
        }
    }

    /// Addresses the system has on its interface of a port, as far as packets are given to it for them; none if it has no
    /// interface there.
    pub fn system_of(&self, port: PortId) -> Option<&[Ipv6Addr]> {
        self.snapshot.ports.get(usize::from(port.0))?.system.as_deref()
    }

    /// A packet that workers know to be for the system.
    pub(super) fn for_the_system(&self, port: PortId, frame: &[u8], effects: &mut Vec<Effect>) {
        if self.system_of(port).is_some() {
            effects.push(Effect::System(port, frame.to_vec()));
        }
    }

    /// A packet of the box's that the system should hear too: where it is asked for itself, and what is said to all.
    pub(super) fn show_to_system(&self, port: PortId, frame: &[u8], effects: &mut Vec<Effect>) {
        let Some(addresses) = self.system_of(port) else { return };
        let Some(packet) = frame.get(ethernet::HEADER_LEN..).and_then(|octets| ipv6::View::new(octets).ok()) else {
            return;
        };
        let (Ok(upper), true) = (packet.upper_layer(), packet.target().is_multicast()) else { return };
        let message = packet.from_offset(upper.place.offset);
        let concerns = match message.first() {
            _ if upper.place.next_header != protocol::ICMPV6 => false,
            Some(&neighbour::LISTENER_QUERY | &neighbour::ROUTER_ADVERTISEMENT | &neighbour::ADVERTISEMENT) => true,
            Some(&neighbour::SOLICITATION) => neighbour::about(message).is_some_and(|it| addresses.contains(&it)),
            _ => false,
        };
        if concerns {
            effects.push(Effect::System(port, frame.to_vec()));
        }
    }

    /// The system wants to send this on a port.
    pub fn from_system(&mut self, port: PortId, frame: Vec<u8>, effects: &mut Vec<Effect>) {
        let Some(view) = self.snapshot.ports.get(usize::from(port.0)) else { return };
        match self.may_leave(view, &frame) {
            Ok(()) => {
                self.tally.count(Event::SystemSent);
                effects.push(Effect::Transmit(port, frame));
            }
            Err(reason) => self.tally.count(reason),
        }
    }

    /// So many frames for the system or from it found no room.
    pub fn system_lost(&mut self, frames: u64) {
        self.tally.count_many(Event::SystemFull, frames);
    }

    /// Why a frame of the system's is not sent.
    fn may_leave(&self, view: &PortView, frame: &[u8]) -> Result<(), Event> {
        let ether = ethernet::View::new(frame).map_err(|_| Event::SystemUnreadable)?;
        if ether.ether_type() != EtherType::IPV6 {
            return Err(Event::SystemUnreadable);
        }
        let packet = ipv6::View::new(ether.payload()).map_err(|_| Event::SystemUnreadable)?;
        let addresses = view.system.as_deref().unwrap_or_default();
        let (source, target) = (packet.source(), packet.target());
        // Who has no address yet asks whether it is free.
        let nameless = source.is_unspecified() && target.is_multicast();
        if ether.source() != view.mac || !(nameless || addresses.contains(&source)) {
            return Err(Event::SystemForeign);
        }
        let upper = packet.upper_layer().map_err(|_| Event::SystemUnreadable)?;
        let message = packet.from_offset(upper.place.offset);
        let icmp = upper.place.next_header == protocol::ICMPV6;
        if nameless && !icmp {
            return Err(Event::SystemForeign);
        }
        match message.first() {
            // Where others are is not for the system to say.
            Some(&neighbour::ADVERTISEMENT) if icmp => {
                let about = neighbour::about(message).ok_or(Event::SystemUnreadable)?;
                if !addresses.contains(&about) {
                    return Err(Event::SystemForeign);
                }
            }
            Some(&neighbour::REDIRECT) if icmp => return Err(Event::SystemForeign),
            _ => {}
        }
        let outside = view.role != Role::Site;
        if outside && (self.is_identifier(source) || self.is_identifier(target)) {
            return Err(Event::SystemIdentifier);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dataplane::link::{Notice, Punt};
    use dataplane::wire::ethernet::Mac;

    use super::*;
    use crate::sim::{Plan, World};

    const LAN: PortId = PortId(0);
    const OSPF: u8 = 89;

    fn address(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    /// A box that shares its LAN port and its first provider's.
    fn sharing() -> (World, PortId) {
        let mut world = World::new(&Plan::default(), 1);
        let engine = &mut world.nodes[0].engine;
        let wan = engine.providers[0].port;
        for port in [LAN, wan] {
            Arc::make_mut(&mut engine.snapshot).ports[usize::from(port.0)].system = Some(Vec::new());
            let mut effects = Vec::new();
            engine.system_addresses(port, &[address("fe80::5157"), address("2001:db8:77::5")], &mut effects);
            assert!(matches!(effects[..], [Effect::Publish(_)]), "{effects:?}");
        }
        (world, wan)
    }

    fn frame(engine: &Engine, port: PortId, source: &str, target: &str, next_header: u8, payload: &[u8]) -> Vec<u8> {
        let repr = ipv6::Repr {
            source: address(source),
            target: address(target),
            next_header,
            payload_len: payload.len() as u16,
            hop_limit: 255,
            traffic_class: 0,
            flow_label: 0,
        };
        let mut frame = vec![0; ethernet::HEADER_LEN];
        frame.extend(repr.emit());
        frame.extend(payload);
        let mac = engine.snapshot.ports[usize::from(port.0)].mac;
        ethernet::ViewMut::new(&mut frame).unwrap().set(Mac([0x33, 0x33, 0, 0, 0, 5]), mac, EtherType::IPV6);
        frame
    }

    fn about(kind: u8, target: &str) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message.extend(address(target).octets());
        message
    }

    #[test]
    fn what_is_somebody_elses_never_becomes_the_systems() {
        let (mut world, wan) = sharing();
        let (host, engine) = (world.hosts[0].ulid, &mut world.nodes[0].engine);
        let own = engine.snapshot.ports[0].own[0];
        let locator = engine.endpoint.host(Ulid(host)).unwrap().locators[0].0.0;
        let mut effects = Vec::new();
        let all = [own, host, locator, address("fe80::7")];
        engine.system_addresses(LAN, &all, &mut effects);
        assert_eq!(engine.system_of(LAN), Some(&[address("fe80::7")][..]));
        // The same again is no news, and a flood of addresses is cut.
        effects.clear();
        engine.system_addresses(LAN, &all, &mut effects);
        assert!(effects.is_empty());
        let many: Vec<Ipv6Addr> = (1..100).map(|it| Ipv6Addr::from_bits(0x2001_0db8 << 96 | it)).collect();
        engine.system_addresses(wan, &many, &mut effects);
        assert_eq!(engine.system_of(wan).map(<[_]>::len), Some(ADDRESSES_MAX));
        // A port that is not shared has no addresses of the system's, whatever is said.
        let other = engine.providers[1].port;
        engine.system_addresses(other, &many, &mut effects);
        assert_eq!(engine.system_of(other), None);
    }

    /// Port, source, destination, next header, what follows, and what becomes of it.
    type Case<'a> = (PortId, &'a str, &'a str, u8, Vec<u8>, Result<(), Event>);

    #[test]
    fn the_system_speaks_for_itself_and_for_nobody_else() {
        let (mut world, wan) = sharing();
        let host = world.hosts[0].ulid.to_string();
        let engine = &mut world.nodes[0].engine;
        let peer = "fc00:b:0:1::9";
        let na = |target: &str| about(neighbour::ADVERTISEMENT, target);
        let solicit = about(neighbour::SOLICITATION, "fe80::5157");
        let cases: &[Case<'_>] = &[
            (LAN, "fe80::5157", "ff02::5", OSPF, vec![3; 36], Ok(())),
            (wan, "2001:db8:77::5", "2001:db8:77::1", protocol::TCP, vec![0; 20], Ok(())),
            (wan, "::", "ff02::1:ff00:5157", protocol::ICMPV6, solicit.clone(), Ok(())),
            (LAN, "fe80::5157", "fe80::9", protocol::ICMPV6, na("fe80::5157"), Ok(())),
            (LAN, "2001:db8:77::5", peer, protocol::TCP, vec![0; 20], Ok(())),
            (LAN, &host, peer, protocol::TCP, vec![0; 20], Err(Event::SystemForeign)),
            (LAN, "fe80::1", "ff02::5", OSPF, vec![3; 36], Err(Event::SystemForeign)),
            (wan, "fc00:a:0:9::1", "2001:db8:77::1", protocol::TCP, vec![0; 20], Err(Event::SystemForeign)),
            (wan, "2001:db8:77::5", peer, protocol::TCP, vec![0; 20], Err(Event::SystemIdentifier)),
            (LAN, "fe80::5157", "fe80::9", protocol::ICMPV6, na(&host), Err(Event::SystemForeign)),
            (
                LAN,
                "fe80::5157",
                "fe80::9",
                protocol::ICMPV6,
                about(neighbour::REDIRECT, &host),
                Err(Event::SystemForeign),
            ),
            (LAN, "::", "ff02::5", OSPF, vec![3; 36], Err(Event::SystemForeign)),
            (LAN, "::", "fe80::9", protocol::ICMPV6, solicit, Err(Event::SystemForeign)),
            (
                LAN,
                "fe80::5157",
                "fe80::9",
                protocol::ICMPV6,
                vec![neighbour::ADVERTISEMENT],
                Err(Event::SystemUnreadable),
            ),
        ];
        for (port, source, target, next_header, payload, expected) in cases {
            let octets = frame(engine, *port, source, target, *next_header, payload);
            let view = &engine.snapshot.ports[usize::from(port.0)];
            assert_eq!(engine.may_leave(view, &octets), *expected, "{source} {target} {next_header}");
            let mut effects = Vec::new();
            engine.from_system(*port, octets.clone(), &mut effects);
            assert_eq!(effects.len(), usize::from(expected.is_ok()));
        }
        // Another station's address, something else than IPv6, and rubbish.
        let view = &engine.snapshot.ports[0];
        let mut other = frame(engine, LAN, "fe80::5157", "ff02::5", OSPF, &[3; 36]);
        other[6] ^= 2;
        assert_eq!(engine.may_leave(view, &other), Err(Event::SystemForeign));
        other[12..14].copy_from_slice(&[0x08, 0x06]);
        assert_eq!(engine.may_leave(view, &other), Err(Event::SystemUnreadable));
        assert_eq!(engine.may_leave(view, &other[..9]), Err(Event::SystemUnreadable));
    }

    #[test]
    fn the_system_hears_what_concerns_it() {
        let (world, wan) = sharing();
        let mut world = world;
        let now = world.now;
        let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(1);
        let engine = &mut world.nodes[0].engine;
        let unshared = engine.providers[1].port;
        let mut hears = |port: PortId, why, target: &str, payload: Vec<u8>| {
            let octets = frame(engine, port, "fe80::9", target, protocol::ICMPV6, &payload);
            let mut effects = Vec::new();
            engine.notice(now, &mut rng, Notice::Punt(port, why, &octets), &mut effects);
            effects
                .iter()
                .filter(|effect| matches!(effect, Effect::System(at, it) if *at == port && *it == octets))
                .count()
        };
        for port in [LAN, wan] {
            assert_eq!(hears(port, Punt::System, "ff02::5", vec![3; 36]), 1);
            assert_eq!(hears(port, Punt::System, "fe80::5157", vec![3; 36]), 1);
            let asked = |it: &str| about(neighbour::SOLICITATION, it);
            assert_eq!(hears(port, Punt::HostStack, "ff02::1:ff00:5157", asked("fe80::5157")), 1);
            assert_eq!(hears(port, Punt::HostStack, "ff02::1:ff00:1", asked("fe80::1")), 0, "the box's own");
            assert_eq!(hears(port, Punt::HostStack, "ff02::1", about(neighbour::ADVERTISEMENT, "fe80::9")), 1);
            assert_eq!(hears(port, Punt::HostStack, "ff02::1", vec![neighbour::ROUTER_ADVERTISEMENT; 16]), 1);
            assert_eq!(hears(port, Punt::HostStack, "ff02::1", vec![128; 16]), 0, "an echo request to all");
        }
        assert_eq!(hears(unshared, Punt::System, "ff02::5", vec![3; 36]), 0);
        assert_eq!(hears(unshared, Punt::HostStack, "ff02::1", about(neighbour::ADVERTISEMENT, "fe80::9")), 0);
    }
}
