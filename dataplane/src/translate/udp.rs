//! Shim6 in UDP, where a path drops next header 140 (docs/decisions: paths that drop extension headers).
//!
//! Going out, a UDP header is put in front of the payload header as the last thing that happens to a packet. Coming in, it is
//! taken out as the first, and the packet goes the way of all packets: but only for a context of this worker's that agreed on
//! it. Messages go to control as they are, which has to know how they came.

use super::plain::may_cross;
use super::{BURST, Batch, DropReason, Frame, Origin, Punt, Scene, Verdict, read};
use crate::counters::Count;
use crate::snapshot::Snapshot;
use crate::wire::ipv6::{self, ShimPlace, protocol};
use crate::wire::shim6::payload::PayloadError;
use crate::wire::shim6::udp::{self, InUdp};
use crate::wire::shim6::{PayloadHeader, UdpPorts};
use crate::wire::{Locator, LocatorPair, ethernet};

/// Octets that going in UDP adds.
#[inline]
pub(super) fn octets(ports: Option<UdpPorts>) -> usize {
    if ports.is_some() { udp::LEN } else { 0 }
}

/// Puts a UDP header in front of the payload header that has just been put into a packet. One that is under way with a Routing
/// header goes without: its checksum would be about an address that is not the destination yet.
#[cold]
pub(super) fn close<F: Frame>(frame: &mut F, insertion: ShimPlace, ports: UdpPorts) -> Result<(), DropReason> {
    if insertion.under_way {
        return Ok(());
    }
    if !frame.prepend(udp::LEN) {
        return Err(DropReason::NoBuffer);
    }
    let packet = frame.bytes_mut().get_mut(ethernet::HEADER_LEN..).unwrap_or_default();
    udp::wrap(packet, insertion.place, ports).map_err(|_| DropReason::MalformedIpv6)
}

/// Takes packets of contexts out of UDP. Those that are none are left as they are; those that end here, or go to somebody else,
/// get their verdict.
pub(super) fn open<F: Frame>(batch: &mut Batch<F>, scene: &mut Scene<'_>) {
    let Some(port) = scene.snapshot.udp_port.filter(|_| scene.origin != Origin::Control) else { return };
    for (frame, verdict) in batch.frames.iter_mut().zip(&mut batch.verdicts).take(BURST) {
        if matches!(verdict, Verdict::Lookup) && may_be_udp(frame) {
            *verdict = open_one(frame, port, scene);
        }
    }
}

/// Whether a frame is worth a look: most are not UDP, or are behind a Shim6 header.
fn may_be_udp<F: Frame>(frame: &F) -> bool {
    let next_header = frame.bytes().get(ethernet::HEADER_LEN + 6);
    let outer = [protocol::UDP, protocol::HOP_BY_HOP, protocol::ROUTING, protocol::DESTINATION_OPTIONS];
    next_header.is_some_and(|next_header| outer.contains(next_header))
}

#[cold]
fn open_one<F: Frame>(frame: &mut F, port: u16, scene: &mut Scene<'_>) -> Verdict {
    // Whatever is wrong with the frame, or with its addresses, is found again and named where all packets are looked at.
    let Some(view) = scene.snapshot.ports.get(usize::from(scene.port.0)) else { return Verdict::Lookup };
    let Ok(packet) = read(frame, view.mac) else { return Verdict::Lookup };
    let (source, target) = (packet.source(), packet.target());
    if !may_come(&packet, scene.snapshot) {
        return Verdict::Lookup;
    }
    let InUdp { place, ports, shim } = match udp::find(&packet, port) {
        None => return Verdict::Lookup,
        Some(Err(_)) => return Verdict::Drop(DropReason::UdpMalformed),
        Some(Ok(found)) => found,
    };
    let tag = match PayloadHeader::parse(shim) {
        Ok(header) => header.tag,
        Err(PayloadError::Control) => return Verdict::Punt(Punt::Shim6),
        Err(_) => return Verdict::Drop(DropReason::BadPayloadHeader),
    };
    let locators = LocatorPair { local: Locator(target), peer: Locator(source) };
    match scene.sharding.owner_of_tag(tag) {
        Some(owner) if owner == scene.worker => {}
        Some(owner) => return Verdict::HandOver(owner),
        None => return Verdict::UnknownTag(tag, locators, Some(ports)),
    }
    let Some(slot) = scene.shard.by_tag(tag) else { return Verdict::UnknownTag(tag, locators, Some(ports)) };
    if !scene.shard.accepts_udp(slot) {
        return Verdict::Drop(DropReason::UdpUnwelcome);
    }
    let Some((ether, packet)) = frame.bytes_mut().split_first_chunk_mut::<{ ethernet::HEADER_LEN }>() else {
        return Verdict::Drop(DropReason::NotIpv6);
    };
    let ether = *ether;
    if udp::unwrap(packet, place).is_err() {
        return Verdict::Drop(DropReason::UdpMalformed);
    }
    frame.trim_front(udp::LEN);
    if let Some(place) = frame.bytes_mut().first_chunk_mut() {
        *place = ether;
    }
    scene.counters.add(Count::UdpIn, 1);
    Verdict::Lookup
}

/// Whether a packet from a provider may be for one of our locators, by its addresses.
fn may_come(packet: &ipv6::View<'_>, snapshot: &Snapshot) -> bool {
    let (source, target) = (packet.source(), packet.target());
    let ours = |address| snapshot.delegated(address);
    ours(target) && may_cross(source) && !ours(source) && !snapshot.site.contains(source)
}
