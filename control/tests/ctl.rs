//! `pshim6ctl` as an operator meets it: arguments in, words and exit status out.

#[path = "ctl/watching.rs"]
mod watching;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use control::manage::{Call, Doors, Server, api::*};
use serde_json::Value;
use watching::{seldom, traced};

const SITE: &str = r#"[box]
name = "a-box"
control_socket = "control.sock"

[site]
prefix = "fc00:a::/48"
lan = "fc00:a:0:1::/64"
port = "lan"

[[port]]
name = "lan"
device = "net_af_packet0,iface=a-lan"
addresses = ["fc00:a:0:1::1/64"]

[[port]]
name = "x"
device = "net_af_packet1,iface=a-x"
addresses = ["2001:db8:aa::2/64"]

[[port]]
name = "y"
device = "net_af_packet2,iface=a-y"
addresses = ["2001:db8:ab::2/64"]

[[provider]]
name = "isp-x"
port = "x"
prefix = "2001:db8:a1:1::/64"
next_hop = "2001:db8:aa::1"

[[provider]]
name = "isp-y"
port = "y"
prefix = "2001:db8:a2:1::/64"
next_hop = "2001:db8:ab::1"
"#;

/// A directory with a site in it, removed at its end.
struct Room(PathBuf);

impl Room {
    fn new(name: &str, site: &str) -> Room {
        let path = std::env::temp_dir().join(format!("pshim6-ctl-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("site.toml"), site).unwrap();
        Room(path)
    }

    /// Runs `pshim6ctl` in the room, so that files are named as short as an operator would.
    fn ctl(&self, arguments: &str) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_pshim6ctl"))
            .current_dir(&self.0)
            .args(["--config", "site.toml"])
            .args(arguments.split_whitespace())
            .output()
            .unwrap();
        Said::from(output)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
struct Said {
    status: i32,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        Said { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Said {
    fn json(&self) -> Value {
        assert_eq!((self.status, self.err.as_str()), (0, ""), "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }
}

#[test]
fn a_good_site_passes_the_check() {
    let room = Room::new("good", SITE);
    let said = room.ctl("check");
    assert_eq!(said.out, "site.toml: good; ports: 3, providers: 2, hosts: 0, static peers: 0\n");
    assert_eq!((said.status, said.err.as_str()), (0, "warning: hosts.json: no hosts yet (pshim6ctl host add NAME)\n"));
    // R5534-104: advised against, not refused.
    let room = Room::new("warned", &format!("{SITE}\n[reap]\nsend_timeout_s = 3\n"));
    let said = room.ctl("check --json");
    assert_eq!(said.json()["warnings"][0]["field"], "reap.send_timeout_s");
    assert_eq!(said.json()["warnings"][0]["line"], 38);
    assert_eq!(said.json()["good"], true);
}

// Issue: a wrong configuration is refused with file, line and field.
#[test]
fn a_wrong_site_fails_the_check_with_file_line_and_field() {
    let table = [
        ("port = \"lan\"", "port = \"len\"", "site.toml:8:8: site.port: there is no port called \"len\"\n"),
        ("name = \"a-box\"", "name = 7", "site.toml:2:8: box.name: invalid type: integer `7`, expected a string\n"),
        (
            "lan = \"fc00:a:0:1::/64\"",
            "len = \"fc00:a:0:1::/64\"",
            "site.toml:5:1: site.lan: is missing\nsite.toml:7:1: site.len: unknown field `len`, expected one of `prefix`, \
             `lan`, `port`, `key`, `sec`, `quarantine_s`, `mss_clamp`, `identifier_blocks`, `router`\n",
        ),
        (
            "prefix = \"2001:db8:a2:1::/64\"",
            "prefix = \"2001:db8::/200\"",
            "site.toml:34:10: provider[1].prefix: \"2001:db8::/200\" is not an IPv6 prefix: a length lies between 0 and \
             128, not at 200\n",
        ),
    ];
    for (from, to, expected) in table {
        assert!(SITE.contains(from), "{from}");
        let room = Room::new("wrong", &SITE.replace(from, to));
        let said = room.ctl("check");
        assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (1, "", expected));
        // The other commands refuse it in the same words.
        assert_eq!(room.ctl("status").err, expected);
        assert_eq!(room.ctl("host add h1").err, expected);
        assert!(!room.0.join("hosts.json").exists());
        let json = room.ctl("check --json");
        let view: Value = serde_json::from_str(&json.out).unwrap();
        assert_eq!((json.status, &view["good"]), (1, &Value::Bool(false)));
        assert_eq!(view["errors"].as_array().unwrap().len(), expected.lines().count());
        assert_eq!(view["errors"][0]["file"], "site.toml");
    }
}

#[test]
fn a_wrong_command_line_is_another_status() {
    let room = Room::new("usage", SITE);
    assert_eq!(room.ctl("dance").status, 2);
    assert_eq!(room.ctl("contexts --ulid fc00::g").status, 2);
    assert_eq!(room.ctl("contexts --state open").status, 2);
    assert_eq!(room.ctl("--help").status, 0);
}

#[test]
fn a_daemon_that_does_not_run_is_named() {
    let room = Room::new("down", SITE);
    for verb in ["status", "hosts", "contexts", "paths", "counters", "leases", "reload"] {
        let said = room.ctl(verb);
        assert_eq!((said.status, said.out.as_str()), (3, ""));
        assert_eq!(said.err, "daemon not running at control.sock: No such file or directory (os error 2)\n");
    }
}

// R5533-307
// R4193-020, RCM-018: only locators are published as addresses, and they are what the data path translates to.
#[test]
fn hosts_are_made_listed_and_removed() {
    // R5535-031
    let room = Room::new("hosts", SITE);
    let added = room.ctl("host add a-h1 --domain a.example");
    assert_eq!(added.status, 0, "{added:?}");
    assert_eq!(added.err, "no daemon runs at control.sock; it reads the hosts when it starts\n");
    let list = room.ctl("host list --json").json();
    let host = &list["hosts"][0];
    assert_eq!((host["name"].as_str(), host["kind"].as_str()), (Some("a-h1"), Some("hba")));
    let ulid = host["ulid"].as_str().unwrap();
    assert!(ulid.starts_with("fc00:a:0:1:"), "{ulid}");
    for locator in host["locators"].as_array().unwrap() {
        let record = format!("a-h1.a.example. IN AAAA {}\n", locator.as_str().unwrap());
        assert!(added.out.contains(&record), "{record} is not in {}", added.out);
    }
    assert!(added.out.contains("a-h1.a.example. IN TYPE65280 \\# 16 fc00000a00000001"), "{}", added.out);
    assert!(added.out.contains(".1.0.0.0.0.0.0.0.a.0.0.0.0.0.c.f.ip6.arpa. IN PTR a-h1.a.example.\n"), "{}", added.out);
    let records = room.ctl("host records --domain a.example");
    assert!(added.out.ends_with(&records.out) && records.out.lines().count() == 4);

    assert!(room.ctl("host add a-h1").err.starts_with("there is a host called a-h1 already; --replace"));
    let again = room.ctl("host add a-h1 --replace --json");
    let again: Value = serde_json::from_str(&again.out).unwrap();
    assert_ne!(again["ulid"], host["ulid"]);
    assert_eq!(again["records"][2]["type"], "TYPE65280");
    assert_eq!(room.ctl("check").out, "site.toml: good; ports: 3, providers: 2, hosts: 1, static peers: 0\n");

    // One of its providers gone, the host lives on with the other.
    let text = fs::read_to_string(room.0.join("site.toml")).unwrap();
    let renumbered = text.replace("2001:db8:a2:1::/64", "2001:db8:a3:1::/64");
    fs::write(room.0.join("site.toml"), &renumbered).unwrap();
    let warned = room.ctl("check");
    assert!(warned.status == 0 && warned.err.contains("a-h1 has no locator from isp-y"), "{}", warned.err);
    let updated = room.ctl("host update --json");
    let updated: Value = serde_json::from_str(&updated.out).unwrap();
    let host = &updated["hosts"][0];
    assert_eq!((&host["removed"][0], &host["without"][0]), (&again["locators"][1], &Value::from("isp-y")));
    // Both gone, it is refused, but can be removed.
    fs::write(room.0.join("site.toml"), renumbered.replace("2001:db8:a1:1::/64", "2001:db8:a4:1::/64")).unwrap();
    let refused = room.ctl("check");
    assert_eq!(refused.status, 1);
    assert!(
        refused.err.starts_with("hosts.json:5:15: hosts[0]: a-h1 was made for fc00:a:0:1::/64, "),
        "{}",
        refused.err
    );
    assert_eq!(room.ctl("host remove a-h1").status, 0);
    let gone = room.ctl("host remove a-h1");
    assert_eq!((gone.status, gone.err.as_str()), (1, "there is no host called a-h1\n"));
    assert_eq!(room.ctl("check").status, 0);
}

// R5533-307
#[test]
fn a_site_with_a_key_gets_hybrid_hosts() {
    let room = Room::new("key", &SITE.replace("[site]\n", "[site]\nkey = \"site-key.pem\"\nsec = 1\n"));
    let none = room.ctl("host add h1");
    assert_eq!(none.status, 1);
    assert!(none.err.contains("site-key.pem: cannot be read: No such file"), "{}", none.err);
    assert_eq!(room.ctl("host add h1 --make-key").status, 0);
    let mode = fs::metadata(room.0.join("site-key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(room.ctl("host list --json").json()["hosts"][0]["kind"], "hybrid");
    let again = room.ctl("key make");
    assert_eq!(again.status, 1);
    assert!(again.err.contains("site-key.pem: there already"), "{}", again.err);
    assert_eq!(room.ctl("check").err, "");
    // Another key in its place is noticed.
    fs::remove_file(room.0.join("site-key.pem")).unwrap();
    assert!(room.ctl("check").err.starts_with("warning: site-key.pem: cannot be read: No such file"));
    assert_eq!(room.ctl("key make --bits 1024").status, 0);
    let warned = room.ctl("check");
    let text = "warning: site-key.pem: is not the key that host h1 was made with; it cannot sign for it\n";
    assert_eq!((warned.status, warned.err.as_str()), (0, text));
}

/// A daemon whose engine knows one context and keeps what it was asked.
fn daemon(room: &Room) -> (Server, Arc<Mutex<Vec<Request>>>) {
    let (engine, calls) = crossbeam::channel::bounded::<Call>(4);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    thread::spawn(move || {
        for call in calls {
            notes.lock().unwrap().push(call.request.clone());
            let response = answer(&call.request);
            call.answer(response);
        }
    });
    (Server::start(&room.0.join("control.sock"), engine).unwrap(), asked)
}

fn context() -> ContextView {
    let [ulid_local, ulid_peer, local, peer] =
        ["fc00:a:0:1::5", "fc00:b:0:1::5", "2001:db8:a1:1::5", "2001:db8:b1:1::5"].map(|it| it.parse().unwrap());
    ContextView {
        local_tag: Some("000000000001".into()),
        peer_tag: Some("7fffffffffff".into()),
        current: Some(PairView { local, peer }),
        standby: None,
        local_provider: Some("isp-x".into()),
        local_locators: vec![local],
        peer_locators: vec![PeerLocatorView { locator: peer, verified: true, probed: false }],
        reap_state: Some(ReapState::InboundOk),
        packets_in: 12,
        packets_out: 34,
        octets_in: 1200,
        octets_out: 3400,
        last_used_s: Some(61),
        ..ContextView::idle(ulid_local, ulid_peer, ContextState::Established)
    }
}

fn lease() -> LeaseView {
    LeaseView {
        name: "laptop".into(),
        duid: "00030001020000000005".into(),
        iaid: 7,
        ulid: "fc00:a:0:1::5".parse().unwrap(),
        locators: vec!["2001:db8:a1:1::5".parse().unwrap()],
        bound: true,
        left_s: 3600,
        via: Some("fe80::5".parse().unwrap()),
    }
}

fn path() -> PathView {
    PathView {
        provider: "isp-x".into(),
        peer_prefix: "2001:db8:b1:1::/64".into(),
        state: "up".into(),
        evidence: "payload seen".into(),
        contexts: 1,
        carriage: "header".into(),
        last_in_s: Some(2),
        liveness: Some(LivenessView { state: "up".into(), detection_ms: 150.0, held_s: Some(3), ..Default::default() }),
        rtt_ms: Some(1.25),
        ..Default::default()
    }
}

fn answer(request: &Request) -> Response {
    match request {
        Request::Status => Response::Status(StatusView {
            name: "a-box".into(),
            version: "9.9".into(),
            ready: true,
            uptime_s: 3700,
            process: 4711,
            providers: vec![ProviderView { name: "isp-x".into(), up: true, ..Default::default() }],
            workers: vec![WorkerView { id: 0, core: Some(3), ..Default::default() }],
            ..Default::default()
        }),
        Request::Hosts => Response::Hosts(HostsView::default()),
        Request::Bmp | Request::Recording | Request::RecordStart(_) | Request::RecordStop => seldom(request),
        Request::Upgrade => Response::Upgrading(UpgradingView { process: 4711 }),
        Request::Contexts(filter) if filter.after.is_none() => {
            Response::Contexts(ContextsView { contexts: vec![context()], left_off: 0, next: Some(4096) })
        }
        Request::Contexts(_) => Response::Contexts(ContextsView { contexts: Vec::new(), left_off: 2, next: None }),
        Request::Paths => Response::Paths(PathsView { paths: vec![path()] }),
        Request::Leases => Response::Leases(LeasesView {
            enabled: true,
            leases_max: 9,
            bound: 1,
            leases: vec![lease()],
            ..Default::default()
        }),
        Request::StoreExport => Response::error("no store"),
        Request::Metrics => Response::Metrics(Box::default()),
        Request::TraceStart(asked) if asked.reason.as_deref() == Some("luck") => {
            Response::missing("no packet is dropped because of luck")
        }
        Request::TraceStart(_) => Response::TraceStarted(TraceStarted { id: 7, idle_s: 10 }),
        Request::TraceFetch(TraceFetch { id: 7 }) => Response::Trace(TraceView { records: vec![traced(); 2], lost: 4 }),
        Request::TraceFetch(_) => Response::missing("that trace has ended"),
        Request::TraceStop(_) => Response::TraceStopped(TraceStopped { was: true }),
        Request::Explain(_) => {
            Response::Explained(Box::new(ExplainView { packet: traced(), why: vec!["provider isp-x: up".into()] }))
        }
        Request::Counters => Response::Counters(CountersView {
            counters: [("drop.hop_limit".into(), 0), ("drop_hop_limit".into(), 3), ("rx.packets".into(), 7)].into(),
            advice: Default::default(),
            descriptions: [("rx.packets".into(), "packets received".into())].into(),
            workers: Vec::new(),
        }),
        Request::Policy => Response::Policy(control::manage::api::PolicyView::default()),
        Request::PolicyLoad => Response::error("no policy"),
        Request::DnsFlush => Response::DnsFlushed(FlushedView { entries: 3 }),
        Request::Dns => Response::Dns(DnsView {
            enabled: true,
            servers: vec![DnsServerView {
                address: "2001:db8:53::1".parse().unwrap(),
                source: None,
                port: None,
                resting: false,
                rtt_us: Some(1234),
                questions: 5,
                answers: 4,
                timeouts: 1,
                streams: 0,
            }],
            entries: 3,
            entries_max: 100,
            hits: 7,
            counters: std::collections::BTreeMap::from([("dns_questions".to_owned(), 9), ("dns_passed".to_owned(), 0)]),
            ..DnsView::default()
        }),
        Request::Natv6 => Response::Natv6(Natv6View {
            enabled: true,
            providers: vec![
                Natv6ProviderView {
                    name: "isp-x".into(),
                    place: Some(1),
                    hosts: 2,
                    packets_out: 41,
                    ..Default::default()
                },
                Natv6ProviderView { name: "isp-y".into(), ..Default::default() },
            ],
            setup_packets: Some(50),
            setup_age_s: Some(30),
            contexts: 1,
            counters: [("nat_out".into(), 9)].into(),
            ..Default::default()
        }),
        Request::Steer(wanted) => Response::Steered(ProviderView {
            name: wanted.provider.clone(),
            steering: wanted.steering,
            contexts: 3,
            ..Default::default()
        }),
        Request::History(_) => Response::History(Box::default()),
        Request::Serve(_) => Response::error("there is no [routes]"),
        Request::Reload => Response::error("site.toml:3:6: box.id: 16 is out of range: 0 to 15"),
    }
}

#[test]
fn a_running_daemon_is_shown_in_tables_and_in_json() {
    let room = Room::new("tables", SITE);
    let (_server, asked) = daemon(&room);
    let status = room.ctl("status");
    assert!(status.out.starts_with("a-box: ready, pshim6d 9.9, up 1h01m\n"), "{}", status.out);
    assert!(status.out.contains("\nPROVIDER  STATE  USE     PORT"), "{}", status.out);
    assert_eq!(room.ctl("status --json").json()["providers"][0]["up"], true);

    let contexts = room.ctl("contexts");
    let lines: Vec<Vec<&str>> = contexts.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines[1],
        [
            "fc00:a:0:1::5",
            "fc00:b:0:1::5",
            "established",
            "inbound-ok",
            "isp-x",
            "2001:db8:a1:1::5",
            "2001:db8:b1:1::5",
            "000000000001",
            "7fffffffffff",
            "12",
            "34",
            "1m01s"
        ]
    );
    assert!(contexts.out.ends_with("and 2 more (--limit, --ulid and --state choose)\n"));
    let json = room.ctl("--json contexts --ulid fc00:b:0:1::5 --state established --limit 5").json();
    assert_eq!(serde_json::from_value::<ContextView>(json["contexts"][0].clone()).unwrap(), context());
    assert_eq!(json["contexts"][0]["state"], "established");
    let ulid = Some("fc00:b:0:1::5".parse().unwrap());
    let filter = ContextFilter { ulid, state: Some(ContextState::Established), limit: Some(5), ..Default::default() };
    let more = ContextFilter { limit: Some(4), after: Some(4096), ..filter.clone() };
    let asked_for = [filter, more].map(Request::Contexts);
    assert_eq!(asked.lock().unwrap().last_chunk(), Some(&asked_for));

    room.ctl("contexts --host h1 --peer fc00:b::5 --path isp-x 2001:db8:b1:1::/64");
    let on_path = ContextFilter {
        host: Some("h1".into()),
        peer: Some("fc00:b::5".parse().unwrap()),
        provider: Some("isp-x".into()),
        prefix: Some("2001:db8:b1:1::/64".into()),
        limit: Some(1000),
        ..Default::default()
    };
    assert!(asked.lock().unwrap().contains(&Request::Contexts(on_path)));
    assert!(
        room.ctl("paths")
            .out
            .contains("isp-x     2001:db8:b1:1::/64  up            1  header       2s         -  1.2 ms  up 150 ms, held 3s  payload seen")
    );
    assert_eq!(room.ctl("paths --json").json()["paths"][0]["rtt_ms"], 1.25);
    let counters = room.ctl("counters").out;
    let line = |name: &str| counters.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().collect();
    let words: Vec<&str> = line("rx.packets");
    assert_eq!(words, ["rx.packets", "7", "packets", "received"]);
    // The daemon's own door is counted with the rest.
    let words: Vec<&str> = line("manage_requests");
    assert!(words[1].parse::<u32>().unwrap() > 3, "{counters}");
    assert!(room.ctl("counters --all").out.contains("drop.hop_limit"));
    let explained = room.ctl("counters drop_hop_limit --explain").out;
    assert_eq!(
        explained,
        "drop_hop_limit: 3\n    What to do: Nothing, if few: traceroute. Many: a routing loop between the box and a router; check routes to site and locators.\n"
    );
    assert_eq!(room.ctl("counters --json").json()["counters"]["drop.hop_limit"], 0);
    assert_eq!(room.ctl("hosts --json").json(), serde_json::json!({ "hosts": [] }));
    assert_eq!(room.ctl("leases --json").json()["leases"][0]["duid"], "00030001020000000005");
    let leases = room.ctl("leases").out;
    assert!(leases.contains("laptop") && leases.contains("1 of 9 leases given"), "{leases}");
    // RCM-016
    let dns = room.ctl("dns").out;
    assert!(dns.contains("2001:db8:53::1  no way  -     -     1.234 ms      5         4         1    0"), "{dns}");
    let words: Vec<&str> = dns.split_whitespace().collect();
    assert!(
        dns.contains("cache: 3 of 100 answers") && words.windows(2).any(|it| it == ["dns_questions", "9"]),
        "{dns}"
    );
    assert!(!dns.contains("dns_passed"), "{dns}");
    assert_eq!(room.ctl("dns --json").json()["servers"][0]["timeouts"], 1);
    assert_eq!(room.ctl("dns flush").out, "3 entries forgotten\n");
    let natv6 = room.ctl("natv6").out;
    assert!(
        natv6.contains("isp-x         1  up         2  no       41   0        0       0\n")
            && natv6.contains("isp-y         -  down"),
        "{natv6}"
    );
    assert!(natv6.contains("a context after: 50 packets or 30s\n") && natv6.contains("nat_out      9"), "{natv6}");
    assert_eq!(room.ctl("natv6 --json").json()["setup_octets"], Value::Null);
}

#[test]
fn a_refused_reload_says_so_and_keeps_the_file() {
    let room = Room::new("reload", SITE);
    let (server, asked) = daemon(&room);
    let said = room.ctl("reload");
    assert_eq!((said.status, said.err.as_str()), (1, "site.toml:3:6: box.id: 16 is out of range: 0 to 15\n"));
    let added = room.ctl("host add h1");
    assert_eq!(added.status, 1);
    assert!(
        added.err.contains("the hosts file is written, but the daemon did not reload: site.toml:3:6:"),
        "{}",
        added.err
    );
    assert_eq!(*asked.lock().unwrap(), [Request::Reload, Request::Reload]);
    drop(server);
    assert_eq!(room.ctl("host list --json").json()["hosts"][0]["name"], "h1");
}

const SPARE: &str = r#"
[[port]]
name = "spare"
device = "net_af_packet3,iface=a-v"
addresses = ["2001:db8:ac::2/64"]
"#;
const V: &str = "v --port spare --prefix 2001:db8:a3:1::/64 --next-hop 2001:db8:ac::1 --preference 7";

#[test]
fn providers_come_and_go_with_the_locators_of_all_hosts() {
    let site = SITE.replace("[site]\n", "[site]\nkey = \"key.pem\"\n") + SPARE;
    let room = Room::new("providers", &site);
    assert_eq!(room.ctl("host add h1 --make-key").status, 0);
    let before = room.ctl("host list --json").json()["hosts"][0].clone();
    let json = |said: Said| -> Value { serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}")) };
    let added = json(room.ctl(&format!("provider add {V} --json")));
    assert_eq!((&added["added"], &added["daemon_reloaded"]), (&"v".into(), &false.into()));
    let new = added["hosts"][0]["added"][0].as_str().unwrap();
    assert!(new.starts_with("2001:db8:a3:1:"), "{added}");
    let checked = room.ctl("check");
    assert_eq!(checked.out, "site.toml: good; ports: 4, providers: 3, hosts: 1, static peers: 0\n", "{checked:?}");
    // One goes, and its place in the list of locators with it.
    let removed = json(room.ctl("provider remove isp-x --json"));
    assert_eq!((&removed["removed"], &removed["hosts"][0]["removed"][0]), (&"isp-x".into(), &before["locators"][0]));
    let after = room.ctl("host list --json").json()["hosts"][0].clone();
    assert_eq!((&after["ulid"], &after["locators"][1]), (&before["ulid"], &new.into()));
    // And back in the place of the other: it was made for it, and has the address it had.
    let back = "isp-x --port x --prefix 2001:db8:a1:1::/64 --next-hop 2001:db8:aa::1";
    let replaced = json(room.ctl(&format!("provider replace isp-y {back} --json")));
    assert_eq!(replaced["hosts"][0]["added"][0], before["locators"][0]);
    let text = fs::read_to_string(room.0.join("site.toml")).unwrap();
    assert!(text.contains("preference = 7") && !text.contains("isp-y"), "{text}");
    assert_eq!(room.ctl("check").status, 0);
}

#[test]
fn a_change_of_providers_that_cannot_be_obeyed_changes_nothing() {
    let room = Room::new("refused", &format!("{SITE}{SPARE}"));
    assert_eq!(room.ctl("host add h1").status, 0);
    let files = || ["site.toml", "hosts.json"].map(|file| fs::read_to_string(room.0.join(file)).unwrap());
    let before = files();
    let refused = |arguments: &str, text: &str| {
        let said = room.ctl(arguments);
        assert!(said.status == 1 && said.err.contains(text), "{arguments}: {said:?}");
        assert_eq!(files(), before, "{arguments}");
    };
    refused("provider remove isp-z", "there is no provider called isp-z");
    refused(&format!("provider add {}", V.replacen("v ", "isp-x ", 1)), "there is a provider called isp-x already");
    refused(&format!("provider add {}", V.replace("spare", "none")), "there is no port called \"none\"");
    // A host without a signature has addresses from the providers it was made for, or none.
    assert_eq!(room.ctl("provider remove isp-y").status, 0);
    let before = files();
    let said = room.ctl(&format!("provider replace isp-x {V}"));
    assert!(said.status == 1 && said.err.contains("h1 would have no locator left"), "{said:?}");
    assert_eq!(files(), before);
    // What the daemon refuses is taken back.
    let (_server, asked) = daemon(&room);
    let said = room.ctl(&format!("provider add {V}"));
    assert!(said.status == 1 && said.err.ends_with("the files are again as they were\n"), "{said:?}");
    assert_eq!((files(), asked.lock().unwrap().as_slice()), (before, &[Request::Reload][..]));
}

#[test]
fn an_answer_nobody_reads_to_its_end_is_no_failure() {
    let room = Room::new("pipe", SITE);
    let (_server, _) = daemon(&room);
    let mut child = Command::new(env!("CARGO_BIN_EXE_pshim6ctl"))
        .current_dir(&room.0)
        .args(["--config", "site.toml", "contexts"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}
