//! First bytes of a server that speaks before its client, pure.

/// What a server says before its client, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeting {
    /// The settings of HTTP/2, which a server may send at once (RFC 9113 section 3.4).
    Http2,
    /// The answer to a request nobody made.
    Http1,
    Other,
}

/// Most settings a server greets with: the registry has fewer than ten, and some send ones nobody knows.
const MOST_SETTINGS: usize = 20;

/// A server's first bytes, as far as they have come; the frame's head comes in one piece but for the unluckiest.
pub(super) fn greeting(bytes: &[u8]) -> Greeting {
    if bytes.starts_with(b"HTTP/1.") {
        return Greeting::Http1;
    }
    // Length, type SETTINGS, no flags, stream 0; each setting has six bytes.
    match bytes {
        [0, 0, length, 4, 0, 0, 0, 0, 0, ..] if length % 6 == 0 && usize::from(*length) <= 6 * MOST_SETTINGS => {
            Greeting::Http2
        }
        _ => Greeting::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_speaks_http_is_told_from_one_that_greets() {
        let table: &[(&[u8], Greeting)] = &[
            (b"\0\0\0\x04\0\0\0\0\0", Greeting::Http2),
            (b"\0\0\x06\x04\0\0\0\0\0\0\x05\0\0\x40\0", Greeting::Http2),
            (b"\0\0\x05\x04\0\0\0\0\0", Greeting::Other),
            (b"\0\0\x06\x04\x01\0\0\0\0", Greeting::Other),
            (b"\0\0\x06\x04", Greeting::Other),
            (b"HTTP/1.1 408 Request Timeout\r\n", Greeting::Http1),
            (b"220 mail.example ESMTP\r\n", Greeting::Other),
            (b"\x4a\0\0\0\x0a8.0.36\0", Greeting::Other),
        ];
        for (bytes, expected) in table {
            assert_eq!(greeting(bytes), *expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
