//! Requests made to be read differently by two parties: refused, and the application sees none of their bytes.

use super::*;

/// What follows a refused request in the same write; it must never be taken for a request.
const LEFTOVER: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends `bytes` and [`LEFTOVER`] on a fresh connection: the answer is `status`, and nothing reached the application.
#[track_caller]
fn refused(bytes: &str, status: u16, code: &str) {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    send(&mut client, &format!("{bytes}{LEFTOVER}"));
    expect_failure(&mut client, status, code);
    expect_end(&mut client);
    drop(worker);
    while let Some(mut upstream) = application.accept_within(std::time::Duration::ZERO) {
        let mut seen = Vec::new();
        let _ = upstream.read_to_end(&mut seen);
        assert!(seen.is_empty(), "{bytes:?} became {:?}", String::from_utf8_lossy(&seen));
    }
}

#[track_caller]
fn all_refused(table: &[&str]) {
    for bytes in table {
        refused(bytes, 400, "bad-request");
    }
}

/// `POST / HTTP/1.1` with these fields and body.
macro_rules! post {
    ($rest:literal) => {
        concat!("POST / HTTP/1.1\r\nHost: a\r\n", $rest)
    };
}

#[test]
fn two_framings_in_one_request() {
    all_refused(&[
        // CL.TE and TE.CL
        post!("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
        post!("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n8\r\nSMUGGLED\r\n0\r\n\r\n"),
        post!("Content-Length: 0\r\ntransfer-encoding: CHUNKED\r\n\r\n0\r\n\r\n"),
        // TE.TE: one of the two must be hidden from somebody.
        post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: identity\r\n\r\n"),
        post!("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n"),
        post!("Transfer-Encoding:\r\n\r\n0\r\n\r\n"),
        post!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        post!("Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"),
        post!("Transfer-Encoding\0: chunked\r\n\r\n0\r\n\r\n"),
        post!("X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        post!("Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ]);
}

#[test]
fn lengths_that_are_no_plain_number() {
    all_refused(&[
        post!("Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde"),
        post!("Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde"),
        post!("Content-Length: 5, 5\r\n\r\nabcde"),
        post!("Content-Length: 5,6\r\n\r\nabcde"),
        post!("Content-Length: +5\r\n\r\nabcde"),
        post!("Content-Length: -5\r\n\r\nabcde"),
        post!("Content-Length: 0x5\r\n\r\nabcde"),
        post!("Content-Length: 5_0\r\n\r\nabcde"),
        post!("Content-Length: 5.0\r\n\r\nabcde"),
        post!("Content-Length: 5 5\r\n\r\nabcde"),
        post!("Content-Length: 1e1\r\n\r\nabcde"),
        post!("Content-Length: \u{ff15}\r\n\r\nabcde"),
        post!("Content-Length: \r\n\r\n"),
        post!("Content-Length: 18446744073709551616\r\n\r\n"),
        post!("Content-Length: 99999999999999999999999999999999\r\n\r\n"),
        post!("Content-Length : 5\r\n\r\nabcde"),
        post!("Content-Length: 5\r\n 6\r\n\r\nabcde"),
    ]);
}

#[test]
fn lines_that_end_otherwise() {
    all_refused(&[
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tfolded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ]);
}

#[test]
fn request_lines_and_hosts_of_two_meanings() {
    all_refused(&[
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET file://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET //a\r\nHost: a\r\n\r\n",
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /# HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00",
    ]);
}

#[test]
fn chunks_of_two_meanings() {
    let table = [
        post!("Transfer-Encoding: chunked\r\n\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n+5\r\nabcde\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n-1\r\nabcde\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n 5\r\nabcde\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n5 \r\nabcde\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n5\nabcde\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n5\rabcde\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n5\r\r\nabcde\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nabcde\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n5;a\rb\r\nabcde\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n3\r\nabcde\r\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n5\r\nabcde0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n5\r\nabcdeX\n0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\rX0\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n0\r\nX : y\r\n\r\n"),
        post!("Transfer-Encoding: chunked\r\n\r\n0\r\n X: y\r\n\r\n"),
    ];
    for bytes in table {
        refused(bytes, 400, "bad-body");
    }
}

#[test]
fn limits_have_their_own_status() {
    refused(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000)), 414, "target-too-long");
    refused(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200)), 431, "too-many-fields");
    refused(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(70_000)), 431, "head-too-large");
    refused("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405, "connect-not-allowed");
}

/// A body where none is expected (CL.0) is the next request, to us as to the application: both read the same.
#[test]
fn a_request_without_framing_has_no_body() {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    send(&mut client, &format!("POST / HTTP/1.1\r\nHost: a\r\n\r\n{LEFTOVER}"));
    let mut upstream = application.accept();
    expect(&mut upstream, "POST / HTTP/1.1\r\nHost: a\r\nx-request-id: *ID*\r\n\r\n");
    send(&mut upstream, OK);
    expect(&mut client, OK);
    expect(&mut upstream, "GET /smuggled HTTP/1.1\r\nHost: a\r\nx-request-id: *ID*\r\n\r\n");
}

/// With its length known, a body is a body, whatever it looks like.
#[test]
fn a_request_inside_a_body_stays_there() {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    let fields = format!("Content-Length: {}\r\n", LEFTOVER.len());
    for method in ["GET", "POST", "OPTIONS"] {
        send(&mut client, &format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{LEFTOVER}"));
    }
    let mut upstream = application.accept();
    for method in ["GET", "POST", "OPTIONS"] {
        expect(
            &mut upstream,
            &format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}x-request-id: *ID*\r\n\r\n{LEFTOVER}"),
        );
        send(&mut upstream, OK);
        expect(&mut client, OK);
    }
}

#[test]
fn a_body_that_goes_wrong_on_its_way_ends_the_request_where_it_stands() {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    send(&mut client, post!("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"));
    let mut upstream = application.accept();
    expect(
        &mut upstream,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nx-request-id: *ID*\r\n\r\n3\r\nabc\r\n",
    );
    send(&mut client, &format!("3;\n0\r\n\r\n{LEFTOVER}"));
    expect_failure(&mut client, 400, "bad-body");
    expect_end(&mut client);
    expect_end(&mut upstream);
}

#[test]
fn a_body_that_goes_wrong_behind_its_answer_spoils_both_connections_and_not_the_answer() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nconnection: close\r\n\r\n";
    let (worker, application) = proxied();
    let mut client = worker.connect();
    send(&mut client, post!("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"));
    let mut upstream = application.accept();
    expect(
        &mut upstream,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nx-request-id: *ID*\r\n\r\n3\r\nabc\r\n",
    );
    send(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
    expect(&mut client, HEAD);
    send(&mut client, &format!("3;\n0\r\n\r\n{LEFTOVER}"));
    for text in ["a", "b", "c", "d"] {
        send(&mut upstream, text);
        expect(&mut client, text);
    }
    expect_end(&mut client);
    expect_end(&mut upstream);
}
