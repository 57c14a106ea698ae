//! Just enough DER to find where an RSA public key ends and what it says (RFC 3972 §3, RFC 3279 §2.3.1).
//!
//! The parser reads one shape and refuses everything else:
//!
//! ```text
//! SubjectPublicKeyInfo ::= SEQUENCE {
//!     algorithm         SEQUENCE { OBJECT IDENTIFIER rsaEncryption, NULL },
//!     subjectPublicKey  BIT STRING (no unused bits) containing
//!         RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER } }
//! ```
//!
//! Structure is strict: definite lengths in their shortest form, every element filling its parent. The two integers
//! are read as plain unsigned numbers, whatever their leading octets, because an HBA-only "key" is random octets in
//! RSA clothing and only its hash counts (R5535-045). No length an attacker writes is ever added to an offset: a
//! length is only used to split what is really there.

/// DER encoding of `SEQUENCE { rsaEncryption, NULL }` without the outer header.
const RSA_ENCRYPTION: [u8; 13] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// Why octets are not the SubjectPublicKeyInfo of an RSA key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DerError {
    /// An element says it is longer than what holds it.
    #[error("an element runs past the end of what holds it")]
    Truncated,
    /// Another element was expected.
    #[error("expected an element with tag {expected:#04x}, found {found:#04x}")]
    Tag {
        /// What the structure asks for.
        expected: u8,
        /// What was there.
        found: u8,
    },
    /// Indefinite, longer than four octets or not in its shortest form.
    #[error("a length is not in its shortest definite form")]
    Length,
    /// Octets are left over inside an element.
    #[error("an element holds more than it should")]
    Excess,
    /// The algorithm is not rsaEncryption with NULL parameters.
    #[error("the key is not an rsaEncryption key")]
    Algorithm,
    /// A bit string with unused bits, or an integer without octets.
    #[error("an element has no usable value")]
    Value,
}

/// An RSA public key as found at the start of some octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey<'a> {
    der: &'a [u8],
    modulus: &'a [u8],
    exponent: &'a [u8],
}

impl<'a> PublicKey<'a> {
    /// Reads the key `octets` begin with. What follows the key is not looked at.
    pub fn parse(octets: &'a [u8]) -> Result<PublicKey<'a>, DerError> {
        let mut outer = Reader(octets);
        let mut info = outer.element(SEQUENCE)?;
        let der = octets.get(..octets.len() - outer.0.len()).ok_or(DerError::Truncated)?;
        if info.element(SEQUENCE)?.0 != RSA_ENCRYPTION {
            return Err(DerError::Algorithm);
        }
        let mut key = Reader(match info.element(BIT_STRING)?.0 {
            [0, bits @ ..] => bits,
            _ => return Err(DerError::Value),
        });
        info.end()?;
        let mut pair = key.element(SEQUENCE)?;
        key.end()?;
        let modulus = pair.unsigned()?;
        let exponent = pair.unsigned()?;
        pair.end()?;
        Ok(PublicKey { der, modulus, exponent })
    }

    /// The octets of the whole SubjectPublicKeyInfo, as they came.
    pub fn der(&self) -> &'a [u8] {
        self.der
    }

    /// Big-endian, without leading zeros; empty for zero.
    pub fn modulus(&self) -> &'a [u8] {
        self.modulus
    }

    /// Big-endian, without leading zeros; empty for zero.
    pub fn exponent(&self) -> &'a [u8] {
        self.exponent
    }

    /// Length of the modulus in bits.
    pub fn bits(&self) -> usize {
        match self.modulus {
            [] => 0,
            [first, rest @ ..] => rest.len() * 8 + (8 - first.leading_zeros() as usize),
        }
    }
}

/// What is left of the contents of an element.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Takes the next element, which must have this tag, and returns its contents.
    fn element(&mut self, expected: u8) -> Result<Reader<'a>, DerError> {
        let [found, rest @ ..] = self.0 else { return Err(DerError::Truncated) };
        if *found != expected {
            return Err(DerError::Tag { expected, found: *found });
        }
        let (length, rest) = length(rest)?;
        let (contents, rest) = rest.split_at_checked(length).ok_or(DerError::Truncated)?;
        self.0 = rest;
        Ok(Reader(contents))
    }

    /// Takes the next element, an INTEGER, as an unsigned number without leading zeros.
    fn unsigned(&mut self) -> Result<&'a [u8], DerError> {
        let mut value = self.element(INTEGER)?.0;
        if value.is_empty() {
            return Err(DerError::Value);
        }
        while let [0, rest @ ..] = value {
            value = rest;
        }
        Ok(value)
    }

    fn end(self) -> Result<(), DerError> {
        if self.0.is_empty() { Ok(()) } else { Err(DerError::Excess) }
    }
}

/// Takes a length from the front of `octets`.
fn length(octets: &[u8]) -> Result<(usize, &[u8]), DerError> {
    let [first, rest @ ..] = octets else { return Err(DerError::Truncated) };
    if *first < 0x80 {
        return Ok((usize::from(*first), rest));
    }
    // 0x80 is BER's indefinite form. More than four octets of length cannot fit in any message.
    let count = usize::from(*first & 0x7f);
    if !(1..=4).contains(&count) {
        return Err(DerError::Length);
    }
    let (digits, rest) = rest.split_at_checked(count).ok_or(DerError::Truncated)?;
    let value = digits.iter().fold(0u32, |value, digit| value << 8 | u32::from(*digit));
    if value < 0x80 || digits.first() == Some(&0) {
        return Err(DerError::Length);
    }
    Ok((usize::try_from(value).map_err(|_| DerError::Truncated)?, rest))
}

/// Dresses up `nonce` as the modulus of an RSA key with exponent 65537 (RFC 5535 §6, steps 2.2 and 2.3).
///
/// The top bit of the nonce is set so that the modulus has 384 bits whatever the nonce (reading A-H1); 383 bits of
/// randomness remain.
pub fn encode_nonce(mut nonce: [u8; 48]) -> Vec<u8> {
    nonce[0] |= 0x80;
    let mut der = Vec::with_capacity(NONCE_HEAD.len() + nonce.len() + NONCE_FOOT.len());
    der.extend_from_slice(&NONCE_HEAD);
    der.extend_from_slice(&nonce);
    der.extend_from_slice(&NONCE_FOOT);
    der
}

/// What stands before the 48 octets of a 384-bit modulus whose top bit is set; lengths fixed for exponent 65537.
const NONCE_HEAD: [u8; 25] = [
    SEQUENCE, 0x4c, SEQUENCE, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    BIT_STRING, 0x3b, 0x00, SEQUENCE, 0x38, INTEGER, 0x31, 0x00,
];

/// What stands after it: the exponent 65537.
const NONCE_FOOT: [u8; 5] = [INTEGER, 0x03, 0x01, 0x00, 0x01];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{NONCE_KEY, RFC3972_KEY, octets, rsa_der};

    #[test]
    fn the_key_of_rfc_3972_is_read() {
        let der = octets(RFC3972_KEY);
        let key = PublicKey::parse(&der).unwrap();
        assert_eq!((key.der().len(), key.bits(), key.exponent()), (94, 512, &[1, 0, 1][..]));
        assert_eq!(key.modulus()[..4], [0xc2, 0xc2, 0xf1, 0x37]);
    }

    #[test]
    fn what_follows_the_key_is_left_alone() {
        // R3972-026
        let mut long = octets(RFC3972_KEY);
        long.extend_from_slice(&[0xff; 7]);
        assert_eq!(PublicKey::parse(&long).unwrap().der(), octets(RFC3972_KEY));
    }

    #[test]
    fn a_nonce_looks_like_a_384_bit_key_to_us_and_to_openssl() {
        // R5535-009 to R5535-013
        for nonce in [[0u8; 48], [0xff; 48]] {
            let der = encode_nonce(nonce);
            let key = PublicKey::parse(&der).unwrap();
            assert_eq!((der.len(), key.der().len(), key.bits(), key.exponent()), (78, 78, 384, &[1, 0, 1][..]));
            let theirs = openssl::rsa::Rsa::public_key_from_der(&der).unwrap();
            assert_eq!(theirs.n().num_bits(), 384);
        }
        assert_eq!(PublicKey::parse(&octets(NONCE_KEY)).unwrap().bits(), 384);
    }

    #[test]
    fn only_the_one_shape_is_a_key() {
        // R3972-005, R3972-007, R3972-008
        let good = octets(RFC3972_KEY);
        let changed = |at: usize, to: u8| {
            let mut der = good.clone();
            der[at] = to;
            PublicKey::parse(&der).map(|key| key.bits())
        };
        let cases = [
            ("not a sequence", changed(0, 0x31), DerError::Tag { expected: 0x30, found: 0x31 }),
            ("indefinite length", changed(1, 0x80), DerError::Length),
            ("127 octets of length", changed(1, 0xff), DerError::Length),
            ("longer than its parent", changed(1, 0x5d), DerError::Truncated),
            ("algorithm longer than the key", changed(3, 0x5b), DerError::Truncated),
            ("algorithm too short", changed(3, 0x0c), DerError::Algorithm),
            ("RSASSA-PSS instead of rsaEncryption", changed(14, 0x0a), DerError::Algorithm),
            ("parameters that are not NULL", changed(15, 0x04), DerError::Algorithm),
            ("octet string for bit string", changed(17, 0x04), DerError::Tag { expected: 0x03, found: 0x04 }),
            ("unused bits", changed(19, 0x01), DerError::Value),
            ("key shorter than its bit string", changed(21, 0x47), DerError::Excess),
            ("modulus past the end", changed(23, 0x7f), DerError::Truncated),
            ("exponent without octets", changed(90, 0x00), DerError::Value),
            ("octets behind the exponent", changed(90, 0x02), DerError::Excess),
            ("exponent past the end", changed(90, 0x04), DerError::Truncated),
        ];
        for (what, result, expected) in cases {
            assert_eq!(result, Err(expected), "{what}");
        }
        // 48 octets without any clothing, as LinShim6 sends them.
        assert!(PublicKey::parse(&[0x9c; 48]).is_err());
        assert_eq!(PublicKey::parse(&[]), Err(DerError::Truncated));
    }

    #[test]
    fn empty_integers_are_refused() {
        assert_eq!(PublicKey::parse(&rsa_der(&[])), Err(DerError::Value));
    }

    #[test]
    fn hostile_lengths_are_refused() {
        // interop.md: a four-octet length crashed an earlier implementation.
        let cases: [(&[u8], DerError); 8] = [
            (&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], DerError::Truncated),
            (&[0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x30], DerError::Truncated),
            (&[0x30, 0x84, 0x00, 0x00, 0x00, 0x5c], DerError::Length),
            (&[0x30, 0x84, 0x01], DerError::Truncated),
            (&[0x30, 0x85, 0x01, 0x00, 0x00, 0x00, 0x00], DerError::Length),
            (&[0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], DerError::Length),
            (&[0x30, 0x81, 0x5c], DerError::Length),
            (&[0x30], DerError::Truncated),
        ];
        for (der, expected) in cases {
            assert_eq!(PublicKey::parse(der), Err(expected), "{der:02x?}");
        }
        // The same inside: the algorithm claims 4 GiB.
        assert_eq!(PublicKey::parse(&octets("30083084ffffffff0000")), Err(DerError::Truncated));
    }

    #[test]
    fn every_truncation_is_refused() {
        for length in 0..94 {
            assert_eq!(PublicKey::parse(&octets(RFC3972_KEY)[..length]), Err(DerError::Truncated));
        }
    }

    #[test]
    fn lengths_of_long_keys_are_read() {
        // R3972-031
        for bits in [1024, 2048, 4096, 8192] {
            let mut modulus = vec![0xff; bits / 8];
            modulus[0] = 0x80;
            let der = rsa_der(&modulus);
            assert_eq!(PublicKey::parse(&der).unwrap().bits(), bits);
        }
    }

    #[test]
    fn integers_count_by_value_not_by_encoding() {
        // R5535-045: superfluous zeros and a "negative" modulus are tolerated.
        assert_eq!(PublicKey::parse(&rsa_der(&[0, 0, 0, 1, 0xff])).unwrap().bits(), 9);
        assert_eq!(PublicKey::parse(&rsa_der(&[0x80])).unwrap().bits(), 8);
        assert_eq!(PublicKey::parse(&rsa_der(&[0])).unwrap().bits(), 0);
    }
}
