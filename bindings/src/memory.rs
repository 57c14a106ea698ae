//! Whether hugepages can be had, decided before the EAL starts: a start that runs out of memory cannot be repeated.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fmt, ptr, thread};

use crate::error::EalError;
use crate::sys;

const SYSFS: &str = "/sys/kernel/mm/hugepages";
const MB: u64 = 1 << 20;
/// What is reserved at run time: 1 GB pages are hardly ever obtainable after boot.
const SMALL: u64 = 2 * MB;
/// How long to wait for others to start; a start takes well under a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to do about hugepages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hugepages {
    /// Use them when enough are free or, as root, obtainable; otherwise do without.
    #[default]
    Auto,
    /// Do without: ordinary memory, about half the speed, no NIC that wants contiguous memory.
    Never,
    /// Fail when they cannot be had.
    Require,
}

/// What memory the EAL got, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Hugepages.
    Hugepages {
        /// Memory set aside at the start, in MB.
        size_mb: u32,
        /// Pages of 2 MB this process asked the kernel to reserve; they stay reserved when it ends.
        reserved: u64,
    },
    /// Ordinary pages.
    Ordinary {
        /// Memory set aside at the start, in MB.
        size_mb: u32,
        /// Why not hugepages.
        reason: String,
    },
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Memory::Hugepages { size_mb, reserved: 0 } => write!(f, "{size_mb} MB in hugepages"),
            Memory::Hugepages { size_mb, reserved } => {
                write!(f, "{size_mb} MB in hugepages ({reserved} pages of 2 MB reserved for it just now)")
            }
            Memory::Ordinary { size_mb, reason } => write!(f, "{size_mb} MB in ordinary pages: {reason}"),
        }
    }
}

/// This process's turn to count and reserve hugepages; over when dropped.
///
/// Two boxes that start together would both see the same free pages and both count on them, or both raise the kernel's
/// number from the same value, and one would start a second time, on ordinary memory. So a turn lasts until the EAL has
/// mapped its pages. It is a lock on sysfs itself: no file is made, and the kernel ends it with the process.
pub(crate) struct Turn(#[expect(dead_code, reason = "held for its lock")] Option<File>);

impl Turn {
    /// Waits for the turn. Goes on without when it does not come: anybody on the machine may take this lock and keep it.
    pub(crate) fn wait(hugepages: Hugepages) -> Turn {
        Turn((hugepages != Hugepages::Never).then(|| lock(Path::new(SYSFS), PATIENCE)).flatten())
    }
}

/// Locks a folder, trying for as long as `patience`. None when that fails.
fn lock(folder: &Path, patience: Duration) -> Option<File> {
    let file = File::open(folder).ok()?;
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            Err(_) => return None,
        }
    }
}

/// Decides for `wanted_mb` of memory, reserving pages where that is allowed and needed.
pub(crate) fn decide(hugepages: Hugepages, wanted_mb: u32) -> Result<Memory, EalError> {
    let ordinary = |reason| Memory::Ordinary { size_mb: wanted_mb, reason };
    if hugepages == Hugepages::Never {
        return Ok(ordinary("hugepages are switched off".to_owned()));
    }
    // Who insists on hugepages knows the machine; who leaves it to us does not want it starved.
    let spare = if hugepages == Hugepages::Auto { available_octets() / 2 } else { available_octets() };
    match obtain(Path::new(SYSFS), u64::from(wanted_mb) * MB, spare) {
        Ok(reserved) => Ok(Memory::Hugepages { size_mb: wanted_mb, reserved }),
        Err(reason) if hugepages == Hugepages::Auto => Ok(ordinary(reason)),
        Err(reason) => {
            Err(EalError::Hugepages { wanted_mb, pages: (u64::from(wanted_mb) * MB).div_ceil(SMALL), reason })
        }
    }
}

/// Sees to it that `wanted` octets of hugepages are free and can be mapped, taking at most `spare` octets of ordinary
/// memory for it; says how many pages it had to reserve.
fn obtain(sysfs: &Path, wanted: u64, spare: u64) -> Result<u64, String> {
    let free = free_octets(sysfs);
    let missing = wanted.saturating_sub(free);
    if missing == 0 {
        return mappable(sysfs).map(|()| 0);
    }
    let pages = missing.div_ceil(SMALL);
    if missing > spare {
        let (missing, spare) = (missing.div_ceil(MB), spare / MB);
        return Err(format!("{missing} MB more in hugepages would be needed, and {spare} MB of memory can be spared"));
    }
    let reserved = reserve(sysfs, pages)
        .map_err(|why| format!("{} MB in hugepages are free of {} MB wanted, {why}", free / MB, wanted.div_ceil(MB)))?;
    mappable(sysfs).map(|()| reserved)
}

/// Octets in free pages of every size that nobody has a claim on.
fn free_octets(sysfs: &Path) -> u64 {
    let Ok(sizes) = fs::read_dir(sysfs) else { return 0 };
    sizes
        .flatten()
        .filter_map(|entry| {
            let size = page_octets(entry.file_name().to_str()?)?;
            let free = number(&entry.path().join("free_hugepages"))?;
            let claimed = number(&entry.path().join("resv_hugepages")).unwrap_or(0);
            Some(free.saturating_sub(claimed) * size)
        })
        .sum()
}

/// Ordinary memory that can be had without swapping; all there can be when the kernel does not say.
fn available_octets() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib * 1024)
}

/// `hugepages-2048kB` to octets.
fn page_octets(folder: &str) -> Option<u64> {
    folder.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Adds `pages` pages of 2 MB to the kernel's reserve, all or none.
fn reserve(sysfs: &Path, pages: u64) -> Result<u64, String> {
    let knob = sysfs.join("hugepages-2048kB/nr_hugepages");
    let before = number(&knob).ok_or("and this kernel has no hugepages of 2 MB")?;
    fs::write(&knob, (before + pages).to_string())
        .map_err(|error| format!("and more cannot be reserved: {}: {error}", knob.display()))?;
    // The kernel reserves what it finds in one piece and reports no error for the rest.
    let after = number(&knob).unwrap_or(before);
    if after >= before + pages {
        return Ok(pages);
    }
    // Failing to give them back costs memory, not correctness, and is no reason to fail the start.
    let _ = fs::write(&knob, before.to_string());
    Err(format!("and the kernel finds room for {} more pages of {pages} only", after.saturating_sub(before)))
}

/// Maps one hugepage to see that this process may (containers can see pages they may not have).
fn mappable(sysfs: &Path) -> Result<(), String> {
    let small = number(&sysfs.join("hugepages-2048kB/free_hugepages")).unwrap_or(0) > 0;
    let octets: usize = if small { SMALL as usize } else { 1 << 30 };
    let flags =
        sys::MAP_PRIVATE | sys::MAP_ANONYMOUS | sys::MAP_HUGETLB | (octets.trailing_zeros() << sys::MAP_HUGE_SHIFT);
    // SAFETY: an anonymous mapping at an address of the kernel's choice; it is never touched, so it cannot fault.
    let page =
        unsafe { sys::mmap(ptr::null_mut(), octets, (sys::PROT_READ | sys::PROT_WRITE) as i32, flags as i32, -1, 0) };
    if page.addr() == usize::MAX {
        return Err(format!("hugepages are free, but may not be used: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: unmaps what was mapped just above, to which no pointer is left.
    unsafe { sys::munmap(page, octets) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(std::path::PathBuf);

    impl Tree {
        fn new(name: &str, free: u64, claimed: u64) -> Self {
            let root = std::env::temp_dir().join(format!("pshim6-hugepages-{name}-{}", std::process::id()));
            let folder = root.join("hugepages-2048kB");
            fs::create_dir_all(&folder).unwrap();
            for (file, value) in [("free_hugepages", free), ("resv_hugepages", claimed), ("nr_hugepages", free)] {
                fs::write(folder.join(file), value.to_string()).unwrap();
            }
            Tree(root)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn free_pages_that_others_have_a_claim_on_do_not_count() {
        let tree = Tree::new("claimed", 10, 4);
        assert_eq!(free_octets(&tree.0), 6 * SMALL);
    }

    #[test]
    fn turns_are_taken_one_after_the_other() {
        let tree = Tree::new("turns", 10, 0);
        let first = lock(&tree.0, Duration::ZERO).expect("nobody else has it");
        assert!(lock(&tree.0, Duration::from_millis(20)).is_none());
        let others = thread::spawn({
            let folder = tree.0.clone();
            move || lock(&folder, Duration::from_secs(30)).is_some()
        });
        drop(first);
        assert!(others.join().unwrap());
    }

    #[test]
    fn reserving_adds_to_what_is_there() {
        let tree = Tree::new("reserve", 10, 0);
        assert_eq!(reserve(&tree.0, 5), Ok(5));
        assert_eq!(number(&tree.0.join("hugepages-2048kB/nr_hugepages")), Some(15));
    }

    #[test]
    fn a_machine_without_hugepages_is_said_to_have_none() {
        let why = obtain(Path::new("/nonexistent"), 64 * MB, u64::MAX).unwrap_err();
        assert!(why.contains("0 MB in hugepages are free of 64 MB wanted"), "{why}");
    }

    #[test]
    fn a_small_machine_is_not_starved() {
        let tree = Tree::new("starved", 0, 0);
        let why = obtain(&tree.0, 64 * MB, 63 * MB).unwrap_err();
        assert!(why.contains("63 MB of memory can be spared"), "{why}");
        assert_eq!(number(&tree.0.join("hugepages-2048kB/nr_hugepages")), Some(0));
        assert!(available_octets() < u64::MAX, "this kernel says what is available");
    }

    #[test]
    fn switched_off_means_ordinary_memory_without_a_look() {
        assert!(matches!(decide(Hugepages::Never, 64), Ok(Memory::Ordinary { size_mb: 64, .. })));
    }

    #[test]
    fn folder_names_carry_the_page_size() {
        assert_eq!(page_octets("hugepages-1048576kB"), Some(1 << 30));
        assert_eq!(page_octets("hugepages-kB"), None);
        assert_eq!(page_octets("free_hugepages"), None);
    }
}
