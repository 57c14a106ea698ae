//! DNS for hosts of whole boxes: a server on the link of the first site, hosts that ask, and what follows from the answers.

mod common;

use std::net::Ipv6Addr;
use std::time::Duration;

use common::{Scene, ms, s};
use control::config::site::{ARecords, Dns};
use control::engine::Story;
use control::host::{Datagram, Stack, StreamEvent};
use control::manage::api::ContextState;
use control::sim::{HostId, Plan, SitePlan, Way, packet};
use dataplane::counters::{Count, DropReason};
use dataplane::wire::ipv6::{View, protocol};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NULL, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// In the first site: one host that asks, and one that is the name server. In the second: the peer.
const ASKER: HostId = 0;
const SERVER: HostId = 1;
const PEER: HostId = 2;
const ULID: u16 = 65_280;

struct Names {
    scene: Scene,
    records: Vec<(Name, u32, RData)>,
    /// The server's own stack, for TCP.
    tcp: Stack,
    truncates: bool,
    silent: bool,
    asked: Vec<(RecordType, bool)>,
    next: u16,
}

impl Names {
    fn new(seed: u64) -> Names {
        let sites = vec![SitePlan { hosts: 2, ..SitePlan::default() }, SitePlan::default()];
        let mut scene = Scene::new(&Plan { sites, ..Plan::default() }, seed);
        let server = scene.hosts[SERVER].ulid;
        scene
            .reload(0, |site, _| {
                site.peers.clear();
                site.dns = Some(Dns {
                    upstream: vec![server],
                    zone: Some(control::dns::Name::from_text("a.example").unwrap()),
                    ulid_kind: ULID,
                    cache_entries: 1000,
                    cache_mb: 1,
                    questions_per_s: 1000,
                    questions_per_host_s: 400,
                    handshake_wait_ms: 40,
                    a_records: ARecords::Pass,
                    a_wait_ms: 1000,
                });
            })
            .unwrap();
        scene.restart(0);
        scene.run(ms(100));
        let peer = &scene.hosts[PEER];
        let mut records: Vec<_> = peer.locators.iter().map(|at| (web(), 300, RData::AAAA(AAAA(*at)))).collect();
        records.push((web(), 300, ulid(peer.ulid)));
        let mut tcp = Stack::new(&[(server, 64)], 1500, 3);
        tcp.listen(53);
        Names { scene, records, tcp, truncates: false, silent: false, asked: Vec::new(), next: 4000 }
    }

    /// The same when everybody on the link knows everybody: of packets that wait for a neighbour only few are kept.
    fn met(seed: u64) -> Names {
        let mut names = Names::new(seed);
        names.ask(&Name::from_ascii("nobody.example.").unwrap(), RecordType::AAAA, s(1));
        names
    }

    /// The same where peers have IPv4 addresses too, and hosts shall not know them.
    fn withholding(seed: u64, a_records: ARecords) -> Names {
        let mut names = Names::new(seed);
        let change = names.scene.reload(0, |site, _| site.dns.iter_mut().for_each(|dns| dns.a_records = a_records));
        change.unwrap();
        names.scene.restart(0);
        names.records.push((web(), 300, RData::A(A::new(192, 0, 2, 1))));
        names.ask(&Name::from_ascii("nobody.example.").unwrap(), RecordType::AAAA, s(1));
        names
    }

    fn own(&self) -> Ipv6Addr {
        self.scene.nodes[0].engine.snapshot().ports[0].own[0]
    }

    fn answer(&mut self, octets: &[u8], over_tcp: bool) -> Vec<u8> {
        let question = Message::from_vec(octets).expect("a question that can be read");
        let query = question.queries[0].clone();
        self.asked.push((query.query_type(), over_tcp));
        let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
        answer.add_query(query.clone());
        if self.truncates && !over_tcp {
            answer.metadata.truncation = true;
            return answer.to_vec().unwrap();
        }
        let known = self.records.iter().filter(|(owner, ..)| owner == query.name());
        if known.clone().count() == 0 {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        for (owner, ttl, data) in known.filter(|(.., data)| data.record_type() == query.query_type()) {
            answer.add_answer(Record::from_rdata(owner.clone(), *ttl, data.clone()));
        }
        answer.to_vec().unwrap()
    }

    /// Time passes, and the server answers what reaches it.
    fn run(&mut self, time: Duration) {
        let end = self.scene.now + time;
        while self.scene.now < end {
            self.scene.run(ms(1));
            let now = self.scene.now;
            let mut arrived = std::mem::take(&mut self.scene.hosts[SERVER].inbox);
            arrived.truncate(if self.silent { 0 } else { arrived.len() });
            for (_, octets) in arrived {
                let view = View::new(&octets).unwrap();
                if view.next_header() == protocol::TCP {
                    let packets = self.tcp.receive(now, &octets, false);
                    packets.iter().for_each(|packet| self.scene.send(SERVER, packet));
                } else if let Ok(datagram) = Datagram::parse(&view) {
                    let payload = self.answer(&datagram.payload, false);
                    let back = Datagram { source: datagram.target, target: datagram.source, payload };
                    self.scene.send(SERVER, &back.emit(64).unwrap());
                }
            }
            for event in self.tcp.streams(now) {
                let StreamEvent::Asked(_, number, octets) = event else { panic!("{event:?}") };
                let payload = self.answer(&octets, true);
                self.tcp.reply(number, &payload);
            }
            let packets: Vec<_> = self.tcp.run(now).collect();
            packets.iter().for_each(|packet| self.scene.send(SERVER, packet));
        }
    }

    fn say(&mut self, name: &Name, kind: RecordType) {
        let mut message = Message::new(77, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name.clone(), kind));
        self.next += 1;
        let asker = self.scene.hosts[ASKER].ulid;
        let packet = packet::udp(asker, self.own(), (self.next, 53), &message.to_vec().unwrap());
        self.scene.send(ASKER, &packet);
    }

    /// What the asking host got from the box.
    fn replies(&mut self) -> Vec<Message> {
        let inbox = std::mem::take(&mut self.scene.hosts[ASKER].inbox);
        let datagrams = inbox.iter().filter_map(|(_, octets)| Datagram::parse(&View::new(octets).ok()?).ok());
        datagrams.map(|datagram| Message::from_vec(&datagram.payload).expect("an answer that can be read")).collect()
    }

    fn ask(&mut self, name: &Name, kind: RecordType, time: Duration) -> Message {
        self.say(name, kind);
        self.run(time);
        let mut replies = self.replies();
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies.remove(0)
    }

    /// Asks for addresses; how long it took until there was an answer.
    fn until_told(&mut self, name: &Name) -> Duration {
        let asked = self.scene.now;
        self.say(name, RecordType::AAAA);
        while self.replies().is_empty() {
            assert!(self.scene.now < asked + s(5), "no answer");
            self.run(ms(1));
        }
        self.scene.now.since(asked)
    }

    fn count(&self, name: &str) -> u64 {
        let engine = &self.scene.nodes[0].engine;
        let all = engine.name_counts().find(|(known, ..)| *known == name).map(|(.., value)| value);
        all.unwrap_or_else(|| panic!("no count {name}"))
    }
}

fn web() -> Name {
    Name::from_ascii("web.b.example.").unwrap()
}

fn ulid(address: Ipv6Addr) -> RData {
    RData::Unknown { code: RecordType::from(ULID), rdata: NULL::with(address.octets().to_vec()) }
}

fn addresses(message: &Message) -> Vec<Ipv6Addr> {
    let of = |record: &Record| match &record.data {
        RData::AAAA(address) => Some(address.0),
        _ => None,
    };
    message.answers.iter().filter_map(of).collect()
}

#[test]
fn the_handshake_is_over_before_the_first_packet() {
    let mut names = Names::new(1);
    let answer = names.ask(&web(), RecordType::AAAA, ms(200));
    let peer = names.scene.hosts[PEER].ulid;
    assert_eq!(addresses(&answer), [peer]);
    assert_eq!(names.asked.len(), 2);
    // Nothing has been sent yet, and the context is there.
    names.scene.check_mirrored();
    assert_eq!(names.scene.nodes[0].tally("control_names_opened"), 1);
    let stream = names.scene.stream(ASKER, PEER, ms(10));
    names.run(ms(300));
    assert_eq!(names.scene.nodes[0].count(Count::Held), 0, "nobody waited");
    assert_eq!(names.scene.streams[stream].arrivals[0].number, 0);
    assert!(names.scene.streams[stream].in_order());
    // The same again is answered from the cache and opens nothing.
    let again = names.ask(&web(), RecordType::AAAA, ms(20));
    assert_eq!((addresses(&again), names.asked.len()), (vec![peer], 2));
    assert_eq!(names.scene.nodes[0].tally("control_names_opened"), 1);
    names.scene.stop(stream);
}

#[test]
fn an_identifier_nobody_asked_about_is_found_backwards_while_its_packets_wait() {
    let mut names = Names::new(2);
    let peer = names.scene.hosts[PEER].ulid;
    let pointer = Name::from_ascii(control::dns::Name::of_address(peer).to_string()).unwrap();
    names.records.push((pointer, 60, RData::PTR(PTR(web()))));
    let stream = names.scene.stream(ASKER, PEER, ms(20));
    names.run(ms(400));
    assert_eq!(names.count("dns_reverse_found"), 1);
    assert_eq!(names.scene.streams[stream].arrivals[0].number, 0, "the first packet waited");
    assert!(names.scene.streams[stream].in_order());
    names.scene.stop(stream);
}

#[test]
fn an_identifier_that_leads_nowhere_is_unreachable_and_that_is_remembered() {
    let mut names = Names::new(3);
    let (asker, nobody) = (names.scene.hosts[ASKER].ulid, "fc00:dead::1".parse().unwrap());
    for round in 0..2 {
        let sent = packet::udp(asker, nobody, (9, 9), b"hello?");
        names.scene.send(ASKER, &sent);
        names.run(ms(50));
        let (kind, code, _, quote) = names.scene.error_at(ASKER);
        assert_eq!((kind, code, &quote[..]), (1, 3, &sent[..]));
        names.scene.hosts[ASKER].inbox.clear();
        assert_eq!((names.asked.len(), names.count("dns_reverse_remembered")), (1, round));
        // What the worker itself remembers of it is over by then.
        names.run(s(3));
    }
    assert_eq!(names.scene.captured.len(), 0, "nobody outside hears of it");
}

#[test]
fn hosts_and_servers_are_spoken_to_over_tcp_too() {
    let mut names = Names::new(4);
    names.truncates = true;
    let own = names.own();
    let (asker, peer) = (names.scene.hosts[ASKER].ulid, names.scene.hosts[PEER].ulid);
    let mut client = Stack::new(&[(asker, 64)], 1500, 9);
    // Two questions at once over one connection (RFC 7766 §6.2.1.1).
    for name in [web(), Name::from_ascii("none.example.").unwrap()] {
        let mut message = Message::new(78, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(name, RecordType::AAAA));
        assert!(client.call(names.scene.now, 0, (asker, 5000), (own, 53), &message.to_vec().unwrap()));
    }
    let mut answers = Vec::new();
    for _ in 0..200 {
        let now = names.scene.now;
        let packets: Vec<_> = client.run(now).collect();
        packets.iter().for_each(|packet| names.scene.send(ASKER, packet));
        names.run(ms(1));
        for (_, octets) in std::mem::take(&mut names.scene.hosts[ASKER].inbox) {
            let packets = client.receive(names.scene.now, &octets, false);
            packets.iter().for_each(|packet| names.scene.send(ASKER, packet));
        }
        for event in client.streams(names.scene.now) {
            let StreamEvent::Answered(0, octets) = event else { panic!("{event:?}") };
            answers.push(Message::from_vec(&octets).unwrap());
        }
    }
    assert_eq!(answers.len(), 2);
    let found: Vec<_> = answers.iter().flat_map(addresses).collect();
    assert_eq!(found, [peer]);
    assert!(answers.iter().any(|answer| answer.metadata.response_code == ResponseCode::NXDomain));
    let by = |over_tcp| names.asked.iter().filter(|(_, tcp)| *tcp == over_tcp).count();
    assert_eq!((by(false), by(true)), (4, 4), "each was truncated and came again");
}

#[test]
fn own_names_are_answered_and_what_nobody_knows_is_said_in_time() {
    let mut names = Names::new(5);
    names.silent = true;
    let own = Name::from_ascii("HOST-0-0.a.example.").unwrap();
    let answer = names.ask(&own, RecordType::AAAA, ms(20));
    assert_eq!(addresses(&answer), [names.scene.hosts[ASKER].ulid]);
    let answer = names.ask(&web(), RecordType::AAAA, s(5));
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(names.count("dns_servers_down"), 1);
    let told = |(_, _, story): &(_, _, Story)| matches!(story, Story::Names(control::dns::Note::ServerDown(_)));
    assert_eq!(names.scene.stories.iter().filter(|story| told(story)).count(), 1);
}

#[test]
fn a_flood_of_questions_is_dropped_by_the_worker_and_by_name() {
    let mut names = Names::met(6);
    for _ in 0..300 {
        names.say(&Name::from_ascii("host-0-0.a.example.").unwrap(), RecordType::AAAA);
    }
    names.run(ms(10));
    let dropped = names.scene.nodes[0].dropped(DropReason::QuestionRate);
    assert_eq!(dropped, 200, "a quarter of a second's share at once");
    assert_eq!(names.replies().len(), 100);
    // Everything else for the box goes on.
    let (asker, peer) = (names.scene.hosts[ASKER].ulid, names.own());
    names.scene.send(ASKER, &packet::icmp(asker, peer, 64, &[128, 0, 0, 0, 0, 1, 0, 1]));
    names.run(ms(10));
    assert_eq!(names.scene.hosts[ASKER].inbox.len(), 1);
}

#[test]
fn what_servers_answer_is_not_held_to_a_strangers_share() {
    let mut names = Names::new(8);
    names.scene.reload(0, |site, _| site.shim6.messages_per_source_s = 40).unwrap();
    names.scene.restart(0);
    names.ask(&Name::from_ascii("nobody.example.").unwrap(), RecordType::AAAA, s(1));
    // Two answers each, all from the server's /64; a stranger there may say ten things at once.
    for number in 0..60 {
        names.say(&Name::from_ascii(format!("p{number}.example.")).unwrap(), RecordType::AAAA);
    }
    names.run(ms(100));
    assert_eq!(names.scene.nodes[0].dropped(DropReason::ControlRate), 0);
    assert_eq!(names.replies().len(), 60);
}

#[test]
fn a_host_that_asks_for_many_peers_does_not_fill_the_tables() {
    let mut names = Names::met(7);
    let locator = names.scene.hosts[PEER].locators[0];
    for number in 0..90u16 {
        let name = Name::from_ascii(format!("p{number}.example.")).unwrap();
        let peer: Ipv6Addr = format!("fc00:b:9::{number:x}").parse().unwrap();
        names.records.push((name.clone(), 300, RData::AAAA(AAAA(locator))));
        names.records.push((name.clone(), 300, ulid(peer)));
        names.say(&name, RecordType::AAAA);
    }
    names.run(ms(100));
    assert_eq!(names.replies().len(), 90, "each has its answer");
    let opened = names.scene.nodes[0].tally("control_names_opened");
    let paced = names.scene.nodes[0].tally("control_names_paced");
    assert!((40..=42).contains(&opened), "{opened}");
    assert_eq!(opened + paced, 90);
}

#[test]
fn the_answer_waits_for_the_handshake_it_begins_and_not_for_long() {
    let mut names = Names::met(9);
    let tally =
        |names: &Names| ["waited", "early"].map(|how| names.scene.nodes[0].tally(&format!("control_answers_{how}")));
    names.until_told(&web());
    let contexts = names.scene.nodes[0].contexts(names.scene.now);
    assert_eq!(contexts[0].state, ContextState::Established, "before the host knows whom to send to");
    assert_eq!(tally(&names), [1, 0]);
    // Nobody is behind this one.
    let (name, locator) = (Name::from_ascii("gone.example.").unwrap(), "2001:db8:77::1".parse().unwrap());
    names.records.push((name.clone(), 300, RData::AAAA(AAAA(locator))));
    names.records.push((name.clone(), 300, ulid("fc00:b:9::1".parse().unwrap())));
    let took = names.until_told(&name);
    assert!((ms(40)..ms(60)).contains(&took), "{took:?}");
    assert_eq!(tally(&names), [1, 1]);
    // Who asks next does not wait: the handshake was not begun for that answer.
    let took = names.until_told(&name);
    assert!(took < ms(10), "{took:?}");
}

fn legacy(message: &Message) -> usize {
    message.answers.iter().filter(|record| record.record_type() == RecordType::A).count()
}

#[test]
fn ipv4_addresses_are_withheld_when_the_peer_answers_at_its_cmula() {
    let mut names = Names::withholding(11, ARecords::Withhold);
    // Nobody has asked for anything else: the question begins the handshake itself.
    let answer = names.ask(&web(), RecordType::A, s(2));
    assert_eq!((legacy(&answer), answer.authorities.len()), (0, 1));
    assert_eq!(names.scene.nodes[0].contexts(names.scene.now)[0].state, ContextState::Established);
    assert_eq!((names.count("dns_a_withheld"), names.count("dns_a_unreached")), (1, 0));
    let view = names.scene.nodes[0].engine.dns_view(names.scene.now);
    assert!(view.withholding && view.undecided == 0);
    // From the cache, and at once.
    assert_eq!(legacy(&names.ask(&web(), RecordType::A, ms(5))), 0);
    assert_eq!(names.count("dns_a_withheld"), 2);
}

#[test]
fn the_only_addresses_that_work_are_never_withheld() {
    let mut names = Names::withholding(12, ARecords::Withhold);
    // Nobody is behind this CMULA.
    let gone = Name::from_ascii("gone.example.").unwrap();
    names.records.push((gone.clone(), 300, RData::A(A::new(192, 0, 2, 9))));
    names.records.push((gone.clone(), 300, RData::AAAA(AAAA("2001:db8:77::1".parse().unwrap()))));
    names.records.push((gone.clone(), 300, ulid("fc00:b:9::1".parse().unwrap())));
    names.say(&gone, RecordType::A);
    names.run(ms(900));
    assert_eq!(names.replies().len(), 0, "it waits for the peer");
    assert_eq!(names.scene.nodes[0].engine.dns_view(names.scene.now).undecided, 1);
    names.run(ms(200));
    assert_eq!(legacy(&names.replies()[0]), 1);
    assert_eq!((names.count("dns_a_withheld"), names.count("dns_a_unreached")), (0, 1));
    // When the exchange has failed nobody waits any more.
    names.run(s(200));
    assert_eq!(legacy(&names.ask(&gone, RecordType::A, ms(5))), 1);
    // A peer that answered, and then is lost: its host looks for another way, and gets all addresses meanwhile.
    assert_eq!(legacy(&names.ask(&web(), RecordType::A, s(2))), 0);
    let stream = names.scene.stream(ASKER, PEER, ms(20));
    names.run(s(3));
    let sends = names.scene.providers.iter().filter(|provider| provider.site == 0).count();
    (0..sends).for_each(|provider| names.scene.cut(provider, &[Way::In, Way::Out]));
    names.run(s(8));
    names.scene.stop(stream);
    assert_eq!(legacy(&names.ask(&web(), RecordType::A, ms(1500))), 1);
}

#[test]
fn the_policy_says_for_whom_addresses_are_withheld() {
    let policy = |peers: &str, what: &str| {
        format!(
            "{{\"version\": 1, \"classes\": [{{\"name\": \"c\", \"match\": {{\"peers\": [\"{peers}\"]}}, \"a_records\": \"{what}\"}}]}}"
        )
    };
    for (setting, peers, what, left) in [
        (ARecords::Pass, "fc00:b::/48", "withhold", 0),
        (ARecords::Pass, "fc00:c::/48", "withhold", 1),
        (ARecords::Withhold, "fc00:b::/48", "pass", 1),
        (ARecords::Withhold, "fc00:c::/48", "pass", 0),
    ] {
        let mut names = Names::withholding(13, setting);
        names.scene.load_policy(0, Some(&policy(peers, what))).unwrap();
        assert_eq!(legacy(&names.ask(&web(), RecordType::A, s(2))), left, "{setting:?} {peers} {what}");
        // Without the policy the setting counts again.
        names.scene.load_policy(0, None).unwrap();
        let left = usize::from(setting == ARecords::Pass);
        assert_eq!(legacy(&names.ask(&web(), RecordType::A, s(2))), left, "{setting:?}");
    }
}
