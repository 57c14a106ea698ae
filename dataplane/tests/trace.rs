//! What a trace tells of packets, and that nothing but the trace changes by it.

mod common;

use common::{Bench, LAN, Side, X, packet};
use dataplane::counters::{Count, DropReason};
use dataplane::link::Workers;
use dataplane::snapshot::Block;
use dataplane::trace::{Decision, Filter, Record};
use dataplane::translate::BURST;
use dataplane::wire::ipv6::protocol;
use dataplane::wire::shim6::PayloadHeader;

fn every(per_second: u32) -> Filter {
    Filter { per_second, ..Filter::default() }
}

fn records(bench: &mut Bench) -> Vec<Record> {
    let mut records = Vec::new();
    bench.control.traced(usize::MAX, &mut |record| records.push(*record));
    records
}

fn send(bench: &mut Bench, host: u16, peer: u16) {
    let frame = bench.host_frame(host, peer, protocol::UDP, &[7; 40]);
    bench.send(LAN, &frame);
    bench.run();
}

#[test]
fn a_translated_packet_is_shown_before_and_after_with_its_context() {
    let mut bench = Bench::new(Side::A);
    let install = bench.open_alone(1, 2, X);
    bench.control.trace(Some(every(100)), BURST);
    bench.run();
    send(&mut bench, 1, 2);
    let sent = bench.sent(X);
    let [record] = records(&mut bench)[..] else { panic!("one record") };
    assert_eq!((record.decision, record.reason, record.port), (Decision::Forward(X), None, LAN));
    assert_eq!(record.before.addresses(), Some([Side::A.ulid(1), Side::B.ulid(2)]));
    assert_eq!(record.after.addresses(), Some([install.locators.local.0, install.locators.peer.0]));
    assert_eq!(record.after.bytes(), &sent[0][..record.after.bytes().len()]);
    let context = record.context.unwrap();
    assert_eq!((context.local_tag, context.peer_tag), (install.local_tag, install.peer_tag));
    assert!(context.live && !context.standby && !context.forked);
    // And the way back.
    let header = PayloadHeader { next_header: protocol::UDP, tag: install.local_tag }.emit();
    let back = packet(Side::B.locator(2, X), Side::A.locator(1, X), protocol::SHIM6, &[&header[..], &[7; 40]].concat());
    bench.send(X, &bench.provider_frame(X, &back));
    bench.run();
    let [record] = records(&mut bench)[..] else { panic!("one record") };
    assert_eq!((record.decision, record.context.unwrap().local_tag), (Decision::Forward(LAN), install.local_tag));
    assert_eq!(record.after.addresses(), Some([Side::B.ulid(2), Side::A.ulid(1)]));
}

#[test]
fn a_dropped_packet_is_told_with_its_reason() {
    let mut bench = Bench::new(Side::A);
    bench.control.trace(Some(every(100)), BURST);
    bench.run();
    let header = PayloadHeader { next_header: protocol::UDP, tag: bench.context(1, 2, X).local_tag }.emit();
    let unknown =
        packet(Side::B.locator(2, X), Side::A.locator(1, X), protocol::SHIM6, &[&header[..], &[7; 9]].concat());
    bench.send(X, &bench.provider_frame(X, &unknown));
    bench.run();
    let [record] = records(&mut bench)[..] else { panic!("one record") };
    assert_eq!((record.decision, record.reason), (Decision::Drop, Some(DropReason::UnknownTag)));
    // What only the settling of a verdict decides, too: there is room for so many pairs that wait.
    send(&mut bench, 1, 2);
    assert_eq!(records(&mut bench)[0].decision, Decision::Hold);
    for peer in 0..2000 {
        send(&mut bench, 1, 100 + peer);
        if let Some(record) = records(&mut bench).iter().find(|it| it.reason.is_some()) {
            assert_eq!((record.decision, record.reason), (Decision::Hold, Some(DropReason::HoldFull)));
            return;
        }
        bench.wait(10);
    }
    panic!("no pair was refused");
}

#[test]
fn filters_choose_by_address_tag_provider_and_reason() {
    let mut bench = Bench::new(Side::A);
    let install = bench.open_alone(1, 2, X);
    bench.open_alone(1, 3, X);
    bench.run();
    let mut told = |filter: Filter| {
        bench.control.trace(Some(Filter { per_second: 1000, ..filter }), BURST);
        bench.run();
        for peer in [2, 3] {
            send(&mut bench, 1, peer);
        }
        bench.wait(2000);
        records(&mut bench).len()
    };
    let block = |host: u16| Some(Block::new(Side::B.ulid(host), 128));
    let locator = Some(Block::new(install.locators.local.0, 64));
    let prefix = (install.locators.local.0.to_bits() >> 64) as u64;
    assert_eq!(told(Filter::default()), 2);
    assert_eq!(told(Filter { addresses: [block(2), None], ..Filter::default() }), 1);
    assert_eq!(told(Filter { addresses: [block(2), block(3)], ..Filter::default() }), 0);
    assert_eq!(told(Filter { addresses: [block(3), locator], ..Filter::default() }), 1);
    assert_eq!(told(Filter { tag: Some(install.local_tag), ..Filter::default() }), 1);
    assert_eq!(told(Filter { tag: Some(install.peer_tag), ..Filter::default() }), 1);
    assert_eq!(told(Filter { provider: Some(prefix), ..Filter::default() }), 2);
    assert_eq!(told(Filter { provider: Some(prefix ^ 1), ..Filter::default() }), 0);
    assert_eq!(told(Filter { dropped: true, ..Filter::default() }), 0);
    assert_eq!(told(Filter { reason: Some(DropReason::HopLimit), ..Filter::default() }), 0);
}

#[test]
fn a_trace_is_bounded_and_what_it_leaves_out_is_counted() {
    let mut bench = Bench::new(Side::A);
    bench.open_alone(1, 2, X);
    bench.control.trace(Some(every(5)), BURST);
    bench.run();
    for _ in 0..20 {
        send(&mut bench, 1, 2);
    }
    assert_eq!((bench.count(Count::Traced), bench.count(Count::TraceLost)), (5, 15));
    assert_eq!((records(&mut bench).len(), bench.sent(X).len()), (5, 20));
    // Nobody fetches the records: packets go on, and records are lost.
    bench.control.trace(Some(every(1_000_000)), BURST);
    bench.run();
    for _ in 0..600 {
        send(&mut bench, 1, 2);
    }
    assert_eq!((bench.count(Count::Traced), bench.count(Count::TraceLost)), (5 + 512, 15 + 88));
    assert_eq!((records(&mut bench).len(), bench.sent(X).len()), (512, 600));
    // And when it is over it is over.
    bench.control.trace(None, BURST);
    bench.run();
    send(&mut bench, 1, 2);
    assert_eq!((records(&mut bench).len(), bench.count(Count::Traced)), (0, 517));
}

/// The same packets with and without: nothing else differs.
#[test]
fn tracing_changes_nothing_but_itself() {
    let run = |traced: bool| {
        let mut bench = Bench::new(Side::A);
        bench.open_alone(1, 2, X);
        if traced {
            bench.control.trace(Some(every(1000)), BURST);
        }
        bench.run();
        for (host, peer) in [(1, 2), (1, 2), (1, 9), (2, 2), (1, 2)] {
            send(&mut bench, host, peer);
        }
        let odd = packet(Side::B.locator(2, X), Side::A.ulid(1), protocol::UDP, &[1; 20]);
        bench.send(X, &bench.provider_frame(X, &odd));
        bench.run();
        let counts: Vec<u64> = [Count::TranslatedOut, Count::Held, Count::Transmitted].map(|it| bench.count(it)).into();
        let drops: Vec<u64> = DropReason::ALL.iter().map(|reason| bench.dropped(*reason)).collect();
        (bench.sent(X), bench.sent(LAN), counts, drops)
    };
    assert_eq!(run(true), run(false));
}
