//! Every state against every event: the table of spec §4, which is RFC 5534 §6.

use Act::{Keep, Restart, StartIfIdle, Stop};
use Event::*;
use State::{Exploring, InboundOk, Operational};

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    /// E1
    PayloadIn,
    /// E2
    PayloadOut,
    /// E3
    KeepaliveExpiry,
    /// E4
    SendExpiry,
    /// E5
    Retransmission,
    /// E6
    KeepaliveIn,
    /// E7
    ProbeExploring,
    /// E8
    ProbeInboundOk,
    /// E9
    ProbeOperational,
    /// E10
    IntervalTick,
    /// E11
    BadProbe,
    /// E12
    LocalLocatorLost,
    /// E13
    PeerLocatorBroken,
    /// E14
    Collected,
}

/// What an event does to a timer.
#[derive(Clone, Copy, Debug)]
enum Act {
    Keep,
    Stop,
    StartIfIdle,
    Restart,
}

const KEEPALIVE: Option<State> = None;
const fn probe(state: State) -> Option<State> {
    Some(state)
}

/// Event, state before, state after, packets (a Keepalive or a Probe), Send Timer, Keepalive Timer.
type Row = (Event, State, State, &'static [Option<State>], Act, Act);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    (PayloadIn,         Operational, Operational, &[],                    Stop,        StartIfIdle), // R5534-022, -079
    (PayloadIn,         Exploring,   InboundOk,   &[probe(InboundOk)],    Restart,     Stop), // R5534-080, -085
    (PayloadIn,         InboundOk,   InboundOk,   &[],                    Stop,        Stop), // R5534-081
    (PayloadOut,        Operational, Operational, &[],                    StartIfIdle, Stop), // R5534-020, -087, -090
    (PayloadOut,        Exploring,   Exploring,   &[],                    Stop,        Stop), // R5534-088
    (PayloadOut,        InboundOk,   InboundOk,   &[],                    StartIfIdle, Stop), // R5534-089
    (KeepaliveExpiry,   Operational, Operational, &[KEEPALIVE],           Keep,        Stop), // R5534-091
    (SendExpiry,        Operational, Exploring,   &[probe(Exploring)],    Stop,        Stop), // R5534-029, -092
    (SendExpiry,        InboundOk,   Exploring,   &[probe(Exploring)],    Stop,        Stop), // R5534-092
    (Retransmission,    Exploring,   Exploring,   &[probe(Exploring)],    Stop,        Stop), // R5534-093
    (Retransmission,    InboundOk,   InboundOk,   &[probe(InboundOk)],    StartIfIdle, Stop), // R5534-094
    (KeepaliveIn,       Operational, Operational, &[],                    Stop,        Keep), // R5534-024, -095
    (KeepaliveIn,       Exploring,   InboundOk,   &[probe(InboundOk)],    Restart,     Stop), // R5534-095
    (KeepaliveIn,       InboundOk,   InboundOk,   &[],                    Stop,        Stop), // R5534-095
    (ProbeExploring,    Operational, InboundOk,   &[probe(InboundOk)],    Restart,     Stop), // R5534-096, -033
    (ProbeExploring,    Exploring,   InboundOk,   &[probe(InboundOk)],    Restart,     Stop), // R5534-096
    (ProbeExploring,    InboundOk,   InboundOk,   &[probe(InboundOk)],    Restart,     Stop), // R5534-096
    (ProbeInboundOk,    Operational, Operational, &[probe(Operational)],  Restart,     Stop), // R5534-097
    (ProbeInboundOk,    Exploring,   Operational, &[probe(Operational)],  Restart,     Stop), // R5534-097
    (ProbeInboundOk,    InboundOk,   Operational, &[probe(Operational)],  Restart,     Stop), // R5534-097
    (ProbeOperational,  Operational, Operational, &[],                    Stop,        StartIfIdle), // R5534-100
    (ProbeOperational,  Exploring,   Operational, &[],                    Stop,        Restart), // R5534-100
    (ProbeOperational,  InboundOk,   Operational, &[],                    Stop,        Restart), // R5534-100
    (IntervalTick,      Operational, Operational, &[KEEPALIVE],           Keep,        Keep), // R5534-086
    (BadProbe,          Operational, Operational, &[],                    Keep,        Keep), // R5534-116
    (BadProbe,          Exploring,   Exploring,   &[],                    Keep,        Keep), // R5534-116
    (BadProbe,          InboundOk,   InboundOk,   &[],                    Keep,        Keep), // R5534-116
    (LocalLocatorLost,  Operational, Exploring,   &[probe(Exploring)],    Stop,        Stop), // R5534-031
    (LocalLocatorLost,  Exploring,   Exploring,   &[],                    Keep,        Keep),
    (LocalLocatorLost,  InboundOk,   InboundOk,   &[],                    Keep,        Keep),
    (PeerLocatorBroken, Operational, Exploring,   &[probe(Exploring)],    Stop,        Stop), // R5534-016
    (PeerLocatorBroken, Exploring,   Exploring,   &[],                    Keep,        Keep),
    (PeerLocatorBroken, InboundOk,   InboundOk,   &[],                    Keep,        Keep),
    (Collected,         Operational, Operational, &[],                    Stop,        Stop), // R5534-126
    (Collected,         Exploring,   Operational, &[],                    Stop,        Stop), // R5534-126
    (Collected,         InboundOk,   Operational, &[],                    Stop,        Stop), // R5534-126
];

/// Every way the timers can stand in `state`, each with a time at which nothing is due.
fn starts(state: State) -> Vec<(&'static str, Bench, Instant)> {
    match state {
        Operational => {
            let mut sending = Bench::new(exact());
            sending.payload_out(at(0));
            let mut receiving = Bench::new(exact());
            receiving.payload_in(at(0));
            vec![("idle", Bench::new(exact()), at(100)), ("send", sending, at(100)), ("keepalive", receiving, at(100))]
        }
        Exploring => vec![("exploring", Bench::exploring(exact()), at(15_100))],
        InboundOk => {
            let mut idle = Bench::inbound_ok(exact());
            idle.payload_in(at(15_150));
            vec![("send", Bench::inbound_ok(exact()), at(15_200)), ("idle", idle, at(15_200))]
        }
    }
}

/// Applies `event`, and says when; nothing if it cannot happen.
fn apply(event: Event, bench: &mut Bench, now: Instant) -> Option<(Instant, Vec<Output>)> {
    let timers = bench.reap.timers();
    let expiry = match event {
        KeepaliveExpiry => Some(timers.keepalive?),
        SendExpiry => Some(timers.send?),
        Retransmission => Some(timers.probe?),
        IntervalTick => Some(timers.keepalive_interval?),
        _ => None,
    };
    let now = expiry.unwrap_or(now);
    let mirrored = pair(1, 2);
    let broken = PeerLocator { broken: true, ..b(1).into() };
    let out = match event {
        PayloadIn => bench.payload_in(now),
        PayloadOut => bench.payload_out(now),
        KeepaliveIn => bench.keepalive(now),
        ProbeExploring => bench.probe(now, mirrored, Exploring, &[]),
        ProbeInboundOk => bench.probe(now, mirrored, InboundOk, &[]),
        ProbeOperational => bench.probe(now, mirrored, Operational, &[]),
        KeepaliveExpiry | SendExpiry | Retransmission | IntervalTick => {
            let all = timers;
            if event == SendExpiry {
                // Lets the Send Timer, and nothing else, run out.
                while bench.reap.timers().probe.is_some_and(|probe| probe < now) {
                    let probe = bench.reap.timers().probe?;
                    bench.expire(probe);
                }
                assert_eq!(bench.reap.timers().send, all.send);
            }
            bench.expire(now)
        }
        BadProbe => {
            let mut probe = peer_probe(mirrored, InboundOk, 1, &[]);
            probe.sent.clear();
            let refused = bench.reap.probe(now, &mut bench.rng, b(2), a(1), &probe, &mut bench.out);
            assert_eq!(refused, Err(ProbeRefused::NoSentReport));
            std::mem::take(&mut bench.out)
        }
        LocalLocatorLost => bench.set_locators(now, &[a(2)], &peers(&[b(1), b(2)])),
        PeerLocatorBroken => bench.set_locators(now, &[a(1), a(2)], &[broken, b(2).into()]),
        Collected => {
            bench.reap.stop();
            Vec::new()
        }
    };
    Some((now, out))
}

fn packets(out: &[Output]) -> Vec<Option<State>> {
    let packet = |output: &Output| match output {
        Output::SendKeepalive { .. } => Some(KEEPALIVE),
        Output::SendProbe { state, .. } => Some(Some(*state)),
        _ => None,
    };
    out.iter().filter_map(packet).collect()
}

fn check_timer(act: Act, before: Option<Instant>, after: Option<Instant>, now: Instant, what: &str) {
    let started = Some(now + seconds(15));
    let expected = match act {
        Keep => before,
        Stop => None,
        StartIfIdle => before.or(started),
        Restart => started,
    };
    assert_eq!(after, expected, "{what}");
}

// R5534-076, R5534-077, R5534-082: the RFC's table, row by row, whatever timers run before.
#[test]
fn every_event_does_in_every_state_what_the_table_says() {
    for &(event, state, next, sent, send, keepalive) in TABLE {
        let mut happened = 0;
        for (name, mut bench, now) in starts(state) {
            let before = bench.reap.timers();
            let Some((now, out)) = apply(event, &mut bench, now) else { continue };
            happened += 1;
            let what = format!("{event:?} in {state:?} ({name})");
            assert_eq!(bench.reap.state(), next, "{what}");
            assert_eq!(packets(&out), sent, "{what}");
            let after = bench.reap.timers();
            check_timer(send, before.send, after.send, now, &format!("{what}, Send Timer"));
            check_timer(keepalive, before.keepalive, after.keepalive, now, &format!("{what}, Keepalive Timer"));
            assert_eq!(after.probe.is_some(), next != Operational, "{what}, probe timer");
        }
        assert!(happened > 0, "{event:?} never happened in {state:?}");
    }
}

// The rest of the table: "cannot happen".
#[test]
fn what_the_table_leaves_out_cannot_happen() {
    // R5534-076
    let all = [
        PayloadIn,
        PayloadOut,
        KeepaliveExpiry,
        SendExpiry,
        Retransmission,
        KeepaliveIn,
        ProbeExploring,
        ProbeInboundOk,
        ProbeOperational,
        IntervalTick,
        BadProbe,
        LocalLocatorLost,
        PeerLocatorBroken,
        Collected,
    ];
    for event in all {
        for state in [Operational, Exploring, InboundOk] {
            if TABLE.iter().any(|row| (row.0, row.1) == (event, state)) {
                continue;
            }
            for (name, mut bench, now) in starts(state) {
                assert!(apply(event, &mut bench, now).is_none(), "{event:?} in {state:?} ({name})");
            }
        }
    }
}

// R5534-087: started once, not restarted by each packet.
#[test]
fn send_timer_counts_from_the_first_unanswered_packet() {
    let mut bench = Bench::new(exact());
    for millis in [0, 5_000, 10_000] {
        bench.payload_out(at(millis));
    }
    assert_eq!(bench.reap.deadline(), Some(at(15_000)));
}

// R5534-025, R5534-027, R5534-091, R5534-017
#[test]
fn one_packet_is_paid_for_with_three_keepalives_and_then_silence() {
    let mut bench = Bench::new(exact());
    bench.payload_in(at(0));
    let mut times = Vec::new();
    while let Some(now) = bench.reap.deadline() {
        assert_eq!(bench.expire(now), [Output::SendKeepalive { pair: pair(1, 1) }]);
        times.push(now);
    }
    assert_eq!(times, [at(5_000), at(10_000), at(15_000)]);
}

// R5534-028
#[test]
fn keepalives_stop_when_payload_goes_out() {
    let mut bench = Bench::new(exact());
    bench.payload_in(at(0));
    bench.payload_out(at(4_999));
    assert_eq!(bench.reap.timers(), Timers { send: Some(at(19_999)), ..Timers::default() });
}

// R5534-019, R5534-026: with jitter, gaps stay between half an interval and half a timeout.
#[test]
fn keepalives_are_neither_rare_nor_excessive_with_jitter() {
    for seed in 0..200 {
        let mut bench = Bench::new(Config::default());
        bench.rng = StdRng::seed_from_u64(seed);
        bench.payload_in(at(0));
        let (mut last, mut count) = (at(0), 0);
        while let Some(now) = bench.reap.deadline() {
            let gap = now.since(last);
            assert!(gap >= Duration::from_millis(2_500) && gap <= Duration::from_millis(7_500), "{gap:?}");
            assert_eq!(bench.expire(now).len(), 1);
            (last, count) = (now, count + 1);
        }
        assert!((2..=3).contains(&count) && last <= at(15_000));
    }
}

// R5534-071, R5534-018, R5534-124
#[test]
fn the_peer_sets_our_keepalive_timeout() {
    let mut bench = Bench::new(exact());
    assert!(bench.reap.set_keepalive_timeout(20));
    bench.payload_in(at(0));
    assert_eq!(bench.reap.timers().keepalive, Some(at(20_000)));
    for nonsense in [0, 1, 2] {
        let mut bench = Bench::new(exact());
        bench.reap.set_keepalive_timeout(20);
        assert!(!bench.reap.set_keepalive_timeout(nonsense));
        bench.payload_in(at(0));
        assert_eq!(bench.reap.timers().keepalive, Some(at(15_000)));
    }
}

// R5534-110
#[test]
fn keepalives_can_be_ignored_by_policy() {
    let mut bench = Bench::new(Config { ignore_keepalives: true, ..exact() });
    bench.payload_out(at(0));
    bench.keepalive(at(1_000));
    assert_eq!(bench.reap.timers().send, Some(at(15_000)));
}

// R5534-014, spec A11: idle contexts cost nothing.
#[test]
fn a_new_context_has_no_deadline_and_keeps_its_pair() {
    let mut bench = Bench::new(exact());
    assert_eq!((bench.reap.state(), bench.reap.deadline()), (Operational, None));
    assert!(bench.expire(at(600_000)).is_empty());
    assert!(bench.payload_out(at(600_000)).is_empty());
    assert_eq!(bench.reap.current(), pair(1, 1));
}
