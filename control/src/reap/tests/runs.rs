//! The worked runs of spec §9 (RFC 5534 Appendix A and more), to the millisecond: one-way delay 50 ms, no jitter.
//!
//! Where the RFC leaves the order of pairs open, the runs were worked with plain list order ([`Order::Preferred`]),
//! except R7, which is the RFC's own.

use State::{Exploring, InboundOk, Operational};

use super::network::{A, B, Fault, Network, What, millis};
use super::*;

fn network(locators_a: u16, locators_b: u16) -> Network {
    Network::new(Config { order: Order::Preferred, ..exact() }, [locators_a, locators_b], 1)
}

// R1, R5534-014
#[test]
fn r1_idle_contexts_say_nothing() {
    let mut network = network(2, 2);
    network.run(at(3_600_000));
    assert!(network.log.is_empty());
}

// R2, R5534-028
#[test]
fn r2_two_way_traffic_needs_no_reap_packet() {
    let mut network = network(2, 2);
    network.stream(A, 0);
    network.stream(B, 300);
    network.run(at(600_000));
    assert_eq!(network.reap_packets().count(), 0);
}

// R3, R5534-009, R5534-017, R5534-086
#[test]
fn r3_one_way_traffic_is_paid_for_with_keepalives() {
    let mut network = network(1, 1);
    network.stream(A, 0);
    network.run(at(60_000));
    let expected: Vec<_> = (1..=11).map(|n| (n * 5_000 + 50, B, (1, 1))).collect();
    assert_eq!(network.keepalives(), expected);
    assert!(network.probes().is_empty());
}

fn total_failure_of_b1() -> Network {
    let mut network = network(1, 2);
    network.stream(A, 0);
    network.stream(B, 300);
    network.cut(10_000, Some(b(1)), None);
    network.cut(10_000, None, Some(b(1)));
    network
}

// R4, R5534-009, R5534-098, R5534-112
#[test]
fn r4_total_failure_of_one_locator() {
    let mut network = total_failure_of_b1();
    network.run(at(40_000));
    let expected = [
        (24_300, B, (1, 1), Exploring),
        (24_800, B, (2, 1), Exploring),
        (24_850, A, (1, 2), InboundOk),
        (24_900, B, (2, 1), Operational),
    ];
    assert_eq!(network.probes(), expected);
    assert_eq!(network.moves(), [(24_900, B, (1, 1), (2, 1)), (24_950, A, (1, 1), (1, 2))]);
    assert!(network.healthy());
    let told = |node: usize, wanted: &Output| {
        network.log.iter().filter(|entry| entry.node == node && entry.what == What::Told(wanted.clone())).count()
    };
    assert_eq!(told(B, &Output::ExplorationStarted { reason: Reason::SendTimeout }), 1);
    assert_eq!(told(A, &Output::ExplorationStarted { reason: Reason::Peer }), 1);
    let failed = LocatorPair { local: b(1), peer: a(1) };
    assert_eq!(told(B, &Output::Failed { pair: failed, probed: at(24_300) }), 1);
}

// R4, its variant
#[test]
fn r4_with_the_last_probe_lost_takes_one_retransmission_more() {
    let mut network = total_failure_of_b1();
    let (from, until) = (at(24_900), at(24_901));
    network.faults.push(Fault { from, until, source: None, target: None });
    network.run(at(40_000));
    let expected = [
        (24_300, B, (1, 1), Exploring),
        (24_800, B, (2, 1), Exploring),
        (24_850, A, (1, 2), InboundOk),
        (24_900, B, (2, 1), Operational),
        (25_350, A, (1, 2), InboundOk),
        (25_400, B, (2, 1), Operational),
    ];
    assert_eq!(network.probes(), expected);
    assert_eq!(network.moves(), [(24_900, B, (1, 1), (2, 1)), (25_450, A, (1, 1), (1, 2))]);
}

// R5
#[test]
fn r5_forward_path_of_one_way_traffic_breaks() {
    let mut network = network(1, 2);
    network.stream(A, 0);
    network.cut(10_000, Some(a(1)), Some(b(1)));
    network.run(at(35_000));
    let expected = [
        (31_000, A, (1, 1), Exploring),
        (31_500, A, (1, 2), Exploring),
        (31_550, B, (2, 1), InboundOk),
        (31_600, A, (1, 2), Operational),
    ];
    assert_eq!(network.probes(), expected);
    assert_eq!(network.moves(), [(31_600, A, (1, 1), (1, 2)), (31_650, B, (1, 1), (2, 1))]);
    let before: Vec<_> = network.keepalives().into_iter().take_while(|keepalive| keepalive.0 < 31_000).collect();
    assert_eq!(before, [(5_050, B, (1, 1)), (10_050, B, (1, 1)), (15_050, B, (1, 1))]);
}

// R6, R5534-121: the side that answers also moves.
#[test]
fn r6_only_the_way_back_breaks() {
    let mut network = network(1, 2);
    network.stream(A, 0);
    network.cut(10_000, Some(b(1)), Some(a(1)));
    network.run(at(60_000));
    let sent = network.probes();
    assert_eq!(sent[..2], [(21_000, A, (1, 1), Exploring), (21_050, B, (1, 1), InboundOk)]);
    assert_eq!(sent[2], (21_500, A, (1, 2), Exploring));
    assert!(sent[3..].contains(&(21_550, B, (2, 1), InboundOk)));
    assert!(sent[3..].contains(&(21_600, A, (1, 1), Operational)));
    assert_eq!(network.moves(), [(21_650, B, (1, 1), (2, 1))], "A keeps its pair");
    let later: Vec<_> = network.keepalives().into_iter().filter(|keepalive| keepalive.0 > 21_650).collect();
    assert!(!later.is_empty() && later.iter().all(|keepalive| keepalive.2 == (2, 1)));
}

// R7 (RFC 5534 Appendix A, example 5), R5534-010, R5534-082, R5534-122
#[test]
fn r7_one_way_failure_under_two_way_traffic() {
    let mut network = Network::new(exact(), [2, 2], 1);
    network.stream(A, 0);
    network.stream(B, 300);
    network.cut(10_000, Some(a(1)), Some(b(1)));
    network.run(at(60_000));
    let sent = network.probes();
    let expected = [
        (24_300, B, (1, 1), Exploring),
        (24_350, A, (1, 1), InboundOk),
        (24_800, B, (2, 2), Exploring),
        (24_850, A, (2, 2), InboundOk),
    ];
    assert_eq!(sent[..4], expected);
    assert_eq!(network.moves(), [(24_950, A, (1, 1), (2, 2))], "B keeps its pair, since p was reported");
    assert!(network.healthy());
    let answer = network.log.iter().rfind(|entry| entry.at == at(24_850) && entry.node == A).unwrap();
    assert!(matches!(answer.what, What::Probe { received: 2, .. }), "reports p and r: {answer:?}");
}

// R8, R5534-010, R5534-123
#[test]
fn r8_only_one_way_pairs_are_left() {
    let mut network = network(2, 2);
    network.stream(A, 0);
    network.stream(B, 300);
    for (source, target) in [(1, 1), (2, 1), (2, 2)] {
        network.cut(10_000, Some(a(source)), Some(b(target)));
    }
    for (source, target) in [(1, 1), (2, 1), (2, 2)] {
        network.cut(10_000, Some(b(source)), Some(a(target)));
    }
    network.run(at(60_000));
    let expected = [
        (24_300, B, (1, 1), Exploring),
        (24_800, B, (1, 2), Exploring),
        (24_850, A, (2, 1), InboundOk),
        (25_300, B, (2, 1), Exploring),
        (25_350, A, (1, 2), InboundOk),
        (25_400, B, (1, 2), Operational),
    ];
    assert_eq!(network.probes(), expected);
    assert_eq!(network.moves(), [(25_400, B, (1, 1), (1, 2)), (25_450, A, (1, 1), (1, 2))]);
    assert!(network.healthy());
}

// R9: no livelock when both sides notice at once
#[test]
fn r9_both_sides_notice_at_once() {
    let mut network = network(2, 2);
    network.stream(A, 0);
    network.stream(B, 0);
    network.faults.push(Fault { from: at(10_000), until: at(40_001), source: None, target: None });
    network.run(at(120_000));
    for node in [A, B] {
        let sent: Vec<_> = network.probes().into_iter().filter(|probe| probe.1 == node).collect();
        let times: Vec<u64> = sent.iter().map(|probe| probe.0).collect();
        assert_eq!(times, [25_000, 25_500, 26_000, 26_500, 27_500, 29_500, 33_500, 41_050, 41_100]);
        let states: Vec<State> = sent[7..].iter().map(|probe| probe.3).collect();
        assert_eq!(states, [InboundOk, Operational]);
    }
    assert!(network.moves().is_empty() && network.healthy());
}

// R10, R5534-042 to -046, R5534-101, R5534-013: payload uses one pair and no other
#[test]
fn r10_permanent_outage() {
    let mut network = network(2, 2);
    network.stream(A, 0);
    network.stream(B, 0);
    network.cut(10_000, None, None);
    network.run(at(25_000 + 600_000));
    let offsets = [0, 500, 1_000, 1_500, 2_500, 4_500, 8_500, 16_500, 32_500, 64_500]
        .into_iter()
        .chain((1..=8).map(|n| 64_500 + n * 60_000));
    let expected: Vec<u64> = offsets.map(|offset| 25_000 + offset).collect();
    for node in [A, B] {
        let sent: Vec<_> = network.probes().into_iter().filter(|probe| probe.1 == node).collect();
        assert_eq!(sent.iter().map(|probe| probe.0).collect::<Vec<_>>(), expected);
        let pairs: Vec<_> = sent.iter().map(|probe| probe.2).collect();
        assert_eq!(pairs[..5], [(1, 1), (1, 2), (2, 1), (2, 2), (1, 1)], "R5534-041: all in turn, then again");
        let hints =
            network.log.iter().filter(|entry| entry.node == node && entry.what == What::Told(Output::BackedOff));
        assert_eq!(hints.map(|entry| millis(entry.at)).collect::<Vec<_>>(), [89_500], "R5534-047");
    }
    let old =
        |entry: &network::Entry| !matches!(entry.what, What::Payload(pair) if pair.local != a(1) && pair.local != b(1));
    assert!(network.log.iter().all(old), "payload stays on the old pair");
    // E14
    let count = network.reap_packets().count();
    for node in [A, B] {
        network.nodes[node].payload = None;
        network.nodes[node].reap.stop();
    }
    network.run(at(2_000_000));
    assert_eq!(network.reap_packets().count(), count);
    assert!(network.nodes.iter().all(|node| node.reap.deadline().is_none()));
    assert_eq!(Operational, network.nodes[A].reap.state());
}
