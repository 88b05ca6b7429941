//! Header blocks in, header blocks or raw bytes out.

use super::*;
use crate::http1::{self, BodyKind, Connection, FieldStorage, HeadError, RequestWrite, ResponseWrite};

mod downgrade;
mod peer;

fn block(fields: &[(&str, &str)]) -> Fields {
    let mut block = Fields::new();
    for (name, value) in fields {
        block.push(name.as_bytes(), value.as_bytes());
    }
    block
}

/// A valid GET with `more` after its pseudo-fields.
fn get_with(more: &[(&str, &str)]) -> Fields {
    let start = [(":method", "GET"), (":scheme", "http"), (":authority", "orders"), (":path", "/")];
    block(&[&start, more].concat())
}

fn lines(fields: &Fields) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().flat_map(|field| [text(field.name), ": ".into(), text(field.value), "\n".into()]).collect()
}

const ADDED: RequestWrite<'static> =
    RequestWrite { default_authority: b"orders:80", request_id: Some(b"id-1"), client_certificate: Some(b"URI=x") };

fn to_http1(fields: &Fields, ended: bool) -> Result<String, HeadError> {
    let mut out = Vec::new();
    let plain = RequestWrite { request_id: None, client_certificate: None, ..ADDED };
    RequestHead::read(fields, ended)?.write_http1(&plain, &mut out);
    Ok(String::from_utf8(out).expect("text"))
}

fn from_http1(bytes: &str, write: &RequestWrite<'_>) -> String {
    let mut storage = FieldStorage::new();
    let head = http1::RequestHead::parse(bytes.as_bytes(), &mut storage).expect("valid").expect("complete");
    lines(&request_from_http1(&head, write))
}

fn answer_to_http1(fields: &Fields, ended: bool, to_head: bool, write: ResponseWrite) -> Result<String, HeadError> {
    let mut out = Vec::new();
    ResponseHead::read(fields, ended, to_head)?.write_http1(&write, &mut out);
    Ok(String::from_utf8(out).expect("text"))
}

const KEPT: ResponseWrite = ResponseWrite { connection: Connection::Persistent, unchunk: false, keep_error: false };

#[test]
fn a_request_says_what_routing_needs() {
    let fields = block(&[
        (":path", "/a?b=c"),
        (":method", "POST"),
        (":authority", "orders:8080"),
        (":scheme", "https"),
        ("content-length", "12"),
        ("expect", "100-Continue"),
    ]);
    let head = RequestHead::read(&fields, false).expect("valid");
    assert_eq!((head.method, head.scheme, head.authority), ("POST", "https", &b"orders:8080"[..]));
    assert_eq!((head.target, head.path()), ("/a?b=c", &b"/a"[..]));
    assert_eq!((head.content_length, head.body), (Some(12), BodyKind::Length(12)));
    assert!(head.expect_continue && !head.is_head() && !head.is_idempotent());
    assert_eq!(head.get(b"expect"), Some(&b"100-Continue"[..]));
}

#[test]
fn a_requests_body_ends_by_length_or_with_its_stream() {
    for (length, ended, body) in [
        (None, true, Some(BodyKind::Empty)),
        (None, false, Some(BodyKind::Chunked)),
        (Some("0"), true, Some(BodyKind::Empty)),
        (Some("0"), false, Some(BodyKind::Empty)),
        (Some("5"), false, Some(BodyKind::Length(5))),
        (Some("5"), true, None),
    ] {
        let length: Vec<_> = length.iter().map(|&length| ("content-length", length)).collect();
        let fields = get_with(&length);
        let read = RequestHead::read(&fields, ended).ok().map(|head| head.body);
        assert_eq!(read, body, "{length:?} {ended}");
    }
}

#[test]
fn malformed_requests_are_refused() {
    let table: &[(&str, &[(&str, &str)])] = &[
        ("nothing", &[]),
        ("no :method", &[(":scheme", "http"), (":authority", "a"), (":path", "/")]),
        ("no :scheme", &[(":method", "GET"), (":authority", "a"), (":path", "/")]),
        ("no :path", &[(":method", "GET"), (":scheme", "http"), (":authority", "a")]),
        ("no authority", &[(":method", "GET"), (":scheme", "http"), (":path", "/")]),
        ("empty :path", &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "")]),
        ("empty authority", &[(":method", "GET"), (":scheme", "http"), (":authority", ""), (":path", "/")]),
        ("empty :method", &[(":method", ""), (":scheme", "http"), (":authority", "a"), (":path", "/")]),
        ("another scheme", &[(":method", "GET"), (":scheme", "ftp"), (":authority", "a"), (":path", "/")]),
        ("a relative path", &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "x")]),
        ("an absolute target", &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "http://b/")]),
        ("a fragment", &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/#x")]),
        ("`*` but not OPTIONS", &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "*")]),
        ("user information", &[(":method", "GET"), (":scheme", "http"), (":authority", "u@a"), (":path", "/")]),
        ("two authorities", &[(":method", "GET"), (":scheme", "http"), (":authority", "a,b"), (":path", "/")]),
        (
            "a name twice",
            &[(":method", "GET"), (":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")],
        ),
        (
            "a path twice",
            &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/"), (":path", "/")],
        ),
    ];
    for (what, fields) in table {
        let fields = block(fields);
        let error = RequestHead::read(&fields, true).expect_err(what);
        assert_eq!(error.status(), 400, "{what}");
    }
    let more: &[&[(&str, &str)]] = &[
        &[("x", "y"), (":authority", "orders")],
        &[(":status", "200")],
        &[(":protocol", "websocket")],
        &[(":unknown", "x")],
        &[("x", "y"), (":unknown", "x")],
        &[("Upper", "x")],
        &[("HOST", "orders")],
        &[("", "x")],
        &[("connection", "close")],
        &[("connection", "")],
        &[("keep-alive", "timeout=5")],
        &[("proxy-connection", "keep-alive")],
        &[("transfer-encoding", "chunked")],
        &[("transfer-encoding", "identity")],
        &[("upgrade", "websocket")],
        &[("te", "gzip")],
        &[("te", "trailers, gzip")],
        &[("host", "other")],
        &[("host", "orders"), ("host", "orders")],
        &[("content-length", "1"), ("content-length", "1")],
        &[("content-length", "1, 1")],
        &[("content-length", "")],
        &[("content-length", "+1")],
        &[("content-length", "-1")],
        &[("content-length", "0x1")],
        &[("content-length", "1 ")],
        &[("content-length", "9999999999999999999")],
        &[("x", " y")],
        &[("x", "y\t")],
        &[("x", "y\0")],
        &[("x", "y\x7f")],
        &[("x", "y\x01z")],
    ];
    for more in more {
        let fields = get_with(more);
        let error = RequestHead::read(&fields, false).expect_err(&format!("{more:?}"));
        assert_eq!(error.status(), 400, "{more:?}");
    }
}

#[test]
fn unusual_requests_that_are_valid_are_taken() {
    let more: &[&[(&str, &str)]] = &[
        &[("te", "trailers")],
        &[("te", "Trailers")],
        &[("host", "orders")],
        &[("host", "ORDERS")],
        &[("x", "")],
        &[("x", "a\tb")],
        &[("x", "grün")],
        &[("content-length", "0")],
        &[("trailer", "x-sum")],
        &[("!#$%&'*+-.^_`|~09az", "x")],
    ];
    for more in more {
        let fields = get_with(more);
        assert!(RequestHead::read(&fields, false).is_ok(), "{more:?}");
    }
    let options = block(&[(":method", "OPTIONS"), (":scheme", "http"), (":authority", "a"), (":path", "*")]);
    assert_eq!(to_http1(&options, true).as_deref(), Ok("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n"));
    let host_only = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("x", "y"), ("host", "a:1")]);
    let head = RequestHead::read(&host_only, true).expect("valid");
    assert_eq!(head.authority, b"a:1");
    let forwarded = head.forwarded(&RequestWrite::default());
    assert_eq!(lines(&forwarded), ":method: GET\n:scheme: http\n:authority: a:1\n:path: /\nx: y\n");
}

#[test]
fn limits_of_a_request_name_themselves() {
    let path = format!("/{}", "a".repeat(http1::MAX_TARGET_BYTES));
    let long = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", &path)]);
    assert_eq!(RequestHead::read(&long, true).err(), Some(HeadError::TargetTooLong));
    let connect = block(&[(":method", "CONNECT"), (":authority", "a:1")]);
    assert_eq!(RequestHead::read(&connect, false).err(), Some(HeadError::ConnectNotAllowed));
}

#[test]
fn a_request_goes_to_http1_with_one_framing_and_one_cookie() {
    let fields = get_with(&[("b", "2"), ("cookie", "x=1"), ("a", "1"), ("te", "trailers"), ("cookie", "y=2")]);
    let head = "GET / HTTP/1.1\r\nhost: orders\r\nb: 2\r\ncookie: x=1; y=2\r\na: 1\r\n";
    assert_eq!(to_http1(&fields, true), Ok(format!("{head}\r\n")));
    assert_eq!(to_http1(&fields, false), Ok(format!("{head}transfer-encoding: chunked\r\n\r\n")));
    let with_length = get_with(&[("content-length", "3"), ("expect", "100-continue")]);
    assert_eq!(
        to_http1(&with_length, false).as_deref(),
        Ok("GET / HTTP/1.1\r\nhost: orders\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n")
    );
    let post = block(&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")]);
    assert_eq!(to_http1(&post, true).as_deref(), Ok("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"));
}

#[test]
fn only_the_proxy_says_who_the_client_is() {
    let forged = [
        ("x-forwarded-client-cert", "forged"),
        ("x", "y"),
        ("x_forwarded-client_cert", "forged"),
        ("http2-settings", "A"),
    ];
    let fields = get_with(&forged);
    let head = RequestHead::read(&fields, true).expect("valid");
    let expected = ":method: GET\n:scheme: http\n:authority: orders\n:path: /\nx: y\n";
    assert_eq!(lines(&head.forwarded(&RequestWrite::default())), expected);
    let added = "x-request-id: id-1\nx-forwarded-client-cert: URI=x\n";
    assert_eq!(lines(&head.forwarded(&ADDED)), format!("{expected}{added}"));
    let mut out = Vec::new();
    head.write_http1(&ADDED, &mut out);
    assert_eq!(
        String::from_utf8(out).expect("text"),
        "GET / HTTP/1.1\r\nhost: orders\r\nx: y\r\nx-request-id: id-1\r\nx-forwarded-client-cert: URI=x\r\n\r\n"
    );
    // A request that has a name keeps it.
    let named = get_with(&[("x-request-id", "its own")]);
    let forwarded = RequestHead::read(&named, true).expect("valid").forwarded(&ADDED);
    assert_eq!(lines(&forwarded).matches("x-request-id").count(), 1);
    assert!(lines(&forwarded).contains("x-request-id: its own\n"));
}

#[test]
fn a_request_of_http1_becomes_one_of_http2() {
    assert_eq!(
        from_http1(
            "POST /a?b HTTP/1.1\r\nX-B: 2\r\nHost: Orders\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nTE: gzip, trailers\r\n\
             Transfer-Encoding: chunked\r\nUpgrade: websocket\r\nExpect: 100-continue\r\nCookie: a=1; b=2\r\n\
             X-Forwarded-Client-Cert: forged\r\nProxy-Connection: x\r\nKeep-Alive: 5\r\n\r\n",
            &ADDED
        ),
        ":method: POST\n:scheme: http\n:authority: Orders\n:path: /a?b\nx-b: 2\nexpect: 100-continue\n\
         cookie: a=1; b=2\nte: trailers\nx-request-id: id-1\nx-forwarded-client-cert: URI=x\n"
    );
    assert_eq!(
        from_http1(
            "GET http://shop:81/x HTTP/1.1\r\nHost: other\r\nX-Request-ID: own\r\nContent-Length: 0\r\n\r\n",
            &ADDED
        ),
        ":method: GET\n:scheme: http\n:authority: shop:81\n:path: /x\nx-request-id: own\ncontent-length: 0\n\
         x-forwarded-client-cert: URI=x\n"
    );
    assert_eq!(
        from_http1(
            "GET / HTTP/1.0\r\n\r\n",
            &RequestWrite { default_authority: b"orders:80", ..RequestWrite::default() }
        ),
        ":method: GET\n:scheme: http\n:authority: orders:80\n:path: /\n"
    );
}

#[test]
fn malformed_responses_are_refused() {
    let table: &[&[(&str, &str)]] = &[
        &[],
        &[("x", "y")],
        &[("x", "y"), (":status", "200")],
        &[(":status", "200"), (":status", "200")],
        &[(":status", "200"), (":path", "/")],
        &[(":status", "200"), (":x", "/")],
        &[(":status", "20")],
        &[(":status", "2000")],
        &[(":status", "020")],
        &[(":status", "2 0")],
        &[(":status", "+20")],
        &[(":status", "")],
        &[(":status", "101")],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("transfer-encoding", "chunked")],
        &[(":status", "200"), ("upgrade", "x")],
        &[(":status", "200"), ("content-length", "1"), ("content-length", "2")],
        &[(":status", "200"), ("X", "y")],
        &[(":status", "200"), ("x y", "z")],
        &[(":status", "200"), ("x", "y\r\nz: 1")],
    ];
    for fields in table {
        let block = block(fields);
        assert!(ResponseHead::read(&block, false, false).is_err(), "{fields:?}");
    }
    assert!(ResponseHead::read(&block(&[(":status", "200"), ("content-length", "1")]), true, false).is_err());
    assert!(ResponseHead::read(&block(&[(":status", "100")]), true, false).is_err(), "an interim answer ends nothing");
}

#[test]
fn a_responses_body_ends_by_method_status_and_length() {
    type Row<'a> = (&'a str, Option<&'a str>, bool, bool, BodyKind, &'a str);
    let table: &[Row<'_>] = &[
        ("200", Some("3"), false, false, BodyKind::Length(3), "200 OK\r\ncontent-length: 3\r\n"),
        ("200", Some("0"), true, false, BodyKind::Empty, "200 OK\r\ncontent-length: 0\r\n"),
        ("200", None, false, false, BodyKind::Chunked, "200 OK\r\ntransfer-encoding: chunked\r\n"),
        ("200", None, true, false, BodyKind::Empty, "200 OK\r\ncontent-length: 0\r\n"),
        ("200", Some("3"), true, true, BodyKind::Empty, "200 OK\r\ncontent-length: 3\r\n"),
        ("200", None, true, true, BodyKind::Empty, "200 OK\r\n"),
        ("204", Some("3"), true, false, BodyKind::Empty, "204 No Content\r\n"),
        ("204", None, false, false, BodyKind::Empty, "204 No Content\r\n"),
        ("304", Some("3"), true, false, BodyKind::Empty, "304 Not Modified\r\ncontent-length: 3\r\n"),
        ("304", None, true, false, BodyKind::Empty, "304 Not Modified\r\n"),
        ("103", Some("3"), false, false, BodyKind::Empty, "103 Early Hints\r\n"),
        ("799", None, true, false, BodyKind::Empty, "799 \r\ncontent-length: 0\r\n"),
    ];
    for (status, length, ended, to_head, body, expected) in table {
        let length: Vec<_> = length.iter().map(|length| ("content-length", *length)).collect();
        let fields = block(&[&[(":status", *status)], &length[..]].concat());
        let head = ResponseHead::read(&fields, *ended, *to_head).expect("valid");
        assert_eq!(head.body, *body, "{status} {length:?}");
        let written = answer_to_http1(&fields, *ended, *to_head, KEPT).expect("valid");
        assert_eq!(written, format!("HTTP/1.1 {expected}\r\n"));
    }
}

#[test]
fn an_http10_client_gets_no_chunks() {
    let fields = block(&[(":status", "200"), ("x", "y")]);
    let write = ResponseWrite { connection: Connection::Close, unchunk: true, keep_error: false };
    assert_eq!(
        answer_to_http1(&fields, false, false, write).as_deref(),
        Ok("HTTP/1.1 200 OK\r\nx: y\r\nconnection: close\r\n\r\n")
    );
}

#[test]
fn only_a_proxy_of_ours_may_say_weft_error() {
    let fields = block(&[(":status", "503"), ("weft-error", "one"), ("x", "y"), ("weft-error", "connect")]);
    let head = ResponseHead::read(&fields, true, false).expect("valid");
    assert_eq!(head.weft_error(), Some(&b"connect"[..]));
    for (keep_error, expected) in [(true, ":status: 503\nx: y\nweft-error: connect\n"), (false, ":status: 503\nx: y\n")]
    {
        assert_eq!(lines(&head.forwarded(keep_error)), expected);
        let mut out = Vec::new();
        head.write_http1(&ResponseWrite { keep_error, ..KEPT }, &mut out);
        assert_eq!(String::from_utf8_lossy(&out).matches("weft-error").count(), usize::from(keep_error));
        let mut storage = FieldStorage::new();
        let answer = b"HTTP/1.1 503 No\r\nWeft-Error: one\r\nX: y\r\nWeft-Error: connect\r\nContent-Length: 0\r\n\r\n";
        let parsed = http1::ResponseHead::parse(answer, &mut storage, false).expect("valid").expect("complete");
        let fields = response_from_http1(&parsed, keep_error).expect("no upgrade");
        assert_eq!(lines(&fields), format!("{expected}content-length: 0\n"));
    }
}

#[test]
fn a_response_of_http1_becomes_one_of_http2() {
    let convert = |bytes: &str| {
        let mut storage = FieldStorage::new();
        let head = http1::ResponseHead::parse(bytes.as_bytes(), &mut storage, false).expect("valid").expect("complete");
        response_from_http1(&head, false).map(|fields| lines(&fields))
    };
    assert_eq!(
        convert(
            "HTTP/1.1 200 Fine\r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        )
        .as_deref(),
        Ok(":status: 200\nserver: x\nset-cookie: a\nset-cookie: b\n")
    );
    assert_eq!(convert("HTTP/1.1 204 \r\nContent-Length: 3\r\nA: b\r\n\r\n").as_deref(), Ok(":status: 204\na: b\n"));
    assert_eq!(convert("HTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n").as_deref(), Ok(":status: 103\nlink: </x>\n"));
    assert_eq!(convert("HTTP/1.1 100 Continue\r\n\r\n").as_deref(), Ok(":status: 100\n"));
    assert!(convert("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").is_err());
}

#[test]
fn trailers_are_checked_and_those_that_mean_something_elsewhere_are_dropped() {
    let fields = block(&[
        ("grpc-status", "0"),
        ("content-length", "3"),
        ("host", "x"),
        ("x-forwarded-for", "x"),
        ("weft-error", "x"),
        ("te", "trailers"),
        ("grpc-message", "fine"),
    ]);
    let trailers = Trailers::read(&fields).expect("valid");
    assert_eq!(trailers.get(b"grpc-status"), Some(&b"0"[..]));
    assert_eq!(lines(&trailers.forwarded()), "grpc-status: 0\ngrpc-message: fine\n");
    let mut out = Vec::new();
    trailers.write_http1(&mut out);
    assert_eq!(out, b"grpc-status: 0\r\ngrpc-message: fine\r\n");
    let mut back = Fields::new();
    trailer_from_http1(b"Grpc-Status:0", &mut back);
    trailer_from_http1(b"grpc-message: \t fine \t", &mut back);
    trailer_from_http1(b"x:", &mut back);
    assert_eq!(lines(&back), "grpc-status: 0\ngrpc-message: fine\nx: \n");
    for (name, value) in [
        (":status", "200"),
        (":path", "/"),
        (":x", "/"),
        ("X", "y"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("x", "y\r\nz: 1"),
        ("x y", "z"),
    ] {
        assert!(Trailers::read(&block(&[(name, value)])).is_err(), "{name}: {value:?}");
    }
}

#[test]
fn secrets_stay_secrets_on_the_next_hop() {
    let mut fields = get_with(&[]);
    fields.push_sensitive(b"x-key", b"k");
    let head = RequestHead::read(&fields, true).expect("valid");
    let forwarded = head.forwarded(&ADDED);
    assert!(forwarded.iter().any(|field| field.name == b"x-key" && field.sensitive));
    fields.push(b"x-forwarded-client-cert", b"forged");
    let head = RequestHead::read(&fields, true).expect("valid");
    assert!(head.forwarded(&ADDED).iter().any(|field| field.name == b"x-key" && field.sensitive));
}

/// An extended CONNECT with these fields behind its pseudo-fields.
fn tunnel(protocol: &str, more: &[(&str, &str)]) -> Fields {
    let mut all = vec![
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "http"),
        (":authority", "orders"),
        (":path", "/chat"),
    ];
    all.extend_from_slice(more);
    block(&all)
}

#[test]
fn a_websocket_is_an_extended_connect_in_http2_and_an_upgrade_in_http1() {
    let fields = tunnel("WebSocket", &[("sec-websocket-version", "13"), ("sec-websocket-key", "mine"), ("x", "y")]);
    let head = RequestHead::read(&fields, false).expect("valid");
    assert!(head.is_websocket);
    let mut written = Vec::new();
    let key = websocket::key(*b"the sample nonce");
    head.write_upgrade(&RequestWrite::default(), &key, &mut written);
    assert_eq!(
        String::from_utf8_lossy(&written),
        "GET /chat HTTP/1.1\r\nhost: orders\r\nsec-websocket-version: 13\r\nx: y\r\nupgrade: websocket\r\n\
         connection: upgrade\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut storage = http1::FieldStorage::new();
    let parsed = http1::RequestHead::parse(&written, &mut storage).expect("valid").expect("whole");
    assert_eq!(parsed.websocket_key(), Some(&key[..]));
    assert_eq!(
        lines(&websocket_from_http1(&parsed, &RequestWrite::default())),
        ":method: CONNECT\n:scheme: http\n:authority: orders\n:path: /chat\n:protocol: websocket\n\
         sec-websocket-version: 13\nx: y\n"
    );
}

#[test]
fn what_is_no_tunnel_is_not_taken_for_one() {
    let with_get = block(&[
        (":method", "GET"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "orders"),
        (":path", "/"),
    ]);
    let without_path =
        block(&[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "orders")]);
    let table = [
        ("another method", with_get, false, 400),
        ("no path", without_path, false, 400),
        ("a length", tunnel("websocket", &[("content-length", "0")]), false, 400),
        ("an end", tunnel("websocket", &[]), true, 400),
        ("no protocol", tunnel("", &[]), false, 400),
        ("more than a token", tunnel("websocket\r\nx: y", &[]), false, 400),
        ("another protocol", tunnel("connect-udp", &[]), false, 405),
        ("one in HTTP/1", tunnel("websocket", &[("upgrade", "websocket")]), false, 400),
    ];
    for (what, fields, ended, status) in table {
        assert_eq!(RequestHead::read(&fields, ended).expect_err(what).status(), status, "{what}");
    }
}
