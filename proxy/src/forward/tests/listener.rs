//! Waits and limits that a listener says for its clients, in place of the proxy's own.

use std::sync::Arc;
use std::time::Duration;

use weft_core::model::HttpOptions;

use super::*;
use crate::tls::CredentialStore;

/// The proxied application behind a listener with these options, in a proxy whose own settings would never strike.
fn listening(options: HttpOptions) -> (RunningWorker, Application) {
    let application = Application::start();
    let mut change = outbound(Protocol::Http, &[application.address], None);
    change.listeners[0].http = Some(Arc::new(options));
    let credentials = Arc::new(CredentialStore::new());
    let worker = RunningWorker::start_tuned(Direction::Outbound, destination(), change, credentials, |worker| {
        let never = Duration::from_hours(1);
        worker.timeouts.head = never;
        worker.timeouts.stream_idle = never;
        worker.timeouts.client_idle = never;
    });
    (worker, application)
}

#[test]
fn a_listeners_waits_take_the_place_of_the_proxys() {
    let short = Some(Duration::from_millis(100));
    let (worker, _application) = listening(HttpOptions { head_timeout: short, ..HttpOptions::default() });
    let mut client = worker.connect();
    send(&mut client, "GET / HTTP/1.1\r\nA: ");
    expect_failure(&mut client, 408, "client-timeout");

    let (worker, _application) = listening(HttpOptions { idle: short, ..HttpOptions::default() });
    expect_end(&mut worker.connect());

    let (worker, application) = listening(HttpOptions { stream_idle: short, ..HttpOptions::default() });
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    let (head, body) = read_message(&mut BufReader::new(&client), false);
    assert!(head.contains("weft-error: stream-idle\r\n"), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("limit 100ms"), "{}", String::from_utf8_lossy(&body));
}

#[test]
fn a_listeners_limits_take_the_place_of_the_proxys() {
    let (worker, application) =
        listening(HttpOptions { head_bytes: Some(1024), fields: Some(3), ..HttpOptions::default() });
    for (field, code) in
        [(format!("X: {}\r\n", "x".repeat(1100)), "head-too-large"), ("X: y\r\n".repeat(3), "too-many-fields")]
    {
        let mut client = worker.connect();
        send(&mut client, &format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n"));
        expect_failure(&mut client, 431, code);
    }
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, OK);
    expect(&mut client, OK);
}

#[test]
fn a_connection_takes_as_many_requests_as_its_listener_allows() {
    let (worker, application) = listening(HttpOptions { connection_requests: Some(2), ..HttpOptions::default() });
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, OK);
    expect(&mut client, OK);
    send(&mut client, GET);
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, OK);
    expect(&mut client, OK_CLOSE);
    expect_end(&mut client);
}

#[test]
fn a_connection_grows_as_old_as_its_listener_allows() {
    let age = Some(Duration::from_secs(1));
    let (worker, application) = listening(HttpOptions { connection_age: age, ..HttpOptions::default() });
    // With a request under way at that moment: it is answered, and the last.
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, OK);
    expect(&mut client, OK);
    // Idle at that moment.
    expect_end(&mut client);
}

#[test]
fn the_answer_to_a_client_whose_time_is_over_says_so() {
    let age = Some(Duration::ZERO);
    let (worker, application) = listening(HttpOptions { connection_age: age, ..HttpOptions::default() });
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, OK);
    expect(&mut client, OK_CLOSE);
    expect_end(&mut client);
}
