//! What holds for every message and for any octets at all.

use std::net::Ipv6Addr;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::*;

fn any_tag() -> impl Strategy<Value = ContextTag> {
    any::<u64>().prop_map(ContextTag::truncate)
}

fn any_address() -> impl Strategy<Value = Ipv6Addr> {
    any::<u128>().prop_map(Ipv6Addr::from)
}

fn any_list() -> impl Strategy<Value = LocatorList> {
    let entry = (any_address().prop_map(Locator), any::<u8>().prop_map(VerificationMethod::from_code));
    (any::<u32>(), vec(entry, 0..20)).prop_map(|(generation, entries)| LocatorList {
        generation,
        entries,
        methods_offset: 0,
    })
}

fn any_preferences() -> impl Strategy<Value = LocatorPreferences> {
    (any::<u32>(), 1u8..8, vec(any::<[u8; 3]>(), 0..20)).prop_map(|(generation, element_len, elements)| {
        let element = |[flags, priority, weight]: [u8; 3]| Preference {
            flags,
            priority: (element_len >= 2).then_some(priority),
            weight: (element_len >= 3).then_some(weight),
        };
        let elements = elements.into_iter().map(element).collect();
        LocatorPreferences { generation, element_len, elements, offset: 0 }
    })
}

/// Every option, to be thinned out for a message.
fn any_options() -> impl Strategy<Value = Options> {
    let opaque = || of(vec(any::<u8>(), 0..150));
    let ulids =
        (any_address(), any_address()).prop_map(|(local, peer)| UlidPair { local: Ulid(local), peer: Ulid(peer) });
    (
        opaque(),
        of(any_list()),
        of(any_preferences()),
        opaque(),
        opaque(),
        of(ulids),
        any::<(Option<u32>, Option<u16>)>(),
        (of(any_label()), of(any_udp()), of(any_liveness())),
    )
        .prop_map(
            |(
                validator,
                locators,
                preferences,
                pds,
                signature,
                ulids,
                (fork, keepalive_timeout),
                (flow_label, udp, liveness),
            )| Options {
                validator,
                locators,
                preferences,
                pds,
                signature,
                ulids,
                fork,
                keepalive_timeout,
                flow_label,
                udp,
                liveness,
            },
        )
}

fn any_label() -> impl Strategy<Value = LabelOption> {
    let purpose = prop::sample::select(vec![LabelPurpose::Offer, LabelPurpose::Test, LabelPurpose::Answer]);
    (purpose, any::<bool>(), 0u32..1 << 20, any::<u32>()).prop_map(|(purpose, arrived, label, nonce)| LabelOption {
        purpose,
        arrived,
        label,
        nonce,
    })
}

fn any_udp() -> impl Strategy<Value = UdpOption> {
    let purpose = prop::sample::select(vec![UdpPurpose::Offer, UdpPurpose::Test, UdpPurpose::Answer]);
    (purpose, any::<bool>(), any::<u32>()).prop_map(|(purpose, in_udp, nonce)| UdpOption { purpose, in_udp, nonce })
}

fn any_liveness() -> impl Strategy<Value = LivenessOption> {
    let octets: [u8; bfd::LEN] = [0; bfd::LEN];
    let packet =
        (any::<[u8; bfd::LEN]>(), 1u8.., any::<(u32, u32)>()).prop_map(move |(random, multiplier, (mine, yours))| {
            let mut octets = octets;
            octets.copy_from_slice(&random);
            (octets[0], octets[1], octets[2], octets[3]) = (0x20 | random[0] & 0x1f, random[1] & 0xf0, multiplier, 24);
            octets[4..8].copy_from_slice(&mine.max(1).to_be_bytes());
            octets[8..12].copy_from_slice(&yours.max(1).to_be_bytes());
            bfd::Packet::parse(&octets).expect("a packet")
        });
    (any::<bool>(), of(packet)).prop_map(|(wanted, packet)| LivenessOption { wanted, packet })
}

/// What the message's type allows of its options, and a validator if it needs one.
fn thinned(mut message: Message) -> Message {
    let kind = message.kind();
    if let Some(options) = message.options_mut() {
        let all = std::mem::take(options);
        let allowed = |option: OptionType| option.allowed_in(kind);
        *options = Options {
            validator: all.validator.or(Some(vec![1])).filter(|_| allowed(OptionType::Validator)),
            locators: all.locators.filter(|_| allowed(OptionType::Locators)),
            preferences: all.preferences.filter(|_| allowed(OptionType::Preferences)),
            pds: all.pds.filter(|_| allowed(OptionType::Pds)),
            signature: all.signature.filter(|_| allowed(OptionType::Signature)),
            ulids: all.ulids.filter(|_| allowed(OptionType::Ulids)),
            fork: all.fork.filter(|_| allowed(OptionType::Fork)),
            keepalive_timeout: all.keepalive_timeout.filter(|_| allowed(OptionType::KeepaliveTimeout)),
            flow_label: all.flow_label.filter(|_| allowed(OptionType::FlowLabel)),
            udp: all.udp.filter(|_| allowed(OptionType::Udp)),
            liveness: all.liveness.filter(|_| allowed(OptionType::Liveness)),
        };
    }
    message
}

fn any_report() -> impl Strategy<Value = ProbeReport> {
    (any_address(), any_address(), any::<u32>(), any::<u32>()).prop_map(|(source, target, nonce, data)| ProbeReport {
        source: Locator(source),
        target: Locator(target),
        nonce,
        data,
    })
}

fn any_probe() -> impl Strategy<Value = Message> {
    let state = prop::sample::select(vec![ProbeState::Operational, ProbeState::Exploring, ProbeState::InboundOk]);
    (any_tag(), state, vec(any_report(), 1..16), vec(any_report(), 0..16)).prop_map(
        |(receiver_tag, state, sent, received)| {
            Message::Probe(Probe { receiver_tag, state, sent, received, options: Options::NONE })
        },
    )
}

fn any_error() -> impl Strategy<Value = Message> {
    (0u8..128, any::<u16>(), 1usize..150, any::<u8>()).prop_map(|(code, pointer, units, octet)| {
        let code = ErrorCode::from_code(code);
        Message::Error(ErrorMessage { code, pointer, packet: std::vec::from_elem(octet, units * 8) })
    })
}

fn any_message() -> impl Strategy<Value = Message> {
    let fixed = (0..9usize, any_tag(), any_tag(), any::<(u32, u32)>(), any_options());
    let other = fixed.prop_map(|(which, tag, packet_tag, (initiator_nonce, responder_nonce), options)| {
        thinned(match which {
            0 => Message::I1 { initiator_tag: tag, initiator_nonce, options },
            1 => Message::R1 { initiator_nonce, responder_nonce, options },
            2 => Message::I2 { initiator_tag: tag, initiator_nonce, responder_nonce, options },
            3 => Message::R2 { responder_tag: tag, initiator_nonce, options },
            4 => Message::R1bis { packet_tag, responder_nonce, options },
            5 => Message::I2bis { initiator_tag: tag, initiator_nonce, responder_nonce, packet_tag, options },
            6 => Message::UpdateRequest { receiver_tag: tag, request_nonce: initiator_nonce, options },
            7 => Message::UpdateAck { receiver_tag: tag, request_nonce: initiator_nonce, options },
            _ => Message::Keepalive { receiver_tag: tag, options },
        })
    });
    prop_oneof![9 => other, 1 => any_probe(), 1 => any_error()]
}

/// A message does not remember where its options stood.
fn placeless(mut message: Message) -> Message {
    if let Some(options) = message.options_mut() {
        options.locators.iter_mut().for_each(|list| list.methods_offset = 0);
        options.preferences.iter_mut().for_each(|preferences| preferences.offset = 0);
    }
    message
}

proptest! {
    // R5533-033
    #[test]
    fn what_is_emitted_is_parsed(message in any_message()) {
        let octets = message.emit().unwrap();
        prop_assert_eq!(octets.len(), message.buffer_len());
        prop_assert_eq!(octets.len() % 8, 0);
        let parsed = Message::parse(&octets).unwrap();
        if let Some(list) = &parsed.options().locators {
            let methods: Vec<u8> = list.entries.iter().map(|(_, method)| method.code()).collect();
            prop_assert_eq!(&octets[list.methods_offset..][..methods.len()], methods);
        }
        if let Some(preferences) = &parsed.options().preferences {
            prop_assert_eq!(&octets[preferences.offset..][..2], [0, 6]);
            prop_assert_eq!(&octets[preferences.offset + 4..][..4], preferences.generation.to_be_bytes());
        }
        prop_assert_eq!(placeless(parsed), message);
    }

    #[test]
    fn any_octets_are_parsed_or_refused(octets in vec(any::<u8>(), 0..300)) {
        let _ = Message::parse(&octets);
        let _ = ControlPacket::parse(&octets);
    }

    /// A message with a few octets changed and its checksum put right: what still parses, emits the same again.
    #[test]
    fn what_parses_emits_and_parses_the_same(
        message in any_message(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in of(any::<prop::sample::Index>()),
    ) {
        let mut octets = message.emit().unwrap();
        if let Some(cut) = cut {
            octets.truncate((cut.index(octets.len() / 8) + 1) * 8);
        }
        for (index, octet) in changes {
            let index = index.index(octets.len());
            octets[index] = octet;
        }
        octets[2] &= 0x7f;
        octets[3] &= 0xfe;
        match Message::parse(&sealed(octets)) {
            Ok(parsed) => {
                let again = parsed.emit().unwrap();
                prop_assert_eq!(placeless(Message::parse(&again).unwrap()), placeless(parsed));
            }
            Err(error) => prop_assert!(!matches!(
                error,
                ParseError::Truncated | ParseError::BadDiscriminator | ParseError::Checksum
            )),
        }
    }
}
