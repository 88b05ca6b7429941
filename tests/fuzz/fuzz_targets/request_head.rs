//! Request heads: accepted means the same after writing.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::http1::check::request_head(bytes));
