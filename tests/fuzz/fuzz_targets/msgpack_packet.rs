#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| roomcast_fuzz::targets::msgpack_packet::run(input));
