//! The recording of what the control core is told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A recording that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordRequest {
    /// Where: an absolute path of a file that does not exist, on the box's machine.
    pub file: String,
    /// Octets it may have, in millions; as the daemon thinks best without.
    #[serde(default)]
    pub megabytes: Option<u32>,
}

/// How the recording stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordingView {
    /// Whether something is recorded now.
    pub running: bool,
    /// Where; nothing if nothing was recorded since the daemon began.
    pub file: Option<String>,
    /// Octets written.
    pub octets: u64,
    /// Octets that may be written.
    pub octets_max: u64,
    /// Why it ended, if it has.
    pub ended: Option<String>,
}
