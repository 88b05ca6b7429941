//! What has been smuggled through proxies that turn HTTP/2 into HTTP/1: each family as header blocks on the wire.

use super::*;

/// Encoded without the checks an honest encoder makes, and decoded as it would be from a peer.
fn from_the_wire(fields: &[(&[u8], &[u8])]) -> Fields {
    let mut sent = Fields::new();
    for (name, value) in fields {
        sent.push(name, value);
    }
    let mut block = Vec::new();
    hpack::encode(&sent, &mut block);
    let mut received = Fields::new();
    hpack::Decoder::new(4096).decode(&block, &mut received, &HeadLimits::default()).expect("valid compression");
    received
}

fn request<'a>(method: &'a [u8], authority: &'a [u8], path: &'a [u8], more: (&'a [u8], &'a [u8])) -> Fields {
    from_the_wire(&[(b":method", method), (b":scheme", b"http"), (b":authority", authority), (b":path", path), more])
}

const PLAIN: (&[u8], &[u8]) = (b"x", b"y");

#[test]
fn nothing_breaks_out_of_a_value_or_a_name() {
    let smuggled: &[(&[u8], &[u8])] = &[
        (b"x", b"y\r\ntransfer-encoding: chunked"),
        (b"x", b"y\ntransfer-encoding: chunked"),
        (b"x", b"y\rtransfer-encoding: chunked"),
        (b"x", b"y\r\n\r\nGET /admin HTTP/1.1\r\nhost: a\r\n\r\n"),
        (b"x", b"\r\n"),
        (b"x", b"y\0"),
        (b"x: y\r\nhost", b"b"),
        (b"x: y", b"z"),
        (b"x:", b"y"),
        (b"x y", b"z"),
        (b"x\ty", b"z"),
        (b"x\r\ny", b"z"),
        (b"x\0", b"z"),
        (b"\xff", b"z"),
        (b"transfer-encoding ", b"chunked"),
        (b"transfer-encoding", b"chunked"),
        (b"Transfer-Encoding", b"chunked"),
        (b"transfer-encoding", b"xchunked"),
        (b"content-length ", b"0"),
        (b"content-length", b"0\r\nx: y"),
        (b"cookie", b"a=b\r\nx: y"),
        (b"host", b"orders\r\nx: y"),
        (b"host", b"other"),
        (b"connection", b"content-length"),
        (b"x-forwarded-client-cert", b"a\r\nb: c"),
    ];
    for more in smuggled {
        let fields = request(b"GET", b"orders", b"/", *more);
        let read = RequestHead::read(&fields, false);
        assert!(read.is_err(), "{}", String::from_utf8_lossy(more.1));
    }
}

#[test]
fn nothing_breaks_out_of_the_request_line() {
    let table: &[(&[u8], &[u8], &[u8])] = &[
        (b"GET /admin HTTP/1.1\r\nx: y\r\n\r\nGET", b"orders", b"/"),
        (b"GET /admin", b"orders", b"/"),
        (b"GET ", b"orders", b"/"),
        (b" GET", b"orders", b"/"),
        (b"GET\r\n", b"orders", b"/"),
        (b"GET\0", b"orders", b"/"),
        (b"G:T", b"orders", b"/"),
        (b"GET", b"orders", b"/ HTTP/1.1\r\nx: y\r\n\r\nGET /admin"),
        (b"GET", b"orders", b"/ HTTP/1.1"),
        (b"GET", b"orders", b"/\r\nx: y"),
        (b"GET", b"orders", b"/\n"),
        (b"GET", b"orders", b"/\tx"),
        (b"GET", b"orders", b"/\0"),
        (b"GET", b"orders", b"/\x7f"),
        (b"GET", b"orders", b"/\xff\xfe"),
        (b"GET", b"orders", b" /"),
        (b"GET", b"orders", b"orders/"),
        (b"GET", b"orders", b"@other/"),
        (b"GET", b"orders", b":80/"),
        (b"GET", b"orders\r\nx: y", b"/"),
        (b"GET", b"orders x", b"/"),
        (b"GET", b"orders/admin", b"/"),
        (b"GET", b"orders?x", b"/"),
        (b"GET", b"orders#x", b"/"),
        (b"GET", b"user@orders", b"/"),
        (b"GET", b"orders\\x", b"/"),
        (b"GET", b"ord\xc3\xa9rs", b"/"),
    ];
    for (method, authority, path) in table {
        let fields = request(method, authority, path, PLAIN);
        assert!(RequestHead::read(&fields, true).is_err(), "{method:?} {authority:?} {path:?}");
    }
    let scheme = |scheme: &'static [u8]| {
        from_the_wire(&[(b":method", b"GET"), (b":scheme", scheme), (b":authority", b"orders"), (b":path", b"/")])
    };
    for bad in [&b"http://orders/admin?"[..], b"http\r\n", b"", b"javascript"] {
        assert!(RequestHead::read(&scheme(bad), true).is_err());
    }
}

#[test]
fn a_length_that_lies_is_never_written() {
    let fields = request(b"POST", b"orders", b"/", (b"content-length", b"30"));
    assert!(RequestHead::read(&fields, true).is_err(), "it would wait for the next request's bytes");
    let twice = from_the_wire(&[
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"orders"),
        (b":path", b"/"),
        (b"content-length", b"0"),
        (b"content-length", b"30"),
    ]);
    assert!(RequestHead::read(&twice, false).is_err());
}

#[test]
fn a_response_cannot_be_split() {
    for (name, value) in [
        (&b"x"[..], &b"y\r\n\r\nHTTP/1.1 200 OK\r\n"[..]),
        (b"location", b"/\nset-cookie: a=b"),
        (b"set-cookie", b"a\rb"),
        (b"x\r\ny", b"z"),
        (b"transfer-encoding", b"chunked"),
    ] {
        let fields = from_the_wire(&[(b":status", b"200"), (name, value)]);
        assert!(ResponseHead::read(&fields, false, false).is_err(), "{value:?}");
        let trailers = from_the_wire(&[(name, value)]);
        assert!(Trailers::read(&trailers).is_err(), "{value:?}");
    }
}
