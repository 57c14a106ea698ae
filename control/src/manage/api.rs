//! What can be asked of a daemon and what it answers.
//!
//! These types are the interface: fields are added, never renamed or given another meaning, unless
//! [`VERSION`](super::VERSION) goes up. Addresses are plain here, since JSON has no types for them; names of fields say
//! which kind they are. Octet and packet counts are since the daemon (or the context) began.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

/// A question or an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the box is.
    Status,
    /// The hosts it serves.
    Hosts,
    /// The contexts that pass a filter.
    Contexts(ContextFilter),
    /// What is known of each path.
    Paths,
    /// Every counter.
    Counters,
    /// Translation for peers without Shim6.
    Natv6,
    /// Read the configuration and the hosts again: all of it or nothing.
    Reload,
    /// Use a provider in another way.
    Steer(SteerRequest),
}

/// How a provider is to be used from now on, until told otherwise or restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SteerRequest {
    /// `provider.name`.
    pub provider: String,
    /// How.
    pub steering: Steering,
}

/// An answer; each request has the one of its name, or [`Response::Error`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(StatusView),
    /// To [`Request::Hosts`].
    Hosts(HostsView),
    /// To [`Request::Contexts`].
    Contexts(ContextsView),
    /// To [`Request::Paths`].
    Paths(PathsView),
    /// To [`Request::Counters`].
    Counters(CountersView),
    /// To [`Request::Natv6`].
    Natv6(Natv6View),
    /// To [`Request::Reload`].
    Reloaded(ReloadedView),
    /// To [`Request::Steer`]: the provider as it is now.
    Steered(ProviderView),
    /// The request cannot be answered or was not obeyed.
    Error(ErrorView),
}

/// Which contexts are asked for. Everything left out matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContextFilter {
    /// Ours or the peer's.
    pub ulid: Option<Ipv6Addr>,
    /// A state.
    pub state: Option<ContextState>,
    /// At most this many; [`ContextFilter::LIMIT_DEFAULT`] when left out.
    pub limit: Option<u32>,
}

impl ContextFilter {
    /// How many contexts are listed unless asked otherwise: a box may have millions.
    pub const LIMIT_DEFAULT: u32 = 1000;

    /// Whether a context with these properties is asked for; `limit` is for the caller to keep.
    pub fn matches(&self, ulid_local: Ipv6Addr, ulid_peer: Ipv6Addr, state: ContextState) -> bool {
        self.ulid.is_none_or(|ulid| ulid == ulid_local || ulid == ulid_peer)
            && self.state.is_none_or(|wanted| wanted == state)
    }

    /// The limit that holds.
    pub fn limit(&self) -> usize {
        usize::try_from(self.limit.unwrap_or(Self::LIMIT_DEFAULT)).unwrap_or(usize::MAX)
    }
}

/// How the box is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// `box.name`.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Whether it serves: ports open, next hops of at least one provider resolved, hosts loaded.
    pub ready: bool,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// In order of their numbers.
    pub workers: Vec<WorkerView>,
    /// In the order of the configuration.
    pub ports: Vec<PortView>,
    /// In the order of the configuration.
    pub providers: Vec<ProviderView>,
    /// Where DPDK's memory comes from.
    pub memory: MemoryView,
    /// How many contexts there are, by state.
    pub contexts: ContextCounts,
    /// Static hosts served.
    pub hosts: u64,
}

/// One poll-mode worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Its number, from 0.
    pub id: u16,
    /// The core it is pinned to.
    pub core: Option<u16>,
    /// Contexts in its shard.
    pub contexts: u64,
    /// Packets received.
    pub packets_in: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Packets dropped, for all reasons.
    pub dropped: u64,
}

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortView {
    /// `port.name`.
    pub name: String,
    /// `port.device`.
    pub device: String,
    /// The Ethernet address in use.
    pub mac: String,
    /// Octets.
    pub mtu: u16,
    /// What the device says of its link.
    pub link_up: bool,
    /// Packets received.
    pub rx_packets: u64,
    /// Octets received.
    pub rx_octets: u64,
    /// Packets the device had no room for.
    pub rx_missed: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Octets sent.
    pub tx_octets: u64,
    /// Packets the device did not take.
    pub tx_dropped: u64,
}

/// One provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProviderView {
    /// `provider.name`.
    pub name: String,
    /// The port it is on.
    pub port: String,
    /// The prefix it delegated.
    pub prefix: String,
    /// `provider.preference`.
    pub preference: u16,
    /// Whether packets may go there: link up and next hop resolved.
    pub up: bool,
    /// Its router.
    pub next_hop: Option<Ipv6Addr>,
    /// Whether the router's Ethernet address is known.
    pub next_hop_resolved: bool,
    /// Contexts that send through it.
    pub contexts: u64,
    /// How the operator wants it to be used.
    #[serde(default)]
    pub steering: Steering,
    /// Whether peers are told that its locators are broken.
    #[serde(default)]
    pub told_broken: bool,
    /// Whether it has gone from the configuration, and contexts are leaving it.
    #[serde(default)]
    pub leaving: bool,
}

/// What the operator wants of a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Steering {
    /// Contexts move here, and new ones begin here.
    Prefer,
    /// As configured.
    #[default]
    Normal,
    /// New contexts go elsewhere while they can; those that are here stay.
    Avoid,
    /// All contexts leave, as if it had failed. What has no other way stays.
    Drain,
}

/// Where DPDK's memory comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryView {
    /// From hugepages, or from ordinary ones.
    pub hugepages: bool,
    /// Megabytes.
    pub megabytes: u32,
}

/// How many contexts there are, by state; hold-downs count as contexts do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// The hosts served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostsView {
    /// In the order of the hosts file.
    pub hosts: Vec<HostView>,
    /// Hosts that are gone, and whose addresses no other host may have yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<QuarantinedView>,
}

/// What a host that is gone left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedView {
    /// The host's identifier.
    pub ulid: Ipv6Addr,
    /// Its addresses: the identifier and locators.
    pub addresses: Vec<Ipv6Addr>,
    /// Its link-layer address, if the box knew it.
    pub mac: Option<String>,
    /// Seconds until another host may have them.
    pub left_s: u64,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// What people call it.
    pub name: String,
    /// Its identifier.
    pub ulid: Ipv6Addr,
    /// Its locators, in the order of the providers.
    pub locators: Vec<Ipv6Addr>,
    /// `hba` or `hybrid`.
    pub kind: String,
    /// Contexts it is an end of; none where nobody counts them (`pshim6ctl host list`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contexts: Option<u64>,
}

/// The contexts that pass a filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContextsView {
    /// At most as many as asked for.
    pub contexts: Vec<ContextView>,
    /// How many more pass the filter.
    pub left_off: u64,
}

/// RFC 5533's states (§6.3), under its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReapState {
    /// As far as is known both directions work.
    Operational,
    /// Nothing comes in: looking for a pair that works.
    Exploring,
    /// Packets come in, but the peer has not said that ours do.
    InboundOk,
}

macro_rules! named {
    ($type:ident: $($variant:ident $name:literal),*) => {
        impl $type {
            /// All of them, with their names in JSON.
            pub const ALL: &[($type, &'static str)] = &[$(($type::$variant, $name)),*];
        }
        impl fmt::Display for $type {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(match self { $($type::$variant => $name),* })
            }
        }
        impl std::str::FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<$type, String> {
                Self::ALL.iter().find(|(_, name)| *name == text).map(|(value, _)| *value).ok_or_else(|| {
                    let names: Vec<&str> = Self::ALL.iter().map(|(_, name)| *name).collect();
                    format!("expected one of {}", names.join(", "))
                })
            }
        }
    };
}
named!(ContextState: Idle "idle", I1Sent "i1-sent", I2Sent "i2-sent", I2bisSent "i2bis-sent", Established "established",
    EFailed "e-failed", NoSupport "no-support");
named!(Steering: Prefer "prefer", Normal "normal", Avoid "avoid", Drain "drain");
named!(ReapState: Operational "operational", Exploring "exploring", InboundOk "inbound-ok");

/// One context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairView {
    /// Ours.
    pub local: Ipv6Addr,
    /// The peer's.
    pub peer: Ipv6Addr,
}

/// A peer's locator and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerLocatorView {
    /// The address.
    pub locator: Ipv6Addr,
    /// Proved to be the peer's (HBA or CGA).
    pub verified: bool,
    /// Shown to be reachable, so that payload may go there.
    pub probed: bool,
}

/// What is known of paths.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PathsView {
    /// One for each local provider and peer prefix in use.
    pub paths: Vec<PathView>,
}

/// From one of our providers to one peer prefix: what many contexts share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Seconds since something last arrived this way.
    pub last_in_s: Option<u64>,
    /// Seconds since something was last sent this way.
    pub last_out_s: Option<u64>,
    /// Round trip of the last answered probe, in milliseconds.
    pub rtt_ms: Option<f64>,
}

/// Every counter, in order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersView {
    /// Sums over the whole box.
    pub counters: BTreeMap<String, u64>,
    /// What each counts, in a sentence.
    pub descriptions: BTreeMap<String, String>,
    /// The share of each worker, by its number, of the counters that workers keep.
    #[serde(default)]
    pub workers: Vec<BTreeMap<String, u64>>,
}

/// Translation for peers without Shim6.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Natv6View {
    /// `natv6.enabled`. If not, nothing else is told.
    pub enabled: bool,
    /// In the order of the configuration.
    pub providers: Vec<Natv6ProviderView>,
    /// Subnets translated by prefix.
    pub mapped: Vec<String>,
    /// What is mapped by prefix and has answered neighbour discovery.
    pub neighbours: u64,
    /// Packets that make a session worth a context; none if they do not count.
    pub setup_packets: Option<u32>,
    /// Octets that do.
    pub setup_octets: Option<u64>,
    /// Seconds that do.
    pub setup_age_s: Option<u64>,
    /// Contexts that began as such sessions, or whose peer knows the host by a locator.
    pub contexts: u64,
    /// Peers that said they know no Shim6, and pairs that did not answer.
    pub without_support: u64,
    /// The counters that are about it.
    pub counters: BTreeMap<String, u64>,
}

/// A provider as translation sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Natv6ProviderView {
    /// `provider.name`.
    pub name: String,
    /// Its place among those that new sessions take, from 1; none if it is not up.
    pub place: Option<u64>,
    /// Whether contexts saw it fail, so that it comes after the others.
    pub failing: bool,
    /// Hosts with an address there.
    pub hosts: u64,
    /// Whether what is mapped by prefix has images there.
    pub mapped: bool,
}

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadedView {
    /// Static hosts served now.
    pub hosts: u64,
    /// Hosts that were not served before.
    #[serde(default)]
    pub added: u64,
    /// Hosts that are served no longer.
    #[serde(default)]
    pub removed: u64,
    /// Hosts that have other locators than before.
    #[serde(default)]
    pub changed: u64,
    /// Static peers known now.
    pub peers: u64,
    /// Warnings, and changes that need a restart to take effect.
    pub notes: Vec<String>,
}

/// Why there is no other answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// In words, for people; may have several lines.
    pub text: String,
}

impl ErrorView {
    /// With these words.
    pub fn new(text: impl Into<String>) -> ErrorView {
        ErrorView { text: text.into() }
    }
}

impl Response {
    /// An error with these words.
    pub fn error(text: impl Into<String>) -> Response {
        Response::Error(ErrorView::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_one_name_in_json_and_on_the_command_line() {
        for (state, name) in ContextState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), *name);
            assert_eq!(name.parse(), Ok(*state));
        }
        for (state, name) in ReapState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), *name);
            assert_eq!(name.parse(), Ok(*state));
        }
        for (steering, name) in Steering::ALL {
            assert_eq!(serde_json::to_value(steering).unwrap(), *name);
        }
        assert!("open".parse::<ContextState>().unwrap_err().starts_with("expected one of idle, i1-sent,"));
    }

    #[test]
    fn a_filter_matches_either_end() {
        let [ours, theirs, other]: [Ipv6Addr; 3] = ["fc00::1", "fc00::2", "fc00::3"].map(|it| it.parse().unwrap());
        let filter = |ulid, state| ContextFilter { ulid, state, limit: None };
        let matches = |filter: ContextFilter| filter.matches(ours, theirs, ContextState::I1Sent);
        assert!(matches(filter(None, None)));
        assert!(matches(filter(Some(ours), None)));
        assert!(matches(filter(Some(theirs), Some(ContextState::I1Sent))));
        assert!(!matches(filter(Some(other), None)));
        assert!(!matches(filter(Some(ours), Some(ContextState::Established))));
    }

    #[test]
    fn a_filter_with_an_unknown_field_is_refused() {
        assert!(serde_json::from_str::<Request>(r#"{"contexts":{"ulld":"fc00::1"}}"#).is_err());
        assert_eq!(
            serde_json::from_str::<Request>(r#"{"contexts":{}}"#).unwrap(),
            Request::Contexts(ContextFilter::default())
        );
    }
}
