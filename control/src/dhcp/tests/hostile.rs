//! Floods, lies and broken messages.

use super::book::Refusal;
use super::*;
use crate::dhcp::relay::Hop;

fn hop(link: &str, peer: &str) -> Hop {
    Hop { count: 0, link: address(link), peer: address(peer), interface: Some(vec![1, 2, 3]) }
}

/// What a relay forwards.
fn forwarded(hops: &[Hop], message: Vec<u8>) -> Vec<u8> {
    hops.iter().rev().fold(message, |message, hop| {
        let mut octets = relay::wrap(std::slice::from_ref(hop), message);
        octets[0] = relay::FORWARD;
        octets
    })
}

#[test]
fn an_answer_goes_back_through_all_relays() {
    // §18.3.10, §19.3
    let mut bench = Bench::new(config());
    let relay_address = address("fc00:a:0:1::99");
    let hops = [
        Hop { count: 1, link: address("::"), peer: address("fe80::aa"), interface: None },
        hop("fc00:a:0:1::98", "fe80::5"),
    ];
    let message = say(Kind::Solicit, 1).rapid().na(1, &[]).done();
    let verdict = bench.receive(relay_address, &forwarded(&hops, message));
    assert_eq!(verdict, Verdict::Writing(Kind::Solicit));
    let told = bench.written();
    let Some(Output::Send { target, payload, .. }) = told.last() else { panic!("{told:?}") };
    assert_eq!(*target, (relay_address, SERVER_PORT));
    // relay::unwrap reads what goes forward; what comes back differs in its type alone.
    let mut back = payload.clone();
    back[0] = relay::FORWARD;
    let inner = back.iter().rposition(|octet| *octet == relay::REPLY).unwrap();
    assert_eq!((payload[0], payload[1], inner > 34), (relay::REPLY, 1, true));
    back[inner] = relay::FORWARD;
    let (read, answer) = relay::unwrap(&back).unwrap();
    assert_eq!((&read[..], answer[0]), (&hops[..], message::REPLY));
    let lease = bench.server.book().get(&client(1)).unwrap();
    assert_eq!((lease.via, lease.relayed), (relay_address, true));
}

#[test]
fn a_relay_that_lies_is_told_apart() {
    let mut bench = Bench::new(Config { relays: vec![(address("fc00:a:0:1::90"), 124)], ..config() });
    let message = || say(Kind::Solicit, 1).na(1, &[]).done();
    let mut from = |source: &str, hops: &[Hop]| bench.receive(address(source), &forwarded(hops, message()));
    let good = hop("fc00:a:0:1::98", "fe80::5");
    assert_eq!(from("fc00:a:0:1::99", std::slice::from_ref(&good)), Verdict::Answered(Kind::Solicit));
    // Another link, a peer that is nobody, a relay nobody named, one beyond the link.
    assert_eq!(from("fc00:a:0:1::99", &[hop("fc00:b::1", "fe80::5")]), Verdict::BadRelay);
    assert_eq!(from("fc00:a:0:1::99", &[hop("fc00:a:0:1::98", "ff02::1")]), Verdict::BadRelay);
    assert_eq!(from("fc00:a:0:1::10", std::slice::from_ref(&good)), Verdict::BadRelay);
    assert_eq!(from("2001:db8::1", std::slice::from_ref(&good)), Verdict::BadRelay);
    assert_eq!(
        from("fc00:a:0:1::99", &vec![good.clone(); relay::HOPS_MAX + 1]),
        Verdict::Malformed(Malformed::TooMany)
    );
    let bad = |output: &&Output| matches!(output, Output::Tell(Told::Relay(..) | Told::Malformed(..)));
    assert_eq!(bench.out.iter().filter(bad).count(), 5, "a line for each");
}

#[test]
fn a_stranger_is_not_answered() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.receive(address("2001:db8::1"), &say(Kind::Solicit, 1).na(1, &[]).done()), Verdict::Stranger);
}

#[test]
fn clients_that_only_solicit_starve_nobody() {
    let mut bench = Bench::new(config());
    for number in 100..2100 {
        bench.ask(&say(Kind::Solicit, number).na(1, &[]).done()).unwrap();
    }
    // The reserve is on offer; who goes on to ask gets an address of it.
    assert_eq!(bench.server.ready(), 0);
    bench.lease(1);
    assert_eq!(bench.server.book().bound(), 1);
}

#[test]
fn who_takes_all_places_gets_no_more_and_takes_nothing_from_others() {
    let reservations = vec![Reservation { duid: duid(7), iaid: None, name: "router".into() }];
    let mut bench = Bench::new(Config { reservations, per_source_max: 1000, ..config() });
    let given = bench.lease(1);
    let mut refused = 0;
    for number in 100..400 {
        bench.stock(1);
        let answer = bench.ask(&say(Kind::Request, number).ours().na(1, &[]).done()).unwrap();
        refused += u32::from(answer.ias[0].status == Some(2));
        // What is left shrinks, and so does the time for which it is given.
        let valid = answer.ias[0].addresses.first().map(|(_, _, valid)| *valid);
        assert!(valid.is_none_or(|valid| valid == if number < 149 { 2000 } else { 300 }), "{number}: {valid:?}");
    }
    assert_eq!((bench.server.book().bound(), refused), (99, 300 - 98));
    // Who has a lease keeps it, who has a reservation gets one.
    bench.stock(1);
    let renewed = bench.ask(&say(Kind::Renew, 1).ours().na(1, &[given]).done()).unwrap();
    assert_eq!(renewed.ias[0].addresses, [(given, 1000, 2000)]);
    bench.lease(7);
    // The flood is over: there is room again when the short leases end.
    bench.pass(361);
    bench.written();
    bench.stock(1);
    bench.lease(2);
}

#[test]
fn a_client_and_a_relay_have_their_share() {
    let mut bench = Bench::new(Config { per_relay_max: 3, per_source_max: 2, ..config() });
    let mut request = |source: &str, number, iaid, relayed: bool| {
        let message = say(Kind::Request, number).ours().na(iaid, &[]).done();
        let hops = [hop("fc00:a:0:1::98", "fe80::5")];
        let payload = if relayed { forwarded(&hops, message) } else { message };
        bench.receive(address(source), &payload);
        let told = bench.written();
        told.into_iter().find_map(|output| match output {
            Output::Tell(Told::Refused(_, _, refusal)) => Some(refusal),
            _ => None,
        })
    };
    // Two associations of one client.
    assert_eq!([1, 2, 3].map(|iaid| request("fe80::1", 1, iaid, false)), [None, None, Some(Refusal::Client)]);
    // Two clients of one address.
    assert_eq!(request("fe80::1", 2, 1, false), Some(Refusal::Source));
    assert_eq!([3, 4, 5].map(|number| request("fe80::2", number, 1, false)), [None, None, Some(Refusal::Source)]);
    let relayed = [6, 7, 8, 9].map(|number| request("fc00:a:0:1::99", number, 1, true));
    assert_eq!(relayed, [None, None, None, Some(Refusal::Source)]);
    // Through another relay there is room.
    assert_eq!(request("fc00:a:0:1::9a", 9, 1, true), None);
}

#[test]
fn former_clients_make_way_and_their_addresses_are_held() {
    let mut bench = Bench::new(Config { leases_max: 4, ..config() });
    for number in 1..=10 {
        let given = bench.lease(number);
        bench.ask(&say(Kind::Release, number).ours().na(1, &[given]).done()).unwrap();
        bench.pass(1);
    }
    let book = bench.server.book();
    assert_eq!((book.leases().count(), book.held().count()), (4, 4));
}

#[test]
fn a_store_that_is_behind_lets_no_more_answers_wait_than_there_is_room_for() {
    let mut bench = Bench::new(Config { leases_max: 100_000, per_source_max: 100_000, ..config() });
    let mut busy = 0;
    for number in 0..9000 {
        bench.stock(1);
        let verdict = bench.receive(address("fe80::5"), &say(Kind::Request, number).ours().na(1, &[]).done());
        busy += u32::from(verdict == Verdict::Busy);
    }
    assert_eq!((busy, bench.server.waiting()), (9000 - 8192, 8192));
}

#[test]
fn no_address_is_ready_and_nothing_is_said() {
    let mut bench = Bench::new(config());
    bench.server.discard_stock();
    for message in [say(Kind::Solicit, 1).na(1, &[]).done(), say(Kind::Request, 1).ours().na(1, &[]).done()] {
        assert_eq!(bench.receive(address("fe80::5"), &message), Verdict::NoIdentity);
    }
    assert_eq!(bench.out, []);
    bench.stock(1);
    bench.lease(1);
}
