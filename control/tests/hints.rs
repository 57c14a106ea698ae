//! What others say about paths (RFC 5534 §3.3, §8): a truthful hint shortens an outage, a lie moves nothing and costs a
//! bounded number of probes.

mod common;

use std::time::Duration;

use common::{Scene, ms, s};
use control::engine::Story;
use control::reap::Reason;
use control::sim::{Plan, SiteId, Way, packet};
use control::time::Instant;
use dataplane::wire::ipv6::protocol;
use dataplane::wire::shim6::{Message, PayloadHeader};
use dataplane::wire::{ContextTag, checksum};

const BOTH: &[Way] = &[Way::Out, Way::In];

/// Two boxes with RFC 5534's own Send Timeout, and these hints.
fn plan(hints: &str) -> Plan {
    Plan { send_timeout_s: 15, sections: format!("[hints]\n{hints}\n"), ..Plan::default() }
}

/// A stop-and-wait TCP from host 0 to host 1, which answers if it is not `mute`.
struct Tcp {
    sequence: u32,
    mute: bool,
    sent: Instant,
    wait: Duration,
    heard: usize,
    acknowledged: Vec<Instant>,
}

const RTO: Duration = ms(200);
const DATA: u32 = 100;

impl Tcp {
    fn new(scene: &mut Scene) -> Tcp {
        let mut tcp = Tcp {
            sequence: u32::MAX - 1000,
            mute: false,
            sent: scene.now,
            wait: RTO,
            heard: 0,
            acknowledged: Vec::new(),
        };
        tcp.send(scene);
        tcp
    }

    fn segment(scene: &Scene, from: usize, sequence: u32, acknowledges: u32, data: u32) -> Vec<u8> {
        let (source, target) = (scene.hosts[from].ulid, scene.hosts[1 - from].ulid);
        let ports = if from == 0 { [7, 0, 0, 80] } else { [0, 80, 7, 0] };
        let header =
            [&ports[..], &sequence.to_be_bytes(), &acknowledges.to_be_bytes(), &[5 << 4, 0x10, 0, 9, 0, 0, 0, 0]];
        let mut segment = header.concat();
        segment.resize(20 + data as usize, 0);
        let sum = checksum::upper_layer(source, target, protocol::TCP, &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        packet::ipv6(source, target, protocol::TCP, 64, &segment)
    }

    fn send(&mut self, scene: &mut Scene) {
        self.sent = scene.now;
        let segment = Tcp::segment(scene, 0, self.sequence, 1, DATA);
        scene.send(0, &segment);
    }

    fn run(&mut self, scene: &mut Scene, time: Duration) {
        let end = scene.now + time;
        while scene.now < end {
            scene.run(ms(2));
            // RFC 6298 (5.5): twice as long each time, here up to a minute.
            if scene.now.since(self.sent) >= self.wait {
                self.wait = (self.wait * 2).min(s(60));
                self.send(scene);
            }
            for (_, packet) in std::mem::take(&mut scene.hosts[1].inbox) {
                let octet = u32::from_be_bytes(packet[44..48].try_into().unwrap()).wrapping_add(DATA);
                let answer = Tcp::segment(scene, 1, 1, octet, 0);
                if !self.mute {
                    scene.send(1, &answer);
                }
            }
            for (at, packet) in std::mem::take(&mut scene.hosts[0].inbox) {
                if packet[48..52] == self.sequence.wrapping_add(DATA).to_be_bytes() {
                    self.acknowledged.push(at);
                    self.sequence = self.sequence.wrapping_add(DATA);
                    self.wait = RTO;
                    self.send(scene);
                }
                self.heard += 1;
            }
        }
    }

    /// The longest time without an acknowledgement since `since`.
    fn gap(&self, since: Instant, until: Instant) -> Duration {
        let inside = self.acknowledged.iter().filter(|at| **at >= since).copied();
        let times: Vec<Instant> = [since].into_iter().chain(inside).chain([until]).collect();
        times.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default()
    }
}

/// A context with TCP on it and nothing else.
fn tcp(hints: &str, seed: u64) -> (Scene, Tcp) {
    let (mut scene, streams) = Scene::talking(&plan(hints), seed);
    streams.into_iter().for_each(|stream| scene.stop(stream));
    let mut tcp = Tcp::new(&mut scene);
    tcp.run(&mut scene, s(2));
    assert!(tcp.acknowledged.len() > 50, "a round trip is 20 ms");
    (scene, tcp)
}

fn moves(scene: &Scene, site: SiteId, since: Instant) -> usize {
    let moved =
        |(at, by, story): &&(Instant, SiteId, Story)| *at >= since && *by == site && matches!(story, Story::Moved(..));
    scene.stories.iter().filter(moved).count()
}

fn hinted(scene: &Scene) -> usize {
    let hinted = |(_, _, story): &&(Instant, SiteId, Story)| matches!(story, Story::Exploring(_, _, Reason::Hinted));
    scene.stories.iter().filter(hinted).count()
}

/// Probes that a site sent since then.
fn probes(scene: &Scene, site: SiteId, since: Instant) -> usize {
    scene.messages(since).into_iter().filter(|(by, kind)| (*by, kind.as_str()) == (site, "Probe")).count()
}

/// Whoever moved had sent a probe on the new pair before, and the peer had sent its nonce back.
fn every_move_was_answered(scene: &Scene) {
    for (at, site, story) in &scene.stories {
        let Story::Moved(_, _, to) = story else { continue };
        let earlier = || scene.captured.iter().filter(|it| it.at <= *at);
        let sent = earlier().filter(|it| it.addresses == (to.local.0, to.peer.0));
        let nonces: Vec<u32> = sent
            .filter_map(|it| if let Message::Probe(probe) = &it.message { Some(probe.sent[0].nonce) } else { None })
            .collect();
        let reported = earlier().filter(|it| scene.providers[it.provider].site != *site).any(|it| match &it.message {
            Message::Probe(probe) => probe.received.iter().any(|report| nonces.contains(&report.nonce)),
            _ => false,
        });
        assert!(reported, "{story:?} at {at:?}");
    }
}

/// A packet as box 0 sends it now for its context.
fn payload_of(scene: &Scene) -> Vec<u8> {
    let context = scene.context(0);
    let pair = context.current.unwrap();
    let tag = ContextTag::new(u64::from_str_radix(&context.peer_tag.unwrap(), 16).unwrap()).unwrap();
    let header = PayloadHeader { next_header: 17, tag }.emit();
    packet::ipv6(pair.local, pair.peer, 140, 63, &[&header[..], &[0; 40]].concat())
}

/// "No route to destination", about a packet of the context in use.
fn unreachable(scene: &mut Scene) {
    let provider = scene.in_use(0);
    let error = packet::error_about(&payload_of(scene), scene.providers[provider].router, 1, 0, 0).unwrap();
    scene.inject(provider, &error);
}

// ---- the truth ----

#[test]
fn a_tcp_that_repeats_itself_shortens_the_outage() {
    // The third repetition, 1.4 s after the segment that was lost first, is the second that is looked at; a probe of the
    // pair in use, and one half a second later of another.
    for (hints, limit) in [("tcp = true", ms(1400 + 500 + 100)), ("tcp = false", s(18))] {
        for seed in 0..4 {
            let (mut scene, mut tcp) = tcp(hints, seed);
            let cut = if seed % 2 == 0 { scene.in_use(0) } else { scene.in_use(1) };
            let since = scene.now;
            scene.cut(cut, BOTH);
            tcp.run(&mut scene, s(20));
            let gap = tcp.gap(since, scene.now);
            println!("{hints}, seed {seed}: {gap:?}");
            assert!(gap <= limit, "{hints}, seed {seed}: {gap:?}");
            assert_eq!(gap < s(10), hints == "tcp = true", "{gap:?}");
            assert_eq!(hinted(&scene) > 0, hints == "tcp = true");
            every_move_was_answered(&scene);
        }
    }
}

#[test]
fn an_icmp_error_shortens_the_outage() {
    for (hints, limit) in [("icmp = true", ms(700)), ("icmp = false", s(18))] {
        let (mut scene, streams) = Scene::talking(&plan(hints), 7);
        let provider = scene.in_use(0);
        scene.cut(provider, BOTH);
        unreachable(&mut scene);
        let took = scene.until_back(&streams, s(60));
        println!("{hints}: {took:?}");
        assert!(took <= limit, "{hints}: {took:?}");
        assert_eq!(took < s(10), hints == "icmp = true");
        // RFC 5533 §8: what the box does not act on is for the host.
        assert_eq!(scene.hosts[0].inbox.len(), usize::from(hints == "icmp = false"));
        every_move_was_answered(&scene);
    }
}

#[test]
fn a_link_that_goes_down_shortens_the_outage() {
    // R5534-008
    for (hints, limit) in [("link = true", ms(100)), ("link = false", s(18))] {
        let (mut scene, streams) = Scene::talking(&plan(hints), 8);
        let provider = scene.in_use(0);
        scene.cut(provider, BOTH);
        let port = scene.providers[provider].port;
        scene.link_state(0, port, false);
        let took = scene.until_back(&streams, s(60));
        println!("{hints}: {took:?}");
        assert!(took <= limit, "{hints}: {took:?}");
        assert_eq!(took < s(10), hints == "link = true");
        every_move_was_answered(&scene);
    }
}

// ---- lies ----

// R5534-011, R5534-107
#[test]
fn an_icmp_error_that_lies_moves_nothing_and_costs_two_probes_in_a_send_timeout() {
    for seed in 0..4 {
        let (mut scene, streams) = Scene::talking(&Plan::default(), seed);
        let since = scene.now;
        for _ in 0..300 {
            unreachable(&mut scene);
            scene.run(ms(100));
        }
        assert_eq!((moves(&scene, 0, since), moves(&scene, 1, since)), (0, 0));
        // 30 s of lies, tested once in 3 s: a probe, the peer's answer, and one that ends it.
        let tests = scene.nodes[0].tally("control_hints_tested");
        assert!((9..=11).contains(&tests), "{tests}");
        assert_eq!(scene.nodes[0].tally("control_hints_tested") + scene.nodes[0].tally("control_hints_paced"), 300);
        assert_eq!((probes(&scene, 0, since), probes(&scene, 1, since)), (2 * tests as usize, tests as usize));
        let until = scene.now - ms(100);
        assert!(streams.iter().all(|stream| scene.streams[*stream].missing(since, until) == 0));
        // R5533-236: what is tested the host does not hear of; what is not, since that was a moment ago, it does.
        assert_eq!(scene.hosts[0].inbox.len() as u64, scene.nodes[0].tally("control_hints_paced"));
    }
}

// R5534-011, R5534-107: a host that crashed looks to TCP like a path that died.
#[test]
fn a_tcp_whose_host_is_gone_moves_nothing_and_costs_two_probes_in_a_send_timeout() {
    let (mut scene, mut tcp) = tcp("tcp = true", 3);
    tcp.mute = true;
    let since = scene.now;
    tcp.run(&mut scene, s(120));
    assert_eq!((moves(&scene, 0, since), moves(&scene, 1, since)), (0, 0));
    // The host repeats itself after 0.2, 0.6, 1.4 s and so on, at last too rarely to be told of.
    let tests = scene.nodes[0].tally("control_hints_tested") as usize;
    assert!((1..=4).contains(&tests), "{tests}");
    assert_eq!((probes(&scene, 0, since), probes(&scene, 1, since)), (2 * tests, tests));
    // When the host comes back the session goes on as if nothing had been.
    tcp.mute = false;
    let before = tcp.acknowledged.len();
    tcp.run(&mut scene, s(61));
    assert!(tcp.acknowledged.len() > before + 10);
}

// R5534-107
#[test]
fn a_link_that_lies_moves_only_what_was_answered_and_nothing_when_there_is_nothing_better() {
    // Everything else is dead: the only pair that works is the one through the link that is said to be down. (What peers
    // are told of such a link is another matter, `steer`; and standbys that have died unnoticed, `standby`.)
    let plan = Plan { shim6: "announce_down = false".into(), standby: false, ..Plan::default() };
    let (mut scene, streams) = Scene::talking(&plan, 4);
    let (used, theirs) = (scene.in_use(0), scene.in_use(1));
    (0..4).filter(|provider| ![used, theirs].contains(provider)).for_each(|provider| scene.cut(provider, BOTH));
    let (since, port) = (scene.now, scene.providers[used].port);
    scene.link_state(0, port, false);
    scene.run(s(30));
    assert_eq!((moves(&scene, 0, since), moves(&scene, 1, since)), (0, 0));
    let until = scene.now - ms(100);
    assert!(streams.iter().all(|stream| scene.streams[*stream].missing(since, until) == 0));
    // One exploration that ended with the pair in use.
    let sent = probes(&scene, 0, since);
    assert!((4..=6).contains(&sent), "{sent}");
    // A link that lies ten times a second while there is something better: one move at most, and only there.
    let (mut scene, streams) = Scene::talking(&Plan::default(), 5);
    let since = scene.now;
    let port = scene.providers[scene.in_use(0)].port;
    for turn in 0..100 {
        scene.link_state(0, port, turn % 2 == 1);
        scene.run(ms(100));
    }
    assert_eq!(moves(&scene, 0, since), 1);
    every_move_was_answered(&scene);
    scene.run(s(1));
    scene.lossless(&streams, s(2));
}

#[test]
fn tcp_progress_shows_that_a_path_works() {
    let (mut scene, mut tcp) = tcp("tcp = true", 6);
    let provider = scene.in_use(0);
    // What is sent again after 200 ms is lost too; what is sent again after 400 more arrives.
    scene.cut(provider, BOTH);
    tcp.run(&mut scene, ms(400));
    scene.heal(provider);
    tcp.run(&mut scene, s(1));
    assert_eq!(scene.nodes[0].tally("control_tcp_progress"), 1);
    assert_eq!((scene.nodes[0].tally("control_tcp_stalled"), scene.nodes[0].tally("control_explorations")), (0, 0));
    let paths = scene.nodes[0].engine.paths_view(scene.now).paths;
    assert!(paths.iter().any(|path| path.state == "up" && path.contexts == 1), "{paths:#?}");
}
