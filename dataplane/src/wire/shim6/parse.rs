//! From a control header to its meaning.

use super::kind::locator_padding;
use super::view::{ControlView, ParseError, RawOption, RawOptions, chunk};
use super::{
    ErrorMessage, LabelOption, LabelPurpose, LivenessOption, LocatorList, LocatorPreferences, Message, MessageType,
    OptionType, Options, Preference, Probe, UdpOption, UdpPurpose, VerificationMethod,
};
use crate::wire::address::{Locator, Ulid, UlidPair};
use crate::wire::bfd;

impl Message {
    /// The control message at the start of `header`; octets after the Shim6 header are not looked at. Reserved bits,
    /// padding and the Next Header field have no say (RFC 5533 §5, §12.3).
    ///
    /// # Errors
    /// One of [`ParseError`]; [`ParseError::answer`] tells which call for an Error message.
    pub fn parse(header: &[u8]) -> Result<Message, ParseError> {
        Message::from_view(&ControlView::new(header)?)
    }

    /// What a control header means.
    ///
    /// # Errors
    /// As [`Message::parse`], about the type and the options.
    pub fn from_view(view: &ControlView<'_>) -> Result<Message, ParseError> {
        let kind = view.kind();
        let options = Options::parse(view.options(), kind)?;
        if kind.needs_validator() && options.validator.is_none() {
            return Err(ParseError::MissingValidator);
        }
        fixed_part(view, options).ok_or(ParseError::UnknownType { code: kind.code(), pointer: 2 })
    }
}

/// The message, or nothing when its type has no meaning. The accessors answer for every field of the type they are
/// asked about.
fn fixed_part(view: &ControlView<'_>, options: Options) -> Option<Message> {
    Some(match view.kind() {
        MessageType::I1 => {
            Message::I1 { initiator_tag: view.sender_tag()?, initiator_nonce: view.initiator_nonce()?, options }
        }
        MessageType::R1 => {
            Message::R1 { initiator_nonce: view.initiator_nonce()?, responder_nonce: view.responder_nonce()?, options }
        }
        MessageType::I2 => Message::I2 {
            initiator_tag: view.sender_tag()?,
            initiator_nonce: view.initiator_nonce()?,
            responder_nonce: view.responder_nonce()?,
            options,
        },
        MessageType::R2 => {
            Message::R2 { responder_tag: view.sender_tag()?, initiator_nonce: view.initiator_nonce()?, options }
        }
        MessageType::R1bis => {
            Message::R1bis { packet_tag: view.packet_tag()?, responder_nonce: view.responder_nonce()?, options }
        }
        MessageType::I2bis => Message::I2bis {
            initiator_tag: view.sender_tag()?,
            initiator_nonce: view.initiator_nonce()?,
            responder_nonce: view.responder_nonce()?,
            packet_tag: view.packet_tag()?,
            options,
        },
        MessageType::UpdateRequest => {
            Message::UpdateRequest { receiver_tag: view.receiver_tag()?, request_nonce: view.request_nonce()?, options }
        }
        MessageType::UpdateAck => {
            Message::UpdateAck { receiver_tag: view.receiver_tag()?, request_nonce: view.request_nonce()?, options }
        }
        MessageType::Keepalive => Message::Keepalive { receiver_tag: view.receiver_tag()?, options },
        MessageType::Probe => Message::Probe(Probe {
            receiver_tag: view.receiver_tag()?,
            state: view.probe_state()?,
            sent: view.sent_reports().collect(),
            received: view.received_reports().collect(),
            options,
        }),
        MessageType::Error => {
            let (code, pointer, packet) = view.error()?;
            Message::Error(ErrorMessage { code, pointer, packet: packet.to_vec() })
        }
        MessageType::Unknown(_) => return None,
    })
}

impl Options {
    /// The options of a message of type `message`, in any order. Unknown ones, and known ones not listed for the
    /// message, are skipped, or end it when they are critical (RFC 5533 §5.15; R5533-098 to -103).
    ///
    /// # Errors
    /// [`ParseError::CriticalOption`], [`ParseError::MalformedOption`] or [`ParseError::DuplicateOption`], whichever
    /// comes first.
    pub fn parse(options: RawOptions<'_>, message: MessageType) -> Result<Options, ParseError> {
        let mut parsed = Options::NONE;
        for option in options {
            let option = option?;
            if option.kind.allowed_in(message) && !is_foreign(&option) {
                if parsed.has(option.kind) {
                    return Err(ParseError::DuplicateOption(option.kind));
                }
                parsed.take(&option).ok_or(ParseError::MalformedOption { offset: option.offset })?;
            } else if option.critical {
                return Err(ParseError::CriticalOption { pointer: option.offset });
            }
        }
        Ok(parsed)
    }

    /// Stores one option; nothing when it contradicts itself.
    fn take(&mut self, option: &RawOption<'_>) -> Option<()> {
        let contents = option.contents;
        match option.kind {
            OptionType::Validator => self.validator = Some(contents.to_vec()),
            OptionType::Locators => self.locators = Some(locators(option)?),
            OptionType::Preferences => self.preferences = Some(preferences(option)?),
            OptionType::Pds => self.pds = Some(contents.to_vec()),
            OptionType::Signature => self.signature = Some(contents.to_vec()),
            OptionType::Ulids => self.ulids = Some(ulids(contents.try_into().ok()?)),
            OptionType::Fork => self.fork = Some(u32::from_be_bytes(contents.try_into().ok()?)),
            OptionType::KeepaliveTimeout => {
                let &[_, _, high, low] = contents else { return None };
                self.keepalive_timeout = Some(u16::from_be_bytes([high, low]));
            }
            OptionType::FlowLabel => self.flow_label = Some(label(option)?),
            OptionType::Udp => self.udp = Some(udp(option)?),
            OptionType::Liveness => self.liveness = Some(liveness(option)?),
            OptionType::Unknown(_) => {}
        }
        Some(())
    }
}

/// Whether an option of an experimental type belongs to somebody else's experiment, and so is unknown to us.
fn is_foreign(option: &RawOption<'_>) -> bool {
    match option.kind {
        OptionType::FlowLabel => label(option).is_none(),
        OptionType::Udp => udp(option).is_none(),
        OptionType::Liveness => {
            let ours = option
                .contents
                .first_chunk()
                .is_some_and(|name| u32::from_be_bytes(*name) == LivenessOption::EXPERIMENT);
            !ours || option.contents.get(4).is_none_or(|said| said >> 4 > 1)
        }
        _ => false,
    }
}

/// Flow Label, with reserved bits ignored.
fn label(option: &RawOption<'_>) -> Option<LabelOption> {
    let contents: &[u8; LabelOption::LEN] = option.contents.try_into().ok()?;
    let word = |at| u32::from_be_bytes(chunk(contents, at));
    if word(0) != LabelOption::EXPERIMENT {
        return None;
    }
    Some(LabelOption {
        purpose: LabelPurpose::from_code((word(4) >> 28) as u8)?,
        arrived: word(4) >> 20 & 1 == 1,
        label: word(4) & 0xf_ffff,
        nonce: word(8),
    })
}

/// UDP, with reserved bits ignored.
fn udp(option: &RawOption<'_>) -> Option<UdpOption> {
    let contents: &[u8; UdpOption::LEN] = option.contents.try_into().ok()?;
    let word = |at| u32::from_be_bytes(chunk(contents, at));
    if word(0) != UdpOption::EXPERIMENT {
        return None;
    }
    let purpose = UdpPurpose::from_code((word(4) >> 28) as u8)?;
    Some(UdpOption { purpose, in_udp: word(4) & 1 == 1, nonce: word(8) })
}

/// Liveness, with reserved bits ignored.
fn liveness(option: &RawOption<'_>) -> Option<LivenessOption> {
    let (head, rest) = option.contents.split_first_chunk::<{ LivenessOption::LEN }>()?;
    let said = u32::from_be_bytes(chunk(head, 4));
    let packet = match said >> 28 {
        0 if rest.is_empty() => None,
        1 => Some(bfd::Packet::parse(rest.try_into().ok()?)?),
        _ => return None,
    };
    Some(LivenessOption { wanted: said & 1 == 1, packet })
}

/// Locator List (RFC 5533 §5.15.2): the length must be exactly what the count asks for.
fn locators(option: &RawOption<'_>) -> Option<LocatorList> {
    let (generation, rest) = option.contents.split_first_chunk()?;
    let (count, rest) = rest.split_first()?;
    let count = usize::from(*count);
    let (methods, rest) = rest.split_at_checked(count)?;
    let (_padding, rest) = rest.split_at_checked(locator_padding(count))?;
    let (addresses, []) = rest.as_chunks::<16>() else { return None };
    if addresses.len() != count {
        return None;
    }
    let entries = addresses.iter().zip(methods);
    Some(LocatorList {
        generation: u32::from_be_bytes(*generation),
        entries: entries
            .map(|(address, method)| (Locator((*address).into()), VerificationMethod::from_code(*method)))
            .collect(),
        methods_offset: option.offset + 9,
    })
}

/// Locator Preferences (RFC 5533 §5.15.3): whole elements of at least one octet; of long ones the first three count.
fn preferences(option: &RawOption<'_>) -> Option<LocatorPreferences> {
    let (generation, rest) = option.contents.split_first_chunk()?;
    let (element_len, rest) = rest.split_first()?;
    let elements = match usize::from(*element_len) {
        0 => return None,
        len => rest.chunks_exact(len),
    };
    if !elements.remainder().is_empty() {
        return None;
    }
    Some(LocatorPreferences {
        generation: u32::from_be_bytes(*generation),
        element_len: *element_len,
        elements: elements
            .map(|element| Preference {
                flags: chunk::<1>(element, 0)[0],
                priority: element.get(1).copied(),
                weight: element.get(2).copied(),
            })
            .collect(),
        offset: option.offset,
    })
}

/// ULID Pair (RFC 5533 §5.15.6), behind four reserved octets.
fn ulids(contents: &[u8; 36]) -> UlidPair {
    UlidPair { local: Ulid(chunk::<16>(contents, 4).into()), peer: Ulid(chunk::<16>(contents, 20).into()) }
}
