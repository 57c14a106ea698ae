//! Two boxes on a wire that loses, doubles, delays and reorders, for many seeds. While it is bad nothing may go wrong
//! for good; when it is good again both sides must soon agree.

use std::collections::BTreeMap;

use rand::RngExt;

use super::*;

/// When the wire becomes good.
const HEALED: u64 = 150;
/// When both must agree: after the longest failure (186 s), its hold-down, and one more exchange.
const AGREED: u64 = HEALED + 400;

struct Scene {
    seed: u64,
    nodes: [Node; 2],
    rng: StdRng,
    now: Instant,
    /// By arrival; the number keeps arrivals at one time apart.
    flying: BTreeMap<(Instant, u64), Flight>,
    launched: u64,
    restarts: u64,
    /// Whose upper layers want to talk.
    talkers: &'static [usize],
}

struct Flight {
    to: usize,
    addresses: Addresses,
    what: What,
}

enum What {
    Message(Box<Message>),
    Payload(ContextTag),
}

impl Scene {
    fn new(seed: u64, talkers: &'static [usize]) -> Scene {
        let nodes = [Node::with_tags(1, Config::default(), TagSpace::new(1), seed), Node::new(2)];
        let rng = StdRng::seed_from_u64(seed);
        let (flying, launched, restarts) = (BTreeMap::new(), 0, 0);
        Scene { seed, nodes, rng, now: at(0), flying, launched, restarts, talkers }
    }

    /// Runs to `end`; every second each talker with a context sends payload, and one without asks for one.
    fn run(&mut self, end: Instant) {
        let mut next_second = self.now;
        while self.now < end {
            let timers = self.nodes.iter().filter_map(|node| node.endpoint.deadline());
            let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
            let next = timers.chain(arrival).chain([next_second, end]).min().unwrap_or(end);
            self.now = self.now.max(next);
            if self.now >= next_second {
                next_second = self.now + seconds(1);
                for &talker in self.talkers {
                    self.talk(talker);
                }
            }
            for index in 0..2 {
                let now = self.now;
                self.nodes[index].expire(now);
                self.launch(index);
            }
            while let Some(entry) = self.flying.first_entry()
                && entry.key().0 <= self.now
            {
                let flight = entry.remove();
                self.land(flight);
            }
        }
    }

    fn talk(&mut self, index: usize) {
        let (now, peer) = (self.now, 2 - index as u16);
        let node = &mut self.nodes[index];
        node.out.clear();
        match node.endpoint.find(node.ulids(peer), 0) {
            None => {
                let pairs = [(1, 1), (2, 2)].map(|(i, j)| pair(locator(node.site, i, 1), locator(peer, j, 1)));
                let _ = node.open_with(now, Open { ulids: node.ulids(peer), fork: 0, pairs: pairs.to_vec() });
                self.launch(index);
            }
            Some(context) if context.tags_payload() => {
                let (id, tag, pair) = (context.id, context.peer_tag.unwrap(), context.pair);
                node.endpoint.used(now, id);
                self.fly(1 - index, between(pair.local, pair.peer), || What::Payload(tag));
            }
            Some(_) => {}
        }
    }

    /// Puts what a node just sent on the wire.
    fn launch(&mut self, from: usize) {
        for (addresses, message) in self.nodes[from].sent() {
            self.fly(1 - from, addresses, || What::Message(Box::new(message.clone())));
        }
        self.nodes[from].out.clear();
    }

    fn fly(&mut self, to: usize, addresses: Addresses, what: impl Fn() -> What) {
        let bad = self.now < at(HEALED);
        let copies = if !bad { 1 } else { [0, 0, 1, 1, 2][self.rng.random_range(0..5)] };
        for _ in 0..copies {
            let delay = Duration::from_millis(self.rng.random_range(1..if bad { 8000 } else { 50 }));
            self.launched += 1;
            self.flying.insert((self.now + delay, self.launched), Flight { to, addresses, what: what() });
        }
    }

    fn land(&mut self, flight: Flight) {
        let Flight { to, addresses, what } = flight;
        let now = self.now;
        let node = &mut self.nodes[to];
        match what {
            What::Message(message) => {
                node.receive(now, addresses, &message);
            }
            What::Payload(tag) => {
                node.out.clear();
                match node.endpoint.find_by_local_tag(tag).map(|context| context.id) {
                    Some(id) => {
                        node.endpoint.used(now, id);
                        node.endpoint.payload_received(now, id, &mut node.out);
                    }
                    None => {
                        let pair = pair(Locator(addresses.target), Locator(addresses.source));
                        node.endpoint.payload_without_context(now, tag, pair, &mut node.out);
                    }
                }
            }
        }
        self.launch(to);
    }

    /// A box that starts anew remembers nothing and chooses other tags.
    fn restart(&mut self, index: usize) {
        self.restarts += 1;
        let site = self.nodes[index].site;
        let seed = self.seed.wrapping_mul(31).wrapping_add(1000 + self.restarts);
        self.nodes[index] = Node::with_tags(site, Config::default(), TagSpace::new(site as u8), seed);
    }

    fn assert_agreed(&self) {
        let [a, b] = &self.nodes;
        let both = a.state(self.now, 2) == State::Established && b.state(self.now, 1) == State::Established;
        assert!(both, "seed {}: {:?} and {:?}", self.seed, a.state(self.now, 2), b.state(self.now, 1));
        assert_agreed(a, b);
    }
}

#[test]
fn one_side_asks() {
    for seed in 0..150 {
        let mut scene = Scene::new(seed, &[0]);
        scene.run(at(AGREED));
        scene.assert_agreed();
    }
}

#[test]
fn both_sides_ask() {
    for seed in 0..150 {
        let mut scene = Scene::new(seed, &[0, 1]);
        scene.run(at(AGREED));
        scene.assert_agreed();
    }
}

#[test]
fn the_answering_side_starts_anew_again_and_again() {
    for seed in 0..100 {
        let mut scene = Scene::new(seed, &[0]);
        for moment in [20, 60, 90, 140] {
            scene.run(at(moment));
            scene.restart(1);
        }
        scene.run(at(AGREED));
        scene.assert_agreed();
    }
}

#[test]
fn both_sides_start_anew_and_both_talk() {
    for seed in 0..100 {
        let mut scene = Scene::new(seed, &[0, 1]);
        for (moment, index) in [(15, 0), (40, 1), (41, 0), (80, 1), (149, 0)] {
            scene.run(at(moment));
            scene.restart(index);
        }
        scene.run(at(AGREED));
        scene.assert_agreed();
    }
}

#[test]
fn lists_change_meanwhile() {
    for seed in 0..200 {
        let mut scene = Scene::new(seed, &[0, 1]);
        for step in 1..6u32 {
            scene.run(at(u64::from(step) * 25));
            let now = scene.now;
            let node = &mut scene.nodes[0];
            let changed = LocalHost {
                locators: [1, 2, 10 + step as u16].map(|p| (locator(1, p, 1), VerificationMethod::Hba)).to_vec(),
                generation: 100 + step,
                ..host(1, 1)
            };
            node.endpoint.set_host(changed).unwrap();
            node.out.clear();
            if let Some(id) = node.endpoint.find(node.ulids(2), 0).map(|context| context.id) {
                let Node { endpoint, rng, out, .. } = node;
                endpoint.update_locators(now, rng, id, out).unwrap();
            }
            scene.launch(0);
            if step % 2 == 0 {
                scene.restart(1);
            }
        }
        scene.run(at(AGREED));
        scene.assert_agreed();
        assert_eq!(scene.nodes[1].context(1).peer_locators[2].locator, locator(1, 15, 1), "seed {seed}");
    }
}
