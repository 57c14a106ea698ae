//! Contexts, and the paths they use.

use std::net::Ipv6Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::named;

/// Which contexts are asked for. Everything left out matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ContextFilter {
    /// Ours or the peer's.
    pub ulid: Option<Ipv6Addr>,
    /// A state.
    pub state: Option<ContextState>,
    /// Our host, by its name or identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The peer's identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Ipv6Addr>,
    /// The peer's identifier, or the locator of it in use, lies in this prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The provider they send through. With `prefix`, that is a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// At most this many; [`ContextFilter::LIMIT_DEFAULT`] when left out.
    pub limit: Option<u32>,
    /// Go on from here: what [`ContextsView::next`] said. From the beginning when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

impl ContextFilter {
    /// How many contexts are listed unless asked otherwise: a box may have millions.
    pub const LIMIT_DEFAULT: u32 = 1000;

    /// Whether a context with these properties is asked for; names, prefixes and `limit` are for the caller to look at.
    pub fn matches(&self, ulid_local: Ipv6Addr, ulid_peer: Ipv6Addr, state: ContextState) -> bool {
        self.ulid.is_none_or(|ulid| ulid == ulid_local || ulid == ulid_peer)
            && self.peer.is_none_or(|peer| peer == ulid_peer)
            && self.state.is_none_or(|wanted| wanted == state)
    }

    /// The limit that holds.
    pub fn limit(&self) -> usize {
        usize::try_from(self.limit.unwrap_or(Self::LIMIT_DEFAULT)).unwrap_or(usize::MAX)
    }
}

/// How many contexts there are, by state; hold-downs count as contexts do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContextCounts {
    /// In all.
    pub total: u64,
    /// ESTABLISHED.
    pub established: u64,
    /// I1-SENT, I2-SENT or I2BIS-SENT.
    pub opening: u64,
    /// Established, and REAP not Operational: exploring or inbound only.
    pub exploring: u64,
    /// E-FAILED: the peer did not answer.
    pub failed: u64,
    /// NO-SUPPORT: the peer said it does not speak Shim6.
    pub no_support: u64,
    /// How many there may be.
    pub max: u64,
}

/// The contexts that pass a filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContextsView {
    /// At most as many as asked for.
    pub contexts: Vec<ContextView>,
    /// How many more pass the filter, of those that were looked at.
    pub left_off: u64,
    /// Where to go on, if there are contexts that were not looked at: a box looks at so many at once, and then does its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// RFC 5533's states (§6.3), under its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ContextState {
    /// Nothing known.
    Idle,
    /// I1 sent, R1 awaited.
    I1Sent,
    /// I2 sent, R2 awaited.
    I2Sent,
    /// I2bis sent, R2 awaited.
    I2bisSent,
    /// Both sides know the context.
    Established,
    /// The peer did not answer.
    EFailed,
    /// The peer does not speak Shim6.
    NoSupport,
}

/// RFC 5534's states (§6.1), under its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReapState {
    /// As far as is known both directions work.
    Operational,
    /// Nothing comes in: looking for a pair that works.
    Exploring,
    /// Packets come in, but the peer has not said that ours do.
    InboundOk,
}

named!(ContextState: Idle "idle", I1Sent "i1-sent", I2Sent "i2-sent", I2bisSent "i2bis-sent", Established "established",
    EFailed "e-failed", NoSupport "no-support");
named!(ReapState: Operational "operational", Exploring "exploring", InboundOk "inbound-ok");

/// One context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContextView {
    /// Our host.
    pub ulid_local: Ipv6Addr,
    /// The other end.
    pub ulid_peer: Ipv6Addr,
    /// Forked Instance Identifier; 0 is the default context.
    pub fork: u32,
    /// The class of ours whose packets go by it, if it is a forked context of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Where the handshake is.
    pub state: ContextState,
    /// The tag the peer sends us, 12 hex digits.
    pub local_tag: Option<String>,
    /// The tag we send the peer, once known.
    pub peer_tag: Option<String>,
    /// The pair our packets go by; none before there is one.
    pub current: Option<PairView>,
    /// The pair they go by at once when the provider or the path of that one is lost; none before one was tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<PairView>,
    /// The provider of `current.local`.
    pub local_provider: Option<String>,
    /// Ours, as told to the peer.
    pub local_locators: Vec<Ipv6Addr>,
    /// The peer's.
    pub peer_locators: Vec<PeerLocatorView>,
    /// Where REAP is; none before the context is established.
    pub reap_state: Option<ReapState>,
    /// Payload packets from the peer.
    pub packets_in: u64,
    /// Payload packets to the peer.
    pub packets_out: u64,
    /// Payload octets from the peer.
    pub octets_in: u64,
    /// Payload octets to the peer.
    pub octets_out: u64,
    /// Seconds since the last payload packet either way.
    pub last_used_s: Option<u64>,
    /// The host's own ULID where `ulid_local` is a locator, which is all the peer knows of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<Ipv6Addr>,
    /// In `e-failed` and `no-support`, seconds until the failure is forgotten. Such entries are no contexts, and listed only
    /// when their state is asked for; one that holds for all our hosts has the ULID `::`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_s: Option<u64>,
}

impl ContextView {
    /// What is known of a pair about which nothing is known but its state.
    pub fn idle(ulid_local: Ipv6Addr, ulid_peer: Ipv6Addr, state: ContextState) -> ContextView {
        ContextView {
            ulid_local,
            ulid_peer,
            fork: 0,
            class: None,
            state,
            local_tag: None,
            peer_tag: None,
            current: None,
            standby: None,
            local_provider: None,
            local_locators: Vec::new(),
            peer_locators: Vec::new(),
            reap_state: None,
            packets_in: 0,
            packets_out: 0,
            octets_in: 0,
            octets_out: 0,
            last_used_s: None,
            inside: None,
            held_s: None,
        }
    }
}

/// Two locators: packets go from `local` to `peer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PairView {
    /// Ours.
    pub local: Ipv6Addr,
    /// The peer's.
    pub peer: Ipv6Addr,
}

/// A peer's locator and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerLocatorView {
    /// The address.
    pub locator: Ipv6Addr,
    /// Proved to be the peer's (HBA or CGA).
    pub verified: bool,
    /// Shown to be reachable, so that payload may go there.
    pub probed: bool,
}

/// What is known of paths.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PathsView {
    /// One for each local provider and peer prefix in use.
    pub paths: Vec<PathView>,
}

/// From one of our providers to one peer prefix: what many contexts share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PathView {
    /// Our provider.
    pub provider: String,
    /// The peer's locators share this prefix.
    pub peer_prefix: String,
    /// `up`, `down` or `unknown`.
    pub state: String,
    /// What the state rests on, in words.
    pub evidence: String,
    /// Contexts whose packets go this way.
    pub contexts: u64,
    /// How Shim6 goes there: `header`, or `udp` because the path drops next header 140.
    pub carriage: String,
    /// What the exchange with the peer's box says of it, where there is one.
    pub liveness: Option<LivenessView>,
    /// Seconds since something last arrived this way.
    pub last_in_s: Option<u64>,
    /// Seconds since something was last sent this way.
    pub last_out_s: Option<u64>,
    /// Round trip of the last answered probe, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// What routers say of its route, and how far that is believed; nothing if it is there or nobody tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
}

/// The exchange of liveness with the peer's box about a path (BFD, RFC 5880).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LivenessView {
    /// `up`, `init`, `down` or `admindown`.
    pub state: String,
    /// Milliseconds between two packets of ours, before jitter; none while the peer wants none.
    pub interval_ms: Option<f64>,
    /// Milliseconds of silence after which the path is down.
    pub detection_ms: f64,
    /// Round trip of the last poll that was answered.
    pub rtt_ms: Option<f64>,
    /// Packets sent.
    pub sent: u64,
    /// Packets taken.
    pub received: u64,
    /// How often the path failed, one failure following the other within ten minutes.
    pub failures: u32,
    /// Seconds until a path that is up again is trusted.
    pub held_s: Option<u64>,
}
