//! Who has what until when, and how much of it one client, one address or one relay may have.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use hashbrown::{HashMap, HashSet};

use super::config::Config;
use super::lease::{Change, Client, Held, Identity, Lease, State, Stored};
use super::message::Duid;

/// Why a client gets no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// All places are taken, but for those of clients with a reservation.
    Full,
    /// The client has as many as one may have.
    Client,
    /// So do the clients of its relay, or those that asked from its address.
    Source,
}

/// Every client that has a lease, and as many that had one.
#[derive(Debug, Default)]
pub struct Book {
    entries: HashMap<Client, Entry>,
    /// Bound leases by their end.
    ends: BTreeSet<(u64, Client)>,
    /// Former ones by theirs: the first is forgotten first.
    former: BTreeSet<(u64, Client)>,
    owners: HashMap<Ipv6Addr, Client>,
    names: HashMap<String, Client>,
    /// Bound leases by where their client asked from.
    sources: HashMap<Ipv6Addr, usize>,
    /// Bound leases by client.
    clients: HashMap<Duid, usize>,
    /// Bound leases without reservation.
    open: usize,
    held: HashMap<Ipv6Addr, Held>,
    held_ends: BTreeSet<(u64, Ipv6Addr)>,
    /// Every address of `held`.
    quarantined: HashSet<Ipv6Addr>,
}

#[derive(Debug)]
struct Entry {
    lease: Lease,
    reserved: bool,
    /// Its addresses are of no use: the client gets others when it asks.
    unfit: bool,
}

impl Book {
    /// What was stored. Places are counted as `config` reserves them now.
    pub fn new(stored: Stored, config: &Config) -> Book {
        let mut book = Book::default();
        for lease in stored.leases {
            book.put(lease, config);
        }
        for held in stored.quarantine {
            book.hold(held);
        }
        book
    }

    /// The same, as it would be stored.
    pub fn stored(&self) -> Stored {
        let mut leases: Vec<Lease> = self.entries.values().map(|entry| entry.lease.clone()).collect();
        leases.sort_by(|a, b| a.client.cmp(&b.client));
        let quarantine = self.held_ends.iter().filter_map(|(_, ulid)| self.held.get(ulid)).cloned().collect();
        Stored { leases, quarantine }
    }

    /// What a client has or had.
    pub fn get(&self, client: &Client) -> Option<&Lease> {
        self.entries.get(client).map(|entry| &entry.lease)
    }

    /// Whose an address is or was.
    pub fn owner(&self, address: Ipv6Addr) -> Option<&Lease> {
        self.get(self.owners.get(&address)?)
    }

    /// All of them, in no order.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.entries.values().map(|entry| &entry.lease)
    }

    /// What is quarantined.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.held_ends.iter().filter_map(|(_, ulid)| self.held.get(ulid))
    }

    /// Leases that are bound.
    pub fn bound(&self) -> usize {
        self.ends.len()
    }

    /// Whether an identity has an address that somebody has, had lately or must not have.
    pub fn is_taken(&self, identity: &Identity) -> bool {
        identity.addresses().any(|it| self.owners.contains_key(&it) || self.quarantined.contains(&it))
    }

    /// Notes that what a client has is of no use, or that it may be again.
    pub fn set_unfit(&mut self, client: &Client, unfit: bool) {
        if let Some(entry) = self.entries.get_mut(client) {
            entry.unfit = unfit;
        }
    }

    /// Whether what a client has is of no use.
    pub fn is_unfit(&self, client: &Client) -> bool {
        self.entries.get(client).is_some_and(|entry| entry.unfit)
    }

    /// Everything may be of use again.
    pub fn forgive(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.unfit = false);
    }

    /// Whose name it is.
    pub fn named(&self, name: &str) -> Option<&Client> {
        self.names.get(name)
    }

    /// Whether a client may have one more address.
    pub fn may_bind(&self, config: &Config, client: &Client, via: Ipv6Addr, relayed: bool) -> Result<(), Refusal> {
        if self.clients.get(&client.duid).is_some_and(|count| *count >= config.per_client_max) {
            return Err(Refusal::Client);
        }
        if config.reserved(&client.duid, client.iaid).is_some() {
            return Ok(());
        }
        let most = if relayed { config.per_relay_max } else { config.per_source_max };
        if self.sources.get(&via).is_some_and(|count| *count >= most) {
            return Err(Refusal::Source);
        }
        if self.open + config.reservations.len() >= config.leases_max {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    /// Whether more than half of the places are taken.
    pub fn is_crowded(&self, config: &Config) -> bool {
        2 * self.bound() >= config.leases_max
    }

    /// Makes room for one more client: forgets who had a lease longest ago, and quarantines what he had if it must be. As
    /// many former clients are remembered as there may be clients. The changes are to be stored.
    pub fn make_room(&mut self, config: &Config, wall: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        while self.former.len() >= config.leases_max {
            let Some((_, client)) = self.former.pop_first() else { break };
            changes.extend(self.forget(&client, config, wall, false));
        }
        changes
    }

    /// Forgets a client, and quarantines what he had for as long as it must be. The changes are to be stored.
    pub fn forget(&mut self, client: &Client, config: &Config, wall: u64, declined: bool) -> Vec<Change> {
        let Some(lease) = self.remove(client) else { return Vec::new() };
        let ended = if lease.state == State::Former { lease.until } else { wall };
        let Identity { ulid, locators, .. } = lease.identity;
        let mut changes = vec![Change::Forget(client.clone())];
        let until = ended.saturating_add(config.quarantine);
        if until > wall {
            if self.held.len() >= config.leases_max
                && let Some((_, first)) = self.held_ends.first().copied()
            {
                // Nobody gets it all the same: an identity is made for one client.
                self.free(first);
                changes.push(Change::Free(first));
            }
            let held = Held { ulid, locators, until, declined };
            self.hold(held.clone());
            changes.push(Change::Hold(held));
        }
        changes
    }

    /// Enters a lease in the place of what its client has.
    pub fn put(&mut self, lease: Lease, config: &Config) {
        self.remove(&lease.client);
        let client = lease.client.clone();
        let reserved = config.reserved(&client.duid, client.iaid).is_some();
        self.owners.insert(lease.identity.ulid, client.clone());
        for locator in &lease.identity.locators {
            self.owners.insert(*locator, client.clone());
        }
        self.names.insert(lease.name.clone(), client.clone());
        let ends = match lease.state {
            State::Bound => {
                *self.sources.entry(lease.via).or_default() += 1;
                *self.clients.entry(client.duid.clone()).or_default() += 1;
                self.open += usize::from(!reserved);
                &mut self.ends
            }
            State::Former => &mut self.former,
        };
        ends.insert((lease.until, client.clone()));
        self.entries.insert(client, Entry { lease, reserved, unfit: false });
    }

    fn remove(&mut self, client: &Client) -> Option<Lease> {
        let Entry { lease, reserved, .. } = self.entries.remove(client)?;
        for address in lease.identity.addresses() {
            self.owners.remove(&address);
        }
        if self.names.get(&lease.name) == Some(client) {
            self.names.remove(&lease.name);
        }
        let end = (lease.until, client.clone());
        match lease.state {
            State::Bound => {
                self.ends.remove(&end);
                decrease(&mut self.sources, &lease.via);
                decrease(&mut self.clients, &client.duid);
                self.open -= usize::from(!reserved);
            }
            State::Former => _ = self.former.remove(&end),
        }
        Some(lease)
    }

    /// Quarantines addresses.
    pub fn hold(&mut self, held: Held) {
        self.free(held.ulid);
        self.quarantined.extend(held.locators.iter().copied().chain([held.ulid]));
        self.held_ends.insert((held.until, held.ulid));
        self.held.insert(held.ulid, held);
    }

    /// Forgets a client without more. What it had.
    pub fn drop_client(&mut self, client: &Client) -> Option<Lease> {
        self.remove(client)
    }

    /// Ends every quarantine of an address.
    pub fn free_address(&mut self, address: Ipv6Addr) {
        if self.quarantined.contains(&address) {
            let of = self.held.values().filter(|held| held.ulid == address || held.locators.contains(&address));
            for ulid in of.map(|held| held.ulid).collect::<Vec<_>>() {
                self.free(ulid);
            }
        }
    }

    /// Ends the quarantine of what was held with this identifier.
    pub fn free(&mut self, ulid: Ipv6Addr) {
        if let Some(held) = self.held.remove(&ulid) {
            self.held_ends.remove(&(held.until, ulid));
            for address in held.locators.iter().chain([&ulid]) {
                self.quarantined.remove(address);
            }
        }
    }

    /// The first bound lease whose time is over.
    pub fn ended(&self, wall: u64) -> Option<&Lease> {
        let (_, client) = self.ends.first().filter(|(until, _)| *until <= wall)?;
        self.get(client)
    }

    /// Frees the first quarantined addresses whose time is over.
    pub fn release(&mut self, wall: u64) -> Option<Ipv6Addr> {
        let (_, ulid) = self.held_ends.first().copied().filter(|(until, _)| *until <= wall)?;
        self.free(ulid);
        Some(ulid)
    }

    /// When [`Book::ended`] or [`Book::release`] has something.
    pub fn due(&self) -> Option<u64> {
        let ends = [self.ends.first().map(|(at, _)| *at), self.held_ends.first().map(|(at, _)| *at)];
        ends.into_iter().flatten().min()
    }

    /// Walks everything and checks that it fits together.
    ///
    /// # Panics
    /// When it does not.
    pub fn selfcheck(&self) {
        let bound = |entry: &&Entry| entry.lease.state == State::Bound;
        assert_eq!(self.ends.len(), self.entries.values().filter(bound).count());
        assert_eq!(self.ends.len() + self.former.len(), self.entries.len());
        assert_eq!(self.open, self.entries.values().filter(bound).filter(|entry| !entry.reserved).count());
        assert_eq!(self.sources.values().sum::<usize>(), self.ends.len());
        assert_eq!(self.clients.values().sum::<usize>(), self.ends.len());
        let mut addresses = HashSet::new();
        for (client, Entry { lease, .. }) in &self.entries {
            assert_eq!(*client, lease.client);
            for address in lease.identity.addresses() {
                assert!(addresses.insert(address), "{address} is with two clients");
                assert_eq!(self.owners.get(&address), Some(client), "{address}");
                assert!(!self.quarantined.contains(&address), "{address} is quarantined and somebody's");
            }
        }
        assert_eq!(self.owners.len(), addresses.len());
        assert_eq!(self.held.len(), self.held_ends.len());
    }
}

fn decrease<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
