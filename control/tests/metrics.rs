//! What monitoring is told: it can be read by Prometheus, and what the dashboard and the alert rules name is among it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use control::engine::Tally;
use control::manage::api::*;
use control::manage::{Call, Doors, Server};
use dataplane::counters::{Counters, DropReason};

/// One of everything, with the names of all counters there are.
fn figures() -> MetricsView {
    let of_worker: BTreeMap<String, u64> = Counters::default().iter().map(|(name, _)| (name.to_owned(), 3)).collect();
    let mut all: Vec<(&str, &str)> = Counters::descriptions().collect();
    all.extend(Tally::default().iter().map(|(name, help, _)| (name, help)));
    all.extend(control::dns::MEANINGS);
    let counters = CountersView {
        counters: all.iter().map(|(name, _)| ((*name).to_owned(), 6)).collect(),
        descriptions: all.iter().map(|(name, help)| ((*name).to_owned(), (*help).to_owned())).collect(),
        advice: BTreeMap::new(),
        workers: vec![of_worker.clone(), of_worker],
    };
    let other = SyncBoxView {
        address: "[2001:db8::2]:4700".into(),
        hears: true,
        heard: true,
        last_heard_ms: Some(250),
        behind: 3,
        sent: 4,
        resent: 1,
        contexts_told: 5,
        contexts_taken: 6,
        ..Default::default()
    };
    let away = SyncBoxView { address: "[2001:db8::3]:4700".into(), hears: true, ..Default::default() };
    let sync = SyncView { caught_up: true, boxes: vec![other, away], turned_away: 2, ..Default::default() };
    let status = StatusView {
        sync: Some(Box::new(sync)),
        name: "a \"box\"\\".into(),
        ready: true,
        workers: vec![WorkerView::default()],
        ports: vec![PortView { name: "lan".into(), rx_packets: 7, ..Default::default() }],
        providers: vec![ProviderView { name: "isp-x".into(), up: true, ..Default::default() }],
        ..Default::default()
    };
    let path = PathView {
        provider: "isp-x".into(),
        peer_prefix: "2001:db8:b1:1::/64".into(),
        state: "up".into(),
        evidence: String::new(),
        contexts: 3,
        carriage: "udp".into(),
        liveness: Some(LivenessView { state: "up".into(), detection_ms: 150.0, ..Default::default() }),
        last_in_s: None,
        last_out_s: None,
        rtt_ms: Some(12.5),
        route: None,
    };
    let fill = |worker| FillView { name: "contexts".into(), worker, used: 1, max: 2 };
    let buckets = [(0.5, 1), (1.0, 2), (2.0, 4)].map(|(below_s, count)| BucketView { below_s, count });
    let times = TimesView { sum_s: 9.5, buckets: buckets.to_vec() };
    MetricsView {
        status,
        counters,
        natv6: vec![Natv6ProviderView { name: "isp-x".into(), packets_in: 5, ..Default::default() }],
        paths: vec![path],
        paths_left_off: 2,
        bmp: BmpView {
            enabled: true,
            sources: vec![BmpSourceView {
                provider: "isp-x".into(),
                peer: "2001:db8:aa::1".parse().unwrap(),
                router: None,
                state: BmpState::Complete,
                since_s: 1,
                routes: 2,
                lost: 1,
                lies: 0,
                distrusted_s: 0,
            }],
            ..BmpView::default()
        },
        rings: vec![fill(Some(0))],
        tables: vec![fill(None)],
        handshakes: times.clone(),
        failovers: times.clone(),
        turns: vec![times],
        at_s: 5.5,
        started_s: 1e9,
    }
}

/// What a box tells, by TCP and by its socket.
fn told() -> String {
    let room = std::env::temp_dir().join(format!("pshim6-metrics-{:?}", std::thread::current().id()));
    let _ = fs::remove_dir_all(&room);
    let (engine, calls) = crossbeam::channel::bounded::<Call>(4);
    std::thread::spawn(move || {
        for call in calls {
            call.answer(Response::Metrics(Box::new(figures())));
        }
    });
    let doors = Doors { metrics: Some("[::1]:0".parse().unwrap()), ..Doors::at(&room.join("control.sock")) };
    let server = Server::open(&doors, engine).unwrap();
    let ask = |stream: &mut dyn ReadWrite, place: &str| -> String {
        let request = format!("GET {place} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let tcp = || std::net::TcpStream::connect(server.metrics().unwrap()).unwrap();
    let by_tcp = ask(&mut tcp(), "/metrics");
    let by_socket = ask(&mut UnixStream::connect(server.path()).unwrap(), "/metrics");
    assert!(by_tcp.contains("content-type: application/openmetrics-text; version=1.0.0"), "{by_tcp}");
    let body = |answer: &str| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    let families = |answer: &str| answer.lines().filter(|line| line.starts_with("# TYPE")).count();
    assert_eq!(families(&by_tcp), families(&by_socket));
    // Over TCP there is nothing else, not even to look at.
    for place in ["/v1/status", "/openapi.json", "/v1/reload"] {
        assert!(ask(&mut tcp(), place).starts_with("HTTP/1.1 404 "), "{place}");
    }
    let text = body(&by_tcp);
    drop(server);
    let _ = fs::remove_dir_all(&room);
    text
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

fn kept(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const DASHBOARD: &str = "grafana/pshim6.json";
const RULES: &str = "prometheus/pshim6.rules.yml";

/// Names of figures in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !part(letter));
    words.filter(|word| word.starts_with("pshim6_") || word.starts_with("process_")).collect()
}

// RCM-016
#[test]
fn every_figure_the_dashboard_and_the_rules_name_is_told() {
    let text = told();
    let samples: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap_or_default())
        .collect();
    assert!(samples.len() > 150, "{}", samples.len());
    for file in [DASHBOARD, RULES] {
        let kept = kept(file);
        let named = names(&kept);
        assert!(named.len() > 10, "{file} names {named:?}");
        let unknown: Vec<_> = named.difference(&samples).collect();
        assert!(unknown.is_empty(), "{file} names what no box tells: {unknown:?}");
        let reasons: BTreeSet<&str> = DropReason::ALL.iter().filter_map(|it| it.name().strip_prefix("drop_")).collect();
        for list in kept.replace('\\', "").replace("=~", "=").split("reason=\"").skip(1) {
            for reason in list.split('"').next().unwrap().split('|') {
                assert!(reasons.contains(reason), "{file}: no packet is dropped because of {reason:?}");
            }
        }
    }
}

#[test]
fn the_text_is_what_openmetrics_asks_for() {
    let text = told();
    assert!(text.ends_with("# EOF\n"));
    // Names and values of labels that could break a line do not.
    assert!(text.contains("pshim6_build_info{box=\"a \\\"box\\\"\\\\\",version=\"\"} 1.0\n"), "{text}");
    assert!(text.contains("pshim6_drops_total{worker=\"1\",reason=\"ring_full\"} 3\n"), "{text}");
    assert!(text.contains("pshim6_port_rx_packets_total{port=\"lan\"} 7\n"));
    assert!(text.contains("pshim6_path_in_udp{provider=\"isp-x\",peer_prefix=\"2001:db8:b1:1::/64\"} 1.0\n"));
    assert!(text.contains("pshim6_path_liveness_up{provider=\"isp-x\",peer_prefix=\"2001:db8:b1:1::/64\"} 1.0\n"));
    assert!(text.contains("pshim6_path_rtt_seconds{provider=\"isp-x\",peer_prefix=\"2001:db8:b1:1::/64\"} 0.0125\n"));
    // Of each of the other boxes of the site.
    for line in [
        "connected{address=\"[2001:db8::2]:4700\"} 1.0",
        "connected{address=\"[2001:db8::3]:4700\"} 0.0",
        "behind{address=\"[2001:db8::2]:4700\"} 3.0",
        "last_heard_seconds{address=\"[2001:db8::2]:4700\"} 0.25",
        "sent_batches_total{address=\"[2001:db8::2]:4700\"} 4",
        "resent_batches_total{address=\"[2001:db8::2]:4700\"} 1",
        "sent_versions_total{address=\"[2001:db8::2]:4700\"} 5",
        "received_versions_total{address=\"[2001:db8::2]:4700\"} 6",
        "strangers_total{why=\"turned away\"} 2",
    ] {
        assert!(text.contains(&format!("pshim6_sync_{line}\n")), "{line} is not in {text}");
    }
    assert!(!text.contains("last_heard_seconds{address=\"[2001:db8::3]"), "one that never said anything");
    // Buckets add up, and the last has no bound.
    for line in ["sum 9.5", "count 7", "bucket{le=\"0.5\"} 1", "bucket{le=\"1.0\"} 3", "bucket{le=\"+Inf\"} 7"] {
        assert!(text.contains(&format!("pshim6_handshake_seconds_{line}\n")), "{line} is not in {text}");
    }
    // Each family stands in one place, with its type before its samples.
    let mut families = BTreeSet::new();
    let mut current = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            current = rest.split(' ').next().unwrap();
            assert!(families.insert(current), "{current} twice");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(current), "{line} in {current}");
        }
    }
    assert!(!families.contains("pshim6_drop_ring_full"), "reasons to drop are one family");
    // What goes up and down is no counter.
    assert!(text.contains("pshim6_worker_guests{worker=\"1\"} 3.0\n") && !families.contains("pshim6_guests"), "{text}");
}

/// Says past the harness, which keeps what a test that passes prints, that nothing was tried; where all tools have to be
/// there (`scripts/test` sees to it) that is a failure.
fn untried(tool: &str, error: &std::io::Error) {
    use std::io::Write;
    assert!(std::env::var_os("PSHIM6_TOOLS").is_none(), "{tool} cannot be started: {error}");
    let _ = writeln!(std::io::stderr(), "\nnot tried, {tool} cannot be started: {error}");
}

/// Looked at by Prometheus itself where it is installed.
#[test]
fn prometheus_takes_the_rules() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(RULES);
    match std::process::Command::new("promtool").args(["check", "rules"]).arg(&path).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => untried("promtool", &error),
    }
}
