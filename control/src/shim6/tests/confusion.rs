//! Context confusion (spec 6.L), in tag spaces so small that it happens at once (R5533-317).

use super::*;

/// A node whose contexts all have one and the same local tag, so that it can have only one of them.
fn one_tag(site: u16, seed: u64) -> Node {
    let mut node = Node::with_tags(site, Config::default(), TagSpace::with_random_bits(9, 0), seed);
    node.endpoint.shard_of = Box::new(|_| 0);
    node
}

/// A node with hosts 1 and 2, of which host 1 has a context with a peer that has lost it.
fn bereft(policy: ConfusionPolicy) -> (Node, Node) {
    let mut a = Node::with(1, Config { confusion: policy, ..Config::default() });
    a.endpoint.set_host(host(1, 2)).unwrap();
    let mut b = one_tag(2, 20);
    a.open(at(0), 2).unwrap();
    converse(at(0), &mut a, &mut b);
    assert_agreed(&a, &b);
    (a, one_tag(2, 21))
}

fn second() -> UlidPair {
    UlidPair { local: ulid(1, 2), peer: ulid(2, 1) }
}

fn second_pair() -> LocatorPair {
    pair(locator(1, 1, 2), locator(2, 1, 1))
}

/// Ways in which the peer gives the tag to a context with host 2.
fn ways() -> [fn(&mut Node, &mut Node); 3] {
    [
        // R2: we ask.
        |a, b| {
            a.open_with(at(1), Open { ulids: second(), fork: 0, pairs: vec![second_pair()] }).unwrap();
            converse(at(1), a, b);
        },
        // I2: the peer asks.
        |a, b| {
            let pairs = vec![second_pair().mirrored()];
            b.open_with(at(1), Open { ulids: second().mirrored(), fork: 0, pairs }).unwrap();
            converse(at(1), b, a);
        },
        // I2bis: we lost the context with host 2 that the peer has. Only its messages are needed.
        |a, b| {
            let mut other = Node::with_tags(1, Config::default(), TagSpace::new(1), 80);
            other.endpoint.set_host(host(1, 2)).unwrap();
            other.open_with(at(1), Open { ulids: second(), fork: 0, pairs: vec![second_pair()] }).unwrap();
            converse(at(1), &mut other, b);
            let context = b.endpoint.find(second().mirrored(), 0).unwrap();
            let (tag, pair) = (context.peer_tag.unwrap(), context.pair.mirrored());
            a.out.clear();
            a.endpoint.payload_without_context(at(1), tag, pair, &mut a.out);
            converse(at(1), a, b);
        },
    ]
}

#[test]
fn a_context_whose_tag_went_to_another_is_gone_before_anything_is_sent() {
    // R5533-123, R5533-189, R5533-198, R5533-200, R5533-201, R5533-202, R5533-204, R5533-206
    for (index, way) in ways().into_iter().enumerate() {
        let (mut a, mut b) = bereft(ConfusionPolicy::Discard);
        let (id, ulids) = (a.context(2).id, a.ulids(2));
        let tag = a.context(2).peer_tag;
        way(&mut a, &mut b);
        assert!(a.endpoint.context(id).is_none(), "way {index}");
        assert!(a.endpoint.find(ulids, 0).is_none());
        let winner = a.endpoint.find(second(), 0).unwrap();
        assert_eq!((winner.state, winner.peer_tag), (State::Established, tag));
        a.endpoint.selfcheck();
    }
}

#[test]
fn the_loser_goes_before_the_r2() {
    // R5533-189: look first, send afterwards.
    let (mut a, mut b) = bereft(ConfusionPolicy::Discard);
    let pairs = vec![second_pair().mirrored()];
    b.open_with(at(1), Open { ulids: second().mirrored(), fork: 0, pairs }).unwrap();
    for _ in 0..2 {
        let (addresses, message) = b.sent_one();
        a.receive(at(1), addresses, &message);
        let (addresses, message) = a.sent_one();
        if matches!(message, Message::R1 { .. }) {
            b.receive(at(1), addresses, &message);
        }
    }
    let place = |wanted: fn(&Output) -> bool| a.out.iter().position(wanted).unwrap();
    let gone = place(|output| matches!(output, Output::Gone { reason: GoneReason::Confused, .. }));
    let ready = place(|output| matches!(output, Output::Ready { .. }));
    let r2 = place(|output| matches!(output, Output::Send { message: Message::R2 { .. }, .. }));
    assert!(gone < ready && ready < r2);
}

#[test]
fn the_loser_may_ask_anew_instead() {
    // R5533-203, R5533-207
    let (mut a, mut b) = bereft(ConfusionPolicy::Reestablish);
    let id = a.context(2).id;
    a.open_with(at(1), Open { ulids: second(), fork: 0, pairs: vec![second_pair()] }).unwrap();
    for _ in 0..2 {
        let (addresses, message) = a.sent_one();
        b.receive(at(1), addresses, &message);
        let (addresses, message) = b.sent_one();
        a.receive(at(1), addresses, &message);
    }
    assert_eq!(a.out[0], Output::Suspended { id });
    assert_eq!(name(&a.sent_one().1), "I1");
    let context = a.endpoint.context(id).unwrap();
    assert_eq!((context.state, context.peer_tag), (State::I1Sent, None));
    assert!(!context.tags_payload());
}

/// A node with contexts with two others, which gave it the same tag.
fn between_equal_tags() -> (Node, Node, Node) {
    let mut a = Node::new(1);
    let (mut b, mut c) = (one_tag(2, 1), one_tag(3, 2));
    a.open(at(0), 2).unwrap();
    converse(at(0), &mut a, &mut b);
    a.open(at(0), 3).unwrap();
    converse(at(0), &mut a, &mut c);
    (a, b, c)
}

#[test]
fn equal_tags_of_different_peers_are_no_confusion() {
    // R5533-200: only overlapping locators make one.
    let (a, b, c) = between_equal_tags();
    assert_agreed(&a, &b);
    assert_agreed(&a, &c);
    assert_eq!(a.context(2).peer_tag, a.context(3).peer_tag);
    a.endpoint.selfcheck();
    // R5533-241: what is about such a tag goes by the locators.
    let tag = a.context(2).peer_tag.unwrap();
    assert_eq!(a.endpoint.find_by_peer(tag, a.pair(3)).map(|context| context.id), Some(a.context(3).id));
    assert_eq!(a.endpoint.find_by_peer(tag, a.pair(2)).map(|context| context.id), Some(a.context(2).id));
}

#[test]
fn a_list_that_comes_to_overlap_is_confusion() {
    // R5533-201, R5533-204: by an Update Request too there are never two with the same tag to the same locator.
    let (mut a, mut b, _) = between_equal_tags();
    let lost = a.context(3).id;
    let locators = [locator(2, 1, 1), locator(3, 1, 1)].map(|locator| (locator, VerificationMethod::Hba)).to_vec();
    b.endpoint.set_host(LocalHost { locators, generation: 101, ..host(2, 1) }).unwrap();
    let id = b.context(1).id;
    b.out.clear();
    let Node { endpoint, rng, out, .. } = &mut b;
    endpoint.update_locators(at(1), rng, id, out).unwrap();
    let (addresses, request) = b.sent_one();
    assert_eq!(a.receive(at(1), addresses, &request), Verdict::Accepted);
    let gone = |output: &Output| matches!(output, Output::Gone { id, reason: GoneReason::Confused, .. } if *id == lost);
    assert!(a.out.iter().any(gone));
    assert!(a.endpoint.find(a.ulids(3), 0).is_none());
    a.endpoint.selfcheck();
}

#[test]
fn the_same_context_again_is_no_confusion() {
    // R5533-205: the peer starts anew and happens to choose the same tag for the same context.
    let (mut a, mut b) = bereft(ConfusionPolicy::Discard);
    let id = a.context(2).id;
    b.open(at(1), 1).unwrap();
    converse(at(1), &mut b, &mut a);
    assert_agreed(&a, &b);
    assert_eq!(a.context(2).id, id);
}

#[test]
fn another_fork_is_another_context() {
    // R5533-205
    let (mut a, mut b) = bereft(ConfusionPolicy::Discard);
    let ulids = a.ulids(2);
    a.open_with(at(1), Open { ulids, fork: 5, pairs: vec![a.pair(2)] }).unwrap();
    converse(at(1), &mut a, &mut b);
    assert!(a.endpoint.find(ulids, 0).is_none());
    assert_eq!(a.endpoint.find(ulids, 5).unwrap().state, State::Established);
}

#[test]
fn a_node_without_free_tags_refuses_and_goes_on() {
    // R5533-123
    let mut b = one_tag(2, 30);
    b.open(at(0), 1).unwrap();
    assert_eq!(b.open(at(0), 3), Err(OpenRefused::Full));
    let mut c = Node::new(3);
    c.open(at(0), 2).unwrap();
    let (addresses, i1) = c.sent_one();
    b.receive(at(0), addresses, &i1);
    let (addresses, r1) = b.sent_one();
    c.receive(at(0), addresses, &r1);
    let (addresses, i2) = c.sent_one();
    assert_eq!(b.receive(at(0), addresses, &i2), Verdict::Dropped(DropReason::Full));
    assert_eq!(b.endpoint.len(), 1);
}
