//! A good file is read to the letter; every kind of wrong one is refused with file, line, column and field.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::site::{Device, Hugepages, Idle};
use super::*;

pub(super) const GOOD: &str = r#"[box]
name = "a-box"
id = 3
workers = 2
idle = "poll"
control_socket = "/run/a.sock"
cores = [2, 3]
contexts_max = 1000
hold = { packets = 4, pairs = 10 }

[eal]
memory_mb = 128
hugepages = "never"
args = ["--log-level=eal:8"]

[site]
prefix = "fc00:a::/48"
lan = "fc00:a:0:1::/64"
port = "lan"
key = "site-key.pem"
sec = 1

[[port]]
name = "lan"
device = "net_af_packet0,iface=a-lan"
addresses = ["fc00:a:0:1::1/64"]
mac = "02:00:00:00:0a:01"

[[port]]
name = "x"
device = "3b:00.0"
addresses = ["2001:db8:aa::2/64", "fe80::2/64"]
mtu = 9000

[[port]]
name = "y"
device = "net_af_packet1,iface=a-y"
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

[[peer]]
name = "b-h1"
ulid = "fc00:b:0:1::5"
locators = ["2001:db8:b1:1::5", "2001:db8:b2:1::5"]

[reap]
send_timeout_s = 20

[shim6]
i1_timeout_ms = 2000
strict_locators = true
"#;

pub(super) fn load(text: &str) -> Result<(Site, Vec<Problem>), Vec<String>> {
    Site::parse(Path::new("/etc/p/site.toml"), text)
        .map_err(|problems| problems.0.iter().map(|it| it.to_string().replace("/etc/p/", "")).collect())
}

/// What is said of the good file after `from` in it became `to`.
fn said(from: &str, to: &str) -> Vec<String> {
    assert_eq!(GOOD.matches(from).count(), 1, "{from:?} does not name one place");
    load(&GOOD.replace(from, to)).expect_err(to)
}

fn warned(from: &str, to: &str) -> Vec<String> {
    assert_eq!(GOOD.matches(from).count(), 1, "{from:?} does not name one place");
    let (_, warnings) = load(&GOOD.replace(from, to)).unwrap();
    warnings.iter().map(|it| it.to_string().replace("/etc/p/", "")).collect()
}

#[test]
fn what_is_done_for_hosts_is_off_unless_it_is_asked_for() {
    let text = GOOD.replace("sec = 1", "mss_clamp = true").replace("strict_locators", "icmp_errors_to_hosts");
    let (site, _) = load(&text).unwrap();
    assert!(site.mss_clamp && site.shim6.icmp_errors_to_hosts && !site.shim6.strict_locators);
    let (site, _) = load(GOOD).unwrap();
    assert!(!site.mss_clamp && !site.shim6.icmp_errors_to_hosts);
}

#[test]
fn a_good_file_is_read_to_the_letter() {
    let (site, warnings) = load(GOOD).unwrap();
    assert_eq!(warnings, []);
    assert_eq!((site.node.name.as_str(), site.node.id, site.node.workers), ("a-box", 3, 2));
    assert_eq!((site.node.idle, site.node.cores), (Idle::Poll, Some(vec![2, 3])));
    assert_eq!(site.node.control_socket, PathBuf::from("/run/a.sock"));
    assert_eq!(site.node.hosts_file, PathBuf::from("/etc/p/hosts.json"));
    assert_eq!((site.node.contexts_max, site.node.hold_packets, site.node.hold_pairs), (1000, 4, 10));
    assert_eq!((site.eal.memory_mb, site.eal.hugepages), (128, Hugepages::Never));
    assert_eq!(site.eal.args, ["--log-level=eal:8"]);
    assert_eq!((site.lan_port, site.sec, site.key), (0, 1, Some(PathBuf::from("/etc/p/site-key.pem"))));
    assert_eq!(site.ports[0].mac, Some(MacAddress([2, 0, 0, 0, 10, 1])));
    assert_eq!((site.ports[0].mtu, site.ports[1].mtu), (1500, 9000));
    assert_eq!(site.ports[1].device, Device::Pci("0000:3b:00.0".into()));
    assert_eq!(site.ports[1].addresses.len(), 2);
    assert_eq!(site.providers.iter().map(|it| it.port).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(site.providers.iter().map(|it| it.preference).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(site.peers[0].locators.len(), 2);
    assert_eq!((site.reap.send_timeout, site.reap.max_probe), (Duration::from_secs(20), Duration::from_secs(60)));
    assert_eq!((site.shim6.i1_timeout, site.shim6.i1_retries), (Duration::from_secs(2), 4));
    assert!(site.shim6.strict_locators);
}

#[test]
fn every_hint_has_a_switch() {
    let all = |link, icmp, tcp| super::site::Hints { link, icmp, tcp };
    assert_eq!(load(GOOD).unwrap().0.hints, all(true, true, true));
    for (name, wanted) in
        [("link", all(false, true, true)), ("icmp", all(true, false, true)), ("tcp", all(true, true, false))]
    {
        let text = GOOD.replace("[shim6]", &format!("[hints]\n{name} = false\n\n[shim6]"));
        assert_eq!(load(&text).unwrap().0.hints, wanted);
    }
    let wrong = said("[shim6]", "[hints]\nbgp = true\n\n[shim6]");
    assert!(wrong.len() == 1 && wrong[0].contains("bgp"), "{wrong:?}");
    assert_eq!(said("[shim6]", "[hints]\ntcp = 1\n\n[shim6]").len(), 1);
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let short = GOOD.split("[reap]").next().unwrap();
    let rows = [
        "id = 3\n",
        "workers = 2\n",
        "idle = \"poll\"\n",
        "cores = [2, 3]\n",
        "contexts_max = 1000\n",
        "hold = { packets = 4, pairs = 10 }\n",
        "control_socket = \"/run/a.sock\"\n",
        "sec = 1\n",
        "key = \"site-key.pem\"\n",
    ];
    let short = rows.iter().fold(short.to_string(), |text, row| text.replace(row, ""));
    let (site, _) = load(&short).unwrap();
    assert_eq!((site.node.id, site.node.workers, site.node.idle), (0, 1, Idle::Sleep));
    assert_eq!(site.node.control_socket, PathBuf::from(limits::CONTROL_SOCKET));
    assert_eq!((site.node.hold_packets, site.node.hold_pairs), (16, 1024));
    assert_eq!((site.sec, site.key), (0, None));
    assert_eq!(
        (site.reap.send_timeout, site.reap.probe_interval),
        (Duration::from_secs(15), Duration::from_millis(500))
    );
    assert_eq!(site.shim6.icmp_holddown, Duration::from_secs(600));
    assert!(!site.shim6.strict_locators && !site.shim6.icmp_errors_to_hosts && !site.mss_clamp);
}

// Issue "bad input": a wrong configuration is refused with file, line and field.
#[test]
fn each_wrong_value_is_named_with_its_place() {
    let table = [
        (
            "name = \"a-box\"",
            "name = \"a box\"",
            "site.toml:2:8: box.name: \"a box\" is not a name: 1 to 63 letters, digits, - _ . that begin with a letter or digit",
        ),
        ("id = 3", "id = 16", "site.toml:3:6: box.id: 16 is out of range: 0 to 15"),
        (
            "workers = 2",
            "workers = 3",
            "site.toml:7:9: box.cores: names 2 cores for 3 workers; one for each is expected",
        ),
        ("cores = [2, 3]", "cores = [2, 2]", "site.toml:7:13: box.cores[1]: core 2 stands twice"),
        (
            "idle = \"poll\"",
            "idle = \"nap\"",
            "site.toml:5:8: box.idle: unknown variant `nap`, expected `sleep` or `poll`",
        ),
        ("\"/run/a.sock\"", "\"\"", "site.toml:6:18: box.control_socket: names no file"),
        (
            "id = 3",
            "log = \"control=loud\"",
            "site.toml:3:7: box.log: \"control=loud\" is not a log filter: error parsing level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5",
        ),
        ("packets = 4", "packets = 0", "site.toml:9:20: box.hold.packets: 0 is out of range: 1 to 32"),
        (
            "packets = 4",
            "pakets = 4",
            "site.toml:9:10: box.hold.pakets: unknown field `pakets`, expected `packets` or `pairs`",
        ),
        (
            "memory_mb = 128",
            "memory_mb = \"128\"",
            "site.toml:12:13: eal.memory_mb: invalid type: string \"128\", expected i64",
        ),
        (
            "[eal]",
            "[eel]",
            "site.toml:11:2: eel: unknown; expected one of [box], [eal], [site], [[port]], [[provider]], [[peer]], [[fork]], [reap], [liveness], [hints], [shim6], [natv6], [setup], [dns], [publish], [dhcp], [ra], [store], [manage], [metrics], [web], [routes], [sync], [bmp]",
        ),
        (
            "fc00:a::/48",
            "2001:db8:a::/48",
            // R4193-001, R4193-021
            "site.toml:17:10: site.prefix: 2001:db8:a::/48 is not in fc00::/7, where identifiers come from (RFC 4193)",
        ),
        ("fc00:a::/48", "fc00::/32", "site.toml:17:10: site.prefix: fc00::/32 is not between /48 and /64 long"),
        (
            "fc00:a:0:1::/64",
            "fc00:c:0:1::/64",
            "site.toml:18:7: site.lan: fc00:c:0:1::/64 is not inside site.prefix fc00:a::/48",
        ),
        (
            "fc00:a:0:1::/64",
            "fc00:a:0:1::/80",
            "site.toml:18:7: site.lan: fc00:a:0:1::/80 is not a /64: the prefixes of an HBA set are 64 bits (RFC 5535)",
        ),
        ("port = \"lan\"", "port = \"len\"", "site.toml:19:8: site.port: there is no port called \"len\""),
        ("sec = 1", "sec = 3", "site.toml:21:7: site.sec: 3 is out of range: 0 to 2"),
        (
            "net_af_packet0,iface=a-lan",
            "a-lan",
            "site.toml:25:10: port[0].device: \"a-lan\" is neither a PCI address like 0000:3b:00.0 nor a DPDK device like net_af_packet0,iface=eth1",
        ),
        (
            "net_af_packet1,iface=a-y",
            "net_af_packet0,iface=a-y",
            "site.toml:37:10: port[2].device: \"net_af_packet0,iface=a-y\" is that of port[0] already",
        ),
        (
            "[\"fc00:a:0:1::1/64\"]",
            "[\"fc00:a:0:1::1\"]",
            "site.toml:26:14: port[0].addresses[0]: \"fc00:a:0:1::1\" is not an IPv6 address with its prefix length: no /length follows the address",
        ),
        (
            "[\"fc00:a:0:1::1/64\"]",
            "[]",
            "site.toml:26:13: port[0].addresses: the box needs an address of its own on every port",
        ),
        ("fe80::2/64", "ff02::2/64", "site.toml:32:35: port[1].addresses[1]: ff02::2 is not an address a box can have"),
        (
            "2001:db8:ab::2/64",
            "2001:db8:aa::2/64",
            "site.toml:38:14: port[2].addresses[0]: 2001:db8:aa::2 is taken already on line 32",
        ),
        (
            "02:00:00:00:0a:01",
            "03:00:00:00:0a:01",
            "site.toml:27:7: port[0].mac: 03:00:00:00:0a:01 is not a unicast Ethernet address",
        ),
        (
            "02:00:00:00:0a:01",
            "02-00",
            "site.toml:27:7: port[0].mac: \"02-00\" is not an Ethernet address: six pairs of hex digits with colons between are expected",
        ),
        ("mtu = 9000", "mtu = 1279", "site.toml:33:7: port[1].mtu: 1279 is out of range: 1280 to 9216"),
        (
            "name = \"y\"",
            "name = \"x\"",
            "site.toml:36:8: port[2].name: \"x\" is that of port[1] already\nsite.toml:48:8: provider[1].port: there is no port called \"y\"",
        ),
        ("port = \"x\"", "port = \"z\"", "site.toml:42:8: provider[0].port: there is no port called \"z\""),
        ("port = \"y\"", "port = \"lan\"", "site.toml:48:8: provider[1].port: port lan is used by site already"),
        ("port = \"y\"", "port = \"x\"", "site.toml:48:8: provider[1].port: port x is used by provider[0] already"),
        (
            "2001:db8:a2:1::/64",
            "2001:db8::/200",
            "site.toml:49:10: provider[1].prefix: \"2001:db8::/200\" is not an IPv6 prefix: a length lies between 0 and 128, not at 200",
        ),
        (
            "2001:db8:a2:1::/64",
            "2001:db8:a2::/48",
            "site.toml:49:10: provider[1].prefix: 2001:db8:a2::/48 is not a /64: the prefixes of an HBA set are 64 bits (RFC 5535); name one /64 of it",
        ),
        (
            "2001:db8:a2:1::/64",
            "fd00:a2:1::/64",
            "site.toml:49:10: provider[1].prefix: fd00:a2:1::/64 is in fc00::/7, which no provider routes (RFC 4193)",
        ),
        (
            "2001:db8:a2:1::/64",
            "2001:db8:ab::/64",
            "site.toml:49:10: provider[1].prefix: 2001:db8:ab::/64 holds the box's own address 2001:db8:ab::2/64: the delegated /64 is for locators, the link needs another",
        ),
        ("2001:db8:a2:1::/64", "fe80::/64", "site.toml:49:10: provider[1].prefix: fe80::/64 is not routable"),
        (
            "2001:db8:a2:1::/64",
            "2001:db8:a1:1::/64",
            "site.toml:49:10: provider[1].prefix: 2001:db8:a1:1::/64 is the prefix of provider[0] already",
        ),
        (
            "2001:db8:aa::1\"",
            "2001:db8:ac::1\"",
            "site.toml:44:12: provider[0].next_hop: 2001:db8:ac::1 is neither link-local nor on the link of port x (2001:db8:aa::2/64, fe80::2/64)",
        ),
        (
            "2001:db8:aa::1\"",
            "2001:db8:aa::2\"",
            "site.toml:44:12: provider[0].next_hop: 2001:db8:aa::2 is the box's own address on port x",
        ),
        (
            "fc00:b:0:1::5",
            "fc00:a:0:1::5",
            "site.toml:54:8: peer[0].ulid: fc00:a:0:1::5 is inside our own site.prefix fc00:a::/48",
        ),
        ("fc00:b:0:1::5", "ff02::1", "site.toml:54:8: peer[0].ulid: ff02::1 cannot identify a peer"),
        ("2001:db8:b2:1::5", "2001:db8:b1:1::5", "site.toml:55:33: peer[0].locators[1]: 2001:db8:b1:1::5 stands twice"),
        (
            "2001:db8:b2:1::5",
            "fc00:b::5",
            "site.toml:55:33: peer[0].locators[1]: fc00:b::5 is not routable, so it cannot locate a peer",
        ),
        (
            "2001:db8:b2:1::5",
            "2001:db8:a2:1::5",
            "site.toml:55:33: peer[0].locators[1]: 2001:db8:a2:1::5 is inside the prefix of our own provider isp-y",
        ),
        (
            "send_timeout_s = 20",
            "send_timeout_s = 101",
            "site.toml:58:18: reap.send_timeout_s: 101 is out of range: 3 to 100",
        ),
        (
            "send_timeout_s = 20",
            "max_probe_s = 1\nprobe_interval_ms = 2000",
            "site.toml:58:15: reap.max_probe_s: max_probe_s is shorter than probe_interval_ms",
        ),
        (
            "i1_timeout_ms = 2000",
            "validator_lifetime_s = 29",
            "site.toml:61:24: shim6.validator_lifetime_s: 29 is out of range: 30 to 600",
        ),
        (
            "i1_timeout_ms = 2000",
            "idle_context_s = 299",
            "site.toml:61:18: shim6.idle_context_s: 299 is out of range: 300 to 604800",
        ),
        (
            "i1_timeout_ms = 2000",
            "icmp_holddown_s = 59",
            "site.toml:61:19: shim6.icmp_holddown_s: no_r1_holddown_s is longer than icmp_holddown_s; \"no support\" is remembered longer than \"no answer\"",
        ),
        (
            "strict_locators = true",
            "strict_locators = 1",
            "site.toml:62:19: shim6.strict_locators: invalid type: integer `1`, expected a boolean",
        ),
        ("strict_locators = true", "strict_locators = true\nstrict_locators = true", "site.toml:63:1: duplicate key"),
        (
            "strict_locators = true",
            "flow_label = \"on\"",
            "site.toml:62:14: shim6.flow_label: unknown variant `on`, expected one of `off`, `unlabelled`, `all`",
        ),
        ("[reap]", "[[reap]]", "site.toml:57:1: reap: stands once only, as [reap]"),
        ("[[peer]]", "[peer]", "site.toml:52:1: peer: is written [[peer]], once for each"),
    ];
    let mut wrong = String::new();
    for (from, to, expected) in table {
        let found = said(from, to);
        if found.join("\n") != expected {
            wrong += &format!("{to}:\n  expected {expected}\n  found    {}\n", found.join("\n           "));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_missing_field_is_named_at_its_table() {
    let table = [
        ("name = \"a-box\"\n", "site.toml:1:1: box.name: is missing"),
        ("prefix = \"fc00:a::/48\"\n", "site.toml:16:1: site.prefix: is missing"),
        ("device = \"3b:00.0\"\n", "site.toml:29:1: port[1].device: is missing"),
        ("next_hop = \"fe80::1\"\n", "site.toml:46:1: provider[1].next_hop: is missing"),
        ("ulid = \"fc00:b:0:1::5\"\n", "site.toml:52:1: peer[0].ulid: is missing"),
    ];
    for (row, expected) in table {
        assert_eq!(said(row, ""), [expected]);
    }
    let nothing = load("").unwrap_err();
    let expected = ["box", "site", "port", "provider"].map(|section| format!("site.toml:1:1: {section}: is missing"));
    assert_eq!(nothing, expected);
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let mut text = GOOD.to_string();
    for (from, to) in [
        ("id = 3", "id = 99\ncolour = \"red\"\nshape = 4"),
        ("workers = 2", "workers = \"two\""),
        ("2001:db8:a2:1::/64", "2001:db8:a2:1::1/64"),
        ("next_hop = \"fe80::1\"", "next_hop = 5"),
        ("i1_timeout_ms = 2000", "i1_timeout_ms = 1"),
    ] {
        text = text.replace(from, to);
    }
    let fields: Vec<String> = load(&text)
        .unwrap_err()
        .iter()
        .map(|it| it.splitn(4, ':').nth(3).unwrap().split(": ").next().unwrap().trim().to_string())
        .collect();
    assert_eq!(
        fields,
        [
            "box.id",
            "box.colour",
            "box.shape",
            "box.workers",
            "box.cores",
            "provider[1].prefix",
            "provider[1].next_hop",
            "shim6.i1_timeout_ms"
        ]
    );
}

#[test]
fn what_is_not_toml_is_named_too() {
    assert_eq!(said("id = 3", "id = "), ["site.toml:3:6: string values must be quoted, expected literal string"]);
    assert_eq!(said("[eal]", "[eal"), ["site.toml:11:5: unclosed table, expected `]`"]);
}

#[test]
fn what_can_be_obeyed_but_should_be_known_is_a_warning() {
    // R5534-104
    assert_eq!(
        warned("send_timeout_s = 20", "send_timeout_s = 3"),
        ["site.toml:58:18: reap.send_timeout_s: 3 s is below the 10 s that RFC 5534 section 7 advises (R5534-104)"]
    );
    assert_eq!(
        warned(
            "[reap]",
            "[[port]]\nname = \"spare\"\ndevice = \"net_null0\"\naddresses = [\"2001:db8:ff::1/64\"]\n[reap]"
        ),
        ["site.toml:58:8: port[3].name: port spare is used neither by the site nor by a provider"]
    );
    assert_eq!(
        warned("fc00:a:0:1::1/64", "fe80::1/64"),
        ["site.toml:26:13: port[0].addresses: the box has no address in site.lan fc00:a:0:1::/64 on this port"]
    );
    // R4193-002
    let local = GOOD.replace("fc00:a", "fd00:a");
    let (_, warnings) = load(&local).unwrap();
    assert!(warnings[0].text.contains("locally assigned"), "{warnings:?}");
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let problems = Site::load(Path::new("/nonexistent/site.toml")).unwrap_err();
    assert!(problems.to_string().starts_with("/nonexistent/site.toml: cannot be read: No such file"), "{problems}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic_or_refuse_without_a_reason(cut in 0..GOOD.len(), noise in "[\\[\\]=\"a-z0-9:/\\n .{}]{0,12}") {
        let text = format!("{}{noise}{}", &GOOD[..cut], &GOOD[cut..]);
        if let Err(problems) = load(&text) {
            proptest::prop_assert!(!problems.is_empty());
        }
        if let Err(problems) = load(&GOOD[..cut]) {
            proptest::prop_assert!(!problems.is_empty());
        }
    }
}
