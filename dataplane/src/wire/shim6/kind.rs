//! Code points: the numbers of messages, options, methods, states and errors, and what is allowed where.

use std::fmt;

use super::{ErrorCode, LabelPurpose, Message, Options, ProbeState, UdpPurpose, VerificationMethod};
use crate::wire::address::ContextTag;

/// The seven-bit type of a control message (RFC 5533 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// 1
    I1,
    /// 2
    R1,
    /// 3
    I2,
    /// 4
    R2,
    /// 5
    R1bis,
    /// 6
    I2bis,
    /// 64
    UpdateRequest,
    /// 65
    UpdateAck,
    /// 66
    Keepalive,
    /// 67
    Probe,
    /// 68
    Error,
    /// Anything else.
    Unknown(u8),
}

impl MessageType {
    /// Every type with a meaning, in the order of their numbers.
    pub const KNOWN: [MessageType; 11] = [
        MessageType::I1,
        MessageType::R1,
        MessageType::I2,
        MessageType::R2,
        MessageType::R1bis,
        MessageType::I2bis,
        MessageType::UpdateRequest,
        MessageType::UpdateAck,
        MessageType::Keepalive,
        MessageType::Probe,
        MessageType::Error,
    ];

    /// The type with this number.
    pub const fn from_code(code: u8) -> MessageType {
        match code {
            1 => MessageType::I1,
            2 => MessageType::R1,
            3 => MessageType::I2,
            4 => MessageType::R2,
            5 => MessageType::R1bis,
            6 => MessageType::I2bis,
            64 => MessageType::UpdateRequest,
            65 => MessageType::UpdateAck,
            66 => MessageType::Keepalive,
            67 => MessageType::Probe,
            68 => MessageType::Error,
            other => MessageType::Unknown(other),
        }
    }

    /// The number of this type.
    pub const fn code(self) -> u8 {
        match self {
            MessageType::I1 => 1,
            MessageType::R1 => 2,
            MessageType::I2 => 3,
            MessageType::R2 => 4,
            MessageType::R1bis => 5,
            MessageType::I2bis => 6,
            MessageType::UpdateRequest => 64,
            MessageType::UpdateAck => 65,
            MessageType::Keepalive => 66,
            MessageType::Probe => 67,
            MessageType::Error => 68,
            MessageType::Unknown(other) => other,
        }
    }

    /// Octets of the fixed part, which is the least length of a message and, but for probes and errors, where the
    /// options start (RFC 5533 §5.4 to §5.14, RFC 5534 §5).
    pub const fn fixed_len(self) -> usize {
        match self {
            MessageType::I2 => 24,
            MessageType::I2bis => 32,
            MessageType::Unknown(_) => 8,
            _ => 16,
        }
    }

    /// Whether the message needs a Responder Validator to mean anything (R5533-047, -052, -069).
    pub const fn needs_validator(self) -> bool {
        matches!(self, MessageType::R1 | MessageType::I2 | MessageType::R1bis | MessageType::I2bis)
    }

    /// Whether the message carries the tag its receiver allocated, so that the lack of a context is answered by R1bis
    /// (RFC 5533 §7.17; decisions D16 and D17 leave out errors and unknown types).
    pub const fn carries_receiver_tag(self) -> bool {
        matches!(
            self,
            MessageType::UpdateRequest | MessageType::UpdateAck | MessageType::Keepalive | MessageType::Probe
        )
    }
}

/// The fifteen-bit type of an option (RFC 5533 §5.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OptionType {
    /// 1
    Validator,
    /// 2
    Locators,
    /// 3
    Preferences,
    /// 4
    Pds,
    /// 5
    Signature,
    /// 6
    Ulids,
    /// 7
    Fork,
    /// 10
    KeepaliveTimeout,
    /// 16966, of those for experimental use (RFC 5533 §17); see [`LivenessOption`](super::LivenessOption).
    Liveness,
    /// 19526, of those for experimental use (RFC 5533 §17); see [`LabelOption`](super::LabelOption).
    FlowLabel,
    /// 21828, likewise; see [`UdpOption`](super::UdpOption).
    Udp,
    /// Anything else.
    Unknown(u16),
}

impl OptionType {
    /// Every type with a meaning, in the order of their numbers.
    pub const KNOWN: [OptionType; 11] = [
        OptionType::Validator,
        OptionType::Locators,
        OptionType::Preferences,
        OptionType::Pds,
        OptionType::Signature,
        OptionType::Ulids,
        OptionType::Fork,
        OptionType::KeepaliveTimeout,
        OptionType::Liveness,
        OptionType::FlowLabel,
        OptionType::Udp,
    ];

    /// The type with this number.
    pub const fn from_code(code: u16) -> OptionType {
        match code {
            1 => OptionType::Validator,
            2 => OptionType::Locators,
            3 => OptionType::Preferences,
            4 => OptionType::Pds,
            5 => OptionType::Signature,
            6 => OptionType::Ulids,
            7 => OptionType::Fork,
            10 => OptionType::KeepaliveTimeout,
            16966 => OptionType::Liveness,
            19526 => OptionType::FlowLabel,
            21828 => OptionType::Udp,
            other => OptionType::Unknown(other),
        }
    }

    /// The number of this type.
    pub const fn code(self) -> u16 {
        match self {
            OptionType::Validator => 1,
            OptionType::Locators => 2,
            OptionType::Preferences => 3,
            OptionType::Pds => 4,
            OptionType::Signature => 5,
            OptionType::Ulids => 6,
            OptionType::Fork => 7,
            OptionType::KeepaliveTimeout => 10,
            OptionType::Liveness => 16966,
            OptionType::FlowLabel => 19526,
            OptionType::Udp => 21828,
            OptionType::Unknown(other) => other,
        }
    }

    /// Whether an RFC lists the option for this message (RFC 5533 §5.4 to §5.11, RFC 5534 §5.3), or our own experiment
    /// does. What is not listed is treated like an unknown option.
    pub const fn allowed_in(self, message: MessageType) -> bool {
        use MessageType::{I1, I2, I2bis, Keepalive, R1, R1bis, R2, UpdateRequest};
        match self {
            OptionType::Validator => matches!(message, R1 | I2 | R1bis | I2bis),
            OptionType::Locators
            | OptionType::Preferences
            | OptionType::Pds
            | OptionType::Signature
            | OptionType::KeepaliveTimeout => matches!(message, I2 | R2 | I2bis | UpdateRequest),
            OptionType::Ulids | OptionType::Fork => matches!(message, I1 | I2 | I2bis),
            OptionType::FlowLabel | OptionType::Udp | OptionType::Liveness => {
                matches!(message, I2 | R2 | I2bis | Keepalive)
            }
            OptionType::Unknown(_) => false,
        }
    }
}

/// The offset between the start of a Locator List option and the locators must be a multiple of eight; these octets
/// make it so, and they count as contents (RFC 5533 §5.15.2).
pub(super) const fn locator_padding(count: usize) -> usize {
    7 - count % 8
}

impl VerificationMethod {
    /// The method with this number.
    pub const fn from_code(code: u8) -> VerificationMethod {
        match code {
            1 => VerificationMethod::Hba,
            2 => VerificationMethod::Cga,
            other => VerificationMethod::Other(other),
        }
    }

    /// The number of this method.
    pub const fn code(self) -> u8 {
        match self {
            VerificationMethod::Hba => 1,
            VerificationMethod::Cga => 2,
            VerificationMethod::Other(other) => other,
        }
    }
}

impl ErrorCode {
    /// The code with this number.
    pub const fn from_code(code: u8) -> ErrorCode {
        match code {
            0 => ErrorCode::UnknownMessage,
            1 => ErrorCode::CriticalOption,
            2 => ErrorCode::VerificationMethod,
            3 => ErrorCode::Generation,
            4 => ErrorCode::PreferenceCount,
            other => ErrorCode::Other(other),
        }
    }

    /// The number of this code; seven bits of it are sent.
    pub const fn code(self) -> u8 {
        match self {
            ErrorCode::UnknownMessage => 0,
            ErrorCode::CriticalOption => 1,
            ErrorCode::VerificationMethod => 2,
            ErrorCode::Generation => 3,
            ErrorCode::PreferenceCount => 4,
            ErrorCode::Other(other) => other,
        }
    }
}

impl LabelPurpose {
    /// The purpose with this number; there is none for others.
    pub const fn from_code(code: u8) -> Option<LabelPurpose> {
        match code {
            0 => Some(LabelPurpose::Offer),
            1 => Some(LabelPurpose::Test),
            2 => Some(LabelPurpose::Answer),
            _ => None,
        }
    }

    /// The number of this purpose.
    pub const fn code(self) -> u8 {
        match self {
            LabelPurpose::Offer => 0,
            LabelPurpose::Test => 1,
            LabelPurpose::Answer => 2,
        }
    }
}

impl UdpPurpose {
    /// The purpose with this number; there is none for others.
    pub const fn from_code(code: u8) -> Option<UdpPurpose> {
        match code {
            0 => Some(UdpPurpose::Offer),
            1 => Some(UdpPurpose::Test),
            2 => Some(UdpPurpose::Answer),
            _ => None,
        }
    }

    /// The number of this purpose.
    pub const fn code(self) -> u8 {
        match self {
            UdpPurpose::Offer => 0,
            UdpPurpose::Test => 1,
            UdpPurpose::Answer => 2,
        }
    }
}

impl ProbeState {
    /// The state with this number; there is none for 3 (R5534-062).
    pub const fn from_code(code: u8) -> Option<ProbeState> {
        match code {
            0 => Some(ProbeState::Operational),
            1 => Some(ProbeState::Exploring),
            2 => Some(ProbeState::InboundOk),
            _ => None,
        }
    }

    /// The number of this state.
    pub const fn code(self) -> u8 {
        match self {
            ProbeState::Operational => 0,
            ProbeState::Exploring => 1,
            ProbeState::InboundOk => 2,
        }
    }
}

impl Message {
    /// The type of this message.
    pub const fn kind(&self) -> MessageType {
        match self {
            Message::I1 { .. } => MessageType::I1,
            Message::R1 { .. } => MessageType::R1,
            Message::I2 { .. } => MessageType::I2,
            Message::R2 { .. } => MessageType::R2,
            Message::R1bis { .. } => MessageType::R1bis,
            Message::I2bis { .. } => MessageType::I2bis,
            Message::UpdateRequest { .. } => MessageType::UpdateRequest,
            Message::UpdateAck { .. } => MessageType::UpdateAck,
            Message::Keepalive { .. } => MessageType::Keepalive,
            Message::Probe(_) => MessageType::Probe,
            Message::Error(_) => MessageType::Error,
        }
    }

    /// The options of this message; none for errors, which cannot have any.
    pub const fn options(&self) -> &Options {
        match self {
            Message::I1 { options, .. }
            | Message::R1 { options, .. }
            | Message::I2 { options, .. }
            | Message::R2 { options, .. }
            | Message::R1bis { options, .. }
            | Message::I2bis { options, .. }
            | Message::UpdateRequest { options, .. }
            | Message::UpdateAck { options, .. }
            | Message::Keepalive { options, .. } => options,
            Message::Probe(probe) => &probe.options,
            Message::Error(_) => &Options::NONE,
        }
    }

    /// The same, to change.
    pub const fn options_mut(&mut self) -> Option<&mut Options> {
        match self {
            Message::I1 { options, .. }
            | Message::R1 { options, .. }
            | Message::I2 { options, .. }
            | Message::R2 { options, .. }
            | Message::R1bis { options, .. }
            | Message::I2bis { options, .. }
            | Message::UpdateRequest { options, .. }
            | Message::UpdateAck { options, .. }
            | Message::Keepalive { options, .. } => Some(options),
            Message::Probe(probe) => Some(&mut probe.options),
            Message::Error(_) => None,
        }
    }

    /// The tag its receiver allocated, in messages of an established context.
    pub const fn receiver_tag(&self) -> Option<ContextTag> {
        match self {
            Message::UpdateRequest { receiver_tag, .. }
            | Message::UpdateAck { receiver_tag, .. }
            | Message::Keepalive { receiver_tag, .. } => Some(*receiver_tag),
            Message::Probe(probe) => Some(probe.receiver_tag),
            Message::I1 { .. }
            | Message::R1 { .. }
            | Message::I2 { .. }
            | Message::R2 { .. }
            | Message::R1bis { .. }
            | Message::I2bis { .. }
            | Message::Error(_) => None,
        }
    }
}

impl Options {
    /// No option at all.
    pub const NONE: Options = Options {
        validator: None,
        locators: None,
        preferences: None,
        pds: None,
        signature: None,
        ulids: None,
        fork: None,
        keepalive_timeout: None,
        flow_label: None,
        udp: None,
        liveness: None,
    };

    /// Whether the option is there.
    pub const fn has(&self, option: OptionType) -> bool {
        match option {
            OptionType::Validator => self.validator.is_some(),
            OptionType::Locators => self.locators.is_some(),
            OptionType::Preferences => self.preferences.is_some(),
            OptionType::Pds => self.pds.is_some(),
            OptionType::Signature => self.signature.is_some(),
            OptionType::Ulids => self.ulids.is_some(),
            OptionType::Fork => self.fork.is_some(),
            OptionType::KeepaliveTimeout => self.keepalive_timeout.is_some(),
            OptionType::FlowLabel => self.flow_label.is_some(),
            OptionType::Udp => self.udp.is_some(),
            OptionType::Liveness => self.liveness.is_some(),
            OptionType::Unknown(_) => false,
        }
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            MessageType::I1 => "I1",
            MessageType::R1 => "R1",
            MessageType::I2 => "I2",
            MessageType::R2 => "R2",
            MessageType::R1bis => "R1bis",
            MessageType::I2bis => "I2bis",
            MessageType::UpdateRequest => "Update Request",
            MessageType::UpdateAck => "Update Acknowledgement",
            MessageType::Keepalive => "Keepalive",
            MessageType::Probe => "Probe",
            MessageType::Error => "Error",
            MessageType::Unknown(code) => return write!(out, "message type {code}"),
        })
    }
}

impl fmt::Display for OptionType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            OptionType::Validator => "Responder Validator",
            OptionType::Locators => "Locator List",
            OptionType::Preferences => "Locator Preferences",
            OptionType::Pds => "CGA Parameter Data Structure",
            OptionType::Signature => "CGA Signature",
            OptionType::Ulids => "ULID Pair",
            OptionType::Fork => "Forked Instance Identifier",
            OptionType::KeepaliveTimeout => "Keepalive Timeout",
            OptionType::Liveness => "Liveness",
            OptionType::FlowLabel => "Flow Label",
            OptionType::Udp => "UDP",
            OptionType::Unknown(code) => return write!(out, "option type {code}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_go_both_ways() {
        for code in 0..=127 {
            assert_eq!(MessageType::from_code(code).code(), code);
            assert_eq!(ErrorCode::from_code(code).code(), code);
        }
        for code in 0..=255 {
            assert_eq!(VerificationMethod::from_code(code).code(), code);
        }
        for code in 0..1 << 15 {
            assert_eq!(OptionType::from_code(code).code(), code);
        }
        // D02: HBA is 1 and CGA is 2.
        assert_eq!((VerificationMethod::Hba.code(), VerificationMethod::Cga.code()), (1, 2));
    }

    // R5533-036
    #[test]
    fn the_known_types_are_those_of_the_rfcs() {
        assert_eq!(MessageType::KNOWN.map(MessageType::code), [1, 2, 3, 4, 5, 6, 64, 65, 66, 67, 68]);
        assert_eq!(OptionType::KNOWN.map(OptionType::code), [1, 2, 3, 4, 5, 6, 7, 10, 16966, 19526, 21828]);
    }
}
