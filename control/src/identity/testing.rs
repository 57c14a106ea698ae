//! Vectors and helpers the tests of this room share.

use std::net::Ipv6Addr;

use super::{ParametersRepr, Prefix};

/// Public key of RFC 3972 appendix A, 512 bits.
pub(crate) const RFC3972_KEY: &str = "305c300d06092a864886f70d0101010500034b003048024100c2c2f137305454f10bd9cea36844b530e9211a4b262b16467c\
    b7dfba1f595c0194f275be5a4d386f2c3c2382508773c7867f9b3b9e63a09c7bc48f7a54ebefaf0203010001";

/// Nonce in RSA clothing of the derived HBA vector (hba-cga §6.1).
pub(crate) const NONCE_KEY: &str = "304c300d06092a864886f70d0101010500033b0030380231009c2dcbea2421a85e1b7146b14935aa5b78b66d10e6ff714b\
    d6ae70eff7840cb46127e78478e8f337af0ab0fb72b27ace0203010001";

/// Prefixes of the derived HBA vector.
pub(crate) const SET_PREFIXES: [Prefix; 3] = [
    [0xfc, 0x12, 0x34, 0x56, 0x78, 0x9a, 0x00, 0x01],
    [0x20, 0x01, 0x0d, 0xb8, 0x00, 0xaa, 0x00, 0x01],
    [0x20, 0x01, 0x0d, 0xb8, 0x80, 0x0b, 0x00, 0x01],
];

/// Multi-Prefix extension of the derived HBA vector.
pub(crate) const SET_EXTENSION: &str = "0012001c00000000fc123456789a000120010db800aa000120010db8800b0001";

/// Modifiers of the derived HBA vector for Sec 0 and Sec 1.
pub(crate) const SET_MODIFIERS: [u128; 2] =
    [0xa985_8dc2_c457_438f_8669_a1bd_8751_0396, 0xa985_8dc2_c457_438f_8669_a1bd_8752_54bd];

/// Addresses of the derived HBA vector for Sec 0 and Sec 1.
pub(crate) const SET_ADDRESSES: [[&str; 3]; 2] = [
    ["fc12:3456:789a:1:49:6eb5:760d:4ecb", "2001:db8:aa:1:cd:5a5b:c233:eaa3", "2001:db8:800b:1:87c:990f:cc27:fc9c"],
    [
        "fc12:3456:789a:1:30c8:38a9:b091:659e",
        "2001:db8:aa:1:30c1:ce43:606b:9e06",
        "2001:db8:800b:1:240b:470e:1c00:99bc",
    ],
];

/// Octets from hexadecimal digits; blanks are skipped.
pub(crate) fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> =
        hex.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).expect("hexadecimal")).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// Parameters of the first address of the derived HBA vector, Sec 0.
pub(crate) fn set_parameters() -> ParametersRepr {
    ParametersRepr {
        modifier: SET_MODIFIERS[0],
        prefix: SET_PREFIXES[0],
        collision_count: 0,
        public_key: octets(NONCE_KEY),
        extensions: octets(SET_EXTENSION),
    }
}

/// SubjectPublicKeyInfo with these octets as modulus, whatever they are, and exponent 65537.
pub(crate) fn rsa_der(modulus: &[u8]) -> Vec<u8> {
    let pair = [element(0x02, modulus), element(0x02, &[1, 0, 1])].concat();
    let bits = [&[0][..], &element(0x30, &pair)].concat();
    element(0x30, &[octets("300d06092a864886f70d0101010500"), element(0x03, &bits)].concat())
}

/// A DER element with its length in shortest form.
fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let head = match length {
        0..0x80 => vec![tag, length as u8],
        0x80..0x100 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [&head, contents].concat()
}

/// Duplicate address detection that finds the first `count` candidates in use.
pub(crate) fn first_taken(mut count: usize) -> impl FnMut(Ipv6Addr) -> bool {
    move |_| {
        let taken = count > 0;
        count = count.saturating_sub(1);
        taken
    }
}
