//! Flow labels: who offers them, who ignores them (docs/decisions: the context in the flow label).

use dataplane::wire::shim6::{LabelOption, LabelPurpose};

use super::*;

fn on() -> Config {
    Config { flow_labels: Some(64), ..Config::default() }
}

fn labels(node: &Node, site: u16) -> (Option<u32>, Option<u32>) {
    let context = node.context(site);
    (context.local_label.map(|label| label.value()), context.peer_label.map(|label| label.value()))
}

#[test]
fn both_offer_and_each_knows_the_others_label() {
    let (a, b) = established_with(on());
    assert_agreed(&a, &b);
    let (ours, theirs) = labels(&a, 2);
    assert_eq!(labels(&b, 1), (theirs, ours));
    assert!(ours.is_some() && theirs.is_some() && ours != theirs);
}

#[test]
fn the_offer_is_in_i2_and_r2_and_not_before() {
    let (mut a, mut b) = (Node::with(1, on()), Node::with(2, on()));
    a.open(at(0), 2).unwrap();
    for expected in ["I1", "R1", "I2", "R2"] {
        let (from, to) = if matches!(expected, "I1" | "I2") { (&mut a, &mut b) } else { (&mut b, &mut a) };
        let (addresses, message) = from.sent_one();
        assert_eq!(name(&message), expected);
        let offer = message.options().flow_label;
        assert_eq!(offer.is_some(), matches!(expected, "I2" | "R2"), "{expected}");
        assert!(offer.is_none_or(|offer| offer.purpose == LabelPurpose::Offer && offer.nonce == 0));
        to.receive(at(0), addresses, &message);
    }
}

#[test]
fn who_does_not_take_part_ignores_the_offer() {
    // To the responder the option is unknown (C = 0), to the initiator it never comes.
    for (first, second) in [(on(), Config::default()), (Config::default(), on())] {
        let (mut a, mut b) = (Node::with(1, first), Node::with(2, second));
        a.open(at(0), 2).unwrap();
        converse(at(0), &mut a, &mut b);
        assert_agreed(&a, &b);
        assert_eq!((labels(&a, 2).0, labels(&b, 1).0), (None, None), "nobody holds a label in vain");
    }
}

#[test]
fn a_peer_that_lost_the_context_gets_new_labels() {
    let (mut a, b) = established_with(on());
    let (ours, theirs) = labels(&a, 2);
    let lost = (b.context(1).local_tag, b.context(1).pair);
    let mut b = Node::with_tags(2, on(), TagSpace::new(2), 77);
    b.out.clear();
    b.endpoint.payload_without_context(at(9), lost.0, lost.1, &mut b.out);
    converse(at(9), &mut b, &mut a);
    assert_agreed(&a, &b);
    let (kept, new) = labels(&a, 2);
    assert_eq!((kept, labels(&b, 1)), (ours, (new, kept)));
    assert!(new.is_some() && new != theirs);
}

#[test]
fn a_peer_that_lost_the_context_and_the_wish_for_labels_is_left_without() {
    let (mut a, b) = established_with(on());
    let lost = (b.context(1).local_tag, b.context(1).pair);
    let mut b = Node::with_tags(2, Config::default(), TagSpace::new(2), 77);
    b.endpoint.payload_without_context(at(9), lost.0, lost.1, &mut b.out);
    converse(at(9), &mut b, &mut a);
    assert_agreed(&a, &b);
    assert_eq!((labels(&a, 2), labels(&b, 1).0), ((None, None), None));
}

#[test]
fn a_label_that_is_none_is_no_offer() {
    let (mut a, mut b) = (Node::with(1, on()), Node::with(2, on()));
    a.open(at(0), 2).unwrap();
    let (addresses, i1) = a.sent_one();
    b.receive(at(0), addresses, &i1);
    let (addresses, r1) = b.sent_one();
    a.receive(at(0), addresses, &r1);
    let (addresses, i2) = a.sent_one();
    for option in [
        LabelOption { purpose: LabelPurpose::Offer, arrived: false, label: 0, nonce: 0 },
        LabelOption { purpose: LabelPurpose::Test, arrived: false, label: 9, nonce: 0 },
    ] {
        b.receive(at(0), addresses, &altered(&i2, |options| options.flow_label = Some(option)));
        assert_eq!(labels(&b, 1), (None, None));
    }
    b.receive(at(0), addresses, &i2);
    assert_eq!(labels(&b, 1).1, labels(&a, 2).0);
}

/// Late copies of messages, ICMPv6 errors: what is asked by label finds its context, between its locators alone.
#[test]
fn a_context_is_found_by_the_peers_label() {
    let (a, _) = established_with(on());
    let context = a.context(2);
    let (label, pair) = (context.peer_label.unwrap(), context.pair);
    assert_eq!(a.endpoint.find_by_peer_label(label, pair).map(|found| found.id), Some(context.id));
    let elsewhere = LocatorPair { peer: Locator("2001:db8:dead::1".parse().unwrap()), ..pair };
    assert!(a.endpoint.find_by_peer_label(label, elsewhere).is_none());
    assert!(a.endpoint.find_by_peer_label(context.local_label.unwrap(), pair).is_none());
}

#[test]
fn a_label_that_too_many_peers_offer_is_not_taken_up() {
    // By label a context is found for an ICMPv6 error (R5533-200 is about tags, and the search is the same).
    let offer = LabelOption { purpose: LabelPurpose::Offer, arrived: false, label: 9, nonce: 0 };
    let (mut a, mut b) = (Node::with(1, on()), Node::with(2, on()));
    for number in 2..302 {
        let ulids = UlidPair { local: ulid(2, 1), peer: ulid(3, number) };
        let pairs = vec![pair(locator(2, 1, 1), locator(3, 1, number))];
        let id = b.open_with(at(0), Open { ulids, fork: 0, pairs }).unwrap();
        let (addresses, Message::I1 { initiator_nonce, .. }) = b.sent_one() else { panic!("an I1") };
        let options = Options { flow_label: Some(offer), ..Options::NONE };
        let r2 = Message::R2 { responder_tag: tag(number.into()), initiator_nonce, options };
        assert_eq!(b.receive(at(0), addresses.swapped(), &r2), Verdict::Accepted);
        let context = b.endpoint.context(id).unwrap();
        let taken = number < 2 + 256;
        assert_eq!((context.peer_label.is_some(), context.local_label.is_some()), (taken, taken));
    }
    // In an I2 neither; then there is none in the R2.
    a.open(at(0), 2).unwrap();
    let (addresses, i1) = a.sent_one();
    b.receive(at(0), addresses, &i1);
    let (addresses, r1) = b.sent_one();
    a.receive(at(0), addresses, &r1);
    let (addresses, i2) = a.sent_one();
    let common = altered(&i2, |options| options.flow_label = Some(offer));
    assert_eq!(b.receive(at(0), addresses, &common), Verdict::Accepted);
    assert_eq!((labels(&b, 1), b.sent_one().1.options().flow_label), ((None, None), None));
    // Another one is as good as ever.
    assert_eq!(b.receive(at(0), addresses, &i2), Verdict::Accepted);
    assert_eq!(labels(&b, 1).1, labels(&a, 2).0);
}
