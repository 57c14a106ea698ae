//! Boxes whose neighbours are silent, strangers, or switches.

mod common;

use common::{Scene, ms, s};
use control::sim::{Plan, SitePlan, packet};

/// Nobody answers for a host any more.
fn unplug(scene: &mut Scene, host: usize) {
    scene.hosts[host].site = usize::MAX;
}

#[test]
fn a_peer_hears_that_a_host_does_not_answer() {
    let mut scene = Scene::new(&Plan::default(), 1);
    unplug(&mut scene, 1);
    let sent = packet::udp(scene.hosts[0].ulid, scene.hosts[1].ulid, (9, 9), b"hello?");
    scene.send(0, &sent);
    scene.run(s(5));
    let (kind, code, _, quote) = scene.error_at(0);
    assert_eq!((kind, code, quote.len()), (1, 3, sent.len()));
    // The packet as it arrived: two boxes have taken one from its hop limit each, and nothing else is different.
    let hop_limit = 7;
    assert_eq!((&quote[..hop_limit], &quote[hop_limit + 1..]), (&sent[..hop_limit], &sent[hop_limit + 1..]));
    assert_eq!(scene.nodes[1].tally("control_neighbour_unanswered"), 1);
    assert_eq!(scene.nodes[1].tally("control_neighbour_errors_sent"), 1);
}

/// Whatever the host is told has crossed the path with a payload header, so it leaves room for one (RFC 4443 §2.4 (c)).
#[test]
fn what_a_peer_hears_fits_every_path() {
    let mut scene = Scene::new(&Plan::default(), 2);
    scene.providers.iter_mut().for_each(|provider| provider.mtu = 1280);
    unplug(&mut scene, 1);
    let sent = packet::udp(scene.hosts[0].ulid, scene.hosts[1].ulid, (9, 9), &[7; 1272 - 48]);
    scene.send(0, &sent);
    scene.run(s(5));
    let (kind, code, _, quote) = scene.error_at(0);
    assert_eq!((kind, code, quote.len()), (1, 3, 1280 - 40 - 8 - 8));
    assert_eq!(quote[40..], sent[40..quote.len()]);
}

#[test]
fn a_host_hears_that_another_host_does_not_answer() {
    let two = SitePlan { hosts: 2, ..SitePlan::default() };
    let mut scene = Scene::new(&Plan { sites: vec![two, SitePlan::default()], ..Plan::default() }, 1);
    unplug(&mut scene, 1);
    let sent = packet::udp(scene.hosts[0].ulid, scene.hosts[1].ulid, (9, 9), b"hello?");
    scene.send(0, &sent);
    scene.run(s(5));
    let (kind, code, ..) = scene.error_at(0);
    assert_eq!((kind, code), (1, 3));
    assert_eq!(scene.nodes[0].tally("control_neighbour_errors_sent"), 1);
}

#[test]
fn a_host_hears_that_the_only_router_does_not_answer() {
    // R5534-007
    let one = SitePlan { providers: 1, ..SitePlan::default() };
    let (mut scene, streams) = Scene::talking(&Plan { sites: vec![one; 2], ..Plan::default() }, 1);
    streams.iter().for_each(|stream| scene.stop(*stream));
    scene.providers[0].router_up = false;
    // RFC 4861: an answer is believed for 30 s, then there are three questions.
    scene.run(s(35));
    scene.hosts[0].inbox.clear();
    let sent = packet::udp(scene.hosts[0].ulid, scene.hosts[1].ulid, (9, 9), b"hello?");
    scene.send(0, &sent);
    scene.run(s(5));
    let (kind, code, _, quote) = scene.error_at(0);
    assert_eq!((kind, code, &quote[40..]), (1, 3, &sent[40..]), "without locators and payload header");
}

/// Strangers' echo requests do not keep the box from finding its hosts (RFC 4861 §7.2.2).
#[test]
fn invented_neighbours_do_not_use_up_the_room_for_hosts() {
    let mut scene = Scene::new(&Plan::default(), 1);
    let lan = scene.nodes[0].engine.snapshot().ports[0].own[0];
    for number in 0..500u128 {
        let nobody = std::net::Ipv6Addr::from_bits(lan.to_bits() | 0x0abc_0000_0000 | number << 8);
        let echo = packet::icmp(nobody, lan, 64, &[128, 0, 0, 0, 0, 1, 0, 1]);
        scene.send(0, &echo);
        scene.run(ms(5));
    }
    assert!(scene.nodes[0].tally("control_neighbour_refused") > 0);
    let stream = scene.stream(1, 0, ms(20));
    scene.until_back(&[stream], s(1));
}

/// RFC 4861 §7.2.1, RFC 3810 §6: a switch that snoops lets solicitations through to the box.
#[test]
fn groups_are_reported_on_every_port_and_when_somebody_asks() {
    let mut scene = Scene::new(&Plan::default(), 1);
    scene.run(s(10));
    let reported = |scene: &Scene| scene.nodes[0].tally("control_listener_reports");
    assert_eq!(reported(&scene), 2 * 3, "twice on three ports");
    let (querier, all) = ("fe80::9".parse().unwrap(), "ff02::1".parse().unwrap());
    let query = [&[130, 0, 0, 0, 3, 232, 0, 0][..], &[0; 16], &[2, 125, 0, 0]].concat();
    let message = packet::icmp(querier, all, 1, &query)[40..].to_vec();
    let asked = packet::ipv6(querier, all, 0, 1, &[&[58, 0, 5, 2, 0, 0, 1, 0], &message[..]].concat());
    scene.send(0, &asked);
    scene.run(ms(1010));
    assert_eq!(reported(&scene), 2 * 3 + 1, "on the port that was asked on");
}
