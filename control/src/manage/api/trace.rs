//! What became of packets: of those that come by (`trace`), and of one that is made up (`explain`).

use std::net::Ipv6Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which packets are traced: those that pass all that is given. A trace ends when nobody has fetched its records for
/// [`TraceStarted::idle_s`] seconds; there is one at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TraceRequest {
    /// At most two addresses or prefixes: for each, an address of the packet lies in it, before or after it was translated.
    pub addresses: Vec<String>,
    /// A context tag, ours or the peer's: 12 hex digits.
    pub tag: Option<String>,
    /// An address lies in this provider's prefix of locators.
    pub provider: Option<String>,
    /// Dropped for this reason, as `drop_hop_limit` or `hop_limit`.
    pub reason: Option<String>,
    /// Dropped, for whatever reason.
    pub dropped: bool,
    /// Most records a second of each worker, 1 to 10000; 100 when left out.
    pub per_second: Option<u32>,
}

/// A trace has begun; one that was there before has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TraceStarted {
    /// Its number.
    pub id: u64,
    /// It ends by itself when nobody asks for so many seconds.
    pub idle_s: u64,
}

/// Which trace is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceFetch {
    /// The trace's number.
    pub id: u64,
}

/// Records since the last time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TraceView {
    /// In the order of time for each worker.
    pub records: Vec<TracedView>,
    /// Records that were not made since the trace began: beyond its rate, or without room.
    pub lost: u64,
}

/// A trace has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TraceStopped {
    /// Whether it was still there.
    pub was: bool,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TracedView {
    /// Seconds since 1970 (UTC).
    pub at_s: f64,
    /// Who had it.
    pub worker: u16,
    /// The port it came in by.
    pub port_in: String,
    /// The port it left by, if it did.
    pub port_out: Option<String>,
    /// As it came.
    pub before: PacketView,
    /// As it is afterwards.
    pub after: PacketView,
    /// `forward`, `await-neighbour`, `hold`, `control`, `hand-over`, `fragment`, `answer` or `drop`.
    pub decision: String,
    /// Why it was dropped, if it was.
    pub reason: Option<String>,
    /// Our tag of its context.
    pub local_tag: Option<String>,
    /// Each stage's decision, in words.
    pub stages: Vec<String>,
}

/// The beginning of an Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PacketView {
    /// What was kept of it, in hex.
    pub octets: String,
    /// Octets of the whole frame.
    pub length: u32,
}

/// A packet that might come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// From whom.
    pub source: Ipv6Addr,
    /// To whom.
    pub target: Ipv6Addr,
    /// Differentiated services code point, 0 to 63.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<u8>,
    /// Next header: 6, 17 or 58, or another number; 17 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// Target port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Source port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Octets of the IPv6 packet, up to 9000; 100 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub octets: Option<u16>,
}

/// What would become of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainView {
    /// What the packet's path does, run on a copy of what it would find.
    pub packet: TracedView,
    /// Why: what the control core knows that led to this, and what it would do next.
    pub why: Vec<String>,
}
