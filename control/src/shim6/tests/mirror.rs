//! Two boxes of one site tell each other of their contexts over wires that are cut, and know the same in the end
//! (docs/decisions: state sync).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::shim6::context::State;

const PEERS: u16 = 6;
const SLOTS: u32 = 64;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A box makes a context with a peer, unless it knows one.
    Make(usize, u16),
    /// A box changes its context with a peer, and so runs it.
    Change(usize, u16),
    /// A box gives its context with a peer up, for want of use or for another reason.
    End(usize, u16, bool),
    /// Time passes at a box.
    Wait(usize, u64),
    /// So many things are told by a box, or arrive at the other, or are acknowledged.
    Tell(usize, usize),
    Arrive(usize, usize),
    Return(usize, usize),
    /// What was not acknowledged is said again.
    Cut(usize),
    /// A box begins anew, and knows nothing.
    Die(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (which, peer, some) = (0usize..2, 0..PEERS, 1usize..5);
    prop_oneof![
        6 => (which.clone(), peer.clone()).prop_map(|(which, peer)| Step::Make(which, peer)),
        6 => (which.clone(), peer.clone()).prop_map(|(which, peer)| Step::Change(which, peer)),
        3 => (which.clone(), peer, any::<bool>()).prop_map(|(which, peer, idle)| Step::End(which, peer, idle)),
        2 => (which.clone(), 0u64..50).prop_map(|(which, time)| Step::Wait(which, time)),
        8 => (which.clone(), some.clone()).prop_map(|(which, some)| Step::Tell(which, some)),
        8 => (which.clone(), some.clone()).prop_map(|(which, some)| Step::Arrive(which, some)),
        4 => (which.clone(), some).prop_map(|(which, some)| Step::Return(which, some)),
        2 => which.clone().prop_map(Step::Cut),
        1 => which.prop_map(Step::Die),
    ]
}

#[derive(Clone, Debug)]
enum Said {
    Context(Box<CarriedContext>, Arc<LocalHost>),
    Gone(ContextTag, Stamp),
}

/// Two boxes, and for each what it said: not acknowledged, and how much of that has arrived.
struct Site {
    boxes: [Node; 2],
    said: [VecDeque<Said>; 2],
    arrived: [usize; 2],
    clocks: [u64; 2],
    lives: u64,
}

impl Site {
    fn new() -> Site {
        let mut site = Site {
            boxes: [0, 1].map(|which| Site::begin(which, which as u64)),
            said: Default::default(),
            arrived: [0; 2],
            clocks: [0; 2],
            lives: 2,
        };
        (0..2).for_each(|which| site.boxes[which].endpoint.begin_telling(0));
        site
    }

    fn begin(which: usize, seed: u64) -> Node {
        let tags = TagSpace::new(which as u8 + 1).with_slots(SLOTS);
        let mut node = Node::with_tags(1, Config::default(), tags, seed);
        node.endpoint.join_group(which as u8 + 1, 2, 1);
        node
    }

    fn id(&self, which: usize, peer: u16) -> Option<ContextId> {
        let ulids = UlidPair { local: ulid(1, 1), peer: ulid(2, peer + 1) };
        self.boxes[which].endpoint.find(ulids, 0).map(|context| context.id)
    }

    fn make(&mut self, which: usize, peer: u16) {
        if self.id(which, peer).is_some() {
            return;
        }
        let Node { endpoint, rng, .. } = &mut self.boxes[which];
        let ulids = UlidPair { local: ulid(1, 1), peer: ulid(2, peer + 1) };
        let Some(tag) = endpoint.allocate_tag(rng, ulids, None, Default::default()) else { return };
        let list = endpoint.shared_host(ulids.local).unwrap().clone();
        let mut context = endpoint.blank(Instant::START, ulids, 0, tag, list);
        context.state = State::Established;
        context.peer_tag = Some(super::tag(rand::Rng::next_u64(rng)));
        context.peer_locators = [1, 2]
            .map(|provider| PeerLocator {
                locator: locator(2, provider, peer + 1),
                method: None,
                verified: true,
                probed: true,
                preference: Default::default(),
            })
            .to_vec();
        context.pair = pair(locator(1, 1, 1), locator(2, 1, peer + 1));
        endpoint.tags.hold(tag);
        endpoint.store.insert(context);
    }

    fn change(&mut self, which: usize, peer: u16) {
        let Some(id) = self.id(which, peer) else { return };
        let context = self.boxes[which].endpoint.context(id).unwrap();
        let local = if context.pair.local == locator(1, 1, 1) { locator(1, 2, 1) } else { locator(1, 1, 1) };
        let to = pair(local, context.pair.peer);
        self.boxes[which].endpoint.set_pair(id, to).unwrap();
        assert!(!self.boxes[which].endpoint.context(id).unwrap().is_mirrored());
    }

    fn end(&mut self, which: usize, peer: u16, idle: bool) {
        let Some(id) = self.id(which, peer) else { return };
        let Node { endpoint, out, .. } = &mut self.boxes[which];
        // Contexts that another box runs end here for want of use alone, and that box is of the same mind.
        if !endpoint.context(id).unwrap().is_mirrored() {
            endpoint.discard(id, if idle { GoneReason::Idle } else { GoneReason::Confused }, out);
        }
    }

    fn tell(&mut self, which: usize, most: usize) {
        for _ in 0..most {
            let said = match self.boxes[which].endpoint.next_to_tell(0, &mut 1000) {
                None => return,
                Some(ToTell::Gone(tag, stamp)) => Said::Gone(tag, stamp),
                Some(ToTell::Context(context)) => {
                    Said::Context(Box::new(CarriedContext::of(context, 0).unwrap()), context.host.clone())
                }
            };
            self.said[which].push_back(said);
        }
    }

    fn arrive(&mut self, which: usize, most: usize) {
        for _ in 0..most {
            let Some(said) = self.said[which].get(self.arrived[which]).cloned() else { return };
            self.arrived[which] += 1;
            let Node { endpoint, out, .. } = &mut self.boxes[1 - which];
            match said {
                Said::Gone(tag, stamp) => _ = endpoint.mirror_gone(tag, stamp, out),
                Said::Context(carried, list) => {
                    let known = endpoint.find_by_local_tag(super::tag(carried.tags.0)).map(Context::stamp);
                    let taken = endpoint.mirror(Instant::START, &carried, &list, 0, out);
                    match taken {
                        Ok(taken) => {
                            let context = endpoint.context(taken.id).unwrap();
                            assert!(context.is_mirrored() && context.stamp() == carried.stamp);
                            assert!(known < Some(carried.stamp));
                        }
                        Err(reason) => assert_eq!(reason, NotTaken::Older, "there is room, and a host"),
                    }
                }
            }
            out.clear();
        }
    }

    fn acknowledge(&mut self, which: usize, most: usize) {
        for _ in 0..most.min(self.arrived[which]) {
            self.said[which].pop_front();
            self.arrived[which] -= 1;
        }
    }

    fn die(&mut self, which: usize) {
        self.lives += 1;
        self.boxes[which] = Site::begin(which, self.lives);
        let clock = self.boxes[1 - which].endpoint.group_clock();
        self.boxes[which].endpoint.advance_group(clock);
        for teller in 0..2 {
            self.said[teller].clear();
            self.arrived[teller] = 0;
            self.boxes[teller].endpoint.begin_telling(0);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Make(which, peer) => self.make(which, peer),
            Step::Change(which, peer) => self.change(which, peer),
            Step::End(which, peer, idle) => self.end(which, peer, idle),
            Step::Wait(which, time) => {
                self.clocks[which] += time;
                self.boxes[which].endpoint.advance_group(self.clocks[which]);
            }
            Step::Tell(which, most) => self.tell(which, most),
            Step::Arrive(which, most) => self.arrive(which, most),
            Step::Return(which, most) => self.acknowledge(which, most),
            Step::Cut(which) => self.arrived[which] = 0,
            Step::Die(which) => self.die(which),
        }
        for node in &self.boxes {
            node.endpoint.store.selfcheck();
        }
    }

    /// What a box knows, but for who runs it here.
    fn known(&self, which: usize) -> BTreeMap<UlidPair, (ContextTag, Option<ContextTag>, LocatorPair, Stamp)> {
        let all = self.boxes[which].endpoint.contexts();
        all.map(|it| (it.ulids, (it.local_tag, it.peer_tag, it.pair, it.stamp()))).collect()
    }

    fn is_quiet(&self) -> bool {
        (0..2).all(|which| self.boxes[which].endpoint.left_to_tell(0) == 0 && self.said[which].is_empty())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// R5533-007, R5533-124: whatever two boxes did while they could not tell each other, both have the same contexts in the end, one for
    /// each pair, and none runs a context that the other runs as well.
    #[test]
    fn boxes_that_have_told_each_other_everything_know_the_same(steps in prop::collection::vec(step(), 0..120)) {
        let mut site = Site::new();
        for step in steps {
            site.step(step);
        }
        let mut rounds = 0;
        while !site.is_quiet() {
            rounds += 1;
            prop_assert!(rounds < 20, "they go on telling each other for ever");
            for which in 0..2 {
                site.step(Step::Tell(which, usize::MAX));
                site.step(Step::Arrive(which, usize::MAX));
                site.step(Step::Return(which, usize::MAX));
            }
        }
        prop_assert_eq!(site.known(0), site.known(1));
        for ulids in site.known(0).keys() {
            let runs = |which: usize| !site.boxes[which].endpoint.find(*ulids, 0).unwrap().is_mirrored();
            prop_assert!(!(runs(0) && runs(1)), "{ulids:?} is run by both");
        }
    }
}

#[test]
fn who_makes_contexts_at_the_same_time_never_takes_the_same_place() {
    let mut site = Site::new();
    for peer in 0..PEERS {
        site.make((peer % 2).into(), peer);
    }
    for which in 0..2 {
        site.tell(which, usize::MAX);
        site.arrive(which, usize::MAX);
    }
    assert_eq!(site.known(0).len(), usize::from(PEERS));
    assert_eq!(site.known(0), site.known(1));
}

// The later one is what the peer has.
#[test]
fn of_two_contexts_of_a_pair_the_one_used_later_stays() {
    let mut site = Site::new();
    site.make(0, 3);
    site.step(Step::Wait(1, 40));
    site.make(1, 3);
    let later = site.known(1);
    for which in [0, 1, 0] {
        site.tell(which, usize::MAX);
        site.arrive(which, usize::MAX);
    }
    assert_eq!((site.known(0), site.known(1)), (later.clone(), later));
}

// A box that was away for long does not bring back what has ended.
#[test]
fn what_has_ended_does_not_come_back() {
    let mut site = Site::new();
    site.make(0, 1);
    site.tell(0, 1);
    site.arrive(0, 1);
    site.acknowledge(0, 1);
    site.end(0, 1, false);
    // The other one says what it had, and hears only then.
    site.boxes[1].endpoint.begin_telling(0);
    site.tell(1, 1);
    site.arrive(1, 1);
    assert!(site.known(0).is_empty());
    site.tell(0, 1);
    site.arrive(0, 1);
    assert!(site.known(1).is_empty());
    // One that nobody used here, and somebody there, stays.
    site.make(0, 2);
    site.tell(0, 1);
    site.arrive(0, usize::MAX);
    site.change(1, 2);
    site.end(0, 2, true);
    for which in [0, 1] {
        site.tell(which, usize::MAX);
        site.arrive(which, usize::MAX);
    }
    assert_eq!((site.known(0).len(), site.known(1).len()), (1, 1));
}

#[test]
fn a_table_of_empty_places_is_not_walked_over_in_one_turn() {
    const MADE: usize = 500;
    let mut node = Node::with_tags(1, Config::default(), TagSpace::new(1), 5);
    node.endpoint.join_group(1, 2, 1);
    for peer in 0..MADE as u16 {
        node.open(at(0), peer + 2).unwrap();
    }
    for peer in 0..MADE as u16 {
        let id = node.context(peer + 2).id;
        let Node { endpoint, out, .. } = &mut node;
        endpoint.discard(id, GoneReason::Discarded, out);
    }
    node.endpoint.begin_telling(0);
    assert_eq!(node.endpoint.left_to_tell(0), MADE, "nobody is there, which is not known yet");
    let mut turns = 0;
    while node.endpoint.left_to_tell(0) > 0 {
        let mut looks = 100;
        assert!(node.endpoint.next_to_tell(0, &mut looks).is_none());
        turns += 1;
    }
    assert_eq!(turns, MADE / 100);
}
