//! Where a chain of aliases ends (RFC 1034 §3.6.2), and what is there.

use std::net::Ipv6Addr;

use super::name::Name;
use super::view::{IN, Section, View, kind};

/// Aliases followed in one answer. Resolvers stop at about as many.
const ALIASES_MAX: usize = 16;

/// The end of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The names after the one asked for, in order.
    pub(super) chain: Vec<Name>,
    /// The data of the records of the wanted type there that have 16 octets.
    pub(super) addresses: Vec<Ipv6Addr>,
    /// Records of that type whose data has another length.
    pub(super) odd: usize,
    /// Smallest TTL of the chain's records and these.
    pub(super) ttl: u32,
}

/// Follows the aliases of an answer from the name asked for to the records of a type. Records of other names are no answer,
/// wherever they stand.
pub(super) fn follow(view: &View<'_>, wanted: u16) -> Option<End> {
    let mut at = Name::from_wire(view.asked())?;
    let mut end = End { chain: Vec::new(), addresses: Vec::new(), odd: 0, ttl: u32::MAX };
    let answers = || view.section(Section::Answer).filter(|record| record.class == IN);
    // Owners are read once, not once for every alias.
    let aliases: Vec<_> = answers()
        .filter(|record| record.kind == kind::CNAME)
        .filter_map(|record| Some((view.owner(record), view.target(record)?, record.ttl)))
        .collect();
    while let Some((_, next, ttl)) = aliases.iter().find(|(owner, ..)| *owner == at) {
        if end.chain.len() == ALIASES_MAX {
            return None;
        }
        end.ttl = end.ttl.min(*ttl);
        end.chain.push(next.clone());
        at = next.clone();
    }
    for record in answers().filter(|record| record.kind == wanted && view.owner(record) == at) {
        end.ttl = end.ttl.min(record.ttl);
        match view.address(record) {
            Some(address) => end.addresses.push(address),
            None => end.odd += 1,
        }
    }
    Some(end)
}
