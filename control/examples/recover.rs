//! How fast a box that lost everything knows its contexts again: by R1bis and I2bis from peers that still use them, and from another
//! box of the site that tells it. The engine is the real one on both sides of no network, and all is done on one core. Prints JSON.
//!
//! `cargo run --release -p control --example recover -- --contexts 1000000`

mod scene;

use std::time::{Duration, Instant as Wall};

use clap::Parser;
use control::engine::{Effect, Engine, GroupPlan};
use control::sync::{FromTeller, decode, encode};
use control::time::Instant;
use dataplane::link::Notice;
use dataplane::wire::{ContextTag, LocatorPair};
use rand::rngs::StdRng;
use scene::{Scene, Setting};
use serde_json::{Value, json};

/// Measures how contexts come back.
#[derive(Clone, Copy, Debug, Parser)]
#[command(name = "recover")]
struct Arguments {
    /// Contexts whose peers prove their locators by hashes (HBA).
    #[arg(long, default_value_t = 100_000)]
    contexts: usize,
    /// Peers that prove them by signatures (CGA), beside those; each signature is a new one, and then [`SHARED`] contexts have one.
    #[arg(long, default_value_t = 8192)]
    signed: usize,
    /// The bits of their keys.
    #[arg(long, default_value_t = 2048)]
    bits: u32,
    /// Peers asked in one go.
    #[arg(long, default_value_t = 16_384)]
    block: usize,
    /// Hosts of the box.
    #[arg(long, default_value_t = 64)]
    hosts: u16,
    /// The box is one of two of its site, and tells the other one of what it knows again.
    #[arg(long)]
    sync: bool,
}

/// Contexts of each peer in the part where a signature is seen again.
const SHARED: usize = 64;

fn main() {
    let arguments = Arguments::parse();
    let mut after = scene(&arguments, 0);
    if arguments.sync {
        after.with(|engine, now, _, _| engine.join_group(now, group(0)));
    }
    let mut report = json!({ "sync": arguments.sync });
    report["hba"] =
        recover(&arguments, &mut after, Peers { keys: 0, first: 0, count: arguments.contexts, contexts: 1 });
    if arguments.signed >= SHARED {
        let first = arguments.contexts;
        let new = Peers { keys: 4, first, count: arguments.signed, contexts: 1 };
        report["cga"] = recover(&arguments, &mut after, new);
        let seen = Peers { first: first + arguments.signed, count: arguments.signed / SHARED, contexts: SHARED, ..new };
        report["cga_seen"] = recover(&arguments, &mut after, seen);
    }
    if arguments.sync {
        let told = mirror(&mut after);
        report["told"] = json!({
            "contexts": told.taken,
            "tell_ns": per(told.telling, told.taken),
            "take_in_ns": per(told.taking, told.taken),
            "octets": told.octets / told.taken.max(1),
            "tell_s": told.telling.as_secs_f64(),
            "take_in_s": told.taking.as_secs_f64(),
            "tell_longest_turn_us": told.longest.as_micros() as u64,
            "take_in_longest_batch_us": told.longest_taking.as_micros() as u64,
        });
    }
    println!("{report:#}");
}

fn per(time: Duration, count: usize) -> f64 {
    time.as_nanos() as f64 / count.max(1) as f64
}

fn scene(arguments: &Arguments, keys: usize) -> Scene {
    let all = (arguments.contexts + 2 * arguments.signed) as u32;
    // Of two boxes each takes its half of the places first, and must not come to the end of it.
    let room = all.saturating_mul(4).max(1 << 16);
    let setting = Setting { hosts: arguments.hosts, locators: 2, contexts_max: room, limited: false };
    Scene::new(setting, keys, arguments.bits)
}

/// Who is to be known again.
#[derive(Clone, Copy, Debug)]
struct Peers {
    /// Keys that they share; none if hashes prove their locators.
    keys: usize,
    /// The number of the first one.
    first: usize,
    count: usize,
    /// Contexts of each.
    contexts: usize,
}

/// Peers have contexts with a box as it was before, which is the same box as `after` in an earlier life; then they send payload to
/// that.
fn recover(arguments: &Arguments, after: &mut Scene, peers: Peers) -> Value {
    let mut before = scene(arguments, peers.keys);
    before.go_on_from(peers.first);
    let known = after.engine().contexts().count();
    let (mut told, mut taken, mut longest) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let (mut left, mut lost, mut taken_for_others, mut last) = (peers.count, 0, 0, Duration::ZERO);
    while left > 0 {
        let block = left.min(arguments.block / peers.contexts);
        left -= block;
        let i1s = before.peers_with(block, peers.contexts);
        let (r1s, _) = before.turns(&i1s, scene::turn);
        let i2s = before.answers(&r1s);
        let (r2s, _) = before.turns(&i2s, scene::turn);
        before.answers(&r2s);
        let payload = before.payload();
        assert_eq!(payload.len(), block * peers.contexts, "every peer has its contexts");
        let (r1bis, time, turn) = after.turns_of(&payload, stray);
        told += time;
        longest = longest.max(turn);
        let i2bis = before.answers(&r1bis);
        // Of a million old tags a few are those of new contexts by chance, so nobody is told there.
        assert!(i2bis.len() + 8 >= payload.len(), "an I2bis for each: {} of {}", i2bis.len(), payload.len());
        taken_for_others += payload.len() - i2bis.len();
        lost += i2bis.len();
        let (r2s, time, turn) = after.turns_of(&i2bis, |engine, now, rng, frames, effects| {
            scene::turn(engine, now, rng, frames, effects);
        });
        taken += time;
        longest = longest.max(turn);
        last = time / i2bis.len() as u32;
        assert_eq!(r2s.len(), i2bis.len(), "an R2 for each");
        before.forget_peers();
    }
    assert_eq!(after.engine().contexts().count(), known + lost, "all are there again");
    let each = per(told + taken, lost);
    json!({
        "contexts": lost,
        "contexts_before": known,
        "tags_of_others": taken_for_others,
        "r1bis_ns": per(told, lost),
        "i2bis_ns": per(taken, lost),
        "i2bis_last_block_ns": last.as_nanos() as u64,
        "per_s": 1e9 / each,
        "longest_turn_us": longest.as_micros() as u64,
    })
}

/// What the driver does when workers say that payload came with tags nobody has.
fn stray(
    engine: &mut Engine,
    now: Instant,
    rng: &mut StdRng,
    payload: &[(ContextTag, LocatorPair)],
    effects: &mut Vec<Effect>,
) {
    for (tag, locators) in payload {
        engine.notice(now, rng, Notice::UnknownTag { tag: *tag, locators: *locators, udp: None }, effects);
    }
    if engine.deadline().is_some_and(|due| due <= now) {
        engine.expire(now, rng, effects);
    }
}

/// One of two boxes.
fn group(box_id: u8) -> GroupPlan {
    GroupPlan { box_id, boxes: 2, others: 1, patience: Duration::ZERO, base: 0 }
}

/// What it costs to tell another box of all contexts, and that box to take them in, two batches in a turn as the driver does.
struct Mirror {
    telling: Duration,
    longest: Duration,
    octets: usize,
    taking: Duration,
    longest_taking: Duration,
    taken: usize,
}

fn mirror(scene: &mut Scene) -> Mirror {
    let none = Duration::ZERO;
    let mut seen = Mirror { telling: none, longest: none, octets: 0, taking: none, longest_taking: none, taken: 0 };
    let mut other = scene.heir();
    other.join_group(scene.now, group(1));
    other.partner_heard(0, 0, true);
    scene.with(|engine, _, _, _| engine.partner_hears(0, 1, true));
    let mut number = 0;
    while scene.engine().left_to_tell(0) > 0 {
        let mut messages: Vec<Vec<u8>> = Vec::new();
        let took = scene.with(|engine, now, _, _| {
            for _ in 0..2 {
                let mut told = Vec::new();
                engine.tell_partner(now, 0, 128, &mut told);
                number += 1;
                messages.push(encode(&FromTeller::Batch { number, now: now.0, told }));
            }
        });
        seen.telling += took;
        seen.longest = seen.longest.max(took);
        for message in messages {
            seen.octets += message.len();
            let Some(FromTeller::Batch { now: sent, told, .. }) = decode(&message[4..]) else { continue };
            let (began, mut effects) = (Wall::now(), Vec::new());
            other.hear_partner(scene.now, scene.rng(), 0, sent, told, &mut effects);
            seen.taking += began.elapsed();
            seen.longest_taking = seen.longest_taking.max(began.elapsed());
        }
    }
    seen.taken = other.contexts().count();
    seen
}
