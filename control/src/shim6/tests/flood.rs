//! Strangers cost nothing but what we allow (spec part 5, R5533-151, -312, -323).

use dataplane::wire::shim6::ErrorCode;

use super::*;

/// No limits, so that what is counted is memory and not rates.
pub(super) fn unlimited() -> Config {
    let plenty = RatePair { prefix: Rate::new(1 << 20, 1 << 20), total: Rate::new(1 << 20, 1 << 20) };
    Config { limits: Limits { r1: plenty, r1bis: plenty, r2: plenty, error: plenty }, ..Config::default() }
}

fn stranger(number: u32) -> (Addresses, Ulid) {
    let (high, low) = ((number >> 16) as u16, number as u16);
    (between(locator(high.wrapping_add(7), low, 1), locator(1, 1, 1)), ulid(high.wrapping_add(7), low))
}

fn i1_of(number: u32) -> (Addresses, Message) {
    let (addresses, sender) = stranger(number);
    let options = Options { ulids: Some(UlidPair { local: sender, peer: ulid(1, 1) }), ..Options::NONE };
    let message = Message::I1 { initiator_tag: tag(number.into()), initiator_nonce: number, options };
    (addresses, message)
}

fn receive(node: &mut Node, now: Instant, addresses: Addresses, message: &Message) -> Verdict {
    node.out.clear();
    let packet = Incoming { addresses, message: Ok(message), ipv6_packet: &[0; 64], shim6_offset: 40 };
    node.endpoint.receive(now, &mut node.rng, packet, &mut node.out)
}

#[test]
fn a_hundred_thousand_i1s_and_lost_packets_leave_nothing_behind() {
    // R5533-151, R5533-158, R5533-210, R5533-312
    let mut a = Node::with(1, unlimited());
    for number in 0..100_000 {
        let (addresses, i1) = i1_of(number);
        assert_eq!(receive(&mut a, at(1), addresses, &i1), Verdict::Answered(Answer::R1));
        let lost = Message::Keepalive { receiver_tag: tag(number.into()), options: Options::NONE };
        assert_eq!(receive(&mut a, at(1), addresses, &lost), Verdict::Answered(Answer::R1bis));
    }
    assert_eq!((a.endpoint.len(), a.endpoint.holddowns(), a.endpoint.deadline()), (0, 0, None));
    a.endpoint.selfcheck();
}

#[test]
fn the_answer_to_an_i1_depends_on_nothing_that_came_before() {
    // R5533-158
    let (addresses, i1) = i1_of(5);
    let mut calm = Node::with(1, unlimited());
    receive(&mut calm, at(3), addresses, &i1);
    let mut busy = Node::with(1, unlimited());
    for number in 6..100 {
        let (addresses, i1) = i1_of(number);
        receive(&mut busy, at(2), addresses, &i1);
    }
    receive(&mut busy, at(3), addresses, &i1);
    assert_eq!(calm.out, busy.out);
}

/// Counts what it is asked.
struct Counted(std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Counted {
    fn count(&self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl LocatorProof for Counted {
    fn owns(&mut self, ulid: Ulid, pds: &[u8]) -> bool {
        self.count();
        FakeProof.owns(ulid, pds)
    }

    fn proves(
        &mut self,
        ulid: Ulid,
        pds: Option<&[u8]>,
        list: &LocatorList,
        signature: Option<&[u8]>,
    ) -> Result<(), usize> {
        self.count();
        FakeProof.proves(ulid, pds, list, signature)
    }

    fn parameters_of(&self, address: Ulid, pds: &[u8]) -> Vec<u8> {
        FakeProof.parameters_of(address, pds)
    }
}

#[test]
fn nothing_is_computed_for_who_has_not_shown_where_it_is() {
    // R5533-178, R5533-312: parameters, lists and signatures are looked at after the validator.
    let asked = std::sync::Arc::default();
    let (mut a, mut b) = (Node::with(1, unlimited()), Node::new(2));
    a.endpoint.proof = Box::new(Counted(std::sync::Arc::clone(&asked)));
    let count = || asked.load(std::sync::atomic::Ordering::Relaxed);
    b.open(at(0), 1).unwrap();
    let (addresses, i1) = b.sent_one();
    a.receive(at(0), addresses, &i1);
    let (back, r1) = a.sent_one();
    b.receive(at(0), back, &r1);
    let (_, i2) = b.sent_one();
    for octet in 0..20 {
        let forged = altered(&i2, |options| options.validator.as_mut().unwrap()[octet] ^= 1);
        assert_eq!(a.receive(at(0), addresses, &forged), Verdict::Dropped(DropReason::BadValidator));
    }
    assert_eq!(a.receive(at(31), addresses, &i2), Verdict::Dropped(DropReason::StaleNonce));
    assert_eq!(count(), 0);
    assert_eq!(a.receive(at(30), addresses, &i2), Verdict::Accepted);
    assert_eq!(count(), 2, "once for the parameters, once for the list");
}

#[test]
fn every_kind_of_answer_to_strangers_is_limited() {
    // R5534-111
    // R5533-323
    let few = RatePair { prefix: Rate::new(1, 3), total: Rate::new(1, 5) };
    let config = Config { limits: Limits { r1: few, r1bis: few, r2: few, error: few }, ..Config::default() };
    let mut a = Node::with(1, config);
    a.open(at(0), 2).unwrap();
    let limited = Verdict::Dropped(DropReason::RateLimited);
    let count = |a: &mut Node, now: u64, make: &dyn Fn(u32) -> (Addresses, Message)| {
        let verdicts = (0..50).map(|number| {
            let (addresses, message) = make(number);
            receive(a, at(now), addresses, &message)
        });
        verdicts.filter(|verdict| *verdict != limited).count()
    };
    // Others are in another /48 each.
    let one = |message: Message| move |_| (stranger(1).0, message.clone());
    let lost = |number: u32| Message::Keepalive { receiver_tag: tag(number.into()), options: Options::NONE };
    assert_eq!(count(&mut a, 0, &one(i1_of(1).1)), 3);
    assert_eq!(count(&mut a, 0, &|number| i1_of((number + 1) << 16)), 2);
    // Half of what there is for R1bis, as near as may be, is left for payload.
    assert_eq!(count(&mut a, 0, &|number| (stranger(1).0, lost(number))), 1);
    assert_eq!(count(&mut a, 0, &|number| (stranger((number + 1) << 16).0, lost(1))), 1);
    let mut payload = |number: u32, from: u32| {
        let Addresses { source, target } = stranger(from).0;
        let pair = LocatorPair { local: Locator(target), peer: Locator(source) };
        a.endpoint.payload_without_context(at(0), tag(number.into()), pair, &mut a.out)
    };
    let mut goes_on = |from: u32| (0..2).any(|_| payload(from, from) == Verdict::Answered(Answer::R1bis));
    assert_eq!((0..50).filter(|number| goes_on((number + 100) << 16)).count(), 3, "as there are five in all");
    let options = Options { ulids: Some(a.ulids(2).mirrored()), ..Options::NONE };
    let crossing = Message::I1 { initiator_tag: tag(1), initiator_nonce: 1, options };
    assert_eq!(count(&mut a, 0, &one(crossing)), 3);
    // Two seconds later there are two more for one prefix.
    assert_eq!(count(&mut a, 2, &one(i1_of(1).1)), 2);
}

#[test]
fn errors_are_limited_too() {
    // R5533-323
    let mut a = Node::new(1);
    let addresses = stranger(1).0;
    let mut errors = 0;
    for _ in 0..100 {
        let message = Err(Unreadable::UnknownType { pointer: 2 });
        let packet = Incoming { addresses, message, ipv6_packet: &[0; 56], shim6_offset: 40 };
        let verdict = a.endpoint.receive(at(0), &mut a.rng, packet, &mut a.out);
        errors += usize::from(verdict == Verdict::Answered(Answer::Error(ErrorCode::UnknownMessage)));
    }
    assert_eq!((errors, a.sent().len()), (20, 20));
}

#[test]
fn contexts_have_a_bound() {
    // R5535-039
    let mut a = Node::with(1, Config { contexts_max: 3, ..unlimited() });
    for peer in 2..5 {
        a.open(at(0), peer).unwrap();
    }
    assert_eq!(a.open(at(0), 5), Err(OpenRefused::Full));
    let mut b = Node::new(6);
    b.open(at(0), 1).unwrap();
    converse(at(0), &mut b, &mut a);
    assert_eq!((b.state(at(0), 1), a.endpoint.len()), (State::I2Sent, 3));
    // Room made is room used.
    a.endpoint.discard(a.context(2).id, GoneReason::Discarded, &mut Vec::new());
    assert!(a.open(at(0), 5).is_ok());
    a.endpoint.selfcheck();
}

#[test]
fn failures_have_a_bound() {
    let mut a = Node::with(1, Config { holddowns_max: 10, i1_retries_max: 0, ..unlimited() });
    for peer in 2..102 {
        a.open(at(0), peer).unwrap();
    }
    while !a.endpoint.is_empty() {
        a.expire_next();
    }
    assert_eq!(a.endpoint.holddowns(), 10);
}

#[test]
fn a_replayed_i2_changes_nothing() {
    // Spec part 5, item 4: an I2 seen on the wire, sent again while its validator is young.
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.open(at(0), 2).unwrap();
    let (addresses, i1) = a.sent_one();
    b.receive(at(0), addresses, &i1);
    let (addresses, r1) = b.sent_one();
    a.receive(at(0), addresses, &r1);
    let (addresses, i2) = a.sent_one();
    converse(at(0), &mut a, &mut b);
    let before = (b.context(1).local_tag, b.context(1).peer_tag, b.context(1).peer_locators.clone());
    for _ in 0..3 {
        assert_eq!(b.receive(at(20), addresses, &i2), Verdict::Accepted);
        assert!(!b.out.iter().any(|output| matches!(output, Output::Ready { .. })));
        let (back, r2) = b.sent_one();
        assert_eq!(a.receive(at(20), back, &r2), Verdict::Dropped(DropReason::NoContext));
    }
    assert_eq!(before, (b.context(1).local_tag, b.context(1).peer_tag, b.context(1).peer_locators.clone()));
    assert_eq!(b.receive(at(40), addresses, &i2), Verdict::Dropped(DropReason::StaleNonce));
}
