//! Every number that can be set: its default and what is allowed, in one place.
//!
//! `docs/configuration.md` repeats this table for people; a test holds the two together.

/// What a number may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The field, with its section: `reap.send_timeout_s`.
    pub field: &'static str,
    /// What holds when the file says nothing.
    pub default: i64,
    /// The least allowed.
    pub min: i64,
    /// The most allowed.
    pub max: i64,
}

macro_rules! limits {
    ($($(#[$meta:meta])* $name:ident $field:literal $default:literal, $min:literal to $max:literal;)*) => {
        $($(#[$meta])* pub const $name: Limits =
            Limits { field: $field, default: $default, min: $min, max: $max };)*
        /// All of them, in the order of the documentation.
        pub const ALL: &[Limits] = &[$($name),*];
    };
}

limits! {
    /// The box's number among those that share its locators; four bits of every context tag.
    BOX_ID "box.id" 0, 0 to 15;
    /// Poll-mode workers.
    WORKERS "box.workers" 1, 1 to 64;
    /// Threads that verify peers' signatures.
    PROOF_THREADS "box.proof_threads" 1, 0 to 16;
    /// Contexts in all shards together.
    CONTEXTS_MAX "box.contexts_max" 65_536, 1 to 16_777_216;
    /// First packets held for one ULID pair while its context is being made; at most a burst.
    HOLD_PACKETS "box.hold.packets" 16, 1 to 32;
    /// ULID pairs that may have packets held at one time.
    HOLD_PAIRS "box.hold.pairs" 1024, 1 to 1_048_576;
    /// Memory for DPDK.
    MEMORY_MB "eal.memory_mb" 256, 64 to 1_048_576;
    /// Security parameter of the hosts' addresses (RFC 3972 §2); RFC 5535 §6 stops at 2.
    SEC "site.sec" 0, 0 to 2;
    /// How long what a removed host had is kept from other hosts: a peer keeps a context it does not use for five minutes
    /// (RFC 5533 §9), and one it does use asks for it again for up to five more (I2bis, then I1) before it gives up.
    QUARANTINE_S "site.quarantine_s" 900, 60 to 2_592_000;
    /// Link MTU: IPv6's least to jumbo frames.
    MTU "port.mtu" 1500, 1280 to 9216;
    /// R5534-103, R5534-105; below 10 a warning (R5534-104).
    SEND_TIMEOUT_S "reap.send_timeout_s" 15, 3 to 100;
    /// Initial Probe Timeout (RFC 5534 §7).
    PROBE_INTERVAL_MS "reap.probe_interval_ms" 500, 100 to 10_000;
    /// Number of Initial Probes (RFC 5534 §7).
    INITIAL_PROBES "reap.initial_probes" 4, 1 to 16;
    /// Max Probe Timeout (RFC 5534 §4.3).
    MAX_PROBE_S "reap.max_probe_s" 60, 1 to 60;
    /// bfd.DesiredMinTxInterval and bfd.RequiredMinRxInterval (RFC 5880 §6.8.1). Below ten milliseconds a worker that sleeps
    /// would be taken for a path that is cut.
    LIVENESS_INTERVAL_MS "liveness.interval_ms" 50, 10 to 10_000;
    /// bfd.DetectMult. Below three a single packet that is lost beside a late one is a failure.
    LIVENESS_MULTIPLIER "liveness.multiplier" 3, 2 to 50;
    /// Paths watched at one time.
    LIVENESS_PATHS_MAX "liveness.paths_max" 1024, 1 to 65_536;
    /// Liveness packets a second in all, each way.
    LIVENESS_PACKETS_PER_S "liveness.packets_per_s" 10_000, 20 to 1_000_000;
    /// I1_TIMEOUT (R5533-300).
    I1_TIMEOUT_MS "shim6.i1_timeout_ms" 4000, 100 to 60_000;
    /// I1_RETRIES_MAX (R5533-300).
    I1_RETRIES "shim6.i1_retries" 4, 0 to 10;
    /// I2_TIMEOUT (R5533-301).
    I2_TIMEOUT_MS "shim6.i2_timeout_ms" 4000, 100 to 60_000;
    /// I2_RETRIES_MAX (R5533-301).
    I2_RETRIES "shim6.i2_retries" 2, 0 to 10;
    /// I2bis_TIMEOUT (R5533-301).
    I2BIS_TIMEOUT_MS "shim6.i2bis_timeout_ms" 4000, 100 to 60_000;
    /// I2bis_RETRIES_MAX (R5533-301).
    I2BIS_RETRIES "shim6.i2bis_retries" 2, 0 to 10;
    /// UPDATE_TIMEOUT (R5533-302).
    UPDATE_TIMEOUT_MS "shim6.update_timeout_ms" 4000, 100 to 60_000;
    /// MAX_UPDATE_TIMEOUT (R5533-302).
    MAX_UPDATE_TIMEOUT_S "shim6.max_update_timeout_s" 120, 1 to 120;
    /// NO_R1_HOLDDOWN_TIME, a maximum (R5533-145, R5533-300).
    NO_R1_HOLDDOWN_S "shim6.no_r1_holddown_s" 60, 1 to 60;
    /// ICMP_HOLDDOWN_TIME, a maximum (R5533-147, R5533-300).
    ICMP_HOLDDOWN_S "shim6.icmp_holddown_s" 600, 1 to 600;
    /// VALIDATOR_MIN_LIFETIME, a minimum (R5533-177, R5533-302).
    VALIDATOR_LIFETIME_S "shim6.validator_lifetime_s" 30, 30 to 600;
    /// Quiet time before a context may be forgotten (RFC 5533 §9, D25).
    IDLE_CONTEXT_S "shim6.idle_context_s" 300, 300 to 604_800;
    /// Stateless answers (R1, R1bis, R2 for I1, Error) a second in all (R5533-323).
    ANSWERS_PER_S "shim6.answers_per_s" 10_000, 1 to 10_000_000;
    /// The same for one source /64 (R5533-323).
    ANSWERS_PER_SOURCE_S "shim6.answers_per_source_s" 1000, 1 to 10_000_000;
    /// Forked contexts of one pair before peers may ask for no more.
    FORKS_MAX "shim6.forks_max" 4, 0 to 65_535;
    /// What one /64 may have of the contexts, if its peers asked for them; never fewer than 64.
    ACCEPTED_PER_PREFIX_PERCENT "shim6.accepted_per_prefix_percent" 50, 1 to 100;
    /// What only contexts the box initiates may have.
    INITIATED_RESERVE_PERCENT "shim6.initiated_reserve_percent" 12, 0 to 90;
    /// The port of Shim6 in UDP; what stands opposite to it is a dynamic one (RFC 6335 §6).
    UDP_PORT "shim6.udp_port" 5533, 1 to 49_151;
    /// Control messages a second that workers hand to control, in all.
    MESSAGES_PER_S "shim6.messages_per_s" 50_000, 1 to 10_000_000;
    /// The same for one source /64.
    MESSAGES_PER_SOURCE_S "shim6.messages_per_source_s" 10_000, 1 to 10_000_000;
    /// How long the provider of a quiet session is remembered. RFC 5382 REQ-5 wants 2 hours and 4 minutes for TCP, RFC 4787
    /// REQ-5 2 minutes for UDP.
    NATV6_IDLE_S "natv6.idle_s" 7440, 120 to 604_800;
    /// How long others may remember a name of ours. Short: a provider that is gone is gone.
    PUBLISH_TTL_S "publish.ttl_s" 60, 0 to 86_400;
    /// Packets that make a session worth a context; RFC 5533 §4 names 50.
    SETUP_PACKETS "setup.packets" 50, 0 to 4_294_967_295;
    /// The same in octets. Off: packets are counted, and fifty of any size are reached before long.
    SETUP_OCTETS "setup.octets" 0, 0 to 1_099_511_627_776;
    /// The same in time: a quiet session that lasts has more to lose than its few packets tell.
    SETUP_AGE_S "setup.age_s" 30, 0 to 86_400;
    /// Metric of the operating system's routes; 200 where `routes.role` is "backup". zebra reads a distance in the upper octet.
    ROUTES_METRIC "routes.metric" 100, 1 to 16_777_215;
    /// How long the box forwards on after its routes are gone: what routing protocols need to hear of it.
    ROUTES_LINGER_MS "routes.linger_ms" 1000, 0 to 10_000;
    /// How long a box that begins announces itself to providers alone.
    ROUTES_INSIDE_AFTER_MS "routes.inside_after_ms" 3000, 0 to 60_000;
    /// Packets a second for the operating system, by each port.
    ROUTES_PACKETS_PER_S "routes.packets_per_s" 10_000, 10 to 1_000_000;
    /// Clients with an address at one time.
    DHCP_LEASES_MAX "dhcp.leases_max" 4096, 1 to 65_536;
    /// Addresses of one client.
    DHCP_LEASES_PER_CLIENT "dhcp.leases_per_client" 4, 1 to 64;
    /// Leases of clients that ask from one address of the link.
    DHCP_LEASES_PER_SOURCE "dhcp.leases_per_source" 16, 1 to 65_536;
    /// Leases of clients behind one relay.
    DHCP_LEASES_PER_RELAY "dhcp.leases_per_relay" 2048, 1 to 65_536;
    /// Preferred lifetime.
    DHCP_PREFERRED_S "dhcp.preferred_s" 43_200, 30 to 31_536_000;
    /// Valid lifetime.
    DHCP_VALID_S "dhcp.valid_s" 86_400, 60 to 31_536_000;
    /// Valid lifetime of a first lease when more than half of all are given.
    DHCP_TRIAL_S "dhcp.trial_s" 600, 60 to 86_400;
    /// T1; 0 for half of the preferred lifetime (RFC 8415 §21.4).
    DHCP_T1_S "dhcp.t1_s" 0, 0 to 31_536_000;
    /// T2; 0 for four fifths of it.
    DHCP_T2_S "dhcp.t2_s" 0, 0 to 31_536_000;
    /// Server preference (RFC 8415 §18.3.9).
    DHCP_PREFERENCE "dhcp.preference" 0, 0 to 255;
    /// MaxRtrAdvInterval (RFC 4861 §6.2.1).
    RA_INTERVAL_S "ra.interval_s" 600, 4 to 1800;
    /// AdvDefaultLifetime (RFC 4861 §6.2.1).
    RA_LIFETIME_S "ra.lifetime_s" 1800, 0 to 9000;
    /// Type of the ULID record: those for private use (RFC 6895 §3.1).
    DNS_ULID_TYPE "dns.ulid_type" 65_280, 65_280 to 65_534;
    /// Answers kept.
    DNS_CACHE_ENTRIES "dns.cache_entries" 65_536, 16 to 16_777_216;
    /// Memory for them.
    DNS_CACHE_MB "dns.cache_mb" 64, 1 to 65_536;
    /// Questions of hosts a second that workers hand to control, in all.
    DNS_QUESTIONS_PER_S "dns.questions_per_s" 100_000, 10 to 100_000_000;
    /// The same for one host.
    DNS_QUESTIONS_PER_HOST_S "dns.questions_per_host_s" 5_000, 10 to 100_000_000;
    /// Length of the prefix a provider is asked for.
    PROVIDER_HINT "provider.hint" 0, 0 to 64;
    /// Which /64 of a delegated prefix is used.
    PROVIDER_SUBNET "provider.subnet" 0, 0 to 4_294_967_295;
    /// How long IPv4 addresses wait for the peer's first answer; stub resolvers ask again after five seconds.
    DNS_A_WAIT_MS "dns.a_wait_ms" 1_000, 0 to 4_000;
    /// How long an answer waits for the handshake it began; less than RFC 8305's Resolution Delay.
    DNS_HANDSHAKE_WAIT_MS "dns.handshake_wait_ms" 40, 0 to 2_000;
    /// Paths of which monitoring gets figures of their own.
    METRICS_PATHS "metrics.paths" 256, 0 to 10_000;
    /// How long a box that begins waits for the others of its site.
    SYNC_WAIT_S "sync.wait_s" 10, 0 to 600;
    /// After how long a silence what a router said of routes does not count; longer than the time between its statistics.
    BMP_STALL_S "bmp.stall_s" 300, 0 to 86_400;
    /// Routers connected at one time.
    BMP_ROUTERS_MAX "bmp.routers_max" 16, 1 to 1024;
    /// Routes of one session: ten times what the whole of IPv6 has in 2026.
    BMP_ROUTES_MAX "bmp.routes_max" 2_000_000, 1000 to 100_000_000;
}

/// Most providers of a site: with the site's own prefix sixteen prefixes in an HBA set, whose parameters and locator
/// list still fit one control message of 1280 octets (RFC 5533 §5.1).
pub const PROVIDERS_MAX: usize = 15;

/// Most entries of a list that says what packets of a class look like, or whom the class is for.
pub const CLASS_ENTRIES_MAX: usize = 16;

/// Most locators of a static peer.
pub const PEER_LOCATORS_MAX: usize = 32;

/// A Send Timeout under this is warned about (R5534-104).
pub const SEND_TIMEOUT_ADVISED_S: i64 = 10;

/// Longest path of a Unix socket, less room for the suffix it is made under.
pub const SOCKET_PATH_OCTETS_MAX: usize = 100;

/// The control socket when the file names none.
pub const CONTROL_SOCKET: &str = "/run/pshim6/control.sock";

/// The hosts file when the configuration names none, beside the configuration.
pub const HOSTS_FILE: &str = "hosts.json";
/// `box.policy_file`, beside `site.toml`.
pub const POLICY_FILE: &str = "policy.json";

/// The log filter when the file gives none.
pub const LOG: &str = "info";

#[cfg(test)]
mod tests {
    use super::*;

    // R5533-300, R5533-301, R5533-302, R5534-103: the protocols' own numbers are the defaults.
    #[test]
    fn defaults_are_those_of_the_rfcs() {
        assert_eq!((I1_TIMEOUT_MS.default, I1_RETRIES.default), (4000, 4));
        assert_eq!((I2_TIMEOUT_MS.default, I2_RETRIES.default), (4000, 2));
        assert_eq!((I2BIS_TIMEOUT_MS.default, I2BIS_RETRIES.default), (4000, 2));
        assert_eq!((UPDATE_TIMEOUT_MS.default, MAX_UPDATE_TIMEOUT_S.default), (4000, 120));
        assert_eq!((NO_R1_HOLDDOWN_S.default, ICMP_HOLDDOWN_S.default), (60, 600));
        assert_eq!((NO_R1_HOLDDOWN_S.max, ICMP_HOLDDOWN_S.max), (60, 600));
        assert_eq!((VALIDATOR_LIFETIME_S.default, VALIDATOR_LIFETIME_S.min), (30, 30));
        assert_eq!((SEND_TIMEOUT_S.default, SEND_TIMEOUT_S.max), (15, 100));
        assert_eq!((PROBE_INTERVAL_MS.default, INITIAL_PROBES.default, MAX_PROBE_S.default), (500, 4, 60));
    }

    #[test]
    fn every_default_is_allowed() {
        for limits in ALL {
            assert!((limits.min..=limits.max).contains(&limits.default), "{limits:?}");
        }
    }

    #[test]
    fn the_documentation_says_the_same() {
        let page = include_str!("../../../docs/configuration.md");
        for Limits { field, default, min, max } in ALL {
            let (section, name) = field.split_once('.').unwrap();
            let chapter = page
                .split("\n## ")
                .find(|chapter| {
                    chapter.starts_with(&format!("`[{section}]`")) || chapter.starts_with(&format!("`[[{section}]]`"))
                })
                .unwrap_or_else(|| panic!("no chapter for {section}"));
            let row = format!("| `{name}` | {default} | {min} to {max} |");
            assert!(chapter.contains(&row), "docs/configuration.md lacks: {row}");
        }
    }
}
