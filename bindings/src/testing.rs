//! Real DPDK in a test process: no hugepages, no NIC, no root.
//!
//! The EAL starts once in a process and tests run side by side in one, so all share it; each attaches devices and
//! makes pools under names of its own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::device::DeviceSpec;
use crate::eal::{Eal, EalConfig};
use crate::memory::Hugepages;
use crate::pool::Pool;
use crate::port::{Port, PortConfig};
use crate::queue::QueuePair;

/// The EAL of this test process, started on first use with `--no-huge --no-shconf --no-pci`.
///
/// # Panics
/// When it does not start: the test cannot go on.
pub fn eal() -> &'static Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    EAL.get_or_init(|| {
        let config = EalConfig { memory_mb: 512, hugepages: Hugepages::Never, ..EalConfig::default() };
        Eal::init(config).unwrap_or_else(|error| panic!("{error}"))
    })
}

/// A name no other test of this process uses.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A small pool: 4095 buffers of 2048 octets.
///
/// # Panics
/// When it cannot be made.
pub fn pool() -> Pool {
    Pool::create(eal(), &unique("test"), 4095, 32, 2048).unwrap_or_else(|error| panic!("{error}"))
}

/// Attaches a virtual device of `driver` with `arguments` (none, or beginning with a comma) and sets it up.
///
/// # Panics
/// When that fails.
pub fn port(driver: &str, arguments: &str, pool: &Pool, config: &PortConfig) -> (Port, Vec<QueuePair>) {
    let name = unique(driver);
    let spec: DeviceSpec = format!("{name}{arguments}").parse().unwrap_or_else(|error| panic!("{error}"));
    eal().attach(&spec).unwrap_or_else(|error| panic!("{error}"));
    Port::configure(eal(), &name, pool, config).unwrap_or_else(|error| panic!("{error}"))
}
