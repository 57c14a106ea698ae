//! The box: its workers, ports, providers, memory and hosts.

use std::net::Ipv6Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ContextCounts, SystemView, UplinkView, named};
use crate::publish::Counts;

/// How the box is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusView {
    /// `box.name`.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Whether it serves: ports open, next hops of at least one provider resolved, hosts loaded.
    pub ready: bool,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Its process identifier.
    #[serde(default)]
    pub process: u32,
    /// That of a process it has started to take its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<u32>,
    /// In order of their numbers.
    pub workers: Vec<WorkerView>,
    /// In the order of the configuration.
    pub ports: Vec<PortView>,
    /// In the order of the configuration.
    pub providers: Vec<ProviderView>,
    /// Those whose prefix or router is found out while the box runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uplinks: Vec<UplinkView>,
    /// Where DPDK's memory comes from.
    pub memory: MemoryView,
    /// How many contexts there are, by state.
    pub contexts: ContextCounts,
    /// Hosts served.
    pub hosts: u64,
    /// How the publishing of their names stands; nothing if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Counts>,
    /// Whether it is fit to serve, and what it shares with the operating system.
    #[serde(default)]
    pub system: Box<SystemView>,
    /// How it stands with the store that boxes of the site share; nothing if this one has a store alone, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Box<StoreView>>,
    /// Other boxes of the site that know this one's contexts; nothing without `[sync]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<Box<SyncView>>,
}

/// The store that boxes of a site share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreView {
    /// Why it cannot be reached; nothing if it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<String>,
    /// Who else goes by this box's name, in words; nothing if nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_taken: Option<String>,
    /// Files that are shared (`store.share`).
    pub shared: Vec<SharedView>,
}

/// A file that boxes of a site share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SharedView {
    /// `hosts`, `policy` or `key`.
    pub name: String,
    /// Its version, which goes up by one with each change.
    pub version: u64,
    /// The box that made it so.
    pub by: String,
    /// Whether this box could not obey it, and goes on with what it had.
    pub refused: bool,
}

/// One poll-mode worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Receive queues in use, each a worker's.
    #[serde(default)]
    pub queues: u16,
    /// How the device chooses among them.
    #[serde(default)]
    pub spread: Spread,
    /// The memory node of the device and its buffers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_node: Option<u32>,
    /// Times the device told that its link changed; not all devices do.
    #[serde(default)]
    pub link_changes: u64,
    /// Times the device asked to be set up anew, and was.
    #[serde(default)]
    pub resets: u64,
}

/// How packets get to the receive queues of a port. Wherever they arrive they find their worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// There is one queue.
    #[default]
    Single,
    /// As the device or the kernel below it likes.
    Device,
    /// By a hash of the addresses, with a key of the driver's.
    Hash,
    /// By a hash of the addresses, with a key made at the start.
    KeyedHash,
}

named!(Spread: Single "single", Device "device", Hash "hash", KeyedHash "keyed-hash");

/// One provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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

/// A process that is to take the box's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpgradingView {
    /// Its process identifier.
    pub process: u32,
}

/// What the operator wants of a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryView {
    /// From hugepages, or from ordinary ones.
    pub hugepages: bool,
    /// Megabytes.
    pub megabytes: u32,
    /// Buffers for packets there are.
    #[serde(default)]
    pub buffers: u64,
    /// Those that nobody has: no device to fill, and no packet.
    #[serde(default)]
    pub buffers_free: u64,
}

/// The hosts served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostsView {
    /// In the order of the hosts file.
    pub hosts: Vec<HostView>,
    /// Hosts that are gone, and whose addresses no other host may have yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<QuarantinedView>,
}

/// What a host that is gone left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

named!(Steering: Prefer "prefer", Normal "normal", Avoid "avoid", Drain "drain");

/// Other boxes of the site that know this one's contexts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SyncView {
    /// Whether this box knows what the others know, as far as they are there.
    pub caught_up: bool,
    /// The others, in the order of the configuration.
    pub boxes: Vec<SyncBoxView>,
    /// Connections that came to no handshake.
    pub handshakes_failed: u64,
    /// Connections that ended because something came that is no message.
    pub nonsense: u64,
    /// Boxes that came and were turned away.
    pub turned_away: u64,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SyncBoxView {
    /// Of `sync.peers`.
    pub address: String,
    /// Its `box.id`, once it has said so.
    pub id: Option<u8>,
    /// Its `box.name`.
    pub name: String,
    /// Whether it hears this box.
    pub hears: bool,
    /// Whether this box hears it.
    pub heard: bool,
    /// Whether it has told everything it had when it came.
    pub caught_up: bool,
    /// Why the two do not talk, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Milliseconds since it said anything, were it that nothing has happened; none before it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heard_ms: Option<u64>,
    /// Things it has still to be told.
    pub behind: u64,
    /// Batches that it has not acknowledged.
    pub waiting: u64,
    /// Batches sent.
    pub sent: u64,
    /// Batches sent once more.
    pub resent: u64,
    /// Batches taken in.
    pub received: u64,
    /// Batches that came once more.
    pub repeated: u64,
    /// Contexts it was told of, each as often as it was.
    pub contexts_told: u64,
    /// Contexts it told of that were taken in.
    pub contexts_taken: u64,
    /// Contexts it told of of which something newer was known.
    pub contexts_older: u64,
    /// Contexts it told of that were not taken in.
    pub contexts_refused: u64,
    /// Words that found no room on the way to it.
    pub dropped: u64,
}
