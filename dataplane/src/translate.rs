//! A packet's path, top to bottom, in both directions.
//!
//! Ordinary packets take the short way (`translate/short.rs`) and are done. The others go through one loop per stage; each stage touches
//! memory the one before asked for:
//!
//! 1. *parse*: octets to a key (identifier pair, or tag), or the verdict that ends it here;
//! 2. *locate*: keys to buckets, prefetched;
//! 3. *approach*: buckets to the contexts that may be meant, prefetched (a tag names its context without);
//! 4. *resolve*: the context that is meant;
//! 5. *rewrite*: headers in place, and a verdict.
//!
//! What the verdict asks for is done by the [worker](crate::worker). Everything rare is in `#[cold]` functions at the end,
//! and packets without a context in modules of their own.

mod fork;
mod labelled;
mod natv6;
mod plain;
mod short;
mod udp;
mod verdict;
mod watch;

use std::net::Ipv6Addr;

use crate::context::replay::Replay;
use crate::context::{Direction, Flows, Phase, Shard, Sharding, Slot, Way};
use crate::counters::{Count, Counters, DropReason};
use crate::link::Punt;
use crate::port::Frame;
use crate::snapshot::{PortId, PortView, Snapshot};
use crate::wire::ethernet::{self, EtherType, Mac};
use crate::wire::ipv6::{self, Place, ShimPlace, protocol};
use crate::wire::shim6::PayloadHeader;
use crate::wire::shim6::payload::{self, PayloadError};
use crate::wire::{ContextTag, FlowLabel, Locator, LocatorPair, Ulid, UlidPair};
use labelled::Labelled;
use plain::may_cross;
pub use verdict::{IcmpError, Verdict};
use watch::{clamp_inbound, clamp_mss, path_mtu, provider_it_came_by, too_big, watch_received, watch_sent};

/// Packets looked at together.
pub const BURST: usize = 32;

/// What a packet is looked up by.
#[derive(Clone, Copy, Debug)]
enum Key {
    None,
    Pair(UlidPair),
    /// Tag, place of the payload header, and the packet's addresses.
    Tag(ContextTag, Place, LocatorPair),
    /// Context that the flow label stands for, if the packet's addresses are locators of it.
    Label(Slot, LocatorPair),
    /// From a peer without Shim6, or not yet with it: the host's own address and the peer's.
    Outside(UlidPair, natv6::Behind),
    /// An ICMPv6 error of somebody inside about a packet of this pair.
    Error(UlidPair),
}

/// Packets on their way, one array per property. Owned by a worker and reused; nothing is allocated after `new`.
pub struct Batch<F> {
    /// The packets.
    pub frames: Vec<F>,
    keys: Vec<Key>,
    hashes: Vec<u64>,
    slots: Vec<Option<Slot>>,
    /// What becomes of each, in the same order; nothing while [`all_to`](Batch::all_to) says it.
    pub verdicts: Vec<Verdict>,
    /// Where all of them go, if that is one port.
    pub all_to: Option<PortId>,
}

impl<F> Default for Batch<F> {
    fn default() -> Self {
        Batch {
            frames: Vec::with_capacity(BURST),
            keys: Vec::with_capacity(BURST),
            hashes: Vec::with_capacity(BURST),
            slots: Vec::with_capacity(BURST),
            verdicts: Vec::with_capacity(BURST),
            all_to: None,
        }
    }
}

impl<F> Batch<F> {
    /// Forgets everything but the room it has.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.keys.clear();
        self.hashes.clear();
        self.slots.clear();
        self.verdicts.clear();
        self.all_to = None;
    }
}

/// How a burst came to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From a device.
    Device,
    /// From a worker, this one or another, that had it before.
    Worker,
    /// From control, which found that it has nothing to do with a context, or from a worker that heard so from control.
    Control,
}

/// Where a burst is: what does not change from packet to packet.
pub struct Scene<'a> {
    /// The contexts this worker owns.
    pub shard: &'a mut Shard,
    /// The last segments of contexts in doubt, and what their TCP shows.
    pub replay: &'a mut Replay,
    /// What is remembered of translated sessions.
    pub flows: &'a mut Flows,
    /// Milliseconds.
    pub now: u64,
    /// Ports, providers, hosts.
    pub snapshot: &'a Snapshot,
    /// Who owns what.
    pub sharding: &'a Sharding,
    /// This worker.
    pub worker: u8,
    /// The port the burst came from.
    pub port: PortId,
    /// How the burst came here.
    pub origin: Origin,
    /// The worker that handed it over, which may get copies of its contexts.
    pub handed_by: Option<u8>,
    /// This worker's counters.
    pub counters: &'a Counters,
}

/// From the site: identifiers become locators, and the payload header goes in.
pub fn outbound<F: Frame>(batch: &mut Batch<F>, scene: &mut Scene<'_>) {
    if short::outbound(batch, scene) > 0 && turn_away(batch) {
        outbound_long(batch, scene);
    }
}

/// From a provider: the payload header goes out, and locators become identifiers.
pub fn inbound<F: Frame>(batch: &mut Batch<F>, scene: &mut Scene<'_>) {
    if short::inbound(batch, scene) > 0 && turn_away(batch) {
        inbound_long(batch, scene);
    }
}

/// Ends what is no IPv6 before anything is prepared for the rest: a link may carry as much of it as of packets, and it shall
/// cost no more than a look. Whether anything is left.
fn turn_away<F: Frame>(batch: &mut Batch<F>) -> bool {
    let mut left = false;
    for (frame, verdict) in batch.frames.iter().zip(&mut batch.verdicts) {
        if let Verdict::Lookup = verdict {
            match ethernet::View::new(frame.bytes()) {
                Ok(ether) if ether.ether_type() == EtherType::IPV6 => left = true,
                _ => *verdict = Verdict::Drop(DropReason::NotIpv6),
            }
        }
    }
    left
}

/// Sees to what the short way left.
fn outbound_long<F: Frame>(batch: &mut Batch<F>, scene: &mut Scene<'_>) {
    if !parse(batch, scene, |packet, port| outbound_key(packet, port, scene.snapshot)) {
        return;
    }
    locate_pairs(batch, scene);
    approach(batch, scene);
    resolve(batch, scene);
    rewrite_outbound(batch, scene);
}

/// Sees to what the short way left.
fn inbound_long<F: Frame>(batch: &mut Batch<F>, scene: &mut Scene<'_>) {
    udp::open(batch, scene);
    if !parse(batch, scene, |packet, port| inbound_key(packet, port, scene)) {
        return;
    }
    locate_tags(batch, scene);
    approach(batch, scene);
    resolve(batch, scene);
    rewrite_inbound(batch, scene);
}

// ---- parse ----

/// Gives each packet that has no verdict yet a key, or a verdict. Whether any is still to be looked up.
#[inline(always)]
fn parse<F: Frame>(
    batch: &mut Batch<F>,
    scene: &Scene<'_>,
    key_of: impl Fn(&ipv6::View<'_>, &PortView) -> (Key, Verdict),
) -> bool {
    let Some(port) = scene.snapshot.ports.get(usize::from(scene.port.0)) else {
        drop_all(batch);
        return false;
    };
    let mut lookups = false;
    for (frame, verdict) in batch.frames.iter_mut().zip(&mut batch.verdicts) {
        let mut key = Key::None;
        if let Verdict::Lookup = verdict {
            (key, *verdict) = match read(frame, port.mac) {
                Ok(packet) => key_of(&packet, port),
                Err(reason) => (Key::None, Verdict::Drop(reason)),
            };
        }
        lookups |= matches!(verdict, Verdict::Lookup);
        batch.keys.push(key);
    }
    lookups
}

fn outbound_key(packet: &ipv6::View<'_>, port: &PortView, snapshot: &Snapshot) -> (Key, Verdict) {
    let (source, target) = (packet.source(), packet.target());
    if target.is_multicast() {
        return (Key::None, plain::to_box(packet, port));
    }
    if packet.next_header() == protocol::ICMPV6
        && let Some(about) = natv6::complaint(packet, snapshot)
    {
        return (Key::Error(about), Verdict::Lookup);
    }
    (Key::Pair(UlidPair { local: Ulid(source), peer: Ulid(target) }), Verdict::Lookup)
}

fn inbound_key(packet: &ipv6::View<'_>, port: &PortView, scene: &Scene<'_>) -> (Key, Verdict) {
    let snapshot = scene.snapshot;
    let refuse = |reason| (Key::None, Verdict::Drop(reason));
    let (source, target) = (packet.source(), packet.target());
    if !snapshot.delegated(target) && !snapshot.is_image(target) {
        return (Key::None, plain::to_box(packet, port));
    }
    if !may_cross(source) {
        return refuse(DropReason::BadAddress);
    }
    if snapshot.site.contains(source) || snapshot.delegated(source) {
        return refuse(DropReason::SpoofedSource);
    }
    let locators = LocatorPair { local: Locator(target), peer: Locator(source) };
    let shim = match packet.shim_header() {
        Err(_) => return refuse(DropReason::MalformedChain),
        Ok(Some(shim)) if !shim.under_way => shim.place,
        Ok(None) => match labelled::read(packet, scene) {
            Labelled::By(slot) => return (Key::Label(slot, locators), Verdict::Lookup),
            Labelled::Elsewhere(owner) => return (Key::None, Verdict::HandOver(owner)),
            Labelled::No => return labelled::plain_packet(packet, port, scene),
        },
        Ok(Some(_)) => return labelled::plain_packet(packet, port, scene),
    };
    match PayloadHeader::parse(packet.from_offset(shim.offset)) {
        Ok(header) => (Key::Tag(header.tag, shim, locators), Verdict::Lookup),
        Err(PayloadError::Control) => (Key::None, Verdict::Punt(Punt::Shim6)),
        Err(_) => refuse(DropReason::BadPayloadHeader),
    }
}

/// Checks the frame down to its IPv6 header and cuts off what the link padded.
#[inline]
fn read<F: Frame>(frame: &mut F, mac: Mac) -> Result<ipv6::View<'_>, DropReason> {
    let ether = ethernet::View::new(frame.bytes()).map_err(|_| DropReason::NotIpv6)?;
    if ether.ether_type() != EtherType::IPV6 {
        return Err(DropReason::NotIpv6);
    }
    let target = ether.target();
    if target != mac && !target.is_multicast() {
        return Err(DropReason::WrongMac);
    }
    let packet = ipv6::View::new(ether.payload()).map_err(|_| DropReason::MalformedIpv6)?;
    // What is for one is not forwarded when it came as if it were for many: every router on the link would.
    if target.is_multicast() && !packet.target().is_multicast() {
        return Err(DropReason::WrongMac);
    }
    let length = packet.total_len();
    frame.truncate(ethernet::HEADER_LEN + length);
    ipv6::View::new(frame.bytes().get(ethernet::HEADER_LEN..).unwrap_or_default())
        .map_err(|_| DropReason::MalformedIpv6)
}

// ---- locate ----

fn locate_pairs<F: Frame>(batch: &mut Batch<F>, scene: &Scene<'_>) {
    for (key, verdict) in batch.keys.iter().zip(&mut batch.verdicts) {
        let mut hash = 0;
        if let Key::Pair(pair) | Key::Error(pair) = key {
            hash = scene.shard.hasher().pair(pair);
            let owner = scene.sharding.owner_of_hash(hash);
            if owner != scene.worker {
                *verdict = Verdict::HandOver(owner);
            } else {
                scene.shard.prefetch_pair(hash);
            }
        }
        batch.hashes.push(hash);
    }
}

fn locate_tags<F: Frame>(batch: &mut Batch<F>, scene: &Scene<'_>) {
    for (key, verdict) in batch.keys.iter().zip(&mut batch.verdicts) {
        let mut hash = 0;
        if let Key::Tag(tag, _, locators) = *key {
            match scene.sharding.owner_of_tag(tag) {
                Some(owner) if owner == scene.worker => scene.shard.approach_tag(tag),
                Some(owner) => *verdict = Verdict::HandOver(owner),
                None => *verdict = Verdict::UnknownTag(tag, locators, None),
            }
        } else if let Key::Outside(pair, _) = key {
            hash = scene.shard.hasher().pair(pair);
            match scene.sharding.owner_of_hash(hash) {
                owner if owner == scene.worker => scene.flows.prefetch_pair(hash),
                owner => *verdict = Verdict::HandOver(owner),
            }
        }
        batch.hashes.push(hash);
    }
}

// ---- approach ----

fn approach<F: Frame>(batch: &mut Batch<F>, scene: &Scene<'_>) {
    for ((key, &hash), verdict) in batch.keys.iter().zip(&batch.hashes).zip(&batch.verdicts) {
        match (verdict, key) {
            (Verdict::Lookup, Key::Pair(_)) => scene.shard.prefetch_by_pair(hash),
            (Verdict::Lookup, Key::Label(slot, _)) => scene.shard.prefetch(*slot),
            _ => {}
        }
    }
}

// ---- resolve ----

fn resolve<F: Frame>(batch: &mut Batch<F>, scene: &Scene<'_>) {
    for ((key, &hash), verdict) in batch.keys.iter().zip(&batch.hashes).zip(&batch.verdicts) {
        let slot = match (verdict, key) {
            (Verdict::Lookup, Key::Pair(pair)) => scene.shard.by_pair(hash, pair),
            (Verdict::Lookup, Key::Tag(tag, ..)) => scene.shard.by_tag(*tag),
            (Verdict::Lookup, Key::Label(slot, locators)) => {
                Some(*slot).filter(|&slot| scene.shard.accepts_labelled(slot, locators))
            }
            _ => None,
        };
        batch.slots.push(slot);
    }
}

// ---- rewrite ----

fn rewrite_outbound<F: Frame>(batch: &mut Batch<F>, scene: &mut Scene<'_>) {
    for (at, frame) in batch.frames.iter_mut().enumerate() {
        let Verdict::Lookup = batch.verdicts[at] else { continue };
        let (Key::Pair(pair) | Key::Error(pair)) = batch.keys[at] else { continue };
        let octets = frame.bytes().len().saturating_sub(ethernet::HEADER_LEN);
        // Nobody inside has a presented identifier for an address, so who sends from one means another's context.
        let live = |slot: &Slot| {
            let entry = scene.shard.entry(*slot);
            entry.phase == Phase::Live && !entry.is_presented()
        };
        batch.verdicts[at] = match batch.slots[at].filter(live) {
            None => plain::without_context(frame, pair, batch.hashes[at], scene),
            Some(slot) => {
                let slot = match scene.shard.entry(slot).is_forked() {
                    true => fork::choose(frame, &pair, batch.hashes[at], slot, scene),
                    false => slot,
                };
                let entry = scene.shard.entry(slot);
                let way = scene.shard.way(slot);
                if entry.is_in_doubt() {
                    watch_sent(frame, entry, way.locators, scene.port, scene.now, scene.replay);
                }
                // Labels are agreed on for the current pair; the header is understood on any.
                let label = scene.shard.label_toward_peer(slot).filter(|_| !way.is_plain && !way.is_standby);
                let label = label.filter(|_| labelled::may_go(frame, scene.shard.label_mode()));
                // Without a header there is nothing that a path might drop.
                let way = if label.is_some() { Way { udp: None, ..way } } else { way };
                let verdict = to_locators(frame, way, scene.snapshot, label, None);
                if matches!(verdict, Verdict::Forward(_) | Verdict::Unresolved(..)) {
                    sent(way, scene.counters);
                    scene.shard.note(slot, Direction::Out, octets);
                    if label.is_some() {
                        scene.counters.add(Count::LabelledOut, 1);
                        scene.shard.note_label(slot, Direction::Out);
                    }
                }
                verdict
            }
        };
    }
}

/// Counts a packet that left, or waits for a neighbour.
#[inline]
fn sent(way: Way<'_>, counters: &Counters) {
    counters.add(if way.is_plain { Count::PlainOut } else { Count::TranslatedOut }, 1);
    if way.is_standby {
        counters.add(Count::StandbyOut, 1);
    }
    if way.udp.is_some() && !way.is_plain {
        counters.add(Count::UdpOut, 1);
    }
}

/// RFC 5533 §11: what a live context does to a packet of its pair; with a `label`, that takes the place of the header. A
/// packet that ends in an error is left as it was. Two call it, and the one that presents nothing shall not pay for the
/// other.
#[inline(always)]
fn to_locators<F: Frame>(
    frame: &mut F,
    way: Way<'_>,
    snapshot: &Snapshot,
    label: Option<FlowLabel>,
    presenting: Option<&natv6::Presenting<'_>>,
) -> Verdict {
    let Some(provider) = snapshot.providers.get(usize::from(way.provider)) else {
        return Verdict::Drop(DropReason::NoRoute);
    };
    let Some(port) = snapshot.ports.get(usize::from(provider.port.0)) else {
        return Verdict::Drop(DropReason::NoRoute);
    };
    let packet = match ipv6::View::new(frame.bytes().get(ethernet::HEADER_LEN..).unwrap_or_default()) {
        Ok(packet) => packet,
        Err(_) => return Verdict::Drop(DropReason::MalformedIpv6),
    };
    if packet.hop_limit() <= 1 {
        return Verdict::Reply(IcmpError::TimeExceeded);
    }
    let bare = way.is_plain || label.is_some();
    let ports = way.udp.zip(snapshot.udp_port).map(|(flow, port)| flow.ports(port)).filter(|_| !bare);
    let added = if bare { 0 } else { PayloadHeader::LEN + udp::octets(ports) };
    let mtu = path_mtu(way, port);
    if packet.total_len() + added > mtu {
        return too_big(packet.total_len(), mtu.saturating_sub(added));
    }
    let insertion = match bare {
        true => None,
        false => match packet.shim_insertion() {
            Ok(insertion) => Some(insertion),
            Err(_) => return Verdict::Drop(DropReason::MalformedChain),
        },
    };
    if let Some(presenting) = presenting {
        presenting.apply(frame.bytes_mut().get_mut(ethernet::HEADER_LEN..).unwrap_or_default());
    }
    if let Some(ShimPlace { place, .. }) = insertion {
        if !frame.prepend(PayloadHeader::LEN) {
            return Verdict::Drop(DropReason::NoBuffer);
        }
        let packet = frame.bytes_mut().get_mut(ethernet::HEADER_LEN..).unwrap_or_default();
        if payload::insert(packet, place, way.peer_tag).is_err() {
            return Verdict::Drop(DropReason::MalformedIpv6);
        }
    }
    let Ok(mut packet) = ipv6_of(frame) else { return Verdict::Drop(DropReason::MalformedIpv6) };
    packet.set_source(way.locators.local.0);
    packet.set_target(way.locators.peer.0);
    if let Some(label) = label {
        packet.set_flow_label(label.value());
    }
    let alive = packet.decrement_hop_limit();
    debug_assert!(alive, "looked at before the packet was touched");
    if snapshot.mss_clamp && !way.is_plain {
        clamp_mss(frame, mtu.saturating_sub(udp::octets(ports)));
    }
    if let Some((insertion, ports)) = insertion.zip(ports)
        && let Err(reason) = udp::close(frame, insertion, ports)
    {
        return Verdict::Drop(reason);
    }
    address(frame, port.mac, provider.mac, provider.port, provider.next_hop)
}

fn rewrite_inbound<F: Frame>(batch: &mut Batch<F>, scene: &mut Scene<'_>) {
    for (at, frame) in batch.frames.iter_mut().enumerate() {
        let Verdict::Lookup = batch.verdicts[at] else { continue };
        batch.verdicts[at] = match (&batch.keys[at], batch.slots[at]) {
            (Key::Tag(tag, _, locators), None) => Verdict::UnknownTag(*tag, *locators, None),
            (Key::Tag(_, _, locators), Some(slot)) if !scene.shard.accepts(slot, locators) => {
                Verdict::Drop(DropReason::ForeignLocators)
            }
            (Key::Tag(_, place, _), Some(slot)) => deliver(frame, slot, Some(*place), scene),
            (Key::Label(..), Some(slot)) => deliver(frame, slot, None, scene),
            (Key::Label(..), None) => labelled::plain_after_all(frame, scene),
            (Key::Outside(pair, behind), _) => natv6::arriving(frame, pair, behind, batch.hashes[at], scene),
            (Key::None | Key::Pair(_) | Key::Error(_), _) => continue,
        };
    }
}

/// A packet of a context, with a payload header at `place` or a flow label for one.
#[inline]
fn deliver<F: Frame>(frame: &mut F, slot: Slot, place: Option<Place>, scene: &mut Scene<'_>) -> Verdict {
    let header = if place.is_some() { PayloadHeader::LEN } else { 0 };
    let octets = frame.bytes().len().saturating_sub(ethernet::HEADER_LEN + header);
    let entry = scene.shard.entry(slot);
    let presented = entry.is_presented();
    let arrived = if entry.wants_arrival() { provider_it_came_by(frame, scene.snapshot) } else { None };
    let verdict = to_identifiers(frame, slot, place, scene.shard, scene.snapshot);
    let doubted = entry.is_in_doubt();
    if doubted {
        watch_received(frame, entry, verdict, scene.now, scene.replay);
    }
    if matches!(verdict, Verdict::Forward(_) | Verdict::Unresolved(..)) {
        if doubted {
            scene.shard.end_doubt(slot);
        }
        scene.counters.add(Count::TranslatedIn, 1);
        scene.shard.note(slot, Direction::In, octets);
        if let Some(provider) = arrived {
            scene.shard.note_arrival(slot, provider);
        }
        if place.is_none() {
            scene.counters.add(Count::LabelledIn, 1);
            scene.shard.note_label(slot, Direction::In);
        }
        if presented {
            natv6::heard(frame, slot, scene);
        }
    }
    verdict
}

/// RFC 5533 §12.2: what a context does to a packet with its tag, or its label. A packet that ends in an error is left as
/// it was.
#[inline(always)]
fn to_identifiers<F: Frame>(
    frame: &mut F,
    slot: Slot,
    place: Option<Place>,
    shard: &Shard,
    snapshot: &Snapshot,
) -> Verdict {
    let entry = shard.entry(slot);
    if entry.phase == Phase::Opening {
        return Verdict::Drop(DropReason::NotReady);
    }
    let Some(host) = snapshot.hosts.get(entry.host as usize) else { return Verdict::Drop(DropReason::NoRoute) };
    let Some(port) = snapshot.ports.get(usize::from(host.port.0)) else { return Verdict::Drop(DropReason::NoRoute) };
    let removed = if place.is_some() { PayloadHeader::LEN } else { 0 };
    let packet = frame.bytes().get(ethernet::HEADER_LEN..).unwrap_or_default();
    if packet.len() > usize::from(port.mtu) + removed {
        return Verdict::Reply(IcmpError::PacketTooBig(u32::from(port.mtu) + removed as u32));
    }
    if packet.get(7).is_none_or(|&hop_limit| hop_limit <= 1) {
        return Verdict::Reply(IcmpError::TimeExceeded);
    }
    if let Some(place) = place {
        let packet = frame.bytes_mut().get_mut(ethernet::HEADER_LEN..).unwrap_or_default();
        if payload::remove(packet, place).is_err() {
            return Verdict::Drop(DropReason::MalformedIpv6);
        }
        frame.trim_front(PayloadHeader::LEN);
    }
    let Ok(mut packet) = ipv6_of(frame) else { return Verdict::Drop(DropReason::MalformedIpv6) };
    packet.set_source(entry.ulids.peer.0);
    packet.set_target(entry.ulids.local.0);
    if place.is_none() {
        packet.set_flow_label(0);
    }
    let alive = packet.decrement_hop_limit();
    debug_assert!(alive, "looked at before the packet was touched");
    if snapshot.mss_clamp {
        clamp_inbound(frame, shard.way(slot), snapshot);
    }
    if entry.is_presented()
        && let Err(reason) = natv6::restored(frame, &entry.ulids, host.ulid)
    {
        return Verdict::Drop(reason);
    }
    address(frame, port.mac, host.mac, host.port, host.ulid.0)
}

fn ipv6_of<F: Frame>(frame: &mut F) -> Result<ipv6::ViewMut<'_>, ipv6::Malformed> {
    ipv6::ViewMut::new(frame.bytes_mut().get_mut(ethernet::HEADER_LEN..).unwrap_or_default())
}

/// Writes the Ethernet header.
#[inline]
fn address<F: Frame>(frame: &mut F, from: Mac, to: Option<Mac>, port: PortId, next_hop: Ipv6Addr) -> Verdict {
    let Ok(mut ether) = ethernet::ViewMut::new(frame.bytes_mut()) else { return Verdict::Drop(DropReason::NotIpv6) };
    ether.set(to.unwrap_or(Mac([0; 6])), from, EtherType::IPV6);
    match to {
        Some(_) => Verdict::Forward(port),
        None => Verdict::Unresolved(port, next_hop),
    }
}

// ---- what is rare ----

/// What comes from a port that nobody has a use for.
#[cold]
pub fn nowhere<F>(batch: &mut Batch<F>) {
    drop_all(batch);
}

#[cold]
fn drop_all<F>(batch: &mut Batch<F>) {
    batch.keys.resize(batch.frames.len(), Key::None);
    batch.verdicts.clear();
    batch.verdicts.resize(batch.frames.len(), Verdict::Drop(DropReason::NoRoute));
}
