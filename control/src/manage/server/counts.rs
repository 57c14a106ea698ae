//! What happens at the doors, counted.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($name:ident $text:literal $help:literal;)*) => {
        /// What is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(in crate::manage) enum Count { $(#[doc = $help] $name),* }

        impl Count {
            const ALL: &[(&'static str, &'static str)] = &[$(($text, $help)),*];
        }
    };
}

counts! {
    Connections "manage_connections" "Connections to the management sockets and ports.";
    TurnedAway "manage_turned_away" "Connections closed because too many were open at their door.";
    NoHandshake "manage_no_handshake" "Connections over TLS that ended at the handshake: no certificate, none of ours, or no TLS.";
    Requests "manage_requests" "Requests that arrived whole.";
    ReadOnly "manage_read_only" "Orders refused because they came from one who may only look, or from a browser.";
    NotUnderstood "manage_not_understood" "Requests that are no HTTP, ask for what there is not, or have arguments that cannot be read.";
    TooLong "manage_too_long" "Requests refused because of their length.";
    TooSlow "manage_too_slow" "Connections closed because they were silent, or took too long to ask or to take their answer.";
    Refused "manage_refused" "Requests that the engine refused.";
    NoEngine "manage_no_engine" "Requests that the engine did not answer in time.";
}

/// The counts. Written by the management thread alone.
#[derive(Debug, Default)]
pub(in crate::manage) struct Counts([AtomicU64; Count::ALL.len()]);

impl Counts {
    /// Counts one.
    pub(in crate::manage) fn add(&self, count: Count) {
        if let Some(value) = self.0.get(count as usize) {
            value.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Names, meanings and values.
    pub(in crate::manage) fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        Count::ALL.iter().zip(&self.0).map(|((name, help), value)| (*name, *help, value.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_its_line_in_the_documentation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/counters.md");
        let text = std::fs::read_to_string(path).expect("docs/counters.md");
        for (name, help, _) in Counts::default().iter() {
            assert!(text.contains(&format!("| `{name}` | {help} |")), "docs/counters.md lacks `{name}`");
        }
    }
}
