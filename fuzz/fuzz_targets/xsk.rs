//! See `weir_fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_fuzz::xsk(bytes));
