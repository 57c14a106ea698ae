//! Whether a host gets IPv4 addresses of a peer that has a CMULA.
//!
//! It does not where the policy says so and the peer answers: there is a context of the two that works. While there is none
//! a handshake is begun, as for any host that is told of a peer, and the answer waits for it a while. When nothing is heard,
//! or the host gets no handshake now, it gets all addresses.

use dataplane::wire::{Ulid, UlidPair};
use rand::Rng;

use super::{Effect, Engine};
use crate::config::site::ARecords;
use crate::dns::Choice;
use crate::reap;
use crate::shim6::State;
use crate::time::Instant;

impl Engine {
    /// Whether answers may differ at all is another matter now.
    pub(super) fn note_withholding(&mut self) {
        let classes = self.steered.iter().flat_map(|steered| &steered.controller.policy().classes);
        let some = classes.into_iter().any(|class| class.a_records == Some(ARecords::Withhold));
        if let Some(names) = &mut self.names {
            let withholds = names.withholds || some;
            names.alg.set_withholding(withholds);
        }
    }

    /// A host shall have one of two answers.
    pub(super) fn choose(&mut self, now: Instant, rng: &mut dyn Rng, choice: Choice, effects: &mut Vec<Effect>) {
        let host = Ulid(choice.client.host());
        if !choice.peers.iter().all(|peer| self.withholds(host, *peer)) {
            return self.give(now, [(choice.client, choice.with)], effects);
        }
        if self.reaches(host, &choice.peers) {
            return self.end_choice(now, choice, effects);
        }
        let begun = choice.learned.clone().and_then(|(learned, good)| {
            self.learn(now, &learned, good, super::peers::Trust::Told);
            self.start_handshake(now, rng, host, &learned, effects)
        });
        let pairs = choice.peers.iter().map(|peer| UlidPair { local: host, peer: *peer });
        let opening = |pair: &UlidPair| {
            let context = self.endpoint.find(*pair, 0);
            context.is_some_and(|context| context.state != State::Established)
        };
        let Some(pair) = begun.or_else(|| pairs.clone().find(opening)) else {
            return self.end_choice(now, choice, effects);
        };
        let Some(names) = &mut self.names else { return };
        if let Some(choice) = names.choices.keep(now, pair, choice) {
            self.end_choice(now, choice, effects);
        }
    }

    /// The handshake of a pair is over, well or not.
    pub(super) fn end_choices(&mut self, now: Instant, pair: UlidPair, effects: &mut Vec<Effect>) {
        let Some(names) = &mut self.names else { return };
        let choices = names.choices.release(pair);
        choices.into_iter().for_each(|choice| self.end_choice(now, choice, effects));
    }

    /// A host gets the answer that is right as things are now.
    pub(super) fn end_choice(&mut self, now: Instant, choice: Choice, effects: &mut Vec<Effect>) {
        let withheld = self.reaches(Ulid(choice.client.host()), &choice.peers);
        if let Some(names) = &mut self.names {
            names.alg.chose(withheld);
        }
        let octets = if withheld { choice.without } else { choice.with };
        self.give(now, [(choice.client, octets)], effects);
    }

    /// What the policy says of a host and a peer, or else the configuration.
    fn withholds(&self, host: Ulid, peer: Ulid) -> bool {
        let class = self.steered.as_ref().and_then(|steered| {
            let policy = steered.controller.policy();
            policy.classes.get(policy.class_of(host.0, peer.0))?.a_records
        });
        match class {
            Some(said) => said == ARecords::Withhold,
            None => self.names.as_ref().is_some_and(|names| names.withholds),
        }
    }

    /// Whether a host reaches one of these at its CMULA: a host of the site, or a peer that answers.
    fn reaches(&self, host: Ulid, peers: &[Ulid]) -> bool {
        let answers = |peer: &Ulid| {
            let context = self.endpoint.find(UlidPair { local: host, peer: *peer }, 0);
            let context = context.filter(|context| context.state == State::Established);
            let reap = context.and_then(|context| self.attached.get(&context.id)?.reap.as_ref());
            reap.is_some_and(|reap| reap.state() == reap::State::Operational)
        };
        peers.iter().any(|peer| self.served.contains_key(peer) || answers(peer))
    }
}
