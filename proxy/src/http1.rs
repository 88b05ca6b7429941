//! HTTP/1.x as bytes: heads are read in place and written anew, bodies are scanned, nothing here does I/O.
//!
//! Invariants (RFC 9112; every ambiguity is refused, never repaired):
//! - a line ends in CRLF and nothing else; no NUL, no folding, no space before a colon;
//! - a message has one framing: one `Content-Length` of digits, or one `Transfer-Encoding: chunked`, never both;
//! - what is written is made from parsed parts, with one framing field, and chunks are framed anew;
//! - field names keep their case and fields their order.

mod body;
#[cfg(any(test, feature = "fuzzing"))]
pub mod check;
mod chunked;
mod fields;
mod message;
mod request;
mod response;
mod scan;

pub use body::{BodyError, BodyKind, Framing};
pub use chunked::{ChunkedDecoder, ChunkedError, Piece};
pub use fields::MAX_FIELDS;
pub use message::{FieldStorage, HeadError, MAX_HEAD_BYTES, MAX_TARGET_BYTES};
pub use request::{RequestHead, RequestWrite};
pub use response::{Connection, ResponseHead, ResponseWrite};
pub use scan::HeadScan;

// What HTTP/2 reads and writes by the same rules.
pub(crate) use chunked::{may_be_trailer, split_trailer};
pub(crate) use fields::{is_clean_value, is_lower_token, is_token};
pub(crate) use message::{MAX_METHOD_BYTES, parse_length, write_field};
pub(crate) use request::is_authority;
pub(crate) use response::status_digits;

#[cfg(test)]
mod tests;
