//! R1bis and I2bis (spec 6.M).

use super::*;

/// `b` lost everything; `a` has not noticed.
fn forgetful() -> (Node, Node) {
    let (a, _) = established();
    (a, Node::with_tags(2, Config::default(), TagSpace::new(2), 77))
}

/// Payload of `from` on its current pair reaches `to`.
fn payload(now: Instant, from: &Node, to: &mut Node) -> Verdict {
    let context = from.context(to.site);
    let (tag, pair) = (context.peer_tag.unwrap(), context.pair.mirrored());
    to.out.clear();
    let Node { endpoint, out, .. } = to;
    match endpoint.find_by_local_tag(tag).map(|context| context.id) {
        Some(id) => endpoint.payload_received(now, id, out),
        None => endpoint.payload_without_context(now, tag, pair, out),
    }
}

#[test]
fn a_context_lost_at_the_receiver_comes_back_by_itself() {
    // R5533-208, R5533-210, R5533-215, R5533-227
    let (mut a, mut b) = forgetful();
    let id = a.context(2).id;
    let lost = a.context(2).peer_tag.unwrap();
    assert_eq!(payload(at(9), &a, &mut b), Verdict::Answered(Answer::R1bis));
    assert!(b.endpoint.is_empty());
    // R5533-066, R5533-069
    let (addresses, r1bis) = b.sent_one();
    assert_eq!(addresses, between(locator(2, 1, 1), locator(1, 1, 1)));
    let Message::R1bis { packet_tag, responder_nonce: resp, options } = r1bis.clone() else { panic!("{r1bis:?}") };
    assert_eq!(packet_tag, lost);

    a.receive(at(9), addresses, &r1bis);
    // R5533-070, R5533-074, R5533-075, R5533-076, R5533-199, R5533-216, R5533-217, R5533-219
    let (addresses, i2bis) = a.sent_one();
    assert_eq!(addresses, between(locator(1, 1, 1), locator(2, 1, 1)));
    let Message::I2bis { initiator_tag, packet_tag, responder_nonce, options: told, .. } = i2bis.clone() else {
        panic!("{i2bis:?}")
    };
    assert_eq!((initiator_tag, packet_tag, responder_nonce), (a.context(2).local_tag, lost, resp));
    assert_eq!((told.validator, told.ulids), (options.validator, Some(a.ulids(2))));
    assert_eq!((told.locators.map(|list| list.entries), told.pds), (Some(host(1, 1).locators), host(1, 1).pds));
    // Until the R2 payload goes on as before.
    let context = a.context(2);
    assert_eq!((context.state, context.peer_tag), (State::I2bisSent, Some(lost)));
    assert!(context.tags_payload());
    // R5533-214: a second R1bis.
    let back = addresses.swapped();
    assert_eq!(a.receive(at(9), back, &r1bis), Verdict::Dropped(DropReason::WrongState));

    b.receive(at(9), addresses, &i2bis);
    let there = b.context(1).id;
    assert!(b.has(&Output::Ready { id: there, how: How::Recovered }));
    // R5533-228
    assert_ne!(b.context(1).local_tag, lost);
    let (addresses, r2) = b.sent_one();
    assert_eq!(a.receive(at(9), addresses, &r2), Verdict::Accepted);
    assert!(a.has(&Output::Ready { id, how: How::Recovered }));
    assert_agreed(&a, &b);
}

#[test]
fn the_new_tag_is_never_the_lost_one() {
    // R5533-228, with so few tags that chance would hit it soon.
    for seed in 0..50 {
        let mut a = Node::with_tags(1, Config::default(), TagSpace::with_random_bits(1, 3), seed);
        let mut b = Node::with_tags(2, Config::default(), TagSpace::with_random_bits(2, 1), seed + 100);
        a.open(at(0), 2).unwrap();
        converse(at(0), &mut a, &mut b);
        let lost = a.context(2).peer_tag.unwrap();
        let mut b = Node::with_tags(2, Config::default(), TagSpace::with_random_bits(2, 1), seed + 200);
        payload(at(1), &a, &mut b);
        converse(at(1), &mut b, &mut a);
        assert_agreed(&a, &b);
        assert_ne!(b.context(1).local_tag, lost);
    }
}

#[test]
fn an_r1bis_counts_only_with_the_peers_tag_and_locators() {
    // R5533-213, R5533-316
    let (mut a, mut b) = forgetful();
    payload(at(9), &a, &mut b);
    let (addresses, good) = b.sent_one();
    let Message::R1bis { packet_tag, responder_nonce, options } = good.clone() else { panic!("{good:?}") };
    let other_tag = Message::R1bis { packet_tag: tag(packet_tag.value() ^ 1), responder_nonce, options };
    let dropped = Verdict::Dropped(DropReason::NoContext);
    assert_eq!(a.receive(at(9), addresses, &other_tag), dropped);
    assert_eq!(a.receive(at(9), Addresses { source: locator(3, 1, 1).0, ..addresses }, &good), dropped);
    assert_eq!(a.receive(at(9), Addresses { target: locator(1, 3, 1).0, ..addresses }, &good), dropped);
    assert_eq!(a.context(2).state, State::Established);
    // R5533-326: any pair of the two sets will do, since probes go everywhere.
    let elsewhere = between(locator(2, 2, 1), locator(1, 2, 1));
    assert_eq!(a.receive(at(9), elsewhere, &good), Verdict::Accepted);
    // R5533-216: the I2bis goes where the R1bis came from, not on the current pair.
    assert_eq!(a.sent_one().0, elsewhere.swapped());
}

#[test]
fn recovery_over_another_pair_than_the_current_one() {
    // R5533-074, R5533-217, R5533-327: a probe of the second pair meets a peer that lost the context.
    let (mut a, mut b) = forgetful();
    let receiver_tag = a.context(2).peer_tag.unwrap();
    let probe = Message::Keepalive { receiver_tag, options: Options::NONE };
    b.receive(at(9), between(locator(1, 2, 1), locator(2, 2, 1)), &probe);
    converse(at(9), &mut b, &mut a);
    assert_agreed(&a, &b);
    // D33: the current pair stays where it was; the other one has proved itself too.
    assert_eq!(a.context(2).pair, pair(locator(1, 1, 1), locator(2, 1, 1)));
    assert!(a.context(2).peer_locators[1].usable());
    assert_eq!(b.context(1).pair, pair(locator(2, 2, 1), locator(1, 2, 1)));
}

#[test]
fn an_i2bis_counts_only_with_a_young_validator_for_exactly_it() {
    // R5533-104, R5533-224, R5533-225, R5533-226
    let (mut a, mut b) = forgetful();
    payload(at(9), &a, &mut b);
    let (addresses, r1bis) = b.sent_one();
    a.receive(at(9), addresses, &r1bis);
    let (addresses, good) = a.sent_one();
    let Message::I2bis { initiator_tag, initiator_nonce, responder_nonce, packet_tag, options } = good.clone() else {
        panic!("{good:?}")
    };
    let packet_tag = tag(packet_tag.value() ^ 1);
    let retagged = Message::I2bis { initiator_tag, initiator_nonce, responder_nonce, packet_tag, options };
    let bad = Verdict::Dropped(DropReason::BadValidator);
    assert_eq!(b.receive(at(10), addresses, &retagged), bad);
    let forged = altered(&good, |options| options.validator.as_mut().unwrap()[0] ^= 1);
    assert_eq!(b.receive(at(10), addresses, &forged), bad);
    assert_eq!(b.receive(at(10), Addresses { source: locator(1, 2, 1).0, ..addresses }, &good), bad);
    assert_eq!(b.receive(at(10), Addresses { target: locator(2, 2, 1).0, ..addresses }, &good), bad);
    assert_eq!(b.receive(at(40), addresses, &good), Verdict::Dropped(DropReason::StaleNonce));
    let foreign = altered(&good, |options| options.pds = Some(ulid(3, 1).0.octets().to_vec()));
    assert_eq!(b.receive(at(10), addresses, &foreign), Verdict::Dropped(DropReason::BadPds));
    // R5533-229: and with a list that is true.
    let untrue =
        altered(&good, |options| options.locators.as_mut().unwrap().entries[1].1 = VerificationMethod::Other(3));
    assert!(matches!(b.receive(at(10), addresses, &untrue), Verdict::Answered(Answer::Error(_))));
    assert!(b.endpoint.is_empty());
    assert_eq!(b.receive(at(38), addresses, &good), Verdict::Accepted);
}

#[test]
fn a_bad_list_in_an_i2bis_changes_no_context() {
    // R5533-232, R5533-235
    let (mut a, mut b) = forgetful();
    payload(at(9), &a, &mut b);
    let (addresses, r1bis) = b.sent_one();
    a.receive(at(9), addresses, &r1bis);
    let (addresses, good) = a.sent_one();
    let untrue =
        altered(&good, |options| options.locators.as_mut().unwrap().entries[1].1 = VerificationMethod::Other(3));
    b.open(at(9), 1).unwrap();
    assert!(matches!(b.receive(at(9), addresses, &untrue), Verdict::Answered(Answer::Error(_))));
    assert_eq!(b.state(at(9), 1), State::I1Sent);
    b.receive(at(9), addresses, &good);
    let before = b.context(1).peer_locators.clone();
    assert!(matches!(b.receive(at(9), addresses, &untrue), Verdict::Answered(Answer::Error(_))));
    assert_eq!(b.context(1).peer_locators, before);
}

#[test]
fn both_ends_may_recover_at_once() {
    // R5533-233, R5533-234: each believes that the other lost the context.
    let (mut a, mut b) = established();
    let r1bis = |node: &Node, peer| Message::R1bis {
        packet_tag: node.context(peer).peer_tag.unwrap(),
        responder_nonce: 0,
        options: Options { validator: Some(vec![1]), ..Options::NONE },
    };
    let (for_a, for_b) = (r1bis(&a, 2), r1bis(&b, 1));
    // Neither validator is the other's, so only timers and I1 lead out of this.
    a.receive(at(9), between(locator(2, 1, 1), locator(1, 1, 1)), &for_a);
    b.receive(at(9), between(locator(1, 1, 1), locator(2, 1, 1)), &for_b);
    let (from_a, from_b) = (a.sent_one(), b.sent_one());
    let bad = |verdict| matches!(verdict, Verdict::Dropped(DropReason::BadValidator | DropReason::StaleNonce));
    assert!(bad(b.receive(at(9), from_a.0, &from_a.1)));
    assert!(bad(a.receive(at(9), from_b.0, &from_b.1)));
    while a.context(2).state != State::I1Sent {
        a.expire_next();
    }
    let now = at(60);
    converse(now, &mut a, &mut b);
    assert_eq!(b.context(1).state, State::I2bisSent, "an I1 is answered with R2 and changes nothing");
    assert_eq!(a.context(2).state, State::Established);
    while b.context(1).state != State::I1Sent {
        b.expire_next();
    }
    converse(now, &mut b, &mut a);
    assert_agreed(&a, &b);
}

#[test]
fn a_sender_that_lost_its_context_asks_anew_and_the_holder_keeps_the_rest() {
    // Spec 2.7: I1 with a new tag, R1, I2, replaced in place.
    let (mut a, b) = established();
    let (id, old) = (a.context(2).id, b.context(1).local_tag);
    let mut b = Node::with_tags(2, Config::default(), TagSpace::new(2), 55);
    b.open(at(50), 1).unwrap();
    converse(at(50), &mut b, &mut a);
    assert_agreed(&a, &b);
    assert_eq!(a.context(2).id, id);
    assert_ne!(a.context(2).peer_tag, Some(old));
}

#[test]
fn payload_in_a_flood_leads_to_one_i2_a_second() {
    // R5533-290: the peer is established and sends, its R2 was lost.
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.open(at(0), 2).unwrap();
    for _ in 0..2 {
        let (addresses, message) = a.sent_one();
        b.receive(at(0), addresses, &message);
        let (addresses, message) = b.sent_one();
        if matches!(message, Message::R1 { .. }) {
            a.receive(at(0), addresses, &message);
        }
    }
    let id = a.context(2).id;
    let mut sent = 0;
    for packet in 0..1000 {
        a.out.clear();
        let Node { endpoint, out, .. } = &mut a;
        let verdict = endpoint.payload_received(Instant::from_millis(500 + packet), id, out);
        assert_eq!(verdict, Verdict::Accepted, "it is delivered all the same");
        sent += a.sent().len();
    }
    assert_eq!(sent, 1);
    let now = at(2);
    payload(now, &b, &mut a);
    converse(now, &mut a, &mut b);
    assert_agreed(&a, &b);
}

#[test]
fn an_i2bis_carries_the_signature_of_a_signed_list() {
    // R5533-076, R5533-219
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let signature = Some(101u32.to_be_bytes().to_vec());
    let locators = vec![(locator(1, 1, 1), VerificationMethod::Hba), (locator(1, 9, 1), VerificationMethod::Cga)];
    a.endpoint.set_host(LocalHost { locators, generation: 101, signature: signature.clone(), ..host(1, 1) }).unwrap();
    a.open(at(0), 2).unwrap();
    converse(at(0), &mut a, &mut b);
    let mut b = Node::with_tags(2, Config::default(), TagSpace::new(2), 77);
    payload(at(9), &a, &mut b);
    let (addresses, r1bis) = b.sent_one();
    a.receive(at(9), addresses, &r1bis);
    let (addresses, i2bis) = a.sent_one();
    let mut message = i2bis.clone();
    let told = options_of(&mut message);
    assert_eq!((&told.pds, &told.signature), (&host(1, 1).pds, &signature));
    let unsigned = altered(&i2bis, |options| options.signature = None);
    assert!(matches!(b.receive(at(9), addresses, &unsigned), Verdict::Answered(Answer::Error(_))));
    converse(at(9), &mut a, &mut b);
    assert_agreed(&a, &b);
}

#[test]
fn a_fork_is_recovered_as_a_fork() {
    // R5533-218
    let (mut a, mut b) = established();
    let id = a.open_with(at(1), Open { ulids: a.ulids(2), fork: 7, pairs: vec![a.pair(2)] }).unwrap();
    converse(at(1), &mut a, &mut b);
    let mut b = Node::with_tags(2, Config::default(), TagSpace::new(2), 66);
    let context = a.endpoint.context(id).unwrap();
    let (tag, pair) = (context.peer_tag.unwrap(), context.pair.mirrored());
    b.endpoint.payload_without_context(at(2), tag, pair, &mut b.out);
    converse(at(2), &mut b, &mut a);
    let there = b.endpoint.find(b.ulids(1), 7).unwrap();
    assert_eq!(a.endpoint.context(id).unwrap().peer_tag, Some(there.local_tag));
    assert!(b.endpoint.find(b.ulids(1), 0).is_none());
}

/// A node that lost everything, with `each` R1bis a second for a /64 and `all` in all.
fn paced(each: u32, all: u32) -> Node {
    let pace = RatePair { prefix: Rate::new(each, each), total: Rate::new(all, all) };
    Node::with(2, Config { limits: Limits { r1bis: pace, ..Limits::default() }, ..Config::default() })
}

/// Payload with a tag that nobody has, from the peer of that number.
fn stray(node: &mut Node, ms: u64, peer: u16, number: u64) -> Verdict {
    node.out.clear();
    let pair = pair(locator(2, 1, 1), locator(peer, 1, 1));
    node.endpoint.payload_without_context(Instant::from_millis(ms), tag(number), pair, &mut node.out)
}

#[test]
fn live_sessions_are_told_before_what_is_sent_once() {
    // R5533-210, R5533-323: ten lone packets a millisecond, as of a million contexts that hardly say anything, and sixty sessions
    // that go on. There are a hundred R1bis a second.
    let mut node = paced(100, 100);
    let (mut told, mut lone) = (std::collections::BTreeMap::new(), 0);
    for ms in 0..1000 {
        for number in 0..10 {
            let peer = 1000 + (ms * 10 + number) as u16;
            lone +=
                u64::from(stray(&mut node, ms, peer, 100_000 + ms * 10 + number) == Verdict::Answered(Answer::R1bis));
        }
        for live in (0..60).filter(|live| (live + ms).is_multiple_of(20)) {
            if !told.contains_key(&live)
                && stray(&mut node, ms, 10 + live as u16, live) == Verdict::Answered(Answer::R1bis)
            {
                told.insert(live, ms);
            }
        }
    }
    // What had been saved up went to whoever came; then the sixty had everything, and then the others again.
    let last = told.values().max().copied();
    assert!(told.len() == 60 && last < Some(450), "{} of them, the last after {last:?} ms", told.len());
    assert!((100..=140).contains(&lone), "{lone}");
}

#[test]
fn a_stream_whose_peer_does_not_hear_takes_nothing_from_others_of_its_site() {
    // R5533-323
    let mut node = paced(50, 1000);
    let mut told = [0, 0];
    for ms in 0..1000 {
        for _ in 0..10 {
            told[0] += u64::from(stray(&mut node, ms, 7, 1) == Verdict::Answered(Answer::R1bis));
        }
        if ms % 20 == 0 {
            told[1] += u64::from(stray(&mut node, ms, 7, 100 + ms) == Verdict::Answered(Answer::R1bis));
        }
    }
    assert_eq!(told, [4, 50], "once in a quarter of a second, and everybody else");
}

#[test]
fn probes_do_not_take_what_payload_needs() {
    // R5533-212, R5533-323
    let mut node = paced(100, 100);
    let mut told = [0, 0];
    for ms in 0..1000 {
        let probe = Message::Keepalive { receiver_tag: tag(10_000 + ms), options: Options::NONE };
        let from = between(locator(100 + ms as u16, 1, 1), locator(2, 1, 1));
        let packet = Incoming { addresses: from, message: Ok(&probe), ipv6_packet: &[0; 64], shim6_offset: 40 };
        let verdict = node.endpoint.receive(Instant::from_millis(ms), &mut node.rng, packet, &mut node.out);
        told[0] += u64::from(verdict == Verdict::Answered(Answer::R1bis));
        if ms % 10 == 5 {
            told[1] += u64::from(stray(&mut node, ms, 2000 + ms as u16, ms) == Verdict::Answered(Answer::R1bis));
        }
    }
    assert_eq!(told[1], 100, "all, as many as there may be");
    assert!((50..=100).contains(&told[0]), "{told:?}");
}

// R5533-176, R5533-177: within its validator's life any I2 is as good as new; what comes of an old one does not last.
#[test]
fn an_old_i2_played_again_costs_one_recovery() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.open(at(0), 2).unwrap();
    let (addresses, i1) = a.sent_one();
    b.receive(at(0), addresses, &i1);
    let (back, r1) = b.sent_one();
    a.out.clear();
    a.receive(at(0), back, &r1);
    let (addresses, i2) = a.sent_one();
    assert_eq!(b.receive(at(0), addresses, &i2), Verdict::Accepted);
    let old = b.context(1).peer_tag.unwrap();
    // The peer began anew, and has another tag.
    let mut a = Node::with_tags(1, Config::default(), TagSpace::new(1), 77);
    a.open(at(2), 2).unwrap();
    converse(at(2), &mut a, &mut b);
    assert_agreed(&a, &b);
    assert_ne!(b.context(1).peer_tag, Some(old));
    // Somebody plays the first I2 again, and payload goes with the tag that is no longer known.
    assert_eq!(b.receive(at(3), addresses, &i2), Verdict::Accepted);
    assert_eq!(b.context(1).peer_tag, Some(old));
    b.out.clear();
    a.out.clear();
    let pair = b.context(1).pair.mirrored();
    a.endpoint.payload_without_context(at(4), old, pair, &mut a.out);
    converse(at(4), &mut a, &mut b);
    assert_agreed(&a, &b);
    assert_ne!(b.context(1).peer_tag, Some(old));
}
