//! Those who mean no good: strangers, who know addresses and neither tags nor nonces; listeners, who were on the path for
//! a while, know what was said there and send it again, or make up more of it, when they have gone.

use std::net::Ipv6Addr;

use dataplane::wire::bfd::{self, State};
use dataplane::wire::ipv6::{self, protocol};
use dataplane::wire::shim6::{
    Addresses, ControlPacket, ErrorCode, ErrorMessage, LivenessOption, LocatorList, Message, Options, PayloadHeader,
    Probe, ProbeReport, ProbeState, VerificationMethod, emit_packet,
};
use dataplane::wire::{ContextTag, Locator, Ulid, UlidPair};
use rand::Rng;

use super::evil::VICTIM;
use super::host::PORT;
use super::network::is_payload;
use super::{Due, Fault, HostId, Origin, ProviderId, World, packet};

/// Somewhere else in the world.
const STRANGER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 1, 0, 0, 0, 1);
const STATES: [ProbeState; 3] = [ProbeState::Operational, ProbeState::Exploring, ProbeState::InboundOk];

/// A packet with a message in it; empty if the message does not fit, which then is no packet.
pub(super) fn to(source: Ipv6Addr, target: Ipv6Addr, message: &Message) -> Vec<u8> {
    emit_packet(Addresses { source, target }, 64, message).unwrap_or_default()
}

fn below(rng: &mut dyn Rng, bound: usize) -> usize {
    rng.next_u32() as usize % bound.max(1)
}

fn any_tag(rng: &mut dyn Rng) -> ContextTag {
    ContextTag::truncate(rng.next_u64())
}

/// Addresses as proved by their hashes.
pub(super) fn hashed(generation: u32, addresses: impl IntoIterator<Item = Ipv6Addr>) -> LocatorList {
    let entries = addresses.into_iter().map(|address| (Locator(address), VerificationMethod::Hba)).collect();
    LocatorList { generation, entries, methods_offset: 0 }
}

/// Who a stranger pretends to be, and to whom.
struct Pretence {
    /// Whose box gets it, and where.
    host: HostId,
    target: Ipv6Addr,
    /// In whose name.
    peer: HostId,
    source: Ipv6Addr,
}

impl World {
    /// A stranger sends something. Whatever it is, it changes nothing and reaches no host.
    pub fn forge_any(&mut self, rng: &mut dyn Rng) {
        let Some(pretence) = self.pretence(rng) else { return };
        let Pretence { source, target, .. } = pretence;
        let octets = match below(rng, 14) {
            0..=10 => to(source, target, &self.forged_message(&pretence, rng)),
            11 => self.forged_payload(&pretence, rng),
            _ => self.forged_error(&pretence, rng),
        };
        if !octets.is_empty() {
            self.forge(octets);
        }
    }

    fn pretence(&self, rng: &mut dyn Rng) -> Option<Pretence> {
        let host = below(rng, self.hosts.len());
        let strangers: Vec<HostId> =
            (0..self.hosts.len()).filter(|other| self.hosts[*other].site != self.hosts[host].site).collect();
        let peer = *strangers.get(below(rng, strangers.len()))?;
        let locator = |host: HostId, rng: &mut dyn Rng| {
            let locators = &self.hosts[host].locators;
            locators.get(below(rng, locators.len())).copied()
        };
        let target = locator(host, rng)?;
        let source = match below(rng, 6) {
            0 => STRANGER,
            1 => VICTIM,
            _ => locator(peer, rng)?,
        };
        Some(Pretence { host, target, peer, source })
    }

    fn forged_message(&self, pretence: &Pretence, rng: &mut dyn Rng) -> Message {
        let Pretence { host, target, peer, source } = *pretence;
        let (host, peer) = (&self.hosts[host], &self.hosts[peer]);
        let ulids = UlidPair { local: Ulid(peer.ulid), peer: Ulid(host.ulid) };
        let mut validator = vec![0; 20];
        rng.fill_bytes(&mut validator);
        // What the peer tells everybody is no secret.
        let told = Options {
            locators: Some(hashed(rng.next_u32(), peer.locators.iter().copied())),
            pds: Some(peer.pds.clone()),
            ..Options::default()
        };
        let claim = Options { ulids: Some(ulids), ..Options::default() };
        let proof = Options { ulids: Some(ulids), validator: Some(validator.clone()), ..told.clone() };
        let answer = Options { validator: Some(validator), ..Options::default() };
        let (tag, initiator_nonce) = (any_tag(rng), rng.next_u32());
        // Ours are counted up in tenths of seconds, so they are easy to guess.
        let age = below(rng, 20) as u32;
        let responder_nonce = ((self.now.0.as_millis() / 100) as u32).wrapping_sub(age);
        match below(rng, 11) {
            0 => Message::I1 { initiator_tag: tag, initiator_nonce, options: claim },
            1 => Message::R1 { initiator_nonce, responder_nonce, options: answer },
            2 | 3 => Message::I2 { initiator_tag: tag, initiator_nonce, responder_nonce, options: proof },
            4 => Message::R2 { responder_tag: tag, initiator_nonce, options: told },
            5 => Message::R1bis { packet_tag: tag, responder_nonce, options: answer },
            6 => Message::I2bis {
                initiator_tag: tag,
                initiator_nonce,
                responder_nonce,
                packet_tag: any_tag(rng),
                options: proof,
            },
            7 => Message::UpdateRequest { receiver_tag: tag, request_nonce: initiator_nonce, options: told },
            8 => Message::UpdateAck { receiver_tag: tag, request_nonce: initiator_nonce, options: Options::default() },
            9 => Message::Keepalive { receiver_tag: tag, options: Options::default() },
            _ => forged_probe(source, target, tag, rng),
        }
    }

    /// Payload with a tag nobody gave away, and a datagram in it that the host would take.
    fn forged_payload(&self, pretence: &Pretence, rng: &mut dyn Rng) -> Vec<u8> {
        let (source, target) = (self.hosts[pretence.peer].ulid, self.hosts[pretence.host].ulid);
        let whole = packet::udp(source, target, (1024, PORT), &[0; 32]);
        let header = PayloadHeader { next_header: protocol::UDP, tag: any_tag(rng) }.emit();
        let payload = [&header[..], &whole[ipv6::HEADER_LEN..]].concat();
        packet::ipv6(pretence.source, pretence.target, protocol::SHIM6, 64, &payload)
    }

    /// A router's error about a packet that nobody sent.
    fn forged_error(&self, pretence: &Pretence, rng: &mut dyn Rng) -> Vec<u8> {
        let header = PayloadHeader { next_header: protocol::UDP, tag: any_tag(rng) }.emit();
        let peer = &self.hosts[pretence.peer];
        let quoted = match below(rng, 3) {
            0 => {
                let claim = Options {
                    ulids: Some(UlidPair { local: Ulid(self.hosts[pretence.host].ulid), peer: Ulid(peer.ulid) }),
                    ..Options::default()
                };
                let message = Message::I1 { initiator_tag: any_tag(rng), initiator_nonce: 1, options: claim };
                to(pretence.target, peer.locators[0], &message)
            }
            _ => {
                let payload = [&header[..], &[0; 24]].concat();
                packet::ipv6(pretence.target, peer.locators[0], protocol::SHIM6, 60, &payload)
            }
        };
        let (kind, code, word) = [(1, 0, 0), (1, 3, 0), (2, 0, 1280), (3, 0, 0), (4, 1, 40), (4, 0, 6)][below(rng, 6)];
        let about = packet::error_about(&quoted, pretence.source, kind, code, word);
        about.unwrap_or_default()
    }

    /// Somebody begins to listen on the path of a provider.
    pub fn listen(&mut self, provider: ProviderId) {
        self.providers[provider].recorder.get_or_insert_default();
    }

    /// Something that was heard at a provider some time ago is sent again, from far away.
    pub fn replay(&mut self, provider: ProviderId, rng: &mut dyn Rng) {
        let Some(octets) = self.recorded(provider, rng) else { return };
        self.faults.count(if is_payload(&octets) { Fault::ReplayedPayload } else { Fault::ReplayedControl });
        self.later(self.now, Due::AtCore(octets, Origin::Plain));
    }

    fn recorded(&self, provider: ProviderId, rng: &mut dyn Rng) -> Option<Vec<u8>> {
        let heard = self.providers[provider].recorder.as_ref()?;
        heard.get(below(rng, heard.len())).cloned()
    }

    /// Who has heard a packet makes up another one with its tag and addresses, or an answer to it.
    pub fn pretend(&mut self, provider: ProviderId, rng: &mut dyn Rng) {
        let Some(octets) = self.recorded(provider, rng) else { return };
        let Some((tag, addresses)) = tag_in(&octets) else { return };
        let Addresses { source, target } = addresses;
        let mut validator = vec![0; 20];
        rng.fill_bytes(&mut validator);
        let answer = Options { validator: Some(validator), ..Options::default() };
        let none = Options::default;
        let (from, at, message) = match below(rng, 8) {
            0 | 1 => {
                // What boxes say of their paths is turned into its opposite.
                let liveness = liveness_in(&octets).map(|said| contradicted(said, rng));
                let options = Options { liveness, ..none() };
                (source, target, Message::Keepalive { receiver_tag: tag, options })
            }
            2 | 3 => (source, target, forged_probe(source, target, tag, rng)),
            4 => {
                let request_nonce = rng.next_u32();
                (source, target, Message::UpdateAck { receiver_tag: tag, request_nonce, options: none() })
            }
            5 => {
                let Some(update) = self.lesser_list(source, tag, rng) else { return };
                (source, target, update)
            }
            6 => {
                let codes = [ErrorCode::UnknownMessage, ErrorCode::CriticalOption, ErrorCode::VerificationMethod];
                let code = codes[below(rng, 3)];
                (target, source, Message::Error(ErrorMessage::for_packet(code, 42, &octets)))
            }
            _ => {
                let responder_nonce = rng.next_u32();
                (target, source, Message::R1bis { packet_tag: tag, responder_nonce, options: answer })
            }
        };
        self.faults.count(Fault::Insider);
        self.later(self.now, Due::AtCore(to(from, at, &message), Origin::Plain));
    }

    /// Only some of a host's own locators, as it might itself have told.
    fn lesser_list(&self, source: Ipv6Addr, receiver_tag: ContextTag, rng: &mut dyn Rng) -> Option<Message> {
        let host = &self.hosts[self.host_at(source)?];
        let one = host.locators[below(rng, host.locators.len())];
        let options = Options {
            locators: Some(hashed(rng.next_u32(), [one])),
            pds: Some(host.pds.clone()),
            ..Options::default()
        };
        Some(Message::UpdateRequest { receiver_tag, request_nonce: rng.next_u32(), options })
    }
}

/// A probe that reports itself, and gives back nonces that nobody sent.
fn forged_probe(source: Ipv6Addr, target: Ipv6Addr, tag: ContextTag, rng: &mut dyn Rng) -> Message {
    let report =
        |source, target, nonce| ProbeReport { source: Locator(source), target: Locator(target), nonce, data: 0 };
    Message::Probe(Probe {
        receiver_tag: tag,
        state: STATES[below(rng, 3)],
        sent: vec![report(source, target, rng.next_u32())],
        received: vec![report(target, source, rng.next_u32())],
        options: Options::default(),
    })
}

/// What a packet says of its path, if it does.
fn liveness_in(octets: &[u8]) -> Option<LivenessOption> {
    ControlPacket::parse(octets).ok()?.message.options().liveness.filter(|option| option.packet.is_some())
}

/// The same in another state.
fn contradicted(said: LivenessOption, rng: &mut dyn Rng) -> LivenessOption {
    let state = State::ALL[below(rng, State::ALL.len())];
    LivenessOption { packet: said.packet.map(|packet| bfd::Packet { state, ..packet }), ..said }
}

/// The tag in a packet that has one for its receiver.
fn tag_in(octets: &[u8]) -> Option<(ContextTag, Addresses)> {
    if let Ok(ControlPacket { addresses, message, .. }) = ControlPacket::parse(octets) {
        let tag = match message {
            Message::UpdateRequest { receiver_tag, .. }
            | Message::UpdateAck { receiver_tag, .. }
            | Message::Keepalive { receiver_tag, .. } => receiver_tag,
            Message::Probe(probe) => probe.receiver_tag,
            _ => return None,
        };
        return Some((tag, addresses));
    }
    let view = ipv6::View::new(octets).ok()?;
    let place = view.shim_header().ok()??.place;
    let header = PayloadHeader::parse(view.from_offset(place.offset)).ok()?;
    Some((header.tag, Addresses { source: view.source(), target: view.target() }))
}
