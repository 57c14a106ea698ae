//! Signatures over locators (RFC 5533 §5.15.5, RFC 3972 §6).
//!
//! RSASSA-PKCS1-v1_5 with SHA-1 over
//!
//! ```text
//! 128-bit type tag | 32-bit locator list generation | locators of method CGA, in list order
//! ```
//!
//! SHA-1 and this padding are what the RFCs ask for; they are used nowhere else. A signature says nothing of the
//! context it was sent in, so an old one can be replayed; a locator still has to answer a probe before anything is
//! sent to it (reading A-C6).

use std::collections::BTreeMap;

use dataplane::wire::Locator;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use ring::signature::{RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, RsaPublicKeyComponents};

use super::der::PublicKey;
use super::parameters::Parameters;

/// Says that a signature is one of Shim6 (RFC 5533 §5.15.5; R3972-041).
pub const TYPE_TAG: u128 = 0x4a30_5662_4858_574b_3655_416f_506a_6d48;

/// Shortest key signatures are made with or accepted from (R5533-134, R5535-041).
pub const BITS_MIN: u32 = 1024;

/// Longest one: what `ring` verifies. Longer ones would only give attackers a way to keep us busy.
pub const BITS_MAX: u32 = 8192;

/// Why a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The parameters hold a nonce where the key would be (R5535-040).
    #[error("the parameters hold no key")]
    NoKey,
    /// The key has less than 1024 bits.
    #[error("the key has {0} bits, too few for signatures")]
    KeyTooShort(usize),
    /// The key has more than 8192 bits.
    #[error("the key has {0} bits, too many for signatures")]
    KeyTooLong(usize),
    /// The key did not sign this.
    #[error("the signature is wrong")]
    Wrong,
}

/// Checks the signature of a list with this generation over its `locators` of method CGA, in list order.
///
/// `parameters` must have been found to belong to the ULID before; otherwise the signature proves nothing (R3972-025,
/// R3972-035). [`verify_list`](super::verify_list) does both.
pub fn verify_locators(
    parameters: &Parameters<'_>,
    generation: u32,
    locators: &[Locator],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let key = usable_key(parameters)?;
    RsaPublicKeyComponents { n: key.modulus(), e: key.exponent() }
        .verify(&RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, &signed_octets(generation, locators), signature)
        .map_err(|_| SignatureError::Wrong)
}

/// The key of `parameters` if signatures by it count. Costs nothing, so it can be asked before anything is computed.
pub(super) fn usable_key<'a>(parameters: &Parameters<'a>) -> Result<PublicKey<'a>, SignatureError> {
    if parameters.set().is_some_and(|set| !set.has_key()) {
        return Err(SignatureError::NoKey);
    }
    let key = parameters.key();
    match key.bits() {
        bits if bits < BITS_MIN as usize => Err(SignatureError::KeyTooShort(bits)),
        bits if bits > BITS_MAX as usize => Err(SignatureError::KeyTooLong(bits)),
        _ => Ok(key),
    }
}

/// What is signed.
fn signed_octets(generation: u32, locators: &[Locator]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(16 + 4 + 16 * locators.len());
    octets.extend_from_slice(&TYPE_TAG.to_be_bytes());
    octets.extend_from_slice(&generation.to_be_bytes());
    for locator in locators {
        octets.extend_from_slice(&locator.0.octets());
    }
    octets
}

/// Why a key cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Outside 1024 to 8192 bits.
    #[error("RSA keys have 1024 to 8192 bits here, not {0}")]
    Bits(u32),
    /// Not an RSA key, or one whose public half we cannot encode.
    #[error("the key is not an RSA key")]
    NotRsa,
    /// There is only what was recorded of the key.
    #[error("the private key is not here, and it did not sign this when it was recorded")]
    Recorded,
    /// The library failed, or the text is no private key in PEM.
    #[error("the cryptographic library refused")]
    Library(#[from] openssl::error::ErrorStack),
}

/// An RSA key pair that signs locators, and does nothing else (R3972-042, R3972-043).
pub struct SigningKey {
    pair: Pair,
    public: Vec<u8>,
}

enum Pair {
    Whole(PKey<Private>),
    /// What it has signed, by what was signed. This way of signing gives the same signature each time.
    Recorded(BTreeMap<Vec<u8>, Vec<u8>>),
}

impl SigningKey {
    /// Length of keys in bits unless asked otherwise (R5533-135).
    pub const BITS_DEFAULT: u32 = 2048;

    /// A fresh key of `bits` bits with exponent 65537.
    ///
    /// The randomness is the library's own: there is no way to hand it ours, and a key is nothing a simulation needs
    /// to repeat. Takes from some milliseconds (1024 bits) to many seconds (8192 bits).
    pub fn generate(bits: u32) -> Result<SigningKey, KeyError> {
        if !(BITS_MIN..=BITS_MAX).contains(&bits) {
            return Err(KeyError::Bits(bits));
        }
        SigningKey::new(PKey::from_rsa(Rsa::generate(bits)?)?)
    }

    /// Reads an unencrypted private key in PEM, PKCS#8 or PKCS#1.
    pub fn from_pem(pem: &[u8]) -> Result<SigningKey, KeyError> {
        // The callback stands in for a password prompt, which would block the program.
        SigningKey::new(PKey::private_key_from_pem_callback(pem, |_| Ok(0))?)
    }

    /// The private key as unencrypted PKCS#8 PEM. Keep it as you would the key itself.
    pub fn to_pem(&self) -> Result<Vec<u8>, KeyError> {
        match &self.pair {
            Pair::Whole(pair) => Ok(pair.private_key_to_pem_pkcs8()?),
            Pair::Recorded(_) => Err(KeyError::Recorded),
        }
    }

    /// Stands in for a key of which there is only the public half: it signs what the key has signed, a list's generation, its
    /// locators and the signature, and nothing else.
    pub fn recorded<'a>(
        public: Vec<u8>,
        signed: impl IntoIterator<Item = (u32, Vec<Locator>, &'a [u8])>,
    ) -> Result<SigningKey, KeyError> {
        match PublicKey::parse(&public) {
            Ok(key) if key.der().len() == public.len() => {}
            _ => return Err(KeyError::NotRsa),
        }
        let of = |(generation, locators, octets): (u32, Vec<Locator>, &[u8])| {
            (signed_octets(generation, &locators), octets.to_vec())
        };
        Ok(SigningKey { pair: Pair::Recorded(signed.into_iter().map(of).collect()), public })
    }

    fn new(pair: PKey<Private>) -> Result<SigningKey, KeyError> {
        let public = pair.public_key_to_der()?;
        let bits = match PublicKey::parse(&public) {
            Ok(key) if key.der().len() == public.len() => key.bits(),
            _ => return Err(KeyError::NotRsa),
        };
        match u32::try_from(bits) {
            Ok(BITS_MIN..=BITS_MAX) => Ok(SigningKey { pair: Pair::Whole(pair), public }),
            _ => Err(KeyError::Bits(u32::try_from(bits).unwrap_or(u32::MAX))),
        }
    }

    /// DER SubjectPublicKeyInfo of the public half: what goes into the parameters of addresses.
    pub fn public_key_der(&self) -> &[u8] {
        &self.public
    }

    /// Signs a list with this generation over its `locators` of method CGA, in list order.
    pub fn sign_locators(&self, generation: u32, locators: &[Locator]) -> Result<Vec<u8>, KeyError> {
        let octets = signed_octets(generation, locators);
        match &self.pair {
            Pair::Whole(pair) => Ok(Signer::new(MessageDigest::sha1(), pair)?.sign_oneshot_to_vec(&octets)?),
            Pair::Recorded(signed) => signed.get(&octets).cloned().ok_or(KeyError::Recorded),
        }
    }
}

impl std::fmt::Debug for SigningKey {
    /// Shows the length alone: what is secret must not end in a log. A key and what stands in for it look alike, for a replay
    /// compares looks.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = PublicKey::parse(&self.public).map_or(0, |key| key.bits());
        write!(out, "SigningKey({bits} bits)")
    }
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
