//! What the TOML said: every field optional, every value with its place, unknown fields refused.
//!
//! Each table is read by itself, and read again without the offending key after an error, so that one run of
//! `pshim6ctl check` names everything that is wrong and not just the first of it.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use super::bmp::View;
use super::documents::Share;
use super::routes::Role;
use super::site::{ARecords, FlowLabels, Hugepages, Idle, Order, Routable};
use super::source::{Source, remove_at};

type Text = Option<Spanned<String>>;
type Number = Option<Spanned<i64>>;
type Texts = Option<Spanned<Vec<Spanned<String>>>>;

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct SiteFile {
    pub(super) node: Section<NodeSection>,
    pub(super) eal: Section<EalSection>,
    pub(super) site: Section<SiteSection>,
    pub(super) ports: Vec<Spanned<PortSection>>,
    pub(super) providers: Vec<Spanned<ProviderSection>>,
    pub(super) peers: Vec<Spanned<PeerSection>>,
    pub(super) forks: Vec<Spanned<ForkSection>>,
    pub(super) reap: Section<ReapSection>,
    pub(super) hints: Section<HintsSection>,
    pub(super) liveness: Section<LivenessSection>,
    pub(super) shim6: Section<Shim6Section>,
    pub(super) natv6: Section<Natv6Section>,
    pub(super) setup: Section<SetupSection>,
    pub(super) dhcp: Section<DhcpSection>,
    pub(super) ra: Section<RaSection>,
    pub(super) store: Section<StoreSection>,
    pub(super) dns: Section<DnsSection>,
    pub(super) publish: Section<PublishSection>,
    pub(super) manage: Section<ManageSection>,
    pub(super) metrics: Section<MetricsSection>,
    pub(super) web: Section<WebSection>,
    pub(super) routes: Section<RoutesSection>,
    pub(super) sync: Section<SyncSection>,
    pub(super) bmp: Section<BmpSection>,
}

/// A table that stands in the file once or not at all.
type Section<T> = Option<Spanned<T>>;

/// `[box]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeSection {
    pub(super) name: Text,
    pub(super) id: Number,
    pub(super) workers: Number,
    pub(super) idle: Option<Idle>,
    pub(super) cores: Option<Spanned<Vec<Spanned<i64>>>>,
    pub(super) control_socket: Text,
    pub(super) hosts_file: Text,
    pub(super) policy_file: Text,
    pub(super) log: Text,
    pub(super) proof_threads: Number,
    pub(super) contexts_max: Number,
    pub(super) hold: Option<HoldSection>,
}

/// `box.hold`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HoldSection {
    pub(super) packets: Number,
    pub(super) pairs: Number,
}

/// `[eal]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EalSection {
    pub(super) memory_mb: Number,
    pub(super) hugepages: Option<Hugepages>,
    pub(super) args: Option<Vec<String>>,
}

/// `[site]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteSection {
    pub(super) prefix: Text,
    pub(super) lan: Text,
    pub(super) port: Text,
    pub(super) key: Text,
    pub(super) sec: Number,
    pub(super) quarantine_s: Number,
    pub(super) mss_clamp: Option<bool>,
    pub(super) identifier_blocks: Texts,
    pub(super) router: Text,
}

/// `[[port]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortSection {
    pub(super) name: Text,
    pub(super) device: Text,
    pub(super) addresses: Texts,
    pub(super) mac: Text,
    pub(super) mtu: Number,
    pub(super) interface: Text,
    pub(super) interface_addresses: Texts,
}

/// `[[provider]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderSection {
    pub(super) name: Text,
    pub(super) port: Text,
    pub(super) prefix: Text,
    pub(super) next_hop: Text,
    pub(super) preference: Number,
    pub(super) delegated: Text,
    pub(super) hint: Number,
    pub(super) subnet: Number,
    pub(super) rapid_commit: Option<bool>,
}

/// `[[peer]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PeerSection {
    pub(super) name: Text,
    pub(super) ulid: Text,
    pub(super) locators: Texts,
}

/// `[[fork]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ForkSection {
    pub(super) name: Text,
    pub(super) dscp: Texts,
    pub(super) protocol: Text,
    pub(super) ports: Texts,
    pub(super) source_ports: Texts,
    pub(super) target_ports: Texts,
    pub(super) hosts: Texts,
    pub(super) peers: Texts,
    pub(super) providers: Texts,
}

/// `[dns]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DnsSection {
    pub(super) upstream: Texts,
    pub(super) zone: Text,
    pub(super) ulid_type: Number,
    pub(super) cache_entries: Number,
    pub(super) cache_mb: Number,
    pub(super) questions_per_s: Number,
    pub(super) questions_per_host_s: Number,
    pub(super) handshake_wait_ms: Number,
    pub(super) a_records: Option<ARecords>,
    pub(super) a_wait_ms: Number,
}

/// `[reap]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReapSection {
    pub(super) send_timeout_s: Number,
    pub(super) probe_interval_ms: Number,
    pub(super) initial_probes: Number,
    pub(super) max_probe_s: Number,
    pub(super) order: Option<Order>,
    pub(super) standby: Option<bool>,
}

/// `[liveness]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LivenessSection {
    pub(super) enabled: Option<bool>,
    pub(super) interval_ms: Number,
    pub(super) multiplier: Number,
    pub(super) paths_max: Number,
    pub(super) packets_per_s: Number,
}

/// `[hints]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HintsSection {
    pub(super) link: Option<bool>,
    pub(super) icmp: Option<bool>,
    pub(super) tcp: Option<bool>,
}

/// `[shim6]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shim6Section {
    pub(super) i1_timeout_ms: Number,
    pub(super) i1_retries: Number,
    pub(super) i2_timeout_ms: Number,
    pub(super) i2_retries: Number,
    pub(super) i2bis_timeout_ms: Number,
    pub(super) i2bis_retries: Number,
    pub(super) update_timeout_ms: Number,
    pub(super) max_update_timeout_s: Number,
    pub(super) no_r1_holddown_s: Number,
    pub(super) icmp_holddown_s: Number,
    pub(super) validator_lifetime_s: Number,
    pub(super) idle_context_s: Number,
    pub(super) answers_per_s: Number,
    pub(super) answers_per_source_s: Number,
    pub(super) forks_max: Number,
    pub(super) accepted_per_prefix_percent: Number,
    pub(super) initiated_reserve_percent: Number,
    pub(super) messages_per_s: Number,
    pub(super) messages_per_source_s: Number,
    pub(super) strict_locators: Option<bool>,
    pub(super) flow_label: Option<FlowLabels>,
    pub(super) udp_encapsulation: Option<bool>,
    pub(super) udp_port: Number,
    pub(super) announce_down: Option<bool>,
    pub(super) icmp_errors_to_hosts: Option<bool>,
}

/// `[natv6]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Natv6Section {
    pub(super) enabled: Option<bool>,
    pub(super) idle_s: Number,
    pub(super) mapped: Texts,
    pub(super) rewrite_interfaces: Option<bool>,
}

/// `[setup]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetupSection {
    pub(super) routable: Option<Routable>,
    pub(super) packets: Number,
    pub(super) octets: Number,
    pub(super) age_s: Number,
}

/// `[dhcp]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DhcpSection {
    pub(super) leases_max: Number,
    pub(super) leases_per_client: Number,
    pub(super) leases_per_source: Number,
    pub(super) leases_per_relay: Number,
    pub(super) preferred_s: Number,
    pub(super) valid_s: Number,
    pub(super) trial_s: Number,
    pub(super) t1_s: Number,
    pub(super) t2_s: Number,
    pub(super) rapid_commit: Option<bool>,
    pub(super) preference: Number,
    pub(super) dns_servers: Texts,
    pub(super) search: Texts,
    pub(super) prefer: Text,
    pub(super) selection: Option<Vec<Spanned<SelectionSection>>>,
    pub(super) selection_automatic: Option<bool>,
    pub(super) selection_privacy: Option<bool>,
    pub(super) relays: Texts,
    pub(super) reservation: Option<Vec<Spanned<ReservationSection>>>,
}

/// `[[dhcp.selection]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SelectionSection {
    pub(super) prefix: Text,
    pub(super) precedence: Number,
    pub(super) label: Number,
}

/// `[[dhcp.reservation]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReservationSection {
    pub(super) duid: Text,
    pub(super) iaid: Number,
    pub(super) name: Text,
}

/// `[ra]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RaSection {
    pub(super) interval_s: Number,
    pub(super) lifetime_s: Number,
    pub(super) routes: Texts,
}

/// `[store]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreSection {
    pub(super) file: Text,
    pub(super) etcd: Texts,
    pub(super) prefix: Text,
    pub(super) ca: Text,
    pub(super) certificate: Text,
    pub(super) key: Text,
    pub(super) user: Text,
    pub(super) password_file: Text,
    pub(super) share: Option<Spanned<Vec<Spanned<Share>>>>,
    pub(super) wrap_key: Text,
}

/// `[publish]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishSection {
    pub(super) servers: Texts,
    pub(super) zone: Text,
    pub(super) reverse: Text,
    pub(super) key: Text,
    pub(super) ttl_s: Number,
}

/// `[manage]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ManageSection {
    pub(super) mode: Text,
    pub(super) group: Text,
    pub(super) read_socket: Text,
    pub(super) read_mode: Text,
    pub(super) read_group: Text,
    pub(super) listen: Text,
    pub(super) certificate: Text,
    pub(super) key: Text,
    pub(super) clients_read_ca: Text,
    pub(super) clients_operator_ca: Text,
}

/// `[web]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebSection {
    pub(super) listen: Text,
    pub(super) over_tls: Option<Spanned<bool>>,
}

/// `[routes]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoutesSection {
    pub(super) enabled: Option<bool>,
    pub(super) role: Option<Role>,
    pub(super) metric: Number,
    pub(super) inside: Texts,
    pub(super) linger_ms: Number,
    pub(super) inside_after_ms: Number,
    pub(super) packets_per_s: Number,
}

/// `[metrics]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricsSection {
    pub(super) listen: Text,
    pub(super) paths: Number,
}

/// `[sync]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SyncSection {
    pub(super) listen: Text,
    pub(super) peers: Texts,
    pub(super) certificate: Text,
    pub(super) key: Text,
    pub(super) ca: Text,
    pub(super) secret: Text,
    pub(super) wait_s: Number,
}

/// `[bmp]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BmpSection {
    pub(super) listen: Text,
    pub(super) certificate: Text,
    pub(super) key: Text,
    pub(super) clients_ca: Text,
    pub(super) plain: Option<Spanned<bool>>,
    pub(super) from: Texts,
    pub(super) view: Option<View>,
    pub(super) stall_s: Number,
    pub(super) routers_max: Number,
    pub(super) routes_max: Number,
    pub(super) source: Option<Vec<Spanned<BmpSourceSection>>>,
}

/// `[[bmp.source]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BmpSourceSection {
    pub(super) provider: Text,
    pub(super) peer: Text,
    pub(super) asn: Number,
    pub(super) router: Text,
    pub(super) complete: Option<bool>,
    pub(super) default_route: Option<bool>,
}

const SECTIONS: &str = "[box], [eal], [site], [[port]], [[provider]], [[peer]], [[fork]], [reap], [liveness], [hints], \
                        [shim6], [natv6], [setup], [dns], [publish], [dhcp], [ra], [store], [manage], [metrics], [web], [routes], \
                        [sync], [bmp]";

impl SiteFile {
    /// The file's fields; what cannot be read is noted in `source` and left out.
    pub(super) fn read(source: &mut Source<'_>) -> SiteFile {
        let mut file = SiteFile::default();
        for (key, value) in source.tree().clone() {
            match key.get_ref().as_ref() {
                "box" => file.node = one(source, "box", value),
                "eal" => file.eal = one(source, "eal", value),
                "site" => file.site = one(source, "site", value),
                "port" => file.ports = many(source, "port", value),
                "provider" => file.providers = many(source, "provider", value),
                "peer" => file.peers = many(source, "peer", value),
                "fork" => file.forks = many(source, "fork", value),
                "reap" => file.reap = one(source, "reap", value),
                "liveness" => file.liveness = one(source, "liveness", value),
                "hints" => file.hints = one(source, "hints", value),
                "shim6" => file.shim6 = one(source, "shim6", value),
                "natv6" => file.natv6 = one(source, "natv6", value),
                "setup" => file.setup = one(source, "setup", value),
                "dhcp" => file.dhcp = one(source, "dhcp", value),
                "ra" => file.ra = one(source, "ra", value),
                "store" => file.store = one(source, "store", value),
                "dns" => file.dns = one(source, "dns", value),
                "publish" => file.publish = one(source, "publish", value),
                "manage" => file.manage = one(source, "manage", value),
                "metrics" => file.metrics = one(source, "metrics", value),
                "web" => file.web = one(source, "web", value),
                "routes" => file.routes = one(source, "routes", value),
                "sync" => file.sync = one(source, "sync", value),
                "bmp" => file.bmp = one(source, "bmp", value),
                unknown => {
                    source.problem_at(&key.span(), unknown.to_string(), format!("unknown; expected one of {SECTIONS}"));
                }
            }
        }
        file
    }
}

/// A table.
fn one<T: DeserializeOwned + Default>(source: &mut Source<'_>, name: &str, value: Spanned<DeValue<'_>>) -> Section<T> {
    let span = value.span();
    let mut table = match value.into_inner() {
        DeValue::Table(table) => table,
        DeValue::Array(_) => {
            source.problem_at(&span, name.to_string(), format!("stands once only, as [{name}]"));
            return None;
        }
        _ => {
            source.problem_at(&span, name.to_string(), "is a table, not a value");
            return None;
        }
    };
    loop {
        let value = Spanned::new(span.clone(), DeValue::Table(table.clone()));
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(section) => return Some(Spanned::new(span, section)),
            Err(error) => {
                let place = error.span().unwrap_or_else(|| span.clone());
                source.problem(&place, error.message());
                if !remove_at(&mut table, &place) {
                    return Some(Spanned::new(span, T::default()));
                }
            }
        }
    }
}

/// An array of tables.
fn many<T: DeserializeOwned + Default>(
    source: &mut Source<'_>,
    name: &str,
    value: Spanned<DeValue<'_>>,
) -> Vec<Spanned<T>> {
    let span = value.span();
    match value.into_inner() {
        DeValue::Array(array) => array
            .into_iter()
            .enumerate()
            .filter_map(|(index, entry)| one(source, &format!("{name}[{index}]"), entry))
            .collect(),
        _ => {
            source.problem_at(&span, name.to_string(), format!("is written [[{name}]], once for each"));
            Vec::new()
        }
    }
}
