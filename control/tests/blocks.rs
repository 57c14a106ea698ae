//! Sites whose identifiers are outside fc00::/7 (`site.identifier_blocks`).

mod common;

use std::net::Ipv6Addr;

use common::{Scene, ms, s};
use control::sim::{Plan, Way, packet};
use dataplane::counters::{Count, DropReason};

const BOTH: &[Way] = &[Way::Out, Way::In];

/// The sites of `elsewhere` have theirs in 5f00::/16, and peers without Shim6 are translated for.
fn plan(elsewhere: &[usize]) -> Plan {
    Plan { elsewhere: elsewhere.to_vec(), sections: "[natv6]\nenabled = true\n".into(), ..Plan::default() }
}

#[test]
fn sessions_live_through_a_lost_provider_wherever_identifiers_come_from() {
    for elsewhere in [&[0, 1][..], &[0], &[1]] {
        let (mut scene, streams) = Scene::talking(&plan(elsewhere), 500);
        let first = [0, 1].map(|site: usize| scene.hosts[site].ulid.segments()[0]);
        assert_eq!(first, [0, 1].map(|site| if elsewhere.contains(&site) { 0x5f00 } else { 0xfc00 }));
        scene.check_mirrored();
        let used = scene.in_use(0);
        scene.cut(used, BOTH);
        scene.until_back(&streams, s(10));
        assert_ne!(scene.in_use(0), used);
        scene.lossless(&streams, s(3));
    }
}

#[test]
fn identifiers_are_never_translated_for_and_never_leave_a_site() {
    let mut scene = Scene::new(&plan(&[0, 1]), 501);
    scene.run(s(1));
    let host = scene.hosts[0].ulid;
    // Nobody knows this one. A host is told so; a routable address in its place is translated for.
    let (nobody, routable): (Ipv6Addr, Ipv6Addr) = ("5f00:dead::1".parse().unwrap(), "2001:db8:77::1".parse().unwrap());
    scene.send(0, &packet::udp(host, nobody, (9, 9), b"hello?"));
    scene.run(ms(200));
    let (kind, code, ..) = scene.error_at(0);
    assert_eq!((kind, code), (1, 3));
    scene.hosts[0].inbox.clear();
    scene.send(0, &packet::udp(host, routable, (9, 9), b"hello?"));
    scene.run(ms(200));
    assert!(scene.hosts[0].inbox.is_empty());
    assert_eq!(scene.nodes[0].count(Count::NatOut), 1, "the other one alone");
    // And nobody outside is known by one: RFC 4193 §4.3 as for unique local addresses.
    let locator = scene.hosts[0].locators[0];
    scene.inject(0, &packet::udp(nobody, locator, (9, 9), b"it is me"));
    scene.inject(0, &packet::udp(routable, locator, (9, 9), b"so am I"));
    scene.run(ms(200));
    assert_eq!(scene.nodes[0].dropped(DropReason::UniqueLocal), 1);
    assert_eq!(scene.hosts[0].inbox.len(), 1);
}
