//! Contexts that are not known here and whose peers use them (RFC 5533 §7.17): who is told so first.
//!
//! A box that has lost a million contexts cannot have all of them back at once. How many peers it tells in a second is bounded
//! ([`super::limits`]); here is decided who is among them:
//!
//! - who was told has some time to answer, and payload it sends meanwhile takes nothing from the others: otherwise one fast
//!   stream would use up, in the first round trip, what there is for a thousand;
//! - payload that goes on comes before payload that came once, and both before control messages, which contexts send that nobody uses;
//! - who was told and did not come back is no better than who comes for the first time: everybody is told once before somebody
//!   is told twice.
//!
//! Memory is a table of fixed size, taken when it is needed first. Of three that meet in it the one that was heard least lately is
//! forgotten, which costs an R1bis more or a rank, and nobody can choose with whom that happens: it depends on a key nobody knows.

use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use dataplane::wire::ContextTag;
use dataplane::wire::shim6::Addresses;

use crate::time::Instant;

/// Places of the table; who belongs in one may be in its neighbour.
const PLACES: usize = 1 << 16;
/// How long payload of a peer that was told does not have it told again. It answers within a round trip; if that was lost, a stream does not notice
/// more than its retransmission.
const TOLD_FOR: Duration = Duration::from_millis(250);
/// Payload that comes again within this time goes on.
const GOES_ON: Duration = Duration::from_secs(10);

/// Who asked for a context that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A payload packet.
    Payload,
    /// A message of the peer's, a probe perhaps.
    Message,
}

/// How much somebody needs to know, those last who need it most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// A message, of a context that may be idle.
    Message,
    /// Payload, for the first time, or of somebody who was told.
    Payload,
    /// Payload that goes on.
    Live,
}

/// Those who asked lately.
#[derive(Default)]
pub(super) struct Lost {
    key: u64,
    places: Vec<Place>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    /// Tag and addresses, hashed; nothing is zero.
    who: u64,
    at: Instant,
    told: bool,
}

impl Lost {
    /// `key` must be secret.
    pub(super) fn new(key: u64) -> Lost {
        Lost { key, places: Vec::new() }
    }

    /// Somebody asks. Nothing comes back for payload of who was told a moment ago.
    pub(super) fn asks(&mut self, now: Instant, tag: ContextTag, addresses: Addresses, asker: Asker) -> Option<Rank> {
        let who = self.who(tag, addresses);
        let Some(place) = self.place(who) else { return Some(Rank::Message) };
        let known = if place.who == who { Some((now.since(place.at), place.told)) } else { None };
        let rank = match (asker, known) {
            // Messages are few, so each is answered. What one says of its context is not remembered: payload comes all the same.
            (Asker::Message, _) => return Some(Rank::Message),
            (Asker::Payload, Some((passed, true))) if passed < TOLD_FOR => return None,
            (Asker::Payload, Some((passed, false))) if passed < GOES_ON => Rank::Live,
            (Asker::Payload, _) => Rank::Payload,
        };
        let told = known.is_some_and(|(passed, told)| told && passed < GOES_ON);
        // For who was told the time goes on from then, so that it is forgiven one day.
        if !told {
            *place = Place { who, at: now, told };
        }
        Some(rank)
    }

    /// Who asked is told now.
    pub(super) fn told(&mut self, now: Instant, tag: ContextTag, addresses: Addresses) {
        let who = self.who(tag, addresses);
        if let Some(place) = self.place(who) {
            *place = Place { who, at: now, told: true };
        }
    }

    fn who(&self, tag: ContextTag, addresses: Addresses) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.key);
        hasher.write_u64(tag.value());
        hasher.write_u128(addresses.source.to_bits());
        hasher.write_u128(addresses.target.to_bits());
        hasher.finish().max(1)
    }

    fn place(&mut self, who: u64) -> Option<&mut Place> {
        if self.places.is_empty() {
            self.places = vec![Place::default(); PLACES];
        }
        let at = (who as usize % PLACES) & !1;
        let [one, other] = self.places.get_mut(at..at + 2)?.as_chunks_mut::<2>().0.first_mut()?;
        Some(if one.who == who || (other.who != who && one.at <= other.at) { one } else { other })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn tag(number: u64) -> ContextTag {
        ContextTag::truncate(number)
    }

    fn addresses() -> Addresses {
        Addresses { source: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1), target: Ipv6Addr::LOCALHOST }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn payload_that_goes_on_is_live_and_messages_are_not() {
        let mut lost = Lost::new(5);
        let mut asks = |ms, number, asker| lost.asks(at(ms), tag(number), addresses(), asker);
        assert_eq!(asks(0, 1, Asker::Payload), Some(Rank::Payload));
        assert_eq!(asks(10, 1, Asker::Payload), Some(Rank::Live));
        assert_eq!(asks(10, 1, Asker::Message), Some(Rank::Message));
        for ms in [0, 10, 20] {
            assert_eq!(asks(ms, 2, Asker::Message), Some(Rank::Message));
        }
        assert_eq!(asks(30, 2, Asker::Payload), Some(Rank::Payload), "whatever messages came before");
        assert_eq!(asks(10_031, 2, Asker::Payload), Some(Rank::Payload), "long ago");
        let elsewhere = addresses().swapped();
        assert_eq!(lost.asks(at(31), tag(1), elsewhere, Asker::Payload), Some(Rank::Payload), "another pair");
    }

    #[test]
    fn who_was_told_has_time_to_answer_and_then_stands_behind_those_who_were_not() {
        let mut lost = Lost::new(5);
        let asks = |lost: &mut Lost, ms| lost.asks(at(ms), tag(1), addresses(), Asker::Payload);
        asks(&mut lost, 0);
        assert_eq!(asks(&mut lost, 1), Some(Rank::Live));
        lost.told(at(1), tag(1), addresses());
        for ms in [1, 100, 250] {
            assert_eq!(asks(&mut lost, ms), None);
            assert_eq!(lost.asks(at(ms), tag(1), addresses(), Asker::Message), Some(Rank::Message));
        }
        for ms in [251, 252, 9_000] {
            assert_eq!(asks(&mut lost, ms), Some(Rank::Payload));
        }
        // After a while that is forgotten.
        assert_eq!(asks(&mut lost, 10_001), Some(Rank::Payload));
        assert_eq!(asks(&mut lost, 10_002), Some(Rank::Live));
    }

    #[test]
    fn two_that_meet_do_not_forget_each_other() {
        let mut lost = Lost::new(5);
        let of = |lost: &Lost, number| lost.who(tag(number), addresses()) as usize % PLACES / 2;
        let place = of(&lost, 1);
        let meets = (2..).find(|number| of(&lost, *number) == place).unwrap();
        for rank in [Rank::Payload, Rank::Live] {
            for number in [1, meets] {
                assert_eq!(lost.asks(at(10), tag(number), addresses(), Asker::Payload), Some(rank));
            }
        }
    }

    #[test]
    fn memory_is_the_same_for_a_million() {
        let mut lost = Lost::new(5);
        for number in 0..1_000_000 {
            lost.asks(at(0), tag(number), addresses(), Asker::Payload);
            lost.told(at(0), tag(number), addresses());
        }
        assert_eq!(lost.places.capacity(), PLACES);
    }
}
