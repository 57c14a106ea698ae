//! The last hour, in a ring: what the web page shows of the time before somebody looked.
//!
//! A look is a few numbers for the box and for each provider, taken from what is counted anyway; no walk over paths or contexts. At most
//! [`LOOKS_MAX`] of them are kept: with fifteen providers some 600 KiB.

use std::collections::VecDeque;
use std::time::Duration;

use dataplane::snapshot::PortId;

use super::Control;
use crate::manage::api::{HistoryView, PolicyShareView, PolicyView, ProviderHistoryView};
use crate::time::Instant;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(5);
/// Looks kept: an hour's.
const LOOKS_MAX: usize = 720;

/// The looks of the last hour.
#[derive(Debug, Default)]
pub(super) struct History {
    looks: VecDeque<Look>,
    /// How many were forgotten.
    forgotten: u64,
    before: Option<Totals>,
}

/// What only goes up.
#[derive(Clone, Debug, Default)]
struct Totals {
    /// Since this process started.
    at: Instant,
    failovers: u64,
    dropped: u64,
    /// Octets out and in, for each port.
    ports: Vec<[u64; 2]>,
}

#[derive(Clone, Debug, Default)]
struct Look {
    at_s: f64,
    contexts: u64,
    exploring: u64,
    failovers: u64,
    drops_per_s: f64,
    providers: Vec<ProviderLook>,
}

#[derive(Clone, Debug, Default)]
struct ProviderLook {
    name: String,
    up: bool,
    /// Out and in, in megabits a second.
    carried: [Option<f32>; 2],
    targets: [Option<f32>; 2],
}

/// What a look is taken from.
struct Seen {
    totals: Totals,
    contexts: u64,
    exploring: u64,
    providers: Vec<ProviderSeen>,
    policy: PolicyView,
}

struct ProviderSeen {
    name: String,
    /// Its port, by its place in `Totals::ports`.
    port: usize,
    up: bool,
}

impl Control {
    /// Takes a look if one is due.
    pub(super) fn remember(&mut self, now: Instant) {
        let since_start = Instant(now.since(self.started));
        if !self.history.is_due(since_start) {
            return;
        }
        let contexts = self.engine.context_counts(now, self.configuration.site.node.contexts_max);
        let dropped = (0..self.workers.count()).filter_map(|at| self.worker_view(at)).map(|it| it.dropped).sum();
        let failovers = self.engine.durations().failovers.iter().map(|(_, count)| count).sum();
        let ports = self.devices.ports().iter().map(|port| [port.tx_octets, port.rx_octets]).collect();
        let provider = |(name, port, up): (&str, PortId, bool)| ProviderSeen {
            name: name.to_owned(),
            port: usize::from(port.0),
            up,
        };
        let seen = Seen {
            totals: Totals { at: since_start, failovers, dropped, ports },
            contexts: contexts.total,
            exploring: contexts.exploring,
            providers: self.engine.provider_states().map(provider).collect(),
            policy: self.engine.policy_view(),
        };
        self.history.look(seen);
    }
}

impl History {
    fn is_due(&self, now: Instant) -> bool {
        self.before.as_ref().is_none_or(|before| now.since(before.at) >= INTERVAL)
    }

    /// Takes in what was seen. The first time there is nothing to compare with, and nothing is kept.
    fn look(&mut self, seen: Seen) {
        let Some(before) = self.before.replace(seen.totals.clone()) else { return };
        let now = seen.totals;
        let seconds = now.at.since(before.at).as_secs_f64().max(1e-3);
        let of_port = |at: usize| -> Option<[f32; 2]> {
            let (old, new) = (before.ports.get(at)?, now.ports.get(at)?);
            Some([0, 1].map(|way| (new[way].saturating_sub(old[way]) as f64 / seconds / 125_000.0) as f32))
        };
        let provider = |it: &ProviderSeen| {
            let alone = seen.providers.iter().filter(|other| other.port == it.port).count() == 1;
            let port = of_port(it.port).filter(|_| alone);
            let (carried, targets) = match seen.policy.loaded {
                true => of_policy(&seen.policy, &it.name),
                false => (port.map_or([None; 2], |port| port.map(Some)), [None; 2]),
            };
            ProviderLook { name: it.name.clone(), up: it.up, carried, targets }
        };
        self.looks.push_back(Look {
            at_s: now.at.0.as_secs_f64(),
            contexts: seen.contexts,
            exploring: seen.exploring,
            failovers: now.failovers.saturating_sub(before.failovers),
            drops_per_s: now.dropped.saturating_sub(before.dropped) as f64 / seconds,
            providers: seen.providers.iter().map(provider).collect(),
        });
        while self.looks.len() > LOOKS_MAX {
            self.looks.pop_front();
            self.forgotten += 1;
        }
    }

    /// In columns, from a look on.
    pub(super) fn view(&self, from: Option<u64>) -> HistoryView {
        let next = self.forgotten + self.looks.len() as u64;
        let first = from.unwrap_or_default().clamp(self.forgotten, next);
        let skipped = usize::try_from(first - self.forgotten).unwrap_or(usize::MAX);
        let looks: Vec<&Look> = self.looks.iter().skip(skipped).collect();
        let mut view = HistoryView {
            interval_s: INTERVAL.as_secs_f64(),
            max: LOOKS_MAX as u64,
            first,
            next,
            at_s: looks.iter().map(|it| it.at_s).collect(),
            contexts: looks.iter().map(|it| it.contexts).collect(),
            exploring: looks.iter().map(|it| it.exploring).collect(),
            failovers: looks.iter().map(|it| it.failovers).collect(),
            drops_per_s: looks.iter().map(|it| it.drops_per_s).collect(),
            providers: Vec::new(),
        };
        // The newest first, so that those that are there now come first.
        for name in looks.iter().rev().flat_map(|look| &look.providers).map(|it| &it.name) {
            if !view.providers.iter().any(|it| it.name == *name) {
                view.providers.push(column(&looks, name));
            }
        }
        view
    }
}

fn column(looks: &[&Look], name: &str) -> ProviderHistoryView {
    let looks = || looks.iter().map(|look| look.providers.iter().find(|it| it.name == name));
    let carried = |way: usize| looks().map(|it| it?.carried[way].map(f64::from)).collect();
    let target = |way: usize| looks().map(|it| it?.targets[way].map(f64::from)).collect();
    ProviderHistoryView {
        name: name.to_owned(),
        up: looks().map(|it| it.map(|it| it.up)).collect(),
        out_mbps: carried(0),
        in_mbps: carried(1),
        out_target_mbps: target(0),
        in_target_mbps: target(1),
    }
}

/// What all classes carry through a provider, and what they should; out and in.
fn of_policy(policy: &PolicyView, provider: &str) -> ([Option<f32>; 2], [Option<f32>; 2]) {
    let shares = |way: usize| -> Vec<&PolicyShareView> {
        let all = policy.classes.iter().flat_map(|class| if way == 0 { &class.out } else { &class.inward });
        all.filter(|share| share.provider == provider).collect()
    };
    let carried = [0, 1].map(|way| {
        let shares = shares(way);
        (!shares.is_empty()).then(|| shares.iter().map(|it| it.mbps).sum::<f64>() as f32)
    });
    // A class without a rule may be anywhere, so where there is one the sum has no target.
    let targets = [0, 1].map(|way| {
        let wanted: Option<Vec<f64>> = shares(way).iter().map(|it| it.target_mbps).collect();
        wanted.filter(|it| !it.is_empty()).map(|it| it.iter().sum::<f64>() as f32)
    });
    (carried, targets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::api::PolicyClassView;

    fn seen(second: u64, octets: u64, providers: &[(&str, usize)]) -> Seen {
        let provider = |(name, port): &(&str, usize)| ProviderSeen { name: (*name).into(), port: *port, up: true };
        let ports = vec![[octets, octets / 2]; 2];
        let at = Instant(Duration::from_secs(second));
        Seen {
            totals: Totals { at, failovers: second / 10, dropped: second * 3, ports },
            contexts: second,
            exploring: 0,
            providers: providers.iter().map(provider).collect(),
            policy: PolicyView::default(),
        }
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut history = History::default();
        for look in 0..2000 {
            assert!(history.is_due(Instant(Duration::from_secs(look * 5))));
            history.look(seen(look * 5, look * 625_000, &[("x", 0), ("y", 1)]));
            assert!(!history.is_due(Instant(Duration::from_secs(look * 5 + 4))));
        }
        let view = history.view(None);
        assert_eq!((view.at_s.len(), view.at_s.last()), (LOOKS_MAX, Some(&9995.0)));
        assert_eq!((view.contexts.last(), view.drops_per_s[7]), (Some(&9995), 3.0));
        assert_eq!((view.first, view.next), (1999 - LOOKS_MAX as u64, 1999));
        let news = history.view(Some(1998));
        assert_eq!((news.first, news.next, news.at_s.as_slice()), (1998, 1999, &[9995.0][..]));
        // What is not there yet, and what is forgotten.
        assert_eq!((history.view(Some(u64::MAX)).first, history.view(Some(3)).first), (1999, 1999 - LOOKS_MAX as u64));
        let x = &view.providers[0];
        assert_eq!((x.name.as_str(), x.out_mbps[0], x.in_mbps[LOOKS_MAX - 1]), ("x", Some(1.0), Some(0.5)));
        assert_eq!((x.out_target_mbps[0], x.up[0]), (None, Some(true)));
    }

    #[test]
    fn providers_that_come_and_go_have_gaps_and_those_that_share_a_port_no_figures() {
        let mut history = History::default();
        history.look(seen(0, 0, &[("x", 0)]));
        history.look(seen(5, 625_000, &[("x", 0)]));
        history.look(seen(10, 1_250_000, &[("y", 0), ("z", 0)]));
        let view = history.view(None);
        let of = |name: &str| view.providers.iter().find(|it| it.name == name).unwrap();
        assert_eq!(of("x").out_mbps, [Some(1.0), None]);
        assert_eq!((of("y").up.as_slice(), of("y").out_mbps.as_slice()), (&[None, Some(true)][..], &[None, None][..]));
        assert_eq!(view.providers.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["y", "z", "x"]);
    }

    #[test]
    fn with_a_policy_classes_add_up_and_a_target_needs_a_rule_for_each() {
        let share = |mbps, target_mbps| PolicyShareView { provider: "x".into(), mbps, target_mbps, contexts: 1 };
        let class = |out, inward| PolicyClassView { name: "a".into(), out: vec![out], inward: vec![inward] };
        let policy = PolicyView {
            loaded: true,
            classes: vec![
                class(share(1.0, Some(2.0)), share(0.5, None)),
                class(share(3.0, Some(1.5)), share(0.25, Some(1.0))),
            ],
            ..Default::default()
        };
        assert_eq!(of_policy(&policy, "x"), ([Some(4.0), Some(0.75)], [Some(3.5), None]));
        assert_eq!(of_policy(&policy, "y"), ([None; 2], [None; 2]));
    }
}
