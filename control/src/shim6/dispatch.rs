//! Which context gets a packet, and what goes back when none does (RFC 5533 §12.3, §12.4).

use dataplane::wire::shim6::{Addresses, ErrorCode, ErrorMessage, Message, Options, ParseError};
use dataplane::wire::{ContextTag, LocatorPair, UlidPair};
use rand::Rng;

use super::context::{Context, ContextId, State, incoming_pair, may_be_locator, outgoing};
use super::endpoint::Endpoint;
use super::establish::Offer;
use super::limits::Kind;
use super::lost::Asker;
use super::output::{Answer, DropReason, FailReason, Output, Verdict};
use super::peer::Refusal;
use super::quote::{self, Quote, kind};
use crate::time::Instant;

/// A control packet for one of our locators.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Source and destination of the IPv6 header.
    pub addresses: Addresses,
    /// The message, or why it is none. Checksum and lengths have been checked.
    pub message: Result<&'a Message, Unreadable>,
    /// The whole packet from its IPv6 header on, to be quoted in Errors.
    pub ipv6_packet: &'a [u8],
    /// Where in it the Shim6 header starts.
    pub shim6_offset: usize,
}

/// Why octets are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// No such message type: Error 0.
    UnknownType {
        /// Octet of the type, counted from the Shim6 header.
        pointer: usize,
    },
    /// An option we must understand and do not: Error 1.
    CriticalOption {
        /// First octet of the option, counted from the Shim6 header.
        pointer: usize,
    },
    /// A Responder Validator is missing where there must be one: silence.
    NoValidator,
    /// Checksum, lengths or option contents are wrong: silence.
    Malformed,
}

impl From<ParseError> for Unreadable {
    fn from(error: ParseError) -> Unreadable {
        match error {
            ParseError::UnknownType { pointer, .. } => Unreadable::UnknownType { pointer },
            ParseError::CriticalOption { pointer } => Unreadable::CriticalOption { pointer },
            ParseError::MissingValidator => Unreadable::NoValidator,
            ParseError::Truncated
            | ParseError::BadDiscriminator
            | ParseError::Checksum
            | ParseError::TooShort(_)
            | ParseError::BadProbe
            | ParseError::MalformedOption { .. }
            | ParseError::DuplicateOption(_) => Unreadable::Malformed,
        }
    }
}

/// What finds the context of an I1, I2 or I2bis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) ulids: UlidPair,
    pub(super) fork: u32,
}

impl Endpoint {
    /// Receives a control message.
    pub fn receive(&mut self, now: Instant, rng: &mut dyn Rng, packet: Incoming<'_>, out: &mut Vec<Output>) -> Verdict {
        if !packet.addresses.are_unicast() {
            return Verdict::Dropped(DropReason::BadAddress);
        }
        let verdict = match packet.message {
            Ok(message) => self.receive_message(now, rng, &packet, message, out),
            Err(Unreadable::UnknownType { pointer }) => {
                let code = ErrorCode::UnknownMessage;
                self.refuse(now, &packet, Refusal::Error { code, pointer }, out)
            }
            Err(Unreadable::CriticalOption { pointer }) => {
                let code = ErrorCode::CriticalOption;
                self.refuse(now, &packet, Refusal::Error { code, pointer }, out)
            }
            Err(Unreadable::NoValidator) => Verdict::Dropped(DropReason::NoValidator),
            Err(Unreadable::Malformed) => Verdict::Dropped(DropReason::Malformed),
        };
        // Dropped because there are so many: answers would be as many.
        let paced = matches!(
            verdict,
            Verdict::Dropped(DropReason::RateLimited | DropReason::ToldAlready | DropReason::TooManyWaiting)
        );
        if self.config.debug_errors && matches!(verdict, Verdict::Dropped(_)) && !paced {
            self.refuse(now, &packet, Refusal::Error { code: ErrorCode::Other(120), pointer: 0 }, out);
        }
        verdict
    }

    fn receive_message(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        packet: &Incoming<'_>,
        message: &Message,
        out: &mut Vec<Output>,
    ) -> Verdict {
        match message {
            Message::I1 { initiator_tag, initiator_nonce, options } => {
                self.receive_i1(now, packet, *initiator_tag, *initiator_nonce, options, out)
            }
            Message::R1 { initiator_nonce, responder_nonce, options } => {
                self.receive_r1(now, rng, packet, (*initiator_nonce, *responder_nonce), options, out)
            }
            Message::I2 { initiator_tag: tag, initiator_nonce: nonce, responder_nonce, options } => {
                let offer = Offer { tag: *tag, nonce: *nonce, responder_nonce: *responder_nonce, packet_tag: None };
                self.receive_i2(now, rng, packet, offer, options, out)
            }
            Message::R2 { responder_tag, initiator_nonce, options } => {
                self.receive_r2(now, rng, packet, (*responder_tag, *initiator_nonce), options, out)
            }
            Message::R1bis { packet_tag, responder_nonce, options } => {
                self.receive_r1bis(now, rng, packet, (*packet_tag, *responder_nonce), options, out)
            }
            Message::I2bis { initiator_tag: tag, initiator_nonce: nonce, responder_nonce, packet_tag, options } => {
                let lost = Some(*packet_tag);
                let offer = Offer { tag: *tag, nonce: *nonce, responder_nonce: *responder_nonce, packet_tag: lost };
                self.receive_i2bis(now, rng, packet, (offer, *packet_tag), options, out)
            }
            Message::UpdateRequest { receiver_tag, request_nonce, options } => {
                match self.tagged(now, packet, *receiver_tag, out) {
                    Ok(id) => self.receive_update_request(now, rng, packet, id, *request_nonce, options, out),
                    Err(verdict) => verdict,
                }
            }
            Message::UpdateAck { receiver_tag, request_nonce, .. } => {
                match self.tagged(now, packet, *receiver_tag, out) {
                    Ok(id) => self.receive_update_ack(id, *request_nonce, out),
                    Err(verdict) => verdict,
                }
            }
            Message::Keepalive { receiver_tag, .. } => match self.tagged(now, packet, *receiver_tag, out) {
                // A Keepalive is valid in ESTABLISHED alone (RFC 5534 §5.1).
                Ok(id) if self.store.get(id).is_some_and(|context| context.state == State::Established) => {
                    self.touch(id);
                    out.push(Output::Reap { id, addresses: packet.addresses, message: message.clone() });
                    Verdict::Accepted
                }
                Ok(_) => Verdict::Dropped(DropReason::WrongState),
                Err(verdict) => verdict,
            },
            Message::Probe(probe) => match self.tagged(now, packet, probe.receiver_tag, out) {
                Ok(id) => {
                    self.touch(id);
                    out.push(Output::Reap { id, addresses: packet.addresses, message: message.clone() });
                    Verdict::Accepted
                }
                Err(verdict) => verdict,
            },
            Message::Error(error) => self.receive_error(error, out),
        }
    }

    /// ULIDs and fork of an I1, I2 or I2bis: from the options, else from the addresses, else 0 (§7.9).
    pub(super) fn key(&self, packet: &Incoming<'_>, options: &Options) -> Result<Key, DropReason> {
        let ulids = match options.ulids {
            Some(senders) => senders.mirrored(),
            None => {
                let pair = incoming_pair(packet.addresses);
                UlidPair { local: dataplane::wire::Ulid(pair.local.0), peer: dataplane::wire::Ulid(pair.peer.0) }
            }
        };
        if !may_be_locator(ulids.peer.0) || ulids.peer == ulids.local {
            return Err(DropReason::BadAddress);
        }
        // Packets of its contexts would enter the site as if they were from within.
        if self.inside.iter().any(|own| own.contains(ulids.peer.0)) {
            return Err(DropReason::OwnUlid);
        }
        let fork = options.fork.unwrap_or(0);
        let context = self.store.by_ulids(ulids, fork);
        let host = if context.is_some() { self.host_at(ulids.local) } else { self.host_for_new(ulids.local) };
        let host = host.ok_or(DropReason::UnknownHost)?;
        let target = packet.addresses.target;
        let known = || context.is_some_and(|context| context.has_local(target));
        if host.has(target) || known() { Ok(Key { ulids, fork }) } else { Err(DropReason::ForeignTarget) }
    }

    /// The context of a message that carries our tag (§12.4, §10.4), or what becomes of the message without it.
    fn tagged(
        &mut self,
        now: Instant,
        packet: &Incoming<'_>,
        tag: ContextTag,
        out: &mut Vec<Output>,
    ) -> Result<ContextId, Verdict> {
        let addresses = packet.addresses;
        let Some(context) = self.store.by_local_tag(tag) else {
            return Err(self.send_r1bis(now, tag, addresses, Asker::Message, out));
        };
        let (id, state, has_pair) = (context.id, context.state, context.has_pair(addresses));
        // In I1-SENT nothing is known of the peer's locators, so a wrong one cannot be told from a right one (D41).
        if state == State::I1Sent {
            return Err(Verdict::Dropped(DropReason::WrongState));
        }
        if !has_pair {
            return Err(self.send_r1bis(now, tag, addresses, Asker::Message, out));
        }
        match state {
            State::Established => Ok(id),
            State::I2bisSent => {
                self.resend(now, id, out);
                Ok(id)
            }
            // Without the peer's tag nothing can be answered; the peer will ask again (D07).
            State::I2Sent if self.resend(now, id, out) => Err(Verdict::Answered(Answer::I2)),
            State::I2Sent => Err(Verdict::Dropped(DropReason::RateLimited)),
            State::I1Sent | State::Idle | State::EFailed | State::NoSupport => {
                Err(Verdict::Dropped(DropReason::WrongState))
            }
        }
    }

    /// Sends I2 or I2bis once more, since the peer shows that it is established: our R2 was probably lost. Not more
    /// often than once in `resend_interval`, as this happens for each packet of a flow.
    fn resend(&mut self, now: Instant, id: ContextId, out: &mut Vec<Output>) -> bool {
        let interval = self.config.resend_interval;
        let Some(context) = self.store.get(id) else { return false };
        let due = context.exchange.iter().any(|exchange| now.since(exchange.sent) >= interval);
        due && self.repeat(now, id, out)
    }

    /// Sends the current I2 or I2bis again.
    pub(super) fn repeat(&mut self, now: Instant, id: ContextId, out: &mut Vec<Output>) -> bool {
        let Some((context, exchange)) = self.store.get(id).and_then(|c| Some((c, c.exchange.as_deref()?))) else {
            return false;
        };
        let message = match context.state {
            State::I2Sent => self.i2(id, exchange.pair, exchange.responder_nonce, &exchange.validator),
            State::I2bisSent => self.i2bis(id, exchange),
            State::Idle | State::I1Sent | State::Established | State::EFailed | State::NoSupport => None,
        };
        let (Some(message), addresses) = (message, outgoing(exchange.pair)) else { return false };
        if let Some(exchange) = self.store.get_mut(id).and_then(|context| context.exchange.as_deref_mut()) {
            exchange.sent = now;
        }
        out.push(Output::Send { context: Some(id), addresses, message });
        true
    }

    /// Payload came with a tag that leads nowhere (§12.2, §7.17). `pair` is that of the packet, seen from here.
    pub fn payload_without_context(
        &mut self,
        now: Instant,
        tag: ContextTag,
        pair: LocatorPair,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let addresses = outgoing(pair).swapped();
        if !addresses.are_unicast() {
            return Verdict::Dropped(DropReason::BadAddress);
        }
        if self.store.by_local_tag(tag).is_some() {
            // The context came into being while the packet was on its way here.
            return Verdict::Dropped(DropReason::WrongState);
        }
        self.send_r1bis(now, tag, addresses, Asker::Payload, out)
    }

    /// Payload came with the tag of the context (§12.2). `Accepted` means that it is to be restored and delivered.
    pub fn payload_received(&mut self, now: Instant, id: ContextId, out: &mut Vec<Output>) -> Verdict {
        match self.store.get(id).map(|context| context.state) {
            Some(State::Established) => Verdict::Accepted,
            Some(State::I2Sent | State::I2bisSent) => {
                self.resend(now, id, out);
                Verdict::Accepted
            }
            Some(State::I1Sent) => Verdict::Dropped(DropReason::WrongState),
            Some(State::Idle | State::EFailed | State::NoSupport) | None => Verdict::Dropped(DropReason::NoContext),
        }
    }

    /// ICMPv6 type 4 code 1 came, about the packet quoted (§7.8). If that is an I1 of ours which is still waiting, the
    /// peer does not speak Shim6 (D05); then the ICMPv6 message has been dealt with and must not be passed on.
    pub fn parameter_problem(&mut self, now: Instant, quoted: &[u8], out: &mut Vec<Output>) -> Verdict {
        let Some(quote) = quote::read(quoted).filter(|quote| quote.kind == kind::I1) else {
            return Verdict::Dropped(DropReason::NoContext);
        };
        let Some(context) = self.quoted_exchange(&quote) else {
            return Verdict::Dropped(DropReason::NoContext);
        };
        if context.state != State::I1Sent {
            return Verdict::Dropped(DropReason::WrongState);
        }
        let id = context.id;
        self.fail(now, id, FailReason::NoSupport, out);
        Verdict::Accepted
    }

    /// §5.14: an Error is never answered; its context is that of the packet in error (§12.4; D19).
    fn receive_error(&mut self, error: &ErrorMessage, out: &mut Vec<Output>) -> Verdict {
        let context = quote::read(&error.packet).and_then(|quote| match quote.kind {
            kind::I1 | kind::I2 | kind::I2BIS => self.quoted_exchange(&quote).map(|context| context.id),
            kind::UPDATE_REQUEST | kind::UPDATE_ACK | kind::KEEPALIVE | kind::PROBE => {
                let pair = incoming_pair(quote.addresses.swapped());
                self.find_by_peer(quote.tag, pair).map(|context| context.id)
            }
            kind::R2 => {
                let sent = self.store.by_local_tag(quote.tag);
                sent.filter(|context| context.has_pair(quote.addresses.swapped())).map(|context| context.id)
            }
            _ => None,
        });
        out.push(Output::ErrorReceived { context, code: error.code, pointer: error.pointer });
        Verdict::Accepted
    }

    /// The context that sent the quoted I1, I2 or I2bis: tag, nonce and addresses must all be those of its exchange.
    fn quoted_exchange(&self, quote: &Quote) -> Option<&Context> {
        let pair = incoming_pair(quote.addresses.swapped());
        self.store.by_local_tag(quote.tag).filter(|context| {
            context.exchange.iter().any(|exchange| exchange.nonce == quote.nonce && exchange.used.contains(&pair))
        })
    }

    /// Does not process a message, with or without an Error to its sender (§5.14). Never an Error for an Error (D16).
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        packet: &Incoming<'_>,
        refusal: Refusal,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let (code, pointer) = match refusal {
            Refusal::Drop(reason) => return Verdict::Dropped(reason),
            Refusal::Error { code, pointer } => (code, pointer),
            Refusal::Later(job) => return self.put_aside(packet, job),
        };
        let is_error = matches!(packet.message, Ok(Message::Error(_)))
            || quote::kind_at(packet.ipv6_packet, packet.shim6_offset) == Some(kind::ERROR);
        if is_error {
            return Verdict::Dropped(DropReason::Malformed);
        }
        if !self.limiter.allow(now, Kind::Error, packet.addresses.source) {
            return Verdict::Dropped(DropReason::RateLimited);
        }
        let error = ErrorMessage::for_packet(code, packet.shim6_offset + pointer, packet.ipv6_packet);
        let (addresses, message) = (packet.addresses.swapped(), Message::Error(error));
        out.push(Output::Send { context: None, addresses, message });
        Verdict::Answered(Answer::Error(code))
    }
}
