//! The one Shim6 node that the box is: hosts, contexts and everything about them that is not a message.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use dataplane::snapshot::Block;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::shim6::{Addresses, Preference};
use dataplane::wire::{ContextTag, FlowLabel, Locator, LocatorPair, Ulid, UlidPair};
use hashbrown::HashMap;
use rand::Rng;

use super::admission::Displaced;
use super::check::Check;
use super::config::Config;
use super::context::{Context, ContextId, LocalHost, PeerLocator, State, is_unicast};
use super::holddown::{Failure, Held, HoldDowns};
use super::labels::LabelSpace;
use super::limits::Limiter;
use super::lost::Lost;
use super::offers::Offers;
use super::output::{FailReason, GoneReason, Output};
use super::proof::LocatorProof;
use super::quarantine::{Owner, Quarantine};
use super::size;
use super::starts::Starts;
use super::store::Store;
use super::tags::TagSpace;
use super::validator::Validators;
use super::waiting::Waiting;
use crate::time::Instant;

/// Which shard owns the contexts of a pair; must agree with what workers compute for packets from the site.
pub type ShardOf = Box<dyn Fn(UlidPair) -> u8 + Send>;

/// A Shim6 node for all ULIDs of the box (spec of a proxy: to peers it is each of the hosts).
///
/// Every method that can lead to packets takes `out` and appends to it; drain it before the next call.
pub struct Endpoint {
    pub(super) config: Config,
    pub(super) proof: Box<dyn LocatorProof>,
    pub(super) validators: Validators,
    pub(super) limiter: Limiter,
    pub(super) lost: Lost,
    pub(super) tags: TagSpace,
    labels: Option<LabelSpace>,
    pub(super) shard_of: ShardOf,
    pub(super) hosts: HashMap<Ulid, Arc<LocalHost>>,
    /// Whose locator an address is; see `local`.
    pub(super) homes: HashMap<Ulid, Ulid>,
    /// The other way round.
    pub(super) aliases: HashMap<Ulid, Vec<Ulid>>,
    /// Where no peer has its ULID: what is the site's own.
    pub(super) inside: Vec<Block>,
    pub(super) store: Store,
    pub(super) holddowns: HoldDowns,
    pub(super) starts: Starts,
    pub(super) quarantine: Quarantine,
    pub(super) waiting: Waiting,
    /// Pairs that are being tried beside the current ones; see `check`.
    pub(super) checks: HashMap<ContextId, Check>,
}

/// Why a host is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostRefused {
    /// Nothing to be reached at.
    #[error("host has no locator")]
    NoLocators,
    /// A ULID or locator that is no unicast address.
    #[error("{0} is not a unicast address")]
    BadAddress(Ipv6Addr),
    /// The list cannot be proved to peers, so they would refuse it (RFC 5533 §3).
    #[error("locator {0} of the list is not proved by the host's own parameters and signature")]
    Unproved(usize),
    /// Signed locators cannot be left out, and with all of them messages exceed 1280 octets (§5.1).
    #[error("locators, parameters and signature do not fit in a control packet")]
    TooLarge,
    /// Preferences go with locators one to one.
    #[error("preferences and locators differ in number")]
    PreferenceCount,
    /// Peers tell lists apart by their generation (§5.15.2).
    #[error("another list of this host had generation {0}")]
    SameGeneration(u32),
}

/// A host that [`Endpoint::check_host`] found good.
#[derive(Clone, Debug)]
pub struct CheckedHost(LocalHost);

impl CheckedHost {
    /// The host.
    pub fn host(&self) -> &LocalHost {
        &self.0
    }
}

/// Why a change to a context is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// It is gone.
    #[error("no such context")]
    NoContext,
    /// Nobody of ours.
    #[error("no such host")]
    NoHost,
    /// The source is not known to be accepted by the peer (RFC 5533 §7.2).
    #[error("the peer has not accepted the source locator")]
    Source,
    /// The destination is not proved, or nobody answered there (§7.2).
    #[error("the destination locator is not verified and probed")]
    Target,
    /// Preferences go with locators one to one.
    #[error("preferences and locators differ in number")]
    PreferenceCount,
}

/// Of the time after which a context is idle, one of so many parts: how exactly a copy knows when it was last used.
pub(super) const USE_STEPS: u32 = 8;

impl Endpoint {
    /// An endpoint without hosts. `secret` is random and fresh for every run.
    pub fn new(
        config: Config,
        secret: [u8; 32],
        tags: TagSpace,
        shard_of: ShardOf,
        proof: Box<dyn LocatorProof>,
    ) -> Endpoint {
        let validators = Validators::new(&secret, &config);
        let limiter = Limiter::new(&config.limits, validators.derive(b"buckets"));
        let lost = Lost::new(validators.derive(b"lost"));
        let (holddowns, starts) = (HoldDowns::new(config.holddowns_max), Starts::new(config.holddowns_max));
        let labels = config.flow_labels.map(LabelSpace::new);
        let (hosts, homes, aliases) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (store, quarantine) = (Store::default(), Quarantine::default());
        Endpoint {
            config,
            proof,
            validators,
            limiter,
            lost,
            tags,
            labels,
            shard_of,
            hosts,
            homes,
            aliases,
            inside: Vec::new(),
            store,
            holddowns,
            starts,
            quarantine,
            waiting: Waiting::default(),
            checks: HashMap::new(),
        }
    }

    /// The site's own prefixes: a peer that claims a ULID in one of them is not heard, whatever it can prove. With the HBA of a
    /// set it can prove an address in any prefix it likes (RFC 5535 §3).
    pub fn set_inside(&mut self, inside: Vec<Block>) {
        self.inside = inside;
    }

    /// Takes room for so many contexts, so that none has to wait while tables grow.
    pub fn reserve(&mut self, contexts: usize) {
        self.store.reserve(contexts);
    }

    /// Takes in a host, or its new list. Contexts that exist go on with the list their peers know until
    /// [`Endpoint::tell_news`] is called for them. Locators that do not fit in a control packet are left out.
    pub fn set_host(&mut self, host: LocalHost) -> Result<(), HostRefused> {
        let host = self.check_host(host)?;
        self.adopt_host(host);
        Ok(())
    }

    /// The first half of [`Endpoint::set_host`]: whether it would be taken, and what would be told of it.
    pub fn check_host(&mut self, mut host: LocalHost) -> Result<CheckedHost, HostRefused> {
        let mut addresses = host.locators.iter().map(|(locator, _)| locator.0).chain([host.ulid.0]);
        if let Some(bad) = addresses.find(|address| !is_unicast(*address)) {
            return Err(HostRefused::BadAddress(bad));
        }
        if host.locators.is_empty() {
            return Err(HostRefused::NoLocators);
        }
        if host.preferences.as_ref().is_some_and(|preferences| preferences.len() != host.locators.len()) {
            return Err(HostRefused::PreferenceCount);
        }
        if !size::trim(&mut host) {
            return Err(HostRefused::TooLarge);
        }
        if let Some(old) = self.hosts.get(&host.ulid)
            && old.generation == host.generation
            && old.locators != host.locators
        {
            return Err(HostRefused::SameGeneration(host.generation));
        }
        self.prove_own(&host)?;
        Ok(CheckedHost(host))
    }

    /// The other half, which cannot fail.
    pub fn adopt_host(&mut self, CheckedHost(host): CheckedHost) {
        self.renew_homes(&host);
        self.hosts.insert(host.ulid, Arc::new(host));
    }

    /// How peers are to use a host's locators: one preference for each, or none when they are all alike. Contexts that
    /// exist hear of it by [`Endpoint::tell_news`]. Whether that is new.
    pub fn set_preferences(&mut self, ulid: Ulid, preferences: Option<Vec<Preference>>) -> Result<bool, ChangeRefused> {
        let host = self.hosts.get_mut(&ulid).ok_or(ChangeRefused::NoHost)?;
        if preferences.as_ref().is_some_and(|preferences| preferences.len() != host.locators.len()) {
            return Err(ChangeRefused::PreferenceCount);
        }
        let news = host.preferences != preferences;
        if news {
            Arc::make_mut(host).preferences = preferences;
        }
        Ok(news)
    }

    /// What we tell about ourselves must be what a peer would accept (R5533-011, R5533-012).
    pub(super) fn prove_own(&mut self, host: &LocalHost) -> Result<(), HostRefused> {
        if !host.announces() {
            return Ok(());
        }
        let Some(pds) = host.pds.as_deref().filter(|pds| self.proof.owns(host.ulid, pds)) else {
            return Err(HostRefused::Unproved(0));
        };
        let proved = self.proof.proves(host.ulid, Some(pds), &host.list(), host.signature.as_deref());
        proved.map_err(HostRefused::Unproved)
    }

    /// The ULID is no longer valid: all its contexts go, and those of its locators (RFC 5533 §1.5). Its addresses and their
    /// tags are kept from other hosts for the quarantine time; `link` is the host's link-layer address, if that is known.
    pub fn remove_host(&mut self, now: Instant, ulid: Ulid, link: Option<Mac>, out: &mut Vec<Output>) {
        let homes = self.forget_homes(ulid);
        let Some(host) = self.hosts.remove(&ulid) else { return };
        let time = self.config.quarantine;
        let mut addresses = BTreeSet::from([ulid.0]);
        addresses.extend(host.locators.iter().map(|(locator, _)| locator.0));
        let ulids = std::iter::once(ulid).chain(homes);
        let contexts: Vec<ContextId> =
            ulids.flat_map(|ulid| self.store.by_host(ulid).map(|context| context.id)).collect();
        for id in contexts {
            if let Some(context) = self.store.get(id) {
                // Peers may still use what they were told before the newest list.
                addresses.extend(context.host.locators.iter().map(|(locator, _)| locator.0));
                self.quarantine.hold_tag(now, time, context.local_tag);
            }
            self.discard(id, GoneReason::HostRemoved, out);
        }
        let owner = Owner { pds: host.pds.clone(), link };
        self.quarantine.hold(now, time, ulid, owner, addresses.into_iter());
    }

    /// A host has another list. What is not on it any more is kept from other hosts for the quarantine time.
    pub fn hold_locators(&mut self, now: Instant, new: &LocalHost, owner: Owner) {
        let Some(old) = self.hosts.get(&new.ulid) else { return };
        let gone: Vec<Ipv6Addr> = old.locators.iter().map(|it| it.0.0).filter(|address| !new.has(*address)).collect();
        self.quarantine.hold(now, self.config.quarantine, new.ulid, owner, gone.into_iter());
    }

    /// Addresses that a host left behind before the box began are kept from others for `time`.
    pub fn hold_addresses(
        &mut self,
        now: Instant,
        time: Duration,
        ulid: Ulid,
        addresses: impl Iterator<Item = Ipv6Addr>,
    ) {
        // Whose they were is known by their parameters alone, which nobody else has.
        let owner = Owner { pds: Some(Vec::new()), link: None };
        self.quarantine.hold(now, time, ulid, owner, addresses);
    }

    /// A host that is known by more than its link-layer address is back: its own addresses are held no longer.
    pub fn lift_quarantine(&mut self, ulid: Ulid, addresses: impl Iterator<Item = Ipv6Addr>) {
        self.quarantine.lift(ulid, addresses);
    }

    /// How long what hosts leave behind is kept from others, from now on.
    pub fn set_quarantine(&mut self, time: Duration) {
        self.config.quarantine = time;
    }

    /// The addresses that belonged to hosts that are gone.
    pub fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// The host with this ULID.
    pub fn host(&self, ulid: Ulid) -> Option<&LocalHost> {
        self.hosts.get(&ulid).map(Arc::as_ref)
    }

    /// The same, as contexts share it.
    pub fn shared_host(&self, ulid: Ulid) -> Option<&Arc<LocalHost>> {
        self.hosts.get(&ulid)
    }

    /// Forgets a context without a word to the peer (§9).
    pub fn discard(&mut self, id: ContextId, reason: GoneReason, out: &mut Vec<Output>) {
        if let Some(context) = self.store.remove(id) {
            if let Some(group) = &mut self.store.group {
                group.gone(&context, reason);
            }
            self.tags.release(context.local_tag);
            self.release_label(context.local_label);
            self.checks.remove(&id);
            let (ulids, fork, local_tag) = (context.ulids, context.fork, context.local_tag);
            out.push(Output::Gone { id, ulids, fork, local_tag, reason });
        }
    }

    /// The context, if it still exists.
    pub fn context(&self, id: ContextId) -> Option<&Context> {
        self.store.get(id)
    }

    /// The context whose packets carry this flow label to the peer, between locators of the two sets: for ICMPv6 errors.
    pub fn find_by_peer_label(&self, label: FlowLabel, pair: LocatorPair) -> Option<&Context> {
        let addresses = Addresses { source: pair.peer.0, target: pair.local.0 };
        self.store.by_peer_label(label).find(|context| context.has_pair(addresses))
    }

    /// The contexts of one of our hosts.
    pub fn contexts_of(&self, ulid: Ulid) -> impl Iterator<Item = &Context> {
        self.ulids_of(ulid).flat_map(|ulid| self.store.by_host(ulid))
    }

    /// How many there are.
    pub fn count_of(&self, ulid: Ulid) -> usize {
        self.ulids_of(ulid).map(|ulid| self.store.count_of(ulid)).sum()
    }

    /// How many contexts wait for an answer to an I1, I2 or I2bis.
    pub fn exchanges(&self) -> usize {
        self.store.exchanges()
    }

    /// All contexts.
    pub fn contexts(&self) -> impl Iterator<Item = &Context> {
        self.store.iter()
    }

    /// How many places the table of contexts has, taken or not. Whoever goes through all of them a few at a time meets every
    /// context that was there before and after.
    pub fn places(&self) -> usize {
        self.store.places()
    }

    /// The contexts in some places of the table, in order.
    pub fn contexts_at(&self, places: Range<usize>) -> impl Iterator<Item = &Context> {
        self.store.in_places(places)
    }

    /// Number of contexts.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there is no context.
    pub fn is_empty(&self) -> bool {
        self.store.len() == 0
    }

    /// The peers for whom `reaches` holds may answer again: that they did not is no longer held against them (RFC 5533
    /// §7.8 says for how long at most). Whoever does not speak Shim6 has answered, so that stays. Looks at `most` failures
    /// after the one given, and tells where to go on, if there are more.
    pub fn forgive(&mut self, after: Option<Held>, most: usize, reaches: impl Fn(Ulid) -> bool) -> Option<Held> {
        self.holddowns.release_silent(after, most, reaches)
    }

    /// For how long an exchange that failed is not tried again (§7.8).
    pub fn holddown(&self, reason: FailReason) -> Duration {
        match reason {
            FailReason::NoAnswer => self.config.no_r1_holddown,
            FailReason::NoSupport => self.config.icmp_holddown,
        }
    }

    /// Number of failures remembered.
    pub fn holddowns(&self) -> usize {
        self.holddowns.len()
    }

    /// The failures remembered, and for how long.
    pub fn failures(&self, now: Instant) -> impl Iterator<Item = Failure> {
        self.holddowns.iter(now)
    }

    /// The context of these ULIDs; upper layers that name no fork mean 0 (§12.4).
    pub fn find(&self, ulids: UlidPair, fork: u32) -> Option<&Context> {
        self.store.by_ulids(ulids, fork)
    }

    /// The context that packets with this tag are for (§12.4).
    pub fn find_by_local_tag(&self, tag: ContextTag) -> Option<&Context> {
        self.store.by_local_tag(tag)
    }

    /// The context whose packets carry this tag to the peer, between locators of the two sets: for R1bis, Errors and
    /// ICMPv6 errors (§12.4; D19).
    pub fn find_by_peer(&self, tag: ContextTag, pair: LocatorPair) -> Option<&Context> {
        let addresses = Addresses { source: pair.peer.0, target: pair.local.0 };
        self.store.by_peer_tag(tag).find(|context| context.has_pair(addresses))
    }

    /// STATE for these ULIDs, including those without a context object (§6.2).
    pub fn state(&self, now: Instant, ulids: UlidPair, fork: u32) -> State {
        match (self.store.by_ulids(ulids, fork), self.holddowns.check(now, ulids)) {
            (Some(context), _) => context.state,
            (None, Some((_, FailReason::NoAnswer))) => State::EFailed,
            (None, Some((_, FailReason::NoSupport))) => State::NoSupport,
            (None, None) => State::Idle,
        }
    }

    /// Payload went through the context, either way, tagged or not (§9, §12.1).
    pub fn used(&mut self, now: Instant, id: ContextId) {
        // The deadline stands: it is looked at again when it is due, so that this costs nothing.
        let step = self.config.idle / USE_STEPS;
        let Some(context) = self.store.get_mut_unnoted(id) else { return };
        let (before, mirrored) = (context.last_used, context.mirrored);
        context.last_used = before.max(now);
        // Nor does a copy hear of each use, but often enough not to take for idle what is not.
        if mirrored {
            // Whoever runs it is told in another way.
            return;
        }
        if before.0.as_nanos() / step.as_nanos().max(1) != now.0.as_nanos() / step.as_nanos().max(1) {
            self.store.note(id);
        }
        self.touch(id);
    }

    /// REAP found that the peer answers at `locator`, or no longer trusts that it does (§7.2).
    pub fn set_probed(&mut self, id: ContextId, locator: Locator, probed: bool) -> Result<(), ChangeRefused> {
        let same = |known: &PeerLocator| known.probed == probed;
        if self.store.get(id).and_then(|context| context.peer_locator(locator.0)).is_some_and(same) {
            return Ok(());
        }
        let context = self.store.get_mut(id).ok_or(ChangeRefused::NoContext)?;
        let known = context.peer_locators.iter_mut().find(|known| known.locator == locator);
        known.ok_or(ChangeRefused::Target)?.probed = probed;
        Ok(())
    }

    /// REAP chose another current pair. Only a source the peer accepts and a destination that is verified and probed
    /// will do; the ULIDs themselves always do (§7.2, §11).
    pub fn set_pair(&mut self, id: ContextId, pair: LocatorPair) -> Result<(), ChangeRefused> {
        let context = self.store.get_mut(id).ok_or(ChangeRefused::NoContext)?;
        let source = pair.local.0 == context.ulids.local.0 || context.host.has(pair.local.0);
        let known = context.peer_locator(pair.peer.0);
        let target = pair.peer.0 == context.ulids.peer.0 || known.is_some_and(|known| known.usable());
        match (source, target) {
            (false, _) => Err(ChangeRefused::Source),
            (_, false) => Err(ChangeRefused::Target),
            (true, true) => {
                context.pair = pair;
                Ok(())
            }
        }
    }

    /// When [`Endpoint::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        [self.store.first_deadline(), self.holddowns.deadline(), self.quarantine.deadline()].into_iter().flatten().min()
    }

    /// What is offered to the peer of a context, as far as it is `wanted`. What the peer does not offer is not used.
    pub(super) fn settle_offers(&mut self, rng: &mut dyn Rng, id: ContextId, wanted: Offers) {
        if let Some(context) = self.store.get_mut(id) {
            context.local_udp = self.config.udp && wanted.udp;
            context.local_liveness = self.config.liveness && wanted.liveness;
        }
        self.settle_label(rng, id, wanted.label);
    }

    /// Makes sure that a context has a flow label to offer if one is `wanted`, and none if not: the peer offers none, and
    /// then it uses none. There may be none left, or the configuration may not want any; and where the peer knows the host by
    /// another address than its own, packets are translated anyway and go with the header.
    fn settle_label(&mut self, rng: &mut dyn Rng, id: ContextId, wanted: bool) {
        let Some(ulids) = self.store.get(id).map(|context| context.ulids) else { return };
        let wanted = wanted && self.inside(ulids) == ulids;
        let Some(labels) = self.labels.as_mut() else { return };
        let Some(context) = self.store.get_mut(id) else { return };
        match (wanted, context.local_label) {
            (true, None) => context.local_label = labels.allocate(rng, (self.shard_of)(context.ulids)),
            (false, Some(label)) => {
                context.local_label = None;
                labels.release(label);
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    pub(super) fn release_label(&mut self, label: Option<FlowLabel>) {
        if let (Some(labels), Some(label)) = (self.labels.as_mut(), label) {
            labels.release(label);
        }
    }

    pub(super) fn labels_mut(&mut self) -> Option<&mut LabelSpace> {
        self.labels.as_mut()
    }

    /// A tag for a new context of these ULIDs, other than `not`.
    pub(super) fn allocate_tag(
        &mut self,
        rng: &mut dyn Rng,
        ulids: UlidPair,
        not: Option<ContextTag>,
        displaced: Displaced,
    ) -> Option<ContextTag> {
        let shard = (self.shard_of)(self.inside(ulids));
        let taken = |tag| Some(tag) == not || self.store.by_local_tag(tag).is_some() || self.quarantine.holds_tag(tag);
        let gives_way = displaced.0.and_then(|id| self.store.get(id)).map(|context| context.local_tag);
        self.tags.allocate_for(rng, shard, gives_way, taken)
    }
}
