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

use super::{BURST, Batch, Scene, Verdict, may_cross};
use crate::context::{Direction, Guess, Slot};
use crate::counters::Count;
use crate::port::Frame;
use crate::processor::prefetch;
use crate::snapshot::{PortView, Snapshot};
use crate::wire::ethernet::{self, Mac};
use crate::wire::ipv6::{self, protocol};
use crate::wire::shim6::PayloadHeader;
use crate::wire::{ContextTag, Ulid, UlidPair};

/// Octets of Ethernet and IPv6 headers, and of those with a payload header.
const HEAD: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
const SHIM_HEAD: usize = HEAD + PayloadHeader::LEN;
const TYPE_IPV6: [u8; 2] = ethernet::EtherType::IPV6.0.to_be_bytes();
/// ACK and others may be set in a TCP header; SYN is what matters here.
const TCP_FLAGS: usize = 13;
const TCP_SYN: u8 = 2;

/// What the short way knows of a packet so far.
#[derive(Clone, Copy)]
enum Step {
    /// It takes the long way.
    Long,
    /// Its context is another worker's.
    Stranger(u8),
    /// Its context is looked for under this hash.
    Hash(u64),
    /// Its context may be the one in this slot.
    At(Slot, ContextTag),
}

/// From the site to a provider. How many packets are left for the long way.
pub(super) fn outbound<F: Frame>(batch: &mut Batch<F>, scene: &mut Scene<'_>) -> usize {
    let Some((port, mut steps)) = begin(batch, scene) else { return leave(batch) };
    let gate = Gate::new(port);
    for (frame, step) in batch.frames.iter().zip(&mut steps) {
        let Some(pair) = gate.from_site(frame.bytes(), scene.snapshot) else { continue };
        let hash = scene.shard.hasher().pair(&pair);
        *step = match scene.sharding.owner_of_hash(hash) {
            owner if owner == scene.worker => Step::Hash(hash),
            owner => Step::Stranger(owner),
        };
        scene.shard.prefetch_pair(hash);
    }
    for step in steps.iter_mut().take(batch.frames.len()) {
        let Step::Hash(hash) = *step else { continue };
        *step = Step::Long;
        if let Guess::Slot(slot) = scene.shard.guess(hash) {
            scene.shard.prefetch(slot);
            *step = Step::At(slot, ContextTag::MAX);
        }
    }
    finish(batch, &steps, scene, Count::TranslatedOut, send)
}

/// From a provider to the site. How many packets are left for the long way.
pub(super) fn inbound<F: Frame>(batch: &mut Batch<F>, scene: &mut Scene<'_>) -> usize {
    let Some((port, mut steps)) = begin(batch, scene) else { return leave(batch) };
    if scene.shard.is_strict() {
        return leave(batch);
    }
    let gate = Gate::new(port);
    for (frame, step) in batch.frames.iter().zip(&mut steps) {
        let Some(tag) = gate.from_provider(frame.bytes(), scene.snapshot) else { continue };
        *step = match scene.sharding.owner_of_tag(tag) {
            Some(owner) if owner == scene.worker => scene.shard.approach_tag(tag).map_or(Step::Long, |slot| Step::At(slot, tag)),
            Some(owner) => Step::Stranger(owner),
            None => Step::Long,
        };
    }
    for step in steps.iter_mut().take(batch.frames.len()) {
        let Step::At(slot, tag) = *step else { continue };
        let entry = scene.shard.entry(slot);
        match scene.snapshot.hosts.get(entry.host as usize) {
            Some(host) if entry.is_ordinary_in(tag) => prefetch(host),
            _ => *step = Step::Long,
        }
    }
    finish(batch, &steps, scene, Count::TranslatedIn, deliver)
}

fn begin<'a, F>(batch: &Batch<F>, scene: &Scene<'a>) -> Option<(&'a PortView, [Step; BURST])> {
    let port = scene.snapshot.ports.get(usize::from(scene.port.0))?;
    (batch.frames.len() <= BURST).then_some((port, [Step::Long; BURST]))
}

fn leave<F>(batch: &mut Batch<F>) -> usize {
    batch.verdicts.resize(batch.frames.len(), Verdict::Lookup);
    batch.frames.len()
}

/// Rewrites what has a slot and gives every packet a verdict.
#[inline(always)]
fn finish<F: Frame>(
    batch: &mut Batch<F>,
    steps: &[Step; BURST],
    scene: &mut Scene<'_>,
    count: Count,
    rewrite: impl Fn(&mut F, Slot, &mut Scene<'_>) -> Option<Verdict>,
) -> usize {
    let (mut left, mut done) = (0, 0);
    for (frame, step) in batch.frames.iter_mut().zip(steps) {
        let verdict = match *step {
            Step::At(slot, _) => rewrite(frame, slot, scene),
            Step::Stranger(owner) => Some(Verdict::HandOver(owner)),
            Step::Long | Step::Hash(_) => None,
        };
        match verdict {
            Some(Verdict::Forward(_)) => done += 1,
            Some(_) => {}
            None => left += 1,
        }
        batch.verdicts.push(verdict.unwrap_or(Verdict::Lookup));
    }
    scene.counters.add(count, done);
    left
}

/// What frames have to look like to come in.
struct Gate {
    mac: Mac,
}

impl Gate {
    fn new(port: &PortView) -> Gate {
        Gate { mac: port.mac }
    }

    /// A whole IPv6 packet for this station, without padding behind it, and not at the end of its hops.
    #[inline(always)]
    fn packet<'a, const N: usize>(&self, frame: &'a [u8]) -> Option<&'a [u8; N]> {
        let head: &[u8; N] = frame.first_chunk()?;
        let is_ipv6 = head[12..14] == TYPE_IPV6 && head[14] >> 4 == 6;
        let length = usize::from(u16::from_be_bytes([head[18], head[19]])) + HEAD;
        (head[..6] == self.mac.0 && is_ipv6 && length == frame.len() && head[21] > 1).then_some(head)
    }

    /// The identifiers of a packet of a host: one without headers that a payload header would have to follow, or whose
    /// segment size is to be looked at, and no ICMPv6 error.
    #[inline(always)]
    fn from_site(&self, frame: &[u8], snapshot: &Snapshot) -> Option<UlidPair> {
        let head: &[u8; HEAD] = self.packet(frame)?;
        let ordinary = match head[20] {
            protocol::UDP => true,
            protocol::TCP => !snapshot.mss_clamp || is_past_syn(frame.get(HEAD..)?),
            // Informational messages have the upper half of the types.
            protocol::ICMPV6 => *frame.get(HEAD)? >= 128,
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => false,
            _ => !snapshot.mss_clamp,
        };
        let pair = UlidPair { local: Ulid(address(head, 22)), peer: Ulid(address(head, 38)) };
        (ordinary && head[38] != 0xff).then_some(pair)
    }

    /// The tag of a packet of a peer whose payload header comes first.
    #[inline(always)]
    fn from_provider(&self, frame: &[u8], snapshot: &Snapshot) -> Option<ContextTag> {
        let head: &[u8; SHIM_HEAD] = self.packet(frame)?;
        let source = address(head, 22);
        let header = PayloadHeader::parse(&head[HEAD..]).ok()?;
        let ordinary = match header.next_header {
            protocol::UDP => true,
            protocol::TCP => !snapshot.mss_clamp || is_past_syn(frame.get(SHIM_HEAD..)?),
            _ => !snapshot.mss_clamp,
        };
        let honest = snapshot.delegated(address(head, 38))
            && may_cross(source)
            && !snapshot.site.contains(source)
            && !snapshot.delegated(source);
        (head[20] == protocol::SHIM6 && ordinary && honest).then_some(header.tag)
    }
}

#[inline(always)]
fn address(head: &[u8], at: usize) -> std::net::Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&head[at..at + 16]);
    octets.into()
}

/// Whether octets are a TCP segment that opens nothing.
fn is_past_syn(segment: &[u8]) -> bool {
    segment.get(TCP_FLAGS).is_some_and(|flags| flags & TCP_SYN == 0)
}

/// RFC 5533 §11.1. None, with the packet as it was, when the long way has to see to it.
#[inline(always)]
fn send<F: Frame>(frame: &mut F, slot: Slot, scene: &mut Scene<'_>) -> Option<Verdict> {
    let entry = scene.shard.entry(slot);
    let head: &[u8; HEAD] = frame.bytes().first_chunk()?;
    let octets = frame.bytes().len() - ethernet::HEADER_LEN;
    let pair = UlidPair { local: Ulid(address(head, 22)), peer: Ulid(address(head, 38)) };
    let provider = scene.snapshot.providers.get(usize::from(entry.provider))?;
    let port = scene.snapshot.ports.get(usize::from(provider.port.0))?;
    let fits = octets + PayloadHeader::LEN <= usize::from(port.mtu);
    let (mac, true) = (provider.mac?, entry.is_ordinary_out(&pair) && fits) else { return None };
    if !frame.prepend(PayloadHeader::LEN) {
        return None;
    }
    let out: &mut [u8; SHIM_HEAD] = frame.bytes_mut().first_chunk_mut()?;
    let [a, b, c, d, _, _, next_header, hops] = *octets_at::<8>(out, 22);
    let length = (octets - ipv6::HEADER_LEN + PayloadHeader::LEN) as u16;
    ether(out, mac, port.mac);
    out[14..18].copy_from_slice(&[a, b, c, d]);
    out[18..20].copy_from_slice(&length.to_be_bytes());
    out[20..22].copy_from_slice(&[protocol::SHIM6, hops - 1]);
    out[22..38].copy_from_slice(&entry.locators.local.0.octets());
    out[38..54].copy_from_slice(&entry.locators.peer.0.octets());
    out[54..].copy_from_slice(&PayloadHeader { next_header, tag: entry.peer_tag }.emit());
    let to = provider.port;
    scene.shard.note(slot, Direction::Out, octets);
    Some(Verdict::Forward(to))
}

/// RFC 5533 §12.2. None, with the packet as it was, when the long way has to see to it.
#[inline(always)]
fn deliver<F: Frame>(frame: &mut F, slot: Slot, scene: &mut Scene<'_>) -> Option<Verdict> {
    let entry = scene.shard.entry(slot);
    let host = scene.snapshot.hosts.get(entry.host as usize)?;
    let port = scene.snapshot.ports.get(usize::from(host.port.0))?;
    let mac = host.mac?;
    let octets = frame.bytes().len().checked_sub(ethernet::HEADER_LEN + PayloadHeader::LEN)?;
    if octets > usize::from(port.mtu) {
        return None;
    }
    let out: &mut [u8; SHIM_HEAD] = frame.bytes_mut().first_chunk_mut()?;
    let [a, b, c, d, _, _, _, hops] = *octets_at::<8>(out, 14);
    let next_header = out[HEAD];
    let out: &mut [u8; HEAD] = out.last_chunk_mut()?;
    ether(out, mac, port.mac);
    out[14..18].copy_from_slice(&[a, b, c, d]);
    out[18..20].copy_from_slice(&((octets - ipv6::HEADER_LEN) as u16).to_be_bytes());
    out[20..22].copy_from_slice(&[next_header, hops - 1]);
    out[22..38].copy_from_slice(&entry.ulids.peer.0.octets());
    out[38..54].copy_from_slice(&entry.ulids.local.0.octets());
    frame.trim_front(PayloadHeader::LEN);
    scene.shard.note(slot, Direction::In, octets);
    Some(Verdict::Forward(host.port))
}

/// `N` octets from `at` on, both of which are constants within the array.
#[inline(always)]
fn octets_at<const N: usize>(all: &[u8], at: usize) -> &[u8; N] {
    match all.get(at..).and_then(<[u8]>::first_chunk) {
        Some(octets) => octets,
        None => &[0; N],
    }
}

#[inline(always)]
fn ether(out: &mut [u8], to: Mac, from: Mac) {
    out[..6].copy_from_slice(&to.0);
    out[6..12].copy_from_slice(&from.0);
    out[12..14].copy_from_slice(&TYPE_IPV6);
}
