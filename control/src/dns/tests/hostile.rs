//! Who lies, floods and sends noise.

use super::*;

#[test]
fn answers_that_do_not_match_their_question_are_not_believed() {
    let mut bench = Bench::new(vec![("www.example.", 60, raw(16, b"\x05right".to_vec()))]);
    bench.say(HOST, &question("www.example.", RecordType::TXT).to_vec().unwrap());
    let asked = bench.sent.remove(0);
    let right = bench.response(&asked).unwrap();
    let with = |change: &dyn Fn(&mut Packet)| {
        let mut packet = right.clone();
        change(&mut packet);
        packet
    };
    let spoofs: Vec<Packet> = vec![
        with(&|packet| packet.source.0 = ip("2001:db8:53::2")),
        with(&|packet| packet.source.1 = 54),
        with(&|packet| packet.target.0 = ip("2001:db8:f::2")),
        with(&|packet| packet.payload[1] ^= 1),
        with(&|packet| packet.payload[2] &= 0x7f),
        with(&|packet| packet.payload[2] |= 0x28),
        // Another name, another type, another class.
        with(&|packet| packet.payload[13] = b'x'),
        with(&|packet| packet.payload[26] = 15),
        with(&|packet| packet.payload[28] = 3),
        with(&|packet| packet.payload.truncate(1)),
    ];
    for spoof in &spoofs {
        let before = bench.count(Event::AnswersSpoofed);
        bench.give(spoof);
        assert_eq!(bench.count(Event::AnswersSpoofed), before + 1, "{spoof:?}");
        assert!(bench.replies.is_empty());
    }
    bench.give(&with(&|packet| packet.target.1 ^= 1));
    assert_eq!(bench.count(Event::AnswersLate), 1, "at another port");
    assert_eq!(bench.notes.len(), 1, "and one line for all of them");
    bench.give(&right);
    assert_eq!(bench.replies.len(), 1, "the right one is taken all the same");
    bench.give(&right);
    assert_eq!((bench.replies.len(), bench.count(Event::AnswersLate)), (1, 2), "and once");
}

#[test]
fn ports_identifiers_and_letters_are_drawn_anew_for_every_question() {
    let mut bench = Bench::new(Vec::new());
    for at in 0..60 {
        bench.say(HOST, &question(&format!("long-enough-name-{at}.example."), RecordType::MX).to_vec().unwrap());
    }
    let different =
        |of: &dyn Fn(&Packet) -> Vec<u8>| bench.sent.iter().map(of).collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(different(&|sent| sent.source.1.to_be_bytes().to_vec()), 60);
    assert!(different(&|sent| sent.payload[..2].to_vec()) >= 59);
    assert!(different(&|sent| sent.payload[13..29].to_vec()) >= 55);
}

#[test]
fn letters_that_came_back_changed_lead_to_tcp() {
    let mut bench = Bench::new(peer());
    bench.net.loses_case = true;
    assert_eq!(addresses(&bench.ask("web.b.example.", RecordType::AAAA)), [(ip(PEER), 100)]);
    assert_eq!((bench.count(Event::AnswersLetters), bench.alg.servers()[0].counts.streams), (2, 2));
}

#[test]
fn records_nobody_asked_for_are_not_passed_on() {
    let mut bench = Bench::new(vec![("www.example.", 60, raw(16, b"\x01x".to_vec()))]);
    bench.say(HOST, &question("www.example.", RecordType::TXT).to_vec().unwrap());
    let asked = bench.sent.remove(0);
    let mut answer = bench.response(&asked).unwrap();
    let mut message = Message::from_vec(&answer.payload).unwrap();
    message.add_answer(Record::from_rdata(wire("bank.example."), 60, aaaa("2001:db8:bad::1")));
    answer.payload = message.to_vec().unwrap();
    bench.give(&answer);
    assert_eq!(bench.replies[0].1.metadata.response_code, ResponseCode::ServFail);
    assert_eq!((bench.count(Event::AnswersUnasked), bench.notes.len()), (1, 1));
    // Nor is one of the right type, beside the right one.
    let mut bench = Bench::new(vec![("www.example.", 60, raw(16, b"\x01x".to_vec()))]);
    bench.say(HOST, &question("www.example.", RecordType::TXT).to_vec().unwrap());
    let asked = bench.sent.remove(0);
    let mut answer = bench.response(&asked).unwrap();
    let mut message = Message::from_vec(&answer.payload).unwrap();
    message.add_answer(Record::from_rdata(wire("bank.example."), 60, raw(16, b"\x01y".to_vec())));
    answer.payload = message.to_vec().unwrap();
    bench.give(&answer);
    assert_eq!(bench.replies[0].1.metadata.response_code, ResponseCode::ServFail);
    // Addresses and identifiers of other names than the one at the end of the chain are nobody's.
    let mut bench = Bench::new(peer());
    bench.say(HOST, &question("web.b.example.", RecordType::AAAA).to_vec().unwrap());
    for asked in std::mem::take(&mut bench.sent) {
        let mut answer = bench.response(&asked).unwrap();
        let mut message = Message::from_vec(&answer.payload).unwrap();
        message.answers.iter_mut().for_each(|record| record.name = wire("bank.example."));
        answer.payload = message.to_vec().unwrap();
        bench.give(&answer);
    }
    assert!(bench.asked.is_empty());
}

#[test]
fn a_flood_of_one_host_leaves_room_for_others_and_for_what_is_used() {
    let mut bench = Bench::new(peer());
    bench.ask("web.b.example.", RecordType::AAAA);
    for at in 0..20_000 {
        let octets = question(&format!("r{at}.flood.example."), RecordType::AAAA).to_vec().unwrap();
        bench.say("fc00:a:0:1::bad", &octets);
        if at % 50 == 0 {
            bench.carry();
            // Everything it asks is not there, and kept; what another host uses stays.
            bench.replies.clear();
            bench.ask("web.b.example.", RecordType::AAAA);
        }
    }
    assert_eq!(bench.questions as u64, 2 * (20_000 - bench.count(Event::QuestionsWaiting)) + 2);
    assert!(bench.alg.status().entries <= 200);
    assert_eq!(bench.notes.iter().filter(|note| matches!(note, Note::CacheFull(_))).count(), 1);
    // When nothing comes back, it has its share of waiting and no more.
    bench.sent.clear();
    for at in 0..1_000 {
        bench.say("fc00:a:0:1::bad", &question(&format!("s{at}.example."), RecordType::MX).to_vec().unwrap());
    }
    assert_eq!(bench.alg.status().waiting, 256);
    assert!(bench.notes.contains(&Note::TooMany(ip("fc00:a:0:1::bad"))));
    bench.say(HOST, &question("other.example.", RecordType::MX).to_vec().unwrap());
    let own = bench.sent.pop().unwrap();
    let answer = bench.response(&own).unwrap();
    bench.replies.clear();
    bench.give(&answer);
    assert_eq!(bench.replies[0].0.host(), ip(HOST));
}

#[test]
fn the_same_question_of_many_is_asked_once() {
    let mut bench = Bench::new(peer());
    for at in 1..200 {
        bench.say(&format!("fc00:a:0:1::{at}"), &question("web.b.example.", RecordType::AAAA).to_vec().unwrap());
    }
    bench.run();
    assert_eq!((bench.questions, bench.replies.len(), bench.asked.len()), (2, 199, 199));
}

#[test]
fn noise_is_counted_and_told_once() {
    let mut bench = Bench::new(Vec::new());
    let answer = [&[0, 1, 0x80][..], &[0; 9]].concat();
    for noise in [&b""[..], b"short", &answer] {
        bench.say(HOST, noise);
    }
    assert!(bench.replies.is_empty(), "nothing is said to what may be an answer itself");
    let mut cut = question("www.example.", RecordType::AAAA).to_vec().unwrap();
    cut.truncate(20);
    bench.say(HOST, &cut);
    assert_eq!(bench.replies[0].1.metadata.response_code, ResponseCode::FormErr);
    assert_eq!((bench.count(Event::QuestionsMalformed), bench.notes.len()), (4, 1));
}

fn any_name() -> impl Strategy<Value = String> {
    prop::collection::vec("[a-zA-Z0-9]{1,20}", 0..6).prop_map(|labels| labels.join(".") + ".")
}

proptest! {
    // hickory reads what this reads, and both see the same.
    #[test]
    fn questions_are_read_as_another_reads_them(
        name in any_name(), wanted in any::<u16>(), id in any::<u16>(), flags in any::<[bool; 4]>(),
        payload in proptest::option::of(any::<u16>()),
    ) {
        let mut message = question(&name, RecordType::from(wanted));
        message.metadata.id = id;
        let [recursion, authentic, checking, dnssec_ok] = flags;
        message.metadata.recursion_desired = recursion;
        message.metadata.authentic_data = authentic;
        message.metadata.checking_disabled = checking;
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_dnssec_ok(dnssec_ok).set_max_payload(payload);
            message.set_edns(edns);
        }
        let query = message::Query::parse(&message.to_vec().unwrap()).unwrap();
        prop_assert_eq!(query.key.question.name, Name::from_text(&name).unwrap());
        prop_assert_eq!((query.key.question.kind, query.id), (wanted, id));
        prop_assert_eq!((query.recursion, query.authentic, query.key.flags.checking_disabled), (recursion, authentic, checking));
        prop_assert_eq!(query.key.flags.dnssec_ok, payload.is_some() && dnssec_ok);
    }

    // Whatever a host sends: no panic, at most one reply, and that one readable, about the same question and not longer
    // than what any host takes without saying so.
    #[test]
    fn any_octets_of_hosts_are_survived(mut octets in prop::collection::vec(any::<u8>(), 0..80), plausible in any::<bool>()) {
        if let Some(header) = octets.first_chunk_mut::<12>().filter(|_| plausible) {
            header[2..].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
        let mut bench = Bench::new(Vec::new());
        bench.say(HOST, &octets);
        bench.run();
        prop_assert!(bench.replies.len() <= 1);
        for (_, reply, size) in &bench.replies {
            prop_assert_eq!(&reply.metadata.id.to_be_bytes()[..], &octets[..2]);
            prop_assert!(*size <= 512);
            if let Ok(query) = message::Query::parse(&octets) {
                prop_assert_eq!(reply.queries.len(), 1);
                prop_assert_eq!(reply.queries[0].query_type(), RecordType::from(query.key.question.kind));
            }
        }
    }

    // Whatever a server sends: no panic, and hosts get what was asked for or nothing.
    #[test]
    fn any_octets_of_servers_are_survived(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut in 0..30usize, which in 0..4usize,
    ) {
        let mut bench = Bench { garbles: true, ..Bench::new(peer()) };
        bench.net.records.push(("shop.b.example.", 50, alias("web.b.example.")));
        let hint = SvcParamValue::Ipv6Hint(IpHint(vec![AAAA(ip("2001:db8:b1::9"))]));
        let service = SVCB::new(1, WireName::root(), vec![(SvcParamKey::Ipv6Hint, hint)]);
        bench.net.records.push(("web.b.example.", 300, RData::HTTPS(HTTPS(service))));
        let wanted = [RecordType::AAAA, RecordType::HTTPS, RecordType::MX, RecordType::AAAA][which];
        let name = ["web.b.example.", "web.b.example.", "web.b.example.", "shop.b.example."][which];
        bench.say(HOST, &question(name, wanted).to_vec().unwrap());
        while let Some(asked) = bench.sent.pop() {
            let Some(mut answer) = bench.response(&asked) else { continue };
            // Behind the question, so that the answer is taken for one.
            let start = 12 + name.len() + 1 + 4;
            for (place, value) in &changes {
                let length = answer.payload.len();
                let at = if length > start { start + place.index(length - start) } else { 6 };
                answer.payload[at] = *value;
            }
            let keep = answer.payload.len() - cut.min(answer.payload.len() - start.min(answer.payload.len()));
            answer.payload.truncate(keep);
            bench.give(&answer);
        }
        bench.net.dead = vec![0, 1];
        bench.run();
        prop_assert_eq!(bench.octets.len(), 1);
        let reply = View::new(&bench.octets[0]).unwrap();
        let belongs = [wanted.into(), kind::CNAME, kind::DNAME, kind::RRSIG, kind::NSEC, kind::NSEC3];
        let mut answers = reply.section(super::view::Section::Answer);
        prop_assert!(answers.all(|record| belongs.contains(&record.kind)));
    }
}
