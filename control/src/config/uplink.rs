//! Providers of which some is only known while the box runs: their prefix is delegated (`prefix = "delegated"`, RFC 8415),
//! their router says who it is (`next_hop = "discover"`, RFC 4861), or both.
//!
//! What the operator said of them is an [`Uplink`]; what was found out is [`Found`]; and [`resolve`] makes of both the site
//! as if the operator had written it, which is what engine and policy go by.

use std::net::Ipv6Addr;

use rand::SeedableRng;
use rand::rngs::StdRng;
use toml::Spanned;

use super::check::{checked_name, number, required};
use super::file::{ProviderSection, SiteFile};
use super::hosts::locators::locator_under;
use super::hosts::{Entry, Hosts};
use super::limits;
use super::network::{next_hop, provider_prefix, reference};
use super::prefix::Prefix;
use super::site::{Port, Provider, Site};
use super::source::Source;

/// What is written in the place of a prefix, and in that of a router.
const DELEGATED: &str = "delegated";
const DISCOVER: &str = "discover";
/// Prefixes of one uplink that are used beside each other, the newest among them.
const PREFIXES_MAX: usize = 3;

/// A provider of which some is only known while the box runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// `provider.name`.
    pub name: String,
    /// Index in `Site::ports`.
    pub port: usize,
    /// Lower comes first.
    pub preference: u16,
    /// Where its prefix comes from.
    pub prefix: PrefixFrom,
    /// Its router; none if that says so itself.
    pub router: Option<Ipv6Addr>,
}

/// Where a prefix comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixFrom {
    /// It is configured.
    Fixed(Prefix),
    /// A server delegates it.
    Delegated {
        /// The length it is asked for; 0 for any.
        hint: u8,
        /// Which /64 of it is used.
        subnet: u64,
        /// Whether a Solicit may be answered by a Reply.
        rapid_commit: bool,
    },
}

/// What was found out about an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its router, if one says that it is.
    pub router: Option<Ipv6Addr>,
    /// The /64s, the one in use first, and whether each is to be left.
    pub prefixes: Vec<(Prefix, bool)>,
}

/// The /64 with this number in a delegated prefix; none if it has no such.
pub fn subnet_of(address: Ipv6Addr, length: u8, subnet: u64) -> Option<Prefix> {
    let bits = 64_u8.checked_sub(length)?;
    let fits = bits == 64 || subnet >> bits == 0;
    let whole = Prefix::of(address, length)?;
    fits.then(|| Prefix::of(Ipv6Addr::from_bits(whole.address().to_bits() | u128::from(subnet) << 64), 64))?
}

/// Whether some of a provider is left open.
pub(super) fn is_open(section: &ProviderSection) -> bool {
    let says = |text: &Option<Spanned<String>>, word| text.as_ref().is_some_and(|text| text.get_ref() == word);
    says(&section.prefix, DELEGATED) || says(&section.next_hop, DISCOVER)
}

/// Such a provider.
pub(super) fn uplink(
    source: &mut Source<'_>,
    section: &Spanned<ProviderSection>,
    index: usize,
    file: &SiteFile,
    ports: &[Option<Port>],
) -> Option<Uplink> {
    let (span, section) = (section.span(), section.get_ref());
    let name = required(source, &span, "name", &section.name).and_then(|name| checked_name(source, name));
    let port = required(source, &span, "port", &section.port).and_then(|name| reference(source, name, &file.ports));
    let prefix =
        required(source, &span, "prefix", &section.prefix).and_then(|text| match text.get_ref() == DELEGATED {
            true => Some(delegated(source, section)),
            false => provider_prefix(source, text).map(PrefixFrom::Fixed),
        });
    let on_port = port.and_then(|port| ports.get(port)?.as_ref());
    let router =
        required(source, &span, "next_hop", &section.next_hop).and_then(|text| match text.get_ref() == DISCOVER {
            true => Some(None),
            false => next_hop(source, text, on_port).map(Some),
        });
    if let (Some(text), Some(PrefixFrom::Delegated { .. })) = (&section.delegated, prefix) {
        source.problem(&text.span(), "is not known beforehand, where prefix = \"delegated\"");
    }
    if file.store.is_none() && matches!(prefix, Some(PrefixFrom::Delegated { .. })) {
        source.problem(&span, "needs [store]: the same prefix is asked for again after a restart");
    }
    let order = limits::Limits { field: "provider.preference", default: index as i64, min: 0, max: 65_535 };
    let preference = number(source, &section.preference, order);
    Some(Uplink { name: name?, port: port?, preference, prefix: prefix?, router: router? })
}

fn delegated(source: &mut Source<'_>, section: &ProviderSection) -> PrefixFrom {
    let hint: u8 = number(source, &section.hint, limits::PROVIDER_HINT);
    if let Some(field) = section.hint.as_ref().filter(|_| (1..32).contains(&hint)) {
        source.problem(&field.span(), format!("{hint} is no length of a prefix for a site: 32 to 64, or 0 for any"));
    }
    let subnet: u64 = number(source, &section.subnet, limits::PROVIDER_SUBNET);
    if let Some(field) = section.subnet.as_ref().filter(|_| hint >= 32 && subnet >> (64 - hint.min(64)) != 0) {
        source.problem(&field.span(), format!("a /{hint} has no subnet {subnet}"));
    }
    PrefixFrom::Delegated { hint, subnet, rapid_commit: section.rapid_commit.unwrap_or(false) }
}

/// Fields that say nothing where everything is configured.
pub(super) fn unused(source: &mut Source<'_>, section: &ProviderSection) {
    let is_delegated = section.prefix.as_ref().is_some_and(|text| text.get_ref() == DELEGATED);
    for field in [&section.hint, &section.subnet].into_iter().flatten().filter(|_| !is_delegated) {
        source.problem(&field.span(), "is for prefix = \"delegated\"");
    }
}

/// The site and its hosts as they are with what was found out. Hosts without any locator are left out.
///
/// A host gets the member of its address set that lies in a prefix, if there is one, or else an address that the site's key
/// signs; the same one each time, so that nobody has to remember it.
pub fn resolve(site: &Site, hosts: &Hosts, found: &[Found]) -> (Site, Hosts) {
    let (mut site, mut hosts) = (site.clone(), hosts.clone());
    let configured = site.providers.len();
    for uplink in site.uplinks.clone() {
        let Some(found) = found.iter().find(|found| found.name == uplink.name) else { continue };
        // A provider without a router is there, and down.
        let next_hop = uplink.router.or(found.router).unwrap_or(Ipv6Addr::UNSPECIFIED);
        for (at, (prefix, deprecated)) in found.prefixes.iter().take(PREFIXES_MAX).enumerate() {
            let name = if at == 0 { uplink.name.clone() } else { format!("{}-old-{at}", uplink.name) };
            let Uplink { port, preference, .. } = uplink;
            let (prefix, deprecated) = (*prefix, *deprecated);
            site.providers.push(Provider { name, port, prefix, next_hop, preference, delegated: None, deprecated });
        }
    }
    if let Some(natv6) = &mut site.natv6 {
        natv6.pairs.resize(site.providers.len(), None);
    }
    let key = hosts.key().cloned();
    let mut taken: Vec<Ipv6Addr> = hosts.iter().flat_map(|host| &host.identity.locators).map(|it| it.0).collect();
    for host in hosts.list_mut() {
        let locators = host.identity.locators.iter().map(|locator| locator.0).collect();
        let (name, ulid, pds) = (host.name.clone(), host.identity.ulid.0, host.identity.pds.clone());
        let entry = Entry { name, ulid, locators, pds, mac: host.mac };
        // What hosts have of configured providers is for the hosts file to say.
        for provider in site.providers.iter().skip(configured) {
            if entry.locators.iter().any(|locator| provider.prefix.contains(*locator)) {
                continue;
            }
            let mut rng = drawn_from(ulid, provider.prefix);
            let used = |it: &Ipv6Addr| taken.contains(it);
            if let Some(locator) = locator_under(&entry, provider.prefix, key.as_deref(), &mut rng, &used) {
                taken.push(locator);
                host.identity.locators.push(dataplane::wire::Locator(locator));
            }
        }
    }
    if !site.uplinks.is_empty() {
        hosts.list_mut().retain(|host| !host.identity.locators.is_empty());
    }
    (site, hosts)
}

/// Numbers that are the same for a host and a prefix whenever they are drawn.
fn drawn_from(ulid: Ipv6Addr, prefix: Prefix) -> StdRng {
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(&ulid.octets());
    seed[16..].copy_from_slice(&prefix.address().octets());
    StdRng::from_seed(seed)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::{GOOD, load};
    use super::*;

    /// The good file, its second provider left open as `lines` say.
    fn open(lines: &str, store: bool) -> Result<Site, Vec<String>> {
        let start = GOOD.rfind("[[provider]]").unwrap();
        let end = start + 12 + GOOD[start + 12..].find("[[").unwrap_or(GOOD.len() - start - 12);
        let section = format!("[[provider]]\nname = \"isp-y\"\nport = \"y\"\n{lines}\n");
        let tail = if store { "\n[store]\nfile = \"s\"\n" } else { "" };
        load(&format!("{}{section}{}{tail}", &GOOD[..start], &GOOD[end..])).map(|(site, _)| site)
    }

    #[test]
    fn what_is_left_open_is_read() {
        let site = open("prefix = \"delegated\"\nnext_hop = \"discover\"\nhint = 56\nsubnet = 3\npreference = 7", true)
            .unwrap();
        let [uplink] = &site.uplinks[..] else { panic!("{:?}", site.uplinks) };
        let prefix = PrefixFrom::Delegated { hint: 56, subnet: 3, rapid_commit: false };
        assert_eq!((&uplink.prefix, uplink.router, uplink.preference), (&prefix, None, 7));
        assert_eq!((site.providers.len(), uplink.port), (1, 2));
        let site = open("prefix = \"2001:db8:7:7::/64\"\nnext_hop = \"discover\"", false).unwrap();
        assert_eq!(site.uplinks[0].prefix, PrefixFrom::Fixed("2001:db8:7:7::/64".parse().unwrap()));
        for (lines, store, said) in [
            ("prefix = \"delegated\"\nnext_hop = \"discover\"", false, "needs [store]"),
            ("prefix = \"delegated\"\nnext_hop = \"discover\"\nhint = 20", true, "no length of a prefix"),
            ("prefix = \"delegated\"\nnext_hop = \"discover\"\nhint = 60\nsubnet = 16", true, "a /60 has no subnet 16"),
            (
                "prefix = \"delegated\"\nnext_hop = \"discover\"\ndelegated = \"2001:db8::/48\"",
                true,
                "not known beforehand",
            ),
            ("prefix = \"delegate\"\nnext_hop = \"fe80::1\"", true, "is not an IPv6 prefix"),
            ("prefix = \"2001:db8:7:7::/64\"\nnext_hop = \"fe80::1\"\nsubnet = 1", true, "is for prefix"),
            ("prefix = \"delegated\"", true, "next_hop"),
        ] {
            let problems = open(lines, store).expect_err(lines);
            assert!(problems.iter().any(|problem| problem.contains(said)), "{lines}: {problems:?}");
        }
    }

    #[test]
    fn a_subnet_is_one_of_those_there_are() {
        let of = |text: &str, length, subnet| subnet_of(text.parse().unwrap(), length, subnet).map(|it| it.to_string());
        assert_eq!(of("2001:db8:a::", 56, 0).as_deref(), Some("2001:db8:a::/64"));
        assert_eq!(of("2001:db8:a::", 56, 255).as_deref(), Some("2001:db8:a:ff::/64"));
        assert_eq!(of("2001:db8:a::", 56, 256), None);
        assert_eq!(
            (of("2001:db8:a:7::", 64, 0).as_deref(), of("2001:db8:a:7::", 64, 1)),
            (Some("2001:db8:a:7::/64"), None)
        );
        assert_eq!(of("2001:db8:a::", 65, 0), None);
    }

    #[test]
    fn what_was_found_is_as_if_it_were_configured() {
        let site = open("prefix = \"delegated\"\nnext_hop = \"discover\"", true).unwrap();
        let router = Some("fe80::9".parse().unwrap());
        let prefixes = vec![("2001:db8:b::/64".parse().unwrap(), false), ("2001:db8:a::/64".parse().unwrap(), true)];
        let found = Found { name: "isp-y".into(), router, prefixes };
        let none = Hosts::parse(Path::new("hosts.json"), "{\"version\": 1, \"hosts\": []}", &site).unwrap();
        let (resolved, _) = resolve(&site, &none, std::slice::from_ref(&found));
        let shown: Vec<_> = resolved.providers[1..]
            .iter()
            .map(|it| format!("{} {} {} {}", it.name, it.prefix, it.next_hop, it.deprecated))
            .collect();
        assert_eq!(shown, ["isp-y 2001:db8:b::/64 fe80::9 false", "isp-y-old-1 2001:db8:a::/64 fe80::9 true"]);
        let (resolved, _) = resolve(&site, &none, &[Found { router: None, ..found }]);
        assert_eq!(resolved.providers[1].next_hop, Ipv6Addr::UNSPECIFIED, "there, and down");
        assert_eq!(resolve(&site, &none, &[]).0.providers.len(), 1);
    }
}
