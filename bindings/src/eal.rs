//! The EAL: DPDK's start, once in the life of a process.
//!
//! There is no stop. Buffers do not count who holds them, so taking DPDK's memory away could never be proved safe; it is
//! started such that nothing of it outlives the process anyway.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::os::raw::{c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::device::DeviceSpec;
use crate::error::{EalError, Errno};
use crate::lcore::{self, Affinity};
use crate::memory::{self, Hugepages, Memory, Turn};
use crate::port;
use crate::sys;

/// How to start DPDK.
#[derive(Clone, Debug)]
pub struct EalConfig {
    /// Memory for buffers and tables, in MB.
    pub memory_mb: u32,
    /// What to do about hugepages.
    pub hugepages: Hugepages,
    /// The devices to attach.
    pub devices: Vec<DeviceSpec>,
    /// Whether PCI devices may be attached later, although none is now.
    pub pci_later: bool,
    /// Tells processes of one machine apart where DPDK names files.
    pub file_prefix: String,
    /// Further arguments for DPDK, after ours, so that they win.
    pub extra_args: Vec<String>,
    /// The core of the calling thread, which stays pinned to it. None: whatever core is allowed, and not pinned.
    pub main_core: Option<u32>,
}

impl Default for EalConfig {
    fn default() -> Self {
        EalConfig {
            memory_mb: 512,
            hugepages: Hugepages::Auto,
            devices: Vec::new(),
            pci_later: false,
            file_prefix: format!("pshim6-{}", std::process::id()),
            extra_args: Vec::new(),
            main_core: None,
        }
    }
}

/// Proof that DPDK runs in this process. Clones are the same.
#[derive(Clone, Debug)]
pub struct Eal(Arc<Started>);

#[derive(Debug)]
struct Started {
    memory: Memory,
    arguments: Vec<String>,
}

/// Whether somebody took the one chance to start.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// Whether that worked, or is still under way.
static SPENT: AtomicBool = AtomicBool::new(false);

/// Ports somebody configured. Also the lock around attaching and detaching, which DPDK does not guard by itself.
static CLAIMED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

pub(crate) fn claimed() -> MutexGuard<'static, BTreeSet<u16>> {
    // A panic elsewhere leaves the set as it was: every change is one insertion or one removal.
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Eal {
    /// Starts DPDK and attaches the devices, in order.
    ///
    /// The calling thread becomes DPDK's main lcore. DPDK starts no workers: threads of ours register themselves (see
    /// [`crate::Lcore`]). Device configuration happens in [`crate::Port::configure`].
    pub fn init(config: EalConfig) -> Result<Eal, EalError> {
        // What can be told to be wrong is told before the one chance is used up.
        let mut names = BTreeSet::new();
        if let Some(twice) = config.devices.iter().find(|device| !names.insert(device.name())) {
            return Err(EalError::Twice { device: twice.name().to_owned() });
        }
        if let Some(argument) = strings(&config).find(|argument| argument.contains('\0')) {
            return Err(EalError::Argument { argument: argument.to_owned() });
        }
        let before = Affinity::current().ok();
        if let Some(core) = config.main_core {
            // DPDK ends the process when it cannot pin its main thread.
            lcore::pin(core).map_err(|error| EalError::Core { error })?;
            restore(before.as_ref());
        }
        if TAKEN.swap(true, Ordering::AcqRel) {
            let spent = SPENT.load(Ordering::Acquire);
            return Err(if spent { EalError::Spent } else { EalError::AlreadyStarted });
        }
        let turn = Turn::wait(config.hugepages);
        let memory = memory::decide(config.hugepages, config.memory_mb).inspect_err(|_| {
            // DPDK saw nothing of this attempt.
            TAKEN.store(false, Ordering::Release);
        })?;
        let core = config.main_core.or_else(|| before.as_ref()?.first()).unwrap_or(0);
        let arguments = arguments(&config, &memory, core);
        let started = start(&arguments);
        drop(turn);
        remove_runtime_dir();
        started.map_err(|errno| {
            SPENT.store(true, Ordering::Release);
            EalError::start(arguments.clone(), errno)
        })?;
        if config.main_core.is_none() {
            // The EAL pins its main thread, and threads started later would inherit that.
            restore(before.as_ref());
        }
        let eal = Eal(Arc::new(Started { memory, arguments }));
        for device in config.devices.iter().filter(|device| !device.is_pci()) {
            eal.attach(device)?;
        }
        Ok(eal)
    }

    /// What memory it got: for the log.
    pub fn memory(&self) -> &Memory {
        &self.0.memory
    }

    /// The arguments DPDK was started with: for the log.
    pub fn arguments(&self) -> &[String] {
        &self.0.arguments
    }

    /// DPDK's name and version.
    pub fn version(&self) -> String {
        // SAFETY: returns a pointer to a constant NUL-terminated string.
        unsafe { CStr::from_ptr(sys::rte_version()) }.to_string_lossy().into_owned()
    }

    /// Attaches one more device while running.
    ///
    /// A PCI device needs the bus, which is only looked at when one was asked for at the start.
    pub fn attach(&self, device: &DeviceSpec) -> Result<(), EalError> {
        let text = device.to_string();
        let Ok(arguments) = CString::new(text.clone()) else { return Err(EalError::Argument { argument: text }) };
        let _lock = claimed();
        // DPDK keeps this to itself for the sake of secondary processes, and answers success.
        if port::find(device.name()).is_ok() {
            return Err(EalError::device(text, Errno::EEXIST, !device.is_pci()));
        }
        // SAFETY: the EAL is started, the string is NUL-terminated and DPDK copies it; the lock keeps other threads
        // from attaching or detaching meanwhile.
        let answer = unsafe { sys::rte_dev_probe(arguments.as_ptr()) };
        Errno::check(answer).map_err(|errno| EalError::device(text, errno, !device.is_pci()))
    }
}

/// Lets the calling thread run where it could before. Failing to costs speed, not correctness.
fn restore(before: Option<&Affinity>) {
    if let Some(before) = before {
        let _ = before.apply();
    }
}

/// Every string that goes to C.
fn strings(config: &EalConfig) -> impl Iterator<Item = &str> {
    config.extra_args.iter().map(String::as_str).chain([config.file_prefix.as_str()])
}

/// A PCI address without a device: the last there could be.
const NO_DEVICE: &str = "ffff:ff:1f.7";

/// The command line for `rte_eal_init`.
fn arguments(config: &EalConfig, memory: &Memory, core: u32) -> Vec<String> {
    let mut arguments: Vec<String> = vec!["pshim6d".into()];
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    // One lcore, number 0, whatever the core's number is: DPDK is built for fewer lcores than machines have cores.
    add(&["--lcores", &format!("0@{core}")]);
    // No telemetry socket with a thread of its own: the box answers for itself.
    add(&["--no-telemetry", "--file-prefix", &config.file_prefix]);
    add(&["--log-level", "*:warning", "-m", &config.memory_mb.to_string()]);
    match memory {
        // No files and no second process. One descriptor per page size, so that memif and vhost peers can map our
        // buffers instead of copying.
        Memory::Hugepages { .. } => add(&["--in-memory", "--single-file-segments"]),
        // The same without hugepages: DPDK refuses `--in-memory` beside `--no-huge`, which has no files anyway.
        Memory::Ordinary { .. } => add(&["--no-huge", "--no-shconf"]),
    }
    // Virtual devices are attached after the start, where each one's failure has an errno; given to `rte_eal_init`
    // they would fail with a line on standard error and nothing else.
    let mut nics = config.devices.iter().filter(|device| device.is_pci()).peekable();
    match (nics.peek(), config.pci_later) {
        (Some(_), _) => {}
        // The bus is looked at, and of what is there nothing is taken: only an address that no device has is allowed.
        (None, true) => add(&["-a", NO_DEVICE]),
        (None, false) => add(&["--no-pci"]),
    }
    for nic in nics {
        add(&["-a", &nic.to_string()]);
    }
    arguments.extend(config.extra_args.iter().cloned());
    arguments
}

fn start(arguments: &[String]) -> Result<(), Errno> {
    let mut argv: Vec<*mut c_char> = Vec::new();
    for argument in arguments {
        let argument = CString::new(argument.as_str()).map_err(|_| Errno::EINVAL)?;
        // DPDK keeps pointers into its arguments, so they live as long as the process.
        argv.push(argument.into_raw());
    }
    argv.push(std::ptr::null_mut());
    let argc = arguments.len() as c_int;
    // SAFETY: `argv` holds `argc` NUL-terminated strings that are never freed, and a null pointer; the array itself is
    // leaked too. `TAKEN` makes this the only call in the process.
    let answer = unsafe { sys::rte_eal_init(argc, argv.leak().as_mut_ptr()) };
    if answer < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// Removes the folder that DPDK makes for files it shares with other processes.
///
/// It is made even when nothing is shared, and would stay behind, one for every life of the daemon; nobody could clean
/// up after a crash. A folder that is in use after all, because of some further argument, is not empty and stays.
fn remove_runtime_dir() {
    // SAFETY: answers a pointer to a static NUL-terminated array, empty until the folder was made. DPDK writes it only
    // in `rte_eal_init`, which has returned and is called only once.
    let folder = unsafe { CStr::from_ptr(sys::rte_eal_get_runtime_dir()) };
    let folder = Path::new(OsStr::from_bytes(folder.to_bytes()));
    if !folder.as_os_str().is_empty() {
        let _ = fs::remove_dir(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::LcoreError;

    fn ordinary() -> Memory {
        Memory::Ordinary { size_mb: 64, reason: String::new() }
    }

    #[test]
    fn the_bus_is_left_alone_unless_a_nic_is_asked_for() {
        let mut config = EalConfig { memory_mb: 64, ..EalConfig::default() };
        config.devices = vec!["net_null0".parse().unwrap()];
        let without = arguments(&config, &ordinary(), 3);
        assert!(without.contains(&"--no-pci".to_owned()) && without.contains(&"--no-huge".to_owned()));
        assert!(without.contains(&"0@3".to_owned()));
        config.devices.push("03:00.0,x=1".parse().unwrap());
        let with = arguments(&config, &Memory::Hugepages { size_mb: 64, reserved: 0 }, 3);
        assert!(!with.contains(&"--no-pci".to_owned()) && !with.contains(&"--no-huge".to_owned()));
        assert!(with.windows(2).any(|pair| pair == ["-a", "0000:03:00.0,x=1"]));
    }

    #[test]
    fn further_arguments_come_last() {
        let config = EalConfig { extra_args: vec!["--log-level=*:debug".into()], ..EalConfig::default() };
        assert_eq!(arguments(&config, &ordinary(), 0).last().map(String::as_str), Some("--log-level=*:debug"));
    }

    #[test]
    fn mistakes_found_beforehand_do_not_use_up_the_start() {
        let twice = EalConfig {
            devices: vec!["net_null0".parse().unwrap(), "net_null0,size=64".parse().unwrap()],
            ..EalConfig::default()
        };
        assert_eq!(Eal::init(twice).unwrap_err(), EalError::Twice { device: "net_null0".into() });
        let nul = EalConfig { extra_args: vec!["a\0b".into()], ..EalConfig::default() };
        assert!(matches!(Eal::init(nul), Err(EalError::Argument { .. })));
        let core = Eal::init(EalConfig { main_core: Some(1023), ..EalConfig::default() });
        assert!(matches!(core, Err(EalError::Core { error: LcoreError::Pin { core: 1023, .. } })));
        assert!(!TAKEN.load(Ordering::Acquire));
    }
}
