//! Extension fields of the parameter data structure (RFC 4581), and the one that lists the prefixes of an address set
//! (RFC 5535 §5).

use super::{PdsError, Prefix};

/// Type of the Multi-Prefix extension (R5535-035).
pub const MULTI_PREFIX: u16 = 0x0012;

/// Most prefixes in a set (R5535-042).
pub const PREFIXES_MAX: usize = 16;

/// One extension field.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |       Extension Type          |   Extension Data Length       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                       Extension Data                          ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// What it is; values we do not know are carried, hashed and otherwise ignored (R3972-010).
    pub kind: u16,
    /// Its data, without type and length.
    pub data: &'a [u8],
}

impl Extension<'_> {
    /// Appends the field to `octets`. Data beyond 65535 octets cannot be expressed and is cut.
    pub fn emit(&self, octets: &mut Vec<u8>) {
        let length = u16::try_from(self.data.len()).unwrap_or(u16::MAX);
        octets.extend_from_slice(&self.kind.to_be_bytes());
        octets.extend_from_slice(&length.to_be_bytes());
        octets.extend_from_slice(&self.data[..usize::from(length)]);
    }
}

/// Walks over extension fields; ends with an error where a field runs past the end.
#[derive(Clone, Debug)]
pub struct Extensions<'a>(pub &'a [u8]);

/// The fields end in something that is not a field (R4581-004).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedTrailer;

impl<'a> Iterator for Extensions<'a> {
    type Item = Result<Extension<'a>, MalformedTrailer>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let octets = std::mem::take(&mut self.0);
        let [k0, k1, l0, l1, rest @ ..] = octets else { return Some(Err(MalformedTrailer)) };
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let Some((data, rest)) = rest.split_at_checked(length) else { return Some(Err(MalformedTrailer)) };
        self.0 = rest;
        Some(Ok(Extension { kind: u16::from_be_bytes([*k0, *k1]), data }))
    }
}

/// The data of a Multi-Prefix extension whose length was checked.
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |P|                         Reserved                            |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// +                           Prefix[1]                           +
/// +                             ...                               +
/// +                           Prefix[n]                           +
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiPrefix<'a> {
    has_key: bool,
    prefixes: &'a [Prefix],
}

impl<'a> MultiPrefix<'a> {
    /// Reads the data of the extension. Reserved bits are not looked at (R5535-006).
    pub fn parse(data: &'a [u8]) -> Result<MultiPrefix<'a>, PdsError> {
        let [flags, _, _, _, list @ ..] = data else { return Err(PdsError::SetLength(data.len())) };
        let (prefixes, rest) = list.as_chunks();
        if !rest.is_empty() {
            return Err(PdsError::SetLength(data.len()));
        }
        if !(1..=PREFIXES_MAX).contains(&prefixes.len()) {
            return Err(PdsError::SetSize(prefixes.len()));
        }
        Ok(MultiPrefix { has_key: flags & 0x80 != 0, prefixes })
    }

    /// The P bit: the key field holds a real public key, not a nonce (R5535-007).
    pub fn has_key(&self) -> bool {
        self.has_key
    }

    /// In the order received; may hold the same prefix twice.
    pub fn prefixes(&self) -> &'a [Prefix] {
        self.prefixes
    }

    /// Whether addresses under `prefix` can be members.
    pub fn contains(&self, prefix: &Prefix) -> bool {
        self.prefixes.contains(prefix)
    }

    /// The whole extension field for these prefixes, reserved bits zero (R5535-005).
    pub fn encode(has_key: bool, prefixes: &[Prefix]) -> Vec<u8> {
        let mut data = vec![if has_key { 0x80 } else { 0 }, 0, 0, 0];
        data.extend_from_slice(prefixes.as_flattened());
        let mut octets = Vec::with_capacity(4 + data.len());
        Extension { kind: MULTI_PREFIX, data: &data }.emit(&mut octets);
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{SET_EXTENSION, SET_PREFIXES, octets};

    #[test]
    fn the_extension_of_the_derived_vector_is_emitted_and_read() {
        // R5535-004, R5535-005, R5535-014, R5535-035
        let octets = octets(SET_EXTENSION);
        assert_eq!(MultiPrefix::encode(false, &SET_PREFIXES), octets);
        let fields: Vec<_> = Extensions(&octets).collect::<Result<_, _>>().unwrap();
        assert_eq!((fields.len(), fields[0].kind, fields[0].data.len()), (1, 0x0012, 8 * 3 + 4));
        let set = MultiPrefix::parse(fields[0].data).unwrap();
        assert_eq!((set.has_key(), set.prefixes()), (false, &SET_PREFIXES[..]));
    }

    #[test]
    fn the_p_bit_is_the_first_bit() {
        // R5535-007; LinShim6 puts it at the other end.
        let octets = MultiPrefix::encode(true, &SET_PREFIXES);
        assert_eq!(octets[4..8], [0x80, 0, 0, 0]);
        assert!(MultiPrefix::parse(&octets[4..]).unwrap().has_key());
        let mut other_end = MultiPrefix::encode(false, &SET_PREFIXES);
        other_end[7] = 0x01;
        // R5535-006: the other 31 bits mean nothing.
        assert!(!MultiPrefix::parse(&other_end[4..]).unwrap().has_key());
    }

    #[test]
    fn length_is_8n_plus_4_for_1_to_16_prefixes() {
        // R5535-014, R5535-042
        for count in [1, 2, 16] {
            let octets = MultiPrefix::encode(false, &vec![[7; 8]; count]);
            assert_eq!(octets.len(), 4 + 4 + 8 * count);
            assert_eq!(usize::from(octets[3]), 8 * count + 4);
            assert_eq!(MultiPrefix::parse(&octets[4..]).unwrap().prefixes().len(), count);
        }
        assert_eq!(MultiPrefix::parse(&[0; 4]), Err(PdsError::SetSize(0)));
        assert_eq!(MultiPrefix::parse(&[0; 4 + 8 * 17]), Err(PdsError::SetSize(17)));
        for length in [0, 3, 5, 11, 13, 31] {
            assert_eq!(MultiPrefix::parse(&vec![0; length]), Err(PdsError::SetLength(length)));
        }
    }

    #[test]
    fn fields_stand_one_after_the_other() {
        // R4581-001, R4581-002: the length counts data only.
        let mut octets = Vec::new();
        Extension { kind: 0xfffd, data: &[1, 2, 3] }.emit(&mut octets);
        Extension { kind: 0xffff, data: &[] }.emit(&mut octets);
        assert_eq!(octets, [0xff, 0xfd, 0, 3, 1, 2, 3, 0xff, 0xff, 0, 0]);
        let fields: Result<Vec<_>, _> = Extensions(&octets).collect();
        assert_eq!(
            fields.unwrap(),
            [Extension { kind: 0xfffd, data: &[1, 2, 3] }, Extension { kind: 0xffff, data: &[] }]
        );
    }

    #[test]
    fn a_field_past_the_end_is_malformed_and_the_last() {
        // R4581-002, R4581-004
        for octets in [&[0u8, 18, 0][..], &[0, 18, 0, 4, 1, 2, 3], &[0, 18, 0xff, 0xff]] {
            let mut fields = Extensions(octets);
            assert_eq!((fields.next(), fields.next()), (Some(Err(MalformedTrailer)), None));
        }
    }
}
