//! Packets of classes that go by forked contexts, and all others.

mod common;

use std::sync::Arc;

use common::{Bench, LAN, Seen, Setup, X, Y, inner};
use dataplane::context::fork::AGAIN_MS;
use dataplane::context::{Install, Phase};
use dataplane::counters::Count;
use dataplane::link::Workers;
use dataplane::snapshot::{ClassView, Classes, Snapshot};
use dataplane::wire::ipv6::{self, protocol};
use dataplane::wire::shim6::PayloadHeader;
use dataplane::wire::{ContextTag, ethernet};

/// 1: UDP to or from port 5000 to 5009; 2: expedited forwarding.
fn classes() -> Vec<ClassView> {
    let ports = ClassView { protocol: Some(protocol::UDP), ports: vec![5000..=5009], ..ClassView::default() };
    vec![ports, ClassView { code_points: 1 << 46, ..ClassView::default() }]
}

fn both() -> Classes {
    Classes::only(1).and(Classes::only(2))
}

/// A box whose host 1 has a default context with host 2 of the other side, over X, which shares what the classes take.
fn bench() -> (Bench, Install) {
    let mut bench = Setup::default().build();
    let snapshot = Arc::new(Snapshot { classes: classes(), ..(*bench.snapshot).clone() });
    bench.control.publish(&snapshot);
    let default = Install { classes: both(), ..bench.context(1, 2, X) };
    bench.install(default.clone());
    bench.run();
    (bench, default)
}

/// The forked context of a class, over Y.
fn fork(bench: &Bench, class: u32) -> Install {
    let plain = bench.context(1, 2, Y);
    Install {
        handle: 1000 + u64::from(class),
        default: false,
        classes: Classes::only(class),
        local_tag: ContextTag::truncate(plain.local_tag.value() + u64::from(class)),
        peer_tag: ContextTag::truncate(plain.peer_tag.value() + u64::from(class)),
        ..plain
    }
}

/// An Ethernet frame of host 1 for host 2 of the other side.
fn frame_of(bench: &Bench, next_header: u8, class: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = bench.host_frame(1, 2, next_header, payload);
    let version = &mut frame[ethernet::HEADER_LEN..ethernet::HEADER_LEN + 2];
    version.copy_from_slice(&(0x6000 | u16::from(class) << 4).to_be_bytes());
    frame
}

fn datagram(ports: (u16, u16)) -> Vec<u8> {
    let ([a, b], [c, d]) = (ports.0.to_be_bytes(), ports.1.to_be_bytes());
    [&[a, b, c, d, 0, 48, 0, 1][..], &[7; 40]].concat()
}

/// Gives a packet, and says with which tag it left.
fn tag_of(bench: &mut Bench, frame: &[u8]) -> ContextTag {
    bench.send(LAN, frame);
    bench.run();
    let (port, left) = bench.only();
    let packet = ipv6::View::new(inner(&left)).unwrap();
    let header = PayloadHeader::parse(packet.payload()).unwrap();
    let provider = if packet.source() == bench.side.locator(1, X) { X } else { Y };
    assert_eq!((port, packet.next_header()), (provider, protocol::SHIM6));
    header.tag
}

fn wishes(bench: &mut Bench) -> Vec<(u64, u8)> {
    let wish = |seen: &Seen| if let Seen::Fork(handle, class) = seen { Some((*handle, *class)) } else { None };
    let wishes = bench.seen.iter().filter_map(wish).collect();
    bench.seen.clear();
    wishes
}

// R5533-022, R5533-299
#[test]
fn packets_of_a_class_go_by_its_context_once_it_is_live() {
    let (mut bench, default) = bench();
    let bulk = frame_of(&bench, protocol::UDP, 0, &datagram((9, 5003)));
    let voice = frame_of(&bench, protocol::TCP, 46 << 2 | 1, &datagram((9, 5003)));
    let other = frame_of(&bench, protocol::UDP, 0, &datagram((9, 4999)));
    for frame in [&bulk, &voice, &other] {
        assert_eq!(tag_of(&mut bench, frame), default.peer_tag, "there is no other yet");
    }
    assert_eq!(wishes(&mut bench), [(default.handle, 1), (default.handle, 2)]);
    // As its handshake goes on nothing waits.
    for phase in [Phase::Opening, Phase::Answering] {
        bench.install(Install { phase, ..fork(&bench, 1) });
        assert_eq!(tag_of(&mut bench, &bulk), default.peer_tag);
    }
    bench.install(fork(&bench, 1));
    let forked = fork(&bench, 1).peer_tag;
    assert_eq!(tag_of(&mut bench, &bulk), forked);
    let fits_both = frame_of(&bench, protocol::UDP, 46 << 2, &datagram((5009, 9)));
    assert_eq!(tag_of(&mut bench, &fits_both), forked, "the first class that fits");
    for frame in [&voice, &other] {
        assert_eq!(tag_of(&mut bench, frame), default.peer_tag);
    }
    bench.install(fork(&bench, 2));
    assert_eq!(tag_of(&mut bench, &voice), fork(&bench, 2).peer_tag);
    assert_eq!((bench.count(Count::ForkedOut), bench.count(Count::TranslatedOut)), (3, 10));
    let traffic = bench.workers[0].shard().iter().map(|entry| (entry.handle, entry.traffic()[0].packets));
    let mut traffic: Vec<_> = traffic.collect();
    traffic.sort_unstable();
    assert_eq!(traffic, [(1001, 2), (1002, 1), (default.handle, 7)], "each counts its own");
}

#[test]
fn the_default_context_takes_over_when_a_forked_one_goes_and_the_other_way_round() {
    let (mut bench, default) = bench();
    bench.install(fork(&bench, 1));
    let bulk = frame_of(&bench, protocol::UDP, 0, &datagram((9, 5003)));
    assert_eq!(tag_of(&mut bench, &bulk), fork(&bench, 1).peer_tag);
    bench.control.remove(0, fork(&bench, 1).local_tag);
    assert_eq!(tag_of(&mut bench, &bulk), default.peer_tag);
    assert_eq!(wishes(&mut bench), [(default.handle, 1)], "and it may come again");
    assert_eq!(tag_of(&mut bench, &bulk), default.peer_tag);
    assert_eq!(wishes(&mut bench), [], "told once");
    bench.now += AGAIN_MS;
    tag_of(&mut bench, &bulk);
    assert_eq!(wishes(&mut bench), [(default.handle, 1)], "and once more after a while");
    // Without a default context packets wait for one, whatever forks there are.
    bench.install(fork(&bench, 1));
    bench.control.remove(0, default.local_tag);
    bench.send(LAN, &bulk);
    bench.run();
    assert_eq!((bench.workers[0].held(), bench.count(Count::UnknownPairs)), (1, 1));
    bench.install(default);
    bench.run();
    let (port, _) = bench.only();
    assert_eq!(port, Y, "what was held goes where it belongs");
}

#[test]
fn what_a_class_may_not_see_goes_by_the_default_context() {
    let (mut bench, default) = bench();
    bench.install(fork(&bench, 1));
    let udp = datagram((9, 5003));
    let fragment = |offset: u16, more: u16| {
        let [high, low] = (offset << 3 | more).to_be_bytes();
        [&[protocol::UDP, 0, high, low, 0, 0, 0, 1][..], &udp].concat()
    };
    let first = frame_of(&bench, protocol::FRAGMENT, 0, &fragment(0, 1));
    let later = frame_of(&bench, protocol::FRAGMENT, 0, &fragment(6, 0));
    let encrypted = frame_of(&bench, protocol::ESP, 0, &udp);
    for frame in [&first, &later, &encrypted] {
        assert_eq!(tag_of(&mut bench, frame), default.peer_tag);
    }
    let whole = frame_of(&bench, protocol::FRAGMENT, 0, &fragment(0, 0));
    assert_eq!(tag_of(&mut bench, &whole), fork(&bench, 1).peer_tag);
    let behind =
        frame_of(&bench, protocol::DESTINATION_OPTIONS, 0, &[&[protocol::UDP, 0, 1, 4, 0, 0, 0, 0], &udp[..]].concat());
    assert_eq!(tag_of(&mut bench, &behind), fork(&bench, 1).peer_tag);
}

#[test]
fn a_peers_fork_steals_nothing_and_a_class_that_is_not_shared_takes_nothing() {
    // R5533-023
    let (mut bench, default) = bench();
    bench.install(Install { classes: Classes::NONE, ..fork(&bench, 1) });
    let bulk = frame_of(&bench, protocol::UDP, 0, &datagram((9, 5003)));
    assert_eq!(tag_of(&mut bench, &bulk), default.peer_tag);
    bench.install(fork(&bench, 1));
    assert_eq!(tag_of(&mut bench, &bulk), fork(&bench, 1).peer_tag);
    bench.install(Install { classes: Classes::only(2), ..default.clone() });
    assert_eq!(tag_of(&mut bench, &bulk), default.peer_tag);
    bench.install(Install { classes: Classes::NONE, ..default.clone() });
    assert_eq!(tag_of(&mut bench, &bulk), default.peer_tag);
    bench.workers[0].shard().selfcheck();
}
