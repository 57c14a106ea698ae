//! The codec against the specification: golden vectors, the header's own rules, and helpers for the other tests.

mod options;
mod properties;

use super::*;
use crate::wire::address::{ContextTag, Locator, Ulid, UlidPair};
use crate::wire::bfd;
use crate::wire::checksum;

pub(super) fn tag() -> ContextTag {
    ContextTag::new(0x1234_5678_9abc).unwrap()
}

pub(super) fn other_tag() -> ContextTag {
    ContextTag::new(0x0a0b_0c0d_0e0f).unwrap()
}

const INITIATOR: u32 = 0xdead_beef;
const RESPONDER: u32 = 0x0102_0304;

/// Octets from hexadecimal digits; white space is for the reader.
pub(super) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |octet: u8| (octet as char).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Puts length and checksum of a header right, whatever else it says.
pub(super) fn sealed(mut header: Vec<u8>) -> Vec<u8> {
    header[1] = (header.len() / 8 - 1) as u8;
    header[4..6].fill(0);
    let checksum = checksum::of(&header);
    header[4..6].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// `message` with raw `options` behind those it has.
pub(super) fn with_raw(message: &Message, options: &[u8]) -> Vec<u8> {
    sealed([message.emit().unwrap(), options.to_vec()].concat())
}

pub(super) fn locator(text: &str) -> Locator {
    Locator(text.parse().unwrap())
}

pub(super) fn validator() -> Options {
    Options { validator: Some((0..0x14).collect()), ..Options::NONE }
}

/// One message of every type, without options but for the validator where one is needed.
pub(super) fn one_of_each() -> [Message; 11] {
    let report = |nonce| ProbeReport { source: locator("2001:db8::a"), target: locator("2001:db8::b"), nonce, data: 5 };
    let options = Options::NONE;
    [
        Message::I1 { initiator_tag: tag(), initiator_nonce: INITIATOR, options: options.clone() },
        Message::R1 { initiator_nonce: INITIATOR, responder_nonce: RESPONDER, options: validator() },
        Message::I2 {
            initiator_tag: tag(),
            initiator_nonce: INITIATOR,
            responder_nonce: RESPONDER,
            options: validator(),
        },
        Message::R2 { responder_tag: other_tag(), initiator_nonce: INITIATOR, options: options.clone() },
        Message::R1bis { packet_tag: tag(), responder_nonce: RESPONDER, options: validator() },
        Message::I2bis {
            initiator_tag: other_tag(),
            initiator_nonce: INITIATOR,
            responder_nonce: RESPONDER,
            packet_tag: tag(),
            options: validator(),
        },
        Message::UpdateRequest { receiver_tag: tag(), request_nonce: 7, options: options.clone() },
        Message::UpdateAck { receiver_tag: tag(), request_nonce: 7, options: options.clone() },
        Message::Keepalive { receiver_tag: tag(), options: options.clone() },
        Message::Probe(Probe {
            receiver_tag: tag(),
            state: ProbeState::InboundOk,
            sent: vec![report(1), report(2)],
            received: vec![report(3)],
            options,
        }),
        Message::Error(ErrorMessage { code: ErrorCode::Generation, pointer: 99, packet: vec![0x60; 48] }),
    ]
}

fn report(source: &str, target: &str, nonce: u32) -> ProbeReport {
    ProbeReport { source: locator(source), target: locator(target), nonce, data: 0 }
}

/// The complete messages of the specification's reference encodings.
fn golden() -> Vec<(Message, &'static str)> {
    let ulids =
        UlidPair { local: Ulid("2001:db8:1::a".parse().unwrap()), peer: Ulid("2001:db8:2::b".parse().unwrap()) };
    let with_ulids = Options { ulids: Some(ulids), ..Options::NONE };
    let probe = |state, sent, received| {
        Message::Probe(Probe { receiver_tag: tag(), state, sent, received, options: Options::NONE })
    };
    vec![
        (
            Message::I1 { initiator_tag: tag(), initiator_nonce: INITIATOR, options: Options::NONE },
            "3b010100 22f81234 56789abc deadbeef",
        ),
        (
            Message::I1 { initiator_tag: tag(), initiator_nonce: INITIATOR, options: with_ulids },
            "3b060100 c7381234 56789abc deadbeef 000c0024 00000000
             20010db8 00010000 00000000 0000000a 20010db8 00020000 00000000 0000000b",
        ),
        (
            Message::R1 { initiator_nonce: INITIATOR, responder_nonce: RESPONDER, options: validator() },
            "3b040200 c6dd0000 deadbeef 01020304 00020014 00010203 04050607 08090a0b 0c0d0e0f 10111213",
        ),
        (
            Message::R2 { responder_tag: other_tag(), initiator_nonce: INITIATOR, options: Options::NONE },
            "3b010400 ff390a0b 0c0d0e0f deadbeef",
        ),
        (
            Message::R1bis { packet_tag: tag(), responder_nonce: RESPONDER, options: validator() },
            "3b040500 5e121234 56789abc 01020304 00020014 00010203 04050607 08090a0b 0c0d0e0f 10111213",
        ),
        (
            Message::UpdateAck { receiver_tag: tag(), request_nonce: INITIATOR, options: Options::NONE },
            "3b014100 e2f71234 56789abc deadbeef",
        ),
        (Message::Keepalive { receiver_tag: tag(), options: Options::NONE }, "3b014200 7f951234 56789abc 00000000"),
        (
            probe(ProbeState::Exploring, vec![report("2001:db8:b::1", "2001:db8:a::1", 0x1122_3344)], vec![]),
            "3b06 4300 dd60 1234 5678 9abc 0140 0000
             2001 0db8 000b 0000 0000 0000 0000 0001 2001 0db8 000a 0000 0000 0000 0000 0001 1122 3344 0000 0000",
        ),
        (
            probe(
                ProbeState::InboundOk,
                vec![report("2001:db8:a::1", "2001:db8:b::2", 0x5566_7788)],
                vec![report("2001:db8:b::2", "2001:db8:a::1", 0x99aa_bbcc)],
            ),
            "3b0b 4300 9390 1234 5678 9abc 1180 0000
             2001 0db8 000a 0000 0000 0000 0000 0001 2001 0db8 000b 0000 0000 0000 0000 0002 5566 7788 0000 0000
             2001 0db8 000b 0000 0000 0000 0000 0002 2001 0db8 000a 0000 0000 0000 0000 0001 99aa bbcc 0000 0000",
        ),
    ]
}

// R5533-030, -034, -035, -036, -038, -044, -061, -066, -083; R5534-048, -054
#[test]
fn golden_messages_go_both_ways() {
    for (message, octets) in golden() {
        let octets = hex(octets);
        assert_eq!(message.emit().unwrap(), octets, "{message:?}");
        assert_eq!(message.buffer_len(), octets.len());
        assert_eq!(Message::parse(&octets), Ok(message));
    }
}

// R5533-070
#[test]
fn the_golden_i2bis_without_validator_has_its_fields_in_place() {
    let octets = hex("3b030600 f5c80a0b 0c0d0e0f deadbeef 01020304 00000000 00001234 56789abc");
    let [.., i2bis, _, _, _, _, _] = one_of_each();
    let mut bare = i2bis.clone();
    *bare.options_mut().unwrap() = Options::NONE;
    assert_eq!(bare.encode_unchecked(), octets);
    assert_eq!(bare.emit(), Err(EmitError::MissingValidator));
    assert_eq!(Message::parse(&octets), Err(ParseError::MissingValidator));
    let view = ControlView::new(&octets).unwrap();
    assert_eq!((view.sender_tag(), view.packet_tag()), (Some(other_tag()), Some(tag())));
    assert_eq!((view.initiator_nonce(), view.responder_nonce()), (Some(INITIATOR), Some(RESPONDER)));
    assert_eq!(Message::parse(&i2bis.emit().unwrap()), Ok(i2bis));
}

#[test]
fn every_message_round_trips() {
    for message in one_of_each() {
        let octets = message.emit().unwrap();
        assert_eq!(octets[0], 59);
        assert_eq!(Message::parse(&octets), Ok(message));
    }
}

// R5533-313: whatever may only be said once there is a context names it; an Error quotes a packet instead (D16).
#[test]
fn a_view_tells_the_fields_of_its_type_and_no_others() {
    for message in one_of_each() {
        let octets = message.emit().unwrap();
        let view = ControlView::new(&octets).unwrap();
        assert_eq!(view.kind(), message.kind());
        assert_eq!(view.receiver_tag(), message.receiver_tag());
        assert_eq!(view.receiver_tag().is_some(), matches!(message.kind().code(), 64..=67));
        assert_eq!(view.request_nonce().is_some(), matches!(message.kind().code(), 64 | 65));
        assert_eq!(view.sender_tag().is_some(), matches!(message.kind().code(), 1 | 3 | 4 | 6));
        assert_eq!(view.packet_tag().is_some(), matches!(message.kind().code(), 5 | 6));
        assert_eq!(view.initiator_nonce().is_some(), matches!(message.kind().code(), 1 | 2 | 3 | 4 | 6));
        assert_eq!(view.responder_nonce().is_some(), matches!(message.kind().code(), 2 | 3 | 5 | 6));
        assert_eq!(view.error().is_some(), message.kind() == MessageType::Error);
        assert_eq!(view.probe_state().is_some(), message.kind() == MessageType::Probe);
        let reports = if message.kind() == MessageType::Probe { (2, 1) } else { (0, 0) };
        assert_eq!((view.sent_reports().len(), view.received_reports().len()), reports);
    }
}

/// A reserved bit or run of octets: the message, the offset, the mask and the requirement.
const RESERVED: [(MessageType, std::ops::Range<usize>, u8, &str); 26] = [
    (MessageType::I1, 3..4, 0xfe, "R5533-039"),
    (MessageType::I1, 6..7, 0x80, "R5533-040"),
    (MessageType::R1, 3..4, 0xfe, "R5533-045"),
    (MessageType::R1, 6..8, 0xff, "R5533-046"),
    (MessageType::I2, 3..4, 0xfe, "R5533-049"),
    (MessageType::I2, 6..7, 0x80, "R5533-050"),
    (MessageType::I2, 20..24, 0xff, "R5533-051"),
    (MessageType::R2, 3..4, 0xfe, "R5533-062"),
    (MessageType::R2, 6..7, 0x80, "R5533-063"),
    (MessageType::R1bis, 3..4, 0xfe, "R5533-067"),
    (MessageType::R1bis, 6..7, 0x80, "R5533-068"),
    (MessageType::I2bis, 3..4, 0xfe, "R5533-071"),
    (MessageType::I2bis, 6..7, 0x80, "R5533-072"),
    (MessageType::I2bis, 20..26, 0xff, "R5533-073"),
    (MessageType::I2bis, 26..27, 0x80, "R5533-073"),
    (MessageType::UpdateRequest, 3..4, 0xfe, "R5533-078"),
    (MessageType::UpdateRequest, 6..7, 0x80, "R5533-079"),
    (MessageType::UpdateAck, 3..4, 0xfe, "R5533-084"),
    (MessageType::UpdateAck, 6..7, 0x80, "R5533-085"),
    (MessageType::Keepalive, 3..4, 0xfe, "R5534-049"),
    (MessageType::Keepalive, 6..7, 0x80, "R5534-049"),
    (MessageType::Keepalive, 12..16, 0xff, "R5534-049"),
    (MessageType::Probe, 3..4, 0xfe, "R5534-055"),
    (MessageType::Probe, 6..7, 0x80, "R5534-055"),
    (MessageType::Probe, 13..14, 0x3f, "R5534-056"),
    (MessageType::Probe, 14..16, 0xff, "R5534-056"),
];

#[test]
fn reserved_bits_are_sent_as_zero_and_not_looked_at() {
    for message in one_of_each() {
        let octets = message.emit().unwrap();
        let mut all = octets.clone();
        for (_, field, mask, row) in RESERVED.iter().filter(|(kind, ..)| *kind == message.kind()) {
            let mut set = octets.clone();
            for offset in field.clone() {
                assert_eq!(octets[offset] & mask, 0, "{row}");
                set[offset] |= mask;
                all[offset] |= mask;
            }
            assert_eq!(Message::parse(&sealed(set)).as_ref(), Ok(&message), "{row}");
        }
        // Next Header is not looked at either (decision D38).
        all[0] = 6;
        assert_eq!(Message::parse(&sealed(all)), Ok(message));
    }
}

// R5533-292
#[test]
fn one_wrong_bit_is_never_the_same_message() {
    for message in one_of_each() {
        let octets = message.emit().unwrap();
        for bit in 0..octets.len() * 8 {
            let mut wrong = octets.clone();
            wrong[bit / 8] ^= 0x80 >> (bit % 8);
            let expected = match bit / 8 {
                // A different length: too long for the slice, or a sum over something else.
                1 if wrong[1] > octets[1] => ParseError::Truncated,
                2 if bit % 8 == 0 => ParseError::BadDiscriminator,
                3 if bit % 8 == 7 => ParseError::BadDiscriminator,
                _ => ParseError::Checksum,
            };
            assert_eq!(Message::parse(&wrong), Err(expected), "{message:?} bit {bit}");
        }
    }
}

// R5533-033, R5533-293
#[test]
fn a_header_past_the_end_is_dropped_and_octets_behind_it_are_not_looked_at() {
    for message in one_of_each() {
        let octets = message.emit().unwrap();
        for len in 0..octets.len() {
            assert_eq!(Message::parse(&octets[..len]), Err(ParseError::Truncated));
        }
        let trailed = [octets, vec![0xff; 13]].concat();
        assert_eq!(Message::parse(&trailed), Ok(message));
    }
}

// R5533-318
#[test]
fn p_and_s_bits_are_not_shim6_control() {
    for message in one_of_each() {
        for (offset, bit) in [(2, 0x80), (3, 0x01)] {
            let mut octets = message.emit().unwrap();
            octets[offset] |= bit;
            assert_eq!(Message::parse(&sealed(octets)), Err(ParseError::BadDiscriminator));
        }
    }
}

// R5533-295, R5533-325
#[test]
fn unknown_types_call_for_error_0_at_the_type_octet() {
    for code in 0..=127u8 {
        if MessageType::KNOWN.iter().any(|kind| kind.code() == code) {
            continue;
        }
        for len in [8, 16, 64] {
            let mut octets = vec![0; len];
            octets[2] = code;
            // What stands where options might be has no say: a critical option, a malformed one.
            octets[len - 8..].fill(0xff);
            octets[2] = code;
            octets[3] = 0;
            let error = Message::parse(&sealed(octets)).unwrap_err();
            assert_eq!(error, ParseError::UnknownType { code, pointer: 2 });
            assert_eq!(error.answer(), Some((ErrorCode::UnknownMessage, 2)));
        }
    }
}

// R5533-161, R5533-273 and their like: the least length of each type
#[test]
fn a_message_shorter_than_its_type_is_dropped() {
    for kind in MessageType::KNOWN {
        for len in (8..kind.fixed_len()).step_by(8) {
            let mut octets = vec![0; len];
            octets[2] = kind.code();
            let error = Message::parse(&sealed(octets)).unwrap_err();
            assert_eq!((error, error.answer()), (ParseError::TooShort(kind), None));
        }
    }
}

// R5534-116, R5534-062, R5534-057
#[test]
fn illegal_probes_are_dropped() {
    let [.., probe, _] = one_of_each();
    let octets = probe.emit().unwrap();
    assert_eq!(octets[12..14], [0x12, 0x80]);
    // No sent report; more reports than there are octets for; state 3.
    for (offset, value) in [(12, 0x10), (12, 0x30), (12, 0x13), (12, 0xff), (13, 0xc0)] {
        let mut wrong = octets.clone();
        wrong[offset] = value;
        let error = Message::parse(&sealed(wrong)).unwrap_err();
        assert_eq!((error, error.answer()), (ParseError::BadProbe, None), "{offset} {value:x}");
    }
}

#[test]
fn a_probe_holds_fifteen_reports_of_each_kind_and_fits_its_packet() {
    let reports = |count| vec![report("2001:db8::1", "2001:db8::2", 3); count];
    let probe = |sent, received| {
        Message::Probe(Probe {
            receiver_tag: tag(),
            state: ProbeState::Operational,
            sent: reports(sent),
            received: reports(received),
            options: Options::NONE,
        })
    };
    let most = probe(15, 15);
    let octets = most.emit().unwrap();
    assert_eq!((octets.len(), octets[1]), (1216, 151));
    assert_eq!(Message::parse(&octets), Ok(most));
    for (sent, received) in [(0, 0), (16, 0), (1, 16)] {
        assert_eq!(probe(sent, received).emit(), Err(EmitError::ReportCount));
    }
}

// R5533-089
#[test]
fn an_error_code_has_seven_bits() {
    let error = |code| Message::Error(ErrorMessage { code, pointer: 0x1234, packet: vec![6; 8] });
    let octets = error(ErrorCode::Other(127)).emit().unwrap();
    assert_eq!((octets[3], &octets[6..8]), (0xfe, &[0x12, 0x34][..]));
    assert_eq!(Message::parse(&octets), Ok(error(ErrorCode::Other(127))));
    assert_eq!(error(ErrorCode::Other(128)).emit(), Err(EmitError::ErrorCode));
}
