//! Providers, and with them the locators of hosts, come and go while sessions run.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Scene, ms, s};
use control::config::{Hosts, Site};
use control::engine::{Changes, SetupError};
use control::identity::SigningKey;
use control::shim6::HostRefused;
use control::sim::{Plan, SitePlan, Way};
use control::time::Instant;
use dataplane::wire::Locator;
use dataplane::wire::shim6::{Message, Options, Preference, VerificationMethod};

const BOTH: &[Way] = &[Way::Out, Way::In];

/// Site 0 with three providers, site 1 with two.
fn three(key: Option<Arc<SigningKey>>) -> Plan {
    let sites = vec![SitePlan { providers: 3, ..SitePlan::default() }, SitePlan::default()];
    Plan { sites, key, ..Plan::default() }
}

/// The operator of site 0 takes providers out of its configuration, or puts them back as the plan had them.
fn keep(scene: &mut Scene, planned: &(Site, Hosts), kept: &[usize]) -> Result<Changes, SetupError> {
    scene.reload(0, |site, hosts| {
        site.providers = kept.iter().map(|at| planned.0.providers[*at].clone()).collect();
        for (host, planned) in hosts.list_mut().iter_mut().zip(&planned.1) {
            host.identity.locators = kept.iter().map(|at| planned.identity.locators[*at]).collect();
        }
    })
}

fn planned(scene: &Scene) -> (Site, Hosts) {
    let (site, hosts) = scene.nodes[0].configuration();
    (site.clone(), hosts.clone())
}

/// What site 0 told in Update Requests since; those that only test a pair say nothing.
fn told(scene: &Scene, since: Instant) -> Vec<Options> {
    let sent = scene.captured.iter().filter(|sent| sent.at >= since && scene.providers[sent.provider].site == 0);
    let options = sent.filter_map(|sent| match &sent.message {
        Message::UpdateRequest { options, .. } if *options != Options::default() => Some(options.clone()),
        _ => None,
    });
    options.collect()
}

fn locators(options: &Options) -> Vec<Locator> {
    options.locators.iter().flat_map(|list| &list.entries).map(|(locator, _)| *locator).collect()
}

#[test]
fn a_provider_that_goes_is_left_before_its_locators_are_struck() {
    // R5533-011, R5533-018, R5533-083, R5533-249, R5533-250, R5533-272; D12, D13
    for seed in 60..64 {
        let (mut scene, streams) = Scene::talking(&three(None), seed);
        let planned = planned(&scene);
        let (used, since) = (scene.in_use(0), scene.now);
        let kept: Vec<usize> = (0..3).filter(|at| *at != used).collect();
        let before = planned.1.iter().next().unwrap().identity.locators.clone();
        let changes = keep(&mut scene, &planned, &kept).unwrap();
        assert_eq!(changes, Changes { changed: 1, ..Changes::default() });
        scene.lossless(&streams, s(20));
        assert_ne!(scene.in_use(0), used);
        assert_eq!(scene.context(1).peer_locators.len(), 3, "still there, as the last resort");
        assert_eq!(scene.nodes[0].engine.providers_view().iter().filter(|it| it.leaving).count(), 1);
        scene.lossless(&streams, s(20));
        let remaining: Vec<Locator> = kept.iter().map(|at| before[*at]).collect();
        let sent = told(&scene, since);
        let [first, second] = &sent[..] else { panic!("{sent:?}") };
        let generations = [first, second].map(|told| told.locators.as_ref().unwrap().generation);
        assert_eq!(generations[1], generations[0].wrapping_add(1));
        let all = remaining.iter().copied().chain([before[used]]).collect::<Vec<_>>();
        assert_eq!((locators(first), locators(second)), (all, remaining.clone()));
        let flags: Vec<u8> = first.preferences.iter().flat_map(|told| &told.elements).map(|it| it.flags).collect();
        assert_eq!(flags, [0, 0, Preference::BROKEN]);
        let peer: Vec<_> = scene.context(1).peer_locators.iter().map(|it| Locator(it.locator)).collect();
        assert_eq!(peer, remaining);
        // Its place is free in the end, and the provider can come back.
        scene.lossless(&streams, s(90));
        assert_eq!(scene.nodes[0].engine.providers_view().len(), 2);
        let since = scene.now;
        keep(&mut scene, &planned, &[0, 1, 2]).unwrap();
        scene.lossless(&streams, s(10));
        assert_eq!(told(&scene, since).iter().map(locators).collect::<Vec<_>>(), [before]);
        assert_eq!(scene.nodes[0].engine.snapshot().providers.len(), 3);
        scene.check_mirrored();
    }
}

#[test]
fn all_locators_may_be_replaced_under_a_session() {
    // R5534-006
    // The new source is used when the peer has accepted it, the old one goes when it has been left (R5533-128).
    for seed in 70..74 {
        let mut scene = Scene::new(&three(None), seed);
        let planned = planned(&scene);
        keep(&mut scene, &planned, &[0, 1]).unwrap();
        let streams = [scene.stream(0, 1, ms(20)), scene.stream(1, 0, ms(20))];
        scene.run(s(2));
        keep(&mut scene, &planned, &[2]).unwrap();
        scene.lossless(&streams, s(200));
        assert_eq!(scene.in_use(0), 2);
        assert_eq!(scene.context(1).peer_locators.len(), 1);
        scene.check_mirrored();
    }
}

#[test]
fn a_hybrid_host_has_signed_locators_outside_its_set() {
    signed_locators_outside_the_set(Duration::ZERO);
}

#[test]
fn it_has_them_too_where_signatures_are_verified_by_somebody_who_takes_his_time() {
    signed_locators_outside_the_set(ms(80));
}

fn signed_locators_outside_the_set(proofs_take: Duration) {
    // R5533-012, R5533-060, R5533-109, R5533-133, R5535-003, R5535-029
    let key = Arc::new(SigningKey::generate(1024).unwrap());
    let mut plan = Plan { proofs_take, ..three(Some(key.clone())) };
    plan.sites[1].hosts = 2;
    let mut scene = Scene::new(&plan, 80);
    let planned = planned(&scene);
    keep(&mut scene, &planned, &[0, 1]).unwrap();
    let streams = [scene.stream(0, 1, ms(20)), scene.stream(1, 0, ms(20)), scene.stream(0, 2, ms(20))];
    scene.run(s(2));
    // The prefix of provider 2 with an interface identifier of its own.
    let member = planned.1.iter().next().unwrap().identity.locators[2];
    let outside = Locator(std::net::Ipv6Addr::from_bits(member.0.to_bits() ^ 0xffff));
    let since = scene.now;
    let add = |site: &mut Site, hosts: &mut Hosts| {
        site.providers.push(planned.0.providers[2].clone());
        hosts.list_mut()[0].identity.locators.push(outside);
    };
    let refused = scene.reload(0, add).unwrap_err();
    let unproved = matches!(refused, SetupError::Host { reason: HostRefused::Unproved(2), .. });
    assert!(unproved, "nobody would believe it without a signature: {refused}");
    let used = scene.nodes[0].engine.providers_view().iter().filter(|provider| !provider.leaving).count();
    assert_eq!(used, 2, "nothing was taken over");
    scene
        .reload(0, |site, hosts| {
            add(site, hosts);
            hosts.set_key(key.clone());
        })
        .unwrap();
    scene.hosts[0].locators.push(outside.0);
    scene.lossless(&streams, s(5));
    let sent = told(&scene, since);
    let [one, other] = &sent[..] else { panic!("one for each peer: {sent:?}") };
    // R5533-082: parameters and a signature, made once for all.
    assert!(one.pds.is_some() && one.signature.is_some());
    assert_eq!((&one.signature, &one.locators), (&other.signature, &other.locators));
    let waited: u64 = scene.nodes.iter().map(|node| node.tally("shim6_waiting")).sum();
    assert_eq!(waited > 0, !proofs_take.is_zero());
    let methods: Vec<_> = one.locators.iter().flat_map(|list| &list.entries).map(|(_, method)| *method).collect();
    assert_eq!(methods, [VerificationMethod::Hba, VerificationMethod::Hba, VerificationMethod::Cga]);
    // It is a locator like the others: sessions go on over it alone.
    [0, 1].into_iter().for_each(|provider| scene.cut(provider, BOTH));
    scene.until_back(&streams, s(20));
    scene.run(s(10));
    scene.lossless(&streams, s(5));
    assert!(scene.nodes[0].contexts(scene.now).iter().all(|it| it.current.unwrap().local == outside.0));
}

/// Two hosts that talk, the first of which has a signed locator outside its set.
fn signed(seed: u64) -> (Scene, [control::sim::StreamId; 2], Locator) {
    let key = Arc::new(SigningKey::generate(1024).unwrap());
    let mut scene = Scene::new(&three(Some(key.clone())), seed);
    let planned = planned(&scene);
    let outside = Locator(std::net::Ipv6Addr::from_bits(
        planned.1.iter().next().unwrap().identity.locators[2].0.to_bits() ^ 0xffff,
    ));
    scene
        .reload(0, |_, hosts| {
            hosts.list_mut()[0].identity.locators[2] = outside;
            hosts.set_key(key.clone());
        })
        .unwrap();
    scene.hosts[0].locators[2] = outside.0;
    let streams = [scene.stream(0, 1, ms(20)), scene.stream(1, 0, ms(20))];
    scene.run(s(2));
    (scene, streams, outside)
}

#[test]
fn the_last_signed_locator_may_go_though_the_new_file_needs_no_key() {
    // R5533-012, R5533-250
    let (mut scene, streams, outside) = signed(83);
    let since = scene.now;
    scene
        .reload(0, |_, hosts| {
            hosts.list_mut()[0].identity.locators.pop();
            hosts.set_key(None);
        })
        .unwrap();
    scene.lossless(&streams, s(40));
    let sent = told(&scene, since);
    let [first, second] = &sent[..] else { panic!("{sent:?}") };
    assert!(locators(first).contains(&outside) && first.signature.is_some(), "left in two steps: {first:?}");
    assert!(!locators(second).contains(&outside) && second.signature.is_none(), "{second:?}");
    assert_eq!(scene.context(1).peer_locators.len(), 2);
    scene.check_mirrored();
}

#[test]
fn a_signed_locator_that_the_new_key_does_not_prove_goes_at_once() {
    let (mut scene, streams, outside) = signed(84);
    let since = scene.now;
    scene
        .reload(0, |_, hosts| {
            hosts.list_mut()[0].identity.locators.pop();
            hosts.set_key(Arc::new(SigningKey::generate(1024).unwrap()));
        })
        .unwrap();
    scene.run(s(40));
    let sent = told(&scene, since);
    let [only] = &sent[..] else { panic!("{sent:?}") };
    assert!(!locators(only).contains(&outside) && only.signature.is_none(), "{only:?}");
    scene.lossless(&streams, s(5));
}

#[test]
fn an_hba_host_has_no_locators_outside_its_set() {
    // R5533-011, R5535-040: its key is no key, so nothing can be signed for it.
    let (mut scene, streams) = Scene::talking(&three(None), 81);
    let key = Arc::new(SigningKey::generate(1024).unwrap());
    let before = scene.nodes[0].engine.hosts_view(scene.now);
    let refused = scene.reload(0, |_, hosts| {
        let locators = &mut hosts.list_mut()[0].identity.locators;
        locators[2] = Locator(std::net::Ipv6Addr::from_bits(locators[2].0.to_bits() ^ 0xffff));
        hosts.set_key(key);
    });
    assert!(matches!(refused, Err(SetupError::Host { reason: HostRefused::Unproved(_), .. })), "{refused:?}");
    assert_eq!(scene.nodes[0].engine.hosts_view(scene.now), before);
    scene.lossless(&streams, s(2));
}

#[test]
fn a_request_is_repeated_until_the_peer_is_there_again() {
    // R5533-252, R5533-255, R5533-257: two changes while the peer is away make one request in the end.
    let (mut scene, streams) = Scene::talking(&three(None), 82);
    let planned = planned(&scene);
    [3, 4].into_iter().for_each(|provider| scene.cut(provider, BOTH));
    scene.run(ms(100));
    keep(&mut scene, &planned, &[0, 1]).unwrap();
    scene.run(s(40));
    keep(&mut scene, &planned, &[1, 2]).unwrap();
    scene.run(s(40));
    let since = scene.now;
    [3, 4].into_iter().for_each(|provider| scene.heal(provider));
    scene.until_back(&streams, s(200));
    scene.run(s(200));
    let lists: Vec<Vec<Locator>> = told(&scene, since).iter().map(locators).collect();
    let locator = |at: usize| planned.1.iter().next().unwrap().identity.locators[at];
    assert!(!lists.is_empty() && lists.iter().all(|list| *list == [locator(1), locator(2)]), "{lists:?}");
    let known: Vec<_> = scene.context(1).peer_locators.iter().map(|it| Locator(it.locator)).collect();
    assert_eq!(known, [locator(1), locator(2)]);
    scene.lossless(&streams, s(5));
}
