//! Who owns a locator: the door to HBA and CGA (RFC 5533 §7.2).

use std::collections::BTreeMap;

use dataplane::wire::shim6::{LocatorList, VerificationMethod};
use dataplane::wire::{Locator, Ulid};
use hashbrown::HashMap;
use ring::digest::{Context as Hash, SHA256};
use serde::{Deserialize, Serialize};

use crate::identity::signature::verify_locators;
use crate::identity::{self, Parameters};

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

    /// The same as far as it does not take long: everything but the signature. Whether that is left.
    fn proves_but_signature(
        &mut self,
        ulid: Ulid,
        pds: Option<&[u8]>,
        list: &LocatorList,
        signature: Option<&[u8]>,
    ) -> Result<bool, usize> {
        self.proves(ulid, pds, list, signature).map(|()| false)
    }

    /// From now on [`LocatorProof::slow_part`] says what takes long.
    fn defer(&mut self) {}

    /// What [`LocatorProof::proves`] would take long over, if there is any such thing, all else holds, and somebody else is to
    /// compute it. What nobody defers is computed by `proves`, however long it takes.
    fn slow_part(
        &mut self,
        _ulid: Ulid,
        _pds: Option<&[u8]>,
        _list: &LocatorList,
        _signature: Option<&[u8]>,
    ) -> Option<ProofJob> {
        None
    }

    /// What was found out about a slow part: true is remembered, false only until the next call.
    fn learn(&mut self, _finding: Option<Finding>) {}

    /// The parameters of another address of the same host: those given, with the address's prefix (R5535-021).
    fn parameters_of(&self, address: Ulid, pds: &[u8]) -> Vec<u8>;
}

/// A signature over locators to be verified. Whoever has time does it, in any thread: it is a pure function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofJob {
    digest: Digest,
    pds: Vec<u8>,
    generation: u32,
    locators: Vec<Locator>,
    signature: Vec<u8>,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    digest: Digest,
    /// Absent if whoever was to find it out has failed.
    holds: Option<bool>,
}

impl ProofJob {
    /// Computes it.
    pub fn run(&self) -> Finding {
        let parameters = Parameters::parse(&self.pds);
        let verify = |parameters: &_| verify_locators(parameters, self.generation, &self.locators, &self.signature);
        let holds = parameters.as_ref().is_ok_and(|parameters| verify(parameters).is_ok());
        Finding { digest: self.digest, holds: Some(holds) }
    }

    /// The answer of somebody who failed to compute it: nothing is known, and nobody is to wait for it any longer.
    pub fn give_up(&self) -> Finding {
        Finding { digest: self.digest, holds: None }
    }

    /// One that is about nothing but has a name.
    #[cfg(test)]
    pub(crate) fn of(digest: Digest) -> ProofJob {
        ProofJob { digest, pds: Vec::new(), generation: 0, locators: Vec::new(), signature: Vec::new() }
    }

    /// What it is about: everything that the answer depends on.
    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl Finding {
    /// What it is about.
    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Whether there is no answer and will be none.
    pub(super) fn failed(&self) -> bool {
        self.holds.is_none()
    }
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

    fn proves_but_signature(
        &mut self,
        ulid: Ulid,
        pds: Option<&[u8]>,
        list: &LocatorList,
        signature: Option<&[u8]>,
    ) -> Result<bool, usize> {
        identity::verify_list_but_signature(ulid, pds, list, signature).map_err(|fault| fault.index)
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
    /// Whether somebody else verifies signatures.
    deferred: bool,
    /// What was just found to be false.
    refused: Option<Digest>,
}

/// A SHA-256.
pub(super) type Digest = [u8; 32];

impl<P: LocatorProof> ProofMemory<P> {
    /// Lists remembered.
    pub const MAX: usize = 16_384;

    /// Remembers what `inner` says.
    pub fn new(inner: P) -> ProofMemory<P> {
        ProofMemory {
            inner,
            known: HashMap::new(),
            by_turn: BTreeMap::new(),
            turn: 0,
            max: Self::MAX,
            deferred: false,
            refused: None,
        }
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
        let Some(first) = list.entries.iter().position(is_signed) else {
            return self.inner.proves(ulid, pds, list, signature);
        };
        let digest = digest(ulid, pds, list, signature);
        if self.refused == Some(digest) {
            return Err(first);
        }
        if !self.known.contains_key(&digest) {
            self.inner.proves(ulid, pds, list, signature)?;
        }
        self.remember(digest);
        Ok(())
    }

    fn defer(&mut self) {
        self.deferred = true;
    }

    fn slow_part(
        &mut self,
        ulid: Ulid,
        pds: Option<&[u8]>,
        list: &LocatorList,
        signature: Option<&[u8]>,
    ) -> Option<ProofJob> {
        let (pds, signature) = (pds.filter(|_| self.deferred)?, signature?);
        let locators: Vec<Locator> =
            list.entries.iter().filter(|entry| is_signed(entry)).map(|entry| entry.0).collect();
        if locators.is_empty() {
            return None;
        }
        let digest = digest(ulid, Some(pds), list, Some(signature));
        let known = self.known.contains_key(&digest) || self.refused == Some(digest);
        // Where anything else is wrong the answer is no, and needs no signature.
        if known || self.inner.proves_but_signature(ulid, Some(pds), list, Some(signature)) != Ok(true) {
            return None;
        }
        let (pds, signature) = (pds.to_vec(), signature.to_vec());
        Some(ProofJob { digest, pds, generation: list.generation, locators, signature })
    }

    fn learn(&mut self, finding: Option<Finding>) {
        self.refused = None;
        match finding {
            Some(Finding { digest, holds: Some(true) }) => self.remember(digest),
            Some(Finding { digest, holds: Some(false) }) => self.refused = Some(digest),
            Some(Finding { holds: None, .. }) | None => {}
        }
    }

    fn parameters_of(&self, address: Ulid, pds: &[u8]) -> Vec<u8> {
        self.inner.parameters_of(address, pds)
    }
}

fn is_signed((_, method): &(Locator, VerificationMethod)) -> bool {
    *method == VerificationMethod::Cga
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
