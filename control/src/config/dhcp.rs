//! What clients inside are given: leases (`[dhcp]`), what routers tell (`[ra]`), and where it is kept (`[store]`).

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::check::{checked_name, number, required};
use super::file::{DhcpSection, RaSection, ReservationSection, SiteFile};
use super::limits;
use super::network::{Network, parsed};
use super::prefix::Prefix;
use super::site::{Advertising, Dhcp};
use super::source::Source;
use crate::dhcp::options::{AUTOMATIC_ROWS, PRIVACY, PolicyRow, encode_name, policy_with};
use crate::dhcp::{Duid, Reservation};

/// Lists of a few servers, domains or routes fit every message.
const ENTRIES_MAX: usize = 8;
/// So do these rows beside the others of the hosts' policy table.
const SELECTION_MAX: usize = 16;

/// Where everything is kept that must not be forgotten.
pub(super) fn store(source: &mut Source<'_>, file: &SiteFile, directory: &Path) -> Option<PathBuf> {
    let section = file.store.as_ref()?;
    let path = required(source, &section.span(), "file", &section.get_ref().file)?;
    if path.get_ref().is_empty() {
        source.problem(&path.span(), "names no file");
    }
    Some(directory.join(path.get_ref()))
}

pub(super) fn dhcp(source: &mut Source<'_>, file: &SiteFile, network: &Network) -> Option<Dhcp> {
    let table = file.dhcp.as_ref()?;
    let (span, section) = (table.span(), table.get_ref());
    if file.store.is_none() {
        source.problem(&span, "needs [store]: a lease has to outlive the box");
    }
    let preferred: u32 = number(source, &section.preferred_s, limits::DHCP_PREFERRED_S);
    let valid: u32 = number(source, &section.valid_s, limits::DHCP_VALID_S);
    let t1: u32 = number(source, &section.t1_s, limits::DHCP_T1_S);
    let t2: u32 = number(source, &section.t2_s, limits::DHCP_T2_S);
    let (t1, t2) = (if t1 == 0 { preferred / 2 } else { t1 }, if t2 == 0 { preferred / 5 * 4 } else { t2 });
    if preferred > valid {
        let field = section.preferred_s.as_ref().or(section.valid_s.as_ref());
        source.problem(&field.map_or(span.clone(), Spanned::span), "preferred_s is longer than valid_s");
    }
    // RFC 8415 §21.4
    if t1 > t2 || t2 > preferred {
        let field = section.t2_s.as_ref().or(section.t1_s.as_ref()).or(section.preferred_s.as_ref());
        let text = format!("t1_s ({t1}), t2_s ({t2}) and preferred_s ({preferred}) must not fall");
        source.problem(&field.map_or(span.clone(), Spanned::span), text);
    }
    let leases_max: usize = number(source, &section.leases_max, limits::DHCP_LEASES_MAX);
    let reservations = reservations(source, section);
    if reservations.len() >= leases_max {
        source
            .problem(&span, format!("{} reservations leave nothing of leases_max = {leases_max}", reservations.len()));
    }
    Some(Dhcp {
        leases_max,
        leases_per_client: number(source, &section.leases_per_client, limits::DHCP_LEASES_PER_CLIENT),
        leases_per_source: number(source, &section.leases_per_source, limits::DHCP_LEASES_PER_SOURCE),
        leases_per_relay: number(source, &section.leases_per_relay, limits::DHCP_LEASES_PER_RELAY),
        preferred,
        valid,
        trial: number(source, &section.trial_s, limits::DHCP_TRIAL_S),
        t1,
        t2,
        rapid_commit: section.rapid_commit.unwrap_or(true),
        preference: number(source, &section.preference, limits::DHCP_PREFERENCE),
        dns_servers: dns_servers(source, section),
        search: search(source, section),
        policy: policy(source, section, network),
        policy_flags: flags(section),
        relays: relays(source, section, network),
        reservations,
    })
}

/// The hosts' policy table: what is said, then the rows of identifiers, then what RFC 6724 has and nobody said otherwise.
fn policy(source: &mut Source<'_>, section: &DhcpSection, network: &Network) -> Vec<PolicyRow> {
    let said = selection(source, section);
    let prefer = match &section.prefer {
        None => cmulas(),
        Some(text) if text.get_ref() == "none" => {
            if let Some(row) = section.selection.iter().flatten().next() {
                source.problem(&row.span(), "is a row of a table that dhcp.prefer = \"none\" does not send");
            }
            return Vec::new();
        }
        Some(text) => parsed(source, text, "an IPv6 prefix or \"none\""),
    };
    // The site's own hosts are among those that are preferred, wherever their addresses come from.
    let mut blocks: Vec<Prefix> = prefer.into_iter().collect();
    for block in network.identifier_blocks.iter().chain([&network.prefix]) {
        if !blocks.iter().any(|other| other.covers(*block)) {
            blocks.push(*block);
        }
    }
    let blocks: Vec<_> = blocks.iter().map(|block| (block.address(), block.length())).collect();
    policy_with(&said, &blocks)
}

fn flags(section: &DhcpSection) -> u8 {
    let automatic = section.selection_automatic.unwrap_or(true);
    let privacy = section.selection_privacy.unwrap_or(true);
    (if automatic { AUTOMATIC_ROWS } else { 0 }) | (if privacy { PRIVACY } else { 0 })
}

fn selection(source: &mut Source<'_>, section: &DhcpSection) -> Vec<PolicyRow> {
    let tables = section.selection.as_deref().unwrap_or_default();
    if let Some(more) = tables.get(SELECTION_MAX) {
        source.problem(&more.span(), format!("is one row too many: at most {SELECTION_MAX}"));
    }
    let mut rows: Vec<PolicyRow> = Vec::new();
    for table in tables {
        let (span, section) = (table.span(), table.get_ref());
        let prefix = required(source, &span, "prefix", &section.prefix);
        let prefix: Option<Prefix> = prefix.and_then(|text| parsed(source, text, "an IPv6 prefix"));
        let mut octet = |field: &str, value: &Option<Spanned<i64>>| {
            let value = required(source, &span, field, value)?;
            let octet = u8::try_from(*value.get_ref());
            if octet.is_err() {
                source.problem(&value.span(), "is out of range: 0 to 255");
            }
            octet.ok()
        };
        let (precedence, label) = (octet("precedence", &section.precedence), octet("label", &section.label));
        let (Some(prefix), Some(precedence), Some(label)) = (prefix, precedence, label) else { continue };
        let row = PolicyRow { prefix: prefix.address(), length: prefix.length(), precedence, label };
        if rows.iter().any(|other| (other.prefix, other.length) == (row.prefix, row.length)) {
            source.problem(&span, format!("is about {prefix}, of which there is a row already"));
        }
        rows.push(row);
    }
    rows
}

/// The half of fc00::/7 that is for managed blocks.
fn cmulas() -> Option<Prefix> {
    Prefix::of(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 8)
}

fn list<'s>(source: &mut Source<'_>, list: &'s Option<Spanned<Vec<Spanned<String>>>>) -> &'s [Spanned<String>] {
    let Some(list) = list else { return &[] };
    if list.get_ref().len() > ENTRIES_MAX {
        source.problem(&list.span(), format!("has {} entries: at most {ENTRIES_MAX}", list.get_ref().len()));
    }
    list.get_ref()
}

fn dns_servers(source: &mut Source<'_>, section: &DhcpSection) -> Vec<Ipv6Addr> {
    let mut servers = Vec::new();
    for text in list(source, &section.dns_servers) {
        let Some(server) = parsed::<Ipv6Addr>(source, text, "an IPv6 address") else { continue };
        if server.is_multicast() || server.is_unspecified() || server.is_loopback() {
            source.problem(&text.span(), format!("{server} is no server's address"));
        }
        servers.push(server);
    }
    servers
}

fn search(source: &mut Source<'_>, section: &DhcpSection) -> Vec<String> {
    let mut domains = Vec::new();
    for text in list(source, &section.search) {
        if encode_name(text.get_ref()).is_none() {
            source.problem(&text.span(), format!("\"{}\" is no domain name", text.get_ref()));
        }
        domains.push(text.get_ref().clone());
    }
    domains
}

fn relays(source: &mut Source<'_>, section: &DhcpSection, network: &Network) -> Vec<Prefix> {
    let mut relays: Vec<Prefix> = Vec::new();
    for text in list(source, &section.relays) {
        let Some(relay) = parsed::<Prefix>(source, text, "an IPv6 prefix") else { continue };
        let link_local = relay.address().is_unicast_link_local();
        if !link_local && !network.lan.covers(relay) {
            source.problem(&text.span(), format!("{relay} is not in site.lan {}, where relays are", network.lan));
        }
        relays.push(relay);
    }
    relays
}

fn reservations(source: &mut Source<'_>, section: &DhcpSection) -> Vec<Reservation> {
    let mut all: Vec<Reservation> = Vec::new();
    for table in section.reservation.iter().flatten() {
        let Some(reservation) = reservation(source, table) else { continue };
        let same = |other: &&Reservation| (&other.duid, other.iaid) == (&reservation.duid, reservation.iaid);
        if all.iter().find(same).is_some() {
            source.problem(&table.span(), "stands for a client that has a reservation already");
        }
        if all.iter().any(|other| other.name == reservation.name) {
            source.problem(&table.span(), format!("there is another reservation called {}", reservation.name));
        }
        all.push(reservation);
    }
    all
}

fn reservation(source: &mut Source<'_>, table: &Spanned<ReservationSection>) -> Option<Reservation> {
    let (span, section) = (table.span(), table.get_ref());
    let name = required(source, &span, "name", &section.name).and_then(|name| checked_name(source, name));
    let duid: Option<Duid> =
        required(source, &span, "duid", &section.duid).and_then(|text| parsed(source, text, "a DUID"));
    let iaid = section.iaid.as_ref().map(|iaid| u32::try_from(*iaid.get_ref()).map_err(|_| iaid.span()));
    if let Some(Err(span)) = &iaid {
        source.problem(span, "is out of range: 0 to 4294967295");
    }
    Some(Reservation { duid: duid?, iaid: iaid.and_then(Result::ok), name: name? })
}

pub(super) fn advertising(source: &mut Source<'_>, file: &SiteFile, network: &Network) -> Option<Advertising> {
    let table = file.ra.as_ref()?;
    let section: &RaSection = table.get_ref();
    let interval: u16 = number(source, &section.interval_s, limits::RA_INTERVAL_S);
    let lifetime: u16 = section
        .lifetime_s
        .as_ref()
        .map_or(3 * interval.min(3000), |_| number(source, &section.lifetime_s, limits::RA_LIFETIME_S));
    // RFC 4861 §6.2.1: zero, or not shorter than the interval.
    if let Some(field) = &section.lifetime_s
        && (1..interval).contains(&lifetime)
    {
        source.problem(&field.span(), format!("{lifetime} s end before the next advertisement after {interval} s"));
    }
    let routes = match &section.routes {
        None => cmulas().into_iter().chain(network.identifier_blocks.iter().copied()).collect(),
        Some(_) => {
            let texts = list(source, &section.routes);
            texts.iter().filter_map(|text| parsed(source, text, "an IPv6 prefix")).collect()
        }
    };
    Some(Advertising { interval, lifetime, routes })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Site;

    const REST: &str = r#"
        [box]
        name = "b"
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
    "#;

    fn read(text: &str) -> Result<Site, Vec<String>> {
        let parsed = Site::parse(Path::new("/etc/pshim6/site.toml"), &format!("{REST}{text}"));
        parsed
            .map(|(site, _)| site)
            .map_err(|problems| problems.0.iter().map(|it| format!("{}: {}", it.field, it.text)).collect())
    }

    #[test]
    fn without_the_tables_there_is_nothing() {
        let site = read("").unwrap();
        assert_eq!((site.dhcp, site.advertising, site.store), (None, None, None));
    }

    #[test]
    fn a_table_without_fields_has_defaults() {
        let site = read("[store]\nfile = \"leases.redb\"\n[dhcp]\n[ra]\n").unwrap();
        assert_eq!(site.store.as_deref(), Some(Path::new("/etc/pshim6/leases.redb")));
        let dhcp = site.dhcp.unwrap();
        assert_eq!((dhcp.preferred, dhcp.valid, dhcp.t1, dhcp.t2), (43_200, 86_400, 21_600, 34_560));
        assert_eq!((dhcp.policy.len(), dhcp.policy_flags), (10, 3));
        assert_eq!((dhcp.policy[0].prefix.to_string(), dhcp.policy[0].length), ("fc00::".into(), 8));
        let ra = site.advertising.unwrap();
        assert_eq!((ra.interval, ra.lifetime, ra.routes[0].to_string()), (600, 1800, "fc00::/8".into()));
    }

    #[test]
    fn reservations_name_clients() {
        let text = "[store]\nfile = \"s\"\n[dhcp]\nprefer = \"none\"\n[[dhcp.reservation]]\nduid = \"00:03:00:01:02:00:00:00:00:07\"\niaid = 7\nname = \"printer\"\n";
        let dhcp = read(text).unwrap().dhcp.unwrap();
        let [reservation] = &dhcp.reservations[..] else { panic!("{dhcp:?}") };
        assert_eq!((reservation.name.as_str(), reservation.iaid, &dhcp.policy[..]), ("printer", Some(7), &[][..]));
        assert_eq!(reservation.duid.to_string(), "00030001020000000007");
    }

    #[test]
    fn what_contradicts_itself_is_told() {
        let wrong = |text: &str, told: &str| {
            let problems = read(text).expect_err(text);
            assert!(problems.iter().any(|problem| problem.contains(told)), "{text}: {problems:?}");
        };
        wrong("[dhcp]\n", "needs [store]");
        wrong("[store]\n", "store.file: is missing");
        let shared = |text: &str| format!("[store]\nfile = \"s\"\n{text}");
        wrong(&shared("user = \"x\"\n"), "store.user: user is for a store that boxes share");
        wrong(&shared("etcd = []\n"), "store.etcd: names 1 to 16 members");
        wrong(&shared("etcd = [\"https://[::1]:2379\"]\n"), "store.ca: is missing");
        let papers = "ca = \"ca\"\ncertificate = \"c\"\nkey = \"k\"\n";
        for other in
            ["http://[::1]:2379", "https://::1:2379", "https://[::1]", "https://[x]:1", "https://a b:1", "https://a:0"]
        {
            wrong(&shared(&format!("etcd = [\"{other}\"]\n{papers}")), "store.etcd[0]: ");
        }
        let good = format!("etcd = [\"https://[::1]:2379\", \"https://etcd.example:2379/\"]\n{papers}");
        wrong(&shared(&good.replace("etcd.example", "[::1]")), "stands twice");
        wrong(&shared(&format!("{good}prefix = \"site\"\n")), "begins and ends with a slash");
        wrong(&shared(&format!("{good}user = \"x\"\n")), "are both needed");
        wrong(&shared(&good.replace("\"k\"", "\"\"")), "store.key: names no file");
        wrong(&shared(&format!("{good}share = [\"hosts\", \"hosts\"]\n")), "stands twice");
        wrong(&shared(&format!("{good}share = [\"all\"]\n")), "store.share[0]: unknown variant");
        wrong(&shared(&format!("{good}share = [\"key\"]\n")), "names what seals it");
        wrong(&shared(&format!("{good}wrap_key = \"w\"\n")), "names what seals it");
        let cluster = read(&shared(&good)).unwrap().cluster.unwrap();
        assert_eq!(cluster.endpoints, [("::1".to_owned(), 2379), ("etcd.example".to_owned(), 2379)]);
        assert_eq!((cluster.prefix.as_str(), cluster.user), ("/pshim6/", None));
        assert_eq!(cluster.authority, Path::new("/etc/pshim6/ca"));
        let dhcp = |text: &str| format!("[store]\nfile = \"s\"\n[dhcp]\n{text}");
        wrong(&dhcp("preferred_s = 7200\nvalid_s = 3600\n"), "longer than valid_s");
        wrong(&dhcp("t1_s = 900\nt2_s = 800\n"), "must not fall");
        wrong(&dhcp("dns_servers = [\"ff02::1\"]\n"), "no server's address");
        wrong(&dhcp("search = [\"a..b\"]\n"), "no domain name");
        wrong(&dhcp("relays = [\"fc00:b::/64\"]\n"), "is not in site.lan");
        wrong(&dhcp("[[dhcp.reservation]]\nduid = \"0003\"\nname = \"x\"\n"), "is not a DUID");
        let twice = "[[dhcp.reservation]]\nduid = \"000300\"\nname = \"x\"\n";
        wrong(&dhcp(&format!("{twice}{twice}")), "has a reservation already");
        wrong(&dhcp(&format!("leases_max = 1\n{twice}")), "leave nothing");
        wrong("[ra]\nlifetime_s = 5\n", "end before the next");
    }

    #[test]
    fn the_hosts_policy_table_is_made_of_what_is_said_and_the_sites_blocks() {
        let rows = |text: &str, dhcp: &str| {
            let whole =
                format!("{}[store]\nfile = \"s\"\n[dhcp]\n{dhcp}", REST.replace("[site]", &format!("[site]\n{text}")));
            let (site, _) = Site::parse(Path::new("site.toml"), &whole).unwrap_or_else(|it| panic!("{it}"));
            let dhcp = site.dhcp.unwrap();
            let rows =
                dhcp.policy.iter().map(|it| format!("{}/{} {} {}", it.prefix, it.length, it.precedence, it.label));
            (rows.collect::<Vec<_>>(), dhcp.policy_flags)
        };
        let (rows_of, flags) = rows("identifier_blocks = [\"5f00::/16\"]", "selection_privacy = false\n");
        assert_eq!((&rows_of[..2], flags), (&["fc00::/8 45 14".to_owned(), "5f00::/16 45 14".to_owned()][..], 2));
        // Precedence above that of IPv4, whose row stays as RFC 6724 has it.
        assert!(rows_of.contains(&"::ffff:0.0.0.0/96 35 4".to_owned()), "{rows_of:?}");
        // The site's own block is there whatever else is preferred.
        let (rows_of, _) = rows("", "prefer = \"fd00::/8\"\n");
        assert_eq!(rows_of[..2], ["fd00::/8 45 14", "fc00:a::/48 45 14"]);
        let said = "[[dhcp.selection]]\nprefix = \"::ffff:0:0/96\"\nprecedence = 100\nlabel = 4\n";
        let (rows_of, _) = rows("", said);
        assert_eq!((rows_of.len(), rows_of[0].as_str()), (10, "::ffff:0.0.0.0/96 100 4"));
    }

    #[test]
    fn rows_that_cannot_be_sent_are_told() {
        let row = |text: &str| format!("[[dhcp.selection]]\n{text}\n");
        let full = "prefix = \"2001:db8::/32\"\nprecedence = 1\nlabel = 1";
        let many: String = (0..17).map(|at| row(&full.replace("2001:db8", &format!("2001:{at}")))).collect();
        for (text, told) in [
            (row("prefix = \"2001:db8::/32\"\nprecedence = 1"), "label"),
            (row(&full.replace("label = 1", "label = 256")), "out of range: 0 to 255"),
            (row(&full.replace("/32", "/129")), "is not an IPv6 prefix"),
            (row(full) + &row(full), "of which there is a row already"),
            (format!("prefer = \"none\"\n{}", row(full)), "does not send"),
            (many, "one row too many: at most 16"),
        ] {
            let problems = read(&format!("[store]\nfile = \"s\"\n[dhcp]\n{text}")).expect_err(&text);
            assert!(problems.iter().any(|problem| problem.contains(told)), "{text}: {problems:?}");
        }
    }
}
