//! Large tables. One of the two rooms of this crate with unsafe code.

#![allow(unsafe_code, reason = "advice to the kernel about memory has no safe form; it changes no content")]

/// `count` times `value`, in huge pages where the kernel gives them: at millions of contexts each look-up would
/// otherwise pay for a walk of the page tables as well.
pub fn huge<T: Clone>(count: usize, value: T) -> Box<[T]> {
    let mut values = Vec::with_capacity(count);
    // Before the first write, which is what makes the kernel choose pages.
    advise(&mut values);
    values.resize(count, value);
    values.into_boxed_slice()
}

/// Asks for huge pages under the room of an empty vector.
fn advise<T>(values: &mut Vec<T>) {
    const PAGE: usize = 4096;
    let room = values.spare_capacity_mut();
    let (start, octets) = (room.as_mut_ptr() as usize, size_of_val(room));
    let (from, to) = (start.next_multiple_of(PAGE), (start + octets) / PAGE * PAGE);
    if cfg!(miri) || from >= to {
        return;
    }
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the pages from `from` to `to` lie wholly inside memory that `values` owns, and the advice neither
        // unmaps nor changes them. That it may fail is part of its being advice.
        unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_HUGEPAGE) };
    }
}
