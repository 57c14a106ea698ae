use std::io::{BufRead, Read};
use std::time::Instant;

use super::*;
use crate::manage::api::{ContextFilter, HostsView, StatusView};
use crate::manage::{Client, ClientError};

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
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server whose engine answers with what it was asked.
fn serve(room: &Room) -> Server {
    let (engine, calls) = channel::bounded::<Call>(4);
    thread::spawn(move || {
        for call in calls {
            let response = match &call.request {
                Request::Status => Response::Status(StatusView { name: "a-box".into(), ..Default::default() }),
                Request::Hosts => Response::Hosts(HostsView::default()),
                other => Response::error(format!("{other:?}")),
            };
            call.answer(response);
        }
    });
    Server::start(&room.socket(), engine).unwrap()
}

fn raw(room: &Room, lines: &[u8]) -> Vec<String> {
    let mut stream = UnixStream::connect(room.socket()).unwrap();
    stream.write_all(lines).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    BufReader::new(stream).lines().map(Result::unwrap).collect()
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
    let Err(ClientError::Refused(text)) = client.call(Request::Contexts(filter)) else { panic!() };
    assert!(text.contains("ulid: Some(fc00::1)"), "{text}");
}

#[test]
fn what_is_no_request_is_answered_in_words() {
    let room = Room::new("words");
    let _server = serve(&room);
    let answers = raw(&room, b"hello\n{\"version\":9,\"request\":\"status\"}\n{\"version\":1,\"request\":\"lunch\"}\n");
    assert_eq!(answers.len(), 3);
    assert!(
        answers[0].starts_with(r#"{"version":1,"response":{"error":{"text":"not a request: expected value"#),
        "{answers:?}"
    );
    assert!(answers[1].contains("version 9 of the protocol is not spoken here, only 1"), "{answers:?}");
    assert!(answers[2].contains("unknown variant `lunch`"), "{answers:?}");
    // One that is too long ends the conversation.
    let long = [vec![b' '; REQUEST_OCTETS_MAX as usize + 1], b"\n{}\n".to_vec()].concat();
    let mut stream = UnixStream::connect(room.socket()).unwrap();
    stream.write_all(&long).unwrap();
    let mut answer = String::new();
    // The rest of what we sent is thrown away, which the system may tell us as a reset after the answer.
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.contains("a line of more than 16384 octets") && answer.lines().count() == 1, "{answer}");
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
fn a_daemon_that_is_not_there_is_named() {
    let error = Client::connect(Path::new("/nonexistent/control.sock")).unwrap_err().to_string();
    assert!(error.starts_with("daemon not running at /nonexistent/control.sock: No such file"), "{error}");
}
