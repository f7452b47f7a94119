#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| peerlane_fuzz::profile(data));
