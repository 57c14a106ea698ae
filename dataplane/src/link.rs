//! The only talk between workers and control: commands in, events out, and a snapshot that travels as a command.
//!
//! | way | shape |
//! |---|---|
//! | control to one worker | bounded ring of [`Command`], of which each turn takes some; what does not fit waits at control, in order |
//! | control to all workers | an immutable [`Snapshot`], sent by the same ring, so it keeps its place among commands; the worker sends the one it replaces back to be freed |
//! | worker to control | bounded ring of [`Event`]; when full, the worker counts and goes on |
//! | worker to worker | bounded ring of [`Handover`]; when full, the packet is dropped and counted |
//! | worker to worker | bounded ring of [`Word`] about contexts; when full, copies are forgotten, which is always right |
//!
//! There is no other shared state, and no lock a packet could wait on. Order matters in one place: an `Install` releases
//! the packets held for its pair before any later command is looked at, so they leave in the order they came.

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::sync::Arc;

use rtrb::{Consumer, Producer, PushError, RingBuffer};

use crate::context::entry::Traffic;
use crate::context::fork::Wish;
use crate::context::{Activity, Install, LocatorSets, Loss, Sign, Word};
use crate::counters::Counters;
use crate::port::{Frame, Pool};
use crate::snapshot::{PortId, Snapshot};
use crate::trace::{Filter, Record, Tracer};
use crate::wire::shim6::UdpPorts;
use crate::wire::{ContextTag, Locator, LocatorPair, UlidPair};

/// What control tells a worker.
pub enum Command<F> {
    /// Add a context, or bring it up to date.
    Install(Install),
    /// Forget a context.
    Remove(ContextTag),
    /// Something is lost, or is back: whoever has a standby for it takes it, or leaves it.
    Lost(Loss, bool),
    /// Send the last segment of a context in doubt again: its path was replaced.
    Replay(ContextTag),
    /// There will be no context for this pair: answer what is held for it.
    Refuse(UlidPair),
    /// Send a packet of control's own.
    Transmit(PortId, F),
    /// Treat a packet that came in on this port, and was told to control, as one that has nothing to do with a context.
    Plain(PortId, F),
    /// Use this from now on.
    Snapshot(Arc<Snapshot>),
    /// Tell what becomes of packets, or stop doing so.
    Trace(Option<Box<Tracer>>),
}

/// Why a packet goes to control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Punt {
    /// For the box's own host stack.
    HostStack,
    /// A Shim6 control message for a managed locator.
    Shim6,
    /// An ICMPv6 error for a managed locator.
    IcmpError,
    /// For the operating system, by the interface it shares the port by.
    System,
}

/// What a worker tells control.
pub enum Event<F> {
    /// A host wants to talk to a peer and there is no context; its packets are held.
    UnknownPair(UlidPair),
    /// A payload header with a tag that is not ours (any more).
    UnknownTag {
        /// The tag.
        tag: ContextTag,
        /// The packet's addresses, seen from this side.
        locators: LocatorPair,
        /// Its ports, if it came in UDP.
        udp: Option<UdpPorts>,
    },
    /// A packet for control.
    Punt(PortId, Punt, F),
    /// A translated packet whose next hop has no known link-layer address.
    Unresolved(PortId, Ipv6Addr, F),
    /// Something was sent or received in a context since the last report.
    Activity {
        /// Control's name for the context.
        handle: u64,
        /// What happened.
        activity: Activity,
        /// Totals, out then in.
        traffic: [Traffic; 2],
    },
    /// The TCP of a context in doubt shows something.
    Tcp {
        /// Control's name for the context.
        handle: u64,
        /// What it shows.
        sign: Sign,
        /// The pair it was sent on.
        pair: LocatorPair,
    },
    /// A context found no place in the table.
    TableFull {
        /// Control's name for the context.
        handle: u64,
    },
    /// Translated traffic of a host with a peer without a context has reached a threshold: it deserves a context, if the
    /// peer speaks Shim6. Told again every so often for as long as it goes on without one.
    Qualified {
        /// The address the host really has, and the peer's.
        pair: UlidPair,
        /// The address the peer knows the host by: the identifier a context for this traffic must have.
        presented: Locator,
        /// The provider that delegated it, as an index into the snapshot.
        provider: u8,
    },
    /// Packets of a class would like a context of their own; they go by the default one meanwhile. Told again every so often
    /// for as long as that is so.
    Fork(Wish),
    /// Something nobody here uses any more, to be freed by control.
    Retired(Retired),
}

/// What a worker gives back: freeing it would be work for the packet path.
pub enum Retired {
    /// An old snapshot.
    Snapshot(Arc<Snapshot>),
    /// Locators a context accepted.
    Accepted(Box<LocatorSets>),
    /// What packets were traced with.
    Tracer(Box<Tracer>),
}

/// A packet for another worker.
pub enum Handover<F> {
    /// Came in on this port; the context is yours.
    Process(PortId, F),
    /// Ready to go; the port's queue is yours.
    Transmit(PortId, F),
    /// Came in on this port; control has seen it ([`Command::Plain`]).
    Plain(PortId, F),
}

impl<F> Handover<F> {
    /// The packet.
    #[inline]
    pub fn frame(&self) -> &F {
        let (Handover::Process(_, frame) | Handover::Transmit(_, frame) | Handover::Plain(_, frame)) = self;
        frame
    }
}

/// Sizes of the rings.
#[derive(Clone, Copy, Debug)]
pub struct RingSizes {
    /// Commands to one worker.
    pub commands: usize,
    /// Events of one worker.
    pub events: usize,
    /// Packets from one worker to one other.
    pub handover: usize,
    /// Words about contexts from one worker to one other.
    pub words: usize,
}

impl Default for RingSizes {
    fn default() -> Self {
        RingSizes { commands: 4096, events: 4096, handover: 1024, words: 512 }
    }
}

/// A worker's end.
pub struct WorkerLink<F> {
    pub(crate) commands: Consumer<Command<F>>,
    pub(crate) events: Producer<Event<F>>,
    /// To every worker, in order of their numbers; the one to itself is unused.
    pub(crate) to_workers: Vec<Producer<Handover<F>>>,
    /// From every worker, likewise.
    pub(crate) from_workers: Vec<Consumer<Handover<F>>>,
    /// The same for words about contexts.
    pub(crate) words_to: Vec<Producer<Word>>,
    pub(crate) words_from: Vec<Consumer<Word>>,
    pub(crate) counters: Arc<Counters>,
}

struct WorkerEnd<F> {
    commands: Producer<Command<F>>,
    events: Consumer<Event<F>>,
    backlog: VecDeque<Command<F>>,
    counters: Arc<Counters>,
    /// Where records of packets come out while they are made.
    records: Option<Consumer<Record>>,
}

/// Control's end.
pub struct ControlLink<F> {
    workers: Vec<WorkerEnd<F>>,
    pool: Box<dyn Pool<F>>,
}

/// An event as control sees it: packets are octets.
#[derive(Debug)]
#[allow(missing_docs, reason = "the variants are those of Event")]
pub enum Notice<'a> {
    UnknownPair(UlidPair),
    UnknownTag { tag: ContextTag, locators: LocatorPair, udp: Option<UdpPorts> },
    Punt(PortId, Punt, &'a [u8]),
    Unresolved(PortId, Ipv6Addr, &'a [u8]),
    Activity { handle: u64, activity: Activity, traffic: [Traffic; 2] },
    Tcp { handle: u64, sign: Sign, pair: LocatorPair },
    TableFull { handle: u64 },
    Qualified { pair: UlidPair, presented: Locator, provider: u8 },
    Fork(Wish),
}

/// Control's end without the type of its packets: control names no buffer.
pub trait Workers: Send {
    /// How many there are.
    fn count(&self) -> usize;
    /// Sends a command to the worker that owns the context.
    fn install(&mut self, worker: usize, install: Install);
    /// Forgets a context at its owner.
    fn remove(&mut self, worker: usize, tag: ContextTag);
    /// Tells all workers that something is lost, or is back.
    fn lose(&mut self, loss: Loss, lost: bool);
    /// Has the last segment of a context in doubt sent again.
    fn replay(&mut self, worker: usize, tag: ContextTag);
    /// Gives up on a pair at its owner.
    fn refuse(&mut self, worker: usize, pair: UlidPair);
    /// Sends an Ethernet frame. False if no buffer was free.
    fn transmit(&mut self, port: PortId, frame: &[u8]) -> bool;
    /// Has this worker send an Ethernet frame: it leaves after the worker has taken in whatever it was told before. False if
    /// no buffer was free.
    fn transmit_by(&mut self, worker: usize, port: PortId, frame: &[u8]) -> bool;
    /// Gives back an Ethernet frame that came in on a port. False if no buffer was free.
    fn plain(&mut self, port: PortId, frame: &[u8]) -> bool;
    /// Gives all workers a new snapshot.
    fn publish(&mut self, snapshot: &Arc<Snapshot>);
    /// Hands up to `limit` events of each worker to `sink` and sends waiting commands; how many events there were.
    fn poll(&mut self, limit: usize, sink: &mut dyn FnMut(Notice<'_>)) -> usize;
    /// Commands that wait because a ring was full.
    fn backlog(&self) -> usize;
    /// A worker's counters.
    fn counters(&self, worker: usize) -> Option<&Counters>;
    /// Has all workers tell what becomes of packets that pass a filter, or stop doing so. Bursts have `burst` packets at most.
    fn trace(&mut self, filter: Option<Filter>, burst: usize);
    /// Hands up to `limit` records of each worker to `sink`; how many there were.
    fn traced(&mut self, limit: usize, sink: &mut dyn FnMut(&Record)) -> usize;
    /// How full the rings between control and a worker are.
    fn rings(&self, worker: usize) -> Option<Rings>;
}

/// How full the rings between control and a worker are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rings {
    /// Commands in their ring.
    pub commands: usize,
    /// Room for commands.
    pub commands_max: usize,
    /// Commands that wait because that was full.
    pub waiting: usize,
    /// Events in their ring.
    pub events: usize,
    /// Room for events.
    pub events_max: usize,
}

/// Makes the rings between control and `workers` workers.
pub fn connect<F: Frame>(
    workers: usize,
    sizes: RingSizes,
    pool: Box<dyn Pool<F>>,
) -> (ControlLink<F>, Vec<WorkerLink<F>>) {
    let (to, from) = mesh(workers, sizes.handover);
    let (words_to, words_from) = mesh(workers, sizes.words);
    let mut ends = Vec::with_capacity(workers);
    let mut links = Vec::with_capacity(workers);
    let packets = to.into_iter().zip(from);
    for ((to_workers, from_workers), (words_to, words_from)) in packets.zip(words_to.into_iter().zip(words_from)) {
        let (orders, commands) = RingBuffer::new(sizes.commands);
        let (events, news) = RingBuffer::new(sizes.events);
        let counters = Arc::new(Counters::default());
        ends.push(WorkerEnd {
            commands: orders,
            events: news,
            backlog: VecDeque::new(),
            counters: counters.clone(),
            records: None,
        });
        links.push(WorkerLink { commands, events, to_workers, from_workers, words_to, words_from, counters });
    }
    (ControlLink { workers: ends, pool }, links)
}

/// Ends of rings, by the worker that has them and the one at the other end.
type Ends<T> = Vec<Vec<T>>;

/// A ring from each worker to each: where words go in, and where they come out.
fn mesh<T>(workers: usize, size: usize) -> (Ends<Producer<T>>, Ends<Consumer<T>>) {
    let mut to: Ends<_> = (0..workers).map(|_| Vec::with_capacity(workers)).collect();
    let mut from: Ends<_> = (0..workers).map(|_| Vec::with_capacity(workers)).collect();
    // They come into being in order of their senders, so each list is in that order too.
    for to in &mut to {
        for from in &mut from {
            let (producer, consumer) = RingBuffer::new(size);
            to.push(producer);
            from.push(consumer);
        }
    }
    (to, from)
}

impl<F> WorkerEnd<F> {
    /// Keeps order: nothing overtakes what already waits.
    fn send(&mut self, command: Command<F>) {
        self.flush();
        if !self.backlog.is_empty() {
            self.backlog.push_back(command);
        } else if let Err(PushError::Full(command)) = self.commands.push(command) {
            self.backlog.push_back(command);
        }
    }

    fn flush(&mut self) {
        while let Some(command) = self.backlog.pop_front() {
            if let Err(PushError::Full(command)) = self.commands.push(command) {
                self.backlog.push_front(command);
                return;
            }
        }
    }
}

impl<F: Frame> ControlLink<F> {
    fn send(&mut self, worker: usize, command: Command<F>) {
        if let Some(end) = self.workers.get_mut(worker) {
            end.send(command);
        }
    }

    fn send_packet(&mut self, worker: usize, port: PortId, frame: &[u8], command: fn(PortId, F) -> Command<F>) -> bool {
        let Some(packet) = self.pool.allocate(frame) else { return false };
        // The backlog's bound keeps a stalled worker from eating the pool.
        match self.workers.get_mut(worker) {
            Some(end) if end.backlog.len() < 1024 => {
                end.send(command(port, packet));
                true
            }
            _ => false,
        }
    }
}

impl<F: Frame> Workers for ControlLink<F> {
    fn count(&self) -> usize {
        self.workers.len()
    }

    fn install(&mut self, worker: usize, install: Install) {
        self.send(worker, Command::Install(install));
    }

    fn remove(&mut self, worker: usize, tag: ContextTag) {
        self.send(worker, Command::Remove(tag));
    }

    fn lose(&mut self, loss: Loss, lost: bool) {
        for end in &mut self.workers {
            end.send(Command::Lost(loss, lost));
        }
    }

    fn replay(&mut self, worker: usize, tag: ContextTag) {
        self.send(worker, Command::Replay(tag));
    }

    fn refuse(&mut self, worker: usize, pair: UlidPair) {
        self.send(worker, Command::Refuse(pair));
    }

    fn transmit(&mut self, port: PortId, frame: &[u8]) -> bool {
        // Packets of one flow of control's keep their order by going through one worker.
        self.transmit_by(usize::from(port.0) % self.workers.len().max(1), port, frame)
    }

    fn transmit_by(&mut self, worker: usize, port: PortId, frame: &[u8]) -> bool {
        self.send_packet(worker, port, frame, Command::Transmit)
    }

    fn plain(&mut self, port: PortId, frame: &[u8]) -> bool {
        self.send_packet(usize::from(port.0) % self.workers.len().max(1), port, frame, Command::Plain)
    }

    fn publish(&mut self, snapshot: &Arc<Snapshot>) {
        for end in &mut self.workers {
            end.send(Command::Snapshot(snapshot.clone()));
        }
    }

    fn poll(&mut self, limit: usize, sink: &mut dyn FnMut(Notice<'_>)) -> usize {
        let mut seen = 0;
        for end in &mut self.workers {
            end.flush();
            for _ in 0..limit {
                let Ok(event) = end.events.pop() else { break };
                seen += 1;
                match event {
                    Event::UnknownPair(pair) => sink(Notice::UnknownPair(pair)),
                    Event::UnknownTag { tag, locators, udp } => sink(Notice::UnknownTag { tag, locators, udp }),
                    Event::Punt(port, why, frame) => sink(Notice::Punt(port, why, frame.bytes())),
                    Event::Unresolved(port, next_hop, frame) => sink(Notice::Unresolved(port, next_hop, frame.bytes())),
                    Event::Activity { handle, activity, traffic } => {
                        sink(Notice::Activity { handle, activity, traffic })
                    }
                    Event::Tcp { handle, sign, pair } => sink(Notice::Tcp { handle, sign, pair }),
                    Event::TableFull { handle } => sink(Notice::TableFull { handle }),
                    Event::Qualified { pair, presented, provider } => {
                        sink(Notice::Qualified { pair, presented, provider });
                    }
                    Event::Fork(wish) => sink(Notice::Fork(wish)),
                    Event::Retired(retired) => drop(retired),
                }
            }
        }
        seen
    }

    fn backlog(&self) -> usize {
        self.workers.iter().map(|end| end.backlog.len()).sum()
    }

    fn counters(&self, worker: usize) -> Option<&Counters> {
        self.workers.get(worker).map(|end| &*end.counters)
    }

    fn trace(&mut self, filter: Option<Filter>, burst: usize) {
        for end in &mut self.workers {
            let (tracer, records) = filter.map(|filter| Tracer::new(filter, burst)).unzip();
            end.records = records;
            end.send(Command::Trace(tracer.map(Box::new)));
        }
    }

    fn traced(&mut self, limit: usize, sink: &mut dyn FnMut(&Record)) -> usize {
        let mut seen = 0;
        for records in self.workers.iter_mut().filter_map(|end| end.records.as_mut()) {
            for _ in 0..limit {
                let Ok(record) = records.pop() else { break };
                sink(&record);
                seen += 1;
            }
        }
        seen
    }

    fn rings(&self, worker: usize) -> Option<Rings> {
        let rings = |end: &WorkerEnd<F>| {
            let commands_max = end.commands.buffer().capacity();
            Rings {
                commands: commands_max - end.commands.slots().min(commands_max),
                commands_max,
                waiting: end.backlog.len(),
                events: end.events.slots(),
                events_max: end.events.buffer().capacity(),
            }
        };
        self.workers.get(worker).map(rings)
    }
}
