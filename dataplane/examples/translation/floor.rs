//! What no program with this data can undercut: one index line and two context lines per packet, fetched ahead, and the
//! headers written. No check of the packet, no hash, no comparison of keys, no verdict.

use dataplane::port::Frame;
use dataplane::port::memory::HeapFrame;
use dataplane::processor::prefetch;
use dataplane::translate::BURST;

use super::site::Frames;
use super::{Direction, Subject};

/// An index line, half full like the real one.
#[derive(Clone)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// A context: identifiers and tag in the first line, locators and counts in the second.
#[derive(Clone)]
#[repr(C, align(64))]
struct Entry {
    ulids: [u8; 32],
    peer_tag: [u8; 8],
    digest: u64,
    spare: [u64; 2],
    locators: [u8; 32],
    traffic: [[u64; 2]; 2],
}

const _: () = assert!(size_of::<Line>() == 64 && size_of::<Entry>() == 128);

/// Contexts in an index line.
const FILED: u32 = 4;
const ETHERNET: [u8; 14] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];

pub(super) struct Floor {
    index: Box<[Line]>,
    entries: Box<[Entry]>,
    mask: u32,
    batches: Vec<Vec<HeapFrame>>,
    slots: Vec<u32>,
}

impl Floor {
    /// `contexts` is a power of two.
    pub(super) fn new(contexts: u32) -> Floor {
        let mut index = vec![Line([0; 16]); (contexts / FILED) as usize].into_boxed_slice();
        for key in 0..contexts {
            // Any permutation of the contexts will do that neighbours in the index are strangers in the table.
            let slot = key.wrapping_mul(0x9e37_79b1) & (contexts - 1);
            index[(key / FILED) as usize].0[(key % FILED) as usize] = slot;
        }
        let entry = Entry {
            ulids: [0xfc; 32],
            peer_tag: [0x80; 8],
            digest: 0,
            spare: [0; 2],
            locators: [0x20; 32],
            traffic: [[0; 2]; 2],
        };
        let entries = vec![entry; contexts as usize].into_boxed_slice();
        Floor { index, entries, mask: contexts - 1, batches: Vec::new(), slots: Vec::with_capacity(BURST) }
    }
}

/// The octets of a packet that tell contexts apart: the end of the destination, or of the tag.
fn key(direction: Direction, frame: &HeapFrame, mask: u32) -> u32 {
    let end = if direction == Direction::Egress { 54 } else { 62 };
    let octets = frame.bytes().get(end - 4..end).and_then(|octets| octets.first_chunk::<4>());
    // An odd factor makes neighbours land in different lines and keeps the keys apart.
    u32::from_be_bytes(octets.copied().unwrap_or_default()).wrapping_mul(0x85eb_ca6b) & mask
}

impl Subject for Floor {
    fn run(&mut self, direction: Direction, frames: &mut Frames) {
        self.batches.resize_with(frames.len() / BURST, || Vec::with_capacity(BURST));
        let Floor { index, entries, mask, batches, slots } = self;
        for batch in batches {
            let from = frames.all.len() - BURST;
            batch.extend(frames.all.drain(from..));
            slots.clear();
            for frame in batch.iter() {
                let key = key(direction, frame, *mask);
                prefetch(&index[(key / FILED) as usize]);
                slots.push(key);
            }
            for slot in slots.iter_mut() {
                *slot = index[(*slot / FILED) as usize].0[(*slot % FILED) as usize];
                prefetch(&entries[*slot as usize].ulids);
                prefetch(&entries[*slot as usize].locators);
            }
            for (frame, &slot) in batch.iter_mut().zip(slots.iter()) {
                let entry = &mut entries[slot as usize];
                match direction {
                    Direction::Egress => egress(frame, entry),
                    Direction::Ingress => ingress(frame, entry),
                }
            }
        }
    }

    fn rest(&mut self, _: Direction, frames: &mut Frames) {
        for batch in &mut self.batches {
            frames.all.append(batch);
        }
    }
}

fn egress(frame: &mut HeapFrame, entry: &mut Entry) {
    let octets = frame.bytes().len() as u64 - 14;
    if !frame.prepend(8) {
        return;
    }
    let bytes = frame.bytes_mut();
    let Some(old) = bytes.get(22..30).and_then(|old| old.first_chunk::<8>()).copied() else { return };
    let mut new = [0; 62];
    new[..14].copy_from_slice(&ETHERNET);
    new[14..22].copy_from_slice(&[old[0], old[1], old[2], old[3], old[4], old[5].wrapping_add(8), 140, old[7] - 1]);
    new[22..54].copy_from_slice(&entry.locators);
    new[54..62].copy_from_slice(&entry.peer_tag);
    new[54] = old[6];
    bytes[..62].copy_from_slice(&new);
    note(entry, 0, octets);
}

fn ingress(frame: &mut HeapFrame, entry: &mut Entry) {
    let octets = frame.bytes().len() as u64 - 22;
    let bytes = frame.bytes_mut();
    let (Some(old), Some(&next_header)) = (bytes.get(14..22).and_then(|old| old.first_chunk::<8>()), bytes.get(54))
    else {
        return;
    };
    let mut new = [0; 54];
    new[..14].copy_from_slice(&ETHERNET);
    let length = old[5].wrapping_sub(8);
    new[14..22].copy_from_slice(&[old[0], old[1], old[2], old[3], old[4], length, next_header, old[7] - 1]);
    new[22..54].copy_from_slice(&entry.ulids);
    frame.trim_front(8);
    frame.bytes_mut()[..54].copy_from_slice(&new);
    note(entry, 1, octets);
}

fn note(entry: &mut Entry, way: usize, octets: u64) {
    entry.digest |= 1 << way;
    entry.traffic[way][0] += 1;
    entry.traffic[way][1] += octets;
}
