//! What the hosts' upper layers see of the network through the box: its errors, its sizes, its changes of path.

mod common;

use std::time::Duration;

use common::{Scene, ms, s};
use control::engine::Story;
use control::sim::{Plan, SitePlan, Way, packet};
use dataplane::counters::Count;
use dataplane::wire::ContextTag;
use dataplane::wire::ipv6::{View, protocol};
use dataplane::wire::shim6::PayloadHeader;

const BOTH: &[Way] = &[Way::Out, Way::In];
/// How long traffic may stay away when a path fails; see `two_boxes.rs`.
const OUTAGE_MAX: Duration = ms(3000 + 1600);

/// Both sites with so many providers each.
fn providers(count: u16) -> Plan {
    Plan { sites: vec![SitePlan { providers: count, ..SitePlan::default() }; 2], ..Plan::default() }
}

/// A packet of UDP as box 0 sends it now for its first context.
fn payload_of(scene: &Scene) -> Vec<u8> {
    let context = scene.context(0);
    let pair = context.current.unwrap();
    let tag = ContextTag::new(u64::from_str_radix(&context.peer_tag.unwrap(), 16).unwrap()).unwrap();
    let header = PayloadHeader { next_header: 17, tag }.emit();
    packet::ipv6(pair.local, pair.peer, 140, 63, &[&header[..], &[0; 40]].concat())
}

/// ICMPv6 errors about a packet with a payload header: type, code, the word after the checksum, and whether the box can do
/// something about it where there is another path (the table of RFC 5533 §8).
const ERRORS: &[(u8, u8, u32, bool)] = &[
    (1, 0, 0, true),
    (1, 1, 0, true),
    (1, 2, 0, true),
    (1, 3, 0, true),
    // Port unreachable: the peer is there.
    (1, 4, 0, false),
    (1, 5, 0, true),
    (1, 6, 0, true),
    (2, 0, 1400, false),
    (3, 0, 0, true),
    (3, 1, 0, true),
    // About the payload header, the octet that names it, and what is behind it.
    (4, 0, 42, true),
    (4, 1, 6, true),
    (4, 0, 50, false),
    // A type nobody knows.
    (100, 7, 5, false),
];

/// Lets a router send the error, and gives back whether the host got it.
fn reaches_the_host(scene: &mut Scene, (kind, code, word): (u8, u8, u32)) -> bool {
    let provider = scene.in_use(0);
    let router = scene.providers[provider].router;
    let error = packet::error_about(&payload_of(scene), router, kind, code, word).unwrap();
    scene.inject(provider, &error);
    scene.run(ms(100));
    if scene.hosts[0].inbox.is_empty() {
        return false;
    }
    let (got_kind, got_code, _, quote) = scene.error_at(0);
    assert_eq!((got_kind, got_code), (kind, code));
    let quoted = View::of_quote(&quote).unwrap();
    assert_eq!((quoted.source(), quoted.target()), (scene.hosts[0].ulid, scene.hosts[1].ulid));
    assert_eq!((quoted.next_header(), quote.len()), (protocol::UDP, 80), "no header and no locators");
    true
}

// R5533-236, R5533-238, R5533-239
#[test]
fn every_error_is_mended_or_delivered() {
    for (seed, &(kind, code, word, of_the_path)) in (0..).zip(ERRORS) {
        for alternative in [true, false] {
            let (mut scene, _) = Scene::talking(&providers(if alternative { 2 } else { 1 }), seed);
            let mended = of_the_path && alternative;
            // A hop limit that ran out may be what the host wants to hear of.
            let delivered = !mended || kind == 3;
            assert_eq!(reaches_the_host(&mut scene, (kind, code, word)), delivered, "{kind}/{code}, {alternative}");
            // What is not delivered is acted on: the context tests its path.
            assert_eq!(scene.nodes[0].tally("control_icmp_acted_on"), u64::from(mended));
            let explored =
                scene.stories.iter().any(|(_, site, story)| *site == 0 && matches!(story, Story::Exploring(..)));
            assert_eq!(explored, mended, "{kind}/{code}");
        }
    }
}

// R5533-236: a test that is not made, since the last one was a moment ago, mends nothing.
#[test]
fn an_error_on_which_nothing_is_done_is_delivered() {
    let (mut scene, _) = Scene::talking(&providers(2), 60);
    let &(kind, code, word, _) = ERRORS.iter().find(|it| it.0 == 1 && it.3).unwrap();
    assert!(!reaches_the_host(&mut scene, (kind, code, word)));
    scene.hosts[0].inbox.clear();
    assert!(reaches_the_host(&mut scene, (kind, code, word)));
    assert_eq!(scene.nodes[0].tally("control_icmp_acted_on"), 1);
    assert_eq!(scene.nodes[0].tally("control_hints_paced"), 1);
}

// R5533-237
#[test]
fn every_error_is_delivered_if_the_operator_wants_it() {
    for (seed, &(kind, code, word, of_the_path)) in (20..).zip(ERRORS) {
        let plan = Plan { shim6: "icmp_errors_to_hosts = true".into(), ..Plan::default() };
        let (mut scene, _) = Scene::talking(&plan, seed);
        assert!(reaches_the_host(&mut scene, (kind, code, word)), "{kind}/{code}");
        assert_eq!(scene.nodes[0].tally("control_icmp_acted_on"), u64::from(of_the_path), "and acted on as well");
    }
}

/// Sends a datagram in a packet of `octets` from host 0 to host 1, and lets it arrive.
fn send_sized(scene: &mut Scene, octets: usize) -> Vec<u8> {
    let sent = packet::udp(scene.hosts[0].ulid, scene.hosts[1].ulid, (9, 9), &vec![7; octets - 48]);
    scene.send(0, &sent);
    scene.run(ms(200));
    sent
}

// R5533-308: the host's own discovery of the path MTU works over whichever pair is in use.
#[test]
fn a_path_with_a_smaller_mtu_is_learned_after_the_switch() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 40);
    let first = scene.in_use(0);
    let other = 1 - first;
    scene.providers[other].mtu = 1400;
    send_sized(&mut scene, 1492);
    assert_eq!((scene.hosts[0].inbox.len(), scene.hosts[1].inbox.len()), (0, 1), "it fits where it is");
    scene.cut(first, BOTH);
    scene.until_back(&streams, OUTAGE_MAX);
    scene.run(s(2));
    assert_eq!(scene.in_use(0), other);
    scene.hosts[1].inbox.clear();
    send_sized(&mut scene, 1492);
    let (kind, _, mtu, _) = scene.error_at(0);
    assert_eq!((kind, mtu), (2, 1392));
    send_sized(&mut scene, 1392);
    assert_eq!(scene.hosts[1].inbox.len(), 1);
}

// R5533-308, R5533-331: a router that takes 1280 octets and no more. The host may send as many, so the box learns to cut.
#[test]
fn a_path_without_room_for_the_header_costs_one_packet() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 41);
    let provider = scene.in_use(0);
    scene.providers[provider].mtu = 1280;
    let sent = send_sized(&mut scene, 1280);
    let (kind, _, mtu, quote) = scene.error_at(0);
    assert_eq!((kind, mtu), (2, 1280));
    assert_eq!(quote[40..], sent[40..quote.len()]);
    scene.hosts[0].inbox.clear();
    assert_eq!(scene.hosts[1].inbox.len(), 0);
    for octets in [1273, 1276, 1280] {
        let sent = send_sized(&mut scene, octets);
        let pieces: Vec<Vec<u8>> = scene.hosts[1].inbox.drain(..).map(|(_, packet)| packet).collect();
        assert!(pieces.len() == 2 && pieces.iter().all(|piece| piece[6] == protocol::FRAGMENT), "{octets}");
        assert_eq!([&pieces[0][48..], &pieces[1][48..]].concat(), sent[40..]);
    }
    send_sized(&mut scene, 1272);
    assert_eq!((scene.hosts[1].inbox.len(), scene.hosts[0].inbox.len()), (1, 0));
    assert_eq!(scene.nodes[0].count(Count::Fragmented), 3);
    // Another path is not that narrow.
    scene.cut(provider, BOTH);
    scene.until_back(&streams, OUTAGE_MAX);
    scene.run(s(2));
    scene.hosts[1].inbox.clear();
    send_sized(&mut scene, 1280);
    assert_eq!((scene.hosts[1].inbox.len(), scene.nodes[0].count(Count::Fragmented)), (1, 3));
}

// R5533-304: what the box can tell of a change of path, it tells: the log, whoever asks, and the host's TCP by a segment
// that is repeated (decision 0014).
#[test]
fn a_change_of_path_is_told() {
    // R5534-034
    let (mut scene, streams) = Scene::talking(&Plan::default(), 42);
    let (before, since) = (scene.context(0), scene.now);
    let failed = scene.in_use(0);
    scene.cut(failed, BOTH);
    scene.until_back(&streams, OUTAGE_MAX);
    scene.run(s(2));
    let moves = scene.stories.iter().filter_map(|(at, site, story)| match story {
        Story::Moved(ulids, from, to) if *site == 0 && *at >= since => Some((*ulids, *from, *to)),
        _ => None,
    });
    let moves: Vec<_> = moves.collect();
    let (first, last) = (moves.first().expect("a story"), moves.last().expect("a story"));
    assert_eq!((first.0.local.0, first.0.peer.0), (before.ulid_local, before.ulid_peer));
    assert_eq!(first.1.local.0, before.current.unwrap().local);
    let now = scene.context(0).current.unwrap();
    assert_eq!((last.2.local.0, last.2.peer.0), (now.local, now.peer));
    assert_eq!(scene.nodes[0].tally("control_pair_changes"), moves.len() as u64);
}

// R5533-010
#[test]
fn a_peer_with_one_locator_is_reached_by_changing_the_source() {
    let sites = vec![SitePlan::default(), SitePlan { providers: 1, ..SitePlan::default() }];
    let (mut scene, streams) = Scene::talking(&Plan { sites, ..Plan::default() }, 43);
    let (before, failed) = (scene.context(0), scene.in_use(0));
    assert_eq!((before.local_locators.len(), before.peer_locators.len()), (2, 1));
    scene.cut(failed, BOTH);
    let took = scene.until_back(&streams, s(60));
    assert!(took <= OUTAGE_MAX, "{took:?}");
    scene.run(s(1));
    let (old, new) = (before.current.unwrap(), scene.context(0).current.unwrap());
    assert_eq!(old.peer, new.peer);
    assert_ne!(old.local, new.local);
    scene.lossless(&streams, s(5));
}

// R5533-244, R5533-245: the box sees no sockets, but every packet of theirs; five minutes count from the last, in either
// direction.
#[test]
fn a_slow_conversation_keeps_its_context() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut scene = Scene::new(&Plan::default(), 44);
        let stream = scene.stream(from, to, s(250));
        scene.run(s(10));
        let tag = scene.context(0).local_tag;
        scene.lossless(&[stream], s(1500));
        assert_eq!(scene.context(0).local_tag, tag);
        assert!(scene.nodes.iter().all(|node| node.tally("control_context_gone") == 0));
    }
}
