//! A generator and receiver of a site's traffic: both directions, on as many cores as it is given, through one or more
//! pairs of devices behind each of which is something that forwards.
//!
//! ```text
//! trial {"rate": 1e6, "seconds": 1, "size": "78", "contexts": 1000, "ways": "both", "law": "uniform"}
//! quit
//! ```
//!
//! A trial answers with one line of JSON. `rate` is in frames per second in all; without it, as many are sent as the device
//! takes. With it, frames that the device does not take are lost, as on a wire. See [`perf_gen::load::Trial`].

#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use dataplane::port::Port;
use dataplane::port::dpdk::{BufferPool, Device, Eal, Lcore, Mbuf, QueuePair, pin};
use perf_gen::console;
use perf_gen::device::Setup;
use perf_gen::frames::Way;
use perf_gen::load::{BURST, Stream, Trial};
use perf_gen::pauses::{Pauses, Watch};
use perf_gen::receive::{THREADS_MAX, Tally};
use serde_json::{Value, json};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    /// A device on the hosts' side; once for each pair.
    #[arg(long, required = true)]
    near: Vec<String>,
    /// The device on the provider's side of the same pair.
    #[arg(long, required = true)]
    far: Vec<String>,
    /// Cores to generate on; one thread and one queue of each device each.
    #[arg(long, default_value = "0", value_delimiter = ',')]
    cores: Vec<u32>,
    #[command(flatten)]
    setup: Setup,
}

/// The queues of one thread: for each pair, near and far.
type Queues = Vec<[QueuePair; 2]>;

/// What one thread says of a trial.
struct Report {
    tally: Tally,
    sent: [u64; 2],
    refused: u64,
    missed: u64,
    intended: u64,
    pauses: Pauses,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf-gen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(given: &Arguments) -> Result<(), Box<dyn Error>> {
    let threads = given.cores.len();
    if given.near.len() != given.far.len() || threads > THREADS_MAX {
        return Err(format!("as many --near as --far, and at most {THREADS_MAX} cores").into());
    }
    let all: Vec<String> = given.near.iter().chain(&given.far).cloned().collect();
    let (eal, pool) = given.setup.start(&all)?;
    let mut devices = Vec::new();
    let mut queues: Vec<Queues> = (0..threads).map(|_| Vec::new()).collect();
    for (near, far) in given.near.iter().zip(&given.far) {
        let (near, near_queues) = given.setup.open(&eal, &pool, near, threads as u16)?;
        let (far, far_queues) = given.setup.open(&eal, &pool, far, threads as u16)?;
        for ((own, near), far) in queues.iter_mut().zip(near_queues).zip(far_queues) {
            own.push([near, far]);
        }
        devices.push([near, far]);
    }
    let (answers, reports) = channel();
    let barrier = Arc::new(Barrier::new(threads));
    let mut orders = Vec::new();
    // One for all: a frame may come back to another thread.
    let clock = Instant::now();
    for (number, (queues, &core)) in queues.into_iter().zip(&given.cores).enumerate() {
        let (order, trials) = channel();
        orders.push(order);
        let (eal, pool, answers, barrier) = (eal.clone(), pool.clone(), answers.clone(), barrier.clone());
        let mut thread = Thread { number, threads, queues, pool, clock, burst: Vec::with_capacity(64) };
        thread::spawn(move || thread.serve(&eal, core, &trials, &answers, &barrier));
    }
    console::answer(&json!({ "ready": true }));
    for line in console::lines() {
        match line.split_once(' ') {
            Some(("trial", text)) => {
                let trial = Arc::new(Trial::read(text)?);
                let pair = devices.get(trial.pair).ok_or("there is no such pair")?;
                wait_for(pair)?;
                console::answer(&conduct(&trial, &orders, &reports)?);
            }
            None if line == "quit" => break,
            _ => return Err(format!("{line:?} is no command").into()),
        }
    }
    Ok(())
}

/// Waits until somebody is at the other end. Asking is what makes a memif device try.
fn wait_for(pair: &[Device; 2]) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    for device in pair {
        while !device.link_up() {
            if began.elapsed() > Duration::from_secs(20) {
                return Err(format!("{} has nobody at its other end", device.name()).into());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

fn conduct(
    trial: &Arc<Trial>,
    orders: &[Sender<Arc<Trial>>],
    reports: &Receiver<Report>,
) -> Result<Value, Box<dyn Error>> {
    for order in orders {
        order.send(trial.clone())?;
    }
    let mut all =
        Report { tally: Tally::default(), sent: [0; 2], refused: 0, missed: 0, intended: 0, pauses: Pauses::default() };
    for _ in orders {
        let report = reports.recv()?;
        all.tally.add(&report.tally);
        all.refused += report.refused;
        all.missed += report.missed;
        all.pauses += report.pauses;
        all.intended += report.intended;
        for (mine, theirs) in all.sent.iter_mut().zip(report.sent) {
            *mine += theirs;
        }
    }
    let (sent, received): (u64, u64) = (all.sent.iter().sum(), all.tally.received.iter().sum());
    let offered = sent + all.refused;
    let seconds = trial.length.as_secs_f64();
    Ok(json!({
        "seconds": seconds,
        "intended_pps": trial.rate,
        "sent": all.sent,
        "refused": all.refused,
        "missed": all.missed,
        "received": all.tally.received,
        "received_pps": received as f64 / seconds,
        "loss_ratio": if offered == 0 { 0.0 } else { offered.saturating_sub(received) as f64 / offered as f64 },
        "surplus": received.saturating_sub(sent),
        "generator_short": (offered as f64) < 0.995 * all.intended as f64,
        "wrong": all.tally.wrong,
        "late": all.tally.late,
        "latency_ns": all.tally.percentiles(),
        "generator": all.pauses.json(),
    }))
}

struct Thread {
    number: usize,
    threads: usize,
    queues: Queues,
    pool: BufferPool,
    clock: Instant,
    burst: Vec<Mbuf>,
}

impl Thread {
    fn serve(
        &mut self,
        eal: &Eal,
        core: u32,
        trials: &Receiver<Arc<Trial>>,
        answers: &Sender<Report>,
        barrier: &Barrier,
    ) {
        if let Err(error) = pin(core) {
            eprintln!("perf-gen: {error}");
        }
        let registered = Lcore::register(eal);
        if let Err(error) = &registered {
            eprintln!("perf-gen: {error}");
        }
        let mut watch = match Watch::new() {
            Ok(watch) => watch,
            Err(error) => return eprintln!("perf-gen: the kernel does not say who waits: {error}"),
        };
        while let Ok(trial) = trials.recv() {
            barrier.wait();
            let report = self.conduct(&trial, &mut watch);
            if answers.send(report).is_err() {
                return;
            }
        }
    }

    fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    fn conduct(&mut self, trial: &Trial, watch: &mut Watch) -> Report {
        let mut streams: Vec<(Way, Stream)> =
            trial.ways.iter().map(|&way| (way, Stream::new(trial, way, self.number, self.threads))).collect();
        // What an earlier trial left under way is not of this one.
        self.receive(trial, &mut Tally::default(), Duration::from_millis(20));
        let mut tally = Tally::default();
        let (base, length) = (self.now(), trial.length.as_nanos() as u64);
        let mut now = 0;
        watch.restart();
        while now < length {
            for (way, stream) in &mut streams {
                let port = &mut self.queues[trial.pair][way.index()];
                stream.turn(now, base, trial, &self.pool, port);
            }
            self.collect(trial, &mut tally);
            let moment = Instant::now();
            watch.turn(moment);
            now = (moment - self.clock).as_nanos() as u64 - base;
        }
        let pauses = watch.pauses();
        self.receive(trial, &mut tally, trial.drain);
        let intended = streams.iter().map(|(_, stream)| stream.intended(length)).sum();
        let mut sent = [0; 2];
        let (mut refused, mut missed) = (0, 0);
        for (way, stream) in &streams {
            sent[way.index()] += stream.sent;
            refused += stream.refused;
            missed += stream.missed();
        }
        Report { tally, sent, refused, missed, intended, pauses }
    }

    fn receive(&mut self, trial: &Trial, tally: &mut Tally, length: Duration) {
        let began = Instant::now();
        while began.elapsed() < length {
            self.collect(trial, tally);
        }
    }

    /// One look at both ports: what went out of one comes in at the other.
    fn collect(&mut self, trial: &Trial, tally: &mut Tally) {
        for way in Way::BOTH {
            let port = &mut self.queues[trial.pair][1 - way.index()];
            Port::receive(port, &mut self.burst);
            if !self.burst.is_empty() {
                let now = self.clock.elapsed().as_nanos() as u64;
                tally.take(&mut self.burst, way, trial, now);
            }
        }
    }
}

const _: () = assert!(BURST <= 64, "a burst is received at once");
