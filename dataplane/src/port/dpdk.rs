//! Real ports, through DPDK: the only place outside `bindings` that names it.
//!
//! A worker's port is a [`QueuePair`], its packets are [`Mbuf`]s, and new ones come from a
//! [`BufferPool`]. Starting DPDK and configuring devices is for whoever starts the workers, once, with what is
//! re-exported here. A worker's thread pins itself ([`pin`]) and registers ([`Lcore`]), or its buffers bypass the pool's
//! caches.
//!
//! ```no_run
//! use dataplane::port::dpdk::{BufferPool, DeviceSpec, Device, Eal, EalConfig, Mbuf, PortConfig};
//! use dataplane::port::Port;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let spec: DeviceSpec = "net_af_packet0,iface=veth0".parse()?;
//! let eal = Eal::init(EalConfig { devices: vec![spec.clone()], ..EalConfig::default() })?;
//! let pool = BufferPool::create(&eal, "frames", 8191, 256, 2048)?;
//! let (device, queues) = Device::configure(&eal, spec.name(), &pool, &PortConfig::default())?;
//! let ports: Vec<Box<dyn Port<Mbuf>>> = queues.into_iter().map(|queue| Box::new(queue) as _).collect();
//! # Ok(())
//! # }
//! ```

pub use bindings::{
    DeviceSpec, DeviceSpecError, Eal, EalConfig, EalError, Errno, Hugepages, Lcore, LcoreError, Mac, Mbuf, Memory,
    Pool as BufferPool, PoolError, Port as Device, PortConfig, PortError as DeviceError, PortEvents, PortStats,
    QueuePair, RSS_KEY_MAX, Rss, Spread, keep_descriptors, keep_off, node_of_core, open_tap, pin, thread_time,
};

use super::{Frame, Pool, Port};

impl Frame for Mbuf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        Mbuf::bytes(self)
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        Mbuf::bytes_mut(self)
    }

    #[inline]
    fn prepend(&mut self, octets: usize) -> bool {
        Mbuf::prepend(self, octets)
    }

    #[inline]
    fn trim_front(&mut self, octets: usize) {
        Mbuf::trim_front(self, octets);
    }

    #[inline]
    fn truncate(&mut self, octets: usize) {
        Mbuf::truncate(self, octets);
    }

    #[inline(always)]
    fn prefetch(&self) {
        Mbuf::prefetch(self);
    }

    #[inline(always)]
    fn prefetch_octets(&self) {
        Mbuf::prefetch_octets(self);
    }

    #[inline]
    fn discard(burst: &mut Vec<Mbuf>) {
        if !burst.is_empty() {
            Mbuf::free_burst(burst);
        }
    }
}

impl Port<Mbuf> for QueuePair {
    fn receive(&mut self, burst: &mut Vec<Mbuf>) {
        QueuePair::receive(self, burst);
    }

    fn transmit(&mut self, burst: &mut Vec<Mbuf>) {
        QueuePair::transmit(self, burst);
    }
}

impl Pool<Mbuf> for BufferPool {
    fn allocate(&self, bytes: &[u8]) -> Option<Mbuf> {
        BufferPool::allocate(self, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::memory::HeapFrame;
    use bindings::testing;
    use proptest::prelude::*;

    #[test]
    fn a_packet_crosses_a_device_through_the_traits_alone() {
        fn cross<F: Frame>(port: &mut dyn Port<F>, pool: &dyn Pool<F>) {
            let mut burst = vec![pool.allocate(&[7; 60]).unwrap()];
            // The payload header of a Shim6 context goes in, and comes out on the other side.
            assert!(burst[0].prepend(8));
            burst[0].bytes_mut()[..8].copy_from_slice(b"eight...");
            port.transmit(&mut burst);
            assert!(burst.is_empty());
            let mut burst = Vec::with_capacity(4);
            port.receive(&mut burst);
            assert_eq!(burst.len(), 1);
            assert_eq!((&burst[0].bytes()[..8], &burst[0].bytes()[8..]), (&b"eight..."[..], &[7; 60][..]));
            burst[0].trim_front(8);
            burst[0].truncate(59);
            assert_eq!(burst[0].bytes(), [7; 59]);
        }
        let pool = testing::pool();
        let (_device, mut queues) = testing::port("net_ring", "", &pool, &PortConfig::default());
        cross(&mut queues[0], &pool);
    }

    #[derive(Clone, Copy, Debug)]
    enum Change {
        Prepend(usize),
        TrimFront(usize),
        Truncate(usize),
        Write(u8),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (0usize..200).prop_map(Change::Prepend),
            (0usize..100).prop_map(Change::TrimFront),
            (0usize..2000).prop_map(Change::Truncate),
            any::<u8>().prop_map(Change::Write),
        ]
    }

    fn apply(frame: &mut impl Frame, change: Change) -> bool {
        match change {
            Change::Prepend(octets) => {
                let grown = frame.prepend(octets);
                if grown {
                    // What new octets hold is nobody's promise.
                    frame.bytes_mut()[..octets].fill(octets as u8);
                }
                return grown;
            }
            Change::TrimFront(octets) => frame.trim_front(octets),
            Change::Truncate(octets) => frame.truncate(octets),
            Change::Write(value) => frame.bytes_mut().iter_mut().step_by(3).for_each(|octet| *octet ^= value),
        }
        true
    }

    proptest! {
        #[test]
        fn a_buffer_of_dpdk_behaves_like_one_on_the_heap(
            bytes in prop::collection::vec(any::<u8>(), 0..1600),
            changes in prop::collection::vec(change(), 0..20),
        ) {
            static POOL: std::sync::OnceLock<BufferPool> = std::sync::OnceLock::new();
            let pool = POOL.get_or_init(testing::pool);
            let mut mbuf = pool.allocate(&bytes).unwrap();
            let mut heap = HeapFrame::new(&bytes);
            for change in changes {
                prop_assert_eq!(apply(&mut mbuf, change), apply(&mut heap, change), "{:?}", change);
                prop_assert_eq!(Frame::bytes(&mbuf), heap.bytes(), "{:?}", change);
            }
        }
    }
}
