//! Chunk sizes, extensions, ends and trailers (RFC 9112 section 7.1).

use crate::case::{CANARY, Case};

fn chunked(body: &str) -> String {
    format!("POST /attack HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

pub(crate) fn cases() -> Vec<Case> {
    let size = "lenient size parsers read different sizes out of this";
    let end = "who looks for a line end and who counts bytes end this chunk in different places";
    let long_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(9000));
    let long_trailer = format!("1\r\na\r\n0\r\nX: {}\r\n\r\n", "t".repeat(9000));
    let mut cases = Vec::new();
    for (name, body) in [
        ("size signed plus", "+1\r\na\r\n0\r\n\r\n"),
        ("size signed minus", "-1\r\na\r\n0\r\n\r\n"),
        ("size with 0x", "0x1\r\na\r\n0\r\n\r\n"),
        ("size with h", "1h\r\na\r\n0\r\n\r\n"),
        ("size empty", "\r\na\r\n0\r\n\r\n"),
        ("size of an extension only", ";a=b\r\na\r\n0\r\n\r\n"),
        ("size with a space before", " 1\r\na\r\n0\r\n\r\n"),
        ("size with a space behind", "1 \r\na\r\n0\r\n\r\n"),
        ("size with a tab behind", "1\t\r\na\r\n0\r\n\r\n"),
        ("size with a space before the extension", "1 ;e\r\na\r\n0\r\n\r\n"),
        ("size with an underscore", "0_1\r\na\r\n0\r\n\r\n"),
        ("size with a NUL", "1\0\r\na\r\n0\r\n\r\n"),
        ("size with a comma", "1,1\r\na\r\n0\r\n\r\n"),
        ("size of sixteen digits", "0000000000000001\r\na\r\n0\r\n\r\n"),
        ("size past 64 bits", "10000000000000001\r\na\r\n0\r\n\r\n"),
        ("size past 32 bits", "FFFFFFFFFFFFFFFF\r\na\r\n0\r\n\r\n"),
        ("last size as many zeros as fit nowhere", "1\r\na\r\n00000000000000000000\r\n\r\n"),
    ] {
        cases.push(Case::breaks(name, size, chunked(body)));
    }
    for (name, body) in [
        ("LF behind the size", "1\na\r\n0\r\n\r\n"),
        ("CR behind the size", "1\ra\r\n0\r\n\r\n"),
        ("CR CR LF behind the size", "1\r\r\na\r\n0\r\n\r\n"),
        ("LF behind the data", "1\r\na\n0\r\n\r\n"),
        ("CR behind the data", "1\r\na\r0\r\n\r\n"),
        ("nothing behind the data", "1\r\na0\r\n\r\n"),
        ("two bytes of anything behind the data", "1\r\naXX0\r\n\r\n"),
        ("an extra CRLF behind the data", "1\r\na\r\n\r\n0\r\n\r\n"),
        ("data longer than its size", "1\r\nabc\r\n0\r\n\r\n"),
        ("data shorter than its size", "5\r\nabc\r\n0\r\n\r\n0\r\n\r\n"),
        ("LF in an extension", "1;a\nGET /canary HTTP/1.1\r\na\r\n0\r\n\r\n"),
        ("CR in an extension", "1;a\rb\r\na\r\n0\r\n\r\n"),
        ("NUL in an extension", "1;a\0\r\na\r\n0\r\n\r\n"),
        ("LF behind the last size", "1\r\na\r\n0\n\r\n"),
        ("LF as the last line", "1\r\na\r\n0\r\n\n"),
        ("CR as the last line", "1\r\na\r\n0\r\n\rX"),
    ] {
        cases.push(Case::breaks(name, end, chunked(body)));
    }
    let trailer = "a trailer is a field like others, and may not end its line otherwise";
    for (name, body) in [
        ("trailer without a colon", "0\r\nGET /canary HTTP/1.1\r\n\r\n"),
        ("trailer with a space in its name", "0\r\nbad name: x\r\n\r\n"),
        ("trailer with a space before the colon", "0\r\nX : x\r\n\r\n"),
        ("trailer without a name", "0\r\n: x\r\n\r\n"),
        ("trailer folded", "0\r\nX: y\r\n z\r\n\r\n"),
        ("trailer with a bare LF", "0\r\nX: y\nZ: z\r\n\r\n"),
        ("trailer with a bare CR", "0\r\nX: y\rZ: z\r\n\r\n"),
        ("trailer with a NUL", "0\r\nX: \0\r\n\r\n"),
    ] {
        cases.push(Case::breaks(name, trailer, chunked(body)));
    }
    cases.push(Case::breaks(
        "extension of 9000 bytes",
        "an extension without end is a body nobody counts",
        chunked(&long_extension),
    ));
    cases.push(Case::breaks(
        "trailer of 9000 bytes",
        "trailers without end are heads nobody limits",
        chunked(&long_trailer),
    ));
    let only = "framed anew, so that nobody behind reads it otherwise";
    cases.extend([
        Case::serves(
            &[("POST", "/attack", "abc")],
            "sizes in both cases and with zeros",
            only,
            chunked("00001\r\na\r\n0000000002\r\nbc\r\n000\r\n\r\n"),
        ),
        Case::serves(
            &[("POST", "/attack", "0123456789abcdef")],
            "sizes with letters",
            only,
            chunked("A\r\n0123456789\r\n6\r\nabcdef\r\n0\r\n\r\n"),
        ),
        Case::serves(
            &[("POST", "/attack", "a")],
            "extensions",
            "extensions end here: parsers differ on quotes and semicolons",
            chunked("1;a=b;c=\"d;e\"\r\na\r\n0;last\r\n\r\n"),
        )
        .never(&["a=b", "last"]),
        Case::serves(
            &[("POST", "/attack", "a")],
            "an extension that looks like a size",
            "the size is what stands before the semicolon",
            chunked("1;2d\r\na\r\n0\r\n\r\n"),
        )
        .never(&["1;"]),
        Case::serves(
            &[("POST", "/attack", "a")],
            "a trailer",
            "an honest trailer goes on",
            chunked("1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"),
        ),
        Case::serves(
            &[("POST", "/attack", "a")],
            "trailers that would frame",
            "a framing field in a trailer must not frame anything behind us",
            chunked("1\r\na\r\n0\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\nHost: evil\r\n\r\n"),
        )
        .never(&["Content-Length", "evil"]),
        Case::serves(
            &[("POST", "/attack", "a")],
            "a trailer that claims an identity",
            "identity is what the proxy says, wherever it stands",
            chunked("1\r\na\r\n0\r\nX-Forwarded-Client-Cert: forged\r\nx_forwarded_client_cert: forged\r\n\r\n"),
        )
        .never(&["forged"]),
        Case::serves(
            &[("POST", "/attack", ""), ("GET", "/canary", "")],
            "a request right behind the last chunk",
            "what follows the last chunk is the next request, whole",
            chunked(&format!("0\r\n\r\n{CANARY}")),
        ),
    ]);
    cases
}
