//! Exchanges that end before their time, from either side.

use super::*;

fn asked() -> (RunningWorker, Application, TcpStream, TcpStream) {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    (worker, application, client, upstream)
}

/// A new client's request gets a new upstream connection: the old one was not kept.
#[track_caller]
fn expect_new_connection(worker: &RunningWorker, application: &Application) {
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, OK);
    expect(&mut client, OK);
}

#[test]
fn an_answer_before_the_requests_end_reaches_the_client_and_ends_both_connections() {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    send(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc");
    let mut upstream = application.accept();
    expect(&mut upstream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\nx-request-id: *ID*\r\n\r\nabc");
    send(&mut upstream, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    expect(&mut client, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nconnection: close\r\n\r\nno");
    expect_end(&mut client);
    expect_end(&mut upstream);
    expect_new_connection(&worker, &application);
}

#[test]
fn an_early_answer_survives_a_client_that_keeps_sending() {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    send(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
    let mut upstream = application.accept();
    expect(&mut upstream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\nx-request-id: *ID*\r\n\r\n");
    send(&mut upstream, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    drop(upstream);
    send(&mut client, &"x".repeat(3_000_000));
    expect(&mut client, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nconnection: close\r\n\r\nno");
}

#[test]
fn a_client_that_hangs_up_before_its_answer_takes_its_request_back() {
    let (worker, application, client, mut upstream) = asked();
    drop(client);
    expect_end(&mut upstream);
    expect_new_connection(&worker, &application);
}

#[test]
fn a_client_that_hangs_up_during_a_silent_answer_ends_it() {
    for head in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na",
    ] {
        let (worker, application, mut client, mut upstream) = asked();
        send(&mut upstream, head);
        expect(&mut client, head);
        drop(client);
        expect_end(&mut upstream);
        expect_new_connection(&worker, &application);
    }
}

#[test]
fn a_client_that_hangs_up_in_its_body_ends_the_request() {
    for cut in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let (worker, application) = proxied();
        let mut client = worker.connect();
        send(&mut client, &format!("POST / HTTP/1.1\r\nHost: a\r\n{cut}"));
        let mut upstream = application.accept();
        let (fields, body) = cut.split_once("\r\n\r\n").expect("a body");
        expect(&mut upstream, &format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\nx-request-id: *ID*\r\n\r\n{body}"));
        drop(client);
        expect_end(&mut upstream);
        expect_new_connection(&worker, &application);
    }
}

#[test]
fn an_upstream_that_closes_in_its_body_cuts_the_client_off() {
    let table = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n",
    ];
    for answer in table {
        let (worker, application, mut client, mut upstream) = asked();
        send(&mut upstream, answer);
        expect(&mut client, answer);
        drop(upstream);
        expect_end(&mut client);
        expect_new_connection(&worker, &application);
    }
}

#[test]
fn an_answer_that_is_no_http_is_a_502() {
    let table = [
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "\0\0\0\0",
    ];
    for answer in table {
        let (worker, application, mut client, mut upstream) = asked();
        send(&mut upstream, answer);
        expect_failure(&mut client, 502, "upstream-protocol");
        expect_end(&mut upstream);
        expect_new_connection(&worker, &application);
    }
}

#[test]
fn an_answers_head_over_the_limits_is_a_502() {
    let table = [
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(201)),
        format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(64 * 1024)),
    ];
    for answer in table {
        let (_worker, _application, mut client, mut upstream) = asked();
        send(&mut upstream, &answer);
        expect_failure(&mut client, 502, "upstream-limit");
    }
}

#[test]
fn a_chunk_that_goes_wrong_after_the_head_cuts_the_client_off() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
    let (worker, application, mut client, mut upstream) = asked();
    send(&mut upstream, HEAD);
    expect(&mut client, HEAD);
    send(&mut upstream, "xyz\r\n");
    expect_end(&mut client);
    expect_end(&mut upstream);
    expect_new_connection(&worker, &application);
}

#[test]
fn bytes_after_an_answer_spoil_its_connection_and_nothing_else() {
    let (worker, application, mut client, mut upstream) = asked();
    send(&mut upstream, &format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"));
    expect(&mut client, OK);
    send(&mut client, GET);
    let mut second = application.accept();
    expect(&mut second, GET_SENT);
    send(&mut second, OK);
    expect(&mut client, OK);
    expect_end(&mut upstream);
    drop(worker);
}

#[test]
fn bytes_on_an_idle_connection_spoil_it_and_nothing_else() {
    let (worker, application, mut client, mut upstream) = asked();
    send(&mut upstream, OK);
    expect(&mut client, OK);
    send(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    super::reuse::wait_until_noticed(&worker);
    send(&mut client, GET);
    let mut second = application.accept();
    expect(&mut second, GET_SENT);
    send(&mut second, OK);
    expect(&mut client, OK);
}

#[test]
fn a_connection_closed_between_requests_is_just_closed() {
    let (worker, _application, mut client, mut upstream) = asked();
    send(&mut upstream, OK);
    expect(&mut client, OK);
    client.shutdown(std::net::Shutdown::Write).expect("half-closed");
    expect_end(&mut client);
    worker.wait_until("no connection is open", |worker| worker.drain.open(Direction::Outbound) == 0);
}

#[test]
fn a_client_that_said_its_last_word_may_end_its_side_and_still_gets_its_answer() {
    let last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for (request, sent) in [
        (last, GET_SENT),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", GET_SENT),
        ("POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", POST_SENT),
    ] {
        let (worker, application) = proxied();
        let mut client = worker.connect();
        send(&mut client, request);
        client.shutdown(std::net::Shutdown::Write).expect("half-closed");
        let mut upstream = application.accept();
        expect(&mut upstream, sent);
        // The end of the client's side has come to the proxy when a connection made after it is known there.
        let later = worker.connect();
        worker.wait_until("a later connection is known", |worker| worker.drain.open(Direction::Outbound) == 2);
        send(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
        expect(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\no");
        send(&mut upstream, "k");
        expect(&mut client, "k");
        expect_end(&mut client);
        drop(later);
    }
}

#[test]
fn a_client_that_would_go_on_and_ends_its_side_takes_its_request_back() {
    let (worker, application, mut client, mut upstream) = asked();
    client.shutdown(std::net::Shutdown::Write).expect("half-closed");
    expect_end(&mut upstream);
    expect_end(&mut client);
    expect_new_connection(&worker, &application);
}
