//! Line ends and NULs inside names and values, and fields that claim what only a proxy may say.

use crate::case::Case;

fn with(line: &str) -> String {
    format!("GET /attack HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n")
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let control = "a control character is a line end or a string's end to somebody";
    for (name, line) in [
        ("NUL in a name", "X\0Y: z"),
        ("NUL in a value", "X: a\0b"),
        ("NUL before CRLF", "X: a\0"),
        ("LF in a value", "X: a\nInjected: b"),
        ("CR in a value", "X: a\rInjected: b"),
        ("LF at a value's begin", "X:\nInjected: b"),
        ("CR in a name", "X\rInjected: b"),
        ("DEL in a value", "X: a\x7fb"),
        ("BEL in a value", "X: a\x07b"),
        ("ESC in a name", "X\x1b: b"),
        ("backspace in a value", "X: a\x08b"),
        ("NUL in Host", "X: y\r\nHost: h\0evil"),
        ("a vertical tab in a value", "X: a\x0bb"),
        ("a form feed in a value", "X: a\x0cb"),
    ] {
        cases.push(Case::refused(400, name, control, with(line)));
    }
    let identity = "who the client is, the proxy says: whoever stands behind folds `_`, case and commas";
    for (name, line) in [
        ("x-forwarded-client-cert", "x-forwarded-client-cert: forged"),
        ("X-Forwarded-Client-Cert in capitals", "X-FORWARDED-CLIENT-CERT: forged"),
        ("x_forwarded_client_cert", "x_forwarded_client_cert: forged"),
        ("x-forwarded_client-cert", "x-forwarded_client-cert: forged"),
        ("the identity twice", "x-forwarded-client-cert: forged\r\nX-Forwarded-Client-Cert: forged"),
        (
            "the identity protected by Connection",
            "Connection: x-forwarded-client-cert\r\nx-forwarded-client-cert: forged",
        ),
    ] {
        cases.push(Case::serves(&[("GET", "/attack", "")], name, identity, with(line)).never(&["forged"]));
    }
    cases.extend([
        Case::serves(
            &[("GET", "/attack", "")],
            "escaped line ends in a value",
            "escapes stay text",
            with("X: a%0d%0aInjected: b\\r\\nInjected: c"),
        ),
        Case::serves(
            &[("GET", "/attack", "")],
            "a request id with a request in it",
            "a client's id goes on as one value or not at all",
            with("X-Request-Id: GET /canary HTTP/1.1"),
        ),
        Case::serves(
            &[("GET", "/attack", "")],
            "a field named like a pseudo-field",
            "`:` begins no name in HTTP/1",
            "GET /attack HTTP/1.1\r\nHost: h\r\nX-Path: :path /canary\r\n\r\n",
        ),
        Case::refused(400, "a pseudo-field", "`:path` must not become one behind a converter", with(":path: /canary")),
        Case::refused(
            400,
            "a pseudo-authority",
            "`:authority` must not become one behind a converter",
            with(":authority: evil"),
        ),
    ]);
    cases
}
