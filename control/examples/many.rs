//! What very many contexts cost the control core: memory, a turn in which nothing happens to them, reports of their activity, the
//! loss of a path, and their end. All are made by real handshakes. Prints JSON.
//!
//! `cargo run --release -p control --example many -- --contexts 1000000`

mod scene;

use std::time::{Duration, Instant as Wall};

use clap::Parser;
use control::engine::Effect;
use control::time::Instant;
use dataplane::context::entry::Traffic;
use dataplane::context::{Activity, Direction};
use dataplane::link::Notice;
use dataplane::snapshot::PortId;
use rand::seq::SliceRandom;
use scene::{Scene, Setting, memory};
use serde_json::json;

/// Measures what very many contexts cost.
#[derive(Clone, Copy, Debug, Parser)]
#[command(name = "many")]
struct Arguments {
    /// Contexts.
    #[arg(long, default_value_t = 100_000)]
    contexts: usize,
    /// Peers that ask in one go.
    #[arg(long, default_value_t = 16_384)]
    block: usize,
    /// Hosts of the box.
    #[arg(long, default_value_t = 64)]
    hosts: u16,
}

/// A turn every millisecond, as the driver makes them when nothing happens.
const TURN: Duration = Duration::from_millis(1);

fn main() {
    let arguments = Arguments::parse();
    let room = (arguments.contexts as u32).saturating_mul(3).max(1 << 16);
    let mut scene =
        Scene::new(Setting { hosts: arguments.hosts, locators: 2, contexts_max: room, limited: false }, 0, 0);
    let (octets, handles) = fill(&mut scene, &arguments);
    let (keepalives, _) = idle(&mut scene, Duration::from_secs(60));
    let (quiet, busiest_quiet) = idle(&mut scene, Duration::from_secs(20));
    let active = active(&mut scene, handles);
    let (tended, busiest) = idle(&mut scene, Duration::from_secs(30));
    let status = {
        let (began, now) = (Wall::now(), scene.now);
        scene.engine().context_counts(now, room);
        scene.engine().providers_view();
        scene.engine().paths_view(now);
        scene.engine().hosts_view(now);
        began.elapsed()
    };
    let heir = succession(&mut scene);
    let lost = lost(&mut scene);
    let before = scene.engine().contexts().count();
    let (ended, busiest_end) = idle(&mut scene, Duration::from_secs(700));
    let left = scene.engine().contexts().count();
    let report = json!({
        "contexts": arguments.contexts,
        "octets_each": octets / arguments.contexts,
        "ns_per_report_of_activity": active.as_nanos() as u64 / arguments.contexts as u64,
        "ms_of_work_in_the_minute_after_the_handshakes": ms(keepalives),
        "ns_per_idle_turn": quiet.as_nanos() as u64 / 20_000,
        "us_longest_idle_turn": busiest_quiet.as_micros() as u64,
        "ms_of_work_in_30_s_of_silence": ms(tended),
        "us_longest_turn_then": busiest.as_micros() as u64,
        "us_status_views": status.as_micros() as u64,
        "succession": {
            "ns_to_tell_each": heir.telling.as_nanos() as u64 / arguments.contexts as u64,
            "us_longest_turn_of_telling": heir.longest.as_micros() as u64,
            "octets_told_each": heir.octets / arguments.contexts,
            "ns_to_take_in_each": heir.taking.as_nanos() as u64 / arguments.contexts as u64,
            "contexts_taken": heir.taken,
        },
        "us_link_down": lost.as_micros() as u64,
        "contexts_before_the_end": before,
        "ms_of_work_until_all_ended": ms(ended),
        "us_longest_turn_of_the_end": busiest_end.as_micros() as u64,
        "contexts_left": left,
    });
    println!("{report:#}");
}

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// Makes the contexts. Octets of memory that the control core has more than before, and the names of the contexts.
fn fill(scene: &mut Scene, arguments: &Arguments) -> (usize, Vec<u64>) {
    let mut left = arguments.contexts;
    let mut octets = 0;
    while left > 0 {
        let block = left.min(arguments.block);
        left -= block;
        let i1s = scene.peers(block);
        let (r1s, _) = scene.turns(&i1s, scene::turn);
        let i2s = scene.answers(&r1s);
        // What grows here grows for the contexts.
        let before = memory();
        scene.turns(&i2s, scene::turn);
        octets += memory().saturating_sub(before);
        scene.forget_peers();
    }
    let handles: Vec<u64> = scene.engine().contexts().map(|context| context.id.to_bits()).collect();
    assert_eq!(handles.len(), arguments.contexts);
    (octets, handles)
}

/// Time goes on and nobody sends anything. How long the turns took in all, and the longest.
fn idle(scene: &mut Scene, time: Duration) -> (Duration, Duration) {
    let (mut all, mut longest) = (Duration::ZERO, Duration::ZERO);
    let end = scene.now + time;
    while scene.now < end {
        scene.now = scene.now + TURN;
        let took = scene.with(|engine, now, rng, effects| {
            if engine.deadline().is_some_and(|due| due <= now) {
                engine.expire(now, rng, effects);
            }
        });
        all += took;
        longest = longest.max(took);
    }
    (all, longest)
}

/// Workers report every context once, in no order, a batch each turn.
fn active(scene: &mut Scene, mut handles: Vec<u64>) -> Duration {
    handles.shuffle(scene.rng());
    let mut all = Duration::ZERO;
    for handles in handles.chunks(scene::TURN) {
        scene.now = scene.now + TURN;
        all += scene.with(|engine, now, rng, effects| {
            for handle in handles {
                let activity = Activity {
                    received: true,
                    sent: true,
                    last: Direction::In,
                    labelled_in: false,
                    labelled_out: false,
                    arrived: None,
                };
                let traffic = [Traffic::default(); 2];
                engine.notice(now, rng, Notice::Activity { handle: *handle, activity, traffic }, effects);
            }
            if engine.deadline().is_some_and(|due| due <= now) {
                engine.expire(now, rng, effects);
            }
        });
    }
    all
}

/// What it costs to hand everything to another process.
struct Succession {
    telling: Duration,
    /// Of turns in which as much is told as the driver tells in one.
    longest: Duration,
    octets: usize,
    taking: Duration,
    taken: usize,
}

fn succession(scene: &mut Scene) -> Succession {
    let mut seen =
        Succession { telling: Duration::ZERO, longest: Duration::ZERO, octets: 0, taking: Duration::ZERO, taken: 0 };
    let mut heir = scene.heir();
    scene.with(|engine, _, _, _| engine.begin_bequest());
    while scene.engine().left_to_bequeath() > 0 {
        let mut messages: Vec<Vec<u8>> = Vec::new();
        let took = scene.with(|engine, _, _, _| {
            for _ in 0..2 {
                let mut items = Vec::with_capacity(256);
                engine.bequeath(256, &mut items);
                messages.push(postcard::to_stdvec(&items).expect("items are plain"));
            }
        });
        seen.telling += took;
        seen.longest = seen.longest.max(took);
        for message in messages {
            seen.octets += message.len();
            let began = Wall::now();
            let items = postcard::from_bytes(&message).expect("and come back");
            let mut effects = Vec::new();
            heir.inherit(scene.now, scene.rng(), items, &mut effects);
            seen.taking += began.elapsed();
        }
    }
    scene.with(|engine, _, _, _| engine.end_bequest());
    seen.taken = heir.contexts().count();
    seen
}

/// The link goes down that all contexts use.
fn lost(scene: &mut Scene) -> Duration {
    let took = scene.with(|engine, now: Instant, _, effects: &mut Vec<Effect>| {
        engine.link_state(now, PortId(1), false, effects);
    });
    scene.with(|engine, now, _, effects| engine.link_state(now, PortId(1), true, effects));
    took
}
