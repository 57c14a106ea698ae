//! The part of a packet's path that peers without Shim6 need (NATv6).
//!
//! A packet comes here when it goes to or comes from a global address and is no Shim6 packet. Going out it is given the
//! address its host is known by at a provider: the one its session goes by, or, for a new session, the first of those that
//! are up. Coming in, its address says both host and provider. Where the pair the peer knows has a live context, the packet
//! goes on through that; so a session that was translated before it had a context stays what it was (RCM-010).
//!
//! A packet that ends in an error is left as it came, so that the error quotes what its sender knows.

use super::{
    Frame, IcmpError, Key, Scene, Verdict, address, ipv6_of, path_mtu, sent, to_locators, watch_received, watch_sent,
};
use crate::context::Way;
use crate::context::flows::{Qualified, Side, Sighting};
use crate::context::{Direction, Slot};
use crate::counters::{Count, Counters, DropReason, NatCount};
use crate::link::Punt;
use crate::natv6::{End, Exchange, Quote, Reading, Refused, Session, Untranslatable};
use crate::snapshot::{NatView, PortId, Snapshot};
use crate::wire::ethernet::{HEADER_LEN, Mac};
use crate::wire::shim6::PayloadHeader;
use crate::wire::{Locator, Ulid, UlidPair, ipv6};
use std::net::Ipv6Addr;

/// Offsets of the addresses in the IPv6 header, which Parameter Problem points at.
const SOURCE: u32 = 8;
const TARGET: u32 = 24;

/// An inside address as NATv6 sees it.
#[derive(Clone, Copy, Debug)]
enum Who {
    /// A host of the box's.
    Host(u32),
    /// Something in a mapped subnet.
    Mapped,
}

/// Who an outside address stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind {
    host: Option<u32>,
    provider: u8,
}

/// How a packet leaves.
struct Departure {
    provider: u8,
    /// Of its source.
    outer: Exchange,
    /// Of the destination of what it quotes.
    inner: Exchange,
    /// The context of the pair the peer knows.
    slot: Option<Slot>,
}

/// What changes in a packet besides what its context does.
pub(super) struct Presenting<'a> {
    reading: &'a Reading,
    outer: &'a Exchange,
    inner: &'a Exchange,
}

impl Presenting<'_> {
    pub(super) fn apply(&self, packet: &mut [u8]) {
        self.reading.exchange(packet, End::Source, self.outer, self.inner);
    }
}

// ---- from the site ----

/// The pair an ICMPv6 error of somebody inside is about, if that is another host's packet from a global address: the error
/// goes where the session of that packet is known.
#[cold]
pub(super) fn complaint(packet: &ipv6::View<'_>, snapshot: &Snapshot) -> Option<UlidPair> {
    packet.payload().first().filter(|kind| **kind < 128)?;
    snapshot.nat.as_ref().filter(|nat| nat.translates(packet.target()))?;
    // Whoever has no address of the site's own is dropped for that; nobody speaks for it.
    let source = packet.source();
    if !super::may_cross(source) || snapshot.delegated(source) || snapshot.is_image(source) {
        return None;
    }
    let quote = Reading::of(packet).ok()?.quote?;
    let others = quote.target != source && quote.source == packet.target();
    others.then_some(UlidPair { local: Ulid(quote.target), peer: Ulid(quote.source) })
}

/// A packet for a global address. `pair` is the host it is about and the peer; `hash` is the pair's.
#[inline(never)]
pub(super) fn departing<F: Frame>(
    frame: &mut F,
    pair: UlidPair,
    hash: u64,
    scene: &mut Scene<'_>,
    nat: &NatView,
) -> Verdict {
    let snapshot = scene.snapshot;
    let Ok(packet) = ipv6::View::new(frame.bytes().get(HEADER_LEN..).unwrap_or_default()) else {
        return Verdict::Drop(DropReason::MalformedIpv6);
    };
    let (source, octets) = (packet.source(), packet.total_len());
    let reading = match Reading::of(&packet) {
        Ok(reading) => reading,
        Err(refused) => return Verdict::Drop(refusal(refused)),
    };
    let who = Who::of(pair.local, snapshot, nat);
    if snapshot.delegated(pair.peer.0) || snapshot.is_image(pair.peer.0) {
        return hairpin(frame, pair, source, &reading, scene, nat);
    }
    let session = match &reading.quote {
        Some(quote) if reading.is_error => quote.session.map(Session::mirrored),
        _ => reading.session.filter(|_| !reading.is_error),
    };
    let departure = match who {
        Some(who) => depart(who, source, pair, hash, session, &reading, scene, nat),
        None => Err(stranger(source, snapshot)),
    };
    let departure = match departure {
        Ok(departure) => departure,
        Err(verdict) => return verdict,
    };
    let presenting = Presenting { reading: &reading, outer: &departure.outer, inner: &departure.inner };
    let verdict = match departure.slot {
        Some(slot) => through_context(frame, slot, &presenting, octets, scene),
        None => plainly(frame, departure.provider, &presenting, scene),
    };
    if !matches!(verdict, Verdict::Forward(_) | Verdict::Unresolved(..)) {
        return verdict;
    }
    tally(scene.counters, departure.provider, NatCount::Out, &reading);
    if reading.is_error {
        return verdict;
    }
    for session in [reading.session, reading.fragment].into_iter().flatten() {
        note(Side::Inside, hash, session, departure.provider, reading.opens, scene, nat);
    }
    if departure.slot.is_none() && matches!(who, Some(Who::Host(_))) {
        count(Side::Inside, hash, octets, pair, departure.outer.to, departure.provider, scene, nat);
    }
    verdict
}

/// Where a packet goes and what it is called there, or why it does not go.
#[allow(clippy::too_many_arguments, reason = "all of it is the packet")]
fn depart(
    who: Who,
    source: Ipv6Addr,
    pair: UlidPair,
    hash: u64,
    session: Option<Session>,
    reading: &Reading,
    scene: &Scene<'_>,
    nat: &NatView,
) -> Result<Departure, Verdict> {
    let remembered = remembered(hash, session, reading.fragment, scene, nat);
    let mut error = Verdict::Refuse(IcmpError::NoRoute, DropReason::NatNoProvider);
    for provider in remembered.into_iter().chain(nat.order.iter().copied()) {
        let inner = match who.outside(pair.local.0, provider, nat) {
            Ok(exchange) => exchange,
            Err(None) => continue,
            Err(Some(reason)) => {
                error = untranslatable(reason, SOURCE);
                continue;
            }
        };
        let slot = scene.shard.by_presented(&UlidPair { local: Ulid(inner.to), peer: pair.peer });
        // A context brings its session over other providers when its own is down.
        if slot.is_none() && !nat.is_up(provider) {
            continue;
        }
        let outer = match (source == pair.local.0, slot) {
            (true, _) => inner,
            // A context carries nothing from any other address than its host's, which so speaks for the other.
            (false, Some(_)) => Exchange::between(source, inner.to),
            (false, None) => speaker(source, provider, inner.to, scene.snapshot, nat),
        };
        return Ok(Departure { provider, outer, inner, slot });
    }
    Err(error)
}

/// What somebody who reports an error about a packet to a host is called outside: by its image if it has one, else as
/// the box itself. That has to be an address of the provider's own port, since another provider's would not be carried
/// (RFC 2827); where there is none, the host speaks, which is known as `host`.
#[cold]
fn speaker(source: Ipv6Addr, provider: u8, host: Ipv6Addr, snapshot: &Snapshot, nat: &NatView) -> Exchange {
    let who = Who::of(Ulid(source), snapshot, nat);
    if let Some(Ok(exchange)) = who.map(|who| who.outside(source, provider, nat)) {
        return exchange;
    }
    let port = snapshot.providers.get(usize::from(provider)).map(|provider| usize::from(provider.port.0));
    let own = port.and_then(|port| snapshot.ports.get(port)).into_iter().flat_map(|port| &port.own).copied();
    let routable = own.into_iter().find(|own| super::may_cross(*own) && !own.is_unique_local());
    Exchange::between(source, routable.unwrap_or(host))
}

/// The provider a packet's session goes by. What has no ports goes with the other traffic of its pair.
fn remembered(
    hash: u64,
    session: Option<Session>,
    fragment: Option<Session>,
    scene: &Scene<'_>,
    nat: &NatView,
) -> Option<u8> {
    let by = |session| {
        let hash = scene.flows.session(hash, session);
        scene.flows.provider(&Sighting { hash, now: scene.now, idle_ms: nat.idle_ms })
    };
    match (session, fragment) {
        (Some(session), _) => by(session),
        (None, fragment) => {
            fragment.and_then(by).or_else(|| scene.flows.provider_of_pair(hash, scene.now, nat.idle_ms))
        }
    }
}

/// A packet whose pair, as the peer knows it, has a live context.
fn through_context<F: Frame>(
    frame: &mut F,
    slot: Slot,
    presenting: &Presenting<'_>,
    octets: usize,
    scene: &mut Scene<'_>,
) -> Verdict {
    let entry = scene.shard.entry(slot);
    let way = scene.shard.way(slot);
    if entry.is_in_doubt() {
        watch_sent(frame, entry, way.locators, scene.port, scene.now, scene.replay);
    }
    if presenting.reading.is_error {
        fit(frame, way, scene.snapshot, presenting.reading);
    }
    let verdict = to_locators(frame, way, scene.snapshot, None, Some(presenting));
    if matches!(verdict, Verdict::Forward(_) | Verdict::Unresolved(..)) {
        sent(way, scene.counters);
        scene.shard.note(slot, Direction::Out, octets);
    }
    verdict
}

/// Where a path has no room for 1280 octets and the payload header, packets are cut. An error is shortened instead: parts of
/// one that a router inside made would be nobody's, since only the first says whose packet it is about.
#[cold]
fn fit<F: Frame>(frame: &mut F, way: Way<'_>, snapshot: &Snapshot, reading: &Reading) {
    let provider = snapshot.providers.get(usize::from(way.provider));
    let Some(port) = provider.and_then(|provider| snapshot.ports.get(usize::from(provider.port.0))) else { return };
    let added = if way.is_plain { 0 } else { PayloadHeader::LEN };
    let room = path_mtu(way, port).saturating_sub(added);
    let Some(packet) = frame.bytes_mut().get_mut(HEADER_LEN..) else { return };
    if packet.len() > room
        && packet.len() <= ipv6::MIN_MTU
        && let Some(octets) = reading.shorten(packet, room)
    {
        frame.truncate(HEADER_LEN + octets);
    }
}

/// A packet without a context.
fn plainly<F: Frame>(frame: &mut F, provider: u8, presenting: &Presenting<'_>, scene: &Scene<'_>) -> Verdict {
    let snapshot = scene.snapshot;
    let Some(provider) = snapshot.providers.get(usize::from(provider)) else {
        return Verdict::Drop(DropReason::NoRoute);
    };
    let to = Next { port: provider.port, mac: provider.mac, address: provider.next_hop };
    forward(frame, &to, snapshot, |packet| presenting.apply(packet))
}

/// From a host of the site to another by its outside address: both see the other outside (R6296-033, R6296-034). All is
/// known from the addresses, and the source takes the provider of the destination, so no memory is needed.
#[cold]
fn hairpin<F: Frame>(
    frame: &mut F,
    pair: UlidPair,
    source: Ipv6Addr,
    reading: &Reading,
    scene: &Scene<'_>,
    nat: &NatView,
) -> Verdict {
    let snapshot = scene.snapshot;
    let (target, behind) = match behind(pair.peer.0, snapshot, nat) {
        Ok(found) => found,
        Err(verdict) => return verdict,
    };
    let called = |address: Ipv6Addr| {
        let who = Who::of(Ulid(address), snapshot, nat).ok_or_else(|| stranger(address, snapshot))?;
        who.outside(address, behind.provider, nat).map_err(|reason| match reason {
            Some(reason) => untranslatable(reason, SOURCE),
            None => Verdict::Refuse(IcmpError::NoRoute, DropReason::NatNoProvider),
        })
    };
    let exchanges = called(pair.local.0).and_then(|inner| match source == pair.local.0 {
        true => Ok((inner, inner)),
        false => called(source).map(|outer| (outer, inner)),
    });
    let (outer, inner) = match exchanges {
        Ok(exchanges) => exchanges,
        Err(verdict) => return verdict,
    };
    let Some(next) = Next::inside(target, behind.host, snapshot, nat) else {
        return Verdict::Drop(DropReason::NoRoute);
    };
    let arriving = behind.exchange(pair.peer.0, target, nat);
    let verdict = forward(frame, &next, snapshot, |packet| {
        reading.exchange(packet, End::Source, &outer, &inner);
        reading.exchange(packet, End::Target, &arriving, &arriving);
    });
    if matches!(verdict, Verdict::Forward(_) | Verdict::Unresolved(..)) {
        tally(scene.counters, behind.provider, NatCount::Hairpin, reading);
    }
    verdict
}

// ---- from a provider ----

/// A packet for one of our prefixes, without a Shim6 header at its place.
#[inline(never)]
pub(super) fn arriving_key(packet: &ipv6::View<'_>, snapshot: &Snapshot, nat: &NatView) -> (Key, Verdict) {
    let quote = match Reading::of(packet) {
        Err(Refused::Shim6) => return (Key::None, Verdict::Drop(DropReason::BadPayloadHeader)),
        Err(refused) => return (Key::None, Verdict::Drop(refusal(refused))),
        Ok(reading) => reading.quote,
    };
    // What is said about a Shim6 packet is for whoever made it one.
    if quote.is_some_and(|quote: Quote| quote.shim6) {
        return (Key::None, Verdict::Punt(Punt::IcmpError));
    }
    if snapshot.is_image(packet.source()) {
        return (Key::None, Verdict::Drop(DropReason::SpoofedSource));
    }
    // RCM-013
    if nat.is_identifier(packet.source()) {
        return (Key::None, Verdict::Drop(DropReason::UniqueLocal));
    }
    match behind(packet.target(), snapshot, nat) {
        Ok((inside, behind)) => {
            let pair = UlidPair { local: Ulid(inside), peer: Ulid(packet.source()) };
            (Key::Outside(pair, behind), Verdict::Lookup)
        }
        Err(verdict) => (Key::None, verdict),
    }
}

/// A packet from a peer. `pair` is the host's own address and the peer's; `hash` is the pair's.
#[inline(never)]
pub(super) fn arriving<F: Frame>(
    frame: &mut F,
    pair: &UlidPair,
    behind: &Behind,
    hash: u64,
    scene: &mut Scene<'_>,
) -> Verdict {
    let snapshot = scene.snapshot;
    let Some(nat) = snapshot.nat.as_deref() else { return Verdict::Drop(DropReason::NoTranslation) };
    let Ok(packet) = ipv6::View::new(frame.bytes().get(HEADER_LEN..).unwrap_or_default()) else {
        return Verdict::Drop(DropReason::MalformedIpv6);
    };
    let (presented, octets) = (packet.target(), packet.total_len());
    let reading = match Reading::of(&packet) {
        Ok(reading) => reading,
        Err(refused) => return Verdict::Drop(refusal(refused)),
    };
    let Some(next) = Next::inside(pair.local.0, behind.host, snapshot, nat) else {
        return Verdict::Drop(DropReason::NoRoute);
    };
    let exchange = behind.exchange(presented, pair.local.0, nat);
    let verdict = forward(frame, &next, snapshot, |packet| {
        reading.exchange(packet, End::Target, &exchange, &exchange);
    });
    if !matches!(verdict, Verdict::Forward(_) | Verdict::Unresolved(..)) {
        return verdict;
    }
    tally(scene.counters, behind.provider, NatCount::In, &reading);
    if reading.is_error {
        return verdict;
    }
    if let Some(session) = reading.session {
        note(Side::Outside, hash, session.mirrored(), behind.provider, reading.opens, scene, nat);
    }
    match scene.shard.by_presented(&UlidPair { local: Ulid(presented), peer: pair.peer }) {
        // R5533-247, R5533-288: it is traffic of the context, and REAP hears of it.
        Some(slot) => {
            let entry = scene.shard.entry(slot);
            if entry.is_in_doubt() {
                watch_received(frame, entry, verdict, scene.now, scene.replay);
            }
            scene.shard.note(slot, Direction::In, octets);
        }
        None if behind.host.is_some() => {
            count(Side::Outside, hash, octets, *pair, presented, behind.provider, scene, nat);
        }
        None => {}
    }
    verdict
}

/// A packet that came through a context is with its identifiers again; the host knows another one as its own.
#[cold]
pub(super) fn restored<F: Frame>(frame: &mut F, pair: &UlidPair, host: Ulid) -> Result<(), DropReason> {
    let packet = frame.bytes_mut().get_mut(HEADER_LEN..).unwrap_or_default();
    crate::natv6::to_inside(packet, pair.local.0, host.0).map_err(refusal)
}

/// Keeps the memory of a session alive that comes in through a context.
#[cold]
pub(super) fn heard<F: Frame>(frame: &F, slot: Slot, scene: &mut Scene<'_>) {
    let ulids = scene.shard.entry(slot).ulids;
    let Some(nat) = scene.snapshot.nat.as_deref() else { return };
    let Some(image) = nat.image(ulids.local.0) else { return };
    let Ok(packet) = ipv6::View::new(frame.bytes().get(HEADER_LEN..).unwrap_or_default()) else { return };
    let Ok(reading) = Reading::of(&packet) else { return };
    let pair = UlidPair { local: Ulid(packet.target()), peer: ulids.peer };
    if let Some(session) = reading.session.filter(|_| !reading.is_error) {
        let hash = scene.shard.hasher().pair(&pair);
        note(Side::Outside, hash, session.mirrored(), image.provider, reading.opens, scene, nat);
    }
}

// ---- both ----

/// Counts a translated packet, for the box and for the provider whose address it has (RCM-016).
#[inline]
fn tally(counters: &Counters, provider: u8, count: NatCount, reading: &Reading) {
    let of_box = match count {
        NatCount::Out => Count::NatOut,
        NatCount::In => Count::NatIn,
        NatCount::Hairpin => Count::NatHairpin,
        NatCount::Quotes => Count::NatQuotes,
    };
    counters.add(of_box, 1);
    counters.add_translated(provider, count, 1);
    if reading.quote.is_some() {
        counters.add(Count::NatQuotes, 1);
        counters.add_translated(provider, NatCount::Quotes, 1);
    }
}

/// Where a packet goes next.
struct Next {
    port: PortId,
    mac: Option<Mac>,
    address: Ipv6Addr,
}

impl Next {
    fn inside(address: Ipv6Addr, host: Option<u32>, snapshot: &Snapshot, nat: &NatView) -> Option<Next> {
        match host {
            Some(host) => {
                let host = snapshot.hosts.get(host as usize)?;
                Some(Next { port: host.port, mac: host.mac, address: host.ulid.0 })
            }
            None => {
                let mac = nat.mapped.neighbours.get(&address).copied();
                Some(Next { port: nat.mapped.port, mac, address })
            }
        }
    }
}

/// What every router does, around `change`. A packet that ends in an error is not changed.
#[inline]
fn forward<F: Frame>(frame: &mut F, next: &Next, snapshot: &Snapshot, change: impl FnOnce(&mut [u8])) -> Verdict {
    let Some(port) = snapshot.ports.get(usize::from(next.port.0)) else { return Verdict::Drop(DropReason::NoRoute) };
    let Ok(packet) = ipv6_of(frame) else { return Verdict::Drop(DropReason::MalformedIpv6) };
    let (length, hop_limit) = (packet.view().total_len(), packet.view().hop_limit());
    if hop_limit <= 1 {
        return Verdict::Reply(IcmpError::TimeExceeded);
    }
    if length > usize::from(port.mtu) {
        return Verdict::Reply(IcmpError::PacketTooBig(u32::from(port.mtu)));
    }
    change(frame.bytes_mut().get_mut(HEADER_LEN..).unwrap_or_default());
    let Ok(mut packet) = ipv6_of(frame) else { return Verdict::Drop(DropReason::MalformedIpv6) };
    let alive = packet.decrement_hop_limit();
    debug_assert!(alive, "looked at before the packet was touched");
    address(frame, port.mac, next.mac, next.port, next.address)
}

/// Remembers by which provider a session goes.
fn note(side: Side, pair: u64, session: Session, provider: u8, opens: bool, scene: &mut Scene<'_>, nat: &NatView) {
    let hash = scene.flows.session(pair, session);
    let sighting = Sighting { hash, now: scene.now, idle_ms: nat.idle_ms };
    if !scene.flows.note(&sighting, side, provider, opens) {
        scene.counters.add(Count::NatForgotten, 1);
    }
}

/// Counts a packet that went without a context.
#[allow(clippy::too_many_arguments, reason = "all of it is the packet")]
fn count(
    side: Side,
    hash: u64,
    octets: usize,
    pair: UlidPair,
    presented: Ipv6Addr,
    provider: u8,
    scene: &mut Scene<'_>,
    nat: &NatView,
) {
    let found = Qualified { pair, presented: Locator(presented), provider };
    scene.flows.count(hash, side, octets, found, &nat.thresholds, (scene.now, nat.idle_ms));
}

impl Who {
    fn of(address: Ulid, snapshot: &Snapshot, nat: &NatView) -> Option<Who> {
        if let Some(host) = snapshot.host_index.get(&address) {
            return Some(Who::Host(*host));
        }
        nat.mapped.has(address.0).then_some(Who::Mapped)
    }

    /// What an address is called at a provider; none if nothing, or why it cannot be.
    fn outside(self, address: Ipv6Addr, provider: u8, nat: &NatView) -> Result<Exchange, Option<Untranslatable>> {
        match self {
            Who::Host(host) => {
                let outside = nat.outside(host, provider).ok_or(None)?;
                Ok(Exchange { from: address, to: outside.locator.0, change: Some(outside.change) })
            }
            Who::Mapped => {
                let pair = nat.mapped.pairs.get(usize::from(provider)).and_then(Option::as_ref).ok_or(None)?;
                let to = pair.outbound(address).map_err(Some)?;
                Ok(Exchange { from: address, to, change: None })
            }
        }
    }
}

impl Behind {
    /// The outside address becomes the inside one.
    fn exchange(self, outside: Ipv6Addr, inside: Ipv6Addr, nat: &NatView) -> Exchange {
        let host = self.host.and_then(|host| nat.outside(host, self.provider));
        Exchange { from: outside, to: inside, change: host.map(|host| host.change.reversed()) }
    }
}

/// Who an outside address stands for, and their own address. Nobody: an error for the sender (RCM-014).
fn behind(address: Ipv6Addr, snapshot: &Snapshot, nat: &NatView) -> Result<(Ipv6Addr, Behind), Verdict> {
    let nobody = Verdict::Refuse(IcmpError::AddressUnreachable, DropReason::NatUnknownImage);
    if let Some(image) = nat.image(address) {
        let host = snapshot.hosts.get(image.host as usize).ok_or(nobody)?;
        return Ok((host.ulid.0, Behind { host: Some(image.host), provider: image.provider }));
    }
    let mut pairs = nat.mapped.pairs.iter().zip(0..);
    let found = pairs.find_map(|(pair, provider)| Some((pair.filter(|pair| pair.is_outside(address))?, provider)));
    let (pair, provider) = found.ok_or(nobody)?;
    match pair.inbound(address) {
        // A host is known by its locators, and by no other address.
        Ok(inside) if nat.mapped.has(inside) && !snapshot.host_index.contains_key(&Ulid(inside)) => {
            Ok((inside, Behind { host: None, provider }))
        }
        Err(Untranslatable::ZeroInterface) => Err(untranslatable(Untranslatable::ZeroInterface, TARGET)),
        _ => Err(nobody),
    }
}

/// What becomes of a packet whose source is nobody's here.
#[cold]
fn stranger(source: Ipv6Addr, snapshot: &Snapshot) -> Verdict {
    let reason = match snapshot.site.contains(source) {
        true => DropReason::NatUnmapped,
        false => DropReason::SpoofedSource,
    };
    Verdict::Refuse(IcmpError::SourcePolicy, reason)
}

/// What becomes of a packet with an address RFC 6296 has no counterpart for.
#[cold]
fn untranslatable(reason: Untranslatable, pointer: u32) -> Verdict {
    match reason {
        // R6296-027
        Untranslatable::ZeroInterface => {
            Verdict::Refuse(IcmpError::ParameterProblem(pointer), DropReason::NatUntranslatable)
        }
        // R6296-015
        Untranslatable::Unmapped | Untranslatable::ReservedSubnet | Untranslatable::NoWord => {
            Verdict::Refuse(IcmpError::SourcePolicy, DropReason::NatUnmapped)
        }
    }
}

fn refusal(refused: Refused) -> DropReason {
    match refused {
        Refused::Malformed => DropReason::MalformedChain,
        Refused::Shim6 | Refused::UnderWay | Refused::LinkLocal => DropReason::NatUntranslatable,
    }
}
