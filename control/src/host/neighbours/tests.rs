//! Neighbour discovery between boxes on a wire that is a slice of octets.

use smoltcp::wire::{EthernetAddress, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress};

use super::message::frame;
use super::*;

const PORT: PortId = PortId(0);

fn link(last: u8) -> OwnLink {
    let own = vec![
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()),
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last.into()),
    ];
    OwnLink { mac: Mac([2, 0, 0, 0, 0, last]), own }
}

fn packets(events: &[LinkEvent]) -> Vec<&[u8]> {
    let sent = events.iter().filter_map(|event| match event {
        LinkEvent::Send(_, frame) => Some(&frame[ethernet::HEADER_LEN..]),
        _ => None,
    });
    sent.collect()
}

/// Two boxes on one wire find each other, keep each other, and notice when the other is gone.
#[test]
fn two_ends_resolve_each_other_and_notice_silence() {
    let (mut a, mut b) = (Neighbours::new(vec![link(1)]), Neighbours::new(vec![link(2)]));
    let peer = link(2).own[0];
    let mut out = Vec::new();
    a.send(Instant::START, (PORT, peer), Kind::Configured, vec![0; 60], &mut out);
    let asked = std::mem::take(&mut out);
    let [solicitation] = packets(&asked)[..] else { panic!("{asked:?}") };
    assert!(b.receive(Instant::START, PORT, solicitation, &mut out));
    let answered = std::mem::take(&mut out);
    let [advert] = packets(&answered)[..] else { panic!("{answered:?}") };
    assert!(a.receive(Instant::START, PORT, advert, &mut out));
    let mac = link(2).mac;
    let mut waited = vec![0; 60];
    waited[..6].copy_from_slice(&mac.0);
    assert_eq!(out, [LinkEvent::Resolved(PORT, peer, mac), LinkEvent::Send(PORT, waited)]);

    // After the time an answer is believed: three unicast questions, then it is lost and forgotten.
    out.clear();
    let mut now = Instant::START + REACHABLE_TIME;
    for _ in 0..SOLICITATIONS_MAX {
        a.expire(now, &mut out);
        now = now + RETRANS_TIMER;
    }
    assert_eq!(packets(&out).len(), 3);
    assert!(packets(&out).iter().all(|packet| packet[24..40] == peer.octets()), "unicast, as it is known");
    out.clear();
    a.expire(now, &mut out);
    assert_eq!(out, [LinkEvent::Lost(PORT, peer)]);
    assert_eq!(a.deadline(), None, "nobody wants it, nothing remembers it");
}

#[test]
fn what_is_due_at_one_time_is_asked_in_one_order() {
    let mut us = Neighbours::new(vec![link(1)]);
    let address = |last: u16| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last);
    for last in (100..120).rev() {
        us.want(Instant::START, PORT, address(last));
    }
    let mut out = Vec::new();
    us.expire(Instant::START + RETRANS_TIMER, &mut out);
    let asked: Vec<&[u8]> = packets(&out).iter().map(|packet| &packet[48..64]).collect();
    assert_eq!(asked, (100..120).map(|last| address(last).octets()).collect::<Vec<_>>());
}

/// One neighbour that is wanted and known since `Instant::START`.
fn known() -> (Neighbours, Ipv6Addr) {
    let (mut us, peer) = (Neighbours::new(vec![link(1)]), link(2).own[0]);
    us.want(Instant::START, PORT, peer);
    us.expire(Instant::START, &mut Vec::new());
    advertise(&mut us, Instant::START, NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE, Some(2));
    assert_eq!(us.mac(PORT, peer), Some(link(2).mac));
    (us, peer)
}

/// Link 2 advertises its first address, with the link-layer address of link `mac` or none.
fn advertise(us: &mut Neighbours, now: Instant, flags: NdiscNeighborFlags, mac: Option<u8>) -> Vec<LinkEvent> {
    advertise_for(us, now, link(2).own[0], flags, mac)
}

/// The same for any address.
fn advertise_for(
    us: &mut Neighbours,
    now: Instant,
    source: Ipv6Addr,
    flags: NdiscNeighborFlags,
    mac: Option<u8>,
) -> Vec<LinkEvent> {
    let lladdr = mac.map(|last| RawHardwareAddress::from(EthernetAddress(link(last).mac.0)));
    let target = link(1).own[0];
    let advert = NdiscRepr::NeighborAdvert { flags, target_addr: source, lladdr };
    let frame = frame(link(2).mac, link(1).mac, source, target, advert).unwrap();
    let mut out = Vec::new();
    assert!(us.receive(now, PORT, &frame[ethernet::HEADER_LEN..], &mut out));
    out
}

/// Lets time pass until it asks somebody; returns when.
fn next_question(us: &mut Neighbours) -> Instant {
    let mut out = Vec::new();
    while let Some(due) = us.deadline() {
        us.expire(due, &mut out);
        if !out.is_empty() {
            return due;
        }
    }
    panic!("nothing to ask");
}

/// Linux answers a unicast solicitation like this.
#[test]
fn an_answer_without_a_link_layer_address_confirms_the_known_one() {
    let (mut us, peer) = known();
    let mut now = Instant::START;
    for _ in 0..5 {
        now = next_question(&mut us);
        assert_eq!(advertise(&mut us, now, NdiscNeighborFlags::SOLICITED, None), []);
    }
    assert_eq!(now, Instant::START + 5 * REACHABLE_TIME);
    assert_eq!(us.mac(PORT, peer), Some(link(2).mac));
    // To somebody who knows no address it says nothing.
    let mut other = Neighbours::new(vec![link(1)]);
    other.want(now, PORT, peer);
    assert_eq!(advertise(&mut other, now, NdiscNeighborFlags::SOLICITED, None), []);
    assert_eq!(other.mac(PORT, peer), None);
}

/// RFC 4861 §7.3.1: only an answer shows that the neighbour hears us.
#[test]
fn hearing_a_neighbour_does_not_confirm_it() {
    let (mut us, peer) = known();
    let later = Instant::START + Duration::from_secs(20);
    assert_eq!(advertise(&mut us, later, NdiscNeighborFlags::OVERRIDE, Some(2)), []);
    let question = solicit(&link(2), link(1).own[0], Some(link(1).mac)).unwrap();
    assert!(us.receive(later, PORT, &question[ethernet::HEADER_LEN..], &mut Vec::new()));
    assert_eq!(next_question(&mut us), Instant::START + REACHABLE_TIME);
    // A new address is used at once and asked soon.
    let resolved = advertise(&mut us, later, NdiscNeighborFlags::OVERRIDE, Some(3));
    assert_eq!(resolved, [LinkEvent::Resolved(PORT, peer, link(3).mac)]);
    assert_eq!(next_question(&mut us), later + DELAY_FIRST_PROBE);
}

#[test]
fn a_wanted_neighbour_that_went_silent_is_looked_for_at_once() {
    let (mut us, peer) = known();
    let mut out = Vec::new();
    let mut now = Instant::START + REACHABLE_TIME;
    for _ in 0..SOLICITATIONS_MAX {
        us.expire(now, &mut out);
        now = now + RETRANS_TIMER;
    }
    out.clear();
    us.expire(now, &mut out);
    assert_eq!(out.first(), Some(&LinkEvent::Lost(PORT, peer)));
    let [search] = packets(&out)[..] else { panic!("{out:?}") };
    assert_eq!(search[24], 0xff, "multicast, as it may have another link-layer address now");
    // What waits for it comes back when it is given up: one that found no room, then all others.
    out.clear();
    for number in 0..=WAITING_MAX {
        us.send(now, (PORT, peer), Kind::Configured, vec![number as u8; 60], &mut out);
    }
    assert_eq!(out, [LinkEvent::Undeliverable(PORT, vec![0; 60], GivenUp::Overtaken)]);
    out.clear();
    for _ in 0..SOLICITATIONS_MAX {
        now = now + RETRANS_TIMER;
        us.expire(now, &mut out);
    }
    out.retain(|event| !matches!(event, LinkEvent::Send(..)));
    let given_up = |number| LinkEvent::Undeliverable(PORT, vec![number as u8; 60], GivenUp::Unanswered);
    assert_eq!(out, (1..=WAITING_MAX).map(given_up).collect::<Vec<_>>());
    assert_eq!(us.deadline(), Some(now + SEARCH_AGAIN));
    // A packet does not wait for the end of the pause; the next one behind it asks nothing more.
    out.clear();
    now = now + Duration::from_millis(100);
    for _ in 0..2 {
        us.send(now, (PORT, peer), Kind::Configured, vec![0; 60], &mut out);
    }
    assert_eq!(packets(&out).len(), 1);
    assert_eq!(us.deadline(), Some(now + RETRANS_TIMER));
}

#[test]
fn a_unicast_probe_is_answered_as_a_router() {
    let mut a = Neighbours::new(vec![link(1)]);
    let (me, asker) = (link(1), link(2));
    let question = solicit(&asker, me.own[0], Some(me.mac)).unwrap();
    let mut out = Vec::new();
    assert!(a.receive(Instant::START, PORT, &question[ethernet::HEADER_LEN..], &mut out));
    let [answer] = packets(&out)[..] else { panic!("{out:?}") };
    assert_eq!((answer[40], answer[44] & 0xe0), (136, 0xe0), "router, solicited, override");
}

#[test]
fn what_did_not_start_on_this_link_is_ignored() {
    let mut a = Neighbours::new(vec![link(1)]);
    let mut question = solicit(&link(2), link(1).own[0], None).unwrap();
    question[ethernet::HEADER_LEN + 7] = 254;
    let mut out = Vec::new();
    assert!(a.receive(Instant::START, PORT, &question[ethernet::HEADER_LEN..], &mut out));
    assert!(out.is_empty());
}

#[test]
fn strangers_leave_no_trace() {
    let mut a = Neighbours::new(vec![link(1)]);
    let question = solicit(&link(2), link(1).own[0], None).unwrap();
    let mut out = Vec::new();
    a.receive(Instant::START, PORT, &question[ethernet::HEADER_LEN..], &mut out);
    assert!(a.links[0].1.get(link(2).own[0]).is_none());
}

fn stranger(number: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 1, 0, 0, 0).to_bits() | u128::from(number))
}

/// Echo requests from invented neighbours must not keep the box from finding its hosts.
#[test]
fn strangers_leave_room_for_routers_and_hosts() {
    let mut us = Neighbours::new(vec![link(1), link(3)]);
    let mut out = Vec::new();
    for number in 0..20_000 {
        us.send(Instant::START, (PORT, stranger(number)), Kind::Stranger, vec![0; 60], &mut out);
    }
    let refused = |event: &&LinkEvent| matches!(event, LinkEvent::Undeliverable(PORT, _, GivenUp::NoRoom));
    assert_eq!(out.iter().filter(refused).count(), 20_000 - STRANGERS_LOOKED_FOR_MAX);
    assert_eq!(packets(&out).len(), STRANGERS_LOOKED_FOR_MAX);
    // A stranger on another port, a router, and more hosts than there may be strangers.
    out.clear();
    us.send(Instant::START, (PortId(1), stranger(0)), Kind::Stranger, vec![0; 60], &mut out);
    us.want(Instant::START, PORT, link(2).own[0]);
    us.expire(Instant::START, &mut out);
    for number in 0..1000 {
        us.send(Instant::START, (PORT, stranger(100_000 + number)), Kind::Configured, vec![0; 60], &mut out);
    }
    assert_eq!((packets(&out).len(), out.len()), (1002, 1002));
    // Nobody remembers the strangers for longer than they are looked for.
    let mut now = Instant::START;
    for _ in 0..=SOLICITATIONS_MAX {
        now = now + RETRANS_TIMER;
        us.expire(now, &mut out);
    }
    assert!(us.links.iter().all(|(_, table)| table.strangers.is_empty()));
}

/// Every stranger says where it is: the box keeps a few of them, and none for longer than an answer is believed.
#[test]
fn strangers_that_answer_are_bounded_and_forgotten_too() {
    let mut us = Neighbours::new(vec![link(1)]);
    let mut out = Vec::new();
    let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
    for number in 0..1000 {
        us.send(Instant::START, (PORT, stranger(number)), Kind::Stranger, vec![0; 60], &mut out);
        advertise_for(&mut us, Instant::START, stranger(number), flags, Some(2));
        assert_eq!(us.mac(PORT, stranger(number)), Some(link(2).mac));
    }
    assert_eq!(us.links[0].1.strangers.len(), STRANGERS_MAX);
    // Who was told of one that had to make room hears of that, too.
    let lost: Vec<Ipv6Addr> = out
        .iter()
        .filter_map(|event| match event {
            LinkEvent::Lost(PORT, address) => Some(*address),
            _ => None,
        })
        .collect();
    assert_eq!(lost.len(), 1000 - STRANGERS_MAX);
    assert!(lost.iter().all(|address| us.mac(PORT, *address).is_none()));
    // One of them becomes a host.
    us.send(Instant::START, (PORT, stranger(999)), Kind::Configured, vec![0; 60], &mut out);
    assert_eq!(us.mac(PORT, stranger(999)), Some(link(2).mac));
    out.clear();
    us.expire(Instant::START + REACHABLE_TIME, &mut out);
    assert!(us.links[0].1.strangers.is_empty());
    assert_eq!(packets(&out).len(), 1, "only the host is asked whether it is still there");
    us.forget(PORT, stranger(999), &mut out);
    assert_eq!(us.mac(PORT, stranger(999)), None);
    // What waits for one that is forgotten is not sent, and somebody hears of it.
    us.send(Instant::START, (PORT, stranger(998)), Kind::Configured, vec![7; 60], &mut Vec::new());
    out.clear();
    us.forget(PORT, stranger(998), &mut out);
    assert_eq!(out, [LinkEvent::Undeliverable(PORT, vec![7; 60], GivenUp::Forgotten)]);
}

#[test]
fn who_must_not_have_an_address_is_neither_believed_nor_answered() {
    let (mut us, mut peer) = (Neighbours::new(vec![link(1)]), Neighbours::new(vec![link(2)]));
    let mut out = Vec::new();
    peer.send(Instant::START, (PORT, link(1).own[0]), Kind::Configured, vec![0; 60], &mut out);
    let [question] = &packets(&out)[..] else { panic!("{out:?}") };
    us.send(Instant::START, (PORT, link(2).own[0]), Kind::Configured, vec![0; 60], &mut Vec::new());
    for believed in [false, true] {
        let mut out = Vec::new();
        let believe = |address, mac| believed || (address, mac) != (link(2).own[0], link(2).mac);
        assert!(us.receive_if(Instant::START, PORT, question, &believe, &mut out));
        let disbelieved = [LinkEvent::Disbelieved(PORT, link(2).own[0], link(2).mac)];
        assert_eq!(out == disbelieved, !believed, "{out:?}");
        assert_eq!(us.mac(PORT, link(2).own[0]), believed.then_some(link(2).mac));
    }
}

#[test]
fn who_asks_without_saying_where_it_is_gets_its_answer_once_it_is_found() {
    let (mut us, peer) = (Neighbours::new(vec![link(1)]), link(2));
    let message = NdiscRepr::NeighborSolicit { target_addr: link(1).own[0], lladdr: None };
    let question = frame(peer.mac, link(1).mac, peer.own[0], link(1).own[0], message).unwrap();
    let mut out = Vec::new();
    assert!(us.receive(Instant::START, PORT, &question[ethernet::HEADER_LEN..], &mut out));
    let [search] = packets(&out)[..] else { panic!("{out:?}") };
    assert_eq!((search[40], &search[48..64]), (135, &peer.own[0].octets()[..]));
    let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
    let answers = advertise(&mut us, Instant::START, flags, Some(2));
    let [answer] = packets(&answers)[..] else { panic!("{answers:?}") };
    assert_eq!((answer[40], &answer[24..40]), (136, &peer.own[0].octets()[..]));
}

/// RFC 4861 §7.1.1 and §7.1.2.
#[test]
fn messages_that_fail_a_check_are_ignored() {
    let us = link(1);
    let (own, group) = (us.own[0], solicited_node(us.own[0]));
    let option = Some(RawHardwareAddress::from(EthernetAddress(link(2).mac.0)));
    let probe = |target, lladdr| {
        let message = NdiscRepr::NeighborSolicit { target_addr: own, lladdr };
        frame(link(2).mac, us.mac, Ipv6Addr::UNSPECIFIED, target, message).unwrap()[ethernet::HEADER_LEN..].to_vec()
    };
    let sent = |packet: &[u8]| {
        let (mut neighbours, mut out) = (Neighbours::new(vec![us.clone()]), Vec::new());
        assert!(neighbours.receive(Instant::START, PORT, packet, &mut out));
        out.len()
    };
    assert_eq!(sent(&probe(group, None)), 1, "a probe for duplicates is answered");
    assert_eq!(sent(&probe(own, None)), 0, "it goes to the solicited-node group");
    assert_eq!(sent(&probe(group, option)), 0, "it has no link-layer address option");
    let mut coded = solicit(&link(2), own, None).unwrap().split_off(ethernet::HEADER_LEN);
    assert_eq!(sent(&coded), 1);
    coded[41] = 1;
    // The code is part of the checksum.
    let sum = u16::from_be_bytes([coded[42], coded[43]]);
    coded[42..44].copy_from_slice(&(sum - 1).to_be_bytes());
    assert_eq!(sent(&coded), 0, "the code is zero");
}
