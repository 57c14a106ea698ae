//! DPDK for P-SHIM6: the only room that knows DPDK.
//!
//! The raw symbols (`sys`, private) are generated at build time from the headers installed; over them lies a thin layer
//! in which ownership is the proof: an [`Eal`] shows that DPDK runs, a [`Pool`] lives as long as the process, an
//! [`Mbuf`] is one packet with one owner, and a port stays open while anybody holds one of its queues.
//!
//! ```no_run
//! use bindings::{Eal, EalConfig, Pool, Port, PortConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let devices = vec!["net_af_packet0,iface=veth0".parse()?];
//! let eal = Eal::init(EalConfig { devices, ..EalConfig::default() })?;
//! let pool = Pool::create(&eal, "frames", 8191, 256, 2048)?;
//! let (port, mut queues) = Port::configure(&eal, "net_af_packet0", &pool, &PortConfig::default())?;
//! println!("{} has {} and {}", port.name(), port.mac(), eal.memory());
//! let mut burst = Vec::with_capacity(32);
//! loop {
//!     queues[0].receive(&mut burst);
//!     queues[0].transmit(&mut burst);
//! }
//! # }
//! ```
//!
//! Unsafe code is at home here. Each block says why it holds; the invariants they lean on are in the documentation of
//! [`Mbuf`], [`Pool`] and [`Eal`].

mod device;
mod eal;
mod error;
mod events;
mod lcore;
mod mbuf;
mod memory;
mod pool;
mod port;
mod process;
mod queue;
mod ring;
mod spread;
mod sys;
mod tap;
pub mod testing;

pub use device::DeviceSpec;
pub use eal::{Eal, EalConfig};
pub use error::{DeviceSpecError, EalError, Errno, LcoreError, PoolError, PortError, RingError};
pub use lcore::{Lcore, current as current_lcore, keep_off, node_of_core, pin, thread_time};
pub use mbuf::Mbuf;
pub use memory::{Hugepages, Memory};
pub use pool::{HEADROOM, Pool};
pub use port::{Mac, Port, PortConfig, PortEvents, PortStats};
pub use process::keep_descriptors;
pub use queue::QueuePair;
pub use ring::{Consumer, Producer, ring};
pub use spread::{RSS_KEY_MAX, Rss, Spread};
pub use tap::open_tap;
