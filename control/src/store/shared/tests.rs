//! Boxes on one store, and lines that fail: what is written, what is told, and what comes of it.

mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::testing::{Line, Memory, Wire};
use super::*;
use crate::dhcp::{Client, Held, Lease, State};
use crate::store::Export;

const END: u64 = 1_000;

fn client(number: u32) -> Client {
    Client { duid: Duid::new(&[&[0, 3][..], &number.to_be_bytes()].concat()).unwrap(), iaid: number }
}

fn ulid(number: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits((0xfc00_000a_0000_0001 << 64) | u128::from(number))
}

fn identity(number: u64) -> Identity {
    let locators = vec![Ipv6Addr::from_bits((0x2001_0db8_0001_0001 << 64) | u128::from(number))];
    Identity { ulid: ulid(number), locators, pds: vec![1, 2, 3] }
}

fn lease(who: u32, address: u64, until: u64) -> Lease {
    Lease {
        client: client(who),
        name: format!("h{who}-{address}"),
        identity: identity(address),
        state: State::Bound,
        until,
        via: Ipv6Addr::LOCALHOST,
        relayed: false,
    }
}

/// A box: its store, what its server believes, and what it has told clients.
struct Node {
    store: Shared<Wire>,
    wire: Wire,
    memory: Memory,
    book: BTreeMap<Client, Lease>,
    held: BTreeMap<Ipv6Addr, u64>,
    seen: u64,
    /// Up to which revision it has heard.
    heard: u64,
    stock: Vec<u64>,
    conflicts: usize,
    documents: Vec<Document>,
    /// What its other thread has read, and how often the box had written when that began.
    read: Option<(Snapshot, u64)>,
}

impl Node {
    fn new(memory: &Memory, name: &str) -> Node {
        let wire = memory.wire();
        let store = Shared::passing(name, wire.clone()).unwrap();
        let mut node = Node {
            store,
            wire,
            memory: memory.clone(),
            book: BTreeMap::new(),
            held: BTreeMap::new(),
            seen: 0,
            heard: 0,
            stock: Vec::new(),
            conflicts: 0,
            documents: Vec::new(),
            read: None,
        };
        node.hear_all();
        node.store.duid(&Duid::from_uuid([7; 16])).unwrap();
        node
    }

    fn hear_all(&mut self) {
        let all = self.memory.all();
        self.heard = all.revision;
        self.store.hear(Heard::All(all)).unwrap();
        self.follow();
    }

    /// Its other thread reads everything; what it says of that waits for [`Node::deliver`].
    fn read_all(&mut self) {
        self.read = Some((self.memory.all(), self.store.tried().load(Ordering::SeqCst)));
    }

    fn deliver(&mut self) {
        if let Some((all, tried)) = self.read.take() {
            let revision = all.revision;
            self.store.hear(Heard::Read(all, tried)).unwrap();
            if !self.store.is_alone() {
                // It follows from there.
                self.heard = revision;
            }
            self.follow();
        }
    }

    fn hear(&mut self) {
        let events = self.memory.since(self.heard);
        self.heard = events.revision;
        self.store.hear(Heard::Since(events)).unwrap();
        self.follow();
    }

    fn follow(&mut self) {
        for news in self.store.news() {
            match news {
                News::Changed(changes, number) => {
                    self.seen = number;
                    for change in changes {
                        match change {
                            Change::Put(lease) => _ = self.book.insert(lease.client.clone(), lease),
                            Change::Forget(client) => _ = self.book.remove(&client),
                            Change::Hold(held) => _ = self.held.insert(held.ulid, held.until),
                            Change::Free(ulid) => _ = self.held.remove(&ulid),
                        }
                    }
                }
                News::Conflict(_) => self.conflicts += 1,
                News::Document(document, number) => {
                    self.seen = number;
                    self.documents.push(document);
                }
                News::Alone(_) | News::Name(_) => {}
                News::Unreadable(row) => panic!("{row}"),
            }
        }
    }

    /// As a server does: the book first, then the store.
    fn write(&mut self, changes: &[Change]) -> Verdict {
        for change in changes {
            match change {
                Change::Put(lease) => _ = self.book.insert(lease.client.clone(), lease.clone()),
                Change::Forget(client) => _ = self.book.remove(client),
                Change::Hold(_) | Change::Free(_) => {}
            }
        }
        let verdicts = self.store.write(&[Entry::Changes(changes, self.seen)]).unwrap();
        self.follow();
        verdicts[0].clone()
    }

    /// Until when an address is kept, as far as it has heard.
    fn until(&self, number: u64) -> Option<u64> {
        self.held.get(&ulid(number)).copied()
    }

    fn share(&mut self, text: &str) -> Verdict {
        let entry = Entry::Document("policy", Some(text.into()), self.seen);
        let verdict = self.store.write(&[entry]).unwrap()[0].clone();
        self.follow();
        verdict
    }

    /// Version, author and text of the last document it heard of.
    fn policy(&self) -> (u64, &str, &str) {
        let last = self.documents.last().unwrap();
        (last.version, &last.by, last.text.as_deref().unwrap())
    }

    fn reserve(&mut self, number: u64) -> Verdict {
        let verdict = self.store.write(&[Entry::Reserve(&identity(number))]).unwrap()[0].clone();
        self.follow();
        if verdict == Verdict::Written {
            self.stock.push(number);
        }
        verdict
    }
}

fn stored(memory: &Memory) -> BTreeMap<Client, Lease> {
    let all = memory.all();
    let leases = all.rows.iter().filter_map(|row| rows::lease_of(&row.key, Some(&row.value)));
    leases.map(|lease| (lease.client.clone(), lease)).collect()
}

/// Each address of a lease is its client's, and nobody's else.
fn check(memory: &Memory) {
    let leases = stored(memory);
    let of: BTreeMap<String, Client> =
        leases.values().map(|lease| (rows::address_key(lease.identity.ulid), lease.client.clone())).collect();
    assert_eq!(of.len(), leases.len(), "an address with two clients");
    for row in memory.all().rows.iter().filter(|row| row.key.starts_with(rows::ADDRESSES)) {
        match rows::owner_of(Some(&row.value)).unwrap() {
            Owner::Client(client) => assert_eq!(of.get(&row.key), Some(&client), "{}", row.key),
            Owner::Reserved { .. } => assert!(!of.contains_key(&row.key), "{} is reserved and somebody's", row.key),
        }
    }
}

#[test]
fn an_address_is_one_clients_whatever_two_boxes_decide_at_a_time() {
    let memory = Memory::default();
    let (mut one, mut two) = (Node::new(&memory, "one"), Node::new(&memory, "two"));
    // Neither has heard of the other.
    assert_eq!(one.write(&[Change::Put(lease(1, 5, END))]), Verdict::Written);
    assert!(matches!(two.write(&[Change::Put(lease(2, 5, END))]), Verdict::Refused(_)), "the same address");
    assert!(matches!(two.write(&[Change::Put(lease(1, 6, END))]), Verdict::Refused(_)), "the same client");
    check(&memory);
    assert_eq!(stored(&memory).len(), 1);
    // Who was refused has heard what stands instead.
    assert_eq!(two.book.get(&client(1)), Some(&lease(1, 5, END)));
    // And goes on with it.
    two.hear();
    assert_eq!(two.write(&[Change::Put(lease(1, 5, END + 7))]), Verdict::Written);
    one.hear();
    assert_eq!(one.book, stored(&memory));
}

#[test]
fn what_both_write_alike_is_written_once_and_refused_to_nobody() {
    let memory = Memory::default();
    let (mut one, mut two) = (Node::new(&memory, "one"), Node::new(&memory, "two"));
    one.write(&[Change::Put(lease(1, 5, END))]);
    two.hear();
    one.write(&[Change::Put(lease(1, 5, END + 10))]);
    // The client's message came to both, a second later to this one.
    assert_eq!(two.write(&[Change::Put(lease(1, 5, END + 11))]), Verdict::Written);
    assert_eq!(stored(&memory)[&client(1)].until, END + 11);
    let gone = Lease { state: State::Former, until: 7, ..lease(1, 5, END) };
    one.hear();
    one.write(&[Change::Put(gone.clone())]);
    assert_eq!(two.write(&[Change::Put(gone.clone())]), Verdict::Written);
    assert_eq!((two.conflicts, stored(&memory)[&client(1)].state), (0, State::Former));
}

#[test]
fn alone_a_box_gives_what_it_reserved_and_nothing_else_and_extends_what_it_knows() {
    let memory = Memory::default();
    let (mut one, mut two) = (Node::new(&memory, "one"), Node::new(&memory, "two"));
    one.write(&[Change::Put(lease(1, 1, END))]);
    assert_eq!(one.reserve(50), Verdict::Written);
    assert!(matches!(two.reserve(50), Verdict::Refused(_)), "it is one box's");
    one.wire.set(Line::Cut);
    assert_eq!(one.write(&[Change::Put(lease(1, 1, END + 100))]), Verdict::Written);
    assert_eq!(one.write(&[Change::Put(lease(2, 50, END))]), Verdict::Written);
    assert!(matches!(one.write(&[Change::Put(lease(3, 51, END))]), Verdict::Refused(_)), "it was not reserved");
    assert!(matches!(one.reserve(52), Verdict::Refused(_)));
    assert!(one.store.is_alone());
    assert_eq!(stored(&memory)[&client(1)].until, END, "nothing of it is in the cluster yet");
    // The other gives and extends meanwhile.
    two.hear();
    assert_eq!(two.write(&[Change::Put(lease(4, 70, END))]), Verdict::Written);
    one.wire.set(Line::Whole);
    one.hear_all();
    two.hear();
    check(&memory);
    assert_eq!(stored(&memory).keys().map(|client| client.iaid).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(stored(&memory)[&client(1)].until, END + 100);
    assert_eq!((one.store.unwritten(), one.conflicts), (0, 0));
    assert_eq!(two.book, stored(&memory));
}

#[test]
fn of_two_addresses_for_one_client_the_first_in_the_cluster_stands_and_the_other_is_kept_from_everybody() {
    let memory = Memory::default();
    let (mut one, mut two) = (Node::new(&memory, "one"), Node::new(&memory, "two"));
    one.reserve(10);
    two.reserve(20);
    one.wire.set(Line::Cut);
    assert_eq!(one.write(&[Change::Put(lease(1, 10, END))]), Verdict::Written);
    assert_eq!(two.write(&[Change::Put(lease(1, 20, END))]), Verdict::Written);
    one.wire.set(Line::Whole);
    one.hear_all();
    two.hear();
    check(&memory);
    assert_eq!(stored(&memory)[&client(1)].identity.ulid, ulid(20));
    assert_eq!((one.conflicts, two.conflicts), (1, 0));
    for node in [&one, &two] {
        assert_eq!(node.book, stored(&memory));
        assert!(node.held.contains_key(&ulid(10)));
    }
}

#[test]
fn an_extension_wins_over_an_end_and_a_forgotten_client_that_is_back_is_not_forgotten() {
    let memory = Memory::default();
    let (mut one, mut two) = (Node::new(&memory, "one"), Node::new(&memory, "two"));
    one.write(&[Change::Put(lease(1, 1, END)), Change::Put(lease(2, 2, END))]);
    two.hear();
    one.wire.set(Line::Cut);
    // Its time is over as far as this box knows.
    one.write(&[Change::Put(Lease { state: State::Former, ..lease(1, 1, END) }), Change::Forget(client(2))]);
    two.write(&[Change::Put(lease(1, 1, END + 50)), Change::Put(lease(2, 2, END + 50))]);
    one.wire.set(Line::Whole);
    one.hear_all();
    two.hear();
    check(&memory);
    let expected: BTreeMap<Client, Lease> =
        [lease(1, 1, END + 50), lease(2, 2, END + 50)].map(|lease| (lease.client.clone(), lease)).into();
    assert_eq!(stored(&memory), expected);
    assert_eq!(one.book, expected);
    assert_eq!(two.book, expected);
}

#[test]
fn what_was_written_and_not_confirmed_is_not_written_twice() {
    let memory = Memory::default();
    let mut one = Node::new(&memory, "one");
    one.reserve(9);
    one.wire.set(Line::Deaf);
    assert_eq!(one.write(&[Change::Put(lease(1, 9, END))]), Verdict::Written);
    assert!(one.store.is_alone() && stored(&memory).len() == 1);
    one.wire.set(Line::Whole);
    one.hear_all();
    assert_eq!((one.conflicts, one.store.unwritten()), (0, 0));
    assert_eq!(one.book, stored(&memory));
    check(&memory);
}

#[test]
fn what_was_given_alone_outlives_the_box_and_is_written_by_the_next_process() {
    let memory = Memory::default();
    let file = std::env::temp_dir().join(format!("pshim6-copy-{}.redb", std::process::id()));
    let _ = std::fs::remove_file(&file);
    let wire = memory.wire();
    let mut store = Shared::open(&file, "one", wire.clone()).unwrap();
    assert!(store.duid(&Duid::from_uuid([1; 16])).is_err(), "nothing is known, and nobody can be asked");
    store.hear(Heard::All(memory.all())).unwrap();
    let duid = store.duid(&Duid::from_uuid([1; 16])).unwrap();
    store.write(&[Entry::Reserve(&identity(3))]).unwrap();
    wire.set(Line::Cut);
    let put = [Change::Put(lease(1, 3, END))];
    assert_eq!(store.write(&[Entry::Changes(&put, 0)]).unwrap(), [Verdict::Written]);
    drop(store);
    // Without the cluster it knows what it knew.
    let mut store = Shared::open(&file, "one", wire.clone()).unwrap();
    assert_eq!(store.duid(&Duid::from_uuid([2; 16])).unwrap(), duid);
    assert_eq!(store.load().unwrap().leases, [lease(1, 3, END)]);
    wire.set(Line::Whole);
    store.hear(Heard::All(memory.all())).unwrap();
    assert_eq!(stored(&memory)[&client(1)], lease(1, 3, END));
    // A cluster that was emptied, or another site's, is not believed.
    drop(store);
    let mut store = Shared::open(&file, "one", wire.clone()).unwrap();
    store.hear(Heard::All(Snapshot::default())).unwrap();
    assert!(store.alone().unwrap().contains("it is empty"), "{:?}", store.alone());
    assert_eq!(store.load().unwrap().leases.len(), 1);
    let mut other = memory.all();
    other.rows.iter_mut().filter(|row| row.key == rows::DUID).for_each(|row| row.value = "00040102".into());
    store.hear(Heard::All(other)).unwrap();
    assert!(store.alone().unwrap().contains("another site's"));
    let mut newer = memory.all();
    newer.rows.iter_mut().filter(|row| row.key == rows::VERSION).for_each(|row| row.value = "2".into());
    store.hear(Heard::All(newer)).unwrap();
    assert!(store.alone().unwrap().contains("of version 2"));
    // Nor is what is written there afterwards, until it is itself again.
    let gone = |keys: &[&str]| Events {
        revision: 1 << 40,
        rows: keys.iter().map(|key| ((*key).to_owned(), None, 1 << 40)).collect(),
    };
    let lease_row = memory.all().rows.iter().find(|row| row.key.starts_with("leases/")).unwrap().key.clone();
    store.hear(Heard::Since(gone(&[&lease_row]))).unwrap();
    assert!(store.is_refused() && store.load().unwrap().leases.len() == 1);
    store.hear(Heard::All(memory.all())).unwrap();
    assert!(!store.is_refused() && store.alone().is_none(), "{:?}", store.alone());
    // One that is emptied while it is watched.
    store.hear(Heard::Since(gone(&[&lease_row, rows::DUID]))).unwrap();
    assert!(store.is_refused() && store.alone().is_some());
    assert_eq!(store.load().unwrap().leases.len(), 1);
    assert_eq!(store.duid(&Duid::from_uuid([2; 16])).unwrap(), duid);
    drop(store);
    let _ = std::fs::remove_file(&file);
}

#[test]
fn many_changes_are_as_many_transactions_as_it_takes() {
    let memory = Memory::default();
    let (mut one, mut two) = (Node::new(&memory, "one"), Node::new(&memory, "two"));
    let puts: Vec<Vec<Change>> = (1..=300).map(|number| vec![Change::Put(lease(number, number.into(), END))]).collect();
    let before = memory.all().revision;
    let entries: Vec<Entry<'_>> = puts.iter().map(|changes| Entry::Changes(changes, 0)).collect();
    assert!(one.store.write(&entries).unwrap().iter().all(|verdict| *verdict == Verdict::Written));
    let transactions = memory.all().revision - before;
    assert!((5..=6).contains(&transactions), "{transactions}");
    two.hear();
    assert_eq!(two.book.len(), 300);
    let all: Vec<Change> = puts
        .into_iter()
        .flatten()
        .map(|change| match change {
            Change::Put(lease) => Change::Forget(lease.client),
            other => other,
        })
        .collect();
    assert_eq!(one.write(&all), Verdict::Written);
    two.hear();
    assert!(two.book.is_empty() && stored(&memory).is_empty());
    check(&memory);
}

#[test]
fn a_store_moves_into_the_cluster_and_back_without_loss() {
    let file = std::env::temp_dir().join(format!("pshim6-moves-{}.redb", std::process::id()));
    let back = file.with_extension("back");
    [&file, &back].map(std::fs::remove_file).into_iter().for_each(|it| _ = it);
    let mut own = Store::open(&file).unwrap();
    own.duid(&Duid::from_uuid([3; 16])).unwrap();
    let leases: Vec<Lease> = (1..=150).map(crate::store::tests::made_lease).collect();
    own.commit(&leases.iter().cloned().map(Change::Put).collect::<Vec<_>>()).unwrap();
    let held = Held { ulid: ulid(7), locators: vec![], until: 9, declined: true };
    own.commit(&[Change::Hold(held)]).unwrap();
    let sorted = |mut export: Export| {
        export.stored.leases.sort_by(|a, b| a.client.cmp(&b.client));
        export
    };
    let export = Storage::export(&mut own).unwrap();
    let memory = Memory::default();
    let mut shared = Shared::passing("one", memory.wire()).unwrap();
    assert!(shared.import(&export).is_err(), "it was not asked what it has");
    shared.hear(Heard::All(memory.all())).unwrap();
    shared.import(&export).unwrap();
    check(&memory);
    // Another box finds all of it.
    let mut other = Shared::passing("two", memory.wire()).unwrap();
    other.hear(Heard::All(memory.all())).unwrap();
    let again = other.export().unwrap();
    assert_eq!(sorted(again.clone()), sorted(export.clone()));
    assert!(matches!(other.import(&export), Err(crate::store::ExportError::NotEmpty(151))));
    let mut own = Store::open(&back).unwrap();
    Storage::import(&mut own, &again).unwrap();
    assert_eq!(sorted(Storage::export(&mut own).unwrap()), sorted(export));
    [&file, &back].map(std::fs::remove_file).into_iter().for_each(|it| _ = it);
}

#[test]
fn a_file_that_one_box_changes_reaches_the_other_with_a_version_and_the_second_of_two_is_refused() {
    let memory = Memory::default();
    let (mut one, mut two) = (Node::new(&memory, "one"), Node::new(&memory, "two"));
    assert_eq!(one.share("first"), Verdict::Written);
    two.hear();
    assert_eq!((one.policy(), two.policy()), ((1, "one", "first"), (1, "one", "first")));
    assert_eq!(two.share("second"), Verdict::Written);
    // This one has not heard of it.
    assert!(matches!(one.share("other"), Verdict::Refused(reason) if reason.contains("box two")));
    assert_eq!(one.policy(), (2, "two", "second"));
    // Now it has.
    assert_eq!(one.share("third"), Verdict::Written);
    two.hear();
    assert_eq!(two.policy(), (3, "one", "third"));
    // The same words are no change.
    assert_eq!(two.share("third"), Verdict::Written);
    assert_eq!(memory.all().rows.iter().filter(|row| row.key == "site/policy").count(), 1);
    // Alone: said twice, it is one change when it is told.
    one.wire.set(Line::Cut);
    assert_eq!(one.share("fourth"), Verdict::Written);
    assert_eq!(one.share("fifth"), Verdict::Written);
    one.wire.set(Line::Whole);
    one.hear_all();
    two.hear();
    assert_eq!((one.policy(), two.policy()), ((4, "one", "fifth"), (4, "one", "fifth")));
    // Alone, and the other was first.
    one.wire.set(Line::Cut);
    assert_eq!(one.share("sixth"), Verdict::Written);
    assert_eq!(two.share("of two"), Verdict::Written);
    one.wire.set(Line::Whole);
    one.hear_all();
    assert_eq!((one.policy(), one.conflicts), ((5, "two", "of two"), 1));
    assert_eq!(one.store.unwritten(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Reserve(usize),
    /// A client asks a box for an address, or for more time.
    Ask(usize, u32, u64),
    Release(usize, u32),
    Expire(usize, u32),
    Line(usize, Line),
    Hear(usize),
    HearAll(usize),
    /// The two halves of it, with anything in between.
    Read(usize),
    Deliver(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = 0..2_usize;
    let line = prop_oneof![3 => Just(Line::Whole), 2 => Just(Line::Cut), 1 => Just(Line::Deaf)];
    let step = prop_oneof![
        3 => node.clone().prop_map(Step::Reserve),
        8 => (node.clone(), 0..4_u32, 1..500_u64).prop_map(|(node, who, time)| Step::Ask(node, who, time)),
        2 => (node.clone(), 0..4_u32).prop_map(|(node, who)| Step::Release(node, who)),
        1 => (node.clone(), 0..4_u32).prop_map(|(node, who)| Step::Expire(node, who)),
        3 => (node.clone(), line).prop_map(|(node, line)| Step::Line(node, line)),
        4 => node.clone().prop_map(Step::Hear),
        2 => node.clone().prop_map(Step::HearAll),
        2 => node.clone().prop_map(Step::Read),
        3 => node.prop_map(Step::Deliver),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever two boxes do, with lines that break: no address is told to two clients, and in the end both know what the
    /// cluster has, in which nothing is missing that a client was told and that nobody ended.
    #[test]
    fn two_boxes_agree_in_the_end_and_never_give_one_address_to_two(steps in steps()) {
        let memory = Memory::default();
        let mut nodes = [Node::new(&memory, "one"), Node::new(&memory, "two")];
        nodes[0].hear();
        let (mut next, mut told, mut ended) = (100_u64, BTreeMap::<Ipv6Addr, (Client, u64)>::new(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Reserve(at) => {
                    next += 1;
                    nodes[at].reserve(next);
                }
                Step::Ask(at, who, time) => {
                    let known = nodes[at].book.get(&client(who)).cloned();
                    let wanted = match known {
                        Some(known) => Lease { state: State::Bound, until: known.until.max(END) + time, ..known },
                        None => {
                            let alone = nodes[at].store.is_alone();
                            next += 1;
                            let Some(number) = nodes[at].stock.pop().or_else(|| (!alone).then_some(next)) else { continue };
                            lease(who, number, END + time)
                        }
                    };
                    if nodes[at].write(&[Change::Put(wanted.clone())]) == Verdict::Written {
                        let entry = told.entry(wanted.identity.ulid).or_insert((wanted.client.clone(), 0));
                        prop_assert_eq!(&entry.0, &wanted.client, "{} was told to two", wanted.identity.ulid);
                        entry.1 = entry.1.max(wanted.until);
                    }
                }
                Step::Release(at, who) | Step::Expire(at, who) => {
                    let known = nodes[at].book.get(&client(who)).cloned();
                    if let Some(known) = known.filter(|known| known.state == State::Bound) {
                        let until = if matches!(step, Step::Release(..)) { 7 } else { known.until };
                        ended.insert(known.identity.ulid);
                        nodes[at].write(&[Change::Put(Lease { state: State::Former, until, ..known })]);
                    }
                }
                Step::Line(at, line) => nodes[at].wire.set(line),
                Step::Hear(at) => {
                    // Nothing comes by a line that is cut.
                    if nodes[at].wire.line() == Line::Whole && !nodes[at].store.is_alone() {
                        nodes[at].hear();
                    }
                }
                Step::HearAll(at) => {
                    if nodes[at].wire.line() == Line::Whole {
                        nodes[at].hear_all();
                    }
                }
                Step::Read(at) => {
                    if nodes[at].wire.line() == Line::Whole {
                        nodes[at].read_all();
                    }
                }
                Step::Deliver(at) => nodes[at].deliver(),
            }
            check(&memory);
        }
        for node in &mut nodes {
            node.wire.set(Line::Whole);
            node.hear_all();
        }
        for node in &mut nodes {
            node.hear();
        }
        check(&memory);
        let leases = stored(&memory);
        for node in &nodes {
            prop_assert_eq!(node.store.unwritten(), 0);
            prop_assert_eq!(&node.book, &leases);
        }
        for (address, (client, until)) in told {
            let stands = leases.get(&client).is_some_and(|lease| lease.identity.ulid == address);
            let lease = leases.get(&client);
            if ended.contains(&address) {
                continue;
            }
            // It has this one still, for as long as it was told, or another one that was told to it and stands instead.
            prop_assert!(lease.is_some(), "{client:?} has nothing, and was told {address}");
            if stands {
                prop_assert!(lease.is_some_and(|lease| lease.until >= until && lease.state == State::Bound));
            } else {
                let kept = nodes.iter().all(|node| node.held.contains_key(&address));
                let made_way = lease.is_some_and(|lease| lease.identity.ulid != address);
                prop_assert!(kept || made_way);
            }
        }
    }
}
