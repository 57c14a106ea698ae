//! Short lives of small worlds whose boxes offer UDP, in which everything random goes wrong and paths begin and cease to drop what
//! has a Shim6 header. Whatever happened, once the network works again but for that, so do the sessions.

mod common;

use std::time::Duration;

use common::{Scene, ms, s};
use control::sim::{Plan, SitePlan, StreamId, Way};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SEEDS: u64 = 100;

fn upto(rng: &mut StdRng, bound: u32) -> u32 {
    rng.next_u32() % bound
}

fn plan(rng: &mut StdRng) -> Plan {
    let mut site = || SitePlan {
        hosts: 1 + upto(rng, 3) as u16,
        providers: 1 + upto(rng, 3) as u16,
        workers: [1, 1, 2, 3][upto(rng, 4) as usize],
    };
    let mut sites = vec![site(), site()];
    if upto(rng, 4) == 0 {
        let third = SitePlan { hosts: 1, providers: 1 + upto(rng, 2) as u16, workers: 1 };
        sites.push(third);
    }
    let strict = upto(rng, 4) == 0;
    Plan {
        sites,
        send_timeout_s: [3, 3, 5, 15][upto(rng, 4) as usize],
        shim6: format!("strict_locators = {strict}"),
        ..Plan::default()
    }
}

/// Some streams between hosts of different sites, at different paces.
fn streams(scene: &mut Scene, rng: &mut StdRng) -> Vec<StreamId> {
    let hosts = scene.hosts.len();
    let mut streams = Vec::new();
    while streams.len() < 2 + upto(rng, 5) as usize {
        let (from, to) = (upto(rng, hosts as u32) as usize, upto(rng, hosts as u32) as usize);
        if scene.hosts[from].site != scene.hosts[to].site {
            let interval = ms([20, 50, 200, 1000][upto(rng, 4) as usize]);
            streams.push(scene.stream(from, to, interval));
        }
    }
    streams
}

/// Something happens to the network, or to a box.
fn trouble(scene: &mut Scene, rng: &mut StdRng) {
    let provider = upto(rng, scene.providers.len() as u32) as usize;
    let way = [Way::Out, Way::In][upto(rng, 2) as usize];
    let amount = upto(rng, 30);
    match upto(rng, 10) {
        0 => scene.cut(provider, &[Way::Out, Way::In]),
        1 => scene.cut(provider, &[way]),
        2 | 3 => scene.heal(provider),
        4 => scene.leg(provider, way).loss = amount,
        5 => scene.leg(provider, way).duplicates = amount,
        6 => scene.leg(provider, way).jitter = ms(u64::from(amount) * 3),
        7 => scene.leg(provider, way).delay = ms(u64::from(amount) * 10),
        8 => scene.providers[provider].router_up = amount > 5,
        _ => {
            let site = upto(rng, scene.nodes.len() as u32) as usize;
            scene.restart(site);
        }
    }
}

/// The network becomes what it was.
fn mend(scene: &mut Scene) {
    for provider in 0..scene.providers.len() {
        scene.heal(provider);
        scene.providers[provider].router_up = true;
    }
    scene.all_legs(|leg| (leg.loss, leg.duplicates, leg.jitter, leg.delay) = (0, 0, Duration::ZERO, ms(5)));
}

/// A path begins to drop what has a Shim6 header, or ceases to; that is not mended: it does not count as trouble.
fn drop_headers(scene: &mut Scene, rng: &mut StdRng) {
    let provider = upto(rng, scene.providers.len() as u32) as usize;
    let way = [Way::Out, Way::In][upto(rng, 2) as usize];
    match upto(rng, 6) {
        0 | 1 => scene.leg(provider, way).drops_shim6 = true,
        2 => {
            scene.leg(provider, Way::Out).drops_shim6 = true;
            scene.leg(provider, Way::In).drops_shim6 = true;
        }
        3 => scene.all_legs(|leg| leg.drops_shim6 = true),
        4 => scene.leg(provider, way).drops_shim6 = false,
        _ => scene.all_legs(|leg| leg.drops_shim6 = false),
    }
}

fn live(seed: u64) -> u64 {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut plan = plan(&mut rng);
    plan.shim6 += "\nudp_encapsulation = true";
    if upto(&mut rng, 3) == 0 {
        plan.shim6 += "\nflow_label = \"all\"";
    }
    let mut scene = Scene::new(&plan, seed);
    if upto(&mut rng, 4) == 0 {
        drop_headers(&mut scene, &mut rng);
    }
    let streams = streams(&mut scene, &mut rng);
    for _ in 0..upto(&mut rng, 12) {
        scene.run(ms(u64::from(upto(&mut rng, 4000))));
        trouble(&mut scene, &mut rng);
        drop_headers(&mut scene, &mut rng);
        scene.nodes.iter().for_each(|node| node.selfcheck());
    }
    mend(&mut scene);
    // The longest wait there is: an exchange whose five I1s were all sent in vain doubles its wait each time (4 s to
    // 64 s) and the pair is then left alone for 60 s (R5533-145, R5533-300): 184 s. The first I1 after that may need UDP, which
    // comes with the second.
    scene.until_back(&streams, s(200));
    // Then all of it comes to rest: no second outage, and no second context for a pair. A box whose I2bis met a peer that
    // restarted once more sends it in vain for 28 s before it begins anew (R5533-214), and may lose a packet then.
    scene.run(s(45));
    scene.lossless(&streams, s(5));
    for node in &scene.nodes {
        let contexts = node.contexts(scene.now);
        let mut pairs: Vec<_> = contexts.iter().map(|context| (context.ulid_local, context.ulid_peer)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!(pairs.len(), contexts.len());
    }
    scene.nodes.iter().map(|node| node.tally("control_udp_begun")).sum()
}

#[test]
fn whatever_happened_sessions_come_back_with_the_header_or_in_udp() {
    let begun: u64 = (0..SEEDS).map(live).sum();
    assert!(begun > SEEDS, "UDP was needed {begun} times");
}
