//! What was active, told a context at a time.

use super::{Shard, Slot};
use crate::context::entry::{Activity, Tally, Traffic};

/// Reports of a context from one look at the provider its payload comes by to the next.
const LOOKED_AT: u32 = 16;
/// Reports between asking for a context and reading it.
const AHEAD: usize = 8;

/// What happened in a context since the last report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// In one of its own: control's name for it, what happened, and its totals, out then in.
    Own(u64, Activity, [Traffic; 2]),
    /// In a guest, for its owner.
    Guest(Tally),
}

impl Shard {
    /// Starts a new report: what was active until now is handed out by [`Shard::next_activity`].
    pub fn start_report(&mut self) {
        if self.reporting.is_empty() {
            std::mem::swap(&mut self.reporting, &mut self.active);
            self.reports = self.reports.wrapping_add(1);
        }
    }

    /// Whether it is of interest by which provider payload comes. Then one packet from the peer in some reports of its context
    /// goes the long way, on which that is noted; all others are translated by the same instructions as without.
    pub fn watch_arrivals(&mut self, watching: bool) {
        self.watching = watching;
    }

    /// Notes the provider by which payload came, where [`Entry::wants_arrival`](crate::context::Entry::wants_arrival).
    pub(crate) fn note_arrival(&mut self, slot: Slot, provider: u8) {
        self.entries[slot.0 as usize].note_arrival(provider);
    }

    /// The next context of the running report.
    pub fn next_activity(&mut self) -> Option<Report> {
        while let Some(slot) = self.reporting.pop() {
            // Contexts are reported in no order of their memory; this one is read some reports from now.
            if let Some(&later) = self.reporting.len().checked_sub(AHEAD).and_then(|at| self.reporting.get(at)) {
                self.prefetch_entry(later);
            }
            let look = self.watching && slot.wrapping_add(self.reports) % LOOKED_AT == 0;
            if self.guests.has(slot) {
                match self.report_guest(Slot(slot), look) {
                    Some(tally) => return Some(Report::Guest(tally)),
                    None => continue,
                }
            }
            let entry = &mut self.entries[slot as usize];
            let doubted = entry.is_in_doubt();
            let Some(activity) = entry.take_activity(look) else { continue };
            let (handle, traffic) = (entry.handle, entry.traffic());
            if doubted && entry.is_in_doubt() {
                // Its TCP is to be watched, for which what leaves has to come by here. At once would be too soon: what copies
                // have seen is heard somewhat later.
                self.recall(Slot(slot));
            }
            return Some(Report::Own(handle, activity, traffic));
        }
        None
    }
}
