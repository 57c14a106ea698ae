//! Translated sessions whose pair has got a context: NATv6 inside, Shim6 outside.

mod common;

use std::net::Ipv6Addr;

use common::{
    Bench, LAN, Seen, Setup, Side, X, Y, a_hop_on, datagram, error_about, frame, inner, packet, stranger, tcp, view,
};
use dataplane::context::{Activity, Direction, Install, Phase, Sharding};
use dataplane::counters::{Count, DropReason};
use dataplane::link::Workers;
use dataplane::snapshot::{Classes, PortId, Thresholds};
use dataplane::wire::icmpv6::{Error, unreachable};
use dataplane::wire::ipv6::protocol;
use dataplane::wire::shim6::{PayloadHeader, payload};
use dataplane::wire::{ContextTag, Locator, LocatorPair, Ulid, UlidPair, checksum, ipv6};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn host(number: u16) -> Ipv6Addr {
    Side::A.ulid(number)
}

fn outside(number: u16, provider: PortId) -> Ipv6Addr {
    Side::A.locator(number, provider)
}

/// The peer's second locator.
fn elsewhere() -> Ipv6Addr {
    "2a03:2880::35".parse().unwrap()
}

/// The context of host `number`, known at X, with the first stranger. It uses Y and the peer's second locator.
fn context(bench: &Bench, number: u16) -> Install {
    let ulids = UlidPair { local: Ulid(outside(number, X)), peer: Ulid(stranger(0)) };
    let mut install = Install {
        handle: 700 + u64::from(number),
        ulids,
        default: true,
        classes: Classes::NONE,
        local_tag: ContextTag::truncate(0),
        peer_tag: ContextTag::truncate(0x1234_5678_9abc),
        locators: LocatorPair { local: Locator(outside(number, Y)), peer: Locator(elsewhere()) },
        provider: 1,
        path: Default::default(),
        standby: None,
        host: number.into(),
        inside: Some(Ulid(host(number))),
        local_label: None,
        peer_label: None,
        narrow: false,
        udp: Default::default(),
        phase: Phase::Live,
        accepted: None,
    };
    assert_eq!(install.steering(), bench.snapshot.steering(ulids), "both sides of the ring agree on the owner");
    let owner = u64::from(bench.sharding.owner_of_pair(&install.steering()));
    install.local_tag = ContextTag::truncate(owner << Sharding::WORKER_SHIFT | 7 << 30 | u64::from(number));
    install
}

fn install(bench: &mut Bench, install: &Install) {
    let owner = bench.sharding.owner_of_pair(&install.steering());
    bench.control.install(owner.into(), install.clone());
    bench.run();
}

/// A box with the context of host 1.
fn shimmed() -> (Bench, Install) {
    let mut bench = Bench::translating();
    let live = context(&bench, 1);
    install(&mut bench, &live);
    (bench, live)
}

/// A packet of the peer's for a context.
fn tagged(install: &Install, plain: &[u8]) -> Vec<u8> {
    let mut packet = [&[0; PayloadHeader::LEN], plain].concat();
    let place = ipv6::View::new(plain).unwrap().shim_insertion().unwrap().place;
    payload::insert(&mut packet, place, install.local_tag).unwrap();
    packet[8..24].copy_from_slice(&install.locators.peer.0.octets());
    packet[24..40].copy_from_slice(&install.locators.local.0.octets());
    packet
}

/// What the peer's shim makes of a packet that left for it.
fn restored(install: &Install, left: &[u8]) -> Vec<u8> {
    let (packet, outer) = (inner(left), view(left));
    assert_eq!((outer.source(), outer.target()), (install.locators.local.0, install.locators.peer.0));
    let place = outer.shim_header().unwrap().unwrap().place;
    assert_eq!(PayloadHeader::parse(outer.from_offset(place.offset)).unwrap().tag, install.peer_tag);
    let mut packet = packet.to_vec();
    payload::remove(&mut packet, place).unwrap();
    packet.drain(..PayloadHeader::LEN);
    packet[8..24].copy_from_slice(&install.ulids.local.0.octets());
    packet[24..40].copy_from_slice(&install.ulids.peer.0.octets());
    packet
}

#[test]
fn a_session_goes_on_through_the_context_with_the_address_the_peer_knows() {
    for workers in [1, 4] {
        let mut bench = Setup { workers, ..Setup::default() }.build_with(Side::A.translating());
        for number in 1..9 {
            bench.host_sends(number, &tcp(host(number), stranger(0), [9, 443], SYN, 0));
            let live = context(&bench, number);
            install(&mut bench, &live);
            for sent in [
                |source, target| tcp(source, target, [9, 443], ACK, 700),
                |source, target| datagram(source, target, [9, 53], 30),
                |source, target| packet(source, target, protocol::ESP, &[5; 60]),
            ] as [fn(Ipv6Addr, Ipv6Addr) -> Vec<u8>; 3]
            {
                let (port, left) = bench.host_sends(number, &sent(host(number), stranger(0)));
                assert_eq!(port, Y);
                assert_eq!(restored(&live, &left), a_hop_on(&sent(outside(number, X), stranger(0))));
                let (port, left) = bench.provider_sends(Y, &tagged(&live, &sent(stranger(0), outside(number, X))));
                assert_eq!((port, inner(&left)), (LAN, &a_hop_on(&sent(stranger(0), host(number)))[..]));
                assert_eq!(left[..6], Side::A.host_mac(number).0);
            }
        }
        assert_eq!((bench.count(Count::TranslatedOut), bench.count(Count::TranslatedIn)), (24, 24));
        assert_eq!((bench.count(Count::NatOut), bench.drops()), (32, 0));
        bench.workers.iter().for_each(|worker| worker.shard().selfcheck());
    }
}

// RCM-010
#[test]
fn what_was_translated_otherwise_stays_so() {
    let (mut bench, live) = shimmed();
    // A session the peer began with the address at Y knows nothing of the context.
    bench.provider_sends(Y, &tcp(stranger(0), outside(1, Y), [9, 22], SYN, 0));
    let (port, left) = bench.host_sends(1, &tcp(host(1), stranger(0), [22, 9], ACK, 0));
    assert_eq!((port, inner(&left)), (Y, &a_hop_on(&tcp(outside(1, Y), stranger(0), [22, 9], ACK, 0))[..]));
    // Another peer, and another host with the same peer, neither.
    assert_eq!(bench.host_sends(1, &tcp(host(1), stranger(1), [9, 443], ACK, 0)).0, X);
    assert_eq!(bench.host_sends(2, &tcp(host(2), stranger(0), [9, 443], ACK, 0)).0, X);
    assert_eq!(bench.count(Count::TranslatedOut), 0);
    // When the context is gone, its sessions go on plainly.
    assert_eq!(bench.host_sends(1, &tcp(host(1), stranger(0), [9, 443], ACK, 0)).0, Y);
    bench.control.remove(0, live.local_tag);
    bench.run();
    let (port, left) = bench.host_sends(1, &tcp(host(1), stranger(0), [9, 443], ACK, 0));
    assert_eq!((port, inner(&left)), (X, &a_hop_on(&tcp(outside(1, X), stranger(0), [9, 443], ACK, 0))[..]));
    bench.workers[0].shard().selfcheck();
}

// RCM-015: that is what the context is for.
#[test]
fn a_context_carries_its_session_when_the_provider_it_began_with_is_down() {
    let (mut bench, live) = shimmed();
    bench.host_sends(1, &tcp(host(1), stranger(0), [9, 443], ACK, 0));
    bench.translate(|nat| nat.order = vec![1]);
    let (port, left) = bench.host_sends(1, &tcp(host(1), stranger(0), [9, 443], ACK, 0));
    assert_eq!((port, restored(&live, &left)), (Y, a_hop_on(&tcp(outside(1, X), stranger(0), [9, 443], ACK, 0))));
    // What begins now begins elsewhere.
    let (port, left) = bench.host_sends(1, &tcp(host(1), stranger(0), [10, 443], SYN, 0));
    assert_eq!((port, view(&left).source(), view(&left).next_header()), (Y, outside(1, Y), protocol::TCP));
}

// R5533-001, R5533-280: the exchange goes on beside the session, which never waits for it.
#[test]
fn until_the_context_is_live_and_while_it_needs_no_header_packets_go_plainly() {
    let mut bench = Bench::translating();
    let live = context(&bench, 1);
    let sent = tcp(host(1), stranger(0), [9, 443], ACK, 100);
    let expected = a_hop_on(&tcp(outside(1, X), stranger(0), [9, 443], ACK, 100));
    for phase in [Phase::Opening, Phase::Answering] {
        install(&mut bench, &Install { phase, ..live.clone() });
        let (port, left) = bench.host_sends(1, &sent);
        assert_eq!((port, inner(&left)), (X, &expected[..]));
    }
    assert_eq!(bench.count(Count::PlainOut), 0);
    install(&mut bench, &Install { locators: live.ulids.as_locators(), provider: 0, ..live });
    let (port, left) = bench.host_sends(1, &sent);
    assert_eq!((port, inner(&left), bench.count(Count::PlainOut)), (X, &expected[..], 1));
}

// R5533-247, R5533-288
#[test]
fn plain_packets_of_the_pair_are_traffic_of_the_context() {
    let (mut bench, live) = shimmed();
    bench.translate(|nat| nat.thresholds = Thresholds { packets: Some(1), octets: None, age_ms: None, again_ms: 0 });
    bench.wait(100);
    let plain = tcp(stranger(0), outside(1, X), [443, 9], ACK, 0);
    let (port, left) = bench.provider_sends(X, &plain);
    assert_eq!((port, inner(&left)), (LAN, &a_hop_on(&tcp(stranger(0), host(1), [443, 9], ACK, 0))[..]));
    bench.wait(100);
    let seen = bench.take_seen();
    let heard = Activity {
        received: true,
        sent: false,
        last: Direction::In,
        labelled_in: false,
        labelled_out: false,
        arrived: None,
    };
    let [Seen::Activity(handle, activity, [out, into])] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((*handle, *activity, out.packets), (live.handle, heard, 0));
    assert_eq!((into.packets, into.octets), (1, plain.len() as u64));
    // What has a context does not ask for one.
    bench.host_sends(1, &tcp(host(1), stranger(0), [9, 443], ACK, 0));
    bench.provider_sends(X, &plain);
    assert_eq!(bench.count(Count::NatQualified), 0);
}

#[test]
fn a_packet_too_big_for_the_context_is_quoted_as_the_host_sent_it() {
    let (mut bench, _) = shimmed();
    let sent = tcp(host(1), stranger(0), [9, 443], ACK, 1433);
    let (port, left) = bench.host_sends(1, &sent);
    assert_eq!((port, &inner(&left)[40..42], &inner(&left)[46..48]), (LAN, &[2, 0][..], &1492u16.to_be_bytes()[..]));
    assert_eq!(inner(&left)[48..], sent[..1232]);
    assert_eq!(bench.host_sends(1, &tcp(host(1), stranger(0), [9, 443], ACK, 1432)).0, Y);
}

// R6296-043 with a context on the way.
#[test]
fn errors_within_the_context_quote_what_each_side_knows() {
    let (mut bench, live) = shimmed();
    let closed = Error::DestinationUnreachable { code: unreachable::PORT };
    bench.provider_sends(Y, &tagged(&live, &datagram(stranger(0), outside(1, X), [7, 99], 20)));
    let refused = error_about(host(1), stranger(0), closed, &datagram(stranger(0), host(1), [7, 99], 20));
    let (_, left) = bench.host_sends(1, &refused);
    let known = error_about(outside(1, X), stranger(0), closed, &datagram(stranger(0), outside(1, X), [7, 99], 20));
    assert_eq!(restored(&live, &left), a_hop_on(&known));
    // From a router inside, in the host's name: a context carries nothing else.
    let router = error_about(host(5000), stranger(0), closed, &datagram(stranger(0), host(1), [7, 99], 20));
    let (_, left) = bench.host_sends(9, &router);
    assert_eq!(restored(&live, &left), a_hop_on(&known));
    // The peer's error about a packet of ours.
    let sent = |source| datagram(source, stranger(0), [9, 53], 20);
    let complaint = error_about(stranger(0), outside(1, X), closed, &sent(outside(1, X)));
    let (_, left) = bench.provider_sends(Y, &tagged(&live, &complaint));
    assert_eq!(inner(&left), a_hop_on(&error_about(stranger(0), host(1), closed, &sent(host(1)))));
    assert_eq!(bench.drops(), 0);
}

#[test]
fn nobody_inside_sends_from_an_address_only_peers_know() {
    let (mut bench, _) = shimmed();
    let forged = tcp(outside(1, X), stranger(0), [9, 443], ACK, 0);
    bench.send(LAN, &frame(Side::A.mac(LAN), Side::A.host_mac(1), &forged));
    bench.run();
    assert_eq!((bench.dropped(DropReason::SpoofedSource), bench.sent(Y).len()), (1, 0));
}

#[test]
fn the_last_segment_is_kept_and_sent_over_a_new_path() {
    let (mut bench, live) = shimmed();
    for number in 0..3 {
        bench.wait(200);
        bench.host_sends(1, &tcp(host(1), stranger(0), [9, 443], ACK, number));
    }
    let moved = Install {
        locators: LocatorPair { local: Locator(outside(1, X)), peer: Locator(stranger(0)) },
        provider: 0,
        ..live.clone()
    };
    install(&mut bench, &moved);
    bench.control.replay(0, live.local_tag);
    bench.run();
    let (port, left) = bench.only();
    assert_eq!((port, inner(&left)), (X, &a_hop_on(&tcp(outside(1, X), stranger(0), [9, 443], ACK, 2))[..]));
    // Something comes back, even plainly: there is nothing to repeat.
    bench.provider_sends(X, &tcp(stranger(0), outside(1, X), [443, 9], ACK, 0));
    bench.control.replay(0, live.local_tag);
    bench.run();
    assert!(bench.sent(X).is_empty());
}

// What has to be cut for the header is cut first: each part is translated, and is known by the number of the whole.
#[test]
fn packets_cut_for_a_narrow_path_keep_their_checksum() {
    let mut bench = Bench::translating();
    let narrow = Install { narrow: true, ..context(&bench, 1) };
    install(&mut bench, &narrow);
    let sent = |source| datagram(source, stranger(0), [9, 53], 1280 - 48);
    bench.send(LAN, &frame(Side::A.mac(LAN), Side::A.host_mac(1), &sent(host(1))));
    bench.run();
    let parts: Vec<Vec<u8>> = bench.sent(Y).iter().map(|left| restored(&narrow, left)).collect();
    assert_eq!((parts.len(), bench.drops()), (2, 0));
    assert!(parts.iter().all(|part| part.len() <= 1272 && part[6] == protocol::FRAGMENT));
    let whole: Vec<u8> = parts.iter().flat_map(|part| part[48..].to_vec()).collect();
    assert_eq!(whole, sent(outside(1, X))[40..]);
}

// RFC 4443 §2.4 (c): an error has room for as much of the packet as the path has. Parts of one would be nobody's.
#[test]
fn errors_that_do_not_fit_a_narrow_path_quote_less() {
    let mut bench = Bench::translating();
    let narrow = Install { narrow: true, ..context(&bench, 1) };
    install(&mut bench, &narrow);
    let small = Error::PacketTooBig { mtu: 1400 };
    let about = |target| datagram(stranger(0), target, [7, 99], 1400);
    for (number, source) in [(9, host(5000)), (1, host(1))] {
        let complaint = error_about(source, stranger(0), small, &about(host(1)));
        assert_eq!(complaint.len(), 1280);
        let (port, left) = bench.host_sends(number, &complaint);
        let got = restored(&narrow, &left);
        let whole = error_about(outside(1, X), stranger(0), small, &about(outside(1, X)));
        assert_eq!((port, got.len()), (Y, 1272));
        assert_eq!((&got[..4], &got[44..]), (&whole[..4], &whole[44..1272]));
        let packet = ipv6::View::new(&got).unwrap();
        let ok = checksum::upper_layer_verifies(packet.source(), packet.target(), protocol::ICMPV6, packet.payload());
        assert!(ok, "{source}");
    }
    assert_eq!((bench.drops(), bench.count(Count::Fragmented)), (0, 0));
}
