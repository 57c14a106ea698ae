use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::identity::testing::{NONCE_KEY, RFC3972_KEY, SET_PREFIXES, first_taken, octets, rsa_der};

const LINK_LOCAL: Prefix = [0xfe, 0x80, 0, 0, 0, 0, 0, 0];
const START: u128 = 0x89a8_a8b2_e858_d8b8_f263_3f44_d2d4_ce9a;
const ADDRESS: &str = "fe80::3c4a:5bf6:ffb4:ca6c";

fn address() -> Ipv6Addr {
    ADDRESS.parse().unwrap()
}

fn never(_: Ipv6Addr) -> bool {
    false
}

fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Parameters of the address of appendix A.
fn parameters() -> ParametersRepr {
    ParametersRepr {
        modifier: START + 1,
        prefix: LINK_LOCAL,
        collision_count: 0,
        public_key: octets(RFC3972_KEY),
        extensions: Vec::new(),
    }
}

fn verdict(address: Ipv6Addr, parameters: &ParametersRepr) -> Result<(), PdsError> {
    verify(address, &Parameters::parse(&parameters.emit()).unwrap())
}

fn with_sec(address: Ipv6Addr, sec: u8) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & !(7 << 61) | u128::from(sec) << 61)
}

#[test]
fn appendix_a_of_rfc_3972_step_by_step() {
    // R3972-001, R3972-011, R3972-013, R3972-014, R4982-003
    let key = octets(RFC3972_KEY);
    let scheme = Sec::ONE.scheme();
    let mut head = [0; PUBLIC_KEY_OFFSET];
    head[..16].copy_from_slice(&START.to_be_bytes());
    assert_eq!((scheme.hash)(&head, &key)[..14], octets("436b9a70dbfddbf1926e6e6629c0"));
    head[..16].copy_from_slice(&(START + 1).to_be_bytes());
    assert_eq!((scheme.hash)(&head, &key)[..14], octets("000001ca680b83888d0912dffcce"));

    let modifier = find_modifier(START, Sec::ONE, &key, &mut go_on).unwrap();
    assert_eq!(modifier, START + 1);
    assert_eq!(hash1(scheme, modifier, LINK_LOCAL, 0, &key), 0xfd4a_5bf6_ffb4_ca6c);

    let request = Request { prefix: LINK_LOCAL, sec: Sec::ONE, key: &key, extensions: &[] };
    let made = generate_with_modifier(&request, modifier, &mut never).unwrap();
    assert_eq!((made.address, &made.parameters), (address(), &parameters()));
    assert_eq!(sec_bits(split(made.address).1), 1);
    assert_eq!(verdict(address(), &parameters()), Ok(()));
}

#[test]
fn each_bit_of_the_interface_identifier_counts_or_does_not() {
    // R3972-002: bits 0 to 2 are Sec, bits 6 and 7 are "u" and "g".
    for bit in 0..64 {
        let flipped = Ipv6Addr::from_bits(address().to_bits() ^ (1 << (63 - bit)));
        let expected = match bit {
            0 => Err(PdsError::Sec(5)),
            1 => Err(PdsError::Sec(3)),
            2 | 6 | 7 => Ok(()),
            _ => Err(PdsError::Hash1),
        };
        assert_eq!(verdict(flipped, &parameters()), expected, "bit {bit}");
    }
}

#[test]
fn every_step_of_verification_can_fail() {
    // R3972-004, R3972-024, R3972-025, R3972-038
    let good = parameters();
    for count in 0..=255 {
        let expected = match count {
            0 => Ok(()),
            1 | 2 => Err(PdsError::Hash1),
            _ => Err(PdsError::CollisionCount(count)),
        };
        assert_eq!(verdict(address(), &ParametersRepr { collision_count: count, ..good.clone() }), expected);
    }
    let other_prefix = ParametersRepr { prefix: SET_PREFIXES[0], ..good.clone() };
    assert_eq!(verdict(address(), &other_prefix), Err(PdsError::Prefix));
    let other_modifier = ParametersRepr { modifier: START, ..good.clone() };
    assert_eq!(verdict(address(), &other_modifier), Err(PdsError::Hash1));
    let other_key = ParametersRepr { public_key: octets(NONCE_KEY), ..good.clone() };
    assert_eq!(verdict(address(), &other_key), Err(PdsError::Hash1));
    // An address made with the first modifier and Sec 1 just claimed: Hash1 holds, Hash2 does not.
    let tail = octets(RFC3972_KEY);
    let (_, addresses) = derive(&[LINK_LOCAL], Sec::ONE, START, &tail, &mut never).unwrap();
    assert_eq!(verdict(addresses[0], &other_modifier), Err(PdsError::Hash2));
    // The first fault is the one reported: wrong in count, prefix and hash.
    let all_wrong = ParametersRepr { modifier: 0, prefix: SET_PREFIXES[0], collision_count: 3, ..good };
    assert_eq!(verdict(address(), &all_wrong), Err(PdsError::CollisionCount(3)));
}

#[test]
fn every_sec_is_answered_and_only_0_1_and_2_can_hold() {
    // R3972-028, R4982-001, R5535-008
    // R3972-029, R4982-006, A-C1. The modifier is good for Sec 1, so for Sec 0 as well.
    for sec in 0..8 {
        let expected = match sec {
            0 | 1 => Ok(()),
            2 => Err(PdsError::Hash2),
            _ => Err(PdsError::Sec(sec)),
        };
        assert_eq!(verdict(with_sec(address(), sec), &parameters()), expected, "Sec {sec}");
        assert_eq!(Sec::new(sec).is_some(), sec <= 2);
    }
}

#[test]
fn a_sec_2_address_is_verified() {
    // R3972-003, R4982-003: modifier and address found by other programs (C with OpenSSL, Python's hashlib).
    let modifier = 0x5c5c_5c5c_5c5c_5c5c_0000_0001_2144_902b;
    let key = octets(RFC3972_KEY);
    assert!(hash2_zero_bits(Sec::TWO.scheme(), modifier, &key) >= 32);
    let request = Request { prefix: LINK_LOCAL, sec: Sec::TWO, key: &key, extensions: &[] };
    let made = generate_with_modifier(&request, modifier, &mut never).unwrap();
    assert_eq!(made.address, "fe80::40d0:a0cb:5450:f9b9".parse::<Ipv6Addr>().unwrap());
    assert_eq!(verdict(made.address, &made.parameters), Ok(()));
    let next = ParametersRepr { modifier: modifier + 1, ..made.parameters };
    let (_, addresses) = derive(&[LINK_LOCAL], Sec::TWO, modifier + 1, &key, &mut never).unwrap();
    assert_eq!(verdict(addresses[0], &next), Err(PdsError::Hash2));
    // And a search that starts just before it finds it.
    assert_eq!(find_modifier(modifier - 1000, Sec::TWO, &key, &mut go_on), Ok(modifier));
}

/// A digest that begins so.
fn digest(octets: &[u8]) -> Digest {
    std::array::from_fn(|at| octets.get(at).copied().unwrap_or_default())
}

#[test]
fn the_meaning_of_sec_comes_from_one_table() {
    // R4982-004, R4982-005, R4982-007: a table with another entry, and the same code.
    fn hash(head: &[u8], tail: &[u8]) -> Digest {
        *openssl::sha::sha256(&[head, tail].concat()).first_chunk().unwrap()
    }
    let sha256 = || Some(Scheme { hash, zero_bits: 4, key_bits_min: 384 });
    let table: Schemes = [None, None, None, None, None, sha256(), None, None];
    let key = octets(RFC3972_KEY);
    let scheme = table[5].as_ref().unwrap();
    let modifier = (0..).find(|modifier| hash2_zero_bits(scheme, *modifier, &key) >= 4).unwrap();
    let hash1 = hash1(scheme, modifier, LINK_LOCAL, 0, &key);
    let address = join(LINK_LOCAL, hash1 & MASK1 | 5 << 61);
    let octets = ParametersRepr { modifier, ..parameters() }.emit();
    let view = Parameters::parse(&octets).unwrap();
    assert_eq!(verify_hashes(&table, address, &view), Ok(()));
    assert_eq!(verify_hashes(&SCHEMES, address, &view), Err(PdsError::Sec(5)));
    assert_eq!(verify_hashes(&table, with_sec(address, 0), &view), Err(PdsError::Sec(0)));
}

#[test]
fn unknown_extensions_are_ignored_but_hashed() {
    // R3972-010, R3972-012, R3972-032, R4581-003
    let key = octets(RFC3972_KEY);
    let extensions = octets("fffd0003010203 ffff0000");
    let request = Request { prefix: LINK_LOCAL, sec: Sec::ONE, key: &key, extensions: &extensions };
    let made = generate(&request, &mut StdRng::seed_from_u64(5), &mut never, &mut go_on).unwrap();
    assert_eq!(verdict(made.address, &made.parameters), Ok(()));
    for at in 0..extensions.len() {
        let mut changed = made.parameters.clone();
        changed.extensions[at] ^= 1;
        assert_eq!(verdict(made.address, &changed), Err(PdsError::Hash1), "octet {at}");
    }
    // A trailer that is no extension at all is hashed all the same (A-C3).
    let junk = Request { extensions: &[0xff, 0xfd, 0x00], ..request };
    let made = generate(&junk, &mut StdRng::seed_from_u64(5), &mut never, &mut go_on).unwrap();
    assert_eq!(verdict(made.address, &made.parameters), Ok(()));
}

#[test]
fn collisions_raise_the_count_and_the_third_ends_it() {
    // R3972-015
    let key = octets(RFC3972_KEY);
    let request = Request { prefix: LINK_LOCAL, sec: Sec::ONE, key: &key, extensions: &[] };
    let mut seen = Vec::new();
    for taken in 0..=3 {
        let mut asked = Vec::new();
        let mut collides = |address| {
            asked.push(address);
            asked.len() <= taken
        };
        let made = generate_with_modifier(&request, START + 1, &mut collides);
        if taken == 3 {
            assert_eq!(made, Err(GenerateError::Collisions));
            assert_eq!(asked.len(), 3);
        } else {
            let made = made.unwrap();
            assert_eq!(usize::from(made.parameters.collision_count), taken);
            assert_eq!(asked.last(), Some(&made.address));
            assert_eq!(verdict(made.address, &made.parameters), Ok(()));
            seen.push(made.address);
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3);
}

#[test]
fn a_modifier_serves_another_prefix_without_a_search() {
    // R3972-022, R3972-023: there is no progress to call, because there is no search.
    let key = octets(RFC3972_KEY);
    let request = Request { prefix: SET_PREFIXES[1], sec: Sec::ONE, key: &key, extensions: &[] };
    let made = generate_with_modifier(&request, START + 1, &mut never).unwrap();
    assert_eq!(verdict(made.address, &made.parameters), Ok(()));
    assert_ne!(split(made.address).1, split(address()).1);
    assert_eq!(generate_with_modifier(&request, START, &mut never), Err(GenerateError::Modifier));
}

#[test]
fn fresh_addresses_have_fresh_modifiers() {
    // R3972-016
    let key = octets(RFC3972_KEY);
    let request = Request { prefix: LINK_LOCAL, sec: Sec::ZERO, key: &key, extensions: &[] };
    let mut rng = StdRng::seed_from_u64(6);
    let one = generate(&request, &mut rng, &mut never, &mut go_on).unwrap();
    let other = generate(&request, &mut rng, &mut never, &mut go_on).unwrap();
    assert_ne!(one.parameters.modifier, other.parameters.modifier);
}

#[test]
fn keys_below_384_bits_make_no_addresses() {
    // R3972-009; R3972-030, R3972-031 at the other end
    fn request(key: &[u8]) -> Request<'_> {
        Request { prefix: LINK_LOCAL, sec: Sec::ZERO, key, extensions: &[] }
    }
    for (bits, fits) in [(376, false), (384, true), (2048, true), (4096, true), (16384, true)] {
        let key = rsa_der(&vec![0x80; bits / 8]);
        let made = generate_with_modifier(&request(&key), 7, &mut never);
        match made {
            Ok(made) => assert!(fits && verdict(made.address, &made.parameters).is_ok(), "{bits}"),
            Err(error) => assert!(!fits && error == GenerateError::Key, "{bits}"),
        }
    }
    let mut trailing = octets(RFC3972_KEY);
    trailing.push(0);
    assert_eq!(generate_with_modifier(&request(&trailing), 7, &mut never), Err(GenerateError::Key));
    assert_eq!(generate_with_modifier(&request(&[]), 7, &mut never), Err(GenerateError::Key));
}

#[test]
fn a_key_is_hashed_as_it_came() {
    // R5535-045: the same number with a superfluous zero is another key to the hash, and fine.
    let modulus = [&[0, 0][..], &[0xc2; 48]].concat();
    let odd = ParametersRepr { public_key: rsa_der(&modulus), ..parameters() };
    let (_, addresses) = derive(&[LINK_LOCAL], Sec::ZERO, START, &odd.public_key, &mut never).unwrap();
    let odd = ParametersRepr { modifier: START, ..odd };
    assert_eq!(verdict(addresses[0], &odd), Ok(()));
    let shortest = ParametersRepr { public_key: rsa_der(&modulus[1..]), ..odd };
    assert_eq!(verdict(addresses[0], &shortest), Err(PdsError::Hash1));
}

#[test]
fn a_search_reports_and_can_be_called_off() {
    let mut reports = Vec::new();
    let mut progress = |tried| {
        reports.push(tried);
        if reports.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let outcome = find_modifier(0, Sec::TWO, &octets(RFC3972_KEY), &mut progress);
    assert_eq!(outcome, Err(GenerateError::Cancelled));
    assert_eq!(reports, [PROGRESS_INTERVAL, 2 * PROGRESS_INTERVAL, 3 * PROGRESS_INTERVAL]);
}

#[test]
fn zeros_are_counted_in_the_first_112_bits() {
    // R3972-003
    assert_eq!(leading_zero_bits(&[0x80; 20]), 0);
    assert_eq!(leading_zero_bits(&digest(&[0, 0x01])), 15);
    assert_eq!(leading_zero_bits(&digest(&[0, 0, 0x80])), 16);
    assert_eq!(leading_zero_bits(&[0; 20]), 112);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// R3972-021: whatever is generated verifies, and under no other prefix.
    #[test]
    fn what_is_generated_verifies(
        seed in any::<u64>(), prefix in any::<Prefix>(), taken in 0usize..3,
        extension in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let key = octets(RFC3972_KEY);
        let request = Request { prefix, sec: Sec::ZERO, key: &key, extensions: &extension };
        let mut collides = first_taken(taken);
        // An extension of random octets may happen to be a broken Multi-Prefix one.
        prop_assume!(Parameters::parse(&[&[0; 25], &key[..], &extension].concat()).is_ok());
        let made = generate(&request, &mut StdRng::seed_from_u64(seed), &mut collides, &mut go_on).unwrap();
        prop_assert_eq!(verdict(made.address, &made.parameters), Ok(()));
        prop_assert_eq!(split(made.address).1 & !MASK1, 0, "Sec, u and g are zero");
        let mut elsewhere = prefix;
        elsewhere[7] ^= 1;
        let moved = join(elsewhere, split(made.address).1);
        prop_assert_eq!(verdict(moved, &made.parameters), Err(PdsError::Prefix));
        let moved_with_parameters = ParametersRepr { prefix: elsewhere, ..made.parameters };
        prop_assert_eq!(verdict(moved, &moved_with_parameters), Err(PdsError::Hash1));
    }
}
