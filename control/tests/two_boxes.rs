//! Two whole boxes, their hosts, and the network between them, which does what networks do.

mod common;

use std::time::Duration;

use common::{Scene, ms, s};
use control::engine::Story;
use control::manage::api::{ContextState, ReapState};
use control::reap::Reason;
use control::shim6::How;
use control::sim::{Captured, Plan, SitePlan, Way, World, packet};
use dataplane::counters::{Count, DropReason};
use dataplane::wire::checksum;
use dataplane::wire::ipv6::{View, protocol};
use dataplane::wire::shim6::{Message, ProbeState};

/// The Send Timeout of these worlds, and how long traffic may stay away when a path fails: a probe to the failed pair,
/// the next one half a second later, and the same once more for a first choice that fails too.
const SEND_TIMEOUT: Duration = s(3);
const OUTAGE_MAX: Duration = ms(3000 + 1600);

const BOTH: &[Way] = &[Way::Out, Way::In];
const WAYS: [&[Way]; 3] = [BOTH, &[Way::Out], &[Way::In]];

// ---- setting up ----

#[test]
fn first_packets_wait_for_the_handshake_and_arrive_in_order() {
    let mut scene = Scene::new(&Plan::default(), 1);
    let stream = scene.stream(0, 1, ms(5));
    scene.run(ms(500));
    // R5533, part 7: I1, R1, I2, R2, each once, over the same pair.
    let exchange = [(0, "I1"), (1, "R1"), (0, "I2"), (1, "R2")].map(|(site, kind)| (site, kind.to_owned()));
    assert_eq!(scene.messages(control::time::Instant::START), exchange);
    assert_eq!((scene.ready(0), scene.ready(1)), (vec![How::Initiated], vec![How::Accepted]));
    scene.check_mirrored();
    let sent = &scene.streams[stream];
    assert!(sent.in_order());
    assert_eq!(sent.missing(control::time::Instant::START, scene.now - ms(20)), 0);
    assert!(sent.arrivals[0].at.since(sent.sent[0]) < ms(60), "two round trips of 20 ms, and the way itself");
    assert!(scene.nodes[0].count(Count::Released) > 4);
    assert_eq!(scene.nodes[0].tally("control_opened"), 1);
}

#[test]
fn hosts_that_start_at_once_share_one_context() {
    for seed in 0..20 {
        let mut scene = Scene::new(&Plan::default(), seed);
        scene.all_legs(|leg| leg.jitter = ms(30));
        let streams = [scene.stream(0, 1, ms(10)), scene.stream(1, 0, ms(10))];
        scene.run(s(3));
        scene.check_mirrored();
        assert_eq!(scene.nodes.iter().map(|node| node.tally("control_context_gone")).sum::<u64>(), 0);
        scene.all_legs(|leg| leg.jitter = Duration::ZERO);
        scene.run(ms(100));
        scene.lossless(&streams, s(1));
    }
}

#[test]
fn a_handshake_survives_loss() {
    for seed in 0..30 {
        let mut scene = Scene::new(&Plan::default(), seed);
        scene.all_legs(|leg| (leg.loss, leg.jitter, leg.duplicates) = (if seed % 2 == 0 { 16 } else { 10 }, ms(20), 5));
        let streams = [scene.stream(0, 1, ms(100)), scene.stream(1, 0, ms(100))];
        // 30 % of all packets are lost on two legs of 16 %. When an exchange fails all the same, the pair is left alone
        // for a minute (R5533-145).
        scene.until_back(&streams, s(180));
        scene.all_legs(|leg| (leg.loss, leg.jitter, leg.duplicates) = (0, Duration::ZERO, 0));
        scene.run(s(70));
        scene.check_mirrored();
        scene.lossless(&streams, s(2));
    }
}

#[test]
fn a_provider_that_is_dead_at_the_start_costs_one_retransmission() {
    for provider in 0..4 {
        for ways in WAYS {
            let mut scene = Scene::new(&Plan::default(), provider as u64);
            scene.cut(provider, ways);
            let stream = scene.stream(0, 1, ms(300));
            let took = scene.until_back(&[stream], s(20));
            assert!(took < ms(4500), "provider {provider} cut {ways:?}: {took:?}");
            assert_eq!(scene.streams[stream].arrivals[0].number, 0, "the first packet waited");
            assert!(scene.streams[stream].in_order());
        }
    }
}

#[test]
fn a_peer_nobody_knows_is_unreachable_at_once() {
    let mut scene = Scene::new(&Plan::default(), 1);
    let nobody = "fc00:dead::1".parse().unwrap();
    let sent = packet::udp(scene.hosts[0].ulid, nobody, (9, 9), b"hello?");
    scene.send(0, &sent);
    scene.run(ms(50));
    let (kind, code, _, quote) = scene.error_at(0);
    assert_eq!((kind, code, &quote[..]), (1, 3, &sent[..]));
    assert_eq!(scene.nodes[0].tally("open_refused_no_locators"), 1);
    assert_eq!(scene.captured.len(), 0, "nobody outside hears of it");
}

// R5533-009: with the numbers of the configuration.
#[test]
fn a_peer_that_never_answers_is_unreachable_and_left_alone() {
    let mut scene = Scene::new(&Plan { shim6: "i1_timeout_ms = 500\ni1_retries = 2".into(), ..Plan::default() }, 1);
    for provider in [2, 3] {
        scene.cut(provider, BOTH);
    }
    let sent = packet::udp(scene.hosts[0].ulid, scene.hosts[1].ulid, (9, 9), b"hello?");
    // That a provider's router is found is a sign of life, for which one more I1 is sent.
    scene.run(s(2));
    scene.send(0, &sent);
    scene.run(s(6));
    let (kind, code, _, quote) = scene.error_at(0);
    assert_eq!((kind, code, &quote[..]), (1, 3, &sent[..]));
    let tried = scene.captured.len();
    assert_eq!(tried, 3);
    // R5533-145: not again within the hold-down time; the host is told at once.
    scene.hosts[0].inbox.clear();
    scene.send(0, &sent);
    scene.run(ms(100));
    assert_eq!((scene.error_at(0).0, scene.captured.len()), (1, tried));
    for provider in [2, 3] {
        scene.heal(provider);
    }
    scene.run(s(61));
    let stream = scene.stream(0, 1, ms(100));
    assert!(scene.until_back(&[stream], s(5)) < s(1));
}

#[test]
fn the_box_answers_for_itself_and_hosts_reach_each_other_through_it() {
    let sites = vec![SitePlan { hosts: 2, ..SitePlan::default() }, SitePlan::default()];
    let mut scene = Scene::new(&Plan { sites, ..Plan::default() }, 2);
    let own = scene.nodes[0].engine.snapshot().ports[0].own[0];
    let host = scene.hosts[0].ulid;
    let ask = |target| packet::icmp(host, target, 64, &[128, 0, 0, 0, 0, 7, 0, 1, b'h', b'i']);
    scene.send(0, &ask(own));
    scene.run(ms(20));
    let [(_, answer)] = &scene.hosts[0].inbox[..] else { panic!("{:?}", scene.hosts[0].inbox) };
    assert_eq!((&answer[8..24], answer[40], &answer[48..]), (&own.octets()[..], 129, &b"hi"[..]));
    let inside = ask(scene.hosts[1].ulid);
    scene.send(0, &inside);
    scene.run(ms(20));
    assert_eq!(scene.hosts[1].inbox.len(), 1);
    assert_eq!(scene.captured.len(), 0, "nobody outside hears of it");
}

// ---- failing ----

// R5533-007: a host of the simulation looks at the checksum of all it gets.
#[test]
fn traffic_survives_a_cut_of_the_provider_in_use() {
    for site in [0, 1] {
        for ways in WAYS {
            let (mut scene, streams) = Scene::talking(&Plan::default(), site as u64 + 10);
            let failed = scene.in_use(site);
            scene.cut(failed, ways);
            let took = scene.until_back(&streams, s(60));
            assert!(took <= OUTAGE_MAX, "site {site}, {ways:?}: {took:?}");
            // And it stays: there is no second outage while the two ends settle.
            scene.run(ms(100));
            scene.lossless(&streams, s(10));
            scene.check_mirrored();
            if ways == BOTH {
                assert_ne!(scene.in_use(site), failed);
            }
        }
    }
}

#[test]
fn traffic_in_one_direction_survives_a_cut() {
    for ways in WAYS {
        for provider_of in [0, 1] {
            let mut scene = Scene::new(&Plan::default(), 3);
            let stream = scene.stream(0, 1, ms(20));
            scene.run(s(12));
            let kinds: Vec<String> = scene.messages(control::time::Instant::START).into_iter().map(|it| it.1).collect();
            assert!(
                kinds.iter().any(|kind| kind == "Keepalive") && !kinds.iter().any(|kind| kind == "Probe"),
                "{kinds:?}"
            );
            let failed = scene.in_use(provider_of);
            scene.cut(failed, ways);
            // When only the way back fails, no datagram is lost for now; the sender still has to find out.
            let forward_works = ways == [if provider_of == 0 { Way::In } else { Way::Out }];
            let took = scene.until_back(&[stream], s(60));
            // A silent receiver goes on sending keepalives for packets it got before the failure, for up to a Keepalive
            // Timeout (RFC 5534 §4.1 (5)); only then does the sender's clock run.
            let limit = if forward_works { ms(100) } else { SEND_TIMEOUT + OUTAGE_MAX };
            assert!(took <= limit, "{ways:?} at {provider_of}: {took:?}");
            scene.run(ms(100));
            scene.lossless(&[stream], s(30));
            assert_eq!(scene.context(0).reap_state, Some(ReapState::Operational));
        }
    }
}

#[test]
fn a_cut_in_the_network_is_not_blamed_on_the_other_end() {
    // A's first provider is cut outward and B's first one as well: neither end can send on what it uses.
    let (mut scene, streams) = Scene::talking(&Plan::default(), 5);
    let failed = [scene.in_use(0), scene.in_use(1)];
    failed.into_iter().for_each(|provider| scene.cut(provider, &[Way::Out]));
    let took = scene.until_back(&streams, s(60));
    assert!(took <= OUTAGE_MAX, "{took:?}");
    scene.run(s(5));
    scene.lossless(&streams, s(5));
}

// R5533-016
#[test]
fn a_healed_provider_serves_again_when_the_other_fails() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 7);
    let first = scene.in_use(0);
    scene.cut(first, BOTH);
    scene.until_back(&streams, OUTAGE_MAX);
    scene.run(s(5));
    let second = scene.in_use(0);
    scene.heal(first);
    // Healing alone moves nothing and loses nothing.
    scene.lossless(&streams, s(10));
    assert_eq!(scene.in_use(0), second);
    scene.cut(second, BOTH);
    let took = scene.until_back(&streams, OUTAGE_MAX);
    assert!(took <= OUTAGE_MAX);
    scene.run(s(5));
    assert_eq!(scene.in_use(0), first);
}

#[test]
fn traffic_comes_back_when_one_of_two_dead_providers_does() {
    for (healed, down) in [(0, 20), (1, 20), (0, 120), (1, 120)] {
        let (mut scene, streams) = Scene::talking(&Plan::default(), 9);
        [0, 1].into_iter().for_each(|provider| scene.cut(provider, BOTH));
        scene.run(s(down));
        assert!(scene.streams.iter().all(|stream| stream.back(scene.now - s(5)).is_none()), "both are dead");
        scene.heal(healed);
        // RFC 5534 §4.3: the gap between probes doubles up to a minute, and two pairs out of four work by now, so the
        // third probe from here arrives at the latest.
        let took = scene.until_back(&streams, s(200));
        assert!(took <= s(if down == 20 { 50 } else { 130 }), "{took:?}");
        scene.run(s(5));
        scene.lossless(&streams, s(2));
    }
}

#[test]
fn an_idle_context_is_silent() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 11);
    streams.into_iter().for_each(|stream| scene.stop(stream));
    // Both fall silent within a keepalive timeout (RFC 5534 §4.1).
    scene.run(s(10));
    let sent = scene.captured.len();
    scene.run(s(100));
    assert_eq!(scene.captured.len(), sent);
    // And a path that failed meanwhile is noticed when it is used again.
    let failed = scene.in_use(0);
    scene.cut(failed, BOTH);
    let stream = scene.stream(0, 1, ms(50));
    assert!(scene.until_back(&[stream], s(60)) <= OUTAGE_MAX);
}

#[test]
fn tcp_hears_of_a_new_path_before_it_would_ask_again() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 12);
    streams.into_iter().for_each(|stream| scene.stop(stream));
    scene.run(s(10));
    let hosts = (scene.hosts[0].ulid, scene.hosts[1].ulid);
    let segment = |number: u8| {
        let mut segment = vec![0; 20];
        (segment[0], segment[4], segment[12]) = (9, number, 5 << 4);
        let sum = checksum::upper_layer(hosts.0, hosts.1, protocol::TCP, &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        packet::ipv6(hosts.0, hosts.1, protocol::TCP, 64, &segment)
    };
    let failed = scene.in_use(0);
    scene.cut(failed, BOTH);
    let since = scene.now;
    // As a host's TCP does: each wait is twice the one before, and the next attempt would come after 6.3 s (RFC 6298).
    for (number, wait) in [(1, 300), (2, 600), (3, 1200)] {
        scene.send(0, &segment(number));
        scene.run(ms(wait));
    }
    scene.send(0, &segment(4));
    let datagram = packet::udp(hosts.0, hosts.1, (9, 9), b"once");
    scene.send(0, &datagram);
    scene.run(s(4));
    let got = &scene.hosts[1].inbox;
    assert!(!got.is_empty() && got[0].0.since(since) < OUTAGE_MAX + ms(900), "{got:?}");
    // The newest one, perhaps more than once; a datagram is not repeated.
    assert!(got.iter().all(|(_, packet)| (packet[6], packet[44]) == (protocol::TCP, 4)), "{got:?}");
    assert!(scene.nodes[0].count(Count::Replayed) >= 1);
}

// ---- forgetting ----

#[test]
fn a_box_that_restarts_recovers_its_contexts() {
    for restarted in [0, 1] {
        for (from, to) in [(0, 1), (1, 0)] {
            let mut scene = Scene::new(&Plan::default(), 20 + restarted as u64);
            let stream = scene.stream(from, to, ms(20));
            scene.run(s(2));
            scene.restart(restarted);
            let since = scene.now;
            let took = scene.until_back(&[stream], s(20));
            assert!(took < s(2), "box {restarted} restarted, host {from} sends: {took:?}");
            scene.check_mirrored();
            let kinds: Vec<String> = scene.messages(since).into_iter().map(|(_, kind)| kind).collect();
            if restarted == to {
                // The sender's box still sends with a tag nobody knows (RFC 5533 §7.17, §7.19).
                assert!(kinds.starts_with(&["R1bis".into()]) && kinds.contains(&"I2bis".into()), "{kinds:?}");
            } else {
                assert!(kinds.starts_with(&["I1".into()]), "{kinds:?}");
            }
            scene.lossless(&[stream], s(5));
        }
    }
}

#[test]
fn a_box_that_restarts_under_traffic_in_both_directions_recovers() {
    for seed in 0..10 {
        let (mut scene, streams) = Scene::talking(&Plan::default(), 30 + seed);
        let restarted = (seed % 2) as usize;
        scene.restart(restarted);
        let took = scene.until_back(&streams, s(20));
        assert!(took < s(2), "{took:?}");
        scene.run(s(1));
        scene.check_mirrored();
        scene.lossless(&streams, s(5));
    }
}

#[test]
fn both_boxes_may_restart() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 50);
    scene.restart(0);
    scene.restart(1);
    let took = scene.until_back(&streams, s(20));
    assert!(took < s(5), "{took:?}");
    scene.run(s(5));
    scene.check_mirrored();
}

/// R5533-214: while an I2bis is under way, further R1bis are dropped, also those of a peer that restarted once more and no
/// longer accepts the validator in it. The exchange has to fail before a new one begins: 28 s, as the RFC has it.
#[test]
fn a_peer_that_restarts_again_during_the_recovery_costs_the_whole_exchange() {
    let mut scene = Scene::new(&Plan::default(), 52);
    let stream = scene.stream(0, 1, ms(20));
    scene.run(s(2));
    scene.restart(1);
    let before = scene.captured.len();
    let asked = |world: &World| world.captured[before..].iter().any(|it| matches!(it.message, Message::R1bis { .. }));
    assert!(scene.run_until(s(1), asked).is_some());
    scene.restart(1);
    let took = scene.until_back(&[stream], s(60));
    assert!((s(20)..s(30)).contains(&took), "{took:?}");
    scene.run(s(1));
    scene.check_mirrored();
    scene.lossless(&[stream], s(5));
}

#[test]
fn a_box_may_restart_while_a_provider_is_dead() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 51);
    let failed = scene.in_use(0);
    scene.cut(failed, BOTH);
    scene.run(s(1));
    scene.restart(0);
    let took = scene.until_back(&streams, s(60));
    assert!(took < s(10), "{took:?}");
    scene.run(s(10));
    scene.lossless(&streams, s(5));
}

// ---- errors of the network ----

// R5533-242
#[test]
fn packet_too_big_from_a_router_reaches_the_host_less_the_header() {
    let (mut scene, _) = Scene::talking(&Plan::default(), 60);
    let provider = scene.in_use(0);
    scene.providers[provider].mtu = 1400;
    let host = (scene.hosts[0].ulid, scene.hosts[1].ulid);
    for octets in [1392, 1393] {
        let sent = packet::udp(host.0, host.1, (9, 9), &vec![7; octets - 48]);
        scene.send(0, &sent);
        scene.run(ms(100));
        if octets == 1392 {
            assert_eq!(scene.hosts[0].inbox.len(), 0);
            continue;
        }
        let (kind, code, mtu, quote) = scene.error_at(0);
        assert_eq!((kind, code, mtu), (2, 0, 1392));
        // The host sees the packet it sent, as far as the router quoted it; the box took one hop.
        let quoted = View::of_quote(&quote).unwrap();
        assert_eq!((quoted.source(), quoted.target(), quoted.hop_limit()), (host.0, host.1, 63));
        assert_eq!(usize::from(u16::from_be_bytes([quote[4], quote[5]])), octets - 40);
        assert_eq!(quote[40..], sent[40..quote.len()]);
    }
    assert_eq!(scene.nodes[0].tally("control_icmp_translated"), 1);
}

/// A packet of UDP as box 0 sends it now for its first context.
fn payload_of(scene: &Scene) -> Vec<u8> {
    let context = scene.context(0);
    let pair = context.current.unwrap();
    let tag = u64::from_str_radix(&context.peer_tag.unwrap(), 16).unwrap();
    let tag = dataplane::wire::ContextTag::new(tag).unwrap();
    let header = dataplane::wire::shim6::PayloadHeader { next_header: 17, tag }.emit();
    packet::ipv6(pair.local, pair.peer, 140, 63, &[&header[..], &[0; 40]].concat())
}

/// R5533-238, R5533-239: what is wrong with the payload header, or with the number that names it, is the box's to mend; a
/// fault behind it is the host's, who gets it with the pointer into its own packet.
#[test]
fn a_parameter_problem_goes_to_whoever_made_the_field() {
    for (seed, code, pointer, told) in [(63, 1, 6, None), (64, 0, 40, None), (65, 0, 47, None), (66, 0, 48, Some(40))] {
        let (mut scene, streams) = Scene::talking(&Plan::default(), seed);
        let provider = scene.in_use(0);
        let error = packet::error_about(&payload_of(&scene), scene.context(0).current.unwrap().peer, 4, code, pointer);
        scene.inject(provider, &error.unwrap());
        scene.run(ms(100));
        match told {
            None => assert_eq!(scene.hosts[0].inbox.len(), 0, "pointer {pointer}"),
            Some(moved) => assert_eq!(scene.error_at(0).2, moved),
        }
        assert_eq!(scene.nodes[0].tally("control_icmp_acted_on"), u64::from(told.is_none()));
        scene.lossless(&streams, s(5));
    }
}

#[test]
fn a_router_that_finds_the_peer_unreachable_makes_the_box_look_for_another_path() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 61);
    let provider = scene.in_use(0);
    scene.cut(provider, BOTH);
    // What the cut provider's router says about a packet of ours: no route to destination.
    let error = packet::error_about(&payload_of(&scene), scene.providers[provider].router, 1, 0, 0).unwrap();
    scene.inject(provider, &error);
    let took = scene.until_back(&streams, s(60));
    assert!(took < SEND_TIMEOUT, "sooner than silence would have told: {took:?}");
    assert_eq!(scene.nodes[0].tally("control_icmp_acted_on"), 1);
    assert_eq!(scene.hosts[0].inbox.len(), 0, "the host is not told of what the box can mend");
}

#[test]
fn a_router_that_is_silent_for_a_while_does_not_matter() {
    // R5534-007
    let (mut scene, streams) = Scene::talking(&Plan::default(), 62);
    let provider = scene.in_use(0);
    scene.providers[provider].router_up = false;
    let took = scene.until_back(&streams, s(60));
    assert!(took <= OUTAGE_MAX, "{took:?}");
    scene.run(s(60));
    let known: Vec<bool> = scene.nodes[0].engine.providers_view().iter().map(|view| view.up).collect();
    assert_eq!(known.iter().filter(|up| **up).count(), 1, "{known:?}");
    scene.lossless(&streams, s(5));
    scene.providers[provider].router_up = true;
    scene.run(s(20));
    assert!(scene.nodes[0].engine.providers_view().iter().all(|view| view.up));
}

// ---- many ----

#[test]
fn contexts_tell_each_other_that_a_path_is_dead() {
    let sites = vec![SitePlan { hosts: 30, ..SitePlan::default() }; 2];
    // One peer site has nearly the whole table, which decision 0015 allows only if the operator does.
    let shim6 = "accepted_per_prefix_percent = 100\ninitiated_reserve_percent = 0".to_owned();
    let mut scene = Scene::new(&Plan { sites, shim6, ..Plan::default() }, 70);
    let mut streams = Vec::new();
    for from in 0..30 {
        for to in 30..60 {
            streams.push(scene.stream(from, to, ms(400)));
        }
        scene.run(ms(20));
    }
    scene.run(s(3));
    assert_eq!(scene.nodes[0].contexts(scene.now).len(), 900);
    // All but three fall silent: alone they would not notice anything, and need not.
    streams.iter().skip(3).for_each(|stream| scene.stop(*stream));
    scene.run(s(8));
    let since = scene.now;
    let before = scene.captured.len();
    scene.cut(0, BOTH);
    scene.run(s(8));
    let moved = |story: &Story| matches!(story, Story::Moved(..));
    let suspected = |story: &Story| matches!(story, Story::Exploring(_, _, Reason::Suspected));
    let stories = scene.stories.iter().filter(|(at, site, _)| *at >= since && *site == 0);
    let (mut moves, mut suspicions) = (0, 0);
    for (_, _, story) in stories {
        moves += usize::from(moved(story));
        suspicions += usize::from(suspected(story));
    }
    // Provider 0 leads to both of the peer's, and whoever explores may see either fail.
    assert!((1..=2).contains(&scene.nodes[0].tally("control_paths_dead")));
    assert!(suspicions > 800, "{suspicions} contexts were told");
    assert_eq!(moves, 900, "and each moved, when its own probe was answered");
    // R5534-114: of the probes by which a context begins to look around, 500 at once and 5000 a second; more wait for
    // their turn. (Answers to the peer's probes do not wait, and are paid for afterwards.)
    let first = |it: &&Captured| {
        let exploring = matches!(&it.message, Message::Probe(probe) if probe.state == ProbeState::Exploring);
        exploring && scene.providers[it.provider].site == 0
    };
    let probes: Vec<&Captured> = scene.captured[before..].iter().filter(first).collect();
    assert!(probes.len() >= 900, "{}", probes.len());
    for (at, probe) in probes.iter().enumerate() {
        let window = probes[at..].iter().take_while(|later| later.at.since(probe.at) < ms(100)).count();
        assert!(window <= 500 + 500, "{window} probes within 100 ms of {:?}", probe.at);
    }
}

#[test]
fn more_workers_change_nothing() {
    for workers in [2, 4] {
        let sites = vec![SitePlan { hosts: 6, workers, ..SitePlan::default() }; 2];
        let mut scene = Scene::new(&Plan { sites, ..Plan::default() }, 80);
        let mut streams = Vec::new();
        for host in 0..6 {
            streams.push(scene.stream(host, 6 + host, ms(20)));
            streams.push(scene.stream(6 + host, host, ms(20)));
            streams.push(scene.stream(host, 6 + (host + 1) % 6, ms(20)));
        }
        scene.run(s(1));
        for stream in &scene.streams {
            assert!(stream.in_order());
            assert_eq!(stream.missing(control::time::Instant::START, scene.now - ms(50)), 0);
        }
        assert_eq!(scene.nodes[0].contexts(scene.now).len(), 12);
        let owners = scene.nodes[0].workers.iter().filter(|worker| !worker.shard().is_empty()).count();
        assert!(owners > 1 && scene.nodes[0].count(Count::HandedOver) > 0);
        scene.cut(0, BOTH);
        let took = scene.until_back(&streams, s(60));
        assert!(took <= OUTAGE_MAX, "{took:?}");
        scene.restart(1);
        assert!(scene.until_back(&streams, s(60)) < s(3));
        scene.run(s(5));
        scene.lossless(&streams, s(2));
        for reason in [DropReason::RingFull, DropReason::HoldFull, DropReason::TransmitFull] {
            assert!(scene.nodes.iter().all(|node| node.dropped(reason) == 0), "{reason:?}");
        }
    }
}

#[test]
fn a_peer_site_gets_its_share_and_is_refused_by_name_beyond_it() {
    // Decision 0015, with a smaller share than the default: 12 % of 1024 contexts for one /64, and the rest is refused, counted, and harms nothing.
    let sites = vec![SitePlan { hosts: 15, ..SitePlan::default() }; 2];
    let shim6 = "accepted_per_prefix_percent = 12".to_owned();
    let mut scene = Scene::new(&Plan { sites, shim6, ..Plan::default() }, 71);
    for (from, to) in (0..15).flat_map(|from| (15..30).map(move |to| (from, to))) {
        scene.stream(from, to, ms(400));
    }
    scene.run(s(3));
    let contexts = scene.nodes[1].contexts(scene.now);
    assert_eq!(contexts.len(), 122);
    assert!(contexts.iter().all(|context| context.state == ContextState::Established));
    assert!(scene.nodes[1].tally("shim6_drop_too_many_from_prefix") > 0);
    // What the box wants itself is not concerned, even with a peer that was refused.
    let stream = scene.stream(29, 14, ms(20));
    assert!(scene.until_back(&[stream], s(5)) < s(1));
    assert!(scene.nodes[1].contexts(scene.now).len() > 122);
}

#[test]
fn contexts_nobody_uses_are_forgotten_on_both_sides() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 90);
    streams.into_iter().for_each(|stream| scene.stop(stream));
    scene.run(s(700));
    assert!(scene.nodes.iter().all(|node| node.contexts(scene.now).is_empty()));
    assert_eq!(scene.nodes[0].count(Count::Contexts), 0);
    let stream = scene.stream(1, 0, ms(20));
    assert!(scene.until_back(&[stream], s(5)) < s(1));
    assert!(scene.nodes.iter().all(|node| node.contexts(scene.now)[0].state == ContextState::Established));
}
