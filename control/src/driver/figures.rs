//! What monitoring is told.

use std::time::SystemTime;

use dataplane::counters::{Count, DropReason};
use dataplane::histogram::Histogram;

use super::Control;
use crate::manage::api::{BucketView, FillView, MetricsView, Natv6ProviderView, StatusView, TimesView, WorkerView};
use crate::time::Instant;

/// Nanoseconds, as a power of two, from which on times of exchanges with peers are told apart: 131 us.
const EXCHANGES_FROM: u64 = 1 << 17;
/// The same for turns of a worker, and where nobody cares any more: from 256 ns to 67 ms.
const TURNS: std::ops::RangeInclusive<u64> = 1 << 8..=1 << 26;

impl Control {
    pub(super) fn metrics(&self, now: Instant) -> MetricsView {
        let status = self.status(now);
        let durations = self.engine.durations();
        let (paths, paths_left_off) = self.engine.busiest_paths(now, self.configuration.site.metrics.paths);
        let workers = || (0..self.workers.count()).filter_map(|at| self.workers.counters(at));
        // By places alone: to count hosts and contexts takes a walk over all of them.
        let place = |name: &str| Natv6ProviderView { name: name.to_owned(), ..Default::default() };
        let mut natv6: Vec<Natv6ProviderView> = self.engine.natv6_places().into_iter().map(place).collect();
        self.add_translated(&mut natv6);
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        MetricsView {
            counters: self.counters(),
            natv6,
            paths,
            paths_left_off,
            bmp: self.bmp(now),
            rings: self.rings(),
            tables: self.tables(now, &status),
            handshakes: times(&durations.handshakes, EXCHANGES_FROM..=u64::MAX),
            failovers: times(&durations.failovers, EXCHANGES_FROM..=u64::MAX),
            turns: workers().map(|counters| times(counters.turns(), TURNS)).collect(),
            started_s: unix.as_secs_f64() - now.since(self.started).as_secs_f64(),
            at_s: now.since(self.started).as_secs_f64(),
            status,
        }
    }

    pub(super) fn worker_view(&self, at: usize) -> Option<WorkerView> {
        let counters = self.workers.counters(at)?;
        let core = self.configuration.site.node.cores.as_ref().and_then(|cores| cores.get(at).copied());
        Some(WorkerView {
            id: u16::try_from(at).unwrap_or(u16::MAX),
            core,
            contexts: counters.count(Count::Contexts),
            packets_in: counters.count(Count::ReceivedSite) + counters.count(Count::ReceivedProvider),
            packets_out: counters.count(Count::Transmitted),
            dropped: DropReason::ALL.iter().map(|reason| counters.dropped(*reason)).sum(),
        })
    }

    fn rings(&self) -> Vec<FillView> {
        let mut views = Vec::new();
        for at in 0..self.workers.count() {
            let Some(rings) = self.workers.rings(at) else { continue };
            let mut add = |name: &str, used: usize, max: usize| {
                let worker = Some(u16::try_from(at).unwrap_or(u16::MAX));
                views.push(FillView { name: name.to_owned(), worker, used: used as u64, max: max as u64 });
            };
            add("commands", rings.commands, rings.commands_max);
            add("events", rings.events, rings.events_max);
            // There is no ring for these and no bound of its own: what follows from one event waits here.
            add("commands-waiting", rings.waiting, 0);
        }
        views
    }

    fn tables(&self, now: Instant, status: &StatusView) -> Vec<FillView> {
        let mut views = Vec::new();
        let mut add = |name: &str, used: u64, max: u64| {
            views.push(FillView { name: name.to_owned(), worker: None, used, max });
        };
        add("contexts", status.contexts.total, status.contexts.max);
        add("buffers", status.memory.buffers.saturating_sub(status.memory.buffers_free), status.memory.buffers);
        let dns = self.engine.dns_view(now);
        if dns.enabled {
            add("dns-answers", dns.entries, dns.entries_max);
            add("dns-octets", dns.octets, dns.octets_max);
        }
        if let Some((bound, max)) = self.engine.leases_bound() {
            add("leases", bound, max);
        }
        views
    }
}

/// A histogram as it is shown: what lies outside `told` is in its first and last bucket.
fn times(histogram: &Histogram, told: std::ops::RangeInclusive<u64>) -> TimesView {
    let mut buckets: Vec<BucketView> = Vec::new();
    let mut before = 0;
    for (below, count) in histogram.iter() {
        if below < *told.start() {
            before += count;
        } else if below > *told.end()
            && let Some(last) = buckets.last_mut()
        {
            last.count += count;
        } else {
            buckets.push(BucketView { below_s: below as f64 / 1e9, count: count + std::mem::take(&mut before) });
        }
    }
    TimesView { sum_s: histogram.sum() as f64 / 1e9, buckets }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_lost_at_either_end() {
        let histogram = Histogram::default();
        [3, 300, 1 << 30, u64::MAX >> 1].iter().for_each(|&nanos| histogram.observe(nanos));
        let all = times(&histogram, 0..=u64::MAX);
        let some = times(&histogram, 1 << 10..=1 << 20);
        assert_eq!((all.count(), some.count()), (4, 4));
        assert_eq!(some.buckets.len(), 11);
        assert_eq!((some.buckets[0].count, some.buckets[10].count), (2, 2));
    }
}
