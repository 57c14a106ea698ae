//! What becomes of a lease that two boxes changed without knowing of each other.
//!
//! Nothing of what was told to a client is taken back unless somebody else was told something that excludes it:
//!
//! - A lease of the same identifier: the one that ends later stands, so an extension wins over a release and over an end.
//! - Two identifiers for one client: the one that was written first stands, unless its client gave it back since.
//! - Somebody forgot the client and somebody else has it as one with a lease: it is not forgotten. Only who heard from the
//!   client itself that its address is somebody else's (Decline) is right against an extension.

use std::net::Ipv6Addr;

use crate::dhcp::{Lease, State};

/// Whose stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Ours.
    Ours,
    /// Theirs, and ours is as good as written: it says no more.
    Theirs,
    /// Theirs, and ours is not true.
    Refused,
}

/// `declined` are identifiers that their clients found to be somebody else's.
pub(super) fn merge(theirs: Option<&Lease>, ours: Option<&Lease>, declined: &[Ipv6Addr]) -> Outcome {
    match (theirs, ours) {
        (None, Some(_)) => Outcome::Ours,
        (None, None) => Outcome::Theirs,
        (Some(theirs), None) if declined.contains(&theirs.identity.ulid) => Outcome::Ours,
        (Some(_), None) => Outcome::Theirs,
        (Some(theirs), Some(ours)) if theirs.identity.ulid == ours.identity.ulid => {
            match rank(ours) > rank(theirs) || ours == theirs {
                true => Outcome::Ours,
                false => Outcome::Theirs,
            }
        }
        // One whose client gave it back makes way, and so does one of a link that is ours no more.
        (Some(theirs), Some(ours)) => {
            let gone = theirs.state == State::Former && ours.state == State::Bound;
            match gone || link_of(theirs) != link_of(ours) {
                true => Outcome::Ours,
                false => Outcome::Refused,
            }
        }
    }
}

fn rank(lease: &Lease) -> (u64, bool) {
    (lease.until, lease.state == State::Bound)
}

fn link_of(lease: &Lease) -> u64 {
    (lease.identity.ulid.to_bits() >> 64) as u64
}
