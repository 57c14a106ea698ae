//! Messages nobody should have sent. They are dropped or answered as the RFCs say, each under its own count, and change
//! nothing else.

mod common;

use std::net::Ipv6Addr;

use common::{Scene, ms, s};
use control::sim::{Fault, Plan, VICTIM, packet};
use control::time::Instant;
use dataplane::counters::DropReason;
use dataplane::wire::shim6::{
    Addresses, ErrorCode, ErrorMessage, LocatorList, LocatorPreferences, Message, Options, PayloadHeader, Preference,
    Probe, ProbeReport, ProbeState, VerificationMethod, emit_packet,
};
use dataplane::wire::{ContextTag, Locator, Ulid, UlidPair, checksum};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Somewhere else in the world.
const STRANGER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 1, 0, 0, 0, 1);

/// Everything about a world that a stranger must not be able to change.
fn essence(scene: &Scene) -> Vec<String> {
    let mut all = Vec::new();
    for node in &scene.nodes {
        for context in node.contexts(scene.now) {
            all.push(format!(
                "{} {} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
                context.ulid_local,
                context.ulid_peer,
                context.fork,
                context.state,
                context.local_tag,
                context.peer_tag,
                context.current,
                context.local_locators,
                context.peer_locators,
                context.reap_state
            ));
        }
        for worker in &node.workers {
            all.extend(worker.shard().iter().map(|entry| {
                format!("{:?} {:?} {:?} {:?}", entry.local_tag, entry.peer_tag(), entry.locators, entry.phase)
            }));
        }
    }
    all
}

/// What an attacker may know of the context of hosts 0 and 1.
struct Known {
    /// Identifiers, site 0's first.
    ulids: [Ipv6Addr; 2],
    /// The pair in use, site 0's first.
    pair: [Ipv6Addr; 2],
    /// The tag that site 0's box wants to see.
    tag: ContextTag,
}

impl Known {
    fn of(scene: &Scene) -> Known {
        let context = scene.context(0);
        let current = context.current.unwrap();
        let tag = u64::from_str_radix(&context.local_tag.unwrap(), 16).unwrap();
        Known {
            ulids: [scene.hosts[0].ulid, scene.hosts[1].ulid],
            pair: [current.local, current.peer],
            tag: ContextTag::new(tag).unwrap(),
        }
    }

    /// As the peer would say it: its own identifier first.
    fn claim(&self) -> Options {
        let ulids = UlidPair { local: Ulid(self.ulids[1]), peer: Ulid(self.ulids[0]) };
        Options { ulids: Some(ulids), ..Options::default() }
    }
}

fn to(source: Ipv6Addr, target: Ipv6Addr, message: &Message) -> Vec<u8> {
    emit_packet(Addresses { source, target }, 64, message).unwrap()
}

fn wrong() -> ContextTag {
    ContextTag::truncate(0x1234)
}

fn options() -> Options {
    Options::default()
}

/// Packets, and the count of site 0's box that each goes under.
fn forgeries(known: &Known) -> Vec<(&'static str, Vec<u8>)> {
    let [ours, theirs] = known.pair;
    let validated = || Options { validator: Some(vec![7; 16]), ..known.claim() };
    // The box numbers its nonces, so the first few are easy to guess; the validator is not.
    let i2 = |responder_nonce| Message::I2 {
        initiator_tag: wrong(),
        initiator_nonce: 1,
        responder_nonce,
        options: validated(),
    };
    let i2bis = Message::I2bis {
        initiator_tag: wrong(),
        initiator_nonce: 1,
        responder_nonce: 2,
        packet_tag: known.tag,
        options: validated(),
    };
    let r1 = |nonce| Message::R1 {
        initiator_nonce: nonce,
        responder_nonce: 2,
        options: Options { validator: Some(vec![7; 16]), ..options() },
    };
    let r1bis = |packet_tag| Message::R1bis {
        packet_tag,
        responder_nonce: 2,
        options: Options { validator: Some(vec![7; 16]), ..options() },
    };
    let r2 = Message::R2 { responder_tag: wrong(), initiator_nonce: 77, options: options() };
    let update = |receiver_tag, options| Message::UpdateRequest { receiver_tag, request_nonce: 9, options };
    let ack = |receiver_tag| Message::UpdateAck { receiver_tag, request_nonce: 9, options: options() };
    let keepalive = |receiver_tag| Message::Keepalive { receiver_tag, options: options() };
    let report = |source, target| ProbeReport { source: Locator(source), target: Locator(target), nonce: 1, data: 2 };
    let probe = |receiver_tag, state, sent| {
        Message::Probe(Probe { receiver_tag, state, sent, received: Vec::new(), options: options() })
    };
    let stolen =
        LocatorList { generation: 5, entries: vec![(Locator(STRANGER), VerificationMethod::Hba)], methods_offset: 0 };
    let stolen = Options { locators: Some(stolen), ..options() };
    let preferences = |generation, count| {
        let element = Preference { flags: Preference::BROKEN, priority: None, weight: None };
        let elements = vec![element; count];
        let preferences = LocatorPreferences { generation, element_len: 1, elements, offset: 0 };
        Options { preferences: Some(preferences), ..options() }
    };
    let elsewhere = Options {
        ulids: Some(UlidPair { local: Ulid(known.ulids[1]), peer: Ulid("fc00:a:0:1::77".parse().unwrap()) }),
        ..options()
    };
    let from_inside = |ulid: Ipv6Addr| Options {
        ulids: Some(UlidPair { local: Ulid(ulid), peer: Ulid(known.ulids[0]) }),
        ..options()
    };
    let beside = |address: Ipv6Addr, bit: u32| Ipv6Addr::from_bits(address.to_bits() ^ 1 << bit);
    let [host, link_local] = [known.ulids[0], Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77)];
    let i1 = |options| Message::I1 { initiator_tag: wrong(), initiator_nonce: 1, options };
    let quote = to(ours, theirs, &keepalive(wrong()));
    let error = Message::Error(ErrorMessage::for_packet(ErrorCode::UnknownMessage, 42, &quote));
    let cut = |packet: Vec<u8>| {
        let mut packet = packet[..packet.len() - 8].to_vec();
        let length = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&length.to_be_bytes());
        packet
    };
    let flipped = |mut packet: Vec<u8>| {
        *packet.last_mut().unwrap() ^= 1;
        packet
    };
    let typed = |kind: u8| {
        let mut packet = to(STRANGER, ours, &keepalive(wrong()));
        packet[42] = kind;
        packet[44..46].fill(0);
        let sum = checksum::of(&packet[40..]);
        packet[44..46].copy_from_slice(&sum.to_be_bytes());
        packet
    };
    vec![
        // Exchanges that nobody began.
        ("shim6_drop_unknown_host", to(STRANGER, ours, &i1(elsewhere))),
        // As if from within the site: its hosts' subnet, another one, what a provider delegated; and nobody's.
        ("shim6_drop_own_ulid", to(STRANGER, ours, &i1(from_inside(beside(host, 3))))),
        ("shim6_drop_own_ulid", to(STRANGER, ours, &i1(from_inside(beside(host, 66))))),
        ("shim6_drop_own_ulid", to(STRANGER, ours, &i1(from_inside(beside(ours, 3))))),
        ("shim6_drop_bad_address", to(STRANGER, ours, &i1(from_inside(link_local)))),
        ("shim6_drop_no_context", to(theirs, ours, &r1(1))),
        ("shim6_drop_no_context", to(STRANGER, ours, &r1(1))),
        ("shim6_drop_no_context", to(STRANGER, ours, &r2)),
        ("shim6_drop_stale_nonce", to(theirs, ours, &i2(0xdead_beef))),
        ("shim6_drop_bad_validator", to(theirs, ours, &i2(2))),
        ("shim6_drop_bad_validator", to(STRANGER, ours, &i2(2))),
        ("shim6_drop_bad_validator", to(theirs, ours, &i2bis)),
        ("shim6_drop_no_context", to(theirs, ours, &r1bis(wrong()))),
        ("shim6_drop_no_context", to(STRANGER, ours, &r1bis(wrong()))),
        // Tags that were guessed: an honest peer may have lost its context, and is told so.
        ("shim6_answered_r1bis", to(theirs, ours, &update(wrong(), options()))),
        ("shim6_answered_r1bis", to(theirs, ours, &ack(wrong()))),
        ("shim6_answered_r1bis", to(theirs, ours, &keepalive(wrong()))),
        ("shim6_answered_r1bis", to(theirs, ours, &probe(wrong(), ProbeState::Exploring, vec![report(theirs, ours)]))),
        // The right tag from the wrong place (R5533-275, R5533-297).
        ("shim6_answered_r1bis", to(STRANGER, ours, &update(known.tag, options()))),
        ("shim6_answered_r1bis", to(STRANGER, ours, &ack(known.tag))),
        ("shim6_answered_r1bis", to(STRANGER, ours, &keepalive(known.tag))),
        (
            "shim6_answered_r1bis",
            to(STRANGER, ours, &probe(known.tag, ProbeState::Exploring, vec![report(STRANGER, ours)])),
        ),
        // The right tag and the right place, and still not what may be said.
        ("shim6_answered_error_2", to(theirs, ours, &update(known.tag, stolen))),
        ("shim6_answered_error_3", to(theirs, ours, &update(known.tag, preferences(12345, 2)))),
        ("shim6_drop_wrong_nonce", to(theirs, ours, &ack(known.tag))),
        (
            "probe_drop_address_mismatch",
            to(theirs, ours, &probe(known.tag, ProbeState::Operational, vec![report(STRANGER, ours)])),
        ),
        // Errors are heard and answered by nothing (R5533-324).
        ("control_errors_received", to(theirs, ours, &error)),
        // What cannot be read (R5533-292 to -295).
        ("message_checksum", flipped(to(theirs, ours, &keepalive(known.tag)))),
        ("message_truncated", cut(to(theirs, ours, &i2(2)))),
        ("shim6_answered_error_0", typed(7)),
        ("shim6_answered_error_0", typed(127)),
        ("control_icmp_not_ours", packet::error_about(&quote, theirs, 2, 0, 500).map(|it| retarget(it, ours)).unwrap()),
        ("control_icmp_not_ours", packet::icmp(STRANGER, ours, 64, &[1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3])),
    ]
}

/// The same ICMPv6 message to another address.
fn retarget(packet: Vec<u8>, target: Ipv6Addr) -> Vec<u8> {
    let source: [u8; 16] = packet[8..24].try_into().unwrap();
    packet::icmp(source.into(), target, 64, &packet[40..])
}

#[test]
fn forgeries_are_counted_and_change_nothing() {
    // R5534-109
    let (mut scene, streams) = Scene::talking(&Plan::default(), 1);
    let known = Known::of(&scene);
    let provider = scene.in_use(0);
    let before = essence(&scene);
    let since = scene.now;
    for (at, (count, packet)) in forgeries(&known).into_iter().enumerate() {
        let counted = scene.nodes[0].tally(count);
        scene.inject(provider, &packet);
        scene.run(ms(60));
        let now = scene.nodes[0].tally(count);
        assert_eq!(now, counted + 1, "forgery {at}: {count}; {:?}", grown(&scene));
        assert_eq!(essence(&scene), before, "forgery {at}, {count}");
    }
    let until = scene.now;
    scene.run(ms(500));
    for stream in streams {
        assert_eq!(scene.streams[stream].missing(since, until), 0);
    }
    assert_eq!(scene.ready(0).len() + scene.ready(1).len(), 2);
}

fn grown(scene: &Scene) -> Vec<(&'static str, u64)> {
    let counts = scene.nodes[0].engine.tally().iter().map(|(name, _, count)| (name, count));
    counts.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn an_i1_is_answered_without_a_trace() {
    // R5534-111, R5535-039
    let (mut scene, streams) = Scene::talking(&Plan::default(), 2);
    let known = Known::of(&scene);
    let provider = scene.in_use(0);
    let before = essence(&scene);
    for number in 0..100 {
        let options = Options {
            ulids: Some(UlidPair {
                local: Ulid(Ipv6Addr::new(0xfc00, 0xbad, 0, 0, 0, 0, 0, number)),
                peer: Ulid(known.ulids[0]),
            }),
            ..options()
        };
        let tag = ContextTag::truncate(u64::from(number));
        let i1 = Message::I1 { initiator_tag: tag, initiator_nonce: 7, options };
        scene.inject(provider, &to(STRANGER, known.pair[0], &i1));
    }
    scene.lossless(&streams, s(1));
    assert_eq!(scene.nodes[0].tally("shim6_answered_r1"), 100);
    assert_eq!(essence(&scene), before);
}

/// A stranger who answers at its own address, and says it is host 1. It may use everything host 1 tells the world.
struct Impostor {
    provider: usize,
    target: Ipv6Addr,
    claim: Options,
}

impl Impostor {
    /// I1, and the I2 for the R1 that comes back; the messages its victim sent in answer to the I2.
    fn shake(&self, scene: &mut Scene, offer: Options) -> Vec<Message> {
        let i1 = Message::I1 { initiator_tag: wrong(), initiator_nonce: 7, options: self.claim.clone() };
        let heard = |scene: &Scene, since: Instant| -> Vec<Message> {
            let to_us = scene.captured.iter().filter(|it| it.addresses.1 == STRANGER && it.at >= since);
            to_us.map(|it| it.message.clone()).collect()
        };
        let since = scene.now;
        scene.inject(self.provider, &to(STRANGER, self.target, &i1));
        scene.run(ms(50));
        let answers = heard(scene, since);
        let [Message::R1 { responder_nonce, options, .. }] = &answers[..] else { panic!("{answers:?}") };
        let i2 = Message::I2 {
            initiator_tag: wrong(),
            initiator_nonce: 7,
            responder_nonce: *responder_nonce,
            options: Options { validator: options.validator.clone(), ulids: self.claim.ulids, ..offer },
        };
        let since = scene.now;
        scene.inject(self.provider, &to(STRANGER, self.target, &i2));
        scene.run(ms(50));
        heard(scene, since)
    }
}

/// What host 1's box tells everyone in an exchange.
fn told(scene: &Scene) -> Options {
    let told = scene.captured.iter().find_map(|it| match &it.message {
        Message::R2 { options, .. } | Message::I2 { options, .. } if scene.providers[it.provider].site == 1 => {
            Some(options.clone())
        }
        _ => None,
    });
    told.expect("an R2 or I2 of site 1")
}

#[test]
fn nobody_can_pass_for_a_host_whose_identifier_it_does_not_own() {
    // Learn what host 1 says about itself, in a world of the same seed.
    let (scene, _) = Scene::talking(&Plan::default(), 3);
    let (known, provider) = (Known::of(&scene), scene.in_use(0));
    let honest = told(&scene);
    drop(scene);

    for with_context in [false, true] {
        let (mut scene, streams) = match with_context {
            true => {
                let (scene, streams) = Scene::talking(&Plan::default(), 3);
                (scene, Some(streams))
            }
            false => {
                let mut scene = Scene::new(&Plan::default(), 3);
                scene.run(ms(100));
                (scene, None)
            }
        };
        assert_eq!([scene.hosts[0].ulid, scene.hosts[1].ulid], known.ulids, "the same world");
        let before = essence(&scene);
        let impostor = Impostor { provider, target: known.pair[0], claim: known.claim() };
        let list = |entries: Vec<(Ipv6Addr, VerificationMethod)>| LocatorList {
            generation: 9,
            entries: entries.into_iter().map(|(address, method)| (Locator(address), method)).collect(),
            methods_offset: 0,
        };
        use VerificationMethod::{Cga, Hba, Other};
        let pds = honest.pds.clone();
        let mut altered = honest.pds.clone().unwrap();
        altered[3] ^= 1;
        let mine = |method| Some(list(vec![(STRANGER, method)]));
        let mixed = Some(list(vec![(known.pair[1], Hba), (STRANGER, Hba)]));
        let offers = [
            ("no proof at all", options()),
            ("its parameters alone", Options { pds: pds.clone(), ..options() }),
            ("own locator as one of the set", Options { pds: pds.clone(), locators: mine(Hba), ..options() }),
            ("own locator as signed", Options { pds: pds.clone(), locators: mine(Cga), ..options() }),
            (
                "own locator with a signature",
                Options { pds: pds.clone(), locators: mine(Cga), signature: Some(vec![1; 256]), ..options() },
            ),
            ("an unknown method", Options { pds: pds.clone(), locators: mine(Other(7)), ..options() }),
            ("own locator among true ones", Options { pds: pds.clone(), locators: mixed, ..options() }),
            ("altered parameters", Options { pds: Some(altered), locators: mine(Hba), ..options() }),
            ("a list without parameters", Options { locators: mine(Hba), ..options() }),
        ];
        for (what, offer) in offers {
            let answers = impostor.shake(&mut scene, offer);
            assert!(
                !answers.iter().any(|answer| matches!(answer, Message::R2 { .. })),
                "{what}, context {with_context}: {answers:?}"
            );
            assert_eq!(essence(&scene), before, "{what}, context {with_context}");
        }
        if let Some(streams) = streams {
            scene.lossless(&streams, s(1));
        } else {
            // And the way to the real host is open.
            let stream = scene.stream(0, 1, ms(20));
            assert!(scene.until_back(&[stream], s(10)) < s(1));
        }
    }
}

#[test]
fn a_recorded_exchange_does_nothing_when_it_is_played_again() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 4);
    let recorded = scene.captured.clone();
    let before = essence(&scene);
    for wait in [ms(10), s(40)] {
        for captured in &recorded {
            let (source, target) = captured.addresses;
            let provider = scene.provider_of(target).unwrap();
            scene.inject(provider, &to(source, target, &captured.message));
            scene.run(wait);
        }
        scene.run(ms(100));
        assert_eq!(essence(&scene), before);
    }
    scene.lossless(&streams, s(1));
}

/// Somebody was on the path and saw everything: identifiers, locators, tags, what both ends tell about themselves. Now it
/// is elsewhere, and may put any source address on its packets.
#[test]
fn who_saw_everything_and_left_turns_nothing_to_itself() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 7);
    let (known, honest) = (Known::of(&scene), told(&scene));
    let [ours, theirs] = known.pair;
    let before = essence(&scene);
    let true_list = honest.locators.clone().expect("a host with locators");
    let with_mine = |generation, method| {
        let mut entries = true_list.entries.clone();
        entries.push((Locator(STRANGER), method));
        LocatorList { generation, entries, methods_offset: 0 }
    };
    let update = |options| Message::UpdateRequest { receiver_tag: known.tag, request_nonce: 3, options };
    let next = true_list.generation.wrapping_add(1);
    use VerificationMethod::{Cga, Hba};
    let lists =
        [(with_mine(next, Hba), None), (with_mine(next, Cga), None), (with_mine(next, Cga), Some(vec![1; 128]))];
    let report =
        |source, target, nonce| ProbeReport { source: Locator(source), target: Locator(target), nonce, data: 0 };
    let probe = |source, state| {
        let (sent, received) = (vec![report(source, ours, 1)], vec![report(ours, STRANGER, 2)]);
        Message::Probe(Probe { receiver_tag: known.tag, state, sent, received, options: options() })
    };
    let mut told = Vec::new();
    for (list, signature) in lists {
        let options = Options { locators: Some(list), pds: honest.pds.clone(), signature, ..options() };
        told.push((theirs, update(options)));
    }
    for state in [ProbeState::InboundOk, ProbeState::Operational] {
        told.push((theirs, probe(theirs, state)));
        told.push((STRANGER, probe(STRANGER, state)));
    }
    let since = scene.now;
    for (source, message) in told {
        let provider = scene.in_use(0);
        scene.inject(provider, &to(source, ours, &message));
        scene.run(ms(100));
        assert_eq!(essence(&scene), before, "{message:?}");
    }
    // It knows our tag for the peer as well and says that the peer has lost the context. That costs an exchange with the
    // true peer, and payload goes on to the true peer meanwhile (R5533-214, R5533-316).
    let peer_tag = u64::from_str_radix(&scene.context(0).peer_tag.expect("established"), 16).unwrap();
    let lost = Message::R1bis {
        packet_tag: ContextTag::new(peer_tag).unwrap(),
        responder_nonce: 2,
        options: Options { validator: Some(vec![7; 16]), ..options() },
    };
    let provider = scene.in_use(0);
    scene.inject(provider, &to(theirs, ours, &lost));
    scene.lossless(&streams, s(10));
    scene.run(s(60));
    scene.until_back(&streams, s(10));
    scene.lossless(&streams, s(5));
    scene.check_mirrored();
    // Of all that boxes said, nothing but answers to its own packets went to it.
    let to_it = scene.captured.iter().filter(|it| it.at >= since && it.addresses.1 == STRANGER);
    let answers = to_it.map(|it| matches!(it.message, Message::R1bis { .. } | Message::Error(_)));
    assert!(answers.clone().count() <= 2 && answers.into_iter().all(|answer| answer));
}

/// A peer with an identity of its own claims somebody else's address, or one of its own under somebody else's prefix, and
/// wants packets sent there. The world judges what arrives there (`Oracle::Bystander`, `Oracle::Reachable`).
#[test]
fn a_peer_that_lies_has_nobody_bombed() {
    let mut tried = [0; 2];
    let mut asked = 0;
    for seed in 0..12 {
        let (mut scene, streams) = Scene::talking(&Plan::default(), 200 + seed);
        let since = scene.now;
        scene.lie(0, 90, &mut StdRng::seed_from_u64(seed));
        scene.lossless(&streams, s(40));
        tried[0] += scene.faults.of(Fault::FalseClaim);
        tried[1] += scene.faults.of(Fault::Bombing);
        let victims = VICTIM.segments()[..4].to_vec();
        let there: Vec<_> = scene.captured.iter().filter(|it| it.addresses.1.segments()[..4] == victims[..]).collect();
        assert!(there.iter().all(|it| it.at >= since && packet::asks_for_a_sign(&it.message)), "{there:?}");
        asked += there.len();
    }
    assert!(tried.iter().all(|times| *times > 20), "{tried:?}");
    assert!(asked > 0, "some addresses were good enough to be asked whether anybody is there");
}

#[test]
fn noise_changes_nothing() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 5);
    let known = Known::of(&scene);
    let before = essence(&scene);
    let mut rng = StdRng::seed_from_u64(5);
    let since = scene.now;
    for _ in 0..2000 {
        let length = (rng.next_u32() % 20 + 1) * 8;
        let mut header = vec![0; length as usize];
        rng.fill_bytes(&mut header);
        // Half of them would be read as far as the length and checksum go.
        if rng.next_u32().is_multiple_of(2) {
            (header[0], header[1]) = (59, (length / 8 - 1) as u8);
            header[2] &= 0x7f;
            header[3] &= 0xfe;
            header[4..6].fill(0);
            let sum = checksum::of(&header);
            header[4..6].copy_from_slice(&sum.to_be_bytes());
        }
        let next_header = [140, 140, 140, 58, 43, 44, 0, 60][(rng.next_u32() % 8) as usize];
        let source = if rng.next_u32().is_multiple_of(2) { known.pair[1] } else { STRANGER };
        let noise = packet::ipv6(source, known.pair[0], next_header, 64, &header);
        let provider = scene.in_use(0);
        scene.inject(provider, &noise);
        scene.run(ms(1));
    }
    assert_eq!(essence(&scene), before);
    let until = scene.now;
    scene.run(ms(500));
    for stream in streams {
        assert_eq!(scene.streams[stream].missing(since, until), 0);
    }
}

#[test]
fn payload_with_a_guessed_tag_goes_nowhere() {
    let (mut scene, _) = Scene::talking(&Plan::default(), 6);
    let known = Known::of(&scene);
    let provider = scene.in_use(0);
    let before = essence(&scene);
    for guess in 0..200 {
        let header = PayloadHeader { next_header: 17, tag: ContextTag::truncate(guess * 0x1357_9bdf) }.emit();
        let guessed = packet::ipv6(STRANGER, known.pair[0], 140, 64, &[&header[..], &[0; 40]].concat());
        scene.inject(provider, &guessed);
    }
    scene.run(ms(100));
    assert_eq!(scene.nodes[0].dropped(DropReason::UnknownTag), 200);
    assert_eq!(scene.nodes[0].tally("shim6_answered_r1bis"), 200);
    assert_eq!((essence(&scene), scene.hosts[0].inbox.len()), (before, 0));
}

/// Someone on the path changes octets of what it sees and puts the checksum right. That may break a session for a while;
/// it must not break a box, and when it ends all is well.
#[test]
fn what_is_changed_on_the_way_breaks_no_box() {
    for seed in 0..10 {
        let mut scene = Scene::new(&Plan::default(), 100 + seed);
        let streams = [scene.stream(0, 1, ms(20)), scene.stream(1, 0, ms(20))];
        let mut rng = StdRng::seed_from_u64(seed);
        let mut played = 0;
        for round in 0..100 {
            scene.run(ms(20));
            if round == 50 {
                scene.restart((seed % 2) as usize);
            }
            while let Some(captured) = scene.captured.get(played).cloned() {
                played += 1;
                let (source, target) = captured.addresses;
                let provider = scene.provider_of(target).unwrap();
                let original = to(source, target, &captured.message);
                for _ in 0..8 {
                    let mut changed = original.clone();
                    for _ in 0..=rng.next_u32() % 3 {
                        let at = 42 + rng.next_u32() as usize % (changed.len() - 42);
                        changed[at] = rng.next_u32() as u8;
                    }
                    changed[44..46].fill(0);
                    let sum = checksum::of(&changed[40..]);
                    changed[44..46].copy_from_slice(&sum.to_be_bytes());
                    scene.inject(provider, &changed);
                }
            }
        }
        scene.run(s(20));
        scene.until_back(&streams, s(90));
        scene.run(s(5));
        scene.lossless(&streams, s(5));
    }
}
