#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hv_vssd_fuzz::session(input));
