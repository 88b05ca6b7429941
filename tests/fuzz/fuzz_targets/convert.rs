//! Heads and trailers between HTTP/1 and HTTP/2: the same meaning on every way; the first byte says from where.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::http2::check::convert(bytes));
