//! The operator, or a link that is down, says which providers contexts should use.

mod common;

use std::time::Duration;

use common::{Scene, ms, s};
use control::engine::{SteerRefused, Story};
use control::manage::api::Steering;
use control::reap::Reason;
use control::sim::{Plan, ProviderId, SitePlan, Way};
use control::time::Instant;
use dataplane::wire::shim6::{Message, Preference};

const BOTH: &[Way] = &[Way::Out, Way::In];

/// The name and the number at its site of a provider of the world.
fn steer(scene: &mut Scene, provider: ProviderId, steering: Steering) -> Result<(), SteerRefused> {
    let (site, port) = (scene.providers[provider].site, scene.providers[provider].port);
    scene.nodes[site].engine.steer(&format!("isp-{site}-{port}"), steering)
}

/// The preferences that Update Requests of a site told since, with the number of locators in each.
fn told(scene: &Scene, site: usize, since: Instant) -> Vec<Vec<Preference>> {
    let sent = scene.captured.iter().filter(|sent| sent.at >= since && scene.providers[sent.provider].site == site);
    let preferences = sent.filter_map(|sent| match &sent.message {
        Message::UpdateRequest { options, .. } => options.preferences.as_ref().map(|told| told.elements.clone()),
        _ => None,
    });
    preferences.collect()
}

/// Where the only context of a site sends to, as a provider of the other.
fn sends_to(scene: &Scene, site: usize) -> ProviderId {
    let peer = scene.context(site).current.expect("an established context has a pair").peer;
    scene.provider_of(peer).expect("a locator of a provider")
}

#[test]
fn draining_moves_both_directions_and_loses_nothing() {
    // R5533-018, R5533-110, R5533-111, R5533-249, R5533-272
    for drained in 0..4 {
        let (mut scene, streams) = Scene::talking(&Plan::default(), 40 + drained as u64);
        let (site, other) = (drained / 2, 1 - drained / 2);
        let was_used = [scene.in_use(site) == drained, sends_to(&scene, other) == drained];
        let since = scene.now;
        steer(&mut scene, drained, Steering::Drain).unwrap();
        scene.lossless(&streams, s(20));
        assert_ne!(scene.in_use(site), drained, "our own choice");
        assert_ne!(sends_to(&scene, other), drained, "the peer's choice");
        let sent = told(&scene, site, since);
        let [elements] = &sent[..] else { panic!("one request is enough: {sent:?}") };
        let broken: Vec<bool> = elements.iter().map(|it| it.flags == Preference::BROKEN).collect();
        assert_eq!(broken, [drained % 2 == 0, drained % 2 == 1]);
        assert!(elements.iter().all(|it| it.priority.is_some() && it.weight.is_some()), "elements of length 3");
        // Nobody moves without an exploration, that is, before a probe was answered.
        for moved in [(site, was_used[0]), (other, was_used[1])] {
            let explored = scene.stories.iter().any(|(at, where_, story)| {
                *at >= since && *where_ == moved.0 && matches!(story, Story::Exploring(_, _, Reason::LocatorLost))
            });
            assert!(explored || !moved.1, "{moved:?}");
        }
        scene.check_mirrored();
        // Restoring tells the peer, and moves nobody.
        let (since, used) = (scene.now, scene.in_use(site));
        steer(&mut scene, drained, Steering::Normal).unwrap();
        scene.lossless(&streams, s(20));
        assert!(told(&scene, site, since).iter().flatten().all(|it| it.flags == 0));
        assert_eq!((told(&scene, site, since).len(), scene.in_use(site)), (1, used));
    }
}

#[test]
fn a_drained_provider_is_used_when_nothing_else_works() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 50);
    let drained = scene.in_use(0);
    let other = 1 - drained;
    steer(&mut scene, drained, Steering::Drain).unwrap();
    scene.run(s(5));
    assert_eq!(scene.in_use(0), other);
    scene.cut(other, BOTH);
    let took = scene.until_back(&streams, s(20));
    assert!(took < s(6), "{took:?}");
    assert_eq!(scene.in_use(0), drained);
}

#[test]
fn the_last_provider_cannot_be_drained() {
    let (mut scene, _) = Scene::talking(&Plan::default(), 51);
    steer(&mut scene, 0, Steering::Drain).unwrap();
    assert_eq!(steer(&mut scene, 1, Steering::Drain), Err(SteerRefused::Last("isp-0-2".into())));
    let unknown = scene.nodes[0].engine.steer("isp-9", Steering::Avoid);
    assert_eq!(unknown, Err(SteerRefused::Unknown("isp-9".into())));
    scene.nodes[0].engine.steer("isp-0-1", Steering::Normal).unwrap();
    steer(&mut scene, 1, Steering::Drain).unwrap();
}

#[test]
fn preferring_moves_contexts_and_avoiding_only_new_ones() {
    let plan = Plan {
        sites: vec![SitePlan { hosts: 1, ..SitePlan::default() }, SitePlan { hosts: 2, ..SitePlan::default() }],
        ..Plan::default()
    };
    let mut scene = Scene::new(&plan, 52);
    let first = scene.stream(0, 1, ms(20));
    scene.run(s(2));
    let used = scene.in_use(0);
    let other = 1 - used;
    steer(&mut scene, used, Steering::Avoid).unwrap();
    scene.lossless(&[first], s(10));
    assert_eq!(scene.in_use(0), used, "it stays");
    let second = scene.stream(0, 2, ms(20));
    scene.run(s(2));
    let second_ulid = scene.hosts[2].ulid;
    let through = |scene: &Scene, ulid| {
        let contexts = scene.nodes[0].contexts(scene.now);
        let context = contexts.iter().find(|context| context.ulid_peer == ulid).expect("a context");
        scene.provider_of(context.current.expect("a pair").local)
    };
    assert_eq!(through(&scene, second_ulid), Some(other), "a new one begins elsewhere");
    steer(&mut scene, used, Steering::Normal).unwrap();
    scene.run(s(1));
    steer(&mut scene, other, Steering::Prefer).unwrap();
    scene.lossless(&[first, second], s(10));
    let first_ulid = scene.hosts[1].ulid;
    assert_eq!(through(&scene, first_ulid), Some(other), "preferred");
}

#[test]
fn a_link_that_is_down_is_told_as_broken_and_mended_later() {
    // R5533-017: no Send Timeout has to pass at the other end before it stops sending there.
    let mut pauses = Vec::new();
    for announce in [true, false] {
        let plan = Plan { shim6: format!("announce_down = {announce}"), send_timeout_s: 15, ..Plan::default() };
        let (mut scene, streams) = Scene::talking(&plan, 53);
        let failed = scene.in_use(0);
        let port = scene.providers[failed].port;
        let since = scene.now;
        scene.cut(failed, BOTH);
        scene.link_state(0, port, false);
        pauses.push(scene.until_back(&streams, s(60)));
        scene.run(s(20));
        let sent = told(&scene, 0, since);
        assert_eq!(sent.iter().flatten().any(|it| it.flags == Preference::BROKEN), announce, "{sent:?}");
        let since = scene.now;
        scene.heal(failed);
        scene.link_state(0, port, true);
        scene.lossless(&streams, s(9));
        assert_eq!(told(&scene, 0, since), Vec::<Vec<Preference>>::new(), "it might go down again");
        scene.lossless(&streams, s(9));
        let sent = told(&scene, 0, since);
        assert_eq!((sent.len(), sent.iter().flatten().all(|it| it.flags == 0)), (usize::from(announce), true));
    }
    assert!(pauses[0] < s(2), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause < Duration::from_secs(20)), "{pauses:?}");
}

#[test]
fn a_provider_told_broken_is_mended_whatever_the_setting_is_by_then() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 53);
    let failed = scene.in_use(0);
    let port = scene.providers[failed].port;
    scene.cut(failed, BOTH);
    scene.link_state(0, port, false);
    scene.until_back(&streams, s(60));
    scene.reload(0, |site, _| site.shim6.announce_down = false).unwrap();
    let since = scene.now;
    scene.heal(failed);
    scene.link_state(0, port, true);
    scene.run(s(20));
    let sent = told(&scene, 0, since);
    assert!(sent.iter().flatten().count() > 0 && sent.iter().flatten().all(|it| it.flags == 0), "{sent:?}");
}

#[test]
fn a_link_that_flaps_costs_one_request() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 54);
    let idle = scene.providers[1 - scene.in_use(0)].port;
    let since = scene.now;
    for _ in 0..20 {
        scene.link_state(0, idle, false);
        scene.run(ms(500));
        scene.link_state(0, idle, true);
        scene.run(ms(500));
    }
    assert_eq!(told(&scene, 0, since).len(), 1);
    scene.lossless(&streams, s(15));
    assert_eq!(told(&scene, 0, since).len(), 2);
}

#[test]
fn contexts_that_explore_already_leave_a_drained_provider_too() {
    // An exploration that began for something else must not end where nobody should be.
    for seed in 100..130 {
        let (mut scene, _) = Scene::talking(&Plan::default(), seed);
        scene.all_legs(|leg| (leg.jitter, leg.loss) = (ms(15), 5));
        for round in 0..6 {
            let drained = scene.in_use(0);
            // The peer looks around at the same time, or a moment before or after.
            let other = 2 + (seed as usize + round) % 2;
            let first = [Steering::Drain, Steering::Prefer][round % 2];
            steer(&mut scene, other, first).unwrap();
            scene.run(ms(seed % 7 * 10));
            steer(&mut scene, drained, Steering::Drain).unwrap();
            let left = |world: &control::sim::World| {
                let pairs = [0, 1].map(|site| world.nodes[site].contexts(world.now)[0].current.unwrap());
                let through = |address| world.provider_of(address) == Some(drained);
                !through(pairs[0].local) && !through(pairs[1].peer)
            };
            let limit = s(30);
            assert!(scene.run_until(limit, left).is_some(), "seed {seed}, round {round}: {drained} is still in use");
            steer(&mut scene, drained, Steering::Normal).unwrap();
            steer(&mut scene, other, Steering::Normal).unwrap();
            scene.run(ms(500));
        }
    }
}
