//! From what the file said to what can be obeyed: ports, prefixes, providers and peers, and how they fit together.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dataplane::wire::{Locator, Ulid};
use toml::Spanned;

use super::blocks;
use super::check::{checked_name, number, required};
use super::file::{PeerSection, PortSection, ProviderSection, SiteFile, SiteSection};
use super::limits;
use super::natv6;
use super::prefix::{LinkAddress, MacAddress, Prefix, is_routable, is_unicast};
use super::routes;
use super::site::{Device, Peer, Port, Provider};
use super::source::{Source, Span};
use super::uplink::{self, Uplink};

/// The checked part of the file that this module reads.
pub(super) struct Network {
    pub(super) prefix: Prefix,
    pub(super) identifier_blocks: Vec<Prefix>,
    pub(super) lan: Prefix,
    pub(super) lan_port: usize,
    pub(super) key: Option<PathBuf>,
    pub(super) sec: u8,
    pub(super) ports: Vec<Port>,
    pub(super) providers: Vec<Provider>,
    pub(super) uplinks: Vec<Uplink>,
    pub(super) peers: Vec<Peer>,
}

pub(super) fn check(source: &mut Source<'_>, file: &SiteFile, directory: &Path) -> Option<Network> {
    let checked: Vec<Option<Port>> = file.ports.iter().map(|section| port(source, section)).collect();
    let site = site(source, file, directory);
    let providers: Vec<Option<Provider>> = file
        .providers
        .iter()
        .enumerate()
        .map(|(index, section)| match uplink::is_open(section.get_ref()) {
            true => None,
            false => provider(source, section, index, file, &checked),
        })
        .collect();
    let (mut fixed, mut uplinks) = (Vec::new(), Vec::new());
    for (index, section) in file.providers.iter().enumerate() {
        uplink::unused(source, section.get_ref());
        match uplink::is_open(section.get_ref()) {
            true => uplinks.push(uplink::uplink(source, section, index, file, &checked)),
            false => fixed.push(providers[index].clone()),
        }
    }
    let peers: Vec<Option<Peer>> = file.peers.iter().map(|section| peer(source, section)).collect();

    ports_together(source, file);
    providers_together(source, file, &providers);
    ports_in_use(source, file);
    if let Some(site) = &site {
        lan_address(source, file, site, &checked);
        peers_together(source, file, &peers, site.prefix, &providers);
        blocks::together(source, file, &site.blocks, &checked, &providers);
    }
    let site = site?;
    Some(Network {
        prefix: site.prefix,
        identifier_blocks: site.blocks,
        lan: site.lan,
        lan_port: site.port,
        key: site.key,
        sec: site.sec,
        ports: checked.into_iter().collect::<Option<_>>()?,
        providers: fixed.into_iter().collect::<Option<_>>()?,
        uplinks: uplinks.into_iter().collect::<Option<_>>()?,
        peers: peers.into_iter().collect::<Option<_>>()?,
    })
}

struct SitePart {
    prefix: Prefix,
    blocks: Vec<Prefix>,
    lan: Prefix,
    port: usize,
    key: Option<PathBuf>,
    sec: u8,
}

fn site(source: &mut Source<'_>, file: &SiteFile, directory: &Path) -> Option<SitePart> {
    let Some(section) = &file.site else {
        source.missing(&(0..0), "site");
        return None;
    };
    let (span, section) = (section.span(), section.get_ref());
    let blocks = blocks::blocks(source, section);
    let prefix = required(source, &span, "prefix", &section.prefix).and_then(|text| site_prefix(source, text, &blocks));
    let lan = required(source, &span, "lan", &section.lan).and_then(|text| lan_prefix(source, text, prefix));
    let port = required(source, &span, "port", &section.port).and_then(|name| reference(source, name, &file.ports));
    let sec = number(source, &section.sec, limits::SEC);
    if sec == 2 {
        source.warning(&field_span(&section.sec, &span), "each host takes some four thousand million hashes to make");
    }
    let key = key_file(source, section, directory);
    Some(SitePart { prefix: prefix?, blocks, lan: lan?, port: port?, key, sec })
}

fn site_prefix(source: &mut Source<'_>, text: &Spanned<String>, blocks: &[Prefix]) -> Option<Prefix> {
    let prefix: Prefix = parsed(source, text, "an IPv6 prefix")?;
    if !prefix.address().is_unique_local() && !blocks.iter().any(|block| block.covers(prefix)) {
        let elsewhere = if blocks.is_empty() { "" } else { ", nor in a block of site.identifier_blocks" };
        let text_of = format!("{prefix} is not in fc00::/7, where identifiers come from (RFC 4193){elsewhere}");
        source.problem(&text.span(), text_of);
        return None;
    }
    if !(48..=64).contains(&prefix.length()) {
        source.problem(&text.span(), format!("{prefix} is not between /48 and /64 long"));
        return None;
    }
    if prefix.address().octets()[0] == 0xfd {
        source
            .warning(&text.span(), format!("{prefix} is locally assigned: nobody guarantees that no peer has it too"));
    }
    Some(prefix)
}

fn lan_prefix(source: &mut Source<'_>, text: &Spanned<String>, site: Option<Prefix>) -> Option<Prefix> {
    let lan: Prefix = parsed(source, text, "an IPv6 prefix")?;
    if lan.length() != 64 {
        source.problem(&text.span(), format!("{lan} is not a /64: the prefixes of an HBA set are 64 bits (RFC 5535)"));
        return None;
    }
    match site {
        Some(site) if !site.covers(lan) => {
            source.problem(&text.span(), format!("{lan} is not inside site.prefix {site}"));
            None
        }
        _ => Some(lan),
    }
}

fn key_file(source: &mut Source<'_>, section: &SiteSection, directory: &Path) -> Option<PathBuf> {
    let path = section.key.as_ref()?;
    if path.get_ref().is_empty() {
        source.problem(&path.span(), "names no file");
    }
    Some(directory.join(path.get_ref()))
}

fn port(source: &mut Source<'_>, section: &Spanned<PortSection>) -> Option<Port> {
    let (span, section) = (section.span(), section.get_ref());
    let name = required(source, &span, "name", &section.name).and_then(|name| checked_name(source, name));
    let device = required(source, &span, "device", &section.device).and_then(|text| device(source, text));
    let addresses = required(source, &span, "addresses", &section.addresses).and_then(|list| {
        if list.get_ref().is_empty() {
            source.problem(&list.span(), "the box needs an address of its own on every port");
            return None;
        }
        // All are looked at before one that is wrong ends it, so that each is named.
        let all: Vec<_> = list.get_ref().iter().map(|text| link_address(source, text)).collect();
        all.into_iter().collect::<Option<Vec<_>>>()
    });
    let mac = match &section.mac {
        Some(text) => Some(mac(source, text)?),
        None => None,
    };
    let mtu = number(source, &section.mtu, limits::MTU);
    let interface = routes::interface(source, section);
    Some(Port { name: name?, device: device?, addresses: addresses?, mac, mtu, interface })
}

pub(super) fn link_address(source: &mut Source<'_>, text: &Spanned<String>) -> Option<LinkAddress> {
    let parsed: LinkAddress = parsed(source, text, "an IPv6 address with its prefix length")?;
    if !is_unicast(parsed.address) {
        source.problem(&text.span(), format!("{} is not an address a box can have", parsed.address));
        return None;
    }
    Some(parsed)
}

fn mac(source: &mut Source<'_>, text: &Spanned<String>) -> Option<MacAddress> {
    let mac: MacAddress = parsed(source, text, "an Ethernet address")?;
    if !mac.is_unicast() {
        source.problem(&text.span(), format!("{mac} is not a unicast Ethernet address"));
        return None;
    }
    Some(mac)
}

fn device(source: &mut Source<'_>, text: &Spanned<String>) -> Option<Device> {
    let device = parse_device(text.get_ref());
    if device.is_none() {
        source.problem(
            &text.span(),
            format!(
                "\"{}\" is neither a PCI address like 0000:3b:00.0 nor a DPDK device like net_af_packet0,iface=eth1",
                text.get_ref()
            ),
        );
    }
    device
}

fn parse_device(text: &str) -> Option<Device> {
    if let Some(address) = parse_pci(text) {
        return Some(Device::Pci(address));
    }
    let name = text.split(',').next()?;
    let named = name.strip_prefix("net_")?;
    let letters = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_';
    let plain = !named.is_empty() && named.bytes().all(letters) && !text.contains(char::is_whitespace);
    plain.then(|| Device::Virtual(text.to_string()))
}

/// `[domain:]bus:device.function` in hex, the domain 0000 when left out.
fn parse_pci(text: &str) -> Option<String> {
    let hex = |part: &str, digits: usize, max: u32| {
        let well_formed = part.len() == digits && part.bytes().all(|octet| octet.is_ascii_hexdigit());
        u32::from_str_radix(part, 16).ok().filter(|value| well_formed && *value <= max)
    };
    let (rest, function) = text.rsplit_once('.')?;
    let parts: Vec<&str> = rest.split(':').collect();
    let (domain, bus, device) = match parts[..] {
        [bus, device] => ("0000", bus, device),
        [domain, bus, device] => (domain, bus, device),
        _ => return None,
    };
    let (domain, bus) = (hex(domain, 4, 0xffff)?, hex(bus, 2, 0xff)?);
    let (device, function) = (hex(device, 2, 0x1f)?, hex(function, 1, 7)?);
    Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"))
}

fn provider(
    source: &mut Source<'_>,
    section: &Spanned<ProviderSection>,
    index: usize,
    file: &SiteFile,
    ports: &[Option<Port>],
) -> Option<Provider> {
    let (span, section) = (section.span(), section.get_ref());
    let name = required(source, &span, "name", &section.name).and_then(|name| checked_name(source, name));
    let port = required(source, &span, "port", &section.port).and_then(|name| reference(source, name, &file.ports));
    let prefix = required(source, &span, "prefix", &section.prefix).and_then(|text| provider_prefix(source, text));
    let on_port = port.and_then(|port| ports.get(port)?.as_ref());
    if let (Some(on_port), Some(prefix), Some(text)) = (on_port, prefix, &section.prefix)
        && let Some(own) = on_port.addresses.iter().find(|own| prefix.contains(own.address))
    {
        source.problem(
            &text.span(),
            format!(
                "{prefix} holds the box's own address {own}: the delegated /64 is for locators, the link needs another"
            ),
        );
    }
    let next_hop =
        required(source, &span, "next_hop", &section.next_hop).and_then(|text| next_hop(source, text, on_port));
    let order = limits::Limits { field: "provider.preference", default: index as i64, min: 0, max: 65_535 };
    let preference = number(source, &section.preference, order);
    let delegated = natv6::delegated(source, section, prefix);
    Some(Provider {
        name: name?,
        port: port?,
        prefix: prefix?,
        next_hop: next_hop?,
        preference,
        delegated,
        deprecated: false,
    })
}

pub(super) fn provider_prefix(source: &mut Source<'_>, text: &Spanned<String>) -> Option<Prefix> {
    let prefix: Prefix = parsed(source, text, "an IPv6 prefix")?;
    if prefix.length() != 64 {
        source.problem(
            &text.span(),
            format!("{prefix} is not a /64: the prefixes of an HBA set are 64 bits (RFC 5535); name one /64 of it"),
        );
        return None;
    }
    if prefix.address().is_unique_local() {
        source.problem(&text.span(), format!("{prefix} is in fc00::/7, which no provider routes (RFC 4193)"));
        return None;
    }
    if !is_routable(prefix.address()) {
        source.problem(&text.span(), format!("{prefix} is not routable"));
        return None;
    }
    Some(prefix)
}

pub(super) fn next_hop(source: &mut Source<'_>, text: &Spanned<String>, port: Option<&Port>) -> Option<Ipv6Addr> {
    let next_hop: Ipv6Addr = parsed(source, text, "an IPv6 address")?;
    if !is_unicast(next_hop) {
        source.problem(&text.span(), format!("{next_hop} is not a router's address"));
        return None;
    }
    let Some(port) = port else { return Some(next_hop) };
    if port.addresses.iter().any(|own| own.address == next_hop) {
        source.problem(&text.span(), format!("{next_hop} is the box's own address on port {}", port.name));
        return None;
    }
    let on_link = |own: &LinkAddress| own.prefix().is_some_and(|prefix| prefix.contains(next_hop));
    if !next_hop.is_unicast_link_local() && !port.addresses.iter().any(on_link) {
        let links: Vec<String> = port.addresses.iter().map(LinkAddress::to_string).collect();
        source.problem(
            &text.span(),
            format!("{next_hop} is neither link-local nor on the link of port {} ({})", port.name, links.join(", ")),
        );
        return None;
    }
    Some(next_hop)
}

fn peer(source: &mut Source<'_>, section: &Spanned<PeerSection>) -> Option<Peer> {
    let (span, section) = (section.span(), section.get_ref());
    let name = match &section.name {
        Some(name) => Some(checked_name(source, name)?),
        None => None,
    };
    let ulid = required(source, &span, "ulid", &section.ulid).and_then(|text| {
        let ulid: Ipv6Addr = parsed(source, text, "an IPv6 address")?;
        if !is_unicast(ulid) || ulid.is_unicast_link_local() {
            source.problem(&text.span(), format!("{ulid} cannot identify a peer"));
            return None;
        }
        Some(Ulid(ulid))
    });
    let locators = required(source, &span, "locators", &section.locators).and_then(|list| {
        let count = list.get_ref().len();
        if !(1..=limits::PEER_LOCATORS_MAX).contains(&count) {
            source.problem(&list.span(), format!("has {count} entries: 1 to {}", limits::PEER_LOCATORS_MAX));
            return None;
        }
        let mut locators = Vec::new();
        for text in list.get_ref() {
            if let Some(locator) = peer_locator(source, text, &locators) {
                locators.push(locator);
            }
        }
        (locators.len() == count).then_some(locators)
    });
    Some(Peer { name, ulid: ulid?, locators: locators? })
}

fn peer_locator(source: &mut Source<'_>, text: &Spanned<String>, before: &[Locator]) -> Option<Locator> {
    let locator: Ipv6Addr = parsed(source, text, "an IPv6 address")?;
    if !is_routable(locator) {
        source.problem(&text.span(), format!("{locator} is not routable, so it cannot locate a peer"));
        return None;
    }
    if before.contains(&Locator(locator)) {
        source.problem(&text.span(), format!("{locator} stands twice"));
        return None;
    }
    Some(Locator(locator))
}

// How the parts fit together.

fn ports_together(source: &mut Source<'_>, file: &SiteFile) {
    if file.ports.is_empty() {
        source.missing(&(0..0), "port");
    }
    unique(source, "port", file.ports.iter().map(|port| port.get_ref().name.as_ref()), |name| Some(name.clone()));
    let device = |text: &String| parse_device(text).map(|device| device.name().to_string());
    unique(source, "port", file.ports.iter().map(|port| port.get_ref().device.as_ref()), device);
    let mac = |text: &String| text.parse::<MacAddress>().ok();
    unique(source, "port", file.ports.iter().map(|port| port.get_ref().mac.as_ref()), mac);
    let mut seen: HashMap<Ipv6Addr, Span> = HashMap::new();
    for section in &file.ports {
        for text in section.get_ref().addresses.iter().flat_map(|list| list.get_ref()) {
            let Ok(LinkAddress { address, .. }) = text.get_ref().parse::<LinkAddress>() else { continue };
            // A link-local address means something else on every link.
            if address.is_unicast_link_local() {
                continue;
            }
            if let Some(first) = seen.get(&address) {
                let line = source.line(first);
                source.problem(&text.span(), format!("{address} is taken already on line {line}"));
            } else {
                seen.insert(address, text.span());
            }
        }
    }
}

fn providers_together(source: &mut Source<'_>, file: &SiteFile, providers: &[Option<Provider>]) {
    match file.providers.len() {
        0 => source.missing(&(0..0), "provider"),
        count if count > limits::PROVIDERS_MAX => {
            let most = limits::PROVIDERS_MAX;
            let span = file.providers[most].span();
            source.problem(&span, format!("{count} providers; more than {most} do not fit a control message"));
        }
        1 => source.warning(&file.providers[0].span(), "is the only provider: no session can survive losing it"),
        _ => {}
    }
    unique(source, "provider", file.providers.iter().map(|it| it.get_ref().name.as_ref()), |name| Some(name.clone()));
    let prefixes: Vec<Option<Prefix>> = providers.iter().map(|it| it.as_ref().map(|it| it.prefix)).collect();
    for (index, section) in file.providers.iter().enumerate() {
        let (Some(prefix), Some(text)) = (prefixes[index], &section.get_ref().prefix) else { continue };
        let clash = prefixes[..index].iter().position(|other| other.is_some_and(|other| other.overlaps(prefix)));
        if let Some(other) = clash {
            source.problem(&text.span(), format!("{prefix} is the prefix of provider[{other}] already"));
        }
    }
}

/// No port may serve two purposes: a packet's port decides whether it comes from the site or from a provider.
fn ports_in_use(source: &mut Source<'_>, file: &SiteFile) {
    let mut users: HashMap<&str, String> = HashMap::new();
    let lan = file.site.iter().map(|site| ("site".to_string(), &site.get_ref().port));
    let providers =
        file.providers.iter().enumerate().map(|(index, it)| (format!("provider[{index}]"), &it.get_ref().port));
    for (user, port) in lan.chain(providers) {
        let Some(port) = port else { continue };
        if let Some(other) = users.get(port.get_ref().as_str()) {
            source.problem(&port.span(), format!("port {} is used by {other} already", port.get_ref()));
        } else {
            users.insert(port.get_ref(), user);
        }
    }
    let unused = file.ports.iter().filter_map(|port| port.get_ref().name.as_ref());
    for name in unused.filter(|name| !users.contains_key(name.get_ref().as_str())) {
        source.warning(&name.span(), format!("port {} is used neither by the site nor by a provider", name.get_ref()));
    }
}

fn lan_address(source: &mut Source<'_>, file: &SiteFile, site: &SitePart, ports: &[Option<Port>]) {
    let Some(Some(port)) = ports.get(site.port) else { return };
    if !port.addresses.iter().any(|own| site.lan.contains(own.address))
        && let Some(list) = &file.ports[site.port].get_ref().addresses
    {
        // Hosts may use a link-local gateway, or sit behind another router.
        source.warning(&list.span(), format!("the box has no address in site.lan {} on this port", site.lan));
    }
}

fn peers_together(
    source: &mut Source<'_>,
    file: &SiteFile,
    peers: &[Option<Peer>],
    site: Prefix,
    providers: &[Option<Provider>],
) {
    unique(source, "peer", file.peers.iter().map(|peer| peer.get_ref().name.as_ref()), |name| Some(name.clone()));
    let address = |text: &String| text.parse::<Ipv6Addr>().ok();
    unique(source, "peer", file.peers.iter().map(|peer| peer.get_ref().ulid.as_ref()), address);
    for (section, peer) in file.peers.iter().zip(peers) {
        let (section, Some(peer)) = (section.get_ref(), peer) else { continue };
        if let (true, Some(text)) = (site.contains(peer.ulid.0), &section.ulid) {
            source.problem(&text.span(), format!("{} is inside our own site.prefix {site}", peer.ulid));
        }
        let texts = section.locators.iter().flat_map(|list| list.get_ref());
        for (text, locator) in texts.zip(&peer.locators) {
            let own = providers.iter().flatten().find(|provider| provider.prefix.contains(locator.0));
            if let Some(own) = own {
                source
                    .problem(&text.span(), format!("{locator} is inside the prefix of our own provider {}", own.name));
            }
        }
    }
}

/// The text's value; when it has none, why it is not `what` is noted.
pub(super) fn parsed<T: FromStr>(source: &mut Source<'_>, text: &Spanned<String>, what: &str) -> Option<T>
where
    T::Err: Display,
{
    match text.get_ref().parse() {
        Ok(value) => Some(value),
        Err(reason) => {
            source.problem(&text.span(), format!("\"{}\" is not {what}: {reason}", text.get_ref()));
            None
        }
    }
}

/// The index of the port called `name`. The names in the file count, so that a port with another fault is found too.
pub(super) fn reference(
    source: &mut Source<'_>,
    name: &Spanned<String>,
    ports: &[Spanned<PortSection>],
) -> Option<usize> {
    let named = |port: &Spanned<PortSection>| port.get_ref().name.as_ref().is_some_and(|it| it == name);
    let found = ports.iter().position(named);
    if found.is_none() {
        source.problem(&name.span(), format!("there is no port called \"{}\"", name.get_ref()));
    }
    found
}

/// Notes every field of `entries` whose value by `key` an earlier entry has.
pub(super) fn unique<'f, K: Eq + std::hash::Hash>(
    source: &mut Source<'_>,
    section: &str,
    entries: impl Iterator<Item = Option<&'f Spanned<String>>>,
    key: impl Fn(&String) -> Option<K>,
) {
    let mut seen: HashMap<K, usize> = HashMap::new();
    for (index, text) in entries.enumerate() {
        let Some(text) = text else { continue };
        let Some(value) = key(text.get_ref()) else { continue };
        if let Some(first) = seen.get(&value) {
            source.problem(&text.span(), format!("\"{}\" is that of {section}[{first}] already", text.get_ref()));
        } else {
            seen.insert(value, index);
        }
    }
}

fn field_span<T>(field: &Option<Spanned<T>>, table: &Span) -> Span {
    field.as_ref().map_or_else(|| table.clone(), Spanned::span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_a_pci_address_or_a_software_device() {
        assert_eq!(parse_device("3B:00.1"), Some(Device::Pci("0000:3b:00.1".into())));
        assert_eq!(parse_device("0001:3b:1f.7"), Some(Device::Pci("0001:3b:1f.7".into())));
        let veth = parse_device("net_af_packet0,iface=a-x,qdisc_bypass=1").unwrap();
        assert_eq!(veth.name(), "net_af_packet0");
        for wrong in ["", "eth0", "net_", "net_tap0, iface=x", "3b:00.8", "3b:20.0", "3b:0.0", "net_Tap", "+b:00.0"] {
            assert_eq!(parse_device(wrong), None, "{wrong}");
        }
    }
}
