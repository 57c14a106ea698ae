//! The last TCP segment of contexts from which nothing comes back, and what their TCP shows meanwhile.
//!
//! When a path dies, the hosts' TCP goes quiet for longer and longer (RFC 6298: the wait doubles), and it would go on
//! being quiet long after the path has been replaced: a session whose path is found again after 3.3 s would come back
//! after 6.5. A host that ran Shim6 itself would simply tell its TCP to retransmit at once. A box cannot, so it keeps the
//! newest segment of the context and sends it again over the new path; the peer's acknowledgement wakes the host.
//!
//! Only contexts in doubt are watched: something was sent in the last interval and nothing received. At most one segment
//! per context is kept, copied at most ten times a second, in buffers made at the start. Each has a [`Watch`] beside it.

use std::collections::HashMap;

use super::watch::{Sign, Watch};
use crate::snapshot::PortId;
use crate::wire::segment::Segment;
use crate::wire::{ContextTag, LocatorPair};

/// Milliseconds between two copies for one context.
const INTERVAL_MS: u64 = 100;
/// Milliseconds after which a segment says nothing any more about what its connection waits for.
const STALE_MS: u64 = 60_000;
/// Milliseconds between two reports of progress of contexts that were never told to stall: a sample of what works.
const SAMPLE_MS: u64 = 10;
/// Signs not fetched yet.
const SIGNS_MAX: usize = 64;

struct Kept {
    tag: ContextTag,
    port: PortId,
    at: u64,
    frame: Vec<u8>,
    watch: Watch,
    /// The box sends it again itself: that is no repetition of the host's.
    repeating: bool,
}

/// Whose segment it is, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Our tag.
    pub tag: ContextTag,
    /// Control's name for the context.
    pub handle: u64,
    /// The pair in use.
    pub pair: LocatorPair,
}

/// What TCP showed of a context, on a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Control's name for the context.
    pub handle: u64,
    /// What.
    pub sign: Sign,
    /// Where.
    pub pair: LocatorPair,
}

/// Segments by the tag of their context. Bounded; nothing is allocated after `new`.
pub struct Replay {
    places: HashMap<ContextTag, usize>,
    kept: Vec<Kept>,
    free: Vec<usize>,
    sweep: usize,
    shown: Vec<Shown>,
    sample_due: u64,
}

impl Replay {
    /// For `contexts` contexts and frames of up to `octets`.
    pub fn new(contexts: usize, octets: usize) -> Replay {
        let kept = (0..contexts)
            .map(|_| Kept {
                tag: ContextTag::truncate(0),
                port: PortId(0),
                at: 0,
                frame: Vec::with_capacity(octets),
                watch: Watch::default(),
                repeating: false,
            })
            .collect();
        Replay {
            places: HashMap::with_capacity(contexts * 2),
            kept,
            free: (0..contexts).rev().collect(),
            sweep: 0,
            shown: Vec::with_capacity(SIGNS_MAX),
            sample_due: 0,
        }
    }

    /// A segment of a context in doubt is about to leave in `frame`, which came in on `port`.
    pub fn sent(&mut self, owner: Owner, port: PortId, frame: &[u8], segment: &Segment, now: u64) {
        self.keep(owner.tag, port, frame, now);
        let Some(kept) = self.places.get(&owner.tag).and_then(|&place| self.kept.get_mut(place)) else { return };
        if std::mem::take(&mut kept.repeating) {
            // On a path that was just found: what the host repeats from here on is about that one.
            kept.watch = Watch::default();
        } else if kept.watch.sent(segment, owner.pair, now) {
            self.show(Shown { handle: owner.handle, sign: Sign::Stalled, pair: owner.pair });
        }
    }

    /// Something came back for a context in doubt; `segment` if it is TCP's.
    pub fn received(&mut self, tag: ContextTag, handle: u64, segment: Option<Segment>, now: u64) {
        let Some(kept) = self.places.get(&tag).and_then(|&place| self.kept.get(place)) else { return };
        let (pair, told) = (segment.and_then(|segment| kept.watch.answered(&segment)), kept.watch.has_told());
        if let Some(pair) = pair.filter(|_| told || now >= self.sample_due) {
            self.sample_due = now + SAMPLE_MS;
            self.show(Shown { handle, sign: Sign::Progress, pair });
        }
        self.forget(tag);
    }

    /// What TCP showed since the last call.
    pub fn shown(&mut self) -> impl Iterator<Item = Shown> + '_ {
        self.shown.drain(..)
    }

    /// Hints are no more than that, so what finds no room is forgotten.
    fn show(&mut self, shown: Shown) {
        if self.shown.len() < SIGNS_MAX {
            self.shown.push(shown);
        }
    }

    /// Keeps a copy of `frame`, which came in on `port`, unless a fresh one is there or there is no room. Whether it did.
    pub fn keep(&mut self, tag: ContextTag, port: PortId, frame: &[u8], now: u64) -> bool {
        let place = match self.places.get(&tag) {
            Some(&place) if now.saturating_sub(self.kept[place].at) < INTERVAL_MS => return false,
            Some(&place) => place,
            None => {
                if self.free.is_empty() {
                    self.drop_stale(now);
                }
                let Some(place) = self.free.pop() else { return false };
                (self.kept[place].watch, self.kept[place].repeating) = (Watch::default(), false);
                self.places.insert(tag, place);
                place
            }
        };
        let kept = &mut self.kept[place];
        kept.frame.clear();
        if frame.len() > kept.frame.capacity() {
            self.forget(tag);
            return false;
        }
        kept.frame.extend_from_slice(frame);
        (kept.tag, kept.port, kept.at) = (tag, port, now);
        true
    }

    /// What is kept for a context, to be sent again.
    pub fn repeat(&mut self, tag: ContextTag, now: u64) -> Option<(PortId, &[u8])> {
        let fresh = self.find(tag, now).is_some();
        let kept = self.places.get(&tag).and_then(|&place| self.kept.get_mut(place)).filter(|_| fresh)?;
        kept.repeating = true;
        Some((kept.port, &kept.frame))
    }

    /// What is kept for a context, unless it is old.
    pub fn find(&self, tag: ContextTag, now: u64) -> Option<(PortId, &[u8])> {
        let kept = self.places.get(&tag).and_then(|&place| self.kept.get(place))?;
        (now.saturating_sub(kept.at) <= STALE_MS).then_some((kept.port, &kept.frame))
    }

    /// The context is gone, or no longer in doubt.
    pub fn forget(&mut self, tag: ContextTag) {
        if let Some(place) = self.places.remove(&tag) {
            self.free.push(place);
        }
    }

    /// One-way contexts would hold their places for good. Looks at one place per call.
    fn drop_stale(&mut self, now: u64) {
        self.sweep = (self.sweep + 1) % self.kept.len().max(1);
        let Some(kept) = self.kept.get(self.sweep).filter(|kept| now.saturating_sub(kept.at) > STALE_MS) else {
            return;
        };
        self.forget(kept.tag);
    }

    /// Contexts with a segment.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_segment_is_kept_within_bounds() {
        let tag = |n| ContextTag::truncate(n);
        let mut replay = Replay::new(2, 100);
        assert!(replay.keep(tag(1), PortId(0), &[1; 60], 1000));
        assert!(!replay.keep(tag(1), PortId(0), &[2; 60], 1050), "a fresh copy is there");
        assert!(replay.keep(tag(1), PortId(3), &[3; 60], 1100));
        assert_eq!(replay.find(tag(1), 1100), Some((PortId(3), &[3; 60][..])));
        assert!(!replay.keep(tag(2), PortId(0), &[0; 101], 1100), "larger than any buffer");
        assert!(replay.keep(tag(2), PortId(0), &[0; 100], 1100));
        assert!(!replay.keep(tag(3), PortId(0), &[0; 10], 1100), "no room");
        assert_eq!(replay.find(tag(1), 61_101), None, "too old");
        replay.forget(tag(1));
        assert_eq!((replay.find(tag(1), 1100), replay.len()), (None, 1));
        assert!(replay.keep(tag(3), PortId(0), &[0; 10], 1100));
    }
    fn segment(sequence: u32, acknowledges: Option<u32>) -> Segment {
        Segment { ports: (7, 7), sequence, occupies: 10, acknowledges, reset: false }
    }

    fn owner(n: u64) -> Owner {
        let at = |n: u64| crate::wire::Locator(std::net::Ipv6Addr::from_bits(n.into()));
        Owner { tag: ContextTag::truncate(n), handle: n, pair: LocatorPair { local: at(n), peer: at(99) } }
    }

    #[test]
    fn what_tcp_shows_is_told_with_its_context_and_pair() {
        let mut replay = Replay::new(4, 100);
        for at in [1000, 1200, 1600] {
            replay.sent(owner(1), PortId(0), &[0; 60], &segment(5, None), at);
        }
        let stalled = Shown { handle: 1, sign: Sign::Stalled, pair: owner(1).pair };
        assert_eq!(replay.shown().collect::<Vec<_>>(), [stalled]);
        // Something that is no acknowledgement ends the doubt and tells nothing.
        replay.sent(owner(2), PortId(0), &[0; 60], &segment(5, None), 1600);
        replay.received(owner(2).tag, 2, None, 1610);
        assert_eq!((replay.shown().count(), replay.len()), (0, 1));
        replay.received(owner(1).tag, 1, Some(segment(9, Some(15))), 1620);
        assert_eq!(replay.shown().collect::<Vec<_>>(), [Shown { sign: Sign::Progress, ..stalled }]);
        assert!(replay.is_empty());
    }

    #[test]
    fn progress_of_contexts_without_a_stall_is_told_as_a_sample() {
        let mut replay = Replay::new(100, 100);
        for n in 0..100 {
            replay.sent(owner(n), PortId(0), &[0; 60], &segment(5, None), 1000);
        }
        for n in 0..100 {
            replay.received(owner(n).tag, n, Some(segment(9, Some(15))), 1000 + n / 4);
        }
        assert_eq!(replay.shown().map(|shown| shown.handle).collect::<Vec<_>>(), [0, 40, 80]);
    }

    #[test]
    fn what_the_box_repeats_is_no_stall() {
        let mut replay = Replay::new(4, 100);
        replay.sent(owner(1), PortId(0), &[0; 60], &segment(5, None), 1000);
        for at in [1400, 2400, 3400] {
            assert!(replay.repeat(owner(1).tag, at).is_some());
            replay.sent(owner(1), PortId(0), &[0; 60], &segment(5, None), at);
        }
        assert_eq!(replay.shown().count(), 0);
        assert!(replay.repeat(owner(2).tag, 3400).is_none());
    }

    #[test]
    fn signs_nobody_fetches_are_bounded() {
        let mut replay = Replay::new(200, 100);
        for n in 0..200 {
            replay.sent(owner(n), PortId(0), &[0; 60], &segment(5, None), 1000);
            replay.sent(owner(n), PortId(0), &[0; 60], &segment(5, None), 1400);
        }
        assert_eq!(replay.shown().count(), SIGNS_MAX);
    }
}
