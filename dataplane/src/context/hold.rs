//! Packets that wait for their context. Bounded in pairs and in packets per pair; nothing is allocated after the start.

use std::collections::HashMap;

use crate::wire::UlidPair;

struct Waiting<F> {
    pair: UlidPair,
    since: u64,
    packets: Vec<F>,
}

/// First packets of pairs without a context, in order of arrival.
pub struct Hold<F> {
    waiting: Vec<Option<Waiting<F>>>,
    places: HashMap<UlidPair, usize>,
    free: Vec<usize>,
    /// Empty packet lists, ready for use.
    spare: Vec<Vec<F>>,
    depth: usize,
    sweep: usize,
}

/// What became of a packet that should wait.
#[derive(Debug)]
pub enum Held<F> {
    /// It waits, as the first of its pair: control has to be told.
    First,
    /// It waits behind others of its pair.
    Behind,
    /// No room: here it is again.
    Refused(F),
}

impl<F> Hold<F> {
    /// For `pairs` pairs with `depth` packets each.
    pub fn new(pairs: usize, depth: usize) -> Hold<F> {
        Hold {
            waiting: (0..pairs).map(|_| None).collect(),
            // Twice the room, so that the map never needs to grow, whatever the pattern of use.
            places: HashMap::with_capacity(pairs * 2),
            free: (0..pairs).rev().collect(),
            spare: (0..pairs).map(|_| Vec::with_capacity(depth)).collect(),
            depth,
            sweep: 0,
        }
    }

    /// Keeps a packet for later. `now` is in milliseconds.
    pub fn keep(&mut self, pair: UlidPair, packet: F, now: u64) -> Held<F> {
        if let Some(waiting) = self.places.get(&pair).and_then(|&place| self.waiting[place].as_mut()) {
            if waiting.packets.len() >= self.depth {
                return Held::Refused(packet);
            }
            waiting.packets.push(packet);
            return Held::Behind;
        }
        let (Some(place), Some(mut packets)) = (self.free.pop(), self.spare.pop()) else {
            return Held::Refused(packet);
        };
        packets.push(packet);
        self.waiting[place] = Some(Waiting { pair, since: now, packets });
        self.places.insert(pair, place);
        Held::First
    }

    /// Whether less than a quarter of the room is left for pairs that begin to wait.
    pub fn is_short(&self) -> bool {
        self.free.len() < self.waiting.len() / 4
    }

    /// Whether packets of a pair wait.
    pub fn knows(&self, pair: &UlidPair) -> bool {
        self.places.contains_key(pair)
    }

    /// Moves the packets of a pair to `out`, in order, and forgets the pair.
    pub fn release(&mut self, pair: &UlidPair, out: &mut Vec<F>) {
        let Some(waiting) = self.places.remove(pair).and_then(|place| {
            self.free.push(place);
            self.waiting[place].take()
        }) else {
            return;
        };
        let mut packets = waiting.packets;
        crate::mutant!(LoseHeld, packets.clear());
        out.append(&mut packets);
        self.spare.push(packets);
    }

    /// Drops the packets of a pair and forgets it.
    pub fn forget(&mut self, pair: &UlidPair) {
        if let Some(place) = self.places.remove(pair) {
            self.free.push(place);
            if let Some(mut waiting) = self.waiting[place].take() {
                waiting.packets.clear();
                self.spare.push(waiting.packets);
            }
        }
    }

    /// Looks at one place per call, so a turn costs the same however many wait; moves out what has waited since before
    /// `oldest`.
    pub fn expire_step(&mut self, oldest: u64, out: &mut Vec<F>) {
        if self.waiting.is_empty() {
            return;
        }
        self.sweep = (self.sweep + 1) % self.waiting.len();
        if let Some(pair) = self.waiting[self.sweep].as_ref().filter(|w| w.since < oldest).map(|w| w.pair) {
            self.release(&pair, out);
        }
    }

    /// Pairs that wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Ulid;
    use std::net::Ipv6Addr;

    fn pair(n: u16) -> UlidPair {
        let ulid = |n| Ulid(Ipv6Addr::new(0xfc00, n, 0, 0, 0, 0, 0, 1));
        UlidPair { local: ulid(0), peer: ulid(n) }
    }

    #[test]
    fn packets_come_back_in_order_and_bounds_hold() {
        let mut hold = Hold::new(2, 3);
        assert!(matches!(hold.keep(pair(1), 10, 0), Held::First));
        assert!(matches!(hold.keep(pair(1), 11, 0), Held::Behind));
        assert!(matches!(hold.keep(pair(2), 20, 5), Held::First));
        assert!(matches!(hold.keep(pair(3), 30, 5), Held::Refused(30)));
        assert!(matches!(hold.keep(pair(1), 12, 5), Held::Behind));
        assert!(matches!(hold.keep(pair(1), 13, 5), Held::Refused(13)));
        let mut out = Vec::new();
        hold.release(&pair(1), &mut out);
        assert_eq!(out, [10, 11, 12]);
        assert!(matches!(hold.keep(pair(3), 30, 6), Held::First));
        out.clear();
        for _ in 0..4 {
            hold.expire_step(6, &mut out);
        }
        assert_eq!(out, [20], "only what waited since before the limit");
        assert_eq!(hold.len(), 1);
    }
}
