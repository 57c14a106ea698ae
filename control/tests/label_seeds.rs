//! Short lives of small worlds whose boxes carry contexts in flow labels, in which everything random goes wrong and labels do
//! not always arrive. Whatever happened, once the network works again so do the sessions, by label or by header.

mod common;

use common::lives::{mend, plan, streams, trouble, upto};
use common::{Scene, ms, s};
use control::sim::Way;
use rand::SeedableRng;
use rand::rngs::StdRng;

const SEEDS: u64 = 100;

/// Something happens to flow labels, and is not mended: it does not count as trouble.
fn relabel(scene: &mut Scene, rng: &mut StdRng) {
    let provider = upto(rng, scene.providers.len() as u32) as usize;
    let way = [Way::Out, Way::In][upto(rng, 2) as usize];
    let leg = scene.leg(provider, way);
    match upto(rng, 4) {
        0 => leg.shim6_only = true,
        1 => leg.zeroes_labels = true,
        _ => (leg.shim6_only, leg.zeroes_labels) = (false, false),
    }
}

fn live(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut plan = plan(&mut rng);
    plan.shim6 += ["\nflow_label = \"all\"", "\nflow_label = \"unlabelled\""][upto(&mut rng, 2) as usize];
    plan.plain.extend((upto(&mut rng, 5) == 0).then_some(1));
    let mut scene = Scene::new(&plan, seed);
    let streams = streams(&mut scene, &mut rng);
    for stream in &streams {
        scene.streams[*stream].flow_label = upto(&mut rng, 2) * upto(&mut rng, 1 << 20);
    }
    for _ in 0..upto(&mut rng, 12) {
        scene.run(ms(u64::from(upto(&mut rng, 4000))));
        trouble(&mut scene, &mut rng);
        relabel(&mut scene, &mut rng);
        scene.nodes.iter().for_each(|node| node.selfcheck());
    }
    mend(&mut scene);
    // The longest wait there is: an exchange whose five I1s were all sent in vain doubles its wait each time (4 s to
    // 64 s) and the pair is then left alone for 60 s (R5533-145, R5533-300): 184 s.
    scene.until_back(&streams, s(190));
    // Then all of it comes to rest: no second outage, and no second context for a pair. A box whose I2bis met a peer that
    // restarted once more sends it in vain for 28 s before it begins anew (R5533-214), and may lose a packet then.
    scene.run(s(30));
    scene.lossless(&streams, s(5));
    for node in &scene.nodes {
        let contexts = node.contexts(scene.now);
        let mut pairs: Vec<_> = contexts.iter().map(|context| (context.ulid_local, context.ulid_peer)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!(pairs.len(), contexts.len());
    }
}

#[test]
fn whatever_happened_sessions_come_back_by_label_or_by_header() {
    (0..SEEDS).for_each(live);
}
