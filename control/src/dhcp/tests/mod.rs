//! A server, a client's pen, and what tests of the two have in common.

mod hostile;
mod properties;
mod rows;
mod shared;
mod wire;

use std::net::Ipv6Addr;
use std::time::Duration;

use super::message::{Duid, Kind, Options, Writer, code};
use super::options::policy_with;
use super::*;
use crate::time::Instant;

const LINK: &str = "fc00:a:0:1::";

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn duid(number: u32) -> Duid {
    Duid::new(&[&[0, 3, 0, 1][..], &number.to_be_bytes()].concat()).unwrap()
}

fn client(number: u32) -> Client {
    Client { duid: duid(number), iaid: 1 }
}

fn config() -> Config {
    Config {
        duid: Duid::from_uuid([7; 16]),
        link: address(LINK),
        preferred: 1000,
        valid: 2000,
        trial: 300,
        t1: 500,
        t2: 800,
        rapid_commit: true,
        preference: 0,
        dns: vec![address("fc00:a:0:1::1")],
        search: vec!["example.com".into()],
        policy: policy_with(&[], &[(address("fc00::"), 8)]),
        policy_flags: 3,
        leases_max: 100,
        per_client_max: 2,
        per_source_max: 50,
        per_relay_max: 50,
        quarantine: 900,
        reservations: Vec::new(),
        relays: Vec::new(),
    }
}

/// Identities as the driver would make them, all different.
fn identity(number: u64) -> Identity {
    let ulid = Ipv6Addr::from_bits(address(LINK).to_bits() | u128::from(number));
    let locator = Ipv6Addr::from_bits(address("2001:db8:1:1::").to_bits() | u128::from(number));
    Identity { ulid, locators: vec![locator], pds: number.to_be_bytes().to_vec() }
}

/// A server with what is around it: a store that writes when it is told to.
struct Bench {
    server: Server,
    now: Instant,
    out: Vec<Output>,
    made: u64,
}

impl Bench {
    fn new(config: Config) -> Bench {
        let server = Server::new(config, Stored::default(), 1_000_000);
        let mut bench = Bench { server, now: Instant::START, out: Vec::new(), made: 0 };
        bench.stock(32);
        bench
    }

    fn stock(&mut self, count: u64) {
        for _ in 0..count {
            self.made += 1;
            self.server.stock(identity(0x1000 + self.made));
        }
    }

    fn receive(&mut self, source: Ipv6Addr, payload: &[u8]) -> Verdict {
        let incoming = Incoming { source, target: address("ff02::1:2"), payload };
        self.server.receive(self.now, incoming, &mut self.out)
    }

    /// Everything is written; what was told, served and sent since the last call.
    fn written(&mut self) -> Vec<Output> {
        let mut done = Vec::new();
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Write { ticket, .. } => self.server.persisted(self.now, ticket, true, &mut done),
                other => done.push(other),
            }
        }
        self.server.book().selfcheck();
        done
    }

    /// Sends a message on the link, and gives the answer there is when everything is written.
    fn ask(&mut self, payload: &[u8]) -> Option<Answer> {
        self.receive(address("fe80::5"), payload);
        answer_in(&self.written())
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        while self.server.deadline().is_some_and(|due| due <= self.now) {
            self.server.expire(self.now, &mut self.out);
        }
    }

    /// The address of client `number` after Solicit and Request.
    fn lease(&mut self, number: u32) -> Ipv6Addr {
        let offer = self.ask(&say(Kind::Solicit, number).na(1, &[]).done()).unwrap();
        let offered = offer.ias[0].addresses[0].0;
        let reply = self.ask(&say(Kind::Request, number).ours().na(1, &[offered]).done()).unwrap();
        assert_eq!(reply.ias[0].addresses[0].0, offered);
        offered
    }
}

/// The message a client gets, read without the code under test knowing how.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    kind: u8,
    transaction: [u8; 3],
    target: Option<(Ipv6Addr, u16)>,
    status: Option<u16>,
    ias: Vec<AnswerIa>,
    options: Vec<(u16, Vec<u8>)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct AnswerIa {
    code: u16,
    iaid: u32,
    t1: u32,
    t2: u32,
    /// Address, preferred, valid.
    addresses: Vec<(Ipv6Addr, u32, u32)>,
    status: Option<u16>,
}

impl Answer {
    fn option(&self, code: u16) -> Option<&[u8]> {
        self.options.iter().find(|(known, _)| *known == code).map(|(_, data)| &data[..])
    }
}

fn word(data: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(data[at..at + 4].try_into().unwrap())
}

fn read_answer(payload: &[u8]) -> Answer {
    let mut answer = Answer { kind: payload[0], transaction: payload[1..4].try_into().unwrap(), ..Answer::default() };
    for (code, data) in Options::new(&payload[4..]).unwrap().iter() {
        answer.options.push((code, data.to_vec()));
        match code {
            code::STATUS_CODE => answer.status = Some(u16::from_be_bytes([data[0], data[1]])),
            code::IA_NA | code::IA_TA | code::IA_PD => {
                let fixed = if code == code::IA_TA { 4 } else { 12 };
                let mut ia = AnswerIa { code, iaid: word(data, 0), ..AnswerIa::default() };
                if fixed == 12 {
                    (ia.t1, ia.t2) = (word(data, 4), word(data, 8));
                }
                for (code, data) in Options::new(&data[fixed..]).unwrap().iter() {
                    match code {
                        code::IA_ADDRESS => {
                            let octets: [u8; 16] = data[..16].try_into().unwrap();
                            ia.addresses.push((octets.into(), word(data, 16), word(data, 20)));
                        }
                        code::STATUS_CODE => ia.status = Some(u16::from_be_bytes([data[0], data[1]])),
                        other => panic!("option {other} in an association"),
                    }
                }
                answer.ias.push(ia);
            }
            _ => {}
        }
    }
    answer
}

/// The only message sent.
fn answer_in(outputs: &[Output]) -> Option<Answer> {
    let mut sent = outputs.iter().filter_map(|output| match output {
        Output::Send { target, payload, .. } => Some(Answer { target: Some(*target), ..read_answer(payload) }),
        _ => None,
    });
    let first = sent.next();
    assert!(sent.next().is_none(), "two answers");
    first
}

/// A client's pen.
struct Saying(Writer);

fn say(kind: Kind, number: u32) -> Saying {
    let mut out = Writer::message(kind.code(), [1, 2, kind.code()]);
    out.option(code::CLIENT_ID, |out| out.put(duid(number).octets()));
    Saying(out)
}

impl Saying {
    fn option(mut self, code: u16, data: &[u8]) -> Saying {
        self.0.option(code, |out| out.put(data));
        self
    }

    /// To our server alone.
    fn ours(self) -> Saying {
        self.option(code::SERVER_ID, Duid::from_uuid([7; 16]).octets())
    }

    fn na(mut self, iaid: u32, addresses: &[Ipv6Addr]) -> Saying {
        let ia = message::Ia { kind: message::IaKind::Na, iaid, addresses: Vec::new() };
        self.0.ia(&ia, (0, 0), |out| addresses.iter().for_each(|address| out.address(*address, 0, 0)));
        self
    }

    fn rapid(self) -> Saying {
        self.option(code::RAPID_COMMIT, &[])
    }

    fn wants(self, codes: &[u16]) -> Saying {
        let data: Vec<u8> = codes.iter().flat_map(|code| code.to_be_bytes()).collect();
        self.option(code::OPTION_REQUEST, &data)
    }

    fn done(self) -> Vec<u8> {
        self.0.finish()
    }
}
