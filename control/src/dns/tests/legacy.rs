//! IPv4 addresses of names that have a CMULA.

use hickory_proto::rr::rdata::A;
use hickory_proto::rr::rdata::svcb::Mandatory;

use super::*;

fn a(last: u8) -> RData {
    RData::A(A::new(192, 0, 2, last))
}

fn legacy(message: &Message) -> usize {
    message.answers.iter().filter(|record| record.record_type() == RecordType::A).count()
}

/// A peer with IPv4 addresses besides.
fn both() -> Bench {
    let mut bench = Bench::new(peer());
    bench.net.records.push(("web.b.example.", 300, a(1)));
    bench.net.records.push(("web.b.example.", 300, a(2)));
    bench.alg.set_withholding(true);
    bench
}

/// No data, as RFC 2308 §2.2 has it: an SOA record of `owner` that says for how long.
fn assert_no_data(answer: &Message, owner: &str) {
    assert_no_data_for(answer, owner, 10);
}

fn assert_no_data_for(answer: &Message, owner: &str, ttl: u32) {
    assert_eq!((answer.metadata.response_code, legacy(answer)), (ResponseCode::NoError, 0));
    let [record] = answer.authorities.as_slice() else { panic!("{answer:?}") };
    let RData::SOA(soa) = &record.data else { panic!("{record:?}") };
    assert_eq!((record.name.to_ascii().as_str(), record.ttl, soa.minimum), (owner, ttl, 10));
    assert!(!answer.metadata.authentic_data && !answer.metadata.authoritative);
}

#[test]
fn addresses_are_withheld_whichever_is_asked_first() {
    for a_first in [true, false] {
        let mut bench = both();
        let mut kinds = [RecordType::A, RecordType::AAAA];
        if !a_first {
            kinds.reverse();
        }
        for kind in kinds {
            let answer = bench.ask("web.b.example.", kind);
            match kind {
                RecordType::A => assert_no_data(&answer, "web.b.example."),
                _ => assert_eq!(addresses(&answer), [(ip(PEER), 100)]),
            }
        }
        assert_eq!(bench.questions, 3, "A, AAAA and ULID, each once");
        let [(ulids, Some((learned, good)))] = bench.choices.as_slice() else { panic!("{:?}", bench.choices) };
        assert_eq!((ulids.as_slice(), *good), (&[Ulid(ip(PEER))][..], Duration::from_secs(100)));
        assert_eq!(learned.locators.len(), 2, "the handshake can begin");
    }
}

#[test]
fn all_three_are_asked_at_once_and_both_questions_may_be_under_way_together() {
    let mut bench = both();
    for (number, kind) in [(1, RecordType::A), (2, RecordType::AAAA)] {
        let mut message = question("web.b.example.", kind);
        message.metadata.id = number;
        bench.say(HOST, &message.to_vec().unwrap());
    }
    assert_eq!(bench.sent.len(), 3);
    bench.run();
    assert_eq!(bench.replies.len(), 2);
    assert_eq!((bench.questions, bench.choices.len()), (3, 1));
    assert!(bench.alg.deadline().is_none(), "nothing is left over");
}

#[test]
fn the_choice_is_made_anew_for_each_answer_also_from_the_cache() {
    let mut bench = both();
    assert_no_data(&bench.ask("web.b.example.", RecordType::A), "web.b.example.");
    bench.withholds = false;
    bench.pass(40);
    let answer = bench.ask("web.b.example.", RecordType::A);
    assert_eq!((legacy(&answer), answer.answers[0].ttl), (2, 260), "what was kept is all there was");
    bench.withholds = true;
    bench.pass(5);
    assert_no_data(&bench.ask("web.b.example.", RecordType::A), "web.b.example.");
    assert_eq!(bench.questions, 3);
    // The ULID record's time is over, the addresses' is not: asked again, and the answer waits for that.
    bench.pass(60);
    assert_no_data(&bench.ask("web.b.example.", RecordType::A), "web.b.example.");
    assert_eq!((bench.questions, bench.choices.len()), (5, 4));
}

#[test]
fn addresses_stay_where_there_is_no_cmula_or_nobody_can_tell() {
    // No ULID record.
    let mut bench = both();
    bench.net.records.retain(|(.., data)| data.record_type() != RecordType::from(ULID_KIND));
    assert_eq!(legacy(&bench.ask("web.b.example.", RecordType::A)), 2);
    // A ULID record, but no address by which the CMULA could be reached: AAAA is answered without it too.
    let mut bench = both();
    bench.net.records.retain(|(.., data)| data.record_type() != RecordType::AAAA);
    assert_eq!(legacy(&bench.ask("web.b.example.", RecordType::A)), 2);
    // Nobody answers for one of them.
    for silent in [RecordType::AAAA, RecordType::from(ULID_KIND)] {
        for failing in [false, true] {
            let mut bench = both();
            match failing {
                true => bench.net.fails.push((silent, ResponseCode::ServFail)),
                false => bench.net.silent.push(silent),
            }
            assert_eq!(legacy(&bench.ask("web.b.example.", RecordType::A)), 2, "{silent} {failing}");
            assert!(bench.choices.is_empty());
        }
    }
    let mut bench = both();
    bench.net.silent.push(RecordType::AAAA);
    bench.ask("web.b.example.", RecordType::A);
    assert_eq!(bench.count(Event::AUnknown), 1);
}

#[test]
fn aliases_stay_and_the_end_of_them_has_no_data() {
    let mut bench = both();
    bench.net.records.push(("shop.b.example.", 5, alias("cdn.b.example.")));
    bench.net.records.push(("cdn.b.example.", 200, alias("web.b.example.")));
    let answer = bench.ask("shop.b.example.", RecordType::A);
    assert_no_data_for(&answer, "web.b.example.", 5);
    let chain: Vec<_> = answer.answers.iter().map(|it| (it.name.to_ascii(), it.record_type(), it.ttl)).collect();
    let link = |name: &str, ttl| (name.to_owned(), RecordType::CNAME, ttl);
    assert_eq!(chain, [link("shop.b.example.", 5), link("cdn.b.example.", 10)]);
    // What has no addresses is passed as it is, and nobody is asked to choose.
    bench.net.records.push(("gone.b.example.", 50, alias("nowhere.b.example.")));
    assert_eq!(bench.ask("gone.b.example.", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(bench.choices.len(), 1);
}

#[test]
fn who_validates_gets_what_was_signed() {
    let mut bench = both();
    let ask = |bench: &mut Bench, checking_disabled| {
        let mut query = question("web.b.example.", RecordType::A);
        let mut edns = Edns::new();
        edns.set_dnssec_ok(true).set_max_payload(1232);
        query.set_edns(edns);
        query.metadata.checking_disabled = checking_disabled;
        bench.ask_as(HOST, query)
    };
    assert_eq!(legacy(&ask(&mut bench, true)), 2, "DO and CD");
    assert_no_data(&ask(&mut bench, false), "web.b.example.");
    // Whoever asks for everything gets no address at all (RFC 8482).
    assert_eq!(legacy(&bench.ask("web.b.example.", RecordType::ANY)), 0);
}

#[test]
fn hosts_of_the_site_need_no_other_address() {
    let mut bench = both();
    bench.net.records.push(("h1.a.example.", 300, a(9)));
    assert_no_data(&bench.ask("h1.a.example.", RecordType::A), "h1.a.example.");
    let (ulids, learned) = &bench.choices[0];
    assert_eq!((ulids.as_slice(), learned.is_none()), (&[Ulid(ip(HOST))][..], true));
    assert_eq!(bench.questions, 1, "what is known is not asked for");
}

#[test]
fn without_the_setting_nothing_changes() {
    let mut bench = both();
    bench.alg.set_withholding(false);
    assert_eq!(legacy(&bench.ask("web.b.example.", RecordType::A)), 2);
    assert_eq!((bench.questions, bench.choices.len()), (1, 0));
    // It counts from the next question on.
    bench.alg.set_withholding(true);
    assert_no_data(&bench.ask("web.b.example.", RecordType::A), "web.b.example.");
}

#[test]
fn service_records_lose_their_hints_for_ipv4_with_the_addresses() {
    let service = |target: &str, params| RData::HTTPS(HTTPS(SVCB::new(1, wire(target), params)));
    let four = (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(vec![A::new(192, 0, 2, 1)])));
    let must = (SvcParamKey::Mandatory, SvcParamValue::Mandatory(Mandatory(vec![SvcParamKey::Ipv4Hint])));
    let mut bench = both();
    bench.net.records.push(("web.b.example.", 300, service(".", vec![must, four.clone()])));
    bench.net.records.push(("plain.example.", 300, service(".", vec![four])));
    let hints = |message: &Message| match &message.answers[0].data {
        RData::HTTPS(HTTPS(service)) => service.svc_params.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(hints(&bench.ask("web.b.example.", RecordType::HTTPS)), 0, "and nothing mandatory that is not there");
    assert_eq!(bench.choices.len(), 1);
    bench.withholds = false;
    assert_eq!(hints(&bench.ask("web.b.example.", RecordType::HTTPS)), 2);
    // A name without a CMULA keeps them.
    bench.withholds = true;
    assert_eq!(hints(&bench.ask("plain.example.", RecordType::HTTPS)), 1);
}

#[test]
fn what_may_not_be_kept_is_asked_for_again_and_nobody_waits_for_ever() {
    let mut bench = both();
    for record in &mut bench.net.records {
        record.1 = 0;
    }
    assert_no_data(&bench.ask("web.b.example.", RecordType::A), "web.b.example.");
    assert_no_data(&bench.ask("web.b.example.", RecordType::A), "web.b.example.");
    assert_eq!(bench.alg.status().waiting, 0);
    bench.net.dead = vec![0, 1];
    assert_eq!(bench.ask("web.b.example.", RecordType::A).metadata.response_code, ResponseCode::ServFail);
    assert_eq!(bench.alg.status().waiting, 0);
}
