//! Providers whose prefix or router is found out.

use std::net::Ipv6Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A provider whose prefix or router is found out while the box runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UplinkView {
    /// `provider.name`.
    pub name: String,
    /// The port it is on.
    pub port: String,
    /// What it waits for, and why; nothing if it can be used.
    pub waits: String,
    /// How far asking for a prefix is: soliciting, requesting, bound, renewing, rebinding. Nothing if the prefix is configured.
    pub stage: Option<String>,
    /// The /64s in use, the one for new sessions first.
    pub used: Vec<String>,
    /// What was delegated.
    pub delegated: Vec<DelegatedView>,
    /// Its router.
    pub router: Option<Ipv6Addr>,
    /// For how many seconds that is one, as it said.
    pub router_s: Option<u64>,
    /// The MTU it names for the link; the box goes by `port.mtu`.
    pub router_mtu: Option<u32>,
}

/// A prefix that was delegated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DelegatedView {
    /// It.
    pub prefix: String,
    /// Whether it is to be left.
    pub deprecated: bool,
    /// Seconds for which it is preferred; without end if nothing is said.
    pub preferred_s: Option<u64>,
    /// Seconds for which it is valid; without end if nothing is said.
    pub valid_s: Option<u64>,
}
