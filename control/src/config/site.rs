//! What can be obeyed: the configuration after every check, with a value for everything.
//!
//! Plain data. The engine turns it into the settings of its machines; nothing here knows them.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use dataplane::natv6::PrefixPair;
use dataplane::snapshot::ClassView;
use dataplane::wire::{Locator, Ulid};

use crate::dhcp::options::PolicyRow;
use crate::dns::Name;

pub use super::bmp::Bmp;
use super::cluster::Cluster;
pub use super::manage::{Manage, Metrics};
use super::prefix::{LinkAddress, MacAddress, Prefix};
use super::publish::Publish;
pub use super::routes::{Interface, Role, Routes};
pub use super::sync::Sync;
pub use super::tls::TlsFiles;
use super::uplink::Uplink;
pub use super::web::Web;

/// One box and the site it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The box itself (`[box]`).
    pub node: Node,
    /// What DPDK's environment is started with (`[eal]`).
    pub eal: Eal,
    /// The block of identifiers (`site.prefix`), at most 64 bits long.
    pub prefix: Prefix,
    /// Blocks besides fc00::/7 whose addresses are identifiers, ours and others' (`site.identifier_blocks`).
    pub identifier_blocks: Vec<Prefix>,
    /// The /64 the hosts live in, inside `prefix` (`site.lan`).
    pub lan: Prefix,
    /// Index in `ports` of the port towards the hosts (`site.port`).
    pub lan_port: usize,
    /// The site's key pair for hybrid CGA/HBA addresses (`site.key`); without it hosts get HBA-only addresses.
    pub key: Option<PathBuf>,
    /// Security parameter of addresses made from now on, 0 to 2 (`site.sec`).
    pub sec: u8,
    /// How long the addresses of a removed host are kept from other hosts (`site.quarantine_s`).
    pub quarantine: Duration,
    /// Whether segment sizes that TCP offers are made to fit with the payload header (`site.mss_clamp`).
    pub mss_clamp: bool,
    /// In the order of the file.
    pub ports: Vec<Port>,
    /// In the order of the file; those of `uplinks` are not among them before they are resolved.
    pub providers: Vec<Provider>,
    /// Providers of which some is only known while the box runs.
    pub uplinks: Vec<Uplink>,
    /// Peers whose locators are known without DNS.
    pub peers: Vec<Peer>,
    /// Classes of traffic with contexts of their own, in the order in which a packet is held against them; the place in the
    /// list, from 1 on, is the Forked Instance Identifier. At most [`dataplane::snapshot::CLASSES_MAX`].
    pub forks: Vec<Fork>,
    /// RFC 5534's numbers (`[reap]`).
    pub reap: Reap,
    /// What besides REAP's own timers may make a context test its path (`[hints]`).
    pub hints: Hints,
    /// Liveness of paths between boxes that both want it (`[liveness]`).
    pub liveness: Option<Liveness>,
    /// RFC 5533's numbers (`[shim6]`).
    pub shim6: Shim6,
    /// Translation for peers without Shim6 (`[natv6]`); none unless it is enabled.
    pub natv6: Option<Natv6>,
    /// When a session between routable addresses gets a context (`[setup]`).
    pub setup: Setup,
    /// What clients inside are given (`[dhcp]`); none if there is no such table.
    pub dhcp: Option<Dhcp>,
    /// What hosts hear of the box as a router (`[ra]`); none if they hear nothing.
    pub advertising: Option<Advertising>,
    /// Where leases are kept (`store.file`).
    pub store: Option<PathBuf>,
    /// Where they are shared with other boxes (`store.etcd`); then the former is this box's copy.
    pub cluster: Option<Cluster>,
    /// DNS for the hosts (`[dns]`); none without upstream servers.
    pub dns: Option<Dns>,
    /// Where names are published (`[publish]`); nowhere without it.
    pub publish: Option<Publish>,
    /// Who may ask the daemon, besides by `box.control_socket` (`[manage]`).
    pub manage: Manage,
    /// What monitoring is told (`[metrics]`).
    pub metrics: Metrics,
    /// Where the web page is (`[web]`).
    pub web: Web,
    /// The router the hosts are behind (`site.router`); none if they are on the port's link, or the system's routes say so.
    pub router: Option<Ipv6Addr>,
    /// Routes of the operating system's (`[routes]`); none without them.
    pub routes: Option<Routes>,
    /// Other boxes of the site (`[sync]`); none without it.
    pub sync: Option<Sync>,
    /// What routers may tell of the providers' routes (`[bmp]`); none without it.
    pub bmp: Option<Bmp>,
}

/// What clients inside are given (`[dhcp]`). Times in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dhcp {
    /// Clients that may have an address at one time.
    pub leases_max: usize,
    /// Addresses of one client.
    pub leases_per_client: usize,
    /// Leases of clients that ask from one address.
    pub leases_per_source: usize,
    /// Leases of clients behind one relay.
    pub leases_per_relay: usize,
    /// Preferred lifetime.
    pub preferred: u32,
    /// Valid lifetime.
    pub valid: u32,
    /// Valid lifetime of a first lease when more than half of all are given.
    pub trial: u32,
    /// When clients ask for an extension.
    pub t1: u32,
    /// When they ask anybody.
    pub t2: u32,
    /// Whether a Solicit may be answered by a Reply.
    pub rapid_commit: bool,
    /// Server preference.
    pub preference: u8,
    /// DNS servers clients are told of.
    pub dns_servers: Vec<Ipv6Addr>,
    /// Domains they search.
    pub search: Vec<String>,
    /// Their policy table for address selection (RFC 7078); empty if they get none.
    pub policy: Vec<PolicyRow>,
    /// Flags A and P of that option.
    pub policy_flags: u8,
    /// Relays that are listened to; all on the link if there is none.
    pub relays: Vec<Prefix>,
    /// Clients that always have a place.
    pub reservations: Vec<crate::dhcp::Reservation>,
}

/// What hosts hear of the box as a router (`[ra]`). Times in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertising {
    /// MaxRtrAdvInterval.
    pub interval: u16,
    /// AdvDefaultLifetime; 0 for a box that is no default router.
    pub lifetime: u16,
    /// What the box is a router to (RFC 4191).
    pub routes: Vec<Prefix>,
}

/// DNS for the hosts (`[dns]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Servers to ask, those to prefer first; distinct, never empty.
    pub upstream: Vec<Ipv6Addr>,
    /// The site's own zone, in which the hosts have their names.
    pub zone: Option<Name>,
    /// Type of the ULID record.
    pub ulid_kind: u16,
    /// Answers kept.
    pub cache_entries: u32,
    /// Megabytes for them.
    pub cache_mb: u32,
    /// Questions a second that workers hand to control, in all.
    pub questions_per_s: u32,
    /// The same for one host.
    pub questions_per_host_s: u32,
    /// Milliseconds for which an answer waits for the handshake that it began.
    pub handshake_wait_ms: u32,
    /// What becomes of IPv4 addresses of names that have a CMULA, where the policy says nothing of it.
    pub a_records: ARecords,
    /// Milliseconds for which IPv4 addresses wait for the peer's first answer, before they are given.
    pub a_wait_ms: u32,
}

/// What becomes of IPv4 addresses of names that have a CMULA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ARecords {
    /// Hosts get them.
    #[default]
    Pass,
    /// Hosts do not get them while the peer answers at its CMULA.
    Withhold,
}

/// The box (`[box]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name, for people.
    pub name: String,
    /// Its number among the boxes that share its locators, 0 to 15.
    pub id: u8,
    /// Poll-mode workers, 1 to 64.
    pub workers: u8,
    /// What a worker does when nothing arrives.
    pub idle: Idle,
    /// Core of each worker, as many as `workers`; none when the system chooses.
    pub cores: Option<Vec<u16>>,
    /// Where `pshim6ctl` finds the daemon.
    pub control_socket: PathBuf,
    /// The static hosts.
    pub hosts_file: PathBuf,
    /// Which providers carry which traffic; there need not be such a file.
    pub policy_file: PathBuf,
    /// What is logged, as `tracing` filters are written: `info,control::reap=debug`.
    pub log: String,
    /// Threads that verify peers' signatures; with none the control thread does.
    pub proof_threads: u8,
    /// Contexts in all shards together.
    pub contexts_max: u32,
    /// First packets held for one pair.
    pub hold_packets: u16,
    /// Pairs with held packets at one time.
    pub hold_pairs: u32,
}

/// What a worker does when nothing arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Idle {
    /// Sleeps a little, longer the longer it is quiet: for small machines and laboratories.
    Sleep,
    /// Polls on: for a core of its own.
    Poll,
}

/// Which packets leave with a flow label for a payload header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowLabels {
    /// None, and no peer is told that it may do so.
    #[default]
    Off,
    /// Those whose host gave them no label.
    Unlabelled,
    /// All; the label of the host is lost.
    All,
}

/// Whether DPDK's memory comes from hugepages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hugepages {
    /// When there are enough, else without.
    Auto,
    /// Not even when present.
    Never,
    /// Or do not start.
    Require,
}

/// What DPDK's environment is started with (`[eal]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eal {
    /// Memory in megabytes.
    pub memory_mb: u32,
    /// Where it comes from.
    pub hugepages: Hugepages,
    /// Further arguments, handed on as they are.
    pub args: Vec<String>,
}

/// A device and our addresses on its link (`[[port]]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name in this file.
    pub name: String,
    /// What DPDK opens.
    pub device: Device,
    /// The box's own addresses there, at least one.
    pub addresses: Vec<LinkAddress>,
    /// The Ethernet address to use; none for the device's own.
    pub mac: Option<MacAddress>,
    /// The link's MTU in octets.
    pub mtu: u16,
    /// The operating system's interface there, if it shares the port.
    pub interface: Option<Interface>,
}

/// What DPDK opens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// A PCI function by its full address, `0000:3b:00.0`.
    Pci(String),
    /// A software device as `--vdev` takes it: `net_af_packet0,iface=a-x`.
    Virtual(String),
}

/// One way out (`[[provider]]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name in this file.
    pub name: String,
    /// Index in `Site::ports`; no port serves two providers or a provider and the hosts.
    pub port: usize,
    /// The /64 it delegated; one locator of every host lies in it.
    pub prefix: Prefix,
    /// The provider's router: on the port's link, or link-local.
    pub next_hop: Ipv6Addr,
    /// Lower comes first.
    pub preference: u16,
    /// All that it delegated, `prefix` among it: what addresses are translated to by prefix (`natv6.mapped`).
    pub delegated: Option<Prefix>,
    /// Whether it is to be left: another prefix has come, or this one is not preferred any more (RFC 8415).
    pub deprecated: bool,
}

/// A peer whose locators are known without DNS (`[[peer]]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// For people.
    pub name: Option<String>,
    /// What our hosts call it.
    pub ulid: Ulid,
    /// Where it can be reached; routable, distinct, never empty.
    pub locators: Vec<Locator>,
}

/// A class of traffic with contexts of its own (`[[fork]]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// For people.
    pub name: String,
    /// What its packets look like.
    pub class: ClassView,
    /// The hosts it is for; all when there are none.
    pub hosts: Vec<Prefix>,
    /// The peers it is for, by their identifiers; all when there are none.
    pub peers: Vec<Prefix>,
    /// Indexes in `Site::providers`, the one it prefers first; never empty. The others come after these.
    pub providers: Vec<usize>,
}

/// RFC 5534's numbers (`[reap]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reap {
    /// Send Timeout, also told to the peer as our Keepalive Timeout.
    pub send_timeout: Duration,
    /// Initial Probe Timeout.
    pub probe_interval: Duration,
    /// Number of Initial Probes.
    pub initial_probes: u8,
    /// Max Probe Timeout.
    pub max_probe: Duration,
    /// In which order pairs are tried.
    pub order: Order,
    /// Whether contexts have another pair tested before they need it.
    pub standby: bool,
}

/// In which order pairs are tried when one has failed (RFC 5534 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// By what other contexts know of the two ends; where they know nothing, as `Divergent`.
    Informed,
    /// What shares neither end with the failed pair comes first.
    Divergent,
    /// Preferences alone.
    Preferred,
}

/// Liveness of paths between boxes that both want it (`[liveness]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// Time between two packets on a path, each way.
    pub interval: Duration,
    /// Packets the peer waits for in vain before the path is down.
    pub multiplier: u8,
    /// Paths that are watched at one time.
    pub paths_max: u32,
    /// Packets a second on all of them, each way; with more paths the interval becomes longer.
    pub packets_per_s: u32,
}

/// What besides REAP's own timers may make a context test its path (RFC 5534 §3.3; `[hints]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hints {
    /// The link of a port goes down, or a provider's router stops answering.
    pub link: bool,
    /// ICMPv6 errors about packets of the context.
    pub icmp: bool,
    /// Retransmissions of the hosts' TCP to which nothing comes back.
    pub tcp: bool,
}

/// RFC 5533's numbers (`[shim6]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shim6 {
    /// I1_TIMEOUT.
    pub i1_timeout: Duration,
    /// I1_RETRIES_MAX.
    pub i1_retries: u8,
    /// I2_TIMEOUT.
    pub i2_timeout: Duration,
    /// I2_RETRIES_MAX.
    pub i2_retries: u8,
    /// I2bis_TIMEOUT.
    pub i2bis_timeout: Duration,
    /// I2bis_RETRIES_MAX.
    pub i2bis_retries: u8,
    /// UPDATE_TIMEOUT.
    pub update_timeout: Duration,
    /// MAX_UPDATE_TIMEOUT.
    pub max_update_timeout: Duration,
    /// NO_R1_HOLDDOWN_TIME.
    pub no_r1_holddown: Duration,
    /// ICMP_HOLDDOWN_TIME.
    pub icmp_holddown: Duration,
    /// VALIDATOR_MIN_LIFETIME.
    pub validator_lifetime: Duration,
    /// Quiet time before a context may be forgotten.
    pub idle_context: Duration,
    /// Stateless answers (R1, R1bis, R2 for I1, Error) a second, in all.
    pub answers_per_s: u32,
    /// The same for one source /64.
    pub answers_per_source_s: u32,
    /// Forked contexts of one pair before peers may ask for no more.
    pub forks_max: u16,
    /// What one /64 may have of the contexts, if its peers asked for them, in percent.
    pub accepted_per_prefix_percent: u8,
    /// What only contexts the box initiates may have, in percent.
    pub initiated_reserve_percent: u8,
    /// Control messages a second that workers hand to control, in all.
    pub messages_per_s: u32,
    /// The same for one source /64.
    pub messages_per_source_s: u32,
    /// Whether payload packets must carry locators of their context (R5533-328).
    pub strict_locators: bool,
    /// Whether, toward peers that offer the same, flow labels stand for payload headers.
    pub flow_label: FlowLabels,
    /// The port of Shim6 in UDP, toward peers that offer the same, where a path drops next header 140; none if that is not wanted.
    pub udp_port: Option<u16>,
    /// Whether peers are told that the locators of a provider that is down are broken (R5533-017).
    pub announce_down: bool,
    /// Whether hosts get the ICMPv6 errors the box acts on itself (R5533-237).
    pub icmp_errors_to_hosts: bool,
}

/// Translation for peers without Shim6 (`[natv6]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Natv6 {
    /// How long the provider of a quiet session is remembered.
    pub idle: Duration,
    /// Subnets of `Site::prefix` that are translated by prefix (RFC 6296), besides the hosts.
    pub mapped: Vec<Prefix>,
    /// The translator of each provider, in their order; none for one without `delegated`, or if nothing is mapped.
    pub pairs: Vec<Option<PrefixPair>>,
}

/// When a session that began between routable addresses gets a context (`[setup]`). Each threshold is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Whether there are thresholds at all.
    pub routable: Routable,
    /// Packets both ways.
    pub packets: Option<u32>,
    /// Octets of packets both ways.
    pub octets: Option<u64>,
    /// Time since the first packet.
    pub age: Option<Duration>,
}

/// When a session between routable addresses gets a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Routable {
    /// When it has reached a threshold.
    Deferred,
    /// With its first packet.
    Immediate,
    /// Only if the peer asks for it.
    Never,
}

impl Site {
    /// The prefixes every host's HBA set is made over, in this order: the hosts' own, then the providers'.
    pub fn hba_prefixes(&self) -> impl Iterator<Item = Prefix> + '_ {
        std::iter::once(self.lan).chain(self.providers.iter().map(|provider| provider.prefix))
    }

    /// The type of ULID records: that of `[dns]`, which peers have to know.
    pub fn ulid_kind(&self) -> u16 {
        self.dns.as_ref().map_or(crate::dns::ULID_KIND, |dns| dns.ulid_kind)
    }
}

impl Device {
    /// What DPDK calls the device: the PCI address, or a software device's name without its arguments.
    pub fn name(&self) -> &str {
        match self {
            Device::Pci(address) => address,
            Device::Virtual(text) => text.split(',').next().unwrap_or(text),
        }
    }
}
