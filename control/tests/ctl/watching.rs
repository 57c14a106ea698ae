//! Those who watch: traces, explanations, the screen, the socket for reading, the manual, and whoever waits for an upgrade.

use std::fs;
use std::thread;

use control::manage::server::Socket;

use super::*;

pub(super) fn traced() -> TracedView {
    let packet = PacketView { octets: "33330000000102000000000186dd60".into(), length: 90 };
    TracedView {
        at_s: 1.5,
        worker: 0,
        port_in: "lan".into(),
        port_out: Some("x".into()),
        before: packet.clone(),
        after: packet,
        decision: "forward".into(),
        reason: None,
        local_tag: Some("000000000001".into()),
        stages: vec!["in: port lan".into(), "out: port x".into()],
    }
}

#[test]
fn packets_are_traced_to_the_terminal_and_to_a_file() {
    let room = Room::new("trace", SITE);
    let (_server, asked) = daemon(&room);
    let said =
        room.ctl("trace fc00:a:0:1::5 2001:db8::/32 --drop hop_limit --provider isp-x --count 3 --pcapng packets");
    let story = "1.500 worker 0: forward\n  in: port lan\n  out: port x\n";
    assert_eq!((said.status, said.out), (0, story.repeat(3)));
    assert_eq!(said.err, "3 packets, 4 more left out (--rate, or the ring was full)\n");
    let wanted = TraceRequest {
        addresses: vec!["fc00:a:0:1::5".into(), "2001:db8::/32".into()],
        provider: Some("isp-x".into()),
        reason: Some("hop_limit".into()),
        dropped: true,
        per_second: Some(100),
        ..Default::default()
    };
    let asked = asked.lock().unwrap().clone();
    assert_eq!(
        (&asked[0], asked.last()),
        (&Request::TraceStart(wanted), Some(&Request::TraceStop(TraceFetch { id: 7 })))
    );
    let file = fs::read(room.0.join("packets")).unwrap();
    assert_eq!(file.windows(24).filter(|it| *it == b"in: port lan\nout: port x").count(), 6, "in and out of each");
    let lines = room.ctl("trace --drop --count 2 --json").out;
    assert_eq!(
        lines.lines().map(|line| serde_json::from_str::<TracedView>(line).unwrap()).collect::<Vec<_>>(),
        [traced(), traced()]
    );
    let refused = room.ctl("trace --drop luck");
    assert_eq!((refused.status, refused.err.as_str()), (1, "no packet is dropped because of luck\n"));
    let explained = room.ctl("explain fc00:a:0:1::5 fc00:b::5 --proto tcp --port 443 --dscp 46");
    assert_eq!(explained.out, "the packet's path:\n  in: port lan\n  out: port x\nwhy:\n  provider isp-x: up\n");
    assert_eq!(room.ctl("explain fc00:a:0:1::5 fc00:b::5 --dscp 64").status, 2);
    assert_eq!(room.ctl("top --once --json --interval 0.1").json()["paths_left_off"], 0);
    assert!(room.ctl("top --interval 0.1").out.contains("WORKER  CONTEXTS"));
}

// Those who may only look get no further, and hear why.
#[test]
fn a_reader_is_answered_and_refused_in_words() {
    let room = Room::new("reader", &format!("{SITE}\n[manage]\nread_socket = \"read.sock\"\n"));
    let (engine, calls) = crossbeam::channel::bounded::<Call>(4);
    thread::spawn(move || {
        for call in calls {
            let response = answer(&call.request);
            call.answer(response);
        }
    });
    let read = Socket { path: room.0.join("read.sock"), mode: 0o600, group: None };
    let _server = Server::open(&Doors { read: Some(read), ..Doors::at(&room.0.join("control.sock")) }, engine).unwrap();
    assert_eq!(room.ctl("--socket read.sock status --json").json()["name"], "a-box");
    let refused = room.ctl("--socket read.sock provider isp-x drain");
    let text =
        "POST /v1/providers/steering is for operators; ask by box.control_socket or with an operator's certificate\n";
    assert_eq!((refused.status, refused.out.as_str(), refused.err.as_str()), (4, "", text));
    assert_eq!(room.ctl("provider isp-x drain").status, 0);
}

#[test]
fn the_command_line_explains_itself() {
    let room = Room::new("manual", SITE);
    for shell in ["bash", "zsh", "fish"] {
        let said = room.ctl(&format!("completion {shell}"));
        assert!(said.status == 0 && said.out.contains("pshim6ctl") && said.out.contains("contexts"), "{said:?}");
    }
    assert_eq!(room.ctl("man pages").status, 0);
    let page = |name: &str| fs::read_to_string(room.0.join("pages").join(name)).unwrap();
    assert!(page("pshim6ctl.1").contains("Exit status"));
    assert!(page("pshim6ctl-contexts.1").contains("limit") && page("pshim6ctl-host-add.1").contains("make\\-key"));
}

#[test]
fn an_upgrade_is_waited_for() {
    let room = Room::new("upgrade", SITE);
    let (_server, asked) = daemon(&room);
    let said = room.ctl("upgrade");
    assert_eq!((said.status, said.err.as_str()), (0, "process 4711 takes over\n"));
    assert_eq!(said.out, "process 4711 runs, version 9.9, 0 contexts\n");
    assert_eq!(*asked.lock().unwrap(), [Request::Upgrade, Request::Status]);
}

/// Answers to what is asked in few tests.
pub(super) fn seldom(request: &Request) -> Response {
    let view = |running: bool| {
        let ended = (!running).then(|| "the operator stopped it".to_owned());
        let file = Some("/var/lib/pshim6/tape".into());
        RecordingView { running, file, octets: 4096, octets_max: 256_000_000, ended }
    };
    match request {
        Request::RecordStart(_) => Response::Upgrading(UpgradingView { process: 4711 }),
        Request::Recording => Response::Recording(view(true)),
        Request::RecordStop => Response::RecordStopped(view(false)),
        _ => Response::Bmp(BmpView::default()),
    }
}

#[test]
fn a_recording_is_begun_looked_at_and_ended() {
    let room = Room::new("record", SITE);
    let (_server, asked) = daemon(&room);
    let begun = room.ctl("record start /var/lib/pshim6/tape --megabytes 7");
    assert_eq!((begun.status, begun.err.as_str()), (0, "process 4711 takes over\n"));
    let wanted = RecordRequest { file: "/var/lib/pshim6/tape".into(), megabytes: Some(7) };
    assert_eq!(asked.lock().unwrap().first(), Some(&Request::RecordStart(wanted)));
    assert_eq!(room.ctl("record status").out, "recorded to /var/lib/pshim6/tape: 4096 of 256000000 octets\n");
    let text = "recorded to /var/lib/pshim6/tape, until the operator stopped it: 4096 of 256000000 octets\n";
    assert_eq!(room.ctl("record stop").out, text);
    assert_eq!(room.ctl("record status --json").json()["running"], true);
}

#[test]
fn what_is_no_recording_is_refused_in_words() {
    let room = Room::new("replay", SITE);
    fs::write(room.0.join("tape"), "nothing of the kind").unwrap();
    let said = room.ctl("replay tape");
    let text = "this is no recording of a P-SHIM6 box\n";
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (1, "", text));
    assert!(room.ctl("replay nowhere").err.contains("nowhere: "));
    // With the head of one and no more.
    fs::write(room.0.join("tape"), b"P6TAPE\0\x01").unwrap();
    assert_eq!(room.ctl("replay tape").err, "the recording has no beginning\n");
    fs::write(room.0.join("tape"), b"P6TAPE\0\x63").unwrap();
    assert_eq!(room.ctl("replay tape").err, "the recording has form 99, and this program reads 1\n");
}
