//! From a meaning to the octets of a control header.

use super::kind::locator_padding;
use super::view::{REPORT_LEN, option_len};
use super::{
    ErrorMessage, LabelOption, LivenessOption, LocatorList, LocatorPreferences, Message, OptionType, Options,
    Preference, Probe, ProbeReport, UdpOption,
};
use crate::wire::address::{ContextTag, UlidPair};
use crate::wire::bfd;
use crate::wire::checksum;
use crate::wire::ipv6::protocol;

/// Octets of the longest Shim6 header: Hdr Ext Len has eight bits.
pub const HEADER_MAX: usize = 256 * 8;

/// Why a message cannot be put on the wire. All of these are mistakes of whoever built it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// The header would be longer than [`HEADER_MAX`].
    #[error("header of {0} octets does not fit its length field")]
    HeaderTooLong(usize),
    /// The packet would be longer than 1280 octets (R5533-028).
    #[error("control packet of {0} octets exceeds 1280")]
    PacketTooLong(usize),
    /// The message needs a Responder Validator.
    #[error("no Responder Validator")]
    MissingValidator,
    /// The RFC does not list the option for this message.
    #[error("{0} option not allowed in this message")]
    Misplaced(OptionType),
    /// Not 1 to 15 sent reports, or more than 15 received ones.
    #[error("number of probe reports out of range")]
    ReportCount,
    /// Elements of length zero, or with more or fewer fields than their length says.
    #[error("locator preferences do not fit their element length")]
    Preferences,
    /// An error code of more than seven bits.
    #[error("error code out of range")]
    ErrorCode,
}

impl Message {
    /// Octets of the header this message makes: a multiple of eight.
    pub fn buffer_len(&self) -> usize {
        let variable = match self {
            Message::Probe(probe) => REPORT_LEN * (probe.sent.len() + probe.received.len()),
            // The first eight octets of the packet in error are in the fixed part.
            Message::Error(error) => error.packet.len().next_multiple_of(8).max(8) - 8,
            _ => 0,
        };
        self.kind().fixed_len() + variable + self.options().buffer_len()
    }

    /// The header's octets: checksum computed, reserved bits and padding zero, nothing behind it (RFC 5533 §5.3).
    ///
    /// # Errors
    /// [`EmitError`] when no receiver would take the message for what it is.
    pub fn emit(&self) -> Result<Vec<u8>, EmitError> {
        self.check()?;
        Ok(self.encode())
    }

    fn check(&self) -> Result<(), EmitError> {
        let (kind, options) = (self.kind(), self.options());
        if kind.needs_validator() && options.validator.is_none() {
            return Err(EmitError::MissingValidator);
        }
        let misplaced = |option: &OptionType| options.has(*option) && !option.allowed_in(kind);
        if let Some(option) = OptionType::KNOWN.into_iter().find(misplaced) {
            return Err(EmitError::Misplaced(option));
        }
        if options.preferences.as_ref().is_some_and(|preferences| !preferences.are_regular()) {
            return Err(EmitError::Preferences);
        }
        match self {
            Message::Probe(probe) if !(1..=15).contains(&probe.sent.len()) || probe.received.len() > 15 => {
                return Err(EmitError::ReportCount);
            }
            Message::Error(error) if error.code.code() > 127 => return Err(EmitError::ErrorCode),
            _ => {}
        }
        match self.buffer_len() {
            len if len > HEADER_MAX => Err(EmitError::HeaderTooLong(len)),
            _ => Ok(()),
        }
    }

    /// The octets of a message that passed [`Message::check`], so that every narrowing below fits.
    fn encode(&self) -> Vec<u8> {
        let len = self.buffer_len();
        let mut out = Writer(Vec::with_capacity(len));
        let specific = if let Message::Error(error) = self { error.code.code() << 1 } else { 0 };
        out.octets(&[protocol::NO_NEXT_HEADER, (len / 8 - 1) as u8, self.kind().code(), specific, 0, 0]);
        match self {
            Message::I1 { initiator_tag, initiator_nonce, .. } => {
                out.tag(*initiator_tag).word(*initiator_nonce);
            }
            Message::R1 { initiator_nonce, responder_nonce, .. } => {
                out.zeros(2).word(*initiator_nonce).word(*responder_nonce);
            }
            Message::I2 { initiator_tag, initiator_nonce, responder_nonce, .. } => {
                out.tag(*initiator_tag).word(*initiator_nonce).word(*responder_nonce).zeros(4);
            }
            Message::R2 { responder_tag, initiator_nonce, .. } => {
                out.tag(*responder_tag).word(*initiator_nonce);
            }
            Message::R1bis { packet_tag, responder_nonce, .. } => {
                out.tag(*packet_tag).word(*responder_nonce);
            }
            Message::I2bis { initiator_tag, initiator_nonce, responder_nonce, packet_tag, .. } => {
                out.tag(*initiator_tag).word(*initiator_nonce).word(*responder_nonce).zeros(6).tag(*packet_tag);
            }
            Message::UpdateRequest { receiver_tag, request_nonce, .. }
            | Message::UpdateAck { receiver_tag, request_nonce, .. } => {
                out.tag(*receiver_tag).word(*request_nonce);
            }
            Message::Keepalive { receiver_tag, .. } => {
                out.tag(*receiver_tag).zeros(4);
            }
            Message::Probe(probe) => out.probe(probe),
            Message::Error(error) => out.error(error),
        }
        out.options(self.options());
        let mut octets = out.0;
        debug_assert_eq!(octets.len(), len, "buffer_len and encode agree");
        let checksum = checksum::of(&octets);
        octets[4..6].copy_from_slice(&checksum.to_be_bytes());
        octets
    }
}

impl Options {
    /// Octets of all options, padding included.
    pub fn buffer_len(&self) -> usize {
        OptionType::KNOWN.into_iter().filter_map(|option| self.contents_len(option)).map(option_len).sum()
    }

    /// What Length says for an option, if it is there.
    fn contents_len(&self, option: OptionType) -> Option<usize> {
        match option {
            OptionType::Validator => self.validator.as_ref().map(Vec::len),
            OptionType::Locators => self.locators.as_ref().map(LocatorList::contents_len),
            OptionType::Preferences => self.preferences.as_ref().map(LocatorPreferences::contents_len),
            OptionType::Pds => self.pds.as_ref().map(Vec::len),
            OptionType::Signature => self.signature.as_ref().map(Vec::len),
            OptionType::Ulids => self.ulids.map(|_| 36),
            OptionType::Fork => self.fork.map(|_| 4),
            OptionType::KeepaliveTimeout => self.keepalive_timeout.map(|_| 4),
            OptionType::FlowLabel => self.flow_label.map(|_| LabelOption::LEN),
            OptionType::Udp => self.udp.map(|_| UdpOption::LEN),
            OptionType::Liveness => self.liveness.map(|it| LivenessOption::LEN + it.packet.map_or(0, |_| bfd::LEN)),
            OptionType::Unknown(_) => None,
        }
    }
}

impl LocatorList {
    fn contents_len(&self) -> usize {
        let count = self.entries.len();
        5 + count + locator_padding(count) + 16 * count
    }
}

impl LocatorPreferences {
    fn contents_len(&self) -> usize {
        5 + usize::from(self.element_len) * self.elements.len()
    }

    /// Whether every element has the fields its length says.
    fn are_regular(&self) -> bool {
        let fields = (self.element_len >= 2, self.element_len >= 3);
        self.element_len >= 1
            && self.elements.iter().all(|element| (element.priority.is_some(), element.weight.is_some()) == fields)
    }
}

/// Octets written one field after the other.
struct Writer(Vec<u8>);

impl Writer {
    fn octets(&mut self, octets: &[u8]) -> &mut Writer {
        self.0.extend_from_slice(octets);
        self
    }

    fn zeros(&mut self, count: usize) -> &mut Writer {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    fn word(&mut self, word: u32) -> &mut Writer {
        self.octets(&word.to_be_bytes())
    }

    fn tag(&mut self, tag: ContextTag) -> &mut Writer {
        self.octets(&tag.octets())
    }

    fn probe(&mut self, probe: &Probe) {
        let counts = (probe.received.len() << 4 | probe.sent.len()) as u8;
        self.tag(probe.receiver_tag).octets(&[counts, probe.state.code() << 6, 0, 0]);
        for ProbeReport { source, target, nonce, data } in probe.sent.iter().chain(&probe.received) {
            self.octets(&source.0.octets()).octets(&target.0.octets()).word(*nonce).word(*data);
        }
    }

    fn error(&mut self, error: &ErrorMessage) {
        let len = error.packet.len();
        self.octets(&error.pointer.to_be_bytes()).octets(&error.packet).zeros(len.next_multiple_of(8).max(8) - len);
    }

    /// All options in the order of their numbers, none critical.
    fn options(&mut self, options: &Options) {
        for option in OptionType::KNOWN {
            let Some(len) = options.contents_len(option) else { continue };
            let start = self.0.len();
            self.octets(&(option.code() << 1).to_be_bytes()).octets(&(len as u16).to_be_bytes());
            match option {
                OptionType::Validator => self.opaque(options.validator.as_ref()),
                OptionType::Locators => options.locators.iter().for_each(|list| self.locators(list)),
                OptionType::Preferences => options.preferences.iter().for_each(|list| self.preferences(list)),
                OptionType::Pds => self.opaque(options.pds.as_ref()),
                OptionType::Signature => self.opaque(options.signature.as_ref()),
                OptionType::Ulids => options.ulids.iter().for_each(|ulids| self.ulids(ulids)),
                OptionType::Fork => options.fork.iter().for_each(|fork| _ = self.word(*fork)),
                OptionType::KeepaliveTimeout => {
                    options.keepalive_timeout.iter().for_each(|seconds| _ = self.word(u32::from(*seconds)));
                }
                OptionType::FlowLabel => options.flow_label.iter().for_each(|label| self.label(label)),
                OptionType::Liveness => options.liveness.iter().for_each(|it| self.liveness(it)),
                OptionType::Udp => options.udp.iter().for_each(|udp| self.udp(udp)),
                OptionType::Unknown(_) => {}
            }
            self.0.resize(start + option_len(len), 0);
        }
    }

    fn opaque(&mut self, contents: Option<&Vec<u8>>) {
        self.octets(contents.map_or(&[], Vec::as_slice));
    }

    fn locators(&mut self, list: &LocatorList) {
        let count = list.entries.len();
        self.word(list.generation).octets(&[count as u8]);
        self.0.extend(list.entries.iter().map(|(_, method)| method.code()));
        self.zeros(locator_padding(count));
        self.0.extend(list.entries.iter().flat_map(|(locator, _)| locator.0.octets()));
    }

    fn preferences(&mut self, preferences: &LocatorPreferences) {
        self.word(preferences.generation).octets(&[preferences.element_len]);
        for Preference { flags, priority, weight } in &preferences.elements {
            let start = self.0.len();
            self.0.push(*flags);
            self.0.extend(priority.iter().chain(weight));
            self.0.resize(start + usize::from(preferences.element_len), 0);
        }
    }

    fn label(&mut self, option: &LabelOption) {
        let LabelOption { purpose, arrived, label, nonce } = *option;
        let said = u32::from(purpose.code()) << 28 | u32::from(arrived) << 20 | label & 0xf_ffff;
        self.word(LabelOption::EXPERIMENT).word(said).word(nonce);
    }

    fn udp(&mut self, option: &UdpOption) {
        let UdpOption { purpose, in_udp, nonce } = *option;
        let said = u32::from(purpose.code()) << 28 | u32::from(in_udp);
        self.word(UdpOption::EXPERIMENT).word(said).word(nonce);
    }

    fn liveness(&mut self, option: &LivenessOption) {
        let LivenessOption { wanted, packet } = *option;
        let said = u32::from(packet.is_some()) << 28 | u32::from(wanted);
        self.word(LivenessOption::EXPERIMENT).word(said);
        packet.iter().for_each(|packet| _ = self.octets(&packet.emit()));
    }

    fn ulids(&mut self, ulids: &UlidPair) {
        self.zeros(4).octets(&ulids.local.0.octets()).octets(&ulids.peer.0.octets());
    }
}

#[cfg(test)]
impl Message {
    /// The octets without the checks, for golden vectors that are no complete messages.
    pub(super) fn encode_unchecked(&self) -> Vec<u8> {
        self.encode()
    }
}
