//! Who has to hear what is new of hosts and providers, found a few places of the table at a time.
//!
//! News concern all contexts of some hosts, perhaps of all. To look at them at once would keep everything else waiting where
//! they are many, so a turn looks at some places of the table and the next one goes on there. Who has to move hears first,
//! whenever it was found, and before all others who does so while payload flows: each that moves has probes to send, and when a
//! provider is lost those of idle contexts would keep sessions waiting. News that come during a round make it begin again from where it is, for the hosts of both.

use std::collections::VecDeque;

use dataplane::wire::Ulid;
use hashbrown::HashSet;

use super::Engine;
use crate::reap::Sightings;
use crate::shim6::ContextId;
use crate::time::Instant;

/// Places of the table that are looked at in one call, so that events of the workers never wait long.
const LOOKED_AT_PER_TURN: usize = 2048;
/// Payload flows in a context if some was seen in so many half seconds: the Send Timeout that is usual (R5534-104).
const IN_USE: u64 = 30;

/// Contexts that have something to hear, and those of which that is not known yet.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Whose contexts are looked for.
    hosts: HashSet<Ulid>,
    /// The next place to look at.
    at: usize,
    /// Places that have not been looked at.
    left: usize,
    /// Who has to leave the pair it uses while payload flows, in order.
    urgent: VecDeque<ContextId>,
    /// Who has to leave the pair it uses and is idle.
    movers: VecDeque<ContextId>,
    /// Everybody else.
    others: VecDeque<ContextId>,
}

impl Round {
    /// There is news for the contexts of these hosts, in a table of so many places.
    pub(super) fn begin(&mut self, hosts: Vec<Ulid>, places: usize) {
        if !hosts.is_empty() {
            self.hosts.extend(hosts);
            self.left = places;
        }
    }

    /// When there is something to look at: at once.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.left > 0).then_some(Instant::START)
    }

    /// Whether somebody has something to hear, known or not.
    pub(super) fn is_under_way(&self) -> bool {
        self.left > 0 || self.len() > 0
    }

    /// Contexts known to have something to hear.
    pub(super) fn len(&self) -> usize {
        self.urgent.len() + self.movers.len() + self.others.len()
    }

    /// Whether it is the turn of somebody idle who has to leave its pair.
    pub(super) fn moves_idle(&self) -> bool {
        self.urgent.is_empty() && !self.movers.is_empty()
    }
}

impl Engine {
    /// A context is to hear what is new, in its turn.
    pub(super) fn has_news(&mut self, id: ContextId) {
        if let Some(attached) = self.attached.get_mut(&id).filter(|attached| attached.mirrored.is_none())
            && !std::mem::replace(&mut attached.news, true)
        {
            self.round.others.push_back(id);
        }
    }

    /// Whose turn it is to hear something. It may be gone.
    pub(super) fn next_with_news(&self) -> Option<ContextId> {
        let Round { urgent, movers, others, .. } = &self.round;
        [urgent, movers, others].into_iter().find_map(|queue| queue.front().copied())
    }

    /// It hears it now.
    pub(super) fn hears_news(&mut self, id: ContextId) {
        let Round { urgent, movers, others, .. } = &mut self.round;
        let _ = [urgent, movers, others].into_iter().find_map(|queue| queue.pop_front_if(|first| *first == id));
        if let Some(attached) = self.attached.get_mut(&id) {
            attached.news = false;
        }
    }

    /// Goes on with a round, if one is under way.
    pub(super) fn go_round(&mut self, now: Instant) {
        let (places, step_now) = (self.endpoint.places(), Sightings::step(now));
        let mut looked_at = 0;
        while self.round.left > 0 && looked_at < LOOKED_AT_PER_TURN {
            let start = if self.round.at < places { self.round.at } else { 0 };
            let step = (LOOKED_AT_PER_TURN - looked_at).min(self.round.left).min(places - start);
            let found: Vec<(ContextId, bool)> = self.concerned(start..start + step).collect();
            for (id, moves) in found {
                let Some(attached) = self.attached.get_mut(&id) else { continue };
                attached.stayed = 0;
                let in_use = attached.counted.iter().flatten().any(|seen| step_now.saturating_sub(*seen) < IN_USE);
                if moves && !std::mem::replace(&mut attached.news, true) {
                    let queue = if in_use { &mut self.round.urgent } else { &mut self.round.movers };
                    queue.push_back(id);
                }
                self.has_news(id);
            }
            // The table never shrinks, and what is new in it knows the news.
            self.round.at = start + step;
            self.round.left -= step;
            looked_at += step.max(1);
        }
        if self.round.left == 0 {
            self.round.hosts.clear();
        }
    }

    /// The contexts in these places of which a round is about, and whether each has to leave the pair it uses.
    fn concerned(&self, places: std::ops::Range<usize>) -> impl Iterator<Item = (ContextId, bool)> {
        self.endpoint.contexts_at(places).filter_map(|context| {
            let host = self.endpoint.inside(context.ulids).local;
            let moves = self.is_unwelcome(host, context.pair.local);
            // Whoever runs a context tells its peer.
            let concerned = self.round.hosts.contains(&host) && !self.is_mirrored(context.id);
            concerned.then_some((context.id, moves))
        })
    }
}
