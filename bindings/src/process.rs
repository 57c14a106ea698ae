//! What another program started by this process must not inherit.

use std::io;
use std::os::raw::{c_int, c_uint};

/// `CLOSE_RANGE_CLOEXEC` of close_range(2).
const CLOSE_ON_EXEC: c_int = 1 << 2;
/// The first descriptor behind standard input, output and error.
const FIRST: c_uint = 3;

unsafe extern "C" {
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int;
}

/// Has every descriptor that is open now closed when another program begins: DPDK opens devices and memory without saying so,
/// and a program that held them would keep them busy, and receive their packets, for as long as it lives.
pub fn keep_descriptors() -> io::Result<()> {
    // SAFETY: with this flag nothing is closed now; descriptors only get their close-on-exec flag, which the standard library sets on
    // its own anyway.
    let answer = unsafe { close_range(FIRST, c_uint::MAX, CLOSE_ON_EXEC) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::process::Command;

    use super::*;

    unsafe extern "C" {
        fn dup(descriptor: c_int) -> c_int;
    }

    #[test]
    fn another_program_gets_nothing_but_the_first_three() {
        // SAFETY: the copy is nobody's but ours.
        let _copy = unsafe { OwnedFd::from_raw_fd(dup(0)) };
        let count = || {
            let listed = Command::new("ls").arg("/proc/self/fd").output().unwrap().stdout;
            // One more is the directory itself.
            String::from_utf8(listed).unwrap().lines().count()
        };
        assert!(fs::read_dir("/proc/self/fd").unwrap().count() > 4);
        assert!(count() > 4, "a descriptor without the flag is inherited");
        keep_descriptors().unwrap();
        assert_eq!(count(), 4);
    }
}
