//! What contexts tell each other about paths, and the pace they keep together (RFC 5534 §8, §9; spec §10 d).
//!
//! **The idea.** Thousands of contexts share a path: one of our providers, towards one site of the peer. When one of
//! them finds that the path is dead, the others need not each wait for a Send Timeout. **The promise.** The book only
//! says where to look first and who should look now. It never moves anyone: a context moves when a probe of its own was
//! answered. A witness alone makes a path suspect, not dead, and a path that worked after the failed probe was sent has
//! not failed.

use std::time::Duration;

use dataplane::wire::{Locator, LocatorPair};
use hashbrown::{HashMap, HashSet};

use crate::time::Instant;

/// A directed path, from here to there: the /64 prefixes of the two locators. A prefix is what a provider delegates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathKey {
    /// Prefix of our locator.
    pub local: [u8; 8],
    /// Prefix of the peer's locator.
    pub peer: [u8; 8],
}

/// What is known about a path, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// A probe on it was answered lately, or what a host sent was acknowledged.
    Working,
    /// No recent evidence.
    Unknown,
    /// A witness saw it fail.
    Suspect,
    /// Enough witnesses saw it fail, or the box itself knows.
    Dead,
}

/// How long evidence counts, and how much of it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookConfig {
    /// How long a confirmation makes a path Working.
    pub working_for: Duration,
    /// How long the latest failure keeps a path Suspect or Dead.
    pub dead_for: Duration,
    /// Different contexts that have to see a path fail before it is Dead; 1 to 4.
    pub witnesses: usize,
    /// Most paths in the book.
    pub capacity: usize,
}

/// What a report of failure came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the contexts on a path that is newly dead should look for another"]
pub enum Verdict {
    /// The path is dead, and was not before: told once in an episode. Others on it should [`suspect`] their pair.
    ///
    /// [`suspect`]: super::Reap::suspect
    NewlyDead,
    /// The path was known to be dead.
    KnownDead,
    /// More witnesses are needed.
    Suspect,
    /// Someone had an answer on the path after this failure was seen.
    Outdated,
    /// The book is full of fresher news.
    Full,
}

/// What happened to the book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BookCounters {
    /// Evidence not taken because the book was full.
    pub full: u64,
    /// Failures older than a confirmation.
    pub outdated: u64,
    /// Paths that became dead.
    pub deaths: u64,
    /// Dead or suspect paths that came back.
    pub revivals: u64,
}

/// Common knowledge about paths. Bounded: one entry for each path with recent evidence.
#[derive(Debug)]
pub struct PathBook {
    config: BookConfig,
    entries: HashMap<PathKey, Entry>,
    swept: Option<Instant>,
    counters: BookCounters,
    /// Paths of which somebody else says that they do not work.
    warned: HashSet<PathKey>,
    /// Providers of ours that are down, by the prefix they delegated, and since when.
    down: HashMap<[u8; 8], Instant>,
}

const WITNESSES_MAX: usize = 4;
/// A full book is searched for stale entries no more often than this.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    confirmed: Option<Instant>,
    failed: Option<Instant>,
    /// The first of those who saw it fail since it last worked.
    witnesses: [Option<u64>; WITNESSES_MAX],
    dead: bool,
}

impl PathKey {
    /// Both prefixes, ours first, as addresses.
    pub fn prefixes(&self) -> [std::net::Ipv6Addr; 2] {
        [self.local, self.peer].map(|prefix| (u128::from(u64::from_be_bytes(prefix)) << 64).into())
    }

    /// The path that packets from `pair.local` to `pair.peer` take.
    pub fn of(pair: LocatorPair) -> PathKey {
        PathKey { local: prefix(pair.local), peer: prefix(pair.peer) }
    }
}

impl Default for BookConfig {
    fn default() -> BookConfig {
        BookConfig {
            working_for: Duration::from_secs(30),
            dead_for: Duration::from_secs(60),
            witnesses: 2,
            capacity: 1 << 16,
        }
    }
}

impl PathBook {
    /// An empty book.
    pub fn new(config: BookConfig) -> PathBook {
        let witnesses = config.witnesses.clamp(1, WITNESSES_MAX);
        PathBook {
            config: BookConfig { witnesses, ..config },
            entries: HashMap::new(),
            swept: None,
            counters: BookCounters::default(),
            warned: HashSet::new(),
            down: HashMap::new(),
        }
    }

    /// Somebody says that this path does not work, or says so no longer: while they do it is no better than suspect, and comes
    /// after others. Whoever warns sees to it that this ends.
    pub fn warn(&mut self, path: PathKey, warned: bool) {
        match warned {
            true => _ = self.warned.insert(path),
            false => _ = self.warned.remove(&path),
        }
    }

    /// A probe on this path was reported back ([`Output::Confirmed`]): ends whatever episode there was.
    ///
    /// [`Output::Confirmed`]: super::Output::Confirmed
    pub fn confirmed(&mut self, path: PathKey, now: Instant) {
        let revived = self.seen(path, now) >= Status::Suspect;
        let Some(entry) = self.entry(path, now) else { return };
        *entry = Entry { confirmed: Some(now), ..Entry::default() };
        self.counters.revivals += u64::from(revived);
    }

    /// A host's TCP had an acknowledgement of what it sent on this path: the path is as good as if a probe had been
    /// answered. But only a probe ends what probes began, since whoever acknowledges may do so unseen.
    pub fn progressed(&mut self, path: PathKey, now: Instant) {
        if self.seen(path, now) < Status::Suspect
            && let Some(entry) = self.entry(path, now)
        {
            entry.confirmed = Some(now);
        }
    }

    /// Context `witness` probed this path at `probed` in vain, while another path answered ([`Output::Failed`]).
    ///
    /// [`Output::Failed`]: super::Output::Failed
    pub fn failed(&mut self, path: PathKey, witness: u64, probed: Instant, now: Instant) -> Verdict {
        let needed = self.config.witnesses;
        let known = self.recorded(path, now);
        let is_down = self.is_down(path);
        let Some(entry) = self.entry(path, now) else { return Verdict::Full };
        if entry.confirmed.is_some_and(|confirmed| confirmed >= probed) {
            self.counters.outdated += 1;
            return Verdict::Outdated;
        }
        if known < Status::Suspect {
            // What witnesses said in an episode that has expired does not count in this one.
            entry.witnesses = Default::default();
            entry.dead = false;
        }
        entry.failed = Some(now);
        let seats = &mut entry.witnesses[..needed];
        if !seats.contains(&Some(witness))
            && let Some(seat) = seats.iter_mut().find(|seat| seat.is_none())
        {
            *seat = Some(witness);
        }
        let enough = entry.witnesses[..needed].iter().all(Option::is_some);
        let was_dead = entry.dead || is_down;
        entry.dead |= enough;
        self.verdict(was_dead, enough)
    }

    /// The box itself knows that this path is down (link, route, address): no witness is needed.
    pub fn down(&mut self, path: PathKey, now: Instant) -> Verdict {
        let was_dead = self.seen(path, now) == Status::Dead;
        let Some(entry) = self.entry(path, now) else { return Verdict::Full };
        entry.failed = Some(now);
        entry.dead = true;
        self.verdict(was_dead, true)
    }

    /// All paths through a provider are down, however many there are: nothing is written down of each. An answered probe says more.
    pub fn provider_down(&mut self, local: [u8; 8], now: Instant) {
        self.down.insert(local, now);
    }

    /// The provider is there again, or gone for good: what was known about paths through it is no more.
    pub fn forget_provider(&mut self, local: [u8; 8]) {
        self.down.remove(&local);
        self.entries.retain(|path, _| path.local != local);
    }

    /// What was known about this path was about circumstances that are no more.
    pub fn forget(&mut self, path: PathKey) {
        self.entries.remove(&path);
    }

    /// What is known about this path now.
    pub fn status(&self, path: PathKey, now: Instant) -> Status {
        let seen = self.seen(path, now);
        if self.warned.contains(&path) { seen.max(Status::Suspect) } else { seen }
    }

    /// What was seen on this path, whatever somebody says of it.
    pub fn seen(&self, path: PathKey, now: Instant) -> Status {
        if self.is_down(path) { Status::Dead } else { self.recorded(path, now) }
    }

    /// What was seen on the path itself.
    fn recorded(&self, path: PathKey, now: Instant) -> Status {
        self.entries.get(&path).map_or(Status::Unknown, |entry| entry.status(now, &self.config))
    }

    /// Whether its provider is down, and nothing was answered on the path since.
    fn is_down(&self, path: PathKey) -> bool {
        let Some(since) = self.down.get(&path.local) else { return false };
        let confirmed = self.entries.get(&path).and_then(|entry| entry.confirmed);
        confirmed.is_none_or(|confirmed| confirmed < *since)
    }

    /// The status of the path of `pair`: hand `&|pair| book.rank(pair, now)` to [`Reap::reorder`] or [`Reap::suspect`].
    ///
    /// [`Reap::reorder`]: super::Reap::reorder
    /// [`Reap::suspect`]: super::Reap::suspect
    pub fn rank(&self, pair: LocatorPair, now: Instant) -> Status {
        self.status(PathKey::of(pair), now)
    }

    /// Paths with an entry, and their status; for display.
    pub fn iter(&self, now: Instant) -> impl Iterator<Item = (PathKey, Status)> {
        self.entries.keys().map(move |path| (*path, self.seen(*path, now)))
    }

    /// What happened so far.
    pub fn counters(&self) -> BookCounters {
        self.counters
    }

    /// Forgets paths whose evidence has expired.
    pub fn sweep(&mut self, now: Instant) {
        let config = self.config;
        self.entries.retain(|_, entry| entry.status(now, &config) != Status::Unknown);
        self.swept = Some(now);
    }

    fn verdict(&mut self, was_dead: bool, dead: bool) -> Verdict {
        match (was_dead, dead) {
            (true, _) => Verdict::KnownDead,
            (false, true) => {
                self.counters.deaths += 1;
                Verdict::NewlyDead
            }
            (false, false) => Verdict::Suspect,
        }
    }

    /// The entry of `path`, new if there is room.
    fn entry(&mut self, path: PathKey, now: Instant) -> Option<&mut Entry> {
        let stale = self.swept.is_none_or(|swept| now.since(swept) >= SWEEP_INTERVAL);
        if self.entries.len() >= self.config.capacity && !self.entries.contains_key(&path) && stale {
            self.sweep(now);
        }
        if self.entries.len() >= self.config.capacity && !self.entries.contains_key(&path) {
            self.counters.full += 1;
            return None;
        }
        Some(self.entries.entry(path).or_default())
    }
}

impl Entry {
    fn status(&self, now: Instant, config: &BookConfig) -> Status {
        let within = |at: Option<Instant>, span: Duration| at.is_some_and(|at| now.since(at) < span);
        match (within(self.failed, config.dead_for), self.dead) {
            (true, true) => Status::Dead,
            (true, false) => Status::Suspect,
            (false, _) if within(self.confirmed, config.working_for) => Status::Working,
            (false, _) => Status::Unknown,
        }
    }
}

fn prefix(locator: Locator) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = locator.0.octets();
    [a, b, c, d, e, f, g, h]
}

/// Paces the probes of all contexts together (R5534-114; spec §10 d): a token bucket.
///
/// Before calling `expire` on a context whose [`probe_due`](super::Reap::probe_due), [`take`](ProbeBudget::take) one;
/// if there is none, come back at [`ready_at`](ProbeBudget::ready_at). Contexts that wait lose nothing but time.
#[derive(Clone, Debug)]
pub struct ProbeBudget {
    each: Duration,
    burst: u32,
    /// When the bucket will be full again: one number holds both tokens and time.
    full_at: Instant,
    deferred: u64,
}

impl ProbeBudget {
    /// `per_s` probes a second on average, `burst` at once.
    pub fn new(per_s: u32, burst: u32) -> ProbeBudget {
        let each = Duration::from_secs(1) / per_s.max(1);
        ProbeBudget { each, burst: burst.max(1), full_at: Instant::START, deferred: 0 }
    }

    /// Takes one probe's worth if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        if now < self.ready_at() {
            self.deferred += 1;
            return false;
        }
        self.charge(now, 1);
        true
    }

    /// Takes `probes`' worth, there or not: for answers, which have their own cap but should slow down the others.
    pub fn charge(&mut self, now: Instant, probes: u32) {
        // Debt is bounded, so that a flood of answers delays exploration by two bursts at most.
        let limit = now + self.each.saturating_mul(self.burst.saturating_mul(2));
        self.full_at = (self.full_at.max(now) + self.each.saturating_mul(probes)).min(limit);
    }

    /// When [`ProbeBudget::take`] will next say yes.
    pub fn ready_at(&self) -> Instant {
        self.full_at - self.each.saturating_mul(self.burst - 1)
    }

    /// How often a probe had to wait.
    pub fn deferred(&self) -> u64 {
        self.deferred
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: PathKey = PathKey { local: [1; 8], peer: [2; 8] };

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    #[test]
    fn a_path_is_directed_and_made_of_prefixes() {
        let locator = |text: &str| Locator(text.parse().unwrap());
        let pair = |local: &str, peer: &str| LocatorPair { local: locator(local), peer: locator(peer) };
        let path = PathKey::of(pair("2001:db8:a::1", "2001:db8:b::1"));
        assert_eq!(path, PathKey::of(pair("2001:db8:a::2", "2001:db8:b::9")));
        assert_ne!(path, PathKey::of(pair("2001:db8:b::1", "2001:db8:a::1")));
        assert_ne!(path, PathKey::of(pair("2001:db8:a:1::1", "2001:db8:b::1")));
    }

    #[test]
    fn one_witness_makes_a_path_suspect_and_two_make_it_dead_once() {
        let mut book = PathBook::new(BookConfig::default());
        assert_eq!(book.status(PATH, at(0)), Status::Unknown);
        assert_eq!(book.failed(PATH, 7, at(1), at(2)), Verdict::Suspect);
        assert_eq!(book.failed(PATH, 7, at(2), at(3)), Verdict::Suspect, "the same context again is no news");
        assert_eq!(book.status(PATH, at(3)), Status::Suspect);
        assert_eq!(book.failed(PATH, 8, at(3), at(4)), Verdict::NewlyDead);
        assert_eq!(book.failed(PATH, 9, at(4), at(5)), Verdict::KnownDead);
        assert_eq!(book.status(PATH, at(5)), Status::Dead);
        assert_eq!(book.counters().deaths, 1);
    }

    #[test]
    fn death_ends_with_a_confirmation_or_with_time_and_may_then_be_told_again() {
        let mut book = PathBook::new(BookConfig { witnesses: 1, ..BookConfig::default() });
        assert_eq!(book.failed(PATH, 1, at(0), at(1)), Verdict::NewlyDead);
        book.confirmed(PATH, at(10));
        assert_eq!(book.status(PATH, at(10)), Status::Working);
        assert_eq!(book.counters().revivals, 1);
        assert_eq!(book.failed(PATH, 2, at(9), at(11)), Verdict::Outdated);
        assert_eq!(book.status(PATH, at(39)), Status::Working);
        assert_eq!(book.status(PATH, at(40)), Status::Unknown);
        assert_eq!(book.failed(PATH, 2, at(41), at(42)), Verdict::NewlyDead);
        assert_eq!(book.status(PATH, at(101)), Status::Dead);
        assert_eq!(book.status(PATH, at(102)), Status::Unknown);
        assert_eq!(book.failed(PATH, 3, at(102), at(103)), Verdict::NewlyDead);
    }

    #[test]
    fn progress_refreshes_what_is_not_in_doubt() {
        let mut book = PathBook::new(BookConfig::default());
        book.progressed(PATH, at(1));
        assert_eq!((book.status(PATH, at(30)), book.status(PATH, at(31))), (Status::Working, Status::Unknown));
        assert_eq!(book.failed(PATH, 7, at(0), at(2)), Verdict::Outdated, "seen before the progress");
        assert_eq!(book.failed(PATH, 7, at(40), at(40)), Verdict::Suspect);
        book.progressed(PATH, at(41));
        assert_eq!(book.status(PATH, at(41)), Status::Suspect);
        assert_eq!(book.failed(PATH, 8, at(40), at(42)), Verdict::NewlyDead);
        book.progressed(PATH, at(43));
        assert_eq!(book.status(PATH, at(43)), Status::Dead);
    }

    #[test]
    fn old_witnesses_do_not_speak_in_a_new_episode() {
        let mut book = PathBook::new(BookConfig::default());
        assert_eq!(book.failed(PATH, 1, at(0), at(0)), Verdict::Suspect);
        assert_eq!(book.failed(PATH, 2, at(60), at(60)), Verdict::Suspect);
    }

    #[test]
    fn what_the_box_itself_knows_needs_no_witness() {
        let mut book = PathBook::new(BookConfig::default());
        assert_eq!(book.down(PATH, at(0)), Verdict::NewlyDead);
        assert_eq!(book.down(PATH, at(1)), Verdict::KnownDead);
        book.confirmed(PATH, at(2));
        assert_eq!(book.down(PATH, at(3)), Verdict::NewlyDead);
    }

    #[test]
    fn a_provider_that_is_down_costs_no_entries_and_an_answer_says_more() {
        let mut book = PathBook::new(BookConfig { capacity: 2, ..BookConfig::default() });
        let through = |n: u8| PathKey { local: [1; 8], peer: [n; 8] };
        book.confirmed(through(1), at(0));
        book.provider_down([1; 8], at(1));
        assert!((0..100).all(|n| book.status(through(n), at(500)) == Status::Dead), "for as long as it lasts");
        assert_eq!(book.status(PathKey { local: [3; 8], peer: [1; 8] }, at(1)), Status::Unknown);
        assert_eq!(book.entries.len(), 1);
        // Who finds out for himself tells nobody anything new.
        assert_eq!(book.failed(through(2), 7, at(2), at(3)), Verdict::KnownDead);
        assert_eq!(book.failed(through(2), 8, at(2), at(3)), Verdict::KnownDead);
        assert_eq!(book.counters().deaths, 0);
        book.confirmed(through(1), at(4));
        assert_eq!((book.status(through(1), at(4)), book.status(through(2), at(4))), (Status::Working, Status::Dead));
        book.forget_provider([1; 8]);
        assert!((0..100).all(|n| book.status(through(n), at(5)) == Status::Unknown));
        assert_eq!(book.entries.len(), 0);
    }

    #[test]
    fn the_book_is_bounded_and_stale_paths_make_room() {
        let mut book = PathBook::new(BookConfig { capacity: 2, ..BookConfig::default() });
        let path = |n: u8| PathKey { local: [n; 8], peer: [n; 8] };
        book.confirmed(path(1), at(0));
        book.confirmed(path(2), at(0));
        assert_eq!(book.failed(path(3), 1, at(1), at(1)), Verdict::Full);
        assert_eq!((book.iter(at(1)).count(), book.counters().full), (2, 1));
        book.confirmed(path(1), at(20));
        assert_eq!(book.failed(path(3), 1, at(30), at(30)), Verdict::Suspect);
        assert_eq!((book.status(path(1), at(30)), book.iter(at(30)).count()), (Status::Working, 2));
    }

    // R5534-114
    #[test]
    fn a_budget_grants_its_burst_and_then_its_rate() {
        let mut budget = ProbeBudget::new(100, 10);
        let granted = (0..1000).filter(|millis| budget.take(Instant::from_millis(5_000 + millis))).count();
        assert_eq!(granted, 10 + 99);
        assert_eq!(budget.deferred(), 1000 - 109);
        let mut budget = ProbeBudget::new(100, 10);
        let now = at(5);
        budget.charge(now, 1_000_000);
        assert!(!budget.take(now));
        assert_eq!(budget.ready_at(), now + Duration::from_millis(110), "debt is bounded");
        assert!(budget.take(budget.ready_at()));
    }
}
