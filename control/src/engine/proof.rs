//! What peers say about their locators, checked by the identity functions.

use dataplane::wire::Ulid;
use dataplane::wire::shim6::LocatorList;

use crate::identity;
use crate::shim6::LocatorProof;

/// CGA and HBA as RFC 3972 and RFC 5535 have them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IdentityProof;

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
