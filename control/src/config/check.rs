//! From what the file said to what can be obeyed: the box, DPDK and the protocols' numbers. `network` has the rest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::bmp;
use super::cluster;
use super::dhcp;
use super::dns;
use super::file::{
    EalSection, HintsSection, LivenessSection, NodeSection, ReapSection, SetupSection, Shim6Section, SiteFile,
};
use super::fork;
use super::limits::{self, Limits};
use super::manage;
use super::natv6;
use super::network;
use super::problem::Problem;
use super::publish;
use super::routes;
use super::site::{Eal, Hints, Hugepages, Idle, Liveness, Node, Order, Reap, Routable, Setup, Shim6, Site};
use super::source::{Source, Span};
use super::sync;
use super::web;

/// Checks `text`, the contents of `file`. Relative paths in it are taken from the file's directory.
pub(super) fn site(file: &Path, text: &str) -> (Option<Site>, Vec<Problem>, Vec<Problem>) {
    let mut source = Source::parse(file, text);
    let site = if source.has_problems() { None } else { read(&mut source, file.parent().unwrap_or(Path::new(""))) };
    let (problems, warnings) = source.findings();
    (site.filter(|_| problems.is_empty()), problems, warnings)
}

fn read(source: &mut Source<'_>, directory: &Path) -> Option<Site> {
    let file = SiteFile::read(source);
    let node = node(source, &file.node, directory);
    let eal = eal(source, &file.eal);
    let reap = reap(source, &file.reap);
    let shim6 = shim6(source, &file.shim6);
    let setup = setup(source, &file.setup);
    let quarantine = quarantine(source, &file, &shim6);
    let network = network::check(source, &file, directory);
    let (node, network) = (node?, network?);
    let natv6 = natv6::check(source, &file.natv6, &network);
    let dhcp = dhcp::dhcp(source, &file, &network);
    let advertising = dhcp::advertising(source, &file, &network);
    let store = dhcp::store(source, &file, directory);
    let cluster = file.store.as_ref().and_then(|table| cluster::check(source, table, directory));
    let dns = dns::check(source, &file.dns, &network);
    let publish = publish::check(source, &file.publish, &network, directory);
    let manage = manage::check(source, &file.manage, directory, &node.control_socket);
    let metrics = manage::metrics(source, &file.metrics);
    let web = web::check(source, &file.web, &manage, &metrics);
    let sync = sync::check(source, &file.sync, directory);
    let bmp = bmp::check(source, &file.bmp, &network, directory);
    let forks = fork::check(source, &file.forks, &network, shim6.forks_max);
    routes::together(source, &file, &network);
    let router = routes::router(source, &file, &network);
    let routes = routes::check(source, &file.routes, &network);
    Some(Site {
        node,
        eal,
        prefix: network.prefix,
        identifier_blocks: network.identifier_blocks,
        lan: network.lan,
        lan_port: network.lan_port,
        key: network.key,
        sec: network.sec,
        quarantine,
        mss_clamp: file.site.as_ref().and_then(|section| section.get_ref().mss_clamp).unwrap_or(false),
        ports: network.ports,
        providers: network.providers,
        uplinks: network.uplinks,
        peers: network.peers,
        forks,
        reap,
        liveness: liveness(source, &file.liveness),
        hints: hints(&file.hints),
        shim6,
        natv6,
        setup,
        dhcp,
        advertising,
        store,
        cluster,
        dns,
        publish,
        manage,
        metrics,
        web,
        router,
        routes,
        sync,
        bmp,
    })
}

fn node(source: &mut Source<'_>, section: &Option<Spanned<NodeSection>>, directory: &Path) -> Option<Node> {
    let Some(section) = section else {
        source.missing(&(0..0), "box");
        return None;
    };
    let (span, section) = (section.span(), section.get_ref());
    let name = required(source, &span, "name", &section.name).and_then(|name| checked_name(source, name));
    let workers = number::<u8>(source, &section.workers, limits::WORKERS);
    let cores = cores(source, section, workers);
    let socket = control_socket(source, section, directory);
    if let Some(log) = &section.log
        && let Err(error) = tracing_subscriber::EnvFilter::try_new(log.get_ref())
    {
        source.problem(&log.span(), format!("\"{}\" is not a log filter: {error}", log.get_ref()));
    }
    let hosts_file = section.hosts_file.as_ref().map_or(limits::HOSTS_FILE, |path| path.get_ref());
    if hosts_file.is_empty() {
        source.problem(&section.hosts_file.as_ref().map_or(span, Spanned::span), "names no file");
    }
    let policy_file = section.policy_file.as_ref().map_or(limits::POLICY_FILE, |path| path.get_ref());
    if let Some(path) = section.policy_file.as_ref().filter(|path| path.get_ref().is_empty()) {
        source.problem(&path.span(), "names no file");
    }
    let hold = section.hold.as_ref();
    Some(Node {
        id: number(source, &section.id, limits::BOX_ID),
        workers,
        idle: section.idle.unwrap_or(Idle::Sleep),
        cores,
        control_socket: socket,
        hosts_file: directory.join(hosts_file),
        policy_file: directory.join(policy_file),
        log: section.log.as_ref().map_or(limits::LOG, |log| log.get_ref()).to_string(),
        proof_threads: number(source, &section.proof_threads, limits::PROOF_THREADS),
        contexts_max: number(source, &section.contexts_max, limits::CONTEXTS_MAX),
        hold_packets: number(source, hold.map_or(&None, |hold| &hold.packets), limits::HOLD_PACKETS),
        hold_pairs: number(source, hold.map_or(&None, |hold| &hold.pairs), limits::HOLD_PAIRS),
        name: name?,
    })
}

fn cores(source: &mut Source<'_>, section: &NodeSection, workers: u8) -> Option<Vec<u16>> {
    let list = section.cores.as_ref()?;
    let mut cores = Vec::new();
    for core in list.get_ref() {
        match u16::try_from(*core.get_ref()) {
            Ok(number) if cores.contains(&number) => {
                source.problem(&core.span(), format!("core {number} stands twice"))
            }
            Ok(number) if number < 1024 => cores.push(number),
            _ => source.problem(&core.span(), format!("{} is no core: 0 to 1023", core.get_ref())),
        }
    }
    if list.get_ref().len() != usize::from(workers) {
        let count = list.get_ref().len();
        source.problem(&list.span(), format!("names {count} cores for {workers} workers; one for each is expected"));
    }
    Some(cores)
}

fn control_socket(source: &mut Source<'_>, section: &NodeSection, directory: &Path) -> PathBuf {
    match &section.control_socket {
        Some(text) => socket(source, text, directory),
        None => PathBuf::from(limits::CONTROL_SOCKET),
    }
}

/// The path of a Unix socket.
pub(super) fn socket(source: &mut Source<'_>, text: &Spanned<String>, directory: &Path) -> PathBuf {
    let path = directory.join(text.get_ref());
    let octets = path.as_os_str().len();
    if text.get_ref().is_empty() {
        source.problem(&text.span(), "names no file");
    } else if octets > limits::SOCKET_PATH_OCTETS_MAX {
        let most = limits::SOCKET_PATH_OCTETS_MAX;
        source.problem(&text.span(), format!("is {octets} octets long; a Unix socket's path has at most {most}"));
    }
    path
}

fn eal(source: &mut Source<'_>, section: &Option<Spanned<EalSection>>) -> Eal {
    let section = section.as_ref().map(Spanned::get_ref);
    Eal {
        memory_mb: number(source, section.map_or(&None, |eal| &eal.memory_mb), limits::MEMORY_MB),
        hugepages: section.and_then(|eal| eal.hugepages).unwrap_or(Hugepages::Auto),
        args: section.and_then(|eal| eal.args.clone()).unwrap_or_default(),
    }
}

fn reap(source: &mut Source<'_>, section: &Option<Spanned<ReapSection>>) -> Reap {
    let none = ReapSection::default();
    let section = section.as_ref().map_or(&none, Spanned::get_ref);
    if let Some(timeout) = &section.send_timeout_s {
        let (seconds, advised) = (*timeout.get_ref(), limits::SEND_TIMEOUT_ADVISED_S);
        if (limits::SEND_TIMEOUT_S.min..advised).contains(&seconds) {
            source.warning(
                &timeout.span(),
                format!("{seconds} s is below the {advised} s that RFC 5534 section 7 advises (R5534-104)"),
            );
        }
    }
    let probe_interval = millis(source, &section.probe_interval_ms, limits::PROBE_INTERVAL_MS);
    let max_probe = seconds(source, &section.max_probe_s, limits::MAX_PROBE_S);
    if max_probe < probe_interval
        && let Some(field) = section.max_probe_s.as_ref().or(section.probe_interval_ms.as_ref())
    {
        source.problem(&field.span(), "max_probe_s is shorter than probe_interval_ms");
    }
    Reap {
        send_timeout: seconds(source, &section.send_timeout_s, limits::SEND_TIMEOUT_S),
        probe_interval,
        initial_probes: number(source, &section.initial_probes, limits::INITIAL_PROBES),
        max_probe,
        order: section.order.unwrap_or(Order::Informed),
        standby: section.standby.unwrap_or(true),
    }
}

fn liveness(source: &mut Source<'_>, section: &Option<Spanned<LivenessSection>>) -> Option<Liveness> {
    let section = section.as_ref()?.get_ref();
    let checked = Liveness {
        interval: millis(source, &section.interval_ms, limits::LIVENESS_INTERVAL_MS),
        multiplier: number(source, &section.multiplier, limits::LIVENESS_MULTIPLIER),
        paths_max: number(source, &section.paths_max, limits::LIVENESS_PATHS_MAX),
        packets_per_s: number(source, &section.packets_per_s, limits::LIVENESS_PACKETS_PER_S),
    };
    section.enabled.unwrap_or(false).then_some(checked)
}

fn hints(section: &Option<Spanned<HintsSection>>) -> Hints {
    let none = HintsSection::default();
    let HintsSection { link, icmp, tcp } = section.as_ref().map_or(&none, Spanned::get_ref);
    Hints { link: link.unwrap_or(true), icmp: icmp.unwrap_or(true), tcp: tcp.unwrap_or(true) }
}

fn shim6(source: &mut Source<'_>, section: &Option<Spanned<Shim6Section>>) -> Shim6 {
    let none = Shim6Section::default();
    let section = section.as_ref().map_or(&none, Spanned::get_ref);
    let udp_port = number(source, &section.udp_port, limits::UDP_PORT);
    let checked = Shim6 {
        i1_timeout: millis(source, &section.i1_timeout_ms, limits::I1_TIMEOUT_MS),
        i1_retries: number(source, &section.i1_retries, limits::I1_RETRIES),
        i2_timeout: millis(source, &section.i2_timeout_ms, limits::I2_TIMEOUT_MS),
        i2_retries: number(source, &section.i2_retries, limits::I2_RETRIES),
        i2bis_timeout: millis(source, &section.i2bis_timeout_ms, limits::I2BIS_TIMEOUT_MS),
        i2bis_retries: number(source, &section.i2bis_retries, limits::I2BIS_RETRIES),
        update_timeout: millis(source, &section.update_timeout_ms, limits::UPDATE_TIMEOUT_MS),
        max_update_timeout: seconds(source, &section.max_update_timeout_s, limits::MAX_UPDATE_TIMEOUT_S),
        no_r1_holddown: seconds(source, &section.no_r1_holddown_s, limits::NO_R1_HOLDDOWN_S),
        icmp_holddown: seconds(source, &section.icmp_holddown_s, limits::ICMP_HOLDDOWN_S),
        validator_lifetime: seconds(source, &section.validator_lifetime_s, limits::VALIDATOR_LIFETIME_S),
        idle_context: seconds(source, &section.idle_context_s, limits::IDLE_CONTEXT_S),
        answers_per_s: number(source, &section.answers_per_s, limits::ANSWERS_PER_S),
        answers_per_source_s: number(source, &section.answers_per_source_s, limits::ANSWERS_PER_SOURCE_S),
        forks_max: number(source, &section.forks_max, limits::FORKS_MAX),
        accepted_per_prefix_percent: number(
            source,
            &section.accepted_per_prefix_percent,
            limits::ACCEPTED_PER_PREFIX_PERCENT,
        ),
        initiated_reserve_percent: number(
            source,
            &section.initiated_reserve_percent,
            limits::INITIATED_RESERVE_PERCENT,
        ),
        messages_per_s: number(source, &section.messages_per_s, limits::MESSAGES_PER_S),
        messages_per_source_s: number(source, &section.messages_per_source_s, limits::MESSAGES_PER_SOURCE_S),
        strict_locators: section.strict_locators.unwrap_or(false),
        flow_label: section.flow_label.unwrap_or_default(),
        udp_port: section.udp_encapsulation.unwrap_or(false).then_some(udp_port),
        announce_down: section.announce_down.unwrap_or(true),
        icmp_errors_to_hosts: section.icmp_errors_to_hosts.unwrap_or(false),
    };
    let not_above = [
        // R5533-147: "no support" is remembered longer than "no answer".
        (
            &section.no_r1_holddown_s,
            checked.no_r1_holddown > checked.icmp_holddown,
            &section.icmp_holddown_s,
            "no_r1_holddown_s is longer than icmp_holddown_s; \"no support\" is remembered longer than \"no answer\"",
        ),
        (
            &section.update_timeout_ms,
            checked.update_timeout > checked.max_update_timeout,
            &section.max_update_timeout_s,
            "update_timeout_ms is longer than max_update_timeout_s",
        ),
        (
            &section.answers_per_source_s,
            checked.answers_per_source_s > checked.answers_per_s,
            &section.answers_per_s,
            "answers_per_source_s is above answers_per_s, the limit for all sources",
        ),
        (
            &section.messages_per_source_s,
            checked.messages_per_source_s > checked.messages_per_s,
            &section.messages_per_s,
            "messages_per_source_s is above messages_per_s, the limit for all sources",
        ),
    ];
    for (small, wrong, large, text) in not_above {
        if let (true, Some(field)) = (wrong, small.as_ref().or(large.as_ref())) {
            source.problem(&field.span(), text);
        }
    }
    checked
}

fn setup(source: &mut Source<'_>, section: &Option<Spanned<SetupSection>>) -> Setup {
    let none = SetupSection::default();
    let span = section.as_ref().map_or(0..0, Spanned::span);
    let section = section.as_ref().map_or(&none, Spanned::get_ref);
    let packets: u32 = number(source, &section.packets, limits::SETUP_PACKETS);
    let octets: u64 = number(source, &section.octets, limits::SETUP_OCTETS);
    let age: u64 = number(source, &section.age_s, limits::SETUP_AGE_S);
    let routable = section.routable.unwrap_or(Routable::Deferred);
    if routable == Routable::Deferred && (packets, octets, age) == (0, 0, 0) {
        source.problem(&span, "every threshold is 0, so none is ever reached; \"never\" for routable says so");
    }
    Setup {
        routable,
        packets: Some(packets).filter(|packets| *packets > 0),
        octets: Some(octets).filter(|octets| *octets > 0),
        age: Some(Duration::from_secs(age)).filter(|age| !age.is_zero()),
    }
}

/// What the file says, or as long as no peer like us still has a context. A value of the operator's has to be longer than
/// peers keep contexts they do not use, for which our own setting stands, and than validators live.
fn quarantine(source: &mut Source<'_>, file: &SiteFile, shim6: &Shim6) -> Duration {
    let section = file.site.as_ref().map(Spanned::get_ref);
    let field = section.map_or(&None, |site| &site.quarantine_s);
    let wanted = seconds(source, field, limits::QUARANTINE_S);
    let Some(field) = field else { return wanted.max(2 * shim6.idle_context) };
    if wanted <= shim6.idle_context || wanted < shim6.validator_lifetime {
        let (idle, validators) = (shim6.idle_context.as_secs(), shim6.validator_lifetime.as_secs());
        let text = format!(
            "is not longer than shim6.idle_context_s ({idle}) and shim6.validator_lifetime_s ({validators}): a peer may \
             still have contexts of a host that is gone"
        );
        source.problem(&field.span(), text);
    }
    wanted
}

/// The value of a field that must be there.
pub(super) fn required<'f, T>(
    source: &mut Source<'_>,
    table: &Span,
    name: &str,
    field: &'f Option<Spanned<T>>,
) -> Option<&'f Spanned<T>> {
    if field.is_none() {
        source.missing(table, name);
    }
    field.as_ref()
}

/// A name that people and tools can both write: letters, digits, `-`, `_` and `.`, at most 63 of them.
pub(super) fn checked_name(source: &mut Source<'_>, name: &Spanned<String>) -> Option<String> {
    match name_error(name.get_ref()) {
        None => Some(name.get_ref().clone()),
        Some(reason) => {
            source.problem(&name.span(), reason);
            None
        }
    }
}

/// Why `name` is not one we use for boxes, ports, providers, peers and hosts; none when it is.
pub(super) fn name_error(name: &str) -> Option<String> {
    let letters = name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet));
    let start = name.bytes().next().is_some_and(|octet| octet.is_ascii_alphanumeric());
    if letters && start && name.len() <= 63 {
        None
    } else {
        Some(format!("\"{name}\" is not a name: 1 to 63 letters, digits, - _ . that begin with a letter or digit"))
    }
}

/// The number in `field` or its default; one out of limits is noted, and the default taken to go on checking.
pub(super) fn number<T: TryFrom<i64> + Default>(
    source: &mut Source<'_>,
    field: &Option<Spanned<i64>>,
    limits: Limits,
) -> T {
    let mut value = limits.default;
    if let Some(field) = field {
        let Limits { min, max, .. } = limits;
        if (min..=max).contains(field.get_ref()) {
            value = *field.get_ref();
        } else {
            source.problem(&field.span(), format!("{} is out of range: {min} to {max}", field.get_ref()));
        }
    }
    // Every limit fits the type it is read into; a test walks all of them.
    T::try_from(value).unwrap_or_default()
}

pub(super) fn seconds(source: &mut Source<'_>, field: &Option<Spanned<i64>>, limits: Limits) -> Duration {
    Duration::from_secs(number(source, field, limits))
}

fn millis(source: &mut Source<'_>, field: &Option<Spanned<i64>>, limits: Limits) -> Duration {
    Duration::from_millis(number(source, field, limits))
}
