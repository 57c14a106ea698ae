//! Which paths are watched by exchanging liveness, and what is known of each (docs/decisions: path liveness).
//!
//! A *watch* is a session of [BFD](crate::bfd) about a path: one of our providers and one /64 of a peer, whoever uses it. It needs
//! a context of that path to speak for it, whose peer has offered the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dataplane::wire::LocatorPair;
use hashbrown::HashMap;
use rand::Rng;

use crate::bfd::{Config, Session};
use crate::config::site::{Liveness, Site};
use crate::reap::PathKey;
use crate::shim6::ContextId;
use crate::time::Instant;

/// A path on which no context of ours has sent or received for so long is not watched any more, if the peer does not want it to be.
pub(super) const LINGER: Duration = Duration::from_secs(30);
/// One that failed is watched for so long, to know when it is back.
pub(super) const LINGER_LOST: Duration = Duration::from_secs(600);
/// How often a watch is looked after.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Another context takes over for one that has not been active for so long: the peer may forget who is quiet.
pub(super) const SPEAKS: Duration = Duration::from_secs(5);
/// A path that is up again is trusted after so long; twice as long with each failure that follows another one within `CALM`, up to
/// a maximum.
const HOLD: Duration = Duration::from_secs(2);
const HOLD_MAX: Duration = Duration::from_secs(64);
const CALM: Duration = Duration::from_secs(600);
/// What peers alone want to have watched may take so much of the room, and those of one /48 so much.
const ASKED_SHARE: usize = 4;
const ASKED_SHARE_OF_ONE: usize = 16;
/// Workers may have dropped something so long ago that still counts.
const ECHO: Duration = Duration::from_millis(200);

/// All watches.
pub(super) struct Watches {
    /// None if none are wanted.
    wanted: Option<Liveness>,
    pub(super) paths: BTreeMap<PathKey, Watch>,
    due: BTreeSet<(Instant, PathKey)>,
    /// How many halvings of the pace there are, because there are many.
    slowdown: u32,
    noise: Noise,
}

/// What is known of one path.
pub(super) struct Watch {
    pub(super) session: Session,
    /// Who speaks for it, over which pair, and since when he is known to be active.
    pub(super) speaker: (ContextId, LocatorPair, Instant),
    /// When a context of ours last used the path; never if only the peer wants it watched.
    pub(super) used: Option<Instant>,
    /// Whether the peer uses it.
    pub(super) asked: bool,
    /// Since when the path is down by our word, and not back yet.
    pub(super) lost: Option<Instant>,
    /// When it is trusted again.
    pub(super) trusted_at: Option<Instant>,
    /// When contexts were last asked because of it.
    told: Option<Instant>,
    failures: u32,
    last_failure: Option<Instant>,
    pub(super) sent: u64,
    pub(super) received: u64,
    look: Instant,
    queued: Option<Instant>,
}

/// How much comes in, by which it is known whether the workers may have had to leave something out: all of it goes into buckets like
/// theirs, so that a burst which they let through is no reason to doubt anything.
#[derive(Default)]
struct Noise {
    all: Bucket,
    /// By /64 of watched paths.
    sources: HashMap<[u8; 8], Bucket>,
    /// What everybody and one source may send, as workers have it.
    limits: [Rate; 2],
}

/// A rate, and how much may come at once.
#[derive(Clone, Copy, Default)]
struct Rate {
    per_s: u32,
    burst: u32,
}

/// How much of a burst has been used.
#[derive(Clone, Copy, Default)]
struct Bucket {
    /// Thousandths of a message, as of then.
    used: u64,
    at: Instant,
    /// When more than half of it was used last. There may be several workers, and what they count is not all heard here.
    high: Option<Instant>,
}

impl Watches {
    pub(super) fn new(site: &Site) -> Watches {
        let rate = |per_s: u32, share: u32| Rate { per_s, burst: (per_s / share).max(8) };
        let limits = [rate(site.shim6.messages_per_s, 8), rate(site.shim6.messages_per_source_s, 4)];
        Watches {
            wanted: site.liveness,
            paths: BTreeMap::new(),
            due: BTreeSet::new(),
            slowdown: 0,
            noise: Noise { limits, ..Noise::default() },
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// What is held on behalf of contexts.
    pub(super) fn leftovers(&self) -> (&'static str, usize) {
        ("watched paths", self.paths.len())
    }

    /// When [`Watches::pop`] has something.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next path whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<PathKey> {
        let (_, path) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.due.pop_first();
        if let Some(watch) = self.paths.get_mut(&path) {
            watch.queued = None;
        }
        Some(path)
    }

    /// Gives a watch its place among those that wait.
    pub(super) fn requeue(&mut self, path: PathKey) {
        let Some(watch) = self.paths.get_mut(&path) else { return };
        let at = [watch.session.deadline(), watch.trusted_at].into_iter().flatten().fold(watch.look, Instant::min);
        if let Some(before) = watch.queued.replace(at) {
            self.due.remove(&(before, path));
        }
        self.due.insert((at, path));
    }

    /// A new watch on a path; none if there is no room. `asked` says that only the peer wants it.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        speaker: ContextId,
        pair: LocatorPair,
        asked: bool,
    ) -> Option<PathKey> {
        let wanted = self.wanted?;
        let (path, most) = (PathKey::of(pair), wanted.paths_max as usize);
        if self.paths.len() >= most || (asked && !self.has_room_for(path, most)) {
            return None;
        }
        let session = Session::new(now, rng, self.config());
        self.paths.insert(path, Watch::new(now, session, speaker, pair, asked));
        self.noise.sources.entry(path.peer).or_default();
        self.keep_pace();
        self.requeue(path);
        Some(path)
    }

    /// A watch that another process had, if there is room.
    pub(super) fn take_over(&mut self, watch: Watch) {
        let path = PathKey::of(watch.speaker.1);
        let room = self.wanted.is_some_and(|wanted| self.paths.len() < wanted.paths_max as usize);
        if !room || self.paths.contains_key(&path) {
            return;
        }
        self.paths.insert(path, watch);
        self.noise.sources.entry(path.peer).or_default();
        self.keep_pace();
        self.requeue(path);
    }

    /// A path is not watched any more.
    pub(super) fn end(&mut self, path: PathKey) -> Option<Watch> {
        let watch = self.paths.remove(&path)?;
        if let Some(at) = watch.queued {
            self.due.remove(&(at, path));
        }
        if self.paths.keys().all(|other| other.peer != path.peer) {
            self.noise.sources.remove(&path.peer);
        }
        self.keep_pace();
        Some(watch)
    }

    /// How sessions are run now.
    pub(super) fn config(&self) -> Config {
        let (interval, multiplier) = self.wanted.map_or((LOOK, 1), |it| (it.interval, it.multiplier));
        Config { interval: interval * (1 << self.slowdown), multiplier }
    }

    /// Whether a peer may have one more path watched.
    fn has_room_for(&self, path: PathKey, most: usize) -> bool {
        let site =
            |path: &PathKey| [path.peer[0], path.peer[1], path.peer[2], path.peer[3], path.peer[4], path.peer[5]];
        let asked = || self.paths.iter().filter(|(_, watch)| watch.used.is_none());
        let of_one = asked().filter(|(other, _)| site(other) == site(&path)).count();
        asked().count() < (most / ASKED_SHARE).max(1) && of_one < (most / ASKED_SHARE_OF_ONE).max(1)
    }

    /// With many paths each is asked less often, so that all together keep within the packets that are allowed.
    fn keep_pace(&mut self) {
        let Some(wanted) = self.wanted else { return };
        let fits = |paths: f64, slowdown: u32| {
            let interval = wanted.interval.as_secs_f64() * f64::from(1 << slowdown);
            // Jitter makes intervals seven eighths of what they are called.
            paths / interval / 0.875 <= f64::from(wanted.packets_per_s)
        };
        let paths = self.paths.len() as f64;
        let before = self.slowdown;
        while !fits(paths, self.slowdown) && self.slowdown < 16 {
            self.slowdown += 1;
        }
        while self.slowdown > 0 && fits(paths * 1.25, self.slowdown - 1) {
            self.slowdown -= 1;
        }
        if before != self.slowdown {
            let interval = self.config().interval;
            self.paths.values_mut().for_each(|watch| watch.session.set_interval(interval));
        }
    }

    /// Something came from somewhere that a worker has a limit for: a message, or what has a share in its source's limit alone.
    pub(super) fn heard(&mut self, now: Instant, source: [u8; 8], is_message: bool) {
        if self.paths.is_empty() {
            return;
        }
        let Noise { all, sources, limits } = &mut self.noise;
        if is_message {
            all.add(now, limits[0]);
        }
        if let Some(bucket) = sources.get_mut(&source) {
            bucket.add(now, limits[1]);
        }
    }

    /// Whether so much comes that workers may have dropped what the peer of a path said.
    pub(super) fn is_deaf(&self, now: Instant, path: PathKey) -> bool {
        let of_source = self.noise.sources.get(&path.peer);
        // All that was missed may have been missed at the beginning of the time after which a path counts as silent.
        let session = self.paths.get(&path).map(|watch| &watch.session).filter(|session| session.is_up());
        let within = session.map_or(ECHO, |session| session.detection_time().max(ECHO));
        [Some(&self.noise.all), of_source].into_iter().flatten().any(|bucket| bucket.was_high(now, within))
    }
}

impl Watch {
    pub(super) fn new(now: Instant, session: Session, speaker: ContextId, pair: LocatorPair, asked: bool) -> Watch {
        Watch {
            session,
            speaker: (speaker, pair, now),
            used: (!asked).then_some(now),
            asked,
            lost: None,
            trusted_at: None,
            told: None,
            failures: 0,
            last_failure: None,
            sent: 0,
            received: 0,
            look: now + LOOK,
            queued: None,
        }
    }

    /// Whether a context of ours uses the path, or did before it failed.
    pub(super) fn is_used(&self, now: Instant) -> bool {
        let linger = if self.lost.is_some() { LINGER_LOST } else { LINGER };
        self.used.is_some_and(|used| now.since(used) < linger)
    }

    /// Whether it is time to look after it, which is in order then.
    pub(super) fn takes_look(&mut self, now: Instant) -> bool {
        let due = self.look <= now;
        if due {
            self.look = now + LOOK;
        }
        due
    }

    /// The session has gone down, and the path with it. Whether everybody on the path has to hear of it: what flaps is told once in
    /// its hold time.
    pub(super) fn fail(&mut self, now: Instant) -> bool {
        let again = self.last_failure.is_some_and(|last| now.since(last) < CALM);
        self.failures = if again { self.failures.saturating_add(1) } else { 1 };
        (self.last_failure, self.trusted_at) = (Some(now), None);
        self.lost.get_or_insert(now);
        let tell = self.told.is_none_or(|told| now.since(told) >= self.hold());
        if tell {
            self.told = Some(now);
        }
        tell
    }

    /// It is up again: trusted after its hold time, if it has failed.
    pub(super) fn recover(&mut self, now: Instant) {
        if self.lost.is_some() {
            self.trusted_at = Some(now + self.hold());
        }
    }

    /// It is trusted again. Since when it was not.
    pub(super) fn trust(&mut self) -> Option<Instant> {
        (self.trusted_at, self.told) = (None, None);
        self.lost.take()
    }

    /// How often the path failed, where one failure followed another.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    fn hold(&self) -> Duration {
        (HOLD * (1 << self.failures.saturating_sub(1).min(8))).min(HOLD_MAX)
    }
}

impl Bucket {
    fn add(&mut self, now: Instant, rate: Rate) {
        let passed = u64::try_from(now.since(self.at).as_micros()).unwrap_or(u64::MAX);
        let back = passed.saturating_mul(rate.per_s.into()) / 1000;
        let burst = u64::from(rate.burst) * 1000;
        self.used = (self.used.saturating_sub(back) + 1000).min(burst);
        self.at = now;
        if self.used * 2 >= burst {
            self.high = Some(now);
        }
    }

    fn was_high(&self, now: Instant, within: Duration) -> bool {
        self.high.is_some_and(|at| now.since(at) < within)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use dataplane::wire::Locator;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::sim::{Plan, World};

    fn at(millis: u64) -> Instant {
        Instant::from_millis(1_000_000 + millis)
    }

    /// Watches of a site with these settings, and somebody who speaks.
    fn watches(settings: &str) -> (Watches, ContextId) {
        let mut world = World::new(&Plan { liveness: format!("enabled = true\n{settings}"), ..Plan::default() }, 1);
        world.stream(0, 1, Duration::from_millis(20));
        world.run(Duration::from_secs(1));
        let id = world.nodes[0].engine.contexts().next().unwrap().id;
        (Watches::new(world.nodes[0].site()), id)
    }

    /// Towards a peer's `subnet` at `site`.
    fn pair(site: u16, subnet: u16) -> LocatorPair {
        let locator = |site, subnet| Locator(Ipv6Addr::new(0x2001, 0xdb8, site, subnet, 0, 0, 0, 1));
        LocatorPair { local: locator(1, 1), peer: locator(site, subnet) }
    }

    #[test]
    fn peers_have_their_share_of_the_room() {
        let (mut watches, id) = watches("paths_max = 64");
        let mut rng = StdRng::seed_from_u64(1);
        let mut begun = |asked: bool, site: u16| {
            let all =
                (0..100).filter(|subnet| watches.begin(at(0), &mut rng, id, pair(site, *subnet), asked).is_some());
            all.count()
        };
        assert_eq!(begun(true, 2), 64 / ASKED_SHARE_OF_ONE);
        assert_eq!((3..20).map(|site| begun(true, site)).sum::<usize>(), 64 / ASKED_SHARE - 64 / ASKED_SHARE_OF_ONE);
        assert_eq!(begun(false, 30), 64 - 64 / ASKED_SHARE);
        assert_eq!((begun(false, 31), begun(true, 31)), (0, 0));
    }

    #[test]
    fn all_together_keep_within_what_is_allowed_at_any_number() {
        let (mut watches, id) = watches("paths_max = 4096\npackets_per_s = 1000");
        let mut rng = StdRng::seed_from_u64(1);
        let mut slowest = 0;
        for number in 0..1000_u16 {
            watches.begin(at(0), &mut rng, id, pair(2, number), false).unwrap();
            let each = 1.0 / watches.config().interval.as_secs_f64() / 0.875;
            assert!(watches.paths.len() as f64 * each <= 1000.0, "{number}");
            slowest = slowest.max(watches.config().interval.as_millis());
        }
        // 50 ms allow 43 of them, and each doubling twice as many.
        assert_eq!(slowest, 50 << 5);
        for number in 0..1000_u16 {
            watches.end(PathKey::of(pair(2, number)));
        }
        assert_eq!(watches.config().interval, Duration::from_millis(50));
        assert_eq!(watches.deadline(), None);
    }

    #[test]
    fn a_path_that_flaps_is_trusted_later_each_time_and_told_once_in_that_time() {
        let (mut watches, id) = watches("");
        let path = watches.begin(at(0), &mut StdRng::seed_from_u64(1), id, pair(2, 1), false).unwrap();
        let watch = watches.paths.get_mut(&path).unwrap();
        let mut now = at(0);
        let mut held = Vec::new();
        for _ in 0..8 {
            assert!(watch.fail(now));
            let again = now + Duration::from_secs(1);
            assert!(!watch.fail(again), "and not while it is held");
            watch.failures -= 1;
            watch.recover(again);
            held.push(watch.trusted_at.unwrap().since(again).as_secs());
            now = watch.trusted_at.unwrap() + Duration::from_secs(10);
            watch.trust();
        }
        assert_eq!(held, [2, 4, 8, 16, 32, 64, 64, 64]);
        now = now + CALM;
        assert!(watch.fail(now));
        watch.recover(now);
        assert_eq!(watch.trusted_at.unwrap().since(now), HOLD, "after a calm it is the first time again");
    }

    #[test]
    fn a_burst_that_workers_let_through_is_no_reason_to_doubt_anything_and_more_is() {
        let (mut watches, id) = watches("");
        let path = watches.begin(at(0), &mut StdRng::seed_from_u64(1), id, pair(2, 1), false).unwrap();
        let [all, one] = watches.noise.limits.map(|rate| rate.burst);
        assert_eq!([all, one], [6250, 2500], "as workers have it");
        // What a box's probes and their answers come to when thousands of contexts leave a path: 10,000 a second.
        for millis in 0..1000 {
            (0..10).for_each(|_| watches.heard(at(millis), path.peer, true));
            assert!(!watches.is_deaf(at(millis), path), "{millis}");
        }
        (0..one / 2).for_each(|_| watches.heard(at(2000), path.peer, true));
        assert!(watches.is_deaf(at(2000), path) && watches.is_deaf(at(2199), path));
        assert!(!watches.is_deaf(at(2200), path));
        // What is said of unknown tags takes its source's share, and nobody else's.
        (0..one).for_each(|_| watches.heard(at(4000), path.peer, false));
        assert!(watches.is_deaf(at(4000), path) && !watches.noise.all.was_high(at(4000), ECHO));
        (0..all).for_each(|number| watches.heard(at(6000), u64::from(number).to_be_bytes(), true));
        assert!(watches.is_deaf(at(6050), path) && !watches.is_deaf(at(6300), path));
        assert_eq!(watches.noise.sources.len(), 1, "nothing is remembered of strangers");
    }
}
