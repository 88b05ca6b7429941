//! Blocks of one connection: decoded as the plainest decoder does; the first byte chooses the limits.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::http2::check::hpack(bytes));
