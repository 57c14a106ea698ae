//! What the box shares with the operating system: interfaces of ports (`port.interface`), routes (`[routes]`), and the router that
//! the hosts are behind (`site.router`).

use std::net::Ipv6Addr;
use std::time::Duration;

use toml::Spanned;

use super::check::number;
use super::file::{PortSection, RoutesSection, SiteFile};
use super::limits;
use super::network::{Network, link_address, next_hop, parsed};
use super::prefix::{LinkAddress, Prefix};
use super::source::Source;

/// Octets of an interface's name, without the one that ends it.
const NAME_MAX: usize = 15;
/// Routes to the inside that one box announces.
const INSIDE_MAX: usize = 16;
/// Addresses on one interface.
const ADDRESSES_MAX: usize = 16;
/// Where identifiers come from (RFC 4193).
const UNIQUE_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0);

/// An interface of the operating system by which it shares a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Addresses it is given when it is made; without a link-local one among them it gets one of its own.
    pub addresses: Vec<LinkAddress>,
}

/// Whether a box is the one that traffic should take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It is.
    #[default]
    Primary,
    /// It is for when no other is there.
    Backup,
}

impl Role {
    /// The metric of its routes where nothing else is said.
    const fn metric(self) -> i64 {
        match self {
            Role::Primary => 100,
            Role::Backup => 200,
        }
    }

    /// As in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Backup => "backup",
        }
    }
}

/// The routes the operating system has while the box is fit to serve (`[routes]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// Whether traffic should take this box.
    pub role: Role,
    /// Their metric: lower is better.
    pub metric: u32,
    /// What lies behind the box for the hosts: identifiers of everybody.
    pub inside: Vec<Prefix>,
    /// How long the box goes on forwarding after its routes are gone, before it ends.
    pub linger: Duration,
    /// How long a box that has just begun, and knows no contexts, announces itself to providers before it does inside.
    pub inside_after: Duration,
    /// Packets a second for the operating system, by each port.
    pub packets_per_s: u32,
}

/// Packets a second for the operating system where there is no `[routes]`.
pub(crate) const PACKETS_PER_S: u32 = limits::ROUTES_PACKETS_PER_S.default as u32;

pub(super) fn interface(source: &mut Source<'_>, section: &PortSection) -> Option<Interface> {
    let Some(name) = &section.interface else {
        if let Some(list) = &section.interface_addresses {
            source.problem(&list.span(), "addresses for an interface, and port.interface names none");
        }
        return None;
    };
    if let Some(reason) = name_error(name.get_ref()) {
        source.problem(&name.span(), reason);
    }
    let mut addresses = Vec::new();
    let listed = section.interface_addresses.as_ref();
    if let Some(list) = listed.filter(|list| list.get_ref().len() > ADDRESSES_MAX) {
        source.problem(&list.span(), format!("more than {ADDRESSES_MAX} addresses"));
    }
    for text in listed.iter().flat_map(|list| list.get_ref()) {
        let Some(address) = link_address(source, text) else { continue };
        let own = section.addresses.iter().flat_map(|list| list.get_ref());
        let is_own =
            |text: &Spanned<String>| text.get_ref().parse().is_ok_and(|it: LinkAddress| it.address == address.address);
        if own.into_iter().any(is_own) {
            let text_of = format!("{} is the box's own address; the operating system needs another", address.address);
            source.problem(&text.span(), text_of);
        } else if addresses.iter().any(|it: &LinkAddress| it.address == address.address) {
            source.problem(&text.span(), format!("{} stands twice", address.address));
        }
        addresses.push(address);
    }
    Some(Interface { name: name.get_ref().clone(), addresses })
}

/// Why a text is no name for an interface of ours; none when it is one. The kernel takes more than these letters, and scripts of
/// all kinds read such names.
fn name_error(name: &str) -> Option<String> {
    let letters = name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet));
    let start = name.bytes().next().is_some_and(|octet| octet.is_ascii_alphabetic());
    let good = letters && start && name.len() <= NAME_MAX && name != "lo" && name != "all" && name != "default";
    (!good).then(|| format!("\"{name}\" is no name for an interface: a letter, then up to 14 letters, digits, - _ ."))
}

/// How the interfaces fit together, and with what the providers delegated.
pub(super) fn together(source: &mut Source<'_>, file: &SiteFile, network: &Network) {
    let names = file.ports.iter().map(|port| port.get_ref().interface.as_ref());
    super::network::unique(source, "port", names, |name| Some(name.clone()));
    for section in &file.ports {
        for text in section.get_ref().interface_addresses.iter().flat_map(|list| list.get_ref()) {
            let Ok(LinkAddress { address, .. }) = text.get_ref().parse::<LinkAddress>() else { continue };
            if let Some(provider) = network.providers.iter().find(|it| it.prefix.contains(address)) {
                let text_of =
                    format!("{address} is among the locators of provider {}, which are hosts'", provider.name);
                source.problem(&text.span(), text_of);
            }
        }
    }
}

/// The router the hosts are behind.
pub(super) fn router(source: &mut Source<'_>, file: &SiteFile, network: &Network) -> Option<Ipv6Addr> {
    let text = file.site.as_ref()?.get_ref().router.as_ref()?;
    next_hop(source, text, network.ports.get(network.lan_port))
}

pub(super) fn check(
    source: &mut Source<'_>,
    section: &Option<Spanned<RoutesSection>>,
    network: &Network,
) -> Option<Routes> {
    let span = section.as_ref()?.span();
    let section = section.as_ref()?.get_ref();
    if section.enabled == Some(false) {
        return None;
    }
    if network.ports.get(network.lan_port).is_none_or(|port| port.interface.is_none()) {
        source.problem(&span, "routes need an interface: name one by port.interface at the port of site.port");
    }
    let role = section.role.unwrap_or_default();
    let metric = limits::Limits { default: role.metric(), ..limits::ROUTES_METRIC };
    let inside = match &section.inside {
        None => {
            let root = Prefix::of(UNIQUE_LOCAL, 7);
            root.into_iter().chain(network.identifier_blocks.iter().copied()).collect()
        }
        Some(list) => {
            if !(1..=INSIDE_MAX).contains(&list.get_ref().len()) {
                source.problem(&list.span(), format!("has {} entries: 1 to {INSIDE_MAX}", list.get_ref().len()));
            }
            let mut prefixes: Vec<Prefix> = Vec::new();
            for text in list.get_ref() {
                match parsed(source, text, "an IPv6 prefix") {
                    Some(prefix) if prefixes.contains(&prefix) => {
                        source.problem(&text.span(), format!("{prefix} stands twice"));
                    }
                    found => prefixes.extend(found),
                }
            }
            prefixes
        }
    };
    Some(Routes {
        role,
        metric: number(source, &section.metric, metric),
        inside,
        linger: Duration::from_millis(number(source, &section.linger_ms, limits::ROUTES_LINGER_MS)),
        inside_after: Duration::from_millis(number(source, &section.inside_after_ms, limits::ROUTES_INSIDE_AFTER_MS)),
        packets_per_s: number(source, &section.packets_per_s, limits::ROUTES_PACKETS_PER_S),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Site;
    use super::super::tests::{GOOD, load};
    use super::*;

    /// The good site with lines after the LAN port's addresses, and sections at its end.
    fn with(port: &str, sections: &str) -> Result<Site, Vec<String>> {
        let at = GOOD.find("addresses = [").unwrap();
        let end = at + GOOD[at..].find('\n').unwrap() + 1;
        load(&format!("{}{port}\n{}\n{sections}\n", &GOOD[..end], &GOOD[end..])).map(|(site, _)| site)
    }

    fn refused(port: &str, sections: &str) -> String {
        with(port, sections).unwrap_err().join("\n")
    }

    #[test]
    fn without_a_word_nothing_is_shared() {
        let site = with("", "").unwrap();
        assert!(
            site.routes.is_none() && site.router.is_none() && site.ports.iter().all(|port| port.interface.is_none())
        );
        assert!(with("interface = \"ps-lan\"", "[routes]\nenabled = false").unwrap().routes.is_none());
    }

    #[test]
    fn a_role_brings_its_metric_and_a_metric_of_its_own_stands_above_it() {
        let routes = |text: &str| with("interface = \"ps-lan\"", &format!("[routes]\n{text}")).unwrap().routes.unwrap();
        assert_eq!((routes("").role, routes("").metric), (Role::Primary, 100));
        assert_eq!(routes("role = \"backup\"").metric, 200);
        assert_eq!(routes("role = \"backup\"\nmetric = 7").metric, 7);
        assert_eq!(routes("").inside, ["fc00::/7".parse().unwrap()]);
        assert_eq!(routes("inside = [\"fc00:b::/32\"]").inside, ["fc00:b::/32".parse().unwrap()]);
        assert_eq!((routes("").linger, routes("").inside_after), (Duration::from_secs(1), Duration::from_secs(3)));
        assert_eq!(routes("inside_after_ms = 0").inside_after, Duration::ZERO);
        assert!(refused("interface = \"ps-lan\"", "[routes]\nmetric = 0").contains("routes.metric: 0 is out of range"));
        let twice = refused("interface = \"ps-lan\"", "[routes]\ninside = [\"fc00::/7\", \"fc00::/7\"]");
        assert!(twice.contains("fc00::/7 stands twice"), "{twice}");
    }

    #[test]
    fn interfaces_have_names_that_tools_can_read_and_addresses_nobody_else_has() {
        let interface = |text: &str| with(text, "").unwrap().ports[0].interface.clone().unwrap();
        assert_eq!(interface("interface = \"ps-lan\"").addresses, []);
        let given = interface("interface = \"ps.1_a\"\ninterface_addresses = [\"fe80::5/64\", \"fc00:a:0:9::1/64\"]");
        assert_eq!((given.name.as_str(), given.addresses.len()), ("ps.1_a", 2));
        for name in ["", "lo", "all", "1eth", "-a", "sixteen-letters-", "a/b", "a b", "a%d", "ä"] {
            let text = refused(&format!("interface = \"{name}\""), "");
            assert!(text.contains("is no name for an interface"), "{text}");
        }
        assert!(refused("interface_addresses = [\"fe80::5/64\"]", "").contains("port.interface names none"));
        let twice = refused("interface = \"p\"\ninterface_addresses = [\"fe80::5/64\", \"fe80::5/10\"]", "");
        assert!(twice.contains("stands twice"), "{twice}");
        assert!(refused("", "[routes]").contains("routes need an interface"));
    }
}
