//! What can be asked of a daemon and what it answers.
//!
//! These types are the interface: fields are added, never renamed or given another meaning, unless the version at the
//! beginning of every path goes up ([`OPERATIONS`](super::OPERATIONS)). Addresses are plain here, since JSON has no types for them; names of fields say
//! which kind they are. Octet and packet counts are since the daemon (or the context) began.

mod bmp;
mod contexts;
mod dns;
mod history;
mod leases;
mod metrics;
mod natv6;
mod policy;
mod recording;
mod status;
mod system;
mod trace;
mod uplinks;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use bmp::*;
pub use contexts::*;
pub use dns::*;
pub use history::*;
pub use leases::*;
pub use metrics::*;
pub use natv6::*;
pub use policy::*;
pub use recording::*;
pub use status::*;
pub use system::*;
pub use trace::*;
pub use uplinks::*;

/// Gives a type its names in JSON.
macro_rules! named {
    ($type:ident: $($variant:ident $name:literal),*) => {
        impl $type {
            /// All of them, with their names in JSON.
            pub const ALL: &[($type, &'static str)] = &[$(($type::$variant, $name)),*];
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

use named;

/// A question or an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// What monitoring is told.
    Metrics,
    /// Translation for peers without Shim6.
    Natv6,
    /// Hosts that get their address by DHCPv6.
    Leases,
    /// Everything in the store.
    StoreExport,
    /// DNS for the hosts.
    Dns,
    /// Forget what DNS has told.
    DnsFlush,
    /// Read the configuration and the hosts again: all of it or nothing.
    Reload,
    /// Start the program anew and have it take over.
    Upgrade,
    /// Use a provider in another way.
    Steer(SteerRequest),
    /// Begin to tell what becomes of packets.
    TraceStart(TraceRequest),
    /// What became of them.
    TraceFetch(TraceFetch),
    /// Tell no longer.
    TraceStop(TraceFetch),
    /// What would become of a packet.
    Explain(ExplainRequest),
    /// The policy, and how the site stands.
    Policy,
    /// Read the policy again: all of it or nothing.
    PolicyLoad,
    /// How the box was in the last hour.
    History(HistoryFilter),
    /// Whether the control core is recorded.
    Recording,
    /// Start the program anew, recorded, and have it take over.
    RecordStart(RecordRequest),
    /// Record it no longer.
    RecordStop,
    /// Have this box serve, or leave it to others.
    Serve(ServeRequest),
    /// What routers tell of the providers' routes.
    Bmp,
}

/// How a provider is to be used from now on, until told otherwise or restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SteerRequest {
    /// `provider.name`.
    pub provider: String,
    /// How.
    pub steering: Steering,
}

/// An answer; each request has the one of its name, or [`Response::Error`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// To [`Request::Metrics`].
    Metrics(Box<MetricsView>),
    /// To [`Request::Natv6`].
    Natv6(Natv6View),
    /// To [`Request::Leases`].
    Leases(LeasesView),
    /// To [`Request::StoreExport`].
    Store(Box<crate::store::Export>),
    /// To [`Request::Dns`].
    Dns(DnsView),
    /// To [`Request::DnsFlush`].
    DnsFlushed(FlushedView),
    /// To [`Request::Reload`].
    Reloaded(ReloadedView),
    /// To [`Request::Upgrade`] and [`Request::RecordStart`].
    Upgrading(UpgradingView),
    /// To [`Request::Steer`]: the provider as it is now.
    Steered(ProviderView),
    /// To [`Request::TraceStart`].
    TraceStarted(TraceStarted),
    /// To [`Request::TraceFetch`].
    Trace(TraceView),
    /// To [`Request::TraceStop`].
    TraceStopped(TraceStopped),
    /// To [`Request::Explain`].
    Explained(Box<ExplainView>),
    /// To [`Request::Policy`].
    Policy(PolicyView),
    /// To [`Request::PolicyLoad`].
    PolicyLoaded(PolicyLoadedView),
    /// To [`Request::History`].
    History(Box<HistoryView>),
    /// To [`Request::Recording`].
    Recording(RecordingView),
    /// To [`Request::RecordStop`]: how it is then.
    RecordStopped(RecordingView),
    /// To [`Request::Serve`]: how it is now.
    Serving(SystemView),
    /// To [`Request::Bmp`].
    Bmp(BmpView),
    /// The request cannot be answered or was not obeyed.
    Error(ErrorView),
}

/// Every counter, in order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CountersView {
    /// Sums over the whole box.
    pub counters: BTreeMap<String, u64>,
    /// What each counts, in a sentence.
    pub descriptions: BTreeMap<String, String>,
    /// What to do about those that are reasons to drop.
    #[serde(default)]
    pub advice: BTreeMap<String, String>,
    /// The share of each worker, by its number, of the counters that workers keep.
    #[serde(default)]
    pub workers: Vec<BTreeMap<String, u64>>,
}

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorView {
    /// In words, for people; may have several lines.
    pub text: String,
    /// Of which kind it is.
    #[serde(default)]
    pub kind: ErrorKind,
}

/// Kinds of errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The box does not do that now, or not so.
    #[default]
    Refused,
    /// There is nothing of that name.
    NotFound,
}

impl ErrorView {
    /// With these words.
    pub fn new(text: impl Into<String>) -> ErrorView {
        ErrorView { text: text.into(), kind: ErrorKind::Refused }
    }

    /// That there is nothing of that name.
    pub fn missing(text: impl Into<String>) -> ErrorView {
        ErrorView { text: text.into(), kind: ErrorKind::NotFound }
    }
}

impl Response {
    /// An error with these words.
    pub fn error(text: impl Into<String>) -> Response {
        Response::Error(ErrorView::new(text))
    }

    /// That there is nothing of that name.
    pub fn missing(text: impl Into<String>) -> Response {
        Response::Error(ErrorView::missing(text))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

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
        let filter = |ulid, state| ContextFilter { ulid, state, ..ContextFilter::default() };
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
