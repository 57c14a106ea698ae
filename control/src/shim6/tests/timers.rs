//! Retransmission, giving up, hold-downs and the end of contexts (spec 6.G, 6.I, 6.M, 6.O, 6.S).

use super::*;

/// Lets timers run until nothing is left, and tells when each message went out.
fn transmissions(node: &mut Node, max: usize) -> Vec<(Instant, &'static str)> {
    let mut sent = Vec::new();
    while sent.len() < max
        && let Some(due) = node.endpoint.deadline()
    {
        node.expire(due);
        sent.extend(node.sent().iter().map(|(_, message)| (due, name(message))));
    }
    sent
}

fn only_names(sent: &[(Instant, &'static str)]) -> Vec<&'static str> {
    sent.iter().map(|(_, name)| *name).collect()
}

#[test]
fn five_i1s_then_a_minute_of_silence() {
    // R5533-140, R5533-143, R5533-144, R5533-145, R5533-015
    let mut a = Node::new(1);
    let id = a.open(at(0), 2).unwrap();
    let tag = a.context(2).local_tag;
    for _ in 0..4 {
        a.expire_next();
        assert_eq!(name(&a.sent_one().1), "I1");
    }
    let failed = a.expire_next();
    let (ulids, fork) = (a.ulids(2), 0);
    let gone = Output::Gone { id, ulids, fork, local_tag: tag, reason: GoneReason::NoAnswer };
    assert_eq!(a.out, [gone, Output::Failed { ulids, fork, reason: FailReason::NoAnswer }]);
    assert_eq!(a.state(failed, 2), State::EFailed);
    let until = failed + seconds(60);
    assert_eq!(a.open(until - seconds(1), 2), Err(OpenRefused::HoldDown { until, reason: FailReason::NoAnswer }));
    // R5533-330: another host of ours may ask the same peer.
    a.endpoint.set_host(host(1, 2)).unwrap();
    let others = UlidPair { local: ulid(1, 2), peer: ulid(2, 1) };
    let pairs = vec![pair(locator(1, 1, 2), locator(2, 1, 1))];
    assert!(a.open_with(failed, Open { ulids: others, fork: 0, pairs }).is_ok());
    assert!(a.open(until, 2).is_ok());
    assert!(a.context(2).id != id);
}

#[test]
fn waits_double_and_are_spread_evenly() {
    // R5533-141, R5533-142, R5533-303
    let runs = 2000;
    let mut waits: [Vec<f64>; 5] = Default::default();
    for seed in 0..runs {
        let mut a = Node::with_tags(1, Config::default(), TagSpace::new(1), seed);
        a.open(at(0), 2).unwrap();
        let mut last = at(0);
        for wait in &mut waits {
            let due = a.expire_next();
            wait.push(due.since(last).as_secs_f64());
            last = due;
        }
    }
    for (count, waits) in waits.iter().enumerate() {
        let nominal = 4.0 * f64::from(1 << count);
        assert!(waits.iter().all(|wait| (0.5 * nominal..=1.5 * nominal).contains(wait)));
        // A tenth of all waits falls into each tenth of the range.
        let mut tenths = [0; 10];
        for wait in waits {
            tenths[(((wait / nominal - 0.5) * 10.0) as usize).min(9)] += 1;
        }
        assert!(tenths.iter().all(|tenth| (140..260).contains(tenth)), "{tenths:?} for wait {count}");
    }
}

#[test]
fn an_i2_that_is_never_answered_leads_back_to_i1_once() {
    // R5533-171, R5533-172, R5533-173, R5533-322
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.open(at(0), 2).unwrap();
    let mut seen = Vec::new();
    let mut now = at(0);
    // The peer answers I1, but its R2 never arrives.
    for turn in 0.. {
        assert!(turn < 20, "no end: {seen:?}");
        for (addresses, message) in a.sent() {
            seen.push(name(&message));
            b.receive(now, addresses, &message);
            let answers: Vec<_> =
                b.sent().into_iter().filter(|(_, message)| matches!(message, Message::R1 { .. })).collect();
            b.endpoint.remove_host(now, ulid(2, 1), None, &mut Vec::new());
            b.endpoint.set_host(host(2, 1)).unwrap();
            for (addresses, message) in answers {
                a.receive(now, addresses, &message);
                seen.extend(a.sent().iter().map(|(_, message)| name(message)));
                a.out.clear();
            }
        }
        if a.state(now, 2) == State::EFailed {
            break;
        }
        now = a.expire_next();
    }
    assert_eq!(seen, ["I1", "I2", "I2", "I2", "I1", "I2", "I2", "I2"]);
}

#[test]
fn an_i2_is_sent_again_as_it_was() {
    // R5533-171
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.open(at(0), 2).unwrap();
    let (addresses, i1) = a.sent_one();
    b.receive(at(0), addresses, &i1);
    let (addresses, r1) = b.sent_one();
    a.receive(at(0), addresses, &r1);
    let first = a.sent_one();
    a.endpoint.set_host(LocalHost { generation: 101, ..host(1, 1) }).unwrap();
    let due = a.expire_next();
    assert_eq!(a.sent_one(), first);
    assert!((2..=6).contains(&due.0.as_secs()));
}

#[test]
fn an_i2bis_that_is_never_answered_leads_back_to_i1() {
    // R5533-220, R5533-221, R5533-222; D09
    let (mut a, _) = established();
    let id = a.context(2).id;
    let options = Options { validator: Some(vec![1]), ..Options::NONE };
    let r1bis = Message::R1bis { packet_tag: a.context(2).peer_tag.unwrap(), responder_nonce: 1, options };
    a.receive(at(10), between(locator(2, 1, 1), locator(1, 1, 1)), &r1bis);
    let first = a.sent_one();
    for _ in 0..2 {
        a.expire_next();
        assert_eq!(a.sent_one(), first);
    }
    a.expire_next();
    assert_eq!(a.out[0], Output::Suspended { id });
    assert_eq!(name(&a.sent_one().1), "I1");
    assert_eq!(a.context(2).state, State::I1Sent);
    assert_eq!(a.context(2).peer_tag, None);
    // The I1s go on all pairs that were good, then the context is given up.
    let mut a_sent = transmissions(&mut a, 20);
    a_sent.truncate(20);
    assert_eq!(only_names(&a_sent), ["I1"; 4]);
    assert!(a.endpoint.is_empty());
}

#[test]
fn an_unanswered_update_is_repeated_for_ever_with_a_ceiling() {
    // R5533-252, R5533-253, R5533-254, R5533-255
    let (mut a, _) = established();
    let id = a.context(2).id;
    a.out.clear();
    let Node { endpoint, rng, out, .. } = &mut a;
    endpoint.update_preferences(at(0), rng, id, vec![Default::default(); 2], out).unwrap();
    let first = a.sent_one();
    let mut last = at(0);
    for count in 0..100 {
        // Payload flows all the time, or the context would end before the update.
        a.endpoint.used(last, id);
        let sent = transmissions(&mut a, 1);
        assert_eq!(a.sent_one(), first);
        let wait = sent[0].0.since(last).as_secs_f64();
        let nominal = (4.0 * 2f64.powi(count)).min(120.0);
        assert!((0.5 * nominal..=1.5 * nominal).contains(&wait), "wait {wait} after {count} repetitions");
        last = sent[0].0;
    }
}

#[test]
fn a_context_ends_five_minutes_after_its_last_use_without_a_word() {
    // R5533-243, R5533-245, R5533-246, R5533-247, R5533-248
    let (mut a, _) = established();
    let id = a.context(2).id;
    for minute in 1..=20 {
        a.endpoint.used(at(60 * minute), id);
        a.expire(at(60 * minute));
        assert!(a.endpoint.context(id).is_some());
    }
    a.expire(at(1200 + 299));
    assert!(a.endpoint.context(id).is_some());
    let tag = a.context(2).local_tag;
    a.expire(at(1200 + 300));
    let (ulids, fork) = (a.ulids(2), 0);
    assert_eq!(a.out, [Output::Gone { id, ulids, fork, local_tag: tag, reason: GoneReason::Idle }]);
    assert_eq!(a.endpoint.deadline(), None);
}

#[test]
fn a_refusal_by_icmp_counts_ten_minutes_for_all_who_want_that_peer() {
    // R5533-146, R5533-147, R5533-148, D23
    for (share, open) in [(true, false), (false, true)] {
        let mut a = Node::with(1, Config { share_no_support: share, ..Config::default() });
        a.open(at(0), 2).unwrap();
        let (addresses, i1) = a.sent_one();
        let quote = emit_packet(addresses, 64, &i1).unwrap();
        for octet in [8 + 15, 24 + 15, 40 + 11, 40 + 15] {
            let mut forged = quote.clone();
            forged[octet] ^= 1;
            let verdict = a.endpoint.parameter_problem(at(1), &forged, &mut a.out);
            assert_eq!(verdict, Verdict::Dropped(DropReason::NoContext));
        }
        assert_eq!(a.endpoint.parameter_problem(at(1), &quote, &mut a.out), Verdict::Accepted);
        assert_eq!(a.state(at(1), 2), State::NoSupport);
        let until = at(601);
        assert_eq!(a.open(at(600), 2), Err(OpenRefused::HoldDown { until, reason: FailReason::NoSupport }));
        a.endpoint.set_host(host(1, 2)).unwrap();
        let ulids = UlidPair { local: ulid(1, 2), peer: ulid(2, 1) };
        let pairs = vec![pair(locator(1, 1, 2), locator(2, 1, 1))];
        assert_eq!(a.open_with(at(600), Open { ulids, fork: 0, pairs }).is_ok(), open);
        assert!(a.open(until, 2).is_ok());
    }
}

#[test]
fn a_fork_that_comes_to_nothing_is_not_held_against_its_pair() {
    // R5533-022: silence, and a refusal by ICMPv6.
    for refused in [false, true] {
        let (mut a, _) = super::established();
        let default = a.context(2).id;
        let request = Open { ulids: a.ulids(2), fork: 7, pairs: vec![a.pair(2)] };
        a.open_with(at(1), request.clone()).unwrap();
        let (addresses, i1) = a.sent_one();
        let reason = match refused {
            true => {
                let quote = emit_packet(addresses, 64, &i1).unwrap();
                assert_eq!(a.endpoint.parameter_problem(at(2), &quote, &mut a.out), Verdict::Accepted);
                FailReason::NoSupport
            }
            false => {
                assert_eq!(only_names(&transmissions(&mut a, 4)), ["I1"; 4]);
                a.expire_next();
                FailReason::NoAnswer
            }
        };
        assert_eq!(a.out.pop(), Some(Output::Failed { ulids: a.ulids(2), fork: 7, reason }));
        a.out.clear();
        assert_eq!((a.endpoint.holddowns(), a.context(2).id), (0, default));
        assert!(a.open_with(at(200), request).is_ok(), "whoever wants to may try again");
    }
}

#[test]
fn a_peer_that_asks_by_itself_ends_the_hold_down() {
    // R5533-157, D32
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.open(at(0), 2).unwrap();
    let sent = transmissions(&mut a, 4);
    assert_eq!(only_names(&sent), ["I1"; 4]);
    let failed = a.expire_next();
    assert_eq!(a.state(failed, 2), State::EFailed);
    b.open(failed, 1).unwrap();
    converse(failed, &mut b, &mut a);
    assert_agreed(&a, &b);
    assert_eq!(a.endpoint.holddowns(), 0);
}

#[test]
fn timers_are_those_of_the_configuration() {
    // R5533-009
    let config = Config { i1_timeout: seconds(1), i1_retries_max: 1, no_r1_holddown: seconds(5), ..Config::default() };
    let mut a = Node::with(1, config);
    a.open(at(0), 2).unwrap();
    assert!(a.expire_next().0 < seconds(2));
    let failed = a.expire_next();
    assert_eq!(a.state(failed, 2), State::EFailed);
    assert_eq!(a.endpoint.deadline(), Some(failed + seconds(5)));
    a.expire_next();
    assert_eq!((a.endpoint.deadline(), a.endpoint.holddowns()), (None, 0));
}
