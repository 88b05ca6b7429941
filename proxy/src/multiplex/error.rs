//! How connections and streams end.

use std::io;

use thiserror::Error;

use crate::http2::ErrorCode;

/// Why a connection is over, other than cleanly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ConnectionError {
    /// The peer broke a rule of RFC 9113; it was told with GOAWAY.
    #[error("the peer broke a rule of http/2: {code}, {rule}")]
    Broken { code: ErrorCode, rule: &'static str },
    /// The peer asked for more than its budget; it was told with GOAWAY and `ENHANCE_YOUR_CALM`.
    #[error("the peer sent a flood: {0}")]
    Flooded(Flood),
    /// The peer ended the connection with GOAWAY and an error.
    #[error("the peer ended the connection with {0}")]
    GoneAway(ErrorCode),
    /// The socket failed, or was closed while streams were open.
    #[error("the connection was lost: {0}")]
    Lost(io::ErrorKind),
    /// No answer to PING: nothing was read for [`crate::multiplex::Keepalive`]'s times.
    #[error("the peer did not answer a ping within {0} ms")]
    Silent(u32),
    /// Nothing could be written for [`crate::multiplex::Settings::write_stall`].
    #[error("the peer took no byte for {0} ms")]
    Stalled(u32),
}

impl ConnectionError {
    /// What GOAWAY says of it.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Broken { code, .. } | Self::GoneAway(code) => code,
            Self::Flooded(_) => ErrorCode::ENHANCE_YOUR_CALM,
            Self::Lost(_) | Self::Silent(_) | Self::Stalled(_) => ErrorCode::NO_ERROR,
        }
    }
}

/// Kinds of floods; the label of `weft_http2_floods_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Flood {
    /// Streams begun and reset at once, or made to be reset by us.
    #[error("rapid_reset")]
    RapidReset,
    /// A header block in too many frames, or of too many bytes.
    #[error("continuation")]
    Continuation,
    #[error("ping")]
    Ping,
    #[error("settings")]
    Settings,
    #[error("priority")]
    Priority,
    /// DATA without data and without an end.
    #[error("empty_data")]
    EmptyData,
    #[error("window_update")]
    WindowUpdate,
    /// Answers wait for windows that the peer never opens.
    #[error("zero_window")]
    ZeroWindow,
    /// The peer asks for answers and does not read them.
    #[error("unread")]
    Unread,
}

impl Flood {
    pub fn label(self) -> &'static str {
        match self {
            Self::RapidReset => "rapid_reset",
            Self::Continuation => "continuation",
            Self::Ping => "ping",
            Self::Settings => "settings",
            Self::Priority => "priority",
            Self::EmptyData => "empty_data",
            Self::WindowUpdate => "window_update",
            Self::ZeroWindow => "zero_window",
            Self::Unread => "unread",
        }
    }
}

/// Why a stream is over, other than by the ends of both its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StreamError {
    /// By the peer.
    #[error("the peer reset the stream with {0}")]
    Reset(ErrorCode),
    /// The peer has provably not looked at the request: `REFUSED_STREAM`, or a stream above GOAWAY's last one.
    #[error("the peer refused the stream unprocessed")]
    Refused,
    /// The peer's message broke a rule; we reset the stream.
    #[error("the peer's message broke a rule: {0}")]
    Malformed(ErrorCode),
    /// [`crate::multiplex::Stream::reset`] was called.
    #[error("the stream was reset here with {0}")]
    Cancelled(ErrorCode),
    /// The connection is gone; how far the request came is not known.
    #[error("the connection was lost")]
    ConnectionLost,
}

impl StreamError {
    /// The request may be sent again, whatever it is: nobody has acted on it.
    pub fn is_unprocessed(self) -> bool {
        matches!(self, Self::Refused)
    }
}

/// Why no stream was opened. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotOpened {
    #[error("the connection is over or going away")]
    GoingAway,
    /// The peer's limit of streams is reached, or too much is queued.
    #[error("the connection has no room for a further stream")]
    Full,
}
