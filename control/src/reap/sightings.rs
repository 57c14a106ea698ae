//! Who is heard, and where: what ordinary payload says about the two ends of a path.
//!
//! When a context hears nothing more, somebody is to blame: our provider, the peer's, or what lies between. Those who share
//! one end with it know. If everybody who sends through our provider to *other* peers is heard as before, it is not our
//! provider; if they too fell silent at that moment, it is. The same for the peer's end.
//!
//! Contexts are counted where they are heard, each at most once in half a second, and kept for half a minute: a row of
//! small numbers for each of our providers, each prefix of a peer, and each path between the two. What is asked is how the
//! row went on after a moment, compared with before.

use std::time::Duration;

use hashbrown::HashMap;

use super::paths::PathKey;
use crate::time::Instant;

/// How much time a number in a row stands for.
const STEP_MS: u64 = 500;
/// Numbers in a row: half a minute, so that the time before a Send Timeout is still there when it has run out.
const STEPS: usize = 64;
/// Steps before the moment that tell how it was.
const BEFORE: u64 = 8;
/// Rows of each kind. What finds no room is not counted, and then nothing is known of it.
const ROWS_MAX: usize = 4096;
/// Steps of silence after which a prefix that is heard again is news.
const SILENCE: u64 = 6;
/// Contexts that should have been heard before silence means anything.
const EXPECTED_MIN: u64 = 2;

/// How an end of a path does, judged by those who share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Most are heard as before.
    Well,
    /// Nobody else uses it, or not enough to say.
    #[default]
    Unknown,
    /// Most fell silent.
    Failing,
}

/// Both ends of a path, and the path itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Our provider.
    pub local: Condition,
    /// The peer's.
    pub peer: Condition,
    /// What lies between, and both ends with it.
    pub path: Condition,
}

impl Ends {
    /// Whether others fell silent at the same time: then it is no single host's fault.
    pub fn is_failing(self) -> bool {
        [self.local, self.peer, self.path].contains(&Condition::Failing)
    }
}

/// What was seen of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When something last arrived.
    pub last_in: Option<Instant>,
    /// When something was last sent.
    pub last_out: Option<Instant>,
    /// From the latest probe that was answered to its answer.
    pub round_trip: Option<Duration>,
}

/// Contexts heard, by where.
#[derive(Debug, Default)]
pub struct Sightings {
    local: HashMap<[u8; 8], Row>,
    peer: HashMap<[u8; 8], Row>,
    paths: HashMap<PathKey, (Row, Seen)>,
    /// Steps in which a full table was last swept: of our ends, of the peers', of paths. Once a step is enough.
    swept: [u64; 3],
}

/// Contexts heard in each step. A step's place is its number modulo the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    counts: [u16; STEPS],
    /// The latest step with a count.
    latest: u64,
}

impl Default for Row {
    fn default() -> Row {
        Row { counts: [0; STEPS], latest: 0 }
    }
}

impl Row {
    fn count(&mut self, step: u64) {
        // What stands in the places that were passed over belongs to an earlier round.
        for passed in (self.latest + 1..=step).rev().take(STEPS) {
            self.counts[passed as usize % STEPS] = 0;
        }
        self.latest = self.latest.max(step);
        let count = &mut self.counts[step as usize % STEPS];
        *count = count.saturating_add(1);
    }

    fn at(&self, step: u64) -> u64 {
        let known = step <= self.latest && step + STEPS as u64 > self.latest;
        if known { self.counts[step as usize % STEPS].into() } else { 0 }
    }

    /// Counts of the steps, less those of `mine`, and less `asks` in each: the context that asks.
    fn others(&self, mine: Option<&Row>, asks: u64, steps: std::ops::Range<u64>) -> u64 {
        let one = |step| self.at(step).saturating_sub(mine.map_or(asks, |mine| mine.at(step)));
        steps.map(one).sum()
    }

    /// How others did from `since` to `now`: those who are not on `mine`, or, without it, all but the one who asks and has
    /// heard nothing since.
    fn condition(&self, mine: Option<&Row>, since: u64, now: u64) -> Condition {
        // The steps of the two moments belong to both sides of them, or are not over.
        let (before, after) = (since.saturating_sub(BEFORE)..since, since + 1..now);
        let lost = now.saturating_sub(before.start) >= STEPS as u64;
        if after.is_empty() || lost {
            return Condition::Unknown;
        }
        let length = (before.end - before.start).max(1);
        let expected = self.others(mine, 1, before) * (after.end - after.start) / length;
        let heard = self.others(mine, 0, after);
        match (heard * 2 >= expected.max(1), expected >= EXPECTED_MIN) {
            (true, _) if heard > 0 => Condition::Well,
            (false, true) => Condition::Failing,
            _ => Condition::Unknown,
        }
    }
}

impl Sightings {
    /// The number of the half second that `now` lies in: a context is counted once in each.
    pub fn step(now: Instant) -> u64 {
        (now.0.as_millis() / u128::from(STEP_MS)) as u64
    }

    /// A context on `path` is heard. Counted once a step: the caller remembers [`Sightings::step`]. Whether that is news:
    /// nobody with this prefix of the peer's was heard for a while.
    pub fn heard(&mut self, path: PathKey, now: Instant) -> bool {
        let mut news = false;
        let step = Sightings::step(now);
        if let Some(row) = room(&mut self.local, &mut self.swept[0], path.local, now) {
            row.count(step);
        }
        if let Some(row) = room(&mut self.peer, &mut self.swept[1], path.peer, now) {
            news = row.latest + SILENCE < step || *row == Row::default();
            row.count(step);
        }
        if let Some((row, seen)) = self.path(path, now) {
            row.count(step);
            seen.last_in = Some(now);
        }
        news
    }

    /// Something was sent on `path`.
    pub fn sent(&mut self, path: PathKey, now: Instant) {
        if let Some((_, seen)) = self.path(path, now) {
            seen.last_out = Some(now);
        }
    }

    /// A probe on `path` was answered after this time.
    pub fn answered(&mut self, path: PathKey, round_trip: Duration, now: Instant) {
        if let Some((_, seen)) = self.path(path, now) {
            seen.round_trip = Some(round_trip);
        }
    }

    /// What was seen of a path.
    pub fn seen(&self, path: PathKey) -> Seen {
        self.paths.get(&path).map(|(_, seen)| *seen).unwrap_or_default()
    }

    /// How `path` did since a context on it last heard anything, judged by others on it, and its ends, judged by contexts
    /// that share one and not the other.
    pub fn ends(&self, path: PathKey, since: Instant, now: Instant) -> Ends {
        let (since, now) = (Sightings::step(since), Sightings::step(now));
        let mine = self.paths.get(&path).map(|(row, _)| row);
        let judge = |row: Option<&Row>| row.zip(mine).map(|(row, mine)| row.condition(Some(mine), since, now));
        Ends {
            local: judge(self.local.get(&path.local)).unwrap_or_default(),
            peer: judge(self.peer.get(&path.peer)).unwrap_or_default(),
            path: mine.map(|mine| mine.condition(None, since, now)).unwrap_or_default(),
        }
    }

    fn path(&mut self, path: PathKey, now: Instant) -> Option<&mut (Row, Seen)> {
        let step = Sightings::step(now);
        let full = self.paths.len() >= ROWS_MAX && !self.paths.contains_key(&path);
        if full && std::mem::replace(&mut self.swept[2], step) != step {
            let oldest = step.saturating_sub(2 * STEPS as u64);
            self.paths.retain(|_, (row, _)| row.latest >= oldest);
        }
        let room = self.paths.len() < ROWS_MAX || self.paths.contains_key(&path);
        room.then(|| self.paths.entry(path).or_default())
    }
}

/// The row of `key`, new if there is room.
fn room<'a>(rows: &'a mut HashMap<[u8; 8], Row>, swept: &mut u64, key: [u8; 8], now: Instant) -> Option<&'a mut Row> {
    let step = Sightings::step(now);
    if rows.len() >= ROWS_MAX && !rows.contains_key(&key) && std::mem::replace(swept, step) != step {
        let oldest = step.saturating_sub(2 * STEPS as u64);
        rows.retain(|_, row| row.latest >= oldest);
    }
    let room = rows.len() < ROWS_MAX || rows.contains_key(&key);
    room.then(|| rows.entry(key).or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn path(local: u8, peer: u8) -> PathKey {
        PathKey { local: [local; 8], peer: [peer; 8] }
    }

    /// One context on each of these paths, heard ten times a second.
    fn hear(seen: &mut Sightings, paths: &[PathKey], from_ms: u64, until_ms: u64) {
        for now in (from_ms..until_ms).step_by(STEP_MS as usize) {
            paths.iter().for_each(|path| _ = seen.heard(*path, at(now)));
        }
    }

    #[test]
    fn who_shares_an_end_and_is_heard_clears_it_and_who_fell_silent_blames_it() {
        let all = [path(1, 1), path(1, 2), path(1, 3), path(2, 1), path(3, 1), path(2, 2)];
        let judge = |alive: &dyn Fn(&PathKey) -> bool, until: u64| {
            let mut seen = Sightings::default();
            hear(&mut seen, &all, 60_000, 70_000);
            let alive: Vec<PathKey> = all.iter().copied().filter(alive).collect();
            hear(&mut seen, &alive, 70_000, until);
            let Ends { local, peer, .. } = seen.ends(path(1, 1), at(70_000), at(until));
            (local, peer)
        };
        use Condition::{Failing, Unknown, Well};
        for until in [72_000, 85_000] {
            assert_eq!(judge(&|path| path.local != [1; 8], until), (Failing, Well), "our provider");
            assert_eq!(judge(&|path| path.peer != [1; 8], until), (Well, Failing), "the peer's");
            assert_eq!(judge(&|it| *it != path(1, 1), until), (Well, Well), "between the two");
            assert_eq!(judge(&|path| path.local != [1; 8] && path.peer != [1; 8], until), (Failing, Failing));
        }
        assert_eq!(judge(&|_| false, 70_600), (Unknown, Unknown), "too early to say");
        assert_eq!(judge(&|_| false, 100_000), (Unknown, Unknown), "too long ago to know how it was");
    }

    #[test]
    fn a_context_is_no_witness_of_its_own_and_one_alone_proves_no_failure() {
        let mut seen = Sightings::default();
        hear(&mut seen, &[path(1, 1)], 60_000, 70_000);
        assert_eq!(seen.ends(path(1, 1), at(70_000), at(85_000)), Ends::default());
        // Somebody who speaks once in ten seconds is not missed after two.
        seen.heard(path(1, 2), at(69_000));
        assert_eq!(seen.ends(path(1, 1), at(70_000), at(72_000)).local, Condition::Unknown);
        assert_eq!(seen.ends(path(7, 8), at(70_000), at(85_000)), Ends::default(), "nobody was ever there");
    }

    #[test]
    fn others_on_the_same_path_say_whether_it_is_the_path() {
        for (others, alive, expected) in
            [(2, 0, Condition::Failing), (2, 2, Condition::Well), (4, 1, Condition::Failing), (4, 2, Condition::Well)]
        {
            let mut seen = Sightings::default();
            hear(&mut seen, &vec![path(1, 1); 1 + others], 60_000, 70_000);
            hear(&mut seen, &vec![path(1, 1); alive], 70_000, 75_000);
            let ends = seen.ends(path(1, 1), at(70_000), at(75_000));
            assert_eq!(
                (ends.path, ends.is_failing()),
                (expected, expected == Condition::Failing),
                "{alive} of {others}"
            );
        }
    }

    #[test]
    fn half_of_those_who_share_an_end_decide() {
        for (alive, expected) in [(1, Condition::Failing), (4, Condition::Failing), (5, Condition::Well)] {
            let mut seen = Sightings::default();
            let all: Vec<PathKey> = (1..=10).map(|peer| path(1, 10 + peer)).collect();
            hear(&mut seen, &all, 60_000, 70_000);
            hear(&mut seen, &[path(1, 1)], 60_000, 70_000);
            hear(&mut seen, &all[..alive], 70_000, 75_000);
            assert_eq!(seen.ends(path(1, 1), at(70_000), at(75_000)).local, expected, "{alive} of ten");
        }
    }

    #[test]
    fn rows_go_round_and_are_bounded() {
        let mut row = Row::default();
        for step in [5, 5, 6, 70, 400] {
            row.count(step);
        }
        assert_eq!([5, 6, 70, 399, 400, 401].map(|step| row.at(step)), [0, 0, 0, 0, 1, 0]);
        let mut seen = Sightings::default();
        for n in 0..10_000u32 {
            let [a, b, c, d] = n.to_be_bytes();
            seen.heard(PathKey { local: [1; 8], peer: [0, 0, 0, 0, a, b, c, d] }, at(1000));
        }
        assert_eq!((seen.local.len(), seen.peer.len(), seen.paths.len()), (1, ROWS_MAX, ROWS_MAX));
        // What is old makes room.
        seen.heard(path(1, 1), at(100_000));
        assert_eq!((seen.peer.len(), seen.paths.len()), (1, 1));
    }

    #[test]
    fn who_is_heard_after_a_silence_is_news_once() {
        let mut seen = Sightings::default();
        let news: Vec<bool> = [60_000, 60_500, 62_000, 65_000, 69_000, 69_500]
            .into_iter()
            .map(|now| seen.heard(path(1, 1), at(now)))
            .collect();
        assert_eq!(news, [true, false, false, false, true, false]);
        assert!(!seen.heard(path(2, 1), at(70_000)), "the peer was heard another way");
        assert!(seen.heard(path(1, 2), at(70_000)));
    }

    #[test]
    fn times_of_a_path_are_the_latest() {
        let mut seen = Sightings::default();
        assert_eq!(seen.seen(path(1, 1)), Seen::default());
        seen.heard(path(1, 1), at(1000));
        seen.sent(path(1, 1), at(1500));
        seen.answered(path(1, 1), Duration::from_millis(20), at(1500));
        let round_trip = Some(Duration::from_millis(20));
        assert_eq!(seen.seen(path(1, 1)), Seen { last_in: Some(at(1000)), last_out: Some(at(1500)), round_trip });
    }
}
