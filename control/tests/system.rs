//! Boxes that share their ports with an operating system, from the wire to the system and back.

mod common;

use std::net::Ipv6Addr;

use common::{Scene, ms, s};
use control::engine::Unfit;
use control::sim::{Plan, packet};
use dataplane::counters::{Count, DropReason};
use dataplane::snapshot::PortId;

const LAN: PortId = PortId(0);
/// The port of the first provider.
const WAN: PortId = PortId(1);
const OSPF: u8 = 89;

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// Two sites that talk, whose boxes share their ports with systems that have addresses.
fn sharing(seed: u64) -> (Scene, [usize; 2]) {
    let plan = Plan { shared: true, sections: "[routes]\npackets_per_s = 80\n".into(), ..Plan::default() };
    let (mut scene, streams) = Scene::talking(&plan, seed);
    scene.nodes[0].tell(|engine, effects| {
        engine.system_addresses(LAN, &[address("fe80::5157")], effects);
        engine.system_addresses(WAN, &[address("fe80::5157")], effects);
    });
    scene.run(ms(100));
    (scene, streams)
}

#[test]
fn a_routing_protocol_passes_both_ways_and_sessions_do_not_notice() {
    let (mut scene, streams) = sharing(1);
    let hello = packet::ipv6(address("fe80::9"), address("ff02::5"), OSPF, 1, &[3; 36]);
    let answer = packet::ipv6(address("fe80::9"), address("fe80::5157"), OSPF, 1, &[2; 28]);
    scene.send_from_router(0, &hello);
    scene.send_from_router(0, &answer);
    scene.run(ms(50));
    let shown = std::mem::take(&mut scene.nodes[0].shown);
    let octets: Vec<_> = shown.iter().map(|(port, frame)| (*port, &frame[14..])).collect();
    assert_eq!(octets, [(WAN, &hello[..]), (WAN, &answer[..])]);
    assert!(scene.nodes[1].shown.is_empty());
    // And what the system sends, but nothing in a host's name.
    let mac = scene.nodes[0].engine.snapshot().ports[1].mac;
    let host = scene.hosts[0].ulid;
    let frame = |source: Ipv6Addr, target: &str| {
        let octets = packet::ipv6(source, address(target), OSPF, 1, &[3; 36]);
        [&[0x33, 0x33, 0, 0, 0, 5][..], &mac.0, &[0x86, 0xdd], &octets].concat()
    };
    let (own, forged) = (frame(address("fe80::5157"), "ff02::5"), frame(host, "2001:db8::1"));
    scene.nodes[0].tell(|engine, effects| {
        engine.from_system(WAN, own, effects);
        engine.from_system(WAN, forged, effects);
    });
    scene.lossless(&streams, s(1));
    assert_eq!(scene.nodes[0].tally("control_system_sent"), 1);
    assert_eq!(scene.nodes[0].tally("control_system_foreign"), 1);
}

#[test]
fn a_flood_to_the_system_keeps_nobody_else_waiting() {
    let (mut scene, streams) = sharing(2);
    let flood = packet::ipv6(address("2001:db8:ffff::9"), address("fe80::5157"), 6, 64, &[0; 20]);
    for _ in 0..400 {
        scene.send_from_router(0, &flood);
    }
    // Neighbour discovery, contexts and their REAP go on.
    scene.lossless(&streams, s(40));
    let node = &scene.nodes[0];
    assert!(node.count(Count::SystemPunted) < 30, "{}", node.count(Count::SystemPunted));
    assert!(node.dropped(DropReason::SystemRate) > 300);
    assert_eq!(node.dropped(DropReason::ControlRate), 0);
}

#[test]
fn routes_come_with_fitness_and_a_provider_that_is_lost_takes_its_own() {
    let (mut scene, _) = sharing(3);
    let wanted =
        |scene: &Scene| -> Vec<u8> { scene.nodes[0].engine.wanted_routes().iter().map(|it| it.port.0).collect() };
    assert_eq!((wanted(&scene), scene.nodes[0].engine.unfit()), (vec![0, 1, 2], vec![]));
    // A router that is silent is noticed by neighbour discovery (RFC 4861).
    scene.set_router(0, false);
    scene.run(s(40));
    assert_eq!((wanted(&scene), scene.nodes[0].engine.unfit()), (vec![0, 2], vec![]));
    scene.link_state(0, 2, false);
    assert_eq!(scene.nodes[0].engine.unfit(), [Unfit::Outside]);
    scene.link_state(0, 2, true);
    scene.set_router(0, true);
    scene.run(s(40));
    assert_eq!((wanted(&scene), scene.nodes[0].engine.unfit()), (vec![0, 1, 2], vec![]));
}
