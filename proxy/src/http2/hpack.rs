//! Header compression (RFC 7541).
//!
//! What a peer's table holds was looked at when it went in: that it is well-formed, and its digest. A field that comes as
//! a reference to it is not looked at again, and where it goes on, the digest finds it in the table of the way out: a
//! field that its sender repeats costs a few bytes and a few instructions at every hop.
//!
//! A malformed block breaks the table both ends share, and so the connection. A head over a limit is one stream's
//! matter: it is decoded to its end, for the table's sake, but not kept.

mod decoder;
mod encoder;
mod huffman;
mod table;

pub use decoder::Decoder;
pub use encoder::Encoder;
#[cfg(any(test, feature = "fuzzing"))]
pub use encoder::encode;

/// The size of a dynamic table before any setting (RFC 9113 section 6.5.2).
pub const DEFAULT_TABLE_BYTES: u32 = 4096;

/// Tells fields apart, mostly: whoever finds one by it compares the text. Never zero.
fn digest(text: &[u8], name_length: usize) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    let (words, rest) = text.as_chunks::<8>();
    let last = rest.iter().fold(text.len() as u64, |last, &byte| last << 8 | u64::from(byte));
    let hash = words.iter().fold(name_length as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    (mix(hash, last) >> 32) as u32 | 1
}

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
