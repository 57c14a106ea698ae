//! Providers and paths that are lost: whose packets take the standby, from which packet on, and whose do not.

mod common;

use common::{Bench, LAN, Setup, Side, X, Y, view};
use dataplane::context::{Install, LabelMode, Loss, PathNumber, Phase, Standby};
use dataplane::counters::Count;
use dataplane::link::Workers;
use dataplane::snapshot::{ClassView, Classes, PortId, Snapshot};
use dataplane::wire::ipv6::protocol;
use dataplane::wire::{ContextTag, FlowLabel, Locator, LocatorPair};
use dataplane::worker::Limits;

const LOST_X: Loss = Loss::Provider(0);
const LOST_Y: Loss = Loss::Provider(1);

fn path(number: u16) -> PathNumber {
    PathNumber::new(number).unwrap()
}

/// A pair of our `host` and the other side's `peer`.
fn pair(host: u16, peer: u16, local: PortId, remote: PortId) -> LocatorPair {
    LocatorPair { local: Locator(Side::A.locator(host, local)), peer: Locator(Side::B.locator(peer, remote)) }
}

/// A context over X with a standby over Y, which ends at another locator of the peer.
fn guarded(bench: &Bench, host: u16, peer: u16) -> Install {
    let standby = Standby { locators: pair(host, peer, Y, Y), provider: 1, path: path(2), narrow: false, udp: false };
    Install { path: path(1), standby: Some(standby), ..bench.context(host, peer, X) }
}

fn lose(bench: &mut Bench, loss: Loss, lost: bool) {
    bench.control.lose(loss, lost);
    bench.run();
}

/// The port a datagram of our `host` for `peer` leaves by; its locators have to be those of the port.
fn leaves_by(bench: &mut Bench, host: u16, peer: u16) -> PortId {
    bench.send(LAN, &bench.host_frame(host, peer, protocol::UDP, &[0; 64]));
    bench.run();
    let (port, frame) = bench.only();
    let (packet, remote) = (view(&frame), if port == X { X } else { Y });
    assert_eq!((packet.source(), packet.target()), {
        let LocatorPair { local, peer } = pair(host, peer, port, remote);
        (local.0, peer.0)
    });
    port
}

#[test]
fn one_command_takes_all_contexts_of_a_provider_to_their_standbys_and_one_brings_them_back() {
    let mut bench = Bench::new(Side::A);
    for host in 0..8 {
        for peer in 0..64 {
            bench.install(guarded(&bench, host, peer));
        }
    }
    bench.run();
    for (loss, lost, expected) in [
        (LOST_X, true, Y),
        (LOST_X, false, X),
        (LOST_Y, true, X),
        (LOST_Y, false, X),
        (Loss::Path(path(1)), true, Y),
        (Loss::Path(path(1)), false, X),
        (Loss::Path(path(3)), true, X),
    ] {
        lose(&mut bench, loss, lost);
        for (host, peer) in (0..8).flat_map(|host| (0..64).map(move |peer| (host, peer))) {
            assert_eq!(leaves_by(&mut bench, host, peer), expected, "{loss:?} {lost}");
        }
    }
    assert_eq!(bench.count(Count::StandbyOut), 2 * 8 * 64);
    assert_eq!(bench.drops(), 0);
}

#[test]
fn where_a_packet_goes_does_not_depend_on_the_order_in_which_things_were_told() {
    let mut bench = Bench::new(Side::A);
    bench.install(guarded(&bench, 1, 2));
    // Both are lost: nothing is better than the current pair. One comes back: that one is taken.
    lose(&mut bench, LOST_X, true);
    lose(&mut bench, LOST_Y, true);
    assert_eq!(leaves_by(&mut bench, 1, 2), X);
    lose(&mut bench, LOST_Y, false);
    assert_eq!(leaves_by(&mut bench, 1, 2), Y);
    lose(&mut bench, Loss::Path(path(2)), true);
    assert_eq!(leaves_by(&mut bench, 1, 2), X, "the standby's path is lost, too");
    lose(&mut bench, Loss::Path(path(2)), false);
    // Said twice, taken back once.
    lose(&mut bench, LOST_X, true);
    lose(&mut bench, LOST_X, false);
    assert_eq!(leaves_by(&mut bench, 1, 2), X);
    // A context that is installed while a provider is lost.
    lose(&mut bench, LOST_X, true);
    bench.install(guarded(&bench, 3, 4));
    bench.run();
    assert_eq!(leaves_by(&mut bench, 3, 4), Y);
    // Control has moved a context: what was its standby is its pair now, and the lost provider its standby.
    let moved = Standby { locators: pair(1, 2, X, X), provider: 0, path: path(1), narrow: false, udp: false };
    let install = guarded(&bench, 1, 2);
    bench.install(Install {
        locators: pair(1, 2, Y, Y),
        provider: 1,
        path: path(2),
        standby: Some(moved),
        ..install.clone()
    });
    assert_eq!(leaves_by(&mut bench, 1, 2), Y);
    lose(&mut bench, LOST_X, false);
    assert_eq!(leaves_by(&mut bench, 1, 2), Y);
    assert_eq!(leaves_by(&mut bench, 3, 4), X);
}

#[test]
fn a_context_without_a_standby_stays_where_it_is() {
    let mut bench = Bench::new(Side::A);
    let bare = Install { standby: None, ..guarded(&bench, 1, 2) };
    bench.install(bare.clone());
    lose(&mut bench, LOST_X, true);
    assert_eq!(leaves_by(&mut bench, 1, 2), X);
    // One that had a standby and has none any more; and one in whose place there was another context with one.
    bench.install(guarded(&bench, 1, 2));
    assert_eq!(leaves_by(&mut bench, 1, 2), Y);
    bench.install(bare.clone());
    assert_eq!(leaves_by(&mut bench, 1, 2), X);
    bench.install(guarded(&bench, 1, 2));
    bench.control.remove(0, bare.local_tag);
    bench.install(Install { local_tag: ContextTag::truncate(bare.local_tag.value() ^ 1 << 29), ..bare });
    assert_eq!(leaves_by(&mut bench, 1, 2), X);
    // Where nobody wanted standbys there is no room for them.
    let limits = Limits { contexts: 1024, standbys: false, ..Limits::default() };
    let mut bench = Setup { limits, ..Setup::default() }.build();
    bench.install(guarded(&bench, 1, 2));
    lose(&mut bench, LOST_X, true);
    assert_eq!(leaves_by(&mut bench, 1, 2), X);
}

#[test]
fn the_peer_is_heard_whatever_is_lost() {
    let mut bench = Bench::new(Side::A);
    let install = guarded(&bench, 1, 2);
    bench.install(install.clone());
    lose(&mut bench, LOST_X, true);
    for port in [X, Y] {
        let packet = {
            let (source, target) = (Side::B.locator(2, port), Side::A.locator(1, port));
            let header = dataplane::wire::shim6::PayloadHeader { next_header: protocol::UDP, tag: install.local_tag };
            common::packet(source, target, protocol::SHIM6, &[&header.emit()[..], &[0; 40]].concat())
        };
        bench.send(port, &bench.provider_frame(port, &packet));
        bench.run();
        assert_eq!(bench.only().0, LAN);
    }
}

#[test]
fn a_label_is_for_the_current_pair_and_the_standby_has_the_header() {
    let limits = Limits { contexts: 1024, flow_labels: LabelMode::All, ..Limits::default() };
    let mut bench = Setup { limits, ..Setup::default() }.build();
    bench.install(Install { peer_label: FlowLabel::truncate(77), ..guarded(&bench, 1, 2) });
    bench.run();
    for (lost, port, header) in [(false, X, protocol::UDP), (true, Y, protocol::SHIM6), (false, X, protocol::UDP)] {
        lose(&mut bench, LOST_X, lost);
        bench.send(LAN, &bench.host_frame(1, 2, protocol::UDP, &[0; 64]));
        bench.run();
        let (by, frame) = bench.only();
        assert_eq!((by, view(&frame).next_header()), (port, header));
    }
    assert_eq!(bench.count(Count::LabelledOut), 2);
}

#[test]
fn a_standby_that_is_the_identifiers_goes_unchanged_and_back() {
    let mut bench = Bench::new(Side::A);
    let install = guarded(&bench, 1, 2);
    let ulids = install.ulids.as_locators();
    let plain = Standby { locators: ulids, ..install.standby.unwrap() };
    bench.install(Install { standby: Some(plain), ..install.clone() });
    bench.install(Install { locators: ulids, ..guarded(&bench, 3, 4) });
    lose(&mut bench, LOST_X, true);
    for (host, peer, header) in [(1, 2, protocol::UDP), (3, 4, protocol::SHIM6)] {
        bench.send(LAN, &bench.host_frame(host, peer, protocol::UDP, &[0; 64]));
        bench.run();
        let (port, frame) = bench.only();
        assert_eq!((port, view(&frame).next_header()), (Y, header));
    }
    assert_eq!((bench.count(Count::PlainOut), bench.count(Count::TranslatedOut)), (1, 1));
}

#[test]
fn forked_contexts_have_standbys_of_their_own() {
    let mut bench = Setup::default().build();
    let voice = ClassView { code_points: 1 << 0x2e, ..ClassView::default() };
    let snapshot = std::sync::Arc::new(Snapshot { classes: vec![voice], ..(*bench.snapshot).clone() });
    bench.control.publish(&snapshot);
    let default = Install { classes: Classes::only(1), ..guarded(&bench, 1, 2) };
    let tag = ContextTag::truncate(default.local_tag.value() + 1);
    let fork = Install { handle: 9, default: false, local_tag: tag, standby: None, ..default.clone() };
    bench.install(default);
    bench.install(fork.clone());
    lose(&mut bench, LOST_X, true);
    let by_class = |class: u8, bench: &mut Bench| {
        let mut frame = bench.host_frame(1, 2, protocol::UDP, &[0; 64]);
        frame[14..16].copy_from_slice(&(0x6000 | u16::from(class) << 4).to_be_bytes());
        bench.send(LAN, &frame);
        bench.run();
        bench.only().0
    };
    assert_eq!((by_class(0, &mut bench), by_class(0x2e << 2, &mut bench)), (Y, X));
    let standby = guarded(&bench, 1, 2).standby;
    bench.install(Install { standby, ..fork });
    assert_eq!((by_class(0, &mut bench), by_class(0x2e << 2, &mut bench)), (Y, Y));
}

#[test]
fn a_narrow_standby_has_its_packets_cut() {
    let mut bench = Bench::new(Side::A);
    let install = guarded(&bench, 1, 2);
    let narrow = Standby { narrow: true, ..install.standby.unwrap() };
    bench.install(Install { standby: Some(narrow), ..install });
    let whole = bench.host_frame(1, 2, protocol::UDP, &[0; 1240]);
    for (lost, pieces) in [(false, 1), (true, 2)] {
        lose(&mut bench, LOST_X, lost);
        bench.send(LAN, &whole);
        bench.run();
        assert_eq!(bench.sent(if lost { Y } else { X }).len(), pieces);
    }
}

#[test]
fn held_packets_leave_by_the_standby_if_need_be() {
    let mut bench = Bench::new(Side::A);
    bench.send(LAN, &bench.host_frame(1, 2, protocol::UDP, &[0; 64]));
    lose(&mut bench, LOST_X, true);
    bench.install(Install { phase: Phase::Live, ..guarded(&bench, 1, 2) });
    bench.run();
    assert_eq!(bench.only().0, Y);
}
