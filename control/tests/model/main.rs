//! Model checking: every state that two nodes can get into, on a wire that may do anything to what they say but forge it.
//!
//! The nodes are the real endpoints ([`node`]), not a description of them. Nothing is ever taken off the wire ([`search`]),
//! so losses, copies, delays and disorder have no bound. What has one ([`Bounds`]): how often hosts ask for a context,
//! timers run, nodes lose what they know, and hosts send payload. Each node has a clock of its own, which moves when its
//! timers run: no order is assumed between what happens at both ends.
//!
//! In every state: tags agree or lead nowhere; a node that was not asked holds no state but by an I2 or I2bis with a
//! validator of its own; no two contexts send the same tag to the same locators; no locator is believed that is not the
//! peer's; nothing panics; and from there a good wire leads both ends to agreement, after which they fall silent.
//!
//! `PSHIM6_MODEL_MORE=1` raises every bound by one. docs/model.md says what was searched.

#![allow(unreachable_pub, reason = "the modules of a test are seen by nobody else")]

mod node;
mod search;
mod world;

use std::time::Instant;

use control::shim6::ConfusionPolicy;
use node::Input;
use search::{Failure, Report, Search};

/// What is searched.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Hosts of each site.
    pub hosts: [usize; 2],
    /// Hosts that talk: one of site 0, one of site 1.
    pub pairs: Vec<[usize; 2]>,
    /// Locators of each host.
    pub providers: usize,
    /// Retransmissions of I1, I2 and I2bis.
    pub retries_max: u32,
    /// Random bits of each node's tags.
    pub tag_bits: [u32; 2],
    /// What becomes of the older of two contexts with one tag.
    pub confusion: ConfusionPolicy,
    /// How much may happen.
    pub bounds: Bounds,
    /// What is wrong on purpose.
    pub fault: Option<Fault>,
}

/// How often things may happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// A host of this site asks for a context.
    pub opens: [u8; 2],
    /// A node's next timer runs.
    pub timers: u8,
    /// A node forgets its contexts, or all it knows.
    pub losses: u8,
    /// The hosts of a site send payload.
    pub talks: u8,
    /// The hosts of a site get another list of locators.
    pub renumberings: u8,
    /// A packet that has arrived arrives once more, and does something; without a number as often as it likes.
    pub copies: Option<u8>,
}

/// Faults that are planted, to see that the search finds them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// R2 names another tag than the sender's.
    ForgedTag,
    /// A node takes no notice of R2.
    Deaf,
    /// A node makes a context for an I1.
    Credulous,
}

impl Setup {
    fn new(bounds: Bounds) -> Setup {
        Setup {
            hosts: [1, 1],
            pairs: vec![[1, 1]],
            providers: 1,
            retries_max: 1,
            tag_bits: [37; 2],
            confusion: ConfusionPolicy::Discard,
            bounds: bounds.raised(),
            fault: None,
        }
    }

    /// Whether `node`, when it starts anew, gives out the tags of its last life: those of its few bits that count do.
    pub fn tags_repeat(&self, node: usize) -> bool {
        self.tag_bits[node] < 14
    }

    fn search(&self) -> Result<Report, Failure> {
        let began = Instant::now();
        let result = Search::new(self).run();
        println!("{:?} in {:?}", self.bounds, began.elapsed());
        result
    }

    fn holds(&self) -> Report {
        match self.search() {
            Ok(report) => {
                let Report { states, steps, depth, tries, quiet, met } = &report;
                println!(
                    "{states} states, {steps} steps between them, {tries} tried, the farthest {depth} deep; {quiet} led to \
                     agreement; met: {met:?}"
                );
                report
            }
            Err(failure) => panic!("{failure:#?}"),
        }
    }

    fn fails(&self) -> Failure {
        let failure = self.search().expect_err("the fault is found");
        println!("{failure:#?}");
        failure
    }
}

impl Report {
    /// A search that never came this far has shown nothing.
    fn met(&self, things: &[&str]) {
        for thing in things {
            assert!(self.met.contains(*thing), "{thing} is not among {:#?}", self.met);
        }
    }
}

impl Bounds {
    fn raised(mut self) -> Bounds {
        let more: u8 = std::env::var("PSHIM6_MODEL_MORE").map_or(0, |text| text.parse().expect("a small number"));
        let [a, b] = &mut self.opens;
        let bounds = [a, b, &mut self.timers, &mut self.losses, &mut self.talks, &mut self.renumberings];
        for bound in bounds.into_iter().chain(&mut self.copies) {
            *bound += if *bound > 0 { more } else { 0 };
        }
        self
    }
}

const NONE: Bounds = Bounds { opens: [0, 0], timers: 0, losses: 0, talks: 0, renumberings: 0, copies: Some(0) };

// One node asks. Whatever arrives, however often and late, is covered; nobody loses a context but by giving up.
#[test]
fn one_side_asks() {
    let report = Setup::new(Bounds { opens: [1, 0], timers: 5, copies: None, ..NONE }).holds();
    report.met(&["I1Sent", "I2Sent", "Established", "NoAnswer", "Idle", "Dropped(StaleNonce)", "Dropped(WrongState)"]);
}

#[test]
fn both_sides_ask() {
    let report = Setup::new(Bounds { opens: [1, 1], timers: 3, copies: None, ..NONE }).holds();
    report.met(&["I1Sent", "I2Sent", "Established", "NoAnswer", "Answered(R1)", "Answered(R2)"]);
}

#[test]
fn both_sides_ask_on_two_pairs_of_locators() {
    let bounds = Bounds { opens: [1, 1], timers: 2, copies: None, ..NONE };
    Setup { providers: 2, ..Setup::new(bounds) }.holds();
}

#[test]
fn a_side_forgets() {
    let report = Setup::new(Bounds { opens: [1, 0], timers: 2, losses: 1, talks: 2, copies: Some(1), ..NONE }).holds();
    report.met(&["I1Sent", "I2Sent", "I2bisSent", "Established", "Discarded", "Dropped(BadValidator)"]);
    report.met(&["Answered(R1bis)"]);
}

#[test]
fn both_forget() {
    Setup::new(Bounds { opens: [1, 0], timers: 1, losses: 2, talks: 2, copies: Some(1), ..NONE }).holds();
}

#[test]
fn both_ask_and_a_side_forgets() {
    Setup::new(Bounds { opens: [1, 1], timers: 1, losses: 1, talks: 1, copies: Some(1), ..NONE }).holds();
}

#[test]
fn who_forgot_asks_again() {
    Setup::new(Bounds { opens: [2, 1], timers: 1, losses: 1, talks: 1, ..NONE }).holds();
}

#[test]
fn locators_change_meanwhile() {
    let bounds = Bounds { opens: [1, 0], losses: 1, talks: 1, renumberings: 1, copies: Some(1), ..NONE };
    let report = Setup::new(bounds).holds();
    report.met(&["Dropped(WrongNonce)"]);
}

#[test]
fn locators_of_both_change_twice() {
    Setup::new(Bounds { opens: [1, 0], losses: 1, renumberings: 2, ..NONE }).holds();
    Setup::new(Bounds { opens: [1, 1], timers: 1, renumberings: 2, ..NONE }).holds();
}

/// Two hosts of site 0 talk to one of site 1, whose node gives out its tags again when it starts anew (RFC 5533 §7.15).
fn tags_given_twice(confusion: ConfusionPolicy) -> Report {
    let bounds = Bounds { opens: [2, 0], losses: 1, talks: 2, ..NONE };
    let (hosts, pairs) = ([2, 1], vec![[1, 1], [2, 1]]);
    Setup { hosts, pairs, tag_bits: [37, 8], confusion, ..Setup::new(bounds) }.holds()
}

#[test]
fn a_tag_given_twice_ends_the_older_context() {
    tags_given_twice(ConfusionPolicy::Discard).met(&["Confused"]);
}

#[test]
fn a_tag_given_twice_has_the_older_context_made_anew() {
    tags_given_twice(ConfusionPolicy::Reestablish);
}

// The search finds what is wrong, by the shortest way there is.

#[test]
fn a_forged_tag_is_found() {
    let bounds = Bounds { opens: [1, 0], ..NONE };
    let failure = Setup { fault: Some(Fault::ForgedTag), ..Setup::new(bounds) }.fails();
    assert_eq!(failure.wrong, "a tag leads nowhere though nobody has lost a context");
    let path = ["node 0: Open(0)", "node 1: receives I1", "node 0: receives R1", "node 1: receives I2"];
    assert_eq!(failure.path, [&path[..], &["node 0: receives R2"]].concat());
}

#[test]
fn a_node_that_never_gets_anywhere_is_found() {
    let bounds = Bounds { opens: [1, 0], ..NONE };
    let failure = Setup { fault: Some(Fault::Deaf), ..Setup::new(bounds) }.fails();
    assert!(failure.wrong.starts_with("no agreement but"), "{}", failure.wrong);
}

#[test]
fn a_node_that_keeps_state_for_an_i1_is_found() {
    let bounds = Bounds { opens: [1, 0], ..NONE };
    let failure = Setup { fault: Some(Fault::Credulous), ..Setup::new(bounds) }.fails();
    assert_eq!(failure.wrong, "an I1 leaves state behind");
    assert_eq!(failure.path, ["node 0: Open(0)", "node 1: receives I1"]);
}

#[test]
fn two_contexts_with_one_tag_are_found() {
    let [one, other] = [1, 2].map(|host| {
        let bounds = Bounds { opens: [1, 0], ..NONE };
        let setup = Setup { hosts: [2, 1], pairs: vec![[host, 1]], ..Setup::new(bounds) };
        let mut world = world::World::new(&setup);
        let mut places = [0, 1];
        let mut sent = 0;
        let mut todo = vec![(0, Input::Open(0))];
        while let Some((node, input)) = todo.pop() {
            let outcome = world.apply(places[node], input);
            places[node] = outcome.place;
            sent += outcome.sent.len();
            todo.extend(
                outcome.sent.iter().map(|number| (world.packets[*number as usize].to, Input::Receive(*number))),
            );
        }
        assert_eq!(sent, 4);
        world.places[places[0] as usize].contexts[0].clone()
    });
    // Each world is the first for its node, so both peers gave out the same tag, for locators of the same host.
    assert_eq!(search::unconfused(std::slice::from_ref(&one)), Ok(()));
    assert!(search::unconfused(&[one, other]).is_err());
}
