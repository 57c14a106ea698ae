//! Files of the operator's that boxes share: hosts, policy, and the site's key, which is sealed.

use openssl::base64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Octets of the key that seals.
pub const SEAL_OCTETS: usize = 32;
/// Octets of a random number that is used for one seal.
pub const NONCE_OCTETS: usize = NONCE_LEN;
/// Longest text in octets, as JSON has it (each quotation mark is two): `etcd` takes a request of 1.5 MiB.
pub const TEXT_MAX: usize = 1_300_000;

/// Whether a text is short enough to be shared.
pub fn may_be_shared(text: &str) -> bool {
    text.len() <= TEXT_MAX && crate::store::json(text).len() <= TEXT_MAX
}

/// A file as the store has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// `hosts`, `policy` or `key`.
    pub name: String,
    /// Goes up by one with each change.
    pub version: u64,
    /// The box that wrote it.
    pub by: String,
    /// What it says, sealed if it is the key; nothing if there is no such file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Closes what the store shall not be able to read, and opens it again: AES-256-GCM with a key that stays on the boxes.
pub struct Seal(LessSafeKey);

impl Seal {
    /// With a key; none if it has not [`SEAL_OCTETS`].
    pub fn new(key: &[u8]) -> Option<Seal> {
        UnboundKey::new(&AES_256_GCM, key).ok().map(|key| Seal(LessSafeKey::new(key)))
    }

    /// Closes `text`, which will be found under `name` only. `nonce` is random and used once.
    pub fn close(&self, name: &str, text: &str, nonce: [u8; NONCE_OCTETS]) -> Option<String> {
        let mut octets = text.as_bytes().to_vec();
        let bound = Aad::from(name.as_bytes());
        self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut octets).ok()?;
        Some(base64::encode_block(&[&nonce[..], &octets].concat()))
    }

    /// What was closed under `name` with the same key; nothing if it was not, or somebody has changed it.
    pub fn open(&self, name: &str, sealed: &str) -> Option<String> {
        let octets = base64::decode_block(sealed).ok()?;
        let (nonce, rest) = octets.split_first_chunk::<NONCE_OCTETS>()?;
        let mut rest = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.0.open_in_place(nonce, Aad::from(name.as_bytes()), &mut rest).ok()?;
        String::from_utf8(plain.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_by_the_same_key_under_the_same_name_and_by_nothing_else() {
        assert!(Seal::new(&[1; 31]).is_none());
        let seal = Seal::new(&[1; SEAL_OCTETS]).unwrap();
        let text = "-----BEGIN PRIVATE KEY-----";
        let closed = seal.close("key", text, [9; NONCE_OCTETS]).unwrap();
        assert!(!closed.contains("BEGIN"));
        assert_eq!(seal.open("key", &closed).as_deref(), Some(text));
        assert_eq!(seal.open("policy", &closed), None);
        assert_eq!(Seal::new(&[2; SEAL_OCTETS]).unwrap().open("key", &closed), None);
        let octets = base64::decode_block(&closed).unwrap();
        for at in 0..octets.len() {
            let mut other = octets.clone();
            other[at] ^= 1;
            assert_eq!(seal.open("key", &base64::encode_block(&other)), None, "octet {at}");
            assert_eq!(seal.open("key", &base64::encode_block(&octets[..at])), None, "{at} octets");
        }
        assert_ne!(seal.close("key", text, [8; NONCE_OCTETS]).unwrap(), closed);
    }
}
