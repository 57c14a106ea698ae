//! Commands that ask a running daemon.

use std::fmt::Display;
use std::path::Path;

use super::files::hosts_table;
use super::uplinks::uplinks_text;
use super::{Output, VerbError};
use crate::manage::api::{
    ContextFilter, ContextView, ContextsView, CountersView, DnsView, HostsView, LeasesView, LivenessView, Natv6View,
    PathsView, ProviderView, Request, Response, ServeRequest, StatusView, SteerRequest, SyncView,
};
use crate::manage::table::Table;
use crate::publish::Counts;

/// Asks, and takes the answer that belongs to the question.
macro_rules! ask {
    ($config:expr, $output:expr, $request:expr, $answer:ident) => {{
        let mut client = $output.client($config)?;
        match client.call($request)? {
            Response::$answer(view) => view,
            _ => return Err(client.wrong_answer().into()),
        }
    }};
}

pub(super) fn status(config: &Path, output: &mut Output<'_>) -> Result<(), VerbError> {
    let view = ask!(config, output, Request::Status, Status);
    output.answer(&view, status_text)
}

pub(super) fn hosts(config: &Path, output: &mut Output<'_>) -> Result<(), VerbError> {
    let view = ask!(config, output, Request::Hosts, Hosts);
    output.answer(&view, hosts_text)
}

/// Asks until everything has been looked at: the box does so a part at a time.
pub(super) fn contexts(config: &Path, mut filter: ContextFilter, output: &mut Output<'_>) -> Result<(), VerbError> {
    let limit = filter.limit();
    let mut all = ContextsView::default();
    let mut client = output.client(config)?;
    loop {
        let Response::Contexts(view) = client.call(Request::Contexts(filter.clone()))? else {
            return Err(client.wrong_answer().into());
        };
        all.contexts.extend(view.contexts);
        all.left_off += view.left_off;
        // Whatever the other end says, this comes to an end.
        let Some(next) = view.next.filter(|next| filter.after.is_none_or(|after| after < *next)) else { break };
        filter.after = Some(next);
        filter.limit = Some(u32::try_from(limit.saturating_sub(all.contexts.len())).unwrap_or(u32::MAX));
    }
    output.answer(&all, contexts_text)
}

pub(super) fn paths(config: &Path, output: &mut Output<'_>) -> Result<(), VerbError> {
    let view = ask!(config, output, Request::Paths, Paths);
    output.answer(&view, paths_text)
}

/// Which counters are wanted, and how much of them.
pub(super) struct Wanted<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) all: bool,
    pub(super) explain: bool,
}

pub(super) fn counters(config: &Path, wanted: &Wanted<'_>, output: &mut Output<'_>) -> Result<(), VerbError> {
    let mut view = ask!(config, output, Request::Counters, Counters);
    let named = |name: &String| wanted.name.is_none_or(|part| name.contains(part));
    view.counters.retain(|name, _| named(name));
    if let Some(part) = wanted.name.filter(|_| view.counters.is_empty()) {
        return Err(VerbError::NoCounter(part.to_owned()));
    }
    view.descriptions.retain(|name, _| named(name));
    view.advice.retain(|name, _| named(name));
    view.workers.iter_mut().for_each(|own| own.retain(|name, _| named(name)));
    output.answer(&view, |view| match wanted.explain {
        true => explained(view, wanted.all || wanted.name.is_some()),
        false => counters_text(view, wanted.all),
    })
}

pub(super) fn leases(config: &Path, output: &mut Output<'_>) -> Result<(), VerbError> {
    let view = ask!(config, output, Request::Leases, Leases);
    output.answer(&view, leases_text)
}

pub(super) fn natv6(config: &Path, output: &mut Output<'_>) -> Result<(), VerbError> {
    let view = ask!(config, output, Request::Natv6, Natv6);
    output.answer(&view, natv6_text)
}

pub(super) fn dns(config: &Path, output: &mut Output<'_>) -> Result<(), VerbError> {
    let view = ask!(config, output, Request::Dns, Dns);
    output.answer(&view, dns_text)
}

pub(super) fn dns_flush(config: &Path, output: &mut Output<'_>) -> Result<(), VerbError> {
    let view = ask!(config, output, Request::DnsFlush, DnsFlushed);
    output.answer(&view, |view| format!("{} entries forgotten\n", view.entries))
}

pub(super) fn provider(config: &Path, wanted: SteerRequest, output: &mut Output<'_>) -> Result<(), VerbError> {
    let view = ask!(config, output, Request::Steer(wanted), Steered);
    output
        .answer(&view, |view| format!("{}: {}; {} contexts send through it\n", view.name, view.steering, view.contexts))
}

pub(super) fn serve(config: &Path, serve: bool, output: &mut Output<'_>) -> Result<(), VerbError> {
    let view = ask!(config, output, Request::Serve(ServeRequest { serve }), Serving);
    output.answer(&view, super::system::text)
}

pub(super) fn reload(config: &Path, output: &mut Output<'_>) -> Result<(), VerbError> {
    let view = ask!(config, output, Request::Reload, Reloaded);
    output.answer(&view, |view| {
        let changes = format!("{} added, {} removed, {} with other locators", view.added, view.removed, view.changed);
        let mut text = format!("reloaded: {} hosts ({changes}), {} static peers\n", view.hosts, view.peers);
        for note in &view.notes {
            text += &format!("{note}\n");
        }
        text
    })
}

fn leases_text(view: &LeasesView) -> String {
    if !view.enabled {
        return "no DHCPv6: the configuration has no [dhcp]\n".to_owned();
    }
    let mut table = Table::new(&["NAME", "ADDRESS", ">LEFT", "VIA", ">IAID", "CLIENT"]);
    for lease in &view.leases {
        let left = if lease.bound { format!("{} s", lease.left_s) } else { "-".to_owned() };
        let via = lease.via.map(|via| via.to_string()).unwrap_or_default();
        table.row([lease.name.clone(), lease.ulid.to_string(), left, via, lease.iaid.to_string(), lease.duid.clone()]);
    }
    let mut text = table.to_string();
    text += &format!(
        "{} of {} leases given, {} addresses ready, {} answers being written, {} quarantined\n",
        view.bound,
        view.leases_max,
        view.ready,
        view.waiting,
        view.quarantined.len()
    );
    text
}

pub(super) fn hosts_text(view: &HostsView) -> String {
    let mut text = hosts_table(&view.hosts);
    if !view.quarantined.is_empty() {
        let mut table = Table::new(&["GONE", "MAC", ">LEFT", "ADDRESSES NO OTHER HOST MAY HAVE YET"]);
        for gone in &view.quarantined {
            let addresses: Vec<String> = gone.addresses.iter().map(ToString::to_string).collect();
            table.row([gone.ulid.to_string(), or_dash(gone.mac.as_ref()), duration(gone.left_s), addresses.join(" ")]);
        }
        text += &format!("\n{table}");
    }
    text
}

fn status_text(view: &StatusView) -> String {
    let ready = if view.ready { "ready" } else { "not ready" };
    let pages = if view.memory.hugepages { "hugepages" } else { "ordinary pages" };
    let counts = &view.contexts;
    let mut text = format!(
        "{}: {ready}, pshim6d {}, up {}\nmemory: {} MB of {pages}, {} of {} buffers in use\nhosts: {}\n\
         contexts: {} of {}: {} established ({} exploring), {} opening, {} failed, {} without support\n",
        view.name,
        view.version,
        duration(view.uptime_s),
        view.memory.megabytes,
        view.memory.buffers.saturating_sub(view.memory.buffers_free),
        view.memory.buffers,
        view.hosts,
        counts.total,
        counts.max,
        counts.established,
        counts.exploring,
        counts.opening,
        counts.failed,
        counts.no_support,
    );
    if let Some(names) = &view.publish {
        let Counts { published, waiting, taken, .. } = names;
        text += &format!("names: {published} published, {waiting} waiting, {taken} somebody else's\n");
    }
    text += &super::system::text(&view.system);
    if let Some(store) = &view.store {
        let reached = store.alone.as_ref().map_or_else(|| "reached".to_owned(), |why| format!("NOT reached: {why}"));
        text += &format!("store: shared, {reached}\n");
        if let Some(rival) = &store.name_taken {
            text += &format!("store: {rival}\n");
        }
        for it in &store.shared {
            let refused = if it.refused { ", which could NOT be obeyed here" } else { "" };
            text += &format!("shared: {} version {} of box {}{refused}\n", it.name, it.version, it.by);
        }
    }
    if let Some(sync) = &view.sync {
        text += &sync_text(sync);
    }
    let providers = providers_table(&view.providers);
    let uplinks = uplinks_text(&view.uplinks);
    let mut ports = Table::new(&[
        "PORT", "LINK", "DEVICE", "MAC", ">MTU", ">QUEUES", "SPREAD", ">RX", ">MISSED", ">TX", ">DROPPED",
    ]);
    for it in &view.ports {
        ports.row([
            it.name.clone(),
            up(it.link_up),
            it.device.clone(),
            it.mac.clone(),
            it.mtu.to_string(),
            it.queues.to_string(),
            it.spread.to_string(),
            it.rx_packets.to_string(),
            it.rx_missed.to_string(),
            it.tx_packets.to_string(),
            it.tx_dropped.to_string(),
        ]);
    }
    let mut workers = Table::new(&[">WORKER", ">CORE", ">CONTEXTS", ">IN", ">OUT", ">DROPPED"]);
    for it in &view.workers {
        workers.row([
            it.id.to_string(),
            or_dash(it.core),
            it.contexts.to_string(),
            it.packets_in.to_string(),
            it.packets_out.to_string(),
            it.dropped.to_string(),
        ]);
    }
    text += &format!("\n{providers}\n{uplinks}{ports}\n{workers}");
    text
}

/// How it stands with the other boxes of the site.
fn sync_text(view: &SyncView) -> String {
    let state = if view.caught_up { "knows what the others know" } else { "is being told what the others know" };
    let mut boxes = Table::new(&[
        "BOX",
        "ADDRESS",
        "HEARS US",
        "HEARD",
        "TOLD ALL",
        ">BEHIND",
        ">SENT",
        ">RESENT",
        ">RECEIVED",
        ">CONTEXTS IN",
        ">REFUSED",
    ]);
    let yes = |it: bool| if it { "yes" } else { "no" }.to_owned();
    for it in &view.boxes {
        boxes.row([
            it.id.map_or_else(|| "-".into(), |id| format!("{id} {}", it.name)),
            it.address.clone(),
            yes(it.hears),
            yes(it.heard),
            yes(it.caught_up),
            (it.behind + it.waiting).to_string(),
            it.sent.to_string(),
            it.resent.to_string(),
            it.received.to_string(),
            it.contexts_taken.to_string(),
            it.contexts_refused.to_string(),
        ]);
    }
    let reasons = view.boxes.iter().filter_map(|it| Some(format!("{}: {}\n", it.address, it.refused.as_ref()?)));
    format!("other boxes: this one {state}\n{boxes}{}", reasons.collect::<String>())
}

pub(super) fn providers_table(views: &[ProviderView]) -> Table {
    let mut providers =
        Table::new(&["PROVIDER", "STATE", "USE", "PORT", "PREFIX", "NEXT HOP", "RESOLVED", ">PREFERENCE", ">CONTEXTS"]);
    for it in views {
        providers.row([
            it.name.clone(),
            up(it.up),
            if it.leaving { "leaving".into() } else { it.steering.to_string() },
            it.port.clone(),
            it.prefix.clone(),
            or_dash(it.next_hop),
            if it.next_hop_resolved { "yes" } else { "no" }.into(),
            it.preference.to_string(),
            it.contexts.to_string(),
        ]);
    }
    providers
}

pub(super) fn contexts_text(view: &ContextsView) -> String {
    let mut table = Table::new(&[
        "ULID",
        "PEER ULID",
        "STATE",
        "REAP",
        "PROVIDER",
        "FROM",
        "TO",
        "TAG",
        "PEER TAG",
        ">IN",
        ">OUT",
        ">USED",
    ]);
    for it in &view.contexts {
        table.row(context_row(it));
    }
    let mut text = table.to_string();
    if let Some(held) = view.contexts.iter().filter_map(|it| it.held_s).max() {
        text += &format!("left alone for {} at most; :: stands for every host\n", duration(held));
    }
    if view.left_off > 0 {
        text += &format!("and {} more (--limit, --ulid and --state choose)\n", view.left_off);
    }
    text
}

fn context_row(it: &ContextView) -> [String; 12] {
    let class = it.class.as_ref().map(|class| format!("={class}")).unwrap_or_default();
    let fork = if it.fork == 0 { String::new() } else { format!("#{}{class}", it.fork) };
    [
        format!("{}{fork}", it.ulid_local),
        it.ulid_peer.to_string(),
        it.state.to_string(),
        or_dash(it.reap_state),
        it.local_provider.clone().unwrap_or("-".into()),
        or_dash(it.current.map(|pair| pair.local)),
        or_dash(it.current.map(|pair| pair.peer)),
        it.local_tag.clone().unwrap_or("-".into()),
        it.peer_tag.clone().unwrap_or("-".into()),
        it.packets_in.to_string(),
        it.packets_out.to_string(),
        it.last_used_s.map_or("-".into(), duration),
    ]
}

/// State, the time of silence after which a path is down, and how long one that failed is still not trusted.
fn liveness(it: &LivenessView) -> String {
    let held = it.held_s.map(|left| format!(", held {}", duration(left))).unwrap_or_default();
    format!("{} {:.0} ms{held}", it.state, it.detection_ms)
}

pub(super) fn paths_text(view: &PathsView) -> String {
    let mut table = Table::new(&[
        "PROVIDER",
        "PEER PREFIX",
        "STATE",
        ">CONTEXTS",
        "BY",
        ">LAST IN",
        ">LAST OUT",
        ">RTT",
        "LIVENESS",
        "EVIDENCE",
    ]);
    for it in &view.paths {
        table.row([
            it.provider.clone(),
            it.peer_prefix.clone(),
            it.state.clone(),
            it.contexts.to_string(),
            it.carriage.clone(),
            it.last_in_s.map_or("-".into(), duration),
            it.last_out_s.map_or("-".into(), duration),
            it.rtt_ms.map_or("-".into(), |rtt| format!("{rtt:.1} ms")),
            it.liveness.as_ref().map_or("-".into(), liveness),
            it.route.as_ref().map_or_else(|| it.evidence.clone(), |route| format!("{}; {route}", it.evidence)),
        ]);
    }
    table.to_string()
}

/// A paragraph for each: what it means, and what to do.
fn explained(view: &CountersView, all: bool) -> String {
    let mut text = String::new();
    for (name, value) in view.counters.iter().filter(|(_, value)| all || **value > 0) {
        text += &format!("{name}: {value}\n");
        if let Some(meaning) = view.descriptions.get(name) {
            text += &format!("    {meaning}\n");
        }
        if let Some(advice) = view.advice.get(name) {
            text += &format!("    What to do: {advice}\n");
        }
    }
    if text.is_empty() { "every counter is zero (--all shows them)\n".into() } else { text }
}

pub(super) fn counters_text(view: &CountersView, all: bool) -> String {
    let mut table = Table::new(&["COUNTER", ">VALUE", "MEANING"]);
    for (name, value) in view.counters.iter().filter(|(_, value)| all || **value > 0) {
        table.row([name.clone(), value.to_string(), view.descriptions.get(name).cloned().unwrap_or_default()]);
    }
    if table.is_empty() { "every counter is zero (--all shows them)\n".into() } else { table.to_string() }
}

fn dns_text(view: &DnsView) -> String {
    if !view.enabled {
        return "not enabled ([dns]): hosts ask somebody else\n".into();
    }
    let mut servers =
        Table::new(&["SERVER", "STATE", "PORT", "FROM", ">RTT", ">ASKED", ">ANSWERED", ">TIMEOUTS", ">TCP"]);
    for it in &view.servers {
        let state = match (it.source, it.resting) {
            (None, _) => "no way",
            (Some(_), true) => "resting",
            (Some(_), false) => "up",
        };
        servers.row([
            it.address.to_string(),
            state.into(),
            it.port.clone().unwrap_or_else(|| "-".into()),
            it.source.map_or_else(|| "-".into(), |source| source.to_string()),
            it.rtt_us.map_or_else(|| "-".into(), |rtt| format!("{}.{:03} ms", rtt / 1000, rtt % 1000)),
            it.questions.to_string(),
            it.answers.to_string(),
            it.timeouts.to_string(),
            it.streams.to_string(),
        ]);
    }
    let mut counters = Table::new(&["COUNTER", ">VALUE"]);
    for (name, value) in view.counters.iter().filter(|(_, value)| **value > 0) {
        counters.row([name.clone(), value.to_string()]);
    }
    let counters = if counters.is_empty() { String::new() } else { format!("\n{counters}") };
    format!(
        "{servers}\ncache: {} of {} answers, {} of {} octets; {} hits, {} misses, {} had to make room\n\
         waiting: {} questions of hosts, {} on their way to servers\n\
         IPv4 addresses of names with a CMULA: {}, {} answers wait for the peer\n\
         own zone: {} names, {} hosts without one\n\
         peers learned: {}; looked up backwards: {} now, {} remembered as not found\n{counters}",
        view.entries,
        view.entries_max,
        view.octets,
        view.octets_max,
        view.hits,
        view.misses,
        view.evicted,
        view.waiting,
        view.asked,
        if view.withholding { "withheld by policy" } else { "given" },
        view.undecided,
        view.names,
        view.unnamed,
        view.peers,
        view.looked_up,
        view.not_found,
    )
}

fn natv6_text(view: &Natv6View) -> String {
    if !view.enabled {
        return "not enabled (natv6.enabled): only Shim6 peers are reached\n".into();
    }
    let mut providers =
        Table::new(&["PROVIDER", ">PLACE", "STATE", ">HOSTS", "MAPPED", ">OUT", ">IN", ">HAIRPIN", ">QUOTES"]);
    for it in &view.providers {
        let state = match (it.place, it.failing) {
            (None, _) => "down",
            (Some(_), true) => "failing",
            (Some(_), false) => "up",
        };
        providers.row([
            it.name.clone(),
            or_dash(it.place),
            state.into(),
            it.hosts.to_string(),
            if it.mapped { "yes" } else { "no" }.into(),
            it.packets_out.to_string(),
            it.packets_in.to_string(),
            it.hairpins.to_string(),
            it.quotes.to_string(),
        ]);
    }
    let thresholds = [
        view.setup_packets.map(|packets| format!("{packets} packets")),
        view.setup_octets.map(|octets| format!("{octets} octets")),
        view.setup_age_s.map(duration),
    ];
    let thresholds: Vec<String> = thresholds.into_iter().flatten().collect();
    let setup = if thresholds.is_empty() { "only if the peer asks".into() } else { thresholds.join(" or ") };
    let mapped = if view.mapped.is_empty() { "nothing".into() } else { view.mapped.join(", ") };
    let mut counters = Table::new(&["COUNTER", ">VALUE"]);
    for (name, value) in &view.counters {
        counters.row([name.clone(), value.to_string()]);
    }
    format!(
        "{providers}\na context after: {setup}\ncontexts of locators: {}; left alone: {}\n\
         mapped by prefix: {mapped} ({} answer)\n\n{counters}",
        view.contexts, view.without_support, view.neighbours
    )
}

/// Seconds as people say them.
pub(super) fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes:02}m"),
        (days, hours, _, _) => format!("{days}d{hours:02}h"),
    }
}

pub(super) fn up(yes: bool) -> String {
    if yes { "up" } else { "down" }.into()
}

pub(super) fn or_dash(value: Option<impl Display>) -> String {
    value.map_or("-".into(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        assert_eq!([0, 59, 61, 3_660, 90_000].map(duration), ["0s", "59s", "1m01s", "1h01m", "1d01h"]);
    }

    #[test]
    fn counters_at_zero_are_shown_on_request_only() {
        let mut view = CountersView::default();
        assert_eq!(counters_text(&view, false), "every counter is zero (--all shows them)\n");
        view.counters = [("drop.hop_limit".to_string(), 0), ("rx.packets".to_string(), 7)].into();
        view.descriptions = [("rx.packets".to_string(), "packets received".to_string())].into();
        assert_eq!(counters_text(&view, false), "COUNTER     VALUE  MEANING\nrx.packets      7  packets received\n");
        assert!(counters_text(&view, true).contains("drop.hop_limit"));
    }
}
