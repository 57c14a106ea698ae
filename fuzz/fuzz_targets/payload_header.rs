#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| checks::payload_header(octets));
