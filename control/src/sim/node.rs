//! A box: an engine and its workers on ports in memory, and what the driver would do for them.

mod orders;
mod timed;

use std::cell::Cell;
use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::context::Sharding;
use dataplane::counters::{Count, DropReason};
use dataplane::link::{ControlLink, RingSizes, Workers, connect};
use dataplane::port::memory::{HeapFrame, HeapPool, MemoryPort, Wire};
use dataplane::snapshot::PortId;
use dataplane::wire::ethernet::{self, Mac};
use dataplane::wire::{ContextTag, LocatorPair, Ulid, UlidPair};
use dataplane::worker::{Limits, Outlet, Worker};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::group::Group;
use super::taped::{Recording, Taped, inputs};
use super::{HOLDING, REPORT, packet};
use crate::config::uplink::resolve;
use crate::config::{Hosts, Site};
use crate::engine::{Effect, Engine, Item, Keys, PortSetup, Story, worker_limits};
use crate::manage::api::{ContextFilter, ContextView};
use crate::shim6::{ProofJob, State};
use crate::sync::{Broken, FromTeller, Partner};
use crate::time::Instant;

/// Rounds of engine and workers at one moment before the box counts as restless.
const ROUNDS_MAX: u32 = 10_000;
/// How much a box tells the one that takes its place each time it is looked at: little, so that much changes meanwhile.
const ITEMS_PER_TURN: usize = 2;
/// Frames that wait in the devices of a box that does nothing.
const DEVICE_ROOM: usize = 512;
/// What a small box would need, so that worlds begin quickly.
const RINGS: RingSizes = RingSizes { commands: 512, events: 512, handover: 256, words: 64 };

/// What a box is made of, and made of again after a crash.
#[derive(Clone)]
pub(super) struct Blueprint {
    pub(super) site: Site,
    pub(super) hosts: Hosts,
    /// Link-layer addresses of the ports.
    pub(super) macs: Vec<Mac>,
    /// How long somebody takes at most to verify a signature; zero if the engine does.
    pub(super) proofs_take: Duration,
    /// Whether what its engine is told is written down.
    pub(super) recorded: bool,
}

/// A box of the world.
pub struct Node {
    /// Everything it decides.
    pub engine: Engine,
    /// Control's end of the rings.
    pub control: ControlLink<HeapFrame>,
    /// Its workers.
    pub workers: Vec<Worker<HeapFrame>>,
    /// Frames given to the operating system that shares its ports.
    pub shown: Vec<(PortId, Vec<u8>)>,
    blueprint: Blueprint,
    /// By worker, then port.
    wires: Vec<Vec<Wire>>,
    /// What is being verified, and when that is done.
    proofs: Vec<(Instant, ProofJob)>,
    rng: StdRng,
    effects: Vec<Effect>,
    /// Standbys its workers were told of, and whose they are.
    standbys: Vec<(Ipv6Addr, LocatorPair)>,
    /// How far its clock is ahead of the world's.
    ahead: Duration,
    /// It does nothing until then.
    paused: Option<Instant>,
    /// Since when.
    slept: Instant,
    /// Frames that came while it was paused.
    waiting: Cell<usize>,
    /// When it is looked at again, whatever happens.
    tick: Option<Instant>,
    /// Its workers did something when it was last looked at, and when that was.
    worked: bool,
    looked: Instant,
    /// Packets sent to hosts, without those of neighbour discovery.
    delivered: u64,
    /// Pairs for which one of its workers may hold packets.
    hold_pairs: usize,
    /// Its configuration with what was found out of providers.
    effective: Option<(Site, Hosts)>,
    /// Who will take its place.
    heir: Option<Box<Node>>,
    /// What its engine is told, and what those were told that had its place before.
    taped: Option<Box<Taped>>,
    recordings: Vec<Recording>,
    timed: timed::Timed,
    /// The other boxes of its site.
    pub(super) group: Option<Box<Group>>,
}

/// A context as far as nobody may change it who has no right to.
pub(super) type Essence = (UlidPair, u32, State, ContextTag, Option<ContextTag>, LocatorPair, Vec<Ipv6Addr>);

impl Node {
    pub(super) fn new(blueprint: Blueprint, seed: u64) -> Node {
        let mut rng = StdRng::seed_from_u64(seed);
        let keys = Keys::draw(&mut rng);
        let mut node = Node::unstarted(blueprint, keys, rng);
        let Node { engine, rng, effects, taped, .. } = &mut node;
        inputs(engine, rng, taped).start(Instant::START, effects);
        node
    }

    /// A box that has not begun yet.
    fn unstarted(blueprint: Blueprint, keys: Keys, mut rng: StdRng) -> Node {
        let Blueprint { site, hosts, macs, proofs_take, recorded } = &blueprint;
        let setups: Vec<PortSetup> = macs.iter().map(|mac| PortSetup { mac: *mac, mtu: 1500 }).collect();
        let known = resolve(site, hosts, &[]);
        let taped = recorded.then(|| Taped::begin(&keys, &setups, (site, hosts), &mut rng));
        let mut engine =
            Engine::with_keys(&known.0, &known.1, &setups, keys, &mut rng).expect("a plan the engine takes");
        let mut taped = taped.map(|(mut taped, beginning)| {
            taped.begun(&beginning, &mut engine);
            Box::new(taped)
        });
        if !proofs_take.is_zero() {
            inputs(&mut engine, &mut rng, &mut taped).defer_proofs(Instant::START);
        }
        let count = usize::from(site.node.workers);
        let (control, links) = connect(count, RINGS, Box::new(HeapPool));
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
        let effects = Vec::new();
        let (ahead, paused, slept, waiting, tick) = (Duration::ZERO, None, Instant::START, Cell::new(0), None);
        let (worked, looked, delivered) = (false, Instant::START, 0);
        Node {
            engine,
            control,
            workers,
            shown: Vec::new(),
            blueprint,
            wires,
            proofs: Vec::new(),
            rng,
            effects,
            standbys: Vec::new(),
            ahead,
            paused,
            slept,
            waiting,
            tick,
            worked,
            looked,
            delivered,
            hold_pairs: limits.hold_pairs,
            effective: None,
            heir: None,
            taped,
            recordings: Vec::new(),
            timed: timed::Timed::default(),
            group: None,
        }
    }

    /// A box with another number and the same hosts, which begins now.
    pub(super) fn sibling(&self, number: u8, seed: u64) -> Node {
        let mut blueprint = self.blueprint.clone();
        blueprint.site.node.id = number;
        let mut rng = StdRng::seed_from_u64(seed);
        let keys = Keys { sharding: self.engine.keys().sharding, ..Keys::draw(&mut rng) };
        let mut node = Node::unstarted(blueprint, keys, rng);
        node.ahead = self.ahead;
        let Node { engine, rng, effects, taped, ahead, .. } = &mut node;
        inputs(engine, rng, taped).start(Instant::START + *ahead, effects);
        node
    }

    /// The second box takes the place of this one.
    pub(super) fn replaced_by(&mut self, other: Node) {
        let kept = (std::mem::take(&mut self.standbys), self.delivered);
        *self = other;
        self.standbys.extend(kept.0);
        self.delivered += kept.1;
    }

    /// Somebody else than the world has its engine do something.
    #[cfg(test)]
    pub(crate) fn act<T>(
        &mut self,
        now: Instant,
        act: impl FnOnce(Instant, &mut StdRng, &mut Engine, &mut Vec<Effect>) -> T,
    ) -> T {
        let now = self.time(now);
        let Node { engine, rng, effects, .. } = self;
        let done = act(now, rng, engine, effects);
        self.carry_out(&mut Vec::new());
        done
    }

    /// What its clock says at a time.
    pub(super) fn time(&self, now: Instant) -> Instant {
        now + self.ahead
    }

    /// Another box tells it something.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        partner: &mut Partner,
        said: FromTeller,
    ) -> Result<Option<u64>, Broken> {
        let now = self.time(now);
        let Node { engine, rng, effects, .. } = self;
        let heard = partner.told(now, rng, engine, said, effects);
        self.carry_out(&mut Vec::new());
        heard
    }

    /// A new process comes that will take the place of this one, which goes on meanwhile.
    pub(super) fn begin_succession(&mut self, seed: u64, (site, hosts): (Site, Hosts)) {
        let blueprint = Blueprint { site, hosts, ..self.blueprint.clone() };
        let heir = Node::unstarted(blueprint, self.engine.keys().clone(), StdRng::seed_from_u64(seed));
        inputs(&mut self.engine, &mut self.rng, &mut self.taped).begin_bequest(Instant::START);
        self.heir = Some(Box::new(heir));
    }

    /// Whether there is such a process.
    pub(super) fn has_heir(&self) -> bool {
        self.heir.is_some()
    }

    /// Tells the new process some of what it has to know, as it would travel.
    fn bequeath(&mut self, now: Instant, most: usize) {
        let Some(heir) = &mut self.heir else { return };
        let mut items = Vec::new();
        inputs(&mut self.engine, &mut self.rng, &mut self.taped).bequeath(now, most, &mut items);
        let octets = postcard::to_stdvec(&items).expect("items are plain");
        let items: Vec<Item> = postcard::from_bytes(&octets).expect("and come back");
        inputs(&mut heir.engine, &mut heir.rng, &mut heir.taped).inherit(now, items, &mut heir.effects);
        heir.carry_out(&mut Vec::new());
    }

    /// The old process stops, tells the rest, and the new one has the ports.
    pub(super) fn end_succession(&mut self, now: Instant) {
        let now = now + self.ahead;
        self.bequeath(now, usize::MAX);
        let Some(mut heir) = self.heir.take() else { return };
        let millis = now.0.as_millis() as u64;
        while heir.workers.iter_mut().map(|worker| worker.turn(millis)).sum::<usize>() > 0 || heir.control.backlog() > 0
        {
            heir.control.poll(0, &mut |_| ());
        }
        let Node { engine, rng, effects, taped, .. } = &mut *heir;
        let mut told = inputs(engine, rng, taped);
        told.start(now, effects);
        told.end_inheritance(now, effects);
        // The machine's clock is the same for both.
        heir.ahead = self.ahead;
        let kept = (std::mem::take(&mut self.standbys), self.delivered);
        // What the configuration says by now; it may have been reloaded since.
        let configured = (self.blueprint.site.clone(), self.blueprint.hosts.clone());
        let workers = heir.blueprint.site.node.workers;
        heir.recordings = self.recordings(now);
        *self = *heir;
        self.blueprint.site = configured.0;
        self.blueprint.site.node.workers = workers;
        self.blueprint.hosts = configured.1;
        (self.standbys, self.delivered) = kept;
    }

    /// Turns after which everything that is due at one moment has been done.
    pub(super) fn turns_until_still(&self) -> usize {
        let holds = self.all().flat_map(|node| &node.workers).any(|worker| worker.held() > 0);
        if holds { 1 + self.hold_pairs } else { 1 }
    }

    /// The same box after a crash. Its clock goes on, as that of its machine would.
    pub(super) fn reborn(&mut self, now: Instant, seed: u64) -> Node {
        let recordings = self.recordings(now + self.ahead);
        Node { ahead: self.ahead, recordings, ..Node::new(self.blueprint.clone(), seed) }
    }

    /// [`Node::recordings`] at a time of the world's.
    pub(super) fn recordings_until(&mut self, now: Instant) -> Vec<Recording> {
        self.recordings(now + self.ahead)
    }

    /// What its engine was told so far, and before it those that had its place.
    pub(super) fn recordings(&mut self, now: Instant) -> Vec<Recording> {
        let last = self.taped.as_mut().map(|taped| taped.recording(&self.engine, now));
        self.recordings.iter().cloned().chain(last).collect()
    }

    /// When the engine has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let proved = self.proofs.iter().map(|(at, _)| *at).min();
        let at = self.engine.deadline().into_iter().chain(proved).min().map(|at| at - self.ahead);
        let at = at.map(|at| self.paused.map_or(at, |until| until.max(at)));
        let others = self.group.as_ref().and_then(|group| group.due(self).into_iter().chain(self.paused).min());
        at.into_iter().chain(others).min()
    }

    /// Does nothing until a time.
    pub(super) fn pause(&mut self, now: Instant, until: Instant) {
        self.slept = self.paused.map_or(now, |_| self.slept);
        self.paused = Some(self.paused.map_or(until, |before| before.max(until)));
        // The others of its site do not sleep.
        if self.group.is_none() {
            self.tick = self.paused;
        }
    }

    /// Since when it does nothing, if it does.
    pub(super) fn sleeps_since(&self) -> Option<Instant> {
        self.paused.map(|_| self.slept)
    }

    /// When it goes on, if it does nothing.
    pub(super) fn wakes(&self) -> Option<Instant> {
        self.paused
    }

    /// Goes on if it did nothing.
    pub(super) fn resume(&mut self) {
        (self.paused, self.tick) = (None, None);
        self.group.iter_mut().flat_map(|group| &mut group.others).for_each(Node::resume);
    }

    /// Whether it does nothing now.
    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.paused.is_some_and(|until| now < until)
    }

    /// Its clock jumps forward.
    pub(super) fn step(&mut self, time: Duration) {
        self.ahead += time;
        self.tick = None;
    }

    /// Whether a look that was put down for now is still wanted.
    pub(super) fn is_time(&mut self, now: Instant) -> bool {
        let wanted = self.tick.is_none_or(|tick| tick <= now);
        if wanted {
            self.tick = None;
        }
        wanted && (self.group.is_some() || !self.is_paused(now))
    }

    /// When to look again because the workers have something to report or to let go, if that is news.
    pub(super) fn look_again(&mut self, now: Instant) -> Option<Instant> {
        let busy = |node: &Node| node.workers.iter().any(|worker| worker.held() > 0);
        let (holding, worked) = (self.all().any(busy), self.all().any(|node| node.worked));
        let wait = if holding { HOLDING } else { REPORT };
        let at = (holding || worked).then_some(now + wait)?;
        let news = self.tick.is_none_or(|tick| at < tick);
        if news {
            self.tick = Some(at);
        }
        news.then_some(at)
    }

    /// A frame arrives; the device puts all frames of a flow into one worker's queue. While the box does nothing there is
    /// room for only so many.
    pub(super) fn receive(&self, port: usize, frame: &[u8], now: Instant) {
        if packet::is_discovery(frame) {
            return self.all().for_each(|node| node.take(port, frame, now));
        }
        self.whose(port, frame, now).into_iter().for_each(|node| node.take(port, frame, now));
    }

    fn take(&self, port: usize, frame: &[u8], now: Instant) {
        if self.is_paused(now) {
            if self.waiting.get() >= DEVICE_ROOM {
                return;
            }
            self.waiting.set(self.waiting.get() + 1);
        }
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
        let mut sent = self.work(now, stories);
        while let Some(mut group) = self.group.take() {
            sent.extend(group.turn(now, stories));
            let done = group.exchange(self, now);
            self.group = Some(group);
            if done == 0 {
                break;
            }
            sent.extend(self.work(now, stories));
        }
        sent
    }

    /// What this box does now.
    pub(super) fn work(&mut self, now: Instant, stories: &mut Vec<Story>) -> Vec<(usize, Vec<u8>)> {
        let mut sent = Vec::new();
        if self.is_paused(now) {
            return sent;
        }
        self.waiting.set(0);
        (self.paused, self.worked) = (None, self.worked && self.looked == now);
        self.looked = now;
        let now = now + self.ahead;
        self.bequeath(now, ITEMS_PER_TURN);
        let millis = now.0.as_millis() as u64;
        for _ in 0..ROUNDS_MAX {
            let mut work: usize = self.workers.iter_mut().map(|worker| worker.turn(millis)).sum();
            let began = self.timed.begin();
            let Node { engine, control, rng, effects, taped, .. } = self;
            let mut told = inputs(engine, rng, taped);
            work += control.poll(256, &mut |notice| told.notice(now, notice, effects));
            if told.deadline().is_some_and(|due| due <= now) {
                told.expire(now, effects);
            }
            work += self.prove(now);
            work += self.carry_out(stories);
            self.timed.end(began);
            for wires in &self.wires {
                for (port, wire) in wires.iter().enumerate() {
                    sent.extend(std::iter::from_fn(|| wire.receive()).map(|frame| (port, frame)));
                }
            }
            if work == 0 {
                let on_lan = |(port, frame): &&(usize, Vec<u8>)| *port == 0 && !packet::is_discovery(frame);
                self.delivered += sent.iter().filter(on_lan).count() as u64;
                return sent;
            }
            self.worked = true;
        }
        panic!("the box never comes to rest at {now:?}");
    }

    /// Somebody verifies what the engine wants verified, and takes his time.
    fn prove(&mut self, now: Instant) -> usize {
        let Node { engine, rng, effects, proofs, blueprint, taped, .. } = self;
        let done: Vec<ProofJob> = proofs.extract_if(.., |(at, _)| *at <= now).map(|(_, job)| job).collect();
        for job in &done {
            inputs(engine, rng, taped).proved(now, job.run(), effects);
        }
        while let Some(job) = inputs(engine, rng, taped).next_proof(now) {
            let drawn = taped.as_mut().map_or_else(|| rng.next_u32(), |taped| taped.others.next_u32());
            let share = f64::from(drawn) / f64::from(u32::MAX);
            proofs.push((now + blueprint.proofs_take.mul_f64(share), job));
        }
        done.len()
    }

    fn carry_out(&mut self, stories: &mut Vec<Story>) -> usize {
        let done = self.effects.len();
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Lose(loss, lost) => self.control.lose(loss, lost),
                Effect::Install(worker, install) => {
                    let standby = install.standby.as_ref().map(|standby| standby.locators);
                    self.standbys.extend(standby.map(|pair| (install.ulids.local.0, pair)));
                    self.control.install(worker, install);
                }
                Effect::Remove(worker, tag) => self.control.remove(worker, tag),
                Effect::Replay(worker, tag) => self.control.replay(worker, tag),
                Effect::Refuse(worker, pair) => self.control.refuse(worker, pair),
                Effect::Transmit(port, frame) => _ = self.control.transmit(port, &frame),
                Effect::TransmitBy(worker, port, frame) => _ = self.control.transmit_by(worker, port, &frame),
                Effect::System(port, frame) => self.shown.push((port, frame)),
                Effect::Plain(port, frame) => _ = self.control.plain(port, &frame),
                Effect::Publish(snapshot) => self.control.publish(&snapshot),
                Effect::Story(story) => stories.push(story),
            }
        }
        done
    }

    /// Standbys its workers were told of since this was last asked, and whose they are.
    pub(super) fn told_standbys(&mut self) -> Vec<(Ipv6Addr, LocatorPair)> {
        let mut told = std::mem::take(&mut self.standbys);
        let others = self.group.iter_mut().flat_map(|group| &mut group.others);
        others.for_each(|other| told.append(&mut other.standbys));
        told
    }

    /// Its contexts, as far as nobody may change them who has no right to; in order.
    pub(super) fn essence(&self) -> Vec<Essence> {
        let contexts = self.all().flat_map(|node| node.engine.contexts());
        let mut all: Vec<Essence> = contexts
            .map(|it| {
                let peers = it.peer_locators.iter().filter(|known| known.verified).map(|known| known.locator.0);
                (it.ulids, it.fork, it.state, it.local_tag, it.peer_tag, it.pair, peers.collect())
            })
            .collect();
        all.sort_by_key(|(ulids, fork, ..)| (ulids.local.0, ulids.peer.0, *fork));
        all
    }

    /// Packets sent to hosts so far.
    pub(super) fn delivered(&self) -> u64 {
        self.all().map(|node| node.delivered).sum()
    }

    /// All its contexts, as the operator sees them.
    pub fn contexts(&self, now: Instant) -> Vec<ContextView> {
        let mut filter = ContextFilter { limit: Some(u32::MAX), ..ContextFilter::default() };
        let mut all = Vec::new();
        loop {
            let Ok(view) = self.engine.contexts_view(now, &filter) else { return all };
            all.extend(view.contexts);
            if view.next.is_none() {
                return all;
            }
            filter.after = view.next;
        }
    }

    /// Something happens to its engine from outside, as the operating system does it. What follows is carried out when it is
    /// next looked at.
    pub fn tell(&mut self, what: impl FnOnce(&mut Engine, &mut Vec<Effect>)) {
        what(&mut self.engine, &mut self.effects);
        self.worked = true;
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

    /// The configuration of its site.
    pub fn site(&self) -> &Site {
        self.configuration().0
    }

    /// Whether it knows on which machine a host is.
    pub(super) fn knows(&self, ulid: Ipv6Addr) -> bool {
        let snapshot = self.engine.snapshot();
        let at = snapshot.host_index.get(&Ulid(ulid)).and_then(|at| snapshot.hosts.get(*at as usize));
        at.is_some_and(|host| host.mac.is_some())
    }

    /// What it holds on behalf of contexts and of packets under way, table by table.
    pub fn leftovers(&self) -> Vec<(&'static str, usize)> {
        let mut held = self.engine.leftovers();
        held.extend(self.workers.iter().map(|it| ("entries of a worker", it.shard().len())));
        held.extend(self.workers.iter().map(|it| ("pairs with packets held", it.held())));
        held.retain(|(_, count)| *count > 0);
        held
    }

    /// Checks what must always hold of a box at rest.
    ///
    /// # Panics
    /// When an invariant is broken.
    pub fn selfcheck(&self) {
        self.group.iter().flat_map(|group| &group.others).for_each(Node::selfcheck);
        self.workers.iter().for_each(|worker| worker.shard().selfcheck());
        let held: usize = self.workers.iter().map(|worker| worker.shard().len()).sum();
        let known = self.engine.context_counts(Instant::START, 0);
        assert_eq!(held as u64, known.established + known.opening, "workers and engine know the same contexts");
    }
}
