//! Whatever an operator, or somebody at the API's socket, puts in: an error that says what and where, nothing changed, no panic.
//!
//! Inputs are good ones that were damaged: a file half written, a word in the wrong place, a brace too many. Decoders of packets
//! are fuzzed elsewhere (`fuzz`).

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use clap::Parser;
use control::config::{Hosts, Problems, Site};
use control::manage::api::StatusView;
use control::manage::verbs::{Cli, run};
use control::manage::{Call, Doors, OPERATIONS, Operation, Request, Response, Role, Server};
use control::policy::Policy;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

const SITE: &str = include_str!("../../packaging/examples/site.toml");
const POLICY: &str = include_str!("../../packaging/examples/policy.json");

/// What a damaged text gets in the place of something else.
const WORDS: &[&str] = &[
    "",
    "\"",
    "{",
    "}",
    "[",
    "]",
    "[[",
    "]]",
    "=",
    ",",
    "\n",
    "#",
    "\\",
    "\\u0000",
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "18446744073709551616",
    "99999999999999999999",
    "0x7f",
    "::",
    "fc00::/7",
    "::/0",
    "2001:db8::/129",
    "ff02::1",
    "fe80::1%eth0",
    "[box]",
    "[[provider]]",
    "[dns]\n",
    "[natv6]\nenabled = true\n",
    "[dhcp]\n",
    "name = \"\"",
    "prefix = ",
    "\u{202e}",
    "é",
    "\u{0}",
    "\"version\"",
    "\"classes\"",
    "\"default\": {}",
    "nan",
    "1979-05-27T07:32:00Z",
    "'''",
    "\"\"\"",
];

#[derive(Clone, Debug)]
enum Damage {
    Put(prop::sample::Index, &'static str),
    Cut(prop::sample::Index, usize),
    Double(prop::sample::Index, usize),
    Swap(prop::sample::Index, prop::sample::Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), prop::sample::select(WORDS)).prop_map(|(at, word)| Damage::Put(at, word)),
        (at(), 1usize..40).prop_map(|(at, length)| Damage::Cut(at, length)),
        (at(), 1usize..200).prop_map(|(at, length)| Damage::Double(at, length)),
        (at(), at(), 1usize..60).prop_map(|(from, to, length)| Damage::Swap(from, to, length)),
    ]
}

fn damaged(text: &'static str) -> impl Strategy<Value = String> {
    prop::collection::vec(damage(), 1..6).prop_map(move |all| {
        let mut letters: Vec<char> = text.chars().collect();
        for damage in all {
            let place = |at: prop::sample::Index, letters: &Vec<char>| at.index(letters.len() + 1);
            match damage {
                Damage::Put(at, word) => {
                    let at = place(at, &letters);
                    letters.splice(at..at, word.chars());
                }
                Damage::Cut(at, length) => {
                    let at = place(at, &letters);
                    letters.drain(at..(at + length).min(letters.len()));
                }
                Damage::Double(at, length) => {
                    let at = place(at, &letters);
                    let again: Vec<char> = letters[at..(at + length).min(letters.len())].to_vec();
                    letters.splice(at..at, again);
                }
                Damage::Swap(from, to, length) => {
                    let from = place(from, &letters);
                    let moved: Vec<char> = letters.drain(from..(from + length).min(letters.len())).collect();
                    let to = place(to, &letters);
                    letters.splice(to..to, moved);
                }
            }
        }
        letters.into_iter().collect()
    })
}

fn cases(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() })
}

/// An error is one line or more, each of which names the file, and says something.
fn is_clear(problems: &Problems, file: &str) -> Result<(), TestCaseError> {
    prop_assert!(!problems.0.is_empty());
    for problem in &problems.0 {
        let text = problem.to_string();
        prop_assert!(text.starts_with(file) && text.len() > file.len() + 4, "{text:?}");
    }
    Ok(())
}

fn site() -> Site {
    Site::parse(Path::new("site.toml"), SITE).unwrap_or_else(|problems| panic!("{problems}")).0
}

#[test]
fn damaged_configurations_are_refused_or_mean_the_same_each_time() {
    cases(4096)
        .run(&damaged(SITE), |text| {
            let file = Path::new("site.toml");
            match (Site::parse(file, &text), Site::parse(file, &text)) {
                (Ok((first, _)), Ok((second, _))) => prop_assert_eq!(first, second),
                (Err(problems), Err(again)) => {
                    prop_assert_eq!(problems.to_string(), again.to_string());
                    is_clear(&problems, "site.toml")?;
                }
                _ => prop_assert!(false, "taken once and refused once"),
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn damaged_policies_are_refused_or_taken() {
    let site = site();
    let hosts = Hosts::parse(Path::new("hosts.json"), "{\"version\": 1, \"hosts\": []}", &site).unwrap();
    Policy::parse(Path::new("policy.json"), POLICY, &site, &hosts).unwrap_or_else(|problems| panic!("{problems}"));
    cases(8192)
        .run(&damaged(POLICY), |text| match Policy::parse(Path::new("policy.json"), &text, &site, &hosts) {
            Ok(_) => Ok(()),
            Err(problems) => is_clear(&problems, "policy.json"),
        })
        .unwrap();
}

const HOSTS: &str = r#"{"version": 1, "hosts": [{"name": "h1", "ulid": "fc00:a:0:1:87d:4454:6a41:ca10", "mac": "02:00:00:00:00:05",
"locators": ["2001:db8:a1:1:1ccf:39c4:2cdc:9132"], "pds": "00112233445566778899aabbccddeeff0020010db800a100010000"}]}"#;

#[test]
fn damaged_hosts_files_are_refused_or_taken() {
    let site = site();
    cases(8192)
        .run(&damaged(HOSTS), |text| match Hosts::parse(Path::new("hosts.json"), &text, &site) {
            Ok(_) => Ok(()),
            Err(problems) => is_clear(&problems, "hosts.json"),
        })
        .unwrap();
}

/// A folder of this test's own.
struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Room {
        let folder = std::env::temp_dir().join(format!("pshim6-inputs-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Room(folder)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A daemon that answers everything with how it is, and what it was asked.
fn daemon(room: &Room) -> (Server, Arc<Mutex<Vec<Request>>>) {
    let (engine, calls) = crossbeam::channel::bounded::<Call>(4);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    thread::spawn(move || {
        for call in calls {
            notes.lock().unwrap().push(call.request.clone());
            let response = match &call.request {
                Request::Status => Response::Status(StatusView::default()),
                _ => Response::error("not here"),
            };
            call.answer(response);
        }
    });
    (Server::open(&Doors::at(&room.0.join("control.sock")), engine).unwrap(), asked)
}

/// What comes back for some octets, after which nothing more is sent, or the end is left open for the answer.
fn said(socket: &Path, octets: &[u8], ends: bool) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // A server that has heard enough closes, and writing fails then.
    let _ = stream.write_all(octets);
    if ends {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn request(method: &str, place: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {place} HTTP/1.1\r\nHost: box\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

/// What only operators may ask for.
fn is_order(request: &Request) -> bool {
    match request {
        Request::DnsFlush
        | Request::StoreExport
        | Request::Reload
        | Request::PolicyLoad
        | Request::Upgrade
        | Request::Steer(_)
        | Request::Serve(_)
        | Request::RecordStart(_)
        | Request::RecordStop
        | Request::TraceStart(_)
        | Request::TraceFetch(_)
        | Request::TraceStop(_) => true,
        Request::Status
        | Request::Hosts
        | Request::Contexts(_)
        | Request::Paths
        | Request::Bmp
        | Request::Counters
        | Request::Metrics
        | Request::History(_)
        | Request::Natv6
        | Request::Leases
        | Request::Dns
        | Request::Policy
        | Request::Recording
        | Request::Explain(_) => false,
    }
}

#[test]
fn damaged_requests_give_no_orders_and_the_next_one_is_answered() {
    let room = Room::new("api");
    let (server, asked) = daemon(&room);
    let socket = server.path().to_owned();
    let bodies = ["", "{}", "{\"provider\":\"isp-x\",\"steering\":\"drain\"}", "{\"id\":1}", "{\"packets\":5}"];
    let all: Vec<String> = OPERATIONS
        .iter()
        .flat_map(|operation| bodies.iter().map(|body| request(operation.method.name(), operation.path, body)))
        .chain([request("GET", "/v1/contexts?limit=5&state=idle", ""), request("GET", "/v1/explain?source=::1", "")])
        .collect();
    let all: Vec<&'static str> = all.into_iter().map(|text| &*text.leak()).collect();
    let one = prop::sample::select(all).prop_flat_map(damaged);
    cases(1500)
        .run(&one, |text| {
            asked.lock().unwrap().clear();
            let answer = String::from_utf8_lossy(&said(&socket, text.as_bytes(), true)).into_owned();
            let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
            prop_assert!(answer.is_empty() || status.is_some(), "{answer:?}");
            // Who closes his end is not told what became of his request; whoever asks next is behind it.
            said(&socket, request("GET", "/v1/status", "").as_bytes(), false);
            let mut asked = asked.lock().unwrap().clone();
            prop_assert_eq!(asked.pop(), Some(Request::Status));
            let orders = |it: &&Operation| it.role == Role::Operate;
            let named = OPERATIONS.iter().filter(orders);
            let named = named.filter(|it| text.contains(&format!("{} {}", it.method.name(), it.path))).count();
            for request in &asked {
                prop_assert!(named > 0 || !is_order(request), "{request:?} by {text:?}");
            }
            // What was doubled may be two requests in one connection.
            prop_assert!(asked.len() <= 6, "{asked:?}");
            Ok(())
        })
        .unwrap();
    let answer = said(&socket, request("GET", "/v1/status", "").as_bytes(), false);
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn no_command_line_makes_the_program_panic() {
    let words = [
        "check",
        "status",
        "contexts",
        "--limit",
        "-1",
        "4294967296",
        "--json",
        "provider",
        "add",
        "isp-x",
        "drain",
        "policy",
        "load",
        "diff",
        "counters",
        "--explain",
        "trace",
        "--count",
        "explain",
        "::1",
        "fc00::1",
        "host",
        "add",
        "",
        "--",
        "-",
        "--config",
        "/dev/null",
        "é",
        "\u{202e}",
        "--path",
        "--socket",
        "/nowhere",
        "zone",
        "store",
        "export",
        "man",
        "completion",
        "bash",
        "--prefix",
        "::/0",
        "top",
        "dns",
    ];
    let room = Room::new("words");
    let config = room.0.join("site.toml");
    let line = prop::collection::vec(prop::sample::select(words.to_vec()), 0..7);
    cases(4096)
        .run(&line, |line| {
            // What was parsed is another test's to run: here, whether it is understood or refused in words.
            if let Err(error) = Cli::try_parse_from(["pshim6ctl"].into_iter().chain(line)) {
                prop_assert!(!error.to_string().is_empty());
            }
            Ok(())
        })
        .unwrap();
    cases(256)
        .run(&damaged(SITE), |text| {
            fs::write(&config, &text).unwrap();
            let arguments = ["pshim6ctl", "--json", "--config", config.to_str().unwrap(), "check"];
            let cli = Cli::try_parse_from(arguments).unwrap();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let _ = run(&cli, control::tape::tell, &mut out, &mut err);
            prop_assert!(!out.is_empty() || !err.is_empty());
            prop_assert_eq!(fs::read_to_string(&config).unwrap(), text, "a check changes nothing");
            Ok(())
        })
        .unwrap();
}
