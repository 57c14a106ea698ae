//! What an ICMPv6 error says once the shim is taken out of the packet it quotes (RFC 5533 §8), as octets.
//!
//! The host must see its own packet: with identifiers, without payload header, and with every field of the error that
//! speaks of places or lengths in it put right: the MTU of a Packet Too Big, the pointer of a Parameter Problem, and the
//! length of the quote where extensions follow it (RFC 4884).

use dataplane::wire::UlidPair;
use dataplane::wire::ipv6::{self, chain::Place};
use dataplane::wire::shim6::{PayloadHeader, udp};

/// Type, code, checksum and the word after them.
pub(super) const ICMP_HEADER: usize = 8;

pub(super) const DESTINATION_UNREACHABLE: u8 = 1;
pub(super) const PACKET_TOO_BIG: u8 = 2;
pub(super) const TIME_EXCEEDED: u8 = 3;
pub(super) const PARAMETER_PROBLEM: u8 = 4;

/// The least octets a quote has when extensions follow it; shorter ones are padded with zero (RFC 4884 §4).
const QUOTE_MIN: usize = 128;
/// What the length of a quote counts (RFC 4884 §4.4, §4.5).
const UNIT: usize = 8;

/// The MTU to tell a host whose packets grow by the payload header, when a path carries `mtu` octets: never below what every
/// link carries (decision D27). What is smaller the box cuts itself.
pub(super) fn mtu_for_host(mtu: u32) -> u32 {
    mtu.saturating_sub(PayloadHeader::LEN as u32).max(ipv6::MIN_MTU as u32)
}

/// Whether a path that carries `mtu` octets has no room for the header behind the smallest packet a host must be allowed
/// to send whole.
pub(super) fn is_narrow(mtu: u32) -> bool {
    (mtu as usize) < ipv6::MIN_MTU + PayloadHeader::LEN
}

/// The ICMPv6 message `icmp` as the host of `ulids` would have got it without the shim; its checksum is zero. `place` is that
/// of the payload header in the packet it quotes, or none where a flow label stood for it. Nothing comes back when the header
/// is not there.
pub(super) fn without_shim(icmp: &[u8], place: Option<Place>, ulids: &UlidPair) -> Option<Vec<u8>> {
    let change = |quote: &mut Vec<u8>| {
        match place {
            Some(place) => restore(quote, place)?,
            // The host may have set another label, which nobody knows any more.
            None => quote.get_mut(1..4)?.iter_mut().zip([0xf0, 0, 0]).for_each(|(octet, kept)| *octet &= kept),
        }
        quote.get_mut(8..24)?.copy_from_slice(&ulids.local.0.octets());
        quote.get_mut(24..40)?.copy_from_slice(&ulids.peer.0.octets());
        Some(())
    };
    respelled(icmp, change, |kind, word| match (kind, place) {
        // Nothing was added to the packet, so nothing is taken off.
        (PACKET_TOO_BIG, None) => word.max(ipv6::MIN_MTU as u32),
        (PACKET_TOO_BIG, Some(_)) => mtu_for_host(word),
        (PARAMETER_PROBLEM, Some(place)) => moved(word, place),
        _ => word,
    })
}

/// The same message as if the packet it quotes had gone without UDP, where boxes use `port`; none if it did.
pub(super) fn out_of_udp(icmp: &[u8], port: u16) -> Option<Vec<u8>> {
    let (quote, _) = split(icmp)?;
    let (place, _) = udp::ports_of(&ipv6::View::of_quote(quote).ok()?, port)?;
    respelled(
        icmp,
        |quote| unwrapped(quote, place),
        |kind, word| match kind {
            PACKET_TOO_BIG => word.saturating_sub(udp::LEN as u32),
            PARAMETER_PROBLEM => moved(word, place),
            _ => word,
        },
    )
}

/// An error with another quote, and another word where that is no length.
fn respelled(
    icmp: &[u8],
    change: impl FnOnce(&mut Vec<u8>) -> Option<()>,
    say: impl FnOnce(u8, u32) -> u32,
) -> Option<Vec<u8>> {
    let mut message: Vec<u8> = icmp.get(..ICMP_HEADER)?.to_vec();
    let (quote, extensions) = split(icmp)?;
    // One that was too short for extensions before stays what it is: no error grows here.
    let was_long_enough = quote.len() >= QUOTE_MIN;
    let mut quote = quote.to_vec();
    change(&mut quote)?;
    message[2..4].fill(0);
    let word = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
    let word = say(message[0], word);
    message[4..8].copy_from_slice(&word.to_be_bytes());
    if let Some(extensions) = extensions {
        if was_long_enough {
            quote.resize(quote.len().max(QUOTE_MIN), 0);
        }
        message[4] = u8::try_from(quote.len() / UNIT).ok()?;
        quote.extend_from_slice(extensions);
    }
    message.extend_from_slice(&quote);
    Some(message)
}

/// The quote, and what follows it if the error says how long the quote is. A length past the end is none.
fn split(icmp: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let body = icmp.get(ICMP_HEADER..)?;
    let has_length = matches!(icmp[0], DESTINATION_UNREACHABLE | TIME_EXCEEDED) && icmp[4] != 0;
    let parts = has_length.then(|| body.split_at_checked(usize::from(icmp[4]) * UNIT)).flatten();
    Some(parts.map_or((body, None), |(quote, extensions)| (quote, Some(extensions))))
}

/// Takes the payload header out of a quoted packet. The quote may be cut short, so its length field is set by hand.
fn restore(quote: &mut Vec<u8>, place: Place) -> Option<()> {
    let length = u16::from_be_bytes([*quote.get(4)?, *quote.get(5)?]);
    let header = PayloadHeader::parse(quote.get(place.offset..)?).ok()?;
    *quote.get_mut(place.predecessor)? = header.next_header;
    quote.get_mut(4..6)?.copy_from_slice(&length.checked_sub(PayloadHeader::LEN as u16)?.to_be_bytes());
    quote.drain(place.offset..place.offset + PayloadHeader::LEN);
    Some(())
}

/// Takes the UDP header out of a quoted packet, likewise.
fn unwrapped(quote: &mut Vec<u8>, place: Place) -> Option<()> {
    let length = u16::from_be_bytes([*quote.get(4)?, *quote.get(5)?]);
    *quote.get_mut(place.predecessor)? = ipv6::protocol::SHIM6;
    quote.get_mut(4..6)?.copy_from_slice(&length.checked_sub(udp::LEN as u16)?.to_be_bytes());
    quote.drain(place.offset..place.offset + udp::LEN);
    Some(())
}

/// Where a pointer into the packet with its header points without it. One into the header itself becomes one at the field
/// that named it, which is what the host has of it.
fn moved(pointer: u32, place: Place) -> u32 {
    let (start, end) = (place.offset as u32, (place.offset + PayloadHeader::LEN) as u32);
    match pointer {
        _ if pointer < start => pointer,
        _ if pointer < end => place.predecessor as u32,
        _ => pointer - PayloadHeader::LEN as u32,
    }
}

#[cfg(test)]
mod tests {
    use dataplane::wire::icmpv6::View;
    use dataplane::wire::shim6::PROTOCOL;
    use dataplane::wire::{ContextTag, Ulid};

    use super::*;
    use crate::sim::packet;

    fn ulids() -> UlidPair {
        UlidPair { local: Ulid("fc00:a::1".parse().unwrap()), peer: Ulid("fc00:b::1".parse().unwrap()) }
    }

    /// What a host sent, and the same with locators and payload header.
    fn packets(octets: usize) -> (Vec<u8>, Vec<u8>) {
        let UlidPair { local, peer } = ulids();
        let sent = packet::udp(local.0, peer.0, (7, 9), &(0..octets).map(|at| at as u8).collect::<Vec<_>>());
        let header = PayloadHeader { next_header: 17, tag: ContextTag::truncate(0x1234_5678) }.emit();
        let (source, target) = ("2001:db8:a::1".parse().unwrap(), "2001:db8:b::1".parse().unwrap());
        let tagged = packet::ipv6(source, target, PROTOCOL, 64, &[&header[..], &sent[40..]].concat());
        (sent, tagged)
    }

    const PLACE: Place = Place { offset: 40, predecessor: 6, next_header: PROTOCOL };

    /// The second of [`packets`] in UDP.
    fn wrapped(tagged: &[u8]) -> Vec<u8> {
        let mut buffer = [&[0; udp::LEN][..], tagged].concat();
        let ports = udp::UdpPorts { source: udp::DYNAMIC, target: 5533 };
        udp::wrap(&mut buffer, PLACE, ports).unwrap();
        buffer
    }

    #[test]
    fn what_went_in_udp_is_quoted_as_if_it_had_not() {
        let (_, tagged) = packets(300);
        let sent = wrapped(&tagged);
        for length in [56, 57, 120, sent.len()] {
            for kind in [DESTINATION_UNREACHABLE, TIME_EXCEEDED] {
                let said = out_of_udp(&error(kind, [0; 4], &sent[..length]), 5533).unwrap();
                assert_eq!((&said[..8], &said[8..]), (&[kind, 0, 0, 0, 0, 0, 0, 0][..], &tagged[..length - 8]));
            }
        }
        let extensions = [0x20, 0, 0xca, 0xfe, 0, 4, 1, 1];
        let said = out_of_udp(&error(TIME_EXCEEDED, [17, 0, 0, 0], &[&sent[..136], &extensions].concat()), 5533);
        let said = said.unwrap();
        assert_eq!((said[4], &said[8..136], &said[136..]), (16, &tagged[..128], &extensions[..]));
        // A path of 1400 octets has room for 1384 of the host's; one of 1295 for fewer than any host may send.
        for (mtu, host, narrow) in [(1400u32, 1384u32, false), (1296, 1280, false), (1295, 1280, true), (0, 1280, true)]
        {
            let said = out_of_udp(&error(PACKET_TOO_BIG, mtu.to_be_bytes(), &sent), 5533).unwrap();
            let word = u32::from_be_bytes([said[4], said[5], said[6], said[7]]);
            assert_eq!((mtu_for_host(word), is_narrow(word)), (host, narrow), "{mtu}");
        }
        for (pointer, expected) in [(6u32, 6u32), (40, 6), (47, 6), (48, 40), (70, 62)] {
            let said = out_of_udp(&error(PARAMETER_PROBLEM, pointer.to_be_bytes(), &sent), 5533).unwrap();
            assert_eq!(said[4..8], expected.to_be_bytes());
        }
        for other in [&tagged[..], &sent[..47], &[]] {
            assert_eq!(out_of_udp(&error(DESTINATION_UNREACHABLE, [0; 4], other), 5533), None);
        }
        assert_eq!(out_of_udp(&error(DESTINATION_UNREACHABLE, [0; 4], &sent), 5534), None);
    }

    fn error(kind: u8, word: [u8; 4], quote: &[u8]) -> Vec<u8> {
        [&[kind, 0, 0xab, 0xcd], &word[..], quote].concat()
    }

    fn told(icmp: &[u8]) -> Vec<u8> {
        without_shim(icmp, Some(PLACE), &ulids()).unwrap()
    }

    #[test]
    fn a_quote_without_length_is_the_packet_as_far_as_it_goes() {
        let (sent, tagged) = packets(300);
        for length in [48, 49, 120, tagged.len()] {
            let said = told(&error(DESTINATION_UNREACHABLE, [0; 4], &tagged[..length]));
            assert_eq!((&said[..8], &said[8..]), (&[1, 0, 0, 0, 0, 0, 0, 0][..], &sent[..length - 8]));
        }
        assert_eq!(without_shim(&error(1, [0; 4], &tagged[..47]), Some(PLACE), &ulids()), None);
        assert_eq!(
            without_shim(&error(1, [0; 4], &sent), Some(PLACE), &ulids()),
            None,
            "there is no header to take out"
        );
    }

    // R5533-240
    #[test]
    fn the_length_of_the_quote_follows_when_the_header_goes() {
        let (sent, tagged) = packets(300);
        // Version 2, and an object of twelve octets, as MPLS routers add it (RFC 4950).
        let extensions = [0x20, 0, 0xca, 0xfe, 0, 12, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8];
        for kind in [DESTINATION_UNREACHABLE, TIME_EXCEEDED] {
            for units in [17u8, 20, 40] {
                let quote = &tagged[..usize::from(units) * 8];
                let said = told(&error(kind, [units, 0, 0, 0], &[quote, &extensions].concat()));
                assert_eq!(said[4], units - 1, "one unit of eight octets less");
                let view = View::new(&said).unwrap();
                assert_eq!((view.quote(), view.extensions()), (&sent[..quote.len() - 8], &extensions[..]));
            }
        }
        // A length and nothing behind it; and one that is past the end, which is none.
        let said = told(&error(TIME_EXCEEDED, [10, 0, 0, 0], &tagged[..80]));
        assert_eq!((said[4], &said[8..]), (9, &sent[..72]));
        let said = told(&error(TIME_EXCEEDED, [200, 0, 0, 0], &tagged[..80]));
        assert_eq!((said[4], &said[8..]), (200, &sent[..72]));
        // The same octet of a Packet Too Big is part of its MTU.
        let said = told(&error(PACKET_TOO_BIG, [1, 0, 5, 0x78], &tagged));
        assert_eq!((&said[4..8], &said[8..]), (&[1, 0, 5, 0x70][..], &sent[..]));
    }

    // R5533-240: a quote of 128 octets is the least that extensions may follow (RFC 4884 §4).
    #[test]
    fn a_quote_that_would_be_too_short_for_extensions_is_padded() {
        let (sent, tagged) = packets(300);
        let extensions = [0x20, 0, 0xca, 0xfe, 0, 4, 1, 1];
        let said = told(&error(TIME_EXCEEDED, [16, 0, 0, 0], &[&tagged[..128], &extensions].concat()));
        let view = View::new(&said).unwrap();
        assert_eq!((said[4], view.quote()), (16, &[&sent[..120], &[0; 8]].concat()[..]));
        assert_eq!(view.extensions(), extensions);
    }

    // R5533-242, R5533-331
    #[test]
    fn an_mtu_is_told_less_the_header_and_never_below_1280() {
        let (_, tagged) = packets(20);
        for (mtu, expected) in [(1400u32, 1392u32), (1288, 1280), (1287, 1280), (1280, 1280), (68, 1280), (0, 1280)] {
            let said = told(&error(PACKET_TOO_BIG, mtu.to_be_bytes(), &tagged));
            assert_eq!(said[4..8], expected.to_be_bytes());
            assert_eq!(is_narrow(mtu), mtu < 1288);
        }
    }

    proptest::proptest! {
        /// Whatever a router sends: nothing panics, and nothing grows.
        #[test]
        fn any_error_is_told_or_not(
            kind: u8, word: [u8; 4], octets in 0usize..400, tagged_out: bool, noise in proptest::collection::vec(0usize..400, 0..8),
        ) {
            let (_, mut tagged) = packets(300);
            for at in noise {
                tagged[at % 348] ^= at as u8;
            }
            let icmp = error(kind, word, &tagged[..octets.min(tagged.len())]);
            if let Some(said) = without_shim(&icmp, tagged_out.then_some(PLACE), &ulids()) {
                proptest::prop_assert!(said.len() <= icmp.len() && said.len() >= icmp.len() - 8);
            }
        }
    }

    #[test]
    fn a_pointer_stays_with_what_it_points_at() {
        let (_, tagged) = packets(20);
        for (pointer, expected) in [(6u32, 6u32), (39, 39), (40, 6), (47, 6), (48, 40), (60, 52)] {
            let said = told(&error(PARAMETER_PROBLEM, pointer.to_be_bytes(), &tagged));
            assert_eq!(said[4..8], expected.to_be_bytes());
        }
    }
}
