//! Where buffers come from.

use std::ffi::CString;
use std::ptr::NonNull;

use crate::eal::Eal;
use crate::error::{Errno, PoolError};
use crate::mbuf::Mbuf;
use crate::sys;

/// Octets before the packet in a fresh or received buffer, for headers to grow into.
pub const HEADROOM: u16 = sys::RTE_PKTMBUF_HEADROOM as u16;

/// A pool of packet buffers of one size. Clones are the same pool.
///
/// A pool lives as long as the process, and that is what makes [`Mbuf`] sound: a buffer is one pointer and does not
/// count its pool, and device queues hold buffers too. Pools are made at the start, sized by configuration; one made
/// per reload would be a leak.
#[derive(Clone, Debug)]
pub struct Pool {
    raw: NonNull<sys::rte_mempool>,
    count: u32,
    data_room: u16,
}

// SAFETY: the pool's ring is multi-producer and multi-consumer (DPDK's default, which `create` asks for), and its
// caches are per lcore: a thread that is no lcore uses none.
unsafe impl Send for Pool {}
// SAFETY: as above; every method that takes `&self` is one of those thread-safe operations.
unsafe impl Sync for Pool {}

impl Pool {
    /// Makes a pool of `count` buffers (best is a power of two less one) that hold `data_room` octets of packet behind
    /// [`HEADROOM`]. Each lcore may keep `cache` of them (512 at most, and less than two thirds of the count).
    pub fn create(started: &Eal, name: &str, count: u32, cache: u32, data_room: u16) -> Result<Self, PoolError> {
        Self::create_on(started, None, name, count, cache, data_room)
    }

    /// The same on a memory node, which is best that of the device that fills the buffers ([`crate::Port::socket_of`]).
    pub fn create_on(
        _started: &Eal,
        node: Option<u32>,
        name: &str,
        count: u32,
        cache: u32,
        data_room: u16,
    ) -> Result<Self, PoolError> {
        let invalid = |reason: String| Err(PoolError::Invalid { name: name.to_owned(), reason });
        // RTE_MEMPOOL_NAMESIZE: the name becomes part of a memory zone's name of 32 characters.
        if name.is_empty() || name.len() > 25 || name.contains('\0') {
            return invalid("a name has 1 to 25 characters".to_owned());
        }
        if cache > sys::RTE_MEMPOOL_CACHE_MAX_SIZE || u64::from(cache) * 3 > u64::from(count) * 2 {
            return invalid(format!("a cache of {cache} is over 512, or over two thirds of {count}"));
        }
        let Some(octets) = data_room.checked_add(HEADROOM) else {
            return invalid(format!("{data_room} octets and the headroom of {HEADROOM} are over 65535"));
        };
        let c_name = CString::new(name).unwrap_or_default();
        // -1 is SOCKET_ID_ANY.
        let node = node.and_then(|node| i32::try_from(node).ok()).unwrap_or(-1);
        // SAFETY: the EAL is started; the name is NUL-terminated and copied.
        let raw = unsafe { sys::rte_pktmbuf_pool_create(c_name.as_ptr(), count, cache, 0, octets, node) };
        NonNull::new(raw).map(|raw| Pool { raw, count, data_room }).ok_or_else(|| {
            let errno = Errno::last();
            let hint = match errno {
                Errno::ENOMEM => "give DPDK more memory, or make fewer or smaller buffers",
                Errno::EEXIST => "a pool of this name was made before, and pools are never taken down",
                _ => "DPDK gives its reason on standard error",
            };
            PoolError::Create { name: name.to_owned(), count, errno, hint }
        })
    }

    /// A packet holding a copy of `bytes`; none when the pool is empty or `bytes` does not fit one buffer.
    #[inline]
    pub fn allocate(&self, bytes: &[u8]) -> Option<Mbuf> {
        Mbuf::allocate(self, bytes)
    }

    /// Appends `count` copies of `bytes` to `burst` in one call, or none of them when the pool holds fewer or `bytes`
    /// does not fit.
    pub fn allocate_burst(&self, bytes: &[u8], count: usize, burst: &mut Vec<Mbuf>) -> bool {
        if bytes.len() > usize::from(self.data_room) || u32::try_from(count).is_err() {
            return false;
        }
        burst.reserve(count);
        let start = burst.len();
        let spare = burst.spare_capacity_mut().as_mut_ptr().cast();
        // SAFETY: there is room for `count` pointers behind the vector's end (just reserved).
        if unsafe { sys::pshim6_mbuf_alloc_bulk(self.raw.as_ptr(), spare, count as u32) } != 0 {
            return false;
        }
        // SAFETY: on success DPDK wrote all `count` of them, none null, and each is owned by nobody else. `Mbuf` is
        // one non-null pointer.
        unsafe { burst.set_len(start + count) };
        for mbuf in &mut burst[start..] {
            mbuf.fill(bytes);
        }
        true
    }

    /// Buffers nobody holds, caches included. A walk over all lcores: for counters, not for packets.
    pub fn available(&self) -> u32 {
        // SAFETY: the pool is alive; the count is a racy snapshot, which DPDK allows.
        unsafe { sys::rte_mempool_avail_count(self.raw.as_ptr()) }
    }

    /// Buffers in all.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Octets of packet one buffer holds behind the headroom.
    pub fn data_room(&self) -> u16 {
        self.data_room
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.raw.as_ptr()
    }
}
