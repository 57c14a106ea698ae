//! What the engine tells, as Prometheus reads it (OpenMetrics 1.0).
//!
//! Names: `pshim6_` and what it is, with the unit and `_total` where OpenMetrics wants them. Counters keep the names they
//! have in `pshim6ctl counters`; the reasons to drop are one family, `pshim6_drops_total`, by reason and worker. Nothing here
//! grows with strangers' traffic: labels are workers, ports, providers, reasons, and `metrics.paths` paths at most.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::api::{
    BmpSourceView, BmpState, FillView, MetricsView, PathView, PortView, ProviderView, SharedView, SyncBoxView,
    TimesView, UplinkView,
};

/// What is sent.
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What begins the name of a reason to drop.
const DROP: &str = "drop_";
/// What workers measure rather than count, and have told already.
const MEASURED: &str = "contexts";
/// The same, told here.
const GUESTS: &str = "guests";

/// What the system knows of the process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProcessFigures {
    /// Seconds of processor time.
    pub(super) cpu_s: f64,
    /// Octets of memory in use.
    pub(super) resident: u64,
    /// Descriptors open.
    pub(super) descriptors: u64,
    /// Threads.
    pub(super) threads: u64,
}

/// Counts of the management thread: name, meaning, value.
pub(super) type Own = Vec<(&'static str, &'static str, u64)>;

/// The whole text.
pub(super) fn text(view: MetricsView, own: Own, process: ProcessFigures) -> Result<String, Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures { view, own, process }));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct Figures {
    view: MetricsView,
    own: Own,
    process: ProcessFigures,
}

/// One figure of a family.
enum Figure<'a> {
    Counter(u64),
    Gauge(f64),
    Times(&'a TimesView),
}

/// A figure of something: its name, what it means, and where it is found.
type Told<T, V> = (&'static str, &'static str, fn(&T) -> V);

type Labels = Vec<(&'static str, String)>;

/// A family: its rows are all of one kind.
struct Family<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Family<'_, '_> {
    fn counters(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (Labels, u64)>) -> Result<(), Error> {
        let rows = rows.into_iter().map(|(labels, value)| (labels, Figure::Counter(value)));
        self.write(name, help, MetricType::Counter, rows)
    }

    fn gauges(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (Labels, f64)>) -> Result<(), Error> {
        let rows = rows.into_iter().map(|(labels, value)| (labels, Figure::Gauge(value)));
        self.write(name, help, MetricType::Gauge, rows)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        self.gauges(name, help, [(Vec::new(), value)])
    }

    fn times<'t>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, &'t TimesView)>,
    ) -> Result<(), Error> {
        let rows = rows.into_iter().map(|(labels, value)| (labels, Figure::Times(value)));
        self.write(name, help, MetricType::Histogram, rows)
    }

    fn write<'f>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        rows: impl Iterator<Item = (Labels, Figure<'f>)>,
    ) -> Result<(), Error> {
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, figure) in rows {
            if labels.is_empty() {
                one(&mut family, &figure)?;
            } else {
                one(&mut family.encode_family(&labels)?, &figure)?;
            }
        }
        Ok(())
    }
}

fn one(metric: &mut MetricEncoder<'_>, figure: &Figure<'_>) -> Result<(), Error> {
    match figure {
        Figure::Counter(value) => metric.encode_counter::<NoLabelSet, _, u64>(value, None),
        Figure::Gauge(value) => metric.encode_gauge(value),
        Figure::Times(times) => {
            let mut buckets: Vec<(f64, u64)> = times.buckets.iter().map(|it| (it.below_s, it.count)).collect();
            // The last one has no bound, since it takes whatever is longer than the others allow.
            if let Some(last) = buckets.last_mut() {
                last.0 = f64::INFINITY;
            }
            metric.encode_histogram::<NoLabelSet>(times.sum_s, times.count(), &buckets, None)
        }
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut out = Family(&mut encoder);
        self.the_box(&mut out)?;
        self.counters(&mut out)?;
        self.ports(&mut out)?;
        self.providers(&mut out)?;
        self.uplinks(&mut out)?;
        self.store(&mut out)?;
        self.sync(&mut out)?;
        self.bmp(&mut out)?;
        self.paths(&mut out)?;
        self.rooms(&mut out)?;
        self.times(&mut out)?;
        self.process(&mut out)
    }
}

impl Figures {
    fn the_box(&self, out: &mut Family<'_, '_>) -> Result<(), Error> {
        let status = &self.view.status;
        let info = vec![("box", status.name.clone()), ("version", status.version.clone())];
        out.gauges("pshim6_build_info", "The box and its program", [(info, 1.0)])?;
        out.gauge("pshim6_ready", "Whether the box serves", flag(status.ready))?;
        out.gauge("pshim6_fit", "Whether the box is fit to have routes to it", flag(status.system.fit))?;
        out.gauge("pshim6_uptime_seconds", "Seconds since the start", status.uptime_s as f64)?;
        out.gauge("pshim6_hosts", "Hosts served", status.hosts as f64)?;
        let counts = &status.contexts;
        let states = [
            ("established", counts.established),
            ("exploring", counts.exploring),
            ("opening", counts.opening),
            ("failed", counts.failed),
            ("no-support", counts.no_support),
        ];
        let rows = states.map(|(state, count)| (vec![("state", state.to_owned())], count as f64));
        let help = "Contexts by state; those exploring are established as well, those failed and without support are remembered";
        out.gauges("pshim6_contexts", help, rows)?;
        let workers = status.workers.iter().map(|it| (worker(it.id), it.contexts as f64));
        out.gauges("pshim6_worker_contexts", "Contexts in the worker's table", workers)
    }

    fn counters(&self, out: &mut Family<'_, '_>) -> Result<(), Error> {
        let view = &self.view.counters;
        let of_workers = |name: &str| -> Vec<(u16, u64)> {
            let share = |(at, own): (usize, &std::collections::BTreeMap<String, u64>)| {
                Some((u16::try_from(at).unwrap_or(u16::MAX), *own.get(name)?))
            };
            view.workers.iter().enumerate().filter_map(share).collect()
        };
        let mut drops: Vec<(Labels, u64)> = Vec::new();
        for (name, value) in view.counters.iter().filter(|(name, _)| *name != MEASURED) {
            let shares = of_workers(name);
            if let Some(reason) = name.strip_prefix(DROP) {
                let row = |(at, share)| ([worker(at), vec![("reason", reason.to_owned())]].concat(), share);
                drops.extend(shares.into_iter().map(row));
                continue;
            }
            let help = view.descriptions.get(name).map_or("", |it| it.trim_end_matches('.'));
            if name == GUESTS {
                let rows = shares.into_iter().map(|(at, share)| (worker(at), share as f64));
                out.gauges("pshim6_worker_guests", help, rows)?;
                continue;
            }
            let name = format!("pshim6_{name}");
            if shares.is_empty() {
                out.counters(&name, help, [(Vec::new(), *value)])?;
            } else {
                out.counters(&name, help, shares.into_iter().map(|(at, share)| (worker(at), share)))?;
            }
        }
        out.counters("pshim6_drops", "Packets dropped, by reason", drops)?;
        for (name, help, value) in &self.own {
            out.counters(&format!("pshim6_{name}"), help.trim_end_matches('.'), [(Vec::new(), *value)])?;
        }
        Ok(())
    }

    fn ports(&self, out: &mut Family<'_, '_>) -> Result<(), Error> {
        let ports = &self.view.status.ports;
        let label = |name: &str| vec![("port", name.to_owned())];
        out.gauges(
            "pshim6_port_up",
            "Whether the link is up",
            ports.iter().map(|it| (label(&it.name), flag(it.link_up))),
        )?;
        let counters: [Told<PortView, u64>; 8] = [
            ("pshim6_port_rx_packets", "Packets received", |it| it.rx_packets),
            ("pshim6_port_rx_octets", "Octets received", |it| it.rx_octets),
            ("pshim6_port_rx_missed", "Packets the device had no room for", |it| it.rx_missed),
            ("pshim6_port_tx_packets", "Packets sent", |it| it.tx_packets),
            ("pshim6_port_tx_octets", "Octets sent", |it| it.tx_octets),
            ("pshim6_port_tx_dropped", "Packets the device did not take", |it| it.tx_dropped),
            ("pshim6_port_link_changes", "Changes of the link the device told of", |it| it.link_changes),
            ("pshim6_port_resets", "Times the device was set up anew", |it| it.resets),
        ];
        for (name, help, value) in counters {
            out.counters(name, help, ports.iter().map(|it| (label(&it.name), value(it))))?;
        }
        Ok(())
    }

    fn providers(&self, out: &mut Family<'_, '_>) -> Result<(), Error> {
        let providers = &self.view.status.providers;
        let label = |name: &str| vec![("provider", name.to_owned())];
        let gauges: [Told<ProviderView, f64>; 5] = [
            ("pshim6_provider_up", "Whether link and router are there", |it| flag(it.up)),
            ("pshim6_provider_router_resolved", "Whether the router answers", |it| flag(it.next_hop_resolved)),
            ("pshim6_provider_contexts", "Contexts that send through it", |it| it.contexts as f64),
            ("pshim6_provider_told_broken", "Whether peers are told that it is broken", |it| flag(it.told_broken)),
            ("pshim6_provider_leaving", "Whether it has gone from the configuration", |it| flag(it.leaving)),
        ];
        for (name, help, value) in gauges {
            out.gauges(name, help, providers.iter().map(|it| (label(&it.name), value(it))))?;
        }
        let wanted = |it: &ProviderView| vec![("provider", it.name.clone()), ("use", it.steering.to_string())];
        out.gauges(
            "pshim6_provider_use",
            "What the operator wants of it",
            providers.iter().map(|it| (wanted(it), 1.0)),
        )?;
        let translated = self.view.natv6.iter().flat_map(|it| {
            let row = |way: &str, packets| ([label(&it.name), vec![("direction", way.to_owned())]].concat(), packets);
            [row("out", it.packets_out), row("in", it.packets_in), row("hairpin", it.hairpins)]
        });
        out.counters("pshim6_provider_natv6_packets", "Packets translated for peers without Shim6", translated)
    }

    fn bmp(&self, out: &mut Family<'_, '_>) -> Result<(), Error> {
        let view = &self.view.bmp;
        if !view.enabled {
            return Ok(());
        }
        out.gauge("pshim6_bmp_routers", "Routers that are connected", view.routers.len() as f64)?;
        let help = "Paths that packets are kept off because routers say that their route is lost";
        out.gauge("pshim6_bmp_paths_held", help, view.held as f64)?;
        let label = |it: &BmpSourceView| vec![("provider", it.provider.clone()), ("peer", it.peer.to_string())];
        let gauges: [Told<BmpSourceView, f64>; 4] = [
            ("pshim6_bmp_source_complete", "Whether all routes of a BGP session are known", |it| {
                flag(it.state == BmpState::Complete)
            }),
            ("pshim6_bmp_source_routes", "Prefixes a BGP session has", |it| it.routes as f64),
            ("pshim6_bmp_source_lost", "Prefixes of peers to which the provider has lost its route", |it| {
                it.lost as f64
            }),
            ("pshim6_bmp_source_distrusted_seconds", "For how long a provider's feed is not believed", |it| {
                it.distrusted_s as f64
            }),
        ];
        for (name, help, value) in gauges {
            out.gauges(name, help, view.sources.iter().map(|it| (label(it), value(it))))?;
        }
        Ok(())
    }

    fn uplinks(&self, out: &mut Family<'_, '_>) -> Result<(), Error> {
        let uplinks = &self.view.status.uplinks;
        let label = |it: &UplinkView| vec![("provider", it.name.clone())];
        let ready = |it: &UplinkView| (label(it), flag(it.waits.is_empty()));
        out.gauges(
            "pshim6_uplink_ready",
            "Whether prefix and router of a provider that leaves them open are known",
            uplinks.iter().map(ready),
        )?;
        let prefixes = |it: &UplinkView| (label(it), it.delegated.len() as f64);
        out.gauges("pshim6_uplink_prefixes", "Prefixes it has delegated", uplinks.iter().map(prefixes))?;
        let valid = |it: &UplinkView| {
            let fresh = it.delegated.iter().find(|delegated| !delegated.deprecated);
            Some((label(it), fresh?.valid_s? as f64))
        };
        out.gauges(
            "pshim6_uplink_valid_seconds",
            "How long the prefix in use is valid, if that ends",
            uplinks.iter().filter_map(valid),
        )
    }

    fn store(&self, out: &mut Family<'_, '_>) -> Result<(), Error> {
        let store = self.view.status.store.as_ref();
        let reached = store.map(|it| (Vec::new(), flag(it.alone.is_none())));
        out.gauges("pshim6_store_reached", "Whether the store that boxes of a site share can be reached", reached)?;
        let version = |it: &SharedView| (vec![("file", it.name.clone())], it.version as f64);
        let shared = || store.iter().flat_map(|it| &it.shared);
        out.gauges("pshim6_shared_version", "Version of a file that boxes share", shared().map(version))?;
        let refused = shared().map(|it| (vec![("file", it.name.clone())], flag(it.refused)));
        out.gauges("pshim6_shared_refused", "Whether that version cannot be obeyed by this box", refused)
    }

    fn sync(&self, out: &mut Family<'_, '_>) -> Result<(), Error> {
        let Some(view) = &self.view.status.sync else { return Ok(()) };
        out.gauge("pshim6_sync_caught_up", "Whether this box knows what the others know", flag(view.caught_up))?;
        // One that has not said who it is has no number yet, and is told by its address all the same.
        let label = |it: &SyncBoxView| vec![("address", it.address.clone())];
        let gauges: [Told<SyncBoxView, f64>; 5] = [
            ("pshim6_sync_connected", "Whether another box and this one hear each other", |it| {
                flag(it.hears && it.heard)
            }),
            ("pshim6_sync_partner_caught_up", "Whether it has told all it had when it came", |it| flag(it.caught_up)),
            ("pshim6_sync_refused", "Whether it is not reached, or the two do not fit", |it| {
                flag(it.refused.is_some())
            }),
            ("pshim6_sync_behind", "Contexts and words it has still to be told, about", |it| it.behind as f64),
            ("pshim6_sync_waiting_batches", "Batches that it has not acknowledged", |it| it.waiting as f64),
        ];
        for (name, help, value) in gauges {
            out.gauges(name, help, view.boxes.iter().map(|it| (label(it), value(it))))?;
        }
        let last = |it: &SyncBoxView| Some((label(it), it.last_heard_ms? as f64 / 1e3));
        out.gauges(
            "pshim6_sync_last_heard_seconds",
            "Time since it said anything",
            view.boxes.iter().filter_map(last),
        )?;
        let counters: [Told<SyncBoxView, u64>; 9] = [
            ("pshim6_sync_sent_batches", "Batches sent to it", |it| it.sent),
            ("pshim6_sync_resent_batches", "Batches sent once more", |it| it.resent),
            ("pshim6_sync_received_batches", "Batches of its that were taken in", |it| it.received),
            ("pshim6_sync_repeated_batches", "Batches that came once more", |it| it.repeated),
            ("pshim6_sync_sent_versions", "Versions of contexts it was told", |it| it.contexts_told),
            ("pshim6_sync_received_versions", "Versions of contexts it told that were taken in", |it| {
                it.contexts_taken
            }),
            ("pshim6_sync_older_versions", "Versions it told of which a newer one was known", |it| it.contexts_older),
            ("pshim6_sync_refused_versions", "Versions it told that were not taken in", |it| it.contexts_refused),
            ("pshim6_sync_dropped_words", "Words and packets that found no room on the way to it", |it| it.dropped),
        ];
        for (name, help, value) in counters {
            out.counters(name, help, view.boxes.iter().map(|it| (label(it), value(it))))?;
        }
        let strangers =
            [("no handshake", view.handshakes_failed), ("nonsense", view.nonsense), ("turned away", view.turned_away)];
        let rows = strangers.map(|(why, count)| (vec![("why", why.to_owned())], count));
        out.counters("pshim6_sync_strangers", "Connections by others than the boxes of the site", rows)
    }

    fn paths(&self, out: &mut Family<'_, '_>) -> Result<(), Error> {
        let paths = &self.view.paths;
        let label = |it: &PathView| vec![("provider", it.provider.clone()), ("peer_prefix", it.peer_prefix.clone())];
        let state = |it: &PathView| ([label(it), vec![("state", it.state.clone())]].concat(), 1.0);
        out.gauges("pshim6_path_state", "What is known of a path: up, down or unknown", paths.iter().map(state))?;
        out.gauges(
            "pshim6_path_contexts",
            "Contexts on a path",
            paths.iter().map(|it| (label(it), it.contexts as f64)),
        )?;
        out.gauges(
            "pshim6_path_in_udp",
            "Whether a path drops next header 140, so that Shim6 goes in UDP there",
            paths.iter().map(|it| (label(it), f64::from(u8::from(it.carriage == "udp")))),
        )?;
        let rtts = paths.iter().filter_map(|it| Some((label(it), it.rtt_ms? / 1000.0)));
        out.gauges("pshim6_path_rtt_seconds", "Round trip of the last probe that was answered", rtts)?;
        let watched = || paths.iter().filter_map(|it| Some((label(it), it.liveness.as_ref()?)));
        out.gauges(
            "pshim6_path_liveness_up",
            "Whether the peer's box and this one hear each other on a path they watch",
            watched().map(|(label, it)| (label, f64::from(u8::from(it.state == "up")))),
        )?;
        out.gauges(
            "pshim6_path_liveness_detection_seconds",
            "Silence after which a watched path is down",
            watched().map(|(label, it)| (label, it.detection_ms / 1000.0)),
        )?;
        out.gauges(
            "pshim6_path_liveness_rtt_seconds",
            "Round trip of the last liveness poll that was answered",
            watched().filter_map(|(label, it)| Some((label, it.rtt_ms? / 1000.0))),
        )?;
        out.gauge("pshim6_paths_left_off", "Paths in use that are not told one by one", self.view.paths_left_off as f64)
    }

    fn rooms(&self, out: &mut Family<'_, '_>) -> Result<(), Error> {
        let label = |kind: &'static str, it: &FillView| {
            let owner = it.worker.map(worker).unwrap_or_default();
            [owner, vec![(kind, it.name.clone())]].concat()
        };
        let rings = &self.view.rings;
        out.gauges(
            "pshim6_ring_used",
            "Places taken in a ring",
            rings.iter().map(|it| (label("ring", it), it.used as f64)),
        )?;
        out.gauges("pshim6_ring_size", "Places in a ring", rings.iter().map(|it| (label("ring", it), it.max as f64)))?;
        let tables = &self.view.tables;
        out.gauges(
            "pshim6_table_used",
            "Entries in a table",
            tables.iter().map(|it| (label("table", it), it.used as f64)),
        )?;
        out.gauges("pshim6_table_size", "Room in a table", tables.iter().map(|it| (label("table", it), it.max as f64)))
    }

    fn times(&self, out: &mut Family<'_, '_>) -> Result<(), Error> {
        let view = &self.view;
        out.times("pshim6_handshake_seconds", "Handshakes from I1 to R2", [(Vec::new(), &view.handshakes)])?;
        let help = "From a context's doubt about its pair to one that works";
        out.times("pshim6_failover_seconds", help, [(Vec::new(), &view.failovers)])?;
        let turns = view.turns.iter().enumerate().map(|(at, it)| (worker(u16::try_from(at).unwrap_or(u16::MAX)), it));
        out.times("pshim6_worker_turn_seconds", "Turns of a worker in which there was something to do", turns)
    }

    fn process(&self, out: &mut Family<'_, '_>) -> Result<(), Error> {
        let it = &self.process;
        out.0
            .encode_descriptor("process_cpu_seconds", "Processor time", None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&it.cpu_s, None)?;
        out.gauge("process_resident_memory_bytes", "Memory in use", it.resident as f64)?;
        out.gauge("process_open_fds", "Descriptors open", it.descriptors as f64)?;
        out.gauge("process_threads", "Threads", it.threads as f64)?;
        out.gauge("process_start_time_seconds", "When the process started, since 1970", self.view.started_s)
    }
}

fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

fn worker(number: u16) -> Labels {
    vec![("worker", number.to_string())]
}
