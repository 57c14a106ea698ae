//! Who is believed: both discriminators have to be right, but where nothing is at stake yet.

use super::*;

#[test]
fn nobody_who_does_not_know_both_discriminators_changes_anything_about_a_session_that_is_up() {
    for state in State::ALL {
        for (mine, yours) in [(THEIRS, OURS + 1), (THEIRS + 1, OURS), (OURS, THEIRS), (THEIRS, 0), (7, 0), (7, 7)] {
            let mut bench = Bench::at(State::Up);
            let said =
                Packet { mine, yours, multiplier: 1, desired_min_tx: 1, required_min_rx: 0, ..bench.said(state) };
            let before = (bench.session.detection_time(), bench.session.deadline());
            assert_eq!(bench.receive(said), Err(Refused::Stranger), "{said:?}");
            assert!(bench.out.is_empty() && bench.session.is_up());
            assert_eq!((bench.session.detection_time(), bench.session.deadline()), before);
        }
    }
}

#[test]
fn a_peer_that_has_begun_anew_is_taken_when_the_old_session_is_over() {
    let mut bench = Bench::at(State::Up);
    let anew = Packet { mine: 0xc, yours: 0, ..bench.said(State::Down) };
    for _ in 0..2 {
        assert_eq!(bench.receive(anew), Err(Refused::Stranger));
        bench.wait(ms(50));
        bench.expire();
    }
    bench.wait(ms(50));
    bench.expire();
    assert_eq!(bench.session.state(), State::Down);
    bench.receive(anew).unwrap();
    assert_eq!(bench.session.state(), State::Init);
    assert_eq!(bench.sent().last().map(|it| it.yours), Some(0xc));
    let other = Packet { mine: 0xd, ..anew };
    assert_eq!(bench.receive(other), Err(Refused::Stranger), "one peer at a time");
    bench.receive(Packet { mine: 0xc, ..bench.said(State::Init) }).unwrap();
    assert!(bench.session.is_up());
}

#[test]
fn more_packets_than_were_asked_for_are_not_looked_at() {
    let mut bench = Bench::at(State::Up);
    bench.wait(ms(1000));
    let poll = Packet { poll: true, ..bench.said(State::Up) };
    let mut sent = 0;
    for _ in 0..10_000 {
        sent += usize::from(bench.receive(poll).is_ok());
    }
    assert_eq!(sent, 4 * 20 + 20);
    assert_eq!(bench.sent().len(), sent, "one answer for each at most");
    bench.wait(ms(1000));
    assert!(bench.receive(poll).is_ok());
}

#[test]
fn another_process_goes_on_where_this_one_ended() {
    let bench = Bench::at(State::Up);
    let carried = bench.session.carry();
    let mut rng = StdRng::seed_from_u64(2);
    let mut heir = Session::resume(bench.now, CONFIG, &carried).unwrap();
    assert!(heir.is_up());
    let mut out = Vec::new();
    heir.receive(bench.now, &mut rng, &bench.said(State::Up), &mut out).unwrap();
    heir.expire(bench.now + ms(10), &mut rng, false, &mut out);
    let [Output::Send(sent)] = out[..] else { panic!("{out:?}") };
    assert_eq!((sent.state, sent.mine, sent.yours), (State::Up, OURS, THEIRS));
    // With another interval in its configuration it asks first.
    let slower = Config { interval: ms(100), ..CONFIG };
    let heir = Session::resume(bench.now, slower, &carried).unwrap();
    assert_eq!(heir.transmit_interval(), Some(ms(50)));
    assert_eq!(heir.detection_time(), ms(300));
    for broken in [
        Carried { discriminators: (0, 1), ..carried },
        Carried { discriminators: (1, 0), ..carried },
        Carried { states: (0, 3), ..carried },
        Carried { remote: (0, 1, 1), ..carried },
    ] {
        assert!(Session::resume(bench.now, CONFIG, &broken).is_none());
    }
}
