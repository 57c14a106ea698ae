//! What forged, repeated, late or flooding packets cannot do (spec §10), and what hints can.

use State::{Exploring, InboundOk, Operational};

use super::*;

fn changed(out: &[Output]) -> Option<LocatorPair> {
    let to = |output: &Output| match output {
        Output::PairChanged { to, .. } => Some(*to),
        _ => None,
    };
    out.iter().find_map(to)
}

fn unmatched(out: &[Output]) -> usize {
    let count = |output: &Output| match output {
        Output::UnmatchedReports { count } => *count,
        _ => 0,
    };
    out.iter().map(count).sum()
}

/// Exploring, with probes on (1, 1) and (2, 2) in flight.
fn two_probes_out() -> (Bench, [ProbeReport; 2]) {
    let mut bench = Bench::new(exact());
    bench.payload_out(at(0));
    let first = only_probe(&bench.expire(at(15_000)));
    let second = only_probe(&bench.expire(at(15_500)));
    assert_eq!((first.0, second.0), (pair(1, 1), pair(2, 2)));
    (bench, [first.2, second.2])
}

// R5534-066, R5534-117: nonce and both addresses have to be those of a probe of ours.
#[test]
fn a_forged_report_changes_no_pair() {
    let (mut bench, [_, second]) = two_probes_out();
    let forged = [
        ProbeReport { nonce: second.nonce ^ 1, ..second },
        ProbeReport { target: b(1), ..second },
        ProbeReport { source: a(1), ..second },
        ProbeReport { source: second.target, target: second.source, ..second },
    ];
    let out = bench.probe(at(15_600), pair(1, 2), InboundOk, &forged);
    assert_eq!((changed(&out), unmatched(&out)), (None, 4));
    assert_eq!(bench.reap.current(), pair(1, 1));
    assert!(!bench.reap.confirmed(pair(2, 2)));
}

// R5534-098, R5534-108, R5534-123
#[test]
fn a_true_report_confirms_its_pair_and_moves_there() {
    let (mut bench, [_, second]) = two_probes_out();
    let out = bench.probe(at(15_600), pair(1, 2), InboundOk, &[second]);
    assert_eq!((changed(&out), unmatched(&out)), (Some(pair(2, 2)), 0));
    assert!(bench.reap.confirmed(pair(2, 2)) && !bench.reap.confirmed(pair(1, 1)));
    assert_eq!(only_probe(&out).0, pair(2, 2), "goes out on the pair just confirmed");
    assert!(out.contains(&Output::Failed { pair: pair(1, 1), probed: at(15_000) }));
}

// R5534-099: an answer says that we are heard, but not where.
#[test]
fn an_answer_without_reports_moves_nothing() {
    let (mut bench, _) = two_probes_out();
    let out = bench.probe(at(15_600), pair(2, 2), InboundOk, &[]);
    assert_eq!((changed(&out), unmatched(&out), bench.reap.current()), (None, 0, pair(1, 1)));
    assert_eq!((bench.reap.state(), bench.reap.confirmed(pair(2, 2))), (Operational, false));
}

// R5534-122: the current pair stays if it works, whatever else works, and whatever comes late.
#[test]
fn a_current_pair_that_works_is_kept() {
    let (mut bench, [first, second]) = two_probes_out();
    assert_eq!(changed(&bench.probe(at(15_600), pair(1, 2), InboundOk, &[second, first])), None);
    let (mut bench, [first, second]) = two_probes_out();
    assert_eq!(changed(&bench.probe(at(15_600), pair(1, 2), InboundOk, &[second])), Some(pair(2, 2)));
    assert_eq!(changed(&bench.probe(at(15_650), pair(1, 2), InboundOk, &[second, first])), None, "no double switch");
    assert_eq!(changed(&bench.probe(at(15_700), pair(1, 2), Operational, &[first])), None);
    // A Probe(Exploring) overtaken by the end of the episode is answered, but starts nothing new.
    let late = only_probe(&bench.probe(at(15_800), pair(1, 1), Exploring, &[]));
    assert_eq!((late.0, late.1), (pair(2, 2), InboundOk));
    assert_eq!(changed(&bench.probe(at(15_900), pair(1, 1), Operational, &[late.2])), None);
    assert_eq!(bench.reap.current(), pair(2, 2));
}

// R5534-122: a late Probe(Exploring) on the current pair itself, and a late answer behind it, change nothing either.
#[test]
fn late_probes_on_the_current_pair_move_nothing() {
    let (mut bench, [first, second]) = two_probes_out();
    bench.probe(at(15_600), pair(1, 2), InboundOk, &[second]);
    bench.probe(at(15_700), pair(1, 2), Operational, &[second, first]);
    assert_eq!(bench.reap.current(), pair(2, 2));
    let again = only_probe(&bench.probe(at(15_800), pair(2, 2), Exploring, &[]));
    assert_eq!((again.0, again.1), (pair(2, 2), InboundOk));
    assert_eq!(
        changed(&bench.probe(at(15_810), pair(1, 2), Operational, &[first])),
        None,
        "sent before the answer came"
    );
    assert_eq!(bench.reap.current(), pair(2, 2));
}

// R5534-122, R5534-123: a peer that explores again soon may mean it. What was shown before counts as long as it is not asked
// for again; a pair that is probed anew and not reported has failed, and the goal of a move is no exception.
#[test]
fn what_worked_before_the_peer_explored_again_does_not_count_when_it_fails_now() {
    let mut bench = Bench::new(exact());
    assert!(bench.reap.relocate(at(1_000), &mut bench.rng, pair(2, 2), &mut bench.out));
    let goal = only_probe(&std::mem::take(&mut bench.out)).2;
    assert_eq!(changed(&bench.probe(at(1_100), pair(2, 2), InboundOk, &[goal])), Some(pair(2, 2)));
    bench.probe(at(1_200), pair(2, 2), Operational, &[goal]);
    assert_eq!(bench.reap.state(), Operational);
    // Now what goes out by it is lost.
    let answer = only_probe(&bench.probe(at(2_000), pair(2, 2), Exploring, &[]));
    assert_eq!((answer.0, answer.1), (pair(2, 2), InboundOk));
    let other = loop {
        let now = bench.reap.deadline().unwrap();
        if let Some(sent) = probes(&bench.expire(now)).into_iter().find(|sent| sent.0 != pair(2, 2)) {
            break sent;
        }
    };
    assert_eq!(changed(&bench.probe(at(8_000), pair(2, 2), Operational, &[other.2])), Some(other.0));
    assert_eq!(bench.reap.current(), other.0);
}

// R5534-122, the other side of it: the peer, whose Send Timeout is short, explores again, and is answered where it found a way
// itself. What was shown of the current pair before must not keep it.
#[test]
fn a_current_pair_that_is_only_known_from_before_is_left() {
    for (again, soon) in [(16_200, true), (19_000, false)] {
        let (mut bench, [_, second]) = two_probes_out();
        bench.probe(at(15_600), pair(1, 2), InboundOk, &[second]);
        bench.probe(at(15_700), pair(1, 2), Operational, &[second]);
        assert_eq!((bench.reap.state(), bench.reap.current()), (Operational, pair(2, 2)));
        // What goes out by it is lost from now on, and the peer comes by another way.
        let mut answer = only_probe(&bench.probe(at(again), pair(1, 1), Exploring, &[]));
        assert_eq!(answer.0, if soon { pair(2, 2) } else { pair(1, 1) });
        let mut now = at(again);
        while answer.0 == pair(2, 2) {
            now = bench.reap.deadline().unwrap();
            answer = probes(&bench.expire(now)).pop().unwrap_or(answer);
        }
        assert!(now < at(again + 5_000), "{now:?}");
        let moved = changed(&bench.probe(now + Duration::from_millis(100), pair(1, 1), Operational, &[answer.2]));
        assert_eq!(moved, Some(answer.0));
    }
}

// R5534-122: the same where the peer had begun, and we went to where it found a way: that pair was the last to be answered on.
#[test]
fn a_current_pair_that_the_peer_found_is_asked_for_as_well() {
    let mut bench = Bench::new(exact());
    let answer = only_probe(&bench.probe(at(1_000), pair(1, 2), Exploring, &[]));
    assert_eq!(changed(&bench.probe(at(1_100), pair(1, 2), Operational, &[answer.2])), Some(pair(1, 2)));
    let again = only_probe(&bench.probe(at(1_600), pair(1, 1), Exploring, &[]));
    assert_eq!((again.0, again.1), (pair(1, 2), InboundOk));
    let other = loop {
        let now = bench.reap.deadline().unwrap();
        if let Some(sent) = probes(&bench.expire(now)).into_iter().find(|sent| sent.0 != pair(1, 2)) {
            break sent;
        }
    };
    assert_eq!(changed(&bench.probe(at(4_000), pair(1, 1), Operational, &[other.2])), Some(other.0));
}

// R5534-122, the other side of it: a peer that explores much later means it.
#[test]
fn a_probe_long_after_the_episode_starts_a_new_one() {
    let (mut bench, [_, second]) = two_probes_out();
    bench.probe(at(15_600), pair(1, 2), InboundOk, &[second]);
    let answer = only_probe(&bench.probe(at(28_000), pair(1, 1), Exploring, &[]));
    assert_eq!(changed(&bench.probe(at(28_100), pair(1, 1), Operational, &[answer.2])), Some(pair(1, 1)));
}

// R5534-117, spec §10 b: nonces of a finished episode are forgotten after a Max Probe Timeout.
#[test]
fn nonces_are_forgotten_in_time() {
    let (mut bench, [_, second]) = two_probes_out();
    bench.probe(at(15_600), pair(1, 2), InboundOk, &[second]);
    bench.payload_in(at(15_700));
    while let Some(now) = bench.reap.deadline() {
        bench.expire(now);
    }
    let out = bench.probe(at(80_000), pair(1, 2), InboundOk, &[second]);
    assert_eq!(unmatched(&out), 1);
    assert!(bench.reap.confirmed(pair(2, 2)), "that it once answered stays known");
}

// R5534-059, R5534-118
#[test]
fn received_reports_are_those_since_exploring_was_entered() {
    let mut bench = Bench::inbound_ok(exact());
    assert_eq!(received_in(&bench.probe(at(15_200), pair(1, 2), Exploring, &[])).len(), 1);
    let sent = bench.reap.timers().send.unwrap();
    while bench.reap.state() == InboundOk {
        let now = bench.reap.deadline().unwrap();
        let out = bench.expire(now);
        let expected = usize::from(now < sent);
        assert!(probes(&out).is_empty() || received_in(&out).len() == expected);
    }
    assert_eq!(received_in(&bench.probe(at(40_000), pair(2, 1), Exploring, &[])).len(), 1);
}

// R5534-057, R5534-061, R5534-063, R5534-067
#[test]
fn a_probe_describes_itself_and_echoes_what_it_got() {
    let mut bench = Bench::new(exact());
    let mut probe = peer_probe(pair(1, 2), Exploring, 77, &[]);
    probe.sent[0].data = 0xdead_beef;
    probe.sent.push(ProbeReport { nonce: 76, ..probe.sent[0] });
    bench.reap.probe(at(0), &mut bench.rng, b(2), a(1), &probe, &mut bench.out).unwrap();
    let Some(Output::SendProbe { pair: on, state, sent, received }) = bench.out.pop() else { panic!() };
    assert_eq!((on, state), (pair(1, 2), InboundOk));
    assert_eq!((sent[0].source, sent[0].target, sent.len()), (on.local, on.peer, 1));
    assert_eq!(received, [probe.sent[0]]);
}

// R5534-116, spec §10 f, A9
#[test]
fn probes_that_make_no_sense_are_refused_by_name() {
    let mut bench = Bench::new(exact());
    let good = peer_probe(pair(1, 1), Exploring, 1, &[]);
    let mut try_it = |probe: &Probe, source, config: Config| {
        bench = Bench::new(config);
        let result = bench.reap.probe(at(0), &mut bench.rng, source, a(1), probe, &mut bench.out);
        assert_eq!(result.is_ok(), bench.reap.state() == InboundOk);
        assert_eq!(result.is_err(), bench.out.is_empty());
        result
    };
    let empty = Probe { sent: Vec::new(), ..good.clone() };
    let long = Probe { received: vec![good.sent[0]; 16], ..good.clone() };
    assert_eq!(try_it(&empty, b(1), exact()), Err(ProbeRefused::NoSentReport));
    assert_eq!(try_it(&long, b(1), exact()), Err(ProbeRefused::TooManyReports));
    assert_eq!(try_it(&good, b(2), exact()), Err(ProbeRefused::AddressMismatch));
    assert_eq!(try_it(&good, b(2), Config { tolerate_translation: true, ..exact() }), Ok(()));
}

// R5534-120: 1000 valid probes a second for a minute, of each kind.
#[test]
fn a_flood_of_valid_probes_gets_few_and_small_answers() {
    for state in [Exploring, InboundOk, Operational] {
        let mut bench = Bench::new(Config::default());
        let mut sent = Vec::new();
        for millis in 0..60_000 {
            let on = pair(1 + (millis % 2) as u16, 1 + (millis / 2 % 2) as u16);
            sent.extend(bench.probe(at(millis), on, state, &[]));
            sent.extend(bench.expire(at(millis)));
        }
        let answers = probes(&sent).len();
        let capped = sent.iter().filter(|output| **output == Output::AnswerCapped).count();
        assert!(answers <= 10 + 5 * 60, "{state:?}: {answers}");
        assert_eq!(answers + capped, if state == Operational { 0 } else { 60_000 }, "every probe is accounted for");
        let small = |output: &Output| match output {
            Output::SendProbe { sent, received, .. } => sent.len() <= 4 && received.len() <= 4,
            _ => true,
        };
        assert!(sent.iter().all(small));
    }
}

// R5534-120: a flood does not keep us from ever answering an honest peer.
#[test]
fn after_a_flood_the_clock_still_sends() {
    let mut bench = Bench::new(exact());
    for millis in 0..20 {
        bench.probe(at(millis), pair(1, 1), Exploring, &[]);
    }
    let due = bench.reap.timers().probe.unwrap();
    assert!(due <= at(520));
    assert_eq!(only_probe(&bench.expire(due)).1, InboundOk);
}

// R5534-119: flips between Exploring and InboundOk do not reset the back-off; a new episode does.
#[test]
fn the_back_off_belongs_to_the_episode() {
    let gap = |bench: &mut Bench| {
        let now = bench.reap.timers().probe.unwrap();
        bench.expire(now);
        bench.reap.timers().probe.unwrap().since(now)
    };
    let mut bench = Bench::exploring(exact());
    while gap(&mut bench) < seconds(32) {}
    let now = bench.reap.timers().probe.unwrap();
    bench.payload_in(now - seconds(1));
    assert_eq!(bench.reap.state(), InboundOk);
    assert_eq!(bench.reap.timers().probe, Some(now - seconds(1) + seconds(5)), "one more fits into InboundOk");
    assert!(gap(&mut bench) >= seconds(60));
    let answer = only_probe(&bench.probe(now + seconds(5), pair(1, 1), Exploring, &[]));
    bench.probe(now + seconds(6), pair(1, 1), InboundOk, &[answer.2]);
    assert_eq!(bench.reap.state(), Operational);
    bench.payload_out(now + seconds(6));
    while bench.reap.state() == Operational {
        let next = bench.reap.deadline().unwrap();
        bench.expire(next);
    }
    assert_eq!(gap(&mut bench), Duration::from_millis(500));
}

// R5534-064, R5534-065: nonces come straight from the generator handed in, one draw each.
#[test]
fn nonces_do_not_repeat_or_count() {
    let mut bench = Bench::new(exact());
    let mut nonces: Vec<u32> =
        (0..1000).map(|n| only_probe(&bench.probe(at(n * 1_000), pair(1, 1), Exploring, &[])).2.nonce).collect();
    let near = nonces.windows(2).filter(|two| two[0].abs_diff(two[1]) < 1 << 16).count();
    assert!(near < 5, "{near}");
    nonces.sort_unstable();
    nonces.dedup();
    assert!(nonces.len() > 998);
}

// R5534-011, R5534-107: a hint starts a test at once and moves nothing by itself.
#[test]
fn a_suspected_pair_is_left_only_for_one_that_answers() {
    let mut bench = Bench::new(exact());
    bench.payload_out(at(900));
    let out = bench.suspect(at(1_000));
    assert!(out.contains(&Output::ExplorationStarted { reason: Reason::Suspected }));
    let first = only_probe(&out);
    assert_eq!((first.0, first.1), (pair(2, 2), Exploring), "not the suspected pair first");
    assert_eq!(bench.reap.current(), pair(1, 1));
    bench.payload_out(at(1_010));
    let out = bench.probe(at(1_100), pair(2, 2), InboundOk, &[first.2]);
    assert_eq!(changed(&out), Some(pair(2, 2)));
    assert!(!out.iter().any(|output| matches!(output, Output::Failed { .. })), "a hint is not a witness");
    // Nothing else answers: the suspected pair has its turn, and is kept when it works.
    let mut bench = Bench::new(exact());
    bench.suspect(at(1_000));
    let tried: Vec<_> = (1..4).map(|n| only_probe(&bench.expire(at(1_000 + n * 500)))).collect();
    assert_eq!(tried[2].0, pair(1, 1));
    assert_eq!(changed(&bench.probe(at(2_600), pair(1, 1), InboundOk, &[tried[2].2])), None);
}

// R5534-016, R5534-031
#[test]
fn losing_a_locator_explores_without_it() {
    let mut bench = Bench::new(exact());
    let out = bench.set_locators(at(0), &[a(1), a(2)], &peers(&[b(2)]));
    assert!(out.contains(&Output::ExplorationStarted { reason: Reason::LocatorLost }));
    let mut tried = probes(&out);
    for _ in 0..8 {
        let now = bench.reap.deadline().unwrap();
        tried.extend(probes(&bench.expire(now)));
    }
    assert!(tried.iter().all(|probe| probe.0.peer == b(2)));
    // With no locator left there is nothing to send, and the clock does not spin; a new one is tried soon.
    assert!(probes(&bench.set_locators(at(200_000), &[], &peers(&[b(2)]))).is_empty());
    for _ in 0..4 {
        let now = bench.reap.deadline().unwrap();
        assert!(probes(&bench.expire(now)).is_empty());
    }
    let now = bench.reap.timers().probe.unwrap() - seconds(30);
    bench.set_locators(now, &[a(3)], &peers(&[b(2)]));
    let due = bench.reap.deadline().unwrap();
    assert!(due <= now + Duration::from_millis(500));
    assert_eq!(only_probe(&bench.expire(due)).0, pair(3, 2));
}

#[test]
fn a_pair_that_went_and_came_back_has_to_be_proved_again() {
    let (mut bench, [_, second]) = two_probes_out();
    bench.probe(at(15_600), pair(1, 2), Exploring, &[second]);
    assert!(bench.reap.confirmed(pair(2, 2)));
    bench.set_locators(at(15_610), &[a(1)], &peers(&[b(1), b(2)]));
    bench.set_locators(at(15_620), &[a(1), a(2)], &peers(&[b(1), b(2)]));
    assert_eq!(changed(&bench.probe(at(15_650), pair(1, 2), InboundOk, &[second])), None);
    assert!(!bench.reap.confirmed(pair(2, 2)));
}

#[test]
fn harmless_changes_of_locators_disturb_nothing() {
    let mut bench = Bench::new(exact());
    bench.payload_out(at(0));
    let before = bench.reap.timers();
    assert!(bench.set_locators(at(1), &[a(1), a(3)], &peers(&[b(3), b(1)])).is_empty());
    assert_eq!((bench.reap.timers(), bench.reap.state()), (before, Operational));
}

#[test]
fn relocation_is_for_contexts_at_rest_and_pairs_that_exist() {
    let mut bench = Bench::new(exact());
    assert!(bench.relocate(at(0), pair(1, 1)).is_empty());
    assert!(bench.relocate(at(0), pair(1, 9)).is_empty());
    assert_eq!(only_probe(&bench.relocate(at(0), pair(1, 2))).0, pair(1, 2));
    assert!(bench.relocate(at(1), pair(2, 2)).is_empty());
}

// What neighbours know decides what is tried after the current pair.
#[test]
fn what_neighbours_know_orders_the_round() {
    let mut bench = Bench::exploring(exact());
    bench.reap.reorder(&|on| if on == pair(2, 1) { Status::Working } else { Status::Suspect });
    assert_eq!(only_probe(&bench.expire(at(15_500))).0, pair(2, 1));
}

// One context's failure makes others look; each moves only when a probe of its own was answered.
#[test]
fn contexts_on_a_dead_path_are_asked_to_look_once_and_move_by_themselves() {
    let mut book = PathBook::new(BookConfig::default());
    let mut contexts: Vec<Bench> = (0..5).map(|_| Bench::new(exact())).collect();
    let (mut asked, mut moved) = (0, 0);
    for witness in 0..2u64 {
        let (mut bench, [_, second]) = two_probes_out();
        for output in bench.probe(at(15_600), pair(2, 2), InboundOk, &[second]) {
            match output {
                Output::Confirmed { pair, .. } => book.confirmed(PathKey::of(pair), at(15_600)),
                Output::Failed { pair, probed } => {
                    let verdict = book.failed(PathKey::of(pair), witness, probed, at(15_600));
                    assert_eq!(verdict, if witness == 0 { Verdict::Suspect } else { Verdict::NewlyDead });
                    asked += usize::from(verdict == Verdict::NewlyDead);
                }
                _ => {}
            }
        }
    }
    assert_eq!(asked, 1);
    for (place, context) in contexts.iter_mut().enumerate() {
        let Bench { reap, rng, out } = context;
        reap.suspect(at(15_700), rng, &|on| book.rank(on, at(15_700)), out);
        let test = only_probe(&std::mem::take(out));
        assert_eq!(
            (test.0, reap.current()),
            (pair(2, 2), pair(1, 1)),
            "tries what worked for others, stays till it does"
        );
        if place < 3 {
            moved += usize::from(changed(&context.probe(at(15_800), pair(2, 2), InboundOk, &[test.2])).is_some());
        }
    }
    assert_eq!(moved, 3);
    assert!(contexts[3..].iter().all(|context| context.reap.current() == pair(1, 1)));
}

// R5534-114: 1000 contexts fail at once; together they keep to the budget, and each still finds its way.
#[test]
fn an_outage_of_many_contexts_is_paced() {
    let mut contexts: Vec<Bench> =
        (0..1000).map(|seed| Bench { rng: StdRng::seed_from_u64(seed), ..Bench::new(Config::default()) }).collect();
    for context in &mut contexts {
        context.payload_out(at(0));
    }
    let mut budget = ProbeBudget::new(500, 50);
    let mut per_second = vec![0; 200];
    for tick in 0..20_000 {
        let now = at(tick * 10);
        for context in &mut contexts {
            if context.reap.probe_due(now) && budget.take(now) {
                per_second[(tick / 100) as usize] += probes(&context.expire(now)).len();
            }
        }
    }
    assert!(per_second.iter().all(|sent| *sent <= 550), "{per_second:?}");
    assert!(contexts.iter().all(|context| context.reap.state() == Exploring));
    assert!(per_second[150..].iter().sum::<usize>() <= 50 * 1000 / 20, "falls to about one a minute each");
    assert!(budget.deferred() > 0);
}

// There will be millions of them.
#[test]
fn a_context_at_rest_is_small() {
    assert!(size_of::<Reap>() <= 192, "{}", size_of::<Reap>());
}
