//! Every stage hears everything.

use super::*;

/// Brings a client that had A to a stage, with a question on its way where there is one.
pub(super) fn in_stage(stage: Stage) -> Bench {
    let mut bench = Bench::bound(&[A]);
    match stage {
        Stage::Idle => bench = Bench::new(),
        Stage::Soliciting => {
            bench = Bench::started();
            bench.until(stage, 1);
        }
        Stage::Requesting => {
            bench = Bench::started();
            bench.until(Stage::Soliciting, 1);
            bench.hear(ADVERTISE, &Say { preference: Some(255), ..say(&[A]) });
        }
        Stage::Bound => {}
        Stage::Renewing | Stage::Rebinding => bench.until(stage, 1),
        Stage::Releasing => {
            let mut out = Vec::new();
            bench.client.release(bench.now, &mut bench.rng, &mut out);
            bench.take(out);
        }
    }
    assert_eq!(bench.client.stage(), stage);
    bench
}

#[test]
fn every_stage_hears_everything() {
    use Stage::{Bound, Idle, Rebinding, Releasing, Renewing, Requesting, Soliciting};
    let offer = say(&[A]);
    let no_binding = Say { ia_status: 3, ..say(&[]) };
    let none = Say { ia_status: 6, ..say(&[]) };
    let failed = Say { status: 1, ..say(&[]) };
    let empty = say(&[]);
    // What becomes of each stage when this comes from its server, and from another one.
    #[rustfmt::skip]
    let table = [
        // stage        Advertise   prefix      NoBinding   NoPrefix    failure     nothing      prefix of another
        (Idle,         [Idle,       Idle,       Idle,       Idle,       Idle,       Idle,        Idle]),
        (Soliciting,   [Soliciting, Soliciting, Soliciting, Soliciting, Soliciting, Soliciting,  Soliciting]),
        (Requesting,   [Requesting, Bound,      Soliciting, Soliciting, Requesting, Soliciting,  Requesting]),
        (Bound,        [Bound,      Bound,      Bound,      Bound,      Bound,      Bound,       Bound]),
        (Renewing,     [Renewing,   Bound,      Requesting, Renewing,   Renewing,   Renewing,    Renewing]),
        (Rebinding,    [Rebinding,  Bound,      Requesting, Rebinding,  Rebinding,  Rebinding,   Bound]),
        (Releasing,    [Releasing,  Idle,       Idle,       Idle,       Idle,       Idle,        Releasing]),
    ];
    for (stage, after) in table {
        let said = [
            (ADVERTISE, offer.clone()),
            (REPLY, offer.clone()),
            (REPLY, no_binding.clone()),
            (REPLY, none.clone()),
            (REPLY, failed.clone()),
            (REPLY, empty.clone()),
            (REPLY, Say { server: 7, ..offer.clone() }),
        ];
        for ((kind, heard), after) in said.into_iter().zip(after) {
            let mut bench = in_stage(stage);
            bench.hear(kind, &heard);
            assert_eq!(bench.client.stage(), after, "{stage:?}: {kind} {heard:?}");
            // Nothing that is said without being asked for is heard at all.
            let mut bench = in_stage(stage);
            let mut octets = heard.octets(kind, &bench.sent.last().map_or(vec![0; 4], |(_, octets)| octets.clone()));
            octets[1] ^= 1;
            assert!(!bench.hear_octets(&octets), "{stage:?}: {kind}");
            assert_eq!(bench.client.stage(), stage);
        }
    }
    // A Reply to a Solicit counts where that was agreed.
    let mut bench = in_stage(Soliciting);
    bench.client.settings.rapid_commit = true;
    assert!(bench.hear(REPLY, &Say { rapid: true, ..say(&[A]) }));
    assert_eq!(bench.client.stage(), Bound);
}
