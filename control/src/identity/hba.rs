//! Hash-based addresses (RFC 5535).
//!
//! All prefixes of a host go into an extension field of the parameters that every one of its addresses is a hash of.
//! So each address commits to the whole set: given the parameters of one, anybody can compute the others.

use std::net::Ipv6Addr;

use super::cga::{self, Collides, Progress};
use super::der;
use super::extension::{MultiPrefix, PREFIXES_MAX};
use super::parameters::{Parameters, ParametersRepr, PdsError};
use super::{GenerateError, Kind, Prefix, Sec, prefix_of};

/// Checks that `address` is a member of the set `parameters` describe, whichever member they were sent for
/// (RFC 5535 §7.2).
pub fn verify_member(address: Ipv6Addr, parameters: &Parameters<'_>) -> Result<(), PdsError> {
    let set = parameters.set().ok_or(PdsError::NoSet)?;
    if !set.contains(&prefix_of(address)) {
        return Err(PdsError::PrefixNotInSet);
    }
    // The prefix is replaced in what is hashed; the parameters stay what they are (R5535-026).
    cga::verify_with_prefix_replaced(address, parameters)
}

/// The member of a set under `prefix`, as strong as `known`, another member. Anybody can compute it (RFC 5535 §1).
pub fn member_under(prefix: Prefix, known: Ipv6Addr, parameters: &Parameters<'_>) -> Result<Ipv6Addr, PdsError> {
    let set = parameters.set().ok_or(PdsError::NoSet)?;
    if !set.contains(&prefix) {
        return Err(PdsError::PrefixNotInSet);
    }
    cga::with_prefix_replaced(prefix, known, parameters)
}

/// What parameters can prove for an address under `prefix` (RFC 5535 §4; R5535-001).
///
/// Parameters that list prefixes but not this one hold a plain CGA (R5535-043), provided their key is a real one.
pub fn classify(prefix: &Prefix, parameters: &Parameters<'_>) -> Result<Kind, PdsError> {
    match parameters.set() {
        None => Ok(Kind::Cga),
        Some(set) => match (set.contains(prefix), set.has_key()) {
            (true, true) => Ok(Kind::Hybrid),
            (true, false) => Ok(Kind::Hba),
            (false, true) => Ok(Kind::Cga),
            (false, false) => Err(PdsError::PrefixNotInSet),
        },
    }
}

/// What a set is made from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// 1 to 16 prefixes, in the order wanted.
    pub prefixes: &'a [Prefix],
    /// Strength wanted.
    pub sec: Sec,
    /// DER SubjectPublicKeyInfo of an RSA key of at least 384 bits for a hybrid set; none for an HBA-only one.
    pub key: Option<&'a [u8]>,
}

/// A set of addresses and what it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSet {
    /// One for each prefix, in the same order.
    pub addresses: Vec<Ipv6Addr>,
    /// Parameters of the first address; [`ParametersRepr::emit_for`] gives those of the others.
    pub parameters: ParametersRepr,
}

/// Makes a set of addresses (RFC 5535 §6). `rng` must be cryptographically strong (R3972-017).
///
/// Costs what [`cga::generate`] costs, and one hash more for each further prefix. A prefix added later means a new set
/// in which all addresses differ (R5535-030).
pub fn generate(
    request: &Request<'_>,
    rng: &mut dyn rand::Rng,
    collides: &mut Collides<'_>,
    progress: &mut Progress<'_>,
) -> Result<AddressSet, GenerateError> {
    let modifier = cga::random_modifier(rng);
    match request.key {
        Some(key) => generate_from(request, modifier, key, collides, progress),
        None => {
            let mut nonce = [0; 48];
            rng.fill_bytes(&mut nonce);
            generate_from(request, modifier, &der::encode_nonce(nonce), collides, progress)
        }
    }
}

/// The part of the procedure without randomness: from a first modifier and a key, real or not.
fn generate_from(
    request: &Request<'_>,
    start: u128,
    key: &[u8],
    collides: &mut Collides<'_>,
    progress: &mut Progress<'_>,
) -> Result<AddressSet, GenerateError> {
    let prefix = match request.prefixes {
        [first, ..] if request.prefixes.len() <= PREFIXES_MAX => *first,
        _ => return Err(GenerateError::PrefixCount(request.prefixes.len())),
    };
    // 1. The extension.
    let extensions = MultiPrefix::encode(request.key.is_some(), request.prefixes);
    // 2. to 4. The modifier.
    let tail = cga::checked_tail(request.sec, key, &extensions)?;
    let modifier = cga::find_modifier(start, request.sec, &tail, progress)?;
    // 5. and 6. The addresses.
    let (collision_count, addresses) = cga::derive(request.prefixes, request.sec, modifier, &tail, collides)?;
    let parameters = ParametersRepr { modifier, prefix, collision_count, public_key: key.to_vec(), extensions };
    Ok(AddressSet { addresses, parameters })
}

#[cfg(test)]
#[path = "hba_tests.rs"]
mod tests;
