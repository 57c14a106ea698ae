//! `pshim6ctl policy` as an operator meets it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use control::manage::api::{PolicyClassView, PolicyLoadedView, PolicyShareView, PolicyView, Request, Response};
use control::manage::server::ServerError;
use control::manage::{Call, Server};

const SITE: &str = "[box]\nname = \"a-box\"\ncontrol_socket = \"control.sock\"\npolicy_file = \"which.json\"\n\
    [site]\nprefix = \"fc00:a::/48\"\nlan = \"fc00:a:0:1::/64\"\nport = \"lan\"\n\
    [[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"fc00:a:0:1::1/64\"]\n\
    [[port]]\nname = \"x\"\ndevice = \"net_null1\"\naddresses = [\"2001:db8:aa::2/64\"]\n\
    [[port]]\nname = \"y\"\ndevice = \"net_null2\"\naddresses = [\"2001:db8:ab::2/64\"]\n\
    [[provider]]\nname = \"isp-x\"\nport = \"x\"\nprefix = \"2001:db8:a1:1::/64\"\nnext_hop = \"2001:db8:aa::1\"\n\
    [[provider]]\nname = \"isp-y\"\nport = \"y\"\nprefix = \"2001:db8:a2:1::/64\"\nnext_hop = \"2001:db8:ab::1\"\n";
const GOOD: &str =
    "{\"version\": 1, \"default\": {\"both\": {\"split\": {\"weights\": {\"isp-x\": 2, \"isp-y\": 1}}}}}";
const OTHER: &str = "{\"version\": 1, \"default\": {\"both\": {\"pin\": \"isp-x\"}}}";
const BAD: &str = "{\"version\": 1,\n \"default\": {\"both\": {\"pin\": \"isp-z\"}}}";

struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Room {
        let path = std::env::temp_dir().join(format!("pshim6-policy-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        for (file, text) in [("site.toml", SITE), ("which.json", GOOD), ("other.json", OTHER), ("bad.json", BAD)] {
            fs::write(path.join(file), text).unwrap();
        }
        Room(path)
    }

    /// Exit status, answer and complaints of a command.
    fn ctl(&self, arguments: &str) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_pshim6ctl"))
            .current_dir(&self.0)
            .args(["--config", "site.toml"])
            .args(arguments.split_whitespace())
            .output()
            .unwrap();
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }

    /// A daemon that takes policies, or refuses them.
    fn daemon(&self, takes: bool) -> Server {
        let (engine, calls) = crossbeam::channel::bounded::<Call>(8);
        thread::spawn(move || {
            for call in calls {
                let response = match &call.request {
                    Request::Policy => Response::Policy(view()),
                    Request::PolicyLoad if takes => {
                        Response::PolicyLoaded(PolicyLoadedView { file: "which.json".into(), classes: 0, changed: 3 })
                    }
                    _ => Response::error("not today"),
                };
                call.answer(response);
            }
        });
        // What another test begins to run has the lock of a server that ended for a moment, until it is that program.
        for _ in 0..100 {
            match Server::start(&self.0.join("control.sock"), engine.clone()) {
                Err(ServerError::Taken(_)) => thread::sleep(Duration::from_millis(10)),
                started => return started.unwrap(),
            }
        }
        panic!("somebody keeps the lock");
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn view() -> PolicyView {
    let share = |provider: &str, mbps, target| PolicyShareView {
        provider: provider.into(),
        mbps,
        target_mbps: target,
        contexts: 3,
    };
    PolicyView {
        loaded: true,
        policy: serde_json::from_str(GOOD).unwrap(),
        classes: vec![PolicyClassView {
            name: "default".into(),
            out: vec![share("isp-x", 20.5, Some(20.0)), share("isp-y", 9.5, Some(10.0))],
            inward: vec![share("isp-x", 1.0, None)],
        }],
        moves_ordered: 7,
        moves_done: 6,
        moves_failed: 1,
    }
}

#[test]
fn a_policy_is_checked_without_a_daemon() {
    let room = Room::new("check");
    assert_eq!(room.ctl("policy check"), (0, "which.json: good; classes: 0\n".into(), String::new()));
    assert_eq!(room.ctl("policy check other.json").0, 0);
    let bad = "bad.json:2:23: default.both.pin: there is no provider called \"isp-z\"; site.toml has isp-x, isp-y\n";
    assert_eq!(room.ctl("policy check bad.json"), (1, String::new(), bad.into()));
    assert_eq!(room.ctl("policy check none.json").2, "none.json: there is no such file\n");
    // The check of everything checks it too.
    assert_eq!(room.ctl("check").0, 0);
    fs::write(room.0.join("which.json"), BAD).unwrap();
    assert_eq!(room.ctl("check").2, bad.replace("bad", "which"));
    fs::remove_file(room.0.join("which.json")).unwrap();
    assert_eq!(room.ctl("check").0, 0, "there need be none");
    assert!(room.ctl("policy schema").1.starts_with("{\n  \"$schema\""));
}

#[test]
fn a_policy_is_loaded_whole_or_not_at_all() {
    let room = Room::new("load");
    let (status, _, complaint) = room.ctl("policy load other.json");
    assert!(status != 0 && complaint.contains("control.sock"), "nobody is there: {status} {complaint}");
    assert_eq!(room.read("which.json"), GOOD);
    let refusing = room.daemon(false);
    assert_eq!(room.ctl("policy load other.json").2, "not today\n");
    assert_eq!(room.read("which.json"), GOOD, "taken back");
    drop(refusing);
    let _daemon = room.daemon(true);
    assert_eq!(room.ctl("policy load bad.json").0, 1);
    assert_eq!(room.read("which.json"), GOOD, "not even tried");
    let said = "which.json: in force; classes: 0, fields that are new or other: 3\n";
    assert_eq!(room.ctl("policy load other.json"), (0, said.into(), String::new()));
    assert_eq!(room.read("which.json"), OTHER);
    assert!(!room.0.join("which.json.new").exists());
}

#[test]
fn what_is_in_force_is_shown_and_compared() {
    let room = Room::new("show");
    let _daemon = room.daemon(true);
    let expected = "CLASS    WAY  PROVIDER  CONTEXTS   MBPS  TARGET\n\
                    default  out  isp-x            3  20.50   20.00\n\
                    default  out  isp-y            3   9.50   10.00\n\
                    default  in   isp-x            3   1.00       -\n\
                    moves: 7 ordered, 6 done, 1 not\n";
    assert_eq!(room.ctl("policy show").1, expected);
    assert_eq!(room.ctl("policy diff").1, "no difference\n");
    let told = "default.both.pin: - -> \"isp-x\"\ndefault.both.split.weights.isp-x: 2.0 -> -\n\
                default.both.split.weights.isp-y: 1.0 -> -\n";
    assert_eq!(room.ctl("policy diff other.json").1, told);
}
