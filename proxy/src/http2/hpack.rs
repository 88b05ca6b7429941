//! Header compression (RFC 7541): a decoder that takes all of it, an encoder that remembers nothing.
//!
//! A malformed block breaks the table both ends share, and so the connection. A head over a limit is one stream's
//! matter: it is decoded to its end, for the table's sake, but not kept.

mod decoder;
mod encoder;
mod huffman;
mod table;

pub use decoder::Decoder;
pub use encoder::encode;

/// The size of a dynamic table before any setting (RFC 9113 section 6.5.2).
pub const DEFAULT_TABLE_BYTES: u32 = 4096;

/// Why a block was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HpackError {
    /// The connection cannot go on (`COMPRESSION_ERROR`).
    #[error("malformed header compression: {0}")]
    Malformed(&'static str),
    /// The table is right; the stream is answered with 431 or reset.
    #[error("head longer than {0} bytes")]
    TooLong(usize),
    /// As [`Self::TooLong`].
    #[error("more than {0} header fields")]
    TooManyFields(usize),
}

impl HpackError {
    /// Only this head is lost, the connection can go on.
    pub fn is_over_limit(self) -> bool {
        !matches!(self, Self::Malformed(_))
    }
}

/// The standard's tables, for the plainest decoder.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod check {
    pub(in crate::http2) use super::huffman::codes as huffman_codes;
    pub(in crate::http2) use super::table::static_field;
}

#[cfg(test)]
pub(super) use huffman::tests::encode as huffman_encoded;
#[cfg(test)]
mod tests;
