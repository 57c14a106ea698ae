use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::identity::Kind;

const SITE: &str = r#"
[box]
name = "a-box"
[site]
prefix = "fc00:a::/48"
lan = "fc00:a:0:1::/64"
port = "lan"
[[port]]
name = "lan"
device = "net_null0"
addresses = ["fc00:a:0:1::1/64"]
[[port]]
name = "x"
device = "net_null1"
addresses = ["2001:db8:aa::2/64"]
[[port]]
name = "y"
device = "net_null2"
addresses = ["2001:db8:ab::2/64"]
[[provider]]
name = "isp-x"
port = "x"
prefix = "2001:db8:a1:1::/64"
next_hop = "2001:db8:aa::1"
[[provider]]
name = "isp-y"
port = "y"
prefix = "2001:db8:a2:1::/64"
next_hop = "fe80::1"
"#;

fn site() -> Site {
    Site::parse(Path::new("site.toml"), SITE).unwrap().0
}

/// A directory of its own for a test, removed at its end.
struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Room {
        let path = std::env::temp_dir().join(format!("pshim6-hosts-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Room(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("hosts.json")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn add(file: &Path, name: &str, seed: u64, key: Option<&SigningKey>) -> Result<Host, EditError> {
    let mut edit = Edit::begin(file)?;
    let mut rng = StdRng::seed_from_u64(seed);
    let host = edit.add(name, false, &site(), key, &mut rng, &mut |_| ControlFlow::Continue(()))?;
    edit.save()?;
    Ok(host)
}

/// A file with hosts h1 and h2, its text and the hosts.
fn two_hosts(room: &Room) -> (String, Vec<Host>) {
    let hosts = vec![add(&room.file(), "h1", 1, None).unwrap(), add(&room.file(), "h2", 2, None).unwrap()];
    (fs::read_to_string(room.file()).unwrap(), hosts)
}

fn said(text: &str, site: &Site) -> Vec<String> {
    let problems = Hosts::parse(Path::new("hosts.json"), text, site).unwrap_err();
    problems.0.iter().map(Problem::to_string).collect()
}

#[test]
fn a_host_that_was_added_is_there_and_proved() {
    let room = Room::new("added");
    let (_, hosts) = two_hosts(&room);
    let loaded = Hosts::load(&room.file(), &site()).unwrap();
    assert_eq!(loaded.iter().cloned().collect::<Vec<_>>(), hosts);
    let identity = &hosts[0].identity;
    assert_eq!(identity.kind, Kind::Hba);
    assert!(site().lan.contains(identity.ulid.0));
    // One locator for each provider, in the providers' order.
    for (provider, locator) in site().providers.iter().zip(&identity.locators) {
        assert!(provider.prefix.contains(locator.0));
    }
    assert_eq!(fs::metadata(room.file()).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(&room.0).unwrap().count(), 1, "nothing is left beside the file");
}

#[test]
fn a_site_key_makes_hybrid_hosts() {
    let room = Room::new("hybrid");
    let key = super::super::key::make(&room.0.join("key.pem"), 1024).unwrap();
    let host = add(&room.file(), "h1", 1, Some(&key)).unwrap();
    assert_eq!(host.identity.kind, Kind::Hybrid);
    assert_eq!(Hosts::load(&room.file(), &site()).unwrap().iter().next(), Some(&host));
}

#[test]
fn a_key_is_its_owners_alone_and_never_overwritten() {
    let room = Room::new("key");
    let file = room.0.join("key.pem");
    let missing = super::super::key::load(&file).unwrap_err().to_string();
    assert!(missing.contains("cannot be read: No such file"), "{missing}");
    let made = super::super::key::make(&file, 1024).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(super::super::key::load(&file).unwrap().public_key_der(), made.public_key_der());
    let again = super::super::key::make(&file, 1024).unwrap_err().to_string();
    assert!(again.contains("there already"), "{again}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let open = super::super::key::load(&file).unwrap_err().to_string();
    assert!(open.contains("mode 0644 lets others read the key"), "{open}");
}

#[test]
fn names_are_taken_once_and_removed_once() {
    let room = Room::new("names");
    let (_, hosts) = two_hosts(&room);
    assert!(matches!(add(&room.file(), "h1", 3, None), Err(EditError::Taken(name)) if name == "h1"));
    assert!(matches!(add(&room.file(), "h 1", 3, None), Err(EditError::Name(_))));
    let mut edit = Edit::begin(&room.file()).unwrap();
    let mut rng = StdRng::seed_from_u64(9);
    let again = edit.add("h1", true, &site(), None, &mut rng, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_ne!(again.identity.ulid, hosts[0].identity.ulid);
    assert_eq!(edit.remove("h2").unwrap(), Entry::from(&hosts[1]));
    assert!(matches!(edit.remove("h2"), Err(EditError::Unknown(_))));
    edit.save().unwrap();
    let names: Vec<_> = Hosts::load(&room.file(), &site()).unwrap().iter().map(|it| it.name.clone()).collect();
    assert_eq!(names, ["h1"]);
}

#[test]
fn editors_wait_for_each_other() {
    let room = Room::new("wait");
    let edit = Edit::begin(&room.file()).unwrap();
    let file = room.file();
    let other = std::thread::spawn(move || add(&file, "second", 2, None).unwrap());
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!other.is_finished(), "the second editor began while the first was at work");
    let mut edit = edit;
    let mut rng = StdRng::seed_from_u64(1);
    edit.add("first", false, &site(), None, &mut rng, &mut |_| ControlFlow::Continue(())).unwrap();
    edit.save().unwrap();
    other.join().unwrap();
    assert_eq!(Hosts::load(&room.file(), &site()).unwrap().len(), 2);
}

#[test]
fn a_search_that_is_called_off_changes_nothing() {
    let room = Room::new("off");
    let mut site = site();
    site.sec = 2;
    let mut edit = Edit::begin(&room.file()).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let stopped = edit.add("h1", false, &site, None, &mut rng, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(EditError::Generate(GenerateError::Cancelled))));
    assert!(edit.entries().is_empty());
}

#[test]
fn a_file_that_is_not_there_holds_no_hosts() {
    assert!(Hosts::load(Path::new("/nonexistent/hosts.json"), &site()).unwrap().is_empty());
}

#[test]
fn each_wrong_value_is_named_with_its_place() {
    let room = Room::new("wrong");
    let (text, hosts) = two_hosts(&room);
    let ulid = hosts[1].identity.ulid.to_string();
    let locator = hosts[1].identity.locators[0].to_string();
    let pds = Hex(&hosts[1].identity.pds).to_string();
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        said(&text.replace(from, to), &site())
    };
    assert_eq!(
        changed("\"version\": 1", "\"version\": 7"),
        ["hosts.json:2:14: version: 7 is not a version known here: 1"]
    );
    assert_eq!(
        changed("\"name\": \"h2\"", "\"nome\": \"h2\""),
        ["hosts.json:14:12: hosts[1]: unknown field `nome`, expected one of `name`, `ulid`, `locators`, `pds`, `mac`"]
    );
    assert_eq!(changed("\"h2\"", "\"h1\""), ["hosts.json:14:15: hosts[1].name: there is another host called h1"]);
    assert_eq!(
        changed("\"h2\"", "2"),
        ["hosts.json:14:15: hosts[1].name: invalid type: integer `2`, expected a string"]
    );
    assert_eq!(changed(&ulid, "fc00:x::1"), ["hosts.json:15:15: hosts[1].ulid: \"fc00:x::1\" is not an IPv6 address"]);
    assert_eq!(changed(&locator, "1"), ["hosts.json:17:9: hosts[1].locators[0]: \"1\" is not an IPv6 address"]);
    assert_eq!(changed(&pds, "abc"), ["hosts.json:20:14: hosts[1].pds: is not an even number of hex digits"]);
    // A locator nobody proved: one bit of its last octet differs.
    let mut other = hosts[1].identity.locators[0].0.octets();
    other[15] ^= 1;
    let forged = Ipv6Addr::from(other).to_string();
    let found = changed(&locator, &forged);
    assert!(
        found[0].starts_with(&format!("hosts.json:17:9: hosts[1].locators[0]: {forged} is not proved by")),
        "{found:?}"
    );
    // Parameters of another host.
    let found = changed(&pds, &Hex(&hosts[0].identity.pds).to_string());
    assert!(found[0].starts_with(&format!("hosts.json:20:14: hosts[1].pds: does not prove {ulid}: ")), "{found:?}");
    let found = said("{\n  \"version\": 1,\n  \"hosts\": [\n", &site());
    assert!(found[0].starts_with("hosts.json:4:1: EOF while parsing"), "{found:?}");
}

#[test]
fn a_host_lives_with_the_providers_it_has_locators_from() {
    // R5533-011, R5535-030: what is left of its set will do; nothing outside is added without a signature.
    let room = Room::new("again");
    let (text, hosts) = two_hosts(&room);
    let parse = |text: &str, site: &Site| Hosts::parse(Path::new("hosts.json"), text, site).unwrap();
    let warned = |hosts: &Hosts| hosts.warnings().iter().map(Problem::to_string).collect::<Vec<_>>();
    assert_eq!(warned(&parse(&text, &site())), Vec::<String>::new());
    let mut moved = site();
    moved.providers[1].prefix = "2001:db8:a9:1::/64".parse().unwrap();
    let served = parse(&text, &moved);
    assert_eq!(served.list[0].identity.locators, hosts[0].identity.locators[..1]);
    let y = hosts[0].identity.locators[1];
    let unused = format!("hosts.json:7:19: hosts[0].locators: h1 does not use {y}: no provider delegates it,");
    let missing = "hosts.json:7:19: hosts[0].locators: h1 has no locator from isp-y: pshim6ctl host update h1, or host";
    let found = warned(&served);
    assert!(found[0].starts_with(&unused) && found[1].starts_with(missing), "{found:?}");
    let mut fewer = site();
    fewer.providers.pop();
    let fewer = parse(&text, &fewer);
    assert_eq!((fewer.list[0].identity.locators.len(), warned(&fewer).len()), (1, 2));
    // A locator struck from the list is as good as a provider gone.
    let struck = text.replacen(&format!(",\n        \"{y}\""), "", 1);
    assert_ne!(struck, text);
    assert_eq!(parse(&struck, &site()).list[0].identity.locators.len(), 1);
    // Nothing is left of it.
    let mut foreign = moved.clone();
    foreign.providers[0].prefix = "2001:db8:a8:1::/64".parse().unwrap();
    let expected = "hosts.json:5:15: hosts[0]: h1 was made for fc00:a:0:1::/64, 2001:db8:a1:1::/64, 2001:db8:a2:1::/64; site \
         and providers now have fc00:a:0:1::/64, 2001:db8:a8:1::/64, 2001:db8:a9:1::/64: it must be made again, with new \
         addresses (pshim6ctl host add --replace h1)";
    assert_eq!(said(&text, &foreign)[0], expected);
    let mut elsewhere = site();
    elsewhere.lan = "fc00:a:0:2::/64".parse().unwrap();
    assert_eq!(said(&text, &elsewhere).len(), 2);
    // Providers in another order are the same providers.
    let mut swapped = site();
    swapped.providers.swap(0, 1);
    let hosts = parse(&text, &swapped);
    assert!(swapped.providers[0].prefix.contains(hosts.list[0].identity.locators[0].0));
    // And a host that cannot be served can be removed.
    let mut edit = Edit::begin(&room.file()).unwrap();
    edit.remove("h1").unwrap();
}

#[test]
fn a_hybrid_host_gets_signed_locators_and_an_hba_host_gets_its_members_back() {
    // R5533-012, R5535-003, R5535-029, R5535-030
    let room = Room::new("update");
    let mut with_key = site();
    with_key.key = Some(room.0.join("key.pem"));
    let key = super::super::key::make(&room.0.join("key.pem"), 1024).unwrap();
    add(&room.file(), "hba", 1, None).unwrap();
    add(&room.file(), "hybrid", 2, Some(&key)).unwrap();
    let update = |site: &Site| {
        let mut edit = Edit::begin(&room.file()).unwrap();
        let updated = edit.update(None, site, Some(&key), &mut StdRng::seed_from_u64(3)).unwrap();
        edit.save().unwrap();
        updated
    };
    let before = Hosts::load(&room.file(), &with_key).unwrap();
    assert!(before.key().is_none(), "nothing is to be signed");
    let mut moved = with_key.clone();
    moved.providers[1].prefix = "2001:db8:a9:1::/64".parse().unwrap();
    let updated = update(&moved);
    assert_eq!(
        (updated[0].removed.len(), updated[0].added.len(), &updated[0].without[..]),
        (1, 0, &["isp-y".to_string()][..])
    );
    assert_eq!((updated[1].removed.len(), updated[1].added.len(), updated[1].without.len()), (1, 1, 0));
    let after = Hosts::load(&room.file(), &moved).unwrap();
    assert_eq!(after.key().map(|key| key.public_key_der()), Some(key.public_key_der()));
    assert_eq!([&after.list[0], &after.list[1]].map(|host| host.identity.locators.len()), [1, 2]);
    assert_eq!(after.list[1].identity.ulid, before.list[1].identity.ulid);
    // Without the key, or with another one, nobody would believe it.
    let text = fs::read_to_string(room.file()).unwrap();
    let refused = said(&text, &Site { key: None, ..moved.clone() });
    assert!(
        refused[0].contains("is not proved by the host's parameters") && refused[0].ends_with("no site.key to sign it")
    );
    super::super::key::make(&room.0.join("other.pem"), 1024).unwrap();
    let refused = said(&text, &Site { key: Some(room.0.join("other.pem")), ..moved });
    assert!(refused[0].ends_with("site.key is not the key the host was made with"), "{refused:?}");
    // The old provider comes back: both have the same addresses again as at first.
    update(&with_key);
    let again = Hosts::load(&room.file(), &with_key).unwrap();
    assert_eq!((&again.list, again.warnings()), (&before.list, &[][..]));
    let mut edit = Edit::begin(&room.file()).unwrap();
    let unknown = edit.update(Some("h9"), &with_key, None, &mut StdRng::seed_from_u64(4));
    assert!(matches!(unknown, Err(EditError::Unknown(name)) if name == "h9"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(cut in 0usize..900, noise in "[\\[\\]{}\":,a-f0-9\\\\é\n ]{0,8}") {
        static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        let text = TEXT.get_or_init(|| two_hosts(&Room::new("noise")).0);
        let cut = cut.min(text.len());
        let _ = Hosts::parse(Path::new("hosts.json"), &format!("{}{noise}{}", &text[..cut], &text[cut..]), &site());
        let _ = Hosts::parse(Path::new("hosts.json"), &text[..cut], &site());
    }
}
