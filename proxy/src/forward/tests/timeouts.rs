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
