//! What the processor can do that the language has no words for. One of the two rooms of this crate with unsafe code.

#![allow(unsafe_code, reason = "instructions named one by one; none of them touches memory that is not ours")]

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

/// Asks for the first `LINES` cache lines of the value numbered `at`, without a look whether there is one: nothing comes of it
/// then.
#[inline(always)]
pub(crate) fn prefetch_at<const LINES: usize, T>(all: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = all.as_ptr().wrapping_add(at).cast::<i8>();
        for line in 0..LINES {
            // SAFETY: the instruction only hints the cache; whatever the address, it reads nothing and cannot fault.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line * 64)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (all, at);
}

/// Which of eight numbers are equal to one, as bits.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn equal(all: &[u16; 8], one: u16) -> u8 {
    use std::arch::x86_64::{_mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16};
    // SAFETY: every x86-64 has SSE2, so nothing has to be detected; the load needs no alignment and reads the sixteen
    // octets of `all`.
    unsafe {
        let same = _mm_cmpeq_epi16(_mm_loadu_si128(all.as_ptr().cast()), _mm_set1_epi16(one.cast_signed()));
        // The lower half of the packed comparison has one octet per number.
        _mm_movemask_epi8(_mm_packs_epi16(same, same)) as u8
    }
}

/// Which of eight numbers are equal to one, as bits.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn equal(all: &[u16; 8], one: u16) -> u8 {
    one_by_one(all, one)
}

/// The same for any processor.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn one_by_one(all: &[u16; 8], one: u16) -> u8 {
    all.iter().enumerate().fold(0, |hits, (way, &held)| hits | u8::from(held == one) << way)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn eight_at_once_are_compared_as_one_by_one(mut all: [u16; 8], one: u16, same: u8) {
            for way in (0..8).filter(|way| same >> way & 1 == 1) {
                all[way] = one;
            }
            prop_assert_eq!(equal(&all, one), one_by_one(&all, one));
        }
    }
}
