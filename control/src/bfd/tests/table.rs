//! Every state against everything that can come (RFC 5880 §6.2, §6.8.6).

use super::*;

/// Our state, that of the packet, the state after, and what is told. The session is ended by who is AdminDown itself.
const TABLE: [(State, State, State, Option<Output>); 12] = [
    (State::Down, State::AdminDown, State::Down, None),
    (State::Down, State::Down, State::Init, None),
    (State::Down, State::Init, State::Up, Some(Output::Up)),
    (State::Down, State::Up, State::Down, None),
    (State::Init, State::AdminDown, State::Down, None),
    (State::Init, State::Down, State::Init, None),
    (State::Init, State::Init, State::Up, Some(Output::Up)),
    (State::Init, State::Up, State::Up, Some(Output::Up)),
    (State::Up, State::AdminDown, State::Down, Some(Output::Down(Cause::Ended))),
    (State::Up, State::Down, State::Down, Some(Output::Down(Cause::Told))),
    (State::Up, State::Init, State::Up, None),
    (State::Up, State::Up, State::Up, None),
];

#[test]
fn a_packet_moves_the_session_as_the_figure_has_it() {
    for (before, heard, after, told) in TABLE {
        let mut bench = Bench::at(before);
        let packet = Packet { yours: bench.session.discriminator(), ..bench.said(heard) };
        let ours = packet.yours;
        bench.receive(packet).unwrap();
        assert_eq!((bench.session.state(), bench.told()), (after, told.into_iter().collect()), "{before:?}, {heard:?}");
        // §6.8.7: a change is told at once.
        assert_eq!(bench.sent().len(), usize::from(before != after), "{before:?}, {heard:?}");
        assert!(bench.sent().iter().all(|sent| sent.state == after && sent.yours == THEIRS && sent.mine == ours));
        let diagnostic = match (before, after) {
            (State::Init | State::Up, State::Down) => Diagnostic::NeighborDown,
            _ => Diagnostic::None,
        };
        assert!(bench.sent().iter().all(|sent| sent.diagnostic == diagnostic));
    }
}

// §6.8.16
#[test]
fn who_is_administratively_down_says_so_and_hears_nothing() {
    for before in [State::Down, State::Init, State::Up] {
        let mut bench = Bench::at(before);
        bench.session.shut(bench.now, &mut bench.out);
        let [sent] = bench.sent()[..] else { panic!("{:?}", bench.out) };
        assert_eq!((sent.state, sent.diagnostic), (State::AdminDown, Diagnostic::AdminDown));
        assert!(bench.told().is_empty());
        for heard in State::ALL {
            assert_eq!(
                bench.receive(Packet { yours: bench.session.discriminator(), ..bench.said(heard) }),
                Err(Refused::Shut)
            );
        }
        assert_eq!((bench.session.deadline(), bench.session.state()), (None, State::AdminDown));
    }
}

// §6.8.4
#[test]
fn silence_moves_the_session_as_the_figure_has_it() {
    for (before, told) in [(State::Down, None), (State::Init, None), (State::Up, Some(Output::Down(Cause::Silent)))] {
        let mut bench = Bench::at(before);
        bench.wait(bench.session.detection_time());
        bench.expire();
        assert_eq!((bench.session.state(), bench.told()), (State::Down, told.into_iter().collect()), "{before:?}");
        let last = *bench.sent().last().unwrap();
        let diagnostic = if before == State::Down { Diagnostic::None } else { Diagnostic::Expired };
        assert_eq!((last.state, last.diagnostic), (State::Down, diagnostic));
    }
}
