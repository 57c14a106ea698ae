//! What the translation of a packet costs, beside a loop that only touches the same memory. Run by `perf/run`, which
//! says in `perf/README.md` what is and what is not measured.
//!
//! ```text
//! translation [--rounds N] [--sizes N,N,…]               times, as JSON
//! translation --labels [--rounds N] [--sizes N,N,…]      the same with flow labels for payload headers beside it
//! translation --misses [--rounds N] [--sizes N,N,…]      the same with packets beside it of which a tenth has no context
//!             … --law zipf                               some contexts have most of the packets
//! translation --only KIND DIRECTION LAPS [--idle]        the same work for counting instructions; prints the packets
//! ```

mod floor;
mod site;

use std::process::ExitCode;
use std::time::Instant;

use floor::Floor;
use site::{Frames, Stages, Turns};

/// Bursts in a lap, all prepared before the clock starts.
const BURSTS: usize = 64;
/// Laps in a sample. A lap is a millisecond of the workers' time, so they begin one report of activity in each sample.
const LAPS: u32 = 50;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Egress,
    Ingress,
}

/// Something that can send prepared packets through.
trait Subject {
    /// Sends all of them through. This is what the clock sees.
    fn run(&mut self, direction: Direction, frames: &mut Frames);
    /// Collects the packets when the clock has stopped; panics if anything but the expected happened to them.
    fn rest(&mut self, direction: Direction, frames: &mut Frames);
    /// What is done now and then on other occasions.
    fn tidy(&mut self) {}
    /// Which packets it is sent.
    fn kind(&self) -> Kind {
        Kind::Plain
    }
}

/// What packets are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// All have a context, named as usual.
    Plain,
    /// Flow labels stand for payload headers.
    Labelled,
    /// One of [`STRANGER`] has no context.
    Strange,
}

/// Every so many packets one is a stranger's, if any is.
const STRANGER: usize = 10;

const KINDS: [&str; 3] = ["stages", "worker", "floor"];
/// The same for what flow labels change.
const LABEL_KINDS: [&str; 3] = ["stages", "labelled", "floor"];
/// The same for what packets without a context cost.
const MISS_KINDS: [&str; 3] = ["stages", "missing", "floor"];

fn subject(kind: &str, contexts: u32) -> Option<Box<dyn Subject>> {
    match kind {
        "stages" => Some(Box::new(Stages::new(contexts, Kind::Plain))),
        "labelled" => Some(Box::new(Stages::new(contexts, Kind::Labelled))),
        "missing" => Some(Box::new(Stages::new(contexts, Kind::Strange))),
        "worker" => Some(Box::new(Turns::new(contexts))),
        "floor" => Some(Box::new(Floor::new(contexts))),
        _ => None,
    }
}

/// Which contexts have how many of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Law {
    /// All as many.
    Uniform,
    /// The second half as many as the first, the third a third (Zipf, with exponent 1).
    Zipf,
}

/// A generator of contexts in random order (xorshift64*).
struct Order {
    state: u64,
    law: Law,
}

impl Order {
    fn new(state: u64, law: Law) -> Order {
        Order { state, law }
    }

    /// A number below `below`, a power of two.
    fn next(&mut self, below: u32) -> u32 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let random = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        match self.law {
            // The upper half of the product with the bound is even enough and needs no division.
            Law::Uniform => ((random * u64::from(below)) >> 32) as u32,
            // The logarithm of the rank is even. Ranks are scattered, for nobody sorts contexts by their traffic.
            Law::Zipf => {
                let rank = f64::from(below).powf(random as f64 / 2f64.powi(32)) as u32 - 1;
                rank.wrapping_mul(0x9e37_79b1) & (below - 1)
            }
        }
    }
}

impl Direction {
    fn other(self) -> Direction {
        match self {
            Direction::Egress => Direction::Ingress,
            Direction::Ingress => Direction::Egress,
        }
    }
}

/// Sends packets through and says how long that took, in nanoseconds per packet.
fn pass(subject: &mut dyn Subject, direction: Direction, frames: &mut Frames) -> f64 {
    let began = Instant::now();
    subject.run(direction, frames);
    let spent = began.elapsed().as_secs_f64();
    subject.rest(direction, frames);
    spent * 1e9 / frames.len() as f64
}

/// One lap of fresh packets. What counts is their own direction; an answer to each follows without the clock, since
/// traffic that nothing comes back from is treated as an exception.
fn lap(subject: &mut dyn Subject, direction: Direction, frames: &mut Frames, contexts: u32, order: &mut Order) -> f64 {
    frames.choose(|| order.next(contexts));
    let kind = subject.kind();
    frames.prepare(direction, kind, contexts);
    let time = pass(subject, direction, frames);
    frames.prepare(direction.other(), kind, contexts);
    pass(subject, direction.other(), frames);
    subject.tidy();
    time
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn list(values: &[f64]) -> String {
    let texts: Vec<String> = values.iter().map(|value| format!("{value:.2}")).collect();
    format!("[{}]", texts.join(","))
}

/// All kinds in turn, lap by lap, so that whatever else the machine does hits all of them. A sample is the median of its
/// laps: one in which the machine did something else altogether does not count.
fn measure(kinds: &[&str], contexts: u32, direction: Direction, rounds: usize, law: Law) -> String {
    let mut frames = Frames::new(BURSTS);
    let mut subjects: Vec<_> = kinds.iter().filter_map(|kind| subject(kind, contexts)).collect();
    let mut times = vec![Vec::new(); subjects.len()];
    let mut order = Order::new(0x9e37_79b9_7f4a_7c15, law);
    for round in 0..=rounds {
        let mut laps = vec![Vec::new(); subjects.len()];
        for _ in 0..LAPS {
            for (subject, laps) in subjects.iter_mut().zip(&mut laps) {
                laps.push(lap(&mut **subject, direction, &mut frames, contexts, &mut order));
            }
        }
        // The first round warms up.
        for (times, laps) in times.iter_mut().zip(&laps).filter(|_| round > 0) {
            times.push(median(laps));
        }
    }
    let parts: Vec<String> = kinds
        .iter()
        .zip(&times)
        .map(|(kind, own)| {
            let ratios: Vec<f64> = own.iter().zip(&times[2]).map(|(own, floor)| own / floor).collect();
            let (ns, ratio) = (median(own), median(&ratios));
            format!("\"{kind}\":{{\"ns\":{ns:.2},\"to_floor\":{ratio:.3},\"samples_ns\":{}}}", list(own))
        })
        .collect();
    let name = format!("{direction:?}").to_lowercase();
    format!("{{\"contexts\":{contexts},\"direction\":\"{name}\",{}}}", parts.join(","))
}

fn direction(text: &str) -> Option<Direction> {
    match text {
        "egress" => Some(Direction::Egress),
        "ingress" => Some(Direction::Ingress),
        _ => None,
    }
}

/// The work of one kind alone; with `idle` everything around it and not the work itself.
fn only(words: &[&str]) -> Option<()> {
    let ([kind, way, laps] | [kind, way, laps, "--idle"]) = words else { return None };
    let (direction, laps, idle) = (direction(way)?, laps.parse::<u32>().ok()?, words.len() == 4);
    let contexts = 1024;
    let mut subject = subject(kind, contexts)?;
    let mut frames = Frames::new(BURSTS);
    let mut order = Order::new(7, Law::Uniform);
    for _ in 0..laps {
        frames.choose(|| order.next(contexts));
        frames.prepare(direction, subject.kind(), contexts);
        if !idle {
            pass(&mut *subject, direction, &mut frames);
        }
    }
    println!("{}", u64::from(laps) * frames.len() as u64);
    Some(())
}

fn times(kinds: &[&str], sizes: Vec<u32>, words: &[&str]) -> Option<()> {
    let (mut rounds, mut sizes, mut law) = (9, sizes, Law::Uniform);
    for pair in words.chunks(2) {
        match pair {
            ["--law", "uniform"] => law = Law::Uniform,
            ["--law", "zipf"] => law = Law::Zipf,
            ["--rounds", value] => rounds = value.parse().ok().filter(|&rounds: &usize| rounds > 0)?,
            ["--sizes", value] => {
                let parsed: Option<Vec<u32>> = value.split(',').map(|size| size.parse().ok()).collect();
                // The floor files its contexts by arithmetic that wants a power of two.
                sizes = parsed.filter(|sizes| sizes.iter().all(|size| size.is_power_of_two() && *size >= 64))?;
            }
            _ => return None,
        }
    }
    let mut results = Vec::new();
    for &contexts in &sizes {
        for direction in [Direction::Egress, Direction::Ingress] {
            eprintln!("{contexts} contexts, {direction:?}");
            results.push(measure(kinds, contexts, direction, rounds, law));
        }
    }
    println!("{{\"rounds\":{rounds},\"results\":[{}]}}", results.join(",\n"));
    Some(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--only", rest @ ..] => only(rest),
        // There are not enough labels for a million contexts.
        ["--labels", rest @ ..] => times(&LABEL_KINDS, vec![1 << 10, 1 << 16, 1 << 18], rest),
        ["--misses", rest @ ..] => times(&MISS_KINDS, vec![1 << 10, 1 << 16, 1 << 20], rest),
        words => times(&KINDS, vec![1 << 10, 1 << 16, 1 << 20], words),
    };
    if done.is_none() {
        eprintln!(
            "usage: translation [--labels | --misses] [--rounds N] [--sizes N,N,…] [--law uniform|zipf] \
             | --only KIND egress|ingress LAPS [--idle]"
        );
        eprintln!("KIND: {}, labelled, missing; sizes: powers of two from 64", KINDS.join(", "));
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
