//! RFC 8415 §18.3, row by row.

use super::*;

const REPLY: u8 = message::REPLY;
const ADVERTISE: u8 = message::ADVERTISE;

#[test]
fn a_solicit_is_answered_by_an_offer_that_binds_nobody() {
    // §18.3.1, §18.3.9
    let mut bench = Bench::new(config());
    let answer = bench.ask(&say(Kind::Solicit, 1).na(1, &[]).done()).unwrap();
    assert_eq!((answer.kind, answer.transaction), (ADVERTISE, [1, 2, 1]));
    assert_eq!(answer.target, Some((address("fe80::5"), CLIENT_PORT)), "§18.3.10");
    assert_eq!(answer.option(code::SERVER_ID), Some(config().duid.octets()));
    assert_eq!(answer.option(code::CLIENT_ID), Some(duid(1).octets()));
    assert_eq!(answer.option(code::RAPID_COMMIT), None);
    let [ia] = &answer.ias[..] else { panic!("{answer:?}") };
    assert_eq!((ia.iaid, ia.t1, ia.t2, ia.status), (1, 500, 800, None));
    assert_eq!((ia.addresses[0].1, ia.addresses[0].2), (1000, 2000));
    assert_eq!(bench.server.book().bound(), 0);
    // Asked again, it offers the same.
    assert_eq!(bench.ask(&say(Kind::Solicit, 1).na(1, &[]).done()).unwrap().ias, answer.ias);
}

#[test]
fn an_offer_nobody_takes_is_free_again() {
    let mut bench = Bench::new(config());
    let ready = bench.server.ready();
    bench.ask(&say(Kind::Solicit, 1).na(1, &[]).done()).unwrap();
    assert_eq!(bench.server.ready(), ready - 1);
    bench.pass(60);
    assert_eq!(bench.server.ready(), ready);
}

#[test]
fn a_rapid_commit_is_a_lease_at_once_if_the_server_does_that() {
    // §18.3.1, §21.14
    let mut bench = Bench::new(config());
    let answer = bench.ask(&say(Kind::Solicit, 1).rapid().na(1, &[]).done()).unwrap();
    assert_eq!((answer.kind, answer.option(code::RAPID_COMMIT)), (REPLY, Some(&[][..])));
    assert_eq!(bench.server.book().get(&client(1)).unwrap().identity.ulid, answer.ias[0].addresses[0].0);
    let mut slow = Bench::new(Config { rapid_commit: false, ..config() });
    let answer = slow.ask(&say(Kind::Solicit, 1).rapid().na(1, &[]).done()).unwrap();
    assert_eq!((answer.kind, answer.option(code::RAPID_COMMIT)), (ADVERTISE, None));
}

#[test]
fn nothing_is_told_before_it_is_written() {
    // §18.3.1: the server MUST commit before it replies.
    let mut bench = Bench::new(config());
    let request = say(Kind::Request, 1).ours().na(1, &[]).done();
    assert_eq!(bench.receive(address("fe80::5"), &request), Verdict::Writing(Kind::Request));
    let told = |output: &Output| matches!(output, Output::Send { .. } | Output::Serve(_));
    assert!(!bench.out.iter().any(told));
    let Some(Output::Write { ticket, changes }) = bench.out.pop() else { panic!("{:?}", bench.out) };
    let [Change::Put(lease)] = &changes[..] else { panic!("{changes:?}") };
    // A store that fails: no answer, no host; and the next attempt is a new one.
    let mut out = Vec::new();
    bench.server.persisted(bench.now, ticket, false, &mut out);
    assert_eq!(out, []);
    assert_eq!(bench.receive(address("fe80::5"), &request), Verdict::Writing(Kind::Request));
    let told = bench.written();
    assert!(matches!(&told[..], [.., Output::Serve(served), Output::Send { .. }] if served == lease), "{told:?}");
}

#[test]
fn a_request_gets_what_was_offered_and_the_same_when_it_comes_again() {
    // §18.3.2
    let mut bench = Bench::new(config());
    let given = bench.lease(1);
    bench.now = bench.now + Duration::from_secs(5);
    let again = bench.ask(&say(Kind::Request, 1).ours().na(1, &[given]).done()).unwrap();
    // Lifetimes are made anew, never a copy of an old answer.
    assert_eq!(again.ias[0].addresses, [(given, 1000, 2000)]);
    assert_eq!(bench.server.book().get(&client(1)).unwrap().until, 1_000_000 + 5 + 2000 + 60);
    assert_eq!(bench.server.book().bound(), 1);
}

#[test]
fn a_request_for_another_links_address_hears_not_on_link() {
    // §18.3.2
    let mut bench = Bench::new(config());
    let answer = bench.ask(&say(Kind::Request, 1).ours().na(1, &[address("fc00:b::1")]).done()).unwrap();
    assert_eq!((answer.ias[0].status, answer.ias[0].addresses.len()), (Some(4), 0));
    assert_eq!(bench.server.book().bound(), 0);
}

#[test]
fn prefixes_and_temporary_addresses_are_not_given() {
    // §18.3.2, §18.3.9
    let mut bench = Bench::new(config());
    for kind in [Kind::Solicit, Kind::Request] {
        let mut say = say(kind, 1);
        if kind == Kind::Request {
            say = say.ours();
        }
        let say = say.option(code::IA_PD, &[0; 12]).option(code::IA_TA, &[0; 4]).na(1, &[]);
        let answer = bench.ask(&say.done()).unwrap();
        let statuses: Vec<_> = answer.ias.iter().map(|ia| (ia.code, ia.status)).collect();
        assert_eq!(statuses, [(code::IA_PD, Some(6)), (code::IA_TA, Some(2)), (code::IA_NA, None)]);
    }
}

#[test]
fn confirm_says_whether_all_addresses_are_of_this_link() {
    // §18.3.3
    let mut bench = Bench::new(config());
    let given = bench.lease(1);
    let confirm = |addresses: &[Ipv6Addr]| say(Kind::Confirm, 1).na(1, addresses).done();
    assert_eq!(bench.ask(&confirm(&[given])).unwrap().status, Some(0));
    assert_eq!(bench.ask(&confirm(&[given, address("2001:db8::1")])).unwrap().status, Some(4));
    assert_eq!(bench.ask(&confirm(&[])), None);
    assert_eq!(bench.receive(address("fe80::5"), &confirm(&[])), Verdict::Nothing);
}

#[test]
fn renew_extends_what_is_bound() {
    // §18.3.4
    let mut bench = Bench::new(config());
    let given = bench.lease(1);
    bench.pass(1900);
    let answer = bench.ask(&say(Kind::Renew, 1).ours().na(1, &[given]).done()).unwrap();
    assert_eq!((answer.kind, &answer.ias[0].addresses[..]), (REPLY, &[(given, 1000, 2000)][..]));
    bench.pass(1900);
    assert_eq!(bench.server.book().bound(), 1);
    assert_eq!(bench.written(), []);
}

#[test]
fn renew_ends_what_the_client_has_without_us() {
    // §18.3.4: lifetimes of 0 for what is not appropriate.
    let mut bench = Bench::new(config());
    let given = bench.lease(1);
    let other = address("2001:db8::1");
    let answer = bench.ask(&say(Kind::Renew, 1).ours().na(1, &[other, given]).done()).unwrap();
    assert_eq!(answer.ias[0].addresses, [(given, 1000, 2000), (other, 0, 0)]);
    // Nothing is known of this one: it gets an address, and the old one ends.
    let answer = bench.ask(&say(Kind::Renew, 2).ours().na(1, &[other]).done()).unwrap();
    let [(new, 1000, 2000), (old, 0, 0)] = answer.ias[0].addresses[..] else { panic!("{answer:?}") };
    assert_eq!(old, other);
    assert_eq!(bench.server.book().get(&client(2)).unwrap().identity.ulid, new);
}

#[test]
fn rebind_extends_ends_or_creates() {
    // §18.3.5
    let mut bench = Bench::new(config());
    let given = bench.lease(1);
    let rebind = |number, addresses: &[Ipv6Addr]| say(Kind::Rebind, number).na(1, addresses).done();
    assert_eq!(bench.ask(&rebind(1, &[given])).unwrap().ias[0].addresses, [(given, 1000, 2000)]);
    let foreign = address("2001:db8::1");
    assert_eq!(bench.ask(&rebind(2, &[foreign])).unwrap().ias[0].addresses, [(foreign, 0, 0)]);
    let ours = address("fc00:a:0:1::77");
    assert_eq!(bench.ask(&rebind(2, &[ours])).unwrap().ias[0].addresses.len(), 2, "a new one, and the end of the old");
    // Without Rapid Commit somebody else may be meant.
    let mut slow = Bench::new(Config { rapid_commit: false, ..config() });
    assert_eq!(slow.ask(&rebind(2, &[ours])).unwrap().ias[0].status, Some(3));
    // A Rebind that there is nothing to say to is not answered.
    assert_eq!(slow.receive(address("fe80::5"), &say(Kind::Rebind, 2).done()), Verdict::Nothing);
}

#[test]
fn information_is_for_everybody() {
    // §18.3.6, RFC 3646, RFC 7078
    let mut bench = Bench::new(config());
    let wants = [code::DNS_SERVERS, code::DOMAIN_LIST, code::ADDRESS_SELECTION, code::INFORMATION_REFRESH_TIME];
    let ask = say(Kind::InformationRequest, 1).wants(&wants).done();
    let answer = bench.ask(&ask).unwrap();
    assert_eq!((answer.kind, answer.ias.len()), (REPLY, 0));
    assert_eq!(answer.option(code::DNS_SERVERS), Some(&address("fc00:a:0:1::1").octets()[..]));
    assert_eq!(answer.option(code::DOMAIN_LIST), Some(&b"\x07example\x03com\0"[..]));
    let table = answer.option(code::ADDRESS_SELECTION).unwrap();
    // Flags; then label, precedence, length and prefix of the first row: fc00::/8.
    assert_eq!(table[..9], [3, 0, 85, 0, 4, 14, 45, 8, 0xfc]);
    assert_eq!(Options::new(&table[1..]).unwrap().iter().count(), 10);
    assert_eq!(answer.option(code::INFORMATION_REFRESH_TIME), Some(&86_400u32.to_be_bytes()[..]));
    // Without a name it is told the same, and nothing that it did not ask for.
    let mut nameless = Writer::message(Kind::InformationRequest.code(), [9, 9, 9]);
    nameless.option(code::OPTION_REQUEST, |out| out.put(&[0, 23]));
    let answer = bench.ask(&nameless.finish()).unwrap();
    let codes: Vec<u16> = answer.options.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [code::SERVER_ID, code::DNS_SERVERS]);
    // §16.12: an Information-request with an association is none.
    let wrong = say(Kind::InformationRequest, 1).na(1, &[]).done();
    assert_eq!(bench.receive(address("fe80::5"), &wrong), Verdict::Malformed(Malformed::Validation));
}

#[test]
fn a_release_ends_the_lease_and_the_client_gets_it_back() {
    // §18.3.7
    let mut bench = Bench::new(config());
    let given = bench.lease(1);
    let release = say(Kind::Release, 1).ours().na(1, &[given]).na(9, &[]).done();
    bench.receive(address("fe80::5"), &release);
    let told = bench.written();
    assert!(told.contains(&Output::Withdraw(given)));
    let answer = answer_in(&told).unwrap();
    assert_eq!((answer.kind, answer.status), (REPLY, Some(0)));
    let [ia] = &answer.ias[..] else { panic!("only the unknown one is named: {answer:?}") };
    assert_eq!((ia.iaid, ia.status), (9, Some(3)));
    assert_eq!(bench.server.book().bound(), 0);
    assert_eq!(bench.lease(1), given);
}

#[test]
fn a_release_of_anothers_address_is_ignored() {
    // §18.3.7
    let mut bench = Bench::new(config());
    let (mine, yours) = (bench.lease(1), bench.lease(2));
    bench.ask(&say(Kind::Release, 1).ours().na(1, &[yours]).done()).unwrap();
    assert_eq!(bench.server.book().bound(), 2);
    assert_ne!(mine, yours);
    let answer = bench.ask(&say(Kind::Release, 3).ours().na(1, &[yours]).done()).unwrap();
    assert_eq!(answer.ias[0].status, Some(3));
    assert_eq!(bench.server.book().bound(), 2);
}

#[test]
fn a_declined_address_is_quarantined_and_never_given_again() {
    // §18.3.8
    let mut bench = Bench::new(config());
    let given = bench.lease(1);
    bench.receive(address("fe80::5"), &say(Kind::Decline, 1).ours().na(1, &[given]).done());
    let told = bench.written();
    assert!(told.contains(&Output::Withdraw(given)));
    assert!(told.contains(&Output::Tell(Told::Declined(client(1), given))));
    assert_eq!(answer_in(&told).unwrap().status, Some(0));
    let held: Vec<_> = bench.server.book().held().cloned().collect();
    assert_eq!((held[0].ulid, held[0].declined, held[0].until), (given, true, 1_000_000 + 900));
    assert_ne!(bench.lease(1), given);
    bench.server.stock(Identity { ulid: given, ..identity(1) });
    let ready = bench.server.ready();
    bench.pass(899);
    assert_eq!(bench.server.book().held().count(), 1);
    bench.pass(1);
    assert_eq!((bench.server.book().held().count(), bench.server.ready()), (0, ready));
}

#[test]
fn a_lease_that_is_not_extended_ends_a_little_after_the_client_gave_it_up() {
    let mut bench = Bench::new(config());
    let given = bench.lease(1);
    bench.pass(2059);
    assert_eq!(bench.server.book().bound(), 1);
    bench.pass(1);
    assert!(bench.written().contains(&Output::Withdraw(given)));
    assert_eq!(bench.server.book().get(&client(1)).unwrap().state, State::Former);
    // The client that comes late gets it all the same.
    let answer = bench.ask(&say(Kind::Renew, 1).ours().na(1, &[given]).done()).unwrap();
    assert_eq!(answer.ias[0].addresses, [(given, 1000, 2000)]);
}

#[test]
fn what_is_sent_to_the_server_alone_hears_use_multicast() {
    // §18.4
    let mut bench = Bench::new(config());
    for (kind, answered) in [(Kind::Solicit, ADVERTISE), (Kind::Renew, REPLY)] {
        let mut message = say(kind, 1);
        if kind == Kind::Renew {
            message = message.ours();
        }
        let payload = message.na(1, &[]).done();
        let incoming = Incoming { source: address("fe80::5"), target: address("fc00:a:0:1::1"), payload: &payload };
        let mut out = Vec::new();
        assert_eq!(bench.server.receive(bench.now, incoming, &mut out), Verdict::UseMulticast);
        let answer = answer_in(&out).unwrap();
        assert_eq!((answer.kind, answer.status, answer.options.len()), (answered, Some(5), 3));
    }
}

#[test]
fn messages_lack_nothing_and_have_nothing_too_many() {
    // §16.2 to §16.9
    let mut bench = Bench::new(config());
    for kind in Kind::ALL {
        if kind == Kind::InformationRequest {
            continue;
        }
        let to_one = matches!(kind, Kind::Request | Kind::Renew | Kind::Release | Kind::Decline);
        let nobody = Writer::message(kind.code(), [0; 3]).finish();
        let wrong = if to_one { say(kind, 1).done() } else { say(kind, 1).ours().done() };
        for message in [nobody, wrong] {
            let verdict = bench.receive(address("fe80::5"), &message);
            assert_eq!(verdict, Verdict::Malformed(Malformed::Validation), "{kind:?}");
        }
        if to_one {
            let other = say(kind, 1).option(code::SERVER_ID, duid(77).octets()).done();
            assert_eq!(bench.receive(address("fe80::5"), &other), Verdict::OtherServer);
        }
    }
}

#[test]
fn a_reservation_has_its_name_and_its_place() {
    let reservations = vec![Reservation { duid: duid(5), iaid: None, name: "printer".into() }];
    let mut bench = Bench::new(Config { leases_max: 3, reservations, ..config() });
    bench.lease(1);
    bench.lease(2);
    let answer = bench.ask(&say(Kind::Solicit, 3).na(1, &[]).done()).unwrap();
    assert_eq!((answer.kind, answer.ias[0].status), (ADVERTISE, Some(2)));
    // Nobody else gets its name.
    let named = say(Kind::Request, 5).ours().na(1, &[]).option(code::CLIENT_FQDN, b"\x01\x05other\0").done();
    let answer = bench.ask(&named).unwrap();
    assert_eq!(answer.option(code::CLIENT_FQDN), Some(&b"\x06\x07printer\x07example\x03com\0"[..]));
    assert_eq!(bench.server.book().get(&client(5)).unwrap().name, "printer");
}

#[test]
fn names_are_sanitised_and_unique() {
    // RFC 4704
    let mut bench = Bench::new(config());
    bench.server.set_foreign_names(["static".to_owned()].into());
    let mut named = |number, label: &[u8]| {
        let option = [&[0, label.len() as u8][..], label].concat();
        bench.ask(&say(Kind::Request, number).ours().na(1, &[]).option(code::CLIENT_FQDN, &option).done()).unwrap();
        bench.server.book().get(&client(number)).unwrap().name.clone()
    };
    assert_eq!(named(1, b"Laptop"), "laptop");
    assert_eq!(named(2, b"laptop"), "laptop-2");
    assert_eq!(named(3, b"a b;c$(x)"), "a-b-c--x");
    assert_eq!(named(4, b"static"), "static-2");
    assert!(named(5, b"\xff\n..").starts_with("h-0000"));
    // One that changes its mind keeps its name.
    assert_eq!(named(1, b"desktop"), "laptop");
}

#[test]
fn a_client_that_comes_to_a_crowded_link_has_a_short_lease_until_it_has_stayed() {
    let mut bench = Bench::new(Config { leases_max: 4, ..config() });
    let valid = |answer: Option<Answer>| answer.unwrap().ias[0].addresses[0].2;
    let of = |kind, number, address: Ipv6Addr| say(kind, number).ours().na(1, &[address]).done();
    let early = bench.lease(1);
    bench.lease(2);
    // Half of the places are taken. Whatever it says, and however often, it does not have more than the short time.
    let solicit = say(Kind::Solicit, 3).rapid().na(1, &[]).done();
    assert_eq!([bench.ask(&solicit), bench.ask(&solicit)].map(valid), [300, 300]);
    let late = bench.server.book().get(&client(3)).unwrap().identity.ulid;
    for kind in [Kind::Request, Kind::Renew, Kind::Request] {
        assert_eq!(valid(bench.ask(&of(kind, 3, late))), 300, "{kind:?}");
    }
    bench.pass(149);
    assert_eq!(valid(bench.ask(&of(Kind::Renew, 3, late))), 300, "before its time");
    bench.pass(150);
    assert_eq!(valid(bench.ask(&of(Kind::Request, 3, late))), 300, "who is there extends what he has");
    bench.pass(150);
    assert_eq!(valid(bench.ask(&of(Kind::Renew, 3, late))), 2000);
    // Who has more already, and who has given it back.
    assert_eq!(valid(bench.ask(&of(Kind::Request, 1, early))), 2000);
    bench.ask(&of(Kind::Release, 1, early));
    assert_eq!(valid(bench.ask(&of(Kind::Request, 1, early))), 300);
}
