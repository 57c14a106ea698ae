//! The few packets the world makes itself: neighbour discovery, datagrams, errors of routers.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use dataplane::wire::checksum;
use dataplane::wire::ethernet::{self, EtherType, Mac};
use dataplane::wire::ipv6::{self, protocol};
use dataplane::wire::shim6::{Message, Options, udp};

/// An Ethernet frame with a packet in it.
pub fn frame(to: Mac, from: Mac, packet: &[u8]) -> Vec<u8> {
    let [high, low] = EtherType::IPV6.0.to_be_bytes();
    [&to.0[..], &from.0, &[high, low], packet].concat()
}

/// The packet in a frame, without padding.
pub fn packet_in(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(ethernet::HEADER_LEN..)?;
    packet.get(..ipv6::View::new(packet).ok()?.total_len())
}

/// The port boxes use for Shim6 in UDP, unless told otherwise.
pub const UDP_PORT: u16 = 5533;

/// A packet as it would be without UDP, if it is Shim6 in UDP.
pub fn out_of_udp(packet: &[u8]) -> Cow<'_, [u8]> {
    let found = ipv6::View::new(packet).ok().and_then(|view| udp::find(&view, UDP_PORT)?.ok());
    let Some(place) = found.map(|found| found.place) else { return Cow::Borrowed(packet) };
    let mut plain = packet.to_vec();
    match udp::unwrap(&mut plain, place) {
        Ok(()) => Cow::Owned(plain.split_off(udp::LEN)),
        Err(_) => Cow::Borrowed(packet),
    }
}

/// Whether a message says nothing but that its sender wants to know whether somebody is there: a probe, or a request without
/// news.
pub fn asks_for_a_sign(message: &Message) -> bool {
    match message {
        Message::Probe(_) => true,
        Message::UpdateRequest { options, .. } => *options == Options::default(),
        _ => false,
    }
}

/// An IPv6 packet.
pub fn ipv6(source: Ipv6Addr, target: Ipv6Addr, next_header: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let header = ipv6::Repr {
        source,
        target,
        next_header,
        payload_len: payload.len() as u16,
        hop_limit,
        traffic_class: 0,
        flow_label: 0,
    };
    [&header.emit()[..], payload].concat()
}

/// An ICMPv6 message with its checksum, in a packet.
pub fn icmp(source: Ipv6Addr, target: Ipv6Addr, hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let sum = checksum::upper_layer(source, target, protocol::ICMPV6, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv6(source, target, protocol::ICMPV6, hop_limit, &message)
}

/// A UDP datagram with its checksum, in a packet.
pub fn udp(source: Ipv6Addr, target: Ipv6Addr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() + 8) as u16;
    let fields = [ports.0, ports.1, length, 0].map(u16::to_be_bytes).concat();
    let mut datagram = [&fields[..], payload].concat();
    let sum = checksum::for_udp(checksum::upper_layer(source, target, protocol::UDP, &datagram));
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    ipv6(source, target, protocol::UDP, 64, &datagram)
}

/// What a neighbour solicitation asks for (RFC 4861 §4.3), if the packet is one.
pub fn solicited(packet: &[u8]) -> Option<Ipv6Addr> {
    let view = ipv6::View::new(packet).ok()?;
    let message = view.payload();
    let is_one = view.next_header() == protocol::ICMPV6 && message.first() == Some(&135) && view.hop_limit() == 255;
    let octets: &[u8; 16] = message.get(8..24)?.first_chunk()?;
    is_one.then(|| Ipv6Addr::from(*octets))
}

/// The answer to a solicitation (RFC 4861 §4.4): `address` is at `mac`.
pub fn advertisement(solicitation: &[u8], address: Ipv6Addr, mac: Mac) -> Option<Vec<u8>> {
    let asker = ipv6::View::new(solicitation).ok()?.source();
    // Solicited and override; the target link-layer address option.
    let message = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &address.octets(), &[2, 1], &mac.0].concat();
    Some(icmp(address, asker, 255, &message))
}

/// A router's error about a packet (RFC 4443 §2.4, §3): as much of it as fits.
pub fn error_about(packet: &[u8], router: Ipv6Addr, kind: u8, code: u8, word: u32) -> Option<Vec<u8>> {
    let source = ipv6::View::new(packet).ok()?.source();
    let quote = &packet[..packet.len().min(ipv6::MIN_MTU - ipv6::HEADER_LEN - 8)];
    Some(icmp(router, source, 64, &[&[kind, code, 0, 0][..], &word.to_be_bytes(), quote].concat()))
}

/// What an ICMPv6 Packet Too Big for the host `ulid` says about one of its own packets (RFC 4443 §3.2): the MTU.
pub fn mtu_told(packet: &[u8], ulid: Ipv6Addr) -> Option<u32> {
    let view = ipv6::View::new(packet).ok()?;
    let message = view.payload();
    let about = ipv6::View::of_quote(message.get(8..)?).ok()?.source();
    let word = message.get(4..8)?.first_chunk()?;
    let is_one = view.next_header() == protocol::ICMPV6 && message[0] == 2 && about == ulid;
    is_one.then(|| u32::from_be_bytes(*word))
}

/// Whether a frame holds a message of neighbour discovery or multicast listener discovery.
pub fn is_discovery(frame: &[u8]) -> bool {
    let view = packet_in(frame).and_then(|packet| ipv6::View::new(packet).ok());
    let kind =
        view.and_then(|view| view.upper_layer().ok().and_then(|it| view.from_offset(it.place.offset).first().copied()));
    matches!(kind, Some(130..=137 | 143))
}

/// Source and destination port of a UDP or TCP header.
pub fn ports(segment: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *segment.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// A packet in a few words.
pub fn summary(octets: &[u8]) -> String {
    let Ok(view) = ipv6::View::new(octets) else { return "no packet".to_owned() };
    let (upper, total) = (view.payload(), octets.len());
    let word =
        |at: usize| upper.get(at..at + 4).and_then(|word| word.first_chunk()).map_or(0, |it| u32::from_be_bytes(*it));
    let (from, to) = ports(upper).unwrap_or_default();
    match view.next_header() {
        protocol::TCP => {
            let (offset, flags) = (usize::from(upper[12] >> 4) * 4, upper[13]);
            let (sequence, acknowledged, window) = (word(4), word(8), word(12) as u16);
            let octets = upper.len().saturating_sub(offset);
            format!("TCP {from} to {to}, flags {flags:02x}, {sequence}+{octets}, ack {acknowledged}, window {window}")
        }
        protocol::UDP => format!("UDP {from} to {to}, {total} octets"),
        protocol::ICMPV6 => format!("ICMPv6 {} {}, {}", upper[0], upper[1], word(4)),
        other => format!("next header {other}, {total} octets"),
    }
}
