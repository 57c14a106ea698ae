//! Short lives in which the operator changes things while the network has its troubles: providers are drained, taken away
//! and put back, hosts come and go, links fall. Whatever was done, when all is as it was planned the sessions are there.

mod common;

use std::time::Duration;

use common::{Scene, ms, s};
use control::config::{Hosts, Site};
use control::manage::api::Steering;
use control::sim::{Plan, SiteId, SitePlan, Way};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How many lives. A seed that once failed is added to [`KNOWN`].
const SEEDS: u64 = 60;
/// Seeds that found something once.
const KNOWN: &[u64] = &[21];
const SITES: usize = 2;

fn upto(rng: &mut StdRng, bound: usize) -> usize {
    rng.next_u32() as usize % bound
}

/// A site serves the hosts and uses the providers with these numbers. False if the box refused.
fn configure(scene: &mut Scene, site: SiteId, planned: &(Site, Hosts), providers: &[usize], hosts: &[usize]) -> bool {
    let changed = scene.reload(site, |configured, served| {
        configured.providers = providers.iter().map(|at| planned.0.providers[*at].clone()).collect();
        let all: Vec<_> = planned.1.iter().cloned().collect();
        *served.list_mut() = hosts.iter().map(|at| all[*at].clone()).collect();
        for host in served.list_mut() {
            let locators = &host.identity.locators;
            host.identity.locators = providers.iter().map(|at| locators[*at]).collect();
        }
    });
    changed.is_ok()
}

/// Some of the numbers below `count`, at least `least` of them.
fn some(rng: &mut StdRng, count: usize, least: usize) -> Vec<usize> {
    loop {
        let chosen: Vec<usize> = (0..count).filter(|_| upto(rng, 3) > 0).collect();
        if chosen.len() >= least {
            return chosen;
        }
    }
}

fn live(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let workers = 1 + upto(&mut rng, 2) as u8;
    let strict = upto(&mut rng, 3) == 0;
    let plan = Plan {
        sites: vec![SitePlan { hosts: 2, providers: 3, workers }; SITES],
        shim6: format!("strict_locators = {strict}"),
        ..Plan::default()
    };
    let mut scene = Scene::new(&plan, seed);
    let planned: Vec<(Site, Hosts)> = (0..SITES)
        .map(|site| {
            let (configured, hosts) = scene.nodes[site].configuration();
            (configured.clone(), hosts.clone())
        })
        .collect();
    let pairs = [(0, 2), (2, 0), (1, 3), (3, 1), (0, 3)];
    let streams = pairs.map(|(from, to)| scene.stream(from, to, ms(100)));
    for _ in 0..2 + upto(&mut rng, 14) {
        scene.run(ms(upto(&mut rng, 8000) as u64));
        let (site, provider) = (upto(&mut rng, SITES), upto(&mut rng, 3 * SITES));
        match upto(&mut rng, 10) {
            0..4 => {
                let wanted = Steering::ALL[upto(&mut rng, Steering::ALL.len())].0;
                let name = format!("isp-{site}-{}", 1 + upto(&mut rng, 3));
                // Refused when it is the last one, or is not there now.
                let _ = scene.nodes[site].engine.steer(&name, wanted);
            }
            4 | 5 => {
                let (providers, hosts) = (some(&mut rng, 3, 1), some(&mut rng, 2, 0));
                assert!(configure(&mut scene, site, &planned[site], &providers, &hosts));
            }
            6 => scene.link_state(site, 1 + upto(&mut rng, 3), upto(&mut rng, 2) == 0),
            7 => scene.cut(provider, &[Way::Out, Way::In][..1 + upto(&mut rng, 2)]),
            8 => scene.heal(provider),
            _ => {
                let (loss, jitter) = (upto(&mut rng, 10) as u32, ms(upto(&mut rng, 30) as u64));
                scene.all_legs(|leg| (leg.loss, leg.jitter) = (loss, jitter));
            }
        }
        scene.nodes.iter().for_each(|node| node.selfcheck());
    }
    for (site, plan) in planned.iter().enumerate() {
        assert!(configure(&mut scene, site, plan, &[0, 1, 2], &[0, 1]));
        for provider in 1..=3 {
            scene.link_state(site, provider, true);
            scene.nodes[site].engine.steer(&format!("isp-{site}-{provider}"), Steering::Normal).unwrap();
        }
    }
    (0..3 * SITES).for_each(|provider| scene.heal(provider));
    scene.all_legs(|leg| (leg.loss, leg.jitter) = (0, Duration::ZERO));
    // As in `seeds`: five I1s in vain, and the pair left alone for a minute.
    scene.until_back(&streams, s(190));
    // The longest wait for a repeated request (R5533-255), and what goes with providers that were on their way out.
    scene.run(s(190));
    scene.lossless(&streams, s(5));
    for site in 0..SITES {
        for context in scene.nodes[site].contexts(scene.now) {
            assert_eq!((context.local_locators.len(), context.peer_locators.len()), (3, 3), "{context:?}");
        }
        assert_eq!(scene.nodes[site].engine.providers_view().len(), 3);
    }
}

#[test]
fn whatever_the_operator_did_sessions_come_back() {
    // R5533-004, R5533-018, R5533-255, R5533-257, R5533-272
    for seed in (0..SEEDS).chain(KNOWN.iter().copied()) {
        live(seed);
    }
}

#[test]
fn a_drained_provider_is_left_by_a_thousand_contexts() {
    // All at the common pace, and nobody else's packets are lost.
    let sites = vec![SitePlan { hosts: 32, ..SitePlan::default() }; SITES];
    let mut scene = Scene::new(&Plan { sites, contexts_max: 4096, ..Plan::default() }, 7);
    let mut streams = Vec::new();
    for from in 0..32 {
        for to in 0..32 {
            streams.push(scene.stream(from, 32 + to, ms(500)));
        }
    }
    scene.run(s(6));
    let counts = |scene: &Scene| -> Vec<u64> {
        scene.nodes[0].engine.providers_view().iter().map(|provider| provider.contexts).collect()
    };
    assert_eq!(counts(&scene).iter().sum::<u64>(), 1024);
    let used = usize::from(counts(&scene)[1] > 512);
    scene.nodes[0].engine.steer(&format!("isp-0-{}", used + 1), Steering::Drain).unwrap();
    let began = scene.now;
    let empty = |world: &control::sim::World| {
        let views = world.nodes[0].engine.providers_view();
        views[used].contexts == 0
    };
    let left = scene.run_until(s(60), empty);
    assert!(left.is_some_and(|at| at.since(began) < s(10)), "{left:?}");
    scene.lossless(&streams, s(5));
    let until = scene.now - s(1);
    assert!(streams.iter().all(|stream| scene.streams[*stream].missing(began, until) == 0));
}
