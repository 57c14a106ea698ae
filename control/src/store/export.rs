//! The store as JSON, for a look, for another machine, and back.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::net::Ipv6Addr;

use dataplane::wire::Ulid;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{StoreError, VERSION};
use crate::dhcp::{Client, Duid, Stored};
use crate::identity::verify_ulid;

/// The end of the year 9999: what ends later was written by no clock.
pub(super) const UNTIL_MAX: u64 = 253_402_300_799;

/// Everything in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// The version of the format.
    pub version: u64,
    /// The name the DHCPv6 server goes by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Duid>,
    /// Leases and quarantine.
    #[serde(flatten)]
    pub stored: Stored,
}

/// Why an export was not taken in; nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It is of another version.
    #[error("an export of version {0}; only {VERSION} is known here")]
    Version(u64),
    /// Something in it cannot be.
    #[error("{path}: {reason}")]
    Wrong {
        /// Where, as a path into the JSON.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// There is something in the store already.
    #[error("the store has {0} leases and quarantined hosts; an import starts with an empty one")]
    NotEmpty(usize),
    /// The store goes by another name already.
    #[error("the store is that of another server, {0}")]
    Server(Duid),
    /// The store takes it not, though it is good.
    #[error("refused: {0}")]
    Refused(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Export {
    /// Whether it can be taken into a store that has this.
    pub(super) fn fits(&self, known: &Stored) -> Result<(), ExportError> {
        if self.version != VERSION {
            return Err(ExportError::Version(self.version));
        }
        match known.leases.len() + known.quarantine.len() {
            0 => check(&self.stored),
            known => Err(ExportError::NotEmpty(known)),
        }
    }
}

/// What is somebody's, and the paths at which that is said.
#[derive(Default)]
struct Taken<'a> {
    addresses: HashMap<Ipv6Addr, String>,
    clients: HashMap<&'a Client, String>,
    names: HashMap<&'a str, String>,
}

/// Whether rows fit together, so that none takes the place of another and none holds for ever.
fn check(stored: &Stored) -> Result<(), ExportError> {
    let mut taken = Taken::default();
    for (at, lease) in stored.leases.iter().enumerate() {
        let path = |field: &str| format!("leases[{at}].{field}");
        let identity = &lease.identity;
        once(
            &mut taken.clients,
            &lease.client,
            format!("{}, IAID {},", lease.client.duid, lease.client.iaid),
            path("client"),
        )?;
        once(&mut taken.names, &lease.name, &lease.name, path("name"))?;
        addresses(&mut taken.addresses, identity.ulid, &identity.locators, &path("identity."))?;
        if let Err(reason) = verify_ulid(Ulid(identity.ulid), &identity.pds) {
            return Err(wrong(path("identity.pds"), format!("does not prove {}: {reason}", identity.ulid)));
        }
        ends(lease.until, path("until"))?;
    }
    for (at, held) in stored.quarantine.iter().enumerate() {
        let path = |field: &str| format!("quarantine[{at}].{field}");
        addresses(&mut taken.addresses, held.ulid, &held.locators, &path(""))?;
        ends(held.until, path("until"))?;
    }
    Ok(())
}

fn addresses(
    taken: &mut HashMap<Ipv6Addr, String>,
    ulid: Ipv6Addr,
    locators: &[Ipv6Addr],
    path: &str,
) -> Result<(), ExportError> {
    once(taken, ulid, ulid, format!("{path}ulid"))?;
    let mut locators = locators.iter().enumerate();
    locators.try_for_each(|(at, locator)| once(taken, *locator, locator, format!("{path}locators[{at}]")))
}

fn once<K: Eq + Hash>(
    taken: &mut HashMap<K, String>,
    key: K,
    what: impl Display,
    path: String,
) -> Result<(), ExportError> {
    match taken.get(&key) {
        Some(first) => Err(wrong(path, format!("{what} is at {first} already"))),
        None => {
            taken.insert(key, path);
            Ok(())
        }
    }
}

fn ends(until: u64, path: String) -> Result<(), ExportError> {
    match until <= UNTIL_MAX {
        true => Ok(()),
        false => Err(wrong(path, format!("{until} seconds after 1970 is not before the year 10000"))),
    }
}

fn wrong(path: String, reason: String) -> ExportError {
    ExportError::Wrong { path, reason }
}
