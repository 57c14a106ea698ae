//! What a worker tells control by itself, a little each turn: what was active, and what deserves a context.

use super::Worker;
use crate::context::Report;
use crate::context::flows::Qualified;
use crate::counters::Count;
use crate::link::Event;
use crate::port::Frame;

impl<F: Frame> Worker<F> {
    /// Tells control what was active, a few contexts per turn.
    pub(super) fn report(&mut self, steps: usize) {
        while !self.outlets.link.events.is_full()
            && let Some(Qualified { pair, presented, provider }) = self.flows.next_qualified()
        {
            self.outlets.count(Count::NatQualified);
            self.outlets.tell(Event::Qualified { pair, presented, provider });
        }
        while !self.outlets.link.events.is_full()
            && let Some(wish) = self.shard.next_wish()
        {
            self.outlets.tell(Event::Fork(wish));
        }
        if self.outlets.now >= self.report_due {
            self.report_due = self.outlets.now + self.limits.report_ms;
            self.shard.watch_arrivals(self.snapshot.arrivals);
            self.shard.start_report();
        }
        // The last quarter of the ring is for what would be lost without room: packets for control, and questions.
        let reserve = self.outlets.link.events.buffer().capacity() / 4;
        for _ in 0..steps {
            if self.outlets.link.events.slots() <= reserve {
                // Activity is not lost: it stays in the entries until there is room.
                return;
            }
            if self.shard.lends() && !self.may_tally() {
                return;
            }
            match self.shard.next_activity() {
                None => return,
                Some(Report::Own(handle, activity, traffic)) => {
                    self.outlets.tell(Event::Activity { handle, activity, traffic });
                }
                Some(Report::Guest(tally)) => self.tally(tally),
            }
        }
    }
}
