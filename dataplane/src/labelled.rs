//! Packets whose flow label names their context, so that no payload header is needed (docs/decisions: the context in the
//! flow label).

use crate::context::LabelMode;
use crate::port::Frame;
use crate::wire::{ethernet, ipv6};

/// Whether a packet from the site may leave without a payload header, as far as the packet is concerned.
///
/// The receiver looks for a Shim6 header before it looks at the label. So a packet that has one of its own, because its
/// host speaks Shim6 or wants to be clever, goes behind ours; and so does what cannot be read.
#[inline]
pub(crate) fn may_go<F: Frame>(frame: &F, mode: LabelMode) -> bool {
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
