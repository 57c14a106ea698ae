//! Peers with real addresses and real HBA sets cannot use up the contexts (spec part 5, item 3; decision 0015).

use dataplane::wire::shim6::{Probe, ProbeReport, ProbeState};

use super::flood::unlimited;
use super::*;

/// A peer as cheap as they come: one more address in a /64.
struct Peer {
    ulid: Ulid,
    locator: Locator,
    /// The host of ours that it asks.
    host: u16,
}

impl Peer {
    /// I1, R1, I2 with this tag; what became of the I2.
    fn ask_with(&self, node: &mut Node, now: Instant, initiator_tag: ContextTag) -> Verdict {
        let i1 = Message::I1 { initiator_tag, initiator_nonce: 7, options: self.options(0) };
        assert_eq!(node.receive_quick(now, self.addresses(), &i1), Verdict::Answered(Answer::R1));
        let (_, Message::R1 { responder_nonce, options, .. }) = node.sent_one() else { panic!("an R1") };
        let options = self.announcement(0, options.validator.unwrap());
        let i2 = Message::I2 { initiator_tag, initiator_nonce: 7, responder_nonce, options };
        node.receive_quick(now, self.addresses(), &i2)
    }

    /// Host `number` of /64 `prefix`.
    fn new(prefix: u16, number: u16) -> Peer {
        Peer { ulid: ulid(prefix, number), locator: locator(9, prefix, number), host: 1 }
    }

    fn ulids(&self) -> UlidPair {
        UlidPair { local: ulid(1, self.host), peer: self.ulid }
    }

    /// Our wish for a context with it.
    fn wish(&self) -> Open {
        Open { ulids: self.ulids(), fork: 0, pairs: vec![pair(locator(1, 1, self.host), self.locator)] }
    }

    fn addresses(&self) -> Addresses {
        between(self.locator, locator(1, 1, self.host))
    }

    /// Another one at every time, as of a peer that lost the context and asks again.
    fn tag(&self, now: Instant, fork: u32) -> ContextTag {
        let [_, prefix, .., number] = self.ulid.0.segments();
        let [prefix, number, fork] = [prefix.into(), number.into(), u64::from(fork)];
        tag(prefix << 30 | number << 20 | fork << 10 | now.0.as_secs())
    }

    fn options(&self, fork: u32) -> Options {
        let fork = (fork != 0).then_some(fork);
        Options { ulids: Some(self.ulids().mirrored()), fork, ..Options::NONE }
    }

    fn announcement(&self, fork: u32, validator: Vec<u8>) -> Options {
        let entries = vec![(self.locator, VerificationMethod::Hba)];
        let locators = Some(LocatorList { generation: 1, entries, methods_offset: 0 });
        let pds = Some(self.ulid.0.octets().to_vec());
        Options { validator: Some(validator), locators, pds, ..self.options(fork) }
    }

    /// I1, R1, I2; what became of the I2.
    fn ask(&self, node: &mut Node, now: Instant, fork: u32) -> Verdict {
        let (initiator_tag, initiator_nonce) = (self.tag(now, fork), 7);
        let i1 = Message::I1 { initiator_tag, initiator_nonce, options: self.options(fork) };
        assert_eq!(node.receive_quick(now, self.addresses(), &i1), Verdict::Answered(Answer::R1));
        let (_, Message::R1 { responder_nonce, options, .. }) = node.sent_one() else { panic!("an R1") };
        let options = self.announcement(fork, options.validator.unwrap());
        let i2 = Message::I2 { initiator_tag, initiator_nonce, responder_nonce, options };
        node.receive_quick(now, self.addresses(), &i2)
    }

    /// Something with a lost tag, R1bis, I2bis; what became of the I2bis.
    fn recover(&self, node: &mut Node, now: Instant, fork: u32) -> Verdict {
        let packet_tag = tag(1 << 40);
        let lost = Message::Keepalive { receiver_tag: packet_tag, options: Options::NONE };
        assert_eq!(node.receive_quick(now, self.addresses(), &lost), Verdict::Answered(Answer::R1bis));
        let (_, Message::R1bis { responder_nonce, options, .. }) = node.sent_one() else { panic!("an R1bis") };
        let options = self.announcement(fork, options.validator.unwrap());
        let (initiator_tag, initiator_nonce) = (self.tag(now, fork), 7);
        let i2bis = Message::I2bis { initiator_tag, initiator_nonce, responder_nonce, packet_tag, options };
        node.receive_quick(now, self.addresses(), &i2bis)
    }

    fn context(&self, node: &Node) -> Option<ContextId> {
        node.endpoint.find(self.ulids(), 0).map(|context| context.id)
    }
}

impl Node {
    /// As `receive`, without walking all contexts.
    fn receive_quick(&mut self, now: Instant, addresses: Addresses, message: &Message) -> Verdict {
        self.out.clear();
        let packet = Incoming { addresses, message: Ok(message), ipv6_packet: &[0; 64], shim6_offset: 40 };
        self.endpoint.receive(now, &mut self.rng, packet, &mut self.out)
    }

    /// Contexts that went without a word.
    fn displaced(&self) -> Vec<ContextId> {
        let displaced = self.out.iter().filter_map(|output| match output {
            Output::Gone { id, reason: GoneReason::Displaced, .. } => Some(*id),
            _ => None,
        });
        displaced.collect()
    }
}

fn table(contexts_max: usize) -> Node {
    Node::with(1, Config { contexts_max, accepted_per_prefix_percent: 12, ..unlimited() })
}

fn dropped(reason: DropReason) -> Verdict {
    Verdict::Dropped(reason)
}

#[test]
fn a_pair_has_few_forks() {
    let (mut a, peer) = (table(1000), Peer::new(2, 1));
    for fork in [0, 1, 2, 3, 4] {
        assert_eq!(peer.ask(&mut a, at(0), fork), Verdict::Accepted);
    }
    for fork in 5..500 {
        assert_eq!(peer.ask(&mut a, at(0), fork), dropped(DropReason::TooManyForks));
        assert!(a.out.is_empty());
    }
    assert_eq!(peer.recover(&mut a, at(0), 5), dropped(DropReason::TooManyForks));
    assert_eq!(a.endpoint.len(), 5);
    // Those that are there can be asked for again, other pairs have forks of their own, and what goes makes room.
    assert_eq!(peer.ask(&mut a, at(1), 4), Verdict::Accepted);
    assert_eq!(Peer::new(2, 2).ask(&mut a, at(1), 5), Verdict::Accepted);
    let fork = a.endpoint.find(peer.ulids(), 2).unwrap().id;
    a.endpoint.discard(fork, GoneReason::Discarded, &mut Vec::new());
    assert_eq!(peer.recover(&mut a, at(1), 5), Verdict::Accepted);
    a.endpoint.selfcheck();
}

#[test]
fn a_prefix_gets_its_share_whatever_identifiers_it_makes_up() {
    let mut a = table(1000);
    for number in 0..120 {
        assert_eq!(Peer::new(2, number).ask(&mut a, at(0), 0), Verdict::Accepted);
    }
    for number in 120..200 {
        assert_eq!(Peer::new(2, number).ask(&mut a, at(0), 0), dropped(DropReason::TooManyFromPrefix));
    }
    assert_eq!(Peer::new(2, 120).recover(&mut a, at(0), 0), dropped(DropReason::TooManyFromPrefix));
    assert_eq!(a.endpoint.len(), 120);
    // Others are not concerned, and neither is what our own hosts want from there.
    assert_eq!(Peer::new(3, 1).ask(&mut a, at(0), 0), Verdict::Accepted);
    let peer = Peer::new(2, 300);
    let pairs = vec![pair(locator(1, 1, 1), peer.locator)];
    assert!(a.open_with(at(0), Open { ulids: peer.ulids(), fork: 0, pairs }).is_ok());
    a.endpoint.selfcheck();
}

#[test]
fn a_small_table_still_lets_a_prefix_have_64() {
    let mut a = table(200);
    let accepted = (0..150).filter(|number| Peer::new(2, *number).ask(&mut a, at(0), 0) == Verdict::Accepted);
    assert_eq!(accepted.count(), 64);
}

#[test]
fn who_crowds_a_prefix_displaces_its_own() {
    let mut a = table(1000);
    let other = Peer::new(3, 1);
    other.ask(&mut a, at(0), 0);
    for number in 0..120 {
        Peer::new(2, number).ask(&mut a, at(1), 0);
    }
    a.endpoint.used(at(2), Peer::new(2, 0).context(&a).unwrap());
    // Not so soon that nobody could have used it.
    assert_eq!(Peer::new(2, 120).ask(&mut a, at(5), 0), dropped(DropReason::TooManyFromPrefix));
    let oldest = Peer::new(2, 1).context(&a).unwrap();
    assert_eq!(Peer::new(2, 120).ask(&mut a, at(6), 0), Verdict::Accepted);
    assert_eq!(a.displaced(), [oldest]);
    assert!(other.context(&a).is_some() && Peer::new(2, 0).context(&a).is_some());
    assert_eq!(a.endpoint.len(), 121);
    a.endpoint.selfcheck();
}

/// A table with as many accepted contexts as it takes, made at 0 s.
fn crowded(contexts_max: usize) -> Node {
    let mut a = table(contexts_max);
    let peers = (0..).flat_map(|prefix| (0..50).map(move |number| Peer::new(100 + prefix, number)));
    for peer in peers {
        if peer.ask(&mut a, at(0), 0) == dropped(DropReason::Reserved) {
            return a;
        }
    }
    unreachable!()
}

#[test]
fn peers_leave_room_for_what_our_hosts_want() {
    let mut a = crowded(1000);
    assert_eq!(a.endpoint.len(), 880);
    for host in 0..120 {
        let peer = Peer::new(2, host);
        let pairs = vec![pair(locator(1, 1, 1), peer.locator)];
        assert!(a.open_with(at(0), Open { ulids: peer.ulids(), fork: 0, pairs }).is_ok());
    }
    assert_eq!(a.open(at(0), 3), Err(OpenRefused::Full));
    assert_eq!(Peer::new(4, 1).ask(&mut a, at(0), 0), dropped(DropReason::Full));
    a.endpoint.selfcheck();
}

#[test]
fn where_space_is_short_what_nobody_used_gives_way() {
    // R5533-246 holds for what was used; decision 0015 for the rest.
    let mut a = crowded(1000);
    let first = Peer::new(100, 0).context(&a).unwrap();
    a.endpoint.used(at(1), first);
    let second = Peer::new(100, 1).context(&a).unwrap();
    let newcomer = Peer::new(3, 1);
    assert_eq!(newcomer.ask(&mut a, at(4), 0), dropped(DropReason::Reserved));
    assert_eq!(newcomer.ask(&mut a, at(5), 0), Verdict::Accepted);
    assert_eq!(a.displaced(), [second]);
    // For what our own hosts want as well.
    let third = Peer::new(100, 2).context(&a).unwrap();
    assert!(a.open(at(5), 2).is_ok());
    assert_eq!(a.displaced(), [third]);
    assert_eq!(a.endpoint.len(), 880);
    a.endpoint.selfcheck();
}

#[test]
fn who_cannot_prove_its_locators_displaces_nobody() {
    let mut a = crowded(1000);
    let liar = Peer { ulid: ulid(3, 1), locator: locator(9, 3, 0xbad), host: 1 };
    assert!(matches!(liar.ask(&mut a, at(60), 0), Verdict::Answered(Answer::Error(_))));
    assert_eq!((a.displaced(), a.endpoint.len()), (Vec::new(), 880));
}

#[test]
fn who_gets_no_tag_displaces_nobody() {
    // Eight tags for each shard, and those of host 2 are all in use.
    let config = Config { contexts_max: 16, ..unlimited() };
    let mut a = Node::with_tags(1, config, TagSpace::with_random_bits(1, 3), 1);
    a.endpoint.set_host(host(1, 2)).unwrap();
    let of_host_2 = |number| Peer { host: 2, ..Peer::new(2, number) };
    for number in 0..8 {
        a.open_with(at(0), of_host_2(number).wish()).unwrap();
    }
    for number in 0..6 {
        assert_eq!(Peer::new(3, number).ask(&mut a, at(0), 0), Verdict::Accepted);
    }
    assert_eq!(a.open_with(at(60), of_host_2(8).wish()), Err(OpenRefused::Full));
    assert_eq!((a.displaced(), a.endpoint.len()), (Vec::new(), 14));
    assert_eq!(of_host_2(8).ask(&mut a, at(60), 0), dropped(DropReason::Full));
    assert_eq!((a.displaced(), a.endpoint.len()), (Vec::new(), 14));
    // Host 1 has tags left, so there somebody gives way.
    let oldest = Peer::new(3, 0).context(&a).unwrap();
    assert!(a.open_with(at(60), Peer::new(3, 6).wish()).is_ok());
    assert_eq!((a.displaced(), a.endpoint.len()), (vec![oldest], 14));
    a.endpoint.selfcheck();
}

#[test]
fn in_a_full_table_the_newcomer_gets_the_place_of_who_gives_way() {
    let config = Config { contexts_max: 16, ..unlimited() };
    let mut a = Node::with_tags(1, config, TagSpace::new(1).with_slots(16), 1);
    for number in 0..4 {
        assert_eq!(Peer::new(3, number).ask(&mut a, at(0), 0), Verdict::Accepted);
    }
    for number in 0..12 {
        a.open_with(at(0), Peer::new(2, number).wish()).unwrap();
    }
    let place = |a: &Node, peer: &Peer| {
        let tag = a.endpoint.find(peer.ulids(), 0).unwrap().local_tag;
        (tag, dataplane::context::Shard::slot_of(tag, 16))
    };
    let before: Vec<_> = (0..2).map(|number| place(&a, &Peer::new(3, number))).collect();
    assert!(a.open_with(at(60), Peer::new(2, 12).wish()).is_ok());
    let (tag, slot) = place(&a, &Peer::new(2, 12));
    assert!(tag != before[0].0 && slot == before[0].1, "a tag of its own in the place of the other");
    // Place and all, the table is as full as it was: the next one goes for the next.
    assert!(a.open_with(at(60), Peer::new(2, 13).wish()).is_ok());
    assert_eq!(place(&a, &Peer::new(2, 13)).1, before[1].1);
    assert_eq!(a.endpoint.len(), 16);
    a.endpoint.selfcheck();
}

#[test]
fn while_there_is_space_nothing_goes_early() {
    // R5533-246
    let mut a = table(1000);
    for number in 0..60 {
        Peer::new(2, number).ask(&mut a, at(0), 0);
    }
    assert_eq!(Peer::new(3, 1).ask(&mut a, at(299), 0), Verdict::Accepted);
    a.expire(at(299));
    assert_eq!((a.displaced(), a.endpoint.len()), (Vec::new(), 61));
}

#[test]
fn whatever_shows_that_a_context_is_used_keeps_it() {
    let mut a = crowded(1000);
    let peers: Vec<Peer> = (0..5).map(|number| Peer::new(100, number)).collect();
    let receiver_tag = |a: &Node, peer: &Peer| a.endpoint.find(peer.ulids(), 0).unwrap().local_tag;
    let keepalive = Message::Keepalive { receiver_tag: receiver_tag(&a, &peers[0]), options: Options::NONE };
    let report = ProbeReport { source: peers[1].locator, target: locator(1, 1, 1), nonce: 1, data: 2 };
    let probe = Message::Probe(Probe {
        receiver_tag: receiver_tag(&a, &peers[1]),
        state: ProbeState::Exploring,
        sent: vec![report],
        received: Vec::new(),
        options: Options::NONE,
    });
    let options = Options::NONE;
    let update = Message::UpdateRequest { receiver_tag: receiver_tag(&a, &peers[2]), request_nonce: 1, options };
    for (peer, message) in peers.iter().zip([keepalive, probe, update]) {
        assert_eq!(a.receive(at(1), peer.addresses(), &message), Verdict::Accepted);
    }
    // An update that is not believed, and an I2 again, show nothing.
    let pds = Some(vec![0; 16]);
    let foreign = Message::UpdateRequest {
        receiver_tag: receiver_tag(&a, &peers[3]),
        request_nonce: 1,
        options: Options { pds, ..Options::NONE },
    };
    assert_eq!(a.receive(at(1), peers[3].addresses(), &foreign), dropped(DropReason::BadPds));
    assert_eq!(peers[4].ask(&mut a, at(1), 0), Verdict::Accepted);
    let next = [&peers[3], &peers[4]].map(|peer| peer.context(&a).unwrap());
    for (number, id) in (0..).zip(next) {
        assert_eq!(Peer::new(3, number).ask(&mut a, at(6), 0), Verdict::Accepted);
        assert_eq!(a.displaced(), [id]);
    }
    assert!(peers[..3].iter().all(|peer| peer.context(&a).is_some()));
}

#[test]
fn a_context_that_gave_way_comes_back_by_r1bis() {
    // RFC 5533 §7.5: what decision 0015 relies on.
    let (mut a, mut b) = (crowded(1000), Node::new(2));
    a.endpoint.used(at(1), Peer::new(100, 0).context(&a).unwrap());
    b.open(at(5), 1).unwrap();
    converse(at(5), &mut b, &mut a);
    assert_agreed(&a, &b);
    let crowd = (200..250).flat_map(|prefix| (0..50).map(move |number| Peer::new(prefix, number)));
    for peer in crowd {
        if a.endpoint.find(a.ulids(2), 0).is_none() {
            break;
        }
        peer.ask(&mut a, at(11), 0);
    }
    assert_eq!(a.state(at(11), 2), State::Idle);
    let receiver_tag = b.context(1).peer_tag.unwrap();
    let lost = Message::Keepalive { receiver_tag, options: Options::NONE };
    let addresses = between(locator(2, 1, 1), locator(1, 1, 1));
    assert_eq!(a.receive(at(20), addresses, &lost), Verdict::Answered(Answer::R1bis));
    let (addresses, r1bis) = a.sent_one();
    assert_eq!(b.receive(at(20), addresses, &r1bis), Verdict::Accepted);
    converse(at(20), &mut b, &mut a);
    assert_agreed(&a, &b);
}

#[test]
fn a_tag_that_all_peers_give_is_given_to_a_bounded_number_of_contexts() {
    // R5533-200: each new one is compared with all that have its tag.
    let mut node = Node::with(1, unlimited());
    let verdicts: Vec<Verdict> =
        (0..300).map(|number| Peer::new(2, number).ask_with(&mut node, at(1), tag(5))).collect();
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Accepted).count(), 256);
    assert_eq!(verdicts[256..], [Verdict::Dropped(DropReason::CommonTag); 44]);
    // Those who have it may say it again, and another tag is another matter.
    assert_eq!(Peer::new(2, 7).ask_with(&mut node, at(2), tag(6)), Verdict::Accepted);
    assert_eq!(Peer::new(2, 299).ask_with(&mut node, at(2), tag(5)), Verdict::Accepted, "there is room again");
    assert_eq!(Peer::new(2, 7).ask_with(&mut node, at(3), tag(5)), Verdict::Dropped(DropReason::CommonTag));
    node.endpoint.selfcheck();
}

#[test]
fn an_r2_says_no_tag_that_too_many_have() {
    // R5533-200: what is compared with all that have its tag is bounded on this way too.
    let mut node = Node::with(1, unlimited());
    let answer = |node: &mut Node, number: u16, tag: ContextTag| {
        node.open_with(at(1), Peer::new(2, number).wish()).unwrap();
        let (addresses, Message::I1 { initiator_nonce, .. }) = node.sent_one() else { panic!("an I1") };
        let r2 = |responder_tag| Message::R2 { responder_tag, initiator_nonce, options: Options::NONE };
        let verdict = node.receive_quick(at(1), addresses.swapped(), &r2(tag));
        (verdict, addresses.swapped(), r2(super::tag(7)))
    };
    let answers: Vec<_> = (0..300).map(|number| answer(&mut node, number, tag(5))).collect();
    let verdicts: Vec<Verdict> = answers.iter().map(|(verdict, ..)| *verdict).collect();
    assert_eq!(verdicts[..256], [Verdict::Accepted; 256]);
    assert_eq!(verdicts[256..], [Verdict::Dropped(DropReason::CommonTag); 44]);
    // The exchange goes on, and an answer with a tag of its own ends it.
    let (_, addresses, r2) = &answers[299];
    assert_eq!(node.receive_quick(at(2), *addresses, r2), Verdict::Accepted);
    // Ways in are counted together.
    assert_eq!(Peer::new(3, 1).ask_with(&mut node, at(2), tag(5)), Verdict::Dropped(DropReason::CommonTag));
    node.endpoint.selfcheck();
}
