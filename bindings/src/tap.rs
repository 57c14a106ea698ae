//! An interface of the kernel's whose frames this process has in its hands (TAP, Documentation/networking/tuntap).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::raw::{c_char, c_int, c_short, c_ulong};
use std::os::unix::fs::OpenOptionsExt;

/// Where the kernel gives them out.
const DEVICE: &str = "/dev/net/tun";
/// `_IOW('T', 202, int)`.
const TUNSETIFF: c_ulong = 0x4004_54ca;
/// Frames with their Ethernet header, and nothing before it.
const TAP_WITHOUT_HEADER: c_short = 0x0002 | 0x1000;
/// Not an interface that was there before.
const EXCLUSIVE: u16 = 0x8000;
/// `O_NONBLOCK` and `O_CLOEXEC`.
const FLAGS: c_int = 0o4000 | 0o2_000_000;
/// `IFNAMSIZ`.
const NAME_OCTETS: usize = 16;

/// `struct ifreq` as this one request reads it: name, flags, and the rest of a union.
#[repr(C)]
struct Request {
    name: [c_char; NAME_OCTETS],
    flags: c_short,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Request>() == 40);

unsafe extern "C" {
    fn ioctl(descriptor: c_int, request: c_ulong, ...) -> c_int;
}

/// Makes the interface `name` in this process's network namespace. It is there for as long as the file is open in any process,
/// and goes with it. Each read of the file is a frame that the kernel sends, each write one that it receives; neither waits.
///
/// # Errors
///
/// What the kernel says: that the name is taken or none, or that this process may not (`CAP_NET_ADMIN`).
pub fn open_tap(name: &str) -> io::Result<File> {
    let octets = name.as_bytes();
    if octets.is_empty() || octets.len() >= NAME_OCTETS || octets.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no name of an interface"));
    }
    let file = OpenOptions::new().read(true).write(true).custom_flags(FLAGS).open(DEVICE)?;
    let mut request =
        Request { name: [0; NAME_OCTETS], flags: TAP_WITHOUT_HEADER | EXCLUSIVE as c_short, rest: [0; 22] };
    for (place, octet) in request.name.iter_mut().zip(octets) {
        *place = *octet as c_char;
    }
    // SAFETY: the file is open; the request reads and writes a `struct ifreq`, which `Request` is as large as and laid out like,
    // and which lives until the call is over. There is no other way to make such an interface.
    let answer = unsafe { ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if answer == 0 { Ok(file) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_refused_before_the_kernel_is_asked() {
        for name in ["", "sixteen-letters-", "nul\0"] {
            assert_eq!(open_tap(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }

    #[test]
    fn an_interface_is_there_while_the_file_is_open_and_only_once() {
        let name = format!("pst{}", std::process::id() % 1_000_000);
        let place = format!("/sys/class/net/{name}");
        let file = match open_tap(&name) {
            Ok(file) => file,
            // On a laptop, without the right to.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
            Err(error) => panic!("{error}"),
        };
        let there = |place: &str| std::path::Path::new(place).exists();
        // Where a network namespace was entered, /sys may still show another one's.
        let shown = there(&place);
        assert!(open_tap(&name).is_err(), "the name is taken");
        drop(file);
        assert!(!there(&place), "shown before: {shown}");
        assert!(open_tap(&name).is_ok());
    }
}
