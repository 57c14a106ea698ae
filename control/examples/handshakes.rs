//! How many handshakes the control core answers: I1 and I2 in, R1 and R2 out, through the engine as it runs in a box, with the
//! proof of each peer's locators and the context. Prints JSON.
//!
//! `cargo run --release -p control --example handshakes -- --help`. Under callgrind, collect one phase alone:
//! `valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*measured*' …/handshakes --peers 4096 --mark i2`.

mod scene;

use std::time::Duration;

use clap::{Parser, ValueEnum};
use control::engine::{Effect, Engine};
use control::time::Instant;
use rand::rngs::StdRng;
use scene::{Scene, Setting, memory};
use serde_json::json;

/// Measures handshakes through the responder.
#[derive(Clone, Copy, Debug, Parser)]
#[command(name = "handshakes")]
struct Arguments {
    /// Peers that ask, each with an address set of its own.
    #[arg(long, default_value_t = 65_536)]
    peers: usize,
    /// Peers that ask in one go: all their I1s, then all their I2s.
    #[arg(long, default_value_t = 16_384)]
    block: usize,
    /// Hosts of the box.
    #[arg(long, default_value_t = 64)]
    hosts: u16,
    /// Locators of each peer.
    #[arg(long, default_value_t = 2)]
    locators: u16,
    /// Locators are proved by signatures of keys of so many bits, none seen before; by hashes otherwise.
    #[arg(long)]
    cga: Option<u32>,
    /// One part alone.
    #[arg(long)]
    only: Option<Part>,
    /// The phase that runs in the function `measured`.
    #[arg(long, default_value = "i2")]
    mark: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Phase {
    /// I1 in, R1 out.
    I1,
    /// I2 in, R2 out.
    I2,
    /// The same I2 again.
    Again,
    /// I1s of a flood.
    Flood,
}

impl Arguments {
    fn turn(&self, phase: Phase) -> scene::Turn {
        if self.mark == phase { measured } else { scene::turn }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Handshakes of new peers.
    New,
    /// The same I2s again.
    Again,
    /// I1s from everywhere that lead to nothing.
    Flood,
}

/// The phase that is looked at more closely runs through here, so that a profiler can tell it from the others.
#[inline(never)]
fn measured(engine: &mut Engine, now: Instant, rng: &mut StdRng, frames: &[Vec<u8>], effects: &mut Vec<Effect>) {
    scene::turn(std::hint::black_box(engine), now, rng, frames, effects);
}

fn main() {
    let arguments = Arguments::parse();
    let wanted = |part| arguments.only.is_none_or(|only| only == part);
    let mut report = json!({
        "peers": arguments.peers,
        "locators": arguments.locators,
        "proof": arguments.cga.map_or_else(|| "hba".to_owned(), |bits| format!("cga-{bits}")),
    });
    if wanted(Part::New) || wanted(Part::Again) {
        report["handshakes"] = handshakes(&arguments);
    }
    if wanted(Part::Flood) {
        report["flood"] = flood(&arguments);
    }
    println!("{report:#}");
}

fn setting(arguments: &Arguments, limited: bool) -> Setting {
    let room = (arguments.peers as u32).saturating_mul(3).max(1 << 16);
    Setting { hosts: arguments.hosts, locators: arguments.locators, contexts_max: room, limited }
}

/// New peers, and the same again.
fn handshakes(arguments: &Arguments) -> serde_json::Value {
    let keys = if arguments.cga.is_some() { 4 } else { 0 };
    let mut scene = Scene::new(setting(arguments, false), keys, arguments.cga.unwrap_or_default());
    let mut took = [Duration::ZERO; 3];
    let (mut left, mut ended, mut again) = (arguments.peers, 0, 0);
    while left > 0 {
        let block = left.min(arguments.block);
        left -= block;
        let i1s = scene.peers(block);
        let (r1s, time) = scene.turns(&i1s, arguments.turn(Phase::I1));
        took[0] += time;
        let i2s = scene.answers(&r1s);
        let (r2s, time) = scene.turns(&i2s, arguments.turn(Phase::I2));
        took[1] += time;
        if arguments.only != Some(Part::New) {
            let (r2s, time) = scene.turns(&i2s, arguments.turn(Phase::Again));
            took[2] += time;
            again += r2s.len();
        }
        scene.answers(&r2s);
        ended += r2s.len();
    }
    assert_eq!(ended, arguments.peers, "every peer got its R2: {:?}", counts(scene.engine()));
    assert_eq!(scene.engine().contexts().count(), arguments.peers);
    let each = |time: Duration, count: usize| time.as_nanos() as f64 / count.max(1) as f64;
    let both = each(took[0] + took[1], arguments.peers);
    json!({
        "i1_ns": each(took[0], arguments.peers),
        "i2_ns": each(took[1], arguments.peers),
        "i2_again_ns": each(took[2], again),
        "handshake_ns": both,
        "handshakes_per_s": 1e9 / both,
    })
}

/// I1s from everywhere, beside contexts that are there.
fn flood(arguments: &Arguments) -> serde_json::Value {
    let mut scene = Scene::new(setting(arguments, true), 0, 0);
    let i1s = scene.peers(1024);
    let (r1s, _) = scene.turns(&i1s, scene::turn);
    let i2s = scene.answers(&r1s);
    scene.turns(&i2s, scene::turn);
    let contexts = scene.engine().contexts().count();
    let strangers = scene.peers(arguments.peers.min(16_384));
    let rounds = (10 * arguments.peers).div_ceil(strangers.len());
    let before = memory();
    let (mut took, mut answered) = (Duration::ZERO, 0);
    for _ in 0..rounds {
        let (r1s, time) = scene.turns(&strangers, arguments.turn(Phase::Flood));
        took += time;
        answered += r1s.len();
    }
    let sent = rounds * strangers.len();
    let grown = memory().saturating_sub(before);
    assert_eq!(scene.engine().contexts().count(), contexts, "what was there is there");
    let each = took.as_nanos() as f64 / sent as f64;
    json!({ "i1s": sent, "answered": answered, "i1_ns": each, "i1s_per_s": 1e9 / each, "octets_more": grown })
}

fn counts(engine: &Engine) -> Vec<(&'static str, u64)> {
    engine.tally().iter().filter(|(_, _, count)| *count > 0).map(|(name, _, count)| (name, count)).collect()
}
