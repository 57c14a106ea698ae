//! The last TCP segment of contexts from which nothing comes back.
//!
//! When a path dies, the hosts' TCP goes quiet for longer and longer (RFC 6298: the wait doubles), and it would go on
//! being quiet long after the path has been replaced: a session whose path is found again after 3.3 s would come back
//! after 6.5. A host that ran Shim6 itself would simply tell its TCP to retransmit at once. A box cannot, so it keeps the
//! newest segment of the context and sends it again over the new path; the peer's acknowledgement wakes the host.
//!
//! Only contexts in doubt are watched: something was sent in the last interval and nothing received. At most one segment
//! per context is kept, copied at most ten times a second, in buffers made at the start.

use std::collections::HashMap;

use crate::snapshot::PortId;
use crate::wire::ContextTag;

/// Milliseconds between two copies for one context.
const INTERVAL_MS: u64 = 100;
/// Milliseconds after which a segment says nothing any more about what its connection waits for.
const STALE_MS: u64 = 60_000;

struct Kept {
    tag: ContextTag,
    port: PortId,
    at: u64,
    frame: Vec<u8>,
}

/// Segments by the tag of their context. Bounded; nothing is allocated after `new`.
pub struct Replay {
    places: HashMap<ContextTag, usize>,
    kept: Vec<Kept>,
    free: Vec<usize>,
    sweep: usize,
}

impl Replay {
    /// For `contexts` contexts and frames of up to `octets`.
    pub fn new(contexts: usize, octets: usize) -> Replay {
        let kept = (0..contexts)
            .map(|_| Kept { tag: ContextTag::truncate(0), port: PortId(0), at: 0, frame: Vec::with_capacity(octets) })
            .collect();
        Replay { places: HashMap::with_capacity(contexts * 2), kept, free: (0..contexts).rev().collect(), sweep: 0 }
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

    /// What is kept for a context, unless it is old.
    pub fn find(&self, tag: ContextTag, now: u64) -> Option<(PortId, &[u8])> {
        let kept = self.places.get(&tag).and_then(|&place| self.kept.get(place))?;
        (now.saturating_sub(kept.at) <= STALE_MS).then_some((kept.port, &kept.frame))
    }

    /// Something came back, or the context is gone.
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
}
