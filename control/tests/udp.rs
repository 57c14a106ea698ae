//! Two boxes on paths that drop what has a Shim6 header, with UDP and without.

mod common;

use std::net::Ipv6Addr;
use std::time::Duration;

use common::{Scene, ms, s};
use control::sim::{Leg, Plan, ProviderId, SitePlan, Stream, StreamId, Way, packet};
use control::time::Instant;
use dataplane::counters::Count;
use dataplane::wire::shim6::{
    Addresses, Message, Options, Probe, ProbeReport, ProbeState, UdpOption, UdpPorts, UdpPurpose, emit_packet, udp,
};
use dataplane::wire::{ContextTag, Locator, Ulid, UlidPair, ipv6};

const BOTH: &[Way] = &[Way::Out, Way::In];
const UDP: &str = "udp_encapsulation = true";
/// Send Timeout, a probe, and the two tests it takes.
const FOUND: Duration = ms(3000 + 1600);

fn plan() -> Plan {
    Plan { shim6: UDP.to_owned(), ..Plan::default() }
}

/// One provider at each site: there is no other path.
fn one_path() -> Plan {
    Plan { sites: vec![SitePlan { providers: 1, ..SitePlan::default() }; 2], ..plan() }
}

fn drops(scene: &mut Scene, provider: ProviderId, ways: &[Way], drops: bool) {
    for way in ways {
        scene.leg(provider, *way).drops_shim6 = drops;
    }
}

fn drops_everywhere(scene: &mut Scene, drops: bool) {
    scene.all_legs(|leg: &mut Leg| leg.drops_shim6 = drops);
}

fn tally(scene: &Scene, name: &str) -> u64 {
    scene.nodes.iter().map(|node| node.tally(name)).sum()
}

/// Packets that went in UDP and all, of both boxes.
fn sent(scene: &Scene) -> [u64; 2] {
    [Count::UdpOut, Count::TranslatedOut].map(|count| scene.nodes.iter().map(|node| node.count(count)).sum())
}

/// For some time nothing is lost, and all of it goes in UDP, or none.
fn quiet(scene: &mut Scene, streams: &[StreamId], time: Duration, in_udp: bool) {
    let before = sent(scene);
    scene.lossless(streams, time);
    let [udp, all] = [0, 1].map(|at| sent(scene)[at] - before[at]);
    assert_eq!((udp, all > 0), (if in_udp { all } else { 0 }, true));
}

#[test]
fn a_path_that_carries_everything_is_not_bothered() {
    let (mut scene, streams) = Scene::talking(&Plan { standby: false, ..plan() }, 1);
    quiet(&mut scene, &streams, s(60), false);
    assert_eq!(scene.messages(Instant::START).len(), 4, "I1, R1, I2, R2");
    assert_eq!(tally(&scene, "control_udp_tests") + tally(&scene, "control_messages_in_udp"), 0);
}

#[test]
fn sessions_go_on_in_udp_where_every_path_drops_the_header_and_come_back() {
    for (seed, ways) in [(2, BOTH), (3, &[Way::Out][..]), (4, &[Way::In])] {
        let (mut scene, streams) = Scene::talking(&one_path(), seed);
        quiet(&mut scene, &streams, s(2), false);
        drops(&mut scene, 0, ways, true);
        let took = scene.until_back(&streams, s(30));
        assert!(took < FOUND, "{ways:?}: {took:?}");
        scene.run(s(2));
        let before = sent(&scene);
        scene.lossless(&streams, s(20));
        let [udp, all] = [0, 1].map(|at| sent(&scene)[at] - before[at]);
        let expected = if ways == BOTH { all } else { all / 2 };
        assert!(udp.abs_diff(expected) < 3, "each direction for itself: {udp} of {all}");
        assert_eq!(tally(&scene, "control_udp_begun"), ways.len() as u64);
        // No probe is lost any more, so REAP is at rest.
        let explorations = tally(&scene, "control_explorations");
        scene.lossless(&streams, s(60));
        assert_eq!(tally(&scene, "control_explorations"), explorations);
        drops(&mut scene, 0, ways, false);
        scene.lossless(&streams, s(200));
        quiet(&mut scene, &streams, s(20), false);
        assert_eq!(tally(&scene, "control_udp_ended"), ways.len() as u64);
        assert!(tally(&scene, "control_udp_tests") < 40, "{}", tally(&scene, "control_udp_tests"));
    }
}

#[test]
fn with_another_path_they_take_that_or_udp_and_know_why() {
    for seed in 5..15 {
        let (mut scene, streams) = Scene::talking(&plan(), seed);
        let provider = scene.in_use(0);
        drops(&mut scene, provider, BOTH, true);
        let took = scene.until_back(&streams, s(30));
        assert!(took < FOUND, "{took:?}");
        scene.run(s(5));
        scene.lossless(&streams, s(20));
        assert!(tally(&scene, "control_udp_begun") > 0, "seed {seed}: what the path does is known");
    }
}

#[test]
fn where_all_of_several_paths_drop_it_one_is_found_in_udp() {
    for seed in 20..30 {
        let (mut scene, streams) = Scene::talking(&plan(), seed);
        drops_everywhere(&mut scene, true);
        let took = scene.until_back(&streams, s(30));
        assert!(took < FOUND + s(1), "{took:?}");
        scene.run(s(10));
        quiet(&mut scene, &streams, s(20), true);
        // One of the providers fails altogether: the other is found in UDP too.
        let provider = scene.in_use(0);
        scene.cut(provider, BOTH);
        let took = scene.until_back(&streams, s(60));
        assert!(took < s(10), "{took:?}");
    }
}

#[test]
fn a_dead_path_is_not_taken_for_one_that_drops_headers() {
    let (mut scene, streams) = Scene::talking(&one_path(), 30);
    scene.cut(0, BOTH);
    scene.run(s(60));
    assert!(tally(&scene, "control_udp_tests") > 1);
    assert_eq!(tally(&scene, "control_udp_begun"), 0);
    scene.heal(0);
    scene.until_back(&streams, s(70));
    quiet(&mut scene, &streams, s(20), false);
}

#[test]
fn loss_is_not_taken_for_it_for_long() {
    let (mut scene, streams) = Scene::talking(&one_path(), 31);
    scene.all_legs(|leg| leg.loss = 40);
    scene.run(s(600));
    scene.all_legs(|leg| leg.loss = 0);
    scene.until_back(&streams, s(70));
    scene.run(s(320));
    quiet(&mut scene, &streams, s(20), false);
}

#[test]
fn a_peer_that_takes_no_part_sees_nothing_of_it() {
    for off in [0, 1] {
        let (mut scene, streams) = Scene::talking(&Plan { plain: vec![off], standby: false, ..one_path() }, 32);
        let since = scene.now;
        drops_everywhere(&mut scene, true);
        scene.run(s(60));
        assert_eq!(tally(&scene, "control_udp_tests") + tally(&scene, "control_messages_in_udp"), 0);
        let kinds = scene.messages(since);
        assert!(kinds.iter().all(|(_, kind)| ["Probe", "Keepalive"].contains(&kind.as_str())), "{kinds:?}");
        drops_everywhere(&mut scene, false);
        scene.until_back(&streams, s(70));
        quiet(&mut scene, &streams, s(5), false);
    }
}

#[test]
fn the_first_handshake_of_all_gets_through_and_so_does_what_waits_for_it() {
    for (seed, ways) in [(40, BOTH), (41, &[Way::Out][..]), (42, &[Way::In])] {
        let mut scene = Scene::new(&one_path(), seed);
        drops(&mut scene, 0, ways, true);
        let streams = [scene.stream(0, 1, ms(100)), scene.stream(1, 0, ms(100))];
        scene.until_back(&streams, s(20));
        scene.run(s(10));
        scene.lossless(&streams, s(20));
    }
}

#[test]
fn a_box_that_forgets_everything_is_reminded_in_udp() {
    for restarted in [0, 1] {
        let (mut scene, streams) = Scene::talking(&one_path(), 50 + restarted as u64);
        drops_everywhere(&mut scene, true);
        scene.until_back(&streams, s(30));
        scene.run(s(5));
        scene.restart(restarted);
        let took = scene.until_back(&streams, s(30));
        assert!(took < s(6), "{took:?}");
        scene.run(s(10));
        quiet(&mut scene, &streams, s(20), true);
    }
}

#[test]
fn many_contexts_learn_it_of_one_and_a_path_is_asked_at_its_own_pace() {
    let sites = vec![SitePlan { providers: 1, hosts: 6, ..SitePlan::default() }; 2];
    let mut scene = Scene::new(&Plan { sites, ..plan() }, 60);
    let streams: Vec<StreamId> =
        (0..6).flat_map(|a| (6..12).map(move |b| (a, b))).map(|(a, b)| scene.stream(a, b, ms(100))).collect();
    scene.run(s(5));
    let before = tally(&scene, "control_udp_tests");
    drops_everywhere(&mut scene, true);
    scene.until_back(&streams, s(30));
    scene.run(s(10));
    quiet(&mut scene, &streams, s(10), true);
    let tests = tally(&scene, "control_udp_tests") - before;
    assert!(tests < 20, "{tests} tests of two directions of one path, by 36 contexts");
    assert_eq!(tally(&scene, "control_udp_begun"), 2);
}

#[test]
fn labels_go_on_by_themselves_where_they_pass() {
    let shim6 = format!("{UDP}\nflow_label = \"all\"");
    let (mut scene, streams) = Scene::talking(&Plan { shim6, ..one_path() }, 70);
    scene.run(s(10));
    drops_everywhere(&mut scene, true);
    // Payload by label is not touched, and the tests of labels get through again in UDP.
    scene.run(s(60));
    let labelled = |scene: &Scene| scene.nodes.iter().map(|node| node.count(Count::LabelledOut)).sum::<u64>();
    let before = [labelled(&scene), sent(&scene)[1]];
    scene.lossless(&streams, s(20));
    assert_eq!(labelled(&scene) - before[0], sent(&scene)[1] - before[1]);
    assert_eq!(tally(&scene, "control_udp_begun"), 2);
}

#[test]
fn a_router_that_has_less_room_is_understood_in_udp() {
    let (mut scene, streams) = Scene::talking(&one_path(), 80);
    drops_everywhere(&mut scene, true);
    scene.until_back(&streams, s(30));
    scene.run(s(3));
    scene.shrink(1, 1400);
    let large = packet::udp(scene.hosts[0].ulid, scene.hosts[1].ulid, (9, 9), &vec![5; 1484 - 48]);
    scene.send(0, &large);
    scene.run(ms(200));
    let (kind, _, mtu, quote) = scene.error_at(0);
    assert_eq!((kind, mtu), (2, 1400 - 16));
    // But for the links it crossed.
    assert!(quote[..7] == large[..7] && quote[8..] == large[8..quote.len()]);
}

#[test]
fn a_connection_survives_it() {
    let mut scene = Scene::new(&one_path(), 90);
    let connection = scene.connect(0, 1, ms(50), 1200);
    scene.run(s(5));
    drops_everywhere(&mut scene, true);
    let read = |scene: &Scene| scene.connections[connection].ends.iter().map(|end| end.read).min().unwrap_or_default();
    scene.run(s(15));
    let before = read(&scene);
    scene.run(s(10));
    assert!(read(&scene) > before + 50_000, "{before}, {}", read(&scene));
    assert!(scene.streams.iter().all(Stream::in_order));
}

/// A message in UDP, as somebody would send it.
fn wrapped(source: Ipv6Addr, target: Ipv6Addr, message: &Message, ports: UdpPorts) -> Vec<u8> {
    let plain = emit_packet(Addresses { source, target }, 64, message).unwrap();
    let place = ipv6::Place { offset: ipv6::HEADER_LEN, predecessor: 6, next_header: ipv6::protocol::SHIM6 };
    let mut buffer = [&[0; udp::LEN][..], &plain].concat();
    udp::wrap(&mut buffer, place, ports).unwrap();
    buffer
}

const PORTS: UdpPorts = UdpPorts { source: 50_000, target: packet::UDP_PORT };

#[test]
fn a_stranger_gets_one_answer_the_way_it_asked_and_no_more() {
    let (mut scene, streams) = Scene::talking(&Plan { standby: false, ..plan() }, 100);
    let (stranger, host) = ("2001:db8:ffff:1::5".parse().unwrap(), scene.hosts[0].locators[0]);
    let ulids = UlidPair { local: Ulid(stranger), peer: Ulid(scene.hosts[0].ulid) };
    let tag = |number: u64| ContextTag::truncate(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 3);
    let since = scene.now;
    for number in 0..40 {
        let options = Options { ulids: Some(ulids), ..Options::NONE };
        let i1 = Message::I1 { initiator_tag: tag(number), initiator_nonce: number as u32, options };
        let probed = ProbeReport { source: Locator(stranger), target: Locator(host), nonce: 5, data: 0 };
        let (sent, received) = (vec![probed], Vec::new());
        let (receiver_tag, options) = (tag(number + 1000), Options::NONE);
        let probe = Probe { receiver_tag, state: ProbeState::Exploring, sent, received, options: options.clone() };
        let keepalive = Message::Keepalive { receiver_tag, options };
        for message in [i1, Message::Probe(probe), keepalive] {
            scene.forge(wrapped(stranger, host, &message, PORTS));
        }
        scene.run(ms(20));
    }
    let answers: Vec<_> = scene.messages(since).into_iter().map(|(_, kind)| kind).collect();
    assert!(answers.iter().all(|kind| ["R1", "R1bis"].contains(&kind.as_str())), "{answers:?}");
    assert!(answers.len() <= 3 * 40);
    assert_eq!(tally(&scene, "control_messages_in_udp"), answers.len() as u64);
    assert_eq!(tally(&scene, "control_udp_begun") + tally(&scene, "control_udp_tests"), 0);
    quiet(&mut scene, &streams, s(10), false);
}

#[test]
fn who_knows_tags_does_not_get_messages_into_a_context_that_agreed_on_nothing() {
    let (mut scene, streams) = Scene::talking(&Plan { plain: vec![1], standby: false, ..plan() }, 101);
    let context = scene.context(0);
    let pair = context.current.unwrap();
    let tag = u64::from_str_radix(context.local_tag.as_ref().unwrap(), 16).unwrap();
    let receiver_tag = ContextTag::new(tag).unwrap();
    let test = UdpOption { purpose: UdpPurpose::Test, in_udp: false, nonce: 9 };
    let since = scene.now;
    for options in [Options::NONE, Options { udp: Some(test), ..Options::NONE }] {
        let message = Message::Keepalive { receiver_tag, options };
        scene.forge(wrapped(pair.peer, pair.local, &message, PORTS));
    }
    scene.run(s(1));
    assert_eq!(scene.nodes[0].tally("control_udp_unwelcome"), 2);
    assert!(scene.messages(since).is_empty(), "{:?}", scene.messages(since));
    // The same without UDP is an option nobody knows.
    let message = Message::Keepalive { receiver_tag, options: Options { udp: Some(test), ..Options::NONE } };
    scene.forge(emit_packet(Addresses { source: pair.peer, target: pair.local }, 64, &message).unwrap());
    scene.run(s(1));
    assert!(scene.messages(since).is_empty());
    quiet(&mut scene, &streams, s(5), false);
}

#[test]
fn who_knows_tags_does_not_have_a_path_taken_for_one_that_drops_headers() {
    let (mut scene, streams) = Scene::talking(&one_path(), 102);
    let context = scene.context(0);
    let pair = context.current.unwrap();
    let receiver_tag = ContextTag::new(u64::from_str_radix(context.local_tag.as_ref().unwrap(), 16).unwrap()).unwrap();
    for _ in 0..50 {
        let test = UdpOption { purpose: UdpPurpose::Test, in_udp: false, nonce: 9 };
        let message = Message::Keepalive { receiver_tag, options: Options { udp: Some(test), ..Options::NONE } };
        scene.forge(wrapped(pair.peer, pair.local, &message, PORTS));
        let answer = UdpOption { purpose: UdpPurpose::Answer, in_udp: true, nonce: 9 };
        let message = Message::Keepalive { receiver_tag, options: Options { udp: Some(answer), ..Options::NONE } };
        scene.forge(wrapped(pair.peer, pair.local, &message, PORTS));
        scene.run(ms(100));
    }
    assert_eq!(tally(&scene, "control_udp_begun"), 0, "answers have a nonce");
    assert!(tally(&scene, "control_udp_tests") < 3, "what was in order is not asked again for a minute");
    quiet(&mut scene, &streams, s(20), false);
}
