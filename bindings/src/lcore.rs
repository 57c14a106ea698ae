//! Threads: which core they run on, and DPDK's number for them.
//!
//! DPDK keeps a cache of buffers per lcore. A thread that is no lcore still allocates and frees correctly, but every
//! time through the pool's shared ring; a worker should hold an [`Lcore`] for as long as it runs.

use std::marker::PhantomData;
use std::time::Duration;

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

/// How long the calling thread has run so far: not the time in which it waited for its core, nor, where the kernel is told
/// of that, the time in which the machine below did not run.
pub fn thread_time() -> Duration {
    // SAFETY: reads a clock of the calling thread; no precondition.
    Duration::from_nanos(unsafe { sys::pshim6_thread_ns() })
}

/// Takes these cores from all threads of the process that there are; those they start inherit that. A thread that polls on
/// one of the cores pins itself to it afterwards, and none of its process takes it from it for a time slice. False, and
/// nothing changed, if there are no others to run on.
pub fn keep_off(cores: &[u32]) -> Result<bool, LcoreError> {
    let failed = |reason: String| LcoreError::KeepOff { reason };
    let mut left = Affinity::current().map_err(failed)?;
    cores.iter().for_each(|&core| left.remove(core));
    if left.first().is_none() {
        return Ok(false);
    }
    let threads = std::fs::read_dir("/proc/self/task").map_err(|error| failed(error.to_string()))?;
    let names = threads.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    for thread in names.filter_map(|name| name.parse().ok()) {
        // One that ended meanwhile is of no interest; the calling one has not.
        let applied = left.apply_to(thread);
        if std::path::Path::new(&format!("/proc/self/task/{thread}")).exists() {
            applied.map_err(failed)?;
        }
    }
    Ok(true)
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

    fn remove(&mut self, core: u32) {
        if let Some(word) = self.0.__bits.get_mut(core as usize / 64) {
            *word &= !(1 << (core % 64));
        }
    }

    /// Makes it that of the calling thread.
    pub(crate) fn apply(&self) -> Result<(), String> {
        // 0 is the calling thread.
        self.apply_to(0)
    }

    fn apply_to(&self, thread: i32) -> Result<(), String> {
        // SAFETY: whatever number it is, the kernel refuses what is no thread of ours to move; the set is as large as
        // said and only read.
        let answer = unsafe { sys::sched_setaffinity(thread, size_of_val(&self.0) as _, &self.0) };
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
    fn all_threads_keep_off_a_core_as_long_as_there_is_another() {
        let all = Affinity::current().unwrap();
        let first = all.first().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        // A thread that was there before.
        let other = std::thread::spawn(move || {
            asked.recv().unwrap();
            tell.send(Affinity::current().unwrap()).unwrap();
        });
        let kept_off = keep_off(&[first]).unwrap();
        ask.send(()).unwrap();
        for set in [Affinity::current().unwrap(), told.recv().unwrap()] {
            assert_eq!(set.first() == Some(first), !kept_off);
        }
        other.join().unwrap();
        let every: Vec<u32> = (0..1024).collect();
        assert!(!keep_off(&every).unwrap(), "somewhere it has to run");
        assert!(Affinity::current().unwrap().first().is_some());
        // Other tests of this process want to run everywhere.
        for thread in std::fs::read_dir("/proc/self/task").unwrap() {
            let _ = all.apply_to(thread.unwrap().file_name().into_string().unwrap().parse().unwrap());
        }
    }

    #[test]
    fn a_thread_that_sleeps_does_not_run() {
        let (began, now) = (thread_time(), std::time::Instant::now());
        while now.elapsed() < Duration::from_millis(5) && thread_time() - began < Duration::from_millis(1) {}
        let ran = thread_time() - began;
        assert!(ran > Duration::ZERO);
        std::thread::sleep(Duration::from_millis(20));
        assert!(thread_time() - began < ran + Duration::from_millis(10));
    }

    #[test]
    fn a_core_that_is_not_there_is_an_error() {
        assert!(matches!(pin(1_000_000), Err(LcoreError::Pin { core: 1_000_000, .. })));
        assert!(matches!(pin(1023), Err(LcoreError::Pin { core: 1023, .. })));
    }
}
