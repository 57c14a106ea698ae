//! Sessions and what they say of providers: when something is concluded, and when nothing is.

use std::net::IpAddr;

use control::bmp::{Change, Phase, Refused, Station};
use control::config::bmp::{Bmp, View};
use control::time::Instant;

use super::routers::*;
use super::{X, Y, half, settings, source, station_of};

const PEER: &str = "2001:db8:b:1::";
const ROUTER: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

fn at(seconds: u64) -> Instant {
    Instant::from_millis(1000 * seconds)
}

/// A station with a source for isp-x, and a router that has told its routes.
fn told(settings: Bmp, prefixes: &[&str]) -> Station {
    let mut station = station_of(settings);
    station.ask(half(PEER));
    connect(&mut station, 1, &session("edge", X, prefixes));
    station
}

fn connect(station: &mut Station, id: u64, messages: &[Vec<u8>]) {
    station.connected(at(1), id, ROUTER, None);
    say(station, id, messages);
}

fn say(station: &mut Station, id: u64, messages: &[Vec<u8>]) {
    messages.iter().for_each(|message| station.message(at(2), id, message).unwrap());
}

/// News as (provider, lost).
fn news(station: &mut Station) -> Vec<(String, bool)> {
    let all = station.take(1000);
    all.iter().map(|change: &Change| (change.provider.to_string(), change.lost)).collect()
}

fn lost(provider: &str) -> Vec<(String, bool)> {
    vec![(provider.to_owned(), true)]
}

fn back(provider: &str) -> Vec<(String, bool)> {
    vec![(provider.to_owned(), false)]
}

fn one() -> Bmp {
    settings(vec![source("isp-x", X)])
}

#[test]
fn a_route_that_goes_is_lost_and_one_that_comes_is_back() {
    let mut station = told(one(), &["2001:db8:b::/48", "2001:db8::/32"]);
    assert_eq!(news(&mut station), []);
    say(&mut station, 1, &[withdraw(X, &["2001:db8:b::/48"])]);
    assert_eq!(news(&mut station), [], "the shorter one covers");
    say(&mut station, 1, &[withdraw(X, &["2001:db8::/32"])]);
    assert_eq!(news(&mut station), lost("isp-x"));
    say(&mut station, 1, &[announce(X, &["::/0"])]);
    assert_eq!(news(&mut station), back("isp-x"));
    let mut explicit = settings(vec![super::RouteSource { default_route: false, ..source("isp-x", X) }]);
    explicit.stall = None;
    let mut station = told(explicit, &["2001:db8:b::/48", "::/0"]);
    say(&mut station, 1, &[withdraw(X, &["2001:db8:b::/48"])]);
    assert_eq!(news(&mut station), lost("isp-x"));
}

#[test]
fn nothing_is_concluded_before_the_end_of_the_table() {
    let mut station = station_of(one());
    station.ask(half(PEER));
    let all = session("edge", X, &["2001:db8:b::/48"]);
    connect(&mut station, 1, &all[..3]);
    say(&mut station, 1, &[withdraw(X, &["2001:db8:b::/48"])]);
    assert_eq!(news(&mut station), [], "it may come again");
    say(&mut station, 1, &all[3..]);
    assert_eq!(news(&mut station), lost("isp-x"), "it was there, and is not in the whole");
    // Where the End-of-RIB never comes, silence has to do.
    let mut forgetful = station_of(one());
    forgetful.ask(half(PEER));
    connect(&mut forgetful, 1, &all[..3]);
    say(&mut forgetful, 1, &[withdraw(X, &["2001:db8:b::/48"])]);
    assert_eq!(forgetful.deadline(), Some(at(17)));
    forgetful.expire(at(16));
    assert_eq!(news(&mut forgetful), []);
    forgetful.expire(at(17));
    assert_eq!((news(&mut forgetful), forgetful.status(at(17)).sources[0].phase), (lost("isp-x"), Phase::Complete));
    // A session that comes up again begins anew, and until it is complete nothing is known.
    say(&mut station, 1, &all[1..2]);
    assert_eq!(news(&mut station), back("isp-x"));
    // Its neighbour may not have told the router anything yet.
    say(&mut station, 1, &[end_of_rib(X), announce(X, &["2001:db8:c::/48"])]);
    assert_eq!((news(&mut station), station.deadline()), (vec![], Some(at(122))));
    station.expire(at(122));
    assert_eq!(news(&mut station), lost("isp-x"));
    // One that has nothing at all says nothing.
    let mut station = told(settings(vec![super::RouteSource { complete: true, ..source("isp-x", X) }]), &[]);
    station.expire(at(122));
    assert_eq!(news(&mut station), []);
}

#[test]
fn what_was_never_there_is_not_lost_unless_the_provider_has_everything() {
    let mut station = told(one(), &["2001:db8:c::/48"]);
    assert_eq!(news(&mut station), []);
    let mut station =
        told(settings(vec![super::RouteSource { complete: true, ..source("isp-x", X) }]), &["2001:db8:c::/48"]);
    assert_eq!(news(&mut station), []);
    station.expire(at(122));
    assert_eq!(news(&mut station), lost("isp-x"));
    // Also of what is asked later.
    station.ask(half("2001:db8:d::"));
    assert_eq!(news(&mut station), lost("isp-x"));
}

#[test]
fn a_router_that_is_gone_or_silent_says_nothing_in_either_direction() {
    let mut station = told(one(), &["2001:db8:b::/48"]);
    station.closed(at(3), 1);
    assert_eq!(news(&mut station), []);
    connect(&mut station, 2, &session("edge", X, &["2001:db8:c::/48"]));
    station.expire(at(122));
    assert_eq!(news(&mut station), lost("isp-x"), "it was there before, and went while nobody told");
    station.closed(at(4), 2);
    assert_eq!(news(&mut station), back("isp-x"));
    // Silence.
    connect(&mut station, 3, &session("edge", X, &["2001:db8:c::/48"]));
    station.expire(at(122));
    assert_eq!(news(&mut station), lost("isp-x"));
    assert_eq!(station.deadline(), Some(at(302)));
    station.expire(at(301));
    assert_eq!(news(&mut station), []);
    station.expire(at(302));
    assert_eq!(news(&mut station), back("isp-x"));
    assert!(station.status(at(303)).sources[0].stalled && station.deadline().is_none());
    // Whatever it says next, what it said before is as true as it was.
    station.message(at(400), 3, &statistics(X)).unwrap();
    assert_eq!(news(&mut station), lost("isp-x"));
    assert_eq!(station.deadline(), Some(at(700)));
}

#[test]
fn a_session_that_is_down_has_no_routes_and_one_that_is_watched_no_longer_is_unknown() {
    for (reason, expected) in [(1, true), (2, true), (3, true), (4, true), (5, false), (9, false)] {
        let mut station = told(one(), &["2001:db8:b::/48"]);
        say(&mut station, 1, &[peer_down(X, reason)]);
        assert_eq!(news(&mut station), if expected { lost("isp-x") } else { vec![] }, "{reason}");
        let phase = station.status(at(3)).sources[0].phase;
        assert_eq!(phase, if expected { Phase::Down } else { Phase::Silent });
        // Routes without a session are none.
        say(&mut station, 1, &[announce(X, &["2001:db8:b::/48"])]);
        assert_eq!(news(&mut station), []);
        say(&mut station, 1, &session("edge", X, &["2001:db8:b::/48"])[1..]);
        assert_eq!(news(&mut station), if expected { back("isp-x") } else { vec![] });
    }
}

#[test]
fn several_sessions_of_a_provider_have_to_agree_that_a_route_is_gone() {
    let mut station = told(settings(vec![source("isp-x", X), source("isp-x", Y)]), &["2001:db8:b::/48"]);
    say(&mut station, 1, &[withdraw(X, &["2001:db8:b::/48"])]);
    assert_eq!(news(&mut station), [], "the other one is not known");
    connect(&mut station, 2, &session("edge-2", Y, &["2001:db8:b::/48"]));
    assert_eq!(news(&mut station), []);
    say(&mut station, 2, &[withdraw(Y, &["2001:db8:b::/48"])]);
    assert_eq!(news(&mut station), lost("isp-x"));
    say(&mut station, 1, &[announce(X, &["2001:db8:b::/48"])]);
    assert_eq!(news(&mut station), back("isp-x"));
    // Two providers are two answers.
    let mut station = told(settings(vec![source("isp-x", X), source("isp-y", Y)]), &["2001:db8:b::/48"]);
    say(&mut station, 1, &session("edge", Y, &["2001:db8:b::/48"])[1..]);
    say(&mut station, 1, &[withdraw(Y, &["2001:db8:b::/48"])]);
    assert_eq!(news(&mut station), lost("isp-y"));
}

#[test]
fn only_sessions_that_sources_name_count_and_the_later_of_two_that_tell_of_one() {
    let named = super::RouteSource { asn: Some(65001), router: Some("edge-2".into()), ..source("isp-x", X) };
    let mut station = told(settings(vec![named]), &["2001:db8:b::/48"]);
    assert_eq!(station.status(at(3)).sources[0].phase, Phase::Silent, "another router's name");
    connect(&mut station, 2, &session("edge-2", X, &["2001:db8:b::/48"]));
    assert_eq!(station.status(at(3)).sources[0].phase, Phase::Complete);
    // The router comes back before its old connection is seen to be dead; what that still brings is nothing.
    connect(&mut station, 3, &session("edge-2", X, &["2001:db8:b::/48"]));
    say(&mut station, 2, &[withdraw(X, &["2001:db8:b::/48"]), peer_down(X, 1)]);
    station.closed(at(4), 2);
    assert_eq!((news(&mut station), station.status(at(4)).sources[0].phase), (vec![], Phase::Complete));
    // Another AS number.
    let up = peer_up_with(&per_peer(X, 65009, 0), &[IPV6]);
    connect(&mut station, 4, &[initiation("edge-2"), up]);
    assert_eq!(station.status(at(4)).sources[0].phase, Phase::Complete);
}

#[test]
fn one_view_counts() {
    let pre = |attributes: &[u8]| message(0, &[per_peer(X, 65001, 0), update(attributes)].concat());
    for view in [View::PostPolicy, View::PrePolicy] {
        let mut station = told(Bmp { view, ..one() }, &["2001:db8:b::/48"]);
        let expected = if view == View::PostPolicy { (Phase::Complete, 1) } else { (Phase::Filling, 0) };
        let status = station.status(at(3));
        assert_eq!((status.sources[0].phase, status.sources[0].routes), expected);
        say(&mut station, 1, &[pre(&unreach(&prefix("2001:db8:b::/48")))]);
        assert_eq!(station.status(at(3)).sources[0].routes, expected.1);
    }
}

#[test]
fn more_routes_than_may_be_are_none() {
    let mut few = one();
    few.routes_max = 1000;
    let mut station = told(few, &["2001:db8:b::/48"]);
    let prefixes: Vec<String> = (0..1000).map(|number| format!("2001:db9:{number:x}::/48")).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    say(&mut station, 1, &[announce(X, &prefixes)]);
    let status = &station.status(at(3)).sources[0];
    assert_eq!((status.phase, status.routes), (Phase::Overfull, 0));
    say(&mut station, 1, &[withdraw(X, &["2001:db8:b::/48"]), end_of_rib(X)]);
    assert_eq!(news(&mut station), [], "nothing is known");
}

#[test]
fn a_connection_that_does_not_keep_to_the_rules_ends() {
    let mut station = station_of(one());
    station.connected(at(1), 1, ROUTER, None);
    assert_eq!(station.message(at(1), 1, &peer_up(X)), Err(Refused::NotInitiated));
    station.connected(at(1), 2, ROUTER, None);
    say(&mut station, 2, &[initiation("edge")]);
    assert_eq!(station.message(at(1), 2, &termination(4)), Err(Refused::Terminated(Some(4))));
    let broken = message(0, &[per_peer(X, 65001, POST_POLICY), vec![0; 30]].concat());
    say(&mut station, 2, &[peer_up(X)]);
    assert!(matches!(station.message(at(1), 2, &broken), Err(Refused::Malformed(_))));
    // Many sessions with the same neighbour, told apart by their distinguishers.
    let up = |number: u64| {
        let mut header = per_peer(X, 65001, 0);
        header[0] = 1;
        header[2..10].copy_from_slice(&number.to_be_bytes());
        peer_up_with(&header, &[IPV6])
    };
    let refused = (0..100).map(|number| station.message(at(1), 2, &up(number))).find(Result::is_err);
    assert_eq!(refused, Some(Err(Refused::TooMany)));
}

#[test]
fn news_of_one_route_is_one_and_what_is_not_asked_any_more_is_none() {
    let mut station = told(one(), &["2001:db8:b::/48"]);
    for _ in 0..5 {
        say(&mut station, 1, &[withdraw(X, &["2001:db8:b::/48"]), announce(X, &["2001:db8:b::/48"])]);
    }
    assert_eq!(news(&mut station), back("isp-x"), "the last word");
    say(&mut station, 1, &[withdraw(X, &["2001:db8:b::/48"])]);
    let change = station.take(1).pop().unwrap();
    station.put_back(&change);
    say(&mut station, 1, &[announce(X, &["2001:db8:b::/48"])]);
    assert_eq!(news(&mut station), back("isp-x"));
    say(&mut station, 1, &[withdraw(X, &["2001:db8:b::/48"])]);
    station.forget(half(PEER));
    assert_eq!(news(&mut station), []);
}

#[test]
fn what_frr_said_is_understood() {
    let octets = super::wire::frr();
    let mut station = station_of(settings(vec![source("isp-x", "10.0.0.1".parse().unwrap())]));
    station.ask(half(PEER));
    station.connected(at(1), 1, ROUTER, None);
    let mut seen = Vec::new();
    for message in super::wire::messages(&octets) {
        station.message(at(2), 1, message).unwrap();
        let status = &station.status(at(2)).sources[0];
        let step = (status.phase, status.routes, news(&mut station).first().map(|(_, lost)| *lost));
        if seen.last().is_none_or(|last: &(Phase, usize, Option<bool>)| (last.0, last.1) != (step.0, step.1)) {
            seen.push(step);
        }
    }
    let expected = [
        (Phase::Silent, 0, None),
        (Phase::Filling, 0, None),
        (Phase::Filling, 1, None),
        (Phase::Filling, 2, None),
        (Phase::Complete, 2, None),
        (Phase::Complete, 1, Some(true)),
        (Phase::Complete, 2, Some(false)),
        (Phase::Down, 0, Some(true)),
    ];
    assert_eq!(seen, expected);
    let router = &station.status(at(2)).routers[0];
    assert!(router.description.contains("FRRouting"), "{router:?}");
}
