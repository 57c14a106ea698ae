//! What a provider's month looks like to its accountants: five-minute means, of which one in twenty does not count.

use std::time::Duration;

use crate::time::Instant;

/// What a mean is taken over.
const SLOT: Duration = Duration::from_secs(300);
/// Means that are looked at: thirty days of them.
const SLOTS: usize = 30 * 24 * 12;
/// The part of them that counts.
const COUNTED: f64 = 0.95;

/// A provider's means of the last thirty days. It begins with nothing when the box does.
#[derive(Debug, Default)]
pub struct Meter {
    /// The larger of both directions, octets a second; a ring once it is full.
    means: Vec<f32>,
    next: usize,
    /// Octets since the slot began, out and in.
    octets: [f64; 2],
    begun: Option<Instant>,
    level: f64,
}

impl Meter {
    /// Rates since the last call, octets a second out and in.
    pub fn add(&mut self, now: Instant, since: Duration, rates: [f64; 2]) {
        let begun = *self.begun.get_or_insert(now);
        for (octets, rate) in self.octets.iter_mut().zip(rates) {
            *octets += rate * since.as_secs_f64();
        }
        let time = now.since(begun);
        if time < SLOT {
            return;
        }
        let mean = (self.octets[0].max(self.octets[1]) / time.as_secs_f64()) as f32;
        match self.means.get_mut(self.next) {
            Some(old) => *old = mean,
            None => self.means.push(mean),
        }
        self.next = (self.next + 1) % SLOTS;
        (self.octets, self.begun) = ([0.0; 2], Some(now));
        self.level = percentile(&self.means);
    }

    /// What the month will cost at least, octets a second: up to there more costs nothing.
    pub fn level(&self) -> f64 {
        self.level
    }
}

fn percentile(means: &[f32]) -> f64 {
    let mut sorted = means.to_vec();
    let at = ((sorted.len() as f64 * COUNTED).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    match at < sorted.len() {
        true => f64::from(*sorted.select_nth_unstable_by(at, f32::total_cmp).1),
        false => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mean_in_twenty_does_not_count() {
        let mut meter = Meter::default();
        let mut now = Instant::START;
        meter.add(now, Duration::ZERO, [0.0; 2]);
        for slot in 0..200 {
            // A burst of five minutes in every hundred and of ten at the end of all.
            let rate = if slot % 100 == 99 || slot > 197 { 1000.0 } else { 100.0 };
            for _ in 0..30 {
                now = now + Duration::from_secs(10);
                meter.add(now, Duration::from_secs(10), [rate, rate / 2.0]);
            }
        }
        assert!((meter.level() - 100.0).abs() < 1.0, "{}", meter.level());
        for _ in 0..30 * 12 {
            now = now + Duration::from_secs(10);
            meter.add(now, Duration::from_secs(10), [0.0, 1000.0]);
        }
        assert!((meter.level() - 1000.0).abs() < 1.0, "an hour more is too much: {}", meter.level());
    }

    #[test]
    fn memory_is_bounded() {
        let mut meter = Meter::default();
        for slot in 0..2 * SLOTS as u64 {
            meter.add(Instant::START + SLOT * slot as u32, SLOT, [slot as f64, 0.0]);
        }
        assert!(meter.means.len() <= SLOTS && meter.level() > SLOTS as f64);
    }
}
