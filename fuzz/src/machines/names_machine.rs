//! DNS: hosts that ask and send noise, servers that answer truly and falsely, time, look-ups backwards.

use std::net::Ipv6Addr;
use std::time::Duration;

use control::dns::view::View;
use control::dns::{Alg, Bounds, Client, Config, Identifiers, Name, Output, PORT, Packet, ULID_KIND};
use control::time::Instant;
use dataplane::snapshot::Block;
use dataplane::wire::Ulid;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::octets::Octets;

const OWN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1);
const BOX: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xa, 0, 1, 0, 0, 0, 1);
const PEER: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xb, 0, 1, 0, 0, 0, 9);
/// Questions on their way that are remembered to be answered.
const SENT_MAX: usize = 32;

pub fn check(octets: &[u8]) {
    let mut octets = Octets::new(octets);
    let mut world = World::new();
    while !octets.is_empty() {
        world.step(&mut octets);
        world.alg.selfcheck();
    }
    // Whatever happened, every question comes to its end when time passes.
    for _ in 0..200 {
        let Some(due) = world.alg.deadline() else { break };
        world.now = world.now.max(due);
        world.sent.clear();
        world.expire();
    }
    assert_eq!((world.alg.status().waiting, world.alg.status().asked), (0, 0));
}

struct World {
    alg: Alg,
    now: Instant,
    rng: StdRng,
    sent: Vec<Packet>,
    streams: Vec<(usize, Vec<u8>)>,
}

impl World {
    fn new() -> World {
        let servers = [1, 2].map(|number| Ipv6Addr::new(0x2001, 0xdb8, 0x53, 0, 0, 0, 0, number));
        let site = Block::new(Ipv6Addr::new(0xfc00, 0xa, 0, 0, 0, 0, 0, 0), 48);
        let mut alg = Alg::new(Config {
            upstream: servers.to_vec(),
            ulid_kind: ULID_KIND,
            zone: Name::from_text("a.example").ok(),
            identifiers: Identifiers { blocks: Vec::new(), site },
            cache: Bounds { entries: 8, octets: 20_000 },
            withholds: true,
        });
        alg.set_names([("h", Ulid(Ipv6Addr::new(0xfc00, 0xa, 0, 1, 0, 0, 0, 5)))]);
        (0..2).for_each(|server| alg.set_sources(server, vec![OWN]));
        World { alg, now: Instant::START, rng: StdRng::seed_from_u64(1), sent: Vec::new(), streams: Vec::new() }
    }

    fn step(&mut self, octets: &mut Octets<'_>) {
        let mut out = Vec::new();
        match octets.below(8) {
            0 => {
                let length = octets.below(80);
                let noise = octets.take(length).to_vec();
                self.ask(octets, &noise, &mut out);
            }
            1 | 2 => {
                let question = question(octets);
                self.ask(octets, &question, &mut out);
            }
            3 | 4 if !self.sent.is_empty() => {
                let at = octets.below(self.sent.len());
                let asked = self.sent.swap_remove(at);
                let mut packet =
                    Packet { source: asked.target, target: asked.source, payload: answer(&asked.payload, octets) };
                match octets.below(12) {
                    0 => packet.source.0 = PEER,
                    1 => packet.target.1 ^= 1,
                    2 => packet.payload.truncate(octets.below(60)),
                    _ => {}
                }
                self.alg.answer(self.now, &mut self.rng, &packet, &mut out);
            }
            5 if !self.streams.is_empty() => {
                let (server, asked) = self.streams.swap_remove(octets.below(self.streams.len()));
                match octets.below(4) {
                    0 => self.alg.stream_failed(self.now, &mut self.rng, server, &mut out),
                    _ => {
                        let answer = answer(&asked, octets);
                        self.alg.stream_answer(self.now, &mut self.rng, server, &answer, &mut out);
                    }
                }
            }
            6 => {
                self.now = self.now + Duration::from_millis(u64::from(octets.u16()));
                self.expire();
            }
            _ => match octets.below(4) {
                0 => drop(self.alg.flush()),
                1 => self.alg.set_sources(octets.below(3), vec![OWN; octets.below(2)]),
                _ => {
                    let host = Ulid(Ipv6Addr::from_bits(0xfc00_000a_u128 << 96 | octets.below(3) as u128));
                    self.alg.look_up(self.now, &mut self.rng, host, Ulid(PEER), &mut out);
                }
            },
        }
        self.take(out);
    }

    fn ask(&mut self, octets: &mut Octets<'_>, question: &[u8], out: &mut Vec<Output>) {
        let host = Ipv6Addr::from_bits(0xfc00_000a_u128 << 96 | octets.below(4) as u128);
        let client = match octets.below(4) {
            0 => Client::Stream(host, 7),
            _ => Client::Datagram((host, 4000), (BOX, PORT)),
        };
        self.alg.question(self.now, &mut self.rng, client, question, out);
    }

    fn expire(&mut self) {
        let mut out = Vec::new();
        self.alg.expire(self.now, &mut self.rng, &mut out);
        self.take(out);
        assert!(self.alg.deadline().is_none_or(|due| due > self.now), "the clock spins");
    }

    fn take(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Reply(client, octets) => {
                    assert!(octets[2] & 0x80 != 0, "an answer");
                    let datagram = matches!(client, Client::Datagram(..));
                    assert!(octets.len() <= if datagram { 1232 } else { usize::from(u16::MAX) });
                    assert!(octets.len() <= 23 || View::new(&octets).is_ok(), "one that can be read");
                }
                Output::Send(packet) => {
                    assert_eq!(packet.source.0, OWN);
                    assert!(self.alg.awaits(packet.source.1) || self.alg.status().asked == 0 || !self.sent.is_empty());
                    self.sent.push(packet);
                    self.sent.truncate(SENT_MAX);
                }
                Output::Stream(server, octets) => {
                    self.streams.push((server, octets));
                    self.streams.truncate(SENT_MAX);
                }
                Output::Asked(_, learned, good) => {
                    assert!(
                        !learned.ulids.is_empty() && !learned.locators.is_empty() && good >= Duration::from_secs(30)
                    );
                    assert!(learned.ulids.iter().all(|ulid| ulid.0.is_unique_local()));
                }
                Output::Located(_, ulid, found) => {
                    assert!(found.is_none_or(|(learned, _)| learned.ulids.contains(&ulid)));
                }
                Output::Choose(choice) => {
                    assert!(!choice.peers.is_empty());
                    let withheld = choice.with.len() % 2 == 0;
                    self.alg.chose(withheld);
                    let octets = if withheld { choice.without } else { choice.with };
                    self.take(vec![Output::Reply(choice.client, octets)]);
                }
                Output::Note(note) => assert!(!note.to_string().is_empty()),
            }
        }
    }
}

/// A question about one of few names, of any type.
fn question(octets: &mut Octets<'_>) -> Vec<u8> {
    let names: [&[u8]; 4] = [b"\x01w\x00", b"\x01H\x01a\x07example\x00", b"\x02no\x01w\x00", b"\x00"];
    let kinds = [28, 65, 64, ULID_KIND, 12, 16, 255, octets.u16()];
    let name = names[octets.below(4)];
    let with_edns = octets.below(2) as u8;
    let mut message = vec![octets.octet(), 1, 1, octets.octet() & 0x30, 0, 1, 0, 0, 0, 0, 0, with_edns];
    message.extend_from_slice(name);
    message.extend_from_slice(&kinds[octets.below(8)].to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    if with_edns == 1 {
        message.extend_from_slice(&[0, 0, 41, octets.octet(), 0, 0, 0, octets.octet() & 0x80, 0, 0, 0]);
    }
    message
}

/// What a server might say: the question as it was, and records, some of which answer it.
fn answer(asked: &[u8], octets: &mut Octets<'_>) -> Vec<u8> {
    let Ok(view) = View::new(asked) else { return asked.to_vec() };
    let mut message = asked[..view.question_end()].to_vec();
    let (records, authorities) = (octets.below(4) as u8, octets.below(2) as u8);
    message[2] = 0x80 | if octets.below(8) == 0 { 2 } else { 0 };
    message[3] = [0, 0, 0, 3, 2][octets.below(5)];
    message[6..12].copy_from_slice(&[0, records, 0, authorities, 0, 0]);
    for at in 0..records + authorities {
        let soa = at >= records;
        let kind = if soa { 6 } else { [view.asked_kind().0, 5, 28, ULID_KIND, 12][octets.below(5)] };
        let owner: &[u8] = if octets.below(4) == 0 { b"\x01w\x00" } else { b"\xc0\x0c" };
        message.extend_from_slice(owner);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 0, octets.octet()]);
        let address = if octets.below(2) == 0 { PEER } else { OWN };
        let data: Vec<u8> = match kind {
            6 => [&[0, 0][..], &[0, 0, 0, 9].repeat(5)].concat(),
            5 | 12 => [&b"\x01w\x00"[..], b"\xc0\x0c", b"\x02no\x01w\x00"][octets.below(3)].to_vec(),
            28 | ULID_KIND => address.octets().to_vec(),
            64 | 65 => [&[0, 1, 0, 0, 6, 0, 16][..], &OWN.octets()].concat(),
            _ => octets.take(4).to_vec(),
        };
        message.extend_from_slice(&(data.len() as u16).to_be_bytes());
        message.extend_from_slice(&data);
    }
    message
}
