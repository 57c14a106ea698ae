//! Lives many lives of the simulator, each from its own seed, and says what happened in them. `scripts/soak` builds and
//! runs it.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use clap::Parser;
use control::sim::Faults;
use control::sim::life::{self, Report};

/// Failing seeds that are shown in full; the others are counted.
const SHOWN: usize = 10;

/// Lives that many lives of whole sites in memory, each from its own seed.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Arguments {
    /// How many.
    #[arg(default_value_t = 1000)]
    lives: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only every so many of these seeds, as of the lives with several boxes for a site: `--from 3 --step 17`.
    #[arg(long, default_value_t = 1)]
    step: u64,
    /// Threads.
    #[arg(long)]
    jobs: Option<usize>,
    /// One life only, of this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: tells what happened in it.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Ends at the first failure.
    #[arg(long)]
    first: bool,
    /// Plants one fault after the other in the code: each makes a life fail, and that life is well without it.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutants: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(feature = "mutants")]
    if arguments.mutants {
        return if mutants(&arguments) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let ended = match arguments.seed {
        Some(seed) => one(seed, arguments.trace),
        None => many(&arguments),
    };
    if ended { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64, trace: bool) -> bool {
    let report = match trace {
        true => {
            let (report, lines) = life::tell(seed);
            lines.iter().for_each(|line| println!("{line}"));
            report
        }
        false => life::live(seed),
    };
    println!("{}", report.faults);
    show(&report);
    report.violations.is_empty()
}

fn show(report: &Report) {
    println!("seed {}: {} violations", report.seed, report.violations.len());
    report.violations.iter().for_each(|violation| println!("    {violation}"));
    if !report.violations.is_empty() {
        println!("    live it again: scripts/soak --seed {} --trace", report.seed);
    }
}

/// What all lives together were.
#[derive(Default)]
struct Sum {
    lives: u64,
    failed: Vec<u64>,
    faults: Faults,
    time: Duration,
    moved: (u64, u64),
    slowest: (Duration, u64),
}

impl Sum {
    fn add(&mut self, report: &Report, took: Duration) {
        self.lives += 1;
        self.faults.add(&report.faults);
        self.time += report.time;
        self.moved = (self.moved.0 + report.moved.0, self.moved.1 + report.moved.1);
        self.slowest = self.slowest.max((took, report.seed));
        if !report.violations.is_empty() {
            if self.failed.len() < SHOWN {
                show(report);
            }
            self.failed.push(report.seed);
        }
    }

    fn print(&self, took: Duration) {
        print!("{}", self.faults);
        let (packets, octets) = self.moved;
        println!(
            "{packets:>12} datagrams and {octets} octets of TCP were moved in {:.0} h",
            self.time.as_secs_f64() / 3600.0
        );
        let (slowest, seed) = self.slowest;
        println!(
            "{} lives in {:.1} s, {:.0} a second; the slowest took {} ms (seed {seed})",
            self.lives,
            took.as_secs_f64(),
            self.lives as f64 / took.as_secs_f64(),
            slowest.as_millis()
        );
        println!(
            "{} of {} lives failed: {:?}",
            self.failed.len(),
            self.lives,
            &self.failed[..self.failed.len().min(100)]
        );
    }
}

fn many(arguments: &Arguments) -> bool {
    let began = Instant::now();
    let sum = run(arguments, arguments.first);
    sum.print(began.elapsed());
    sum.failed.is_empty() && sum.lives > 0
}

/// Whether every fault that can be planted is found.
#[cfg(feature = "mutants")]
fn mutants(arguments: &Arguments) -> bool {
    use dataplane::mutant::Mutant;
    let found = |mutant: &Mutant| {
        Mutant::plant(Some(*mutant));
        let sum = run(arguments, true);
        Mutant::plant(None);
        let first = sum.failed.iter().min().copied();
        let well = first.is_some_and(|seed| life::live(seed).violations.is_empty());
        match first {
            Some(seed) if well => println!("{mutant:?}: seed {seed} fails with it, and is well without"),
            Some(seed) => println!("{mutant:?}: seed {seed} fails with it and without"),
            None => println!("{mutant:?}: {} lives did not find it", sum.lives),
        }
        well
    };
    let all: Vec<bool> = Mutant::ALL.iter().map(found).collect();
    all.iter().all(|found| *found)
}

/// Lives all lives, or those until the first one that fails.
fn run(arguments: &Arguments, first: bool) -> Sum {
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let (next, step) = (AtomicU64::new(arguments.from), arguments.step.max(1));
    let end = arguments.from + arguments.lives * step;
    let (began, stop) = (Instant::now(), AtomicBool::new(false));
    let sum = Mutex::new(Sum::default());
    // Panics are reported as what they are: violations of a seed.
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        let (done, finished) = mpsc::channel::<()>();
        for _ in 0..jobs {
            let (sum, next, stop, done) = (&sum, &next, &stop, done.clone());
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(step, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let start = Instant::now();
                    let report = life::live(seed);
                    sum.lock().unwrap_or_else(PoisonError::into_inner).add(&report, start.elapsed());
                    if first && !report.violations.is_empty() {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
                drop(done);
            });
        }
        drop(done);
        // A line a second, then five, then a minute; the channel closes when all threads have ended.
        let mut pause = Duration::from_secs(1);
        while let Err(mpsc::RecvTimeoutError::Timeout) = finished.recv_timeout(pause) {
            let sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            let rate = sum.lives as f64 / began.elapsed().as_secs_f64();
            eprintln!("{} of {} lives, {rate:.0} a second, {} failed", sum.lives, arguments.lives, sum.failed.len());
            pause = (pause * 2).min(Duration::from_secs(60));
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}
