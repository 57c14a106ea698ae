//! Who may have a context, and which one goes to make room for it (spec part 5, item 3; decision 0015).
//!
//! A validator only shows that a peer answers where it says it is; identifiers, forks and HBA sets cost it nothing. So
//! contexts that peers ask for are shared out: a few forks for each pair of ULIDs, a share of the table for each /64,
//! and a part of the table not at all, for contexts that our own hosts need. Where space is short, a context that a peer
//! asked for and nobody has used since gives way to the next one; one that was used never does.

use std::net::Ipv6Addr;

use super::context::{Accepted, ContextId};
use super::dispatch::Key;
use super::endpoint::Endpoint;
use super::output::{DropReason, GoneReason, Output};
use crate::time::Instant;

/// The context that goes for a newcomer, if one has to. It stays until the newcomer is taken in for certain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Displaced(pub(super) Option<ContextId>);

impl Endpoint {
    /// Whether a peer may have a new context by an I2 or I2bis from `source`, and which other one goes for it. Changes
    /// nothing and costs little, so that it can be asked before anything is proved.
    pub(super) fn admit(&self, now: Instant, key: Key, source: Ipv6Addr) -> Result<Displaced, DropReason> {
        if key.fork != 0 && self.store.forks(key.ulids) >= self.config.forks_max {
            return Err(DropReason::TooManyForks);
        }
        let prefix = prefix_of(source);
        if self.store.accepted_from(prefix) >= self.config.accepted_per_prefix_max() {
            // Whoever crowds a prefix displaces its own contexts and nobody else's.
            let displaced = self.stale(now, self.store.oldest_unused_of(prefix));
            return displaced.map(|id| Displaced(Some(id))).ok_or(DropReason::TooManyFromPrefix);
        }
        let displaced = self.displaceable(now);
        let left = self.store.len() - usize::from(displaced.is_some());
        if left >= self.contexts_max() {
            Err(DropReason::Full)
        } else if left >= self.contexts_max().saturating_sub(self.config.initiated_reserve()) {
            Err(DropReason::Reserved)
        } else {
            Ok(Displaced(displaced))
        }
    }

    /// Whether there is room for a context that we initiate, and which other one goes for it. Changes nothing.
    pub(super) fn admit_own(&self, now: Instant) -> Option<Displaced> {
        let displaced = self.displaceable(now);
        let left = self.store.len() - usize::from(displaced.is_some());
        (left < self.contexts_max()).then_some(Displaced(displaced))
    }

    /// A newcomer has its tag, and everything else it needs: now the other one goes for it.
    pub(super) fn displace(&mut self, Displaced(displaced): Displaced, out: &mut Vec<Output>) {
        if let Some(id) = displaced {
            self.discard(id, GoneReason::Displaced, out);
        }
    }

    /// Payload, or a message that only the peer of the context could send, has come or gone: it is there for something.
    pub(super) fn touch(&mut self, id: ContextId) {
        let news = self.store.get(id).and_then(|context| context.accepted).is_some_and(|accepted| !accepted.used);
        let accepted = self.store.get_mut_unnoted(id).and_then(|context| context.accepted.as_mut());
        if let Some(accepted) = accepted.filter(|_| news) {
            accepted.used = true;
            self.store.settle(id);
            self.store.note(id);
        }
    }

    /// The context that goes first, if the table is three quarters full and there is one that may.
    fn displaceable(&self, now: Instant) -> Option<ContextId> {
        let short = self.store.len() >= self.contexts_max() - self.contexts_max() / 4;
        self.stale(now, self.store.oldest_unused()).filter(|_| short)
    }

    /// The peer, and the workers' reports, get some time to show that the context is used.
    fn stale(&self, now: Instant, unused: Option<(Instant, ContextId)>) -> Option<ContextId> {
        unused.filter(|(since, _)| *since + self.config.unused_min <= now).map(|(_, id)| id)
    }

    fn contexts_max(&self) -> usize {
        self.config.contexts_max.min(u32::MAX as usize)
    }
}

impl Accepted {
    /// Just now, from `source`.
    pub(super) fn from(source: Ipv6Addr, now: Instant) -> Accepted {
        Accepted { prefix: prefix_of(source), since: now, used: false }
    }
}

/// The /64 that an address is in.
fn prefix_of(address: Ipv6Addr) -> u64 {
    (address.to_bits() >> 64) as u64
}
