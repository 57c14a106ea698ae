//! DPDK and its devices, as all programs here start them.

use std::error::Error;

use dataplane::port::dpdk::{BufferPool, Device, DeviceSpec, Eal, EalConfig, Hugepages, PortConfig, QueuePair};

use crate::site::MTU;

/// How to start DPDK and what to make.
#[derive(Clone, Debug, clap::Args)]
pub struct Setup {
    /// Memory for buffers, in MB.
    #[arg(long, default_value_t = 512)]
    pub memory: u32,
    /// Ordinary pages instead of hugepages.
    #[arg(long)]
    pub no_huge: bool,
    /// Packet buffers; a device that replays a capture keeps one for each frame of it.
    #[arg(long, default_value_t = 16383)]
    pub buffers: u32,
    /// Octets of packet in a buffer.
    #[arg(long, default_value_t = 2048)]
    pub room: u16,
    /// Descriptors per queue.
    #[arg(long, default_value_t = 512)]
    pub descriptors: u16,
}

/// Buffers each thread keeps for itself.
const CACHE: u32 = 256;

impl Setup {
    /// Starts DPDK with these devices.
    ///
    /// # Errors
    /// When DPDK does not start, a device is none, or there is no memory for the buffers.
    pub fn start(&self, devices: &[String]) -> Result<(Eal, BufferPool), Box<dyn Error>> {
        let devices: Result<Vec<DeviceSpec>, _> = devices.iter().map(|device| device.parse()).collect();
        let hugepages = if self.no_huge { Hugepages::Never } else { Hugepages::Require };
        let config = EalConfig { memory_mb: self.memory, hugepages, devices: devices?, ..EalConfig::default() };
        let eal = Eal::init(config)?;
        let pool = BufferPool::create(&eal, "frames", self.buffers, CACHE, self.room)?;
        Ok((eal, pool))
    }

    /// Sets a device up, with a pair of queues for each thread.
    ///
    /// # Errors
    /// When the device does not do that.
    pub fn open(
        &self,
        eal: &Eal,
        pool: &BufferPool,
        device: &str,
        queues: u16,
    ) -> Result<(Device, Vec<QueuePair>), Box<dyn Error>> {
        let spec: DeviceSpec = device.parse()?;
        let mtu = if u32::from(self.room) < u32::from(MTU) + 18 { self.room - 18 } else { MTU };
        let (rx_desc, tx_desc) = (self.descriptors, self.descriptors);
        let config = PortConfig { queues, rx_desc, tx_desc, mtu, ..PortConfig::default() };
        Ok(Device::configure(eal, spec.name(), pool, &config)?)
    }
}
