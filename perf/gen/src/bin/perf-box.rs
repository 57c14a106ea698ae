//! A box to be measured: the real worker on real DPDK ports, its contexts filled in by the same commands the control core
//! gives. There is no control core behind it that could refuse or forget a context, so the table holds what was asked for.
//!
//! It runs only when told to, so that it can take turns with others on the same core. Commands on standard input:
//!
//! ```text
//! start               the workers run
//! stop                they rest
//! sample SECONDS      what the devices and workers counted meanwhile
//! publish             all workers get a new snapshot, as after a reload
//! pauses              the longest times between two turns of the workers since they started or were asked last, and why
//! apart COUNT FIRST     so many contexts from number FIRST on are removed, and then installed again; how fast, and what the
//!                       workers did meanwhile
//! churn SECONDS FIRST contexts from number FIRST on are removed and installed again, one after the other; what the
//!                     devices and workers counted meanwhile, and how many were
//! quit
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Parser;
use dataplane::counters::{Count, DropReason};
use dataplane::link::{ControlLink, RingSizes, Workers, connect};
use dataplane::port::Port;
use dataplane::port::dpdk::{Device, Eal, Lcore, Mbuf, PortStats, QueuePair, keep_off, pin};
use dataplane::worker::{Limits, Outlet, Worker};
use parking_lot::{Condvar, Mutex};
use perf_gen::console;
use perf_gen::device::Setup;
use perf_gen::pauses::{Pauses, Watch};
use perf_gen::site::Site;
use serde_json::{Map, Value, json};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    /// The device on the hosts' side.
    #[arg(long)]
    site: String,
    /// The device on the provider's side.
    #[arg(long)]
    provider: String,
    /// Contexts in the table.
    #[arg(long, default_value_t = 1000)]
    contexts: u32,
    /// Cores of the workers; one worker each.
    #[arg(long, default_value = "1", value_delimiter = ',')]
    cores: Vec<u32>,
    #[command(flatten)]
    setup: Setup,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf-box: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What all threads look at.
#[derive(Default)]
struct Switch {
    /// Frames may come in: the tables are full.
    open: AtomicBool,
    /// [`RESTING`], [`RUNNING`] or [`ENDED`]. Written under the lock.
    state: AtomicU8,
    rest: Mutex<Rest>,
    changed: Condvar,
}

/// Of the workers that rest.
#[derive(Default)]
struct Rest {
    /// How many.
    count: usize,
    /// What they had of pauses before.
    pauses: Pauses,
}

impl Switch {
    fn state(&self) -> u8 {
        self.state.load(Ordering::Relaxed)
    }

    /// Waits until there is something to do. Asleep, because another may be measured on this core meanwhile.
    fn rest(&self, pauses: Pauses) {
        let mut rest = self.rest.lock();
        rest.count += 1;
        rest.pauses += pauses;
        self.changed.notify_all();
        self.changed.wait_while(&mut rest, |_| self.state() == RESTING);
        rest.count -= 1;
    }

    /// Tells the workers, and waits until they rest if they are to.
    fn turn(&self, state: u8, workers: usize) {
        let mut rest = self.rest.lock();
        self.state.store(state, Ordering::Relaxed);
        self.changed.notify_all();
        // Who comes next on their cores must find them free.
        self.changed.wait_while(&mut rest, |rest| state == RESTING && rest.count < workers);
    }
}

const RESTING: u8 = 0;
const RUNNING: u8 = 1;
const ENDED: u8 = 2;

/// How often counters are read again.
const READINGS: usize = 10;

/// Counters read within this are of one moment: at 80 million frames per second 8,192 pass in it, which the reader allows for.
const ONE_MOMENT: Duration = Duration::from_micros(100);

/// A queue that receives nothing before the tables are full: a replaying device offers frames from the start.
struct Gate {
    queues: QueuePair,
    switch: Arc<Switch>,
}

impl Port<Mbuf> for Gate {
    fn receive(&mut self, burst: &mut Vec<Mbuf>) {
        if self.switch.open.load(Ordering::Relaxed) {
            Port::receive(&mut self.queues, burst);
        }
    }

    fn transmit(&mut self, burst: &mut Vec<Mbuf>) {
        Port::transmit(&mut self.queues, burst);
    }
}

struct Rig {
    site: Site,
    devices: [Device; 2],
    control: ControlLink<Mbuf>,
    switch: Arc<Switch>,
    threads: Vec<JoinHandle<()>>,
    began: Instant,
    filled: f64,
}

fn run(given: &Arguments) -> Result<(), Box<dyn Error>> {
    // As in the daemon: what runs on a worker's core beside it makes it pause.
    keep_off(&given.cores)?;
    let mut rig = Rig::build(given)?;
    let contexts: u64 = rig.counted(Count::Contexts);
    console::answer(&json!({ "ready": true, "contexts": contexts, "fill_seconds": rig.filled }));
    let lines = console::lines();
    loop {
        match lines.recv_timeout(Duration::from_millis(1)) {
            Err(RecvTimeoutError::Timeout) => rig.serve(),
            Err(RecvTimeoutError::Disconnected) => break,
            Ok(line) => match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["start"] => rig.turn(RUNNING),
                ["stop"] => rig.turn(RESTING),
                ["sample", seconds] => {
                    let sample = rig.sample(Duration::from_secs_f64(seconds.parse()?));
                    console::answer(&sample?);
                }
                ["publish"] => rig.publish(),
                ["pauses"] => rig.pauses(),
                ["apart", count, first] => {
                    let apart = rig.apart(count.parse()?, first.parse()?);
                    console::answer(&apart?);
                }
                ["churn", seconds, first] => {
                    let churn = rig.churn(Duration::from_secs_f64(seconds.parse()?), first.parse()?);
                    console::answer(&churn?);
                }
                ["quit"] => break,
                _ => return Err(format!("{line:?} is no command").into()),
            },
        }
    }
    rig.turn(ENDED);
    for thread in rig.threads.drain(..) {
        if thread.join().is_err() {
            return Err("a worker ended in a panic".into());
        }
    }
    Ok(())
}

impl Rig {
    fn build(given: &Arguments) -> Result<Rig, Box<dyn Error>> {
        let count = u8::try_from(given.cores.len())?;
        let site = Site::new(given.contexts, count);
        let (eal, pool) = given.setup.start(&[given.site.clone(), given.provider.clone()])?;
        let (near, near_queues) = given.setup.open(&eal, &pool, &given.site, count.into())?;
        let (far, far_queues) = given.setup.open(&eal, &pool, &given.provider, count.into())?;
        let switch = Arc::new(Switch::default());
        let (mut control, links) = connect(usize::from(count), RingSizes::default(), Box::new(pool.clone()));
        let began = Instant::now();
        // As in a daemon: none where no other worker could have a context.
        let guests = if count > 1 { site.capacity() } else { 0 };
        let limits = Limits { contexts: site.capacity(), guests, ..Limits::default() };
        let snapshot = Arc::new(site.snapshot());
        let queues = near_queues.into_iter().zip(far_queues);
        let mut workers: Vec<Worker<Mbuf>> = links
            .into_iter()
            .zip(queues)
            .zip(0..)
            .map(|((link, (near, far)), id)| {
                let gate =
                    |queues| Outlet::Own(Box::new(Gate { queues, switch: switch.clone() }) as Box<dyn Port<Mbuf>>);
                let ports = vec![gate(near), gate(far)];
                Worker::new(id, limits, site.sharding(), snapshot.clone(), ports, link, Box::new(pool.clone()))
            })
            .collect();
        let filled = fill(&site, &mut control, &mut workers)?;
        switch.open.store(true, Ordering::Relaxed);
        let threads = workers
            .into_iter()
            .zip(&given.cores)
            .map(|(worker, &core)| {
                let (eal, switch) = (eal.clone(), switch.clone());
                let name = format!("worker-{}", worker.id());
                thread::Builder::new().name(name).spawn(move || work(&eal, worker, core, began, &switch))
            })
            .collect::<Result<_, _>>()?;
        Ok(Rig { site, devices: [near, far], control, switch, threads, began, filled })
    }

    /// What the control core does all the time: takes what the workers tell.
    fn serve(&mut self) {
        while self.control.poll(4096, &mut |_| {}) > 0 {}
    }

    fn turn(&mut self, state: u8) {
        self.switch.turn(state, self.threads.len());
    }

    /// What the workers had of pauses since they were asked last: they tell when they rest.
    fn pauses(&mut self) {
        let state = self.switch.state();
        self.turn(RESTING);
        let pauses = std::mem::take(&mut self.switch.rest.lock().pauses);
        self.turn(state);
        console::answer(&pauses.json());
    }

    fn counted(&self, count: Count) -> u64 {
        self.each(|counters| counters.count(count))
    }

    fn each(&self, read: impl Fn(&dataplane::counters::Counters) -> u64) -> u64 {
        (0..self.control.count()).filter_map(|worker| self.control.counters(worker)).map(read).sum()
    }

    /// What is counted, read again when this thread lost its core meanwhile: then the counters are of different moments, and
    /// do not add up.
    fn state(&self) -> Result<State, Box<dyn Error>> {
        let mut best: Option<(Duration, State)> = None;
        for _ in 0..READINGS {
            let began = Instant::now();
            let state = self.read()?;
            let took = began.elapsed();
            if best.as_ref().is_none_or(|(least, _)| took < *least) {
                best = Some((took, state));
            }
            if took < ONE_MOMENT {
                break;
            }
        }
        best.map(|(_, state)| state).ok_or_else(|| "nothing was read".into())
    }

    fn read(&self) -> Result<State, Box<dyn Error>> {
        let translated = self.counted(Count::TranslatedOut) + self.counted(Count::TranslatedIn);
        let handed_over = self.counted(Count::HandedOver);
        let drops = DropReason::ALL.iter().map(|&reason| self.each(|counters| counters.dropped(reason))).collect();
        let [near, far] = &self.devices;
        Ok(State {
            at: Instant::now(),
            near: near.stats()?,
            far: far.stats()?,
            translated,
            handed_over,
            lent: self.counted(Count::ContextsLent),
            recalled: self.counted(Count::ContextsRecalled),
            guests: self.counted(Count::Guests),
            punted: self.counted(Count::Punted),
            drops,
        })
    }

    fn sample(&mut self, length: Duration) -> Result<Value, Box<dyn Error>> {
        let before = self.state()?;
        while before.at.elapsed() < length {
            thread::sleep(Duration::from_millis(1));
            self.serve();
        }
        Ok(self.state()?.since(&before))
    }

    fn churn(&mut self, length: Duration, first: u32) -> Result<Value, Box<dyn Error>> {
        if first >= self.site.contexts() {
            return Err("there are no contexts to spare".into());
        }
        let before = self.state()?;
        let applied = self.counted(Count::CommandsApplied);
        let mut context = first;
        while before.at.elapsed() < length {
            while self.control.backlog() < 1024 {
                let worker = usize::from(self.site.owner(context));
                self.control.remove(worker, self.site.tag(context));
                self.control.install(worker, self.site.install(context));
                context = if context + 1 == self.site.contexts() { first } else { context + 1 };
            }
            self.serve();
        }
        let state = self.state()?;
        let pairs = (self.counted(Count::CommandsApplied) - applied) / 2;
        let mut answer = state.since(&before);
        answer["churned"] = pairs.into();
        while self.control.backlog() > 0 {
            self.serve();
        }
        Ok(answer)
    }

    /// Removes `count` contexts from number `first` on, and when all are gone installs them again.
    fn apart(&mut self, count: u32, first: u32) -> Result<Value, Box<dyn Error>> {
        if count == 0 || first.checked_add(count).is_none_or(|end| end > self.site.contexts()) {
            return Err("there are not so many contexts".into());
        }
        let before = self.state()?;
        let removal = self.order(first..first + count, |control, site, worker, context| {
            control.remove(worker, site.tag(context));
        });
        let state = self.state()?;
        let installation = self.order(first..first + count, |control, site, worker, context| {
            control.install(worker, site.install(context));
        });
        let mut answer = self.state()?.since(&before);
        answer["removed_per_s"] = (f64::from(count) / removal.as_secs_f64()).into();
        answer["installed_per_s"] = (f64::from(count) / installation.as_secs_f64()).into();
        // What passed while contexts were installed.
        answer["installing"] = self.state()?.since(&state);
        Ok(answer)
    }

    /// Gives a command about each of some contexts, and waits until the last was carried out.
    fn order(&mut self, contexts: Range<u32>, give: impl Fn(&mut ControlLink<Mbuf>, &Site, usize, u32)) -> Duration {
        let (began, end) = (Instant::now(), self.counted(Count::CommandsApplied) + contexts.len() as u64);
        for context in contexts {
            while self.control.backlog() >= 1024 {
                self.serve();
            }
            give(&mut self.control, &self.site, self.site.owner(context).into(), context);
        }
        while self.counted(Count::CommandsApplied) < end {
            self.serve();
        }
        began.elapsed()
    }

    fn publish(&mut self) {
        self.control.publish(&Arc::new(self.site.snapshot()));
        self.serve();
        console::answer(&json!({ "published_ms": self.began.elapsed().as_millis() as u64 }));
    }
}

/// Gives the workers their contexts; how many seconds that took.
fn fill(site: &Site, control: &mut ControlLink<Mbuf>, workers: &mut [Worker<Mbuf>]) -> Result<f64, Box<dyn Error>> {
    let began = Instant::now();
    let mut given = 0;
    loop {
        while given < site.contexts() && control.backlog() < 1024 {
            control.install(usize::from(site.owner(given)), site.install(given));
            given += 1;
        }
        control.poll(4096, &mut |_| {});
        let work: usize = workers.iter_mut().map(|worker| worker.turn(0)).sum();
        if work == 0 && given == site.contexts() && control.backlog() == 0 {
            break;
        }
    }
    let filled: usize = workers.iter().map(|worker| worker.shard().len()).sum();
    if filled == site.contexts() as usize {
        return Ok(began.elapsed().as_secs_f64());
    }
    Err(format!("{filled} of {} contexts found room", site.contexts()).into())
}

/// What is counted at one moment.
struct State {
    at: Instant,
    near: PortStats,
    far: PortStats,
    translated: u64,
    handed_over: u64,
    lent: u64,
    recalled: u64,
    guests: u64,
    punted: u64,
    drops: Vec<u64>,
}

impl State {
    fn since(&self, before: &State) -> Value {
        let mut drops = Map::new();
        for ((reason, now), then) in DropReason::ALL.iter().zip(&self.drops).zip(&before.drops) {
            if now > then {
                drops.insert(format!("{reason:?}"), (now - then).into());
            }
        }
        let between = |count: fn(&PortStats) -> u64| {
            [count(&self.near) - count(&before.near), count(&self.far) - count(&before.far)]
        };
        json!({
            "seconds": (self.at - before.at).as_secs_f64(),
            "received": between(|port| port.rx_frames),
            "sent": between(|port| port.tx_frames),
            "translated": self.translated - before.translated,
            "handed_over": self.handed_over - before.handed_over,
            "contexts_lent": self.lent - before.lent,
            "contexts_recalled": self.recalled - before.recalled,
            "guests": self.guests,
            "punted": self.punted - before.punted,
            "drops": drops,
        })
    }
}

/// A worker's thread, as the daemon runs it.
fn work(eal: &Eal, mut worker: Worker<Mbuf>, core: u32, began: Instant, switch: &Switch) {
    if let Err(error) = pin(core) {
        eprintln!("perf-box: {error}");
    }
    let registered = Lcore::register(eal);
    if let Err(error) = &registered {
        eprintln!("perf-box: {error}");
    }
    let mut watch = match Watch::new() {
        Ok(watch) => watch,
        Err(error) => return eprintln!("perf-box: the kernel does not say who waits: {error}"),
    };
    switch.rest(Pauses::default());
    while switch.state() != ENDED {
        watch.restart();
        while switch.state() == RUNNING {
            let now = Instant::now();
            watch.turn(now);
            worker.turn((now - began).as_millis() as u64);
        }
        switch.rest(watch.pauses());
    }
}
