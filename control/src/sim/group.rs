//! Several boxes at a site, which tell each other of their contexts over wires that can fail, and who of them gets a frame.
//!
//! All have the same addresses towards hosts and routers. Either one serves and the others stand by, or the site's routers and its
//! providers' spread what they forward over all of them, as they do over routes of equal cost: by a hash of what tells flows apart,
//! each router by a hash of its own, so that a session's two directions mostly meet different boxes. Neighbour discovery
//! reaches all. A box that dies is found out after [`NOTICED`], and what is sent to it until then is lost; one that begins gets
//! nothing before it is fit.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use dataplane::wire::ipv6::{self, protocol};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::node::Node;
use super::packet;
use crate::engine::{GroupPlan, Story};
use crate::sync::{ALIVE, Common, Frame, FromHearer, FromTeller, Hello, Partner, SILENCE, VERSION, decode};
use crate::time::Instant;

/// How long a message is on the wire.
const WIRE: Duration = Duration::from_micros(300);
/// How long a connection that has broken is not there.
const BROKEN: Duration = Duration::from_millis(200);
/// How long routers go on sending to a box that is dead: three packets of BFD, a tenth of a second apart.
pub const NOTICED: Duration = Duration::from_millis(300);
/// How long a box waits for others before it serves alone.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the boxes of a site are to each other.
#[derive(Clone, Copy, Debug)]
pub struct Boxes {
    /// How many there can be.
    pub of: u8,
    /// Whether they share what comes; otherwise the first one has all of it.
    pub spread: bool,
    /// Whether they tell each other of their contexts.
    pub synced: bool,
}

/// The other boxes of a site, and what is between all of them.
pub(super) struct Group {
    pub(super) boxes: Boxes,
    /// All but the one that has this.
    pub(super) others: Vec<Node>,
    /// What one box tells another, by their numbers.
    lines: BTreeMap<(u8, u8), Line>,
    /// How a box knows another one.
    pub(super) partners: BTreeMap<(u8, u8), Partner>,
    lives: Vec<u64>,
    /// Boxes that are dead, and until when routers do not know.
    pub(super) dead: Vec<(u8, Instant)>,
    /// How much routers have lost that way.
    pub(super) lost: Cell<u64>,
    /// Of a thousand messages so many are lost, and so many come twice.
    pub(super) loss: u32,
    pub(super) doubles: u32,
    pub(super) rng: StdRng,
    /// What routers mix into their hashes: towards providers, and towards hosts.
    salts: [u64; 2],
    /// What others sent although one serves alone, without neighbour discovery.
    pub(super) loud: u64,
}

/// A connection over which one of them tells another one.
#[derive(Default)]
pub(super) struct Line {
    up: bool,
    /// No connection comes to be.
    pub(super) cut: bool,
    /// Not before.
    again: Instant,
    /// When something is said although there is nothing to say.
    alive: Instant,
    /// When both ends were last awake.
    awake: Instant,
    frames: VecDeque<(Instant, Frame)>,
    acks: VecDeque<(Instant, u64)>,
}

/// `box.id`.
pub(super) fn number(node: &Node) -> u8 {
    node.configuration().0.node.id
}

impl Group {
    /// A site whose boxes are to be these; the first is there, and the wires are.
    pub(super) fn new(first: &Node, boxes: Boxes, seed: u64) -> Group {
        assert!(number(first) == 0, "boxes are numbered from the first");
        let mut rng = StdRng::seed_from_u64(seed);
        let lives = (0..boxes.of).map(|_| rng.next_u64()).collect();
        let salts = [rng.next_u64(), rng.next_u64()];
        Group {
            boxes,
            others: Vec::new(),
            lines: BTreeMap::new(),
            partners: BTreeMap::new(),
            lives,
            dead: Vec::new(),
            lost: Cell::new(0),
            loss: 0,
            doubles: 0,
            rng,
            salts,
            loud: 0,
        }
    }

    /// A box is there, or another process of it: it knows the others, and has to be told everything.
    pub(super) fn joins(&mut self, node: &mut Node, now: Instant) {
        let (own, Boxes { of, synced, .. }) = (number(node), self.boxes);
        self.lives[usize::from(own)] = self.rng.next_u64();
        self.dead.retain(|(number, _)| *number != own);
        if !synced {
            return;
        }
        let others = usize::from(of) - 1;
        let plan = GroupPlan { box_id: own, boxes: of.into(), others, patience: PATIENCE, base: 0 };
        node.engine.join_group(node.time(now), plan);
        for other in (0..of).filter(|other| *other != own) {
            self.lines.entry((own, other)).or_default();
            self.lines.entry((other, own)).or_default();
            // The place of a box among the others of another one.
            self.partners.insert((own, other), Partner::new(usize::from(other - u8::from(other > own))));
        }
    }

    pub(super) fn node<'a>(&'a self, first: &'a Node, at: u8) -> Option<&'a Node> {
        std::iter::once(first).chain(&self.others).find(|node| number(node) == at)
    }

    fn end<'a>(&'a mut self, first: &'a mut Node, own: u8, other: u8) -> Option<(&'a mut Node, &'a mut Partner)> {
        let Group { others, partners, .. } = self;
        let node = std::iter::once(first).chain(others).find(|node| number(node) == own)?;
        Some((node, partners.get_mut(&(own, other))?))
    }

    /// Which box gets a frame: its place, the first being 0; none if nobody does.
    pub(super) fn whose(&self, first: &Node, port: usize, frame: &[u8], now: Instant) -> Option<usize> {
        let lost = || {
            self.lost.set(self.lost.get() + 1);
            None
        };
        let dead = self.dead.iter().filter(|(_, until)| now < *until).map(|(number, _)| (*number, None));
        if !self.boxes.spread {
            return if dead.count() == 0 { Some(0) } else { lost() };
        }
        let alive = std::iter::once(first).chain(&self.others).zip(0..);
        let turns = |node: &Node| node.sleeps_since().is_none_or(|since| now < since + NOTICED);
        let fit = alive.filter(|(node, _)| turns(node) && node.engine.is_caught_up(node.time(now)));
        let mut routes: Vec<(u8, Option<usize>)> = fit.map(|(node, at)| (number(node), Some(at))).chain(dead).collect();
        routes.sort_unstable();
        let hash = flow(frame, self.salts[usize::from(port > 0)]);
        let chosen = (!routes.is_empty()).then(|| routes[(hash % routes.len() as u64) as usize].1);
        chosen.flatten().or_else(lost)
    }

    /// When something arrives, or a connection comes to be.
    pub(super) fn due(&self, first: &Node) -> Option<Instant> {
        let nodes = self.others.iter().flat_map(|node| [node.deadline(), node.wakes()]).flatten();
        let lines = self.lines.iter().filter_map(|(ends, line)| {
            let (teller, hearer) = (self.node(first, ends.0)?, self.node(first, ends.1)?);
            if teller.wakes().is_some() || hearer.wakes().is_some() {
                return line.up.then_some(line.awake + SILENCE);
            }
            let (frame, ack) = (line.frames.front().map(|(at, _)| *at), line.acks.front().map(|(at, _)| *at));
            let again = (!line.up && !line.cut).then_some(line.again);
            let alive = line.up.then_some(line.alive);
            [frame, ack, again, alive].into_iter().flatten().min()
        });
        lines.chain(nodes).min()
    }

    /// What the others do now. The frames that left, with their ports.
    pub(super) fn turn(&mut self, now: Instant, stories: &mut Vec<Story>) -> Vec<(usize, Vec<u8>)> {
        let sent: Vec<(usize, Vec<u8>)> = self.others.iter_mut().flat_map(|node| node.work(now, stories)).collect();
        if !self.boxes.spread {
            self.loud += sent.iter().filter(|(_, frame)| !packet::is_discovery(frame)).count() as u64;
        }
        sent
    }

    /// What goes between them now. How much that was.
    pub(super) fn exchange(&mut self, first: &mut Node, now: Instant) -> usize {
        let ends: Vec<(u8, u8)> = self.lines.keys().copied().collect();
        ends.into_iter().map(|(teller, hearer)| self.carry(first, now, teller, hearer)).sum()
    }

    /// One direction between two of them.
    fn carry(&mut self, first: &mut Node, now: Instant, teller: u8, hearer: u8) -> usize {
        let mut done = 0;
        let ends = [teller, hearer].map(|end| self.node(first, end).map(|node| node.is_paused(now)));
        let [Some(teller_sleeps), Some(hearer_sleeps)] = ends else { return 0 };
        let Some(line) = self.lines.get_mut(&(teller, hearer)) else { return 0 };
        if teller_sleeps || hearer_sleeps {
            if line.up && now >= line.awake + SILENCE {
                self.close(first, teller, hearer, now);
                return 1;
            }
            // What is said to somebody who sleeps waits for him.
            return if line.up && !teller_sleeps { self.tell(first, now, teller, hearer) } else { 0 };
        }
        line.awake = now;
        if !line.up {
            if line.cut || line.again > now {
                return 0;
            }
            line.up = true;
            self.connect(first, now, teller, hearer);
            done += 1;
        }
        while let Some(number) = self.due_ack(now, teller, hearer) {
            if let Some((node, partner)) = self.end(first, teller, hearer) {
                partner.answered(&mut node.engine, FromHearer::Ack(number));
            }
            done += 1;
        }
        while let Some(frame) = self.due_frame(now, teller, hearer) {
            done += 1;
            let said: FromTeller = decode(&frame[4..]).expect("what was encoded");
            let Some((node, partner)) = self.end(first, hearer, teller) else { return done };
            match node.hear(now, partner, said) {
                Ok(Some(number)) => self.line(teller, hearer).acks.push_back((now + WIRE, number)),
                Ok(None) => {}
                Err(_) => {
                    self.close(first, teller, hearer, now + BROKEN);
                    return done;
                }
            }
        }
        done + self.tell(first, now, teller, hearer)
    }

    pub(super) fn line(&mut self, teller: u8, hearer: u8) -> &mut Line {
        self.lines.entry((teller, hearer)).or_default()
    }

    fn due_ack(&mut self, now: Instant, teller: u8, hearer: u8) -> Option<u64> {
        self.line(teller, hearer).acks.pop_front_if(|(at, _)| *at <= now).map(|(_, number)| number)
    }

    fn due_frame(&mut self, now: Instant, teller: u8, hearer: u8) -> Option<Frame> {
        self.line(teller, hearer).frames.pop_front_if(|(at, _)| *at <= now).map(|(_, frame)| frame)
    }

    /// What one of them has to say goes on its way.
    fn tell(&mut self, first: &mut Node, now: Instant, teller: u8, hearer: u8) -> usize {
        let mut frames: Vec<Frame> = Vec::new();
        let Some((node, partner)) = self.end(first, teller, hearer) else { return 0 };
        partner.tell(node.time(now), &mut node.engine, 4, &mut |frame| {
            frames.push(frame);
            Ok(())
        });
        let alive = if frames.is_empty() { partner.alive() } else { None };
        if self.line(teller, hearer).alive <= now {
            self.line(teller, hearer).alive = now + ALIVE;
            frames.extend(alive);
        }
        let done = frames.len();
        for frame in frames {
            let chance = self.rng.next_u32() % 1000;
            let copies = if chance < self.loss { 0 } else { 1 + usize::from(chance < self.loss + self.doubles) };
            let line = self.line(teller, hearer);
            line.frames.extend((0..copies).map(|_| (now + WIRE, frame.clone())));
        }
        done
    }

    fn connect(&mut self, first: &mut Node, now: Instant, teller: u8, hearer: u8) {
        let [Some(ours), Some(theirs)] =
            [(teller, hearer), (hearer, teller)].map(|(own, _)| self.hello(first, now, own))
        else {
            return;
        };
        let Some((node, partner)) = self.end(first, hearer, teller) else { return };
        let time = node.time(now);
        let (answer, _) = partner.greeted(time, &mut node.engine, &ours, &theirs);
        let Some((node, partner)) = self.end(first, teller, hearer) else { return };
        assert!(partner.answered(&mut node.engine, answer), "{:?}", partner.refused());
    }

    fn hello(&mut self, first: &mut Node, now: Instant, own: u8) -> Option<Hello> {
        let (life, boxes) = (self.lives[usize::from(own)], u32::from(self.boxes.of));
        let node = std::iter::once(first).chain(&mut self.others).find(|node| number(node) == own)?;
        let time = node.time(now);
        let clock = node.engine.group_clock(time);
        let site = node.configuration().0;
        let common = Common::of(site, boxes, node.engine.keys());
        Some(Hello { version: VERSION, box_id: own, name: site.node.name.clone(), life, clock, common })
    }

    pub(super) fn close(&mut self, first: &mut Node, teller: u8, hearer: u8, again: Instant) {
        let line = self.line(teller, hearer);
        *line = Line { again, cut: line.cut, ..Line::default() };
        if let Some((node, partner)) = self.end(first, teller, hearer) {
            partner.deaf(&mut node.engine);
        }
        if let Some((node, partner)) = self.end(first, hearer, teller) {
            partner.silent(&mut node.engine);
        }
    }

    /// Every wire of one box, or all there are.
    pub(super) fn wires(&self, of: Option<u8>) -> Vec<(u8, u8)> {
        let concerned = |(teller, hearer): &&(u8, u8)| of.is_none_or(|of| of == *teller || of == *hearer);
        self.lines.keys().filter(concerned).copied().collect()
    }
}

/// What a router makes of a packet to tell flows apart: addresses, what it carries, ports if it knows that, and the flow label
/// if it does not.
fn flow(frame: &[u8], salt: u64) -> u64 {
    let Some(octets) = packet::packet_in(frame) else { return 0 };
    let Ok(view) = ipv6::View::new(octets) else { return 0 };
    let next = view.next_header();
    let more = match next {
        protocol::UDP | protocol::TCP => view.payload().get(..4).unwrap_or_default(),
        _ => &octets[1..4],
    };
    let all = octets[8..40].iter().chain([&next]).chain(more);
    // FNV-1a, and mixed so that low bits are as good as others.
    let hash = all.fold(salt | 1, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33
}
