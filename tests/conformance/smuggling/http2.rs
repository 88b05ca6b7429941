//! HTTP/2 that would be something else in HTTP/1: forbidden fields, line ends inside names and values, lengths that lie
//! (RFC 9113 sections 8.2 and 8.3; `h2.CL`, `h2.TE`, request splitting by downgrade).
//!
//! Each is refused on its stream or with its connection, and the server, which writes down all it gets, never hears of it.

use weft_tests::process::crossing::{Behind, Crossing, Way};
use weft_tests::process::http2::{DATA, END_HEADERS, END_STREAM, End, HEADERS, Raw, block, frame};
use weft_tests::process::nghttpd::Nghttpd;

/// A field.
pub(crate) type Pair = (&'static str, &'static str);

/// A name, fields in order, a body, and why it is dangerous.
type Request = (&'static str, &'static [Pair], &'static str, &'static str);

pub(crate) const METHOD: Pair = (":method", "POST");
pub(crate) const SCHEME: Pair = (":scheme", "http");
pub(crate) const PATH: Pair = (":path", "/attack");
pub(crate) const HOST: Pair = (":authority", "h");
const FRAMING: &str = "in HTTP/1 it frames the body: what follows it is a request more";
const SPLIT: &str = "written into HTTP/1 as it is, it ends its line, and begins another";
const PSEUDO: &str = "two readings of what is asked for";

pub(crate) const REFUSED: &[Request] = &[
    (
        "transfer-encoding",
        &[METHOD, SCHEME, PATH, HOST, ("transfer-encoding", "chunked")],
        "0\r\n\r\nGET /canary HTTP/1.1\r\n\r\n",
        FRAMING,
    ),
    ("transfer-encoding: identity", &[METHOD, SCHEME, PATH, HOST, ("transfer-encoding", "identity")], "x", FRAMING),
    (
        "content-length too short",
        &[METHOD, SCHEME, PATH, HOST, ("content-length", "0")],
        "GET /canary HTTP/1.1\r\n\r\n",
        FRAMING,
    ),
    ("content-length too long", &[METHOD, SCHEME, PATH, HOST, ("content-length", "99")], "x", FRAMING),
    (
        "content-length twice",
        &[METHOD, SCHEME, PATH, HOST, ("content-length", "1"), ("content-length", "2")],
        "x",
        FRAMING,
    ),
    ("content-length signed", &[METHOD, SCHEME, PATH, HOST, ("content-length", "+1")], "x", FRAMING),
    ("content-length as a list", &[METHOD, SCHEME, PATH, HOST, ("content-length", "1, 1")], "x", FRAMING),
    (
        "content-length twice the same",
        &[METHOD, SCHEME, PATH, HOST, ("content-length", "1"), ("content-length", "1")],
        "x",
        FRAMING,
    ),
    (
        "content-length beyond 64 bits",
        &[METHOD, SCHEME, PATH, HOST, ("content-length", "18446744073709551617")],
        "x",
        FRAMING,
    ),
    ("content-length in hexadecimal", &[METHOD, SCHEME, PATH, HOST, ("content-length", "0x1")], "x", FRAMING),
    ("content-length empty", &[METHOD, SCHEME, PATH, HOST, ("content-length", "")], "x", FRAMING),
    ("content-length without a body", &[METHOD, SCHEME, PATH, HOST, ("content-length", "5")], "", FRAMING),
    (
        "connection",
        &[METHOD, SCHEME, PATH, HOST, ("connection", "close")],
        "",
        "HTTP/2 has no such field: in HTTP/1 it takes others away",
    ),
    ("keep-alive", &[METHOD, SCHEME, PATH, HOST, ("keep-alive", "timeout=5")], "", "HTTP/2 has no such field"),
    ("proxy-connection", &[METHOD, SCHEME, PATH, HOST, ("proxy-connection", "close")], "", "HTTP/2 has no such field"),
    (
        "upgrade",
        &[METHOD, SCHEME, PATH, HOST, ("upgrade", "websocket")],
        "",
        "HTTP/2 has no such field: in HTTP/1 it opens a tunnel",
    ),
    ("te: chunked", &[METHOD, SCHEME, PATH, HOST, ("te", "trailers, chunked")], "", "only `trailers` is allowed"),
    (
        "a capital in a name",
        &[METHOD, SCHEME, PATH, HOST, ("Transfer-Encoding", "chunked")],
        "x",
        "names are small letters: a comparison in capitals is missed",
    ),
    ("CRLF in a value", &[METHOD, SCHEME, PATH, HOST, ("x", "y\r\ntransfer-encoding: chunked")], "x", SPLIT),
    ("LF in a value", &[METHOD, SCHEME, PATH, HOST, ("x", "y\ntransfer-encoding: chunked")], "x", SPLIT),
    ("CR in a value", &[METHOD, SCHEME, PATH, HOST, ("x", "y\rz")], "", SPLIT),
    ("NUL in a value", &[METHOD, SCHEME, PATH, HOST, ("x", "y\0z")], "", SPLIT),
    (
        "a whole request in a value",
        &[METHOD, SCHEME, PATH, HOST, ("x", "y\r\n\r\nGET /canary HTTP/1.1\r\nhost: h")],
        "",
        SPLIT,
    ),
    ("CRLF in a name", &[METHOD, SCHEME, PATH, HOST, ("x: y\r\ntransfer-encoding", "chunked")], "x", SPLIT),
    ("a colon in a name", &[METHOD, SCHEME, PATH, HOST, ("x:", "y")], "", SPLIT),
    ("a space in a name", &[METHOD, SCHEME, PATH, HOST, ("x y", "z")], "", SPLIT),
    ("a tab in a name", &[METHOD, SCHEME, PATH, HOST, ("x\ty", "z")], "", SPLIT),
    ("NUL in a name", &[METHOD, SCHEME, PATH, HOST, ("x\0y", "z")], "", SPLIT),
    ("a name beyond ASCII", &[METHOD, SCHEME, PATH, HOST, ("x\u{10d}", "z")], "", SPLIT),
    ("an empty name", &[METHOD, SCHEME, PATH, HOST, ("", "y")], "", SPLIT),
    (
        "a space before a value",
        &[METHOD, SCHEME, PATH, HOST, ("x", " y")],
        "",
        "white space around a value is lost in HTTP/1",
    ),
    (
        "a tab behind a value",
        &[METHOD, SCHEME, PATH, HOST, ("x", "y\t")],
        "",
        "white space around a value is lost in HTTP/1",
    ),
    ("DEL in a value", &[METHOD, SCHEME, PATH, HOST, ("x", "y\u{7f}z")], "", SPLIT),
    ("CRLF in a cookie", &[METHOD, SCHEME, PATH, HOST, ("cookie", "a=b\r\nx: y")], "", SPLIT),
    ("an empty method", &[(":method", ""), SCHEME, PATH, HOST], "", SPLIT),
    ("CRLF in the method", &[(":method", "GET /canary HTTP/1.1\r\nhost: h\r\n\r\nGET"), SCHEME, PATH, HOST], "", SPLIT),
    ("a space in the method", &[(":method", "GET /canary"), SCHEME, PATH, HOST], "", SPLIT),
    ("CRLF in the path", &[METHOD, SCHEME, (":path", "/attack HTTP/1.1\r\nx: y"), HOST], "", SPLIT),
    ("a space in the path", &[METHOD, SCHEME, (":path", "/attack HTTP/1.1 /"), HOST], "", SPLIT),
    ("a path without a slash", &[METHOD, SCHEME, (":path", "attack"), HOST], "", PSEUDO),
    ("a whole URL for a path", &[METHOD, SCHEME, (":path", "http://evil/attack"), HOST], "", PSEUDO),
    ("an asterisk for POST", &[METHOD, SCHEME, (":path", "*"), HOST], "", PSEUDO),
    ("NUL in the path", &[METHOD, SCHEME, (":path", "/attack\0"), HOST], "", SPLIT),
    ("a tab in the path", &[METHOD, SCHEME, (":path", "/attack\tHTTP/1.1"), HOST], "", SPLIT),
    ("an empty path", &[METHOD, SCHEME, (":path", ""), HOST], "", PSEUDO),
    ("a fragment in the path", &[METHOD, SCHEME, (":path", "/attack#x"), HOST], "", PSEUDO),
    ("CRLF in the authority", &[METHOD, SCHEME, PATH, (":authority", "h\r\nx: y")], "", SPLIT),
    ("a space in the authority", &[METHOD, SCHEME, PATH, (":authority", "h evil")], "", SPLIT),
    ("an empty authority", &[METHOD, SCHEME, PATH, (":authority", "")], "", PSEUDO),
    ("no authority and no host", &[METHOD, SCHEME, PATH], "", PSEUDO),
    ("CRLF in the host", &[METHOD, SCHEME, PATH, ("host", "h\r\nx: y")], "", SPLIT),
    ("two authorities in one", &[METHOD, SCHEME, PATH, (":authority", "h,evil")], "", PSEUDO),
    ("a user in the authority", &[METHOD, SCHEME, PATH, (":authority", "u@h")], "", PSEUDO),
    ("a path in the authority", &[METHOD, SCHEME, PATH, (":authority", "h/canary")], "", PSEUDO),
    ("a scheme with a URL in it", &[METHOD, (":scheme", "http://evil/x?"), PATH, HOST], "", PSEUDO),
    ("CRLF in the scheme", &[METHOD, (":scheme", "http\r\nx: y"), PATH, HOST], "", SPLIT),
    ("no method", &[SCHEME, PATH, HOST], "", PSEUDO),
    ("no path", &[METHOD, SCHEME, HOST], "", PSEUDO),
    ("no scheme", &[METHOD, PATH, HOST], "", PSEUDO),
    ("the method twice", &[METHOD, METHOD, SCHEME, PATH, HOST], "", PSEUDO),
    ("the path twice", &[METHOD, SCHEME, PATH, (":path", "/canary"), HOST], "", PSEUDO),
    ("the authority twice", &[METHOD, SCHEME, PATH, HOST, (":authority", "evil")], "", PSEUDO),
    ("a pseudo-field behind others", &[METHOD, SCHEME, HOST, ("x", "y"), PATH], "", PSEUDO),
    ("an unknown pseudo-field", &[METHOD, SCHEME, PATH, HOST, (":evil", "y")], "", PSEUDO),
    ("a pseudo-field of answers", &[METHOD, SCHEME, PATH, HOST, (":status", "200")], "", PSEUDO),
    (
        "another host",
        &[METHOD, SCHEME, PATH, HOST, ("host", "evil")],
        "",
        "who routes by one and who by the other see two hosts",
    ),
    (
        "host twice",
        &[METHOD, SCHEME, PATH, ("host", "h"), ("host", "evil")],
        "",
        "who routes by the first and who by the last see two hosts",
    ),
    ("CONNECT", &[(":method", "CONNECT"), HOST], "", "a tunnel nobody allowed"),
    (
        "extended CONNECT that has ended",
        &[(":method", "CONNECT"), (":protocol", "websocket"), SCHEME, PATH, HOST],
        "",
        "a tunnel that is none: what is left is an upgrade nobody waits for",
    ),
    (
        "extended CONNECT with a length",
        &[(":method", "CONNECT"), (":protocol", "websocket"), SCHEME, PATH, HOST, ("content-length", "1")],
        "x",
        "a tunnel has no length: in HTTP/1 it would be a body before the upgrade",
    ),
    (
        "extended CONNECT of another protocol",
        &[(":method", "CONNECT"), (":protocol", "connect-udp"), SCHEME, PATH, HOST],
        "",
        "a tunnel nobody offered",
    ),
    (
        ":protocol without CONNECT",
        &[METHOD, (":protocol", "websocket"), SCHEME, PATH, HOST],
        "",
        "an upgrade for one and a plain request for the other",
    ),
];

/// Whether nothing of a request was served.
pub(crate) fn is_refused(end: &std::io::Result<End>) -> bool {
    matches!(end, Ok(End::Reset(_) | End::GoAway(_) | End::Closed | End::Answered(400..=499)))
}

pub(crate) fn send(raw: &mut Raw, stream: u32, fields: &[(&str, &str)], body: &str) -> std::io::Result<End> {
    let ends = if body.is_empty() { END_STREAM } else { 0 };
    let mut bytes = frame(HEADERS, END_HEADERS | ends, stream, &block(fields));
    if !body.is_empty() {
        bytes.extend(frame(DATA, END_STREAM, stream, body.as_bytes()));
    }
    raw.send(&bytes)?;
    raw.end_of(stream)
}

#[test]
fn what_http2_must_not_carry_reaches_no_server() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let server = Nghttpd::start_with(place.path(), 1, &["--verbose"]);
    let crossing = Crossing::start(place.path(), &[Behind::new("web", server.address(), Some("http"))]);
    let mut wrong = Vec::new();
    for way in Way::BOTH {
        let entrance = crossing.entrance("web", way);
        for (name, fields, body, why) in REFUSED {
            let end = Raw::open(entrance).and_then(|mut raw| send(&mut raw, 1, fields, body));
            let is_refused = is_refused(&end);
            println!("{:<5} {name:<30} {end:?}: {}", way.name(), if is_refused { "ok" } else { "WRONG" });
            if !is_refused {
                wrong.push(format!("{}: {name} ({why}): {end:?}", way.name()));
            }
        }
        // The honest one beside them, on a connection that has seen a refusal: the rules refuse, not the harness.
        let honest = [METHOD, SCHEME, (":path", "/honest"), HOST, ("content-length", "4"), ("te", "trailers")];
        let end = Raw::open(entrance).and_then(|mut raw| {
            send(&mut raw, 1, REFUSED[0].1, "x")?;
            send(&mut raw, 3, &honest, "body")
        });
        if !matches!(end, Ok(End::Answered(200))) {
            wrong.push(format!("{}: an honest request: {end:?}", way.name()));
        }
    }
    let log = server.log();
    assert!(log.contains("/honest"), "the server writes down what it gets");
    for never in ["attack", "canary", "evil"] {
        if let Some(line) = log.lines().find(|line| line.contains(never)) {
            wrong.push(format!("the server got {line:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
