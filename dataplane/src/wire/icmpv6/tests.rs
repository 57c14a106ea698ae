use proptest::prelude::*;

use super::*;

fn source() -> Ipv6Addr {
    "2001:db8::1".parse().unwrap()
}

fn target() -> Ipv6Addr {
    "2001:db8::2".parse().unwrap()
}

fn packet(source: &str, target: &str, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let repr = ipv6::Repr {
        source: source.parse().unwrap(),
        target: target.parse().unwrap(),
        next_header,
        payload_len: payload.len() as u16,
        hop_limit: 3,
        traffic_class: 0,
        flow_label: 0,
    };
    [&repr.emit()[..], payload].concat()
}

#[test]
fn an_echo_request_has_the_octets_of_rfc_4443() {
    let echo = Message::EchoRequest(Echo { identifier: 0x1234, sequence: 7, data: &[0xaa, 0xbb] });
    let octets = echo.emit(source(), target());
    // Pseudo-header: 2 * (2001 + 0db8) + 1 + 2 + 10 + 58 = 5bb9; message: 8000 + 1234 + 7 + aabb = 13cf6.
    let sum = 0x2 * (0x2001 + 0x0db8) + 1 + 2 + 10 + 58 + 0x8000 + 0x1234 + 7 + 0xaabb_u32;
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    assert_eq!(octets[..2], [128, 0]);
    assert_eq!(octets[2..4], checksum.to_be_bytes());
    assert_eq!(octets[4..], [0x12, 0x34, 0, 7, 0xaa, 0xbb]);
    let view = View::new(&octets).unwrap();
    assert!(view.verifies(source(), target()));
    assert!(!view.verifies(source(), source()));
    assert_eq!(Message::parse(&view), echo);
}

#[test]
fn seven_octets_are_no_message() {
    assert_eq!(View::new(&[1; 7]).unwrap_err(), Truncated);
}

#[test]
fn types_have_their_class() {
    for (kind, class) in [
        (0, Class::Error),
        (1, Class::Error),
        (4, Class::Error),
        (127, Class::Error),
        (128, Class::Echo),
        (129, Class::Echo),
        (130, Class::MulticastListener),
        (132, Class::MulticastListener),
        (133, Class::NeighborDiscovery),
        (137, Class::NeighborDiscovery),
        (138, Class::Other),
        (143, Class::MulticastListener),
        (255, Class::Other),
    ] {
        assert_eq!(Class::of(kind), class, "{kind}");
    }
}

#[test]
fn an_error_quotes_up_to_1280_octets_in_all() {
    for (len, total) in [(0, 88), (1, 89), (1192, 1280), (1193, 1280), (9000, 1280)] {
        let invoking = packet("2001:db8::1", "2001:db8::2", protocol::UDP, &vec![7; len]);
        let view = ipv6::View::new(&invoking).unwrap();
        let mut out = [0xee; MIN_MTU];
        let error = Error::PacketTooBig { mtu: 1492 };
        let written = emit_error(&mut out, error, target(), 64, &view);
        assert_eq!(written.len(), total);
        let answer = ipv6::View::new(written).unwrap();
        assert_eq!((answer.source(), answer.target(), answer.total_len()), (target(), source(), total));
        let icmp = View::new(answer.payload()).unwrap();
        assert!(icmp.verifies(target(), source()));
        assert_eq!(Message::parse(&icmp), Message::Error { error, quote: &invoking[..total - 48] });
    }
}

#[test]
fn errors_have_their_fields() {
    for (error, octets) in [
        (Error::DestinationUnreachable { code: unreachable::PORT }, [1, 4, 0, 0, 0, 0, 0, 0]),
        (Error::PacketTooBig { mtu: 1280 }, [2, 0, 0, 0, 0, 0, 5, 0]),
        (Error::TimeExceeded { code: exceeded::HOP_LIMIT }, [3, 0, 0, 0, 0, 0, 0, 0]),
        (Error::ParameterProblem { code: parameter::NEXT_HEADER, pointer: 6 }, [4, 1, 0, 0, 0, 0, 0, 6]),
    ] {
        let message = Message::Error { error, quote: &[6; 40] };
        let mut emitted = message.emit(source(), target());
        assert_eq!(Message::parse(&View::new(&emitted).unwrap()), message);
        emitted[2..4].fill(0);
        assert_eq!(emitted[..8], octets);
    }
}

#[test]
fn extensions_of_rfc_4884_are_no_part_of_the_quote() {
    for (kind, has_length) in [(1, true), (2, false), (3, true), (4, false)] {
        let octets = [&[kind, 0, 0, 0, 2, 0, 0, 0][..], &[9; 24]].concat();
        let view = View::new(&octets).unwrap();
        let expected = if has_length { (16, 8) } else { (24, 0) };
        assert_eq!((view.quote().len(), view.extensions().len()), expected, "{kind}");
    }
    let octets = [&[1, 0, 0, 0, 200, 0, 0, 0][..], &[9; 24]].concat();
    assert_eq!(View::new(&octets).unwrap().quote().len(), 24);
    let echo = [&[128, 0, 0, 0, 2, 0, 0, 0][..], &[9; 24]].concat();
    assert!(View::new(&echo).unwrap().quote().is_empty());
}

const TOO_BIG: Error = Error::PacketTooBig { mtu: 1280 };
const UNREACHABLE: Error = Error::DestinationUnreachable { code: unreachable::NO_ROUTE };
const BAD_OPTION: Error = Error::ParameterProblem { code: parameter::OPTION, pointer: 40 };
const BAD_FIELD: Error = Error::ParameterProblem { code: parameter::FIELD, pointer: 40 };

fn asked(error: Error, packet: &[u8], to_many: bool) -> Result<(), Silence> {
    may_answer(error, &ipv6::View::new(packet).unwrap(), to_many)
}

#[test]
fn ordinary_packets_may_be_answered() {
    for next_header in [protocol::TCP, protocol::UDP, protocol::ESP, 253] {
        let packet = packet("2001:db8::1", "2001:db8::2", next_header, &[0; 20]);
        assert_eq!(asked(UNREACHABLE, &packet, false), Ok(()));
    }
    let echo = packet("2001:db8::1", "2001:db8::2", 58, &[128, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(asked(UNREACHABLE, &echo, false), Ok(()));
}

// RFC 4443 §2.4 (e.1), (e.2)
#[test]
fn errors_and_redirects_are_not_answered() {
    for kind in [0, 1, 2, 3, 4, 100, 127] {
        let plain = packet("2001:db8::1", "2001:db8::2", 58, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(asked(TOO_BIG, &plain, false), Err(Silence::Error), "{kind}");
        // The same behind Destination Options and a Shim6 payload header.
        let headers = [&[140, 0, 1, 4, 0, 0, 0, 0][..], &[58, 0, 0x80, 0, 0, 0, 0, 9], &[kind; 8]].concat();
        let behind = packet("2001:db8::1", "2001:db8::2", 60, &headers);
        assert_eq!(asked(TOO_BIG, &behind, false), Err(Silence::Error), "{kind}");
    }
    let redirect = packet("2001:db8::1", "2001:db8::2", 58, &[137, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(asked(TOO_BIG, &redirect, false), Err(Silence::Redirect));
}

#[test]
fn what_may_hide_an_error_is_not_answered() {
    let empty = packet("2001:db8::1", "2001:db8::2", 58, &[]);
    assert_eq!(asked(UNREACHABLE, &empty, false), Err(Silence::Error));
    let broken = packet("2001:db8::1", "2001:db8::2", 60, &[58, 9, 0, 0, 0, 0, 0, 0]);
    assert_eq!(asked(UNREACHABLE, &broken, false), Err(Silence::Error));
    let fragment = |next| packet("2001:db8::1", "2001:db8::2", 44, &[next, 0, 0, 8, 0, 0, 0, 1, 128, 0]);
    assert_eq!(asked(UNREACHABLE, &fragment(58), false), Err(Silence::Error));
    assert_eq!(asked(UNREACHABLE, &fragment(17), false), Ok(()));
}

// RFC 4443 §2.4 (e.3), (e.4), (e.5)
#[test]
fn multicasts_are_answered_with_two_errors_only() {
    let multicast = packet("2001:db8::1", "ff0e::1", 17, &[0; 8]);
    let unicast = packet("2001:db8::1", "2001:db8::2", 17, &[0; 8]);
    for (error, expected) in [
        (TOO_BIG, Ok(())),
        (BAD_OPTION, Ok(())),
        (BAD_FIELD, Err(Silence::Multicast)),
        (UNREACHABLE, Err(Silence::Multicast)),
        (Error::TimeExceeded { code: 0 }, Err(Silence::Multicast)),
    ] {
        assert_eq!(asked(error, &multicast, false), expected);
        assert_eq!(asked(error, &unicast, true), expected);
        assert_eq!(asked(error, &unicast, false), Ok(()));
    }
}

// RFC 4443 §2.4 (e.6)
#[test]
fn a_source_that_is_not_one_node_is_not_answered() {
    for source in ["::", "ff02::1", "::1"] {
        let packet = packet(source, "2001:db8::2", 17, &[0; 8]);
        assert_eq!(asked(TOO_BIG, &packet, false), Err(Silence::Source), "{source}");
    }
}

proptest! {
    #[test]
    fn what_parses_emits_and_parses_the_same(octets in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..6) {
        let mut octets = octets;
        if let (Some(first), 1..=4) = (octets.first_mut(), kind) {
            *first = kind;
        }
        if let Ok(view) = View::new(&octets) {
            let message = Message::parse(&view);
            let emitted = message.emit(source(), target());
            prop_assert_eq!(emitted.len(), message.buffer_len());
            let again = View::new(&emitted).unwrap();
            prop_assert!(again.verifies(source(), target()));
            prop_assert_eq!(Message::parse(&again), message);
        }
    }
}
