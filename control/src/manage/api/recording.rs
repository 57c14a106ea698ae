//! The recording of what the control core is told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
