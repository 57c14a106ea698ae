//! What can go wrong, in DPDK's words and with a hint of what to do about it.

use std::ffi::CStr;
use std::fmt;

use crate::sys;

/// An error number as DPDK gives it (positive).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// No such device.
    pub const ENODEV: Errno = Errno(19);
    /// Out of memory.
    pub const ENOMEM: Errno = Errno(12);
    /// Not now; try again.
    pub const EAGAIN: Errno = Errno(11);
    /// Somebody else uses it.
    pub const EBUSY: Errno = Errno(16);
    /// There is no such function.
    pub const ENOSYS: Errno = Errno(38);
    /// Permission denied.
    pub const EACCES: Errno = Errno(13);
    /// Operation not permitted.
    pub const EPERM: Errno = Errno(1);
    /// Already there.
    pub const EEXIST: Errno = Errno(17);
    /// Invalid argument.
    pub const EINVAL: Errno = Errno(22);
    /// The device does not offer this operation.
    pub const ENOTSUP: Errno = Errno(95);
    /// Done before.
    pub const EALREADY: Errno = Errno(114);

    /// The number.
    pub fn code(self) -> i32 {
        self.0
    }

    /// The error of the DPDK call this thread made last.
    pub(crate) fn last() -> Self {
        // SAFETY: reads a thread-local of DPDK; no precondition. A shim because it is a macro in C.
        Errno(unsafe { sys::pshim6_errno() })
    }

    /// The answer of a call that returns a negative number on failure; zero and above are success.
    pub(crate) fn check(answer: i32) -> Result<(), Self> {
        if answer < 0 { Err(Errno(answer.wrapping_neg())) } else { Ok(()) }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: returns a NUL-terminated string in a constant or in a buffer of this thread, which lives longer than
        // this function; a null pointer is checked for.
        let text = unsafe { sys::rte_strerror(self.0) };
        if text.is_null() {
            return write!(f, "error {}", self.0);
        }
        // SAFETY: see above.
        let text = unsafe { CStr::from_ptr(text) };
        write!(f, "{} (error {})", text.to_string_lossy(), self.0)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why the EAL did not start, or would not take a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EalError {
    /// The EAL can be started once in the life of a process, and it was.
    #[error("DPDK was already started in this process; keep the first Eal and clone it")]
    AlreadyStarted,
    /// An earlier start failed half-way; DPDK cannot be started again in this process.
    #[error("an earlier start of DPDK failed in this process; it can only be tried again in a new process")]
    Spent,
    /// An argument that cannot be handed to C.
    #[error("{argument:?} holds a NUL character")]
    Argument {
        /// The argument.
        argument: String,
    },
    /// The core wanted for the calling thread is not there, or not for this process.
    #[error("the main core: {error}")]
    Core {
        /// The kernel's reason.
        error: LcoreError,
    },
    /// `Hugepages::Require` and there are not enough.
    #[error(
        "hugepages for {wanted_mb} MB are required: {reason}; try `echo {pages} > /proc/sys/vm/nr_hugepages` as root"
    )]
    Hugepages {
        /// Memory asked for, in MB.
        wanted_mb: u32,
        /// Pages of 2 MB this needs.
        pages: u64,
        /// What is in the way.
        reason: String,
    },
    /// `rte_eal_init` failed.
    #[error("DPDK does not start with {arguments:?}: {errno}; {hint}")]
    Start {
        /// The arguments it was given.
        arguments: Vec<String>,
        /// DPDK's reason.
        errno: Errno,
        /// What to try.
        hint: &'static str,
    },
    /// The same device was asked for twice.
    #[error("device {device} is named twice")]
    Twice {
        /// Its name.
        device: String,
    },
    /// A device did not come up.
    #[error("device {device}: {errno}; {hint}")]
    Device {
        /// What was asked for.
        device: String,
        /// DPDK's reason.
        errno: Errno,
        /// What to try.
        hint: &'static str,
    },
}

impl EalError {
    pub(crate) fn start(arguments: Vec<String>, errno: Errno) -> Self {
        let hint = match errno {
            Errno::EALREADY => return EalError::AlreadyStarted,
            Errno::EACCES | Errno::EPERM => "run as root, or ask for no hugepages",
            Errno::ENOMEM => "less memory, more hugepages, or no hugepages",
            Errno::EINVAL => "an argument is wrong; DPDK says on standard error which",
            _ => "DPDK gives its reason on standard error",
        };
        EalError::Start { arguments, errno, hint }
    }

    pub(crate) fn device(device: String, errno: Errno, virtual_device: bool) -> Self {
        let hint = match errno {
            Errno::EEXIST => "a device of this name is attached already",
            Errno::EACCES | Errno::EPERM => {
                "it takes CAP_NET_RAW and CAP_NET_ADMIN, for a NIC access to /dev/vfio; root has all of it"
            }
            Errno::ENOMEM => "more memory for DPDK, or fewer queues and descriptors",
            _ if !virtual_device => "is it bound to vfio-pci (dpdk-devbind.py --status)?",
            Errno::ENODEV => "is the interface or file named in it there, and does DPDK know this driver?",
            _ => "is every argument right, and the interface or file there? DPDK gives its reason on standard error",
        };
        EalError::Device { device, errno, hint }
    }
}

/// A device specification that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "device {text:?}: {reason}; wanted a PCI address such as 0000:03:00.0 or a virtual device such as \
         net_af_packet0,iface=eth0"
)]
pub struct DeviceSpecError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Why there is no pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// A name, size or cache DPDK cannot have.
    #[error("pool {name:?}: {reason}")]
    Invalid {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// DPDK refused.
    #[error("pool {name:?} of {count} buffers: {errno}; {hint}")]
    Create {
        /// Its name.
        name: String,
        /// Buffers asked for.
        count: u32,
        /// DPDK's reason.
        errno: Errno,
        /// What to try.
        hint: &'static str,
    },
}

/// Why a port cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// No such device.
    #[error("there is no device {name:?}: it was not asked for at the start, or was closed since, or did not come up")]
    Missing {
        /// The name that was looked up.
        name: String,
    },
    /// Somebody holds it.
    #[error("device {name:?} is in use by another part of this process")]
    Busy {
        /// Its name.
        name: String,
    },
    /// More queues than the device has.
    #[error("device {name:?} has {most} queue pairs at most, {asked} were asked for")]
    Queues {
        /// Its name.
        name: String,
        /// Asked for; zero is refused too.
        asked: u16,
        /// What it has.
        most: u16,
    },
    /// A full-sized frame would not fit one buffer.
    #[error("device {name:?}: frames of MTU {mtu} need buffers of {needed} octets, the pool's hold {room}")]
    Room {
        /// The device's name.
        name: String,
        /// MTU asked for.
        mtu: u16,
        /// Octets needed behind the headroom.
        needed: u32,
        /// Octets there.
        room: u16,
    },
    /// The receive queues would hold every buffer of the pool, and nothing could be received.
    #[error(
        "device {name:?}: its receive queues take {needed} buffers and the pool has {available} left; a larger pool, or \
         fewer descriptors"
    )]
    Buffers {
        /// The device's name.
        name: String,
        /// Buffers its receive queues may hold.
        needed: u32,
        /// Buffers nobody holds.
        available: u32,
    },
    /// The device cannot have this MTU.
    #[error("device {name:?} cannot have an MTU of {asked}: {most} is the most")]
    Mtu {
        /// The device's name.
        name: String,
        /// MTU asked for.
        asked: u16,
        /// What it can have.
        most: u32,
    },
    /// A step of the configuration failed.
    #[error("device {name:?}: cannot {step}: {errno}")]
    Step {
        /// Its name.
        name: String,
        /// What was tried.
        step: &'static str,
        /// DPDK's reason.
        errno: Errno,
    },
}

/// Why a thread is not an lcore, or not on its core.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LcoreError {
    /// It is one already.
    #[error("this thread is lcore {id} already")]
    Registered {
        /// Its number.
        id: u32,
    },
    /// DPDK refused.
    #[error("this thread cannot become an lcore: {errno}; DPDK has room for {most} of them")]
    Register {
        /// DPDK's reason.
        errno: Errno,
        /// Lcores DPDK was built for.
        most: u32,
    },
    /// The kernel refused.
    #[error("cannot run on core {core}: {reason}")]
    Pin {
        /// The core asked for.
        core: u32,
        /// The kernel's reason.
        reason: String,
    },
    /// The kernel refused to take cores from the process's threads.
    #[error("cannot keep off the workers' cores: {reason}")]
    KeepOff {
        /// The kernel's reason.
        reason: String,
    },
}

/// Why there is no ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ring {name:?} of {size} entries: {errno}; the size must be a power of two, the name short and new")]
pub struct RingError {
    /// Its name.
    pub name: String,
    /// Entries asked for.
    pub size: u32,
    /// DPDK's reason.
    pub errno: Errno,
}
