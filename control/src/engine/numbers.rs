//! Small numbers for paths, by which workers know them (docs/decisions: path indirection).
//!
//! A path has a number for as long as an entry of a worker names it, and then the number is another path's. There are as
//! many as workers have bits; a path that comes when all are taken has none, and is never lost by itself.

use dataplane::context::PathNumber;
use dataplane::context::standby::PATHS;
use hashbrown::HashMap;

use crate::reap::PathKey;

/// Who has which number.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    numbers: HashMap<PathKey, PathNumber>,
    /// By number, from 1 on.
    used: Vec<Used>,
    free: Vec<PathNumber>,
}

#[derive(Clone, Copy, Debug)]
struct Used {
    path: PathKey,
    /// Entries that name it; none when the number is free.
    by: u32,
}

impl Numbers {
    /// The number of a path, if it has one.
    pub(super) fn find(&self, path: PathKey) -> Option<PathNumber> {
        self.numbers.get(&path).copied()
    }

    /// The number of a path that an entry is about to name.
    pub(super) fn give(&mut self, path: PathKey) -> PathNumber {
        if let Some(number) = self.find(path) {
            return number;
        }
        let next = u16::try_from(self.used.len() + 1).ok().filter(|next| usize::from(*next) < PATHS);
        let Some(number) = self.free.pop().or_else(|| next.and_then(PathNumber::new)) else { return PathNumber::NONE };
        self.numbers.insert(path, number);
        let used = Used { path, by: 0 };
        match self.used.get_mut(usize::from(number.value()) - 1) {
            Some(place) => *place = used,
            None => self.used.push(used),
        }
        number
    }

    /// One more entry names it.
    pub(super) fn hold(&mut self, number: PathNumber) {
        if let Some(used) = self.used(number) {
            used.by += 1;
        }
    }

    /// An entry names it no more. Whether nobody does, so that it is free.
    pub(super) fn release(&mut self, number: PathNumber) -> bool {
        let Some(used) = self.used(number).filter(|used| used.by > 0) else { return false };
        used.by -= 1;
        let (path, free) = (used.path, used.by == 0);
        if free {
            self.numbers.remove(&path);
            self.free.push(number);
        }
        free
    }

    /// Whose number it is.
    pub(super) fn path(&self, number: PathNumber) -> Option<PathKey> {
        let used = self.used.get(usize::from(number.value()).checked_sub(1)?)?;
        Some(used.path).filter(|path| self.find(*path) == Some(number))
    }

    /// Paths with a number.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    fn used(&mut self, number: PathNumber) -> Option<&mut Used> {
        self.used.get_mut(usize::from(number.value()).checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(number: u16) -> PathKey {
        PathKey { local: [0; 8], peer: u64::from(number).to_be_bytes() }
    }

    proptest! {
        /// A path that somebody holds has one number, and no other path has it.
        #[test]
        fn numbers_are_kept_while_they_are_held(steps in prop::collection::vec((0u16..12, any::<bool>()), 1..200)) {
            let mut numbers = Numbers::default();
            let mut held: HashMap<u16, (PathNumber, u32)> = HashMap::new();
            for (number, come) in steps {
                if come {
                    let given = numbers.give(path(number));
                    numbers.hold(given);
                    let entry = held.entry(number).or_insert((given, 0));
                    prop_assert_eq!(entry.0, given);
                    entry.1 += 1;
                } else if let Some((given, count)) = held.get_mut(&number) {
                    *count -= 1;
                    let last = *count == 0;
                    prop_assert_eq!(numbers.release(*given), last);
                    held.retain(|_, (_, count)| *count > 0);
                }
                prop_assert_eq!(numbers.len(), held.len());
                prop_assert!(held.iter().all(|(at, (given, _))| numbers.path(*given) == Some(path(*at))));
                let mut given: Vec<PathNumber> = held.values().map(|(given, _)| *given).collect();
                given.sort_unstable();
                given.dedup();
                prop_assert_eq!(given.len(), held.len());
                prop_assert!(!given.contains(&PathNumber::NONE));
            }
        }
    }

    #[test]
    fn there_are_as_many_as_workers_have_bits() {
        let mut numbers = Numbers::default();
        let given: Vec<PathNumber> = (0..PATHS as u16 + 3).map(|it| numbers.give(path(it))).collect();
        assert!(given[..PATHS - 1].iter().all(|it| *it != PathNumber::NONE));
        assert_eq!(given[PATHS - 1..], [PathNumber::NONE; 4]);
        numbers.hold(given[7]);
        assert!(numbers.release(given[7]));
        assert_eq!(numbers.give(path(5000)), given[7]);
        assert!(!numbers.release(PathNumber::NONE));
    }
}
