//! The policy at work between two real boxes: shares, drain, overflow, fail-back, and what peers are asked to do.

mod common;

use std::time::Duration;

use common::{Scene, ms, s};
use control::manage::api::Steering;
use control::policy::Direction;
use control::sim::{Plan, SiteId, SitePlan, StreamId, Way};

const BOTH: &[Way] = &[Way::Out, Way::In];

/// Two sites with `providers` each, so many hosts each, and each host in talk with its like.
fn busy(hosts: u16, providers: u16, seed: u64, policy: Option<&str>) -> (Scene, Vec<StreamId>) {
    let site = SitePlan { hosts, providers, ..SitePlan::default() };
    let mut scene = Scene::new(&Plan { sites: vec![site; 2], ..Plan::default() }, seed);
    if let Some(text) = policy {
        scene.load_policy(0, Some(text)).unwrap_or_else(|problems| panic!("{problems}"));
    }
    let mut streams = Vec::new();
    for host in 0..usize::from(hosts) {
        streams.push(scene.stream(host, host + usize::from(hosts), ms(20)));
        streams.push(scene.stream(host + usize::from(hosts), host, ms(20)));
        scene.run(ms(37));
    }
    scene.run(s(5));
    (scene, streams)
}

/// Contexts by the provider they send through, and by the one their peers send to.
fn split(scene: &Scene, site: SiteId) -> [Vec<usize>; 2] {
    let providers: Vec<usize> = (0..scene.providers.len()).filter(|at| scene.providers[*at].site == site).collect();
    let count = |seen_at: SiteId, end: fn(&control::manage::api::PairView) -> std::net::Ipv6Addr| {
        let contexts = scene.nodes[seen_at].contexts(scene.now);
        let used: Vec<usize> = contexts.iter().filter_map(|it| scene.provider_of(end(it.current.as_ref()?))).collect();
        providers.iter().map(|provider| used.iter().filter(|it| *it == provider).count()).collect()
    };
    [count(site, |pair| pair.local), count(1 - site, |pair| pair.peer)]
}

fn weights(one: u32, two: u32, more: &str) -> String {
    let weights = format!("{{\"weights\": {{\"isp-0-1\": {one}, \"isp-0-2\": {two}}}}}");
    format!(
        "{{\"version\": 1, \"limits\": {{\"tolerance_percent\": 2, \"rest_s\": 2}}, \"default\": {{\"both\": {{\"split\": {weights}}}{more}}}}}"
    )
}

#[test]
fn new_contexts_are_shared_out_as_the_weights_say() {
    let (scene, _) = busy(8, 2, 300, Some(&weights(3, 1, "")));
    assert_eq!(split(&scene, 0)[0], [6, 2]);
    assert_eq!(split(&scene, 0)[1], [6, 2], "peers answer where they were asked");
}

// R5533-110, R5533-113, R5533-249
#[test]
fn running_contexts_move_when_a_policy_is_loaded_and_lose_nothing() {
    let (mut scene, streams) = busy(8, 2, 301, None);
    let [out, inward] = split(&scene, 0);
    assert!(out.iter().sum::<usize>() == 8 && out.contains(&8) && inward.contains(&8), "{out:?} {inward:?}");
    scene.load_policy(0, Some(&weights(3, 1, ""))).unwrap();
    scene.lossless(&streams, s(20));
    assert_eq!(split(&scene, 0), [vec![6, 2], vec![6, 2]]);
    // Nobody had to explore: our direction moved by a test of its own, the peer's because it was asked to.
    assert_eq!([0, 1].map(|site| scene.nodes[site].tally("control_explorations")), [0, 0]);
    assert!(scene.nodes[1].tally("control_preferences_heeded") > 0);
    let ordered = scene.nodes[0].tally("control_policy_moves_out") + scene.nodes[0].tally("control_policy_moves_in");
    scene.lossless(&streams, s(60));
    let now = scene.nodes[0].tally("control_policy_moves_out") + scene.nodes[0].tally("control_policy_moves_in");
    assert_eq!(now, ordered, "and then nobody moves any more");
}

#[test]
fn directions_are_steered_each_by_itself() {
    let text = "{\"version\": 1, \"default\": {\"out\": {\"pin\": \"isp-0-1\"}, \"in\": {\"pin\": \"isp-0-2\"}}}";
    let (mut scene, streams) = busy(4, 2, 302, Some(text));
    scene.lossless(&streams, s(20));
    assert_eq!(split(&scene, 0), [vec![4, 0], vec![0, 4]]);
    scene
        .load_policy(0, Some(&text.replace("isp-0-1", "x").replace("isp-0-2", "isp-0-1").replace('x', "isp-0-2")))
        .unwrap();
    scene.lossless(&streams, s(30));
    assert_eq!(split(&scene, 0), [vec![0, 4], vec![4, 0]]);
}

#[test]
fn both_sites_have_policies_of_their_own() {
    let (mut scene, streams) = busy(4, 2, 303, Some(&weights(1, 1, "")));
    let theirs = weights(1, 1, "").replace("isp-0", "isp-1");
    scene.load_policy(1, Some(&theirs)).unwrap();
    scene.lossless(&streams, s(30));
    assert_eq!([split(&scene, 0), split(&scene, 1)], [[vec![2, 2], vec![2, 2]], [vec![2, 2], vec![2, 2]]]);
}

#[test]
fn a_drained_provider_is_left_in_both_directions_and_used_again_after() {
    let (mut scene, streams) = busy(6, 2, 304, Some(&weights(1, 1, "")));
    let drained =
        weights(1, 1, "").replacen("\"default\"", "\"providers\": {\"isp-0-1\": {\"drain\": true}}, \"default\"", 1);
    scene.load_policy(0, Some(&drained)).unwrap();
    scene.lossless(&streams, s(20));
    assert_eq!(split(&scene, 0), [vec![0, 6], vec![0, 6]]);
    scene.load_policy(0, Some(&weights(1, 1, ""))).unwrap();
    scene.lossless(&streams, s(30));
    assert_eq!(split(&scene, 0), [vec![3, 3], vec![3, 3]]);
    // What the operator says by hand goes before the policy.
    scene.nodes[0].engine.steer("isp-0-2", Steering::Drain).unwrap();
    scene.lossless(&streams, s(20));
    assert_eq!(split(&scene, 0), [vec![6, 0], vec![6, 0]]);
    scene.nodes[0].engine.steer("isp-0-2", Steering::Normal).unwrap();
    scene.lossless(&streams, s(30));
    assert_eq!(split(&scene, 0), [vec![3, 3], vec![3, 3]]);
}

#[test]
fn the_cheapest_overflows_when_it_is_full_enough() {
    // Eight streams of 50 packets of 148 octets a second each are half a megabit a second.
    let text = "{\"version\": 1, \"limits\": {\"tolerance_percent\": 2, \"rest_s\": 2},
        \"providers\": {\"isp-0-1\": {\"capacity_mbps\": 0.3, \"cost\": 1}, \"isp-0-2\": {\"capacity_mbps\": 10, \"cost\": 5}},
        \"default\": {\"both\": {\"split\": {\"cheapest_first\": {\"fill_percent\": 80}}}}}";
    let (mut scene, streams) = busy(8, 2, 305, Some(text));
    scene.lossless(&streams, s(20));
    let fits = (0.3e6_f64 * 0.8 / 8.0 / (50.0 * 148.0)) as usize;
    assert_eq!(split(&scene, 0), [vec![fits, 8 - fits], vec![fits, 8 - fits]], "{:#?}", shares(&scene));
    // Half of the traffic ends, and all that is left fits through the cheap one.
    streams[2 * fits..].iter().for_each(|stream| scene.stop(*stream));
    scene.lossless(&streams[..2 * fits], s(30));
    let view = shares(&scene);
    assert!(view.iter().all(|loads| loads[1] < 0.02 * loads[0]), "{view:?}");
}

/// What each direction carries by provider.
fn shares(scene: &Scene) -> [Vec<f64>; 2] {
    let controller = scene.nodes[0].engine.policy_controller().expect("a policy");
    Direction::BOTH.map(|direction| controller.shares(0, direction).loads)
}

#[test]
fn fail_back_is_as_each_class_wants_it() {
    for (rule, expected, after_new) in [
        ("\"at_once\"", [3, 3], None),
        ("{\"after_s\": 40}", [6, 0], None),
        ("\"new_sessions\"", [6, 0], Some(true)),
        ("\"never\"", [6, 0], Some(false)),
    ] {
        let more = format!(", \"fail_back\": {rule}");
        let (mut scene, streams) = busy(7, 2, 306, None);
        // One host is silent until the end.
        let (late, streams) = (streams[12..].to_vec(), streams[..12].to_vec());
        late.iter().for_each(|stream| scene.stop(*stream));
        scene.load_policy(0, Some(&weights(1, 1, &more))).unwrap();
        scene.run(s(400));
        assert_eq!(split(&scene, 0)[0], [3, 3], "{rule}");
        let lost = 1;
        scene.cut(lost, BOTH);
        scene.link_state(0, 2, false);
        scene.run(s(20));
        assert_eq!(split(&scene, 0)[0], [6, 0], "{rule}");
        scene.heal(lost);
        scene.link_state(0, 2, true);
        scene.lossless(&streams, s(30));
        assert_eq!(split(&scene, 0)[0], expected, "{rule}");
        if rule.contains("after") {
            scene.lossless(&streams, s(40));
            assert_eq!(split(&scene, 0)[0], [3, 3], "{rule}");
        }
        if let Some(there) = after_new {
            late.iter().for_each(|stream| scene.resume(*stream, ms(20)));
            scene.run(s(5));
            let expected = if there { [6, 1] } else { [7, 0] };
            assert_eq!(split(&scene, 0)[0], expected, "{rule}");
        }
    }
}

#[test]
fn a_class_that_looks_at_packets_has_contexts_of_its_own() {
    let text = "{\"version\": 1, \"classes\": [
        {\"name\": \"numbered\", \"match\": {\"protocol\": \"udp\", \"ports\": [\"1024\"]}, \"out\": {\"pin\": \"isp-0-2\"}}],
        \"default\": {\"both\": {\"pin\": \"isp-0-1\"}}}";
    let (mut scene, streams) = busy(1, 2, 307, Some(text));
    scene.lossless(&streams, s(10));
    let contexts = scene.nodes[0].contexts(scene.now);
    let fork = contexts.iter().find(|context| context.fork != 0).expect("a forked context");
    assert_eq!((fork.class.as_deref(), fork.local_provider.as_deref()), (Some("numbered"), Some("isp-0-2")));
    let default = contexts.iter().find(|context| context.fork == 0).expect("a default context");
    assert_eq!(default.local_provider.as_deref(), Some("isp-0-1"));
    assert!(fork.packets_out > 100 && fork.packets_out > default.packets_out, "{fork:?}");
}

#[test]
fn what_a_class_never_uses_it_does_not_use_when_all_else_fails() {
    let text = "{\"version\": 1, \"default\": {\"out\": {\"pin\": \"isp-0-1\"}}}";
    let (mut scene, streams) = busy(2, 2, 308, Some(text));
    let since = scene.now;
    scene.cut(0, BOTH);
    scene.link_state(0, 1, false);
    scene.run(s(20));
    assert_eq!(split(&scene, 0)[0], [2, 0]);
    assert!(scene.streams[streams[0]].back(since + ms(500)).is_none(), "it waits");
    scene.heal(0);
    scene.link_state(0, 1, true);
    scene.until_back(&streams, s(60));
    scene.lossless(&streams, s(5));
}

#[test]
fn a_policy_that_cannot_be_obeyed_changes_nothing() {
    let (mut scene, streams) = busy(4, 2, 309, Some(&weights(1, 1, "")));
    let before = split(&scene, 0);
    assert!(scene.load_policy(0, Some(&weights(0, 0, ""))).is_err());
    scene.lossless(&streams, s(10));
    assert_eq!(split(&scene, 0), before);
    assert_eq!(scene.nodes[0].tally("control_policy_loaded"), 1);
    // Without a policy contexts stay where they are.
    scene.load_policy(0, None).unwrap();
    scene.lossless(&streams, s(10));
    assert_eq!(split(&scene, 0), before);
}

#[test]
fn peers_that_do_not_heed_are_left_alone() {
    let (mut scene, streams) = busy(4, 2, 310, None);
    // They cannot reach the other provider, so they stay.
    let unreachable = 1 - (scene.in_use_by_all(0));
    scene.cut(unreachable, &[Way::In]);
    scene.load_policy(0, Some(&weights(1, 1, ""))).unwrap();
    scene.lossless(&streams, Duration::from_secs(60));
    let failed = scene.nodes[0].engine.policy_controller().unwrap().counts().failed;
    assert!(failed[1] > 0 && failed[1] <= 4, "{failed:?}: asked once, and not again for some minutes");
}

trait Used {
    fn in_use_by_all(&self, site: SiteId) -> usize;
}

impl Used for Scene {
    fn in_use_by_all(&self, site: SiteId) -> usize {
        let out = &split(self, site)[0];
        out.iter().position(|count| *count == out.iter().sum::<usize>()).expect("all use the same")
    }
}

/// 2026-11-23 was a Monday.
const MONDAY: u64 = 1_795_392_000;

fn clock(scene: &mut Scene, hour: u64) {
    let now = scene.now;
    scene.nodes[0].engine.wall_clock(now, MONDAY + hour * 3600);
    scene.run(ms(1));
}

#[test]
fn a_window_that_begins_or_ends_reaches_contexts_at_once() {
    let text = "{\"version\": 1, \"limits\": {\"rest_s\": 1}, \"default\": {\"both\": {\"pin\": \"isp-0-1\"},
        \"windows\": [{\"days\": [\"mon\"], \"from\": \"08:00\", \"to\": \"09:00\", \"both\": {\"pin\": \"isp-0-2\"}}]}}";
    let (mut scene, streams) = busy(4, 2, 311, Some(text));
    for (hour, expected) in [(7, [4, 0]), (8, [0, 4]), (9, [4, 0])] {
        clock(&mut scene, hour);
        scene.lossless(&streams, s(15));
        assert_eq!(split(&scene, 0), [expected.to_vec(), expected.to_vec()], "at {hour} o'clock");
        let failed = scene.nodes[0].engine.policy_controller().unwrap().counts().failed;
        assert_eq!(failed, [0, 0], "at {hour} o'clock");
        assert_eq!(scene.nodes[0].tally("control_policy_move_refused"), 0);
    }
    // A window forbids what nobody uses: when all else fails it is not used.
    let since = scene.now;
    scene.cut(0, BOTH);
    scene.link_state(0, 1, false);
    scene.run(s(20));
    assert_eq!(split(&scene, 0)[0], [4, 0]);
    assert!(scene.streams[streams[0]].back(since + ms(500)).is_none(), "it waits");
}

#[test]
fn who_leaves_a_provider_that_goes_is_under_the_policy_again() {
    let text = "{\"version\": 1, \"limits\": {\"rest_s\": 1}, \"default\": {\"both\": {}}}";
    let (mut scene, streams) = busy(6, 3, 312, Some(text));
    scene.lossless(&streams, s(20));
    assert_eq!(split(&scene, 0)[0], [2, 2, 2]);
    let change = scene.reload(0, |site, hosts| {
        site.providers.remove(0);
        hosts.list_mut().iter_mut().for_each(|host| {
            host.identity.locators.remove(0);
        });
    });
    change.unwrap();
    scene.load_policy(0, Some(text)).unwrap();
    scene.lossless(&streams, s(40));
    let controller = scene.nodes[0].engine.policy_controller().unwrap();
    let known = Direction::BOTH.map(|direction| controller.shares(0, direction).contexts);
    assert_eq!(known, [[3, 3], [3, 3]]);
    assert_eq!(split(&scene, 0)[0], [0, 3, 3]);
}

#[test]
fn a_wish_of_the_peer_waits_until_a_move_of_our_own_is_done() {
    let pin = |site: u8, out: u8| {
        format!(
            "{{\"version\": 1, \"limits\": {{\"rest_s\": 1}}, \"default\": {{\"out\": {{\"split\": {{\"weights\": {{\"isp-{site}-{out}\": 1}}}}}}}}}}"
        )
    };
    let (mut scene, streams) = busy(1, 2, 313, Some(&pin(0, 1)));
    scene.lossless(&streams, s(5));
    let before = scene.nodes[0].tally("control_steps_wished");
    // Nothing comes back from there for now, so the move takes its time.
    scene.cut(1, BOTH);
    scene.load_policy(0, Some(&pin(0, 2))).unwrap();
    scene.run(ms(600));
    assert_eq!(scene.nodes[0].tally("control_steps_wished") - before, 1, "it is under way");
    let other = if split(&scene, 1)[1][0] == 1 { 2 } else { 1 };
    scene.load_policy(1, Some(&pin(1, other).replace("\"out\"", "\"in\""))).unwrap();
    scene.run(ms(1500));
    assert_eq!(scene.nodes[0].tally("control_steps_wished") - before, 1, "and goes on");
    scene.heal(1);
    scene.run(s(10));
    assert_eq!(split(&scene, 0)[0], [0, 1]);
    assert_eq!(split(&scene, 1)[1].iter().position(|count| *count == 1), Some(usize::from(other) - 1));
    let failed = scene.nodes[0].engine.policy_controller().unwrap().counts().failed;
    assert_eq!(failed, [0, 0]);
}
