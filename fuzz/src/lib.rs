//! What must hold for any octets a decoder is handed: it never panics, it reads inside the slice only, and what it
//! could read it can write and read again.
//!
//! Each function is the body of the fuzz target with its name, and `dataplane/tests/fuzz_corpus.rs` runs the same
//! functions on a stable compiler in the ordinary tests.

use dataplane::wire::ethernet::{self, EtherType};
use dataplane::wire::ipv6::{self, Place, ShimPlace};
use dataplane::wire::shim6::udp::{self, UdpPorts};
use dataplane::wire::shim6::{
    ControlPacket, ControlView, ErrorMessage, Message, MessageType, Options, ParseError, PayloadHeader, RawOptions,
    emit_packet, payload,
};
use dataplane::wire::{checksum, icmpv6};

/// A control message, as it is and with its discriminating bits, length and checksum put right, so that the fuzzer
/// gets past them.
pub fn control_message(octets: &[u8]) {
    round_trip(octets);
    let mut repaired = octets[..octets.len() & !7].to_vec();
    repaired.truncate(256 * 8);
    if repaired.is_empty() {
        return;
    }
    repaired[1] = (repaired.len() / 8 - 1) as u8;
    repaired[2] &= 0x7f;
    repaired[3] &= 0xfe;
    repaired[4..6].fill(0);
    let sum = checksum::of(&repaired);
    repaired[4..6].copy_from_slice(&sum.to_be_bytes());
    round_trip(&repaired);
}

/// The options behind a message of each type.
pub fn options(octets: &[u8]) {
    let mut end = 0;
    for option in RawOptions::new(octets, 0) {
        match option {
            Ok(option) => {
                assert_eq!(option.offset, end, "options stand one behind the other");
                assert_eq!(&octets[option.offset + 4..][..option.contents.len()], option.contents);
                end += (4 + option.contents.len()).next_multiple_of(8);
                assert!(end <= octets.len());
            }
            Err(error) => {
                assert_eq!(error, ParseError::MalformedOption { offset: end });
                end = octets.len();
            }
        }
    }
    assert_eq!(end, octets.len(), "nothing is left over");
    for message in MessageType::KNOWN {
        let Ok(options) = Options::parse(RawOptions::new(octets, 0), message) else { continue };
        assert!(options.buffer_len() <= octets.len(), "what is understood is not longer than what was said");
    }
}

/// A payload header, and its way into a packet and out of it.
pub fn payload_header(octets: &[u8]) {
    let Ok(header) = PayloadHeader::parse(octets) else { return };
    assert_eq!(header.emit(), octets[..8]);
    // The octets behind it, whatever they are, as the packet it goes into.
    let packet = &octets[8..];
    let Ok(view) = ipv6::View::new(packet) else { return };
    let Ok(shim) = view.shim_insertion() else { return };
    let mut buffer = octets.to_vec();
    if payload::insert(&mut buffer, shim.place, header.tag).is_err() {
        assert!(view.payload_len() > 0xffff - 8, "only a full packet takes no header");
        return;
    }
    let tagged = ipv6::View::new(&buffer).expect("still a packet");
    let found = tagged.shim_header().expect("a chain that could be followed").expect("the header just put in");
    assert_eq!((found.place.offset, found.place.predecessor), (shim.place.offset, shim.place.predecessor));
    in_udp(&buffer, found);
    payload::remove(&mut buffer, found.place).expect("what was put in comes out");
    assert_eq!(&buffer[8..], packet);
}

/// A packet with a Shim6 header, into UDP and out of it.
fn in_udp(tagged: &[u8], shim: ShimPlace) {
    let mut buffer = [&[0; udp::LEN][..], tagged].concat();
    let ports = UdpPorts { source: 5533, target: udp::DYNAMIC };
    if udp::wrap(&mut buffer, shim.place, ports).is_err() {
        assert!(tagged.len() > 0xffff - 8, "only a full packet has no room");
        return;
    }
    let view = ipv6::View::new(&buffer).expect("still a packet");
    let place = match udp::find(&view, 5533) {
        None => return assert!(shim.under_way, "its checksum is about the last address"),
        Some(found) => found.expect("a datagram as it should be").place,
    };
    udp::unwrap(&mut buffer, place).expect("what was put in comes out");
    assert_eq!(&buffer[udp::LEN..], tagged);
}

/// An IPv6 packet and the walks along its extension headers.
pub fn ipv6_chain(octets: &[u8]) {
    let _ = ControlPacket::parse(octets);
    let Ok(view) = ipv6::View::new(octets) else { return };
    assert_eq!(ipv6::Repr::parse(&view).emit(), *view.header());
    let inside = |place: Place| {
        assert!(place.offset >= ipv6::HEADER_LEN && place.offset <= view.total_len());
        assert!(place.predecessor < place.offset);
        assert_eq!(octets[place.predecessor], place.next_header);
    };
    if let Ok(shim) = view.shim_insertion() {
        inside(shim.place);
    }
    if let Ok(Some(shim)) = view.shim_header() {
        inside(shim.place);
        assert_eq!(shim.place.next_header, ipv6::protocol::SHIM6);
    }
    if let Ok(upper) = view.upper_layer() {
        inside(upper.place);
        let _ = udp::find(&view, 5533);
        if let Some(shim) = upper.shim {
            assert!(PayloadHeader::parse(view.from_offset(shim)).is_ok());
        }
    }
}

/// An ICMPv6 message: read, written between two addresses and read again.
pub fn icmpv6(octets: &[u8]) {
    let Ok(view) = icmpv6::View::new(octets) else { return };
    assert_eq!(
        view.quote().len() + view.extensions().len(),
        match view.class() {
            icmpv6::Class::Error => view.body().len(),
            _ => 0,
        }
    );
    let (source, target) = (0xfd00 << 112 | 1u128, 0xfd00 << 112 | 2u128);
    let message = icmpv6::Message::parse(&view);
    let emitted = message.emit(source.into(), target.into());
    let again = icmpv6::View::new(&emitted).expect("eight octets at least");
    assert!(again.verifies(source.into(), target.into()));
    assert_eq!(icmpv6::Message::parse(&again), message);
    if let Ok(invoking) = ipv6::View::of_quote(view.quote()) {
        let error = icmpv6::Error::PacketTooBig { mtu: 1280 };
        let _ = icmpv6::may_answer(error, &invoking, false);
        let mut out = [0; ipv6::MIN_MTU];
        let answer = icmpv6::emit_error(&mut out, error, source.into(), 64, &invoking);
        assert_eq!(ipv6::View::new(answer).expect("a packet").total_len(), answer.len());
    }
}

/// An Ethernet frame: read, and written onto an empty one.
pub fn ethernet(octets: &[u8]) {
    let Ok(view) = ethernet::View::new(octets) else { return };
    let mut copy = vec![0; octets.len()];
    let mut written = ethernet::ViewMut::new(&mut copy).expect("as long as the other");
    written.set(view.target(), view.source(), view.ether_type());
    written.payload_mut().copy_from_slice(view.payload());
    assert_eq!(copy, octets);
    if view.ether_type() == EtherType::IPV6 {
        ipv6_chain(view.payload());
    }
}

fn round_trip(octets: &[u8]) {
    let view = match ControlView::new(octets) {
        Ok(view) => view,
        Err(error) => {
            assert_eq!(Message::parse(octets), Err(error));
            assert_eq!(error.answer(), None, "what is not even a header is not answered");
            return;
        }
    };
    match Message::parse(octets) {
        Ok(message) => {
            assert_eq!(message.kind(), view.kind());
            let emitted = message.emit().expect("what parses can be emitted");
            let again = Message::parse(&emitted).expect("what is emitted parses");
            assert_eq!(placeless(again), placeless(message));
        }
        Err(error) => {
            let Some((code, pointer)) = error.answer() else { return };
            assert!(pointer < view.octets().len(), "a pointer names an octet of the message");
            let answer = Message::Error(ErrorMessage::for_packet(code, pointer, octets));
            let addresses = dataplane::wire::shim6::Addresses { source: 1.into(), target: 2.into() };
            let packet = emit_packet(addresses, 64, &answer).expect("an Error always fits");
            assert_eq!(ControlPacket::parse(&packet).expect("an Error").message, answer);
        }
    }
}

/// The same message without the places its options stood at.
fn placeless(mut message: Message) -> Message {
    if let Some(options) = message.options_mut() {
        options.locators.iter_mut().for_each(|list| list.methods_offset = 0);
        options.preferences.iter_mut().for_each(|preferences| preferences.offset = 0);
    }
    message
}
