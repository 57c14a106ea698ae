//! What a host of ours is called and how others can tell.

use std::net::Ipv6Addr;
use std::ops::ControlFlow;

use dataplane::wire::{Locator, Ulid};

use super::cga::{Collides, Progress};
use super::parameters::Parameters;
use super::signature::SigningKey;
use super::{Kind, Prefix, Sec, hba, prefix_of};

/// Prefixes a host gets addresses from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPrefixes {
    /// Prefix of its identifier.
    pub ulid: Prefix,
    /// Prefixes of its locators, one for each provider; may name the identifier's, which then is a locator too.
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

impl HostIdentity {
    /// Parameter data structure of another address of this host: that of the ULID with another prefix (R5535-021).
    pub fn pds_of(&self, address: Ipv6Addr) -> Vec<u8> {
        parameters_of(address, &self.pds)
    }
}

/// Parameter data structure of another address of the host that `pds` is of: the same with the address's prefix
/// (R5535-021). What cannot be read comes back as it is.
pub fn parameters_of(address: Ipv6Addr, pds: &[u8]) -> Vec<u8> {
    match Parameters::parse(pds) {
        Ok(parameters) => parameters.to_repr().emit_for(address),
        Err(_) => pds.to_vec(),
    }
}

/// Why no address could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// Three candidates were in use already (RFC 3972 §4 step 8).
    #[error("three candidates in a row were in use already")]
    Collisions,
    /// More than sixteen prefixes, or none.
    #[error("an address set has 1 to 16 prefixes, not {0}")]
    PrefixCount(usize),
    /// The search for a modifier was called off.
    #[error("the search for a modifier was called off")]
    Cancelled,
    /// The modifier was found for another key, other extensions or a smaller Sec.
    #[error("the modifier does not have the strength asked for")]
    Modifier,
    /// The key is not the SubjectPublicKeyInfo of an RSA key of at least 384 bits.
    #[error("the public key cannot be used")]
    Key,
}

/// Makes a fresh identity over all prefixes: hybrid with a key, HBA-only without. `rng` must be cryptographically
/// strong.
///
/// With Sec 1 this takes about a tenth of a second; with Sec 2 use [`make_host_with`], which can be watched and
/// called off.
pub fn make_host(
    prefixes: &HostPrefixes,
    sec: Sec,
    key: Option<&SigningKey>,
    rng: &mut dyn rand::Rng,
) -> Result<HostIdentity, GenerateError> {
    let key = key.map(SigningKey::public_key_der);
    make_host_with(prefixes, sec, key, rng, &mut |_| false, &mut |_| ControlFlow::Continue(()))
}

/// As [`make_host`], but asks `collides` whether an address is taken, tells `progress` how a search is going, and
/// needs the public key alone (DER SubjectPublicKeyInfo).
pub fn make_host_with(
    prefixes: &HostPrefixes,
    sec: Sec,
    key: Option<&[u8]>,
    rng: &mut dyn rand::Rng,
    collides: &mut Collides<'_>,
    progress: &mut Progress<'_>,
) -> Result<HostIdentity, GenerateError> {
    let mut distinct = vec![prefixes.ulid];
    for prefix in &prefixes.locators {
        if !distinct.contains(prefix) {
            distinct.push(*prefix);
        }
    }
    let request = hba::Request { prefixes: &distinct, sec, key };
    let set = hba::generate(&request, rng, collides, progress)?;
    let address = |prefix: &Prefix| set.addresses.iter().find(|address| prefix_of(**address) == *prefix).copied();
    Ok(HostIdentity {
        ulid: Ulid(address(&prefixes.ulid).ok_or(GenerateError::PrefixCount(0))?),
        locators: prefixes.locators.iter().filter_map(address).map(Locator).collect(),
        pds: set.parameters.emit(),
        kind: if key.is_some() { Kind::Hybrid } else { Kind::Hba },
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::identity::testing::{RFC3972_KEY, SET_PREFIXES, octets};
    use crate::identity::verify_ulid;

    fn prefixes() -> HostPrefixes {
        HostPrefixes { ulid: SET_PREFIXES[0], locators: vec![SET_PREFIXES[2], SET_PREFIXES[1]] }
    }

    #[test]
    fn a_host_without_key_is_hba_only() {
        let host = make_host(&prefixes(), Sec::ZERO, None, &mut StdRng::seed_from_u64(1)).unwrap();
        assert_eq!((host.kind, verify_ulid(host.ulid, &host.pds)), (Kind::Hba, Ok(Kind::Hba)));
        assert_eq!(host.locators.iter().map(|l| prefix_of(l.0)).collect::<Vec<_>>(), prefixes().locators);
        assert_eq!(prefix_of(host.ulid.0), prefixes().ulid);
    }

    #[test]
    fn a_host_with_key_is_hybrid() {
        let key = octets(RFC3972_KEY);
        let mut rng = StdRng::seed_from_u64(1);
        let progress = &mut |_| ControlFlow::Continue(());
        let host = make_host_with(&prefixes(), Sec::ONE, Some(&key), &mut rng, &mut |_| false, progress).unwrap();
        assert_eq!((host.kind, verify_ulid(host.ulid, &host.pds)), (Kind::Hybrid, Ok(Kind::Hybrid)));
        // R5535-021: each locator has parameters of its own under which it is an ordinary CGA.
        for locator in &host.locators {
            let pds = host.pds_of(locator.0);
            assert_eq!(crate::identity::cga::verify(locator.0, &Parameters::parse(&pds).unwrap()), Ok(()));
        }
        assert_eq!(host.pds_of(host.ulid.0), host.pds);
    }

    #[test]
    fn a_prefix_named_twice_counts_once() {
        let prefixes = HostPrefixes { ulid: SET_PREFIXES[1], locators: vec![SET_PREFIXES[2], SET_PREFIXES[1]] };
        let host = make_host(&prefixes, Sec::ZERO, None, &mut StdRng::seed_from_u64(2)).unwrap();
        assert_eq!(host.locators[1].0, host.ulid.0);
        assert_eq!(Parameters::parse(&host.pds).unwrap().set().unwrap().prefixes().len(), 2);
    }

    #[test]
    fn sixteen_prefixes_are_the_most() {
        // R5535-042
        let locators = |count: u8| (0..count).map(|i| [0x20, 1, 0xd, 0xb8, 0, 0, 0, i]).collect();
        let mut rng = StdRng::seed_from_u64(3);
        let fits = HostPrefixes { ulid: SET_PREFIXES[0], locators: locators(15) };
        assert_eq!(make_host(&fits, Sec::ZERO, None, &mut rng).unwrap().locators.len(), 15);
        let too_many = HostPrefixes { ulid: SET_PREFIXES[0], locators: locators(16) };
        assert_eq!(make_host(&too_many, Sec::ZERO, None, &mut rng), Err(GenerateError::PrefixCount(17)));
    }

    #[test]
    fn two_hosts_with_one_key_cannot_be_linked() {
        // R3972-039
        // R3972-016, R5535-015
        let mut rng = StdRng::seed_from_u64(4);
        let key = octets(RFC3972_KEY);
        let mut make = || {
            let progress = &mut |_| ControlFlow::Continue(());
            make_host_with(&prefixes(), Sec::ZERO, Some(&key), &mut rng, &mut |_| false, progress).unwrap()
        };
        let (one, other) = (make(), make());
        assert_ne!(one.ulid, other.ulid);
        assert_ne!(one.pds[..16], other.pds[..16]);
    }
}
