#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::loading::parser_output(data));
