//! Two boxes that exchange liveness of the paths between them.

mod common;

use std::time::Duration;

use common::{Scene, ms, s};
use control::sim::{Plan, ProviderId, SitePlan, StreamId, Way};
use control::time::Instant;

const BOTH: &[Way] = &[Way::Out, Way::In];
const LIVENESS: &str = "[liveness]\nenabled = true\n";
/// Three intervals of 50 ms, the way, and a packet of a stream that goes every 20 ms.
const FAST: Duration = ms(200);

fn plan() -> Plan {
    Plan { sections: LIVENESS.to_owned(), ..Plan::default() }
}

fn tally(scene: &Scene, name: &str) -> u64 {
    scene.nodes.iter().map(|node| node.tally(name)).sum()
}

/// Two hosts that talk, whose contexts have standbys and whose path is watched.
fn watched(plan: &Plan, seed: u64) -> (Scene, [StreamId; 2]) {
    let (mut scene, streams) = Scene::talking(plan, seed);
    scene.run(s(3));
    for site in 0..2 {
        assert!(scene.context(site).standby.is_some());
        assert_eq!(states(&scene, site).iter().filter(|state| *state == "up").count(), 1, "{:?}", states(&scene, site));
    }
    (scene, streams)
}

/// What the sessions of a site say.
fn states(scene: &Scene, site: usize) -> Vec<String> {
    let view = scene.nodes[site].engine.paths_view(scene.now);
    view.paths.into_iter().filter_map(|path| path.liveness.map(|it| it.state)).collect()
}

/// The longest time in which nothing of a stream arrived.
fn silence(scene: &Scene, stream: StreamId, since: Instant) -> Duration {
    let mut last = since;
    let mut longest = Duration::ZERO;
    for arrival in &scene.streams[stream].arrivals {
        let at = arrival.at;
        if at >= since {
            longest = longest.max(at.since(last));
            last = at;
        }
    }
    longest.max(scene.now.since(last))
}

#[test]
fn a_silent_cut_is_passed_in_less_than_two_tenths_of_a_second() {
    for (seed, ways) in [(1, BOTH), (2, &[Way::Out][..]), (3, &[Way::In]), (4, BOTH), (5, BOTH)] {
        let (mut scene, streams) = watched(&plan(), seed);
        let (since, provider) = (scene.now, scene.in_use(0));
        scene.cut(provider, ways);
        scene.run(s(20));
        for stream in streams {
            let took = silence(&scene, stream, since);
            assert!(took < FAST, "seed {seed}, {ways:?}: {took:?}");
        }
        assert_ne!(scene.in_use(0), provider);
        scene.lossless(&streams, s(5));
    }
}
