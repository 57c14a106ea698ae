//! Devices and workers on DPDK.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dataplane::link::{ControlLink, RingSizes, connect};
use dataplane::port::dpdk::{
    BufferPool, Device, DeviceSpec, Eal, EalConfig, EalError, Hugepages, Lcore, Mbuf, Memory, PortConfig, QueuePair,
    pin,
};
use dataplane::translate::BURST;
use dataplane::wire::ethernet::Mac;
use dataplane::worker::{Outlet, Worker};
use rand::Rng;
use tracing::{error, info, warn};

use super::{Clock, Devices, Opened, RunError};
use crate::config::{Configuration, Site, site};
use crate::engine::{Engine, PortSetup, worker_limits};
use crate::manage::api::{MemoryView, PortView};

/// Buffers kept by each thread's cache.
const CACHE: u32 = 256;
/// Descriptors per queue and direction.
const DESCRIPTORS: u16 = 512;
/// Room in a buffer besides the IPv6 packet: DPDK's headroom, link headers, and what a device wants for itself.
const BESIDES: usize = 128 + 64;

struct Hardware {
    site: Site,
    devices: Vec<Device>,
    memory: MemoryView,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

pub(super) fn open(configuration: &Configuration, clock: Clock, rng: &mut dyn Rng) -> Result<Opened, RunError> {
    let site = &configuration.site;
    let eal = start_eal(site)?;
    let pool = make_pool(&eal, site)?;
    let mut devices = Vec::new();
    let mut queues = Vec::new();
    for port in &site.ports {
        let (device, own) = open_port(&eal, port, &pool, site.node.workers)?;
        info!(port = port.name, device = device.name(), mac = %device.mac(), mtu = device.mtu(), queues = own.len(), "port open");
        devices.push(device);
        queues.push(own);
    }
    let setups: Vec<PortSetup> = site
        .ports
        .iter()
        .zip(&devices)
        .map(|(port, device)| PortSetup { mac: mac(port, device), mtu: mtu(port, device) })
        .collect();
    let engine = Engine::new(site, &configuration.hosts, &setups, rng)?;
    let (control, threads, stop) = start_workers(&eal, site, &engine, queues, &pool, clock)?;
    let memory =
        MemoryView { hugepages: matches!(eal.memory(), Memory::Hugepages { .. }), megabytes: site.eal.memory_mb };
    let hardware = Hardware { site: site.clone(), devices, memory, stop, threads };
    Ok((engine, Box::new(control), Box::new(hardware)))
}

fn hardware(error: impl std::fmt::Display) -> RunError {
    RunError::Hardware(error.to_string())
}

fn start_eal(site: &Site) -> Result<Eal, RunError> {
    let text = |device: &site::Device| match device {
        site::Device::Pci(text) | site::Device::Virtual(text) => text.clone(),
    };
    let specs: Result<Vec<DeviceSpec>, _> = site.ports.iter().map(|port| text(&port.device).parse()).collect();
    let eal = Eal::init(EalConfig {
        memory_mb: site.eal.memory_mb,
        hugepages: match site.eal.hugepages {
            site::Hugepages::Auto => Hugepages::Auto,
            site::Hugepages::Never => Hugepages::Never,
            site::Hugepages::Require => Hugepages::Require,
        },
        devices: specs.map_err(hardware)?,
        extra_args: site.eal.args.clone(),
        ..EalConfig::default()
    })
    .map_err(|error| match (&error, site.eal.hugepages) {
        (EalError::Start { .. }, site::Hugepages::Auto) => RunError::HugepagesTaken(error.to_string()),
        _ => hardware(error),
    })?;
    info!(version = eal.version(), memory = %eal.memory(), "DPDK started");
    Ok(eal)
}

/// Enough buffers for everything that may hold one at the same time: descriptors, each thread's cache, packets that wait
/// for a context, and the rings. Less would stop the ports from receiving when all bounds are reached.
fn make_pool(eal: &Eal, site: &Site) -> Result<BufferPool, RunError> {
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
    let largest = site.ports.iter().map(|port| usize::from(port.mtu)).max().unwrap_or(1500);
    let room = u16::try_from((largest + BESIDES).max(2048)).map_err(hardware)?;
    BufferPool::create(eal, "packets", count, CACHE, room).map_err(|error| {
        RunError::Hardware(format!(
            "{count} packet buffers do not fit in {} MB: {error}; give eal.memory_mb more, or box.hold and box.workers less",
            site.eal.memory_mb
        ))
    })
}

fn open_port(
    eal: &Eal,
    port: &site::Port,
    pool: &BufferPool,
    workers: u8,
) -> Result<(Device, Vec<QueuePair>), RunError> {
    let name = port.device.name();
    let failed = |error| RunError::Hardware(format!("port {}: {error}", port.name));
    let most = Device::max_queues_of(eal, name).map_err(failed)?;
    let config = PortConfig {
        queues: most.clamp(1, u16::from(workers)),
        rx_desc: DESCRIPTORS,
        tx_desc: DESCRIPTORS,
        mtu: port.mtu,
        ..PortConfig::default()
    };
    let (device, queues) = Device::configure(eal, name, pool, &config).map_err(failed)?;
    if device.mtu() != port.mtu {
        warn!(port = port.name, wanted = port.mtu, is = device.mtu(), "the device keeps its own MTU, which is used");
    }
    Ok((device, queues))
}

/// The address in use: the configured one, for which promiscuous mode lets frames in, or the device's own.
fn mac(port: &site::Port, device: &Device) -> Mac {
    port.mac.map_or(Mac(device.mac().0), |mac| Mac(mac.0))
}

/// The MTU in use: packets the device would drop have to be answered by Packet Too Big.
fn mtu(port: &site::Port, device: &Device) -> u16 {
    port.mtu.min(device.mtu())
}

type Started = (ControlLink<Mbuf>, Vec<JoinHandle<()>>, Arc<AtomicBool>);

fn start_workers(
    eal: &Eal,
    site: &Site,
    engine: &Engine,
    queues: Vec<Vec<QueuePair>>,
    pool: &BufferPool,
    clock: Clock,
) -> Result<Started, RunError> {
    let count = usize::from(site.node.workers);
    let (control, links) = connect(count, RingSizes::default(), Box::new(pool.clone()));
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
    let mut threads = Vec::new();
    for ((id, link), ports) in links.into_iter().enumerate().zip(outlets) {
        let snapshot = engine.snapshot().clone();
        let worker = Worker::new(id as u8, limits, *engine.sharding(), snapshot, ports, link, Box::new(pool.clone()));
        let core = site.node.cores.as_ref().and_then(|cores| cores.get(id).copied());
        let (eal, stop, idle) = (eal.clone(), stop.clone(), site.node.idle);
        let thread = thread::Builder::new()
            .name(format!("worker-{id}"))
            .spawn(move || run_worker(&eal, worker, core, idle, clock, &stop))
            .map_err(hardware)?;
        threads.push(thread);
    }
    Ok((control, threads, stop))
}

fn run_worker(
    eal: &Eal,
    mut worker: Worker<Mbuf>,
    core: Option<u16>,
    idle: site::Idle,
    clock: Clock,
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
    let mut quiet = 0u32;
    while !stop.load(Ordering::Relaxed) {
        if worker.turn(clock.millis()) > 0 {
            quiet = 0;
            continue;
        }
        quiet = quiet.saturating_add(1);
        match idle {
            site::Idle::Poll => std::hint::spin_loop(),
            site::Idle::Sleep => nap(quiet),
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
        let views = self.site.ports.iter().zip(&self.devices).map(|(port, device)| {
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
            }
        });
        views.collect()
    }

    fn links(&self) -> Vec<bool> {
        self.devices.iter().map(Device::link_up).collect()
    }

    fn memory(&self) -> MemoryView {
        self.memory.clone()
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
