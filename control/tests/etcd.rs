//! The store that boxes share, on real `etcd` processes: that they find each other's leases, go on while members of the
//! cluster are gone, and that nobody who is in between or has not the right papers reads or writes anything.

#[allow(dead_code, reason = "other tests use more of it")]
mod certificates;
mod etcd_cluster;

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use certificates::Authority;
use control::config::Cluster as Place;
use control::dhcp::{Change, Client as HostClient, Duid, Identity, Lease, State};
use control::store::shared::etcd::{Client, Settings};
use control::store::shared::{Cluster, ClusterError, Done, Heard, Shared, Transaction};
use control::store::{Entry, News, Storage, Verdict};
use etcd_cluster::Etcd;

fn lease(number: u32, until: u64) -> Lease {
    let address = |prefix: u128| Ipv6Addr::from_bits((prefix << 64) | u128::from(number));
    let duid = Duid::new(&[&[0, 3][..], &number.to_be_bytes()].concat()).unwrap();
    Lease {
        client: HostClient { duid, iaid: number },
        name: format!("host-{number}"),
        identity: Identity {
            ulid: address(0xfc00_000a_0000_0001),
            locators: vec![address(0x2001_0db8_0001_0001)],
            pds: vec![1, 2],
        },
        state: State::Bound,
        until,
        via: Ipv6Addr::LOCALHOST,
        relayed: false,
    }
}

fn put(store: &mut Shared<Client>, lease: &Lease) -> Verdict {
    let changes = [Change::Put(lease.clone())];
    store.write(&[Entry::Changes(&changes, u64::MAX)]).unwrap()[0].clone()
}

fn begin(etcd: &Etcd, name: &str) -> Shared<Client> {
    let mut store = Shared::passing(name, etcd.connect()).unwrap();
    store.hear(Heard::All(etcd.connect().read_all().unwrap())).unwrap();
    store.duid(&Duid::from_uuid([5; 16])).unwrap();
    store
}

fn changes(store: &mut Shared<Client>) -> Vec<Change> {
    let news = store.news().into_iter().filter_map(|news| match news {
        News::Changed(changes, _) => Some(changes),
        _ => None,
    });
    news.flatten().collect()
}

fn row(key: &str, revision: u64, value: &str) -> Transaction {
    Transaction { rows: vec![(key.to_owned(), revision, Some(value.to_owned()))] }
}

#[test]
fn what_one_box_writes_another_hears_and_members_that_die_are_not_missed() {
    if !etcd_cluster::is_there() {
        return;
    }
    let mut etcd = Etcd::start("three", 3);
    let (mut one, mut two) = (begin(&etcd, "one"), begin(&etcd, "two"));
    assert_eq!(one.read_duid().unwrap(), two.read_duid().unwrap());
    one.news();
    two.news();
    let mut listener = etcd.connect();
    let (from, _) = listener.newest().unwrap();
    let mut watch = listener.watch(from + 1).unwrap();
    assert_eq!(put(&mut one, &lease(1, 1000)), Verdict::Written);
    let mut hear = |store: &mut Shared<Client>| {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if let Some(events) = listener.next(&mut watch, Duration::from_millis(100)).unwrap() {
                store.hear(Heard::Since(events)).unwrap();
                let heard = changes(store);
                if !heard.is_empty() {
                    return heard;
                }
            }
        }
        panic!("nothing was heard");
    };
    assert_eq!(hear(&mut two), [Change::Put(lease(1, 1000))]);
    // The other's address and client are refused, and its lease extended.
    let other = Lease { client: lease(2, 0).client, ..lease(1, 1000) };
    assert!(matches!(put(&mut two, &other), Verdict::Refused(_)));
    assert_eq!(put(&mut two, &lease(1, 2000)), Verdict::Written);
    assert_eq!(one.write(&[Entry::Reserve(&lease(60, 0).identity)]).unwrap(), [Verdict::Written]);
    // One member of three.
    etcd.kill(0);
    assert_eq!(put(&mut two, &lease(3, 1000)), Verdict::Written);
    assert!(!two.is_alone(), "{:?}", two.alone());
    assert_eq!(put(&mut one, &lease(4, 1000)), Verdict::Written);
    // All of them.
    etcd.kill(1);
    etcd.kill(2);
    assert_eq!(put(&mut one, &lease(1, 3000)), Verdict::Written, "an extension");
    assert!(one.is_alone());
    assert!(one.news().iter().any(|news| matches!(news, News::Alone(Some(_)))));
    assert_eq!(put(&mut one, &lease(60, 1000)), Verdict::Written, "out of what was reserved");
    assert!(matches!(put(&mut one, &lease(61, 1000)), Verdict::Refused(_)), "out of nothing");
    assert_eq!(put(&mut two, &lease(3, 1500)), Verdict::Written);
    assert!(matches!(put(&mut two, &lease(60, 1000)), Verdict::Refused(_)), "it is not this box's to give");
    assert!(etcd.connect().read_all().is_err());
    (0..3).for_each(|at| etcd.start_member(at));
    etcd.wait();
    for store in [&mut one, &mut two] {
        store.hear(Heard::All(etcd.connect().read_all().unwrap())).unwrap();
        assert_eq!((store.alone(), store.unwritten()), (None, 0));
    }
    one.hear(Heard::All(etcd.connect().read_all().unwrap())).unwrap();
    let leases: Vec<(u32, u64)> =
        two.load().unwrap().leases.iter().map(|lease| (lease.client.iaid, lease.until)).collect();
    assert_eq!(leases, [(1, 3000), (3, 1500), (4, 1000), (60, 1000)]);
    assert_eq!(one.load().unwrap(), two.load().unwrap());
}

#[test]
fn a_watch_that_comes_too_late_says_so_and_pages_hold_everything() {
    if !etcd_cluster::is_there() {
        return;
    }
    let etcd = Etcd::start("late", 1);
    let mut client = etcd.connect();
    for number in 0..1100 {
        let done = client.transact(&row(&format!("published/{number:05}"), 0, "x")).unwrap();
        assert!(matches!(done, Done::Applied(_)));
    }
    let all = client.read_all().unwrap();
    assert_eq!(all.rows.len(), 1100);
    assert!(all.rows.windows(2).all(|two| two[0].key < two[1].key));
    assert!(
        matches!(client.transact(&row("published/00007", 0, "y")).unwrap(), Done::Overtaken(_, rows) if rows.len() == 1)
    );
    etcd.control(&["compact", &all.revision.to_string()]);
    let late = client.watch(2).and_then(|mut watch| client.next(&mut watch, Duration::from_secs(5)));
    assert_eq!(late.err(), Some(ClusterError::Forgotten));
    // A new conversation goes on.
    assert!(client.read_all().is_ok());
}

#[test]
fn whoever_has_not_the_right_papers_is_refused_by_the_cluster_and_refuses_it() {
    if !etcd_cluster::is_there() {
        return;
    }
    let etcd = Etcd::start("papers", 1);
    let mut good = etcd.connect();
    good.transact(&row("leases/x", 0, "secret")).unwrap();
    let refused = |place: &Place| {
        let mut client = Client::new(Settings::load(place).unwrap()).unwrap();
        let error = client.read_all().unwrap_err();
        assert!(client.transact(&row("leases/y", 0, "mine")).is_err());
        error.to_string()
    };
    // A client's certificate of somebody else.
    let other = Authority::new("other", None);
    let folder = etcd.folder.join("other");
    std::fs::create_dir_all(&folder).unwrap();
    other.write(&folder, "ca.pem");
    let files = other.issue(&folder, "thief", (-3600, 86_400), &[]);
    let thief = Place { certificate: files.certificate, key: files.key, ..etcd.cluster() };
    let said = refused(&thief);
    assert!(said.contains("certificate") || said.contains("alert") || said.contains("closed"), "{said}");
    // One that has expired.
    let old = etcd.authority.issue(&folder, "old", (-7200, -3600), &[]);
    refused(&Place { certificate: old.certificate, key: old.key, ..etcd.cluster() });
    // None at all.
    let mut roots = rustls::RootCertStore::empty();
    roots.add(etcd.authority.certificate.to_der().unwrap().into()).unwrap();
    let bare = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let settings = Settings { tls: Arc::new(bare), ..Settings::load(&etcd.cluster()).unwrap() };
    assert!(Client::new(settings).unwrap().read_all().is_err());
    // A cluster with a certificate of an authority that is not ours.
    let said = refused(&Place { authority: folder.join("ca.pem"), ..etcd.cluster() });
    assert!(said.contains("certificate"), "{said}");
    // One that is for another name.
    let said = refused(&Place { endpoints: vec![("localhost".into(), etcd.port(0))], ..etcd.cluster() });
    assert!(said.contains("certificate") || said.contains("refused"), "{said}");
    assert_eq!(good.read_all().unwrap().rows.len(), 1);
}

#[test]
fn a_password_that_is_wrong_opens_nothing_and_is_told_to_nobody() {
    if !etcd_cluster::is_there() {
        return;
    }
    let etcd = Etcd::start("password", 1);
    etcd.connect().transact(&row("meta/version", 0, "1")).unwrap();
    etcd.want_passwords();
    let with = |user: &str, password: &str| {
        let file = etcd.file("password", &format!("{password}\n"));
        let place = Place { user: Some((user.into(), file)), ..etcd.cluster() };
        Settings::load(&place).unwrap()
    };
    let mut good = Client::new(with("pshim6", "battery-staple")).unwrap();
    assert_eq!(good.read_all().unwrap().rows.len(), 1);
    good.transact(&row("leases/x", 0, "x")).unwrap();
    let from = good.newest().unwrap().0;
    let mut watch = good.watch(from + 1).unwrap();
    good.transact(&row("leases/y", 0, "y")).unwrap();
    let heard = good.next(&mut watch, Duration::from_secs(5)).unwrap().unwrap();
    assert_eq!(heard.rows[0].0, "leases/y");
    let wrong = with("pshim6", "hunter2-hunter2");
    assert!(!format!("{wrong:?}").contains("hunter2"));
    let mut wrong = Client::new(wrong).unwrap();
    let error = wrong.read_all().unwrap_err();
    assert!(matches!(&error, ClusterError::Refused(said) if said.contains("authentication failed")), "{error}");
    assert!(!error.to_string().contains("hunter2") && !wrong.name().contains("hunter2"));
    // Without a user nothing, although the certificate is good.
    assert!(etcd.connect().read_all().is_err());
    // Nor from a certificate with a common name: the gateway cannot tell which of the two names counts.
    let named = etcd.authority.issue(&etcd.folder, "named", (-3600, 86_400), &[]);
    let file = etcd.file("password", "battery-staple");
    let place =
        Place { certificate: named.certificate, key: named.key, user: Some(("pshim6".into(), file)), ..etcd.cluster() };
    let error = Client::new(Settings::load(&place).unwrap()).unwrap().read_all().unwrap_err();
    assert!(error.to_string().contains("CommonName"), "{error}");
    // And nothing that is another site's.
    let place = Place { prefix: "/pshim6/b/".into(), ..etcd.cluster() };
    let place = Place { user: Some(("pshim6".into(), etcd.file("password", "battery-staple"))), ..place };
    let mut other = Client::new(Settings::load(&place).unwrap()).unwrap();
    assert!(matches!(other.read_all(), Err(ClusterError::Refused(_))));
    assert!(matches!(other.transact(&row("leases/x", 0, "x")), Err(ClusterError::Refused(_))));
}

/// Somebody in between: passes octets on, keeps what goes by, and changes one in each direction after so many.
struct Middle {
    port: u16,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Middle {
    fn start(target: u16, spoil: [Option<usize>; 2]) -> Middle {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Ok(onward) = TcpStream::connect(("::1", target)) else { continue };
                let ends = [(stream.try_clone(), onward.try_clone()), (Ok(onward), Ok(stream))];
                for ((from, to), spoil) in ends.into_iter().zip(spoil) {
                    let (Ok(mut from), Ok(mut to), log) = (from, to, log.clone()) else { continue };
                    thread::spawn(move || {
                        let (mut buffer, mut passed) = ([0; 4096], 0);
                        while let Ok(count @ 1..) = from.read(&mut buffer) {
                            log.lock().unwrap().extend_from_slice(&buffer[..count]);
                            if let Some(at) = spoil.filter(|at| (passed..passed + count).contains(at)) {
                                buffer[at - passed] ^= 1;
                            }
                            passed += count;
                            if to.write_all(&buffer[..count]).is_err() {
                                break;
                            }
                        }
                        let _ = (from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both));
                    });
                }
            }
        });
        Middle { port, seen }
    }
}

#[test]
fn somebody_in_between_reads_nothing_and_changes_nothing() {
    if !etcd_cluster::is_there() {
        return;
    }
    let etcd = Etcd::start("middle", 1);
    let mut direct = etcd.connect();
    let through = |middle: &Middle| {
        let place = Place { endpoints: vec![("::1".into(), middle.port)], ..etcd.cluster() };
        Client::new(Settings::load(&place).unwrap()).unwrap()
    };
    let honest = Middle::start(etcd.port(0), [None, None]);
    let secret = "a-name-that-nobody-else-has";
    through(&honest).transact(&row("leases/x", 0, secret)).unwrap();
    assert_eq!(through(&honest).read_all().unwrap().rows[0].value, secret);
    {
        let seen = honest.seen.lock().unwrap();
        let text = openssl::base64::encode_block(secret.as_bytes());
        for words in [secret, &text, "leases/x", "/pshim6/", "kv/txn"] {
            assert!(!seen.windows(words.len()).any(|part| part == words.as_bytes()), "{words} went by in the clear");
        }
        assert!(seen.len() > 2000, "nothing went by");
    }
    // An octet changed anywhere, in either direction: what is asked is not done, and what is told is not believed.
    let mut spoilt = 0;
    for at in (0..6000).step_by(211) {
        for spoil in [[Some(at), None], [None, Some(at)]] {
            let middle = Middle::start(etcd.port(0), spoil);
            let mut client = through(&middle);
            let before = direct.read_all().unwrap();
            let x = before.rows.iter().find(|row| row.key == "leases/x").unwrap().clone();
            let done = client.transact(&row("leases/x", x.revision, &format!("{secret}-{at}")));
            let now = direct.read_all().unwrap();
            let value = &now.rows.iter().find(|row| row.key == "leases/x").unwrap().value;
            match done {
                // It came too late to matter.
                Ok(Done::Applied(_)) => assert_eq!(*value, format!("{secret}-{at}")),
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    spoilt += 1;
                    assert!(matches!(error, ClusterError::Unreachable(_)), "{error}");
                    // Whole or not at all: an answer may be lost.
                    assert!(*value == x.value || *value == format!("{secret}-{at}"), "{value}");
                }
            }
            assert_eq!(now.rows.len(), 1, "something was injected");
        }
    }
    assert!(spoilt >= 10, "{spoilt}");
    // What went by before, said again to the cluster, is nothing to it.
    let replay = honest.seen.lock().unwrap().clone();
    let before = direct.read_all().unwrap();
    let mut stream = TcpStream::connect(("::1", etcd.port(0))).unwrap();
    let _ = stream.write_all(&replay);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let _ = stream.read(&mut [0; 4096]);
    assert_eq!(direct.read_all().unwrap(), before);
    // A box that is alone because of somebody in between goes on, and says so.
    let cut = Middle::start(etcd.port(0), [Some(0), Some(0)]);
    let mut store = Shared::passing("one", through(&cut)).unwrap();
    store.hear(Heard::All(before)).unwrap();
    assert!(matches!(put(&mut store, &lease(1, 1)), Verdict::Refused(_)));
    assert!(store.is_alone());
}

/// Runs `pshim6ctl` with a configuration; what it prints.
fn ctl(config: &Path, arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_pshim6ctl")).arg("--config").arg(config).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(String::from_utf8(output.stdout).unwrap() + &said) } else { Err(said) }
}

#[test]
fn an_operator_moves_a_store_into_the_cluster_and_back_and_nothing_is_lost() {
    if !etcd_cluster::is_there() {
        return;
    }
    let mut etcd = Etcd::start("moves", 1);
    let config = |name: &str, store: &str| {
        let text = format!(
            r#"
            [box]
            name = "{name}"
            control_socket = "{name}.sock"
            hosts_file = "{name}-hosts.json"
            policy_file = "{name}-policy.json"
            [site]
            prefix = "fc00:a::/48"
            lan = "fc00:a:0:1::/64"
            port = "in"
            [[port]]
            name = "in"
            device = "net_tap0"
            addresses = ["fc00:a:0:1::1/64"]
            [[port]]
            name = "x"
            device = "net_tap1"
            addresses = ["2001:db8:ff00::2/64"]
            [[provider]]
            name = "x"
            port = "x"
            prefix = "2001:db8:1:1::/64"
            next_hop = "2001:db8:ff00::1"
            [dhcp]
            [store]
            file = "{name}.redb"
            {store}
            "#
        );
        etcd.file(&format!("{name}.toml"), &text)
    };
    let papers =
        "ca = \"ca.pem\"\ncertificate = \"O=box.pem\"\nkey = \"O=box-key.pem\"\nshare = [\"hosts\", \"policy\"]";
    let shared = format!("etcd = [\"https://[::1]:{}\"]\nprefix = \"/pshim6/a/\"\n{papers}", etcd.port(0));
    let (own, back) = (config("own", ""), config("back", ""));
    let (one, two) = (config("one", &shared), config("two", &shared));
    // Leases with addresses that are proved.
    let prefixes = control::identity::HostPrefixes {
        ulid: [0xfc, 0, 0, 0xa, 0, 0, 0, 1],
        locators: vec![[0x20, 1, 0xd, 0xb8, 0, 1, 0, 1]],
    };
    let store = control::store::Store::open(&etcd.folder.join("own.redb")).unwrap();
    store.duid(&Duid::from_uuid([9; 16])).unwrap();
    let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(4);
    for number in 1..=40 {
        let made = control::identity::make_host(&prefixes, control::identity::Sec::ZERO, None, &mut rng).unwrap();
        let identity = Identity { ulid: made.ulid.0, locators: vec![made.locators[0].0], pds: made.pds };
        store.commit(&[Change::Put(Lease { identity, ..lease(number, 1000) })]).unwrap();
    }
    drop(store);
    let value = |text: &str| {
        let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
        let leases = value["leases"].as_array_mut().unwrap();
        assert_eq!(leases.len(), 40);
        leases.sort_by_key(|lease| lease["client"]["iaid"].as_u64());
        value
    };
    let all = ctl(&own, &["store", "export"]).unwrap();
    let file = etcd.file("all.json", &all).display().to_string();
    assert!(ctl(&one, &["store", "import", &file]).unwrap().contains("40 leases"));
    assert!(ctl(&one, &["store", "import", &file]).unwrap_err().contains("starts with an empty one"));
    assert!(ctl(&two, &["store", "check"]).unwrap().contains("1 of 1 members answer; 40 leases"));
    let again = ctl(&two, &["store", "export"]).unwrap();
    assert_eq!(value(&again), value(&all));
    let file = etcd.file("again.json", &again).display().to_string();
    ctl(&back, &["store", "import", &file]).unwrap();
    assert_eq!(value(&ctl(&back, &["store", "export"]).unwrap()), value(&all));
    // Files: what the store has comes to a new box, and what that one had is put aside.
    etcd.connect().transact(&row("site/hosts", 0, r#"{"name":"hosts","version":3,"by":"one","text":"{}"}"#)).unwrap();
    etcd.file("two-hosts.json", "old");
    assert!(ctl(&two, &["store", "pull"]).unwrap().contains("version 3 of box one"));
    let read = |name: &str| std::fs::read_to_string(etcd.folder.join(name)).unwrap();
    assert_eq!((read("two-hosts.json").as_str(), read("two-hosts.json.lost").as_str()), ("{}", "old"));
    assert!(ctl(&own, &["store", "pull"]).unwrap_err().contains("this box's alone"));
    // A row that nobody can read is found.
    etcd.connect().transact(&row("leases/none", 0, "{}")).unwrap();
    assert!(ctl(&two, &["store", "check"]).unwrap_err().contains("leases/none"));
    // Without the cluster there is no copy yet, and that is said.
    etcd.kill(0);
    assert!(ctl(&two, &["store", "check"]).unwrap_err().contains("https://[::1]:"));
    assert!(ctl(&two, &["store", "export"]).is_err());
}
