//! The web page as a browser's requests meet it: what is there, what is not, and for whom. What it looks like in a browser is
//! for scripts/lab-tests/test_x_web.py.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread;

use control::manage::{Call, Doors, OPERATIONS, Request, Response, Server};
use crossbeam::channel;

/// A folder for a server's socket, removed at its end.
struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Room {
        let path = std::env::temp_dir().join(format!("pshim6-web-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Room(path)
    }

    fn serve(&self) -> (Server, SocketAddr) {
        let (engine, calls) = channel::bounded::<Call>(4);
        thread::spawn(move || {
            for call in calls {
                let response = match &call.request {
                    Request::Metrics => Response::Metrics(Box::default()),
                    Request::Policy => Response::Policy(Default::default()),
                    Request::Counters => Response::Counters(Default::default()),
                    Request::History(_) => Response::History(Box::default()),
                    other => panic!("the page asked {other:?}"),
                };
                call.answer(response);
            }
        });
        let web = Some("127.0.0.1:0".parse().unwrap());
        let server = Server::open(&Doors { web, ..Doors::at(&self.0.join("control.sock")) }, engine).unwrap();
        let address = server.web().unwrap();
        (server, address)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The answer to a request: status, head in small letters, body.
fn ask(address: SocketAddr, line: &str, host: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

#[test]
fn the_page_brings_all_it_needs_and_may_load_nothing_else() {
    let room = Room::new("files");
    let (_server, address) = room.serve();
    let own = address.to_string();
    let (status, head, html) = ask(address, "GET /", &own);
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/html; charset=utf-8") && html.starts_with("<!doctype html>"));
    for said in
        ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "nosniff", "no-referrer", "no-store"]
    {
        assert!(head.contains(said), "{said}: {head}");
    }
    assert!(
        !head.contains("set-cookie") && !head.contains("access-control") && !head.contains("unsafe-inline"),
        "{head}"
    );
    let named: Vec<&str> = html.split(['"', '\'']).filter(|it| it.starts_with('/') && it.contains('.')).collect();
    assert!(named.len() >= 5, "{named:?}");
    for place in named {
        assert_eq!(ask(address, &format!("GET {place}"), &own).0, 200, "{place}");
    }
    for place in ["/v1/metrics", "/v1/policy", "/v1/counters", "/v1/history", "/v1/history?from=3"] {
        assert_eq!(ask(address, &format!("GET {place}"), &own).0, 200, "{place}");
    }
}

#[test]
fn nothing_else_is_there_and_orders_least_of_all() {
    let room = Room::new("bounds");
    let (_server, address) = room.serve();
    let own = address.to_string();
    let asked = ["/v1/metrics", "/v1/policy", "/v1/counters", "/v1/history"];
    for operation in OPERATIONS.iter().filter(|it| !asked.contains(&it.path)) {
        let (status, ..) = ask(address, &format!("{} {}", operation.method.name(), operation.path), &own);
        assert_eq!(status, 404, "{}", operation.path);
    }
    for line in [
        "GET /metrics",
        "GET /openapi.json",
        "GET /../Cargo.toml",
        "GET /page.css/",
        "GET /index.html",
        "POST /nothing",
    ] {
        assert_eq!(ask(address, line, &own).0, 404, "{line}");
    }
    for line in ["POST /v1/metrics", "DELETE /v1/policy", "OPTIONS /v1/metrics"] {
        assert_eq!(ask(address, line, &own).0, 405, "{line}");
    }
    // One that is none of its files, whatever the method.
    assert_eq!(ask(address, "POST /", &own).0, 404);
}

// A name of somebody else's may be made to lead here (DNS rebinding): a page of his in the same browser is to read nothing.
#[test]
fn the_page_is_told_under_names_of_this_machine_only() {
    let room = Room::new("names");
    let (server, address) = room.serve();
    let port = address.port();
    for host in [address.to_string(), format!("localhost:{port}"), format!("LOCALHOST:{port}")] {
        assert_eq!(ask(address, "GET /v1/metrics", &host).0, 200, "{host}");
    }
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        "localhost".to_owned(),
        String::new(),
        format!("127.0.0.2:{port}"),
    ] {
        for line in ["GET /", "GET /v1/metrics", "GET /page.js"] {
            let (status, _, body) = ask(address, line, &host);
            assert_eq!(status, 421, "{line} of {host:?}");
            assert!(body.contains("/problems/wrong-host"), "{body}");
        }
    }
    drop(server);
    assert!(TcpStream::connect(address).is_err(), "still there");
}

#[test]
fn the_sockets_have_no_page() {
    let room = Room::new("sockets");
    let (server, _) = room.serve();
    let mut stream = std::os::unix::net::UnixStream::connect(server.path()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}
