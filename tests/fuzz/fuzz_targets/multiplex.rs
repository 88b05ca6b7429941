//! A connection of HTTP/2 in either role: a peer that sends anything, and tasks that do anything with its streams.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::multiplex::check::machine(bytes));
