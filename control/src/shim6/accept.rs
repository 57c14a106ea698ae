//! What I2 and I2bis have in common (RFC 5533 §7.13, §7.20): a peer proved that it answers where it says it is, and now
//! tells its tag and locators.
//!
//! The order of the checks is that of D30, cheapest first: validator (before coming here), CGA parameters, state and
//! source, whether there is room, list, signature.

use dataplane::wire::Locator;
use dataplane::wire::shim6::Options;
use rand::Rng;

use super::admission::Displaced;
use super::context::{Accepted, Context, ContextId, State, incoming_pair};
use super::dispatch::{Incoming, Key};
use super::endpoint::Endpoint;
use super::establish::Offer;
use super::offers::Offers;
use super::output::{DropReason, How, Output, Verdict};
use super::peer::{self, Told};
use super::validator::{Claim, Invalid};
use crate::time::Instant;

impl Endpoint {
    /// RESP nonce recent, and the validator ours for exactly this.
    pub(super) fn check_validator(
        &mut self,
        now: Instant,
        nonce: u32,
        claim: &Claim,
        options: &Options,
    ) -> Result<(), DropReason> {
        let validator = options.validator.as_deref().ok_or(DropReason::NoValidator)?;
        self.validators.check(now, nonce, claim, validator).map_err(|invalid| match invalid {
            Invalid::Stale => DropReason::StaleNonce,
            Invalid::Forged => DropReason::BadValidator,
        })
    }

    /// Creates or updates the context and answers R2.
    #[expect(clippy::too_many_arguments, reason = "an I2 is its packet, its key, its fixed part and its options")]
    pub(super) fn accept(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        packet: &Incoming<'_>,
        key: Key,
        offer: Offer,
        options: &Options,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let checked = match peer::check_parameters(&mut *self.proof, key.ulids.peer, options) {
            Ok(checked) => checked,
            Err(reason) => return Verdict::Dropped(reason),
        };
        let context = self.store.by_ulids(key.ulids, key.fork);
        let source = Locator(packet.addresses.source);
        if !is_source(context, key, source, options) {
            return Verdict::Dropped(DropReason::ForeignSource);
        }
        if self.is_common(context.and_then(|context| context.peer_tag), offer.tag) {
            return Verdict::Dropped(DropReason::CommonTag);
        }
        let displaced = match context {
            Some(_) => Displaced::default(),
            None => match self.admit(now, key, source.0) {
                Ok(displaced) => displaced,
                Err(reason) => return Verdict::Dropped(reason),
            },
        };
        let mut told = match peer::prove(&mut *self.proof, key.ulids.peer, context, options, checked) {
            Ok(told) => told,
            Err(refusal) => return self.refuse(now, packet, refusal, out),
        };
        let known = context.and_then(|context| context.peer_label);
        told.leave_label(|label| self.is_common_label(known, label));
        let how = if offer.packet_tag.is_some() { How::Recovered } else { How::Accepted };
        let (id, how) = match context.map(|context| context.id) {
            Some(id) => (id, self.accept_into(now, rng, id, packet, offer, told, how)),
            None => match self.accept_new(now, rng, packet, key, offer, told, displaced, out) {
                Ok(id) => (id, Some(how)),
                Err(reason) => return Verdict::Dropped(reason),
            },
        };
        let offered = self.store.get(id).map(Offers::of_peer).unwrap_or_default();
        self.settle_offers(rng, id, offered);
        self.resolve_confusion(now, rng, id, out);
        if let Some(how) = how {
            out.push(Output::Ready { id, how });
        }
        let established = self.store.get(id).is_some_and(|context| context.state == State::Established);
        if established {
            out.push(Output::ControlIn { id });
        }
        self.send_r2(id, packet.addresses, offer.nonce, out);
        if established {
            out.push(Output::ControlOut { id });
            self.send_pending_update(now, rng, id, out);
        }
        Verdict::Accepted
    }

    /// From IDLE, E-FAILED and NO-SUPPORT to ESTABLISHED, with a tag that is not the one that was lost (§7.20). Nothing is
    /// displaced before the context has all it needs.
    #[expect(clippy::too_many_arguments, reason = "the same as above, with what was proved and what goes for it")]
    fn accept_new(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        packet: &Incoming<'_>,
        key: Key,
        offer: Offer,
        told: Told<'_>,
        displaced: Displaced,
        out: &mut Vec<Output>,
    ) -> Result<ContextId, DropReason> {
        let host = self.local(key.ulids.local).ok_or(DropReason::UnknownHost)?;
        let tag = self.allocate_tag(rng, key.ulids, offer.packet_tag, displaced).ok_or(DropReason::Full)?;
        self.displace(displaced, out);
        let mut context = self.blank(now, key.ulids, key.fork, tag, host);
        context.accepted = Some(Accepted::from(packet.addresses.source, now));
        peer::learn_exchange(&mut context, offer.tag, told);
        context.settle_pair(incoming_pair(packet.addresses));
        context.become_established(now, self.config.idle);
        let id = context.id;
        self.tags.hold(tag);
        self.store.insert(context);
        // The peer speaks Shim6 and answers (D32).
        self.holddowns.release(key.ulids);
        self.starts.forget(key.ulids);
        Ok(id)
    }

    /// Updates a context in place; tells what the engine must know, if anything.
    #[expect(clippy::too_many_arguments, reason = "the same as above, with what was proved")]
    fn accept_into(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        packet: &Incoming<'_>,
        offer: Offer,
        told: Told<'_>,
        how: How,
    ) -> Option<How> {
        let context = self.store.get_mut(id)?;
        let old_pair = context.pair;
        context.renew_update(rng, offer.nonce);
        let told_news = peer::learn_exchange(context, offer.tag, told);
        // In I2-SENT the current pair is the one on which our own I2 waits for its R2.
        if context.state != State::I2Sent {
            context.settle_pair(incoming_pair(packet.addresses));
        }
        let changed = told_news || context.pair != old_pair;
        let how = match context.state {
            State::I1Sent => {
                context.become_established(now, self.config.idle);
                Some(how)
            }
            State::Established | State::I2bisSent => changed.then_some(How::Updated),
            // Not to be used before the R2 to our own I2.
            State::I2Sent | State::Idle | State::EFailed | State::NoSupport => None,
        };
        self.store.settle(id);
        how
    }
}

/// Whether the packet comes from a locator that is the peer's, or will be if its list proves true. Without a context
/// the peer's only locator is its ULID: the RFC asks for nothing there, but an R2 to, and a current pair with, an
/// address the peer does not claim would help nobody but an attacker.
fn is_source(context: Option<&Context>, key: Key, source: Locator, options: &Options) -> bool {
    let listed = options.locators.iter().flat_map(|list| &list.entries).any(|(locator, _)| *locator == source);
    let known = match context {
        Some(context) => context.peer_locator(source.0).is_some(),
        None => source.0 == key.ulids.peer.0,
    };
    listed || known
}
