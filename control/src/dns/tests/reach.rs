//! Servers that fail, and identifiers nobody asked about.

use super::*;

#[test]
fn the_next_server_is_asked_when_one_is_silent() {
    let mut bench = Bench::new(peer());
    bench.net.dead = vec![0];
    let start = bench.now;
    assert_eq!(addresses(&bench.ask("web.b.example.", RecordType::AAAA)), [(ip(PEER), 100)]);
    assert!(bench.now.since(start) <= Duration::from_millis(700));
    // After a few failures it is left alone, and hosts do not notice it any more.
    for at in 0..3 {
        bench.net.records.push((["x.example.", "y.example.", "z.example."][at], 60, aaaa("2001:db8:c::1")));
        bench.ask(["x.example.", "y.example.", "z.example."][at], RecordType::AAAA);
    }
    assert_eq!(bench.count(Event::ServersDown), 1);
    assert!(bench.notes.contains(&Note::ServerDown(ip(SERVERS[0]))));
    let before = bench.now;
    bench.ask("nothing.example.", RecordType::AAAA);
    assert_eq!(bench.now, before);
    // It has another chance after a while.
    (bench.net.dead, bench.now) = (vec![1], bench.now + Duration::from_secs(10));
    bench.ask("more.example.", RecordType::MX);
    assert_eq!(bench.now, before + Duration::from_secs(10));
}

#[test]
fn when_nobody_answers_hosts_are_told_before_they_give_up() {
    let mut bench = Bench::new(peer());
    bench.net.dead = vec![0, 1];
    let answer = bench.ask("web.b.example.", RecordType::AAAA);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(bench.now.since(Instant::START) < Duration::from_secs(5));
    // With no way to any server it is said at once.
    (0..2).for_each(|server| bench.alg.set_sources(server, Vec::new()));
    let before = bench.now;
    assert_eq!(bench.ask("x.example.", RecordType::MX).metadata.response_code, ResponseCode::ServFail);
    assert_eq!(bench.now, before);
    // When there is a way again, all is well.
    bench.net.dead.clear();
    bench.alg.set_sources(1, vec![ip(OWN)]);
    assert_eq!(addresses(&bench.ask("web.b.example.", RecordType::AAAA)).len(), 1);
}

#[test]
fn another_server_may_know_what_one_does_not() {
    let mut bench = Bench::new(peer());
    bench.net.fails = vec![(RecordType::MX, ResponseCode::ServFail)];
    let answer = bench.ask("web.b.example.", RecordType::MX);
    assert_eq!((answer.metadata.response_code, bench.questions), (ResponseCode::ServFail, 2));
    assert_eq!(bench.now, Instant::START);
    // The failure is remembered for a moment.
    bench.ask("web.b.example.", RecordType::MX);
    assert_eq!(bench.questions, 2);
}

#[test]
fn servers_that_do_not_like_unknown_types_do_not_hide_addresses() {
    for code in [ResponseCode::ServFail, ResponseCode::NotImp, ResponseCode::NXDomain] {
        let mut bench = Bench::new(vec![("www.example.", 300, aaaa("2001:db8:c::1"))]);
        bench.net.fails = vec![(RecordType::from(ULID_KIND), code)];
        assert_eq!(addresses(&bench.ask("www.example.", RecordType::AAAA))[0].0, ip("2001:db8:c::1"));
        assert_eq!(bench.now, Instant::START);
    }
    let mut bench = Bench::new(peer());
    bench.net.silent = vec![RecordType::from(ULID_KIND)];
    assert_eq!(addresses(&bench.ask("web.b.example.", RecordType::AAAA)).len(), 2);
    assert_eq!(bench.count(Event::UlidUnknown), 1);
    bench.net.silent.clear();
    bench.pass(30);
    assert_eq!(addresses(&bench.ask("web.b.example.", RecordType::AAAA)), [(ip(PEER), 100)], "not kept for long");
}

#[test]
fn a_silent_ulid_question_holds_addresses_up_for_a_second_at_most() {
    let mut bench = Bench::new(peer());
    bench.net.silent = vec![RecordType::from(ULID_KIND)];
    bench.say(HOST, &question("web.b.example.", RecordType::AAAA).to_vec().unwrap());
    bench.carry();
    while bench.replies.is_empty() {
        bench.now = bench.alg.deadline().unwrap();
        let mut out = Vec::new();
        bench.alg.expire(bench.now, &mut bench.rng, &mut out);
        bench.take(out);
    }
    assert_eq!(bench.now, Instant::START + Duration::from_secs(1));
}

#[test]
fn truncated_answers_come_again_over_tcp() {
    let mut bench = Bench::new(peer());
    bench.net.truncates = true;
    assert_eq!(addresses(&bench.ask("web.b.example.", RecordType::AAAA)), [(ip(PEER), 100)]);
    assert_eq!(bench.alg.servers()[0].counts.streams, 2);
    // A server without TCP is no server for such a name, and the next is asked.
    bench.net.dead = vec![0, 1];
    bench.net.truncates = true;
    bench.alg.flush();
    assert_eq!(bench.ask("web.b.example.", RecordType::AAAA).metadata.response_code, ResponseCode::ServFail);
}

fn reversed() -> Vec<(&'static str, u32, RData)> {
    let pointer = "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.0.0.b.0.0.0.0.0.c.f.ip6.arpa.";
    [peer(), vec![(pointer, 60, RData::PTR(PTR(wire("web.b.example."))))]].concat()
}

fn look_up(bench: &mut Bench, ulid: &str) {
    let mut out = Vec::new();
    bench.alg.look_up(bench.now, &mut bench.rng, Ulid(ip(HOST)), Ulid(ip(ulid)), &mut out);
    bench.take(out);
    bench.run();
}

#[test]
fn an_identifier_nobody_asked_about_is_found_by_its_pointer() {
    let mut bench = Bench::new(reversed());
    look_up(&mut bench, PEER);
    let [(found, Some(learned))] = bench.located.as_slice() else { panic!("{:?}", bench.located) };
    assert_eq!((*found, learned.locators.len()), (Ulid(ip(PEER)), 2));
    assert_eq!((bench.questions, bench.count(Event::ReverseFound)), (3, 1));
    // Again from the cache, and no question is asked.
    look_up(&mut bench, PEER);
    assert_eq!((bench.located.len(), bench.questions), (2, 3));
}

#[test]
fn a_pointer_that_is_not_confirmed_is_worth_nothing() {
    // Somebody points an address at a name that is not its own.
    let mut bench = Bench::new(reversed());
    bench.net.records.retain(|(.., data)| data.record_type() != RecordType::from(ULID_KIND));
    bench.net.records.push(("web.b.example.", 100, ulid("fc00:b:0:1::a")));
    look_up(&mut bench, PEER);
    assert_eq!(bench.located, [(Ulid(ip(PEER)), None)]);
    assert_eq!(bench.notes, [Note::Astray(ip(PEER), "web.b.example.".into())]);
    let asked = bench.questions;
    look_up(&mut bench, PEER);
    assert_eq!((bench.located.len(), bench.questions), (2, asked), "remembered");
    assert_eq!(bench.count(Event::ReverseRemembered), 1);
    // Whose record confirms is asked in turn.
    bench.net.records.push((reversed()[3].0, 60, RData::PTR(PTR(wire("right.example.")))));
    bench.net.records.push(("right.example.", 60, ulid(PEER)));
    bench.net.records.push(("right.example.", 60, aaaa("2001:db8:b1::9")));
    bench.alg.flush();
    look_up(&mut bench, PEER);
    assert!(bench.located[2].1.is_some());
}

#[test]
fn own_and_foreign_addresses_are_not_looked_up() {
    let mut bench = Bench::new(Vec::new());
    for at in ["2001:db8::1", "fc00:a:0:1::77", "ff02::1"] {
        look_up(&mut bench, at);
    }
    assert_eq!((bench.located.len(), bench.questions), (3, 0));
    look_up(&mut bench, "fc00:c::1");
    assert_eq!((bench.located.len(), bench.questions, bench.count(Event::ReverseFailed)), (4, 1, 1));
}

#[test]
fn who_does_not_answer_is_asked_by_way_of_another_provider() {
    let mut bench = Bench::new(peer());
    (0..2).for_each(|server| bench.alg.set_sources(server, vec![ip(OWN), ip(OTHER)]));
    bench.say(HOST, &question("mail.b.example.", RecordType::MX).to_vec().unwrap());
    let mut ways = Vec::new();
    while let Some(sent) = bench.sent.pop() {
        ways.push((sent.target.0, sent.source.0));
        bench.now = bench.alg.deadline().unwrap();
        let mut out = Vec::new();
        bench.alg.expire(bench.now, &mut bench.rng, &mut out);
        bench.take(out);
    }
    let [one, two] = SERVERS.map(ip);
    assert_eq!(ways, [(one, ip(OWN)), (two, ip(OTHER)), (one, ip(OTHER)), (two, ip(OWN))]);
    // An answer counts on the way it was asked for.
    bench.replies.clear();
    bench.say(HOST, &question("web.b.example.", RecordType::A).to_vec().unwrap());
    let sent = bench.sent.pop().unwrap();
    let mut answer = bench.response(&sent).unwrap();
    answer.target.0 = ip(OTHER);
    bench.give(&answer);
    assert!(bench.replies.is_empty() && bench.count(Event::AnswersSpoofed) == 1);
}

#[test]
fn no_question_comes_from_a_port_that_is_somebody_elses() {
    let mut bench = Bench::new(peer());
    // The generator begins anew, so the first port it draws would be the same.
    bench.say(HOST, &question("x.example.", RecordType::MX).to_vec().unwrap());
    let port = bench.sent[0].source.1;
    let mut bench = Bench::new(peer());
    bench.alg.avoid_port(port);
    bench.say(HOST, &question("x.example.", RecordType::MX).to_vec().unwrap());
    assert_ne!(bench.sent[0].source.1, port);
}
