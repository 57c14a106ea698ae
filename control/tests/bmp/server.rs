//! The sockets: who may speak, what silence, slowness and noise cost, and what somebody in the middle can do.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use control::bmp::server::{HANDSHAKES_MAX, News, Patience, Server, Wish};
use control::bmp::{Count, Phase, Status};
use control::config::bmp::Bmp;
use control::config::site::TlsFiles;
use control::config::tls::Tls;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslStream, SslVersion};

use super::certificates::{Authority, Files};
use super::routers::*;
use super::{X, half, settings, source};

const DAY: (i64, i64) = (-3600, 86_400);
const ROUTE: &str = "2001:db8:b::/48";
const PEER: &str = "2001:db8:b:1::";
const SHORT: Patience = Patience { first: Duration::from_millis(300), message: Duration::from_millis(300) };

/// A station, asked about one peer, and what it has said.
struct Desk {
    server: Server,
    lost: Option<bool>,
    status: Status,
}

impl Desk {
    fn open(settings: &Bmp, tls: Option<&Tls>, patience: Patience) -> Desk {
        let server = Server::open(settings, tls, patience).unwrap();
        assert!(server.wish(Wish::Ask(half(PEER))));
        Desk { server, lost: None, status: Status::default() }
    }

    fn plain(patience: Patience) -> Desk {
        Desk::open(&settings(vec![source("isp-x", X)]), None, patience)
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn count(&self, count: Count) -> u64 {
        self.server.counts().value(count)
    }

    /// Takes in what is said until something is so.
    fn until(&mut self, what: &str, mut so: impl FnMut(&Desk) -> bool) {
        let until = Instant::now() + Duration::from_secs(10);
        while !so(self) {
            match self.server.news() {
                Some(News::Route(change)) => self.lost = Some(change.lost),
                Some(News::Status(status)) => self.status = *status,
                None => thread::sleep(Duration::from_millis(5)),
            }
            assert!(Instant::now() < until, "not so: {what}; {:?}", self.status);
        }
    }

    fn becomes(&mut self, phase: Phase) {
        self.until(&format!("{phase:?}"), |desk| desk.status.sources.first().is_some_and(|it| it.phase == phase));
    }
}

fn say(stream: &mut impl Write, messages: &[Vec<u8>]) -> bool {
    messages.iter().all(|message| stream.write_all(message).is_ok())
}

/// Whether the other end closes, without a word.
fn is_closed(stream: &mut impl Read) -> bool {
    let mut octets = Vec::new();
    match stream.read_to_end(&mut octets) {
        Ok(_) => octets.is_empty(),
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

/// One that works, whatever went on before, and can lose a route.
fn serves(desk: &mut Desk) {
    let mut good = desk.connect();
    assert!(say(&mut good, &session("edge", X, &[ROUTE])));
    desk.becomes(Phase::Complete);
    desk.lost = None;
    assert!(say(&mut good, &[withdraw(X, &[ROUTE])]));
    desk.until("the route is lost", |desk| desk.lost == Some(true));
    drop(good);
    desk.until("nothing is known", |desk| desk.lost == Some(false));
    desk.becomes(Phase::Silent);
}

#[test]
fn what_a_router_says_is_told_and_nothing_is_said_to_it() {
    let mut desk = Desk::plain(Patience::default());
    serves(&mut desk);
    // In pieces as small as can be.
    let mut slow = desk.connect();
    slow.set_nodelay(true).unwrap();
    for octet in session("edge", X, &[ROUTE]).concat() {
        slow.write_all(&[octet]).unwrap();
    }
    desk.becomes(Phase::Complete);
    slow.shutdown(Shutdown::Write).unwrap();
    assert!(is_closed(&mut slow));
}

#[test]
fn noise_and_endless_messages_end_their_connection_and_nothing_else() {
    let mut desk = Desk::plain(Patience::default());
    let huge = [3, 0xff, 0xff, 0xff, 0xff, 0];
    let wrong_inside = message(0, &[per_peer(X, 65001, POST_POLICY), vec![0xff; 600]].concat());
    let cases: Vec<Vec<Vec<u8>>> = vec![
        vec![b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()],
        vec![huge.to_vec()],
        vec![initiation("edge"), huge.to_vec()],
        vec![vec![3, 0, 0, 0, 0, 4]],
        vec![initiation("edge"), message(3, &[0; 10])],
        vec![initiation("edge"), peer_up(X), wrong_inside],
        vec![peer_up(X)],
        vec![initiation("edge"), termination(1)],
        vec![(0..=255).cycle().take(100_000).collect()],
    ];
    let count = cases.len();
    for (at, case) in cases.into_iter().enumerate() {
        let mut stream = desk.connect();
        say(&mut stream, &case);
        assert!(is_closed(&mut stream), "{at}");
    }
    assert!(desk.count(Count::Malformed) >= 6);
    assert_eq!((desk.count(Count::OutOfOrder), desk.count(Count::Connections)), (1, count as u64));
    serves(&mut desk);
}

#[test]
fn a_drip_and_a_silence_before_the_first_word_end_and_a_silence_after_it_does_not() {
    let mut desk = Desk::plain(SHORT);
    let mut silent = desk.connect();
    let mut dripping = desk.connect();
    let began = Instant::now();
    let octets = initiation("edge");
    let mut ended = false;
    for octet in &octets {
        ended |= dripping.write_all(&[*octet]).is_err();
        thread::sleep(Duration::from_millis(50));
    }
    assert!(is_closed(&mut silent) && (ended || is_closed(&mut dripping)));
    assert!(began.elapsed() < Duration::from_secs(9));
    assert_eq!(desk.count(Count::TooSlow), 2);
    let mut quiet = desk.connect();
    assert!(say(&mut quiet, &session("edge", X, &[ROUTE])));
    desk.becomes(Phase::Complete);
    thread::sleep(3 * SHORT.message);
    assert!(say(&mut quiet, &[withdraw(X, &[ROUTE])]));
    desk.until("the route is lost", |desk| desk.lost == Some(true));
    // A message that has begun is not waited for.
    quiet.write_all(&announce(X, &[ROUTE])[..20]).unwrap();
    assert!(is_closed(&mut quiet));
    serves(&mut desk);
}

#[test]
fn there_are_so_many_places_and_only_for_those_who_may_come() {
    let mut desk = Desk::plain(Patience::default());
    let held: Vec<TcpStream> = (0..4)
        .map(|number| {
            let mut stream = desk.connect();
            assert!(say(&mut stream, &[initiation(&format!("edge-{number}"))]));
            stream
        })
        .collect();
    desk.until("four are there", |desk| desk.status.routers.len() == 4);
    for turned_away in 1..=20 {
        assert!(is_closed(&mut desk.connect()));
        assert_eq!(desk.count(Count::TurnedAway), turned_away);
    }
    drop(held);
    desk.until("they are gone", |desk| desk.status.routers.is_empty());
    serves(&mut desk);
    let mut elsewhere = settings(vec![source("isp-x", X)]);
    elsewhere.from = vec!["127.0.0.9".parse().unwrap()];
    let desk = Desk::open(&elsewhere, None, Patience::default());
    assert!(is_closed(&mut desk.connect()));
    assert_eq!(desk.count(Count::NotFrom), 1);
}

#[test]
fn whoever_speaks_faster_than_it_is_heard_waits() {
    let mut desk = Desk::plain(Patience::default());
    let mut stream = desk.connect();
    assert!(say(&mut stream, &session("edge", X, &[ROUTE])));
    let flap = [withdraw(X, &[ROUTE]), announce(X, &[ROUTE])].concat();
    for _ in 0..20_000 {
        stream.write_all(&flap).unwrap();
    }
    assert!(say(&mut stream, &[withdraw(X, &[ROUTE])]));
    // Nobody took in news meanwhile; what is left of them is bounded, and the last is the last.
    desk.until("all is said", |desk| desk.count(Count::Messages) >= 40_005);
    let (mut all, mut last) = (0, None);
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_millis(300) {
        match desk.server.news() {
            Some(News::Route(change)) => (all, last, quiet) = (all + 1, Some(change.lost), Instant::now()),
            Some(News::Status(_)) => {}
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
    assert_eq!(last, Some(true));
    assert!(all < 2000, "{all}");
}

/// Authorities, certificates and a station that stands on them.
struct Room {
    folder: PathBuf,
    servers: Authority,
    routers: Authority,
    settings: Bmp,
}

impl Room {
    fn new(name: &str) -> Room {
        let folder = std::env::temp_dir().join(format!("pshim6-bmp-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let [servers, routers] = ["servers", "routers"].map(|it| Authority::new(it, None));
        servers.write(&folder, "ca.pem");
        routers.write(&folder, "routers.pem");
        servers.issue(&folder, "box", DAY, &["127.0.0.1"]);
        let mut settings = settings(vec![source("isp-x", X)]);
        settings.from = Vec::new();
        settings.tls = Some(TlsFiles {
            listen: settings.listen,
            certificate: folder.join("box.pem"),
            key: folder.join("box-key.pem"),
            readers: Some(folder.join("routers.pem")),
            operators: None,
        });
        Room { folder, servers, routers, settings }
    }

    fn desk(&self) -> Desk {
        let tls = Tls::load(self.settings.tls.as_ref().unwrap()).unwrap();
        Desk::open(&self.settings, Some(&tls), Patience::default())
    }

    /// The same files with something else in them.
    fn renewed(&self) -> Tls {
        self.servers.issue(&self.folder, "box", DAY, &["127.0.0.1"]);
        Tls::load(self.settings.tls.as_ref().unwrap()).unwrap()
    }

    fn router(&self) -> Files {
        self.routers.issue(&self.folder, "router", DAY, &[])
    }

    /// A router that verifies the box, as it should.
    fn connect(&self, address: SocketAddr, own: Option<&Files>) -> Option<SslStream<TcpStream>> {
        let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
        connector.set_ca_file(self.folder.join("ca.pem")).unwrap();
        connector.set_min_proto_version(Some(SslVersion::TLS1_3)).unwrap();
        if let Some(own) = own {
            connector.set_certificate_chain_file(&own.certificate).unwrap();
            connector.set_private_key_file(&own.key, SslFiletype::PEM).unwrap();
        }
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        connector.build().connect("127.0.0.1", stream).ok()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn only_routers_with_a_certificate_are_heard() {
    let room = Room::new("strangers");
    let mut desk = room.desk();
    let stranger = Authority::new("routers", None).issue(&room.folder, "stranger", DAY, &[]);
    let expired = room.routers.issue(&room.folder, "expired", (-7200, -3600), &[]);
    let server = room.servers.issue(&room.folder, "server", DAY, &["127.0.0.1"]);
    for (at, own) in [None, Some(&stranger), Some(&expired), Some(&server)].into_iter().enumerate() {
        // Of TLS 1.3 a client learns only later that it was refused.
        if let Some(mut stream) = room.connect(desk.address(), own) {
            say(&mut stream, &session("edge", X, &[ROUTE]));
            assert!(is_closed(&mut stream));
        }
        desk.until("refused", |desk| desk.count(Count::NoHandshake) == at as u64 + 1);
    }
    // No TLS at all.
    let mut plain = desk.connect();
    say(&mut plain, &session("edge", X, &[ROUTE]));
    let _ = plain.read_to_end(&mut Vec::new());
    desk.until("refused", |desk| desk.count(Count::NoHandshake) == 5);
    assert_eq!(desk.count(Count::Messages), 0);
    let mut router = room.connect(desk.address(), Some(&room.router())).unwrap();
    assert!(say(&mut router, &session("edge", X, &[ROUTE])));
    desk.becomes(Phase::Complete);
    assert!(desk.status.routers[0].certificate.as_ref().is_some_and(|it| it.len() == 64));
}

#[test]
fn other_certificates_are_shown_to_who_comes_later_and_disturb_nobody_who_is_there() {
    let room = Room::new("renewed");
    let mut desk = room.desk();
    let shown = |stream: &SslStream<TcpStream>| stream.ssl().peer_certificate().unwrap().to_der().unwrap();
    let mut first = room.connect(desk.address(), Some(&room.router())).unwrap();
    assert!(say(&mut first, &session("edge", X, &[ROUTE])));
    desk.becomes(Phase::Complete);
    desk.server.renew(&room.renewed());
    let second = room.connect(desk.address(), Some(&room.router())).unwrap();
    assert_ne!(shown(&first), shown(&second));
    let before = desk.count(Count::Messages);
    assert!(say(&mut first, &session("edge", X, &[])));
    desk.until("it is heard on", |desk| desk.count(Count::Messages) > before);
}

#[test]
fn those_who_stay_at_the_handshake_keep_out_nobody_for_long() {
    let room = Room::new("handshakes");
    let mut desk = room.desk();
    let idle: Vec<TcpStream> = (0..HANDSHAKES_MAX + 20).map(|_| desk.connect()).collect();
    desk.until("the rest is turned away", |desk| desk.count(Count::TurnedAway) == 20);
    desk.until("the others are too slow", |desk| desk.count(Count::TooSlow) == HANDSHAKES_MAX as u64);
    let mut router = room.connect(desk.address(), Some(&room.router())).unwrap();
    assert!(say(&mut router, &session("edge", X, &[ROUTE])));
    desk.becomes(Phase::Complete);
    drop(idle);
}

/// Somebody between router and box, who sees every octet and can do with it what he likes.
struct Middle {
    address: SocketAddr,
    seen: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
    /// What is added to the stream towards the box when it is said.
    inject: std::sync::mpsc::Sender<Vec<u8>>,
    /// From then on one bit of each piece is turned.
    turn: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

fn middle(to: SocketAddr) -> Middle {
    use std::sync::atomic::Ordering::SeqCst;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let turn = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (inject, injected) = std::sync::mpsc::channel::<Vec<u8>>();
    let (log, turned) = (seen.clone(), turn.clone());
    thread::spawn(move || {
        let (mut router, _) = listener.accept().unwrap();
        let mut up = TcpStream::connect(to).unwrap();
        let (mut down, mut back) = (up.try_clone().unwrap(), router.try_clone().unwrap());
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(got @ 1..) = down.read(&mut piece) {
                if back.write_all(&piece[..got]).is_err() {
                    break;
                }
            }
            let _ = back.shutdown(Shutdown::Both);
        });
        router.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut piece = [0; 4096];
        loop {
            if let Ok(octets) = injected.try_recv()
                && up.write_all(&octets).is_err()
            {
                break;
            }
            match router.read(&mut piece) {
                Ok(0) => break,
                Ok(got) => {
                    log.lock().unwrap().extend(&piece[..got]);
                    if turned.load(SeqCst) {
                        piece[got - 1] ^= 1;
                    }
                    if up.write_all(&piece[..got]).is_err() {
                        break;
                    }
                }
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                }
                Err(_) => break,
            }
        }
        let _ = (up.shutdown(Shutdown::Both), router.shutdown(Shutdown::Both));
    });
    Middle { address, seen, inject, turn }
}

#[test]
fn somebody_in_the_middle_can_neither_read_nor_change_nor_add_nor_repeat_anything() {
    use std::sync::atomic::Ordering::SeqCst;
    let room = Room::new("middle");
    for attack in ["watch", "turn", "inject", "repeat", "cut"] {
        let mut desk = room.desk();
        let middle = middle(desk.address());
        let mut router = room.connect(middle.address, Some(&room.router())).unwrap();
        assert!(say(&mut router, &session("edge-under-watch", X, &[ROUTE])));
        desk.becomes(Phase::Complete);
        let before = desk.count(Count::Messages);
        match attack {
            "watch" => {
                let seen = middle.seen.lock().unwrap().clone();
                let holds = |secret: &[u8]| seen.windows(secret.len()).any(|part| part == secret);
                assert!(seen.len() > 500 && !holds(b"edge-under-watch") && !holds(&prefix(ROUTE)));
                assert!(say(&mut router, &[withdraw(X, &[ROUTE])]), "and it works");
                desk.until("the route is lost", |desk| desk.lost == Some(true));
                continue;
            }
            "turn" => {
                middle.turn.store(true, SeqCst);
                say(&mut router, &[withdraw(X, &[ROUTE])]);
            }
            "inject" => middle.inject.send(withdraw(X, &[ROUTE])).unwrap(),
            "repeat" => {
                assert!(say(&mut router, &[statistics(X)]));
                desk.until("it came", |desk| desk.count(Count::Messages) == before + 1);
                let seen = middle.seen.lock().unwrap().clone();
                middle.inject.send(seen[seen.len() - 120..].to_vec()).unwrap();
            }
            _ => drop(router),
        }
        // The session ends, which means that nothing is known, and never that a route is lost.
        desk.becomes(Phase::Silent);
        assert_ne!(desk.lost, Some(true), "{attack}");
        assert!(desk.count(Count::Messages) <= before + u64::from(attack == "repeat"), "{attack}");
    }
    // Who answers in the box's place is not believed by a router that verifies.
    let impostor = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = impostor.local_addr().unwrap();
    let own = Authority::new("servers", None).issue(&room.folder, "impostor", DAY, &["127.0.0.1"]);
    thread::spawn(move || {
        let mut acceptor = openssl::ssl::SslAcceptor::mozilla_modern_v5(SslMethod::tls_server()).unwrap();
        acceptor.set_certificate_chain_file(&own.certificate).unwrap();
        acceptor.set_private_key_file(&own.key, SslFiletype::PEM).unwrap();
        let (stream, _) = impostor.accept().unwrap();
        assert!(acceptor.build().accept(stream).is_err());
    });
    assert!(room.connect(address, Some(&room.router())).is_none());
}
