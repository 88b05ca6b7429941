//! First bytes of a client to a verdict, pure.

use crate::http2;

/// What a client's first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniffed {
    /// An HTTP/1.x request line, or the preface of HTTP/2.
    Http,
    Other,
    NeedMore,
}

/// Longest method worth waiting for; the registry's longest has 17 letters.
pub(super) const LONGEST_METHOD: usize = 20;
/// Longest request line worth waiting for.
pub(super) const LONGEST_LINE: usize = crate::http1::MAX_TARGET_BYTES + LONGEST_METHOD + 16;

/// `METHOD SP TARGET SP HTTP/1.x`, looked at as far as it has come. Redis' inline `GET key` is not one.
pub fn sniff(bytes: &[u8]) -> Sniffed {
    // As many bytes as have come; the shortest that nobody else would say is the whole.
    if let Some(is_whole) = http2::is_preface(bytes) {
        return if is_whole { Sniffed::Http } else { Sniffed::NeedMore };
    }
    let is_method = |b: &u8| b.is_ascii_uppercase() || *b == b'-';
    let method = bytes.iter().take(LONGEST_METHOD + 1).take_while(|b| is_method(b)).count();
    match bytes.get(method) {
        None if method <= LONGEST_METHOD => return Sniffed::NeedMore,
        Some(b' ') if (1..=LONGEST_METHOD).contains(&method) => {}
        _ => return Sniffed::Other,
    }
    match memchr::memchr(b'\n', bytes) {
        // However the line is cut into reads, its length decides the same.
        Some(end) if end >= LONGEST_LINE => Sniffed::Other,
        Some(end) => {
            let line = bytes[..end].trim_ascii_end();
            let version = line.rsplit(|&b| b == b' ').next().unwrap_or_default();
            if version.starts_with(b"HTTP/1.") { Sniffed::Http } else { Sniffed::Other }
        }
        None if bytes.len() >= LONGEST_LINE => Sniffed::Other,
        None => Sniffed::NeedMore,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_decide() {
        let table: &[(&[u8], Sniffed)] = &[
            (b"", Sniffed::NeedMore),
            (b"GE", Sniffed::NeedMore),
            (b"GET ", Sniffed::NeedMore),
            (b"GET / HTTP/1.1", Sniffed::NeedMore),
            (b"GET / HTTP/1.1\r\n", Sniffed::Http),
            (b"M-SEARCH * HTTP/1.0\r\n", Sniffed::Http),
            (b"GET key\r\n", Sniffed::Other),
            (b"PING\r\n", Sniffed::Other),
            (b"PRI * HTTP/2.0\r\n", Sniffed::NeedMore),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Sniffed::Http),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0", Sniffed::Http),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\0", Sniffed::Other),
            (b"PRI * HTTP/2.1\r\n", Sniffed::Other),
            (b"\x16\x03\x01", Sniffed::Other),
            (b" GET / HTTP/1.1\r\n", Sniffed::Other),
            (b"*1\r\n$4\r\nPING\r\n", Sniffed::Other),
            (b"AAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n", Sniffed::Http),
            (b"AAAAAAAAAAAAAAAAAAAAA", Sniffed::Other),
            (b"AAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n", Sniffed::Other),
            (b"\0\0\0", Sniffed::Other),
        ];
        for (bytes, expected) in table {
            assert_eq!(sniff(bytes), *expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
