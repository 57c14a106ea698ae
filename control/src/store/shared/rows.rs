//! Rows of a shared store: what their keys are and what they say. Keys are without the cluster's prefix.
//!
//! | key | value |
//! |---|---|
//! | `meta/version` | the version of the format |
//! | `meta/duid` | the name the DHCPv6 server of the site goes by |
//! | `leases/IAID-DUID`, in hex | a [`Lease`] as JSON |
//! | `addresses/IDENTIFIER`, 32 hex digits | whose it is: a client's, or a box's that may give it to one |
//! | `quarantine/IDENTIFIER` | a [`Held`] as JSON |
//! | `published/NAME` | nothing |
//! | `delegations/PROVIDER` | what it delegated, as JSON |
//! | `site/NAME` | a file of the operator's, a [`Document`] as JSON |
//! | `boxes/NAME` | which box goes by this name, for as long as it does ([`claim`](super::claim)) |
//!
//! A row with a field that a version does not know is none to it: what the field says may be a condition. So what comes to be said
//! goes where older versions read something that is safe. Which box of a name an identifier is reserved for stands behind the name
//! (`a1 6b0f…`): versions that know names alone take it for another box's, which they neither give nor give back.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::Document;
use crate::dhcp::{Change, Client, Duid, Held, Identity, Lease};
use crate::store::json;

pub(super) const VERSION: &str = "meta/version";
pub(super) const DUID: &str = "meta/duid";
pub(super) const LEASES: &str = "leases/";
pub(super) const ADDRESSES: &str = "addresses/";
pub(super) const QUARANTINE: &str = "quarantine/";
pub(super) const PUBLISHED: &str = "published/";
pub(super) const DELEGATIONS: &str = "delegations/";
pub(super) const SITE: &str = "site/";
const BOXES: &str = "boxes/";
/// What no `box.name` has in it.
const BEHIND_NAME: char = ' ';

/// Whose an identifier is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub(super) enum Owner {
    /// A client's with a lease.
    Client(Client),
    /// Nobody's so far, and only this box may give it to somebody.
    Reserved {
        /// `box.name`.
        by: String,
        /// Which box of that name, should there have been several. In a row it stands behind the name; for a while it was a field.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// With its locators and parameters.
        identity: Identity,
    },
}

pub(super) fn lease_key(client: &Client) -> String {
    format!("{LEASES}{:08x}-{}", client.iaid, client.duid)
}

pub(super) fn address_key(ulid: Ipv6Addr) -> String {
    format!("{ADDRESSES}{:032x}", ulid.to_bits())
}

pub(super) fn claim_key(name: &str) -> String {
    format!("{BOXES}{name}")
}

pub(super) fn held_key(ulid: Ipv6Addr) -> String {
    format!("{QUARANTINE}{:032x}", ulid.to_bits())
}

/// The file in a row, if it is its row.
pub(super) fn document_of(key: &str, text: Option<&str>) -> Option<Document> {
    let name = key.strip_prefix(SITE)?;
    serde_json::from_str(text?).ok().filter(|document: &Document| document.name == name)
}

pub(super) fn owner_of(text: Option<&str>) -> Option<Owner> {
    let owner = serde_json::from_str(text?).ok()?;
    Some(match owner {
        Owner::Reserved { by, instance: None, identity } => {
            let (by, instance) = match by.split_once(BEHIND_NAME) {
                Some((name, instance)) => (name.to_owned(), Some(instance.to_owned())),
                None => (by, None),
            };
            Owner::Reserved { by, instance, identity }
        }
        owner => owner,
    })
}

/// The row of what is reserved for the box `by`, or for one `instance` of it.
pub(super) fn reserved_for(by: &str, instance: Option<&str>, identity: &Identity) -> String {
    let by = instance.map_or_else(|| by.to_owned(), |instance| format!("{by}{BEHIND_NAME}{instance}"));
    json(&Owner::Reserved { by, instance: None, identity: identity.clone() })
}

/// Whether a row may say that it is reserved, which is quickly said of a million rows of which few are.
pub(super) fn is_reserved(text: &str) -> bool {
    text.starts_with("{\"reserved\"")
}

pub(super) fn owned_by(client: &Client) -> String {
    json(&Owner::Client(client.clone()))
}

/// The lease in a row, if it is its client's row.
pub(super) fn lease_of(key: &str, text: Option<&str>) -> Option<Lease> {
    serde_json::from_str(text?).ok().filter(|lease: &Lease| lease_key(&lease.client) == key)
}

/// What is quarantined by a row, if it is its row.
pub(super) fn held_of(key: &str, text: Option<&str>) -> Option<Held> {
    serde_json::from_str(text?).ok().filter(|held: &Held| held_key(held.ulid) == key)
}

fn client_of(key: &str) -> Option<Client> {
    let (iaid, duid) = key.strip_prefix(LEASES)?.split_once('-')?;
    let duid: Duid = duid.parse().ok()?;
    Some(Client { iaid: u32::from_str_radix(iaid, 16).ok()?, duid })
}

fn ulid_of(key: &str, folder: &str) -> Option<Ipv6Addr> {
    u128::from_str_radix(key.strip_prefix(folder)?, 16).ok().map(Ipv6Addr::from_bits)
}

/// What it means that a row is like this now: nothing to those who serve clients for most; an error if it cannot be read.
pub(super) fn change_of(key: &str, text: Option<&str>) -> Result<Option<Change>, ()> {
    let change = if key.starts_with(LEASES) {
        match text {
            Some(_) => lease_of(key, text).map(Change::Put),
            None => client_of(key).map(Change::Forget),
        }
    } else if key.starts_with(QUARANTINE) {
        match text {
            Some(_) => held_of(key, text).map(Change::Hold),
            None => ulid_of(key, QUARANTINE).map(Change::Free),
        }
    } else if key.starts_with(ADDRESSES) && text.is_some() && owner_of(text).is_none() {
        None
    } else {
        return Ok(None);
    };
    change.map(Some).ok_or(())
}
