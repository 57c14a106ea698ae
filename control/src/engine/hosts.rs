//! Hosts come and go while the box runs.
//!
//! A reload is looked at as a whole before anything is done: who goes, who comes, who has other locators than before, and
//! whether all of them may have the addresses they want. Contexts of hosts that stay go on; those of hosts that go end
//! with them (RFC 5533 §1.5), and what such a host had is kept from other hosts for the quarantine time.
//!
//! Peers hear of other locators by Update Requests (§10). A locator that goes is announced as broken first, beside those
//! that come, so that both ends leave it by a probe that was answered; [`LEAVING`] later it is struck from the list.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::snapshot::HostView;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::shim6::VerificationMethod;
use dataplane::wire::{Locator, Ulid};
use hashbrown::{HashMap, HashSet};
use rand::Rng;

use super::setup::SetupError;
use super::{Effect, Engine, Event};
use crate::config::{Host, Hosts, Site};
use crate::identity::{Parameters, SigningKey, hba};
use crate::shim6::{CheckedHost, Held, LocalHost, Owner};
use crate::time::Instant;

/// How long a locator that goes is still there, as the last resort, for contexts to leave it: an Update Request that is
/// lost twice, and then a probe.
pub(super) const LEAVING: Duration = Duration::from_secs(30);

/// A locator and what proves it, as a Locator List option has it.
type Entry = (Locator, VerificationMethod);

/// A host's list that still has locators which go.
pub(super) struct Transition {
    /// When they go.
    at: Instant,
    /// The list that remains.
    remaining: CheckedHost,
}

/// What a reload changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Hosts that are served now and were not.
    pub added: usize,
    /// Hosts that are gone.
    pub removed: usize,
    /// Hosts that have other locators than before.
    pub changed: usize,
}

/// What the configuration says of a host that is served.
pub(super) struct Served {
    pub(super) name: String,
    /// The link-layer address it was given, be it that which neighbour discovery found or not.
    pub(super) link: Option<Mac>,
}

impl From<&Host> for Served {
    fn from(host: &Host) -> Served {
        Served { name: host.name.clone(), link: host.mac.map(|mac| Mac(mac.0)) }
    }
}

/// A reload that can be carried out.
struct Plan {
    gone: Vec<Ulid>,
    new: Vec<(Host, CheckedHost)>,
    /// The list to announce now, and the one without what goes.
    changed: Vec<(CheckedHost, Option<CheckedHost>)>,
}

impl Engine {
    /// Takes over what [`config::reload`](crate::config::reload) lists from a new configuration of the same site: all of it, or nothing when a host is refused.
    /// Contexts of hosts that stay go on; those of hosts that are gone go with them (RFC 5533 §1.5).
    pub fn reload(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        site: &Site,
        hosts: &Hosts,
        effects: &mut Vec<Effect>,
    ) -> Result<Changes, SetupError> {
        let static_hosts = hosts;
        let (hosts, fitted) = &self.with_leased(rng, site, hosts, &|ulid| self.leased.contains(&ulid));
        let plan = self.plan(now, rng, hosts)?;
        self.check_providers(site)?;
        let changes = Changes { added: plan.new.len(), removed: plan.gone.len(), changed: plan.changed.len() };
        self.note_key(hosts);
        self.quarantine = site.quarantine;
        self.endpoint.set_quarantine(site.quarantine);
        self.announce_down = site.shim6.announce_down;
        self.icmp_errors_to_hosts = site.shim6.icmp_errors_to_hosts;
        self.hints = site.hints;
        Arc::make_mut(&mut self.snapshot).mss_clamp = site.mss_clamp;
        let steered = self.set_providers(now, site, effects);
        for ulid in plan.gone {
            self.take_out(now, rng, ulid, effects);
        }
        for (host, checked) in plan.new {
            self.take_in(&host, checked);
        }
        let mut told = Vec::new();
        for (first, remaining) in plan.changed {
            told.push(first.host().ulid);
            self.change_list(now, first, remaining);
        }
        for host in hosts {
            self.served.insert(host.identity.ulid, Served::from(host));
            self.publish_host(host);
        }
        if steered {
            self.advise();
        } else {
            self.advise_hosts(told);
        }
        self.set_natv6(site);
        self.fitness.renew(site);
        self.endpoint.set_inside(super::setup::inside(site));
        self.configure_inner_router(now, site.router, effects);
        self.set_peers(site);
        self.set_lists_due();
        let reclassified = self.set_classes(site);
        self.publish_hosts(effects);
        if reclassified {
            self.reclassify(effects);
        }
        for host in static_hosts {
            self.leased.remove(&host.identity.ulid);
        }
        self.leases_reloaded(now, rng, (site, static_hosts), fitted.clone(), effects);
        Ok(changes)
    }

    /// Serves one more host, as a reload would whose hosts file has it too.
    pub fn add_host(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        host: &Host,
        effects: &mut Vec<Effect>,
    ) -> Result<(), SetupError> {
        self.may_come(now, host, &self.taken(now))?;
        if self.endpoint.host(host.identity.ulid).is_none() {
            let checked = self.checked(rng, host, self.key.clone().as_ref())?;
            self.take_in(host, checked);
            self.publish_hosts(effects);
        }
        Ok(())
    }

    /// Serves a host no longer, as a reload would whose hosts file does not have it. False if it was not served.
    pub fn remove_host(&mut self, now: Instant, rng: &mut dyn Rng, ulid: Ulid, effects: &mut Vec<Effect>) -> bool {
        let served = self.endpoint.host(ulid).is_some();
        if served {
            self.take_out(now, rng, ulid, effects);
            self.publish_hosts(effects);
        }
        served
    }

    /// Workers hear of hosts and their locators.
    pub(super) fn publish_hosts(&mut self, effects: &mut Vec<Effect>) {
        self.renew_nat();
        self.note_names();
        effects.push(Effect::Publish(self.snapshot.clone()));
    }

    /// What has to be done so that exactly `hosts` are served; an error if one of them may not be.
    fn plan(&mut self, now: Instant, rng: &mut dyn Rng, hosts: &Hosts) -> Result<Plan, SetupError> {
        let wanted: HashSet<Ulid> = hosts.iter().map(|host| host.identity.ulid).collect();
        let mut gone: Vec<Ulid> = self.served.keys().filter(|ulid| !wanted.contains(*ulid)).copied().collect();
        gone.sort_unstable();
        let taken = self.taken(now);
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        // A file none of whose hosts needs the key does not bring it, and a locator that goes may need it all the same.
        let key = hosts.key().or(self.key.as_ref()).cloned();
        for host in hosts {
            self.may_come(now, host, &taken)?;
            if self.endpoint.host(host.identity.ulid).is_none() {
                new.push((host.clone(), self.checked(rng, host, key.as_ref())?));
            } else {
                changed.extend(self.changed(host, key.as_ref())?);
            }
        }
        Ok(Plan { gone, new, changed })
    }

    /// Keeps the key that came with a configuration which was taken over.
    fn note_key(&mut self, hosts: &Hosts) {
        if let Some(key) = hosts.key() {
            self.key = Some(key.clone());
        }
    }

    /// The lists of a host that is served already, if they are not what they were.
    fn changed(
        &mut self,
        host: &Host,
        key: Option<&Arc<SigningKey>>,
    ) -> Result<Option<(CheckedHost, Option<CheckedHost>)>, SetupError> {
        let ulid = host.identity.ulid;
        let wanted = entries(host);
        let Some(old) = self.endpoint.host(ulid).cloned() else { return Ok(None) };
        let meant = self.transitions.get(&ulid).map_or(&old.locators, |it| &it.remaining.host().locators);
        if *meant == wanted {
            return Ok(None);
        }
        let kept = |entry: &&Entry| wanted.iter().any(|(locator, _)| *locator == entry.0);
        let going: Vec<Entry> = old.locators.iter().filter(|entry| !kept(entry)).copied().collect();
        let in_use = self.endpoint.contexts_of(ulid).next().is_some();
        // Generations go up by one (D12); the second list is for later.
        let mut list = |entries, more| self.list(host, entries, old.generation.wrapping_add(more), key);
        if !going.is_empty() && in_use {
            let both = wanted.iter().copied().chain(going).collect();
            // What goes may not be proved any more, when the key was changed: then it goes at once. What stays must be.
            if let Ok(both) = list(both, 1) {
                return Ok(Some((both, Some(list(wanted, 2)?))));
            }
        }
        Ok(Some((list(wanted, 1)?, None)))
    }

    /// What is told of a host with these locators. The signature, if it needs one, is made here, once for all peers.
    fn list(
        &mut self,
        host: &Host,
        locators: Vec<Entry>,
        generation: u32,
        key: Option<&Arc<SigningKey>>,
    ) -> Result<CheckedHost, SetupError> {
        let signed = locators.iter().filter(|(_, method)| *method == VerificationMethod::Cga);
        let signed: Vec<Locator> = signed.map(|(locator, _)| *locator).collect();
        let sign = |key: &Arc<SigningKey>| key.sign_locators(generation, &signed).ok();
        let signature = key.filter(|_| !signed.is_empty()).and_then(sign);
        if let (Some(key), Some(octets)) = (key, &signature) {
            self.note_signed(key, generation, &signed, octets);
        }
        let (ulid, pds) = (host.identity.ulid, Some(host.identity.pds.clone()));
        let told = LocalHost { ulid, locators, pds, generation, signature, preferences: None };
        let refused = |reason| SetupError::Host { name: host.name.clone(), reason };
        self.endpoint.check_host(told).map_err(refused)
    }

    /// A host has other locators from now on.
    fn change_list(&mut self, now: Instant, first: CheckedHost, remaining: Option<CheckedHost>) {
        let ulid = first.host().ulid;
        let owner = self.owner_of(ulid);
        self.endpoint.hold_locators(now, first.host(), owner);
        self.endpoint.adopt_host(first);
        self.note_for_heir(ulid);
        match remaining {
            Some(remaining) => {
                self.transitions.insert(ulid, Transition { at: now + LEAVING, remaining });
            }
            None => _ = self.transitions.remove(&ulid),
        }
    }

    /// Strikes from the lists what has been announced to go, and lets go of providers that have gone.
    pub(super) fn expire_lists(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        let due: Vec<Ulid> = self.transitions.iter().filter(|(_, it)| it.at <= now).map(|(ulid, _)| *ulid).collect();
        for ulid in &due {
            let Some(Transition { remaining, .. }) = self.transitions.remove(ulid) else { continue };
            let owner = self.owner_of(*ulid);
            self.endpoint.hold_locators(now, remaining.host(), owner);
            self.endpoint.adopt_host(remaining);
            self.note_for_heir(*ulid);
        }
        if !due.is_empty() {
            self.publish_hosts(effects);
        }
        self.advise_hosts(due);
        self.expire_providers(now, rng, effects);
        self.set_lists_due();
    }

    /// Notes when [`Engine::expire_lists`] has something to do. To be called when lists or providers have changed.
    fn set_lists_due(&mut self) {
        let providers = self.providers.iter().filter_map(|it| it.leaving);
        self.lists_due = self.transitions.values().map(|it| it.at).chain(providers).min();
    }

    /// Whether a locator of a host is about to go.
    pub(super) fn is_going(&self, ulid: Ulid, locator: Locator) -> bool {
        let ulid = self.endpoint.host_at(ulid).map_or(ulid, |host| host.ulid);
        self.transitions.get(&ulid).is_some_and(|it| !it.remaining.host().has(locator.0))
    }

    /// Whose the addresses in use are. What goes with a reload is kept from others as well as what has gone before.
    fn taken(&self, now: Instant) -> HashMap<Ipv6Addr, Held> {
        let mut taken = HashMap::new();
        for ulid in self.served.keys() {
            let held = Held { ulid: *ulid, owner: Arc::new(self.owner_of(*ulid)), until: now + self.quarantine };
            let locators = self.endpoint.host(*ulid).map(|host| host.locators.as_slice()).unwrap_or_default();
            let addresses = locators.iter().map(|(locator, _)| locator.0).chain([ulid.0]);
            taken.extend(addresses.map(|address| (address, held.clone())));
            // What was struck from the list is still the identifier of contexts that have it, quarantine or not.
            let struck = self.endpoint.ulids_in_use(*ulid).map(|ulid| ulid.0).filter(|it| !taken.contains_key(it));
            let held = Held { until: now + self.quarantine.max(Duration::from_secs(1)), ..held };
            let struck: Vec<_> = struck.map(|address| (address, held.clone())).collect();
            taken.extend(struck);
        }
        taken
    }

    /// Whether a host may have its addresses: none of them belonged to another one lately, or belongs to one now.
    fn may_come(&self, now: Instant, host: &Host, taken: &HashMap<Ipv6Addr, Held>) -> Result<(), SetupError> {
        let ulid = host.identity.ulid;
        let claimant = Owner { pds: Some(host.identity.pds.clone()), link: Served::from(host).link };
        // A host that is served under the very line it had is no claimant, wherever neighbour discovery found it since.
        let same = self.served.get(&ulid).is_some_and(|served| served.link == claimant.link);
        let own = |held: &&Held| same && held.ulid == ulid;
        let refused = |address, held: &Held| SetupError::Quarantined {
            name: host.name.clone(),
            address,
            of: held.ulid,
            seconds: held.until.since(now).as_secs(),
        };
        let locators = host.identity.locators.iter().map(|locator| locator.0);
        for address in locators.chain([ulid.0]) {
            let held = self.endpoint.quarantine().admits(now, address, &claimant).err();
            let taken = taken.get(&address).filter(|held| !held.admits(&claimant, now));
            if let Some(held) = held.into_iter().chain(taken).find(|held| !own(held)) {
                return Err(refused(address, held));
            }
        }
        Ok(())
    }

    /// The first list of a host.
    pub(super) fn checked(
        &mut self,
        rng: &mut dyn Rng,
        host: &Host,
        key: Option<&Arc<SigningKey>>,
    ) -> Result<CheckedHost, SetupError> {
        self.list(host, entries(host), rng.next_u32(), key)
    }

    /// Who has a ULID now.
    fn owner_of(&self, ulid: Ulid) -> Owner {
        let link = self.host_at(self.lan_port, ulid.0).and_then(|at| self.snapshot.hosts[at].mac);
        // Where the router is tells nobody apart.
        let link = link.filter(|_| !self.is_behind_router(self.lan_port, ulid.0));
        Owner { pds: self.endpoint.host(ulid).and_then(|host| host.pds.clone()), link }
    }

    /// A host and everything that hangs on it goes. What its peers and the host itself still send is answered as for an
    /// address nobody has.
    pub(super) fn take_out(&mut self, now: Instant, rng: &mut dyn Rng, ulid: Ulid, effects: &mut Vec<Effect>) {
        let mut out = Vec::new();
        let link = self.owner_of(ulid).link;
        self.endpoint.remove_host(now, ulid, link, &mut out);
        self.follow(now, rng, out, effects);
        self.served.remove(&ulid);
        self.note_for_heir(ulid);
        self.leased.remove(&ulid);
        self.unpublish_host(ulid);
        self.transitions.remove(&ulid);
        if let Some(at) = Arc::make_mut(&mut self.snapshot).host_index.remove(&ulid) {
            // Its contexts are gone, and workers hear of that before they hear of the next host in this place.
            self.free_places.push(at);
        }
        let mut events = Vec::new();
        self.neighbours.forget(self.lan_port, ulid.0, &mut events);
        self.link_events(now, events, effects);
        self.tally.count(Event::HostRemoved);
    }

    /// A host that was found good is served from now on.
    pub(super) fn take_in(&mut self, host: &Host, checked: CheckedHost) {
        let ulid = host.identity.ulid;
        let preferences = self.preferences_of(checked.host());
        self.endpoint.adopt_host(checked);
        // The number is right, since it was taken from the list itself.
        let _ = self.endpoint.set_preferences(ulid, preferences);
        self.served.insert(ulid, Served::from(host));
        self.publish_host(host);
        self.note_for_heir(ulid);
        self.show_to_workers(ulid);
    }

    /// A host that is new gets a place among those that workers know.
    pub(super) fn show_to_workers(&mut self, ulid: Ulid) {
        let mac = self.inner_mac().filter(|_| self.is_behind_router(self.lan_port, ulid.0));
        let view = HostView { ulid, port: self.lan_port, mac };
        let snapshot = Arc::make_mut(&mut self.snapshot);
        let at = match self.free_places.pop() {
            Some(at) => at,
            None => {
                snapshot.hosts.push(view);
                snapshot.hosts.len() as u32 - 1
            }
        };
        if let Some(place) = snapshot.hosts.get_mut(at as usize) {
            *place = view;
        }
        snapshot.host_index.insert(ulid, at);
    }

    /// The first hosts of a box that starts.
    pub(super) fn set_hosts(&mut self, hosts: &Hosts, rng: &mut dyn Rng) -> Result<(), SetupError> {
        let plan = self.plan(Instant::START, rng, hosts)?;
        self.note_key(hosts);
        for (host, checked) in plan.new {
            self.take_in(&host, checked);
        }
        Ok(())
    }
}

/// A host's locators, each with what proves it: members of its address set by their hash, others by signature.
fn entries(host: &Host) -> Vec<Entry> {
    let parameters = Parameters::parse(&host.identity.pds);
    let is_member = |locator: &Locator| parameters.as_ref().is_ok_and(|it| hba::verify_member(locator.0, it).is_ok());
    let method = |locator| match is_member(locator) {
        true => VerificationMethod::Hba,
        false => VerificationMethod::Cga,
    };
    host.identity.locators.iter().map(|locator| (*locator, method(locator))).collect()
}

#[cfg(test)]
mod tests {
    use dataplane::link::Notice;
    use dataplane::wire::UlidPair;

    use super::*;
    use crate::sim::{Plan, World};

    // docs/decisions/0017
    #[test]
    fn a_struck_locator_is_no_other_hosts_while_a_context_has_it_as_identifier() {
        let mut world = World::new(&Plan { shim6: "[natv6]\nenabled = true\n".into(), ..Plan::default() }, 1);
        world.run(2 * Duration::from_secs(1));
        let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(1);
        let now = world.now;
        let (mut site, mut hosts) =
            (world.nodes[0].configuration().0.clone(), world.nodes[0].configuration().1.clone());
        let (host, engine) = (hosts.iter().next().unwrap().clone(), &mut world.nodes[0].engine);
        let presented = host.identity.locators[1];
        let pair = UlidPair { local: host.identity.ulid, peer: Ulid("2001:db8:ffff::7".parse().unwrap()) };
        let notice = Notice::Qualified { pair, presented, provider: 1 };
        engine.notice(now, &mut rng, notice, &mut Vec::new());
        site.quarantine = Duration::ZERO;
        hosts.list_mut()[0].identity.locators.pop();
        engine.reload(now, &mut rng, &site, &hosts, &mut Vec::new()).unwrap();
        let now = now + LEAVING;
        engine.expire_lists(now, &mut rng, &mut Vec::new());
        assert!(!engine.endpoint.host(pair.local).unwrap().has(presented.0));
        let mut heir = host.clone();
        (heir.identity.ulid, heir.identity.locators) = (Ulid("fc00:a::77".parse().unwrap()), vec![presented]);
        heir.identity.pds.push(0);
        let may = |engine: &Engine| engine.may_come(now, &heir, &engine.taken(now));
        assert!(matches!(may(engine), Err(SetupError::Quarantined { of, .. }) if of == pair.local));
        let id = engine.endpoint.contexts_of(pair.local).next().unwrap().id;
        engine.endpoint.discard(id, crate::shim6::GoneReason::Discarded, &mut Vec::new());
        assert!(may(engine).is_ok());
    }
}
