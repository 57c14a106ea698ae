//! What can be said in `policy.json`. Unknown fields are refused; what is allowed is published as a JSON Schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::site::ARecords;

/// The version of the format.
pub const VERSION: u32 = 1;

/// Which providers carry which traffic of a site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// The format of this file; 1.
    pub version: u32,
    /// What the site's clocks are ahead of UTC, as +01:00; windows are in this time. No daylight saving is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utc_offset: Option<String>,
    /// How fast and how exactly targets are followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsFile>,
    /// What is known of providers, by their names in site.toml; those that are not named have neither capacity nor cost.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub providers: BTreeMap<String, ProviderFile>,
    /// Names for lists of peers' prefixes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sites: BTreeMap<String, Vec<String>>,
    /// Classes of traffic; a context belongs to the first that it fits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassFile>,
    /// What counts for traffic of no class. Without it such traffic uses providers as site.toml prefers them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<DefaultFile>,
}

/// How fast and how exactly targets are followed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsFile {
    /// Contexts that are moved in a second, at most: 1 to 5000; 500 if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves_per_s: Option<u32>,
    /// How far a provider's share of a class may be from its target before contexts are moved, in percent of what the class
    /// carries: 0.1 to 50; 0.5 if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance_percent: Option<f64>,
    /// How long a context that was moved is left alone, in seconds: 1 to 3600; 15 if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest_s: Option<u32>,
}

/// What is known of a provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderFile {
    /// What fits through it in either direction, in megabits a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_mbps: Option<f64>,
    /// The same from the peers to the site, if that is another number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_in_mbps: Option<f64>,
    /// What a megabit a second costs, in any unit that all providers share; 0 if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// What is paid for whether it is used or not, in megabits a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_mbps: Option<f64>,
    /// How it is billed beyond that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing: Option<BillingFile>,
    /// Everybody leaves it, in both directions, while there is another way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
}

/// How a provider is billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BillingFile {
    /// By what is used.
    Flat,
    /// By the 95th percentile of a month's five-minute means, the larger of both directions.
    #[serde(rename = "percentile_95")]
    Percentile95,
}

/// A class of traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassFile {
    /// For people, and in answers.
    pub name: String,
    /// What belongs to it: whatever fits all that is said here.
    #[serde(rename = "match")]
    pub fits: MatchFile,
    /// To the peers. A direction without a rule is left to site.toml's preferences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<RuleFile>,
    /// From the peers.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    pub inward: Option<RuleFile>,
    /// Both ways, each by itself; instead of `out` and `in`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub both: Option<RuleFile>,
    /// Hours of the week in which other rules count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowFile>,
    /// What happens when a provider that was lost is back; at_once if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_back: Option<FailBackFile>,
    /// Whether hosts get IPv4 addresses of names that have a CMULA; as dns.a_records in site.toml if it is not said. Not with
    /// dscp, protocol or ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub a_records: Option<ARecords>,
}

/// What belongs to a class. Of each list one entry has to fit; what is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatchFile {
    /// Hosts inside: names, addresses or prefixes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Peers: names of `[[peer]]`, identifiers or prefixes of identifiers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// Peers, by the names of lists in `sites`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<String>,
    /// Differentiated Services code points: names as ef or af41, or 0 to 63. Makes forked contexts (RFC 5533 section 4.2).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dscp: Vec<String>,
    /// The upper layer: tcp, udp and so on, or a number. Makes forked contexts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Ports, one of a packet's two: 80 or 5000-5999. Makes forked contexts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
}

/// Where traffic of no class goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DefaultFile {
    /// To the peers. A direction without a rule is left to site.toml's preferences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<RuleFile>,
    /// From the peers.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    pub inward: Option<RuleFile>,
    /// Both ways, each by itself; instead of `out` and `in`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub both: Option<RuleFile>,
    /// Hours of the week in which other rules count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowFile>,
    /// What happens when a provider that was lost is back; at_once if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_back: Option<FailBackFile>,
    /// Whether hosts get IPv4 addresses of names that have a CMULA; as dns.a_records in site.toml if it is not said. Not with
    /// dscp, protocol or ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub a_records: Option<ARecords>,
}

/// What happens when a provider that was lost is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailBackFile {
    /// It gets its share again at once.
    AtOnce,
    /// The same after it has been back for so many seconds.
    AfterS(u32),
    /// New contexts get there, and nobody is moved back.
    NewSessions,
    /// Nobody gets there before the policy is loaded again or the provider is restored by hand.
    Never,
}

/// Which providers, and how they share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    /// How those that may be used share; by capacity if it is not said and all capacities are known, else equally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitFile>,
    /// These and no others, while one of them is up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefer: Vec<String>,
    /// These only when no other is up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<String>,
    /// These never, whatever fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<String>,
    /// This one and never another, whatever fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
}

/// How providers share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SplitFile {
    /// In proportion to their capacities.
    Capacity,
    /// In proportion to these numbers; who is not named gets nothing while another one is up.
    Weights(BTreeMap<String, f64>),
    /// What is paid anyway first, then the cheapest up to its fill level, then the next.
    CheapestFirst(FillFile),
}

/// When the next provider's turn is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FillFile {
    /// Percent of a provider's capacity, 1 to 100; 80 if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill_percent: Option<f64>,
}

/// Hours of the week in which other rules count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowFile {
    /// Days: mon, tue, wed, thu, fri, sat, sun; every day if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<DayFile>,
    /// When it begins, as 08:00.
    pub from: String,
    /// When it ends, the same day: 18:00, or 24:00 for the day's end.
    pub to: String,
    /// As of a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<RuleFile>,
    /// As of a class.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    pub inward: Option<RuleFile>,
    /// As of a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub both: Option<RuleFile>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum DayFile {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// The JSON Schema of a policy, as it is published.
pub fn schema() -> String {
    let schema = schemars::schema_for!(PolicyFile);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
