//! Multicast listener reports (RFC 3810): the box tells the switches and routers on its links to which solicited-node
//! groups it listens, or a switch that snoops would keep solicitations from it (RFC 4861 §7.2.1).
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Type = 143   |    Reserved   |           Checksum            |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |           Reserved            |Nr of Mcast Address Records (M)|
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Record Type  | Aux Data Len  |     Number of Sources (N)     |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                       Multicast Address                       |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::snapshot::PortId;
use dataplane::wire::checksum;
use dataplane::wire::ethernet::{self, EtherType, Mac};
use dataplane::wire::ipv6::{self, protocol};
use rand::Rng;

use super::neighbours::{OwnLink, solicited_node};
use crate::time::Instant;

/// Where reports go: all routers that speak MLDv2.
const ALL_MLDV2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// How often a new group is reported (RFC 3810 §9.1, Robustness Variable).
const ROBUSTNESS: u8 = 2;
/// Gap between those (§9.11 Unsolicited Report Interval).
const UNSOLICITED_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A report without being asked, for switches on links without a querier (§9.2 Query Interval).
const REPORT_INTERVAL: Duration = Duration::from_secs(125);
/// Records in one report: it stays below the minimum MTU.
const RECORDS_MAX: usize = 60;

const QUERY: u8 = 130;
const REPORT: u8 = 143;
/// We listen to the group, and did so before.
const MODE_IS_EXCLUDE: u8 = 2;
/// We listen to the group from now on.
const CHANGE_TO_EXCLUDE_MODE: u8 = 4;
/// Hop-by-Hop Options before ICMPv6: Router Alert for MLD (RFC 2711), and two octets of padding.
const ROUTER_ALERT: [u8; 8] = [protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0];

/// What the box tells listeners' routers, on all ports.
#[derive(Debug)]
pub struct Listener {
    ports: Vec<Membership>,
}

#[derive(Debug)]
struct Membership {
    mac: Mac,
    /// A link-local address, as §5.2.13 demands.
    source: Ipv6Addr,
    groups: Vec<Ipv6Addr>,
    /// Whether anything is behind the port.
    in_use: bool,
    /// Reports still to come that say the groups are new.
    news: u8,
    due: Option<Instant>,
}

impl Listener {
    /// For these ports, in the order of their numbers, as far as they are in use. Nothing is reported before
    /// [`Listener::start`].
    pub fn new(links: &[OwnLink], in_use: impl Fn(usize) -> bool) -> Listener {
        let membership = |(at, link): (usize, &OwnLink)| {
            let groups: BTreeSet<Ipv6Addr> = link.own.iter().map(|own| solicited_node(*own)).collect();
            let source = link.own.iter().find(|own| is_link_local(**own)).copied();
            Membership {
                mac: link.mac,
                source: source.unwrap_or(Ipv6Addr::UNSPECIFIED),
                groups: groups.into_iter().collect(),
                in_use: in_use(at),
                news: ROBUSTNESS,
                due: None,
            }
        };
        Listener { ports: links.iter().enumerate().map(membership).collect() }
    }

    /// Listens to more groups on a port. To be called before [`Listener::start`].
    pub fn join(&mut self, port: usize, groups: &[Ipv6Addr]) {
        if let Some(port) = self.ports.get_mut(port) {
            port.groups.extend_from_slice(groups);
        }
    }

    /// Begins to report.
    pub fn start(&mut self, now: Instant) {
        for port in self.ports.iter_mut().filter(|port| port.in_use) {
            port.due = Some(now);
        }
    }

    /// Begins to report on a port that was not in use.
    pub fn open(&mut self, now: Instant, port: usize) {
        if let Some(port) = self.ports.get_mut(port).filter(|port| !port.in_use) {
            port.in_use = true;
            port.due = Some(now);
        }
    }

    /// Takes in a packet for the box. False if it is no query. However many queries come, there is one answer, after a
    /// random part of the time the query allows (RFC 3810 §6.2).
    pub fn receive(&mut self, now: Instant, rng: &mut dyn Rng, port: PortId, packet: &[u8]) -> bool {
        let Some((group, wait)) = query(packet) else { return false };
        let Some(port) = self.ports.get_mut(usize::from(port.0)) else { return true };
        if group.is_unspecified() || port.groups.contains(&group) {
            let part = f64::from(rng.next_u32()) / f64::from(u32::MAX);
            let answer = now + wait.mul_f64(part);
            port.due = port.due.map(|due| due.min(answer));
        }
        true
    }

    /// Gives the Ethernet frames that are due.
    pub fn expire(&mut self, now: Instant, out: &mut Vec<(PortId, Vec<u8>)>) {
        for (at, port) in self.ports.iter_mut().enumerate() {
            if port.due.is_none_or(|due| due > now) {
                continue;
            }
            let kind = if port.news > 0 { CHANGE_TO_EXCLUDE_MODE } else { MODE_IS_EXCLUDE };
            port.news = port.news.saturating_sub(1);
            port.due = Some(now + if port.news > 0 { UNSOLICITED_REPORT_INTERVAL } else { REPORT_INTERVAL });
            for groups in port.groups.chunks(RECORDS_MAX) {
                out.push((PortId(at as u8), report(port.mac, port.source, kind, groups)));
            }
        }
    }

    /// When [`Listener::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.ports.iter().filter_map(|port| port.due).min()
    }
}

/// The Ethernet frame of a report.
fn report(mac: Mac, source: Ipv6Addr, kind: u8, groups: &[Ipv6Addr]) -> Vec<u8> {
    let mut message = vec![REPORT, 0, 0, 0, 0, 0];
    message.extend_from_slice(&(groups.len() as u16).to_be_bytes());
    for group in groups {
        message.extend_from_slice(&[kind, 0, 0, 0]);
        message.extend_from_slice(&group.octets());
    }
    let sum = checksum::upper_layer(source, ALL_MLDV2_ROUTERS, protocol::ICMPV6, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = ipv6::Repr {
        source,
        target: ALL_MLDV2_ROUTERS,
        next_header: protocol::HOP_BY_HOP,
        payload_len: (ROUTER_ALERT.len() + message.len()) as u16,
        hop_limit: 1,
        traffic_class: 0,
        flow_label: 0,
    };
    let mut frame = [&[0; ethernet::HEADER_LEN], &header.emit()[..], &ROUTER_ALERT, &message].concat();
    if let Ok(mut ether) = ethernet::ViewMut::new(&mut frame) {
        ether.set(Mac::for_multicast(ALL_MLDV2_ROUTERS), mac, EtherType::IPV6);
    }
    frame
}

/// The group a query asks about, unspecified for all of them, and how long an answer may take. RFC 3810 §6.2: a query
/// comes from a link-local address with hop limit 1 and a Router Alert; anything else is none.
fn query(packet: &[u8]) -> Option<(Ipv6Addr, Duration)> {
    let view = ipv6::View::new(packet).ok()?;
    let upper = view.upper_layer().ok().filter(|upper| upper.first_fragment)?;
    let message = view.from_offset(upper.place.offset);
    if upper.place.next_header != protocol::ICMPV6 || message.first() != Some(&QUERY) {
        return None;
    }
    let alert = view.next_header() == protocol::HOP_BY_HOP && has_router_alert(view.payload());
    if view.hop_limit() != 1 || !is_link_local(view.source()) || !alert {
        return None;
    }
    let right = checksum::upper_layer_verifies(view.source(), view.target(), protocol::ICMPV6, message);
    // 24 octets are a query of version 1, from 28 on it is one of version 2 (§8.1).
    if !right || !(message.len() == 24 || message.len() >= 28) {
        return None;
    }
    let group = message.get(8..24)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets))?;
    let code = u16::from_be_bytes([message[4], message[5]]);
    // §5.1.3: a version of floating point from 32768 on.
    let (exponent, mantissa) = (u32::from(code >> 12 & 7), u64::from(code & 0xfff));
    let floating = code >= 0x8000 && message.len() > 24;
    let millis = if floating { (mantissa | 0x1000) << (exponent + 3) } else { u64::from(code) };
    Some((group, Duration::from_millis(millis)))
}

/// Whether Hop-by-Hop Options hold a Router Alert.
fn has_router_alert(header: &[u8]) -> bool {
    let Some(length) = header.get(1).map(|units| usize::from(*units) * 8 + 8) else { return false };
    let mut options = header.get(2..length).unwrap_or_default();
    loop {
        options = match options {
            [5, 2, ..] => return true,
            [0, rest @ ..] => rest,
            [_, length, rest @ ..] => rest.get(usize::from(*length)..).unwrap_or_default(),
            _ => return false,
        }
    }
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const PORT: PortId = PortId(0);

    fn listener() -> Listener {
        let own = ["2001:db8:ff00:1::2", "fe80::ff:fe00:1"].map(|address| address.parse().unwrap()).to_vec();
        let link = OwnLink { mac: Mac([2, 0, 0, 0, 0, 1]), own };
        Listener::new(&[link.clone(), link], |at| at == 0)
    }

    fn due(listener: &mut Listener, now: Instant) -> Vec<(PortId, Vec<u8>)> {
        let mut out = Vec::new();
        listener.expire(now, &mut out);
        out
    }

    /// A query in its packet.
    fn question(version: u8, code: u16, group: Ipv6Addr, hop_limit: u8) -> Vec<u8> {
        let [high, low] = code.to_be_bytes();
        let mut message = [&[QUERY, 0, 0, 0, high, low, 0, 0][..], &group.octets()].concat();
        if version == 2 {
            message.extend_from_slice(&[2, 125, 0, 0]);
        }
        let (source, target) = ("fe80::9".parse().unwrap(), "ff02::1".parse().unwrap());
        let sum = checksum::upper_layer(source, target, protocol::ICMPV6, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let header = ipv6::Repr {
            source,
            target,
            next_header: protocol::HOP_BY_HOP,
            payload_len: (ROUTER_ALERT.len() + message.len()) as u16,
            hop_limit,
            traffic_class: 0,
            flow_label: 0,
        };
        [&header.emit()[..], &ROUTER_ALERT, &message].concat()
    }

    #[test]
    fn a_report_has_the_octets_of_rfc_3810() {
        let mut listener = listener();
        listener.start(Instant::START);
        let reports = due(&mut listener, Instant::START);
        let [(PORT, frame)] = &reports[..] else { panic!("{reports:?}") };
        #[rustfmt::skip]
        let golden = [
            0x33, 0x33, 0, 0, 0, 0x16, 2, 0, 0, 0, 0, 1, 0x86, 0xdd,
            0x60, 0, 0, 0, 0, 56, 0, 1,
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 1,
            0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16,
            58, 0, 5, 2, 0, 0, 1, 0,
            143, 0, 0x6f, 0xeb, 0, 0, 0, 2,
            4, 0, 0, 0, 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1,
            4, 0, 0, 0, 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 2,
        ];
        assert_eq!(frame[..], golden);
    }

    #[test]
    fn groups_are_news_twice_and_then_reported_now_and_then() {
        let mut listener = listener();
        assert_eq!(listener.deadline(), None);
        listener.start(Instant::START);
        let mut times = Vec::new();
        for _ in 0..4 {
            let now = listener.deadline().unwrap();
            let reports = due(&mut listener, now);
            times.push((now.since(Instant::START).as_secs(), reports[0].1[ethernet::HEADER_LEN + 56]));
        }
        let (new, old) = (CHANGE_TO_EXCLUDE_MODE, MODE_IS_EXCLUDE);
        assert_eq!(times, [(0, new), (1, new), (126, old), (251, old)]);
    }

    #[test]
    fn a_query_is_answered_once_within_its_time() {
        let mut listener = listener();
        listener.start(Instant::START);
        due(&mut listener, Instant::START);
        due(&mut listener, Instant::START + UNSOLICITED_REPORT_INTERVAL);
        let mut rng = StdRng::seed_from_u64(1);
        let now = Instant::START + Duration::from_secs(10);
        let (all, ours) = (Ipv6Addr::UNSPECIFIED, solicited_node("2001:db8::2".parse().unwrap()));
        // Not for us, not from this link, or not a query: nothing changes.
        let quiet = listener.deadline();
        assert!(listener.receive(now, &mut rng, PORT, &question(2, 1000, "ff02::1:ff00:77".parse().unwrap(), 1)));
        assert!(!listener.receive(now, &mut rng, PORT, &question(2, 1000, all, 2)));
        let mut broken = question(2, 1000, all, 1);
        *broken.last_mut().unwrap() ^= 1;
        assert!(!listener.receive(now, &mut rng, PORT, &broken));
        assert_eq!(listener.deadline(), quiet);
        for asked in [question(2, 1000, all, 1), question(2, 1000, ours, 1), question(1, 1000, all, 1)] {
            for _ in 0..10 {
                assert!(listener.receive(now, &mut rng, PORT, &asked));
            }
            let answer = listener.deadline().unwrap();
            assert!(answer <= now + Duration::from_secs(1));
            assert_eq!(due(&mut listener, answer).len(), 1);
            assert_eq!(listener.deadline(), Some(answer + REPORT_INTERVAL));
        }
        // A mantissa of 0 and an exponent of 1: 0x1000 << 4 milliseconds.
        assert_eq!(query(&question(2, 0x9000, all, 1)).unwrap().1, Duration::from_millis(65_536));
    }
}
