//! See `weir_fuzz_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_fuzz_text::attestations(bytes));
