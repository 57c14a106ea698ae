//! Hosts come and go while the box runs.
//!
//! A reload is looked at as a whole before anything is done: who goes, who comes, and whether what comes may have the
//! addresses it wants. Contexts of hosts that stay go on; those of hosts that go end with them (RFC 5533 §1.5), and what
//! such a host had is kept from other hosts for the quarantine time.

use std::net::Ipv6Addr;
use std::sync::Arc;

use dataplane::snapshot::HostView;
use dataplane::wire::Ulid;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::shim6::VerificationMethod;
use hashbrown::HashMap;
use rand::Rng;

use super::setup::SetupError;
use super::{Effect, Engine, Event};
use crate::config::{Host, Hosts, Site};
use crate::identity::{HostIdentity, Kind};
use crate::shim6::{CheckedHost, Held, LocalHost, Owner};
use crate::time::Instant;

/// What a reload changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Hosts that are served now and were not.
    pub added: usize,
    /// Hosts that are gone.
    pub removed: usize,
}

/// A reload that can be carried out.
struct Plan {
    gone: Vec<Ulid>,
    new: Vec<(Host, CheckedHost)>,
}

impl Engine {
    /// Takes over hosts and peers from a new configuration of the same site: all of it, or nothing when a host is refused.
    /// Contexts of hosts that stay go on; those of hosts that are gone go with them (RFC 5533 §1.5).
    pub fn reload(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        site: &Site,
        hosts: &Hosts,
        effects: &mut Vec<Effect>,
    ) -> Result<Changes, SetupError> {
        let plan = self.plan(now, rng, hosts)?;
        let changes = Changes { added: plan.new.len(), removed: plan.gone.len() };
        for ulid in plan.gone {
            self.take_out(now, rng, ulid, effects);
        }
        for (host, checked) in plan.new {
            self.take_in(&host, checked);
        }
        for host in hosts {
            self.host_names.insert(host.identity.ulid, host.name.clone());
        }
        self.set_peers(site);
        effects.push(Effect::Publish(self.snapshot.clone()));
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
            let checked = self.checked(rng, host)?;
            self.take_in(host, checked);
            effects.push(Effect::Publish(self.snapshot.clone()));
        }
        Ok(())
    }

    /// Serves a host no longer, as a reload would whose hosts file does not have it. False if it was not served.
    pub fn remove_host(&mut self, now: Instant, rng: &mut dyn Rng, ulid: Ulid, effects: &mut Vec<Effect>) -> bool {
        let served = self.endpoint.host(ulid).is_some();
        if served {
            self.take_out(now, rng, ulid, effects);
            effects.push(Effect::Publish(self.snapshot.clone()));
        }
        served
    }

    /// What has to be done so that exactly `hosts` are served; an error if one of them may not be.
    fn plan(&mut self, now: Instant, rng: &mut dyn Rng, hosts: &Hosts) -> Result<Plan, SetupError> {
        let wanted = |ulid: &Ulid| hosts.iter().any(|host| host.identity.ulid == *ulid);
        let mut gone: Vec<Ulid> = self.host_names.keys().filter(|ulid| !wanted(ulid)).copied().collect();
        gone.sort_unstable();
        let taken = self.taken(now);
        let mut new = Vec::new();
        for host in hosts {
            self.may_come(now, host, &taken)?;
            if self.endpoint.host(host.identity.ulid).is_none() {
                new.push((host.clone(), self.checked(rng, host)?));
            }
        }
        Ok(Plan { gone, new })
    }

    /// Whose the addresses in use are. What goes with a reload is kept from others as well as what has gone before.
    fn taken(&self, now: Instant) -> HashMap<Ipv6Addr, Held> {
        let mut taken = HashMap::new();
        for ulid in self.host_names.keys() {
            let held = Held { ulid: *ulid, owner: Arc::new(self.owner_of(*ulid)), until: now + self.quarantine };
            let locators = self.endpoint.host(*ulid).map(|host| host.locators.as_slice()).unwrap_or_default();
            let addresses = locators.iter().map(|(locator, _)| locator.0).chain([ulid.0]);
            taken.extend(addresses.map(|address| (address, held.clone())));
        }
        taken
    }

    /// Whether a host may have its addresses: none of them belonged to another one lately, or belongs to one now.
    fn may_come(&self, now: Instant, host: &Host, taken: &HashMap<Ipv6Addr, Held>) -> Result<(), SetupError> {
        let claimant = Owner { pds: Some(host.identity.pds.clone()), link: host.mac.map(|mac| Mac(mac.0)) };
        let refused = |address, held: &Held| SetupError::Quarantined {
            name: host.name.clone(),
            address,
            of: held.ulid,
            seconds: held.until.since(now).as_secs(),
        };
        let locators = host.identity.locators.iter().map(|locator| locator.0);
        for address in locators.chain([host.identity.ulid.0]) {
            let quarantine = self.endpoint.quarantine();
            quarantine.admits(now, address, &claimant).map_err(|held| refused(address, held))?;
            if let Some(held) = taken.get(&address).filter(|held| !held.admits(&claimant, now)) {
                return Err(refused(address, held));
            }
        }
        Ok(())
    }

    fn checked(&mut self, rng: &mut dyn Rng, host: &Host) -> Result<CheckedHost, SetupError> {
        let refused = |reason| SetupError::Host { name: host.name.clone(), reason };
        self.endpoint.check_host(local_host(&host.identity, rng)).map_err(refused)
    }

    /// Who has a ULID now.
    fn owner_of(&self, ulid: Ulid) -> Owner {
        let link = self.host_at(self.lan_port, ulid.0).and_then(|at| self.snapshot.hosts[at].mac);
        Owner { pds: self.endpoint.host(ulid).and_then(|host| host.pds.clone()), link }
    }

    /// A host and everything that hangs on it goes. What its peers and the host itself still send is answered as for an
    /// address nobody has.
    fn take_out(&mut self, now: Instant, rng: &mut dyn Rng, ulid: Ulid, effects: &mut Vec<Effect>) {
        let mut out = Vec::new();
        let link = self.owner_of(ulid).link;
        self.endpoint.remove_host(now, ulid, link, &mut out);
        self.follow(now, rng, out, effects);
        self.host_names.remove(&ulid);
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
    fn take_in(&mut self, host: &Host, checked: CheckedHost) {
        let ulid = host.identity.ulid;
        self.endpoint.adopt_host(checked);
        self.host_names.insert(ulid, host.name.clone());
        let view = HostView { ulid, port: self.lan_port, mac: None };
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
        for (host, checked) in plan.new {
            self.take_in(&host, checked);
        }
        Ok(())
    }
}

fn local_host(identity: &HostIdentity, rng: &mut dyn Rng) -> LocalHost {
    let method = match identity.kind {
        Kind::Hba | Kind::Hybrid => VerificationMethod::Hba,
        Kind::Cga => VerificationMethod::Cga,
    };
    LocalHost {
        ulid: identity.ulid,
        locators: identity.locators.iter().map(|locator| (*locator, method)).collect(),
        pds: Some(identity.pds.clone()),
        generation: rng.next_u32(),
        signature: None,
        preferences: None,
    }
}
