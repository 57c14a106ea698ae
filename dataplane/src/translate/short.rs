//! The short way: packets of a context about which nothing is special, which is nearly all of them.
//!
//! It does to them what the long way does, octet for octet and count for count, and leaves all others as they are, with
//! the verdict [`Verdict::Lookup`], to the stages of [`translate`](super). So it never drops and never answers: what it
//! does not understand at first sight is not its business. A test sends packets of every kind both ways and compares.
//!
//! "Nothing special" is two questions of a few words each: one about the frame before its context is known, one about the
//! context ([`Entry::is_ordinary_out`](crate::context::Entry::is_ordinary_out)).
//!
//! Packets of other workers' contexts end here too where this worker has a copy of the context
//! ([`guests`](crate::context::shard::guests)), and are handed over otherwise.
//!
//! Lines of memory a packet needs beside its own: outbound one of the index and two of the context, inbound one of the
//! context and one of the host. Each is asked for, for a whole burst, before it is read.

use std::net::Ipv6Addr;

use super::{BURST, Batch, Scene, Verdict};
use crate::context::{Direction, Hasher, Shard, Slot};
use crate::counters::{Count, Counters};
use crate::port::Frame;
use crate::processor::prefetch;
use crate::snapshot::{HostView, PortId, PortView, ProviderView, Snapshot};
use crate::wire::ethernet::{self, EtherType, Mac};
use crate::wire::ipv6::{self, protocol};
use crate::wire::shim6::PayloadHeader;
use crate::wire::{ContextTag, Ulid, UlidPair};

/// Octets of Ethernet and IPv6 headers, and of those with a payload header.
const HEAD: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
const SHIM_HEAD: usize = HEAD + PayloadHeader::LEN;
/// Where the IPv6 header and its addresses are in a frame.
const IPV6: usize = ethernet::HEADER_LEN;
const SOURCE: usize = IPV6 + 8;
const TARGET: usize = IPV6 + 24;
/// Octet of a TCP header with its flags, and the one that opens connections.
const TCP_FLAGS: usize = 13;
const TCP_SYN: u8 = 2;

/// Not the hash of a packet. Of one that has it nevertheless the long way sees to it.
const NO_HASH: u64 = 0;
/// No tag.
const NO_TAG: u64 = u64::MAX;
/// Not a slot, for no table is so large, nor a port: the packet takes the long way.
const LONG: u32 = u32::MAX;
/// Not a slot either: the context is another worker's.
const STRANGER: u32 = u32::MAX - 1;

/// From the site to a provider. How many packets are left for the long way.
pub(super) fn outbound<F: Frame>(batch: &mut Batch<F>, scene: &mut Scene<'_>) -> usize {
    match scene.shard.takes_guests() {
        false => outbound_with::<F, false>(batch, scene),
        true => outbound_with::<F, true>(batch, scene),
    }
}

/// The same; `GUESTS` says whether packets of other workers' contexts may find them here.
#[inline(never)]
fn outbound_with<F: Frame, const GUESTS: bool>(batch: &mut Batch<F>, scene: &mut Scene<'_>) -> usize {
    let port = scene.snapshot.ports.get(usize::from(scene.port.0));
    let (Some(port), 1..=BURST) = (port, batch.frames.len()) else { return leave(batch) };
    let gate = Gate::new(port, scene.port, scene.snapshot);
    let hasher = *scene.shard.hasher();
    let (mut hashes, mut slots) = ([NO_HASH; BURST], [LONG; BURST]);
    for (frame, hash) in batch.frames.iter().zip(&mut hashes) {
        let Some(head) = gate.headers_of_host(frame.bytes()) else { continue };
        *hash = hash_of(&hasher, head);
        scene.shard.prefetch_pair(*hash);
    }
    let (shard, sharding, worker) = (&*scene.shard, *scene.sharding, scene.worker);
    for (&hash, slot) in hashes.iter().zip(first(&mut slots, batch.frames.len())) {
        if hash == NO_HASH {
            continue;
        }
        // Whose it is is asked last: whatever is found here may be used, and a guess that misleads is noticed when keys
        // are compared.
        if let Some(found) = shard.guess(hash) {
            shard.prefetch(found);
            *slot = found.number();
        } else if sharding.owner_of_hash(hash) != worker {
            *slot = STRANGER;
        }
    }
    let doors = Doors::out(scene.snapshot);
    let owner = |at: usize| sharding.owner_of_hash(hashes[at]);
    lend(scene, &slots, batch.frames.len());
    let ways = (&doors, scene.snapshot.providers.as_slice());
    let (shard, counters) = (&mut *scene.shard, scene.counters);
    if !shard.losses().any() {
        let send = |frame: &mut F, slot| send::<F, false, GUESTS>(frame, slot, shard, ways, counters);
        return finish(batch, &mut slots, counters, Count::TranslatedOut, owner, send);
    }
    outbound_amid_losses::<F, GUESTS>(batch, &mut slots, counters, owner, shard, ways)
}

/// The last step while a provider or a path is lost.
#[inline(never)]
fn outbound_amid_losses<F: Frame, const GUESTS: bool>(
    batch: &mut Batch<F>,
    slots: &mut [u32; BURST],
    counters: &Counters,
    owner: impl Fn(usize) -> u8,
    shard: &mut Shard,
    ways: (&Doors, &[ProviderView]),
) -> usize {
    for slot in slots.iter_mut().take(batch.frames.len()).filter(|slot| **slot < STRANGER) {
        if GUESTS && shard.is_lost_guest(Slot::from_number(*slot)) {
            *slot = STRANGER;
        } else {
            shard.prefetch_standby(Slot::from_number(*slot));
        }
    }
    let send = |frame: &mut F, slot| send::<F, true, GUESTS>(frame, slot, shard, ways, counters);
    finish(batch, slots, counters, Count::TranslatedOut, owner, send)
}

/// Gives copies of the contexts of packets that were handed over to who handed them over.
#[inline(always)]
fn lend(scene: &mut Scene<'_>, slots: &[u32; BURST], packets: usize) {
    if let Some(by) = scene.handed_by
        && scene.shard.lends()
    {
        for &slot in slots.iter().take(packets).filter(|slot| **slot < STRANGER) {
            scene.shard.lend(Slot::from_number(slot), by);
        }
    }
}

/// From a provider to the site. How many packets are left for the long way.
pub(super) fn inbound<F: Frame>(batch: &mut Batch<F>, scene: &mut Scene<'_>) -> usize {
    match scene.shard.takes_guests() {
        false => inbound_with::<F, false>(batch, scene),
        true => inbound_with::<F, true>(batch, scene),
    }
}

/// The same; `GUESTS` says whether packets of other workers' contexts may find them here.
#[inline(never)]
fn inbound_with<F: Frame, const GUESTS: bool>(batch: &mut Batch<F>, scene: &mut Scene<'_>) -> usize {
    let port = scene.snapshot.ports.get(usize::from(scene.port.0));
    let (Some(port), 1..=BURST, false) = (port, batch.frames.len(), scene.shard.is_strict()) else {
        return leave(batch);
    };
    let gate = Gate::new(port, scene.port, scene.snapshot);
    let (mut tags, mut slots) = ([NO_TAG; BURST], [LONG; BURST]);
    let (shard, sharding, worker) = (&*scene.shard, *scene.sharding, scene.worker);
    let place = |tag: ContextTag| match GUESTS {
        true => shard.place(tag, sharding.is_owner_of_tag(worker, tag)),
        false => shard.own_place(tag),
    };
    for (frame, tag) in batch.frames.iter().zip(&mut tags) {
        let Some(found) = gate.tag_of_peer(frame.bytes()) else { continue };
        *tag = found.value();
        shard.approach_slot(place(found));
    }
    for (&tag, slot) in tags.iter().zip(first(&mut slots, batch.frames.len())) {
        let Some(tag) = ContextTag::new(tag) else { continue };
        // Whose it is is asked last: a place holds what it is for, or something else.
        let found = place(tag);
        if let Some(entry) = shard.get(found)
            && let Some(host) = scene.snapshot.hosts.get(entry.host as usize)
            && entry.is_ordinary_in(tag)
        {
            prefetch(host);
            *slot = found.number();
        } else if !sharding.is_owner_of_tag(worker, tag) {
            *slot = sharding.owner_of_tag(tag).map_or(LONG, |_| STRANGER);
        }
    }
    lend(scene, &slots, batch.frames.len());
    let doors = Doors::inside(scene.snapshot);
    let owner = |at: usize| ContextTag::new(tags[at]).and_then(|tag| sharding.owner_of_tag(tag)).unwrap_or_default();
    let (shard, hosts) = (&mut *scene.shard, scene.snapshot.hosts.as_slice());
    finish(batch, &mut slots, scene.counters, Count::TranslatedIn, owner, |frame, slot| {
        deliver::<F, GUESTS>(frame, slot, shard, hosts, &doors)
    })
}

/// The slots of the packets there are.
#[inline(always)]
fn first(slots: &mut [u32; BURST], packets: usize) -> &mut [u32] {
    slots.get_mut(..packets).unwrap_or_default()
}

fn leave<F>(batch: &mut Batch<F>) -> usize {
    batch.verdicts.resize(batch.frames.len(), Verdict::Lookup);
    batch.frames.len()
}

/// Rewrites what has a slot, whose place in the list the port takes it leaves by. A burst that leaves by one port gets one
/// verdict, any other one for each packet.
#[inline(always)]
fn finish<F: Frame>(
    batch: &mut Batch<F>,
    slots: &mut [u32; BURST],
    counters: &Counters,
    count: Count,
    owner: impl Fn(usize) -> u8,
    mut rewrite: impl FnMut(&mut F, Slot) -> Option<PortId>,
) -> usize {
    let slots = first(slots, batch.frames.len());
    for (frame, slot) in batch.frames.iter_mut().zip(&mut *slots) {
        // What is no slot has no context, so it is not looked at twice.
        match rewrite(frame, Slot::from_number(*slot)) {
            Some(port) => *slot = port.0.into(),
            None if *slot == STRANGER => {}
            None => *slot = LONG,
        }
    }
    let exits = &*slots;
    let Some(&one) = exits.first() else { return 0 };
    // Without a way out of the loop, so that several are compared at once.
    let differ = exits.iter().fold(0, |differ, exit| differ | (exit ^ one));
    if differ == 0 && one < STRANGER {
        batch.all_to = Some(PortId(one as u8));
        counters.add(count, batch.frames.len() as u64);
        return 0;
    }
    judge(batch, exits, counters, count, owner)
}

impl<F> Batch<F> {
    /// Gives each a verdict of its own, also where all have the same.
    pub fn spell_out(&mut self) {
        if let Some(port) = self.all_to.take() {
            self.verdicts.resize(self.frames.len(), Verdict::Forward(port));
        }
    }
}

/// One verdict for each packet.
#[inline(never)]
fn judge<F>(
    batch: &mut Batch<F>,
    exits: &[u32],
    counters: &Counters,
    count: Count,
    owner: impl Fn(usize) -> u8,
) -> usize {
    let (mut left, mut done) = (0, 0);
    batch.verdicts.extend(exits.iter().enumerate().map(|(at, &exit)| match exit {
        LONG => {
            left += 1;
            Verdict::Lookup
        }
        STRANGER => Verdict::HandOver(owner(at)),
        port => {
            done += 1;
            Verdict::Forward(PortId(port as u8))
        }
    }));
    counters.add(count, done);
    left
}

/// What packets have to look like to come in. What is the same for all of a burst is worked out once.
struct Gate<'a> {
    /// The station's address.
    mac: u64,
    /// Whether TCP segments that offer a size are to be changed.
    clamp: bool,
    /// Next headers of hosts' packets that need no second look.
    plain: &'static [bool; 256],
    /// The site's addresses, or a few more.
    site: Area,
    /// Providers' locators, or a few more.
    delegated: Area,
    /// The prefix of locators that packets for this port mostly have.
    likely: u64,
    snapshot: &'a Snapshot,
}

/// First halves of addresses that have some bits in common, as they lie in memory.
struct Area {
    bits: u64,
    mask: u64,
}

impl Area {
    #[inline(always)]
    fn may_contain(&self, half: u64) -> bool {
        half & self.mask == self.bits
    }
}

/// Four octets in the middle of an Ethernet frame with IPv6: its type and version.
const TYPE: [u8; 2] = EtherType::IPV6.0.to_be_bytes();
const KIND: u32 = u32::from_ne_bytes([TYPE[0], TYPE[1], 0x60, 0]);
const KIND_MASK: u32 = u32::from_ne_bytes([0xff, 0xff, 0xf0, 0]);

/// Six octets from eight, whose last two are of no interest.
#[inline(always)]
const fn station(octets: [u8; 8]) -> u64 {
    u64::from_le_bytes(octets) << 16
}

/// Next headers behind which a payload header never belongs, and that are no ICMPv6.
const ORDINARY: [bool; 256] = {
    let mut ordinary = [true; 256];
    ordinary[protocol::HOP_BY_HOP as usize] = false;
    ordinary[protocol::ROUTING as usize] = false;
    ordinary[protocol::DESTINATION_OPTIONS as usize] = false;
    ordinary[protocol::ICMPV6 as usize] = false;
    ordinary
};
/// Those of them that are never followed by TCP.
const SIZELESS: [bool; 256] = {
    let mut sizeless = [false; 256];
    sizeless[protocol::UDP as usize] = true;
    sizeless[protocol::ESP as usize] = true;
    sizeless
};
static PLAIN: [&[bool; 256]; 2] = [&ORDINARY, &SIZELESS];

impl<'a> Gate<'a> {
    fn new(port: &PortView, at: PortId, snapshot: &'a Snapshot) -> Gate<'a> {
        let [a, b, c, d, e, f] = port.mac.0;
        let mac = station([a, b, c, d, e, f, 0, 0]);
        let (mut likely, mut mask) = (snapshot.providers.first().map_or(0, |first| first.prefix), u64::MAX);
        let first = likely;
        for provider in &snapshot.providers {
            mask &= !(provider.prefix ^ first);
            likely = if provider.port == at { provider.prefix } else { likely };
        }
        let delegated = Area { bits: (first & mask).to_be(), mask: mask.to_be() };
        let (bits, mask) = snapshot.site.first_half();
        let site = Area { bits: bits.to_be(), mask: mask.to_be() };
        let clamp = snapshot.mss_clamp;
        Gate { mac, clamp, plain: PLAIN[usize::from(clamp)], site, delegated, likely: likely.to_be(), snapshot }
    }

    /// A whole IPv6 packet for this station, without padding behind it, and not at the end of its hops.
    #[inline(always)]
    fn packet<'f, const N: usize>(&self, frame: &'f [u8]) -> Option<&'f [u8; N]> {
        let head: &[u8; N] = frame.first_chunk()?;
        let [.., a, b, _, hops] = *octets::<8, N>(head, IPV6);
        let ours = station(*octets(head, 0)) == self.mac;
        let ipv6 = u32::from_ne_bytes(*octets(head, IPV6 - TYPE.len())) & KIND_MASK == KIND;
        // No door lets a frame out of which the length has more than sixteen bits.
        let whole = u16::from_be_bytes([a, b]) == frame.len().wrapping_sub(HEAD) as u16;
        (ours && ipv6 && whole && hops > 1).then_some(head)
    }

    /// The headers of a packet of a host: one that is not for many, is no ICMPv6 error, and has no headers that a payload
    /// header would have to follow.
    #[inline(always)]
    fn headers_of_host<'f>(&self, frame: &'f [u8]) -> Option<&'f [u8; HEAD]> {
        let head: &[u8; HEAD] = self.packet(frame)?;
        let next_header = head[IPV6 + 6];
        let plain = self.plain[usize::from(next_header)] || self.is_plain(next_header, frame);
        (plain && head[TARGET] != 0xff).then_some(head)
    }

    /// The second look at what a host sends.
    #[inline(never)]
    fn is_plain(&self, next_header: u8, frame: &[u8]) -> bool {
        let Some(payload) = frame.get(HEAD..) else { return false };
        let ordinary = ORDINARY[usize::from(next_header)] || is_information(next_header, payload);
        ordinary && (!self.clamp || keeps_size(next_header, payload))
    }

    /// The tag of a packet of a peer whose payload header comes first.
    #[inline(always)]
    fn tag_of_peer(&self, frame: &[u8]) -> Option<ContextTag> {
        let head: &[u8; SHIM_HEAD] = self.packet(frame)?;
        if head[IPV6 + 6] != protocol::SHIM6 {
            return None;
        }
        let header = PayloadHeader::parse(&head[HEAD..]).ok()?;
        let as_it_is = !self.clamp || keeps_size(header.next_header, frame.get(SHIM_HEAD..)?);
        (as_it_is && self.is_honest(head)).then_some(header.tag)
    }

    /// Whether a packet is for a locator of ours, and from an address that may cross borders and is none of ours.
    #[inline(always)]
    fn is_honest(&self, head: &[u8; SHIM_HEAD]) -> bool {
        let source = u64::from_ne_bytes(*octets(head, SOURCE));
        let target = u64::from_ne_bytes(*octets(head, TARGET));
        // Whatever may not cross begins with other octets than these, and little that may.
        matches!(head[SOURCE], 1..=0xfd)
            && !self.site.may_contain(source)
            && (target == self.likely || self.snapshot.delegated(address(head, TARGET)))
            && (!self.delegated.may_contain(source) || !self.snapshot.delegated(address(head, SOURCE)))
    }
}

/// Whether a packet is an ICMPv6 message other than an error: those have the upper half of the types (RFC 4443 §2.1).
#[inline]
fn is_information(next_header: u8, payload: &[u8]) -> bool {
    next_header == protocol::ICMPV6 && payload.first().is_some_and(|kind| *kind >= 128)
}

/// Whether a packet has no TCP segment that offers a size.
fn keeps_size(next_header: u8, payload: &[u8]) -> bool {
    match next_header {
        protocol::UDP | protocol::ICMPV6 | protocol::ESP => true,
        protocol::TCP => payload.get(TCP_FLAGS).is_some_and(|flags| flags & TCP_SYN == 0),
        _ => false,
    }
}

/// Where packets leave, ready to be written.
struct Doors([Door; DOORS]);

/// More providers, or ports, than these are reached the long way.
const DOORS: usize = 16;

#[derive(Clone, Copy)]
struct Door {
    /// The Ethernet header and two octets more, that both may be moved at once.
    ether: [u8; 16],
    /// The longest packet that fits; none does where nothing is known of the way.
    most: usize,
    port: PortId,
}

impl Doors {
    const CLOSED: Door = Door { ether: [0; 16], most: 0, port: PortId(0) };

    /// By provider.
    fn out(snapshot: &Snapshot) -> Doors {
        let mut doors = Doors([Self::CLOSED; DOORS]);
        for (door, provider) in doors.0.iter_mut().zip(&snapshot.providers) {
            if let (Some(mac), Some(port)) = (provider.mac, snapshot.ports.get(usize::from(provider.port.0))) {
                *door = Door { ether: ether(mac, port.mac), most: port.mtu.into(), port: provider.port };
            }
        }
        doors
    }

    /// By port; the link-layer address is the host's.
    fn inside(snapshot: &Snapshot) -> Doors {
        let mut doors = Doors([Self::CLOSED; DOORS]);
        for ((door, port), at) in doors.0.iter_mut().zip(&snapshot.ports).zip(0..) {
            *door = Door { ether: ether(Mac::default(), port.mac), most: port.mtu.into(), port: PortId(at) };
        }
        doors
    }
}

fn ether(to: Mac, from: Mac) -> [u8; 16] {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (to.0, from.0);
    [a, b, c, d, e, f, g, h, i, j, k, l, TYPE[0], TYPE[1], 0, 0]
}

/// RFC 5533 §11.1. None, with the packet as it was, when the long way has to see to it. While something is lost (`AMID`),
/// the context's standby may take the place of its current pair. A copy (`GUESTS`) may be of a time when its provider's number
/// was another's.
#[inline(always)]
fn send<F: Frame, const AMID: bool, const GUESTS: bool>(
    frame: &mut F,
    slot: Slot,
    shard: &mut Shard,
    (doors, providers): (&Doors, &[ProviderView]),
    counters: &Counters,
) -> Option<PortId> {
    let entry = shard.get(slot)?;
    let standby = if AMID { shard.diverted(slot) } else { None };
    let (provider, locators) = match standby {
        Some(standby) if !standby.is_ordinary() => return None,
        Some(standby) => (standby.provider, &standby.locators),
        None => (entry.provider, &entry.locators),
    };
    let door = doors.0.get(usize::from(provider))?;
    if GUESTS && !providers.get(usize::from(provider)).is_some_and(|it| it.delegated(locators.local)) {
        return None;
    }
    if !frame.prepend(PayloadHeader::LEN) {
        return None;
    }
    let bytes = frame.bytes_mut();
    let length = bytes.len().wrapping_sub(IPV6 + PayloadHeader::LEN);
    let out: &mut [u8; SHIM_HEAD] = bytes.first_chunk_mut()?;
    // Of contexts from which nothing comes back, TCP is watched, wherever it may be.
    let next_header = out[IPV6 + PayloadHeader::LEN + 6];
    let watched = || !matches!(next_header, protocol::UDP | protocol::ICMPV6 | protocol::ESP);
    let [source, target] = [SOURCE, TARGET].map(|at| u128::from_ne_bytes(*octets(out, at + PayloadHeader::LEN)));
    let UlidPair { local: Ulid(local), peer: Ulid(peer) } = entry.ulids;
    let strange = source ^ u128::from_ne_bytes(local.octets()) | target ^ u128::from_ne_bytes(peer.octets());
    if strange != 0 || length + PayloadHeader::LEN > door.most || !entry.is_ordinary_out(watched) {
        frame.trim_front(PayloadHeader::LEN);
        return None;
    }
    let first = u64::from_be_bytes(*octets(out, IPV6 + PayloadHeader::LEN));
    // Payload length, next header and hop limit are the lower half of the word.
    let first = ((first + (8 << 16) - 1) & !0xff00) | u64::from(protocol::SHIM6) << 8;
    out[..16].copy_from_slice(&door.ether);
    out[IPV6..SOURCE].copy_from_slice(&first.to_be_bytes());
    out[SOURCE..TARGET].copy_from_slice(&locators.local.0.octets());
    out[TARGET..HEAD].copy_from_slice(&locators.peer.0.octets());
    out[HEAD..].copy_from_slice(&PayloadHeader { next_header, tag: entry.peer_tag() }.emit());
    if AMID && standby.is_some() {
        counters.add(Count::StandbyOut, 1);
    }
    shard.note(slot, Direction::Out, length);
    Some(door.port)
}

/// RFC 5533 §12.2. None, with the packet as it was, when the long way has to see to it. A copy (`GUESTS`) may be of a time when
/// its host's number was another's.
#[inline(always)]
fn deliver<F: Frame, const GUESTS: bool>(
    frame: &mut F,
    slot: Slot,
    shard: &mut Shard,
    hosts: &[HostView],
    doors: &Doors,
) -> Option<PortId> {
    let entry = shard.get(slot)?;
    let host = hosts.get(entry.host as usize)?;
    let door = doors.0.get(usize::from(host.port.0))?;
    let mac = host.mac.as_ref()?;
    if GUESTS && host.ulid != entry.ulids.local {
        return None;
    }
    let bytes = frame.bytes();
    let length = bytes.len().wrapping_sub(IPV6 + PayloadHeader::LEN);
    if length > door.most {
        return None;
    }
    let head: &[u8; SHIM_HEAD] = bytes.first_chunk()?;
    let first = u64::from_be_bytes(*octets(head, IPV6));
    let next_header = u64::from(head[HEAD]);
    // Before anything is written, while its length is still known.
    frame.trim_front(PayloadHeader::LEN);
    let out: &mut [u8; HEAD] = frame.bytes_mut().first_chunk_mut()?;
    let first = ((first - (8 << 16) - 1) & !0xff00) | next_header << 8;
    out[..6].copy_from_slice(&mac.0);
    out[6..IPV6].copy_from_slice(&door.ether[6..IPV6]);
    out[IPV6..SOURCE].copy_from_slice(&first.to_be_bytes());
    out[SOURCE..TARGET].copy_from_slice(&entry.ulids.peer.0.octets());
    out[TARGET..].copy_from_slice(&entry.ulids.local.0.octets());
    shard.note(slot, Direction::In, length);
    Some(door.port)
}

/// `N` octets from `at` on, which is a constant within the array.
#[inline(always)]
fn octets<const N: usize, const M: usize>(all: &[u8; M], at: usize) -> &[u8; N] {
    match all.get(at..).and_then(<[u8]>::first_chunk) {
        Some(octets) => octets,
        None => &[0; N],
    }
}

#[inline(always)]
fn address<const M: usize>(head: &[u8; M], at: usize) -> Ipv6Addr {
    Ipv6Addr::from(*octets::<16, M>(head, at))
}

#[inline(always)]
fn hash_of(hasher: &Hasher, head: &[u8; HEAD]) -> u64 {
    hasher.pair(&UlidPair { local: Ulid(address(head, SOURCE)), peer: Ulid(address(head, TARGET)) })
}

#[cfg(test)]
#[path = "short_tests.rs"]
mod tests;
