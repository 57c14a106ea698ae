//! A control header where it lies: nothing copied, every length checked once.
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Next Header  |  Hdr Ext Len  |0|     Type    |Type-specific|0|
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |           Checksum            |                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               |
//! |                    Type-specific format                       |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! A view that exists has the discriminating bits of a control message, lies whole inside its packet, carries a right
//! checksum, is as long as its type asks and, if it is a probe, has all its reports (RFC 5533 §5.3, §12.3).

use super::payload::P;
use super::{ErrorCode, MessageType, OptionType, ProbeReport, ProbeState};
use crate::wire::address::{ContextTag, Locator};
use crate::wire::checksum;

/// Octets of one report in a probe.
pub(super) const REPORT_LEN: usize = 40;
/// Offset of the type octet, which the pointer of Error 0 names.
const TYPE: usize = 2;
/// The bit that tells Shim6 from HIP in the fourth octet (RFC 5533 §5.3).
const S: u8 = 0x01;

/// Why octets are not a control message that can be acted on.
///
/// [`ParseError::UnknownType`] and [`ParseError::CriticalOption`] are answered by an Error message, see
/// [`ParseError::answer`]; all others are dropped in silence and counted (RFC 5533 §12.3, decision D39).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The header runs past the packet (R5533-293).
    #[error("header cut short")]
    Truncated,
    /// P is set, so this is no control message, or S is, so it is not Shim6 (R5533-318).
    #[error("P or S bit set")]
    BadDiscriminator,
    /// The checksum is wrong (R5533-292).
    #[error("wrong checksum")]
    Checksum,
    /// Shorter than the fixed part of its type.
    #[error("{0} too short")]
    TooShort(MessageType),
    /// A probe without a report about itself, in state 3, or shorter than its reports (R5534-116).
    #[error("probe with an illegal state or count")]
    BadProbe,
    /// No RFC gives this type a meaning (R5533-295).
    #[error("unknown message type {code}")]
    UnknownType {
        /// The type.
        code: u8,
        /// Offset of the type octet from the start of the Shim6 header.
        pointer: usize,
    },
    /// An option we do not know, or that is not listed for this message, insists on being known (R5533-100).
    #[error("critical option at octet {pointer} not recognised")]
    CriticalOption {
        /// Offset of the option's first octet from the start of the Shim6 header.
        pointer: usize,
    },
    /// An option runs past the header or contradicts itself (R5533-319).
    #[error("malformed option at octet {offset}")]
    MalformedOption {
        /// Offset of the option's first octet from the start of the Shim6 header.
        offset: usize,
    },
    /// An option that can only mean something once is there twice (R5533-319).
    #[error("duplicate {0} option")]
    DuplicateOption(OptionType),
    /// The message needs a Responder Validator and has none.
    #[error("no Responder Validator")]
    MissingValidator,
}

impl ParseError {
    /// The Error message this calls for, if any: its code, and its pointer from the start of the Shim6 header.
    pub const fn answer(self) -> Option<(ErrorCode, usize)> {
        match self {
            ParseError::UnknownType { pointer, .. } => Some((ErrorCode::UnknownMessage, pointer)),
            ParseError::CriticalOption { pointer } => Some((ErrorCode::CriticalOption, pointer)),
            ParseError::Truncated
            | ParseError::BadDiscriminator
            | ParseError::Checksum
            | ParseError::TooShort(_)
            | ParseError::BadProbe
            | ParseError::MalformedOption { .. }
            | ParseError::DuplicateOption(_)
            | ParseError::MissingValidator => None,
        }
    }
}

/// A control header in its packet.
#[derive(Clone, Copy, Debug)]
pub struct ControlView<'a> {
    /// Exactly the header; at least [`MessageType::fixed_len`] octets.
    octets: &'a [u8],
}

impl<'a> ControlView<'a> {
    /// A view of the control header at the start of `octets`. What follows the header is not looked at.
    ///
    /// # Errors
    /// One of [`ParseError`]; never about options, nor about an unknown type.
    pub fn new(octets: &'a [u8]) -> Result<ControlView<'a>, ParseError> {
        let &[_, units, type_octet, specific, _, _, _, _, ..] = octets else { return Err(ParseError::Truncated) };
        if type_octet & P != 0 || specific & S != 0 {
            return Err(ParseError::BadDiscriminator);
        }
        let octets = octets.get(..(usize::from(units) + 1) * 8).ok_or(ParseError::Truncated)?;
        if !checksum::verifies(octets) {
            return Err(ParseError::Checksum);
        }
        let view = ControlView { octets };
        if octets.len() < view.kind().fixed_len() {
            return Err(ParseError::TooShort(view.kind()));
        }
        if view.kind() == MessageType::Probe && !view.probe_is_whole() {
            return Err(ParseError::BadProbe);
        }
        Ok(view)
    }

    /// The header's octets, options included.
    pub fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// The type of the message.
    pub fn kind(&self) -> MessageType {
        MessageType::from_code(self.octet(TYPE) & !P)
    }

    /// The tag its sender allocated: I1, I2, I2bis and R2 offer one to be used towards them.
    pub fn sender_tag(&self) -> Option<ContextTag> {
        let offers = matches!(self.kind(), MessageType::I1 | MessageType::I2 | MessageType::I2bis | MessageType::R2);
        offers.then(|| self.tag_at(6))
    }

    /// The tag its receiver allocated: Update Request, Update Acknowledgement, Keepalive and Probe.
    pub fn receiver_tag(&self) -> Option<ContextTag> {
        self.kind().carries_receiver_tag().then(|| self.tag_at(6))
    }

    /// The tag of the packet that had no context: R1bis and I2bis.
    pub fn packet_tag(&self) -> Option<ContextTag> {
        match self.kind() {
            MessageType::R1bis => Some(self.tag_at(6)),
            MessageType::I2bis => Some(self.tag_at(26)),
            _ => None,
        }
    }

    /// Initiator Nonce.
    pub fn initiator_nonce(&self) -> Option<u32> {
        match self.kind() {
            MessageType::R1 => Some(self.word_at(8)),
            MessageType::I1 | MessageType::I2 | MessageType::R2 | MessageType::I2bis => Some(self.word_at(12)),
            _ => None,
        }
    }

    /// Responder Nonce.
    pub fn responder_nonce(&self) -> Option<u32> {
        match self.kind() {
            MessageType::R1 | MessageType::R1bis => Some(self.word_at(12)),
            MessageType::I2 | MessageType::I2bis => Some(self.word_at(16)),
            _ => None,
        }
    }

    /// Request Nonce.
    pub fn request_nonce(&self) -> Option<u32> {
        matches!(self.kind(), MessageType::UpdateRequest | MessageType::UpdateAck).then(|| self.word_at(12))
    }

    /// What an Error says: its code, its pointer and the packet it quotes, zero padding included.
    pub fn error(&self) -> Option<(ErrorCode, u16, &'a [u8])> {
        if self.kind() != MessageType::Error {
            return None;
        }
        let pointer = u16::from_be_bytes(self.chunk(6));
        Some((ErrorCode::from_code(self.octet(3) >> 1), pointer, self.octets.get(8..).unwrap_or_default()))
    }

    /// State of a probe's sender.
    pub fn probe_state(&self) -> Option<ProbeState> {
        if self.kind() != MessageType::Probe {
            return None;
        }
        ProbeState::from_code(self.octet(13) >> 6)
    }

    /// The sent reports of a probe; at least one, and none in other messages.
    pub fn sent_reports(&self) -> impl ExactSizeIterator<Item = ProbeReport> + use<'a> {
        self.reports(0, self.probe_counts().0)
    }

    /// The received reports of a probe.
    pub fn received_reports(&self) -> impl ExactSizeIterator<Item = ProbeReport> + use<'a> {
        let (sent, received) = self.probe_counts();
        self.reports(sent, received)
    }

    /// The options, whatever they are.
    pub fn options(&self) -> RawOptions<'a> {
        let start = match self.kind() {
            MessageType::Probe => {
                let (sent, received) = self.probe_counts();
                MessageType::Probe.fixed_len() + REPORT_LEN * (sent + received)
            }
            MessageType::Error | MessageType::Unknown(_) => self.octets.len(),
            other => other.fixed_len(),
        };
        RawOptions { header: self.octets, offset: start }
    }

    fn probe_is_whole(&self) -> bool {
        let (sent, received) = self.probe_counts();
        let reports_end = MessageType::Probe.fixed_len() + REPORT_LEN * (sent + received);
        sent > 0 && self.probe_state().is_some() && reports_end <= self.octets.len()
    }

    /// How many reports are sent and received ones. The figure of RFC 5534 §5.2 puts the counts the other way round
    /// than the reports.
    fn probe_counts(&self) -> (usize, usize) {
        if self.kind() != MessageType::Probe {
            return (0, 0);
        }
        (usize::from(self.octet(12) & 0x0f), usize::from(self.octet(12) >> 4))
    }

    fn reports(&self, first: usize, count: usize) -> impl ExactSizeIterator<Item = ProbeReport> + use<'a> {
        let start = MessageType::Probe.fixed_len() + REPORT_LEN * first;
        let octets = self.octets.get(start..start + REPORT_LEN * count).unwrap_or_default();
        octets.as_chunks::<REPORT_LEN>().0.iter().map(report)
    }

    fn octet(&self, offset: usize) -> u8 {
        self.chunk::<1>(offset)[0]
    }

    fn word_at(&self, offset: usize) -> u32 {
        u32::from_be_bytes(self.chunk(offset))
    }

    fn tag_at(&self, offset: usize) -> ContextTag {
        ContextTag::from_octets(self.chunk(offset))
    }

    /// `N` octets at `offset`, which is inside the fixed part of the message's type; the constructor saw to it, so
    /// the zeros are never taken.
    fn chunk<const N: usize>(&self, offset: usize) -> [u8; N] {
        chunk(self.octets, offset)
    }
}

/// One option where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawOption<'a> {
    /// Its type.
    pub kind: OptionType,
    /// The C bit: who does not know the option must not act on the message.
    pub critical: bool,
    /// As many octets as Length says.
    pub contents: &'a [u8],
    /// Offset of its first octet from the start of the Shim6 header.
    pub offset: usize,
}

/// The options of a message, in the order they stand. Ends after the first error.
#[derive(Clone, Debug)]
pub struct RawOptions<'a> {
    header: &'a [u8],
    offset: usize,
}

impl<'a> RawOptions<'a> {
    /// The options in `header` from `offset` on. Both options and header are multiples of eight octets long, so what
    /// is left is always nothing or enough for a type and a length.
    pub fn new(header: &'a [u8], offset: usize) -> RawOptions<'a> {
        RawOptions { header, offset }
    }
}

impl<'a> Iterator for RawOptions<'a> {
    type Item = Result<RawOption<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let rest = self.header.get(offset..).filter(|rest| !rest.is_empty())?;
        // Until the option proves sound, nothing follows it.
        self.offset = self.header.len();
        let malformed = Some(Err(ParseError::MalformedOption { offset }));
        let &[a, b, c, d, ..] = rest else { return malformed };
        let word = u16::from_be_bytes([a, b]);
        let length = usize::from(u16::from_be_bytes([c, d]));
        let total = option_len(length);
        let Some(contents) = rest.get(..total).and_then(|whole| whole.get(4..4 + length)) else { return malformed };
        self.offset = offset + total;
        Some(Ok(RawOption { kind: OptionType::from_code(word >> 1), critical: word & 1 != 0, contents, offset }))
    }
}

/// Octets of an option with `length` octets of contents, padding included (RFC 5533 §5.15).
pub(super) const fn option_len(length: usize) -> usize {
    11 + length - (length + 3) % 8
}

/// `N` octets at `offset`, or zeros when they are not there.
pub(super) fn chunk<const N: usize>(octets: &[u8], offset: usize) -> [u8; N] {
    octets.get(offset..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

fn report(octets: &[u8; REPORT_LEN]) -> ProbeReport {
    ProbeReport {
        source: Locator(chunk::<16>(octets, 0).into()),
        target: Locator(chunk::<16>(octets, 16).into()),
        nonce: u32::from_be_bytes(chunk(octets, 32)),
        data: u32::from_be_bytes(chunk(octets, 36)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // R5533-092, R5533-093, R5533-094, R5533-097
    #[test]
    fn options_are_multiples_of_eight() {
        let table =
            [(0, 8), (4, 8), (5, 16), (12, 16), (20, 24), (28, 32), (32, 40), (36, 40), (44, 48), (152 - 4, 152)];
        for (length, total) in table {
            assert_eq!(option_len(length), total, "length {length}");
        }
        for length in 0..64 {
            assert_eq!(option_len(length), (4 + length).next_multiple_of(8), "length {length}");
        }
    }

    #[test]
    fn options_come_one_after_the_other_and_end_at_the_first_error() {
        let octets = [
            [0, 0x0e, 0, 4, 0, 0, 0, 9],    // FII 9
            [0x40, 0x01, 0, 0, 7, 7, 7, 7], // type 0x2000, critical, empty, padding not zero
            [0, 0x04, 0, 5, 0, 0, 0, 0],    // one octet too long
            [0, 0x0e, 0, 4, 0, 0, 0, 9],
        ]
        .concat();
        let mut options = RawOptions::new(&octets[..24], 0);
        let fork = RawOption { kind: OptionType::Fork, critical: false, contents: &[0, 0, 0, 9], offset: 0 };
        let unknown = RawOption { kind: OptionType::Unknown(0x2000), critical: true, contents: &[], offset: 8 };
        assert_eq!(options.next(), Some(Ok(fork)));
        assert_eq!(options.next(), Some(Ok(unknown)));
        assert_eq!(options.next(), Some(Err(ParseError::MalformedOption { offset: 16 })));
        assert_eq!(options.next(), None);
        assert_eq!(RawOptions::new(&octets, 16).next().unwrap().unwrap().contents.len(), 5);
        assert_eq!(RawOptions::new(&octets, 99).next(), None);
    }
}
