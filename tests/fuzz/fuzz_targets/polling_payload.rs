#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| roomcast_fuzz::targets::polling_payload::run(input));
