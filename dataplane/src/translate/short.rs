//! The short way: packets of a context about which nothing is special, which is nearly all of them.
//!
//! It does to them what the long way does, octet for octet and count for count, and leaves all others as they are, with
//! the verdict [`Verdict::Lookup`], to the stages of [`translate`](super). So it never drops and never answers: what it
//! does not understand at first sight is not its business. A test sends packets of every kind both ways and compares.
//!
//! "Nothing special" is two questions of a few words each: one about the frame before its context is known, one about the
//! context ([`Entry::is_ordinary_out`](crate::context::Entry::is_ordinary_out)).
//!
//! Lines of memory a packet needs beside its own: outbound one of the index and two of the context, inbound one of the
//! context and one of the host. Each is asked for, for a whole burst, before it is read.

use std::net::Ipv6Addr;

use super::{BURST, Batch, Scene, Verdict, may_cross};
use crate::context::{Direction, Guess, Hasher, Shard, Slot};
use crate::counters::{Count, Counters};
use crate::port::Frame;
use crate::processor::prefetch;
use crate::snapshot::{HostView, PortId, PortView, Snapshot};
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

/// Not a slot: the packet takes the long way.
const LONG: u32 = u32::MAX;
/// Not a slot either: the context is another worker's.
const STRANGER: u32 = u32::MAX - 1;

/// From the site to a provider. How many packets are left for the long way.
pub(super) fn outbound<F: Frame>(batch: &mut Batch<F>, scene: &mut Scene<'_>) -> usize {
    let port = scene.snapshot.ports.get(usize::from(scene.port.0));
    let (Some(port), 1..=BURST) = (port, batch.frames.len()) else { return leave(batch) };
    let gate = Gate::new(port, scene.snapshot);
    let hasher = *scene.shard.hasher();
    let (mut hashes, mut slots) = ([0; BURST], [LONG; BURST]);
    for ((frame, hash), slot) in batch.frames.iter().zip(&mut hashes).zip(&mut slots) {
        let Some(head) = gate.headers_of_host(frame.bytes()) else { continue };
        *hash = hash_of(&hasher, head);
        scene.shard.prefetch_pair(*hash);
        *slot = if scene.sharding.owner_of_hash(*hash) == scene.worker { 0 } else { STRANGER };
    }
    for (hash, slot) in hashes.iter().zip(&mut slots).take(batch.frames.len()) {
        if *slot == 0 {
            *slot = match scene.shard.guess(*hash) {
                Guess::Slot(found) => {
                    scene.shard.prefetch(found);
                    found.number()
                }
                Guess::Elsewhere | Guess::Nowhere => LONG,
            };
        }
    }
    let doors = Doors::out(scene.snapshot);
    let owner = |at: usize| scene.sharding.owner_of_hash(hashes[at]);
    let (shard, counters) = (&mut *scene.shard, scene.counters);
    if !shard.losses().any() {
        let send = |frame: &mut F, slot| send::<F, false>(frame, slot, shard, &doors, counters);
        return finish(batch, &slots, counters, Count::TranslatedOut, owner, send);
    }
    outbound_amid_losses(batch, &slots, counters, owner, shard, &doors)
}

/// The last step while a provider or a path is lost.
#[inline(never)]
fn outbound_amid_losses<F: Frame>(
    batch: &mut Batch<F>,
    slots: &[u32; BURST],
    counters: &Counters,
    owner: impl Fn(usize) -> u8,
    shard: &mut Shard,
    doors: &Doors,
) -> usize {
    for &slot in slots.iter().take(batch.frames.len()).filter(|slot| **slot < STRANGER) {
        shard.prefetch_standby(Slot::from_number(slot));
    }
    let send = |frame: &mut F, slot| send::<F, true>(frame, slot, shard, doors, counters);
    finish(batch, slots, counters, Count::TranslatedOut, owner, send)
}

/// From a provider to the site. How many packets are left for the long way.
pub(super) fn inbound<F: Frame>(batch: &mut Batch<F>, scene: &mut Scene<'_>) -> usize {
    let port = scene.snapshot.ports.get(usize::from(scene.port.0));
    let (Some(port), 1..=BURST, false) = (port, batch.frames.len(), scene.shard.is_strict()) else {
        return leave(batch);
    };
    let gate = Gate::new(port, scene.snapshot);
    let (mut tags, mut slots) = ([ContextTag::MAX; BURST], [LONG; BURST]);
    for ((frame, tag), slot) in batch.frames.iter().zip(&mut tags).zip(&mut slots) {
        let Some(found) = gate.tag_of_peer(frame.bytes()) else { continue };
        *tag = found;
        *slot = match scene.sharding.owner_of_tag(found) {
            Some(owner) if owner == scene.worker => scene.shard.approach_tag(found).map_or(LONG, Slot::number),
            Some(_) => STRANGER,
            None => LONG,
        };
    }
    for (tag, slot) in tags.iter().zip(&mut slots).take(batch.frames.len()) {
        if *slot < STRANGER {
            let entry = scene.shard.entry(Slot::from_number(*slot));
            match scene.snapshot.hosts.get(entry.host as usize) {
                Some(host) if entry.is_ordinary_in(*tag) => prefetch(host),
                _ => *slot = LONG,
            }
        }
    }
    let doors = Doors::inside(scene.snapshot);
    let owner = |at: usize| scene.sharding.owner_of_tag(tags[at]).unwrap_or_default();
    let (shard, hosts) = (&mut *scene.shard, scene.snapshot.hosts.as_slice());
    finish(batch, &slots, scene.counters, Count::TranslatedIn, owner, |frame, slot| {
        deliver(frame, slot, shard, hosts, &doors)
    })
}

fn leave<F>(batch: &mut Batch<F>) -> usize {
    batch.verdicts.resize(batch.frames.len(), Verdict::Lookup);
    batch.frames.len()
}

/// Rewrites what has a slot and gives every packet a verdict.
#[inline(always)]
fn finish<F: Frame>(
    batch: &mut Batch<F>,
    slots: &[u32; BURST],
    counters: &Counters,
    count: Count,
    owner: impl Fn(usize) -> u8,
    mut rewrite: impl FnMut(&mut F, Slot) -> Option<PortId>,
) -> usize {
    let (mut left, mut done, mut ports) = (0, 0, [PortId(0), PortId(u8::MAX)]);
    let verdicts = batch.frames.iter_mut().zip(slots).enumerate().map(|(at, (frame, &slot))| {
        if slot < STRANGER
            && let Some(port) = rewrite(frame, Slot::from_number(slot))
        {
            done += 1;
            ports = [ports[0].max(port), ports[1].min(port)];
            return Verdict::Forward(port);
        }
        if slot == STRANGER {
            return Verdict::HandOver(owner(at));
        }
        left += 1;
        Verdict::Lookup
    });
    batch.verdicts.extend(verdicts);
    let all = done == batch.frames.len() as u64 && ports[0] == ports[1];
    batch.all_to = Some(ports[0]).filter(|_| all);
    counters.add(count, done);
    left
}

/// What packets have to look like to come in.
struct Gate<'a> {
    /// The first eight octets, of which the first six are the station's address.
    mac: u64,
    snapshot: &'a Snapshot,
}

const MAC_MASK: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
/// The second eight octets of an Ethernet frame with IPv6: the last four are its type and version.
const TYPE: [u8; 2] = EtherType::IPV6.0.to_be_bytes();
const KIND: u64 = u64::from_ne_bytes([0, 0, 0, 0, TYPE[0], TYPE[1], 0x60, 0]);
const KIND_MASK: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0xff, 0xff, 0xf0, 0]);

/// Next headers behind which a payload header never belongs, and that are no ICMPv6.
const ORDINARY: [bool; 256] = {
    let mut ordinary = [true; 256];
    ordinary[protocol::HOP_BY_HOP as usize] = false;
    ordinary[protocol::ROUTING as usize] = false;
    ordinary[protocol::DESTINATION_OPTIONS as usize] = false;
    ordinary[protocol::ICMPV6 as usize] = false;
    ordinary
};

impl<'a> Gate<'a> {
    fn new(port: &PortView, snapshot: &'a Snapshot) -> Gate<'a> {
        let [a, b, c, d, e, f] = port.mac.0;
        Gate { mac: u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]), snapshot }
    }

    /// A whole IPv6 packet for this station, without padding behind it, and not at the end of its hops.
    #[inline(always)]
    fn packet<'f, const N: usize>(&self, frame: &'f [u8]) -> Option<&'f [u8; N]> {
        let head: &[u8; N] = frame.first_chunk()?;
        let [.., a, b, _, hops] = *octets::<8, N>(head, IPV6);
        let ours = u64::from_ne_bytes(*octets(head, 0)) & MAC_MASK == self.mac;
        let ipv6 = u64::from_ne_bytes(*octets(head, 8)) & KIND_MASK == KIND;
        let whole = usize::from(u16::from_be_bytes([a, b])) + HEAD == frame.len();
        (ours && ipv6 && whole && hops > 1).then_some(head)
    }

    /// The headers of a packet of a host: one that is not for many, is no ICMPv6 error, and has no headers that a payload
    /// header would have to follow.
    #[inline(always)]
    fn headers_of_host<'f>(&self, frame: &'f [u8]) -> Option<&'f [u8; HEAD]> {
        let head: &[u8; HEAD] = self.packet(frame)?;
        let next_header = head[IPV6 + 6];
        let ordinary = ORDINARY[usize::from(next_header)] || is_information(next_header, frame.get(HEAD..)?);
        let as_it_is = !self.snapshot.mss_clamp || keeps_size(next_header, frame.get(HEAD..)?);
        (ordinary && as_it_is && head[TARGET] != 0xff).then_some(head)
    }

    /// The tag of a packet of a peer whose payload header comes first.
    #[inline(always)]
    fn tag_of_peer(&self, frame: &[u8]) -> Option<ContextTag> {
        let head: &[u8; SHIM_HEAD] = self.packet(frame)?;
        let header = PayloadHeader::parse(&head[HEAD..]).ok()?;
        let source = address(head, SOURCE);
        let as_it_is = !self.snapshot.mss_clamp || keeps_size(header.next_header, frame.get(SHIM_HEAD..)?);
        let honest = self.snapshot.delegated(address(head, TARGET))
            && may_cross(source)
            && !self.snapshot.site.contains(source)
            && !self.snapshot.delegated(source);
        (head[IPV6 + 6] == protocol::SHIM6 && as_it_is && honest).then_some(header.tag)
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
/// the context's standby may take the place of its current pair.
#[inline(always)]
fn send<F: Frame, const AMID: bool>(
    frame: &mut F,
    slot: Slot,
    shard: &mut Shard,
    doors: &Doors,
    counters: &Counters,
) -> Option<PortId> {
    let entry = shard.entry(slot);
    let standby = if AMID { shard.diverted(slot) } else { None };
    let (provider, locators) = match standby {
        Some(standby) if !standby.is_ordinary() => return None,
        Some(standby) => (standby.provider, &standby.locators),
        None => (entry.provider, &entry.locators),
    };
    let door = doors.0.get(usize::from(provider))?;
    if !frame.prepend(PayloadHeader::LEN) {
        return None;
    }
    let bytes = frame.bytes_mut();
    let length = bytes.len().wrapping_sub(IPV6 + PayloadHeader::LEN);
    let out: &mut [u8; SHIM_HEAD] = bytes.first_chunk_mut()?;
    let pair = UlidPair {
        local: Ulid(address(out, SOURCE + PayloadHeader::LEN)),
        peer: Ulid(address(out, TARGET + PayloadHeader::LEN)),
    };
    let first = u64::from_be_bytes(*octets(out, IPV6 + PayloadHeader::LEN));
    let next_header = (first >> 8) as u8;
    // Of contexts from which nothing comes back, TCP is watched, wherever it may be.
    let watched = !matches!(next_header, protocol::UDP | protocol::ICMPV6 | protocol::ESP);
    if length + PayloadHeader::LEN > door.most || !entry.is_ordinary_out(&pair, watched) {
        frame.trim_front(PayloadHeader::LEN);
        return None;
    }
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

/// RFC 5533 §12.2. None, with the packet as it was, when the long way has to see to it.
#[inline(always)]
fn deliver<F: Frame>(
    frame: &mut F,
    slot: Slot,
    shard: &mut Shard,
    hosts: &[HostView],
    doors: &Doors,
) -> Option<PortId> {
    let entry = shard.entry(slot);
    let host = hosts.get(entry.host as usize)?;
    let door = doors.0.get(usize::from(host.port.0))?;
    let mac = host.mac?;
    let bytes = frame.bytes_mut();
    let length = bytes.len().wrapping_sub(IPV6 + PayloadHeader::LEN);
    if length > door.most {
        return None;
    }
    let out: &mut [u8; SHIM_HEAD] = bytes.first_chunk_mut()?;
    let first = u64::from_be_bytes(*octets(out, IPV6));
    let next_header = u64::from(out[HEAD]);
    let out: &mut [u8; HEAD] = out.last_chunk_mut()?;
    out[..16].copy_from_slice(&door.ether);
    out[..6].copy_from_slice(&mac.0);
    let first = ((first - (8 << 16) - 1) & !0xff00) | next_header << 8;
    out[IPV6..SOURCE].copy_from_slice(&first.to_be_bytes());
    out[SOURCE..TARGET].copy_from_slice(&entry.ulids.peer.0.octets());
    out[TARGET..].copy_from_slice(&entry.ulids.local.0.octets());
    frame.trim_front(PayloadHeader::LEN);
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
