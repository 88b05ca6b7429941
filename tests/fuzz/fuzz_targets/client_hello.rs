//! The first message of a TLS client: the verdict does not depend on how it is cut, into reads or into records.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::detect::check::client_hello(bytes));
