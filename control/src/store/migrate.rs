//! From one version of the format to the next.

use redb::WriteTransaction;

/// Brings a file from its version to the next one; all steps and the new version are one transaction.
pub(super) type Step = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// The first is from version 1 to 2. There has been one version only; whoever changes a row's fields adds a step here, and
/// with it the version goes up.
pub(super) const STEPS: &[Step] = &[];
