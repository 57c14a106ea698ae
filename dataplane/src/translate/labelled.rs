//! Packets whose flow label names their context, so that no payload header is needed (docs/decisions: the context in the
//! flow label).

use super::{DropReason, Frame, Key, Origin, Punt, Scene, Verdict, natv6, plain};
use crate::context::{LabelMode, Slot};
use crate::snapshot::{PortView, Snapshot};
use crate::wire::shim6::udp;
use crate::wire::{FlowLabel, ethernet, ipv6};

/// Type, code, checksum and the word after them.
const ICMP_HEADER: usize = 8;

/// What the flow label of a packet without payload header says.
pub(super) enum Labelled {
    /// Nothing: it is a plain packet.
    No,
    /// It stands for this context, if the packet comes between its locators.
    By(Slot),
    /// It is for this worker to say.
    Elsewhere(u8),
}

/// Looks up the flow label of a packet from a provider.
#[inline]
pub(super) fn read(packet: &ipv6::View<'_>, scene: &Scene<'_>) -> Labelled {
    if scene.shard.label_mode() == LabelMode::Off || scene.origin == Origin::Control {
        return Labelled::No;
    }
    let Some(label) = FlowLabel::truncate(packet.flow_label()) else { return Labelled::No };
    let owner = scene.sharding.owner_of_label(label);
    // A packet that another worker had before is plain if it is not ours: it must not go round in circles.
    if owner != scene.worker && scene.origin == Origin::Device {
        return Labelled::Elsewhere(owner);
    }
    scene.shard.by_label(label).map_or(Labelled::No, Labelled::By)
}

/// A packet from a provider that is no context's by its label.
///
/// An error about a packet that we sent by label, or in UDP, looks like one about a translated packet. Control knows the labels
/// and tags of all peers; what it does not know it gives back.
#[inline]
pub(super) fn plain_packet(packet: &ipv6::View<'_>, port: &PortView, scene: &Scene<'_>) -> (Key, Verdict) {
    let snapshot = scene.snapshot;
    let labels = scene.shard.label_mode() != LabelMode::Off;
    let either = snapshot.nat.is_some() && (labels || snapshot.udp_port.is_some());
    if either && scene.origin != Origin::Control && !port.own.contains(&packet.target()) {
        let ours = |quote: &ipv6::View<'_>| (labels && has_label(quote)) || is_in_udp(quote, snapshot);
        if quotes(packet, ours) {
            return (Key::None, Verdict::Punt(Punt::IcmpError));
        }
    }
    match plain::to_locator(packet, port, snapshot) {
        // Control has seen it and knows nothing of it.
        (key, Verdict::Punt(Punt::IcmpError)) if scene.origin == Origin::Control => {
            (key, Verdict::Drop(DropReason::NoTranslation))
        }
        found => found,
    }
}

/// Whether a packet is an ICMPv6 error about such a packet.
#[cold]
fn quotes(packet: &ipv6::View<'_>, such: impl Fn(&ipv6::View<'_>) -> bool) -> bool {
    let Ok(upper) = packet.upper_layer() else { return false };
    let quote = packet.from_offset(upper.place.offset).get(ICMP_HEADER..).unwrap_or_default();
    plain::is_error(packet, &upper) && ipv6::View::of_quote(quote).is_ok_and(|quote| such(&quote))
}

/// A packet that may have gone with a flow label for a Shim6 header.
fn has_label(packet: &ipv6::View<'_>) -> bool {
    packet.flow_label() != 0 && packet.shim_header() == Ok(None)
}

/// A packet that may have gone in UDP.
fn is_in_udp(packet: &ipv6::View<'_>, snapshot: &Snapshot) -> bool {
    snapshot.udp_port.is_some_and(|port| udp::ports_of(packet, port).is_some())
}

/// Whether a packet from the site may leave without a payload header, as far as the packet is concerned.
///
/// The receiver looks for a Shim6 header before it looks at the label. So a packet that has one of its own, because its
/// host speaks Shim6 or wants to be clever, goes behind ours; and so does what cannot be read.
#[inline]
pub(super) fn may_go<F: Frame>(frame: &F, mode: LabelMode) -> bool {
    let Ok(packet) = ipv6::View::new(frame.bytes().get(ethernet::HEADER_LEN..).unwrap_or_default()) else {
        return false;
    };
    let nothing_lost = match mode {
        LabelMode::Off => return false,
        LabelMode::Unlabelled => packet.flow_label() == 0,
        LabelMode::All => true,
    };
    nothing_lost && matches!(packet.shim_header(), Ok(None))
}

/// A packet from a provider whose flow label is a context's, and whose addresses are not.
#[cold]
pub(super) fn plain_after_all<F: Frame>(frame: &mut F, scene: &mut Scene<'_>) -> Verdict {
    let packet = ipv6::View::new(frame.bytes().get(ethernet::HEADER_LEN..).unwrap_or_default());
    let Ok(packet) = packet else { return Verdict::Drop(DropReason::MalformedIpv6) };
    let snapshot = scene.snapshot;
    let Some(port) = snapshot.ports.get(usize::from(scene.port.0)) else { return Verdict::Drop(DropReason::NoRoute) };
    match plain_packet(&packet, port, scene) {
        (Key::Outside(pair, behind), Verdict::Lookup) => {
            let hash = scene.shard.hasher().pair(&pair);
            match scene.sharding.owner_of_hash(hash) {
                owner if owner == scene.worker => natv6::arriving(frame, &pair, &behind, hash, scene),
                owner => Verdict::HandOver(owner),
            }
        }
        (_, verdict) => verdict,
    }
}
