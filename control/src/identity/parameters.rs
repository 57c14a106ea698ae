//! The CGA Parameters data structure (RFC 3972 §3), "PDS" for short.
//!
//! [`Parameters`] is a view whose constructor has found every field, so its accessors are total; [`ParametersRepr`]
//! owns the fields and writes them out. What came from a peer is hashed as it came and never encoded again
//! (R5535-045), so hashing works on the view only.

use super::der::{DerError, PublicKey};
use super::extension::{Extensions, MULTI_PREFIX, MultiPrefix};
use super::{Prefix, prefix_of};

/// Octets before the public key (R3972-026).
pub const PUBLIC_KEY_OFFSET: usize = 25;

/// Why a parameter data structure does not prove an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PdsError {
    /// Shorter than its fixed part.
    #[error("the parameter data structure is truncated")]
    Truncated,
    /// The public key is not the SubjectPublicKeyInfo of an RSA key.
    #[error("the public key is malformed")]
    Key(#[source] DerError),
    /// The Multi-Prefix extension does not consist of four octets and whole prefixes.
    #[error("a Multi-Prefix extension cannot have {0} octets of data")]
    SetLength(usize),
    /// The Multi-Prefix extension has no prefix or more than sixteen.
    #[error("a Multi-Prefix extension lists 1 to 16 prefixes, not {0}")]
    SetSize(usize),
    /// Two Multi-Prefix extensions: it is unclear which one counts.
    #[error("there is more than one Multi-Prefix extension")]
    TwoSets,
    /// There is no usable Multi-Prefix extension, so there is no set to be in.
    #[error("there is no Multi-Prefix extension")]
    NoSet,
    /// The prefix of the address is not in the Multi-Prefix extension.
    #[error("the prefix of the address is not in the set")]
    PrefixNotInSet,
    /// The collision count is above two.
    #[error("the collision count is {0}, more than 2")]
    CollisionCount(u8),
    /// The address has another prefix than the parameters.
    #[error("the address has another prefix than its parameters")]
    Prefix,
    /// The security parameter of the address has no defined meaning.
    #[error("security parameter {0} is not supported")]
    Sec(u8),
    /// The interface identifier is not the first hash of the parameters.
    #[error("the interface identifier does not match the parameters")]
    Hash1,
    /// The second hash does not begin with the zeros the address promises.
    #[error("the modifier does not have the strength the address promises")]
    Hash2,
}

/// A parameter data structure whose fields have been found.
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// +                      Modifier (16 octets)                     +
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// +                    Subnet Prefix (8 octets)                   +
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |Collision Count|                                               |
/// +-+-+-+-+-+-+-+-+                                               |
/// ~                  Public Key (variable length)                 ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~           Extension Fields (optional, variable length)        ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters<'a> {
    modifier: u128,
    prefix: Prefix,
    collision_count: u8,
    /// Everything from octet 25 on: the part that two addresses of one set have in common in every byte.
    tail: &'a [u8],
    key: PublicKey<'a>,
    extensions: &'a [u8],
    set: Option<MultiPrefix<'a>>,
}

impl<'a> Parameters<'a> {
    /// Finds the fields of `octets`, which are the whole structure. Any octets may be passed.
    ///
    /// A trailer that is not made of extension fields is hashed like everything else, but then no extension is
    /// believed in (R4581-004). The collision count is left to verification, whose first step it is.
    pub fn parse(octets: &'a [u8]) -> Result<Parameters<'a>, PdsError> {
        let (modifier, rest) = octets.split_first_chunk().ok_or(PdsError::Truncated)?;
        let (prefix, rest) = rest.split_first_chunk().ok_or(PdsError::Truncated)?;
        let (collision_count, tail) = rest.split_first().ok_or(PdsError::Truncated)?;
        let key = PublicKey::parse(tail).map_err(PdsError::Key)?;
        let extensions = tail.get(key.der().len()..).unwrap_or_default();
        Ok(Parameters {
            modifier: u128::from_be_bytes(*modifier),
            prefix: *prefix,
            collision_count: *collision_count,
            tail,
            key,
            extensions,
            set: find_set(extensions)?,
        })
    }

    /// What makes addresses unlinkable, and carries the work of the hash extension.
    pub fn modifier(&self) -> u128 {
        self.modifier
    }

    /// Leftmost 64 bits of the address these parameters were sent for.
    pub fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// How many collisions the address had to evade; valid are 0, 1 and 2.
    pub fn collision_count(&self) -> u8 {
        self.collision_count
    }

    /// The public key, or what looks like one.
    pub fn key(&self) -> PublicKey<'a> {
        self.key
    }

    /// The extension fields, recognised or not.
    pub fn extensions(&self) -> Extensions<'a> {
        Extensions(self.extensions)
    }

    /// The set of prefixes, if there is one.
    pub fn set(&self) -> Option<MultiPrefix<'a>> {
        self.set
    }

    /// Public key and extension fields as they came.
    pub(super) fn tail(&self) -> &'a [u8] {
        self.tail
    }

    /// An owned copy.
    pub fn to_repr(&self) -> ParametersRepr {
        ParametersRepr {
            modifier: self.modifier,
            prefix: self.prefix,
            collision_count: self.collision_count,
            public_key: self.key.der().to_vec(),
            extensions: self.extensions.to_vec(),
        }
    }
}

/// The one Multi-Prefix extension; none if the fields are malformed anywhere (R4581-004, R5535-044).
fn find_set(extensions: &[u8]) -> Result<Option<MultiPrefix<'_>>, PdsError> {
    if Extensions(extensions).any(|field| field.is_err()) {
        return Ok(None);
    }
    let mut sets = Extensions(extensions).flatten().filter(|field| field.kind == MULTI_PREFIX);
    match (sets.next(), sets.next()) {
        (None, _) => Ok(None),
        (Some(field), None) => MultiPrefix::parse(field.data).map(Some),
        (Some(_), Some(_)) => Err(PdsError::TwoSets),
    }
}

/// A parameter data structure of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParametersRepr {
    /// See [`Parameters::modifier`].
    pub modifier: u128,
    /// See [`Parameters::prefix`].
    pub prefix: Prefix,
    /// See [`Parameters::collision_count`].
    pub collision_count: u8,
    /// DER SubjectPublicKeyInfo of an RSA key or of a nonce that looks like one.
    pub public_key: Vec<u8>,
    /// Extension fields, encoded.
    pub extensions: Vec<u8>,
}

impl ParametersRepr {
    /// Octets [`ParametersRepr::emit`] gives.
    pub fn buffer_len(&self) -> usize {
        PUBLIC_KEY_OFFSET + self.public_key.len() + self.extensions.len()
    }

    /// The structure as it is sent and hashed.
    pub fn emit(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(self.buffer_len());
        octets.extend_from_slice(&self.modifier.to_be_bytes());
        octets.extend_from_slice(&self.prefix);
        octets.push(self.collision_count);
        octets.extend_from_slice(&self.public_key);
        octets.extend_from_slice(&self.extensions);
        octets
    }

    /// The structure of another address of the same set: all are equal but for the prefix (R5535-017, R5535-021).
    pub fn emit_for(&self, address: std::net::Ipv6Addr) -> Vec<u8> {
        ParametersRepr { prefix: prefix_of(address), ..self.clone() }.emit()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::testing::{NONCE_KEY, RFC3972_KEY, SET_EXTENSION, SET_PREFIXES, octets, set_parameters};

    #[test]
    fn fields_are_where_the_rfc_puts_them() {
        // R3972-020, R3972-026
        let octets = set_parameters().emit();
        assert_eq!(octets.len(), 135);
        let view = Parameters::parse(&octets).unwrap();
        assert_eq!(view.modifier(), 0xa985_8dc2_c457_438f_8669_a1bd_8751_0396);
        assert_eq!((view.prefix(), view.collision_count()), (SET_PREFIXES[0], 0));
        assert_eq!(view.key().der(), &octets[25..103]);
        assert_eq!(view.set().unwrap().prefixes(), SET_PREFIXES);
        assert_eq!(view.to_repr(), set_parameters());
    }

    #[test]
    fn the_key_may_be_the_last_field() {
        let parameters = ParametersRepr { extensions: Vec::new(), ..set_parameters() };
        let octets = parameters.emit();
        assert_eq!(Parameters::parse(&octets).unwrap().set(), None);
    }

    #[test]
    fn the_fixed_part_and_the_key_must_be_whole() {
        let octets = set_parameters().emit();
        for length in 0..25 {
            assert_eq!(Parameters::parse(&octets[..length]), Err(PdsError::Truncated));
        }
        for length in 25..103 {
            assert_eq!(Parameters::parse(&octets[..length]), Err(PdsError::Key(DerError::Truncated)));
        }
    }

    #[test]
    fn a_malformed_trailer_takes_all_extensions_with_it() {
        // R4581-004, A-C3
        let whole = set_parameters().emit();
        for length in 104..whole.len() {
            assert_eq!(Parameters::parse(&whole[..length]).unwrap().set(), None);
        }
        for junk in [&[0u8][..], &[0, 0, 0, 1]] {
            let mut octets = whole.clone();
            octets.extend_from_slice(junk);
            assert_eq!(Parameters::parse(&octets).unwrap().set(), None);
        }
    }

    #[test]
    fn a_second_multi_prefix_extension_is_refused() {
        // R5535-044
        let twice = SET_EXTENSION.repeat(2);
        let parameters = ParametersRepr { extensions: octets(&twice), ..set_parameters() };
        assert_eq!(Parameters::parse(&parameters.emit()), Err(PdsError::TwoSets));
        // Another extension before and behind it does no harm (R5533-114).
        let among_others = format!("fffd0002abcd{SET_EXTENSION}ffff0000");
        let parameters = ParametersRepr { extensions: octets(&among_others), ..set_parameters() };
        let octets = parameters.emit();
        let view = Parameters::parse(&octets).unwrap();
        assert_eq!(view.set().unwrap().prefixes(), SET_PREFIXES);
        assert_eq!(view.extensions().count(), 3);
    }

    #[test]
    fn sets_of_no_and_of_seventeen_prefixes_are_refused() {
        // R5535-042
        for count in [0, 17] {
            let extensions = MultiPrefix::encode(false, &vec![SET_PREFIXES[0]; count]);
            let parameters = ParametersRepr { extensions, ..set_parameters() };
            assert_eq!(Parameters::parse(&parameters.emit()), Err(PdsError::SetSize(count)));
        }
        let ragged = ParametersRepr { extensions: octets("00120005 00000000 00"), ..set_parameters() };
        assert_eq!(Parameters::parse(&ragged.emit()), Err(PdsError::SetLength(5)));
    }

    proptest! {
        #[test]
        fn any_octets_may_be_parsed(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Parameters::parse(&octets);
        }

        #[test]
        fn any_octets_may_follow_a_key(
            key in prop::sample::select(vec![NONCE_KEY, RFC3972_KEY]),
            head in any::<[u8; 25]>(),
            extensions in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let octets = [&head[..], &octets(key), &extensions].concat();
            if let Ok(view) = Parameters::parse(&octets) {
                prop_assert_eq!(view.to_repr().emit(), octets);
            }
        }

        #[test]
        fn emit_then_parse_gives_the_same(
            modifier in any::<u128>(), prefix in any::<Prefix>(), collision_count in any::<u8>(),
            prefixes in proptest::collection::vec(any::<Prefix>(), 1..=16), has_key in any::<bool>(),
        ) {
            let repr = ParametersRepr {
                modifier, prefix, collision_count,
                public_key: octets(NONCE_KEY),
                extensions: MultiPrefix::encode(has_key, &prefixes),
            };
            let octets = repr.emit();
            prop_assert_eq!(octets.len(), repr.buffer_len());
            let view = Parameters::parse(&octets).unwrap();
            prop_assert_eq!(view.to_repr(), repr);
            let set = view.set().unwrap();
            prop_assert_eq!((set.prefixes(), set.has_key()), (&prefixes[..], has_key));
        }
    }
}
