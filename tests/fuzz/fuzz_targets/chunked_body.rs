//! Chunked bodies: the same however cut, and what the grammar says; the first byte is the cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::http1::check::chunked_body(bytes));
