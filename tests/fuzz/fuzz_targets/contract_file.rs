#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| roomcast_fuzz::targets::contract_file::run(input));
