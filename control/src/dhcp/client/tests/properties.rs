//! Servers that say anything.

use proptest::prelude::*;

use super::*;

fn lifetimes() -> impl Strategy<Value = (u32, u32)> {
    prop_oneof![Just((0, 0)), Just((INFINITE, INFINITE)), (0_u32..300, 0_u32..600)]
}

fn anything() -> impl Strategy<Value = (u8, Say)> {
    let prefix = (
        prop::sample::select(vec!["2001:db8:a::", "2001:db8:b::", "2001:db8:c:100::", "fc00::"]),
        40_u8..70,
        lifetimes(),
    );
    let prefixes = prop::collection::vec(prefix.prop_map(|(at, length, (one, two))| (at, length, one, two)), 0..12);
    let statuses = (prop::sample::select(vec![0_u16, 0, 0, 1, 3, 6]), prop::sample::select(vec![0_u16, 0, 0, 3, 6]));
    (
        prop::sample::select(vec![ADVERTISE, REPLY, REPLY]),
        1_u8..3,
        lifetimes(),
        prefixes,
        statuses,
        any::<bool>(),
        prop::option::of(any::<u8>()),
    )
        .prop_map(|(kind, server, times, prefixes, (status, ia_status), rapid, preference)| {
            let said =
                Say { server, times, prefixes, status, ia_status, preference, rapid, sol_max_rt: None, no_ia: false };
            (kind, said)
        })
}

proptest! {
    /// Servers that say anything, often, twice or never: nothing is sent without rest, bounds hold, and what was delegated
    /// is there until its end or until the server took it back.
    #[test]
    fn whatever_servers_say(said in prop::collection::vec((anything(), any::<bool>(), 0_u64..40), 1..60), rapid in any::<bool>(), seed: u64) {
        let mut bench = Bench::new();
        bench.rng = StdRng::seed_from_u64(seed);
        bench.client.settings.rapid_commit = rapid;
        let mut out = Vec::new();
        bench.client.start(bench.now, &mut bench.rng, &mut out);
        bench.take(out);
        for ((kind, heard), twice, pause) in said {
            let before: Vec<Delegated> = bench.client.delegated().to_vec();
            let taken_back = |it: &Delegated| {
                let of = heard.prefixes.iter().filter(|said| said.1 == it.length);
                of.into_iter().any(|said| said.3 == 0 || said.2 > said.3 || said.3 < 600)
            };
            for _ in 0..=u8::from(twice) {
                bench.hear(kind, &heard);
            }
            let full = bench.client.delegated().len() == PREFIXES_MAX;
            for it in before.iter().filter(|it| !it.is_over(bench.now) && !full && !taken_back(it)) {
                let kept = bench.client.delegated().iter().any(|now| (now.prefix, now.length) == (it.prefix, it.length));
                prop_assert!(kept, "{it:?} is lost to {heard:?}");
            }
            bench.run(pause);
        }
        for window in bench.sent.windows(12) {
            prop_assert!(window[11].0.since(window[0].0) >= Duration::from_secs(1), "{:?}", bench.client);
        }
    }

    #[test]
    fn noise_is_not_heard(octets in prop::collection::vec(any::<u8>(), 0..200), stage in 0_usize..7) {
        let stages = [Stage::Idle, Stage::Soliciting, Stage::Requesting, Stage::Bound, Stage::Renewing, Stage::Rebinding, Stage::Releasing];
        let mut bench = in_stage(stages[stage]);
        prop_assert!(!bench.hear_octets(&octets));
    }
}
