//! What a router would say: BMP messages, written from RFC 7854 without any of our own code.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this")]

use std::net::{IpAddr, Ipv6Addr};

/// Route Monitoring about routes after policy.
pub const POST_POLICY: u8 = 0x40;

/// A message: common header (§4.1) and body.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (6 + body.len()) as u32;
    [&[3], &length.to_be_bytes()[..], &[kind], body].concat()
}

/// Per-peer header (§4.2) of a Global Instance Peer.
pub fn per_peer(peer: IpAddr, asn: u32, flags: u8) -> Vec<u8> {
    let (v, address) = match peer {
        IpAddr::V6(address) => (0x80, address.octets()),
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[12..].copy_from_slice(&address.octets());
            (0, octets)
        }
    };
    [&[0, flags | v], &[0; 8][..], &address, &asn.to_be_bytes(), &[10, 0, 0, 1], &[0; 8]].concat()
}

fn tlv(kind: u16, contents: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(contents.len() as u16).to_be_bytes(), contents].concat()
}

/// Initiation (§4.3).
pub fn initiation(name: &str) -> Vec<u8> {
    message(4, &[tlv(1, b"a router of these tests"), tlv(2, name.as_bytes())].concat())
}

/// Termination (§4.5).
pub fn termination(reason: u16) -> Vec<u8> {
    message(5, &tlv(1, &reason.to_be_bytes()))
}

/// A BGP message (RFC 4271 §4.1).
pub fn bgp(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[0xff; 16], &((19 + body.len()) as u16).to_be_bytes()[..], &[kind], body].concat()
}

/// An OPEN (RFC 4271 §4.2) with these capabilities.
pub fn open(capabilities: &[&[u8]]) -> Vec<u8> {
    let all = capabilities.concat();
    let parameters = if all.is_empty() { vec![] } else { [&[2, all.len() as u8], &all[..]].concat() };
    let head = [4, 0xfd, 0xe9, 0, 180, 10, 0, 0, 1, parameters.len() as u8];
    bgp(1, &[&head[..], &parameters].concat())
}

/// Multiprotocol extensions for IPv6 unicast (RFC 4760 §8).
pub const IPV6: &[u8] = &[1, 4, 0, 2, 0, 1];
/// Several paths of IPv6 prefixes, both ways (RFC 7911 §4).
pub const ADD_PATH: &[u8] = &[69, 4, 0, 2, 1, 3];

/// Peer Up (§4.10).
pub fn peer_up_with(header: &[u8], capabilities: &[&[u8]]) -> Vec<u8> {
    let open = open(capabilities);
    message(3, &[header, &[0; 16], &179u16.to_be_bytes(), &4321u16.to_be_bytes(), &open, &open].concat())
}

/// Peer Up of an ordinary session.
pub fn peer_up(peer: IpAddr) -> Vec<u8> {
    peer_up_with(&per_peer(peer, 65001, 0), &[IPV6])
}

/// Peer Down (§4.9).
pub fn peer_down(peer: IpAddr, reason: u8) -> Vec<u8> {
    let data: &[u8] = if reason == 1 || reason == 3 { &bgp(3, &[6, 2]) } else { &[0, 0] };
    message(2, &[&per_peer(peer, 65001, 0)[..], &[reason], data].concat())
}

/// A prefix as in an UPDATE (RFC 4271 §4.3).
pub fn prefix(text: &str) -> Vec<u8> {
    let (address, length) = text.split_once('/').unwrap();
    let (address, length): (Ipv6Addr, usize) = (address.parse().unwrap(), length.parse().unwrap());
    [&[length as u8], &address.octets()[..length.div_ceil(8)]].concat()
}

fn attribute(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[0x90, kind], &(value.len() as u16).to_be_bytes()[..], value].concat()
}

/// An UPDATE with attributes alone.
pub fn update(attributes: &[u8]) -> Vec<u8> {
    bgp(2, &[&[0, 0], &(attributes.len() as u16).to_be_bytes()[..], attributes].concat())
}

/// What makes routes of these prefixes, or ends them (RFC 4760 §3, §4).
pub fn reach(nlri: &[u8]) -> Vec<u8> {
    // Origin and AS path come before it, as they do.
    let next_hop = [&[0, 2, 1, 16][..], &[0x20, 1, 0xd, 0xb8], &[0; 12], &[0], nlri].concat();
    [attribute(1, &[0]), attribute(2, &[2, 1, 0, 0, 0xfd, 0xe9]), attribute(14, &next_hop)].concat()
}

pub fn unreach(nlri: &[u8]) -> Vec<u8> {
    attribute(15, &[&[0, 2, 1], nlri].concat())
}

/// Route Monitoring (§4.6) after policy.
pub fn monitoring(peer: IpAddr, attributes: &[u8]) -> Vec<u8> {
    message(0, &[per_peer(peer, 65001, POST_POLICY), update(attributes)].concat())
}

/// Prefixes are announced.
pub fn announce(peer: IpAddr, prefixes: &[&str]) -> Vec<u8> {
    monitoring(peer, &reach(&prefixes.iter().flat_map(|it| prefix(it)).collect::<Vec<u8>>()))
}

/// Prefixes are withdrawn; with none of them this is the End-of-RIB (RFC 4724 §2).
pub fn withdraw(peer: IpAddr, prefixes: &[&str]) -> Vec<u8> {
    monitoring(peer, &unreach(&prefixes.iter().flat_map(|it| prefix(it)).collect::<Vec<u8>>()))
}

/// All there is has been told.
pub fn end_of_rib(peer: IpAddr) -> Vec<u8> {
    withdraw(peer, &[])
}

/// A Statistics Report (§4.8) with one counter.
pub fn statistics(peer: IpAddr) -> Vec<u8> {
    let one = tlv(0, &7u32.to_be_bytes());
    message(1, &[&per_peer(peer, 65001, 0)[..], &1u32.to_be_bytes(), &one].concat())
}

/// The whole beginning of a session: Initiation, Peer Up, these prefixes, End-of-RIB.
pub fn session(name: &str, peer: IpAddr, prefixes: &[&str]) -> Vec<Vec<u8>> {
    vec![initiation(name), peer_up(peer), announce(peer, prefixes), end_of_rib(peer)]
}
