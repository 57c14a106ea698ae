//! Recovery of a context that one side lost: R1bis and I2bis (RFC 5533 §7.5, §7.17 to §7.21).

use dataplane::wire::shim6::{Addresses, Message, Options};
use dataplane::wire::{ContextTag, LocatorPair};
use rand::Rng;

use super::context::{ContextId, Exchange, State, incoming_pair, outgoing};
use super::dispatch::Incoming;
use super::endpoint::Endpoint;
use super::establish::{Offer, naming, nonzero};
use super::limits::Kind;
use super::lost::{Asker, Rank};
use super::offers::Offers;
use super::output::{Answer, DropReason, Output, Verdict};
use super::size;
use super::timers::backoff;
use super::validator::Claim;
use crate::time::Instant;

impl Endpoint {
    /// §7.17: "I do not know this context", made from the packet and the secret alone. Live sessions hear it first.
    pub(super) fn send_r1bis(
        &mut self,
        now: Instant,
        packet_tag: ContextTag,
        addresses: Addresses,
        asker: Asker,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let Some(rank) = self.lost.asks(now, packet_tag, addresses, asker) else {
            return Verdict::Dropped(DropReason::ToldAlready);
        };
        // Each answer is an I2bis with a signature perhaps: those of this site that came already come first.
        if self.waiting.is_crowded_by(addresses.source) {
            return Verdict::Dropped(DropReason::TooManyWaiting);
        }
        let kept = match rank {
            Rank::Live => 0,
            Rank::Payload => 1,
            Rank::Message => 2,
        };
        if !self.limiter.allow_leaving(kept, now, Kind::R1bis, addresses.source) {
            return Verdict::Dropped(DropReason::RateLimited);
        }
        // Messages are few, may be forged, and say nothing of payload.
        if asker == Asker::Payload {
            self.lost.told(now, packet_tag, addresses);
        }
        let (responder_nonce, validator) = self.validators.issue(now, &Claim::Recover { packet_tag, addresses });
        let options = Options { validator: Some(validator), ..Options::default() };
        let message = Message::R1bis { packet_tag, responder_nonce, options };
        out.push(Output::Send { context: None, addresses: addresses.swapped(), message });
        Verdict::Answered(Answer::R1bis)
    }

    /// §7.18: receives an R1bis. The peer's tag and locators stay in use until the R2.
    pub(super) fn receive_r1bis(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        packet: &Incoming<'_>,
        (packet_tag, responder_nonce): (ContextTag, u32),
        options: &Options,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let Some(validator) = &options.validator else {
            return Verdict::Dropped(DropReason::NoValidator);
        };
        let pair = incoming_pair(packet.addresses);
        let Some((id, state)) = self.find_by_peer(packet_tag, pair).map(|context| (context.id, context.state)) else {
            return Verdict::Dropped(DropReason::NoContext);
        };
        match state {
            State::Established => {}
            // A second one, or one about an exchange that is being made again anyway.
            State::I1Sent | State::I2Sent | State::I2bisSent => return Verdict::Dropped(DropReason::WrongState),
            State::Idle | State::EFailed | State::NoSupport => return Verdict::Dropped(DropReason::NoContext),
        }
        self.settle_offers(rng, id, Offers::ALL);
        let mut exchange = Exchange::new(now, rng.next_u32(), Vec::new());
        exchange.responder_nonce = responder_nonce;
        exchange.validator.clone_from(validator);
        exchange.packet_tag = packet_tag;
        exchange.at = now + backoff(rng, self.config.i2bis_timeout, 0);
        exchange.use_pair(pair);
        let Some(message) = self.i2bis(id, &exchange) else {
            return Verdict::Dropped(DropReason::Oversized);
        };
        let Some(context) = self.store.get_mut(id) else { return Verdict::Dropped(DropReason::NoContext) };
        context.state = State::I2bisSent;
        context.exchange = Some(Box::new(exchange));
        // Update Requests carry the tag that the peer does not know; they go on after the R2.
        if let Some(update) = context.update.as_deref_mut() {
            update.at = None;
        }
        self.store.settle(id);
        out.push(Output::Send { context: Some(id), addresses: outgoing(pair), message });
        Verdict::Accepted
    }

    /// §7.18, §7.19: the I2bis of an exchange, the same every time; none if it does not fit in a packet.
    pub(super) fn i2bis(&self, id: ContextId, exchange: &Exchange) -> Option<Message> {
        let context = self.store.get(id)?;
        let pair: LocatorPair = exchange.pair;
        let options = Options {
            validator: Some(exchange.validator.clone()),
            ulids: naming(context.ulids, pair),
            fork: nonzero(context.fork),
            ..self.announcement(context)
        };
        size::fit(Message::I2bis {
            initiator_tag: context.local_tag,
            initiator_nonce: exchange.nonce,
            responder_nonce: exchange.responder_nonce,
            packet_tag: exchange.packet_tag,
            options,
        })
    }

    /// §7.20: receives an I2bis.
    pub(super) fn receive_i2bis(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        packet: &Incoming<'_>,
        (offer, packet_tag): (Offer, ContextTag),
        options: &Options,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let key = match self.key(packet, options) {
            Ok(key) => key,
            Err(reason) => return Verdict::Dropped(reason),
        };
        let claim = Claim::Recover { packet_tag, addresses: packet.addresses };
        if let Err(reason) = self.check_validator(now, offer.responder_nonce, &claim, options) {
            return Verdict::Dropped(reason);
        }
        self.accept(now, rng, packet, key, offer, options, out)
    }
}
