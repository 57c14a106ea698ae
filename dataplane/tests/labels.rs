//! Flow labels that stand for contexts: what is taken for one, and what is not.

mod common;

use common::{Bench, LAN, Seen, Setup, Side, X, Y, frame, inner, packet, udp};
use dataplane::context::{Install, LabelMode, LocatorSets, Phase};
use dataplane::counters::{Count, DropReason};
use dataplane::link::Punt;
use dataplane::snapshot::PortId;
use dataplane::wire::ipv6::{self, protocol};
use dataplane::wire::{FlowLabel, Locator, checksum};
use dataplane::worker::Limits;

const OURS: u32 = 0x12345;
const THEIRS: u32 = 0xedcba;

fn setup(mode: LabelMode, workers: usize) -> Setup {
    let limits = Limits { contexts: 64, flow_labels: mode, ..Limits::default() };
    Setup { workers, limits, ..Setup::default() }
}

/// Host 1 with host 2 of the other side over X, and what of both may be used otherwise.
fn labelled(bench: &Bench) -> Install {
    let sets = LocatorSets {
        local: [X, Y].map(|port| Locator(Side::A.locator(1, port))).to_vec(),
        peer: [X, Y].map(|port| Locator(Side::B.locator(2, port))).to_vec(),
    };
    Install {
        local_label: FlowLabel::truncate(OURS),
        peer_label: FlowLabel::truncate(THEIRS),
        accepted: Some(Box::new(sets)),
        ..bench.context(1, 2, X)
    }
}

fn bench(mode: LabelMode) -> Bench {
    let mut bench = setup(mode, 1).build();
    bench.install(labelled(&bench));
    bench.run();
    bench
}

/// A packet of the peer's with a label, over any locators.
fn from_peer(peer: u16, remote: PortId, host: u16, local: PortId, label: u32) -> Vec<u8> {
    let (source, target) = (Side::B.locator(peer, remote), Side::A.locator(host, local));
    let mut packet = packet(source, target, protocol::UDP, &udp(source, target, 100));
    set_label(&mut packet, label);
    packet
}

fn set_label(packet: &mut [u8], label: u32) {
    let mut view = ipv6::ViewMut::new(packet).unwrap();
    view.set_flow_label(label);
    assert_eq!(view.view().flow_label(), label);
}

fn give(bench: &mut Bench, port: PortId, packet: &[u8]) {
    bench.send(port, &bench.provider_frame(port, packet));
    bench.run();
}

/// Gives a packet that is none of the context's: it is what it would be without labels.
fn is_plain(bench: &mut Bench, port: PortId, packet: &[u8]) {
    let before = bench.dropped(DropReason::NoTranslation);
    give(bench, port, packet);
    assert_eq!((bench.dropped(DropReason::NoTranslation), bench.sent(LAN).len()), (before + 1, 0));
    assert_eq!(bench.count(Count::LabelledIn), 0);
}

#[test]
fn a_label_counts_between_all_locators_of_its_context_and_no_others() {
    for mode in [LabelMode::Unlabelled, LabelMode::All] {
        let mut bench = bench(mode);
        is_plain(&mut bench, X, &from_peer(3, X, 1, X, OURS));
        is_plain(&mut bench, X, &from_peer(2, X, 3, X, OURS));
        is_plain(&mut bench, X, &from_peer(2, X, 1, X, OURS + 1));
        is_plain(&mut bench, X, &from_peer(2, X, 1, X, 0));
        is_plain(&mut bench, X, &from_peer(2, X, 1, X, THEIRS));
        for (remote, local) in [(X, X), (X, Y), (Y, X), (Y, Y)] {
            let packet = from_peer(2, remote, 1, local, OURS);
            give(&mut bench, local, &packet);
            let (port, arrived) = bench.only();
            let view = ipv6::View::new(inner(&arrived)).unwrap();
            assert_eq!((port, view.source(), view.target()), (LAN, Side::B.ulid(2), Side::A.ulid(1)));
            assert_eq!((view.flow_label(), view.hop_limit(), view.payload()), (0, 63, &packet[40..]));
        }
        assert_eq!(bench.count(Count::LabelledIn), 4);
    }
}

#[test]
fn without_the_mode_labels_mean_nothing() {
    let mut bench = bench(LabelMode::Off);
    is_plain(&mut bench, X, &from_peer(2, X, 1, X, OURS));
    bench.send(LAN, &bench.host_frame(1, 2, protocol::UDP, &[0; 60]));
    bench.run();
    assert_eq!(ipv6::View::new(inner(&bench.only().1)).unwrap().next_header(), protocol::SHIM6);
    assert_eq!(bench.count(Count::LabelledOut), 0);
}

#[test]
fn without_sets_of_locators_a_label_counts_on_the_current_pair_alone() {
    let mut bench = setup(LabelMode::All, 1).build();
    bench.install(Install { accepted: None, ..labelled(&bench) });
    bench.run();
    is_plain(&mut bench, Y, &from_peer(2, X, 1, Y, OURS));
    give(&mut bench, X, &from_peer(2, X, 1, X, OURS));
    assert_eq!(bench.sent(LAN).len(), 1);
}

#[test]
fn a_context_that_changes_or_goes_takes_its_label_along() {
    let mut bench = bench(LabelMode::All);
    let install = labelled(&bench);
    bench.install(Install { local_label: FlowLabel::truncate(7), ..install.clone() });
    bench.run();
    is_plain(&mut bench, X, &from_peer(2, X, 1, X, OURS));
    bench.install(Install { phase: Phase::Opening, local_label: None, ..install.clone() });
    bench.run();
    is_plain(&mut bench, X, &from_peer(2, X, 1, X, 7));
    bench.install(install.clone());
    dataplane::link::Workers::remove(&mut bench.control, 0, install.local_tag);
    bench.run();
    is_plain(&mut bench, X, &from_peer(2, X, 1, X, OURS));
    bench.workers[0].shard().selfcheck();
}

#[test]
fn with_a_label_the_whole_mtu_is_the_hosts() {
    let mut bench = bench(LabelMode::Unlabelled);
    let mut full = bench.host_frame(1, 2, protocol::UDP, &[0; 1460]);
    set_label(&mut full[14..], 0);
    bench.send(LAN, &full);
    bench.run();
    let (port, wire) = bench.only();
    assert_eq!((port, inner(&wire).len()), (X, 1500));
    // Its own label has to arrive, so this one needs the header, and finds no room.
    set_label(&mut full[14..], 9);
    bench.send(LAN, &full);
    bench.run();
    let (port, _) = bench.only();
    assert_eq!((port, bench.dropped(DropReason::TooBig), bench.count(Count::PacketTooBigSent)), (LAN, 1, 1));
    // The same the other way: nothing is taken out, so nothing more than the link's MTU can come.
    let mut arriving = from_peer(2, X, 1, X, OURS);
    arriving.resize(1508, 0);
    arriving[4..6].copy_from_slice(&1468u16.to_be_bytes());
    give(&mut bench, X, &arriving);
    assert_eq!((bench.only().0, bench.dropped(DropReason::TooBig)), (X, 2));
}

#[test]
fn a_host_that_speaks_shim6_itself_goes_behind_a_header() {
    let mut bench = bench(LabelMode::All);
    let own = dataplane::wire::shim6::PayloadHeader { next_header: 59, tag: labelled(&bench).peer_tag };
    bench.send(LAN, &bench.host_frame(1, 2, protocol::SHIM6, &own.emit()));
    bench.run();
    let (_, wire) = bench.only();
    assert_eq!(inner(&wire).len(), 40 + 8 + 8);
    assert_eq!(bench.count(Count::LabelledOut), 0);
}

// An error a router sends about a packet of ours is not the context's, whatever its label.
#[test]
fn errors_of_routers_reach_control() {
    let mut bench = bench(LabelMode::All);
    let (router, target) = (Side::A.router(X), Side::A.locator(1, X));
    let mut error = [&[3, 0, 0, 0, 0, 0, 0, 0][..], &[0; 48]].concat();
    let sum = checksum::upper_layer(router, target, protocol::ICMPV6, &error);
    error[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = packet(router, target, protocol::ICMPV6, &error);
    set_label(&mut packet, OURS);
    give(&mut bench, X, &packet);
    assert!(matches!(&bench.take_seen()[..], [Seen::Punt(X, Punt::IcmpError, _)]));
}

/// With NATv6 an error about what went by label looks like one about what was translated. Control is asked, and what it gives
/// back is translated, whichever worker that is for.
#[test]
fn errors_about_labels_are_asked_about_before_they_are_translated() {
    for workers in [1, 4] {
        let snapshot = Side::A.translating();
        let mut bench = setup(LabelMode::All, workers).build_with(snapshot);
        let (router, host) = (Side::A.router(X), Side::A.locator(1, X));
        let mut sent = packet(host, Side::B.locator(2, X), protocol::UDP, &udp(host, Side::B.locator(2, X), 100));
        for (label, asked) in [(0, false), (THEIRS, true)] {
            set_label(&mut sent, label);
            let mut error = [&[3, 0, 0, 0, 0, 0, 0, 0][..], &sent].concat();
            let sum = checksum::upper_layer(router, host, protocol::ICMPV6, &error);
            error[2..4].copy_from_slice(&sum.to_be_bytes());
            let frame = bench.provider_frame(X, &packet(router, host, protocol::ICMPV6, &error));
            bench.send(X, &frame);
            bench.run();
            let told = bench.take_seen();
            assert_eq!(matches!(&told[..], [Seen::Punt(X, Punt::IcmpError, _)]), asked, "{told:?}");
            assert_eq!(bench.sent(LAN).len(), usize::from(!asked));
            if asked {
                dataplane::link::Workers::plain(&mut bench.control, X, &frame);
                bench.run();
                assert_eq!((bench.take_seen().len(), bench.sent(LAN).len()), (0, 1), "{workers} workers");
            }
        }
    }
}

#[test]
fn activity_tells_of_labels() {
    let mut bench = bench(LabelMode::Unlabelled);
    bench.wait(100);
    bench.take_seen();
    let mut told = |label: u32, answer: bool| {
        let mut out = bench.host_frame(1, 2, protocol::UDP, &[0; 60]);
        set_label(&mut out[14..], label);
        bench.send(LAN, &out);
        if answer {
            bench.send(X, &frame(Side::A.mac(X), Side::A.router_mac(X), &from_peer(2, X, 1, X, OURS)));
        }
        bench.wait(100);
        let seen = bench.take_seen();
        let [Seen::Activity(_, activity, _)] = &seen[..] else { panic!("{seen:?}") };
        (activity.labelled_out, activity.labelled_in)
    };
    assert_eq!(told(0, false), (true, false));
    assert_eq!(told(1, false), (false, false), "the report before is over");
    assert_eq!(told(1, true), (false, true));
    assert_eq!(told(0, true), (true, true));
}

/// The label names the worker, as tags do; a plain packet whose label happens to name another one makes the detour once.
#[test]
fn the_worker_that_owns_the_label_gets_the_packet() {
    let mut bench = setup(LabelMode::All, 4).build();
    let mut install = labelled(&bench);
    let owner = bench.sharding.owner_of_pair(&install.ulids);
    let label = u32::from(owner) << 18 | 0x123;
    install.local_label = FlowLabel::truncate(label);
    bench.install(install);
    bench.run();
    give(&mut bench, X, &from_peer(2, X, 1, X, label));
    assert_eq!(bench.sent(LAN).len(), 1);
    assert_eq!(bench.count(Count::HandedOver), u64::from(owner != 0));
    let foreign = u32::from((owner + 1) % 4) << 18 | 0x123;
    is_plain_after(&mut bench, &from_peer(2, X, 1, X, foreign));
    assert!(bench.count(Count::HandedOver) <= 2);
}

fn is_plain_after(bench: &mut Bench, packet: &[u8]) {
    give(bench, X, packet);
    assert_eq!((bench.dropped(DropReason::NoTranslation), bench.sent(LAN).len()), (1, 0));
}
