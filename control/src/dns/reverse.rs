//! Who is behind a CMULA nobody asked about: its pointer's names, and of these the first whose own ULID record leads back.
//!
//! Whoever runs the reverse zone of an address may point it to any name; only the name's owner can say that the address is
//! its own. So a pointer alone is worth nothing. What leads nowhere is remembered for a while, as hosts try again.

use std::time::Duration;

use dataplane::wire::Ulid;
use hashbrown::HashMap;

use super::cache::{Bounds, Cache};
use super::name::Name;
use super::view::{Section, View, kind};
use crate::time::Instant;

/// Identifiers looked up at a time, in all and for one host.
const LOOKUPS_MAX: usize = 1024;
const PER_HOST_MAX: usize = 32;
/// Hosts that may wait for the same identifier.
const TOGETHER_MAX: usize = 64;
/// Names of one pointer that are tried.
const NAMES_MAX: usize = 4;
/// Failures remembered, and for how long.
const MEMORY: Bounds = Bounds { entries: 16_384, octets: 16_384 * 256 };
const FAILED_FOR: Duration = Duration::from_secs(30);

struct Lookup {
    hosts: Vec<Ulid>,
    names: Vec<Name>,
}

/// What is being looked up backwards.
pub(super) struct Reverse {
    lookups: HashMap<Ulid, Lookup>,
    by_host: HashMap<Ulid, usize>,
    failed: Cache<Ulid, ()>,
}

/// What became of a wish.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// Its pointer has to be asked for.
    Ask(Name),
    /// It is being looked up already.
    Joined,
    /// It led nowhere lately.
    Remembered,
    /// As many are looked up as may be.
    Full,
}

impl Reverse {
    pub(super) fn new() -> Reverse {
        Reverse { lookups: HashMap::new(), by_host: HashMap::new(), failed: Cache::new(MEMORY) }
    }

    /// A host wants to reach an identifier.
    pub(super) fn begin(&mut self, now: Instant, host: Ulid, ulid: Ulid) -> Begun {
        if self.failed.find(now, &ulid).is_some() {
            return Begun::Remembered;
        }
        if let Some(lookup) = self.lookups.get_mut(&ulid) {
            if lookup.hosts.contains(&host) {
                return Begun::Joined;
            }
            if lookup.hosts.len() == TOGETHER_MAX {
                return Begun::Full;
            }
            lookup.hosts.push(host);
            *self.by_host.entry(host).or_default() += 1;
            return Begun::Joined;
        }
        let of_host = self.by_host.entry(host).or_default();
        if self.lookups.len() >= LOOKUPS_MAX || *of_host >= PER_HOST_MAX {
            if *of_host == 0 {
                self.by_host.remove(&host);
            }
            return Begun::Full;
        }
        *of_host += 1;
        self.lookups.insert(ulid, Lookup { hosts: vec![host], names: Vec::new() });
        Begun::Ask(Name::of_address(ulid.0))
    }

    /// The answer about a pointer has come, or none. The names to try are taken with [`Reverse::next`].
    pub(super) fn pointed(&mut self, ulid: Ulid, answer: Option<&[u8]>) {
        let Some(lookup) = self.lookups.get_mut(&ulid) else { return };
        let Some(view) = answer.and_then(|octets| View::new(octets).ok()) else { return };
        // Pointers may lie behind aliases, as in RFC 2317; whose they are does not matter, since the name has to confirm.
        let pointers = view.section(Section::Answer).filter(|record| record.kind == kind::PTR);
        for name in pointers.filter_map(|record| view.target(record)) {
            if lookup.names.len() < NAMES_MAX && !lookup.names.contains(&name) {
                lookup.names.push(name);
            }
        }
        lookup.names.reverse();
    }

    /// The next name to try for an identifier.
    pub(super) fn next(&mut self, ulid: Ulid) -> Option<Name> {
        self.lookups.get_mut(&ulid)?.names.pop()
    }

    /// A lookup is over. Who waited for it.
    pub(super) fn end(&mut self, now: Instant, ulid: Ulid, found: bool) -> Vec<Ulid> {
        let Some(lookup) = self.lookups.remove(&ulid) else { return Vec::new() };
        for host in &lookup.hosts {
            if let Some(count) = self.by_host.get_mut(host) {
                *count -= 1;
                if *count == 0 {
                    self.by_host.remove(host);
                }
            }
        }
        if !found {
            self.failed.insert(now, ulid, (), FAILED_FOR, 0);
        }
        lookup.hosts
    }

    /// Forgets what failed. How much that was.
    pub(super) fn flush(&mut self) -> usize {
        self.failed.clear()
    }

    /// Identifiers looked up now, and failures remembered.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.lookups.len(), self.failed.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulid(number: u128) -> Ulid {
        Ulid((0xfc00_u128 << 112 | number).to_be_bytes().into())
    }

    #[test]
    fn lookups_are_shared_bounded_and_failures_remembered() {
        let mut reverse = Reverse::new();
        let now = Instant::START;
        assert!(matches!(reverse.begin(now, ulid(1), ulid(100)), Begun::Ask(_)));
        assert_eq!(reverse.begin(now, ulid(1), ulid(100)), Begun::Joined);
        assert_eq!(reverse.begin(now, ulid(2), ulid(100)), Begun::Joined);
        let asked = (101..1000).filter(|at| reverse.begin(now, ulid(1), ulid(*at)) != Begun::Full).count();
        assert_eq!(asked, PER_HOST_MAX - 1, "one host cannot have them all");
        assert!(matches!(reverse.begin(now, ulid(3), ulid(999)), Begun::Ask(_)));
        assert_eq!(reverse.end(now, ulid(100), false), [ulid(1), ulid(2)]);
        assert_eq!(reverse.begin(now, ulid(5), ulid(100)), Begun::Remembered);
        let later = now + FAILED_FOR;
        assert!(matches!(reverse.begin(later, ulid(1), ulid(100)), Begun::Ask(_)), "room again, and forgotten");
        let more = (0..2000).filter(|at| reverse.begin(now, ulid(*at + 5000), ulid(*at + 9000)) != Begun::Full).count();
        assert_eq!(more, LOOKUPS_MAX - PER_HOST_MAX - 1);
        for at in 0..20_000 {
            reverse.end(now, ulid(at), true);
        }
        assert_eq!((reverse.lookups.len(), reverse.by_host.len()), (0, 0));
    }
}
