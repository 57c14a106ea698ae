//! Short lives of small worlds whose boxes offer UDP, in which everything random goes wrong and paths begin and cease to drop what
//! has a Shim6 header. Whatever happened, once the network works again but for that, so do the sessions.

mod common;

use common::lives::{mend, plan, streams, trouble, upto};
use common::{Scene, ms, s};
use control::sim::Way;
use rand::SeedableRng;
use rand::rngs::StdRng;

const SEEDS: u64 = 100;

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
