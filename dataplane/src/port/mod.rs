//! Where packets come from and go to: one small trait, with siblings behind it.

#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod late;
pub mod memory;
pub mod pcap;

/// A packet in a buffer that can grow at its front.
pub trait Frame: Sized + Send + 'static {
    /// The packet from its Ethernet header.
    fn bytes(&self) -> &[u8];
    /// The same, writable.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Grows the packet by `octets` at its front, or leaves it alone and says false when there is no room.
    fn prepend(&mut self, octets: usize) -> bool;
    /// Removes `octets` from the front; all of it when the packet is shorter.
    fn trim_front(&mut self, octets: usize);
    /// Cuts the packet to its first `octets`; longer than the packet is no change.
    fn truncate(&mut self, octets: usize);
    /// Asks the cache for what describes a packet that another core had.
    fn prefetch(&self) {}
    /// Asks the cache for its first octets; best when what describes it has arrived.
    fn prefetch_octets(&self) {}
    /// Gives back all of a burst at once. The list keeps its room.
    fn discard(burst: &mut Vec<Self>) {
        burst.clear();
    }
}

/// One receive queue and one transmit queue of a device, owned by one worker.
pub trait Port<F: Frame>: Send {
    /// Appends up to `burst.capacity() - burst.len()` received packets; never allocates.
    fn receive(&mut self, burst: &mut Vec<F>);
    /// Takes from the front of `burst` what the device accepts and leaves the rest, in order.
    fn transmit(&mut self, burst: &mut Vec<F>);
}

/// Where new packets come from.
pub trait Pool<F: Frame>: Send {
    /// A packet holding a copy of `bytes`; none when the pool is empty or `bytes` does not fit one buffer.
    fn allocate(&self, bytes: &[u8]) -> Option<F>;
}
