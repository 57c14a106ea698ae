//! Which context gets a packet, and what goes back when none does (spec 6.R, 2.10, 6.U).

use dataplane::wire::checksum;
use dataplane::wire::shim6::{ErrorCode, ErrorMessage, Probe, ProbeReport, ProbeState};

use super::*;

fn inward() -> Addresses {
    between(locator(2, 1, 1), locator(1, 1, 1))
}

fn keepalive(receiver_tag: ContextTag) -> Message {
    Message::Keepalive { receiver_tag, options: Options::NONE }
}

/// A packet with `change` made to its Shim6 header, and the checksum right again.
fn resealed(message: &Message, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut octets = emit_packet(inward(), 64, message).unwrap();
    let mut header = octets.split_off(40);
    change(&mut header);
    header[1] = (header.len() / 8 - 1) as u8;
    header[4..6].fill(0);
    let sum = checksum::of(&header);
    header[4..6].copy_from_slice(&sum.to_be_bytes());
    octets[4..6].copy_from_slice(&(header.len() as u16).to_be_bytes());
    octets.extend(header);
    octets
}

#[test]
fn unknown_types_get_error_0_whatever_tag_they_may_hold() {
    // R5533-037, R5533-088, R5533-295, R5533-325
    let (mut a, _) = established();
    let local_tag = a.context(2).local_tag;
    for kind in [7, 63, 69, 100, 127] {
        let octets = resealed(&keepalive(local_tag), |header| header[2] = kind);
        let verdict = a.receive_octets(at(1), &octets);
        assert_eq!(verdict, Verdict::Answered(Answer::Error(ErrorCode::UnknownMessage)), "type {kind}");
        let (addresses, Message::Error(error)) = a.sent_one() else { panic!("not an Error") };
        assert_eq!((addresses, error.pointer, error.packet), (inward().swapped(), 42, octets));
    }
}

#[test]
fn a_critical_option_nobody_knows_stops_the_message() {
    // R5533-098, R5533-100, R5533-101, R5533-102, R5533-103
    let (a, b) = (Node::new(1), Node::new(2));
    let (mut a, mut b) = (b, a);
    a.open(at(0), 1).unwrap();
    let (addresses, i1) = a.sent_one();
    assert_eq!(addresses, inward());
    b.receive(at(0), addresses, &i1);
    let (addresses, r1) = b.sent_one();
    a.receive(at(0), addresses, &r1);
    let (_, i2) = a.sent_one();
    let option = |critical: u8| [0x24, 0x68 | critical, 0, 4, 1, 2, 3, 4];
    let length = emit_packet(inward(), 64, &i2).unwrap().len();
    let octets = resealed(&i2, |header| header.extend(option(1)));
    let verdict = b.receive_octets(at(0), &octets);
    assert_eq!(verdict, Verdict::Answered(Answer::Error(ErrorCode::CriticalOption)));
    let (_, Message::Error(error)) = b.sent_one() else { panic!("not an Error") };
    assert_eq!(usize::from(error.pointer), length);
    assert!(b.endpoint.is_empty());
    // R5533-099
    let octets = resealed(&i2, |header| header.extend(option(0)));
    assert_eq!(b.receive_octets(at(0), &octets), Verdict::Accepted);
    assert_eq!(b.endpoint.len(), 1);
}

#[test]
fn nothing_answers_an_error() {
    // R5533-088, R5533-324
    let (mut a, _) = established();
    for packet in [vec![0; 8], vec![0xff; 1232], emit_packet(inward(), 64, &keepalive(tag(1))).unwrap()] {
        let error = ErrorMessage::for_packet(ErrorCode::CriticalOption, 3, &packet);
        assert_eq!(a.receive(at(1), inward(), &Message::Error(error)), Verdict::Accepted);
        assert!(a.sent().is_empty());
    }
    // Not even when it is broken and the debugging knob is on.
    let mut a = Node::with(1, Config { debug_errors: true, ..Config::default() });
    let error = Message::Error(ErrorMessage::for_packet(ErrorCode::CriticalOption, 3, &[0; 64]));
    let mut octets = emit_packet(inward(), 64, &error).unwrap();
    octets[60] ^= 1;
    assert_eq!(a.receive_octets(at(1), &octets), Verdict::Dropped(DropReason::Malformed));
    assert_eq!(a.out, []);
}

#[test]
fn an_error_is_about_the_context_whose_packet_it_quotes() {
    // R5533-298, R5533-326
    let (mut a, b) = established();
    let (context, peer_tag) = (a.context(2).id, a.context(2).peer_tag.unwrap());
    let told = |a: &Node| match a.out.as_slice() {
        [Output::ErrorReceived { context, code: ErrorCode::Generation, pointer: 60 }] => *context,
        other => panic!("{other:?}"),
    };
    let receive = |a: &mut Node, addresses, message: &Message| {
        let packet = emit_packet(addresses, 64, message).unwrap();
        let error = Message::Error(ErrorMessage::for_packet(ErrorCode::Generation, 60, &packet));
        a.receive(at(1), inward(), &error);
        told(a)
    };
    let outward = inward().swapped();
    // On any pair of the two sets, by the peer's tag and not by ours.
    let other_pair = between(locator(1, 2, 1), locator(2, 2, 1));
    assert_eq!(receive(&mut a, outward, &keepalive(peer_tag)), Some(context));
    assert_eq!(receive(&mut a, other_pair, &keepalive(peer_tag)), Some(context));
    assert_eq!(receive(&mut a, between(locator(1, 1, 1), locator(3, 1, 1)), &keepalive(peer_tag)), None);
    assert_eq!(receive(&mut a, outward, &keepalive(b.context(1).peer_tag.unwrap())), None);
    // Handshake messages by our own tag and nonce.
    a.open(at(1), 3).unwrap();
    let (addresses, i1) = a.sent_one();
    let opening = a.context(3).id;
    assert_eq!(receive(&mut a, addresses, &i1), Some(opening));
    assert_eq!(receive(&mut a, outward, &i1), None);
    let r2 = |responder_tag| Message::R2 { responder_tag, initiator_nonce: 0, options: Options::NONE };
    let local_tag = a.context(2).local_tag;
    assert_eq!(receive(&mut a, outward, &r2(local_tag)), Some(context));
    assert_eq!(receive(&mut a, outward, &r2(peer_tag)), None);
}

#[test]
fn keepalives_and_probes_go_to_reap_with_their_addresses() {
    // R5533-087, R5533-296, R5533-297, R5534-050, R5534-052
    let (mut a, _) = established();
    let (id, local_tag) = (a.context(2).id, a.context(2).local_tag);
    let addresses = between(locator(2, 2, 1), locator(1, 2, 1));
    let sent = vec![ProbeReport { source: locator(2, 2, 1), target: locator(1, 2, 1), nonce: 1, data: 0 }];
    let probe = Probe {
        receiver_tag: local_tag,
        state: ProbeState::Exploring,
        sent,
        received: Vec::new(),
        options: Options::NONE,
    };
    for message in [keepalive(local_tag), Message::Probe(probe)] {
        assert_eq!(a.receive(at(1), addresses, &message), Verdict::Accepted);
        assert_eq!(a.out, [Output::Reap { id, addresses, message }]);
    }
    // With the tag of nobody, and outside ESTABLISHED, a Keepalive is none.
    a.receive(at(1), addresses, &keepalive(tag(local_tag.value() ^ 1)));
    assert!(!a.out.iter().any(|output| matches!(output, Output::Reap { .. })));
    let options = Options { validator: Some(vec![1]), ..Options::NONE };
    let packet_tag = a.context(2).peer_tag.unwrap();
    a.receive(at(1), addresses, &Message::R1bis { packet_tag, responder_nonce: 1, options });
    assert_eq!(a.context(2).state, State::I2bisSent);
    assert_eq!(a.receive(at(1), addresses, &keepalive(local_tag)), Verdict::Dropped(DropReason::WrongState));
    assert!(!a.out.iter().any(|output| matches!(output, Output::Reap { .. })));
}

#[test]
fn what_is_not_for_a_host_of_ours_is_dropped_by_name() {
    let mut a = Node::new(1);
    let i1 = |local: Ulid, peer: Ulid| Message::I1 {
        initiator_tag: tag(1),
        initiator_nonce: 1,
        options: Options { ulids: Some(UlidPair { local: peer, peer: local }), ..Options::NONE },
    };
    let multicast = Ulid("ff02::1".parse().unwrap());
    let cases = [
        (inward(), i1(ulid(1, 9), ulid(2, 1)), DropReason::UnknownHost),
        (between(locator(2, 1, 1), locator(1, 1, 9)), i1(ulid(1, 1), ulid(2, 1)), DropReason::ForeignTarget),
        (inward(), i1(ulid(1, 1), multicast), DropReason::BadAddress),
        (inward(), i1(ulid(1, 1), ulid(1, 1)), DropReason::BadAddress),
    ];
    for (addresses, message, reason) in cases {
        assert_eq!(a.receive(at(0), addresses, &message), Verdict::Dropped(reason));
        assert_eq!(a.out, []);
    }
}

#[test]
fn multicast_and_unspecified_addresses_are_dropped() {
    // R5533-002, R5533-294, D37
    let mut a = Node::new(1);
    let message = keepalive(tag(1));
    for bad in ["ff02::1", "::"] {
        let bad: Ipv6Addr = bad.parse().unwrap();
        for addresses in [Addresses { source: bad, ..inward() }, Addresses { target: bad, ..inward() }] {
            let packet = Incoming { addresses, message: Ok(&message), ipv6_packet: &[], shim6_offset: 40 };
            let verdict = a.endpoint.receive(at(0), &mut a.rng, packet, &mut a.out);
            assert_eq!(verdict, Verdict::Dropped(DropReason::BadAddress));
            let pair = pair(Locator(addresses.target), Locator(addresses.source));
            let verdict = a.endpoint.payload_without_context(at(0), tag(1), pair, &mut a.out);
            assert_eq!(verdict, Verdict::Dropped(DropReason::BadAddress));
        }
        assert_eq!(a.out, []);
        let ulids = UlidPair { local: ulid(1, 1), peer: Ulid(bad) };
        let open = a.open_with(at(0), Open { ulids, fork: 0, pairs: vec![a.pair(2)] });
        assert_eq!(open, Err(OpenRefused::NoLocators));
        let pairs = vec![pair(locator(1, 1, 1), Locator(bad))];
        let open = a.open_with(at(0), Open { ulids: a.ulids(2), fork: 0, pairs });
        assert_eq!(open, Err(OpenRefused::NoLocators));
    }
}

#[test]
fn while_debugging_silence_is_told_apart() {
    // R5533-091
    let quiet = {
        let mut a = Node::new(1);
        a.receive(at(0), inward(), &Message::R2 { responder_tag: tag(1), initiator_nonce: 1, options: Options::NONE });
        a.out
    };
    assert_eq!(quiet, []);
    let mut a = Node::with(1, Config { debug_errors: true, ..Config::default() });
    let stray = Message::R2 { responder_tag: tag(1), initiator_nonce: 1, options: Options::NONE };
    assert_eq!(a.receive(at(0), inward(), &stray), Verdict::Dropped(DropReason::NoContext));
    assert!(matches!(a.sent_one().1, Message::Error(ErrorMessage { code: ErrorCode::Other(120), .. })));
}

#[test]
fn an_octet_wrong_anywhere_is_silence() {
    // R5533-292, R5533-319
    let (mut a, _) = established();
    let good = emit_packet(inward(), 64, &keepalive(a.context(2).local_tag)).unwrap();
    for octet in 40..good.len() {
        // P and S decide what kind of header it is, which the packet path does before coming here.
        let mut bad = good.clone();
        bad[octet] ^= if octet == 42 { 0x01 } else { 0x10 };
        assert_eq!(a.receive_octets(at(1), &bad), Verdict::Dropped(DropReason::Malformed), "octet {octet}");
        assert_eq!(a.out, []);
    }
}

#[test]
fn missing_validators_are_silence() {
    // R5533-047, R5533-052
    let (mut a, _) = established();
    let options = || Options { validator: Some(vec![1; 4]), ..Options::NONE };
    let r1 = Message::R1 { initiator_nonce: 1, responder_nonce: 1, options: options() };
    let octets = resealed(&r1, |header| header.truncate(16));
    assert_eq!(a.receive_octets(at(1), &octets), Verdict::Dropped(DropReason::NoValidator));
    let i2 = Message::I2 { initiator_tag: tag(1), initiator_nonce: 1, responder_nonce: 1, options: options() };
    let octets = resealed(&i2, |header| header.truncate(24));
    assert_eq!(a.receive_octets(at(1), &octets), Verdict::Dropped(DropReason::NoValidator));
    assert_eq!(a.out, []);
}

#[test]
fn state_and_pair_say_how_payload_is_sent() {
    // R5533-279, R5533-280, R5533-281, R5533-282
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    assert_eq!(a.state(at(0), 2), State::Idle);
    a.open(at(0), 2).unwrap();
    assert!(!a.context(2).tags_payload());
    let (addresses, i1) = a.sent_one();
    b.receive(at(0), addresses, &i1);
    let (addresses, r1) = b.sent_one();
    a.receive(at(0), addresses, &r1);
    assert!(!a.context(2).tags_payload(), "nor in I2-SENT");
    converse(at(0), &mut a, &mut b);
    assert!(a.context(2).tags_payload());
    for state in [State::Idle, State::EFailed, State::NoSupport] {
        assert!(!state.carries_payload());
    }
}

#[test]
fn messages_shorter_than_their_fixed_part_are_silence() {
    // R5533-149, R5533-161, R5533-174, R5533-192, R5533-212, R5533-223, R5533-259, R5533-273
    let (mut a, _) = established();
    let local_tag = a.context(2).local_tag;
    for (kind, shortest) in [(1, 16), (2, 16), (3, 24), (4, 16), (5, 16), (6, 32), (64, 16), (65, 16), (66, 16)] {
        for length in (8..shortest).step_by(8) {
            let octets = resealed(&keepalive(local_tag), |header| {
                header.resize(length, 0);
                header[2] = kind;
            });
            let verdict = a.receive_octets(at(1), &octets);
            assert_eq!(verdict, Verdict::Dropped(DropReason::Malformed), "type {kind} with {length} octets");
            assert_eq!(a.out, []);
        }
    }
}
