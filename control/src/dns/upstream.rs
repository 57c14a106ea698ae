//! Questions on their way: which server, from which port, with which identifier and in which letters, and what to do when
//! no answer comes.
//!
//! An answer is believed only if it comes from where the question went, to the port it came from, with its identifier, its
//! question and the very letters it was asked with (RFC 5452 §9; the letters are chosen at random, so they are as good as
//! further bits of identifier). One that is all right but for its letters may come from a server that changes them: that
//! question is asked again over TCP, where nobody beside the path can answer. A truncated answer leads there too (RFC 7766).
//!
//! Servers are asked in the order of the configuration, those first that answered lately. One that does not answer is
//! followed by the next, after a time that its own answers have taught; one that failed often is left alone for a while.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use hashbrown::HashMap;
use rand::Rng;

use super::message::{self, Key};
use super::view::{View, rcode};
use super::{Event, Note, PORT, Packet, Socket};
use crate::time::Instant;

/// Tries for one question, over all servers.
const TRIES_MAX: u8 = 4;
/// How long a server has for its first answer.
const FIRST_TIMEOUT: Duration = Duration::from_millis(600);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(200);
const LONGEST_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long a question over TCP has; a connection may have to be made first.
const STREAM_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Tries in a row after which a server counts as down.
const STRIKES_MAX: u8 = 3;
/// How long it is then left alone, while there are others.
const REST: Duration = Duration::from_secs(10);
/// Lowest port a question comes from: below are those that have a meaning.
const FIRST_PORT: u16 = 1024;

/// A server as it is known so far.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it is.
    pub address: Ipv6Addr,
    /// The box's own addresses from which it can be reached at present, the best first.
    pub sources: Vec<Ipv6Addr>,
    /// How long it takes to answer, smoothed, and how much that varies (RFC 6298 §2).
    rtt: Option<(Duration, Duration)>,
    strikes: u8,
    rests_until: Option<Instant>,
    /// What happened with it so far.
    pub counts: ServerCounts,
}

/// What happened with a server so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounts {
    /// Questions sent.
    pub questions: u64,
    /// Answers taken.
    pub answers: u64,
    /// Questions it did not answer in time.
    pub timeouts: u64,
    /// Questions sent over TCP.
    pub streams: u64,
}

/// How a question ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No server answered, or none can be reached.
    Unanswered,
    /// Too many questions were on their way already.
    Full,
}

/// What is to be done for questions.
#[derive(Debug)]
pub enum Step {
    /// Send a datagram.
    Send(Packet),
    /// Send a message over the connection to a server, which may have to be made first.
    Stream(usize, Vec<u8>),
    /// A question has come to its end; an answer is a whole message with one question.
    Done(u64, Result<Vec<u8>, Failure>),
    /// Something happened that is counted.
    Count(Event),
    /// Something happened an operator may want to read about.
    Note(Note),
}

/// A question on its way.
struct Asked {
    token: u64,
    key: Key,
    /// Its name as it was written.
    letters: Vec<u8>,
    id: u16,
    server: usize,
    source: Ipv6Addr,
    /// None over TCP.
    port: Option<u16>,
    sent: Instant,
    due: Instant,
    tries: u8,
    /// Servers whose answer was that they do not know, by their places.
    failed: u64,
    /// What the last of them said, for want of anything better.
    worst: Option<Vec<u8>>,
}

/// The servers and the questions on their way to them.
pub struct Upstreams {
    servers: Vec<Server>,
    asked: HashMap<u64, Asked>,
    ports: HashMap<u16, u64>,
    streams: HashMap<(usize, u16), u64>,
    due: BTreeSet<(Instant, u64)>,
    next: u64,
    asked_max: usize,
    /// Not a port of ours.
    avoided: Option<u16>,
}

impl Upstreams {
    /// Asks these servers; at most `asked_max` questions at a time.
    pub fn new(servers: &[Ipv6Addr], asked_max: usize) -> Upstreams {
        let server = |address: &Ipv6Addr| Server {
            address: *address,
            sources: Vec::new(),
            rtt: None,
            strikes: 0,
            rests_until: None,
            counts: ServerCounts::default(),
        };
        Upstreams {
            // Their places are bits of a number.
            servers: servers.iter().take(64).map(server).collect(),
            asked: HashMap::new(),
            ports: HashMap::new(),
            streams: HashMap::new(),
            due: BTreeSet::new(),
            next: 0,
            asked_max,
            avoided: None,
        }
    }

    /// The servers, in their order.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// From where a server can be reached now, the best first.
    pub fn set_sources(&mut self, server: usize, sources: Vec<Ipv6Addr>) {
        let Some(server) = self.servers.get_mut(server) else { return };
        if server.sources.first() != sources.first() {
            // What it did over the old way says nothing of the new one.
            (server.rtt, server.strikes, server.rests_until) = (None, 0, None);
        }
        server.sources = sources;
    }

    /// No question comes from this port.
    pub fn avoid_port(&mut self, port: u16) {
        self.avoided = Some(port);
    }

    /// Questions on their way.
    pub fn asked(&self) -> usize {
        self.asked.len()
    }

    /// Whether an answer is awaited at a port.
    pub fn awaits(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }

    /// Asks. What comes of it is told under `token`.
    pub fn ask(&mut self, now: Instant, rng: &mut dyn Rng, token: u64, key: Key, out: &mut Vec<Step>) {
        if self.asked.len() >= self.asked_max {
            out.push(Step::Count(Event::QuestionsFull));
            return out.push(Step::Done(token, Err(Failure::Full)));
        }
        self.next += 1;
        let asked = Asked {
            token,
            key,
            letters: Vec::new(),
            id: 0,
            server: 0,
            source: Ipv6Addr::UNSPECIFIED,
            port: None,
            sent: now,
            due: now,
            tries: 0,
            failed: 0,
            worst: None,
        };
        self.send(now, rng, self.next, asked, out);
    }

    /// A datagram came to a port where an answer is awaited.
    pub fn datagram(&mut self, now: Instant, rng: &mut dyn Rng, packet: &Packet, out: &mut Vec<Step>) {
        let Some(&number) = self.ports.get(&packet.target.1) else { return out.push(Step::Count(Event::AnswersLate)) };
        let Some(asked) = self.asked.get(&number) else { return };
        let from = self.servers[asked.server].address;
        let spoofed = |why| [Step::Count(Event::AnswersSpoofed), Step::Note(Note::Spoofed(packet.source, why))];
        if packet.source != (from, PORT) || packet.target.0 != asked.source {
            return out.extend(spoofed("from or to another address"));
        }
        let Ok(view) = View::new(&packet.payload) else {
            let read = packet.payload.get(..2) == Some(&asked.id.to_be_bytes()[..]);
            out.push(Step::Count(if read { Event::AnswersMalformed } else { Event::AnswersSpoofed }));
            // Whatever ails the server, another one may be better.
            let note = if read { Note::Malformed(from) } else { Note::Spoofed(packet.source, "unreadable") };
            out.push(Step::Note(note));
            if read {
                self.again(now, rng, number, None, out);
            }
            return;
        };
        if view.id() != asked.id || !view.is_answer() {
            return out.extend(spoofed("with another identifier"));
        }
        if !message::matches(&view, &asked.key.question) {
            return out.extend(spoofed("to another question"));
        }
        if view.asked() != asked.letters {
            out.push(Step::Count(Event::AnswersLetters));
            out.push(Step::Note(Note::Spoofed(packet.source, "in other letters; asked again over TCP")));
            return self.by_stream(now, rng, number, out);
        }
        self.learn(now, number);
        if view.is_truncated() {
            out.push(Step::Count(Event::AnswersTruncated));
            return self.by_stream(now, rng, number, out);
        }
        self.taken(now, rng, number, &view, out);
    }

    /// A message came over the connection to a server.
    pub fn stream_answer(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        server: usize,
        octets: &[u8],
        out: &mut Vec<Step>,
    ) {
        let id = octets.first_chunk().map(|id| u16::from_be_bytes(*id));
        let number = id.and_then(|id| self.streams.get(&(server, id)).copied());
        let Some((number, asked)) = number.and_then(|number| Some((number, self.asked.get(&number)?))) else {
            return out.push(Step::Count(Event::AnswersLate));
        };
        let view =
            View::new(octets).ok().filter(|view| view.is_answer() && message::matches(view, &asked.key.question));
        let Some(view) = view.filter(|view| !view.is_truncated()) else {
            out.push(Step::Count(Event::AnswersMalformed));
            out.push(Step::Note(Note::Malformed(self.servers[server].address)));
            return self.again(now, rng, number, None, out);
        };
        self.taken(now, rng, number, &view, out);
    }

    /// The connection to a server could not be made, or was lost: what was asked over it is asked of another one.
    pub fn stream_failed(&mut self, now: Instant, rng: &mut dyn Rng, server: usize, out: &mut Vec<Step>) {
        let mut lost: Vec<u64> =
            self.streams.iter().filter(|((at, _), _)| *at == server).map(|(_, number)| *number).collect();
        lost.sort_unstable();
        // Many a server that answers has no TCP, so this says nothing of the rest.
        for number in lost {
            self.again(now, rng, number, None, out);
        }
    }

    /// Asks again what has not been answered in time.
    pub fn expire(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Step>) {
        while let Some(&(due, number)) = self.due.first().filter(|(due, _)| *due <= now) {
            let Some(asked) = self.asked.get(&number) else {
                self.due.remove(&(due, number));
                continue;
            };
            let server = asked.server;
            self.servers[server].counts.timeouts += 1;
            self.strike(now, server, out);
            self.again(now, rng, number, None, out);
        }
    }

    /// When [`Upstreams::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// An answer that may be believed. One that says that the server cannot tell is kept while there are others to ask.
    fn taken(&mut self, now: Instant, rng: &mut dyn Rng, number: u64, view: &View<'_>, out: &mut Vec<Step>) {
        let Some(asked) = self.asked.get(&number) else { return };
        let server = &mut self.servers[asked.server];
        server.counts.answers += 1;
        (server.strikes, server.rests_until) = (0, None);
        let knows = [u16::from(rcode::NO_ERROR), u16::from(rcode::NX_DOMAIN)].contains(&view.rcode());
        if knows {
            let token = asked.token;
            self.forget(number);
            return out.push(Step::Done(token, Ok(view.octets().to_vec())));
        }
        out.push(Step::Count(Event::AnswersFailure));
        self.again(now, rng, number, Some(view.octets().to_vec()), out);
    }

    /// Asks the next server; or the question ends, with what the last one said.
    fn again(&mut self, now: Instant, rng: &mut dyn Rng, number: u64, said: Option<Vec<u8>>, out: &mut Vec<Step>) {
        let Some(mut asked) = self.forget(number) else { return };
        if said.is_some() {
            asked.failed |= 1 << asked.server;
            asked.worst = said;
        }
        self.send(now, rng, number, asked, out);
    }

    /// Asks the same server over TCP.
    fn by_stream(&mut self, now: Instant, rng: &mut dyn Rng, number: u64, out: &mut Vec<Step>) {
        let Some(mut asked) = self.forget(number) else { return };
        let server = asked.server;
        // Identifiers of a connection have to differ from each other, and nothing more.
        let id = (0..8).map(|_| rng.next_u32() as u16).find(|id| !self.streams.contains_key(&(server, *id)));
        let Some(id) = id else { return self.send(now, rng, number, asked, out) };
        let octets = message::question(id, &asked.letters, &asked.key);
        (asked.id, asked.port, asked.sent, asked.due) = (id, None, now, now + STREAM_TIMEOUT);
        self.servers[server].counts.streams += 1;
        self.streams.insert((server, id), number);
        self.due.insert((asked.due, number));
        self.asked.insert(number, asked);
        out.push(Step::Stream(server, octets));
    }

    fn send(&mut self, now: Instant, rng: &mut dyn Rng, number: u64, mut asked: Asked, out: &mut Vec<Step>) {
        let server = self.choose(now, &asked).filter(|_| asked.tries < TRIES_MAX);
        let is_free = |port: &u16| !self.ports.contains_key(port) && self.avoided != Some(*port);
        let port = (0..64).map(|_| port(rng)).find(is_free);
        let (Some((server, source)), Some(port)) = (server, port) else {
            let result = asked.worst.ok_or(Failure::Unanswered);
            if result.is_err() {
                out.push(Step::Count(Event::QuestionsUnanswered));
            }
            return out.push(Step::Done(asked.token, result));
        };
        asked.letters = any_case(rng, asked.key.question.name.wire());
        (asked.id, asked.server, asked.source, asked.port) = (rng.next_u32() as u16, server, source, Some(port));
        (asked.sent, asked.due) = (now, now + self.servers[server].timeout(asked.tries));
        asked.tries += 1;
        self.servers[server].counts.questions += 1;
        let payload = message::question(asked.id, &asked.letters, &asked.key);
        let target: Socket = (self.servers[server].address, PORT);
        self.ports.insert(port, number);
        self.due.insert((asked.due, number));
        self.asked.insert(number, asked);
        out.push(Step::Send(Packet { source: (source, port), target, payload }));
    }

    /// The server to ask next: one that can be reached and has not said that it does not know; those that do not rest
    /// first, then those that were not asked in this try already, then by their order.
    fn choose(&self, now: Instant, asked: &Asked) -> Option<(usize, Ipv6Addr)> {
        let ways = self.servers.iter().enumerate().filter(|(_, server)| !server.sources.is_empty());
        let (at, server) = ways.filter(|(at, _)| asked.failed >> at & 1 == 0).min_by_key(|(at, server)| {
            let rests = server.rests_until.is_some_and(|until| until > now);
            (rests, asked.tries > 0 && *at == asked.server, *at)
        })?;
        // It may be the way that failed, and not who was asked: 0, 1, 1, 0, so that of two servers each is asked both ways.
        let way = usize::from(asked.tries ^ asked.tries >> 1) % server.sources.len();
        Some((at, server.sources[way]))
    }

    fn strike(&mut self, now: Instant, server: usize, out: &mut Vec<Step>) {
        let server = &mut self.servers[server];
        server.strikes = server.strikes.saturating_add(1);
        if server.strikes >= STRIKES_MAX {
            if server.rests_until.is_none_or(|until| until <= now) {
                out.push(Step::Count(Event::ServersDown));
                out.push(Step::Note(Note::ServerDown(server.address)));
            }
            server.rests_until = Some(now + REST);
        }
    }

    /// RFC 6298 §2.
    fn learn(&mut self, now: Instant, number: u64) {
        let Some(asked) = self.asked.get(&number) else { return };
        let (took, server) = (now.since(asked.sent), &mut self.servers[asked.server]);
        server.rtt = Some(match server.rtt {
            None => (took, took / 2),
            Some((smooth, varies)) => ((smooth * 7 + took) / 8, (varies * 3 + smooth.abs_diff(took)) / 4),
        });
    }

    fn forget(&mut self, number: u64) -> Option<Asked> {
        let asked = self.asked.remove(&number)?;
        self.due.remove(&(asked.due, number));
        match asked.port {
            Some(port) => self.ports.remove(&port),
            None => self.streams.remove(&(asked.server, asked.id)),
        };
        Some(asked)
    }
}

impl Server {
    /// How long it takes to answer, if it has answered lately.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt.map(|(smooth, _)| smooth)
    }

    /// Whether it is left alone, since it did not answer.
    pub fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| until > now)
    }

    fn timeout(&self, tries: u8) -> Duration {
        let first = self.rtt.map_or(FIRST_TIMEOUT, |(smooth, varies)| smooth + varies * 4);
        (first.max(SHORTEST_TIMEOUT) * (1 << tries.min(3))).min(LONGEST_TIMEOUT)
    }
}

fn port(rng: &mut dyn Rng) -> u16 {
    FIRST_PORT + (rng.next_u32() % u32::from(u16::MAX - FIRST_PORT + 1)) as u16
}

/// A name with letters of random case (draft-vixie-dnsext-dns0x20).
fn any_case(rng: &mut dyn Rng, name: &[u8]) -> Vec<u8> {
    let mut letters = name.to_vec();
    for part in letters.chunks_mut(64) {
        let bits = rng.next_u64();
        for (at, octet) in part.iter_mut().enumerate() {
            // Octets that give the length of a label are at most 63, so never letters.
            if octet.is_ascii_lowercase() && bits >> at & 1 == 1 {
                *octet = octet.to_ascii_uppercase();
            }
        }
    }
    letters
}
