//! I1, R1, I2, R2 (spec 6.C, 6.F to 6.K).

use dataplane::snapshot::Block;
use dataplane::wire::shim6::{ErrorCode, Preference};

use super::*;

// R5533-310: what enters the site has the peer's ULID as its source, so that must not be one of the site.
#[test]
fn nobody_outside_has_a_ulid_of_this_site() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.open(at(0), 2).unwrap();
    let (addresses, i1) = a.sent_one();
    assert_eq!(b.receive(at(0), addresses, &i1), Verdict::Answered(Answer::R1));
    let (back, r1) = b.sent_one();
    a.out.clear();
    a.receive(at(0), back, &r1);
    let (addresses, i2) = a.sent_one();
    b.endpoint.set_inside(vec![Block::new(ulid(1, 0).0, 48)]);
    assert_eq!(b.receive(at(0), addresses, &i2), Verdict::Dropped(DropReason::OwnUlid));
    assert_eq!(b.receive(at(0), addresses, &i1), Verdict::Dropped(DropReason::OwnUlid));
    b.endpoint.set_inside(vec![Block::new(ulid(2, 0).0, 48)]);
    assert_eq!(b.receive(at(0), addresses, &i2), Verdict::Accepted);
}

/// Runs one message from `from` to `to` and gives back what was sent.
fn pass(now: Instant, from: &Node, to: &mut Node) -> Verdict {
    let (addresses, message) = from.sent_one();
    to.receive(now, addresses, &message)
}

/// Both nodes up to the I2, which `a` has sent and `b` has not seen.
fn up_to_i2() -> (Node, Node) {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.open(at(0), 2).unwrap();
    pass(at(0), &a, &mut b);
    pass(at(0), &b, &mut a);
    (a, b)
}

#[test]
fn the_four_messages_carry_what_they_must() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let id = a.open(at(0), 2).unwrap();
    assert_eq!(a.out[0], Output::Opening { id });

    // R5533-038, R5533-042, R5533-137, R5533-138, R5533-118, R5533-119: the addresses do not say the ULIDs.
    let (addresses, i1) = a.sent_one();
    assert_eq!(addresses, between(locator(1, 1, 1), locator(2, 1, 1)));
    let local_tag = a.context(2).local_tag;
    let Message::I1 { initiator_tag, initiator_nonce: nonce, options } = i1 else { panic!("{i1:?}") };
    assert_eq!(initiator_tag, local_tag);
    assert_eq!(options, Options { ulids: Some(a.ulids(2)), ..Options::NONE });

    // R5533-044, R5533-047, R5533-158: nonce copied, validator there, nothing remembered.
    assert_eq!(pass(at(0), &a, &mut b), Verdict::Answered(Answer::R1));
    let (addresses, r1) = b.sent_one();
    assert_eq!(addresses, between(locator(2, 1, 1), locator(1, 1, 1)));
    let Message::R1 { initiator_nonce, responder_nonce: resp, options } = r1 else { panic!("{r1:?}") };
    assert_eq!(initiator_nonce, nonce);
    let validator = options.validator;
    assert!(b.endpoint.is_empty());

    // R5533-048, R5533-052, R5533-053, R5533-054, R5533-056, R5533-057, R5533-059, R5533-165, R5533-166, R5533-167,
    // R5533-170, R5533-199
    assert_eq!(pass(at(0), &b, &mut a), Verdict::Accepted);
    let (addresses, i2) = a.sent_one();
    assert_eq!(addresses, between(locator(1, 1, 1), locator(2, 1, 1)));
    let Message::I2 { initiator_tag, initiator_nonce, responder_nonce, options } = i2 else { panic!("{i2:?}") };
    assert_eq!((initiator_tag, responder_nonce), (local_tag, resp));
    let ours = host(1, 1);
    assert_eq!(options.validator, validator);
    assert_eq!(options.ulids, Some(a.ulids(2)));
    assert_eq!(options.locators.map(|list| list.entries), Some(ours.locators));
    assert_eq!((options.pds, options.fork), (ours.pds, None));

    // R5533-061, R5533-064, R5533-065, R5533-181, R5533-190, R5533-121: the responder has the ULIDs the right way round.
    assert_eq!(pass(at(0), &a, &mut b), Verdict::Accepted);
    let there = b.context(1).id;
    assert!(b.has(&Output::Ready { id: there, how: How::Accepted }));
    let (addresses, r2) = b.sent_one();
    assert_eq!(addresses, between(locator(2, 1, 1), locator(1, 1, 1)));
    let Message::R2 { responder_tag, initiator_nonce: echoed, options } = r2 else { panic!("{r2:?}") };
    assert_eq!((responder_tag, echoed), (b.context(1).local_tag, initiator_nonce));
    assert_eq!((options.locators.map(|list| list.entries), options.pds), (Some(host(2, 1).locators), host(2, 1).pds));

    // R5533-195
    assert_eq!(pass(at(0), &b, &mut a), Verdict::Accepted);
    assert_eq!(a.out, [Output::Ready { id, how: How::Initiated }, Output::ControlIn { id }]);
    assert_agreed(&a, &b);
}

#[test]
fn hosts_with_one_routable_address_need_neither_options_nor_proofs() {
    // R5535-027
    // R5533-003, R5533-013, R5533-032, R5533-150, R5533-175
    let single = |site| LocalHost {
        ulid: Ulid(locator(site, 1, 9).0),
        locators: vec![(locator(site, 1, 9), VerificationMethod::Cga)],
        pds: None,
        generation: 1,
        signature: None,
        preferences: None,
    };
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.endpoint.set_host(single(1)).unwrap();
    b.endpoint.set_host(single(2)).unwrap();
    let ulids = UlidPair { local: single(1).ulid, peer: single(2).ulid };
    let id = a.open_with(at(0), Open { ulids, fork: 0, pairs: vec![ulids.as_locators()] }).unwrap();
    let (_, mut i1) = a.sent_one();
    assert_eq!(*options_of(&mut i1), Options::NONE);
    converse(at(0), &mut a, &mut b);
    let context = a.endpoint.context(id).unwrap();
    assert_eq!((context.state, context.pair), (State::Established, ulids.as_locators()));
    assert!(!context.tags_payload());
    assert_eq!(context.peer_locators.len(), 1);
    assert!(context.peer_locators[0].usable());
}

#[test]
fn a_fork_is_a_context_of_its_own() {
    // R5533-022, R5533-023, R5533-043, R5533-055, R5533-122, R5533-139, R5533-168
    let (mut a, mut b) = established();
    let request = Open { ulids: a.ulids(2), fork: 7, pairs: vec![a.pair(2)] };
    let id = a.open_with(at(1), request).unwrap();
    let (_, mut i1) = a.sent_one();
    assert_eq!(options_of(&mut i1).fork, Some(7));
    pass(at(1), &a, &mut b);
    pass(at(1), &b, &mut a);
    let (_, mut i2) = a.sent_one();
    assert_eq!(options_of(&mut i2).fork, Some(7));
    converse(at(1), &mut a, &mut b);
    assert_eq!(a.endpoint.context(id).unwrap().state, State::Established);
    assert_eq!((a.endpoint.len(), b.endpoint.len()), (2, 2));
    assert_ne!(b.endpoint.find(b.ulids(1), 7).unwrap().local_tag, b.context(1).local_tag);
    // R5533-021, R5533-299: nobody who names no fork gets it.
    assert_eq!(a.open(at(1), 2), Err(OpenRefused::AlreadyOpen(a.context(2).id)));
    assert_eq!(a.context(2).fork, 0);
}

#[test]
fn initiator_nonces_do_not_repeat() {
    // R5533-041
    let mut a = Node::new(1);
    let mut nonces = std::collections::HashSet::new();
    for host in 0..1000 {
        let ulids = UlidPair { local: ulid(1, 1), peer: ulid(2, host) };
        a.open_with(at(0), Open { ulids, fork: 0, pairs: vec![a.pair(2)] }).unwrap();
        let (_, Message::I1 { initiator_nonce, .. }) = a.sent_one() else { panic!("not an I1") };
        nonces.insert(initiator_nonce);
    }
    assert_eq!(nonces.len(), 1000);
    a.endpoint.selfcheck();
}

#[test]
fn each_i1_goes_on_the_next_pair_and_any_of_them_may_be_answered() {
    // R5533-162, R5533-329, D21: the validator covers the locators, so the I2 goes where the R1 came from.
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let pairs: Vec<LocatorPair> =
        [(1, 1), (2, 2), (1, 2)].map(|(i, j)| pair(locator(1, i, 1), locator(2, j, 1))).to_vec();
    a.open_with(at(0), Open { ulids: a.ulids(2), fork: 0, pairs: pairs.clone() }).unwrap();
    let mut tried = vec![a.sent_one()];
    for _ in 0..4 {
        a.expire_next();
        tried.push(a.sent_one());
    }
    let expected = [pairs[0], pairs[1], pairs[2], pairs[0], pairs[1]];
    let went: Vec<LocatorPair> = tried.iter().map(|(to, _)| pair(Locator(to.source), Locator(to.target))).collect();
    assert_eq!(went, expected);
    assert!(tried.iter().all(|(_, message)| *message == tried[0].1));
    let now = a.endpoint.deadline().unwrap() - seconds(1);
    let (addresses, i1) = &tried[2];
    b.receive(now, *addresses, i1);
    let (back, r1) = b.sent_one();
    // R1 from an address that nothing was sent to.
    let elsewhere = Addresses { source: locator(2, 3, 1).0, ..back };
    assert_eq!(a.receive(now, elsewhere, &r1), Verdict::Dropped(DropReason::NoContext));
    let not_ours = Addresses { target: locator(1, 3, 1).0, ..back };
    assert_eq!(a.receive(now, not_ours, &r1), Verdict::Dropped(DropReason::NoContext));
    assert_eq!(a.receive(now, back, &r1), Verdict::Accepted);
    assert_eq!(a.sent_one().0, *addresses);
    converse(now, &mut a, &mut b);
    assert_agreed(&a, &b);
    assert_eq!((a.context(2).pair, b.context(1).pair), (pairs[2], pairs[2].mirrored()));
}

#[test]
fn an_r2_counts_only_on_a_pair_that_was_used() {
    // R5533-193, R5533-327
    let (mut a, mut b) = up_to_i2();
    pass(at(0), &a, &mut b);
    let (addresses, r2) = b.sent_one();
    let elsewhere = Addresses { source: locator(2, 2, 1).0, ..addresses };
    assert_eq!(a.receive(at(0), elsewhere, &r2), Verdict::Dropped(DropReason::NoContext));
    let elsewhere = Addresses { target: locator(1, 2, 1).0, ..addresses };
    assert_eq!(a.receive(at(0), elsewhere, &r2), Verdict::Dropped(DropReason::NoContext));
    assert_eq!(a.receive(at(0), addresses, &r2), Verdict::Accepted);
    // R5533-197
    assert_eq!(a.receive(at(0), addresses, &r2), Verdict::Dropped(DropReason::NoContext));
}

#[test]
fn an_i2_counts_only_with_a_young_validator_for_exactly_it() {
    // R5533-104, R5533-176, R5533-178, R5533-180, R5533-312
    let (a, mut b) = up_to_i2();
    let (addresses, good) = a.sent_one();
    let Message::I2 { initiator_tag, initiator_nonce, responder_nonce, options } = good.clone() else {
        panic!("{good:?}")
    };
    let i2 = |initiator_tag, initiator_nonce, responder_nonce, options: &Options| Message::I2 {
        initiator_tag,
        initiator_nonce,
        responder_nonce,
        options: options.clone(),
    };
    let forged = [
        i2(tag(initiator_tag.value() ^ 1), initiator_nonce, responder_nonce, &options),
        altered(&good, |options| options.fork = Some(1)),
        altered(&good, |options| options.ulids = options.ulids.map(|ulids| UlidPair { local: ulid(3, 1), ..ulids })),
        altered(&good, |options| options.validator.as_mut().unwrap()[3] ^= 1),
        altered(&good, |options| options.validator = Some(Vec::new())),
    ];
    for message in &forged {
        assert_eq!(b.receive(at(20), addresses, message), Verdict::Dropped(DropReason::BadValidator), "{message:?}");
        assert_eq!(b.out, []);
    }
    let moved = Addresses { source: locator(1, 2, 1).0, ..addresses };
    assert_eq!(b.receive(at(20), moved, &good), Verdict::Dropped(DropReason::BadValidator));
    let diverted = Addresses { target: locator(2, 2, 1).0, ..addresses };
    assert_eq!(b.receive(at(20), diverted, &good), Verdict::Dropped(DropReason::BadValidator));
    let other_nonce = i2(initiator_tag, initiator_nonce, responder_nonce ^ 0x8000_0000, &options);
    assert_eq!(b.receive(at(20), addresses, &other_nonce), Verdict::Dropped(DropReason::StaleNonce));
    assert_eq!(b.receive(at(31), addresses, &good), Verdict::Dropped(DropReason::StaleNonce));
    assert!(b.endpoint.is_empty());
    // R5533-169, R5533-177, R5533-320: at 29 seconds, and with another Initiator Nonce.
    let renamed = i2(initiator_tag, initiator_nonce ^ 1, responder_nonce, &options);
    assert_eq!(b.receive(at(29), addresses, &renamed), Verdict::Accepted);
    assert!(matches!(b.sent_one().1, Message::R2 { initiator_nonce: echoed, .. } if echoed == initiator_nonce ^ 1));
}

#[test]
fn lists_that_do_not_prove_true_change_nothing_and_are_told_where_they_fail() {
    // R5533-115, R5533-131, R5533-132, R5533-133, R5533-182, R5533-321, R5533-127
    let (a, mut b) = up_to_i2();
    let (addresses, good) = a.sent_one();
    let spoil = |change: fn(&mut LocatorList)| altered(&good, |options| change(options.locators.as_mut().unwrap()));
    let cases = [
        // A hash that is wrong, a method nobody knows, a signature that is missing, and nothing to prove with.
        (spoil(|list| list.entries[1].0 = Locator(Ipv6Addr::new(0x2001, 0xdb8, 9, 9, 0, 0, 0, 0xbad))), 1),
        (spoil(|list| list.entries[1].1 = VerificationMethod::Other(77)), 1),
        (spoil(|list| list.entries[0].1 = VerificationMethod::Cga), 0),
        (altered(&good, |options| options.pds = None), 0),
    ];
    for (message, index) in cases {
        let verdict = b.receive(at(0), addresses, &message);
        assert_eq!(verdict, Verdict::Answered(Answer::Error(ErrorCode::VerificationMethod)), "{message:?}");
        let (back, Message::Error(error)) = b.sent_one() else { panic!("not an Error") };
        // R5533-089: the pointer lands on the octet that is wrong.
        let packet = emit_packet(addresses, 64, &message).unwrap();
        let methods = 40 + ControlPacket::parse(&packet).unwrap().message_list_offset();
        assert_eq!(usize::from(error.pointer), methods + index);
        assert_eq!((back, &error.packet), (addresses.swapped(), &packet));
        assert!(b.endpoint.is_empty());
    }
    let empty = spoil(|list| list.entries.clear());
    let verdict = b.receive(at(0), addresses, &empty);
    assert_eq!(verdict, Verdict::Dropped(DropReason::ForeignSource), "an empty list holds no source");
    // R5533-179
    let foreign = altered(&good, |options| options.pds = Some(ulid(3, 1).0.octets().to_vec()));
    assert_eq!(b.receive(at(0), addresses, &foreign), Verdict::Dropped(DropReason::BadPds));
    assert_eq!(b.receive(at(0), addresses, &good), Verdict::Accepted);
}

trait ListOffset {
    fn message_list_offset(&self) -> usize;
}

impl ListOffset for ControlPacket {
    fn message_list_offset(&self) -> usize {
        let mut message = self.message.clone();
        options_of(&mut message).locators.as_ref().unwrap().methods_offset
    }
}

#[test]
fn a_bad_list_leaves_an_existing_context_as_it_was() {
    // R5533-185, R5533-188, R5533-196: in an I2 to ESTABLISHED and I1-SENT, and in an R2.
    let (mut a, mut b) = up_to_i2();
    let (addresses, i2) = a.sent_one();
    let bad = altered(&i2, |options| options.locators.as_mut().unwrap().entries[1].1 = VerificationMethod::Other(9));
    let error = Verdict::Answered(Answer::Error(ErrorCode::VerificationMethod));
    b.open(at(0), 1).unwrap();
    assert_eq!(b.receive(at(0), addresses, &bad), error);
    assert_eq!(b.state(at(0), 1), State::I1Sent);
    assert_eq!(b.receive(at(0), addresses, &i2), Verdict::Accepted);
    let before = b.context(1).peer_locators.clone();
    assert_eq!(b.receive(at(0), addresses, &bad), error);
    assert_eq!(b.context(1).peer_locators, before);
    assert_eq!(b.receive(at(0), addresses, &i2), Verdict::Accepted);
    let (back, r2) = b.sent_one();
    let bad =
        altered(&r2, |options| options.locators.as_mut().unwrap().entries[0].0.0 = "2001:db8::bad".parse().unwrap());
    assert_eq!(a.receive(at(0), back, &bad), error);
    assert_eq!(a.state(at(0), 2), State::I2Sent);
    let empty = altered(&r2, |options| options.locators.as_mut().unwrap().entries.clear());
    assert_eq!(a.receive(at(0), back, &empty), Verdict::Dropped(DropReason::EmptyList));
    assert_eq!(a.receive(at(0), back, &r2), Verdict::Accepted);
}

#[test]
fn preferences_go_with_the_list_in_the_same_message() {
    // R5533-058, D34
    let mut liked = host(1, 1);
    let broken = Preference { flags: Preference::BROKEN, priority: Some(4), weight: None };
    liked.preferences = Some(vec![Preference::default(), broken]);
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.endpoint.set_host(liked).unwrap();
    a.open(at(0), 2).unwrap();
    pass(at(0), &a, &mut b);
    pass(at(0), &b, &mut a);
    let (addresses, i2) = a.sent_one();
    let stale = altered(&i2, |options| options.preferences.as_mut().unwrap().generation += 1);
    let generation = Verdict::Answered(Answer::Error(ErrorCode::Generation));
    assert_eq!(b.receive(at(0), addresses, &stale), generation);
    let short = altered(&i2, |options| options.preferences.as_mut().unwrap().elements.truncate(1));
    let count = Verdict::Answered(Answer::Error(ErrorCode::PreferenceCount));
    assert_eq!(b.receive(at(0), addresses, &short), count);
    assert!(b.endpoint.is_empty());
    assert_eq!(b.receive(at(0), addresses, &i2), Verdict::Accepted);
    assert_eq!(b.context(1).peer_locators[1].preference, broken);
    assert_eq!(b.context(1).peer_locators[0].preference.priority, Some(0));
}

#[test]
fn a_lost_r2_is_made_up_for_by_the_i2_or_the_i1() {
    // R5533-153, R5533-159, R5533-191
    let (mut a, mut b) = up_to_i2();
    pass(at(0), &a, &mut b);
    let first = b.sent_one();
    a.expire_next();
    let (addresses, i2) = a.sent_one();
    assert_eq!(b.receive(at(5), addresses, &i2), Verdict::Accepted);
    assert_eq!(b.sent_one(), first);
    assert!(!b.out.iter().any(|output| matches!(output, Output::Ready { .. })), "nothing changed");
    while a.state(at(0), 2) == State::I2Sent {
        a.expire_next();
    }
    assert_eq!(a.state(at(0), 2), State::I1Sent);
    assert_eq!(pass(at(30), &a, &mut b), Verdict::Answered(Answer::R2));
    let (_, Message::I1 { initiator_nonce, .. }) = a.sent_one() else { panic!("not an I1") };
    assert!(matches!(b.sent_one().1, Message::R2 { initiator_nonce: echoed, .. } if echoed == initiator_nonce));
    assert_eq!(pass(at(30), &b, &mut a), Verdict::Accepted);
    assert_agreed(&a, &b);
}

#[test]
fn a_peer_that_starts_anew_replaces_its_tag_and_list_in_place() {
    // R5533-154, R5533-156, R5533-187, D33
    let (a, mut b) = established();
    let id = b.context(1).id;
    b.endpoint.set_probed(id, locator(1, 2, 1), true).unwrap();
    let old = a.context(2).local_tag;
    let mut a = Node::with_tags(1, Config::default(), TagSpace::new(1), 99);
    a.open(at(100), 2).unwrap();
    assert_ne!(a.context(2).local_tag, old);
    pass(at(100), &a, &mut b);
    assert!(matches!(b.sent_one().1, Message::R1 { .. }));
    assert_eq!(b.context(1).peer_tag, Some(old), "an I1 alone changes nothing");
    converse(at(100), &mut b, &mut a);
    assert_agreed(&a, &b);
    assert_eq!(b.context(1).id, id, "the same context");
    assert!(b.context(1).peer_locators.iter().all(|known| known.usable()), "what was probed stays so");
}

#[test]
fn both_sides_may_ask_at_once() {
    // R5533-155, R5533-184
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.open(at(0), 2).unwrap();
    b.open(at(0), 1).unwrap();
    let (from_a, from_b) = (a.sent_one(), b.sent_one());
    assert_eq!(b.receive(at(0), from_a.0, &from_a.1), Verdict::Answered(Answer::R2));
    assert_eq!(a.receive(at(0), from_b.0, &from_b.1), Verdict::Answered(Answer::R2));
    let (from_a, from_b) = (a.sent_one(), b.sent_one());
    assert_eq!(b.receive(at(0), from_a.0, &from_a.1), Verdict::Accepted);
    assert_eq!(a.receive(at(0), from_b.0, &from_b.1), Verdict::Accepted);
    assert_agreed(&a, &b);

    // An I1 crosses an I2.
    let (mut a, mut b) = up_to_i2();
    let i2 = a.sent_one();
    b.open(at(0), 1).unwrap();
    let i1 = b.sent_one();
    assert_eq!(a.receive(at(0), i1.0, &i1.1), Verdict::Answered(Answer::R2));
    assert_eq!(a.state(at(0), 2), State::I2Sent);
    let late_r2 = a.sent_one();
    assert_eq!(b.receive(at(0), i2.0, &i2.1), Verdict::Accepted);
    assert_eq!(b.state(at(0), 1), State::Established);
    let r2 = b.sent_one();
    assert_eq!(b.receive(at(0), late_r2.0, &late_r2.1), Verdict::Dropped(DropReason::NoContext));
    assert_eq!(a.receive(at(0), r2.0, &r2.1), Verdict::Accepted);
    assert_agreed(&a, &b);
}

#[test]
fn only_proved_and_probed_locators_become_destinations() {
    // R5535-037
    // R5533-086, R5533-128, R5533-129, R5533-130, R5533-314
    let (mut a, _) = established();
    let id = a.context(2).id;
    let usable: Vec<bool> = a.context(2).peer_locators.iter().map(PeerLocator::usable).collect();
    assert_eq!(usable, [true, false], "the pair of the handshake, and no other");
    let endpoint = &mut a.endpoint;
    let other = pair(locator(1, 1, 1), locator(2, 2, 1));
    assert_eq!(endpoint.set_pair(id, other), Err(ChangeRefused::Target));
    endpoint.set_probed(id, locator(2, 2, 1), true).unwrap();
    endpoint.set_pair(id, other).unwrap();
    let foreign_source = pair(locator(1, 3, 1), locator(2, 2, 1));
    assert_eq!(endpoint.set_pair(id, foreign_source), Err(ChangeRefused::Source));
    let foreign_target = pair(locator(1, 1, 1), locator(3, 1, 1));
    assert_eq!(endpoint.set_pair(id, foreign_target), Err(ChangeRefused::Target));
    assert_eq!(endpoint.set_probed(id, locator(3, 1, 1), true), Err(ChangeRefused::Target));
    // R5533-020, R5533-281: back on the ULIDs the tag disappears.
    assert!(endpoint.context(id).unwrap().tags_payload());
    endpoint.set_pair(id, UlidPair { local: ulid(1, 1), peer: ulid(2, 1) }.as_locators()).unwrap();
    assert!(!endpoint.context(id).unwrap().tags_payload());
}

#[test]
fn without_a_list_the_peer_has_its_ulid_alone() {
    // D11: and the address the R2 came from is no destination.
    let (mut a, mut b) = up_to_i2();
    pass(at(0), &a, &mut b);
    let (addresses, r2) = b.sent_one();
    let bare = altered(&r2, |options| *options = Options::NONE);
    assert_eq!(a.receive(at(0), addresses, &bare), Verdict::Accepted);
    let context = a.context(2);
    assert_eq!(context.peer_locators.iter().map(|known| known.locator.0).collect::<Vec<_>>(), [ulid(2, 1).0]);
    assert_eq!(context.pair, pair(locator(1, 1, 1), Locator(ulid(2, 1).0)));
}

#[test]
fn validators_of_any_length_are_returned_as_long_as_they_fit() {
    // R5533-028, R5533-105
    for (length, verdict) in
        [(1, Verdict::Accepted), (700, Verdict::Accepted), (1200, Verdict::Dropped(DropReason::Oversized))]
    {
        let (mut a, mut b) = (Node::new(1), Node::new(2));
        a.open(at(0), 2).unwrap();
        pass(at(0), &a, &mut b);
        let (addresses, r1) = b.sent_one();
        let r1 = altered(&r1, |options| options.validator = Some(vec![7; length]));
        assert_eq!(a.receive(at(0), addresses, &r1), verdict, "{length} octets");
        if verdict == Verdict::Accepted {
            let (addresses, i2) = a.sent_one();
            assert!(emit_packet(addresses, 64, &i2).is_ok());
            assert_eq!(options_of(&mut i2.clone()).validator, Some(vec![7; length]));
        }
    }
}

#[test]
fn the_wish_for_a_keepalive_timeout_is_told_and_heard() {
    // R5534-018
    // R5533-087
    let (mut a, mut b) = (Node::with(1, Config { keepalive_timeout: Some(33), ..Config::default() }), Node::new(2));
    a.open(at(0), 2).unwrap();
    converse(at(0), &mut a, &mut b);
    assert_eq!((a.context(2).peer_keepalive_timeout, b.context(1).peer_keepalive_timeout), (None, Some(33)));
}

#[test]
fn a_sign_of_life_sends_one_more_i1_which_is_no_retransmission() {
    // R5533-142, R5533-145: the numbers of §7.8 are upper bounds; a nudge moves none of them.
    let mut a = Node::new(1);
    let id = a.open(at(0), 2).unwrap();
    assert!(a.endpoint.awaits_r1(id).contains(&a.pair(2)));
    let pair = a.pair(2);
    let nudge = |a: &mut Node, now| {
        a.out.clear();
        let Node { endpoint, rng, out, .. } = a;
        endpoint.nudge(now, rng, id, pair, out)
    };
    assert!(!nudge(&mut a, at(0)), "the first was sent a moment ago");
    assert!(a.sent().is_empty() && !nudge(&mut a, at(0)), "one that waits is enough");
    assert_eq!(a.endpoint.deadline(), Some(at(1)));
    a.expire_next();
    assert!(matches!(a.sent_one().1, Message::I1 { .. }));
    assert!(nudge(&mut a, at(2)));
    assert!(matches!(a.sent_one().1, Message::I1 { .. }));
    let elsewhere = super::pair(locator(1, 1, 1), locator(9, 9, 9));
    let Node { endpoint, rng, out, .. } = &mut a;
    assert!(!endpoint.nudge(at(4), rng, id, elsewhere, out), "no pair of the exchange");
    // However many signs there are, no more than eight, and all retransmissions are still there.
    let nudged = (3..60).filter(|second| nudge(&mut a, at(*second))).count();
    assert_eq!(nudged, 6);
    let mut retransmitted = 0;
    while !a.endpoint.awaits_r1(id).is_empty() {
        a.expire_next();
        retransmitted += a.sent().len();
    }
    assert_eq!(retransmitted, 4, "I1_RETRIES_MAX");
    assert!(!nudge(&mut a, at(1000)), "it has failed");
}

// R5533-143: what one attempt has no I1 for, the next has; the best pair is first in each.
#[test]
fn attempts_that_fail_reach_all_pairs_in_the_end() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let hba = VerificationMethod::Hba;
    let locators = (1..=3).map(|provider| (locator(1, provider, 1), hba)).collect();
    a.endpoint.set_host(LocalHost { locators, generation: 101, ..host(1, 1) }).unwrap();
    let ends = [1, 2, 3];
    let pairs: Vec<LocatorPair> =
        ends.iter().flat_map(|l| ends.map(|p| pair(locator(1, *l, 1), locator(2, p, 1)))).collect();
    let ulids = a.ulids(2);
    let request = || Open { ulids, fork: 0, pairs: pairs.clone() };
    let place = |node: &Node| {
        let sent: Vec<LocatorPair> =
            node.sent().iter().map(|(it, _)| pair(Locator(it.source), Locator(it.target))).collect();
        sent.iter().map(|sent| pairs.iter().position(|pair| pair == sent).unwrap()).collect::<Vec<_>>()
    };
    let (mut tried, mut now) = (Vec::new(), at(0));
    for _ in 0..3 {
        a.open_with(now, request()).unwrap();
        let mut these = place(&a);
        while a.endpoint.find(ulids, 0).is_some() {
            a.expire_next();
            these.extend(place(&a));
        }
        tried.push(these);
        // The hold-down ends.
        now = a.expire_next();
    }
    assert_eq!(tried, [[0, 1, 2, 3, 4], [0, 5, 6, 7, 8], [0, 1, 2, 3, 4]]);
    // When the peer has answered it is forgotten.
    a.open_with(now, request()).unwrap();
    assert_eq!(place(&a), [0]);
    converse(now, &mut a, &mut b);
    assert_eq!(a.state(now, 2), State::Established);
    let mut first = pairs.clone();
    a.endpoint.starts.arrange(ulids, &mut first);
    assert_eq!(first, pairs);
}
