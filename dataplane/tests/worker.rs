//! What a worker does besides translating: holding, answering, telling control, handing over, and staying within bounds.

mod common;

use std::sync::Arc;

use common::{Bench, LAN, Seen, Setup, Side, X, Y, frame, inner, packet, udp, view};
use dataplane::context::{Direction, Install, Phase, Sign};
use dataplane::counters::{Count, DropReason};
use dataplane::link::{RingSizes, Workers};
use dataplane::wire::ethernet::Mac;
use dataplane::wire::ipv6::protocol;
use dataplane::wire::shim6::PayloadHeader;
use dataplane::wire::{ContextTag, Locator, LocatorPair, Ulid, UlidPair, checksum};
use dataplane::worker::Limits;

fn limited(limits: Limits) -> Bench {
    Setup { limits: Limits { contexts: 1024, ..limits }, ..Setup::default() }.build()
}

fn pair(host: u16, peer: u16) -> UlidPair {
    UlidPair { local: Ulid(Side::A.ulid(host)), peer: Ulid(Side::B.ulid(peer)) }
}

/// A packet from host 1 of A to host 2 of B, with a number in it.
fn numbered(bench: &Bench, number: u8) -> Vec<u8> {
    bench.host_frame(1, 2, protocol::UDP, &[number; 40])
}

/// The numbers of packets that left, in order.
fn numbers(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().filter_map(|frame| frame.last().copied()).collect()
}

/// A packet of the peer's that came over X, for the context with our `tag`.
fn tagged(bench: &Bench, host: u16, tag: ContextTag, payload: &[u8]) -> Vec<u8> {
    let header = PayloadHeader { next_header: protocol::UDP, tag }.emit();
    let target = Side::A.locator(host, X);
    bench.provider_frame(X, &packet(Side::B.locator(2, X), target, protocol::SHIM6, &[&header[..], payload].concat()))
}

// ---- holding ----

#[test]
fn held_packets_leave_in_order_and_before_those_that_follow() {
    let mut bench = Bench::new(Side::A);
    for number in 0..5 {
        bench.send(LAN, &numbered(&bench, number));
        bench.run();
    }
    assert_eq!(bench.take_seen(), [Seen::UnknownPair(pair(1, 2))], "control is told of a pair once");
    // Until the context is live its packets go on waiting (R5533-280).
    for phase in [Phase::Opening, Phase::Answering, Phase::Live] {
        bench.install(Install { phase, ..bench.context(1, 2, X) });
    }
    // The commands above are still in the ring; these packets arrive in the same turn as they are carried out.
    bench.send(LAN, &numbered(&bench, 5));
    bench.send(LAN, &numbered(&bench, 6));
    bench.run();
    assert_eq!(numbers(&bench.sent(X)), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!((bench.count(Count::Held), bench.count(Count::Released)), (5, 5));
    assert_eq!(bench.drops(), 0);
}

#[test]
fn a_context_that_is_not_live_holds() {
    let mut bench = Bench::new(Side::A);
    for (number, phase) in [(0, Phase::Opening), (1, Phase::Answering)] {
        bench.install(Install { phase, ..bench.context(1, 2, X) });
        bench.send(LAN, &numbered(&bench, number));
        bench.run();
        assert_eq!(bench.sent(X).len(), 0);
    }
    bench.open_alone(1, 2, X);
    bench.run();
    assert_eq!(numbers(&bench.sent(X)), [0, 1]);
}

// R5533-290, I2-SENT: what the peer sends is delivered although nothing is sent yet.
#[test]
fn a_context_that_waits_for_r2_delivers() {
    let mut bench = Bench::new(Side::A);
    let install = Install { phase: Phase::Answering, ..bench.context(1, 2, X) };
    bench.install(install.clone());
    bench.run();
    bench.send(X, &tagged(&bench, 1, install.local_tag, &[7; 30]));
    bench.run();
    assert_eq!(bench.only().0, LAN);
}

#[test]
fn a_refused_pair_is_answered_and_forgotten() {
    let mut bench = Bench::new(Side::A);
    let sent: Vec<Vec<u8>> = (0..3).map(|number| numbered(&bench, number)).collect();
    sent.iter().for_each(|frame| bench.send(LAN, frame));
    bench.run();
    bench.control.refuse(0, pair(1, 2));
    bench.run();
    let answers = bench.sent(LAN);
    assert_eq!(answers.len(), 3);
    for (answer, sent) in answers.iter().zip(&sent) {
        check_error(answer, (1, 3, 0), inner(sent));
    }
    assert_eq!((bench.dropped(DropReason::Unreachable), bench.count(Count::UnreachableSent)), (3, 3));
    // The next packet of the pair is a new question.
    bench.take_seen();
    bench.send(LAN, &sent[0]);
    bench.run();
    assert_eq!(bench.take_seen(), [Seen::UnknownPair(pair(1, 2))]);
}

#[test]
fn what_waits_too_long_is_dropped_and_asked_about_again() {
    let mut bench = limited(Limits { hold_pairs: 4, hold_ms: 1000, ..Limits::default() });
    bench.send(LAN, &numbered(&bench, 0));
    bench.run();
    bench.now = 900;
    bench.send(LAN, &numbered(&bench, 1));
    bench.run();
    let mut turns = |now: u64| (0..4).for_each(|_| _ = bench.workers[0].turn(now));
    turns(1000);
    turns(1001);
    assert_eq!(bench.dropped(DropReason::HoldExpired), 2, "a pair waits since its first packet");
    bench.take_seen();
    bench.now = 1001;
    bench.send(LAN, &numbered(&bench, 2));
    bench.run();
    assert_eq!(bench.take_seen(), [Seen::UnknownPair(pair(1, 2))]);
    bench.open_alone(1, 2, X);
    bench.run();
    assert_eq!(numbers(&bench.sent(X)), [2]);
}

#[test]
fn nothing_waits_for_an_answer_to_a_question_control_never_heard() {
    let mut bench = Setup { rings: RingSizes { events: 1, ..RingSizes::default() }, ..Setup::default() }.build();
    bench.send(LAN, &bench.host_frame(3, 2, protocol::UDP, &[3; 40]));
    bench.send(LAN, &numbered(&bench, 0));
    bench.workers[0].turn(0);
    assert_eq!(bench.dropped(DropReason::RingFull), 1);
    bench.run();
    assert_eq!(bench.take_seen(), [Seen::UnknownPair(pair(3, 2))]);
    bench.send(LAN, &numbered(&bench, 1));
    bench.run();
    assert_eq!(bench.take_seen(), [Seen::UnknownPair(pair(1, 2))], "the pair is asked about again");
}

#[test]
fn a_context_without_a_place_is_refused() {
    let mut bench = Setup { limits: Limits { contexts: 2, ..Limits::default() }, ..Setup::default() }.build();
    for peer in 0..2 {
        bench.open_alone(1, peer, X);
    }
    bench.send(LAN, &numbered(&bench, 9));
    bench.run();
    let install = bench.open_alone(1, 2, X);
    bench.run();
    let seen = bench.take_seen();
    assert_eq!(seen, [Seen::UnknownPair(pair(1, 2)), Seen::TableFull(install.handle)]);
    let (port, answer) = bench.only();
    assert_eq!(port, LAN);
    check_error(&answer, (1, 3, 0), inner(&numbered(&bench, 9)));
    assert_eq!((bench.count(Count::TableFull), bench.count(Count::Contexts)), (1, 2));
    // When another goes, there is room.
    bench.control.remove(0, bench.context(1, 0, X).local_tag);
    bench.open_alone(1, 2, X);
    bench.send(LAN, &numbered(&bench, 8));
    bench.run();
    assert_eq!(numbers(&bench.sent(X)), [8]);
    bench.workers[0].shard().selfcheck();
}

// ---- answering ----

/// An ICMPv6 error to host 1 about `invoking`: type, code and the word after the checksum.
fn check_error(answer: &[u8], (kind, code, word): (u8, u8, u32), invoking: &[u8]) {
    let view = view(answer);
    assert_eq!(answer[..12], [Side::A.host_mac(1).0, Side::A.mac(LAN).0].concat());
    assert_eq!((view.source(), view.target()), (Side::A.own(LAN), Side::A.ulid(1)));
    assert!(view.total_len() <= 1280, "RFC 4443 section 2.4 (c)");
    assert_eq!(inner(answer).len(), view.total_len());
    let icmp = view.payload();
    assert_eq!((view.next_header(), icmp[0], icmp[1]), (protocol::ICMPV6, kind, code));
    assert_eq!(icmp[4..8], word.to_be_bytes());
    assert_eq!(icmp[8..], invoking[..invoking.len().min(1280 - 48)], "as much of the packet as fits, as it was");
    assert!(checksum::upper_layer_verifies(view.source(), view.target(), protocol::ICMPV6, icmp));
}

/// A packet of exactly `octets` from host 1 to host 2.
fn sized(bench: &Bench, octets: usize) -> Vec<u8> {
    bench.host_frame(1, 2, protocol::UDP, &udp(Side::A.ulid(1), Side::B.ulid(2), octets - 48))
}

// R5533-309
#[test]
fn what_does_not_fit_with_the_header_is_answered_with_the_mtu_to_use() {
    let mut bench = Bench::new(Side::A);
    bench.open_alone(1, 2, X);
    for octets in [1280, 1491, 1492] {
        bench.send(LAN, &sized(&bench, octets));
        bench.run();
        let (port, sent) = bench.only();
        assert_eq!((port, inner(&sent).len()), (X, octets + 8));
    }
    for octets in 1493..=1500 {
        let sent = sized(&bench, octets);
        bench.send(LAN, &sent);
        bench.run();
        let (port, answer) = bench.only();
        assert_eq!(port, LAN);
        check_error(&answer, (2, 0, 1492), inner(&sent));
    }
    assert_eq!((bench.dropped(DropReason::TooBig), bench.count(Count::PacketTooBigSent)), (8, 8));
    assert_eq!(bench.drops(), 8);
}

// R5533-331
#[test]
fn the_mtu_told_is_never_below_what_every_link_carries() {
    let mut bench = Bench::new(Side::A);
    let mut snapshot = Side::A.snapshot();
    snapshot.ports[1].mtu = 1280;
    bench.control.publish(&Arc::new(snapshot));
    bench.open_alone(1, 2, X);
    let sent = sized(&bench, 1400);
    bench.send(LAN, &sent);
    bench.run();
    check_error(&bench.only().1, (2, 0, 1280), inner(&sent));
}

#[test]
fn the_lan_may_carry_less_than_the_provider() {
    let mut bench = Bench::new(Side::A);
    let mut snapshot = Side::A.snapshot();
    snapshot.ports[0].mtu = 1400;
    bench.control.publish(&Arc::new(snapshot));
    let tag = bench.open_alone(1, 2, X).local_tag;
    bench.run();
    bench.send(X, &tagged(&bench, 1, tag, &vec![0; 1400 - 40]));
    bench.run();
    assert_eq!((bench.only().0, bench.drops()), (LAN, 0));
    bench.send(X, &tagged(&bench, 1, tag, &vec![0; 1400 - 39]));
    bench.run();
    let (port, answer) = bench.only();
    // The peer's box takes eight off again, so its host hears 1400.
    assert_eq!((port, &view(&answer).payload()[..8][4..]), (X, &1408u32.to_be_bytes()[..]));
}

#[test]
fn the_last_hop_is_answered_and_not_crossed() {
    let mut bench = Bench::new(Side::A);
    let tag = bench.open_alone(1, 2, X).local_tag;
    for hop_limit in [0, 1] {
        let mut sent = numbered(&bench, 0);
        sent[14 + 7] = hop_limit;
        bench.send(LAN, &sent);
        bench.run();
        check_error(&bench.only().1, (3, 0, 0), inner(&sent));
        let mut back = tagged(&bench, 1, tag, &[0; 20]);
        back[14 + 7] = hop_limit;
        bench.send(X, &back);
        bench.run();
        let (port, answer) = bench.only();
        assert_eq!((port, view(&answer).target(), view(&answer).payload()[0]), (X, Side::B.locator(2, X), 3));
        assert_eq!(view(&answer).payload()[8..], *inner(&back), "the packet as it came");
    }
    let mut sent = numbered(&bench, 0);
    sent[14 + 7] = 2;
    bench.send(LAN, &sent);
    bench.run();
    assert_eq!(view(&bench.only().1).hop_limit(), 1);
}

/// RFC 4443 §2.4 (e).
#[test]
fn some_packets_are_never_answered() {
    let mut bench = Bench::new(Side::A);
    bench.open_alone(1, 2, X);
    // The first octet of an ICMPv6 message is its type: errors are below 128, 137 is a redirect.
    let error = bench.host_frame(1, 2, protocol::ICMPV6, &[1; 1460]);
    let redirect = bench.host_frame(1, 2, protocol::ICMPV6, &[137; 1460]);
    let later_fragment =
        bench.host_frame(1, 2, protocol::FRAGMENT, &[&[protocol::ICMPV6, 0, 5, 1], &[0; 1456][..]].concat());
    let group = "ff0e::1".parse().unwrap();
    let to_many =
        frame(Mac::for_multicast(group), Side::A.host_mac(1), &packet(Side::A.ulid(1), group, 59, &[0; 1460]));
    for silent in [error, redirect, later_fragment, to_many] {
        bench.send(LAN, &silent);
    }
    bench.run();
    assert_eq!(bench.sent(LAN).len(), 0);
    assert_eq!((bench.dropped(DropReason::TooBig), bench.count(Count::IcmpSuppressed)), (3, 3));
    // An echo request is no error, and a later fragment of UDP hides none.
    let fragment = [&[protocol::UDP, 0, 5, 1], &[0; 1456][..]].concat();
    for answered in
        [bench.host_frame(1, 2, protocol::ICMPV6, &[128; 1460]), bench.host_frame(1, 2, protocol::FRAGMENT, &fragment)]
    {
        bench.send(LAN, &answered);
        bench.run();
        check_error(&bench.only().1, (2, 0, 1492), inner(&answered));
    }
}

#[test]
fn errors_keep_to_their_rate() {
    let mut bench = limited(Limits { icmp_per_second: 80, ..Limits::default() });
    bench.open_alone(1, 2, X);
    let answered = |bench: &mut Bench, count: usize| {
        (0..count).for_each(|_| bench.send(LAN, &sized(bench, 1500)));
        bench.run();
        bench.sent(LAN).len()
    };
    assert_eq!(answered(&mut bench, 50), 10, "a burst of an eighth of a second");
    bench.now += 100;
    assert_eq!(answered(&mut bench, 50), 8, "and then the rate");
    assert_eq!(bench.count(Count::IcmpSuppressed), 82);
    assert_eq!(bench.dropped(DropReason::TooBig), 100, "each packet is dropped for its reason all the same");
}

#[test]
fn link_padding_is_cut_off() {
    let mut bench = Bench::new(Side::A);
    let tag = bench.open_alone(1, 2, X).local_tag;
    let short = bench.host_frame(1, 2, protocol::UDP, &[7; 4]);
    bench.send(LAN, &[&short[..], &[0xee; 6]].concat());
    bench.run();
    let (_, sent) = bench.only();
    assert_eq!(inner(&sent).len(), 44 + 8);
    let back = tagged(&bench, 1, tag, &[7; 1]);
    bench.send(X, &[&back[..], &[0xee; 20]].concat());
    bench.run();
    assert_eq!((inner(&bench.only().1).len(), view(&back).total_len()), (41, 49));
}

#[test]
fn hosts_of_the_site_reach_each_other() {
    let mut bench = Bench::new(Side::A);
    let between = packet(Side::A.ulid(1), Side::A.ulid(3), protocol::UDP, &[0; 20]);
    bench.send(LAN, &frame(Side::A.mac(LAN), Side::A.host_mac(1), &between));
    bench.run();
    let (port, sent) = bench.only();
    assert_eq!((port, &sent[..6], view(&sent).hop_limit()), (LAN, &Side::A.host_mac(3).0[..], 63));
    assert_eq!((&inner(&sent)[8..], bench.count(Count::ForwardedInside)), (&between[8..], 1));
}

// ---- telling control ----

#[test]
fn activity_is_told_once_with_the_last_direction() {
    let mut bench = Bench::new(Side::A);
    let install = bench.open_alone(1, 2, X);
    bench.run();
    let out = numbered(&bench, 1);
    let back = tagged(&bench, 1, install.local_tag, &[2; 30]);
    let told = |bench: &mut Bench| {
        bench.wait(50);
        let seen = bench.take_seen();
        assert!(seen.len() <= 1, "one digest per context and report: {seen:?}");
        seen.into_iter().next().map(|seen| match seen {
            Seen::Activity(handle, activity, traffic) if handle == install.handle => (activity, traffic),
            other => panic!("{other:?}"),
        })
    };
    let send = |bench: &mut Bench, frame: &[u8]| {
        bench.send(if frame == out { LAN } else { X }, frame);
        bench.run();
    };
    assert_eq!(told(&mut bench), None, "nothing happened, nothing is told");
    send(&mut bench, &out);
    let (activity, [sent, received]) = told(&mut bench).unwrap();
    assert_eq!((activity.received, activity.sent, activity.last), (false, true, Direction::Out));
    assert_eq!((sent.packets, sent.octets, received.packets), (1, 80, 0));
    for _ in 0..3 {
        send(&mut bench, &out);
        send(&mut bench, &back);
    }
    let (activity, [sent, received]) = told(&mut bench).unwrap();
    assert_eq!((activity.received, activity.sent, activity.last), (true, true, Direction::In));
    assert_eq!((sent.packets, received.packets, received.octets), (4, 3, 210));
    send(&mut bench, &back);
    send(&mut bench, &out);
    let both = told(&mut bench).unwrap().0;
    assert_eq!((both.received, both.sent, both.last), (true, true, Direction::Out));
    send(&mut bench, &back);
    let last = told(&mut bench).unwrap().0;
    assert_eq!((last.received, last.sent, last.last), (true, false, Direction::In));
    assert_eq!(told(&mut bench), None);
}

#[test]
fn a_packet_that_was_not_sent_is_no_activity() {
    let mut bench = Bench::new(Side::A);
    bench.open_alone(1, 2, X);
    bench.send(LAN, &sized(&bench, 1500));
    bench.wait(50);
    assert_eq!(bench.take_seen(), []);
}

#[test]
fn activity_waits_for_room_in_the_ring_and_is_not_lost() {
    let mut bench = Setup { rings: RingSizes { events: 2, ..RingSizes::default() }, ..Setup::default() }.build();
    for peer in 0..10 {
        bench.open_alone(1, peer, X);
        bench.send(LAN, &bench.host_frame(1, peer, protocol::UDP, &[0; 20]));
    }
    for turn in 0..100 {
        bench.workers[0].turn(turn * 20);
        if turn % 5 == 0 {
            bench.poll();
        }
    }
    let mut told: Vec<u64> = bench
        .take_seen()
        .into_iter()
        .filter_map(|seen| if let Seen::Activity(handle, ..) = seen { Some(handle) } else { None })
        .collect();
    told.sort_unstable();
    let expected: Vec<u64> = (0..10).map(|peer| bench.context(1, peer, X).handle).collect();
    assert_eq!((told, bench.drops()), (expected, 0));
}

#[test]
fn each_kind_of_packet_for_control_has_its_own_rate() {
    let mut bench = limited(Limits { punts_per_second: 80, ..Limits::default() });
    let group = "ff02::1".parse().unwrap();
    let to_all =
        frame(Mac::for_multicast(group), Side::A.host_mac(1), &packet(Side::A.ulid(1), group, protocol::UDP, &[0; 9]));
    let arriving = |next_header, payload: &[u8]| {
        bench.provider_frame(X, &packet(Side::B.locator(2, X), Side::A.locator(1, X), next_header, payload))
    };
    let kinds = [
        (LAN, to_all),
        (X, arriving(protocol::SHIM6, &[59, 1, 1, 0, 0, 0, 0, 0])),
        (X, arriving(protocol::ICMPV6, &[1, 0, 0, 0])),
        (X, arriving(protocol::SHIM6, &[59, 0, 0x80, 0, 0, 0, 0, 9])),
    ];
    for (port, frame) in &kinds {
        (0..30).for_each(|_| bench.send(*port, frame));
        bench.run();
        assert_eq!(bench.take_seen().len(), 10, "a flood of one kind leaves the others alone");
    }
    assert_eq!(bench.dropped(DropReason::ControlRate), 3 * 20);
    // An unknown tag is its own reason whether or not control hears of it.
    assert_eq!(bench.dropped(DropReason::UnknownTag), 30);
}

#[test]
fn commands_that_find_no_room_wait_in_order() {
    let mut bench = Setup { rings: RingSizes { commands: 2, ..RingSizes::default() }, ..Setup::default() }.build();
    let mut last = None;
    for peer in 0..50 {
        last = Some(bench.open_alone(1, peer, if peer == 49 { X } else { Y }));
    }
    bench.control.remove(0, last.as_ref().unwrap().local_tag);
    bench.install(last.unwrap());
    assert!(bench.control.backlog() > 40);
    bench.run();
    assert_eq!((bench.control.backlog(), bench.count(Count::Contexts)), (0, 50));
    assert_eq!(bench.count(Count::CommandsApplied), 52);
    bench.send(LAN, &bench.host_frame(1, 49, protocol::UDP, &[0; 20]));
    bench.run();
    assert_eq!(bench.only().0, X);
}

#[test]
fn a_replaced_snapshot_goes_back_to_be_freed() {
    let mut bench = Bench::new(Side::A);
    let old = std::mem::replace(&mut bench.snapshot, Arc::new(Side::A.snapshot()));
    assert_eq!(Arc::strong_count(&old), 2);
    let new = bench.snapshot.clone();
    bench.control.publish(&new);
    bench.workers[0].turn(0);
    assert_eq!(Arc::strong_count(&old), 2, "the worker does not free it, it gives it back");
    bench.poll();
    assert_eq!((Arc::strong_count(&old), Arc::strong_count(&new)), (1, 3));
}

#[test]
fn a_snapshot_keeps_its_place_among_commands() {
    let mut bench = Bench::new(Side::A);
    let mut snapshot = Side::A.snapshot();
    snapshot.providers[0].mac = Some(Mac([2, 7, 7, 7, 7, 7]));
    bench.send(LAN, &numbered(&bench, 0));
    bench.run();
    bench.control.publish(&Arc::new(snapshot));
    bench.open_alone(1, 2, X);
    bench.run();
    assert_eq!(bench.only().1[..6], [2, 7, 7, 7, 7, 7], "what is released finds the snapshot sent before");
}

#[test]
fn control_sends_frames_of_its_own() {
    let mut bench = Setup { workers: 2, ..Setup::default() }.build();
    for port in [LAN, X, Y] {
        assert!(bench.control.transmit(port, &[port.0; 64]));
    }
    bench.run();
    for port in [LAN, X, Y] {
        assert_eq!(bench.sent(port), [vec![port.0; 64]]);
    }
}

#[test]
fn a_removed_context_is_gone_in_both_directions() {
    let mut bench = Bench::new(Side::A);
    let install = bench.open_alone(1, 2, X);
    bench.run();
    bench.control.remove(0, install.local_tag);
    bench.run();
    bench.send(LAN, &numbered(&bench, 0));
    bench.send(X, &tagged(&bench, 1, install.local_tag, &[0; 20]));
    bench.run();
    let seen = bench.take_seen();
    assert_eq!(seen, [Seen::UnknownPair(pair(1, 2)), Seen::UnknownTag(install.local_tag, install.locators, None)]);
    assert_eq!(bench.sent(LAN).len() + bench.sent(X).len(), 0);
}

/// A TCP segment of a host, with these flags and a number to tell it by.
fn segment(bench: &Bench, flags: u8, number: u8) -> Vec<u8> {
    let mut tcp = [0; 24];
    (tcp[12], tcp[13], tcp[23]) = (5 << 4, flags, number);
    bench.host_frame(1, 2, protocol::TCP, &tcp)
}

const ACK: u8 = 0x10;
const RST: u8 = 0x04;

#[test]
fn a_context_from_which_nothing_comes_back_keeps_its_last_segment_for_a_new_path() {
    let mut bench = Bench::new(Side::A);
    let install = bench.open_alone(1, 2, X);
    let (tag, old) = (install.local_tag, install.clone());
    let send = |bench: &mut Bench, flags, number| {
        bench.wait(200);
        bench.send(LAN, &segment(bench, flags, number));
        bench.run();
        bench.sent(X).len()
    };
    // The first silent report casts doubt; a reset would end a connection, so it is never kept.
    for (flags, number) in [(ACK, 1), (ACK, 2), (ACK, 3), (RST, 4)] {
        assert_eq!(send(&mut bench, flags, number), 1);
    }
    bench.install(Install {
        locators: LocatorPair { local: Locator(Side::A.locator(1, Y)), ..old.locators },
        provider: 1,
        ..old
    });
    bench.control.replay(0, tag);
    bench.run();
    let (port, again) = bench.only();
    assert_eq!((port, again.last()), (Y, Some(&3)), "the newest segment, over the new path");
    assert_eq!(bench.count(Count::Replayed), 1);

    // Something comes back: there is no doubt, and nothing to send again.
    let header = PayloadHeader { next_header: protocol::TCP, tag }.emit();
    let back = packet(Side::B.locator(2, X), Side::A.locator(1, Y), protocol::SHIM6, &[&header[..], &[0; 24]].concat());
    bench.send(Y, &bench.provider_frame(Y, &back));
    bench.run();
    assert_eq!(bench.sent(LAN).len(), 1);
    bench.control.replay(0, tag);
    bench.run();
    assert_eq!((bench.sent(Y).len(), bench.count(Count::Replayed)), (0, 1));
}

#[test]
fn what_tcp_shows_in_doubt_is_told_with_the_pair_it_was_sent_on() {
    let mut bench = Bench::new(Side::A);
    let install = bench.open_alone(1, 2, X);
    let signs = |bench: &mut Bench| -> Vec<(u64, Sign, LocatorPair)> {
        let seen = bench.take_seen().into_iter();
        seen.filter_map(|seen| if let Seen::Tcp(handle, sign, pair) = seen { Some((handle, sign, pair)) } else { None })
            .collect()
    };
    // As a TCP does: once, after 200 ms, after 400 more, after 800 more.
    let mut told = Vec::new();
    for wait in [100, 200, 400, 800] {
        bench.wait(wait);
        bench.send(LAN, &segment(&bench, ACK, 1));
        bench.run();
        told.push(signs(&mut bench).len());
    }
    assert_eq!(told, [0, 0, 1, 0], "the second attempt; the first was not seen in doubt");
    // An acknowledgement of the four octets.
    let mut tcp = [0; 20];
    (tcp[11], tcp[12], tcp[13]) = (4, 5 << 4, ACK);
    let header = PayloadHeader { next_header: protocol::TCP, tag: install.local_tag }.emit();
    let octets = [&header[..], &tcp].concat();
    let back = packet(Side::B.locator(2, X), Side::A.locator(1, X), protocol::SHIM6, &octets);
    bench.send(X, &bench.provider_frame(X, &back));
    bench.run();
    assert_eq!(signs(&mut bench), [(install.handle, Sign::Progress, install.locators)]);
    // There is no doubt any more, so nothing is looked at.
    bench.send(LAN, &segment(&bench, ACK, 1));
    bench.wait(1);
    assert_eq!(signs(&mut bench), []);
}
