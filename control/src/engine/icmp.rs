//! What an ICMPv6 error about a packet of ours becomes (RFC 5533 §8).
//!
//! The packet it quotes has locators and a payload header that the host never saw. Both are taken out of the quote, and
//! the error goes to the host as if the shim were not there; a Packet Too Big is made smaller by the header. Errors
//! about a path are a reason to test it, and go to the host only when there is no other path to try, or when the operator
//! wants no such hints, or all errors there. What becomes of the octets is in [`quote`].

use dataplane::natv6;
use dataplane::snapshot::PortId;
use dataplane::wire::ipv6::{self, protocol};
use dataplane::wire::shim6::PayloadHeader;
use dataplane::wire::{FlowLabel, Locator, LocatorPair, checksum, ethernet};
use rand::Rng;

use super::quote::{self, DESTINATION_UNREACHABLE, ICMP_HEADER, PACKET_TOO_BIG, PARAMETER_PROBLEM, TIME_EXCEEDED};
use super::{Effect, Engine, Event};
use crate::config::prefix::is_routable;
use crate::shim6::ContextId;
use crate::time::Instant;

const PORT_UNREACHABLE: u8 = 4;
const UNRECOGNIZED_NEXT_HEADER: u8 = 1;

pub(super) struct Quoted {
    id: ContextId,
    /// The addresses of the quoted packet.
    pair: LocatorPair,
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
    /// `port` is where it came in, if it did.
    pub(super) fn icmp_error(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        port: Option<PortId>,
        frame: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        let Some(packet) = frame.get(ethernet::HEADER_LEN..) else { return };
        let Some((view, icmp)) = error_in(packet) else { return self.tally.count(Event::IcmpNotOurs) };
        let wrapped = self.snapshot.udp_port.and_then(|port| quote::out_of_udp(icmp, port));
        let (icmp, wrapped) = (wrapped.as_deref().unwrap_or(icmp), wrapped.is_some());
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
        let Some(quoted) = self.quoted_context(quote) else {
            // Workers send on what is about a translated packet; what may have gone by label they ask about first.
            return match port.filter(|_| self.snapshot.nat.is_some() && (wrapped || has_label(quote))) {
                Some(port) => effects.push(Effect::Plain(port, frame.to_vec())),
                None => self.tally.count(Event::IcmpNotOurs),
            };
        };
        let about_path = match kind {
            // A port of the host's, or the box's own: nobody listens there.
            DESTINATION_UNREACHABLE => code != PORT_UNREACHABLE || wrapped,
            TIME_EXCEEDED => true,
            PARAMETER_PROBLEM => quoted.is_about_shim(icmp),
            _ => false,
        };
        if kind == PACKET_TOO_BIG {
            self.learn_mtu(&quoted, icmp, effects);
        }
        if about_path && self.hints.icmp && self.has_alternative(quoted.id) {
            let acted = self.hint(now, rng, quoted.id, effects);
            if acted {
                self.tally.count(Event::IcmpActedOn);
            }
            // R5533-236: the host hears of all on which nothing was done. A hop limit that ran out is as often the host's own
            // doing, which it waits to hear of. R5533-237: it may want to know all the same.
            if acted && kind != TIME_EXCEEDED && !self.icmp_errors_to_hosts {
                return;
            }
        }
        if wrapped && (kind, code) == (DESTINATION_UNREACHABLE, PORT_UNREACHABLE) {
            return self.tally.count(Event::IcmpNotOurs);
        }
        let Some((host, translated)) = self.translate_error(&view, icmp, &quoted) else {
            return self.tally.count(Event::IcmpNotOurs);
        };
        self.tally.count(Event::IcmpTranslated);
        let port = self.lan_port;
        self.send_packet(now, port, host, &translated, effects);
    }

    /// The context whose packet is quoted: by the peer's tag, or the label that stood for it, and both locators; never by
    /// our own tag (RFC 5533 §8).
    pub(super) fn quoted_context(&self, quote: &[u8]) -> Option<Quoted> {
        let view = ipv6::View::of_quote(quote).ok()?;
        let pair = LocatorPair { local: Locator(view.source()), peer: Locator(view.target()) };
        let Some(shim) = view.shim_header().ok()? else {
            let context = self.endpoint.find_by_peer_label(FlowLabel::truncate(view.flow_label())?, pair)?;
            return Some(Quoted { id: context.id, pair, place: None }).filter(|_| context.local_label.is_some());
        };
        let header = PayloadHeader::parse(view.from_offset(shim.place.offset)).ok()?;
        let context = self.endpoint.find_by_peer(header.tag, pair)?;
        Some(Quoted { id: context.id, pair, place: Some(shim.place) })
    }

    /// A path that has no room for the payload header behind 1280 octets: the host will go on sending as many, since no host
    /// need send less, so the worker cuts them (proxy note 8). Believed until the context takes another path.
    fn learn_mtu(&mut self, quoted: &Quoted, icmp: &[u8], effects: &mut Vec<Effect>) {
        let Some(mtu) = icmp.get(4..ICMP_HEADER).and_then(|word| word.try_into().ok()).map(u32::from_be_bytes) else {
            return;
        };
        // A label adds nothing that there might be no room for.
        let narrow = quoted.place.is_some() && quote::is_narrow(mtu);
        if let Some(attached) = self.attached.get_mut(&quoted.id).filter(|_| narrow) {
            attached.narrow = Some(quoted.pair);
            self.endpoint.note_for_copy(quoted.id);
            self.sync(quoted.id, effects);
        }
    }

    pub(super) fn has_alternative(&self, id: ContextId) -> bool {
        let Some(context) = self.endpoint.context(id) else { return false };
        let usable = |locator| is_routable(locator) && !self.is_identifier(locator);
        let proved = context.peer_locators.iter().filter(|known| known.verified && usable(known.locator.0));
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
        let host = context.ulids.local.0;
        let mut message = quote::without_shim(icmp, quoted.place, &context.ulids)?;
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
        let mut packet = [&header.emit()[..], &message].concat();
        // To the peer the host is a locator, so it is in what the peer's network quotes; the host knows nothing of that.
        let inside = self.endpoint.inside(context.ulids).local.0;
        if inside != host {
            natv6::to_inside(&mut packet, host, inside).ok()?;
        }
        Some((inside, packet))
    }
}

/// Whether a quoted packet could have gone by its label: as workers see it, so that nothing goes round in circles.
fn has_label(quote: &[u8]) -> bool {
    ipv6::View::of_quote(quote).is_ok_and(|quote| quote.flow_label() != 0 && quote.shim_header() == Ok(None))
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
