//! Short lives of small worlds in which everything random goes wrong.

use std::time::Duration;

use control::sim::{Plan, SitePlan, StreamId, Way};
use rand::Rng;
use rand::rngs::StdRng;

use super::{Scene, ms};

/// A number below a bound.
pub fn upto(rng: &mut StdRng, bound: u32) -> u32 {
    rng.next_u32() % bound
}

/// What a small world is made of.
pub fn plan(rng: &mut StdRng) -> Plan {
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
pub fn streams(scene: &mut Scene, rng: &mut StdRng) -> Vec<StreamId> {
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
pub fn trouble(scene: &mut Scene, rng: &mut StdRng) {
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
pub fn mend(scene: &mut Scene) {
    for provider in 0..scene.providers.len() {
        scene.heal(provider);
        scene.providers[provider].router_up = true;
    }
    scene.all_legs(|leg| (leg.loss, leg.duplicates, leg.jitter, leg.delay) = (0, 0, Duration::ZERO, ms(5)));
}
