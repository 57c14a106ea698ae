//! How long handshakes and failovers took.

use dataplane::histogram::Histogram;
use hashbrown::HashMap;

use crate::shim6::ContextId;
use crate::time::Instant;

/// Times of what the engine waits for.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    /// From the first I1 to the R2.
    pub(crate) handshakes: Histogram,
    /// From the moment a context was in doubt about its pair to the moment it knew one that works.
    pub(crate) failovers: Histogram,
    /// When exchanges under way began; there are no more of them than the endpoint allows.
    opened: HashMap<ContextId, Instant>,
}

impl Durations {
    /// An exchange begins.
    pub(super) fn opening(&mut self, now: Instant, id: ContextId) {
        self.opened.insert(id, now);
    }

    /// It came to its end: `done` says whether it was we who began it and it worked.
    pub(super) fn opened(&mut self, now: Instant, id: ContextId, done: bool) {
        if let Some(began) = self.opened.remove(&id).filter(|_| done) {
            self.handshakes.observe(nanos(now.since(began)));
        }
    }

    /// A context looked for another pair and found one, or found its own to work.
    pub(super) fn explored(&mut self, after: std::time::Duration) {
        self.failovers.observe(nanos(after));
    }

    /// Exchanges of which the beginning is remembered.
    pub(super) fn under_way(&self) -> usize {
        self.opened.len()
    }
}

fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
