//! How long whole boxes look for a pair, by the order they try pairs in (RFC 5534 §4.3).

mod common;

use std::time::Duration;

use common::{Scene, ms, s};
use control::engine::Story;
use control::reap::Reason;
use control::sim::{Plan, SitePlan, Way};
use control::time::Instant;
use dataplane::wire::UlidPair;

const BOTH: &[Way] = &[Way::Out, Way::In];

/// How long contexts of box 0 that found out by themselves explored until they moved, on average.
fn mean_search(order: &str, failed: impl Fn(&Scene) -> Vec<usize>, seed: u64) -> (Duration, usize) {
    let site = |hosts| SitePlan { hosts, providers: 3, workers: 1 };
    // Three hosts of ours, and three other sites with as many.
    let plan = Plan { sites: vec![site(3), site(2), site(2), site(2)], send_timeout_s: 10, ..Plan::default() };
    let mut scene = Scene::new(&Plan { order: Some(order.into()), ..plan }, seed);
    let mut streams = Vec::new();
    for ours in 0..3 {
        for theirs in 3..9 {
            streams.extend([scene.stream(ours, theirs, ms(100)), scene.stream(theirs, ours, ms(100))]);
        }
    }
    scene.run(s(20));
    let failed = failed(&scene);
    let since = scene.now;
    failed.into_iter().for_each(|provider| scene.cut(provider, BOTH));
    scene.run(s(45));
    let mut began: Vec<(UlidPair, Instant)> = Vec::new();
    let mut took = Vec::new();
    for (at, site, story) in scene.stories.iter().filter(|(at, ..)| *at >= since) {
        match story {
            Story::Exploring(ulids, _, Reason::SendTimeout) if *site == 0 => began.push((*ulids, *at)),
            Story::Moved(ulids, ..) if *site == 0 => {
                took.extend(began.iter().filter(|(who, _)| who == ulids).map(|(_, began)| at.since(*began)));
                began.retain(|(who, _)| who != ulids);
            }
            _ => {}
        }
    }
    assert!(scene.streams.iter().all(|stream| stream.back(scene.now - s(3)).is_some()), "{order}: not all are back");
    (took.iter().sum::<Duration>() / took.len().max(1) as u32, took.len())
}

#[test]
fn those_who_ask_others_find_a_pair_sooner() {
    // The provider box 0 sends through; the one that a peer's site uses; both.
    let ours = |_: &Scene| vec![0];
    let theirs = |_: &Scene| vec![3];
    let both = |_: &Scene| vec![0, 3];
    type Failed = dyn Fn(&Scene) -> Vec<usize>;
    let faults: [(&str, &Failed); 3] = [("ours", &ours), ("theirs", &theirs), ("both", &both)];
    for (name, failed) in faults {
        let mut means = Vec::new();
        for order in ["preferred", "divergent", "informed"] {
            let runs: Vec<(Duration, usize)> = (0..3).map(|seed| mean_search(order, failed, seed)).collect();
            let contexts: usize = runs.iter().map(|run| run.1).sum();
            assert!(contexts > 0, "{order}, {name}: nobody looked");
            let total: Duration = runs.iter().map(|(mean, contexts)| *mean * *contexts as u32).sum();
            means.push(total / contexts as u32);
        }
        println!("{name}: preferred {:?}, divergent {:?}, informed {:?}", means[0], means[1], means[2]);
        assert!(means[2] < means[1] && means[1] <= means[0], "{name}: {means:?}");
    }
}
