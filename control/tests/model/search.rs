//! The search: breadth first through every state two nodes and a bad wire can be in, each judged when it is first seen.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use control::shim6::State as Phase;
use dataplane::wire::{Locator, UlidPair};

use crate::node::{Input, Mark, Seen, Validators, is_of, ulid};
use crate::world::{Outcome, Place, World};
use crate::{Bounds, Setup};

/// A state of everything.
#[derive(Clone, Debug, PartialEq)]
struct State {
    places: [u32; 2],
    /// The packets on the wire, in order of their numbers, and whether each has arrived before. Any of them may arrive at
    /// any time, or never: so loss, delay and disorder have no bound. A packet leaves the wire when it has arrived and
    /// no copies are left.
    wire: Vec<(u32, bool)>,
    /// What may still happen.
    left: Bounds,
    /// Whether any context is no more.
    lost: bool,
}

/// What a search saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// States that differ in more than names.
    pub states: usize,
    pub steps: usize,
    /// Steps from the start to the state farthest away.
    pub depth: usize,
    /// Steps that were tried on the real machine.
    pub tries: usize,
    /// States without packets on the wire from which a good wire was seen to lead to agreement.
    pub quiet: usize,
    /// What happened at least once: phases of contexts, ends of contexts, what became of packets.
    pub met: BTreeSet<String>,
}

/// Something that must not be, and the shortest way there.
#[derive(Clone, Debug)]
pub struct Failure {
    pub wrong: String,
    pub path: Vec<String>,
}

struct Found {
    state: State,
    depth: usize,
    from: Option<(usize, usize, Input)>,
}

pub struct Search<'a> {
    setup: &'a Setup,
    world: World<'a>,
    found: Vec<Found>,
    known: HashSet<u128>,
    converging: HashSet<u128>,
}

impl<'a> Search<'a> {
    pub fn new(setup: &'a Setup) -> Search<'a> {
        let world = World::new(setup);
        Search { setup, world, found: Vec::new(), known: HashSet::new(), converging: HashSet::new() }
    }

    /// Goes through all states.
    pub fn run(mut self) -> Result<Report, Failure> {
        let start = State { places: [0, 1], wire: Vec::new(), left: self.setup.bounds, lost: false };
        self.visit(start, 0, None)?;
        let (mut next, mut steps) = (0, 0);
        while next < self.found.len() {
            for (node, input) in self.inputs(next) {
                steps += 1;
                let outcome = self.world.apply(self.found[next].state.places[node], input);
                if let Some(wrong) = &outcome.wrong {
                    return Err(self.failure(wrong.clone(), Some((next, node, input))));
                }
                let depth = self.found[next].depth + 1;
                if let Some(state) = after(&self.found[next].state, node, input, &outcome) {
                    self.visit(state, depth, Some((next, node, input)))?;
                }
            }
            next += 1;
        }
        for at in 0..self.found.len() {
            let state = self.found[at].state.clone();
            self.check_liveness(&state).map_err(|wrong| self.failure(wrong, self.found[at].from))?;
        }
        let depth = self.found.last().map_or(0, |found| found.depth);
        let (states, tries, quiet) = (self.found.len(), self.world.tries(), self.converging.len());
        Ok(Report { states, steps, depth, tries, quiet, met: self.world.met })
    }

    fn visit(&mut self, state: State, depth: usize, from: Option<(usize, usize, Input)>) -> Result<(), Failure> {
        let Bounds { opens, timers, losses, talks, renumberings, copies } = state.left;
        let copies = copies.unwrap_or(u8::MAX);
        let rest = [opens[0], opens[1], timers, losses, talks, renumberings, copies, u8::from(state.lost)];
        if !self.known.insert(self.key(state.places, &state.wire, &rest)) {
            return Ok(());
        }
        self.check(&state).map_err(|wrong| self.failure(wrong, from))?;
        self.found.push(Found { state, depth, from });
        Ok(())
    }

    /// All that may happen next.
    fn inputs(&self, at: usize) -> Vec<(usize, Input)> {
        let State { places, wire, left, .. } = &self.found[at].state;
        let packet = |(number, _): &(u32, bool)| (self.world.packets[*number as usize].to, Input::Receive(*number));
        let mut inputs: Vec<_> = wire.iter().map(packet).collect();
        for (node, name) in places.iter().enumerate() {
            let place = self.place(*name);
            let exists = |pair: usize| place.contexts.iter().any(|seen| seen.ulids == self.setup.ulids(node, pair));
            if left.opens[node] > 0 {
                let missing = (0..self.setup.pairs.len()).filter(|pair| !exists(*pair));
                inputs.extend(missing.map(|pair| (node, Input::Open(pair))));
            }
            if left.timers > 0 {
                match place.deadline {
                    Some(_) => inputs.push((node, Input::Expire)),
                    // A node at rest grows older too, and its validators with it.
                    None => inputs.push((node, Input::Pass(31_000))),
                }
            }
            if left.losses > 0 {
                inputs.push((node, Input::Restart));
                if !place.contexts.is_empty() {
                    inputs.push((node, Input::Discard));
                }
            }
            if left.talks > 0 {
                inputs.push((node, Input::Talk));
            }
            if left.renumberings > 0 {
                inputs.push((node, Input::Renumber));
            }
        }
        inputs
    }

    fn place(&self, place: u32) -> &Place {
        &self.world.places[place as usize]
    }

    /// A number that two states share if, and for all practical purposes only if, they differ in nothing but the names
    /// of tags, nonces and validators: each name is replaced by its rank among those of its kind.
    fn key(&self, places: [u32; 2], wire: &[(u32, bool)], rest: &[u8]) -> u128 {
        let nodes = places.map(|place| &self.place(place).marks);
        let packets = || wire.iter().map(|(number, _)| &self.world.packets[*number as usize]);
        let (mut tags, mut nonces, mut validators) = (Vec::new(), Vec::new(), Vec::new());
        for mark in nodes.into_iter().flatten().chain(packets().flat_map(|packet| &packet.marks)) {
            match mark {
                Mark::Tag(tag) => tags.push(*tag),
                Mark::Nonce(nonce) => nonces.push(*nonce),
                Mark::Validator(number) => validators.push((self.world.validators.issued[*number as usize], *number)),
                Mark::Value(_) | Mark::Time(_) => {}
            }
        }
        sort(&mut tags);
        sort(&mut nonces);
        sort(&mut validators);
        let rank = |mark: &Mark| match *mark {
            Mark::Value(value) => (0, value, 0),
            Mark::Time(units) => (1, units.into(), 0),
            Mark::Tag(tag) => (2, place_in(&tags, &tag), 0),
            Mark::Nonce(nonce) => (3, place_in(&nonces, &nonce), 0),
            Mark::Validator(number) => {
                let issued = self.world.validators.issued[number as usize];
                let maker = self.place(places[issued.site]);
                // The last is what the validator is still worth to its maker.
                let age = (Validators::tick(maker.now) - issued.tick).min(301);
                let age = if maker.life == issued.life { age } else { 302 };
                (4, place_in(&validators, &(issued, number)), age)
            }
        };
        let mut state: Vec<Vec<(u8, u128, u64)>> = Vec::new();
        state.extend(packets().zip(wire).map(|(packet, (_, arrived))| {
            let arrived = Mark::Value(u128::from(*arrived));
            packet.marks.iter().chain([&arrived]).map(rank).collect()
        }));
        state.sort_unstable();
        state.extend(nodes.map(|marks| marks.iter().map(rank).collect()));
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, &state, rest).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        half(0) << 64 | half(1)
    }

    /// What must hold in every state.
    fn check(&self, state: &State) -> Result<(), String> {
        let contexts = state.places.map(|place| &self.place(place).contexts);
        for node in 0..2 {
            unconfused(contexts[node])?;
            contexts[node].iter().try_for_each(believes_only_the_truth)?;
            for seen in contexts[node].iter().filter(|seen| seen.state.carries_payload()) {
                self.check_tag(seen, contexts[1 - node], state.lost, self.setup.tags_repeat(1 - node))?;
            }
        }
        Ok(())
    }

    /// Where the tag leads that a context sends payload with: to the peer's context of the same identifiers, or nowhere,
    /// so that the first payload brings R1bis and with it recovery. As long as nobody has lost anything, nowhere is wrong.
    fn check_tag(&self, seen: &Seen, others: &[Seen], lost: bool, tags_repeat: bool) -> Result<(), String> {
        let mirrored = UlidPair { local: seen.ulids.peer, peer: seen.ulids.local };
        match others.iter().find(|other| Some(other.local_tag) == seen.peer_tag) {
            Some(other) if other.ulids == mirrored => {
                let mutual = !other.state.carries_payload() || other.peer_tag == Some(seen.local_tag);
                if mutual || lost { Ok(()) } else { Err("both ends are established with tags of their own".to_owned()) }
            }
            // Tags that are not random are given out again; telling such contexts apart is past any protocol.
            Some(_) if tags_repeat => Ok(()),
            Some(_) => Err("payload would reach the context of other hosts".to_owned()),
            None if lost => Ok(()),
            None => Err("a tag leads nowhere though nobody has lost a context".to_owned()),
        }
    }

    /// From here a wire that loses nothing leads both ends to agreement, whether what is on it arrives or is lost.
    fn check_liveness(&mut self, state: &State) -> Result<(), String> {
        let mut arrived = state.places;
        self.drain(&mut arrived, state.wire.iter().map(|(number, _)| *number).collect())?;
        self.converge(arrived).map_err(|wrong| format!("{wrong}, after all that was on the wire arrived"))?;
        self.converge(state.places).map_err(|wrong| format!("{wrong}, after all that was on the wire was lost"))
    }

    /// Carries packets to and fro, in order, until nobody says anything more.
    fn drain(&mut self, places: &mut [u32; 2], mut wire: VecDeque<u32>) -> Result<(), String> {
        for _ in 0..500 {
            let Some(number) = wire.pop_front() else { return Ok(()) };
            let to = self.world.packets[number as usize].to;
            self.put(places, to, Input::Receive(number), &mut wire)?;
        }
        Err("packets beget packets without end".to_owned())
    }

    fn put(
        &mut self,
        places: &mut [u32; 2],
        node: usize,
        input: Input,
        wire: &mut VecDeque<u32>,
    ) -> Result<(), String> {
        let outcome = self.world.apply(places[node], input);
        places[node] = outcome.place;
        wire.extend(&outcome.sent);
        outcome.wrong.map_or(Ok(()), Err)
    }

    /// Time passes and hosts talk: in a few minutes both ends agree.
    fn converge(&mut self, mut places: [u32; 2]) -> Result<(), String> {
        let mut passed = Vec::new();
        for _ in 0..60 {
            let key = self.key(places, &[], &[]);
            passed.push(key);
            if self.converging.contains(&key) || self.agreed(places) {
                self.converging.extend(passed);
                return Ok(());
            }
            for node in 0..2 {
                let mut wire = VecDeque::new();
                let pairs = (0..self.setup.pairs.len()).filter(|_| self.setup.bounds.opens[node] > 0);
                for pair in pairs {
                    self.put(&mut places, node, Input::Open(pair), &mut wire)?;
                }
                self.put(&mut places, node, Input::Talk, &mut wire)?;
                self.drain(&mut places, wire)?;
            }
            let millis = places.map(|place| self.millis_to_deadline(place));
            let step = millis.into_iter().min().unwrap_or(0).clamp(1, 10_000);
            for node in 0..2 {
                let mut wire = VecDeque::new();
                self.put(&mut places, node, Input::Pass(step), &mut wire)?;
                self.drain(&mut places, wire)?;
            }
        }
        let phases = places.map(|place| {
            self.place(place)
                .contexts
                .iter()
                .map(|seen| (seen.state, seen.local_tag, seen.peer_tag))
                .collect::<Vec<_>>()
        });
        Err(format!("no agreement but {phases:?}"))
    }

    fn millis_to_deadline(&self, place: u32) -> u64 {
        let place = self.place(place);
        place.deadline.map_or(u64::MAX, |at| at.since(place.now).as_millis() as u64 + 1)
    }

    /// Every pair of hosts has a context at both ends, established, each with the tag and the locators that the other
    /// chose.
    fn agreed(&self, places: [u32; 2]) -> bool {
        (0..self.setup.pairs.len()).all(|pair| {
            let [here, there] = [0, 1].map(|node| {
                let contexts = &self.place(places[node]).contexts;
                contexts.iter().find(|seen| seen.ulids == self.setup.ulids(node, pair))
            });
            let knows = |one: &Seen, other: &Seen| {
                one.state == Phase::Established
                    && one.peer_tag == Some(other.local_tag)
                    && one.peer_locators == other.told
                    && !other.news
            };
            here.zip(there).is_some_and(|(here, there)| knows(here, there) && knows(there, here))
        })
    }

    fn failure(&self, wrong: String, mut from: Option<(usize, usize, Input)>) -> Failure {
        let mut path = Vec::new();
        while let Some((at, node, input)) = from {
            let what = match input {
                Input::Receive(number) => format!("receives {}", self.world.packets[number as usize].name()),
                other => format!("{other:?}"),
            };
            path.push(format!("node {node}: {what}"));
            from = self.found[at].from;
        }
        path.reverse();
        Failure { wrong, path }
    }
}

/// The state after a step, unless the step changed nothing or is not allowed any more.
fn after(state: &State, node: usize, input: Input, outcome: &Outcome) -> Option<State> {
    let mut next = state.clone();
    next.places[node] = outcome.place;
    for number in &outcome.sent {
        match next.wire.binary_search_by_key(number, |(number, _)| *number) {
            // Sent once more, it has yet to arrive.
            Ok(at) => next.wire[at].1 = false,
            Err(at) => next.wire.insert(at, (*number, false)),
        }
    }
    if next == *state {
        return None;
    }
    next.lost |= outcome.lost;
    let left = &mut next.left;
    match input {
        Input::Open(_) => left.opens[node] -= 1,
        Input::Expire | Input::Pass(_) => left.timers -= 1,
        Input::Restart | Input::Discard => left.losses -= 1,
        Input::Talk => left.talks -= 1,
        Input::Renumber => left.renumberings -= 1,
        Input::Receive(number) => {
            if let Some(copies) = &mut left.copies {
                let (_, arrived) = next.wire.iter_mut().find(|(on_wire, _)| *on_wire == number)?;
                *copies = copies.checked_sub(u8::from(*arrived))?;
                *arrived = true;
            }
        }
    }
    if left.copies == Some(0) {
        next.wire.retain(|(_, arrived)| !arrived);
    }
    Some(next)
}

/// Two contexts must not send the same tag to the same locators (RFC 5533 §7.15).
pub fn unconfused(contexts: &[Seen]) -> Result<(), String> {
    for (at, one) in contexts.iter().enumerate().filter(|(_, seen)| seen.state.carries_payload()) {
        for other in contexts[at + 1..].iter().filter(|seen| seen.state.carries_payload()) {
            let overlap = one.peer_locators.iter().any(|locator| other.peer_locators.contains(locator));
            if one.peer_tag == other.peer_tag && overlap {
                return Err("two contexts send the same tag to the same locators".to_owned());
            }
        }
    }
    Ok(())
}

/// A context that is used holds no locator that is not the peer's, and sends to one that is (RFC 5533 §7.2).
pub fn believes_only_the_truth(seen: &Seen) -> Result<(), String> {
    let is_peers = |locator: &Locator| locator.0 == seen.ulids.peer.0 || is_of(*locator, seen.ulids.peer);
    let sound = seen.peer_locators.iter().all(is_peers) && is_peers(&seen.pair.peer);
    if sound || !seen.state.carries_payload() { Ok(()) } else { Err(format!("{seen:?} holds a foreign locator")) }
}

fn sort<T: Ord>(names: &mut Vec<T>) {
    names.sort_unstable();
    names.dedup();
}

fn place_in<T: Ord>(names: &[T], name: &T) -> u128 {
    names.binary_search(name).expect("it was put in") as u128
}

impl Setup {
    /// The identifiers of a pair of hosts as `node` sees them.
    pub fn ulids(&self, node: usize, pair: usize) -> UlidPair {
        let [a, b] = self.pairs[pair];
        let (a, b) = (ulid(0, a), ulid(1, b));
        if node == 0 { UlidPair { local: a, peer: b } } else { UlidPair { local: b, peer: a } }
    }
}
