//! Control messages of peers: what is in a packet, and whom it concerns (RFC 5533 §12).

use dataplane::wire::ethernet;
use dataplane::wire::ipv6;
use dataplane::wire::shim6::{Addresses, ControlPacket, Message, PacketError, ParseError};
use rand::Rng;

use super::{Effect, Engine, Event, Story, label, udp};
use crate::shim6::{Incoming, Unreadable};
use crate::time::Instant;

impl Engine {
    /// Something took a part of what may come from its source, whatever is in it.
    pub(super) fn watches_hear(&mut self, now: Instant, packet: &[u8], is_message: bool) {
        if let Some(source) = packet.get(8..).and_then(<[u8]>::first_chunk) {
            self.watches.heard(now, *source, is_message);
        }
    }

    /// A packet that workers take for a control message.
    pub(super) fn control_message(&mut self, now: Instant, rng: &mut dyn Rng, frame: &[u8], effects: &mut Vec<Effect>) {
        let Some(packet) = frame.get(ethernet::HEADER_LEN..) else { return };
        let Some((packet, udp)) = self.out_of_udp(packet) else { return };
        let packet = &*packet;
        let mut parsed = ControlPacket::parse(packet);
        if let Ok(parsed) = &mut parsed {
            label::note_label(&mut parsed.message, packet);
            if udp.is_some() && !self.may_come_in_udp(&parsed.message) {
                return self.tally.count(Event::UdpUnwelcome);
            }
            udp::note_udp(&mut parsed.message, udp.is_some());
        }
        let (addresses, message, shim6_offset) = match &parsed {
            Ok(parsed) => (parsed.addresses, Ok(&parsed.message), parsed.offset),
            Err(PacketError::Message { error, offset }) => match addresses_of(packet) {
                Some(addresses) => (addresses, Err(unreadable(*error)), *offset),
                None => return,
            },
            Err(error) => return self.tally.unreadable(*error),
        };
        if let Err(PacketError::Message { error, .. }) = &parsed {
            self.tally.unreadable_message(*error);
        }
        if let Ok(Message::Error(error)) = message {
            effects.push(Effect::Story(Story::PeerError(error.code.code(), error.pointer)));
        }
        let mut out = std::mem::take(&mut self.outputs);
        let incoming = Incoming { addresses, message, ipv6_packet: packet, shim6_offset };
        self.carriages.came(addresses, udp);
        let verdict = self.endpoint.receive(now, rng, incoming, &mut out);
        self.tally.shim6(verdict);
        self.follow(now, rng, out, effects);
        self.carriages.went();
    }
}

fn addresses_of(packet: &[u8]) -> Option<Addresses> {
    let view = ipv6::View::new(packet).ok()?;
    Some(Addresses { source: view.source(), target: view.target() })
}

fn unreadable(error: ParseError) -> Unreadable {
    match error {
        ParseError::UnknownType { pointer, .. } => Unreadable::UnknownType { pointer },
        ParseError::CriticalOption { pointer } => Unreadable::CriticalOption { pointer },
        _ => Unreadable::Malformed,
    }
}
