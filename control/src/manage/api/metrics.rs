//! Everything that monitoring is told, in one piece: what `/metrics` and `pshim6ctl top` are made of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BmpView, CountersView, Natv6ProviderView, PathView, StatusView};

/// Figures of one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricsView {
    /// Workers, ports, providers, contexts by state.
    pub status: StatusView,
    /// Every counter.
    pub counters: CountersView,
    /// What each provider carries for peers without Shim6; nothing if there is no translation for them.
    pub natv6: Vec<Natv6ProviderView>,
    /// Those paths that most contexts use, at most `metrics.paths` of them; of a site with very many paths, of those looked at.
    pub paths: Vec<PathView>,
    /// Paths that are in use besides.
    pub paths_left_off: u64,
    /// Routers and the BGP sessions they tell of; empty without `[bmp]`.
    #[serde(default)]
    pub bmp: BmpView,
    /// Rings between the control core and workers.
    pub rings: Vec<FillView>,
    /// Tables with a bound.
    pub tables: Vec<FillView>,
    /// Handshakes we began, from the first I1 to the R2.
    pub handshakes: TimesView,
    /// From a context's doubt about its pair to one that works.
    pub failovers: TimesView,
    /// For each worker, the turns in which there was something to do: about a burst each.
    pub turns: Vec<TimesView>,
    /// Seconds since 1970 (UTC) when the daemon started.
    pub started_s: f64,
    /// Seconds from then until these figures were taken: what rates are to be worked out by.
    #[serde(default)]
    pub at_s: f64,
}

/// How full something is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FillView {
    /// What it is.
    pub name: String,
    /// The worker it belongs to, by its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u16>,
    /// Places taken.
    pub used: u64,
    /// Places there are.
    pub max: u64,
}

/// How long something took, each time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TimesView {
    /// Seconds in all.
    pub sum_s: f64,
    /// How often it took less than `below_s` and not less than the entry before.
    pub buckets: Vec<BucketView>,
}

/// One size of times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BucketView {
    /// Seconds.
    pub below_s: f64,
    /// How often.
    pub count: u64,
}

impl TimesView {
    /// How often in all.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }
}
