//! Contexts that have something in common, in the order in which they came: lists that run through the table of contexts.
//!
//! Joining, leaving and finding the first cost the same however many there are, and an entry costs eight octets beside what
//! they have in common.

use std::hash::Hash;

use hashbrown::HashMap;

/// Stands for no context.
const NONE: u32 = u32::MAX;

/// Lists of contexts by what they have in common. A context is in one list at most.
#[derive(Debug)]
pub struct Chains<K> {
    ends: HashMap<K, Ends>,
    links: Vec<Link>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
    count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

impl<K> Default for Chains<K> {
    fn default() -> Chains<K> {
        Chains { ends: HashMap::new(), links: Vec::new(), len: 0 }
    }
}

impl<K: Copy + Eq + Hash> Chains<K> {
    /// The context at `place` joins those with `key`, as the last one. It is in no list.
    pub fn join(&mut self, key: K, place: u32) {
        if self.links.len() <= place as usize {
            self.links.resize(place as usize + 1, Link { previous: NONE, next: NONE });
        }
        let ends = self.ends.entry(key).or_insert(Ends { first: place, last: NONE, count: 0 });
        let previous = std::mem::replace(&mut ends.last, place);
        ends.count += 1;
        if let Some(link) = self.links.get_mut(previous as usize) {
            link.next = place;
        }
        self.links[place as usize] = Link { previous, next: NONE };
        self.len += 1;
    }

    /// It leaves those with `key`, among whom it is.
    pub fn leave(&mut self, key: K, place: u32) {
        let Some(Link { previous, next }) = self.links.get(place as usize).copied() else { return };
        if let Some(link) = self.links.get_mut(previous as usize) {
            link.next = next;
        }
        if let Some(link) = self.links.get_mut(next as usize) {
            link.previous = previous;
        }
        let Some(ends) = self.ends.get_mut(&key) else { return };
        ends.count -= 1;
        match (previous, next) {
            (NONE, NONE) => _ = self.ends.remove(&key),
            (NONE, _) => ends.first = next,
            (_, NONE) => ends.last = previous,
            (_, _) => {}
        }
        self.len -= 1;
    }

    /// Has a context in the right list after what it has in common with others changed.
    pub fn settle(&mut self, place: u32, old: Option<K>, new: Option<K>) {
        if old != new {
            if let Some(old) = old {
                self.leave(old, place);
            }
            if let Some(new) = new {
                self.join(new, place);
            }
        }
    }

    /// The one that has been in the list of `key` for longest.
    pub fn first(&self, key: K) -> Option<u32> {
        self.ends.get(&key).map(|ends| ends.first)
    }

    /// All with `key`, from the first to the last.
    pub fn iter(&self, key: K) -> impl Iterator<Item = u32> {
        std::iter::successors(self.first(key), |place| {
            self.links.get(*place as usize).map(|link| link.next).filter(|next| *next != NONE)
        })
    }

    /// How many have `key`.
    pub fn count(&self, key: K) -> usize {
        self.ends.get(&key).map_or(0, |ends| ends.count as usize)
    }

    /// What contexts in lists have in common, in no order, and how many there are of each.
    pub fn keys(&self) -> impl Iterator<Item = (K, usize)> {
        self.ends.iter().map(|(key, ends)| (*key, ends.count as usize))
    }

    /// How many lists there are.
    pub fn lists(&self) -> usize {
        self.ends.len()
    }

    /// Contexts in any list.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn chains_and_lists_agree(steps in proptest::collection::vec((0u32..20, proptest::option::of(0u8..4)), 0..200)) {
            let mut chains = Chains::default();
            let mut twin: Vec<(u32, u8)> = Vec::new();
            for (place, key) in steps {
                let old = twin.iter().find(|(of, _)| *of == place).map(|(_, key)| *key);
                chains.settle(place, old, key);
                if old != key {
                    twin.retain(|(of, _)| *of != place);
                    twin.extend(key.map(|key| (place, key)));
                }
                for key in 0..4 {
                    let expected: Vec<u32> = twin.iter().filter(|(_, of)| *of == key).map(|(of, _)| *of).collect();
                    prop_assert_eq!(chains.first(key), expected.first().copied());
                    prop_assert_eq!(chains.count(key), expected.len());
                    prop_assert_eq!(chains.iter(key).collect::<Vec<_>>(), expected);
                }
                prop_assert_eq!(chains.len(), twin.len());
            }
            let kinds: std::collections::BTreeSet<u8> = twin.iter().map(|(_, key)| *key).collect();
            prop_assert_eq!(chains.keys().count(), kinds.len());
        }
    }
}
