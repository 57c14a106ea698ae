//! A peer that lies about where it is, to have packets sent to somebody who never asked for them (RFC 4218 §4.1.2).
//!
//! It speaks Shim6 itself, at an address of its own, and wants one host's box to send to the [`VICTIM`]. It may simply
//! claim the victim's address, which proving the list prevents; or it makes its hash-based addresses under the victim's
//! prefix too, so that one of them is truly its own and would be found behind the victim's router, which testing that it
//! answers there prevents. It then sends and stays silent by turns, so that the box looks for other paths, and reports as
//! received whatever it pleases.

use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::wire::ipv6::{self, protocol};
use dataplane::wire::shim6::{ControlPacket, Message, Options, PayloadHeader, Probe, ProbeReport, ProbeState};
use dataplane::wire::{ContextTag, Locator, Ulid, UlidPair};
use rand::Rng;

use super::attack::{hashed, to};
use super::host::ECHO;
use super::{Due, Fault, HostId, Oracle, Origin, World, packet};
use crate::identity::{HostIdentity, HostPrefixes, Sec, make_host, prefix_of};
use crate::time::Instant;

/// Somebody who never asked for anything.
pub const VICTIM: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 1, 0, 0, 0, 1);
/// Where the liar truly is.
const LAIR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xe11, 1, 0, 0, 0, 0);
/// The prefix of its identifier.
const SITE: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xe11, 0, 1, 0, 0, 0, 0);
/// Time between two of its deeds.
const PACE: Duration = Duration::from_millis(300);
/// How long it takes from and to its place.
const WAY: Duration = Duration::from_millis(5);

/// A peer that lies.
#[derive(Debug)]
pub(super) struct Evil {
    identity: HostIdentity,
    /// Whom it wants to have packets sent to it by.
    host: HostId,
    /// It claims the victim's own address; otherwise one under the victim's prefix that is its own.
    liar: bool,
    /// The box's tag, once it has answered.
    tag: Option<ContextTag>,
    /// The locators that packets came from.
    heard: Option<Ipv6Addr>,
    /// It will not claim what is not its own any more in an exchange, since that was refused.
    humble: bool,
    deeds: u32,
    deeds_max: u32,
}

/// What boxes sent to the victim's network.
#[derive(Debug, Default)]
pub(super) struct Visits {
    /// Packets in the victim's name that reached boxes.
    pub(super) named: u64,
    /// Answers that need no context.
    answers: u64,
    probes: u64,
    /// I2bis and I1.
    exchanges: u64,
    since: Option<Instant>,
}

impl Evil {
    fn ulid(&self) -> Ipv6Addr {
        self.identity.ulid.0
    }

    fn own(&self) -> Ipv6Addr {
        self.identity.locators[0].0
    }

    /// The address it wants to have bombed.
    fn aim(&self) -> Ipv6Addr {
        if self.liar { VICTIM } else { self.identity.locators[1].0 }
    }

    fn claim(&self, generation: u32) -> Options {
        let listed = match self.humble {
            true => vec![self.own()],
            false => vec![self.own(), self.aim()],
        };
        Options {
            locators: Some(hashed(generation, listed)),
            pds: Some(self.identity.pds.clone()),
            ..Options::default()
        }
    }
}

impl World {
    /// A peer that lies begins to talk to the box of a host, and goes on for so many deeds.
    pub fn lie(&mut self, host: HostId, deeds: u32, rng: &mut dyn Rng) {
        let liar = rng.next_u32().is_multiple_of(2);
        let mut locators = vec![prefix_of(LAIR)];
        locators.extend((!liar).then(|| prefix_of(VICTIM)));
        let prefixes = HostPrefixes { ulid: prefix_of(SITE), locators };
        let Ok(identity) = make_host(&prefixes, Sec::ZERO, None, rng) else { return };
        let owned = identity.locators.iter().map(|locator| locator.0).collect();
        self.ledger.owned.insert(identity.ulid, owned);
        let (tag, heard, humble) = (None, None, false);
        self.evil = Some(Evil { identity, host, liar, tag, heard, humble, deeds: 0, deeds_max: deeds });
        self.later(self.now, Due::Evil);
    }

    /// The peer that lies does something.
    pub(super) fn sin(&mut self) {
        let Some(mut evil) = self.evil.take() else { return };
        evil.deeds += 1;
        if evil.deeds > evil.deeds_max {
            return;
        }
        let host = &self.hosts[evil.host];
        let locators = &host.locators;
        let target = evil.heard.unwrap_or(locators[self.rng.next_u32() as usize % locators.len()]);
        match (evil.tag, evil.deeds % 12) {
            (None, _) => {
                let ulids = UlidPair { local: evil.identity.ulid, peer: Ulid(host.ulid) };
                let options = Options { ulids: Some(ulids), ..Options::default() };
                let message = Message::I1 { initiator_tag: mine(), initiator_nonce: 7, options };
                self.tell(to(evil.own(), target, &message));
            }
            // A silence in which the box begins to look for other ways, for its host goes on.
            (Some(_), 4..=11) => {
                let (from, ulid) = (evil.host, host.ulid);
                let datagram = packet::udp(ulid, evil.ulid(), (99, 99), &[0; 64]);
                self.send(from, &datagram);
            }
            (Some(tag), 0 | 1) => {
                let datagram = packet::udp(evil.ulid(), host.ulid, (99, ECHO), &[0; 400]);
                let header = PayloadHeader { next_header: protocol::UDP, tag }.emit();
                let payload = [&header[..], &datagram[ipv6::HEADER_LEN..]].concat();
                self.tell(packet::ipv6(evil.own(), target, protocol::SHIM6, 64, &payload));
            }
            (Some(tag), 2) => {
                self.faults.count(if evil.liar { Fault::FalseClaim } else { Fault::Bombing });
                let options = Evil { humble: false, ..evil.copy() }.claim(100 + evil.deeds);
                let message = Message::UpdateRequest { receiver_tag: tag, request_nonce: evil.deeds, options };
                self.tell(to(evil.own(), target, &message));
            }
            (Some(tag), _) => {
                let probe = self.false_probe(&evil, tag, target, ProbeState::Exploring);
                self.tell(to(evil.own(), target, &probe));
            }
        }
        self.evil = Some(evil);
        self.later(self.now + PACE, Due::Evil);
    }

    /// A probe that gives back a nonce as if it had been sent to the victim.
    fn false_probe(&mut self, evil: &Evil, tag: ContextTag, target: Ipv6Addr, state: ProbeState) -> Message {
        self.faults.count(Fault::Bombing);
        let mut report = |source, target| ProbeReport {
            source: Locator(source),
            target: Locator(target),
            nonce: self.rng.next_u32(),
            data: 0,
        };
        let (sent, received) = (vec![report(evil.own(), target)], vec![report(target, evil.aim())]);
        Message::Probe(Probe { receiver_tag: tag, state, sent, received, options: Options::default() })
    }

    fn tell(&mut self, octets: Vec<u8>) {
        self.later(self.now + WAY, Due::AtCore(octets, Origin::Plain));
    }

    /// A packet for nobody's provider: it may be for the peer that lies, or for its victim. False if for neither.
    pub(super) fn elsewhere(&mut self, octets: &[u8], target: Ipv6Addr) -> bool {
        let prefix = prefix_of(target);
        if prefix == prefix_of(LAIR) {
            self.at_lair(octets);
        }
        [prefix_of(LAIR), prefix_of(VICTIM)].contains(&prefix)
    }

    fn at_lair(&mut self, octets: &[u8]) {
        let Some(mut evil) = self.evil.take() else { return };
        if let Ok(ControlPacket { addresses, message, .. }) = ControlPacket::parse(octets) {
            let source = addresses.source;
            match message {
                Message::R1 { responder_nonce, options, .. } => {
                    if !evil.humble {
                        self.faults.count(if evil.liar { Fault::FalseClaim } else { Fault::Bombing });
                    }
                    let ulids = UlidPair { local: evil.identity.ulid, peer: Ulid(self.hosts[evil.host].ulid) };
                    let options =
                        Options { ulids: Some(ulids), validator: options.validator, ..evil.claim(evil.deeds) };
                    let message = Message::I2 { initiator_tag: mine(), initiator_nonce: 7, responder_nonce, options };
                    self.tell(to(evil.own(), source, &message));
                }
                Message::R2 { responder_tag, .. } => (evil.tag, evil.heard) = (Some(responder_tag), Some(source)),
                Message::Error(_) => evil.humble = true,
                // The box has forgotten it.
                Message::R1bis { .. } => (evil.tag, evil.heard) = (None, None),
                Message::Probe(_) => {
                    evil.heard = Some(source);
                    let states = [ProbeState::InboundOk, ProbeState::Operational];
                    let state = states[self.rng.next_u32() as usize % 2];
                    if let Some(tag) = evil.tag {
                        let answer = self.false_probe(&evil, tag, source, state);
                        self.tell(to(evil.own(), source, &answer));
                    }
                }
                _ => {}
            }
        }
        self.evil = Some(evil);
    }

    /// A box sends something to the victim's network. Answers are as many as there were packets in its name, since whoever answers
    /// cannot know better; probes are few, and go only to an address that is the peer's by its hash.
    pub(super) fn judge_visit(&mut self, octets: &[u8], target: Ipv6Addr) {
        let octets = &*packet::out_of_udp(octets);
        let now = self.now;
        let claimed = self.ledger.owned.values().any(|owned| owned.contains(&target));
        let wrong = match ControlPacket::parse(octets).map(|control| control.message) {
            Ok(Message::R1 { .. } | Message::R1bis { .. } | Message::R2 { .. } | Message::Error(_)) => {
                self.visits.answers += 1;
                self.visits.answers > self.visits.named
            }
            Ok(ref message) if packet::asks_for_a_sign(message) => {
                self.visits.probes += 1;
                let since = *self.visits.since.get_or_insert(now);
                // Answers to probes (5 a second, 10 at once) and those of the clock (2 a second) of one context.
                !claimed || self.visits.probes > 12 + 7 * (1 + now.since(since).as_secs())
            }
            // A forged R1bis is answered where it says it came from (RFC 5533 §7.18), three times at most, and then five I1s
            // look for the peer (§7.19).
            Ok(Message::I2bis { .. } | Message::I1 { .. }) => {
                self.visits.exchanges += 1;
                !claimed || self.visits.exchanges > (3 + 5) * self.visits.named
            }
            Err(_) if is_icmp_error(octets) => {
                self.visits.answers += 1;
                self.visits.answers > self.visits.named
            }
            _ => true,
        };
        if wrong {
            let what = ControlPacket::parse(octets).map(|control| control.message);
            let text = format!("{target} never asked for {what:?}, {:?}", self.visits);
            self.violation(None, Oracle::Bystander, text);
        }
    }
}

/// The tag that the box has to put into its packets.
fn mine() -> ContextTag {
    ContextTag::truncate(0xe71)
}

fn is_icmp_error(octets: &[u8]) -> bool {
    let view = ipv6::View::new(octets).ok();
    view.is_some_and(|view| {
        view.next_header() == protocol::ICMPV6 && view.payload().first().is_some_and(|kind| *kind < 128)
    })
}

impl Evil {
    fn copy(&self) -> Evil {
        Evil { identity: self.identity.clone(), ..*self }
    }
}
