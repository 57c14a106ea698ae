//! Blocks of identifiers besides fc00::/7: where they may lie, and what may not lie in them.

use toml::Spanned;

use super::file::{SiteFile, SiteSection};
use super::network::parsed;
use super::prefix::{LinkAddress, Prefix, is_unicast};
use super::site::{Port, Provider};
use super::source::Source;

/// Most blocks: every packet to somewhere without a context is held against each.
pub(super) const BLOCKS_MAX: usize = 8;
/// Shortest blocks: anywhere, and in 2000::/3, of which providers delegate parts.
const LENGTH_MIN: u8 = 8;
const LENGTH_MIN_GLOBAL: u8 = 16;
const LENGTH_MAX: u8 = 64;

/// The blocks that are said, those that cannot be obeyed left out.
pub(super) fn blocks(source: &mut Source<'_>, section: &SiteSection) -> Vec<Prefix> {
    let Some(list) = &section.identifier_blocks else { return Vec::new() };
    if list.get_ref().len() > BLOCKS_MAX {
        source.problem(&list.span(), format!("has {} entries: at most {BLOCKS_MAX}", list.get_ref().len()));
    }
    let mut blocks: Vec<Prefix> = Vec::new();
    for text in list.get_ref() {
        let Some(block) = parsed::<Prefix>(source, text, "an IPv6 prefix") else { continue };
        match fault(block, &blocks) {
            Some(fault) => source.problem(&text.span(), format!("{block} {fault}")),
            None => blocks.push(block),
        }
    }
    blocks
}

fn fault(block: Prefix, before: &[Prefix]) -> Option<String> {
    let address = block.address();
    let [first, ..] = address.octets();
    let shortest = if first >> 5 == 1 { LENGTH_MIN_GLOBAL } else { LENGTH_MIN };
    if !(shortest..=LENGTH_MAX).contains(&block.length()) {
        return Some(format!("is not between /{shortest} and /{LENGTH_MAX} long"));
    }
    if address.is_unique_local() {
        return Some("is in fc00::/7, whose addresses are identifiers in any case".into());
    }
    // The unspecified address, loopback, IPv4-mapped ones and the prefix of translators lie in ::/8 and 64:ff9b::/32.
    let translated = address.segments()[..2] == [0x64, 0xff9b];
    if first == 0 || first == 0xff || translated || address.is_unicast_link_local() || !is_unicast(address) {
        return Some("holds addresses that mean something else (RFC 4291 §2.4)".into());
    }
    let other = before.iter().find(|other| other.overlaps(block));
    other.map(|other| format!("overlaps {other}"))
}

/// What is reached through providers lies in no block: nothing would be translated for it, or sent to it.
pub(super) fn together(
    source: &mut Source<'_>,
    file: &SiteFile,
    blocks: &[Prefix],
    ports: &[Option<Port>],
    providers: &[Option<Provider>],
) {
    let of = |prefix: Prefix| blocks.iter().find(|block| block.overlaps(prefix));
    for (section, provider) in file.providers.iter().zip(providers) {
        let section = section.get_ref();
        let Some(provider) = provider else { continue };
        let delegated = section.delegated.as_ref().zip(provider.delegated);
        for (text, prefix) in section.prefix.iter().map(|text| (text, provider.prefix)).chain(delegated) {
            if let Some(block) = of(prefix) {
                let text_of =
                    format!("{prefix} and the identifiers' block {block} overlap: locators would be identifiers");
                source.problem(&text.span(), text_of);
            }
        }
        let Some(Some(port)) = ports.get(provider.port) else { continue };
        let texts = file.ports.get(provider.port).and_then(|port| port.get_ref().addresses.as_ref());
        for (text, own) in texts.iter().flat_map(|list| list.get_ref()).zip(&port.addresses) {
            if let Some(block) = of(single(*own)) {
                source
                    .problem(&text.span(), format!("{own} is in the identifiers' block {block}, on a provider's link"));
            }
        }
    }
    for section in &file.peers {
        for text in section.get_ref().locators.iter().flat_map(|list| list.get_ref()) {
            locator(source, text, blocks);
        }
    }
}

fn single(own: LinkAddress) -> Prefix {
    Prefix::host(own.address)
}

fn locator(source: &mut Source<'_>, text: &Spanned<String>, blocks: &[Prefix]) {
    let Ok(locator) = text.get_ref().parse() else { return };
    if let Some(block) = blocks.iter().find(|block| block.contains(locator)) {
        source.problem(&text.span(), format!("{locator} is in the identifiers' block {block}, so it locates nobody"));
    }
}
