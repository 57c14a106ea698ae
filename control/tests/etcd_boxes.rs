//! Boxes at a real `etcd`: whose a name is, papers that change while they talk, connections that die, and rows that nobody can
//! read.

#[allow(dead_code, reason = "other tests use more of it")]
mod certificates;
#[allow(dead_code, reason = "other tests use more of it")]
mod etcd_cluster;

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use certificates::Authority;
use control::config::Cluster as Place;
use control::config::cluster::Access;
use control::dhcp::Duid;
use control::store::shared::claim::{Claim, LIFE_S};
use control::store::shared::etcd::{Client, Settings};
use control::store::shared::{Cluster, Done, Heard, Shared, Transaction};
use control::store::{Entry, News, Storage, Verdict};
use etcd_cluster::Etcd;

const BRIEF: Duration = Duration::from_millis(200);

fn row(key: &str, revision: u64, value: &str) -> Transaction {
    Transaction { rows: vec![(key.to_owned(), revision, Some(value.to_owned()))] }
}

fn claim(instance: &str, process: &str) -> Claim {
    Claim::new("a1", instance.into(), process.into(), format!("machine-{process}"))
}

#[test]
fn a_name_is_one_boxs_for_as_long_as_that_one_lives() {
    if !etcd_cluster::is_there() {
        return;
    }
    let etcd = Etcd::start("names", 1);
    let mut client = etcd.connect();
    let mut first = claim("one", "p1");
    assert_eq!(first.hold(&mut client), Ok(None));
    assert_eq!(first.hold(&mut client), Ok(None), "it is kept");
    let mut other = claim("two", "p2");
    let rival = other.hold(&mut client).unwrap().unwrap();
    assert!(rival.contains("machine-p1") && rival.contains("\"a1\""), "{rival}");
    // Another name is another matter.
    assert_eq!(Claim::new("a2", "two".into(), "p2".into(), String::new()).hold(&mut client), Ok(None));
    // The next process of the same box takes it over at once, whether the one before has ended or not (an upgrade).
    let mut second = claim("one", "p3");
    assert_eq!(second.hold(&mut client), Ok(None));
    assert!(first.hold(&mut client).unwrap().is_some_and(|rival| rival.contains("copy")));
    // Which does no harm when it ends.
    first.give_up(&mut client);
    assert_eq!(second.hold(&mut client), Ok(None));
    assert!(other.hold(&mut client).unwrap().is_some());
    // One that stops gives it up; one that is killed is waited out.
    second.give_up(&mut client);
    assert_eq!(other.hold(&mut client), Ok(None));
    drop(other);
    let began = Instant::now();
    let mut third = claim("three", "p4");
    while third.hold(&mut client).unwrap().is_some() {
        assert!(began.elapsed() < Duration::from_secs(LIFE_S + 10));
        thread::sleep(BRIEF);
    }
    assert!(began.elapsed() > Duration::from_secs(LIFE_S / 2), "nobody had ended it");
    // A cluster that was gone for longer than that has forgotten it.
    let key = format!("{}boxes/a1", etcd.cluster().prefix);
    etcd.control(&["del", &key]);
    assert_eq!(third.hold(&mut client), Ok(None));
    // Rows of a claim mean nothing to boxes but that.
    let mut store = Shared::passing("a1", etcd.connect()).unwrap();
    store.hear(Heard::All(etcd.connect().read_all().unwrap())).unwrap();
    assert_eq!(store.alone(), None);
    assert!(store.news().iter().all(|news| !matches!(news, News::Unreadable(_))));
}

#[test]
fn a_name_stays_a_boxs_while_it_reads_a_large_store() {
    if !etcd_cluster::is_there() {
        return;
    }
    let etcd = Etcd::start("names-large", 1);
    let (mut reader, mut asker, mut stranger) = (etcd.connect(), etcd.connect(), etcd.connect());
    for part in 0..18 {
        let value = |number: u32| (format!("published/{part:02}-{number:03}"), 0, Some(String::new()));
        let done = reader.transact(&Transaction { rows: (0..100).map(value).collect() }).unwrap();
        assert!(matches!(done, Done::Applied(_)));
    }
    let mut ours = claim("one", "p1");
    assert_eq!(ours.hold(&mut asker), Ok(None));
    let mut pages = 0;
    let all = reader.read_all_and(&mut || {
        pages += 1;
        // Together longer than a claim lives.
        thread::sleep(Duration::from_secs(LIFE_S / 2));
        assert_eq!(ours.hold(&mut asker), Ok(None));
        assert!(claim("two", "p2").hold(&mut stranger).unwrap().is_some());
    });
    assert_eq!((all.unwrap().rows.len(), pages), (1801, 3), "each page but the last");
}

#[test]
fn other_certificates_are_taken_without_another_conversation() {
    if !etcd_cluster::is_there() {
        return;
    }
    let etcd = Etcd::start("papers-change", 1);
    let folder = etcd.folder.join("other");
    std::fs::create_dir_all(&folder).unwrap();
    let thief = Authority::new("other", None).issue(&folder, "thief", (-3600, 86_400), &[]);
    let wrong = Place { certificate: thief.certificate, key: thief.key, ..etcd.cluster() };
    let settings = Settings::load(&etcd.cluster()).unwrap();
    let renewal = settings.renewal();
    let mut client = Client::new(settings.clone()).unwrap();
    let mut second = Client::new(settings).unwrap();
    client.read_all().unwrap();
    second.read_all().unwrap();
    // The same once more is nothing.
    renewal.renew(&Access::load(&etcd.cluster()).unwrap());
    assert!(!client.is_outdated());
    renewal.renew(&Access::load(&wrong).unwrap());
    for client in [&mut client, &mut second] {
        assert!(client.is_outdated());
        assert!(client.read_all().is_err(), "the old connection is used on");
        assert!(!client.is_outdated());
    }
    // The same files say something else.
    let renewed = etcd.authority.issue(&folder, "O=renewed", (-3600, 86_400), &[]);
    let place = Place { certificate: renewed.certificate, key: renewed.key, ..etcd.cluster() };
    renewal.renew(&Access::load(&place).unwrap());
    assert!(client.read_all().is_ok() && second.newest().is_ok());
}

#[test]
fn another_password_is_taken_without_another_conversation() {
    if !etcd_cluster::is_there() {
        return;
    }
    let etcd = Etcd::start("password-changes", 1);
    etcd.want_passwords();
    let with = |password: &str| Place {
        user: Some(("pshim6".into(), etcd.file("password", &format!("{password}\n")))),
        ..etcd.cluster()
    };
    let settings = Settings::load(&with("battery-staple")).unwrap();
    let renewal = settings.renewal();
    let mut client = Client::new(settings).unwrap();
    client.read_all().unwrap();
    // A name is claimed by who may write below the prefix and nothing else.
    assert_eq!(claim("one", "p1").hold(&mut client), Ok(None));
    renewal.renew(&Access::load(&with("hunter2-hunter2")).unwrap());
    assert!(client.read_all().unwrap_err().to_string().contains("authentication failed"));
    renewal.renew(&Access::load(&with("battery-staple")).unwrap());
    assert!(client.read_all().is_ok());
    let told = format!("{:?}", Access::load(&with("battery-staple")).unwrap());
    assert!(!told.contains("staple"), "{told}");
}

#[test]
fn a_connection_that_died_while_nobody_used_it_is_opened_anew() {
    if !etcd_cluster::is_there() {
        return;
    }
    let mut etcd = Etcd::start("idle", 1);
    let (mut client, mut writer) = (etcd.connect(), etcd.connect());
    client.read_all().unwrap();
    writer.transact(&row("published/x", 0, "")).unwrap();
    etcd.kill(0);
    etcd.start_member(0);
    etcd.wait();
    assert!(client.read_all().is_ok());
    assert!(matches!(writer.transact(&row("published/y", 0, "")), Ok(Done::Applied(_))));
    // One that is gone is still found to be.
    etcd.kill(0);
    assert!(client.read_all().is_err());
}

fn put_octets(etcd: &Etcd, key: &[u8], value: &[u8]) {
    let mut put = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &format!("https://[::1]:{}", etcd.port(0)), "--cacert"])
        .arg(etcd.folder.join("ca.pem"))
        .arg("--cert")
        .arg(&etcd.client.certificate)
        .arg("--key")
        .arg(&etcd.client.key)
        .arg("put")
        .arg(OsStr::from_bytes(key))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    put.stdin.take().unwrap().write_all(value).unwrap();
    assert!(put.wait().unwrap().success());
}

#[test]
fn a_row_that_is_no_text_is_set_aside_and_nothing_else() {
    if !etcd_cluster::is_there() {
        return;
    }
    let etcd = Etcd::start("octets", 1);
    let mut store = Shared::passing("one", etcd.connect()).unwrap();
    store.hear(Heard::All(etcd.connect().read_all().unwrap())).unwrap();
    store.duid(&Duid::from_uuid([5; 16])).unwrap();
    store.news();
    let mut listener = etcd.connect();
    let mut watch = listener.watch(listener_from(&etcd)).unwrap();
    put_octets(&etcd, b"/pshim6/a/leases/00000001-0003", &[0xff, 0, 0xfe]);
    put_octets(&etcd, b"/pshim6/a/leases/\xff\xfe", b"text");
    put_octets(&etcd, b"/pshim6/a/zzz\xff", &[0xff]);
    let until = Instant::now() + Duration::from_secs(10);
    let mut unreadable = 0;
    while unreadable < 2 {
        assert!(Instant::now() < until, "{unreadable} rows");
        if let Some(events) = listener.next(&mut watch, BRIEF).unwrap() {
            store.hear(Heard::Since(events)).unwrap();
            unreadable += store.news().iter().filter(|news| matches!(news, News::Unreadable(_))).count();
        }
    }
    assert_eq!(store.alone(), None);
    // What is read as a whole has them too, in pages.
    let mut client = etcd.connect();
    for number in 0..520 {
        client.transact(&row(&format!("published/{number:05}"), 0, "")).unwrap();
    }
    let all = client.read_all().unwrap();
    assert!(all.rows.len() > 520 && all.rows.is_sorted_by(|one, other| one.key < other.key));
    let mut other = Shared::passing("two", etcd.connect()).unwrap();
    other.hear(Heard::All(all)).unwrap();
    assert_eq!(other.alone(), None);
    let told = other.news().iter().filter(|news| matches!(news, News::Unreadable(_))).count();
    assert_eq!(told, 2);
    assert!(other.load().unwrap().leases.is_empty());
    let text = "a".repeat(1_200_000);
    let documents = ["hosts", "policy"].map(|name| Entry::Document(name, Some(text.clone()), u64::MAX));
    assert_eq!(
        other.write(&documents).unwrap(),
        [Verdict::Written, Verdict::Written],
        "etcd takes what is bounded here"
    );
    assert_eq!(other.alone(), None);
}

fn listener_from(etcd: &Etcd) -> u64 {
    etcd.connect().newest().unwrap().0 + 1
}
