//! What is sent in a trial, and when.

use std::time::Duration;

use dataplane::port::dpdk::{BufferPool, Mbuf, QueuePair};
use dataplane::port::{Frame, Port};
use serde_json::Value;

use crate::choice::{Choice, Law};
use crate::frames::{LARGEST, SMALLEST, Sizes, Stamp, Way, length, write};
use crate::site::Site;

/// Frames sent at once.
pub const BURST: usize = 32;

/// A trial: a constant load for some time, and a while to let what is under way arrive.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Which pair of devices.
    pub pair: usize,
    /// Frames per second in all; none for as many as the device takes.
    pub rate: Option<f64>,
    /// How long frames are sent.
    pub length: Duration,
    /// How long is waited for the last ones.
    pub drain: Duration,
    /// Which ways; the load is shared evenly.
    pub ways: Vec<Way>,
    /// Octets of hosts' frames.
    pub sizes: Sizes,
    /// Whose frames.
    pub site: Site,
    /// How contexts are chosen.
    pub law: Law,
    /// Whether what comes back has to be translated.
    pub translated: bool,
    /// Whether the time under way is taken of each frame that has room for a stamp.
    pub latency: bool,
}

impl Trial {
    /// From the JSON of a command; what is not said is as usual.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn read(text: &str) -> Result<Trial, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let number = |name: &str, usual: f64| match &value[name] {
            Value::Null => Ok(usual),
            given => {
                given.as_f64().filter(|n| n.is_finite() && *n >= 0.0).ok_or(format!("{name} is no number: {given}"))
            }
        };
        let word = |name: &str, usual: &'static str| match &value[name] {
            Value::Null => Ok(usual.to_owned()),
            given => given.as_str().map(str::to_owned).ok_or(format!("{name} is no text: {given}")),
        };
        let truth = |name: &str, usual| value[name].as_bool().unwrap_or(usual);
        let ways = match word("ways", "both")?.as_str() {
            "out" => vec![Way::Out],
            "in" => vec![Way::In],
            "both" => Way::BOTH.to_vec(),
            other => return Err(format!("ways is none of out, in, both: {other}")),
        };
        let rate = number("rate", 0.0)?;
        Ok(Trial {
            pair: number("pair", 0.0)? as usize,
            rate: Some(rate).filter(|rate| *rate > 0.0),
            length: Duration::from_secs_f64(number("seconds", 1.0)?),
            drain: Duration::from_secs_f64(number("drain", 0.1)?),
            ways,
            sizes: Sizes::parse(&word("size", "64")?)?,
            site: Site::new(number("contexts", 1000.0)?.max(1.0) as u32, number("workers", 1.0)?.max(1.0) as u8),
            law: Law::parse(&word("law", "uniform")?)?,
            translated: truth("translated", true),
            latency: truth("latency", false),
        })
    }
}

/// What one thread sends one way.
pub struct Stream {
    way: Way,
    choice: Choice,
    sequence: u32,
    thread: u32,
    /// None for as many as there is room for.
    schedule: Option<Schedule>,
    room: Vec<Mbuf>,
    template: Vec<u8>,
    /// Frames the device took.
    pub sent: u64,
    /// Frames it did not take although they were due.
    pub refused: u64,
}

/// When bursts are due, in nanoseconds since the trial began.
struct Schedule {
    /// Between two of them.
    pause: f64,
    due: f64,
    /// Bursts left out, because the thread was away when they were due.
    missed: u64,
}

/// Nanoseconds a burst may be late.
const LATE: f64 = 50_000.0;

impl Schedule {
    /// Whether a burst is to be sent now. A wire never carries more than its rate, so a thread that was away does not make up for
    /// it: what it sent at once would fill rings that the rate asked for does not fill.
    #[inline]
    fn is_due(&mut self, now: u64) -> bool {
        let late = now as f64 - self.due;
        if late > LATE {
            let bursts = ((late - LATE) / self.pause).ceil();
            self.due += bursts * self.pause;
            self.missed += bursts as u64;
        }
        let due = now as f64 >= self.due;
        if due {
            self.due += self.pause;
        }
        due
    }
}

/// Bits of a sequence number that count; those above say whose it is.
pub const SEQUENCE_BITS: u32 = 28;

impl Stream {
    /// The share of thread `thread` of `threads` of a trial.
    pub fn new(trial: &Trial, way: Way, thread: usize, threads: usize) -> Stream {
        let shares = (trial.ways.len() * threads) as f64;
        let pause = trial.rate.map(|rate| BURST as f64 * 1e9 * shares / rate);
        // Threads and ways do not send all at once.
        let place = (thread * 2 + way.index()) as f64 / (2 * threads) as f64;
        Stream {
            way,
            choice: Choice::new(trial.law, trial.site.contexts(), 1 + place.to_bits() % 0xffff_fffb),
            sequence: 0,
            thread: thread as u32,
            schedule: pause.map(|pause| Schedule { pause, due: pause * place, missed: 0 }),
            room: Vec::with_capacity(BURST),
            template: vec![0; length(way, LARGEST)],
            sent: 0,
            refused: 0,
        }
    }

    /// Sends a burst if one is due. `now` is in nanoseconds since the trial began.
    #[inline]
    pub fn turn(&mut self, now: u64, base: u64, trial: &Trial, pool: &BufferPool, port: &mut QueuePair) {
        let Some(schedule) = &mut self.schedule else {
            if self.room.is_empty() {
                self.fill(base + now, trial, pool);
            }
            let before = self.room.len();
            // What the device does not take now it takes later: nothing is lost here.
            Port::transmit(port, &mut self.room);
            self.sent += (before - self.room.len()) as u64;
            return;
        };
        if !schedule.is_due(now) {
            return;
        }
        self.fill(base + now, trial, pool);
        let before = self.room.len();
        Port::transmit(port, &mut self.room);
        self.sent += (before - self.room.len()) as u64;
        // A wire does not wait, and neither does this: what finds no room is lost.
        self.refused += self.room.len() as u64;
        self.room.clear();
    }

    /// Frames that should have been sent by `now`, or were.
    pub fn intended(&self, now: u64) -> u64 {
        match &self.schedule {
            Some(schedule) => (now as f64 / schedule.pause * BURST as f64) as u64,
            None => self.sent,
        }
    }

    /// Frames that were not sent because the thread was away when they were due.
    pub fn missed(&self) -> u64 {
        self.schedule.as_ref().map_or(0, |schedule| schedule.missed * BURST as u64)
    }

    fn fill(&mut self, sent: u64, trial: &Trial, pool: &BufferPool) {
        let first = self.sequence as usize;
        let even = trial.sizes.of(0) == trial.sizes.of(1) && trial.sizes.of(0) == trial.sizes.of(6);
        if even {
            let octets = length(self.way, trial.sizes.of(0));
            pool.allocate_burst(&self.template[..octets], BURST, &mut self.room);
        } else {
            let frames = (0..BURST).map_while(|at| {
                let octets = length(self.way, trial.sizes.of(first + at));
                pool.allocate(&self.template[..octets])
            });
            self.room.extend(frames);
        }
        for frame in &mut self.room {
            let sequence = self.thread << SEQUENCE_BITS | self.sequence & ((1 << SEQUENCE_BITS) - 1);
            self.sequence = self.sequence.wrapping_add(1);
            let stamp = Stamp { sent, sequence, context: self.choice.draw() };
            write(Frame::bytes_mut(frame), &trial.site, self.way, stamp);
        }
    }
}

// `write` wants room for all headers, the payload header included.
const _: () = assert!(SMALLEST >= 14 + 40 + 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_away_does_not_send_faster_afterwards() {
        let mut schedule = Schedule { pause: 10_000.0, due: 0.0, missed: 0 };
        let sent = |schedule: &mut Schedule, from: u64, to: u64| {
            (from..to).step_by(1000).filter(|&now| schedule.is_due(now)).count()
        };
        assert_eq!(sent(&mut schedule, 0, 1_000_000), 100);
        // Away for four milliseconds: what is within the limit is sent, the rest never.
        let after = sent(&mut schedule, 5_000_000, 6_000_000);
        assert!((100..=106).contains(&after), "{after}");
        assert_eq!(after as u64 + schedule.missed, 500);
        // A little late is not away.
        assert_eq!(sent(&mut schedule, 6_040_000, 7_000_000), 100);
        assert_eq!(after as u64 + schedule.missed, 500);
    }

    #[test]
    fn a_trial_is_read_with_what_is_usual() {
        let trial = Trial::read(r#"{"rate": 1e6, "seconds": 0.5, "ways": "in", "size": "imix"}"#).unwrap();
        assert_eq!((trial.rate, trial.length), (Some(1e6), Duration::from_millis(500)));
        assert_eq!((trial.ways, trial.site.contexts()), (vec![Way::In], 1000));
        assert!(trial.translated);
        assert_eq!(Trial::read("{}").unwrap().rate, None);
        for wrong in [r#"{"rate": "fast"}"#, r#"{"rate": -1}"#, r#"{"ways": "up"}"#, r#"{"size": "7"}"#, "{"] {
            assert!(Trial::read(wrong).is_err(), "{wrong}");
        }
    }
}
