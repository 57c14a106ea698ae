//! The store as JSON, for a look, for another machine, and back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, VERSION};
use crate::dhcp::{Change, Duid, Stored};

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
    /// Two clients have one address.
    #[error("{0} is with two clients")]
    Twice(std::net::Ipv6Addr),
    /// The parameters do not prove the address.
    #[error("the parameters of {0} do not prove it")]
    Unproved(std::net::Ipv6Addr),
    /// There is something in the store already.
    #[error("the store has {0} leases; an import starts with an empty one")]
    NotEmpty(usize),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Everything in it.
    pub fn export(&self) -> Result<Export, StoreError> {
        Ok(Export { version: VERSION, server: self.read_duid()?, stored: self.load()? })
    }

    /// Takes an export into an empty store, all of it or nothing.
    pub fn import(&self, export: &Export) -> Result<(), ExportError> {
        if export.version != VERSION {
            return Err(ExportError::Version(export.version));
        }
        let known = self.load()?.leases.len();
        if known > 0 {
            return Err(ExportError::NotEmpty(known));
        }
        let mut addresses = std::collections::HashSet::new();
        for lease in &export.stored.leases {
            if let Some(twice) = lease.identity.addresses().find(|address| !addresses.insert(*address)) {
                return Err(ExportError::Twice(twice));
            }
            if crate::identity::verify_ulid(dataplane::wire::Ulid(lease.identity.ulid), &lease.identity.pds).is_err() {
                return Err(ExportError::Unproved(lease.identity.ulid));
            }
        }
        let leases = export.stored.leases.iter().cloned().map(Change::Put);
        let changes: Vec<Change> = leases.chain(export.stored.quarantine.iter().cloned().map(Change::Hold)).collect();
        if let Some(server) = &export.server {
            // First: a store with leases has the name they were given under.
            self.duid(server)?;
        }
        Ok(self.commit(&changes)?)
    }
}
