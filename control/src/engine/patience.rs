//! Answers that wait for a handshake.
//!
//! A host that is told a name connects in the same millisecond, and its first packet would wait at the worker until the context
//! is there. So the answer waits instead, shortly: for whoever connects nothing takes longer, and TCP measures a round trip
//! without a handshake in it. It waits less than hosts wait for an AAAA record when they have an A record already (RFC 8305
//! §3: 50 ms), and only the answer that began the handshake waits.

use std::collections::VecDeque;
use std::time::Duration;

use dataplane::wire::UlidPair;
use hashbrown::HashMap;

use crate::time::Instant;

/// Answers that wait at a time; more are given at once.
const WAITING_MAX: usize = 1024;

/// The answers that wait.
#[derive(Debug)]
pub(super) struct Patience<Reply> {
    longest: Duration,
    waiting: HashMap<UlidPair, Vec<Reply>>,
    /// In order, since all wait equally long. What was given meanwhile is still named here until then.
    due: VecDeque<(Instant, UlidPair)>,
}

impl<Reply> Patience<Reply> {
    /// Answers wait at most so long; not at all if that is nothing.
    pub(super) fn new(longest: Duration) -> Patience<Reply> {
        Patience { longest, waiting: HashMap::new(), due: VecDeque::new() }
    }

    /// Keeps an answer until the context of a pair is there. The answer comes back if it cannot wait.
    pub(super) fn keep(&mut self, now: Instant, pair: UlidPair, reply: Reply) -> Option<Reply> {
        if self.longest.is_zero() || self.due.len() >= WAITING_MAX {
            return Some(reply);
        }
        self.due.push_back((now + self.longest, pair));
        self.waiting.entry(pair).or_default().push(reply);
        None
    }

    /// Lets go of what waited for a pair: its context is there, or it will not be.
    pub(super) fn release(&mut self, pair: UlidPair) -> Vec<Reply> {
        self.waiting.remove(&pair).unwrap_or_default()
    }

    /// Lets go of what has waited long enough.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Reply> {
        let mut replies = Vec::new();
        while let Some((_, pair)) = self.due.pop_front_if(|(due, _)| *due <= now) {
            replies.append(&mut self.release(pair));
        }
        replies
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.values().map(Vec::len).sum()
    }

    /// When something has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.front().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use crate::dns::Client;

    use dataplane::wire::Ulid;

    use super::*;

    fn pair(peer: u16) -> UlidPair {
        let ulid = |site, host| Ulid(Ipv6Addr::new(0xfc00, site, 0, 0, 0, 0, 0, host));
        UlidPair { local: ulid(1, 1), peer: ulid(2, peer) }
    }

    fn reply(number: u8) -> (Client, Vec<u8>) {
        let at = |port| (Ipv6Addr::LOCALHOST, port);
        (Client::Datagram(at(4000), at(53)), vec![number])
    }

    fn at(ms: u64) -> Instant {
        Instant(Duration::from_millis(ms))
    }

    #[test]
    fn an_answer_waits_for_its_pair_and_not_for_long() {
        let mut patience = Patience::new(Duration::from_millis(40));
        for (ms, peer) in [(0, 1), (10, 2), (20, 1)] {
            assert_eq!(patience.keep(at(ms), pair(peer), reply(ms as u8)), None);
        }
        assert_eq!(patience.deadline(), Some(at(40)));
        assert_eq!(patience.release(pair(1)), [reply(0), reply(20)]);
        assert_eq!(patience.expire(at(49)), []);
        assert_eq!(patience.expire(at(50)), [reply(10)]);
        assert_eq!((patience.release(pair(2)), patience.expire(at(99))), (vec![], vec![]));
        assert_eq!(patience.deadline(), None);
    }

    #[test]
    fn there_is_a_bound_and_it_can_be_switched_off() {
        let mut patience = Patience::new(Duration::from_millis(40));
        let refused = (0..2000).filter(|_| patience.keep(at(0), pair(1), reply(0)).is_some()).count();
        assert_eq!(refused, 2000 - WAITING_MAX);
        assert_eq!(patience.expire(at(40)).len(), WAITING_MAX);
        assert_eq!(patience.keep(at(41), pair(1), reply(1)), None);
        assert_eq!(Patience::new(Duration::ZERO).keep(at(0), pair(1), reply(1)), Some(reply(1)));
    }
}
