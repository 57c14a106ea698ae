//! Providers, and the core between them. The core itself never fails; a provider's two legs can.

use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::wire::ethernet::Mac;
use dataplane::wire::ipv6::{self, protocol};
use dataplane::wire::shim6::{ControlPacket, Message, PacketError};
use rand::Rng;

use super::evil::VICTIM;
use super::plan::is_identifier;
use super::{CABLE, Due, Fault, Oracle, Origin, ProviderId, SiteId, World, packet};
use crate::host::Datagram;
use crate::identity::prefix_of;
use crate::time::Instant;

/// Largest packet providers carry unless told otherwise.
pub(super) const MTU: usize = 1500;
/// How long a packet usually takes through one leg.
const DELAY: Duration = Duration::from_millis(5);
/// Packets of others that somebody on the path keeps.
const RECORDED_MAX: usize = 64;

/// Which way a packet goes through a provider, seen from its customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the customer.
    Out,
    /// To the customer.
    In,
}

/// What happens to packets on one way through a provider.
#[derive(Clone, Copy, Debug)]
pub struct Leg {
    /// Nothing gets through.
    pub cut: bool,
    /// Share of packets lost, in percent.
    pub loss: u32,
    /// Share of packets that arrive twice, in percent.
    pub duplicates: u32,
    /// How long every packet takes.
    pub delay: Duration,
    /// How much longer a packet may take: packets overtake each other within this time.
    pub jitter: Duration,
    /// Flow labels are written over with zero.
    pub zeroes_labels: bool,
    /// What has no Shim6 header is lost, as a firewall may have it that saw no connection begin.
    pub shim6_only: bool,
    /// What has a Shim6 header is lost, as on paths that drop extension headers.
    pub drops_shim6: bool,
    /// When the latest of the packets under way arrives.
    latest: Instant,
}

impl Default for Leg {
    fn default() -> Leg {
        Leg {
            cut: false,
            loss: 0,
            duplicates: 0,
            delay: DELAY,
            jitter: Duration::ZERO,
            zeroes_labels: false,
            shim6_only: false,
            drops_shim6: false,
            latest: Instant::START,
        }
    }
}

/// A provider of one site.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Its customer.
    pub site: SiteId,
    /// The customer's port.
    pub port: usize,
    /// First 64 bits of the addresses it delegated.
    pub prefix: u64,
    /// Others it has delegated.
    pub also: Vec<u64>,
    /// Its router on the customer's link.
    pub router: Ipv6Addr,
    /// The customer's address on that link.
    pub customer: Ipv6Addr,
    /// The router's link-layer address.
    pub router_mac: Mac,
    /// The customer's.
    pub customer_mac: Mac,
    /// Whether its cable is in the customer's box.
    pub plugged: bool,
    /// Whether its router answers at all.
    pub router_up: bool,
    /// Largest packet it carries.
    pub mtu: usize,
    /// From the customer.
    pub out: Leg,
    /// To the customer.
    pub inward: Leg,
    /// Packets it took from the customer, for other sites.
    pub carried: u64,
    /// What somebody on the path has heard, if there is such a one.
    pub recorder: Option<Vec<Vec<u8>>>,
}

/// A control message a box sent.
#[derive(Clone, Debug)]
pub struct Captured {
    /// When.
    pub at: Instant,
    /// Through whom.
    pub provider: ProviderId,
    /// From and to whom.
    pub addresses: (Ipv6Addr, Ipv6Addr),
    /// What it says.
    pub message: Message,
}

/// What all routers call themselves on their links.
pub const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

impl Provider {
    /// Whether it carries a prefix.
    fn has(&self, prefix: u64) -> bool {
        self.prefix == prefix || self.also.contains(&prefix)
    }
}

impl World {
    /// Cuts a provider in the given ways.
    pub fn cut(&mut self, provider: ProviderId, ways: &[Way]) {
        self.faults.count(if ways.len() > 1 { Fault::TotalCut } else { Fault::OneWayCut });
        for way in ways {
            self.leg(provider, *way).cut = true;
        }
    }

    /// Ends all cuts of a provider.
    pub fn heal(&mut self, provider: ProviderId) {
        self.leg(provider, Way::Out).cut = false;
        self.leg(provider, Way::In).cut = false;
        self.plug(provider, true);
    }

    /// Somebody pulls a provider's cable out of its customer's box, whose device says so.
    pub fn unplug(&mut self, provider: ProviderId) {
        self.faults.count(Fault::Unplugged);
        self.cut(provider, &[Way::Out, Way::In]);
        self.plug(provider, false);
    }

    fn plug(&mut self, provider: ProviderId, plugged: bool) {
        let Provider { site, port, .. } = self.providers[provider];
        if std::mem::replace(&mut self.providers[provider].plugged, plugged) != plugged {
            self.link_state(site, port, plugged);
        }
    }

    /// Does the same to both legs of every provider.
    pub fn all_legs(&mut self, change: impl Fn(&mut Leg)) {
        for provider in &mut self.providers {
            change(&mut provider.out);
            change(&mut provider.inward);
        }
    }

    /// The network becomes what it was at first, nobody listens or lies any more, and boxes are awake.
    pub fn mend(&mut self) {
        (0..self.providers.len()).for_each(|provider| self.plug(provider, true));
        for provider in &mut self.providers {
            (provider.router_up, provider.mtu, provider.recorder) = (true, MTU, None);
        }
        self.evil = None;
        for site in 0..self.nodes.len() {
            self.nodes[site].resume();
            self.later(self.now, Due::Tick(site));
        }
        self.all_legs(|leg| {
            (leg.cut, leg.loss, leg.duplicates, leg.delay, leg.jitter) = (false, 0, 0, DELAY, Duration::ZERO);
            leg.drops_shim6 = false;
        });
    }

    /// From now on a provider carries only packets of this size.
    pub fn shrink(&mut self, provider: ProviderId, mtu: usize) {
        self.providers[provider].mtu = mtu;
        self.faults.count(Fault::Mtu);
    }

    /// A provider's router answers, or not.
    pub fn set_router(&mut self, provider: ProviderId, up: bool) {
        self.providers[provider].router_up = up;
        if !up {
            self.faults.count(Fault::RouterDown);
        }
    }

    /// One way through a provider.
    ///
    /// # Panics
    /// When there is no such provider.
    pub fn leg(&mut self, provider: ProviderId, way: Way) -> &mut Leg {
        let provider = &mut self.providers[provider];
        match way {
            Way::Out => &mut provider.out,
            Way::In => &mut provider.inward,
        }
    }

    /// A packet appears at a provider's customer as if it had come from far away.
    pub fn inject(&mut self, provider: ProviderId, packet: &[u8]) {
        self.deliver(provider, packet.to_vec(), self.now + CABLE, Origin::Plain);
    }

    /// The router of a provider sends a packet to the box itself.
    pub fn send_from_router(&mut self, provider: ProviderId, octets: &[u8]) {
        let Provider { site, port, customer_mac, router_mac, .. } = self.providers[provider];
        let frame = packet::frame(customer_mac, router_mac, octets);
        self.later(self.now + CABLE, Due::ToBox(site, port, frame, Origin::Plain));
    }

    /// Somebody far away, who knows neither tags nor nonces, sends a packet.
    pub fn forge(&mut self, packet: Vec<u8>) {
        self.faults.count(Fault::Forgery);
        self.later(self.now, Due::AtCore(packet, Origin::Forged));
    }

    /// The provider through which an address is reached.
    pub fn provider_of(&self, address: Ipv6Addr) -> Option<ProviderId> {
        let prefix = (address.to_bits() >> 64) as u64;
        self.providers.iter().position(|provider| provider.has(prefix) || provider.customer == address)
    }

    /// A box sent a frame to one of its providers.
    pub(super) fn toward_provider(&mut self, site: SiteId, port: usize, frame: Vec<u8>) {
        let mine = |provider: &Provider| (provider.site, provider.port) == (site, port);
        let Some(number) = self.providers.iter().position(mine) else { return };
        let Some(octets) = packet::packet_in(&frame) else {
            return self.violation(Some(site), Oracle::Wellformed, "no IPv6 packet in a frame");
        };
        let Ok(view) = ipv6::View::new(octets) else { return };
        let provider = &self.providers[number];
        if view.target().is_multicast() || [provider.router, ROUTER].contains(&view.target()) {
            return self.at_router(number, octets);
        }
        if frame[..6] != provider.router_mac.0 || frame[6..12] != provider.customer_mac.0 {
            let text = format!("a packet to {} in a frame for nobody", view.target());
            return self.violation(Some(site), Oracle::Wellformed, text);
        }
        if !provider.router_up {
            self.lost += 1;
            return self.faults.count(Fault::CutOff);
        }
        self.forward(number, octets);
    }

    /// A packet for the router itself: it answers neighbour discovery.
    fn at_router(&mut self, number: ProviderId, octets: &[u8]) {
        if let Ok(datagram) = ipv6::View::new(octets).map_err(drop).and_then(|it| Datagram::parse(&it).map_err(drop)) {
            return self.asked.push((number, datagram.payload));
        }
        let provider = &self.providers[number];
        let its = |asked: &Ipv6Addr| [provider.router, ROUTER].contains(asked) && provider.router_up;
        let asked = packet::solicited(octets).filter(its);
        let Some(answer) = asked.and_then(|asked| packet::advertisement(octets, asked, provider.router_mac)) else {
            return;
        };
        let frame = packet::frame(provider.customer_mac, provider.router_mac, &answer);
        let (site, port) = (provider.site, provider.port);
        self.later(self.now + CABLE, Due::ToBox(site, port, frame, Origin::Plain));
    }

    /// A packet from the customer to the world: strict about its source, and about what belongs inside a site.
    fn forward(&mut self, number: ProviderId, octets: &[u8]) {
        let Ok(view) = ipv6::View::new(octets) else { return };
        let (source, target) = (view.source(), view.target());
        let Provider { site, customer, router, mtu, .. } = self.providers[number];
        if !self.providers[number].has((source.to_bits() >> 64) as u64) && source != customer {
            let text = format!("{source} is no source for provider {number} (to {target})");
            return self.violation(Some(site), Oracle::Ingress, text);
        }
        if is_identifier(target) {
            return self.violation(
                Some(site),
                Oracle::Identifier,
                format!("{target} left its site, in {:?}", ControlPacket::parse(octets)),
            );
        }
        self.capture(number, octets);
        if prefix_of(target) == prefix_of(VICTIM) {
            self.judge_visit(octets, target);
        }
        if octets.len() > mtu {
            return self.too_big_for(mtu, router, octets, number);
        }
        self.record(number, octets);
        self.providers[number].carried += 1;
        let mut octets = octets.to_vec();
        octets[7] = octets[7].saturating_sub(1);
        for at in self.through(number, Way::Out, &mut octets) {
            self.later(at, Due::AtCore(octets.clone(), Origin::Plain));
        }
    }

    /// A router tells the sender of a packet, who is reached through a provider, how large one may be.
    fn too_big_for(&mut self, mtu: usize, router: Ipv6Addr, octets: &[u8], to: ProviderId) {
        self.faults.count(Fault::TooBig);
        if let Some(error) = packet::error_about(octets, router, 2, 0, mtu as u32) {
            self.deliver(to, error, self.now + CABLE, Origin::Plain);
        }
    }

    /// Notes control messages, and that every one of them can be read. Judges where payload goes.
    fn capture(&mut self, number: ProviderId, octets: &[u8]) {
        let site = self.providers[number].site;
        let octets = &*packet::out_of_udp(octets);
        match ControlPacket::parse(octets) {
            Ok(control) => {
                let (source, target) = (control.addresses.source, control.addresses.target);
                if let Some(host) = self.host_at(source) {
                    self.ledger.sent(host, source, target, &control.message);
                }
                self.captured.push(Captured {
                    at: self.now,
                    provider: number,
                    addresses: (source, target),
                    message: control.message,
                });
            }
            Err(PacketError::NotShim6) => {}
            // A payload header is no control message either, and is told apart by its P bit.
            Err(_) if is_payload(octets) => self.judge_payload(site, octets),
            Err(error) => self.violation(Some(site), Oracle::Wellformed, format!("a control message: {error}")),
        }
    }

    /// Payload goes to a locator of the host it is for, and to one that has shown to hear what is sent there.
    fn judge_payload(&mut self, site: SiteId, octets: &[u8]) {
        let Ok(view) = ipv6::View::new(octets) else { return };
        let (source, target) = (view.source(), view.target());
        let Some(from) = self.host_at(source) else { return };
        if !self.ledger.is_reachable(from, target) {
            let text = format!("payload of host {from} to {target}, which has not shown to be there");
            self.violation(Some(site), Oracle::Reachable, text);
        }
        let to = self.addressee(octets);
        if let Some(to) = to.filter(|to| !self.hosts[*to].locators.contains(&target)) {
            let text = format!("payload for host {to} to {target}, which is not its own");
            self.violation(Some(site), Oracle::Owned, text);
        }
    }

    /// A packet for a box from a provider: what it tells about who can be reached. The message, if it is one.
    pub(super) fn hear(&mut self, frame: &[u8]) -> Option<Message> {
        let octets = packet::packet_in(frame)?;
        let source = ipv6::View::new(octets).ok()?.source();
        self.visits.named += u64::from(prefix_of(source) == prefix_of(VICTIM));
        let control = ControlPacket::parse(&packet::out_of_udp(octets)).ok()?;
        let host = self.host_at(control.addresses.target)?;
        let hosts = &self.hosts;
        let at = |address: Ipv6Addr| hosts.iter().position(|host| host.locators.contains(&address));
        self.ledger.heard(host, (control.addresses.source, control.addresses.target), &control.message, at);
        Some(control.message)
    }

    /// A packet reached the core and goes on to whoever it is for.
    pub(super) fn out_of_core(&mut self, mut octets: Vec<u8>, origin: Origin) {
        let Ok(view) = ipv6::View::new(&octets) else { return };
        let (source, target) = (view.source(), view.target());
        let Some(number) = self.provider_of(target) else {
            self.lost += u64::from(!self.elsewhere(&octets, target));
            return;
        };
        let Provider { mtu, router, .. } = self.providers[number];
        if octets.len() > mtu {
            if let Some(back) = self.provider_of(source) {
                self.too_big_for(mtu, router, &octets, back);
            }
            return;
        }
        self.record(number, &octets);
        for at in self.through(number, Way::In, &mut octets) {
            self.deliver(number, octets.clone(), at, origin);
        }
    }

    /// Somebody on the path of a provider listens.
    fn record(&mut self, number: ProviderId, octets: &[u8]) {
        if let Some(heard) = self.providers[number].recorder.as_mut().filter(|heard| heard.len() < RECORDED_MAX) {
            heard.push(octets.to_vec());
        }
    }

    /// When a packet gets through one way of a provider: once, twice, or never; and what it looks like then.
    fn through(&mut self, number: ProviderId, way: Way, octets: &mut [u8]) -> Vec<Instant> {
        let mut leg = *self.leg(number, way);
        let shim6 = ipv6::View::new(octets).is_ok_and(|view| view.next_header() == protocol::SHIM6);
        if (leg.shim6_only && !shim6) || (leg.drops_shim6 && shim6) {
            self.faults.count(Fault::HeaderDropped);
            self.lost += 1;
            return Vec::new();
        }
        if leg.cut || self.chance(leg.loss) {
            self.lost += 1;
            self.faults.count(if leg.cut { Fault::CutOff } else { Fault::Loss });
            return Vec::new();
        }
        if let (true, Ok(mut packet)) = (leg.zeroes_labels, ipv6::ViewMut::new(octets)) {
            packet.set_flow_label(0);
        }
        let copies = if self.chance(leg.duplicates) { 2 } else { 1 };
        if copies > 1 {
            self.faults.count(Fault::Duplicate);
        }
        let mut arrivals = Vec::with_capacity(copies);
        for _ in 0..copies {
            let at = self.now + leg.delay + leg.jitter.mul_f64(self.share());
            if at < leg.latest {
                self.faults.count(Fault::Overtaking);
            }
            if at.since(self.now) > DELAY {
                self.faults.count(Fault::Delay);
            }
            leg.latest = leg.latest.max(at);
            arrivals.push(at);
        }
        self.leg(number, way).latest = leg.latest;
        arrivals
    }

    fn chance(&mut self, percent: u32) -> bool {
        percent > 0 && self.rng.next_u32() % 100 < percent
    }

    /// From zero to nearly one.
    fn share(&mut self) -> f64 {
        f64::from(self.rng.next_u32()) / (f64::from(u32::MAX) + 1.0)
    }

    fn deliver(&mut self, number: ProviderId, mut octets: Vec<u8>, at: Instant, origin: Origin) {
        let provider = &self.providers[number];
        if !provider.router_up {
            return self.faults.count(Fault::CutOff);
        }
        if let Some(hop_limit) = octets.get_mut(7) {
            *hop_limit = hop_limit.saturating_sub(1);
        }
        let frame = packet::frame(provider.customer_mac, provider.router_mac, &octets);
        let (site, port) = (provider.site, provider.port);
        self.later(at, Due::ToBox(site, port, frame, origin));
    }
}

/// Whether a packet's Shim6 header is a payload header.
pub(super) fn is_payload(octets: &[u8]) -> bool {
    let Ok(view) = ipv6::View::new(octets) else { return false };
    let shim = view.shim_header().ok().flatten();
    shim.is_some_and(|shim| {
        shim.place.next_header == protocol::SHIM6
            && view.from_offset(shim.place.offset).get(2).is_some_and(|p| p & 0x80 != 0)
    })
}
