//! The store, and what is left of it when its process is killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::export::UNTIL_MAX;
use super::*;
use crate::dhcp::{Identity, State};
use crate::identity::{HostPrefixes, Sec, make_host};

fn scratch(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("pshim6-store-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory.join("store.redb")
}

/// One with addresses that are proved.
pub(super) fn made_lease(number: u32) -> Lease {
    lease(number, 10)
}

fn lease(number: u32, until: u64) -> Lease {
    let prefixes =
        HostPrefixes { ulid: [0xfc, 0, 0, 0xa, 0, 0, 0, 1], locators: vec![[0x20, 1, 0xd, 0xb8, 0, 1, 0, 1]] };
    let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(number.into());
    let made = make_host(&prefixes, Sec::ZERO, None, &mut rng).unwrap();
    Lease {
        client: Client { duid: Duid::new(&[&[0, 3][..], &number.to_be_bytes()].concat()).unwrap(), iaid: number },
        name: format!("host-{number}"),
        identity: Identity { ulid: made.ulid.0, locators: vec![made.locators[0].0], pds: made.pds },
        state: State::Bound,
        until,
        via: "fe80::1".parse().unwrap(),
        relayed: false,
    }
}

fn held(number: u16) -> Held {
    Held { ulid: Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, number), locators: Vec::new(), until: 7, declined: true }
}

#[test]
fn what_is_written_is_there_when_it_is_opened_again() {
    let file = scratch("again");
    let fresh = Duid::from_uuid([1; 16]);
    let store = Store::open(&file).unwrap();
    assert_eq!(store.duid(&fresh).unwrap(), fresh);
    let put: Vec<Change> = (1..=3).map(|number| Change::Put(lease(number, 10))).collect();
    store.commit(&put).unwrap();
    store.commit(&[Change::Put(lease(2, 20)), Change::Forget(lease(3, 0).client), Change::Hold(held(1))]).unwrap();
    store.commit(&[Change::Hold(held(2)), Change::Free(held(1).ulid)]).unwrap();
    drop(store);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let mut store = Store::open_existing(&file).unwrap();
    // The name it was given first stays.
    assert_eq!(store.duid(&Duid::from_uuid([2; 16])).unwrap(), fresh);
    let expected = Stored { leases: vec![lease(1, 10), lease(2, 20)], quarantine: vec![held(2)] };
    assert_eq!(store.load().unwrap(), expected);
    assert!(store.check().unwrap());
}

#[test]
fn one_process_has_it_and_nobody_else_may_read_it() {
    let file = scratch("one");
    let store = Store::open(&file).unwrap();
    assert!(matches!(Store::open(&file), Err(StoreError::InUse { .. })));
    drop(store);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Store::open(&file), Err(StoreError::Mode { mode: 0o640, .. })));
    assert!(matches!(Store::open_existing(&file.with_extension("none")), Err(StoreError::Open { .. })));
    assert!(!file.with_extension("none").exists());
}

/// Whoever made a store made it whole, so that an empty file is what was left of one.
#[test]
fn an_empty_file_is_no_new_store() {
    let file = scratch("empty");
    Store::open(&file).unwrap().commit(&[Change::Put(lease(1, 10))]).unwrap();
    fs::File::create(&file).unwrap();
    for opened in [Store::open(&file), Store::open_existing(&file)] {
        assert!(matches!(opened, Err(StoreError::Empty { .. })));
    }
    assert_eq!(fs::metadata(&file).unwrap().len(), 0, "nothing was done to it");
}

#[test]
fn an_older_format_is_brought_up_to_date_and_a_newer_one_refused() {
    let file = scratch("versions");
    Store::open(&file).unwrap().commit(&[Change::Put(lease(1, 10))]).unwrap();
    // A version in which leases end later.
    fn later(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut leases = transaction.open_table(LEASES)?;
        let all: Vec<(Vec<u8>, String)> = leases
            .iter()?
            .map(|row| row.map(|(key, value)| (key.value().to_vec(), value.value().to_owned())))
            .collect::<Result<_, _>>()?;
        for (key, value) in all {
            let value = value.replace("\"until\":10", "\"until\":11");
            leases.insert(&key[..], value.as_str())?;
        }
        Ok(())
    }
    fn broken(_: &WriteTransaction) -> Result<(), redb::Error> {
        Err(redb::Error::Corrupted("no".into()))
    }
    // A step that fails leaves everything as it was, the one before it included.
    assert!(Store::open_with(&file, &[later, broken]).is_err());
    assert_eq!(Store::open(&file).unwrap().load().unwrap().leases[0].until, 10);
    let newer = Store::open_with(&file, &[later]).unwrap();
    assert_eq!(newer.load().unwrap().leases[0].until, 11);
    drop(newer);
    assert!(Store::open_with(&file, &[later]).is_ok(), "once is enough");
    assert!(matches!(Store::open(&file), Err(StoreError::Newer { found: 2, .. })));
}

#[test]
fn an_export_is_taken_in_whole_by_an_empty_store() {
    let [from, to] = ["from", "to"].map(scratch);
    let mut store = Store::open(&from).unwrap();
    store.duid(&Duid::from_uuid([1; 16])).unwrap();
    store.commit(&[Change::Put(lease(1, 10)), Change::Put(lease(2, 10)), Change::Hold(held(1))]).unwrap();
    let export = store.export().unwrap();
    let text = serde_json::to_string(&export).unwrap();
    let read: Export = serde_json::from_str(&text).unwrap();
    assert_eq!(read, export);
    let mut other = Store::open(&to).unwrap();
    type Spoil = fn(&mut Stored);
    let spoilt: [(&str, Spoil); 9] = [
        ("leases[1].identity.locators[0]: 2001:db8:1:1:", |it| {
            it.leases[1].identity.locators = it.leases[0].identity.locators.clone();
        }),
        ("leases[0].identity.pds: does not prove fc00:a:0:1:", |it| it.leases[0].identity.pds[5] ^= 1),
        ("leases[1].client: 0003", |it| it.leases[1].client = it.leases[0].client.clone()),
        ("leases[1].name: host-1 is at leases[0].name already", |it| it.leases[1].name = "host-1".into()),
        ("leases[1].until: 18446744073709551615 seconds", |it| it.leases[1].until = u64::MAX),
        ("quarantine[1].ulid: fc00::1 is at quarantine[0].ulid already", |it| it.quarantine.push(held(1))),
        ("quarantine[0].until: ", |it| it.quarantine[0].until = UNTIL_MAX + 1),
        ("quarantine[0].ulid: fc00:a:0:1:", |it| it.quarantine[0].ulid = it.leases[1].identity.ulid),
        ("quarantine[0].locators[1]: fc00::1 is at quarantine[0].ulid already", |it| {
            it.quarantine[0].locators = vec!["2001:db8::1".parse().unwrap(), it.quarantine[0].ulid];
        }),
    ];
    for (text, spoil) in spoilt {
        let mut wrong = export.clone();
        spoil(&mut wrong.stored);
        let said = other.import(&wrong).unwrap_err().to_string();
        assert!(said.starts_with(text), "{said}");
    }
    assert!(matches!(other.import(&Export { version: 9, ..export.clone() }), Err(ExportError::Version(9))));
    assert_eq!(other.load().unwrap(), Stored::default());
    other.import(&export).unwrap();
    assert_eq!(other.export().unwrap(), export);
    assert!(matches!(other.import(&export), Err(ExportError::NotEmpty(3))));
}

#[test]
fn rows_nobody_can_read_stop_the_store() {
    let file = scratch("rows");
    let store = Store::open(&file).unwrap();
    let text = json(&lease(1, 10));
    let put = |key: &[u8], text: &str| {
        store
            .write(|transaction| transaction.open_table(LEASES)?.insert(key, text).map(drop).map_err(Into::into))
            .unwrap();
    };
    put(&[1, 2], &text);
    assert!(store.load().unwrap_err().to_string().contains("in another's place"));
    store.write(|it| it.open_table(LEASES)?.remove(&[1, 2][..]).map(drop).map_err(Into::into)).unwrap();
    put(&key_of(&lease(1, 10).client), "{}");
    assert!(matches!(store.load(), Err(StoreError::Damaged { .. })));
}

/// Writes for as long as it lives, and says what it has written.
#[test]
#[ignore = "run by a_writer_that_is_killed_loses_nothing_it_has_told in a process of its own"]
fn writer() {
    let file = PathBuf::from(std::env::var("PSHIM6_TEST_STORE").unwrap());
    let round: u64 = std::env::var("PSHIM6_TEST_ROUND").unwrap().parse().unwrap();
    let store = Store::open(&file).unwrap();
    for step in 0u64.. {
        // Of two leases that change together neither is seen without the other.
        let number = (step % 20) as u32 * 2;
        let until = round * 1_000_000 + step;
        store.commit(&[Change::Put(lease(number, until)), Change::Put(lease(number + 1, until))]).unwrap();
        println!("told {number} {until}");
    }
}

#[test]
fn a_writer_that_is_killed_loses_nothing_it_has_told() {
    let file = scratch("killed");
    let mut told: BTreeMap<u32, u64> = BTreeMap::new();
    for round in 0..20u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::writer", "--ignored", "--nocapture", "--test-threads=1"])
            .env("PSHIM6_TEST_STORE", &file)
            .env("PSHIM6_TEST_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut hear = |line: String| {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["told", number, until] = words[..] {
                told.insert(number.parse().unwrap(), until.parse().unwrap());
            }
        };
        // Into the first commits, and then anywhere within some of them.
        for _ in 0..1 + round % 7 {
            hear(lines.next().unwrap().unwrap());
        }
        std::thread::sleep(Duration::from_micros(round * 977 % 5000));
        child.kill().unwrap();
        child.wait().unwrap();
        lines.map_while(Result::ok).for_each(hear);
        let mut store = Store::open(&file).unwrap();
        store.check().unwrap();
        let leases: BTreeMap<u32, Lease> =
            store.load().unwrap().leases.into_iter().map(|lease| (lease.client.iaid, lease)).collect();
        for (number, until) in &told {
            assert!(leases[number].until >= *until, "round {round}: {number} was told");
        }
        for (number, lease) in leases.iter().filter(|(number, _)| *number % 2 == 0) {
            assert_eq!(lease.until, leases[&(number + 1)].until, "round {round}: half of a commit");
        }
    }
    assert!(told.len() > 3, "{told:?}");
}

/// Where the test below finds its store.
const DAMAGED: &str = "PSHIM6_TEST_DAMAGED_STORE";

#[test]
#[ignore = "run by damage_is_said_and_with_the_name_of_the_file in a process of its own"]
fn reads_a_store_that_may_be_damaged() {
    crate::driver::name_damaged_stores();
    let file = std::path::PathBuf::from(std::env::var_os(DAMAGED).expect("begun by another test"));
    if let Err(error) = Store::open_existing(&file).and_then(|mut store| store.check()) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

/// Whatever page is gone: the store is whole without it, or it is said which file cannot be read.
#[test]
fn damage_is_said_and_with_the_name_of_the_file() {
    const PAGE: usize = 4096;
    let file = scratch("pages");
    let store = Store::open(&file).unwrap();
    for number in 1..=12 {
        store.commit(&[Change::Put(lease(number, 10)), Change::Hold(held(number as u16))]).unwrap();
    }
    drop(store);
    let whole = fs::read(&file).unwrap();
    let mut refused = 0;
    for page in 0..whole.len() / PAGE {
        let mut octets = whole.clone();
        octets[page * PAGE..][..PAGE].fill(0);
        fs::write(&file, octets).unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "store::tests::reads_a_store_that_may_be_damaged", "--nocapture"])
            .env(DAMAGED, &file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        match child.status.code() {
            Some(0) => {}
            Some(1) if said.contains(&*file.to_string_lossy()) => refused += 1,
            code => panic!("page {page}: {code:?}: {said}"),
        }
    }
    assert!(refused > 5, "{refused} pages");
}
