//! Recordings of boxes with files, of damaged ones, and of programs that decide otherwise.

use std::fs;
use std::net::Ipv6Addr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use dataplane::link::{Notice, Punt};
use dataplane::snapshot::PortId;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::{Ulid, UlidPair};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::config::uplink::resolve;
use crate::config::{Configuration, key};
use crate::config::{Hosts, Site, hosts};
use crate::engine::{Effect, Keys};
use crate::manage::api::Steering;
use crate::manage::verbs::{ReplayArgs, ReplayLine};
use crate::policy::Policy;
use crate::sim::{Plan, Recording, World, packet};
use crate::time::Instant;

const SITE: &str = r#"
[box]
name = "a-box"
[site]
prefix = "fc00:a::/48"
lan = "fc00:a:0:1::/64"
port = "lan"
key = "key.pem"
[[peer]]
name = "b-h1"
ulid = "fc00:b:0:1::5"
locators = ["2001:db8:b1:1::5", "2001:db8:b2:1::5"]
[[port]]
name = "lan"
device = "net_null0"
addresses = ["fc00:a:0:1::1/64"]
[[port]]
name = "x"
device = "net_null1"
addresses = ["2001:db8:aa::2/64"]
[[port]]
name = "y"
device = "net_null2"
addresses = ["2001:db8:ab::2/64"]
[[provider]]
name = "isp-x"
port = "x"
prefix = "2001:db8:a1:1::/64"
next_hop = "2001:db8:aa::1"
[[provider]]
name = "isp-y"
port = "y"
prefix = "2001:db8:a2:1::/64"
next_hop = "2001:db8:ab::1"
"#;

const POLICY: &str = r#"{"version": 1, "default": {"out": {"prefer": ["isp-x"]}, "in": {"prefer": ["isp-y"]}}}"#;

/// A folder of its own for a test, removed at its end.
struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Room {
        let path = std::env::temp_dir().join(format!("pshim6-tape-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Room(path)
    }

    /// A site with two hosts, one of which has a locator that only the site's key proves.
    fn furnish(&self) -> Configuration {
        let one = SITE.split("[[provider]]\nname = \"isp-y\"").next().unwrap();
        let (site, hosts) = (self.0.join("site.toml"), self.0.join("hosts.json"));
        fs::write(&site, one).unwrap();
        let key = key::make(&self.0.join("key.pem"), 1024).unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        for name in ["h1", "h2"] {
            let known = Site::load(&site).unwrap().0;
            let mut edit = hosts::Edit::begin(&hosts).unwrap();
            edit.add(name, false, &known, Some(&key), &mut rng, &mut |_| ControlFlow::Continue(())).unwrap();
            edit.save().unwrap();
        }
        Configuration::load(&site).unwrap()
    }

    /// With the second provider, and locators for it that the key has to sign.
    fn grow(&self) -> Configuration {
        let site = self.0.join("site.toml");
        fs::write(&site, SITE).unwrap();
        let (known, key) = (Site::load(&site).unwrap().0, key::load(&self.0.join("key.pem")).unwrap());
        let mut edit = hosts::Edit::begin(&self.0.join("hosts.json")).unwrap();
        edit.update(None, &known, Some(&key), &mut StdRng::seed_from_u64(2)).unwrap();
        edit.save().unwrap();
        Configuration::load(&site).unwrap()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn at(millis: u64) -> Instant {
    Instant(Duration::from_millis(millis))
}

/// Where a recorder writes.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    fn recorder(&self, most: u64) -> Recorder {
        let paper = self.0.clone();
        let sink = move |piece: Vec<u8>| {
            paper.lock().unwrap_or_else(PoisonError::into_inner).extend(piece);
            Ok(())
        };
        Recorder::new(most, Box::new(sink))
    }

    fn octets(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

fn source_of(configuration: &Configuration) -> Source {
    Source::Texts(Box::new(Texts {
        file: configuration.file.display().to_string(),
        site: configuration.texts.site.clone(),
        hosts: configuration.texts.hosts.clone(),
        key: configuration.hosts.key().map(|key| key.public_key_der().to_vec()),
    }))
}

/// A box with files, recorded through what an operator may do to it.
fn recorded(room: &Room) -> Vec<u8> {
    let (first, paper) = (room.furnish(), Paper::default());
    let beginning = Beginning {
        version: "test".into(),
        seed: [7; 32],
        keys: Keys::draw(&mut StdRng::seed_from_u64(3)),
        ports: (1..=3).map(|at| ([2, 0, 0, 0, 0, at], 1500)).collect(),
        source: source_of(&first),
        found: Vec::new(),
        now: 0,
        unix: 1_700_000_000,
    };
    let (site, hosts) = resolve(&first.site, &first.hosts, &[]);
    let mut core = Core::begin(&beginning, &site, &hosts, Some(Box::new(paper.recorder(1 << 20)))).unwrap();
    let (mut inputs, mut effects) = (core.inputs(), Vec::new());
    inputs.start(at(0), &mut effects);
    inputs.expire(at(1), &mut effects);
    // The router answers whoever looks for it.
    let router: Ipv6Addr = "2001:db8:aa::1".parse().unwrap();
    let asked = effects.iter().find_map(|effect| match effect {
        Effect::Transmit(PortId(1), frame) => {
            packet::packet_in(frame).filter(|it| packet::solicited(it) == Some(router)).map(<[u8]>::to_vec)
        }
        _ => None,
    });
    let answer = packet::advertisement(&asked.expect("a question"), router, Mac([2, 0, 0, 0, 1, 1])).unwrap();
    let frame = packet::frame(Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 1, 1]), &answer);
    inputs.notice(at(2), Notice::Punt(PortId(1), Punt::HostStack, &frame), &mut effects);
    for second in 0..3 {
        inputs.wall_clock(at(second * 1000), 1_700_000_000 + second);
        inputs.link_state(at(second * 1000), PortId(1), second != 1, &mut effects);
        inputs.expire(at(second * 1000 + 5), &mut effects);
    }
    let (local, peer) = (hosts.iter().next().unwrap().identity.ulid, Ulid("fc00:b:0:1::5".parse().unwrap()));
    inputs.notice(at(3000), Notice::UnknownPair(UlidPair { local, peer }), &mut effects);
    // Another provider, whose locators are signed.
    let grown = room.grow();
    let (site, hosts) = resolve(&grown.site, &grown.hosts, &[]);
    let source = || source_of(&grown);
    assert!(inputs.reload(at(3500), (&source, &[]), (&site, &hosts), &mut effects).is_ok());
    let policy = Policy::parse(&site.node.policy_file, POLICY, &site, &hosts).unwrap();
    inputs.set_policy(at(3501), (Some(POLICY), &[]), Some(policy), &mut effects);
    assert!(inputs.steer(at(4000), "nobody", Steering::Drain).is_err());
    assert!(inputs.steer(at(4000), "isp-y", Steering::Avoid).is_ok());
    for step in 0..40 {
        inputs.expire(at(4000 + 250 * step), &mut effects);
    }
    inputs.farewell(at(20_000), &mut effects);
    assert!(effects.len() > 10);
    assert_eq!(core.rest(), None);
    assert!(core.stop_recording());
    let mut octets = paper.octets();
    octets.extend(last_piece(1, "it was stopped"));
    octets
}

static TAPE: LazyLock<Vec<u8>> = LazyLock::new(|| recorded(&Room::new("shared")));

fn asked(line: &str) -> ReplayArgs {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        asked: ReplayArgs,
    }
    Line::parse_from(["replay", "FILE"].into_iter().chain(line.split_whitespace())).asked
}

fn told(octets: &[u8], line: &str) -> (bool, Vec<ReplayLine>) {
    let mut lines = Vec::new();
    let mut say = |line| {
        lines.push(line);
        Ok(())
    };
    let same = tell(octets, &asked(line), &mut say).unwrap();
    (same, lines)
}

fn end(lines: &[ReplayLine]) -> (u64, u64, String) {
    let end = lines.iter().find_map(|line| match line {
        ReplayLine::End { inputs, differences, text, .. } => Some((*inputs, *differences, text.clone())),
        _ => None,
    });
    end.expect("a last line")
}

#[test]
fn a_box_with_files_is_decided_again_without_them_and_without_its_key() {
    let room = Room::new("files");
    let octets = recorded(&room);
    // Nothing of the private half is on the tape.
    let pem = fs::read_to_string(room.0.join("key.pem")).unwrap();
    let text: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
    let der = openssl::base64::decode_block(&text).unwrap();
    let secret = &der[der.len() - 80..];
    assert!(!octets.windows(16).any(|window| secret.windows(16).any(|part| part == window)));
    drop(room);
    let (same, lines) = told(&octets, "--effects all --inputs --show contexts,counters,providers,hosts,paths");
    let (inputs, differences, text) = end(&lines);
    assert!(same && differences == 0, "{lines:#?}");
    assert_eq!((inputs, text.as_str()), (58, "the recording ends here: it was stopped"));
    assert!(matches!(&lines[0], ReplayLine::Recording { name, .. } if name == "a-box"));
    let counters = lines.iter().find_map(|line| match line {
        ReplayLine::Counters(view) => Some(view.counters["control_opened"]),
        _ => None,
    });
    assert_eq!(counters, Some(1), "{lines:#?}");
    let shown = lines.iter().filter(|line| matches!(line, ReplayLine::Contexts(view) if view.contexts.len() == 1));
    assert_eq!(shown.count(), 1);
    let avoided = |line: &ReplayLine| match line {
        ReplayLine::Providers(views) => views.iter().any(|it| it.name == "isp-y" && it.steering == Steering::Avoid),
        _ => false,
    };
    assert!(lines.iter().any(avoided));
}

#[test]
fn what_is_told_can_be_chosen() {
    let lines = |line: &str| told(&TAPE, line).1;
    let count = |lines: &[ReplayLine]| lines.iter().filter(|it| matches!(it, ReplayLine::Effect { .. })).count();
    let all = count(&lines("--effects all"));
    assert!(all > count(&lines("--effects transmit,install")) && count(&lines("--effects lose")) > 0);
    // The link of the first provider goes and comes back, and nothing else has a story.
    let stories = count(&lines(""));
    assert!(stories > 0 && stories < all);
    let late = lines("--effects all --since 3");
    assert!(count(&late) < all && count(&late) > 0);
    let stopped = lines("--stop 5 --show providers");
    assert_eq!((end(&stopped).0, end(&stopped).2.as_str()), (5, "stopped here"));
    assert_eq!(end(&lines("--until 3")).0, 13);
    let about = |text: &str| count(&lines(&format!("--effects all --about {text}")));
    assert!(about("fc00:b:0:1::5") > 0 && about("fc00:b:0:1::5") < all);
    assert_eq!(about("2001:db8:dead::1"), 0);
    let inputs = |text: &str| {
        let lines = lines(&format!("--inputs --about {text}"));
        lines.iter().filter(|it| matches!(it, ReplayLine::Input { kind: "unknown-pair", .. })).count()
    };
    assert_eq!((inputs("fc00:b:0:1::5"), inputs("fc00:b:0:1::50")), (1, 0));
    for wrong in ["--effects luck", "--about h1", "--about ffffffffffffff"] {
        assert!(tell(&TAPE, &asked(wrong), &mut |_| Ok(())).is_err(), "{wrong}");
    }
}

/// The records of a tape, changed and written anew.
fn rewritten(octets: &[u8], mut change: impl FnMut(&mut Record<'_>)) -> Vec<u8> {
    let mut pieces = form::Pieces::new(octets).unwrap();
    let (mut written, mut piece) = (form::head(), form::room());
    while let Some(records) = pieces.next() {
        let mut records = records.unwrap();
        while !records.is_empty() {
            let (mut record, rest) = postcard::take_from_bytes(records).unwrap();
            records = rest;
            change(&mut record);
            form::write(&mut piece, &record).unwrap();
        }
    }
    written.extend(form::seal(0, piece));
    written
}

#[test]
fn a_program_that_decides_otherwise_is_found_out_where_it_does() {
    let mut first = None;
    let mut outcomes = 0;
    let octets = rewritten(&TAPE, |record| {
        if let Record::Outcome(digests) = record {
            outcomes += 1;
            if let (None, Some(last)) = (first, digests.get_mut(1)) {
                *last ^= 1;
                first = Some(outcomes);
            }
        }
    });
    let (same, lines) = told(&octets, "");
    let found = lines.iter().find_map(|line| match line {
        ReplayLine::Difference { number, text, now, .. } => Some((*number, text.clone(), now.clone())),
        _ => None,
    });
    let (number, text, now) = found.expect("a difference");
    assert_eq!((same, Some(number), number), (false, first, end(&lines).0));
    assert!(text.contains("has other contents") && now.is_some(), "{text}");
    // It goes on if it is asked to, and what is of no interest is passed over.
    assert_eq!(end(&told(&octets, "--keep-going").1).0, outcomes);
    let kind = text.split(", ").nth(1).unwrap();
    assert!(told(&octets, &format!("--ignore {kind}")).0);
    // An effect more or less, and another answer.
    let shorter = rewritten(&TAPE, |record| {
        if let Record::Outcome(digests) = record {
            digests.truncate(1);
        }
    });
    let text = |octets: &[u8]| {
        let lines = told(octets, "").1;
        lines.into_iter().find_map(|line| match line {
            ReplayLine::Difference { text, .. } => Some(text),
            _ => None,
        })
    };
    assert!(text(&shorter).is_some_and(|text| text.contains("was nothing more and is")));
    let other = rewritten(&TAPE, |record| {
        if let Record::Outcome(digests) = record {
            digests[0] ^= 2;
        }
    });
    assert!(text(&other).is_some_and(|text| text.contains("answers something else")));
}

#[test]
fn another_input_is_another_outcome() {
    // What a worker says of another peer.
    let octets = rewritten(&TAPE, |record| {
        if let Record::Input(_, Input::Notice(Heard::UnknownPair((_, peer)))) = record {
            *peer = "fc00:b:0:1::6".parse::<Ipv6Addr>().unwrap();
        }
    });
    assert!(!told(&octets, "").0);
}

#[test]
fn a_tape_that_is_cut_off_is_good_until_there() {
    let mut counts = Vec::new();
    for length in 0..TAPE.len() {
        let mut lines = Vec::new();
        let result = tell(&TAPE[..length], &asked(""), &mut |line| {
            lines.push(line);
            Ok(())
        });
        match result {
            // Without its beginning it is nothing.
            Err(_) => assert!(lines.is_empty() && counts.is_empty(), "{length}"),
            Ok(same) => {
                assert!(same, "{length}: {lines:#?}");
                counts.push(end(&lines).0);
            }
        }
    }
    assert!(counts.is_sorted() && counts.last() == Some(&58));
}

/// A tape of several pieces, from a world.
static WORLD: LazyLock<Recording> = LazyLock::new(|| {
    let mut world = World::new(&Plan { recorded: true, ..Plan::default() }, 1);
    world.stream(0, 1, Duration::from_millis(20));
    world.stream(1, 0, Duration::from_millis(20));
    // Each time somebody looks, a piece is finished.
    for _ in 0..20 {
        world.run(Duration::from_millis(200));
        world.recordings();
    }
    world.recordings().swap_remove(0)
});

#[test]
fn a_tape_of_many_pieces_may_end_after_each() {
    let whole = WORLD.replay().unwrap();
    let numbered = |number: u64| WORLD.configurations.get(number as usize).cloned();
    let mut seen = std::collections::BTreeSet::new();
    for length in (0..WORLD.octets.len()).step_by(131) {
        let Ok(mut replay) = Replay::open(&WORLD.octets[..length], &numbered) else { continue };
        let mut steps = 0;
        while let Some(step) = replay.step().unwrap() {
            assert_eq!(step.difference, None);
            steps = step.number;
        }
        assert!(matches!(replay.ending(), Some(Ending::CutOff(_) | Ending::Abrupt)));
        seen.insert(steps);
    }
    assert!(seen.len() > 10 && seen.last().is_some_and(|steps| *steps < whole), "{seen:?}");
}

/// Replays what may be damaged. Nothing of it may differ: what can be read is what was written.
fn survives(octets: &[u8], numbered: Numbered<'_>) -> Result<u64, ReplayError> {
    let mut replay = Replay::open(octets, numbered)?;
    let mut steps = 0;
    while let Some(step) = replay.step()? {
        assert_eq!(step.difference, None, "input {}", step.number);
        steps = step.number;
    }
    Ok(steps)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Any octet may be another one: that is said, and what stands before it is good.
    #[test]
    fn damage_is_found(place in any::<prop::sample::Index>(), change in 1_u8..) {
        let numbered = |number: u64| WORLD.configurations.get(number as usize).cloned();
        let mut octets = WORLD.octets.clone();
        octets[place.index(WORLD.octets.len())] ^= change;
        prop_assert!(survives(&octets, &numbered).is_err());
    }

    /// Noise in the form of a tape is an error, whatever it is.
    #[test]
    fn noise_is_an_error(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let none = |_: u64| -> Option<(Site, Hosts)> { None };
        let framed = [form::head(), form::seal(0, [form::room(), noise.clone()].concat())].concat();
        prop_assert!(survives(&framed, &none).is_err());
        prop_assert!(survives(&noise, &none).is_err());
    }

    /// Records that nobody would write, in a tape that is whole otherwise, are errors or differences and no worse.
    #[test]
    fn odd_records_do_no_harm(number in 0_usize..60, octet in any::<prop::sample::Index>(), change in 1_u8..) {
        let mut at = 0;
        let mut octets = form::head();
        let mut piece = form::room();
        let mut pieces = form::Pieces::new(&TAPE).unwrap();
        while let Some(Ok(mut records)) = pieces.next() {
            while !records.is_empty() {
                let (_, rest): (Record<'_>, _) = postcard::take_from_bytes(records).unwrap();
                let mut record = records[..records.len() - rest.len()].to_vec();
                if at == number {
                    let place = octet.index(record.len());
                    record[place] ^= change;
                }
                (at, records) = (at + 1, rest);
                piece.extend(record);
            }
        }
        octets.extend(form::seal(0, piece));
        let none = |_: u64| -> Option<(Site, Hosts)> { None };
        if let Ok(mut replay) = Replay::open(&octets, &none) {
            while let Ok(Some(_)) = replay.step() {}
        }
    }
}

#[test]
fn a_tape_has_a_bound_and_a_sink_that_takes_nothing_ends_it() {
    let (beginning, input) = (|| Input::Steer("x".repeat(1000), Steering::Normal), at(1));
    let paper = Paper::default();
    let mut recorder = paper.recorder(100_000);
    let mut written = 0;
    while recorder.is_over().is_none() {
        recorder.input(input, &beginning());
        recorder.rest();
        written += 1;
    }
    assert_eq!(recorder.is_over().as_deref(), Some("it is as long as it may be"));
    assert!((90..100).contains(&written) && paper.octets().len() <= 100_000);
    recorder.input(input, &beginning());
    recorder.rest();
    assert!(paper.octets().len() <= 100_000);
    let mut pieces = 0;
    let sink = move |_: Vec<u8>| {
        pieces += 1;
        if pieces > 3 { Err("the disk does not keep up".to_owned()) } else { Ok(()) }
    };
    let mut recorder = Recorder::new(u64::MAX, Box::new(sink));
    for _ in 0..5 {
        recorder.input(input, &beginning());
        recorder.rest();
    }
    assert_eq!(recorder.is_over().as_deref(), Some("the disk does not keep up"));
}
