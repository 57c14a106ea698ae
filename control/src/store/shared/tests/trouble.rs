//! Answers that are lost, crashes, rows that are too long, clocks that differ, and boxes of one name.

use super::*;

#[test]
fn what_was_read_before_a_write_whose_answer_was_lost_is_not_believed() {
    let memory = Memory::default();
    let mut one = Node::new(&memory, "one");
    one.reserve(9);
    one.read_all();
    // Written after that was read, the one confirmed, the other not.
    assert_eq!(one.write(&[Change::Put(lease(1, 9, END))]), Verdict::Written);
    one.wire.set(Line::Deaf);
    assert_eq!(one.write(&[Change::Put(lease(1, 9, END + 5))]), Verdict::Written);
    one.wire.set(Line::Whole);
    one.deliver();
    assert_eq!(one.book, stored(&memory), "a lease that was confirmed was forgotten");
    assert!(one.store.is_alone(), "everything has to be read again");
    // The address is not this box's to give any more.
    one.wire.set(Line::Cut);
    assert!(matches!(one.write(&[Change::Put(lease(2, 9, END))]), Verdict::Refused(_)));
    one.wire.set(Line::Whole);
    one.read_all();
    one.deliver();
    assert!(!one.store.is_alone());
    assert_eq!((one.book.clone(), one.store.unwritten(), one.conflicts), (stored(&memory), 0, 0));
    assert_eq!(one.book[&client(1)].until, END + 5);
    check(&memory);
}

/// A box with its copy on a disk, and that disk as it would be found if the machine lost its power now.
struct Disk {
    file: std::path::PathBuf,
}

impl Disk {
    fn new(name: &str) -> Disk {
        let file = std::env::temp_dir().join(format!("pshim6-disk-{}-{name}.redb", std::process::id()));
        let _ = std::fs::remove_file(&file);
        Disk { file }
    }

    fn open(&self, wire: &Wire) -> Shared<Wire> {
        Shared::open(&self.file, "one", wire.clone()).unwrap()
    }

    /// What is in the file without what was not told to be on disk.
    fn crashed(&self, name: &str) -> Disk {
        let disk = Disk::new(name);
        std::fs::copy(&self.file, &disk.file).unwrap();
        disk
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

#[test]
fn what_was_written_alone_does_not_come_back_after_a_crash_when_somebody_has_ended_it() {
    let memory = Memory::default();
    let (disk, wire) = (Disk::new("ended"), memory.wire());
    let mut two = Node::new(&memory, "two");
    two.write(&[Change::Put(lease(2, 2, END))]);
    let mut one = disk.open(&wire);
    one.hear(Heard::All(memory.all())).unwrap();
    one.write(&[Entry::Reserve(&identity(9)), Entry::Reserve(&identity(8))]).unwrap();
    // Alone: two new clients, and one that is extended, of which the other box knows better.
    wire.set(Line::Cut);
    let alone = [Change::Put(lease(1, 9, END)), Change::Put(lease(3, 8, END)), Change::Put(lease(2, 2, END + 5))];
    for change in &alone {
        assert_eq!(one.write(&[Entry::Changes(std::slice::from_ref(change), 0)]).unwrap(), [Verdict::Written]);
    }
    two.write(&[Change::Put(lease(2, 2, END + 50))]);
    wire.set(Line::Whole);
    one.hear(Heard::All(memory.all())).unwrap();
    assert_eq!((one.unwritten(), stored(&memory).len()), (0, 3));
    let early = disk.crashed("early");
    // One client is forgotten by this box itself, the others by the other one.
    one.write(&[Entry::Changes(&[Change::Forget(client(3))], u64::MAX)]).unwrap();
    let late = disk.crashed("late");
    two.hear();
    two.write(&[Change::Forget(client(1)), Change::Forget(client(2))]);
    assert_eq!(stored(&memory), BTreeMap::new());
    drop(one);
    for disk in [early, late, disk] {
        let mut one = disk.open(&memory.wire());
        assert_eq!(one.unwritten(), 0, "the disk does not know that it was written");
        one.hear(Heard::All(memory.all())).unwrap();
        assert_eq!(stored(&memory), BTreeMap::new(), "ended, and there again");
        assert!(one.load().unwrap().leases.is_empty());
    }
}

#[test]
fn what_goes_to_the_cluster_at_a_time_is_bounded_in_octets() {
    let memory = Memory::default();
    let (mut one, mut two) = (Node::new(&memory, "one"), Node::new(&memory, "two"));
    let long = |letter: &str| Some(letter.repeat(TEXT_MAX - 1000));
    let entries = [Entry::Document("hosts", long("a"), 0), Entry::Document("policy", long("b"), 0)];
    assert_eq!(one.store.write(&entries).unwrap(), [Verdict::Written, Verdict::Written]);
    assert!(!one.store.is_alone());
    // One that no transaction could hold is refused, and nothing else is for that.
    let entries =
        [Entry::Document("hosts", Some("\"".repeat(TEXT_MAX - 1000)), u64::MAX), Entry::Reserve(&identity(5))];
    let verdicts = one.store.write(&entries).unwrap();
    assert!(matches!(&verdicts[0], Verdict::Refused(reason) if reason.contains("too long")), "{verdicts:?}");
    assert_eq!(verdicts[1], Verdict::Written);
    assert!(!one.store.is_alone());
    assert!(may_be_shared(&long("a").unwrap()) && !may_be_shared(&"\"".repeat(TEXT_MAX - 1000)));
    // Leases with as much as a lease can have, all in one change.
    let large = |number: u32| {
        let mut lease = lease(number, number.into(), END);
        lease.identity.pds = vec![255; 6000];
        Change::Put(lease)
    };
    let puts: Vec<Change> = (100..200).map(large).collect();
    assert_eq!(two.write(&puts), Verdict::Written);
    assert_eq!(stored(&memory).len(), 100);
    check(&memory);
}

#[test]
fn a_quarantine_is_as_long_as_the_longest_that_a_box_wants() {
    let memory = Memory::default();
    let (mut one, mut two) = (Node::new(&memory, "one"), Node::new(&memory, "two"));
    let held = |until, declined| Held { ulid: ulid(7), locators: vec![], until, declined };
    let in_store = || {
        let all = memory.all();
        all.rows.iter().find_map(|row| rows::held_of(&row.key, Some(&row.value)))
    };
    one.write(&[Change::Hold(held(1000, false))]);
    two.hear();
    // Its setting is another one, or its clock is.
    assert_eq!(two.write(&[Change::Hold(held(500, true))]), Verdict::Written);
    assert_eq!(in_store(), Some(held(1000, true)));
    assert_eq!(two.until(7), Some(1000), "it was told what stands");
    assert_eq!(two.write(&[Change::Hold(held(1500, false))]), Verdict::Written);
    assert_eq!(in_store().unwrap().until, 1500);
    // Who has not heard of it does not end it, nor make it shorter when it is back.
    one.write(&[Change::Free(ulid(7))]);
    assert_eq!(in_store().unwrap().until, 1500);
    one.hear();
    one.wire.set(Line::Cut);
    one.write(&[Change::Hold(held(1200, false))]);
    two.write(&[Change::Hold(held(2000, false))]);
    one.wire.set(Line::Whole);
    one.hear_all();
    assert_eq!(in_store().unwrap().until, 2000);
    assert_eq!(one.until(7), Some(2000));
}

/// A row as boxes read it that knew names and nothing else: what is there is all there may be.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
#[allow(dead_code, reason = "what it was")]
enum OldOwner {
    Client(Client),
    Reserved { by: String, identity: Identity },
}

#[test]
fn what_is_reserved_is_read_by_boxes_before_and_after_they_told_themselves_apart() {
    let memory = Memory::default();
    let mut one = Node::new(&memory, "same");
    one.store.identify("first").unwrap();
    one.reserve(5);
    let key = rows::address_key(ulid(5));
    let row = |memory: &Memory| memory.all().rows.into_iter().find(|row| row.key == key).map(|row| row.value);
    let value = row(&memory).unwrap();
    // An older one can read it, and does not take it for its own: two could give it.
    match serde_json::from_str::<OldOwner>(&value) {
        Ok(OldOwner::Reserved { by, identity: found }) => assert!(by != "same" && found == identity(5), "{by}"),
        _ => panic!("{value} is nothing to an older box"),
    }
    assert_eq!(one.store.reserved().unwrap(), [identity(5)]);
    // What was reserved before is every box's of that name, and what a version in between wrote is this one's.
    let identity_of = |number: u64| serde_json::to_value(identity(number)).unwrap();
    let before = serde_json::json!({ "reserved": { "by": "same", "identity": identity_of(6) } });
    let between = |number, instance| serde_json::json!({ "reserved": { "by": "same", "instance": instance, "identity": identity_of(number) } });
    let texts = [(6, before), (7, between(7, "first")), (8, between(8, "second"))];
    let written = texts.map(|(number, value)| (rows::address_key(ulid(number)), 0, Some(value.to_string())));
    memory.wire().transact(&Transaction { rows: written.to_vec() }).unwrap();
    one.hear();
    let mut found = one.store.reserved().unwrap();
    found.sort_by_key(|it| it.ulid);
    assert_eq!(found, [identity(5), identity(6), identity(7)]);
    let mut two = Node::new(&memory, "same");
    two.store.identify("second").unwrap();
    let mut found = two.store.reserved().unwrap();
    found.sort_by_key(|it| it.ulid);
    assert_eq!(found, [identity(6), identity(8)]);
    // It is given back, and given, as before.
    assert_eq!(one.write(&[Change::Put(lease(1, 7, END))]), Verdict::Written);
    assert!(one.store.write(&[Entry::Release(ulid(5))]).unwrap() == [Verdict::Written] && row(&memory).is_none());
    check(&memory);
}

#[test]
fn two_boxes_of_one_name_do_not_give_what_is_reserved_for_the_other() {
    let memory = Memory::default();
    let (mut one, mut two) = (Node::new(&memory, "same"), Node::new(&memory, "same"));
    assert_eq!(one.store.identify("first").unwrap(), "first");
    assert_eq!(one.store.identify("another").unwrap(), "first", "it is in the copy");
    two.store.identify("second").unwrap();
    one.reserve(5);
    two.hear();
    assert_eq!((one.store.reserved().unwrap().len(), two.store.reserved().unwrap().len()), (1, 0));
    for node in [&one, &two] {
        node.wire.set(Line::Cut);
    }
    assert!(matches!(two.write(&[Change::Put(lease(2, 5, END))]), Verdict::Refused(_)), "it is the other's to give");
    assert_eq!(one.write(&[Change::Put(lease(1, 5, END))]), Verdict::Written);
    for node in [&mut one, &mut two] {
        node.wire.set(Line::Whole);
        node.hear_all();
    }
    check(&memory);
    // One that takes the place of a box whose copy is lost gives back what that one had.
    one.reserve(6);
    two.hear();
    two.store.hear(Heard::Name(Some("another box".into()))).unwrap();
    assert!(memory.all().rows.iter().any(|row| row.key == rows::address_key(ulid(6))));
    two.store.hear(Heard::Name(None)).unwrap();
    assert!(!memory.all().rows.iter().any(|row| row.key == rows::address_key(ulid(6))));
    // Should that one be there after all, it does not give it either once it has heard.
    one.hear();
    one.wire.set(Line::Cut);
    assert!(matches!(one.write(&[Change::Put(lease(3, 6, END))]), Verdict::Refused(_)));
}
