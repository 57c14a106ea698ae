//! A second box at a site, which hears of the contexts of the first over a wire that can fail.
//!
//! Both have the same addresses towards hosts and routers; frames go to the first, but for neighbour discovery, which both hear.
//! The first can die, and then the second has its place at once: what a routing protocol makes of it is not for here. Or the two
//! change places, as when an operator moves the routes.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::node::Node;
use super::packet;
use crate::engine::{GroupPlan, Story};
use crate::sync::{ALIVE, Common, Counts, Frame, FromTeller, Hello, Partner, VERSION, decode};
use crate::time::Instant;

/// How long a message is on the wire.
const WIRE: Duration = Duration::from_micros(300);
/// How long a connection that has broken is not there.
const BROKEN: Duration = Duration::from_millis(200);

/// The second box, and what is between the two.
pub(super) struct Twin {
    pub(super) node: Node,
    /// What each says to the other, that of the first box first.
    lines: [Line; 2],
    /// How each knows the other: that of the first box first.
    partners: [Partner; 2],
    lives: [u64; 2],
    /// No connection comes to be.
    cut: bool,
    /// Of a thousand messages so many are lost, and so many come twice.
    loss: u32,
    doubles: u32,
    rng: StdRng,
    /// What the second box sent although the first one serves, without neighbour discovery.
    pub(super) loud: u64,
}

/// A connection over which one of them tells.
#[derive(Default)]
struct Line {
    up: bool,
    /// Not before.
    again: Instant,
    /// When something is said although there is nothing to say.
    alive: Instant,
    frames: VecDeque<(Instant, Frame)>,
    acks: VecDeque<(Instant, u64)>,
}

fn plan(node: &Node) -> GroupPlan {
    let box_id = node.configuration().0.node.id;
    GroupPlan { box_id, boxes: 2, others: 1, patience: Duration::from_secs(5), base: 0 }
}

impl Twin {
    /// A second box beside one that has just begun, or goes on after its second one has taken its place.
    pub(super) fn beside(first: &mut Node, now: Instant, seed: u64) -> Twin {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut node = first.sibling(rng.next_u64());
        if !first.engine.is_in_group() {
            first.engine.join_group(now, plan(first));
        }
        node.engine.join_group(now, plan(&node));
        let lives = [rng.next_u64(), rng.next_u64()];
        Twin {
            node,
            lines: Default::default(),
            partners: [Partner::new(0), Partner::new(0)],
            lives,
            cut: false,
            loss: 0,
            doubles: 0,
            rng,
            loud: 0,
        }
    }

    /// The wire loses and repeats messages.
    pub(super) fn spoil(&mut self, loss: u32, doubles: u32) {
        (self.loss, self.doubles) = (loss, doubles);
    }

    /// Nothing goes between the two, or does again.
    pub(super) fn cut(&mut self, first: &mut Node, cut: bool) {
        self.cut = cut;
        if cut {
            (0..2).for_each(|teller| self.close(first, teller, Instant::START));
        }
    }

    /// The second box in the place of the first, which is gone.
    pub(super) fn survive(mut self, first: &mut Node) {
        (0..2).for_each(|teller| self.close(first, teller, Instant::START));
        let standing = self.node;
        first.replaced_by(standing);
    }

    /// The first and the second box change places.
    pub(super) fn change_places(&mut self, first: &mut Node) {
        first.change_places(&mut self.node);
        self.lines.swap(0, 1);
        self.partners.swap(0, 1);
        self.lives.swap(0, 1);
    }

    /// What each has told and heard, that of the first box first.
    pub(super) fn counts(&self, first: &Node) -> [Counts; 2] {
        [self.partners[0].counts(&first.engine), self.partners[1].counts(&self.node.engine)]
    }

    /// When something arrives, or a connection comes to be.
    pub(super) fn due(&self) -> Option<Instant> {
        let arrivals = self.lines.iter().flat_map(|line| {
            let (frame, ack) = (line.frames.front().map(|(at, _)| *at), line.acks.front().map(|(at, _)| *at));
            let again = (!line.up && !self.cut).then_some(line.again);
            let alive = line.up.then_some(line.alive);
            [frame, ack, again, alive].into_iter().flatten()
        });
        arrivals.min()
    }

    /// What the second box does now. The frames that left, with their ports.
    pub(super) fn turn(&mut self, now: Instant, stories: &mut Vec<Story>) -> Vec<(usize, Vec<u8>)> {
        let sent = self.node.turn(now, stories);
        self.loud += sent.iter().filter(|(_, frame)| !packet::is_discovery(frame)).count() as u64;
        sent
    }

    /// What goes between the two now. How much that was.
    pub(super) fn exchange(&mut self, first: &mut Node, now: Instant) -> usize {
        (0..2).map(|teller| self.carry(first, now, teller)).sum()
    }

    /// One direction: `teller` 0 is the first box.
    fn carry(&mut self, first: &mut Node, now: Instant, teller: usize) -> usize {
        let mut done = 0;
        if !self.lines[teller].up {
            if self.cut || self.lines[teller].again > now {
                return 0;
            }
            self.connect(first, now, teller);
            done += 1;
        }
        while let Some((_, number)) = self.lines[teller].acks.pop_front_if(|(at, _)| *at <= now) {
            let (node, partner) = self.end(first, teller);
            partner.answered(&mut node.engine, crate::sync::FromHearer::Ack(number));
            done += 1;
        }
        while let Some((_, frame)) = self.lines[teller].frames.pop_front_if(|(at, _)| *at <= now) {
            done += 1;
            let said: FromTeller = decode(&frame[4..]).expect("what was encoded");
            let (node, partner) = self.end(first, 1 - teller);
            match node.hear(now, partner, said) {
                Ok(Some(number)) => self.lines[teller].acks.push_back((now + WIRE, number)),
                Ok(None) => {}
                Err(_) => {
                    self.close(first, teller, now + BROKEN);
                    return done;
                }
            }
        }
        let mut frames: Vec<Frame> = Vec::new();
        let (node, partner) = self.end(first, teller);
        partner.tell(node.time(now), &mut node.engine, 4, &mut |frame| {
            frames.push(frame);
            Ok(())
        });
        let alive = if frames.is_empty() { partner.alive() } else { None };
        if self.lines[teller].alive <= now {
            self.lines[teller].alive = now + ALIVE;
            frames.extend(alive);
        }
        done += frames.len();
        for frame in frames {
            let chance = self.rng.next_u32() % 1000;
            if chance < self.loss {
                continue;
            }
            let line = &mut self.lines[teller];
            line.frames.push_back((now + WIRE, frame.clone()));
            if chance < self.loss + self.doubles {
                line.frames.push_back((now + WIRE, frame));
            }
        }
        done
    }

    fn connect(&mut self, first: &mut Node, now: Instant, teller: usize) {
        let [ours, theirs] = [teller, 1 - teller].map(|which| self.hello(first, now, which));
        let (node, partner) = self.end(first, 1 - teller);
        let time = node.time(now);
        let (answer, _) = partner.greeted(time, &mut node.engine, &ours, &theirs);
        let (node, partner) = self.end(first, teller);
        assert!(partner.answered(&mut node.engine, answer), "{:?}", partner.refused());
        self.lines[teller].up = true;
    }

    fn hello(&mut self, first: &mut Node, now: Instant, which: usize) -> Hello {
        let life = self.lives[which];
        let (node, _) = self.end(first, which);
        let clock = node.engine.group_clock(node.time(now));
        let site = node.configuration().0;
        let common = Common::of(site, 2, node.engine.keys());
        Hello { version: VERSION, box_id: site.node.id, name: site.node.name.clone(), life, clock, common }
    }

    fn close(&mut self, first: &mut Node, teller: usize, again: Instant) {
        self.lines[teller] = Line { again, ..Line::default() };
        let (node, partner) = self.end(first, teller);
        partner.deaf(&mut node.engine);
        let (node, partner) = self.end(first, 1 - teller);
        partner.silent(&mut node.engine);
    }

    fn end<'a>(&'a mut self, first: &'a mut Node, which: usize) -> (&'a mut Node, &'a mut Partner) {
        let Twin { node, partners, .. } = self;
        let node = if which == 0 { first } else { node };
        (node, &mut partners[which])
    }
}

/// A box that may have a second one beside it.
impl Node {
    /// There is a second box at its site from now on, which hears of its contexts.
    pub(super) fn add_twin(&mut self, now: Instant, seed: u64) {
        let now = self.time(now);
        let twin = Twin::beside(self, now, seed);
        self.twin = Some(Box::new(twin));
    }

    /// Does something with the second box and the wire between the two, if there is one.
    pub(super) fn with_twin<T>(&mut self, act: impl FnOnce(&mut Twin, &mut Node) -> T) -> Option<T> {
        let mut twin = self.twin.take()?;
        let done = act(&mut twin, self);
        self.twin = Some(twin);
        Some(done)
    }

    /// It dies, and the second box serves in its place.
    pub(super) fn die(&mut self) {
        if let Some(twin) = self.twin.take() {
            twin.survive(self);
        }
    }

    /// What it told the second box and heard of it, and the other way round.
    pub fn synced(&self) -> Option<[Counts; 2]> {
        self.twin.as_ref().map(|twin| twin.counts(self))
    }

    /// The same for the second box.
    #[cfg(test)]
    pub(crate) fn second_acts<T>(
        &mut self,
        now: Instant,
        act: impl FnOnce(Instant, &mut StdRng, &mut crate::engine::Engine, &mut Vec<crate::engine::Effect>) -> T,
    ) -> Option<T> {
        self.with_twin(|twin, _| twin.node.act(now, act))
    }

    /// The second box.
    pub fn second(&self) -> Option<&Node> {
        self.twin.as_ref().map(|twin| &twin.node)
    }

    /// Packets that the second box sent while this one served, without neighbour discovery.
    pub fn loud(&self) -> u64 {
        self.twin.as_ref().map_or(0, |twin| twin.loud)
    }
}
