//! How long after a provider is cut the last context in use sends another way, and what is lost meanwhile, with as many contexts in the
//! table and in use as wanted: by what each way to notice it takes. The time of the network is the simulator's; the time of the box's
//! own work is measured. `perf/detect` builds and runs it, and writes its page.

#[path = "detect/feed.rs"]
mod feed;
#[path = "../tests/routers/mod.rs"]
mod routers;

use std::time::Duration;

use clap::Parser;
use control::engine::Item;
use control::shim6::CarriedContext;
use control::sim::{Plan, ProviderId, SitePlan, StreamId, Way, World};
use control::time::Instant;
use dataplane::wire::{Ulid, UlidPair};
use feed::Feed;
use nix::time::{ClockId, clock_gettime};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Contexts in the table, besides those in use.
    #[arg(long, value_delimiter = ',', default_value = "1000,1000000")]
    sizes: Vec<u32>,
    /// Contexts in use at each site: a square, since each host talks to each.
    #[arg(long, default_value_t = 16)]
    used: usize,
    /// Milliseconds between two datagrams of a stream; two streams to a context.
    #[arg(long, default_value_t = 10)]
    pace_ms: u64,
    /// /64s in which the peers are of contexts that are not in use.
    #[arg(long, default_value_t = 1)]
    prefixes: u32,
    /// What notices, of link, bmp, liveness, reap-3 and reap-15.
    #[arg(long, value_delimiter = ',', default_value = "link,bmp,liveness,reap-3,reap-15")]
    by: Vec<String>,
    /// Times each is tried, with another seed.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
}

/// One try.
#[derive(Clone, Debug)]
struct Try<'a> {
    given: &'a Arguments,
    size: u32,
    by: &'a str,
    seed: u64,
}

const STEP: Duration = Duration::from_millis(1);
/// What a test of somebody's standby may take to come round, and to be answered.
const READY: Duration = Duration::from_secs(60);
/// Nobody waits longer for a session.
const GIVEN_UP: Duration = Duration::from_secs(60);

fn main() {
    let given = Arguments::parse();
    let mut found = Vec::new();
    for &size in &given.sizes {
        for by in &given.by {
            for round in 0..given.rounds {
                let one = Try { given: &given, size, by, seed: round + 1 };
                found.push(one.run());
                eprintln!("{}", found[found.len() - 1]);
            }
        }
    }
    println!("{}", Value::Array(found));
}

/// For how long this thread has had a core, so that what else the machine does is not counted.
fn worked() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

impl Try<'_> {
    fn run(&self) -> Value {
        let mut world = World::new(&self.plan(), self.seed);
        let mut feed = (self.by == "bmp").then(|| Feed::new(&mut world));
        let streams = self.talk(&mut world);
        if let Some(feed) = &mut feed {
            feed.pass(&mut world);
        }
        let used = world.nodes[0].contexts(world.now);
        let standbys = used.iter().filter(|context| context.standby.is_some()).count();
        let local = used[0].current.expect("a pair").local;
        let provider = world.provider_of(local).expect("a provider");
        let through = |pair: &control::manage::api::PairView| world.provider_of(pair.local) == Some(provider);
        let hit = used.iter().filter(|it| it.current.as_ref().is_some_and(through)).count();
        let in_table = fill(&mut world, self.size, self.given.prefixes.max(1));
        world.run(Duration::from_millis(500 + 7 * self.seed));
        world.nodes.iter_mut().for_each(|node| node.time_turns(worked));
        let since = world.now;
        self.fail(&mut world, provider, feed.as_mut());
        // What the device and the routers said is part of it.
        let (until, slowest) = until_back(&mut world, &streams, since);
        world.run(Duration::from_millis(500));
        let moved = streams.iter().map(|it| world.streams[*it].back(since).map_or(GIVEN_UP, |at| at.since(since)));
        let moved = moved.max().unwrap_or_default();
        let lost: usize = streams.iter().map(|stream| world.streams[*stream].faults(since, until).0).sum();
        // Who looks on for a pair goes on doing so.
        world.run(Duration::from_secs(2));
        let turns = [0, 1].map(|site: usize| world.nodes[site].longest_turn().as_micros() as u64);
        json!({
            "contexts": in_table, "by": self.by, "seed": self.seed, "moved_ms": moved.as_secs_f64() * 1000.0, "lost": lost,
            "streams": streams.len(), "pace_ms": self.given.pace_ms, "contexts_in_use": used.len(), "of_them_hit": hit,
            "with_standby": standbys, "prefixes": self.given.prefixes, "slowest_step_us": slowest.as_micros() as u64,
            "longest_turn_us": turns[0], "longest_turn_of_peer_us": turns[1],
        })
    }

    fn hosts(&self) -> u16 {
        (self.given.used as f64).sqrt().round().max(1.0) as u16
    }

    fn plan(&self) -> Plan {
        let send_timeout_s = if self.by == "reap-3" { 3 } else { 15 };
        let liveness = if self.by == "liveness" { "enabled = true" } else { "" };
        Plan {
            sites: vec![SitePlan { hosts: self.hosts(), ..SitePlan::default() }; 2],
            send_timeout_s,
            contexts_max: (self.size + 4096 + self.given.used as u32).next_power_of_two() * 2,
            hold_pairs: 256.max(self.given.used as u32),
            liveness: liveness.to_owned(),
            ..Plan::default()
        }
    }

    /// Everybody begins to talk, not all in step, and has a standby at the end.
    fn talk(&self, world: &mut World) -> Vec<StreamId> {
        let hosts = usize::from(self.hosts());
        let pairs = (0..hosts).flat_map(|from| (hosts..2 * hosts).flat_map(move |to| [(from, to), (to, from)]));
        let pairs: Vec<(usize, usize)> = pairs.collect();
        let pace = Duration::from_millis(self.given.pace_ms);
        let mut streams = Vec::new();
        // As quickly as standbys are tested.
        for some in pairs.chunks(2.max(pairs.len() / 64)) {
            streams.extend(some.iter().map(|(from, to)| world.stream(*from, *to, pace)));
            world.run(Duration::from_millis(63));
        }
        world.run(Duration::from_secs(8));
        let since = world.now;
        let ready = |world: &World| {
            let all = (0..2).flat_map(|site| world.nodes[site].contexts(world.now));
            all.into_iter().all(|context| context.standby.is_some())
        };
        while !ready(world) && world.now.since(since) < READY {
            world.run(Duration::from_secs(1));
        }
        streams
    }

    fn fail(&self, world: &mut World, provider: ProviderId, feed: Option<&mut Feed>) {
        match feed {
            _ if self.by == "link" => world.unplug(provider),
            None => world.cut(provider, &[Way::Out, Way::In]),
            Some(feed) => {
                world.cut(provider, &[Way::Out, Way::In]);
                feed.tell_of(world, provider);
            }
        }
    }
}

/// Runs until every stream is back. The time, and the longest step.
fn until_back(world: &mut World, streams: &[StreamId], since: Instant) -> (Instant, Duration) {
    let (mut away, mut slowest) = (streams.to_vec(), Duration::ZERO);
    loop {
        away.retain(|stream| !world.streams[*stream].is_back(since));
        if away.is_empty() || world.now.since(since) >= GIVEN_UP {
            return (world.now, slowest);
        }
        let before = worked();
        world.run(STEP);
        slowest = slowest.max(worked().saturating_sub(before));
    }
}

/// Gives the first site's box contexts that are like one of its own, on the same path, with peers that do not exist. How many.
fn fill(world: &mut World, size: u32, prefixes: u32) -> u64 {
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
        let context = like(&template, (number, number % prefixes), &mut place, &|pair| sharding.owner_of_pair(&pair));
        engine.inherit(now, &mut rng, vec![Item::Context(Box::new(context), Default::default())], &mut effects);
        effects.clear();
    }
    (engine.contexts().count() - before) as u64
}

/// One whose peer has this number, and is in the /64 of that number.
fn like(
    template: &CarriedContext,
    (number, prefix): (u32, u32),
    place: &mut u64,
    owner: &dyn Fn(UlidPair) -> u8,
) -> CarriedContext {
    let other = |address: std::net::Ipv6Addr| {
        let network = (address.to_bits() >> 64) ^ u128::from(prefix) << 4;
        std::net::Ipv6Addr::from_bits(network << 64 | 1 << 40 | u128::from(number))
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
