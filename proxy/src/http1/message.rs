//! What request and response heads share: limits, line discipline, and the meaning of the framing fields.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::fields::{FIELD_ROOM, Field, FieldSet, MAX_FIELDS, classify};

/// Largest head, both directions. 60 KiB, usual in the field, hits real users' cookies and tokens.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Longest request target that can be allowed.
pub const MAX_TARGET_BYTES: usize = 32 * 1024;
/// Longest method; the registry's longest has 17 letters.
pub(crate) const MAX_METHOD_BYTES: usize = 64;
/// `Connection` fields one head may carry; more is an attack on whoever scans their options.
const MAX_CONNECTION_FIELDS: usize = 4;
/// Options all of them may carry together: each one is compared with every field.
const MAX_CONNECTION_OPTIONS: usize = 64;
/// Digits of a `Content-Length`: keeps the value well inside `u64`.
const MAX_LENGTH_DIGITS: usize = 18;

/// Room for the fields of one head, on the stack and never cleared.
pub struct FieldStorage<'b>(pub(super) [MaybeUninit<httparse::Header<'b>>; FIELD_ROOM]);

impl FieldStorage<'_> {
    pub const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; FIELD_ROOM])
    }
}

impl Default for FieldStorage<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for FieldStorage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FieldStorage")
    }
}

/// Why a head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("malformed head: {0}")]
    Malformed(&'static str),
    #[error("head longer than {MAX_HEAD_BYTES} bytes")]
    TooLong,
    #[error("more than {MAX_FIELDS} header fields")]
    TooManyFields,
    #[error("request target longer than {MAX_TARGET_BYTES} bytes")]
    TargetTooLong,
    #[error("CONNECT is not allowed")]
    ConnectNotAllowed,
}

impl HeadError {
    /// The status a client gets for it.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::TooLong | Self::TooManyFields => 431,
            Self::TargetTooLong => 414,
            Self::ConnectNotAllowed => 405,
        }
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            httparse::Error::HeaderName => Self::Malformed("field name"),
            httparse::Error::HeaderValue => Self::Malformed("field value"),
            httparse::Error::NewLine => Self::Malformed("line end"),
            httparse::Error::Status => Self::Malformed("status"),
            httparse::Error::Token => Self::Malformed("start line"),
            httparse::Error::Version => Self::Malformed("version"),
        }
    }
}

/// Every line feed follows a carriage return and every carriage return is followed by a line feed
/// (RFC 9112 section 2.2; `httparse` accepts a bare line feed).
pub(super) fn lines_end_in_crlf(head: &[u8]) -> bool {
    let (Some(first), Some(last)) = (head.first(), head.last()) else { return true };
    // One pass without a way out, so that many bytes are compared at once.
    let apart = head
        .iter()
        .zip(&head[1..])
        .fold(0, |apart, (&before, &after)| apart | (u8::from(before == b'\r') ^ u8::from(after == b'\n')));
    apart == 0 && *first != b'\n' && *last != b'\r'
}

/// What the fields of a head say about framing and the connection.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Summary {
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
    /// `Connection: close`
    pub(super) close: bool,
    /// `Connection: keep-alive`
    pub(super) keep_alive: bool,
    /// `Connection: upgrade`
    pub(super) connection_upgrade: bool,
    /// Index of the `Upgrade` field.
    pub(super) upgrade: Option<usize>,
    /// Index of the `Host` field.
    pub(super) host: Option<usize>,
    pub(super) request_id: bool,
    pub(super) expect_continue: bool,
    /// Index of the `weft-error` field.
    pub(super) weft_error: Option<usize>,
    /// Index of the last `Keep-Alive` field.
    pub(super) keep_alive_field: Option<usize>,
    /// Fields not to forward.
    pub(super) dropped: FieldSet,
}

/// Reads the fields that steer the proxy, and marks those that end at this hop (RFC 9110 section 7.6.1).
pub(super) fn summarize(fields: &[httparse::Header<'_>]) -> Result<Summary, HeadError> {
    let mut summary = Summary::default();
    let mut connections = [0usize; MAX_CONNECTION_FIELDS];
    let mut connection_count = 0;
    let mut encodings = 0;
    for (index, field) in fields.iter().enumerate() {
        match classify(field.name) {
            Field::Other => {}
            Field::Host => {
                if summary.host.replace(index).is_some() {
                    return Err(HeadError::Malformed("more than one Host"));
                }
            }
            Field::ContentLength => {
                if summary.content_length.replace(parse_length(field.value)?).is_some() {
                    return Err(HeadError::Malformed("more than one Content-Length"));
                }
            }
            Field::TransferEncoding => {
                encodings += 1;
                if encodings > 1 || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::Malformed("Transfer-Encoding other than one `chunked`"));
                }
                summary.chunked = true;
            }
            Field::Connection => {
                if connection_count == MAX_CONNECTION_FIELDS {
                    return Err(HeadError::Malformed("too many Connection fields"));
                }
                connections[connection_count] = index;
                connection_count += 1;
                summary.dropped.insert(index);
            }
            Field::Upgrade => {
                if summary.upgrade.replace(index).is_some() {
                    return Err(HeadError::Malformed("more than one Upgrade"));
                }
                summary.dropped.insert(index);
            }
            Field::KeepAlive => {
                summary.keep_alive_field = Some(index);
                summary.dropped.insert(index);
            }
            Field::HopByHop => summary.dropped.insert(index),
            Field::Expect => summary.expect_continue |= field.value.eq_ignore_ascii_case(b"100-continue"),
            Field::RequestId => summary.request_id = true,
            Field::ClientCertificate => summary.dropped.insert(index),
            Field::WeftError => {
                // One at most goes on, so that who takes it away takes all of them.
                if let Some(earlier) = summary.weft_error.replace(index) {
                    summary.dropped.insert(earlier);
                }
            }
        }
    }
    if summary.chunked && summary.content_length.is_some() {
        return Err(HeadError::Malformed("both Transfer-Encoding and Content-Length"));
    }
    let mut options = 0;
    for &index in &connections[..connection_count] {
        options += memchr::memchr_iter(b',', fields[index].value).count() + 1;
        if options > MAX_CONNECTION_OPTIONS {
            return Err(HeadError::Malformed("too many Connection options"));
        }
        read_connection_options(fields, index, &mut summary);
    }
    Ok(summary)
}

/// Options of one `Connection` field: `close`, `keep-alive`, `upgrade`, or fields that end at this hop.
fn read_connection_options(fields: &[httparse::Header<'_>], connection: usize, summary: &mut Summary) {
    for option in fields[connection].value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
        if option.eq_ignore_ascii_case(b"close") {
            summary.close = true;
        } else if option.eq_ignore_ascii_case(b"keep-alive") {
            summary.keep_alive = true;
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            summary.connection_upgrade = true;
        } else if !option.is_empty() {
            for (index, field) in fields.iter().enumerate() {
                if field.name.as_bytes().eq_ignore_ascii_case(option) && !is_protected(field.name) {
                    summary.dropped.insert(index);
                }
            }
        }
    }
}

/// Fields a `Connection` option cannot take away: framing, routing, credentials, forwarding and tracing.
fn is_protected(name: &str) -> bool {
    const PROTECTED: [&str; 14] = [
        "host",
        "content-length",
        "transfer-encoding",
        "authorization",
        "cookie",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-client-cert",
        "x-request-id",
        "traceparent",
        "tracestate",
        "b3",
    ];
    PROTECTED.iter().any(|p| name.eq_ignore_ascii_case(p))
        || name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("x-b3-") || start.eq_ignore_ascii_case("weft-"))
}

/// Digits only, bounded (RFC 9112 section 6.3; a list of equal values is refused too).
pub(crate) fn parse_length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || value.len() > MAX_LENGTH_DIGITS || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::Malformed("Content-Length is not a number"));
    }
    Ok(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// The fields that go on in whatever form, without `Transfer-Encoding`, which is HTTP/1.1's alone.
pub(super) fn end_to_end<'h, 'b>(
    fields: &'h [httparse::Header<'b>],
    dropped: FieldSet,
) -> impl Iterator<Item = (&'b str, &'b [u8])> + 'h {
    fields
        .iter()
        .enumerate()
        .filter(move |(index, field)| !dropped.contains(*index) && classify(field.name) != Field::TransferEncoding)
        .map(|(_, field)| (field.name, field.value))
}

/// Appends `name: value` lines of those of `fields` that are forwarded.
///
/// Neighbours that stand in `head`, which they were read from, as they are to be written are copied together: most heads
/// go on in two or three pieces.
pub(super) fn write_fields(head: &[u8], fields: &[httparse::Header<'_>], dropped: &FieldSet, out: &mut Vec<u8>) {
    let mut run = 0..0;
    for (index, field) in fields.iter().enumerate() {
        if dropped.contains(index) {
            continue;
        }
        match line_of(head, field) {
            Some(line) if line.start == run.end => run.end = line.end,
            Some(line) => {
                let before = std::mem::replace(&mut run, line);
                out.extend_from_slice(head.get(before).unwrap_or_default());
            }
            None => {
                out.extend_from_slice(head.get(std::mem::replace(&mut run, 0..0)).unwrap_or_default());
                write_field(field.name.as_bytes(), field.value, out);
            }
        }
    }
    out.extend_from_slice(head.get(run).unwrap_or_default());
}

/// Where the line of `field` stands in `head`, if it stands there exactly as [`write_field`] writes it.
fn line_of(head: &[u8], field: &httparse::Header<'_>) -> Option<Range<usize>> {
    let place = |part: &[u8]| part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
    let (start, value) = (place(field.name.as_bytes()), place(field.value));
    let end = value.checked_add(field.value.len())?;
    let is_written_so = head.get(start.checked_add(field.name.len())?..value)? == b": "
        && head.get(end..end.checked_add(2)?)? == b"\r\n";
    is_written_so.then_some(start..end + 2)
}

pub(crate) fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
