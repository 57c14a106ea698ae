//! The ALG between hosts and made-up servers, which answer with hickory-proto: what goes out is read by another than wrote it.

use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::snapshot::Block;
use dataplane::wire::{Locator, Ulid};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::svcb::{IpHint, SVCB, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{AAAA, CNAME, HTTPS, MX, NULL, PTR, SOA};
use hickory_proto::rr::{Name as WireName, RData, Record, RecordType};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::view::{View, kind};
use super::*;
use crate::time::Instant;

mod hostile;
mod legacy;
mod reach;
mod resolve;

const HOST: &str = "fc00:a:0:1::5";
const BOX: &str = "fc00:a:0:1::1";
const SERVERS: [&str; 2] = ["2001:db8:53::1", "2001:db8:53::2"];
const OWN: &str = "2001:db8:f::1";
/// The box's address at its other provider.
const OTHER: &str = "2001:db8:e::1";
const PEER: &str = "fc00:b:0:1::9";

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn wire(text: &str) -> WireName {
    WireName::from_ascii(text).unwrap()
}

fn aaaa(text: &str) -> RData {
    RData::AAAA(AAAA(ip(text)))
}

fn ulid(text: &str) -> RData {
    raw(ULID_KIND, ip(text).octets().to_vec())
}

fn raw(code: u16, octets: Vec<u8>) -> RData {
    RData::Unknown { code: RecordType::from(code), rdata: NULL::with(octets) }
}

fn alias(text: &str) -> RData {
    RData::CNAME(CNAME(wire(text)))
}

/// What servers know, and what is wrong with them.
#[derive(Default)]
struct Internet {
    records: Vec<(&'static str, u32, RData)>,
    additional: Vec<(&'static str, RData)>,
    /// Codes for types a server does not like.
    fails: Vec<(RecordType, ResponseCode)>,
    /// Types it does not answer at all.
    silent: Vec<RecordType>,
    dead: Vec<usize>,
    truncates: bool,
    authoritative: bool,
    loses_case: bool,
}

impl Internet {
    fn answer(&self, octets: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let question = Message::from_vec(octets).unwrap();
        let [query] = question.queries.as_slice() else { panic!("{question:?}") };
        let (wanted, mut name) = (query.query_type(), query.name().clone());
        if self.silent.contains(&wanted) {
            return None;
        }
        let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
        answer.metadata.recursion_available = true;
        answer.metadata.authoritative = self.authoritative;
        let mut asked = query.clone();
        if self.loses_case && !over_tcp {
            asked.set_name(query.name().to_lowercase());
        }
        answer.add_query(asked);
        answer.set_edns(Edns::new());
        if let Some((_, code)) = self.fails.iter().find(|(failing, _)| *failing == wanted) {
            answer.metadata.response_code = *code;
            return answer.to_vec().ok();
        }
        if self.truncates && !over_tcp {
            answer.metadata.truncation = true;
            return answer.to_vec().ok();
        }
        let mut found = false;
        for _ in 0..32 {
            let of = |at: &&(&str, u32, RData)| wire(at.0) == name;
            let records: Vec<_> = self.records.iter().filter(of).collect();
            found |= !records.is_empty();
            for (owner, ttl, data) in records.iter().filter(|(.., data)| data.record_type() == wanted) {
                answer.add_answer(Record::from_rdata(wire(owner), *ttl, data.clone()));
            }
            let Some((owner, ttl, RData::CNAME(next))) =
                records.iter().find(|(.., data)| matches!(data, RData::CNAME(_)))
            else {
                break;
            };
            answer.add_answer(Record::from_rdata(wire(owner), *ttl, RData::CNAME(next.clone())));
            (name, found) = (next.0.clone(), false);
        }
        if !answer.answers.iter().any(|record| record.record_type() == wanted) {
            if !found {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            let soa = SOA::new(wire("ns.example."), wire("root.example."), 1, 1, 1, 1, 60);
            answer.add_authority(Record::from_rdata(wire("example."), 300, RData::SOA(soa)));
        }
        for (owner, data) in &self.additional {
            answer.add_additional(Record::from_rdata(wire(owner), 300, data.clone()));
        }
        answer.to_vec().ok()
    }
}

/// Of whom there was a choice, and what was learned of them.
type Chosen = (Vec<Ulid>, Option<(Arc<Learned>, Duration)>);

struct Bench {
    alg: Alg,
    net: Internet,
    now: Instant,
    rng: StdRng,
    /// Questions on their way to servers.
    sent: Vec<Packet>,
    replies: Vec<(Client, Message, usize)>,
    /// The replies as they are.
    octets: Vec<Vec<u8>>,
    /// What servers say may be garbage inside records nobody reads on the way.
    garbles: bool,
    asked: Vec<(Ipv6Addr, Arc<Learned>, Duration)>,
    located: Vec<(Ulid, Option<Arc<Learned>>)>,
    notes: Vec<Note>,
    questions: usize,
    /// Which answer is taken where there is a choice, and what the choices were.
    withholds: bool,
    choices: Vec<Chosen>,
}

impl Bench {
    fn new(records: Vec<(&'static str, u32, RData)>) -> Bench {
        let identifiers = Identifiers { blocks: Vec::new(), site: Block::new(ip("fc00:a::"), 48) };
        let mut alg = Alg::new(Config {
            upstream: SERVERS.map(ip).to_vec(),
            ulid_kind: ULID_KIND,
            zone: Some(Name::from_text("a.example").unwrap()),
            identifiers,
            cache: Bounds { entries: 200, octets: 100_000 },
            withholds: false,
        });
        alg.set_names([("h1", Ulid(ip(HOST)))]);
        (0..2).for_each(|server| alg.set_sources(server, vec![ip(OWN)]));
        let net = Internet { records, ..Internet::default() };
        let rng = StdRng::seed_from_u64(7);
        Bench {
            alg,
            net,
            now: Instant::START,
            rng,
            sent: vec![],
            replies: vec![],
            octets: vec![],
            garbles: false,
            asked: vec![],
            located: vec![],
            notes: vec![],
            questions: 0,
            withholds: true,
            choices: vec![],
        }
    }

    /// A host asks, without anything being carried yet.
    fn say(&mut self, host: &str, octets: &[u8]) {
        let client = Client::Datagram((ip(host), 4000), (ip(BOX), PORT));
        let mut out = Vec::new();
        self.alg.question(self.now, &mut self.rng, client, octets, &mut out);
        self.take(out);
    }

    fn take(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Reply(client, octets) => {
                    let message = Message::from_vec(&octets);
                    assert!(message.is_ok() || self.garbles, "{message:?}");
                    self.replies.extend(message.ok().map(|message| (client, message, octets.len())));
                    self.octets.push(octets);
                }
                Output::Send(packet) => {
                    assert!([ip(OWN), ip(OTHER)].contains(&packet.source.0) && packet.target.1 == PORT);
                    self.questions += 1;
                    self.sent.push(packet);
                }
                Output::Stream(server, octets) => {
                    let mut out = Vec::new();
                    match self.net.answer(&octets, true).filter(|_| !self.net.dead.contains(&server)) {
                        Some(answer) => {
                            self.alg.stream_answer(self.now, &mut self.rng, server, &answer, &mut out);
                        }
                        None => self.alg.stream_failed(self.now, &mut self.rng, server, &mut out),
                    }
                    self.take(out);
                }
                Output::Asked(host, learned, good) => self.asked.push((host, learned, good)),
                Output::Located(_, ulid, found) => self.located.push((ulid, found.map(|(learned, _)| learned))),
                Output::Choose(choice) => {
                    let Choice { client, peers, learned, with, without } = *choice;
                    self.choices.push((peers, learned));
                    self.take(vec![Output::Reply(client, if self.withholds { without } else { with })]);
                }
                Output::Note(note) => self.notes.push(note),
            }
        }
        self.alg.selfcheck();
    }

    /// Gives the machine a datagram.
    fn give(&mut self, packet: &Packet) {
        let mut out = Vec::new();
        self.alg.answer(self.now, &mut self.rng, packet, &mut out);
        self.take(out);
    }

    /// What the server says to a question, as it would come back.
    fn response(&self, question: &Packet) -> Option<Packet> {
        let server = SERVERS.iter().position(|server| ip(server) == question.target.0)?;
        let payload = self.net.answer(&question.payload, false).filter(|_| !self.net.dead.contains(&server))?;
        Some(Packet { source: question.target, target: question.source, payload })
    }

    /// Carries everything to servers and back until nothing moves.
    fn carry(&mut self) {
        while let Some(question) = (!self.sent.is_empty()).then(|| self.sent.remove(0)) {
            if let Some(answer) = self.response(&question) {
                self.give(&answer);
            }
        }
    }

    /// The same, and time passes while there is something to wait for.
    fn run(&mut self) {
        self.carry();
        while let Some(due) = self.alg.deadline() {
            self.now = self.now.max(due);
            let mut out = Vec::new();
            self.alg.expire(self.now, &mut self.rng, &mut out);
            self.take(out);
            self.carry();
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    /// A host asks, and has its answer.
    fn ask(&mut self, name: &str, wanted: RecordType) -> Message {
        self.ask_as(HOST, question(name, wanted))
    }

    fn ask_as(&mut self, host: &str, question: Message) -> Message {
        let octets = question.to_vec().unwrap();
        self.say(host, &octets);
        self.run();
        let (client, answer, size) = self.replies.pop().expect("a reply");
        assert!(self.replies.is_empty());
        assert_eq!(client.host(), ip(host));
        assert_eq!(answer.metadata.id, question.metadata.id);
        assert_eq!(answer.metadata.message_type, MessageType::Response);
        assert!(answer.metadata.recursion_available);
        assert_eq!(answer.queries.len(), 1);
        assert!(answer.queries[0].name().eq_case(question.queries[0].name()), "in the host's own letters");
        assert_eq!(answer.edns.is_some(), question.edns.is_some());
        assert!(size <= question.edns.map_or(512, |edns| usize::from(edns.max_payload()).clamp(512, 1232)));
        answer
    }

    fn count(&self, event: Event) -> u64 {
        self.alg.counted().of(event)
    }
}

fn question(name: &str, wanted: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(wire(name), wanted));
    message
}

fn addresses(message: &Message) -> Vec<(Ipv6Addr, u32)> {
    let of = |record: &Record| match &record.data {
        RData::AAAA(address) => Some((address.0, record.ttl)),
        _ => None,
    };
    message.answers.iter().filter_map(of).collect()
}

/// A peer with two locators, as its owner publishes it.
fn peer() -> Vec<(&'static str, u32, RData)> {
    vec![
        ("web.b.example.", 300, aaaa("2001:db8:b1::9")),
        ("web.b.example.", 300, aaaa("2001:db8:b2::9")),
        ("web.b.example.", 100, ulid(PEER)),
    ]
}
