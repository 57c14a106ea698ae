//! What follows when a context changes: the workers' entry, and what its REAP machine starts from.

use dataplane::context::entry::Traffic;
use dataplane::context::{self as table, Install, LocatorSets, PathNumber, Phase, UdpUse};
use dataplane::wire::shim6::{Addresses, Preference};
use dataplane::wire::{Locator, LocatorPair};
use rand::Rng;

use super::fork::Refused;
use super::label::LabelUse;
use super::mirror::{Elsewhere, MirrorNote};
use super::standby::Guard;
use super::{Effect, Engine, Event, Story};
use crate::reap::{Activity, Direction, LocalLocator, PathKey, PeerLocator, Reap};
use crate::shim6::{Context, ContextId, FailReason, GoneReason, How, Output, State as Shim6State};
use crate::time::Instant;

/// What hangs on a context besides what the endpoint keeps.
#[derive(Default)]
pub(super) struct Attached {
    /// What the owning worker was told last.
    pub(super) installed: Option<Install>,
    /// From ESTABLISHED on.
    pub(super) reap: Option<Reap>,
    /// Totals as last reported, out then in.
    pub(super) traffic: [Traffic; 2],
    /// The path it uses, as far as it is on that path's list.
    pub(super) path: Option<PathKey>,
    /// Which time a path came to be in doubt was the last when it was asked, or came to its path.
    pub(super) asked: u64,
    /// Stands in the queue of those that wait for a probe to be allowed.
    pub(super) waiting: bool,
    /// Whether flow labels arrive, where they are offered.
    pub(super) labels: Option<Box<LabelUse>>,
    /// When a hint last made it test its path.
    pub(super) hinted: Option<Instant>,
    /// When the peer was last heard.
    pub(super) heard: Option<Instant>,
    /// Half seconds in which it was last counted among those heard, and among those that sent.
    pub(super) counted: [Option<u64>; 2],
    /// Stands in the queue of those that have something to hear.
    pub(super) news: bool,
    /// Of a default context, forks that came to nothing.
    pub(super) refused: Refused,
    /// Of a forked context, when it last moved, or tried to come back to a provider its class prefers.
    pub(super) homeward: Option<Instant>,
    /// The peer's locator that its last REAP message came from.
    pub(super) heard_from: Option<Locator>,
    /// Explorations since the last news that ended on a pair which should be left.
    pub(super) stayed: u8,
    /// The provider its peer was told to send to, as the policy numbers it.
    pub(super) inward: Option<u8>,
    /// Its other pair, once payload has come.
    pub(super) guard: Option<Box<Guard>>,
    /// A pair of locators on which a router has no room for the payload header behind 1280 octets.
    pub(super) narrow: Option<LocatorPair>,
    /// The pair of its last probe that has no answer yet, and when that left.
    pub(super) probed: Option<(LocatorPair, Instant)>,
    /// Where hosts send, if not here.
    pub(super) elsewhere: Elsewhere,
    /// Another box runs it.
    pub(super) mirrored: Option<Box<MirrorNote>>,
}

impl Engine {
    /// Carries out what the endpoint wants.
    pub(super) fn follow(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        mut outputs: Vec<Output>,
        effects: &mut Vec<Effect>,
    ) {
        for output in outputs.drain(..) {
            if let Output::Reap { id, .. }
            | Output::Checked { id, .. }
            | Output::ControlIn { id }
            | Output::ControlOut { id }
            | Output::LocatorsChanged { id }
            | Output::Suspended { id }
            | Output::Ready { id, .. } = &output
            {
                // The peer talks to this box, and no other is there to answer.
                self.take_on(now, rng, *id, effects);
            }
            match output {
                Output::Send { context, addresses, message } => {
                    // The worker hears of the context before the peer does: what the peer sends at once finds it there.
                    self.sync_if(context, effects);
                    let first = effects.len();
                    self.send_message(now, context, addresses, &message, effects);
                    self.by_owner(context, &mut effects[first..]);
                    if self.carriages.is_wanted() {
                        // How the peer spoke may have said something about the path.
                        self.sync_if(context, effects);
                    }
                }
                Output::Opening { id } => {
                    self.durations.opening(now, id);
                    self.attached.get_or_default(id);
                    self.revival.opening.insert(id);
                    self.sync(id, effects);
                }
                Output::Ready { id, how } => {
                    self.ready(now, rng, id, how, effects);
                    if let Some(ulids) = self.endpoint.context(id).map(|context| context.ulids) {
                        self.answer_waiting(now, ulids, effects);
                    }
                }
                Output::LocatorsChanged { id } => {
                    if let Some(attached) = self.attached.get_mut(&id) {
                        attached.stayed = 0;
                    }
                    self.locators_changed(now, rng, id, effects);
                    self.heed(now, rng, id, effects);
                }
                Output::Suspended { id } => {
                    self.revival.forget(id);
                    self.revival.opening.insert(id);
                    if let Some(reap) = self.attached.get_mut(&id).and_then(|attached| attached.reap.as_mut()) {
                        reap.stop();
                    }
                    self.sync(id, effects);
                }
                Output::Failed { ulids, fork, reason } => {
                    self.tally.count(Event::OpenFailed);
                    self.peers.failed(now, ulids.peer);
                    self.answer_waiting(now, ulids, effects);
                    if fork != 0 {
                        self.fork_refused(now, ulids, fork, reason, effects);
                        continue;
                    }
                    // Nothing waits for a context of a locator, and most peers that are reached without one have none.
                    if self.endpoint.inside(ulids) == ulids {
                        effects.push(Effect::Refuse(self.owner(&ulids), ulids));
                        effects.push(Effect::Story(Story::Failed(ulids, reason)));
                    }
                }
                Output::Gone { id, ulids, fork, local_tag, reason } => {
                    self.tally.count(Event::ContextGone);
                    if reason == GoneReason::Displaced {
                        self.tally.count(Event::ContextDisplaced);
                    }
                    let installed = self.attached.get_mut(&id).and_then(|attached| attached.installed.take());
                    self.renumber(installed.as_ref(), None, effects);
                    self.attached.remove(&id);
                    self.policy_ends(id);
                    self.due.set(id.index() as u32, None);
                    self.revival.forget(id);
                    self.durations.opened(now, id, false);
                    // The tag names its worker. The pair no longer does when the host has gone before its contexts.
                    let owner = self.sharding.owner_of_tag(local_tag).map_or_else(|| self.owner(&ulids), usize::from);
                    let owner = owner % self.workers;
                    effects.push(Effect::Remove(owner, local_tag));
                    if reason == GoneReason::HostRemoved && fork == 0 {
                        // Packets may wait for the context, and nobody else will let go of them.
                        effects.push(Effect::Refuse(owner, ulids));
                    }
                    effects.push(Effect::Story(Story::Gone(ulids, reason)));
                    if reason == GoneReason::Confused && fork != 0 {
                        // The peer gave its tag to another context of the pair: it may not know of forks at all.
                        self.fork_refused(now, ulids, fork, FailReason::NoSupport, effects);
                    }
                }
                Output::Reap { id, addresses, message } => {
                    self.reap_message(now, rng, id, addresses, &message, effects)
                }
                Output::Checked { id, pair } if self.reached(now, rng, id, pair, effects) => {}
                Output::Checked { id, pair } => self.guarded(now, rng, id, pair, effects),
                Output::ControlIn { id } => {
                    self.reap(now, rng, id, effects, |reap, rng, out| reap.payload_in(now, rng, out))
                }
                Output::ControlOut { id } => {
                    self.reap(now, rng, id, effects, |reap, rng, out| reap.payload_out(now, rng, out));
                }
                Output::ErrorReceived { .. } => self.tally.count(Event::ErrorsReceived),
            }
        }
        self.outputs = outputs;
    }

    /// ESTABLISHED: REAP begins, or goes on where the pair is still the one it knows.
    pub(super) fn ready(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        how: How,
        effects: &mut Vec<Effect>,
    ) {
        self.revival.opening.remove(&id);
        self.durations.opened(now, id, how == How::Initiated);
        let Some(context) = self.endpoint.context(id) else { return };
        self.tally.count(if how == How::Recovered { Event::ContextRecovered } else { Event::ContextReady });
        effects.push(Effect::Story(Story::Ready(context.ulids, context.pair, how)));
        let (ulid, pair, timeout) = (context.ulids.local, context.pair, context.peer_keepalive_timeout);
        let (ulids, fork) = (context.ulids, context.fork);
        let (local, peer) = self.locators(context);
        let proved: Vec<Locator> = peer.iter().map(|known| known.locator).collect();
        self.peers.proved(now, ulids.peer, &proved);
        // What nobody here knew before has sent nothing yet that could be in doubt.
        let known = self.attached.get(&id).is_some();
        let attached = self.attached.get_or_default(id);
        let kept = attached.reap.take().filter(|reap| reap.current() == pair);
        let fresh = kept.is_none();
        let mut reap = kept.unwrap_or_else(|| Reap::new(&self.reap_config, pair, &local[..], &peer[..]));
        // The exchange itself went over this pair and back (docs/decisions: handshake as presence proof).
        reap.set_confirmed(pair);
        if let Some(seconds) = timeout {
            reap.set_keepalive_timeout(seconds);
        }
        attached.reap = Some(reap);
        self.attached.settle(id);
        if !fresh {
            self.reap(now, rng, id, effects, |reap, rng, out| reap.set_locators(now, rng, local, peer, out));
        }
        self.sync(id, effects);
        self.sight(now, id, PathKey::of(pair), [true, false]);
        self.watch_used(now, rng, id, pair);
        if fork != 0 {
            self.fork_ready(ulids, fork);
        }
        match how {
            // The peer sent its R2 and is ready for a test. In the other cases our own R2 has not left yet.
            How::Initiated => self.label_payload(now, rng, id, None, effects),
            How::Accepted | How::Recovered | How::Updated if known => self.wake(now, id),
            How::Accepted | How::Recovered | How::Updated => {}
        }
        self.policy_begins(now, id);
        if self.is_unwelcome(ulid, pair.local) {
            // The peer chose it, or there was no choice when the exchange began.
            self.has_news(id);
        }
    }

    pub(super) fn locators_changed(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        effects: &mut Vec<Effect>,
    ) {
        let Some(context) = self.endpoint.context(id) else { return };
        let timeout = context.peer_keepalive_timeout;
        let (local, peer) = self.locators(context);
        self.reap(now, rng, id, effects, |reap, rng, out| {
            if let Some(seconds) = timeout {
                reap.set_keepalive_timeout(seconds);
            }
            reap.set_locators(now, rng, local, peer, out);
        });
        self.sync(id, effects);
    }

    /// The locators REAP may use: ours in order of the providers, the peer's as far as they are proved.
    pub(super) fn locators(&self, context: &Context) -> (Vec<LocalLocator>, Vec<PeerLocator>) {
        let ulid = context.ulids.local;
        let welcome = |locator: &Locator| self.provider_of(locator.0).is_some() && !self.is_unwelcome(ulid, *locator);
        // Nothing is left that has no alternative, for instance while the peer has not accepted the new locators yet.
        let alternative = context.host.locators.iter().any(|(locator, _)| welcome(locator));
        let class = self.class_of(context);
        let ours = context.host.locators.iter().filter_map(|(locator, _)| {
            let (_, provider) = self.provider_of(locator.0)?;
            if self.never_uses(context, provider) {
                return None;
            }
            let preference = self.policy_standing(context, provider);
            let preference = preference.unwrap_or_else(|| self.standing_for(class, provider));
            let unwelcome = alternative && !welcome(locator);
            Some(LocalLocator { locator: *locator, preference, unwelcome })
        });
        let usable = |known: &&crate::shim6::PeerLocator| known.verified && !self.is_identifier(known.locator.0);
        let theirs = context.peer_locators.iter().filter(usable).map(|known| PeerLocator {
            locator: known.locator,
            broken: known.preference.flags & Preference::BROKEN != 0,
            transient: known.preference.flags & Preference::TRANSIENT != 0,
            priority: known.preference.priority.unwrap_or_default(),
        });
        (ours.collect(), theirs.collect())
    }

    /// Has the worker that owns a context send what is about it, so that it knows the context before the peer hears of it.
    /// What has to wait for a neighbour goes later anyway.
    fn by_owner(&self, id: Option<ContextId>, effects: &mut [Effect]) {
        let Some(context) = id.and_then(|id| self.endpoint.context(id)) else { return };
        let owner = self.home(context);
        for effect in effects {
            if let Effect::Transmit(port, frame) = effect {
                *effect = Effect::TransmitBy(owner, *port, std::mem::take(frame));
            }
        }
    }

    pub(super) fn sync_if(&mut self, id: Option<ContextId>, effects: &mut Vec<Effect>) {
        if let Some(id) = id {
            self.sync(id, effects);
        }
    }

    /// Tells the owning worker what it should know of a context, if that is not what it was told last.
    pub(super) fn sync(&mut self, id: ContextId, effects: &mut Vec<Effect>) {
        self.ask_for_routes(id);
        let Some(context) = self.endpoint.context(id) else { return };
        let phase = match context.state {
            Shim6State::I1Sent => Phase::Opening,
            Shim6State::I2Sent => Phase::Answering,
            // Where the peer is has to be found first: it told of a list without the locator it spoke from, and no other has
            // answered yet. Packets wait meanwhile; they must not go to an identifier that nobody routes.
            Shim6State::Established | Shim6State::I2bisSent if is_nowhere(context) => Phase::Answering,
            Shim6State::Established | Shim6State::I2bisSent => Phase::Live,
            Shim6State::Idle | Shim6State::EFailed | Shim6State::NoSupport => return,
        };
        let Some((provider, _)) = self.provider_of(context.pair.local.0) else { return };
        let inside = self.endpoint.inside(context.ulids).local;
        let Some(&host) = self.snapshot.host_index.get(&inside) else { return };
        let Some(attached) = self.attached.get(&id) else { return };
        let install = Install {
            handle: id.to_bits(),
            ulids: context.ulids,
            default: context.fork == 0,
            classes: self.classes_of(context),
            local_tag: context.local_tag,
            peer_tag: context.peer_tag.unwrap_or(context.local_tag),
            locators: context.pair,
            provider: provider as u8,
            path: PathNumber::NONE,
            standby: None,
            host,
            inside: (inside != context.ulids.local).then_some(inside),
            phase,
            local_label: context.local_label.filter(|_| phase != Phase::Opening),
            peer_label: self.label_in_use(context),
            narrow: attached.narrow == Some(context.pair),
            udp: UdpUse {
                comes: context.local_udp && phase != Phase::Opening,
                goes: self.goes_in_udp(context, context.pair),
            },
            accepted: (self.strict || context.local_label.is_some()).then(|| Box::new(locator_sets(context))),
        };
        let owner = self.home(context);
        let (path, standby) = self.standby_for_worker(id, phase);
        self.tell_worker(owner, id, Install { path, standby, ..install }, effects);
    }

    fn tell_worker(&mut self, owner: usize, id: ContextId, install: Install, effects: &mut Vec<Effect>) {
        let Some(attached) = self.attached.get_mut(&id) else { return };
        if attached.installed.as_ref() == Some(&install) {
            return;
        }
        let old = attached.installed.replace(install.clone());
        let before = old.as_ref().and_then(|old| old.peer_label);
        match (before.is_some(), install.peer_label.is_some()) {
            (false, true) => self.tally.count(Event::LabelBegun),
            (true, false) => self.tally.count(Event::LabelEnded),
            (true, true) | (false, false) => {}
        }
        if let Some(old) = old.as_ref().filter(|old| old.local_tag != install.local_tag) {
            effects.push(Effect::Remove(owner, old.local_tag));
        }
        effects.push(Effect::Install(owner, install.clone()));
        self.renumber(old.as_ref(), Some(&install), effects);
    }

    /// What a worker saw in a context since its last report.
    pub(super) fn activity(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        activity: table::Activity,
        traffic: [Traffic; 2],
        effects: &mut Vec<Effect>,
    ) {
        if self.seen_for_another(now, rng, id, activity, effects) {
            return;
        }
        let Some(context) = self.endpoint.context(id) else { return };
        let pair = self.pair_in_use(id).unwrap_or(context.pair);
        let early = activity.received && matches!(context.state, Shim6State::I2Sent | Shim6State::I2bisSent);
        if let Some(attached) = self.attached.get_mut(&id) {
            attached.traffic = traffic;
            if activity.sent {
                attached.elsewhere = Elsewhere::default();
            }
        }
        let sends = activity.sent.then_some(pair);
        self.policy_measures(now, id, traffic.map(|it| it.octets), sends, activity.arrived);
        self.endpoint.used(now, id);
        self.fork_active(now, id);
        if early {
            // RFC 5533 §12.2: the peer is established, so its R2 was lost.
            let mut out = Vec::new();
            let verdict = self.endpoint.payload_received(now, id, &mut out);
            self.tally.shim6(verdict);
            self.follow(now, rng, out, effects);
        }
        let last = match activity.last {
            table::Direction::In => Direction::Received,
            table::Direction::Out => Direction::Sent,
        };
        let digest = Activity { received: activity.received, sent: activity.sent, last };
        self.sight(now, id, PathKey::of(pair), [activity.received, activity.sent]);
        self.watch_used(now, rng, id, pair);
        self.reap(now, rng, id, effects, |reap, rng, out| reap.activity(now, rng, digest, out));
        self.label_payload(now, rng, id, Some(activity), effects);
        self.udp_payload(now, rng, id, activity.sent, effects);
        if activity.received {
            self.guard(now, id);
        }
    }
}

/// Whether the current pair leads to the peer's identifier although that is none of its locators.
fn is_nowhere(context: &Context) -> bool {
    context.pair.peer.0 == context.ulids.peer.0 && context.peer_locator(context.pair.peer.0).is_none()
}

fn locator_sets(context: &Context) -> LocatorSets {
    LocatorSets {
        local: context.host.locators.iter().map(|(locator, _)| *locator).collect(),
        peer: context.peer_locators.iter().map(|known| known.locator).collect(),
    }
}

/// The addresses of a packet we send on a pair.
pub(super) fn along(pair: LocatorPair) -> Addresses {
    Addresses { source: pair.local.0, target: pair.peer.0 }
}

/// The /64 of an address.
pub(super) fn prefix_of(address: std::net::Ipv6Addr) -> [u8; 8] {
    ((address.to_bits() >> 64) as u64).to_be_bytes()
}
