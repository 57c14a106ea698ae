//! Threads: which core they run on, and DPDK's number for them.
//!
//! DPDK keeps a cache of buffers per lcore. A thread that is no lcore still allocates and frees correctly, but every
//! time through the pool's shared ring; a worker should hold an [`Lcore`] for as long as it runs.

use std::marker::PhantomData;

use crate::eal::Eal;
use crate::error::{Errno, LcoreError};
use crate::sys;

/// The calling thread's registration with DPDK; given back when dropped.
#[derive(Debug)]
pub struct Lcore {
    id: u32,
    /// The registration belongs to the thread that made it, so it must not leave that thread.
    _this_thread: PhantomData<*mut ()>,
}

impl Lcore {
    /// Registers the calling thread. Pin it first (see [`pin`]): DPDK remembers the core it finds.
    pub fn register(_started: &Eal) -> Result<Self, LcoreError> {
        if let Some(id) = current() {
            return Err(LcoreError::Registered { id });
        }
        // SAFETY: the EAL is started, which `_started` proves, and this thread is not registered.
        if unsafe { sys::rte_thread_register() } < 0 {
            return Err(LcoreError::Register { errno: Errno::last(), most: sys::RTE_MAX_LCORE });
        }
        let id = current().unwrap_or(u32::MAX);
        Ok(Lcore { id, _this_thread: PhantomData })
    }

    /// DPDK's number for this thread.
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for Lcore {
    fn drop(&mut self) {
        // SAFETY: this thread registered itself (the guard cannot have moved to another) and holds the only guard.
        unsafe { sys::rte_thread_unregister() }
    }
}

/// DPDK's number for the calling thread; none when it is not an lcore.
pub fn current() -> Option<u32> {
    // SAFETY: reads a thread-local of DPDK; no precondition. A shim because it is a static inline in C.
    let id = unsafe { sys::pshim6_lcore_id() };
    (id != u32::MAX).then_some(id)
}

/// Lets the calling thread run on `core` alone. Threads it starts afterwards inherit this.
pub fn pin(core: u32) -> Result<(), LcoreError> {
    Affinity::only(core).and_then(|affinity| affinity.apply()).map_err(|reason| LcoreError::Pin { core, reason })
}

/// The set of cores a thread may run on.
pub(crate) struct Affinity(sys::cpu_set_t);

impl Affinity {
    /// That of the calling thread.
    pub(crate) fn current() -> Result<Self, String> {
        let mut set = sys::cpu_set_t::default();
        // SAFETY: 0 is the calling thread; `set` is as large as said.
        let answer = unsafe { sys::sched_getaffinity(0, size_of_val(&set) as _, &mut set) };
        if answer < 0 { Err(std::io::Error::last_os_error().to_string()) } else { Ok(Affinity(set)) }
    }

    fn only(core: u32) -> Result<Self, String> {
        let mut set = sys::cpu_set_t::default();
        let word = set.__bits.get_mut(core as usize / 64).ok_or("there is no such core")?;
        *word |= 1 << (core % 64);
        Ok(Affinity(set))
    }

    /// Makes it that of the calling thread.
    pub(crate) fn apply(&self) -> Result<(), String> {
        // SAFETY: 0 is the calling thread; the set is as large as said and only read.
        let answer = unsafe { sys::sched_setaffinity(0, size_of_val(&self.0) as _, &self.0) };
        if answer < 0 { Err(std::io::Error::last_os_error().to_string()) } else { Ok(()) }
    }

    /// The lowest core in it.
    pub(crate) fn first(&self) -> Option<u32> {
        let word = self.0.__bits.iter().position(|word| *word != 0)?;
        Some(word as u32 * 64 + self.0.__bits[word].trailing_zeros())
    }
}

/// The memory node that a core is nearest to; none if the kernel knows of none.
pub fn node_of_core(core: u32) -> Option<u32> {
    let entries = std::fs::read_dir(format!("/sys/devices/system/cpu/cpu{core}")).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("node")?.parse().ok()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_has_one_memory_node_at_most() {
        // Not all kernels know of nodes; one that does has the first core in one of them.
        let there = std::path::Path::new("/sys/devices/system/cpu/cpu0/node0").exists();
        assert_eq!(node_of_core(0) == Some(0), there);
        assert_eq!(node_of_core(1 << 20), None);
    }

    #[test]
    fn a_pinned_thread_runs_on_that_core_alone() {
        // In a thread of its own, which takes the affinity with it when it ends.
        std::thread::spawn(|| {
            let core = Affinity::current().unwrap().first().unwrap();
            pin(core).unwrap();
            let now = Affinity::current().unwrap();
            assert_eq!(now.first(), Some(core));
            assert_eq!(now.0.__bits.iter().map(|word| word.count_ones()).sum::<u32>(), 1);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_core_that_is_not_there_is_an_error() {
        assert!(matches!(pin(1_000_000), Err(LcoreError::Pin { core: 1_000_000, .. })));
        assert!(matches!(pin(1023), Err(LcoreError::Pin { core: 1023, .. })));
    }
}
