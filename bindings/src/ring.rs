//! A ring of packets from one thread to one other, without a lock.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::eal::Eal;
use crate::error::{Errno, RingError};
use crate::mbuf::Mbuf;
use crate::sys;

/// Makes a ring of `size` entries (a power of two, of which `size - 1` hold a packet). Packets still in it when both
/// ends are gone go back to their pools.
pub fn ring(_started: &Eal, name: &str, size: u32) -> Result<(Producer, Consumer), RingError> {
    let wrong = |errno| RingError { name: name.to_owned(), size, errno };
    let c_name = CString::new(name).map_err(|_| wrong(Errno::EINVAL))?;
    let flags = sys::RING_F_SP_ENQ | sys::RING_F_SC_DEQ;
    // SAFETY: the EAL is started; the name is NUL-terminated and copied; -1 is SOCKET_ID_ANY.
    let raw = unsafe { sys::rte_ring_create(c_name.as_ptr(), size, -1, flags) };
    let raw = NonNull::new(raw).ok_or_else(|| wrong(Errno::last()))?;
    let ring = Arc::new(Ring(raw));
    Ok((Producer(Arc::clone(&ring)), Consumer(ring)))
}

#[derive(Debug)]
struct Ring(NonNull<sys::rte_ring>);

// SAFETY: a ring is shared memory made for two threads. Only `Producer` enqueues and only `Consumer` dequeues, each
// through `&mut self`, so there is one of each at any time.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

/// The end packets go in.
#[derive(Debug)]
pub struct Producer(Arc<Ring>);

impl Producer {
    /// Takes from the front of `burst` what there is room for and leaves the rest, in order.
    #[inline]
    pub fn push(&mut self, burst: &mut Vec<Mbuf>) {
        let count = burst.len() as u32;
        // SAFETY: the only producer (see `Ring`); the vector holds at least `count` buffers of ours.
        let taken = unsafe { sys::pshim6_ring_enqueue_burst(self.0.0.as_ptr(), burst.as_mut_ptr().cast(), count) };
        Mbuf::forget_first(burst, taken as usize);
    }
}

/// The end packets come out.
#[derive(Debug)]
pub struct Consumer(Arc<Ring>);

impl Consumer {
    /// Appends up to `burst.capacity() - burst.len()` packets; never allocates.
    #[inline]
    pub fn pop(&mut self, burst: &mut Vec<Mbuf>) {
        // SAFETY: the only consumer (see `Ring`).
        unsafe { dequeue(self.0.0, burst) };
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut burst = Vec::with_capacity(64);
        loop {
            // SAFETY: both ends are gone, so this is the only consumer.
            unsafe { dequeue(self.0, &mut burst) };
            if burst.is_empty() {
                break;
            }
            Mbuf::free_burst(&mut burst);
        }
        // SAFETY: nobody else has the pointer, and no packet is left in it.
        unsafe { sys::rte_ring_free(self.0.as_ptr()) };
    }
}

/// # Safety
/// The caller is the ring's only consumer.
#[inline]
unsafe fn dequeue(ring: NonNull<sys::rte_ring>, burst: &mut Vec<Mbuf>) {
    let start = burst.len();
    let spare = burst.spare_capacity_mut();
    let room = u32::try_from(spare.len()).unwrap_or(u32::MAX);
    // SAFETY: the ring is alive and this is its only consumer; there is room for `room` pointers.
    let count = unsafe { sys::pshim6_ring_dequeue_burst(ring.as_ptr(), spare.as_mut_ptr().cast(), room) };
    // SAFETY: `count <= room` pointers were written; all were whole `Mbuf`s when they were pushed.
    unsafe { burst.set_len(start + count as usize) };
}
