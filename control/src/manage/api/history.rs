//! How the box was: looks at it at regular times, in columns.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which looks are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryFilter {
    /// Only those from this one on: what [`HistoryView::next`] said. All that are kept when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// Looks at the box, the oldest first. All lists are of one length: an entry for each look.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryView {
    /// Seconds between two looks.
    pub interval_s: f64,
    /// Most looks that are kept.
    pub max: u64,
    /// The number of the first look in the lists; they are counted from 0 on.
    pub first: u64,
    /// The number the next look will have.
    pub next: u64,
    /// When each was: seconds since the daemon started.
    pub at_s: Vec<f64>,
    /// Contexts in all.
    pub contexts: Vec<u64>,
    /// Those that look for a path that works.
    pub exploring: Vec<u64>,
    /// Failovers since the look before.
    pub failovers: Vec<u64>,
    /// Packets dropped a second since the look before.
    pub drops_per_s: Vec<f64>,
    /// Those that were there at any of the looks; those that are there now first, in the order of the configuration.
    pub providers: Vec<ProviderHistoryView>,
}

/// What a provider carried. Nothing where it was not there, or not measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProviderHistoryView {
    /// `provider.name`.
    pub name: String,
    /// Whether packets could go there.
    pub up: Vec<Option<bool>>,
    /// Megabits a second to the peers: what contexts carried where there is a policy, else all that left by the provider's port
    /// if no other provider is on it.
    pub out_mbps: Vec<Option<f64>>,
    /// The same from the peers.
    pub in_mbps: Vec<Option<f64>>,
    /// What should be there to the peers; nothing where no rule says so.
    pub out_target_mbps: Vec<Option<f64>>,
    /// The same from the peers.
    pub in_target_mbps: Vec<Option<f64>>,
}
