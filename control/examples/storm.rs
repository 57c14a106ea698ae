//! Very many peers of a box that runs, on one of its links: all set up a context with one of its hosts, and when the box has lost
//! everything their payload goes on until it knows them again. Some send often and most seldom. Prints JSON lines.
//!
//! Standard input is a packet socket on the far end of the link; `perf/recover` starts this with one, and says by a file when payload
//! is to begin.

// What the scene has and a real box needs not.
#[allow(dead_code, unused_imports, reason = "only strangers are needed of it")]
mod scene;

use std::io::stdin;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant as Wall};

use clap::Parser;
use control::shim6::{Config, ContextId, Endpoint, How, IdentityProof, Incoming, Open, Output, TagSpace};
use control::sim::packet;
use control::time::Instant;
use dataplane::wire::ethernet::{self, Mac};
use dataplane::wire::shim6::{Addresses, ControlPacket, PROTOCOL, PayloadHeader, emit_packet};
use dataplane::wire::{Locator, LocatorPair, Ulid, UlidPair};
use hashbrown::HashMap;
use rand::SeedableRng;
use rand::rngs::StdRng;
use scene::stranger;
use serde_json::json;

/// Plays very many peers.
#[derive(Clone, Debug, Parser)]
#[command(name = "storm")]
struct Arguments {
    /// Peers, each with a context.
    #[arg(long, default_value_t = 10_000)]
    peers: usize,
    /// How many of them send twenty packets a second.
    #[arg(long, default_value_t = 100)]
    live: usize,
    /// Milliseconds from packet to packet of the others.
    #[arg(long, default_value_t = 2000)]
    every_ms: u64,
    /// The identifier and a locator of the box's host.
    #[arg(long, num_args = 2, required = true)]
    host: Vec<Ipv6Addr>,
    /// Link-layer addresses of the box and of this end.
    #[arg(long, num_args = 2, required = true)]
    macs: Vec<String>,
    /// Payload begins when this file is there.
    #[arg(long)]
    go: PathBuf,
    /// Seconds after which nobody waits for the rest any more.
    #[arg(long, default_value_t = 60)]
    patience_s: u64,
}

/// Handshakes under way at a time, and messages taken in before something is sent.
const WINDOW: usize = 1024;
const RECEIVED_AT_ONCE: usize = 64;
/// From packet to packet of a live session.
const LIVE: Duration = Duration::from_millis(50);

fn main() {
    let arguments = Arguments::parse();
    let mut storm = Storm::new(&arguments);
    let began = Wall::now();
    storm.set_up(&arguments);
    println!("{}", json!({ "event": "ready", "contexts": storm.ready, "seconds": began.elapsed().as_secs_f64() }));
    while !arguments.go.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    storm.discard();
    println!("{}", storm.payload(&arguments));
}

struct Peer {
    id: ContextId,
    /// Payload of its context: the frame is the same each time.
    frame: Vec<u8>,
    back: Option<Duration>,
}

struct Storm {
    socket: UnixDatagram,
    header: [u8; ethernet::HEADER_LEN],
    endpoint: Endpoint,
    rng: StdRng,
    began: Wall,
    out: Vec<Output>,
    ready: usize,
    /// Contexts that came back since somebody looked.
    back: Vec<ContextId>,
    /// Packets that the socket had no room for.
    unsent: u64,
}

impl Storm {
    fn new(arguments: &Arguments) -> Storm {
        let socket = UnixDatagram::from(stdin().as_fd().try_clone_to_owned().expect("standard input"));
        socket.set_nonblocking(true).expect("a socket");
        let config = Config { contexts_max: u32::MAX as usize, ..Config::default() };
        let endpoint = Endpoint::new(config, [7; 32], TagSpace::new(1), Box::new(|_| 0), Box::new(IdentityProof));
        let mut header = [0; ethernet::HEADER_LEN];
        let [target, source] = [0, 1].map(|at| mac(&arguments.macs[at]));
        header[..6].copy_from_slice(&target.0);
        header[6..12].copy_from_slice(&source.0);
        header[12..14].copy_from_slice(&[0x86, 0xdd]);
        let (rng, began) = (StdRng::seed_from_u64(3), Wall::now());
        Storm { socket, header, endpoint, rng, began, out: Vec::new(), ready: 0, back: Vec::new(), unsent: 0 }
    }

    fn now(&self) -> Instant {
        Instant(self.began.elapsed())
    }

    /// All peers get their contexts.
    fn set_up(&mut self, arguments: &Arguments) {
        let (inside, locator) = (Ulid(arguments.host[0]), Locator(arguments.host[1]));
        let mut opened = 0;
        while self.ready < arguments.peers {
            if opened < arguments.peers && opened - self.ready < WINDOW {
                let host = stranger(opened, (2, 48), None, &mut self.rng);
                let ulids = UlidPair { local: host.ulid, peer: inside };
                let pairs = vec![LocatorPair { local: host.locators[0].0, peer: locator }];
                self.endpoint.set_host(host).expect("a host");
                let now = self.now();
                self.endpoint.open(now, &mut self.rng, Open { ulids, fork: 0, pairs }, &mut self.out).expect("an I1");
                opened += 1;
            }
            self.turn();
        }
    }

    /// What came while nobody listened.
    fn discard(&mut self) {
        let mut buffer = [0; 2048];
        while self.socket.recv(&mut buffer).is_ok() {}
    }

    /// Payload of all contexts goes on until they are there again. What became of it.
    fn payload(&mut self, arguments: &Arguments) -> serde_json::Value {
        let contexts = self.endpoint.contexts().filter_map(|context| {
            let header = PayloadHeader { next_header: 59, tag: context.peer_tag? };
            let (source, target) = (context.pair.local.0, context.pair.peer.0);
            let frame = [&self.header[..], &packet::ipv6(source, target, PROTOCOL, 64, &header.emit())].concat();
            Some(Peer { id: context.id, frame, back: None })
        });
        let mut peers: Vec<Peer> = contexts.collect();
        let places: HashMap<ContextId, usize> = peers.iter().enumerate().map(|(at, peer)| (peer.id, at)).collect();
        let live = arguments.live.min(peers.len());
        let began = Wall::now();
        let (mut left, mut round, mut sent, mut seldom) = (peers.len(), 0, 0_u64, 0_u64);
        let mut timeline: Vec<usize> = Vec::new();
        while left > 0 && began.elapsed() < Duration::from_secs(arguments.patience_s) {
            let passed = began.elapsed();
            if passed >= LIVE * round {
                round += 1;
                for peer in &peers[..live] {
                    sent += u64::from(self.send_payload(peer));
                }
            }
            // The others in turn, at their pace.
            let others = (peers.len() - live) as u64;
            let due = passed.as_micros() as u64 * others / (arguments.every_ms * 1000);
            for _ in 0..(due - seldom.min(due)).min(RECEIVED_AT_ONCE as u64) {
                let at = live + (seldom % others) as usize;
                seldom += 1;
                sent += u64::from(self.send_payload(&peers[at]));
            }
            self.turn();
            for id in std::mem::take(&mut self.back) {
                let Some(peer) = places.get(&id).map(|at| &mut peers[*at]).filter(|peer| peer.back.is_none()) else {
                    continue;
                };
                peer.back = Some(began.elapsed());
                left -= 1;
                let tenth = (began.elapsed().as_millis() / 100) as usize;
                timeline.resize(timeline.len().max(tenth + 1), 0);
                timeline[tenth] += 1;
            }
        }
        let times = |peers: &[Peer]| {
            let mut times: Vec<u64> =
                peers.iter().filter_map(|peer| peer.back).map(|it| it.as_millis() as u64).collect();
            times.sort_unstable();
            let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied();
            json!({ "contexts": peers.len(), "back": times.len(), "ms_half": at(50), "ms_99": at(99), "ms_last": times.last() })
        };
        json!({
            "event": "recovered",
            "live": times(&peers[..live]),
            "others": times(&peers[live..]),
            "seconds": began.elapsed().as_secs_f64(),
            "back_each_tenth_of_a_second": timeline,
            "payload_sent": sent,
            "unsent": self.unsent,
        })
    }

    fn send_payload(&mut self, peer: &Peer) -> bool {
        peer.back.is_none() && self.socket.send(&peer.frame).inspect_err(|_| self.unsent += 1).is_ok()
    }

    /// Takes in what came, lets time pass, and sends what follows.
    fn turn(&mut self) {
        let mut buffer = [0; 2048];
        let now = self.now();
        for _ in 0..RECEIVED_AT_ONCE {
            let Ok(length) = self.socket.recv(&mut buffer) else { break };
            let Some(octets) = buffer.get(ethernet::HEADER_LEN..length) else { continue };
            let Ok(read) = ControlPacket::parse(octets) else { continue };
            let (addresses, shim6_offset) = (read.addresses, read.offset);
            let incoming = Incoming { addresses, message: Ok(&read.message), ipv6_packet: octets, shim6_offset };
            self.endpoint.receive(now, &mut self.rng, incoming, &mut self.out);
        }
        if self.endpoint.deadline().is_some_and(|due| due <= now) {
            self.endpoint.expire(now, &mut self.rng, &mut self.out);
        }
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Send { addresses, message, .. } => self.send(addresses, &message),
                Output::Ready { how: How::Initiated, .. } => self.ready += 1,
                Output::Ready { id, how: How::Recovered } => self.back.push(id),
                _ => {}
            }
        }
    }

    fn send(&mut self, addresses: Addresses, message: &dataplane::wire::shim6::Message) {
        let Ok(octets) = emit_packet(addresses, 64, message) else { return };
        if self.socket.send(&[&self.header[..], &octets].concat()).is_err() {
            self.unsent += 1;
        }
    }
}

/// Six octets with colons.
fn mac(text: &str) -> Mac {
    let octets: Vec<u8> = text.split(':').filter_map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
    Mac(octets.try_into().expect("six octets"))
}
