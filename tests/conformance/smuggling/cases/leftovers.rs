//! Requests behind requests on one connection: each is read by itself, answered in order, and refused by itself.

use crate::case::{CANARY, Case};

pub(crate) fn cases() -> Vec<Case> {
    let boundary = "the end of one body is the begin of the next request, to the byte";
    vec![
        Case::serves(
            &[("POST", "/attack", "abc"), ("GET", "/canary", "")],
            "a request behind a counted body",
            boundary,
            format!("POST /attack HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc{CANARY}"),
        ),
        Case::serves(
            &[("POST", "/attack", "abc"), ("GET", "/canary", "")],
            "a request behind chunks",
            boundary,
            format!(
                "POST /attack HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{CANARY}"
            ),
        ),
        Case::serves(
            &[("GET", "/attack", ""), ("HEAD", "/attack", ""), ("GET", "/canary", "")],
            "HEAD among pipelined requests",
            "the answer to HEAD has a length and no body: who forgets takes the next answer for it",
            format!("GET /attack HTTP/1.1\r\nHost: h\r\n\r\nHEAD /attack HTTP/1.1\r\nHost: h\r\n\r\n{CANARY}"),
        ),
        Case::serves_then_refuses(
            &[("POST", "/attack", "abc")],
            400,
            "a byte too many behind a body",
            "the byte is the begin of a broken request, not of nothing",
            format!("POST /attack HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc\0{CANARY}"),
        ),
        Case::serves_then_refuses(
            &[("GET", "/attack", "")],
            400,
            "an ambiguous request behind an honest one",
            "a good beginning makes nothing good",
            format!(
                "GET /attack HTTP/1.1\r\nHost: h\r\n\r\nPOST /canary HTTP/1.1\r\nHost: h\r\nContent-Length: 33\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{CANARY}"
            ),
        ),
        Case::serves_then_refuses(
            &[("POST", "/attack", "")],
            400,
            "a body behind length zero",
            "what the length does not count is a request line without a version",
            "POST /attack HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\nbody=1\r\n\r\n",
        ),
        Case::serves_then_refuses(
            &[("POST", "/attack", "")],
            400,
            "a body without framing",
            "a request without framing has no body",
            "POST /attack HTTP/1.1\r\nHost: h\r\n\r\nbody=1\r\n\r\n",
        ),
        Case::serves(
            &[("POST", "/attack", ""), ("GET", "/canary", "")],
            "a request behind a POST without framing",
            "a request without framing has no body, whatever its method",
            format!("POST /attack HTTP/1.1\r\nHost: h\r\n\r\n{CANARY}"),
        ),
        Case::serves(
            &[("GET", "/attack", ""); 20],
            "twenty at once",
            "pipelined requests are answered in order, one answer each",
            "GET /attack HTTP/1.1\r\nHost: h\r\n\r\n".repeat(20),
        ),
    ]
}
