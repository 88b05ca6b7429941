//! How lines end, and what stands between them (RFC 9112 sections 2.2, 3 and 5).

use crate::case::{CANARY, Case};

pub(crate) fn cases() -> Vec<Case> {
    let line_end = "who takes this for a line end sees other fields, or a request more";
    let mut cases = Vec::new();
    for (name, bytes) in [
        ("LF everywhere", "GET /attack HTTP/1.1\nHost: h\n\n"),
        ("LF behind the request line", "GET /attack HTTP/1.1\nHost: h\r\n\r\n"),
        ("LF behind a field", "GET /attack HTTP/1.1\r\nHost: h\nX: y\r\n\r\n"),
        ("LF as the empty line", "GET /attack HTTP/1.1\r\nHost: h\r\n\n"),
        ("LF LF within a head", "GET /attack HTTP/1.1\r\nHost: h\r\nX: y\n\nGET /canary HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("CR everywhere", "GET /attack HTTP/1.1\rHost: h\r\r\n\r\n"),
        ("CR within a value", "GET /attack HTTP/1.1\r\nHost: h\r\nX: y\rZ: z\r\n\r\n"),
        ("CR CR LF behind a field", "GET /attack HTTP/1.1\r\nHost: h\r\nX: y\r\r\n\r\n"),
        ("LF CR behind a field", "GET /attack HTTP/1.1\r\nHost: h\r\nX: y\n\r\r\n\r\n"),
        ("CR at the end of a name", "GET /attack HTTP/1.1\r\nHost: h\r\nX\r: y\r\n\r\n"),
        ("CR within the target", "GET /attack\rX HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("LF within the target", "GET /attack\nX HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a vertical tab between fields", "GET /attack HTTP/1.1\r\nHost: h\r\n\x0bX: y\r\n\r\n"),
        ("a NUL between fields", "GET /attack HTTP/1.1\r\nHost: h\r\n\0X: y\r\n\r\n"),
    ] {
        cases.push(Case::refused(400, name, line_end, bytes));
    }
    let folding = "who unfolds sees one field, who does not sees two";
    for (name, bytes) in [
        ("folded with a space", "GET /attack HTTP/1.1\r\nHost: h\r\nX: y\r\n z\r\n\r\n"),
        ("folded with a tab", "GET /attack HTTP/1.1\r\nHost: h\r\nX: y\r\n\tz\r\n\r\n"),
        ("folded over an empty line", "GET /attack HTTP/1.1\r\nHost: h\r\nX: y\r\n \r\n\r\n"),
        ("a folded first line", "GET /attack HTTP/1.1\r\n Host: h\r\nHost: h\r\n\r\n"),
        ("a folded length", "POST /attack HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n Content-Length: 33\r\n\r\n"),
        ("a folded Host", "GET /attack HTTP/1.1\r\nHost: h\r\n .evil\r\n\r\n"),
    ] {
        cases.push(Case::refused(400, name, folding, bytes));
    }
    let request_line = "who splits on any white space finds another target or version here";
    for (name, bytes) in [
        ("two spaces behind the method", "GET  /attack HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("two spaces behind the target", "GET /attack  HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a tab behind the method", "GET\t/attack HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a tab behind the target", "GET /attack\tHTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a space within the target", "GET /attack /x HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a vertical tab behind the target", "GET /attack\x0bHTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a space behind the version", "GET /attack HTTP/1.1 \r\nHost: h\r\n\r\n"),
        ("a space before the method", " GET /attack HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a colon in the method", "GET: /attack HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a slash in the method", "G/T /attack HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a NUL in the target", "GET /attack\0 HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("no target", "GET HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("no method", "/attack HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a field where the request line should be", "Host: h\r\nGET /attack HTTP/1.1\r\n\r\n"),
    ] {
        cases.push(Case::refused(400, name, request_line, bytes));
    }
    let name_end = "who trims the name sees a field others do not";
    for (name, bytes) in [
        ("a space before the colon", "GET /attack HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n"),
        ("a tab before the colon", "GET /attack HTTP/1.1\r\nHost: h\r\nX\t: y\r\n\r\n"),
        ("a space within a name", "GET /attack HTTP/1.1\r\nHost: h\r\nX Y: y\r\n\r\n"),
        ("an empty name", "GET /attack HTTP/1.1\r\nHost: h\r\n: y\r\n\r\n"),
        ("a line without a colon", "GET /attack HTTP/1.1\r\nHost: h\r\nX\r\n\r\n"),
        ("Host with a space before the colon", "GET /attack HTTP/1.1\r\nHost : h\r\n\r\n"),
        ("quotes in a name", "GET /attack HTTP/1.1\r\nHost: h\r\n\"X\": y\r\n\r\n"),
        ("letters past ASCII in a name", "GET /attack HTTP/1.1\r\nHost: h\r\n\u{fc}: y\r\n\r\n"),
    ] {
        cases.push(Case::refused(400, name, name_end, bytes));
    }
    cases.extend([
        Case::serves(
            &[("GET", "/attack", "")],
            "empty lines before",
            "RFC 9112 lets a server skip them; they must not go on",
            "\r\n\r\nGET /attack HTTP/1.1\r\nHost: h\r\n\r\n",
        ),
        Case::serves(
            &[("POST", "/attack", "ab"), ("GET", "/canary", "")],
            "empty line behind a body",
            "old browsers sent one; it belongs to nobody",
            format!("POST /attack HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab\r\n{CANARY}"),
        ),
        Case::serves(
            &[("GET", "/attack", "")],
            "bytes past ASCII in a value",
            "they are opaque, not line ends in any encoding",
            b"GET /attack HTTP/1.1\r\nHost: h\r\nX: \xc4\x8a\xe5\x98\x8a\xe5\x98\x8d\x85\r\n\r\n".to_vec(),
        ),
        Case::serves(
            &[("GET", "/attack", "")],
            "an empty value",
            "an empty value is a value",
            "GET /attack HTTP/1.1\r\nHost: h\r\nX:\r\n\r\n",
        ),
        Case::serves(
            &[("GET", "/attack", "")],
            "a tab in a value",
            "allowed within, trimmed around",
            "GET /attack HTTP/1.1\r\nHost: h\r\nX:\ty\tz\t\r\n\r\n",
        ),
    ]);
    cases
}
