//! One context as a worker sees it: two cache lines.

use super::standby::{PathNumber, Standby, Way};
use crate::snapshot::Classes;
use crate::wire::shim6::UdpFlow;
use crate::wire::{ContextTag, FlowLabel, Locator, LocatorPair, Ulid, UlidPair};

/// What a worker may do with packets of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Tag allocated, R1 awaited: payload with the tag is dropped (RFC 5533 §12.2, I1-SENT).
    Opening = 0,
    /// R2 awaited: payload with the tag is restored and delivered (I2-SENT), nothing is sent yet.
    Answering = 1,
    /// Both directions (ESTABLISHED, I2BIS-SENT).
    Live = 2,
}

/// Everything control tells a worker about a context. Sent again in full when anything changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// Control's own name for the context; comes back in events.
    pub handle: u64,
    /// Identifiers.
    pub ulids: UlidPair,
    /// Whether packets from the site with these identifiers use this context: false for forked ones (FII other than 0).
    pub default: bool,
    /// Of a default context, the classes whose packets go by forked ones where there are any; of a forked context, the class
    /// whose packets it takes, if it is one of ours.
    pub classes: Classes,
    /// Our tag; the key of the entry.
    pub local_tag: ContextTag,
    /// The peer's tag. Not used before [`Phase::Live`].
    pub peer_tag: ContextTag,
    /// Current pair. Not used before [`Phase::Live`].
    pub locators: LocatorPair,
    /// Provider that delegated the local locator, as an index into the snapshot.
    pub provider: u8,
    /// The current pair's path.
    pub path: PathNumber,
    /// Where packets go while that provider or path is lost.
    pub standby: Option<Standby>,
    /// Host of the local identifier, as an index into the snapshot.
    pub host: u32,
    /// The address that host really has, where the local identifier is only what the peer knows it by (NATv6): packets
    /// are translated between the two, and the pair with this address names the owner (see [`Install::steering`]).
    pub inside: Option<Ulid>,
    /// What may be done.
    pub phase: Phase,
    /// The flow label by which payload of the context may come without a header.
    pub local_label: Option<FlowLabel>,
    /// The flow label by which payload goes without a header; none while it goes with one.
    pub peer_label: Option<FlowLabel>,
    /// Whether a router on the current pair's path has no room for the payload header behind 1280 octets.
    pub narrow: bool,
    /// How payload goes and may come in UDP.
    pub udp: UdpUse,
    /// In strict mode, and with labels, the locators payload may come over (RFC 5533 §16.2, R5533-328).
    pub accepted: Option<Box<LocatorSets>>,
}

/// What a context has to do with UDP (docs/decisions: paths that drop extension headers).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpUse {
    /// Payload may come in it: both sides have offered it.
    pub comes: bool,
    /// Payload on the current pair goes in it.
    pub goes: bool,
}

impl Install {
    /// The pair whose hash names the worker that owns the context; its tag has to name the same.
    pub fn steering(&self) -> UlidPair {
        UlidPair { local: self.inside.unwrap_or(self.ulids.local), ..self.ulids }
    }
}

/// Ls(local) and Ls(peer) of a context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocatorSets {
    /// Ours.
    pub local: Vec<Locator>,
    /// The peer's.
    pub peer: Vec<Locator>,
}

impl LocatorSets {
    /// Whether both ends of a pair are in the sets.
    pub fn contain(&self, pair: &LocatorPair) -> bool {
        self.local.contains(&pair.local) && self.peer.contains(&pair.peer)
    }
}

/// A direction of travel, seen from the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the site to the peer.
    Out,
    /// From the peer to the site.
    In,
}

/// What happened in a context since the last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Payload came from the peer.
    pub received: bool,
    /// Payload went to the peer.
    pub sent: bool,
    /// Which of the two was last.
    pub last: Direction,
    /// Payload came from the peer by its flow label.
    pub labelled_in: bool,
    /// Payload went to the peer by its flow label.
    pub labelled_out: bool,
    /// The provider by which payload came from the peer, as an index into the snapshot; looked at now and then, where that is
    /// wanted ([`Shard::watch_arrivals`](super::Shard::watch_arrivals)).
    pub arrived: Option<u8>,
}

/// A context in the table. A packet from the peer touches the first line alone; one from the site reads both, and the
/// second says how it goes out.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Entry {
    /// Our tag.
    pub local_tag: ContextTag,
    /// Identifiers.
    pub ulids: UlidPair,
    /// Packets and octets that came from the peer. The count of packets has the provider of a recent one above it, since there
    /// is no other room in this line.
    received: Traffic,
    /// Host, as an index into the snapshot.
    pub host: u32,
    /// Provider of the current local locator, as an index into the snapshot.
    pub provider: u8,
    /// What may be done.
    pub phase: Phase,
    digest: u8,
    flags: u8,
    /// Current pair.
    pub locators: LocatorPair,
    /// The peer's tag in the low 48 bits; above it the current pair's path and whether the context has a standby, for which
    /// there is no other room in this line.
    peer: u64,
    /// Control's name for the context.
    pub handle: u64,
    /// Packets and octets that went to the peer.
    pub sent: Traffic,
}

/// Packets and octets in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Octets of IPv6 packets as the host sees them.
    pub octets: u64,
}

/// What happened in a context at a worker that is not its owner, since it last said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The context.
    pub tag: ContextTag,
    /// What happened.
    pub activity: Activity,
    /// How much of it, out then in.
    pub traffic: [Traffic; 2],
    /// Whether that worker still has its copy, as far as it has any say in that.
    pub kept: bool,
}

const _: () = assert!(size_of::<Entry>() == 128);
const _: () = assert!(std::mem::offset_of!(Entry, locators) == 64);

/// Packets from the site with these identifiers use this context.
const DEFAULT: u8 = 1;
/// The slot has a context.
const TAKEN: u8 = 8;
/// The current pair is the identifiers, so packets go unchanged.
const PLAIN: u8 = 16;
/// Payload may leave by flow label.
const LABELS: u8 = 32;
/// The path carries 1280 octets and no more.
const NARROW: u8 = 2;
/// The local identifier is what the peer knows the host by, not the address the host has.
const PRESENTED: u8 = 4;
/// Packets of some classes go by other contexts, where there are any.
const FORKED: u8 = 64;

/// What has the payload header leaves in UDP.
const WRAPPED: u8 = 128;

/// Where the number of the path begins, in the word of the peer's tag.
const PATH: u32 = 48;
/// There is a standby, in the same word.
const STANDBY: u64 = 1 << 63;
const _: () = assert!(super::standby::PATHS <= 1 << (63 - PATH) && ContextTag::BITS < PATH);

const SENT: u8 = 1;
const RECEIVED: u8 = 2;
const LAST_OUT: u8 = 4;
/// The slot stands in the shard's queue of active ones; it does so once, even when the context is gone or another.
const QUEUED: u8 = 8;
/// Something was sent in the last interval and nothing received: the context is in doubt.
const DOUBT: u8 = 16;
/// The provider by which the next payload from the peer comes is to be noted.
const LOOK: u8 = 128;
/// Where in the count of packets that provider stands, plus one.
const ARRIVED: u32 = 57;
const PACKETS: u64 = (1 << ARRIVED) - 1;
/// Payload went, or came, by its flow label. Only with `SENT` or `RECEIVED`.
const LABELLED: [u8; 2] = [32, 64];

impl Entry {
    pub(super) fn new(install: &Install) -> Entry {
        let plain = install.locators == install.ulids.as_locators();
        let flag = |wanted: bool, flag: u8| if wanted { flag } else { 0 };
        Entry {
            local_tag: install.local_tag,
            ulids: install.ulids,
            received: Traffic::default(),
            host: install.host,
            provider: install.provider,
            phase: install.phase,
            digest: 0,
            flags: TAKEN
                | flag(install.default, DEFAULT)
                | flag(install.narrow, NARROW)
                | flag(install.inside.is_some(), PRESENTED)
                | flag(plain, PLAIN)
                | flag(install.default && !install.classes.is_empty(), FORKED)
                | flag(install.peer_label.is_some(), LABELS)
                | flag(install.udp.goes, WRAPPED),
            locators: install.locators,
            peer: install.peer_tag.value()
                | u64::from(install.path.value()) << PATH
                | if install.standby.is_some() { STANDBY } else { 0 },
            handle: install.handle,
            sent: Traffic::default(),
        }
    }

    /// A slot without a context.
    pub(super) fn vacant() -> Entry {
        let nobody = Ulid(std::net::Ipv6Addr::UNSPECIFIED);
        let ulids = UlidPair { local: nobody, peer: nobody };
        let nothing = ContextTag::truncate(0);
        Entry {
            local_tag: nothing,
            ulids,
            received: Traffic::default(),
            host: 0,
            provider: 0,
            phase: Phase::Opening,
            digest: 0,
            flags: 0,
            locators: ulids.as_locators(),
            peer: nothing.value(),
            handle: 0,
            sent: Traffic::default(),
        }
    }

    /// The peer's tag.
    #[inline]
    pub fn peer_tag(&self) -> ContextTag {
        ContextTag::truncate(self.peer)
    }

    /// The current pair's path.
    #[inline]
    pub(super) fn path(&self) -> PathNumber {
        PathNumber::new((self.peer >> PATH & 0x7fff) as u16).unwrap_or(PathNumber::NONE)
    }

    /// Whether the context has a standby.
    #[inline]
    pub(super) fn has_standby(&self) -> bool {
        self.peer & STANDBY != 0
    }

    /// The way over the current pair.
    #[inline]
    pub(super) fn way(&self) -> Way<'_> {
        Way {
            locators: &self.locators,
            provider: self.provider,
            peer_tag: self.peer_tag(),
            is_plain: self.is_plain(),
            is_narrow: self.is_narrow(),
            is_standby: false,
            udp: self.flow(self.flags & WRAPPED != 0),
        }
    }

    /// What makes the ports of its packets, if they go in UDP.
    #[inline]
    pub(super) fn flow(&self, wrapped: bool) -> Option<UdpFlow> {
        if wrapped { Some(UdpFlow::of(self.local_tag, self.peer_tag())) } else { None }
    }

    /// Whether there is a context in the slot.
    #[inline]
    pub(super) fn is_taken(&self) -> bool {
        self.flags & TAKEN != 0
    }

    /// Whether a packet from the site with its identifiers may take the short way: live, with nothing about it that
    /// asks for a second look. Packets of a context in doubt are looked at once more if they are `watched`.
    #[inline(always)]
    pub fn is_ordinary_out(&self, watched: impl FnOnce() -> bool) -> bool {
        self.flags == TAKEN | DEFAULT && self.phase == Phase::Live && (self.digest & DOUBT == 0 || !watched())
    }

    /// The same for a packet with our tag. Flags that say how packets leave are of no interest here.
    #[inline]
    pub fn is_ordinary_in(&self, tag: ContextTag) -> bool {
        self.flags & !(DEFAULT | PLAIN | LABELS | NARROW | FORKED | WRAPPED) == TAKEN
            && self.phase != Phase::Opening
            && self.digest & (DOUBT | LOOK) == 0
            && self.local_tag == tag
    }

    /// Takes over what control said anew; counts and unreported activity stay.
    pub(super) fn update(&mut self, install: &Install) {
        let Entry { digest, received, sent, .. } = *self;
        *self = Entry { digest, received, sent, ..Entry::new(install) };
    }

    /// Packets and octets (IPv6 packets as the host sees them), out then in.
    pub fn traffic(&self) -> [Traffic; 2] {
        [self.sent, Traffic { packets: self.received.packets & PACKETS, ..self.received }]
    }

    /// Whether packets from the site with its identifiers use it; a forked context has only those of its class.
    pub fn is_default(&self) -> bool {
        self.flags & DEFAULT != 0
    }

    /// Whether its path carries 1280 octets and no more (RFC 8200 §5).
    #[inline]
    pub fn is_narrow(&self) -> bool {
        self.flags & NARROW != 0
    }

    /// Whether the local identifier is not the host's own address but what the peer knows the host by, so that packets
    /// are translated between the two as well (NATv6).
    #[inline]
    pub fn is_presented(&self) -> bool {
        self.flags & PRESENTED != 0
    }

    /// Whether packets of some classes go by forked contexts, where there are any.
    #[inline]
    pub fn is_forked(&self) -> bool {
        self.flags & FORKED != 0
    }

    /// Whether packets go out and nothing comes back, as far as the last report can tell.
    #[inline]
    pub fn is_in_doubt(&self) -> bool {
        self.digest & DOUBT != 0
    }

    pub(super) fn set_default(&mut self, default: bool) {
        self.flags = self.flags & !DEFAULT | if default { DEFAULT } else { 0 };
    }

    /// Whether locators and identifiers are the same, so that packets go unchanged (RFC 5533 §11).
    pub fn is_plain(&self) -> bool {
        self.flags & PLAIN != 0
    }

    /// Notes one packet. True if this is the first since the last report, so the caller has to queue the slot.
    #[inline(always)]
    pub(super) fn note(&mut self, direction: Direction, octets: usize) -> bool {
        let first = self.digest & QUEUED == 0;
        let traffic = match direction {
            Direction::Out => {
                self.digest |= SENT | LAST_OUT | QUEUED;
                &mut self.sent
            }
            Direction::In => {
                self.digest = self.digest & !(LAST_OUT | DOUBT) | RECEIVED | QUEUED;
                &mut self.received
            }
        };
        traffic.packets = traffic.packets.wrapping_add(1);
        traffic.octets = traffic.octets.wrapping_add(octets as u64);
        first
    }

    /// Notes of the packet noted last that it had a flow label for a header.
    #[inline]
    pub(super) fn note_label(&mut self, direction: Direction) {
        self.digest |= LABELLED[usize::from(direction == Direction::In)];
    }

    /// Whether the provider by which payload comes is to be noted.
    #[inline]
    pub fn wants_arrival(&self) -> bool {
        self.digest & LOOK != 0
    }

    /// Notes the provider by which payload came.
    pub(super) fn note_arrival(&mut self, provider: u8) {
        self.digest &= !LOOK;
        self.received.packets = self.received.packets & PACKETS | (u64::from(provider & 63) + 1) << ARRIVED;
    }

    /// Makes room for another context in this slot. Unreported activity is forgotten; the place in the queue is not.
    pub(super) fn replace(&mut self, install: &Install) {
        let digest = self.digest & QUEUED;
        *self = Entry { digest, ..Entry::new(install) };
        self.set_default(false);
    }

    /// The context is gone. Unreported activity is forgotten; the place in the queue stays, if it has one.
    pub(super) fn vacate(&mut self, queued: bool) {
        *self = Entry { digest: if queued { QUEUED } else { 0 }, ..Entry::vacant() };
    }

    /// Whether another worker may have a copy by which it translates packets itself: nothing about the context is special,
    /// and this is not its first packet since the last report.
    pub(super) fn is_lendable(&self) -> bool {
        self.flags == TAKEN | DEFAULT && self.phase == Phase::Live && self.digest & (QUEUED | LOOK) == QUEUED
    }

    /// That copy. It has no standby: while its path is lost, packets go to the owner. In doubt are both: then the owner gets what
    /// is to be watched, and what comes back.
    pub(super) fn copy(&self) -> Entry {
        let nothing = Traffic::default();
        let digest = self.digest & DOUBT;
        Entry { digest, received: nothing, sent: nothing, peer: self.peer & !STANDBY, ..self.clone() }
    }

    /// Puts a copy in this place. The place in the queue stays.
    pub(super) fn put_copy(&mut self, copy: &Entry) {
        *self = Entry { digest: self.digest & QUEUED | copy.digest, ..copy.clone() };
    }

    /// Whether the slot stands in the queue of active ones.
    pub(super) fn is_queued(&self) -> bool {
        self.digest & QUEUED != 0
    }

    /// What happened in a copy since the last call; the slot has left the queue. Whether the context is in doubt is for its
    /// owner to say, who hears of both directions.
    pub(super) fn take_tally(&mut self) -> Option<Tally> {
        let doubt = self.digest & DOUBT;
        let activity = self.take_activity(false);
        self.digest = doubt;
        let traffic = [std::mem::take(&mut self.sent), std::mem::take(&mut self.received)];
        activity.map(|activity| Tally { tag: self.local_tag, activity, traffic, kept: true })
    }

    /// Adds what happened in a copy elsewhere. True if the caller has to queue the slot.
    pub(super) fn add(&mut self, Tally { activity, traffic, .. }: &Tally) -> bool {
        let first = self.digest & QUEUED == 0;
        let flag = |wanted: bool, flag: u8| if wanted { flag } else { 0 };
        let before = self.digest & !LAST_OUT & !flag(activity.received, DOUBT);
        self.digest = before
            | QUEUED
            | flag(activity.sent, SENT)
            | flag(activity.received, RECEIVED)
            | flag(activity.last == Direction::Out, LAST_OUT);
        for (mine, more) in [&mut self.sent, &mut self.received].into_iter().zip(traffic) {
            mine.packets = mine.packets.wrapping_add(more.packets);
            mine.octets = mine.octets.wrapping_add(more.octets);
        }
        first
    }

    /// The activity since the last call; the slot has left the queue. With `look` the provider of the next payload that comes
    /// is noted.
    pub(super) fn take_activity(&mut self, look: bool) -> Option<Activity> {
        let digest = std::mem::take(&mut self.digest);
        if digest & (SENT | RECEIVED) == SENT {
            self.digest = DOUBT;
        }
        if look || digest & LOOK != 0 {
            self.digest |= LOOK;
        }
        let arrived = (self.received.packets >> ARRIVED).checked_sub(1).map(|provider| provider as u8);
        self.received.packets &= PACKETS;
        (digest & (SENT | RECEIVED) != 0).then_some(Activity {
            received: digest & RECEIVED != 0,
            sent: digest & SENT != 0,
            last: if digest & LAST_OUT != 0 { Direction::Out } else { Direction::In },
            labelled_out: digest & LABELLED[0] != 0,
            labelled_in: digest & LABELLED[1] != 0,
            arrived,
        })
    }
}
