//! The site's policy, and how the site stands.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The policy in force and how the site stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyView {
    /// Whether there is one.
    pub loaded: bool,
    /// What it says, as its file did.
    pub policy: serde_json::Value,
    /// Its classes, and what each carries; the last one has what belongs to no other.
    pub classes: Vec<PolicyClassView>,
    /// Contexts that were to be moved since it was loaded, in either direction.
    pub moves_ordered: u64,
    /// Those that were.
    pub moves_done: u64,
    /// Those that could not be moved, or whose peers did not heed it.
    pub moves_failed: u64,
}

/// What a class of traffic carries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyClassView {
    /// Its name.
    pub name: String,
    /// To the peers, by provider.
    pub out: Vec<PolicyShareView>,
    /// From the peers.
    #[serde(rename = "in")]
    pub inward: Vec<PolicyShareView>,
}

/// What a class carries through a provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyShareView {
    /// `provider.name`.
    pub provider: String,
    /// Megabits a second.
    pub mbps: f64,
    /// What should be there; nothing where no rule says so.
    pub target_mbps: Option<f64>,
    /// Contexts.
    pub contexts: u64,
}

/// What a policy that was loaded replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyLoadedView {
    /// The file it came from.
    pub file: String,
    /// Classes it has, without that of everything else.
    pub classes: u64,
    /// Fields that differ from the policy before.
    pub changed: u64,
}
