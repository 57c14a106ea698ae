//! The poll loop of one core: receive, translate, transmit, commands, a step of expiry.
//!
//! A worker owns its shard, its queues and its counters. A turn never blocks, allocates or asks the kernel for anything
//! (what a port does inside is the port's business). Its clock is the number handed to [`Worker::turn`].

mod lending;
mod outlets;
mod report;
mod traced;

use std::sync::Arc;

use crate::context::replay::Shown;
use crate::context::{Flows, Hold, Phase, Replay, Shard, Sharding};
use crate::counters::{Count, Counters, DropReason};
use crate::limit::Guard;
pub use crate::limit::Limits;
use crate::link::{Command, Event, Handover, Retired, WorkerLink};
use crate::port::{Frame, Pool};
use crate::snapshot::{PortId, Role, Snapshot};
use crate::trace::Tracer;
use crate::translate::{BURST, Batch, IcmpError, Origin, Scene, inbound, nowhere, outbound};
use crate::wire::ethernet;
use crate::wire::{ContextTag, UlidPair};
pub use outlets::Outlet;
use outlets::{Outlets, PortSlot};

/// One core's share of the box.
pub struct Worker<F> {
    id: u8,
    limits: Limits,
    sharding: Sharding,
    shard: Shard,
    snapshot: Arc<Snapshot>,
    batch: Batch<F>,
    released: Vec<(PortId, F)>,
    /// Commands, taken out of their ring at once.
    orders: Vec<Command<F>>,
    /// Whether packets came in the turn before.
    busy: bool,
    /// What another worker handed over, taken out of its ring at once.
    arrived: Vec<Handover<F>>,
    /// Who handed over the packets that are being processed.
    handed_by: Option<u8>,
    /// Workers that have to forget what this one has lent them, and have not been told yet, one bit for each.
    unsaid: u64,
    replay: Replay,
    flows: Flows,
    outlets: Outlets<F>,
    report_due: u64,
    /// Only while somebody wants to know what becomes of packets.
    tracer: Option<Box<Tracer>>,
}

/// Commands and events handled in one turn, so that packets never wait long for them.
const STEPS: usize = 64;

impl<F: Frame> Worker<F> {
    /// A worker with nothing to do yet. `ports` is in the order of the snapshot's.
    pub fn new(
        id: u8,
        limits: Limits,
        sharding: Sharding,
        snapshot: Arc<Snapshot>,
        ports: Vec<Outlet<F>>,
        link: WorkerLink<F>,
        pool: Box<dyn Pool<F>>,
    ) -> Worker<F> {
        let depth = limits.hold_depth.clamp(1, BURST);
        let ports = ports.into_iter().map(|outlet| PortSlot { outlet, sending: Vec::with_capacity(BURST) }).collect();
        let largest = snapshot.ports.iter().map(|port| usize::from(port.mtu)).max().unwrap_or_default();
        let guard = Guard::new(&limits, snapshot.ports.len(), *sharding.hasher());
        Worker {
            id,
            limits,
            sharding,
            shard: Shard::with_guests(limits.contexts, limits.guests, *sharding.hasher(), limits.strict_locators)
                .with_labels(limits.flow_labels)
                .with_udp(limits.udp)
                .with_forks(limits.forked_pairs)
                .with_standbys(limits.standbys),
            snapshot,
            batch: Batch::default(),
            released: Vec::with_capacity(depth),
            orders: Vec::with_capacity(STEPS),
            busy: false,
            arrived: Vec::with_capacity(BURST),
            handed_by: None,
            unsaid: 0,
            replay: Replay::new(limits.replays, largest + ethernet::HEADER_LEN),
            outlets: Outlets {
                ports,
                hold: Hold::new(limits.hold_pairs, depth),
                departing: link.to_workers.iter().map(|_| Vec::with_capacity(BURST)).collect(),
                dropped: Vec::with_capacity(BURST),
                pieces: Vec::with_capacity(3 * BURST),
                cuts: 0,
                hasher: *sharding.hasher(),
                link,
                pool,
                guard,
                now: 0,
                plain: false,
            },
            flows: Flows::new(limits.nat_sessions, *sharding.hasher()),
            report_due: 0,
            tracer: None,
        }
    }

    /// One turn. `now` is in milliseconds and does not run backwards. How many packets and commands there were.
    pub fn turn(&mut self, now: u64) -> usize {
        self.outlets.now = now;
        let commands = self.commands() + self.listen();
        let mut work = commands + self.handovers();
        for port in 0..self.outlets.ports.len() {
            if let Outlet::Own(device) = &mut self.outlets.ports[port].outlet {
                device.receive(&mut self.batch.frames);
                work += self.batch.frames.len();
                self.process(PortId(port as u8), Origin::Device);
            }
        }
        let packets = work - commands;
        self.busy = packets > 0;
        // A report costs about as much as a few packets, and waits where it is without harm.
        self.report(if self.busy { (packets / 4).clamp(8, STEPS) } else { STEPS });
        self.expire_one();
        self.speak();
        for port in 0..self.outlets.ports.len() {
            self.outlets.flush(port);
        }
        for worker in 0..self.outlets.departing.len() {
            self.outlets.depart(worker);
        }
        work
    }

    /// Its number among the workers.
    pub fn id(&self) -> u8 {
        self.id
    }

    /// The contexts, for tests and status.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Pairs whose packets wait for a context, for tests.
    pub fn held(&self) -> usize {
        self.outlets.hold.len()
    }

    /// Translates what is in the batch and does what the verdicts ask for.
    fn process(&mut self, port: PortId, origin: Origin) {
        if self.batch.frames.is_empty() {
            return;
        }
        let counters = &*self.outlets.link.counters;
        let role = self.snapshot.ports.get(usize::from(port.0)).map(|port| port.role);
        if origin == Origin::Device {
            let count = if role == Some(Role::Site) { Count::ReceivedSite } else { Count::ReceivedProvider };
            counters.add(count, self.batch.frames.len() as u64);
        }
        if let Some(tracer) = &mut self.tracer {
            tracer.begin(self.batch.frames.iter().map(Frame::bytes));
        }
        let mut scene = Scene {
            shard: &mut self.shard,
            replay: &mut self.replay,
            flows: &mut self.flows,
            now: self.outlets.now,
            snapshot: &self.snapshot,
            sharding: &self.sharding,
            worker: self.id,
            port,
            origin,
            handed_by: self.handed_by,
            counters,
        };
        match role {
            Some(Role::Site) => outbound(&mut self.batch, &mut scene),
            Some(Role::Provider) => inbound(&mut self.batch, &mut scene),
            Some(Role::Unused) | None => nowhere(&mut self.batch),
        }
        if self.tracer.is_some() {
            self.settle_traced(port, origin);
        }
        if let Some(to) = self.batch.all_to
            && self.outlets.send_all(to, &mut self.batch.frames)
        {
            return self.batch.clear();
        }
        self.batch.spell_out();
        // By reference: a verdict was just written octet by octet, and moving it whole would wait for each of them.
        for (frame, verdict) in self.batch.frames.drain(..).zip(&self.batch.verdicts) {
            self.outlets.settle(port, frame, verdict, &self.snapshot);
        }
        self.batch.clear();
        F::discard(&mut self.outlets.dropped);
        for shown in self.replay.shown().filter(|_| self.limits.tcp_hints) {
            // Only a hint, and no packet: when there is no room for it, the next one comes soon.
            let Shown { handle, sign, pair } = shown;
            self.outlets.tell(Event::Tcp { handle, sign, pair });
        }
        if !self.outlets.pieces.is_empty() {
            self.send_pieces(port);
        }
    }

    /// Sends the fragments of what a burst had to cut. They fit, so nothing is cut twice.
    #[cold]
    fn send_pieces(&mut self, port: PortId) {
        let mut pieces = std::mem::take(&mut self.outlets.pieces);
        for frame in pieces.drain(..) {
            self.batch.frames.push(frame);
            if self.batch.frames.len() == BURST {
                self.process(port, Origin::Worker);
            }
        }
        self.process(port, Origin::Worker);
        self.outlets.pieces = pieces;
    }

    fn commands(&mut self) -> usize {
        let mut orders = std::mem::take(&mut self.orders);
        let ring = &mut self.outlets.link.commands;
        // Contexts come and go by the million; packets must not notice.
        let steps = if self.busy { STEPS / 4 } else { STEPS };
        if let Ok(waiting) = ring.read_chunk(ring.slots().min(steps)) {
            let (first, second) = waiting.as_slices();
            for command in first.iter().chain(second) {
                if let Command::Install(install) = command {
                    self.shard.approach(install);
                }
            }
            orders.extend(waiting);
        }
        let done = orders.len();
        for command in orders.drain(..) {
            self.obey(command);
        }
        self.orders = orders;
        if done > 0 {
            self.outlets.link.counters.add(Count::CommandsApplied, done as u64);
            self.outlets.link.counters.set(Count::Contexts, self.shard.len() as u64);
        }
        done
    }

    fn obey(&mut self, command: Command<F>) {
        match command {
            Command::Install(mut install) => {
                let accepted = install.accepted.take();
                if self.shard.install(&install).is_err() {
                    self.outlets.count(Count::TableFull);
                    self.outlets.tell(Event::TableFull { handle: install.handle });
                    self.refuse(&install.ulids);
                    self.outlets.retire(accepted.map(Retired::Accepted));
                } else {
                    let old = self.shard.accept(install.local_tag, accepted);
                    self.outlets.retire(old.map(Retired::Accepted));
                    if install.default && install.phase == Phase::Live {
                        self.release(&install.ulids);
                    }
                }
            }
            Command::Remove(tag) => {
                let old = self.shard.accept(tag, None);
                self.outlets.retire(old.map(Retired::Accepted));
                self.shard.remove(tag);
                self.replay.forget(tag);
            }
            Command::Lost(loss, lost) => self.shard.lose(loss, lost),
            Command::Replay(tag) => self.replay(tag),
            Command::Refuse(pair) => self.refuse(&pair),
            Command::Transmit(port, frame) => self.outlets.send(port, frame),
            Command::Plain(port, frame) => self.process_plain(port, frame),
            Command::Trace(tracer) => {
                let old = std::mem::replace(&mut self.tracer, tracer);
                self.outlets.retire(old.map(Retired::Tracer));
            }
            Command::Snapshot(snapshot) => {
                let old = std::mem::replace(&mut self.snapshot, snapshot);
                self.outlets.retire(Some(Retired::Snapshot(old)));
            }
        }
    }

    /// Sends what was held for a pair, in the order it came.
    fn release(&mut self, pair: &UlidPair) {
        self.outlets.hold.release(pair, &mut self.released);
        self.outlets.link.counters.add(Count::Released, self.released.len() as u64);
        // At most a burst: the hold is never deeper.
        let mut from = None;
        let mut released = std::mem::take(&mut self.released);
        for (port, frame) in released.drain(..) {
            if let Some(before) = from.filter(|&before| before != port) {
                self.process(before, Origin::Worker);
            }
            from = Some(port);
            self.batch.frames.push(frame);
        }
        if let Some(port) = from {
            self.process(port, Origin::Worker);
        }
        self.released = released;
    }

    /// A packet that control had and gave back: it has nothing to do with a context.
    fn process_plain(&mut self, port: PortId, frame: F) {
        self.batch.frames.push(frame);
        self.outlets.plain = true;
        self.process(port, Origin::Control);
        self.outlets.plain = false;
    }

    /// Sends the last segment of a context in doubt again. It stays until something comes back.
    fn replay(&mut self, tag: ContextTag) {
        let Some((port, octets)) = self.replay.repeat(tag, self.outlets.now) else { return };
        let Some(frame) = self.outlets.pool.allocate(octets) else {
            return self.outlets.drop(DropReason::NoBuffer);
        };
        self.outlets.count(Count::Replayed);
        self.batch.frames.push(frame);
        self.process(port, Origin::Worker);
    }

    /// Answers what was held for a pair that gets no context.
    fn refuse(&mut self, pair: &UlidPair) {
        self.outlets.hold.release(pair, &mut self.released);
        for (port, frame) in self.released.drain(..) {
            self.outlets.answer(port, frame, IcmpError::AddressUnreachable, DropReason::Unreachable, &self.snapshot);
        }
    }

    fn handovers(&mut self) -> usize {
        let mut done = 0;
        let mut arrived = std::mem::take(&mut self.arrived);
        for other in 0..self.outlets.link.from_workers.len() {
            let ring = &mut self.outlets.link.from_workers[other];
            if let Ok(burst) = ring.read_chunk(ring.slots().min(BURST)) {
                arrived.extend(burst);
            }
            done += arrived.len();
            // They lie in the cache of the core that had them: all are asked for before the first is waited for.
            arrived.iter().for_each(|packet| packet.frame().prefetch());
            arrived.iter().for_each(|packet| packet.frame().prefetch_octets());
            let mut from = None;
            self.handed_by = Some(other as u8);
            for packet in arrived.drain(..) {
                match packet {
                    Handover::Transmit(port, frame) => self.outlets.send(port, frame),
                    Handover::Plain(port, frame) => {
                        if let Some(before) = from.take() {
                            self.process(before, Origin::Worker);
                        }
                        self.process_plain(port, frame);
                    }
                    Handover::Process(port, frame) => {
                        if let Some(before) = from.filter(|&before| before != port) {
                            self.process(before, Origin::Worker);
                        }
                        from = Some(port);
                        self.batch.frames.push(frame);
                    }
                }
            }
            if let Some(port) = from {
                self.process(port, Origin::Worker);
            }
            self.handed_by = None;
        }
        self.arrived = arrived;
        done
    }

    fn expire_one(&mut self) {
        let oldest = self.outlets.now.saturating_sub(self.limits.hold_ms);
        self.outlets.hold.expire_step(oldest, &mut self.released);
        // The exchange may still come to something, but the host should not wait in the dark.
        for (port, frame) in self.released.drain(..) {
            self.outlets.answer(port, frame, IcmpError::AddressUnreachable, DropReason::HoldExpired, &self.snapshot);
        }
    }
}

/// A worker's counters, to be shared with whoever shows them.
impl<F> Worker<F> {
    /// This worker's counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.outlets.link.counters
    }
}
