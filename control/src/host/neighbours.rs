//! Neighbour discovery (RFC 4861) for the whole box.
//!
//! It answers solicitations for the box's own addresses, multicast or unicast, and finds and keeps the link-layer
//! addresses of next hops and hosts it was asked about. It learns nothing about addresses nobody asked about, so its
//! memory is bounded by the box's own needs and not by what strangers send.

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::snapshot::PortId;
use dataplane::wire::ethernet::{self, EtherType, Mac};
use hashbrown::HashMap;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
    RawHardwareAddress,
};

use crate::time::Instant;

/// Gap between two solicitations (RFC 4861 §10, RETRANS_TIMER).
const RETRANS_TIMER: Duration = Duration::from_secs(1);
/// How long an answer is believed (REACHABLE_TIME).
const REACHABLE_TIME: Duration = Duration::from_secs(30);
/// How long an address that nobody confirmed is used before asking (DELAY_FIRST_PROBE_TIME).
const DELAY_FIRST_PROBE: Duration = Duration::from_secs(5);
/// Solicitations before an address counts as gone (MAX_MULTICAST_SOLICIT, MAX_UNICAST_SOLICIT).
const SOLICITATIONS_MAX: u8 = 3;
/// Gap between attempts to find an address that did not answer but is still wanted.
const SEARCH_AGAIN: Duration = Duration::from_secs(3);
/// Packets kept while an address is looked for.
const WAITING_MAX: usize = 16;
/// Addresses kept.
const ENTRIES_MAX: usize = 16_384;

/// A port as neighbour discovery sees it.
#[derive(Clone, Debug)]
pub struct OwnLink {
    /// Its link-layer address.
    pub mac: Mac,
    /// The box's addresses there, link-local ones included.
    pub own: Vec<Ipv6Addr>,
}

/// What came of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Send this Ethernet frame.
    Send(PortId, Vec<u8>),
    /// An address has a link-layer address, or another one than before.
    Resolved(PortId, Ipv6Addr, Mac),
    /// An address does not answer any more.
    Lost(PortId, Ipv6Addr),
}

#[derive(Debug)]
struct Entry {
    mac: Option<Mac>,
    /// When to ask (again).
    due: Instant,
    asked: u8,
    /// Kept and asked about for ever.
    wanted: bool,
    waiting: VecDeque<Vec<u8>>,
}

/// The box's neighbours on all ports.
#[derive(Debug)]
pub struct Neighbours {
    links: Vec<OwnLink>,
    entries: HashMap<(PortId, Ipv6Addr), Entry>,
    /// No entry is due before this; it may be earlier than any is.
    due: Option<Instant>,
    /// Packets and addresses refused because a bound was reached.
    pub refused: u64,
    /// Packets given up because their neighbour did not answer, or too many waited for it.
    pub unanswered: u64,
}

/// What a message says about a link-layer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// An answer to us: the neighbour hears us (§7.2.5, solicited). `may_change` is the override flag.
    Answer { may_change: bool },
    /// The neighbour speaks, and that is all we know.
    Hearsay { may_change: bool },
}

impl Neighbours {
    /// For these ports, in the order of their numbers.
    pub fn new(links: Vec<OwnLink>) -> Neighbours {
        Neighbours { links, entries: HashMap::new(), due: None, refused: 0, unanswered: 0 }
    }

    /// The link-layer address of a neighbour, if known.
    pub fn mac(&self, port: PortId, address: Ipv6Addr) -> Option<Mac> {
        self.entries.get(&(port, address)).and_then(|entry| entry.mac)
    }

    /// Looks for an address and keeps it fresh from now on.
    pub fn want(&mut self, now: Instant, port: PortId, address: Ipv6Addr) {
        if let Some(entry) = self.entry(now, port, address) {
            entry.wanted = true;
        }
    }

    /// Sends an Ethernet frame to a neighbour: at once if its address is known, else when it is. The frame's destination
    /// is filled in here.
    pub fn send(&mut self, now: Instant, port: PortId, next_hop: Ipv6Addr, frame: Vec<u8>, out: &mut Vec<LinkEvent>) {
        let Some(entry) = self.entry(now, port, next_hop) else {
            self.refused += 1;
            return;
        };
        match entry.mac {
            Some(mac) => deliver(port, mac, frame, out),
            None => {
                if entry.waiting.len() >= WAITING_MAX {
                    // RFC 4861 §7.2.2: the oldest makes room.
                    entry.waiting.pop_front();
                    entry.waiting.push_back(frame);
                    self.unanswered += 1;
                } else {
                    entry.waiting.push_back(frame);
                }
                self.expire(now, out);
            }
        }
    }

    /// Takes in an ICMPv6 packet for the box. False if it is not neighbour discovery and somebody else's business.
    pub fn receive(&mut self, now: Instant, port: PortId, packet: &[u8], out: &mut Vec<LinkEvent>) -> bool {
        let Ok(ip) = Ipv6Packet::new_checked(packet) else { return false };
        if ip.next_header() != IpProtocol::Icmpv6 {
            return false;
        }
        let (source, target) = (ip.src_addr(), ip.dst_addr());
        let Ok(icmp) = Icmpv6Packet::new_checked(ip.payload()) else { return false };
        if !icmp.msg_type().is_ndisc() {
            return false;
        }
        // RFC 4861 §7.1: hop limit 255 proves that the packet comes from this link.
        if ip.hop_limit() != 255 {
            return true;
        }
        match Icmpv6Repr::parse(&source, &target, &icmp, &ChecksumCapabilities::default()) {
            Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, lladdr })) => {
                let from = lladdr.and_then(mac_of);
                if let Some(mac) = from.filter(|_| !source.is_unspecified()) {
                    self.learn(now, port, source, mac, Claim::Hearsay { may_change: true }, out);
                }
                self.answer(port, source, target_addr, from, out);
            }
            Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr })) => {
                let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
                if solicited && target.is_multicast() {
                    return true;
                }
                let may_change = flags.contains(NdiscNeighborFlags::OVERRIDE);
                let claim = if solicited { Claim::Answer { may_change } } else { Claim::Hearsay { may_change } };
                // §7.2.4: the answer to a unicast solicitation may leave out the address it was sent to.
                let known = || self.mac(port, target_addr).filter(|_| solicited);
                if let Some(mac) = lladdr.map_or_else(known, mac_of) {
                    self.learn(now, port, target_addr, mac, claim, out);
                }
            }
            _ => {}
        }
        true
    }

    /// Asks what is due to be asked.
    pub fn expire(&mut self, now: Instant, out: &mut Vec<LinkEvent>) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        let mut forget = Vec::new();
        for (&(port, address), entry) in &mut self.entries {
            if entry.due > now {
                continue;
            }
            let Some(link) = self.links.get(usize::from(port.0)) else { continue };
            if entry.asked >= SOLICITATIONS_MAX {
                entry.asked = 0;
                self.unanswered += entry.waiting.drain(..).count() as u64;
                let lost = entry.mac.take().is_some();
                if lost {
                    out.push(LinkEvent::Lost(port, address));
                }
                if !entry.wanted {
                    forget.push((port, address));
                    continue;
                }
                // §7.3.3: what has gone is looked for anew and at once, as it may answer from another link-layer
                // address; what nobody answers for is asked about less often.
                if !lost {
                    entry.due = now + SEARCH_AGAIN;
                    continue;
                }
            }
            entry.asked += 1;
            entry.due = now + RETRANS_TIMER;
            if let Some(frame) = solicit(link, address, entry.mac) {
                out.push(LinkEvent::Send(port, frame));
            }
        }
        for key in forget {
            self.entries.remove(&key);
        }
        self.due = self.entries.values().map(|entry| entry.due).min();
    }

    /// When [`Neighbours::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    fn entry(&mut self, now: Instant, port: PortId, address: Ipv6Addr) -> Option<&mut Entry> {
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(&(port, address)) {
            return None;
        }
        if !self.entries.contains_key(&(port, address)) {
            self.due = Some(self.due.map_or(now, |due| due.min(now)));
        }
        let new = || Entry { mac: None, due: now, asked: 0, wanted: false, waiting: VecDeque::new() };
        Some(self.entries.entry((port, address)).or_insert_with(new))
    }

    /// RFC 4861 §7.2.3 and §7.2.5: what a link-layer address somebody told of does to the one we have.
    fn learn(
        &mut self,
        now: Instant,
        port: PortId,
        address: Ipv6Addr,
        mac: Mac,
        claim: Claim,
        out: &mut Vec<LinkEvent>,
    ) {
        let Some(entry) = self.entries.get_mut(&(port, address)) else { return };
        let (answered, may_change) = match claim {
            Claim::Answer { may_change } => (true, may_change),
            Claim::Hearsay { may_change } => (false, may_change),
        };
        let changes = entry.mac != Some(mac);
        if entry.mac.is_some() && changes && !may_change {
            // §7.2.5: without the override flag a different address only casts doubt.
            entry.due = entry.due.min(now);
            self.due = self.due.min(Some(now));
            return;
        }
        if answered {
            entry.asked = 0;
            entry.due = now + REACHABLE_TIME;
        } else if changes {
            // Good enough to send with, not to believe that the neighbour hears us.
            entry.asked = 0;
            entry.due = now + DELAY_FIRST_PROBE;
            self.due = self.due.min(Some(entry.due));
        }
        if entry.mac.replace(mac) != Some(mac) {
            out.push(LinkEvent::Resolved(port, address, mac));
        }
        for frame in entry.waiting.drain(..) {
            deliver(port, mac, frame, out);
        }
    }

    /// RFC 4861 §7.2.4: a solicitation for one of our addresses.
    fn answer(&self, port: PortId, source: Ipv6Addr, asked: Ipv6Addr, from: Option<Mac>, out: &mut Vec<LinkEvent>) {
        let Some(link) = self.links.get(usize::from(port.0)) else { return };
        if !link.own.contains(&asked) {
            return;
        }
        let mut flags = NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::OVERRIDE;
        // A probe for duplicates has no source: everyone is told.
        let (to, mac) = if source.is_unspecified() {
            let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            (all_nodes, Mac::for_multicast(all_nodes))
        } else {
            flags |= NdiscNeighborFlags::SOLICITED;
            let Some(mac) = from.or_else(|| self.mac(port, source)) else { return };
            (source, mac)
        };
        let lladdr = Some(RawHardwareAddress::from(EthernetAddress(link.mac.0)));
        let advert = NdiscRepr::NeighborAdvert { flags, target_addr: asked, lladdr };
        if let Some(frame) = frame(link.mac, mac, asked, to, advert) {
            out.push(LinkEvent::Send(port, frame));
        }
    }
}

fn deliver(port: PortId, mac: Mac, mut frame: Vec<u8>, out: &mut Vec<LinkEvent>) {
    if let Ok(mut ether) = ethernet::ViewMut::new(&mut frame) {
        ether.set_target(mac);
        out.push(LinkEvent::Send(port, frame));
    }
}

fn mac_of(address: RawHardwareAddress) -> Option<Mac> {
    <[u8; 6]>::try_from(address.as_bytes()).ok().map(Mac).filter(|mac| !mac.is_multicast())
}

fn is_link_local(address: &Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// RFC 4861 §7.2.2 while the address is unknown, §7.3.3 (unicast) to see whether it still answers.
fn solicit(link: &OwnLink, asked: Ipv6Addr, known: Option<Mac>) -> Option<Vec<u8>> {
    let same_scope = link.own.iter().find(|own| is_link_local(own) == is_link_local(&asked));
    let source = *same_scope.or(link.own.first())?;
    let (to, mac) = match known {
        Some(mac) => (asked, mac),
        None => {
            let [.., a, b, c] = asked.octets();
            let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
            (group, Mac::for_multicast(group))
        }
    };
    let lladdr = Some(RawHardwareAddress::from(EthernetAddress(link.mac.0)));
    frame(link.mac, mac, source, to, NdiscRepr::NeighborSolicit { target_addr: asked, lladdr })
}

fn frame(from: Mac, to: Mac, source: Ipv6Addr, target: Ipv6Addr, message: NdiscRepr<'_>) -> Option<Vec<u8>> {
    let icmp = Icmpv6Repr::Ndisc(message);
    let ip = Ipv6Repr {
        src_addr: source,
        dst_addr: target,
        next_header: IpProtocol::Icmpv6,
        payload_len: icmp.buffer_len(),
        hop_limit: 255,
    };
    let mut frame = vec![0; ethernet::HEADER_LEN + ip.buffer_len() + icmp.buffer_len()];
    ethernet::ViewMut::new(&mut frame).ok()?.set(to, from, EtherType::IPV6);
    let mut packet = Ipv6Packet::new_unchecked(frame.get_mut(ethernet::HEADER_LEN..)?);
    ip.emit(&mut packet);
    let mut payload = Icmpv6Packet::new_unchecked(packet.payload_mut());
    icmp.emit(&source, &target, &mut payload, &ChecksumCapabilities::default());
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: PortId = PortId(0);

    fn link(last: u8) -> OwnLink {
        let own = vec![
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()),
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last.into()),
        ];
        OwnLink { mac: Mac([2, 0, 0, 0, 0, last]), own }
    }

    fn packets(events: &[LinkEvent]) -> Vec<&[u8]> {
        let sent = events.iter().filter_map(|event| match event {
            LinkEvent::Send(_, frame) => Some(&frame[ethernet::HEADER_LEN..]),
            _ => None,
        });
        sent.collect()
    }

    /// Two boxes on one wire find each other, keep each other, and notice when the other is gone.
    #[test]
    fn two_ends_resolve_each_other_and_notice_silence() {
        let (mut a, mut b) = (Neighbours::new(vec![link(1)]), Neighbours::new(vec![link(2)]));
        let peer = link(2).own[0];
        let mut out = Vec::new();
        a.send(Instant::START, PORT, peer, vec![0; 60], &mut out);
        let asked = std::mem::take(&mut out);
        let [solicitation] = packets(&asked)[..] else { panic!("{asked:?}") };
        assert!(b.receive(Instant::START, PORT, solicitation, &mut out));
        let answered = std::mem::take(&mut out);
        let [advert] = packets(&answered)[..] else { panic!("{answered:?}") };
        assert!(a.receive(Instant::START, PORT, advert, &mut out));
        let mac = link(2).mac;
        let mut waited = vec![0; 60];
        waited[..6].copy_from_slice(&mac.0);
        assert_eq!(out, [LinkEvent::Resolved(PORT, peer, mac), LinkEvent::Send(PORT, waited)]);

        // After the time an answer is believed: three unicast questions, then it is lost and forgotten.
        out.clear();
        let mut now = Instant::START + REACHABLE_TIME;
        for _ in 0..SOLICITATIONS_MAX {
            a.expire(now, &mut out);
            now = now + RETRANS_TIMER;
        }
        assert_eq!(packets(&out).len(), 3);
        assert!(packets(&out).iter().all(|packet| packet[24..40] == peer.octets()), "unicast, as it is known");
        out.clear();
        a.expire(now, &mut out);
        assert_eq!(out, [LinkEvent::Lost(PORT, peer)]);
        assert_eq!(a.deadline(), None, "nobody wants it, nothing remembers it");
    }

    /// One neighbour that is wanted and known since `Instant::START`.
    fn known() -> (Neighbours, Ipv6Addr) {
        let (mut us, peer) = (Neighbours::new(vec![link(1)]), link(2).own[0]);
        us.want(Instant::START, PORT, peer);
        us.expire(Instant::START, &mut Vec::new());
        advertise(&mut us, Instant::START, NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE, Some(2));
        assert_eq!(us.mac(PORT, peer), Some(link(2).mac));
        (us, peer)
    }

    /// Link 2 advertises its first address, with the link-layer address of link `mac` or none.
    fn advertise(us: &mut Neighbours, now: Instant, flags: NdiscNeighborFlags, mac: Option<u8>) -> Vec<LinkEvent> {
        let lladdr = mac.map(|last| RawHardwareAddress::from(EthernetAddress(link(last).mac.0)));
        let (source, target) = (link(2).own[0], link(1).own[0]);
        let advert = NdiscRepr::NeighborAdvert { flags, target_addr: source, lladdr };
        let frame = frame(link(2).mac, link(1).mac, source, target, advert).unwrap();
        let mut out = Vec::new();
        assert!(us.receive(now, PORT, &frame[ethernet::HEADER_LEN..], &mut out));
        out
    }

    /// Lets time pass until it asks somebody; returns when.
    fn next_question(us: &mut Neighbours) -> Instant {
        let mut out = Vec::new();
        while let Some(due) = us.deadline() {
            us.expire(due, &mut out);
            if !out.is_empty() {
                return due;
            }
        }
        panic!("nothing to ask");
    }

    /// Linux answers a unicast solicitation like this.
    #[test]
    fn an_answer_without_a_link_layer_address_confirms_the_known_one() {
        let (mut us, peer) = known();
        let mut now = Instant::START;
        for _ in 0..5 {
            now = next_question(&mut us);
            assert_eq!(advertise(&mut us, now, NdiscNeighborFlags::SOLICITED, None), []);
        }
        assert_eq!(now, Instant::START + 5 * REACHABLE_TIME);
        assert_eq!(us.mac(PORT, peer), Some(link(2).mac));
        // To somebody who knows no address it says nothing.
        let mut other = Neighbours::new(vec![link(1)]);
        other.want(now, PORT, peer);
        assert_eq!(advertise(&mut other, now, NdiscNeighborFlags::SOLICITED, None), []);
        assert_eq!(other.mac(PORT, peer), None);
    }

    /// RFC 4861 §7.3.1: only an answer shows that the neighbour hears us.
    #[test]
    fn hearing_a_neighbour_does_not_confirm_it() {
        let (mut us, peer) = known();
        let later = Instant::START + Duration::from_secs(20);
        assert_eq!(advertise(&mut us, later, NdiscNeighborFlags::OVERRIDE, Some(2)), []);
        let question = solicit(&link(2), link(1).own[0], Some(link(1).mac)).unwrap();
        assert!(us.receive(later, PORT, &question[ethernet::HEADER_LEN..], &mut Vec::new()));
        assert_eq!(next_question(&mut us), Instant::START + REACHABLE_TIME);
        // A new address is used at once and asked soon.
        let resolved = advertise(&mut us, later, NdiscNeighborFlags::OVERRIDE, Some(3));
        assert_eq!(resolved, [LinkEvent::Resolved(PORT, peer, link(3).mac)]);
        assert_eq!(next_question(&mut us), later + DELAY_FIRST_PROBE);
    }

    #[test]
    fn a_wanted_neighbour_that_went_silent_is_looked_for_at_once() {
        let (mut us, peer) = known();
        let mut out = Vec::new();
        let mut now = Instant::START + REACHABLE_TIME;
        for _ in 0..SOLICITATIONS_MAX {
            us.expire(now, &mut out);
            now = now + RETRANS_TIMER;
        }
        out.clear();
        us.expire(now, &mut out);
        assert_eq!(out.first(), Some(&LinkEvent::Lost(PORT, peer)));
        let [search] = packets(&out)[..] else { panic!("{out:?}") };
        assert_eq!(search[24], 0xff, "multicast, as it may have another link-layer address now");
        // What waits for it is counted when it is given up: one that found no room, then all others.
        for _ in 0..=WAITING_MAX {
            us.send(now, PORT, peer, vec![0; 60], &mut Vec::new());
        }
        assert_eq!(us.unanswered, 1);
        for _ in 0..SOLICITATIONS_MAX {
            now = now + RETRANS_TIMER;
            us.expire(now, &mut out);
        }
        assert_eq!(us.unanswered, 1 + WAITING_MAX as u64);
        assert_eq!(us.deadline(), Some(now + SEARCH_AGAIN));
    }

    #[test]
    fn a_unicast_probe_is_answered_as_a_router() {
        let mut a = Neighbours::new(vec![link(1)]);
        let (me, asker) = (link(1), link(2));
        let question = solicit(&asker, me.own[0], Some(me.mac)).unwrap();
        let mut out = Vec::new();
        assert!(a.receive(Instant::START, PORT, &question[ethernet::HEADER_LEN..], &mut out));
        let [answer] = packets(&out)[..] else { panic!("{out:?}") };
        assert_eq!((answer[40], answer[44] & 0xe0), (136, 0xe0), "router, solicited, override");
    }

    #[test]
    fn what_did_not_start_on_this_link_is_ignored() {
        let mut a = Neighbours::new(vec![link(1)]);
        let mut question = solicit(&link(2), link(1).own[0], None).unwrap();
        question[ethernet::HEADER_LEN + 7] = 254;
        let mut out = Vec::new();
        assert!(a.receive(Instant::START, PORT, &question[ethernet::HEADER_LEN..], &mut out));
        assert!(out.is_empty());
    }

    #[test]
    fn strangers_leave_no_trace() {
        let mut a = Neighbours::new(vec![link(1)]);
        let question = solicit(&link(2), link(1).own[0], None).unwrap();
        let mut out = Vec::new();
        a.receive(Instant::START, PORT, &question[ethernet::HEADER_LEN..], &mut out);
        assert!(a.entries.is_empty());
    }
}
