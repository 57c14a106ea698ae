//! Context confusion (RFC 5533 §7.6, §7.15): the peer gave a tag of ours for it to another context.
//!
//! Two contexts that would send the same tag to the same locators cannot both be right. The newer one is, since the
//! peer just spoke; the other was lost at the peer and must not send another packet.

use dataplane::wire::{ContextTag, FlowLabel};

use super::config::ConfusionPolicy;
use super::context::{Context, ContextId};
use super::endpoint::Endpoint;
use super::output::{GoneReason, Output};
use crate::time::Instant;
use rand::Rng;

/// Contexts whose peers gave them one and the same tag. All of them are looked at when one more is told it (§7.15), and when
/// R1bis, Errors and ICMPv6 errors name it; who makes tags up at random, as all should (§4.1), never meets another one's.
const COMMON_TAG_MAX: usize = 256;

impl Endpoint {
    /// Whether too many contexts have a tag of their peers for one more to get it, which has `known` now. An R2 can say it as
    /// well as an I2 or I2bis.
    pub(super) fn is_common(&self, known: Option<ContextTag>, tag: ContextTag) -> bool {
        known != Some(tag) && self.store.count_of_peer_tag(tag) >= COMMON_TAG_MAX
    }

    /// The same for flow labels that peers offer, of which there are less: contexts are sought by them when an ICMPv6 error
    /// quotes one. Nothing is lost without, so the offer is not taken up.
    pub(super) fn is_common_label(&self, known: Option<FlowLabel>, label: FlowLabel) -> bool {
        known != Some(label) && self.store.count_of_peer_label(label) >= COMMON_TAG_MAX
    }

    /// Ends what the context `id`, just told its peer's tag and locators, shows to be lost (§7.15). To be called before
    /// anything is sent for `id`.
    pub(super) fn resolve_confusion(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, out: &mut Vec<Output>) {
        let Some((context, tag)) = self.store.get(id).and_then(|context| Some((context, context.peer_tag?))) else {
            return;
        };
        for lost in self.confused_with(context, tag) {
            match self.config.confusion {
                ConfusionPolicy::Discard => self.discard(lost, GoneReason::Confused, out),
                ConfusionPolicy::Reestablish => self.return_to_i1(now, rng, lost, out),
            }
        }
    }

    fn confused_with(&self, context: &Context, tag: ContextTag) -> Vec<ContextId> {
        let others = self.store.by_peer_tag(tag).filter(|other| other.id != context.id);
        others.filter(|other| other.state.carries_payload() && overlap(context, other)).map(|other| other.id).collect()
    }

    /// Panics if two contexts would send the same tag to the same locator, or an index is wrong. For tests: it walks
    /// all contexts.
    pub fn selfcheck(&self) {
        self.store.selfcheck();
        for context in self.store.iter().filter(|context| context.state.carries_payload()) {
            let confused = context.peer_tag.map(|tag| self.confused_with(context, tag));
            assert_eq!(confused, Some(Vec::new()), "{:?} is confused", context.ulids);
        }
    }
}

fn overlap(one: &Context, other: &Context) -> bool {
    one.peer_locators.iter().any(|known| other.peer_locator(known.locator.0).is_some())
}
