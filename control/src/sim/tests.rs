//! The oracles see what they are there to see. What a box would have to do wrong is done by hand here; what the planted
//! faults of `scripts/soak --mutants` make boxes do wrong is not repeated.

use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::wire::ContextTag;
use dataplane::wire::ipv6::protocol;
use dataplane::wire::shim6::{Addresses, Message, Options, PayloadHeader, emit_packet};

use super::{Oracle, Plan, VICTIM, World, packet};

fn world() -> World {
    let mut world = World::new(&Plan::default(), 1);
    world.run(Duration::from_millis(100));
    assert!(world.violations.is_empty());
    world
}

/// What was seen first.
fn seen(world: &World) -> Option<Oracle> {
    world.violations.first().map(|violation| violation.oracle)
}

/// What the world says of a packet that the box of site 0 sends through its first provider.
fn leaving(octets: &[u8]) -> Option<Oracle> {
    let mut world = world();
    let (router, customer) = (world.providers[0].router_mac, world.providers[0].customer_mac);
    world.toward_provider(0, 1, packet::frame(router, customer, octets));
    seen(&world)
}

fn locators() -> [Ipv6Addr; 2] {
    let world = world();
    [world.hosts[0].locators[0], world.hosts[1].locators[0]]
}

fn payload(source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let header = PayloadHeader { next_header: protocol::UDP, tag: ContextTag::truncate(7) }.emit();
    packet::ipv6(source, target, protocol::SHIM6, 64, &[&header[..], &[0; 24]].concat())
}

fn keepalive(source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let message = Message::Keepalive { receiver_tag: ContextTag::truncate(7), options: Options::default() };
    emit_packet(Addresses { source, target }, 64, &message).unwrap()
}

#[test]
fn what_a_box_must_not_send_is_seen() {
    let [ours, theirs] = locators();
    assert_eq!(leaving(&keepalive(ours, theirs)), None);
    assert_eq!(leaving(&keepalive(theirs, ours)), Some(Oracle::Ingress));
    assert_eq!(leaving(&keepalive(ours, world().hosts[1].ulid)), Some(Oracle::Identifier));
    assert_eq!(leaving(&payload(ours, theirs)), Some(Oracle::Reachable));
    assert_eq!(leaving(&keepalive(ours, VICTIM)), Some(Oracle::Bystander));
    let mut broken = keepalive(ours, theirs);
    broken[44] ^= 1;
    assert_eq!(leaving(&broken), Some(Oracle::Wellformed));
}

#[test]
fn what_a_host_must_not_get_is_seen() {
    let arriving = |change: fn(&World) -> Vec<u8>| {
        let mut world = world();
        world.stream(0, 1, Duration::from_secs(1));
        let octets = change(&world);
        let (to, from) = (world.hosts[1].mac, world.hosts[0].mac);
        world.at_host(1, &packet::frame(to, from, &octets));
        seen(&world)
    };
    assert_eq!(arriving(|it| packet::udp(it.hosts[0].ulid, it.hosts[1].ulid, (1024, 7), &[0; 12])), None);
    assert_eq!(
        arriving(|it| packet::udp(it.hosts[0].ulid, it.hosts[0].ulid, (1024, 7), &[0; 12])),
        Some(Oracle::WrongHost)
    );
    assert_eq!(
        arriving(|it| packet::udp(it.hosts[0].locators[0], it.hosts[1].ulid, (1024, 7), &[0; 12])),
        Some(Oracle::WrongUlid)
    );
    assert_eq!(
        arriving(|it| {
            let mut octets = packet::udp(it.hosts[0].ulid, it.hosts[1].ulid, (1024, 7), &[0; 12]);
            *octets.last_mut().unwrap() ^= 1;
            octets
        }),
        Some(Oracle::Checksum)
    );
}

#[test]
fn an_octet_too_many_or_too_few_is_seen() {
    for shift in [1, u64::MAX] {
        let mut world = world();
        let id = world.connect(0, 1, Duration::from_millis(50), 100);
        world.run(Duration::from_secs(1));
        assert!(world.violations.is_empty() && world.connections[id].ends.iter().all(|end| end.read > 100));
        // As if one octet had been left out, or come twice.
        let end = &mut world.connections[id].ends[1];
        end.read = end.read.wrapping_add(shift);
        world.run(Duration::from_secs(1));
        assert_eq!(seen(&world), Some(Oracle::Octets));
    }
}

#[test]
fn what_is_missing_doubled_or_late_is_counted() {
    let mut world = world();
    let id = world.stream(0, 1, Duration::from_millis(50));
    let since = world.now;
    world.run(Duration::from_secs(1));
    world.stop(id);
    let until = world.now;
    world.run(Duration::from_secs(1));
    assert_eq!(world.streams[id].faults(since, until), (0, 0));
    let lost = world.streams[id].arrivals.remove(3);
    assert_eq!(world.streams[id].faults(since, until), (1, 0));
    world.streams[id].arrivals.push(lost);
    assert_eq!(world.streams[id].faults(since, until), (0, 1));
    world.streams[id].arrivals.insert(3, lost);
    assert_eq!(world.streams[id].faults(since, until), (0, 1));
    // And a context that is there is no nothing.
    assert!(world.nodes.iter().all(|node| node.leftovers().contains(&("contexts", 1))));
}

#[test]
fn a_box_sleeps_and_wakes_and_its_clock_jumps() {
    let mut world = world();
    let id = world.stream(0, 1, Duration::from_millis(50));
    world.run(Duration::from_secs(1));
    let before = world.streams[id].arrivals.len();
    world.pause(0, Duration::from_secs(2));
    world.run(Duration::from_millis(1900));
    assert!(world.streams[id].arrivals.len() <= before + 1, "one was under way");
    world.run(Duration::from_millis(200));
    assert!(world.streams[id].arrivals.len() >= before + 38, "what waited in the device goes on");
    world.stop(id);
    // Long enough for the other box's last Keepalive: one that came later would bring the context back (RFC 5533 §7.17).
    world.run(Duration::from_secs(20));
    // 301 seconds are idle time, and the context is gone at once.
    world.step(0, Duration::from_secs(301));
    world.run(Duration::from_millis(100));
    assert_eq!(world.nodes[0].leftovers(), []);
    assert!(world.nodes[1].leftovers().contains(&("contexts", 1)));
}
