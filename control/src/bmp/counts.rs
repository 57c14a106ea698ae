//! What happens between routers and the station, counted.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($name:ident $text:literal $help:literal;)*) => {
        /// What is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Count { $(#[doc = $help] $name),* }

        impl Count {
            const ALL: &[(&'static str, &'static str)] = &[$(($text, $help)),*];
        }
    };
}

counts! {
    Connections "bmp_connections" "Connections to bmp.listen.";
    NotFrom "bmp_not_from" "Of these, closed because they came from an address that is not in bmp.from.";
    NoHandshake "bmp_no_handshake" "Of these, ended at the handshake: no certificate, none of ours, or no TLS.";
    TurnedAway "bmp_turned_away" "Of these, closed because too many were open or at the handshake.";
    TooSlow "bmp_too_slow" "Connections closed because a message, or the first one, took too long.";
    Malformed "bmp_malformed" "Connections closed because of octets that are no BMP, or no BGP within.";
    OutOfOrder "bmp_out_of_order" "Connections closed because they did not begin with an Initiation, or have too many sessions.";
    Messages "bmp_messages" "BMP messages taken in.";
    Updates "bmp_updates" "Of these, with an UPDATE of a session that [[bmp.source]] names.";
    OtherView "bmp_other_view" "Of these, with an UPDATE of another view than bmp.view, and so of no use.";
    Displaced "bmp_displaced" "Sessions that came up at another connection while one told of them already; the later one counts.";
    Full "bmp_full" "Sessions given up because they have more routes than bmp.routes_max.";
    Stalled "bmp_stalled" "Times a router said nothing for bmp.stall_s, so that what it had said did not count.";
    Lost "bmp_lost" "Times a provider came to have no route to a /64 of a peer any more, as its sources say.";
    Back "bmp_back" "Times it had one again, or nothing was known any more.";
}

/// The counts. Written by the station's thread alone.
#[derive(Debug, Default)]
pub struct Counts([AtomicU64; Count::ALL.len()]);

impl Counts {
    /// Counts one.
    pub fn add(&self, count: Count) {
        if let Some(value) = self.0.get(count as usize) {
            value.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted.
    pub fn value(&self, count: Count) -> u64 {
        self.0.get(count as usize).map_or(0, |value| value.load(Ordering::Relaxed))
    }

    /// Names, meanings and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
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
