//! Targets, hosts, versions and methods that are read in more than one way (RFC 9112 sections 2.3 and 3.2).

use crate::case::{CANARY, Case};

pub(crate) fn cases() -> Vec<Case> {
    let host = "who routes by the first and who by the last see two hosts";
    let mut cases = Vec::new();
    for (name, bytes) in [
        ("no Host", "GET /attack HTTP/1.1\r\n\r\n"),
        ("Host twice, equal", "GET /attack HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"),
        ("Host twice, different", "GET /attack HTTP/1.1\r\nHost: h\r\nHost: evil\r\n\r\n"),
        ("Host twice, cases differ", "GET /attack HTTP/1.1\r\nHost: h\r\nhost: evil\r\n\r\n"),
        ("Host as a list", "GET /attack HTTP/1.1\r\nHost: h, evil\r\n\r\n"),
        ("Host with a space", "GET /attack HTTP/1.1\r\nHost: h evil\r\n\r\n"),
        ("Host with a path", "GET /attack HTTP/1.1\r\nHost: h/evil\r\n\r\n"),
        ("Host with a user", "GET /attack HTTP/1.1\r\nHost: h@evil\r\n\r\n"),
        ("Host with a query", "GET /attack HTTP/1.1\r\nHost: h?evil\r\n\r\n"),
        ("Host with a fragment", "GET /attack HTTP/1.1\r\nHost: h#evil\r\n\r\n"),
        ("Host with a backslash", "GET /attack HTTP/1.1\r\nHost: h\\evil\r\n\r\n"),
        ("an absolute target and Host twice", "GET http://h/attack HTTP/1.1\r\nHost: h\r\nHost: evil\r\n\r\n"),
        ("an absolute target without Host", "GET http://h/attack HTTP/1.1\r\n\r\n"),
    ] {
        cases.push(Case::refused(400, name, host, bytes));
    }
    let target = "servers disagree on what this names";
    for (name, bytes) in [
        ("a target without a slash", "GET attack HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a target with a backslash first", "GET \\attack HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a target with a fragment", "GET /attack#x HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a target of a query alone", "GET ?attack HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("an absolute target without authority", "GET http:///attack HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("an absolute target with a user", "GET http://evil@h/attack HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("an absolute target of another scheme", "GET file://h/attack HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("an absolute target of one slash", "GET http:/h/attack HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("an authority as the target of GET", "GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("an asterisk with GET", "GET * HTTP/1.1\r\nHost: h\r\n\r\n"),
    ] {
        cases.push(Case::refused(400, name, target, bytes));
    }
    let version = "an unknown version has unknown framing";
    for (name, bytes) in [
        ("HTTP/0.9", "GET /attack\r\n\r\n"),
        ("HTTP/0.9 with a request behind", "GET /attack\r\nGET /canary HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("version 0.9", "GET /attack HTTP/0.9\r\nHost: h\r\n\r\n"),
        ("version 1.2", "GET /attack HTTP/1.2\r\nHost: h\r\n\r\n"),
        ("version 2.0", "GET /attack HTTP/2.0\r\nHost: h\r\n\r\n"),
        ("version 1", "GET /attack HTTP/1\r\nHost: h\r\n\r\n"),
        ("version 1.10", "GET /attack HTTP/1.10\r\nHost: h\r\n\r\n"),
        ("version 01.1", "GET /attack HTTP/01.1\r\nHost: h\r\n\r\n"),
        ("version 1,1", "GET /attack HTTP/1,1\r\nHost: h\r\n\r\n"),
        ("version in small letters", "GET /attack http/1.1\r\nHost: h\r\n\r\n"),
        ("another protocol", "GET /attack ICAP/1.0\r\nHost: h\r\n\r\n"),
        ("HTTP/2's preface in the wrong place", "PRI * HTTP/2.0\r\nHost: h\r\n\r\nSM\r\n\r\n"),
    ] {
        cases.push(Case::refused(400, name, version, bytes));
    }
    cases.extend([
        Case::refused(
            405,
            "CONNECT",
            "a tunnel nobody allowed",
            "CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\nGET /canary HTTP/1.1\r\nHost: h\r\n\r\n",
        ),
        Case::refused(
            414,
            "a target of 9000 bytes",
            "limits name themselves",
            format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(9000)),
        ),
        Case::refused(
            431,
            "300 fields",
            "limits name themselves",
            format!("GET /attack HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(300)),
        ),
        Case::refused(
            431,
            "a field of 70,000 bytes",
            "limits name themselves",
            format!("GET /attack HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "y".repeat(70_000)),
        ),
        Case::refused(
            400,
            "a method of 100 letters",
            "no method is so long",
            format!("{} /attack HTTP/1.1\r\nHost: h\r\n\r\n", "M".repeat(100)),
        ),
        Case::serves(
            &[("GET", "/attack", "")],
            "an absolute target against Host",
            "the target decides (RFC 9112 section 3.2.2): a server that believes Host would serve another site",
            "GET http://h/attack HTTP/1.1\r\nHost: evil\r\n\r\n",
        )
        .never(&["evil", "http://"]),
        Case::serves(
            &[("GET", "/attack", "")],
            "an absolute https target",
            "the scheme is not what came: only path and authority go on",
            "GET https://h/attack HTTP/1.1\r\nHost: h\r\n\r\n",
        )
        .never(&["https://"]),
        Case::serves(
            &[("GET", "/attack", "")],
            "Host with a port",
            "a port is part of an authority",
            "GET /attack HTTP/1.1\r\nHost: h:80\r\n\r\n",
        ),
        Case::closes(
            &[("GET", "/attack", "")],
            "HTTP/1.0",
            "one request, then the end: what follows is nobody's",
            "GET /attack HTTP/1.0\r\nHost: h\r\n\r\n",
        ),
        Case::closes(
            &[("GET", "/attack", "")],
            "HTTP/1.0 without Host",
            "it goes on as HTTP/1.1 and so with one",
            "GET /attack HTTP/1.0\r\n\r\n",
        ),
        Case::serves(
            &[("GET", "/attack", "")],
            "HTTP/1.0 kept alive",
            "the connection is kept because it was asked for",
            "GET /attack HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
        ),
        Case::closes(
            &[("POST", "/attack", "ab")],
            "HTTP/1.0 with a body and a request behind",
            "a counted body in HTTP/1.0 ends where its length says",
            format!("POST /attack HTTP/1.0\r\nHost: h\r\nContent-Length: 2\r\n\r\nab{CANARY}"),
        ),
        Case::serves(
            &[("GET", "/attack?a=/../b&c=%0d%0aX", "")],
            "escapes in a target",
            "escapes are not opened: %0d%0a stays text",
            "GET /attack?a=/../b&c=%0d%0aX HTTP/1.1\r\nHost: h\r\n\r\n",
        ),
        Case::closes(
            &[("GET", "/attack", "")],
            "Connection: close",
            "what comes behind the last request is dropped",
            format!("GET /attack HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n{CANARY}"),
        ),
    ]);
    cases
}
