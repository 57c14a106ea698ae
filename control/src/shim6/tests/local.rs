//! Contexts whose local ULID is a locator: peers that know no other name for the host.

use super::*;
use crate::identity::{HostPrefixes, Sec, SigningKey, make_host, prefix_of};

/// A host as it is outside of our sites: its ULID is routable, and the first of its two locators.
fn plain(site: u16) -> LocalHost {
    let ulid = Ulid(locator(site, 1, 1).0);
    LocalHost { ulid, pds: Some(ulid.0.octets().to_vec()), ..host(site, 1) }
}

/// A box of site 1, and a plain host.
fn meeting() -> (Node, Node) {
    let (a, mut b) = (Node::new(1), Node::new(2));
    b.endpoint.remove_host(at(0), ulid(2, 1), None, &mut Vec::new());
    b.endpoint.set_host(plain(2)).unwrap();
    (a, b)
}

fn named(local: Locator, peer: Locator) -> UlidPair {
    UlidPair { local: Ulid(local.0), peer: Ulid(peer.0) }
}

fn locators(context: &Context) -> Vec<Locator> {
    context.host.locators.iter().map(|(locator, _)| *locator).collect()
}

#[test]
fn a_peer_may_know_a_host_by_any_of_its_locators() {
    // R5533-014, R5533-019, R5533-281: nothing of the packets between the two changes.
    for provider in [1, 2] {
        let (mut a, mut b) = meeting();
        let (theirs, ours) = (locator(2, 1, 1), locator(1, provider, 1));
        b.open_with(at(0), Open { ulids: named(theirs, ours), fork: 0, pairs: vec![pair(theirs, ours)] }).unwrap();
        let (_, i1) = b.sent_one();
        assert!(matches!(&i1, Message::I1 { options, .. } if options.ulids.is_none()), "the addresses say it all");
        converse(at(0), &mut b, &mut a);
        let (here, there) = (
            a.endpoint.find(named(ours, theirs), 0).expect("a context of the locator"),
            b.endpoint.find(named(theirs, ours), 0).expect("its mirror image"),
        );
        assert_eq!((here.state, there.state), (State::Established, State::Established));
        assert_eq!((here.pair, here.tags_payload()), (pair(ours, theirs), false));
        assert_eq!((there.pair, there.tags_payload()), (pair(theirs, ours), false));
        // The other provider is what the context is for; the host's own ULID leads nowhere and is not told.
        assert_eq!(locators(here), [1, 2].map(|provider| locator(1, provider, 1)));
        let told: Vec<Locator> = there.peer_locators.iter().map(|known| known.locator).collect();
        assert_eq!(told, locators(here));
        assert!(there.peer_locators.iter().all(|known| known.verified));
        assert!(a.endpoint.find(a.ulids(2), 0).is_none());
    }
}

#[test]
fn the_locator_may_be_named_in_the_ulid_pair_option() {
    let (mut a, mut b) = meeting();
    let (theirs, ours, other) = (locator(2, 1, 1), locator(1, 1, 1), locator(1, 2, 1));
    b.open_with(at(0), Open { ulids: named(theirs, ours), fork: 0, pairs: vec![pair(theirs, other)] }).unwrap();
    converse(at(0), &mut b, &mut a);
    let context = a.endpoint.find(named(ours, theirs), 0).unwrap();
    assert_eq!((context.state, context.pair), (State::Established, pair(other, theirs)));
    assert!(context.tags_payload());
}

#[test]
fn we_open_for_a_locator_as_for_a_ulid() {
    let (mut a, mut b) = meeting();
    let (ours, theirs) = (locator(1, 2, 1), locator(2, 1, 1));
    let pairs = vec![pair(ours, theirs)];
    let id = a.open_with(at(0), Open { ulids: named(ours, theirs), fork: 0, pairs: pairs.clone() }).unwrap();
    converse(at(0), &mut a, &mut b);
    let context = a.endpoint.context(id).unwrap();
    assert_eq!((context.state, context.pair, context.tags_payload()), (State::Established, pairs[0], false));
    // R5533-020: to another pair, where packets are tagged, and back.
    a.endpoint.set_pair(id, pair(locator(1, 1, 1), theirs)).unwrap();
    assert!(a.endpoint.context(id).unwrap().tags_payload());
    a.endpoint.set_pair(id, pairs[0]).unwrap();
    assert!(!a.endpoint.context(id).unwrap().tags_payload());
    // The host's own ULID makes another context, since the peer cannot know that it is the same host.
    let own = Open { ulids: a.ulids(2), fork: 0, pairs };
    assert!(a.open_with(at(1), own).is_ok_and(|other| other != id));
}

#[test]
fn contexts_of_a_locator_share_what_is_told_and_the_shard_of_the_host() {
    let mut a = Node::new(1);
    let ours = locator(1, 1, 1);
    let mut open = |number: u16| {
        let theirs = locator(2, 1, number);
        let request = Open { ulids: named(ours, theirs), fork: 0, pairs: vec![pair(ours, theirs)] };
        let id = a.open_with(at(0), request).unwrap();
        a.endpoint.context(id).unwrap().clone()
    };
    let (one, other) = (open(1), open(2));
    assert!(std::sync::Arc::ptr_eq(&one.host, &other.host));
    assert_eq!(a.endpoint.inside(one.ulids), UlidPair { local: ulid(1, 1), peer: one.ulids.peer });
    // The kit's shard is the last octet of the host's ULID, which is that of its locators; so tell them apart.
    let mut a = Node::with(1, Config::default());
    a.endpoint.set_host(LocalHost { ulid: ulid(1, 7), pds: host(1, 7).pds, ..host(1, 5) }).unwrap();
    let ours = locator(1, 1, 5);
    let request = Open { ulids: named(ours, locator(2, 1, 1)), fork: 0, pairs: vec![pair(ours, locator(2, 1, 1))] };
    let id = a.open_with(at(0), request).unwrap();
    assert_eq!(tags::shard_of(a.endpoint.context(id).unwrap().local_tag), 7);
}

#[test]
fn contexts_of_locators_go_with_the_host() {
    // R5533-004
    let (mut a, mut b) = meeting();
    let (ours, theirs) = (locator(1, 1, 1), locator(2, 1, 1));
    a.open_with(at(0), Open { ulids: named(ours, theirs), fork: 0, pairs: vec![pair(ours, theirs)] }).unwrap();
    converse(at(0), &mut a, &mut b);
    a.out.clear();
    a.endpoint.remove_host(at(0), ulid(1, 1), None, &mut a.out);
    assert!(a.out.iter().any(|output| matches!(output, Output::Gone { reason: GoneReason::HostRemoved, .. })));
    assert!(a.endpoint.is_empty() && a.endpoint.host_at(Ulid(ours.0)).is_none());
    let again = Open { ulids: named(ours, theirs), fork: 0, pairs: vec![pair(ours, theirs)] };
    assert_eq!(a.open_with(at(1), again), Err(OpenRefused::UnknownHost));
}

#[test]
fn a_locator_of_a_new_list_is_a_ulid_and_one_that_is_gone_is_none() {
    let mut a = Node::new(1);
    let hba = VerificationMethod::Hba;
    let moved =
        LocalHost { locators: vec![(locator(1, 1, 1), hba), (locator(1, 3, 1), hba)], generation: 101, ..host(1, 1) };
    a.endpoint.set_host(moved).unwrap();
    let mut open = |provider: u16| {
        let ours = locator(1, provider, 1);
        let theirs = locator(2, 1, 1);
        a.open_with(at(0), Open { ulids: named(ours, theirs), fork: 0, pairs: vec![pair(ours, theirs)] }).map(|_| ())
    };
    assert_eq!([open(1), open(2), open(3)], [Ok(()), Err(OpenRefused::UnknownHost), Ok(())]);
}

#[test]
fn a_locator_that_is_struck_is_an_identifier_for_those_alone_who_have_it_as_one() {
    // R5533-004; docs/decisions/0017
    let (mut a, mut b) = meeting();
    let mut c = Node::new(3);
    let (struck, theirs) = (locator(1, 2, 1), locator(2, 1, 1));
    let pairs = vec![pair(struck, theirs)];
    let id = a.open_with(at(0), Open { ulids: named(struck, theirs), fork: 0, pairs }).unwrap();
    converse(at(0), &mut a, &mut b);
    let left = LocalHost { locators: vec![(locator(1, 1, 1), VerificationMethod::Hba)], generation: 101, ..host(1, 1) };
    a.endpoint.set_host(left).unwrap();
    assert_eq!(a.endpoint.ulids_in_use(ulid(1, 1)).collect::<Vec<_>>(), [Ulid(struck.0)]);
    // Its peer is answered, also when it has lost the context and asks for it again.
    let mut b_again = Node::new(2);
    b_again.endpoint.remove_host(at(0), ulid(2, 1), None, &mut Vec::new());
    b_again.endpoint.set_host(plain(2)).unwrap();
    let pairs = vec![pair(theirs, locator(1, 1, 1))];
    b_again.open_with(at(1), Open { ulids: named(theirs, struck), fork: 0, pairs }).unwrap();
    converse(at(1), &mut b_again, &mut a);
    assert_eq!(a.endpoint.find(named(struck, theirs), 0).unwrap().id, id);
    assert_eq!(b_again.endpoint.find(named(theirs, struck), 0).unwrap().state, State::Established);
    // Others are not, and we ask nobody else under that name.
    let stranger = locator(3, 1, 1);
    let open = |from: Locator, to: Locator| Open { ulids: named(from, struck), fork: 0, pairs: vec![pair(from, to)] };
    c.endpoint.remove_host(at(0), ulid(3, 1), None, &mut Vec::new());
    c.endpoint.set_host(plain(3)).unwrap();
    c.open_with(at(1), open(stranger, locator(1, 1, 1))).unwrap();
    let (addresses, i1) = c.sent_one();
    assert_eq!(a.receive(at(1), addresses, &i1), Verdict::Dropped(DropReason::UnknownHost));
    let ours = Open { ulids: named(struck, stranger), fork: 0, pairs: vec![pair(locator(1, 1, 1), stranger)] };
    assert_eq!(a.open_with(at(1), ours), Err(OpenRefused::UnknownHost));
}

#[test]
fn real_parameters_prove_a_locator_as_they_prove_the_ulid() {
    // R5535-021; the second host has a key too, and one locator that it alone vouches for.
    let mut rng = StdRng::seed_from_u64(1);
    let mut real = |site: u16, key: Option<&SigningKey>| {
        let prefixes = HostPrefixes {
            ulid: prefix_of(ulid(site, 0).0),
            locators: [1, 2].map(|provider| prefix_of(locator(site, provider, 0).0)).to_vec(),
        };
        make_host(&prefixes, Sec::ZERO, key, &mut rng).unwrap()
    };
    let key = SigningKey::generate(1024).unwrap();
    let (ours, theirs) = (real(1, None), real(2, Some(&key)));
    let hba =
        |made: &crate::identity::HostIdentity| made.locators.iter().map(|it| (*it, VerificationMethod::Hba)).collect();
    let node = |site: u16, host: LocalHost| {
        let mut node = Node::new(site);
        node.endpoint.proof = Box::new(ProofMemory::new(IdentityProof));
        node.endpoint.set_host(host).unwrap();
        node
    };
    let local = |made: &crate::identity::HostIdentity, locators, signature| LocalHost {
        ulid: made.ulid,
        locators,
        pds: Some(made.pds.clone()),
        generation: 9,
        signature,
        preferences: None,
    };
    let elsewhere = locator(2, 9, 0x55);
    let mut signed: Vec<(Locator, VerificationMethod)> = hba(&theirs);
    signed.push((elsewhere, VerificationMethod::Cga));
    let signature = key.sign_locators(9, &[elsewhere]).unwrap();
    let mut a = node(1, local(&ours, hba(&ours), None));
    let mut b = node(2, local(&theirs, signed, Some(signature)));
    for (from, to) in [(ours.locators[0], theirs.locators[1]), (ours.locators[1], theirs.locators[0])] {
        let id = a.open_with(at(0), Open { ulids: named(from, to), fork: 0, pairs: vec![pair(from, to)] }).unwrap();
        converse(at(0), &mut a, &mut b);
        let context = a.endpoint.context(id).unwrap();
        assert_eq!((context.state, context.peer_locators.len()), (State::Established, 3));
        assert!(context.peer_locators.iter().all(|known| known.verified));
    }
    // An address that no parameters belong to is a locator, and can be no ULID.
    let from = ours.locators[0];
    a.open_with(at(0), Open { ulids: named(from, elsewhere), fork: 0, pairs: vec![pair(from, elsewhere)] }).unwrap();
    let (addresses, i1) = a.sent_one();
    assert_eq!(b.receive(at(0), addresses, &i1), Verdict::Answered(Answer::R1));
    let (addresses, r1) = b.sent_one();
    a.receive(at(0), addresses, &r1);
    let (addresses, i2) = a.sent_one();
    assert_eq!(b.receive(at(0), addresses, &i2), Verdict::Dropped(DropReason::UnknownHost));
}
