//! Packets as the operator sees them: those that come by, and those that are made up.

use std::time::{Duration, SystemTime};

use dataplane::counters::{Count, DropReason};
use dataplane::snapshot::{Block, PortId};
use dataplane::trace::{Decision, Filter, Octets, Record};
use dataplane::translate::BURST;
use dataplane::wire::ContextTag;

use super::Control;
use super::uplinks::resolved;
use crate::config::{Prefix, Site};
use crate::engine::worker_limits;
use crate::manage::api::{
    ErrorView, ExplainRequest, ExplainView, PacketView, Response, TraceRequest, TraceStarted, TraceStopped, TraceView,
    TracedView,
};
use crate::time::Instant;

/// A trace nobody asks about ends after this.
const IDLE: Duration = Duration::from_secs(10);
/// Records of each worker in one answer.
const FETCHED: usize = 256;
/// Records a second of each worker, unless said otherwise, and most of them.
const PER_SECOND: u32 = 100;
const PER_SECOND_MAX: u32 = 10_000;

/// The trace there is.
#[derive(Debug)]
pub(super) struct Tracing {
    id: u64,
    until: Instant,
    /// Records lost before it began.
    lost_before: u64,
}

impl Control {
    pub(super) fn start_trace(&mut self, now: Instant, asked: &TraceRequest) -> Response {
        let filter = match filter(&resolved(&self.configuration, &self.engine.found()).site, asked) {
            Ok(filter) => filter,
            Err(error) => return Response::Error(error),
        };
        self.traces += 1;
        self.workers.trace(Some(filter), BURST);
        self.tracing = Some(Tracing { id: self.traces, until: now + IDLE, lost_before: self.trace_lost() });
        Response::TraceStarted(TraceStarted { id: self.traces, idle_s: IDLE.as_secs() })
    }

    pub(super) fn stop_trace(&mut self) -> bool {
        let was = self.tracing.take().is_some();
        if was {
            self.workers.trace(None, BURST);
        }
        was
    }

    /// Ends this trace; one that took its place goes on.
    pub(super) fn trace_stopped(&mut self, id: u64) -> Response {
        let there = self.tracing.as_ref().is_some_and(|tracing| tracing.id == id);
        Response::TraceStopped(TraceStopped { was: there && self.stop_trace() })
    }

    /// Ends a trace that nobody asks about any more.
    pub(super) fn tend_trace(&mut self, now: Instant) {
        if self.tracing.as_ref().is_some_and(|tracing| tracing.until <= now) {
            self.stop_trace();
        }
    }

    pub(super) fn fetch_trace(&mut self, now: Instant, id: u64) -> Response {
        let lost = self.trace_lost();
        let Some(tracing) = self.tracing.as_mut().filter(|tracing| tracing.id == id) else {
            return Response::missing("that trace has ended: another one began, or nobody asked for its records");
        };
        tracing.until = now + IDLE;
        let mut view = TraceView { records: Vec::new(), lost: lost.saturating_sub(tracing.lost_before) };
        let site = &resolved(&self.configuration, &self.engine.found()).site;
        let began = began(now);
        self.workers.traced(FETCHED, &mut |record| view.records.push(traced_view(site, began, record)));
        Response::Trace(view)
    }

    fn trace_lost(&self) -> u64 {
        let counters = (0..self.workers.count()).filter_map(|at| self.workers.counters(at));
        counters.map(|counters| counters.count(Count::TraceLost)).sum()
    }

    pub(super) fn explain(&self, now: Instant, asked: &ExplainRequest) -> Response {
        let site = &resolved(&self.configuration, &self.engine.found()).site;
        match self.engine.explain(now, worker_limits(site), asked) {
            Some((record, why)) => {
                let packet = traced_view(site, began(now) + now.0.as_secs_f64(), &Record { now: 0, ..record });
                Response::Explained(Box::new(ExplainView { packet, why }))
            }
            None => Response::error("no port is where such a packet could come in"),
        }
    }
}

/// Seconds since 1970 when the box's clock was zero.
fn began(now: Instant) -> f64 {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    unix.as_secs_f64() - now.0.as_secs_f64()
}

fn filter(site: &Site, asked: &TraceRequest) -> Result<Filter, ErrorView> {
    let mut filter = Filter { dropped: asked.dropped, ..Filter::default() };
    if asked.addresses.len() > filter.addresses.len() {
        return Err(ErrorView::new("two addresses or prefixes at most"));
    }
    for (place, text) in filter.addresses.iter_mut().zip(&asked.addresses) {
        let whole = if text.contains('/') { text.clone() } else { format!("{text}/128") };
        let prefix: Prefix =
            whole.parse().map_err(|_| ErrorView::new(format!("{text} is no address and no prefix")))?;
        *place = Some(Block::new(prefix.address(), prefix.length()));
    }
    if let Some(text) = &asked.tag {
        let value = u64::from_str_radix(text, 16).ok().filter(|value| value >> 47 == 0);
        let value = value.ok_or_else(|| ErrorView::new(format!("{text} is no tag: up to 12 hex digits")))?;
        filter.tag = Some(ContextTag::truncate(value));
    }
    if let Some(name) = &asked.provider {
        let provider = site.providers.iter().find(|provider| provider.name == *name);
        let provider = provider.ok_or_else(|| ErrorView::missing(format!("there is no provider called {name}")))?;
        filter.provider = Some(u64::from_be_bytes(provider.prefix.high_half()));
    }
    if let Some(name) = &asked.reason {
        let plain = |reason: &&DropReason| reason.name() == name || reason.name().strip_prefix("drop_") == Some(name);
        let reason = DropReason::ALL.iter().find(plain);
        filter.reason = Some(*reason.ok_or_else(|| {
            ErrorView::missing(format!(
                "no packet is dropped because of {name}; pshim6ctl counters drop_ --explain lists reasons"
            ))
        })?);
    }
    filter.per_second = asked.per_second.unwrap_or(PER_SECOND);
    if !(1..=PER_SECOND_MAX).contains(&filter.per_second) {
        return Err(ErrorView::new(format!("1 to {PER_SECOND_MAX} records a second")));
    }
    Ok(filter)
}

fn traced_view(site: &Site, began: f64, record: &Record) -> TracedView {
    let port = |id: PortId| site.ports.get(usize::from(id.0)).map(|port| port.name.clone()).unwrap_or_default();
    let port_out = match record.decision {
        Decision::Forward(to) | Decision::AwaitNeighbour(to, _) => Some(port(to)),
        _ => None,
    };
    let decision = match record.decision {
        // What was to be done with it did not come about.
        _ if record.reason.is_some() && !matches!(record.decision, Decision::Answer(_)) => "drop",
        Decision::Forward(_) => "forward",
        Decision::AwaitNeighbour(..) => "await-neighbour",
        Decision::Hold => "hold",
        Decision::Control(_) => "control",
        Decision::HandOver(_) => "hand-over",
        Decision::Fragment(_) => "fragment",
        Decision::Answer(_) => "answer",
        Decision::Drop => "drop",
    };
    TracedView {
        at_s: began + record.now as f64 / 1000.0,
        worker: record.worker.into(),
        port_in: port(record.port),
        port_out,
        before: packet_view(&record.before),
        after: packet_view(&record.after),
        decision: decision.to_owned(),
        reason: record.reason.map(|reason| reason.name().to_owned()),
        local_tag: record.context.map(|context| context.local_tag.to_string()),
        stages: stages(site, &port, record),
    }
}

fn packet_view(octets: &Octets) -> PacketView {
    let hex = octets.bytes().iter().map(|octet| format!("{octet:02x}")).collect();
    PacketView { octets: hex, length: octets.whole }
}

/// Each stage's decision, in words.
fn stages(site: &Site, port: &impl Fn(PortId) -> String, record: &Record) -> Vec<String> {
    let ends = |octets: &Octets| match octets.addresses() {
        Some([source, target]) => format!("{source} > {target}"),
        None => "no IPv6 packet".to_owned(),
    };
    let from = match record.origin {
        "device" => "",
        "worker" => ", given on or kept by a worker",
        _ => ", given back by control",
    };
    let mut stages =
        vec![format!("in: port {}, {} octets{from}: {}", port(record.port), record.before.whole, ends(&record.before))];
    stages.push(match &record.context {
        None => "context: none".to_owned(),
        Some(it) => {
            let kind = match (it.forked, it.live) {
                (_, false) => "a context that is not ready",
                (true, true) => "the forked context",
                (false, true) => "the context",
            };
            let provider = site.providers.iter().find(|provider| provider.prefix.contains(it.locators.local.0));
            let provider = provider.map_or_else(|| "no provider".to_owned(), |it| format!("provider {}", it.name));
            let standby = if it.standby { ", the standby: the other pair's provider or path is lost" } else { "" };
            format!(
                "context: {kind} {} (peer's tag {}) of {} and {}, by {} > {}, {provider}{standby}",
                it.local_tag, it.peer_tag, it.ulids.local.0, it.ulids.peer.0, it.locators.local.0, it.locators.peer.0
            )
        }
    });
    if record.before.bytes() != record.after.bytes() && record.before.addresses() != record.after.addresses() {
        stages.push(format!("rewritten: {}, {} octets", ends(&record.after), record.after.whole));
    }
    match record.decision {
        Decision::Forward(to) => stages.push(format!("out: port {}", port(to))),
        Decision::AwaitNeighbour(to, next_hop) => {
            stages.push(format!("waits for neighbour discovery of {next_hop} on port {}", port(to)));
        }
        Decision::Hold => stages.push("held until there is a context".to_owned()),
        Decision::Control(what) => stages.push(format!("to the control core: {what}")),
        Decision::HandOver(worker) => stages.push(format!("to worker {worker}, which owns its context")),
        Decision::Fragment(most) => stages.push(format!("cut into fragments of at most {most} octets")),
        Decision::Answer(what) => stages.push(format!("answered by ICMPv6 {what}, if the rate allows")),
        Decision::Drop => {}
    }
    if let Some(reason) = record.reason {
        stages.push(format!("dropped: {}: {}", reason.name(), reason.help()));
    }
    stages
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SITE: &str = r#"
[box]
name = "a"
[site]
prefix = "fc00:a::/48"
lan = "fc00:a:0:1::/64"
port = "lan"
[[port]]
name = "lan"
device = "net_null0"
addresses = ["fc00:a:0:1::1/64"]
[[port]]
name = "x"
device = "net_null1"
addresses = ["2001:db8:aa::2/64"]
[[provider]]
name = "isp-x"
port = "x"
prefix = "2001:db8:a1:1::/64"
next_hop = "2001:db8:aa::1"
"#;

    #[test]
    fn what_is_asked_for_becomes_a_filter_or_a_sentence() {
        let (site, _) = Site::parse(Path::new("site.toml"), SITE).unwrap();
        let asked = TraceRequest {
            addresses: vec!["fc00:a::5".into(), "2001:db8::/32".into()],
            tag: Some("0000000000ff".into()),
            provider: Some("isp-x".into()),
            reason: Some("hop_limit".into()),
            ..Default::default()
        };
        let made = filter(&site, &asked).unwrap();
        assert!(made.addresses[0].unwrap().contains("fc00:a::5".parse().unwrap()));
        assert!(!made.addresses[0].unwrap().contains("fc00:a::6".parse().unwrap()));
        assert!(made.addresses[1].unwrap().contains("2001:db8:7::".parse().unwrap()));
        assert_eq!((made.tag, made.provider), (Some(ContextTag::truncate(0xff)), Some(0x2001_0db8_00a1_0001)));
        assert_eq!((made.reason, made.per_second), (Some(DropReason::HopLimit), PER_SECOND));
        let refused = |asked: TraceRequest| filter(&site, &asked).unwrap_err().text;
        let addresses = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let table = [
            (TraceRequest { addresses: addresses(&["h1"]), ..Default::default() }, "h1 is no address and no prefix"),
            (
                TraceRequest { addresses: addresses(&["::1"; 3]), ..Default::default() },
                "two addresses or prefixes at most",
            ),
            (TraceRequest { tag: Some("x".into()), ..Default::default() }, "x is no tag: up to 12 hex digits"),
            (TraceRequest { tag: Some("ffffffffffff".into()), ..Default::default() }, "ffffffffffff is no tag"),
            (TraceRequest { provider: Some("z".into()), ..Default::default() }, "there is no provider called z"),
            (
                TraceRequest { reason: Some("luck".into()), ..Default::default() },
                "no packet is dropped because of luck",
            ),
            (TraceRequest { per_second: Some(0), ..Default::default() }, "1 to 10000 records a second"),
        ];
        for (asked, text) in table {
            assert!(refused(asked).starts_with(text), "{text}");
        }
    }
}
