//! DNS for the hosts.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// DNS for the hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsView {
    /// Whether there is a `[dns]`. If not, nothing else is told.
    pub enabled: bool,
    /// Servers asked, in the order of the configuration.
    pub servers: Vec<DnsServerView>,
    /// Answers kept.
    pub entries: u64,
    /// Most of them.
    pub entries_max: u64,
    /// Octets they take.
    pub octets: u64,
    /// Most of them.
    pub octets_max: u64,
    /// Questions the cache could answer.
    pub hits: u64,
    /// Questions it could not.
    pub misses: u64,
    /// Answers that had to make room.
    pub evicted: u64,
    /// Questions of hosts that wait.
    pub waiting: u64,
    /// Questions on their way to servers.
    pub asked: u64,
    /// Whether hosts may have to do without IPv4 addresses of names that have a CMULA.
    #[serde(default)]
    pub withholding: bool,
    /// Answers that wait until it is known whether the peer answers at its CMULA.
    #[serde(default)]
    pub undecided: u64,
    /// Names of the site's own zone.
    pub names: u64,
    /// Hosts whose name is none in DNS.
    pub unnamed: u64,
    /// Identifiers looked up backwards now.
    pub looked_up: u64,
    /// Identifiers of which it is remembered that they lead nowhere.
    pub not_found: u64,
    /// Peers learned from answers.
    pub peers: u64,
    /// The counters that are about it.
    pub counters: BTreeMap<String, u64>,
}

/// A server that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsServerView {
    /// Where it is.
    pub address: Ipv6Addr,
    /// The box's own address it is asked from; none while there is no way to it.
    pub source: Option<Ipv6Addr>,
    /// The port behind which it is.
    pub port: Option<String>,
    /// Whether it is left alone for a while, since it did not answer.
    pub resting: bool,
    /// How long it takes to answer, in microseconds, smoothed.
    pub rtt_us: Option<u64>,
    /// Questions sent.
    pub questions: u64,
    /// Answers taken.
    pub answers: u64,
    /// Questions it did not answer in time.
    pub timeouts: u64,
    /// Questions sent over TCP.
    pub streams: u64,
}

/// What [`super::Request::DnsFlush`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlushedView {
    /// Entries forgotten.
    pub entries: u64,
}
