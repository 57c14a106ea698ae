//! Packets of classes that go by a context of their own (RFC 5533 §4.2, §12.4).
//!
//! Asked only where the default context of a pair says that it shares its traffic. The first class that takes the packet
//! decides. A context that is gone, or not live yet, is as good as none: the packet goes by the default context, which is.

use super::Scene;
use crate::context::{Phase, Slot, fork::Wish};
use crate::counters::Count;
use crate::port::Frame;
use crate::snapshot::Traits;
use crate::wire::{UlidPair, ethernet, ipv6};

/// The context for a packet of a pair, whose hash is `hash`, instead of the live default one in `slot`.
#[inline(never)]
pub(super) fn choose<F: Frame>(frame: &F, pair: &UlidPair, hash: u64, slot: Slot, scene: &mut Scene<'_>) -> Slot {
    let packet = ipv6::View::new(frame.bytes().get(ethernet::HEADER_LEN..).unwrap_or_default());
    let Ok(traits) = packet.map(|packet| Traits::of(&packet)) else { return slot };
    let Some(forks) = scene.shard.forks_of(hash, pair) else {
        scene.counters.add(Count::ForksFull, 1);
        return slot;
    };
    let mut classes = (1u8..).zip(&scene.snapshot.classes).filter(|(number, _)| forks.shared().contain(*number));
    let Some((class, _)) = classes.find(|(_, class)| class.takes(&traits)) else { return slot };
    match forks.slot(class) {
        Some(fork) if scene.shard.entry(fork).phase == Phase::Live => {
            scene.counters.add(Count::ForkedOut, 1);
            fork
        }
        // It is on its way.
        Some(_) => slot,
        None => {
            let wish = Wish { handle: scene.shard.entry(slot).handle, class };
            if scene.shard.wish_fork(hash, pair, wish, scene.now) {
                scene.counters.add(Count::ForksWished, 1);
            }
            slot
        }
    }
}
