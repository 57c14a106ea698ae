//! Verdict on a locator list (RFC 5533 §7.2).

use std::net::Ipv6Addr;

use dataplane::wire::shim6::{LocatorList, VerificationMethod};
use dataplane::wire::{Locator, Ulid};

use super::parameters::{Parameters, PdsError};
use super::signature::{SignatureError, usable_key, verify_locators};
use super::{Kind, cga, hba, prefix_of};

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

/// Checks that `pds` belongs to `ulid` and says what it can prove (R5533-179, R5535-023).
///
/// The parameters of another member of the ULID's address set will do, since they describe the same set; those of an
/// address that merely has the same key will not.
pub fn verify_ulid(ulid: Ulid, pds: &[u8]) -> Result<Kind, PdsError> {
    Ok(Proof::check(ulid, pds)?.kind)
}

/// Checks every locator of `list`: HBA members by hash, CGA ones by signature (RFC 5533 §7.2).
///
/// The ULID itself needs no proof, whatever its method; everything else needs exactly the proof its method names, and
/// there is no falling back from one to the other (reading A-H6). Where several entries fail, the first of those is
/// reported, except that the signature is only looked at when all else holds, as it costs most (decision D30).
///
/// # Errors
/// The index of the failing entry, so that the caller can point Error 2 at it.
pub fn verify_list(
    ulid: Ulid,
    pds: Option<&[u8]>,
    list: &LocatorList,
    signature: Option<&[u8]>,
) -> Result<(), ListFault> {
    let signed = verify(ulid, pds, list, signature, Proof::check)?;
    signed.map_or(Ok(()), |signed| verify_signature(signed, list, signature))
}

/// The same for parameters that [`verify_ulid`] has found to be those of the ULID: this is not computed again.
pub fn verify_list_of_owner(
    ulid: Ulid,
    pds: Option<&[u8]>,
    list: &LocatorList,
    signature: Option<&[u8]>,
) -> Result<(), ListFault> {
    let signed = verify(ulid, pds, list, signature, Proof::read)?;
    signed.map_or(Ok(()), |signed| verify_signature(signed, list, signature))
}

/// The same without the signature itself, which costs most: that there is one, and that its key may sign, is looked at.
/// Whether it has to be verified for the list to be good.
pub fn verify_list_but_signature(
    ulid: Ulid,
    pds: Option<&[u8]>,
    list: &LocatorList,
    signature: Option<&[u8]>,
) -> Result<bool, ListFault> {
    verify(ulid, pds, list, signature, Proof::read).map(|signed| signed.is_some())
}

fn verify_signature(
    (index, proof): (usize, Proof<'_>),
    list: &LocatorList,
    signature: Option<&[u8]>,
) -> Result<(), ListFault> {
    proof.signed(list, signature).map_err(|reason| ListFault { index, reason })
}

/// Everything but the signature. Where one has to hold, the first entry it is for, and the parameters.
fn verify<'a>(
    ulid: Ulid,
    pds: Option<&'a [u8]>,
    list: &LocatorList,
    signature: Option<&[u8]>,
    belongs: fn(Ulid, &'a [u8]) -> Result<Proof<'a>, PdsError>,
) -> Result<Option<(usize, Proof<'a>)>, ListFault> {
    let mut proof = None;
    let mut first_signed = None;
    for (index, &(locator, method)) in list.entries.iter().enumerate() {
        let fault = |reason| ListFault { index, reason };
        if is_forbidden(locator.0) {
            return Err(fault(ListError::ForbiddenLocator));
        }
        if let VerificationMethod::Other(_) = method {
            return Err(fault(ListError::UnsupportedMethod));
        }
        if locator.0 == ulid.0 {
            continue;
        }
        let proof = match &proof {
            Some(proof) => proof,
            None => {
                let pds = pds.ok_or(fault(ListError::MissingPds))?;
                &*proof.insert(belongs(ulid, pds).map_err(|_| fault(ListError::ForeignPds))?)
            }
        };
        match method {
            VerificationMethod::Hba => proof.covers(locator).map_err(fault)?,
            VerificationMethod::Cga => {
                proof.may_sign().map_err(fault)?;
                signature.ok_or(fault(ListError::MissingSignature))?;
                first_signed.get_or_insert(index);
            }
            VerificationMethod::Other(_) => return Err(fault(ListError::UnsupportedMethod)),
        }
    }
    Ok(first_signed.zip(proof))
}

/// Parameters known to belong to a ULID.
struct Proof<'a> {
    parameters: Parameters<'a>,
    kind: Kind,
}

impl<'a> Proof<'a> {
    fn check(ulid: Ulid, pds: &'a [u8]) -> Result<Proof<'a>, PdsError> {
        let proof = Proof::read(ulid, pds)?;
        match proof.kind {
            Kind::Cga => cga::verify(ulid.0, &proof.parameters)?,
            Kind::Hybrid | Kind::Hba => hba::verify_member(ulid.0, &proof.parameters)?,
        }
        Ok(proof)
    }

    /// Without the hash: for parameters that were checked before.
    fn read(ulid: Ulid, pds: &'a [u8]) -> Result<Proof<'a>, PdsError> {
        let parameters = Parameters::parse(pds)?;
        let kind = hba::classify(&prefix_of(ulid.0), &parameters)?;
        Ok(Proof { parameters, kind })
    }

    fn covers(&self, locator: Locator) -> Result<(), ListError> {
        match self.kind {
            Kind::Cga => Err(ListError::MethodContradictsPds),
            Kind::Hybrid | Kind::Hba => {
                hba::verify_member(locator.0, &self.parameters).map_err(|_| ListError::NotInSet)
            }
        }
    }

    fn may_sign(&self) -> Result<(), ListError> {
        usable_key(&self.parameters).map(|_| ()).map_err(ListError::from)
    }

    fn signed(&self, list: &LocatorList, signature: Option<&[u8]>) -> Result<(), ListError> {
        let signature = signature.ok_or(ListError::MissingSignature)?;
        let is_signed = |method: VerificationMethod| method == VerificationMethod::Cga;
        let locators: Vec<Locator> =
            list.entries.iter().filter(|entry| is_signed(entry.1)).map(|entry| entry.0).collect();
        Ok(verify_locators(&self.parameters, list.generation, &locators, signature)?)
    }
}

impl From<SignatureError> for ListError {
    fn from(error: SignatureError) -> ListError {
        match error {
            SignatureError::NoKey => ListError::MethodContradictsPds,
            SignatureError::KeyTooShort(_) => ListError::KeyTooShort,
            SignatureError::KeyTooLong(_) => ListError::KeyTooLong,
            SignatureError::Wrong => ListError::BadSignature,
        }
    }
}

/// Addresses no packet may be sent to on somebody's word.
fn is_forbidden(address: Ipv6Addr) -> bool {
    address.is_multicast() || address.is_unspecified() || address.is_loopback() || address.is_unicast_link_local()
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
