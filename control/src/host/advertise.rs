//! Router advertisements (RFC 4861 §6.2): hosts learn that addresses come by DHCPv6, what is on the link, where DNS is and
//! what the box is a router to.
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Type = 134   |     Code      |          Checksum             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Cur Hop Limit |M|O|  Reserved |       Router Lifetime         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                         Reachable Time                        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                          Retrans Timer                        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   Options ...
//! +-+-+-+-+-+-+-+-+-+-+-+-
//! ```
//!
//! Solicitations are answered to all, never more often than every three seconds: however many come, they cost the same.

use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::wire::checksum;
use dataplane::wire::ethernet::{self, EtherType, Mac};
use dataplane::wire::ipv6::{self, protocol};
use rand::Rng;

use crate::time::Instant;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Where hosts ask for advertisements.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// MAX_INITIAL_RTR_ADVERT_INTERVAL (RFC 4861 §10).
const INITIAL_INTERVAL: Duration = Duration::from_secs(16);
/// MAX_INITIAL_RTR_ADVERTISEMENTS.
const INITIAL_COUNT: u8 = 3;
/// MIN_DELAY_BETWEEN_RAS.
const GAP: Duration = Duration::from_secs(3);
/// MAX_RA_DELAY_TIME.
const ANSWER_DELAY: Duration = Duration::from_millis(500);
/// AdvCurHopLimit.
const CUR_HOP_LIMIT: u8 = 64;
/// AdvValidLifetime and AdvPreferredLifetime of a prefix without A: as the RFC has them.
const PREFIX_LIFETIMES: (u32, u32) = (2_592_000, 604_800);

/// What hosts are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The box's Ethernet address on the link.
    pub mac: Mac,
    /// Its link-local address there.
    pub source: Ipv6Addr,
    /// Whether addresses and everything else come by DHCPv6 (M and O).
    pub managed: bool,
    /// Router Lifetime in seconds.
    pub lifetime: u16,
    /// MaxRtrAdvInterval.
    pub interval: Duration,
    /// The link's MTU.
    pub mtu: u16,
    /// The /64 on the link.
    pub prefix: Ipv6Addr,
    /// What the box is a router to, with prefix lengths (RFC 4191).
    pub routes: Vec<(Ipv6Addr, u8)>,
    /// DNS servers (RFC 8106).
    pub dns: Vec<Ipv6Addr>,
    /// Domains to search, as DNS writes them (RFC 8106).
    pub search: Vec<Vec<u8>>,
}

impl Advertisement {
    /// The Ethernet frame; the last one before the box stops has a lifetime of 0 (RFC 4861 §6.2.5).
    pub fn frame(&self, last: bool) -> Vec<u8> {
        let lifetime = if last { 0 } else { self.lifetime };
        let flags = if self.managed { 0xc0 } else { 0 };
        let mut message = vec![ADVERTISEMENT, 0, 0, 0, CUR_HOP_LIMIT, flags];
        message.extend_from_slice(&lifetime.to_be_bytes());
        message.extend_from_slice(&[0; 8]);
        self.put_options(&mut message, last);
        let sum = checksum::upper_layer(self.source, ALL_NODES, protocol::ICMPV6, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let header = ipv6::Repr {
            source: self.source,
            target: ALL_NODES,
            next_header: protocol::ICMPV6,
            payload_len: message.len() as u16,
            hop_limit: 255,
            traffic_class: 0,
            flow_label: 0,
        };
        let mut frame = [&[0; ethernet::HEADER_LEN], &header.emit()[..], &message].concat();
        if let Ok(mut ether) = ethernet::ViewMut::new(&mut frame) {
            ether.set(Mac::for_multicast(ALL_NODES), self.mac, EtherType::IPV6);
        }
        frame
    }

    fn put_options(&self, out: &mut Vec<u8>, last: bool) {
        // Three intervals: what RFC 8106 §5.1 asks for of DNS, and right for routes.
        let lasting = if last { 0 } else { u32::try_from(3 * self.interval.as_secs()).unwrap_or(u32::MAX) };
        // Source Link-Layer Address, MTU (RFC 4861 §4.6.1, §4.6.4).
        put(out, 1, &self.mac.0);
        put(out, 5, &[&[0, 0][..], &u32::from(self.mtu).to_be_bytes()].concat());
        // Prefix Information: on the link, no addresses of one's own making (§4.6.2).
        let (valid, preferred) = PREFIX_LIFETIMES;
        let times = [valid.to_be_bytes(), preferred.to_be_bytes(), [0; 4]].concat();
        put(out, 3, &[&[64, 0x80][..], &times, &self.prefix.octets()].concat());
        for (prefix, length) in &self.routes {
            // RFC 4191 §2.3: as many octets of the prefix as its length needs, in units of 8.
            let octets = &prefix.octets()[..usize::from(length.div_ceil(64)).min(2) * 8];
            put(out, 24, &[&[*length, 0][..], &lasting.to_be_bytes(), octets].concat());
        }
        if !self.dns.is_empty() {
            let servers: Vec<u8> = self.dns.iter().flat_map(|server| server.octets()).collect();
            put(out, 25, &[&[0, 0][..], &lasting.to_be_bytes(), &servers].concat());
        }
        if !self.search.is_empty() {
            put(out, 31, &[&[0, 0][..], &lasting.to_be_bytes(), &self.search.concat()].concat());
        }
    }
}

/// An option, filled up to units of 8 octets; one too long for its length field is left out.
fn put(out: &mut Vec<u8>, kind: u8, data: &[u8]) {
    let units = (data.len() + 2).div_ceil(8);
    let Ok(length) = u8::try_from(units) else { return };
    out.extend_from_slice(&[kind, length]);
    out.extend_from_slice(data);
    out.resize(out.len() + units * 8 - data.len() - 2, 0);
}

/// When advertisements are sent.
#[derive(Debug)]
pub struct Advertiser {
    what: Advertisement,
    due: Option<Instant>,
    last: Option<Instant>,
    /// Advertisements that still come quickly, since the box has just begun.
    initial: u8,
}

impl Advertiser {
    /// Says nothing before [`Advertiser::start`].
    pub fn new(what: Advertisement) -> Advertiser {
        Advertiser { what, due: None, last: None, initial: INITIAL_COUNT }
    }

    /// Begins.
    pub fn start(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// Hosts are told something else from now on, and soon.
    pub fn set(&mut self, now: Instant, what: Advertisement) {
        if self.what != what {
            self.what = what;
            // §6.2.4: changed information may be sent as often as at the beginning.
            self.initial = INITIAL_COUNT;
            self.due = self.due.map(|_| self.not_before_gap(now));
        }
    }

    /// Takes in a packet for the box. False if it is no solicitation. §6.2.6
    pub fn receive(&mut self, now: Instant, rng: &mut dyn Rng, packet: &[u8]) -> bool {
        if !is_solicitation(packet) {
            return false;
        }
        let answer = self.not_before_gap(now + ANSWER_DELAY.mul_f64(share(rng)));
        self.due = self.due.map(|due| due.min(answer));
        true
    }

    fn not_before_gap(&self, at: Instant) -> Instant {
        self.last.map_or(at, |last| at.max(last + GAP))
    }

    /// The frame that is due.
    pub fn expire(&mut self, now: Instant, rng: &mut dyn Rng) -> Option<Vec<u8>> {
        self.due.filter(|due| *due <= now)?;
        self.initial = self.initial.saturating_sub(1);
        self.last = Some(now);
        // §6.2.4: between a third of the interval and all of it.
        let interval = self.what.interval.mul_f64(1.0 / 3.0 + share(rng) * 2.0 / 3.0);
        let interval = if self.initial > 0 { interval.min(INITIAL_INTERVAL) } else { interval };
        self.due = Some(now + interval.max(GAP));
        Some(self.what.frame(false))
    }

    /// The last one, when the box stops.
    pub fn stop(&mut self) -> Option<Vec<u8>> {
        self.due.take().map(|_| self.what.frame(true))
    }

    /// When [`Advertiser::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }
}

fn share(rng: &mut dyn Rng) -> f64 {
    f64::from(rng.next_u32()) / f64::from(u32::MAX)
}

/// RFC 4861 §6.1.1.
fn is_solicitation(packet: &[u8]) -> bool {
    let Ok(view) = ipv6::View::new(packet) else { return false };
    let message = view.payload();
    if view.next_header() != protocol::ICMPV6 || view.hop_limit() != 255 || message.len() < 8 {
        return false;
    }
    let right = checksum::upper_layer_verifies(view.source(), view.target(), protocol::ICMPV6, message);
    if message[..2] != [SOLICITATION, 0] || !right {
        return false;
    }
    let mut options = &message[8..];
    while let [kind, units, ..] = *options {
        let from_nobody = kind == 1 && view.source().is_unspecified();
        match options.split_at_checked(usize::from(units) * 8) {
            Some((_, rest)) if units > 0 && !from_nobody => options = rest,
            _ => return false,
        }
    }
    options.is_empty()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn what() -> Advertisement {
        let address = |text: &str| text.parse().unwrap();
        Advertisement {
            mac: Mac([2, 0, 0, 0, 0, 1]),
            source: address("fe80::1"),
            managed: true,
            lifetime: 1800,
            interval: Duration::from_secs(600),
            mtu: 1500,
            prefix: address("fc00:a:0:1::"),
            routes: vec![(address("fc00::"), 8)],
            dns: vec![address("fc00:a:0:1::1")],
            search: vec![b"\x01x\0".to_vec()],
        }
    }

    fn solicitation(hop_limit: u8, options: &[u8]) -> Vec<u8> {
        let mut message = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], options].concat();
        let (source, target) = ("fe80::9".parse().unwrap(), ALL_ROUTERS);
        let sum = checksum::upper_layer(source, target, protocol::ICMPV6, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let payload_len = message.len() as u16;
        let next_header = protocol::ICMPV6;
        let header =
            ipv6::Repr { source, target, next_header, payload_len, hop_limit, traffic_class: 0, flow_label: 0 };
        [&header.emit()[..], &message].concat()
    }

    #[test]
    fn an_advertisement_has_the_octets_of_the_rfcs() {
        let frame = what().frame(false);
        let message = &frame[ethernet::HEADER_LEN + 40..];
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!((frame[ethernet::HEADER_LEN + 7], message[0]), (255, 134));
        let (source, target) = ("fe80::1".parse().unwrap(), ALL_NODES);
        assert!(checksum::upper_layer_verifies(source, target, 58, message));
        #[rustfmt::skip]
        let golden = [
            64, 0xc0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0,
            1, 1, 2, 0, 0, 0, 0, 1,
            5, 1, 0, 0, 0, 0, 0x05, 0xdc,
            3, 4, 64, 0x80, 0, 0x27, 0x8d, 0, 0, 0x09, 0x3a, 0x80, 0, 0, 0, 0,
                0xfc, 0, 0, 0xa, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
            24, 2, 8, 0, 0, 0, 0x07, 0x08, 0xfc, 0, 0, 0, 0, 0, 0, 0,
            25, 3, 0, 0, 0, 0, 0x07, 0x08, 0xfc, 0, 0, 0xa, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1,
            31, 2, 0, 0, 0, 0, 0x07, 0x08, 1, b'x', 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(message[4..], golden);
        // §6.2.5: nobody uses a router that has said goodbye.
        let last = what().frame(true);
        assert_eq!(last[ethernet::HEADER_LEN + 40 + 6..][..2], [0, 0]);
    }

    #[test]
    fn the_first_come_quickly_and_the_others_in_their_interval() {
        // RFC 4861 §6.2.4
        let mut rng = StdRng::seed_from_u64(1);
        let mut advertiser = Advertiser::new(what());
        assert_eq!((advertiser.deadline(), advertiser.stop()), (None, None));
        advertiser.start(Instant::START);
        let mut gaps = Vec::new();
        let mut now = Instant::START;
        for _ in 0..10 {
            assert!(advertiser.expire(now, &mut rng).is_some());
            assert!(advertiser.expire(now, &mut rng).is_none());
            let next = advertiser.deadline().unwrap();
            gaps.push(next.since(now).as_secs());
            now = next;
        }
        assert_eq!(gaps[..2], [16, 16]);
        assert!(gaps[2..].iter().all(|gap| (200..=600).contains(gap)), "{gaps:?}");
        assert!(advertiser.stop().is_some());
    }

    #[test]
    fn solicitations_are_answered_soon_and_not_often() {
        // RFC 4861 §6.2.6
        let mut rng = StdRng::seed_from_u64(2);
        let mut advertiser = Advertiser::new(what());
        advertiser.start(Instant::START);
        advertiser.expire(Instant::START, &mut rng);
        let mut sent = 0;
        for millis in 10_000..20_000 {
            let now = Instant::from_millis(millis);
            assert!(advertiser.receive(now, &mut rng, &solicitation(255, &[1, 1, 2, 0, 0, 0, 0, 9])));
            if let Some(_frame) = advertiser.expire(now, &mut rng) {
                assert!(sent > 0 || millis < 10_500, "the first within half a second");
                sent += 1;
            }
        }
        assert!((3..=4).contains(&sent), "{sent}");
        // Not from this link, cut short, an option without end.
        for wrong in [solicitation(254, &[]), solicitation(255, &[1, 0]), solicitation(255, &[1, 2, 0, 0, 0, 0, 0, 0])]
        {
            assert!(!advertiser.receive(Instant::START, &mut rng, &wrong));
        }
    }

    #[test]
    fn news_are_told_soon() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut advertiser = Advertiser::new(what());
        advertiser.start(Instant::START);
        for _ in 0..5 {
            let now = advertiser.deadline().unwrap();
            advertiser.expire(now, &mut rng);
        }
        let quiet = advertiser.deadline().unwrap() - Duration::from_secs(100);
        advertiser.set(quiet, what());
        assert!(advertiser.deadline().unwrap() > quiet);
        advertiser.set(quiet, Advertisement { lifetime: 0, ..what() });
        assert_eq!(advertiser.deadline(), Some(quiet));
    }
}
