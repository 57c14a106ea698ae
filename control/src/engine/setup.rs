//! What the configuration makes of the engine at the start.

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;

use dataplane::bucket::TokenBucket;
use dataplane::context::{GUESTS_MAX, Hasher, LabelMode, Sharding};
use dataplane::snapshot::{Block, PortId, PortView, ProviderView, Role, Snapshot};
use dataplane::wire::Ulid;
use dataplane::wire::ethernet::Mac;
use dataplane::worker::Limits;
use hashbrown::{HashMap, HashSet};
use rand::Rng;

use super::carriage::Carriages;
use super::standby::Standbys;
use super::watches::Watches;
use super::{Effect, Engine, Keys, Provider, Revival, Round, Tally};
use crate::config::routes::PACKETS_PER_S;
use crate::config::site::FlowLabels;
use crate::config::{Hosts, Site, site};
use crate::host::{Listener, Neighbours, OwnLink, Stack};
use crate::manage::api::Steering;
use crate::reap::{self, BookConfig, PathBook, ProbeBudget, Sightings};
use crate::shim6::{self, Endpoint, HostRefused, IdentityProof, ProofMemory, Rate, RatePair, ShardOf, TagSpace};
use crate::time::Instant;
use crate::wheel::Wheel;

/// What a device told about itself when it was opened; in the order of the ports.
#[derive(Clone, Copy, Debug)]
pub struct PortSetup {
    /// The link-layer address in use.
    pub mac: Mac,
    /// The largest IPv6 packet it carries.
    pub mtu: u16,
}

/// Why an engine cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A host whose locators the endpoint does not take.
    #[error("host {name}: {reason}")]
    Host {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: HostRefused,
    },
    /// A host that wants an address of another one, which is gone since too short a time, or goes only now.
    #[error(
        "host {name}: {address} belongs to another host, that with the identifier {of}; once that is removed, it is kept \
         from others for a while, {seconds} s from now (site.quarantine_s)"
    )]
    Quarantined {
        /// Its name.
        name: String,
        /// The address.
        address: Ipv6Addr,
        /// Whose it is or was.
        of: Ulid,
        /// For how long.
        seconds: u64,
    },
    /// More than the dataplane can number.
    #[error("at most {0} providers and ports")]
    TooMany(usize),
}

/// Most ports and providers.
pub(super) const PORTS_MAX: usize = 64;
/// Probes of all contexts together, per second (RFC 5534 §9 estimates one per context at the worst time).
const PROBES_PER_S: u32 = 5_000;
/// Contexts that hear of changed locators or preferences, per second.
const UPDATES_PER_S: u32 = 5_000;
/// ICMPv6 errors about packets whose next hop does not answer, per second.
const ERRORS_PER_S: u32 = 100;

impl Engine {
    /// An engine for one site. `ports` is in the order of the site's. Nothing is sent before [`Engine::start`].
    pub fn new(site: &Site, hosts: &Hosts, ports: &[PortSetup], rng: &mut dyn Rng) -> Result<Engine, SetupError> {
        let keys = Keys::draw(rng);
        Engine::with_keys(site, hosts, ports, keys, rng)
    }

    /// The same for an engine that takes the place of another: with its keys.
    pub fn with_keys(
        site: &Site,
        hosts: &Hosts,
        ports: &[PortSetup],
        keys: Keys,
        rng: &mut dyn Rng,
    ) -> Result<Engine, SetupError> {
        if site.ports.len() > PORTS_MAX || site.providers.len() > PORTS_MAX {
            return Err(SetupError::TooMany(PORTS_MAX));
        }
        let sharding = Sharding::new(Hasher::new(keys.sharding), site.node.workers);
        let shard_of: ShardOf = Box::new(move |ulids| sharding.owner_of_pair(&ulids));
        let tags = TagSpace::new(site.node.id).with_slots(worker_limits(site).contexts);
        let proof = Box::new(ProofMemory::new(IdentityProof));
        let mut endpoint = Endpoint::new(shim6_config(site), keys.secret, tags, shard_of, proof);
        endpoint.set_inside(inside(site));
        let own: Vec<Vec<(Ipv6Addr, u8)>> =
            site.ports.iter().zip(ports).map(|(port, setup)| own(port, setup)).collect();
        let links: Vec<OwnLink> = ports
            .iter()
            .zip(&own)
            .map(|(setup, own)| OwnLink { mac: setup.mac, own: own.iter().map(|(address, _)| *address).collect() })
            .collect();
        let stacks = ports.iter().zip(&own).map(|(setup, own)| Stack::new(own, setup.mtu, rng.next_u64())).collect();
        let on_link =
            |own: &Vec<(Ipv6Addr, u8)>| own.iter().map(|(address, length)| Block::new(*address, *length)).collect();
        let mut engine = Engine {
            sharding,
            workers: usize::from(site.node.workers.max(1)),
            strict: site.shim6.strict_locators,
            icmp_errors_to_hosts: site.shim6.icmp_errors_to_hosts,
            snapshot: Arc::new(snapshot(site, ports, &own)),
            providers: site.providers.iter().map(provider).collect(),
            lan_port: PortId(site.lan_port as u8),
            lan_addresses: links.get(site.lan_port).map(|link| link.own.clone()).unwrap_or_default(),
            identifiers: super::names::blocks(site),
            uplinks: super::uplinks::Uplinks::of(site),
            leased: HashSet::new(),
            leases: None,
            advertiser: None,
            served: HashMap::new(),
            key: None,
            free_places: Vec::new(),
            quarantine: site.quarantine,
            peers: super::peers::Peers::default(),
            names: super::names::Names::of(site).map(Box::new),
            classes: Vec::new(),
            forks_configured: Vec::new(),
            endpoint,
            attached: super::Attachments::default(),
            reap_config: Arc::new(reap_config(site)),
            hints: site.hints,
            book: PathBook::new(BookConfig::default()),
            sightings: Sightings::default(),
            revival: Revival::default(),
            steered: None,
            unix: None,
            goals: super::goal::Goals::default(),
            standbys: Standbys::new(site.reap.standby),
            carriages: Carriages::new(site.shim6.udp_port),
            watches: Watches::new(site),
            routes: Default::default(),
            budget: ProbeBudget::new(PROBES_PER_S, PROBES_PER_S / 10),
            due: Wheel::default(),
            waiting: VecDeque::new(),
            wakes: BinaryHeap::new(),
            mapped: Vec::new(),
            prefix_pairs: HashMap::new(),
            failing_check: None,
            listener: Listener::new(&links, |at| role(site, at) != Role::Unused),
            transitions: BTreeMap::new(),
            lists_due: None,
            round: Round::default(),
            ending: None,
            news_budget: ProbeBudget::new(UPDATES_PER_S, UPDATES_PER_S / 10),
            stays: BinaryHeap::new(),
            announce_down: site.shim6.announce_down,
            advise_at: None,
            neighbours: Neighbours::new(links),
            links: own.iter().map(on_link).collect(),
            stacks,
            errors: TokenBucket::new(ERRORS_PER_S, ERRORS_PER_S / 5),
            publisher: None,
            tally: Tally::default(),
            durations: Default::default(),
            outputs: Vec::new(),
            keys,
            signed: None,
            bequest: None,
            inheritance: Default::default(),
            inner: Default::default(),
            fitness: super::fitness::Fitness::of(site),
            mirrors: None,
        };
        engine.endpoint.reserve(site.node.contexts_max as usize);
        engine.set_natv6(site);
        engine.set_peers(site);
        engine.set_classes(site);
        engine.configure_inner_router(Instant::START, site.router, &mut Vec::new());
        engine.set_hosts(hosts, rng)?;
        engine.prepare_advertising(site);
        engine.renew_nat();
        engine.begin_names();
        Ok(engine)
    }

    /// Begins to look for the providers' routers, says which groups the box listens to, and gives the workers their first snapshot.
    pub fn start(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let routers: Vec<_> = self.providers.iter().map(|provider| (provider.port, provider.next_hop)).collect();
        for (port, next_hop) in routers {
            self.neighbours.want(now, port, next_hop);
        }
        self.listener.start(now);
        if let Some(advertiser) = &mut self.advertiser {
            advertiser.start(now);
        }
        effects.push(Effect::Publish(self.snapshot.clone()));
    }

    pub(super) fn set_peers(&mut self, site: &Site) {
        self.peers.configure(site.peers.iter().map(|peer| (peer.ulid, peer.locators.clone())));
        self.note_identifiers();
    }
}

/// Bounds and rates of each of a site's workers.
pub fn worker_limits(site: &Site) -> Limits {
    let workers = u32::from(site.node.workers.max(1));
    // Hashes do not spread contexts evenly, so of several workers each has room for more than its share.
    let contexts = site.node.contexts_max.div_ceil(workers).saturating_mul(if workers > 1 { 2 } else { 1 });
    Limits {
        contexts,
        guests: if workers > 1 { contexts.min(GUESTS_MAX) } else { 0 },
        hold_pairs: site.node.hold_pairs.div_ceil(workers).max(1) as usize,
        hold_depth: usize::from(site.node.hold_packets),
        punts_per_second: site.shim6.messages_per_s,
        punts_per_source_second: site.shim6.messages_per_source_s,
        strict_locators: site.shim6.strict_locators,
        udp: site.shim6.udp_port.is_some(),
        flow_labels: match site.shim6.flow_label {
            FlowLabels::Off => LabelMode::Off,
            FlowLabels::Unlabelled => LabelMode::Unlabelled,
            FlowLabels::All => LabelMode::All,
        },
        tcp_hints: site.hints.tcp,
        // Workers share the total; a host's packets may all be at one of them.
        questions_per_second: site.dns.as_ref().map_or(0, |dns| dns.questions_per_s.div_ceil(workers)),
        questions_per_host_second: site.dns.as_ref().map_or(0, |dns| dns.questions_per_host_s),
        standbys: site.reap.standby,
        system_per_second: site.routes.as_ref().map_or(PACKETS_PER_S, |it| it.packets_per_s).div_ceil(workers),
        ..Limits::default()
    }
}

pub(super) fn provider(provider: &site::Provider) -> Provider {
    Provider {
        name: provider.name.clone(),
        port: PortId(provider.port as u8),
        prefix: u64::from_be_bytes(provider.prefix.high_half()),
        next_hop: provider.next_hop,
        preference: provider.preference,
        router: false,
        link: true,
        failing: false,
        steering: Steering::Normal,
        told_down: false,
        drained: false,
        up_since: None,
        deprecated: provider.deprecated,
        leaving: None,
    }
}

/// The box's addresses on a port: those configured, and a link-local one made from the link-layer address if none is.
fn own(port: &site::Port, setup: &PortSetup) -> Vec<(Ipv6Addr, u8)> {
    let mut own: Vec<_> = port.addresses.iter().map(|own| (own.address, own.length)).collect();
    if !own.iter().any(|(address, _)| address.segments()[0] & 0xffc0 == 0xfe80) {
        let Mac([a, b, c, d, e, f]) = setup.mac;
        // RFC 4291 Appendix A.
        let octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        own.push((Ipv6Addr::from(octets), 64));
    }
    own
}

/// What is behind a port, by its place in the configuration.
fn role(site: &Site, at: usize) -> Role {
    let provider = site.providers.iter().any(|provider| provider.port == at);
    role_of(at == site.lan_port, provider || site.uplinks.iter().any(|uplink| uplink.port == at))
}

pub(super) fn role_of(hosts: bool, providers: bool) -> Role {
    match (hosts, providers) {
        (true, _) => Role::Site,
        (false, true) => Role::Provider,
        (false, false) => Role::Unused,
    }
}

fn snapshot(site: &Site, ports: &[PortSetup], own: &[Vec<(Ipv6Addr, u8)>]) -> Snapshot {
    let addresses = |own: &Vec<(Ipv6Addr, u8)>| own.iter().map(|(address, _)| *address).collect::<Vec<Ipv6Addr>>();
    let own = own.iter().map(addresses);
    let shared = super::system::shared(site);
    let views = ports.iter().zip(own).enumerate().map(|(at, (setup, own))| {
        let icmp_source = Ipv6Addr::UNSPECIFIED;
        let system = shared.get(at).is_some_and(|shared| *shared).then(Vec::new);
        PortView { role: role(site, at), mac: setup.mac, mtu: setup.mtu, own, icmp_source, system }
    });
    let mut ports: Vec<PortView> = views.collect();
    icmp_sources(&mut ports);
    let providers = site.providers.iter().map(provider).map(|provider| ProviderView {
        port: provider.port,
        prefix: provider.prefix,
        next_hop: provider.next_hop,
        mac: None,
    });
    Snapshot {
        ports,
        providers: providers.collect(),
        hosts: Vec::new(),
        host_index: std::collections::HashMap::new(),
        site: Block::new(site.prefix.address(), site.prefix.length()),
        mss_clamp: site.mss_clamp,
        arrivals: false,
        classes: Vec::new(),
        name_servers: site.dns.as_ref().map_or(Vec::new(), |dns| dns.upstream.clone()),
        udp_port: site.shim6.udp_port,
        nat: super::natv6::view(site).map(Arc::new),
    }
}

/// Gives every port its source of ICMPv6 errors.
pub(super) fn icmp_sources(ports: &mut [PortView]) {
    let outer = ports.iter().filter(|port| port.role == Role::Provider);
    let lenders: Vec<Ipv6Addr> = outer.flat_map(|port| port.own.iter().copied()).collect();
    for port in ports {
        port.icmp_source = icmp_source(port.role, &port.own, &lenders);
    }
}

/// Source of ICMPv6 errors that leave through a port. A provider's port that has only link-local addresses borrows one
/// from another such port, since its errors have to cross routers (RFC 4291 §2.5.6).
fn icmp_source(role: Role, mine: &[Ipv6Addr], lenders: &[Ipv6Addr]) -> Ipv6Addr {
    let link_local = |address: &&Ipv6Addr| address.segments()[0] & 0xffc0 == 0xfe80;
    let global = mine.iter().find(|address| !link_local(address));
    let routable = lenders.iter().find(|address| !link_local(address) && !address.is_unique_local());
    let borrowed = routable.filter(|_| role == Role::Provider);
    global.or(borrowed).or(mine.first()).copied().unwrap_or(Ipv6Addr::UNSPECIFIED)
}

/// The site's own prefixes: no peer has its ULID there.
pub(super) fn inside(site: &Site) -> Vec<Block> {
    let delegated = site.providers.iter().map(|provider| provider.delegated.unwrap_or(provider.prefix));
    let own = [site.prefix, site.lan].into_iter().chain(delegated);
    own.map(|prefix| Block::new(prefix.address(), prefix.length())).collect()
}

fn shim6_config(site: &Site) -> shim6::Config {
    let wanted = &site.shim6;
    let one = |rate: u32| Rate { per_second: rate, burst: rate.max(1) };
    let rates = RatePair { prefix: one(wanted.answers_per_source_s), total: one(wanted.answers_per_s) };
    shim6::Config {
        i1_timeout: wanted.i1_timeout,
        i1_retries_max: wanted.i1_retries.into(),
        no_r1_holddown: wanted.no_r1_holddown,
        icmp_holddown: wanted.icmp_holddown,
        i2_timeout: wanted.i2_timeout,
        i2_retries_max: wanted.i2_retries.into(),
        i2bis_timeout: wanted.i2bis_timeout,
        i2bis_retries_max: wanted.i2bis_retries.into(),
        validator_lifetime: wanted.validator_lifetime,
        update_timeout: wanted.update_timeout,
        update_timeout_max: wanted.max_update_timeout,
        idle: wanted.idle_context,
        quarantine: site.quarantine,
        contexts_max: site.node.contexts_max as usize,
        forks_max: wanted.forks_max.into(),
        accepted_per_prefix_percent: wanted.accepted_per_prefix_percent,
        initiated_reserve_percent: wanted.initiated_reserve_percent,
        udp: wanted.udp_port.is_some(),
        liveness: site.liveness.is_some(),
        flow_labels: (wanted.flow_label != FlowLabels::Off).then_some(site.node.workers),
        routable_ulids: site.natv6.is_some(),
        keepalive_timeout: reap_config(site).announced_keepalive_timeout(),
        limits: shim6::Limits { r1: rates, r1bis: rates, r2: rates, error: rates },
        ..shim6::Config::default()
    }
}

fn reap_config(site: &Site) -> reap::Config {
    reap::Config {
        // Whole seconds: the option that tells the peer has no finer unit (RFC 5534 §5.3).
        send_timeout_s: u16::try_from(site.reap.send_timeout.as_secs()).unwrap_or(u16::MAX),
        initial_probe_timeout: site.reap.probe_interval,
        initial_probes: site.reap.initial_probes.into(),
        max_probe_timeout: site.reap.max_probe,
        order: match site.reap.order {
            site::Order::Informed => reap::Order::Informed,
            site::Order::Divergent => reap::Order::Divergent,
            site::Order::Preferred => reap::Order::Preferred,
        },
        ..reap::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_to_providers_come_from_an_address_routers_carry() {
        let parse = |text: &str| text.split(' ').map(|address| address.parse().unwrap()).collect::<Vec<Ipv6Addr>>();
        let bare = parse("fe80::2");
        let full = parse("fe80::3 2001:db8:ff00:2::2");
        let lenders = parse("fe80::2 fe80::3 fc00:b::1 2001:db8:ff00:1::2 2001:db8:ff00:2::2");
        assert_eq!(icmp_source(Role::Provider, &full, &lenders), full[1], "its own");
        assert_eq!(icmp_source(Role::Provider, &bare, &lenders), lenders[3], "borrowed");
        assert_eq!(icmp_source(Role::Provider, &bare, &bare), bare[0], "there is nothing better");
        assert_eq!(icmp_source(Role::Site, &parse("fe80::1 fc00:a::1"), &lenders), parse("fc00:a::1")[0]);
        assert_eq!(icmp_source(Role::Site, &bare, &lenders), bare[0], "hosts hear of no other link");
    }
}
