//! Providers that delegate their prefix and say themselves who their router is, under sessions.

mod common;

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use common::{Scene, ms, s};
use control::dhcp::Duid;
use control::dhcp::client::Stored;
use control::engine::Effect;
use control::host::Datagram;
use control::identity::SigningKey;
use control::sim::{Plan, ROUTER, SitePlan};
use dataplane::wire::checksum;
use dataplane::wire::ipv6;
use dataplane::wire::shim6::Message;

/// The provider of the first site that leaves everything open.
const OPEN: usize = 0;

/// What the server of that provider delegates, with preferred and valid lifetimes.
type Delegates = Vec<(Ipv6Addr, u32, u32)>;

struct Line {
    scene: Scene,
    delegates: Delegates,
    /// Kinds of messages the box sent.
    asked: Vec<u8>,
    silent: bool,
}

fn key() -> Arc<SigningKey> {
    Arc::new(SigningKey::generate(1024).unwrap())
}

fn plan(providers: u16, key: Option<Arc<SigningKey>>) -> Plan {
    let sites = vec![SitePlan { providers, ..SitePlan::default() }, SitePlan::default()];
    Plan { sites, key, open: vec![(0, 1)], ..Plan::default() }
}

/// The prefix that the plan's hosts were made for.
fn planned(scene: &Scene) -> Ipv6Addr {
    Ipv6Addr::from_bits(u128::from(scene.providers[OPEN].prefix) << 64)
}

const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x7777, 0x40, 0, 0, 0, 0);

impl Line {
    fn new(plan: &Plan, seed: u64) -> Line {
        let scene = Scene::new(plan, seed);
        let delegates = vec![(planned(&scene), 200, 400)];
        let mut line = Line { scene, delegates, asked: Vec::new(), silent: false };
        line.begin(&[]);
        line
    }

    fn begin(&mut self, kept: &[(String, Stored)]) {
        let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(5);
        let (now, mut effects) = (self.scene.now, Vec::new());
        let duid = Duid::new(&[0, 3, 0, 1, 2, 0, 0, 0, 0, 9]);
        self.scene.nodes[0].engine.begin_uplinks(now, &mut rng, (duid, 0), (kept, &[]), &mut effects);
        assert!(
            effects.iter().all(|effect| matches!(effect, Effect::Story(_))),
            "nothing is said at once: {effects:?}"
        );
    }

    /// Time passes, and the provider's server and router answer what reaches them.
    fn run(&mut self, time: Duration) {
        let end = self.scene.now + time;
        while self.scene.now < end {
            self.scene.run(ms(2));
            for (provider, payload) in std::mem::take(&mut self.scene.asked) {
                if provider == OPEN {
                    self.asked.push(payload[0]);
                    if !self.silent {
                        let answer = self.answer(&payload);
                        self.scene.send_from_router(OPEN, &answer);
                    }
                }
            }
        }
    }

    fn answer(&self, question: &[u8]) -> Vec<u8> {
        // Client Identifier is first, and the association last in what the box sends.
        let client = &question[4..18];
        let at = question.windows(2).position(|two| two == [0, 25]).expect("an IA_PD");
        let kind = if question[0] == 1 { 2 } else { 7 };
        let mut prefixes = Vec::new();
        for (prefix, preferred, valid) in &self.delegates {
            prefixes.extend_from_slice(&[0, 26, 0, 25]);
            prefixes.extend_from_slice(&preferred.to_be_bytes());
            prefixes.extend_from_slice(&valid.to_be_bytes());
            prefixes.push(64);
            prefixes.extend_from_slice(&prefix.octets());
        }
        let mut payload = vec![kind, question[1], question[2], question[3]];
        payload.extend_from_slice(client);
        payload.extend_from_slice(&[0, 2, 0, 4, 0, 2, 0, 7, 0, 7, 0, 1, 255, 0, 25]);
        payload.extend_from_slice(&(12 + prefixes.len() as u16).to_be_bytes());
        payload.extend_from_slice(&question[at + 4..at + 8]);
        payload.extend_from_slice(&[0, 0, 0, 20, 0, 0, 0, 40]);
        payload.extend_from_slice(&prefixes);
        let own = self.own();
        Datagram { source: (ROUTER, 547), target: (own, 546), payload }.emit(255).unwrap()
    }

    /// The box's link-local address there.
    fn own(&self) -> Ipv6Addr {
        let own = &self.scene.nodes[0].engine.snapshot().ports[1].own;
        *own.iter().find(|own| own.is_unicast_link_local()).unwrap()
    }

    /// The router says that it is one for some seconds.
    fn advertise(&mut self, lifetime: u16) {
        let target = "ff02::1".parse().unwrap();
        let mut message = vec![134, 0, 0, 0, 64, 0];
        message.extend_from_slice(&lifetime.to_be_bytes());
        message.extend_from_slice(&[0; 8]);
        let sum = checksum::upper_layer(ROUTER, target, 58, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let payload_len = message.len() as u16;
        let (traffic_class, flow_label) = (0, 0);
        let repr = ipv6::Repr {
            source: ROUTER,
            target,
            next_header: 58,
            payload_len,
            hop_limit: 255,
            traffic_class,
            flow_label,
        };
        let packet = [&repr.emit()[..], &message].concat();
        self.scene.send_from_router(OPEN, &packet);
    }

    fn providers(&self) -> Vec<(String, bool, bool)> {
        let views = self.scene.nodes[0].engine.providers_view();
        views.into_iter().map(|it| (it.name, it.up, it.told_broken)).collect()
    }

    fn waits(&self) -> String {
        self.scene.nodes[0].engine.uplinks_view(self.scene.now)[0].waits.clone()
    }

    /// Runs with traffic, of which nothing may be lost.
    fn lossless(&mut self, streams: &[usize], time: Duration) {
        let since = self.scene.now;
        self.run(time);
        let until = self.scene.now;
        self.run(ms(500));
        for stream in streams {
            assert_eq!(self.scene.streams[*stream].missing(since, until), 0, "stream {stream}");
        }
    }
}

#[test]
fn a_provider_waits_for_its_prefix_and_its_router_and_then_serves() {
    let mut line = Line::new(&plan(1, None), 600);
    line.silent = true;
    assert_eq!(line.providers(), []);
    line.run(s(3));
    assert!(line.asked.iter().all(|kind| *kind == 1) && !line.asked.is_empty(), "{:?}", line.asked);
    assert!(line.waits().starts_with("for a prefix: no server"), "{}", line.waits());
    line.silent = false;
    line.run(s(6));
    assert!(line.waits().starts_with("for a router"), "{}", line.waits());
    assert_eq!(line.providers(), [("isp-0-1".to_owned(), false, false)], "there, and down");
    line.advertise(1800);
    line.run(s(2));
    assert_eq!((line.providers(), line.waits().as_str()), (vec![("isp-0-1".to_owned(), true, false)], ""));
    // It is what a configured one is: sessions of the hosts go through it.
    let streams = [line.scene.stream(0, 1, ms(20)), line.scene.stream(1, 0, ms(20))];
    line.run(s(2));
    line.lossless(&streams, s(5));
    line.scene.check_mirrored();
    // A router that is none any more is not sent to; another word of it is enough to go on.
    line.advertise(0);
    line.run(s(1));
    assert!(!line.providers()[0].1);
    line.advertise(1800);
    line.run(s(20));
    line.lossless(&streams, s(5));
}

/// The box is delegated another prefix while the old one is good for a while; nobody notices.
#[test]
fn another_prefix_takes_over_under_sessions() {
    let mut line = Line::new(&plan(1, Some(key())), 610);
    line.advertise(9000);
    line.run(s(5));
    let streams = [line.scene.stream(0, 1, ms(50)), line.scene.stream(1, 0, ms(50))];
    line.run(s(3));
    line.lossless(&streams, s(1));
    let before = line.scene.context(0).current.unwrap().local;
    // With the next extension. The old one is preferred no more, and valid for two minutes.
    let old = line.delegates[0].0;
    line.delegates = vec![(old, 0, 120), (OTHER, 200, 400)];
    line.scene.providers[OPEN].also = vec![(OTHER.to_bits() >> 64) as u64];
    let since = line.scene.now;
    line.lossless(&streams, s(60));
    assert!(line.asked.contains(&5), "a Renew");
    let after = line.scene.context(0).current.unwrap().local;
    assert!(before != after && (after.to_bits() ^ OTHER.to_bits()) >> 64 == 0, "{before} {after}");
    let peers = line.scene.context(1).current.unwrap().peer;
    assert_eq!(peers, after, "both ways");
    let names: Vec<_> = line.providers().into_iter().map(|(name, _, broken)| (name, broken)).collect();
    assert_eq!(names, [("isp-0-1-old-1".to_owned(), true), ("isp-0-1".to_owned(), false)]);
    // Signed, since the host was not made for it (RFC 5533 §7.2).
    let told = line.scene.captured.iter().filter(|it| it.at >= since).any(|it| match &it.message {
        Message::UpdateRequest { options, .. } => options.signature.is_some(),
        _ => false,
    });
    assert!(told, "an Update Request with a signature");
    // The server says nothing of the old one any more. When its time is over it goes, and still nobody notices.
    line.delegates.remove(0);
    line.lossless(&streams, s(300));
    assert_eq!(line.providers(), [("isp-0-1".to_owned(), true, false)]);
    line.scene.providers[OPEN].also.clear();
    line.scene.providers[OPEN].prefix = (OTHER.to_bits() >> 64) as u64;
    line.lossless(&streams, s(5));
    line.scene.check_mirrored();
}

/// The old prefix is taken back at the moment the new one comes, and carries nothing from then on.
#[test]
fn a_prefix_that_is_taken_back_at_once_costs_no_session() {
    let mut line = Line::new(&plan(2, Some(key())), 620);
    line.advertise(9000);
    line.run(s(5));
    let streams = [line.scene.stream(0, 1, ms(20)), line.scene.stream(1, 0, ms(20))];
    line.run(s(4));
    let old = line.delegates[0].0;
    line.delegates = vec![(old, 0, 0), (OTHER, 200, 400)];
    line.scene.providers[OPEN].also = vec![(OTHER.to_bits() >> 64) as u64];
    while line.scene.nodes[0].engine.found()[0].prefixes.first().is_none_or(|it| it.0.address() != OTHER) {
        line.run(ms(100));
    }
    line.scene.providers[OPEN].prefix = (OTHER.to_bits() >> 64) as u64;
    line.scene.providers[OPEN].also.clear();
    // What was on its way to the old one is lost, and what the box still sends from there is the provider's to drop.
    line.scene.violations.clear();
    line.run(s(40));
    line.scene.violations.retain(|violation| !format!("{violation:?}").contains("no source for provider"));
    line.lossless(&streams, s(5));
    let names: Vec<_> = line.providers().into_iter().filter(|it| !it.2).map(|it| it.0).collect();
    assert_eq!(names, ["isp-0-2", "isp-0-1"]);
}

#[test]
fn a_host_without_the_sites_key_keeps_to_what_it_was_made_for() {
    let mut line = Line::new(&plan(2, None), 630);
    line.advertise(9000);
    line.run(s(5));
    let streams = [line.scene.stream(0, 1, ms(20)), line.scene.stream(1, 0, ms(20))];
    line.run(s(3));
    let old = line.delegates[0].0;
    line.delegates = vec![(old, 0, 60), (OTHER, 200, 400)];
    line.scene.providers[OPEN].also = vec![(OTHER.to_bits() >> 64) as u64];
    line.lossless(&streams, s(250));
    let used = line.scene.context(0).current.unwrap().local;
    assert_eq!(line.scene.provider_of(used), Some(1), "there is no locator in the new prefix, and the old one is gone");
}

#[test]
fn after_a_restart_the_same_prefix_is_used_at_once_and_asked_for_again() {
    let mut line = Line::new(&plan(1, Some(key())), 640);
    line.advertise(9000);
    line.run(s(5));
    let locators = |line: &Line| line.scene.nodes[0].effective().1.iter().next().unwrap().identity.locators.clone();
    line.delegates = vec![(OTHER, 200, 400)];
    line.scene.providers[OPEN].also = vec![(OTHER.to_bits() >> 64) as u64];
    line.run(s(30));
    let mut kept = Vec::new();
    while let Some((name, stored)) = line.scene.nodes[0].engine.next_delegation() {
        kept.extend(stored.map(|stored| (name, stored)));
    }
    let [(name, _)] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!(name, "isp-0-1");
    let before = locators(&line);
    line.scene.restart(0);
    line.asked.clear();
    line.silent = true;
    line.begin(&kept);
    line.run(ms(10));
    assert_eq!(locators(&line), before, "the same addresses, without asking anybody");
    line.run(s(2));
    assert!(line.asked.iter().all(|kind| *kind == 6) && !line.asked.is_empty(), "Rebinds: {:?}", line.asked);
}

#[test]
fn what_cannot_be_a_prefix_of_a_provider_is_not_taken() {
    for bad in ["fc00:77::", "2001:db8:ff00:1::", "ff02::", "fe80::"] {
        let mut line = Line::new(&plan(1, None), 650);
        line.delegates = vec![(bad.parse().unwrap(), 200, 400)];
        line.advertise(9000);
        line.run(s(5));
        assert_eq!(line.providers(), [], "{bad}");
        assert!(line.waits().starts_with("for a prefix"), "{bad}: {}", line.waits());
    }
}
