//! Ports made of queues in memory: for tests, simulations and benches. No device, no root.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Frame, Pool, Port};

/// Octets kept free in front of a packet, as in a DPDK buffer.
pub const HEADROOM: usize = 128;

/// A packet on the heap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeapFrame {
    buffer: Vec<u8>,
    start: usize,
}

impl HeapFrame {
    /// A packet holding `bytes`.
    pub fn new(bytes: &[u8]) -> HeapFrame {
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(bytes);
        HeapFrame { buffer, start: HEADROOM }
    }
}

impl Frame for HeapFrame {
    fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.start..).unwrap_or_default()
    }

    fn prepend(&mut self, octets: usize) -> bool {
        match self.start.checked_sub(octets) {
            Some(start) => {
                self.start = start;
                true
            }
            None => false,
        }
    }

    fn trim_front(&mut self, octets: usize) {
        self.start += octets.min(self.bytes().len());
    }

    fn truncate(&mut self, octets: usize) {
        self.buffer.truncate(self.start.saturating_add(octets));
    }
}

/// Makes heap packets without end.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeapPool;

impl Pool<HeapFrame> for HeapPool {
    fn allocate(&self, bytes: &[u8]) -> Option<HeapFrame> {
        Some(HeapFrame::new(bytes))
    }
}

type Queue = Arc<Mutex<VecDeque<HeapFrame>>>;

/// A port whose wire is two queues.
#[derive(Clone, Debug, Default)]
pub struct MemoryPort {
    inbound: Queue,
    outbound: Queue,
}

/// The far end of a [`MemoryPort`].
#[derive(Clone, Debug, Default)]
pub struct Wire {
    to_port: Queue,
    from_port: Queue,
}

impl MemoryPort {
    /// A port and its far end.
    pub fn new() -> (MemoryPort, Wire) {
        let port = MemoryPort::default();
        let wire = Wire { to_port: port.inbound.clone(), from_port: port.outbound.clone() };
        (port, wire)
    }
}

impl Wire {
    /// Sends a frame to the port.
    pub fn send(&self, bytes: &[u8]) {
        self.to_port.lock().push_back(HeapFrame::new(bytes));
    }

    /// Takes the next frame the port sent.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let frame = self.from_port.lock().pop_front();
        frame.map(|frame| frame.bytes().to_vec())
    }
}

impl Port<HeapFrame> for MemoryPort {
    fn receive(&mut self, burst: &mut Vec<HeapFrame>) {
        let mut queue = self.inbound.lock();
        while burst.len() < burst.capacity() {
            let Some(frame) = queue.pop_front() else { break };
            burst.push(frame);
        }
    }

    fn transmit(&mut self, burst: &mut Vec<HeapFrame>) {
        self.outbound.lock().extend(burst.drain(..));
    }
}
