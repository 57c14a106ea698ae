//! A provider goes down with many contexts on it: each turn does a bounded part of what follows, and everybody gets his turn.

use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::snapshot::PortId;
use dataplane::wire::{LocatorPair, Ulid};
use rand::rngs::StdRng;

use super::*;
use crate::reap::{PathKey, Status};
use crate::sim::{Plan, ProviderId, SitePlan, StreamId, World};

const MANY: u32 = 6000;

fn rng() -> StdRng {
    rand::SeedableRng::seed_from_u64(1)
}

/// Two sites that talk, and at the first one many more contexts on the provider in use, with peers that are not there, so many
/// of them in one /64.
fn crowd(in_one: u32) -> (World, Vec<StreamId>, PortId) {
    let sites = vec![SitePlan { hosts: 3, ..SitePlan::default() }; 2];
    let mut world = World::new(&Plan { sites, contexts_max: 2 * MANY, ..Plan::default() }, 5);
    let pairs = (0..3).flat_map(|from| (3..6).flat_map(move |to| [(from, to), (to, from)]));
    let streams = pairs.map(|(from, to)| world.stream(from, to, Duration::from_millis(20))).collect();
    world.run(Duration::from_secs(6));
    let now = world.now;
    let engine = &mut world.nodes[0].engine;
    let mut items = Vec::new();
    engine.begin_bequest();
    engine.bequeath(1000, &mut items);
    engine.end_bequest();
    let template = items.iter().find_map(|item| match item {
        Item::Context(context, _) => Some((**context).clone()),
        _ => None,
    });
    let template = template.expect("a context");
    items.retain(|item| matches!(item, Item::List(..)));
    engine.inherit(now, &mut rng(), items, &mut Vec::new());
    for number in 0..MANY {
        let mut context = template.clone();
        let other = |address: Ipv6Addr| {
            let network = (address.to_bits() >> 64) ^ (u128::from(number / in_one) + 1) << 16;
            Ipv6Addr::from_bits(network << 64 | 1 << 40 | u128::from(number))
        };
        context.ulids.1 = other(context.ulids.1);
        context.pair.1 = other(context.pair.1);
        context.peer_locators.iter_mut().for_each(|known| known.address = other(known.address));
        let owner =
            engine.sharding.owner_of_pair(&UlidPair { local: Ulid(context.ulids.0), peer: Ulid(context.ulids.1) });
        context.tags = (u64::from(owner) << 37 | u64::from(number), u64::from(number) + 1);
        context.accepted = None;
        let item = Item::Context(Box::new(context), Default::default());
        engine.inherit(now, &mut rng(), vec![item], &mut Vec::new());
    }
    let (_, provider) = engine.provider_of(template.pair.0).expect("a provider");
    let port = provider.port;
    world.run(Duration::from_millis(50));
    assert!(through(&world, port).len() as u32 > MANY - 10, "but for tags that are taken");
    (world, streams, port)
}

/// Contexts that send through the provider at a port.
fn through(world: &World, port: PortId) -> Vec<ContextId> {
    let engine = &world.nodes[0].engine;
    let mine = |pair: LocatorPair| engine.provider_of(pair.local.0).is_some_and(|(_, provider)| provider.port == port);
    engine.endpoint.contexts().filter(|context| mine(context.pair)).map(|context| context.id).collect()
}

fn exploring(engine: &Engine) -> u64 {
    engine.tally().value("control_explorations")
}

/// Turns until nobody has to be asked any more, each as soon as there is something to do. The most contexts asked in one, and all.
fn ask_all(engine: &mut Engine, mut now: Instant) -> (u64, u64) {
    let (mut rng, begun, mut most) = (rng(), exploring(engine), 0);
    for _ in 0..1_000_000 {
        let (before, left) = (exploring(engine), engine.round.due().map(|_| engine.round.len()));
        engine.expire(now, &mut rng, &mut Vec::new());
        most = most.max(exploring(engine) - before);
        if let Some(before) = left {
            assert!(engine.round.len() <= before + 2048, "places looked at in a turn");
        }
        if engine.attached.in_doubt() == 0 {
            return (most, exploring(engine) - begun);
        }
        now = engine.deadline().unwrap().max(now);
    }
    panic!("it never ends");
}

#[test]
fn everybody_on_a_provider_that_goes_down_is_asked_in_turns_that_are_bounded() {
    for in_one in [1, MANY] {
        let (mut world, _, port) = crowd(in_one);
        let (now, on_it) = (world.now, through(&world, port));
        let engine = &mut world.nodes[0].engine;
        let before = engine.book.iter(now).count();
        engine.link_state(now, port, false, &mut Vec::new());
        // However many paths there are, one thing is noted, and all of them are dead.
        assert_eq!((engine.attached.in_doubt(), engine.book.iter(now).count()), (1, before));
        let paths: Vec<PathKey> =
            on_it.iter().map(|id| PathKey::of(engine.endpoint.context(*id).unwrap().pair)).collect();
        assert!(
            paths
                .iter()
                .all(|path| engine.book.status(*path, now) == Status::Dead && engine.attached.is_in_doubt(*path))
        );
        let (most, all) = ask_all(engine, now);
        // 256 because of the doubt, and 64 that hear of the provider's new standing.
        assert!((1..=320).contains(&most), "{most} contexts were asked in one turn");
        assert!(all >= on_it.len() as u64, "{all} of {}", on_it.len());
        assert!(on_it.iter().all(|id| engine.explores(*id)));
        assert!(!paths.iter().any(|path| engine.attached.is_in_doubt(*path)));
    }
}

#[test]
fn a_turn_goes_past_a_bounded_number_of_paths_whose_contexts_need_not_be_asked() {
    let (mut world, _, port) = crowd(1);
    let on_it = through(&world, port);
    let now = world.now;
    let engine = &mut world.nodes[0].engine;
    engine.link_state(now, port, false, &mut Vec::new());
    on_it.iter().for_each(|id| engine.attached.asked(*id));
    let mut turns = 0;
    while engine.attached.in_doubt() > 0 {
        let mut looks = 2048;
        assert_eq!(engine.attached.next_in_doubt(&mut looks), None);
        turns += 1;
    }
    assert_eq!(turns, MANY.div_ceil(2048));
}

#[test]
fn a_provider_that_is_back_before_all_have_been_asked_keeps_the_others() {
    let (mut world, streams, port) = crowd(1);
    let (now, on_it) = (world.now, through(&world, port));
    let engine = &mut world.nodes[0].engine;
    engine.link_state(now, port, false, &mut Vec::new());
    let mut rng = rng();
    for _ in 0..3 {
        engine.expire(now, &mut rng, &mut Vec::new());
    }
    let asked = on_it.iter().filter(|id| engine.explores(**id)).count();
    assert!(asked > 0 && asked < on_it.len() / 2, "{asked}");
    engine.link_state(now, port, true, &mut Vec::new());
    assert_eq!(engine.attached.in_doubt(), 0);
    for id in &on_it {
        let path = PathKey::of(engine.endpoint.context(*id).unwrap().pair);
        assert_eq!(engine.book.status(path, now), Status::Unknown);
    }
    engine.expire(now, &mut rng, &mut Vec::new());
    assert_eq!(on_it.iter().filter(|id| engine.explores(**id)).count(), asked, "nobody else");
    // It goes down once more: who has not been asked before is asked now.
    engine.link_state(now, port, false, &mut Vec::new());
    ask_all(engine, now);
    assert!(on_it.iter().all(|id| engine.explores(*id)));
    assert!(streams.iter().all(|stream| !world.streams[*stream].arrivals.is_empty()));
}

#[test]
fn who_is_in_use_among_many_that_are_not_moves_and_a_link_that_flaps_loses_nobody() {
    for down in [5_u64, 200, 3000] {
        let (mut world, streams, port) = crowd(1);
        let mine = |world: &World, it: &ProviderId| {
            world.providers[*it].site == 0 && world.providers[*it].port == usize::from(port.0)
        };
        let provider = (0..world.providers.len()).find(|it| mine(&world, it)).unwrap();
        world.unplug(provider);
        world.run(Duration::from_millis(down));
        if down >= 1000 {
            let since = world.now;
            world.run(Duration::from_millis(200));
            assert!(streams.iter().all(|stream| world.streams[*stream].is_back(since)), "all have moved");
        }
        world.heal(provider);
        world.run(Duration::from_secs(3));
        let back = world.now;
        world.run(Duration::from_secs(1));
        assert!(streams.iter().all(|stream| world.streams[*stream].is_back(back)), "after {down} ms");
    }
}
