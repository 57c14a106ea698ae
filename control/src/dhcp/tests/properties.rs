//! The server against a slow twin: whatever clients say in whatever order, with a store that fails and a box that stops,
//! no address is with two clients, and what a client was told is on disk.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What clients, the store and time do.
#[derive(Clone, Debug)]
enum Step {
    /// A client says something of an association, naming the address it was told or none.
    Say(usize, u32, u32, bool, bool),
    /// The store writes the next so many, or fails to.
    Write(usize, bool),
    /// Time passes.
    Pass(u64),
    /// The box stops and begins again with what was written.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let say = (0usize..8, 1u32..12, 1u32..3, any::<bool>(), any::<bool>());
    let step = prop_oneof![
        10 => say.prop_map(|(kind, number, iaid, names, relayed)| Step::Say(kind, number, iaid, names, relayed)),
        6 => (1usize..5, prop::bool::weighted(0.9)).prop_map(|(count, good)| Step::Write(count, good)),
        3 => prop_oneof![1u64..50, 100u64..1500].prop_map(Step::Pass),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..120)
}

/// What was told to whom, and what is on disk.
#[derive(Default)]
struct Twin {
    disk: BTreeMap<Client, Lease>,
    held: BTreeMap<Ipv6Addr, Held>,
    /// What each client was told, and until when it may use it.
    told: BTreeMap<Client, (Ipv6Addr, u64)>,
    /// Every address that was ever told, and to whom.
    history: BTreeMap<Ipv6Addr, Client>,
}

impl Twin {
    fn write(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(lease) => _ = self.disk.insert(lease.client.clone(), lease),
                Change::Forget(client) => _ = self.disk.remove(&client),
                Change::Hold(held) => _ = self.held.insert(held.ulid, held),
                Change::Free(ulid) => _ = self.held.remove(&ulid),
            }
        }
    }

    fn stored(&self) -> Stored {
        Stored { leases: self.disk.values().cloned().collect(), quarantine: self.held.values().cloned().collect() }
    }

    /// A client hears an answer.
    fn hears(&mut self, answer: &Answer, wall: u64) {
        if answer.kind != message::REPLY {
            return;
        }
        let duid = Duid::new(answer.option(code::CLIENT_ID).unwrap()).unwrap();
        for ia in answer.ias.iter().filter(|ia| ia.code == code::IA_NA) {
            let client = Client { duid: duid.clone(), iaid: ia.iaid };
            for (address, _, valid) in ia.addresses.iter().filter(|(_, _, valid)| *valid > 0) {
                let before = self.history.insert(*address, client.clone());
                assert!(before.is_none_or(|before| before == client), "{address} was another client's");
                self.told.insert(client.clone(), (*address, wall + u64::from(*valid)));
            }
        }
    }

    /// What clients may use is on disk, as theirs, for at least as long.
    fn check(&self, wall: u64) {
        for (client, (address, until)) in self.told.iter().filter(|(_, (_, until))| *until > wall) {
            let lease =
                self.disk.get(client).unwrap_or_else(|| panic!("{client:?} was told {address}, and is forgotten"));
            assert_eq!((lease.identity.ulid, lease.state), (*address, State::Bound), "{client:?}");
            assert!(lease.until >= *until, "{client:?}");
        }
        for held in self.held.values().filter(|held| held.until > wall) {
            let owner = self.told.iter().find(|(_, (address, until))| *address == held.ulid && *until > wall);
            assert_eq!(owner, None, "{} is quarantined", held.ulid);
        }
    }
}

fn settings() -> Config {
    // Tight, so that every bound is met.
    Config {
        leases_max: 6,
        per_source_max: 5,
        per_relay_max: 4,
        valid: 600,
        preferred: 300,
        t1: 100,
        t2: 200,
        ..config()
    }
}

struct Run {
    bench: Bench,
    twin: Twin,
    /// What is to be written, in order; and what comes out when time passes.
    queue: Vec<(u64, Vec<Change>)>,
}

impl Run {
    fn take_outputs(&mut self) {
        let wall = self.bench.server.wall(self.bench.now);
        for output in std::mem::take(&mut self.bench.out) {
            match output {
                Output::Write { ticket, changes } => self.queue.push((ticket, changes)),
                Output::Send { payload, .. } => {
                    let mut payload = &payload[..];
                    let mut unwrapped;
                    if payload[0] == relay::REPLY {
                        unwrapped = payload.to_vec();
                        unwrapped[0] = relay::FORWARD;
                        payload = relay::unwrap(&unwrapped).unwrap().1;
                        assert!(!payload.is_empty());
                    }
                    self.twin.hears(&read_answer(payload), wall);
                }
                Output::Serve(lease) => {
                    let disk = &self.twin.disk[&lease.client];
                    assert_eq!(
                        (disk.identity.ulid, disk.state),
                        (lease.identity.ulid, State::Bound),
                        "served unwritten"
                    );
                }
                Output::Withdraw(_) | Output::Tell(_) => {}
            }
        }
    }

    fn say(&mut self, kind: usize, number: u32, iaid: u32, names: bool, relayed: bool) {
        let kind = Kind::ALL[kind];
        let client = Client { duid: duid(number), iaid };
        let told = self.twin.told.get(&client).copied();
        let mut saying = say(kind, number);
        if matches!(kind, Kind::Request | Kind::Renew | Kind::Release | Kind::Decline) {
            saying = saying.ours();
        }
        if kind == Kind::Solicit && names {
            saying = saying.rapid();
        }
        if kind != Kind::InformationRequest {
            let addresses: Vec<Ipv6Addr> = told.iter().map(|(address, _)| *address).filter(|_| names).collect();
            saying = saying.na(iaid, &addresses);
        }
        // Who gives an address up stops using it before he says so (§18.2.7).
        if matches!(kind, Kind::Release | Kind::Decline) && names {
            self.twin.told.remove(&client);
        }
        let message = saying.done();
        let (source, payload) = if relayed {
            let hop = relay::Hop { count: 0, link: address(LINK), peer: address("fe80::5"), interface: None };
            let mut payload = relay::wrap(&[hop], message);
            payload[0] = relay::FORWARD;
            (address("fc00:a:0:1::99"), payload)
        } else {
            (address("fe80::5"), message)
        };
        self.bench.receive(source, &payload);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Say(kind, number, iaid, names, relayed) => self.say(kind, number, iaid, names, relayed),
            Step::Write(count, good) => {
                for (ticket, changes) in self.queue.drain(..count.min(self.queue.len())).collect::<Vec<_>>() {
                    if good {
                        self.twin.write(changes);
                    }
                    self.bench.server.persisted(self.bench.now, ticket, good, &mut self.bench.out);
                    self.take_outputs();
                }
            }
            Step::Pass(seconds) => self.bench.pass(seconds),
            Step::Crash => {
                self.queue.clear();
                self.bench.out.clear();
                self.bench.server = Server::new(settings(), self.twin.stored(), 1_000_000);
            }
        }
        self.take_outputs();
        self.bench.stock(4_u64.saturating_sub(self.bench.server.ready() as u64));
        self.bench.server.book().selfcheck();
        self.twin.check(self.bench.server.wall(self.bench.now));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn no_address_is_with_two_clients_and_what_was_told_is_on_disk(steps in steps()) {
        let mut run = Run { bench: Bench::new(settings()), twin: Twin::default(), queue: Vec::new() };
        for step in &steps {
            run.step(step);
        }
    }
}
