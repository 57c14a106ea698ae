//! Identities for clients that have none yet, made beforehand and by somebody else's thread.

use std::net::Ipv6Addr;
use std::ops::ControlFlow;
use std::sync::Arc;

use dataplane::wire::Ulid;
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::dhcp::Identity;
use crate::identity::{HostPrefixes, Kind, Parameters, Sec, SigningKey, make_host_with, verify_ulid};

/// An identity to be made.
#[derive(Clone, Debug)]
pub struct IdentityJob {
    pub(super) generation: u64,
    pub(super) prefixes: HostPrefixes,
    pub(super) sec: Sec,
    pub(super) key: Option<Arc<SigningKey>>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeIdentity {
    pub(super) generation: u64,
    /// Nothing if none could be made.
    pub identity: Option<Identity>,
}

impl MadeIdentity {
    /// That it cannot be used, whatever it is.
    pub fn spoilt(self) -> MadeIdentity {
        MadeIdentity { identity: None, ..self }
    }
}

impl IdentityJob {
    /// Makes it. `go_on` is asked now and then; with Sec 2 that takes long.
    pub fn run(&self, rng: &mut dyn Rng, go_on: &dyn Fn() -> bool) -> MadeIdentity {
        let progress = &mut |_| if go_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        let key = self.key.as_ref().map(|key| key.public_key_der());
        // Whether somebody has one of the addresses is looked at by the server when it gets them.
        let made = make_host_with(&self.prefixes, self.sec, key, rng, &mut |_| false, progress);
        let identity = made.ok().map(|made| Identity {
            ulid: made.ulid.0,
            locators: made.locators.iter().map(|locator| locator.0).collect(),
            pds: made.pds,
        });
        MadeIdentity { generation: self.generation, identity }
    }
}

impl IdentityJob {
    pub(super) fn makes_the_same(&self, other: &IdentityJob) -> bool {
        let key = |job: &IdentityJob| job.key.as_ref().map(|key| key.public_key_der().to_vec());
        (&self.prefixes, self.sec, key(self)) == (&other.prefixes, other.sec, key(other))
    }

    /// Whether it could have made this one: with the same prefixes, key and Sec.
    pub(super) fn would_make(&self, identity: &Identity) -> bool {
        let prefix = |address: &Ipv6Addr| (address.to_bits() >> 64) as u64;
        let wanted = |prefix: &[u8; 8]| u64::from_be_bytes(*prefix);
        let prefixes = prefix(&identity.ulid) == wanted(&self.prefixes.ulid)
            && identity.locators.iter().map(prefix).eq(self.prefixes.locators.iter().map(wanted));
        let key = match (verify_ulid(Ulid(identity.ulid), &identity.pds), &self.key) {
            (Ok(Kind::Hybrid), Some(key)) => {
                Parameters::parse(&identity.pds).is_ok_and(|it| it.key().der() == key.public_key_der())
            }
            (Ok(kind), None) => kind != Kind::Hybrid,
            _ => false,
        };
        // RFC 3972 §3: Sec is in the first three bits of the interface identifier.
        let sec = (identity.ulid.to_bits() as u64 >> 61) as u8;
        prefixes && key && sec == self.sec.value()
    }
}
