//! Two boxes that carry contexts in flow labels, over paths that let them and paths that do not.

mod common;

use std::time::Duration;

use common::{Scene, ms, s};
use control::reap::Reason;
use control::sim::{Leg, Plan, StreamId, Way, packet};
use control::time::Instant;
use dataplane::counters::Count;

const BOTH: &[Way] = &[Way::Out, Way::In];
/// As in the scenes without labels: Send Timeout, and two probes half a second apart.
const OUTAGE_MAX: Duration = ms(3000 + 1600);

fn plan(mode: &str) -> Plan {
    Plan { shim6: format!("flow_label = \"{mode}\""), ..Plan::default() }
}

/// Packets sent since the last call: by label, and all.
struct Meter([[u64; 2]; 2]);

impl Meter {
    fn new(scene: &Scene) -> Meter {
        let counts = |site: usize| [Count::LabelledOut, Count::TranslatedOut].map(|it| scene.nodes[site].count(it));
        Meter([counts(0), counts(1)])
    }

    /// Whether everything went by label since `self`, or nothing, on both sides.
    fn by_label(&self, scene: &Scene) -> Option<bool> {
        let now = Meter::new(scene);
        let sent = [0, 1].map(|site| [0, 1].map(|kind| now.0[site][kind] - self.0[site][kind]));
        match sent {
            [[a, all_a], [b, all_b]] if (a, b) == (all_a, all_b) && all_a + all_b > 0 => Some(true),
            [[0, _], [0, _]] => Some(false),
            _ => None,
        }
    }
}

/// For some time nothing is lost, and all of it goes by label, or none.
fn quiet(scene: &mut Scene, streams: &[StreamId], time: Duration, by_label: bool) {
    let meter = Meter::new(scene);
    scene.lossless(streams, time);
    assert_eq!(meter.by_label(scene), Some(by_label), "{:?} before, {:?} after", meter.0, Meter::new(scene).0);
}

fn explorations(scene: &Scene, site: usize) -> Vec<Reason> {
    let stories = scene.stories.iter().filter_map(|(_, at, story)| match story {
        control::engine::Story::Exploring(_, _, why) if *at == site => Some(*why),
        _ => None,
    });
    stories.collect()
}

#[test]
fn payload_goes_by_label_once_labels_are_known_to_arrive() {
    for mode in ["unlabelled", "all"] {
        let mut scene = Scene::new(&plan(mode), 1);
        let streams = [scene.stream(0, 1, ms(5)), scene.stream(1, 0, ms(5))];
        scene.run(ms(400));
        assert_eq!(
            scene.streams[streams[0]].missing(Instant::START, scene.now - ms(50)),
            0,
            "none is lost on the way there"
        );
        assert!(scene.streams.iter().all(control::sim::Stream::in_order));
        quiet(&mut scene, &streams, s(60), true);
        for node in &scene.nodes {
            // The first, after a second, and then every five.
            assert!((11..=15).contains(&node.tally("control_label_tests")), "{}", node.tally("control_label_tests"));
            assert_eq!((node.tally("control_label_begun"), node.tally("control_label_ended")), (1, 0));
            assert_eq!(node.tally("control_explorations"), 0);
        }
    }
}

#[test]
fn who_takes_no_part_is_served_by_headers() {
    for off in [0, 1] {
        let (mut scene, streams) = Scene::talking(&Plan { plain: vec![off], standby: false, ..plan("all") }, 2);
        quiet(&mut scene, &streams, s(20), false);
        let tests = scene.nodes.iter().map(|node| node.tally("control_label_tests")).sum::<u64>();
        assert_eq!(tests, 0, "nobody is bothered with tests");
        assert_eq!(scene.messages(Instant::START).len(), 4, "I1, R1, I2, R2");
    }
}

#[test]
fn packets_with_labels_of_their_own_keep_them_or_lose_them_as_configured() {
    for (mode, by_label) in [("unlabelled", false), ("all", true)] {
        let mut scene = Scene::new(&plan(mode), 3);
        let streams = [scene.stream(0, 1, ms(20)), scene.stream(1, 0, ms(20))];
        for stream in streams {
            scene.streams[stream].flow_label = 0x77777;
        }
        scene.run(s(2));
        quiet(&mut scene, &streams, s(20), by_label);
        let mut packet = packet::udp(scene.hosts[0].ulid, scene.hosts[1].ulid, (9, 9), b"hello");
        dataplane::wire::ipv6::ViewMut::new(&mut packet).unwrap().set_flow_label(0x12345);
        scene.send(0, &packet);
        scene.run(ms(100));
        let (_, arrived) = &scene.hosts[1].inbox[0];
        let label = dataplane::wire::ipv6::View::new(arrived).unwrap().flow_label();
        assert_eq!(label, if by_label { 0 } else { 0x12345 });
    }
}

#[test]
fn over_a_path_that_changes_labels_nothing_is_sent_by_label() {
    let mut scene = Scene::new(&plan("all"), 4);
    scene.all_legs(|leg| leg.zeroes_labels = true);
    let streams = [scene.stream(0, 1, ms(20)), scene.stream(1, 0, ms(20))];
    scene.run(s(1));
    quiet(&mut scene, &streams, s(60), false);
    assert_eq!(scene.nodes[0].tally("control_label_tests"), 1, "the answer said it all");
}

/// Something happens to a path in use after a while, and labels do not arrive any more. How long until traffic is back.
fn harm(seed: u64, after: Duration, ways: &[Way], change: fn(&mut Leg)) -> (Scene, [StreamId; 2], Duration) {
    let (mut scene, streams) = Scene::talking(&plan("all"), seed);
    quiet(&mut scene, &streams, after, true);
    let provider = scene.in_use(0);
    for way in ways {
        change(scene.leg(provider, *way));
    }
    let took = scene.until_back(&streams, s(30));
    (scene, streams, took)
}

#[test]
fn labels_that_stop_arriving_are_given_up() {
    // Half a second before a test, which tells, or half a second after one, when REAP is quicker.
    for (seed, ways, after, told) in [
        (5, BOTH, s(2), true),
        (6, &[Way::Out][..], s(2), true),
        (7, &[Way::In], s(2), true),
        (8, BOTH, s(3), false),
        (9, &[Way::Out], s(3), false),
        (10, &[Way::In], s(3), false),
    ] {
        let (mut scene, streams, took) = harm(seed, after, ways, |leg| leg.zeroes_labels = true);
        assert!(took < if told { s(1) } else { OUTAGE_MAX }, "{ways:?}: {took:?}");
        assert_eq!(explorations(&scene, 0).is_empty(), told, "{ways:?}");
        scene.run(s(5));
        scene.lossless(&streams, s(60));
        // Whoever's labels arrive goes on with them when it is sure again; nobody goes another way.
        assert_eq!(scene.nodes.iter().map(|node| node.tally("control_pair_changes")).sum::<u64>(), 0);
        if ways == BOTH {
            quiet(&mut scene, &streams, s(5), false);
        }
    }
}

#[test]
fn a_path_that_carries_shim6_and_nothing_else_costs_a_second_once() {
    let mut scene = Scene::new(&plan("all"), 8);
    scene.all_legs(|leg| leg.shim6_only = true);
    let streams = [scene.stream(0, 1, ms(20)), scene.stream(1, 0, ms(20))];
    scene.run(s(5));
    for stream in streams {
        let lost = scene.streams[stream].missing(Instant::START, scene.now - ms(50));
        assert!((1..100).contains(&lost), "between the first test and the second: {lost} of 50 in a second");
    }
    quiet(&mut scene, &streams, s(120), false);
    assert!(explorations(&scene, 0).is_empty() && explorations(&scene, 1).is_empty());
}

/// Packets of one flow go behind headers and arrive, those of another go by label and do not: REAP hears the former and
/// is content, and the answers to tests tell.
#[test]
fn labels_are_given_up_although_something_else_arrives() {
    let mut scene = Scene::new(&plan("unlabelled"), 9);
    let streams: Vec<StreamId> =
        [(0, 1), (1, 0), (0, 1), (1, 0)].map(|(from, to)| scene.stream(from, to, ms(20))).to_vec();
    for stream in &streams[2..] {
        scene.streams[*stream].flow_label = 0x4711;
    }
    scene.run(s(5));
    assert!(scene.nodes[0].count(Count::LabelledOut) > 100);
    scene.all_legs(|leg| leg.shim6_only = true);
    let took = scene.until_back(&streams, s(30));
    assert!(took < s(11), "two tests: {took:?}");
    quiet(&mut scene, &streams, s(60), false);
    assert!(explorations(&scene, 0).is_empty() && explorations(&scene, 1).is_empty());
}

#[test]
fn after_a_cut_labels_are_used_on_the_new_pair() {
    for seed in [10, 11] {
        let (mut scene, streams) = Scene::talking(&plan("all"), seed);
        let provider = scene.in_use(0);
        scene.cut(provider, BOTH);
        let took = scene.until_back(&streams, s(30));
        assert!(took < OUTAGE_MAX, "{took:?}");
        scene.run(s(3));
        assert_ne!(scene.in_use(0), provider);
        quiet(&mut scene, &streams, s(30), true);
    }
}

#[test]
fn a_box_that_restarts_is_found_again() {
    // Its hosts speak: a handshake, at once.
    for site in [0, 1] {
        let (mut scene, streams) = Scene::talking(&plan("all"), 12);
        scene.restart(site);
        let took = scene.until_back(&streams, s(30));
        assert!(took < ms(200), "{took:?}");
        scene.run(s(3));
        scene.check_mirrored();
        quiet(&mut scene, &streams, s(30), true);
    }
    // They listen, and what comes by a label it gave away before means nothing to it: REAP asks, and it says so.
    let mut scene = Scene::new(&plan("all"), 13);
    let stream = [scene.stream(0, 1, ms(20))];
    scene.run(s(3));
    scene.restart(1);
    let took = scene.until_back(&stream, s(30));
    assert!(took < OUTAGE_MAX, "{took:?}");
    scene.run(s(3));
    scene.check_mirrored();
    quiet(&mut scene, &stream, s(30), true);
}

#[test]
fn errors_about_packets_with_labels_reach_the_host() {
    let (mut scene, _) = Scene::talking(&plan("unlabelled"), 14);
    let provider = scene.in_use(0);
    scene.providers[provider].mtu = 1400;
    // 1500 octets fit the box's own link, since nothing is added to them.
    let sent = packet::udp(scene.hosts[0].ulid, scene.hosts[1].ulid, (9, 9), &[7; 1452]);
    scene.send(0, &sent);
    scene.run(ms(50));
    let (kind, code, mtu, quote) = scene.error_at(0);
    assert_eq!((kind, code, mtu), (2, 0, 1400), "nothing is taken off");
    let mut expected = sent[..quote.len()].to_vec();
    expected[7] -= 1;
    assert_eq!(quote, expected, "as the host knows it, but for the hop limit");
}
