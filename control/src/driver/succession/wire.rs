//! Messages over a stream: four octets of length, least first, and the message in postcard's form.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest message. Those we make have some hundred kilobytes at most.
const LENGTH_MAX: usize = 16 << 20;

/// A message as it travels.
pub(super) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let octets = postcard::to_extend(message, vec![0; 4]).map_err(io::Error::other)?;
    frame(octets)
}

fn frame(mut octets: Vec<u8>) -> io::Result<Vec<u8>> {
    let length = octets.len() - 4;
    if length > LENGTH_MAX {
        return Err(io::Error::other(format!("a message of {length} octets")));
    }
    octets[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(octets)
}

/// Sends a message.
pub(super) fn send<T: Serialize>(stream: &mut impl Write, message: &T) -> io::Result<()> {
    stream.write_all(&encode(message)?)
}

/// The next message.
pub(super) fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LENGTH_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} octets")));
    }
    let mut octets = vec![0; length];
    stream.read_exact(&mut octets)?;
    let (message, rest) =
        postcard::take_from_bytes(&octets).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if !rest.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more than a message"));
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{FromHeir, FromOld};
    use super::*;

    #[test]
    fn messages_come_back_and_broken_ones_are_errors() {
        let mut stream = Vec::new();
        send(&mut stream, &FromHeir::Hello(7)).unwrap();
        send(&mut stream, &FromHeir::Running(300)).unwrap();
        let mut read = &stream[..];
        assert_eq!(receive::<FromHeir>(&mut read).unwrap(), FromHeir::Hello(7));
        assert_eq!(receive::<FromHeir>(&mut read).unwrap(), FromHeir::Running(300));
        assert_eq!(receive::<FromHeir>(&mut read).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        for broken in [&[0xff; 8][..], &[2, 0, 0, 0, 1, 1], &[1, 0, 0, 0, 9], &[9, 0, 0, 0, 0]] {
            assert!(receive::<FromHeir>(&mut &broken[..]).is_err(), "{broken:?}");
        }
    }

    proptest! {
        /// Nothing that comes over the socket makes the process panic or take much memory.
        #[test]
        fn noise_is_an_error(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut framed = (octets.len() as u32).to_le_bytes().to_vec();
            framed.extend(&octets);
            let _ = receive::<FromOld>(&mut &framed[..]);
            let _ = receive::<FromOld>(&mut &octets[..]);
        }
    }
}
