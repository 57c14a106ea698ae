//! Waiting that ends early: who gave up hears that what was dead is alive (RFC 5533 §7.8, RFC 5534 §4.3).

mod common;

use common::{Scene, ms, s};
use control::engine::Story;
use control::sim::{Plan, SitePlan, Way};
use control::time::Instant;

const BOTH: &[Way] = &[Way::Out, Way::In];

fn two_hosts() -> Plan {
    Plan { sites: vec![SitePlan { hosts: 2, ..SitePlan::default() }; 2], ..Plan::default() }
}

/// Control messages of a kind that site 0 sent since then.
fn sent(scene: &Scene, kind: &str, since: Instant) -> usize {
    scene.messages(since).iter().filter(|(site, it)| (*site, it.as_str()) == (0, kind)).count()
}

// R5533-145: hold-downs are at most as long as the RFC says.
#[test]
fn a_peer_heard_again_ends_back_off_and_hold_down() {
    // 20 s: I1s go out ever more slowly; 130 s: the exchange has failed, and the pair is held down.
    for (down, failed) in [(20, false), (40, false), (70, false), (170, true), (200, true)] {
        let mut scene = Scene::new(&two_hosts(), down);
        [2, 3].into_iter().for_each(|provider| scene.cut(provider, BOTH));
        let waiting = scene.stream(0, 2, ms(20));
        scene.run(s(down));
        let has_failed = scene.stories.iter().any(|(_, site, story)| *site == 0 && matches!(story, Story::Failed(..)));
        assert_eq!(has_failed, failed, "after {down} s");
        [2, 3].into_iter().for_each(|provider| scene.heal(provider));
        scene.run(s(1));
        // Another host of the peer's site talks to another host of ours.
        scene.stream(3, 1, ms(20));
        let took = scene.until_back(&[waiting], s(200));
        assert!(took < s(2), "down for {down} s: {took:?}");
        assert!(failed || scene.nodes[0].tally("control_retried_early") > 0);
        scene.lossless(&[waiting], s(2));
    }
}

#[test]
fn a_link_that_is_back_ends_back_off_of_exchanges_and_explorations() {
    let mut scene = Scene::new(&two_hosts(), 1);
    let talking = [scene.stream(0, 2, ms(20)), scene.stream(2, 0, ms(20))];
    scene.run(s(2));
    for port in [1, 2] {
        scene.cut(port - 1, BOTH);
        scene.link_state(0, port, false);
    }
    let waiting = scene.stream(1, 3, ms(20));
    scene.run(s(110));
    scene.heal(1);
    scene.link_state(0, 2, true);
    let took = scene.until_back(&[talking[0], talking[1], waiting], s(200));
    assert!(took < s(1), "{took:?}");
    assert!(scene.nodes[0].tally("control_retried_early") >= 2);
}

// R5533-155: two that ask for each other while nothing gets through, and then both wait.
#[test]
fn two_that_wait_for_each_other_are_ready_when_the_first_i1_arrives() {
    for seed in 0..8 {
        let mut scene = Scene::new(&Plan::default(), seed);
        [0, 1].into_iter().for_each(|provider| scene.cut(provider, BOTH));
        let streams = [scene.stream(0, 1, ms(20)), scene.stream(1, 0, ms(20))];
        scene.run(s(60));
        let since = scene.now;
        [0, 1].into_iter().for_each(|provider| scene.heal(provider));
        let arrived = scene.run_until(s(120), |world| {
            world.captured.iter().any(|it| it.at >= since && format!("{:?}", it.message).starts_with("R"))
        });
        assert!(arrived.is_some());
        let took = scene.until_back(&streams, s(120));
        assert!(took < ms(600), "seed {seed}: {took:?}");
        scene.run(s(1));
        scene.check_mirrored();
    }
}

#[test]
fn a_dead_host_of_a_living_site_is_left_alone() {
    // Its peers still know the host, and its own box does not any more: nobody answers for it.
    let mut scene = Scene::new(&two_hosts(), 3);
    let others = [scene.stream(1, 3, ms(20)), scene.stream(3, 1, ms(20))];
    scene.run(s(2));
    let dead = scene.hosts[2].ulid;
    let since = scene.now;
    scene.reload(1, |_, hosts| hosts.list_mut().retain(|host| host.identity.ulid.0 != dead)).unwrap();
    scene.stream(0, 2, ms(20));
    scene.run(s(300));
    // Five I1s in two minutes, a minute of rest, and again (R5533-143, R5533-145): the same as without the other hosts.
    let tries = sent(&scene, "I1", since);
    assert!((8..=15).contains(&tries), "{tries}");
    scene.lossless(&others, s(2));
}
