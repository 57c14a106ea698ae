use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crossbeam::channel;

use super::*;
use crate::manage::api::{ContextFilter, HostsView, StatusView, SteerRequest, Steering};
use crate::manage::{Client, ClientError, OPERATIONS, Problem, Role};

/// A directory of its own for a test, removed at its end.
struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Room {
        let path = std::env::temp_dir().join(format!("pshim6-server-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Room(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    fn read_socket(&self) -> PathBuf {
        self.0.join("read.sock")
    }

    /// All three doors, and little patience.
    fn doors(&self) -> Doors {
        let read = Socket { path: self.read_socket(), mode: 0o606, group: None };
        let metrics = Some("[::1]:0".parse().unwrap());
        Doors { read: Some(read), metrics, patience: Duration::from_millis(300), ..Doors::at(&self.socket()) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An engine that answers with what it was asked.
fn engine() -> Sender<Call> {
    let (engine, calls) = channel::bounded::<Call>(4);
    thread::spawn(move || {
        for call in calls {
            let response = match &call.request {
                Request::Status => Response::Status(StatusView { name: "a-box".into(), ..Default::default() }),
                Request::Hosts => Response::Hosts(HostsView::default()),
                Request::Counters => Response::Counters(Default::default()),
                Request::Steer(_) => Response::missing("there is no provider called x"),
                other => Response::error(format!("{other:?}")),
            };
            call.answer(response);
        }
    });
    engine
}

fn serve(room: &Room) -> Server {
    Server::start(&room.socket(), engine()).unwrap()
}

/// What comes back for some octets: the status line, and the body of the first answer.
fn raw(socket: &Path, octets: &[u8]) -> (String, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    // The other end may hang up before it has read everything.
    let _ = stream.write_all(octets);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// One request on a connection that is closed behind it.
fn ask(socket: &Path, method: &str, place: &str, body: &str) -> (String, String) {
    let length = body.len();
    raw(
        socket,
        format!("{method} {place} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
            .as_bytes(),
    )
}

fn problem(body: &str) -> Problem {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// A count, as an operator sees it.
fn count(room: &Room, name: &str) -> u64 {
    // All places may be taken for a moment yet.
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let mut client = Client::connect(&room.socket()).unwrap();
        match client.call(Request::Counters) {
            Ok(Response::Counters(view)) => return view.counters[name],
            other => assert!(Instant::now() < until, "{other:?}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_question_comes_back_with_its_answer() {
    let room = Room::new("answer");
    let server = serve(&room);
    assert_eq!(fs::metadata(server.path()).unwrap().permissions().mode() & 0o777, 0o660);
    let mut client = Client::connect(&room.socket()).unwrap();
    let Ok(Response::Status(status)) = client.call(Request::Status) else { panic!() };
    assert_eq!(status.name, "a-box");
    // The same connection carries the next one.
    assert_eq!(client.call(Request::Hosts).unwrap(), Response::Hosts(HostsView::default()));
    let filter = ContextFilter { ulid: Some("fc00::1".parse().unwrap()), ..Default::default() };
    let Err(ClientError::Refused { text, status: 409 }) = client.call(Request::Contexts(filter)) else { panic!() };
    assert!(text.contains("ulid: Some(fc00::1)"), "{text}");
    let steer = SteerRequest { provider: "x".into(), steering: Steering::Drain };
    let Err(ClientError::Refused { text, status: 404 }) = client.call(Request::Steer(steer)) else { panic!() };
    assert_eq!(text, "there is no provider called x");
}

#[test]
fn what_is_no_request_is_answered_by_a_problem_document() {
    let room = Room::new("words");
    let _server = serve(&room);
    let table = [
        ("GET", "/v1/lunch", "", 404, "not-found", "/v1/lunch is no part of the API"),
        ("POST", "/v1/status", "", 405, "wrong-method", "/v1/status is asked for by GET"),
        ("GET", "/v1/reload", "", 405, "wrong-method", "/v1/reload is asked for by POST"),
        ("GET", "/v1/status?x=1", "", 400, "not-understood", "takes no arguments"),
        ("GET", "/v1/contexts?ulid=here", "", 400, "not-understood", "query: "),
        ("POST", "/v1/providers/steering", "{", 400, "not-understood", "body: "),
        (
            "POST",
            "/v1/providers/steering",
            "{\"provider\":\"x\",\"steering\":\"drain\"}",
            404,
            "not-found",
            "there is no provider",
        ),
        ("POST", "/v1/reload", "", 409, "refused", "Reload"),
    ];
    for (method, place, body, status, kind, detail) in table {
        let (line, body) = ask(&room.socket(), method, place, body);
        let said = problem(&body);
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{place}: {line}");
        assert_eq!((said.status, said.kind), (status, format!("/problems/{kind}")), "{place}");
        assert!(said.detail.starts_with(detail), "{place}: {}", said.detail);
    }
    assert_eq!((count(&room, "manage_not_understood"), count(&room, "manage_refused")), (6, 2));
    let (line, body) = ask(&room.socket(), "GET", "/openapi.json", "");
    assert_eq!(line, "HTTP/1.1 200 OK");
    let document: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(document, crate::manage::openapi::document());
}

#[test]
fn requests_are_bounded() {
    let room = Room::new("long");
    let _server = serve(&room);
    let long = "x".repeat(REQUEST_OCTETS_MAX + 1);
    let (line, body) = ask(&room.socket(), "POST", "/v1/providers/steering", &long);
    assert_eq!(line, "HTTP/1.1 413 Payload Too Large");
    assert_eq!(problem(&body).detail, "a body of more than 16384 octets");
    // One that says nothing of its length is no way around it.
    let chunked = format!(
        "POST /v1/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5000\r\n{}\r\n",
        "x".repeat(0x5000)
    );
    assert!(raw(&room.socket(), chunked.as_bytes()).0.starts_with("HTTP/1.1 413 "));
    let (line, _) = ask(&room.socket(), "GET", &format!("/v1/contexts?{long}"), "");
    assert!(
        ["HTTP/1.1 431 Request Header Fields Too Large", "HTTP/1.1 414 URI Too Long"].contains(&line.as_str()),
        "{line}"
    );
    let (line, _) = raw(&room.socket(), b"\x16\x03\x01 hello\r\n\r\n");
    assert_eq!(line, "HTTP/1.1 400 Bad Request");
    assert_eq!((count(&room, "manage_too_long"), count(&room, "manage_not_understood")), (3, 1));
}

// Those who are slow, silent or stay for ever are sent away, each at its own pace.
#[test]
fn nobody_keeps_a_place_by_being_slow() {
    let room = Room::new("slow");
    let server = Server::open(&room.doors(), engine()).unwrap();
    let begun = Instant::now();
    let ended = |stream: &mut UnixStream| {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(begun.elapsed() < Duration::from_secs(4), "still open");
        String::from_utf8_lossy(&rest).into_owned()
    };
    let mut silent = UnixStream::connect(room.socket()).unwrap();
    let mut half = UnixStream::connect(room.socket()).unwrap();
    half.write_all(b"GET /v1/status HTT").unwrap();
    let mut idle = UnixStream::connect(room.socket()).unwrap();
    idle.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut body = UnixStream::connect(room.socket()).unwrap();
    body.write_all(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{").unwrap();
    // A letter now and then is no progress either.
    let mut drip = UnixStream::connect(room.socket()).unwrap();
    let dripping = thread::spawn({
        let mut drip = drip.try_clone().unwrap();
        move || {
            for letter in b"GET /v1/status HTTP/1.1\r\nHost: a-name-that-takes-a-while\r\n" {
                if drip.write_all(&[*letter]).is_err() {
                    return true;
                }
                thread::sleep(Duration::from_millis(60));
            }
            false
        }
    });
    ended(&mut silent);
    ended(&mut half);
    assert!(ended(&mut idle).contains("\"name\":\"a-box\""));
    assert!(ended(&mut body).starts_with("HTTP/1.1 408 "));
    ended(&mut drip);
    assert!(dripping.join().unwrap(), "the one who drips was heard to the end");
    assert!(count(&room, "manage_too_slow") >= 4, "{}", count(&room, "manage_too_slow"));
    drop(server);
}

#[test]
fn who_does_not_take_the_answer_is_sent_away() {
    let room = Room::new("stuck");
    let (sender, calls) = channel::bounded::<Call>(4);
    thread::spawn(move || {
        for call in calls {
            // More than a socket's buffers hold.
            let name = "x".repeat(4 << 20);
            let response = match call.request {
                Request::Status => Response::Status(StatusView { name, ..Default::default() }),
                _ => Response::Counters(Default::default()),
            };
            call.answer(response);
        }
    });
    let _server = Server::open(&room.doors(), sender).unwrap();
    let mut stuck: Vec<UnixStream> =
        (0..CONNECTIONS_MAX).map(|_| UnixStream::connect(room.socket()).unwrap()).collect();
    for stream in &mut stuck {
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }
    let until = Instant::now() + Duration::from_secs(10);
    while count(&room, "manage_too_slow") < CONNECTIONS_MAX as u64 {
        assert!(Instant::now() < until, "some were not sent away");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_socket_for_reading_takes_no_orders() {
    let room = Room::new("roles");
    let server = Server::open(&room.doors(), engine()).unwrap();
    assert_eq!(fs::metadata(room.read_socket()).unwrap().permissions().mode() & 0o777, 0o606);
    for operation in OPERATIONS.iter().filter(|it| it.role == Role::Operate) {
        let (line, body) = ask(&room.read_socket(), operation.method.name(), operation.path, "");
        assert_eq!((line.as_str(), problem(&body).kind.as_str()), ("HTTP/1.1 403 Forbidden", "/problems/read-only"));
    }
    let mut reader = Client::connect(&room.read_socket()).unwrap();
    let refused = reader.call(Request::Reload).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "POST /v1/reload is for operators; ask by box.control_socket or with an operator's certificate"
    );
    assert!(matches!(reader.call(Request::Status), Ok(Response::Status(_))));
    assert!(count(&room, "manage_read_only") > 1);
    // Those who look do not keep out those who act.
    let _looking: Vec<UnixStream> = (0..20).map(|_| UnixStream::connect(room.read_socket()).unwrap()).collect();
    assert!(Client::connect(&room.socket()).unwrap().call(Request::Status).is_ok());
    drop(server);
    assert!(!room.read_socket().exists());
}

#[test]
fn a_group_that_is_not_there_is_named() {
    let room = Room::new("group");
    let mut doors = Doors::at(&room.socket());
    doors.control.group = Some("nobody-has-this-group".into());
    let error = Server::open(&doors, engine()).unwrap_err().to_string();
    assert!(error.ends_with("there is no group called nobody-has-this-group"), "{error}");
    doors.control.group = Some(nix::unistd::getgid().as_raw().to_string());
    let server = Server::open(&doors, engine()).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(server.path()).unwrap().gid(), nix::unistd::getgid().as_raw());
}

#[test]
fn an_engine_that_stopped_is_named() {
    let room = Room::new("stopped");
    let (engine, calls) = channel::bounded::<Call>(1);
    let _server = Server::start(&room.socket(), engine).unwrap();
    let asked = thread::spawn(move || drop(calls.recv()));
    let mut client = Client::connect(&room.socket()).unwrap();
    assert_eq!(client.call(Request::Status).unwrap_err().to_string(), "the engine has stopped");
    asked.join().unwrap();
    assert_eq!(client.call(Request::Status).unwrap_err().to_string(), "the engine has stopped");
}

#[test]
fn connections_are_bounded_and_their_places_come_back() {
    let room = Room::new("bounded");
    let _server = serve(&room);
    let mut clients: Vec<Client> = (0..CONNECTIONS_MAX).map(|_| Client::connect(&room.socket()).unwrap()).collect();
    for client in &mut clients {
        client.call(Request::Status).unwrap();
    }
    let refused = Client::connect(&room.socket()).unwrap().call(Request::Status).unwrap_err();
    assert_eq!(refused.to_string(), "8 connections are open already");
    clients.pop();
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match Client::connect(&room.socket()).unwrap().call(Request::Status) {
            Ok(_) => break,
            Err(error) => assert!(Instant::now() < until, "the place did not come back: {error}"),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_socket_is_replaced_only_if_nobody_answers() {
    let room = Room::new("stale");
    let server = serve(&room);
    let (engine, _calls) = channel::bounded(1);
    let taken = Server::start(&room.socket(), engine.clone()).unwrap_err();
    assert!(matches!(taken, ServerError::Taken(_)), "{taken}");
    drop(server);
    assert!(!room.socket().exists(), "a server that ends takes its socket along");
    // What a killed daemon leaves behind.
    drop(UnixListener::bind(room.socket()).unwrap());
    drop(Server::start(&room.socket(), engine.clone()).unwrap());
    fs::write(room.socket(), "precious").unwrap();
    let not_ours = Server::start(&room.socket(), engine).unwrap_err();
    assert!(matches!(not_ours, ServerError::NotASocket(_)), "{not_ours}");
    assert_eq!(fs::read_to_string(room.socket()).unwrap(), "precious");
}

// Each looks whether somebody answers and then puts a socket there; what lies between is where they would meet.
#[test]
fn of_many_that_start_at_once_one_is_there() {
    let room = Room::new("at-once");
    for round in 0..40 {
        if round % 2 == 1 {
            // What a killed one leaves behind is in the way of all of them.
            fs::create_dir_all(&room.0).unwrap();
            drop(UnixListener::bind(room.socket()).unwrap());
        }
        let start = std::sync::Barrier::new(4);
        let servers: Vec<_> = thread::scope(|scope| {
            let begin = || {
                start.wait();
                Server::start(&room.socket(), engine())
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(begin)).collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let refused = |it: &&Result<Server, ServerError>| matches!(it, Err(ServerError::Taken(_)));
        assert_eq!(servers.iter().filter(refused).count(), 3, "{servers:?}");
        assert!(Client::connect(&room.socket()).unwrap().call(Request::Status).is_ok(), "round {round}");
        drop(servers);
        assert!(!room.socket().exists(), "the one that was there takes its socket along");
    }
}

#[test]
fn a_server_leaves_anothers_socket_alone() {
    let room = Room::new("other");
    let server = serve(&room);
    fs::remove_file(room.socket()).unwrap();
    let _other = UnixListener::bind(room.socket()).unwrap();
    drop(server);
    assert!(room.socket().exists());
}

#[test]
fn a_daemon_that_is_not_there_is_named() {
    let error = Client::connect(Path::new("/nonexistent/control.sock")).unwrap_err().to_string();
    assert!(error.starts_with("daemon not running at /nonexistent/control.sock: No such file"), "{error}");
}
