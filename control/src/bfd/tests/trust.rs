//! Who is believed: both discriminators have to be right, but where nothing is at stake yet.

use super::*;

#[test]
fn nobody_who_does_not_know_both_discriminators_changes_anything_about_a_session_that_is_up() {
    for state in State::ALL {
        for which in 0..6 {
            let mut bench = Bench::at(State::Up);
            let ours = bench.session.discriminator();
            let all = [(THEIRS, ours ^ 1), (THEIRS + 1, ours), (ours, THEIRS), (THEIRS, 0), (7, 0), (7, 7)];
            let (mine, yours) = all[which];
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
fn what_was_said_in_a_session_means_nothing_in_the_next() {
    let mut bench = Bench::at(State::Up);
    let old: Vec<Packet> = State::ALL.map(|state| bench.said(state)).to_vec();
    bench.hear(State::Down);
    let former = old[0].yours;
    assert_eq!(bench.sent().last().map(|it| it.mine), Some(former), "by its name the peer knows who has gone down");
    assert_ne!(bench.session.discriminator(), former);
    // Who names the session that is over is there, and has heard nothing of this one, whatever it says.
    for packet in &old {
        let mut down =
            Bench { session: bench.session.clone(), out: Vec::new(), rng: StdRng::seed_from_u64(3), ..bench };
        down.receive(*packet).unwrap();
        assert_eq!((down.session.state(), down.told()), (State::Init, vec![]));
    }
    bench.hear(State::Init);
    assert!(bench.session.is_up());
    for packet in old {
        assert_eq!(bench.receive(packet), Err(Refused::Stranger));
    }
}

#[test]
fn strangers_do_not_use_up_what_the_peer_may_send() {
    let mut bench = Bench::at(State::Up);
    bench.wait(ms(1000));
    let strange = Packet { mine: 7, ..bench.said(State::Up) };
    for _ in 0..10_000 {
        assert_eq!(bench.receive(strange), Err(Refused::Stranger));
    }
    bench.hear(State::Up);
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
    let mut heir = Session::resume(bench.now, &mut rng, CONFIG, &carried).unwrap();
    assert!(heir.is_up());
    let mut out = Vec::new();
    heir.receive(bench.now, &mut rng, &bench.said(State::Up), &mut out).unwrap();
    heir.expire(bench.now + ms(10), &mut rng, false, &mut out);
    let [Output::Send(sent)] = out[..] else { panic!("{out:?}") };
    assert_eq!((sent.state, sent.mine, sent.yours), (State::Up, bench.session.discriminator(), THEIRS));
    // With another interval in its configuration it asks first.
    let slower = Config { interval: ms(100), ..CONFIG };
    let heir = Session::resume(bench.now, &mut rng, slower, &carried).unwrap();
    assert_eq!(heir.transmit_interval(), Some(ms(50)));
    assert_eq!(heir.detection_time(), ms(300));
    for broken in [
        Carried { discriminators: (0, 1), ..carried },
        Carried { discriminators: (1, 0), ..carried },
        Carried { states: (0, 3), ..carried },
        Carried { remote: (0, 1, 1), ..carried },
    ] {
        assert!(Session::resume(bench.now, &mut rng, CONFIG, &broken).is_none());
    }
}
