//! What goes in UDP, and the questions that tell whether it has to (see [`carriage`](super::carriage)).

use std::borrow::Cow;

use dataplane::wire::ipv6;
use dataplane::wire::shim6::udp::{self, LEN};
use dataplane::wire::shim6::{Addresses, Message, Options, UdpFlow, UdpOption, UdpPorts, UdpPurpose};
use dataplane::wire::{Locator, LocatorPair};
use rand::Rng;

use super::carriage::{Carriage, Forms, Found, PATIENT};
use super::context::along;
use super::revive::Sign;
use super::{Effect, Engine, Event, Story};
use crate::reap::PathKey;
use crate::shim6::{Context, ContextId, State};
use crate::time::Instant;

impl Engine {
    /// How a message goes.
    pub(super) fn forms(
        &mut self,
        now: Instant,
        about: Option<ContextId>,
        addresses: Addresses,
        message: &Message,
    ) -> Forms {
        let Some(port) = self.carriages.port else { return Forms::PLAIN };
        let path = path_of(addresses);
        if let Some(ports) = self.carriages.answering(addresses) {
            let in_kind = match message {
                // Nobody begins in UDP, so the exchange, or what it follows, was lost without.
                Message::I2 { .. } | Message::I2bis { .. } | Message::R2 { .. } => {
                    if !self.carriages.is_udp(path) && self.carriages.path(now, path).map(|it| it.begin(now)).is_some()
                    {
                        self.tally.count(Event::UdpBegun);
                    }
                    true
                }
                Message::R1 { .. } | Message::R1bis { .. } | Message::Error(_) => true,
                _ => false,
            };
            if in_kind {
                return Forms { plain: false, udp: Some(ports) };
            }
        }
        let Some(context) = about.and_then(|id| self.endpoint.context(id)) else { return Forms::PLAIN };
        let flow = match context.peer_tag.filter(|_| context.may_use_udp()) {
            Some(peer) => UdpFlow::of(context.local_tag, peer),
            None => UdpFlow::opening(context.local_tag),
        };
        let (both, udp) = (Forms { plain: true, udp: Some(flow.ports(port)) }, Some(flow.ports(port)));
        let is_udp = self.carriages.is_udp(path);
        match message {
            Message::I1 { .. } if is_udp || context.is_unanswered() => both,
            // What others know of the path need not be so for this peer.
            Message::I2 { .. } if is_udp => both,
            _ if !context.may_use_udp() => Forms::PLAIN,
            _ if is_udp => Forms { plain: false, udp },
            _ if self.carriages.paths.get(&path).is_some_and(|carriage| carriage.is_in_doubt(now)) => both,
            _ => Forms::PLAIN,
        }
    }

    /// Whether payload of a context goes over a pair in UDP.
    pub(super) fn goes_in_udp(&self, context: &Context, pair: LocatorPair) -> bool {
        context.may_use_udp() && self.carriages.is_udp(PathKey::of(pair))
    }

    /// A packet for control as it would have come without UDP, and its ports; none if it is broken.
    pub(super) fn out_of_udp<'a>(&mut self, packet: &'a [u8]) -> Option<(Cow<'a, [u8]>, Option<UdpPorts>)> {
        let found = self.carriages.port.and_then(|port| udp::find(&ipv6::View::new(packet).ok()?, port));
        let found = match found {
            None => return Some((Cow::Borrowed(packet), None)),
            Some(Ok(found)) => found,
            Some(Err(_)) => {
                self.tally.count(Event::UdpMalformed);
                return None;
            }
        };
        let (place, ports) = (found.place, found.ports);
        let mut plain = packet.to_vec();
        udp::unwrap(&mut plain, place).ok()?;
        Some((Cow::Owned(plain.split_off(LEN)), Some(ports)))
    }

    /// Whether a message may come in UDP: anything of an exchange, and what has the tag of a context that agreed on it. A tag of
    /// nobody is answered as ever.
    pub(super) fn may_come_in_udp(&self, message: &Message) -> bool {
        let tag = match message {
            Message::UpdateRequest { receiver_tag, .. }
            | Message::UpdateAck { receiver_tag, .. }
            | Message::Keepalive { receiver_tag, .. } => *receiver_tag,
            Message::Probe(probe) => probe.receiver_tag,
            _ => return true,
        };
        self.endpoint.find_by_local_tag(tag).is_none_or(|context| context.local_udp)
    }

    /// A probe is about to go: the one before it had no answer.
    pub(super) fn unanswered(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        pair: LocatorPair,
        effects: &mut Vec<Effect>,
    ) {
        if self.carriages.port.is_none() {
            return;
        }
        let Some(attached) = self.attached.get_mut(&id) else { return };
        if let Some((before, at)) = attached.probed.replace((pair, now))
            && now.since(at) >= PATIENT
        {
            self.doubt_carriage(now, rng, id, before, true, effects);
        }
    }

    /// The probe of a pair, or of whatever pair, is not waited for any more.
    pub(super) fn answered(&mut self, id: ContextId, pair: Option<LocatorPair>) {
        if let Some(attached) = self.attached.get_mut(&id) {
            attached.probed = attached.probed.filter(|(probed, _)| pair.is_some_and(|pair| pair != *probed));
        }
    }

    /// There is reason to ask whether the path of a pair drops 140: something on it was not answered, or the peer speaks in UDP.
    pub(super) fn doubt_carriage(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        pair: LocatorPair,
        missed: bool,
        effects: &mut Vec<Effect>,
    ) {
        let may = self.endpoint.context(id).is_some_and(|context| context.may_use_udp());
        if self.carriages.port.is_none() || !may {
            return;
        }
        match self.carriages.path(now, PathKey::of(pair)).map(|carriage| carriage.doubts(now, missed)) {
            Some(true) => self.ask_carriage(now, rng, id, pair, effects),
            Some(false) => {}
            None => self.tally.count(Event::UdpPathsFull),
        }
    }

    /// Payload of a context was seen: it learns how its path is now, and looks whether that is still so.
    pub(super) fn udp_payload(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        sent: bool,
        effects: &mut Vec<Effect>,
    ) {
        let told = |engine: &Engine| {
            let installed = engine.attached.get(&id).and_then(|attached| attached.installed.as_ref());
            installed.is_some_and(|install| install.udp.goes)
        };
        if self.carriages.paths.is_empty() && !told(self) {
            return;
        }
        let Some(context) = self.endpoint.context(id) else { return };
        let pair = self.pair_in_use(id).unwrap_or(context.pair);
        if told(self) != self.goes_in_udp(context, context.pair) {
            self.sync(id, effects);
        }
        let may = self.endpoint.context(id).is_some_and(|context| context.may_use_udp());
        let due = |carriage: &mut Carriage| carriage.is_due(now);
        if may && sent && self.carriages.paths.get_mut(&PathKey::of(pair)).is_some_and(due) {
            self.ask_carriage(now, rng, id, pair, effects);
        }
    }

    /// Sends a pair of tests.
    fn ask_carriage(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        pair: LocatorPair,
        effects: &mut Vec<Effect>,
    ) {
        let Some(context) = self.endpoint.context(id).filter(|context| context.state == State::Established) else {
            return;
        };
        let (Some(receiver_tag), Some(port)) = (context.peer_tag, self.carriages.port) else { return };
        let udp = Some(UdpFlow::of(context.local_tag, receiver_tag).ports(port));
        let nonce = rng.next_u32();
        let Some(carriage) = self.carriages.paths.get_mut(&PathKey::of(pair)) else { return };
        carriage.ask(now, nonce);
        self.tally.count(Event::UdpTests);
        let option = UdpOption { purpose: UdpPurpose::Test, in_udp: false, nonce };
        let message = Message::Keepalive { receiver_tag, options: Options { udp: Some(option), ..Options::default() } };
        self.send_forms(now, Forms { plain: true, udp }, along(pair), &message, 0, effects);
    }

    /// A Keepalive about UDP, which is none of REAP's. False if it is not about UDP. Also notes that the peer speaks in it.
    pub(super) fn udp_message(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        addresses: Addresses,
        message: &Message,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(port) = self.carriages.port else { return false };
        let pair = LocatorPair { local: Locator(addresses.target), peer: Locator(addresses.source) };
        let (option, heard) = (message.options().udp, self.carriages.coming.is_some());
        let Some(context) = self.endpoint.context(id).filter(|context| context.may_use_udp()) else { return false };
        let (local_tag, peer_tag) = (context.local_tag, context.peer_tag);
        if heard && !option.is_some_and(|option| option.purpose == UdpPurpose::Answer) {
            self.doubt_carriage(now, rng, id, pair, false, effects);
        }
        let (Message::Keepalive { .. }, Some(option), Some(receiver_tag)) = (message, option, peer_tag) else {
            return false;
        };
        match option.purpose {
            UdpPurpose::Offer => {}
            UdpPurpose::Test if !self.carriages.answers.take(now) => {}
            UdpPurpose::Test => {
                let answer = UdpOption { purpose: UdpPurpose::Answer, ..option };
                let options = Options { udp: Some(answer), ..Options::default() };
                // Both ways, so that the answer says nothing about the way back.
                let forms = Forms { plain: true, udp: Some(UdpFlow::of(local_tag, receiver_tag).ports(port)) };
                let message = Message::Keepalive { receiver_tag, options };
                self.send_forms(now, forms, addresses.swapped(), &message, 0, effects);
            }
            UdpPurpose::Answer => {
                let carriage = self.carriages.paths.get_mut(&PathKey::of(pair));
                let found = carriage.map_or(Found::Nothing, |it| it.answered(now, option.nonce, option.in_udp));
                self.carriage_found(now, rng, id, pair, found, effects);
            }
        }
        true
    }

    fn carriage_found(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        pair: LocatorPair,
        found: Found,
        effects: &mut Vec<Effect>,
    ) {
        let path = PathKey::of(pair);
        let begun = match found {
            Found::Nothing => return,
            Found::Ask => return self.ask_carriage(now, rng, id, pair, effects),
            Found::Begun => true,
            Found::Ended => false,
        };
        self.tally.count(if begun { Event::UdpBegun } else { Event::UdpEnded });
        effects.push(Effect::Story(Story::Carriage(path, begun)));
        self.sync(id, effects);
        self.endpoint.note_for_copy(id);
        // Something came through on it, and what was in the way of the rest is known.
        self.book.confirmed(path, now);
        self.path_is_back(path, effects);
        self.reap(now, rng, id, effects, |reap, rng, out| reap.retry(now, rng, pair, out));
        self.revived(now, Sign::Peer(path.peer));
    }
}

/// The path of a packet of ours.
fn path_of(addresses: Addresses) -> PathKey {
    PathKey::of(LocatorPair { local: Locator(addresses.source), peer: Locator(addresses.target) })
}

/// Writes into a test how it came: what it says itself is nothing.
pub(super) fn note_udp(message: &mut Message, came: bool) {
    let Message::Keepalive { options: Options { udp: Some(option), .. }, .. } = message else { return };
    if option.purpose == UdpPurpose::Test {
        option.in_udp = came;
    }
}
