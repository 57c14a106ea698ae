//! Devices and workers on DPDK.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use dataplane::link::{ControlLink, RingSizes, connect};
use dataplane::port::Port;
use dataplane::port::dpdk::{
    BufferPool, Device, DeviceSpec, Eal, EalConfig, EalError, Hugepages, Lcore, Mbuf, Memory, PortConfig, QueuePair,
    RSS_KEY_MAX, Rss, keep_off, node_of_core, pin,
};
use dataplane::port::late::{Delivery, Late};
use dataplane::translate::BURST;
use dataplane::wire::ethernet::Mac;
use dataplane::worker::{Outlet, Worker};
use rand::Rng;
use tracing::{error, info, warn};

use super::recording::Start;
use super::succession::{Beginning, device_text, is_shareable};
use super::{Clock, Devices, Opened, RunError};
use crate::config::{Configuration, Site, site};
use crate::engine::{Engine, PortSetup, worker_limits};
use crate::manage::api::{MemoryView, PortView, Spread};

/// Buffers kept by each thread's cache.
const CACHE: u32 = 256;
/// Descriptors per queue and direction.
const DESCRIPTORS: u16 = 512;
/// Room in a buffer besides the IPv6 packet: DPDK's headroom, link headers, and what a device wants for itself.
const BESIDES: usize = 128 + 64;

/// Workers count in milliseconds.
const NANOS_PER_MILLI: u64 = 1_000_000;

/// How soon a device that could not be set up anew is tried again.
const RESET_AGAIN: Duration = Duration::from_secs(1);

/// How often a worker has turned. Only that worker writes to it, and nobody else's cache line is concerned.
type Turns = Arc<CachePadded<AtomicU64>>;

/// Packet buffers, by the memory node they are on; none is any.
type Pools = BTreeMap<Option<u32>, BufferPool>;

struct Hardware {
    site: Site,
    devices: Vec<Device>,
    /// For each device, how often it was set up anew, and when that was tried last.
    resets: Vec<Cell<(u64, Option<Instant>)>>,
    hugepages: bool,
    /// Where packets lie.
    pools: Vec<BufferPool>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Of each worker.
    turns: Vec<Turns>,
    /// What is needed to open the devices, while another process has them.
    late: Option<Opening>,
}

/// Has devices and memory of DPDK's stay with this process when it starts another one, or becomes one.
pub(super) fn keep_descriptors() {
    if let Err(error) = dataplane::port::dpdk::keep_descriptors() {
        warn!(%error, "another process may inherit devices of this one");
    }
}

/// Makes an interface of the operating system's.
pub(super) fn open_tap(name: &str) -> std::io::Result<OwnedFd> {
    dataplane::port::dpdk::open_tap(name).map(OwnedFd::from)
}

/// Devices that are to be opened, and where their queues go.
struct Opening {
    eal: Eal,
    pools: Pools,
    key: [u8; RSS_KEY_MAX],
    /// By port, then queue.
    queues: Vec<Vec<Delivery<QueuePair>>>,
    /// What the devices have to be like.
    setups: Vec<PortSetup>,
    /// Those that could be opened beside the other process, and what comes in there is still its to deal with.
    early: Vec<Option<(Device, Vec<QueuePair>)>>,
}

impl Opening {
    /// Opens a device and sees that it is what it was.
    fn open(&self, site: &Site, at: usize) -> Result<(Device, Vec<QueuePair>), RunError> {
        let (port, wanted) = (&site.ports[at], &self.setups[at]);
        let spec: DeviceSpec = device_text(port).parse().map_err(hardware)?;
        self.eal.attach(&spec).map_err(hardware)?;
        let (device, own) = open_port(&self.eal, port, &self.pools, site.node.workers, self.key)?;
        let differs = |what: &str| RunError::Hardware(format!("port {}: the device has another {what} now", port.name));
        if mac(port, &device) != wanted.mac {
            return Err(differs("address"));
        }
        if mtu(port, &device) != wanted.mtu {
            return Err(differs("MTU"));
        }
        if own.len() != self.queues[at].len() {
            return Err(differs("number of queues"));
        }
        Ok((device, own))
    }
}

/// Throws away what came in while another process saw it too.
fn forget_received(queues: &mut [QueuePair]) {
    let mut burst = Vec::with_capacity(BURST);
    for queue in queues {
        for _ in 0..usize::from(DESCRIPTORS) {
            queue.receive(&mut burst);
            if burst.is_empty() {
                break;
            }
            burst.clear();
        }
    }
}

/// Starts DPDK and the workers for the place of a process that still has the devices: [`Devices::open`] opens them.
pub(super) fn open_late(
    configuration: &Configuration,
    ordinary: bool,
    clock: Clock,
    (rng, start): (&mut dyn Rng, Start),
    beginning: &Beginning,
) -> Result<Opened, RunError> {
    let site = &configuration.site;
    leave_cores_to_workers(site);
    let eal = start_eal(site, ordinary, false)?;
    let ports: Vec<&site::Port> = site.ports.iter().collect();
    let pools: Pools = BTreeMap::from([(None, make_pool(&eal, site, None, &ports)?)]);
    let mut key = [0; RSS_KEY_MAX];
    rng.fill_bytes(&mut key);
    let setups: Vec<PortSetup> =
        beginning.ports.iter().map(|port| PortSetup { mac: Mac(port.mac), mtu: port.mtu }).collect();
    let (mut queues, mut deliveries) = (Vec::new(), Vec::new());
    for port in &beginning.ports {
        let (late, due): (Vec<_>, Vec<_>) = (0..port.queues).map(|_| Late::new()).unzip();
        queues.push(late);
        deliveries.push(due);
    }
    let engine = start.core(configuration, &setups, beginning.keys.clone(), clock, rng)?;
    let Started { control, threads, turns, stop } = start_workers(&eal, site, &engine, queues, &pools, clock)?;
    let (hugepages, own) = (matches!(eal.memory(), Memory::Hugepages { .. }), pools.values().cloned().collect());
    let mut late = Opening { eal, pools, key, queues: deliveries, setups, early: Vec::new() };
    for (at, port) in site.ports.iter().enumerate() {
        let early = is_shareable(port).then(|| late.open(site, at)).transpose()?;
        late.early.push(early);
    }
    let late = Some(late);
    let (devices, resets) = (Vec::new(), site.ports.iter().map(|_| Cell::default()).collect());
    let hardware = Hardware { site: site.clone(), devices, resets, hugepages, pools: own, stop, threads, turns, late };
    Ok((engine, Box::new(control), Box::new(hardware)))
}

pub(super) fn open(
    configuration: &Configuration,
    ordinary: bool,
    clock: Clock,
    (rng, start): (&mut dyn Rng, Start),
) -> Result<Opened, RunError> {
    let site = &configuration.site;
    leave_cores_to_workers(site);
    let eal = start_eal(site, ordinary, true)?;
    let pools = make_pools(&eal, site)?;
    let mut key = [0; RSS_KEY_MAX];
    rng.fill_bytes(&mut key);
    let mut devices = Vec::new();
    let mut queues = Vec::new();
    for port in &site.ports {
        let (device, own) = open_port(&eal, port, &pools, site.node.workers, key)?;
        devices.push(device);
        queues.push(own);
    }
    let setups: Vec<PortSetup> = site
        .ports
        .iter()
        .zip(&devices)
        .map(|(port, device)| PortSetup { mac: mac(port, device), mtu: mtu(port, device) })
        .collect();
    let keys = super::sync::keys(configuration, rng);
    let engine = start.core(configuration, &setups, keys, clock, rng)?;
    let Started { control, threads, turns, stop } = start_workers(&eal, site, &engine, queues, &pools, clock)?;
    let (hugepages, own) = (matches!(eal.memory(), Memory::Hugepages { .. }), pools.values().cloned().collect());
    let resets = devices.iter().map(|_| Cell::default()).collect();
    let hardware =
        Hardware { site: site.clone(), devices, resets, hugepages, pools: own, stop, threads, turns, late: None };
    Ok((engine, Box::new(control), Box::new(hardware)))
}

/// A worker that polls never gives its core away, so the scheduler takes it from it: for a whole time slice, in which a
/// device's queue overflows. No thread of ours shall be why. Threads started later inherit this, but for the workers, which
/// pin themselves.
fn leave_cores_to_workers(site: &Site) {
    let (Some(cores), site::Idle::Poll) = (&site.node.cores, site.node.idle) else { return };
    let cores: Vec<u32> = cores.iter().map(|&core| core.into()).collect();
    match keep_off(&cores) {
        Ok(true) => {}
        Ok(false) => warn!("box.cores are all the cores there are: workers pause while other threads run"),
        Err(reason) => warn!(%reason, "other threads may run on the workers' cores, which then pause"),
    }
}

fn hardware(error: impl std::fmt::Display) -> RunError {
    RunError::Hardware(error.to_string())
}

/// With the devices, or with none of them yet.
fn start_eal(site: &Site, ordinary: bool, attach: bool) -> Result<Eal, RunError> {
    let specs: Result<Vec<DeviceSpec>, _> = site.ports.iter().map(|port| device_text(port).parse()).collect();
    let mut devices = specs.map_err(hardware)?;
    let pci_later = !attach && devices.iter().any(DeviceSpec::is_pci);
    devices.retain(|_| attach);
    let eal = Eal::init(EalConfig {
        memory_mb: site.eal.memory_mb,
        hugepages: match site.eal.hugepages {
            _ if ordinary => Hugepages::Never,
            site::Hugepages::Auto => Hugepages::Auto,
            site::Hugepages::Never => Hugepages::Never,
            site::Hugepages::Require => Hugepages::Require,
        },
        devices,
        pci_later,
        extra_args: site.eal.args.clone(),
        ..EalConfig::default()
    })
    .map_err(|error| match (&error, site.eal.hugepages) {
        (EalError::Start { .. }, site::Hugepages::Auto) if !ordinary => RunError::HugepagesTaken(error.to_string()),
        _ => hardware(error),
    })?;
    info!(version = eal.version(), memory = %eal.memory(), "DPDK started");
    Ok(eal)
}

/// A pool on each memory node that has a device, since a device fills buffers of its own node best.
fn make_pools(eal: &Eal, site: &Site) -> Result<Pools, RunError> {
    let mut ports: BTreeMap<Option<u32>, Vec<&site::Port>> = BTreeMap::new();
    for port in &site.ports {
        let node = Device::socket_of(eal, port.device.name()).map_err(hardware)?;
        ports.entry(node).or_default().push(port);
    }
    ports.into_iter().map(|(node, ports)| Ok((node, make_pool(eal, site, node, &ports)?))).collect()
}

/// Enough buffers for everything that may hold one at the same time: descriptors, each thread's cache, packets that wait
/// for a context, and the rings. Less would stop the ports from receiving when all bounds are reached.
fn make_pool(eal: &Eal, site: &Site, node: Option<u32>, ports: &[&site::Port]) -> Result<BufferPool, RunError> {
    let workers = u32::from(site.node.workers);
    let rings = RingSizes::default();
    let descriptors = site.ports.len() as u32 * workers * 2 * u32::from(DESCRIPTORS);
    let caches = (workers + 1) * CACHE * 3 / 2;
    let limits = worker_limits(site);
    let waiting = workers * limits.hold_pairs as u32 * u32::from(site.node.hold_packets);
    let between = (rings.events + rings.commands + (rings.handover + BURST) * (workers as usize - 1)) as u32 * workers;
    // A worker's own lists: commands taken in, packets handed over to it, to be sent, to be dropped.
    let own = (8 * BURST) as u32 * workers;
    let count = descriptors + caches + waiting + between + own + 1024;
    // A worker's copies may leave through any port, so all buffers hold the largest.
    let largest = site.ports.iter().map(|port| usize::from(port.mtu)).max().unwrap_or(1500);
    let room = u16::try_from((largest + BESIDES).max(2048)).map_err(hardware)?;
    let name = node.map_or("packets".into(), |node| format!("packets-{node}"));
    let pool = BufferPool::create_on(eal, node, &name, count, CACHE, room);
    // Memory may have been given out on other nodes only.
    let pool = pool.or_else(|_| BufferPool::create(eal, &name, count, CACHE, room));
    pool.map_err(|error| {
        let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        RunError::Hardware(format!(
            "{count} packet buffers for {} do not fit in {} MB: {error}; give eal.memory_mb more, or box.hold and box.workers less",
            names.join(", "),
            site.eal.memory_mb
        ))
    })
}

/// The pool nearest to a memory node.
fn near(pools: &Pools, node: Option<u32>) -> Result<&BufferPool, RunError> {
    let any = || RunError::Hardware("there is no port".into());
    pools.get(&node).or_else(|| pools.values().next()).ok_or_else(any)
}

fn open_port(
    eal: &Eal,
    port: &site::Port,
    pools: &Pools,
    workers: u8,
    key: [u8; RSS_KEY_MAX],
) -> Result<(Device, Vec<QueuePair>), RunError> {
    let name = port.device.name();
    let failed = |error| RunError::Hardware(format!("port {}: {error}", port.name));
    let most = Device::max_queues_of(eal, name).map_err(failed)?;
    let config = PortConfig {
        queues: most.clamp(1, u16::from(workers)),
        rx_desc: DESCRIPTORS,
        tx_desc: DESCRIPTORS,
        mtu: port.mtu,
        // Not the ports: a pair of addresses is one worker's, so all of it had better arrive in one place, in order.
        rss: Some(Rss::Addresses),
        rss_key: Some(key),
        ..PortConfig::default()
    };
    let pool = near(pools, Device::socket_of(eal, name).map_err(failed)?)?;
    let (device, queues) = Device::configure(eal, name, pool, &config).map_err(failed)?;
    if device.mtu() != port.mtu {
        warn!(port = port.name, wanted = port.mtu, is = device.mtu(), "the device keeps its own MTU, which is used");
    }
    let spread = spread(&device, queues.len());
    info!(port = port.name, device = name, mac = %device.mac(), mtu = device.mtu(), queues = queues.len(), %spread, "port open");
    Ok((device, queues))
}

/// How a device's packets get to its queues.
fn spread(device: &Device, queues: usize) -> Spread {
    let spread = device.spread();
    match (queues, spread.hash, spread.key) {
        (0 | 1, ..) => Spread::Single,
        (_, false, _) => Spread::Device,
        (_, true, false) => Spread::Hash,
        (_, true, true) => Spread::KeyedHash,
    }
}

/// The address in use: the configured one, for which promiscuous mode lets frames in, or the device's own.
fn mac(port: &site::Port, device: &Device) -> Mac {
    port.mac.map_or(Mac(device.mac().0), |mac| Mac(mac.0))
}

/// The MTU in use: packets the device would drop have to be answered by Packet Too Big.
fn mtu(port: &site::Port, device: &Device) -> u16 {
    port.mtu.min(device.mtu())
}

/// Workers that run.
struct Started {
    control: ControlLink<Mbuf>,
    threads: Vec<JoinHandle<()>>,
    turns: Vec<Turns>,
    stop: Arc<AtomicBool>,
}

fn start_workers<P: Port<Mbuf> + 'static>(
    eal: &Eal,
    site: &Site,
    engine: &Engine,
    queues: Vec<Vec<P>>,
    pools: &Pools,
    clock: Clock,
) -> Result<Started, RunError> {
    let count = usize::from(site.node.workers);
    let (control, links) = connect(count, RingSizes::default(), Box::new(near(pools, None)?.clone()));
    let limits = worker_limits(site);
    let stop = Arc::new(AtomicBool::new(false));
    let mut outlets: Vec<Vec<Outlet<Mbuf>>> = (0..count).map(|_| Vec::new()).collect();
    for own in queues {
        // A device with fewer queues than workers is served by the first ones; the others send through them.
        let serving = own.len().max(1);
        let mut own = own.into_iter();
        for (worker, outlets) in outlets.iter_mut().enumerate() {
            outlets.push(match own.next() {
                Some(queue) => Outlet::Own(Box::new(queue)),
                None => Outlet::Via((worker % serving) as u8),
            });
        }
    }
    let turns: Vec<Turns> = (0..count).map(|_| Turns::default()).collect();
    let mut threads = Vec::new();
    for ((id, link), ports) in links.into_iter().enumerate().zip(outlets) {
        let (snapshot, sharding) = (engine.snapshot().clone(), *engine.sharding());
        let core = site.node.cores.as_ref().and_then(|cores| cores.get(id).copied());
        let pool = near(pools, core.and_then(|core| node_of_core(core.into())))?.clone();
        let (eal, stop, turns, idle) = (eal.clone(), stop.clone(), turns[id].clone(), site.node.idle);
        // The worker's tables are made by its own thread on its own core, so that they lie in the memory nearest to it.
        let make = move || Worker::new(id as u8, limits, sharding, snapshot, ports, link, Box::new(pool));
        let thread = thread::Builder::new()
            .name(format!("worker-{id}"))
            .spawn(move || run_worker(&eal, make, core, idle, clock, &turns, &stop))
            .map_err(hardware)?;
        threads.push(thread);
    }
    Ok(Started { control, threads, turns, stop })
}

fn run_worker(
    eal: &Eal,
    make: impl FnOnce() -> Worker<Mbuf>,
    core: Option<u16>,
    idle: site::Idle,
    clock: Clock,
    turns: &AtomicU64,
    stop: &AtomicBool,
) {
    if let Some(core) = core
        && let Err(reason) = pin(core.into())
    {
        error!(core, %reason, "worker runs on any core");
    }
    // Without a number of its own a thread still works, but its buffers bypass the pool's caches.
    let registered = Lcore::register(eal);
    if let Err(reason) = &registered {
        warn!(%reason, "worker has no lcore number");
    }
    let mut worker = make();
    let mut quiet = 0u32;
    let mut turned = 0u64;
    // Where one turn ends the next begins, so that one look at the clock is enough for both.
    let mut now = clock.nanos();
    while !stop.load(Ordering::Relaxed) {
        let work = worker.turn(now / NANOS_PER_MILLI);
        turned = turned.wrapping_add(1);
        turns.store(turned, Ordering::Relaxed);
        let began = std::mem::replace(&mut now, clock.nanos());
        if work > 0 {
            worker.counters().turns().observe(now.saturating_sub(began));
            quiet = 0;
            continue;
        }
        quiet = quiet.saturating_add(1);
        match idle {
            site::Idle::Poll => std::hint::spin_loop(),
            site::Idle::Sleep => {
                nap(quiet);
                now = clock.nanos();
            }
        }
    }
    drop(worker);
    drop(registered);
}

/// Longer the longer it is quiet: a transfer under way is not slowed down, an idle box hardly wakes up.
fn nap(quiet: u32) {
    match quiet {
        0..50 => std::hint::spin_loop(),
        50..250 => thread::sleep(Duration::from_micros(20)),
        250..1000 => thread::sleep(Duration::from_micros(200)),
        _ => thread::sleep(Duration::from_millis(1)),
    }
}

impl Devices for Hardware {
    fn ports(&self) -> Vec<PortView> {
        let views = self.site.ports.iter().zip(&self.devices).zip(&self.resets).map(|((port, device), resets)| {
            let stats = device.stats().unwrap_or_default();
            PortView {
                name: port.name.clone(),
                device: port.device.name().to_owned(),
                mac: mac(port, device).to_string(),
                mtu: mtu(port, device),
                link_up: device.link_up(),
                rx_packets: stats.rx_frames,
                rx_octets: stats.rx_octets,
                rx_missed: stats.rx_missed + stats.rx_no_buffer,
                tx_packets: stats.tx_frames,
                tx_octets: stats.tx_octets,
                tx_dropped: stats.tx_errors,
                queues: device.queues(),
                spread: spread(device, device.queues().into()),
                memory_node: device.socket(),
                link_changes: device.events().link_changes,
                resets: resets.get().0,
            }
        });
        views.collect()
    }

    fn links(&self) -> Vec<bool> {
        for (at, device) in self.devices.iter().enumerate() {
            if device.events().reset_wanted {
                self.reset(at, device);
            }
        }
        self.devices.iter().map(|device| device.link_up() && !device.events().removed).collect()
    }

    fn memory(&self) -> MemoryView {
        let sum = |count: fn(&BufferPool) -> u32| self.pools.iter().map(|pool| u64::from(count(pool))).sum();
        MemoryView {
            hugepages: self.hugepages,
            megabytes: self.site.eal.memory_mb,
            buffers: sum(BufferPool::count),
            buffers_free: sum(BufferPool::available),
        }
    }

    fn turns(&self) -> Vec<u64> {
        self.turns.iter().map(|turns| turns.load(Ordering::Relaxed)).collect()
    }

    fn setups(&self) -> Vec<(PortSetup, u16)> {
        let ports = self.site.ports.iter().zip(&self.devices);
        ports.map(|(it, device)| (PortSetup { mac: mac(it, device), mtu: mtu(it, device) }, device.queues())).collect()
    }

    fn open(&mut self) -> Result<(), RunError> {
        let Some(mut late) = self.late.take() else { return Ok(()) };
        for at in 0..self.site.ports.len() {
            let (device, mut own) = match late.early[at].take() {
                Some(early) => early,
                None => late.open(&self.site, at)?,
            };
            forget_received(&mut own);
            self.devices.push(device);
            late.queues[at].drain(..).zip(own).for_each(|(due, queue)| due.hand_over(queue));
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                error!("a worker ended in a panic");
            }
        }
    }
}

impl Hardware {
    /// Sets a device up anew that asks for it. Workers go on with the others meanwhile.
    fn reset(&self, at: usize, device: &Device) {
        let (done, tried) = self.resets[at].get();
        let now = Instant::now();
        if tried.is_some_and(|tried| now.duration_since(tried) < RESET_AGAIN) {
            return;
        }
        match device.reset() {
            Ok(()) => {
                warn!(device = device.name(), took = ?now.elapsed(), "the device asked for a reset and was set up anew");
                self.resets[at].set((done + 1, None));
            }
            Err(error) => {
                error!(%error, "the device asked for a reset and could not be set up anew; it is tried again");
                self.resets[at].set((done, Some(now)));
            }
        }
    }
}
