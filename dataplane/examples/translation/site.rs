//! A site with many contexts and prepared packets for them, and the real code that translates them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataplane::context::{Flows, Install, LabelMode, Replay, Shard, Sharding};
use dataplane::counters::{Count, Counters};
use dataplane::link::{ControlLink, RingSizes, Workers, connect};
use dataplane::port::memory::{HeapFrame, HeapPool};
use dataplane::port::{Frame, Port};
use dataplane::snapshot::Snapshot;
use dataplane::translate::{BURST, Batch, Origin, Scene, Verdict, inbound, outbound};
use dataplane::wire::FlowLabel;
use dataplane::wire::shim6::PayloadHeader;
use dataplane::worker::{Limits, Outlet, Worker};

use super::{Direction, Kind, STRANGER, Subject};

/// What follows from the number of a context is the same as where packets go through devices.
#[path = "../../../perf/gen/src/site.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "several workers and a context's parts are for the programs it comes from"
)]
mod numbered;

use numbered::{BOX_MAC, OTHER_MAC, PROVIDER, SITE, Site};

/// A packet from the site: Ethernet, IPv6, and ten octets that say UDP.
pub(super) const PLAIN: usize = 64;

/// One worker owns all.
fn site(contexts: u32) -> Site {
    Site::new(contexts, 1)
}

/// Our flow label and the peer's: 20 bits that look random, a permutation of all but zero.
fn label(context: u32) -> Option<FlowLabel> {
    FlowLabel::truncate((context + 1).wrapping_mul(0x9_e375))
}

fn install(site: &Site, context: u32, by_label: bool) -> Install {
    let label = label(context).filter(|_| by_label);
    Install { local_label: label, peer_label: label, ..site.install(context) }
}

fn snapshot(site: &Site) -> Snapshot {
    let mut snapshot = site.snapshot();
    snapshot.ports.iter_mut().for_each(|port| port.mtu = 1500);
    snapshot
}

/// Packets of a lap. They are written anew before each, and keep their buffers.
pub(super) struct Frames {
    pub(super) all: Vec<HeapFrame>,
    chosen: Vec<u32>,
}

impl Frames {
    pub(super) fn new(bursts: usize) -> Frames {
        let all: Vec<_> = (0..bursts * BURST).map(|_| HeapFrame::new(&[0; PLAIN])).collect();
        Frames { chosen: vec![0; all.len()], all }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Chooses a context for each.
    pub(super) fn choose(&mut self, mut choose: impl FnMut() -> u32) {
        self.chosen.fill_with(&mut choose);
    }

    /// Makes each a packet of the context chosen for it; strangers' have numbers beyond the `contexts` there are.
    pub(super) fn prepare(&mut self, direction: Direction, kind: Kind, contexts: u32) {
        let (site, by_label) = (site(contexts), kind == Kind::Labelled);
        for (at, (frame, &context)) in self.all.iter_mut().zip(&self.chosen).enumerate() {
            let context = if kind == Kind::Strange && at % STRANGER == 0 { context + contexts } else { context };
            let (ulids, locators) = (site.ulids(context), site.locators(context));
            let (source, target, shim) = match direction {
                Direction::Egress => (ulids.local.0, ulids.peer.0, None),
                Direction::Ingress => {
                    (locators.peer.0, locators.local.0, Some(site.tag(context)).filter(|_| !by_label))
                }
            };
            let label = label(context).filter(|_| by_label && direction == Direction::Ingress);
            let header = shim.map(|tag| PayloadHeader { next_header: 17, tag }.emit());
            let room = header.map_or(0, |header| header.len());
            resize(frame, PLAIN + room);
            let octets = frame.bytes_mut();
            octets[..6].copy_from_slice(&BOX_MAC.0);
            octets[6..12].copy_from_slice(&OTHER_MAC.0);
            octets[12..14].copy_from_slice(&[0x86, 0xdd]);
            let first = 0x6000_0000 | label.map_or(0, FlowLabel::value);
            octets[14..18].copy_from_slice(&first.to_be_bytes());
            octets[18..20].copy_from_slice(&[0, 10 + room as u8]);
            octets[20..22].copy_from_slice(&[if room == 0 { 17 } else { 140 }, 64]);
            octets[22..38].copy_from_slice(&source.octets());
            octets[38..54].copy_from_slice(&target.octets());
            if let Some(header) = header {
                octets[54..62].copy_from_slice(&header);
            }
            octets[54 + room..].copy_from_slice(b"\x04\0\x04\0\0\x0a\0\0ok");
        }
    }
}

fn resize(frame: &mut HeapFrame, length: usize) {
    let now = frame.bytes().len();
    match length.checked_sub(now) {
        Some(more) => assert!(frame.prepend(more), "a buffer has no room in front"),
        None => frame.trim_front(now - length),
    }
}

fn counted(direction: Direction, counters: &Counters) -> u64 {
    counters.count(match direction {
        Direction::Egress => Count::TranslatedOut,
        Direction::Ingress => Count::TranslatedIn,
    })
}

/// The stages of `translate` alone: a burst with its verdicts, nothing sent.
pub(super) struct Stages {
    shard: Shard,
    snapshot: Snapshot,
    sharding: Sharding,
    counters: Counters,
    replay: Replay,
    flows: Flows,
    batches: Vec<Batch<HeapFrame>>,
    expected: [u64; 2],
    seen: [u64; 2],
    kind: Kind,
}

impl Stages {
    pub(super) fn new(contexts: u32, kind: Kind) -> Stages {
        let (site, by_label) = (site(contexts), kind == Kind::Labelled);
        let sharding = site.sharding();
        let mode = if by_label { LabelMode::All } else { LabelMode::Off };
        let mut shard = Shard::new(contexts, *sharding.hasher(), false).with_labels(mode);
        for context in 0..contexts {
            shard.install(&install(&site, context, by_label)).expect("the table has room for what it was made for");
        }
        let (snapshot, counters) = (snapshot(&site), Counters::default());
        let replay = Replay::new(Limits::default().replays, 1514);
        let flows = Flows::new(0, *sharding.hasher());
        let (batches, expected, seen) = (Vec::new(), [0; 2], [0; 2]);
        Stages { shard, snapshot, sharding, counters, replay, flows, batches, expected, seen, kind }
    }
}

impl Subject for Stages {
    fn run(&mut self, direction: Direction, frames: &mut Frames) {
        self.batches.resize_with(frames.len() / BURST, Batch::default);
        let Stages { shard, snapshot, sharding, counters, replay, flows, batches, .. } = self;
        let port = if direction == Direction::Egress { SITE } else { PROVIDER };
        let (now, worker, origin) = (0, 0, Origin::Device);
        let mut scene =
            Scene { shard, replay, flows, now, snapshot, sharding, worker, port, origin, handed_by: None, counters };
        for batch in batches {
            // Taking 32 buffers from a list stands for what reception would do.
            let from = frames.all.len() - BURST;
            batch.frames.extend(frames.all.drain(from..));
            match direction {
                Direction::Egress => outbound(batch, &mut scene),
                Direction::Ingress => inbound(batch, &mut scene),
            }
        }
    }

    fn rest(&mut self, direction: Direction, frames: &mut Frames) {
        let mut strangers = 0;
        for batch in &mut self.batches {
            if batch.all_to.is_some() {
                self.expected[direction as usize] += batch.frames.len() as u64;
            }
            let strange = |verdict: &&Verdict| match direction {
                Direction::Egress => matches!(verdict, Verdict::Hold(_)),
                Direction::Ingress => matches!(verdict, Verdict::UnknownTag(..)),
            };
            let sent = batch.verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Forward(_))).count();
            strangers += batch.verdicts.iter().filter(strange).count();
            self.expected[direction as usize] += sent as u64;
            frames.all.append(&mut batch.frames);
            batch.clear();
        }
        let all = frames.all.len();
        assert_eq!(strangers, if self.kind == Kind::Strange { all.div_ceil(STRANGER) } else { 0 });
        self.seen[direction as usize] += (all - strangers) as u64;
        assert_eq!(self.expected, self.seen, "a packet is not sent");
        let (all, labelled) = match direction {
            Direction::Egress => (Count::TranslatedOut, Count::LabelledOut),
            Direction::Ingress => (Count::TranslatedIn, Count::LabelledIn),
        };
        let expected = self.expected[direction as usize];
        assert_eq!(self.counters.count(all), expected);
        assert_eq!(self.counters.count(labelled), if self.kind == Kind::Labelled { expected } else { 0 });
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn tidy(&mut self) {
        // As a worker does every 50 ms.
        self.shard.start_report();
        while self.shard.next_activity().is_some() {}
    }
}

type Tray = Arc<Mutex<Vec<HeapFrame>>>;

fn open(tray: &Tray) -> MutexGuard<'_, Vec<HeapFrame>> {
    tray.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port that gives out prepared packets and keeps what is sent.
struct TrayPort {
    waiting: Tray,
    sent: Tray,
}

impl Port<HeapFrame> for TrayPort {
    fn receive(&mut self, burst: &mut Vec<HeapFrame>) {
        let mut waiting = open(&self.waiting);
        let from = waiting.len().saturating_sub(burst.capacity() - burst.len());
        burst.extend(waiting.drain(from..));
    }

    fn transmit(&mut self, burst: &mut Vec<HeapFrame>) {
        open(&self.sent).append(burst);
    }
}

/// Whole turns of a worker between ports made of lists: with rings, timers, reports and sending.
pub(super) struct Turns {
    worker: Worker<HeapFrame>,
    control: ControlLink<HeapFrame>,
    waiting: [Tray; 2],
    sent: Tray,
    now: u64,
    expected: [u64; 2],
}

impl Turns {
    pub(super) fn new(contexts: u32) -> Turns {
        let (mut control, mut links) = connect(1, RingSizes::default(), Box::new(HeapPool));
        let (waiting, sent) = ([Tray::default(), Tray::default()], Tray::default());
        let port = |tray: &Tray| {
            Outlet::Own(Box::new(TrayPort { waiting: tray.clone(), sent: sent.clone() }) as Box<dyn Port<HeapFrame>>)
        };
        let ports = waiting.iter().map(port).collect();
        let limits = Limits { contexts, ..Limits::default() };
        let link = links.pop().expect("one worker was asked for");
        let (site, pool) = (site(contexts), Box::new(HeapPool));
        let mut worker = Worker::new(0, limits, site.sharding(), Arc::new(snapshot(&site)), ports, link, pool);
        for context in 0..contexts {
            control.install(0, site.install(context));
            if context % 64 == 63 {
                worker.turn(0);
            }
        }
        while worker.shard().len() < contexts as usize {
            control.poll(64, &mut |_| {});
            assert!(worker.turn(0) > 0, "a context did not arrive");
        }
        Turns { worker, control, waiting, sent, now: 0, expected: [0; 2] }
    }
}

impl Subject for Turns {
    fn run(&mut self, direction: Direction, frames: &mut Frames) {
        let waiting = &self.waiting[usize::from(direction == Direction::Ingress)];
        std::mem::swap(&mut *open(waiting), &mut frames.all);
        while self.worker.turn(self.now) > 0 {}
    }

    fn rest(&mut self, direction: Direction, frames: &mut Frames) {
        frames.all.clear();
        std::mem::swap(&mut *open(&self.sent), &mut frames.all);
        self.expected[direction as usize] += frames.len() as u64;
        assert_eq!(counted(direction, self.worker.counters()), self.expected[direction as usize]);
        while self.control.poll(4096, &mut |_| {}) > 0 {}
    }

    fn tidy(&mut self) {
        self.now += 1;
    }
}
