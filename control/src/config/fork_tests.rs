//! `[[fork]]`: what is good is read to the letter, what is wrong has its place.

use dataplane::snapshot::ClassView;

use super::tests::{GOOD, load};

const VOICE: &str = "[[fork]]\nname = \"voice\"\ndscp = [\"ef\", \"AF41\", \"7\"]\nproviders = [\"isp-y\"]\n";

/// What is said of the good file and a class, with the line counted from the class's own.
fn said(class: &str) -> Vec<String> {
    let first = GOOD.lines().count();
    let counted = |text: String| {
        let mut parts = text.splitn(3, ':');
        let (_, line, rest) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
        format!("{}:{rest}", line.parse::<usize>().unwrap() - first)
    };
    load(&format!("{GOOD}{class}")).expect_err(class).into_iter().map(counted).collect()
}

#[test]
fn what_is_said_is_read() {
    let (site, _) = load(GOOD).unwrap();
    assert_eq!(site.forks, [], "without a section there is no class");
    let bulk = "[[fork]]\nname = \"bulk\"\nprotocol = \"tcp\"\nports = [\"80\", \"5000-5999\"]\nsource_ports = [\"1-65535\"]\n\
                target_ports = [\"0\"]\nhosts = [\"fc00:a:0:1::/64\"]\npeers = [\"fc00:b::/48\", \"fc00:c::1/128\"]\n\
                providers = [\"isp-y\", \"isp-x\"]\n";
    let (site, warnings) = load(&format!("{GOOD}{VOICE}{bulk}")).unwrap();
    let [voice, bulk] = &site.forks[..] else { panic!("{:?}", site.forks) };
    assert_eq!((&voice.name[..], &voice.providers[..]), ("voice", &[1][..]));
    assert_eq!(voice.class, ClassView { code_points: 1 << 46 | 1 << 34 | 1 << 7, ..ClassView::default() });
    assert_eq!((voice.hosts.len(), voice.peers.len()), (0, 0));
    assert_eq!(
        bulk.class,
        ClassView {
            code_points: u64::MAX,
            protocol: Some(6),
            ports: vec![80..=80, 5000..=5999],
            source_ports: vec![1..=65535],
            target_ports: vec![0..=0],
        }
    );
    assert_eq!((bulk.hosts.len(), bulk.peers.len(), &bulk.providers[..]), (1, 2, &[1, 0][..]));
    assert!(warnings.iter().all(|it| !it.field.starts_with("fork")), "{warnings:?}");
    let (site, _) = load(&format!("{GOOD}{}", VOICE.replace("dscp", "protocol = \"50\"\ndscp"))).unwrap();
    assert_eq!(site.forks[0].class.protocol, Some(50));
}

#[test]
fn what_is_wrong_has_its_place() {
    let with = |line: &str| format!("{VOICE}{line}\n");
    let table = [
        (
            with("protocol = \"tpc\""),
            "5:12: fork[0].protocol: \"tpc\" is no protocol: tcp, udp, dccp, esp, icmpv6, sctp, udplite, or 0 to 255",
        ),
        (
            with("protocol = \"300\""),
            "5:12: fork[0].protocol: \"300\" is no protocol: tcp, udp, dccp, esp, icmpv6, sctp, udplite, or 0 to 255",
        ),
        (
            with("protocol = \"44\""),
            "5:12: fork[0].protocol: 44 is an extension header, behind which the protocol is looked for",
        ),
        (with("protocol = \"icmpv6\"\nports = [\"1\"]"), "6:9: fork[0].ports: protocol 58 has no ports"),
        (
            with("ports = [\"6-5\"]"),
            "5:10: fork[0].ports[0]: \"6-5\" is neither a port, as 80, nor a range, as 5000-5999",
        ),
        (
            with("target_ports = [\"80\", \"+1\"]"),
            "5:23: fork[0].target_ports[1]: \"+1\" is neither a port, as 80, nor a range, as 5000-5999",
        ),
        (with("source_ports = []"), "5:16: fork[0].source_ports: has 0 entries: 1 to 16"),
        (
            with("hosts = [\"fc00:b::/48\"]"),
            "5:10: fork[0].hosts[0]: fc00:b::/48 is not inside site.prefix fc00:a::/48",
        ),
        (
            with("peers = [\"fc00:a:0:1::/64\"]"),
            "5:10: fork[0].peers[0]: fc00:a:0:1::/64 is inside our own site.prefix fc00:a::/48",
        ),
        (
            with("colour = 1"),
            "5:1: fork[0].colour: unknown field `colour`, expected one of `name`, `dscp`, `protocol`, `ports`, `source_ports`, `target_ports`, `hosts`, `peers`, `providers`",
        ),
        (VOICE.replace("[\"ef\", \"AF41\", \"7\"]", "[]"), "3:8: fork[0].dscp: names no code point"),
        (
            VOICE.replace("AF41", "64"),
            "3:15: fork[0].dscp[1]: \"64\" is no code point: a name as ef or af41, or 0 to 63",
        ),
        (VOICE.replace("isp-y", "isp-z"), "4:14: fork[0].providers[0]: there is no provider called \"isp-z\""),
        (VOICE.replace("\"isp-y\"", "\"isp-y\", \"isp-y\""), "4:23: fork[0].providers[1]: \"isp-y\" stands twice"),
        (
            VOICE.replace("\"isp-y\"", ""),
            "4:13: fork[0].providers: names no provider, so the class would be no different from the rest",
        ),
        (VOICE.replace("providers = [\"isp-y\"]\n", ""), "1:1: fork[0].providers: is missing"),
        (VOICE.replace("name = \"voice\"\n", ""), "1:1: fork[0].name: is missing"),
        (
            VOICE.replace("dscp = [\"ef\", \"AF41\", \"7\"]\n", ""),
            "1:1: fork[0]: says neither dscp nor protocol nor ports, and would take every packet",
        ),
        (format!("{VOICE}{VOICE}"), "6:8: fork[1].name: \"voice\" is that of fork[0] already"),
    ];
    for (class, expected) in table {
        assert_eq!(said(&class), [expected]);
    }
    assert_eq!(said("[fork]\nname = \"voice\"\n"), ["1:1: fork: is written [[fork]], once for each"]);
}

#[test]
fn there_are_fifteen_classes_and_a_warning_of_peers_that_take_fewer() {
    let classes = |count: usize| -> String {
        (0..count).map(|number| VOICE.replace("voice", &format!("class-{number}"))).collect()
    };
    let (site, warnings) = load(&format!("{GOOD}{}", classes(15))).unwrap();
    assert_eq!(site.forks.len(), 15);
    let told: Vec<&str> = warnings.iter().filter(|it| it.field == "fork[4]").map(|it| &it.text[..]).collect();
    assert_eq!(told, ["peers with shim6.forks_max = 4, as here, take 4 forked contexts of a pair and not 15"]);
    let (_, warnings) = load(&format!("{GOOD}{}", classes(4))).unwrap();
    assert!(warnings.iter().all(|it| !it.field.starts_with("fork")), "{warnings:?}");
    assert_eq!(said(&classes(16)), ["61:1: fork[15]: 16 classes; there may be 15"]);
}
