//! Who owns a locator: the door to HBA and CGA (RFC 5533 §7.2).

use std::collections::BTreeMap;

use dataplane::wire::Ulid;
use dataplane::wire::shim6::{LocatorList, VerificationMethod};
use hashbrown::HashMap;
use ring::digest::{Context as Hash, SHA256};

use crate::identity;

/// Judges what peers claim about their locators. A trait, so that verdicts can be cached, and so that tests can do
/// without keys.
pub trait LocatorProof: Send {
    /// Whether the CGA parameters `pds` belong to `ulid` (RFC 3972 §5, RFC 5535 §6).
    fn owns(&mut self, ulid: Ulid, pds: &[u8]) -> bool;

    /// Whether every locator in `list` is proved to belong to `ulid` by the method given for it; otherwise the index
    /// of the first that is not. HBA hashes are checked before the signature, which costs most (D30).
    ///
    /// `pds` must be what [`LocatorProof::owns`] said yes to for this `ulid`, in this message or in an earlier one of the
    /// context: that is not looked at again.
    fn proves(
        &mut self,
        ulid: Ulid,
        pds: Option<&[u8]>,
        list: &LocatorList,
        signature: Option<&[u8]>,
    ) -> Result<(), usize>;

    /// The parameters of another address of the same host: those given, with the address's prefix (R5535-021).
    fn parameters_of(&self, address: Ulid, pds: &[u8]) -> Vec<u8>;
}

/// The real thing: nothing is remembered, everything is computed.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdentityProof;

impl LocatorProof for IdentityProof {
    fn owns(&mut self, ulid: Ulid, pds: &[u8]) -> bool {
        identity::verify_ulid(ulid, pds).is_ok()
    }

    fn proves(
        &mut self,
        ulid: Ulid,
        pds: Option<&[u8]>,
        list: &LocatorList,
        signature: Option<&[u8]>,
    ) -> Result<(), usize> {
        dataplane::mutant!(SkipHba, return Ok(()));
        identity::verify_list_of_owner(ulid, pds, list, signature).map_err(|fault| fault.index)
    }

    fn parameters_of(&self, address: Ulid, pds: &[u8]) -> Vec<u8> {
        identity::parameters_of(address.0, pds)
    }
}

/// Remembers the signed lists that another proof found good, so that an I2 that comes again costs one hash, not RSA.
///
/// Only what costs much is remembered, and only if it proved true: what is false can be made false in a new way each
/// time, and would push out what is true. The verdict depends on nothing but what is hashed, so it stays as it is.
pub struct ProofMemory<P> {
    inner: P,
    known: HashMap<Digest, u64>,
    /// The same by when they were last asked for.
    by_turn: BTreeMap<u64, Digest>,
    turn: u64,
    max: usize,
}

type Digest = [u8; 32];

impl<P: LocatorProof> ProofMemory<P> {
    /// Lists remembered.
    pub const MAX: usize = 1024;

    /// Remembers what `inner` says.
    pub fn new(inner: P) -> ProofMemory<P> {
        ProofMemory { inner, known: HashMap::new(), by_turn: BTreeMap::new(), turn: 0, max: Self::MAX }
    }

    /// Moves a digest to the end of those that are forgotten, or puts it there.
    fn remember(&mut self, digest: Digest) {
        self.turn += 1;
        self.by_turn.insert(self.turn, digest);
        if let Some(before) = self.known.insert(digest, self.turn) {
            self.by_turn.remove(&before);
        } else if self.known.len() > self.max
            && let Some((_, oldest)) = self.by_turn.pop_first()
        {
            self.known.remove(&oldest);
        }
    }
}

impl<P: LocatorProof> LocatorProof for ProofMemory<P> {
    fn owns(&mut self, ulid: Ulid, pds: &[u8]) -> bool {
        self.inner.owns(ulid, pds)
    }

    fn proves(
        &mut self,
        ulid: Ulid,
        pds: Option<&[u8]>,
        list: &LocatorList,
        signature: Option<&[u8]>,
    ) -> Result<(), usize> {
        if !list.entries.iter().any(|(_, method)| *method == VerificationMethod::Cga) {
            return self.inner.proves(ulid, pds, list, signature);
        }
        let digest = digest(ulid, pds, list, signature);
        if !self.known.contains_key(&digest) {
            self.inner.proves(ulid, pds, list, signature)?;
        }
        self.remember(digest);
        Ok(())
    }

    fn parameters_of(&self, address: Ulid, pds: &[u8]) -> Vec<u8> {
        self.inner.parameters_of(address, pds)
    }
}

/// Everything that the verdict depends on. Lengths go before what has none of its own, so that two questions that differ
/// are never the same octets.
fn digest(ulid: Ulid, pds: Option<&[u8]>, list: &LocatorList, signature: Option<&[u8]>) -> Digest {
    let mut hash = Hash::new(&SHA256);
    hash.update(&ulid.0.octets());
    for part in [pds, signature] {
        hash.update(&[u8::from(part.is_some())]);
        hash.update(&(part.map_or(0, <[u8]>::len) as u64).to_be_bytes());
        hash.update(part.unwrap_or_default());
    }
    hash.update(&list.generation.to_be_bytes());
    for (locator, method) in &list.entries {
        hash.update(&locator.0.octets());
        hash.update(&[method.code()]);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}
