//! How a tape is written: pieces with a checksum each, so that what is damaged or cut off is found and the rest is good.
//!
//! ```text
//! "P6TAPE" 0 VERSION                                                  once
//! length (4 octets) | its complement (4) | checksum (8) | records     each piece; numbers least octet first
//! ```
//!
//! The checksum is FNV-1a over the piece's number and its records, which follow each other in postcard's form. A
//! [`Record::Begin`] is the first of all. The form of records is that of a version of the program: other versions read it as
//! long as nothing was taken out of [`Input`](super::Input) or changed there, and [`VERSION`] says when that is not so.

use super::digest::Hash;
use super::input::Record;

/// Of the form.
pub const VERSION: u8 = 1;
const MAGIC: [u8; 8] = [b'P', b'6', b'T', b'A', b'P', b'E', 0, VERSION];
/// Octets before the records of a piece.
const HEADER: usize = 16;
/// Longest piece. Those we make are that long when a configuration is.
const PIECE_MAX: usize = 256 << 20;

/// Why a tape cannot be read, or not from here on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is no tape.
    #[error("this is no recording of a P-SHIM6 box")]
    NoTape,
    /// It is one of another kind.
    #[error("the recording has form {0}, and this program reads {VERSION}")]
    Version(u8),
    /// A piece is not what was written.
    #[error("the recording is damaged at octet {0}")]
    Piece(usize),
    /// What is in it cannot be read: it is another version's, if not damaged with care.
    #[error("what is recorded before octet {0} cannot be read: {1}")]
    Record(usize, String),
}

/// What a tape begins with.
pub(super) fn head() -> Vec<u8> {
    MAGIC.to_vec()
}

fn checksum(number: u64, records: &[u8]) -> u64 {
    let mut hash = Hash::new();
    hash.number(number);
    hash.octets(records);
    hash.value()
}

/// A piece, of records that stand behind room for its header.
pub(super) fn seal(number: u64, mut piece: Vec<u8>) -> Vec<u8> {
    let records = piece.get(HEADER..).unwrap_or_default();
    let (length, sum) = (records.len() as u32, checksum(number, records));
    if let Some(header) = piece.first_chunk_mut::<HEADER>() {
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4..8].copy_from_slice(&(!length).to_le_bytes());
        header[8..].copy_from_slice(&sum.to_le_bytes());
    }
    piece
}

/// Room for a piece's header.
pub(super) fn room() -> Vec<u8> {
    vec![0; HEADER]
}

/// Whether there are records behind the room.
pub(super) fn is_empty(piece: &[u8]) -> bool {
    piece.len() <= HEADER
}

/// Adds a record to a piece.
pub(super) fn write(piece: &mut Vec<u8>, record: &Record<'_>) -> Result<(), String> {
    *piece = postcard::to_extend(record, std::mem::take(piece)).map_err(|error| error.to_string())?;
    Ok(())
}

/// Reads a tape piece by piece.
pub(super) struct Pieces<'a> {
    octets: &'a [u8],
    at: usize,
    number: u64,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(octets: &'a [u8]) -> Result<Pieces<'a>, Damage> {
        let head: &[u8; 8] = octets.first_chunk().ok_or(Damage::NoTape)?;
        let [magic @ .., version] = head;
        if *magic != MAGIC[..7] {
            return Err(Damage::NoTape);
        }
        if *version != VERSION {
            return Err(Damage::Version(*version));
        }
        Ok(Pieces { octets, at: head.len(), number: 0 })
    }

    /// The records of the next piece; none at the end.
    pub(super) fn next(&mut self) -> Option<Result<&'a [u8], Damage>> {
        let rest = self.octets.get(self.at..)?;
        let header: &[u8; HEADER] = rest.first_chunk()?;
        let [a, b, c, d, e, f, g, h, sum @ ..] = *header;
        let (length, complement) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let damaged = Some(Err(Damage::Piece(self.at)));
        if length != !complement || length as usize > PIECE_MAX {
            return damaged;
        }
        let records = rest.get(HEADER..HEADER + length as usize)?;
        if checksum(self.number, records) != u64::from_le_bytes(sum) {
            return damaged;
        }
        self.at += HEADER + records.len();
        self.number += 1;
        Some(Ok(records))
    }

    /// Where the next piece would begin.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Whether that is the end: a tape that was cut off has more there.
    pub(super) fn is_whole(&self) -> bool {
        self.at == self.octets.len()
    }
}
