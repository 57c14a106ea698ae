//! What became of single packets, for whoever asks: a filter, and a ring of records to control.
//!
//! A worker that traces nothing has no [`Tracer`], and that is all it looks at, once for each burst. While it traces it copies the
//! beginning of each packet before it is touched, and tells what became of those that pass the filter. Ring and rate are
//! bounded; what finds no room is counted and no packet waits for it.

use std::net::Ipv6Addr;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::bucket::TokenBucket;
use crate::counters::{Count, Counters, DropReason};
use crate::snapshot::{Block, PortId};
use crate::wire::shim6::PayloadHeader;
use crate::wire::{ContextTag, LocatorPair, UlidPair};
use crate::wire::{ethernet, ipv6};

/// Octets kept of a frame: headers, and a little of what they carry.
pub const SNAP: usize = 192;

/// Records on their way from one worker.
const RING: usize = 512;

/// Which packets are traced: those that pass all that is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// For each of these, an address of the packet lies in it, before or after it was translated.
    pub addresses: [Option<Block>; 2],
    /// Our tag or the peer's.
    pub tag: Option<ContextTag>,
    /// An address lies in this provider's prefix of locators, given by its first 64 bits.
    pub provider: Option<u64>,
    /// Dropped for this reason.
    pub reason: Option<DropReason>,
    /// Dropped, for whatever reason.
    pub dropped: bool,
    /// Records a second of each worker; none are made beyond that.
    pub per_second: u32,
}

/// The beginning of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Octets {
    octets: [u8; SNAP],
    kept: u16,
    /// Octets of the whole frame.
    pub whole: u32,
}

impl Octets {
    /// The beginning of `frame`.
    pub fn of(frame: &[u8]) -> Octets {
        let mut octets = [0; SNAP];
        let kept = frame.len().min(SNAP);
        octets[..kept].copy_from_slice(&frame[..kept]);
        Octets { octets, kept: kept as u16, whole: u32::try_from(frame.len()).unwrap_or(u32::MAX) }
    }

    /// What was kept.
    pub fn bytes(&self) -> &[u8] {
        self.octets.get(..usize::from(self.kept)).unwrap_or_default()
    }

    /// Source and target, if it is an IPv6 packet.
    pub fn addresses(&self) -> Option<[Ipv6Addr; 2]> {
        let bytes = self.bytes();
        let address = |at: usize| bytes.get(at..at + 16)?.first_chunk::<16>().copied().map(Ipv6Addr::from);
        (bytes.get(12..14)? == [0x86, 0xdd]).then_some([address(22)?, address(38)?])
    }
}

/// What was decided about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Sent through a port.
    Forward(PortId),
    /// Translated; sent when this neighbour has answered.
    AwaitNeighbour(PortId, Ipv6Addr),
    /// Kept until its pair has a context.
    Hold,
    /// Given to control.
    Control(&'static str),
    /// Given to the worker that owns its context.
    HandOver(u8),
    /// Cut into fragments of at most so many octets.
    Fragment(u16),
    /// Answered by an ICMPv6 error.
    Answer(&'static str),
    /// Dropped.
    Drop,
}

/// The context a packet went by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Our tag.
    pub local_tag: ContextTag,
    /// The peer's.
    pub peer_tag: ContextTag,
    /// Its identifiers.
    pub ulids: UlidPair,
    /// The pair packets go by.
    pub locators: LocatorPair,
    /// Provider of the local locator, as an index into the snapshot.
    pub provider: u8,
    /// Whether that pair is the standby, because the other one's provider or path is lost.
    pub standby: bool,
    /// Whether both directions are open.
    pub live: bool,
    /// Whether it is a forked context.
    pub forked: bool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Milliseconds, as the worker counts.
    pub now: u64,
    /// Who had it.
    pub worker: u8,
    /// Where it came in.
    pub port: PortId,
    /// Whether a worker or control had it before, in words.
    pub origin: &'static str,
    /// As it was.
    pub before: Octets,
    /// As it is now.
    pub after: Octets,
    /// What was decided.
    pub decision: Decision,
    /// Why it was dropped, if it was.
    pub reason: Option<DropReason>,
    /// By which context.
    pub context: Option<Traced>,
}

/// What a worker that traces has.
pub struct Tracer {
    filter: Filter,
    ring: Producer<Record>,
    bucket: TokenBucket,
    /// The present burst as it was.
    before: Vec<Octets>,
    /// Drops counted before a packet was settled.
    drops: [u64; DropReason::ALL.len()],
}

impl Tracer {
    /// A tracer for a worker whose bursts have at most `burst` packets, and the end at which its records come out.
    pub fn new(filter: Filter, burst: usize) -> (Tracer, Consumer<Record>) {
        let (ring, records) = RingBuffer::new(RING);
        let bucket = TokenBucket::new(filter.per_second, filter.per_second);
        let tracer =
            Tracer { filter, ring, bucket, before: Vec::with_capacity(burst), drops: [0; DropReason::ALL.len()] };
        (tracer, records)
    }

    /// A burst comes: nothing of it was touched yet.
    pub(crate) fn begin<'a>(&mut self, frames: impl Iterator<Item = &'a [u8]>) {
        self.before.clear();
        let room = self.before.capacity();
        self.before.extend(frames.take(room).map(Octets::of));
    }

    /// A packet of the burst as it was.
    pub(crate) fn before(&self, at: usize) -> Option<&Octets> {
        self.before.get(at)
    }

    /// Remembers what was dropped before a packet is settled.
    pub(crate) fn mark(&mut self, counters: &Counters) {
        for (seen, reason) in self.drops.iter_mut().zip(DropReason::ALL) {
            *seen = counters.dropped(*reason);
        }
    }

    /// Why a packet was dropped that was settled since.
    pub(crate) fn reason(&self, counters: &Counters) -> Option<DropReason> {
        let grown = |(seen, reason): &(&u64, &DropReason)| counters.dropped(**reason) != **seen;
        self.drops.iter().zip(DropReason::ALL).find(grown).map(|(_, reason)| *reason)
    }

    /// Tells of a packet, if that is wanted.
    pub(crate) fn tell(&mut self, record: Record, counters: &Counters) {
        if !self.filter.passes(&record) {
            return;
        }
        let told = self.bucket.take(record.now) && self.ring.push(record).is_ok();
        counters.add(if told { Count::Traced } else { Count::TraceLost }, 1);
    }
}

impl Filter {
    fn passes(&self, record: &Record) -> bool {
        let addresses = || [&record.before, &record.after].into_iter().filter_map(Octets::addresses).flatten();
        let has = |block: &Block| addresses().any(|address| block.contains(address));
        let through = |prefix: u64| addresses().any(|address| (address.to_bits() >> 64) as u64 == prefix);
        let tagged = |tag: ContextTag| {
            let by_context = record.context.is_some_and(|context| context.local_tag == tag || context.peer_tag == tag);
            by_context || tag_of(&record.before) == Some(tag) || tag_of(&record.after) == Some(tag)
        };
        (!self.dropped || record.reason.is_some())
            && self.reason.is_none_or(|reason| record.reason == Some(reason))
            && self.addresses.iter().flatten().all(has)
            && self.provider.is_none_or(through)
            && self.tag.is_none_or(tagged)
    }
}

/// The tag in a packet's payload header.
pub(crate) fn tag_of(octets: &Octets) -> Option<ContextTag> {
    let view = ipv6::View::of_quote(octets.bytes().get(ethernet::HEADER_LEN..)?).ok()?;
    let shim = view.shim_header().ok()??;
    PayloadHeader::parse(view.from_offset(shim.place.offset)).ok().map(|header| header.tag)
}
