//! A port shared with the operating system: what is for it, and what is not.

mod common;

use std::net::Ipv6Addr;

use common::{Bench, LAN, Seen, Setup, Side, X, frame, packet, udp};
use dataplane::counters::{Count, DropReason};
use dataplane::link::Punt;
use dataplane::snapshot::PortId;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::ipv6::protocol;

const OSPF: u8 = 89;

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A box that shares these ports.
fn sharing(ports: &[PortId]) -> Bench {
    let mut snapshot = Side::A.snapshot();
    for port in ports {
        let global = if *port == LAN { "fc00:a:0:1::5157" } else { "2001:db8:ff:1::5157" };
        snapshot.ports[usize::from(port.0)].system = Some(vec![address("fe80::5157"), address(global)]);
    }
    Setup::default().build_with(snapshot)
}

/// What becomes of one packet.
fn judge(bench: &mut Bench, port: PortId, target: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<Seen> {
    let station = if target.is_multicast() {
        let [.., a, b, c, d] = target.octets();
        Mac([0x33, 0x33, a, b, c, d])
    } else {
        Side::A.mac(port)
    };
    let packet = packet(address("fe80::9"), target, next_header, payload);
    bench.send(port, &frame(station, Mac([2, 0, 0, 0, 0, 9]), &packet));
    bench.run();
    bench.take_seen()
}

fn whose(seen: &[Seen]) -> Option<Punt> {
    match seen {
        [Seen::Punt(_, why, _)] => Some(*why),
        _ => None,
    }
}

#[test]
fn the_systems_addresses_and_the_groups_of_routers_are_its_own() {
    let mut bench = sharing(&[LAN, X]);
    for port in [LAN, X] {
        let global = if port == LAN { "fc00:a:0:1::5157" } else { "2001:db8:ff:1::5157" };
        for (target, next_header) in [
            ("fe80::5157", OSPF),
            ("fe80::5157", protocol::ICMPV6),
            (global, protocol::TCP),
            (global, protocol::UDP),
            ("ff02::5", OSPF),
            ("ff02::6", OSPF),
            ("ff02::9", protocol::UDP),
        ] {
            let seen = judge(&mut bench, port, address(target), next_header, &[0; 40]);
            assert_eq!(whose(&seen), Some(Punt::System), "{target} {next_header} at {port:?}: {seen:?}");
        }
        // Neighbour discovery, groups' reports and DHCPv6 are the box's, which passes on what concerns the system.
        for (target, next_header) in [
            ("ff02::1", protocol::ICMPV6),
            ("ff02::1:ff00:5157", protocol::ICMPV6),
            ("ff02::16", protocol::HOP_BY_HOP),
            ("ff02::1:2", protocol::UDP),
            ("ff05::2", OSPF),
        ] {
            let seen = judge(&mut bench, port, address(target), next_header, &[0; 40]);
            assert_eq!(whose(&seen), Some(Punt::HostStack), "{target} {next_header} at {port:?}: {seen:?}");
        }
        let own = Side::A.own(port);
        let datagram = udp(address("fe80::9"), own, 20);
        assert_eq!(whose(&judge(&mut bench, port, own, protocol::UDP, &datagram)), Some(Punt::HostStack));
    }
    assert_eq!(bench.count(Count::SystemPunted), 14);
}

#[test]
fn on_another_port_and_without_an_interface_nothing_is_the_systems() {
    let mut bench = sharing(&[X]);
    assert_eq!(whose(&judge(&mut bench, LAN, address("ff02::5"), OSPF, &[0; 40])), Some(Punt::HostStack));
    assert!(judge(&mut bench, LAN, address("fe80::5157"), OSPF, &[0; 40]).is_empty());
    assert_eq!(bench.dropped(DropReason::BadAddress), 1);
    let mut bench = sharing(&[]);
    assert_eq!(whose(&judge(&mut bench, X, address("ff02::5"), OSPF, &[0; 40])), Some(Punt::HostStack));
    assert!(judge(&mut bench, X, address("2001:db8:ff:1::5157"), protocol::TCP, &[0; 40]).is_empty());
    assert_eq!(bench.dropped(DropReason::NotOurLocator), 1);
}
