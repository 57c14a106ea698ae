//! What comes back in a trial.

use dataplane::port::Frame;
use dataplane::port::dpdk::Mbuf;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::frames::{Way, is_translated, stamp};
use crate::load::{SEQUENCE_BITS, Trial};

/// Most threads that send.
pub const THREADS_MAX: usize = 1 << (32 - SEQUENCE_BITS);

/// What one thread received, or all together.
pub struct Tally {
    /// Frames, by way.
    pub received: [u64; 2],
    /// Frames looked at closely that were not what the box has to make of them.
    pub wrong: u64,
    /// Frames that came after a later one of the same thread and way.
    pub late: u64,
    /// Nanoseconds under way.
    pub latency: Histogram<u64>,
    last: [[u32; THREADS_MAX]; 2],
}

impl Default for Tally {
    fn default() -> Tally {
        // Two significant digits: a histogram that stays in the cache.
        let latency = Histogram::new_with_bounds(1, 10_000_000_000, 2).unwrap_or_else(|_| unreachable!("constants"));
        Tally { received: [0; 2], wrong: 0, late: 0, latency, last: [[0; THREADS_MAX]; 2] }
    }
}

impl Tally {
    /// Takes what arrived at the end of a way. `now` is in nanoseconds of the generator's clock.
    #[inline]
    pub fn take(&mut self, burst: &mut Vec<Mbuf>, way: Way, trial: &Trial, now: u64) {
        self.received[way.index()] += burst.len() as u64;
        if let Some(first) = burst.first().filter(|_| trial.translated) {
            let octets = Frame::bytes(first);
            self.wrong += u64::from(!is_translated(octets, &trial.site, way, context(octets, way)));
        }
        for frame in burst.iter() {
            let Some(stamp) = stamp(Frame::bytes(frame), way, trial.translated) else { break };
            let (thread, number) = (stamp.sequence >> SEQUENCE_BITS, stamp.sequence & ((1 << SEQUENCE_BITS) - 1));
            let last = &mut self.last[way.index()][thread as usize];
            if number < *last && *last - number < 1 << (SEQUENCE_BITS - 1) {
                self.late += 1;
            } else {
                *last = number;
            }
            if trial.latency {
                self.latency.saturating_record(now.saturating_sub(stamp.sent).max(1));
            }
        }
        Mbuf::free_burst(burst);
    }

    /// Adds what another thread received.
    pub fn add(&mut self, other: &Tally) {
        for (mine, theirs) in self.received.iter_mut().zip(other.received) {
            *mine += theirs;
        }
        self.wrong += other.wrong;
        self.late += other.late;
        // Both have the same bounds.
        let _ = self.latency.add(&other.latency);
    }

    /// The percentiles, in nanoseconds.
    pub fn percentiles(&self) -> Value {
        if self.latency.is_empty() {
            return Value::Null;
        }
        let at = |percent| self.latency.value_at_percentile(percent);
        json!({
            "min": self.latency.min(), "p50": at(50.0), "p90": at(90.0), "p99": at(99.0), "p999": at(99.9),
            "p9999": at(99.99), "max": self.latency.max(), "count": self.latency.len(),
        })
    }
}

/// The number of the context, as a translated frame's addresses tell it.
fn context(octets: &[u8], way: Way) -> u32 {
    let end = if way == Way::Out { 54 } else { 38 };
    let low = octets.get(end - 4..end).and_then(|low| low.first_chunk()).copied();
    low.map_or(0, u32::from_be_bytes)
}
