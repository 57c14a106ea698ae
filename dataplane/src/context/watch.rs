//! What the TCP of a context in doubt shows: that it sends the same again and nothing comes back, or that what it sent
//! has arrived.
//!
//! A TCP that hears nothing sends the oldest octet it has no acknowledgement for again, at first after its own timeout
//! (a quarter of a second on most paths) and then ever later (RFC 6298). REAP's Send Timeout is 15 s. So a repetition that
//! is seen in doubt is a reason to *test* the path long before (RFC 5534 §3.3, upper-layer negative indications). It is
//! never more than that: a host that crashed looks the same.
//!
//! An acknowledgement of what was sent on a pair proves that this pair carried it. It counts only if the pair was the same
//! all the while: as with round-trip times, nobody can say which of two transmissions is meant (RFC 6298 §3).

use crate::wire::LocatorPair;
use crate::wire::segment::{Segment, reaches};

/// Milliseconds for which a connection has to repeat itself before it is told of: on paths slower than that a first
/// repetition comes later anyway, on faster ones the second does.
const PATIENCE_MS: u64 = 300;
/// Milliseconds between two reports about the same context.
const AGAIN_MS: u64 = 1_000;
/// Milliseconds of silence of the watched connection after which another one may be watched.
const ABANDONED_MS: u64 = 10_000;

/// What TCP shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Retransmissions, and nothing at all has come back for the context.
    Stalled,
    /// What was sent on the pair was acknowledged.
    Progress,
}

/// One connection of a context in doubt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    watched: Option<Watched>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    ports: (u16, u16),
    /// Of the oldest octet seen.
    sequence: u32,
    /// After the segment that octet was in.
    end: u32,
    /// Where it was sent; none when it was sent on more than one.
    pair: Option<LocatorPair>,
    since: u64,
    last: u64,
    told: Option<u64>,
}

impl Watch {
    /// A segment leaves on `pair`. Whether the connection stalls, and that is to be told now.
    pub fn sent(&mut self, segment: &Segment, pair: LocatorPair, now: u64) -> bool {
        if segment.occupies == 0 || segment.reset {
            return false;
        }
        let fresh = Watched {
            ports: segment.ports,
            sequence: segment.sequence,
            end: segment.end(),
            pair: Some(pair),
            since: now,
            last: now,
            told: None,
        };
        let watched = match &mut self.watched {
            Some(watched) if now.saturating_sub(watched.last) < ABANDONED_MS => watched,
            _ => {
                self.watched = Some(fresh);
                return false;
            }
        };
        // Other connections are not watched, and octets after the oldest are news, not repetition.
        if watched.ports != segment.ports || !reaches(watched.sequence, segment.sequence) {
            return false;
        }
        let same_pair = watched.pair.filter(|before| *before == pair);
        let Watched { since, told, .. } = *watched;
        *watched = Watched { pair: same_pair, since, told, ..fresh };
        let due = now.saturating_sub(since) >= PATIENCE_MS;
        let again = told.is_none_or(|told| now.saturating_sub(told) >= AGAIN_MS);
        if due && again {
            watched.told = Some(now);
        }
        due && again
    }

    /// A segment came back. The pair on which what it acknowledges was sent, if that is what was watched.
    pub fn answered(&self, segment: &Segment) -> Option<LocatorPair> {
        let watched = self.watched.as_ref()?;
        let (source, target) = watched.ports;
        let ours = segment.ports == (target, source) && !segment.reset;
        segment.acknowledges.filter(|end| ours && reaches(*end, watched.end)).and(watched.pair)
    }

    /// Whether a stall was told of.
    pub fn has_told(&self) -> bool {
        self.watched.is_some_and(|watched| watched.told.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Locator;

    fn pair(n: u128) -> LocatorPair {
        LocatorPair {
            local: Locator(std::net::Ipv6Addr::from_bits(n)),
            peer: Locator(std::net::Ipv6Addr::from_bits(99)),
        }
    }

    fn data(sequence: u32) -> Segment {
        Segment { ports: (5, 80), sequence, occupies: 100, acknowledges: Some(1), reset: false }
    }

    fn ack(acknowledges: u32) -> Segment {
        Segment { ports: (80, 5), sequence: 1, occupies: 0, acknowledges: Some(acknowledges), reset: false }
    }

    #[test]
    fn the_second_attempt_is_told_and_then_at_most_one_a_second() {
        let mut watch = Watch::default();
        // The timer of a TCP on a fast path: 200 ms, then twice as long each time.
        let told: Vec<u64> =
            [0, 200, 600, 1400, 3000].into_iter().filter(|at| watch.sent(&data(1000), pair(1), *at)).collect();
        assert_eq!(told, [600, 3000]);
        assert!(watch.has_told());
    }

    #[test]
    fn octets_after_the_oldest_and_pure_acknowledgements_are_no_repetition() {
        let mut watch = Watch::default();
        for at in 0..100 {
            assert!(!watch.sent(&data(1000 + at * 100), pair(1), u64::from(at) * 20));
            assert!(!watch.sent(&Segment { occupies: 0, ..data(0) }, pair(1), u64::from(at) * 20));
        }
        // A timeout goes back to the oldest octet without acknowledgement, which may be older than what was seen.
        assert!(watch.sent(&data(500), pair(1), 2000));
    }

    #[test]
    fn numbers_that_go_round_are_compared_as_such() {
        let mut watch = Watch::default();
        assert!(!watch.sent(&data(u32::MAX - 10), pair(1), 0));
        assert!(!watch.sent(&data(80), pair(1), 400), "later, though the number is smaller");
        assert!(watch.sent(&data(u32::MAX - 10), pair(1), 400));
        assert_eq!(watch.answered(&ack(80)), None);
        assert_eq!(watch.answered(&ack(89)), Some(pair(1)));
    }

    #[test]
    fn one_connection_is_watched_until_it_falls_silent() {
        let mut watch = Watch::default();
        let other = Segment { ports: (6, 80), ..data(7) };
        assert!(!watch.sent(&data(1), pair(1), 0));
        assert!(!watch.sent(&other, pair(1), 10) && !watch.sent(&other, pair(1), 9_000));
        assert!(!watch.sent(&other, pair(1), 10_000), "watched from now on");
        assert!(watch.sent(&other, pair(1), 10_300));
    }

    #[test]
    fn only_an_acknowledgement_of_what_went_one_way_alone_confirms_that_way() {
        let mut watch = Watch::default();
        assert_eq!(watch.answered(&ack(1100)), None, "nothing is watched");
        watch.sent(&data(1000), pair(1), 0);
        assert_eq!(watch.answered(&ack(1099)), None);
        assert_eq!(watch.answered(&Segment { ports: (80, 6), ..ack(1100) }), None);
        assert_eq!(watch.answered(&Segment { reset: true, ..ack(1100) }), None);
        assert_eq!(watch.answered(&ack(1100)), Some(pair(1)));
        watch.sent(&data(1000), pair(2), 300);
        assert_eq!(watch.answered(&ack(1100)), None, "which of the two arrived?");
        watch.sent(&data(1000), pair(2), 900);
        assert_eq!(watch.answered(&ack(1100)), None);
    }
}
