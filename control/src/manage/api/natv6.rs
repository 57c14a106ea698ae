//! Translation for peers without Shim6.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Translation for peers without Shim6.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Packets translated for it from the site, and by its addresses to the site: its parts of `nat_out` and `nat_in`. A
    /// provider that took the place of one that went goes on from where that stopped.
    #[serde(default)]
    pub packets_out: u64,
    /// See `packets_out`.
    #[serde(default)]
    pub packets_in: u64,
    /// Packets between hosts of the site by their addresses at it.
    #[serde(default)]
    pub hairpins: u64,
    /// ICMPv6 errors among all these that quote a packet.
    #[serde(default)]
    pub quotes: u64,
}
