//! What a reload takes over and what takes a restart: one table, by which the daemon decides and which
//! `docs/operations.md` shows.
//!
//! Each setting is listed as what it is called in `site.toml`. Those that a reload takes over say how to make a new
//! configuration like the old one in this respect; what then still differs takes a restart, so that a setting somebody forgets
//! to list here is refused and never passed over.

use super::Site;
use super::site::{Routes, TlsFiles};

/// What becomes of a setting that was changed while the box runs.
#[derive(Clone, Copy, Debug)]
pub enum Takes {
    /// A reload takes it over. The function makes the first like the second in this respect.
    Reload(fn(&mut Site, &Site)),
    /// Only a restart does. The function says whether both are alike in this respect.
    Restart(fn(&Site, &Site) -> bool),
}

/// One setting, or a section of them that share their fate.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// As in `site.toml`: `[section]`, or `section.field`.
    pub name: &'static str,
    /// What becomes of it.
    pub takes: Takes,
}

const fn reload(name: &'static str, like: fn(&mut Site, &Site)) -> Setting {
    Setting { name, takes: Takes::Reload(like) }
}

const fn restart(name: &'static str, alike: fn(&Site, &Site) -> bool) -> Setting {
    Setting { name, takes: Takes::Restart(alike) }
}

/// Every setting there is. A `Restart` is asked after every `Reload` had its turn, so a section may be listed as a restart
/// although some of its fields are reloaded.
pub const SETTINGS: &[Setting] = &[
    reload("box.log", |new, old| new.node.log.clone_from(&old.node.log)),
    reload("box.policy_file", |new, old| new.node.policy_file.clone_from(&old.node.policy_file)),
    reload("site.key", |new, old| new.key.clone_from(&old.key)),
    reload("site.sec", |new, old| new.sec = old.sec),
    reload("site.mss_clamp", |new, old| new.mss_clamp = old.mss_clamp),
    reload("site.quarantine_s", |new, old| new.quarantine = old.quarantine),
    reload("[[provider]]", |new, old| new.providers.clone_from(&old.providers)),
    reload("[[peer]]", |new, old| new.peers.clone_from(&old.peers)),
    reload("[[fork]]", |new, old| new.forks.clone_from(&old.forks)),
    reload("hints.link", |new, old| new.hints.link = old.hints.link),
    reload("hints.icmp", |new, old| new.hints.icmp = old.hints.icmp),
    reload("shim6.announce_down", |new, old| new.shim6.announce_down = old.shim6.announce_down),
    reload("shim6.icmp_errors_to_hosts", |new, old| {
        new.shim6.icmp_errors_to_hosts = old.shim6.icmp_errors_to_hosts;
    }),
    reload("[setup]", |new, old| new.setup = old.setup),
    reload("[natv6]", |new, old| like_if_both(&mut new.natv6, &old.natv6)),
    reload("[dhcp]", |new, old| like_if_both(&mut new.dhcp, &old.dhcp)),
    reload("[ra]", |new, old| like_if_both(&mut new.advertising, &old.advertising)),
    reload("manage.certificate", |new, old| {
        like_tls(new, old, |new, old| new.certificate.clone_from(&old.certificate));
    }),
    reload("manage.key", |new, old| like_tls(new, old, |new, old| new.key.clone_from(&old.key))),
    reload("manage.clients_read_ca", |new, old| {
        like_tls(new, old, |new, old| new.readers.clone_from(&old.readers));
    }),
    reload("manage.clients_operator_ca", |new, old| {
        like_tls(new, old, |new, old| new.operators.clone_from(&old.operators));
    }),
    reload("site.router", |new, old| new.router = old.router),
    reload("routes.role", |new, old| like_routes(new, old, |new, old| new.role = old.role)),
    reload("routes.metric", |new, old| like_routes(new, old, |new, old| new.metric = old.metric)),
    reload("routes.inside", |new, old| like_routes(new, old, |new, old| new.inside.clone_from(&old.inside))),
    reload("routes.linger_ms", |new, old| like_routes(new, old, |new, old| new.linger = old.linger)),
    reload("routes.inside_after_ms", |new, old| like_routes(new, old, |new, old| new.inside_after = old.inside_after)),
    restart("box.name", |new, old| new.node.name == old.node.name),
    restart("box.id", |new, old| new.node.id == old.node.id),
    restart("box.workers", |new, old| new.node.workers == old.node.workers),
    restart("box.idle", |new, old| new.node.idle == old.node.idle),
    restart("box.cores", |new, old| new.node.cores == old.node.cores),
    restart("box.control_socket", |new, old| new.node.control_socket == old.node.control_socket),
    restart("box.hosts_file", |new, old| new.node.hosts_file == old.node.hosts_file),
    restart("box.proof_threads", |new, old| new.node.proof_threads == old.node.proof_threads),
    restart("box.contexts_max", |new, old| new.node.contexts_max == old.node.contexts_max),
    restart("box.hold", |new, old| {
        (new.node.hold_packets, new.node.hold_pairs) == (old.node.hold_packets, old.node.hold_pairs)
    }),
    restart("[eal]", |new, old| new.eal == old.eal),
    restart("site.prefix", |new, old| new.prefix == old.prefix),
    restart("site.identifier_blocks", |new, old| new.identifier_blocks == old.identifier_blocks),
    restart("site.lan", |new, old| new.lan == old.lan),
    restart("site.port", |new, old| new.lan_port == old.lan_port),
    restart("[[port]]", |new, old| new.ports == old.ports),
    restart("[[provider]] that is delegated or discovered", |new, old| new.uplinks == old.uplinks),
    restart("[reap]", |new, old| new.reap == old.reap),
    restart("[liveness]", |new, old| new.liveness == old.liveness),
    restart("hints.tcp", |new, old| new.hints == old.hints),
    restart("the rest of [shim6]", |new, old| new.shim6 == old.shim6),
    restart("whether there is [natv6]", |new, old| new.natv6.is_some() == old.natv6.is_some()),
    restart("whether there is [dhcp]", |new, old| new.dhcp.is_some() == old.dhcp.is_some()),
    restart("whether there is [ra]", |new, old| new.advertising.is_some() == old.advertising.is_some()),
    restart("[store]", |new, old| (&new.store, &new.cluster) == (&old.store, &old.cluster)),
    restart("[dns]", |new, old| new.dns == old.dns),
    restart("[publish]", |new, old| new.publish == old.publish),
    restart("the rest of [manage]", |new, old| new.manage == old.manage),
    restart("[metrics]", |new, old| new.metrics == old.metrics),
    restart("[web]", |new, old| new.web == old.web),
    restart("the rest of [routes]", |new, old| new.routes == old.routes),
    restart("[sync]", |new, old| new.sync == old.sync),
    restart("[bmp]", |new, old| new.bmp == old.bmp),
];

/// What is told of a difference that no setting above owns up to.
const UNLISTED: &str = "another setting";

/// What differs between two configurations and takes a restart; nothing if a reload takes over all that differs.
pub fn needs_restart(old: &Site, new: &Site) -> Vec<&'static str> {
    let mut rest = new.clone();
    for setting in SETTINGS {
        if let Takes::Reload(like) = setting.takes {
            like(&mut rest, old);
        }
    }
    if rest == *old {
        return Vec::new();
    }
    let differs = |setting: &&Setting| matches!(setting.takes, Takes::Restart(alike) if !alike(&rest, old));
    let names: Vec<&'static str> = SETTINGS.iter().filter(differs).map(|setting| setting.name).collect();
    if names.is_empty() { vec![UNLISTED] } else { names }
}

/// A section that a reload takes over as long as it neither comes nor goes.
fn like_if_both<T: Clone>(new: &mut Option<T>, old: &Option<T>) {
    if new.is_some() && old.is_some() {
        new.clone_from(old);
    }
}

/// Other routes; whether there are any is not taken over.
fn like_routes(new: &mut Site, old: &Site, like: fn(&mut Routes, &Routes)) {
    if let (Some(new), Some(old)) = (&mut new.routes, &old.routes) {
        like(new, old);
    }
}

/// Other files at the same port; where there is none before or after, nothing of it is taken over.
fn like_tls(new: &mut Site, old: &Site, like: fn(&mut TlsFiles, &TlsFiles)) {
    if let (Some(new), Some(old)) = (&mut new.manage.tls, &old.manage.tls) {
        like(new, old);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A site with every section.
    const SITE: &str = r#"[box]
name = "a-box"

[site]
prefix = "fc00:a::/48"
lan = "fc00:a:0:1::/64"
port = "lan"

[[port]]
name = "lan"
device = "net_af_packet0,iface=eth0"
addresses = ["fc00:a:0:1::1/64"]
interface = "ps-lan"

[[port]]
name = "x"
device = "net_af_packet1,iface=eth1"
addresses = ["2001:db8:aa::2/64"]

[[port]]
name = "y"
device = "net_af_packet2,iface=eth2"
addresses = ["2001:db8:ab::2/64"]
interface = "ps-y"

[[provider]]
name = "isp-x"
port = "x"
prefix = "2001:db8:a1:1::/64"
next_hop = "2001:db8:aa::1"

[store]
file = "leases"
[natv6]
enabled = true
[dhcp]
[ra]
[dns]
upstream = ["2001:db8::53"]
[publish]
servers = ["2001:db8::53"]
zone = "a.example"
reverse = "a.0.0.0.0.0.c.f.ip6.arpa"
key = "tsig.key"
[manage]
mode = "0660"
listen = "[::1]:9465"
certificate = "box.pem"
key = "box-key.pem"
clients_read_ca = "readers.pem"
clients_operator_ca = "operators.pem"
[metrics]
listen = "[::1]:9464"
[web]
listen = "[::1]:8080"
[routes]
[bmp]
listen = "[::1]:11019"
plain = true
from = ["::1"]
[[bmp.source]]
provider = "isp-x"
peer = "2001:db8:aa::1"
"#;

    /// For each setting of the table, what to write instead of what (or, without anything, which section to add).
    const CHANGES: &[(&str, &str, &str)] = &[
        ("box.log", "name = \"a-box\"", "name = \"a-box\"\nlog = \"debug\""),
        ("box.policy_file", "name = \"a-box\"", "name = \"a-box\"\npolicy_file = \"other.json\""),
        ("site.key", "port = \"lan\"", "port = \"lan\"\nkey = \"key.pem\""),
        ("site.sec", "port = \"lan\"", "port = \"lan\"\nsec = 1"),
        ("site.mss_clamp", "port = \"lan\"", "port = \"lan\"\nmss_clamp = true"),
        ("site.quarantine_s", "port = \"lan\"", "port = \"lan\"\nquarantine_s = 1000"),
        ("[[provider]]", "2001:db8:aa::1\"", "2001:db8:aa::3\""),
        ("[[peer]]", "", "[[peer]]\nulid = \"fc00:b::1\"\nlocators = [\"2001:db8:b::1\"]"),
        ("[[fork]]", "", "[[fork]]\nname = \"voice\"\ndscp = [\"ef\"]\nproviders = [\"isp-x\"]"),
        ("hints.link", "", "[hints]\nlink = false"),
        ("hints.icmp", "", "[hints]\nicmp = false"),
        ("shim6.announce_down", "", "[shim6]\nannounce_down = false"),
        ("shim6.icmp_errors_to_hosts", "", "[shim6]\nicmp_errors_to_hosts = true"),
        ("[setup]", "", "[setup]\npackets = 7"),
        ("[natv6]", "enabled = true", "enabled = true\nidle_s = 300"),
        ("[dhcp]", "[dhcp]", "[dhcp]\nleases_max = 7"),
        ("[ra]", "[ra]", "[ra]\ninterval_s = 7"),
        ("manage.certificate", "\"box.pem\"", "\"new.pem\""),
        ("manage.key", "\"box-key.pem\"", "\"new-key.pem\""),
        ("manage.clients_read_ca", "clients_read_ca = \"readers.pem\"\n", ""),
        ("manage.clients_operator_ca", "\"operators.pem\"", "\"others.pem\""),
        ("site.router", "port = \"lan\"", "port = \"lan\"\nrouter = \"fe80::9\""),
        ("routes.role", "[routes]", "[routes]\nrole = \"backup\"\nmetric = 100"),
        ("routes.metric", "[routes]", "[routes]\nmetric = 7"),
        ("routes.inside", "[routes]", "[routes]\ninside = [\"fc00::/16\"]"),
        ("routes.linger_ms", "[routes]", "[routes]\nlinger_ms = 0"),
        ("routes.inside_after_ms", "[routes]", "[routes]\ninside_after_ms = 0"),
        ("box.name", "name = \"a-box\"", "name = \"b-box\""),
        ("box.id", "name = \"a-box\"", "name = \"a-box\"\nid = 7"),
        ("box.workers", "name = \"a-box\"", "name = \"a-box\"\nworkers = 2"),
        ("box.idle", "name = \"a-box\"", "name = \"a-box\"\nidle = \"poll\""),
        ("box.cores", "name = \"a-box\"", "name = \"a-box\"\ncores = [1]"),
        ("box.control_socket", "name = \"a-box\"", "name = \"a-box\"\ncontrol_socket = \"c.sock\""),
        ("box.hosts_file", "name = \"a-box\"", "name = \"a-box\"\nhosts_file = \"h.json\""),
        ("box.proof_threads", "name = \"a-box\"", "name = \"a-box\"\nproof_threads = 2"),
        ("box.contexts_max", "name = \"a-box\"", "name = \"a-box\"\ncontexts_max = 2000"),
        ("box.hold", "name = \"a-box\"", "name = \"a-box\"\nhold = { packets = 2 }"),
        ("[eal]", "", "[eal]\nmemory_mb = 512"),
        ("site.prefix", "\"fc00:a::/48\"", "\"fc00:a::/56\""),
        ("site.identifier_blocks", "port = \"lan\"", "port = \"lan\"\nidentifier_blocks = [\"5f00::/16\"]"),
        ("site.lan", "lan = \"fc00:a:0:1::/64\"", "lan = \"fc00:a:0:2::/64\""),
        ("site.port", "port = \"lan\"", "port = \"y\""),
        ("[[port]]", "2001:db8:ab::2/64", "2001:db8:ab::3/64"),
        ("[[provider]] that is delegated or discovered", "next_hop = \"2001:db8:aa::1\"", "next_hop = \"discover\""),
        ("[reap]", "", "[reap]\nsend_timeout_s = 12"),
        ("[liveness]", "", "[liveness]\nenabled = true"),
        ("hints.tcp", "", "[hints]\ntcp = false"),
        ("the rest of [shim6]", "", "[shim6]\nforks_max = 2"),
        ("whether there is [natv6]", "enabled = true", "enabled = false"),
        ("whether there is [dhcp]", "[dhcp]\n", ""),
        ("whether there is [ra]", "[ra]\n", ""),
        ("[store]", "\"leases\"", "\"others\""),
        ("[dns]", "[dns]", "[dns]\ncache_mb = 1"),
        ("[publish]", "a.example", "b.example"),
        ("the rest of [manage]", "0660", "0600"),
        ("[metrics]", "9464", "9466"),
        ("[web]", "8080", "8081"),
        ("the rest of [routes]", "[routes]", "[routes]\npackets_per_s = 70"),
        (
            "[sync]",
            "",
            "[sync]\nlisten = \"[::1]:4700\"\npeers = [\"[::1]:4701\"]\ncertificate = \"c\"\nkey = \"k\"\nca = \"a\"\n\
             secret = \"s\"",
        ),
        ("[bmp]", "11019", "11020"),
    ];

    fn parsed(text: &str) -> Site {
        Site::parse(Path::new("/etc/pshim6/site.toml"), text).unwrap_or_else(|problems| panic!("{text}\n{problems}")).0
    }

    fn changed(from: &str, to: &str) -> Site {
        let text = if from.is_empty() { format!("{SITE}\n{to}\n") } else { SITE.replacen(from, to, 1) };
        assert_ne!(text, SITE, "{from:?} is not there");
        parsed(&text)
    }

    #[test]
    fn each_setting_is_taken_over_or_named() {
        let old = parsed(SITE);
        assert_eq!(needs_restart(&old, &old), Vec::<&str>::new());
        let names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        assert_eq!(names, CHANGES.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), "one change for each setting");
        for (setting, (name, from, to)) in SETTINGS.iter().zip(CHANGES) {
            let new = changed(from, to);
            assert_ne!(old, new, "{name}: the change is none");
            let expected: &[&str] = match setting.takes {
                Takes::Reload(_) => &[],
                Takes::Restart(_) => &[setting.name],
            };
            assert_eq!(needs_restart(&old, &new), expected, "{name}");
            assert_eq!(needs_restart(&new, &old), expected, "{name}, back again");
        }
    }

    #[test]
    fn several_are_named_together_beside_what_is_taken_over() {
        let old = parsed(SITE);
        let new = changed("name = \"a-box\"", "name = \"b-box\"\nid = 7\nlog = \"warn\"");
        assert_eq!(needs_restart(&old, &new), ["box.name", "box.id"]);
    }

    #[test]
    fn the_page_for_operators_lists_what_the_table_does() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
        let page = std::fs::read_to_string(page).unwrap();
        let row = |begin: &str, of: fn(&Takes) -> bool| {
            let names = SETTINGS.iter().filter(|setting| of(&setting.takes)).map(|it| format!("`{}`", it.name));
            format!("| {begin} | {} |\n", names.collect::<Vec<_>>().join(", "))
        };
        let taken = row("a reload takes over", |takes| matches!(takes, Takes::Reload(_)));
        let left = row("takes a restart", |takes| matches!(takes, Takes::Restart(_)));
        assert!(page.contains(&taken), "docs/operations.md should say\n{taken}");
        assert!(page.contains(&left), "docs/operations.md should say\n{left}");
    }
}
