//! What the operator sees of the engine: the management views, filled in.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use hashbrown::HashMap;

use super::{Engine, Provider};
use crate::config::Prefix;
use crate::dhcp::State::Bound;
use crate::dhcp::{Held, Lease};
use crate::manage::api::{
    ContextCounts, ContextFilter, ContextState, ContextView, ContextsView, ErrorView, HeldView, HostView, HostsView,
    LeaseView, LeasesView, PairView, PathView, PathsView, PeerLocatorView, ProviderView, QuarantinedView, ReapState,
};
use crate::reap::{PathKey, State as Reaping, Status};
use crate::shim6::{Context, FailReason, State};
use crate::time::Instant;
use dataplane::snapshot::PortId;
use dataplane::wire::Ulid;

/// Contexts looked at to answer one question, so that it does not keep everything else waiting.
const LOOKED_AT_PER_PAGE: usize = 4096;
/// How long ago something may have arrived on a path that is called up because of it, in seconds.
const FRESH_S: u64 = 10;

/// What the names in a [`ContextFilter`] stand for.
struct Choice {
    host: Option<Ulid>,
    /// Of the provider's locators.
    provider: Option<u64>,
    /// Where the peer is.
    prefix: Option<Prefix>,
}

impl Choice {
    fn leads_to(&self, peer: Ipv6Addr, locator: Option<Ipv6Addr>) -> bool {
        let inside = |prefix: Prefix| prefix.contains(peer) || locator.is_some_and(|locator| prefix.contains(locator));
        self.prefix.is_none_or(inside)
    }
}

impl Engine {
    /// The hosts served, in order of their names.
    pub fn hosts_view(&self, now: Instant) -> HostsView {
        let mut hosts: Vec<HostView> = Vec::new();
        for (ulid, served) in &self.served {
            let Some(host) = self.endpoint.host(*ulid) else { continue };
            let kind = host.pds.as_deref().and_then(|pds| crate::identity::verify_ulid(*ulid, pds).ok());
            hosts.push(HostView {
                name: served.name.clone(),
                ulid: ulid.0,
                locators: host.locators.iter().map(|(locator, _)| locator.0).collect(),
                kind: kind.map(|kind| format!("{kind:?}").to_lowercase()).unwrap_or_default(),
                contexts: Some(self.endpoint.count_of(*ulid) as u64),
            });
        }
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        HostsView { hosts, quarantined: self.quarantined(now) }
    }

    /// Hosts that get their address by DHCPv6, in order of their names.
    pub fn leases_view(&self, now: Instant) -> LeasesView {
        let Some(server) = self.lease_server() else { return LeasesView::default() };
        let (wall, book) = (server.wall(now), server.book());
        let view = |lease: &Lease| LeaseView {
            name: lease.name.clone(),
            duid: lease.client.duid.to_string(),
            iaid: lease.client.iaid,
            ulid: lease.identity.ulid,
            locators: lease.identity.locators.clone(),
            bound: lease.state == Bound,
            left_s: lease.until.saturating_sub(wall),
            via: Some(lease.via),
        };
        let held = |held: &Held| HeldView {
            ulid: held.ulid,
            declined: held.declined,
            left_s: held.until.saturating_sub(wall),
        };
        let mut leases: Vec<LeaseView> = book.leases().map(view).collect();
        leases.sort_by(|a, b| (&a.name, a.ulid).cmp(&(&b.name, b.ulid)));
        LeasesView {
            enabled: true,
            server: server.config().duid.to_string(),
            leases_max: server.config().leases_max as u64,
            bound: book.bound() as u64,
            ready: server.ready() as u64,
            waiting: server.waiting() as u64,
            leases,
            quarantined: book.held().map(held).collect(),
        }
    }

    /// How many hosts are served.
    pub fn hosts_served(&self) -> usize {
        self.served.len()
    }

    /// Leases that clients have now, and how many there may be; none without DHCPv6.
    pub fn leases_bound(&self) -> Option<(u64, u64)> {
        let server = self.lease_server()?;
        Some((server.book().bound() as u64, server.config().leases_max as u64))
    }

    /// Hosts that are gone and what they left behind, in the order in which it becomes free.
    fn quarantined(&self, now: Instant) -> Vec<QuarantinedView> {
        let mut gone: BTreeMap<_, QuarantinedView> = BTreeMap::new();
        for (address, held) in self.endpoint.quarantine().iter() {
            let view = gone.entry((held.until, held.ulid)).or_insert_with(|| QuarantinedView {
                ulid: held.ulid.0,
                addresses: Vec::new(),
                mac: held.owner.link.map(|mac| mac.to_string()),
                left_s: held.until.since(now).as_secs(),
            });
            view.addresses.push(address);
        }
        gone.into_values().collect()
    }

    /// The contexts that pass a filter: of a host all there are, as long as those are few, otherwise those in the next places
    /// of the table.
    ///
    /// # Errors
    /// That the filter names a host, a provider or a prefix that there is not.
    pub fn contexts_view(&self, now: Instant, filter: &ContextFilter) -> Result<ContextsView, ErrorView> {
        let choice = self.choice(filter)?;
        // A context whose ULID is a locator is the host's too.
        let wanted = |context: &&Context| {
            let (ulids, state) = (context.ulids, context_state(context.state));
            let local = [ulids.local, self.endpoint.inside(ulids).local];
            let matches = |local: &Ulid| {
                choice.host.is_none_or(|host| host == *local) && filter.matches(local.0, ulids.peer.0, state)
            };
            let through = |prefix| (context.pair.local.0.to_bits() >> 64) as u64 == prefix;
            local.iter().any(matches)
                && choice.leads_to(ulids.peer.0, Some(context.pair.peer.0))
                && choice.provider.is_none_or(through)
        };
        let mut view = ContextsView::default();
        let mut add = |context: &Context| {
            if view.contexts.len() < filter.limit() {
                view.contexts.push(self.context_view(now, context));
            } else {
                view.left_off += 1;
            }
        };
        let host = filter.ulid.and_then(|ulid| self.endpoint.host_at(Ulid(ulid))).map(|host| host.ulid).or(choice.host);
        let host = host.filter(|host| filter.after.is_none() && self.endpoint.count_of(*host) <= LOOKED_AT_PER_PAGE);
        if let Some(host) = host {
            self.endpoint.contexts_of(host).filter(wanted).for_each(&mut add);
        } else {
            let start = usize::try_from(filter.after.unwrap_or_default()).unwrap_or(usize::MAX);
            let end = start.saturating_add(LOOKED_AT_PER_PAGE);
            self.endpoint.contexts_at(start..end).filter(wanted).for_each(&mut add);
            view.next = (end < self.endpoint.places()).then_some(end as u64);
        }
        let last = view.next.is_none();
        if last && matches!(filter.state, Some(ContextState::EFailed | ContextState::NoSupport)) {
            self.add_failures(now, filter, &choice, &mut view);
        }
        Ok(view)
    }

    /// What a filter's names stand for.
    fn choice(&self, filter: &ContextFilter) -> Result<Choice, ErrorView> {
        let host = filter.host.as_ref().map(|name| {
            let named = || self.served.iter().find(|(_, served)| served.name == *name).map(|(ulid, _)| *ulid);
            let found = name.parse().ok().map(Ulid).or_else(named);
            found.ok_or_else(|| ErrorView::missing(format!("there is no host called {name}")))
        });
        let provider = filter.provider.as_ref().map(|name| {
            let found = self.providers.iter().find(|provider| provider.name == *name && provider.exists());
            found.map(|it| it.prefix).ok_or_else(|| ErrorView::missing(format!("there is no provider called {name}")))
        });
        let prefix = filter.prefix.as_ref().map(|text| {
            text.parse::<Prefix>().map_err(|reason| ErrorView::new(format!("{text} is not an IPv6 prefix: {reason}")))
        });
        Ok(Choice { host: host.transpose()?, provider: provider.transpose()?, prefix: prefix.transpose()? })
    }

    /// Failures that are remembered have no context, only a state (RFC 5533 §6.2).
    fn add_failures(&self, now: Instant, filter: &ContextFilter, choice: &Choice, view: &mut ContextsView) {
        if choice.provider.is_some() {
            return;
        }
        let shown = |failure: crate::shim6::Failure| {
            let state = match failure.reason {
                FailReason::NoAnswer => ContextState::EFailed,
                FailReason::NoSupport => ContextState::NoSupport,
            };
            let local = failure.local.map_or(Ipv6Addr::UNSPECIFIED, |local| local.0);
            let held_s = Some(failure.until.since(now).as_secs());
            ContextView { held_s, ..ContextView::idle(local, failure.peer.0, state) }
        };
        let ours = |view: &ContextView| {
            // Some failures hold for all hosts.
            choice.host.is_none_or(|host| host.0 == view.ulid_local || view.ulid_local.is_unspecified())
        };
        let wanted = |view: &ContextView| {
            ours(view)
                && choice.leads_to(view.ulid_peer, None)
                && filter.matches(view.ulid_local, view.ulid_peer, view.state)
        };
        for failure in self.endpoint.failures(now).map(shown).filter(wanted) {
            if view.contexts.len() < filter.limit() {
                view.contexts.push(failure);
            } else {
                view.left_off += 1;
            }
        }
    }

    fn context_view(&self, now: Instant, context: &Context) -> ContextView {
        let attached = self.attached.get(&context.id);
        let [out, inward] = attached.map(|attached| attached.traffic).unwrap_or_default();
        let reap = attached.and_then(|attached| attached.reap.as_ref());
        let peer_locators = context.peer_locators.iter().map(|known| PeerLocatorView {
            locator: known.locator.0,
            verified: known.verified,
            probed: known.probed,
        });
        let inside = self.endpoint.inside(context.ulids).local;
        ContextView {
            fork: context.fork,
            class: self.class_of(context).map(|class| class.name.clone()),
            inside: (inside != context.ulids.local).then_some(inside.0),
            local_tag: Some(context.local_tag.to_string()),
            peer_tag: context.peer_tag.map(|tag| tag.to_string()),
            current: Some(PairView { local: context.pair.local.0, peer: context.pair.peer.0 }),
            standby: attached
                .and_then(|attached| attached.installed.as_ref()?.standby)
                .map(|standby| PairView { local: standby.locators.local.0, peer: standby.locators.peer.0 }),
            local_provider: self.provider_of(context.pair.local.0).map(|(_, provider)| provider.name.clone()),
            local_locators: context.host.locators.iter().map(|(locator, _)| locator.0).collect(),
            peer_locators: peer_locators.collect(),
            reap_state: reap.map(|reap| match reap.state() {
                Reaping::Operational => ReapState::Operational,
                Reaping::Exploring => ReapState::Exploring,
                Reaping::InboundOk => ReapState::InboundOk,
            }),
            packets_in: inward.packets,
            packets_out: out.packets,
            octets_in: inward.octets,
            octets_out: out.octets,
            last_used_s: Some(now.since(context.last_used).as_secs()),
            ..ContextView::idle(context.ulids.local.0, context.ulids.peer.0, context_state(context.state))
        }
    }

    /// All contexts, in no order.
    pub fn contexts(&self) -> impl Iterator<Item = &Context> {
        self.endpoint.contexts()
    }

    /// Tables that hold something on behalf of contexts or of packets under way, and how much. Of a box that had nothing
    /// to do for long enough there are none.
    pub fn leftovers(&self) -> Vec<(&'static str, usize)> {
        let tables = [
            ("contexts", self.endpoint.len()),
            ("pairs left alone", self.endpoint.holddowns()),
            ("machines of contexts", self.attached.len()),
            ("deadlines", self.due.len()),
            ("waiting probes", self.waiting.len()),
            ("contexts with news", self.round.len()),
            ("paths in doubt", self.attached.in_doubt()),
            ("segments to be sent again", self.wakes.len()),
            ("exchanges being timed", self.durations.under_way()),
            ("moves under way", self.goals.len()),
        ];
        let tables = tables.into_iter().chain(self.standbys.leftovers()).chain([self.watches.leftovers()]);
        tables.filter(|(_, held)| *held > 0).collect()
    }

    /// How many contexts there are, by state.
    pub fn context_counts(&self, now: Instant, max: u32) -> ContextCounts {
        let mut counts = ContextCounts { max: max.into(), ..ContextCounts::default() };
        counts.total = self.endpoint.len() as u64;
        counts.opening = self.endpoint.exchanges() as u64;
        counts.established = counts.total - counts.opening;
        for failure in self.endpoint.failures(now) {
            match failure.reason {
                FailReason::NoAnswer => counts.failed += 1,
                FailReason::NoSupport => counts.no_support += 1,
            }
        }
        counts.exploring = match self.revival.exploring.len() {
            // Some of them may have found their way just now; nobody shall wait for that to be looked at a million times.
            many if many > LOOKED_AT_PER_PAGE => many as u64,
            _ => self.revival.exploring.iter().filter(|id| self.explores(**id)).count() as u64,
        };
        counts
    }

    /// Name, port and whether packets may go there, of each provider. Unlike [`Engine::providers_view`] this walks over no paths.
    pub fn provider_states(&self) -> impl Iterator<Item = (&str, PortId, bool)> {
        self.providers.iter().filter(|it| it.exists()).map(|it| (it.name.as_str(), it.port, it.is_up()))
    }

    /// The providers; the name of the port is for the caller to fill in.
    pub fn providers_view(&self) -> Vec<ProviderView> {
        let mut through: HashMap<u64, u64> = HashMap::new();
        for (path, contexts) in self.attached.paths() {
            *through.entry(u64::from_be_bytes(path.local)).or_default() += contexts as u64;
        }
        let view = |provider: &Provider| ProviderView {
            name: provider.name.clone(),
            port: provider.port.0.to_string(),
            prefix: format!("{}/64", Ipv6Addr::from_bits(u128::from(provider.prefix) << 64)),
            preference: provider.preference,
            up: provider.is_up(),
            next_hop: Some(provider.next_hop),
            next_hop_resolved: provider.router,
            contexts: through.get(&provider.prefix).copied().unwrap_or_default(),
            steering: provider.steering,
            told_broken: provider.is_unwelcome(),
            leaving: provider.leaving.is_some(),
        };
        self.providers.iter().filter(|provider| provider.exists()).map(view).collect()
    }

    /// What is known of paths: those in use, and those with recent evidence.
    pub fn paths_view(&self, now: Instant) -> PathsView {
        let mut paths: BTreeMap<PathKey, (u64, Status)> = BTreeMap::new();
        for (path, status) in self.book.iter(now) {
            paths.insert(path, (0, status));
        }
        for (path, contexts) in self.attached.paths() {
            paths.entry(path).or_insert((0, self.book.status(path, now))).0 = contexts as u64;
        }
        for path in self.watches.paths.keys() {
            paths.entry(*path).or_insert((0, self.book.status(*path, now)));
        }
        let view = |(path, (contexts, status)): (PathKey, (u64, Status))| self.path_view(now, path, contexts, status);
        PathsView { paths: paths.into_iter().map(view).collect() }
    }

    fn path_view(&self, now: Instant, path: PathKey, contexts: u64, status: Status) -> PathView {
        let seen = self.sightings.seen(path);
        let ago = |at: Option<Instant>| at.map(|at| now.since(at).as_secs());
        let watch = self.watches.paths.get(&path);
        let (state, evidence) = match status {
            Status::Working | Status::Unknown if watch.is_some_and(|watch| watch.session.is_up()) => {
                ("up", "the peer's box and this one hear each other")
            }
            Status::Dead if watch.is_some_and(|watch| watch.lost.is_some()) => {
                ("down", "the peer's box or this one heard nothing")
            }
            Status::Working => ("up", "a probe was answered or data acknowledged lately"),
            Status::Unknown if ago(seen.last_in).is_some_and(|ago| ago < FRESH_S) => ("up", "packets arrive"),
            Status::Unknown => ("unknown", "no recent evidence"),
            Status::Suspect => ("unknown", "a context saw it fail"),
            Status::Dead => ("down", "contexts saw it fail"),
        };
        let prefix = u64::from_be_bytes(path.local);
        let provider = self.providers.iter().find(|provider| provider.prefix == prefix);
        PathView {
            provider: provider.map(|provider| provider.name.clone()).unwrap_or_default(),
            peer_prefix: format!("{}/64", Ipv6Addr::from_bits(u128::from(u64::from_be_bytes(path.peer)) << 64)),
            state: state.to_owned(),
            evidence: evidence.to_owned(),
            contexts,
            carriage: if self.carriages.is_udp(path) { "udp" } else { "header" }.to_owned(),
            last_in_s: ago(seen.last_in),
            last_out_s: ago(seen.last_out),
            liveness: self.liveness_view(now, path),
            rtt_ms: seen.round_trip.map(|time| time.as_secs_f64() * 1000.0),
            route: self.route_in_words(path).map(str::to_owned),
        }
    }

    /// The paths that most contexts use, and how many others are in use. So that a site with very many peers is not kept
    /// waiting, the choice is made among those that are looked at first.
    pub fn busiest_paths(&self, now: Instant, most: usize) -> (Vec<PathView>, u64) {
        let mut looked_at: Vec<(PathKey, usize)> = self.attached.paths().take(LOOKED_AT_PER_PAGE).collect();
        looked_at.sort_by_key(|(path, contexts)| (std::cmp::Reverse(*contexts), *path));
        looked_at.truncate(most);
        let left_off = self.attached.paths_in_use().saturating_sub(looked_at.len());
        let view = |(path, contexts): (PathKey, usize)| {
            self.path_view(now, path, contexts as u64, self.book.status(path, now))
        };
        (looked_at.into_iter().map(view).collect(), left_off as u64)
    }

    /// Whether the box can serve: the router of at least one provider answers.
    pub fn serves(&self) -> bool {
        self.providers.iter().any(Provider::is_up)
    }

    /// How many providers have a router that answers, and how many there are.
    pub fn providers_up(&self) -> (usize, usize) {
        let there = self.providers.iter().filter(|it| it.exists() && it.leaving.is_none());
        there.fold((0, 0), |(up, all), provider| (up + usize::from(provider.is_up()), all + 1))
    }
}

fn context_state(state: State) -> ContextState {
    match state {
        State::Idle => ContextState::Idle,
        State::I1Sent => ContextState::I1Sent,
        State::I2Sent => ContextState::I2Sent,
        State::I2bisSent => ContextState::I2bisSent,
        State::Established => ContextState::Established,
        State::EFailed => ContextState::EFailed,
        State::NoSupport => ContextState::NoSupport,
    }
}
