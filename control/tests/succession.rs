//! A new process takes a box's place (docs/decisions: succession), and neither hosts nor peers can tell.

mod common;

use common::{Scene, ms, s};
use control::sim::{Plan, SiteId, SitePlan, Way};
use control::time::Instant;

const BOTH: &[Way] = &[Way::Out, Way::In];

/// A box gives way to another process that is told everything while things go on.
fn succeed(scene: &mut Scene, site: SiteId) {
    scene.begin_succession(site);
    scene.run(ms(500));
    scene.end_succession(site);
}

/// Messages by which peers would notice: everything but what REAP says in the course of things.
fn noticed(scene: &Scene, since: Instant) -> Vec<(SiteId, String)> {
    let of_reap = |kind: &str| matches!(kind, "Probe" | "Keepalive");
    scene.messages(since).into_iter().filter(|(_, kind)| !of_reap(kind)).collect()
}

// R5533-124, R5533-126: the tag stays the context's own.
#[test]
fn sessions_go_on_and_no_packet_is_lost() {
    for seed in 0..6 {
        let workers = [1, 2][seed as usize % 2];
        let standby = seed >= 4;
        let plan = Plan { sites: vec![SitePlan { workers, ..SitePlan::default() }; 2], standby, ..Plan::default() };
        let (mut scene, streams) = Scene::talking(&plan, seed);
        let (before, since) = (scene.context(0), scene.now);
        for site in [0, 1, 0] {
            succeed(&mut scene, site);
            scene.lossless(&streams, s(3));
        }
        let after = scene.context(0);
        assert_eq!(
            (before.local_tag, before.peer_tag, before.current),
            (after.local_tag, after.peer_tag, after.current)
        );
        scene.check_mirrored();
        // Standbys are tested anew, by Update Requests that say nothing new.
        assert!(standby || noticed(&scene, since).is_empty(), "{:?}", noticed(&scene, since));
        assert_eq!(scene.nodes[0].tally("control_inherited"), 1);
        assert_eq!(scene.nodes[0].tally("control_inherited_not"), 0);
    }
}

// R5534-020: what succeeds another box finds failures as that would have.
#[test]
fn a_provider_that_fails_afterwards_is_left() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 1);
    succeed(&mut scene, 0);
    let used = scene.in_use(0);
    scene.cut(used, BOTH);
    let took = scene.until_back(&streams, s(20));
    assert!(took < s(6), "{took:?}");
    assert_ne!(scene.in_use(0), used);
}

#[test]
fn a_provider_that_fails_meanwhile_is_left() {
    for (seed, after) in [(1, 0), (2, 200), (3, 2500), (4, 3500)] {
        let (mut scene, streams) = Scene::talking(&Plan { standby: false, ..Plan::default() }, seed);
        let used = scene.in_use(0);
        scene.cut(used, BOTH);
        scene.run(ms(after));
        succeed(&mut scene, 0);
        let took = scene.until_back(&streams, s(20));
        assert!(took < s(8), "cut {after} ms before: {took:?}");
    }
}

#[test]
fn what_changes_meanwhile_is_told_too() {
    let sites = vec![SitePlan { hosts: 3, ..SitePlan::default() }; 2];
    let mut scene = Scene::new(&Plan { sites, standby: false, ..Plan::default() }, 3);
    let mut streams = vec![scene.stream(0, 3, ms(20)), scene.stream(3, 0, ms(20))];
    scene.run(s(2));
    scene.begin_succession(0);
    // A context that comes, and one that moves.
    streams.extend([scene.stream(1, 4, ms(20)), scene.stream(5, 2, ms(20))]);
    let used = scene.nodes[0].contexts(scene.now)[0].current.and_then(|it| scene.provider_of(it.local)).unwrap();
    scene.run(s(1));
    scene.cut(used, BOTH);
    scene.until_back(&streams, s(20));
    scene.heal(used);
    let (since, known) = (scene.now, scene.nodes[0].contexts(scene.now).len());
    scene.end_succession(0);
    assert_eq!(scene.nodes[0].contexts(scene.now).len(), known);
    scene.lossless(&streams, s(3));
    assert_eq!(noticed(&scene, since), []);
}

// R5533-175: a peer that was given an R1 brings its validator to the new process.
#[test]
fn a_handshake_under_way_ends_with_the_new_process() {
    let mut completed = 0;
    for step in 0..12 {
        let mut scene = Scene::new(&Plan::default(), step);
        scene.run(s(1));
        scene.begin_succession(1);
        scene.run(ms(100));
        let stream = scene.stream(0, 1, ms(20));
        scene.run(ms(4 * step));
        scene.end_succession(1);
        let took = scene.until_back(&[stream], s(20));
        completed += usize::from(took < ms(900));
    }
    assert!(completed >= 10, "only {completed} of 12 without a retransmission");
}

// What the operator said of a provider holds on.
#[test]
fn a_drained_provider_stays_drained() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 5);
    let used = scene.in_use(0);
    let name = scene.nodes[0].site().providers[used].name.clone();
    scene.nodes[0].engine.steer(&name, control::manage::api::Steering::Drain).unwrap();
    scene.run(s(3));
    let other = scene.in_use(0);
    assert_ne!(other, used);
    succeed(&mut scene, 0);
    scene.lossless(&streams, s(3));
    assert_eq!(scene.in_use(0), other);
    assert_eq!(scene.nodes[0].engine.providers_view()[used].steering, control::manage::api::Steering::Drain);
}

// R5533-272, D12: news that peers have not acknowledged is told again, with the generation that follows.
#[test]
fn news_that_was_not_acknowledged_is_told_by_the_new_process() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 6);
    for provider in 0..4 {
        scene.cut(provider, BOTH);
    }
    scene.reload(0, |site, _| _ = site.providers.pop()).unwrap();
    succeed(&mut scene, 0);
    let since = scene.now;
    (0..4).for_each(|provider| scene.heal(provider));
    scene.until_back(&streams, s(60));
    scene.run(s(40));
    let told = scene.messages(since);
    assert!(told.contains(&(0, "UpdateRequest".to_owned())), "{told:?}");
    assert!(told.contains(&(1, "UpdateAck".to_owned())), "{told:?}");
}

#[test]
fn who_has_other_workers_takes_no_contexts_and_peers_bring_them_back() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 7);
    scene.begin_succession_with(0, |site, _| site.node.workers = 3);
    scene.run(ms(500));
    scene.end_succession(0);
    let took = scene.until_back(&streams, s(20));
    assert!(took < s(5), "{took:?}");
    scene.check_mirrored();
}

#[test]
fn a_host_that_went_meanwhile_is_gone() {
    let plan = Plan { sites: vec![SitePlan { hosts: 2, ..SitePlan::default() }; 2], ..Plan::default() };
    let mut scene = Scene::new(&plan, 8);
    let streams = [scene.stream(0, 2, ms(20)), scene.stream(1, 3, ms(20))];
    scene.run(s(2));
    scene.begin_succession(0);
    scene.run(s(1));
    let gone = scene.hosts[0].ulid;
    scene.reload(0, |_, hosts| hosts.list_mut().retain(|host| host.identity.ulid.0 != gone)).unwrap();
    scene.run(ms(100));
    scene.end_succession(0);
    scene.lossless(&streams[1..], s(2));
    assert_eq!(scene.nodes[0].contexts(scene.now).iter().filter(|it| it.ulid_local == gone).count(), 0);
}
