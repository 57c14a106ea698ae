//! Classes of traffic with contexts of their own (RFC 5533 §4.2): two boxes, their hosts, and a network that fails.

mod common;

use std::time::Duration;

use common::{Scene, ms, s};
use control::config::site::Fork;
use control::engine::Story;
use control::manage::api::{ContextState, ContextView, Steering};
use control::sim::{Plan, ProviderId, SiteId, StreamId, Way};
use control::time::Instant;
use dataplane::counters::Count;
use dataplane::snapshot::ClassView;
use dataplane::wire::shim6::Message;

const BOTH: &[Way] = &[Way::Out, Way::In];
/// A probe to a dead pair or two, after the Send Timeout of 3 s.
const OUTAGE_MAX: Duration = ms(3000 + 1600);
/// Packets of the first stream and no other, by the second provider of the site.
const FIRST_STREAM: &str = "[[fork]]\nname = \"first\"\nprotocol = \"udp\"\nsource_ports = [\"1024\"]\n\
                            providers = [\"isp-{site}-2\"]\n";

fn plan() -> Plan {
    Plan { sections: FIRST_STREAM.into(), ..Plan::default() }
}

/// The context of a site with this number.
fn context(scene: &Scene, site: SiteId, fork: u32) -> Option<ContextView> {
    scene.nodes[site].contexts(scene.now).into_iter().find(|context| context.fork == fork)
}

/// The provider an established context of a site sends through.
fn through(scene: &Scene, site: SiteId, fork: u32) -> Option<ProviderId> {
    let context = context(scene, site, fork).filter(|context| context.state == ContextState::Established)?;
    scene.provider_of(context.current?.local)
}

/// Packets a context has sent between two moments, the second one now.
fn sent_since(scene: &mut Scene, site: SiteId, time: Duration) -> Vec<u64> {
    let packets = |scene: &Scene| [0, 1].map(|fork| context(scene, site, fork).map_or(0, |it| it.packets_out));
    let before = packets(scene);
    scene.run(time);
    packets(scene).iter().zip(before).map(|(after, before)| after - before).collect()
}

/// A stream of the class, one of no class, and the answers to both, which are of no class at the other site: 20 ms apart.
fn talking(plan: &Plan, seed: u64) -> (Scene, [StreamId; 4]) {
    let mut scene = Scene::new(plan, seed);
    let streams = [
        scene.stream(0, 1, ms(20)),
        scene.stream(0, 1, ms(20)),
        scene.stream(1, 0, ms(20)),
        scene.stream(1, 0, ms(20)),
    ];
    scene.run(s(2));
    (scene, streams)
}

/// Numbers of forks in the messages of a kind that a site sent since.
fn forks_in(scene: &Scene, site: SiteId, since: Instant, kind: &str) -> Vec<Option<u32>> {
    let sent = scene.captured.iter().filter(|sent| sent.at >= since && scene.providers[sent.provider].site == site);
    let of = sent.filter_map(|sent| match (&sent.message, kind) {
        (Message::I1 { options, .. }, "I1") | (Message::I2 { options, .. }, "I2") => Some(options.fork),
        _ => None,
    });
    of.collect()
}

// R5533-022, R5533-043, R5533-055, R5533-139, R5533-168, R5533-299
#[test]
fn a_class_gets_a_context_of_its_own_and_nothing_waits_for_it() {
    let mut scene = Scene::new(&plan(), 60);
    let mut streams = vec![scene.stream(0, 1, ms(20))];
    scene.run(s(1));
    assert_eq!(forks_in(&scene, 0, Instant::START, "I1"), [None, Some(1)], "the default one first");
    assert_eq!(forks_in(&scene, 0, Instant::START, "I2"), [None, Some(1)]);
    streams.extend([scene.stream(0, 1, ms(20)), scene.stream(1, 0, ms(20)), scene.stream(1, 0, ms(20))]);
    scene.run(s(1));
    // R5533-023: the answers go by the peer's default context, for its own first class has no packet here.
    for (site, at_default) in [(0, 0), (1, 2)] {
        assert_eq!(through(&scene, site, 0), Some(at_default), "the first provider of both");
    }
    assert_eq!(through(&scene, 0, 1), Some(1));
    let shown = context(&scene, 0, 1).unwrap();
    assert_eq!(shown.class.as_deref(), Some("first"));
    let [default, fork] = sent_since(&mut scene, 0, s(2))[..] else { panic!() };
    assert!((95..=105).contains(&default) && (95..=105).contains(&fork), "{default} and {fork}");
    assert_eq!(sent_since(&mut scene, 1, s(2))[1], 0);
    let (opening, now) = (Instant::START, scene.now - ms(200));
    for stream in streams {
        assert_eq!(scene.streams[stream].missing(opening, now), 0, "stream {stream}");
    }
    assert_eq!(scene.nodes[0].count(Count::ForksWished), 1);
    assert_eq!(scene.nodes[1].count(Count::ForksWished), 0);
}

#[test]
fn both_streams_go_on_when_either_provider_fails_and_the_class_comes_back_to_its_own() {
    for cut in [0, 1] {
        for ways in [BOTH, &[Way::Out], &[Way::In]] {
            let (mut scene, streams) = talking(&plan(), 61);
            scene.cut(cut, ways);
            let took = scene.until_back(&streams, s(20));
            assert!(took <= OUTAGE_MAX, "{cut} {ways:?}: {took:?}");
            scene.run(s(8));
            scene.lossless(&streams, s(5));
            if ways == BOTH || ways == [Way::Out] {
                let other = Some(1 - cut);
                assert_eq!([0, 1].map(|fork| through(&scene, 0, fork)), [other, other]);
            }
            scene.heal(cut);
            // What a probe found dead is left alone for a minute, and then it is looked once a minute. Nothing is lost by it.
            scene.lossless(&streams, s(130));
            assert_eq!(through(&scene, 0, 1), Some(1), "cut {cut} {ways:?}");
        }
    }
}

#[test]
fn a_peer_that_takes_no_forks_costs_nothing_but_a_question_now_and_then() {
    // The I2 is dropped in silence.
    let plan = Plan { shim6: "forks_max = 0".into(), plain: vec![0], ..plan() };
    let (mut scene, streams) = talking(&plan, 62);
    scene.lossless(&streams, s(600));
    assert_eq!((through(&scene, 0, 0), through(&scene, 0, 1)), (Some(0), None));
    let refused = scene.nodes[0].tally("control_fork_refused");
    // An exchange takes up to two minutes, and the pauses after it are 1, 2, 4, 8 minutes.
    assert!((2..=4).contains(&refused), "{refused}");
    assert_eq!(scene.nodes[0].count(Count::ForkedOut), 0);
    assert!(scene.stories.iter().any(|(_, site, story)| *site == 0 && matches!(story, Story::ForkRefused(_, 1, _))));
    // The pair itself is not held down: when its context goes, another one comes at once.
    scene.restart(0);
    scene.until_back(&streams, s(3));
}

#[test]
fn either_box_may_restart() {
    for restarted in [0, 1] {
        let (mut scene, streams) = talking(&plan(), 63 + restarted as u64);
        scene.restart(restarted);
        let took = scene.until_back(&streams, s(20));
        assert!(took < s(3), "{took:?}");
        scene.run(s(10));
        scene.lossless(&streams, s(3));
        assert_eq!(through(&scene, 0, 1), Some(1));
        assert!(sent_since(&mut scene, 0, s(2))[1] > 90);
    }
}

// R5533-023
#[test]
fn classes_of_both_ends_with_one_number_share_a_context_and_each_goes_its_way() {
    // The stream from site 1 is the second of all, so its class is another one with the same number.
    let mut scene = Scene::new(&plan(), 65);
    scene
        .reload(1, |site, _| {
            site.forks[0].class.source_ports = vec![1025..=1025];
            site.forks[0].providers = vec![0];
        })
        .unwrap();
    let streams = [scene.stream(0, 1, ms(20)), scene.stream(1, 0, ms(20)), scene.stream(0, 1, ms(20))];
    scene.run(s(70));
    for site in [0, 1] {
        assert_eq!(scene.nodes[site].contexts(scene.now).len(), 2, "one default and one forked context");
        assert!(sent_since(&mut scene, site, s(2))[1] > 90);
    }
    assert_eq!((through(&scene, 0, 1), through(&scene, 1, 1)), (Some(1), Some(2)), "each sends where it likes");
    let tags = [0, 1].map(|site| context(&scene, site, 1).unwrap());
    assert_eq!((&tags[0].local_tag, &tags[0].peer_tag), (&tags[1].peer_tag, &tags[1].local_tag));
    scene.lossless(&streams, s(3));
}

#[test]
fn a_reload_adds_changes_and_takes_away_classes_under_traffic() {
    let (mut scene, streams) = talking(&Plan::default(), 66);
    assert_eq!(scene.nodes[0].contexts(scene.now).len(), 1);
    let fork = |providers: &[usize]| Fork {
        name: "late".into(),
        class: ClassView { source_ports: vec![1024..=1024], ..ClassView::default() },
        hosts: Vec::new(),
        peers: Vec::new(),
        providers: providers.to_vec(),
    };
    scene.reload(0, |site, _| site.forks = vec![fork(&[1])]).unwrap();
    scene.lossless(&streams, s(2));
    assert_eq!(through(&scene, 0, 1), Some(1));
    scene.reload(0, |site, _| site.forks[0].providers = vec![0, 1]).unwrap();
    scene.lossless(&streams, s(3));
    assert_eq!(through(&scene, 0, 1), Some(0), "it moves");
    // For another host, and so not for this one.
    let other = "fc00:a:0:1::99/128".parse().unwrap();
    scene.reload(0, |site, _| site.forks[0].hosts = vec![other]).unwrap();
    scene.lossless(&streams, s(1));
    assert_eq!(sent_since(&mut scene, 0, s(1))[1], 0);
    assert_eq!(context(&scene, 0, 1).unwrap().class, None);
    scene.reload(0, |site, _| site.forks = vec![fork(&[1])]).unwrap();
    scene.lossless(&streams, s(3));
    assert!(sent_since(&mut scene, 0, s(1))[1] > 40 && through(&scene, 0, 1) == Some(1));
    scene.reload(0, |site, _| site.forks.clear()).unwrap();
    scene.lossless(&streams, s(1));
    assert_eq!(sent_since(&mut scene, 0, s(1))[1], 0);
    // What nobody uses any more goes as any context does (R5533-248).
    scene.run(s(700));
    assert!(context(&scene, 0, 1).is_none() && context(&scene, 0, 0).is_some());
}

#[test]
fn a_class_leaves_a_provider_that_is_drained_and_comes_back_when_it_is_restored() {
    let (mut scene, streams) = talking(&plan(), 67);
    scene.nodes[0].engine.steer("isp-0-2", Steering::Drain).unwrap();
    scene.lossless(&streams, s(5));
    assert_eq!(through(&scene, 0, 1), Some(0));
    scene.nodes[0].engine.steer("isp-0-2", Steering::Normal).unwrap();
    scene.lossless(&streams, s(5));
    assert_eq!((through(&scene, 0, 0), through(&scene, 0, 1)), (Some(0), Some(1)));
    // What the operator prefers for all is not for classes, which have their own preference.
    scene.nodes[0].engine.steer("isp-0-1", Steering::Prefer).unwrap();
    scene.lossless(&streams, s(70));
    assert_eq!((through(&scene, 0, 0), through(&scene, 0, 1)), (Some(0), Some(1)));
    let moves = scene.nodes[0].tally("control_pair_changes");
    scene.lossless(&streams, s(200));
    assert_eq!(scene.nodes[0].tally("control_pair_changes"), moves, "it is where it wants to be");
}

#[test]
fn a_forked_context_keeps_the_default_one_of_its_pair() {
    let plan = Plan { shim6: "idle_context_s = 300".into(), ..plan() };
    let mut scene = Scene::new(&plan, 68);
    let first = scene.stream(0, 1, ms(100));
    scene.lossless(&[first], s(1000));
    assert_eq!(scene.nodes[0].contexts(scene.now).len(), 2);
    assert_eq!(scene.nodes[0].count(Count::UnknownPairs), 1, "no packet ever waited again");
    scene.stop(first);
    scene.run(s(700));
    assert_eq!(scene.nodes[0].leftovers(), []);
}
