//! The DNS records a host needs so that peers find its locators (design: DNS ALG).

use std::fmt;
use std::net::Ipv6Addr;

use serde::Serialize;

use crate::config::Host;
use crate::config::hosts::Hex;

/// One record in the form of a zone file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// The name it belongs to.
    pub owner: String,
    /// `AAAA`, `TYPE65280` or `PTR`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What a zone file says after the type.
    pub data: String,
}

impl fmt::Display for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} IN {} {}", self.owner, self.kind, self.data)
    }
}

/// The records of a host of the file; `ulid_kind` is the type of ULID records.
pub fn records(host: &Host, ulid_kind: u16, domain: Option<&str>) -> Vec<Record> {
    let locators: Vec<Ipv6Addr> = host.identity.locators.iter().map(|locator| locator.0).collect();
    records_of(&host.name, (host.identity.ulid.0, ulid_kind), &locators, domain)
}

/// The records of a host: an AAAA for each locator, the ULID as a record of its type in RFC 3597 syntax, and the ULID's reverse name.
///
/// With `domain`, names are complete. Without, a name with dots counts as complete and one without stays relative.
pub fn records_of(
    name: &str,
    (ulid, ulid_kind): (Ipv6Addr, u16),
    locators: &[Ipv6Addr],
    domain: Option<&str>,
) -> Vec<Record> {
    let owner = owner(name, domain);
    let record = |owner: &str, kind: &str, data: String| Record { owner: owner.into(), kind: kind.into(), data };
    let mut records: Vec<Record> = locators.iter().map(|locator| record(&owner, "AAAA", locator.to_string())).collect();
    let octets = ulid.octets();
    let data = format!("\\# {} {}", octets.len(), Hex(&octets));
    records.push(record(&owner, &format!("TYPE{ulid_kind}"), data));
    records.push(record(&reverse_name(ulid), "PTR", owner.clone()));
    records
}

/// Whether `name` would be completed by the zone it stands in.
pub fn is_relative(name: &str, domain: Option<&str>) -> bool {
    !owner(name, domain).ends_with('.')
}

fn owner(name: &str, domain: Option<&str>) -> String {
    let name = name.trim_end_matches('.');
    match domain.map(|domain| domain.trim_matches('.')) {
        Some(domain) if !domain.is_empty() => format!("{name}.{domain}."),
        _ if name.contains('.') => format!("{name}."),
        _ => name.to_string(),
    }
}

/// The name of `address` below ip6.arpa: its 32 hex digits backwards (RFC 3596 §2.5).
pub fn reverse_name(address: Ipv6Addr) -> String {
    let digits = Hex(&address.octets()).to_string();
    digits.chars().rev().flat_map(|digit| [digit, '.']).chain("ip6.arpa.".chars()).collect()
}

#[cfg(test)]
mod tests {
    use dataplane::wire::{Locator, Ulid};

    use super::*;
    use crate::identity::{HostIdentity, Kind};

    #[test]
    fn a_host_has_its_locators_its_ulid_and_its_reverse_name() {
        let identity = HostIdentity {
            ulid: Ulid("fc00:a:0:1::5".parse().unwrap()),
            locators: vec![Locator("2001:db8:a1:1::7".parse().unwrap())],
            pds: Vec::new(),
            kind: Kind::Hba,
        };
        let host = Host { name: "h1".into(), identity, mac: None };
        let reverse = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.0.0.a.0.0.0.0.0.c.f.ip6.arpa.";
        let lines = |domain| records(&host, 65_280, domain).iter().map(Record::to_string).collect::<Vec<_>>();
        assert_eq!(
            lines(Some("site.example")),
            [
                "h1.site.example. IN AAAA 2001:db8:a1:1::7".to_string(),
                "h1.site.example. IN TYPE65280 \\# 16 fc00000a000000010000000000000005".to_string(),
                format!("{reverse} IN PTR h1.site.example."),
            ]
        );
        assert_eq!(records(&host, 65_281, None)[1].kind, "TYPE65281");
        assert_eq!(lines(None)[0], "h1 IN AAAA 2001:db8:a1:1::7");
        assert!(is_relative("h1", None) && !is_relative("h1.site.example", None));
    }
}
