//! What clients are told besides their address: DNS (RFC 3646), address selection (RFC 7078), a name (RFC 4704).

use std::net::Ipv6Addr;

use super::message::{Writer, code};

/// A row of a host's policy table for address selection (RFC 6724 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRow {
    /// Addresses it is about.
    pub prefix: Ipv6Addr,
    /// How many bits of it count.
    pub length: u8,
    /// Higher is tried first.
    pub precedence: u8,
    /// Source and destination of one label go together.
    pub label: u8,
}

/// The default policy table (RFC 6724 §2.1), which a host that is given any table no longer has.
pub const DEFAULT_POLICY: [PolicyRow; 9] = [
    row([0, 0, 0, 0, 0, 0, 0, 1], 128, 50, 0),
    row([0, 0, 0, 0, 0, 0, 0, 0], 0, 40, 1),
    row([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, 35, 4),
    row([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, 30, 2),
    row([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, 5, 5),
    row([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, 3, 13),
    row([0, 0, 0, 0, 0, 0, 0, 0], 96, 1, 3),
    row([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, 1, 11),
    row([0x3ffe, 0, 0, 0, 0, 0, 0, 0], 16, 1, 12),
];

const fn row(words: [u16; 8], length: u8, precedence: u8, label: u8) -> PolicyRow {
    let [a, b, c, d, e, f, g, h] = words;
    PolicyRow { prefix: Ipv6Addr::new(a, b, c, d, e, f, g, h), length, precedence, label }
}

/// The default table, and a row by which identifiers of sites are preferred to everything: to IPv4, which RFC 6724 puts
/// before unique local addresses, and to routable IPv6 addresses of the same peer.
///
/// All `blocks` have one label of their own, so that an identifier is the source for every other one (RFC 6724 §5 rule 6),
/// whichever block it is of. Rows that are `said` stand in the place of others for the same prefix.
pub fn policy_with(said: &[PolicyRow], blocks: &[(Ipv6Addr, u8)]) -> Vec<PolicyRow> {
    let mut rows = said.to_vec();
    let own = blocks.iter().map(|&(prefix, length)| PolicyRow { prefix, length, precedence: 45, label: 14 });
    for row in own.chain(DEFAULT_POLICY) {
        if !rows.iter().any(|other| (other.prefix, other.length) == (row.prefix, row.length)) {
            rows.push(row);
        }
    }
    rows
}

/// Flag A: rows may be added automatically; without effect beside a table.
pub const AUTOMATIC_ROWS: u8 = 2;
/// Flag P: temporary addresses are preferred.
pub const PRIVACY: u8 = 1;

/// Adds an Address Selection option.
pub fn put_policy(out: &mut Writer, flags: u8, rows: &[PolicyRow]) {
    out.option(code::ADDRESS_SELECTION, |out| {
        out.put(&[flags]);
        for row in rows {
            out.option(code::ADDRESS_SELECTION_TABLE, |out| {
                out.put(&[row.label, row.precedence, row.length]);
                let octets = row.prefix.octets();
                out.put(octets.get(..usize::from(row.length).div_ceil(8)).unwrap_or(&octets));
            });
        }
    });
}

/// A domain name as DNS writes it (RFC 1035 §3.1); none if it has no such form.
pub fn encode_name(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        let right = (1..=63).contains(&label.len()) && label.bytes().all(|octet| octet.is_ascii_graphic());
        if !right {
            return None;
        }
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    (out.len() <= 255).then_some(out)
}

/// A host's name from what it calls itself: letters, digits and hyphens in lower case, at most 63 of them; none if
/// nothing is left.
pub fn sanitised(label: &[u8]) -> Option<String> {
    let kept = label.iter().map(|octet| match octet {
        b'a'..=b'z' | b'0'..=b'9' => char::from(*octet),
        b'A'..=b'Z' => char::from(octet.to_ascii_lowercase()),
        _ => '-',
    });
    let name: String = kept.take(63).collect();
    let name = name.trim_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}
