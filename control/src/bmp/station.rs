//! Routers, the BGP sessions they tell of, and what all that says of each provider.
//!
//! A *source* is a BGP session that the configuration says is with a provider. A provider's route to a /64 is
//!
//! - there, if any of its sources has it, whether or not that source has told everything yet;
//! - gone, if all of its sources are complete and none has it;
//! - unknown otherwise.
//!
//! A route that is gone is told as *lost* only if it was there before, while somebody asked: a provider that gives a part of its
//! routes and a router with a static default would look lost otherwise. Where the configuration says that the sources have all
//! routes (`complete`), what is not there is lost at once.
//!
//! A router that has just got a session may say that it has told everything before its neighbour has told *it* anything (FRR does).
//! So for two minutes after a session came up only those routes can be gone that were there since it did, and a table without
//! any route never says more.
//!
//! A source is complete from the End-of-RIB that follows its first routes, or 15 s without an UPDATE, until its router is gone, has been silent for too long,
//! or says that it watches the session no longer. When the BGP session itself ends (Peer Down, reasons 1 to 4) the router has taken
//! its routes away, and that is what is told: they are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::bgp::{self, Update};
use super::counts::{Count, Counts};
use super::message::{Information, Malformed, Message, PeerId, PerPeer};
use super::table::Table;
use crate::config::bmp::{Bmp, View};
use crate::time::Instant;

/// Sessions of one router that are remembered; those that no source names are not.
const SESSIONS_MAX: usize = 64;
/// For how long after a session came up routes may be missing that only come.
const SETTLE: Duration = Duration::from_secs(120);
/// Some routers never say that a table is complete which a session gave them while they were connected (FRR 8.4 does not). After so
/// long without an UPDATE it is taken to be.
const QUIET: Duration = Duration::from_secs(15);
/// /64s that can be asked about.
pub const ASKED_MAX: usize = 1 << 16;

/// A connection's number, never used again.
pub type ConnectionId = u64;

/// News for the engine. Of several about the same the last one is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `provider.name`.
    pub provider: Arc<str>,
    /// The first half of the peer's addresses.
    pub peer: u64,
    /// Whether the provider's route there is lost.
    pub lost: bool,
}

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// What came is no BMP.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Something else came before the Initiation (RFC 7854 §4.3).
    #[error("does not begin with an Initiation")]
    NotInitiated,
    /// It tells of too many sessions.
    #[error("tells of more than {SESSIONS_MAX} sessions that sources name")]
    TooMany,
    /// It said that it would end (§4.5).
    #[error("ended by the router, reason {0:?}")]
    Terminated(Option<u16>),
}

/// How a source is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// No router tells of it.
    #[default]
    Silent,
    /// It has not told all routes yet.
    Filling,
    /// It has.
    Complete,
    /// The BGP session is down, as its router says.
    Down,
    /// It has more routes than may be kept.
    Overfull,
}

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    /// Who has shown a certificate.
    certificate: Option<Arc<str>>,
    told: Option<Information>,
    heard: Instant,
    stalled: bool,
    messages: u64,
    /// Sessions that sources name, and which.
    sessions: BTreeMap<PeerId, (usize, bool)>,
}

#[derive(Debug)]
struct Source {
    /// Place in `Station::providers`.
    provider: usize,
    phase: Phase,
    since: Instant,
    /// When its last UPDATE came, or it came up.
    updated: Instant,
    /// Until when routes may come that were not there before.
    settles: Option<Instant>,
    /// Who tells of it.
    owner: Option<(ConnectionId, PeerId)>,
    table: Table,
}

impl Source {
    /// When it is taken to have told everything, although it has not said so.
    fn full_at(&self) -> Option<Instant> {
        (self.phase == Phase::Filling).then(|| self.updated + QUIET)
    }

    /// Whether a route that a complete table has not will not come by itself.
    fn is_over(&self, peer: u64) -> bool {
        self.table.covered(peer) || self.settles.is_none() && !self.table.is_empty()
    }
}

#[derive(Debug)]
struct Provider {
    name: Arc<str>,
    sources: Vec<usize>,
    /// Whether all of these have all routes.
    complete: bool,
    /// What was asked about.
    asked: BTreeMap<u64, Told>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// A route was there.
    seen: bool,
    lost: bool,
}

/// Where a route of a provider is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    There,
    Gone,
    Unknown,
}

/// All of it.
#[derive(Debug)]
pub struct Station {
    settings: Arc<Bmp>,
    counts: Arc<Counts>,
    connections: BTreeMap<ConnectionId, Connection>,
    sources: Vec<Source>,
    providers: Vec<Provider>,
    asked: BTreeSet<u64>,
    /// What the engine has not been told: provider, /64.
    news: BTreeSet<(usize, u64)>,
    /// Room for what a table says, empty between calls.
    changed: Vec<u64>,
}

impl Station {
    /// Nobody is connected, and nothing is asked.
    pub fn new(settings: Arc<Bmp>, counts: Arc<Counts>) -> Station {
        let mut providers: Vec<Provider> = Vec::new();
        let mut sources = Vec::new();
        for (at, source) in settings.sources.iter().enumerate() {
            let known = providers.iter().position(|it| *it.name == *source.provider);
            let provider = known.unwrap_or_else(|| {
                let name = source.provider.as_str().into();
                providers.push(Provider { name, sources: Vec::new(), complete: true, asked: BTreeMap::new() });
                providers.len() - 1
            });
            providers[provider].sources.push(at);
            providers[provider].complete &= source.complete;
            let table = Table::new(settings.routes_max as usize, source.default_route);
            sources.push(Source {
                provider,
                phase: Phase::Silent,
                since: Instant::START,
                updated: Instant::START,
                settles: None,
                owner: None,
                table,
            });
        }
        Station {
            settings,
            counts,
            connections: BTreeMap::new(),
            sources,
            providers,
            asked: BTreeSet::new(),
            news: BTreeSet::new(),
            changed: Vec::new(),
        }
    }

    /// The engine wants to know about a /64 from now on, by the first half of its addresses.
    pub fn ask(&mut self, peer: u64) {
        if self.asked.len() >= ASKED_MAX || !self.asked.insert(peer) {
            return;
        }
        self.sources.iter_mut().for_each(|source| source.table.ask(peer));
        for at in 0..self.providers.len() {
            self.providers[at].asked.insert(peer, Told::default());
            self.look(at, peer);
        }
    }

    /// It does no longer.
    pub fn forget(&mut self, peer: u64) {
        self.asked.remove(&peer);
        self.sources.iter_mut().for_each(|source| source.table.forget(peer));
        for (at, provider) in self.providers.iter_mut().enumerate() {
            provider.asked.remove(&peer);
            self.news.remove(&(at, peer));
        }
    }

    /// What has changed since this was last asked: at most so much.
    pub fn take(&mut self, most: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        while changes.len() < most {
            let Some((at, peer)) = self.news.pop_first() else { break };
            let Some(provider) = self.providers.get(at) else { continue };
            let Some(told) = provider.asked.get(&peer) else { continue };
            changes.push(Change { provider: Arc::clone(&provider.name), peer, lost: told.lost });
        }
        changes
    }

    /// A change could not be told, and is to be told later.
    pub fn put_back(&mut self, change: &Change) {
        if let Some(at) = self.providers.iter().position(|it| it.name == change.provider) {
            self.news.insert((at, change.peer));
        }
    }

    /// Whether there is something to [`take`](Station::take).
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }
}

/// Connections.
impl Station {
    /// A router has connected.
    pub fn connected(&mut self, now: Instant, id: ConnectionId, address: IpAddr, certificate: Option<Arc<str>>) {
        let connection = Connection {
            address,
            certificate,
            told: None,
            heard: now,
            stalled: false,
            messages: 0,
            sessions: BTreeMap::new(),
        };
        self.connections.insert(id, connection);
    }

    /// Its connection has ended, however that came.
    pub fn closed(&mut self, now: Instant, id: ConnectionId) {
        self.connections.remove(&id);
        for at in 0..self.sources.len() {
            if self.sources[at].owner.is_some_and(|(owner, _)| owner == id) {
                self.sources[at].owner = None;
                self.set_phase(now, at, Phase::Silent, false);
            }
        }
    }

    /// A whole message has come.
    ///
    /// # Errors
    /// The connection has to end; [`closed`](Station::closed) is to be called then as well.
    pub fn message(&mut self, now: Instant, id: ConnectionId, octets: &[u8]) -> Result<(), Refused> {
        let parsed = Message::parse(octets);
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let message = parsed.inspect_err(|_| self.counts.add(Count::Malformed))?;
        self.counts.add(Count::Messages);
        connection.messages += 1;
        connection.heard = now;
        if connection.told.is_none() && !matches!(message, Message::Initiation(_)) {
            self.counts.add(Count::OutOfOrder);
            return Err(Refused::NotInitiated);
        }
        if std::mem::take(&mut connection.stalled) {
            self.look_at_connection(id);
        }
        match message {
            Message::Initiation(information) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.told = Some(information);
                }
            }
            Message::PeerUp(peer, paths) => self.peer_up(now, id, peer, paths)?,
            Message::PeerDown(peer, reason) => self.peer_down(now, id, peer, reason),
            Message::RouteMonitoring(peer, update) => self.route_monitoring(now, id, peer, update)?,
            Message::Termination(reason) => return Err(Refused::Terminated(reason)),
            Message::Statistics(_) | Message::Other(_) => {}
        }
        Ok(())
    }

    /// Routers that have been silent for too long do not count for now, and sessions that have been up for long have all that
    /// they will have.
    pub fn expire(&mut self, now: Instant) {
        for at in 0..self.sources.len() {
            if self.sources[at].settles.is_some_and(|settles| settles <= now) {
                self.sources[at].settles = None;
                self.look_at_all(self.sources[at].provider);
            }
            if self.sources[at].full_at().is_some_and(|due| due <= now) {
                self.fill(now, at);
            }
        }
        let Some(stall) = self.settings.stall else { return };
        let silent = |it: &Connection| !it.stalled && now.since(it.heard) >= stall;
        let ids: Vec<ConnectionId> = self.connections.iter().filter(|(_, it)| silent(it)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.stalled = true;
                self.counts.add(Count::Stalled);
            }
            self.look_at_connection(id);
        }
    }

    /// When [`expire`](Station::expire) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let silent = self.connections.values().filter(|it| !it.stalled);
        let stalls = silent.filter_map(|it| Some(it.heard + self.settings.stall?));
        let settling = self.sources.iter().flat_map(|it| [it.settles, it.full_at()]).flatten();
        stalls.chain(settling).min()
    }

    /// The source that a session is, by what its router and the session say of themselves.
    fn source_of(&self, connection: &Connection, peer: &PerPeer) -> Option<usize> {
        let name = connection.told.as_ref().map(|told| told.name.as_str()).unwrap_or_default();
        self.settings.sources.iter().position(|source| {
            source.peer == peer.id.address
                && source.asn.is_none_or(|asn| asn == peer.asn)
                && source.router.as_deref().is_none_or(|router| router == name)
        })
    }

    /// The session's source, if this connection is the one that tells of it, and whether its prefixes have paths.
    fn owned(&self, id: ConnectionId, peer: &PerPeer) -> Option<(usize, bool)> {
        let (at, paths) = *self.connections.get(&id)?.sessions.get(&peer.id)?;
        let owner = self.sources.get(at)?.owner;
        (owner == Some((id, peer.id))).then_some((at, paths))
    }

    fn peer_up(&mut self, now: Instant, id: ConnectionId, peer: PerPeer, paths: bool) -> Result<(), Refused> {
        if !peer.is_inward() {
            return Ok(());
        }
        let Some(at) = self.connections.get(&id).and_then(|connection| self.source_of(connection, &peer)) else {
            return Ok(());
        };
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        connection.sessions.insert(peer.id, (at, paths));
        if connection.sessions.len() > SESSIONS_MAX {
            self.counts.add(Count::OutOfOrder);
            return Err(Refused::TooMany);
        }
        if self.sources[at].owner.is_some_and(|owner| owner != (id, peer.id)) {
            // A router that came back before its old connection was seen to be dead, more likely than two of them.
            self.counts.add(Count::Displaced);
        }
        self.sources[at].owner = Some((id, peer.id));
        self.set_phase(now, at, Phase::Filling, paths);
        Ok(())
    }

    fn peer_down(&mut self, now: Instant, id: ConnectionId, peer: PerPeer, reason: u8) {
        let Some((at, _)) = self.owned(id, &peer) else { return };
        // §4.9: by a notification or without, of the router or of its peer. Otherwise it is not watched any more.
        let phase = if (1..=4).contains(&reason) { Phase::Down } else { Phase::Silent };
        self.set_phase(now, at, phase, false);
    }

    fn route_monitoring(
        &mut self,
        now: Instant,
        id: ConnectionId,
        peer: PerPeer,
        octets: &[u8],
    ) -> Result<(), Refused> {
        let Some((at, paths)) = self.owned(id, &peer) else { return Ok(()) };
        if !peer.is_inward() || peer.is_post_policy() != (self.settings.view == View::PostPolicy) {
            self.counts.add(Count::OtherView);
            return Ok(());
        }
        let update = bgp::update(octets, paths).inspect_err(|_| self.counts.add(Count::Malformed))?;
        self.counts.add(Count::Updates);
        self.update(now, at, &update);
        Ok(())
    }
}

/// What it comes to.
impl Station {
    fn update(&mut self, now: Instant, at: usize, update: &Update) {
        let source = &mut self.sources[at];
        if !matches!(source.phase, Phase::Filling | Phase::Complete) {
            return;
        }
        source.updated = now;
        let mut changed = std::mem::take(&mut self.changed);
        // A prefix that is in both is there (RFC 4271 §4.3 speaks of the withdrawn ones first).
        update.withdrawn.iter().for_each(|route| source.table.withdraw(*route, &mut changed));
        let full = update.announced.iter().any(|route| source.table.announce(*route, &mut changed).is_err());
        let (provider, filled) = (source.provider, update.end && source.phase == Phase::Filling);
        for peer in changed.drain(..) {
            self.look(provider, peer);
        }
        self.changed = changed;
        if full {
            self.counts.add(Count::Full);
            self.set_phase(now, at, Phase::Overfull, false);
        } else if filled {
            self.fill(now, at);
        }
    }

    /// A source has told all it has.
    fn fill(&mut self, now: Instant, at: usize) {
        let source = &mut self.sources[at];
        (source.phase, source.since) = (Phase::Complete, now);
        let provider = source.provider;
        self.look_at_all(provider);
    }

    /// A source begins anew, or ends.
    fn set_phase(&mut self, now: Instant, at: usize, phase: Phase, paths: bool) {
        let source = &mut self.sources[at];
        (source.phase, source.since, source.updated) = (phase, now, now);
        source.settles = (phase == Phase::Filling).then_some(now + SETTLE);
        let mut changed = std::mem::take(&mut self.changed);
        source.table.clear(paths, &mut changed);
        changed.clear();
        self.changed = changed;
        let provider = source.provider;
        self.look_at_all(provider);
    }

    fn look_at_connection(&mut self, id: ConnectionId) {
        let mut providers: Vec<usize> = Vec::new();
        providers.extend(
            self.sources.iter().filter(|it| it.owner.is_some_and(|(owner, _)| owner == id)).map(|it| it.provider),
        );
        for provider in providers {
            self.look_at_all(provider);
        }
    }

    fn look_at_all(&mut self, provider: usize) {
        let asked: Vec<u64> = self.asked.iter().copied().collect();
        for peer in asked {
            self.look(provider, peer);
        }
    }

    /// Looks where the route of a provider to a /64 is now, and notes what is news.
    fn look(&mut self, at: usize, peer: u64) {
        let route = self.route(at, peer);
        let Some(provider) = self.providers.get_mut(at) else { return };
        let complete = provider.complete;
        let Some(told) = provider.asked.get_mut(&peer) else { return };
        told.seen |= route == Route::There || complete && route == Route::Gone;
        let lost = route == Route::Gone && told.seen;
        if told.lost != lost {
            told.lost = lost;
            self.counts.add(if lost { Count::Lost } else { Count::Back });
            // Whoever is told reads what is so then. One that is back before that was told is told as well: it was news twice.
            self.news.insert((at, peer));
        }
    }

    fn route(&self, provider: usize, peer: u64) -> Route {
        let Some(provider) = self.providers.get(provider) else { return Route::Unknown };
        let mut route = Route::Gone;
        for source in provider.sources.iter().filter_map(|at| self.sources.get(*at)) {
            let owner = source.owner.and_then(|(id, _)| self.connections.get(&id));
            let speaks = owner.is_some_and(|owner| !owner.stalled);
            match source.phase {
                Phase::Filling | Phase::Complete if speaks && source.table.covers(peer) => return Route::There,
                Phase::Complete if speaks && source.is_over(peer) => {}
                Phase::Down if speaks => {}
                Phase::Silent | Phase::Filling | Phase::Complete | Phase::Down | Phase::Overfull => {
                    route = Route::Unknown;
                }
            }
        }
        route
    }
}

/// How everything stands, for display.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Those that are connected.
    pub routers: Vec<RouterStatus>,
    /// In the order of the configuration.
    pub sources: Vec<SourceStatus>,
    /// /64s that are asked about.
    pub asked: usize,
}

/// A router that is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterStatus {
    /// Where it is.
    pub address: IpAddr,
    /// What its certificate is known by.
    pub certificate: Option<Arc<str>>,
    /// sysName.
    pub name: String,
    /// sysDescr.
    pub description: String,
    /// Messages so far.
    pub messages: u64,
    /// How long ago the last one came.
    pub silent: Duration,
    /// Whether that is too long.
    pub stalled: bool,
}

/// A source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    /// `provider.name`.
    pub provider: Arc<str>,
    /// The BGP neighbour.
    pub peer: IpAddr,
    /// Where the router is that tells of it.
    pub router: Option<IpAddr>,
    /// How it is.
    pub phase: Phase,
    /// Whether its router has been silent for too long.
    pub stalled: bool,
    /// For how long.
    pub since: Duration,
    /// Prefixes.
    pub routes: usize,
    /// /64s to which the provider has lost its route.
    pub lost: usize,
}

impl Station {
    /// How everything stands.
    pub fn status(&self, now: Instant) -> Status {
        let router = |it: &Connection| {
            let told = it.told.clone().unwrap_or_default();
            RouterStatus {
                address: it.address,
                certificate: it.certificate.clone(),
                name: told.name,
                description: told.description,
                messages: it.messages,
                silent: now.since(it.heard),
                stalled: it.stalled,
            }
        };
        let source = |(at, it): (usize, &Source)| {
            let provider = &self.providers[it.provider];
            let owner = it.owner.and_then(|(id, _)| self.connections.get(&id));
            SourceStatus {
                provider: Arc::clone(&provider.name),
                peer: self.settings.sources[at].peer,
                router: owner.map(|owner| owner.address),
                phase: it.phase,
                stalled: owner.is_some_and(|owner| owner.stalled),
                since: now.since(it.since),
                routes: it.table.len(),
                lost: provider.asked.values().filter(|told| told.lost).count(),
            }
        };
        Status {
            routers: self.connections.values().map(router).collect(),
            sources: self.sources.iter().enumerate().map(source).collect(),
            asked: self.asked.len(),
        }
    }
}
