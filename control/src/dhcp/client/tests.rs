//! The client against made-up servers: octets, every stage against everything, and servers that mean ill.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::super::message::{Writer, code};
use super::*;

mod properties;
mod stages;

use stages::in_stage;

const ADVERTISE: u8 = 2;
const REPLY: u8 = 7;
const IAID: u32 = 0x0102_0304;

fn duid(number: u8) -> Duid {
    Duid::new(&[0, 3, 0, 1, 2, 0, 0, 0, 0, number]).unwrap()
}

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// What a server answers: its number, T1, T2, prefixes with both lifetimes, and statuses of the message and of the association.
#[derive(Clone, Debug)]
struct Say {
    server: u8,
    times: (u32, u32),
    prefixes: Vec<(&'static str, u8, u32, u32)>,
    status: u16,
    ia_status: u16,
    preference: Option<u8>,
    rapid: bool,
    sol_max_rt: Option<u32>,
    no_ia: bool,
}

fn say(prefixes: &[(&'static str, u8, u32, u32)]) -> Say {
    let prefixes = prefixes.to_vec();
    Say {
        server: 1,
        times: (100, 160),
        prefixes,
        status: 0,
        ia_status: 0,
        preference: None,
        rapid: false,
        sol_max_rt: None,
        no_ia: false,
    }
}

impl Say {
    fn octets(&self, kind: u8, question: &[u8]) -> Vec<u8> {
        let mut out = Writer::message(kind, question[1..4].try_into().unwrap());
        out.option(code::CLIENT_ID, |out| out.put(duid(9).octets()));
        out.option(code::SERVER_ID, |out| out.put(duid(self.server).octets()));
        let status = |out: &mut Writer, status: u16| {
            out.option(code::STATUS_CODE, |out| out.put(&status.to_be_bytes()));
        };
        if self.status != 0 {
            status(&mut out, self.status);
        }
        if let Some(preference) = self.preference {
            out.option(code::PREFERENCE, |out| out.put(&[preference]));
        }
        if self.rapid {
            out.option(code::RAPID_COMMIT, |_| {});
        }
        if let Some(seconds) = self.sol_max_rt {
            out.option(82, |out| out.put(&seconds.to_be_bytes()));
        }
        if self.no_ia {
            return out.finish();
        }
        out.option(code::IA_PD, |out| {
            [IAID, self.times.0, self.times.1].iter().for_each(|word| out.put(&word.to_be_bytes()));
            for (prefix, length, preferred, valid) in &self.prefixes {
                out.option(26, |out| {
                    [preferred, valid].iter().for_each(|word| out.put(&word.to_be_bytes()));
                    out.put(&[*length]);
                    out.put(&ip(prefix).octets());
                });
            }
            if self.ia_status != 0 {
                status(out, self.ia_status);
            }
        });
        out.finish()
    }
}

struct Bench {
    client: Client,
    now: Instant,
    rng: StdRng,
    sent: Vec<(Instant, Vec<u8>)>,
    notes: Vec<Note>,
    changes: usize,
}

impl Bench {
    fn new() -> Bench {
        let settings = Settings { duid: duid(9), iaid: IAID, hint: 56, rapid_commit: false };
        let (now, rng) = (Instant::START, StdRng::seed_from_u64(1));
        Bench { client: Client::new(settings), now, rng, sent: vec![], notes: vec![], changes: 0 }
    }

    fn started() -> Bench {
        let mut bench = Bench::new();
        let mut out = Vec::new();
        bench.client.start(bench.now, &mut bench.rng, &mut out);
        bench.take(out);
        bench
    }

    /// With this delegated by server 1.
    fn bound(prefixes: &[(&'static str, u8, u32, u32)]) -> Bench {
        let mut bench = Bench::started();
        bench.until(Stage::Soliciting, 1);
        bench.hear(ADVERTISE, &Say { preference: Some(255), ..say(prefixes) });
        assert!(bench.hear(REPLY, &say(prefixes)));
        assert_eq!(bench.client.stage(), Stage::Bound);
        bench
    }

    fn take(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send(octets) => self.sent.push((self.now, octets)),
                Output::Changed => self.changes += 1,
                Output::Note(note) => self.notes.push(note),
            }
        }
        self.client.selfcheck();
    }

    /// A server answers the last question.
    fn hear(&mut self, kind: u8, say: &Say) -> bool {
        let question = self.sent.last().map(|(_, octets)| octets.clone()).unwrap_or(vec![0; 4]);
        self.hear_octets(&say.octets(kind, &question))
    }

    fn hear_octets(&mut self, octets: &[u8]) -> bool {
        let mut out = Vec::new();
        let fits = |prefix: Ipv6Addr, length: u8| length <= 64 && prefix.segments()[0] == 0x2001;
        let heard = self.client.receive(self.now, &mut self.rng, octets, &fits, &mut out);
        self.take(out);
        heard
    }

    /// Lets time pass to the next thing to do.
    fn step(&mut self) {
        self.now = self.now.max(self.client.deadline().expect("something to do"));
        let mut out = Vec::new();
        self.client.expire(self.now, &mut self.rng, &mut out);
        self.take(out);
    }

    fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.client.deadline().is_some_and(|due| due <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Until this has been sent so often in a stage, from here.
    fn until(&mut self, stage: Stage, count: usize) {
        for _ in 0..1000 {
            let sent = self.sent.len();
            self.step();
            if self.client.stage() == stage && self.sent.len() > sent {
                if count <= 1 {
                    return;
                }
                return self.until(stage, count - 1);
            }
        }
        panic!("{stage:?} is not reached: {:?}", self.client);
    }

    fn last(&self) -> u8 {
        self.sent.last().unwrap().1[0]
    }

    fn held(&self) -> Vec<(String, bool)> {
        let shown = |it: &Delegated| (format!("{}/{}", it.prefix, it.length), it.is_deprecated(self.now));
        self.client.delegated().iter().map(shown).collect()
    }
}

const A: (&str, u8, u32, u32) = ("2001:db8:a::", 56, 200, 400);
const B: (&str, u8, u32, u32) = ("2001:db8:b::", 56, 200, 400);

fn shown(prefix: &str, deprecated: bool) -> (String, bool) {
    (prefix.to_owned(), deprecated)
}

#[test]
fn questions_have_the_octets_of_the_rfc() {
    let mut bench = Bench::started();
    bench.client.settings.rapid_commit = true;
    bench.until(Stage::Soliciting, 1);
    let (_, solicit) = bench.sent[0].clone();
    #[rustfmt::skip]
    let expected = [
        0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 9, // Client Identifier
        0, 8, 0, 2, 0, 0, // Elapsed Time
        0, 6, 0, 2, 0, 82, // Option Request: SOL_MAX_RT
        0, 14, 0, 0, // Rapid Commit
        0, 25, 0, 41, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, // IA_PD
            0, 26, 0, 25, 0, 0, 0, 0, 0, 0, 0, 0, 56, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!((solicit[0], &solicit[4..]), (1, &expected[..]));
    bench.hear(ADVERTISE, &Say { preference: Some(255), ..say(&[A]) });
    let (_, request) = bench.sent.last().unwrap().clone();
    #[rustfmt::skip]
    let expected = [
        0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 9,
        0, 2, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 1, // Server Identifier
        0, 8, 0, 2, 0, 0,
        0, 6, 0, 2, 0, 82,
        0, 25, 0, 41, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 26, 0, 25, 0, 0, 0, 0, 0, 0, 0, 0, 56, 0x20, 1, 0x0d, 0xb8, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!((request[0], &request[4..]), (3, &expected[..]));
    assert_ne!(solicit[1..4], request[1..4], "another transaction");
}

#[test]
fn the_server_with_the_highest_preference_is_asked_when_there_was_time_to_compare() {
    let mut bench = Bench::started();
    bench.until(Stage::Soliciting, 1);
    for (server, preference, prefix) in [(1, 5, A), (2, 7, B), (3, 7, A)] {
        bench.hear(ADVERTISE, &Say { server, preference: Some(preference), ..say(&[prefix]) });
    }
    assert_eq!(bench.client.stage(), Stage::Soliciting);
    bench.step();
    assert_eq!((bench.client.stage(), bench.last()), (Stage::Requesting, 3));
    assert!(bench.sent[1].0.since(bench.sent[0].0) >= SOL_TIMEOUT, "never sooner");
    assert!(!bench.hear(REPLY, &say(&[A])), "another server was asked");
    assert!(bench.hear(REPLY, &Say { server: 2, ..say(&[B]) }));
    assert_eq!(bench.held(), [shown("2001:db8:b::/56", false)]);
    // After the first wait whoever answers first.
    let mut bench = Bench::started();
    bench.until(Stage::Soliciting, 2);
    bench.hear(ADVERTISE, &say(&[A]));
    assert_eq!(bench.client.stage(), Stage::Requesting);
}

// RFC 8415 §15, §7.6
#[test]
fn what_is_not_answered_is_said_again_more_and_more_rarely() {
    let mut bench = Bench::started();
    bench.run(40_000);
    let gaps: Vec<f64> = bench.sent.windows(2).map(|two| two[1].0.since(two[0].0).as_secs_f64()).collect();
    assert!(bench.sent[0].0 <= Instant(SOL_MAX_DELAY));
    assert!((1.0..=1.1).contains(&gaps[0]), "{gaps:?}");
    for pair in gaps.windows(2).take(10) {
        assert!((1.9..=2.1).contains(&(pair[1] / pair[0])), "{gaps:?}");
    }
    assert!(gaps[12..].iter().all(|gap| (3240.0..=3960.0).contains(gap)), "{gaps:?}");
    let elapsed = |at: usize| u16::from_be_bytes(bench.sent[at].1[22..24].try_into().unwrap());
    let second = bench.sent[1].0.since(bench.sent[0].0).as_millis() / 10;
    assert_eq!((elapsed(0), u128::from(elapsed(1)), elapsed(20)), (0, second, u16::MAX));
    // A server may have it ask more rarely, or less (§18.2.9), within bounds.
    for (said, longest) in [(60, 66.0), (59, 3960.0), (86_401, 3960.0)] {
        let mut bench = Bench::started();
        bench.until(Stage::Soliciting, 1);
        bench.hear(ADVERTISE, &Say { sol_max_rt: Some(said), no_ia: true, ..say(&[]) });
        bench.run(30_000);
        let last = &bench.sent[bench.sent.len() - 2..];
        assert!((longest * 0.8..=longest).contains(&last[1].0.since(last[0].0).as_secs_f64()), "{said}");
    }
    // A server that is silent is left after ten questions.
    let mut bench = Bench::started();
    bench.until(Stage::Soliciting, 1);
    bench.hear(ADVERTISE, &Say { preference: Some(255), ..say(&[A]) });
    bench.until(Stage::Soliciting, 1);
    assert_eq!(bench.sent.iter().filter(|(_, octets)| octets[0] == 3).count(), 10);
}

#[test]
fn a_lease_is_extended_by_its_server_then_by_any_and_ends() {
    let mut bench = Bench::bound(&[A]);
    let began = bench.now;
    assert_eq!(bench.changes, 1);
    bench.step();
    assert_eq!((bench.client.stage(), bench.last(), bench.now.since(began).as_secs()), (Stage::Renewing, 5, 100));
    bench.until(Stage::Rebinding, 1);
    assert_eq!((bench.last(), bench.now.since(began).as_secs()), (6, 160));
    bench.run(45);
    assert_eq!((bench.changes, bench.held()), (2, vec![shown("2001:db8:a::/56", true)]), "no longer preferred");
    bench.until(Stage::Soliciting, 1);
    assert!((400..402).contains(&bench.now.since(began).as_secs()));
    assert_eq!((bench.changes, bench.held().len()), (3, 0));
    // Any server may extend it while there is time.
    let mut bench = Bench::bound(&[A]);
    bench.until(Stage::Rebinding, 1);
    assert!(bench.hear(REPLY, &Say { server: 4, ..say(&[A]) }));
    bench.until(Stage::Renewing, 1);
    assert!(!bench.hear(REPLY, &say(&[A])), "the former server was not asked");
    assert!(bench.hear(REPLY, &Say { server: 4, ..say(&[A]) }));
    assert_eq!(bench.changes, 1);
}

#[test]
fn times_the_server_leaves_open_follow_from_lifetimes_and_some_have_no_end() {
    let at = |times: (u32, u32), prefixes: &[(&'static str, u8, u32, u32)]| {
        let mut bench = Bench::bound(prefixes);
        bench.until(Stage::Renewing, 1);
        let heard = Say { times, ..say(prefixes) };
        assert!(bench.hear(REPLY, &heard));
        let lease = bench.client.lease.as_ref().unwrap();
        [lease.t1, lease.t2].map(|at| at.map(|at| at.since(bench.now).as_secs()))
    };
    assert_eq!(at((0, 0), &[A]), [Some(100), Some(160)]);
    assert_eq!(at((0, 0), &[A, ("2001:db8:b::", 56, 50, 400)]), [Some(25), Some(40)]);
    assert_eq!(at((1, 2), &[A]), [Some(5), Some(5)], "not without rest");
    assert_eq!(at((INFINITE, INFINITE), &[("2001:db8:a::", 56, INFINITE, INFINITE)]), [None, None]);
    assert_eq!(at((0, 0), &[("2001:db8:a::", 56, INFINITE, INFINITE)]), [None, None]);
    let mut bench = Bench::started();
    bench.until(Stage::Soliciting, 1);
    let endless = [("2001:db8:a::", 48, INFINITE, INFINITE)];
    bench.hear(ADVERTISE, &Say { preference: Some(255), ..say(&endless) });
    bench.hear(REPLY, &Say { times: (0, 0), ..say(&endless) });
    assert_eq!((bench.client.stage(), bench.client.deadline()), (Stage::Bound, None));
}

const INFINITE: u32 = u32::MAX;

#[test]
fn another_prefix_comes_beside_the_old_one_which_lives_to_its_end() {
    // What the server does not speak of any more is deprecated and good until its time is over.
    let mut bench = Bench::bound(&[A]);
    bench.until(Stage::Renewing, 1);
    let heard_at = bench.now;
    assert!(bench.hear(REPLY, &say(&[B])));
    assert_eq!(bench.held(), [shown("2001:db8:b::/56", false), shown("2001:db8:a::/56", true)]);
    bench.run(301);
    assert_eq!(bench.held(), [shown("2001:db8:b::/56", true)], "{:?}", bench.now.since(heard_at));
    // One with preferred lifetime 0 is deprecated, one with valid lifetime 0 is gone.
    let mut bench = Bench::bound(&[A]);
    bench.until(Stage::Renewing, 1);
    assert!(bench.hear(REPLY, &say(&[("2001:db8:a::", 56, 0, 90), B])));
    assert_eq!(bench.held(), [shown("2001:db8:a::/56", true), shown("2001:db8:b::/56", false)]);
    bench.until(Stage::Renewing, 1);
    assert!(bench.hear(REPLY, &say(&[("2001:db8:b::", 56, 0, 0), A])));
    assert_eq!(bench.held(), [shown("2001:db8:a::/56", false)]);
    // All taken back: servers are looked for again.
    bench.until(Stage::Renewing, 1);
    assert!(bench.hear(REPLY, &say(&[("2001:db8:a::", 56, 0, 0)])));
    assert_eq!((bench.held().len(), bench.client.stage()), (0, Stage::Soliciting));
}

#[test]
fn a_server_that_forgot_is_asked_as_if_for_the_first_time() {
    for whole in [false, true] {
        let mut bench = Bench::bound(&[A]);
        bench.until(Stage::Renewing, 1);
        let (status, ia_status) = if whole { (3, 0) } else { (0, 3) };
        assert!(bench.hear(REPLY, &Say { status, ia_status, ..say(&[]) }));
        assert_eq!(
            (bench.client.stage(), bench.last(), &bench.notes[..]),
            (Stage::Requesting, 3, &[Note::Forgotten][..])
        );
        assert_eq!(bench.held(), [shown("2001:db8:a::/56", false)], "still good");
        assert!(bench.hear(REPLY, &say(&[B])));
        assert_eq!(bench.held(), [shown("2001:db8:b::/56", false), shown("2001:db8:a::/56", true)]);
    }
}

#[test]
fn who_has_nothing_for_us_is_asked_again_more_and_more_rarely() {
    let mut bench = Bench::started();
    let mut last = Instant::START;
    let mut gaps = Vec::new();
    for _ in 0..9 {
        bench.until(Stage::Soliciting, 1);
        gaps.push(bench.now.since(last).as_secs());
        last = bench.now;
        bench.hear(ADVERTISE, &Say { preference: Some(255), ..say(&[A]) });
        assert_eq!(bench.client.stage(), Stage::Requesting);
        bench.hear(REPLY, &Say { ia_status: 6, ..say(&[]) });
    }
    assert!(gaps.windows(2).all(|two| two[0] <= two[1] + 1) && (120..=122).contains(gaps.last().unwrap()), "{gaps:?}");
    // An Advertise without a prefix is none, nor is one that offers what cannot be used.
    let mut bench = Bench::started();
    bench.until(Stage::Soliciting, 1);
    let used = ("2001:db8:a::", 72, 100, 100);
    for heard in
        [Say { ia_status: 6, ..say(&[]) }, Say { no_ia: true, ..say(&[]) }, say(&[("fc00::", 48, 9, 9)]), say(&[used])]
    {
        bench.hear(ADVERTISE, &Say { preference: Some(255), ..heard });
        assert_eq!(bench.client.stage(), Stage::Soliciting);
    }
    assert_eq!(bench.notes[3], Note::Unusable(ip("2001:db8:a::"), 72));
}

// RFC 8415 §18.2.12
#[test]
fn after_a_restart_it_is_asked_whether_the_same_is_still_good() {
    let epoch = 1_700_000_000;
    let before = Bench::bound(&[A]);
    let stored = before.client.stored(epoch).unwrap();
    let text = serde_json::to_string(&stored).unwrap();
    let restart = |later: u64| {
        let mut bench = Bench::new();
        bench.client.restore(&serde_json::from_str(&text).unwrap(), epoch + before.now.0.as_secs() + later);
        let mut out = Vec::new();
        bench.client.start(bench.now, &mut bench.rng, &mut out);
        bench.take(out);
        bench
    };
    let mut bench = restart(10);
    assert_eq!((bench.held(), bench.changes), (vec![shown("2001:db8:a::/56", false)], 1), "it is used at once");
    bench.until(Stage::Rebinding, 1);
    assert_eq!(bench.last(), 6);
    assert!(bench.hear(REPLY, &say(&[A])));
    assert_eq!((bench.client.stage(), bench.changes), (Stage::Bound, 1));
    // Nobody answers: what is known counts, and it goes on where it was.
    let mut bench = restart(10);
    bench.run(12);
    assert_eq!(bench.client.stage(), Stage::Bound);
    bench.until(Stage::Renewing, 1);
    // What is over is over.
    let mut bench = restart(500);
    assert_eq!(bench.held(), []);
    bench.until(Stage::Soliciting, 1);
    // A link that went and came back is looked at in the same way, and not more often than that takes.
    let mut bench = Bench::bound(&[A]);
    bench.client.link_up(bench.now, &mut bench.rng);
    assert_eq!(bench.client.stage(), Stage::Rebinding);
    bench.until(Stage::Rebinding, 1);
    bench.hear(REPLY, &say(&[A]));
    bench.client.link_up(bench.now, &mut bench.rng);
    assert_eq!(bench.client.stage(), Stage::Bound);
}

#[test]
fn what_is_given_back_is_not_used_and_said_four_times_at_most() {
    let mut bench = Bench::bound(&[A]);
    let mut out = Vec::new();
    bench.client.release(bench.now, &mut bench.rng, &mut out);
    bench.take(out);
    assert_eq!((bench.held().len(), bench.last(), bench.client.stored(0)), (0, 8, None));
    while bench.client.deadline().is_some() {
        bench.step();
    }
    assert_eq!(bench.sent.iter().filter(|(_, octets)| octets[0] == 8).count(), 4);
    assert_eq!(bench.client.stage(), Stage::Idle);
    let mut bench = Bench::bound(&[A]);
    let mut out = Vec::new();
    bench.client.release(bench.now, &mut bench.rng, &mut out);
    bench.take(out);
    assert!(bench.hear(REPLY, &say(&[])));
    assert_eq!(bench.client.stage(), Stage::Idle);
}

#[test]
fn messages_for_others_and_broken_ones_are_not_heard() {
    let question = in_stage(Stage::Requesting).sent.last().unwrap().1.clone();
    let good = say(&[A]).octets(REPLY, &question);
    let hears = |octets: &[u8]| in_stage(Stage::Requesting).hear_octets(octets);
    assert!(hears(&good));
    for length in 0..good.len() {
        // Between options it is a message that says less.
        assert!(!hears(&good[..length]) || length == 32, "{length}");
    }
    let mut other = good.clone();
    other[4 + 4 + 9] = 8;
    assert!(!hears(&other), "for another client");
    let twice = [&good[..], &good[4..18]].concat();
    assert!(!hears(&twice), "two names");
    let mut late = good.clone();
    let at = late.windows(4).position(|four| four == 100_u32.to_be_bytes()).unwrap();
    late[at..at + 4].copy_from_slice(&161_u32.to_be_bytes());
    let mut bench = in_stage(Stage::Requesting);
    bench.hear_octets(&late);
    assert_eq!(bench.held(), [], "T1 after T2");
    // §21.22
    let mut bench = in_stage(Stage::Requesting);
    bench.hear(REPLY, &say(&[("2001:db8:a::", 56, 500, 400)]));
    assert_eq!(bench.held(), [], "preferred for longer than valid");
    let mut bench = in_stage(Stage::Requesting);
    bench.hear(REPLY, &say(&[("2001:db8:a:ff::1", 48, 5, 400)]));
    assert_eq!(bench.held()[0].0, "2001:db8:a::/48", "bits beyond the length mean nothing");
}
