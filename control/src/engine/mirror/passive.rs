//! Contexts that another box runs, and what happens to them here.

use dataplane::context as table;
use dataplane::wire::shim6::{Addresses, ControlPacket, Message};
use dataplane::wire::{ContextTag, Locator, LocatorPair, ethernet};
use rand::Rng;

use super::{ASKED, ASKED_MAX, Elsewhere, SAY_SEEN, SEEN_IN, SEEN_MAX, SEEN_OUT, SEEN_OUT_LAST, Told};
use crate::engine::{Effect, Engine, Event};
use crate::reap::Reap;
use crate::shim6::{ContextId, tags};
use crate::time::Instant;

impl Engine {
    /// Payload of a context was seen here. True if another box runs it and was told, so that there is nothing else to do.
    pub(in crate::engine) fn seen_for_another(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        activity: table::Activity,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let note = self.attached.get(&id).and_then(|attached| attached.mirrored.as_deref());
        let Some(left) = note.map(|note| note.left) else { return false };
        let Some(context) = self.endpoint.context(id) else { return false };
        let (runner, tag) = (self.runner(context), context.local_tag);
        let Some(runner) = runner.filter(|_| !left) else {
            self.take_on(now, rng, id, effects);
            return false;
        };
        self.endpoint.used(now, id);
        let bit = |seen: bool, bit: u8| if seen { bit } else { 0 };
        let last = bit(activity.last == table::Direction::Out, SEEN_OUT_LAST);
        let bits = bit(activity.received, SEEN_IN) | bit(activity.sent, SEEN_OUT);
        if let Some(other) = self.other(runner)
            && (other.seen.len() < SEEN_MAX || other.seen.contains_key(&tag))
        {
            let known = other.seen.entry(tag).or_default();
            *known = (*known | bits) & !SEEN_OUT_LAST | last;
            other.say_seen.get_or_insert(now + SAY_SEEN);
        }
        true
    }

    /// This box runs a context from now on, if it did not.
    pub(in crate::engine) fn take_on(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        effects: &mut Vec<Effect>,
    ) {
        let taken = self.attached.get_mut(&id).and_then(|attached| attached.mirrored.take());
        let Some(note) = taken else { return };
        self.tally.count(Event::TakenOn);
        self.advance_group(now);
        self.endpoint.run_mirrored(id);
        let Some(context) = self.endpoint.context(id) else { return };
        let (ulids, pair, timeout) = (context.ulids, context.pair, context.peer_keepalive_timeout);
        let (local, peer) = self.locators(context);
        let newest = self.endpoint.host_at(ulids.local);
        let other_list = newest.is_some_and(|host| host.locators != context.host.locators);
        let down = self.provider_of(pair.local.0).is_none_or(|(_, provider)| !provider.is_up());
        let mut reap = Reap::new(&self.reap_config, pair, &local[..], &peer[..]);
        reap.set_confirmed(pair);
        if let Some(seconds) = timeout {
            reap.set_keepalive_timeout(seconds);
        }
        let attached = self.attached.get_or_default(id);
        attached.reap.get_or_insert(reap);
        attached.elsewhere = Elsewhere::default();
        self.attached.settle(id);
        self.sync(id, effects);
        self.policy_begins(now, id);
        if note.news || other_list {
            self.has_news(id);
        }
        if note.doubted || down {
            self.hint(now, rng, id, effects);
        }
    }

    /// Whether another box runs it.
    pub(in crate::engine) fn is_mirrored(&self, id: ContextId) -> bool {
        self.attached.get(&id).is_some_and(|attached| attached.mirrored.is_some())
    }

    /// Whether a control message is about a context that another box runs, or an exchange that one began. Then it has it now.
    pub(in crate::engine) fn is_for_another(&mut self, frame: &[u8]) -> bool {
        if self.mirrors.is_none() {
            return false;
        }
        let Some(packet) = frame.get(ethernet::HEADER_LEN..) else { return false };
        let Some((inner, _)) = self.out_of_udp(packet) else { return false };
        ControlPacket::parse(&inner).is_ok_and(|parsed| self.hand_over(parsed.addresses, &parsed.message, packet))
    }

    /// Hands a message over to the box it is for: the one that runs its context, or began the exchange. Whether there is one.
    fn hand_over(&mut self, addresses: Addresses, message: &Message, packet: &[u8]) -> bool {
        let Some(mirrors) = &self.mirrors else { return false };
        let arrived = LocatorPair { local: Locator(addresses.target), peer: Locator(addresses.source) };
        let one = |found: Option<usize>| found.into_iter().collect::<Vec<usize>>();
        let to = match message {
            Message::UpdateRequest { receiver_tag: tag, .. }
            | Message::UpdateAck { receiver_tag: tag, .. }
            | Message::Keepalive { receiver_tag: tag, .. } => one(self.whose(*tag)),
            Message::Probe(probe) => one(self.whose(probe.receiver_tag)),
            Message::R1bis { packet_tag, .. } => {
                one(self.endpoint.find_by_peer(*packet_tag, arrived).and_then(|context| self.runner(context)))
            }
            Message::R1 { initiator_nonce: nonce, .. } | Message::R2 { initiator_nonce: nonce, .. }
                if !self.endpoint.has_exchange(*nonce) =>
            {
                let there = mirrors.others.iter().enumerate().filter(|(_, other)| other.is_there());
                there.map(|(at, _)| at).collect()
            }
            _ => return false,
        };
        for at in &to {
            self.tally.count(Event::HandedOver);
            self.other(*at).into_iter().for_each(|other| other.say(Told::Handed(packet.to_vec())));
        }
        !to.is_empty()
    }

    /// The box that a message with this tag is for, if it is another one and there.
    fn whose(&self, tag: ContextTag) -> Option<usize> {
        match self.endpoint.find_by_local_tag(tag) {
            Some(context) => self.runner(context),
            None => self.other_with(tags::box_of(tag)),
        }
    }

    /// Payload came with a tag that nobody has here. True if another box may have it: that is asked, and the peer is told nothing
    /// for the moment.
    pub(in crate::engine) fn ask_for_tag(&mut self, now: Instant, tag: ContextTag) -> bool {
        let Some(mine) = self.mirrors.as_ref().map(|mirrors| mirrors.plan.box_id) else { return false };
        if self.endpoint.find_by_local_tag(tag).is_some() {
            return false;
        }
        let maker = tags::box_of(tag);
        let Some(other) = self.other_with(maker).filter(|_| maker != mine) else { return false };
        let Some(mirrors) = self.mirrors.as_mut() else { return false };
        if let Some((asked, unknown)) = mirrors.asked.get(&tag) {
            return !unknown && now.since(*asked) < ASKED;
        }
        if mirrors.asked.len() >= ASKED_MAX {
            mirrors.asked.retain(|_, (asked, _)| now.since(*asked) < ASKED);
        }
        if mirrors.asked.len() >= ASKED_MAX {
            return false;
        }
        mirrors.asked.insert(tag, (now, false));
        if let Some(other) = mirrors.others.get_mut(other) {
            other.say(Told::Ask(tag.value()));
        }
        true
    }
}
