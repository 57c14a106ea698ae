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

    /// Remembers whose the locators of a host are. Of two hosts with one locator the first keeps it.
    pub(super) fn note_homes(&mut self, host: &LocalHost) {
        if !self.config.routable_ulids {
            return;
        }
        for (locator, _) in &host.locators {
            self.homes.entry(Ulid(locator.0)).or_insert(host.ulid);
        }
    }

    /// Forgets that, and tells which locators they were.
    pub(super) fn forget_homes(&mut self, ulid: Ulid) -> Vec<Ulid> {
        let Some(host) = self.hosts.get(&ulid) else { return Vec::new() };
        let mut gone = Vec::new();
        for (locator, _) in &host.locators {
            let locator = Ulid(locator.0);
            if self.homes.get(&locator) == Some(&ulid) {
                self.homes.remove(&locator);
                gone.push(locator);
            }
        }
        gone
    }
}
