//! What a question costs that the box can answer by itself: instructions of one, from the octets of the host's frame to those
//! of the answer's.
//!
//! `cargo build --release -p control --example names`, then
//! `valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/names cached 20000`, and the same with 10000:
//! the difference over 10000 is the cost of one. Without valgrind it prints nanoseconds. `cached` asks the ALG for a CMULA in its
//! cache, `own` the ALG for a name of the site's zone, `engine` the same through the whole engine, frame in and frame out.

use std::net::Ipv6Addr;
use std::time::Instant as Wall;

use control::config::site::Dns;
use control::dns::view::View;
use control::dns::{Alg, Bounds, Client, Config, Identifiers, Name, Output, PORT, Packet, ULID_KIND};
use control::sim::{Plan, World, packet};
use control::time::Instant;
use dataplane::link::{Notice, Punt};
use dataplane::snapshot::{Block, PortId};
use dataplane::wire::Ulid;
use dataplane::wire::ethernet;
use rand::SeedableRng;
use rand::rngs::StdRng;

const HOST: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xa, 0, 1, 0, 0, 0, 5);
const BOX: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xa, 0, 1, 0, 0, 0, 1);
const PEER: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xb, 0, 1, 0, 0, 0, 9);
const OWN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1);
const SERVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x53, 0, 0, 0, 0, 1);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_else(|| "cached".into());
    let count: u32 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let began = Wall::now();
    match mode.as_str() {
        "engine" => engine(count),
        "own" => ask(alg(), &question("h1.a.example"), count),
        _ => ask(alg(), &question("web.b.example"), count),
    }
    println!("{mode}: {count} questions, {:.0} ns each", began.elapsed().as_nanos() as f64 / f64::from(count.max(1)));
}

/// With the answer about one name in its cache.
fn alg() -> (Alg, StdRng) {
    let mut alg = Alg::new(Config {
        upstream: vec![SERVER],
        ulid_kind: ULID_KIND,
        zone: Name::from_text("a.example").ok(),
        identifiers: Identifiers { blocks: Vec::new(), site: Block::new(BOX, 48) },
        cache: Bounds { entries: 1000, octets: 1 << 20 },
        withholds: false,
    });
    alg.set_names([("h1", Ulid(HOST))]);
    alg.set_sources(0, vec![OWN]);
    let (mut rng, mut out) = (StdRng::seed_from_u64(1), Vec::new());
    alg.question(Instant::START, &mut rng, client(), &question("web.b.example"), &mut out);
    for output in out {
        let Output::Send(asked) = output else { continue };
        let view = View::new(&asked.payload).expect("our own question");
        let address = if view.asked_kind().0 == ULID_KIND { PEER } else { SERVER };
        let mut payload = asked.payload[..view.question_end()].to_vec();
        payload[2] |= 0x80;
        payload[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
        payload.extend_from_slice(&[0xc0, 12]);
        payload.extend_from_slice(&view.asked_kind().0.to_be_bytes());
        payload.extend_from_slice(&[0, 1, 0, 0, 14, 16, 0, 16]);
        payload.extend_from_slice(&address.octets());
        let answer = Packet { source: asked.target, target: asked.source, payload };
        alg.answer(Instant::START, &mut rng, &answer, &mut Vec::new());
    }
    (alg, rng)
}

fn ask((mut alg, mut rng): (Alg, StdRng), question: &[u8], count: u32) {
    let mut out = Vec::with_capacity(4);
    for _ in 0..count {
        out.clear();
        alg.question(Instant::START, &mut rng, client(), question, &mut out);
        assert!(matches!(out[0], Output::Reply(..)));
    }
}

fn engine(count: u32) {
    let mut world = World::new(&Plan::default(), 1);
    let server = "2001:db8:53::1".parse().expect("an address");
    let zone = Name::from_text("a.example").ok();
    let dns = Dns {
        upstream: vec![server],
        zone,
        ulid_kind: ULID_KIND,
        cache_entries: 1000,
        cache_mb: 1,
        questions_per_s: 1000,
        questions_per_host_s: 1000,
        handshake_wait_ms: 40,
        a_records: control::config::site::ARecords::Pass,
        a_wait_ms: 1000,
    };
    world.reload(0, |site, _| site.dns = Some(dns)).expect("a configuration the engine takes");
    world.restart(0);
    // The box has to know where the host is.
    let (host, now) = (world.hosts[0].ulid, world.now);
    let own = world.nodes[0].engine.snapshot().ports[0].own[0];
    let message = question("host-0-0.a.example");
    let sent = packet::udp(host, own, (4000, PORT), &message);
    world.send(0, &sent);
    world.run(std::time::Duration::from_millis(50));
    let mut frame = vec![0; ethernet::HEADER_LEN];
    frame.extend_from_slice(&sent);
    let (mut rng, mut effects) = (StdRng::seed_from_u64(1), Vec::with_capacity(4));
    for _ in 0..count {
        effects.clear();
        let notice = Notice::Punt(PortId(0), Punt::HostStack, &frame);
        world.nodes[0].engine.notice(now, &mut rng, notice, &mut effects);
        assert_eq!(effects.len(), 1);
    }
}

fn client() -> Client {
    Client::Datagram((HOST, 4000), (BOX, PORT))
}

/// As a resolver in a host asks, with an OPT record.
fn question(name: &str) -> Vec<u8> {
    let name = Name::from_text(name).expect("a name");
    let head = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    [&head, name.wire(), &[0, 28, 0, 1], &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]].concat()
}
