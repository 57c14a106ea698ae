//! Management over TLS: who is let in, as what, and what those cost who are not.

mod certificates;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use certificates::{Authority, Files};
use control::config::site::TlsFiles;
use control::config::tls::{self, Tls};
use control::manage::api::{ErrorView, StatusView, SteerRequest, Steering};
use control::manage::server::{CONNECTIONS_MAX, HANDSHAKES_MAX};
use control::manage::{Call, Client, ClientError, Doors, OPERATIONS, Request, Response, Role, Server};
use crossbeam::channel;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslStream, SslVerifyMode, SslVersion};

const DAY: (i64, i64) = (-3600, 86_400);

/// A folder with authorities, and a server that stands on them.
struct Room {
    folder: PathBuf,
    servers: Authority,
    readers: Authority,
    operators: Authority,
}

impl Room {
    fn new(name: &str) -> Room {
        let folder = std::env::temp_dir().join(format!("pshim6-tls-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let [servers, readers, operators] = ["servers", "readers", "operators"].map(|it| Authority::new(it, None));
        servers.write(&folder, "ca.pem");
        readers.write(&folder, "readers.pem");
        operators.write(&folder, "operators.pem");
        servers.issue(&folder, "box", DAY, &["127.0.0.1"]);
        Room { folder, servers, readers, operators }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            listen: "127.0.0.1:0".parse().unwrap(),
            certificate: self.file("box.pem"),
            key: self.file("box-key.pem"),
            readers: Some(self.file("readers.pem")),
            operators: Some(self.file("operators.pem")),
        }
    }

    fn serve(&self) -> (Server, SocketAddr) {
        self.serve_with(Duration::from_secs(5))
    }

    fn serve_with(&self, patience: Duration) -> (Server, SocketAddr) {
        self.open(patience, false)
    }

    fn open(&self, patience: Duration, web_over_tls: bool) -> (Server, SocketAddr) {
        let files = self.files();
        let tls = Some((files.listen, Arc::new(Tls::load(&files).unwrap())));
        let doors = Doors { tls, patience, web_over_tls, ..Doors::at(&self.file("control.sock")) };
        let server = Server::open(&doors, engine()).unwrap();
        let address = server.tls().unwrap().0;
        (server, address)
    }

    fn client(&self, address: SocketAddr, own: &Files) -> Result<Client, ClientError> {
        let files = tls::client(&self.file("ca.pem"), &own.certificate, &own.key).unwrap();
        Client::connect_tls(&format!("https://{address}"), files)
    }

    /// What comes of one question.
    fn ask(&self, address: SocketAddr, own: &Files) -> Result<Response, ClientError> {
        self.client(address, own)?.call(Request::Status)
    }

    fn reader(&self) -> Files {
        self.readers.issue(&self.folder, "reader", DAY, &[])
    }

    fn operator(&self) -> Files {
        self.operators.issue(&self.folder, "operator", DAY, &[])
    }

    /// A count, as an operator sees it on the machine.
    fn count(&self, name: &str) -> u64 {
        match Client::connect(&self.file("control.sock")).unwrap().call(Request::Counters) {
            Ok(Response::Counters(view)) => view.counters[name],
            other => panic!("{other:?}"),
        }
    }

    fn becomes(&self, name: &str, least: u64) {
        let until = Instant::now() + Duration::from_secs(10);
        while self.count(name) < least {
            assert!(Instant::now() < until, "{name}: {}", self.count(name));
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A connection by another library than ours, which also does what ours would not.
    fn foreign(&self, address: SocketAddr, own: Option<&Files>, version: SslVersion) -> Option<SslStream<TcpStream>> {
        let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
        connector.set_verify(SslVerifyMode::NONE);
        connector.set_max_proto_version(Some(version)).unwrap();
        if let Some(own) = own {
            connector.set_certificate_chain_file(&own.certificate).unwrap();
            connector.set_private_key_file(&own.key, SslFiletype::PEM).unwrap();
        }
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let configured = connector.build().configure().unwrap().verify_hostname(false);
        configured.connect("127.0.0.1", stream).ok()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn engine() -> channel::Sender<Call> {
    let (engine, calls) = channel::bounded::<Call>(4);
    thread::spawn(move || {
        for call in calls {
            let response = match &call.request {
                Request::Status => Response::Status(StatusView { name: "a-box".into(), ..Default::default() }),
                Request::Counters => Response::Counters(Default::default()),
                other => Response::Error(ErrorView::new(format!("{other:?}"))),
            };
            call.answer(response);
        }
    });
    engine
}

fn is_status(answer: &Result<Response, ClientError>) -> bool {
    matches!(answer, Ok(Response::Status(view)) if view.name == "a-box")
}

/// What is said on a connection, as text.
fn said(stream: &mut (impl Read + Write), request: &str) -> String {
    let _ = stream.write_all(request.as_bytes());
    let mut octets = Vec::new();
    let _ = stream.read_to_end(&mut octets);
    String::from_utf8_lossy(&octets).into_owned()
}

#[test]
fn a_role_is_that_of_the_authority() {
    let room = Room::new("roles");
    let (_server, address) = room.serve();
    let mut operator = room.client(address, &room.operator()).unwrap();
    assert!(is_status(&operator.call(Request::Status)));
    let steer = SteerRequest { provider: "x".into(), steering: Steering::Drain };
    let refused = operator.call(Request::Steer(steer.clone())).unwrap_err();
    assert!(matches!(refused, ClientError::Refused { status: 409, .. }), "the engine was asked: {refused}");
    let mut reader = room.client(address, &room.reader()).unwrap();
    assert!(is_status(&reader.call(Request::Status)));
    let refused = reader.call(Request::Steer(steer)).unwrap_err();
    assert!(matches!(refused, ClientError::Refused { status: 403, .. }), "{refused}");
    // Every order there is.
    for operation in OPERATIONS.iter().filter(|it| it.role == Role::Operate) {
        let mut stream = room.foreign(address, Some(&room.reader()), SslVersion::TLS1_3).unwrap();
        let (method, path) = (operation.method.name(), operation.path);
        let answer = said(&mut stream, &format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
    }
}

#[test]
fn who_has_no_certificate_of_ours_is_told_nothing() {
    let room = Room::new("strangers");
    let (_server, address) = room.serve();
    let stranger = Authority::new("readers", None).issue(&room.folder, "stranger", DAY, &[]);
    let expired = room.readers.issue(&room.folder, "expired", (-7200, -3600), &[]);
    let early = room.operators.issue(&room.folder, "early", (3600, 7200), &[]);
    // Whom the authority of servers knows is no client.
    let server = room.servers.issue(&room.folder, "server", DAY, &["127.0.0.1"]);
    // A certificate is no authority.
    let reader = room.reader();
    for (at, own) in [&stranger, &expired, &early, &server].into_iter().enumerate() {
        let refused = room.ask(address, own).unwrap_err();
        assert!(matches!(refused, ClientError::NoAccess { .. }), "{}: {refused:?}", own.certificate.display());
        room.becomes("manage_no_handshake", at as u64 + 1);
    }
    let none = room.foreign(address, None, SslVersion::TLS1_3);
    let answer = none.map(|mut it| said(&mut it, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert_eq!(answer.unwrap_or_default(), "", "without a certificate");
    let old = room.foreign(address, Some(&reader), SslVersion::TLS1_2);
    assert!(old.is_none(), "TLS 1.2");
    // HTTP without TLS gets no HTTP, not even to say so.
    let answer = said(&mut TcpStream::connect(address).unwrap(), "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(!answer.contains("HTTP"), "{answer:?}");
    room.becomes("manage_no_handshake", 7);
    assert_eq!(room.count("manage_no_handshake"), 7);
    assert!(is_status(&room.ask(address, &reader)));
    // And a client believes no server that its authority does not know.
    let files = tls::client(&room.file("readers.pem"), &reader.certificate, &reader.key).unwrap();
    let refused = Client::connect_tls(&format!("https://{address}"), files).unwrap_err();
    assert!(matches!(refused, ClientError::NoAccess { .. }), "{refused:?}");
}

#[test]
fn a_handshake_that_does_not_end_is_ended_and_keeps_out_nobody() {
    let room = Room::new("slow");
    let (_server, address) = room.serve_with(Duration::from_millis(500));
    let begun = Instant::now();
    // Silent ones, and one that sends a letter of a ClientHello now and then.
    let mut silent: Vec<TcpStream> = (0..CONNECTIONS_MAX * 2).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut drip = TcpStream::connect(address).unwrap();
    let dripping = thread::spawn(move || {
        for octet in [0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3].into_iter().chain(std::iter::repeat_n(0, 100)) {
            if drip.write_all(&[octet]).is_err() {
                return true;
            }
            thread::sleep(Duration::from_millis(60));
        }
        false
    });
    // Twice as many as have places after the handshake, and still:
    assert!(is_status(&room.ask(address, &room.operator())));
    for stream in &mut silent {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(dripping.join().unwrap(), "the one who drips was heard to the end");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    room.becomes("manage_too_slow", CONNECTIONS_MAX as u64 * 2 + 1);
    // More than there are places at the handshake: closed without a word, and all is well afterwards.
    let crowd: Vec<TcpStream> = (0..HANDSHAKES_MAX * 2).map(|_| TcpStream::connect(address).unwrap()).collect();
    room.becomes("manage_turned_away", HANDSHAKES_MAX as u64);
    assert!(room.count("manage_turned_away") <= HANDSHAKES_MAX as u64, "no more than have to be");
    drop(crowd);
    let until = Instant::now() + Duration::from_secs(5);
    while !is_status(&room.ask(address, &room.reader())) {
        assert!(Instant::now() < until, "places did not come back");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn each_role_has_its_own_connections_and_they_are_bounded() {
    let room = Room::new("bounded");
    let (_server, address) = room.serve_with(Duration::from_secs(2));
    let (reader, operator) = (room.reader(), room.operator());
    let mut stay: Vec<SslStream<TcpStream>> = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        stay.extend(room.foreign(address, Some(&reader), SslVersion::TLS1_3));
    }
    assert_eq!(stay.len(), CONNECTIONS_MAX);
    let refused = room.ask(address, &reader).unwrap_err();
    assert_eq!(refused.to_string(), "8 connections are open already");
    assert!(is_status(&room.ask(address, &operator)), "those who look do not keep out those who act");
    // And who has a certificate does not stay for ever either.
    for stream in &mut stay {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(is_status(&room.ask(address, &reader)));
}

#[test]
fn other_files_count_from_the_reload_on_for_those_who_are_here_too() {
    let room = Room::new("renewal");
    let (server, address) = room.serve();
    let (reader, operator) = (room.reader(), room.operator());
    let mut here = room.client(address, &operator).unwrap();
    assert!(is_status(&here.call(Request::Status)));
    let heirs = Authority::new("heirs", None);
    heirs.write(&room.folder, "operators.pem");
    room.servers.issue(&room.folder, "box", DAY, &["127.0.0.1"]);
    let renewal = server.tls().unwrap().1;
    assert!(is_status(&here.call(Request::Status)), "files are read when they are told to be");
    renewal.renew(Arc::new(Tls::load(&room.files()).unwrap()));
    let gone = here.call(Request::Status);
    assert!(gone.is_err(), "{gone:?}");
    assert!(matches!(room.ask(address, &operator), Err(ClientError::NoAccess { .. })));
    assert!(is_status(&room.ask(address, &reader)));
    assert!(is_status(&room.ask(address, &heirs.issue(&room.folder, "heir", DAY, &[]))));
}

#[test]
fn a_browser_gives_no_orders() {
    let room = Room::new("browser");
    let (_server, address) = room.serve();
    let operator = room.operator();
    for header in ["Origin: https://elsewhere.example", "Sec-Fetch-Site: same-origin"] {
        let mut stream = room.foreign(address, Some(&operator), SslVersion::TLS1_3).unwrap();
        let request = format!("POST /v1/reload HTTP/1.1\r\nHost: x\r\n{header}\r\nConnection: close\r\n\r\n");
        let answer = said(&mut stream, &request);
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("/problems/from-browser"), "{answer}");
        assert!(!answer.to_lowercase().contains("access-control-allow"), "{answer}");
    }
}

#[test]
fn the_page_is_there_for_those_with_a_certificate_if_it_shall_be() {
    let room = Room::new("page");
    let reader = room.reader();
    for (shall, status) in [(true, 200), (false, 404)] {
        let (_server, address) = room.open(Duration::from_secs(5), shall);
        for place in ["/", "/page.js"] {
            let mut stream = room.foreign(address, Some(&reader), SslVersion::TLS1_3).unwrap();
            let request = format!("GET {place} HTTP/1.1\r\nHost: box.example:9465\r\nConnection: close\r\n\r\n");
            let answer = said(&mut stream, &request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{place}: {answer}");
            assert!(answer.contains("content-security-policy: default-src 'none'"), "{answer}");
        }
    }
}

#[test]
fn files_that_would_let_the_wrong_ones_in_are_refused() {
    let room = Room::new("files");
    let fails =
        |files: &TlsFiles| Tls::load(files).unwrap_err().to_string().replace(&room.folder.display().to_string(), "");
    let files = room.files();
    assert!(Tls::load(&files).is_ok());
    let both = TlsFiles { readers: files.operators.clone(), ..files.clone() };
    assert!(
        fails(&both).starts_with("/operators.pem: names an authority that is in manage.clients_operator_ca as well")
    );
    let below = Authority::new("below", Some(&room.operators)).write(&room.folder, "below.pem");
    let text = fails(&TlsFiles { readers: Some(below), ..files.clone() });
    assert!(text.contains("one of manage.clients_operator_ca signed: its clients would be operators"), "{text}");
    let missing = TlsFiles { certificate: room.file("nowhere.pem"), ..files.clone() };
    assert!(fails(&missing).starts_with("/nowhere.pem: cannot be read: "));
    let no_pem = room.file("no.pem");
    fs::write(&no_pem, "hello\n").unwrap();
    assert_eq!(fails(&TlsFiles { operators: Some(no_pem), ..files.clone() }), "/no.pem: holds no certificate (PEM)");
    let other = room.servers.issue(&room.folder, "other", DAY, &["127.0.0.1"]);
    let text = fails(&TlsFiles { key: other.key, ..files.clone() });
    assert!(text.starts_with("/other-key.pem: is not the key of "), "{text}");
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(fails(&files).starts_with("/box-key.pem: mode 0644 lets everybody read the key"));
}

/// A site with management over TLS, and nothing else of interest.
const SITE: &str = r#"[box]
name = "a-box"

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

[[provider]]
name = "isp-x"
port = "x"
prefix = "2001:db8:a1:1::/64"
next_hop = "2001:db8:aa::1"

[manage]
listen = "[2001:db8:aa::2]:9465"
certificate = "box.pem"
key = "box-key.pem"
clients_operator_ca = "operators.pem"
"#;

#[test]
fn the_check_reads_certificates_and_says_when_ours_ends() {
    let room = Room::new("check");
    fs::write(room.file("site.toml"), SITE).unwrap();
    let check = || {
        let done = ctl(&room.folder, "--config site.toml check");
        (done.status.success(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
    };
    for (until_s, words) in [
        (40 * 86_400, None),
        (5 * 86_400 + 60, Some("box.pem: expires in 5 days")),
        (-60, Some("box.pem: has expired: no client believes it any more")),
    ] {
        room.servers.issue(&room.folder, "box", (-7200, until_s), &["127.0.0.1"]);
        let (good, said) = check();
        assert!(good && said.contains("expire") == words.is_some(), "{said}");
        assert!(words.is_none_or(|words| said.contains(words)), "{said}");
    }
    fs::remove_file(room.file("operators.pem")).unwrap();
    let (good, said) = check();
    assert!(!good && said.contains("operators.pem: cannot be read: "), "{said}");
}

fn ctl(folder: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pshim6ctl"));
    command.current_dir(folder).args(arguments.split_whitespace()).output().unwrap()
}

#[test]
fn pshim6ctl_asks_from_afar() {
    let room = Room::new("ctl");
    let (_server, address) = room.serve();
    room.reader();
    room.readers.issue(&room.folder, "expired", (-7200, -3600), &[]);
    let with = |name: &str| format!("--connect https://{address} --cert {name}.pem --key {name}-key.pem --ca ca.pem");
    let done = ctl(&room.folder, &format!("{} status --json", with("reader")));
    assert!(done.status.success() && String::from_utf8_lossy(&done.stdout).contains("\"a-box\""), "{done:?}");
    // Before or after the verb; orders are for operators.
    let done = ctl(&room.folder, &format!("reload {}", with("reader")));
    assert_eq!(done.status.code(), Some(4), "{done:?}");
    let done = ctl(&room.folder, &format!("{} status", with("expired")));
    let words = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!((done.status.code(), words.contains("CertificateExpired")), (Some(4), true), "{words}");
    for (arguments, status, expected) in [
        ("--connect https://box:1 status", 1, "--connect, --cert, --key and --ca belong together"),
        (&with("reader").replace("https://", "http://"), 1, "is not of the form https://box.example:9465"),
        (
            &with("reader").replace("--ca ca.pem", "--ca reader-key.pem"),
            1,
            "reader-key.pem: holds no certificate (PEM)",
        ),
        (&format!("{} check", with("reader")), 1, "works on the files of this machine"),
    ] {
        let arguments = if arguments.contains("status") || arguments.contains("check") {
            arguments.into()
        } else {
            format!("{arguments} status")
        };
        let done = ctl(&room.folder, &arguments);
        let words = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.code() == Some(status) && words.contains(expected), "{arguments}: {words}");
    }
}
