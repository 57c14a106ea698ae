//! Several active boxes of one site behind routes of equal cost: each packet of either direction meets whichever box its router's
//! hash says, also while boxes die, come back and are added, and whichever it meets serves it.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::Duration;

use common::{Scene, ms, s};
use control::shim6::{Context, How};
use control::sim::{Boxes, NOTICED, Node, Plan, SiteId, SitePlan, StreamId, Way};
use control::time::Instant;
use dataplane::counters::Count;

const SPREAD: Boxes = Boxes { of: 3, spread: true, synced: true };
/// How long the first packets of a new context may be lost that come by another box than the handshake went.
const NEW: Duration = ms(100);

/// Two sites, the first with so many active boxes, which know each other.
fn scene(plan: &Plan, count: usize, seed: u64) -> Scene {
    let mut scene = Scene::new(plan, seed);
    add_boxes(&mut scene, count);
    scene
}

fn add_boxes(scene: &mut Scene, count: usize) {
    scene.form_group(0, SPREAD);
    while scene.nodes[0].all().count() < count {
        scene.add_box(0);
    }
    let fit = scene.run_until(s(6), |world| {
        let node = &world.nodes[0];
        node.all().all(|node| node.engine.is_caught_up(world.now))
    });
    assert!(fit.is_some(), "boxes that are there are fit");
}

fn plan(hosts: u16) -> Plan {
    Plan { sites: vec![SitePlan { hosts, ..SitePlan::default() }; 2], ..Plan::default() }
}

/// Each host of the first site talks with each of the other one, both ways.
fn talk(scene: &mut Scene, interval: Duration) -> Vec<StreamId> {
    let hosts = scene.hosts.len() / 2;
    let pairs = (0..hosts).flat_map(|from| (hosts..2 * hosts).map(move |to| (from, to)));
    pairs.flat_map(|(a, b)| [(a, b), (b, a)]).map(|(from, to)| scene.stream(from, to, interval)).collect()
}

/// Everything that has to be the same in all boxes.
type Known = BTreeMap<(Ipv6Addr, Ipv6Addr, u32), (u64, Option<u64>, Ipv6Addr, Ipv6Addr, u64)>;

fn known(node: &Node) -> Known {
    let all = node.engine.contexts().filter(|it| it.state.carries_payload());
    let of = |it: &Context| {
        let tags = (it.local_tag.value(), it.peer_tag.map(|tag| tag.value()));
        (tags.0, tags.1, it.pair.local.0, it.pair.peer.0, it.stamp().clock())
    };
    all.map(|it| ((it.ulids.local.0, it.ulids.peer.0, it.fork), of(it))).collect()
}

fn all_know_the_same(scene: &Scene) {
    let mut all = scene.nodes[0].all().map(known);
    let first = all.next().unwrap();
    all.for_each(|other| assert_eq!(first, other));
}

/// What each box has translated so far: out, and in.
fn translated(scene: &Scene) -> Vec<[u64; 2]> {
    let of = |node: &Node| [Count::TranslatedOut, Count::TranslatedIn].map(|count| node.count(count));
    scene.nodes[0].all().map(of).collect()
}

fn sent(scene: &Scene, since: Instant, kind: &str) -> usize {
    scene.messages(since).iter().filter(|(_, it)| it == kind).count()
}

fn recovered(scene: &Scene) -> usize {
    (0..2).flat_map(|site| scene.ready(site)).filter(|how| *how == How::Recovered).count()
}

/// When the last packet was sent that got lost, after the beginning of a time of trouble.
fn lost_until(scene: &Scene, streams: &[StreamId], since: Instant, until: Instant) -> Duration {
    let last = streams.iter().flat_map(|id| {
        let stream = &scene.streams[*id];
        let arrived: BTreeSet<usize> = stream.arrivals.iter().map(|it| it.number).collect();
        let lost = stream.sent.iter().enumerate().filter(move |(number, _)| !arrived.contains(number));
        lost.map(|(_, at)| *at).filter(|at| (since..until).contains(at)).collect::<Vec<Instant>>()
    });
    last.max().map_or(Duration::ZERO, |at| at.since(since) + ms(1))
}

/// Time passes after something happened, and nothing may get lost but for a while after it.
fn lossy_for(scene: &mut Scene, streams: &[StreamId], at_most: Duration, time: Duration) {
    let since = scene.now;
    scene.run(time);
    let until = scene.now;
    scene.run(ms(500));
    let lost = lost_until(scene, streams, since, until);
    assert!(lost <= at_most, "packets were lost for {lost:?} after {since:?}");
}

// R5533-124: a tag is the context's own, whoever serves it.
#[test]
fn each_of_three_serves_whatever_comes() {
    for seed in 0..4 {
        let workers = [1, 2][seed as usize % 2];
        let sites = vec![SitePlan { workers, hosts: 3, ..SitePlan::default() }; 2];
        let mut scene = scene(&Plan { sites, standby: seed < 2, ..Plan::default() }, 3, seed);
        let streams: Vec<StreamId> = (0..3).flat_map(|_| talk(&mut scene, ms(40))).collect();
        lossy_for(&mut scene, &streams, NEW, s(3));
        all_know_the_same(&scene);
        assert_eq!(known(&scene.nodes[0]).len(), 9);
        // That boxes which begin with a pair at the same moment each make a context of it is over by now.
        let (before, since, came_back) = (translated(&scene), scene.now, recovered(&scene));
        scene.lossless(&streams, s(20));
        let after = translated(&scene);
        for (before, after) in before.iter().zip(&after) {
            assert!(after.iter().zip(before).all(|(after, before)| after - before > 500), "{before:?} {after:?}");
        }
        // A path is not dead because its answers come by another box.
        assert_eq!((recovered(&scene), sent(&scene, since, "R1bis"), sent(&scene, since, "I1")), (came_back, 0, 0));
        all_know_the_same(&scene);
    }
}

#[test]
fn boxes_that_all_carry_a_pair_leave_it_to_the_one_that_runs_it() {
    let mut scene = scene(&plan(1), 3, 20);
    let streams: Vec<StreamId> =
        (0..12).flat_map(|_| [(0, 1), (1, 0)]).map(|(from, to)| scene.stream(from, to, ms(100))).collect();
    scene.run(s(12));
    let taken = |scene: &Scene| scene.nodes[0].all().map(|node| node.tally("control_taken_on")).sum::<u64>();
    let before = taken(&scene);
    scene.lossless(&streams, s(60));
    assert!(translated(&scene).iter().all(|both| both[0] > 600), "all of them send: {:?}", translated(&scene));
    assert_eq!(taken(&scene), before);
}

/// A stream of the first pair that begins now, and the box by which it goes out.
fn stream_by(scene: &mut Scene, interval: Duration) -> (StreamId, usize) {
    let before = translated(scene);
    let stream = scene.stream(0, 1, interval);
    scene.run(ms(20));
    let after = translated(scene);
    (stream, (0..after.len()).find(|at| after[*at][0] > before[*at][0]).expect("it is translated"))
}

fn runner(scene: &Scene) -> usize {
    let runs = |node: &Node| node.engine.contexts().any(|it| !it.is_mirrored());
    scene.nodes[0].all().position(runs).expect("somebody runs it")
}

#[test]
fn two_sparse_streams_by_two_boxes_do_not_take_their_context_from_each_other() {
    for (seed, others) in [(110, ms(12_000)), (111, ms(12_000)), (112, ms(11_300)), (113, ms(16_000))] {
        let mut scene = scene(&plan(1), 3, seed);
        let first = scene.stream(0, 1, ms(20));
        scene.run(s(2));
        scene.stop(first);
        scene.run(s(1));
        let (here, box_here) = stream_by(&mut scene, ms(12_000));
        scene.run(s(6));
        let there = loop {
            let (stream, by) = stream_by(&mut scene, others);
            if by != box_here {
                break (stream, by);
            }
            scene.stop(stream);
        };
        scene.run(s(100));
        let taken = |scene: &Scene| scene.nodes[0].all().map(|node| node.tally("control_taken_on")).sum::<u64>();
        let (before, by) = (taken(&scene), runner(&scene));
        scene.lossless(&[here, there.0], s(240));
        assert_eq!((taken(&scene), runner(&scene)), (before, by), "seed {seed}");
        // By one of the two alone it goes there in the end.
        let (goes, stays, to) = if by == box_here { (here, there.0, there.1) } else { (there.0, here, box_here) };
        scene.stop(goes);
        scene.lossless(&[stays], s(60));
        assert_eq!((taken(&scene), runner(&scene)), (before + 1, to), "seed {seed}");
    }
}

#[test]
fn boxes_die_come_back_and_are_added() {
    for seed in 0..4 {
        let mut scene = scene(&plan(3), 2, 30 + seed);
        let streams = talk(&mut scene, ms(20));
        scene.run(s(3));
        let (before, since) = (known(&scene.nodes[0]), scene.now);
        for place in [1, 0, 1] {
            add_boxes(&mut scene, 3);
            scene.lossless(&streams, s(2));
            all_know_the_same(&scene);
            scene.kill_box(0, place);
            // Until routers know.
            lossy_for(&mut scene, &streams, NOTICED + ms(2), s(4));
            assert!(scene.nodes[0].lost_to_dead() > 0);
            all_know_the_same(&scene);
        }
        // All but one, at once.
        add_boxes(&mut scene, 3);
        scene.run(s(1));
        scene.kill_box(0, 2);
        scene.kill_box(0, 0);
        lossy_for(&mut scene, &streams, NOTICED + ms(2), s(4));
        let tags = |known: &Known| known.values().map(|it| (it.0, it.1)).collect::<Vec<_>>();
        assert_eq!(tags(&before), tags(&known(&scene.nodes[0])));
        assert_eq!((recovered(&scene), sent(&scene, since, "R1bis"), sent(&scene, since, "I1")), (0, 0, 0));
    }
}

// RFC 5534 §6.4: whoever runs a context finds failures, although another box hears the answers.
#[test]
fn a_provider_fails_whoever_hears_its_answers() {
    for (seed, ways) in [(1, &[Way::Out, Way::In][..]), (2, &[Way::In]), (3, &[Way::Out])] {
        let mut scene = scene(&plan(2), 3, 50 + seed);
        let streams = talk(&mut scene, ms(20));
        scene.run(s(4));
        let site: SiteId = 0;
        let used = scene.nodes[site].contexts(scene.now)[0].current.and_then(|it| scene.provider_of(it.local)).unwrap();
        scene.cut(used, ways);
        let took = scene.until_back(&streams, s(20));
        // What another box sees of a context is said twice a second.
        assert!(took < s(7), "{took:?}");
        scene.run(s(3));
        all_know_the_same(&scene);
        scene.lossless(&streams, s(5));
        assert_eq!(recovered(&scene), 0);
    }
}

// RFC 5533 §7.17, §7.2: who knows nothing is told by R1bis, or begins anew.
#[test]
fn boxes_that_cannot_tell_each_other_recover() {
    for seed in 0..4 {
        let mut scene = scene(&plan(2), 3, 70 + seed);
        let streams = talk(&mut scene, ms(50));
        scene.run(s(3));
        scene.cut_sync(0, true);
        scene.run(s(1));
        // Nobody knows anything any more but the peers, and those that come cannot ask.
        for _ in 0..3 {
            scene.kill_box(0, 0);
        }
        scene.run(s(6));
        assert!(scene.nodes[0].engine.is_caught_up(scene.now));
        let took = scene.until_back(&streams, s(40));
        assert!(took < s(2), "{took:?}");
        assert!(recovered(&scene) > 0 || sent(&scene, Instant::START, "R1bis") > 0);
        scene.cut_sync(0, false);
        add_boxes(&mut scene, 3);
        scene.run(s(3));
        all_know_the_same(&scene);
        scene.lossless(&streams, s(3));
    }
}

#[test]
fn boxes_that_were_apart_agree_again() {
    for seed in 0..4 {
        let mut scene = scene(&plan(2), 3, 90 + seed);
        let mut streams = talk(&mut scene, ms(20));
        scene.run(s(3));
        scene.cut_off_box(0, seed as usize % 3, true);
        streams.extend([scene.stream(0, 3, ms(50)), scene.stream(3, 0, ms(50))]);
        scene.run(s(10));
        scene.cut_off_box(0, seed as usize % 3, false);
        let took = scene.until_back(&streams, s(60));
        assert!(took < s(3), "{took:?}");
        scene.run(s(10));
        all_know_the_same(&scene);
        scene.lossless(&streams, s(5));
    }
}

// RFC 5533 §7.1: nobody else has a context's tag, and with labels nobody else its label.
#[test]
fn no_two_boxes_give_out_the_same_tag_place_or_label() {
    let shim6 = "accepted_per_prefix_percent = 100\ninitiated_reserve_percent = 0\nflow_label = \"all\"".to_owned();
    let mut scene = scene(&Plan { shim6, contexts_max: 256, standby: false, ..plan(12) }, 3, 7);
    let streams = talk(&mut scene, ms(500));
    assert_eq!(streams.len(), 288);
    scene.run(s(6));
    all_know_the_same(&scene);
    let mut made: BTreeMap<u64, usize> = BTreeMap::new();
    let (mut tags, mut places, mut labels) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for context in scene.nodes[0].engine.contexts() {
        let tag = context.local_tag.value();
        *made.entry(tag >> 43).or_default() += 1;
        assert_eq!(tag % 256 % 3, tag >> 43, "a place of its maker's part");
        assert!(tags.insert(tag) && places.insert(tag % 256));
        if let Some(label) = context.local_label {
            assert!(labels.insert(label.value()));
            assert_eq!(u64::from(label.value()) % 3, tag >> 43, "a label of its maker's part");
        }
    }
    assert_eq!((tags.len(), made.len()), (144, 3), "{made:?}");
    assert!(!labels.is_empty());
    scene.lossless(&streams, s(3));
}
