//! The ULIDs a host of ours has: the one it was given, and each of its locators.
//!
//! A peer that knows no other name for a host than a locator (an AAAA record) opens its context with that address as ULID,
//! and a session that began without the shim has a locator as ULID too. For the peer nothing is special about it: the
//! address has parameters of its own, which differ from those of the host's ULID in their prefix alone (R5535-021), so
//! the list of locators is proved by them as well. The host's own ULID is never announced, as nobody routes it.
//!
//! All this only where sessions without the shim are possible at all ([`Config::routable_ulids`](super::Config)).
//!
//! Such a ULID is not kept as a host of its own: it is made when a context needs one, and shared by its contexts.

use std::sync::Arc;

use dataplane::wire::{Ulid, UlidPair};

use super::context::LocalHost;
use super::endpoint::Endpoint;

impl Endpoint {
    /// The host that has this address, be it its ULID or one of its locators.
    pub fn host_at(&self, address: Ulid) -> Option<&LocalHost> {
        self.hosts.get(&self.home(address)).map(Arc::as_ref)
    }

    /// The pair with the host's own ULID in place of a locator.
    pub fn inside(&self, ulids: UlidPair) -> UlidPair {
        UlidPair { local: self.home(ulids.local), peer: ulids.peer }
    }

    /// The host's own ULID, given that or a locator; any other address stays as it is.
    fn home(&self, address: Ulid) -> Ulid {
        match self.homes.get(&address) {
            Some(home) if !self.hosts.contains_key(&address) => *home,
            _ => address,
        }
    }

    /// The host that new contexts may have this local ULID for. A locator that the host has no longer is an identifier for
    /// none but those who have it as that already.
    pub(super) fn host_for_new(&self, ulid: Ulid) -> Option<&LocalHost> {
        self.host_at(ulid).filter(|host| host.ulid == ulid || host.has(ulid.0))
    }

    /// Who we are in contexts with this local ULID. None if it is no address of ours, or if its parameters do not prove
    /// the list, as for a locator whose interface identifier comes from elsewhere.
    pub(super) fn local(&mut self, ulid: Ulid) -> Option<Arc<LocalHost>> {
        let home = self.hosts.get(&self.home(ulid))?.clone();
        if home.ulid == ulid {
            return Some(home);
        }
        let known = self.store.by_host(ulid).next().map(|context| context.newest_host());
        let same =
            |known: &&Arc<LocalHost>| (known.generation, &known.preferences) == (home.generation, &home.preferences);
        if let Some(known) = known.filter(same) {
            return Some(known.clone());
        }
        let pds = home.pds.as_deref().map(|pds| self.proof.parameters_of(ulid, pds));
        let host = LocalHost { ulid, pds, ..LocalHost::clone(&home) };
        self.prove_own(&host).ok()?;
        Some(Arc::new(host))
    }

    /// The ULIDs of a host.
    pub(super) fn ulids_of(&self, ulid: Ulid) -> impl Iterator<Item = Ulid> {
        std::iter::once(ulid).chain(self.aliases.get(&ulid).into_iter().flatten().copied())
    }

    /// Those of them that contexts have: also locators that the host has no longer.
    pub fn ulids_in_use(&self, ulid: Ulid) -> impl Iterator<Item = Ulid> {
        self.ulids_of(ulid).filter(|ulid| self.store.by_host(*ulid).next().is_some())
    }

    /// A host has this list from now on. A locator that is gone stays a ULID for the contexts that have it: their peers go on by
    /// the others. Of two hosts with one locator the first keeps it.
    pub(super) fn renew_homes(&mut self, host: &LocalHost) {
        if !self.config.routable_ulids {
            return;
        }
        let before = self.forget_homes(host.ulid);
        let mut aliases: Vec<Ulid> = host.locators.iter().map(|(locator, _)| Ulid(locator.0)).collect();
        let gone: Vec<Ulid> = before.into_iter().filter(|alias| !host.has(alias.0)).collect();
        aliases.extend(gone.into_iter().filter(|alias| self.store.by_host(*alias).next().is_some()));
        aliases.retain(|alias| {
            let home = *self.homes.entry(*alias).or_insert(host.ulid);
            let theirs = self.hosts.get(&home).is_some_and(|other| home != host.ulid && other.has(alias.0));
            if !theirs {
                self.homes.insert(*alias, host.ulid);
            }
            !theirs
        });
        self.aliases.insert(host.ulid, aliases);
    }

    /// Forgets which locators are a host's, and tells which they were.
    pub(super) fn forget_homes(&mut self, ulid: Ulid) -> Vec<Ulid> {
        let aliases = self.aliases.remove(&ulid).unwrap_or_default();
        for alias in &aliases {
            if self.homes.get(alias) == Some(&ulid) {
                self.homes.remove(alias);
            }
        }
        aliases
    }
}
