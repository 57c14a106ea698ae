//! How long the control threads of boxes are at work in one turn, by a clock of somebody who wants to know.

use std::time::Duration;

/// What a clock said, for one box.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timed {
    clock: Option<fn() -> Duration>,
    /// What was done since the last turn, which the driver would have done in the next.
    before: Duration,
    longest: Duration,
}

impl Timed {
    pub(super) fn by(clock: fn() -> Duration) -> Timed {
        Timed { clock: Some(clock), ..Timed::default() }
    }

    /// Work begins.
    pub(super) fn begin(&self) -> Option<Duration> {
        self.clock.map(|clock| clock())
    }

    /// What began then is done, and the turn goes on.
    pub(super) fn pause(&mut self, began: Option<Duration>) {
        if let Some((clock, began)) = self.clock.zip(began) {
            self.before += clock().saturating_sub(began);
        }
    }

    /// The same, and the turn ends.
    pub(super) fn end(&mut self, began: Option<Duration>) {
        self.pause(began);
        self.longest = self.longest.max(std::mem::take(&mut self.before));
    }

    /// The longest turn since this was last asked.
    pub(super) fn take_longest(&mut self) -> Duration {
        std::mem::take(&mut self.longest)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NOW: Cell<u64> = const { Cell::new(0) };
    }

    fn later(millis: u64) {
        NOW.set(NOW.get() + millis);
    }

    #[test]
    fn what_is_done_between_turns_belongs_to_the_next_and_the_longest_counts() {
        let mut timed = Timed::by(|| Duration::from_millis(NOW.get()));
        let mut work = |before: u64, turn: u64| {
            let began = timed.begin();
            later(before);
            timed.pause(began);
            later(1000);
            let began = timed.begin();
            later(turn);
            timed.end(began);
            timed.longest.as_millis()
        };
        assert_eq!([work(1, 2), work(3, 4), work(0, 1)], [3, 7, 7]);
        assert_eq!((timed.take_longest().as_millis(), timed.take_longest().as_millis()), (7, 0));
        assert_eq!(Timed::default().begin(), None);
    }
}
