//! How a body ends, and how much of it is left.

use super::chunked::{ChunkedDecoder, ChunkedError};

/// How a message says where its body ends (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    Empty,
    Length(u64),
    Chunked,
    /// Responses only.
    UntilClose,
}

/// Progress through a body.
#[derive(Debug)]
pub enum Framing {
    Done,
    /// Bytes left.
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
}

/// Why a body could not be read to its end.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BodyError {
    #[error("malformed chunked body: {0}")]
    Chunked(#[from] ChunkedError),
    #[error("connection closed before the end of the body")]
    Truncated,
}

impl From<BodyKind> for Framing {
    fn from(kind: BodyKind) -> Self {
        match kind {
            BodyKind::Empty => Self::Done,
            BodyKind::Length(length) => Self::Length(length),
            BodyKind::Chunked => Self::Chunked(ChunkedDecoder::new()),
            BodyKind::UntilClose => Self::UntilClose,
        }
    }
}

impl Framing {
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}
