//! HTTP/2 as bytes: frames, compressed heads and what they mean, and the ways from HTTP/1 and back. No I/O.
//!
//! Invariants (RFC 9113 and RFC 7541; every ambiguity is refused, never repaired):
//! - a head is read into [`Fields`] by the one [`hpack::Decoder`] of its connection, which stays in step with the
//!   peer's encoder even when the head is over a limit;
//! - nothing is routed or forwarded before [`RequestHead`], [`ResponseHead`] or [`Trailers`] accepted it;
//! - what is written is made from those accepted parts, so that an HTTP/1 message made from HTTP/2 reads back as
//!   the same message, and never as two.
//!
//! | from | to HTTP/1 | to HTTP/2 |
//! |---|---|---|
//! | HTTP/1 | [`crate::http1`] | [`request_from_http1`], [`response_from_http1`], [`trailer_from_http1`] |
//! | HTTP/2 | `write_http1` of each | `forwarded` of each |

#[cfg(any(test, feature = "fuzzing"))]
pub mod check;
mod error;
mod fields;
pub mod frame;
mod from_http1;
pub mod hpack;
mod name;
mod request;
mod response;
mod rules;
mod trailers;
pub mod websocket;

pub use error::ErrorCode;
pub use fields::{Field, Fields, HeadLimits};
pub use frame::{FrameHeader, Kind};
pub use from_http1::{
    request_from_http1, response_from_http1, trailer_from_http1, tunnel_from_http1, websocket_from_http1,
};
pub use request::RequestHead;
pub use response::ResponseHead;
pub use trailers::Trailers;

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether the first bytes of a connection are the whole preface, or may become it; `None`: they never will.
pub fn is_preface(bytes: &[u8]) -> Option<bool> {
    let length = bytes.len().min(PREFACE.len());
    (bytes.get(..length) == PREFACE.get(..length)).then_some(length == PREFACE.len())
}

#[cfg(test)]
mod tests;
