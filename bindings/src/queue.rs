//! The queues of one worker on one port, and the gate that stands before them while the device is set up anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::mbuf::Mbuf;
use crate::port::Device;
use crate::sys;

/// A receive queue and the transmit queue beside it, owned by one thread at a time.
#[derive(Debug)]
pub struct QueuePair {
    device: Arc<Device>,
    port: u16,
    queue: u16,
}

impl QueuePair {
    pub(crate) fn new(device: &Arc<Device>, port: u16, queue: u16) -> Self {
        QueuePair { device: Arc::clone(device), port, queue }
    }

    /// Appends up to `burst.capacity() - burst.len()` received packets; never allocates. One call into DPDK, and none
    /// while the device is set up anew.
    ///
    /// A packet that spans several buffers is larger than the MTU allows (a pool whose buffers do not hold a frame of
    /// the MTU is refused): it is dropped, and counted in [`crate::PortStats::rx_chained`].
    #[inline]
    pub fn receive(&mut self, burst: &mut Vec<Mbuf>) {
        if self.device.gate().is_shut(self.queue) {
            return;
        }
        let start = burst.len();
        let spare = burst.spare_capacity_mut();
        let room = spare.len().min(usize::from(u16::MAX)) as u16;
        // SAFETY: the port is started and stays so while `device` is held and the gate is open, which nobody shuts and
        // takes for shut before this thread has come to it again; `&mut self` makes this the only caller on this
        // queue; there is room for `room` pointers.
        let count = unsafe { sys::pshim6_rx_burst(self.port, self.queue, spare.as_mut_ptr().cast(), room) };
        // SAFETY: DPDK wrote `count <= room` pointers, none null, and gave each buffer to us alone. Those which do not
        // keep the invariants of `Mbuf` are taken out below before anybody sees them.
        unsafe { burst.set_len(start + usize::from(count)) };
        let mut sound = true;
        for mbuf in &mut burst[start..] {
            sound &= mbuf.settle();
        }
        if !sound {
            self.weed(burst, start);
        }
    }

    /// Takes from the front of `burst` what the device accepts and leaves the rest, in order. One call into DPDK, and
    /// none while the device is set up anew.
    #[inline]
    pub fn transmit(&mut self, burst: &mut Vec<Mbuf>) {
        if self.device.gate().is_shut(self.queue) {
            return;
        }
        let count = burst.len().min(usize::from(u16::MAX)) as u16;
        // SAFETY: as in `receive`, which the same thread calls; the vector holds at least `count` buffers of ours.
        let taken = unsafe { sys::pshim6_tx_burst(self.port, self.queue, burst.as_mut_ptr().cast(), count) };
        Mbuf::forget_first(burst, usize::from(taken));
    }

    /// The queues' number.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    #[cold]
    fn weed(&self, burst: &mut Vec<Mbuf>, start: usize) {
        let before = burst.len();
        let mut index = 0;
        burst.retain_mut(|mbuf| {
            index += 1;
            index <= start || mbuf.settle()
        });
        self.device.count_chained((before - burst.len()) as u64);
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        self.device.gate().leave(self.queue);
    }
}

/// Keeps threads out of a device's queues. Whoever uses a queue looks at the gate each time, which costs a load of a
/// line that nobody writes; whoever shuts it waits until all have seen it.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Odd while it is shut.
    epoch: AtomicU32,
    /// For each queue, the last epoch of a shut gate that its thread has seen, or [`Gate::GONE`].
    seen: Box<[AtomicU32]>,
}

impl Gate {
    /// The queue has no thread any more. Never an epoch: those of shut gates are odd, and there are not so many.
    const GONE: u32 = u32::MAX - 1;

    /// An open gate.
    pub(crate) fn new(queues: u16) -> Gate {
        Gate { epoch: AtomicU32::new(0), seen: (0..queues).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Whether a queue must be left alone. Its thread says with the question that it is not in there.
    #[inline]
    fn is_shut(&self, queue: u16) -> bool {
        // Pairs with the store in `open`: what was set up before is seen after.
        let epoch = self.epoch.load(Ordering::Acquire);
        epoch & 1 == 1 && self.note(queue, epoch)
    }

    #[cold]
    fn note(&self, queue: u16, epoch: u32) -> bool {
        if let Some(seen) = self.seen.get(usize::from(queue)) {
            // Pairs with the load in `shut`: what this thread did in the queue comes before what is done to the device.
            seen.store(epoch, Ordering::Release);
        }
        true
    }

    fn leave(&self, queue: u16) {
        if let Some(seen) = self.seen.get(usize::from(queue)) {
            seen.store(Self::GONE, Ordering::Release);
        }
    }

    /// Shuts the gate, if it is not, and waits until nobody is in a queue. False if that took longer than `patience`; then
    /// it is open again.
    pub(crate) fn shut(&self, patience: Duration) -> bool {
        let epoch = self.epoch.load(Ordering::Relaxed) | 1;
        self.epoch.store(epoch, Ordering::Release);
        let since = Instant::now();
        let out = |seen: &AtomicU32| matches!(seen.load(Ordering::Acquire), it if it == epoch || it == Self::GONE);
        while !self.seen.iter().all(out) {
            if since.elapsed() > patience {
                self.open();
                return false;
            }
            thread::sleep(Duration::from_micros(50));
        }
        true
    }

    /// Opens it.
    pub(crate) fn open(&self) {
        let epoch = self.epoch.load(Ordering::Relaxed);
        if epoch & 1 == 1 {
            self.epoch.store(epoch.wrapping_add(1), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn nobody_is_inside_while_it_is_shut() {
        const QUEUES: u16 = 3;
        let (gate, inside, stop) = (Gate::new(QUEUES), AtomicU64::new(0), AtomicBool::new(false));
        let visits = AtomicU64::new(0);
        thread::scope(|scope| {
            for queue in 0..QUEUES {
                let (gate, inside, stop, visits) = (&gate, &inside, &stop, &visits);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        if !gate.is_shut(queue) {
                            inside.fetch_add(1, Ordering::Relaxed);
                            visits.fetch_add(1, Ordering::Relaxed);
                            inside.fetch_sub(1, Ordering::Relaxed);
                        }
                    }
                    gate.leave(queue);
                });
            }
            for _ in 0..50 {
                assert!(gate.shut(PATIENCE));
                let before = visits.load(Ordering::Relaxed);
                for _ in 0..100 {
                    assert_eq!(inside.load(Ordering::Relaxed), 0);
                }
                assert!(gate.shut(PATIENCE), "shut is shut");
                assert_eq!(visits.load(Ordering::Relaxed), before);
                gate.open();
                while visits.load(Ordering::Relaxed) == before {
                    thread::yield_now();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(gate.shut(Duration::ZERO), "whoever has gone is not waited for");
    }

    #[test]
    fn who_does_not_come_by_keeps_it_open() {
        let gate = Gate::new(1);
        assert!(!gate.shut(Duration::from_millis(1)));
        assert!(!gate.is_shut(0));
    }
}
