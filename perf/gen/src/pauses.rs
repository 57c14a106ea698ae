//! Pauses of a thread that polls and should have none: how long, and whether it was working, waiting for its core, or in a
//! machine that did not run.

use std::fs::File;
use std::io;
use std::ops::AddAssign;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use dataplane::port::dpdk::thread_time;
use serde_json::{Value, json};

/// Time between two turns that is worth a note.
const PAUSE: Duration = Duration::from_micros(50);
/// How often the kernel is asked at least, so that a pause has little before it that could be taken for its own.
const LOOK: Duration = Duration::from_millis(5);

/// What the kernel knows of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    /// It ran.
    ran: Duration,
    /// It could have run, and another did.
    waited: Duration,
}

/// Looks at the turns of the thread that made it.
pub struct Watch {
    file: File,
    last: Instant,
    looked: Instant,
    times: Times,
    pauses: Pauses,
}

/// What there was of pauses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pauses {
    /// How many.
    pub count: u64,
    /// The longest time between two turns.
    pub longest: Duration,
    /// Of which pause most is the thread's own work: how much at least.
    pub longest_own: Duration,
    /// How long another ran on the thread's core, in all.
    pub waited: Duration,
    /// How long nothing ran there, in all.
    pub stolen: Duration,
}

impl Watch {
    /// Of the calling thread, from now on.
    ///
    /// # Errors
    /// When the kernel does not count (`CONFIG_SCHED_INFO`).
    pub fn new() -> io::Result<Watch> {
        let file = File::open("/proc/thread-self/schedstat")?;
        let (times, now) = (times(&file)?, Instant::now());
        Ok(Watch { file, last: now, looked: now, times, pauses: Pauses::default() })
    }

    /// Forgets what was; the thread rested.
    pub fn restart(&mut self) {
        self.times = times(&self.file).unwrap_or(self.times);
        (self.last, self.pauses) = (Instant::now(), Pauses::default());
        self.looked = self.last;
    }

    /// A turn begins.
    #[inline]
    pub fn turn(&mut self, now: Instant) {
        if now - self.last > PAUSE || now - self.looked > LOOK {
            self.look(now);
        }
        self.last = now;
    }

    /// What there was since the last restart.
    pub fn pauses(&mut self) -> Pauses {
        self.look(self.last);
        self.pauses
    }

    #[cold]
    fn look(&mut self, now: Instant) {
        let times = times(&self.file).unwrap_or(self.times);
        let (pause, since) = (now - self.last, now - self.looked);
        let ran = times.ran.saturating_sub(self.times.ran);
        let waited = times.waited.saturating_sub(self.times.waited);
        self.pauses.add(pause, since, ran, waited);
        (self.times, self.looked) = (times, now);
    }
}

impl AddAssign for Pauses {
    /// Those of another thread, or of later.
    fn add_assign(&mut self, other: Pauses) {
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
        self.longest_own = self.longest_own.max(other.longest_own);
        self.waited += other.waited;
        self.stolen += other.stolen;
    }
}

impl Pauses {
    /// A pause, and the time since the last look, in which the thread ran and waited so long.
    fn add(&mut self, pause: Duration, since: Duration, ran: Duration, waited: Duration) {
        let away = since.saturating_sub(ran);
        self.waited += waited;
        self.stolen += away.saturating_sub(waited);
        self.longest = self.longest.max(pause);
        self.longest_own = self.longest_own.max(pause.saturating_sub(away));
        self.count += u64::from(pause > PAUSE);
    }

    /// In microseconds.
    pub fn json(&self) -> Value {
        let micros = |time: Duration| time.as_micros() as u64;
        json!({
            "pauses": self.count,
            "longest_us": micros(self.longest),
            "longest_own_us": micros(self.longest_own),
            "waited_us": micros(self.waited),
            "stolen_us": micros(self.stolen),
        })
    }
}

fn times(file: &File) -> io::Result<Times> {
    let mut room = [0; 96];
    let length = file.read_at(&mut room, 0)?;
    let waited = waited(&room[..length]).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Times { ran: thread_time(), waited })
}

/// The second number of `/proc/thread-self/schedstat`. The first, how long it ran, is late by up to a tick.
fn waited(text: &[u8]) -> Option<Duration> {
    let word = std::str::from_utf8(text).ok()?.split_ascii_whitespace().nth(1)?;
    word.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn work_is_told_from_waiting_and_from_a_machine_that_stood_still() {
        let mut pauses = Pauses::default();
        pauses.add(ms(4), ms(5), ms(1), ms(4));
        assert_eq!((pauses.longest, pauses.longest_own), (ms(4), ms(0)), "another ran");
        pauses.add(ms(100), ms(103), ms(3), ms(0));
        assert_eq!((pauses.longest, pauses.longest_own, pauses.stolen), (ms(100), ms(0), ms(100)), "nobody ran");
        pauses.add(ms(3), ms(5), ms(5), ms(0));
        assert_eq!((pauses.longest_own, pauses.waited, pauses.count), (ms(3), ms(4), 3), "it ran itself");
    }

    #[test]
    fn a_thread_that_works_long_is_seen_to_work() {
        let mut watch = Watch::new().unwrap();
        let began = Instant::now();
        watch.turn(began);
        while began.elapsed() < ms(20) {
            std::hint::spin_loop();
        }
        watch.turn(Instant::now());
        let pauses = watch.pauses();
        assert!(pauses.longest >= ms(20), "{pauses:?}");
        // Whatever of it was not the thread's own is accounted for.
        assert!(pauses.longest_own + pauses.waited + pauses.stolen >= ms(19), "{pauses:?}");
        watch.restart();
        assert_eq!(watch.pauses().count, 0);
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        assert_eq!(waited(b"12345 678 9\n"), Some(Duration::from_nanos(678)));
        assert_eq!(waited(b"12345"), None);
        assert_eq!(waited(b""), None);
    }
}
