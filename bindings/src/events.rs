//! What a device says by itself, from a thread of the EAL.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::Errno;
use crate::sys;

/// What is listened to.
const LISTENED: [sys::rte_eth_event_type; 3] = [
    sys::rte_eth_event_type_RTE_ETH_EVENT_INTR_LSC,
    sys::rte_eth_event_type_RTE_ETH_EVENT_INTR_RESET,
    sys::rte_eth_event_type_RTE_ETH_EVENT_INTR_RMV,
];

/// What happened to a device since it was opened. Written by the EAL's thread, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pub(crate) link_changes: AtomicU64,
    pub(crate) reset_wanted: AtomicBool,
    pub(crate) removed: AtomicBool,
}

impl Events {
    /// Begins to listen to a port. Ends with [`Events::ignore`], which has to come before `self` goes.
    pub(crate) fn listen(&self, port: u16) -> Result<(), Errno> {
        for event in LISTENED {
            // SAFETY: the port exists; the function fits; `self` outlives the registration, as callers promise, and is
            // only written through atomics.
            let answer = unsafe {
                sys::rte_eth_dev_callback_register(port, event, Some(heard), ptr::from_ref(self).cast_mut().cast())
            };
            Errno::check(answer)?;
        }
        Ok(())
    }

    /// Listens no longer: when this returns the EAL's thread does not look at `self` any more.
    pub(crate) fn ignore(&self, port: u16) {
        for event in LISTENED {
            // SAFETY: as above; what was not registered is not found, which is no harm.
            while Errno::check(unsafe {
                sys::rte_eth_dev_callback_unregister(port, event, Some(heard), ptr::from_ref(self).cast_mut().cast())
            }) == Err(Errno::EAGAIN)
            {
                // It is being called just now.
                std::thread::yield_now();
            }
        }
    }

    fn note(&self, event: sys::rte_eth_event_type) {
        match event {
            sys::rte_eth_event_type_RTE_ETH_EVENT_INTR_LSC => _ = self.link_changes.fetch_add(1, Ordering::Relaxed),
            sys::rte_eth_event_type_RTE_ETH_EVENT_INTR_RESET => self.reset_wanted.store(true, Ordering::Relaxed),
            sys::rte_eth_event_type_RTE_ETH_EVENT_INTR_RMV => self.removed.store(true, Ordering::Relaxed),
            _ => {}
        }
    }
}

unsafe extern "C" fn heard(_port: u16, event: sys::rte_eth_event_type, events: *mut c_void, _: *mut c_void) -> i32 {
    // SAFETY: what was registered is an `Events` that lives until it is unregistered (see `listen`).
    unsafe { &*events.cast::<Events>() }.note(event);
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_leaves_its_mark() {
        let events = Events::default();
        for event in LISTENED {
            // SAFETY: the pointer is to an `Events` that lives.
            unsafe { heard(0, event, ptr::from_ref(&events).cast_mut().cast(), ptr::null_mut()) };
        }
        assert_eq!(events.link_changes.load(Ordering::Relaxed), 1);
        assert!(events.reset_wanted.load(Ordering::Relaxed) && events.removed.load(Ordering::Relaxed));
    }
}
