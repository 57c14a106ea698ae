//! CGA (RFC 3972) and HBA (RFC 5535): pure functions from keys and prefixes to addresses, and back to a verdict.

mod signature;

use dataplane::wire::shim6::LocatorList;
use dataplane::wire::{Locator, Ulid};

pub use signature::{KeyError, SigningKey};

/// The leftmost 64 bits of an address.
pub type Prefix = [u8; 8];

/// The security parameter of an address: how much work its modifier cost (RFC 3972 §2, RFC 4982 §6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sec(u8);

impl Sec {
    /// No work at all: the default.
    pub const ZERO: Sec = Sec(0);
    /// About 65 thousand hashes.
    pub const ONE: Sec = Sec(1);
    /// About four thousand million hashes.
    pub const TWO: Sec = Sec(2);

    /// A value whose meaning is defined: 0, 1 or 2.
    pub const fn new(value: u8) -> Option<Sec> {
        if value <= 2 { Some(Sec(value)) } else { None }
    }

    /// The number.
    pub const fn value(self) -> u8 {
        self.0
    }
}

/// What proves the locators of a ULID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A key: every locator needs its signature.
    Cga,
    /// A key and a set of prefixes: members by hash, others by signature.
    Hybrid,
    /// A set of prefixes alone.
    Hba,
}

/// Why a parameter data structure does not prove an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PdsError {
    /// Shorter than its fixed part, or the public key does not end inside it.
    #[error("the parameter data structure is truncated")]
    Truncated,
}

/// Checks that `pds` belongs to `ulid` (R5533-179, R5535-023).
pub fn verify_ulid(ulid: Ulid, pds: &[u8]) -> Result<Kind, PdsError> {
    let _ = (ulid, pds);
    todo!()
}

/// Checks every locator of `list`: HBA members by hash, CGA ones by signature (RFC 5533 §7.2). `ulid` itself needs no
/// proof.
pub fn verify_list(
    ulid: Ulid,
    pds: Option<&[u8]>,
    list: &LocatorList,
    signature: Option<&[u8]>,
) -> Result<(), ListFault> {
    let _ = (ulid, pds, list, signature);
    todo!()
}

/// Which entry of a list fails, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListFault {
    /// Position of the entry in the list; the Error message points at its method octet.
    pub index: usize,
    /// What is wrong with it.
    pub reason: ListError,
}

/// Why a locator is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// No parameter data structure is known for the peer.
    #[error("no parameter data structure to prove the locator with")]
    MissingPds,
    /// The parameter data structure does not belong to the ULID.
    #[error("the parameter data structure does not belong to the ULID")]
    ForeignPds,
    /// HBA: the locator is not a member of the ULID's set.
    #[error("the locator is not in the ULID's address set")]
    NotInSet,
    /// A verification method other than HBA and CGA.
    #[error("the verification method is not supported")]
    UnsupportedMethod,
    /// HBA without a set of prefixes, or CGA without a real key.
    #[error("the verification method contradicts the parameter data structure")]
    MethodContradictsPds,
    /// CGA: no signature came with the list.
    #[error("the list is not signed")]
    MissingSignature,
    /// CGA: the signature does not cover this list.
    #[error("the signature is wrong")]
    BadSignature,
    /// CGA: the key is shorter than 1024 bits.
    #[error("the key is too short for signatures")]
    KeyTooShort,
    /// CGA: the key is longer than 8192 bits.
    #[error("the key is too long for signatures")]
    KeyTooLong,
    /// Multicast, unspecified, loopback or link-local.
    #[error("the address cannot be a locator")]
    ForbiddenLocator,
}

/// Prefixes a host gets addresses from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPrefixes {
    /// Prefix of its identifier.
    pub ulid: Prefix,
    /// Prefixes of its locators, one for each provider.
    pub locators: Vec<Prefix>,
}

/// A host's identity: its ULID, its locators and what proves that they belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostIdentity {
    /// The identifier.
    pub ulid: Ulid,
    /// One for each locator prefix, in that order.
    pub locators: Vec<Locator>,
    /// Parameter data structure of the ULID.
    pub pds: Vec<u8>,
    /// How the locators are proved.
    pub kind: Kind,
}

/// Why no address could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// Three candidates were in use already (RFC 3972 §4 step 8).
    #[error("three addresses in a row are in use already")]
    Collisions,
    /// More than sixteen prefixes, or none.
    #[error("an address set has 1 to 16 prefixes, not {0}")]
    PrefixCount(usize),
    /// The search for a modifier was called off.
    #[error("the search for a modifier was cancelled")]
    Cancelled,
    /// The key is not an RSA SubjectPublicKeyInfo of at least 384 bits.
    #[error("the public key cannot be used")]
    Key,
}

/// Makes a fresh identity over all prefixes: hybrid with a key, HBA-only without.
pub fn make_host(
    prefixes: &HostPrefixes,
    sec: Sec,
    key: Option<&SigningKey>,
    rng: &mut dyn rand::Rng,
) -> Result<HostIdentity, GenerateError> {
    let _ = (prefixes, sec, key, rng);
    todo!()
}
