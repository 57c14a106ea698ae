//! What happens by itself: retransmission, giving up, hold-downs and the end of unused contexts (RFC 5533 §7.8, §7.12,
//! §7.19, §9, §10.2).

use std::time::Duration;

use dataplane::wire::LocatorPair;
use rand::Rng;

use super::context::{Context, ContextId, Exchange, PeerLocator, State};
use super::endpoint::Endpoint;
use super::holddown::Held;
use super::output::{FailReason, GoneReason, Output};
use super::starts::REMEMBERED;
use super::store::Store;
use crate::time::Instant;

/// Contexts looked at in one call, so that messages of others never wait long.
const EXPIRED_PER_CALL: usize = 256;

impl Endpoint {
    /// Most pairs that are tried when a lost context is asked for anew.
    const CANDIDATES_MAX: usize = 16;

    /// Does what is due, or as much of it as one call may take; the rest is due at once again. Costs nothing for contexts that
    /// have nothing to do.
    pub fn expire(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Output>) {
        self.holddowns.expire(now);
        self.starts.expire(now);
        self.quarantine.expire(now);
        let mut moves = Store::moves();
        for _ in 0..EXPIRED_PER_CALL {
            let Some(id) = self.store.next_due(now, &mut moves) else { break };
            self.expire_one(now, rng, id, out);
            // Whatever was done or not done, what is still there has a deadline.
            self.store.settle(id);
        }
    }

    /// Every branch moves the deadline that was due into the future or ends the context.
    fn expire_one(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, out: &mut Vec<Output>) {
        let Some(context) = self.store.get(id) else { return };
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(context.exchange.as_ref().map(|exchange| exchange.at)) {
            self.expire_exchange(now, rng, id, out);
        } else if due(context.update.as_ref().and_then(|update| update.at)) {
            self.resend_update(now, rng, id, out);
        } else {
            self.check_idle(now, id, out);
        }
    }

    /// No answer in time.
    fn expire_exchange(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, out: &mut Vec<Output>) {
        let Some((state, exchange)) = self.store.get(id).and_then(|c| Some((c.state, c.exchange.as_deref()?))) else {
            return;
        };
        let (retries, fell_back) = (exchange.retries, exchange.fell_back);
        if exchange.hastened && state == State::I1Sent {
            // Out of turn, so it is no retransmission.
            return self.send_i1(now, rng, id, out);
        }
        let (base, retries_max) = match state {
            State::I1Sent => (self.config.i1_timeout, self.config.i1_retries_max),
            State::I2Sent => (self.config.i2_timeout, self.config.i2_retries_max),
            State::I2bisSent => (self.config.i2bis_timeout, self.config.i2bis_retries_max),
            State::Idle | State::Established | State::EFailed | State::NoSupport => return,
        };
        if retries >= retries_max {
            // One way back to I1 for each trigger, or a peer whose R2 is always lost would be asked for ever (D24).
            return match state {
                State::I1Sent => self.fail(now, id, FailReason::NoAnswer, out),
                _ if fell_back => self.fail(now, id, FailReason::NoAnswer, out),
                _ => self.return_to_i1(now, rng, id, out),
            };
        }
        let Some(context) = self.store.get_mut(id) else { return };
        if let Some(exchange) = context.exchange.as_deref_mut() {
            exchange.retries = retries + 1;
            exchange.at = now + backoff(rng, base, retries + 1);
        }
        self.store.settle(id);
        if state == State::I1Sent {
            self.send_i1(now, rng, id, out);
        } else {
            self.repeat(now, id, out);
        }
    }

    /// To I1-SENT from a later state: I2 or I2bis without an answer (§7.12, §7.19), or a tag that the peer gave to
    /// another context (§7.15). What was known of the peer no longer counts.
    pub(super) fn return_to_i1(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, out: &mut Vec<Output>) {
        let nonce = rng.next_u32();
        let Some(context) = self.store.get_mut(id) else { return };
        let (carried, tag) = (context.state.carries_payload(), context.local_tag);
        let mut exchange = Exchange::new(now, nonce, candidates(context, Self::CANDIDATES_MAX));
        exchange.fell_back = context.exchange.is_some();
        context.state = State::I1Sent;
        context.exchange = Some(Box::new(exchange));
        context.peer_tag = None;
        context.peer_label = None;
        (context.local_udp, context.peer_udp) = (self.config.udp, false);
        (context.local_liveness, context.peer_liveness) = (self.config.liveness, false);
        context.peer_generation = None;
        context.peer_locators = vec![PeerLocator::ulid(context.ulids.peer)];
        // The exchange tells again what the peer may know already; the peer may answer the I1 with R2 at once, and then
        // it has heard nothing newer. News follows when the context is established.
        if let Some(update) = context.update.as_deref_mut() {
            update.at = None;
        }
        self.store.settle(id);
        if carried {
            if let Some(group) = &mut self.store.group {
                group.suspended(tag);
            }
            out.push(Output::Suspended { id });
        }
        self.send_i1(now, rng, id, out);
    }

    /// E-FAILED or NO-SUPPORT: the context goes, a memory of the pair stays for a while.
    pub(super) fn fail(&mut self, now: Instant, id: ContextId, reason: FailReason, out: &mut Vec<Output>) {
        let Some(context) = self.store.get(id) else { return };
        let (ulids, fork) = (context.ulids, context.fork);
        let untried = context.exchange.as_deref().filter(|exchange| exchange.used.len() < exchange.candidates.len());
        let next = untried.map(|exchange| exchange.next);
        let pair = Held::Pair(ulids);
        let (held, time, gone) = match reason {
            FailReason::NoAnswer => (pair, self.config.no_r1_holddown, GoneReason::NoAnswer),
            FailReason::NoSupport if self.config.share_no_support => {
                (Held::Peer(ulids.peer), self.config.icmp_holddown, GoneReason::NoSupport)
            }
            FailReason::NoSupport => (pair, self.config.icmp_holddown, GoneReason::NoSupport),
        };
        // A fork that came to nothing says nothing about the pair, which has a default context that works.
        if fork == 0 {
            self.holddowns.hold(held, now + time, reason);
            match next.filter(|_| reason == FailReason::NoAnswer) {
                Some(next) => self.starts.note(now + time + REMEMBERED, ulids, next),
                None => _ = self.starts.forget(ulids),
            }
        }
        self.discard(id, gone, out);
        out.push(Output::Failed { ulids, fork, reason });
    }

    /// §9: ends a context that nobody used for long enough.
    fn check_idle(&mut self, now: Instant, id: ContextId, out: &mut Vec<Output>) {
        let idle = self.config.idle;
        let Some(context) = self.store.get_mut_unnoted(id) else { return };
        if context.state == State::Established && context.last_used + idle <= now {
            return self.discard(id, GoneReason::Idle, out);
        }
        // While an exchange is under way its own timers see to the end of it.
        let next = if context.state == State::Established { context.last_used } else { now };
        context.idle_check = next + idle;
        self.store.settle(id);
    }
}

/// Pairs worth an I1 when a context has to be asked for anew: after an I2 the same as before, beginning with the one
/// after that which did not work; otherwise the current pair, the pair of the exchange, and all that were usable.
fn candidates(context: &Context, max: usize) -> Vec<LocatorPair> {
    let exchange = context.exchange.as_deref();
    if let Some(exchange) = exchange.filter(|_| context.state == State::I2Sent) {
        let mut pairs = exchange.candidates.clone();
        let failed = pairs.iter().position(|pair| *pair == exchange.pair).map_or(0, |at| at + 1);
        let turn = failed.checked_rem(pairs.len()).unwrap_or(0);
        pairs.rotate_left(turn);
        return pairs;
    }
    let mut pairs: Vec<LocatorPair> =
        exchange.map(|exchange| exchange.pair).into_iter().chain([context.pair]).collect();
    let host = &context.host;
    let peers = || context.peer_locators.iter().filter(|known| known.usable()).map(|known| known.locator);
    let all = host.locators.iter().flat_map(|(local, _)| peers().map(|peer| LocatorPair { local: *local, peer }));
    pairs.extend(all);
    pairs.retain(|pair| host.has(pair.local.0));
    let mut distinct = Vec::new();
    for pair in pairs {
        if distinct.len() < max && !distinct.contains(&pair) {
            distinct.push(pair);
        }
    }
    distinct
}

/// Wait before the next transmission after `count` retransmissions: doubled each time, then made random so that many
/// contexts do not act in step (§7.8, §14).
pub(super) fn backoff(rng: &mut dyn Rng, base: Duration, count: u32) -> Duration {
    spread(rng, base.saturating_mul(1u32.checked_shl(count).unwrap_or(u32::MAX)))
}

/// The same with a ceiling for the nominal wait (§10.2).
pub(super) fn backoff_up_to(rng: &mut dyn Rng, base: Duration, count: u32, max: Duration) -> Duration {
    spread(rng, base.saturating_mul(1u32.checked_shl(count).unwrap_or(u32::MAX)).min(max))
}

/// Uniform between 0.5 and 1.5 of the nominal wait.
fn spread(rng: &mut dyn Rng, nominal: Duration) -> Duration {
    nominal.mul_f64(0.5 + f64::from(rng.next_u32()) / f64::from(u32::MAX))
}
