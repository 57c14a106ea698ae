//! Packets whose flow label names their context, so that no payload header is needed (docs/decisions: the context in the
//! flow label).

use super::{DropReason, Frame, Key, Scene, Verdict, natv6, plain_to_locator};
use crate::context::{LabelMode, Slot};
use crate::wire::{FlowLabel, ethernet, ipv6};

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
    if scene.shard.label_mode() == LabelMode::Off {
        return Labelled::No;
    }
    let Some(label) = FlowLabel::truncate(packet.flow_label()) else { return Labelled::No };
    let owner = scene.sharding.owner_of_label(label);
    // A packet that another worker had before is plain if it is not ours: it must not go round in circles.
    if owner != scene.worker && !scene.handed {
        return Labelled::Elsewhere(owner);
    }
    scene.shard.by_label(label).map_or(Labelled::No, Labelled::By)
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
    match plain_to_locator(&packet, port, snapshot) {
        (Key::Outside(pair, behind), Verdict::Lookup) => {
            let hash = scene.shard.hasher().pair(&pair);
            match scene.sharding.owner_of_hash(hash) {
                owner if owner == scene.worker => natv6::arriving(frame, pair, behind, hash, scene),
                owner => Verdict::HandOver(owner),
            }
        }
        (_, verdict) => verdict,
    }
}
