//! What a turn does is bounded, and what is rationed goes to those who need it.

use std::time::Duration;

use dataplane::context::entry::Traffic;
use dataplane::context::{Activity, Direction};
use dataplane::link::{Notice, Punt};
use dataplane::wire::Ulid;
use dataplane::wire::shim6::{Addresses, Message, Options, emit_packet};
use dataplane::wire::{Locator, UlidPair, ethernet};
use hashbrown::HashSet;
use rand::rngs::StdRng;

use super::*;
use crate::manage::api::ContextFilter;
use crate::manage::api::Steering;
use crate::reap::PathKey;
use crate::shim6::State;
use crate::sim::{Plan, SitePlan, World};

fn rng() -> StdRng {
    rand::SeedableRng::seed_from_u64(1)
}

/// A box with two hosts, of which the first asks so many peers for contexts, by its two providers in turn.
fn crowd(count: u16) -> World {
    let sites = vec![SitePlan { hosts: 2, ..SitePlan::default() }, SitePlan::default()];
    let natv6 = "[natv6]\nenabled = true\n".to_owned();
    let mut world = World::new(&Plan { sites, contexts_max: 16_384, shim6: natv6, ..Plan::default() }, 1);
    world.run(Duration::from_secs(2));
    (1..=count).for_each(|peer| ask(&mut world, 0, peer));
    assert_eq!(world.nodes[0].engine.endpoint.len(), usize::from(count));
    world
}

/// A host asks a peer that never answers for a context.
fn ask(world: &mut World, host: usize, peer: u16) {
    let provider = peer % 2;
    let (inside, presented) =
        (Ulid(world.hosts[host].ulid), Locator(world.hosts[host].locators[usize::from(provider)]));
    let peer = Ulid(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, peer));
    let notice = Notice::Qualified { pair: UlidPair { local: inside, peer }, presented, provider: provider as u8 };
    world.nodes[0].engine.notice(world.now, &mut rng(), notice, &mut Vec::new());
}

#[test]
fn news_find_those_they_concern_a_few_at_a_time_and_movers_hear_first() {
    let mut world = crowd(5000);
    let now = world.now;
    let engine = &mut world.nodes[0].engine;
    let drained = engine.providers[0].name.clone();
    engine.steer(&drained, Steering::Drain).unwrap();
    assert_eq!(engine.round.len(), 0, "nobody is looked for at once");
    let mut found = Vec::new();
    while engine.round.due().is_some() {
        let before = engine.round.len();
        engine.go_round(now);
        found.push(engine.round.len() - before);
        assert!(engine.deadline().is_some());
    }
    assert_eq!(found, [2048, 2048, 904]);
    let moves = |engine: &Engine, id| {
        let context = engine.endpoint.context(id).unwrap();
        engine.provider_of(context.pair.local.0).unwrap().0 == 0
    };
    let mut order = Vec::new();
    while let Some(id) = engine.next_with_news() {
        order.push((!moves(engine, id), id));
        engine.hears_news(id);
    }
    assert_eq!(order.len(), 5000);
    assert!(order.is_sorted(), "movers first, and each in the order of the table");
    assert!(order.iter().any(|(stays, _)| *stays) && !order[0].0);
    assert_eq!(engine.round.len(), 0);
}

#[test]
fn who_moves_while_payload_flows_hears_before_who_is_idle() {
    let mut world = crowd(5000);
    let now = world.now + Duration::from_secs(60);
    let engine = &mut world.nodes[0].engine;
    let drained = engine.providers[0].name.clone();
    let through = |context: &Context| engine.provider_of(context.pair.local.0).unwrap().0 == 0;
    let moving: Vec<ContextId> = engine.endpoint.contexts().filter(|it| through(it)).map(|it| it.id).collect();
    let busy: Vec<ContextId> = moving.iter().rev().take(3).copied().collect();
    let stale = moving[moving.len() / 2];
    for (ids, at) in [(&busy[..], now), (&[stale][..], now - Duration::from_secs(20))] {
        for id in ids {
            let pair = PathKey::of(engine.endpoint.context(*id).unwrap().pair);
            engine.sight(at, *id, pair, [false, true]);
        }
    }
    engine.steer(&drained, Steering::Drain).unwrap();
    while engine.round.due().is_some() {
        engine.go_round(now);
    }
    let mut order = Vec::new();
    while let Some(id) = engine.next_with_news() {
        order.push((id, engine.round.moves_idle()));
        engine.hears_news(id);
    }
    let (first, rest) = order.split_at(3);
    assert!(first.iter().all(|(id, idle)| busy.contains(id) && !idle));
    assert!(
        rest.iter().filter(|(_, idle)| *idle).count() == moving.len() - 3 && rest.iter().any(|(id, _)| *id == stale)
    );
}

#[test]
fn news_that_come_meanwhile_reach_everybody() {
    let mut world = crowd(5000);
    let now = world.now;
    let engine = &mut world.nodes[0].engine;
    engine.advise();
    engine.go_round(now);
    // Who was found hears the first news, and then there are others.
    while let Some(id) = engine.next_with_news() {
        engine.hears_news(id);
    }
    engine.advise_hosts(vec![Ulid(world.hosts[0].ulid)]);
    let mut heard = HashSet::new();
    while engine.round.due().is_some() {
        engine.go_round(now);
    }
    while let Some(id) = engine.next_with_news() {
        assert!(heard.insert(id), "once each");
        engine.hears_news(id);
    }
    assert_eq!(heard.len(), 5000);
    // News for a host that has none concern nobody.
    engine.advise_hosts(vec![Ulid(world.hosts[1].ulid)]);
    while engine.round.due().is_some() {
        engine.go_round(now);
    }
    assert_eq!(engine.round.len(), 0);
}

#[test]
fn a_provider_ends_some_contexts_at_a_time() {
    let mut world = crowd(5000);
    let now = world.now;
    let engine = &mut world.nodes[0].engine;
    let prefix = engine.providers[0].prefix;
    let through = |engine: &Engine| {
        let mine = |context: &&Context| (context.pair.local.0.to_bits() >> 64) as u64 == prefix;
        engine.endpoint.contexts().filter(mine).count()
    };
    let (mut before, others) = (through(engine), engine.endpoint.len() - through(engine));
    assert!(before > 1000);
    engine.providers[0].leaving = Some(now);
    while engine.providers[0].exists() {
        engine.expire_providers(now, &mut rng(), &mut Vec::new());
        let left = through(engine);
        assert!(before - left <= 256);
        before = left;
    }
    assert_eq!((before, engine.endpoint.len(), engine.ending), (0, others, None));
}

#[test]
fn a_question_looks_at_a_part_of_the_table_and_all_of_a_host() {
    let mut world = crowd(5000);
    ask(&mut world, 1, 1);
    let now = world.now;
    let engine = &world.nodes[0].engine;
    // The box looks at 4096 places, shows what was asked for and counts the rest.
    let view = |filter: &ContextFilter| engine.contexts_view(now, filter).unwrap();
    let first = view(&ContextFilter::default());
    assert_eq!((first.contexts.len(), first.left_off, first.next), (1000, 3096, Some(4096)));
    let rest = view(&ContextFilter { after: first.next, ..ContextFilter::default() });
    assert_eq!((rest.contexts.len(), rest.left_off, rest.next), (905, 0, None));
    let far = ContextFilter { after: Some(u64::MAX), ..ContextFilter::default() };
    assert_eq!(view(&far), Default::default());
    // Of a host that has few all are found at once, wherever they are; one with many is sought like a peer.
    let of = |host: usize| ContextFilter { ulid: Some(world.hosts[host].ulid), ..ContextFilter::default() };
    let few = view(&of(1));
    assert_eq!((few.contexts.len(), few.left_off, few.next), (1, 0, None));
    let many = view(&of(0));
    assert_eq!((many.contexts.len(), many.left_off, many.next), (1000, 3096, Some(4096)));
    // By name, by peer, by prefix, by provider: each says how many of the first 4096 it is about.
    let all = ContextFilter { limit: Some(u32::MAX), ..ContextFilter::default() };
    let of = |filter: ContextFilter| view(&filter).contexts;
    let context = &many.contexts[7];
    assert_eq!(of(ContextFilter { peer: Some(context.ulid_peer), ..all.clone() }).len(), 1);
    let named = of(ContextFilter { host: Some(context.ulid_local.to_string()), ..all.clone() });
    assert!(!named.is_empty() && named.iter().all(|it| it.ulid_local == context.ulid_local));
    let (ulid, served) = engine.served.iter().next().unwrap();
    let named = of(ContextFilter { host: Some(served.name.clone()), ..all.clone() });
    let same = of(ContextFilter { host: Some(ulid.0.to_string()), ..all.clone() });
    assert_eq!(named, same);
    let provider = engine.providers[1].name.clone();
    let through = of(ContextFilter { provider: Some(provider.clone()), ..all.clone() });
    let through_all = of(all.clone()).iter().filter(|it| it.local_provider.as_ref() == Some(&provider)).count();
    assert_eq!(through.len(), through_all);
    let prefix = format!("{}/128", context.ulid_peer);
    assert_eq!(of(ContextFilter { prefix: Some(prefix), ..all.clone() }).len(), 1);
    let lies_in = |prefix: &str| of(ContextFilter { prefix: Some(prefix.into()), ..all.clone() }).len();
    assert_eq!((lies_in("2001:db8:eeee::/48"), lies_in("2001:db8:ffff::/48")), (0, 4096));
    let refused = |filter: ContextFilter| engine.contexts_view(now, &filter).unwrap_err().text;
    assert_eq!(refused(ContextFilter { host: Some("nobody".into()), ..all.clone() }), "there is no host called nobody");
    assert_eq!(
        refused(ContextFilter { provider: Some("none".into()), ..all.clone() }),
        "there is no provider called none"
    );
    assert!(refused(ContextFilter { prefix: Some("here".into()), ..all }).starts_with("here is not an IPv6 prefix: "));
}

/// A context whose peer seemed to have lost it and then did not answer any more: in I1-SENT, and what REAP knew is kept.
fn suspended() -> (World, ContextId, Instant) {
    let mut world = World::new(&Plan::default(), 1);
    let stream = world.stream(0, 1, Duration::from_millis(20));
    world.run(Duration::from_secs(2));
    world.stop(stream);
    let mut now = world.now;
    let engine = &mut world.nodes[0].engine;
    let context = engine.endpoint.contexts().next().unwrap();
    let (id, pair, packet_tag) = (context.id, context.pair, context.peer_tag.unwrap());
    let options = Options { validator: Some(vec![0; 20]), ..Options::default() };
    let r1bis = Message::R1bis { packet_tag, responder_nonce: 1, options };
    let addresses = Addresses { source: pair.peer.0, target: pair.local.0 };
    let mut frame = vec![0; ethernet::HEADER_LEN];
    frame.extend(emit_packet(addresses, 64, &r1bis).unwrap());
    let mut effects = Vec::new();
    engine.notice(now, &mut rng(), Notice::Punt(PortId(1), Punt::Shim6, &frame), &mut effects);
    assert_eq!(engine.endpoint.context(id).unwrap().state, State::I2bisSent);
    while engine.endpoint.context(id).unwrap().state != State::I1Sent {
        now = engine.deadline().unwrap().max(now);
        engine.expire(now, &mut rng(), &mut effects);
    }
    (world, id, now)
}

#[test]
fn a_suspended_context_sends_no_probes_and_takes_none_from_others() {
    // R5534-126
    let (mut world, id, now) = suspended();
    let engine = &mut world.nodes[0].engine;
    let pair = engine.attached.get(&id).unwrap().reap.as_ref().unwrap().current();
    let before = ["control_probes_sent", "control_explorations"].map(|name| engine.tally().value(name));
    // Full, as of now: what is taken from it shows.
    engine.budget.charge(now, 0);
    let ready = engine.budget.ready_at();
    let mut effects = Vec::new();
    // What workers and others say of it comes late, its path comes to be in doubt, and it would have to leave its provider.
    let activity = Activity {
        received: false,
        sent: true,
        last: Direction::Out,
        labelled_in: false,
        labelled_out: false,
        arrived: None,
    };
    let late = Notice::Activity { handle: id.to_bits(), activity, traffic: [Traffic::default(); 2] };
    engine.notice(now, &mut rng(), late, &mut effects);
    engine.hint(now, &mut rng(), id, &mut effects);
    engine.attached.doubt(PathKey::of(pair), None);
    let at = engine.provider_of(pair.local.0).unwrap().0;
    engine.providers[at].steering = Steering::Drain;
    engine.advise();
    engine.expire(now, &mut rng(), &mut effects);
    assert_eq!(engine.attached.in_doubt(), 0, "nobody has to be asked");
    assert_eq!(engine.budget.ready_at(), ready);
    for _ in 0..20 {
        let due = engine.deadline().unwrap().max(now).min(now + Duration::from_secs(10));
        engine.expire(due, &mut rng(), &mut effects);
    }
    assert_eq!(engine.endpoint.context(id).unwrap().state, State::I1Sent);
    assert_eq!(["control_probes_sent", "control_explorations"].map(|name| engine.tally().value(name)), before);
}

#[test]
fn who_is_gone_or_has_nothing_to_send_takes_nothing_from_the_common_pace() {
    let mut world = crowd(600);
    let (now, mut effects) = (world.now + Duration::from_secs(5), Vec::new());
    let engine = &mut world.nodes[0].engine;
    let gone: Vec<ContextId> = engine.endpoint.contexts().map(|context| context.id).take(500).collect();
    let pair = engine.endpoint.awaits_r1(gone[0])[0];
    engine.advise();
    while engine.round.due().is_some() {
        engine.go_round(now);
    }
    for id in &gone {
        engine.waiting.push_back(*id);
        engine.attached.get_mut(id).unwrap().waiting = true;
    }
    let prefix = crate::identity::prefix_of(pair.local.0);
    engine.revived(world.now, revive::Sign::Provider(prefix));
    // Signs find who waits; the pace lets nobody go yet.
    engine.budget.charge(now, 1 << 20);
    engine.expire_revivals(now, &mut rng(), &mut effects);
    engine.expire_revivals(now, &mut rng(), &mut effects);
    engine.expire_revivals(now, &mut rng(), &mut effects);
    assert!(engine.revival.is_paced());
    let mut out = Vec::new();
    for id in engine.endpoint.contexts().map(|context| context.id).collect::<Vec<_>>() {
        engine.endpoint.discard(id, shim6::GoneReason::Discarded, &mut out);
    }
    engine.follow(now, &mut rng(), out, &mut effects);
    // A minute later everybody's turn comes, and nobody is there.
    let later = now + Duration::from_secs(60);
    let ready = (engine.budget.ready_at(), engine.news_budget.ready_at());
    for _ in 0..20 {
        engine.expire_revivals(later, &mut rng(), &mut effects);
        engine.expire_reap(later, &mut rng(), &mut effects);
        engine.expire_news(later, &mut rng(), &mut effects);
    }
    assert!(!engine.revival.is_paced() && engine.waiting.is_empty() && engine.next_with_news().is_none());
    assert_eq!((engine.budget.ready_at(), engine.news_budget.ready_at()), ready);
    assert_eq!(engine.tally().value("control_retried_early"), 0);
}

#[test]
fn what_does_not_open_has_no_place_in_the_policy() {
    let text = "{\"version\": 1, \"default\": {\"both\": {}}}";
    let mut world = World::new(&Plan::default(), 1);
    world.run(Duration::from_secs(2));
    world.load_policy(0, Some(text)).unwrap();
    let (now, local, peer) = (world.now, Ulid(world.hosts[0].ulid), Ulid(world.hosts[1].ulid));
    let engine = &mut world.nodes[0].engine;
    engine.ways_as_they_are(now);
    let mut ask = |peer, times: usize| {
        for _ in 0..times {
            engine.notice(now, &mut rng(), Notice::UnknownPair(UlidPair { local, peer }), &mut Vec::new());
        }
        let controller = &engine.steered.as_ref().unwrap().controller;
        [0, 1].map(|way| controller.given(0, crate::policy::Direction::Out, way))
    };
    let nobody = Ulid(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1));
    assert_eq!(ask(nobody, 3), [0.0, 0.0]);
    assert_eq!(ask(peer, 3).iter().sum::<f64>(), 1.0, "and what is asked for again is no other");
}
