//! Two nodes and everything they ever sent. A node is a place in a tree of inputs: what one input does to a node in one
//! place is tried once on the real machine and remembered, since most steps of a search leave the other node alone.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use control::shim6::Verdict;
use control::time::Instant;

use crate::node::{Birth, Effect, Input, Live, Mark, Packet, Seen, Validators, What, is_limited};
use crate::{Fault, Setup};

/// A place in the tree.
pub struct Place {
    pub site: usize,
    pub life: u32,
    pub now: Instant,
    pub deadline: Option<Instant>,
    pub contexts: Vec<Seen>,
    pub marks: Vec<Mark>,
    draws: u64,
    /// How it was reached, within this life.
    parent: Option<(u32, Input)>,
    /// How this life began.
    birth: Birth,
}

/// What an input leads to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub place: u32,
    /// Packets by number, in the order they were sent.
    pub sent: Vec<u32>,
    /// Whether a context is no more.
    pub lost: bool,
    /// What must not happen, and did.
    pub wrong: Option<String>,
}

pub struct World<'a> {
    pub setup: &'a Setup,
    pub places: Vec<Place>,
    pub packets: Vec<Packet>,
    pub validators: Validators,
    numbers: HashMap<(usize, Vec<u8>), u32>,
    tried: HashMap<(u32, Input), Outcome>,
    /// What happened at least once.
    pub met: BTreeSet<String>,
}

impl<'a> World<'a> {
    pub fn new(setup: &'a Setup) -> World<'a> {
        let (places, packets, validators) = (Vec::new(), Vec::new(), Validators::default());
        let (numbers, tried, met) = (HashMap::new(), HashMap::new(), BTreeSet::new());
        let mut world = World { setup, places, packets, validators, numbers, tried, met };
        for site in 0..2 {
            let live = Live::new(setup, site, Birth::FIRST);
            world.add(&live, None, Birth::FIRST);
        }
        world
    }

    /// Times the real machine was asked.
    pub fn tries(&self) -> usize {
        self.tried.len()
    }

    /// What `input` does to the node at `place`.
    pub fn apply(&mut self, place: u32, input: Input) -> Outcome {
        if let Some(known) = self.tried.get(&(place, input)) {
            return known.clone();
        }
        let outcome = match catch_unwind(AssertUnwindSafe(|| self.attempt(place, input))) {
            Ok(outcome) => outcome,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                let wrong = Some(format!("the node panics: {}", text.unwrap_or_default()));
                Outcome { place, sent: Vec::new(), lost: false, wrong }
            }
        };
        self.tried.insert((place, input), outcome.clone());
        outcome
    }

    fn attempt(&mut self, place: u32, input: Input) -> Outcome {
        let mut live = self.live(place);
        let effect = self.play(&mut live, input);
        let before = &self.places[place as usize];
        let (site, birth) = (before.site, before.birth);
        live.note_validators(&effect.sent, &mut self.validators);
        let lost = !effect.gone.is_empty();
        let next = if input == Input::Restart {
            self.add(&live, None, Birth { life: live.life, at: live.now, generation: live.generation() })
        } else if self.is_still(place, &live) {
            place
        } else {
            self.add(&live, Some((place, input)), birth)
        };
        let wrong = self.judge(place, next, input, &effect);
        self.met.extend(effect.gone.iter().map(|reason| format!("{reason:?}")));
        self.met.extend(effect.verdict.map(|verdict| format!("{verdict:?}")));
        self.met.extend(live.contexts().iter().map(|seen| format!("{:?}", seen.state)));
        let mut sent = Vec::new();
        for (addresses, what) in effect.sent {
            let packet = Packet::new(1 - site, addresses, self.falsified(what), &self.validators);
            sent.push(self.number(packet));
        }
        Outcome { place: next, sent, lost, wrong }
    }

    /// The node at a place, made by doing again what led there.
    fn live(&self, place: u32) -> Live {
        let mut inputs = Vec::new();
        let mut at = &self.places[place as usize];
        while let Some((parent, input)) = at.parent {
            inputs.push(input);
            at = &self.places[parent as usize];
        }
        let mut live = Live::new(self.setup, at.site, at.birth);
        for input in inputs.into_iter().rev() {
            self.play(&mut live, input);
        }
        live
    }

    fn play(&self, live: &mut Live, input: Input) -> Effect {
        let packet = match input {
            Input::Receive(number) => Some(&self.packets[number as usize]),
            _ => None,
        };
        match (self.setup.fault, packet) {
            // The faults that are planted to see the search find them.
            (Some(Fault::Deaf), Some(packet)) if packet.name() == "R2" => Effect::default(),
            (Some(Fault::Credulous), Some(packet)) if packet.is_i1() => live.apply(self.setup, Input::Open(0), None),
            _ => live.apply(self.setup, input, packet),
        }
    }

    fn falsified(&self, mut what: What) -> What {
        if let (Some(Fault::ForgedTag), What::Message(message)) = (self.setup.fault, &mut what)
            && let dataplane::wire::shim6::Message::R2 { responder_tag, .. } = &mut **message
        {
            *responder_tag = dataplane::wire::ContextTag::truncate(responder_tag.value() ^ 1);
        }
        what
    }

    /// Whether nothing that matters has changed.
    fn is_still(&self, place: u32, live: &Live) -> bool {
        let before = &self.places[place as usize];
        before.now == live.now && before.draws == live.draws() && before.marks == live.marks(&self.validators)
    }

    fn add(&mut self, live: &Live, parent: Option<(u32, Input)>, birth: Birth) -> u32 {
        let place = Place {
            site: live.site,
            life: live.life,
            now: live.now,
            deadline: live.endpoint.deadline(),
            contexts: live.contexts(),
            marks: live.marks(&self.validators),
            draws: live.draws(),
            parent,
            birth,
        };
        self.places.push(place);
        (self.places.len() - 1) as u32
    }

    fn number(&mut self, packet: Packet) -> u32 {
        let next = self.packets.len() as u32;
        let number = *self.numbers.entry((packet.to, packet.octets())).or_insert(next);
        if number == next {
            self.packets.push(packet);
        }
        number
    }

    /// What one step of one node shows. State comes to a node that did not ask for it by an I2 or I2bis alone, with a
    /// validator that it made in this life and not long ago; an I1 leaves nothing behind (RFC 5533 §7.9, §7.13, §7.20).
    fn judge(&self, before: u32, after: u32, input: Input, effect: &Effect) -> Option<String> {
        if is_limited(effect.verdict) {
            return Some(format!("a limit hides behaviour: {:?}", effect.verdict));
        }
        let Input::Receive(number) = input else { return None };
        let (before, after) = (&self.places[before as usize], &self.places[after as usize]);
        let packet = &self.packets[number as usize];
        if packet.is_i1() && before.contexts.is_empty() && before.marks != after.marks {
            return Some("an I1 leaves state behind".to_owned());
        }
        if after.contexts.len() <= before.contexts.len() {
            return None;
        }
        let Some(validator) = packet.offer() else {
            return Some(format!("a context comes of {}", packet.name()));
        };
        let Mark::Validator(number) = self.validators.mark(validator) else {
            return Some("a context comes without a validator".to_owned());
        };
        let issued = self.validators.issued[number as usize];
        let sound = (issued.site, issued.life) == (before.site, before.life)
            && Validators::tick(before.now) - issued.tick <= 300
            && effect.verdict == Some(Verdict::Accepted);
        (!sound).then(|| format!("a context comes of a validator that does not count: {issued:?}"))
    }
}
