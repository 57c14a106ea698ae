//! Packets without a context: for the box itself, from one host of the site to another, to be held until there is a
//! context, or for a peer without Shim6.

use std::net::Ipv6Addr;

use super::{IcmpError, Key, Scene, Verdict, address, ipv6_of, natv6};
use crate::counters::{Count, DropReason};
use crate::link::Punt;
use crate::port::Frame;
use crate::snapshot::{HostView, PortView, Snapshot};
use crate::wire::UlidPair;
use crate::wire::ipv6::chain::UpperLayer;
use crate::wire::ipv6::{self, protocol};
use crate::wire::shim6::PROTOCOL;

/// A packet for a group, or from a provider whose destination is no locator.
#[cold]
pub(super) fn to_box(packet: &ipv6::View<'_>, port: &PortView) -> Verdict {
    let target = packet.target();
    if port.is_system(target, packet.next_header()) {
        return Verdict::Punt(Punt::System);
    }
    if target.is_multicast() || port.own.contains(&target) {
        return Verdict::Punt(Punt::HostStack);
    }
    Verdict::Drop(DropReason::NotOurLocator)
}

/// A packet from a provider to a locator, without a Shim6 header.
#[inline(never)]
pub(super) fn to_locator(packet: &ipv6::View<'_>, port: &PortView, snapshot: &Snapshot) -> (Key, Verdict) {
    if port.own.contains(&packet.target()) {
        return (Key::None, Verdict::Punt(Punt::HostStack));
    }
    if let Some(nat) = &snapshot.nat {
        return natv6::arriving_key(packet, snapshot, nat);
    }
    let verdict = match packet.upper_layer() {
        Err(_) => Verdict::Drop(DropReason::MalformedChain),
        Ok(upper) if upper.place.next_header == PROTOCOL => Verdict::Drop(DropReason::BadPayloadHeader),
        Ok(upper) if is_error(packet, &upper) => Verdict::Punt(Punt::IcmpError),
        Ok(_) => Verdict::Drop(DropReason::NoTranslation),
    };
    (Key::None, verdict)
}

/// Whether a packet is an ICMPv6 error: types below 128 are (RFC 4443 §2.1).
pub(super) fn is_error(packet: &ipv6::View<'_>, upper: &UpperLayer) -> bool {
    let kind = packet.from_offset(upper.place.offset).first();
    upper.place.next_header == protocol::ICMPV6 && upper.first_fragment && kind.is_some_and(|kind| *kind < 128)
}

/// A packet from the site whose pair has no live context. `hash` is the pair's.
#[inline(never)]
pub(super) fn without_context<F: Frame>(frame: &mut F, pair: UlidPair, hash: u64, scene: &mut Scene<'_>) -> Verdict {
    let (source, target) = (pair.local.0, pair.peer.0);
    let Some(port) = scene.snapshot.ports.get(usize::from(scene.port.0)) else {
        return Verdict::Drop(DropReason::NoRoute);
    };
    if port.own.contains(&target) {
        return Verdict::Punt(Punt::HostStack);
    }
    if port.system.as_ref().is_some_and(|addresses| addresses.contains(&target)) {
        return Verdict::Punt(Punt::System);
    }
    if !may_cross(source) || !may_cross(target) {
        return Verdict::Drop(DropReason::BadAddress);
    }
    let snapshot = scene.snapshot;
    if let Some(nat) = snapshot.nat.as_deref().filter(|nat| !snapshot.site.contains(target) && nat.translates(target)) {
        return natv6::departing(frame, pair, hash, scene, nat);
    }
    if !scene.snapshot.host_index.contains_key(&pair.local) {
        return Verdict::Reply(IcmpError::SourcePolicy);
    }
    if !scene.snapshot.site.contains(target) {
        return Verdict::Hold(pair);
    }
    match scene.snapshot.host_index.get(&pair.peer).and_then(|&at| scene.snapshot.hosts.get(at as usize)) {
        Some(host) => inside(frame, host, scene),
        None => Verdict::Reply(IcmpError::AddressUnreachable),
    }
}

/// From one host of the site to another, when they are not neighbours on one link.
fn inside<F: Frame>(frame: &mut F, host: &HostView, scene: &Scene<'_>) -> Verdict {
    let Some(port) = scene.snapshot.ports.get(usize::from(host.port.0)) else {
        return Verdict::Drop(DropReason::NoRoute);
    };
    let Ok(mut packet) = ipv6_of(frame) else { return Verdict::Drop(DropReason::MalformedIpv6) };
    if packet.view().total_len() > usize::from(port.mtu) {
        return Verdict::Reply(IcmpError::PacketTooBig(u32::from(port.mtu)));
    }
    if packet.view().hop_limit() <= 1 {
        return Verdict::Reply(IcmpError::TimeExceeded);
    }
    let alive = packet.decrement_hop_limit();
    debug_assert!(alive, "looked at before the packet was touched");
    scene.counters.add(Count::ForwardedInside, 1);
    address(frame, port.mac, host.mac, host.port, host.ulid.0)
}

/// Addresses a packet may be forwarded from or to.
pub(super) fn may_cross(address: Ipv6Addr) -> bool {
    let link_local = address.segments()[0] & 0xffc0 == 0xfe80;
    !(address.is_multicast() || address.is_unspecified() || address.is_loopback() || link_local)
}
