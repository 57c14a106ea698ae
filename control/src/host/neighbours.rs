//! Neighbour discovery (RFC 4861) for the whole box.
//!
//! It answers solicitations for the box's own addresses, multicast or unicast, and finds and keeps the link-layer
//! addresses of next hops and hosts it was asked about. It learns nothing about addresses nobody asked about. Those of
//! the configuration always find room, so their number is bounded by the configuration; those that strangers make the
//! box answer to share a small quota on each port, and are forgotten when their time is up.

mod message;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::snapshot::PortId;
use dataplane::wire::ethernet::{self, Mac};

use crate::time::Instant;
pub(crate) use message::solicited_node;
use message::{Read, advertise, read, solicit};

/// Gap between two solicitations (RFC 4861 §10, RETRANS_TIMER).
const RETRANS_TIMER: Duration = Duration::from_secs(1);
/// How long an answer is believed (REACHABLE_TIME).
const REACHABLE_TIME: Duration = Duration::from_secs(30);
/// How long an address that nobody confirmed is used before asking (DELAY_FIRST_PROBE_TIME).
const DELAY_FIRST_PROBE: Duration = Duration::from_secs(5);
/// Solicitations before an address counts as gone (MAX_MULTICAST_SOLICIT, MAX_UNICAST_SOLICIT).
const SOLICITATIONS_MAX: u8 = 3;
/// Gap between attempts to find an address that did not answer but is still wanted, while no packet waits for it.
const SEARCH_AGAIN: Duration = Duration::from_secs(3);
/// Packets kept while an address is looked for.
const WAITING_MAX: usize = 16;
/// Strangers on one port.
const STRANGERS_MAX: usize = 256;
/// Those among them whose link-layer address is not known yet.
const STRANGERS_LOOKED_FOR_MAX: usize = 64;

/// A port as neighbour discovery sees it.
#[derive(Clone, Debug)]
pub struct OwnLink {
    /// Its link-layer address.
    pub mac: Mac,
    /// The box's addresses there, link-local ones included.
    pub own: Vec<Ipv6Addr>,
}

/// Whether a neighbour is one of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A router or a host of the configuration: there is always room.
    Configured,
    /// Whoever else on the link the box has to answer. There is room for a few.
    Stranger,
}

/// Why a packet was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// Nobody answered for its next hop.
    Unanswered,
    /// Too many packets wait for its next hop; it was the oldest.
    Overtaken,
    /// There is no room for another stranger.
    NoRoom,
    /// Its next hop is a host no longer.
    Forgotten,
}

/// What came of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Send this Ethernet frame.
    Send(PortId, Vec<u8>),
    /// An address has a link-layer address, or another one than before.
    Resolved(PortId, Ipv6Addr, Mac),
    /// An address does not answer any more, or nobody asks for it any more.
    Lost(PortId, Ipv6Addr),
    /// Somebody claims an address that must not be believed to be theirs.
    Disbelieved(PortId, Ipv6Addr, Mac),
    /// This Ethernet frame is not sent.
    Undeliverable(PortId, Vec<u8>, GivenUp),
}

#[derive(Debug)]
struct Entry {
    mac: Option<Mac>,
    /// When to ask (again).
    due: Instant,
    /// Solicitations since it was last confirmed; zero while its address is unknown means that it is not looked for now.
    asked: u8,
    /// Kept and asked about for ever.
    wanted: bool,
    waiting: VecDeque<Vec<u8>>,
}

/// The neighbours on one port. In order, so that the same inputs have the same outputs.
#[derive(Debug, Default)]
struct Table {
    configured: BTreeMap<Ipv6Addr, Entry>,
    strangers: BTreeMap<Ipv6Addr, Entry>,
}

/// The box's neighbours on all ports.
#[derive(Debug)]
pub struct Neighbours {
    links: Vec<(OwnLink, Table)>,
    /// No entry is due before this; it may be earlier than any is.
    due: Option<Instant>,
}

/// What a message says about a link-layer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    /// The neighbour hears us (§7.2.5, solicited); otherwise it speaks, and that is all we know.
    answered: bool,
    /// The override flag.
    may_change: bool,
}

impl Neighbours {
    /// For these ports, in the order of their numbers.
    pub fn new(links: Vec<OwnLink>) -> Neighbours {
        Neighbours { links: links.into_iter().map(|link| (link, Table::default())).collect(), due: None }
    }

    /// The link-layer address of a neighbour, if known.
    pub fn mac(&self, port: PortId, address: Ipv6Addr) -> Option<Mac> {
        let (_, table) = self.links.get(usize::from(port.0))?;
        table.get(address).and_then(|entry| entry.mac)
    }

    /// The same for one that is known to belong to the configuration: to send there, nothing has to be noted.
    pub fn configured_mac(&self, port: PortId, address: Ipv6Addr) -> Option<Mac> {
        let (_, table) = self.links.get(usize::from(port.0))?;
        table.configured.get(&address).and_then(|entry| entry.mac)
    }

    /// Looks for an address of the configuration and keeps it fresh from now on.
    pub fn want(&mut self, now: Instant, port: PortId, address: Ipv6Addr) {
        let Some((_, table)) = self.links.get_mut(usize::from(port.0)) else { return };
        if let Some(entry) = table.entry(now, address, Kind::Configured, &mut |_| ()) {
            entry.wanted = true;
            self.due = earliest(self.due, entry.due);
        }
    }

    /// Somebody who was there before says where an address of the configuration is. Good enough to send to; soon it is asked.
    pub fn remember(&mut self, now: Instant, port: PortId, address: Ipv6Addr, mac: Mac, out: &mut Vec<LinkEvent>) {
        let Some((_, table)) = self.links.get_mut(usize::from(port.0)) else { return };
        if table.entry(now, address, Kind::Configured, &mut |_| ()).is_some() {
            self.learn(now, (port, address), mac, Claim { answered: false, may_change: true }, out);
        }
    }

    /// Looks after an address of the configuration no longer.
    pub fn forget(&mut self, port: PortId, address: Ipv6Addr, out: &mut Vec<LinkEvent>) {
        let Some((_, table)) = self.links.get_mut(usize::from(port.0)) else { return };
        if let Some(entry) = table.configured.remove(&address) {
            let forgotten = |frame| LinkEvent::Undeliverable(port, frame, GivenUp::Forgotten);
            out.extend(entry.waiting.into_iter().map(forgotten));
        }
    }

    /// Sends an Ethernet frame to a neighbour: at once if its address is known, else when it is. The frame's destination
    /// is filled in here.
    pub fn send(
        &mut self,
        now: Instant,
        (port, next_hop): (PortId, Ipv6Addr),
        kind: Kind,
        frame: Vec<u8>,
        out: &mut Vec<LinkEvent>,
    ) {
        let Some((link, table)) = self.links.get_mut(usize::from(port.0)) else {
            return out.push(LinkEvent::Undeliverable(port, frame, GivenUp::NoRoom));
        };
        let mut lost = |address| out.push(LinkEvent::Lost(port, address));
        let Some(entry) = table.entry(now, next_hop, kind, &mut lost) else {
            return out.push(LinkEvent::Undeliverable(port, frame, GivenUp::NoRoom));
        };
        if let Some(mac) = entry.mac {
            return deliver(port, mac, frame, out);
        }
        // RFC 4861 §7.2.2: the oldest makes room.
        if entry.waiting.len() >= WAITING_MAX
            && let Some(oldest) = entry.waiting.pop_front()
        {
            out.push(LinkEvent::Undeliverable(port, oldest, GivenUp::Overtaken));
        }
        entry.waiting.push_back(frame);
        if entry.asked == 0 {
            entry.ask(now, link, (port, next_hop), out);
        }
        self.due = earliest(self.due, entry.due);
    }

    /// Takes in an ICMPv6 packet for the box. False if it is not neighbour discovery and somebody else's business.
    pub fn receive(&mut self, now: Instant, port: PortId, packet: &[u8], out: &mut Vec<LinkEvent>) -> bool {
        self.receive_if(now, port, packet, &|_, _| true, out)
    }

    /// The same where not everybody may have every address: a message that gives an address to a link-layer address is
    /// only believed if `believe` says so, and not answered otherwise.
    pub fn receive_if(
        &mut self,
        now: Instant,
        port: PortId,
        packet: &[u8],
        believe: &dyn Fn(Ipv6Addr, Mac) -> bool,
        out: &mut Vec<LinkEvent>,
    ) -> bool {
        match read(packet) {
            Read::Foreign => return false,
            Read::Ignored => {}
            Read::Solicitation { source, asked, from } => {
                if let Some(mac) = from {
                    if !believe(source, mac) {
                        out.push(LinkEvent::Disbelieved(port, source, mac));
                        return true;
                    }
                    self.learn(now, (port, source), mac, Claim { answered: false, may_change: true }, out);
                }
                self.answer(now, (port, source), asked, from, out);
            }
            Read::Advertisement { about, mac, solicited, may_change } => {
                // §7.2.4: the answer to a unicast solicitation may leave out the address it was sent to.
                if let Some(mac) = mac.or_else(|| self.mac(port, about).filter(|_| solicited)) {
                    if !believe(about, mac) {
                        out.push(LinkEvent::Disbelieved(port, about, mac));
                        return true;
                    }
                    self.learn(now, (port, about), mac, Claim { answered: solicited, may_change }, out);
                }
            }
        }
        true
    }

    /// Asks what is due to be asked.
    pub fn expire(&mut self, now: Instant, out: &mut Vec<LinkEvent>) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        self.due = None;
        for (at, (link, table)) in self.links.iter_mut().enumerate() {
            let port = PortId(at as u8);
            let kinds = [(Kind::Configured, &mut table.configured), (Kind::Stranger, &mut table.strangers)];
            for (kind, entries) in kinds {
                entries.retain(|address, entry| {
                    let kept = entry.due > now || entry.expire(now, link, (port, *address), kind, out);
                    if kept {
                        self.due = earliest(self.due, entry.due);
                    }
                    kept
                });
            }
        }
    }

    /// When [`Neighbours::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// RFC 4861 §7.2.3 and §7.2.5: what a link-layer address somebody told of does to the one we have.
    fn learn(
        &mut self,
        now: Instant,
        (port, address): (PortId, Ipv6Addr),
        mac: Mac,
        Claim { answered, may_change }: Claim,
        out: &mut Vec<LinkEvent>,
    ) {
        let Some((_, table)) = self.links.get_mut(usize::from(port.0)) else { return };
        let Some(entry) = table.get_mut(address) else { return };
        let changes = entry.mac != Some(mac);
        if entry.mac.is_some() && changes && !may_change {
            // §7.2.5: without the override flag a different address only casts doubt.
            entry.due = entry.due.min(now);
            self.due = earliest(self.due, now);
            return;
        }
        if answered {
            entry.asked = 0;
            entry.due = now + REACHABLE_TIME;
        } else if changes {
            // Good enough to send with, not to believe that the neighbour hears us.
            entry.asked = 0;
            entry.due = now + DELAY_FIRST_PROBE;
            self.due = earliest(self.due, entry.due);
        }
        if entry.mac.replace(mac) != Some(mac) {
            out.push(LinkEvent::Resolved(port, address, mac));
        }
        for frame in entry.waiting.drain(..) {
            deliver(port, mac, frame, out);
        }
    }

    /// RFC 4861 §7.2.4: a solicitation for one of our addresses. Who asks without saying where it is has to be found
    /// first.
    fn answer(
        &mut self,
        now: Instant,
        (port, source): (PortId, Ipv6Addr),
        asked: Ipv6Addr,
        from: Option<Mac>,
        out: &mut Vec<LinkEvent>,
    ) {
        let link = self.links.get(usize::from(port.0)).filter(|(link, _)| link.own.contains(&asked));
        let Some(frame) = link.and_then(|(link, _)| advertise(link, source, asked)) else { return };
        match from {
            _ if source.is_unspecified() => out.push(LinkEvent::Send(port, frame)),
            Some(mac) => deliver(port, mac, frame, out),
            None => self.send(now, (port, source), Kind::Stranger, frame, out),
        }
    }
}

impl Table {
    fn get(&self, address: Ipv6Addr) -> Option<&Entry> {
        self.configured.get(&address).or_else(|| self.strangers.get(&address))
    }

    fn get_mut(&mut self, address: Ipv6Addr) -> Option<&mut Entry> {
        self.configured.get_mut(&address).or_else(|| self.strangers.get_mut(&address))
    }

    /// The entry of an address, made if there is none and there is room for it. `lost` hears of one that made room.
    fn entry(
        &mut self,
        now: Instant,
        address: Ipv6Addr,
        kind: Kind,
        lost: &mut dyn FnMut(Ipv6Addr),
    ) -> Option<&mut Entry> {
        let Table { configured, strangers } = self;
        if kind == Kind::Configured {
            let known = strangers.remove(&address);
            return Some(configured.entry(address).or_insert_with(|| known.unwrap_or_else(|| Entry::new(now))));
        }
        if configured.contains_key(&address) {
            return configured.get_mut(&address);
        }
        if !strangers.contains_key(&address) {
            let looked_for = strangers.values().filter(|entry| entry.mac.is_none()).count();
            if looked_for >= STRANGERS_LOOKED_FOR_MAX {
                return None;
            }
            if strangers.len() >= STRANGERS_MAX {
                // The one that was heard of longest ago can be found again.
                let known = strangers.iter().filter(|(_, entry)| entry.mac.is_some());
                let oldest = known.min_by_key(|(_, entry)| entry.due).map(|(address, _)| *address)?;
                strangers.remove(&oldest);
                lost(oldest);
            }
        }
        Some(strangers.entry(address).or_insert_with(|| Entry::new(now)))
    }
}

impl Entry {
    fn new(now: Instant) -> Entry {
        Entry { mac: None, due: now, asked: 0, wanted: false, waiting: VecDeque::new() }
    }

    fn ask(&mut self, now: Instant, link: &OwnLink, (port, address): (PortId, Ipv6Addr), out: &mut Vec<LinkEvent>) {
        self.asked += 1;
        self.due = now + RETRANS_TIMER;
        if let Some(frame) = solicit(link, address, self.mac) {
            out.push(LinkEvent::Send(port, frame));
        }
    }

    /// Its time has come. False if it is to be forgotten.
    fn expire(
        &mut self,
        now: Instant,
        link: &OwnLink,
        (port, address): (PortId, Ipv6Addr),
        kind: Kind,
        out: &mut Vec<LinkEvent>,
    ) -> bool {
        if kind == Kind::Stranger && self.mac.is_some() {
            out.push(LinkEvent::Lost(port, address));
            return false;
        }
        if self.asked >= SOLICITATIONS_MAX {
            self.asked = 0;
            let lost = self.mac.take().is_some();
            if lost {
                out.push(LinkEvent::Lost(port, address));
            }
            let given_up = |frame| LinkEvent::Undeliverable(port, frame, GivenUp::Unanswered);
            out.extend(self.waiting.drain(..).map(given_up));
            if !self.wanted {
                return false;
            }
            // §7.3.3: what has gone is looked for anew and at once, as it may answer from another link-layer address;
            // what nobody answers for is asked about less often.
            if !lost {
                self.due = now + SEARCH_AGAIN;
                return true;
            }
        }
        self.ask(now, link, (port, address), out);
        true
    }
}

fn deliver(port: PortId, mac: Mac, mut frame: Vec<u8>, out: &mut Vec<LinkEvent>) {
    if let Ok(mut ether) = ethernet::ViewMut::new(&mut frame) {
        ether.set_target(mac);
        out.push(LinkEvent::Send(port, frame));
    }
}

fn earliest(due: Option<Instant>, other: Instant) -> Option<Instant> {
    Some(due.map_or(other, |due| due.min(other)))
}
