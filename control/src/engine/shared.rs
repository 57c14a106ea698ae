//! A store that several boxes of the site share: what the others wrote, and what is reserved for this one.

use std::net::Ipv6Addr;

use rand::Rng;

use super::{Effect, Engine, Event, Story};
use crate::dhcp::{Change, Identity};
use crate::time::Instant;

/// Identifiers that wait to be given back; more are given back when the box begins the next time.
const RELEASED_MAX: usize = 1024;

impl Engine {
    /// Other boxes wrote this, or what this one wrote came to this. Hosts follow at once.
    pub fn store_changed(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        (changes, number): (Vec<Change>, u64),
        effects: &mut Vec<Effect>,
    ) {
        let Some(leases) = &mut self.leases else { return };
        leases.seen = number;
        let mut out = Vec::new();
        for change in changes {
            self.tally.count(Event::StoreHeard);
            leases.server.take_in(change, &mut out);
        }
        self.follow_leases(now, rng, out, effects);
    }

    /// There were news that mean nothing to leases.
    pub fn store_heard(&mut self, number: u64) {
        if let Some(leases) = &mut self.leases {
            leases.seen = number;
        }
    }

    /// Other boxes cannot be heard for this reason, or they can again.
    pub fn store_alone(&mut self, reason: Option<String>, effects: &mut Vec<Effect>) {
        self.tally.count(if reason.is_some() { Event::StoreAlone } else { Event::StoreTogether });
        if let Some(leases) = &mut self.leases {
            leases.server.set_alone(reason.is_some());
        }
        effects.push(Effect::Story(Story::StoreAlone(reason)));
    }

    /// Another box had changed the same as this one, and this became of it.
    pub fn store_conflict(&mut self, what: String, effects: &mut Vec<Effect>) {
        self.tally.count(Event::StoreConflicts);
        effects.push(Effect::Story(Story::StoreConflict(what)));
    }

    /// Another box goes by this one's name, or none does any more.
    pub fn store_name(&mut self, rival: Option<String>, effects: &mut Vec<Effect>) {
        if rival.is_some() {
            self.tally.count(Event::StoreNameTaken);
        }
        effects.push(Effect::Story(Story::StoreName(rival)));
    }

    /// A row of the store cannot be read.
    pub fn store_unreadable(&mut self, row: String, effects: &mut Vec<Effect>) {
        self.tally.count(Event::StoreUnreadable);
        effects.push(Effect::Story(Story::StoreUnreadable(row)));
    }

    /// The next identifier that was reserved and will not be used.
    pub fn next_released(&mut self) -> Option<Ipv6Addr> {
        self.leases.as_mut()?.released.pop_front()
    }

    /// What was reserved before the box began is given to clients as it is made now; the rest is given back.
    pub(super) fn stock_reserved(&mut self, reserved: Vec<Identity>) {
        let Some(leases) = &mut self.leases else { return };
        for identity in reserved {
            let fits = leases.job.would_make(&identity);
            if fits && leases.server.ready() < super::leases::RESERVE {
                leases.server.stock(identity);
            } else if leases.released.len() < RELEASED_MAX {
                leases.released.push_back(identity.ulid);
            }
        }
    }
}
