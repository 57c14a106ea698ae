//! Hosts come, change and go.

use dataplane::wire::ethernet::Mac;

use super::*;

#[test]
fn a_host_must_be_one_that_peers_can_believe() {
    // R5533-011, R5533-028
    let mut a = Node::new(1);
    let refused = |a: &mut Node, host: LocalHost| a.endpoint.set_host(host).unwrap_err();
    let good = || LocalHost { generation: 200, ..host(1, 1) };
    let hba = VerificationMethod::Hba;
    let foreign = (locator(1, 3, 0xbad), hba);
    assert_eq!(
        refused(&mut a, LocalHost { locators: vec![(locator(1, 1, 1), hba), foreign], ..good() }),
        HostRefused::Unproved(1)
    );
    assert_eq!(refused(&mut a, LocalHost { pds: None, ..good() }), HostRefused::Unproved(0));
    assert_eq!(refused(&mut a, LocalHost { pds: host(2, 1).pds, ..good() }), HostRefused::Unproved(0));
    assert_eq!(refused(&mut a, LocalHost { locators: Vec::new(), ..good() }), HostRefused::NoLocators);
    assert_eq!(refused(&mut a, LocalHost { preferences: Some(Vec::new()), ..good() }), HostRefused::PreferenceCount);
    let multicast: Ipv6Addr = "ff05::2".parse().unwrap();
    let locators = vec![(Locator(multicast), hba)];
    assert_eq!(refused(&mut a, LocalHost { locators, ..good() }), HostRefused::BadAddress(multicast));
    let signed = (0..70).map(|i| (locator(1, i, 1), VerificationMethod::Cga)).collect();
    assert_eq!(refused(&mut a, LocalHost { locators: signed, ..good() }), HostRefused::TooLarge);
    // R5533-108
    let locators = vec![(locator(1, 2, 1), hba)];
    let changed = LocalHost { locators, generation: 100, ..good() };
    assert_eq!(refused(&mut a, changed), HostRefused::SameGeneration(100));
    assert_eq!(a.endpoint.set_host(good()), Ok(()));
}

#[test]
fn everything_a_host_with_many_locators_sends_fits_in_1280_octets() {
    // R5533-028, R5533-029, R5533-106
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let many = |site| LocalHost {
        locators: (1..70).map(|provider| (locator(site, provider, 1), VerificationMethod::Hba)).collect(),
        generation: 101,
        preferences: Some(vec![Default::default(); 69]),
        ..host(site, 1)
    };
    a.endpoint.set_host(many(1)).unwrap();
    b.endpoint.set_host(many(2)).unwrap();
    let told = a.endpoint.host(ulid(1, 1)).unwrap().locators.len();
    assert!((20..69).contains(&told), "{told} locators");
    a.open(at(0), 2).unwrap();
    // The kit emits every message, and would not get one past 1280 octets.
    converse(at(0), &mut a, &mut b);
    assert_agreed(&a, &b);
    assert_eq!(b.context(1).peer_locators.len(), told);
    let mut b = Node::with_tags(2, Config::default(), TagSpace::new(2), 8);
    let (tag, pair) = (a.context(2).peer_tag.unwrap(), a.context(2).pair.mirrored());
    b.endpoint.payload_without_context(at(1), tag, pair, &mut b.out);
    converse(at(1), &mut b, &mut a);
    assert_agreed(&a, &b);
}

#[test]
fn with_its_ulid_all_contexts_of_a_host_go() {
    // R5533-004
    let (mut a, mut b) = established();
    a.endpoint.set_host(host(1, 2)).unwrap();
    a.open(at(1), 3).unwrap();
    let ulids = UlidPair { local: ulid(1, 2), peer: ulid(2, 1) };
    let pairs = vec![pair(locator(1, 1, 2), locator(2, 1, 1))];
    a.open_with(at(1), Open { ulids, fork: 0, pairs }).unwrap();
    assert_eq!(a.endpoint.len(), 3);
    a.out.clear();
    a.endpoint.remove_host(at(1), ulid(1, 1), None, &mut a.out);
    let gone = a.out.iter().filter(|output| matches!(output, Output::Gone { reason: GoneReason::HostRemoved, .. }));
    assert_eq!((gone.count(), a.out.len(), a.endpoint.len()), (2, 2, 1));
    a.endpoint.selfcheck();
    // The peer is told when it speaks, and gets no context any more.
    let receiver_tag = b.context(1).peer_tag.unwrap();
    let keepalive = Message::Keepalive { receiver_tag, options: Options::NONE };
    let addresses = between(locator(2, 1, 1), locator(1, 1, 1));
    assert_eq!(a.receive(at(2), addresses, &keepalive), Verdict::Answered(Answer::R1bis));
    let (addresses, r1bis) = a.sent_one();
    b.receive(at(2), addresses, &r1bis);
    let (addresses, i2bis) = b.sent_one();
    assert_eq!(a.receive(at(2), addresses, &i2bis), Verdict::Dropped(DropReason::UnknownHost));
    assert_eq!(a.open(at(2), 2), Err(OpenRefused::UnknownHost));
}

#[test]
fn what_a_host_leaves_behind_is_no_other_hosts_for_a_while() {
    // R5533-004, R5533-125: the proxy's part of "ULID invalid" is not to give its addresses and tags away.
    let (mut a, _) = established();
    let tag = a.context(2).local_tag;
    // The peer knows the list from before the newest, too.
    a.endpoint.set_host(LocalHost { generation: 101, locators: vec![host(1, 1).locators[1]], ..host(1, 1) }).unwrap();
    let link = Mac([2, 0, 0, 0, 0, 1]);
    a.endpoint.remove_host(at(10), ulid(1, 1), Some(link), &mut Vec::new());
    let gone = Owner { pds: host(1, 1).pds, link: Some(link) };
    let others = [
        Owner { pds: host(1, 2).pds, link: Some(link) },
        Owner { link: Some(Mac([2, 0, 0, 0, 0, 2])), ..gone.clone() },
    ];
    let addresses = [ulid(1, 1).0, locator(1, 1, 1).0, locator(1, 2, 1).0];
    for address in addresses {
        assert_eq!(a.endpoint.quarantine().admits(at(11), address, &gone), Ok(()));
        for other in &others {
            let held = a.endpoint.quarantine().admits(at(11), address, other).unwrap_err();
            assert_eq!((held.ulid, held.until), (ulid(1, 1), at(910)));
        }
    }
    assert!(a.endpoint.quarantine().holds_tag(tag));
    assert_eq!(a.endpoint.deadline(), Some(at(910)));
    a.endpoint.expire(at(910), &mut a.rng, &mut a.out);
    assert!(addresses.iter().all(|it| a.endpoint.quarantine().admits(at(910), *it, &others[0]).is_ok()));
    assert!(!a.endpoint.quarantine().holds_tag(tag));
}

#[test]
fn a_name_of_a_context_is_never_used_twice() {
    let mut a = Node::new(1);
    let mut names = std::collections::HashSet::new();
    for _ in 0..100 {
        let id = a.open(at(0), 2).unwrap();
        assert!(names.insert(id));
        assert_eq!(ContextId::from_bits(id.to_bits()), id);
        assert_eq!(id.index(), 0);
        a.endpoint.discard(id, GoneReason::Discarded, &mut Vec::new());
        assert!(a.endpoint.context(id).is_none());
    }
}

#[test]
fn sources_that_are_not_the_hosts_are_not_tried() {
    let mut a = Node::new(1);
    let foreign = pair(locator(9, 1, 1), locator(2, 1, 1));
    let only_foreign = Open { ulids: a.ulids(2), fork: 0, pairs: vec![foreign] };
    assert_eq!(a.open_with(at(0), only_foreign), Err(OpenRefused::NoLocators));
    let mixed = Open { ulids: a.ulids(2), fork: 0, pairs: vec![foreign, a.pair(2)] };
    a.open_with(at(0), mixed).unwrap();
    assert_eq!(a.sent_one().0, between(locator(1, 1, 1), locator(2, 1, 1)));
}

#[test]
fn tags_name_the_shard_of_the_pair() {
    let (a, b) = established();
    assert_eq!((tags::box_of(a.context(2).local_tag), tags::shard_of(a.context(2).local_tag)), (1, 1));
    assert_eq!((tags::box_of(b.context(1).local_tag), tags::shard_of(b.context(1).local_tag)), (2, 1));
}

#[test]
fn with_real_keys_and_hashes_two_boxes_agree_and_forgery_shows() {
    // R5533-133, R5533-012: HBA members by hash, any other address by the signature of the ULID's key.
    use crate::identity::{HostPrefixes, Sec, SigningKey, make_host, prefix_of};

    let mut rng = StdRng::seed_from_u64(1);
    let mut make = |site: u16| {
        let locators = [1, 2].map(|provider| prefix_of(locator(site, provider, 0).0)).to_vec();
        let prefixes = HostPrefixes { ulid: prefix_of(ulid(site, 0).0), locators };
        let key = SigningKey::generate(1024).unwrap();
        let made = make_host(&prefixes, Sec::ZERO, Some(&key), &mut rng).unwrap();
        let elsewhere = locator(site, 9, 0x55);
        let hba = made.locators.iter().map(|locator| (*locator, VerificationMethod::Hba));
        LocalHost {
            ulid: made.ulid,
            locators: hba.chain([(elsewhere, VerificationMethod::Cga)]).collect(),
            pds: Some(made.pds),
            generation: 77,
            signature: Some(key.sign_locators(77, &[elsewhere]).unwrap()),
            preferences: None,
        }
    };
    let (ours, theirs) = (make(1), make(2));
    let node = |site: u16, host: &LocalHost| {
        let mut node = Node::new(site);
        node.endpoint.proof = Box::new(ProofMemory::new(IdentityProof));
        node.endpoint.set_host(host.clone()).unwrap();
        node
    };
    let (mut a, mut b) = (node(1, &ours), node(2, &theirs));
    let forged = LocalHost { signature: theirs.signature.clone(), generation: 78, ..ours.clone() };
    assert_eq!(a.endpoint.set_host(forged), Err(HostRefused::Unproved(2)));

    let ulids = UlidPair { local: ours.ulid, peer: theirs.ulid };
    let pairs = vec![pair(ours.locators[0].0, theirs.locators[0].0)];
    let id = a.open_with(at(0), Open { ulids, fork: 0, pairs }).unwrap();
    let (addresses, i1) = a.sent_one();
    b.receive(at(0), addresses, &i1);
    let (addresses, r1) = b.sent_one();
    a.receive(at(0), addresses, &r1);
    // R5533-060, R5533-170
    let (addresses, i2) = a.sent_one();
    assert_eq!(options_of(&mut i2.clone()).signature, ours.signature);
    let diverted = altered(&i2, |options| options.locators.as_mut().unwrap().entries[2].0 = locator(3, 3, 3));
    let resigned = altered(&i2, |options| options.locators.as_mut().unwrap().generation = 78);
    let swapped = altered(&i2, |options| options.locators.as_mut().unwrap().entries[1].0 = theirs.locators[1].0);
    for forged in [diverted, resigned, swapped] {
        assert!(matches!(b.receive(at(0), addresses, &forged), Verdict::Answered(Answer::Error(_))));
        assert!(b.endpoint.is_empty());
    }
    let foreign = altered(&i2, |options| options.pds.clone_from(&theirs.pds));
    assert_eq!(b.receive(at(0), addresses, &foreign), Verdict::Dropped(DropReason::BadPds));
    b.receive(at(0), addresses, &i2);
    // R5533-065
    let (_, mut r2) = b.sent_one();
    let told = options_of(&mut r2);
    assert_eq!((&told.pds, &told.signature), (&theirs.pds, &theirs.signature));
    converse(at(0), &mut b, &mut a);
    let context = a.endpoint.context(id).unwrap();
    assert_eq!(context.state, State::Established);
    let known: Vec<Locator> = context.peer_locators.iter().map(|known| known.locator).collect();
    assert_eq!(known, theirs.locators.iter().map(|(locator, _)| *locator).collect::<Vec<_>>());
    assert!(context.peer_locators.iter().all(|known| known.verified));
}
