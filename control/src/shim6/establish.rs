//! Establishment: I1, R1, I2, R2 (RFC 5533 §7.7 to §7.16), in the order of the RFC.

use std::sync::Arc;
use std::time::Duration;

use dataplane::wire::shim6::{Addresses, LivenessOption, LocatorPreferences, Message, Options, Preference, UdpOption};
use dataplane::wire::{ContextTag, Locator, LocatorPair, UlidPair};
use rand::Rng;

use super::context::{
    Context, ContextId, Exchange, LocalHost, PeerLocator, Stamp, State, incoming_pair, is_unicast, outgoing,
};
use super::dispatch::{Incoming, Key};
use super::endpoint::Endpoint;
use super::labels;
use super::limits::Kind;
use super::offers::Offers;
use super::output::{Answer, DropReason, FailReason, How, Output, Verdict};
use super::peer;
use super::size;
use super::timers::backoff;
use super::validator::Claim;
use crate::time::Instant;

/// A wish for a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Both identifiers.
    pub ulids: UlidPair,
    /// Forked instance identifier; 0 for the default context.
    pub fork: u32,
    /// Locator pairs to try in turn: the first I1 goes on the first, each retransmission on the next, and round again.
    pub pairs: Vec<LocatorPair>,
}

/// Why a context is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenRefused {
    /// There is one, in whatever state.
    #[error("the context exists")]
    AlreadyOpen(ContextId),
    /// The peer did not answer, or does not speak Shim6 (RFC 5533 §7.8).
    #[error("an earlier exchange failed")]
    HoldDown {
        /// When it may be tried again.
        until: Instant,
        /// What failed.
        reason: FailReason,
    },
    /// The local ULID is not one of ours.
    #[error("unknown local ULID")]
    UnknownHost,
    /// No pair goes from a locator of the host to a unicast address.
    #[error("no usable locator pair")]
    NoLocators,
    /// No room for another context, or no tag left.
    #[error("no room for another context")]
    Full,
}

/// Most I1s out of turn in one exchange, and the least time since the last I1.
const NUDGES_MAX: u8 = 8;
const NUDGE_GAP: Duration = Duration::from_secs(1);
/// How soon an I1 follows that of the peer: what follows from the peer's own comes first.
const HASTE: Duration = Duration::from_millis(50);

impl Endpoint {
    /// §7.7: opens a context, with an I1 on the first pair.
    pub fn open(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        request: Open,
        out: &mut Vec<Output>,
    ) -> Result<ContextId, OpenRefused> {
        let Open { ulids, fork, mut pairs } = request;
        if let Some(context) = self.store.by_ulids(ulids, fork) {
            return Err(OpenRefused::AlreadyOpen(context.id));
        }
        let new = self.host_for_new(ulids.local).is_some();
        let host = self.local(ulids.local).filter(|_| new).ok_or(OpenRefused::UnknownHost)?;
        if let Some((until, reason)) = self.holddowns.check(now, ulids) {
            return Err(OpenRefused::HoldDown { until, reason });
        }
        pairs.retain(|pair| host.has(pair.local.0) && is_unicast(pair.peer.0));
        self.starts.arrange(ulids, &mut pairs);
        let first = *pairs.first().filter(|_| is_unicast(ulids.peer.0)).ok_or(OpenRefused::NoLocators)?;
        let displaced = self.admit_own(now).ok_or(OpenRefused::Full)?;
        let tag = self.allocate_tag(rng, ulids, None, displaced).ok_or(OpenRefused::Full)?;
        self.displace(displaced, out);
        let mut context = self.blank(now, ulids, fork, tag, host);
        context.pair = first;
        context.exchange = Some(Box::new(Exchange::new(now, rng.next_u32(), pairs)));
        let id = context.id;
        self.tags.hold(tag);
        self.store.insert(context);
        self.settle_offers(rng, id, Offers::ALL);
        out.push(Output::Opening { id });
        self.send_i1(now, rng, id, out);
        Ok(id)
    }

    /// §7.7, §7.8: the next I1 of the exchange, on the next pair.
    pub(super) fn send_i1(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, out: &mut Vec<Output>) {
        let base = self.config.i1_timeout;
        let Some(context) = self.store.get_mut(id) else { return };
        let (initiator_tag, ulids, fork) = (context.local_tag, context.ulids, context.fork);
        let Some(exchange) = context.exchange.as_deref_mut() else { return };
        let Some(pair) = exchange.advance() else { return };
        exchange.sent = now;
        exchange.hastened = false;
        exchange.at = now + backoff(rng, base, exchange.retries);
        let initiator_nonce = exchange.nonce;
        // What may answer is what was tried (D22).
        if context.peer_locator(pair.peer.0).is_none() {
            context.peer_locators.push(PeerLocator::tried(pair.peer));
        }
        context.pair = pair;
        self.store.settle(id);
        let options = Options { ulids: naming(ulids, pair), fork: nonzero(fork), ..Options::default() };
        let message = Message::I1 { initiator_tag, initiator_nonce, options };
        out.push(Output::Send { context: Some(id), addresses: outgoing(pair), message });
    }

    /// Something shows that the peer of an exchange that waits for R1 may answer now: one more I1, on `pair`. It counts as no
    /// retransmission, and the next of those waits its full time from here. A second apart at least, and not without end: one
    /// that comes too soon is sent when the second is over. Whether it was sent now.
    pub fn nudge(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        pair: LocatorPair,
        out: &mut Vec<Output>,
    ) -> bool {
        let waiting = self.store.get_mut(id).filter(|context| context.state == State::I1Sent);
        let Some(exchange) = waiting.and_then(|context| context.exchange.as_deref_mut()) else { return false };
        let granted = exchange.grant_nudge(now, pair);
        if granted {
            self.send_i1(now, rng, id, out);
        } else if exchange.defer_nudge(now, pair) {
            self.store.settle(id);
        }
        granted
    }

    /// The peer asks for the context too, gets R2 and is ready with it; what it sends is of no use to us before we are. If our
    /// own I1 was sent a while ago, one more is due now: the peer is there (docs/decisions: recovery).
    fn hasten(&mut self, now: Instant, id: ContextId, pair: LocatorPair) {
        let waiting = self.store.get_mut(id).filter(|context| context.state == State::I1Sent);
        let Some(exchange) = waiting.and_then(|context| context.exchange.as_deref_mut()) else { return };
        if !exchange.hastened && exchange.grant_nudge(now, pair) {
            exchange.hastened = true;
            exchange.at = exchange.at.min(now + HASTE);
            self.store.settle(id);
        }
    }

    /// The pairs an exchange sends its I1s on, if it waits for R1.
    pub fn awaits_r1(&self, id: ContextId) -> &[LocatorPair] {
        let waiting = self.store.get(id).filter(|context| context.state == State::I1Sent);
        waiting.and_then(|context| context.exchange.as_deref()).map_or(&[], |exchange| &exchange.candidates)
    }

    /// §7.9: receives an I1.
    pub(super) fn receive_i1(
        &mut self,
        now: Instant,
        packet: &Incoming<'_>,
        tag: ContextTag,
        nonce: u32,
        options: &Options,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let key = match self.key(packet, options) {
            Ok(key) => key,
            Err(reason) => return Verdict::Dropped(reason),
        };
        let Some(context) = self.store.by_ulids(key.ulids, key.fork) else {
            return self.send_r1(now, packet.addresses, tag, nonce, key, out);
        };
        match context.state {
            State::Established => {
                let known = options.ulids.is_none() || context.peer_locator(packet.addresses.source).is_some();
                if known && context.peer_tag == Some(tag) {
                    // Our R2 was lost.
                    self.send_r2_for_i1(now, context.id, packet.addresses, nonce, out)
                } else {
                    // The peer lost the context; ours stays as it is until an I2 proves it.
                    self.send_r1(now, packet.addresses, tag, nonce, key, out)
                }
            }
            // Both sides asked at once.
            State::I1Sent | State::I2Sent | State::I2bisSent => {
                let id = context.id;
                self.hasten(now, id, incoming_pair(packet.addresses));
                self.send_r2_for_i1(now, id, packet.addresses, nonce, out)
            }
            // These have no context object and are as IDLE to whatever comes in (App. B).
            State::Idle | State::EFailed | State::NoSupport => {
                self.send_r1(now, packet.addresses, tag, nonce, key, out)
            }
        }
    }

    /// §7.10: R1, made from the I1 and the secret alone.
    fn send_r1(
        &mut self,
        now: Instant,
        addresses: Addresses,
        tag: ContextTag,
        nonce: u32,
        key: Key,
        out: &mut Vec<Output>,
    ) -> Verdict {
        if !self.limiter.allow(now, Kind::R1, addresses.source) {
            return Verdict::Dropped(DropReason::RateLimited);
        }
        let claim = Claim::establish(tag, key.ulids, key.fork, addresses);
        let (responder_nonce, validator) = self.validators.issue(now, &claim);
        let options = Options { validator: Some(validator), ..Options::default() };
        let message = Message::R1 { initiator_nonce: nonce, responder_nonce, options };
        out.push(Output::Send { context: None, addresses: addresses.swapped(), message });
        Verdict::Answered(Answer::R1)
    }

    fn send_r2_for_i1(
        &mut self,
        now: Instant,
        id: ContextId,
        addresses: Addresses,
        nonce: u32,
        out: &mut Vec<Output>,
    ) -> Verdict {
        if !self.limiter.allow(now, Kind::R2, addresses.source) {
            return Verdict::Dropped(DropReason::RateLimited);
        }
        self.send_r2(id, addresses, nonce, out);
        Verdict::Answered(Answer::R2)
    }

    /// §7.11: receives an R1.
    pub(super) fn receive_r1(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        packet: &Incoming<'_>,
        (initiator_nonce, responder_nonce): (u32, u32),
        options: &Options,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let Some(validator) = &options.validator else {
            return Verdict::Dropped(DropReason::NoValidator);
        };
        let found = self.store.by_nonce(initiator_nonce).find(|context| context.has_pair(packet.addresses));
        let Some((id, state)) = found.map(|context| (context.id, context.state)) else {
            return Verdict::Dropped(DropReason::NoContext);
        };
        match state {
            State::I1Sent => {}
            // The answer to an I1 that was sent again.
            State::I2Sent | State::I2bisSent | State::Established => return Verdict::Dropped(DropReason::WrongState),
            State::Idle | State::EFailed | State::NoSupport => return Verdict::Dropped(DropReason::NoContext),
        }
        let pair = incoming_pair(packet.addresses);
        let Some(message) = self.i2(id, pair, responder_nonce, validator) else {
            return Verdict::Dropped(DropReason::Oversized);
        };
        let wait = backoff(rng, self.config.i2_timeout, 0);
        let Some(context) = self.store.get_mut(id) else { return Verdict::Dropped(DropReason::NoContext) };
        context.state = State::I2Sent;
        context.pair = pair;
        context.told = true;
        if let Some(exchange) = context.exchange.as_deref_mut() {
            exchange.responder_nonce = responder_nonce;
            exchange.validator.clone_from(validator);
            exchange.use_pair(pair);
            exchange.retries = 0;
            exchange.sent = now;
            exchange.at = now + wait;
        }
        self.store.settle(id);
        out.push(Output::Send { context: Some(id), addresses: outgoing(pair), message });
        Verdict::Accepted
    }

    /// §7.11, §7.12: the I2 of an exchange, the same every time; none if it does not fit in a packet.
    pub(super) fn i2(
        &self,
        id: ContextId,
        pair: LocatorPair,
        responder_nonce: u32,
        validator: &[u8],
    ) -> Option<Message> {
        let context = self.store.get(id)?;
        let exchange = context.exchange.as_deref()?;
        // If an I1 named the ULIDs, so must the I2, even on another pair.
        let ulids_pair = context.ulids.as_locators();
        let named = exchange.used.iter().chain([&pair]).any(|used| *used != ulids_pair);
        let options = Options {
            validator: Some(validator.to_vec()),
            ulids: named.then_some(context.ulids),
            fork: nonzero(context.fork),
            ..self.announcement(context)
        };
        size::fit(Message::I2 {
            initiator_tag: context.local_tag,
            initiator_nonce: exchange.nonce,
            responder_nonce,
            options,
        })
    }

    /// §7.13: receives an I2.
    pub(super) fn receive_i2(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        packet: &Incoming<'_>,
        offer: Offer,
        options: &Options,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let key = match self.key(packet, options) {
            Ok(key) => key,
            Err(reason) => return Verdict::Dropped(reason),
        };
        let claim = Claim::establish(offer.tag, key.ulids, key.fork, packet.addresses);
        if let Err(reason) = self.check_validator(now, offer.responder_nonce, &claim, options) {
            return Verdict::Dropped(reason);
        }
        self.accept(now, rng, packet, key, offer, options, out)
    }

    /// §7.14: R2 with everything the peer needs. Never sent again by a timer.
    pub(super) fn send_r2(&mut self, id: ContextId, addresses: Addresses, nonce: u32, out: &mut Vec<Output>) {
        let Some(context) = self.store.get(id) else { return };
        let options = self.announcement(context);
        let message = Message::R2 { responder_tag: context.local_tag, initiator_nonce: nonce, options };
        // What a host announces was cut to size when it was set, so an R2 always fits.
        if let Some(message) = size::fit(message) {
            out.push(Output::Send { context: Some(id), addresses: addresses.swapped(), message });
        }
        if let Some(context) = self.store.get_mut(id) {
            context.told = true;
        }
    }

    /// §7.16: receives an R2.
    pub(super) fn receive_r2(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        packet: &Incoming<'_>,
        (tag, nonce): (ContextTag, u32),
        options: &Options,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let pair = incoming_pair(packet.addresses);
        let about = |context: &&Context| context.exchange.iter().any(|exchange| exchange.used.contains(&pair));
        let Some(context) = self.store.by_nonce(nonce).find(about) else {
            return Verdict::Dropped(DropReason::NoContext);
        };
        let (id, ulids) = (context.id, context.ulids);
        let how = match context.state {
            State::I1Sent | State::I2Sent => How::Initiated,
            State::I2bisSent => How::Recovered,
            State::Established => return Verdict::Dropped(DropReason::WrongState),
            State::Idle | State::EFailed | State::NoSupport => return Verdict::Dropped(DropReason::NoContext),
        };
        if self.is_common(context.peer_tag, tag) {
            return Verdict::Dropped(DropReason::CommonTag);
        }
        let checked = match peer::check_parameters(&mut *self.proof, ulids.peer, options) {
            Ok(checked) => checked,
            Err(reason) => return Verdict::Dropped(reason),
        };
        let mut told = match peer::prove(&mut *self.proof, ulids.peer, Some(context), options, checked) {
            Ok(told) => told,
            Err(refusal) => return self.refuse(now, packet, refusal, out),
        };
        let known = context.peer_label;
        told.leave_label(|label| self.is_common_label(known, label));
        let Some(context) = self.store.get_mut(id) else { return Verdict::Dropped(DropReason::NoContext) };
        context.renew_update(rng, nonce);
        peer::learn_exchange(context, tag, told);
        context.settle_pair(pair);
        context.become_established(now, self.config.idle);
        let offered = Offers::of_peer(context);
        self.store.settle(id);
        self.settle_offers(rng, id, offered);
        self.holddowns.release(ulids);
        self.starts.forget(ulids);
        self.resolve_confusion(now, rng, id, out);
        out.push(Output::Ready { id, how });
        out.push(Output::ControlIn { id });
        self.send_pending_update(now, rng, id, out);
        Verdict::Accepted
    }

    /// What we tell every peer about our locators: always, unless the ULID is all there is (D11).
    pub(super) fn announcement(&self, context: &Context) -> Options {
        let host = &context.host;
        let flow_label = context.local_label.map(labels::offer);
        let udp = context.local_udp.then_some(UdpOption::OFFER);
        let liveness = context.local_liveness.then_some(LivenessOption::OFFER);
        if !host.announces() {
            let keepalive_timeout = self.config.keepalive_timeout;
            return Options { keepalive_timeout, flow_label, udp, liveness, ..Options::default() };
        }
        Options {
            locators: Some(host.list()),
            preferences: context.preferences.as_deref().map(|elements| preferences(host, elements)),
            pds: host.pds.clone(),
            signature: host.signature.clone(),
            keepalive_timeout: self.config.keepalive_timeout,
            flow_label,
            udp,
            liveness,
            ..Options::default()
        }
    }

    /// A context that knows nothing of its peer yet.
    pub(super) fn blank(
        &self,
        now: Instant,
        ulids: UlidPair,
        fork: u32,
        local_tag: ContextTag,
        host: Arc<LocalHost>,
    ) -> Context {
        Context {
            id: self.store.next_id(),
            state: State::I1Sent,
            ulids,
            fork,
            local_tag,
            peer_tag: None,
            local_label: None,
            peer_label: None,
            local_udp: self.config.udp,
            peer_udp: false,
            local_liveness: self.config.liveness,
            peer_liveness: false,
            preferences: host.preferences.clone(),
            host,
            peer_locators: vec![PeerLocator::ulid(ulids.peer)],
            peer_generation: None,
            peer_pds: None,
            peer_keepalive_timeout: None,
            pair: ulids.as_locators(),
            last_used: now,
            exchange: None,
            told: false,
            update: None,
            idle_check: now + self.config.idle,
            accepted: None,
            stamp: Stamp::NONE,
            mirrored: false,
        }
    }
}

/// The fixed part of an I2 or I2bis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    /// Initiator CT.
    pub(super) tag: ContextTag,
    /// Initiator Nonce, to be echoed.
    pub(super) nonce: u32,
    /// Responder Nonce, ours.
    pub(super) responder_nonce: u32,
    /// Packet CT of an I2bis.
    pub(super) packet_tag: Option<ContextTag>,
}

impl Exchange {
    /// An exchange that begins with an I1 on the first candidate.
    pub(super) fn new(now: Instant, nonce: u32, candidates: Vec<LocatorPair>) -> Exchange {
        let none = dataplane::wire::Ulid(std::net::Ipv6Addr::UNSPECIFIED);
        Exchange {
            nonce,
            pair: UlidPair { local: none, peer: none }.as_locators(),
            candidates,
            next: 0,
            used: Vec::new(),
            responder_nonce: 0,
            validator: Vec::new(),
            packet_tag: ContextTag::truncate(0),
            retries: 0,
            at: now,
            sent: now,
            fell_back: false,
            nudges: 0,
            hastened: false,
        }
    }

    /// Whether one more I1 may be sent out of turn now; then it goes on `pair`.
    fn grant_nudge(&mut self, now: Instant, pair: LocatorPair) -> bool {
        let place = self.candidates.iter().position(|candidate| *candidate == pair);
        let rested = now.since(self.sent) >= NUDGE_GAP && self.nudges < NUDGES_MAX;
        let Some(place) = place.filter(|_| rested) else { return false };
        self.nudges += 1;
        self.next = place;
        true
    }

    /// The same for a sign that comes sooner than an I1 may follow another: whoever has just begun, and has not heard of the peer
    /// before, is in the middle of what the sign says is over.
    fn defer_nudge(&mut self, now: Instant, pair: LocatorPair) -> bool {
        let place = self.candidates.iter().position(|candidate| *candidate == pair);
        let early = now.since(self.sent) < NUDGE_GAP && self.nudges < NUDGES_MAX && !self.hastened;
        let Some(place) = place.filter(|_| early) else { return false };
        self.nudges += 1;
        self.next = place;
        self.hastened = true;
        self.at = self.at.min(self.sent + NUDGE_GAP);
        true
    }

    /// The pair whose turn it is.
    fn advance(&mut self) -> Option<LocatorPair> {
        let pair = *self.candidates.get(self.next % self.candidates.len().max(1))?;
        self.next = (self.next + 1) % self.candidates.len();
        self.use_pair(pair);
        Some(pair)
    }

    /// Remembers that something was sent on `pair` (D20).
    pub(super) fn use_pair(&mut self, pair: LocatorPair) {
        self.pair = pair;
        if !self.used.contains(&pair) {
            self.used.push(pair);
        }
    }
}

impl Context {
    /// Lp after the peer told its locators on `arrival`: stays if it still makes sense, else the pair of the exchange
    /// (D33). A locator that is not the peer's never becomes a destination: another one of its locators does instead, or
    /// its ULID when none is known to answer.
    ///
    /// The pair of the exchange counts as probed, since the nonces that went both ways on it cannot be guessed.
    pub(super) fn settle_pair(&mut self, arrival: LocatorPair) {
        if let Some(known) = self.peer_locators.iter_mut().find(|known| known.locator == arrival.peer) {
            known.probed = known.verified;
        }
        let stays = self.state.carries_payload()
            && self.peer_locator(self.pair.peer.0).is_some()
            && self.host.has(self.pair.local.0);
        if stays {
            return;
        }
        // The arrival may be a locator of a list that was replaced meanwhile; then any other that answers will do.
        let usable = |locator: &Locator| self.peer_locator(locator.0).is_some_and(PeerLocator::usable);
        let known = self.peer_locators.iter().map(|known| known.locator);
        let mut candidates = [arrival.peer, self.pair.peer].into_iter().chain(known);
        let peer = candidates.find(usable).unwrap_or(self.ulids.as_locators().peer);
        self.pair = LocatorPair { local: arrival.local, peer };
    }

    /// STATE := ESTABLISHED; the exchange is over.
    pub(super) fn become_established(&mut self, now: Instant, idle: std::time::Duration) {
        self.state = State::Established;
        self.told = true;
        self.exchange = None;
        self.last_used = self.last_used.max(now);
        self.idle_check = self.last_used + idle;
    }
}

/// The ULID Pair option goes where the addresses do not say it already (§5.4, §5.6, §5.9).
pub(super) fn naming(ulids: UlidPair, pair: LocatorPair) -> Option<UlidPair> {
    (ulids.as_locators() != pair).then_some(ulids)
}

/// The FII option goes with every context but the default one.
pub(super) fn nonzero(fork: u32) -> Option<u32> {
    (fork != 0).then_some(fork)
}

/// Our preferences for the list of `host`, in elements as short as they can be.
pub(super) fn preferences(host: &LocalHost, elements: &[Preference]) -> LocatorPreferences {
    let weighted = elements.iter().any(|element| element.weight.is_some());
    let ranked = weighted || elements.iter().any(|element| element.priority.is_some());
    // All elements have one length, so what one says the others must say too.
    let fill = |element: &Preference| Preference {
        flags: element.flags,
        priority: element.priority.or(ranked.then_some(0)),
        weight: element.weight.or(weighted.then_some(0)),
    };
    let element_len = 1 + u8::from(ranked) + u8::from(weighted);
    let elements = elements.iter().map(fill).collect();
    LocatorPreferences { generation: host.generation, element_len, elements, offset: 0 }
}
