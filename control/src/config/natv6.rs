//! Translation for peers without Shim6: who besides the hosts is translated, and to what (RFC 6296 §4.1).

use std::net::Ipv6Addr;

use dataplane::natv6::{PrefixPair, Untranslatable};
use toml::Spanned;

use super::check::seconds;
use super::file::{Natv6Section, ProviderSection};
use super::limits;
use super::network::{Network, parsed};
use super::prefix::{Prefix, is_routable};
use super::site::{Natv6, Provider};
use super::source::Source;

/// Up to this length interface identifiers stay as they are (RFC 6296 §3.4).
const LENGTH_PLAIN: u8 = 48;
const LENGTH_MAX: u8 = 64;

/// All that a provider delegated.
pub(super) fn delegated(source: &mut Source<'_>, section: &ProviderSection, prefix: Option<Prefix>) -> Option<Prefix> {
    let text = section.delegated.as_ref()?;
    let delegated: Prefix = parsed(source, text, "an IPv6 prefix")?;
    // R6296-045: there is no word left to make the change of a longer prefix up in.
    if delegated.length() > LENGTH_MAX {
        source.problem(&text.span(), format!("{delegated} is longer than /{LENGTH_MAX}"));
        return None;
    }
    if delegated.length() == 0 || !is_routable(delegated.address()) {
        source.problem(&text.span(), format!("{delegated} is not routable"));
        return None;
    }
    if let Some(prefix) = prefix.filter(|prefix| !delegated.covers(*prefix)) {
        source.problem(&text.span(), format!("{delegated} does not hold the provider's prefix {prefix}"));
        return None;
    }
    Some(delegated)
}

pub(super) fn check(
    source: &mut Source<'_>,
    section: &Option<Spanned<Natv6Section>>,
    network: &Network,
) -> Option<Natv6> {
    let section = section.as_ref()?.get_ref();
    let idle = seconds(source, &section.idle_s, limits::NATV6_IDLE_S);
    let mapped = mapped(source, section, network);
    let pairs = match mapped.is_empty() {
        true => vec![None; network.providers.len()],
        false => pairs(source, section, network),
    };
    if let Some(list) = &section.mapped {
        for (text, subnet) in list.get_ref().iter().zip(&mapped) {
            images(source, text, *subnet, &pairs, network);
        }
    }
    section.enabled.unwrap_or(false).then_some(Natv6 { idle, mapped, pairs })
}

/// The subnets that are translated; none if one of them is no such thing.
fn mapped(source: &mut Source<'_>, section: &Natv6Section, network: &Network) -> Vec<Prefix> {
    let Some(list) = &section.mapped else { return Vec::new() };
    let mut mapped: Vec<Prefix> = Vec::new();
    for text in list.get_ref() {
        let Some(subnet) = parsed::<Prefix>(source, text, "an IPv6 prefix") else { continue };
        if !network.prefix.covers(subnet) {
            source.problem(&text.span(), format!("{subnet} is not inside site.prefix {}", network.prefix));
        } else if subnet.length() > LENGTH_MAX {
            source.problem(&text.span(), format!("{subnet} is longer than /{LENGTH_MAX}"));
        } else if let Some(other) = mapped.iter().find(|other| other.overlaps(subnet)) {
            source.problem(&text.span(), format!("{subnet} overlaps {other}"));
        } else {
            mapped.push(subnet);
        }
    }
    if mapped.len() == list.get_ref().len() { mapped } else { Vec::new() }
}

/// A translator for each provider that says what it delegated.
fn pairs(source: &mut Source<'_>, section: &Natv6Section, network: &Network) -> Vec<Option<PrefixPair>> {
    let Some(list) = &section.mapped else { return Vec::new() };
    if network.providers.iter().all(|provider| provider.delegated.is_none()) {
        source.problem(&list.span(), "no provider says what it delegated (provider.delegated), so there are no images");
    }
    let inside = (network.prefix.address(), network.prefix.length());
    let pair = |source: &mut Source<'_>, provider: &Provider| {
        let delegated = provider.delegated?;
        let pair = match PrefixPair::new(inside, (delegated.address(), delegated.length())) {
            Ok(pair) => pair,
            Err(reason) => {
                source.problem(&list.span(), format!("{} and {delegated}: {reason}", network.prefix));
                return None;
            }
        };
        // RCM-006
        if pair.changes_interface() {
            let text = format!(
                "{} and {delegated} of provider {} are not both /{LENGTH_PLAIN} or shorter: subnets are lost, and interface \
                 identifiers change",
                network.prefix, provider.name
            );
            match section.rewrite_interfaces {
                Some(true) => source.warning(&list.span(), text),
                _ => source.problem(&list.span(), format!("{text} (natv6.rewrite_interfaces accepts that)")),
            }
        }
        Some(pair)
    };
    network.providers.iter().map(|provider| pair(source, provider)).collect()
}

/// Every subnet has an image, and nothing else is there (RCM-007).
fn images(
    source: &mut Source<'_>,
    text: &Spanned<String>,
    mapped: Prefix,
    pairs: &[Option<PrefixPair>],
    network: &Network,
) {
    let links = network.ports.iter().flat_map(|port| &port.addresses).filter_map(|own| own.prefix());
    let native: Vec<Prefix> = network.providers.iter().map(|provider| provider.prefix).chain(links).collect();
    for (pair, provider) in pairs.iter().zip(&network.providers) {
        let Some(pair) = pair else { continue };
        for subnet in subnets(mapped) {
            // Some host of it: in long prefixes the identifier changes, but never out of the subnet.
            let host = Ipv6Addr::from_bits(subnet.to_bits() | 1);
            match pair.outbound(host) {
                Ok(image) => {
                    if let Some(taken) = native.iter().find(|native| native.contains(image)) {
                        let provider = &provider.name;
                        source.problem(
                            &text.span(),
                            format!("{subnet}/64 would be {taken} at provider {provider}, which is in use"),
                        );
                        return;
                    }
                }
                // R6296-032: one subnet of many is no reason to do without the others.
                Err(Untranslatable::ReservedSubnet) if mapped.length() < LENGTH_MAX => {
                    source.warning(&text.span(), format!("{subnet}/64 in it has no image (RFC 6296 section 3.2)"));
                }
                Err(reason) => {
                    let provider = &provider.name;
                    source.problem(&text.span(), format!("{subnet}/64 has no image at provider {provider}: {reason}"));
                    return;
                }
            }
        }
    }
}

/// The /64s of a prefix, at most 2^16 since a site has no more.
fn subnets(prefix: Prefix) -> impl Iterator<Item = Ipv6Addr> {
    let first = prefix.address().to_bits();
    let count = 1u128 << LENGTH_MAX.saturating_sub(prefix.length()).min(16);
    (0..count).map(move |number| Ipv6Addr::from_bits(first + (number << 64)))
}
