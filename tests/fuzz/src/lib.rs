//! What the proxy reads bytes from the network with, by links into its sources: alone it is built with the fuzzer's
//! instrumentation in seconds, within the whole proxy in many minutes.

pub mod http1;
pub mod http2;

pub mod detect {
    //! First bytes to a verdict.
    pub mod check;
    pub mod client_hello;
    mod sniff;
    pub use sniff::{Sniffed, sniff};
}
