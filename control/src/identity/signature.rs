//! Signatures over locators (RFC 5533 §5.15.5, RFC 3972 §6).

use dataplane::wire::Locator;

/// An RSA key pair that signs locators.
pub struct SigningKey(());

/// Why a key cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Outside 1024 to 8192 bits.
    #[error("RSA keys have 1024 to 8192 bits here, not {0}")]
    Bits(u32),
}

impl SigningKey {
    /// Length of keys unless asked otherwise (R5533-135).
    pub const BITS_DEFAULT: u32 = 2048;

    /// A fresh key of `bits` bits.
    pub fn generate(bits: u32) -> Result<SigningKey, KeyError> {
        let _ = bits;
        todo!()
    }

    /// Reads an unencrypted private key in PEM.
    pub fn from_pem(pem: &[u8]) -> Result<SigningKey, KeyError> {
        let _ = pem;
        todo!()
    }

    /// The private key as unencrypted PKCS#8 PEM.
    pub fn to_pem(&self) -> Result<Vec<u8>, KeyError> {
        todo!()
    }

    /// DER SubjectPublicKeyInfo of the public half.
    pub fn public_key_der(&self) -> &[u8] {
        todo!()
    }

    /// Signs the locators of method CGA of the list with this generation, in list order.
    pub fn sign_locators(&self, generation: u32, locators: &[Locator]) -> Result<Vec<u8>, KeyError> {
        let _ = (generation, locators);
        todo!()
    }
}
