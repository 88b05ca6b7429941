//! Answers whose end depends on the request, the status, or the connection.

use super::*;

/// One exchange on connections that both stay open.
#[track_caller]
fn exchange(client: &mut TcpStream, upstream: &mut TcpStream, texts: [&str; 4]) {
    let [request, sent, answer, received] = texts;
    send(client, request);
    expect(upstream, sent);
    send(upstream, answer);
    expect(client, received);
}

fn connected() -> (RunningWorker, TcpStream, TcpStream) {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, OK);
    expect(&mut client, OK);
    (worker, client, upstream)
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let (_worker, mut client, mut upstream) = connected();
    let requests: String = (0..50)
        .map(|i| match i % 3 {
            0 => format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!("POST /{i} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
            _ => format!("POST /{i} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        })
        .collect();
    send(&mut client, &requests);
    let mut reader = BufReader::new(upstream.try_clone().expect("a stream"));
    for i in 0..50 {
        let (head, body) = read_message(&mut reader, false);
        assert!(head.contains(&format!(" /{i} ")), "{head}");
        assert!(body == if i % 3 == 0 { b"".as_slice() } else { b"abc" });
        let text = i.to_string();
        send(&mut upstream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
    }
    for i in 0..50 {
        let text = i.to_string();
        expect(&mut client, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
    }
}

#[test]
fn answers_without_a_body_leave_both_connections_in_use() {
    let (_worker, mut client, mut upstream) = connected();
    let table = [
        ("HEAD", "200 OK\r\nContent-Length: 1000\r\n"),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\n"),
        ("HEAD", "200 OK\r\n"),
        ("GET", "204 No Content\r\n"),
        ("GET", "304 Not Modified\r\nContent-Length: 1000\r\n"),
        ("GET", "200 OK\r\nContent-Length: 0\r\n"),
    ];
    for (method, answer) in table {
        let answer = format!("HTTP/1.1 {answer}\r\n");
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        let sent = format!("{method} / HTTP/1.1\r\nHost: a\r\nx-request-id: *ID*\r\n\r\n");
        exchange(&mut client, &mut upstream, [&request, &sent, &answer, &answer]);
    }
    exchange(&mut client, &mut upstream, [GET, GET_SENT, OK, OK]);
}

#[test]
fn a_body_that_waits_for_100_continue_is_asked_for() {
    let (_worker, mut client, mut upstream) = connected();
    send(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    expect(
        &mut upstream,
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nx-request-id: *ID*\r\n\r\n",
    );
    send(&mut upstream, "HTTP/1.1 100 Continue\r\n\r\n");
    expect(&mut client, "HTTP/1.1 100 Continue\r\n\r\n");
    send(&mut client, "abc");
    expect(&mut upstream, "abc");
    send(&mut upstream, OK);
    expect(&mut client, OK);
    exchange(&mut client, &mut upstream, [GET, GET_SENT, OK, OK]);
}

#[test]
fn interim_answers_are_passed_on_until_there_are_too_many() {
    const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    let (_worker, mut client, mut upstream) = connected();
    exchange(&mut client, &mut upstream, [GET, GET_SENT, HINT, HINT]);
    let rest = format!("{HINT}HTTP/1.1 102 Processing\r\n\r\n{OK}");
    send(&mut upstream, &rest);
    expect(&mut client, &rest);
    let many = HINT.repeat(16);
    exchange(&mut client, &mut upstream, [GET, GET_SENT, &many, &many]);
    send(&mut upstream, HINT);
    expect_failure(&mut client, 502, "upstream-protocol");
}

#[test]
fn an_answer_that_ends_with_its_connection_ends_the_clients_too() {
    let (_worker, mut client, mut upstream) = connected();
    send(&mut client, GET);
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, "HTTP/1.1 200 OK\r\n\r\nsome");
    expect(&mut client, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nsome");
    send(&mut upstream, "thing");
    drop(upstream);
    expect(&mut client, "thing");
    expect_end(&mut client);
}

#[test]
fn an_http10_client_may_keep_its_connection() {
    let (_worker, mut client, mut upstream) = connected();
    let request = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    let kept = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: keep-alive\r\n\r\nok";
    exchange(&mut client, &mut upstream, [request, GET_SENT, OK, kept]);
    let head = "HEAD / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    let sent = "HEAD / HTTP/1.1\r\nHost: a\r\nx-request-id: *ID*\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n";
    exchange(
        &mut client,
        &mut upstream,
        [head, sent, chunked, "HTTP/1.1 200 OK\r\nX: y\r\nconnection: keep-alive\r\n\r\n"],
    );
    exchange(&mut client, &mut upstream, ["GET / HTTP/1.0\r\nHost: a\r\n\r\n", GET_SENT, OK, OK_CLOSE]);
    expect_end(&mut client);
}

#[test]
fn an_http10_client_gets_neither_chunks_nor_interim_answers() {
    let (worker, mut client, mut upstream) = connected();
    let request = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    let answer = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        3;x\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n";
    exchange(
        &mut client,
        &mut upstream,
        [request, GET_SENT, answer, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabcde"],
    );
    expect_end(&mut client);
    // The upstream's message had an end: its connection stays.
    let mut client = worker.connect();
    exchange(&mut client, &mut upstream, [GET, GET_SENT, OK, OK]);
}

#[test]
fn chunks_are_framed_anew_and_their_trailers_kept() {
    let (_worker, mut client, mut upstream) = connected();
    exchange(
        &mut client,
        &mut upstream,
        [
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n003\r\nabc\r\n2;q\r\nde\r\n0\r\nA: b\r\nHost: c\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nx-request-id: *ID*\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\nz\r\n0\r\nX-Sum: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\nX-Sum: 1\r\n\r\n",
        ],
    );
    exchange(&mut client, &mut upstream, [GET, GET_SENT, OK, OK]);
}

#[test]
fn a_client_that_says_close_is_closed_and_its_upstream_kept() {
    let (worker, mut client, mut upstream) = connected();
    exchange(
        &mut client,
        &mut upstream,
        ["GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", GET_SENT, OK, OK_CLOSE],
    );
    expect_end(&mut client);
    let mut client = worker.connect();
    exchange(&mut client, &mut upstream, [GET, GET_SENT, OK, OK]);
}

#[test]
fn a_client_that_waits_for_100_may_get_its_final_answer_at_once() {
    const ASKING: &str = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    const ASKED: &str =
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nx-request-id: *ID*\r\n\r\n";
    let (_worker, mut client, mut upstream) = connected();
    // Whether the body follows is the client's choice now, so nobody knows where the next request would begin.
    exchange(
        &mut client,
        &mut upstream,
        [
            ASKING,
            ASKED,
            "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 417 No\r\nContent-Length: 0\r\nconnection: close\r\n\r\n",
        ],
    );
    expect_end(&mut client);
    expect_end(&mut upstream);
}

#[test]
fn an_upstream_that_never_says_100_gets_the_body_when_the_client_stops_waiting() {
    let (_worker, mut client, mut upstream) = connected();
    send(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    expect(
        &mut upstream,
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nx-request-id: *ID*\r\n\r\n",
    );
    send(&mut client, "abc");
    expect(&mut upstream, "abc");
    // Of HTTP/1.0: it knows nothing of interim answers and ends its connection.
    send(&mut upstream, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    expect(&mut client, OK);
    expect_end(&mut upstream);
    send(&mut client, GET);
}

#[test]
fn the_fields_of_one_connection_end_there_both_ways() {
    let (_worker, mut client, mut upstream) = connected();
    exchange(
        &mut client,
        &mut upstream,
        [
            "GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: timeout=9\r\nConnection: X-Mine, keep-alive\r\nX-Mine: 1\r\nTE: trailers\r\n\
             Proxy-Connection: close\r\nA: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nx-request-id: *ID*\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=60\r\nConnection: X-Theirs\r\nX-Theirs: 1\r\n\r\nok",
            OK,
        ],
    );
}
