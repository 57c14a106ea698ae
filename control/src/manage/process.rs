//! What the system says of this process.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::metrics::ProcessFigures;

/// As it is now; what cannot be found out is zero.
pub(super) fn figures() -> ProcessFigures {
    let cpu_us = getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0, |usage| usage.user_time().num_microseconds() + usage.system_time().num_microseconds());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    ProcessFigures {
        cpu_s: cpu_us as f64 / 1e6,
        resident: field("VmRSS:") * 1024,
        descriptors: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        threads: field("Threads:"),
    }
}
