//! The protocol: one JSON object a line each way, the version in every one.
//!
//! ```text
//! -> {"version":1,"request":"status"}
//! <- {"version":1,"response":{"status":{"name":"a-box",...}}}
//! ```
//!
//! A connection carries any number of requests, one at a time. Lines are bounded at both ends, so neither can make the
//! other remember more than that.

use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};

use super::api::{ErrorView, Request, Response};

/// The version spoken here.
pub const VERSION: u32 = 1;

/// Longest request in octets; the longest real one has less than 200.
pub(super) const REQUEST_OCTETS_MAX: u64 = 16 * 1024;

/// Longest response in octets: 100 thousand contexts and more.
pub(super) const RESPONSE_OCTETS_MAX: u64 = 256 * 1024 * 1024;

/// A request as it travels.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestFrame {
    pub(super) version: u32,
    pub(super) request: Request,
}

/// A response as it travels.
#[derive(Serialize, Deserialize)]
pub(super) struct ResponseFrame {
    pub(super) version: u32,
    pub(super) response: Response,
}

/// Any frame, to see its version before the rest is believed.
#[derive(Deserialize)]
struct AnyFrame {
    version: u32,
}

/// The request on a line, or the answer to a line that holds none.
pub(super) fn parse_request(line: &[u8]) -> Result<Request, ErrorView> {
    match serde_json::from_slice::<AnyFrame>(line) {
        Ok(AnyFrame { version: VERSION }) => {}
        Ok(AnyFrame { version }) => {
            let program = env!("CARGO_PKG_VERSION");
            let text =
                format!("version {version} of the protocol is not spoken here, only {VERSION} (pshim6d {program})");
            return Err(ErrorView::new(text));
        }
        Err(error) => return Err(ErrorView::new(format!("not a request: {error}"))),
    }
    match serde_json::from_slice::<RequestFrame>(line) {
        Ok(frame) => Ok(frame.request),
        Err(error) => Err(ErrorView::new(format!("not a request: {error}"))),
    }
}

/// A frame as a line with its end.
pub(super) fn line(frame: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(frame)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads a line without its end; none at the end of the stream. A line of more than `octets_max` is an error of kind
/// `InvalidData`.
pub(super) fn read_line(stream: &mut impl BufRead, octets_max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    stream.take(octets_max + 1).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() as u64 >= octets_max => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line of more than {octets_max} octets")))
        }
        Some(_) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ends within a line")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded() {
        let mut stream: &[u8] = b"abc\n\nabcd\n";
        assert_eq!(read_line(&mut stream, 3).unwrap(), Some(b"abc".to_vec()));
        assert_eq!(read_line(&mut stream, 3).unwrap(), Some(Vec::new()));
        assert_eq!(read_line(&mut stream, 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut stream: &[u8] = b"ab";
        assert_eq!(read_line(&mut stream, 3).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read_line(&mut stream, 3).unwrap(), None);
    }

    #[test]
    fn another_version_is_named_before_anything_else_is_looked_at() {
        let Err(error) = parse_request(br#"{"version":2,"question":"status"}"#) else { panic!() };
        assert!(
            error.text.starts_with("version 2 of the protocol is not spoken here, only 1 (pshim6d "),
            "{}",
            error.text
        );
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_the_reader_panic(line: Vec<u8>) {
            let _ = parse_request(&line);
        }
    }
}
