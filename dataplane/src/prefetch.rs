//! Asking for memory before it is needed. One of the two rooms of this crate with unsafe code.

#![allow(unsafe_code, reason = "the prefetch instruction has no safe form; it never faults and changes no state")]

/// Asks for the cache line that holds the start of `value`.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the pointer comes from a live reference; the instruction only hints the cache and cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
