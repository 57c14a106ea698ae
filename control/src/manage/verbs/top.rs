//! `top`: what a box does at the moment, from the difference of two answers.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::show::{duration, or_dash, up};
use super::{Output, VerbError};
use crate::manage::api::{MetricsView, PathView, Request, Response};
use crate::manage::client::Client;
use crate::manage::table::Table;

/// Goes to the upper left corner; what is written there before is written over.
const HOME: &str = "\x1b[H";
/// Clears the screen.
const CLEAR: &str = "\x1b[2J";
/// Clears to the end of the line, of the screen.
const LINE_END: &str = "\x1b[K";
const SCREEN_END: &str = "\x1b[J";

/// Rows of lists that may be long.
const ROWS: usize = 8;

#[derive(Args, Debug)]
pub(super) struct TopArgs {
    /// Seconds between two looks.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    interval: f64,
    /// Look twice, print once and end; so also when the answer goes to no terminal.
    #[arg(long)]
    once: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|it| (0.1..=60.0).contains(it)).ok_or_else(|| "0.1 to 60 seconds".to_owned())
}

/// What the screen shows.
#[derive(Debug, Serialize)]
struct TopView {
    name: String,
    ready: bool,
    uptime_s: u64,
    contexts: crate::manage::api::ContextCounts,
    providers: Vec<ProviderRow>,
    ports: Vec<PortRow>,
    workers: Vec<WorkerRow>,
    /// Those with most contexts, those that lead nowhere first.
    paths: Vec<PathView>,
    paths_left_off: u64,
    /// Packets a second, those most often given first.
    drops: Vec<DropRow>,
    handshakes_per_s: f64,
    moves_per_s: f64,
}

#[derive(Debug, Serialize)]
struct ProviderRow {
    name: String,
    up: bool,
    steering: String,
    contexts: u64,
    port: String,
}

#[derive(Debug, Serialize)]
struct PortRow {
    name: String,
    link_up: bool,
    rx_packets_per_s: f64,
    rx_bits_per_s: f64,
    tx_packets_per_s: f64,
    tx_bits_per_s: f64,
    lost_per_s: f64,
}

#[derive(Debug, Serialize)]
struct WorkerRow {
    id: u16,
    contexts: u64,
    in_per_s: f64,
    out_per_s: f64,
    dropped_per_s: f64,
    /// Share of time in turns that had something to do.
    busy: f64,
}

#[derive(Debug, Serialize)]
struct DropRow {
    reason: String,
    per_s: f64,
    total: u64,
}

pub(super) fn top(config: &Path, asked: &TopArgs, output: &mut Output<'_>) -> Result<(), VerbError> {
    let interval = Duration::from_secs_f64(asked.interval);
    let mut client = output.client(config)?;
    let mut before = look(&mut client)?;
    let screen = !asked.once && !output.json && std::io::stdout().is_terminal();
    if screen {
        write!(output.out, "{CLEAR}")?;
    }
    loop {
        client.pause(interval);
        let now = look(&mut client)?;
        let view = compare(&before, &now);
        if !screen {
            return output.answer(&view, text);
        }
        let lines = text(&view).replace('\n', &format!("{LINE_END}\n"));
        write!(output.out, "{HOME}{lines}{SCREEN_END}")?;
        output.out.flush()?;
        before = now;
    }
}

fn look(client: &mut Client) -> Result<MetricsView, VerbError> {
    match client.call(Request::Metrics)? {
        Response::Metrics(view) => Ok(*view),
        _ => Err(client.wrong_answer().into()),
    }
}

/// What happened between two looks, by the daemon's own clock: an answer may be late.
fn compare(before: &MetricsView, now: &MetricsView) -> TopView {
    // A daemon that was restarted meanwhile begins at zero, and there is nothing to compare it with.
    let before = if now.at_s > before.at_s { before } else { now };
    let seconds = (now.at_s - before.at_s).max(f64::EPSILON);
    let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
    let counter = |view: &MetricsView, name: &str| view.counters.counters.get(name).copied().unwrap_or_default();
    let counted = |name: &str| rate(counter(before, name), counter(now, name));
    let (old, new) = (&before.status, &now.status);
    let ports = new.ports.iter().map(|it| {
        let was = old.ports.iter().find(|was| was.name == it.name).unwrap_or(it);
        PortRow {
            name: it.name.clone(),
            link_up: it.link_up,
            rx_packets_per_s: rate(was.rx_packets, it.rx_packets),
            rx_bits_per_s: 8.0 * rate(was.rx_octets, it.rx_octets),
            tx_packets_per_s: rate(was.tx_packets, it.tx_packets),
            tx_bits_per_s: 8.0 * rate(was.tx_octets, it.tx_octets),
            lost_per_s: rate(was.rx_missed + was.tx_dropped, it.rx_missed + it.tx_dropped),
        }
    });
    let turns = |view: &MetricsView, id: u16| view.turns.get(usize::from(id)).map_or(0.0, |turns| turns.sum_s);
    let workers = new.workers.iter().map(|it| {
        let was = old.workers.iter().find(|was| was.id == it.id).unwrap_or(it);
        WorkerRow {
            id: it.id,
            contexts: it.contexts,
            in_per_s: rate(was.packets_in, it.packets_in),
            out_per_s: rate(was.packets_out, it.packets_out),
            dropped_per_s: rate(was.dropped, it.dropped),
            busy: ((turns(now, it.id) - turns(before, it.id)) / seconds).clamp(0.0, 1.0),
        }
    });
    let providers = new.providers.iter().map(|it| ProviderRow {
        name: it.name.clone(),
        up: it.up,
        steering: if it.leaving { "leaving".into() } else { it.steering.to_string() },
        contexts: it.contexts,
        port: it.port.clone(),
    });
    let mut drops: Vec<DropRow> = now
        .counters
        .counters
        .iter()
        .filter(|(name, total)| name.starts_with("drop_") && **total > 0)
        .map(|(name, total)| DropRow { reason: name.clone(), per_s: counted(name), total: *total })
        .collect();
    drops.sort_by(|a, b| b.per_s.total_cmp(&a.per_s).then(b.total.cmp(&a.total)));
    drops.truncate(ROWS);
    let mut paths = now.paths.clone();
    paths.sort_by_key(|path| (path.state != "down", path.state != "unknown"));
    let paths_left_off = now.paths_left_off + paths.len().saturating_sub(ROWS) as u64;
    paths.truncate(ROWS);
    TopView {
        name: new.name.clone(),
        ready: new.ready,
        uptime_s: new.uptime_s,
        contexts: new.contexts.clone(),
        providers: providers.collect(),
        ports: ports.collect(),
        workers: workers.collect(),
        paths,
        paths_left_off,
        drops,
        handshakes_per_s: counted("control_context_ready"),
        moves_per_s: counted("control_pair_changes"),
    }
}

fn text(view: &TopView) -> String {
    let ready = if view.ready { "ready" } else { "NOT READY" };
    let counts = &view.contexts;
    let mut text = format!(
        "{}: {ready}, up {}\ncontexts: {} ({} exploring, {} opening); {:.0} handshakes/s, {:.0} moves/s\n\n",
        view.name,
        duration(view.uptime_s),
        counts.established,
        counts.exploring,
        counts.opening,
        view.handshakes_per_s,
        view.moves_per_s
    );
    let mut providers = Table::new(&["PROVIDER", "STATE", "USE", "PORT", ">CONTEXTS"]);
    for it in &view.providers {
        providers.row([it.name.clone(), up(it.up), it.steering.clone(), it.port.clone(), it.contexts.to_string()]);
    }
    let mut ports = Table::new(&["PORT", "LINK", ">IN", ">BIT/S", ">OUT", ">BIT/S", ">LOST"]);
    for it in &view.ports {
        ports.row([
            it.name.clone(),
            up(it.link_up),
            short(it.rx_packets_per_s),
            short(it.rx_bits_per_s),
            short(it.tx_packets_per_s),
            short(it.tx_bits_per_s),
            short(it.lost_per_s),
        ]);
    }
    let mut workers = Table::new(&[">WORKER", ">CONTEXTS", ">IN", ">OUT", ">DROPPED", ">BUSY"]);
    for it in &view.workers {
        let busy = format!("{:.0} %", it.busy * 100.0);
        let rates = [it.in_per_s, it.out_per_s, it.dropped_per_s].map(short);
        workers.row([it.id.to_string(), it.contexts.to_string()].into_iter().chain(rates).chain([busy]));
    }
    text += &format!("{providers}\n{ports}\n{workers}");
    if !view.paths.is_empty() {
        let mut paths = Table::new(&["PATH", "TO", "STATE", ">CONTEXTS", ">RTT"]);
        for it in &view.paths {
            let rtt = or_dash(it.rtt_ms.map(|rtt| format!("{rtt:.1} ms")));
            paths.row([it.provider.clone(), it.peer_prefix.clone(), it.state.clone(), it.contexts.to_string(), rtt]);
        }
        text += &format!("\n{paths}");
        if view.paths_left_off > 0 {
            text += &format!("and {} more\n", view.paths_left_off);
        }
    }
    if !view.drops.is_empty() {
        let mut drops = Table::new(&["DROPPED FOR", ">PER SECOND", ">IN ALL"]);
        for it in &view.drops {
            drops.row([it.reason.clone(), short(it.per_s), it.total.to_string()]);
        }
        text += &format!("\n{drops}");
    }
    text
}

/// A number with a letter for its thousands.
fn short(number: f64) -> String {
    match number {
        it if it >= 1e9 => format!("{:.1}G", it / 1e9),
        it if it >= 1e6 => format!("{:.1}M", it / 1e6),
        it if it >= 1e4 => format!("{:.1}k", it / 1e3),
        it => format!("{it:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::api::{PortView, TimesView, WorkerView};

    #[test]
    fn rates_are_the_difference_of_two_looks() {
        let view = |packets: u64, at_s: f64| {
            let mut view = MetricsView { at_s, ..Default::default() };
            let octets = packets * 100;
            view.status.ports =
                vec![PortView { name: "x".into(), rx_packets: packets, rx_octets: octets, ..Default::default() }];
            view.status.workers = vec![WorkerView { packets_in: packets, ..Default::default() }];
            view.turns = vec![TimesView { sum_s: packets as f64 / 1e5, buckets: Vec::new() }];
            view.counters.counters = [("drop_hop_limit".into(), packets / 10), ("drop_too_big".into(), 5)].into();
            view
        };
        let top = compare(&view(10_000, 7.5), &view(60_000, 9.5));
        assert_eq!((top.ports[0].rx_packets_per_s, top.ports[0].rx_bits_per_s), (25_000.0, 20_000_000.0));
        assert_eq!((top.workers[0].in_per_s, top.workers[0].busy), (25_000.0, 0.25));
        let drops: Vec<_> = top.drops.iter().map(|it| (it.reason.as_str(), it.per_s)).collect();
        assert_eq!(drops, [("drop_hop_limit", 2500.0), ("drop_too_big", 0.0)]);
        let text = text(&top);
        assert!(["25.0k", "20.0M", "25 %"].iter().all(|it| text.contains(it)), "{text}");
        // A restart in between is no flood.
        assert_eq!(compare(&view(60_000, 9.5), &view(90_000, 0.3)).ports[0].rx_packets_per_s, 0.0);
        // An answer that came late is about more time, whatever the interval was to be.
        assert_eq!(compare(&view(10_000, 7.5), &view(60_000, 12.5)).workers[0].in_per_s, 10_000.0);
    }
}
