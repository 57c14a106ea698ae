//! What an ICMPv6 error about a packet of ours becomes (RFC 5533 §8).
//!
//! The packet it quotes has locators and a payload header that the host never saw. Both are taken out of the quote, and
//! the error goes to the host as if the shim were not there; a Packet Too Big is made smaller by the header. Errors
//! about a path are a reason to test it, and go to the host only when there is no other path to try.

use dataplane::wire::ipv6::{self, protocol};
use dataplane::wire::shim6::PayloadHeader;
use dataplane::wire::{FlowLabel, Locator, LocatorPair, checksum, ethernet};
use rand::Rng;

use super::{Effect, Engine, Event};
use crate::shim6::ContextId;
use crate::time::Instant;

const DESTINATION_UNREACHABLE: u8 = 1;
const PACKET_TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
const PARAMETER_PROBLEM: u8 = 4;
const PORT_UNREACHABLE: u8 = 4;
const UNRECOGNIZED_NEXT_HEADER: u8 = 1;
/// Type, code, checksum and the word after them.
const ICMP_HEADER: usize = 8;

pub(super) struct Quoted {
    id: ContextId,
    /// Offset of the payload header in the quoted packet; none when a flow label stood for it.
    place: Option<ipv6::chain::Place>,
}

impl Quoted {
    /// Whether a Parameter Problem points at the payload header or at the field that names it: both are the shim's, and
    /// the host, which sent neither, would take it for its own packet's fault (R5533-238).
    fn is_about_shim(&self, icmp: &[u8]) -> bool {
        let Some(place) = self.place else { return false };
        let header = place.offset..place.offset + PayloadHeader::LEN;
        let pointer = icmp.get(4..ICMP_HEADER).and_then(|word| word.try_into().ok()).map(u32::from_be_bytes);
        let pointer = pointer.and_then(|pointer| usize::try_from(pointer).ok());
        pointer.is_some_and(|pointer| pointer == place.predecessor || header.contains(&pointer))
    }
}

impl Engine {
    /// An ICMPv6 error that a provider's network sent to one of our locators.
    pub(super) fn icmp_error(&mut self, now: Instant, rng: &mut dyn Rng, frame: &[u8], effects: &mut Vec<Effect>) {
        let Some(packet) = frame.get(ethernet::HEADER_LEN..) else { return };
        let Some((view, icmp)) = error_in(packet) else { return self.tally.count(Event::IcmpNotOurs) };
        let (kind, code) = (icmp[0], icmp[1]);
        let quote = &icmp[ICMP_HEADER..];
        if kind == PARAMETER_PROBLEM && code == UNRECOGNIZED_NEXT_HEADER {
            let mut out = Vec::new();
            let verdict = self.endpoint.parameter_problem(now, quote, &mut out);
            if verdict == crate::shim6::Verdict::Accepted {
                self.tally.count(Event::IcmpNoSupport);
                return self.follow(now, rng, out, effects);
            }
        }
        let Some(quoted) = self.quoted_context(quote) else { return self.tally.count(Event::IcmpNotOurs) };
        let about_path = match kind {
            DESTINATION_UNREACHABLE => code != PORT_UNREACHABLE,
            TIME_EXCEEDED => true,
            PARAMETER_PROBLEM => quoted.is_about_shim(icmp),
            _ => false,
        };
        if about_path && self.has_alternative(quoted.id) {
            self.tally.count(Event::IcmpActedOn);
            return self.suspect(now, rng, quoted.id, effects);
        }
        if let Some((host, translated)) = self.translate_error(&view, icmp, &quoted) {
            self.tally.count(Event::IcmpTranslated);
            let port = self.lan_port;
            self.send_packet(now, port, host, &translated, effects);
        }
    }

    /// The context whose packet is quoted: by the peer's tag, or the label that stood for it, and both locators; never by
    /// our own tag (RFC 5533 §8).
    pub(super) fn quoted_context(&self, quote: &[u8]) -> Option<Quoted> {
        let view = ipv6::View::of_quote(quote).ok()?;
        let pair = LocatorPair { local: Locator(view.source()), peer: Locator(view.target()) };
        let Some(shim) = view.shim_header().ok()? else {
            let context = self.endpoint.find_by_peer_label(FlowLabel::truncate(view.flow_label())?, pair)?;
            return Some(Quoted { id: context.id, place: None }).filter(|_| context.local_label.is_some());
        };
        let header = PayloadHeader::parse(view.from_offset(shim.place.offset)).ok()?;
        let context = self.endpoint.find_by_peer(header.tag, pair)?;
        Some(Quoted { id: context.id, place: Some(shim.place) })
    }

    fn has_alternative(&self, id: ContextId) -> bool {
        let Some(context) = self.endpoint.context(id) else { return false };
        let proved =
            context.peer_locators.iter().filter(|known| known.verified && known.locator.0 != context.ulids.peer.0);
        context.host.locators.len() * proved.count() > 1
    }

    /// The error as the host would have got it without the shim, and the host's address.
    fn translate_error(
        &self,
        view: &ipv6::View<'_>,
        icmp: &[u8],
        quoted: &Quoted,
    ) -> Option<(std::net::Ipv6Addr, Vec<u8>)> {
        let context = self.endpoint.context(quoted.id)?;
        let (host, peer) = (context.ulids.local.0, context.ulids.peer.0);
        let mut inner = icmp.get(ICMP_HEADER..)?.to_vec();
        let removed = match quoted.place {
            Some(place) => {
                restore_quote(&mut inner, place)?;
                PayloadHeader::LEN as u32
            }
            None => {
                // The host may have set another label, which nobody knows any more.
                inner.get_mut(1..4)?.iter_mut().zip([0xf0, 0, 0]).for_each(|(octet, kept)| *octet &= kept);
                0
            }
        };
        inner.get_mut(8..24)?.copy_from_slice(&host.octets());
        inner.get_mut(24..40)?.copy_from_slice(&peer.octets());
        let mut message = icmp.get(..ICMP_HEADER)?.to_vec();
        if message[0] == PACKET_TOO_BIG {
            let mtu = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
            // RFC 5533 §8, and never below what every IPv6 link carries (D27).
            let mtu = mtu.saturating_sub(removed).max(ipv6::MIN_MTU as u32);
            message[4..8].copy_from_slice(&mtu.to_be_bytes());
        }
        if message[0] == PARAMETER_PROBLEM {
            let pointer = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
            let behind = quoted.place.is_some_and(|place| pointer as usize >= place.offset);
            let moved = if behind { pointer.saturating_sub(removed) } else { pointer };
            message[4..8].copy_from_slice(&moved.to_be_bytes());
        }
        message[2..4].fill(0);
        message.extend_from_slice(&inner);
        let source = view.source();
        let sum = checksum::upper_layer(source, host, protocol::ICMPV6, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let header = ipv6::Repr {
            source,
            target: host,
            next_header: protocol::ICMPV6,
            payload_len: u16::try_from(message.len()).ok()?,
            hop_limit: view.hop_limit().checked_sub(1).filter(|left| *left > 0)?,
            traffic_class: view.traffic_class(),
            flow_label: view.flow_label(),
        };
        Some((host, [&header.emit()[..], &message].concat()))
    }
}

/// The ICMPv6 error in a packet, if it is one with a whole header and a right checksum.
fn error_in(packet: &[u8]) -> Option<(ipv6::View<'_>, &[u8])> {
    let view = ipv6::View::new(packet).ok()?;
    let upper = view.upper_layer().ok()?;
    let icmp = view.from_offset(upper.place.offset);
    let whole = icmp.len() > ICMP_HEADER && upper.place.next_header == protocol::ICMPV6 && icmp[0] < 128;
    let right = checksum::upper_layer_verifies(view.source(), view.target(), protocol::ICMPV6, icmp);
    (whole && right).then_some((view, icmp))
}

/// Takes the payload header out of a quoted packet. The quote may be cut short, so its length field is set by hand.
fn restore_quote(quote: &mut Vec<u8>, place: ipv6::chain::Place) -> Option<()> {
    let length = u16::from_be_bytes([*quote.get(4)?, *quote.get(5)?]);
    let header = PayloadHeader::parse(quote.get(place.offset..)?).ok()?;
    *quote.get_mut(place.predecessor)? = header.next_header;
    quote.get_mut(4..6)?.copy_from_slice(&length.checked_sub(PayloadHeader::LEN as u16)?.to_be_bytes());
    quote.drain(place.offset..place.offset + PayloadHeader::LEN);
    Some(())
}
