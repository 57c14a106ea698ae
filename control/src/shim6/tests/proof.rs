//! What was proved once need not be proved again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Counts how often it is asked about a list.
struct Counting(Arc<AtomicUsize>);

impl LocatorProof for Counting {
    fn owns(&mut self, ulid: Ulid, pds: &[u8]) -> bool {
        FakeProof.owns(ulid, pds)
    }

    fn proves(
        &mut self,
        ulid: Ulid,
        pds: Option<&[u8]>,
        list: &LocatorList,
        signature: Option<&[u8]>,
    ) -> Result<(), usize> {
        self.0.fetch_add(1, Ordering::Relaxed);
        FakeProof.proves(ulid, pds, list, signature)
    }

    fn parameters_of(&self, address: Ulid, pds: &[u8]) -> Vec<u8> {
        FakeProof.parameters_of(address, pds)
    }
}

fn counted() -> (ProofMemory<Counting>, impl Fn() -> usize) {
    let count = Arc::new(AtomicUsize::new(0));
    (ProofMemory::new(Counting(count.clone())), move || count.load(Ordering::Relaxed))
}

/// A question: ULID, parameters, list, signature.
type Question = (Ulid, Option<Vec<u8>>, LocatorList, Option<Vec<u8>>);

fn question(generation: u32) -> Question {
    let ulid = ulid(2, 1);
    let entries = [1, 2].map(|provider| (locator(2, provider, 1), VerificationMethod::Cga)).to_vec();
    let list = LocatorList { generation, entries, methods_offset: 0 };
    (ulid, Some(ulid.0.octets().to_vec()), list, Some(generation.to_be_bytes().to_vec()))
}

fn ask(memory: &mut impl LocatorProof, (ulid, pds, list, signature): &Question) -> Result<(), usize> {
    memory.proves(*ulid, pds.as_deref(), list, signature.as_deref())
}

#[test]
fn the_same_signed_list_is_proved_once() {
    // Spec part 5, item 3: a replayed I2 costs a hash.
    let (mut memory, count) = counted();
    for _ in 0..10 {
        assert_eq!(ask(&mut memory, &question(7)), Ok(()));
    }
    assert_eq!(count(), 1);
    // Where in the message the methods stood is no part of the question.
    let mut moved = question(7);
    moved.2.methods_offset = 40;
    assert_eq!((ask(&mut memory, &moved), count()), (Ok(()), 1));
}

#[test]
fn whatever_differs_is_another_question() {
    // R5533-133
    let (mut memory, count) = counted();
    assert_eq!(ask(&mut memory, &question(7)), Ok(()));
    let altered: [fn(&mut Question); 9] = [
        |q| q.0 = ulid(3, 1),
        |q| q.1 = None,
        |q| q.1.as_mut().unwrap().push(0),
        |q| q.2.generation = 8,
        |q| q.2.entries[1].0 = locator(9, 9, 9),
        |q| q.2.entries[1].1 = VerificationMethod::Hba,
        |q| q.2.entries.truncate(1),
        |q| q.3 = None,
        |q| q.3.as_mut().unwrap()[0] ^= 1,
    ];
    for (at, alter) in altered.iter().enumerate() {
        let mut other = question(7);
        alter(&mut other);
        assert_eq!(ask(&mut memory, &other), ask(&mut FakeProof, &other), "alteration {at}");
        assert_eq!(count(), at + 2, "alteration {at}");
    }
    // An octet that moves from one part to the next.
    let (mut one, mut other) = (question(7), question(7));
    one.1.as_mut().unwrap().push(7);
    other.3.as_mut().unwrap().insert(0, 7);
    let before = count();
    assert_ne!(ask(&mut memory, &one), ask(&mut memory, &other));
    assert_eq!(count(), before + 2);
}

#[test]
fn neither_what_is_false_nor_what_is_cheap_is_remembered() {
    let (mut memory, count) = counted();
    let mut forged = question(7);
    forged.3 = None;
    let mut hashed = question(7);
    hashed.2.entries.iter_mut().for_each(|entry| entry.1 = VerificationMethod::Hba);
    for _ in 0..3 {
        assert_eq!(ask(&mut memory, &forged), Err(0));
        assert_eq!(ask(&mut memory, &hashed), Ok(()));
    }
    assert_eq!(count(), 6);
}

#[test]
fn what_was_not_asked_for_longest_is_forgotten_first() {
    let max = ProofMemory::<Counting>::MAX;
    let (mut memory, count) = counted();
    for generation in 0..max as u32 {
        assert_eq!(ask(&mut memory, &question(generation)), Ok(()));
    }
    assert_eq!((ask(&mut memory, &question(0)), count()), (Ok(()), max));
    assert_eq!((ask(&mut memory, &question(max as u32)), count()), (Ok(()), max + 1));
    assert_eq!((ask(&mut memory, &question(0)), count()), (Ok(()), max + 1));
    assert_eq!((ask(&mut memory, &question(1)), count()), (Ok(()), max + 2));
}
