//! The four messages of neighbour discovery as the box reads and writes them: what RFC 4861 §7.1 lets pass, and the
//! frames of §7.2.

use std::net::Ipv6Addr;

use dataplane::wire::ethernet::{self, EtherType, Mac};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
    RawHardwareAddress,
};

use super::OwnLink;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What an ICMPv6 packet is to neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Somebody else's business.
    Foreign,
    /// Neighbour discovery that has to be ignored, or that the box has no use for.
    Ignored,
    /// Somebody asks who has an address.
    Solicitation {
        /// Who; unspecified for a probe for duplicates.
        source: Ipv6Addr,
        /// Which address.
        asked: Ipv6Addr,
        /// The link-layer address of who asks, if it says so.
        from: Option<Mac>,
    },
    /// Somebody says who has an address.
    Advertisement {
        /// Which address.
        about: Ipv6Addr,
        /// Who has it, if it says so.
        mac: Option<Mac>,
        /// An answer to us, which shows that the neighbour hears us.
        solicited: bool,
        /// It may replace what we know.
        may_change: bool,
    },
}

/// Reads an IPv6 packet. A message that fails one check of RFC 4861 §7.1.1 or §7.1.2 is ignored as a whole.
pub(super) fn read(packet: &[u8]) -> Read {
    let Ok(ip) = Ipv6Packet::new_checked(packet) else { return Read::Foreign };
    if ip.next_header() != IpProtocol::Icmpv6 {
        return Read::Foreign;
    }
    let (source, target) = (ip.src_addr(), ip.dst_addr());
    let Ok(icmp) = Icmpv6Packet::new_checked(ip.payload()) else { return Read::Foreign };
    if !icmp.msg_type().is_ndisc() {
        return Read::Foreign;
    }
    // A hop limit of 255 proves that the packet comes from this link.
    if ip.hop_limit() != 255 || icmp.msg_code() != 0 {
        return Read::Ignored;
    }
    match Icmpv6Repr::parse(&source, &target, &icmp, &ChecksumCapabilities::default()) {
        Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, lladdr })) => {
            let anonymous = source.is_unspecified();
            if anonymous && (lladdr.is_some() || target != solicited_node(target_addr)) || source.is_multicast() {
                return Read::Ignored;
            }
            match option(lladdr) {
                Some(from) => Read::Solicitation { source, asked: target_addr, from },
                None => Read::Ignored,
            }
        }
        Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr })) => {
            let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
            if target_addr.is_multicast() || solicited && target.is_multicast() {
                return Read::Ignored;
            }
            let may_change = flags.contains(NdiscNeighborFlags::OVERRIDE);
            match option(lladdr) {
                Some(mac) => Read::Advertisement { about: target_addr, mac, solicited, may_change },
                None => Read::Ignored,
            }
        }
        _ => Read::Ignored,
    }
}

/// The group that whoever has an address listens to (RFC 4291 §2.7.1).
pub(crate) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// RFC 4861 §7.2.2 while the address is unknown, §7.3.3 (unicast) to see whether it still answers.
pub(super) fn solicit(link: &OwnLink, asked: Ipv6Addr, known: Option<Mac>) -> Option<Vec<u8>> {
    let same_scope = link.own.iter().find(|own| is_link_local(own) == is_link_local(&asked));
    let source = *same_scope.or(link.own.first())?;
    let (to, mac) = match known {
        Some(mac) => (asked, mac),
        None => (solicited_node(asked), Mac::for_multicast(solicited_node(asked))),
    };
    let lladdr = Some(RawHardwareAddress::from(EthernetAddress(link.mac.0)));
    frame(link.mac, mac, source, to, NdiscRepr::NeighborSolicit { target_addr: asked, lladdr })
}

/// RFC 4861 §7.2.4: the answer to `source` about an address of ours, in a frame that is addressed to all when all are
/// told, and otherwise to nobody yet.
pub(super) fn advertise(link: &OwnLink, source: Ipv6Addr, asked: Ipv6Addr) -> Option<Vec<u8>> {
    let mut flags = NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::OVERRIDE;
    // A probe for duplicates has no source: everyone is told.
    let (to, mac) = if source.is_unspecified() {
        (ALL_NODES, Mac::for_multicast(ALL_NODES))
    } else {
        flags |= NdiscNeighborFlags::SOLICITED;
        (source, Mac([0; 6]))
    };
    let lladdr = Some(RawHardwareAddress::from(EthernetAddress(link.mac.0)));
    frame(link.mac, mac, asked, to, NdiscRepr::NeighborAdvert { flags, target_addr: asked, lladdr })
}

pub(super) fn frame(from: Mac, to: Mac, source: Ipv6Addr, target: Ipv6Addr, message: NdiscRepr<'_>) -> Option<Vec<u8>> {
    let icmp = Icmpv6Repr::Ndisc(message);
    let ip = Ipv6Repr {
        src_addr: source,
        dst_addr: target,
        next_header: IpProtocol::Icmpv6,
        payload_len: icmp.buffer_len(),
        hop_limit: 255,
    };
    let mut frame = vec![0; ethernet::HEADER_LEN + ip.buffer_len() + icmp.buffer_len()];
    ethernet::ViewMut::new(&mut frame).ok()?.set(to, from, EtherType::IPV6);
    let mut packet = Ipv6Packet::new_unchecked(frame.get_mut(ethernet::HEADER_LEN..)?);
    ip.emit(&mut packet);
    let mut payload = Icmpv6Packet::new_unchecked(packet.payload_mut());
    icmp.emit(&source, &target, &mut payload, &ChecksumCapabilities::default());
    Some(frame)
}

/// The address in a link-layer address option, if there is an option. None if it holds no address of one station.
fn option(address: Option<RawHardwareAddress>) -> Option<Option<Mac>> {
    let Some(address) = address else { return Some(None) };
    let mac = <[u8; 6]>::try_from(address.as_bytes()).ok().map(Mac);
    mac.filter(|mac| !mac.is_multicast()).map(Some)
}

fn is_link_local(address: &Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}
