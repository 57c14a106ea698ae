//! How boxes of one site tell each other of their contexts without losing anything (docs/decisions: state sync).
//!
//! Each box has a connection of its own to each other one, over which it tells; what it hears comes over the other's. So there
//! is no question of who calls whom, and either direction can fail alone.
//!
//! ```text
//!   teller                                   hearer
//!   ──────                                   ──────
//!   Hello (who I am, my life) ───────────▶   fits, or Refused
//!          ◀──── Welcome (my life, how much of your life I have heard)
//!   Begin (from number n, fresh or not) ─▶
//!   Batch n, n+1, … ─────────────────────▶   taken in, in order
//!          ◀──── Ack (taken in up to …)
//! ```
//!
//! Batches are numbered. What has not been acknowledged is kept, in a window of bounded size, and told again when the connection
//! is there again; beyond the window nothing is kept but the bits of the table that say what has changed
//! ([`crate::shim6`]: the ledger). Either process has a *life*, a random number: where the hearer has another one than before it
//! knows nothing and is told everything; where the teller has, the hearer counts from the beginning. A batch that comes twice is
//! taken once; where one is missing the connection ends and begins anew, so that the gap is filled.
//!
//! Nothing here has a clock, a socket or a thread. [`crate::driver`] puts it on TLS, the simulator on a wire that fails.

mod hearer;
mod partner;
mod teller;
#[cfg(test)]
mod tests;

use std::net::Ipv6Addr;
use std::time::Duration;

use ring::hmac;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use hearer::{Broken, Hearer};
pub use partner::{ALIVE, Counts, Partner, SILENCE};
pub use teller::{Frame, Teller};

use crate::config::Site;
use crate::config::sync::Secret;
use crate::engine::{Keys, Told};

/// Of what is said here. Another number is another language.
pub const VERSION: u32 = 1;
/// Longest message. Those we make have some hundred kilobytes at most.
pub const LENGTH_MAX: usize = 4 << 20;
/// Longest message of somebody who has not said who he is.
pub const GREETING_MAX: usize = 16 << 10;

/// What the one that tells says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromTeller {
    /// Who it is.
    Hello(Box<Hello>),
    /// What follows is numbered from here.
    Begin {
        /// Whether it is everything, and what was told before is of no account.
        fresh: bool,
        /// The number of the next batch.
        first: u64,
    },
    /// Something that has changed, or is said.
    Batch {
        /// Its number.
        number: u64,
        /// What the teller's clock said when it was made.
        now: Duration,
        /// What is told.
        told: Vec<Told>,
    },
    /// Nothing has happened, and the next batch will have this number.
    Alive(u64),
}

/// What the one that hears says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHearer {
    /// The two fit.
    Welcome(Welcome),
    /// They do not, for this reason.
    Refused(String),
    /// Everything up to this number has been taken in.
    Ack(u64),
    /// Nothing has happened.
    Alive,
}

/// Who somebody is, and what two boxes must have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Of what it speaks.
    pub version: u32,
    /// `box.id`.
    pub box_id: u8,
    /// `box.name`, for logs.
    pub name: String,
    /// A random number that each process draws for itself.
    pub life: u64,
    /// The group's clock there.
    pub clock: u64,
    /// What has to be the same.
    pub common: Common,
}

/// What the boxes of a group have in common: otherwise tags would name other workers or places, or contexts would be those of
/// other hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    /// How many boxes there are.
    pub boxes: u32,
    /// `box.workers`.
    pub workers: u8,
    /// `box.contexts_max`.
    pub contexts_max: u32,
    /// `site.prefix`.
    pub prefix: (Ipv6Addr, u8),
    /// `site.lan`.
    pub lan: (Ipv6Addr, u8),
    /// Prefixes of providers that the configuration names, in order.
    pub providers: Vec<(Ipv6Addr, u8)>,
    /// Something made of what follows from `sync.secret`, which tells nothing of it.
    pub secret: [u8; 16],
}

/// What the hearer answers to a Hello that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// `box.id`.
    pub box_id: u8,
    /// Its life.
    pub life: u64,
    /// The group's clock there.
    pub clock: u64,
    /// How much it has taken in of the life of the teller's that said Hello; nothing if it never heard of that life.
    pub heard: Option<u64>,
}

/// The keys of a box that draws `fresh` ones and has this secret: pairs belong to the same worker in each box of the site, but nobody's
/// validators are good for another box or another life (RFC 5533 §7.10).
pub fn shared_keys(secret: &Secret, fresh: Keys) -> Keys {
    Keys { sharding: derive(secret.octets(), b"which worker owns a pair"), ..fresh }
}

/// Something that follows from a key for a purpose.
fn derive(key: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    let digest = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), purpose);
    let mut derived = [0; 32];
    derived.copy_from_slice(digest.as_ref());
    derived
}

impl Common {
    /// Of a site whose group has so many boxes, and an engine with these keys.
    pub fn of(site: &Site, boxes: u32, keys: &Keys) -> Common {
        let mut providers: Vec<(Ipv6Addr, u8)> =
            site.providers.iter().map(|it| (it.prefix.address(), it.prefix.length())).collect();
        providers.sort_unstable();
        let mut print = [0; 16];
        print.copy_from_slice(&derive(&keys.sharding, b"do you have the same")[..16]);
        Common {
            boxes,
            workers: site.node.workers,
            contexts_max: site.node.contexts_max,
            prefix: (site.prefix.address(), site.prefix.length()),
            lan: (site.lan.address(), site.lan.length()),
            providers,
            secret: print,
        }
    }

    /// The first thing that differs.
    fn differs(&self, other: &Common) -> Option<&'static str> {
        let settings = [
            ("the number of boxes in sync.peers", self.boxes == other.boxes),
            ("box.workers", self.workers == other.workers),
            ("box.contexts_max", self.contexts_max == other.contexts_max),
            ("site.prefix", self.prefix == other.prefix),
            ("site.lan", self.lan == other.lan),
            ("provider.prefix of some provider", self.providers == other.providers),
            (
                "sync.secret, or how it began (a box takes over the keys of the process before it)",
                openssl::memcmp::eq(&self.secret, &other.secret),
            ),
        ];
        settings.into_iter().find(|(_, same)| !same).map(|(name, _)| name)
    }
}

impl Hello {
    /// Why a box that says this cannot be in a group with the one that would say `ours`.
    pub fn misfit(&self, ours: &Hello) -> Option<String> {
        if self.version != ours.version {
            return Some(format!("it speaks version {} of this and the other one {}", self.version, ours.version));
        }
        if let Some(name) = self.common.differs(&ours.common) {
            return Some(format!("{name} is another one there than here"));
        }
        let boxes = ours.common.boxes.max(1);
        if u32::from(self.box_id) % boxes == u32::from(ours.box_id) % boxes {
            return Some(format!(
                "box.id {} and {} have the same place in a group of {boxes}; number the boxes one after the other",
                self.box_id, ours.box_id
            ));
        }
        None
    }
}

/// A message as it travels: four octets of length, least first, and the message in postcard's form.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Nothing of what is told here can fail to be written down, and batches are far shorter than is allowed.
    let mut octets = postcard::to_extend(message, vec![0; 4]).unwrap_or_else(|_| vec![0; 4]);
    let length = (octets.len() - 4) as u32;
    octets[..4].copy_from_slice(&length.to_le_bytes());
    octets
}

/// A message without its length; none if it is none.
pub fn decode<T: DeserializeOwned>(octets: &[u8]) -> Option<T> {
    let (message, rest) = postcard::take_from_bytes(octets).ok()?;
    rest.is_empty().then_some(message)
}
