//! Classes of traffic that get contexts of their own: what their packets look like, and which providers they prefer.

use std::ops::RangeInclusive;

use dataplane::snapshot::{CLASSES_MAX, ClassView, has_ports};
use toml::Spanned;

use super::check::{checked_name, required};
use super::file::ForkSection;
use super::limits;
use super::network::{Network, parsed, unique};
use super::prefix::Prefix;
use super::site::Fork;
use super::source::{Source, Span};

/// Names of code points (RFC 2474, RFC 2597, RFC 3246, RFC 5865, RFC 8622).
const CODE_POINTS: [(&str, u8); 24] = [
    ("be", 0),
    ("le", 1),
    ("cs1", 8),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("cs2", 16),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("cs3", 24),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("cs4", 32),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("cs5", 40),
    ("va", 44),
    ("ef", 46),
    ("cs6", 48),
    ("cs7", 56),
    ("default", 0),
];
/// Names of upper layers.
const PROTOCOLS: [(&str, u8); 7] =
    [("tcp", 6), ("udp", 17), ("dccp", 33), ("esp", 50), ("icmpv6", 58), ("sctp", 132), ("udplite", 136)];
/// Extension headers that are followed, so that none of them ever is an upper layer.
const EXTENSIONS: [u8; 5] = [0, 43, 44, 51, 60];

type Texts = Option<Spanned<Vec<Spanned<String>>>>;

/// The classes; those with a fault are left out, which is as good as refused.
pub(super) fn check(
    source: &mut Source<'_>,
    sections: &[Spanned<ForkSection>],
    network: &Network,
    forks_max: u16,
) -> Vec<Fork> {
    if let Some(first) = sections.get(CLASSES_MAX) {
        source.problem(&first.span(), format!("{} classes; there may be {CLASSES_MAX}", sections.len()));
    }
    unique(source, "fork", sections.iter().map(|it| it.get_ref().name.as_ref()), |name| Some(name.clone()));
    if let Some(first) = sections.get(usize::from(forks_max)) {
        let text = format!(
            "peers with shim6.forks_max = {forks_max}, as here, take {forks_max} forked contexts of a pair and not {}",
            sections.len()
        );
        source.warning(&first.span(), text);
    }
    sections.iter().filter_map(|section| fork(source, section, network)).collect()
}

fn fork(source: &mut Source<'_>, section: &Spanned<ForkSection>, network: &Network) -> Option<Fork> {
    let (span, section) = (section.span(), section.get_ref());
    let name = required(source, &span, "name", &section.name).and_then(|name| checked_name(source, name));
    let providers = required(source, &span, "providers", &section.providers)
        .map(|list| providers(source, list, network))
        .unwrap_or_default();
    let class = class(source, &span, section);
    let hosts = prefixes(source, &section.hosts);
    for (text, prefix) in &hosts {
        if !network.prefix.covers(*prefix) {
            source.problem(text, format!("{prefix} is not inside site.prefix {}", network.prefix));
        }
    }
    let peers = prefixes(source, &section.peers);
    for (text, prefix) in &peers {
        if network.prefix.covers(*prefix) {
            source.problem(text, format!("{prefix} is inside our own site.prefix {}", network.prefix));
        }
    }
    let plain = |list: Vec<(Span, Prefix)>| list.into_iter().map(|(_, prefix)| prefix).collect();
    Some(Fork { name: name?, class, hosts: plain(hosts), peers: plain(peers), providers })
}

fn class(source: &mut Source<'_>, span: &Span, section: &ForkSection) -> ClassView {
    let lists = [&section.ports, &section.source_ports, &section.target_ports];
    let with_ports = lists.into_iter().flatten().next();
    if section.dscp.is_none() && section.protocol.is_none() && with_ports.is_none() {
        source.problem(span, "says neither dscp nor protocol nor ports, and would take every packet");
    }
    let upper = section.protocol.as_ref().and_then(|text| protocol(source, text));
    if let (Some(upper), Some(list)) = (upper.filter(|upper| !has_ports(*upper)), with_ports) {
        source.problem(&list.span(), format!("protocol {upper} has no ports"));
    }
    ClassView {
        code_points: section.dscp.as_ref().map_or(u64::MAX, |list| code_points(source, list)),
        protocol: upper,
        ports: ports(source, &section.ports),
        source_ports: ports(source, &section.source_ports),
        target_ports: ports(source, &section.target_ports),
    }
}

/// The number that stands for a name, or in the text itself.
fn numbered(names: &[(&str, u8)], text: &str) -> Option<u8> {
    let named = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, number)| *number);
    named.or_else(|| text.parse().ok().filter(|_| text.bytes().all(|octet| octet.is_ascii_digit())))
}

fn protocol(source: &mut Source<'_>, text: &Spanned<String>) -> Option<u8> {
    let Some(number) = numbered(&PROTOCOLS, text.get_ref()) else {
        let names = PROTOCOLS.map(|(name, _)| name).join(", ");
        source.problem(&text.span(), format!("\"{}\" is no protocol: {names}, or 0 to 255", text.get_ref()));
        return None;
    };
    if EXTENSIONS.contains(&number) {
        source
            .problem(&text.span(), format!("{number} is an extension header, behind which the protocol is looked for"));
        return None;
    }
    Some(number)
}

fn code_points(source: &mut Source<'_>, list: &Spanned<Vec<Spanned<String>>>) -> u64 {
    if list.get_ref().is_empty() {
        source.problem(&list.span(), "names no code point");
    }
    let mut set = 0;
    for text in list.get_ref() {
        match numbered(&CODE_POINTS, text.get_ref()) {
            Some(number @ 0..=63) => set |= 1 << number,
            _ => {
                let text_ = text.get_ref();
                source.problem(&text.span(), format!("\"{text_}\" is no code point: a name as ef or af41, or 0 to 63"));
            }
        }
    }
    set
}

fn ports(source: &mut Source<'_>, list: &Texts) -> Vec<RangeInclusive<u16>> {
    let Some(list) = list else { return Vec::new() };
    has_room(source, list);
    let mut ranges = Vec::new();
    for text in list.get_ref() {
        match range(text.get_ref()) {
            Some(range) => ranges.push(range),
            None => {
                let text_ = text.get_ref();
                source
                    .problem(&text.span(), format!("\"{text_}\" is neither a port, as 80, nor a range, as 5000-5999"));
            }
        }
    }
    ranges
}

/// A Differentiated Services code point, by its name or its number.
pub fn code_point(text: &str) -> Option<u8> {
    numbered(&CODE_POINTS, text).filter(|number| *number < 64)
}

/// An upper layer's protocol, by its name or its number; extension headers are none.
pub fn upper_layer(text: &str) -> Option<u8> {
    numbered(&PROTOCOLS, text).filter(|number| !EXTENSIONS.contains(number))
}

/// `80` or `5000-5999`.
pub fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|octet| octet.is_ascii_digit()));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

fn prefixes(source: &mut Source<'_>, list: &Texts) -> Vec<(Span, Prefix)> {
    let Some(list) = list else { return Vec::new() };
    has_room(source, list);
    let mut prefixes = Vec::new();
    for text in list.get_ref() {
        prefixes.extend(parsed::<Prefix>(source, text, "an IPv6 prefix").map(|prefix| (text.span(), prefix)));
    }
    prefixes
}

/// A list that is there says something, and not too much.
fn has_room(source: &mut Source<'_>, list: &Spanned<Vec<Spanned<String>>>) {
    let (count, most) = (list.get_ref().len(), limits::CLASS_ENTRIES_MAX);
    if !(1..=most).contains(&count) {
        source.problem(&list.span(), format!("has {count} entries: 1 to {most}"));
    }
}

fn providers(source: &mut Source<'_>, list: &Spanned<Vec<Spanned<String>>>, network: &Network) -> Vec<usize> {
    if list.get_ref().is_empty() {
        source.problem(&list.span(), "names no provider, so the class would be no different from the rest");
    }
    let mut found = Vec::new();
    for name in list.get_ref() {
        match network.providers.iter().position(|provider| provider.name == *name.get_ref()) {
            None => source.problem(&name.span(), format!("there is no provider called \"{}\"", name.get_ref())),
            Some(at) if found.contains(&at) => {
                source.problem(&name.span(), format!("\"{}\" stands twice", name.get_ref()))
            }
            Some(at) => found.push(at),
        }
    }
    found
}
