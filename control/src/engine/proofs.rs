//! Proofs that take long, for somebody else to compute: the engine says what, and takes the answers as input.

use rand::Rng;

use super::{Effect, Engine};
use crate::shim6::{Finding, ProofJob};
use crate::time::Instant;

impl Engine {
    /// From now on signatures are for somebody else to verify, who asks for them by [`Engine::next_proof`] and answers by
    /// [`Engine::proved`]. Before that, each is verified where it is met.
    pub fn defer_proofs(&mut self) {
        self.endpoint.defer_proofs();
    }

    /// The next proof to be computed, if there is one; sites of peers have their turns.
    pub fn next_proof(&mut self) -> Option<ProofJob> {
        self.endpoint.next_proof()
    }

    /// A proof has been computed: the messages that waited for it go on.
    pub fn proved(&mut self, now: Instant, rng: &mut dyn Rng, finding: Finding, effects: &mut Vec<Effect>) {
        let mut out = std::mem::take(&mut self.outputs);
        for verdict in self.endpoint.proved(now, rng, finding, &mut out) {
            self.tally.shim6(verdict);
        }
        self.follow(now, rng, out, effects);
    }
}
