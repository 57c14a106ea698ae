#![no_main]

#[path = "../src/machines/mod.rs"]
mod machines;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| machines::bmp(octets));
