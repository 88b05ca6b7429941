//! What the proxy reads bytes from the network with, by links into its sources: alone it is built with the fuzzer's
//! instrumentation in seconds, within the whole proxy in many minutes.

#![allow(dead_code, reason = "the rest of the proxy is not here to use it")]

pub mod clock;
pub mod http1;
pub mod http2;

pub mod detect {
    //! First bytes to a verdict.
    pub mod check;
    pub mod client_hello;
    mod sniff;
    pub use sniff::{Sniffed, sniff};
}

pub mod stream {
    //! Buffers.
    mod buffer;
    pub use buffer::{give_text, take_text};
}

pub mod multiplex {
    //! The machine of one connection of HTTP/2, without its socket.
    mod error;
    mod machine;
    mod settings;
    mod shared;
    mod stream;
    pub use error::{ConnectionError, Flood, NotOpened, StreamError};
    pub use machine::check;
    pub use settings::{Budget, FloodBudgets, Keepalive, Settings};
    pub use stream::{Available, Stream};
}
