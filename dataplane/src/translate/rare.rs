//! What a packet's path seldom needs: everything without a context, TCP that is looked at, packets that do not fit.

use std::net::Ipv6Addr;

use super::{IcmpError, Key, Scene, Verdict, address, ipv6_of, natv6, path_mtu};
use crate::context::Entry;
use crate::context::replay::{Owner, Replay};
use crate::counters::{Count, DropReason};
use crate::link::Punt;
use crate::port::Frame;
use crate::snapshot::{HostView, PortId, PortView, Snapshot};
use crate::wire::ethernet;
use crate::wire::ipv6::chain::UpperLayer;
use crate::wire::ipv6::{self, protocol};
use crate::wire::segment::Segment;
use crate::wire::shim6::{PROTOCOL, PayloadHeader};
use crate::wire::{UlidPair, tcp};

/// Keeps a copy of a TCP segment, and notes what it shows (see [`Replay`]). Datagrams are not kept: TCP expects to see a
/// segment twice, others may not.
#[cold]
pub(super) fn watch_sent<F: Frame>(frame: &F, entry: &Entry, port: PortId, now: u64, replay: &mut Replay) {
    // Part of a segment is of no use, and a reset ends a connection; repeated later it might meet another.
    let packet = ipv6::View::new(frame.bytes().get(ethernet::HEADER_LEN..).unwrap_or_default());
    let shim = packet.ok().and_then(|packet| packet.shim_insertion().ok());
    let whole = shim.is_some_and(|shim| shim.place.next_header != protocol::FRAGMENT);
    if let Some(segment) = segment_in(frame).filter(|segment| whole && !segment.reset) {
        let owner = Owner { tag: entry.local_tag, handle: entry.handle, pair: entry.locators };
        replay.sent(owner, port, frame.bytes(), &segment, now);
    }
}

/// Whatever comes back ends the doubt. What is not handed on tells nothing else.
#[cold]
pub(super) fn watch_received<F: Frame>(frame: &F, entry: &Entry, verdict: Verdict, now: u64, replay: &mut Replay) {
    let restored = matches!(verdict, Verdict::Forward(_) | Verdict::Unresolved(..));
    let segment = if restored { segment_in(frame) } else { None };
    replay.received(entry.local_tag, entry.handle, segment, now);
}

/// The TCP segment of a packet, if it is one and its header is here.
fn segment_in<F: Frame>(frame: &F) -> Option<Segment> {
    let packet = ipv6::View::new(frame.bytes().get(ethernet::HEADER_LEN..)?).ok()?;
    let upper = packet.upper_layer().ok()?;
    let is_tcp = upper.place.next_header == protocol::TCP && upper.first_fragment;
    is_tcp.then(|| Segment::read(packet.from_offset(upper.place.offset)))?
}

/// A packet of `octets` that is larger than what the path has room for. No host need send less than 1280 octets (RFC 8200
/// §5), so such packets are cut instead of refused.
#[cold]
pub(super) fn too_big(octets: usize, room: usize) -> Verdict {
    if octets <= ipv6::MIN_MTU {
        return Verdict::Fragment(room as u16);
    }
    Verdict::Reply(IcmpError::PacketTooBig(room.max(ipv6::MIN_MTU) as u32))
}

/// What TCP offers to take has to fit a path of `mtu` octets with the payload header.
pub(super) fn clamp_mss<F: Frame>(frame: &mut F, mtu: usize) {
    let most = mtu.saturating_sub(PayloadHeader::LEN + tcp::HEADERS) as u16;
    tcp::clamp_mss(frame.bytes_mut().get_mut(ethernet::HEADER_LEN..).unwrap_or_default(), most);
}

/// The same for what the peer offers: the host will send as much, over the context's own path.
pub(super) fn clamp_inbound<F: Frame>(frame: &mut F, entry: &Entry, snapshot: &Snapshot) {
    let provider = snapshot.providers.get(usize::from(entry.provider));
    if let Some(port) = provider.and_then(|provider| snapshot.ports.get(usize::from(provider.port.0))) {
        clamp_mss(frame, path_mtu(entry, port));
    }
}

/// Addresses a packet may be forwarded from or to.
pub(super) fn may_cross(address: Ipv6Addr) -> bool {
    let link_local = address.segments()[0] & 0xffc0 == 0xfe80;
    !(address.is_multicast() || address.is_unspecified() || address.is_loopback() || link_local)
}

/// A packet from a provider whose destination is no locator.
#[cold]
pub(super) fn to_box(target: Ipv6Addr, port: &PortView) -> Verdict {
    if target.is_multicast() || port.own.contains(&target) {
        return Verdict::Punt(Punt::HostStack);
    }
    Verdict::Drop(DropReason::NotOurLocator)
}

/// A packet from a provider to a locator, without a Shim6 header.
pub(super) fn plain_to_locator(packet: &ipv6::View<'_>, port: &PortView, snapshot: &Snapshot) -> (Key, Verdict) {
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
