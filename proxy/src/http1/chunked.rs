//! Chunked bodies: read strictly, given out as pieces that are framed anew (RFC 9112 section 7.1).
//!
//! Extensions are dropped, sizes have at most 15 digits, every line ends in CRLF. Trailers are checked and given
//! out one by one; those that could change framing, routing or authority (RFC 9110 section 6.5.1) are dropped.

use super::fields::{is_clean_value, is_token};

/// Digits of a chunk size: 15 hexadecimal digits cannot overflow.
const MAX_SIZE_DIGITS: u8 = 15;
/// Bytes of extensions on one chunk line.
const MAX_EXTENSION_BYTES: u16 = 4096;
/// Bytes of all trailers; also bounds one line, so that a line always fits the buffer it is read in.
const MAX_TRAILER_BYTES: usize = 8192;

/// Why a chunked body was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkedError {
    #[error("chunk size")]
    Size,
    #[error("chunk size longer than {MAX_SIZE_DIGITS} digits")]
    SizeTooLong,
    #[error("chunk extension")]
    Extension,
    #[error("chunk data not followed by CRLF")]
    DataEnd,
    #[error("trailer field")]
    Trailer,
    #[error("trailers longer than {MAX_TRAILER_BYTES} bytes")]
    TrailersTooLong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLineFeed,
    Data,
    DataCarriageReturn,
    DataLineFeed,
    Trailers,
}

/// What comes next in a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'b> {
    /// Body bytes.
    Data(&'b [u8]),
    /// One trailer line without its CRLF, checked, to be forwarded.
    Trailer(&'b [u8]),
    /// The bytes given are used up; more are needed.
    NeedMore,
    /// The body is complete.
    End,
}

/// Where a chunked body stands.
#[derive(Debug)]
pub struct ChunkedDecoder {
    left: u64,
    trailer_bytes: u16,
    extension_bytes: u16,
    digits: u8,
    state: State,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkedDecoder {
    pub const fn new() -> Self {
        Self { left: 0, trailer_bytes: 0, extension_bytes: 0, digits: 0, state: State::Size }
    }

    /// Takes from the front of `bytes`: how many were used, and what they gave.
    ///
    /// # Errors
    /// When the body is not strictly what RFC 9112 says.
    pub fn next<'b>(&mut self, bytes: &'b [u8]) -> Result<(usize, Piece<'b>), ChunkedError> {
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            match self.state {
                State::Size => {
                    at += 1;
                    self.take_size_byte(byte)?;
                }
                State::Extension => {
                    at += 1;
                    self.extension_bytes += 1;
                    match byte {
                        b'\r' => self.state = State::SizeLineFeed,
                        b'\n' | 0 => return Err(ChunkedError::Extension),
                        _ if self.extension_bytes > MAX_EXTENSION_BYTES => return Err(ChunkedError::Extension),
                        _ => {}
                    }
                }
                State::SizeLineFeed => {
                    if byte != b'\n' {
                        return Err(ChunkedError::Size);
                    }
                    at += 1;
                    self.digits = 0;
                    self.extension_bytes = 0;
                    self.state = if self.left == 0 { State::Trailers } else { State::Data };
                }
                State::Data => {
                    let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    self.left -= length as u64;
                    if self.left == 0 {
                        self.state = State::DataCarriageReturn;
                    }
                    return Ok((at + length, Piece::Data(&bytes[at..at + length])));
                }
                State::DataCarriageReturn => {
                    if byte != b'\r' {
                        return Err(ChunkedError::DataEnd);
                    }
                    at += 1;
                    self.state = State::DataLineFeed;
                }
                State::DataLineFeed => {
                    if byte != b'\n' {
                        return Err(ChunkedError::DataEnd);
                    }
                    at += 1;
                    self.state = State::Size;
                }
                State::Trailers => match self.take_trailer(&bytes[at..])? {
                    None => return Ok((at, Piece::NeedMore)),
                    Some((used, Piece::NeedMore)) => at += used,
                    Some((used, piece)) => return Ok((at + used, piece)),
                },
            }
        }
        Ok((at, Piece::NeedMore))
    }

    fn take_size_byte(&mut self, byte: u8) -> Result<(), ChunkedError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if self.digits > 0 => {
                self.state = State::SizeLineFeed;
                return Ok(());
            }
            b';' if self.digits > 0 => {
                self.state = State::Extension;
                return Ok(());
            }
            _ => return Err(ChunkedError::Size),
        };
        if self.digits == MAX_SIZE_DIGITS {
            return Err(ChunkedError::SizeTooLong);
        }
        self.digits += 1;
        self.left = self.left << 4 | u64::from(digit);
        Ok(())
    }

    /// A whole trailer line, or nothing yet; [`Piece::NeedMore`] stands for a line that is dropped.
    fn take_trailer<'b>(&mut self, rest: &'b [u8]) -> Result<Option<(usize, Piece<'b>)>, ChunkedError> {
        let allowed = MAX_TRAILER_BYTES - usize::from(self.trailer_bytes);
        let Some(end) = memchr::memchr(b'\n', rest) else {
            return if rest.len() > allowed { Err(ChunkedError::TrailersTooLong) } else { Ok(None) };
        };
        if end + 1 > allowed {
            return Err(ChunkedError::TrailersTooLong);
        }
        self.trailer_bytes += (end + 1) as u16;
        let line = rest[..end].strip_suffix(b"\r").ok_or(ChunkedError::Trailer)?;
        let piece = if line.is_empty() {
            Piece::End
        } else if is_forwarded_trailer(line)? {
            Piece::Trailer(line)
        } else {
            Piece::NeedMore
        };
        Ok(Some((end + 1, piece)))
    }
}

/// Checks one trailer line; false when it must not be forwarded.
fn is_forwarded_trailer(line: &[u8]) -> Result<bool, ChunkedError> {
    let (name, value) = split_trailer(line).ok_or(ChunkedError::Trailer)?;
    if !is_token(name) || !is_clean_value(value) {
        return Err(ChunkedError::Trailer);
    }
    Ok(may_be_trailer(name))
}

/// The name and the value of a trailer line, without the blanks around it.
pub(crate) fn split_trailer(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
    // Blanks only: what else counts as space to others is refused with the value.
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let (first, last) = (value.iter().position(is_text), value.iter().rposition(is_text));
    Some((name, first.zip(last).and_then(|(first, last)| value.get(first..=last)).unwrap_or_default()))
}

/// Whether a field may come after the body: false for those that frame, route, authenticate, control or describe
/// the payload, and for those only a proxy may say.
pub(crate) fn may_be_trailer(name: &[u8]) -> bool {
    const NOT_IN_TRAILERS: [&str; 22] = [
        "age",
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "location",
        "max-forwards",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let reserved = NOT_IN_TRAILERS.iter().any(|reserved| is_name(name, reserved));
    let ours = ["forwarded", "weft-", "x-forwarded"]
        .iter()
        .any(|start| name.get(..start.len()).is_some_and(|name| is_name(name, start)));
    !reserved && !ours
}

/// Equal but for case, and for `_` in place of `-`: some applications cannot tell them apart.
fn is_name(name: &[u8], lower: &str) -> bool {
    name.len() == lower.len()
        && name
            .iter()
            .zip(lower.bytes())
            .all(|(have, want)| have.to_ascii_lowercase() == want || (want == b'-' && *have == b'_'))
}
