//! A box: an engine and its workers on ports in memory, and what the driver would do for them.

use dataplane::context::Sharding;
use dataplane::counters::{Count, DropReason};
use dataplane::link::{ControlLink, RingSizes, Workers, connect};
use dataplane::port::memory::{HeapFrame, HeapPool, MemoryPort, Wire};
use dataplane::snapshot::PortId;
use dataplane::wire::ethernet::{self, Mac};
use dataplane::worker::{Limits, Outlet, Worker};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::config::{Hosts, Site};
use crate::engine::{Changes, Effect, Engine, PortSetup, SetupError, Story, worker_limits};
use crate::manage::api::{ContextFilter, ContextView};
use crate::time::Instant;

/// Rounds of engine and workers at one moment before the box counts as restless.
const ROUNDS_MAX: u32 = 10_000;

/// What a box is made of, and made of again after a crash.
#[derive(Clone)]
pub(super) struct Blueprint {
    pub(super) site: Site,
    pub(super) hosts: Hosts,
    /// Link-layer addresses of the ports.
    pub(super) macs: Vec<Mac>,
}

/// A box of the world.
pub struct Node {
    /// Everything it decides.
    pub engine: Engine,
    /// Control's end of the rings.
    pub control: ControlLink<HeapFrame>,
    /// Its workers.
    pub workers: Vec<Worker<HeapFrame>>,
    blueprint: Blueprint,
    /// By worker, then port.
    wires: Vec<Vec<Wire>>,
    rng: StdRng,
    effects: Vec<Effect>,
}

impl Node {
    pub(super) fn new(blueprint: Blueprint, seed: u64) -> Node {
        let mut rng = StdRng::seed_from_u64(seed);
        let Blueprint { site, hosts, macs } = &blueprint;
        let setups: Vec<PortSetup> = macs.iter().map(|mac| PortSetup { mac: *mac, mtu: 1500 }).collect();
        let mut engine = Engine::new(site, hosts, &setups, &mut rng).expect("a plan the engine takes");
        let count = usize::from(site.node.workers);
        let (control, links) = connect(count, RingSizes::default(), Box::new(HeapPool));
        // What a small machine would keep, so that worlds begin quickly.
        let limits = Limits { replays: 64, ..worker_limits(site) };
        let mut wires = Vec::new();
        let mut workers = Vec::new();
        for (id, link) in links.into_iter().enumerate() {
            let (ports, far_ends): (Vec<_>, Vec<_>) = macs.iter().map(|_| MemoryPort::new()).unzip();
            let outlets = ports.into_iter().map(|port| Outlet::Own(Box::new(port) as _)).collect();
            let (snapshot, sharding): (_, Sharding) = (engine.snapshot().clone(), *engine.sharding());
            workers.push(Worker::new(id as u8, limits, sharding, snapshot, outlets, link, Box::new(HeapPool)));
            wires.push(far_ends);
        }
        let mut effects = Vec::new();
        engine.start(Instant::START, &mut effects);
        Node { engine, control, workers, blueprint, wires, rng, effects }
    }

    /// The same box after a crash. Its clock goes on, as that of its machine would.
    pub(super) fn reborn(&self, seed: u64) -> Node {
        Node::new(self.blueprint.clone(), seed)
    }

    /// The operator changes the configuration and has it read again.
    pub(super) fn reload(&mut self, now: Instant, new: (Site, Hosts)) -> Result<Changes, SetupError> {
        let Node { engine, rng, effects, .. } = self;
        let changes = engine.reload(now, rng, &new.0, &new.1, effects)?;
        (self.blueprint.site, self.blueprint.hosts) = new;
        Ok(changes)
    }

    /// The device of a port says that its link is up or down.
    pub(super) fn link_state(&mut self, now: Instant, port: PortId, up: bool) {
        self.engine.link_state(now, port, up, &mut self.effects);
    }

    /// What it was configured with last.
    pub fn configuration(&self) -> (&Site, &Hosts) {
        (&self.blueprint.site, &self.blueprint.hosts)
    }

    /// When the engine has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.engine.deadline()
    }

    /// A frame arrives; the device puts all frames of a flow into one worker's queue.
    pub(super) fn receive(&self, port: usize, frame: &[u8]) {
        let addresses = frame.get(ethernet::HEADER_LEN + 8..ethernet::HEADER_LEN + 40).unwrap_or_default();
        let flow = addresses.iter().fold(7u64, |hash, octet| hash.wrapping_mul(31).wrapping_add(u64::from(*octet)));
        let queue = (flow % self.wires.len().max(1) as u64) as usize;
        if let Some(wire) = self.wires.get(queue).and_then(|wires| wires.get(port)) {
            wire.send(frame);
        }
    }

    /// Workers and engine do what there is to do now. The frames that left, with their ports.
    ///
    /// # Panics
    /// When they never come to rest.
    pub(super) fn turn(&mut self, now: Instant, stories: &mut Vec<Story>) -> Vec<(usize, Vec<u8>)> {
        let millis = now.0.as_millis() as u64;
        let mut sent = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let mut work: usize = self.workers.iter_mut().map(|worker| worker.turn(millis)).sum();
            let Node { engine, control, rng, effects, .. } = self;
            work += control.poll(256, &mut |notice| engine.notice(now, rng, notice, effects));
            if engine.deadline().is_some_and(|due| due <= now) {
                engine.expire(now, rng, effects);
            }
            work += self.carry_out(stories);
            for wires in &self.wires {
                for (port, wire) in wires.iter().enumerate() {
                    sent.extend(std::iter::from_fn(|| wire.receive()).map(|frame| (port, frame)));
                }
            }
            if work == 0 {
                return sent;
            }
        }
        panic!("the box never comes to rest at {now:?}");
    }

    fn carry_out(&mut self, stories: &mut Vec<Story>) -> usize {
        let done = self.effects.len();
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Install(worker, install) => self.control.install(worker, install),
                Effect::Remove(worker, tag) => self.control.remove(worker, tag),
                Effect::Replay(worker, tag) => self.control.replay(worker, tag),
                Effect::Refuse(worker, pair) => self.control.refuse(worker, pair),
                Effect::Transmit(port, frame) => _ = self.control.transmit(port, &frame),
                Effect::TransmitBy(worker, port, frame) => _ = self.control.transmit_by(worker, port, &frame),
                Effect::Publish(snapshot) => self.control.publish(&snapshot),
                Effect::Story(story) => stories.push(story),
            }
        }
        done
    }

    /// All its contexts, as the operator sees them.
    pub fn contexts(&self, now: Instant) -> Vec<ContextView> {
        let all = ContextFilter { limit: Some(u32::MAX), ..ContextFilter::default() };
        self.engine.contexts_view(now, &all).contexts
    }

    /// A count of the control core.
    pub fn tally(&self, name: &str) -> u64 {
        self.engine.tally().value(name)
    }

    /// A count of all workers together.
    pub fn count(&self, count: Count) -> u64 {
        self.workers.iter().map(|worker| worker.counters().count(count)).sum()
    }

    /// Packets the workers dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.workers.iter().map(|worker| worker.counters().dropped(reason)).sum()
    }

    /// Checks what must always hold of a box at rest.
    ///
    /// # Panics
    /// When an invariant is broken.
    pub fn selfcheck(&self) {
        self.workers.iter().for_each(|worker| worker.shard().selfcheck());
        let held: usize = self.workers.iter().map(|worker| worker.shard().len()).sum();
        let known = self.engine.context_counts(0);
        assert_eq!(held as u64, known.established + known.opening, "workers and engine know the same contexts");
    }
}
