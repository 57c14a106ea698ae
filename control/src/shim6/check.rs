//! Whether a pair works that payload does not use: an Update Request without news, sent over it (RFC 5533 §10).
//!
//! A probe would tell as well, and make the peer explore (RFC 5534 §6.7). A request that says nothing changes nothing: the
//! peer looks whether it comes between locators of the context, and acknowledges it with a nonce that only who got it
//! knows. The answer may come over any pair of the context: the standard leaves that to the peer (§10.4), and what is to be
//! known is whether what we send arrives.
//!
//! It counts as *the* outstanding request (§10.3): there is none while there is news, and news takes its place. There is
//! nothing to be told, so giving it up after a few attempts leaves the peer without nothing (R5533-255 is about news).

use dataplane::wire::LocatorPair;
use dataplane::wire::shim6::{Message, Options};
use rand::Rng;

use super::context::{Context, ContextId, State, outgoing};
use super::endpoint::Endpoint;
use super::output::Output;

/// A request that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    nonce: u32,
    pair: LocatorPair,
}

impl Endpoint {
    /// Asks the peer over `pair` whether that works; [`Output::Checked`] says that it does. False if it cannot be asked
    /// now: the context is not established, there is news for the peer, or the pair is not one of locators that both know.
    pub fn check_pair(&mut self, rng: &mut dyn Rng, id: ContextId, pair: LocatorPair, out: &mut Vec<Output>) -> bool {
        let known = self.store.get(id).is_some_and(|context| {
            let verified = context.peer_locator(pair.peer.0).is_some_and(|known| known.verified);
            verified && context.host.has(pair.local.0)
        });
        if !known {
            return false;
        }
        self.checks.insert(id, Check { nonce: rng.next_u32(), pair });
        let sent = self.check_again(id, out);
        if !sent {
            self.checks.remove(&id);
        }
        sent
    }

    /// Asks once more, in the same words (R5533-251). False if there is nothing to be asked any more.
    pub fn check_again(&mut self, id: ContextId, out: &mut Vec<Output>) -> bool {
        let Some(Check { nonce: request_nonce, pair }) = self.checks.get(&id).copied() else { return false };
        let asks = self.store.get(id).filter(|it| it.state == State::Established && it.update.is_none());
        let Some(receiver_tag) = asks.and_then(|context| context.peer_tag) else { return false };
        let message = Message::UpdateRequest { receiver_tag, request_nonce, options: Options::default() };
        // It is not reported as payload: REAP would wait for an answer on the current pair, and explore when this one is
        // dead.
        out.push(Output::Send { context: Some(id), addresses: outgoing(pair), message });
        true
    }

    /// Whether the peer has not answered yet, and could: nothing else came between that would keep it from that.
    pub fn is_checking(&self, id: ContextId) -> bool {
        let asks = |context: &Context| context.state == State::Established && context.update.is_none();
        self.checks.contains_key(&id) && self.store.get(id).is_some_and(asks)
    }

    /// No answer is waited for any more.
    pub fn end_check(&mut self, id: ContextId) {
        self.checks.remove(&id);
    }

    /// An acknowledgement with a nonce that is none of news. Whether it answers a check.
    pub(super) fn receive_check_ack(&mut self, id: ContextId, request_nonce: u32, out: &mut Vec<Output>) -> bool {
        let answers = |check: &Check| check.nonce == request_nonce;
        let Some(check) = self.checks.get(&id).copied().filter(answers) else { return false };
        self.checks.remove(&id);
        // It got the nonce there, and so may be sent payload there (§7.2).
        let _ = self.set_probed(id, check.pair.peer, true);
        self.touch(id);
        out.push(Output::ControlIn { id });
        out.push(Output::Checked { id, pair: check.pair });
        true
    }
}
