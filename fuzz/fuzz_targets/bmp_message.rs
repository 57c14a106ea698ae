#![no_main]

use control::bmp::bgp;
use control::bmp::message::Message;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    // As they are, and as what comes behind a sound header.
    let length = (octets.len() as u32 + 6).to_be_bytes();
    for kind in 0..7 {
        let whole = [&[3], &length[..], &[kind], octets].concat();
        if let Ok(Message::RouteMonitoring(_, update)) = Message::parse(&whole) {
            let (with, without) = (bgp::update(update, true), bgp::update(update, false));
            assert!(with.is_ok() || without.is_err(), "what can be read without path identifiers is read");
        }
    }
    let _ = Message::parse(octets);
    let _ = bgp::update(octets, false);
});
