//! Two framings in one message: CL.TE, TE.CL, TE.TE, CL.0 (RFC 9112 sections 6.1 and 6.3).

use crate::case::{CANARY, Case};

/// A POST with these framing fields and this body.
fn post(fields: &str, body: &str) -> String {
    format!("POST /attack HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}")
}

pub(crate) fn cases() -> Vec<Case> {
    let both = "who counts bytes and who counts chunks end this message in different places";
    let mut cases = vec![
        Case::refused(
            400,
            "CL.TE",
            both,
            post("Content-Length: 38\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{CANARY}")),
        ),
        Case::refused(
            400,
            "CL.TE with a short length",
            both,
            post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{CANARY}")),
        ),
        Case::refused(
            400,
            "TE.CL",
            both,
            post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", &format!("21\r\n{CANARY}\r\n0\r\n\r\n")),
        ),
        Case::refused(
            400,
            "TE.CL with length zero",
            both,
            post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", &format!("21\r\n{CANARY}\r\n0\r\n\r\n")),
        ),
        Case::refused(
            400,
            "TE and CL that agree",
            "agreement here is no agreement at the next hop",
            post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        ),
        Case::refused(
            400,
            "CL before, TE in another case",
            both,
            post("CONTENT-LENGTH: 38\r\nTRANSFER-ENCODING: CHUNKED\r\n", &format!("0\r\n\r\n{CANARY}")),
        ),
        Case::serves(
            &[("POST", "/attack", "")],
            "CL.0",
            "a server that ignores the length of a request would read the body as the next one",
            post("Content-Length: 0\r\n", ""),
        ),
        Case::serves(
            &[("GET", "/attack", "GET /canary HTTP/1.1\r\nHost: h\r\n\r\n")],
            "GET with a body",
            "a length counts whatever the method: servers that ignore it on GET read the body as a request",
            format!("GET /attack HTTP/1.1\r\nHost: h\r\nContent-Length: 33\r\n\r\n{CANARY}"),
        ),
        Case::serves(
            &[("DELETE", "/attack", "GET /canary HTTP/1.1\r\nHost: h\r\n\r\n")],
            "DELETE with chunks",
            "chunks count whatever the method",
            format!(
                "DELETE /attack HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n21\r\n{CANARY}\r\n0\r\n\r\n"
            ),
        ),
        Case::serves(
            &[("HEAD", "/attack", "GET /canary HTTP/1.1\r\nHost: h\r\n\r\n")],
            "HEAD with a body",
            "a length counts whatever the method",
            format!("HEAD /attack HTTP/1.1\r\nHost: h\r\nContent-Length: 33\r\n\r\n{CANARY}"),
        ),
        Case::serves(
            &[("POST", "/attack", "GET /canary HTTP/1.1\r\nHost: h\r\n\r\n")],
            "a request inside a counted body",
            "the plainest control: a body is a body",
            post("Content-Length: 33\r\n", CANARY),
        ),
        Case::serves(
            &[("POST", "/attack", "GET /canary HTTP/1.1\r\nHost: h\r\n\r\n")],
            "a request inside a chunk",
            "the plainest control: a chunk is a body",
            post("Transfer-Encoding: chunked\r\n", &format!("21\r\n{CANARY}\r\n0\r\n\r\n")),
        ),
        Case::serves(
            &[("POST", "/attack", "GET /canary HTTP/1.1\r\nHost: h\r\n\r\n")],
            "TE in capitals",
            "codings are named without regard to case: whoever compares bytes sees no body",
            post("Transfer-Encoding: CHUNKED\r\n", &format!("21\r\n{CANARY}\r\n0\r\n\r\n")),
        ),
    ];
    let obfuscated = "whoever knows this coding reads chunks, whoever does not reads a request without a body";
    let codings: [(&'static str, &str); 30] = [
        ("TE xchunked", "Transfer-Encoding: xchunked"),
        ("TE chunkedx", "Transfer-Encoding: chunkedx"),
        ("TE quoted", "Transfer-Encoding: \"chunked\""),
        ("TE apostrophes", "Transfer-Encoding: 'chunked'"),
        ("TE identity", "Transfer-Encoding: identity"),
        ("TE empty", "Transfer-Encoding:"),
        ("TE spaces", "Transfer-Encoding:   "),
        ("TE chunked, identity", "Transfer-Encoding: chunked, identity"),
        ("TE identity, chunked", "Transfer-Encoding: identity, chunked"),
        ("TE gzip, chunked", "Transfer-Encoding: gzip, chunked"),
        ("TE chunked, chunked", "Transfer-Encoding: chunked, chunked"),
        ("TE with a list of nothing", "Transfer-Encoding: , chunked"),
        ("TE with a comma behind", "Transfer-Encoding: chunked,"),
        ("TE with a parameter", "Transfer-Encoding: chunked;q=1"),
        ("TE with a vertical tab", "Transfer-Encoding: \x0bchunked"),
        ("TE with a form feed", "Transfer-Encoding: chunked\x0c"),
        ("TE with a NUL", "Transfer-Encoding: chunked\0"),
        ("TE with a non-breaking space", "Transfer-Encoding: \u{a0}chunked"),
        ("TE with a dotted k", "Transfer-Encoding: chun\u{212a}ed"),
        ("TE twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("TE twice, the second unknown", "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow"),
        ("TE twice, the first unknown", "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked"),
        ("TE twice, the second identity", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        ("TE folded", "Transfer-Encoding:\r\n chunked"),
        ("TE folded within", "Transfer-Encoding: identity,\r\n chunked"),
        ("TE with a space before the colon", "Transfer-Encoding : chunked"),
        ("TE with a tab before the colon", "Transfer-Encoding\t: chunked"),
        ("TE indented", "X: y\r\n Transfer-Encoding: chunked"),
        ("TE behind a bare LF", "X: y\nTransfer-Encoding: chunked"),
        ("TE behind a bare CR", "X: y\rTransfer-Encoding: chunked"),
    ];
    for (name, line) in codings {
        // A length beside it would refuse the message for that alone.
        cases.push(Case::refused(
            400,
            name,
            obfuscated,
            post(&format!("{line}\r\n"), &format!("21\r\n{CANARY}\r\n0\r\n\r\n")),
        ));
    }
    let with_length = "a coding that is not understood must not leave the length in charge";
    for (name, line) in [
        ("CL beside TE xchunked", "Transfer-Encoding: xchunked"),
        ("CL beside TE identity", "Transfer-Encoding: identity"),
        ("CL beside TE with a vertical tab", "Transfer-Encoding:\x0bchunked"),
        ("CL beside TE with a space before the colon", "Transfer-Encoding : chunked"),
    ] {
        cases.push(Case::refused(400, name, with_length, post(&format!("Content-Length: 33\r\n{line}\r\n"), CANARY)));
    }
    cases.push(Case::refused(
        400,
        "TE in HTTP/1.0",
        "HTTP/1.0 has no chunks: an old server reads the chunks as the next request",
        format!("POST /attack HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n21\r\n{CANARY}\r\n0\r\n\r\n"),
    ));
    for (name, line) in [
        ("Transfer_Encoding beside CL", "Transfer_Encoding: chunked"),
        ("Transfer-Encoding as another field's value", "X: Transfer-Encoding: chunked"),
        ("Transfer.Encoding beside CL", "Transfer.Encoding: chunked"),
    ] {
        cases.push(Case::serves(
            &[("POST", "/attack", "GET /canary HTTP/1.1\r\nHost: h\r\n\r\n")],
            name,
            "this is no framing field: a server that folds punctuation must not be led to believe so",
            post(&format!("Content-Length: 33\r\n{line}\r\n"), CANARY),
        ));
    }
    cases
}
