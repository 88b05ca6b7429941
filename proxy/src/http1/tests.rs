//! Raw bytes in, raw bytes out.

use super::check::{Decoded, decode};
use super::*;

fn forwarded(request: &[u8]) -> Result<String, HeadError> {
    let mut storage = FieldStorage::new();
    let head = RequestHead::parse(request, &mut storage)?.expect("a complete head");
    let mut out = Vec::new();
    head.write(&RequestWrite { default_authority: b"orders", ..RequestWrite::default() }, &mut out);
    Ok(String::from_utf8(out).expect("text"))
}

fn refused(request: &[u8]) -> Option<HeadError> {
    let mut storage = FieldStorage::new();
    RequestHead::parse(request, &mut storage).err()
}

#[test]
fn names_keep_their_case_and_fields_their_order() {
    let request = b"GET /a?b=c HTTP/1.1\r\nHost: orders\r\nX-B: 2\r\nx-A:  1 \r\nAccept: */*\r\n\r\n";
    assert_eq!(
        forwarded(request).as_deref(),
        Ok("GET /a?b=c HTTP/1.1\r\nHost: orders\r\nX-B: 2\r\nx-A: 1\r\nAccept: */*\r\n\r\n")
    );
}

#[test]
fn fields_are_written_alike_whether_copied_together_or_one_by_one() {
    let request =
        b"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB:2\r\nC:  3 \r\nTE: trailers\r\nD:\r\nE: \r\nF: 6\r\nG:\t7\r\n\r\n";
    assert_eq!(
        forwarded(request).as_deref(),
        Ok("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: \r\nE: \r\nF: 6\r\nG: 7\r\n\r\n")
    );
}

#[test]
fn fields_of_one_hop_end_there() {
    let request = b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n\
        TE: trailers\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nX-Forwarded-Client-Cert: forged\r\n\
        x_forwarded_client_cert: forged\r\nX-Kept: 1\r\n\r\n";
    assert_eq!(forwarded(request).as_deref(), Ok("GET / HTTP/1.1\r\nHost: orders\r\nX-Kept: 1\r\n\r\n"));
}

#[test]
fn a_connection_option_cannot_take_away_what_others_rely_on() {
    for name in ["Host", "Content-Length", "Authorization", "traceparent", "X-Forwarded-For", "x-b3-traceid"] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 0\r\nConnection: {name}\r\n{}\r\n",
            if name == "Host" || name == "Content-Length" { String::new() } else { format!("{name}: kept\r\n") }
        );
        let written = forwarded(request.as_bytes()).expect("accepted");
        assert!(written.contains(&format!("{name}: ")), "{name} was removed: {written}");
    }
}

#[test]
fn an_absolute_target_decides_the_host() {
    let request = b"GET http://orders:80/x?y HTTP/1.1\r\nA: 1\r\nHost: other\r\nB: 2\r\n\r\n";
    assert_eq!(forwarded(request).as_deref(), Ok("GET /x?y HTTP/1.1\r\nA: 1\r\nHost: orders:80\r\nB: 2\r\n\r\n"));
    assert_eq!(
        forwarded(b"GET http://orders HTTP/1.0\r\n\r\n").as_deref(),
        Ok("GET / HTTP/1.1\r\nhost: orders\r\n\r\n")
    );
}

#[test]
fn an_http10_request_expects_nothing() {
    assert_eq!(
        forwarded(b"POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").as_deref(),
        Ok("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
    );
}

#[test]
fn an_http10_request_without_host_gets_the_service_name() {
    assert_eq!(forwarded(b"GET / HTTP/1.0\r\n\r\n").as_deref(), Ok("GET / HTTP/1.1\r\nhost: orders\r\n\r\n"));
}

#[test]
fn an_upgrade_is_offered_to_the_upstream_as_one() {
    let request = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(
        forwarded(request).as_deref(),
        Ok("GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nconnection: upgrade\r\n\r\n")
    );
}

#[test]
fn ambiguous_or_malformed_requests_are_refused() {
    let table: &[&[u8]] = &[
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /#f HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1111111111111111111\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: a\r\nConnection: a\r\nConnection: a\r\nConnection: a\r\nConnection: a\r\n\r\n",
    ];
    for request in table {
        let error = refused(request);
        assert!(matches!(error, Some(HeadError::Malformed(_))), "{:?}", String::from_utf8_lossy(request));
    }
}

#[test]
fn limits_are_refusals_that_name_themselves() {
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(fields::FIELD_ROOM));
    assert_eq!(refused(many.as_bytes()), Some(HeadError::TooManyFields));
    let most = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(fields::FIELD_ROOM - 1));
    assert_eq!(refused(most.as_bytes()), None);
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(MAX_TARGET_BYTES));
    assert_eq!(refused(long.as_bytes()), Some(HeadError::TargetTooLong));
    let unfinished = format!("GET /{}", "a".repeat(MAX_TARGET_BYTES + 100));
    assert_eq!(refused(unfinished.as_bytes()), Some(HeadError::TargetTooLong));
    assert_eq!(refused(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"), Some(HeadError::ConnectNotAllowed));
}

#[test]
fn a_head_in_pieces_is_incomplete_until_its_last_byte() {
    let request = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    for cut in 0..request.len() {
        let mut storage = FieldStorage::new();
        let parsed = RequestHead::parse(&request[..cut], &mut storage);
        assert!(matches!(parsed, Ok(None)), "complete or refused after {cut} bytes");
    }
    let mut storage = FieldStorage::new();
    let head = RequestHead::parse(request, &mut storage).expect("valid").expect("complete");
    assert_eq!((head.length, head.body), (request.len(), BodyKind::Length(3)));
}

#[test]
fn a_body_ends_by_method_status_and_fields() {
    let table: &[(&[u8], bool, BodyKind, bool)] = &[
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false, BodyKind::Length(3), true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true, BodyKind::Empty, true),
        (b"HTTP/1.1 204 No Content\r\n\r\n", false, BodyKind::Empty, true),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", false, BodyKind::Empty, true),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, BodyKind::Chunked, true),
        (b"HTTP/1.1 200 OK\r\n\r\n", false, BodyKind::UntilClose, false),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", false, BodyKind::Length(3), false),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n", false, BodyKind::Length(3), true),
        (b"HTTP/1.1 200\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false, BodyKind::Empty, false),
    ];
    for (bytes, to_head, body, keep_alive) in table {
        let mut storage = FieldStorage::new();
        let head = ResponseHead::parse(bytes, &mut storage, *to_head).expect("valid").expect("complete");
        assert_eq!((head.body, head.keep_alive), (*body, *keep_alive), "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn ambiguous_responses_are_refused() {
    let table: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\nContent-Length: 3\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 020 OK\r\n\r\n",
        b"HTTP/3.1 200 OK\r\n\r\n",
    ];
    for response in table {
        let mut storage = FieldStorage::new();
        assert!(ResponseHead::parse(response, &mut storage, false).is_err(), "{:?}", String::from_utf8_lossy(response));
    }
}

#[test]
fn only_a_proxy_of_ours_may_say_weft_error() {
    // Said twice, too: only the last used to be taken away.
    let response = b"HTTP/1.1 503 Oops\r\nweft-error: one\r\nweft-error: connect\r\nContent-Length: 0\r\n\r\n";
    for (keep_error, kept) in [(true, 1), (false, 0)] {
        let mut storage = FieldStorage::new();
        let head = ResponseHead::parse(response, &mut storage, false).expect("valid").expect("complete");
        let mut out = Vec::new();
        head.write(&ResponseWrite { connection: Connection::Close, unchunk: false, keep_error }, &mut out);
        assert_eq!(String::from_utf8_lossy(&out).matches("weft-error").count(), kept);
    }
}

#[test]
fn a_chunked_body_is_the_same_however_it_is_cut() {
    let body = b"5;ext=\"x\"\r\nhello\r\n1\r\n \r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nY: 2\r\n\r\nnext";
    for step in 1..body.len() {
        let Decoded { data, trailers, used } = decode(body, step).expect("valid").expect("complete");
        assert_eq!(data, b"hello 0123456789");
        assert_eq!(trailers, [b"X-Sum: 1".to_vec(), b"Y: 2".to_vec()]);
        assert_eq!(&body[used..], b"next");
    }
}

#[test]
fn malformed_chunks_are_refused() {
    let table: &[&[u8]] = &[
        b"\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"1\na\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\naX\n0\r\n\r\n",
        b"1\r\na\rX0\r\n\r\n",
        b"1;a\nb\r\na\r\n",
        b"1;a\0\r\na\r\n",
        b"1000000000000000\r\n",
        b"0\r\nbad trailer: x\r\n\r\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\nX: \x01\r\n\r\n",
        b"0\r\n: y\r\n\r\n",
    ];
    for body in table {
        for step in [1, body.len()] {
            assert!(decode(body, step).is_err(), "{:?}", String::from_utf8_lossy(body));
        }
    }
    let long = [b"0\r\nX: ".as_slice(), &[b'y'; 9000]].concat();
    assert_eq!(decode(&long, long.len()), Err(ChunkedError::TrailersTooLong));
}

/// Regression: each dropped trailer was a recursion, and thousands of them fit into the limit.
#[test]
fn thousands_of_dropped_trailers_need_no_stack() {
    let body = [b"0\r\n".as_slice(), &b"te:\r\n".repeat(1600), b"A: b\r\n\r\n"].concat();
    let decoding = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || decode(&body, body.len()));
    let decoded = decoding.expect("a thread").join().expect("no overflow");
    assert_eq!(decoded.expect("valid").expect("complete").trailers, [b"A: b".to_vec()]);
}

#[test]
fn trailers_that_would_mean_something_elsewhere_are_dropped() {
    for name in [
        "Content-Length",
        "transfer_encoding",
        "HOST",
        "Forwarded",
        "X-Forwarded-For",
        "x_forwarded_client_cert",
        "weft-error",
        "Weft_Error",
    ] {
        let body = format!("0\r\n{name}: x\r\n\r\n");
        let decoded = decode(body.as_bytes(), body.len()).expect("valid").expect("complete");
        assert!(decoded.trailers.is_empty(), "{name} was kept");
    }
}

#[test]
fn a_question_to_the_whole_server_has_no_path() {
    assert_eq!(
        forwarded(b"OPTIONS http://orders HTTP/1.1\r\nHost: x\r\n\r\n").as_deref(),
        Ok("OPTIONS * HTTP/1.1\r\nHost: orders\r\n\r\n")
    );
}

#[test]
fn a_head_cannot_make_its_reader_compare_for_ever() {
    let options = "x,".repeat(63);
    let few = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {options}x\r\n\r\n");
    assert_eq!(refused(few.as_bytes()), None);
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {options}x\r\nConnection: x\r\n\r\n");
    assert!(matches!(refused(many.as_bytes()), Some(HeadError::Malformed(_))));
}

#[test]
fn the_start_line_is_bounded_the_same_whole_and_in_part() {
    let line = |method: usize, target: usize, before: &str| {
        format!("{before}{} /{} HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(method), "a".repeat(target - 1))
    };
    let empty_lines = "\r\n".repeat(5000);
    for (text, expected) in [
        (line(64, MAX_TARGET_BYTES, ""), None),
        (line(64, MAX_TARGET_BYTES, &empty_lines), None),
        (line(65, 1, ""), Some(HeadError::Malformed("method longer than any that is known"))),
        (line(3, MAX_TARGET_BYTES + 1, ""), Some(HeadError::TargetTooLong)),
    ] {
        let whole = refused(text.as_bytes());
        assert_eq!(whole, expected);
        let bytes = text.as_bytes();
        let early = (0..bytes.len()).step_by(61).find_map(|cut| refused(&bytes[..cut]));
        assert!(early.is_none() || whole.is_some(), "a part of an accepted head gave {early:?}");
    }
}
