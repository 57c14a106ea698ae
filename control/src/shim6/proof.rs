//! Who owns a locator: the door to HBA and CGA (RFC 5533 §7.2).

use dataplane::wire::Ulid;
use dataplane::wire::shim6::LocatorList;

use crate::identity;

/// Judges what peers claim about their locators. A trait, so that verdicts can be cached, and so that tests can do
/// without keys.
pub trait LocatorProof: Send {
    /// Whether the CGA parameters `pds` belong to `ulid` (RFC 3972 §5, RFC 5535 §6).
    fn owns(&mut self, ulid: Ulid, pds: &[u8]) -> bool;

    /// Whether every locator in `list` is proved to belong to `ulid` by the method given for it; otherwise the index
    /// of the first that is not. HBA hashes are checked before the signature, which costs most (D30).
    fn proves(
        &mut self,
        ulid: Ulid,
        pds: Option<&[u8]>,
        list: &LocatorList,
        signature: Option<&[u8]>,
    ) -> Result<(), usize>;
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
        identity::verify_list(ulid, pds, list, signature).map_err(|fault| fault.index)
    }
}
