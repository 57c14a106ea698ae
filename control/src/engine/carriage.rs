//! Which paths drop next header 140, and what goes in UDP there (docs/decisions: paths that drop extension headers).
//!
//! To REAP such a path is dead: its probes have the header too. So when a probe stays without answer, the path is asked by
//! a pair of Keepalives with a nonce, one plain and one in UDP, which REAP does not see:
//!
//! ```text
//!           probe unanswered, or heard in UDP          answered in UDP alone, and that for the second time,
//!  header ──────────────────────────────────▶ header,  or after a probe without answer
//!    ▲                                        in doubt ───────────────────────────────────────────────▶ UDP
//!    │◀─────────────────────────────────────── answered plain                                            │
//!    │◀───────── answered plain twice in a row; once, when it was an accident or UDP is lost ────────────┘
//! ```
//!
//! While a path is in doubt messages go both ways. What is known is known of the path (one of our providers towards one /64 of a
//! peer, one direction), and contexts on it hear of it when workers next report payload of theirs, so none of this needs
//! a timer. A path is kept as long as it goes in UDP, and for a while after; there is room for so many.

use std::time::Duration;

use dataplane::wire::shim6::{Addresses, UdpPorts};
use hashbrown::HashMap;

use crate::reap::{PathKey, ProbeBudget};
use crate::time::Instant;

/// Tests of one path are at least so far apart, but for the one that makes a second miss.
const PACE: Duration = Duration::from_millis(500);
/// How long a path is in doubt when nothing more is heard.
const DOUBT: Duration = Duration::from_secs(10);
/// A probe that was followed so soon was not given up.
pub(super) const PATIENT: Duration = Duration::from_millis(400);
/// Times that only UDP was answered, or a probe was not, before a path drops 140.
const MISSES: u8 = 2;
/// An answer to a plain test that comes so soon after the path went to UDP was only late.
const LATE: Duration = Duration::from_secs(1);
/// From the time a path goes to UDP to the first look whether it still has to; then twice as long each time, up to a maximum.
const FIRST: Duration = Duration::from_secs(5);
const AGAIN_MAX: Duration = Duration::from_secs(300);
/// Plain answers in a row that end it, and how far apart.
const GOOD: u8 = 2;
const GOOD_APART: Duration = Duration::from_secs(1);
/// How long it is remembered that a path had to go in UDP.
const REST: Duration = Duration::from_secs(600);
/// A path that was found in order is not asked again for so long because of what comes in UDP.
const IN_ORDER: Duration = Duration::from_secs(60);
/// Paths there is room for.
const PATHS_MAX: usize = 4096;
/// Answers to tests, of all peers together, per second.
const ANSWERS_PER_S: u32 = 2_000;

/// What is known of paths, as far as it is not that they carry everything.
pub(super) struct Carriages {
    /// The port, if UDP is wanted.
    pub(super) port: Option<u16>,
    pub(super) paths: HashMap<PathKey, Carriage>,
    pub(super) answers: ProbeBudget,
    /// The message being dealt with came in UDP, so.
    pub(super) coming: Option<(Addresses, UdpPorts)>,
}

/// What is known of one path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carriage {
    /// It drops 140: since when.
    udp: Option<Instant>,
    /// Messages go both ways until then.
    doubt: Option<Instant>,
    asked: Option<Asked>,
    /// In favour of another way than the present one, in a row.
    misses: u8,
    good: u8,
    /// When to look again whether it has to go in UDP, and how long to wait then.
    next: Option<Instant>,
    wait: Duration,
    /// With what wait it began the last time, and when that ended.
    first: Duration,
    ended: Option<Instant>,
    /// Not to be asked because of what comes in UDP.
    in_order: Option<Instant>,
}

/// A pair of tests, and which of the two were answered.
#[derive(Clone, Copy, Debug)]
struct Asked {
    nonce: u32,
    at: Instant,
    plain: bool,
    udp: bool,
}

/// What an answer comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// Ask once more, at once.
    Ask,
    Begun,
    Ended,
}

/// How a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forms {
    pub(super) plain: bool,
    pub(super) udp: Option<UdpPorts>,
}

impl Forms {
    pub(super) const PLAIN: Forms = Forms { plain: true, udp: None };

    /// The ports of each copy, none for the plain one, which goes first.
    pub(super) fn each(self) -> impl Iterator<Item = Option<UdpPorts>> {
        self.plain.then_some(None).into_iter().chain(self.udp.map(Some))
    }
}

impl Carriage {
    pub(super) fn is_in_doubt(&self, now: Instant) -> bool {
        self.doubt.is_some_and(|until| now < until)
    }

    /// Whether anything about it is worth keeping.
    fn matters(&self, now: Instant) -> bool {
        let recent = self.ended.is_some_and(|ended| now.since(ended) < REST);
        // What payload has not asked about again for so long is nobody's.
        let used = self.udp.is_some() && self.next.is_none_or(|next| now.since(next) < REST);
        used || recent || self.is_in_doubt(now) || self.in_order.is_some_and(|until| now < until)
    }

    /// There is reason to ask: a probe was not answered (`missed`), or the peer speaks in UDP. Whether to ask now.
    pub(super) fn doubts(&mut self, now: Instant, missed: bool) -> bool {
        if !missed && (self.udp.is_some() || self.in_order.is_some_and(|until| now < until)) {
            return false;
        }
        if !self.is_in_doubt(now) {
            self.misses = 0;
        }
        self.misses = self.misses.saturating_add(u8::from(missed));
        self.doubt = Some(now + DOUBT);
        self.asked.is_none_or(|asked| now.since(asked.at) >= PACE)
    }

    /// Payload goes in UDP. Whether to look if it has to.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if self.udp.is_none() || self.next.is_some_and(|next| now < next) {
            return false;
        }
        if self.asked.is_some_and(|asked| !asked.plain) {
            self.good = 0;
        }
        self.next = Some(now + self.wait);
        self.wait = (self.wait * 2).min(AGAIN_MAX);
        true
    }

    pub(super) fn ask(&mut self, now: Instant, nonce: u32) {
        self.asked = Some(Asked { nonce, at: now, plain: false, udp: false });
    }

    /// The peer has had a test, plain or in UDP.
    pub(super) fn answered(&mut self, now: Instant, nonce: u32, udp: bool) -> Found {
        let Some(asked) = self.asked.as_mut().filter(|asked| asked.nonce == nonce) else { return Found::Nothing };
        let known = if udp { &mut asked.udp } else { &mut asked.plain };
        if std::mem::replace(known, true) {
            return Found::Nothing;
        }
        let asked = *asked;
        match (udp, self.udp) {
            (true, Some(_)) => {
                self.misses = 0;
                Found::Nothing
            }
            (true, None) if asked.plain => Found::Nothing,
            (true, None) => {
                self.misses = self.misses.saturating_add(1);
                if self.misses < MISSES {
                    return Found::Ask;
                }
                self.begin(now);
                Found::Begun
            }
            (false, None) => {
                (self.doubt, self.misses, self.in_order) = (None, 0, Some(now + IN_ORDER));
                Found::Nothing
            }
            (false, Some(since)) => {
                self.good += 1;
                self.next = Some(now + GOOD_APART);
                let accident = now.since(since) < LATE;
                // UDP is lost now, and this is not.
                let worse = self.misses > 0 && !asked.udp;
                if self.good < GOOD && !accident && !worse {
                    return Found::Nothing;
                }
                self.end(now);
                Found::Ended
            }
        }
    }

    /// It drops 140.
    pub(super) fn begin(&mut self, now: Instant) {
        let relapse = self.ended.is_some_and(|ended| now.since(ended) < REST);
        self.first = if relapse { (self.first * 2).clamp(FIRST, AGAIN_MAX) } else { FIRST };
        (self.udp, self.doubt, self.misses, self.good) = (Some(now), None, 0, 0);
        (self.next, self.wait, self.in_order) = (Some(now + self.first), self.first, None);
    }

    fn end(&mut self, now: Instant) {
        (self.udp, self.doubt, self.misses, self.good) = (None, None, 0, 0);
        (self.next, self.ended, self.in_order) = (None, Some(now), Some(now + IN_ORDER));
    }
}

impl Carriages {
    pub(super) fn new(port: Option<u16>) -> Carriages {
        let answers = ProbeBudget::new(ANSWERS_PER_S, ANSWERS_PER_S / 10);
        Carriages { port, paths: HashMap::new(), answers, coming: None }
    }

    /// Whether there is UDP at all.
    pub(super) fn is_wanted(&self) -> bool {
        self.port.is_some()
    }

    /// From here on a packet with these addresses is dealt with, which came in UDP by these ports, if it did.
    pub(super) fn came(&mut self, addresses: Addresses, udp: Option<UdpPorts>) {
        self.coming = udp.map(|ports| (addresses, ports));
    }

    /// That is done.
    pub(super) fn went(&mut self) {
        self.coming = None;
    }

    /// Whether a path is known to drop 140.
    pub(super) fn is_udp(&self, path: PathKey) -> bool {
        self.paths.get(&path).is_some_and(|carriage| carriage.udp.is_some())
    }

    /// What is known of a path, to be changed; none if there is no room for it.
    pub(super) fn path(&mut self, now: Instant, path: PathKey) -> Option<&mut Carriage> {
        if self.paths.len() >= PATHS_MAX && !self.paths.contains_key(&path) {
            self.paths.retain(|_, carriage| carriage.matters(now));
            if self.paths.len() >= PATHS_MAX {
                return None;
            }
        }
        Some(self.paths.entry(path).or_default())
    }

    /// Another process knew that a path drops 140; payload will show whether it still does.
    pub(super) fn inherit(&mut self, now: Instant, path: PathKey) {
        if self.is_wanted()
            && !self.is_udp(path)
            && let Some(carriage) = self.path(now, path)
        {
            carriage.begin(now);
        }
    }

    /// The ports by which a message of these addresses goes as an answer to the one being dealt with.
    pub(super) fn answering(&self, addresses: Addresses) -> Option<UdpPorts> {
        self.coming.filter(|(came, _)| came.swapped() == addresses).map(|(_, ports)| ports.swapped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        carriage: Carriage,
        now: Instant,
        nonce: u32,
    }

    impl Scene {
        fn new() -> Scene {
            Scene { carriage: Carriage::default(), now: Instant::from_millis(1_000_000), nonce: 0 }
        }

        fn wait(&mut self, time: Duration) {
            self.now = self.now + time;
        }

        pub(super) fn ask(&mut self) {
            self.nonce += 1;
            self.carriage.ask(self.now, self.nonce);
        }

        fn answer(&mut self, udp: bool) -> Found {
            self.carriage.answered(self.now, self.nonce, udp)
        }

        /// A probe that stayed without answer; whether the path is asked.
        fn missed(&mut self) -> bool {
            let asks = self.carriage.doubts(self.now, true);
            if asks {
                self.ask();
            }
            asks
        }

        /// A path that has just been found to drop the header.
        fn in_udp() -> Scene {
            let mut scene = Scene::new();
            assert!(scene.missed());
            assert_eq!(scene.answer(true), Found::Begun);
            scene
        }

        /// Payload goes for some time, in which tests are answered so or not. When they were sent, and whether it ended.
        fn talk(&mut self, time: Duration, plain: bool) -> (Vec<Duration>, bool) {
            let (mut tests, began) = (Vec::new(), self.now);
            while self.now < began + time {
                if self.carriage.is_due(self.now) {
                    tests.push(self.now.since(began));
                    self.ask();
                    if plain && self.answer(false) == Found::Ended {
                        return (tests, true);
                    }
                    assert_eq!(self.answer(true), Found::Nothing);
                }
                self.wait(Duration::from_millis(50));
            }
            (tests, false)
        }
    }

    #[test]
    fn a_probe_and_a_test_without_answer_beside_one_in_udp_are_two_misses() {
        let mut scene = Scene::new();
        assert!(scene.missed());
        assert!(scene.carriage.is_in_doubt(scene.now) && scene.carriage.udp.is_none());
        assert_eq!(scene.carriage.answered(scene.now, 77, true), Found::Nothing, "an answer to nothing");
        assert_eq!(scene.answer(true), Found::Begun);
        assert_eq!(scene.answer(true), Found::Nothing, "the same again is no news");
        assert!(!scene.carriage.is_in_doubt(scene.now));
    }

    #[test]
    fn one_miss_is_asked_about_once_more_and_the_plain_answer_has_the_say() {
        let mut scene = Scene::new();
        assert!(scene.carriage.doubts(scene.now, false), "the peer speaks in UDP");
        scene.ask();
        assert_eq!(scene.answer(true), Found::Ask);
        scene.ask();
        assert_eq!(scene.answer(false), Found::Nothing);
        assert_eq!(scene.answer(true), Found::Nothing, "both arrive");
        assert!(scene.carriage.udp.is_none() && !scene.carriage.is_in_doubt(scene.now));
        assert!(!scene.carriage.doubts(scene.now, false), "and that is enough for a while");
        scene.wait(IN_ORDER);
        assert!(scene.carriage.doubts(scene.now, false));
        assert!(scene.carriage.matters(scene.now));
        scene.wait(DOUBT);
        assert!(!scene.carriage.matters(scene.now));
    }

    #[test]
    fn a_path_is_asked_at_a_pace() {
        let mut scene = Scene::new();
        let asked = (0..10_000).filter(|_| {
            scene.wait(Duration::from_millis(1));
            scene.missed()
        });
        assert_eq!(asked.count(), 20);
    }

    #[test]
    fn an_answer_that_was_only_late_ends_it_at_once() {
        let mut scene = Scene::in_udp();
        scene.wait(Duration::from_millis(300));
        assert_eq!(scene.answer(false), Found::Ended);
    }

    #[test]
    fn it_ends_with_two_plain_answers_and_is_looked_at_ever_more_rarely() {
        let mut scene = Scene::in_udp();
        let (tests, ended) = scene.talk(Duration::from_secs(1000), false);
        assert!(!ended);
        assert_eq!(tests.iter().map(Duration::as_secs).collect::<Vec<_>>(), [5, 10, 20, 40, 80, 160, 320, 620, 920]);
        scene.carriage.good = 1;
        let (_, ended) = scene.talk(Duration::from_secs(310), false);
        assert!(!ended && scene.carriage.good == 0, "a silent test begins the count anew");
        let (tests, ended) = scene.talk(Duration::from_secs(310), true);
        assert!(ended && tests.len() == 2 && tests[1] - tests[0] == GOOD_APART, "{tests:?}");
    }

    #[test]
    fn a_path_that_flaps_is_looked_at_later_each_time() {
        let mut scene = Scene::in_udp();
        let mut first = Vec::new();
        for _ in 0..9 {
            let (tests, ended) = scene.talk(Duration::from_secs(400), true);
            assert!(ended);
            first.push(tests[0].as_secs());
            scene.wait(Duration::from_secs(60));
            assert!(scene.missed());
            assert_eq!(scene.answer(true), Found::Begun);
        }
        assert_eq!(first, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        let (_, ended) = scene.talk(Duration::from_secs(400), true);
        assert!(ended);
        scene.wait(REST);
        assert!(scene.missed() && scene.answer(true) == Found::Begun);
        assert_eq!(scene.talk(Duration::from_secs(20), true).0[0], FIRST);
    }

    #[test]
    fn udp_that_is_lost_while_the_header_passes_is_left_at_once() {
        let mut scene = Scene::in_udp();
        scene.wait(Duration::from_secs(60));
        assert!(scene.missed(), "a probe in UDP had no answer");
        assert_eq!(scene.answer(false), Found::Ended);
        // Where UDP is answered too, it was an accident.
        let mut scene = Scene::in_udp();
        scene.wait(Duration::from_secs(60));
        assert!(scene.missed());
        assert_eq!((scene.answer(true), scene.answer(false)), (Found::Nothing, Found::Nothing));
    }

    #[test]
    fn there_is_room_for_so_many_and_what_does_not_matter_gives_way() {
        let mut carriages = Carriages::new(Some(5533));
        let path = |number: u32| PathKey { local: [1; 8], peer: (u64::from(number)).to_be_bytes() };
        let now = Instant::from_millis(1_000_000);
        for number in 0..PATHS_MAX as u32 {
            carriages.path(now, path(number)).unwrap().doubts(now, true);
        }
        assert!(carriages.path(now, path(1 << 20)).is_none());
        assert!(carriages.path(now, path(7)).is_some());
        carriages.path(now, path(7)).unwrap().begin(now);
        let later = now + DOUBT;
        assert!(carriages.path(later, path(1 << 20)).is_some());
        assert!(carriages.is_udp(path(7)) && carriages.paths.len() == 2);
    }
}
