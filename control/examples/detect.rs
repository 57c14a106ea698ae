//! How long after a silent cut, or a link that goes down, the last context in use sends another way, and what is lost meanwhile, with
//! as many contexts in the table as wanted: by what each way to notice it takes. The time of the network is the simulator's; the
//! time of the box's own work is measured. `perf/detect` builds and runs it, and writes its page.

use std::time::{Duration, Instant as Clock};

use clap::Parser;
use control::engine::Item;
use control::shim6::CarriedContext;
use control::sim::{Plan, SitePlan, StreamId, Way, World};
use control::time::Instant;
use dataplane::wire::{Ulid, UlidPair};
use rand::SeedableRng;
use rand::rngs::StdRng;

#[derive(Debug, Parser)]
struct Arguments {
    /// Contexts in the table, besides those in use.
    #[arg(long, value_delimiter = ',', default_value = "1000,1000000")]
    sizes: Vec<u32>,
    /// Times each is tried, with another seed.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
}

/// What notices.
#[derive(Clone, Copy, Debug)]
enum By {
    Link,
    Liveness,
    Reap(u16),
}

const HOSTS: u16 = 4;
const PACE: Duration = Duration::from_millis(10);
const STEP: Duration = Duration::from_millis(1);

fn main() {
    let arguments = Arguments::parse();
    println!("[");
    let mut first = true;
    for size in arguments.sizes {
        for by in [By::Link, By::Liveness, By::Reap(3), By::Reap(15)] {
            for seed in 0..arguments.rounds {
                let found = one(size, by, seed + 1);
                print!("{}{found}", if first { "" } else { ",\n" });
                first = false;
            }
        }
    }
    println!("\n]");
}

fn one(size: u32, by: By, seed: u64) -> String {
    let (liveness, send_timeout_s) = match by {
        By::Link => ("", 15),
        By::Liveness => ("enabled = true", 15),
        By::Reap(seconds) => ("", seconds),
    };
    let plan = Plan {
        sites: vec![SitePlan { hosts: HOSTS, ..SitePlan::default() }; 2],
        send_timeout_s,
        contexts_max: (size + 4096).next_power_of_two() * 2,
        liveness: liveness.to_owned(),
        ..Plan::default()
    };
    let mut world = World::new(&plan, seed);
    let pairs = (0..usize::from(HOSTS)).flat_map(|from| (0..usize::from(HOSTS)).map(move |to| (from, to)));
    let both = |(from, to): (usize, usize)| [(from, usize::from(HOSTS) + to), (usize::from(HOSTS) + to, from)];
    let pairs: Vec<(usize, usize)> = pairs.flat_map(both).collect();
    let streams: Vec<StreamId> = pairs.into_iter().map(|(from, to)| world.stream(from, to, PACE)).collect();
    world.run(Duration::from_secs(8));
    let used = world.nodes[0].contexts(world.now);
    let standbys = used.iter().filter(|context| context.standby.is_some()).count();
    let local = used[0].current.expect("a pair").local;
    let taken = fill(&mut world, size);
    world.run(Duration::from_millis(500 + 7 * seed));
    let provider = world.provider_of(local).expect("a provider");
    let hit = used.iter().filter(|it| it.current.is_some_and(|pair| world.provider_of(pair.local) == Some(provider)));
    let hit = hit.count();
    let since = world.now;
    match by {
        By::Link => world.unplug(provider),
        By::Liveness | By::Reap(_) => world.cut(provider, &[Way::Out, Way::In]),
    }
    let mut slowest = Duration::ZERO;
    let back = |world: &World| streams.iter().all(|stream| world.streams[*stream].back(since).is_some());
    while !back(&world) && world.now.since(since) < Duration::from_secs(60) {
        let clock = Clock::now();
        world.run(STEP);
        slowest = slowest.max(clock.elapsed());
    }
    let until = world.now;
    world.run(Duration::from_millis(500));
    let last = |world: &World, stream: &StreamId| {
        world.streams[*stream].back(since).map(|at| at.since(since)).unwrap_or(Duration::MAX)
    };
    let moved = streams.iter().map(|stream| last(&world, stream)).max().unwrap_or_default();
    let lost: usize = streams.iter().map(|stream| world.streams[*stream].missing(since, until)).sum();
    let sent = streams.len();
    let by = match by {
        By::Link => "link".to_owned(),
        By::Liveness => "liveness".to_owned(),
        By::Reap(seconds) => format!("reap-{seconds}"),
    };
    format!(
        "{{\"contexts\": {taken}, \"by\": \"{by}\", \"seed\": {seed}, \"moved_ms\": {:.1}, \"lost\": {lost}, \"streams\": {sent}, \
         \"pace_ms\": {}, \"contexts_in_use\": {}, \"of_them_hit\": {hit}, \"with_standby\": {standbys}, \"slowest_step_us\": {}}}",
        moved.as_secs_f64() * 1000.0,
        PACE.as_millis(),
        used.len(),
        slowest.as_micros()
    )
}

/// Gives the first site's box contexts that are like one of its own, on the same path, with peers that do not exist. How many.
fn fill(world: &mut World, size: u32) -> u64 {
    let now: Instant = world.now;
    let engine = &mut world.nodes[0].engine;
    let mut items = Vec::new();
    engine.begin_bequest();
    engine.bequeath(10_000, &mut items);
    engine.end_bequest();
    let template = items.iter().find_map(|item| match item {
        Item::Context(context, _) => Some((**context).clone()),
        _ => None,
    });
    let template = template.expect("a context of its own");
    items.retain(|item| matches!(item, Item::List(..)));
    let mut rng = StdRng::seed_from_u64(9);
    let mut effects = Vec::new();
    engine.inherit(now, &mut rng, items, &mut effects);
    let before = engine.contexts().count();
    let sharding = *engine.sharding();
    let mut place = 0_u64;
    for number in 0..size {
        let context = like(&template, number, &mut place, &|pair| sharding.owner_of_pair(&pair));
        engine.inherit(now, &mut rng, vec![Item::Context(Box::new(context), Default::default())], &mut effects);
        effects.clear();
    }
    (engine.contexts().count() - before) as u64
}

fn like(template: &CarriedContext, number: u32, place: &mut u64, owner: &dyn Fn(UlidPair) -> u8) -> CarriedContext {
    let other = |address: std::net::Ipv6Addr| {
        std::net::Ipv6Addr::from_bits((address.to_bits() >> 64 << 64) | 1 << 40 | u128::from(number))
    };
    let mut context = template.clone();
    context.ulids.1 = other(template.ulids.1);
    let owner = owner(UlidPair { local: Ulid(context.ulids.0), peer: Ulid(context.ulids.1) });
    context.tags = (u64::from(owner) << 37 | *place, u64::from(number) + 1);
    *place += 1;
    context.pair.1 = other(template.pair.1);
    for known in &mut context.peer_locators {
        known.address = other(known.address);
    }
    context.accepted = None;
    context
}
