//! A ULID-pair context (RFC 5533 §6.1) and the host it belongs to.

use std::net::Ipv6Addr;
use std::sync::Arc;

use dataplane::wire::shim6::{Addresses, LocatorList, Preference, VerificationMethod};
use dataplane::wire::{ContextTag, FlowLabel, Locator, LocatorPair, Ulid, UlidPair};
use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// Names a context; a name is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl ContextId {
    /// The name as a number, for those who carry it without knowing what it is.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The name that [`ContextId::to_bits`] made a number of. Any number is some name, if perhaps of no context.
    pub fn from_bits(bits: u64) -> ContextId {
        ContextId { index: bits as u32, generation: (bits >> 32) as u32 }
    }

    /// Place in the table. Small numbers, used again after the context is gone.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// STATES of RFC 5533 §6.2. `Idle`, `EFailed` and `NoSupport` have no context object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No context.
    Idle,
    /// I1 sent, waiting for R1 or R2.
    I1Sent,
    /// I2 sent, waiting for R2.
    I2Sent,
    /// The peer seems to have lost the context: I2bis sent, waiting for R2. Payload still flows as before.
    I2bisSent,
    /// Usable.
    Established,
    /// The peer did not answer; we do not ask again for a while.
    EFailed,
    /// The peer does not speak Shim6; we do not ask again for a while.
    NoSupport,
}

impl State {
    /// Whether payload is rewritten with the peer's tag and locators (§11).
    pub fn carries_payload(self) -> bool {
        match self {
            State::Established | State::I2bisSent => true,
            State::Idle | State::I1Sent | State::I2Sent | State::EFailed | State::NoSupport => false,
        }
    }
}

/// One of our hosts: a ULID we run Shim6 for, and what we tell peers about it.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalHost {
    /// The host's identifier.
    pub ulid: Ulid,
    /// Ls(local) in order of preference. Holds the ULID only where that is routable.
    pub locators: Vec<(Locator, VerificationMethod)>,
    /// CGA parameters of the ULID. Needed unless the ULID is the only locator.
    pub pds: Option<Vec<u8>>,
    /// Generation of this list: random for the first, one more for each further (D12).
    pub generation: u32,
    /// Signature over generation and CGA locators, made once for the list.
    pub signature: Option<Vec<u8>>,
    /// Preferences announced to every peer from the start, one for each locator.
    pub preferences: Option<Vec<Preference>>,
}

impl LocalHost {
    /// Whether there is anything to tell peers: not when the ULID is the only locator (D11).
    pub fn announces(&self) -> bool {
        !matches!(self.locators.as_slice(), [(only, _)] if only.0 == self.ulid.0)
    }

    /// Whether packets to `address` are for this host.
    pub fn has(&self, address: Ipv6Addr) -> bool {
        self.locators.iter().any(|(locator, _)| locator.0 == address)
    }

    /// The Locator List option for this host.
    pub fn list(&self) -> LocatorList {
        LocatorList { generation: self.generation, entries: self.locators.clone(), methods_offset: 0 }
    }
}

/// A locator of the peer and what we know about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLocator {
    /// The address.
    pub locator: Locator,
    /// How it was proved; absent for the ULID itself and for addresses only tried so far.
    pub method: Option<VerificationMethod>,
    /// Ownership: it belongs to the peer's ULID.
    pub verified: bool,
    /// Presence: the peer answers there.
    pub probed: bool,
    /// How the peer wants it used.
    pub preference: Preference,
}

impl PeerLocator {
    /// The ULID as a locator: the address contact was made with needs no proof (§7.2).
    pub(super) fn ulid(ulid: Ulid) -> PeerLocator {
        PeerLocator { verified: true, probed: true, ..PeerLocator::tried(Locator(ulid.0)) }
    }

    /// An address that an I1 was sent to.
    pub(super) fn tried(locator: Locator) -> PeerLocator {
        PeerLocator { locator, method: None, verified: false, probed: false, preference: Preference::default() }
    }

    /// Whether payload may be sent there: it is the peer's and the peer answers there (§7.2).
    pub fn usable(&self) -> bool {
        self.verified && self.probed
    }
}

/// Everything known about one pair of ULIDs (and one fork of it). Read it; only the endpoint changes it.
#[derive(Clone, Debug)]
pub struct Context {
    /// Its name.
    pub id: ContextId,
    /// STATE.
    pub state: State,
    /// Both identifiers.
    pub ulids: UlidPair,
    /// Forked instance identifier; 0 is the default context.
    pub fork: u32,
    /// CT(local): in packets to us.
    pub local_tag: ContextTag,
    /// CT(peer): in packets to the peer.
    pub peer_tag: Option<ContextTag>,
    /// The flow label we offered the peer for payload to us.
    pub local_label: Option<FlowLabel>,
    /// The one the peer offered for payload to it.
    pub peer_label: Option<FlowLabel>,
    /// Whether we offered the peer that the context comes in UDP, and still do.
    pub local_udp: bool,
    /// Whether the peer offered it.
    pub peer_udp: bool,
    /// Whether we offered the peer that liveness of the context's paths is exchanged.
    pub local_liveness: bool,
    /// Whether the peer offered it.
    pub peer_liveness: bool,
    /// The host with Ls(local) as the peer knows it: these may be used as sources (§7.2).
    pub host: Arc<LocalHost>,
    /// Our preferences as the peer knows them.
    pub preferences: Option<Vec<Preference>>,
    /// Ls(peer).
    pub peer_locators: Vec<PeerLocator>,
    /// Generation of the peer's list, if it sent one that was proved.
    pub peer_generation: Option<u32>,
    /// The peer's CGA parameters, since an Update Request may leave them out (D14).
    pub peer_pds: Option<Arc<[u8]>>,
    /// Keepalive Timeout in seconds that the peer asked for (RFC 5534 §5.3).
    pub peer_keepalive_timeout: Option<u16>,
    /// Lp: the current locator pair.
    pub pair: LocatorPair,
    /// When payload last used it, as far as the engine told.
    pub last_used: Instant,
    /// The exchange under way; present exactly in I1-SENT, I2-SENT and I2BIS-SENT.
    pub(super) exchange: Option<Box<Exchange>>,
    /// Whether the peer was told of our locators in any message, and so may know them even if we do not know that.
    pub(super) told: bool,
    /// News for the peer that it has not acknowledged.
    pub(super) update: Option<Box<Update>>,
    /// When to look whether it is idle.
    pub(super) idle_check: Instant,
    /// Present if the peer asked for it; absent if we initiated it.
    pub(super) accepted: Option<Accepted>,
    /// When it was last changed and by which box, where boxes tell each other of their contexts.
    pub(super) stamp: Stamp,
    /// Another box runs it; this one only knows it.
    pub(super) mirrored: bool,
}

/// When a context was changed, and by which box: of two versions of a context all boxes prefer the one with the greater stamp.
///
/// The time is that of the group's clock in microseconds, which never stands still between two changes; the low four bits are the
/// box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp(u64);

impl Stamp {
    /// Of a context that no other box has heard of.
    pub const NONE: Stamp = Stamp(0);

    /// A change at a time of the group's clock.
    pub(super) fn new(clock: u64, box_id: u8) -> Stamp {
        Stamp(clock << 4 | u64::from(box_id & 15))
    }

    /// The time of the change on the group's clock.
    pub fn clock(self) -> u64 {
        self.0 >> 4
    }

    /// The box that made the change, and runs the context.
    pub fn box_id(self) -> u8 {
        self.0 as u8 & 15
    }
}

/// What is kept of a context that the peer asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// The /64 of the locator that the I2 or I2bis came from.
    pub(super) prefix: u64,
    /// When it came.
    pub(super) since: Instant,
    /// Whether payload went either way since, or the peer said anything about the context.
    pub(super) used: bool,
}

/// An exchange under way (§6.2: what each STATE keeps).
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    /// INIT nonce, in the I1 and in the I2 or I2bis that follows.
    pub(super) nonce: u32,
    /// Pairs to send I1 on, in turn.
    pub(super) candidates: Vec<LocatorPair>,
    /// Place in `candidates` of the next I1.
    pub(super) next: usize,
    /// Pairs on which something was sent: R2 and ICMPv6 errors must be about one of them (D20).
    pub(super) used: Vec<LocatorPair>,
    /// Pair of the last message.
    pub(super) pair: LocatorPair,
    /// RESP nonce and validator of the R1 or R1bis.
    pub(super) responder_nonce: u32,
    /// Opaque.
    pub(super) validator: Vec<u8>,
    /// CT(R1bis).
    pub(super) packet_tag: ContextTag,
    /// Retransmissions of the current message so far.
    pub(super) retries: u32,
    /// When to retransmit or give up.
    pub(super) at: Instant,
    /// When the current message was last sent.
    pub(super) sent: Instant,
    /// Whether I2 or I2bis already gave up once and went back to I1 (D24).
    pub(super) fell_back: bool,
    /// I1s sent out of turn because something showed that the peer may answer now.
    pub(super) nudges: u8,
    /// The next I1 is one of those.
    pub(super) hastened: bool,
}

/// News for the peer (§10.1).
#[derive(Clone, Debug)]
pub(super) struct Update {
    /// Request Nonce.
    pub(super) nonce: u32,
    /// A new list.
    pub(super) host: Option<Arc<LocalHost>>,
    /// New preferences, for the newest list.
    pub(super) preferences: Option<Vec<Preference>>,
    /// Retransmissions so far.
    pub(super) retries: u32,
    /// When to retransmit; absent while the context is not established.
    pub(super) at: Option<Instant>,
    /// Initiator Nonce of the last exchange that it was told again after.
    pub(super) renewed_for: Option<u32>,
}

impl Context {
    /// When it was last changed, and by which box, where boxes tell each other of their contexts.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Whether another box runs it, and this one only knows it.
    pub fn is_mirrored(&self) -> bool {
        self.mirrored
    }

    /// Whether both sides have offered that the context comes in UDP.
    pub fn may_use_udp(&self) -> bool {
        self.local_udp && self.peer_udp
    }

    /// Whether both sides have offered that liveness of the context's paths is exchanged.
    pub fn may_exchange_liveness(&self) -> bool {
        self.local_liveness && self.peer_liveness
    }

    /// Whether it waits for an answer to an I1 that was sent again.
    pub fn is_unanswered(&self) -> bool {
        self.state == State::I1Sent && self.exchange.as_ref().is_some_and(|exchange| exchange.retries > 0)
    }

    /// The peer's locator with this address.
    pub fn peer_locator(&self, address: Ipv6Addr) -> Option<&PeerLocator> {
        self.peer_locators.iter().find(|known| known.locator.0 == address)
    }

    /// Whether `address` is in Ls(local): what the peer knows, or has been sent.
    pub fn has_local(&self, address: Ipv6Addr) -> bool {
        self.host.has(address) || self.update.iter().any(|update| update.host.iter().any(|host| host.has(address)))
    }

    /// Whether a packet from the peer has its source in Ls(peer) and its destination in Ls(local) (§12.4).
    pub fn has_pair(&self, addresses: Addresses) -> bool {
        self.peer_locator(addresses.source).is_some() && self.has_local(addresses.target)
    }

    /// Whether packets on the current pair carry the payload header (§5.2, §11).
    pub fn tags_payload(&self) -> bool {
        self.state.carries_payload() && self.pair != self.ulids.as_locators()
    }

    /// Whether the peer has not yet acknowledged our newest locators or preferences.
    pub fn update_outstanding(&self) -> bool {
        self.update.is_some()
    }

    /// Next thing to do by itself.
    pub(super) fn deadline(&self) -> Instant {
        let exchange = self.exchange.as_ref().map(|exchange| exchange.at);
        let update = self.update.as_ref().and_then(|update| update.at);
        [exchange, update].into_iter().flatten().fold(self.idle_check, Instant::min)
    }

    /// Where from and since when, if the peer asked for it and nobody has used it since. An exchange under way means
    /// that somebody wants it.
    pub(super) fn unused(&self) -> Option<(u64, Instant)> {
        let accepted = self.accepted.filter(|accepted| !accepted.used && self.state == State::Established)?;
        Some((accepted.prefix, accepted.since))
    }

    /// Preferences for the newest list as last told, acknowledged or not.
    pub(super) fn newest_preferences(&self) -> Option<&[Preference]> {
        match self.update.as_deref() {
            Some(Update { preferences: Some(preferences), .. }) => Some(preferences),
            Some(Update { host: Some(_), .. }) => None,
            _ => self.preferences.as_deref(),
        }
    }

    /// The newest list, acknowledged or not.
    pub(super) fn newest_host(&self) -> &Arc<LocalHost> {
        self.update.as_ref().and_then(|update| update.host.as_ref()).unwrap_or(&self.host)
    }
}

/// The pair, seen from our side, of a packet that came in.
pub(super) fn incoming_pair(addresses: Addresses) -> LocatorPair {
    LocatorPair { local: Locator(addresses.target), peer: Locator(addresses.source) }
}

/// Addresses of a packet that goes out on `pair`.
pub(super) fn outgoing(pair: LocatorPair) -> Addresses {
    Addresses { source: pair.local.0, target: pair.peer.0 }
}

/// Whether an address may be talked to at all (§12.3).
pub(super) fn is_unicast(address: Ipv6Addr) -> bool {
    !address.is_multicast() && !address.is_unspecified()
}

/// Whether a proved address could be a locator: link-local, loopback and mapped addresses have no meaning to us.
pub(super) fn may_be_locator(address: Ipv6Addr) -> bool {
    is_unicast(address)
        && !address.is_loopback()
        && !address.is_unicast_link_local()
        && address.to_ipv4_mapped().is_none()
}
