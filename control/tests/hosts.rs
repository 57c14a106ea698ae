//! Hosts come and go while the boxes run.

mod common;

use common::{Scene, ms, s};
use control::config::MacAddress;
use control::engine::{Changes, SetupError};
use control::sim::{Plan, SitePlan, Way, packet};
use dataplane::counters::DropReason;
use dataplane::wire::Ulid;

const BOTH: &[Way] = &[Way::Out, Way::In];

/// Site 1 has no hosts any more.
fn empty(scene: &mut Scene) -> Changes {
    scene.reload(1, |_, hosts| hosts.list_mut().clear()).unwrap()
}

fn two_hosts_each() -> Plan {
    Plan { sites: vec![SitePlan { hosts: 2, ..SitePlan::default() }; 2], ..Plan::default() }
}

#[test]
fn a_host_that_goes_takes_its_contexts_with_it_and_nobody_elses() {
    // R5533-004
    let mut scene = Scene::new(&two_hosts_each(), 1);
    let going = [scene.stream(0, 2, ms(20)), scene.stream(2, 0, ms(20))];
    let staying = [scene.stream(1, 2, ms(20)), scene.stream(2, 1, ms(20)), scene.stream(1, 3, ms(20))];
    scene.run(s(2));
    let (gone, since) = (scene.hosts[0].ulid, scene.now);
    let changes = scene.reload(0, |_, hosts| hosts.list_mut().retain(|host| host.identity.ulid.0 != gone)).unwrap();
    assert_eq!((changes.added, changes.removed), (0, 1));
    // No packet of anybody else's is lost.
    scene.lossless(&staying, s(5));
    assert!(scene.nodes[0].contexts(scene.now).iter().all(|context| context.ulid_local != gone));
    assert!(going.iter().all(|stream| scene.streams[*stream].back(since + ms(100)).is_none()));
    // The host itself is told, as anybody is who sends from an address that is not a host's.
    assert!(scene.nodes[0].dropped(DropReason::SpoofedSource) > 0);
    assert!(scene.hosts[0].inbox.iter().any(|(_, packet)| (packet[6], packet[40], packet[41]) == (58, 1, 5)));
    // The peer asks for the context, since its packets have a tag that is nobody's, and is not answered.
    let kinds: Vec<String> = scene.messages(since).into_iter().map(|(_, kind)| kind).collect();
    assert!(kinds.contains(&"R1bis".into()) && kinds.contains(&"I2bis".into()), "{kinds:?}");
    assert!(scene.nodes[0].tally("shim6_drop_unknown_host") > 0);
    let view = scene.nodes[0].engine.hosts_view(scene.now);
    let [quarantined] = &view.quarantined[..] else { panic!("{view:?}") };
    assert_eq!((quarantined.ulid, quarantined.addresses.len()), (gone, 3));
    assert_eq!(quarantined.mac, Some(scene.hosts[0].mac.to_string()));
}

#[test]
fn a_host_that_comes_back_finds_its_sessions() {
    let (mut scene, streams) = Scene::talking(&Plan::default(), 2);
    let before = scene.nodes[1].configuration().1.clone();
    assert_eq!(empty(&mut scene).removed, 1);
    scene.run(ms(100));
    let changes = scene.reload(1, |_, hosts| *hosts = before).unwrap();
    assert_eq!((changes.added, changes.removed), (1, 0));
    assert!(scene.until_back(&streams, s(20)) < s(2));
    scene.check_mirrored();
    scene.lossless(&streams, s(5));
}

#[test]
fn a_peers_old_session_does_not_reach_the_next_owner_of_an_address() {
    // RFC 5533 §1.5, and what follows from it where one box answers for many hosts: the quarantine.
    let mut scene = Scene::new(&Plan { shim6: "idle_context_s = 300".into(), ..Plan::default() }, 3);
    let stream = scene.stream(0, 1, ms(100));
    scene.run(s(2));
    let before = scene.nodes[1].configuration().1.clone();
    empty(&mut scene);
    // The operator gives the identity to another machine, without a pause.
    let heir = scene.replace_machine(1);
    let since = scene.now;
    scene.reload(1, |_, hosts| *hosts = before).unwrap();
    scene.run(s(890));
    assert_eq!(scene.hosts[heir].inbox, [], "the peer still sends");
    assert!(scene.nodes[1].tally("control_neighbour_quarantined") > 0);
    // The session is there, or this would show nothing; when the time is over the box believes that the machine has
    // the address.
    let late = scene.run_until(s(60), |world| !world.hosts[heir].inbox.is_empty());
    assert!(late.is_some_and(|at| at.since(since) >= s(900)), "{late:?}");
    scene.stop(stream);
}

#[test]
fn a_machine_that_is_known_to_be_another_is_refused_with_the_reason() {
    let mut scene = Scene::talking(&Plan::default(), 4).0;
    let before = scene.nodes[1].configuration().1.clone();
    let given = |mac: [u8; 6]| {
        let mut hosts = before.clone();
        hosts.list_mut()[0].mac = Some(MacAddress(mac));
        hosts
    };
    let (own, other) = (given(scene.hosts[1].mac.0), given([2, 9, 9, 9, 9, 9]));
    // Also while the host is there: a reload that replaces it is one that removes it.
    let refused = scene.reload(1, |_, hosts| *hosts = other.clone()).unwrap_err();
    assert!(matches!(refused, SetupError::Quarantined { seconds: 900, .. }), "{refused}");
    scene.reload(1, |_, hosts| *hosts = own.clone()).unwrap();
    empty(&mut scene);
    scene.run(s(100));
    let refused = scene.reload(1, |_, hosts| *hosts = other.clone()).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("800 s from now") && text.contains(&scene.hosts[1].ulid.to_string()), "{text}");
    assert_eq!(scene.nodes[1].engine.hosts_view(scene.now).hosts, []);
    // The same machine may come at once.
    scene.reload(1, |_, hosts| *hosts = own).unwrap();
    empty(&mut scene);
    scene.run(s(900));
    scene.reload(1, |_, hosts| *hosts = other).unwrap();
}

#[test]
fn a_host_that_was_found_elsewhere_than_its_line_says_is_in_nobodys_way() {
    let given = |hosts: &mut control::config::Hosts, mac: [u8; 6]| hosts.list_mut()[0].mac = Some(MacAddress(mac));
    let (stale, third) = ([2, 9, 9, 9, 9, 9], [2, 9, 9, 9, 9, 8]);
    let mut scene = Scene::new(&Plan::default(), 4);
    // The line is wrong before anybody has found the host, as it is at a start; then neighbour discovery finds it.
    scene.reload(1, |_, hosts| given(hosts, stale)).unwrap();
    let streams = [scene.stream(0, 1, ms(20)), scene.stream(1, 0, ms(20))];
    scene.run(s(2));
    assert_eq!(scene.reload(1, |_, _| ()).unwrap(), Changes::default());
    // A locator that goes and comes back is the host's own, too.
    let before = scene.nodes[1].configuration().1.clone();
    scene.reload(1, |_, hosts| _ = hosts.list_mut()[0].identity.locators.pop()).unwrap();
    scene.lossless(&streams, s(40));
    scene.reload(1, |_, hosts| *hosts = before).unwrap();
    scene.lossless(&streams, s(5));
    // A line that names yet another machine is that of another machine; one that names the machine there is, is not.
    let refused = scene.reload(1, |_, hosts| given(hosts, third)).unwrap_err();
    assert!(matches!(refused, SetupError::Quarantined { .. }), "{refused}");
    let found = scene.hosts[1].mac.0;
    scene.reload(1, |_, hosts| given(hosts, found)).unwrap();
    scene.lossless(&streams, s(2));
}

#[test]
fn a_reload_that_is_refused_changes_nothing() {
    let mut scene = Scene::new(&two_hosts_each(), 5);
    let streams = [scene.stream(0, 2, ms(20)), scene.stream(2, 1, ms(20))];
    scene.run(s(2));
    let before = scene.nodes[0].engine.hosts_view(scene.now);
    let refused = scene.reload(0, |_, hosts| {
        hosts.list_mut().remove(0);
        hosts.list_mut()[0].mac = Some(MacAddress([2, 9, 9, 9, 9, 9]));
    });
    assert!(refused.is_err());
    assert_eq!(scene.nodes[0].engine.hosts_view(scene.now), before);
    scene.lossless(&streams, s(2));
}

#[test]
fn packets_that_wait_when_their_host_goes_are_answered() {
    let mut scene = Scene::new(&Plan::default(), 6);
    [2, 3].into_iter().for_each(|provider| scene.cut(provider, BOTH));
    let sent = packet::udp(scene.hosts[0].ulid, scene.hosts[1].ulid, (9, 9), b"hello?");
    scene.send(0, &sent);
    scene.run(ms(500));
    assert_eq!(scene.nodes[0].dropped(DropReason::Unreachable), 0, "it waits for the handshake");
    let ulid = Ulid(scene.hosts[0].ulid);
    scene.reload(0, |_, hosts| hosts.list_mut().retain(|host| host.identity.ulid != ulid)).unwrap();
    scene.run(ms(10));
    assert_eq!(scene.nodes[0].dropped(DropReason::Unreachable), 1);
    let (kind, code, _, quote) = scene.error_at(0);
    assert_eq!((kind, code, &quote[..]), (1, 3, &sent[..]));
    assert_eq!(scene.nodes[0].contexts(scene.now).len(), 0);
}

#[test]
fn places_of_hosts_are_used_again() {
    let mut scene = Scene::talking(&Plan::default(), 7).0;
    let before = scene.nodes[1].configuration().1.clone();
    for _ in 0..10 {
        empty(&mut scene);
        scene.reload(1, |_, hosts| *hosts = before.clone()).unwrap();
    }
    assert_eq!(scene.nodes[1].engine.snapshot().hosts.len(), 1);
    scene.run(s(1));
    scene.check_mirrored();
}
