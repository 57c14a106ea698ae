//! Pairs that are tested before they are needed, and what happens when they are.

mod common;

use common::{Scene, ms, s};
use control::engine::{Effect, Story};
use control::sim::{Plan, SitePlan, StreamId, Way};
use control::time::Instant;
use dataplane::context::Loss;
use dataplane::counters::Count;
use dataplane::snapshot::PortId;
use dataplane::wire::shim6::Message;

const BOTH: &[Way] = &[Way::Out, Way::In];

/// Two hosts that talk, long enough for both boxes to have tested another pair.
fn guarded(plan: &Plan, seed: u64) -> (Scene, [StreamId; 2]) {
    let (mut scene, streams) = Scene::talking(plan, seed);
    scene.run(s(3));
    (scene, streams)
}

/// Packets of a stream sent in the time that passes now which never arrive.
fn missing(scene: &mut Scene, stream: StreamId, time: std::time::Duration) -> usize {
    let since = scene.now;
    scene.run(time);
    let until = scene.now;
    scene.run(ms(300));
    scene.streams[stream].missing(since, until)
}

fn moves(scene: &Scene, site: usize, since: Instant) -> usize {
    let moved = |(at, from, story): &&(Instant, usize, Story)| {
        *at >= since && *from == site && matches!(story, Story::Moved(..))
    };
    scene.stories.iter().filter(moved).count()
}

#[test]
fn another_pair_is_tested_by_one_request_that_changes_nothing_and_its_answer() {
    let (scene, _) = guarded(&Plan::default(), 1);
    let view = scene.context(0);
    let (current, standby) = (view.current.unwrap(), view.standby.unwrap());
    assert_ne!(scene.provider_of(current.local), scene.provider_of(standby.local));
    assert_ne!(current.peer, standby.peer, "it shares neither end with the current pair");
    let over = |message: &str, from, to| {
        let of = |it: &&control::sim::Captured| {
            it.addresses == (from, to) && format!("{:?}", it.message).starts_with(message)
        };
        scene.captured.iter().filter(of).count()
    };
    assert_eq!(
        (over("UpdateRequest", standby.local, standby.peer), over("UpdateAck", standby.peer, standby.local)),
        (1, 1)
    );
    // R5534-035 and what follows: nobody explores because of it, and nobody is asked twice.
    assert!(!scene.stories.iter().any(|(.., story)| matches!(story, Story::Exploring(..) | Story::Moved(..))));
    let empty = scene.captured.iter().all(|it| match &it.message {
        Message::UpdateRequest { options, .. } => options.locators.is_none() && options.preferences.is_none(),
        _ => true,
    });
    assert!(empty);
    assert_eq!([0, 1].map(|site| scene.nodes[site].tally("control_standby_tested")), [1, 1]);
    assert_eq!([0, 1].map(|site| scene.nodes[site].tally("control_updates_told")), [0, 0]);
}

#[test]
fn from_the_moment_a_link_is_down_not_one_packet_goes_there() {
    for (standby, lost) in [(true, 0..=0), (false, 1..=6)] {
        let (mut scene, [stream, _]) = guarded(&Plan { standby, ..Plan::default() }, 2);
        assert_eq!(scene.context(0).standby.is_some(), standby);
        let (since, provider) = (scene.now, scene.in_use(0));
        scene.unplug(provider);
        let missing = missing(&mut scene, stream, s(2));
        assert!(lost.contains(&missing), "{standby}: {missing} are missing");
        // The context itself has moved by then, by a probe of its own, and needs its standby no more.
        assert_eq!(moves(&scene, 0, since), 1);
        assert_ne!(scene.in_use(0), provider);
        let used = scene.nodes[0].count(Count::StandbyOut);
        assert_eq!(used > 0, standby);
        scene.run(s(1));
        assert_eq!(scene.nodes[0].count(Count::StandbyOut), used);
        scene.heal(provider);
        scene.run(s(1));
        scene.lossless(&[stream], s(2));
    }
}

#[test]
fn a_loss_is_one_command_before_anything_else_whatever_the_number_of_contexts() {
    for hosts in [1, 6] {
        let plan = Plan { sites: vec![SitePlan { hosts, ..SitePlan::default() }; 2], ..Plan::default() };
        let mut scene = Scene::new(&plan, 3);
        for (from, to) in (0..hosts).flat_map(|from| (0..hosts).map(move |to| (from, hosts + to))) {
            scene.stream(from.into(), to.into(), ms(100));
            scene.stream(to.into(), from.into(), ms(100));
        }
        scene.run(s(8));
        let contexts = scene.nodes[0].contexts(scene.now);
        assert_eq!(contexts.len(), usize::from(hosts * hosts));
        assert!(contexts.iter().all(|context| context.standby.is_some()));
        let (now, port) = (scene.now, PortId(1));
        let mut effects = Vec::new();
        let mut told = |up: bool, scene: &mut Scene| {
            scene.nodes[0].engine.link_state(now, port, up, &mut effects);
            let told: Vec<Effect> = std::mem::take(&mut effects);
            assert!(matches!(told[0], Effect::Lose(Loss::Provider(0), lost) if lost != up), "{told:?}");
            assert_eq!(told.iter().filter(|effect| matches!(effect, Effect::Lose(..))).count(), 1);
            assert!(!told.iter().any(|effect| matches!(effect, Effect::Install(..) | Effect::Transmit(..))));
        };
        told(false, &mut scene);
        told(true, &mut scene);
        told(false, &mut scene);
        told(true, &mut scene);
    }
}

#[test]
fn a_link_that_flaps_loses_what_was_on_its_way_and_nothing_else() {
    let (mut scene, streams) = guarded(&Plan::default(), 4);
    let provider = scene.in_use(0);
    for _ in 0..5 {
        let since = scene.now;
        scene.unplug(provider);
        scene.run(ms(50));
        let until = scene.now;
        scene.heal(provider);
        scene.run(ms(400));
        let missing = scene.streams[streams[0]].missing(since, until);
        assert_eq!(missing, 0);
    }
    scene.run(s(1));
    scene.lossless(&streams, s(2));
}

#[test]
fn both_providers_lost_is_no_worse_than_without_and_the_first_that_is_back_is_used() {
    let (mut scene, streams) = guarded(&Plan::default(), 5);
    let ours: Vec<usize> = (0..4).filter(|provider| scene.providers[*provider].site == 0).collect();
    let (first, other) = (scene.in_use(0), 1 - scene.in_use(0));
    assert!(ours.contains(&first) && ours.contains(&other));
    scene.unplug(first);
    scene.unplug(other);
    scene.run(s(2));
    scene.heal(other);
    let took = scene.until_back(&streams, s(10));
    assert!(took < s(1), "{took:?}");
    scene.heal(first);
    scene.run(s(1));
    scene.lossless(&streams, s(2));
}

// R5533-255, R5534-021
#[test]
fn a_pair_that_does_not_answer_is_no_standby_and_another_one_is_found() {
    let plan = Plan { sites: vec![SitePlan { providers: 3, ..SitePlan::default() }; 2], ..Plan::default() };
    let mut scene = Scene::new(&plan, 6);
    let stream = scene.stream(0, 1, ms(50));
    scene.stream(1, 0, ms(50));
    scene.run(ms(500));
    let used = [scene.in_use(0), scene.in_use(1)];
    // Of either site's other providers one is dead, before anybody tests it.
    let dead: Vec<usize> = [0..3, 3..6].map(|mut all| all.find(|it| !used.contains(it)).unwrap()).to_vec();
    dead.iter().for_each(|provider| scene.cut(*provider, BOTH));
    scene.run(s(60));
    assert!(scene.nodes[0].tally("control_standby_unanswered") > 0);
    let standby = scene.context(0).standby.unwrap();
    let ends = [standby.local, standby.peer].map(|end| scene.provider_of(end).unwrap());
    assert!(!ends.iter().any(|end| dead.contains(end)), "{ends:?}");
    assert_eq!(moves(&scene, 0, Instant::START), 0, "whatever becomes of tests, the current pair is not touched");
    assert!(!scene.stories.iter().any(|(.., story)| matches!(story, Story::Exploring(..))));
    scene.unplug(used[0]);
    assert_eq!(missing(&mut scene, stream, s(1)), 0);
}

#[test]
fn a_standby_that_has_died_is_found_out_by_the_next_test_and_by_whoever_needs_it() {
    // Nobody needs it: the next test, ten minutes later, finds it dead.
    let mut scene = Scene::new(&Plan::default(), 7);
    let streams = [scene.stream(0, 1, ms(500)), scene.stream(1, 0, ms(500))];
    scene.run(s(6));
    let standby = scene.context(0).standby.unwrap();
    let [ours, theirs] = [standby.local, standby.peer].map(|end| scene.provider_of(end).unwrap());
    scene.cut(ours, BOTH);
    scene.run(s(800));
    assert_ne!(scene.context(0).standby, Some(standby));
    scene.heal(ours);
    scene.run(s(400));
    scene.context(0).standby.unwrap();
    // Somebody needs it first: the device says that the link in use is down, and lies; everything else is dead.
    let used = scene.in_use(0);
    scene.cut(1 - used, BOTH);
    let port = scene.providers[used].port;
    scene.link_state(0, port, false);
    let took = scene.until_back(&streams, s(30));
    assert!(took < s(8), "{took:?}");
    assert_eq!(scene.in_use(0), used);
    scene.lossless(&streams, s(20));
    _ = theirs;
}

#[test]
fn a_path_that_fails_silently_is_lost_for_all_as_soon_as_it_is_for_some() {
    let (mut gaps, hosts) = (Vec::new(), 4u16);
    for standby in [true, false] {
        let sites = vec![SitePlan { hosts, ..SitePlan::default() }; 2];
        let mut scene = Scene::new(&Plan { sites, standby, ..Plan::default() }, 8);
        let mut streams = Vec::new();
        for (from, to) in (0..hosts).flat_map(|from| (0..hosts).map(move |to| (from, hosts + to))) {
            streams.push(scene.stream(from.into(), to.into(), ms(50)));
            scene.stream(to.into(), from.into(), ms(50));
        }
        scene.run(s(8));
        let (since, provider) = (scene.now, 0);
        scene.cut(provider, BOTH);
        scene.run(s(10));
        assert!(scene.nodes[0].tally("control_paths_dead") > 0);
        assert_eq!(scene.nodes[0].count(Count::StandbyOut) > 0, standby);
        let until = scene.now - ms(500);
        gaps.push(streams.iter().map(|stream| scene.streams[*stream].missing(since, until)).sum::<usize>());
        // What was lost is not lost for ever.
        scene.heal(provider);
        scene.run(s(100));
        let used = scene.nodes[0].count(Count::StandbyOut);
        scene.run(s(5));
        assert_eq!(scene.nodes[0].count(Count::StandbyOut), used);
    }
    assert!(gaps[0] <= gaps[1], "{gaps:?}");
}

#[test]
fn what_the_operator_wants_free_is_nobodys_standby() {
    let (mut scene, streams) = guarded(&Plan::default(), 9);
    let idle = scene.provider_of(scene.context(0).standby.unwrap().local).unwrap();
    let name = scene.nodes[0].site().providers[idle].name.clone();
    scene.nodes[0].engine.steer(&name, control::manage::api::Steering::Drain).unwrap();
    scene.run(s(5));
    assert_eq!(scene.context(0).standby, None);
    scene.nodes[0].engine.steer(&name, control::manage::api::Steering::Normal).unwrap();
    scene.run(s(20));
    let standby = scene.context(0).standby.map(|standby| scene.provider_of(standby.local).unwrap());
    assert_eq!(standby, Some(idle));
    scene.lossless(&streams, s(1));
}

#[test]
fn news_for_the_peer_takes_the_place_of_a_test_and_idle_contexts_are_not_tested() {
    // R5533-256, R5533-258
    let mut scene = Scene::new(&Plan::default(), 10);
    let streams = [scene.stream(0, 1, ms(100)), scene.stream(1, 0, ms(100))];
    // Answers take long, so that the test is still under way when there is news.
    scene.all_legs(|leg| leg.delay = ms(400));
    let tests = |scene: &Scene| scene.nodes[0].tally("control_standby_tests");
    scene.run_until(s(20), |world| world.nodes[0].tally("control_standby_tests") > 0).unwrap();
    let name = scene.nodes[0].site().providers[1].name.clone();
    scene.nodes[0].engine.steer(&name, control::manage::api::Steering::Avoid).unwrap();
    scene.run(s(1));
    assert_eq!((scene.nodes[0].tally("control_updates_told"), tests(&scene)), (1, 1));
    scene.run(s(60));
    assert!(scene.context(0).standby.is_some(), "it was tested later");
    streams.iter().for_each(|stream| scene.stop(*stream));
    scene.run(s(10));
    let before = tests(&scene);
    scene.run(s(250));
    assert_eq!(tests(&scene), before);
}

#[test]
fn far_away_tests_are_as_few_and_what_they_found_as_good() {
    let plan = Plan { sites: vec![SitePlan { providers: 3, ..SitePlan::default() }; 2], ..Plan::default() };
    let mut scene = Scene::new(&plan, 11);
    scene.all_legs(|leg| leg.delay = ms(50));
    let stream = scene.stream(0, 1, ms(20));
    scene.stream(1, 0, ms(20));
    scene.run(s(10));
    let tests = |scene: &Scene| scene.nodes[0].tally("control_standby_tests");
    assert_eq!((tests(&scene), scene.nodes[0].tally("control_standby_tested")), (1, 1));
    let (standby, used) = (scene.context(0).standby.unwrap(), scene.in_use(0));
    scene.unplug(used);
    // Nothing is missing but what was on its way to the provider that is gone.
    let gone = missing(&mut scene, stream, s(5));
    assert!(gone <= 10, "{gone} are missing");
    // The standby is the pair in use by now. Another one is found by one test, however many reports there are meanwhile.
    assert_eq!(scene.context(0).current, Some(standby));
    scene.run(s(60));
    assert!(scene.context(0).standby.is_some_and(|new| new != standby));
    assert_eq!(tests(&scene), 2);
}
