//! Options: their octets, which message takes which, and what happens to those that are wrong.

use super::*;

/// An option of any type, contents and padding as given.
fn raw(word: u16, contents: &[u8], padding: u8) -> Vec<u8> {
    let mut octets = [&word.to_be_bytes()[..], &(contents.len() as u16).to_be_bytes(), contents].concat();
    octets.resize(octets.len().next_multiple_of(8), padding);
    octets
}

/// What a session says that is up.
fn up() -> bfd::Packet {
    bfd::Packet {
        diagnostic: bfd::Diagnostic::None,
        state: bfd::State::Up,
        poll: false,
        is_final: false,
        multiplier: 3,
        mine: 7,
        yours: 9,
        desired_min_tx: 50_000,
        required_min_rx: 50_000,
    }
}

#[test]
fn liveness_is_offered_in_twelve_octets_and_spoilt_packets_spoil_the_message() {
    let keepalive =
        |liveness| Message::Keepalive { receiver_tag: tag(), options: Options { liveness, ..Options::NONE } };
    let offer = keepalive(Some(LivenessOption::OFFER));
    let octets = offer.emit().unwrap();
    assert_eq!(octets[16..], hex("848c0008 50364246 00000000 00000000"));
    assert_eq!(Message::parse(&octets), Ok(offer));
    let plain = keepalive(None);
    let said = |contents: &[u8]| Message::parse(&with_raw(&plain, &raw(16966 << 1, contents, 0)));
    let whole = [&b"P6BF"[..], &[0x10, 0, 0, 0], &up().emit()].concat();
    assert_eq!(said(&whole), Ok(keepalive(Some(LivenessOption { wanted: false, packet: Some(up()) }))));
    let mut without_multiplier = whole.clone();
    without_multiplier[10] = 0;
    let longer = [&whole[..], &[0; 4]].concat();
    for wrong in [&whole[..31], &longer, &without_multiplier, &[&whole[..4], &[0; 5][..]].concat()] {
        assert_eq!(said(wrong), Err(ParseError::MalformedOption { offset: 16 }));
    }
    // Somebody else's, or what later versions may say.
    for unknown in [&b"P6BE"[..], b"P6B", b"P6BF", b"P6BF\x20\0\0\0"] {
        assert_eq!(said(unknown), Ok(plain.clone()));
    }
}

/// The message that takes an option, with that option.
fn update(options: Options) -> Message {
    Message::UpdateRequest { receiver_tag: tag(), request_nonce: 1, options }
}

fn i1(options: Options) -> Message {
    Message::I1 { initiator_tag: tag(), initiator_nonce: 1, options }
}

fn locators(count: usize, methods_offset: usize) -> LocatorList {
    let entry = |index: usize| {
        let method = VerificationMethod::from_code(index as u8 % 3 + 1);
        (Locator((0x2001_0db8_u128 << 96 | index as u128).into()), method)
    };
    LocatorList { generation: 0x1122_3344, entries: (0..count).map(entry).collect(), methods_offset }
}

fn preferences(element_len: u8, count: u8) -> LocatorPreferences {
    let element = |index: u8| Preference {
        flags: index % 4,
        priority: (element_len >= 2).then_some(index),
        weight: (element_len >= 3).then_some(index ^ 0xff),
    };
    LocatorPreferences { generation: 5, element_len, elements: (0..count).map(element).collect(), offset: 16 }
}

#[test]
fn golden_options_go_both_ways() {
    let two = LocatorList {
        generation: 0x1122_3344,
        entries: vec![
            (locator("2001:db8:1::a"), VerificationMethod::Hba),
            (locator("2001:db8:2::a"), VerificationMethod::Hba),
        ],
        methods_offset: 25,
    };
    let broken = LocatorPreferences {
        generation: 0x1122_3344,
        element_len: 1,
        elements: vec![
            Preference { flags: Preference::BROKEN, ..Preference::default() },
            Preference { flags: 0, ..Preference::default() },
        ],
        offset: 16,
    };
    let cases = [
        (
            update(Options { locators: Some(two), ..Options::NONE }),
            "0004002c 11223344 02010100 00000000
             20010db8 00010000 00000000 0000000a 20010db8 00020000 00000000 0000000a",
        ),
        (update(Options { preferences: Some(broken), ..Options::NONE }), "00060007 11223344 01010000 00000000"),
        // R5533-122
        (i1(Options { fork: Some(1), ..Options::NONE }), "000e0004 00000001"),
        // R5534-072, R5534-073, R5534-075
        (update(Options { keepalive_timeout: Some(20), ..Options::NONE }), "00140004 00000014"),
        (
            Message::Keepalive {
                receiver_tag: tag(),
                options: Options { flow_label: Some(answer()), ..Options::NONE },
            },
            "988c000c 5036464c 201abcde 01020304",
        ),
        (
            Message::Keepalive {
                receiver_tag: tag(),
                options: Options {
                    udp: Some(UdpOption { purpose: UdpPurpose::Answer, in_udp: true, nonce: 0x0102_0304 }),
                    ..Options::NONE
                },
            },
            "aa88000c 50365544 20000001 01020304",
        ),
        (
            Message::Keepalive {
                receiver_tag: tag(),
                options: Options {
                    liveness: Some(LivenessOption { wanted: true, packet: Some(up()) }),
                    ..Options::NONE
                },
            },
            "848c0020 50364246 10000001
             20c00318 00000007 00000009 0000c350 0000c350 00000000 00000000",
        ),
    ];
    for (message, octets) in cases {
        let emitted = message.emit().unwrap();
        assert_eq!(emitted[16..], hex(octets));
        assert_eq!(Message::parse(&emitted), Ok(message));
    }
}

// R5533-092, R5533-093, R5533-094, R5533-095, R5533-096
#[test]
fn padding_is_sent_as_zero_and_not_looked_at() {
    for len in 0..20 {
        let pds = Options { pds: Some(vec![0xaa; len]), ..Options::NONE };
        let emitted = update(pds.clone()).emit().unwrap();
        assert_eq!((emitted.len() % 8, &emitted[18..20]), (0, &(len as u16).to_be_bytes()[..]));
        assert!(emitted[20 + len..].iter().all(|octet| *octet == 0));
        let padded = with_raw(&update(Options::NONE), &raw(4 << 1, &vec![0xaa; len], 0xff));
        assert_eq!(padded.len(), emitted.len());
        assert_eq!(Message::parse(&padded), Ok(update(pds)));
    }
}

// R5533-107: N -> total octets of the option
#[test]
fn locators_start_on_a_multiple_of_eight() {
    for (count, total) in [(0, 16), (1, 32), (2, 48), (3, 64), (4, 80), (5, 96), (6, 112), (7, 128), (8, 152)] {
        let message = update(Options { locators: Some(locators(count, 25)), ..Options::NONE });
        let octets = message.emit().unwrap();
        assert_eq!(octets.len(), 16 + total, "{count} locators");
        // The length counts the inner padding, so nothing pads the option itself.
        assert_eq!(octets[18..20], ((total - 4) as u16).to_be_bytes());
        assert_eq!(octets[25..25 + count].iter().filter(|method| **method == 0).count(), 0);
        assert_eq!(Message::parse(&octets), Ok(message));
    }
}

// R5533-107: the inner padding is padding too
#[test]
fn padding_inside_a_locator_list_is_not_looked_at() {
    let message = update(Options { locators: Some(locators(2, 25)), ..Options::NONE });
    let mut octets = message.emit().unwrap();
    octets[27..32].fill(0xff);
    assert_eq!(Message::parse(&sealed(octets)), Ok(message));
}

// R5533-110, R5533-111
#[test]
fn preferences_have_flags_then_priority_then_weight() {
    for (element_len, expected) in [
        (1, vec![0, 1, 2]),
        (2, vec![0, 0, 1, 1, 2, 2]),
        (3, vec![0, 0, 0xff, 1, 1, 0xfe, 2, 2, 0xfd]),
        (5, vec![0, 0, 0xff, 0, 0, 1, 1, 0xfe, 0, 0, 2, 2, 0xfd, 0, 0]),
    ] {
        let message = update(Options { preferences: Some(preferences(element_len, 3)), ..Options::NONE });
        let octets = message.emit().unwrap();
        assert_eq!(octets[18..20], (5 + expected.len() as u16).to_be_bytes());
        assert_eq!(octets[25..25 + expected.len()], expected);
        assert_eq!(Message::parse(&octets), Ok(message));
    }
}

// R5533-112
#[test]
fn of_longer_elements_the_first_three_octets_count() {
    let octets = raw(3 << 1, &[0, 0, 0, 5, 5, 1, 2, 3, 0xaa, 0xbb, 4, 5, 6, 0xcc, 0xdd], 0);
    let Ok(Message::UpdateRequest { options, .. }) = Message::parse(&with_raw(&update(Options::NONE), &octets)) else {
        panic!("an Update Request")
    };
    let element = |flags, priority, weight| Preference { flags, priority: Some(priority), weight: Some(weight) };
    let expected = LocatorPreferences {
        generation: 5,
        element_len: 5,
        elements: vec![element(1, 2, 3), element(4, 5, 6)],
        offset: 16,
    };
    assert_eq!(options.preferences, Some(expected));
}

#[test]
fn preferences_that_do_not_fit_their_length_are_not_sent() {
    let mut zero = preferences(1, 0);
    zero.element_len = 0;
    let mut short = preferences(3, 2);
    short.element_len = 2;
    let mut long = preferences(1, 2);
    long.element_len = 2;
    for preferences in [zero, short, long] {
        let message = update(Options { preferences: Some(preferences), ..Options::NONE });
        assert_eq!(message.emit(), Err(EmitError::Preferences));
    }
}

// R5533-120, R5534-074
#[test]
fn reserved_octets_of_options_are_not_looked_at() {
    let ulids = UlidPair { local: Ulid(locator("fd00::a").0), peer: Ulid(locator("fd00::b").0) };
    for message in [
        i1(Options { ulids: Some(ulids), ..Options::NONE }),
        update(Options { keepalive_timeout: Some(17), ..Options::NONE }),
    ] {
        let mut octets = message.emit().unwrap();
        let reserved = if message.kind() == MessageType::I1 { 20..24 } else { 20..22 };
        assert!(octets[reserved.clone()].iter().all(|octet| *octet == 0));
        octets[reserved].fill(0xff);
        assert_eq!(Message::parse(&sealed(octets)), Ok(message));
    }
}

// R5533-121
#[test]
fn the_sender_ulid_comes_first() {
    let ulids = UlidPair { local: Ulid(locator("fd00::a").0), peer: Ulid(locator("fd00::b").0) };
    let octets = i1(Options { ulids: Some(ulids), ..Options::NONE }).emit().unwrap();
    assert_eq!((octets[39], octets[55]), (0xa, 0xb));
}

/// Octets of a sound option of each known type.
fn sound(option: OptionType) -> Vec<u8> {
    let contents = match option {
        OptionType::Validator | OptionType::Pds | OptionType::Signature => vec![1, 2, 3],
        OptionType::Locators => {
            update(Options { locators: Some(locators(1, 25)), ..Options::NONE }).emit().unwrap()[20..48].to_vec()
        }
        OptionType::Preferences => vec![0, 0, 0, 5, 1, 1],
        OptionType::Ulids => vec![0x20; 36],
        OptionType::Fork | OptionType::KeepaliveTimeout => vec![0, 0, 0, 9],
        OptionType::FlowLabel => vec![0x50, 0x36, 0x46, 0x4c, 0, 0, 0, 9, 0, 0, 0, 0],
        OptionType::Liveness => b"P6BF\0\0\0\0".to_vec(),
        OptionType::Udp => b"P6UD\0\0\0\0\0\0\0\0".to_vec(),
        OptionType::Unknown(_) => vec![],
    };
    raw(option.code() << 1, &contents, 0)
}

/// Which message takes which option (RFC 5533 §5.4 to §5.11, RFC 5534 §5.3), written out once more.
const ALLOWED: [(MessageType, &[u16]); 10] = [
    (MessageType::I1, &[6, 7]),
    (MessageType::R1, &[1]),
    (MessageType::I2, &[1, 2, 3, 4, 5, 6, 7, 10, 16966, 19526, 21828]),
    (MessageType::R2, &[2, 3, 4, 5, 10, 16966, 19526, 21828]),
    (MessageType::R1bis, &[1]),
    (MessageType::I2bis, &[1, 2, 3, 4, 5, 6, 7, 10, 16966, 19526, 21828]),
    (MessageType::UpdateRequest, &[2, 3, 4, 5, 10]),
    (MessageType::UpdateAck, &[]),
    (MessageType::Keepalive, &[16966, 19526, 21828]),
    (MessageType::Probe, &[]),
];

// R5533-098 to R5533-103, R5534-051, R5534-069
#[test]
fn each_message_takes_its_options_and_treats_others_by_their_c_bit() {
    for message in one_of_each() {
        let Some((_, allowed)) = ALLOWED.iter().find(|(kind, _)| *kind == message.kind()) else {
            assert_eq!(message.kind(), MessageType::Error);
            continue;
        };
        let start = message.emit().unwrap().len();
        for option in OptionType::KNOWN {
            assert_eq!(option.allowed_in(message.kind()), allowed.contains(&option.code()), "{option} in {message:?}");
            for critical in [false, true] {
                let mut octets = sound(option);
                octets[1] |= u8::from(critical);
                let parsed = Message::parse(&with_raw(&message, &octets));
                if message.options().has(option) {
                    assert_eq!(parsed, Err(ParseError::DuplicateOption(option)));
                } else if allowed.contains(&option.code()) {
                    assert!(parsed.unwrap().options().has(option), "{option} in {message:?}");
                } else if critical {
                    assert_eq!(parsed, Err(ParseError::CriticalOption { pointer: start }));
                } else {
                    assert_eq!(parsed.as_ref(), Ok(&message));
                }
            }
        }
        for unknown in [0u16, 8, 9, 11, 0x1234, 0x7fff] {
            let quiet = with_raw(&message, &raw(unknown << 1, &[9; 5], 0));
            assert_eq!(Message::parse(&quiet).as_ref(), Ok(&message));
            // Behind a quiet one, so that the pointer is put to the test.
            let loud = [raw(unknown << 1, &[9; 5], 0), raw(unknown << 1 | 1, &[9; 50], 0)].concat();
            let error = Message::parse(&with_raw(&message, &loud)).unwrap_err();
            assert_eq!(error, ParseError::CriticalOption { pointer: start + 16 });
            assert_eq!(error.answer(), Some((ErrorCode::CriticalOption, start + 16)));
        }
    }
}

/// What a test of label 0xabcde is answered with, when payload came by it.
fn answer() -> LabelOption {
    LabelOption { purpose: LabelPurpose::Answer, arrived: true, label: 0xabcde, nonce: 0x0102_0304 }
}

/// The number may mean something else to somebody else's experiment: to us that is an unknown option.
#[test]
fn a_foreign_experiment_is_an_unknown_option() {
    let [_, _, i2, ..] = one_of_each();
    let start = i2.emit().unwrap().len();
    let ours = [0x50, 0x36, 0x46, 0x4c, 0, 0, 0, 9, 0, 0, 0, 0];
    let mut other_name = ours;
    other_name[3] ^= 1;
    let mut other_purpose = ours;
    other_purpose[4] = 0x30;
    for foreign in [&other_name[..], &other_purpose, &ours[..8], &[]] {
        for number in [16966 << 1, 19526 << 1, 21828 << 1] {
            assert_eq!(Message::parse(&with_raw(&i2, &raw(number, foreign, 0))).as_ref(), Ok(&i2));
        }
        let twice = [raw(19526 << 1, foreign, 0), raw(19526 << 1, &ours, 0)].concat();
        assert_eq!(Message::parse(&with_raw(&i2, &twice)).unwrap().options().flow_label.map(|it| it.label), Some(9));
        let loud = Message::parse(&with_raw(&i2, &raw(19526 << 1 | 1, foreign, 0)));
        assert_eq!(loud, Err(ParseError::CriticalOption { pointer: start }));
    }
}

#[test]
fn misplaced_options_are_not_sent() {
    for mut message in one_of_each() {
        let kind = message.kind();
        let Some(options) = message.options_mut() else { continue };
        options.fork = Some(1);
        options.keepalive_timeout = Some(1);
        let expected = [OptionType::Fork, OptionType::KeepaliveTimeout].into_iter().find(|one| !one.allowed_in(kind));
        assert_eq!(message.emit().err(), expected.map(EmitError::Misplaced), "{message:?}");
    }
}

// R5533-319
#[test]
fn malformed_options_drop_the_message() {
    let cases: [(&str, Vec<u8>); 18] = [
        ("runs past the header", [&[0, 4 << 1, 0, 5], &[0; 4][..]].concat()),
        ("runs far past the header", [&[0x10, 0, 0xff, 0xff], &[0; 4][..]].concat()),
        ("FII of 3 octets", raw(7 << 1, &[0; 3], 0)),
        ("FII of 5 octets", raw(7 << 1, &[0; 5], 0)),
        ("ULID pair of 35 octets", raw(6 << 1, &[0; 35], 0)),
        ("ULID pair of 37 octets", raw(6 << 1, &[0; 37], 0)),
        ("Keepalive Timeout of 2 octets", raw(10 << 1, &[0; 2], 0)),
        ("Keepalive Timeout of 6 octets", raw(10 << 1, &[0; 6], 0)),
        ("locator list without a count", raw(2 << 1, &[0; 4], 0)),
        ("locator list, methods missing", raw(2 << 1, &[0, 0, 0, 1, 9, 1, 1], 0)),
        (
            "locator list, a locator missing",
            raw(2 << 1, &[&[0, 0, 0, 1, 2, 1, 1, 0, 0, 0, 0, 0][..], &[0; 16]].concat(), 0),
        ),
        (
            "locator list, a locator too many",
            raw(2 << 1, &[&[0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0][..], &[0; 32]].concat(), 0),
        ),
        (
            "locator list, part of a locator",
            raw(2 << 1, &[&[0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0][..], &[0; 17]].concat(), 0),
        ),
        ("locator list, padding not counted", raw(2 << 1, &[&[0, 0, 0, 1, 1, 1][..], &[0; 16]].concat(), 0)),
        ("preferences without an element length", raw(3 << 1, &[0; 4], 0)),
        ("preferences of elements of no length", raw(3 << 1, &[0, 0, 0, 1, 0, 1], 0)),
        ("preferences of no elements of no length", raw(3 << 1, &[0, 0, 0, 1, 0], 0)),
        ("preferences with half an element", raw(3 << 1, &[0, 0, 0, 1, 2, 1, 1, 1], 0)),
    ];
    let [_, _, i2, ..] = one_of_each();
    let start = i2.emit().unwrap().len();
    for (name, octets) in cases {
        let error = Message::parse(&with_raw(&i2, &octets)).unwrap_err();
        assert_eq!((error, error.answer()), (ParseError::MalformedOption { offset: start }, None), "{name}");
    }
    // A message that does not take the option does not look inside it, but it must be able to step over it.
    let [.., keepalive, _, _] = one_of_each();
    assert_eq!(Message::parse(&with_raw(&keepalive, &raw(7 << 1, &[0; 3], 0))), Ok(keepalive.clone()));
    let past = with_raw(&keepalive, &[0x10, 0, 0, 5, 0, 0, 0, 0]);
    assert_eq!(Message::parse(&past), Err(ParseError::MalformedOption { offset: 16 }));
}

// R5533-047, R5533-052
#[test]
fn a_message_without_its_validator_is_dropped() {
    for message in one_of_each().into_iter().filter(|message| message.kind().needs_validator()) {
        let fixed = message.emit().unwrap()[..message.kind().fixed_len()].to_vec();
        let error = Message::parse(&sealed(fixed)).unwrap_err();
        assert_eq!((error, error.answer()), (ParseError::MissingValidator, None));
    }
}

// R5533-105: opaque, of any length
#[test]
fn a_validator_may_have_any_length() {
    for len in [0, 1, 4, 5, 64, 1000] {
        let options = Options { validator: Some(vec![7; len]), ..Options::NONE };
        let message = Message::R1 { initiator_nonce: 1, responder_nonce: 2, options };
        assert_eq!(Message::parse(&message.emit().unwrap()), Ok(message));
    }
}

// D39
#[test]
fn options_come_in_any_order_and_offsets_tell_where_they_were() {
    let fixed = &update(Options::NONE).emit().unwrap()[..];
    let list = sound(OptionType::Locators);
    let wishes = sound(OptionType::Preferences);
    let pds = sound(OptionType::Pds);
    let unknown = raw(0x2468, &[1; 9], 0);
    let read = |parts: &[&[u8]]| match Message::parse(&sealed([fixed, &parts.concat()].concat())) {
        Ok(Message::UpdateRequest { options, .. }) => options,
        other => panic!("{other:?}"),
    };
    let one = read(&[&list, &wishes, &pds, &unknown]);
    let two = read(&[&unknown, &pds, &wishes, &list]);
    assert_eq!((one.locators.as_ref().unwrap().methods_offset, one.preferences.as_ref().unwrap().offset), (25, 48));
    let (methods, preferences) = (16 + 16 + 8 + 16 + 9, 16 + 16 + 8);
    assert_eq!(two.locators.as_ref().unwrap().methods_offset, methods);
    assert_eq!(two.preferences.as_ref().unwrap().offset, preferences);
    let place = |mut options: Options| {
        options.locators.as_mut().unwrap().methods_offset = 0;
        options.preferences.as_mut().unwrap().offset = 0;
        options
    };
    assert_eq!(place(one), place(two));
}
