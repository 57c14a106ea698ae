//! DNS for the hosts: whom to ask, and which names and identifiers are whose.

use std::net::Ipv6Addr;

use toml::Spanned;

use crate::dns::Name;

use super::check::number;
use super::file::DnsSection;
use super::limits;
use super::network::{Network, parsed};
use super::site::Dns;
use super::source::Source;

/// Most servers; each is tried in turn, so that more would never be asked within the time a host waits.
const UPSTREAM_MAX: usize = 8;

pub(super) fn check(source: &mut Source<'_>, section: &Option<Spanned<DnsSection>>, network: &Network) -> Option<Dns> {
    let spanned = section.as_ref()?;
    let (span, section) = (spanned.span(), spanned.get_ref());
    let upstream = upstream(source, section, network);
    if section.upstream.is_none() {
        source.missing(&span, "upstream");
    }
    Some(Dns {
        upstream,
        zone: section.zone.as_ref().and_then(|text| zone(source, text)),
        ulid_kind: number(source, &section.ulid_type, limits::DNS_ULID_TYPE),
        cache_entries: number(source, &section.cache_entries, limits::DNS_CACHE_ENTRIES),
        cache_mb: number(source, &section.cache_mb, limits::DNS_CACHE_MB),
        questions_per_s: number(source, &section.questions_per_s, limits::DNS_QUESTIONS_PER_S),
        questions_per_host_s: number(source, &section.questions_per_host_s, limits::DNS_QUESTIONS_PER_HOST_S),
        handshake_wait_ms: number(source, &section.handshake_wait_ms, limits::DNS_HANDSHAKE_WAIT_MS),
        a_records: section.a_records.unwrap_or_default(),
        a_wait_ms: number(source, &section.a_wait_ms, limits::DNS_A_WAIT_MS),
    })
}

fn upstream(source: &mut Source<'_>, section: &DnsSection, network: &Network) -> Vec<Ipv6Addr> {
    let Some(list) = &section.upstream else { return Vec::new() };
    let mut servers = Vec::new();
    for text in list.get_ref() {
        let Some(address) = parsed::<Ipv6Addr>(source, text, "an IPv6 address") else { continue };
        let own = network.ports.iter().flat_map(|port| &port.addresses).any(|own| own.address == address);
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            source.problem(&text.span(), format!("{address} is no server's"));
        } else if address.is_unicast_link_local() {
            source.problem(&text.span(), format!("{address} is link-local: the port it is on could not be known"));
        } else if own {
            source.problem(&text.span(), format!("{address} is the box's own: it would ask itself"));
        } else if servers.contains(&address) {
            source.problem(&text.span(), format!("{address} stands twice"));
        } else {
            servers.push(address);
        }
    }
    if list.get_ref().is_empty() {
        source.problem(&list.span(), "names no server");
    } else if servers.len() > UPSTREAM_MAX {
        source.problem(&list.span(), format!("names {} servers; {UPSTREAM_MAX} are the most", servers.len()));
    }
    servers
}

fn zone(source: &mut Source<'_>, text: &Spanned<String>) -> Option<Name> {
    match Name::from_text(text.get_ref()) {
        Ok(name) if name != Name::root() => Some(name),
        Ok(_) => {
            source.problem(&text.span(), "the root is nobody's own zone");
            None
        }
        Err(reason) => {
            source.problem(&text.span(), format!("\"{}\" is no domain name: {reason}", text.get_ref()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GOOD, load};

    fn with(section: &str) -> Result<Option<super::Dns>, Vec<String>> {
        load(&format!("{GOOD}\n{section}\n")).map(|(site, _)| site.dns)
    }

    #[test]
    fn dns_is_off_without_its_table_and_has_defaults_with_it() {
        assert_eq!(with(""), Ok(None));
        let dns = with("[dns]\nupstream = [\"2001:db8:53::1\", \"2001:db8:53::2\"]\nzone = \"A.Example.\"");
        let dns = dns.unwrap().unwrap();
        assert_eq!((dns.upstream.len(), dns.ulid_kind, dns.cache_entries), (2, 65_280, 65_536));
        assert_eq!(dns.zone.unwrap().to_string(), "a.example.");
    }

    #[test]
    fn what_cannot_be_obeyed_is_said() {
        for (section, said) in [
            ("[dns]", "upstream"),
            ("[dns]\nupstream = []", "names no server"),
            ("[dns]\nupstream = [\"fe80::1\"]", "link-local"),
            ("[dns]\nupstream = [\"2001:db8::1\", \"2001:db8::1\"]", "twice"),
            ("[dns]\nupstream = [\"ff02::fb\"]", "no server's"),
            ("[dns]\nupstream = [\"2001:db8::1\"]\nzone = \"a..b\"", "no domain name"),
            ("[dns]\nupstream = [\"2001:db8::1\"]\nulid_type = 28", "out of range"),
            ("[dns]\nupstream = [\"2001:db8::1\"]\nidentifiers = [\"5f00::/16\"]", "unknown field"),
            ("[dns]\nupstream = [\"2001:db8::1\"]\nlocators = 3", "unknown field"),
        ] {
            let problems = with(section).expect_err(section);
            assert!(problems.len() == 1 && problems[0].contains(said), "{section}: {problems:?}");
        }
    }
}
