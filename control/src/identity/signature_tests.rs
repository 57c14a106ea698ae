use std::net::Ipv6Addr;
use std::sync::LazyLock;

use openssl::pkey::Public;
use openssl::sign::Verifier;
use proptest::prelude::*;

use super::*;
use crate::identity::ParametersRepr;
use crate::identity::extension::MultiPrefix;
use crate::identity::testing::{NONCE_KEY, RFC3972_KEY, octets, rsa_der, set_parameters};

/// A 1024-bit key and its signature over [`LOCATORS`] with [`GENERATION`], both made with the `openssl` program:
/// `openssl dgst -sha1 -sign` over the octets RFC 5533 §5.15.5 lists.
const KEY: &str = "30819f300d06092a864886f70d010101050003818d0030818902818100f5b70944ca24f8dc47c53d40ddf44a782053df87f4f3\
    26a93a0b578079b0a022277375eb20a6a6afa91bf5b3ebb3ea1dc83f28af2d85e843fa3d4881520bce5969fd55f2da75549c0ae9ff2101b6\
    f09a14c400a27ec4e7138b672ae72b3f1f585ca029829e21135cda1cf87866df9e36b2b10ed5c27d685e1999f9fcb05cb94b0203010001";
const SIGNATURE: &str = "08c25a29d90dfdcc82c798ed19ef46fb61bf7d5b0e8d2691c63bdf151a32747c1938efc7bf40512b14fe34303cf333eb\
    80a690c5ff957f67199d1f409d606096c3a41d5858cf84a4fc8dc8e6d21874e5709a499ea12b5d94c2afcacb9d186dea1ceb61e2b34df5ee\
    03debb46dfd60b7c9d4969a87692f7254cea2ad39215c6c6";
const GENERATION: u32 = 0x1122_3344;
const LOCATORS: [Locator; 2] = [
    Locator(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xa)),
    Locator(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0xa)),
];

static SIGNING_KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(1024).unwrap());

/// Parameters with this key; the address they belong to does not matter here.
fn with_key(public_key: Vec<u8>) -> Vec<u8> {
    ParametersRepr { public_key, extensions: Vec::new(), ..set_parameters() }.emit()
}

fn verdict(pds: &[u8], generation: u32, locators: &[Locator], signature: &[u8]) -> Result<(), SignatureError> {
    verify_locators(&Parameters::parse(pds).unwrap(), generation, locators, signature)
}

/// The private half.
fn pair() -> &'static PKey<Private> {
    match &SIGNING_KEY.pair {
        Pair::Whole(pair) => pair,
        Pair::Recorded(_) => panic!("a whole key"),
    }
}

#[test]
fn what_was_recorded_of_a_key_signs_that_again_and_nothing_else() {
    let locators = [Locator("2001:db8::1".parse().unwrap()), Locator("2001:db8:1::1".parse().unwrap())];
    let signature = SIGNING_KEY.sign_locators(7, &locators).unwrap();
    // The same each time, or there would be nothing to record.
    assert_eq!(SIGNING_KEY.sign_locators(7, &locators).unwrap(), signature);
    let public = SIGNING_KEY.public_key_der().to_vec();
    let signed = [(7, locators.to_vec(), signature.as_slice())];
    let stand_in = SigningKey::recorded(public.clone(), signed).unwrap();
    assert_eq!(stand_in.public_key_der(), public);
    assert_eq!(stand_in.sign_locators(7, &locators).unwrap(), signature);
    assert!(stand_in.sign_locators(8, &locators).is_err());
    assert!(stand_in.sign_locators(7, &locators[..1]).is_err());
    assert!(stand_in.to_pem().is_err());
    assert!(SigningKey::recorded(public[1..].to_vec(), []).is_err());
}

#[test]
fn a_signature_made_by_the_openssl_program_is_accepted() {
    // R3972-033, R3972-034, R3972-041, R5533-116
    assert_eq!(TYPE_TAG.to_be_bytes(), *b"J0VbHXWK6UAoPjmH");
    let pds = with_key(octets(KEY));
    assert_eq!(verdict(&pds, GENERATION, &LOCATORS, &octets(SIGNATURE)), Ok(()));
}

#[test]
fn a_signature_covers_generation_locators_and_their_order() {
    // R5533-116, R5533-117, R3972-034
    let pds = with_key(octets(KEY));
    let signature = octets(SIGNATURE);
    let [a, b] = LOCATORS;
    let wrong = Err(SignatureError::Wrong);
    assert_eq!(verdict(&pds, GENERATION + 1, &LOCATORS, &signature), wrong);
    assert_eq!(verdict(&pds, GENERATION, &[b, a], &signature), wrong);
    assert_eq!(verdict(&pds, GENERATION, &[a], &signature), wrong);
    assert_eq!(verdict(&pds, GENERATION, &[a, b, b], &signature), wrong);
    assert_eq!(verdict(&pds, GENERATION, &LOCATORS, &signature[..127]), wrong);
    assert_eq!(verdict(&pds, GENERATION, &LOCATORS, &[&signature[..], &[0]].concat()), wrong);
    assert_eq!(verdict(&pds, GENERATION, &LOCATORS, &[]), wrong);
    assert_eq!(verdict(&with_key(SIGNING_KEY.public_key_der().to_vec()), GENERATION, &LOCATORS, &signature), wrong);
}

#[test]
fn another_type_tag_is_another_signature() {
    // R3972-034: the same octets under SEND's tag.
    let tagged = |tag: u128| {
        let mut octets = signed_octets(GENERATION, &LOCATORS);
        octets[..16].copy_from_slice(&tag.to_be_bytes());
        Signer::new(MessageDigest::sha1(), pair()).unwrap().sign_oneshot_to_vec(&octets).unwrap()
    };
    let pds = with_key(SIGNING_KEY.public_key_der().to_vec());
    assert_eq!(verdict(&pds, GENERATION, &LOCATORS, &tagged(TYPE_TAG)), Ok(()));
    let send = 0x086f_ca5e_10b2_00c9_9c8c_e001_6427_7c08;
    assert_eq!(verdict(&pds, GENERATION, &LOCATORS, &tagged(send)), Err(SignatureError::Wrong));
}

#[test]
fn openssl_accepts_our_signatures() {
    // R3972-033
    let signature = SIGNING_KEY.sign_locators(GENERATION, &LOCATORS).unwrap();
    let public: PKey<Public> = PKey::public_key_from_der(SIGNING_KEY.public_key_der()).unwrap();
    let mut verifier = Verifier::new(MessageDigest::sha1(), &public).unwrap();
    let message = [&b"J0VbHXWK6UAoPjmH"[..], &[0x11, 0x22, 0x33, 0x44]].concat();
    let message = LOCATORS.iter().fold(message, |message, l| [&message[..], &l.0.octets()].concat());
    assert!(verifier.verify_oneshot(&signature, &message).unwrap());
    // And it is SHA-1 that it accepts.
    let mut other = Verifier::new(MessageDigest::sha256(), &public).unwrap();
    assert!(!other.verify_oneshot(&signature, &message).unwrap());
}

#[test]
fn a_nonce_signs_nothing() {
    // R5535-040, R5535-002: even where the "nonce" is a good key and the signature a good one.
    let signature = SIGNING_KEY.sign_locators(GENERATION, &LOCATORS).unwrap();
    let with_p = |has_key| {
        let extensions = MultiPrefix::encode(has_key, &[set_parameters().prefix]);
        let public_key = SIGNING_KEY.public_key_der().to_vec();
        ParametersRepr { public_key, extensions, ..set_parameters() }.emit()
    };
    assert_eq!(verdict(&with_p(true), GENERATION, &LOCATORS, &signature), Ok(()));
    assert_eq!(verdict(&with_p(false), GENERATION, &LOCATORS, &signature), Err(SignatureError::NoKey));
}

#[test]
fn keys_outside_1024_to_8192_bits_sign_nothing() {
    // R5533-134, R5535-041
    let of_bits = |bits: usize| {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= bits.div_ceil(8) * 8 - bits;
        with_key(rsa_der(&modulus))
    };
    for bits in [384, 512, 768, 1016, 1023] {
        assert_eq!(verdict(&of_bits(bits), 1, &LOCATORS, &[1; 128]), Err(SignatureError::KeyTooShort(bits)));
    }
    for bits in [8193, 16384] {
        assert_eq!(verdict(&of_bits(bits), 1, &LOCATORS, &[1; 128]), Err(SignatureError::KeyTooLong(bits)));
    }
    // These are long enough to be tried.
    for bits in [1024, 1025, 2047, 8192] {
        assert_eq!(verdict(&of_bits(bits), 1, &LOCATORS, &[1; 128]), Err(SignatureError::Wrong));
    }
    for key in [NONCE_KEY, RFC3972_KEY] {
        let error = verdict(&with_key(octets(key)), 1, &LOCATORS, &[1; 64]);
        assert!(matches!(error, Err(SignatureError::KeyTooShort(384 | 512))));
    }
}

#[test]
fn a_real_512_bit_signature_is_refused() {
    // R5535-041
    let weak = PKey::from_rsa(Rsa::generate(512).unwrap()).unwrap();
    let mut signer = Signer::new(MessageDigest::sha1(), &weak).unwrap();
    let signature = signer.sign_oneshot_to_vec(&signed_octets(GENERATION, &LOCATORS)).unwrap();
    let pds = with_key(weak.public_key_to_der().unwrap());
    assert_eq!(verdict(&pds, GENERATION, &LOCATORS, &signature), Err(SignatureError::KeyTooShort(512)));
}

#[test]
fn worthless_exponents_verify_nothing() {
    // With exponent 1 anybody could write down a "signature": it is the padded hash itself.
    let mut der = octets(KEY);
    let length = der.len();
    for exponent in [[0, 0, 0], [0, 0, 1], [0, 0, 2], [1, 0, 0]] {
        der[length - 3..].copy_from_slice(&exponent);
        assert_eq!(
            verdict(&with_key(der.clone()), GENERATION, &LOCATORS, &octets(SIGNATURE)),
            Err(SignatureError::Wrong)
        );
    }
}

#[test]
fn keys_survive_pem() {
    let pem = SIGNING_KEY.to_pem().unwrap();
    assert!(pem.starts_with(b"-----BEGIN PRIVATE KEY-----"));
    let again = SigningKey::from_pem(&pem).unwrap();
    assert_eq!(again.public_key_der(), SIGNING_KEY.public_key_der());
    let of = |key: &SigningKey| key.sign_locators(GENERATION, &LOCATORS).unwrap();
    assert_eq!(of(&again), of(&SIGNING_KEY));
    // The traditional form too.
    let pkcs1 = pair().rsa().unwrap().private_key_to_pem().unwrap();
    assert_eq!(SigningKey::from_pem(&pkcs1).unwrap().public_key_der(), SIGNING_KEY.public_key_der());
    assert_eq!(format!("{again:?}"), "SigningKey(1024 bits)");
    // A replay compares what is shown, and has no more than this.
    let stand_in = SigningKey::recorded(again.public_key_der().to_vec(), []).unwrap();
    assert_eq!(format!("{stand_in:?}"), format!("{again:?}"));
}

#[test]
fn what_cannot_sign_is_no_signing_key() {
    // R3972-006
    // R5533-134, R5533-135
    assert!(matches!(SigningKey::generate(1023), Err(KeyError::Bits(1023))));
    assert!(matches!(SigningKey::generate(8193), Err(KeyError::Bits(8193))));
    assert_eq!(SigningKey::BITS_DEFAULT, 2048);
    let weak = Rsa::generate(768).unwrap().private_key_to_pem().unwrap();
    assert!(matches!(SigningKey::from_pem(&weak), Err(KeyError::Bits(768))));
    assert!(matches!(SigningKey::from_pem(b"no key"), Err(KeyError::Library(_))));
    let curve = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
    let curve_key = PKey::from_ec_key(openssl::ec::EcKey::generate(&curve).unwrap()).unwrap();
    let pem = curve_key.private_key_to_pem_pkcs8().unwrap();
    assert!(matches!(SigningKey::from_pem(&pem), Err(KeyError::NotRsa)));
    let locked = pair().private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_128_cbc(), b"secret");
    assert!(matches!(SigningKey::from_pem(&locked.unwrap()), Err(KeyError::Library(_))));
}

#[test]
fn keys_of_the_default_length_work() {
    // R3972-036
    let key = SigningKey::generate(SigningKey::BITS_DEFAULT).unwrap();
    let signature = key.sign_locators(0, &LOCATORS).unwrap();
    assert_eq!(signature.len(), 256);
    assert_eq!(verdict(&with_key(key.public_key_der().to_vec()), 0, &LOCATORS, &signature), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_signed_verifies_and_what_is_changed_does_not(
        generation in any::<u32>(), addresses in proptest::collection::vec(any::<u128>(), 0..8),
        at in 0usize..128, bit in 0u8..8,
    ) {
        let locators: Vec<Locator> = addresses.into_iter().map(|bits| Locator(Ipv6Addr::from_bits(bits))).collect();
        let pds = with_key(SIGNING_KEY.public_key_der().to_vec());
        let mut signature = SIGNING_KEY.sign_locators(generation, &locators).unwrap();
        prop_assert_eq!(verdict(&pds, generation, &locators, &signature), Ok(()));
        signature[at] ^= 1 << bit;
        prop_assert_eq!(verdict(&pds, generation, &locators, &signature), Err(SignatureError::Wrong));
    }
}
