//! Response heads: accepted means the same after writing; the first byte says to what and how.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::http1::check::response_head(bytes));
