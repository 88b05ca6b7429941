//! What must hold for any bytes whatever: called by the fuzz targets, and by tests on the corpora they found.
//!
//! Each function panics when a promise is broken. The first byte chooses how the others are read.

use super::message::lines_end_in_crlf;
use super::{
    BodyKind, ChunkedDecoder, ChunkedError, Connection, FieldStorage, HeadError, Piece, RequestHead, RequestWrite,
    ResponseHead, ResponseWrite,
};

/// Most prefixes of one head that are looked at.
const CUTS: usize = 24;

/// Lengths to cut `length` bytes at, spread evenly, always with the last byte missing.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    let step = length.div_ceil(CUTS).max(1);
    (0..length).step_by(step).chain(length.checked_sub(1))
}

/// One head: clean lines, one empty line, at the end.
pub(crate) fn assert_clean(head: &[u8]) {
    assert!(lines_end_in_crlf(head), "bare CR or LF written");
    assert!(!head.contains(&0), "NUL written");
    assert_eq!(memchr::memmem::find(head, b"\r\n\r\n").map(|at| at + 4), Some(head.len()), "a head ends once");
}

/// An accepted request head means the same after it was written, and is complete at its last byte only.
pub fn request_head(bytes: &[u8]) {
    let mut storage = FieldStorage::new();
    let Ok(Some(head)) = RequestHead::parse(bytes, &mut storage) else { return };
    for cut in cuts(head.length) {
        let mut storage = FieldStorage::new();
        let cut = RequestHead::parse(&bytes[..cut], &mut storage);
        assert!(matches!(cut, Ok(None)), "a part of an accepted head gave {cut:?}");
    }
    let written = written_request(&head);
    assert_clean(&written);
    let mut storage = FieldStorage::new();
    let again = match RequestHead::parse(&written, &mut storage) {
        Ok(Some(again)) => again,
        // The proxy adds up to three fields: the next hop may find that too many, which is an honest answer.
        Err(HeadError::TooManyFields) => return,
        other => panic!("what was written is not a request: {other:?}"),
    };
    assert_eq!(again.length, written.len());
    assert_eq!((again.method, again.target, again.body), (head.method, head.target, head.body));
    assert_eq!(again.path(), head.path());
    if !head.authority.is_empty() {
        assert_eq!(again.authority, head.authority);
    }
    assert_eq!((again.upgrade(), again.expect_continue), (head.upgrade(), head.expect_continue));
    assert!(again.is_http11 && again.keep_alive, "the connection to the upstream is ours");
    assert_eq!(written_request(&again), written, "writing twice is not writing once");
}

fn written_request(head: &RequestHead<'_, '_>) -> Vec<u8> {
    let mut out = Vec::new();
    let write = RequestWrite { default_authority: b"orders:80", request_id: None, client_certificate: None };
    head.write(&write, &mut out);
    out
}

/// An accepted response head means the same after it was written, and is complete at its last byte only.
pub fn response_head(bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let to_head = choice & 1 == 1;
    let mut storage = FieldStorage::new();
    let Ok(Some(head)) = ResponseHead::parse(bytes, &mut storage, to_head) else { return };
    for cut in cuts(head.length) {
        let mut storage = FieldStorage::new();
        let cut = ResponseHead::parse(&bytes[..cut], &mut storage, to_head);
        assert!(matches!(cut, Ok(None)), "a part of an accepted head gave {cut:?}");
    }
    let write = ResponseWrite {
        connection: match choice >> 1 & 3 {
            0 => Connection::Persistent,
            1 => Connection::KeepAlive,
            2 => Connection::Close,
            _ => Connection::Upgrade,
        },
        unchunk: choice & 8 != 0,
        keep_error: choice & 16 != 0,
    };
    let mut written = Vec::new();
    head.write(&write, &mut written);
    assert_clean(&written);
    let mut storage = FieldStorage::new();
    let again = match ResponseHead::parse(&written, &mut storage, to_head) {
        Ok(Some(again)) => again,
        Err(HeadError::TooManyFields) => return,
        other => panic!("what was written is not a response: {other:?}"),
    };
    assert_eq!((again.length, again.status), (written.len(), head.status));
    let body = if write.unchunk && head.body == BodyKind::Chunked { BodyKind::UntilClose } else { head.body };
    assert_eq!(again.body, body);
    assert_eq!(again.keep_alive, write.connection != Connection::Close && body != BodyKind::UntilClose);
    assert!(write.keep_error || again.weft_error().is_none(), "a stranger's weft-error went on");
    let mut twice = Vec::new();
    again.write(&write, &mut twice);
    assert_eq!(twice, written, "writing twice is not writing once");
}

/// A chunked body: what it gives, and where it ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    pub data: Vec<u8>,
    pub trailers: Vec<Vec<u8>>,
    pub used: usize,
}

/// A chunked body gives the same however it is cut into reads, and the same as the plainest decoder of the grammar.
pub fn chunked_body(bytes: &[u8]) {
    let Some((&step, bytes)) = bytes.split_first() else { return };
    let whole = decode(bytes, bytes.len().max(1));
    assert_eq!(decode(bytes, usize::from(step).max(1)), whole, "cuts decide");
    assert_eq!(decode(bytes, 1), whole, "cuts decide");
    let complete = whole.ok().flatten();
    assert_eq!(complete, reference(bytes), "not what the grammar says");
    if let Some(Decoded { trailers, .. }) = complete {
        for trailer in trailers {
            assert!(!trailer.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)), "a trailer breaks its line");
        }
    }
}

/// Decodes `bytes` arriving `step` at a time; `None` when they end before the body does.
///
/// # Errors
/// When the body is malformed.
pub fn decode(bytes: &[u8], step: usize) -> Result<Option<Decoded>, ChunkedError> {
    let mut decoder = ChunkedDecoder::new();
    let (mut data, mut trailers) = (Vec::new(), Vec::new());
    let (mut start, mut end) = (0, 0);
    loop {
        let (used, piece) = decoder.next(&bytes[start..end])?;
        start += used;
        match piece {
            Piece::Data(piece) => data.extend_from_slice(piece),
            Piece::Trailer(line) => trailers.push(line.to_vec()),
            Piece::End => return Ok(Some(Decoded { data, trailers, used: start })),
            Piece::NeedMore if end == bytes.len() => return Ok(None),
            Piece::NeedMore => end = (end + step).min(bytes.len()),
        }
    }
}

/// The grammar of RFC 9112 section 7.1 with our limits, on the whole text at once; `None` when it is no complete body.
pub fn reference(bytes: &[u8]) -> Option<Decoded> {
    let (mut data, mut trailers, mut at) = (Vec::new(), Vec::new(), 0);
    loop {
        let (line, size_end) = line(bytes, at)?;
        let (digits, extension) = line.split_at(line.iter().position(|&b| b == b';').unwrap_or(line.len()));
        if !(1..=15).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_hexdigit) || extension.contains(&0) {
            return None;
        }
        // The semicolon is not of the extension, the carriage return after it is: 4096 of both.
        if extension.len() > 4096 {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        at = size_end;
        if size == 0 {
            break;
        }
        let end = at.checked_add(size)?;
        data.extend_from_slice(bytes.get(at..end)?);
        if bytes.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
    let first = at;
    loop {
        let (line, end) = line(bytes, at)?;
        at = end;
        if end - first > 8192 {
            return None;
        }
        if line.is_empty() {
            return Some(Decoded { data, trailers, used: at });
        }
        let colon = line.iter().position(|&b| b == b':')?;
        let text = std::str::from_utf8(&line[..colon]).ok()?;
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if text.is_empty() || !text.chars().all(is_token) {
            return None;
        }
        if line[colon..].iter().any(|&b| b != b'\t' && (b < b' ' || b == 0x7f)) {
            return None;
        }
        if !is_dropped(&text.to_ascii_lowercase().replace('_', "-")) {
            trailers.push(line.to_vec());
        }
    }
}

/// The line at `at` without its CRLF, and where the next begins; no carriage return stands within.
fn line(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let end = at + bytes.get(at..)?.iter().position(|&b| b == b'\n')?;
    let line = bytes[at..end].strip_suffix(b"\r")?;
    (!line.contains(&b'\r')).then_some((line, end + 1))
}

fn is_dropped(name: &str) -> bool {
    name.starts_with("weft-")
        || name.starts_with("x-forwarded")
        || name.starts_with("forwarded")
        || "age authorization cache-control connection content-encoding content-length content-range content-type \
            cookie expect host keep-alive location max-forwards proxy-authorization proxy-connection range set-cookie \
            te trailer transfer-encoding upgrade"
            .split_whitespace()
            .any(|dropped| dropped == name)
}

#[cfg(test)]
pub(crate) mod tests;
