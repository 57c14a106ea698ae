//! IPv6 prefixes and the questions configuration asks of addresses.
//!
//! `ipnet` would serve too, but it takes `2001:db8::1/64` for a network without a word and its errors do not say what
//! is wrong; the operator's typing mistakes are the point here, and the rest is a mask.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// An IPv6 prefix; bits beyond its length are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: Ipv6Addr,
    length: u8,
}

/// An address of ours on a link, with the length of the link's prefix, as `2001:db8::1/64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkAddress {
    /// The address.
    pub address: Ipv6Addr,
    /// Length of the on-link prefix in bits, 1 to 128.
    pub length: u8,
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

/// Why a text is not what it should be: a clause that follows "`text` is not an IPv6 prefix: ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotParsed(String);

impl Prefix {
    /// The prefix of `length` bits that `address` lies in; none when `length` exceeds 128.
    pub fn of(address: Ipv6Addr, length: u8) -> Option<Prefix> {
        let bits = address.to_bits() & mask(length)?;
        Some(Prefix { address: Ipv6Addr::from_bits(bits), length })
    }

    /// The first address of the prefix.
    pub fn address(self) -> Ipv6Addr {
        self.address
    }

    /// Length in bits.
    pub fn length(self) -> u8 {
        self.length
    }

    /// The first eight octets: what an HBA set calls a prefix (RFC 5535 §5). Meaningful for lengths of 64.
    pub fn high_half(self) -> [u8; 8] {
        ((self.address.to_bits() >> 64) as u64).to_be_bytes()
    }

    /// Whether `address` lies inside.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        Prefix::of(address, self.length) == Some(self)
    }

    /// Of one address alone.
    pub fn host(address: Ipv6Addr) -> Prefix {
        Prefix { address, length: 128 }
    }

    /// Whether all of `other` lies inside.
    pub fn covers(self, other: Prefix) -> bool {
        self.length <= other.length && self.contains(other.address)
    }

    /// Whether some address lies in both.
    pub fn overlaps(self, other: Prefix) -> bool {
        self.covers(other) || other.covers(self)
    }
}

impl LinkAddress {
    /// The on-link prefix.
    pub fn prefix(self) -> Option<Prefix> {
        Prefix::of(self.address, self.length)
    }
}

impl MacAddress {
    /// Whether this can be the address of one interface: the group bit is clear and not all octets are zero.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

fn mask(length: u8) -> Option<u128> {
    match length {
        0 => Some(0),
        1..=128 => Some(u128::MAX << (128 - length)),
        _ => None,
    }
}

impl FromStr for Prefix {
    type Err = NotParsed;
    fn from_str(text: &str) -> Result<Prefix, NotParsed> {
        let LinkAddress { address, length } = address_and_length(text, 0)?;
        match Prefix::of(address, length) {
            Some(prefix) if prefix.address == address => Ok(prefix),
            Some(prefix) => Err(NotParsed(format!("bits are set beyond /{length}; the prefix is {prefix}"))),
            None => Err(NotParsed(format!("/{length} is longer than /128"))),
        }
    }
}

impl FromStr for LinkAddress {
    type Err = NotParsed;
    fn from_str(text: &str) -> Result<LinkAddress, NotParsed> {
        address_and_length(text, 1)
    }
}

fn address_and_length(text: &str, shortest: u8) -> Result<LinkAddress, NotParsed> {
    let (address, length) =
        text.split_once('/').ok_or_else(|| NotParsed("no /length follows the address".to_string()))?;
    let address =
        address.parse().map_err(|_| NotParsed(format!("\"{address}\" before the / is not an IPv6 address")))?;
    let number = length.parse::<u32>().ok().filter(|_| length.bytes().all(|digit| digit.is_ascii_digit()));
    match number {
        Some(number) if (u32::from(shortest)..=128).contains(&number) => {
            Ok(LinkAddress { address, length: number as u8 })
        }
        Some(number) => Err(NotParsed(format!("a length lies between {shortest} and 128, not at {number}"))),
        None => Err(NotParsed(format!("\"{length}\" after the / is not a length"))),
    }
}

impl FromStr for MacAddress {
    type Err = NotParsed;
    fn from_str(text: &str) -> Result<MacAddress, NotParsed> {
        let wrong = || NotParsed("six pairs of hex digits with colons between are expected".to_string());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            let digits = part.bytes().all(|digit| digit.is_ascii_hexdigit());
            *octet = u8::from_str_radix(part, 16).ok().filter(|_| digits).ok_or_else(wrong)?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(MacAddress(octets)) }
    }
}

/// Whether `address` is a unicast address at all: not multicast, unspecified, loopback or IPv4-mapped.
pub fn is_unicast(address: Ipv6Addr) -> bool {
    !(address.is_multicast() || address.is_unspecified() || address.is_loopback() || address.to_ipv4_mapped().is_some())
}

/// Whether `address` can be reached through providers: unicast, and neither link-local nor in fc00::/7 (RFC 4193).
/// The documentation prefix counts as routable, since laboratories live in it.
pub fn is_routable(address: Ipv6Addr) -> bool {
    is_unicast(address) && !address.is_unicast_link_local() && !address.is_unique_local()
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Display for LinkAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for LinkAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_knows_what_lies_inside() {
        let site = prefix("fc00:a::/48");
        assert!(site.contains("fc00:a:0:1::5".parse().unwrap()));
        assert!(!site.contains("fc00:b::".parse().unwrap()));
        assert!(site.covers(prefix("fc00:a:0:1::/64")));
        assert!(!prefix("fc00:a:0:1::/64").covers(site));
        assert!(prefix("fc00:a:0:1::/64").overlaps(site));
        assert!(prefix("::/0").covers(prefix("ff00::/8")));
        assert_eq!(prefix("fc00:a:0:1::/64").high_half(), [0xfc, 0, 0, 0xa, 0, 0, 0, 1]);
    }

    #[test]
    fn the_reason_a_text_is_no_prefix_is_told() {
        let reason = |text: &str| text.parse::<Prefix>().unwrap_err().to_string();
        assert_eq!(reason("2001:db8::"), "no /length follows the address");
        assert_eq!(reason("2001:db8::/200"), "a length lies between 0 and 128, not at 200");
        assert_eq!(reason("2001:db8::/+4"), "\"+4\" after the / is not a length");
        assert_eq!(reason("10.0.0.0/8"), "\"10.0.0.0\" before the / is not an IPv6 address");
        assert_eq!(reason("2001:db8::1/64"), "bits are set beyond /64; the prefix is 2001:db8::/64");
    }

    #[test]
    fn a_mac_address_is_six_pairs() {
        let mac: MacAddress = "02:00:5e:00:53:01".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:00:53:01");
        assert!(mac.is_unicast());
        assert!(!"03:00:00:00:00:01".parse::<MacAddress>().unwrap().is_unicast());
        assert!(!MacAddress([0; 6]).is_unicast());
        for wrong in
            ["", "02:00:5e:00:53", "02:00:5e:00:53:01:02", "2:0:5e:0:53:1", "02:00:5e:00:53:+1", "0g:00:00:00:00:00"]
        {
            assert!(wrong.parse::<MacAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_addresses_a_provider_carries_are_routable() {
        for yes in ["2001:db8::1", "2a00::1"] {
            assert!(is_routable(yes.parse().unwrap()), "{yes}");
        }
        for no in ["fc00::1", "fd00::1", "fe80::1", "ff02::1", "::", "::1", "::ffff:10.0.0.1"] {
            assert!(!is_routable(no.parse().unwrap()), "{no}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_parses_back(bits: u128, length in 0u8..=128) {
            let prefix = Prefix::of(Ipv6Addr::from_bits(bits), length).unwrap();
            prop_assert_eq!(prefix.to_string().parse::<Prefix>(), Ok(prefix));
            prop_assert!(prefix.contains(Ipv6Addr::from_bits(bits)));
        }
    }
}
