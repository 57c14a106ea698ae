//! A server that does what RFC 2136 §3 says, as far as the messages of this house go, and a publisher that has to get along
//! with it, with loss, lies and other people's names.

use std::collections::{BTreeMap, BTreeSet};

use hickory_proto::op::{Message, OpCode, UpdateMessage};
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{DNSClass, RData, TSigResponseContext};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

const ULID: u16 = 65_280;
const UNIX: u64 = 1_790_000_000;

/// Name to type to data, and whether it answers.
struct Server {
    signer: TSigner,
    zones: BTreeMap<Name, BTreeMap<u16, BTreeSet<String>>>,
}

fn settings() -> Publish {
    Publish {
        servers: vec!["2001:db8:d::53".parse().unwrap(), "2001:db8:e::53".parse().unwrap()],
        zone: "a.example.".into(),
        reverse: "0.0.0.0.a.0.0.0.0.0.c.f.ip6.arpa.".into(),
        key: "a.key".into(),
        ttl: Duration::from_secs(30),
    }
}

fn key() -> TsigKey {
    TsigKey::parse("key a-site { algorithm hmac-sha256; secret \"MDEyMzQ1Njc4OWFiY2RlZg==\"; };").unwrap()
}

impl Server {
    fn new() -> Server {
        let name = Name::from_ascii("a-site").unwrap();
        let signer = TSigner::new(b"0123456789abcdef".to_vec(), TsigAlgorithm::HmacSha256, name, 300).unwrap();
        Server { signer, zones: BTreeMap::new() }
    }

    fn put(&mut self, name: &str, kind: u16, data: &str) {
        let name = Name::from_ascii(name).unwrap();
        self.zones.entry(name).or_default().entry(kind).or_default().insert(data.to_owned());
    }

    fn has(&self, name: &str, kind: RecordType) -> Vec<String> {
        let types = self.zones.get(&Name::from_ascii(name).unwrap());
        types.and_then(|types| types.get(&u16::from(kind))).into_iter().flatten().cloned().collect()
    }

    fn answer(&mut self, octets: &[u8]) -> Vec<u8> {
        let (mac, time, _) = self.signer.verify_message_byte(octets, None, true).expect("a good signature");
        assert!(time.abs_diff(UNIX) < 100_000, "{time}");
        let message = Message::from_vec(octets).unwrap();
        assert_eq!((message.metadata.op_code, message.zones().len()), (OpCode::Update, 1));
        let code = self.update(&message);
        let mut answer = Message::response(message.metadata.id, OpCode::Update);
        answer.metadata.response_code = code;
        let plain = answer.to_vec().unwrap();
        let context = TSigResponseContext::new(answer.metadata.id, time, self.signer.clone(), mac, None);
        answer.set_signature(context.sign(&plain).unwrap());
        answer.to_vec().unwrap()
    }

    /// RFC 2136 §3.2 and §3.4.
    fn update(&mut self, message: &Message) -> ResponseCode {
        let zone = message.zones()[0].name().clone();
        for wanted in message.prerequisites() {
            let types = self.zones.get(&wanted.name).filter(|types| !types.is_empty());
            let code = match (wanted.dns_class, wanted.record_type()) {
                (DNSClass::NONE, RecordType::ANY) => types.is_none().then_some(()).ok_or(ResponseCode::YXDomain),
                (DNSClass::ANY, kind) => {
                    let there = types.is_some_and(|types| types.contains_key(&u16::from(kind)));
                    there.then_some(()).ok_or(ResponseCode::NXRRSet)
                }
                other => panic!("{other:?}"),
            };
            if let Err(code) = code {
                return code;
            }
        }
        for record in message.updates() {
            assert!(zone.zone_of(&record.name), "{} is not in {zone}", record.name);
            let types = self.zones.entry(record.name.clone()).or_default();
            let kind = u16::from(record.record_type());
            match record.dns_class {
                DNSClass::ANY => drop(types.remove(&kind)),
                DNSClass::IN => {
                    let data = match &record.data {
                        RData::Unknown { rdata, .. } => format!("{:02x?}", rdata.anything),
                        other => other.to_string(),
                    };
                    types.entry(kind).or_default().insert(data);
                }
                other => panic!("{other:?}"),
            }
            if types.is_empty() {
                self.zones.remove(&record.name);
            }
        }
        ResponseCode::NoError
    }
}

struct Scene {
    publisher: Publisher,
    server: Server,
    rng: StdRng,
    now: Instant,
    stories: Vec<Story>,
    /// How many messages of a hundred are lost.
    loss: u32,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut publisher = Publisher::new(&settings(), &key(), ULID, &mut rng).unwrap();
        publisher.wall_clock(Instant::START, UNIX);
        Scene { publisher, server: Server::new(), rng, now: Instant::START, stories: Vec::new(), loss: 0 }
    }

    /// Lets everything happen that is due, and `seconds` pass.
    fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(due) = self.publisher.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let mut out = Vec::new();
            self.publisher.expire(self.now, &mut self.rng, &mut out);
            self.carry_out(out);
        }
        self.now = end;
    }

    fn carry_out(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Told(story) => self.stories.push(story),
                Output::Send(to, octets) => {
                    assert!(octets.len() < 1232);
                    if self.rng.next_u32() % 100 < self.loss {
                        continue;
                    }
                    let answer = self.server.answer(&octets);
                    if self.rng.next_u32() % 100 < self.loss {
                        continue;
                    }
                    let mut more = Vec::new();
                    self.publisher.receive(self.now, to, &answer, &mut self.rng, &mut more);
                    self.carry_out(more);
                }
            }
        }
    }
}

fn host(name: &str, number: u16, locators: &[&str]) -> Host {
    let locators = locators.iter().map(|it| it.parse().unwrap()).collect();
    Host { name: name.into(), ulid: format!("fc00:a:0:1::{number:x}").parse().unwrap(), locators }
}

const H1_REVERSE: &str = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.0.0.a.0.0.0.0.0.c.f.ip6.arpa.";

#[test]
fn a_host_is_found_by_its_name_and_its_identifier_until_it_goes() {
    let mut scene = Scene::new(1);
    scene.publisher.set(&host("H1", 1, &["2001:db8:a1:1::1", "2001:db8:a2:1::1"]));
    scene.run(1);
    assert_eq!(scene.server.has("h1.a.example.", RecordType::AAAA), ["2001:db8:a1:1::1", "2001:db8:a2:1::1"]);
    assert_eq!(scene.server.has("h1.a.example.", RecordType::from(ULID)).len(), 1);
    assert_eq!(scene.server.has(H1_REVERSE, RecordType::PTR), ["h1.a.example."]);
    assert_eq!(scene.stories, [Story::Complete(1)]);
    let sent = scene.publisher.counts().sent;
    scene.publisher.set(&host("h1", 1, &["2001:db8:a1:1::1", "2001:db8:a2:1::1"]));
    scene.run(100);
    assert_eq!(scene.publisher.counts().sent, sent, "the same again is no news");
    // Another provider, another name, and gone.
    scene.publisher.set(&host("h1", 1, &["2001:db8:a3:1::1"]));
    scene.run(1);
    assert_eq!(scene.server.has("h1.a.example.", RecordType::AAAA), ["2001:db8:a3:1::1"]);
    scene.publisher.set(&host("h2", 1, &["2001:db8:a3:1::1"]));
    scene.run(1);
    assert_eq!(scene.server.has(H1_REVERSE, RecordType::PTR), ["h2.a.example."]);
    assert!(scene.server.has("h1.a.example.", RecordType::AAAA).is_empty());
    scene.publisher.unset(host("", 1, &[]).ulid);
    scene.run(1);
    assert!(scene.server.zones.is_empty(), "{:?}", scene.server.zones);
    assert_eq!((scene.publisher.counts().published, scene.publisher.counts().waiting), (0, 0));
}

#[test]
fn a_name_that_hosts_share_is_one_of_theirs_while_there_is_one() {
    let mut scene = Scene::new(6);
    for (number, locator) in [(1, "2001:db8:a1:1::1"), (2, "2001:db8:a1:1::2")] {
        scene.publisher.set(&host("twin", number, &[locator]));
    }
    scene.run(1);
    assert_eq!(scene.server.has("twin.a.example.", RecordType::AAAA), ["2001:db8:a1:1::2"]);
    scene.publisher.unset(host("", 2, &[]).ulid);
    scene.run(1);
    assert_eq!(scene.server.has("twin.a.example.", RecordType::AAAA), ["2001:db8:a1:1::1"]);
}

#[test]
fn a_name_of_somebody_elses_stays_as_it_is() {
    let mut scene = Scene::new(2);
    scene.server.put("mail.a.example.", u16::from(RecordType::AAAA), "2001:db8:77::1");
    scene.publisher.set(&host("mail", 1, &["2001:db8:a1:1::1"]));
    scene.publisher.set(&host("www.b.example", 2, &["2001:db8:a1:1::2"]));
    scene.run(60);
    assert_eq!(scene.server.has("mail.a.example.", RecordType::AAAA), ["2001:db8:77::1"]);
    assert!(scene.server.has("www.b.example.", RecordType::AAAA).is_empty());
    assert!(scene.stories.contains(&Story::Taken("mail.a.example.".into())), "{:?}", scene.stories);
    assert_eq!(scene.publisher.counts().taken, 1);
    // Given up by its owner, it is published some time later.
    scene.server.zones.clear();
    scene.run(TAKEN_PAUSE.as_secs());
    assert_eq!(scene.server.has("mail.a.example.", RecordType::AAAA), ["2001:db8:a1:1::1"]);
}

#[test]
fn what_this_site_said_before_a_restart_is_taken_over_and_what_others_say_beside_it_stays() {
    let mut scene = Scene::new(3);
    scene.server.put("h1.a.example.", u16::from(RecordType::AAAA), "2001:db8:a9:1::1");
    scene.server.put("h1.a.example.", ULID, "[fc]");
    scene.server.put("h1.a.example.", u16::from(RecordType::TXT), "room 12");
    scene.publisher.set(&host("h1", 1, &["2001:db8:a1:1::1"]));
    scene.run(1);
    assert_eq!(scene.server.has("h1.a.example.", RecordType::AAAA), ["2001:db8:a1:1::1"]);
    assert_eq!(scene.server.has("h1.a.example.", RecordType::from(ULID)).len(), 1);
    scene.publisher.unset(host("", 1, &[]).ulid);
    scene.run(1);
    assert_eq!(scene.server.has("h1.a.example.", RecordType::TXT), ["room 12"]);
    assert!(scene.server.has("h1.a.example.", RecordType::AAAA).is_empty());
}

#[test]
fn nothing_is_sent_before_the_time_is_known_and_only_signed_answers_count() {
    let mut scene = Scene::new(4);
    scene.publisher.epoch = None;
    scene.publisher.set(&host("h1", 1, &["2001:db8:a1:1::1"]));
    assert_eq!(scene.publisher.deadline(), None);
    scene.publisher.wall_clock(scene.now, UNIX);
    let mut out = Vec::new();
    scene.publisher.expire(scene.now, &mut scene.rng, &mut out);
    let Output::Send(server, octets) = out[0].clone() else { panic!("{out:?}") };
    let mut good = scene.server.answer(&octets);
    let mut lie = Message::response(message::id_of(&octets).unwrap(), OpCode::Update);
    lie.metadata.response_code = ResponseCode::NotAuth;
    let (mut now, mut rng) = (scene.now, StdRng::seed_from_u64(1));
    let mut receive = |from, octets: &[u8], now| {
        let mut out = Vec::new();
        scene.publisher.receive(now, from, octets, &mut rng, &mut out);
        out
    };
    assert!(receive(server, &lie.to_vec().unwrap(), now).is_empty());
    assert!(receive("2001:db8:66::1".parse().unwrap(), &good, now).is_empty());
    *good.last_mut().unwrap() ^= 1;
    assert!(receive(server, &good[..good.len() - 1], now).is_empty());
    assert!(receive(server, &[], now).is_empty());
    assert_eq!(scene.publisher.counts().unsigned, 4);
    assert_eq!(scene.publisher.counts().done, 0);
    // The reason is told when nothing better came.
    now = now + PATIENCE;
    let mut out = Vec::new();
    scene.publisher.expire(now, &mut scene.rng, &mut out);
    let Output::Told(Story::Unheard(_, Some(_))) = &out[0] else { panic!("{out:?}") };
}

#[test]
fn a_server_that_refuses_is_not_asked_all_the_time() {
    let mut scene = Scene::new(5);
    scene.loss = 100;
    for number in 0..100 {
        scene.publisher.set(&host(&format!("h{number}"), number, &["2001:db8:a1:1::1"]));
    }
    scene.run(600);
    let sent = scene.publisher.counts().sent;
    assert!((64..=160).contains(&sent), "{sent}");
    let servers = scene.stories.iter().filter_map(|story| match story {
        Story::Unheard(server, _) => Some(*server),
        _ => None,
    });
    assert_eq!(servers.collect::<BTreeSet<_>>(), settings().servers.into_iter().collect());
    scene.loss = 0;
    scene.run(70);
    assert_eq!(scene.publisher.counts().published, 200);
    assert_eq!(scene.stories.last(), Some(&Story::Complete(100)));
}

/// Everything that is to be written is.
fn write(publisher: &mut Publisher, disk: &mut BTreeSet<String>) {
    while let Some((record, there)) = publisher.next_record() {
        let text = record.to_string();
        assert_eq!(text.parse(), Ok(record.clone()));
        assert!(if there { disk.insert(text) } else { disk.remove(&text) });
        if there {
            publisher.recorded(record);
        }
    }
}

fn begin(publisher: &mut Publisher, disk: &BTreeSet<String>) {
    publisher.begin_with(disk.iter().map(|text| text.parse().unwrap()));
}

#[test]
fn what_went_while_the_box_was_down_is_withdrawn_when_it_is_up() {
    let (mut first, mut disk) = (Scene::new(1), BTreeSet::new());
    first.publisher.set(&host("stays", 1, &["2001:db8:a1:1::1"]));
    begin(&mut first.publisher, &disk);
    first.publisher.set(&host("goes", 2, &["2001:db8:a1:1::2"]));
    // Nothing is said before it is written that it may be.
    first.run(5);
    assert_eq!((first.publisher.counts().sent, first.publisher.counts().waiting), (0, 4));
    write(&mut first.publisher, &mut disk);
    first.run(5);
    assert_eq!((first.server.zones.len(), disk.len()), (4, 4));
    // The box stops, and begins again without one of them. A stranger's name is not touched whatever the file says.
    first.server.put("mail.a.example.", 28, "2001:db8::25");
    disk.extend(["forward mail.a.example.".to_owned(), "forward host.elsewhere.".to_owned()]);
    let mut second = Scene { server: first.server, ..Scene::new(2) };
    second.publisher.set(&host("stays", 1, &["2001:db8:a1:1::1"]));
    begin(&mut second.publisher, &disk);
    write(&mut second.publisher, &mut disk);
    second.run(5);
    write(&mut second.publisher, &mut disk);
    assert!(second.server.has("goes.a.example.", RecordType::AAAA).is_empty());
    assert_eq!(second.server.has("stays.a.example.", RecordType::AAAA), ["2001:db8:a1:1::1"]);
    assert_eq!(second.server.has("mail.a.example.", RecordType::AAAA), ["2001:db8::25"]);
    assert_eq!(second.server.zones.len(), 3);
    let reverse = format!("reverse {H1_REVERSE}");
    let left: Vec<&str> = disk.iter().map(String::as_str).collect();
    assert_eq!(left, ["forward host.elsewhere.", "forward stays.a.example.", &reverse]);
    // Who comes back is written down and published again, and who goes is struck at once.
    second.publisher.set(&host("goes", 2, &["2001:db8:a1:1::2"]));
    write(&mut second.publisher, &mut disk);
    second.publisher.unset(host("", 1, &[]).ulid);
    second.run(5);
    write(&mut second.publisher, &mut disk);
    assert_eq!((second.server.zones.len(), disk.len()), (3, 3));
}

proptest! {
    /// Whatever is said in whatever order, and lost on the way: in the end the server says what it shall.
    #[test]
    fn in_the_end_the_server_says_what_it_shall(
        seed in any::<u64>(),
        steps in prop::collection::vec((0u16..6, 0u16..4, 0u16..3, 0u64..3), 1..60),
    ) {
        let mut scene = Scene::new(seed);
        scene.loss = 30;
        let mut disk = BTreeSet::new();
        begin(&mut scene.publisher, &disk);
        let mut hosts: BTreeMap<u16, Host> = BTreeMap::new();
        for (number, name, locator, pause) in steps {
            if locator == 0 {
                hosts.remove(&number);
                scene.publisher.unset(host("", number, &[]).ulid);
            } else if !hosts.iter().any(|(other, it)| *other != number && it.name == format!("n{name}")) {
                let locator = format!("2001:db8:a{locator}:1::{number:x}");
                let host = host(&format!("n{name}"), number, &[&locator]);
                scene.publisher.set(&host);
                hosts.insert(number, host);
            }
            if pause != 1 {
                write(&mut scene.publisher, &mut disk);
            }
            scene.run(pause);
            // Wherever the box stopped now, it would know afterwards what it may have said.
            let known = |name: &Name| disk.iter().any(|text| text.ends_with(&format!(" {name}")));
            prop_assert!(scene.server.zones.keys().all(known), "{disk:?}");
        }
        scene.loss = 0;
        write(&mut scene.publisher, &mut disk);
        scene.run(200);
        write(&mut scene.publisher, &mut disk);
        prop_assert_eq!(disk.len(), scene.server.zones.len());
        let mut wanted = BTreeMap::new();
        for host in hosts.values() {
            let name = Name::from_ascii(format!("{}.a.example.", host.name)).unwrap();
            wanted.insert(name.clone(), host.locators.iter().map(ToString::to_string).collect::<BTreeSet<_>>());
            wanted.insert(reverse_name(host.ulid), BTreeSet::from([name.to_string()]));
        }
        let said = scene.server.zones.iter().map(|(name, types)| {
            let shown = types.get(&u16::from(RecordType::AAAA)).or(types.get(&u16::from(RecordType::PTR)));
            (name.clone(), shown.cloned().unwrap_or_default())
        });
        prop_assert_eq!(said.collect::<BTreeMap<_, _>>(), wanted);
        prop_assert_eq!(scene.publisher.counts().waiting, 0);
    }
}
