//! What hosts get.

use super::*;

#[test]
fn a_name_with_a_ulid_record_is_its_cmula_alone() {
    let mut bench = Bench::new(peer());
    bench.say(HOST, &question("Web.b.Example.", RecordType::AAAA).to_vec().unwrap());
    assert_eq!(bench.sent.len(), 2, "both are asked at once");
    bench.run();
    let (_, answer, _) = bench.replies.pop().unwrap();
    assert_eq!(addresses(&answer), [(ip(PEER), 100)], "with the smaller TTL");
    assert_eq!(answer.answers.len(), 1);
    let [(host, learned, good)] = bench.asked.as_slice() else { panic!("{:?}", bench.asked) };
    assert_eq!((*host, *good), (ip(HOST), Duration::from_secs(100)));
    assert_eq!(learned.ulids, [Ulid(ip(PEER))]);
    assert_eq!(learned.locators, ["2001:db8:b1::9", "2001:db8:b2::9"].map(|at| Locator(ip(at))));
    // From the cache, with the TTL aged; another host's first packet is as near.
    bench.pass(40);
    let answer = bench.ask_as("fc00:a:0:1::6", question("web.b.example.", RecordType::AAAA));
    assert_eq!(addresses(&answer), [(ip(PEER), 60)]);
    assert_eq!((bench.asked.len(), bench.asked[1].2, bench.questions), (2, Duration::from_secs(60), 2));
    bench.pass(60);
    assert_eq!(addresses(&bench.ask("web.b.example.", RecordType::AAAA)), [(ip(PEER), 100)]);
    assert_eq!(bench.questions, 4, "asked again when the time is over");
}

#[test]
fn peers_without_ulid_records_resolve_as_ever() {
    // Type covered, algorithm, labels, three times, key tag, the root as signer, and octets that are nobody's.
    let signature = [&[0, 28, 8, 2][..], &[7; 14], &[0], &[9; 64]].concat();
    let records = vec![("www.example.", 300, aaaa("2001:db8:c::1")), ("www.example.", 300, raw(46, signature.clone()))];
    let mut bench = Bench::new(records);
    // hickory's server above gives records of the type asked for; the signature is asked for by itself.
    let mut query = question("www.example.", RecordType::from(46));
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true).set_max_payload(1232);
    query.set_edns(edns);
    let answer = bench.ask_as(HOST, query);
    let octets = bench.octets.last().unwrap();
    assert!(octets.windows(signature.len()).any(|window| window == signature), "to the last octet");
    assert!(answer.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok));
    let answer = bench.ask("www.example.", RecordType::AAAA);
    assert_eq!(addresses(&answer), [(ip("2001:db8:c::1"), 300)]);
    assert!(bench.asked.is_empty());
    for data in [RData::MX(MX::new(5, wire("mail.example."))), raw(1, vec![192, 0, 2, 1]), raw(31337, vec![1, 2, 3])] {
        bench.net.records.push(("www.example.", 60, data.clone()));
        assert_eq!(bench.ask("www.example.", data.record_type()).answers.len(), 1);
    }
}

#[test]
fn what_is_passed_through_is_passed_octet_for_octet() {
    let mut bench = Bench::new(vec![("www.example.", 300, aaaa("2001:db8:c::1"))]);
    let mut query = question("www.example.", RecordType::AAAA);
    query.set_edns(Edns::new());
    bench.say(HOST, &query.to_vec().unwrap());
    let direct: Vec<Packet> = bench.sent.iter().filter_map(|sent| bench.response(sent)).collect();
    let client = Client::Datagram((ip(HOST), 4000), (ip(BOX), PORT));
    let mut out = Vec::new();
    for packet in &direct {
        bench.alg.answer(bench.now, &mut bench.rng, packet, &mut out);
    }
    let reply = out.iter().find_map(|output| match output {
        Output::Reply(to, octets) if *to == client => Some(octets.clone()),
        _ => None,
    });
    let (reply, direct) = (reply.unwrap(), direct[0].payload.clone());
    let records = |octets: &[u8]| {
        let view = View::new(octets).unwrap();
        let end = view.records().iter().find(|record| record.kind == kind::OPT).unwrap().start;
        octets[view.question_end()..end].to_vec()
    };
    assert_eq!(records(&reply), records(&direct));
}

#[test]
fn chains_are_followed_and_kept() {
    let mut bench = Bench::new(peer());
    bench.net.records.push(("shop.b.example.", 50, alias("cdn.b.example.")));
    bench.net.records.push(("cdn.b.example.", 200, alias("web.b.example.")));
    let answer = bench.ask("shop.b.example.", RecordType::AAAA);
    assert_eq!(addresses(&answer), [(ip(PEER), 50)]);
    let owners: Vec<String> = answer.answers.iter().map(|record| record.name.to_ascii()).collect();
    assert_eq!(owners, ["shop.b.example.", "cdn.b.example.", "web.b.example."]);
    // One that ends nowhere, and one without end.
    bench.net.records.push(("gone.b.example.", 50, alias("nowhere.b.example.")));
    let answer = bench.ask("gone.b.example.", RecordType::AAAA);
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    bench.net.records.push(("loop.b.example.", 50, alias("loop.b.example.")));
    assert!(addresses(&bench.ask("loop.b.example.", RecordType::AAAA)).is_empty());
}

#[test]
fn the_ulid_record_is_that_of_the_name_the_addresses_are_of() {
    let mut bench = Bench::new(peer());
    bench.net.records.push(("lb.b.example.", 50, alias("web.b.example.")));
    bench.net.records.push(("old.b.example.", 50, ulid("fc00:b:0:1::77")));
    bench.say(HOST, &question("lb.b.example.", RecordType::AAAA).to_vec().unwrap());
    let first = bench.sent.remove(0);
    let first = bench.response(&first).unwrap();
    bench.give(&first);
    // The other question is answered with another chain.
    bench.net.records.retain(|(owner, ..)| *owner != "lb.b.example.");
    bench.net.records.push(("lb.b.example.", 50, alias("old.b.example.")));
    bench.run();
    let (_, answer, _) = bench.replies.pop().unwrap();
    assert_eq!(addresses(&answer), [(ip(PEER), 50)]);
    assert_eq!(bench.questions, 3);
}

// RFC 2308 §5: the smaller of the SOA's TTL and its MINIMUM.
#[test]
fn what_is_not_there_is_remembered() {
    let mut bench = Bench::new(peer());
    bench.net.records.push(("four.example.", 60, raw(1, vec![192, 0, 2, 1])));
    for (name, code) in [("none.example.", ResponseCode::NXDomain), ("four.example.", ResponseCode::NoError)] {
        let asked = bench.questions;
        let answer = bench.ask(name, RecordType::AAAA);
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, 0));
        assert_eq!(answer.authorities[0].ttl, 60);
        let once = bench.questions - asked;
        bench.pass(59);
        assert_eq!(bench.ask(name, RecordType::AAAA).authorities[0].ttl, 1);
        assert_eq!(bench.questions - asked, once);
        bench.pass(1);
        bench.ask(name, RecordType::AAAA);
        assert!(bench.questions - asked > once);
    }
}

// RFC 6147 §3: who validates by itself gets what was signed; who wants signatures only gets what there is.
#[test]
fn validating_hosts_get_what_was_signed() {
    let mut bench = Bench::new(peer());
    for (dnssec_ok, checking_disabled, rewritten) in [(true, true, false), (true, false, true), (false, true, true)] {
        let mut query = question("web.b.example.", RecordType::AAAA);
        let mut edns = Edns::new();
        edns.set_dnssec_ok(dnssec_ok);
        query.set_edns(edns);
        query.metadata.checking_disabled = checking_disabled;
        let answer = bench.ask_as(HOST, query);
        assert_eq!(addresses(&answer).len(), if rewritten { 1 } else { 2 });
        assert_eq!(addresses(&answer)[0].0 == ip(PEER), rewritten);
        assert_eq!(answer.metadata.checking_disabled, checking_disabled);
    }
}

#[test]
fn additional_addresses_are_left_out_and_others_are_not() {
    let mut bench = Bench::new(vec![("example.", 300, RData::MX(MX::new(5, wire("mail.example."))))]);
    bench.net.additional = vec![("mail.example.", raw(1, vec![192, 0, 2, 1]))];
    assert_eq!(bench.ask("example.", RecordType::MX).additionals.len(), 1);
    bench.alg.flush();
    bench.net.additional.push(("mail.example.", aaaa("2001:db8:b1::9")));
    let answer = bench.ask("example.", RecordType::MX);
    assert_eq!((answer.answers.len(), answer.additionals.len()), (1, 0));
}

#[test]
fn hints_of_service_records_become_cmulas() {
    let hint = |at: &str| (SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(vec![AAAA(ip(at))])));
    let port = (SvcParamKey::Port, SvcParamValue::Port(8443));
    let own = SVCB::new(1, WireName::root(), vec![port.clone(), hint("2001:db8:b1::9")]);
    let other = SVCB::new(2, wire("plain.example."), vec![hint("2001:db8:c::1")]);
    let mut bench = Bench::new(peer());
    bench.net.records.push(("web.b.example.", 300, RData::HTTPS(HTTPS(own))));
    bench.net.records.push(("web.b.example.", 300, RData::HTTPS(HTTPS(other))));
    let answer = bench.ask("web.b.example.", RecordType::HTTPS);
    let services: Vec<&SVCB> = answer
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::HTTPS(HTTPS(service)) => service,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(services[0].svc_params, [port, hint(PEER)]);
    assert_eq!(services[1].svc_params, [hint("2001:db8:c::1")], "an endpoint without a ULID record");
    assert_eq!((answer.answers[0].ttl, bench.count(Event::Rehinted)), (100, 1));
}

#[test]
fn own_names_are_answered_without_asking_anybody() {
    let mut bench = Bench::new(Vec::new());
    assert_eq!(addresses(&bench.ask("H1.a.example.", RecordType::AAAA)), [(ip(HOST), 60)]);
    let pointer = bench.ask(&Name::of_address(ip(HOST)).to_string(), RecordType::PTR);
    assert_eq!(pointer.answers[0].data, RData::PTR(PTR(wire("h1.a.example."))));
    assert_eq!((bench.questions, bench.count(Event::QuestionsZone)), (0, 2));
}

#[test]
fn several_identifiers_are_all_given_and_bad_ones_are_not() {
    let mut bench = Bench::new(peer());
    let bad = ["fc00:a:0:1::99", "2001:db8::7"];
    bad.iter().for_each(|bad| bench.net.records.push(("web.b.example.", 100, ulid(bad))));
    bench.net.records.push(("web.b.example.", 100, raw(ULID_KIND, vec![1; 15])));
    bench.net.records.push(("web.b.example.", 100, ulid("fc00:b:0:1::a")));
    let answer = bench.ask("web.b.example.", RecordType::AAAA);
    assert_eq!(addresses(&answer).iter().map(|(at, _)| *at).collect::<Vec<_>>(), [ip(PEER), ip("fc00:b:0:1::a")]);
    assert_eq!(bench.count(Event::UlidInvalid), 1);
    assert_eq!(bench.notes, [Note::Invalid("web.b.example.".into())]);
    // A CMULA among the addresses is no locator, and without a ULID record nothing is learned from it.
    bench.net.records = vec![("ula.example.", 60, aaaa("fc00:b:0:1::9"))];
    assert_eq!(addresses(&bench.ask("ula.example.", RecordType::AAAA)).len(), 1);
    assert_eq!(bench.asked.len(), 1);
}

#[test]
fn long_answers_are_truncated_to_what_the_host_takes() {
    let mut bench = Bench::new(Vec::new());
    for at in 0..40 {
        bench.net.records.push(("big.example.", 300, aaaa(&format!("2001:db8:c::{at}"))));
    }
    let answer = bench.ask("big.example.", RecordType::AAAA);
    assert!(answer.metadata.truncation && answer.answers.is_empty(), "512 octets");
    let mut query = question("big.example.", RecordType::AAAA);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    query.set_edns(edns);
    let answer = bench.ask_as(HOST, query.clone());
    assert!(!answer.metadata.truncation && answer.answers.len() == 40);
    for at in 40..60 {
        bench.net.records.push(("big.example.", 300, aaaa(&format!("2001:db8:c::{at}"))));
    }
    bench.alg.flush();
    assert!(bench.ask_as(HOST, query.clone()).metadata.truncation, "never more than fits any link");
    // Over TCP all of it.
    let mut out = Vec::new();
    let client = Client::Stream(ip(HOST), 9);
    bench.alg.question(bench.now, &mut bench.rng, client, &query.to_vec().unwrap(), &mut out);
    bench.take(out);
    assert_eq!(bench.replies.pop().unwrap().1.answers.len(), 60);
}

#[test]
fn what_cannot_be_passed_on_is_refused() {
    let mut bench = Bench::new(peer());
    assert_eq!(bench.ask("web.b.example.", RecordType::AXFR).metadata.response_code, ResponseCode::NotImp);
    let any = bench.ask("web.b.example.", RecordType::ANY);
    assert!(matches!(any.answers[0].data, RData::HINFO(_)), "RFC 8482 §4.2");
    let mut chaos = question("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(hickory_proto::rr::DNSClass::CH);
    assert_eq!(bench.ask_as(HOST, chaos).metadata.response_code, ResponseCode::Refused);
    let mut edns = Edns::new();
    edns.set_version(1);
    let mut query = question("web.b.example.", RecordType::AAAA);
    query.set_edns(edns);
    bench.say(HOST, &query.to_vec().unwrap());
    assert_eq!(u16::from(bench.replies.pop().unwrap().1.metadata.response_code), 16, "BADVERS");
    let mut update = question("web.b.example.", RecordType::SOA);
    update.metadata.op_code = OpCode::Update;
    bench.say(HOST, &update.to_vec().unwrap());
    assert_eq!(bench.replies.pop().unwrap().1.metadata.response_code, ResponseCode::NotImp);
    assert_eq!(bench.questions, 0);
}

// RFC 8020, RFC 2308 §2.2
#[test]
fn a_name_that_only_the_box_knows_has_no_other_records_and_exists_all_the_same() {
    let mut bench = Bench::new(Vec::new());
    let reverse = Name::of_address(ip(HOST)).to_string();
    for (name, kind) in [("H1.a.example.", RecordType::A), ("a.example.", RecordType::MX), (&reverse, RecordType::TXT)]
    {
        // Once from the server, once from the cache.
        for _ in 0..2 {
            let answer = bench.ask(name, kind);
            let code = answer.metadata.response_code;
            assert_eq!((code, answer.answers.len()), (ResponseCode::NoError, 0), "{name}");
            let [soa] = answer.authorities.as_slice() else { panic!("{answer:?}") };
            assert_eq!((soa.record_type(), soa.ttl), (RecordType::SOA, 60));
        }
    }
    assert_eq!(bench.questions, 3);
    assert_eq!(bench.ask("h2.a.example.", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
    // As it is when it is asked: hosts come and go while answers are kept.
    bench.alg.set_names([("x.h2", Ulid(ip(HOST)))]);
    assert_eq!(bench.ask("h2.a.example.", RecordType::A).metadata.response_code, ResponseCode::NoError);
    assert_eq!(bench.ask("h1.a.example.", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(bench.questions, 4);
}

// RFC 1035 §4.1.1, RFC 6891 §6.1.3
#[test]
fn what_is_the_servers_own_is_not_said_again() {
    let mut bench = Bench::new(peer());
    bench.net.authoritative = true;
    for _ in 0..2 {
        assert!(!bench.ask("web.b.example.", RecordType::AAAA).metadata.authoritative);
        assert!(!bench.ask("web.b.example.", RecordType::MX).metadata.authoritative);
    }
    // Its trouble with our EDNS is not the host's with us.
    bench.net.fails = vec![(RecordType::TXT, ResponseCode::BADVERS)];
    for edns in [None, Some(Edns::new())] {
        let mut asked = question("web.b.example.", RecordType::TXT);
        asked.edns = edns;
        assert_eq!(bench.ask_as(HOST, asked).metadata.response_code, ResponseCode::ServFail);
    }
}
