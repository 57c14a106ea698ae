//! Update Request and Acknowledgement (spec 6.P).

use dataplane::wire::shim6::{ErrorCode, LocatorPreferences, Preference};

use super::*;

fn broken() -> Preference {
    Preference { flags: Preference::BROKEN, ..Preference::default() }
}

/// Host 1 of site 1 with these providers, as of this generation.
fn moved(generation: u32, providers: &[u16]) -> LocalHost {
    let locators = providers.iter().map(|provider| (locator(1, *provider, 1), VerificationMethod::Hba)).collect();
    LocalHost { locators, generation, ..host(1, 1) }
}

fn announce(node: &mut Node, now: Instant, host: LocalHost) {
    node.endpoint.set_host(host).unwrap();
    let id = node.context(2).id;
    node.out.clear();
    let Node { endpoint, rng, out, .. } = node;
    endpoint.update_locators(now, rng, id, out).unwrap();
}

fn prefer(node: &mut Node, now: Instant, preferences: Vec<Preference>) {
    let id = node.context(2).id;
    node.out.clear();
    let Node { endpoint, rng, out, .. } = node;
    endpoint.update_preferences(now, rng, id, preferences, out).unwrap();
}

fn nonce_of(message: &Message) -> u32 {
    match message {
        Message::UpdateRequest { request_nonce, .. } | Message::UpdateAck { request_nonce, .. } => *request_nonce,
        other => panic!("{other:?}"),
    }
}

fn known(node: &Node, site: u16) -> Vec<Locator> {
    node.context(site).peer_locators.iter().map(|known| known.locator).collect()
}

// R5533-258, R5533-271
#[test]
fn a_check_is_answered_by_its_nonce_over_whatever_pair_the_peer_likes() {
    let (mut a, mut b) = established();
    let (id, other) = (a.context(2).id, pair(locator(1, 2, 1), locator(2, 2, 1)));
    for back in [other, pair(locator(1, 1, 1), locator(2, 1, 1))] {
        a.out.clear();
        let Node { endpoint, rng, out, .. } = &mut a;
        assert!(endpoint.check_pair(rng, id, other, out));
        let (addresses, request) = a.sent_one();
        assert_eq!(addresses, between(other.local, other.peer));
        assert_eq!(b.receive(at(1), addresses, &request), Verdict::Accepted);
        let (_, ack) = b.sent_one();
        let Message::UpdateAck { receiver_tag, request_nonce, .. } = ack else { panic!("{ack:?}") };
        let way = between(back.peer, back.local);
        let guess = Message::UpdateAck { receiver_tag, request_nonce: !request_nonce, options: Options::NONE };
        assert_eq!(a.receive(at(1), way, &guess), Verdict::Dropped(DropReason::WrongNonce));
        assert!(a.endpoint.is_checking(id));
        assert_eq!(a.receive(at(1), way, &ack), Verdict::Accepted);
        assert!(a.has(&Output::Checked { id, pair: other }) && !a.endpoint.is_checking(id));
    }
}

#[test]
fn a_new_list_replaces_the_old_one_at_the_peer_and_then_here() {
    // R5534-021
    // R5533-077, R5533-080, R5533-081, R5533-082, R5533-083, R5533-108, R5533-128, R5533-249, R5533-250, R5533-271
    let (mut a, mut b) = established();
    announce(&mut a, at(1), moved(101, &[2, 3]));
    let (addresses, request) = a.sent_one();
    assert_eq!(addresses, between(locator(1, 1, 1), locator(2, 1, 1)));
    let Message::UpdateRequest { receiver_tag, options, .. } = &request else { panic!("{request:?}") };
    assert_eq!(*receiver_tag, b.context(1).local_tag);
    assert_eq!(options.locators.as_ref().map(|list| list.generation), Some(101));
    assert_eq!((&options.pds, &options.preferences), (&host(1, 1).pds, &None));
    assert!(a.has(&Output::ControlOut { id: a.context(2).id }));
    // Not a source before the peer said yes; but packets to it are for this context already.
    let id = a.context(2).id;
    let new = pair(locator(1, 3, 1), locator(2, 1, 1));
    assert_eq!(a.endpoint.set_pair(id, new), Err(ChangeRefused::Source));
    assert!(a.context(2).has_local(locator(1, 3, 1).0) && a.context(2).has_local(locator(1, 1, 1).0));

    assert_eq!(b.receive(at(1), addresses, &request), Verdict::Accepted);
    assert_eq!(known(&b, 1), [locator(1, 2, 1), locator(1, 3, 1)]);
    let there = b.context(1).id;
    assert!(b.has(&Output::LocatorsChanged { id: there }) && b.has(&Output::ControlIn { id: there }));
    // R5533-018, R5533-272: the current pair stays until a probe finds a better one.
    assert_eq!(b.context(1).pair, pair(locator(2, 1, 1), locator(1, 1, 1)));
    // R5533-086: nor are new locators probed by being told.
    assert!(b.context(1).peer_locators.iter().all(|known| known.verified && !known.probed));
    let (addresses, ack) = b.sent_one();
    assert_eq!(addresses, between(locator(2, 1, 1), locator(1, 1, 1)));
    let receiver_tag = a.context(2).local_tag;
    assert_eq!(ack, Message::UpdateAck { receiver_tag, request_nonce: nonce_of(&request), options: Options::NONE });

    assert_eq!(a.receive(at(1), addresses, &ack), Verdict::Accepted);
    assert!(a.has(&Output::LocatorsChanged { id }));
    assert!(!a.context(2).update_outstanding());
    a.endpoint.set_pair(id, new).unwrap();
    assert!(!a.context(2).has_local(locator(1, 1, 1).0));
    assert_eq!(a.receive(at(1), addresses, &ack), Verdict::Answered(Answer::R1bis), "the old address is gone");
}

#[test]
fn what_a_peer_acknowledged_before_it_forgot_is_told_again() {
    // R5533-277; found by tests/model. The peer learns the new list, answers, and starts anew: our I2bis tells it the old
    // one, so the answer that comes meanwhile must not be the end of it.
    let (mut a, mut b) = established();
    announce(&mut a, at(1), moved(101, &[1, 3]));
    let (addresses, request) = a.sent_one();
    b.receive(at(1), addresses, &request);
    let (back, ack) = b.sent_one();
    b = Node::with_tags(2, Config::default(), TagSpace::new(2), 77);
    b.receive(at(1), addresses, &request);
    let (_, r1bis) = b.sent_one();
    a.receive(at(1), back, &r1bis);
    let (there, i2bis) = a.sent_one();
    assert_eq!(a.receive(at(1), back, &ack), Verdict::Accepted);
    assert!(a.context(2).update_outstanding());
    b.receive(at(1), there, &i2bis);
    converse(at(1), &mut b, &mut a);
    assert_eq!(known(&b, 1), [1, 3].map(|provider| locator(1, provider, 1)));
    assert!(!a.context(2).update_outstanding());
    assert_agreed(&a, &b);
}

#[test]
fn an_acknowledgement_of_a_peers_former_life_counts_for_nothing() {
    // R5533-258; found by tests/model. The peer comes back by an I2 while an update is outstanding, and hears the old list
    // in our R2.
    let (mut a, mut b) = established();
    announce(&mut a, at(1), moved(101, &[1, 3]));
    let (addresses, request) = a.sent_one();
    b.receive(at(1), addresses, &request);
    let (back, ack) = b.sent_one();
    b = Node::with_tags(2, Config::default(), TagSpace::new(2), 78);
    b.open(at(1), 1).unwrap();
    let (_, i1) = b.sent_one();
    a.receive(at(1), back, &i1);
    let (_, r1) = a.sent_one();
    b.receive(at(1), addresses, &r1);
    let (_, i2) = b.sent_one();
    a.receive(at(1), back, &i2);
    let (r2, again) = <[_; 2]>::try_from(a.sent()).map(|[r2, again]| (r2, again)).unwrap();
    assert_eq!((name(&r2.1), name(&again.1)), ("R2", "UR"));
    assert_ne!(nonce_of(&again.1), nonce_of(&request));
    assert_eq!(a.receive(at(1), back, &ack), Verdict::Dropped(DropReason::WrongNonce));
    // The same I2 once more does not start the update once more.
    a.receive(at(1), back, &i2);
    assert_eq!(a.sent().iter().map(|sent| name(&sent.1)).collect::<Vec<_>>(), ["R2"]);
    b.receive(at(1), r2.0, &r2.1);
    b.receive(at(1), again.0, &again.1);
    converse(at(1), &mut b, &mut a);
    assert!(!a.context(2).update_outstanding());
    assert_agreed(&a, &b);
}

#[test]
fn preferences_are_told_and_heard_without_a_list() {
    // R5533-017, R5533-110, R5533-111, R5533-249
    let (mut a, mut b) = established();
    prefer(&mut a, at(1), vec![broken(), Preference { priority: Some(2), weight: Some(9), ..Default::default() }]);
    let (_, mut request) = a.sent_one();
    let options = options_of(&mut request);
    assert_eq!((&options.locators, &options.pds), (&None, &None));
    let told = options.preferences.as_ref().unwrap();
    assert_eq!((told.generation, told.element_len), (100, 3));
    // R5533-278
    converse(at(1), &mut a, &mut b);
    assert!(!a.context(2).update_outstanding());
    let preference = |index: usize| b.context(1).peer_locators[index].preference;
    assert_eq!(preference(0).flags, Preference::BROKEN);
    assert_eq!((preference(1).priority, preference(1).weight), (Some(2), Some(9)));
    let id = a.context(2).id;
    let Node { endpoint, rng, out, .. } = &mut a;
    let one = endpoint.update_preferences(at(2), rng, id, vec![broken()], out);
    assert_eq!(one, Err(ChangeRefused::PreferenceCount));
}

#[test]
fn news_takes_the_place_of_what_is_outstanding_and_says_it_again() {
    // R5533-249, R5533-250, R5533-251, R5533-256, R5533-257, R5533-258: the example of §10.3.
    let (mut a, mut b) = established();
    announce(&mut a, at(1), moved(101, &[1, 3]));
    let first = a.sent_one();
    announce(&mut a, at(2), moved(102, &[1, 3, 4]));
    prefer(&mut a, at(2), vec![broken(), Preference::default(), Preference::default()]);
    let (addresses, mut request) = a.sent_one();
    assert_ne!(nonce_of(&request), nonce_of(&first.1));
    let options = options_of(&mut request);
    assert_eq!(options.locators.as_ref().map(|list| (list.generation, list.entries.len())), Some((102, 3)));
    assert_eq!(options.preferences.as_ref().map(|told| (told.generation, told.elements.len())), Some((102, 3)));
    // The late answer to the first is for nothing.
    b.receive(at(3), first.0, &first.1);
    let (back, late) = b.sent_one();
    assert_eq!(a.receive(at(3), back, &late), Verdict::Dropped(DropReason::WrongNonce));
    assert!(a.context(2).update_outstanding());
    // Repetitions of the second are the same each time.
    a.expire_next();
    assert_eq!(a.sent_one(), (addresses, request));
    converse(at(8), &mut a, &mut b);
    assert!(!a.context(2).update_outstanding());
    assert_eq!(known(&b, 1), [1, 3, 4].map(|provider| locator(1, provider, 1)));
    assert_eq!(b.context(1).peer_locators[0].preference, broken());
}

#[test]
fn telling_the_same_list_again_says_nothing() {
    let (mut a, _) = established();
    announce(&mut a, at(1), host(1, 1));
    assert_eq!(a.out, []);
}

#[test]
fn preferences_for_another_generation_or_number_are_refused() {
    // R5533-268, R5533-269, R5533-270
    let (mut a, mut b) = established();
    prefer(&mut a, at(1), vec![broken(), broken()]);
    let (addresses, good) = a.sent_one();
    let with =
        |change: fn(&mut LocatorPreferences)| altered(&good, |options| change(options.preferences.as_mut().unwrap()));
    let cases = [
        (with(|told| told.generation = 101), ErrorCode::Generation, 4),
        (with(|told| told.elements.push(broken())), ErrorCode::PreferenceCount, 2),
        (with(|told| told.elements.truncate(1)), ErrorCode::PreferenceCount, 2),
    ];
    for (message, code, offset) in cases {
        assert_eq!(b.receive(at(1), addresses, &message), Verdict::Answered(Answer::Error(code)));
        let (_, Message::Error(error)) = b.sent_one() else { panic!("not an Error") };
        // The only option starts behind the fixed part of 16 octets.
        assert_eq!(usize::from(error.pointer), 40 + 16 + offset);
        assert_eq!(b.context(1).peer_locators[0].preference, Preference::default());
    }
    // A list that does not prove true is not recorded, nor is its generation.
    let forged = LocatorList {
        generation: 101,
        entries: vec![(locator(1, 1, 0xbad), VerificationMethod::Hba)],
        methods_offset: 0,
    };
    let untrue = altered(&good, |options| *options = Options { locators: Some(forged), ..Options::NONE });
    let refused = Verdict::Answered(Answer::Error(ErrorCode::VerificationMethod));
    // R5533-266, R5533-267
    assert_eq!(b.receive(at(1), addresses, &untrue), refused);
    assert_eq!(b.sent().len(), 1);
    assert_eq!(known(&b, 1), [locator(1, 1, 1), locator(1, 2, 1)]);
    let stale = Verdict::Answered(Answer::Error(ErrorCode::Generation));
    assert_eq!(b.receive(at(1), addresses, &with(|told| told.generation = 101)), stale);
    assert_eq!(b.receive(at(1), addresses, &good), Verdict::Accepted);
}

#[test]
fn a_good_list_is_recorded_even_if_the_preferences_with_it_are_not() {
    // §10.4: the list comes first, and only what follows it stops.
    let (mut a, mut b) = established();
    announce(&mut a, at(1), moved(101, &[2, 3]));
    let (addresses, request) = a.sent_one();
    let preferences = LocatorPreferences { generation: 100, element_len: 1, elements: vec![broken(); 2], offset: 0 };
    let mixed = altered(&request, |options| options.preferences = Some(preferences));
    assert_eq!(b.receive(at(1), addresses, &mixed), Verdict::Answered(Answer::Error(ErrorCode::Generation)));
    assert_eq!(b.sent().len(), 1, "and no acknowledgement");
    assert_eq!(known(&b, 1), [locator(1, 2, 1), locator(1, 3, 1)]);
    assert_eq!(b.context(1).peer_generation, Some(101));
}

#[test]
fn a_list_without_parameters_is_proved_with_those_sent_before() {
    // D14, R5533-081
    let (mut a, mut b) = established();
    announce(&mut a, at(1), moved(101, &[2]));
    let (addresses, request) = a.sent_one();
    let short = altered(&request, |options| options.pds = None);
    assert_eq!(b.receive(at(1), addresses, &short), Verdict::Accepted);
    assert_eq!(known(&b, 1), [locator(1, 2, 1)]);
}

#[test]
fn what_comes_up_during_an_exchange_is_told_when_it_is_over() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.open(at(0), 2).unwrap();
    // In I1-SENT nothing has been told yet, so the newest list goes into the I2.
    announce(&mut a, at(0), moved(101, &[1, 2, 3]));
    assert_eq!(a.out, []);
    let i1 = a.expire_next();
    let (addresses, message) = a.sent_one();
    b.receive(i1, addresses, &message);
    let (addresses, r1) = b.sent_one();
    a.receive(i1, addresses, &r1);
    let i2 = a.sent_one();
    assert_eq!(options_of(&mut i2.1.clone()).locators.as_ref().map(|list| list.generation), Some(101));
    // In I2-SENT it waits.
    announce(&mut a, i1, moved(102, &[1, 4]));
    assert_eq!(a.out, []);
    b.receive(i1, i2.0, &i2.1);
    let (addresses, r2) = b.sent_one();
    a.receive(i1, addresses, &r2);
    assert!(matches!(a.sent_one().1, Message::UpdateRequest { .. }));
    converse(i1, &mut a, &mut b);
    assert_agreed(&a, &b);
    assert_eq!(known(&b, 1), [locator(1, 1, 1), locator(1, 4, 1)]);
}

#[test]
fn an_update_survives_recovery() {
    let (mut a, _) = established();
    announce(&mut a, at(1), moved(101, &[1, 3]));
    let (addresses, request) = a.sent_one();
    let mut b = Node::with_tags(2, Config::default(), TagSpace::new(2), 44);
    // R5533-260: the peer does not know the tag.
    assert_eq!(b.receive(at(2), addresses, &request), Verdict::Answered(Answer::R1bis));
    converse(at(2), &mut b, &mut a);
    assert_agreed(&a, &b);
    assert_eq!(known(&b, 1), [locator(1, 1, 1), locator(1, 3, 1)]);
    assert!(!a.context(2).update_outstanding());
}

#[test]
fn a_keepalive_timeout_in_an_update_is_heard_and_stays() {
    // R5534-018, R5534-070: ours was told in the exchange, and is not told again.
    let (mut a, mut b) = established_with(Config { keepalive_timeout: Some(33), ..Config::default() });
    assert_eq!(b.context(1).peer_keepalive_timeout, Some(33));
    prefer(&mut a, at(1), vec![broken(); 2]);
    let (addresses, request) = a.sent_one();
    assert_eq!(options_of(&mut request.clone()).keepalive_timeout, None);
    b.receive(at(1), addresses, &altered(&request, |options| options.keepalive_timeout = Some(40)));
    assert!(b.has(&Output::LocatorsChanged { id: b.context(1).id }));
    b.receive(at(1), addresses, &request);
    assert_eq!(b.context(1).peer_keepalive_timeout, Some(40));
}

#[test]
fn a_signed_list_may_name_any_address() {
    // R5533-012, R5533-060, R5533-082, R5533-109: method CGA, with the signature of this very generation.
    let (mut a, mut b) = established();
    let elsewhere = Locator("2001:db8:ffff::5".parse().unwrap());
    let locators = vec![(locator(1, 1, 1), VerificationMethod::Hba), (elsewhere, VerificationMethod::Cga)];
    let signed = |generation: u32, signature: u32| LocalHost {
        locators: locators.clone(),
        generation,
        signature: Some(signature.to_be_bytes().to_vec()),
        ..host(1, 1)
    };
    assert_eq!(a.endpoint.set_host(signed(101, 100)), Err(HostRefused::Unproved(1)));
    announce(&mut a, at(1), signed(101, 101));
    let (addresses, request) = a.sent_one();
    assert_eq!(options_of(&mut request.clone()).signature, Some(101u32.to_be_bytes().to_vec()));
    for signature in [None, Some(vec![1])] {
        let unsigned = altered(&request, |options| options.signature = signature);
        let verdict = b.receive(at(1), addresses, &unsigned);
        assert_eq!(verdict, Verdict::Answered(Answer::Error(ErrorCode::VerificationMethod)));
    }
    converse(at(1), &mut b, &mut a);
    assert_eq!(b.receive(at(1), addresses, &request), Verdict::Accepted);
    assert_eq!(known(&b, 1), [locator(1, 1, 1), elsewhere]);
}

#[test]
fn late_copies_do_not_undo_what_was_told_since() {
    // Generations count up by one (§5.15.2), so one just below the current one, with the same peer tag, is late.
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.open(at(0), 2).unwrap();
    let mut sent = Vec::new();
    for _ in 0..2 {
        let (addresses, message) = a.sent_one();
        sent.push((addresses, message.clone()));
        b.receive(at(0), addresses, &message);
        let (addresses, message) = b.sent_one();
        a.receive(at(0), addresses, &message);
    }
    let i2 = sent.remove(1);
    prefer(&mut a, at(1), vec![broken(); 2]);
    converse(at(1), &mut a, &mut b);
    assert_eq!(b.receive(at(2), i2.0, &i2.1), Verdict::Accepted);
    assert_eq!(b.context(1).peer_locators[0].preference, broken(), "the list of the I2 is the one that is known");

    announce(&mut a, at(3), moved(101, &[1, 3]));
    let first = a.sent_one();
    converse(at(3), &mut a, &mut b);
    announce(&mut a, at(4), moved(102, &[1, 4]));
    converse(at(4), &mut a, &mut b);
    for (addresses, message) in [i2, first] {
        assert_eq!(b.receive(at(5), addresses, &message), Verdict::Accepted);
        assert_eq!(known(&b, 1), [locator(1, 1, 1), locator(1, 4, 1)]);
    }
    // Nor does a request that arrives for the first time after the one that took its place.
    announce(&mut a, at(5), moved(103, &[1, 5]));
    let abandoned = a.sent_one();
    announce(&mut a, at(5), moved(104, &[1, 6]));
    converse(at(5), &mut a, &mut b);
    assert_eq!(b.receive(at(6), abandoned.0, &abandoned.1), Verdict::Accepted);
    assert_eq!(known(&b, 1), [locator(1, 1, 1), locator(1, 6, 1)]);
    // A peer that starts anew may begin with any generation.
    let mut a = Node::with_tags(1, Config::default(), TagSpace::new(1), 70);
    a.open(at(6), 2).unwrap();
    converse(at(6), &mut a, &mut b);
    assert_agreed(&a, &b);
}

#[test]
fn news_are_what_the_peer_does_not_know() {
    // R5533-249, R5533-250, R5533-256, R5533-257: list, preferences, or both; and nothing twice.
    let (mut a, mut b) = established();
    let id = a.context(2).id;
    let tell = |a: &mut Node, now: Instant| {
        a.out.clear();
        let Node { endpoint, rng, out, .. } = a;
        endpoint.tell_news(now, rng, id, None, out)
    };
    assert!(!tell(&mut a, at(1)));
    let told = |flags: u8, priority: u8| Preference { flags, priority: Some(priority), weight: Some(0) };
    let drained = vec![told(Preference::BROKEN, 30), told(0, 10)];
    assert_eq!(a.endpoint.set_preferences(ulid(1, 1), Some(drained.clone())), Ok(true));
    assert_eq!(a.endpoint.set_preferences(ulid(1, 1), Some(drained.clone())), Ok(false));
    assert!(tell(&mut a, at(1)));
    let (_, mut request) = a.sent_one();
    let options = options_of(&mut request);
    assert_eq!((&options.locators, options.preferences.as_ref().map(|told| told.element_len)), (&None, Some(3)));
    assert!(!tell(&mut a, at(1)), "under way");
    // A new list while that is outstanding: one request with both, for the new generation.
    let list = LocalHost { preferences: Some(drained.clone()), ..moved(101, &[1, 3]) };
    a.endpoint.set_host(list).unwrap();
    assert!(tell(&mut a, at(2)));
    let (_, mut request) = a.sent_one();
    let options = options_of(&mut request);
    assert_eq!(options.preferences.as_ref().map(|told| (told.generation, told.elements.clone())), Some((101, drained)));
    converse(at(2), &mut a, &mut b);
    assert!(!a.context(2).update_outstanding() && !tell(&mut a, at(3)));
    assert_eq!(known(&b, 1), [locator(1, 1, 1), locator(1, 3, 1)]);
    assert_eq!(b.context(1).peer_locators[0].preference.flags, Preference::BROKEN);
    // Nothing to prefer any more has to be said in so many words: a request replaces what was told before (§5.10).
    assert_eq!(a.endpoint.set_preferences(ulid(1, 1), None), Ok(true));
    assert!(tell(&mut a, at(4)));
    converse(at(4), &mut a, &mut b);
    assert_eq!(b.context(1).peer_locators[0].preference, told(0, 0));
    assert_eq!(a.endpoint.set_preferences(ulid(1, 1), Some(vec![broken()])), Err(ChangeRefused::PreferenceCount));
    assert_eq!(a.endpoint.set_preferences(ulid(1, 9), None), Err(ChangeRefused::NoHost));
}

#[test]
fn a_request_follows_its_context_to_another_path() {
    // §10.2, and the pair may have failed for which it was meant.
    let (mut a, mut b) = established();
    let id = a.context(2).id;
    prefer(&mut a, at(1), vec![broken(), Preference::default()]);
    let (_, lost) = a.sent_one();
    a.endpoint.set_probed(id, locator(2, 2, 1), true).unwrap();
    a.endpoint.set_pair(id, pair(locator(1, 2, 1), locator(2, 2, 1))).unwrap();
    a.out.clear();
    let Node { endpoint, rng, out, .. } = &mut a;
    endpoint.repeat_update(at(2), rng, id, out);
    let (addresses, again) = a.sent_one();
    // R5533-251: the same request, the other way.
    assert_eq!((addresses, again), (between(locator(1, 2, 1), locator(2, 2, 1)), lost));
    converse(at(2), &mut a, &mut b);
    a.out.clear();
    let Node { endpoint, rng, out, .. } = &mut a;
    endpoint.repeat_update(at(3), rng, id, out);
    assert_eq!(a.out, [], "nothing is outstanding");
}
