//! Cryptographically generated addresses (RFC 3972).
//!
//! An address *is* a hash of its parameters: 59 bits of its interface identifier come from Hash1, and its three
//! leftmost ones, Sec, say how many zeros Hash2 begins with. Finding such a modifier costs the owner 2^(16·Sec)
//! hashes, and adds as much to the cost of an attacker who wants other parameters for the same address.
//!
//! ```text
//! Hash1 = first  8 octets of H(Modifier | Prefix | Collision Count | Public Key | Extensions)
//! Hash2 = first 14 octets of H(Modifier | nine zero octets         | Public Key | Extensions)
//! ```

use std::net::Ipv6Addr;
use std::ops::ControlFlow;

use openssl::sha::Sha1;

use super::der::PublicKey;
use super::parameters::{PUBLIC_KEY_OFFSET, Parameters, ParametersRepr, PdsError};
use super::{GenerateError, Prefix, Sec, prefix_of};

/// The bits of an interface identifier that must equal Hash1: all but Sec, "u" and "g" (RFC 3972 §2).
const MASK1: u64 = 0x1cff_ffff_ffff_ffff;

/// Largest collision count (R3972-004).
const COLLISION_COUNT_MAX: u8 = 2;

/// Hashes between two calls of the progress callback of a search.
pub const PROGRESS_INTERVAL: u64 = 1 << 14;

/// Told how many modifiers were tried so far; may call the search off.
pub type Progress<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

/// Duplicate address detection: whether an address is in use already.
pub type Collides<'a> = dyn FnMut(Ipv6Addr) -> bool + 'a;

/// What one value of Sec stands for (RFC 4982 §6; R4982-007).
pub(super) struct Scheme {
    /// The hash function behind Hash1 and Hash2, over the two parts of its input.
    pub(super) hash: fn(&[u8], &[u8]) -> Digest,
    /// Leading zero bits of Hash2; 112 at most.
    pub(super) zero_bits: u32,
    /// Shortest modulus addresses are generated with (R3972-009).
    pub(super) key_bits_min: usize,
}

/// As much of a digest as SHA-1 has; of longer ones the beginning.
pub(super) type Digest = [u8; 20];

/// The meaning of every value of Sec; one without an entry cannot be verified (R4982-006, reading A-C1).
pub(super) type Schemes = [Option<Scheme>; 8];

/// The registry of RFC 4982 §6, the only place that gives values of Sec a meaning.
pub(super) static SCHEMES: Schemes = [Some(sha1(0)), Some(sha1(16)), Some(sha1(32)), None, None, None, None, None];

const fn sha1(zero_bits: u32) -> Scheme {
    Scheme { hash: sha1_of, zero_bits, key_bits_min: 384 }
}

fn sha1_of(head: &[u8], tail: &[u8]) -> Digest {
    let mut hash = Sha1::new();
    hash.update(head);
    hash.update(tail);
    hash.finish()
}

/// Checks that `address` was generated from `parameters` (RFC 3972 §5).
pub fn verify(address: Ipv6Addr, parameters: &Parameters<'_>) -> Result<(), PdsError> {
    // 1. The collision count is 0, 1 or 2.
    check_collision_count(parameters)?;
    // 2. The prefixes agree.
    if parameters.prefix() != prefix_of(address) {
        return Err(PdsError::Prefix);
    }
    verify_hashes(&SCHEMES, address, parameters)
}

/// The same after replacing the subnet prefix by that of `address`, so that step 2 always passes (RFC 5535 §7.2).
pub(super) fn verify_with_prefix_replaced(address: Ipv6Addr, parameters: &Parameters<'_>) -> Result<(), PdsError> {
    check_collision_count(parameters)?;
    verify_hashes(&SCHEMES, address, parameters)
}

/// The address under another prefix that the same parameters prove with the prefix replaced.
pub(super) fn with_prefix_replaced(
    prefix: Prefix,
    known: Ipv6Addr,
    parameters: &Parameters<'_>,
) -> Result<Ipv6Addr, PdsError> {
    let sec = sec_bits(split(known).1);
    let scheme = SCHEMES[usize::from(sec)].as_ref().ok_or(PdsError::Sec(sec))?;
    let hash1 = hash1(scheme, parameters.modifier(), prefix, parameters.collision_count(), parameters.tail());
    Ok(join(prefix, hash1 & MASK1 | u64::from(sec) << 61))
}

fn check_collision_count(parameters: &Parameters<'_>) -> Result<(), PdsError> {
    match parameters.collision_count() {
        0..=COLLISION_COUNT_MAX => Ok(()),
        count => Err(PdsError::CollisionCount(count)),
    }
}

/// Steps 3 to 7, with the prefix taken from `address`.
fn verify_hashes(schemes: &Schemes, address: Ipv6Addr, parameters: &Parameters<'_>) -> Result<(), PdsError> {
    // 5. Sec, this early because it names the hash function (RFC 4982 §4.1).
    let (prefix, interface_id) = split(address);
    let sec = sec_bits(interface_id);
    let scheme = schemes[usize::from(sec)].as_ref().ok_or(PdsError::Sec(sec))?;
    // 3. and 4. Hash1 over the whole structure, compared but for five bits.
    let hash1 = hash1(scheme, parameters.modifier(), prefix, parameters.collision_count(), parameters.tail());
    if (hash1 ^ interface_id) & MASK1 != 0 {
        return Err(PdsError::Hash1);
    }
    // 6. and 7. Hash2 and its zeros.
    if scheme.zero_bits > 0 && hash2_zero_bits(scheme, parameters.modifier(), parameters.tail()) < scheme.zero_bits {
        return Err(PdsError::Hash2);
    }
    Ok(())
}

/// What an address is made from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Leftmost 64 bits of the address.
    pub prefix: Prefix,
    /// Strength wanted.
    pub sec: Sec,
    /// DER SubjectPublicKeyInfo of an RSA key of at least 384 bits.
    pub key: &'a [u8],
    /// Encoded extension fields.
    pub extensions: &'a [u8],
}

/// An address and what it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The address.
    pub address: Ipv6Addr,
    /// Proves it.
    pub parameters: ParametersRepr,
}

/// Makes an address (RFC 3972 §4). `rng` must be cryptographically strong (R3972-017).
///
/// With Sec 1 this takes about 2^16 hashes, with Sec 2 about 2^32, an hour or two of one core; `progress` hears of every
/// [`PROGRESS_INTERVAL`] of them. A search has no memory, so several at once on as many cores, the first to end
/// calling off the others, are as many times faster.
pub fn generate(
    request: &Request<'_>,
    rng: &mut dyn rand::Rng,
    collides: &mut Collides<'_>,
    progress: &mut Progress<'_>,
) -> Result<Generated, GenerateError> {
    let tail = checked_tail(request.sec, request.key, request.extensions)?;
    let modifier = find_modifier(random_modifier(rng), request.sec, &tail, progress)?;
    address_from(request, modifier, &tail, collides)
}

/// Makes another address with a modifier found before (R3972-022, R3972-023): no search, but whoever sees both
/// addresses' parameters can tell that they have one owner.
///
/// The modifier must have been found for the same key, the same extensions and no smaller Sec.
pub fn generate_with_modifier(
    request: &Request<'_>,
    modifier: u128,
    collides: &mut Collides<'_>,
) -> Result<Generated, GenerateError> {
    let tail = checked_tail(request.sec, request.key, request.extensions)?;
    let scheme = request.sec.scheme();
    if hash2_zero_bits(scheme, modifier, &tail) < scheme.zero_bits {
        return Err(GenerateError::Modifier);
    }
    address_from(request, modifier, &tail, collides)
}

fn address_from(
    request: &Request<'_>,
    modifier: u128,
    tail: &[u8],
    collides: &mut Collides<'_>,
) -> Result<Generated, GenerateError> {
    let (collision_count, addresses) = derive(&[request.prefix], request.sec, modifier, tail, collides)?;
    let parameters = ParametersRepr {
        modifier,
        prefix: request.prefix,
        collision_count,
        public_key: request.key.to_vec(),
        extensions: request.extensions.to_vec(),
    };
    addresses.first().map(|&address| Generated { address, parameters }).ok_or(GenerateError::PrefixCount(0))
}

/// Key and extensions in one piece, if the key is one addresses can be made from.
pub(super) fn checked_tail(sec: Sec, key: &[u8], extensions: &[u8]) -> Result<Vec<u8>, GenerateError> {
    let parsed = PublicKey::parse(key).map_err(|_| GenerateError::Key)?;
    if parsed.der().len() != key.len() || parsed.bits() < sec.scheme().key_bits_min {
        return Err(GenerateError::Key);
    }
    Ok([key, extensions].concat())
}

/// Step 1: a random modifier.
pub(super) fn random_modifier(rng: &mut dyn rand::Rng) -> u128 {
    let mut octets = [0; 16];
    rng.fill_bytes(&mut octets);
    u128::from_be_bytes(octets)
}

/// Steps 2 and 3: the first modifier from `start` on whose Hash2 begins with the zeros `sec` asks for.
pub(super) fn find_modifier(
    start: u128,
    sec: Sec,
    tail: &[u8],
    progress: &mut Progress<'_>,
) -> Result<u128, GenerateError> {
    let scheme = sec.scheme();
    if scheme.zero_bits == 0 {
        return Ok(start);
    }
    // The modifier comes first, so no part of the hash can be computed ahead; all that is left to save is copying.
    // One buffer holds the whole input and only its first sixteen octets change.
    let mut input = vec![0; PUBLIC_KEY_OFFSET + tail.len()];
    input[PUBLIC_KEY_OFFSET..].copy_from_slice(tail);
    let mut modifier = start;
    for tried in 1u64.. {
        input[..16].copy_from_slice(&modifier.to_be_bytes());
        if leading_zero_bits(&(scheme.hash)(&input, &[])) >= scheme.zero_bits {
            return Ok(modifier);
        }
        modifier = modifier.wrapping_add(1);
        if tried % PROGRESS_INTERVAL == 0 && progress(tried).is_break() {
            return Err(GenerateError::Cancelled);
        }
    }
    Err(GenerateError::Cancelled)
}

/// Steps 4 to 8 for one prefix or for a whole set: the collision count and an address for each prefix.
///
/// A collision of any address starts all of them again with the next count (R5535-018), because all addresses of a
/// set have their parameters in common but for the prefix.
pub(super) fn derive(
    prefixes: &[Prefix],
    sec: Sec,
    modifier: u128,
    tail: &[u8],
    collides: &mut Collides<'_>,
) -> Result<(u8, Vec<Ipv6Addr>), GenerateError> {
    'count: for collision_count in 0..=COLLISION_COUNT_MAX {
        let mut addresses = Vec::with_capacity(prefixes.len());
        for prefix in prefixes {
            let hash1 = hash1(sec.scheme(), modifier, *prefix, collision_count, tail);
            let address = join(*prefix, hash1 & MASK1 | u64::from(sec.value()) << 61);
            if collides(address) {
                continue 'count;
            }
            addresses.push(address);
        }
        return Ok((collision_count, addresses));
    }
    Err(GenerateError::Collisions)
}

fn hash1(scheme: &Scheme, modifier: u128, prefix: Prefix, collision_count: u8, tail: &[u8]) -> u64 {
    let mut head = [0; PUBLIC_KEY_OFFSET];
    head[..16].copy_from_slice(&modifier.to_be_bytes());
    head[16..24].copy_from_slice(&prefix);
    head[24] = collision_count;
    let digest = (scheme.hash)(&head, tail);
    digest.iter().take(8).fold(0, |hash, octet| hash << 8 | u64::from(*octet))
}

fn hash2_zero_bits(scheme: &Scheme, modifier: u128, tail: &[u8]) -> u32 {
    let mut head = [0; PUBLIC_KEY_OFFSET];
    head[..16].copy_from_slice(&modifier.to_be_bytes());
    leading_zero_bits(&(scheme.hash)(&head, tail))
}

/// Zero bits at the front of Hash2, the first 14 octets of the digest.
fn leading_zero_bits(digest: &Digest) -> u32 {
    let hash2 = digest.iter().take(14);
    let mut bits = 0;
    for octet in hash2 {
        bits += octet.leading_zeros();
        if *octet != 0 {
            break;
        }
    }
    bits
}

/// The Sec bits of an interface identifier, meaningful or not (R3972-001).
fn sec_bits(interface_id: u64) -> u8 {
    (interface_id >> 61) as u8
}

fn split(address: Ipv6Addr) -> (Prefix, u64) {
    let bits = address.to_bits();
    (prefix_of(address), bits as u64)
}

fn join(prefix: Prefix, interface_id: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits(u128::from(u64::from_be_bytes(prefix)) << 64 | u128::from(interface_id))
}

#[cfg(test)]
#[path = "cga_tests.rs"]
mod tests;
