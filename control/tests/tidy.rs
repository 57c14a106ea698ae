//! The house stays as it was drawn: which room may look into which, where the world outside is touched, where unsafe code
//! lives, and what no file may hold. When a rule here stands in the way of something good, change it here, with a reason.

mod tree;

use std::collections::BTreeMap;
use std::fs;

use tree::{files, root};

/// The rooms of a crate's `src`, each with those it may look into. Earlier rooms know nothing of later ones, so there
/// are no circles; `wire <- context <- translate <- worker` is the spine of the first table.
type Rooms = &'static [(&'static str, &'static [&'static str])];

const DATAPLANE: Rooms = &[
    ("processor", &[]),
    ("memory", &[]),
    ("bucket", &[]),
    ("histogram", &[]),
    ("counters", &["histogram"]),
    ("wire", &[]),
    ("port", &[]),
    ("natv6", &["wire"]),
    ("snapshot", &["natv6", "wire"]),
    ("mutant", &[]),
    ("context", &["memory", "mutant", "natv6", "processor", "snapshot", "wire"]),
    ("trace", &["bucket", "counters", "snapshot", "wire"]),
    ("link", &["context", "counters", "port", "snapshot", "trace", "wire"]),
    ("limit", &["bucket", "context", "link", "snapshot", "wire"]),
    ("translate", &["context", "counters", "link", "natv6", "port", "processor", "snapshot", "wire"]),
    ("reply", &["snapshot", "translate", "wire"]),
    (
        "worker",
        &["bucket", "context", "counters", "limit", "link", "port", "reply", "snapshot", "trace", "translate", "wire"],
    ),
];

const CONTROL: Rooms = &[
    ("time", &[]),
    ("wheel", &["time"]),
    ("chains", &[]),
    ("identity", &[]),
    ("bfd", &["time"]),
    ("reap", &["time"]),
    ("shim6", &["chains", "identity", "time", "wheel"]),
    ("host", &["time"]),
    ("dhcp", &["time"]),
    ("dns", &["time"]),
    ("config", &["dhcp", "dns", "identity"]),
    ("store", &["config", "dhcp", "identity"]),
    ("doctor", &["config"]),
    ("publish", &["config", "time"]),
    ("policy", &["chains", "config", "time"]),
    ("bmp", &["config", "time"]),
    ("manage", &["config", "dhcp", "doctor", "identity", "policy", "publish", "store"]),
    (
        "engine",
        &[
            "bfd", "chains", "config", "dhcp", "dns", "host", "identity", "manage", "policy", "publish", "reap",
            "shim6", "time", "wheel",
        ],
    ),
    ("sync", &["config", "engine", "time"]),
    ("tape", &["config", "dhcp", "engine", "identity", "manage", "policy", "publish", "shim6", "time"]),
    ("sim", &["config", "engine", "host", "identity", "manage", "policy", "reap", "shim6", "sync", "tape", "time"]),
    (
        "driver",
        &[
            "bmp", "config", "dhcp", "engine", "identity", "manage", "policy", "publish", "shim6", "store", "sync",
            "tape", "time",
        ],
    ),
];

/// Words that reach outside, and where they may stand. Everything else gets time, randomness and octets as arguments.
const WORLD: &[(&[&str], &[&str])] = &[
    (
        &["std::thread", "thread::", "SystemTime", "Instant::now", "WallInstant"],
        // The socket's server carries questions and answers between its threads and the driver's.
        &["control/src/driver/", "control/src/manage/server.rs", "control/src/bmp/server.rs"],
    ),
    (
        &["UnixStream", "UnixListener", "TcpStream", "TcpListener", "UdpSocket"],
        &[
            "control/src/manage/server.rs",
            "control/src/manage/server/",
            "control/src/manage/client.rs",
            // The store that boxes share is somewhere else; a thread of the driver's asks it.
            "control/src/store/shared/etcd.rs",
            // So does the station's, for routers.
            "control/src/bmp/server.rs",
            // Another process takes this one's place.
            "control/src/driver/succession/",
            // Other boxes of the site.
            "control/src/driver/sync/",
        ],
    ),
    (&["UnixDatagram"], &["control/src/driver/"]),
    (
        &["std::fs", "fs::", "File::"],
        &[
            // Configuration, hosts and keys are files of the operator's.
            "control/src/config/",
            "control/src/manage/verbs/",
            // So is the store, which a thread of the driver's opens.
            "control/src/store/",
            // What the control core is told goes to a file, if that is wanted.
            "control/src/driver/recording.rs",
            // The socket is a file too, and what the system knows of the process is in files.
            "control/src/manage/server/socket.rs",
            "control/src/manage/process.rs",
            // And of the machine.
            "control/src/doctor/",
            // Interfaces of the operating system's are files, and so is what IPv6 is told of them.
            "control/src/driver/system/",
            "dataplane/src/port/pcap.rs",
        ],
    ),
    (
        &["std::process", "std::env"],
        &["control/src/bin/", "control/src/driver/", "control/src/manage/verbs/", "control/src/config/"],
    ),
    (
        &["SysRng", "rand::rng(", "thread_rng", "SystemRandom", "getrandom"],
        &["control/src/driver/", "control/src/manage/verbs/"],
    ),
    // Control names no buffer of DPDK's: its driver starts the workers and forgets them.
    (&["port::dpdk", "Mbuf"], &["control/src/driver/dpdk.rs", "dataplane/src/port/dpdk.rs"]),
];

/// Where unsafe code may stand.
const UNSAFE: &[&str] = &["bindings/", "dataplane/src/memory.rs", "dataplane/src/processor.rs"];

/// Lines of the longest Rust file.
const LINES_MAX: usize = 600;

/// First directories of absolute paths a file may name; any other is somebody's own. The last four are no directories, but
/// what places in our own API, in its description and in that of `etcd` begin with.
const COMMON_PATHS: &[&str] = &[
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "mnt",
    "nonexistent",
    "opt",
    "pshim6",
    "proc",
    "run",
    "sbin",
    "srv",
    "sys",
    "tmp",
    "usr",
    "var",
    "components",
    "problems",
    "v1",
    "v3",
];

/// The Rust files but this one, which holds all the words it looks for.
fn rust_files() -> impl Iterator<Item = (String, String)> {
    files().into_iter().filter(|(path, _)| path.ends_with(".rs") && path != "control/tests/tidy.rs")
}

/// What a file says to the compiler: without comments, and without the tests at its foot if `shipped`. Lines stay
/// where they were.
fn code(text: &str, shipped: bool) -> Vec<&str> {
    let foot = text.find("#[cfg(test)]\nmod tests {").filter(|_| shipped).unwrap_or(text.len());
    // A `//` in a string ends the line too early; better blind to the rest of such a line than to read comments.
    text[..foot].lines().map(|line| line.split("//").next().unwrap_or_default()).collect()
}

/// Whether a file is part of what is shipped: sources, and not the tests among them.
fn is_shipped(path: &str) -> bool {
    path.contains("/src/") && !path.contains("/tests/") && !path.ends_with("_tests.rs") && !path.ends_with("/tests.rs")
}

/// Whether `word` stands in `line` and is not part of a longer name.
fn names(line: &str, word: &str) -> bool {
    let part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let alone = |at: usize| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let open = word.ends_with([':', '(']);
        !before.is_some_and(part) && (open || !after.is_some_and(part))
    };
    line.match_indices(word).any(|(at, _)| alone(at))
}

/// What the first parts of `crate::` paths in a line are: `crate::{a::B, c}` names `a` and `c`.
fn rooms_named(line: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        let first = |text: &str| -> String {
            text.trim().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
        };
        match rest.strip_prefix('{') {
            None => rooms.push(first(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut start = 0;
                for (at, letter) in list.char_indices() {
                    match letter {
                        '{' => depth += 1,
                        ',' if depth == 0 => {
                            rooms.push(first(&list[start..at]));
                            start = at + 1;
                        }
                        '}' if depth == 0 => {
                            rooms.push(first(&list[start..at]));
                            break;
                        }
                        '}' => depth -= 1,
                        _ => {}
                    }
                }
            }
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

/// Faults of a kind, told all at once.
fn expect_none(what: &str, faults: Vec<String>) {
    assert!(faults.is_empty(), "{what}:\n  {}", faults.join("\n  "));
}

fn check_rooms(crate_folder: &str, rooms: Rooms) {
    let drawn: BTreeMap<&str, &[&str]> = rooms.iter().copied().collect();
    for (at, (room, known)) in rooms.iter().enumerate() {
        let earlier = |wanted: &&&str| rooms[..at].iter().any(|(before, _)| before == *wanted);
        assert_eq!(known.iter().filter(earlier).count(), known.len(), "{room} knows only rooms drawn before it");
    }
    let mut faults = Vec::new();
    let source = format!("{crate_folder}/src/");
    for (path, text) in rust_files().filter(|(path, _)| path.starts_with(&source) && is_shipped(path)) {
        let inside = &path[source.len()..];
        let room = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        if ["lib", "bin"].contains(&room) {
            continue;
        }
        let Some(known) = drawn.get(room) else {
            faults.push(format!("{path}: {room} is a room nobody has drawn"));
            continue;
        };
        // An import may stretch over lines.
        let joined = code(&text, true).join(" ");
        for named in rooms_named(&joined).into_iter().filter(|named| drawn.contains_key(named.as_str())) {
            if named != room && !known.contains(&named.as_str()) {
                faults.push(format!("{path}: {room} looks into {named}"));
            }
        }
    }
    expect_none("arrows that are not in the drawing", faults);
}

#[test]
fn arrows_between_rooms_point_one_way() {
    check_rooms("dataplane", DATAPLANE);
    check_rooms("control", CONTROL);
}

#[test]
fn only_one_file_names_the_bindings() {
    let allowed = |path: &str| path.starts_with("bindings/") || path == "dataplane/src/port/dpdk.rs";
    let mut faults = Vec::new();
    for (path, text) in rust_files().filter(|(path, _)| !allowed(path)) {
        for (line, text) in code(&text, false).into_iter().enumerate() {
            if names(text, "bindings::") || names(text, "use bindings") || names(text, "extern crate bindings") {
                faults.push(format!("{path}:{}", line + 1));
            }
        }
    }
    for (path, text) in files().into_iter().filter(|(path, _)| path.ends_with("Cargo.toml")) {
        let depends = text.lines().any(|line| names(line, "bindings") && line.trim_start().starts_with("bindings"));
        if depends && !["Cargo.toml", "dataplane/Cargo.toml"].contains(&path.as_str()) {
            faults.push(path);
        }
    }
    expect_none("DPDK is known to `bindings` and named by `port/dpdk.rs` alone", faults);
}

#[test]
fn the_world_outside_is_touched_where_it_may_be() {
    let mut faults = Vec::new();
    for (path, text) in rust_files().filter(|(path, _)| is_shipped(path)) {
        if !path.starts_with("control/") && !path.starts_with("dataplane/") {
            continue;
        }
        for (line, text) in code(&text, true).into_iter().enumerate() {
            for (words, places) in WORLD {
                let allowed = places.iter().any(|place| path.starts_with(place));
                if let Some(word) = words.iter().find(|word| !allowed && names(text, word)) {
                    faults.push(format!("{path}:{}: {word}", line + 1));
                }
            }
            // A clock by another name: `use std::time::{Duration, Instant}`.
            let imported =
                text.contains("std::time::{") && names(text, "Instant") || text.contains("std::time::Instant");
            if imported && !path.starts_with("control/src/driver/") {
                faults.push(format!("{path}:{}: std::time::Instant", line + 1));
            }
        }
    }
    expect_none("clocks, threads, sockets, files and chance belong to the driver", faults);
}

#[test]
fn unsafe_code_lives_in_its_rooms() {
    let mut faults = Vec::new();
    for (path, text) in rust_files().filter(|(path, _)| !UNSAFE.iter().any(|place| path.starts_with(place))) {
        for (line, text) in code(&text, false).into_iter().enumerate() {
            // String literals may talk about it, lints may forbid it.
            let quoted = text.split('"').step_by(2).any(|outside| names(outside, "unsafe"));
            if quoted || text.contains("allow(unsafe") {
                faults.push(format!("{path}:{}", line + 1));
            }
        }
    }
    expect_none("unsafe code outside its rooms", faults);
    let text = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    assert!(text("control/src/lib.rs").contains("#![forbid(unsafe_code)]"));
    assert!(text("dataplane/src/lib.rs").contains("#![deny(unsafe_code)]"));
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not hold what it looks for.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("HA", "CK")];
    let macros = [concat!("to", "do!"), concat!("unimple", "mented!")];
    let ignore = concat!("#[ig", "nore");
    let mut faults = Vec::new();
    for (path, text) in files() {
        for (number, line) in text.lines().enumerate() {
            let place = format!("{path}:{}", number + 1);
            if marks.iter().any(|mark| names(line, mark)) || macros.iter().any(|it| line.contains(it)) {
                faults.push(place);
            } else if path.ends_with(".rs") && line.contains(ignore) {
                // A test may be one that another test of the same file runs in a process of its own.
                let runner = line.split("run by ").nth(1).and_then(|rest| rest.split(' ').next());
                if !runner.is_some_and(|runner| text.contains(&format!("fn {runner}("))) {
                    faults.push(format!("{place}: a test nobody runs"));
                }
            }
        }
    }
    expect_none("left for later", faults);
}

#[test]
fn no_file_grows_out_of_hand() {
    let mut faults = Vec::new();
    for (path, text) in rust_files() {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            faults.push(format!("{path}: {lines} lines"));
        }
    }
    expect_none("a file that keeps growing asks for a room of its own", faults);
}

/// The first part of every absolute path in a line.
fn absolute_paths(line: &str) -> Vec<&str> {
    let starts = |at: usize| line[..at].chars().next_back().is_none_or(|before| " \t\"'=(`[<>,:".contains(before));
    let mut found = Vec::new();
    for (at, _) in line.match_indices('/').filter(|(at, _)| starts(*at)) {
        let rest = &line[at + 1..];
        let Some((first, after)) = rest.split_once('/') else { continue };
        let plain = |name: &str| {
            name.starts_with(|letter: char| letter.is_ascii_lowercase())
                && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet))
        };
        if plain(first) && after.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '.') {
            found.push(first);
        }
    }
    found
}

#[test]
fn no_file_names_a_place_on_somebodys_machine() {
    let mut faults = Vec::new();
    for (path, text) in files() {
        for (number, line) in text.lines().enumerate() {
            for first in absolute_paths(line).into_iter().filter(|first| !COMMON_PATHS.contains(first)) {
                faults.push(format!("{path}:{}: /{first}/", number + 1));
            }
        }
    }
    expect_none("paths that exist on one machine only", faults);
}

/// The rules above are only as good as what they look with.
#[test]
fn the_lookers_see() {
    assert_eq!(rooms_named("use crate::wire::{A, B}; crate::link::X"), ["wire", "link"]);
    assert_eq!(rooms_named("use crate::{wire::{A, B}, link, port::Frame};"), ["wire", "link", "port"]);
    assert!(names("let x = std::thread::spawn", "std::thread") && names("thread::sleep", "thread::"));
    assert!(!names("my_thread::x", "thread::") && !names("unsafely", "unsafe") && names("unsafe {", "unsafe"));
    assert_eq!(code("a // crate::b\nc", true), ["a ", "c"]);
    assert_eq!(code("a\n#[cfg(test)]\nmod tests {\nb\n}", true), ["a"]);
    let own = format!("see {}home/me/x and (/{}/y), /etc/z, a/b/c, 1 / 2", "/", "root");
    assert_eq!(absolute_paths(&own), ["home", "root", "etc"]);
}
