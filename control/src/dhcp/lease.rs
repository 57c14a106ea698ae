//! What is kept of a client, in memory and in the store.

use std::net::Ipv6Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::message::{Duid, parse_hex};

/// An identity association of a client: what an address is bound to (RFC 8415 §4.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Who.
    pub duid: Duid,
    /// Which of its associations.
    pub iaid: u32,
}

/// Addresses that were made together, and what proves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The identifier: the address the client gets.
    pub ulid: Ipv6Addr,
    /// What peers may reach it by; the client never hears of them.
    pub locators: Vec<Ipv6Addr>,
    /// Parameter data structure of the identifier (RFC 3972 §3).
    #[serde(with = "hex")]
    #[schemars(with = "String")]
    pub pds: Vec<u8>,
}

impl Identity {
    /// Identifier and locators.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        std::iter::once(self.ulid).chain(self.locators.iter().copied())
    }
}

/// Whether a client may use its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was told so.
    Bound,
    /// It gave it back, or its time is over. It gets it again when it asks.
    Former,
}

/// A client's address and what hangs on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Whose it is.
    pub client: Client,
    /// What people call the host.
    pub name: String,
    /// Its addresses.
    pub identity: Identity,
    /// Whether it may use them.
    pub state: State,
    /// When the valid lifetime ends, or when it did, in seconds since 1970 (UTC).
    pub until: u64,
    /// Where it asked from last: the relay's address, or its own on the link.
    pub via: Ipv6Addr,
    /// Whether that is a relay's.
    pub relayed: bool,
}

/// Addresses nobody may have for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// The identifier among them.
    pub ulid: Ipv6Addr,
    /// The locators.
    pub locators: Vec<Ipv6Addr>,
    /// Until when, in seconds since 1970 (UTC).
    pub until: u64,
    /// Whether a client found its address in use by somebody else (RFC 8415 §18.3.8); otherwise it was forgotten.
    pub declined: bool,
}

/// Something to be written before anybody hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A lease is now like this.
    Put(Lease),
    /// A client is forgotten.
    Forget(Client),
    /// Addresses are quarantined.
    Hold(Held),
    /// Those of this identifier no longer are.
    Free(Ipv6Addr),
}

/// All that was written: what a server begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// Leases, of clients that have one and that had one.
    pub leases: Vec<Lease>,
    /// What is quarantined besides.
    pub quarantine: Vec<Held>,
}

/// Octets as hex digits.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(octets: &[u8], out: S) -> Result<S::Ok, S::Error> {
        let text: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        out.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(input)?;
        super::parse_hex(&text).ok_or_else(|| D::Error::custom("not an even number of hex digits"))
    }
}
