//! Two boxes of one site tell each other of their contexts (docs/decisions: state sync), and neither hosts nor peers can tell
//! which of them serves.

mod common;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use common::{Scene, ms, s};
use control::shim6::How;
use control::sim::{Node, Plan, SiteId, SitePlan, StreamId, Way};
use control::time::Instant;

const BOTH: &[Way] = &[Way::Out, Way::In];

/// Two sites, the first with two boxes, whose hosts talk in pairs.
fn talking(plan: &Plan, seed: u64) -> (Scene, Vec<StreamId>) {
    let mut scene = Scene::new(plan, seed);
    scene.add_twin(0);
    let pairs = scene.hosts.len() / 2;
    let streams: Vec<StreamId> = (0..pairs)
        .flat_map(|host| [(host, host + pairs), (host + pairs, host)])
        .map(|(from, to)| scene.stream(from, to, ms(20)))
        .collect();
    scene.run(s(3));
    (scene, streams)
}

fn plan(hosts: u16, standby: bool) -> Plan {
    Plan { sites: vec![SitePlan { hosts, ..SitePlan::default() }; 2], standby, ..Plan::default() }
}

/// What a box knows of its contexts: everything that has to be the same in both.
type Known = BTreeMap<(Ipv6Addr, Ipv6Addr, u32), (u64, Option<u64>, Ipv6Addr, Ipv6Addr, u64)>;

fn known(node: &Node) -> Known {
    let all = node.engine.contexts().filter(|it| it.state.carries_payload());
    let of = |it: &control::shim6::Context| {
        let tags = (it.local_tag.value(), it.peer_tag.map(|tag| tag.value()));
        (tags.0, tags.1, it.pair.local.0, it.pair.peer.0, it.stamp().clock())
    };
    all.map(|it| ((it.ulids.local.0, it.ulids.peer.0, it.fork), of(it))).collect()
}

/// What the first box told the second one and heard of it, and the other way round.
fn both(scene: &Scene) -> [control::sync::Counts; 2] {
    [(0, 1), (1, 0)].map(|(at, of)| scene.nodes[0].synced(at, of).unwrap())
}

fn both_know_the_same(scene: &Scene, site: SiteId) {
    let (first, second) = (known(&scene.nodes[site]), known(scene.nodes[site].second().unwrap()));
    assert_eq!(first, second);
}

/// How often a context came back by R1bis at any site since.
fn recovered(scene: &Scene) -> usize {
    (0..2).flat_map(|site| scene.ready(site)).filter(|how| *how == How::Recovered).count()
}

fn sent(scene: &Scene, since: Instant, kind: &str) -> usize {
    scene.messages(since).iter().filter(|(_, it)| it == kind).count()
}

// R5533-124: the tag stays the context's own, whoever serves it.
#[test]
fn sessions_go_on_in_the_second_box_and_no_packet_is_lost() {
    for seed in 0..6 {
        let workers = [1, 2][seed as usize % 2];
        let sites = vec![SitePlan { workers, hosts: 3, ..SitePlan::default() }; 2];
        let (mut scene, streams) = talking(&Plan { sites, standby: seed >= 4, ..Plan::default() }, seed);
        let before = known(&scene.nodes[0]);
        assert_eq!(before.len(), 3);
        both_know_the_same(&scene, 0);
        let since = scene.now;
        for _ in 0..3 {
            scene.take_over(0);
            scene.lossless(&streams, s(2));
            scene.add_twin(0);
            scene.lossless(&streams, s(2));
            both_know_the_same(&scene, 0);
        }
        let tags = |known: &Known| known.values().map(|it| (it.0, it.1)).collect::<Vec<_>>();
        assert_eq!(tags(&before), tags(&known(&scene.nodes[0])));
        assert_eq!((recovered(&scene), sent(&scene, since, "R1bis"), sent(&scene, since, "I1")), (0, 0, 0));
    }
}

#[test]
fn the_box_that_does_not_serve_is_silent() {
    let (mut scene, streams) = talking(&plan(2, true), 7);
    scene.run(s(30));
    assert_eq!(scene.nodes[0].loud(), 0);
    scene.lossless(&streams, s(2));
    // Nothing changes, so nothing is told: what is left are contexts that are used, now and then.
    let before = both(&scene);
    scene.run(s(20));
    let after = both(&scene);
    let told = |counts: [control::sync::Counts; 2]| counts.map(|it| it.contexts.told);
    let [first, second] = [0, 1].map(|at| told(after)[at] - told(before)[at]);
    assert!(first <= 2 && second == 0, "{first} and {second} in 20 s, {before:#?} {after:#?}");
}

// R5533-317: without the other box's word a packet with its tag has to be answered by R1bis, and that works.
#[test]
fn without_a_wire_the_peers_bring_contexts_back() {
    let mut scene = Scene::new(&plan(2, false), 3);
    scene.add_twin(0);
    scene.cut_sync(0, true);
    let streams = [scene.stream(0, 2, ms(20)), scene.stream(2, 0, ms(20))];
    scene.run(s(3));
    scene.take_over(0);
    let took = scene.until_back(&streams, s(20));
    assert!(took < s(2), "{took:?}");
    assert!(recovered(&scene) > 0 || sent(&scene, Instant::START, "R1bis") > 0);
}

#[test]
fn a_wire_that_loses_and_repeats_messages_loses_nothing() {
    let mut again = (0, 0);
    for seed in 0..4 {
        let mut scene = Scene::new(&plan(6, false), 20 + seed);
        scene.add_twin(0);
        scene.spoil_sync(0, 150, 150);
        let mut streams = Vec::new();
        for host in 0..6 {
            streams.extend([scene.stream(host, host + 6, ms(50)), scene.stream(host + 6, host, ms(50))]);
            scene.run(ms(300));
        }
        scene.run(s(3));
        scene.spoil_sync(0, 0, 0);
        scene.run(s(1));
        both_know_the_same(&scene, 0);
        let [first, second] = both(&scene);
        again = (again.0 + first.resent, again.1 + second.repeated);
        assert_eq!((first.behind, first.waiting), (0, 0));
        scene.take_over(0);
        scene.lossless(&streams, s(2));
        assert_eq!(recovered(&scene), 0);
    }
    assert!(again.0 > 0 && again.1 > 0, "{again:?}");
}

#[test]
fn what_happens_while_the_wire_is_cut_is_told_afterwards() {
    let (mut scene, mut streams) = talking(&plan(4, false), 5);
    scene.cut_sync(0, true);
    streams.extend([scene.stream(0, 7, ms(50)), scene.stream(7, 0, ms(50))]);
    let used = scene.nodes[0].contexts(scene.now)[0].current.and_then(|it| scene.provider_of(it.local)).unwrap();
    scene.run(s(1));
    scene.cut(used, BOTH);
    scene.until_back(&streams, s(20));
    scene.run(s(3));
    assert_ne!(known(&scene.nodes[0]), known(scene.nodes[0].second().unwrap()));
    scene.cut_sync(0, false);
    scene.run(s(1));
    both_know_the_same(&scene, 0);
    scene.take_over(0);
    scene.lossless(&streams, s(3));
    assert_eq!(recovered(&scene), 0);
}

// R5534-020: whoever takes over finds failures as the other would have.
#[test]
fn a_provider_that_fails_after_the_box_is_left() {
    let (mut scene, streams) = talking(&plan(1, false), 9);
    scene.take_over(0);
    scene.run(ms(200));
    let used = scene.in_use(0);
    scene.cut(used, BOTH);
    let took = scene.until_back(&streams, s(20));
    assert!(took < s(6), "{took:?}");
    assert_ne!(scene.in_use(0), used);
}

#[test]
fn a_provider_that_fails_with_the_box_is_left() {
    for (seed, after) in [(1, 0), (2, 200), (3, 2500), (4, 3500)] {
        let (mut scene, streams) = talking(&plan(1, false), seed);
        let used = scene.in_use(0);
        scene.cut(used, BOTH);
        scene.run(ms(after));
        scene.take_over(0);
        let took = scene.until_back(&streams, s(20));
        assert!(took < s(8), "cut {after} ms before: {took:?}");
    }
}

#[test]
fn routes_that_move_take_the_contexts_along() {
    let (mut scene, streams) = talking(&plan(2, false), 11);
    let since = scene.now;
    for _ in 0..3 {
        scene.move_routes(0);
        // The other box is there and runs the contexts; this one says what it sees, and takes them on after a while.
        scene.lossless(&streams, s(12));
        assert!(scene.nodes[0].engine.contexts().all(|context| !context.is_mirrored()));
        assert!(scene.nodes[0].second().unwrap().engine.contexts().all(|context| context.is_mirrored()));
        both_know_the_same(&scene, 0);
    }
    assert_eq!(recovered(&scene), 0);
    let explored =
        scene.stories.iter().filter(|(at, _, story)| *at >= since && format!("{story:?}").contains("Exploring"));
    assert_eq!(explored.count(), 0);
}

// R5533-007: one context for each pair. Both boxes made one while they could not tell each other.
#[test]
fn of_two_contexts_of_a_pair_both_boxes_keep_the_same() {
    for seed in 0..4 {
        let mut scene = Scene::new(&plan(2, false), 40 + seed);
        scene.add_twin(0);
        scene.cut_sync(0, true);
        let streams = [scene.stream(0, 2, ms(20)), scene.stream(2, 0, ms(20))];
        scene.run(s(2));
        scene.move_routes(0);
        scene.run(s(2));
        let [first, second] = [&scene.nodes[0], scene.nodes[0].second().unwrap()].map(known);
        assert_eq!((first.len(), second.len()), (1, 1));
        assert_ne!(first, second, "each has made a context of its own");
        if seed % 2 == 1 {
            scene.move_routes(0);
            scene.run(s(2));
        }
        scene.cut_sync(0, false);
        scene.run(s(1));
        both_know_the_same(&scene, 0);
        let took = scene.until_back(&streams, s(20));
        assert!(took < s(2), "{took:?}");
        scene.lossless(&streams, s(2));
        scene.check_mirrored();
    }
}

// RFC 5533 §9: a context that nobody uses ends in both boxes.
#[test]
fn contexts_end_in_both_boxes_and_not_in_one_while_the_other_uses_them() {
    let (mut scene, streams) = talking(&plan(2, false), 13);
    // Long enough that a box which heard nothing would have forgotten them.
    scene.run(s(700));
    both_know_the_same(&scene, 0);
    assert_eq!(known(&scene.nodes[0]).len(), 2);
    streams.iter().for_each(|stream| scene.stop(*stream));
    scene.run(s(1500));
    for node in [&scene.nodes[0], scene.nodes[0].second().unwrap()] {
        assert_eq!(node.engine.contexts().count(), 0);
    }
}

#[test]
fn a_newcomer_is_told_everything_before_it_is_fit() {
    let (mut scene, _) = talking(&plan(6, false), 15);
    scene.take_over(0);
    scene.run(s(1));
    scene.add_twin(0);
    let begun = scene.now;
    let fit = |scene: &Scene| {
        let second = scene.nodes[0].second().unwrap();
        second.engine.is_caught_up(scene.now).then(|| known(second).len())
    };
    assert_eq!(fit(&scene), None);
    while fit(&scene).is_none() {
        scene.run(ms(1));
    }
    assert_eq!(fit(&scene), Some(6));
    assert!(scene.now.since(begun) < s(1));
    // One that finds nobody serves alone after a while.
    scene.take_over(0);
    scene.add_twin(0);
    scene.cut_sync(0, true);
    scene.take_over(0);
    assert!(!scene.nodes[0].engine.is_caught_up(Instant::START + s(1)));
    scene.run(s(6));
    assert!(scene.nodes[0].engine.is_caught_up(scene.now));
    // And goes on when another one comes, of which it has to hear first.
    scene.add_twin(0);
    for _ in 0..100 {
        scene.run(ms(1));
        assert!(scene.nodes[0].engine.is_caught_up(scene.now));
    }
}
