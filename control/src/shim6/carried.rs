//! Contexts as they are carried from one process to another: a box that gives way to its successor, or tells another box.
//!
//! Only what the RFC calls a context travels (§6.1): identifiers, tags, locator sets with what is known of them, and the
//! current pair. An exchange under way does not, since the peer repeats its part or we begin anew; nor does an Update Request
//! that was not acknowledged, which the new owner makes again (§10.3: with a nonce of its own).
//!
//! What arrives is believed, like the box's own memory: whoever carries it has to see to that. It is still only taken where
//! nothing here speaks against it, so that no two contexts share a tag or a pair of identifiers.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::wire::shim6::{Preference, VerificationMethod};
use dataplane::wire::{ContextTag, FlowLabel, Locator, LocatorPair, Ulid, UlidPair};
use serde::{Deserialize, Serialize};

use super::context::{Accepted, Context, ContextId, LocalHost, PeerLocator, Stamp, State};
use super::endpoint::{Endpoint, USE_STEPS};
use super::journal::{Journal, Next};
use super::output::{GoneReason, Output};
use super::tags;
use crate::time::Instant;

/// Flags, priority and weight of a locator (RFC 5533 §5.15.3).
type CarriedPreference = (u8, Option<u8>, Option<u8>);

/// A list of our own locators, as some peers know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedList {
    /// Whose.
    pub ulid: Ipv6Addr,
    /// Its generation.
    pub generation: u32,
    /// Locators, with the code of what proves each.
    pub locators: Vec<(Ipv6Addr, u8)>,
    /// CGA parameters of the identifier.
    pub parameters: Option<Vec<u8>>,
    /// The signature, where it needs one.
    pub signature: Option<Vec<u8>>,
    /// How peers are to use them.
    pub preferences: Option<Vec<CarriedPreference>>,
}

/// A locator of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedLocator {
    /// The address.
    pub address: Ipv6Addr,
    /// The code of what proved it.
    pub method: Option<u8>,
    /// It is the peer's.
    pub verified: bool,
    /// The peer answers there.
    pub probed: bool,
    /// How the peer wants it used.
    pub preference: CarriedPreference,
}

/// A context that carries payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedContext {
    /// Identifiers, ours first.
    pub ulids: (Ipv6Addr, Ipv6Addr),
    /// Forked instance identifier.
    pub fork: u32,
    /// CT(local) and CT(peer).
    pub tags: (u64, u64),
    /// Flow labels offered, by us and by the peer.
    pub labels: (Option<u32>, Option<u32>),
    /// Whether UDP was offered, by us and by the peer.
    pub udp: (bool, bool),
    /// Whether liveness of paths was.
    pub liveness: (bool, bool),
    /// Our locators as the peer knows them: a number that the carrier gave to a list.
    pub list: u32,
    /// Our preferences as the peer knows them.
    pub preferences: Option<Vec<CarriedPreference>>,
    /// The peer's locators.
    pub peer_locators: Vec<CarriedLocator>,
    /// Generation of the peer's list.
    pub peer_generation: Option<u32>,
    /// The peer's CGA parameters.
    pub peer_parameters: Option<Vec<u8>>,
    /// What the peer asked for in seconds (RFC 5534 §5.3).
    pub peer_keepalive_timeout: Option<u16>,
    /// The current pair, ours first.
    pub pair: (Ipv6Addr, Ipv6Addr),
    /// When it was last used, on the carrier's clock.
    pub last_used: Duration,
    /// Whether the peer was told of our locators.
    pub told: bool,
    /// Whether there is something the peer has not acknowledged.
    pub news: bool,
    /// Where the I2 came from, when, and whether the context was used since.
    pub accepted: Option<(u64, Duration, bool)>,
    /// When it was changed, and by which box, where boxes tell each other.
    pub stamp: Stamp,
}

/// A step of the copy of all contexts.
#[derive(Debug)]
pub enum Step<'a> {
    /// This context is there now.
    Context(&'a Context),
    /// The context with this tag is there no longer, or carries nothing any more.
    Gone(ContextTag),
}

/// Why a context is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotTaken {
    /// Nobody of ours has its identifier.
    #[error("its host is not served")]
    NoHost,
    /// The configuration has other workers: packets with its tag would not find it.
    #[error("its tag names another worker")]
    WrongWorker,
    /// Its tag's place, or the table, is taken.
    #[error("there is no room for it")]
    NoRoom,
    /// Something newer is known of it, or of another context of its pair.
    #[error("something newer is known")]
    Older,
    /// It is no context.
    #[error("it makes no sense")]
    Malformed,
}

impl From<&LocalHost> for CarriedList {
    fn from(host: &LocalHost) -> CarriedList {
        CarriedList {
            ulid: host.ulid.0,
            generation: host.generation,
            locators: host.locators.iter().map(|(locator, method)| (locator.0, method.code())).collect(),
            parameters: host.pds.clone(),
            signature: host.signature.clone(),
            preferences: host.preferences.as_deref().map(flatten),
        }
    }
}

impl From<CarriedList> for LocalHost {
    fn from(list: CarriedList) -> LocalHost {
        let entry = |(address, code): (Ipv6Addr, u8)| (Locator(address), VerificationMethod::from_code(code));
        LocalHost {
            ulid: Ulid(list.ulid),
            locators: list.locators.into_iter().map(entry).collect(),
            pds: list.parameters,
            generation: list.generation,
            signature: list.signature,
            preferences: list.preferences.as_deref().map(unflatten),
        }
    }
}

impl CarriedContext {
    /// A context that carries payload, whose list has a number; none if it carries none.
    pub fn of(context: &Context, list: u32) -> Option<CarriedContext> {
        let peer_tag = context.peer_tag.filter(|_| context.state.carries_payload())?;
        let locator = |known: &PeerLocator| CarriedLocator {
            address: known.locator.0,
            method: known.method.map(VerificationMethod::code),
            verified: known.verified,
            probed: known.probed,
            preference: flat(&known.preference),
        };
        Some(CarriedContext {
            ulids: (context.ulids.local.0, context.ulids.peer.0),
            fork: context.fork,
            tags: (context.local_tag.value(), peer_tag.value()),
            labels: (context.local_label.map(FlowLabel::value), context.peer_label.map(FlowLabel::value)),
            udp: (context.local_udp, context.peer_udp),
            liveness: (context.local_liveness, context.peer_liveness),
            list,
            preferences: context.preferences.as_deref().map(flatten),
            peer_locators: context.peer_locators.iter().map(locator).collect(),
            peer_generation: context.peer_generation,
            peer_parameters: context.peer_pds.as_deref().map(<[u8]>::to_vec),
            peer_keepalive_timeout: context.peer_keepalive_timeout,
            pair: (context.pair.local.0, context.pair.peer.0),
            last_used: context.last_used.0,
            told: context.told,
            news: context.update.is_some(),
            accepted: context.accepted.map(|it| (it.prefix, it.since.0, it.used)),
            stamp: context.stamp,
        })
    }

    /// The same on the clock of a box that hears of it at `now`, told when the teller's clock said `told`. What happens between is
    /// not counted, so a context seems to have been used too late rather than too early.
    #[must_use]
    pub fn rebased(mut self, told: Duration, now: Instant) -> CarriedContext {
        let here = |there: Duration| now.0.saturating_sub(told.saturating_sub(there));
        self.last_used = here(self.last_used);
        self.accepted = self.accepted.map(|(prefix, since, used)| (prefix, here(since), used));
        self
    }

    /// Its identifiers.
    pub fn ulids(&self) -> UlidPair {
        UlidPair { local: Ulid(self.ulids.0), peer: Ulid(self.ulids.1) }
    }

    /// What a peer could have told of it, and this box would have kept.
    pub(super) fn is_sensible(&self, list: &LocalHost) -> bool {
        let tag = |value: u64| value < 1 << ContextTag::BITS;
        let preferences = self.preferences.as_ref().is_none_or(|it| it.len() == list.locators.len());
        let source = self.pair.0 == self.ulids.0 || list.has(self.pair.0);
        let listed = self.peer_locators.iter().any(|it| it.address == self.pair.1);
        let target = self.pair.1 == self.ulids.1 || listed;
        tag(self.tags.0) && tag(self.tags.1) && list.ulid.0 == self.ulids.0 && preferences && source && target
    }
}

impl Endpoint {
    /// From now on changes are noted for a copy, which begins at the beginning.
    pub fn begin_copy(&mut self) {
        self.store.journal = Some(Journal::default());
    }

    /// Something about a context that is kept elsewhere has changed: a copy hears of it.
    pub fn note_for_copy(&mut self, id: ContextId) {
        self.store.note(id);
    }

    /// No copy is made any more.
    pub fn end_copy(&mut self) {
        self.store.journal = None;
    }

    /// The next step of the copy; none if it is up to date, or there is none.
    pub fn next_copied(&mut self) -> Option<Step<'_>> {
        let places = self.store.places();
        loop {
            match self.store.journal.as_mut()?.next(places)? {
                Next::Gone(tag) => return Some(Step::Gone(tag)),
                Next::Place(place) => {
                    let Some(found) = self.store.in_places(place..place + 1).next().map(|it| it.id) else { continue };
                    let context = self.store.get(found)?;
                    return Some(match context.state.carries_payload() {
                        true => Step::Context(context),
                        false => Step::Gone(context.local_tag),
                    });
                }
            }
        }
    }

    /// How many steps are left.
    pub fn left_to_copy(&self) -> usize {
        self.store.journal.as_ref().map_or(0, |journal| journal.left(self.store.places()))
    }

    /// Takes in a context that another process had, or what has become of it since. `list` is the one it names.
    pub fn take_over(
        &mut self,
        now: Instant,
        carried: &CarriedContext,
        list: &Arc<LocalHost>,
        out: &mut Vec<Output>,
    ) -> Result<ContextId, NotTaken> {
        let (ulids, tag) = (carried.ulids(), ContextTag::truncate(carried.tags.0));
        if !carried.is_sensible(list) {
            return Err(NotTaken::Malformed);
        }
        if self.host_at(ulids.local).is_none() {
            return Err(NotTaken::NoHost);
        }
        if (self.shard_of)(self.inside(ulids)) != tags::shard_of(tag) {
            return Err(NotTaken::WrongWorker);
        }
        let known = self.store.by_ulids(ulids, carried.fork).map(|context| (context.id, context.local_tag));
        match known {
            Some((id, same)) if same == tag => {
                self.store.note_for_copy(id);
                if let Some(context) = self.store.get_mut_unnoted(id) {
                    carried.write_to(context, list);
                    context.local_udp &= self.config.udp;
                    context.local_liveness &= self.config.liveness;
                    if let (Some(ours), Some((_, _, used))) = (&mut context.accepted, carried.accepted) {
                        ours.used |= used;
                    }
                }
                self.believe_stamp(id, carried.stamp);
                self.store.settle(id);
                self.take_labels(id, carried);
                return Ok(id);
            }
            // What was told of it before is out of date.
            Some((id, _)) => self.discard(id, GoneReason::Discarded, out),
            None => {}
        }
        let id = self.take_new(now, carried, list)?;
        self.believe_stamp(id, carried.stamp);
        Ok(id)
    }

    /// Takes in a context of whose pair and tag nothing is known here.
    pub(super) fn take_new(
        &mut self,
        now: Instant,
        carried: &CarriedContext,
        list: &Arc<LocalHost>,
    ) -> Result<ContextId, NotTaken> {
        let (ulids, tag) = (carried.ulids(), ContextTag::truncate(carried.tags.0));
        if self.store.len() >= self.config.contexts_max || self.store.by_local_tag(tag).is_some() {
            return Err(NotTaken::NoRoom);
        }
        if !self.tags.claim(tag) {
            return Err(NotTaken::NoRoom);
        }
        let mut context = self.blank(now, ulids, carried.fork, tag, list.clone());
        // Perhaps it was used since, by less than a step.
        context.last_used = now.min(Instant(carried.last_used) + self.config.idle / USE_STEPS);
        context.idle_check = context.last_used + self.config.idle;
        context.accepted = carried.accepted.map(Accepted::carried);
        context.state = State::Established;
        context.stamp = carried.stamp;
        carried.write_to(&mut context, list);
        context.local_udp &= self.config.udp;
        context.local_liveness &= self.config.liveness;
        let id = context.id;
        self.store.insert(context);
        self.take_labels(id, carried);
        Ok(id)
    }

    /// Forgets what was taken over, by its tag. Whether it was there.
    pub fn give_up(&mut self, tag: ContextTag, out: &mut Vec<Output>) -> bool {
        let id = self.store.by_local_tag(tag).map(|context| context.id);
        if let Some(id) = id {
            self.discard(id, GoneReason::Discarded, out);
        }
        id.is_some()
    }

    /// The labels of a context that was taken over, as far as they are to be had here.
    pub(super) fn take_labels(&mut self, id: ContextId, carried: &CarriedContext) {
        let ours = carried.labels.0.and_then(FlowLabel::truncate);
        let held = self.store.get(id).and_then(|context| context.local_label);
        if held == ours {
            return;
        }
        self.release_label(held);
        let claimed = ours.filter(|label| self.labels_mut().is_some_and(|labels| labels.claim(*label)));
        if let Some(context) = self.store.get_mut_unnoted(id) {
            context.local_label = claimed;
            if claimed.is_none() {
                context.peer_label = None;
            }
        }
        self.store.settle(id);
    }
}

impl CarriedContext {
    pub(super) fn write_to(&self, context: &mut Context, list: &Arc<LocalHost>) {
        let locator = |known: &CarriedLocator| PeerLocator {
            locator: Locator(known.address),
            method: known.method.map(VerificationMethod::from_code),
            verified: known.verified,
            probed: known.probed,
            preference: unflat(&known.preference),
        };
        context.peer_tag = Some(ContextTag::truncate(self.tags.1));
        context.peer_label = self.labels.1.and_then(FlowLabel::truncate);
        (context.local_udp, context.peer_udp) = self.udp;
        (context.local_liveness, context.peer_liveness) = self.liveness;
        context.host = list.clone();
        context.preferences = self.preferences.as_deref().map(unflatten);
        context.peer_locators = self.peer_locators.iter().map(locator).collect();
        context.peer_generation = self.peer_generation;
        context.peer_pds = self.peer_parameters.as_deref().map(Arc::from);
        context.peer_keepalive_timeout = self.peer_keepalive_timeout;
        context.pair = LocatorPair { local: Locator(self.pair.0), peer: Locator(self.pair.1) };
        context.last_used = context.last_used.max(Instant(self.last_used));
        context.told = self.told;
    }
}

fn flat(preference: &Preference) -> CarriedPreference {
    (preference.flags, preference.priority, preference.weight)
}

fn unflat((flags, priority, weight): &CarriedPreference) -> Preference {
    Preference { flags: *flags, priority: *priority, weight: *weight }
}

fn flatten(preferences: &[Preference]) -> Vec<CarriedPreference> {
    preferences.iter().map(flat).collect()
}

fn unflatten(preferences: &[CarriedPreference]) -> Vec<Preference> {
    preferences.iter().map(unflat).collect()
}
