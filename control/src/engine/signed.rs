//! What the site's key has signed: who decides the same again without the key needs it.

use dataplane::wire::Locator;
use dataplane::wire::shim6::VerificationMethod;

use super::Engine;
use crate::identity::SigningKey;
use crate::shim6::LocalHost;

/// A signature over a list of locators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The public half of the key.
    pub key: Vec<u8>,
    /// The list's generation.
    pub generation: u32,
    /// Its locators of method CGA.
    pub locators: Vec<Locator>,
    /// The signature.
    pub octets: Vec<u8>,
}

impl Engine {
    /// From now on [`Engine::next_signatures`] tells what is signed; first, what has been.
    pub fn note_signatures(&mut self) {
        let Some(key) = self.key.clone() else {
            self.signed = Some(Vec::new());
            return;
        };
        let of = |host: &LocalHost| {
            let by_key = host.locators.iter().filter(|(_, method)| *method == VerificationMethod::Cga);
            let (key, octets) = (key.public_key_der().to_vec(), host.signature.clone()?);
            let locators = by_key.map(|(locator, _)| *locator).collect();
            Some(Signed { key, generation: host.generation, locators, octets })
        };
        let hosts = self.served.keys().filter_map(|ulid| self.endpoint.host(*ulid));
        self.signed = Some(hosts.filter_map(of).collect());
    }

    /// What was signed since this was last asked.
    pub fn next_signatures(&mut self) -> Vec<Signed> {
        self.signed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Nobody wants to know any more.
    pub fn forget_signatures(&mut self) {
        self.signed = None;
    }

    pub(super) fn note_signed(&mut self, key: &SigningKey, generation: u32, locators: &[Locator], octets: &[u8]) {
        if let Some(signed) = &mut self.signed {
            let (key, locators, octets) = (key.public_key_der().to_vec(), locators.to_vec(), octets.to_vec());
            signed.push(Signed { key, generation, locators, octets });
        }
    }
}
