use std::ops::ControlFlow;
use std::sync::LazyLock;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::VerificationMethod::{Cga, Hba, Other};
use super::*;
use crate::identity::extension::MultiPrefix;
use crate::identity::testing::{NONCE_KEY, RFC3972_KEY, SET_ADDRESSES, SET_PREFIXES, octets, set_parameters};
use crate::identity::{HostIdentity, HostPrefixes, ParametersRepr, Sec, SigningKey, cga, make_host, make_host_with};

const GENERATION: u32 = 7;

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(1024).unwrap());
static HYBRID: LazyLock<HostIdentity> = LazyLock::new(|| host(21, Some(&KEY)));
static HASHED: LazyLock<HostIdentity> = LazyLock::new(|| host(22, None));
static STRANGER: LazyLock<HostIdentity> = LazyLock::new(|| host(23, None));

fn host(seed: u64, key: Option<&SigningKey>) -> HostIdentity {
    let prefixes = HostPrefixes { ulid: SET_PREFIXES[0], locators: SET_PREFIXES[1..].to_vec() };
    make_host(&prefixes, Sec::ZERO, key, &mut StdRng::seed_from_u64(seed)).unwrap()
}

fn never(_: Ipv6Addr) -> bool {
    false
}

/// A plain CGA with this key: its ULID and parameters.
fn plain(key: &[u8]) -> (Ulid, Vec<u8>) {
    let request = cga::Request { prefix: SET_PREFIXES[0], sec: Sec::ZERO, key, extensions: &[] };
    let made = cga::generate_with_modifier(&request, 99, &mut never).unwrap();
    (Ulid(made.address), made.parameters.emit())
}

fn locator(address: &str) -> Locator {
    Locator(address.parse().unwrap())
}

/// An address no set of ours holds, as after renumbering.
fn outsider() -> Locator {
    locator("2001:db8:ffff::1")
}

fn list(entries: &[(Locator, VerificationMethod)]) -> LocatorList {
    LocatorList { generation: GENERATION, entries: entries.to_vec(), methods_offset: 0 }
}

fn sign(locators: &[Locator]) -> Vec<u8> {
    KEY.sign_locators(GENERATION, locators).unwrap()
}

fn fault(index: usize, reason: ListError) -> Result<(), ListFault> {
    Err(ListFault { index, reason })
}

#[test]
fn the_ulid_is_proved_by_its_own_parameters_and_by_those_of_its_set() {
    // R5535-023, A-H5
    for address in SET_ADDRESSES[0] {
        let ulid = Ulid(address.parse().unwrap());
        assert_eq!(verify_ulid(ulid, &set_parameters().emit()), Ok(Kind::Hba));
    }
    assert_eq!(verify_ulid(HYBRID.ulid, &HYBRID.pds), Ok(Kind::Hybrid));
    assert_eq!(verify_ulid(HYBRID.ulid, &HYBRID.pds_of(HYBRID.locators[0].0)), Ok(Kind::Hybrid));
    assert_eq!(verify_ulid(HASHED.ulid, &STRANGER.pds), Err(PdsError::Hash1));
    assert_eq!(verify_ulid(Ulid("2001:db8::1".parse().unwrap()), &HASHED.pds), Err(PdsError::PrefixNotInSet));
}

#[test]
fn a_plain_cga_is_not_proved_by_a_sibling() {
    // interop.md: prefix substitution is HBA's alone.
    let key = KEY.public_key_der();
    let (ulid, pds) = plain(key);
    assert_eq!(verify_ulid(ulid, &pds), Ok(Kind::Cga));
    let sibling = cga::Request { prefix: SET_PREFIXES[1], sec: Sec::ZERO, key, extensions: &[] };
    let sibling = cga::generate_with_modifier(&sibling, 99, &mut never).unwrap();
    assert_eq!(verify_ulid(ulid, &sibling.parameters.emit()), Err(PdsError::Prefix));
}

#[test]
fn a_ulid_outside_its_own_set_is_a_plain_cga_or_nothing() {
    // R5535-043
    let elsewhere = &SET_PREFIXES[1..];
    for (has_key, key, expected) in [
        (true, KEY.public_key_der().to_vec(), Ok(Kind::Cga)),
        (false, octets(NONCE_KEY), Err(PdsError::PrefixNotInSet)),
    ] {
        let extensions = MultiPrefix::encode(has_key, elsewhere);
        let request = cga::Request { prefix: SET_PREFIXES[0], sec: Sec::ZERO, key: &key, extensions: &extensions };
        let made = cga::generate_with_modifier(&request, 1, &mut never).unwrap();
        let (ulid, pds) = (Ulid(made.address), made.parameters.emit());
        assert_eq!(verify_ulid(ulid, &pds), expected);
        if has_key {
            // Its prefixes are no set of the ULID's, but its key is a key.
            let signature = sign(&[outsider()]);
            let signed = list(&[(outsider(), Cga)]);
            assert_eq!(verify_list(ulid, Some(&pds), &signed, Some(&signature)), Ok(()));
            let hashed = list(&[(outsider(), Hba)]);
            assert_eq!(verify_list(ulid, Some(&pds), &hashed, None), fault(0, ListError::MethodContradictsPds));
        }
    }
}

#[test]
fn members_are_proved_by_hash() {
    // R5535-027
    // R5533-127, R5533-133, R5535-024, R5535-036
    let [a, b] = HASHED.locators[..] else { panic!("two locators") };
    let pds = Some(&HASHED.pds[..]);
    let check = |entries: &[_]| verify_list(HASHED.ulid, pds, &list(entries), None);
    assert_eq!(check(&[(a, Hba), (b, Hba)]), Ok(()));
    assert_eq!(check(&[(b, Hba), (Locator(HASHED.ulid.0), Hba), (a, Hba), (a, Hba)]), Ok(()));
    assert_eq!(check(&[]), Ok(()));
    assert_eq!(check(&[(a, Hba), (outsider(), Hba)]), fault(1, ListError::NotInSet));
    assert_eq!(check(&[(a, Hba), (b, Hba), (STRANGER.locators[0], Hba)]), fault(2, ListError::NotInSet));
    // The parameters of a sibling do as well.
    let sibling = HASHED.pds_of(b.0);
    assert_eq!(verify_list(HASHED.ulid, Some(&sibling), &list(&[(a, Hba)]), None), Ok(()));
}

#[test]
fn members_by_hash_and_outsiders_by_signature() {
    // R5535-003, R5535-029, R5533-109, R5533-133
    let [a, b] = HYBRID.locators[..] else { panic!("two locators") };
    let check = |entries: &[_], signature: Option<&[u8]>| {
        verify_list(HYBRID.ulid, Some(&HYBRID.pds), &list(entries), signature)
    };
    let mixed = [(a, Hba), (outsider(), Cga), (b, Hba)];
    assert_eq!(check(&mixed, Some(&sign(&[outsider()]))), Ok(()));
    // R5533-115
    assert_eq!(check(&mixed, None), fault(1, ListError::MissingSignature));
    assert_eq!(check(&mixed, Some(&[0; 128])), fault(1, ListError::BadSignature));
    // Only locators of method CGA are under the signature.
    assert_eq!(check(&mixed, Some(&sign(&[a, outsider(), b]))), fault(1, ListError::BadSignature));
    // A-H6: an outsider that claims to be a member is not saved by a signature.
    let claimed = [(outsider(), Hba), (a, Cga)];
    assert_eq!(check(&claimed, Some(&sign(&[a]))), fault(0, ListError::NotInSet));
    // A member may be signed for instead.
    assert_eq!(check(&[(a, Cga)], Some(&sign(&[a]))), Ok(()));
    // Signatures are judged last, whatever comes first in the list.
    assert_eq!(check(&[(a, Cga), (outsider(), Hba)], Some(&[0; 128])), fault(1, ListError::NotInSet));
    // R5533-117
    let two = [(outsider(), Cga), (a, Cga)];
    assert_eq!(check(&two, Some(&sign(&[outsider(), a]))), Ok(()));
    assert_eq!(check(&two, Some(&sign(&[a, outsider()]))), fault(0, ListError::BadSignature));
}

#[test]
fn both_the_address_and_the_signature_must_hold() {
    // R3972-035, R3972-025: all four combinations.
    let (ulid, pds) = plain(KEY.public_key_der());
    let other = Ulid(HASHED.ulid.0);
    let entries = list(&[(outsider(), Cga)]);
    let (good, bad) = (sign(&[outsider()]), vec![1; 128]);
    let check = |ulid, signature: &[u8]| verify_list(ulid, Some(&pds), &entries, Some(signature));
    assert_eq!(check(ulid, &good), Ok(()));
    assert_eq!(check(ulid, &bad), fault(0, ListError::BadSignature));
    assert_eq!(check(other, &good), fault(0, ListError::ForeignPds));
    assert_eq!(check(other, &bad), fault(0, ListError::ForeignPds));
}

#[test]
fn methods_must_agree_with_the_parameters() {
    // R5533-114, R5533-131, R5533-132, R5535-040
    let (ulid, pds) = plain(KEY.public_key_der());
    let member = HASHED.locators[0];
    let entries = list(&[(member, Hba)]);
    assert_eq!(verify_list(ulid, Some(&pds), &entries, None), fault(0, ListError::MethodContradictsPds));
    let entries = list(&[(member, Hba), (member, Cga)]);
    let verdict = verify_list(HASHED.ulid, Some(&HASHED.pds), &entries, Some(&[0; 48]));
    assert_eq!(verdict, fault(1, ListError::MethodContradictsPds));
    for method in [0, 3, 77, 200, 201, 255] {
        let entries = list(&[(member, Hba), (member, Other(method))]);
        let verdict = verify_list(HASHED.ulid, Some(&HASHED.pds), &entries, None);
        assert_eq!(verdict, fault(1, ListError::UnsupportedMethod));
    }
}

#[test]
fn a_malformed_trailer_proves_no_locator() {
    // R4581-004
    let key = octets(NONCE_KEY);
    let mut extensions = MultiPrefix::encode(false, &SET_PREFIXES);
    extensions.push(0);
    let request = cga::Request { prefix: SET_PREFIXES[0], sec: Sec::ZERO, key: &key, extensions: &extensions };
    let made = cga::generate_with_modifier(&request, 1, &mut never).unwrap();
    let (ulid, pds) = (Ulid(made.address), made.parameters.emit());
    assert_eq!(verify_ulid(ulid, &pds), Ok(Kind::Cga));
    let check = |method| verify_list(ulid, Some(&pds), &list(&[(outsider(), method)]), Some(&[0; 48]));
    assert_eq!(check(Hba), fault(0, ListError::MethodContradictsPds));
    assert_eq!(check(Cga), fault(0, ListError::KeyTooShort));
}

#[test]
fn a_short_key_proves_members_but_signs_nothing() {
    // R5535-041, R5533-134
    let prefixes = HostPrefixes { ulid: SET_PREFIXES[0], locators: SET_PREFIXES[1..].to_vec() };
    let key = octets(RFC3972_KEY);
    let mut rng = StdRng::seed_from_u64(24);
    let host =
        make_host_with(&prefixes, Sec::ZERO, Some(&key), &mut rng, &mut never, &mut |_| ControlFlow::Continue(()))
            .unwrap();
    let check = |entries: &[_]| verify_list(host.ulid, Some(&host.pds), &list(entries), Some(&[0; 64]));
    assert_eq!(check(&[(host.locators[0], Hba)]), Ok(()));
    assert_eq!(check(&[(host.locators[0], Hba), (outsider(), Cga)]), fault(1, ListError::KeyTooShort));
}

#[test]
fn a_ulid_that_is_any_address_has_no_other_locators() {
    // R5535-033
    // R5535-034, D40
    let ulid = Ulid("2001:db8::1".parse().unwrap());
    for method in [Hba, Cga] {
        let entries = list(&[(HASHED.locators[0], method)]);
        assert_eq!(verify_list(ulid, None, &entries, Some(&[0; 128])), fault(0, ListError::MissingPds));
        assert_eq!(verify_list(ulid, Some(&HASHED.pds), &entries, Some(&[0; 128])), fault(0, ListError::ForeignPds));
    }
    assert_eq!(
        verify_list(ulid, Some(b"no parameters"), &list(&[(outsider(), Hba)]), None),
        fault(0, ListError::ForeignPds)
    );
}

#[test]
fn the_ulid_itself_needs_no_proof() {
    // RFC 5533 §7.2; parameters and signature are not even looked at.
    let ulid = Ulid("2001:db8::1".parse().unwrap());
    for method in [Hba, Cga] {
        assert_eq!(verify_list(ulid, None, &list(&[(Locator(ulid.0), method)]), None), Ok(()));
    }
    let odd = list(&[(Locator(ulid.0), Other(9))]);
    assert_eq!(verify_list(ulid, None, &odd, None), fault(0, ListError::UnsupportedMethod));
    // Where others are signed, it is under the signature if its method says so (R5533-116).
    let both = list(&[(Locator(HYBRID.ulid.0), Cga), (outsider(), Cga)]);
    let check = |signature: &[u8]| verify_list(HYBRID.ulid, Some(&HYBRID.pds), &both, Some(signature));
    assert_eq!(check(&sign(&[Locator(HYBRID.ulid.0), outsider()])), Ok(()));
    assert_eq!(check(&sign(&[outsider()])), fault(1, ListError::BadSignature));
}

#[test]
fn no_proof_makes_these_a_locator() {
    for address in ["::", "::1", "fe80::1", "febf::1", "ff02::1", "ff0e::1"] {
        let locators = [HYBRID.locators[0], locator(address)];
        let entries = list(&[(locators[0], Cga), (locators[1], Cga)]);
        let verdict = verify_list(HYBRID.ulid, Some(&HYBRID.pds), &entries, Some(&sign(&locators)));
        assert_eq!(verdict, fault(1, ListError::ForbiddenLocator), "{address}");
    }
}

#[test]
fn a_signature_is_bound_to_its_generation() {
    // R5533-116
    let signature = KEY.sign_locators(GENERATION + 1, &[outsider()]).unwrap();
    let entries = list(&[(outsider(), Cga)]);
    let verdict = verify_list(HYBRID.ulid, Some(&HYBRID.pds), &entries, Some(&signature));
    assert_eq!(verdict, fault(0, ListError::BadSignature));
}

#[test]
fn a_second_set_is_refused() {
    // R5535-044
    let extensions = MultiPrefix::encode(false, &SET_PREFIXES).repeat(2);
    let pds = ParametersRepr { extensions, ..set_parameters() }.emit();
    assert_eq!(verify_ulid(Ulid(SET_ADDRESSES[0][0].parse().unwrap()), &pds), Err(PdsError::TwoSets));
}

fn any_entry() -> impl Strategy<Value = (Locator, VerificationMethod)> {
    let known = vec![HYBRID.ulid.0, HYBRID.locators[0].0, HYBRID.locators[1].0, outsider().0];
    let address = prop_oneof![prop::sample::select(known), any::<u128>().prop_map(Ipv6Addr::from_bits)];
    let method = prop_oneof![Just(Hba), Just(Cga), any::<u8>().prop_map(Other)];
    (address.prop_map(Locator), method)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever comes, there is an answer, and it points into the list.
    #[test]
    fn any_message_gets_an_answer(
        cut in 0usize..400, flips in proptest::collection::vec((0usize..400, any::<u8>()), 0..4),
        tail in proptest::collection::vec(any::<u8>(), 0..40),
        entries in proptest::collection::vec(any_entry(), 0..6),
        signature in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..140)),
        generation in any::<u32>(),
    ) {
        let mut pds = HYBRID.pds.clone();
        pds.truncate(cut);
        for (at, mask) in flips {
            if let Some(octet) = pds.get_mut(at) {
                *octet ^= mask;
            }
        }
        pds.extend_from_slice(&tail);
        let list = LocatorList { generation, entries, methods_offset: 0 };
        let verdict = verify_list(HYBRID.ulid, Some(&pds), &list, signature.as_deref());
        if let Err(fault) = verdict {
            prop_assert!(fault.index < list.entries.len());
        } else {
            // Without a good signature, nothing but the ULID and its members gets through.
            for (locator, _) in &list.entries {
                prop_assert!(locator.0 == HYBRID.ulid.0 || HYBRID.locators.contains(locator));
            }
        }
        let _ = verify_ulid(HYBRID.ulid, &pds);
    }
}
