//! Whole sites whose routers tell the truth, lie, flap, fall silent: sessions go on, and what was seen on a path has the last word.

use std::net::IpAddr;
use std::time::Duration;

use control::bmp::Station;
use control::engine::{RouteWish, Story};
use control::sim::{Plan, SitePlan, StreamId, Way};
use control::time::Instant;
use dataplane::counters::Count;

use super::common::{Scene, ms, s};
use super::routers::*;
use super::{X, Y, settings, source, station_of};

const BOTH: &[Way] = &[Way::Out, Way::In];
/// The other site's /64s, and what covers them.
const PEERS: [&str; 2] = ["2001:db8:b:1::/64", "2001:db8:b:2::/64"];
const ALL: &str = "2001:db8:b::/48";

/// Boxes that learn of failures from REAP alone, as slowly as RFC 5534 has it; and from routers.
fn plan() -> Plan {
    let sections = "[hints]\nicmp = false\ntcp = false\n".to_owned();
    Plan { send_timeout_s: 15, sections, ..Plan::default() }
}

/// The first site's routers, which have told that both providers reach the other site by both /64s.
struct Feed(Station);

const ROUTER: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

impl Feed {
    fn new(scene: &mut Scene) -> Feed {
        let mut station = station_of(settings(vec![source("isp-0-1", X), source("isp-0-2", Y)]));
        let now = scene.now;
        scene.nodes[0].engine.expect_routes(now);
        // Contexts that were there before are found.
        scene.run(ms(1));
        station.connected(scene.now, 1, ROUTER, None);
        let mut feed = Feed(station);
        feed.say(scene, &[initiation("edge")]);
        for peer in [X, Y] {
            feed.say(scene, &session("edge", peer, &PEERS)[1..]);
        }
        feed
    }

    /// The router speaks, and what it says and what it is asked arrive.
    fn say(&mut self, scene: &mut Scene, messages: &[Vec<u8>]) {
        for message in messages {
            self.0.message(scene.now, 1, message).unwrap();
        }
        self.pass(scene);
    }

    fn pass(&mut self, scene: &mut Scene) {
        while let Some(wish) = scene.nodes[0].engine.next_route_wish() {
            match wish {
                RouteWish::Ask(peer) => self.0.ask(peer),
                RouteWish::Forget(peer) => self.0.forget(peer),
            }
        }
        for change in self.0.take(1000) {
            scene.route_changed(0, &change.provider, change.peer, change.lost);
        }
    }
}

/// Which neighbour is that of a provider of the first site.
fn neighbour(provider: usize) -> IpAddr {
    [X, Y][provider]
}

/// Two hosts that talk, with standbys, and the first site's routers.
fn begun(plan: &Plan, seed: u64) -> (Scene, [StreamId; 2], Feed) {
    let (mut scene, streams) = Scene::talking(plan, seed);
    scene.run(s(3));
    let mut feed = Feed::new(&mut scene);
    feed.pass(&mut scene);
    assert_eq!(feed.0.status(scene.now).asked, 2);
    assert_eq!(scene.context(0).standby.is_some(), plan.standby);
    (scene, streams, feed)
}

fn tally(scene: &Scene, name: &str) -> u64 {
    scene.nodes[0].tally(&format!("control_{name}"))
}

fn detoured(scene: &Scene) -> u64 {
    scene.nodes[0].count(Count::StandbyOut)
}

fn moves(scene: &Scene, since: Instant) -> usize {
    let moved =
        |(at, site, story): &&(Instant, usize, Story)| *at >= since && *site == 0 && matches!(story, Story::Moved(..));
    scene.stories.iter().filter(moved).count()
}

/// Packets of a stream sent in the time that passes now which never arrive.
fn missing(scene: &mut Scene, stream: StreamId, time: Duration) -> usize {
    let since = scene.now;
    scene.run(time);
    let until = scene.now;
    scene.run(ms(300));
    scene.streams[stream].missing(since, until)
}

#[test]
fn a_route_that_is_lost_costs_no_packet_where_there_is_a_standby_and_half_a_second_where_there_is_none() {
    for (standby, told, outage) in
        [(true, true, ms(0)..ms(1)), (false, true, ms(400)..ms(900)), (true, false, s(14)..s(18))]
    {
        let (mut scene, streams, mut feed) = begun(&Plan { standby, ..plan() }, 11);
        let (since, used) = (scene.now, scene.in_use(0));
        scene.cut(used, &[Way::Out]);
        if told {
            feed.say(&mut scene, &[withdraw(neighbour(used), &PEERS)]);
        }
        let lost = missing(&mut scene, streams[0], s(20));
        let silence = ms(20) * lost as u32;
        println!("standby {standby}, told {told}: {lost} packets missing, {silence:?}");
        assert!(outage.contains(&silence), "standby {standby}, told {told}: {silence:?}");
        assert_eq!(moves(&scene, since), 1, "by a probe of its own");
        assert_ne!(scene.in_use(0), used);
        let counts = ["routes_lost", "routes_upheld", "routes_overruled"].map(|name| tally(&scene, name));
        assert!(!told || counts[0] > 0 && counts[1] > 0 && counts[2] == 0, "{counts:?}");
        // It comes back, and the feed says so.
        scene.heal(used);
        feed.say(&mut scene, &[announce(neighbour(used), &PEERS)]);
        scene.lossless(&streams, s(5));
        assert_eq!(scene.nodes[0].engine.routes_held(), 0);
    }
}

#[test]
fn a_lie_moves_nobody_and_takes_packets_off_for_a_round_trip() {
    let (mut scene, streams, mut feed) = begun(&plan(), 12);
    let (since, used) = (scene.now, scene.in_use(0));
    feed.say(&mut scene, &[withdraw(neighbour(used), &PEERS)]);
    scene.lossless(&streams, s(2));
    assert_eq!((moves(&scene, since), scene.in_use(0)), (0, used));
    assert!((1..=10).contains(&detoured(&scene)), "{}", detoured(&scene));
    assert_eq!((tally(&scene, "routes_overruled"), tally(&scene, "routes_upheld")), (1, 0));
    // It goes on saying so. Nobody heeds it.
    let before = detoured(&scene);
    scene.lossless(&streams, s(600));
    assert_eq!((detoured(&scene), moves(&scene, since)), (before, 0));
    let probes = tally(&scene, "probes_sent");
    scene.lossless(&streams, s(60));
    assert_eq!(tally(&scene, "probes_sent"), probes, "and nobody asks any more");
}

#[test]
fn who_lies_again_is_believed_later_each_time_and_the_truth_mends_that() {
    let (mut scene, streams, mut feed) = begun(&plan(), 13);
    let used = scene.in_use(0);
    let lie = |scene: &mut Scene, feed: &mut Feed| {
        let before = detoured(scene);
        feed.say(scene, &[withdraw(neighbour(used), &PEERS)]);
        scene.lossless(&streams, s(3));
        feed.say(scene, &[announce(neighbour(used), &PEERS)]);
        scene.lossless(&streams, ms(1500));
        detoured(scene) > before
    };
    let mut believed = Vec::new();
    let since = scene.now;
    while scene.now.since(since) < s(400) {
        let at = scene.now.since(since).as_secs();
        if lie(&mut scene, &mut feed) {
            believed.push(at);
        }
        // Contexts test at most once in a Send Timeout.
        scene.run(s(5));
    }
    println!("believed at {believed:?}");
    let pauses: Vec<u64> = believed.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses.len() >= 3 && pauses.is_sorted(), "{pauses:?}");
    assert!(believed.len() < 8 && tally(&scene, "routes_distrusted") > 20);
    assert_eq!(moves(&scene, since), 0);
    let (_, lies, left) = scene.nodes[0].engine.distrusted_feeds(scene.now).next().unwrap();
    assert!(lies >= 4 && left > 0, "{lies} {left}");
    // The truth, while it is not believed: contexts look at least.
    scene.cut(used, &[Way::Out]);
    feed.say(&mut scene, &[withdraw(neighbour(used), &PEERS)]);
    let lost = missing(&mut scene, streams[0], s(20));
    assert!(ms(20) * (lost as u32) < s(2), "{lost}");
    let (_, less, _) = scene.nodes[0].engine.distrusted_feeds(scene.now).next().unwrap();
    assert_eq!(less, lies / 2);
}

/// Everything is withdrawn, of both providers, while everything works.
#[test]
fn a_storm_that_withdraws_everything_takes_nobody_down() {
    let plan = Plan { sites: vec![SitePlan { hosts: 4, ..SitePlan::default() }; 2], ..plan() };
    let mut scene = Scene::new(&plan, 14);
    let mut streams = Vec::new();
    for (from, to) in (0..3).flat_map(|from| (4..7).map(move |to| (from, to))) {
        streams.extend([scene.stream(from, to, ms(50)), scene.stream(to, from, ms(50))]);
    }
    scene.run(s(8));
    let mut feed = Feed::new(&mut scene);
    let since = scene.now;
    let contexts = scene.nodes[0].contexts(scene.now);
    assert!(contexts.len() == 9 && contexts.iter().all(|context| context.standby.is_some()));
    feed.say(&mut scene, &[withdraw(X, &PEERS), withdraw(Y, &PEERS)]);
    scene.lossless(&streams, s(5));
    assert_eq!(moves(&scene, since), 0);
    let paths = scene.nodes[0].engine.paths_view(scene.now).paths;
    let used = paths.iter().filter(|path| path.contexts > 0);
    let words: Vec<&str> = used.map(|path| path.route.as_deref().unwrap_or_default()).collect();
    assert!(!words.is_empty() && words.iter().all(|it| *it == "its route is lost, routers say; it works"), "{words:?}");
    // A host that talks for the first time gets a context at once.
    feed.say(&mut scene, &[announce(X, &PEERS), announce(Y, &PEERS)]);
    scene.run(s(15));
    feed.say(&mut scene, &[peer_down(X, 1), peer_down(Y, 3)]);
    let first = scene.stream(3, 7, ms(20));
    let took = scene.until_back(&[first], s(2));
    println!("a new session under the storm: {took:?}");
    scene.lossless(&streams, s(5));
    assert_eq!(moves(&scene, since), 0);
}

#[test]
fn a_context_all_of_whose_paths_are_said_to_be_lost_finds_the_one_that_works() {
    let (mut scene, streams, mut feed) = begun(&plan(), 15);
    let used = scene.in_use(0);
    scene.cut(used, BOTH);
    feed.say(&mut scene, &[withdraw(X, &PEERS), withdraw(Y, &PEERS)]);
    let took = scene.until_back(&streams, s(5));
    println!("found in {took:?}");
    assert!(took < s(2), "{took:?}");
    assert_ne!(scene.in_use(0), used);
    assert_eq!((tally(&scene, "routes_upheld"), tally(&scene, "routes_overruled")), (1, 1));
    scene.lossless(&streams, s(30));
}

#[test]
fn a_route_that_flaps_loses_no_packet_and_costs_few_probes() {
    let (mut scene, streams, mut feed) = begun(&plan(), 16);
    let (since, used) = (scene.now, scene.in_use(0));
    let probes = tally(&scene, "probes_sent");
    for turn in 0..100 {
        let change = if turn % 2 == 0 { withdraw(neighbour(used), &PEERS) } else { announce(neighbour(used), &PEERS) };
        feed.say(&mut scene, &[change]);
        scene.run(ms(200));
    }
    let until = scene.now;
    scene.run(ms(500));
    assert_eq!(scene.streams[streams[0]].missing(since, until), 0);
    assert_eq!(moves(&scene, since), 0);
    let probes = tally(&scene, "probes_sent") - probes;
    println!("{probes} probes for 100 changes in 20 s");
    assert!(probes < 120, "{probes}");
    scene.lossless(&streams, s(60));
    assert_eq!(scene.nodes[0].engine.routes_held(), 0);
}

#[test]
fn a_route_that_is_back_is_not_used_before_somebody_has_looked() {
    let (mut scene, streams, mut feed) = begun(&plan(), 17);
    let used = scene.in_use(0);
    scene.cut(used, &[Way::Out]);
    feed.say(&mut scene, &[withdraw(neighbour(used), &PEERS)]);
    scene.run(ms(40));
    // The feed says that it is back, which is not so.
    feed.say(&mut scene, &[announce(neighbour(used), &PEERS)]);
    assert_eq!(missing(&mut scene, streams[0], s(10)), 0);
    assert_ne!(scene.in_use(0), used);
}

#[test]
fn a_feed_that_falls_silent_after_a_loss_does_not_keep_anybody_from_the_path() {
    let (mut scene, streams, mut feed) = begun(&plan(), 18);
    let used = scene.in_use(0);
    scene.cut(used, BOTH);
    feed.say(&mut scene, &[withdraw(neighbour(used), &PEERS)]);
    scene.run(s(30));
    assert_ne!(scene.in_use(0), used);
    // It heals, and the feed still says that it is lost. Contexts test it as their standby, and know better.
    scene.heal(used);
    scene.run(s(400));
    assert!(scene.context(0).standby.is_some_and(|standby| scene.provider_of(standby.local) == Some(used)));
    assert!(tally(&scene, "routes_overruled") > 0);
    // So the loss of the other one costs nothing, as if there were no feed.
    let other = 1 - used;
    scene.unplug(other);
    assert_eq!(missing(&mut scene, streams[0], s(5)), 0);
    // Or it is not tested before it is needed.
    let (mut scene, streams, mut feed) = begun(&plan(), 19);
    let used = scene.in_use(0);
    scene.cut(used, BOTH);
    feed.say(&mut scene, &[withdraw(neighbour(used), &PEERS)]);
    scene.run(s(10));
    scene.heal(used);
    scene.unplug(1 - used);
    let took = scene.until_back(&streams, s(10));
    assert!(took < s(3), "{took:?}");
}

#[test]
fn what_nobody_tells_of_any_more_holds_nothing() {
    for end in [peer_down(X, 5), termination(0)] {
        let (mut scene, streams, mut feed) = begun(&plan(), 20);
        let used = scene.in_use(0);
        scene.cut(used, BOTH);
        feed.say(&mut scene, &[withdraw(X, &PEERS), withdraw(Y, &PEERS)]);
        scene.run(ms(100));
        let now = scene.now;
        if feed.0.message(now, 1, &end).is_err() {
            feed.0.closed(now, 1);
        } else {
            feed.say(&mut scene, &[peer_down(Y, 5)]);
        }
        feed.pass(&mut scene);
        assert_eq!(scene.nodes[0].engine.routes_held(), 0);
        let took = scene.until_back(&streams, s(5));
        assert!(took < s(2), "{took:?}");
    }
}

#[test]
fn peers_are_asked_about_while_there_are_contexts_and_no_longer() {
    let mut scene = Scene::new(&plan(), 21);
    let mut feed = Feed::new(&mut scene);
    let streams = [scene.stream(0, 1, ms(100)), scene.stream(1, 0, ms(100))];
    scene.run(s(6));
    feed.pass(&mut scene);
    assert_eq!(feed.0.status(scene.now).asked, 2);
    feed.say(&mut scene, &[withdraw(X, &[ALL]), withdraw(X, &PEERS)]);
    scene.run(s(1300));
    feed.pass(&mut scene);
    assert_eq!(feed.0.status(scene.now).asked, 2);
    streams.into_iter().for_each(|stream| scene.stop(stream));
    scene.run(s(2000));
    feed.pass(&mut scene);
    assert_eq!(feed.0.status(scene.now).asked, 0);
    assert_eq!(scene.nodes[0].leftovers(), []);
}
