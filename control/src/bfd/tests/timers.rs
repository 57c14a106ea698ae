//! When packets go, when silence is a failure, and how both change (RFC 5880 §6.5, §6.8.2 to §6.8.4, §6.8.7).

use super::*;

/// Lets time pass in steps of a millisecond while the peer says this every so often. When packets went.
fn live(bench: &mut Bench, time: Duration, said: Option<(Duration, Packet)>) -> Vec<Instant> {
    let mut sent = Vec::new();
    let (began, mut heard) = (bench.now, bench.now);
    while bench.now.since(began) < time {
        bench.wait(ms(1));
        if let Some((_, packet)) = said.filter(|(every, _)| bench.now.since(heard) >= *every) {
            heard = bench.now;
            bench.receive(packet).unwrap();
        }
        let before = bench.sent().len();
        bench.expire();
        sent.resize(sent.len() + bench.sent().len() - before, bench.now);
    }
    sent
}

fn gaps(sent: &[Instant]) -> (Duration, Duration) {
    let gaps: Vec<Duration> = sent.windows(2).map(|two| two[1].since(two[0])).collect();
    (*gaps.iter().min().unwrap(), *gaps.iter().max().unwrap())
}

// §6.8.3: not more than once a second unless Up; §6.8.7: three quarters of the interval to all of it.
#[test]
fn packets_are_slow_until_the_session_is_up_and_never_in_step() {
    let mut bench = Bench::new();
    let sent = live(&mut bench, ms(60_000), None);
    let (least, most) = gaps(&sent);
    assert!(least >= ms(750) && most <= ms(1001), "{least:?} {most:?}");
    let mut bench = Bench::at(State::Up);
    let packet = bench.said(State::Up);
    let sent = live(&mut bench, ms(9000), Some((ms(40), packet)));
    let (least, most) = gaps(&sent);
    assert!(least >= ms(37) && most <= ms(51), "{least:?} {most:?}");
    let mean = 9000.0 / sent.len() as f64;
    assert!((42.0..46.0).contains(&mean), "{mean}");
}

#[test]
fn what_is_heard_slowest_and_wanted_slowest_is_what_is_sent() {
    for (ours, theirs, interval) in [(50, 50, 50), (50, 200, 200), (50, 10, 50)] {
        let mut bench = Bench::at(State::Up);
        let packet = Packet { required_min_rx: theirs * 1000, ..bench.said(State::Up) };
        bench.receive(packet).unwrap();
        assert_eq!(bench.session.transmit_interval(), Some(ms(interval)), "{ours} {theirs}");
    }
    // §6.8.7: who wants none gets none.
    let mut bench = Bench::at(State::Up);
    let packet = Packet { required_min_rx: 0, ..bench.said(State::Up) };
    bench.receive(packet).unwrap();
    assert_eq!(bench.session.transmit_interval(), None);
    assert!(live(&mut bench, ms(3000), Some((ms(40), packet))).is_empty());
    bench.hear(State::Up);
    assert!(!live(&mut bench, ms(100), None).is_empty(), "and again some when it does");
}

// §6.8.4
#[test]
fn the_detection_time_is_the_peers_multiplier_times_the_slower_of_what_both_say() {
    for (multiplier, min_tx, detection) in [(3, 50, 150), (5, 50, 250), (3, 200, 600), (1, 10, 50)] {
        let mut bench = Bench::at(State::Up);
        let packet = Packet { multiplier, desired_min_tx: min_tx * 1000, ..bench.said(State::Up) };
        bench.receive(packet).unwrap();
        assert_eq!(bench.session.detection_time(), ms(detection));
        live(&mut bench, ms(detection - 1), None);
        assert!(bench.session.is_up());
        live(&mut bench, ms(1), None);
        assert_eq!(bench.told(), [Output::Down(Cause::Silent)]);
    }
}

#[test]
fn the_peer_is_named_for_another_detection_time_and_then_forgotten() {
    let mut bench = Bench::at(State::Up);
    live(&mut bench, ms(150), None);
    assert_eq!(bench.sent().last().map(|it| (it.state, it.yours)), Some((State::Down, THEIRS)));
    live(&mut bench, ms(2900), None);
    assert_eq!(bench.sent().last().map(|it| it.yours), Some(THEIRS));
    live(&mut bench, ms(1200), None);
    assert_eq!(bench.sent().last().map(|it| (it.state, it.yours)), Some((State::Down, 0)));
}

// §6.5, §6.8.3
#[test]
fn a_poll_goes_on_until_it_is_answered_and_an_answer_goes_at_once() {
    let mut bench = Bench::at(State::Init);
    bench.hear(State::Up);
    assert_eq!(bench.sent().iter().map(|it| (it.poll, it.desired_min_tx)).collect::<Vec<_>>(), [(true, 50_000)]);
    let packet = bench.said(State::Up);
    live(&mut bench, ms(500), Some((ms(50), packet)));
    assert!(bench.sent().iter().all(|it| it.poll && !it.is_final));
    bench.finish();
    assert_eq!(bench.session.round_trip(), Some(ms(500)));
    bench.out.clear();
    live(&mut bench, ms(500), Some((ms(50), packet)));
    assert!(bench.sent().iter().all(|it| !it.poll && !it.is_final));
    bench.out.clear();
    bench.receive(Packet { poll: true, ..packet }).unwrap();
    assert_eq!(bench.sent().iter().map(|it| (it.poll, it.is_final)).collect::<Vec<_>>(), [(false, true)]);
    // A final nobody asked for ends nothing.
    bench.out.clear();
    bench.finish();
    assert!(bench.out.is_empty());
    live(&mut bench, ms(10_000), Some((ms(50), packet)));
    assert!(bench.sent().iter().any(|it| it.poll), "the round trip is asked for again");
}

// §6.8.3
#[test]
fn another_interval_holds_where_it_could_do_harm_only_when_the_peer_has_answered() {
    let mut bench = Bench::at(State::Up);
    bench.session.set_interval(ms(200));
    // Fewer packets before the peer knows would be a failure to it; more patience does no harm.
    assert_eq!(bench.session.transmit_interval(), Some(ms(50)));
    assert_eq!(bench.session.detection_time(), ms(600));
    live(&mut bench, ms(60), None);
    let sent = *bench.sent().last().unwrap();
    assert_eq!((sent.poll, sent.desired_min_tx, sent.required_min_rx), (true, 200_000, 200_000));
    bench.finish();
    assert_eq!(bench.session.transmit_interval(), Some(ms(200)));
    bench.session.set_interval(ms(50));
    assert_eq!(bench.session.transmit_interval(), Some(ms(50)));
    assert_eq!(bench.session.detection_time(), ms(600), "the peer sends slowly still");
    live(&mut bench, ms(60), None);
    bench.finish();
    assert_eq!(bench.session.detection_time(), ms(150));
}

#[test]
fn who_looks_late_or_may_have_missed_something_declares_nothing() {
    let mut bench = Bench::at(State::Up);
    bench.wait(ms(500));
    bench.expire();
    assert_eq!((bench.told(), bench.session.is_up()), (vec![Output::Excused], true));
    // What waited is heard now.
    bench.hear(State::Up);
    let packet = bench.said(State::Up);
    bench.out.clear();
    live(&mut bench, ms(1000), Some((ms(50), packet)));
    assert!(bench.told().is_empty());
    // Nothing waited: one interval more, on time.
    bench.wait(ms(500));
    bench.expire();
    live(&mut bench, ms(49), None);
    assert!(bench.session.is_up());
    live(&mut bench, ms(1), None);
    assert_eq!(bench.told(), [Output::Excused, Output::Down(Cause::Silent)]);
    // While so much comes in that something may have been dropped here.
    let mut bench = Bench::at(State::Up);
    deaf(&mut bench, ms(1500));
    assert!(bench.session.is_up());
    live(&mut bench, ms(50), None);
    assert_eq!(bench.told().last(), Some(&Output::Down(Cause::Silent)));
}

#[test]
fn what_excuses_a_silence_does_not_do_so_for_ever() {
    let mut bench = Bench::at(State::Up);
    // From the first Detection Time that was excused.
    deaf(&mut bench, ms(5140));
    assert!(bench.session.is_up());
    deaf(&mut bench, ms(60));
    assert!(!bench.session.is_up());
    let told = bench.told();
    assert!(told.ends_with(&[Output::Unexcused, Output::Down(Cause::Silent)]), "{told:?}");
    assert!(told.iter().filter(|it| **it == Output::Excused).count() > 90);
    // A single packet that arrives begins it anew.
    let mut bench = Bench::at(State::Up);
    for _ in 0..5 {
        deaf(&mut bench, ms(4900));
        bench.hear(State::Up);
    }
    assert!(bench.session.is_up());
    assert!(!bench.told().contains(&Output::Unexcused));
}

/// Time passes in which nothing is heard, because of too much else.
fn deaf(bench: &mut Bench, time: Duration) {
    let until = bench.now + time;
    while bench.now < until {
        bench.wait(ms(10));
        bench.session.expire(bench.now, &mut bench.rng, true, &mut bench.out);
    }
}

#[test]
fn a_peer_that_did_not_hear_us_because_we_were_late_says_nothing_of_the_path() {
    for (late, cause) in [(40, Cause::Told), (200, Cause::Stalled)] {
        let mut bench = Bench::at(State::Up);
        let packet = bench.said(State::Up);
        live(&mut bench, ms(500), Some((ms(50), packet)));
        bench.wait(ms(late));
        bench.receive(packet).unwrap();
        bench.expire();
        bench.out.clear();
        bench.hear(State::Down);
        assert_eq!(bench.told(), [Output::Down(cause)], "{late}");
    }
}
