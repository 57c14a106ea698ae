//! Who owns an address: CGA (RFC 3972) and HBA (RFC 5535).
//!
//! Pure functions from keys and prefixes to addresses, and from addresses and what a peer sent to a verdict. Nothing
//! here keeps state, and no octets a peer can send make anything here panic or compute for long: one address costs at
//! most two hashes, a list at most one signature.
//!
//! The Shim6 machine needs two functions, [`verify_ulid`] and [`verify_list`]; whoever gives addresses to hosts needs
//! [`make_host`]. The rest is what they are made of:
//!
//! ```text
//! der         where a public key ends          cga        address <-> its own parameters
//! extension   which prefixes are one set       hba        address <-> any parameters of its set
//! parameters  the whole data structure         signature  locators <-> the key in the parameters
//! ```
//!
//! SHA-1 is what the RFCs build on. They need it to resist second pre-images only, which it does; known collisions do
//! not help anybody who wants another's address (RFC 4982 §3).

pub mod cga;
pub mod der;
pub mod extension;
pub mod hba;
mod host;
mod list;
pub mod parameters;
pub mod signature;
#[cfg(test)]
pub(crate) mod testing;

use std::net::Ipv6Addr;

pub use host::{GenerateError, HostIdentity, HostPrefixes, make_host, make_host_with, parameters_of};
pub use list::{ListError, ListFault, verify_list, verify_list_but_signature, verify_list_of_owner, verify_ulid};
pub use parameters::{Parameters, ParametersRepr, PdsError};
pub use signature::{KeyError, SigningKey};

/// The leftmost 64 bits of an address.
pub type Prefix = [u8; 8];

/// The prefix of an address.
pub fn prefix_of(address: Ipv6Addr) -> Prefix {
    let [a, b, c, d, e, f, g, h, ..] = address.octets();
    [a, b, c, d, e, f, g, h]
}

/// The security parameter of an address: how much work its modifier cost (RFC 3972 §2, RFC 4982 §6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sec(u8);

impl Sec {
    /// No work at all: the default (R3972-018).
    pub const ZERO: Sec = Sec(0);
    /// About 65 thousand hashes.
    pub const ONE: Sec = Sec(1);
    /// About four thousand million hashes.
    pub const TWO: Sec = Sec(2);

    /// A value whose meaning is defined: 0, 1 or 2 (R4982-001).
    pub const fn new(value: u8) -> Option<Sec> {
        if value <= 2 { Some(Sec(value)) } else { None }
    }

    /// The number.
    pub const fn value(self) -> u8 {
        self.0
    }

    /// Hashes a search is expected to take; for showing how far it has come.
    pub const fn work(self) -> u64 {
        1 << (16 * self.0)
    }

    fn scheme(self) -> &'static cga::Scheme {
        match &cga::SCHEMES[usize::from(self.0)] {
            Some(scheme) => scheme,
            None => unreachable!("every Sec that can be made has a scheme"),
        }
    }
}

/// What proves the locators of a ULID (RFC 5535 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A key: every locator needs its signature.
    Cga,
    /// A key and a set of prefixes: members by hash, others by signature.
    Hybrid,
    /// A set of prefixes alone.
    Hba,
}
