//! Open files from one process to the other (unix(7), SCM_RIGHTS): the interfaces of the operating system that go on.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Most files: one for each port.
const FILES_MAX: usize = 64;
/// Octets that so many take beside the stream.
const ROOM: usize = 24 + 4 * FILES_MAX + 8;
/// What travels with them.
const MARK: u8 = 0x5e;

/// Sends files, one octet of the stream with them. Nothing is sent of none.
pub(super) fn send(stream: &UnixStream, files: &[OwnedFd]) -> io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let files: Vec<BorrowedFd<'_>> = files.iter().map(|file| file.as_fd()).collect();
    let mut room = [MaybeUninit::uninit(); ROOM];
    let mut beside = SendAncillaryBuffer::new(&mut room);
    if !beside.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(stream, &[IoSlice::new(&[MARK])], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives `count` files where they are next in the stream.
pub(super) fn receive(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut room = [MaybeUninit::uninit(); ROOM];
    let mut beside = RecvAncillaryBuffer::new(&mut room);
    let mut mark = [0];
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut mark)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let mut files = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            files.extend(descriptors);
        }
    }
    match received.bytes == 1 && mark == [MARK] && files.len() == count {
        true => Ok(files),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "not the files that were announced")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn files_arrive_where_they_were_put_in_the_stream() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let (first, mut second) = UnixStream::pair().unwrap();
        here.write_all(b"before").unwrap();
        let file = OwnedFd::from(first);
        send(&here, &[file]).unwrap();
        send(&here, &[]).unwrap();
        here.write_all(b"after").unwrap();
        let mut words = [0; 6];
        there.read_exact(&mut words).unwrap();
        let mut files = receive(&there, 1).unwrap();
        assert_eq!((&words, receive(&there, 0).unwrap().len()), (b"before", 0));
        there.read_exact(&mut words[..5]).unwrap();
        assert_eq!(&words[..5], b"after");
        UnixStream::from(files.remove(0)).write_all(b"x").unwrap();
        second.read_exact(&mut words[..1]).unwrap();
        assert_eq!(words[0], b'x');
    }

    #[test]
    fn what_is_no_file_is_an_error() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(&[MARK]).unwrap();
        assert!(receive(&there, 1).is_err());
        here.write_all(b"other").unwrap();
        assert!(receive(&there, 2).is_err());
    }
}
