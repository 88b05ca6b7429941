//! Waits that end.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::tls::CredentialStore;

/// The proxied application, with a route that gives answers `limit`.
fn timed(limit: Duration) -> (RunningWorker, Application) {
    let application = Application::start();
    let mut change = outbound(Protocol::Http, &[application.address], None);
    change.routes[0].virtual_hosts[0].routes[0].timeout = Some(limit);
    (RunningWorker::start(Direction::Outbound, destination(), change), application)
}

#[test]
fn an_answer_that_is_too_late_is_a_504() {
    let (worker, application) = timed(Duration::from_millis(50));
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    expect_failure(&mut client, 504, "request-timeout");
    expect_end(&mut upstream);
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, OK);
    expect(&mut client, OK);
}

#[test]
fn an_answer_that_takes_too_long_is_cut_off_and_nothing_written_into_it() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbeginning";
    let (worker, application) = timed(Duration::from_millis(500));
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, HEAD);
    expect(&mut client, HEAD);
    expect_end(&mut client);
    expect_end(&mut upstream);
}

#[test]
fn a_head_that_trickles_in_is_given_up() {
    let application = Application::start();
    let change = outbound(Protocol::Http, &[application.address], None);
    let credentials = Arc::new(CredentialStore::new());
    let worker = RunningWorker::start_tuned(Direction::Outbound, destination(), change, credentials, |worker| {
        worker.timeouts.head = Duration::from_millis(300);
    });
    let mut client = worker.connect();
    send(&mut client, "GET / HTTP/1.1\r\nA: ");
    client.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    let mut answer = [0; 12];
    let answered = (0..100).any(|_| {
        let _ = client.write_all(b"a");
        match client.read_exact(&mut answer) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            Err(error) => panic!("{error}"),
        }
    });
    assert!(answered, "each byte bought more time");
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[test]
fn a_connection_without_requests_is_closed_after_a_while() {
    let application = Application::start();
    let change = outbound(Protocol::Http, &[application.address], None);
    let credentials = Arc::new(CredentialStore::new());
    let worker = RunningWorker::start_tuned(Direction::Outbound, destination(), change, credentials, |worker| {
        worker.timeouts.client_idle = Duration::from_millis(50);
    });
    expect_end(&mut worker.connect());
}

/// The proxied application behind a worker that lets nothing rest for longer than `limit`.
fn restless(limit: Duration) -> (RunningWorker, Application) {
    let application = Application::start();
    let change = outbound(Protocol::Http, &[application.address], None);
    let credentials = Arc::new(CredentialStore::new());
    let worker = RunningWorker::start_tuned(Direction::Outbound, destination(), change, credentials, move |worker| {
        worker.timeouts.stream_idle = limit;
    });
    (worker, application)
}

#[test]
fn an_upstream_that_says_nothing_is_a_504_with_the_limit() {
    let (worker, application) = restless(Duration::from_millis(100));
    for request in [GET, POST] {
        let mut client = worker.connect();
        send(&mut client, request);
        let mut upstream = application.accept();
        expect(&mut upstream, if request == GET { GET_SENT } else { POST_SENT });
        let (head, body) = read_message(&mut BufReader::new(&client), false);
        assert!(head.starts_with("HTTP/1.1 504 ") && head.contains("weft-error: stream-idle\r\n"), "{head}");
        let body = String::from_utf8(body).expect("text");
        assert!(body.contains("limit 100ms") && body.contains("outbound proxy of"), "{body}");
        expect_end(&mut upstream);
    }
}

#[test]
fn a_client_that_stops_in_its_body_is_a_408() {
    let (worker, application) = restless(Duration::from_millis(100));
    for rest in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let mut client = worker.connect();
        send(&mut client, &format!("POST / HTTP/1.1\r\nHost: a\r\n{rest}"));
        let mut upstream = application.accept();
        expect_failure(&mut client, 408, "client-stalled");
        expect_end(&mut client);
        let mut seen = Vec::new();
        let _ = upstream.read_to_end(&mut seen);
        assert!(seen.ends_with(b"abc") || seen.ends_with(b"abc\r\n"), "{:?}", shown(&seen));
    }
}

#[test]
fn an_answer_that_stops_is_cut_off() {
    const BEGINNING: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    let (worker, application) = restless(Duration::from_millis(100));
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, BEGINNING);
    expect(&mut client, BEGINNING);
    expect_end(&mut client);
    expect_end(&mut upstream);
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_loses_it() {
    let (worker, application) = restless(Duration::from_millis(200));
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    let block = vec![b'x'; 1 << 20];
    let end = (0..1000).find_map(|_| upstream.write_all(&block).err());
    assert!(end.is_some(), "the proxy took all of it");
    worker.wait_until("nothing is held", |_| crate::stream::lent() == 0);
    drop(client);
}

#[test]
fn what_moves_slowly_does_not_rest() {
    let (worker, application) = restless(Duration::from_millis(400));
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n");
    expect(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n");
    upstream.set_read_timeout(Some(Duration::from_millis(60))).expect("a timeout");
    for _ in 0..16 {
        // Paces itself by what does not come.
        assert!(upstream.read(&mut [0; 1]).is_err(), "the request was given up");
        send(&mut upstream, "x");
        expect(&mut client, "x");
    }
}

#[test]
fn a_tunnel_that_carries_nothing_is_closed() {
    let application = Application::start();
    let change = outbound(Protocol::Tcp, &[application.address], None);
    let credentials = Arc::new(CredentialStore::new());
    let worker = RunningWorker::start_tuned(Direction::Outbound, destination(), change, credentials, |worker| {
        worker.timeouts.tcp_idle = Duration::from_millis(50);
    });
    let mut client = worker.connect();
    let mut upstream = application.accept();
    expect_end(&mut client);
    expect_end(&mut upstream);
}
