//! Two boxes over TLS on this machine, and what somebody in between can do.

#[path = "../../../tests/certificates/mod.rs"]
mod certificates;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant as WallInstant};

use certificates::Authority;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslStream, SslVerifyMode};
use rand::SeedableRng;

use super::*;
use crate::engine::Told;
use crate::sim::{Plan, SitePlan, World};
use crate::tape::Inputs;

const DAY: (i64, i64) = (-3600, 86_400);
const PATIENCE: Duration = Duration::from_secs(20);

/// Files of two boxes.
struct Room {
    folder: PathBuf,
    authority: Authority,
}

impl Room {
    fn new(name: &str) -> Room {
        let folder = std::env::temp_dir().join(format!("pshim6-sync-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let authority = Authority::new("boxes", None);
        authority.write(&folder, "ca.pem");
        fs::write(folder.join("secret"), "5e".repeat(32)).unwrap();
        fs::set_permissions(folder.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        Room { folder, authority }
    }

    fn settings(&self, name: &str, listen: SocketAddr, peer: SocketAddr) -> Settings {
        let files = self.authority.issue(&self.folder, name, DAY, &["127.0.0.1"]);
        Settings {
            listen,
            peers: vec![peer],
            certificate: files.certificate,
            key: files.key,
            authority: self.folder.join("ca.pem"),
            secret: self.folder.join("secret"),
            patience: Duration::from_secs(1),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// An address nobody listens at.
fn vacant() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Two boxes of the simulator's first site, whose wire is this machine's.
struct Pair {
    world: World,
    boxes: [Boxes; 2],
    addresses: [SocketAddr; 2],
}

impl Pair {
    /// The first box reaches the second at `by`, if that is somewhere else than where it listens.
    fn new(room: &Room, by: Option<SocketAddr>, listens: SocketAddr, change: impl FnOnce(&mut Hello)) -> Pair {
        let sites = vec![SitePlan { hosts: 4, ..SitePlan::default() }; 2];
        let mut world = World::new(&Plan { sites, standby: false, ..Plan::default() }, 1);
        world.add_twin(0);
        world.cut_sync(0, true);
        let addresses = [vacant(), listens];
        let peers = [by.unwrap_or(listens), addresses[0]];
        let mut rng = StdRng::seed_from_u64(7);
        let mut site = world.nodes[0].configuration().0.clone();
        let mut start = |which: usize, world: &World| {
            let node = if which == 0 { &world.nodes[0] } else { world.nodes[0].second().unwrap() };
            let settings = room.settings(["first", "second"][which], addresses[which], peers[which]);
            let files = SyncFiles::load(&settings).unwrap();
            site.node.id = node.configuration().0.node.id;
            site.sync = Some(settings);
            Boxes::start(&site, Some(&files), &mut rng, &node.engine).unwrap().unwrap()
        };
        let mut boxes = [start(0, &world), start(1, &world)];
        change(&mut boxes[1].hello);
        Pair { world, boxes, addresses }
    }

    /// Time passes here and in the world until something is true.
    fn until(&mut self, what: &str, mut is_true: impl FnMut(&Pair) -> bool) {
        let end = WallInstant::now() + PATIENCE;
        while !is_true(self) {
            assert!(WallInstant::now() < end, "not within {PATIENCE:?}: {what}; {:#?}", self.views());
            self.turn();
        }
    }

    fn run(&mut self, time: Duration) {
        let end = WallInstant::now() + time;
        while WallInstant::now() < end {
            self.turn();
        }
    }

    fn turn(&mut self) {
        let Pair { world, boxes: [first, second], .. } = self;
        let now = world.now;
        world.nodes[0]
            .act(now, |now, rng, engine, effects| first.turn(now, &mut Inputs::new(engine, rng, None), effects));
        world.nodes[0].second_acts(now, |now, rng, engine, effects| {
            second.turn(now, &mut Inputs::new(engine, rng, None), effects)
        });
        world.run(Duration::from_millis(2));
        thread::sleep(Duration::from_millis(1));
    }

    fn views(&self) -> [SyncView; 2] {
        let now = self.world.now;
        let node = &self.world.nodes[0];
        [self.boxes[0].view(now, &node.engine), self.boxes[1].view(now, &node.second().unwrap().engine)]
    }

    /// What each knows: tags, pairs and stamps.
    fn known(&self) -> [Vec<String>; 2] {
        let node = &self.world.nodes[0];
        [&node.engine, &node.second().unwrap().engine].map(|engine| {
            let all = engine.contexts().filter(|it| it.state.carries_payload());
            let of = |it: &crate::shim6::Context| {
                format!("{:?} {:?} {:?} {:?} {:?}", it.ulids, it.local_tag, it.peer_tag, it.pair, it.stamp())
            };
            let mut known: Vec<String> = all.map(of).collect();
            known.sort();
            known
        })
    }

    fn is_alike(&self, contexts: usize) -> bool {
        let [first, second] = self.known();
        first.len() == contexts && first == second
    }

    fn talk(&mut self, host: usize) {
        self.world.stream(host, host + 4, Duration::from_millis(50));
        self.world.stream(host + 4, host, Duration::from_millis(50));
    }
}

/// What somebody in between does with what goes from the first box to the second.
#[derive(Default)]
struct Middle {
    /// Octets of the caller are changed: the one in so many.
    spoil: AtomicU64,
    /// Nothing goes through.
    cut: AtomicBool,
    /// All that was said by the caller, by connection.
    heard: Mutex<Vec<Vec<u8>>>,
    connections: Mutex<Vec<TcpStream>>,
}

impl Middle {
    /// Between whoever calls the address returned and `to`.
    fn between(to: SocketAddr) -> (Arc<Middle>, SocketAddr) {
        let middle = Arc::new(Middle::default());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, own) = (listener.local_addr().unwrap(), middle.clone());
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let Ok(called) = TcpStream::connect(to) else { continue };
                if own.cut.load(Ordering::Relaxed) {
                    continue;
                }
                own.connections.lock().unwrap().extend([caller.try_clone().unwrap(), called.try_clone().unwrap()]);
                let (from, back) = ((caller.try_clone().unwrap(), called.try_clone().unwrap()), (called, caller));
                let at = {
                    let mut heard = own.heard.lock().unwrap();
                    heard.push(Vec::new());
                    heard.len() - 1
                };
                let there = own.clone();
                thread::spawn(move || pass(from, |octets| there.meddle(at, octets)));
                thread::spawn(move || pass(back, |_| ()));
            }
        });
        (middle, address)
    }

    fn meddle(&self, at: usize, octets: &mut [u8]) {
        let mut heard = self.heard.lock().unwrap();
        heard[at].extend_from_slice(octets);
        let spoil = self.spoil.load(Ordering::Relaxed);
        if spoil > 0 && !octets.is_empty() {
            octets[(spoil % octets.len() as u64) as usize] ^= 1;
        }
    }

    fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
        if cut {
            self.connections.lock().unwrap().drain(..).for_each(|it| _ = it.shutdown(Shutdown::Both));
        }
    }
}

fn pass((mut from, mut to): (TcpStream, TcpStream), mut meddle: impl FnMut(&mut [u8])) {
    let mut octets = [0; 4096];
    while let Ok(some) = from.read(&mut octets) {
        meddle(&mut octets[..some]);
        if some == 0 || to.write_all(&octets[..some]).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}

#[test]
fn contexts_get_to_the_other_box_and_none_is_lost_when_the_link_breaks() {
    let room = Room::new("alike");
    let listens = vacant();
    let (middle, by) = Middle::between(listens);
    let mut pair = Pair::new(&room, Some(by), listens, |_| ());
    pair.until("they find each other", |pair| pair.views().iter().all(|it| it.caught_up && it.boxes[0].caught_up));
    pair.talk(0);
    pair.until("the first context", |pair| pair.is_alike(1));
    for host in 1..4 {
        middle.cut(true);
        pair.talk(host);
        pair.until("deaf", |pair| !pair.views()[0].boxes[0].hears);
        pair.run(Duration::from_millis(300));
        assert!(!pair.is_alike(host + 1));
        middle.cut(false);
        pair.until("another context", |pair| pair.is_alike(host + 1));
    }
    let [first, second] = pair.views().map(|view| view.boxes[0].clone());
    assert_eq!((first.id, second.id), (Some(1), Some(0)));
    assert_eq!(second.contexts_refused, 0);
    assert!(first.contexts_told >= 4 && second.contexts_taken >= 4, "{first:?} {second:?}");
    // Somebody in between has seen none of it.
    let heard = middle.heard.lock().unwrap().concat();
    for context in pair.world.nodes[0].engine.contexts() {
        for octets in [context.ulids.local.0.octets(), context.ulids.peer.0.octets()] {
            assert!(!heard.windows(16).any(|window| window == octets), "{:?} in clear", context.ulids);
        }
    }
    assert!(heard.len() > 5000);
}

#[test]
fn octets_that_somebody_changes_end_the_connection_and_change_nothing() {
    let room = Room::new("spoilt");
    let listens = vacant();
    let (middle, by) = Middle::between(listens);
    let mut pair = Pair::new(&room, Some(by), listens, |_| ());
    pair.until("they find each other", |pair| pair.views().iter().all(|it| it.boxes[0].caught_up));
    middle.spoil.store(977, Ordering::Relaxed);
    for host in 0..4 {
        pair.talk(host);
    }
    let cut = |pair: &Pair| middle.heard.lock().unwrap().len() > 3 && pair.known()[0].len() == 4;
    pair.until("the connection ends again and again", cut);
    let [first, second] = pair.known();
    assert!(second.iter().all(|known| first.iter().any(|it| it[..60] == known[..60])), "{first:#?} {second:#?}");
    middle.spoil.store(0, Ordering::Relaxed);
    pair.until("everything is there after all", |pair| pair.is_alike(4));
    assert_eq!(pair.views()[1].nonsense, 0, "nothing of it was ever taken for a message");
}

#[test]
fn what_was_recorded_is_worth_nothing_when_it_is_said_again() {
    let room = Room::new("replayed");
    let listens = vacant();
    let (middle, by) = Middle::between(listens);
    let mut pair = Pair::new(&room, Some(by), listens, |_| ());
    pair.talk(0);
    pair.until("a context", |pair| pair.is_alike(1));
    let recorded = middle.heard.lock().unwrap()[0].clone();
    middle.cut(true);
    pair.until("silence", |pair| !pair.views()[1].boxes[0].heard);
    let (before, failed) = (pair.known(), pair.views()[1].handshakes_failed);
    for _ in 0..3 {
        let mut stream = TcpStream::connect(listens).unwrap();
        stream.write_all(&recorded).unwrap();
        pair.run(Duration::from_millis(100));
    }
    pair.until("they are turned away", |pair| pair.views()[1].handshakes_failed >= failed + 3);
    assert_eq!(pair.known()[1], before[1]);
    assert!(!pair.views()[1].boxes[0].heard);
}

fn call(room: &Room, name: Option<&str>, address: SocketAddr) -> Result<SslStream<TcpStream>, String> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_alpn_protos(b"\x0bpshim6-sync").unwrap();
    if let Some(name) = name {
        builder.set_certificate_file(room.folder.join(format!("{name}.pem")), SslFiletype::PEM).unwrap();
        builder.set_private_key_file(room.folder.join(format!("{name}-key.pem")), SslFiletype::PEM).unwrap();
    }
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let connector = builder.build().configure().unwrap().verify_hostname(false).use_server_name_indication(false);
    let mut stream = connector.connect("box", stream).map_err(|error| error.to_string())?;
    // In TLS 1.3 a client hears only afterwards that it is not wanted.
    match stream.read(&mut [0; 1]) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(stream),
        Ok(some) => Err(format!("{some} octets")),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn another_certificate_is_shown_to_who_calls_later_and_who_is_there_stays() {
    let room = Room::new("renewed");
    let listens = vacant();
    let mut pair = Pair::new(&room, None, listens, |_| ());
    pair.until("they find each other", |pair| pair.views().iter().all(|it| it.boxes[0].hears && it.boxes[0].heard));
    room.authority.issue(&room.folder, "caller", DAY, &["127.0.0.1"]);
    let shown = || call(&room, Some("caller"), listens).unwrap().ssl().peer_certificate().unwrap().to_der().unwrap();
    let before = shown();
    // The same names of files, and something else in them.
    let settings = room.settings("second", listens, pair.addresses[0]);
    pair.boxes[1].renew(&SyncFiles::load(&settings).unwrap());
    assert_ne!(shown(), before);
    assert!(pair.views().iter().all(|it| it.boxes[0].heard && it.boxes[0].hears));
}

#[test]
fn who_has_no_certificate_of_the_site_is_not_heard() {
    let room = Room::new("strangers");
    let listens = vacant();
    let mut pair = Pair::new(&room, None, listens, |_| ());
    pair.talk(0);
    pair.until("a context", |pair| pair.is_alike(1));
    let before = pair.known();
    let stranger = Authority::new("boxes", None);
    stranger.issue(&room.folder, "stranger", DAY, &["127.0.0.1"]);
    room.authority.issue(&room.folder, "expired", (-7200, -3600), &["127.0.0.1"]);
    for name in [None, Some("stranger"), Some("expired")] {
        for address in pair.addresses {
            let Err(_) = call(&room, name, address) else { panic!("{name:?} was let in") };
        }
    }
    // Nor is TLS spoken with who speaks none.
    for address in pair.addresses {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&encode(&FromTeller::Alive(1))).unwrap();
    }
    pair.until("all are counted", |pair| pair.views().iter().all(|it| it.handshakes_failed >= 4));
    assert_eq!(pair.known(), before);
    // Where this machine stood still for seconds they may have to find each other again.
    pair.until("they hear each other", |pair| pair.views().iter().all(|it| it.boxes[0].heard && it.boxes[0].hears));
}

#[test]
fn a_box_is_not_told_anything_by_who_is_not_the_one_it_called() {
    // The one that is called has a certificate of another authority, or for another address.
    for (authority, address) in [(Some(Authority::new("boxes", None)), "127.0.0.1"), (None, "192.0.2.7")] {
        let room = Room::new(&format!("impostor-{}", authority.is_some()));
        let listens = vacant();
        let mut pair = Pair::new(&room, None, listens, |_| ());
        // Comes instead of the second box, whose port this would have been.
        let impostor = vacant();
        let files = authority.as_ref().unwrap_or(&room.authority).issue(&room.folder, "impostor", DAY, &[address]);
        let mut settings = room.settings("other", impostor, vacant());
        (settings.certificate, settings.key) = (files.certificate, files.key);
        let (site, mut rng) = (pair.world.nodes[0].configuration().0.clone(), StdRng::seed_from_u64(3));
        let false_site = Site { sync: Some(settings.clone()), ..site.clone() };
        let false_files = SyncFiles::load(&settings).unwrap();
        let second = pair.world.nodes[0].second().unwrap();
        pair.boxes[1] = Boxes::start(&false_site, Some(&false_files), &mut rng, &second.engine).unwrap().unwrap();
        let own = room.settings("first", vacant(), impostor);
        let files = SyncFiles::load(&own).unwrap();
        let site = Site { sync: Some(own), ..site };
        pair.boxes[0] = Boxes::start(&site, Some(&files), &mut rng, &pair.world.nodes[0].engine).unwrap().unwrap();
        pair.talk(0);
        pair.until("there is something to tell", |pair| pair.known()[0].len() == 1);
        pair.until("it is not believed", |pair| pair.views()[0].boxes[0].refused.is_some());
        pair.run(Duration::from_millis(500));
        let [first, second] = pair.known();
        assert_eq!((first.len(), second.len()), (1, 0));
        assert!(!pair.views()[0].boxes[0].hears);
    }
}

#[test]
fn who_has_a_certificate_and_talks_nonsense_changes_nothing() {
    let room = Room::new("nonsense");
    let listens = vacant();
    let mut pair = Pair::new(&room, None, listens, |_| ());
    pair.talk(0);
    pair.until("a context", |pair| pair.is_alike(1));
    let before = pair.known();
    room.authority.issue(&room.folder, "odd", DAY, &["127.0.0.1"]);
    let own = pair.boxes[0].hello.clone();
    let long = |length: u32| [&length.to_le_bytes()[..], &[7; 100]].concat();
    let hello = |change: fn(&mut Hello)| {
        let mut hello = own.clone();
        change(&mut hello);
        encode(&FromTeller::Hello(Box::new(hello)))
    };
    let batch = encode(&FromTeller::Batch { number: 1, now: Duration::ZERO, told: vec![Told::CaughtUp] });
    let said: Vec<Vec<u8>> = vec![
        long(u32::MAX),
        long(17 << 10),
        long(100),
        vec![0; 40],
        // Nothing that is said before somebody says who he is counts.
        batch.clone(),
        encode(&FromTeller::Begin { fresh: true, first: 1 }),
        // Other boxes than there are, other sites, another language.
        hello(|it| it.version += 1),
        hello(|it| it.common.prefix.0 = "fc00:77::".parse().unwrap()),
        hello(|it| it.common.workers += 1),
        hello(|it| it.common.secret[3] ^= 1),
        hello(|it| it.box_id = 1),
    ];
    for octets in &said {
        let mut stream = call(&room, Some("odd"), listens).unwrap();
        stream.write_all(octets).unwrap();
        stream.write_all(&batch).unwrap();
        pair.run(Duration::from_millis(100));
    }
    let view = pair.views()[1].clone();
    assert!(view.nonsense >= 4 && view.turned_away >= 5, "{view:?}");
    assert_eq!(pair.known(), before);
    pair.talk(1);
    pair.until("it goes on", |pair| pair.is_alike(2));
}

#[test]
fn boxes_that_do_not_fit_say_why_on_both_sides_and_serve_alone() {
    type Change = fn(&mut Hello);
    let changes: [(Change, &str); 4] = [
        (|it| it.common.prefix.0 = "fc00:77::".parse().unwrap(), "site.prefix"),
        (|it| it.common.workers = 7, "box.workers"),
        (|it| it.common.contexts_max = 7, "box.contexts_max"),
        (|it| it.box_id = 2, "box.id"),
    ];
    for (at, (change, expected)) in changes.into_iter().enumerate() {
        let room = Room::new(&format!("misfit-{at}"));
        let mut pair = Pair::new(&room, None, vacant(), change);
        pair.talk(0);
        pair.until("a context", |pair| pair.known()[0].len() == 1);
        let refused = |pair: &Pair| {
            let reasons = pair.views().map(|view| view.boxes[0].refused.clone().unwrap_or_default());
            reasons.iter().all(|reason| reason.contains(expected))
        };
        pair.until("both say why", refused);
        let [first, second] = pair.known();
        assert_eq!((first.len(), second.len()), (1, 0), "{expected}");
        assert!(pair.views().iter().all(|view| view.caught_up), "nobody waits for it");
    }
}
