use std::ops::ControlFlow;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::identity::testing::{
    NONCE_KEY, RFC3972_KEY, SET_ADDRESSES, SET_EXTENSION, SET_MODIFIERS, SET_PREFIXES, first_taken, octets,
    set_parameters,
};

fn never(_: Ipv6Addr) -> bool {
    false
}

fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn parse_all(addresses: &[&str]) -> Vec<Ipv6Addr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

fn request(sec: Sec) -> Request<'static> {
    Request { prefixes: &SET_PREFIXES, sec, key: None }
}

fn derived_set(sec: Sec) -> AddressSet {
    generate_from(&request(sec), SET_MODIFIERS[0], &octets(NONCE_KEY), &mut never, &mut go_on).unwrap()
}

fn member(address: Ipv6Addr, parameters: &ParametersRepr) -> Result<(), PdsError> {
    verify_member(address, &Parameters::parse(&parameters.emit()).unwrap())
}

fn own(address: Ipv6Addr, octets: &[u8]) -> Result<(), PdsError> {
    cga::verify(address, &Parameters::parse(octets).unwrap())
}

#[test]
fn the_derived_vector_for_sec_0() {
    // R3972-018
    // R5535-016, R5535-020, R5535-021
    let set = derived_set(Sec::ZERO);
    assert_eq!(set.addresses, parse_all(&SET_ADDRESSES[0]));
    assert_eq!(set.parameters, set_parameters());
}

#[test]
fn whoever_knows_one_member_can_compute_the_others() {
    // R5535-021: from any of them, and with the same strength.
    let set = derived_set(Sec::ZERO);
    let octets = set.parameters.emit();
    let parameters = Parameters::parse(&octets).unwrap();
    for (prefix, address) in SET_PREFIXES.iter().zip(&set.addresses) {
        for known in &set.addresses {
            assert_eq!(member_under(*prefix, *known, &parameters), Ok(*address));
        }
    }
    let foreign = member_under([9; 8], set.addresses[0], &parameters);
    assert_eq!(foreign, Err(PdsError::PrefixNotInSet));
}

#[test]
fn the_derived_vector_for_sec_1_after_86311_increments() {
    // R5535-016
    let mut tried = 0;
    let mut progress = |so_far| {
        tried = so_far;
        ControlFlow::Continue(())
    };
    let set =
        generate_from(&request(Sec::ONE), SET_MODIFIERS[0], &octets(NONCE_KEY), &mut never, &mut progress).unwrap();
    assert_eq!(set.parameters.modifier, SET_MODIFIERS[1]);
    assert_eq!(set.parameters.modifier - SET_MODIFIERS[0], 86311);
    assert_eq!(set.addresses, parse_all(&SET_ADDRESSES[1]));
    assert!((86311 - cga::PROGRESS_INTERVAL..=86311).contains(&tried));
}

#[test]
fn a_hybrid_set_agrees_with_another_program_collisions_and_wrap_included() {
    // Computed with Python's hashlib from the text of RFC 5535. The search starts at 2^128 - 1 (A-C2).
    let addresses = [
        [
            "fc12:3456:789a:1:208e:471c:deb5:60d5",
            "2001:db8:aa:1:30e5:91c8:ac1d:eee6",
            "2001:db8:800b:1:2001:3e47:22c7:951f",
        ],
        [
            "fc12:3456:789a:1:3822:e459:4199:576d",
            "2001:db8:aa:1:28e7:7d27:b66f:cb08",
            "2001:db8:800b:1:2c74:edbd:8636:ea5c",
        ],
        [
            "fc12:3456:789a:1:3cf9:d999:32a0:6e88",
            "2001:db8:aa:1:2050:bd21:b5e5:2213",
            "2001:db8:800b:1:2075:eabe:a410:544c",
        ],
    ];
    let key = octets(RFC3972_KEY);
    let request = Request { prefixes: &SET_PREFIXES, sec: Sec::ONE, key: Some(&key) };
    for (count, expected) in addresses.iter().enumerate() {
        let mut collides = first_taken(count);
        let set = generate_from(&request, u128::MAX, &key, &mut collides, &mut go_on).unwrap();
        assert_eq!(set.parameters.modifier, 0x807d);
        assert_eq!(usize::from(set.parameters.collision_count), count);
        assert_eq!(set.addresses, parse_all(expected));
    }
}

#[test]
fn every_address_verifies_with_the_parameters_of_every_other() {
    // R3972-027
    // R5535-017, R5535-021, R5535-023, R5535-025
    for sec in [Sec::ZERO, Sec::ONE] {
        let set = derived_set(sec);
        let all: Vec<Vec<u8>> = set.addresses.iter().map(|address| set.parameters.emit_for(*address)).collect();
        for (i, address) in set.addresses.iter().enumerate() {
            for (j, octets) in all.iter().enumerate() {
                let view = Parameters::parse(octets).unwrap();
                assert_eq!(verify_member(*address, &view), Ok(()), "{address} with parameters {j}");
                // As plain CGAs they verify with their own alone.
                assert_eq!(own(*address, octets), if i == j { Ok(()) } else { Err(PdsError::Prefix) });
                // All parameters are equal but for octets 16 to 23.
                assert_eq!((&octets[..16], &octets[24..]), (&all[0][..16], &all[0][24..]));
                // R5535-026: looking changes nothing.
                assert_eq!(view, Parameters::parse(octets).unwrap());
            }
        }
    }
}

#[test]
fn each_step_of_membership_can_fail() {
    // R5535-022, R5535-024, R5535-025, R5535-036, R5535-046
    let set = derived_set(Sec::ZERO);
    let other = generate(&request(Sec::ZERO), &mut StdRng::seed_from_u64(8), &mut never, &mut go_on).unwrap();
    let good = &set.parameters;
    let flip = |address: Ipv6Addr, mask: u128| Ipv6Addr::from_bits(address.to_bits() ^ mask);
    let counted = |collision_count| ParametersRepr { collision_count, ..good.clone() };
    let swapped = (set.addresses[1].to_bits() >> 64 << 64) | u128::from(set.addresses[0].to_bits() as u64);
    let swapped = Ipv6Addr::from_bits(swapped);
    let reordered = [SET_PREFIXES[1], SET_PREFIXES[0], SET_PREFIXES[2]];
    let cases = [
        ("prefix outside the set", flip(set.addresses[1], 1 << 64), good.clone(), PdsError::PrefixNotInSet),
        ("member of another host's set", other.addresses[1], good.clone(), PdsError::Hash1),
        ("identifier of another member", swapped, good.clone(), PdsError::Hash1),
        ("one bit of the identifier", flip(set.addresses[2], 1), good.clone(), PdsError::Hash1),
        ("another collision count", set.addresses[1], counted(1), PdsError::Hash1),
        ("collision count 3", set.addresses[1], counted(3), PdsError::CollisionCount(3)),
        ("strength never paid for", flip(set.addresses[1], 1 << 61), good.clone(), PdsError::Hash2),
        ("Sec 4", flip(set.addresses[1], 4 << 61), good.clone(), PdsError::Sec(4)),
        ("no set", set.addresses[0], ParametersRepr { extensions: Vec::new(), ..good.clone() }, PdsError::NoSet),
        (
            "the same prefixes in another order",
            set.addresses[0],
            ParametersRepr { extensions: MultiPrefix::encode(false, &reordered), ..good.clone() },
            PdsError::Hash1,
        ),
        (
            "nonce passed off as a key",
            set.addresses[0],
            ParametersRepr { extensions: MultiPrefix::encode(true, &SET_PREFIXES), ..good.clone() },
            PdsError::Hash1,
        ),
    ];
    for (what, address, parameters, expected) in cases {
        assert_eq!(member(address, &parameters), Err(expected), "{what}");
    }
}

#[test]
fn the_kind_follows_from_the_set_and_its_p_bit() {
    // R5535-001, R5535-043, R5535-044
    let with = |extensions| ParametersRepr { extensions, ..set_parameters() }.emit();
    let kind = |octets: &[u8], prefix| classify(prefix, &Parameters::parse(octets).unwrap());
    let (inside, outside) = (&SET_PREFIXES[2], &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0]);
    let plain = with(Vec::new());
    let hybrid = with(MultiPrefix::encode(true, &SET_PREFIXES));
    let hba = with(MultiPrefix::encode(false, &SET_PREFIXES));
    assert_eq!((kind(&plain, inside), kind(&plain, outside)), (Ok(Kind::Cga), Ok(Kind::Cga)));
    assert_eq!((kind(&hybrid, inside), kind(&hybrid, outside)), (Ok(Kind::Hybrid), Ok(Kind::Cga)));
    assert_eq!((kind(&hba, inside), kind(&hba, outside)), (Ok(Kind::Hba), Err(PdsError::PrefixNotInSet)));
}

#[test]
fn reserved_bits_are_hashed_but_mean_nothing() {
    // R5535-006, A-H2
    let mut extensions = octets(SET_EXTENSION);
    extensions[4] = 0x7f;
    extensions[7] = 0xff;
    let tail = [octets(NONCE_KEY), extensions.clone()].concat();
    let (_, addresses) = cga::derive(&SET_PREFIXES, Sec::ZERO, 5, &tail, &mut never).unwrap();
    let parameters = ParametersRepr { modifier: 5, extensions, ..set_parameters() };
    for address in &addresses {
        assert_eq!(member(*address, &parameters), Ok(()));
    }
    let cleaned = ParametersRepr { extensions: octets(SET_EXTENSION), ..parameters };
    assert_eq!(member(addresses[0], &cleaned), Err(PdsError::Hash1));
}

#[test]
fn a_set_may_name_a_prefix_twice() {
    // R5535-042
    let prefixes = [SET_PREFIXES[0], SET_PREFIXES[1], SET_PREFIXES[0]];
    let request = Request { prefixes: &prefixes, ..request(Sec::ZERO) };
    let set = generate(&request, &mut StdRng::seed_from_u64(9), &mut never, &mut go_on).unwrap();
    assert_eq!(set.addresses[0], set.addresses[2]);
    assert_eq!(member(set.addresses[1], &set.parameters), Ok(()));
}

#[test]
fn sets_have_1_to_16_prefixes() {
    // R5535-014, R5535-042; sizes of hba-cga §4
    for count in 0u8..=18 {
        let prefixes: Vec<Prefix> = (0..count).map(|i| [0x20, 1, 0xd, 0xb8, 0, 0, 0, i]).collect();
        let request = Request { prefixes: &prefixes, ..request(Sec::ZERO) };
        let made = generate(&request, &mut StdRng::seed_from_u64(10), &mut never, &mut go_on);
        match count {
            1..=16 => {
                let set = made.unwrap();
                assert_eq!(set.parameters.emit().len(), 111 + 8 * usize::from(count));
                assert!(set.addresses.iter().all(|address| member(*address, &set.parameters) == Ok(())));
            }
            _ => assert_eq!(made, Err(GenerateError::PrefixCount(count.into()))),
        }
    }
}

#[test]
fn a_collision_of_one_address_changes_all_of_them() {
    // R5535-018
    let before = derived_set(Sec::ZERO);
    let taken = before.addresses[1];
    let mut asked = Vec::new();
    let mut collides = |address| {
        asked.push(address);
        address == taken
    };
    let key = octets(NONCE_KEY);
    let after = generate_from(&request(Sec::ZERO), SET_MODIFIERS[0], &key, &mut collides, &mut go_on).unwrap();
    assert_eq!(after.parameters.collision_count, 1);
    assert_eq!(asked, [&before.addresses[..2], &after.addresses[..]].concat());
    for (old, new) in before.addresses.iter().zip(&after.addresses) {
        assert_ne!(old, new);
        assert_eq!(member(*new, &after.parameters), Ok(()));
        assert_eq!(member(*old, &after.parameters), Err(PdsError::Hash1));
    }
}

#[test]
fn the_third_collision_ends_it() {
    // R5535-019: collisions on whichever prefix count together.
    for (taken, ends) in [(vec![0], Ok(1)), (vec![0, 3], Ok(2)), (vec![2, 4, 6], Err(GenerateError::Collisions))] {
        let mut call = 0;
        let mut collides = |_| {
            call += 1;
            taken.contains(&(call - 1))
        };
        let key = octets(NONCE_KEY);
        let made = generate_from(&request(Sec::ZERO), SET_MODIFIERS[0], &key, &mut collides, &mut go_on);
        assert_eq!(made.map(|set| set.parameters.collision_count), ends, "{taken:?}");
    }
}

#[test]
fn fresh_sets_have_fresh_modifiers_and_nonces() {
    // R5535-015, R5535-038
    let mut rng = StdRng::seed_from_u64(11);
    let one = generate(&request(Sec::ZERO), &mut rng, &mut never, &mut go_on).unwrap().parameters;
    let other = generate(&request(Sec::ZERO), &mut rng, &mut never, &mut go_on).unwrap().parameters;
    assert_ne!(one.modifier, other.modifier);
    assert_ne!(one.public_key, other.public_key);
    // R5535-007: no key was given, so P is 0 and the key field is a 384-bit nonce.
    let octets = one.emit();
    let view = Parameters::parse(&octets).unwrap();
    assert_eq!((view.set().unwrap().has_key(), view.key().bits(), octets[103 + 4]), (false, 384, 0));
}

#[test]
fn a_key_makes_the_set_hybrid() {
    // R5535-003, R5535-007
    let key = octets(RFC3972_KEY);
    let request = Request { key: Some(&key), ..request(Sec::ZERO) };
    let set = generate(&request, &mut StdRng::seed_from_u64(12), &mut never, &mut go_on).unwrap();
    let octets = set.parameters.emit();
    let view = Parameters::parse(&octets).unwrap();
    assert_eq!((view.key().der(), octets[25 + 94 + 4]), (&key[..], 0x80));
    assert_eq!(classify(&SET_PREFIXES[0], &view), Ok(Kind::Hybrid));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_generated_verifies(
        seed in any::<u64>(), with_key in any::<bool>(), taken in 0usize..3,
        prefixes in proptest::collection::vec(any::<Prefix>(), 1..=16),
    ) {
        // R3972-020, R3972-021
        let key = octets(RFC3972_KEY);
        let request = Request { prefixes: &prefixes, sec: Sec::ZERO, key: with_key.then_some(&key) };
        let mut collides = first_taken(taken);
        let set = generate(&request, &mut StdRng::seed_from_u64(seed), &mut collides, &mut go_on).unwrap();
        prop_assert_eq!(set.addresses.len(), prefixes.len());
        for (address, prefix) in set.addresses.iter().zip(&prefixes) {
            prop_assert_eq!(&prefix_of(*address), prefix);
            prop_assert_eq!(member(*address, &set.parameters), Ok(()));
            prop_assert_eq!(own(*address, &set.parameters.emit_for(*address)), Ok(()));
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_breaks_the_proof(at in 0usize..135, bit in 0u8..8) {
        // R3972-012, R5535-045. The subnet prefix is what membership replaces.
        prop_assume!(!(16..24).contains(&at));
        let mut octets = set_parameters().emit();
        octets[at] ^= 1 << bit;
        let address = SET_ADDRESSES[0][1].parse().unwrap();
        let verdict = Parameters::parse(&octets).and_then(|view| verify_member(address, &view));
        prop_assert!(verdict.is_err());
    }
}
