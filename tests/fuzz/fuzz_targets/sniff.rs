//! First bytes of a connection: the verdict does not depend on how they are cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::detect::check::verdict(bytes));
