//! What goes into a [`Reap`](super::Reap) and what comes out.

use std::time::Duration;

use dataplane::wire::LocatorPair;
use dataplane::wire::shim6::ProbeReport;

use crate::time::Instant;

/// The three states of a context (RFC 5534 §6; R5534-077); a probe carries the state its sender is in.
pub use dataplane::wire::shim6::ProbeState as State;

/// What the caller has to do, or may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a Keepalive.
    SendKeepalive {
        /// From and to where.
        pair: LocatorPair,
    },
    /// Send a Probe.
    SendProbe {
        /// From and to where.
        pair: LocatorPair,
        /// What to put in Sta.
        state: State,
        /// 1 to 15 reports; the first describes this probe.
        sent: Vec<ProbeReport>,
        /// 0 to 15 reports.
        received: Vec<ProbeReport>,
    },
    /// Payload goes another way from now on (R5534-034).
    PairChanged {
        /// The pair left.
        from: LocatorPair,
        /// The pair now in use, confirmed by the peer.
        to: LocatorPair,
    },
    /// The context left Operational (R5534-112). A good moment for [`Reap::reorder`](super::Reap::reorder).
    ExplorationStarted {
        /// Why.
        reason: Reason,
    },
    /// The context is back in Operational.
    ExplorationEnded {
        /// How long it took.
        after: Duration,
        /// Probes sent by the clock meanwhile.
        probes: u32,
    },
    /// The peer gave back the nonce of a probe sent on this pair: it works from us to the peer.
    Confirmed {
        /// The pair.
        pair: LocatorPair,
        /// From the probe to the first report of it. A peer may report later than at once.
        after: Duration,
    },
    /// Probes on this pair stayed unreported while a later one on another pair was reported.
    Failed {
        /// The pair.
        pair: LocatorPair,
        /// When the last of them was sent.
        probed: Instant,
    },
    /// The gap between probes has reached Max Probe Timeout: a hint for garbage collection (R5534-047).
    BackedOff,
    /// An answer was not sent because of the rate cap (R5534-120). The clock still sends probes.
    AnswerCapped,
    /// So many received reports matched no probe of ours: stale, or forged (R5534-117).
    UnmatchedReports {
        /// How many.
        count: usize,
    },
}

/// Why an exploration started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing came back for a Send Timeout (§6.4).
    SendTimeout,
    /// The peer explores (§6.7).
    Peer,
    /// A locator of the current pair is gone or broken, here or there (§4.2).
    LocatorLost,
    /// Local evidence, or a neighbour's, against the current pair (§4.2).
    Suspected,
    /// Somebody outside says that the current pair may have failed (§3.3, §8).
    Hinted,
    /// Policy wants another pair.
    Relocation,
}

/// Why a probe was dropped without any effect (R5534-116, spec §10 f).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProbeRefused {
    /// It does not even report itself.
    #[error("probe without sent report")]
    NoSentReport,
    /// More than 15 reports of a kind.
    #[error("probe with more than 15 reports of a kind")]
    TooManyReports,
    /// Its first report is not about the packet it came in.
    #[error("probe whose first report names other addresses than its IPv6 header")]
    AddressMismatch,
}

/// Payload of one context since the last digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// At least one packet came in.
    pub received: bool,
    /// At least one packet went out.
    pub sent: bool,
    /// Direction of the latest packet.
    pub last: Direction,
}

/// Direction of a packet, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the peer.
    Received,
    /// To the peer.
    Sent,
}

/// When the timers of a context expire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    /// Send Timer.
    pub send: Option<Instant>,
    /// Keepalive Timer.
    pub keepalive: Option<Instant>,
    /// Next Keepalive before the one that ends the Keepalive Timer.
    pub keepalive_interval: Option<Instant>,
    /// Probe retransmission timer.
    pub probe: Option<Instant>,
}
