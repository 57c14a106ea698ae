//! What the control core counts: every way a message can end, by name.

use std::collections::BTreeMap;

use dataplane::wire::shim6::{PacketError, ParseError};

use crate::reap::ProbeRefused;
use crate::shim6::{Answer, DropReason, OpenRefused, Verdict};

/// Counts of the control core, besides those of the workers.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    counts: BTreeMap<String, u64>,
}

/// Something worth counting that is no verdict of another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it, and docs/counters.md says it again")]
pub enum Event {
    Opened,
    ContextReady,
    ContextRecovered,
    ContextGone,
    OpenFailed,
    TableFull,
    MessagesSent,
    MessageNotSent,
    ProbesSent,
    KeepalivesSent,
    Explorations,
    PairChanges,
    PairChangeRefused,
    PathsDead,
    ProbeUnmatched,
    ProbeAnswerCapped,
    IcmpTranslated,
    IcmpActedOn,
    IcmpNotOurs,
    IcmpNoSupport,
    NeighbourRefused,
    ErrorsReceived,
}

impl Tally {
    /// Counts one event.
    pub fn count(&mut self, event: Event) {
        self.add(format!("control_{}", snake(&format!("{event:?}"))));
    }

    /// Counts what became of a Shim6 message.
    pub fn shim6(&mut self, verdict: Verdict) {
        let name = match verdict {
            Verdict::Accepted => "shim6_accepted".to_owned(),
            Verdict::Dropped(reason) => shim6_drop(reason),
            Verdict::Answered(Answer::Error(code)) => format!("shim6_answered_error_{}", code.code()),
            Verdict::Answered(answer) => format!("shim6_answered_{}", snake(&format!("{answer:?}"))),
        };
        self.add(name);
    }

    /// Counts a packet for Shim6 that is no control message at all.
    pub fn unreadable(&mut self, error: PacketError) {
        self.add(format!("packet_drop_{}", snake(&format!("{error:?}"))));
    }

    /// Counts how a control message cannot be read; what follows is counted apart.
    pub fn unreadable_message(&mut self, error: ParseError) {
        self.add(format!("message_{}", snake(&format!("{error:?}"))));
    }

    /// Counts a context that was not opened.
    pub fn refused(&mut self, refused: &OpenRefused) {
        let name = match refused {
            OpenRefused::AlreadyOpen(_) => "already_open",
            OpenRefused::HoldDown { .. } => "hold_down",
            OpenRefused::UnknownHost => "unknown_host",
            OpenRefused::NoLocators => "no_locators",
            OpenRefused::Full => "full",
        };
        self.add(format!("open_refused_{name}"));
    }

    /// Counts a probe without effect.
    pub fn probe_refused(&mut self, refused: ProbeRefused) {
        self.add(format!("probe_drop_{}", snake(&format!("{refused:?}"))));
    }

    fn add(&mut self, name: String) {
        *self.counts.entry(name).or_default() += 1;
    }

    /// All counts that are not zero, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts.iter().map(|(name, count)| (name.as_str(), *count))
    }

    /// One count, zero if nothing of the name happened.
    pub fn value(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }
}

fn shim6_drop(reason: DropReason) -> String {
    format!("shim6_drop_{}", snake(&format!("{reason:?}")))
}

/// `BadValidator` as `bad_validator`; `R1bis` as `r1bis`. What a variant carries is left out.
fn snake(name: &str) -> String {
    let mut out = String::new();
    let plain = name.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    for (at, letter) in plain.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}
