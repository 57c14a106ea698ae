//! How well the policy's controller holds shares: a hundred thousand contexts with heavy-tailed rates that come and go, and a
//! weight changed, a provider lost and a provider back. Writes plots and prints the figures of docs/policy.md.
//!
//! `cargo run --profile soak -p control --example policy_shares -- docs/policy`

#[path = "policy/model.rs"]
mod model;
#[path = "policy/plot.rs"]
mod plot;

use std::path::PathBuf;
use std::time::Instant as WallInstant;

use clap::Parser;
use control::policy::Direction;
use model::{Model, STEP};
use plot::{Line, Plot};

/// Shows how well the policy's controller holds shares.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the plots go; none are written without it.
    folder: Option<PathBuf>,
    /// Contexts.
    #[arg(long, default_value_t = 100_000)]
    contexts: usize,
    /// The seed everything random comes from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// From one change to the next, in steps.
const PHASE: usize = 600;
/// A share is held when it is no further from its target than this part of the target.
const GOOD: f64 = 0.01;
/// What the policy says before and after the change of weights.
const WEIGHTS: [[f64; 3]; 2] = [[5.0, 3.0, 2.0], [3.0, 3.0, 4.0]];
const PHASES: [&str; 4] = ["start", "weights changed", "provider lost", "provider returned"];

/// What was seen at every step.
#[derive(Default)]
struct Record {
    shares: [Vec<Vec<f64>>; 2],
    errors: Vec<f64>,
    moves: Vec<usize>,
}

fn change(model: &mut Model, phase: usize) {
    match phase {
        1 => model.set_weights(&WEIGHTS[1]),
        2 => model.set_up(2, false),
        3 => model.set_up(2, true),
        _ => {}
    }
}

/// Steps from the first of them until the error is small and stays so for a second.
fn settled(errors: &[f64]) -> Option<usize> {
    errors.windows(10).position(|ten| ten.iter().all(|error| *error <= GOOD))
}

fn percentile(errors: &[f64], part: f64) -> f64 {
    let mut sorted = errors.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

fn live(contexts: usize, seed: u64, steered: bool, tell: bool) -> Record {
    let begun = WallInstant::now();
    let mut model = Model::new(contexts, &WEIGHTS[0], steered, seed);
    let mut record = Record::default();
    for (phase, name) in PHASES.into_iter().enumerate() {
        change(&mut model, phase);
        let fewest = model.fewest_moves();
        let from = record.errors.len();
        for _ in 0..PHASE {
            let before = model.moves.len();
            model.step();
            record.moves.push(model.moves.len() - before);
            record.errors.push(model.error());
            for direction in Direction::BOTH {
                record.shares[direction.index()].push(model.shares(direction));
            }
        }
        let errors = &record.errors[from..];
        let after = settled(errors);
        let until = after.unwrap_or(PHASE);
        let moved: usize = record.moves[from..from + until].iter().sum();
        let later = &errors[until.min(PHASE - 10)..];
        let held = later.iter().filter(|error| **error <= GOOD).count() as f64 / later.len() as f64;
        if tell {
            let seconds =
                after.map_or("never".to_owned(), |steps| format!("{:.1}", (steps + 1) as f64 * STEP.as_secs_f64()));
            let rest: usize = record.moves[from + until..].iter().sum();
            let per_s = rest as f64 / ((PHASE - until).max(1) as f64 * STEP.as_secs_f64());
            println!(
                "| {name} | {seconds} | {moved} | {fewest} | {:.2} | {:.2} | {:.0} | {per_s:.1} | {:.4} |",
                percentile(later, 0.5) * 100.0,
                percentile(later, 0.99) * 100.0,
                held * 100.0,
                model.best_error() * 100.0,
            );
        }
    }
    eprintln!("{contexts} contexts, steered: {steered}: {:.1} s", begun.elapsed().as_secs_f64());
    model.controller.selfcheck();
    record
}

fn main() -> Result<(), std::io::Error> {
    let Arguments { folder, contexts, seed } = Arguments::parse();
    println!(
        "| change | within 1 %, s | moves until then | fewest possible | then: median error, % | p99 | time within 1 %, % | moves a second | best possible error, % |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    let steered = live(contexts, seed, true, true);
    let hashed = live(contexts, seed, false, false);
    for (phase, name) in PHASES.into_iter().enumerate() {
        let errors = &hashed.errors[phase * PHASE..][..PHASE];
        println!(
            "by hash, {name}: median error {:.1} %, p99 {:.1} %",
            percentile(errors, 0.5) * 100.0,
            percentile(errors, 0.99) * 100.0
        );
    }
    let Some(folder) = folder else { return Ok(()) };
    std::fs::create_dir_all(&folder)?;
    let seconds = |at: usize| at as f64 * STEP.as_secs_f64();
    for (direction, name) in [(Direction::Out, "out"), (Direction::In, "in")] {
        let way = |way: usize| Line {
            name: format!("isp-{}", way + 1),
            points: steered.shares[direction.index()]
                .iter()
                .enumerate()
                .map(|(at, it)| (seconds(at), it[way] * 100.0))
                .collect(),
        };
        let plot = Plot {
            title: format!("Share of each provider, {name}bound traffic: {contexts} contexts"),
            x: "seconds".into(),
            y: "percent".into(),
            lines: (0..3).map(way).collect(),
            marks: PHASES.iter().enumerate().map(|(at, name)| (seconds(at * PHASE), (*name).to_owned())).collect(),
            top: 80.0,
        };
        std::fs::write(folder.join(format!("shares-{name}.svg")), plot.svg())?;
    }
    let error = |name: &str, record: &Record| Line {
        name: name.to_owned(),
        points: record.errors.iter().enumerate().map(|(at, it)| (seconds(at), (it * 100.0).min(20.0))).collect(),
    };
    let plot = Plot {
        title: "Distance from the target of the provider that is furthest from it".into(),
        x: "seconds".into(),
        y: "percent of the target (20 and more at the top)".into(),
        lines: vec![error("controller", &steered), error("hash alone", &hashed)],
        marks: PHASES.iter().enumerate().map(|(at, name)| (seconds(at * PHASE), (*name).to_owned())).collect(),
        top: 20.0,
    };
    std::fs::write(folder.join("error.svg"), plot.svg())?;
    let per_second =
        steered.moves.chunks(10).enumerate().map(|(at, ten)| (at as f64, ten.iter().sum::<usize>() as f64));
    let plot = Plot {
        title: "Contexts ordered to move, both directions".into(),
        x: "seconds".into(),
        y: "per second".into(),
        lines: vec![Line { name: "moves".into(), points: per_second.collect() }],
        marks: PHASES.iter().enumerate().map(|(at, name)| (seconds(at * PHASE), (*name).to_owned())).collect(),
        top: 520.0,
    };
    std::fs::write(folder.join("moves.svg"), plot.svg())
}
