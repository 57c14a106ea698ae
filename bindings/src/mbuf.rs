//! One packet in one buffer of DPDK.

use std::ptr::{self, NonNull};
use std::slice;

use crate::pool::{HEADROOM, Pool};
use crate::sys;

/// A packet, owned. Dropping it gives the buffer back to its pool.
///
/// Always one buffer: packets that a device spreads over several never become an `Mbuf` (see [`crate::QueuePair::receive`]). No
/// offload is ever asked for: flags of reception are cleared, so no NIC touches a checksum on the way out.
///
/// Invariants, which every way to make one establishes and every method keeps: the pointer is to a live mbuf that
/// nothing else refers to (`refcnt` 1, not cloned), `nb_segs` is 1, `pkt_len == data_len`, and
/// `data_off + data_len <= buf_len`.
#[repr(transparent)]
#[derive(Debug)]
pub struct Mbuf(NonNull<sys::rte_mbuf>);

// A burst of them is handed to C as an array of pointers.
const _: () = assert!(size_of::<Mbuf>() == size_of::<*mut sys::rte_mbuf>());

// SAFETY: an mbuf is plain memory without ties to a thread, and its pool may be given buffers back by any thread.
unsafe impl Send for Mbuf {}
// SAFETY: through `&Mbuf` the packet can only be read.
unsafe impl Sync for Mbuf {}

impl Mbuf {
    /// A packet holding a copy of `bytes`; none when the pool is empty or `bytes` does not fit one buffer.
    pub fn allocate(pool: &Pool, bytes: &[u8]) -> Option<Self> {
        if bytes.len() > usize::from(pool.data_room()) {
            return None;
        }
        // SAFETY: the pool is alive (pools always are). A buffer from it is reset, single and ours.
        let raw = unsafe { sys::pshim6_mbuf_alloc(pool.as_ptr()) };
        let mut mbuf = Mbuf(NonNull::new(raw)?);
        mbuf.fill(bytes);
        Some(mbuf)
    }

    /// Makes `bytes` the packet of a fresh buffer, whose pool has room for them.
    #[inline]
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        let raw = self.0.as_ptr();
        // SAFETY: the buffer is ours; `buf_addr` points to `buf_len` octets, which are the headroom and the pool's
        // data room, and callers checked `bytes` against the latter.
        unsafe {
            debug_assert!(usize::from((*raw).data_off) + bytes.len() <= usize::from((*raw).buf_len));
            let data = (*raw).buf_addr.cast::<u8>().add(usize::from((*raw).data_off));
            ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
        }
        self.set_len(bytes.len() as u16);
    }

    /// Takes a buffer over from a device: clears what reception left, and says whether the invariants hold.
    #[inline]
    pub(crate) fn settle(&mut self) -> bool {
        let raw = self.0.as_ptr();
        // SAFETY: the device gave the buffer to us, so these fields are ours to read and write.
        unsafe {
            // Whether the octets lie in the buffer itself or elsewhere is no request to a NIC, and freeing needs it.
            let attachment = (*raw).ol_flags & sys::PSHIM6_MBUF_ATTACHMENT;
            (*raw).ol_flags = attachment;
            (*raw).nb_segs == 1 && (*raw).refcnt == 1 && attachment & sys::PSHIM6_MBUF_CLONE == 0
        }
    }

    /// Octets in the packet.
    #[inline]
    pub fn len(&self) -> usize {
        // SAFETY: the buffer is alive and ours.
        usize::from(unsafe { (*self.0.as_ptr()).data_len })
    }

    /// Whether there is nothing in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets by which it can grow at its front.
    #[inline]
    pub fn headroom(&self) -> usize {
        // SAFETY: the buffer is alive and ours.
        usize::from(unsafe { (*self.0.as_ptr()).data_off })
    }

    /// The packet from its Ethernet header.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `data_off + data_len <= buf_len`, so the octets are inside the buffer; a pool's memory is zeroed
        // when made, so they are initialised; nothing writes them while `self` is borrowed, for it is the only owner.
        unsafe { slice::from_raw_parts(self.data(), self.len()) }
    }

    /// The same, writable.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; and `refcnt` is 1, so no other mbuf shows these octets.
        unsafe { slice::from_raw_parts_mut(self.data(), self.len()) }
    }

    /// Grows the packet by `octets` at its front, or leaves it alone and says false when there is no room. The new
    /// octets hold whatever was there.
    #[inline]
    pub fn prepend(&mut self, octets: usize) -> bool {
        if octets > self.headroom() || octets + self.len() > usize::from(u16::MAX) {
            return false;
        }
        let length = self.len() + octets;
        let raw = self.0.as_ptr();
        // SAFETY: the buffer is ours, and `octets <= data_off`.
        unsafe { (*raw).data_off -= octets as u16 };
        self.set_len(length as u16);
        true
    }

    /// Removes `octets` from the front; all of it when the packet is shorter.
    #[inline]
    pub fn trim_front(&mut self, octets: usize) {
        let octets = octets.min(self.len());
        let raw = self.0.as_ptr();
        // SAFETY: the buffer is ours; the packet's start moves within the packet.
        unsafe { (*raw).data_off += octets as u16 };
        self.set_len((self.len() - octets) as u16);
    }

    /// Cuts the packet to its first `octets`; longer than the packet is no change.
    #[inline]
    pub fn truncate(&mut self, octets: usize) {
        self.set_len(self.len().min(octets) as u16);
    }

    /// Asks the cache for what describes the packet: its length and where it lies, and what freeing looks at. For packets
    /// that another core had.
    #[inline(always)]
    pub fn prefetch(&self) {
        let header = self.0.as_ptr().cast::<u8>().cast_const();
        prefetch(header);
        prefetch(header.wrapping_add(64));
    }

    /// Asks the cache for the first octets of the packet and those before it, into which headers grow.
    #[inline(always)]
    pub fn prefetch_octets(&self) {
        let data = self.data().cast_const();
        prefetch(data);
        prefetch(data.wrapping_add(64));
        prefetch(data.wrapping_sub(8));
    }

    /// Gives back all of `burst` in one call.
    pub fn free_burst(burst: &mut Vec<Mbuf>) {
        let count = burst.len();
        // SAFETY: nothing is dropped twice: the vector forgets its packets before DPDK takes them.
        unsafe {
            burst.set_len(0);
            sys::rte_pktmbuf_free_bulk(burst.as_mut_ptr().cast(), count as u32);
        }
    }

    /// Drops the first `taken` from the vector without freeing them: a device or ring owns them now.
    #[inline]
    pub(crate) fn forget_first(burst: &mut Vec<Mbuf>, taken: usize) {
        let left = burst.len().saturating_sub(taken);
        // SAFETY: the first `taken` now belong to somebody else, so they are overwritten without a drop; the rest
        // moves to the front, and the length says so.
        unsafe {
            let start = burst.as_mut_ptr();
            ptr::copy(start.add(burst.len() - left), start, left);
            burst.set_len(left);
        }
    }

    #[inline]
    fn set_len(&mut self, octets: u16) {
        let raw = self.0.as_ptr();
        // SAFETY: the buffer is ours; callers keep `data_off + octets <= buf_len`.
        unsafe {
            (*raw).data_len = octets;
            (*raw).pkt_len = u32::from(octets);
        }
    }

    #[inline]
    fn data(&self) -> *mut u8 {
        let raw = self.0.as_ptr();
        // SAFETY: `data_off <= buf_len`, so the result is inside the buffer or one past its end.
        unsafe { (*raw).buf_addr.cast::<u8>().add(usize::from((*raw).data_off)) }
    }
}

/// Asks for the cache line of an address. It may be any address.
#[inline(always)]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction is a hint to the cache; it reads nothing into the program and cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this is the only owner, and the pool is alive because pools always are.
        unsafe { sys::pshim6_mbuf_free(self.0.as_ptr()) }
    }
}

const _: () = assert!(HEADROOM >= 8, "the payload header needs 8 octets before every packet");
