//! Who the router of a provider's link is, where the operator leaves that to router advertisements (RFC 4861 §6.3, RFC 4191).
//!
//! Of the routers that call themselves default routers the one with the highest preference is used, and stays so while none
//! has a higher one. Solicitations are sent until there is one (RFC 4861 §6.3.7), more and more rarely (RFC 7559). What a
//! router says of addresses is not heard: prefixes are delegated (`dhcp::client`) or configured.

use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::wire::checksum;
use dataplane::wire::ethernet::{self, EtherType, Mac};
use dataplane::wire::ipv6::{self, protocol};
use rand::Rng;

use super::neighbours::OwnLink;
use crate::time::Instant;

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const OPTION_SOURCE_LINK: u8 = 1;
const OPTION_MTU: u8 = 5;
/// Routers of one link that are remembered.
const ROUTERS_MAX: usize = 8;
/// MAX_RTR_SOLICITATION_DELAY (RFC 4861 §10).
const DELAY_MAX: Duration = Duration::from_secs(1);
/// IRT and MRT (RFC 7559 §2).
const FIRST_WAIT: Duration = Duration::from_secs(4);
const WAIT_MAX: Duration = Duration::from_secs(3_600);
/// How long a router that another process had heard counts without a word of its own.
const ASSUMED: Duration = Duration::from_secs(60);

/// A router that said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    /// Its link-local address.
    pub address: Ipv6Addr,
    /// -1, 0 or 1 (RFC 4191 §2.1).
    pub preference: i8,
    /// Until when it is a default router.
    pub until: Instant,
    /// The MTU it names for the link, if it names one.
    pub mtu: Option<u32>,
}

/// Watches one link.
#[derive(Debug, Default)]
pub struct Discovery {
    routers: Vec<Router>,
    chosen: Option<Ipv6Addr>,
    /// When to ask, and how long is waited for an answer then; nothing while there is a router, or before the start.
    asks: Option<(Instant, Duration)>,
    running: bool,
}

impl Discovery {
    /// Begins to ask.
    pub fn start(&mut self, now: Instant, rng: &mut dyn Rng) {
        self.running = true;
        self.link_up(now, rng);
    }

    /// Somebody else has heard of a router. It counts until it can have said so itself.
    pub fn assume(&mut self, now: Instant, address: Ipv6Addr) {
        self.routers.push(Router { address, preference: 0, until: now + ASSUMED, mtu: None });
        self.chosen = Some(address);
    }

    fn ask_on(&mut self, now: Instant, rng: &mut dyn Rng) {
        if self.running && self.chosen.is_none() && self.asks.is_none() {
            self.asks = Some((now + DELAY_MAX.mul_f64(fraction(rng)), FIRST_WAIT));
        } else if self.chosen.is_some() {
            self.asks = None;
        }
    }

    /// The link went and came back: who is there may be somebody else.
    pub fn link_up(&mut self, now: Instant, rng: &mut dyn Rng) {
        if self.running {
            self.asks = Some((now + DELAY_MAX.mul_f64(fraction(rng)), FIRST_WAIT));
        }
    }

    /// The router that is used.
    pub fn router(&self) -> Option<&Router> {
        let chosen = self.chosen?;
        self.routers.iter().find(|router| router.address == chosen)
    }

    /// All of them.
    pub fn routers(&self) -> &[Router] {
        &self.routers
    }

    /// Takes in a packet for the box. False if it is no advertisement that counts (§6.1.2).
    pub fn receive(&mut self, now: Instant, rng: &mut dyn Rng, packet: &[u8]) -> bool {
        let Some(said) = Said::parse(packet) else { return false };
        let known = self.routers.iter().position(|router| router.address == said.source);
        if said.lifetime == 0 {
            known.map(|at| self.routers.remove(at));
        } else {
            let until = now + Duration::from_secs(said.lifetime.into());
            let before = known.and_then(|at| self.routers[at].mtu);
            let Said { source: address, preference, mtu, .. } = said;
            let router = Router { address, preference, until, mtu: mtu.or(before) };
            match known {
                Some(at) => self.routers[at] = router,
                None if self.routers.len() < ROUTERS_MAX => self.routers.push(router),
                // Whoever floods the link with routers does not push out the one in use, or a better one.
                None => {
                    let least = self.routers.iter_mut().filter(|it| Some(it.address) != self.chosen);
                    let least = least.min_by_key(|it| (it.preference, it.until));
                    if let Some(place) = least.filter(|it| it.preference < preference) {
                        *place = router;
                    }
                }
            }
        }
        self.choose(now, rng);
        true
    }

    fn choose(&mut self, now: Instant, rng: &mut dyn Rng) {
        self.routers.retain(|router| router.until > now);
        let best = self.routers.iter().map(|router| router.preference).max();
        let stays = self.router().is_some_and(|router| Some(router.preference) == best);
        if !stays {
            let first = self.routers.iter().find(|router| Some(router.preference) == best);
            self.chosen = first.map(|router| router.address);
        }
        self.ask_on(now, rng);
    }

    /// Lets go of routers whose time is over. The frame that asks for others, if it is time to.
    pub fn expire(&mut self, now: Instant, rng: &mut dyn Rng, link: &OwnLink) -> Option<Vec<u8>> {
        if self.routers.iter().any(|router| router.until <= now) {
            self.choose(now, rng);
        }
        let (_, wait) = self.asks.filter(|(due, _)| *due <= now)?;
        // RFC 7559 §2, RFC 8415 §15: each wait is twice the last, and none is quite like another.
        let spread = fraction(rng) * 0.2 - 0.1;
        let longer = wait.mul_f64(2.0 + spread);
        let longer = if longer > WAIT_MAX { WAIT_MAX.mul_f64(1.0 + spread) } else { longer };
        self.asks = self.chosen.is_none().then_some((now + wait, longer));
        solicitation(link)
    }

    /// When [`Discovery::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let ends = self.routers.iter().map(|router| router.until);
        ends.chain(self.asks.map(|(due, _)| due)).min()
    }
}

/// What an advertisement says.
struct Said {
    source: Ipv6Addr,
    lifetime: u16,
    preference: i8,
    mtu: Option<u32>,
}

impl Said {
    fn parse(packet: &[u8]) -> Option<Said> {
        let view = ipv6::View::new(packet).ok()?;
        let (source, message) = (view.source(), view.payload());
        let whole = view.next_header() == protocol::ICMPV6 && message.len() >= 16;
        if !whole || view.hop_limit() != 255 || !source.is_unicast_link_local() {
            return None;
        }
        let right = checksum::upper_layer_verifies(source, view.target(), protocol::ICMPV6, message);
        if message[..2] != [ADVERTISEMENT, 0] || !right {
            return None;
        }
        let lifetime = u16::from_be_bytes([message[6], message[7]]);
        let preference = match message[5] >> 3 & 3 {
            1 => 1,
            3 => -1,
            // RFC 4191 §2.2: the fourth value is taken for the middle.
            _ => 0,
        };
        let (mut mtu, mut options) = (None, &message[16..]);
        while let [kind, units, ..] = *options {
            let (option, rest) = options.split_at_checked(usize::from(units) * 8).filter(|_| units > 0)?;
            if let (OPTION_MTU, [_, _, _, _, a, b, c, d]) = (kind, option) {
                // RFC 8200 §5: nothing less is an MTU of IPv6.
                mtu = Some(u32::from_be_bytes([*a, *b, *c, *d])).filter(|mtu| *mtu >= 1280);
            }
            options = rest;
        }
        options.is_empty().then_some(Said { source, lifetime, preference, mtu })
    }
}

/// RFC 4861 §4.1
fn solicitation(link: &OwnLink) -> Option<Vec<u8>> {
    let source = *link.own.iter().find(|own| own.is_unicast_link_local())?;
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0, OPTION_SOURCE_LINK, 1];
    message.extend_from_slice(&link.mac.0);
    let sum = checksum::upper_layer(source, ALL_ROUTERS, protocol::ICMPV6, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let repr = ipv6::Repr {
        source,
        target: ALL_ROUTERS,
        next_header: protocol::ICMPV6,
        payload_len: message.len() as u16,
        hop_limit: 255,
        traffic_class: 0,
        flow_label: 0,
    };
    let mut frame = vec![0; ethernet::HEADER_LEN];
    ethernet::ViewMut::new(&mut frame).ok()?.set(Mac::for_multicast(ALL_ROUTERS), link.mac, EtherType::IPV6);
    frame.extend_from_slice(&repr.emit());
    frame.extend_from_slice(&message);
    Some(frame)
}

/// From 0 to 1.
fn fraction(rng: &mut dyn Rng) -> f64 {
    f64::from(rng.next_u32()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn link() -> OwnLink {
        OwnLink { mac: Mac([2, 0, 0, 0, 0, 1]), own: vec!["2001:db8::1".parse().unwrap(), "fe80::1".parse().unwrap()] }
    }

    fn rng() -> StdRng {
        StdRng::seed_from_u64(3)
    }

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    fn packet(source: Ipv6Addr, hop_limit: u8, message: &[u8]) -> Vec<u8> {
        let target = "ff02::1".parse().unwrap();
        let mut message = message.to_vec();
        let sum = checksum::upper_layer(source, target, protocol::ICMPV6, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let (next_header, payload_len) = (protocol::ICMPV6, message.len() as u16);
        let repr = ipv6::Repr { source, target, next_header, payload_len, hop_limit, traffic_class: 0, flow_label: 0 };
        [&repr.emit()[..], &message].concat()
    }

    /// An advertisement with these two bits of preference, a lifetime, and perhaps an MTU.
    fn advertisement(router: u16, preference: u8, lifetime: u16, mtu: Option<u32>) -> Vec<u8> {
        let mut message = vec![ADVERTISEMENT, 0, 0, 0, 64, preference << 3];
        message.extend_from_slice(&lifetime.to_be_bytes());
        message.extend_from_slice(&[0; 8]);
        if let Some(mtu) = mtu {
            message.extend_from_slice(&[OPTION_MTU, 1, 0, 0]);
            message.extend_from_slice(&mtu.to_be_bytes());
        }
        packet(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, router), 255, &message)
    }

    fn chosen(discovery: &Discovery) -> Option<u16> {
        discovery.router().map(|router| router.address.segments()[7])
    }

    // RFC 4861 §4.1
    #[test]
    fn a_solicitation_has_the_octets_of_the_rfc() {
        #[rustfmt::skip]
        let expected = [
            0x33, 0x33, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd,
            0x60, 0, 0, 0, 0, 16, 58, 255,
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
            133, 0, 0x7a, 0x2c, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1,
        ];
        assert_eq!(solicitation(&link()).unwrap(), expected);
    }

    #[test]
    fn the_best_router_is_used_and_stays_while_none_is_better() {
        let (mut discovery, mut rng) = (Discovery::default(), rng());
        let mut hear =
            |discovery: &mut Discovery, now, packet: Vec<u8>| assert!(discovery.receive(now, &mut rng, &packet));
        hear(&mut discovery, at(0), advertisement(1, 3, 1800, None));
        assert_eq!(chosen(&discovery), Some(1));
        hear(&mut discovery, at(1), advertisement(2, 0, 1800, Some(1400)));
        assert_eq!((chosen(&discovery), discovery.router().unwrap().mtu), (Some(2), Some(1400)));
        // RFC 4191 §2.2: the value 10 is the middle.
        hear(&mut discovery, at(2), advertisement(3, 2, 1800, None));
        assert_eq!(chosen(&discovery), Some(2), "no better one");
        hear(&mut discovery, at(3), advertisement(4, 1, 100, None));
        assert_eq!(chosen(&discovery), Some(4));
        // One that says so is none any more, and neither is one whose time is over.
        hear(&mut discovery, at(4), advertisement(4, 1, 0, None));
        assert_eq!(chosen(&discovery), Some(2));
        hear(&mut discovery, at(5), advertisement(2, 0, 10, None));
        assert_eq!(discovery.router().unwrap().mtu, Some(1400), "what is not said again stays");
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(discovery.deadline(), Some(at(15)));
        discovery.expire(at(15), &mut rng, &link());
        assert_eq!(chosen(&discovery), Some(3));
    }

    // RFC 4861 §6.3.7, RFC 7559
    #[test]
    fn routers_are_asked_for_until_there_is_one() {
        let (mut discovery, mut rng) = (Discovery::default(), rng());
        discovery.start(at(0), &mut rng);
        let mut asked = Vec::new();
        while asked.len() < 14 {
            let due = discovery.deadline().unwrap();
            asked.extend(discovery.expire(due, &mut rng, &link()).map(|_| due));
        }
        let gaps: Vec<f64> = asked.windows(2).map(|two| two[1].since(two[0]).as_secs_f64()).collect();
        assert!(asked[0] <= at(1) && (gaps[0] - 4.0).abs() < 0.01, "{gaps:?}");
        assert!(gaps.windows(2).take(8).all(|two| (1.8..2.2).contains(&(two[1] / two[0]))), "{gaps:?}");
        assert!(gaps[11..].iter().all(|gap| (3240.0..=3960.0).contains(gap)), "{gaps:?}");
        let now = *asked.last().unwrap();
        assert!(discovery.receive(now, &mut rng, &advertisement(1, 0, 30, None)));
        assert_eq!(discovery.deadline(), Some(now + Duration::from_secs(30)), "nobody is asked");
        assert_eq!(discovery.expire(now + Duration::from_secs(30), &mut rng, &link()), None);
        assert!(discovery.deadline().is_some(), "but then again");
        // A link that came back is asked though there seems to be a router.
        assert!(discovery.receive(now, &mut rng, &advertisement(1, 0, 9000, None)));
        discovery.link_up(now, &mut rng);
        let due = discovery.deadline().unwrap();
        assert!(discovery.expire(due, &mut rng, &link()).is_some());
        assert_eq!(discovery.deadline(), Some(now + Duration::from_secs(9000)));
    }

    // RFC 4861 §6.1.2
    #[test]
    fn what_is_no_advertisement_is_not_heard() {
        let mut rng = rng();
        let mut hears = |packet: &[u8]| Discovery::default().receive(at(0), &mut rng, packet);
        let good = advertisement(1, 0, 1800, Some(1500));
        assert!(hears(&good));
        let message = &good[40..];
        let local: Ipv6Addr = "fe80::1".parse().unwrap();
        assert!(!hears(&packet(local, 254, message)), "it was forwarded");
        assert!(!hears(&packet("2001:db8::1".parse().unwrap(), 255, message)), "not of this link");
        let mut other = message.to_vec();
        other[0] = 133;
        assert!(!hears(&packet(local, 255, &other)));
        let mut code = message.to_vec();
        code[1] = 1;
        assert!(!hears(&packet(local, 255, &code)));
        let mut empty = message.to_vec();
        empty[17] = 0;
        assert!(!hears(&packet(local, 255, &empty)), "an option of length zero");
        assert!(!hears(&packet(local, 255, &message[..20])));
        let mut wrong = good.clone();
        wrong[42] ^= 1;
        assert!(!hears(&wrong), "checksum");
        let small = advertisement(1, 0, 1800, Some(1279));
        let mut discovery = Discovery::default();
        assert!(discovery.receive(at(0), &mut rng, &small) && discovery.router().unwrap().mtu.is_none());
    }

    #[test]
    fn a_flood_of_routers_does_not_push_out_the_one_in_use() {
        let (mut discovery, mut rng) = (Discovery::default(), rng());
        discovery.receive(at(0), &mut rng, &advertisement(1, 0, 1800, None));
        for router in 2..500 {
            discovery.receive(at(1), &mut rng, &advertisement(router, 0, 9000, None));
        }
        assert_eq!((chosen(&discovery), discovery.routers().len()), (Some(1), ROUTERS_MAX));
        discovery.receive(at(2), &mut rng, &advertisement(900, 1, 9000, None));
        assert_eq!(chosen(&discovery), Some(900), "a better one finds room");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_survived(octets in prop::collection::vec(any::<u8>(), 0..120), seconds in 0_u64..9000) {
            let (mut discovery, mut rng) = (Discovery::default(), rng());
            discovery.start(at(0), &mut rng);
            prop_assert!(!discovery.receive(at(seconds), &mut rng, &octets));
            let options = packet("fe80::5".parse().unwrap(), 255, &[&[ADVERTISEMENT, 0, 0, 0, 0, 0, 1, 0][..], &[0; 8], &octets].concat());
            let heard = discovery.receive(at(seconds), &mut rng, &options);
            prop_assert_eq!(heard, discovery.router().is_some());
        }
    }
}
