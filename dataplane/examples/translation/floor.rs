//! What no program with this data can undercut: the same lines of memory, fetched ahead in the same way and in huge pages
//! too, and the same octets written: headers, counts, and for each packet where it goes. No check of the packet, no hash,
//! no comparison of keys. Egress reads an index line and both lines of a context, ingress the first line of a context,
//! which the tag names, and its host.

use std::hint::black_box;

use dataplane::memory::huge;
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

/// A context: what comes in needs the first line, what goes out both.
#[derive(Clone)]
#[repr(C, align(64))]
struct Entry {
    local_tag: u64,
    ulids: [u8; 32],
    received: [u64; 2],
    host: u32,
    provider: u8,
    digest: u8,
    locators: [u8; 32],
    peer_tag: [u8; 8],
    handle: u64,
    sent: [u64; 2],
}

/// A host: where its packets go.
#[derive(Clone)]
#[repr(C)]
struct Host {
    ulid: [u8; 16],
    mac: [u8; 6],
    port: u8,
}

/// As many as the site has.
const HOSTS: u32 = 256;

const _: () = assert!(size_of::<Line>() == 64 && size_of::<Entry>() == 128);

/// Contexts in an index line.
const FILED: u32 = 4;
const ETHERNET: [u8; 14] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];

pub(super) struct Floor {
    index: Box<[Line]>,
    entries: Box<[Entry]>,
    hosts: Box<[Host]>,
    mask: u32,
    batches: Vec<Vec<HeapFrame>>,
    slots: Vec<u32>,
    exits: Vec<u8>,
}

impl Floor {
    /// `contexts` is a power of two.
    pub(super) fn new(contexts: u32) -> Floor {
        let mut index = huge((contexts / FILED) as usize, Line([0; 16]));
        for key in 0..contexts {
            // Any permutation of the contexts will do that neighbours in the index are strangers in the table.
            let slot = key.wrapping_mul(0x9e37_79b1) & (contexts - 1);
            index[(key / FILED) as usize].0[(key % FILED) as usize] = slot;
        }
        let entry = Entry {
            local_tag: 0,
            ulids: [0xfc; 32],
            received: [0; 2],
            host: 0,
            provider: 0,
            digest: 0,
            locators: [0x20; 32],
            peer_tag: [0x80; 8],
            handle: 0,
            sent: [0; 2],
        };
        let mut entries = huge(contexts as usize, entry);
        for (entry, number) in entries.iter_mut().zip(0..) {
            entry.host = number % HOSTS;
        }
        let hosts = huge(HOSTS as usize, Host { ulid: [0xfc; 16], mac: [2, 0, 0, 0, 0, 2], port: 0 });
        let (slots, exits) = (Vec::with_capacity(BURST), Vec::with_capacity(BURST));
        Floor { index, entries, hosts, mask: contexts - 1, batches: Vec::new(), slots, exits }
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
        let Floor { index, entries, hosts, mask, batches, slots, exits } = self;
        for batch in batches {
            let from = frames.all.len() - BURST;
            batch.extend(frames.all.drain(from..));
            slots.clear();
            exits.clear();
            for frame in batch.iter() {
                let key = key(direction, frame, *mask);
                match direction {
                    Direction::Egress => prefetch(&index[(key / FILED) as usize]),
                    Direction::Ingress => prefetch(&entries[key as usize]),
                }
                slots.push(key);
            }
            for slot in slots.iter_mut() {
                if direction == Direction::Egress {
                    *slot = index[(*slot / FILED) as usize].0[(*slot % FILED) as usize];
                    prefetch(&entries[*slot as usize].local_tag);
                    prefetch(&entries[*slot as usize].locators);
                } else {
                    prefetch(&hosts[entries[*slot as usize].host as usize]);
                }
            }
            for (frame, &slot) in batch.iter_mut().zip(slots.iter()) {
                let entry = &mut entries[slot as usize];
                exits.push(match direction {
                    Direction::Egress => egress(frame, entry),
                    Direction::Ingress => ingress(frame, entry, hosts),
                });
            }
            black_box(&exits);
        }
    }

    fn rest(&mut self, _: Direction, frames: &mut Frames) {
        for batch in &mut self.batches {
            frames.all.append(batch);
        }
    }
}

fn egress(frame: &mut HeapFrame, entry: &mut Entry) -> u8 {
    let octets = frame.bytes().len() as u64 - 14;
    if !frame.prepend(8) {
        return 0;
    }
    // Written in place: put together elsewhere, it would wait for itself to be read back.
    let Some(out) = frame.bytes_mut().first_chunk_mut::<62>() else { return 0 };
    let mut old = [0; 8];
    old.copy_from_slice(&out[22..30]);
    let old = u64::from_be_bytes(old);
    out[..14].copy_from_slice(&ETHERNET);
    out[14..22].copy_from_slice(&(((old + (8 << 16) - 1) & !0xff00) | 140 << 8).to_be_bytes());
    out[22..54].copy_from_slice(&entry.locators);
    out[54..62].copy_from_slice(&entry.peer_tag);
    out[54] = (old >> 8) as u8;
    entry.digest |= 1;
    entry.sent[0] += 1;
    entry.sent[1] += octets;
    entry.provider
}

fn ingress(frame: &mut HeapFrame, entry: &mut Entry, hosts: &[Host]) -> u8 {
    let host = &hosts[entry.host as usize];
    let octets = frame.bytes().len() as u64 - 22;
    let Some(out) = frame.bytes_mut().first_chunk_mut::<62>() else { return 0 };
    let mut old = [0; 8];
    old.copy_from_slice(&out[14..22]);
    let (old, next_header) = (u64::from_be_bytes(old), u64::from(out[54]));
    out[8..22].copy_from_slice(&ETHERNET);
    out[8..14].copy_from_slice(&host.mac);
    out[22..30].copy_from_slice(&(((old - (8 << 16) - 1) & !0xff00) | next_header << 8).to_be_bytes());
    out[30..62].copy_from_slice(&entry.ulids);
    frame.trim_front(8);
    entry.digest |= 2;
    entry.received[0] += 1;
    entry.received[1] += octets;
    host.port
}
