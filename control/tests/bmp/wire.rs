//! Octets: golden ones from RFC 7854's figures and from FRR, and whatever anybody may send.

use std::fs;
use std::path::PathBuf;

use control::bmp::bgp::{self, Update};
use control::bmp::message::{HEADER_LEN, Malformed, Message, OCTETS_MAX, length_of};
use control::bmp::table::Net;
use proptest::collection::vec;
use proptest::prelude::*;

use super::routers::*;
use super::{X, half};

fn net(text: &str) -> Net {
    let (address, length) = text.split_once('/').unwrap();
    Net::new(half(address), length.parse().unwrap()).unwrap()
}

fn read(octets: &[u8], paths: bool) -> Result<Update, Malformed> {
    match Message::parse(octets).unwrap() {
        Message::RouteMonitoring(_, update) => bgp::update(update, paths),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_kind_of_message_is_what_it_says() {
    let Message::Initiation(told) = Message::parse(&initiation("edge-1\x1b[2J")).unwrap() else { panic!() };
    assert_eq!((told.name.as_str(), told.description.as_str()), ("edge-1?[2J", "a router of these tests"));
    let up = peer_up(X);
    let Message::PeerUp(peer, paths) = Message::parse(&up).unwrap() else { panic!() };
    assert_eq!((peer.id.address, peer.asn, peer.id.kind, paths), (X, 65001, 0, false));
    assert!(peer.is_inward() && !peer.is_post_policy());
    let several = peer_up_with(&per_peer(X, 65001, 0), &[IPV6, ADD_PATH]);
    assert!(matches!(Message::parse(&several).unwrap(), Message::PeerUp(_, true)));
    let other_family = peer_up_with(&per_peer(X, 65001, 0), &[&[69, 4, 0, 1, 1, 3]]);
    assert!(matches!(Message::parse(&other_family).unwrap(), Message::PeerUp(_, false)));
    assert!(matches!(Message::parse(&peer_down(X, 3)).unwrap(), Message::PeerDown(_, 3)));
    assert!(matches!(Message::parse(&termination(2)).unwrap(), Message::Termination(Some(2))));
    assert!(matches!(Message::parse(&statistics(X)).unwrap(), Message::Statistics(_)));
    assert!(matches!(Message::parse(&message(6, &[1, 2])).unwrap(), Message::Other(6)));
    assert!(matches!(Message::parse(&message(200, &[])).unwrap(), Message::Other(200)), "RFC 7854 section 4.1");
    let four = "10.0.0.9".parse().unwrap();
    let Message::PeerUp(peer, _) = Message::parse(&peer_up(four)).unwrap() else { panic!() };
    assert_eq!(peer.id.address, four);
    // Loc-RIB (RFC 9069) and Adj-RIB-Out (RFC 8671) are about no neighbour's routes.
    let mut loc_rib = per_peer(X, 65001, 0);
    loc_rib[0] = 3;
    for header in [loc_rib, per_peer(X, 65001, 0x10)] {
        let Message::PeerUp(peer, _) = Message::parse(&peer_up_with(&header, &[])).map(|it| it.clone()).unwrap() else {
            panic!()
        };
        assert!(!peer.is_inward());
    }
}

#[test]
fn prefixes_of_ipv6_are_found_among_everything_else() {
    let both = [unreach(&[prefix("2001:db8:1::/48"), prefix("::/0")].concat()), reach(&prefix("2001:db8:b::/47"))];
    let update = read(&monitoring(X, &both.concat()), false).unwrap();
    assert_eq!(update.withdrawn, [(net("2001:db8:1::/48"), 0), (net("::/0"), 0)]);
    assert_eq!((update.announced, update.end), (vec![(net("2001:db8:b::/47"), 0)], false));
    // What covers no /64 is left out; what is another family's is not looked into.
    let long = read(&announce(X, &["2001:db8::1/128", "2001:db8:b:1::/64", "2001:db8:b:1::/65"]), false).unwrap();
    assert_eq!(long.announced, [(net("2001:db8:b:1::/64"), 0)]);
    let vpn = [0x90, 14, 0, 7, 0, 2, 128, 0, 0, 200, 1];
    assert_eq!(bgp::update(&update_of(&vpn), false), Ok(Update::default()));
    // End-of-RIB is an empty MP_UNREACH and nothing else (RFC 4724 section 2).
    assert!(read(&end_of_rib(X), false).unwrap().end);
    let more = [unreach(&[]), reach(&prefix("::/0"))].concat();
    assert!(!read(&monitoring(X, &more), false).unwrap().end);
    assert!(!bgp::update(&update_of(&[]), false).unwrap().end, "that would be IPv4's");
}

fn update_of(attributes: &[u8]) -> Vec<u8> {
    update(attributes)
}

#[test]
fn path_identifiers_are_read_where_they_are_and_missed_where_they_should_be() {
    let with = [&7u32.to_be_bytes()[..], &prefix("2001:db8:b::/48"), &8u32.to_be_bytes(), &prefix("2001:db8:b::/48")];
    let octets = monitoring(X, &reach(&with.concat()));
    let update = read(&octets, true).unwrap();
    assert_eq!(update.announced, [(net("2001:db8:b::/48"), 7), (net("2001:db8:b::/48"), 8)]);
    // Agreed on, and left out of what the station is told, as FRR does.
    let without = announce(X, &["2001:db8:b::/48", "2001:db8:c::/48"]);
    let update = read(&without, true).unwrap();
    assert_eq!(update.announced, [(net("2001:db8:b::/48"), 0), (net("2001:db8:c::/48"), 0)]);
}

#[test]
fn octets_that_are_no_message_are_refused_by_what_is_wrong_with_them() {
    let header = |version, length: u32, kind| {
        let length = length.to_be_bytes();
        [version, length[0], length[1], length[2], length[3], kind]
    };
    assert_eq!(length_of(&header(2, 50, 0)), Err(Malformed::Version(2)));
    assert_eq!(length_of(&header(3, 5, 0)), Err(Malformed::Length(5)));
    assert_eq!(length_of(&header(3, u32::MAX, 0)), Err(Malformed::Length(u32::MAX)));
    assert_eq!(length_of(&header(3, OCTETS_MAX as u32, 0)), Ok(OCTETS_MAX));
    assert_eq!(Message::parse(&header(3, 7, 4)), Err(Malformed::Length(7)), "another length than it has");
    assert_eq!(Message::parse(&message(0, &[0; 41])), Err(Malformed::Truncated));
    assert_eq!(Message::parse(&message(4, &[0, 2, 0, 9, b'x'])), Err(Malformed::Truncated));
    let no_open = [&per_peer(X, 1, 0)[..], &[0; 20], &bgp(2, &[])].concat();
    assert_eq!(Message::parse(&message(3, &no_open)), Err(Malformed::Bgp));
    assert_eq!(bgp::update(&bgp(2, &[0, 0, 0, 9]), false), Err(Malformed::Truncated));
    assert_eq!(read(&monitoring(X, &reach(&[129, 0])), false), Err(Malformed::Prefix(129)));
    assert_eq!(read(&monitoring(X, &unreach(&[64, 0])), false), Err(Malformed::Truncated));
    let mut marked = update(&unreach(&[]));
    marked[3] = 0;
    assert_eq!(bgp::update(&marked, false), Err(Malformed::Bgp));
}

/// Whole messages of a stream.
pub(super) fn messages(mut octets: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Some(header) = octets.first_chunk::<HEADER_LEN>() {
        let (first, rest) = octets.split_at(length_of(header).unwrap());
        all.push(first);
        octets = rest;
    }
    assert!(octets.is_empty());
    all
}

/// What FRR 8.4 sent when it was connected, and when its neighbour withdrew and announced a route and was shut down.
pub(super) fn frr() -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/bmp/frr-8.4.bmp");
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_anybody_sends_panics(octets in vec(any::<u8>(), 0..300), kind in 0u8..8, paths: bool) {
        let _ = Message::parse(&octets);
        let _ = bgp::update(&octets, paths);
        let _ = bgp::update(&bgp(2, &octets), paths);
        let wrapped = message(kind, &[per_peer(X, 1, 0), octets.clone()].concat());
        let _ = Message::parse(&wrapped);
    }

    #[test]
    fn a_message_with_octets_changed_is_read_or_refused(
        which in 0usize..6, at in any::<prop::sample::Index>(), octet: u8, cut in any::<prop::sample::Index>(),
    ) {
        let all = [
            initiation("edge"), peer_up_with(&per_peer(X, 1, 0), &[IPV6, ADD_PATH]), peer_down(X, 1),
            announce(X, &["2001:db8::/32", "2001:db8:b::/48"]), withdraw(X, &["2001:db8::/32"]), termination(0),
        ];
        let mut changed = all[which].clone();
        let at = at.index(changed.len());
        changed[at] = octet;
        changed.truncate(cut.index(changed.len()) + 1);
        if let Ok(Message::RouteMonitoring(_, update)) = Message::parse(&changed) {
            let _ = bgp::update(update, true);
        }
    }

    #[test]
    fn what_is_announced_is_read(
        nets in vec((any::<u64>(), 0u8..=64, any::<u32>()), 0..40), paths: bool, withdrawn: bool,
    ) {
        let mut nlri = Vec::new();
        let mut expected = Vec::new();
        for (bits, length, path) in nets {
            let masked = if length == 0 { 0 } else { bits & u64::MAX << (64 - length) };
            if paths {
                nlri.extend(path.to_be_bytes());
            }
            nlri.push(length);
            nlri.extend(&masked.to_be_bytes()[..usize::from(length).div_ceil(8)]);
            expected.push((Net::new(bits, length).unwrap(), if paths { path } else { 0 }));
        }
        let attributes = if withdrawn { unreach(&nlri) } else { reach(&nlri) };
        let update = read(&monitoring(X, &attributes), paths).unwrap();
        prop_assert_eq!(if withdrawn { &update.withdrawn } else { &update.announced }, &expected);
    }
}
